//! Connections: names looked up, TCP, proxies and TLS set up, and the stream read strictly.
//!
//! TLS is done here and awc is given `http://host:443/` URLs, because awc would put TLS outside of this stream, and then a
//! body cut off by a proper TLS close would go unnoticed: [`Stream`] turns the end of input into an error, and only a body
//! that awc still waits for ever meets it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_rt::net::{ActixStream, Ready, TcpStream};
use actix_service::Service;
use actix_tls::connect::{ConnectError, ConnectInfo, Connection};
use awc::http::Uri;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_socks::TargetAddr;

use super::error::status_may_pass;
use super::interim::Interim;
use super::proxy::{Proxy, ProxyRule, ProxyScheme, bare, host_port};
use super::reach::Reach;
use super::tls::Party;
use super::tunnel::{self, TunnelError};
use super::{EgressError, Wait};

/// A connection, whatever it is made of: TLS may lie within the TLS of a proxy.
#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    Tls(Box<TlsStream<Io>>),
}

impl Io {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(io) => io,
            Self::Tls(io) => io.get_ref().0.tcp(),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// A connection whose end of input is an error, and in which interim answers are not seen.
#[derive(Debug)]
pub(super) struct Stream {
    io: Io,
    interim: Interim,
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, interim } = self.get_mut();
        let before = buf.filled().len();
        if buf.remaining() == 0 || interim.hand_on(buf) {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(Pin::new(&mut *io).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")));
            }
            interim.look(buf, before)?;
            if buf.filled().len() > before || interim.hand_on(buf) {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { io, interim } = self.get_mut();
        interim.expect_head();
        Pin::new(io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl ActixStream for Stream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(self.io.tcp(), cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(self.io.tcp(), cx)
    }
}

/// Whether a request is waiting for a connection to be made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Dialing {
    /// It uses one that there was.
    #[default]
    Not,
    /// It is being made.
    Since,
    /// It was made at this time.
    Done(Instant),
}

pub(super) type Dial = Cell<Dialing>;

tokio::task_local! {
    /// The dialing of the request that is being sent.
    pub(super) static DIAL: Rc<Dial>;
}

/// Notes how far the dialing of the request that is being sent has come.
fn note(dialing: Dialing) {
    // A connection that is made for nobody in particular is nobody's wait.
    let _ = DIAL.try_with(|dial| dial.set(dialing));
}

/// Makes connections for one upstream's client.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) limit: Duration,
    /// With TLS to the server, where there are settings for it.
    pub(super) tls: Option<ClientTls>,
    /// Which proxy leads to a server.
    pub(super) proxy: Rc<ProxyRule>,
    /// TLS to a proxy.
    pub(super) proxy_tls: ClientTls,
    /// Whether a proxy has to lead on to servers without TLS too, rather than be told with each request where that is to go.
    pub(super) tunnels: bool,
    /// Which servers may be reached, where others than the configuration name them.
    pub(super) reach: Option<Reach>,
}

/// The client's side of TLS, and towards whom.
#[derive(Clone)]
pub(super) struct ClientTls {
    pub(super) config: Arc<rustls::ClientConfig>,
    pub(super) party: Party,
}

/// What is being waited for, for the error that says so.
type Doing = RefCell<String>;

impl Service<ConnectInfo<Uri>> for Connector {
    type Response = Connection<Uri, Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    actix_service::always_ready!();

    fn call(&self, info: ConnectInfo<Uri>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let uri = info.request().clone();
            note(Dialing::Since);
            let doing = Doing::default();
            let stream = match tokio::time::timeout(this.limit, this.open(&uri, &doing)).await {
                Ok(opened) => opened,
                Err(_) => Err(EgressError::Timeout(Wait::Connect(doing.take()))),
            };
            note(Dialing::Done(Instant::now()));
            // awc knows io errors only; the client takes this one out of it again.
            stream
                .map(|io| Connection::new(uri, Stream { io, interim: Interim::default() }))
                .map_err(|e| ConnectError::Io(io::Error::other(e)))
        })
    }
}

/// A connection to a server, through a proxy or not, for a program that speaks with it by itself.
pub(super) async fn tunnel_to(
    proxy: ProxyRule,
    proxy_tls: Arc<rustls::ClientConfig>,
    (host, port): (&str, u16),
    limit: Duration,
) -> Result<impl AsyncRead + AsyncWrite + Unpin, EgressError> {
    let proxy_tls = ClientTls { config: proxy_tls, party: Party::Other };
    let connector = Connector { limit, tls: None, proxy: Rc::new(proxy), proxy_tls, tunnels: true, reach: None };
    let doing = Doing::default();
    let opened = tokio::time::timeout(limit, connector.to_server(host, port, false, &doing)).await;
    opened.unwrap_or_else(|_| Err(EgressError::Timeout(Wait::Connect(doing.take()))))
}

impl Connector {
    async fn open(&self, uri: &Uri, doing: &Doing) -> Result<Io, EgressError> {
        let host = bare(uri.host().unwrap_or_default());
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let io = self.to_server(host, port, self.tls.is_some(), doing).await?;
        match &self.tls {
            None => Ok(io),
            Some(tls) => {
                doing.replace(format!("TLS with {}", host_port(host, port)));
                handshake(tls, io, host, port).await
            }
        }
    }

    async fn to_server(&self, host: &str, port: u16, https: bool, doing: &Doing) -> Result<Io, EgressError> {
        match self.proxy.choose(https, host, port) {
            None => Ok(Io::Tcp(dial(host, port, doing, self.reach.as_ref()).await?)),
            Some(proxy) => self.through(proxy, host, port, doing).await,
        }
    }

    /// A connection that a proxy leads on to the server. For plain http it ends at the proxy, which is told with each request
    /// where that is to go.
    async fn through(&self, proxy: &Proxy, host: &str, port: u16, doing: &Doing) -> Result<Io, EgressError> {
        // Behind its own look-ups the proxy decides; an address is plain.
        self.reach.as_ref().map_or(Ok(()), |reach| reach.check_name(host, port))?;
        let io = self.to_proxy(proxy, doing).await?;
        let to = host_port(host, port);
        doing.replace(format!("waiting for the proxy {proxy} to lead to {to}"));
        let refused = |why: TunnelError| {
            let may_pass = match &why {
                TunnelError::Refused(status, _) => status_may_pass(*status),
                TunnelError::Broken(_) => true,
                TunnelError::Socks(_) => false,
            };
            EgressError::Proxy { proxy: proxy.to_string(), to: to.clone(), why: why.to_string(), may_pass }
        };
        match proxy.scheme {
            ProxyScheme::Http | ProxyScheme::Https if self.tls.is_none() && !self.tunnels => Ok(io),
            ProxyScheme::Http | ProxyScheme::Https => {
                let mut io = io;
                tunnel::connect(proxy, &mut io, (host, port), self.tls.is_none()).await.map_err(refused)?;
                Ok(io)
            }
            ProxyScheme::Socks5h => {
                let target = match host.parse::<IpAddr>() {
                    Ok(ip) => TargetAddr::Ip((ip, port).into()),
                    Err(_) => TargetAddr::Domain(host.into(), port),
                };
                tunnel::socks(proxy, io, target).await.map_err(refused)
            }
            ProxyScheme::Socks5 => {
                doing.replace(format!("looking up {host}"));
                // A proxy in another network may reach one kind of address only, and says so; the next one is tried then.
                let mut io = Some(io);
                let mut last = None;
                let found = look_up(host, port).await.map_err(|e| match e {
                    EgressError::Resolve { host, why } => {
                        let why =
                            format!("{why} (with socks5:// names are looked up here; socks5h:// leaves that to the proxy {proxy})");
                        EgressError::Resolve { host, why }
                    }
                    e => e,
                });
                for address in found? {
                    self.reach.as_ref().map_or(Ok(()), |reach| reach.check(host, port, address.ip()))?;
                    let io = match io.take() {
                        Some(io) => io,
                        None => self.to_proxy(proxy, doing).await?,
                    };
                    doing.replace(format!("waiting for the proxy {proxy} to lead to {to}"));
                    match tunnel::socks(proxy, io, TargetAddr::Ip(address)).await {
                        Ok(io) => return Ok(io),
                        Err(e) => last = Some(refused(e)),
                    }
                }
                Err(last.unwrap_or_else(|| no_address(host)))
            }
        }
    }

    /// A connection to a proxy.
    async fn to_proxy(&self, proxy: &Proxy, doing: &Doing) -> Result<Io, EgressError> {
        let unusable = |e| EgressError::NoProxy { proxy: proxy.to_string(), why: Box::new(e) };
        let io = Io::Tcp(dial(&proxy.host, proxy.port, doing, None).await.map_err(unusable)?);
        if proxy.scheme != ProxyScheme::Https {
            return Ok(io);
        }
        doing.replace(format!("TLS with the proxy {proxy}"));
        handshake(&self.proxy_tls, io, &proxy.host, proxy.port).await.map_err(unusable)
    }
}

async fn handshake(tls: &ClientTls, io: Io, host: &str, port: u16) -> Result<Io, EgressError> {
    let failed = |why: String| EgressError::Tls { host: host_port(host, port), why };
    let server = ServerName::try_from(host.to_owned()).map_err(|e| failed(e.to_string()))?;
    match TlsConnector::from(Arc::clone(&tls.config)).connect(server, io).into_fallible().await {
        Ok(stream) => Ok(Io::Tls(Box::new(stream))),
        Err((e, mut io)) => {
            if let Some(why) = super::tls::why(&e, tls.party) {
                return Err(failed(why));
            }
            // A server that refuses a client may close before it has read all that the client writes; its alert lies unread then.
            let mut record = [0; 7];
            let unread = e.kind() != io::ErrorKind::UnexpectedEof && io.read_exact(&mut record).await.is_ok();
            let alert = if unread { super::tls::why_alert(record, tls.party) } else { None };
            let broke = || EgressError::Broken(format!("the TLS handshake with {} broke off ({e})", host_port(host, port)));
            Err(alert.map_or_else(broke, failed))
        }
    }
}

/// How long one address is tried alone (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Looks the name up and tries its addresses, each further one when the one before has failed or is late, so that an address that
/// leads nowhere does not use up all of the time. The caller limits that.
async fn dial(host: &str, port: u16, doing: &Doing, reach: Option<&Reach>) -> Result<TcpStream, EgressError> {
    doing.replace(format!("looking up {host}"));
    let addresses = look_up(host, port).await?;
    if let Some(reach) = reach {
        addresses.iter().try_for_each(|address| reach.check(host, port, address.ip()))?;
    }
    let mut addresses = addresses.into_iter();
    doing.replace(format!("connecting to {}", host_port(host, port)));
    let mut tries = FuturesUnordered::new();
    let mut last = None;
    loop {
        match addresses.next() {
            Some(address) => tries.push(TcpStream::connect(address)),
            None if tries.is_empty() => break,
            None => {}
        }
        let tried = if addresses.len() == 0 {
            tries.next().await
        } else {
            tokio::time::timeout(HEAD_START, tries.next()).await.unwrap_or_default()
        };
        match tried {
            Some(Ok(stream)) => {
                // Requests are small and answered at once; waiting to fill a packet only adds time.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            // What an address says of the server says more than that another could not be tried.
            Some(Err(e)) if last.is_some() && is_exhaustion(&e) => {}
            Some(Err(e)) => last = Some(e),
            None => {}
        }
    }
    Err(match last {
        None => no_address(host),
        Some(e) if is_exhaustion(&e) => EgressError::Exhausted { host: host_port(host, port), why: e.to_string() },
        Some(e) => EgressError::Connect { host: host_port(host, port), why: e.to_string() },
    })
}

/// Whether this machine is at its end, rather than the other one.
fn is_exhaustion(e: &io::Error) -> bool {
    use rustix::io::Errno;
    let ends = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(e).is_some_and(|e| ends.contains(&e))
}

pub(super) async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, EgressError> {
    let found = tokio::net::lookup_host((host, port)).await;
    found.map(Iterator::collect).map_err(|e| {
        let host = host.to_owned();
        // The resolver does not say that it had no descriptor for asking.
        match std::net::UdpSocket::bind(("127.0.0.1", 0)) {
            Err(own) if is_exhaustion(&own) => EgressError::Exhausted { host, why: own.to_string() },
            Ok(_) | Err(_) => EgressError::Resolve { host, why: e.to_string() },
        }
    })
}

fn no_address(host: &str) -> EgressError {
    EgressError::Resolve { host: host.to_owned(), why: "it has no address".into() }
}

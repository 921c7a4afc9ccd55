//! Connections: names looked up, TCP and TLS set up, and the stream read strictly.
//!
//! TLS is done here and awc is given `http://host:443/` URLs, because awc would put TLS outside of this stream, and then a
//! body cut off by a proper TLS close would go unnoticed: [`Stream`] turns the end of input into an error, and only a body
//! that awc still waits for ever meets it.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_rt::net::{ActixStream, Ready, TcpStream};
use actix_service::Service;
use actix_tls::connect::{ConnectError, ConnectInfo, Connection};
use awc::http::Uri;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{EgressError, Wait};

/// A connection, whatever it is made of.
#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection whose end of input is an error.
#[derive(Debug)]
pub(super) struct Stream(Io);

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match &self.0 {
            Io::Tcp(io) => io,
            Io::Tls(io) => io.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        let polled = match &mut self.0 {
            Io::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        };
        match polled {
            Poll::Ready(Ok(())) if room > 0 && buf.filled().len() == before => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")))
            }
            other => other,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Io::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Io::Tcp(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Io::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

impl ActixStream for Stream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(self.tcp(), cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(self.tcp(), cx)
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
    /// With TLS, where there are settings for it.
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
}

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
            let stream = match tokio::time::timeout(this.limit, this.open(&uri)).await {
                Ok(opened) => opened,
                Err(_) => Err(EgressError::Timeout(Wait::Connect)),
            };
            note(Dialing::Done(Instant::now()));
            // awc knows io errors only; the client takes this one out of it again.
            stream.map(|s| Connection::new(uri, s)).map_err(|e| ConnectError::Io(io::Error::other(e)))
        })
    }
}

impl Connector {
    async fn open(&self, uri: &Uri) -> Result<Stream, EgressError> {
        let name = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let shown = format!("{name}:{port}");
        let tcp = dial(&name, port).await?;
        // Requests are small and answered at once; waiting to fill a packet only adds time.
        let _ = tcp.set_nodelay(true);
        let Some(tls) = &self.tls else { return Ok(Stream(Io::Tcp(tcp))) };
        let server = ServerName::try_from(name).map_err(|e| EgressError::Tls { host: shown.clone(), why: e.to_string() })?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(server, tcp).await;
        let stream = stream.map_err(|e| EgressError::Tls { host: shown, why: e.to_string() })?;
        Ok(Stream(Io::Tls(Box::new(stream))))
    }
}

/// Looks the name up and tries its addresses in turn; the caller limits the time.
async fn dial(host: &str, port: u16) -> Result<TcpStream, EgressError> {
    let found = tokio::net::lookup_host((host, port)).await;
    let addresses: Vec<_> = found.map_err(|e| EgressError::Resolve { host: host.to_owned(), why: e.to_string() })?.collect();
    let mut last = None;
    for address in &addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = Some(e),
        }
    }
    Err(match last {
        None => EgressError::Resolve { host: host.to_owned(), why: "it has no address".into() },
        Some(e) => EgressError::Connect { host: format!("{host}:{port}"), why: e.to_string() },
    })
}

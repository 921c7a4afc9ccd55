//! Layer 7: HTTP in and out.
//!
//! The whole route table stands in [`Front::slow`] and in [`admin`]. A request meets, in this order: the method, the question which
//! team it is of ([`identify`]), the limits on how often that asks ([`limits`]), the memory of ready answers (by the path as it
//! came, before anything is parsed), the limits on its size, the parser, the gateway. What is answered from memory is sent with
//! headers made once and without a task, a lock that waits, or a parse.
//!
//! The listeners are actix's; the service behind them takes its requests directly, since one pattern needs no router. HTTP/1 is
//! actix's too, over connections of our own ([`connection`]); HTTP/2 is the h2 crate's ([`h2`]), where TLS ([`tls`]) agreed on it.

pub mod admin;
pub mod audit;
mod body;
mod connection;
mod error;
pub mod explain;
mod h2;
mod head;
pub mod identify;
pub mod limits;
pub mod observe;
mod respond;
pub mod site;
pub mod tls;
pub mod vanity;

use std::future::{Future, Ready, ready};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_http::error::DispatchError;
use actix_http::header::{HeaderMap, HeaderValue};
use actix_http::{HttpMessage, HttpService, Method, Request, Response, StatusCode};
use actix_rt::net::TcpStream;
use actix_service::{Service, ServiceFactory, fn_factory, fn_service};
use rustix::net::sockopt;

use crate::base::Call;
use crate::base::call::fresh_id;
use crate::gateway::{Content, Outcome, Trail};
use crate::module::Ask;
use crate::sumdb::SumdbAsk;
use body::Body;
use connection::{Connection, Slot, Wire};
use error::Refusal;
use identify::{Address, Entry, Sender, client_of, find_sender, sender};
use observe::{Record, Visitor};
use respond::{Prepared, REQUEST_ID};
pub use site::{Entrance, Shared, Site};
use tls::ClientCertificate;

/// The longest path that is read; the longest module path and version together stay below it.
const MAX_PATH: usize = 4096;
/// The most bytes of header fields, names and values, that are read.
const MAX_HEADERS: usize = 32 << 10;
/// How many connections may wait to be taken up.
const BACKLOG: i32 = 4096;
/// The most connections a worker holds.
const MAX_CONNECTIONS: usize = 25_000;
/// How long a client may take to send the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(90);
/// The header by which the go command asks for cached answers only.
const CACHED_ONLY: &str = "disable-module-fetch";
/// The path prefix that asks for the same.
const CACHED_ONLY_PATH: &str = "/cached-only";
/// The path prefix of checksum databases.
const SUMDB: &str = "/sumdb/";

/// One listener's settings.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Its addresses.
    pub addresses: Vec<SocketAddr>,
    /// Threads that serve; `None` is one a core.
    pub workers: Option<usize>,
    /// How long a stop waits for answers under way.
    pub grace: Duration,
    /// What it answers.
    pub role: Role,
    /// Whether TLS is spoken there.
    pub tls: bool,
}

/// What a listener answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// Module proxy requests.
    pub proxy: bool,
    /// `/-/…`.
    pub admin: bool,
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub source: std::io::Error,
}

/// Opens a listener. It serves once the returned server is awaited; signals are the caller's business.
///
/// # Errors
/// The address that cannot be had.
pub fn listen(settings: &Listen, shared: &Arc<Shared>) -> Result<actix_server::Server, ListenError> {
    let mut server = actix_server::Server::build()
        .disable_signals()
        .max_concurrent_connections(MAX_CONNECTIONS)
        .shutdown_timeout(settings.grace.as_secs().max(1));
    if let Some(workers) = settings.workers {
        server = server.workers(workers);
    }
    for address in &settings.addresses {
        let (front, stopping) = (Front { role: settings.role, shared: Arc::clone(shared) }, server.graceful_shutdown_signal());
        let tls = settings.tls;
        let opened = open(*address).and_then(|listener| {
            server.listen(format!("{address}"), listener, move || connections(front.clone(), tls, stopping.clone()))
        });
        server = opened.map_err(|source| ListenError { address: *address, source })?;
    }
    Ok(server.run())
}

/// Binds a socket. What it is set to here the connections that come over it have too.
fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    rustix::net::listen(&listener, BACKLOG)?;
    // Answers are written whole; waiting to fill a packet only adds time. A system that refuses this or the next serves all the same.
    let _ = sockopt::set_tcp_nodelay(&listener, true);
    // Within one machine nothing is lost and nobody is crowded out. A system whose congestion control paces what it sends (BBR)
    // spends up to half of a zip's time on timers there. Reno does not pace, is in every Linux and open to every process.
    if address.ip().to_canonical().is_loopback() {
        let _ = sockopt::set_tcp_congestion(&listener, "reno");
    }
    Ok(listener)
}

/// Makes a worker's service: connections, with TLS or without, and HTTP upon them.
fn connections(
    front: Front,
    tls: bool,
    stopping: actix_server::GracefulShutdownSignal,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()> {
    let (signal, service) = (stopping.clone(), front.clone());
    let http1 = HttpService::build()
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_LIMIT)
        .client_disconnect_timeout(Duration::from_secs(5))
        .graceful_shutdown_signal(move || {
            let signal = signal.clone();
            async move { signal.notified().await }
        })
        .on_connect_ext(|connection: &Connection, data| {
            data.insert(connection.wire());
        })
        .h1(fn_factory(move || ready(Ok::<_, ()>(service.clone()))));
    fn_factory(move || {
        let (front, stopping, http1) = (front.clone(), stopping.clone(), http1.new_service(()));
        async move {
            let http1 = Rc::new(http1.await?);
            Ok(fn_service(move |io: TcpStream| {
                let (front, stopping, http1) = (front.clone(), stopping.clone(), Rc::clone(&http1));
                async move {
                    let peer = io.peer_addr().ok();
                    let connection =
                        if tls { front.shake_hands(io, peer, stopping).await } else { Some(Connection::plain(io, peer)) };
                    match connection {
                        Some(connection) => http1.call((connection, peer)).await,
                        None => Ok(()),
                    }
                }
            }))
        }
    })
}

/// One worker's service.
#[derive(Clone)]
struct Front {
    role: Role,
    shared: Arc<Shared>,
}

/// A response that may be there already.
enum Responding {
    Now(Ready<Result<Response<Body>, actix_web::Error>>),
    Later(Pin<Box<dyn Future<Output = Result<Response<Body>, actix_web::Error>>>>),
}

impl Future for Responding {
    type Output = Result<Response<Body>, actix_web::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(ready) => Pin::new(ready).poll(cx),
            Self::Later(later) => later.as_mut().poll(cx),
        }
    }
}

impl Service<Request> for Front {
    type Response = Response<Body>;
    type Error = actix_web::Error;
    type Future = Responding;

    actix_service::always_ready!();

    fn call(&self, request: Request) -> Self::Future {
        let wire = request.conn_data::<Rc<Wire>>().cloned().unwrap_or_default();
        if let Some(response) = self.ready_answer(&request, &wire) {
            return Responding::Now(ready(Ok(response)));
        }
        let front = self.clone();
        Responding::Later(Box::pin(async move { Ok(front.slow(request, wire).await) }))
    }
}

impl Front {
    /// Takes a connection through the TLS handshake. One that agreed on HTTP/2 is served here to its end.
    async fn shake_hands(
        &self,
        io: TcpStream,
        peer: Option<SocketAddr>,
        stopping: actix_server::GracefulShutdownSignal,
    ) -> Option<Connection> {
        let tls = Arc::clone(self.shared.site.load().entrance.tls.as_ref()?);
        let shaken = tokio::select! {
            shaken = tls.accept(io) => shaken,
            // Who has not begun to speak is not waited for.
            () = stopping.notified() => return None,
        };
        let stream = match shaken {
            Ok(stream) => stream?,
            Err(e) => {
                tracing::debug!(peer = ?peer, error = %e, "a TLS handshake came to nothing");
                return None;
            }
        };
        let certificate = ClientCertificate::of(&stream).map(Rc::new);
        let wire = Wire { slot: Slot::default(), peer, certificate };
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Some(Connection::tls(stream, wire));
        }
        h2::serve(stream, self.clone(), Rc::new(wire), stopping.notified()).await;
        None
    }

    /// Answers a request.
    async fn answer(&self, request: Request, wire: Rc<Wire>) -> Response<Body> {
        match self.ready_answer(&request, &wire) {
            Some(response) => response,
            None => self.clone().slow(request, wire).await,
        }
    }

    /// The hot path: an answer that was made ready before, for somebody who is known.
    fn ready_answer(&self, request: &Request, wire: &Wire) -> Option<Response<Body>> {
        if *request.method() != Method::GET || !self.role.proxy || !request.uri().path().starts_with('/') {
            return None;
        }
        let site = self.shared.site.load();
        let Entrance { doors, access, limits, tls } = &site.entrance;
        let Sender::Known(caller) = sender(access, tls.as_deref(), request, wire) else { return None };
        let entry = doors.enter(doors.addressed(request), caller).ok()?;
        let path = request.uri().path().get(entry.begins..)?;
        let prepared = site.find(entry.team, path)?;
        let now = Instant::now();
        if !prepared.is_fresh(now) {
            return None;
        }
        let address = || doors.address_of(request.headers(), wire.peer);
        let admitted = limits.admit(entry.team, || client_of(entry.caller.as_deref(), address()));
        let (id, id_value) = request_id(request.headers());
        let refusal = admitted.err().map(too_often);
        let refused = refusal.as_ref().map(|refusal| refusal.text.trim_end().to_owned());
        let mut response = match refusal {
            None => prepared.respond(request.headers(), &wire.slot),
            Some(refusal) => respond::of_refusal(refusal),
        };
        if refused.is_none() && prepared.count() {
            let (site, prepared, path) = (Arc::clone(&site), Arc::clone(&prepared), path.to_owned());
            tokio::task::spawn_blocking(move || {
                if let Some(ready) = prepared.in_memory() {
                    site.put(entry.team, &path, ready);
                }
            });
        }
        response.headers_mut().insert(REQUEST_ID, id_value);
        let response = response.map_body(|_, body| body.on(wire.slot.clone()));
        let audit = self.shared.audit.load();
        if !observe::is_logged() && audit.is_none() {
            return Some(response);
        }
        let team = doors.teams[entry.team].name.clone();
        let visitor = Visitor { address: address(), caller: entry.caller, team, path: path.to_owned() };
        let trail = if refused.is_some() { Trail::default() } else { prepared.trail() };
        let mut record = Record::new(id, request, now, trail, visitor);
        record.error = refused;
        record.status = response.status();
        record.audit.clone_from(&audit);
        Some(recorded(response, record))
    }

    /// Everything else.
    async fn slow(self, request: Request, wire: Rc<Wire>) -> Response<Body> {
        let started = Instant::now();
        let (id, id_value) = request_id(request.headers());
        let head = *request.method() == Method::HEAD;
        let path = request.uri().path();
        let visitor = Visitor { address: IpAddr::from([0, 0, 0, 0]), caller: None, team: None, path: path.to_owned() };
        let mut record = Record::new(id.clone(), &request, started, Trail::default(), visitor);
        record.audit = self.shared.audit.load_full().filter(|_| self.role.proxy);
        let site = self.shared.site();
        let made = match refuse_early(&request) {
            Some(refusal) => Err(refusal),
            None if path.starts_with(head::REFUSED) => Err(refused_head(path)),
            None if path.starts_with("/-/") => self.admin(&site, &request, &wire, &mut record).await,
            None if !self.role.proxy => {
                Err(Refusal::new(StatusCode::NOT_FOUND, "this is the admin listener; there is nothing here but /-/"))
            }
            None => match self.let_in(&site, &request, &wire, None, &mut record).await {
                Ok(entry) => self.proxy(&site, &entry, &request, &wire, &id, &mut record).await,
                Err(refusal) => Err(refusal),
            },
        };
        let mut response = made.unwrap_or_else(|refusal| {
            record.error.get_or_insert_with(|| refusal.text.lines().next().unwrap_or_default().to_owned());
            respond::of_refusal(refusal)
        });
        if head {
            response = response.map_body(|_, body| body.into_head());
        }
        response.headers_mut().insert(REQUEST_ID, id_value);
        let response = response.map_body(|_, body| body.on(wire.slot.clone()));
        record.status = response.status();
        recorded(response, record)
    }

    /// Finds out who asks and for which team, and whether they may ask now. `team` is the place of the one that is named otherwise
    /// than by the path or host.
    async fn let_in(
        &self,
        site: &Site,
        request: &Request,
        wire: &Wire,
        team: Option<usize>,
        record: &mut Record,
    ) -> Result<Entry, Refusal> {
        let Entrance { doors, access, limits, tls } = &site.entrance;
        let address = doors.address_of(request.headers(), wire.peer);
        let to = team.map_or_else(|| doors.addressed(request), |team| Address { team: Some(team), begins: 0 });
        record.visitor.address = address;
        // What is refused is written down too, with what it was about.
        record.visitor.team = to.team.and_then(|team| doors.teams[team].name.clone());
        record.visitor.path.drain(..to.begins);
        let caller = match sender(access, tls.as_deref(), request, wire) {
            Sender::Known(caller) => caller,
            Sender::Unknown => find_sender(access, request, address).await.map_err(|(refusal, why)| {
                record.error = Some(why.to_string());
                *refusal
            })?,
        };
        record.visitor.caller.clone_from(&caller);
        let entry = doors.enter(to, caller).map_err(|refusal| *refusal)?;
        record.visitor.team.clone_from(&doors.teams[entry.team].name);
        limits.admit(entry.team, || client_of(entry.caller.as_deref(), address)).map_err(too_often)?;
        Ok(entry)
    }

    async fn admin(&self, site: &Site, request: &Request, wire: &Wire, record: &mut Record) -> Result<Response<Body>, Refusal> {
        if !self.role.admin {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "the pages below /-/ are on the admin listener"));
        }
        let page = admin::Page::of(request.uri().path());
        let asked = admin::Asked::of(request.uri().query().unwrap_or_default());
        // Where modules are asked for too, it is not for administrators alone.
        let team = match page {
            Some(admin::Page::Explanation) if self.role.proxy => {
                let named = asked.team.as_deref().map(|name| site.entrance.doors.named(name).ok_or_else(admin::no_such_team));
                Some(self.let_in(site, request, wire, named.transpose()?, record).await?.team)
            }
            _ => None,
        };
        admin::answer(&self.shared, site, page, &asked, team).await
    }

    async fn proxy(
        &self,
        site: &Site,
        entry: &Entry,
        request: &Request,
        wire: &Wire,
        id: &str,
        record: &mut Record,
    ) -> Result<Response<Body>, Refusal> {
        let path = request.uri().path().get(entry.begins..).unwrap_or_default();
        if vanity::is_asked(request) {
            record.what = format!("go-get {}", record.what);
            return vanity::answer(&site.vanity, request, path);
        }
        let (question, by_path) = match path.strip_prefix(CACHED_ONLY_PATH) {
            Some(rest) if rest.starts_with('/') => (rest, true),
            _ => (path, false),
        };
        let by_header = request.headers().get(CACHED_ONLY).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"true"));
        let call = Call { id: id.into(), cached_only: by_path || by_header, others: false, waits: false };
        let team = &site.gateway().teams()[entry.team];
        let result = if let Some(below) = question.strip_prefix(SUMDB) {
            let (database, ask) = SumdbAsk::parse(below, site.gateway().databases()).map_err(|e| Refusal::of_ask(&e))?;
            record.what = format!("sumdb/{database}/{ask}");
            site.gateway().sumdb(team, database, &ask, &call).await
        } else {
            let ask = Ask::parse(question).map_err(|e| Refusal::of_ask(&e))?;
            record.what = ask.to_string();
            let Outcome { result, trail } = site.gateway().answer(team, &ask, &call).await;
            record.trail = trail;
            result
        };
        match result {
            Ok(mut answer) => {
                if request.head().version < actix_http::Version::HTTP_11 {
                    answer.content = answer.content.with_length().await;
                }
                if let Some(prepared) = Prepared::of(&answer, &record.trail) {
                    site.put(entry.team, path, prepared);
                }
                if let Content::Growing { reader, .. } = &answer.content {
                    record.sum = Some(Arc::clone(&reader.word));
                }
                Ok(respond::of_answer(answer, request.headers(), wire.slot.clone()))
            }
            Err(error) => {
                record.error = Some(error.to_string());
                Err(Refusal::of_gateway(&error, &record.what, &record.trail))
            }
        }
    }
}

/// The refusal of a request that came too soon after others.
fn too_often(wait: Duration) -> Refusal {
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "more requests than this client or its team may send").after(wait)
}

/// Has the record logged when the response has been sent: at once where its bytes are all there.
fn recorded(response: Response<Body>, mut record: Record) -> Response<Body> {
    record.expected = response.body().length();
    record.answered = true;
    if response.body().is_streamed() {
        return response.map_body(|_, body| body.recorded(record));
    }
    let bytes = if response.body().is_head() { 0 } else { record.expected.unwrap_or(0) };
    record.log(bytes, true);
    response
}

/// The refusal of a head that the connection did not hand over.
fn refused_head(path: &str) -> Refusal {
    match path.strip_prefix(head::REFUSED) {
        Some("414") => Refusal::new(StatusCode::URI_TOO_LONG, "a request line of more than 8 KiB"),
        Some("431") => Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "more than 64 KiB, or 90 fields, of header"),
        _ => Refusal::new(
            StatusCode::BAD_REQUEST,
            "not a request of HTTP/1: its line, a character that no URL holds, its Host, or what says where it ends",
        ),
    }
}

/// What is refused before it is read any further.
fn refuse_early(request: &Request) -> Option<Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here"));
    }
    // HTTP/2 lets through what HTTP/1 does not.
    if !request.uri().path().starts_with('/') {
        return Some(Refusal::new(StatusCode::BAD_REQUEST, "a path begins with a slash"));
    }
    if request.uri().path().len() > MAX_PATH {
        return Some(Refusal::new(StatusCode::URI_TOO_LONG, &format!("a path of more than {MAX_PATH} bytes")));
    }
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > MAX_HEADERS {
        return Some(Refusal::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            &format!("more than {MAX_HEADERS} bytes of header fields"),
        ));
    }
    None
}

/// The client's own request id where it is short and plain, else a fresh one.
fn request_id(headers: &HeaderMap) -> (String, HeaderValue) {
    let plain = |v: &&HeaderValue| !v.is_empty() && v.len() <= 128 && v.as_bytes().iter().all(u8::is_ascii_graphic);
    if let Some(value) = headers.get(REQUEST_ID).filter(plain)
        && let Ok(text) = value.to_str()
    {
        return (text.to_owned(), value.clone());
    }
    let id = fresh_id();
    // Sixteen hexadecimal digits always make a header value.
    let value = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("-"));
    (id, value)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn connections_are_what_their_listener_is() {
        let system = TcpListener::bind("127.0.0.1:0").unwrap();
        let system = sockopt::tcp_congestion(&system).unwrap();
        for (address, congestion) in [("127.0.0.1:0", "reno"), ("0.0.0.0:0", system.as_str())] {
            let listener = open(address.parse().unwrap()).unwrap();
            let port = listener.local_addr().unwrap().port();
            let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (came, _) = listener.accept().unwrap();
            assert!(came.nodelay().unwrap(), "{address}");
            assert_eq!(sockopt::tcp_congestion(&came).unwrap(), congestion, "{address}");
        }
    }
}

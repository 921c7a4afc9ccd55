//! Layer 7: HTTP in and out.
//!
//! The whole route table stands in [`Front::slow`] and in [`admin`]. A request meets, in this order: the method, the memory of
//! ready answers (by the path as it came, before anything is parsed), the limits on its size, the parser, the gateway. What is
//! answered from memory is sent with headers made once and without a task, a lock that waits, or a parse.
//!
//! The listeners are actix-web's; the service behind them takes its requests directly, since one pattern needs no router.

pub mod admin;
mod body;
mod error;
pub mod explain;
pub mod observe;
mod respond;

use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_http::header::{HeaderMap, HeaderValue};
use actix_http::{HttpMessage, Method, Request, Response, StatusCode};
use actix_service::{Service, ServiceFactory, fn_factory};
use actix_web::HttpServer;
use actix_web::dev::AppConfig;
use arc_swap::ArcSwap;

use crate::base::Call;
use crate::base::call::fresh_id;
use crate::gateway::{Gateway, Outcome};
use crate::module::Ask;
use crate::store::Memory;
use body::Body;
use error::Refusal;
use observe::Record;
use respond::{Prepared, REQUEST_ID};

/// The longest path that is read; the longest module path and version together stay below it.
const MAX_PATH: usize = 4096;
/// The most bytes of header fields, names and values, that are read.
const MAX_HEADERS: usize = 32 << 10;
/// How long a client may take to send the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(90);
/// The header by which the go command asks for cached answers only.
const CACHED_ONLY: &str = "disable-module-fetch";
/// The path prefix that asks for the same.
const CACHED_ONLY_PATH: &str = "/cached-only";

/// What is swapped as one when the configuration is read again.
pub struct Site {
    gateway: Arc<Gateway>,
    ready: Memory<Prepared>,
}

impl Site {
    /// A gateway, and `memory` bytes for its small answers.
    pub fn new(gateway: Arc<Gateway>, memory: u64) -> Self {
        Self { gateway, ready: Memory::new(memory) }
    }

    /// The gateway.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }
}

/// What all workers share.
pub struct Shared {
    site: ArcSwap<Site>,
    stopping: AtomicBool,
}

impl Shared {
    /// Starts with a site.
    pub fn new(site: Site) -> Arc<Self> {
        Arc::new(Self { site: ArcSwap::from_pointee(site), stopping: AtomicBool::new(false) })
    }

    /// Puts another site in its place. Requests under way finish with the one they began with.
    pub fn swap(&self, site: Site) {
        self.site.store(Arc::new(site));
    }

    /// The site of this moment.
    pub fn site(&self) -> Arc<Site> {
        self.site.load_full()
    }

    /// From now on `/-/readyz` says no.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

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
pub fn listen(settings: &Listen, shared: &Arc<Shared>) -> Result<actix_web::dev::Server, ListenError> {
    let role = settings.role;
    let shared = Arc::clone(shared);
    let mut server = HttpServer::new(move || front(role, Arc::clone(&shared)))
        .disable_signals()
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_LIMIT)
        .client_disconnect_timeout(Duration::from_secs(5))
        .max_connections(25_000)
        .backlog(4096)
        .shutdown_timeout(settings.grace.as_secs().max(1));
    if let Some(workers) = settings.workers {
        server = server.workers(workers);
    }
    for address in &settings.addresses {
        server = server.bind(address).map_err(|source| ListenError { address: *address, source })?;
    }
    Ok(server.run())
}

/// Makes a worker's service.
fn front(
    role: Role,
    shared: Arc<Shared>,
) -> impl ServiceFactory<
    Request,
    Config = AppConfig,
    Response = Response<Body>,
    Error = actix_web::Error,
    InitError = (),
    Service = Front,
    Future = Pin<Box<dyn Future<Output = Result<Front, ()>>>>,
> {
    fn_factory(move || {
        let front = Front { role, shared: Arc::clone(&shared) };
        Box::pin(async move { Ok::<_, ()>(front) }) as Pin<Box<dyn Future<Output = Result<Front, ()>>>>
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
        if self.role.proxy
            && let Some(response) = self.from_memory(&request)
        {
            return Responding::Now(ready(Ok(response)));
        }
        let front = self.clone();
        Responding::Later(Box::pin(async move { Ok(front.slow(request).await) }))
    }
}

impl Front {
    /// The hot path: an answer that was made ready before.
    fn from_memory(&self, request: &Request) -> Option<Response<Body>> {
        if *request.method() != Method::GET {
            return None;
        }
        let path = request.uri().path();
        let site = self.shared.site.load();
        let prepared = site.ready.get(path)?;
        let now = Instant::now();
        if !prepared.is_fresh(now) {
            return None;
        }
        let (id, id_value) = request_id(request.headers());
        let mut response = prepared.respond(request.headers());
        response.headers_mut().insert(REQUEST_ID, id_value);
        observe::hot_line(&id, path, prepared.body.len(), now, prepared.upstream.as_deref());
        Some(response)
    }

    /// Everything else.
    async fn slow(self, request: Request) -> Response<Body> {
        let started = Instant::now();
        let (id, id_value) = request_id(request.headers());
        let head = *request.method() == Method::HEAD;
        let mut record = Record {
            id: id.clone(),
            method: request.method().to_string(),
            what: request.uri().path().chars().take(MAX_PATH).collect(),
            status: StatusCode::OK,
            started,
            trail: crate::gateway::Trail::default(),
            error: None,
            expected: None,
            complete: false,
            aborted: None,
        };
        let made = match refuse_early(&request) {
            Some(refusal) => Err(refusal),
            None if request.uri().path().starts_with("/-/") => self.admin(&request).await,
            None => self.proxy(&request, &id, &mut record).await,
        };
        let mut response = made.unwrap_or_else(|refusal| {
            record.error.get_or_insert_with(|| refusal.text.lines().next().unwrap_or_default().to_owned());
            respond::of_refusal(refusal)
        });
        if head {
            response = response.map_body(|_, body| body.into_head());
        }
        response.headers_mut().insert(REQUEST_ID, id_value);
        record.status = response.status();
        if response.body().is_streamed() {
            record.expected = response.body().length();
            return response.map_body(|_, body| body.recorded(record));
        }
        record.log(if head { 0 } else { response.body().length().unwrap_or(0) }, true);
        response
    }

    async fn admin(&self, request: &Request) -> Result<Response<Body>, Refusal> {
        if self.role.admin {
            return admin::answer(&self.shared, request.uri().path(), request.uri().query().unwrap_or_default()).await;
        }
        Err(Refusal::new(StatusCode::NOT_FOUND, "the pages below /-/ are on the admin listener"))
    }

    async fn proxy(&self, request: &Request, id: &str, record: &mut Record) -> Result<Response<Body>, Refusal> {
        if !self.role.proxy {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "this is the admin listener; there is nothing here but /-/"));
        }
        let path = request.uri().path();
        let (question, by_path) = match path.strip_prefix(CACHED_ONLY_PATH) {
            Some(rest) if rest.starts_with('/') => (rest, true),
            _ => (path, false),
        };
        let ask = Ask::parse(question).map_err(|e| Refusal::of_ask(&e))?;
        record.what = ask.to_string();
        let by_header = request.headers().get(CACHED_ONLY).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"true"));
        let call = Call { id: id.into(), cached_only: by_path || by_header };
        let site = self.shared.site();
        let Outcome { result, trail } = site.gateway.answer(&ask, &call).await;
        record.trail = trail;
        match result {
            Ok(answer) => {
                if let Some(prepared) = Prepared::of(&answer, record.trail.upstream.clone()) {
                    site.ready.put(path, Arc::new(prepared));
                }
                Ok(respond::of_answer(answer, request.headers()))
            }
            Err(error) => {
                record.error = Some(error.to_string());
                Err(Refusal::of_gateway(&error, &record.what, &record.trail))
            }
        }
    }
}

/// What is refused before it is read any further.
fn refuse_early(request: &Request) -> Option<Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here"));
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

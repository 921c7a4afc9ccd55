//! Layer 3: everything that modgate sends out over HTTP goes through here.
//!
//! awc's client rests on `Rc` and cannot leave its thread, while a fetch has to outlive the request and the worker that
//! began it. So the clients live on egress threads of their own. The rest of modgate holds an [`EgressHandle`], which is
//! `Send` and cheap to clone: it sends a job, gets the head of the answer by a oneshot channel and the body by a bounded
//! one. The bound is the back-pressure, and dropping the body cancels the fetch.
//!
//! awc has traps, and they are this layer's business alone: a cut-off HTTP/1 body ends without an error (so connections are
//! read strictly, see [`connect`]), a body with neither length nor encoding comes out empty (refused here), its redirects
//! carry custom headers along (followed here instead), its timeout covers only the head (every wait is limited here).
//!
//! Specification: RFC 9110 and RFC 9112.

#[expect(clippy::disallowed_types, reason = "the one place where awc's client lives")]
mod client;
mod connect;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use url::Url;

pub use tls::TlsError;

/// The most redirects that are followed for one request, as Go's own client has it.
pub const MAX_REDIRECTS: usize = 10;
/// How many pieces of a body may wait between an egress thread and its reader.
const BODY_PIECES: usize = 8;
/// How many requests may wait for an egress thread to take them.
const JOBS: usize = 256;

/// The time limits of one upstream. Each bounds one kind of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Name look-up, TCP and TLS handshakes together.
    pub connect: Duration,
    /// From the request being sent to the head of its answer.
    pub first_byte: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// The whole request, redirects and body included.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { connect: s(5), first_byte: s(30), idle: s(30), total: s(30 * 60) }
    }
}

/// One upstream's way out.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Its time limits.
    pub limits: Limits,
}

/// Which wait came to its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Connecting.
    Connect,
    /// Waiting for the head of the answer.
    FirstByte,
    /// Waiting for the next piece of the body.
    Idle,
    /// All of it.
    Total,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting took longer than its limit (connect)",
            Self::FirstByte => "no answer within its limit (first_byte)",
            Self::Idle => "the body stalled for longer than its limit (idle)",
            Self::Total => "the whole request took longer than its limit (total)",
        })
    }
}

/// Why a request brought nothing. No text in it holds a URL's query, user or password.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EgressError {
    /// The host's name has no address.
    #[error("cannot resolve {host}: {why}")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said.
        why: String,
    },
    /// No connection.
    #[error("cannot connect to {host}: {why}")]
    Connect {
        /// Host and port.
        host: String,
        /// What the system said.
        why: String,
    },
    /// The TLS handshake failed.
    #[error("TLS with {host} failed: {why}")]
    Tls {
        /// Host and port.
        host: String,
        /// What was wrong.
        why: String,
    },
    /// A limit was reached.
    #[error("{0}")]
    Timeout(Wait),
    /// The connection broke, or what came is not HTTP.
    #[error("{0}")]
    Broken(String),
    /// The body ended before it was whole.
    #[error("the body was cut off after {received} bytes{}", of_expected(*.expected))]
    CutOff {
        /// Bytes that came.
        received: u64,
        /// Bytes that were promised, where the head said so.
        expected: Option<u64>,
    },
    /// The body is larger than the caller can use.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The caller's bound.
        limit: u64,
    },
    /// Redirects that lead nowhere.
    #[error("redirect: {0}")]
    Redirect(String),
    /// The egress thread is gone: modgate is stopping.
    #[error("stopping")]
    Stopped,
}

fn of_expected(expected: Option<u64>) -> String {
    expected.map_or(String::new(), |n| format!(" of {n}"))
}

/// The head of an answer, and its body to come.
#[derive(Debug)]
pub struct Response {
    /// The status code, after redirects.
    pub status: u16,
    /// `Content-Length`, where given.
    pub length: Option<u64>,
    /// `Content-Type`, where given.
    pub content_type: Option<String>,
    /// `Retry-After` in seconds, where given so.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Body,
}

/// A body as it arrives. Dropping it cancels the rest.
#[derive(Debug)]
pub struct Body {
    pieces: mpsc::Receiver<Result<Bytes, EgressError>>,
}

impl Body {
    /// The next piece; `None` at the end of a whole body.
    ///
    /// # Errors
    /// Why there is no more, although the body is not whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, EgressError> {
        // The egress thread sends an empty piece as the end; a closed channel without it means the thread died.
        match self.pieces.recv().await {
            Some(Ok(piece)) if piece.is_empty() => Ok(None),
            Some(Ok(piece)) => Ok(Some(piece)),
            Some(Err(e)) => Err(e),
            None => Err(EgressError::Stopped),
        }
    }

    /// A further piece, where one has arrived already.
    pub fn ready(&mut self) -> Option<Result<Option<Bytes>, EgressError>> {
        match self.pieces.try_recv() {
            Ok(Ok(piece)) if piece.is_empty() => Some(Ok(None)),
            Ok(Ok(piece)) => Some(Ok(Some(piece))),
            Ok(Err(e)) => Some(Err(e)),
            Err(_) => None,
        }
    }

    /// The whole body, of at most `limit` bytes.
    ///
    /// # Errors
    /// Why it is not whole, and [`EgressError::TooLarge`].
    pub async fn collect(&mut self, limit: u64) -> Result<Bytes, EgressError> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let mut whole = Vec::new();
        let mut piece = Some(first);
        while let Some(bytes) = piece {
            if whole.len() as u64 + bytes.len() as u64 > limit {
                return Err(EgressError::TooLarge { limit });
            }
            piece = self.next().await?;
            if piece.is_none() && whole.is_empty() {
                return Ok(bytes);
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.into())
    }
}

/// One request for an egress thread.
pub(crate) struct Job {
    url: Url,
    head: oneshot::Sender<Result<Response, EgressError>>,
}

/// What an egress thread is told.
pub(crate) enum Order {
    /// A new upstream: make its client and serve its jobs until its handles are gone.
    Upstream(Box<Policy>, Arc<rustls::ClientConfig>, mpsc::Receiver<Job>),
}

/// The egress threads.
#[derive(Debug)]
pub struct Egress {
    threads: Vec<mpsc::UnboundedSender<Order>>,
    next: AtomicUsize,
    tls: Arc<rustls::ClientConfig>,
}

impl Egress {
    /// Starts the threads and reads the system's root certificates.
    ///
    /// # Errors
    /// No usable root certificate, or no thread.
    pub fn start(threads: usize) -> Result<Self, EgressStartError> {
        let tls = tls::client_config()?;
        let threads = (0..threads.max(1))
            .map(|n| {
                let (orders, inbox) = mpsc::unbounded_channel();
                std::thread::Builder::new().name(format!("egress-{n}")).spawn(move || client::run(inbox))?;
                Ok(orders)
            })
            .collect::<Result<_, std::io::Error>>()?;
        Ok(Self { threads, next: AtomicUsize::new(0), tls })
    }

    /// A way out for one upstream, with a connection pool of its own.
    pub fn upstream(&self, policy: Policy) -> EgressHandle {
        let (jobs, inbox) = mpsc::channel(JOBS);
        let thread = &self.threads[self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len()];
        // A thread that is gone drops the inbox, and every request then says that modgate is stopping.
        let _ = thread.send(Order::Upstream(Box::new(policy), Arc::clone(&self.tls), inbox));
        EgressHandle { jobs }
    }
}

/// Why the egress threads could not start.
#[derive(Debug, thiserror::Error)]
pub enum EgressStartError {
    /// No thread.
    #[error("cannot start an egress thread: {0}")]
    Thread(#[from] std::io::Error),
    /// No root certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// One upstream's way out.
#[derive(Debug, Clone)]
pub struct EgressHandle {
    jobs: mpsc::Sender<Job>,
}

impl EgressHandle {
    /// Sends `GET url` and waits for the head of the answer, redirects followed.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn get(&self, url: Url) -> Result<Response, EgressError> {
        let (head, answer) = oneshot::channel();
        self.jobs.send(Job { url, head }).await.map_err(|_| EgressError::Stopped)?;
        answer.await.map_err(|_| EgressError::Stopped)?
    }
}

//! Layer 3: everything that modgate sends out over HTTP goes through here.
//!
//! awc's client rests on `Rc` and cannot leave its thread, while a fetch has to outlive the request and the worker that
//! began it. So the clients live on egress threads of their own. The rest of modgate holds an [`EgressHandle`], which is
//! `Send` and cheap to clone: it sends a job, gets the head of the answer by a oneshot channel and the body by a bounded
//! one. The bound is the back-pressure, and dropping the body cancels the fetch.
//!
//! awc has traps, and they are this layer's business alone: a cut-off HTTP/1 body ends without an error (so connections are
//! read strictly, see [`connect`]), an interim answer is taken for the one that counts (taken out, see [`interim`]), a body with neither length nor encoding comes out empty (refused here), its redirects
//! carry custom headers along (followed here instead), its timeout covers only the head (every wait is limited here).
//!
//! An upstream's way out is its [`Policy`]: which proxy ([`proxy`], [`tunnel`](mod@tunnel)), what TLS ([`tls`]), as whom ([`credentials`]),
//! how much at once ([`throttle`]), how often again ([`retry`]), and how long each wait may be ([`Limits`]). A body that breaks
//! off is continued by Range where that is safe ([`resume`]).
//!
//! Specification: RFC 9110 and RFC 9112.

pub mod body;
#[expect(clippy::disallowed_types, reason = "the one place where awc's client lives")]
mod client;
mod connect;
pub mod credentials;
pub mod error;
mod interim;
pub mod proxy;
pub mod reach;
mod resume;
mod retry;
pub mod throttle;
pub mod tls;
mod tunnel;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use url::Url;

pub use body::{Body, Response};
pub use credentials::Credentials;
pub use error::{EgressError, Wait};
pub use proxy::ProxyRule;
pub use reach::Reach;
pub use throttle::ThrottleSettings;
pub use tls::{TlsError, TlsSettings};

use retry::Retry;
pub use throttle::Place;
use throttle::Throttle;

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Its time limits.
    pub limits: Limits,
    /// Which proxy leads to it.
    pub proxy: ProxyRule,
    /// How TLS is spoken with it.
    pub tls: TlsSettings,
    /// Who modgate is to it.
    pub credentials: Option<Credentials>,
    /// How much it is asked.
    pub throttle: ThrottleSettings,
    /// How often a request is repeated that failed in a way that may pass.
    pub retries: u32,
    /// Which servers may be reached, where others than the configuration name them; `None` for all.
    pub reach: Option<Reach>,
}

/// What is wanted of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The body of a 200.
    Small,
    /// The same, continued where it breaks off.
    Long,
    /// The body, whatever the status is.
    Page,
}

/// One request for an egress thread.
pub(crate) struct Job {
    url: Url,
    wanted: Wanted,
    /// Held until all of the answer has come, or nobody wants it any more.
    place: Place,
    head: oneshot::Sender<Result<Response, EgressError>>,
}

/// What an egress thread is told.
pub(crate) enum Order {
    /// A new upstream: make its client and serve its jobs until its handles are gone.
    Upstream(Box<Way>, mpsc::Receiver<Job>),
}

/// What a client is made of.
#[derive(Clone)]
pub(crate) struct Way {
    policy: Policy,
    upstream: Arc<str>,
    tls: Arc<rustls::ClientConfig>,
    proxy_tls: Arc<rustls::ClientConfig>,
    limits: Arc<Shared>,
}

/// What an upstream's handles and its client share.
#[derive(Debug)]
struct Shared {
    throttle: Throttle,
    retry: Retry,
}

/// The egress threads.
#[derive(Debug)]
pub struct Egress {
    threads: Vec<mpsc::UnboundedSender<Order>>,
    next: AtomicUsize,
    roots: rustls::RootCertStore,
}

impl Egress {
    /// Starts the threads and reads the system's root certificates.
    ///
    /// # Errors
    /// No thread.
    pub fn start(threads: usize) -> Result<Self, EgressStartError> {
        let roots = tls::system_roots();
        let threads = (0..threads.max(1))
            .map(|n| {
                let (orders, inbox) = mpsc::unbounded_channel();
                std::thread::Builder::new().name(format!("egress-{n}")).spawn(move || client::run(inbox))?;
                Ok(orders)
            })
            .collect::<Result<_, std::io::Error>>()?;
        Ok(Self { threads, next: AtomicUsize::new(0), roots })
    }

    /// A way out for the upstream of this name, with a connection pool of its own.
    ///
    /// # Errors
    /// TLS settings that do not go together.
    pub fn upstream(&self, upstream: Arc<str>, policy: Policy) -> Result<EgressHandle, TlsError> {
        let throttle = Throttle::new(Arc::clone(&upstream), policy.throttle);
        let limits = Arc::new(Shared { throttle, retry: Retry::new(policy.retries) });
        let way = Way {
            tls: tls::client_config(&self.roots, &policy.tls)?,
            proxy_tls: tls::proxy_config(&self.roots, &policy.tls)?,
            limits: Arc::clone(&limits),
            upstream,
            policy,
        };
        let (jobs, inbox) = mpsc::channel(JOBS);
        let thread = &self.threads[self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len()];
        // A thread that is gone drops the inbox, and every request then says that modgate is stopping.
        let _ = thread.send(Order::Upstream(Box::new(way), inbox));
        Ok(EgressHandle { jobs, limits })
    }
}

/// Opens a connection to `host:port`, through the proxy where there is one, for a program that speaks with the server by itself.
/// `authorities` are trusted beside the system's where the proxy is spoken to by TLS.
///
/// # Errors
/// Why there is none.
pub async fn open_tunnel(
    proxy: Option<proxy::Proxy>,
    authorities: Vec<rustls::pki_types::CertificateDer<'static>>,
    server: (&str, u16),
    limit: Duration,
) -> Result<impl AsyncRead + AsyncWrite + Unpin, EgressError> {
    let settings = TlsSettings { authorities, ..TlsSettings::default() };
    let config = tls::proxy_config(&tls::system_roots(), &settings).map_err(|e| EgressError::Unusable(e.to_string()))?;
    let rule = proxy.map(|proxy| ProxyRule::always(proxy, proxy::NoProxy::default())).unwrap_or_default();
    connect::tunnel_to(rule, config, server, limit).await
}

/// Why the egress threads could not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start an egress thread: {0}")]
pub struct EgressStartError(#[from] std::io::Error);

/// One upstream's way out.
#[derive(Debug, Clone)]
pub struct EgressHandle {
    jobs: mpsc::Sender<Job>,
    limits: Arc<Shared>,
}

impl EgressHandle {
    /// Sends `GET url` when its turn has come and waits for the head of the answer, redirects followed.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn get(&self, url: Url) -> Result<Response, EgressError> {
        self.send(url, Wanted::Small).await
    }

    /// The same for a large body, which is continued where it breaks off and the server allows that.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn get_long(&self, url: Url) -> Result<Response, EgressError> {
        self.send(url, Wanted::Long).await
    }

    /// The same for a page that counts whatever status it comes with.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn get_page(&self, url: Url) -> Result<Response, EgressError> {
        self.send(url, Wanted::Page).await
    }

    /// Waits for a turn within the upstream's limits, for work that another program does over the network.
    ///
    /// # Errors
    /// That there is no turn.
    pub async fn turn(&self) -> Result<Place, EgressError> {
        let place = self.limits.throttle.enter().await?;
        self.limits.retry.count();
        Ok(place)
    }

    async fn send(&self, url: Url, wanted: Wanted) -> Result<Response, EgressError> {
        let Shared { throttle, retry } = &*self.limits;
        let place = throttle.enter().await?;
        retry.count();
        let (head, answer) = oneshot::channel();
        self.jobs.send(Job { url, wanted, place, head }).await.map_err(|_| EgressError::Stopped)?;
        let response = answer.await.map_err(|_| EgressError::Stopped)??;
        throttle.note(response.status, response.retry_after);
        Ok(response)
    }

    /// After which wait to send a request again that failed in a way that may pass, and was repeated so often already. `None`
    /// where it should not be sent again; the budget of repetitions is one for all requests to this upstream.
    pub fn again(&self, repeated: u32) -> Option<Duration> {
        self.limits.retry.again(repeated)
    }

    /// What stands in the way of requests now, for `explain`: that the upstream asked to be left alone.
    pub fn state(&self) -> Option<String> {
        self.limits.throttle.state()
    }
}

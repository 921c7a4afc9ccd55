//! The egress threads: one awc client an upstream, its requests, redirects and bodies.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::ParseError;
use awc::error::{ConnectError, PayloadError, SendRequestError};
use awc::http::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, IF_RANGE, LOCATION, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, RANGE, RETRY_AFTER, SERVER, TRANSFER_ENCODING,
};
use awc::http::{StatusCode, Uri};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::connect::{ClientTls, Connector, DIAL, Dial, Dialing};
use super::credentials::basic;
use super::error::status_may_pass;
use super::proxy::{Proxy, bare, host_port};
use super::resume::{Resume, retry_after};
use super::tls::Party;
use super::tunnel::refusal;
use super::{BODY_PIECES, Body, EgressError, Job, Limits, MAX_REDIRECTS, Order, Policy, Response, Shared, Wait, Wanted, Way};

/// How an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a client and its connections are used.
const LIFETIME: Duration = Duration::from_secs(600);
/// The most of an error's body that is read, so that its connection can be used again.
const DRAIN: usize = 64 << 10;

/// How often one body is continued at the most, each time with at least a byte more than before.
const RESUMPTIONS: usize = 32;
pub(super) const USER_AGENT: &str = concat!("modgate/", env!("CARGO_PKG_VERSION"));

type Answer = awc::ClientResponse;

/// One upstream's clients. awc keys its pool by authority alone, so plain and TLS connections have a client each, and so has TLS to
/// servers that the upstream redirects to: to them nothing of its own TLS settings applies but whom to trust.
struct Client {
    plain: awc::Client,
    tls: awc::Client,
    elsewhere: awc::Client,
    upstream: Arc<str>,
    policy: Policy,
    shared: Arc<Shared>,
}

/// How the delivery of a body ended before its end.
enum Ended {
    /// Nobody wants it any more.
    Unwanted,
    Failed(EgressError),
}

/// An egress thread's life: serves upstreams until nobody can send orders any more.
pub(super) fn run(mut inbox: mpsc::UnboundedReceiver<Order>) {
    actix_rt::System::new().block_on(async move {
        while let Some(Order::Upstream(way, mut jobs)) = inbox.recv().await {
            actix_rt::spawn(async move {
                let mut client = None;
                let mut made = Instant::now();
                loop {
                    // awc looks at its idle connections only when it wants one to the same server. So that they do not stay open
                    // for ever, the client goes with them after a while; requests under way keep theirs.
                    let job = match timeout(KEEP_ALIVE, jobs.recv()).await {
                        Ok(Some(job)) => job,
                        Ok(None) => break,
                        Err(_) => {
                            client = None;
                            continue;
                        }
                    };
                    if client.is_none() || made.elapsed() > LIFETIME {
                        (client, made) = (Some(Rc::new(Client::new((*way).clone()))), Instant::now());
                    }
                    if let Some(client) = &client {
                        actix_rt::spawn(Rc::clone(client).serve(job));
                    }
                }
            });
        }
    });
}

impl Client {
    fn new(way: Way) -> Self {
        let Way { policy, upstream, tls, proxy_tls, limits: shared } = way;
        let proxy = Rc::new(policy.proxy.clone());
        let limit = policy.limits.connect;
        let tls = ClientTls { config: tls, party: Party::Upstream { identified: policy.tls.identity.is_some() } };
        let other = ClientTls { config: proxy_tls, party: Party::Other };
        let reach = policy.reach.clone();
        let connector = |tls| Connector {
            limit,
            tls,
            proxy: Rc::clone(&proxy),
            proxy_tls: other.clone(),
            tunnels: false,
            reach: reach.clone(),
        };
        let (plain, elsewhere) = (make(connector(None)), make(connector(Some(other.clone()))));
        Self { plain, tls: make(connector(Some(tls))), elsewhere, upstream, policy, shared }
    }

    /// Serves one job, unless its asker goes away.
    async fn serve(self: Rc<Self>, job: Job) {
        let Job { url, wanted, place: _place, mut head } = job;
        let deadline = Instant::now() + self.policy.limits.total;
        let answer = tokio::select! {
            answer = timeout_at(deadline, self.follow(&url, None)) => answer.unwrap_or(Err(EgressError::Timeout(Wait::Total))),
            () = head.closed() => return,
        };
        let (answer, mut response) = match answer {
            Ok(answer) => answer,
            Err(e) => {
                // An asker that is gone needs no answer.
                let _ = head.send(Err(e));
                return;
            }
        };
        let (pieces, body) = mpsc::channel(BODY_PIECES);
        let (length, good) = (response.length, response.status == 200 || wanted == Wanted::Page);
        response.body = Body::new(body);
        if head.send(Ok(response)).is_err() {
            return;
        }
        if good {
            let rest = if wanted == Wanted::Long && self.policy.retries > 0 { Resume::of(answer.headers(), length) } else { None };
            if let Err(Ended::Failed(e)) = self.deliver(answer, length, &url, rest, deadline, &pieces).await {
                let _ = pieces.send(Err(e)).await;
            }
        } else {
            drop(pieces);
            drain(answer, self.policy.limits.idle).await;
        }
    }

    /// Hands a body on to its end, continuing it where it breaks off and that can be done.
    async fn deliver(
        &self,
        mut answer: Answer,
        length: Option<u64>,
        url: &Url,
        mut rest: Option<Resume>,
        deadline: Instant,
        pieces: &mpsc::Sender<Result<Bytes, EgressError>>,
    ) -> Result<(), Ended> {
        let mut received = 0;
        for _ in 0..RESUMPTIONS {
            let before = received;
            let cut = match pump(answer, length, &mut received, self.policy.limits, deadline, pieces).await {
                Err(Ended::Failed(e)) if e.may_pass() || matches!(e, EgressError::Timeout(Wait::Idle)) => e,
                ended => return ended,
            };
            let Some(resume) = rest.as_mut().filter(|r| received > before && received < r.length) else {
                return Err(Ended::Failed(cut));
            };
            resume.from = received;
            tracing::info!(upstream = %self.upstream, received, length, error = %cut, "a body broke off and is being resumed");
            let resumed = tokio::select! {
                resumed = timeout_at(deadline, self.resume(url, resume)) => resumed,
                () = pieces.closed() => return Err(Ended::Unwanted),
            };
            answer = match resumed {
                Ok(Ok(answer)) => answer,
                Ok(Err(why)) => return Err(Ended::Failed(EgressError::NotResumed { cut: Box::new(cut), why })),
                Err(_) => return Err(Ended::Failed(EgressError::Timeout(Wait::Total))),
            };
        }
        Err(Ended::Failed(EgressError::CutOff { received, expected: length }))
    }

    /// Asks for the rest of a body, more than once where that failed in a way that may pass.
    async fn resume(&self, url: &Url, rest: &Resume) -> Result<Answer, String> {
        let mut repeated = 0;
        loop {
            let wait = self.shared.retry.again(repeated).ok_or("it is not to be asked again (retries)")?;
            tokio::time::sleep(wait).await;
            repeated += 1;
            self.shared.throttle.turn().await.map_err(|e| e.to_string())?;
            match self.follow(url, Some(rest)).await {
                Ok((answer, response)) => {
                    self.shared.throttle.note(response.status, response.retry_after);
                    match rest.fits(answer.status(), answer.headers(), response.length) {
                        Ok(()) => return Ok(answer),
                        Err(_) if response.status == 429 || status_may_pass(response.status) => {}
                        Err(why) => return Err(why),
                    }
                }
                Err(e) if e.may_pass() => {}
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    /// Sends the request and follows redirects. Credentials, a client certificate and an excuse for the server's own go no further
    /// than the upstream's origin, and with a redirect that comes back not back to it either.
    async fn follow(&self, url: &Url, rest: Option<&Resume>) -> Result<(Answer, Response), EgressError> {
        let origin = url.origin();
        let mut url = url.clone();
        let mut at_home = true;
        for _ in 0..=MAX_REDIRECTS {
            at_home &= url.origin() == origin;
            let (answer, via) = self.send(&url, at_home, rest).await?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                let response = head_of(&answer, url, via.map(ToString::to_string))?;
                return Ok((answer, response));
            }
            let location = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok());
            let location = location.ok_or_else(|| EgressError::Redirect("no Location that can be read".into()))?;
            let next = url.join(location).map_err(|e| EgressError::Redirect(format!("its Location is no URL ({e})")))?;
            match (url.scheme(), next.scheme()) {
                ("https", "http") => return Err(EgressError::Redirect("from https to http, which is refused".into())),
                (_, "http" | "https") => {}
                (_, other) => return Err(EgressError::Redirect(format!("to the scheme {other:?}"))),
            }
            drain(answer, self.policy.limits.idle).await;
            url = next;
            // Whoever redirects does not say as whom.
            let _ = (url.set_username(""), url.set_password(None));
        }
        Err(EgressError::Redirect(format!("more than {MAX_REDIRECTS} in a row")))
    }

    /// Sends one request, and says which proxy it was sent to in the absolute form. A kept connection that the server closed in
    /// this moment is no failure: the request is sent again, once.
    async fn send(&self, url: &Url, at_home: bool, rest: Option<&Resume>) -> Result<(Answer, Option<&Arc<Proxy>>), EgressError> {
        let https = url.scheme() == "https";
        let (client, party) = match (https, at_home) {
            (false, _) => (&self.plain, Party::Other),
            (true, true) => (&self.tls, Party::Upstream { identified: self.policy.tls.identity.is_some() }),
            (true, false) => (&self.elsewhere, Party::Other),
        };
        let headers = self.policy.credentials.as_ref().filter(|_| at_home).map(|c| c.of(url)).unwrap_or_default();
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(80);
        let via = self.policy.proxy.for_url(url).filter(|proxy| !https && proxy.forwards_http());
        let wire = wire(url, via.is_some())?;
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut again = true;
        loop {
            let mut request = client.get(wire.clone()).insert_header((HOST, authority.as_str())).no_decompress();
            // Without it any coding will do (RFC 9110 §12.5.3), and a zip's length and ranges are to be its own.
            request = request.insert_header((ACCEPT_ENCODING, "identity"));
            for (name, value) in &headers {
                request = request.insert_header((name.as_str(), value.expose()));
            }
            if let Some(login) = via.and_then(|proxy| proxy.login.as_ref()) {
                request = request.insert_header((PROXY_AUTHORIZATION, basic(&login.user, login.password.expose()).expose()));
            }
            if let Some(rest) = rest {
                request = request.insert_header((RANGE, format!("bytes={}-", rest.from)));
                request = request.insert_header((IF_RANGE, rest.validator.as_str()));
            }
            let dial = Rc::new(Dial::default());
            let error = match self.wait(&dial, request.send()).await {
                Ok(Ok(answer)) => {
                    if let Some(proxy) = via {
                        from_proxy(proxy, &answer, host, port)?;
                    }
                    return Ok((answer, via));
                }
                Ok(Err(e)) => e,
                Err(e) => return Err(e),
            };
            let kept = matches!(dial.get(), Dialing::Not);
            if !(again && kept && is_stale(&error)) {
                return Err(reason(error, &host_port(bare(host), port), party));
            }
            again = false;
        }
    }

    /// Waits for the head of an answer. The time that connecting takes has a limit of its own and does not count.
    async fn wait<T>(&self, dial: &Rc<Dial>, sending: impl Future<Output = T>) -> Result<T, EgressError> {
        let first_byte = self.policy.limits.first_byte;
        let mut sending = std::pin::pin!(DIAL.scope(Rc::clone(dial), sending));
        let mut deadline = Instant::now() + first_byte;
        loop {
            if let Ok(sent) = timeout_at(deadline, &mut sending).await {
                return Ok(sent);
            }
            let now = Instant::now();
            deadline = match dial.get() {
                Dialing::Not => return Err(EgressError::Timeout(Wait::FirstByte)),
                Dialing::Since => now + Duration::from_millis(50),
                Dialing::Done(at) => at + first_byte,
            };
            if deadline <= now {
                return Err(EgressError::Timeout(Wait::FirstByte));
            }
        }
    }
}

/// Whether a connection went before its answer began, as a kept one does that the server closes in this moment.
fn is_stale(e: &SendRequestError) -> bool {
    matches!(
        e,
        SendRequestError::Connect(ConnectError::Disconnected)
            | SendRequestError::Send(_)
            | SendRequestError::Response(ParseError::Io(_))
    )
}

fn make(connector: Connector) -> awc::Client {
    // The connector limits itself and can say what it was waiting for; awc's own limits only stand behind it.
    let behind = connector.limit + Duration::from_secs(5);
    let connector =
        awc::Connector::new().connector(connector).limit(0).timeout(behind).conn_keep_alive(KEEP_ALIVE).conn_lifetime(LIFETIME);
    awc::Client::builder()
        .connector(connector)
        .disable_timeout()
        .disable_redirects()
        .add_default_header((awc::http::header::USER_AGENT, USER_AGENT))
        .finish()
}

/// The request target that awc is given. The connector does TLS (see `connect`), so it is always `http://host:port`; in the
/// absolute form, for a proxy, the whole URL stands where the path does, which awc sends as it is.
fn wire(url: &Url, absolute: bool) -> Result<Uri, EgressError> {
    let port = url.port_or_known_default().unwrap_or(80);
    let authority = format!("{}:{port}", url.host_str().unwrap_or_default());
    let mut target = url.clone();
    target.set_fragment(None);
    let target = if absolute { target.as_str() } else { &target[url::Position::BeforePath..] };
    let built = Uri::builder().scheme("http").authority(authority).path_and_query(target).build();
    built.map_err(|_| EgressError::Broken("the URL cannot be used".into()))
}

/// Refuses an answer that a proxy gave in the server's stead: it must not be taken for the server's word.
fn from_proxy(proxy: &Proxy, answer: &Answer, host: &str, port: u16) -> Result<(), EgressError> {
    let status = answer.status();
    let headers = answer.headers();
    // RFC 9209 has the first; squid says it by the second, and tinyproxy by the third, which it otherwise leaves as it is.
    let says_so = headers.get_all("proxy-status").any(|v| v.to_str().is_ok_and(|v| v.contains("error=")))
        || headers.contains_key("x-squid-error")
        || text(headers, SERVER).is_some_and(|server| server.starts_with("tinyproxy/"));
    if status != StatusCode::PROXY_AUTHENTICATION_REQUIRED && !(says_so && (status.is_client_error() || status.is_server_error())) {
        return Ok(());
    }
    let offers = headers.get_all(PROXY_AUTHENTICATE).filter_map(|v| v.to_str().ok());
    let why = refusal(status.as_u16(), offers, proxy.login.is_some());
    let may_pass = status_may_pass(status.as_u16());
    Err(EgressError::Proxy { proxy: proxy.to_string(), to: host_port(bare(host), port), why, may_pass })
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// Reads the head of an answer. Its body is filled in by the caller.
fn head_of(answer: &Answer, url: Url, via: Option<String>) -> Result<Response, EgressError> {
    let headers = answer.headers();
    let length = match text(headers, CONTENT_LENGTH) {
        None => None,
        Some(n) => Some(n.trim().parse().map_err(|_| EgressError::Unusable("its Content-Length is no number".into()))?),
    };
    let status = answer.status();
    if status == StatusCode::OK && length.is_none() && !headers.contains_key(TRANSFER_ENCODING) {
        return Err(EgressError::Unusable("its body has neither a length nor chunks, so its end cannot be told".into()));
    }
    let encoded = text(headers, awc::http::header::CONTENT_ENCODING).filter(|e| !e.eq_ignore_ascii_case("identity"));
    if let (StatusCode::OK | StatusCode::PARTIAL_CONTENT, Some(encoding)) = (status, encoded) {
        return Err(EgressError::Unusable(format!("it sent the encoding {encoding:?}, which was not asked for")));
    }
    Ok(Response {
        status: status.as_u16(),
        length,
        content_type: text(headers, CONTENT_TYPE).map(str::to_owned),
        retry_after: text(headers, RETRY_AFTER).and_then(retry_after),
        url,
        via,
        body: Body::new(mpsc::channel(1).1),
    })
}

/// Hands the body on, piece by piece, and an empty piece at its end. `received` counts from the beginning of the whole.
async fn pump(
    mut answer: Answer,
    expected: Option<u64>,
    received: &mut u64,
    limits: Limits,
    deadline: Instant,
    pieces: &mpsc::Sender<Result<Bytes, EgressError>>,
) -> Result<(), Ended> {
    let cut = |received| Err(Ended::Failed(EgressError::CutOff { received, expected }));
    loop {
        let idle = Instant::now() + limits.idle;
        let piece = tokio::select! {
            piece = timeout_at(idle.min(deadline), answer.next()) => piece,
            () = pieces.closed() => return Err(Ended::Unwanted),
        };
        let Ok(piece) = piece else {
            return Err(Ended::Failed(EgressError::Timeout(if idle < deadline { Wait::Idle } else { Wait::Total })));
        };
        match piece {
            Some(Ok(bytes)) if bytes.is_empty() => {}
            Some(Ok(bytes)) => {
                *received += bytes.len() as u64;
                if expected.is_some_and(|n| *received > n) {
                    return Err(Ended::Failed(EgressError::TooLarge { limit: expected.unwrap_or(0) }));
                }
                // The reader sets the pace; only one that stands still until the deadline is given up.
                match timeout_at(deadline, pieces.send(Ok(bytes))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(Ended::Unwanted),
                    Err(_) => return Err(Ended::Failed(EgressError::Timeout(Wait::Total))),
                }
            }
            Some(Err(PayloadError::Incomplete(_) | PayloadError::Io(_))) => return cut(*received),
            Some(Err(e)) => return Err(Ended::Failed(EgressError::Broken(format!("after {received} bytes: {e}")))),
            None if expected.is_some_and(|n| n != *received) => return cut(*received),
            None => {
                let _ = pieces.send(Ok(Bytes::new())).await;
                return Ok(());
            }
        }
    }
}

/// Reads what is left of a small body, so that the connection can be used again. A long one is dropped with its connection.
async fn drain(mut answer: Answer, limit: Duration) {
    let read = async {
        let mut seen = 0;
        while let Some(Ok(bytes)) = answer.next().await {
            seen += bytes.len();
            if seen > DRAIN {
                return;
            }
        }
    };
    let _ = timeout(limit.min(Duration::from_secs(5)), read).await;
}

/// What an awc error means here. The connector's own errors come back as they were made.
fn reason(e: SendRequestError, host: &str, party: Party) -> EgressError {
    // With TLS 1.3 a server refuses a client's certificate only after the handshake.
    let tls = |io: &std::io::Error| super::tls::why(io, party).map(|why| EgressError::Tls { host: host.to_owned(), why });
    match e {
        SendRequestError::Connect(ConnectError::Io(io)) => {
            let text = io.to_string();
            match io.into_inner().and_then(|inner| inner.downcast::<EgressError>().ok()) {
                Some(own) => *own,
                None => EgressError::Broken(text),
            }
        }
        SendRequestError::Connect(ConnectError::Timeout) => EgressError::Timeout(Wait::Connect(format!("connecting to {host}"))),
        SendRequestError::Connect(ConnectError::Disconnected) => {
            EgressError::Broken("the connection was closed before an answer came".into())
        }
        SendRequestError::Timeout => EgressError::Timeout(Wait::FirstByte),
        SendRequestError::Send(io) | SendRequestError::Response(ParseError::Io(io)) => {
            let broken = || EgressError::Broken(format!("the connection broke before an answer came ({io})"));
            tls(&io).unwrap_or_else(broken)
        }
        SendRequestError::Response(e) => EgressError::Broken(format!("the answer is not HTTP as it has to be: {e}")),
        other => EgressError::Broken(other.to_string()),
    }
}

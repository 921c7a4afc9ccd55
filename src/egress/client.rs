//! The egress threads: one awc client an upstream, its requests, redirects and bodies.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::ParseError;
use awc::error::{ConnectError, PayloadError, SendRequestError};
use awc::http::StatusCode;
use awc::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, LOCATION, RETRY_AFTER, TRANSFER_ENCODING};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::connect::{Connector, DIAL, Dial, Dialing};
use super::{BODY_PIECES, Body, EgressError, Job, Limits, MAX_REDIRECTS, Order, Policy, Response, Wait};

/// How an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The most of an error's body that is read, so that its connection can be used again.
const DRAIN: usize = 64 << 10;

type Answer = awc::ClientResponse;

/// One upstream's clients. awc keys its pool by authority alone, so plain and TLS connections have a client each.
struct Client {
    plain: awc::Client,
    tls: awc::Client,
    limits: Limits,
}

/// An egress thread's life: serves upstreams until nobody can send orders any more.
pub(super) fn run(mut inbox: mpsc::UnboundedReceiver<Order>) {
    actix_rt::System::new().block_on(async move {
        while let Some(Order::Upstream(policy, tls, mut jobs)) = inbox.recv().await {
            actix_rt::spawn(async move {
                let client = Rc::new(Client::new(&policy, tls));
                while let Some(job) = jobs.recv().await {
                    actix_rt::spawn(Rc::clone(&client).serve(job));
                }
            });
        }
    });
}

impl Client {
    fn new(policy: &Policy, tls: Arc<rustls::ClientConfig>) -> Self {
        let limits = policy.limits;
        Self { plain: make(limits, None), tls: make(limits, Some(tls)), limits }
    }

    /// Serves one job, unless its asker goes away.
    async fn serve(self: Rc<Self>, job: Job) {
        let Job { url, mut head } = job;
        let deadline = Instant::now() + self.limits.total;
        let answer = tokio::select! {
            answer = timeout_at(deadline, self.follow(url)) => answer.unwrap_or(Err(EgressError::Timeout(Wait::Total))),
            () = head.closed() => return,
        };
        let (answer, response) = match answer {
            Ok(answer) => answer,
            Err(e) => {
                // An asker that is gone needs no answer.
                let _ = head.send(Err(e));
                return;
            }
        };
        let (pieces, body) = mpsc::channel(BODY_PIECES);
        let (length, good) = (response.length, response.status == 200);
        if head.send(Ok(Response { body: Body { pieces: body }, ..response })).is_err() {
            return;
        }
        if good {
            let limits = self.limits;
            if let Err(e) = pump(answer, length, limits, deadline, &pieces).await {
                let _ = pieces.send(Err(e)).await;
            }
        } else {
            drop(pieces);
            drain(answer, self.limits.idle).await;
        }
    }

    /// Sends the request and follows redirects.
    async fn follow(&self, mut url: Url) -> Result<(Answer, Response), EgressError> {
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send(&url).await?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                let response = head_of(&answer)?;
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
            drain(answer, self.limits.idle).await;
            url = next;
        }
        Err(EgressError::Redirect(format!("more than {MAX_REDIRECTS} in a row")))
    }

    /// Sends one request. A kept connection that the server closed in this moment is no failure: the request is sent again,
    /// once.
    async fn send(&self, url: &Url) -> Result<Answer, EgressError> {
        let mut wire = url.clone();
        let client = if url.scheme() == "https" {
            // The connector does TLS; see `connect`.
            let port = url.port_or_known_default();
            let set = wire.set_scheme("http").and_then(|()| wire.set_port(port));
            set.map_err(|()| EgressError::Broken("the URL cannot be used".into()))?;
            &self.tls
        } else {
            &self.plain
        };
        let mut host = url.host_str().unwrap_or_default().to_owned();
        if let Some(port) = url.port() {
            host = format!("{host}:{port}");
        }
        let mut again = true;
        loop {
            let request = client.get(wire.as_str()).insert_header((HOST, host.as_str())).no_decompress();
            return match self.wait(request.send()).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(e)) if again && is_stale(&e) => {
                    again = false;
                    continue;
                }
                Ok(Err(e)) => Err(reason(e)),
                Err(e) => Err(e),
            };
        }
    }

    /// Waits for the head of an answer. The time that connecting takes has a limit of its own and does not count.
    async fn wait<T>(&self, sending: impl Future<Output = T>) -> Result<T, EgressError> {
        let dial = Rc::new(Dial::default());
        let mut sending = std::pin::pin!(DIAL.scope(Rc::clone(&dial), sending));
        let mut deadline = Instant::now() + self.limits.first_byte;
        loop {
            if let Ok(sent) = timeout_at(deadline, &mut sending).await {
                return Ok(sent);
            }
            let now = Instant::now();
            deadline = match dial.get() {
                Dialing::Not => return Err(EgressError::Timeout(Wait::FirstByte)),
                Dialing::Since => now + Duration::from_millis(50),
                Dialing::Done(at) => at + self.limits.first_byte,
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

fn make(limits: Limits, tls: Option<Arc<rustls::ClientConfig>>) -> awc::Client {
    // The connector limits itself and can say what it was waiting for; awc's own limits only stand behind it.
    let behind = limits.connect + Duration::from_secs(5);
    let connector = awc::Connector::new()
        .connector(Connector { limit: limits.connect, tls })
        .limit(0)
        .timeout(behind)
        .conn_keep_alive(KEEP_ALIVE)
        .conn_lifetime(Duration::from_secs(600));
    awc::Client::builder()
        .connector(connector)
        .disable_timeout()
        .disable_redirects()
        .add_default_header((awc::http::header::USER_AGENT, concat!("modgate/", env!("CARGO_PKG_VERSION"))))
        .finish()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// Reads the head of an answer. Its body is filled in by the caller.
fn head_of(answer: &Answer) -> Result<Response, EgressError> {
    let headers = answer.headers();
    let length = match text(headers, CONTENT_LENGTH) {
        None => None,
        Some(n) => Some(n.trim().parse().map_err(|_| EgressError::Broken("its Content-Length is no number".into()))?),
    };
    let status = answer.status();
    if status == StatusCode::OK && length.is_none() && !headers.contains_key(TRANSFER_ENCODING) {
        return Err(EgressError::Broken("its body has neither a length nor chunks, so its end cannot be told".into()));
    }
    let encoded = text(headers, awc::http::header::CONTENT_ENCODING).filter(|e| !e.eq_ignore_ascii_case("identity"));
    if let (StatusCode::OK, Some(encoding)) = (status, encoded) {
        return Err(EgressError::Broken(format!("it sent the encoding {encoding:?}, which was not asked for")));
    }
    Ok(Response {
        status: status.as_u16(),
        length,
        content_type: text(headers, CONTENT_TYPE).map(str::to_owned),
        retry_after: text(headers, RETRY_AFTER).and_then(|v| v.trim().parse().ok()).map(Duration::from_secs),
        body: Body { pieces: mpsc::channel(1).1 },
    })
}

/// Hands the body on, piece by piece, and an empty piece at its end.
async fn pump(
    mut answer: Answer,
    expected: Option<u64>,
    limits: Limits,
    deadline: Instant,
    pieces: &mpsc::Sender<Result<Bytes, EgressError>>,
) -> Result<(), EgressError> {
    let mut received = 0_u64;
    loop {
        let idle = Instant::now() + limits.idle;
        let Ok(piece) = timeout_at(idle.min(deadline), answer.next()).await else {
            return Err(EgressError::Timeout(if idle < deadline { Wait::Idle } else { Wait::Total }));
        };
        match piece {
            Some(Ok(bytes)) if bytes.is_empty() => {}
            Some(Ok(bytes)) => {
                received += bytes.len() as u64;
                // The reader sets the pace; only one that stands still until the deadline is given up.
                match timeout_at(deadline, pieces.send(Ok(bytes))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => return Err(EgressError::Timeout(Wait::Total)),
                }
            }
            Some(Err(PayloadError::Incomplete(_) | PayloadError::Io(_))) => return Err(EgressError::CutOff { received, expected }),
            Some(Err(e)) => return Err(EgressError::Broken(format!("after {received} bytes: {e}"))),
            None if expected.is_some_and(|n| n != received) => return Err(EgressError::CutOff { received, expected }),
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
fn reason(e: SendRequestError) -> EgressError {
    match e {
        SendRequestError::Connect(ConnectError::Io(io)) => {
            let text = io.to_string();
            match io.into_inner().and_then(|inner| inner.downcast::<EgressError>().ok()) {
                Some(own) => *own,
                None => EgressError::Broken(text),
            }
        }
        SendRequestError::Connect(ConnectError::Timeout) => EgressError::Timeout(Wait::Connect),
        SendRequestError::Connect(ConnectError::Disconnected) => {
            EgressError::Broken("the connection was closed before an answer came".into())
        }
        SendRequestError::Timeout => EgressError::Timeout(Wait::FirstByte),
        SendRequestError::Response(e) => EgressError::Broken(format!("the answer is not HTTP as it has to be: {e}")),
        other => EgressError::Broken(other.to_string()),
    }
}

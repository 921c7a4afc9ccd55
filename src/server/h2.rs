//! HTTP/2 (RFC 9113), on connections whose TLS agreed on it: the go command's own choice.
//!
//! The frames are the h2 crate's. This drives it with bounds that actix's dispatcher does not set (streams at once, bytes of
//! header, a limit on each wait), and tells clients by GOAWAY before a stop, so that they go elsewhere in peace.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use actix_http::body::{BodySize, MessageBody};
use actix_http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderValue};
use actix_http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

use super::body::Body;
use super::connection::{STALL, Wire};
use super::{Front, HEAD_LIMIT, KEEP_ALIVE, MAX_HEADERS};

/// Requests under way on one connection. The go command sends some dozens.
const STREAMS: u32 = 128;
/// What is sent of one body before the client has taken some of it.
const SEND_BUFFER: usize = 64 << 10;
/// What is handed to the connection at once.
const FRAME: usize = 16 << 10;
/// What may come with a question before it is given up.
const MAX_SENT: usize = 16 << 20;
/// A client that was told to go, and takes nothing of what is left for it, is given up after so long.
const LAST: Duration = Duration::from_secs(10);

/// Requests under way on a connection.
#[derive(Default)]
struct UnderWay {
    count: Cell<usize>,
    ended: Notify,
}

/// A connection that knows when its client took something last: answers that were handed over may still be on their way.
struct Observed<T> {
    io: T,
    taken: Rc<Cell<Instant>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Observed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Observed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if polled.is_ready() {
            self.taken.set(Instant::now());
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// One of them, until it is dropped.
struct One(Rc<UnderWay>);

impl Drop for One {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.ended.notify_one();
    }
}

/// Serves a connection to its end. Once `stopping` is there, requests under way are finished and no further ones taken.
pub(super) async fn serve(io: TlsStream<TcpStream>, front: Front, wire: Rc<Wire>, stopping: impl Future<Output = ()>) {
    let mut builder = Builder::new();
    let header = u32::try_from(MAX_HEADERS).unwrap_or(u32::MAX);
    builder.max_concurrent_streams(STREAMS).max_header_list_size(header).max_send_buffer_size(SEND_BUFFER);
    let taken = Rc::new(Cell::new(Instant::now()));
    let io = Observed { io, taken: Rc::clone(&taken) };
    let mut stopping = pin!(stopping);
    let shaken = tokio::select! {
        shaken = timeout(HEAD_LIMIT, builder.handshake::<_, Bytes>(io)) => shaken,
        // Who has not begun to speak is not waited for.
        () = &mut stopping => return,
    };
    let Ok(Ok(mut connection)) = shaken else { return };
    let under_way = Rc::new(UnderWay::default());
    let mut told = false;
    loop {
        let idle = under_way.count.get() == 0;
        let deadline = taken.get() + if told { LAST } else { KEEP_ALIVE };
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                under_way.count.set(under_way.count.get() + 1);
                let one = One(Rc::clone(&under_way));
                let (front, wire) = (front.clone(), wire.request());
                actix_rt::spawn(async move {
                    let _one = one;
                    attend(request.into_parts(), respond, front, wire).await;
                });
            }
            () = under_way.ended.notified() => {}
            () = &mut stopping, if !told => {
                // Once all its answers are taken, the connection ends by itself.
                connection.graceful_shutdown();
                told = true;
                taken.set(Instant::now());
            }
            () = tokio::time::sleep_until(deadline), if idle => {
                if Instant::now() < taken.get() + if told { LAST } else { KEEP_ALIVE } {
                    continue;
                }
                if told {
                    return;
                }
                connection.graceful_shutdown();
                told = true;
                taken.set(Instant::now());
            }
        }
    }
}

/// Answers one request.
async fn attend((parts, sent): (http::request::Parts, RecvStream), mut respond: SendResponse<Bytes>, front: Front, wire: Rc<Wire>) {
    let mut request = Request::new();
    let head = request.head_mut();
    head.uri = parts.uri;
    head.method = parts.method;
    head.version = parts.version;
    head.headers = parts.headers.into();
    let is_head = head.method == Method::HEAD;
    let answered = tokio::select! {
        answered = front.answer(request, wire) => answered,
        // The client does not want it any more.
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    let (head, body) = head_of(answered, is_head);
    let ends = is_head || body.size().is_eof();
    // Where it cannot be sent there is nobody to send it to.
    let Ok(stream) = respond.send_response(head, ends) else { return };
    if !ends {
        send(body, stream).await;
    }
    read_out(sent).await;
}

/// Reads what came with a question that asks for nothing by it, as HTTP/1 does: given up unread it would reset the stream, and that
/// would overtake the answer. More than so much is given up all the same.
async fn read_out(mut sent: RecvStream) {
    let reading = async {
        let mut read = 0;
        while let Some(Ok(piece)) = sent.data().await {
            read += piece.len();
            if read > MAX_SENT || sent.flow_control().release_capacity(piece.len()).is_err() {
                return;
            }
        }
    };
    // A client that is slow with it is given up too.
    let _ = timeout(LAST, reading).await;
}

/// The head of an answer as HTTP/2 has it, and its body.
fn head_of(response: Response<Body>, is_head: bool) -> (http::Response<()>, Body) {
    let (response, body) = response.into_parts();
    let mut head = http::Response::new(());
    *head.status_mut() = response.status();
    let headers = head.headers_mut();
    // Those that HTTP/1 has for its connections are none of a stream's (RFC 9113 §8.2.2).
    for (name, value) in response.headers().iter().filter(|(name, _)| **name != CONNECTION) {
        headers.append(name, value.clone());
    }
    let says = is_head && headers.contains_key(CONTENT_LENGTH);
    if let (BodySize::Sized(length), false) = (body.size(), says || response.status() == StatusCode::NOT_MODIFIED) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Ok(now) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now())) {
        headers.insert(DATE, now);
    }
    (head, body)
}

/// Sends a body as far and as fast as the client takes it. One that breaks off resets its stream, so that the client never takes
/// it for whole.
async fn send(body: Body, mut stream: SendStream<Bytes>) {
    let mut body = pin!(body);
    loop {
        let piece = tokio::select! {
            piece = poll_fn(|cx| body.as_mut().poll_next(cx)) => piece,
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return,
        };
        match piece {
            Some(Ok(piece)) => {
                if !send_piece(&mut stream, piece).await {
                    return;
                }
            }
            Some(Err(_)) => return stream.send_reset(Reason::INTERNAL_ERROR),
            None => {
                // Its client may be gone.
                let _ = stream.send_data(Bytes::new(), true);
                return;
            }
        }
    }
}

/// Whether a piece has been handed over.
async fn send_piece(stream: &mut SendStream<Bytes>, mut piece: Bytes) -> bool {
    while !piece.is_empty() {
        stream.reserve_capacity(piece.len().min(FRAME));
        match timeout(STALL, poll_fn(|cx| stream.poll_capacity(cx))).await {
            Ok(Some(Ok(room))) => {
                let part = piece.split_to(room.min(piece.len()));
                if stream.send_data(part, false).is_err() {
                    return false;
                }
            }
            Ok(Some(Err(_)) | None) => return false,
            // The client takes nothing.
            Err(_) => {
                stream.send_reset(Reason::CANCEL);
                return false;
            }
        }
    }
    true
}

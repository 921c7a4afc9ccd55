//! Bodies that do not hold a worker: files that their connection sends (see [`super::connection`]), and over TLS files and growing
//! files followed at the client's pace, read by offset without waiting where the page cache has them, else on a blocking thread.
//!
//! A body that cannot be completed ends in an error, upon which the connection is closed: the client sees that it is cut
//! off and never takes it for whole.

use std::cell::RefCell;
use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_http::body::{BodySize, MessageBody};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use rustix::io::{Errno, ReadWriteFlags};

use super::connection::{FileJob, STAND_IN, Slot};
use super::observe::Record;
use crate::store::SpoolReader;
use crate::store::spool::Readable;

/// A piece of a growing file of unknown length that is read and sent at once.
const PIECE: usize = 64 << 10;
/// Buffers that a thread keeps for the next file.
const SPARE: usize = 8;

type BoxError = Box<dyn std::error::Error>;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that goes back to its thread's spare ones when the piece has been sent.
struct Piece {
    buffer: Vec<u8>,
    length: usize,
}

impl Piece {
    fn new() -> Self {
        let buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; PIECE]);
        Self { buffer, length: 0 }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // A thread that is ending has no spare buffers any more.
        let _ = BUFFERS.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < SPARE
            {
                spare.push(buffer);
            }
        });
    }
}

/// Reads a piece without waiting for the disk; `None` where it would have to.
fn read_now(file: &File, offset: u64, length: usize) -> io::Result<Option<Bytes>> {
    let mut piece = Piece::new();
    let read = {
        let mut into = [IoSliceMut::new(&mut piece.buffer[..length])];
        rustix::io::preadv2(file, &mut into, offset, ReadWriteFlags::NOWAIT)
    };
    match read {
        Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was")),
        Ok(read) => {
            piece.length = read;
            Ok(Some(Bytes::from_owner(piece)))
        }
        // Not in the page cache, or a file system or kernel that cannot say.
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn read_waiting(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut piece = Piece::new();
    file.read_exact_at(&mut piece.buffer[..length], offset)?;
    piece.length = length;
    Ok(Bytes::from_owner(piece))
}

fn piece_length(rest: u64) -> usize {
    usize::try_from(rest).map_or(PIECE, |rest| rest.min(PIECE))
}

/// A part of a file that does not change, handed to the connection.
struct FileBody {
    slot: Slot,
    job: Option<FileJob>,
    length: u64,
}

impl FileBody {
    fn new(slot: Slot, file: Arc<File>, offset: u64, length: u64) -> Self {
        Self { slot, job: Some(FileJob::new(file, offset, length)), length }
    }

    fn poll(&mut self) -> Poll<Option<Result<Bytes, BoxError>>> {
        if self.length == 0 {
            return Poll::Ready(None);
        }
        if let Some(job) = self.job.take() {
            self.slot.leave(job);
            return Poll::Ready(Some(Ok(Bytes::from_static(STAND_IN))));
        }
        // The connection wakes this task when it is done.
        if self.slot.rest().is_some() { Poll::Pending } else { Poll::Ready(None) }
    }

    /// The bytes that have gone out.
    fn sent(&self) -> u64 {
        if self.job.is_some() { 0 } else { self.length - self.slot.rest().unwrap_or(0) }
    }
}

type Waiting = Pin<Box<dyn Future<Output = (SpoolReader, Result<Readable, Arc<str>>)>>>;

/// A growing file of announced length, handed to the connection stretch by stretch.
pub(super) struct GrowingBody {
    slot: Slot,
    file: Arc<File>,
    waiting: Waiting,
    /// What has been handed to the connection.
    offset: u64,
    length: u64,
}

fn wait_for(mut reader: SpoolReader, offset: u64) -> Waiting {
    Box::pin(async move {
        let ready = reader.readable(offset).await;
        (reader, ready)
    })
}

impl GrowingBody {
    pub(super) fn new(slot: Slot, reader: SpoolReader, length: u64) -> Self {
        Self { slot, file: Arc::clone(&reader.file), waiting: wait_for(reader, 0), offset: 0, length }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        if self.slot.rest().is_some() {
            // The connection wakes this task when it is done.
            return Poll::Pending;
        }
        let (reader, ready) = ready!(self.waiting.as_mut().poll(cx));
        let stretch = match ready {
            Ok(Readable::Bytes(ready)) => ready.min(self.length - self.offset),
            Ok(Readable::End) if self.offset == self.length => return Poll::Ready(None),
            Ok(Readable::End) => return Poll::Ready(Some(Err("it is shorter than announced".into()))),
            Err(reason) => return Poll::Ready(Some(Err(reason.to_string().into()))),
        };
        if stretch == 0 {
            return Poll::Ready(Some(Err("it is longer than announced".into())));
        }
        self.slot.leave(FileJob::new(Arc::clone(&self.file), self.offset, stretch));
        self.offset += stretch;
        self.waiting = wait_for(reader, self.offset);
        Poll::Ready(Some(Ok(Bytes::from_static(STAND_IN))))
    }
}

type PieceStream = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>>>>;

/// Reads a piece of a file, at once where it is in memory.
async fn read_piece(file: &Arc<File>, offset: u64, length: usize) -> Result<Bytes, BoxError> {
    if let Some(piece) = read_now(file, offset, length)? {
        return Ok(piece);
    }
    let file = Arc::clone(file);
    Ok(tokio::task::spawn_blocking(move || read_waiting(&file, offset, length)).await??)
}

/// Follows a growing file from its start; to this length, where one was announced.
fn follow(reader: SpoolReader, announced: Option<u64>) -> PieceStream {
    Box::pin(stream::try_unfold((reader, 0_u64), move |(mut reader, offset)| async move {
        let ready = match reader.readable(offset).await.map_err(|reason| BoxError::from(reason.to_string()))? {
            Readable::End if announced.is_some_and(|length| offset < length) => return Err("it is shorter than announced".into()),
            Readable::End => return Ok(None),
            Readable::Bytes(ready) => ready,
        };
        let piece = read_piece(&reader.file, offset, piece_length(ready)).await?;
        let next = offset + piece.len() as u64;
        if announced.is_some_and(|length| next > length) {
            return Err("it is longer than announced".into());
        }
        Ok(Some((piece, (reader, next))))
    }))
}

/// Reads a part of a file that does not change.
fn read_part(file: Arc<File>, from: u64, length: u64) -> PieceStream {
    Box::pin(stream::try_unfold((file, from), move |(file, offset)| async move {
        let rest = from + length - offset;
        if rest == 0 {
            return Ok(None);
        }
        let piece = read_piece(&file, offset, piece_length(rest)).await?;
        let next = offset + piece.len() as u64;
        Ok(Some((piece, (file, next))))
    }))
}

/// The body of any answer of modgate's.
pub(super) struct Body {
    inner: Inner,
    /// The connection that it goes out on, which waits for its end before it reads on.
    slot: Option<Slot>,
    /// What is logged when the body has been sent or given up.
    record: Option<Box<Record>>,
    sent: u64,
}

enum Inner {
    Bytes(Bytes),
    File(FileBody),
    Growing(GrowingBody),
    /// A file piece by piece; its length, where it is known.
    Pieces(PieceStream, Option<u64>),
    /// The answer to a HEAD: a length without bytes.
    Head(BodySize),
}

impl Body {
    pub(super) fn bytes(bytes: Bytes) -> Self {
        Self { inner: Inner::Bytes(bytes), slot: None, record: None, sent: 0 }
    }

    /// A part of a file that does not change.
    pub(super) fn file(slot: Slot, file: Arc<File>, from: u64, length: u64) -> Self {
        let inner = if slot.sends_files() {
            Inner::File(FileBody::new(slot, file, from, length))
        } else {
            Inner::Pieces(read_part(file, from, length), Some(length))
        };
        Self { inner, slot: None, record: None, sent: 0 }
    }

    pub(super) fn growing(slot: &Slot, reader: SpoolReader, length: Option<u64>) -> Self {
        let inner = match length {
            Some(length) if slot.sends_files() => Inner::Growing(GrowingBody::new(slot.clone(), reader, length)),
            length => Inner::Pieces(follow(reader, length), length),
        };
        Self { inner, slot: None, record: None, sent: 0 }
    }

    /// The same body, going out on this connection.
    pub(super) fn on(mut self, slot: Slot) -> Self {
        self.slot = Some(slot);
        self
    }

    /// The same answer without its bytes.
    pub(super) fn into_head(mut self) -> Self {
        self.inner = Inner::Head(self.length().map_or(BodySize::Stream, BodySize::Sized));
        self
    }

    /// The length of a body that its connection sends from a file.
    pub(super) fn file_length(&self) -> Option<u64> {
        match &self.inner {
            Inner::File(body) => Some(body.length),
            Inner::Growing(body) => Some(body.length),
            _ => None,
        }
    }

    /// Whether it is sent piece by piece.
    pub(super) fn is_streamed(&self) -> bool {
        matches!(self.inner, Inner::File(_) | Inner::Growing(_) | Inner::Pieces(..))
    }

    /// Whether it is the answer to a HEAD.
    pub(super) fn is_head(&self) -> bool {
        matches!(self.inner, Inner::Head(_))
    }

    /// Logs the record when the body is done with.
    pub(super) fn recorded(mut self, record: Record) -> Self {
        self.record = Some(Box::new(record));
        self
    }

    /// The length of what is sent, where it is known.
    pub(super) fn length(&self) -> Option<u64> {
        if let Some(length) = self.file_length() {
            return Some(length);
        }
        match self.size() {
            BodySize::Sized(n) => Some(n),
            BodySize::None => Some(0),
            BodySize::Stream => None,
        }
    }
}

impl MessageBody for Body {
    type Error = BoxError;

    fn size(&self) -> BodySize {
        match &self.inner {
            Inner::Bytes(bytes) => BodySize::Sized(bytes.len() as u64),
            // The length of a file stands in the head already; see `connection`.
            Inner::File(_) | Inner::Growing(_) | Inner::Pieces(_, None) => BodySize::Stream,
            Inner::Pieces(_, Some(length)) => BodySize::Sized(*length),
            Inner::Head(size) => *size,
        }
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let polled = match &mut self.inner {
            Inner::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Bytes(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Inner::File(body) => body.poll(),
            Inner::Growing(body) => body.poll(cx),
            Inner::Pieces(stream, _) => stream.as_mut().poll_next(cx),
            Inner::Head(_) => Poll::Ready(None),
        };
        match &polled {
            Poll::Ready(Some(Ok(piece))) => self.sent += piece.len() as u64,
            Poll::Ready(Some(Err(e))) => {
                if let Some(record) = &mut self.record {
                    record.aborted = Some(e.to_string());
                }
            }
            Poll::Ready(None) => {
                if let Some(record) = &mut self.record {
                    record.complete = true;
                }
            }
            Poll::Pending => {}
        }
        polled
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        match &self.inner {
            Inner::Bytes(bytes) if self.record.is_none() && self.slot.is_none() => Ok(bytes.clone()),
            _ => Err(self),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            slot.done();
        }
        match &self.inner {
            Inner::File(body) => self.sent = body.sent(),
            Inner::Growing(body) => self.sent = body.offset - body.slot.rest().unwrap_or(0),
            _ => {}
        }
        if let Some(record) = self.record.take() {
            // A body of known length counts as complete with its last byte, whether or not its end was polled for.
            let whole = record.complete || record.expected == Some(self.sent);
            record.log(self.sent, whole);
        }
    }
}

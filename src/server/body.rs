//! Bodies that do not hold a worker: files read by offset without waiting where the page cache has them, else on a blocking
//! thread; growing files followed at the client's pace.
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
use std::task::{Context, Poll};

use actix_http::body::{BodySize, MessageBody};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::JoinHandle;

use super::observe::Record;
use crate::store::SpoolReader;
use crate::store::spool::Readable;

/// A piece of a file that is read and sent at once.
const PIECE: usize = 128 << 10;
/// Buffers that a thread keeps for the next file.
const SPARE: usize = 32;

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

/// A range of a file that does not change.
pub(super) struct FileBody {
    file: Arc<File>,
    offset: u64,
    rest: u64,
    waiting: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    pub(super) fn new(file: Arc<File>, offset: u64, length: u64) -> Self {
        Self { file, offset, rest: length, waiting: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        if self.rest == 0 {
            return Poll::Ready(None);
        }
        let length = piece_length(self.rest);
        let piece = loop {
            if let Some(waiting) = &mut self.waiting {
                let Poll::Ready(read) = Pin::new(waiting).poll(cx) else { return Poll::Pending };
                self.waiting = None;
                break read.unwrap_or_else(|e| Err(io::Error::other(e)));
            }
            match read_now(&self.file, self.offset, length) {
                Ok(Some(piece)) => break Ok(piece),
                Ok(None) => {
                    let (file, offset) = (Arc::clone(&self.file), self.offset);
                    self.waiting = Some(tokio::task::spawn_blocking(move || read_waiting(&file, offset, length)));
                }
                Err(e) => break Err(e),
            }
        };
        match piece {
            Ok(piece) => {
                self.offset += piece.len() as u64;
                self.rest -= piece.len() as u64;
                Poll::Ready(Some(Ok(piece)))
            }
            Err(e) => {
                self.rest = 0;
                Poll::Ready(Some(Err(e.into())))
            }
        }
    }
}

type PieceStream = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>>>>;

/// Follows a growing file from its start.
fn follow(reader: SpoolReader) -> PieceStream {
    Box::pin(stream::try_unfold((reader, 0_u64), |(mut reader, offset)| async move {
        let ready = match reader.readable(offset).await.map_err(|reason| BoxError::from(reason.to_string()))? {
            Readable::End => return Ok(None),
            Readable::Bytes(ready) => ready,
        };
        let length = piece_length(ready);
        let piece = match read_now(&reader.file, offset, length)? {
            Some(piece) => piece,
            None => {
                let file = Arc::clone(&reader.file);
                tokio::task::spawn_blocking(move || read_waiting(&file, offset, length)).await??
            }
        };
        let next = offset + piece.len() as u64;
        Ok(Some((piece, (reader, next))))
    }))
}

/// The body of any answer of modgate's.
pub(super) struct Body {
    inner: Inner,
    /// What is logged when the body has been sent or given up.
    record: Option<Box<Record>>,
    sent: u64,
}

enum Inner {
    Bytes(Bytes),
    File(FileBody),
    Growing(PieceStream, Option<u64>),
    /// The answer to a HEAD: a length without bytes.
    Head(BodySize),
}

impl Body {
    pub(super) fn bytes(bytes: Bytes) -> Self {
        Self { inner: Inner::Bytes(bytes), record: None, sent: 0 }
    }

    pub(super) fn file(body: FileBody) -> Self {
        Self { inner: Inner::File(body), record: None, sent: 0 }
    }

    pub(super) fn growing(reader: SpoolReader, length: Option<u64>) -> Self {
        Self { inner: Inner::Growing(follow(reader), length), record: None, sent: 0 }
    }

    /// The same answer without its bytes.
    pub(super) fn into_head(mut self) -> Self {
        self.inner = Inner::Head(self.size());
        self
    }

    /// Whether it is sent piece by piece.
    pub(super) fn is_streamed(&self) -> bool {
        matches!(self.inner, Inner::File(_) | Inner::Growing(..))
    }

    /// Logs the record when the body is done with.
    pub(super) fn recorded(mut self, record: Record) -> Self {
        self.record = Some(Box::new(record));
        self
    }

    pub(super) fn length(&self) -> Option<u64> {
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
            Inner::File(body) => BodySize::Sized(body.rest),
            Inner::Growing(_, Some(length)) => BodySize::Sized(*length),
            Inner::Growing(_, None) => BodySize::Stream,
            Inner::Head(size) => *size,
        }
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let polled = match &mut self.inner {
            Inner::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Bytes(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Inner::File(body) => body.poll(cx),
            Inner::Growing(stream, _) => stream.as_mut().poll_next(cx),
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
            Inner::Bytes(bytes) if self.record.is_none() => Ok(bytes.clone()),
            _ => Err(self),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            // A body of known length counts as complete with its last byte, whether or not its end was polled for.
            let whole = record.complete || record.expected == Some(self.sent);
            record.log(self.sent, whole);
        }
    }
}

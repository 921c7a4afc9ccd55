//! Connections of the proxy's listener, over which files go by `sendfile`.
//!
//! actix's HTTP/1 dispatcher copies a body twice on its way to the socket, which for large zips is most of their cost. So the
//! connection and the body agree on something: the body leaves a [`FileJob`] with its connection and gives the dispatcher
//! one byte in its stead, then nothing until the job is done. That byte is always the last one that the dispatcher
//! has to write, and when the connection comes to it, it sends the file instead. HTTP sees the announced length
//! arrive; the dispatcher sees a body that is slow.
//!
//! Requests are handed to the dispatcher one at a time (see [`super::head`]); the next one waits until the answer before it has
//! been handed over.
//!
//! Over TLS there is no `sendfile`: bodies are read and written piece by piece there (see [`super::body`]).
//!
//! `sendfile` waits for the disk where a page is not in memory, so each stretch is first looked for without waiting
//! (`preadv2` with `RWF_NOWAIT`), and read ahead on a blocking thread where it is missing. A client that takes nothing for
//! [`STALL`] is given up.

use std::cell::RefCell;
use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_rt::net::TcpStream;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::head::{self, EndOfHead};
use super::tls::SharedCertificate;

/// What the body gives the dispatcher in the file's stead.
pub(super) const STAND_IN: &[u8] = b"\0";
/// What a record of a TLS handshake begins with (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;
/// A client that takes nothing for so long is given up.
pub(super) const STALL: Duration = Duration::from_secs(60);
/// A stretch of a file that is looked for in memory and sent at once.
const STRETCH: u64 = 512 << 10;
/// The distance at which pages of a stretch are looked for: the kernel reads ahead in runs of this size.
const PROBE: u64 = 128 << 10;
/// After so many bytes in one go the worker's other connections get their turn.
const TURN: u64 = 2 << 20;

/// A part of a file to be sent.
#[derive(Debug)]
pub(super) struct FileJob {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) rest: u64,
    /// The page cache was found to have the file up to here.
    ready_to: u64,
    reading: Option<JoinHandle<io::Result<()>>>,
}

impl FileJob {
    pub(super) fn new(file: Arc<File>, offset: u64, rest: u64) -> Self {
        Self { file, offset, rest, ready_to: offset, reading: None }
    }

    /// The end of the next stretch.
    fn stretch(&self) -> u64 {
        self.offset + self.rest.min(STRETCH)
    }

    /// Makes sure that the next stretch is in memory.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                read.unwrap_or_else(|e| Err(io::Error::other(e)))?;
                self.ready_to = self.stretch();
            }
            if self.ready_to > self.offset {
                return Poll::Ready(Ok(()));
            }
            let end = self.stretch();
            if in_memory(&self.file, self.offset, end) {
                self.ready_to = end;
            } else {
                let (file, from) = (Arc::clone(&self.file), self.offset);
                self.reading = Some(tokio::task::spawn_blocking(move || read_ahead(&file, from, end)));
            }
        }
    }
}

/// Whether a stretch can be had without waiting, as far as a look at some of its pages tells.
fn in_memory(file: &File, from: u64, end: u64) -> bool {
    let mut byte = [0];
    let mut look = |at: u64| rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT);
    let mut at = from;
    loop {
        match look(at) {
            Ok(1..) => {}
            // A kernel or file system that cannot say: take it as it comes.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return true,
            // Not there, or an end or error that sendfile will meet too.
            Err(Errno::AGAIN) => return false,
            Ok(_) | Err(_) => return true,
        }
        if at + 1 >= end {
            return true;
        }
        at = (at + PROBE).min(end - 1);
    }
}

/// Reads a stretch into memory, on a thread that may wait.
fn read_ahead(file: &File, from: u64, end: u64) -> io::Result<()> {
    let mut scratch = [0; 16 << 10];
    let mut at = from;
    while at < end {
        let wanted = usize::try_from(end - at).map_or(scratch.len(), |rest| rest.min(scratch.len()));
        match file.read_at(&mut scratch[..wanted], at)? {
            0 => return Ok(()),
            read => at += read as u64,
        }
    }
    Ok(())
}

/// What a connection and the answer under way on it share.
#[derive(Debug, Default)]
struct Exchange {
    /// The file that the connection is to send.
    job: Option<FileJob>,
    /// A request is being answered; the next one has to wait.
    busy: bool,
    /// Who reads, to be told when the next request's turn has come.
    reader: Option<Waker>,
}

/// An answer's side of its connection: where a body leaves its file, and says that it is done.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot {
    exchange: Rc<RefCell<Exchange>>,
    /// Whether the connection sends files by itself.
    sends_files: bool,
}

impl Slot {
    /// Whether bodies may leave their files here.
    pub(super) fn sends_files(&self) -> bool {
        self.sends_files
    }

    /// Leaves a job. There is one response at a time, and so one job.
    pub(super) fn leave(&self, job: FileJob) {
        self.exchange.borrow_mut().job = Some(job);
    }

    /// The answer has been handed over; the connection may read the next request.
    pub(super) fn done(&self) {
        let mut exchange = self.exchange.borrow_mut();
        exchange.busy = false;
        if let Some(reader) = exchange.reader.take() {
            reader.wake();
        }
    }

    /// The bytes that are still to be sent; `None` when the job is done.
    pub(super) fn rest(&self) -> Option<u64> {
        self.exchange.borrow().job.as_ref().map(|job| job.rest)
    }
}

/// What a request knows of its connection.
#[derive(Debug, Default)]
pub(super) struct Wire {
    pub(super) slot: Slot,
    /// The other end.
    pub(super) peer: Option<SocketAddr>,
    /// The certificate that it showed.
    pub(super) certificate: Option<SharedCertificate>,
}

impl Wire {
    /// For one request of many that are answered at the same time.
    pub(super) fn request(&self) -> Rc<Self> {
        Rc::new(Self { slot: Slot::default(), peer: self.peer, certificate: self.certificate.clone() })
    }
}

/// What a connection is made of.
#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    io: Io,
    slot: Slot,
    wire: Rc<Wire>,
    stalled: Option<Pin<Box<Sleep>>>,
    end: EndOfHead,
    /// Bytes of a head that is not whole yet, and what came after a whole one.
    ahead: Vec<u8>,
    /// How many bytes of `ahead` have been searched for the end of a head.
    searched: usize,
    /// How many bytes of `ahead` are a whole head that is to be handed over.
    head: usize,
}

impl Connection {
    /// A plain one, with whom that is.
    pub(super) fn plain(io: TcpStream, peer: Option<SocketAddr>) -> Self {
        Self::new(Io::Plain(io), Wire { slot: Slot { sends_files: true, ..Slot::default() }, peer, certificate: None })
    }

    /// One within TLS, with whom that is.
    pub(super) fn tls(io: TlsStream<TcpStream>, wire: Wire) -> Self {
        Self::new(Io::Tls(Box::new(io)), wire)
    }

    fn new(io: Io, wire: Wire) -> Self {
        let slot = wire.slot.clone();
        let wire = Rc::new(wire);
        Self { io, slot, wire, stalled: None, end: EndOfHead::default(), ahead: Vec::new(), searched: 0, head: 0 }
    }

    /// What this connection's requests know of it.
    pub(super) fn wire(&self) -> Rc<Wire> {
        Rc::clone(&self.wire)
    }

    fn poll_some(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let slot = Rc::clone(&self.slot.exchange);
        let mut exchange = slot.borrow_mut();
        match (exchange.job.as_mut(), buf) {
            (None, _) => self.io.poll_write(cx, buf),
            (Some(job), [_stand_in]) => {
                let Io::Plain(io) = &self.io else { return Poll::Ready(Err(io::ErrorKind::Unsupported.into())) };
                ready!(poll_send(io, &mut self.stalled, cx, job))?;
                exchange.job = None;
                // The body, of the same task, has something to say now: that it is complete.
                cx.waker().wake_by_ref();
                Poll::Ready(Ok(buf.len()))
            }
            (Some(_), [head @ .., _stand_in]) => self.io.poll_write(cx, head),
            (Some(_), []) => Poll::Ready(Ok(0)),
        }
    }
}

/// Sends the file, as far as the client takes it.
fn poll_send(
    io: &TcpStream,
    stalled: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
    job: &mut FileJob,
) -> Poll<io::Result<()>> {
    let turn = job.rest.saturating_sub(TURN);
    while job.rest > 0 {
        if job.rest <= turn {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(job.poll_ready(cx))?;
        ready!(io.poll_write_ready(cx))?;
        let length = usize::try_from(job.ready_to.min(job.offset + job.rest) - job.offset).unwrap_or(usize::MAX);
        let mut offset = job.offset;
        let sent = io.try_io(Interest::WRITABLE, || {
            rustix::fs::sendfile(io, &*job.file, Some(&mut offset), length).map_err(io::Error::from)
        });
        match sent {
            Ok(0) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"))),
            Ok(sent) => {
                job.offset += sent as u64;
                job.rest -= sent as u64;
                *stalled = None;
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Poll::Ready(Err(e)),
        }
    }
    Poll::Ready(Ok(()))
}

impl Io {
    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl Connection {
    /// Bounds the time in which the client takes nothing.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.poll_some(cx, buf);
        self.bounded(cx, polled)
    }

    // TLS takes what is written into a buffer of its own, so that it is here where it waits.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.io.poll_flush(cx);
        self.bounded(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.io.poll_shutdown(cx);
        self.bounded(cx, polled)
    }
}

impl Connection {
    /// Looks for the end of the head in what came last, and hands over what is whole.
    fn take_head(&mut self, buf: &mut ReadBuf<'_>) {
        if self.searched == 0 && self.ahead.first() == Some(&TLS_HANDSHAKE) {
            // Such a client waits for an answer, and would send no end of a head.
            self.refuse(400);
            self.searched = 0;
            return self.hand_over(buf);
        }
        match self.end.find(&self.ahead[self.searched..]) {
            Some(end) => self.head = self.searched + end,
            None if self.ahead.len() > head::MAX_HEAD => self.refuse(if self.ahead.contains(&b'\n') { 431 } else { 414 }),
            None => {
                self.searched = self.ahead.len();
                return;
            }
        }
        self.searched = 0;
        if let Some(status) = head::refused(&self.ahead[..self.head]) {
            self.refuse(status);
        }
        self.hand_over(buf);
    }

    /// Puts another request in the place of the one that came; the connection ends with its answer.
    fn refuse(&mut self, status: u16) {
        self.ahead = head::stand_in(status);
        self.head = self.ahead.len();
    }

    /// Gives the dispatcher as much of the whole head as it has room for.
    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.head.min(buf.remaining());
        buf.put_slice(&self.ahead[..length]);
        self.ahead.drain(..length);
        self.head -= length;
        self.slot.exchange.borrow_mut().busy = self.head == 0;
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        {
            let mut exchange = this.slot.exchange.borrow_mut();
            if exchange.busy {
                exchange.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        if this.head > 0 {
            this.hand_over(buf);
            return Poll::Ready(Ok(()));
        }
        loop {
            // What is there already came together with the request before.
            if this.ahead.len() > this.searched {
                this.take_head(buf);
                if this.slot.exchange.borrow().busy || this.head > 0 {
                    return Poll::Ready(Ok(()));
                }
            }
            let mut piece = [0; 4096];
            let mut into = ReadBuf::new(&mut piece);
            ready!(this.io.poll_read(cx, &mut into))?;
            if into.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.ahead.extend_from_slice(into.filled());
        }
    }
}

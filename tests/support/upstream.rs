//! Upstreams on loopback that can be made to misbehave in every way that real ones do, and that remember what they were asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::modules::{Module, tree};

/// How one path is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// 200 with these bytes.
    Good(Vec<u8>),
    /// A status without more.
    Status(u16),
    /// A status with headers and a body.
    Full(u16, Vec<(String, String)>, Vec<u8>),
    /// Accepts and never answers.
    Hang,
    /// Closes the connection at once.
    Close,
    /// Announces the whole body and closes after so many bytes of it.
    Truncate(Vec<u8>, usize),
    /// The same in chunks: no last chunk.
    TruncateChunked(Vec<u8>, usize),
    /// Announces the whole body and stalls after so many bytes of it.
    Stall(Vec<u8>, usize),
    /// Resets the connection after so many bytes.
    Reset(Vec<u8>, usize),
    /// Sends a body with neither length nor chunks and closes.
    NoLength(Vec<u8>),
    /// Good on a new connection; a kept one is closed.
    CloseKept(Vec<u8>),
    /// 200 in chunks.
    Chunked(Vec<u8>),
    /// Waits, then answers.
    After(Duration, Box<Reply>),
    /// Sends the body in pieces of so many bytes, waiting between them.
    Slow(Vec<u8>, usize, Duration),
    /// Knows Range and If-Range for a body with this entity tag, and resets the connection after so many bytes each time.
    Ranged(Vec<u8>, String, usize),
    /// Knows Range, but not If-Range.
    Careless(Vec<u8>, String),
    /// These replies in turn; the last one for ever.
    InTurn(Vec<Reply>),
}

#[derive(Default)]
struct State {
    replies: BTreeMap<String, Reply>,
    otherwise: Option<Reply>,
    asked: Vec<String>,
    heads: Vec<String>,
    times: Vec<Instant>,
}

/// A running upstream. It ends with the test's process.
#[derive(Clone)]
pub struct Upstream {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Upstream {
    /// One that serves these modules and says 404 to the rest.
    pub fn serving(modules: &[Module]) -> Self {
        let upstream = Self::start();
        for (path, body) in tree(modules) {
            upstream.set(&path, Reply::Good(body));
        }
        upstream
    }

    /// One that says 404 to everything until it is told otherwise.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    /// One that answers everything in the same way.
    pub fn always(reply: Reply) -> Self {
        let upstream = Self::start();
        upstream.otherwise(reply);
        upstream
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How a path is answered from now on.
    pub fn set(&self, path: &str, reply: Reply) {
        self.state.lock().unwrap().replies.insert(path.to_owned(), reply);
    }

    /// How every path without a reply of its own is answered.
    pub fn otherwise(&self, reply: Reply) {
        self.state.lock().unwrap().otherwise = Some(reply);
    }

    /// Forgets all replies and answers everything in one way.
    pub fn only(&self, reply: Reply) {
        let mut state = self.state.lock().unwrap();
        state.replies.clear();
        state.otherwise = Some(reply);
    }

    /// The paths that were asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }

    /// How often a path was asked for.
    pub fn count(&self, path: &str) -> usize {
        self.asked().iter().filter(|p| *p == path).count()
    }

    /// The heads of all requests, as they came.
    pub fn heads(&self) -> Vec<String> {
        self.state.lock().unwrap().heads.clone()
    }

    /// When the requests came.
    pub fn times(&self) -> Vec<Instant> {
        self.state.lock().unwrap().times.clone()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        self.state.lock().unwrap().asked.clear();
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let Ok(mut out) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    for served in 0.. {
        let mut head = String::new();
        loop {
            let before = head.len();
            match reader.read_line(&mut head) {
                Ok(1..) if head[before..] == *"\r\n" => break,
                Ok(1..) => {}
                _ => return,
            }
        }
        // The go command percent-encodes the exclamation mark, and what comes by a proxy on a kept connection has its host before it.
        let target = head.split(' ').nth(1).unwrap_or_default();
        let path = target.strip_prefix("http://").and_then(|rest| Some(&rest[rest.find('/')?..])).unwrap_or(target);
        let path = path.replace("%21", "!");
        let reply = {
            let mut state = state.lock().unwrap();
            let before = state.asked.iter().filter(|p| **p == path).count();
            state.asked.push(path.clone());
            state.heads.push(head.clone());
            state.times.push(Instant::now());
            match state.replies.get(&path).or(state.otherwise.as_ref()).cloned().unwrap_or(Reply::Status(404)) {
                Reply::InTurn(replies) => replies[before.min(replies.len() - 1)].clone(),
                reply => reply,
            }
        };
        match &reply {
            Reply::Ranged(body, tag, piece) => return ranged(&mut out, &head, body, tag, *piece, true),
            Reply::Careless(body, tag) => return ranged(&mut out, &head, body, tag, usize::MAX, false),
            _ => {}
        }
        let reply = match reply {
            Reply::CloseKept(_) if served > 0 => Reply::Close,
            Reply::CloseKept(body) => Reply::Good(body),
            other => other,
        };
        if !answer(&mut out, reply) {
            let _ = out.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// Sends the part that the head asks for, or the whole, and breaks off after so many bytes of it.
fn ranged(out: &mut TcpStream, head: &str, body: &[u8], tag: &str, piece: usize, careful: bool) {
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|l| l.split_once(':'));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned())
    };
    let from = header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let from = from.filter(|from| *from < body.len() && (!careful || header("if-range").as_deref() == Some(tag)));
    let start = from.unwrap_or(0);
    let status = match from {
        Some(from) => format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{}", body.len() - 1, body.len()),
        None => "200 OK".to_owned(),
    };
    let rest = &body[start..];
    let _ = write!(out, "HTTP/1.1 {status}\r\nETag: {tag}\r\nContent-Length: {}\r\n\r\n", rest.len());
    let _ = out.write_all(&rest[..piece.min(rest.len())]);
    let _ = out.flush();
    std::thread::sleep(Duration::from_millis(20));
    if piece < rest.len() {
        // What was sent and not read makes the close a reset.
        let _ = rustix::net::sockopt::set_socket_linger(&*out, Some(Duration::ZERO));
    }
}

/// Sends the reply; whether the connection can go on.
fn answer(out: &mut TcpStream, reply: Reply) -> bool {
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let part = |out: &mut TcpStream, body: &[u8], at: usize| {
        let _ = out.write_all(head(body.len()).as_bytes());
        let _ = out.write_all(&body[..at.min(body.len())]);
        let _ = out.flush();
    };
    match reply {
        // In one piece: the second of two would wait until the first has been acknowledged.
        Reply::Good(body) => out.write_all(&[head(body.len()).into_bytes(), body].concat()).is_ok(),
        Reply::Status(status) => write!(out, "HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nno").is_ok(),
        Reply::Full(status, headers, body) => {
            let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{}\r\n", body.len(), lines.concat());
            out.write_all(&[head.into_bytes(), body].concat()).is_ok()
        }
        Reply::Hang => {
            // Until the other side gives up.
            let _ = out.read(&mut [0; 1]);
            false
        }
        Reply::Close | Reply::CloseKept(_) | Reply::Ranged(..) | Reply::Careless(..) | Reply::InTurn(_) => false,
        Reply::Truncate(body, at) => {
            part(out, &body, at);
            false
        }
        Reply::TruncateChunked(body, at) => {
            let _ = write!(out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{at:x}\r\n");
            let _ = out.write_all(&body[..at]);
            let _ = out.write_all(b"\r\n");
            false
        }
        Reply::Stall(body, at) => {
            part(out, &body, at);
            let _ = out.read(&mut [0; 1]);
            false
        }
        Reply::Reset(body, at) => {
            part(out, &body, at);
            std::thread::sleep(Duration::from_millis(50));
            // What was sent and not read makes the close a reset.
            let _ = rustix::net::sockopt::set_socket_linger(&*out, Some(Duration::ZERO));
            false
        }
        Reply::NoLength(body) => {
            let _ = out.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let _ = out.write_all(&body);
            false
        }
        Reply::Chunked(body) => {
            let _ = out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(10_000) {
                let _ = write!(out, "{:x}\r\n", chunk.len());
                let _ = out.write_all(chunk);
                let _ = out.write_all(b"\r\n");
            }
            out.write_all(b"0\r\n\r\n").is_ok()
        }
        Reply::After(wait, reply) => {
            std::thread::sleep(wait);
            answer(out, *reply)
        }
        Reply::Slow(body, piece, wait) => {
            let _ = out.write_all(head(body.len()).as_bytes());
            body.chunks(piece).all(|chunk| {
                std::thread::sleep(wait);
                out.write_all(chunk).is_ok()
            })
        }
    }
}

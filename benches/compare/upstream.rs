//! The upstream that all servers ask: a small HTTP/1.1 server in this process.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::data::{Data, HERD};

/// What an answer to [`HERD`] waits for before its first byte.
const LATENCY: Duration = Duration::from_millis(200);
/// The bytes a second of an answer to [`HERD`].
const RATE: u32 = 5_000_000;
/// How much of such an answer is sent at once.
const SLICE: usize = 16 << 10;

/// A running upstream. It ends with this process.
pub(crate) struct Upstream {
    /// Where it listens.
    pub(crate) address: String,
    fetches: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Upstream {
    /// Serves the data on loopback.
    pub(crate) fn start(data: &Arc<Data>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let upstream = Self { address, fetches: Arc::default() };
        let (data, fetches) = (Arc::clone(data), Arc::clone(&upstream.fetches));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (data, fetches) = (Arc::clone(&data), Arc::clone(&fetches));
                // A server that leaves in the middle of an answer is none of the upstream's business.
                thread::spawn(move || serve(stream, &data, &fetches));
            }
        });
        Ok(upstream)
    }

    /// How often a path has been fetched.
    pub(crate) fn fetches(&self, path: &str) -> u64 {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied().unwrap_or(0)
    }
}

fn serve(stream: TcpStream, data: &Data, fetches: &Mutex<BTreeMap<String, u64>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    let mut out = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while read_head(&mut reader, &mut head)? {
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if method == "GET" {
            *fetches.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_default() += 1;
        }
        let body = data.body(path);
        let (status, body) = match &body {
            Some(body) => ("200 OK", body.as_slice()),
            None => ("404 Not Found", &b"not found"[..]),
        };
        let kind = match path.rsplit(['.', '/']).next() {
            Some("info" | "@latest") => "application/json",
            Some("zip") => "application/zip",
            _ => "text/plain; charset=utf-8",
        };
        let slow = path == HERD;
        if slow {
            thread::sleep(LATENCY);
        }
        write!(out, "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len())?;
        match method {
            "HEAD" => {}
            _ if slow => send_slowly(&mut out, body)?,
            _ => out.write_all(body)?,
        }
    }
    Ok(())
}

/// Reads up to the empty line; whether there was a request at all.
fn read_head(reader: &mut impl BufRead, head: &mut String) -> io::Result<bool> {
    head.clear();
    loop {
        let before = head.len();
        if reader.read_line(head)? == 0 {
            return Ok(false);
        }
        if head[before..].trim_end().is_empty() {
            return Ok(true);
        }
    }
}

fn send_slowly(out: &mut TcpStream, body: &[u8]) -> io::Result<()> {
    let started = Instant::now();
    let mut sent = 0_u32;
    for slice in body.chunks(SLICE) {
        out.write_all(slice)?;
        sent += u32::try_from(slice.len()).unwrap_or(0);
        let due = started + Duration::from_secs_f64(f64::from(sent) / f64::from(RATE));
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

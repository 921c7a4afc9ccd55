//! Clients that look at every byte: whole bodies are compared with what the upstream has.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::data::Data;
use crate::{Result, stopped};

/// The longest wait for a piece of an answer. Some servers start a program for what they have not yet.
const WAIT: Duration = Duration::from_secs(60);
/// The longest time of a whole answer.
const LIMIT: Duration = Duration::from_secs(120);
/// The largest body that is kept to be read again, where many are under way.
const KEPT: usize = 1 << 20;

/// A digest of a body.
pub(crate) type Sum = [u8; 32];

/// The digest of these bytes.
pub(crate) fn sum(bytes: &[u8]) -> Sum {
    Sha256::digest(bytes).into()
}

/// A whole answer.
struct Got {
    status: u16,
    sum: Sum,
    /// Empty where it was too large to be kept.
    body: Vec<u8>,
    first_byte: Duration,
    total: Duration,
}

/// Asks for all paths, four at a time; how many answers were not what the upstream has.
pub(crate) fn check(address: &str, paths: &[String], data: &Data) -> Result<u64> {
    let (next, wrong) = (AtomicUsize::new(0), AtomicU64::new(0));
    let failure = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed))
                    && !stopped()
                {
                    match connect(address).and_then(|stream| get(stream, address, path, KEPT)) {
                        Ok(got) if is_right(&got, path, data) => continue,
                        Ok(got) => failure_of(&failure, format!("{path}: status {} or another body", got.status)),
                        Err(e) => failure_of(&failure, format!("{path}: {e}")),
                    }
                    wrong.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    if stopped() {
        return Err("stopped".into());
    }
    let wrong = wrong.into_inner();
    if let Some(first) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        writeln!(io::stderr(), "    {wrong} of {} answers are wrong, the first: {first}", paths.len())?;
    }
    Ok(wrong)
}

fn failure_of(failure: &Mutex<Option<String>>, text: String) {
    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
}

/// Byte for byte, but an `.info` may be written anew as long as it says the same, and a list may be in another order.
fn is_right(got: &Got, path: &str, data: &Data) -> bool {
    let Some(truth) = data.body(path) else { return false };
    if got.status != 200 {
        return false;
    }
    if path.rsplit_once('.').is_some_and(|(_, kind)| kind == "info") {
        let field = |json: &[u8], name: &str| serde_json::from_slice::<serde_json::Value>(json).ok()?.get(name).cloned();
        return ["Version", "Time"].iter().all(|name| field(&got.body, name) == field(&truth, name));
    }
    if path.ends_with("/@v/list") {
        let lines = |text: &[u8]| -> BTreeSet<String> { String::from_utf8_lossy(text).lines().map(str::to_owned).collect() };
        return lines(&got.body) == lines(&truth);
    }
    got.sum == sum(&truth)
}

/// What a herd saw.
pub(crate) struct Herd {
    /// Seconds to the first byte of a body, of whole answers, in order.
    pub(crate) first_byte: Vec<f64>,
    /// Seconds to the last byte, in order.
    pub(crate) total: Vec<f64>,
    /// Answers that were not whole or not right.
    pub(crate) wrong: u64,
}

/// So many clients, each with a connection of its own, ask for one path at the same moment.
pub(crate) fn herd(address: &str, path: &str, clients: usize, truth: &Sum) -> Herd {
    let start = Barrier::new(clients);
    let answers: Vec<Option<Got>> = thread::scope(|scope| {
        let ask = || {
            let stream = connect(address);
            start.wait();
            stream.and_then(|stream| get(stream, address, path, KEPT)).ok()
        };
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().ok().flatten()).collect()
    });
    let right: Vec<&Got> = answers.iter().flatten().filter(|got| got.status == 200 && got.sum == *truth).collect();
    let sorted = |of: fn(&Got) -> Duration| {
        let mut seconds: Vec<f64> = right.iter().map(|got| of(got).as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    };
    Herd { first_byte: sorted(|got| got.first_byte), total: sorted(|got| got.total), wrong: (clients - right.len()) as u64 }
}

/// One answer by itself: its status and its whole body.
pub(crate) fn whole(address: &str, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let got = get(connect(address)?, address, path, usize::MAX)?;
    Ok((got.status, got.body))
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    Ok(stream)
}

fn get(mut stream: TcpStream, address: &str, path: &str, kept: usize) -> io::Result<Got> {
    let started = Instant::now();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut reader = BufReader::with_capacity(128 << 10, stream);
    let status = line(&mut reader)?.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let (mut length, mut chunked) = (None, false);
    loop {
        let header = line(&mut reader)?.to_ascii_lowercase();
        match header.split_once(':') {
            None => break,
            Some(("content-length", value)) => length = value.trim().parse::<u64>().ok(),
            Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
            Some(_) => {}
        }
    }
    let (mut digest, mut body, mut first_byte) = (Sha256::new(), Vec::new(), None);
    let mut take = |piece: &[u8]| {
        first_byte.get_or_insert_with(|| started.elapsed());
        digest.update(piece);
        if body.len() + piece.len() <= kept {
            body.extend_from_slice(piece);
        }
        if started.elapsed() < LIMIT && !stopped() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::TimedOut)) }
    };
    if chunked {
        loop {
            let size = line(&mut reader)?;
            let size = u64::from_str_radix(size.split(';').next().unwrap_or_default(), 16).map_err(io::Error::other)?;
            pass(&mut reader, size, &mut take)?;
            line(&mut reader)?;
            if size == 0 {
                break;
            }
        }
    } else {
        pass(&mut reader, length.ok_or_else(|| io::Error::other("neither a length nor chunks"))?, &mut take)?;
    }
    let total = started.elapsed();
    Ok(Got { status, sum: digest.finalize().into(), body, first_byte: first_byte.unwrap_or(total), total })
}

/// One line of an answer's head, without its end.
fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.by_ref().take(64 << 10).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}

/// Passes exactly so many bytes on.
fn pass(reader: &mut impl BufRead, mut bytes: u64, take: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    while bytes > 0 {
        let there = reader.fill_buf()?;
        if there.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let part = there.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        take(&there[..part])?;
        reader.consume(part);
        bytes -= part as u64;
    }
    Ok(())
}

//! A plain HTTP/1.1 client that tells whole bodies from broken ones.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// An answer as it came over the wire.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// The body had as many bytes as its head promised, or ended with its last chunk.
    pub whole: bool,
    /// When the head was there, and when the first byte of the body.
    pub head_after: Duration,
    pub first_byte_after: Option<Duration>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// `GET path`, no further headers.
pub fn get(address: &str, path: &str) -> Answer {
    request(address, "GET", path, &[])
}

/// Any request. The path goes out as it is.
pub fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{}\r\n", lines.concat());
    raw(address, text.as_bytes(), method == "HEAD")
}

/// Sends these bytes and reads one answer.
pub fn raw(address: &str, bytes: &[u8], head_only: bool) -> Answer {
    let mut stream = open(address);
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(bytes);
    read_answer(stream, head_only)
}

/// Opens a connection with a limit on every wait.
pub fn open(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Reads one answer.
pub fn read_answer(stream: TcpStream, head_only: bool) -> Answer {
    let started = Instant::now();
    let mut reader = BufReader::new(stream);
    let mut answer = Answer::default();
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return answer;
    }
    answer.status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    answer.head_after = started.elapsed();
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.trim_end().split_once(':') {
            answer.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    if head_only || matches!(answer.status, 204 | 304) {
        answer.whole = true;
        return answer;
    }
    if answer.header("transfer-encoding") == "chunked" {
        read_chunks(&mut reader, &mut answer, started);
    } else {
        let length: Option<usize> = answer.headers.get("content-length").and_then(|n| n.parse().ok());
        let mut limited = reader.take(length.map_or(u64::MAX, |n| n as u64));
        let mut piece = [0; 16 << 10];
        while let Ok(read @ 1..) = limited.read(&mut piece) {
            answer.first_byte_after.get_or_insert_with(|| started.elapsed());
            answer.body.extend_from_slice(&piece[..read]);
        }
        answer.whole = length == Some(answer.body.len());
    }
    answer
}

fn read_chunks(reader: &mut impl BufRead, answer: &mut Answer, started: Instant) {
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let Ok(length) = usize::from_str_radix(line.trim(), 16) else { return };
        let mut chunk = vec![0; length + 2];
        if reader.read_exact(&mut chunk).is_err() {
            return;
        }
        if length == 0 {
            answer.whole = true;
            return;
        }
        answer.first_byte_after.get_or_insert_with(|| started.elapsed());
        answer.body.extend_from_slice(&chunk[..length]);
    }
}

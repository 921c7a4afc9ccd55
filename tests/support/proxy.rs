//! Small proxies on loopback that lead on, or fail in every way that real ones do, and that remember what they were asked.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a proxy does with whoever connects.
#[derive(Debug, Clone)]
pub enum Manner {
    /// Leads on.
    Leads,
    /// Leads every CONNECT to this address, so that any name can be tried.
    LeadsTo(String),
    /// Leads on, and knows where these hosts are, written with their ports.
    Knows(Vec<(String, String)>),
    /// Answers each request with this, and closes.
    Says(String),
    /// Accepts and never answers.
    Stalls,
    /// Closes when it was asked.
    Closes,
    /// Agrees to CONNECT, then sends these bytes and nothing more.
    AgreesThen(Vec<u8>),
    /// SOCKS 5, with this user and password where there are some.
    Socks(Option<(String, String)>),
}

/// A running proxy. It ends with the test's process.
#[derive(Clone)]
pub struct FakeProxy {
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
    manner: Arc<Mutex<Manner>>,
}

impl FakeProxy {
    pub fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let proxy = Self { address, asked: Arc::default(), manner: Arc::new(Mutex::new(manner)) };
        let shared = proxy.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let proxy = shared.clone();
                std::thread::spawn(move || proxy.serve(stream));
            }
        });
        proxy
    }

    /// What it does from now on.
    pub fn now(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// The heads of the requests, or for SOCKS the targets, as they came.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Where it was asked to lead, or what for.
    pub fn targets(&self) -> Vec<String> {
        self.asked().iter().map(|head| head.split(' ').nth(1).unwrap_or_default().to_owned()).collect()
    }

    fn serve(&self, mut client: TcpStream) {
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let manner = self.manner.lock().unwrap().clone();
        if let Manner::Socks(login) = manner {
            if let Some(server) = self.socks(&mut client, login) {
                pipe(client, server);
            }
            return;
        }
        let Some(head) = read_head(&mut client) else { return };
        self.asked.lock().unwrap().push(head.clone());
        match manner {
            Manner::Leads => lead_on(client, &head, None),
            Manner::LeadsTo(address) => lead_on(client, &head, Some(&address).filter(|_| head.starts_with("CONNECT "))),
            Manner::Knows(hosts) => {
                let target = head.split(' ').nth(1).unwrap_or_default();
                let plain = target.strip_prefix("http://").and_then(|rest| rest.split('/').next());
                let target = plain.map_or_else(|| target.to_owned(), |host| format!("{host}:80"));
                lead_on(client, &head, hosts.iter().find(|(host, _)| *host == target).map(|(_, address)| address));
            }
            Manner::Says(answer) => {
                let _ = client.write_all(answer.as_bytes());
            }
            Manner::Stalls => {
                let _ = client.read(&mut [0; 1]);
            }
            Manner::AgreesThen(bytes) => {
                let _ = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
                // The client begins; what comes then is no answer to it.
                let _ = client.read(&mut [0; 4096]);
                let _ = client.write_all(&bytes);
                let _ = client.read(&mut [0; 1]);
            }
            Manner::Closes | Manner::Socks(_) => {}
        }
    }

    /// RFC 1928 and RFC 1929, as far as a client that connects needs them. Names below `.test` are this machine.
    fn socks(&self, client: &mut TcpStream, login: Option<(String, String)>) -> Option<TcpStream> {
        let mut exact = |count: usize| {
            let mut bytes = vec![0; count];
            client.read_exact(&mut bytes).ok().map(|()| bytes)
        };
        let count = exact(2)?[1];
        let methods = exact(count.into())?;
        let wanted = if login.is_some() { 2 } else { 0 };
        if !methods.contains(&wanted) {
            client.write_all(&[5, 0xFF]).ok()?;
            return None;
        }
        client.write_all(&[5, wanted]).ok()?;
        let mut exact = |count: usize| {
            let mut bytes = vec![0; count];
            client.read_exact(&mut bytes).ok().map(|()| bytes)
        };
        if let Some((user, password)) = login {
            let length = exact(2)?[1];
            let given_user = exact(length.into())?;
            let length = exact(1)?[0];
            let given = exact(length.into())?;
            let good = given_user == user.as_bytes() && given == password.as_bytes();
            client.write_all(&[1, u8::from(!good)]).ok()?;
            if !good {
                return None;
            }
        }
        let mut exact = |count: usize| {
            let mut bytes = vec![0; count];
            client.read_exact(&mut bytes).ok().map(|()| bytes)
        };
        let host = match exact(4)?[3] {
            1 => exact(4)?.iter().map(u8::to_string).collect::<Vec<_>>().join("."),
            3 => {
                let length = exact(1)?[0];
                String::from_utf8(exact(length.into())?).ok()?
            }
            _ => return None,
        };
        let port = u16::from_be_bytes(exact(2)?.try_into().ok()?);
        self.asked.lock().unwrap().push(format!("{host}:{port}"));
        let server = TcpStream::connect((here(&host), port));
        let code = if server.is_ok() { 0 } else { 5 };
        client.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
        server.ok()
    }
}

/// Reads to the blank line and not a byte further.
fn read_head(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// Leads on by CONNECT, or sends the one request on to the server that its target names. Names below `.test` are this machine.
fn lead_on(mut client: TcpStream, head: &str, address: Option<&String>) {
    let target = head.split(' ').nth(1).unwrap_or_default();
    let connect = head.starts_with("CONNECT ");
    let authority = if connect { target } else { target.split('/').nth(2).unwrap_or_default() };
    let authority = address.map_or(authority, String::as_str);
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let Ok(mut server) = TcpStream::connect((here(host), port.parse().unwrap())) else {
        let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
        return;
    };
    if connect {
        let _ = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
    } else {
        let path = &target[target.find("//").map_or(0, |at| at + 2)..];
        let path = path.find('/').map_or("/", |at| &path[at..]);
        let lines: Vec<&str> = head.split("\r\n").skip(1).filter(|l| !l.to_ascii_lowercase().starts_with("proxy-")).collect();
        let method = head.split(' ').next().unwrap_or_default();
        let _ = server.write_all(format!("{method} {path} HTTP/1.1\r\n{}", lines.join("\r\n")).as_bytes());
    }
    pipe(client, server);
}

/// Where a name leads that nobody but these proxies knows.
fn here(host: &str) -> &str {
    if host.strip_suffix(".test").is_some() { "127.0.0.1" } else { host }
}

fn pipe(client: TcpStream, server: TcpStream) {
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (server, client);
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

//! A small proxy that knows CONNECT (RFC 9110 §9.3.6) and nothing else. It leads where it likes, so that any name can be tried
//! without its being looked up.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A running proxy. It ends with the test's process.
pub struct Tunnel {
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    /// One that leads every `host:port` to this address.
    pub fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (shared, server) = (Arc::clone(&asked), server.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (asked, server) = (Arc::clone(&shared), server.clone());
                // A connection that breaks is the test's to notice.
                std::thread::spawn(move || lead(stream, &server, &asked).ok());
            }
        });
        Self { address, asked }
    }

    /// Every `host:port` that it was asked to lead to.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn lead(stream: TcpStream, server: &str, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
    let Some(target) = target else {
        return out.write_all(b"HTTP/1.1 405 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    asked.lock().unwrap().push(target);
    let far = TcpStream::connect(server)?;
    out.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut far_out, mut far_in) = (far.try_clone()?, far);
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut far_in, &mut out);
        out.shutdown(Shutdown::Write)
    });
    let _ = std::io::copy(&mut reader, &mut far_out);
    let _ = far_out.shutdown(Shutdown::Write);
    // The other direction ends by itself.
    let _ = back.join();
    Ok(())
}

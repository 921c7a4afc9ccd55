//! Clients that speak TLS: HTTP/1.1 and HTTP/2 with a server of a known authority, with a certificate or without.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::{Authority, Certified};

/// No wait of a client is longer.
const LIMIT: Duration = Duration::from_secs(30);

/// How a client connects.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    /// One that trusts this authority, shows this certificate, and offers these protocols.
    pub fn new(authority: &Authority, certificate: Option<&Certified>, protocols: &[&str]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(certified) => {
                let chain = CertificateDer::pem_slice_iter(certified.pem.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(certified.key_pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Self { config: Arc::new(config) }
    }

    /// Connects; the handshake may fail.
    pub async fn connect(&self, address: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let io = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        tokio::time::timeout(LIMIT, TlsConnector::from(Arc::clone(&self.config)).connect(name, io)).await.unwrap()
    }

    /// Connects and speaks HTTP/2.
    pub async fn connect2(&self, address: &str) -> SendRequest<Bytes> {
        let io = self.connect(address).await.unwrap();
        assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (send, connection) = h2::client::handshake(io).await.unwrap();
        tokio::spawn(async move {
            // How it ends its streams say.
            let _ = connection.await;
        });
        send
    }
}

/// Asks once over HTTP/1.1, on a connection that goes on; the status, the head in lower case, and the body.
pub async fn ask1(io: &mut TlsStream<TcpStream>, path: &str, headers: &[(&str, &str)]) -> (u16, String, Vec<u8>) {
    let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", lines.concat());
    io.write_all(request.as_bytes()).await.unwrap();
    let answer = async {
        let mut read = Vec::new();
        let end = loop {
            if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            let mut piece = vec![0; 16 << 10];
            match io.read(&mut piece).await {
                Ok(count @ 1..) => read.extend_from_slice(&piece[..count]),
                _ => return (0, String::new(), Vec::new()),
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.trim().parse().unwrap());
        let mut body = read.split_off(end);
        while body.len() < length {
            let mut piece = vec![0; 64 << 10];
            let count = io.read(&mut piece).await.unwrap();
            assert!(count > 0, "the body ends after {} of {length}", body.len());
            body.extend_from_slice(&piece[..count]);
        }
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head, body)
    };
    tokio::time::timeout(LIMIT, answer).await.unwrap()
}

/// What came of a stream.
#[derive(Debug)]
pub struct Answer2 {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
    /// Why the body broke off, where it did.
    pub broken: Option<h2::Error>,
}

/// Asks once over HTTP/2.
pub async fn ask2(send: &SendRequest<Bytes>, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer2, h2::Error> {
    let mut request = http::Request::builder().method(method).uri(format!("https://localhost{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let asking = async {
        let mut send = send.clone().ready().await?;
        let (response, _) = send.send_request(request.body(()).unwrap(), true)?;
        let (head, mut stream) = response.await?.into_parts();
        let (mut body, mut broken) = (Vec::new(), None);
        while let Some(piece) = stream.data().await {
            match piece {
                Ok(piece) => {
                    // The room that it took is there again.
                    let _ = stream.flow_control().release_capacity(piece.len());
                    body.extend_from_slice(&piece);
                }
                Err(e) => {
                    broken = Some(e);
                    break;
                }
            }
        }
        Ok(Answer2 { status: head.status.as_u16(), headers: head.headers, body, broken })
    };
    tokio::time::timeout(LIMIT, asking).await.unwrap()
}

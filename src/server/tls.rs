//! TLS at the listener, by rustls. Who connects is shown the certificate that is in force at that moment; connections go on with
//! the one that they began with, so a new certificate disturbs nobody.
//!
//! A client certificate is asked for where authorities for such ones are configured, and it may be missing: whether who asks has to
//! say who they are is decided request by request. A connection outlives reloads, so the authorities of this moment are asked
//! again about its certificate when they have changed.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::access::Caller;
use crate::access::certificate::{Rule, Subject};
use crate::egress::tls::{Identity, TlsVersion};

/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// What is told to who speaks plain HTTP here.
const PLAIN: &str = "modgate: this port speaks TLS; ask by an https:// URL\n";

/// A listener's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// What clients are shown.
    pub identity: Identity,
    /// Whose certificates of clients are believed; with none, none is asked for.
    pub client_authorities: Vec<CertificateDer<'static>>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

impl TlsSettings {
    /// Whether clients are asked for a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        !self.client_authorities.is_empty()
    }
}

/// TLS that is ready for connections.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    clients: Arc<dyn ClientCertVerifier>,
    /// Which settings these are, among all that there were.
    generation: u64,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TlsError(String);

impl Tls {
    /// Makes settings ready.
    ///
    /// # Errors
    /// A certificate and key that do not go together, or authorities that cannot be used.
    pub fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        static GENERATION: AtomicU64 = AtomicU64::new(1);
        let said = |e: &dyn std::fmt::Display| TlsError(e.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions: &[&SupportedProtocolVersion] = match settings.min_version {
            TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let mut roots = RootCertStore::empty();
        for authority in &settings.client_authorities {
            roots.add(authority.clone()).map_err(|e| said(&e))?;
        }
        let clients: Arc<dyn ClientCertVerifier> = if roots.is_empty() {
            Arc::new(NoClientAuth)
        } else {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            verifier.allow_unauthenticated().build().map_err(|e| said(&e))?
        };
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).map_err(|e| said(&e))?;
        let Identity { chain, key } = &settings.identity;
        let builder = builder.with_client_cert_verifier(Arc::clone(&clients));
        let mut config = builder.with_single_cert(chain.clone(), key.clone_key()).map_err(|e| said(&e))?;
        config.alpn_protocols = [&b"h2"[..], b"http/1.1", b"http/1.0"].map(<[u8]>::to_vec).to_vec();
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|e| said(&e))?;
        Ok(Self { config: Arc::new(config), clients, generation: GENERATION.fetch_add(1, Ordering::Relaxed) })
    }

    /// Takes a connection through its handshake; nothing where it was plain HTTP, to whom that was told.
    ///
    /// # Errors
    /// Why there is no TLS connection.
    pub(super) async fn accept(&self, io: TcpStream) -> io::Result<Option<TlsStream<TcpStream>>> {
        let shaken = async {
            // A method begins with a letter, a handshake's record with 22 (RFC 8446 §5.1).
            let mut first = [0; 1];
            if io.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
                tell_plain(io).await;
                return Ok(None);
            }
            TlsAcceptor::from(Arc::clone(&self.config)).accept(io).await.map(Some)
        };
        tokio::time::timeout(HANDSHAKE, shaken).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Who the holder of a certificate is by these rules, if it is believed by these settings, which may not be those that its
    /// connection began with. With each reload there are new settings, so rules and settings change together.
    pub(super) fn caller_of(&self, certificate: &ClientCertificate, rules: &[Rule]) -> Option<Arc<Caller>> {
        let mut known = certificate.known.borrow_mut();
        if !matches!(*known, Some((by, _)) if by == self.generation) {
            let (own, others) = certificate.chain.split_first()?;
            let asks = self.clients.offer_client_auth();
            let trusted = asks && self.clients.verify_client_cert(own, others, UnixTime::now()).is_ok();
            *known = Some((self.generation, trusted.then(|| Arc::new(Subject::read(own).caller(rules)))));
        }
        let caller = known.as_ref().and_then(|(_, caller)| caller.clone());
        caller.filter(|caller| caller.expires.is_none_or(|at| SystemTime::now() < at))
    }
}

/// Tells a client that it should have spoken TLS.
async fn tell_plain(mut io: TcpStream) {
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n";
    let answer = format!("{head}content-length: {}\r\n\r\n{PLAIN}", PLAIN.len());
    // It may be gone; nobody else is to be told.
    let _ = io.write_all(answer.as_bytes()).await;
    let _ = io.shutdown().await;
    // What nobody read would make the end a reset, which may overtake the answer.
    let mut rest = [0; 1024];
    let _ = io.ready(Interest::READABLE).await;
    let _ = io.try_read(&mut rest);
}

/// A client's certificate, on one connection.
#[derive(Debug)]
pub(super) struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    /// Whom it names by the settings of this generation; nobody where it is not believed.
    known: RefCell<Option<(u64, Option<Arc<Caller>>)>>,
}

impl ClientCertificate {
    /// The certificate that the client of a connection showed, where it did.
    pub(super) fn of(stream: &TlsStream<TcpStream>) -> Option<Self> {
        let chain = stream.get_ref().1.peer_certificates()?.iter().map(|c| c.clone().into_owned()).collect();
        Some(Self { chain, known: RefCell::default() })
    }
}

/// A shared certificate of a connection's requests.
pub(super) type SharedCertificate = Rc<ClientCertificate>;

//! TLS for tests: authorities and certificates made on the spot, good ones and bad ones, and a front that speaks TLS before a
//! server that does not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{Acceptor, WebPkiClientVerifier};
use rustls::{ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// What leads from it to its root, which is none of it.
    above: Vec<CertificateDer<'static>>,
}

/// A certificate with its key.
pub struct Certified {
    pub pem: String,
    pub key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub enum Validity {
    Now,
    Past,
    Future,
}

fn params(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn pem(certificates: &[CertificateDer<'static>]) -> String {
    use base64::Engine;
    let one = |certificate: &CertificateDer<'_>| {
        let text = base64::engine::general_purpose::STANDARD.encode(certificate);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    certificates.iter().map(one).collect()
}

impl Authority {
    /// A root.
    pub fn new(name: &str) -> Self {
        let issuer = CertifiedIssuer::self_signed(authority_params(name), KeyPair::generate().unwrap()).unwrap();
        Self { issuer, above: Vec::new() }
    }

    /// An authority below this one. Servers send its certificate beside their own.
    pub fn below(&self, name: &str) -> Self {
        let issuer = CertifiedIssuer::signed_by(authority_params(name), KeyPair::generate().unwrap(), &self.issuer).unwrap();
        let mut above = vec![issuer.der().clone()];
        above.extend(self.above.iter().cloned());
        Self { issuer, above }
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a server of these names and addresses.
    pub fn server(&self, names: &[&str]) -> Certified {
        self.server_valid(names, Validity::Now)
    }

    /// The same, valid now or not.
    pub fn server_valid(&self, names: &[&str], validity: Validity) -> Certified {
        self.certify(params("a server", names), ExtendedKeyUsagePurpose::ServerAuth, validity)
    }

    /// A certificate for a client.
    pub fn client(&self, validity: Validity) -> Certified {
        self.certify(params("a client", &[]), ExtendedKeyUsagePurpose::ClientAuth, validity)
    }

    fn certify(&self, mut params: CertificateParams, purpose: ExtendedKeyUsagePurpose, validity: Validity) -> Certified {
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1)),
            Validity::Past => (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 3, 4)),
            Validity::Future => (date_time_ymd(2095, 6, 7), date_time_ymd(2100, 1, 1)),
        };
        params.extended_key_usages = vec![purpose];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let mut chain = vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()];
        chain.extend(self.above.iter().cloned());
        Certified::new(chain, &key)
    }
}

impl Certified {
    fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Self { pem: pem(&chain), key_pem: key.serialize_pem(), chain, key: der }
    }

    /// A server's certificate that nobody but itself signed.
    pub fn self_signed(names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        Self::new(vec![params("itself", names).self_signed(&key).unwrap().der().clone()], &key)
    }

    /// The same without the certificates of the authorities that lead to its root.
    pub fn alone(mut self) -> Self {
        self.chain.truncate(1);
        Self { pem: pem(&self.chain), ..self }
    }
}

/// What a front asks of its clients.
#[derive(Clone, Copy)]
pub struct Demands<'a> {
    /// The versions of TLS that it speaks.
    pub versions: &'a [&'static SupportedProtocolVersion],
    /// Clients have to show a certificate of this authority.
    pub clients: Option<&'a Authority>,
}

/// Both versions, anybody.
pub const NONE: Demands<'static> = Demands { versions: rustls::ALL_VERSIONS, clients: None };

/// One connection as a front saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visit {
    /// The name that it was asked for.
    pub sni: Option<String>,
    /// The client showed a certificate.
    pub certificate: bool,
    /// The version that was agreed on; none where the handshake failed.
    pub version: Option<ProtocolVersion>,
}

/// TLS before a plain server on loopback. It ends with the test's process.
pub struct Front {
    pub address: String,
    visits: Arc<Mutex<Vec<Visit>>>,
}

impl Front {
    /// One that shows this certificate and hands everything on to `server`.
    pub fn new(certified: &Certified, server: &str) -> Self {
        Self::demanding(certified, server, NONE)
    }

    /// The same with demands.
    pub fn demanding(certified: &Certified, server: &str, demands: Demands<'_>) -> Self {
        let config = Arc::new(config(certified, demands));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let visits = Arc::new(Mutex::new(Vec::new()));
        let (shared, server) = (Arc::clone(&visits), server.to_owned());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(attend(stream, Arc::clone(&config), server.clone(), Arc::clone(&shared)));
                }
            });
        });
        Self { address, visits }
    }

    /// Its URL by its address.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Its URL by another name for it.
    pub fn url_as(&self, host: &str) -> String {
        let port = self.address.rsplit(':').next().unwrap();
        format!("https://{host}:{port}")
    }

    /// All connections so far.
    pub fn visits(&self) -> Vec<Visit> {
        self.visits.lock().unwrap().clone()
    }
}

fn config(certified: &Certified, demands: Demands<'_>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(demands.versions).unwrap();
    let builder = match demands.clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(certified.chain.clone(), certified.key.clone_key()).unwrap()
}

/// One connection. An end of the plain server's becomes a proper end of TLS; where that breaks, so does TLS, without a word.
async fn attend(stream: TcpStream, config: Arc<ServerConfig>, server: String, visits: Arc<Mutex<Vec<Visit>>>) {
    let at = {
        let mut visits = visits.lock().unwrap();
        visits.push(Visit::default());
        visits.len() - 1
    };
    let Ok(hello) = LazyConfigAcceptor::new(Acceptor::default(), stream).await else { return };
    visits.lock().unwrap()[at].sni = hello.client_hello().server_name().map(str::to_owned);
    match hello.into_stream(config).into_fallible().await {
        Ok(mut tls) => {
            let (_, session) = tls.get_ref();
            let (certificate, version) = (session.peer_certificates().is_some(), session.protocol_version());
            {
                let visit = &mut visits.lock().unwrap()[at];
                (visit.certificate, visit.version) = (certificate, version);
            }
            let Ok(mut plain) = TcpStream::connect(server).await else { return };
            // Heads and bodies come apart; waiting to put them together only takes time.
            let _ = (tls.get_ref().0.set_nodelay(true), plain.set_nodelay(true));
            // How it ended is for the client to find out.
            let _ = copy_bidirectional(&mut tls, &mut plain).await;
        }
        Err((_, mut io)) => {
            // The alert went out. What the client has sent since is read, for bytes that nobody read would make the close a reset,
            // which may overtake the alert.
            let _ = io.shutdown().await;
            let mut rest = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(2), io.read_to_end(&mut rest)).await;
        }
    }
}

//! TLS towards upstreams and proxies, by rustls: whom to trust, who to be, and what it means when it fails.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TlsError(#[from] Error);

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// A certificate to show, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those that lead to its root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key; its debug print shows nothing of it.
    pub key: Arc<PrivateKeyDer<'static>>,
}

/// One upstream's TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsSettings {
    /// Certificate authorities that are trusted beside the system's, by the proxy's connection too.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What modgate shows of itself to the upstream where that asks.
    pub identity: Option<Identity>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Takes any certificate of the upstream. The proxy's is looked at all the same.
    pub insecure_skip_verify: bool,
}

/// Reads the certificates of a PEM text.
///
/// # Errors
/// What is wrong with it.
pub fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| format!("no PEM certificates ({e})"))?;
    if found.is_empty() {
        return Err("holds no PEM certificate".into());
    }
    let mut store = RootCertStore::empty();
    for certificate in &found {
        store.add(certificate.clone()).map_err(|e| format!("holds a certificate that cannot be used ({e})"))?;
    }
    Ok(found)
}

/// Reads an identity, and checks that its two halves belong together.
///
/// # Errors
/// What is wrong with it.
pub fn read_identity(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Identity, String> {
    let chain = read_certificates(certificate_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| "the key file holds no PEM private key".to_owned())?;
    let settings = TlsSettings { identity: Some(Identity { chain, key: Arc::new(key) }), ..TlsSettings::default() };
    client_config(&RootCertStore::empty(), &settings).map_err(|e| e.0.to_string())?;
    settings.identity.ok_or_else(|| "no identity".to_owned())
}

/// The system's root certificates. There may be none; then only a `ca_file` makes https possible.
pub(super) fn system_roots() -> RootCertStore {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let errors: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        tracing::warn!(
            errors = errors.join("; "),
            "no root certificates found on this system (install ca-certificates, or set SSL_CERT_FILE)"
        );
    }
    roots
}

/// The client's side of connections to an upstream. HTTP/1.1 alone is offered: awc gains nothing from HTTP/2 (it does not
/// multiplex).
pub(super) fn client_config(system: &RootCertStore, settings: &TlsSettings) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = system.clone();
    for authority in &settings.authorities {
        roots.add(authority.clone())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[&SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
    let builder = if settings.insecure_skip_verify || roots.is_empty() {
        let unverified = Unverified { provider, taken: settings.insecure_skip_verify };
        builder.dangerous().with_custom_certificate_verifier(Arc::new(unverified))
    } else {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_webpki_verifier(verifier.map_err(|e| Error::General(e.to_string()))?)
    };
    let mut config = match &settings.identity {
        None => builder.with_no_client_auth(),
        Some(Identity { chain, key }) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The client's side of connections to a proxy: the same authorities, and nothing else of the upstream's.
pub(super) fn proxy_config(system: &RootCertStore, settings: &TlsSettings) -> Result<Arc<ClientConfig>, TlsError> {
    client_config(system, &TlsSettings { authorities: settings.authorities.clone(), ..TlsSettings::default() })
}

/// Does not look at the server's certificate, only at whether it has the key.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
    /// What is said of any certificate: yes with `insecure_skip_verify`, no on a system without root certificates.
    taken: bool,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.taken { Ok(ServerCertVerified::assertion()) } else { Err(CertificateError::UnknownIssuer.into()) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Who is spoken with, for the words about certificates that modgate would have to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Party {
    /// An upstream, to which a certificate is shown where there is one.
    Upstream {
        /// Whether there is.
        identified: bool,
    },
    /// A proxy, or a server that an upstream redirected to.
    Other,
}

/// What a failed handshake, or a TLS connection that broke, means for a person; `None` where it was not TLS that failed.
pub(super) fn why(error: &io::Error, party: Party) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(e) => certificate_fault(e),
        Error::AlertReceived(alert) => alert_fault(*alert, party),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "it does not speak TLS on this port".into(),
        other => other.to_string(),
    })
}

/// The same for an alert as it lies on the wire, not encrypted, as it is until TLS 1.2 has agreed on keys (RFC 5246 §7.2).
pub(super) fn why_alert(record: [u8; 7], party: Party) -> Option<String> {
    let [21, 3, _, 0, 2, 2, alert] = record else { return None };
    Some(alert_fault(AlertDescription::from(alert), party))
}

fn certificate_fault(e: &CertificateError) -> String {
    let day = |time: &UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_second(seconds).map_or_else(|_| "an unknown time".to_owned(), |t| t.to_string())
    };
    match e {
        CertificateError::Expired => "its certificate has expired".into(),
        CertificateError::ExpiredContext { not_after, .. } => format!("its certificate has expired (at {})", day(not_after)),
        CertificateError::NotValidYet => "its certificate is not valid yet".into(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("its certificate is not valid yet (before {}; is the clock right here?)", day(not_before))
        }
        CertificateError::NotValidForName => "its certificate is for another host".into(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            // They come as `DnsName("a.example")` and `IpAddress(10.0.0.1)`.
            let inner = |name: &str| {
                let inside = name.split_once('(').map_or(name, |(_, inside)| inside);
                inside.trim_end_matches(')').trim_matches('"').to_owned()
            };
            let names: Vec<String> = presented.iter().take(4).map(|name| inner(name)).collect();
            let names = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
            format!("its certificate is for another host: for {names}, not for {}", expected.to_str())
        }
        CertificateError::UnknownIssuer => {
            "its certificate comes from an authority that is not trusted here (a company's own is named by tls.ca_file)".into()
        }
        CertificateError::Revoked => "its certificate has been revoked".into(),
        // webpki has no other name for it. What `openssl req -x509` makes is such a one.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "its certificate is an authority's own (CA:TRUE), which cannot stand for a server; it needs one of its own".into()
        }
        other => format!("its certificate cannot be accepted: {other}"),
    }
}

fn alert_fault(alert: AlertDescription, party: Party) -> String {
    use AlertDescription as Alert;
    let wants = match party {
        Party::Upstream { identified: true } => "it asks for another client certificate",
        Party::Upstream { identified: false } => "it asks for a client certificate (tls.cert_file and tls.key_file)",
        Party::Other => "it asks for a client certificate, and modgate shows one only to the upstream itself",
    };
    match alert {
        Alert::CertificateRequired => wants.to_owned(),
        Alert::BadCertificate
        | Alert::UnknownCA
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::UnsupportedCertificate
        | Alert::AccessDenied => match party {
            Party::Upstream { identified: true } => format!("it refuses modgate's client certificate (TLS alert {alert:?})"),
            _ => format!("it ended the handshake with the TLS alert {alert:?}; maybe {wants}"),
        },
        // TLS 1.2 has no alert of its own for a certificate that is missing.
        Alert::HandshakeFailure if party == (Party::Upstream { identified: false }) => {
            format!("it ended the handshake with the TLS alert HandshakeFailure; maybe {wants}")
        }
        Alert::UnrecognisedName => "it knows no server of this name (TLS alert UnrecognisedName)".into(),
        Alert::ProtocolVersion => "it speaks no version of TLS that is allowed here (TLS alert ProtocolVersion)".into(),
        other => format!("it ended the handshake with the TLS alert {other:?}"),
    }
}

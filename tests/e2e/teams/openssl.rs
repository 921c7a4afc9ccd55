//! Certificates as companies make them: by the `openssl` program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::helpers::{output_of, program};

/// What a certificate is for: anybody's TLS server, or a client.
pub(super) const SERVER: &str = "serverAuth";
pub(super) const CLIENT: &str = "clientAuth";

/// How `openssl ca` and `openssl req` are told what to do. `{dir}` stands for the authority's folder.
const CONFIG: &str = "\
[ca]
default_ca = own
[own]
new_certs_dir = {dir}
database = {dir}/index
certificate = {dir}/ca.pem
private_key = {dir}/ca.key
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
organizationalUnitName = optional
[req]
distinguished_name = nothing
[nothing]
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
";

pub(super) fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("openssl"));
    command.args(arguments);
    command
}

/// An authority: a folder in which `openssl ca` works.
pub(super) struct Authority {
    dir: TempDir,
}

/// A certificate and its key, in PEM.
pub(super) struct Certified {
    pub(super) pem: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let folder = dir.path().display().to_string();
        fs::write(dir.path().join("config"), CONFIG.replace("{dir}", &folder)).unwrap();
        fs::write(dir.path().join("index"), "").unwrap();
        let authority = Self { dir };
        let mut request = authority.request(name, "ca.key", "ca.pem");
        request.args(["-x509", "-extensions", "root", "-days", "30"]);
        output_of(request, b"");
        authority
    }

    /// The file of its own certificate.
    pub(super) fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The same as text.
    pub(super) fn path(&self) -> String {
        self.file().display().to_string()
    }

    /// Its own certificate.
    pub(super) fn pem(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// A certificate for a server on this machine.
    pub(super) fn server(&self) -> Certified {
        self.certify("CN=the gateway", SERVER, &["-days", "7"])
    }

    /// A client's certificate, with a subject such as `CN=ann/OU=payments`.
    pub(super) fn client(&self, subject: &str) -> Certified {
        self.certify(subject, CLIENT, &["-days", "7"])
    }

    /// A certificate for this use, and for the time that these arguments say.
    pub(super) fn certify(&self, subject: &str, usage: &str, time: &[&str]) -> Certified {
        let [config, extensions, csr] = ["config", "extensions", "csr"].map(|name| self.dir.path().join(name));
        let names = if usage == SERVER { "subjectAltName = DNS:localhost,IP:127.0.0.1\n" } else { "" };
        fs::write(&extensions, format!("basicConstraints = CA:FALSE\nextendedKeyUsage = {usage}\n{names}")).unwrap();
        output_of(self.request(subject, "key", "csr"), b"");
        let mut ca = openssl(&["ca", "-batch", "-notext"]);
        ca.arg("-config").arg(config).arg("-extfile").arg(extensions).arg("-in").arg(csr);
        ca.arg("-out").arg(self.dir.path().join("pem")).args(time);
        output_of(ca, b"");
        let [pem, key] = ["pem", "key"].map(|name| fs::read_to_string(self.dir.path().join(name)).unwrap());
        Certified { pem, key }
    }

    /// `openssl req` with a new key.
    fn request(&self, subject: &str, key: &str, out: &str) -> Command {
        let subject = if subject.contains('=') { format!("/{subject}") } else { format!("/CN={subject}") };
        let mut command = openssl(&["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        command.args(["-subj", &subject]).arg("-config").arg(self.dir.path().join("config"));
        command.arg("-keyout").arg(self.dir.path().join(key)).arg("-out").arg(self.dir.path().join(out));
        command
    }
}

impl Certified {
    /// Writes `NAME.pem` and `NAME.key` into a folder.
    pub(super) fn lay(&self, dir: &Path, name: &str) {
        fs::write(dir.join(format!("{name}.pem")), &self.pem).unwrap();
        fs::write(dir.join(format!("{name}.key")), &self.key).unwrap();
    }

    pub(super) fn serial(&self) -> String {
        output_of(openssl(&["x509", "-noout", "-serial"]), self.pem.as_bytes())
    }
}

/// The serial number of the certificate that is shown at an address, which this authority has to have signed.
pub(super) fn served_serial(address: &str, authority: &Authority) -> String {
    let file = authority.path();
    let client = openssl(&["s_client", "-connect", address, "-servername", "localhost", "-CAfile", &file, "-verify_return_error"]);
    let shown = output_of(client, b"");
    output_of(openssl(&["x509", "-noout", "-serial"]), shown.as_bytes())
}

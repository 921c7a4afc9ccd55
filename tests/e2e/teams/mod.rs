//! Teams, TLS and who asks, from outside: certificates by openssl, passwords by Apache's htpasswd, requests by curl, wrk and the
//! go command.

mod audit;
mod certificates;
mod curl;
mod gocommand;
mod http2;
mod limits;
mod openssl;
mod reload;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::helpers::{output_of, program};
use crate::support::gate::Gate;

use curl::Client;
use openssl::Authority;

/// The keys of `[server]` for the certificate that [`Site`] has.
const TLS: &str = "# [server] tls = { cert_file = \"server.pem\", key_file = \"server.key\" }\n";

/// A modgate that speaks TLS, with a certificate of an authority of its own.
struct Site {
    gate: Gate,
    authority: Authority,
}

impl Site {
    /// One with this configuration, to which [`TLS`] belongs.
    fn start(text: &str) -> Self {
        Self::start_in(TempDir::new().unwrap(), text)
    }

    /// The same in a folder that has files already.
    fn start_in(dir: TempDir, text: &str) -> Self {
        Self::started(dir, text, Gate::start_in)
    }

    /// The same, reading its files again when they change.
    fn watching(dir: TempDir, text: &str) -> Self {
        Self::started(dir, text, Gate::start_watching)
    }

    fn started(dir: TempDir, text: &str, start: fn(TempDir, &str) -> Gate) -> Self {
        let authority = Authority::new("the company");
        authority.server().lay(dir.path(), "server");
        Self { gate: start(dir, text), authority }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.gate.address)
    }

    fn port(&self) -> &str {
        self.gate.address.rsplit(':').next().unwrap()
    }

    /// A curl that trusts it.
    fn curl(&self) -> Client {
        Client::trusting(&self.authority.file())
    }
}

/// A user's line as Apache's htpasswd writes it.
fn htpasswd(user: &str, password: &str) -> String {
    let mut command = Command::new(program("htpasswd"));
    command.args(["-n", "-i", "-B", "-C", "4", user]);
    output_of(command, password.as_bytes()).trim().to_owned() + "\n"
}

/// Writes a file as somebody does who replaces it: under another name first.
#[expect(clippy::disallowed_methods, reason = "a file of a test's own")]
fn replace(dir: &Path, name: &str, text: &str) {
    let fresh = dir.join(format!(".{name}.new"));
    let mut file = fs::File::create(&fresh).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    fs::rename(fresh, dir.join(name)).unwrap();
}

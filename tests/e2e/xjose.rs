//! An issuer of tokens whose keys and tokens `tests/xjose` makes, and what the tests of JWTs share: a gate that lets its jobs in,
//! and requests from any address of loopback, since each has a patience of its own for wrong credentials.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::Deserialize;
use serde_json::Value;

use crate::helpers::output_of;
use crate::support::gate::{route, upstream};
use crate::support::http::{self, Answer};
pub(crate) use crate::support::people::{basic, bearer};
use crate::support::upstream::{Reply, Upstream};

/// What a client is told whose credentials are wrong, whatever it is that is wrong with them.
pub(crate) const WRONG: &str = "modgate: a wrong user, password or token\n";

/// What `tests/xjose` prints.
#[derive(Deserialize)]
pub(crate) struct Issuer {
    pub(crate) iss: String,
    pub(crate) aud: String,
    pub(crate) keys: Value,
    /// A set that has nothing but an RSA key of 1024 bits.
    pub(crate) small: Value,
    pub(crate) tokens: Vec<Row>,
    /// Good tokens.
    pub(crate) spare: Vec<String>,
    /// Good tokens that do not name their key.
    pub(crate) nameless: Vec<String>,
    /// Tokens by a key of nobody's, each of which names another key.
    pub(crate) strangers: Vec<String>,
    /// Good tokens that end soon, or have ended a moment ago.
    pub(crate) endings: Vec<Ending>,
}

#[derive(Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// `in`, `out` or `nobody`.
    pub(crate) want: String,
    pub(crate) token: String,
}

impl Row {
    /// What it is answered with.
    pub(crate) fn status(&self) -> u16 {
        match &*self.want {
            "in" => 200,
            "out" => 401,
            "nobody" => 403,
            other => panic!("{}: {other}", self.name),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Ending {
    exp: u64,
    pub(crate) token: String,
}

impl Ending {
    /// Waits until so long after its end. It must not have come already.
    pub(crate) fn wait(&self, after: i64) {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(self.exp.checked_add_signed(after).unwrap());
        let rest = at.duration_since(SystemTime::now());
        std::thread::sleep(rest.unwrap_or_else(|late| panic!("{:?} too late: this machine is too slow", late.duration())));
    }

    /// Whether there are some seconds until so long after its end.
    pub(crate) fn is_before(&self, after: i64) -> bool {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(self.exp.checked_add_signed(after).unwrap());
        at > SystemTime::now() + Duration::from_secs(2)
    }
}

impl Issuer {
    /// New keys whose names begin with a word, and tokens, some of which name a URL as the place of their keys.
    pub(crate) fn new(word: &str, url: &str) -> Self {
        let mut command = Command::new(xjose());
        command.args([word, url]);
        serde_json::from_str(&output_of(command, b"")).unwrap()
    }

    /// The token of this name.
    pub(crate) fn token(&self, name: &str) -> &str {
        &self.tokens.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("there is no {name}")).token
    }

    /// What its server answers.
    pub(crate) fn set(&self) -> Reply {
        Reply::Good(self.keys.to_string().into_bytes())
    }

    /// Writes its keys to a file.
    pub(crate) fn write(&self, file: &Path) {
        fs::write(file, self.keys.to_string()).unwrap();
    }

    /// A table of it.
    pub(crate) fn table(&self, name: &str, keys: &str, more: &str) -> String {
        format!("[auth.issuers.{name}]\nissuer = {:?}\naudience = {:?}\n{keys}\n{more}\n", self.iss, self.aud)
    }
}

/// Builds `tests/xjose`, once in a run.
fn xjose() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("xjose");
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(&program).arg(".").current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/xjose"));
        go.env("GOFLAGS", "-mod=readonly").env("GOWORK", "off");
        output_of(go, b"");
        program
    })
}

/// Two upstreams that answer any list with a version: of the team payments, and of everybody.
pub(crate) struct Upstreams {
    pub(crate) payments: Upstream,
    pub(crate) public: Upstream,
}

impl Upstreams {
    pub(crate) fn start() -> Self {
        let [payments, public] = ["v1.0.0\n", "v1.2.0\n"].map(|list| Upstream::always(Reply::Good(list.into())));
        Self { payments, public }
    }

    /// A configuration in which jobs of the group payments, by tokens of these issuers, are of the team payments, with a route of
    /// its own to its own upstream.
    pub(crate) fn config(&self, auth: &str, issuers: &[&str]) -> String {
        let rule = |issuer: &&str| format!("{{ issuer = {issuer:?}, claims = {{ project_path = \"payments/*\" }} }}");
        let rules = issuers.iter().map(rule).collect::<Vec<_>>().join(", ");
        let payments = upstream("payments", &self.payments.url(), "private = true\n");
        format!(
            "{auth}{payments}{}{}[teams.payments]\njwt = [{rules}]\n[[teams.payments.routes]]\nmatch = [\"pay.example\"]\n\
             upstreams = [\"payments\"]\n",
            upstream("public", &self.public.url(), ""),
            route("*", &["public"], "")
        )
    }
}

/// The path of a list that nobody has asked for yet, of a module of the team payments.
pub(crate) fn list(name: impl std::fmt::Display) -> String {
    format!("/pay.example/{name}/@v/list")
}

/// An address of loopback.
pub(crate) fn loopback(n: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
    Ipv4Addr::new(127, 1 + high, low, 1)
}

/// A connection from an address of loopback, for one request after another.
pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    pub(crate) fn from(source: Ipv4Addr, address: &str) -> Self {
        let to: SocketAddrV4 = address.parse().unwrap();
        let socket: OwnedFd =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrV4::new(source, 0)).unwrap();
        rustix::net::connect(&socket, &to).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        Self { stream }
    }

    pub(crate) fn ask(&mut self, path: &str, authorization: &str) -> Answer {
        let head = format!("GET {path} HTTP/1.1\r\nHost: gate.example\r\nAuthorization: {authorization}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).unwrap();
        http::read_answer(self.stream.try_clone().unwrap(), false)
    }
}

/// One request from an address of loopback.
pub(crate) fn ask(address: &str, source: usize, path: &str, authorization: &str) -> Answer {
    Client::from(loopback(source), address).ask(path, authorization)
}

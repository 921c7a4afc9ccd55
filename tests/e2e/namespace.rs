//! A network namespace with one link to this machine and nothing beyond it, and modgate and the go command shut in there.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::daemons::{Daemon, as_root};
use crate::helpers::{self, LIMIT};
use crate::support::gate;

static NAMESPACES: AtomicU8 = AtomicU8::new(0);
static PORTS: AtomicU16 = AtomicU16::new(8080);

/// A namespace, gone when it goes out of scope. Processes in it have to end before.
pub(crate) struct Namespace {
    name: String,
    link: String,
    host: String,
    inner: String,
}

impl Namespace {
    /// Makes one, with a pair of addresses of the networks that are set apart for tests (RFC 2544).
    pub(crate) fn make() -> Self {
        let (process, number) = (std::process::id(), NAMESPACES.fetch_add(1, Ordering::Relaxed));
        let net = format!("198.{}.{}", 18 + (process >> 8) % 2, process % 256);
        let [host, inner] = [1, 2].map(|n| format!("{net}.{}", u16::from(number) * 4 + n));
        let this = Self { name: format!("modgate-{process}-{number}"), link: format!("mg{process}x{number}"), host, inner };
        let (name, link) = (&this.name, &this.link);
        // With the machine's own file of name servers it would depend on the machine how a look-up fails: at once, or never.
        root(&format!("mkdir -p /etc/netns/{name} && echo nameserver 127.0.0.1 > /etc/netns/{name}/resolv.conf"));
        ip(&format!("netns add {name}"));
        ip(&format!("link add {link} type veth peer name out netns {name}"));
        ip(&format!("address add {}/30 dev {link}", this.host));
        ip(&format!("link set {link} up"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} address add {}/30 dev out", this.inner));
        ip(&format!("-n {name} link set out up"));
        this.wait_for_the_link();
        this
    }

    /// This machine's address on the link: all that can be reached from inside.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The address inside.
    pub(crate) fn inner(&self) -> &str {
        &self.inner
    }

    /// A link takes a moment to come up.
    fn wait_for_the_link(&self) {
        let listener = TcpListener::bind((self.host.as_str(), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connect = format!("exec 3<>/dev/tcp/{}/{port}", self.host);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.command("timeout", &["5", "bash", "-c", &connect], &[]).output().unwrap().status.success() {
            assert!(Instant::now() < deadline, "{} is not reached from inside {}", self.host, self.name);
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// A command that runs inside with these variables and no others.
    pub(crate) fn command(&self, program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = as_root(helpers::program("ip"));
        command.args(["netns", "exec", &self.name, "env", "-i"]);
        for name in ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
            if let Ok(value) = std::env::var(name) {
                command.arg(format!("{name}={value}"));
            }
        }
        command.args(variables.iter().map(|(name, value)| format!("{name}={value}"))).arg(program).args(arguments);
        command
    }

    /// modgate inside, with a configuration or with these variables alone.
    pub(crate) fn modgate(&self, config: Option<&str>, variables: &[(&str, &str)]) -> Inside<'_> {
        let dir = tempfile::tempdir().unwrap();
        let [port, admin] = [(); 2].map(|()| PORTS.fetch_add(1, Ordering::Relaxed));
        // Every address, so that the test can ask it from outside and the go command by loopback.
        let (listen, admin) = (format!("0.0.0.0:{port}"), format!("127.0.0.1:{admin}"));
        let home = dir.path().display().to_string();
        let file = dir.path().join("modgate.toml").display().to_string();
        let mut all = vec![("HOME", home.as_str()), ("GOENV", "off")];
        let mut arguments = Vec::new();
        match config {
            Some(text) => {
                fs::write(&file, gate::config_text(dir.path(), &listen, &admin, text)).unwrap();
                arguments.extend(["--config", &file]);
            }
            None => all.extend([("MODGATE_SERVER__LISTEN", listen.as_str()), ("MODGATE_ADMIN__LISTEN", &admin)]),
        }
        all.extend_from_slice(variables);
        let command = self.command(env!("CARGO_BIN_EXE_modgate"), &arguments, &all);
        let daemon = Daemon::start(command, dir, &format!("{}:{port}", self.inner), "said");
        Inside { namespace: self, daemon, port }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let (name, link) = (&self.name, &self.link);
        // What was never made cannot be removed, and the rest has to go all the same.
        let script = format!("ip link del {link}; ip netns del {name}; rm -rf /etc/netns/{name}");
        let _ = as_root("sh").args(["-c", &script]).output();
    }
}

/// A modgate inside a namespace.
pub(crate) struct Inside<'n> {
    namespace: &'n Namespace,
    daemon: Daemon,
    port: u16,
}

impl Inside<'_> {
    /// Where it is reached from inside.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where it is reached from outside.
    pub(crate) fn address(&self) -> &str {
        &self.daemon.address
    }

    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }

    /// Runs the go command in a clean room inside; whether it succeeded, and what it printed.
    pub(crate) fn go(&self, proxy: &str, arguments: &[&str]) -> (bool, String) {
        self.go_with(proxy, arguments, &[])
    }

    /// The same with variables in its environment, which count before those that it has there otherwise.
    pub(crate) fn go_with(&self, proxy: &str, arguments: &[&str], more: &[(&str, &str)]) -> (bool, String) {
        let room = TempDir::new().unwrap();
        let folder = |name: &str| room.path().join(name).display().to_string();
        fs::write(room.path().join("go.mod"), "module example.com/main\n\ngo 1.21\n").unwrap();
        let (home, cache, build) = (folder(""), folder("modcache"), folder("buildcache"));
        let variables = [
            ("HOME", home.as_str()),
            ("GOMODCACHE", &cache),
            ("GOCACHE", &build),
            ("GOENV", "off"),
            ("GOFLAGS", "-modcacherw -mod=mod"),
            ("GOTOOLCHAIN", "local"),
            ("GOWORK", "off"),
            ("GOSUMDB", "off"),
            ("GOPROXY", proxy),
        ];
        // The later of two of one name counts.
        let variables = [&variables, more].concat();
        let limit = LIMIT.as_secs().to_string();
        let words = [&[limit.as_str(), "go", "-C", &home], arguments].concat();
        let output = self.namespace.command("timeout", &words, &variables).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}

/// A command of iproute2, which has to succeed.
fn ip(arguments: &str) {
    let mut command = as_root(helpers::program("ip"));
    command.args(arguments.split(' '));
    succeed(command);
}

/// A script that runs as root and has to succeed.
fn root(script: &str) {
    let mut command = as_root("sh");
    command.args(["-c", script]);
    succeed(command);
}

fn succeed(mut command: Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

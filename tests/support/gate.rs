//! modgate as a process of its own.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::http::{self, Answer};
use super::{eventually, free_port};

/// A command of the built program in a clean environment.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modgate"));
    command.env_clear().env("GOSUMDB", "off");
    for name in ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// A running modgate, stopped when it goes out of scope.
pub struct Gate {
    pub address: String,
    pub admin: String,
    pub dir: TempDir,
    child: Child,
}

/// A configuration: a cache and listeners of its own, then what the test says. `{dir}` stands for the test's folder.
pub fn config_text(dir: &Path, address: &str, admin: &str, text: &str) -> String {
    let dir = dir.display();
    let (cache, text) = match text.split_once("[cache]\n") {
        Some((before, after)) => {
            let (cache, rest) = after.split_once("\n\n").unwrap_or((after, ""));
            (cache.to_owned(), format!("{before}{rest}"))
        }
        None => (String::new(), text.to_owned()),
    };
    let cache = if cache.contains("max_size") { cache } else { format!("max_size = \"10GiB\"\n{cache}") };
    let text = text.replace("{dir}", &dir.to_string());
    // The pages of administrators on the modules' own listener.
    let admin = if text.contains("# shared listener\n") { address } else { admin };
    // What a test does not say anything about it does not want verified by the public database.
    let text = if text.contains("[sumdb]") { text } else { format!("[sumdb]\ndatabases = []\n{text}") };
    // What belongs to the listener.
    let server: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# [server] ")).collect();
    let server = server.join("\n");
    format!(
        "[server]\nlisten = {address:?}\nshutdown_grace = \"5s\"\n{server}\n[admin]\nlisten = {admin:?}\n[cache]\ndir = \"{dir}/cache\"\n{cache}\n{text}"
    )
}

/// A table of one goproxy upstream, which is asked once and no more unless the test says otherwise.
pub fn upstream(name: &str, url: &str, more: &str) -> String {
    let retries = if more.contains("retries") { "" } else { "retries = 0\n" };
    format!("[upstreams.{name}]\ntype = \"goproxy\"\nurl = {url:?}\n{retries}{more}\n")
}

/// A route.
pub fn route(pattern: &str, upstreams: &[&str], more: &str) -> String {
    format!("[[routes]]\nmatch = [{pattern:?}]\nupstreams = {upstreams:?}\n{more}\n")
}

impl Gate {
    /// Starts modgate with a configuration and waits until it serves.
    pub fn start(text: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), text)
    }

    /// The same in a folder that exists already.
    pub fn start_in(dir: TempDir, text: &str) -> Self {
        Self::start_with(dir, text, &[])
    }

    /// The same, reading its files again when they change.
    pub fn start_watching(dir: TempDir, text: &str) -> Self {
        Self::launch(dir, text, &[], &["serve", "--watch"])
    }

    /// The same with variables in its environment.
    pub fn start_with(dir: TempDir, text: &str, variables: &[(&str, &str)]) -> Self {
        Self::launch(dir, text, variables, &[])
    }

    fn launch(dir: TempDir, text: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let admin = if text.contains("# shared listener\n") { address.clone() } else { format!("127.0.0.1:{}", free_port()) };
        fs::write(dir.path().join("modgate.toml"), config_text(dir.path(), &address, &admin, text)).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = program();
        command.arg("--config").arg(dir.path().join("modgate.toml")).env("HOME", dir.path()).envs(variables.iter().copied());
        let child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut gate = Self { address, admin, dir, child };
        eventually("modgate serves", || {
            assert!(gate.child.try_wait().unwrap().is_none(), "modgate ended:\n{}", gate.log());
            std::net::TcpStream::connect(&gate.address).is_ok() && std::net::TcpStream::connect(&gate.admin).is_ok()
        });
        gate
    }

    /// Replaces what the configuration says after its listeners and cache.
    pub fn rewrite(&self, text: &str) {
        let text = config_text(self.dir.path(), &self.address, &self.admin, text);
        fs::write(self.dir.path().join("modgate.toml"), text).unwrap();
    }

    pub fn get(&self, path: &str) -> Answer {
        http::get(&self.address, path)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The cache's folder of an upstream.
    pub fn cache(&self, upstream: &str) -> PathBuf {
        self.dir.path().join("cache").join(upstream)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Asks it to stop and waits until it has; its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    pub fn wait(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("modgate ends", || {
            std::thread::sleep(Duration::from_millis(10));
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|c| c.code())
    }

    /// Runs a command of the program with this gate's configuration.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = program();
        command.arg("--config").arg(self.dir.path().join("modgate.toml")).env("HOME", self.dir.path()).args(arguments);
        command.output().unwrap()
    }

    /// Stops it and gives the folder back.
    pub fn into_dir(mut self) -> TempDir {
        self.stop();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // The test has failed; its reader wants to know what modgate said.
            let _ = writeln!(std::io::stderr(), "--- the log of modgate\n{}", self.log());
        }
    }
}

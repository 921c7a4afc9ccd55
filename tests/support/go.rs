//! The go command in a clean room: its own HOME, module cache and build cache, and no proxy but the one given.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A place to run the go command in.
pub struct Go {
    pub dir: TempDir,
    proxy: String,
    sumdb: &'static str,
    variables: Vec<(String, String)>,
}

impl Go {
    /// With this GOPROXY, and no checksum database.
    pub fn with_proxy(proxy: &str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), proxy: proxy.to_owned(), sumdb: "off", variables: Vec::new() }
    }

    /// The same with a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The folder of the main module, made with this go.mod.
    pub fn main_module(&self, go_mod: &str) -> PathBuf {
        let work = self.dir.path().join("work");
        std::fs::create_dir_all(&work).unwrap();
        std::fs::write(work.join("go.mod"), go_mod).unwrap();
        work
    }

    pub fn mod_cache(&self) -> PathBuf {
        self.dir.path().join("modcache")
    }

    /// Runs the go command; its output, whatever it was.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let work = self.dir.path().join("work");
        std::fs::create_dir_all(&work).unwrap();
        self.command(&work).args(arguments).output().unwrap()
    }

    /// Runs the go command, which has to succeed; what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "go {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs the go command, which has to fail; what it complained of.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "go {arguments:?} succeeded: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn command(&self, work: &Path) -> Command {
        let mut command = Command::new("go");
        command.env_clear().current_dir(work);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.dir.path()).env("GOMODCACHE", self.mod_cache()).env("GOCACHE", self.dir.path().join("buildcache"));
        command.env("GOPATH", self.dir.path().join("gopath")).env("GOENV", "off").env("GOFLAGS", "-modcacherw -mod=mod");
        command.env("GOTOOLCHAIN", "local").env("GOPROXY", &self.proxy).env("GOSUMDB", self.sumdb).env("GOWORK", "off");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

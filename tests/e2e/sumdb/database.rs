//! A running `tests/xsumdb`, and x/mod's client.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::helpers::output_of;
use crate::support::http::{self, Answer};
use crate::support::modules::{Module, tree};

/// The name of every database here.
pub(super) const NAME: &str = "sum.test";

/// The program, built once.
pub(super) fn xsumdb() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("xsumdb");
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(&program).arg(".").current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/xsumdb"));
        go.env("GOFLAGS", "-mod=readonly").env("GOWORK", "off");
        output_of(go, b"");
        program
    });
    Command::new(program)
}

/// What x/mod says to each row.
pub(super) fn x_mod_says(rows: &[Value]) -> Vec<Value> {
    let mut command = xsumdb();
    command.arg("rows");
    let input = rows.iter().map(|row| format!("{row}\n")).collect::<Vec<_>>().concat();
    let said: Vec<Value> = output_of(command, input.as_bytes()).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said.len(), rows.len(), "a line for each row");
    said
}

/// A database of the sums of some modules, stopped when it goes out of scope. It serves the modules too, and itself below
/// `/sumdb/`, as the public module proxy does.
pub(super) struct Database {
    pub(super) key: String,
    pub(super) address: String,
    files: TempDir,
    child: Child,
}

impl Database {
    /// With so many made-up records before those of the modules, which come in as they are asked for.
    pub(super) fn start(pad: usize, modules: &[Module]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut command = xsumdb();
        command.args(["serve", "-key", NAME, "-pad", &pad.to_string(), "-modules"]).arg(files.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let (key, address) = (lines.next().unwrap(), lines.next().unwrap());
        let database = Self { key, address, files, child };
        database.holds(modules);
        database
    }

    /// From now on it has the files of these too, and can say their sums.
    pub(super) fn holds(&self, modules: &[Module]) {
        self.puts(&tree(modules));
    }

    /// From now on it has these files, by their paths below a proxy.
    pub(super) fn puts(&self, files: &BTreeMap<String, Vec<u8>>) {
        for (path, body) in files {
            let file = self.files.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, body).unwrap();
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its entry in a list of databases.
    pub(super) fn entry(&self) -> String {
        format!("{} {}", self.key, self.url())
    }

    /// How it misbehaves from now on, in place of how it did.
    pub(super) fn now(&self, words: &str) {
        let answer = http::request(&self.address, "POST", &format!("/control?{words}"), &[("Content-Length", "0")]);
        assert_eq!(answer.status, 200, "{words}: {}", answer.text());
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        http::get(&self.address, path)
    }

    /// How often each path was asked for.
    pub(super) fn counts(&self) -> BTreeMap<String, usize> {
        serde_json::from_slice(&self.get("/control/count").body).unwrap()
    }

    /// How often anything of the database was asked for, in whichever way; the files of modules do not count.
    pub(super) fn asked(&self) -> usize {
        self.counts().iter().filter(|(path, _)| !path.contains("/@v/")).map(|(_, count)| count).sum()
    }

    /// Forgets what was asked for.
    pub(super) fn forget(&self) {
        http::request(&self.address, "POST", "/control/reset", &[("Content-Length", "0")]);
    }

    /// Ends it.
    pub(super) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What x/mod's client finds at the database itself, with nothing kept before.
    pub(super) fn client(&self, names: &[String]) -> Found {
        client(&self.url(), &self.key, tempfile::tempdir().unwrap().path(), names)
    }

    /// What x/mod's client finds through a modgate at this URL.
    pub(super) fn client_through(&self, gate: &str, store: &Path, names: &[String]) -> Found {
        client(&format!("{gate}/sumdb/{NAME}"), &self.key, store, names)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the client said of each name, and whether it has caught the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) lines: Vec<String>,
    pub(super) caught: bool,
}

impl Found {
    /// Everything was found and proven.
    pub(super) fn all_good(&self) -> bool {
        !self.caught && self.lines.iter().all(|line| line.contains(" ok ") && line.contains(" h1:"))
    }
}

/// Runs x/mod's client, which keeps what it knows in a folder.
pub(super) fn client(url: &str, key: &str, store: &Path, names: &[String]) -> Found {
    let mut command = xsumdb();
    command.args(["client", "-url", url, "-vkey", key, "-store"]).arg(store).args(names).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 3)), "{command:?}: {code:?} {said}{}", String::from_utf8_lossy(&output.stderr));
    let lines = said.lines().filter(|line| *line != "SECURITY").map(str::to_owned).collect();
    Found { lines, caught: code == Some(3) }
}

/// The names of made-up records.
pub(super) fn pads(numbers: &[usize]) -> Vec<String> {
    numbers.iter().map(|n| format!("example.org/pad{n}@v1.0.0")).collect()
}

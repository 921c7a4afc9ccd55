//! Repositories behind a real sshd: who is let in, whom modgate trusts, and what it says where either is not so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::servers::{Sshd, behind_ssh, silent, tip, upstream};
use crate::helpers::go_ok;
use crate::support::free_port;
use crate::support::gate::Gate;
use crate::support::go::Go;
use crate::support::http::Answer;

/// Short limits, so that what hangs ends soon.
const SHORT: &str = "connect = \"1s\"\nfirst_byte = \"1s\"\nidle = \"1s\"\n";

struct Setting {
    root: TempDir,
    sshd: Sshd,
}

impl Setting {
    fn new() -> Self {
        let (root, sshd) = behind_ssh();
        Self { root, sshd }
    }

    /// What comes of a version with this key, this list of host keys and these further lines. No key is ever shown, nor where it lies.
    fn ask(&self, key: &str, known: &str, name: &str, more: &str) -> Answer {
        let credentials = self.sshd.credentials(key, known);
        let gate = Gate::start(&upstream(&self.sshd.repo(self.root.path()), &format!("{credentials}\n{more}")));
        let answer = gate.get(&format!("/git.example/{name}/@v/v1.0.0.info"));
        let said = answer.text();
        let log = gate.log();
        for secret in self.sshd.secrets(key) {
            assert!(!said.contains(&secret) && !log.contains(&secret), "a key is shown: {said}\n{log}");
        }
        let folders = [gate.dir.path(), self.sshd.daemon.dir.path()].map(|folder| folder.display().to_string());
        assert!(!folders.iter().any(|folder| said.contains(folder)), "it is told where files lie: {said}");
        answer
    }
}

#[test]
fn the_go_command_gets_a_module_from_a_repository_behind_ssh() {
    let Setting { root, sshd } = Setting::new();
    let gate = Gate::start(&upstream(&sshd.repo(root.path()), &sshd.credentials("key", "known")));
    let go = Arc::new(Go::with_proxy(&gate.url()));
    go.main_module("module example.com/main\n\ngo 1.21\n");
    let tip = tip(&root.path().join("m.git"));
    for query in ["v1.0.0", "main", "latest", &tip[..12]] {
        let printed = go_ok(&go, &["mod", "download", "-json", &format!("git.example/m@{query}")]);
        assert!(printed.contains("\"Sum\": \"h1:"), "{query}: {printed}");
    }
    let said = go_ok(&go, &["list", "-m", "-json", "git.example/m@main"]);
    assert!(said.contains(&tip) && said.contains("\"URL\": \"ssh://"), "{said}");
    assert!(sshd.sessions() > 0, "{}", sshd.daemon.log());
    for secret in sshd.secrets("key") {
        assert!(!gate.log().contains(&secret), "the key is in the log");
    }
}

#[test]
fn each_way_of_not_being_let_in_is_told_by_its_own_words() {
    let setting = Setting::new();
    let mut wrong = Vec::new();
    for (key, known, name, status, words) in [
        ("key", "known", "missing", 404, "not found"),
        ("key", "empty", "m", 502, "No ED25519 host key is known for"),
        ("key", "changed", "m", 502, "has changed"),
        ("unknown_key", "known", "m", 502, "denied: "),
        ("locked_key", "known", "m", 502, "denied: "),
    ] {
        let started = Instant::now();
        let answer = setting.ask(key, known, name, "");
        if answer.status != status || !answer.text().contains(words) {
            wrong.push(format!("{key}, {known}, {name}: {}, not {status} with {words:?}: {}", answer.status, answer.text()));
        }
        if started.elapsed() > Duration::from_secs(8) {
            wrong.push(format!("{key}, {known}, {name}: took {:?}; who was asked?", started.elapsed()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_key_that_others_could_read_is_told_as_such() {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;
    let setting = Setting::new();
    set_permissions(setting.sshd.file("key"), Permissions::from_mode(0o644)).unwrap();
    let answer = setting.ask("key", "known", "m", "");
    let said = answer.text();
    assert!(answer.status == 502 && said.contains("denied: ") && said.contains("bad permissions"), "{}: {said}", answer.status);
}

#[test]
fn a_server_that_is_gone_is_an_outage_and_one_that_is_stuck_ends_within_the_limits() {
    let Setting { root, sshd } = Setting::new();
    let dead = format!("127.0.0.1:{}", free_port());
    let silent = silent();
    for (address, key, status) in [(dead, "key", 502), (silent, "key", 504), (sshd.daemon.address.clone(), "stuck_key", 504)] {
        let credentials = sshd.credentials_at(&address, key, "known");
        let gate = Gate::start(&upstream(&sshd.repo_at(&address, root.path()), &format!("{credentials}\n{SHORT}")));
        let started = Instant::now();
        let answer = gate.get("/git.example/m/@v/v1.0.0.info");
        let (took, said) = (started.elapsed(), answer.text());
        assert_eq!(answer.status, status, "{address}, {key}: {said}");
        assert!(said.contains(&address), "{address}, {key}: {said}");
        assert!(took < Duration::from_secs(6), "{address}, {key}: took {took:?}: {said}");
    }
}

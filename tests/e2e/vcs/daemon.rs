//! Repositories behind git's own daemon, which a rule may name though nothing is encrypted there.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::servers::{git_daemon, repository, silent, tip, upstream};
use crate::helpers::go_ok;
use crate::support::free_port;
use crate::support::gate::Gate;
use crate::support::go::Go;

#[test]
fn a_rule_leads_to_the_daemon_of_git() {
    let root = TempDir::new().unwrap();
    repository(&root.path().join("m.git"));
    repository(&root.path().join("gone.git"));
    let daemon = git_daemon(root.path());
    let gate = Gate::start(&upstream(&format!("git://{}/{{name}}.git", daemon.address), ""));
    let go = Arc::new(Go::with_proxy(&gate.url()));
    go.main_module("module example.com/main\n\ngo 1.21\n");
    go_ok(&go, &["mod", "download", "git.example/m@v1.0.0"]);
    let said = go_ok(&go, &["list", "-m", "-json", "git.example/m@main"]);
    assert!(said.contains(&tip(&root.path().join("m.git"))), "{said}");

    let missing = gate.get("/git.example/missing/@v/list");
    assert_eq!(missing.status, 404, "{}", missing.text());
    assert!(!missing.text().contains(&root.path().display().to_string()), "{}", missing.text());
    // What was served once stays, though its repository is there no longer; what was not is not found.
    assert_eq!(gate.get("/git.example/gone/@v/v1.0.0.zip").status, 200);
    fs::remove_dir_all(root.path().join("gone.git")).unwrap();
    assert_eq!(gate.get("/git.example/gone/@v/v1.0.0.zip").status, 200);
    assert_eq!(gate.get("/git.example/gone/@v/v1.0.0.info").status, 200);
    let other = gate.get("/git.example/gone/@v/v1.1.0.info");
    assert_eq!(other.status, 404, "{}", other.text());
}

#[test]
fn a_daemon_that_is_gone_or_stuck_is_an_outage() {
    for (address, status) in [(format!("127.0.0.1:{}", free_port()), 502), (silent(), 504)] {
        let limits = "connect = \"1s\"\nfirst_byte = \"1s\"\nidle = \"1s\"\n";
        let gate = Gate::start(&upstream(&format!("git://{address}/{{name}}.git"), limits));
        let started = Instant::now();
        let answer = gate.get("/git.example/m/@v/list");
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(&address), "{}", answer.text());
        assert!(started.elapsed() < Duration::from_secs(6), "took {:?}", started.elapsed());
    }
}

//! Slow servers, impatient clients, limits and sudden ends: nobody else waits, nothing is left behind, and what broke off is
//! taken up again.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::servers::{Sshd, repository, silent, upstream};
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::git::Change::File;
use crate::support::git::{Fault, GitServer, Script, git_ok};
use crate::support::proxy::{FakeProxy, Manner};

const ASKERS: usize = 20;

/// Repositories: some of one version, and `many`, where each asker has a version of its own.
fn server(root: &Path) -> GitServer {
    for name in ["one", "two", "three"] {
        repository(&root.join(name));
    }
    let mut many = Script::new().commit("main", &[("go.mod", File("module git.example/many\n"))]);
    for n in 0..ASKERS {
        many = many.commit("main", &[("n", File(&n.to_string()))]).tag("main", &[&format!("v1.0.{n}")]);
    }
    many.build(&root.join("many"));
    GitServer::start(root)
}

fn config(server: &GitServer, more: &str) -> String {
    upstream(&format!("{}/{{name}}.git", server.url()), more)
}

/// Other processes than modgate itself that know its folder.
fn left_behind(gate: &Gate) -> Vec<String> {
    let folder = gate.dir.path().display().to_string();
    let of =
        |id: &str, file: &str| String::from_utf8_lossy(&fs::read(format!("/proc/{id}/{file}")).unwrap_or_default()).into_owned();
    let ids = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let others = ids.filter(|id| id.parse().is_ok_and(|id: u32| id != gate.pid() && id != std::process::id()));
    others.filter(|id| of(id, "environ").contains(&folder)).map(|id| of(&id, "cmdline").replace('\0', " ")).collect()
}

#[test]
fn one_fetch_at_a_time_serves_all_who_ask_for_a_new_repository() {
    let root = TempDir::new().unwrap();
    let server = server(root.path());
    server.fail("many", Fault::Slow(Duration::from_millis(50)));
    let gate = Gate::start(&config(&server, ""));
    thread::scope(|scope| {
        let ask = |n: usize| gate.get(&format!("/git.example/many/@v/v1.0.{n}.info"));
        let askers: Vec<_> = (0..ASKERS).map(|n| scope.spawn(move || ask(n))).collect();
        for answer in askers.into_iter().map(|asker| asker.join().unwrap()) {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    });
    let (most, all) = server.fetches("many");
    assert!(most == 1 && all <= ASKERS, "{most} at a time, {all} altogether");
    assert!(server.count("many", "info/refs") <= ASKERS + 1, "{:?}", server.asked());
}

#[test]
fn a_slow_repository_delays_nobody_else() {
    let root = TempDir::new().unwrap();
    let server = server(root.path());
    let gate = Gate::start(&config(&server, ""));
    assert_eq!(gate.get("/git.example/one/@v/v1.0.0.zip").status, 200);
    server.fail("many", Fault::Slow(Duration::from_secs(4)));
    thread::scope(|scope| {
        for n in 0..ASKERS {
            let gate = &gate;
            scope.spawn(move || gate.get(&format!("/git.example/many/@v/v1.0.{n}.zip")));
        }
        eventually("the slow one is asked", || server.fetches("many").1 > 0);
        for (path, limit) in [("one/@v/v1.0.0.zip", 500), ("two/@v/v1.0.0.zip", 3000), ("one/@v/main.info", 3000)] {
            let started = Instant::now();
            let answer = gate.get(&format!("/git.example/{path}"));
            let took = started.elapsed();
            assert!(answer.status == 200 && took < Duration::from_millis(limit), "{path}: {} after {took:?}", answer.status);
        }
        assert_eq!(server.fetches("many"), (1, 1), "the slow one is still at it");
        server.heal("many");
    });
}

#[test]
fn servers_that_hang_leave_room_for_what_is_here_already() {
    let root = TempDir::new().unwrap();
    let server = server(root.path());
    let gate = Gate::start(&config(&server, "max_programs = 2\nconnect = \"1s\"\nfirst_byte = \"2s\"\nidle = \"1s\"\n"));
    assert_eq!(gate.get("/git.example/one/@v/v1.0.0.info").status, 200);
    server.fail("two", Fault::Hang);
    server.fail("three", Fault::Hang);
    thread::scope(|scope| {
        for name in ["two", "three"] {
            let gate = &gate;
            scope.spawn(move || gate.get(&format!("/git.example/{name}/@v/list")));
        }
        eventually("both hang", || server.count("two", "info/refs") + server.count("three", "info/refs") == 2);
        let started = Instant::now();
        let answer = gate.get("/git.example/one/@v/v1.0.0.zip");
        let took = started.elapsed();
        assert!(answer.status == 200 && took < Duration::from_secs(1), "{} after {took:?}", answer.status);
    });
}

#[test]
fn a_client_that_goes_away_does_not_end_the_fetch() {
    let root = TempDir::new().unwrap();
    let server = server(root.path());
    let gate = Gate::start(&config(&server, ""));
    server.fail("one", Fault::Slow(Duration::from_secs(1)));
    let mut client = TcpStream::connect(&gate.address).unwrap();
    write!(client, "GET /git.example/one/@v/v1.0.0.info HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("the pack is asked for", || server.fetches("one").1 == 1);
    drop(client);
    let answer = gate.get("/git.example/one/@v/v1.0.0.info");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.fetches("one"), (1, 1), "what was begun was used");
}

#[test]
fn nothing_runs_on_after_a_limit() {
    let root = TempDir::new().unwrap();
    let server = server(root.path());
    server.fail("one", Fault::Slow(Duration::from_secs(30)));
    let gate = Gate::start(&config(&server, "total = \"2s\"\n"));
    let answer = gate.get("/git.example/one/@v/v1.0.0.info");
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(server.fetches("one").1 > 0, "{:?}", server.asked());
    eventually(&format!("nothing is left: {:?}", left_behind(&gate)), || left_behind(&gate).is_empty());
    // The next one finds no locks of the one that was killed.
    server.heal("one");
    eventually("it is served again", || gate.get("/git.example/one/@v/v1.0.0.info").status == 200);
}

#[test]
fn ssh_and_its_way_through_a_proxy_end_with_git() {
    let root = TempDir::new().unwrap();
    repository(&root.path().join("m.git"));
    let sshd = Sshd::start();
    let limits = "connect = \"1s\"\nfirst_byte = \"1s\"\nidle = \"1s\"\n";
    let proxy = FakeProxy::start(Manner::LeadsTo(silent()));
    let through = format!("proxy = \"http://{}\"\n", proxy.address);
    for (key, more) in [("stuck_key", ""), ("key", through.as_str())] {
        let more = format!("{}\n{limits}{more}", sshd.credentials(key, "known"));
        let gate = Gate::start(&upstream(&sshd.repo(root.path()), &more));
        thread::scope(|scope| {
            let asking = scope.spawn(|| gate.get("/git.example/m/@v/v1.0.0.info"));
            eventually("ssh is at work", || left_behind(&gate).iter().any(|words| words.starts_with("ssh ")));
            assert_eq!(asking.join().unwrap().status, 504);
        });
        eventually(&format!("nothing is left: {:?}", left_behind(&gate)), || left_behind(&gate).is_empty());
    }
}

#[test]
fn a_fetch_that_was_cut_off_by_a_sudden_end_is_taken_up_again() {
    let root = TempDir::new().unwrap();
    let server = server(root.path());
    let text = config(&server, "first_byte = \"2s\"\nidle = \"2s\"\n");
    let gate = Gate::start(&text);
    assert_eq!(gate.get("/git.example/many/@v/v1.0.1.info").status, 200);
    server.fail("many", Fault::Slow(Duration::from_secs(30)));
    let before = server.fetches("many").1;
    let mut client = TcpStream::connect(&gate.address).unwrap();
    write!(client, "GET /git.example/many/@v/v1.0.2.info HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("the pack is asked for", || server.fetches("many").1 > before);
    gate.signal(Signal::KILL);
    let dir = gate.into_dir();
    // What git leaves when it ends in the same moment, at the worst of times.
    let mirrors = dir.path().join("cache/.vcs/git");
    let mirror = fs::read_dir(&mirrors).unwrap().flatten().map(|e| e.path()).find(|path| path.join("HEAD").exists()).unwrap();
    fs::create_dir_all(mirror.join("objects/incoming-x")).unwrap();
    for left in ["shallow.lock", "packed-refs.lock", "refs/tags/v1.0.2.lock", "objects/pack/tmp_pack_x"] {
        fs::create_dir_all(mirror.join(left).parent().unwrap()).unwrap();
        fs::write(mirror.join(left), "").unwrap();
    }
    server.heal("many");
    let gate = Gate::start_in(dir, &text);
    for (path, status) in [("v1.0.1.zip", 200), ("v1.0.2.info", 200), ("v1.0.2.zip", 200), ("main.info", 200)] {
        let answer = gate.get(&format!("/git.example/many/@v/{path}"));
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    assert!(!mirror.join("shallow.lock").exists() && !mirror.join("objects/incoming-x").exists());
    git_ok(&mirror, &["rev-list", "--objects", "--all"]);
}

#[test]
fn a_mirror_that_was_damaged_is_made_anew() {
    let root = TempDir::new().unwrap();
    let server = server(root.path());
    let text = config(&server, "");
    for damage in ["objects", "HEAD", "config", "packed-refs"] {
        let gate = Gate::start(&text);
        assert_eq!(gate.get("/git.example/many/@v/v1.0.1.zip").status, 200);
        assert_eq!(gate.get("/git.example/many/@v/main.info").status, 200);
        let dir = gate.into_dir();
        let mirrors = dir.path().join("cache/.vcs/git");
        let mirror = fs::read_dir(&mirrors).unwrap().flatten().map(|e| e.path()).find(|path| path.join("HEAD").exists()).unwrap();
        for file in crate::helpers::files_below(&mirror) {
            if file.starts_with(damage) {
                let file = mirror.join(file);
                fs::remove_file(&file).unwrap();
                fs::write(file, "").unwrap();
            }
        }
        let gate = Gate::start_in(dir, &text);
        // A zip that finds the damage while it is made may fail, and the next is whole.
        gate.get("/git.example/many/@v/v1.0.2.zip");
        for path in ["v1.0.1.mod", "v1.0.2.zip", "v1.0.3.info", "main.info", "v1.0.4.zip"] {
            let answer = gate.get(&format!("/git.example/many/@v/{path}"));
            assert!(answer.status == 200 && answer.whole, "{damage}, {path}: {} {}", answer.status, answer.text());
        }
    }
}

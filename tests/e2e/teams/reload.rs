//! Reloads under load: certificates, users and the configuration change every few moments, and no request fails for it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::openssl::{Certified, served_serial};
use super::{Site, TLS, htpasswd, replace};
use crate::helpers::{go_ok, output_of, program};
use crate::support::gate::{route, upstream};
use crate::support::go::Go;
use crate::support::modules::Module;
use crate::support::people;
use crate::support::upstream::Upstream;

const INFO: &str = "/corp.example/lib/@v/v1.0.0.info";
const ZIP: &str = "/corp.example/lib/@v/v1.0.0.zip";
/// Users who are there in every other round.
const COMING_AND_GOING: [&str; 2] = ["even", "odd"];

struct Company {
    site: Site,
    private: Upstream,
    certificates: Vec<Certified>,
    users: [String; 3],
    token: String,
}

/// The configuration of a round.
fn text(round: usize, private: &str) -> String {
    TLS.to_owned()
        + &upstream("own", private, "private = true")
        + &format!("[limits]\nall = {{ requests = {}, per = \"1s\" }}\n", 900_000 + round % 50_000)
        + &route("*", &["own"], "")
        + "[teams.maps]\nusers_file = \"users\"\ntokens_file = \"tokens\"\n"
        + &route("corp.example", &["own"], "").replace("[[routes]]", "[[teams.maps.routes]]")
}

impl Company {
    fn start(start: fn(TempDir, &str) -> Site) -> Self {
        let private = Upstream::serving(&[Module::new("corp.example/lib", "v1.0.0").bulk(50_000)]);
        let dir = TempDir::new().unwrap();
        let token = people::token(&dir.path().join("tokens"), "robot");
        let users = ["ann", "even", "odd"].map(|user| htpasswd(user, "sesame"));
        fs::write(dir.path().join("users"), users[0].clone() + &users[1]).unwrap();
        let site = start(dir, &text(0, &private.url()));
        let certificates = (0..8).map(|_| site.authority.server()).collect();
        Self { site, private, certificates, users, token }
    }

    fn dir(&self) -> &Path {
        self.site.gate.dir.path()
    }

    fn certificate(&self, round: usize) -> &Certified {
        &self.certificates[round % self.certificates.len()]
    }

    /// Writes all files anew, as they are in this round.
    fn write(&self, round: usize) {
        let Certified { pem, key } = self.certificate(round);
        replace(self.dir(), "server.pem", pem);
        replace(self.dir(), "server.key", key);
        replace(self.dir(), "users", &(self.users[0].clone() + &self.users[1 + round % 2]));
        self.site.gate.rewrite(&text(round, &self.private.url()));
    }

    /// Writes all files anew, one of which is no good.
    fn write_badly(&self, round: usize) {
        self.write(round);
        match round / 8 % 4 {
            0 => self.site.gate.rewrite("[upstreams.own]\ntype = 7\n"),
            1 => replace(self.dir(), "server.key", &self.certificate(round + 1).key),
            2 => replace(self.dir(), "users", &(self.users[0].clone() + "odd:$2y$04$nonsense\n")),
            _ => replace(self.dir(), "server.pem", "nothing\n"),
        }
    }

    /// Who is let in: users, by whether they are.
    fn let_in(&self, user: &str) -> bool {
        let status = self.site.curl().with(&["--http2", "-u", &format!("{user}:sesame")]).status(&self.site.url(INFO));
        assert!(matches!(status, Some(200 | 401)), "{user}: {status:?}");
        status == Some(200)
    }

    /// That all is as this round has it.
    fn is_of(&self, round: usize, serial: &str) {
        assert_eq!(served_serial(&self.site.gate.address, &self.site.authority), serial, "round {round}");
        for (n, user) in COMING_AND_GOING.iter().enumerate() {
            assert_eq!(self.let_in(user), round % 2 == n, "round {round}: {user}");
        }
    }

    fn complaints(&self) -> usize {
        self.site.gate.log().matches("the old one stays").count()
    }
}

/// One after another, until it is over: curl on connections of its own, and the go command in clean rooms.
fn come_and_go(company: &Company, over: &AtomicBool, answered: &AtomicUsize) {
    let url = |path: &str| company.site.url(path);
    let curl = company.site.curl();
    let by_password = curl.with(&["--http2", "-u", "ann:sesame"]);
    let by_token = curl.with(&["--http1.1"]).bearing(&company.token);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for (client, path) in [(&by_password, INFO), (&by_password, ZIP), (&by_token, INFO), (&by_token, ZIP)] {
                    let answer = client.get(&url(path));
                    assert_eq!(answer.whole(), Some(200), "{path}: curl {}, {}", answer.code, answer.text());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let go = Go::with_proxy(&format!("https://ann:sesame@localhost:{}", company.site.port()));
                let go = Arc::new(go.env("SSL_CERT_FILE", &company.site.authority.path()));
                go.main_module("module example.com/main\n\ngo 1.21\n");
                go_ok(&go, &["mod", "download", "corp.example/lib@v1.0.0"]);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
}

/// wrk with a token; what it said.
fn load(company: &Company, seconds: u64, connections: usize, more: &[&str]) -> String {
    let mut wrk = Command::new(program("wrk"));
    wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--timeout", "20s"]).args(more);
    wrk.args([
        "-H",
        &format!("Authorization: Bearer {}", company.token),
        &format!("https://localhost:{}{ZIP}", company.site.port()),
    ]);
    output_of(wrk, b"")
}

/// Takes the gate through rounds for so long while it is under load.
fn rounds(company: &Company, seconds: u64, round: impl Fn(usize) + Sync) {
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let kept = scope.spawn(|| load(company, seconds, 8, &[]));
        let closed = scope.spawn(|| load(company, seconds, 2, &["-H", "Connection: close"]));
        let others = scope.spawn(|| come_and_go(company, &over, &answered));
        let changing = scope.spawn(|| {
            let deadline = Instant::now() + Duration::from_secs(seconds - 3);
            for n in 1.. {
                if Instant::now() > deadline {
                    return n;
                }
                round(n);
            }
            0
        });
        let changed = changing.join();
        over.store(true, Ordering::Relaxed);
        for (kind, said) in [("kept", kept.join().unwrap()), ("new", closed.join().unwrap())] {
            assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{kind} connections: {said}");
            let line = said.lines().find(|line| line.contains("requests in")).unwrap_or_else(|| panic!("{said}"));
            let requests: usize = line.split_whitespace().next().unwrap().parse().unwrap();
            assert!(requests > 50, "{kind} connections: {said}");
        }
        others.join().unwrap();
        assert!(changed.unwrap() > 5);
    });
    assert!(answered.load(Ordering::Relaxed) > 20, "{answered:?}");
}

/// Waits until this certificate is shown; not longer than so many seconds.
fn shown(company: &Company, serial: &str, since: Instant, seconds: u64) {
    while served_serial(&company.site.gate.address, &company.site.authority) != serial {
        assert!(since.elapsed() < Duration::from_secs(seconds), "the new certificate is not shown");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until a bad configuration has been complained of.
fn complained(company: &Company, before: usize, seconds: u64) {
    let since = Instant::now();
    while company.complaints() == before {
        assert!(since.elapsed() < Duration::from_secs(seconds), "nothing was said of a bad configuration");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_signal_every_second_fails_no_request() {
    let company = Company::start(Site::start_in);
    rounds(&company, 60, |n| {
        let began = Instant::now();
        if n % 8 == 0 {
            let before = company.complaints();
            company.write_badly(n);
            company.site.gate.signal(Signal::HUP);
            complained(&company, before, 5);
            company.is_of(n - 1, &company.certificate(n - 1).serial());
        } else {
            company.write(n);
            company.site.gate.signal(Signal::HUP);
            let serial = company.certificate(n).serial();
            shown(&company, &serial, began, 3);
            company.is_of(n, &serial);
        }
        thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
    });
}

#[test]
fn files_that_change_are_read_again_by_themselves() {
    let company = Company::start(Site::watching);
    rounds(&company, 40, |n| {
        let began = Instant::now();
        if n % 4 == 0 {
            let before = company.complaints();
            company.write_badly(n * 2);
            complained(&company, before, 8);
            company.is_of(n - 1, &company.certificate(n - 1).serial());
        } else {
            company.write(n);
            let serial = company.certificate(n).serial();
            // They are looked at every second, and have to be the same twice.
            shown(&company, &serial, began, 6);
            company.is_of(n, &serial);
        }
    });
}

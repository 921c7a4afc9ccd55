//! How often one may ask, and what is still answered where nothing more can be fetched.

use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Site, TLS, htpasswd};
use crate::support::eventually;
use crate::support::gate::{route, upstream};
use crate::support::modules::Module;
use crate::support::upstream::{Reply, Upstream};

/// A child that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn one_client_has_asked_enough_and_another_of_its_team_goes_on() {
    let public = Upstream::serving(&[Module::new("example.com/m", "v1.0.0")]);
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("users"), htpasswd("ann", "one") + &htpasswd("bob", "two")).unwrap();
    let text = TLS.to_owned()
        + &upstream("public", &public.url(), "")
        + &route("*", &["public"], "")
        + "[teams.maps]\nusers_file = \"users\"\nlimits = { per_client = { requests = 1, per = \"4s\", burst = 6 } }\n";
    let site = Site::start_in(dir, &text);
    let url = site.url("/example.com/m/@v/v1.0.0.zip");
    for (user, argument) in [("ann:one", "--http1.1"), ("bob:two", "--http2")] {
        let client = site.curl().with(&["-u", user, argument]);
        let started = Instant::now();
        let mut admitted = 0;
        let refusal = loop {
            let answer = client.get(&url);
            match answer.whole() {
                Some(200) => admitted += 1,
                other => {
                    assert_eq!(other, Some(429), "{user}");
                    break answer;
                }
            }
        };
        // Six at once, and one more for each four seconds that it took.
        let more = usize::try_from(started.elapsed().as_secs() / 4).unwrap();
        assert!((6..=6 + more).contains(&admitted), "{user}: {admitted} in {:?}", started.elapsed());
        let wait: u64 = refusal.header("retry-after").parse().unwrap();
        assert!((1..=4).contains(&wait), "{user}: {wait}");
        if user == "ann:one" {
            // The other one of the team has all of its own.
            assert_eq!(site.curl().with(&["-u", "bob:two"]).status(&url), Some(200));
            thread::sleep(Duration::from_secs(wait));
            assert_eq!(client.status(&url), Some(200), "the time that it was told is over");
            thread::sleep(Duration::from_secs(4));
        }
    }
}

#[test]
fn hits_are_served_where_cold_fetches_are_too_many() {
    let warm = Module::new("example.com/warm", "v1.0.0").bulk(1 << 20);
    let public = Upstream::serving(std::slice::from_ref(&warm));
    let server = TLS.to_owned() + "# [server] max_fetches = 2\n";
    let site = Site::start(&(server + &upstream("public", &public.url(), "") + &route("*", &["public"], "")));
    for part in ["info", "mod", "zip"] {
        assert_eq!(site.curl().status(&site.url(&warm.url(part))), Some(200), "{part}");
    }
    let cold: Vec<Module> = (0..3).map(|n| Module::new(&format!("example.com/cold{n}"), "v1.0.0")).collect();
    for module in &cold {
        public.set(&module.url("mod"), Reply::Hang);
    }
    let asked = |module: &Module| public.count(&module.url("mod"));
    let hanging: Vec<Ended> = cold[..2]
        .iter()
        .map(|module| {
            let mut command = site.curl().with(&["--http2", &site.url(&module.url("mod"))]).command();
            let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            eventually("the upstream is asked", || asked(module) == 1);
            Ended(child)
        })
        .collect();
    for argument in ["--http1.1", "--http2"] {
        let client = site.curl().with(&[argument]);
        let shed = client.get(&site.url(&cold[2].url("mod")));
        assert_eq!(shed.whole(), Some(503), "{argument}: {}", shed.text());
        assert!(shed.header("retry-after").parse::<u64>().is_ok_and(|wait| wait >= 1), "{argument}");
        for part in ["info", "mod", "zip"] {
            let answer = client.get(&site.url(&warm.url(part)));
            assert_eq!(answer.whole(), Some(200), "{argument}: {part}");
            assert!(part != "zip" || answer.body == warm.zip(), "{argument}: another zip");
        }
        // A third one for what is being fetched is no further fetch: it waits with the first.
        assert_eq!(client.with(&["--max-time", "1"]).get(&site.url(&cold[0].url("mod"))).code, 28, "{argument}");
    }
    assert_eq!((asked(&cold[0]), asked(&cold[2])), (1, 0));
    drop(hanging);
}

//! The keys of an issuer come from its server: they are rotated without a reload, and a server that fails costs neither those who
//! are known nor modgate more than a while.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::http::Answer;
use crate::support::upstream::{Reply, Upstream};
use crate::xjose::{Issuer, Upstreams, ask, bearer, list};

/// A server is asked for its keys once in so long.
const PAUSE: Duration = Duration::from_secs(10);
/// It is given so long to answer.
const PATIENCE: Duration = Duration::from_secs(15);

static STARTING: Mutex<()> = Mutex::new(());

/// A gate whose issuer has a server.
struct Site {
    server: Upstream,
    gate: Gate,
    _upstreams: Upstreams,
}

impl Site {
    fn start(issuer: &Issuer, reply: Reply, more: &str, auth: &str) -> Self {
        let (server, upstreams) = (Upstream::start(), Upstreams::start());
        server.set("/keys", reply);
        let table = issuer.table("ci", &format!("jwks_url = \"{}/keys\"", server.url()), more);
        // One after another: the ports that a gate is given were free a moment ago, and another may be given the same.
        let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = Gate::start(&upstreams.config(&format!("[auth]\n{auth}\n{table}"), &["ci"]));
        Self { server, gate, _upstreams: upstreams }
    }

    /// Sends a token from an address.
    fn ask(&self, source: usize, token: &str) -> Answer {
        ask(&self.gate.address, source, &list("m"), &bearer(token))
    }

    fn status(&self, source: usize, token: &str) -> u16 {
        self.ask(source, token).status
    }

    /// Waits until the server may be asked again.
    fn pause(&self) {
        let last = self.server.times().last().copied().unwrap();
        thread::sleep((last + PAUSE + Duration::from_millis(300)).saturating_duration_since(Instant::now()));
    }

    /// Checks that the server was asked so often, and never again soon.
    fn was_asked(&self, least: usize, most: usize) {
        let times = self.server.times();
        assert!((least..=most).contains(&times.len()), "{least} to {most} times, not {}", times.len());
        for pair in times.windows(2) {
            let between = pair[1] - pair[0];
            assert!(between + Duration::from_millis(500) > PAUSE, "again after {between:?}");
        }
    }
}

fn two_issuers() -> [Issuer; 2] {
    ["first", "next"].map(|word| Issuer::new(word, "http://127.0.0.1:1/"))
}

#[test]
fn a_new_key_is_learnt_when_a_token_names_it_and_an_old_one_forgotten() {
    let [first, next] = two_issuers();
    let site = Site::start(&first, first.set(), "", "remember = \"5m\"");
    assert_eq!(site.status(1, &first.spare[0]), 200);
    assert_eq!(site.status(1, &first.spare[1]), 200);
    thread::scope(|scope| {
        // The server was asked a moment ago, so this one waits until it may be asked again.
        let early = scope.spawn(|| (site.status(1, &next.spare[0]), Instant::now()));
        let started = Instant::now();
        thread::sleep(Duration::from_secs(1));
        site.was_asked(1, 1);
        site.server.set("/keys", next.set());
        assert_eq!(site.status(1, &first.spare[2]), 200, "as long as nothing has asked for the new ones");
        let (status, answered) = early.join().unwrap();
        assert_eq!(status, 200, "without a reload, and without a refusal");
        assert!(answered - started < PAUSE + Duration::from_secs(3), "{:?}", answered - started);
    });
    assert_eq!(site.status(1, &next.spare[2]), 200);
    site.was_asked(2, 2);
    assert_eq!(site.status(1, &first.spare[0]), 200, "who was let in is remembered for a while");
    site.was_asked(2, 2);
    assert_eq!(site.status(1, &first.spare[3]), 401, "its key is gone, as the server says when it may be asked again");
    site.was_asked(3, 3);
}

#[test]
fn a_key_in_the_place_of_another_is_found() {
    let [first, next] = two_issuers();
    let site = Site::start(&first, first.set(), "", "");
    assert_eq!(site.status(1, &first.nameless[0]), 200);
    site.server.set("/keys", next.set());
    site.pause();
    // Tokens that name no key are tried with those that are known, and these did not sign it.
    assert_eq!(site.status(1, &next.nameless[0]), 200, "without a reload");
    assert_eq!(site.status(1, &first.nameless[1]), 401);
    site.was_asked(2, 2);
}

#[test]
fn keys_are_asked_for_again_after_a_while_though_nothing_names_new_ones() {
    let [first, next] = two_issuers();
    let site = Site::start(&first, first.set(), "refresh = \"2s\"", "remember = \"1s\"");
    assert_eq!(site.status(1, &first.nameless[0]), 200);
    site.server.set("/keys", next.set());
    site.pause();
    // What is known does for this one.
    assert_eq!(site.status(1, &first.nameless[1]), 200);
    eventually("the server is asked", || site.server.count("/keys") == 2);
    eventually("the new keys are there", || site.status(1, &first.nameless[0]) == 401);
    assert_eq!(site.status(1, &first.nameless[2]), 401);
    assert_eq!(site.status(1, &next.nameless[0]), 200);
    assert_eq!(site.status(1, &next.spare[0]), 200);
    site.was_asked(2, 2);
}

#[test]
fn whatever_keys_tokens_name_the_server_is_not_asked_often() {
    let [first, next] = two_issuers();
    let site = Site::start(&first, first.set(), "", "");
    assert_eq!(site.status(0, &first.spare[0]), 200);
    let started = Instant::now();
    thread::scope(|scope| {
        let (site, first, next) = (&site, &first, &next);
        for (n, stranger) in first.strangers.iter().enumerate() {
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(400) * u32::try_from(n).unwrap());
                // Some wait until the server may be asked; where too many do, the others are told to come again.
                let status = site.status(1 + n, stranger);
                assert!(matches!(status, 401 | 503), "{status}");
                // Meanwhile good ones come in at once.
                let asked = Instant::now();
                assert_eq!(site.status(1 + n, &first.spare[n]), 200);
                assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
            });
        }
        thread::sleep(Duration::from_secs(5));
        // Many at once.
        for (n, stranger) in next.strangers.iter().enumerate() {
            scope.spawn(move || {
                let status = site.status(100 + n, stranger);
                assert!(matches!(status, 401 | 503), "{status}");
            });
        }
    });
    let most = usize::try_from(started.elapsed().as_secs() / PAUSE.as_secs()).unwrap() + 2;
    site.was_asked(2, most);
}

/// The replies of a server that is not well, each by a name.
fn bad_replies(issuer: &Issuer) -> Vec<(&'static str, Reply)> {
    let set = issuer.keys.to_string().into_bytes();
    // JSON to its end, but for its length.
    let padded = |length: usize| [&set[..], &vec![b' '; length - set.len()]].concat();
    vec![
        ("closes", Reply::Close),
        ("answers 500", Reply::Status(500)),
        ("answers 404", Reply::Status(404)),
        ("answers 200 with HTML", Reply::Good(b"<html>Sign in</html>".to_vec())),
        ("has no keys", Reply::Good(b"{\"keys\":[]}".to_vec())),
        ("has keys that are too small", Reply::Good(issuer.small.to_string().into_bytes())),
        ("answers nothing", Reply::Good(Vec::new())),
        ("breaks off", Reply::Truncate(set.clone(), set.len() / 2)),
        ("breaks off where JSON is whole", Reply::Truncate(padded(set.len() + 10), set.len())),
        ("answers more than a mebibyte", Reply::Good(padded((1 << 20) + 1))),
        ("answers without end", Reply::Chunked(padded(64 << 20))),
        ("hangs", Reply::Hang),
        ("stalls", Reply::Stall(set.clone(), set.len() / 2)),
        ("drips", Reply::Slow(set, 20, Duration::from_millis(500))),
    ]
}

/// What happens with a server that is not well from the beginning on.
fn fails_at_first(what: &str, reply: Reply, issuer: &Issuer) {
    let site = Site::start(issuer, reply, "", "");
    let started = Instant::now();
    let answer = site.ask(1, &issuer.spare[0]);
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"), "{what}: {}", answer.text());
    assert_eq!(answer.text(), "modgate: it cannot be said at the moment who asks\n", "{what}");
    assert!(started.elapsed() < PATIENCE + Duration::from_secs(4), "{what}: {:?}", started.elapsed());
    assert_eq!(site.status(1, &issuer.strangers[0]), 503, "{what}");
    site.was_asked(1, 2);
    site.server.set("/keys", issuer.set());
    thread::sleep(PAUSE + Duration::from_millis(300));
    assert_eq!(site.status(1, &issuer.spare[0]), 200, "{what}: nothing of it is remembered");
    assert_eq!(site.status(1, &issuer.strangers[0]), 401, "{what}");
    site.was_asked(2, 3);
}

/// What happens with one that was well once.
fn fails_later(what: &str, reply: Reply, issuer: &Issuer) {
    let site = Site::start(issuer, issuer.set(), "", "");
    assert_eq!(site.status(1, &issuer.spare[0]), 200);
    site.server.set("/keys", reply);
    site.pause();
    thread::scope(|scope| {
        let stranger = scope.spawn(|| (Instant::now(), site.status(1, &issuer.strangers[0]), Instant::now()));
        thread::sleep(Duration::from_millis(700));
        let asked = Instant::now();
        assert_eq!(site.status(1, &issuer.spare[1]), 200, "{what}: the keys that were had are good");
        assert!(asked.elapsed() < Duration::from_secs(3), "{what}: {:?}", asked.elapsed());
        let (asked, status, answered) = stranger.join().unwrap();
        assert_eq!(status, 503, "{what}: it may be one of a new key");
        assert!(answered - asked < PATIENCE + Duration::from_secs(4), "{what}: {:?}", answered - asked);
    });
    assert_eq!(site.status(1, &issuer.spare[2]), 200, "{what}");
    match what {
        // A connection that was kept may have been closed before the question, so it is asked anew.
        "closes" => assert!(site.server.count("/keys") <= 3),
        _ => site.was_asked(2, 2),
    }
    let log = site.gate.log();
    assert!(log.contains("the keys of an issuer cannot be had") && log.contains("had=true"), "{what}: it is told\n{log}");
}

#[test]
fn a_server_that_fails_at_first_costs_a_while() {
    let [issuer, _] = two_issuers();
    thread::scope(|scope| {
        let issuer = &issuer;
        for (what, reply) in bad_replies(issuer) {
            // Those that hang, and those whose keys are too small, are looked at by themselves.
            if !matches!(what, "hangs" | "stalls" | "drips" | "has keys that are too small") {
                scope.spawn(move || fails_at_first(what, reply, issuer));
            }
        }
    });
}

#[test]
fn a_server_that_hangs_at_first_costs_a_while() {
    let [issuer, _] = two_issuers();
    thread::scope(|scope| {
        let issuer = &issuer;
        for (what, reply) in bad_replies(issuer) {
            if matches!(what, "hangs" | "stalls" | "drips") {
                scope.spawn(move || fails_at_first(what, reply, issuer));
            }
        }
    });
}

#[test]
fn a_server_whose_keys_are_all_too_small_has_none() {
    let [issuer, _] = two_issuers();
    let small = Reply::Good(issuer.small.to_string().into_bytes());
    fails_at_first("has keys that are too small", small.clone(), &issuer);
    fails_later("has keys that are too small", small, &issuer);
}

#[test]
fn a_server_that_fails_later_costs_nothing() {
    let [issuer, _] = two_issuers();
    thread::scope(|scope| {
        let issuer = &issuer;
        for (what, reply) in bad_replies(issuer) {
            if what != "has keys that are too small" {
                scope.spawn(move || fails_later(what, reply, issuer));
            }
        }
    });
}

#[test]
fn a_probe_asks_for_the_keys() {
    let [issuer, _] = two_issuers();
    let site = Site::start(&issuer, issuer.set(), "", "");
    let probe = || {
        let output = site.gate.command(&["check", "--probe"]);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (good, said) = probe();
    let of_use = issuer.keys["keys"].as_array().unwrap().len();
    let count = said.split_once("probe       issuer ci: ").and_then(|(_, rest)| rest.split_once(" keys")).unwrap().0;
    // Some of the set are of no use here.
    assert!(good && (1..=of_use).contains(&count.parse::<usize>().unwrap()), "{said}");
    site.server.set("/keys", Reply::Status(500));
    let (good, said) = probe();
    assert!(!good && said.contains("probe       issuer ci: FAILED: its server answered 500"), "{said}");
}

#[test]
fn a_set_of_a_mebibyte_is_read() {
    let [issuer, _] = two_issuers();
    let set = issuer.keys.to_string();
    let padded = format!("{set}{}", " ".repeat((1 << 20) - set.len()));
    let site = Site::start(&issuer, Reply::Good(padded.into_bytes()), "", "");
    assert_eq!(site.status(1, &issuer.spare[0]), 200);
}

/// Sends these tokens at once; each has to be answered so, and no later than one question to the server takes.
fn all_wait_for_one_question(site: &Site, tokens: &[String], status: u16) {
    let started = Instant::now();
    let answers: Vec<(u16, Duration)> = thread::scope(|scope| {
        let ask = |n: usize| (site.status(10 + n, &tokens[n]), started.elapsed());
        let asking: Vec<_> = (0..tokens.len()).map(|n| scope.spawn(move || ask(n))).collect();
        asking.into_iter().map(|asker| asker.join().unwrap()).collect()
    });
    let late = PATIENCE + Duration::from_secs(4);
    assert!(answers.iter().all(|(said, after)| *said == status && *after < late), "{answers:?}");
}

#[test]
fn all_who_ask_while_a_server_hangs_at_first_wait_for_one_question() {
    let [issuer, _] = two_issuers();
    let site = Site::start(&issuer, Reply::Hang, "", "");
    all_wait_for_one_question(&site, &issuer.spare[..4], 503);
}

#[test]
fn all_who_name_unknown_keys_while_a_server_hangs_wait_for_one_question() {
    let [issuer, _] = two_issuers();
    let site = Site::start(&issuer, issuer.set(), "", "");
    assert_eq!(site.status(1, &issuer.spare[0]), 200);
    site.server.set("/keys", Reply::Hang);
    site.pause();
    all_wait_for_one_question(&site, &issuer.strangers[..4], 503);
}

#[test]
fn a_token_is_remembered_no_longer_than_it_is_good() {
    let [first, next] = two_issuers();
    let site = Site::start(&first, first.set(), "", "remember = \"5m\"");
    // The clock of who made it may be half a minute behind. These have ended, and are looked at each time until then.
    let [ended, also, soon, later] = &first.endings[..] else { panic!("four end") };
    for token in [&ended.token, &also.token, &soon.token, &later.token] {
        assert_eq!(site.status(1, token), 200);
    }
    assert!(ended.is_before(30), "this machine is too slow");
    ended.wait(32);
    assert_eq!(site.status(1, &ended.token), 401, "it was good before");
    also.wait(32);
    assert_eq!(site.status(1, &also.token), 401);
    // Whether one is remembered shows when its key is gone: until its own end it is, and then no longer.
    site.server.set("/keys", next.set());
    site.pause();
    assert_eq!(site.status(1, &next.spare[0]), 200);
    assert!(soon.is_before(0), "this machine is too slow");
    assert_eq!(site.status(1, &soon.token), 200, "remembered");
    later.wait(2);
    assert_eq!(site.status(1, &soon.token), 401, "no longer remembered");
    assert_eq!(site.status(1, &later.token), 401);
}

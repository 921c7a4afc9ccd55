//! Merged lists, the latest version, queries: what changes, and how long a copy of it is good.

use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::modules::Module;
use crate::support::upstream::{Reply, Upstream};

const LIST: &str = "/example.com/m/@v/list";
const LATEST: &str = "/example.com/m/@latest";

fn list(text: &str) -> Upstream {
    let up = Upstream::start();
    up.set(LIST, Reply::Good(text.as_bytes().to_vec()));
    for version in text.split_whitespace() {
        let module = Module::new("example.com/m", version);
        up.set(&module.url("info"), Reply::Good(module.info()));
    }
    up
}

fn gate(cache: &str, ups: &[&Upstream], more: &str) -> Gate {
    let names: Vec<String> = (0..ups.len()).map(|n| format!("u{n}")).collect();
    let tables: String = names.iter().zip(ups).map(|(name, up)| upstream(name, &up.url(), "first_byte = \"1s\"")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Gate::start(&format!("[cache]\n{cache}\n\n{tables}{}", route("*", &names, more)))
}

#[test]
fn lists_are_merged_in_order_without_pseudo_versions_or_duplicates() {
    let a = list("v1.10.0\nv1.2.0\nv0.0.0-20200101000000-aaaaaaaaaaaa\nv3.0.0+incompatible\n");
    let b = list("v1.2.0\nv1.3.0-rc.1\nv2.0.0\nnonsense\nv1.2.1 2020-01-01T00:00:00Z\n");
    let gate = gate("", &[&a, &b], "");
    let answer = gate.get(LIST);
    assert_eq!(answer.text(), "v1.2.0\nv1.2.1\nv1.3.0-rc.1\nv1.10.0\nv3.0.0+incompatible\n");
    assert_eq!((answer.header("content-type"), answer.header("modgate-partial")), ("text/plain; charset=utf-8", ""));
    // Asked once each, then from the copies.
    for _ in 0..3 {
        gate.get(LIST);
    }
    assert_eq!((a.count(LIST), b.count(LIST)), (1, 1));
}

#[test]
fn upstreams_are_asked_side_by_side() {
    let slow = |text: &str| {
        let up = list("");
        up.set(LIST, Reply::After(Duration::from_millis(500), Box::new(Reply::Good(text.as_bytes().to_vec()))));
        up
    };
    let (a, b, c) = (slow("v1.0.0\n"), slow("v1.1.0\n"), slow("v1.2.0\n"));
    let gate = gate("", &[&a, &b, &c], "");
    let started = Instant::now();
    assert_eq!(gate.get(LIST).text(), "v1.0.0\nv1.1.0\nv1.2.0\n");
    assert!(started.elapsed() < Duration::from_millis(1200), "{:?}", started.elapsed());
}

#[test]
fn an_incomplete_list_says_so_and_is_not_kept() {
    let (a, b) = (list("v1.0.0\n"), list(""));
    b.set(LIST, Reply::Status(500));
    let gate = gate("", &[&a, &b], "");
    let answer = gate.get(LIST);
    assert_eq!((answer.status, answer.text().as_str(), answer.header("modgate-partial")), (200, "v1.0.0\n", "u1"));
    b.set(LIST, Reply::Good(b"v1.1.0\n".to_vec()));
    let answer = gate.get(LIST);
    assert_eq!((answer.text().as_str(), answer.header("modgate-partial")), ("v1.0.0\nv1.1.0\n", ""));
}

#[test]
fn a_route_may_want_no_incomplete_list() {
    let (a, b) = (list("v1.0.0\n"), list(""));
    b.set(LIST, Reply::Status(503));
    let gate = gate("", &[&a, &b], "partial = \"fail\"");
    let answer = gate.get(LIST);
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("incomplete without: u1"), "{}", answer.text());
    assert_eq!(gate.get(LATEST).status, 502);
    // Not having the module is no failure.
    b.set(LIST, Reply::Status(404));
    assert_eq!(gate.get(LIST).text(), "v1.0.0\n");
}

#[test]
fn nobody_has_it_is_404_and_nobody_can_say_is_502() {
    let (a, b) = (Upstream::start(), Upstream::start());
    assert_eq!(gate("", &[&a, &b], "").get(LIST).status, 404);
    b.only(Reply::Status(500));
    let gate = gate("", &[&a, &b], "");
    assert_eq!((gate.get(LIST).status, gate.get(LATEST).status), (502, 502));
}

#[test]
fn an_empty_list_is_a_list() {
    let a = list("");
    let gate = gate("", &[&a], "");
    let answer = gate.get(LIST);
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
}

#[test]
fn an_old_copy_is_shown_while_it_is_refreshed_and_when_its_upstream_fails() {
    let a = list("v1.0.0\n");
    let gate = gate("list_ttl = \"300ms\"", &[&a], "");
    assert_eq!(gate.get(LIST).text(), "v1.0.0\n");
    a.set(LIST, Reply::After(Duration::from_millis(700), Box::new(Reply::Good(b"v1.0.0\nv1.1.0\n".to_vec()))));
    std::thread::sleep(Duration::from_millis(400));
    let started = Instant::now();
    assert_eq!(gate.get(LIST).text(), "v1.0.0\n", "stale while it is being refreshed");
    assert!(started.elapsed() < Duration::from_millis(400));
    eventually("the refreshed list", || gate.get(LIST).text() == "v1.0.0\nv1.1.0\n");
    for failure in [Reply::Status(500), Reply::Hang, Reply::Close, Reply::Good(b"<html>".to_vec())] {
        a.set(LIST, failure);
        std::thread::sleep(Duration::from_millis(400));
        for _ in 0..3 {
            let answer = gate.get(LIST);
            assert_eq!((answer.text().as_str(), answer.header("modgate-partial")), ("v1.0.0\nv1.1.0\n", ""));
        }
    }
    // A mirror's bad minute survives a restart.
    a.set(LIST, Reply::Status(500));
    let text = format!("{}{}", upstream("u0", &a.url(), ""), route("*", &["u0"], ""));
    let restarted = Gate::start_in(gate.into_dir(), &text);
    assert_eq!(restarted.get(LIST).text(), "v1.0.0\nv1.1.0\n");
}

#[test]
fn latest_agrees_with_the_list() {
    let (a, b) = (list("v1.0.0\nv1.2.0-rc.1\n"), list("v1.1.0\n"));
    // What they say themselves does not count while there is a list.
    a.set(LATEST, Reply::Good(br#"{"Version":"v9.0.0"}"#.to_vec()));
    let gate1 = gate("", &[&a, &b], "");
    assert_eq!(gate1.get(LATEST).text(), r#"{"Version":"v1.1.0","Time":"2024-02-03T04:05:06Z"}"#);
    assert_eq!(a.count(LATEST), 0);
    let only_pre = list("v0.1.0-alpha\nv0.1.0-beta\n");
    assert!(gate("", &[&only_pre], "").get(LATEST).text().contains("v0.1.0-beta"));
}

#[test]
fn without_a_tagged_version_the_newest_pseudo_version_is_latest() {
    let old = "v0.0.0-20200101000000-aaaaaaaaaaaa";
    let new = r#"{"Version":"v0.0.0-20210101000000-bbbbbbbbbbbb","Time":"2021-01-01T00:00:00Z"}"#;
    let (a, b) = (list(&format!("{old}\n")), Upstream::start());
    let first = gate("", &[&a, &b], "");
    assert!(first.get(LATEST).text().contains(old), "from a list, where nobody answers @latest");
    b.set(LATEST, Reply::Good(new.as_bytes().to_vec()));
    let second = gate("", &[&a, &b], "");
    assert_eq!(second.get(LATEST).text(), new);
    // Its list is empty all the same: pseudo-versions do not belong there.
    assert_eq!(second.get(LIST).text(), "");
}

#[test]
fn queries_live_shortly_and_canonical_versions_for_ever() {
    let main = "/example.com/m/@v/main.info";
    let commit = |n: u32| format!(r#"{{"Version":"v0.0.0-2020010100000{n}-aaaaaaaaaaaa","Time":"2020-01-01T00:00:0{n}Z"}}"#);
    let a = Upstream::start();
    a.set(main, Reply::Good(commit(1).into_bytes()));
    let gate = gate("list_ttl = \"500ms\"", &[&a], "");
    let answer = gate.get(main);
    assert_eq!((answer.text(), answer.header("cache-control")), (commit(1), "no-cache"));
    a.set(main, Reply::Good(commit(2).into_bytes()));
    assert_eq!(gate.get(main).text(), commit(1));
    assert_eq!(a.count(main), 1);
    eventually("the branch has moved", || gate.get(main).text() == commit(2));
    assert!(gate.cache("u0").join("example.com/m/@v/main.info").is_file());
}

#[test]
fn version_prefixes_agree_with_the_merged_list() {
    let (a, b) = (list("v1.0.0\nv1.2.3\n"), list("v1.2.4\nv1.3.0\n"));
    let gate = gate("", &[&a, &b], "");
    assert!(gate.get("/example.com/m/@v/v1.info").text().contains("v1.3.0"));
    assert!(gate.get("/example.com/m/@v/v1.2.info").text().contains("v1.2.4"));
    assert_eq!(gate.get("/example.com/m/@v/v4.info").status, 404);
    assert_eq!((a.count("/example.com/m/@v/v1.info"), a.count("/example.com/m/@v/v4.info")), (0, 1), "a branch may have that name");
}

#[test]
fn list_first_takes_the_first_that_answers() {
    let (a, b) = (Upstream::start(), list("v1.1.0\n"));
    let gate1 = gate("not_found_ttl = \"0\"", &[&a, &b], "list = \"first\"");
    assert_eq!(gate1.get(LIST).text(), "v1.1.0\n");
    a.set(LIST, Reply::Good(b"v1.0.0\n".to_vec()));
    let gate2 = gate("", &[&a, &b], "list = \"first\"");
    assert_eq!(gate2.get(LIST).text(), "v1.0.0\n");
    a.set(LIST, Reply::Status(500));
    assert_eq!(gate("", &[&a, &b], "list = \"first\"").get(LIST).status, 502, "not-found does not go on after an outage");
}

#[test]
fn an_outage_of_a_list_is_no_absence_of_what_depends_on_it() {
    let broken = Upstream::start();
    broken.set(LIST, Reply::Status(500));
    let gate = gate("", &[&broken, &broken.clone()], "fallback = \"any-error\"");
    // @latest and v1.info themselves are answered 404 by both.
    for path in [LIST, LATEST, "/example.com/m/@v/v1.info"] {
        assert_eq!(gate.get(path).status, 502, "{path}");
    }
}

#[test]
fn an_answer_from_the_cache_alone_is_not_kept_for_others() {
    let main = "/example.com/m/@v/main.info";
    let info = |n: u32| format!(r#"{{"Version":"v0.0.{n}"}}"#);
    let (a, b) = (Upstream::start(), Upstream::start());
    b.set(main, Reply::Good(info(2).into_bytes()));
    let gate = gate("not_found_ttl = \"0\"", &[&a, &b], "");
    assert_eq!(gate.get(main).text(), info(2));
    a.set(main, Reply::Good(info(1).into_bytes()));
    eventually("the only copy is stored", || gate.get(&format!("/cached-only{main}")).text() == info(2));
    assert_eq!(gate.get(main).text(), info(1), "the first of the chain has it now");
}

#[test]
fn a_failing_refresh_is_not_tried_by_every_request() {
    let a = list("v1.0.0\n");
    let gate = gate("list_ttl = \"200ms\"", &[&a], "");
    assert_eq!(gate.get(LIST).text(), "v1.0.0\n");
    a.set(LIST, Reply::Status(500));
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..20 {
        assert_eq!(gate.get(LIST).text(), "v1.0.0\n");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(a.count(LIST) <= 3, "{}", a.count(LIST));
    // One that says the module is gone is believed, once it has said so.
    a.set(LIST, Reply::Status(404));
    eventually("the list is gone", || gate.get(LIST).status == 404);
}

#[test]
fn what_is_chosen_from_an_incomplete_list_says_so() {
    let (a, b) = (list("v1.0.0\n"), list(""));
    b.set(LIST, Reply::Status(500));
    let gate = gate("", &[&a, &b], "");
    for path in [LATEST, "/example.com/m/@v/v1.info"] {
        let answer = gate.get(path);
        assert_eq!((answer.status, answer.header("modgate-partial")), (200, "u1"), "{path}");
    }
}

#[test]
fn a_long_list_is_merged() {
    let text = (0..20_000).map(|n| format!("v1.{}.{}\n", n / 200, n % 200)).collect::<Vec<_>>().concat();
    let a = Upstream::start();
    a.set(LIST, Reply::Good(text.clone().into_bytes()));
    let gate = gate("", &[&a], "");
    assert_eq!(gate.get(LIST).text(), text);
}

#[test]
fn where_the_first_list_counts_latest_goes_no_further_than_the_fallback_rule() {
    let (private, public) = (Upstream::always(Reply::Status(500)), Upstream::serving(&[Module::new("example.com/m", "v1.0.0")]));
    let tables = upstream("private", &private.url(), "private = true") + &upstream("public", &public.url(), "");
    let gate = Gate::start(&(tables + &route("*", &["private", "public"], "list = \"first\"")));
    for path in ["/example.com/m/@v/list", "/example.com/m/@latest", "/example.com/m/@v/v1.info", "/example.com/m/@v/main.info"] {
        assert_eq!(gate.get(path).status, 502, "{path}");
    }
    assert_eq!(public.asked(), Vec::<String>::new());
    // What the first does not have is the second's to say.
    private.otherwise(Reply::Status(404));
    assert_eq!(gate.get("/example.com/m/@latest").status, 200);
}

#[test]
fn a_late_list_is_waited_for_as_long_as_the_route_says() {
    let hanging = Reply::After(Duration::from_secs(2), Box::new(Reply::Good(b"v1.9.0\n".to_vec())));
    for (rule, partial, within) in [("partial = \"serve\"", "late", true), ("partial = \"fail\"", "", false)] {
        let (late, quick) = (Upstream::start(), list("v1.0.0\n"));
        late.set(LIST, hanging.clone());
        let tables = upstream("late", &late.url(), "") + &upstream("quick", &quick.url(), "");
        let rule = format!("fallback = \"any-error\"\nhedge_after = \"200ms\"\n{rule}");
        let gate = Gate::start(&(tables + &route("*", &["late", "quick"], &rule)));
        let started = Instant::now();
        let answer = gate.get(LIST);
        assert_eq!((answer.status, answer.header("modgate-partial")), (200, partial));
        assert_eq!(started.elapsed() < Duration::from_millis(1500), within);
        assert_eq!(answer.text().contains("v1.9.0"), !within);
        // What came late is there the next time.
        eventually("the list is whole", || gate.get(LIST).text() == "v1.0.0\nv1.9.0\n");
        assert_eq!(late.count(LIST), 1);
    }
    // An answer that nobody else has is waited for.
    let (late, other) = (Upstream::start(), Upstream::start());
    late.set(LIST, hanging);
    let tables = upstream("late", &late.url(), "") + &upstream("other", &other.url(), "");
    let gate = Gate::start(&(tables + &route("*", &["late", "other"], "fallback = \"any-error\"\nhedge_after = \"200ms\"")));
    assert_eq!(gate.get(LIST).text(), "v1.9.0\n");
}

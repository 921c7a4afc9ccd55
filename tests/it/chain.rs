//! Routes, fallback, statuses, and the cache of what never changes.

use std::time::Duration;

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::http::request;
use crate::support::modules::Module;
use crate::support::upstream::{Reply, Upstream};

const INFO: &str = "/example.com/m/@v/v1.0.0.info";

fn module() -> Module {
    Module::new("example.com/m", "v1.0.0")
}

/// A gate over two upstreams, the first of which does not have the module itself.
fn two(first: &Upstream, second: &Upstream, fallback: &str) -> Gate {
    let tables = upstream("first", &first.url(), "first_byte = \"600ms\"\nconnect = \"600ms\"\nbreaker = { failures = 0 }")
        + &upstream("second", &second.url(), "");
    Gate::start(&(tables + &route("*", &["first", "second"], &format!("fallback = {fallback}"))))
}

#[test]
fn fallback_goes_on_by_class_and_an_outage_is_never_a_404() {
    let status = Reply::Status;
    let html = Reply::Full(200, vec![("Content-Type".into(), "text/html".into())], b"<html>log in</html>".to_vec());
    // What the first upstream does, and the statuses under not-found, any-error, and ["absent", "busy"].
    let table = [
        (status(404), [200, 200, 200]),
        (status(410), [200, 200, 200]),
        (status(403), [502, 200, 502]),
        (status(401), [502, 200, 502]),
        (status(429), [502, 200, 200]),
        (status(500), [502, 200, 502]),
        (status(503), [502, 200, 502]),
        (status(204), [502, 200, 502]),
        (status(400), [502, 200, 502]),
        (Reply::Hang, [504, 200, 504]),
        (Reply::Close, [502, 200, 502]),
        (Reply::NoLength(module().info()), [502, 200, 502]),
        (Reply::Truncate(module().info(), 5), [502, 200, 502]),
        (Reply::TruncateChunked(module().info(), 5), [502, 200, 502]),
        // Corrupt answers never end a chain.
        (Reply::Good(b"not json".to_vec()), [200, 200, 200]),
        (Reply::Good(br#"{"Version":"v1.0.1"}"#.to_vec()), [200, 200, 200]),
        (html, [200, 200, 200]),
    ];
    let second = Upstream::serving(&[module()]);
    for (at, fallback) in ["\"not-found\"", "\"any-error\"", "[\"absent\", \"busy\"]"].into_iter().enumerate() {
        let first = Upstream::start();
        let gate = two(&first, &second, fallback);
        for (n, (reply, statuses)) in table.iter().enumerate() {
            // A version of its own for each row, so that nothing is cached.
            let module = Module::new("example.com/m", &format!("v1.{at}.{n}"));
            let reply = match reply {
                Reply::Truncate(..) => Reply::Truncate(module.info(), 5),
                Reply::NoLength(_) => Reply::NoLength(module.info()),
                other => other.clone(),
            };
            first.set(&module.url("info"), reply.clone());
            second.set(&module.url("info"), Reply::Good(module.info()));
            let answer = gate.get(&module.url("info"));
            assert_eq!(answer.status, statuses[at], "{fallback}, {reply:?}: {}", answer.text());
            if answer.status == 200 {
                assert_eq!(answer.body, module.info());
            } else {
                let text = answer.text();
                assert!(text.starts_with("modgate: example.com/m/@v/v1.") && text.contains("\nfirst: "), "{text}");
                assert!(!text.contains("\nsecond"), "the chain stopped before it: {text}");
            }
        }
    }
}

#[test]
fn the_status_says_what_all_of_the_chain_said() {
    let (absent, broken) = (Upstream::start(), Upstream::always(Reply::Status(500)));
    let gate = two(&absent, &absent, "\"any-error\"");
    let answer = gate.get(INFO);
    assert_eq!(answer.status, 404);
    assert_eq!(answer.text().lines().count(), 3, "{}", answer.text());
    let gate = two(&absent, &broken, "\"any-error\"");
    assert_eq!(gate.get(INFO).status, 502);
    let gate = two(&broken, &absent, "\"any-error\"");
    assert_eq!(gate.get(INFO).status, 502);
    let hanging = Upstream::always(Reply::Hang);
    let gate = two(&hanging, &absent, "\"any-error\"");
    assert_eq!(gate.get(INFO).status, 504);
    let busy = Upstream::always(Reply::Full(429, vec![("Retry-After".into(), "7".into())], b"later".to_vec()));
    let gate = two(&busy, &absent, "\"any-error\"");
    let answer = gate.get(INFO);
    assert_eq!((answer.status, answer.header("retry-after")), (502, "7"));
}

#[test]
fn absent_is_what_the_upstream_says_it_is() {
    let (first, second) = (Upstream::always(Reply::Status(403)), Upstream::serving(&[module()]));
    let tables = upstream("first", &first.url(), "absent = [403, 404]") + &upstream("second", &second.url(), "");
    let gate = Gate::start(&(tables + &route("*", &["first", "second"], "")));
    assert_eq!(gate.get(INFO).status, 200);
    assert_eq!(gate.get("/example.com/other/@v/v1.0.0.info").status, 404);
    // 410 is no longer in the list.
    first.only(Reply::Status(410));
    assert_eq!(gate.get("/example.com/third/@v/v1.0.0.info").status, 502);
}

#[test]
fn the_first_route_that_matches_the_decoded_path_wins_and_private_paths_stay_inside() {
    let (private, public) = (Upstream::start(), Upstream::start());
    let tables = upstream("private", &private.url(), "private = true") + &upstream("public", &public.url(), "");
    let routes = route("corp.example,github.com/AcmeCorp", &["private"], "") + &route("*", &["public"], "");
    let gate = Gate::start(&(tables + &routes));
    for inside in ["/corp.example/x", "/github.com/!acme!corp/tool", "/github.com/%21acme%21corp/tool/v2"] {
        let version = if inside.ends_with("v2") { "v2.0.0" } else { "v1.0.0" };
        for part in
            ["/@v/list", "/@latest", "/@v/VERSION.info", "/@v/VERSION.mod", "/@v/VERSION.zip", "/@v/main.info", "/@v/v1.info"]
        {
            assert_eq!(gate.get(&format!("{inside}{}", part.replace("VERSION", version))).status, 404);
        }
    }
    assert_eq!(public.asked(), Vec::<String>::new(), "nothing private was asked outside");
    assert!(private.asked().len() > 10);
    private.forget();
    assert_eq!(gate.get("/github.com/acmecorp/tool/@v/list").status, 404);
    assert_eq!((private.asked().len(), public.asked().len()), (0, 1));
}

#[test]
fn what_was_served_is_served_again_without_a_question() {
    let up = Upstream::serving(&[module()]);
    let gate = Gate::start(&(upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    let first: Vec<_> = ["info", "mod", "zip"].iter().map(|part| gate.get(&module().url(part))).collect();
    assert_eq!(up.asked().len(), 3);
    assert_eq!(first[2].header("content-type"), "application/zip");
    up.only(Reply::Status(500));
    up.forget();
    for (part, before) in ["info", "mod", "zip"].iter().zip(&first) {
        let again = gate.get(&module().url(part));
        assert_eq!((again.status, &again.body), (200, &before.body));
        assert!(again.header("cache-control").contains("immutable"));
    }
    // Another process finds the files.
    let restarted = Gate::start_in(gate.into_dir(), &(upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    for (part, before) in ["info", "mod", "zip"].iter().zip(&first) {
        assert_eq!(restarted.get(&module().url(part)).body, before.body);
    }
    assert_eq!(up.asked(), Vec::<String>::new());
}

#[test]
fn the_parts_of_a_version_come_from_one_upstream() {
    let (first, second) = (Upstream::start(), Upstream::serving(&[module()]));
    let gate = two(&first, &second, "\"any-error\"");
    assert_eq!(gate.get(&module().url("mod")).status, 200);
    // Now the first has the version too, and another one at that.
    let mut other = module();
    other.go_mod.push_str("\nrequire example.com/other v1.0.0\n");
    for part in ["info", "mod", "zip"] {
        let body = match part {
            "info" => other.info(),
            "mod" => other.go_mod.clone().into_bytes(),
            _ => other.zip(),
        };
        first.set(&other.url(part), Reply::Good(body));
    }
    first.forget();
    assert_eq!(gate.get(&module().url("zip")).body, module().zip(), "from where the go.mod came from");
    assert_eq!(first.count(&module().url("zip")), 0);
    // Where the one that gave the go.mod is gone, a zip with another go.mod is no substitute.
    let mut third = Module::new("example.com/n", "v1.0.0");
    second.set(&third.url("mod"), Reply::Good(third.go_mod.clone().into_bytes()));
    assert_eq!(gate.get(&third.url("mod")).status, 200);
    second.only(Reply::Status(500));
    let same = third.zip();
    third.go_mod.push_str("\nrequire example.com/other v1.0.0\n");
    first.set(&third.url("zip"), Reply::Good(third.zip()));
    let answer = gate.get(&third.url("zip"));
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("go.mod differs"), "{}", answer.text());
    // The same go.mod is good enough.
    first.set(&third.url("zip"), Reply::Good(same.clone()));
    assert_eq!(gate.get(&third.url("zip")).body, same);
}

#[test]
fn absences_are_remembered_for_a_while_and_failures_are_not() {
    let up = Upstream::start();
    let gate = Gate::start(
        &("[cache]\nnot_found_ttl = \"700ms\"\n\n".to_owned() + &upstream("u", &up.url(), "") + &route("*", &["u"], "")),
    );
    for _ in 0..5 {
        let answer = gate.get(INFO);
        assert_eq!(answer.status, 404);
    }
    assert_eq!(up.count(INFO), 1);
    for (path, body) in crate::support::modules::tree(&[module()]) {
        up.set(&path, Reply::Good(body));
    }
    eventually("the absence is forgotten", || gate.get(INFO).status == 200);
    let broken = "/example.com/broken/@v/v1.0.0.info";
    up.set(broken, Reply::Status(500));
    // Who comes in the moment in which a failure is told hears it too.
    eventually("the failure is forgotten at once", || {
        assert_eq!(gate.get(broken).status, 502);
        up.count(broken) == 3
    });
}

#[test]
fn cached_only_never_asks() {
    let up = Upstream::serving(&[module(), Module::new("example.com/m", "v1.1.0")]);
    let gate =
        Gate::start(&("[cache]\nlist_ttl = \"200ms\"\n\n".to_owned() + &upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    let by_header = |path: &str| request(&gate.address, "GET", path, &[("Disable-Module-Fetch", "true")]);
    let by_path = |path: &str| gate.get(&format!("/cached-only{path}"));
    for path in [INFO, "/example.com/m/@v/list", "/example.com/m/@latest", "/example.com/m/@v/main.info"] {
        assert_eq!((by_header(path).status, by_path(path).status), (404, 404), "{path}");
    }
    assert_eq!(up.asked(), Vec::<String>::new());
    assert_eq!((gate.get(INFO).status, gate.get("/example.com/m/@latest").status), (200, 200));
    std::thread::sleep(Duration::from_millis(300));
    let before = up.asked().len();
    for path in [INFO, "/example.com/m/@v/list", "/example.com/m/@latest"] {
        assert_eq!((by_header(path).status, by_path(path).status), (200, 200), "{path}");
    }
    assert_eq!(by_path("/example.com/m/@v/list").text(), "v1.0.0\nv1.1.0\n");
    assert_eq!(up.asked().len(), before, "an old list is good enough when nothing may be asked");
}

#[test]
fn redirects_are_followed_a_bounded_number_of_times_and_never_to_worse() {
    let (up, target) = (Upstream::start(), Upstream::serving(&[module()]));
    let to = |url: String| Reply::Full(302, vec![("Location".into(), url)], Vec::new());
    let gate = Gate::start(&(upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    up.set(&module().url("info"), to(format!("{}{}", target.url(), module().url("info"))));
    assert_eq!(gate.get(&module().url("info")).body, module().info());
    up.set(&module().url("mod"), to(module().url("mod")));
    let answer = gate.get(&module().url("mod"));
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("more than 10 in a row"), "{}", answer.text());
    assert_eq!(up.count(&module().url("mod")), 11);
    for (n, location) in ["ftp://example.com/x", "file:///etc/passwd", "http://"].iter().enumerate() {
        let version = Module::new("example.com/m", &format!("v1.1.{n}"));
        up.set(&version.url("mod"), to((*location).to_owned()));
        assert_eq!(gate.get(&version.url("mod")).status, 502, "{location}");
    }
    up.set("/example.com/m/@v/v1.2.0.mod", Reply::Full(302, Vec::new(), Vec::new()));
    assert_eq!(gate.get("/example.com/m/@v/v1.2.0.mod").status, 502);
}

#[test]
fn requests_upstream_are_plain_and_escaped() {
    let up = Upstream::start();
    let gate = Gate::start(&(upstream("u", &format!("{}/base/", up.url()), "") + &route("*", &["u"], "")));
    gate.get("/github.com/!burnt!sushi/toml/@v/feature%23x%20y.info");
    let heads = up.heads();
    assert_eq!(heads.len(), 1);
    assert!(heads[0].starts_with("GET /base/github.com/!burnt!sushi/toml/@v/feature%23x%20y.info HTTP/1.1\r\n"), "{}", heads[0]);
    let head = heads[0].to_ascii_lowercase();
    assert!(head.contains(&format!("host: {}\r\n", up.address)) && head.contains("user-agent: modgate/"), "{head}");
    assert!(!head.contains("accept-encoding: gzip"), "{head}");
}

#[test]
fn an_upstream_that_does_not_work_is_left_alone_for_a_while() {
    let modules: Vec<Module> = (0..40).map(|n| Module::new("example.com/m", &format!("v1.0.{n}"))).collect();
    let (first, second) = (Upstream::always(Reply::Hang), Upstream::serving(&modules));
    let tables = upstream("first", &first.url(), "first_byte = \"300ms\"\nbreaker = { failures = 3, open_for = \"2s\" }");
    let tables = tables + &upstream("second", &second.url(), "");
    let gate = Gate::start(&(tables + &route("*", &["first", "second"], "fallback = \"any-error\"")));
    let timed = |module: &Module| {
        let started = std::time::Instant::now();
        assert_eq!(gate.get(&module.url("info")).body, module.info());
        started.elapsed()
    };
    // The first one waits; then a probe is sent, which hangs too, and until that is known the second upstream is asked beside.
    assert!(timed(&modules[0]) >= Duration::from_millis(300));
    for module in &modules[1..15] {
        assert!(timed(module) < Duration::from_millis(250));
    }
    // Each further failure takes its time, and a question to be known by.
    eventually("the breaker opens", || {
        gate.get(&format!("/example.com/more{}/@v/v1.0.0.info", gate.log().len()));
        gate.log().contains("the circuit breaker opened")
    });
    first.forget();
    for module in &modules[15..30] {
        assert!(timed(module) < Duration::from_millis(250));
    }
    assert_eq!(first.asked().len(), 0);
    let explained = String::from_utf8_lossy(&crate::support::http::get(&gate.admin, "/-/explain?module=example.com/x@v1.0.0").body)
        .into_owned();
    assert!(explained.contains("its circuit breaker is open"), "{explained}");
    // It recovers with the first probe that works.
    first.otherwise(Reply::Status(404));
    eventually("the breaker closes", || {
        gate.get(&format!("/example.com/new{}/@v/v1.0.0.info", gate.log().len()));
        gate.log().contains("the upstream works again")
    });
    assert_eq!(gate.log().matches("the circuit breaker opened").count(), 1);
}

//! The way out: proxies that fail at every stage, credentials that go nowhere else, limits, repetitions, interrupted zips.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::gate::{Gate, program, route, upstream};
use crate::support::http;
use crate::support::modules::Module;
use crate::support::proxy::{FakeProxy, Manner};
use crate::support::upstream::{Reply, Upstream};
use crate::support::{eventually, free_port};

const INFO: &str = "/example.com/m/@v/v1.0.0.info";

fn module() -> Module {
    Module::new("example.com/m", "v1.0.0")
}

/// A gate over one upstream that may be reached in some way.
fn gate(url: &str, more: &str) -> Gate {
    Gate::start(&(upstream("u", url, more) + &route("*", &["u"], "")))
}

/// The same URL by a name that only a proxy knows.
fn by_name(up: &Upstream) -> String {
    up.url().replace("127.0.0.1", "mod.test")
}

#[test]
fn plain_http_goes_through_an_http_proxy_in_the_absolute_form() {
    let (up, proxy) = (Upstream::serving(&[module()]), FakeProxy::start(Manner::Leads));
    let gate = gate(&by_name(&up), &format!("proxy = \"http://me:sesame@{}\"", proxy.address));
    assert_eq!(gate.get(INFO).body, module().info());
    let head = proxy.asked().concat();
    assert!(head.starts_with(&format!("GET {}{INFO} HTTP/1.1\r\n", by_name(&up))), "{head}");
    let lower = head.to_ascii_lowercase();
    assert!(lower.contains(&format!("host: {}\r\n", by_name(&up).replace("http://", ""))), "{head}");
    // "me:sesame"
    assert!(head.contains("bWU6c2VzYW1l"), "{head}");
    assert!(!up.heads().concat().contains("bWU6c2VzYW1l"));
}

#[test]
fn each_upstream_has_a_proxy_of_its_own_and_exceptions_to_it() {
    let modules: Vec<Module> = ["a", "b", "c"].iter().map(|n| Module::new(&format!("{n}.example/m"), "v1.0.0")).collect();
    let up = Upstream::serving(&modules);
    let (first, second) = (FakeProxy::start(Manner::Leads), FakeProxy::start(Manner::Leads));
    let exempt = format!("no_proxy = [\"10.0.0.0/8\", \"127.0.0.1:{}\"]", up.address.rsplit(':').next().unwrap());
    let text = format!("[egress]\nproxy = \"http://{}\"\n", first.address)
        + &upstream("a", &up.url(), "")
        + &upstream("b", &by_name(&up), &format!("proxy = \"http://{}\"", second.address))
        + &upstream("c", &up.url(), &exempt)
        + &["a", "b", "c"].map(|n| route(&format!("{n}.example"), &[n], "")).concat();
    let gate = Gate::start(&text);
    for module in &modules {
        assert_eq!(gate.get(&module.url("info")).body, module.info());
    }
    let asked =
        |proxy: &FakeProxy| proxy.asked().iter().map(|h| h.split('/').nth(3).unwrap_or_default().to_owned()).collect::<Vec<_>>();
    assert_eq!((asked(&first), asked(&second)), (vec!["a.example".to_owned()], vec!["b.example".to_owned()]));
}

#[test]
fn socks_proxies_lead_on_by_name_or_address_and_with_a_password() {
    let (up, proxy) = (Upstream::serving(&[module()]), FakeProxy::start(Manner::Socks(None)));
    let at = &proxy.address;
    let gate_by = |url: &str, proxy: String, more: &str| gate(url, &format!("proxy = {proxy:?}\n{more}"));
    assert_eq!(gate_by(&by_name(&up), format!("socks5h://{at}"), "").get(INFO).body, module().info());
    assert_eq!(gate_by(&up.url(), format!("socks5://{at}"), "").get(INFO).body, module().info());
    assert_eq!(proxy.asked(), [by_name(&up).replace("http://", ""), up.address.clone()]);
    // socks5 looks names up here, where this one is not known.
    let answer = gate_by(&by_name(&up), format!("socks5://{at}"), "").get(INFO);
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("cannot resolve mod.test"), "{}", answer.text());
    proxy.now(Manner::Socks(Some(("me".into(), "sesame".into()))));
    assert_eq!(gate_by(&by_name(&up), format!("socks5h://me:sesame@{at}"), "").get(INFO).body, module().info());
    for (proxy, wanted) in [
        (format!("socks5h://me:open@{at}"), "does not accept the user and password"),
        (format!("socks5h://{at}"), "wants another way to log in"),
    ] {
        let answer = gate_by(&by_name(&up), proxy, "").get(INFO);
        assert_eq!(answer.status, 502);
        let text = answer.text();
        assert!(text.contains(wanted) && text.contains(&format!("socks5h://{at}")) && !text.contains("open"), "{text}");
    }
    proxy.now(Manner::Socks(None));
    let closed = format!("http://mod.test:{}", free_port());
    let text = gate_by(&closed, format!("socks5h://{at}"), "").get(INFO).text();
    assert!(text.contains("Connection refused") && text.contains("does not lead to mod.test"), "{text}");
}

#[test]
fn a_proxy_that_fails_is_named_with_what_it_said_at_every_stage() {
    let says = |status: &str| Manner::Says(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"));
    let ntlm = "HTTP/1.1 407 X\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n";
    // What the proxy does, the status, and the words.
    let table = [
        (says("403 Forbidden"), 502, "does not lead to mod.test:443: 403 Forbidden"),
        (Manner::Says(ntlm.into()), 502, "407 Proxy Authentication Required (it offers NTLM; modgate knows Basic)"),
        (says("502 Bad Gateway"), 502, "502 Bad Gateway"),
        (Manner::Closes, 502, "closed the connection without an answer to CONNECT"),
        (Manner::Says("SSH-2.0-x\r\n\r\n".into()), 502, "is not HTTP"),
        (Manner::Stalls, 504, "to lead to mod.test:443 took longer than its limit (connect)"),
        (Manner::AgreesThen(Vec::new()), 504, "TLS with mod.test:443 took longer than its limit (connect)"),
        // A fatal alert: handshake_failure.
        (
            Manner::AgreesThen(vec![21, 3, 3, 0, 2, 2, 40]),
            502,
            "TLS with mod.test:443 failed: it ended the handshake with the TLS alert HandshakeFailure",
        ),
        (Manner::AgreesThen(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), 502, "it does not speak TLS on this port"),
    ];
    for (manner, status, wanted) in table {
        let proxy = FakeProxy::start(manner.clone());
        let gate = gate(
            "https://mod.test",
            &format!("proxy = \"http://me:sesame@{}\"\nconnect = \"400ms\"\nabsent = [403, 404, 407]", proxy.address),
        );
        let answer = gate.get(INFO);
        let text = answer.text();
        assert_eq!(answer.status, status, "{manner:?}: {text}");
        assert!(text.contains(wanted) && !text.contains("sesame"), "{manner:?}: {text}");
        if text.contains("proxy") {
            assert!(text.contains(&format!("http://{}", proxy.address)), "{text}");
        }
        assert!(proxy.asked()[0].starts_with("CONNECT mod.test:443 HTTP/1.1\r\nHost: mod.test:443\r\n"), "{:?}", proxy.asked());
    }
    let down = format!("127.0.0.1:{}", free_port());
    for url in ["https://mod.test", "http://mod.test"] {
        let answer = gate(url, &format!("proxy = \"http://{down}\"")).get(INFO);
        let wanted = format!("the proxy http://{down} cannot be used: cannot connect to {down}: Connection refused");
        assert!(answer.status == 502 && answer.text().contains(&wanted), "{}", answer.text());
    }
}

#[test]
fn what_a_proxy_says_is_not_taken_for_the_upstreams_word() {
    let head = "Content-Length: 2\r\n";
    let table = [
        (format!("HTTP/1.1 407 X\r\n{head}\r\nno"), "407 Proxy Authentication Required"),
        (format!("HTTP/1.1 403 X\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\n{head}\r\nno"), "403 Forbidden"),
        (format!("HTTP/1.1 404 X\r\nProxy-Status: p; error=dns_error\r\n{head}\r\nno"), "404 Not Found"),
    ];
    for (said, wanted) in table {
        let proxy = FakeProxy::start(Manner::Says(said));
        let gate = gate("http://mod.test", &format!("proxy = \"http://{}\"\nabsent = [403, 404, 407]", proxy.address));
        let answer = gate.get(INFO);
        let text = answer.text();
        assert!(
            answer.status == 502
                && text.contains(&format!("the proxy http://{} does not lead to mod.test:80: {wanted}", proxy.address)),
            "{text}"
        );
    }
    let proxy = FakeProxy::start(Manner::Says(format!("HTTP/1.1 504 X\r\n{head}\r\nno")));
    let text = gate("http://mod.test", &format!("proxy = \"http://{}\"", proxy.address)).get(INFO).text();
    assert!(text.contains("504 Gateway Timeout (through the proxy"), "{text}");
}

#[test]
fn interrupted_zips_are_resumed_and_only_by_the_same_bytes() {
    let module = module().bulk(1_000_000);
    let (zip, path) = (module.zip(), module.url("zip"));
    let up = Upstream::serving(&[module]);
    // Reset at every tenth.
    up.set(&path, Reply::Ranged(zip.clone(), "\"one\"".into(), zip.len() / 10 + 1));
    let all = gate(&up.url(), "retries = 2");
    let answer = all.get(&path);
    assert!(answer.whole && answer.body == zip, "{} of {} bytes\n{}", answer.body.len(), zip.len(), all.log());
    let ranges: Vec<_> = up
        .heads()
        .iter()
        .filter_map(|h| h.lines().find(|l| l.to_ascii_lowercase().starts_with("range:")).map(str::to_owned))
        .collect();
    assert_eq!(ranges.len(), 9, "{ranges:?}");
    assert_eq!(up.heads().iter().filter(|h| h.contains("\"one\"")).count(), 9, "each with If-Range");
    eventually("it is stored", || !all.get(&path).header("etag").is_empty());
    // Another body behind the same name: what came cannot be continued, and nothing is kept or passed for whole.
    let mut other = zip.clone();
    other[0] ^= 1;
    let half = || Box::new(Reply::Ranged(zip.clone(), "\"one\"".into(), zip.len() / 2));
    // The last one does not heed If-Range.
    let careless = Reply::Careless(other.clone(), "\"two\"".into());
    for second in [Reply::Ranged(other, "\"two\"".into(), usize::MAX), Reply::Status(404), Reply::Good(zip.clone()), careless] {
        up.forget();
        up.set(&path, Reply::InTurn(vec![*half(), second.clone()]));
        let one = gate(&up.url(), "retries = 2");
        let answer = one.get(&path);
        assert!(!answer.whole, "{second:?}");
        eventually("the log says it", || one.log().contains("could not be resumed"));
        assert_eq!(up.count(&path), 2);
    }
    // Without a validator, and without repetitions, nothing is continued.
    up.forget();
    up.set(&path, Reply::Reset(zip.clone(), zip.len() / 2));
    assert!(!gate(&up.url(), "retries = 2").get(&path).whole);
    up.set(&path, *half());
    assert!(!gate(&up.url(), "retries = 0").get(&path).whole);
    assert_eq!(up.count(&path), 2);
}

#[test]
fn what_may_pass_is_asked_again_and_nothing_else() {
    let good = || Reply::Good(module().info());
    let in_turn = |first: Reply| Reply::InTurn(vec![first, good()]);
    // The first reply, the status, and how often the upstream is asked.
    let table = [
        (Reply::Status(500), 200, 2),
        (Reply::Status(502), 200, 2),
        (Reply::Close, 200, 2),
        (Reply::Truncate(module().info(), 5), 200, 2),
        (Reply::Reset(module().info(), 5), 200, 2),
        (Reply::Full(429, vec![("Retry-After".into(), "1".into())], Vec::new()), 200, 2),
        (Reply::Status(404), 404, 1),
        (Reply::Status(403), 502, 1),
        (Reply::Status(429), 502, 1),
        (Reply::Hang, 504, 1),
        (Reply::Good(b"nonsense".to_vec()), 502, 1),
    ];
    for (first, status, count) in table {
        let up = Upstream::start();
        up.set(INFO, in_turn(first.clone()));
        let gate = gate(&up.url(), "retries = 2\nfirst_byte = \"400ms\"");
        assert_eq!(gate.get(INFO).status, status, "{first:?}");
        assert_eq!(up.count(INFO), count, "{first:?}");
    }
    // A dead upstream sees a tenth more requests and not three times as many.
    let dead = Upstream::always(Reply::Status(500));
    let gate = gate(&dead.url(), "retries = 2");
    for n in 0..200 {
        assert_eq!(gate.get(&format!("/example.com/m{n}/@v/v1.0.0.mod")).status, 502);
    }
    assert!((210..=245).contains(&dead.asked().len()), "{}", dead.asked().len());
}

#[test]
fn an_upstream_sees_as_many_requests_as_its_limit_allows_and_nobody_starves() {
    let up = Upstream::always(Reply::Good(b"v1.0.0\n".to_vec()));
    let cached = up.clone();
    let limit = "rate_limit = { requests = 50, per = \"1s\", burst = 5, max_wait = \"300ms\" }";
    let gate = gate(&up.url(), limit);
    assert_eq!(gate.get("/example.com/hit/@v/list").status, 200);
    cached.forget();
    let deadline = Instant::now() + Duration::from_secs(3);
    let address = gate.address.clone();
    // Twenty askers at once, who come again as soon as they have an answer: some ten times the limit.
    let askers: Vec<_> = (0..20)
        .map(|asker| {
            let address = address.clone();
            std::thread::spawn(move || {
                let (mut served, mut refused) = (0, 0);
                for n in 0.. {
                    if Instant::now() > deadline {
                        break;
                    }
                    let answer = http::get(&address, &format!("/example.com/a{asker}/n{n}/@v/list"));
                    match answer.status {
                        200 => served += 1,
                        502 if answer.text().contains("its rate_limit of 50 in 1000 ms is used up") => refused += 1,
                        other => panic!("{other}: {}", answer.text()),
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                (served, refused)
            })
        })
        .collect();
    // A hit is not limited.
    let hits: Vec<_> = (0..200).map(|_| gate.get("/example.com/hit/@v/list").status).collect();
    assert!(hits.iter().all(|status| *status == 200));
    let got: Vec<(usize, usize)> = askers.into_iter().map(|a| a.join().unwrap()).collect();
    assert!(got.iter().all(|(served, _)| *served >= 2), "somebody starves: {got:?}");
    assert!(got.iter().map(|(_, refused)| refused).sum::<usize>() > 100, "the load was no load: {got:?}");
    let times = up.times();
    let millis = (times[times.len() - 1] - times[1]).as_millis();
    // The burst comes on top in the first moment: 5 in 3 seconds.
    let rate = (times.len() - 1) as u128 * 1000 / millis;
    assert!((47..=54).contains(&rate), "{rate} requests in a second");
}

#[test]
fn one_that_gets_no_turn_is_busy_and_the_chain_goes_on() {
    let (first, second) = (Upstream::serving(&[module()]), Upstream::serving(&[module()]));
    let limited = "rate_limit = { requests = 1, per = \"1h\", max_wait = \"0\" }";
    let tables = upstream("first", &first.url(), limited) + &upstream("second", &second.url(), "");
    let gate = Gate::start(&(tables + &route("*", &["first", "second"], "fallback = [\"absent\", \"busy\"]")));
    for part in ["mod", "info", "zip"] {
        assert_eq!(gate.get(&module().url(part)).status, 200);
    }
    assert_eq!((first.asked().len(), second.asked().len() >= 2), (1, true));
}

#[test]
fn so_many_at_once_and_no_more() {
    let up = Upstream::always(Reply::After(Duration::from_millis(150), Box::new(Reply::Good(b"v1.0.0\n".to_vec()))));
    let gate = gate(&up.url(), "max_concurrent = 3\nmax_wait = \"10s\"");
    let askers: Vec<_> = (0..12)
        .map(|n| {
            let address = gate.address.clone();
            std::thread::spawn(move || http::get(&address, &format!("/example.com/m{n}/@v/list")).status)
        })
        .collect();
    assert!(askers.into_iter().all(|a| a.join().unwrap() == 200));
    // Within any 140 ms there were three at the most.
    let times = up.times();
    assert!(times.windows(4).all(|w| w[3] - w[0] > Duration::from_millis(140)), "{times:?}");
}

#[test]
fn an_upstream_that_asks_to_be_left_alone_is_left_alone() {
    let up = Upstream::always(Reply::Full(429, vec![("Retry-After".into(), "3".into())], Vec::new()));
    let gate = gate(&up.url(), "max_wait = \"100ms\"\nretries = 2");
    let first = gate.get(INFO);
    assert_eq!((first.status, first.header("retry-after")), (502, "3"));
    up.otherwise(Reply::Status(404));
    for n in 0..5 {
        let answer = gate.get(&format!("/example.com/m{n}/@v/v1.0.0.mod"));
        assert!(
            answer.status == 502 && answer.text().contains("not asked: it asked by 429 to be left alone for"),
            "{}",
            answer.text()
        );
        assert!(["1", "2", "3"].contains(&answer.header("retry-after")), "{:?}", answer.headers);
    }
    let explained = http::get(&gate.admin, "/-/explain?module=example.com/m").text();
    assert!(explained.contains("\"state\": \"paused for"), "{explained}");
    assert_eq!(up.asked().len(), 1);
    eventually("the pause ends", || gate.get("/example.com/after/@v/v1.0.0.mod").status == 404);
    eventually("the log says so", || gate.log().contains("answers again after its pause"));
    assert_eq!(gate.log().matches("is paused").count(), 1);
}

#[test]
fn the_next_upstream_is_asked_when_the_first_is_late_and_a_late_one_is_left_alone() {
    let modules: Vec<Module> = (0..30).map(|n| Module::new("example.com/m", &format!("v1.0.{n}")).bulk(100_000)).collect();
    let (first, second) = (Upstream::always(Reply::Hang), Upstream::serving(&modules));
    let tables = upstream("first", &first.url(), "first_byte = \"2s\"") + &upstream("second", &second.url(), "");
    let gate = Gate::start(&(tables + &route("*", &["first", "second"], "fallback = \"any-error\"\nhedge_after = \"200ms\"")));
    let mut late = 0;
    for module in &modules {
        let started = Instant::now();
        let answer = gate.get(&module.url("zip"));
        assert!(answer.whole && answer.body == module.zip());
        late += usize::from(started.elapsed() >= Duration::from_millis(200));
    }
    // Two in a row are waited for, then it is suspect. A machine that stands still for a moment may make another one late.
    assert!((2..=6).contains(&late), "{late}");
    // Those, and a scout a second.
    assert!(first.asked().len() <= 2 + 8, "{:?}", first.asked());
    // A branch too; and the first one that answers in time is taken.
    let (first, second) = (Upstream::start(), Upstream::start());
    let tables = upstream("first", &first.url(), "") + &upstream("second", &second.url(), "");
    let gate = Gate::start(&(tables + &route("*", &["first", "second"], "fallback = \"any-error\"\nhedge_after = \"200ms\"")));
    first.set(INFO, Reply::Good(module().info()));
    assert_eq!(gate.get(INFO).status, 200);
    assert_eq!(second.count(INFO), 0);
    for branch in ["one", "two", "three", "four"].map(|name| format!("/example.com/m/@v/{name}.info")) {
        first.set(&branch, Reply::Hang);
        second.set(&branch, Reply::Good(module().info()));
        assert_eq!(gate.get(&branch).body, module().info());
    }
    // It is suspect now, and its scout out there. What nobody else has it is asked for all the same.
    let only = Module::new("example.com/only", "v1.0.0");
    for part in ["info", "mod"] {
        let body = if part == "info" { only.info() } else { only.go_mod.clone().into_bytes() };
        first.set(&only.url(part), Reply::Good(body));
        assert_eq!(gate.get(&only.url(part)).status, 200, "{}", gate.log());
    }
    first.set("/example.com/only/@v/dev.info", Reply::Good(only.info()));
    assert_eq!(gate.get("/example.com/only/@v/dev.info").status, 200);
}

#[test]
fn a_late_private_upstream_lets_nothing_out_that_its_outage_would_not() {
    let late = Reply::After(Duration::from_millis(300), Box::new(Reply::Status(403)));
    let (private, public) = (Upstream::always(late), Upstream::serving(&[module()]));
    let tables = upstream("private", &private.url(), "private = true") + &upstream("public", &public.url(), "");
    let table = [
        // What is late may be gone round, and so may a refusal.
        ("fallback = \"any-error\"\nhedge_after = \"100ms\"", 200, true),
        ("fallback = [\"absent\", \"denied\"]", 200, true),
        ("", 502, false),
    ];
    for (rule, status, asked) in table {
        public.forget();
        let gate = Gate::start(&(tables.clone() + &route("*", &["private", "public"], rule)));
        assert_eq!(gate.get(INFO).status, status, "{rule}");
        assert_eq!(!public.asked().is_empty(), asked, "{rule}");
    }
    // A route that stops at an outage cannot hedge, and says so.
    let dir = tempfile::tempdir().unwrap();
    let text = tables + &route("*", &["private", "public"], "hedge_after = \"100ms\"");
    std::fs::write(dir.path().join("m.toml"), text).unwrap();
    let output = program().arg("check").arg("--config").arg(dir.path().join("m.toml")).env("HOME", dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("routes[0].hedge_after: needs a fallback that goes on after an outage"),
        "{said}"
    );
}

#[test]
fn a_slow_upstream_is_overtaken_and_not_switched_off() {
    let modules: Vec<Module> = (0..12).map(|n| Module::new("example.com/m", &format!("v1.0.{n}"))).collect();
    let (first, second) = (Upstream::start(), Upstream::serving(&modules));
    for module in &modules {
        first.set(&module.url("info"), Reply::After(Duration::from_millis(250), Box::new(Reply::Good(module.info()))));
    }
    let alone = Module::new("alone.example/m", "v1.0.0");
    first.set(&alone.url("info"), Reply::Good(alone.info()));
    let tables = upstream("first", &first.url(), "breaker = { failures = 2 }") + &upstream("second", &second.url(), "");
    let routes = route("alone.example", &["first"], "")
        + &route("*", &["first", "second"], "fallback = \"any-error\"\nhedge_after = \"100ms\"");
    let gate = Gate::start(&(tables + &routes));
    for module in &modules {
        assert_eq!(gate.get(&module.url("info")).status, 200);
    }
    assert_eq!(gate.get(&alone.url("info")).status, 200);
    assert!(!gate.log().contains("the circuit breaker opened"), "{}", gate.log());
}

#[test]
fn a_breaker_closes_by_what_it_is_there_for() {
    // It has its own modules and cannot say anything about the world's.
    let up = Upstream::always(Reply::Status(503));
    let gate = gate(&up.url(), "breaker = { failures = 2, open_for = \"1h\" }");
    for n in 0..3 {
        assert_eq!(gate.get(&format!("/example.com/x{n}/@v/v1.0.0.info")).status, 502);
    }
    assert!(gate.log().contains("the circuit breaker opened"), "{}", gate.log());
    // There is nobody else, so the first requests after the outage find its end, all of those that come at once.
    let modules: Vec<Module> = (0..40).map(|n| Module::new("example.com/back", &format!("v1.0.{n}"))).collect();
    for module in &modules {
        up.set(&module.url("info"), Reply::Good(module.info()));
    }
    let answers: Vec<_> = std::thread::scope(|scope| {
        let askers: Vec<_> = modules.iter().map(|m| scope.spawn(|| gate.get(&m.url("info")).status)).collect();
        askers.into_iter().map(|a| a.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    assert!(gate.log().contains("the circuit breaker closed"), "{}", gate.log());
}

#[test]
fn a_reader_that_goes_away_gives_its_place_back_and_ends_the_fetch() {
    let module = module().bulk(3_000_000);
    let up = Upstream::serving(std::slice::from_ref(&module));
    let path = module.url("zip");
    // A list that is larger than lists are: it is given up long before its end, which does not come.
    up.set("/example.com/list/@v/list", Reply::Stall(vec![b'x'; 6 << 20], 5 << 20));
    let gate = gate(&up.url(), "max_concurrent = 1\nidle = \"20s\"");
    let started = Instant::now();
    assert_eq!(gate.get("/example.com/list/@v/list").status, 502);
    assert!(gate.get(&path).whole && started.elapsed() < Duration::from_secs(10));
}

/// An upstream that sends an early hint before the go.mod of each module under `hinted.example`, and the go.mod only after a while.
/// Each go.mod names its module.
fn hinting(interim: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                while let Some(first) = lines.next() {
                    lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
                    let module = first.trim_start_matches("GET /").split("/@v/").next().unwrap().to_owned();
                    if module.starts_with("hinted.example") {
                        stream.write_all(interim.as_bytes()).unwrap();
                        std::thread::sleep(Duration::from_millis(300));
                    }
                    let body = format!("module {module}\n");
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
                }
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn an_interim_answer_is_not_the_answer_nor_is_its_answer_another_modules() {
    for interim in
        ["HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 \r\n\r\n"]
    {
        let gate = gate(&hinting(interim), "");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let gate = &gate;
                scope.spawn(move || {
                    for name in [format!("hinted.example/m{n}"), format!("plain.example/m{n}")] {
                        let answer = gate.get(&format!("/{name}/@v/v1.0.0.mod"));
                        assert_eq!((answer.status, answer.text()), (200, format!("module {name}\n")));
                    }
                });
                std::thread::sleep(Duration::from_millis(70));
            }
        });
    }
}

#[test]
fn a_protocol_that_nobody_asked_for_is_an_outage() {
    let gate = gate(&hinting("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"), "");
    let answer = gate.get("/hinted.example/m/@v/v1.0.0.mod");
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("protocol that was not asked for"), "{}", answer.text());
    assert_eq!(gate.get("/plain.example/m/@v/v1.0.0.mod").text(), "module plain.example/m\n");
}

#[test]
fn what_is_sent_is_asked_for_without_an_encoding() {
    let up = Upstream::serving(&[module()]);
    assert_eq!(gate(&up.url(), "").get(INFO).status, 200);
    assert!(up.heads()[0].to_ascii_lowercase().contains("\r\naccept-encoding: identity\r\n"), "{}", up.heads()[0]);
}

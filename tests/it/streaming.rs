//! Zips on their way: one fetch for many, bytes as they arrive, whole bodies or broken ones, ranges, and hits that wait for nobody.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::http::{Answer, get, open, read_answer, request};
use crate::support::modules::Module;
use crate::support::upstream::{Reply, Upstream};

const MB: usize = 1 << 20;

fn gate(up: &Upstream) -> Gate {
    Gate::start(&(upstream("u", &up.url(), "idle = \"1s\"\nfirst_byte = \"2s\"") + &route("*", &["u"], "")))
}

fn large(version: &str) -> Module {
    Module::new("example.com/large", version).bulk(3 * MB)
}

fn many(gate: &Gate, path: &str, count: usize) -> Vec<Answer> {
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let (address, path) = (gate.address.clone(), path.to_owned());
            thread::spawn(move || get(&address, &path))
        })
        .collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

#[test]
fn one_fetch_for_many_askers_and_bytes_as_they_arrive() {
    let (up, module) = (Upstream::start(), large("v1.0.0"));
    let zip = module.zip();
    // About two seconds, in steps.
    up.set(&module.url("zip"), Reply::Slow(zip.clone(), 100_000, Duration::from_millis(60)));
    let gate = gate(&up);
    let answers = many(&gate, &module.url("zip"), 64);
    assert_eq!(up.count(&module.url("zip")), 1);
    for answer in &answers {
        assert!(answer.whole && answer.body == zip);
        assert!(answer.first_byte_after.unwrap() < Duration::from_millis(1200), "{:?}", answer.first_byte_after);
    }
    assert_eq!(get(&gate.address, &module.url("zip")).body, zip);
    assert_eq!(up.count(&module.url("zip")), 1);
}

#[test]
fn one_fetch_for_many_askers_of_a_small_file() {
    let (up, module) = (Upstream::start(), Module::new("example.com/m", "v1.0.0"));
    up.set(&module.url("mod"), Reply::After(Duration::from_millis(300), Box::new(Reply::Good(module.go_mod.clone().into_bytes()))));
    up.set("/example.com/m/@v/list", Reply::After(Duration::from_millis(300), Box::new(Reply::Good(b"v1.0.0\n".to_vec()))));
    let gate = gate(&up);
    for path in [module.url("mod"), "/example.com/m/@v/list".to_owned()] {
        assert!(many(&gate, &path, 40).iter().all(|a| a.status == 200 && a.whole));
        assert_eq!(up.count(&path), 1);
    }
}

#[test]
fn a_failed_fetch_fails_them_all_with_the_same_reason() {
    let up = Upstream::always(Reply::After(Duration::from_millis(400), Box::new(Reply::Status(500))));
    let gate = gate(&up);
    let answers = many(&gate, "/example.com/m/@v/v1.0.0.zip", 20);
    assert_eq!(up.asked().len(), 1);
    let first_lines: std::collections::HashSet<String> =
        answers.iter().map(|a| a.text().lines().map(|l| l.split(" (").next().unwrap().to_owned()).collect()).collect();
    assert!(answers.iter().all(|a| a.status == 502));
    assert_eq!(first_lines.len(), 1, "{first_lines:?}");
}

#[test]
fn a_leaving_client_stops_nobody() {
    let (up, module) = (Upstream::start(), large("v1.0.0"));
    let zip = module.zip();
    up.set(&module.url("zip"), Reply::Slow(zip.clone(), 200_000, Duration::from_millis(50)));
    let gate = gate(&up);
    // The first asker, who starts the fetch, leaves after a moment.
    let mut leaver = open(&gate.address);
    write!(leaver, "GET {} HTTP/1.1\r\nHost: x\r\n\r\n", module.url("zip")).unwrap();
    thread::sleep(Duration::from_millis(150));
    let address = gate.address.clone();
    let path = module.url("zip");
    let stayer = thread::spawn(move || get(&address, &path));
    thread::sleep(Duration::from_millis(100));
    drop(leaver);
    let answer = stayer.join().unwrap();
    assert!(answer.whole && answer.body == zip);
    assert_eq!(up.count(&module.url("zip")), 1);
}

#[test]
fn a_broken_off_zip_is_never_whole_and_never_kept() {
    let up = Upstream::start();
    let gate = gate(&up);
    let faults: [fn(Vec<u8>, usize) -> Reply; 4] = [Reply::Truncate, Reply::TruncateChunked, Reply::Reset, Reply::Stall];
    for (n, fault) in faults.into_iter().enumerate() {
        let module = large(&format!("v1.0.{n}"));
        let zip = module.zip();
        up.set(&module.url("zip"), fault(zip.clone(), 2 * MB));
        let answer = gate.get(&module.url("zip"));
        assert!(!answer.whole && answer.body.len() < zip.len(), "fault {n}: {} bytes, whole {}", answer.body.len(), answer.whole);
        assert!(zip.starts_with(&answer.body));
        assert!(!gate.cache("u").join(format!("example.com/large/@v/v1.0.{n}.zip")).exists());
        // Once it is well, so is the answer.
        up.set(&module.url("zip"), Reply::Good(zip.clone()));
        eventually("the zip is whole", || gate.get(&module.url("zip")).body == zip);
    }
}

#[test]
fn a_small_broken_zip_lets_the_chain_go_on() {
    let module = Module::new("example.com/small", "v1.0.0").bulk(20_000);
    let zip = module.zip();
    let good = Upstream::serving(std::slice::from_ref(&module));
    let other = Module::new("example.com/other", "v1.0.0").zip();
    let mut flipped = zip.clone();
    let middle = flipped.len() - 30;
    flipped[middle] ^= 0xff;
    for reply in [
        Reply::Truncate(zip.clone(), 5000),
        Reply::TruncateChunked(zip.clone(), 5000),
        Reply::Good(zip[..zip.len() / 2].to_vec()),
        Reply::Good(other),
        Reply::Good(b"<html>".to_vec()),
        Reply::Good(flipped),
        Reply::Full(200, vec![("Content-Encoding".into(), "gzip".into())], zip.clone()),
    ] {
        let bad = Upstream::always(reply.clone());
        let tables = upstream("bad", &bad.url(), "") + &upstream("good", &good.url(), "");
        let gate = Gate::start(&(tables + &route("*", &["bad", "good"], "fallback = \"any-error\"")));
        let answer = gate.get(&module.url("zip"));
        assert!(answer.whole && answer.body == zip, "{}", answer.status);
        eventually("it is kept", || gate.cache("good").join("example.com/small/@v/v1.0.0.zip").is_file());
        assert!(!gate.cache("bad").join("example.com/small/@v/v1.0.0.zip").exists());
    }
}

#[test]
fn a_zip_of_the_wrong_shape_is_held_back() {
    // Larger than what is held back, so its readers begin before it can be checked.
    let wrong = Module::new("example.com/other", "v1.0.0").bulk(MB).zip();
    let up = Upstream::always(Reply::Good(wrong.clone()));
    let gate = gate(&up);
    let answer = gate.get("/example.com/large/@v/v1.0.0.zip");
    assert!(!answer.whole && answer.body.len() < wrong.len());
    assert!(!gate.cache("u").join("example.com/large/@v/v1.0.0.zip").exists());
    eventually("the log says why", || gate.log().contains("not a module zip of example.com/large@v1.0.0"));
}

#[test]
fn a_chunked_zip_without_a_length_arrives_whole() {
    let (up, module) = (Upstream::start(), large("v1.0.0"));
    up.set(&module.url("zip"), Reply::Chunked(module.zip()));
    let gate = gate(&up);
    let answer = gate.get(&module.url("zip"));
    assert!(answer.whole && answer.body == module.zip());
    assert_eq!(answer.header("transfer-encoding"), "chunked");
}

#[test]
fn stored_zips_have_validators_ranges_and_heads() {
    let small = Module::new("example.com/small", "v1.0.0");
    let up = Upstream::serving(&[large("v1.0.0"), small.clone()]);
    let gate = gate(&up);
    for module in [large("v1.0.0"), small] {
        let (path, zip) = (module.url("zip"), module.zip());
        let ask = |headers: &[(&str, &str)]| request(&gate.address, "GET", &path, headers);
        assert!(gate.get(&path).body == zip);
        eventually("it is stored", || gate.get(&path).headers.contains_key("etag"));
        // From disk, then from memory or an open file.
        for _ in 0..3 {
            let whole = gate.get(&path);
            assert!(whole.whole && whole.body == zip && whole.header("content-length") == zip.len().to_string());
            let etag = whole.header("etag").to_owned();
            let part = ask(&[("Range", "bytes=100-199")]);
            assert_eq!((part.status, part.body.as_slice()), (206, &zip[100..200]));
            assert_eq!(part.header("content-range"), format!("bytes 100-199/{}", zip.len()));
            assert_eq!(ask(&[("Range", "bytes=-50")]).body, zip[zip.len() - 50..]);
            assert_eq!(ask(&[("Range", "bytes=100-"), ("If-Range", &etag)]).body, zip[100..]);
            assert_eq!(ask(&[("Range", "bytes=100-"), ("If-Range", "\"other\"")]).body, zip);
            let outside = ask(&[("Range", "bytes=99999999-")]);
            assert_eq!((outside.status, outside.header("content-range").to_owned()), (416, format!("bytes */{}", zip.len())));
            assert_eq!(ask(&[("Range", "bytes=0-1,5-6")]).status, 200);
            let known = ask(&[("If-None-Match", &format!("\"x\", {etag}"))]);
            assert_eq!((known.status, known.body.len()), (304, 0));
            let head = request(&gate.address, "HEAD", &path, &[]);
            assert_eq!((head.status, head.header("content-length").to_owned(), head.body.len()), (200, zip.len().to_string(), 0));
        }
    }
}

#[test]
fn pipelined_and_kept_connections_stay_in_step() {
    let (module, small) = (large("v1.0.0"), Module::new("example.com/small", "v1.0.0"));
    let up = Upstream::serving(&[module.clone(), small.clone()]);
    let gate = gate(&up);
    for path in [module.url("zip"), small.url("mod")] {
        gate.get(&path);
    }
    eventually("it is stored", || gate.get(&module.url("zip")).headers.contains_key("etag"));
    // Several requests in one packet, files and small answers in turn; the last one closes.
    let mut stream = open(&gate.address);
    let (file, text) = (module.url("zip"), small.url("mod"));
    let mut wanted = Vec::new();
    let mut requests = String::new();
    for n in 0..6 {
        let (path, body) = if n % 2 == 0 { (&file, module.zip()) } else { (&text, small.go_mod.clone().into_bytes()) };
        let close = if n == 5 { "Connection: close\r\n" } else { "" };
        requests = format!("{requests}GET {path} HTTP/1.1\r\nHost: x\r\n{close}\r\n");
        wanted.push(body);
    }
    stream.write_all(requests.as_bytes()).unwrap();
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut all).unwrap();
    let mut rest = all.as_slice();
    for body in &wanted {
        let end = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200") && head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(rest[end..].starts_with(body));
        rest = &rest[end + body.len()..];
    }
    assert!(rest.is_empty());
    // A client that leaves in the middle of a file leaves nothing behind for the next one.
    for _ in 0..20 {
        let mut leaver = open(&gate.address);
        write!(leaver, "GET {file} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let _ = std::io::Read::read(&mut leaver, &mut [0; 1000]);
    }
    let old = read_answer(
        {
            let mut stream = open(&gate.address);
            write!(stream, "GET {file} HTTP/1.0\r\n\r\n").unwrap();
            stream
        },
        false,
    );
    assert!(old.whole && old.body == module.zip());
}

#[test]
fn a_hit_does_not_wait_behind_cold_fetches() {
    let (up, module) = (Upstream::serving(&[Module::new("example.com/m", "v1.0.0")]), Module::new("example.com/m", "v1.0.0"));
    let gate = gate(&up);
    assert_eq!(gate.get(&module.url("mod")).status, 200);
    up.otherwise(Reply::Hang);
    let gate = Arc::new(gate);
    let waiting: Vec<_> = (0..100)
        .map(|n| {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.get(&format!("/example.com/cold{n}/@v/v1.0.0.zip")).status)
        })
        .collect();
    eventually("the fetches hang", || up.asked().len() > 100);
    for _ in 0..20 {
        let started = Instant::now();
        assert_eq!(gate.get(&module.url("mod")).status, 200);
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    }
    assert!(waiting.into_iter().all(|t| t.join().unwrap() == 504));
}

#[test]
fn too_many_cold_fetches_are_refused_and_hits_are_served() {
    let (up, module) = (Upstream::serving(&[Module::new("example.com/m", "v1.0.0")]), Module::new("example.com/m", "v1.0.0"));
    let gate = Gate::start(&(upstream("u", &up.url(), "first_byte = \"2s\"") + &route("*", &["u"], "")));
    assert_eq!(gate.get(&module.url("mod")).status, 200);
    up.otherwise(Reply::Hang);
    let waiting: Vec<_> = (0..1100)
        .map(|n| {
            let mut stream = open(&gate.address);
            write!(stream, "GET /example.com/cold{n}/@v/v1.0.0.zip HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            stream
        })
        .collect();
    let answers: Vec<Answer> = waiting.into_iter().map(|stream| read_answer(stream, false)).collect();
    let refused: Vec<_> = answers.iter().filter(|a| a.status == 503).collect();
    assert_eq!(refused.len(), 1100 - 1024, "as many as are allowed go on");
    assert!(refused.iter().all(|a| a.header("retry-after") == "1" && a.text().contains("too many fetches")));
    assert_eq!(gate.get(&module.url("mod")).status, 200);
}

#[test]
fn memory_stays_flat_with_slow_readers_of_a_large_zip() {
    let module = Module::new("example.com/huge", "v1.0.0").bulk(60 * MB);
    let zip = module.zip();
    let sum = Sha256::digest(&zip);
    let up = Upstream::start();
    up.set(&module.url("zip"), Reply::Good(zip.clone()));
    let gate = gate(&up);
    let rss = || {
        let status = fs::read_to_string(format!("/proc/{}/status", gate.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
    };
    // Cold, so that the readers follow the fetch; most of them take a little and then stand still.
    let mut slow: Vec<_> = (0..64)
        .map(|_| {
            let mut stream = open(&gate.address);
            write!(stream, "GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", module.url("zip")).unwrap();
            std::io::Read::read(&mut stream, &mut [0; 100]).unwrap();
            stream
        })
        .collect();
    let whole = gate.get(&module.url("zip"));
    assert!(whole.whole && Sha256::digest(&whole.body) == sum);
    let cold = rss();
    // Warm: the same from the stored file.
    slow.clear();
    eventually("it is stored", || request(&gate.address, "HEAD", &module.url("zip"), &[]).headers.contains_key("etag"));
    let slow: Vec<_> = (0..64)
        .map(|_| {
            let mut stream = open(&gate.address);
            write!(stream, "GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", module.url("zip")).unwrap();
            std::io::Read::read(&mut stream, &mut [0; 100]).unwrap();
            stream
        })
        .collect();
    assert!(Sha256::digest(&gate.get(&module.url("zip")).body) == sum);
    let warm = rss();
    assert_eq!((up.count(&module.url("zip")), slow.len()), (1, 64));
    assert!(cold < 120 && warm < 120, "a debug build; {cold} MB cold, {warm} MB warm, for 64 readers of 60 MB");
}

#[test]
fn heads_and_gets_sent_ahead_are_answered_each_in_its_turn() {
    let (module, small) = (large("v1.0.0"), Module::new("example.com/small", "v1.0.0"));
    let up = Upstream::serving(&[module.clone(), small.clone()]);
    up.set("/example.com/slow/@v/list", Reply::After(Duration::from_millis(200), Box::new(Reply::Good(b"v1.0.0\n".to_vec()))));
    let gate = gate(&up);
    gate.get(&module.url("zip"));
    eventually("it is stored", || request(&gate.address, "HEAD", &module.url("zip"), &[]).headers.contains_key("etag"));
    let (zip, list) = (module.url("zip"), "/example.com/slow/@v/list".to_owned());
    let order = [
        ("GET", &zip),
        ("HEAD", &zip),
        ("GET", &list),
        ("HEAD", &list),
        ("HEAD", &zip),
        ("GET", &zip),
        ("HEAD", &list),
        ("GET", &list),
    ];
    let mut requests = String::new();
    for (n, (method, path)) in order.iter().enumerate() {
        let close = if n + 1 == order.len() { "Connection: close\r\n" } else { "" };
        requests = format!("{requests}{method} {path} HTTP/1.1\r\nHost: x\r\n{close}\r\n");
    }
    let mut stream = open(&gate.address);
    stream.write_all(requests.as_bytes()).unwrap();
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut all).unwrap();
    let mut rest = all.as_slice();
    for (method, path) in order {
        let body = if *path == zip { module.zip() } else { b"v1.0.0\n".to_vec() };
        let end = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
        assert!(
            head.starts_with("http/1.1 200") && head.contains(&format!("content-length: {}\r\n", body.len())),
            "{method} {path}: {head}"
        );
        rest = &rest[end..];
        if method == "GET" {
            assert!(rest.starts_with(&body), "{method} {path}");
            rest = &rest[body.len()..];
        }
    }
    assert!(rest.is_empty());
}

#[test]
fn one_fetch_even_where_it_ends_at_once() {
    let modules: Vec<Module> = (0..60).map(|n| Module::new("example.com/m", &format!("v1.0.{n}"))).collect();
    let up = Upstream::serving(&modules);
    let gate = gate(&up);
    for module in &modules {
        assert!(many(&gate, &module.url("mod"), 24).iter().all(|a| a.status == 200));
        assert_eq!(up.count(&module.url("mod")), 1, "{}", module.version);
    }
}

#[test]
fn parts_that_are_asked_for_at_once_come_from_one_upstream() {
    let module = Module::new("example.com/m", "v1.0.0");
    let mut other = module.clone();
    other.go_mod.push_str("\n// from the first\n");
    let (first, second) = (Upstream::start(), Upstream::serving(std::slice::from_ref(&module)));
    first.set(&module.url("mod"), Reply::After(Duration::from_millis(400), Box::new(Reply::Status(404))));
    first.set(&module.url("zip"), Reply::Good(other.zip()));
    first.set(&module.url("info"), Reply::Good(other.info()));
    let tables = upstream("first", &first.url(), "") + &upstream("second", &second.url(), "");
    let gate = Gate::start(&(tables + &route("*", &["first", "second"], "fallback = \"any-error\"")));
    thread::scope(|scope| {
        let go_mod = scope.spawn(|| gate.get(&module.url("mod")));
        eventually("the go.mod is being asked for", || first.count(&module.url("mod")) == 1);
        let zip = scope.spawn(|| gate.get(&module.url("zip")));
        assert_eq!(go_mod.join().unwrap().body, module.go_mod.as_bytes());
        assert!(zip.join().unwrap().body == module.zip());
    });
    assert_eq!(first.count(&module.url("zip")), 0);
}

#[test]
fn a_kept_connection_that_the_upstream_closes_is_no_failure() {
    let up = Upstream::start();
    let modules: Vec<Module> = (0..6).map(|n| Module::new("example.com/m", &format!("v1.0.{n}"))).collect();
    for module in &modules {
        up.set(&module.url("info"), Reply::CloseKept(module.info()));
    }
    let gate = gate(&up);
    for module in &modules {
        assert_eq!(gate.get(&module.url("info")).body, module.info());
    }
}

#[test]
fn a_client_of_http_1_0_gets_a_length() {
    let (up, module) = (Upstream::start(), large("v1.0.0"));
    up.set(&module.url("zip"), Reply::Chunked(module.zip()));
    let gate = gate(&up);
    let answer = crate::support::http::raw(&gate.address, format!("GET {} HTTP/1.0\r\n\r\n", module.url("zip")).as_bytes(), false);
    assert!(answer.whole && answer.body == module.zip());
    assert_eq!(answer.header("content-length"), module.zip().len().to_string());
}

#[test]
fn directories_are_checked_and_may_hang_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let good = large("v1.0.0");
    fs::create_dir_all(at("example.com/large/@v")).unwrap();
    fs::create_dir_all(at("example.com/hung/@v")).unwrap();
    fs::write(at("example.com/large/@v/v1.0.0.zip"), good.zip()).unwrap();
    fs::write(at("example.com/large/@v/v1.0.1.zip"), &large("v1.0.1").zip()[..200_000]).unwrap();
    fs::write(at("example.com/large/@v/v1.0.1.mod"), "<html>").unwrap();
    fs::write(at("example.com/large/@v/v1.0.1.info"), "").unwrap();
    // A pipe without a writer stands for a mount that does not answer.
    for name in ["list", "v1.0.0.mod", "v1.0.0.zip"] {
        let made = std::process::Command::new("mkfifo").arg(at("example.com/hung/@v").join(name)).status().unwrap();
        assert!(made.success());
    }
    let up = Upstream::serving(&[large("v1.0.2"), large("v1.0.1"), Module::new("example.com/hung", "v1.0.0")]);
    let tree = format!(
        "[upstreams.tree]\ntype = \"directory\"\npath = {:?}\nidle = \"400ms\"\nbreaker = {{ failures = 0 }}\n",
        dir.path()
    );
    let tables = tree + &upstream("u", &up.url(), "");
    let gate = Gate::start(&(tables + &route("*", &["tree", "u"], "fallback = \"any-error\"")));
    assert!(gate.get(&good.url("zip")).body == good.zip());
    assert_eq!(up.asked().len(), 0);
    for part in ["zip", "mod", "info"] {
        assert_eq!(gate.get(&large("v1.0.1").url(part)).status, 200, "{part}, from the next upstream");
    }
    assert!(gate.get(&large("v1.0.1").url("zip")).body == large("v1.0.1").zip());
    for _ in 0..3 {
        assert_eq!(many(&gate, "/example.com/hung/@v/v1.0.0.mod", 8).iter().filter(|a| a.status == 200).count(), 8);
        assert!(gate.get(&large("v1.0.2").url("zip")).body == large("v1.0.2").zip());
    }
    assert_eq!(gate.get("/example.com/hung/@v/list").text(), "v1.0.0\n");
    // With the cache alone a directory is still asked.
    assert!(gate.get(&format!("/cached-only{}", good.url("zip"))).body == good.zip());
}

#[test]
fn a_zip_that_was_copied_in_half_is_not_served() {
    let (whole, half, now) = (large("v1.0.0"), large("v1.0.1"), large("v1.0.2"));
    let up = Upstream::serving(&[half.clone(), now.clone()]);
    let gate = Gate::start(&(upstream("u", &up.url(), "") + &route("*", &["u"], "verify = \"off\"")));
    let folder = gate.cache("u").join("example.com/large/@v");
    fs::create_dir_all(&folder).unwrap();
    let earlier = std::time::SystemTime::now() - Duration::from_secs(3600);
    for (module, bytes, old) in [(&whole, whole.zip().len(), true), (&half, 200_000, true), (&now, 300_000, false)] {
        let path = folder.join(format!("{}.zip", module.version));
        fs::write(&path, &module.zip()[..bytes]).unwrap();
        if old {
            fs::File::options().append(true).open(&path).unwrap().set_modified(earlier).unwrap();
        }
    }
    for module in [&whole, &half, &now] {
        for _ in 0..2 {
            assert!(gate.get(&module.url("zip")).body == module.zip(), "{}", module.version);
        }
    }
    assert_eq!(up.count(&whole.url("zip")), 0, "a whole one is good as it is");
    assert_eq!(up.count(&half.url("zip")), 1, "what came takes the place of half of one");
    assert!(fs::read(folder.join("v1.0.1.zip")).unwrap() == half.zip());
    // This one is still being copied, for all that can be known, and becomes whole.
    fs::write(folder.join("v1.0.2.zip"), now.zip()).unwrap();
    up.forget();
    assert!(gate.get(&now.url("zip")).body == now.zip());
    assert_eq!(up.asked().len(), 0);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test moves a folder, as a person would")]
fn a_directory_that_has_gone_is_an_outage() {
    let dir = tempfile::tempdir().unwrap();
    let (path, away) = (dir.path().join("share"), dir.path().join("away"));
    let module = Module::new("example.com/m", "v1.0.0");
    fs::create_dir_all(path.join("example.com/m/@v")).unwrap();
    fs::write(path.join("example.com/m/@v/list"), "v1.0.0\n").unwrap();
    let up = Upstream::serving(&[Module::new("example.com/m", "v1.1.0")]);
    let tree = format!("[upstreams.tree]\ntype = \"directory\"\npath = {path:?}\nbreaker = {{ failures = 0 }}\n");
    let text = "[cache]\nlist_ttl = \"0s\"\nnot_found_ttl = \"0s\"\n\n".to_owned() + &tree + &upstream("u", &up.url(), "");
    let text = text + &route("*", &["tree", "u"], "");
    let gate = Gate::start(&text);
    // What is not there is asked of the next; what is, is there.
    assert_eq!(gate.get("/example.com/m/@v/list").text(), "v1.0.0\nv1.1.0\n");
    assert_eq!(gate.get(&module.url("info")).status, 404);
    up.forget();
    // Moved away, and then an empty folder in its place, as a mount leaves it.
    for emptied in [false, true] {
        if emptied {
            fs::create_dir(&path).unwrap();
        } else {
            fs::rename(&path, &away).unwrap();
        }
        let answer = gate.get(&module.url("mod"));
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert_eq!(up.count(&module.url("mod")), 0, "an outage is no reason to ask others here");
        let list = gate.get("/example.com/m/@v/list");
        assert_eq!((list.text().as_str(), list.header("modgate-partial")), ("v1.1.0\n", "tree"), "it says what it lacks");
    }
    fs::remove_dir(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    assert_eq!(gate.get(&module.url("mod")).status, 404);
    // One that gave something was not empty either.
    let fresh = Gate::start(&text);
    assert_eq!(fresh.get("/example.com/m/@v/list").text(), "v1.0.0\nv1.1.0\n");
    fs::rename(&path, &away).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(fresh.get(&module.url("mod")).status, 502);
}

#[test]
fn a_disk_that_is_slower_than_the_upstream_slows_askers_down_and_refuses_nobody() {
    let up = Upstream::always(Reply::Good(b"module example.com/m\n".to_vec()));
    let tables = upstream("u", &up.url(), "") + &route("*", &["u"], "");
    let gate = Gate::start_with(tempfile::tempdir().unwrap(), &tables, &[("MODGATE_SERVER__MAX_FETCHES", "24")]);
    let statuses = thread::scope(|scope| {
        let asker = |n: usize| {
            let gate = &gate;
            move || (0..40).map(|m| gate.get(&format!("/example.com/m{n}/@v/v1.0.{m}.mod")).status).collect::<Vec<_>>()
        };
        let askers: Vec<_> = (0..16).map(|n| scope.spawn(asker(n))).collect();
        askers.into_iter().flat_map(|a| a.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(statuses.len() == 640 && statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

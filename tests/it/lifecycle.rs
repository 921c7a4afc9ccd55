//! Start, stop, reload, crash: what a running modgate does with signals, and what it leaves on the disk.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::eventually;
use crate::support::gate::{Gate, program, route, upstream};
use crate::support::http::{get, open, request};
use crate::support::modules::Module;
use crate::support::upstream::{Reply, Upstream};

fn text(up: &Upstream) -> String {
    upstream("u", &up.url(), "") + &route("*", &["u"], "")
}

fn large() -> Module {
    Module::new("example.com/large", "v1.0.0").bulk(2 << 20)
}

#[test]
fn a_stop_lets_answers_finish() {
    let (up, module) = (Upstream::start(), large());
    up.set(&module.url("zip"), Reply::Slow(module.zip(), 200_000, Duration::from_millis(100)));
    let mut gate = Gate::start(&text(&up));
    let (address, path) = (gate.address.clone(), module.url("zip"));
    let asker = thread::spawn(move || get(&address, &path));
    eventually("it is being fetched", || up.count(&module.url("zip")) == 1);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(gate.stop(), Some(0));
    let answer = asker.join().unwrap();
    assert!(answer.whole && answer.body == module.zip());
    assert!(gate.cache("u").join("example.com/large/@v/v1.0.0.zip").is_file(), "and what came is kept");
    assert!(std::net::TcpStream::connect(&gate.address).is_err());
}

#[test]
fn a_stop_ends_within_its_grace() {
    let up = Upstream::always(Reply::Hang);
    let mut gate = Gate::start(&text(&up).replace("[upstreams.u]", "[log]\nlevel = \"info\"\n[upstreams.u]"));
    let mut stream = open(&gate.address);
    write!(stream, "GET /example.com/m/@v/v1.0.0.zip HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("it is being fetched", || up.asked().len() == 1);
    let started = std::time::Instant::now();
    gate.stop();
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn a_good_reload_is_in_force_and_a_bad_one_changes_nothing() {
    let module = Module::new("example.com/m", "v1.0.0");
    let (one, two) = (Upstream::start(), Upstream::serving(std::slice::from_ref(&module)));
    let gate = Gate::start(&text(&one));
    assert_eq!(gate.get(&module.url("info")).status, 404);
    gate.rewrite("[upstreams.u]\ntype = \"goproxy\"\nurl = 7\n");
    gate.signal(Signal::HUP);
    eventually("the log names the mistakes", || gate.log().contains("upstreams.u.url") && gate.log().contains("the old one stays"));
    assert_eq!(gate.get("/example.com/n/@v/v1.0.0.info").status, 404);
    assert_eq!(one.count("/example.com/n/@v/v1.0.0.info"), 1, "the old one is asked");
    // Half a write, or a file that says everything but where to ask: the fences would go with the routes.
    gate.rewrite("");
    gate.signal(Signal::HUP);
    eventually("what is left is refused", || gate.log().contains("names no upstreams and no routes any more"));
    fs::write(gate.dir.path().join("modgate.toml"), "# nothing yet\n").unwrap();
    gate.signal(Signal::HUP);
    eventually("an empty file is refused", || gate.log().contains("holds no keys at all"));
    assert_eq!(gate.get("/example.com/o/@v/v1.0.0.info").status, 404);
    assert_eq!(one.count("/example.com/o/@v/v1.0.0.info"), 1, "the old one is asked");
    gate.rewrite(&text(&two));
    gate.signal(Signal::HUP);
    eventually("the new one is in force", || gate.get(&module.url("info")).status == 200);
}

#[test]
fn reloads_under_load_fail_no_request() {
    let module = Module::new("example.com/m", "v1.0.0");
    let up = Upstream::serving(&[module.clone(), large()]);
    let gate = Gate::start(&text(&up));
    gate.get(&module.url("info"));
    gate.get(&large().url("zip"));
    eventually("both are stored", || files(&gate.cache("u")).len() == 2);
    let asking = std::sync::atomic::AtomicBool::new(true);
    thread::scope(|scope| {
        let askers: Vec<_> = (0..4)
            .map(|n| {
                let (gate, module, asking) = (&gate, &module, &asking);
                scope.spawn(move || {
                    let mut asked = 0;
                    while asking.load(std::sync::atomic::Ordering::Relaxed) {
                        let answer = if n % 2 == 0 { gate.get(&module.url("info")) } else { gate.get(&large().url("zip")) };
                        assert!(answer.status == 200 && answer.whole);
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for _ in 0..15 {
            gate.signal(Signal::HUP);
            thread::sleep(Duration::from_millis(50));
        }
        asking.store(false, std::sync::atomic::Ordering::Relaxed);
        let asked: i32 = askers.into_iter().map(|t| t.join().unwrap()).sum();
        assert!(asked > 40, "{asked}");
    });
    assert_eq!((up.count(&module.url("info")), up.count(&large().url("zip"))), (1, 1), "the cache outlives reloads");
}

#[test]
fn a_crash_leaves_whole_files_or_none_and_its_leftovers_are_swept() {
    let (up, module) = (Upstream::start(), large());
    up.set(&module.url("zip"), Reply::Stall(module.zip(), 1 << 20));
    let small = Module::new("example.com/small", "v1.0.0");
    up.set(&small.url("zip"), Reply::Good(small.zip()));
    let mut gate = Gate::start(&text(&up));
    gate.get(&small.url("zip"));
    let mut stream = open(&gate.address);
    write!(stream, "GET {} HTTP/1.1\r\nHost: x\r\n\r\n", module.url("zip")).unwrap();
    let temps = |gate: &Gate| files(&gate.dir.path().join("cache/.tmp"));
    eventually("half of it is there", || temps(&gate).iter().any(|(_, length)| *length >= 1 << 19));
    gate.signal(Signal::KILL);
    gate.wait();
    assert!(!gate.cache("u").join("example.com/large/@v/v1.0.0.zip").exists());
    assert!(temps(&gate).len() > 1, "leftovers");
    let dir = std::mem::replace(&mut gate.dir, tempfile::tempdir().unwrap());
    up.set(&module.url("zip"), Reply::Good(module.zip()));
    let gate = Gate::start_in(dir, &text(&up));
    assert_eq!(temps(&gate).len(), 1, "its own lock alone: {:?}", temps(&gate));
    assert!(gate.get(&module.url("zip")).body == module.zip());
    assert!(gate.get(&small.url("zip")).body == small.zip());
}

/// All files below a folder, with their lengths.
fn files(folder: &Path) -> Vec<(String, u64)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => files(&entry.path()),
        Ok(meta) => vec![(entry.path().display().to_string(), meta.len())],
        Err(_) => Vec::new(),
    };
    entries.flatten().flat_map(of).collect()
}

#[test]
fn a_port_that_is_taken_is_named() {
    let up = Upstream::start();
    let gate = Gate::start(&text(&up));
    let dir = tempfile::tempdir().unwrap();
    let output = program()
        .args(["--config", &gate.dir.path().join("modgate.toml").display().to_string()])
        .env("MODGATE_CACHE__DIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(&format!("modgate: cannot listen on {}", gate.address)), "{said}");
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cache"), "a file").unwrap();
    let output = program().env("MODGATE_CACHE__DIR", dir.path().join("cache")).env("HOME", dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("modgate: cannot use the cache folder: "), "{said}");
}

#[test]
fn every_request_has_a_line_and_an_id() {
    let module = Module::new("example.com/m", "v1.0.0");
    let up = Upstream::serving(std::slice::from_ref(&module));
    let gate = Gate::start(&text(&up));
    let own = gate.get(&module.url("info")).header("x-request-id").to_owned();
    assert_eq!(own.len(), 16);
    let echoed = request(&gate.address, "GET", &module.url("info"), &[("X-Request-Id", "ticket-4711")]);
    assert_eq!(echoed.header("x-request-id"), "ticket-4711");
    let refused = request(&gate.address, "GET", &module.url("info"), &[("X-Request-Id", &"x".repeat(200))]);
    assert_eq!(refused.header("x-request-id").len(), 16);
    up.set("/example.com/broken/@v/list", Reply::Status(500));
    gate.get("/example.com/broken/@v/list");
    eventually("lines", || gate.log().contains("broken"));
    let log = gate.log();
    let line = |id: &str| log.lines().find(|l| l.contains(id)).unwrap_or_else(|| panic!("no line of {id}:\n{log}")).to_owned();
    assert!(line(&own).contains("cache=\"miss\" upstream=\"u\""), "{log}");
    assert!(line("ticket-4711").contains("status=200") && line("ticket-4711").contains("cache=\"memory\""), "{log}");
    let broken = line("example.com/broken/@v/list");
    assert!(broken.contains("WARN") && broken.contains("routes[0]") && broken.contains("u: 500 Internal Server Error"), "{broken}");
}

#[test]
fn health_is_on_the_admin_listener() {
    let up = Upstream::start();
    let gate = Gate::start(&text(&up));
    assert_eq!(get(&gate.admin, "/-/healthz").text(), "ok\n");
    assert_eq!(get(&gate.admin, "/-/readyz").text(), "ready\n");
    assert_eq!(get(&gate.admin, "/-/other").status, 404);
    assert_eq!(get(&gate.admin, "/example.com/m/@v/list").status, 404);
    assert_eq!(gate.get("/-/healthz").status, 404);
    assert_eq!(up.asked().len(), 0);
}

#[test]
fn a_cache_that_is_removed_while_it_serves_is_made_again() {
    let up = Upstream::serving(&[large(), Module::new("example.com/m", "v1.0.0"), Module::new("example.com/m", "v1.1.0")]);
    let gate = Gate::start(&text(&up));
    assert_eq!(gate.get("/example.com/m/@v/v1.0.0.zip").status, 200);
    eventually("it is stored", || gate.cache("u").join("example.com/m/@v/v1.0.0.zip").is_file());
    fs::remove_dir_all(gate.dir.path().join("cache")).unwrap();
    assert!(gate.get(&large().url("zip")).body == large().zip());
    assert_eq!(gate.get("/example.com/m/@v/v1.1.0.mod").status, 200);
    eventually("they are stored", || files(&gate.cache("u")).len() == 2);
}

#[test]
fn a_reload_that_makes_an_upstream_private_keeps_its_files_from_eviction() {
    let up = Upstream::serving(&[large()]);
    let gate = Gate::start(&text(&up));
    assert!(gate.get(&large().url("zip")).whole);
    eventually("it is stored", || files(&gate.cache("u")).len() == 1);
    gate.rewrite(&text(&up).replace("[upstreams.u]\n", "[upstreams.u]\nprivate = true\n"));
    let output = gate.command(&["gc", "--max-size", "1kB"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("0 files removed"), "{output:?}");
    // Nor is a folder touched that no upstream of the configuration owns.
    gate.rewrite(&text(&up).replace("upstreams.u]", "upstreams.v]").replace("[\"u\"]", "[\"v\"]"));
    gate.command(&["gc", "--max-size", "1kB"]);
    assert_eq!(files(&gate.cache("u")).len(), 1);
}

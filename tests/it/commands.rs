//! `check --probe`, `explain`, `gc`: the commands beside `serve`.

use std::fs;
use std::process::Output;
use std::time::{Duration, SystemTime};

use crate::support::gate::{Gate, program, route, upstream};
use crate::support::http::get;
use crate::support::modules::Module;
use crate::support::upstream::{Reply, Upstream};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn explain_says_why() {
    let module = Module::new("example.com/m", "v1.0.0");
    let (first, second) = (Upstream::always(Reply::Status(500)), Upstream::serving(std::slice::from_ref(&module)));
    let tables = upstream("first", &first.url(), "") + &upstream("second", &second.url(), "");
    let routes = route("corp.example", &["first"], "") + &route("*", &["first", "second"], "fallback = \"any-error\"");
    let gate = Gate::start(&(tables + &routes));
    let output = gate.command(&["explain", "example.com/m@v1.0.0"]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    for wanted in [
        "route  routes[1] \"*\"",
        "chain  first -> second",
        "example.com/m/@v/v1.0.0.info",
        "cache   miss, from second",
        "asked   first: 500 Internal Server Error (",
        "asked   second: ok (",
        "status  200",
    ] {
        assert!(text.contains(wanted), "missing {wanted:?} in:\n{text}");
    }
    // What it fetched is kept, for the server too, and the server explains the same.
    second.forget();
    let json = get(&gate.admin, "/-/explain?module=example.com/m@v1.0.0");
    assert_eq!((json.status, json.header("content-type")), (200, "application/json"));
    let json: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!((json["route"].as_str(), json["questions"][2]["cache"].as_str()), (Some("routes[1] \"*\""), Some("hit")));
    assert_eq!(second.asked().len(), 0);
    let text = said(&gate.command(&["explain", "corp.example/x"]));
    assert!(text.contains("route  routes[0] \"corp.example\"") && text.contains("status  502"), "{text}");
    let json = gate.command(&["explain", "--json", "example.com/m@main"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json["questions"][0]["status"].as_u64(), json["questions"].as_array().map(Vec::len)), (Some(502), Some(1)));
    let bad = gate.command(&["explain", "example.com/../m"]);
    assert!(!bad.status.success() && said(&bad).contains("module path"), "{}", said(&bad));
    assert_eq!(get(&gate.admin, "/-/explain").status, 400);
    assert_eq!(get(&gate.admin, "/-/explain?module=..").status, 400);
}

#[test]
fn probes_tell_the_living_from_the_dead() {
    let (living, locked) = (Upstream::start(), Upstream::always(Reply::Status(401)));
    let dead = format!("http://127.0.0.1:{}", crate::support::free_port());
    let dir = tempfile::tempdir().unwrap();
    let tables = upstream("living", &living.url(), "") + &upstream("dead", &dead, "") + &upstream("locked", &locked.url(), "");
    let tables = tables + &format!("[upstreams.tree]\ntype = \"directory\"\npath = {:?}\n", dir.path());
    let gate = Gate::start(&(tables + &route("*", &["living", "dead", "locked", "tree"], "")));
    let text = said(&gate.command(&["check"]));
    assert!(text.contains("living -(not-found)-> dead -(not-found)-> locked -(not-found)-> tree"), "{text}");
    assert_eq!(living.asked().len(), 0);
    let output = gate.command(&["check", "--probe"]);
    let text = said(&output);
    assert!(!output.status.success(), "{text}");
    for wanted in [
        "living: 404 Not Found",
        "dead: FAILED: cannot connect to 127.0.0.1:",
        "locked: FAILED: 401 Unauthorized",
        "tree: a folder",
        "cannot be used: dead, locked",
    ] {
        assert!(text.contains(wanted), "missing {wanted:?} in:\n{text}");
    }
    assert_eq!(living.asked().len(), 1);
}

#[test]
fn gc_removes_the_least_recently_used_and_keeps_private_ones() {
    let dir = tempfile::tempdir().unwrap();
    let up = Upstream::start();
    let tables = upstream("open", &up.url(), "") + &upstream("own", &up.url(), "private = true");
    let text =
        format!("[cache]\ndir = \"{}\"\nmax_size = \"5kB\"\n{tables}{}", dir.path().display(), route("*", &["open", "own"], ""));
    let config = dir.path().join("m.toml");
    fs::write(&config, text).unwrap();
    let put = |name: &str, hours: u64| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![b'x'; 2000]).unwrap();
        let then = SystemTime::now() - Duration::from_secs(hours * 3600);
        fs::File::options().append(true).open(&path).unwrap().set_times(fs::FileTimes::new().set_accessed(then)).unwrap();
        path
    };
    let old = put("open/example.com/a/@v/v1.0.0.zip", 50);
    let newer = put("open/example.com/b/@v/v1.0.0.zip", 2);
    let own = put("own/corp.example/c/@v/v1.0.0.zip", 99);
    let gc = |more: &[&str]| {
        let output = program().args(["gc", "--config"]).arg(&config).args(more).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    assert!(gc(&[]).contains("1 files removed"));
    assert_eq!((old.exists(), newer.exists(), own.exists()), (false, true, true));
    assert!(gc(&["--max-size", "1kB"]).contains("--private-too"));
    assert_eq!((newer.exists(), own.exists()), (false, true));
    gc(&["--max-size", "0", "--private-too"]);
    assert!(!own.exists());
}

#[test]
fn the_cache_is_brought_below_its_bound_while_it_serves() {
    let modules: Vec<Module> = (0..6).map(|n| Module::new("example.com/m", &format!("v1.0.{n}")).bulk(300_000)).collect();
    let up = Upstream::serving(&modules);
    let dir = tempfile::tempdir().unwrap();
    let text = upstream("u", &up.url(), "") + &route("*", &["u"], "");
    let first = Gate::start_in(dir, &text);
    for module in &modules {
        assert!(first.get(&module.url("zip")).whole);
    }
    let zips = first.cache("u").join("example.com/m/@v");
    crate::support::eventually("all are kept", || fs::read_dir(&zips).is_ok_and(|d| d.count() == 6));
    let dir = first.into_dir();
    let age = SystemTime::now() - Duration::from_secs(7200);
    for entry in fs::read_dir(dir.path().join("cache/u/example.com/m/@v")).unwrap().flatten() {
        fs::File::options().append(true).open(entry.path()).unwrap().set_times(fs::FileTimes::new().set_accessed(age)).unwrap();
    }
    // The first count after a start finds it over its bound.
    let small = Gate::start_in(dir, &format!("[cache]\nmax_size = \"1MB\"\n\n{text}"));
    crate::support::eventually("some are gone", || {
        fs::read_dir(small.cache("u").join("example.com/m/@v")).is_ok_and(|d| d.count() <= 3)
    });
    // What is gone is fetched again.
    assert!(modules.iter().all(|module| small.get(&module.url("zip")).body == module.zip()));
}

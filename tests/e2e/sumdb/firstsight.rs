//! Trust on first sight: what no database knows has to stay what it was when it was first seen, even where the cache has lost it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::modules::{Module, tree};
use crate::support::upstream::{Reply, Upstream};

use super::database::Database;
use super::sumdb;

fn module() -> Module {
    Module::new("corp.example/Secret", "v1.0.0")
}

/// What the message says that is to be done where the change is right.
const FORGET: &[&str] = &["verify", "--forget", "corp.example/Secret@v1.0.0"];

fn changed() -> Module {
    module().file("p.go", "package secret\n\nconst Version = \"another\"\n")
}

fn sums_of(cache: &Path, upstream: &str, suffix: &str) -> Option<String> {
    fs::read_to_string(cache.join(".sums").join(upstream).join(format!("corp.example/!secret/@v/v1.0.0.{suffix}"))).ok()
}

/// The sums of the go.mod and the zip, which are written after the answer has gone out.
fn both_sums(gate: &Gate) -> [String; 2] {
    let sums = || ["mod", "zip"].map(|part| sums_of(&cache_of(gate), "u1", part));
    eventually("there are sums", || sums().iter().all(Option::is_some));
    // The second field is the file that had it, which may be another by now.
    sums().map(|sum| {
        let sum = sum.unwrap();
        let (sum, rest) = sum.split_once(' ').unwrap();
        format!("{sum} {}", rest.split_once(' ').unwrap().1)
    })
}

fn cache_of(gate: &Gate) -> PathBuf {
    gate.dir.path().join("cache")
}

fn serve(upstream: &Upstream, module: &Module) {
    for (path, body) in tree(std::slice::from_ref(module)) {
        upstream.set(&path, Reply::Good(body));
    }
}

/// Loses the cached files of an upstream, and all that was in memory; not the sums.
fn lose(gate: Gate, config: &str) -> Gate {
    let dir = gate.into_dir();
    fs::remove_dir_all(dir.path().join("cache/u1")).unwrap();
    Gate::start_in(dir, config)
}

#[test]
fn a_version_that_changes_after_the_cache_has_lost_it_is_refused() {
    let database = Database::start(3, &[]);
    for (private, verify) in
        [("private = true\n", ""), ("private = true\n", "verify = \"off\""), ("", "verify = \"sumdb-or-trust-first\"")]
    {
        let mirror = Upstream::serving(&[module()]);
        let config = sumdb(&database, &["direct"]) + &upstream("u1", &mirror.url(), private) + &route("*", &["u1"], verify);
        let gate = Gate::start(&config);
        for part in ["info", "mod", "zip"] {
            assert_eq!(gate.get(&module().url(part)).status, 200, "{private}{verify}");
        }
        let sums = both_sums(&gate);
        assert!(sums.iter().all(|sum| sum.contains("h1:")), "{sums:?}");

        // The same again is no trouble.
        let gate = lose(gate, &config);
        assert_eq!(gate.get(&module().url("zip")).body, module().zip(), "{private}{verify}");

        serve(&mirror, &changed());
        let gate = lose(gate, &config);
        for _ in 0..2 {
            let answer = gate.get(&module().url("zip"));
            assert_eq!(answer.status, 502, "{private}{verify}: {}", answer.text());
            let said = answer.text();
            assert!(said.matches("h1:").count() >= 2, "both sums: {said}");
            assert!(said.contains(&format!("`modgate {}`", FORGET.join(" "))), "what to do: {said}");
        }
        assert_eq!(gate.get(&module().url("mod")).status, 200, "{private}{verify}: that has not changed");
        let cached = super::cached_files(&gate.dir.path().join("cache"));
        assert!(cached.values().all(|bytes| *bytes != changed().zip()), "{private}{verify}: the changed one is kept");
        assert_eq!(both_sums(&gate), sums, "the first sight counts");

        // Whoever means it does what is said there.
        let output = gate.command(FORGET);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer = gate.get(&module().url("zip"));
        assert!(answer.status == 200 && answer.body == changed().zip(), "{private}{verify}: {}", answer.text());
    }
}

#[test]
fn a_changed_go_mod_is_refused_too() {
    let mirror = Upstream::serving(&[module()]);
    let config = upstream("u1", &mirror.url(), "private = true\n") + &route("*", &["u1"], "");
    let gate = Gate::start(&config);
    assert_eq!(gate.get(&module().url("mod")).status, 200);
    serve(&mirror, &Module { go_mod: "module corp.example/Secret\n\ngo 1.22\n".into(), ..module() });
    let gate = lose(gate, &config);
    let answer = gate.get(&module().url("mod"));
    assert_eq!(answer.status, 502, "{}", answer.text());
}

#[test]
fn the_sums_of_one_upstream_are_no_sums_of_another() {
    let (one, two) = (Upstream::serving(&[module()]), Upstream::serving(&[changed()]));
    let text = |first: &str| {
        upstream("u1", &one.url(), "private = true\n") + &upstream("u2", &two.url(), "private = true\n") + &route("*", &[first], "")
    };
    let gate = Gate::start(&text("u1"));
    assert_eq!(gate.get(&module().url("zip")).body, module().zip());
    let gate = Gate::start_in(gate.into_dir(), &text("u2"));
    assert_eq!(gate.get(&module().url("zip")).body, changed().zip());
    let sums = || ["u1", "u2"].map(|name| sums_of(&cache_of(&gate), name, "zip"));
    eventually("there are sums of both", || sums().iter().all(Option::is_some));
    assert_ne!(sums()[0], sums()[1]);
}

#[test]
fn gc_does_not_take_the_sums_away() {
    let mirror = Upstream::serving(&[module()]);
    let config = upstream("u1", &mirror.url(), "private = true\n") + &route("*", &["u1"], "");
    let gate = Gate::start(&config);
    assert_eq!(gate.get(&module().url("zip")).status, 200);
    assert_eq!(gate.get(&module().url("mod")).status, 200);
    let before = both_sums(&gate);
    let output = gate.command(&["gc"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(both_sums(&gate), before);
}

//! Mirrors that give other files than the ones whose sums everybody knows. What a mirror gave is proven before it is kept or
//! given whole; where it does not fit, the next mirror is asked.

use std::fs;

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::modules::Module;
use crate::support::upstream::{Reply, Upstream};

use super::database::Database;
use super::{cached_files, lookup, named, sumdb};

fn module() -> Module {
    Module::new("example.com/plain", "v1.1.0").file("data.txt", "the real data")
}

/// The same module with one byte of a file changed: another zip that is as good a zip.
pub(super) fn tampered(module: &Module) -> Module {
    let mut files = module.files.clone();
    let name = if files.contains_key("bulk.bin") { "bulk.bin" } else { "data.txt" };
    *files.get_mut(name).unwrap().last_mut().unwrap() ^= 1;
    Module { files, ..module.clone() }
}

/// The configuration of a gate before these mirrors in this order.
fn before(database: &Database, mirrors: &[&Upstream]) -> String {
    let names: Vec<String> = (1..=mirrors.len()).map(|n| format!("u{n}")).collect();
    let tables: String = names.iter().zip(mirrors).map(|(name, mirror)| upstream(name, &mirror.url(), "")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    sumdb(database, &["direct"]) + &tables + &route("*", &names, "fallback = \"any-error\"\nverify = \"sumdb\"\n")
}

/// A gate before them.
pub(super) fn gate_before(database: &Database, mirrors: &[&Upstream]) -> Gate {
    Gate::start(&before(database, mirrors))
}

/// Whatever is below the cache folder is what the real module has.
fn nothing_bad_is_kept(gate: &Gate, good: &Module, what: &str) {
    for (file, bytes) in cached_files(&gate.dir.path().join("cache")) {
        let real = if file.extension().unwrap() == "mod" { good.go_mod.clone().into_bytes() } else { good.zip() };
        assert!(bytes == real, "{what}: {} is not the real one", file.display());
    }
}

/// The sum of a module's zip, as a database says that has these files.
fn sum_of(module: &Module) -> String {
    let database = Database::start(0, std::slice::from_ref(module));
    let said = database.get(&format!("/lookup/{}", named(module))).text();
    said.lines().nth(1).unwrap().rsplit(' ').next().unwrap().to_owned()
}

/// The mirror gives this instead of the module's own file.
fn mirror_with(good: &Module, suffix: &str, reply: Reply) -> Upstream {
    let mirror = Upstream::serving(std::slice::from_ref(good));
    mirror.set(&good.url(suffix), reply);
    mirror
}

/// What a mirror can do to a module, and what it is called.
fn tamperings() -> Vec<(&'static str, &'static str, Reply)> {
    let good = module();
    let zip = good.zip();
    let flipped = |at: usize| {
        let mut bytes = zip.clone();
        bytes[at] ^= 1;
        bytes
    };
    let other = Module { version: "v1.0.0".into(), ..good.clone() };
    let more = good.clone().file("extra.go", "package plain\n");
    let other_mod = good.go_mod.replace("1.21", "1.20");
    vec![
        ("one byte of a file", "zip", Reply::Good(tampered(&good).zip())),
        // Past the first file's header and its name.
        ("one byte of the zip", "zip", Reply::Good(flipped(70))),
        ("its last byte", "zip", Reply::Good(flipped(zip.len() - 30))),
        ("a file more", "zip", Reply::Good(more.zip())),
        ("a file less", "zip", Reply::Good(good.clone().without("data.txt").zip())),
        ("another version", "zip", Reply::Good(other.zip())),
        ("another go.mod in the zip", "zip", Reply::Good(Module { go_mod: other_mod.clone(), ..good.clone() }.zip())),
        ("no zip at all", "zip", Reply::Good(b"<html>please log in</html>".to_vec())),
        ("in chunks", "zip", Reply::Chunked(tampered(&good).zip())),
        ("another go.mod", "mod", Reply::Good(other_mod.into_bytes())),
        ("an empty go.mod", "mod", Reply::Good(Vec::new())),
        ("a line break more", "mod", Reply::Good((good.go_mod.clone() + "\n").into_bytes())),
    ]
}

#[test]
fn where_a_mirror_swaps_a_file_the_next_one_is_asked() {
    let good = module();
    let database = Database::start(30, std::slice::from_ref(&good));
    for (what, suffix, reply) in tamperings() {
        for first in ["info", "mod", "zip"] {
            let what = format!("{what}, {first} first");
            let bad = mirror_with(&good, suffix, reply.clone());
            let honest = Upstream::serving(std::slice::from_ref(&good));
            let gate = gate_before(&database, &[&bad, &honest]);
            let order = [first, "info", "mod", "zip"];
            for part in order {
                let answer = gate.get(&good.url(part));
                let real = match part {
                    "info" => good.info(),
                    "mod" => good.go_mod.clone().into_bytes(),
                    _ => good.zip(),
                };
                assert!(answer.status == 200 && answer.whole, "{what}: {part}: {} {}", answer.status, answer.text());
                assert!(answer.body == real, "{what}: {part} is not the real one");
            }
            nothing_bad_is_kept(&gate, &good, &what);
            assert_eq!(bad.count(&good.url(suffix)), 1, "{what}: it is not asked again");
        }
    }
}

#[test]
fn a_sole_mirror_that_swaps_a_file_is_an_error_that_names_both_sums() {
    let good = module();
    let database = Database::start(30, std::slice::from_ref(&good));
    let real = sum_of(&good);
    for (what, suffix, reply) in tamperings() {
        let bad = mirror_with(&good, suffix, reply);
        let gate = gate_before(&database, &[&bad]);
        for _ in 0..2 {
            let answer = gate.get(&good.url(suffix));
            assert!(answer.status == 502 || !answer.whole, "{what}: {} {}", answer.status, answer.text());
        }
        nothing_bad_is_kept(&gate, &good, what);
        if what == "one byte of a file" {
            let (said, other) = (gate.get(&good.url("zip")).text(), sum_of(&tampered(&good)));
            assert!(said.contains(&real) && said.contains(&other), "{real} {other}: {said}");
            assert!(gate.log().contains(&other), "the log names it too: {}", gate.log());
        }
        // Nothing of it is left but in memory, where it may pause the mirror for a while.
        for (path, body) in crate::support::modules::tree(std::slice::from_ref(&good)) {
            bad.set(&path, Reply::Good(body));
        }
        let gate = Gate::start_in(gate.into_dir(), &before(&database, &[&bad]));
        let answer = gate.get(&good.url(suffix));
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    }
}

#[test]
fn another_zip_of_the_same_files_is_as_good() {
    let good = module();
    let database = Database::start(3, std::slice::from_ref(&good));
    // Its files in another order make another zip with the same sum.
    let zip = {
        use std::io::{Cursor, Write};
        let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let files = good.files.iter().map(|(n, c)| (n.as_str(), c.as_slice())).chain([("go.mod", good.go_mod.as_bytes())]);
        for (name, contents) in files.collect::<Vec<_>>().into_iter().rev() {
            out.start_file(format!("{}@{}/{name}", good.path, good.version), stored).unwrap();
            out.write_all(contents).unwrap();
        }
        out.finish().unwrap().into_inner()
    };
    assert!(zip != good.zip());
    let mirror = mirror_with(&good, "zip", Reply::Good(zip.clone()));
    let gate = gate_before(&database, &[&mirror]);
    let answer = gate.get(&good.url("zip"));
    assert!(answer.status == 200 && answer.body == zip, "{} {}", answer.status, answer.text());
}

#[test]
fn what_the_database_does_not_know_is_refused_or_trusted_as_the_route_says() {
    let known = module();
    let unknown = Module::new("example.com/unknown", "v1.0.0");
    let database = Database::start(30, std::slice::from_ref(&known));
    let mirror = Upstream::serving(&[known.clone(), unknown.clone()]);
    for (verify, status) in
        [("", 403), ("verify = \"sumdb\"", 403), ("verify = \"sumdb-or-trust-first\"", 200), ("verify = \"off\"", 200)]
    {
        let config = sumdb(&database, &["direct"]) + &upstream("u1", &mirror.url(), "") + &route("*", &["u1"], verify);
        let gate = Gate::start(&config);
        for part in ["mod", "zip"] {
            let answer = gate.get(&unknown.url(part));
            assert_eq!(answer.status, status, "{verify}: {part}: {}", answer.text());
            assert!(status == 200 || answer.text().contains("example.com/unknown"), "{verify}: {}", answer.text());
            assert_eq!(gate.get(&known.url(part)).status, 200, "{verify}: {part}");
        }
        assert_eq!(gate.get(&lookup(&named(&unknown))).status, 404, "{verify}");
        let kept = cached_files(&gate.dir.path().join("cache"));
        assert_eq!(kept.keys().any(|f| f.to_string_lossy().contains("unknown")), status == 200, "{verify}: {:?}", kept.keys());
    }
}

#[test]
fn what_the_database_learns_later_is_no_longer_refused() {
    let module = module();
    let database = Database::start(30, &[]);
    let mirror = Upstream::serving(std::slice::from_ref(&module));
    let gate = gate_before(&database, &[&mirror]);
    assert_eq!(gate.get(&module.url("zip")).status, 403);
    database.holds(std::slice::from_ref(&module));
    let gate = Gate::start_in(
        gate.into_dir(),
        &(sumdb(&database, &["direct"]) + &upstream("u1", &mirror.url(), "") + &route("*", &["u1"], "")),
    );
    let answer = gate.get(&module.url("zip"));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_route_that_does_not_verify_asks_no_database_and_passes_on_what_it_gets() {
    let good = module();
    let database = Database::start(30, std::slice::from_ref(&good));
    let other = tampered(&good);
    let mirror = Upstream::serving(std::slice::from_ref(&other));
    let gate = Gate::start(
        &(sumdb(&database, &["direct"]) + &upstream("u1", &mirror.url(), "") + &route("*", &["u1"], "verify = \"off\"")),
    );
    let answer = gate.get(&other.url("zip"));
    assert!(answer.status == 200 && answer.body == other.zip(), "{}", answer.status);
    assert_eq!(database.asked(), 0, "{:?}", database.counts());
}

#[test]
fn copies_from_before_are_not_given_on_unproven() {
    let good = module();
    let database = Database::start(30, std::slice::from_ref(&good));
    let (bad, honest) = (Upstream::serving(&[tampered(&good)]), Upstream::serving(std::slice::from_ref(&good)));
    let text = |verify: &str| {
        sumdb(&database, &["direct"])
            + &upstream("u1", &bad.url(), "")
            + &upstream("u2", &honest.url(), "")
            + &route("*", &["u1", "u2"], &format!("fallback = \"any-error\"\nverify = {verify:?}"))
    };
    for way in ["restart", "reload"] {
        let gate = Gate::start(&text("off"));
        assert!(gate.get(&good.url("zip")).body == tampered(&good).zip(), "{way}: the cache has the wrong one now");
        eventually("it is kept", || !cached_files(&gate.dir.path().join("cache")).is_empty());
        assert_eq!(gate.get(&good.url("mod")).status, 200, "{way}");
        let gate = if way == "restart" {
            Gate::start_in(gate.into_dir(), &text("sumdb"))
        } else {
            gate.rewrite(&text("sumdb"));
            gate.signal(rustix::process::Signal::HUP);
            eventually("the file is read again", || gate.log().contains("the new configuration is in force"));
            gate
        };
        for _ in 0..2 {
            let answer = gate.get(&good.url("zip"));
            assert!(answer.status == 200 && answer.body == good.zip(), "{way}: {} bytes: {}", answer.body.len(), answer.status);
        }
        let bad_ones =
            || cached_files(&gate.dir.path().join("cache")).into_values().filter(|b| *b == tampered(&good).zip()).count();
        eventually("the wrong one is not a kept one any more", || bad_ones() == 0);
    }
}

#[test]
fn what_is_kept_is_proven_again_by_what_is_kept_and_by_nothing_less() {
    let good = module();
    let mut database = Database::start(30, std::slice::from_ref(&good));
    let mirror = Upstream::serving(std::slice::from_ref(&good));
    let config = sumdb(&database, &["direct"]) + &upstream("u1", &mirror.url(), "") + &route("*", &["u1"], "");
    let gate = Gate::start(&config);
    assert_eq!(gate.get(&good.url("zip")).status, 200);
    eventually("it is kept", || !cached_files(&gate.dir.path().join("cache")).is_empty());
    database.stop();
    let lose = |gate: Gate, folder: &str| {
        let dir = gate.into_dir();
        fs::remove_dir_all(dir.path().join("cache").join(folder)).unwrap();
        Gate::start_in(dir, &config)
    };
    let gate = lose(gate, ".sums");
    let answer = gate.get(&good.url("zip"));
    assert!(answer.status == 200 && answer.body == good.zip(), "its look-up is kept: {} {}", answer.status, answer.text());
    let gate = lose(gate, ".sumdb");
    let answer = gate.get(&good.url("zip"));
    assert!(answer.status == 200 && answer.body == good.zip(), "its sum is noted: {} {}", answer.status, answer.text());
    let dir = gate.into_dir();
    for folder in [".sums", ".sumdb"] {
        // The second may not be there.
        let _ = fs::remove_dir_all(dir.path().join("cache").join(folder));
    }
    let gate = Gate::start_in(dir, &config);
    let answer = gate.get(&good.url("zip"));
    assert!(matches!(answer.status, 502 | 504), "nothing proves it: {}", answer.status);
    assert_eq!(cached_files(&gate.dir.path().join("cache")).len(), 1, "that is no reason to throw it away");
}

#[test]
fn what_came_in_while_the_database_was_away_is_proven_when_it_is_back() {
    let good = module();
    let database = Database::start(30, std::slice::from_ref(&good));
    let (bad, honest) = (Upstream::serving(&[tampered(&good)]), Upstream::serving(std::slice::from_ref(&good)));
    let config = sumdb(&database, &["direct"])
        + &upstream("u1", &bad.url(), "")
        + &upstream("u2", &honest.url(), "")
        + &route("*", &["u1", "u2"], "fallback = \"any-error\"\nverify = \"sumdb-or-trust-first\"");
    let gate = Gate::start(&config);
    database.now("status=500");
    gate.get(&good.url("zip"));
    database.now("honest");
    let gate = Gate::start_in(gate.into_dir(), &config);
    let answer = gate.get(&good.url("zip"));
    assert!(answer.status != 200 || answer.body == good.zip(), "the database knows another one");
}

#[test]
fn toolchains_are_programs_and_always_proven() {
    let toolchain = Module::new("golang.org/toolchain", "v0.0.1-go1.99.0.linux-amd64");
    let mirror = Upstream::serving(std::slice::from_ref(&toolchain));
    for (known, more, status) in
        [(vec![], "", 403), (vec![toolchain.clone()], "", 200), (vec![], "no_sumdb = [\"golang.org\"]\n", 403)]
    {
        let database = Database::start(3, &known);
        let config =
            sumdb(&database, &["direct"]) + more + &upstream("u1", &mirror.url(), "") + &route("*", &["u1"], "verify = \"off\"");
        let gate = Gate::start(&config);
        let answer = gate.get(&toolchain.url("zip"));
        assert_eq!(answer.status, status, "{more}: {}", answer.text());
        assert!(database.asked() > 0, "{more}");
    }
}

//! Ways round a proof, past a fence, and past a bound.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::eventually;
use crate::support::gate::{Gate, program, route, upstream};
use crate::support::http::get;
use crate::support::modules::Module;
use crate::support::sumdb::{Sumdb, zip_sum};
use crate::support::upstream::{Reply, Upstream};
use crate::verify::{body, files, forged, gate, kept, text};

fn put(cache: &Path, module: &Module, parts: &[&str]) {
    for part in parts {
        let path = cache.join(&module.url(part)[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // As a copy by another hand: a name that is taken anew.
        let _ = fs::remove_file(&path);
        fs::write(path, body(module, part)).unwrap();
    }
}

#[test]
fn a_note_of_one_file_does_not_vouch_for_another() {
    for bulk in [0, 400_000] {
        let module = Module::new("example.com/m", "v1.0.0").bulk(bulk);
        let up = Upstream::serving(std::slice::from_ref(&module));
        let database = Sumdb::knowing(std::slice::from_ref(&module));
        let config = text(&database.table(&database.serve()), &[&up], "");
        let gate = Gate::start(&config);
        for part in ["mod", "zip"] {
            assert_eq!(gate.get(&module.url(part)).status, 200);
        }
        eventually("both are kept", || kept(&gate).len() == 2);
        let dir = gate.into_dir();
        // Evicted, and then copied in with somebody's module cache.
        put(&dir.path().join("cache/u0"), &forged(&module), &["mod", "zip"]);
        let gate = Gate::start_in(dir, &config);
        for part in ["mod", "zip"] {
            assert!(gate.get(&module.url(part)).body != body(&forged(&module), part), "{part}: served without being looked at");
        }
    }
}

#[test]
fn a_fetch_of_the_configuration_before_does_not_take_the_place_of_a_proven_one() {
    let module = Module::new("example.com/m", "v1.0.0").bulk(400_000);
    let bad = forged(&module);
    let up = Upstream::start();
    up.set(&bad.url("zip"), Reply::Slow(bad.zip(), 50_000, Duration::from_millis(250)));
    let database = Sumdb::knowing(std::slice::from_ref(&module));
    let server = database.serve();
    let strict = text(&database.table(&server), &[&up], "verify = \"sumdb\"");
    let gate = Gate::start(&text(&database.table(&server), &[&up], "verify = \"off\""));
    let ask = || {
        let (address, path) = (gate.address.clone(), module.url("zip"));
        thread::spawn(move || get(&address, &path))
    };
    let before = ask();
    eventually("it is being fetched", || up.count(&module.url("zip")) == 1);
    gate.rewrite(&strict);
    gate.signal(Signal::HUP);
    eventually("the new configuration is in force", || gate.log().contains("is in force"));
    up.set(&module.url("zip"), Reply::Slow(module.zip(), 50_000, Duration::from_millis(450)));
    let after = ask();
    assert!(before.join().unwrap().body == bad.zip());
    assert!(after.join().unwrap().body == module.zip());
    eventually("one of them is kept", || kept(&gate).len() == 1);
    let gate = Gate::start_in(gate.into_dir(), &strict);
    assert!(gate.get(&module.url("zip")).body != bad.zip(), "noted as proven, but another file");
}

#[test]
fn two_processes_on_one_folder_see_one_history() {
    let (a, b) = (Module::new("example.com/a", "v1.0.0"), Module::new("example.com/b", "v1.0.0"));
    let up = Upstream::serving(&[a.clone(), b.clone()]);
    let honest = Sumdb::knowing(&[a.clone(), b.clone()]);
    let mut forked = honest.fork(2);
    forked.fill(20);
    forked.add(&b);
    let (here, there) = (honest.serve(), forked.serve());
    let first = Gate::start(&text(&honest.table(&here), &[&up], ""));
    let folder = first.dir.path().join("cache").display().to_string();
    let config = text(&honest.table(&there), &[&up], "");
    let second = Gate::start_with(tempfile::tempdir().unwrap(), &config, &[("MODGATE_CACHE__DIR", &folder)]);
    assert_eq!(first.get(&a.url("zip")).status, 200);
    let answer = second.get(&b.url("zip"));
    assert!(answer.status == 502 && answer.text().contains("SECURITY"), "{}: the kept head is of another history", answer.status);
}

#[test]
fn what_another_database_proved_is_proven_again() {
    let module = Module::new("example.com/m", "v1.0.0");
    let bad = forged(&module);
    let up = Upstream::serving(std::slice::from_ref(&bad));
    let mut wrong = Sumdb::new("sum.wrong.example");
    wrong.add(&bad);
    let gate = gate(&wrong.table(&wrong.serve()), &[&up], "");
    assert_eq!(gate.get(&bad.url("zip")).status, 200);
    eventually("it is kept", || kept(&gate).len() == 1);
    // That database turned out to be no good.
    let right = Sumdb::knowing(std::slice::from_ref(&module));
    let server = right.serve();
    let gate = Gate::start_in(gate.into_dir(), &text(&right.table(&server), &[&up], ""));
    assert!(gate.get(&module.url("zip")).body != bad.zip(), "served by the word of a database that is not asked any more");
}

#[test]
fn what_is_looked_at_is_what_is_served() {
    let (large, module) = (Module::new("example.com/large", "v1.0.0"), Module::new("example.com/m", "v1.0.0"));
    let bad = forged(&module);
    let database = Sumdb::knowing(&[large.clone(), module.clone()]);
    let server = database.serve();
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache/u0");
    put(&cache, &bad, &["zip"]);
    // Files whose sums take their time, one for each that may be made at once.
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let slow: Vec<Module> = (0..cores).map(|n| Module::new("example.com/large", &format!("v1.0.{n}"))).collect();
    let mut known = Sumdb::knowing(&slow);
    known.add(&module);
    known.publish(&server, "");
    let table = known.table(&server);
    for module in &slow {
        let mut out = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        out.start_file(format!("{}@{}/zeros", module.path, module.version), stored).unwrap();
        std::io::Write::write_all(&mut out, &vec![0; 48 << 20]).unwrap();
        let path = cache.join(&module.url("zip")[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, out.finish().unwrap().into_inner()).unwrap();
    }
    let gate = Gate::start_in(dir, &text(&table, &[&Upstream::start()], ""));
    for module in slow.iter().chain([&module]) {
        assert_eq!(gate.get(&format!("{}/lookup/{}@{}", known.below(), module.path, module.version)).status, 200);
    }
    let ask = |module: &Module| {
        let (address, path) = (gate.address.clone(), format!("/cached-only{}", module.url("zip")));
        thread::spawn(move || get(&address, &path))
    };
    let asked: Vec<_> = slow.iter().map(ask).collect();
    thread::sleep(Duration::from_millis(300));
    let asker = ask(&module);
    thread::sleep(Duration::from_millis(300));
    // Meanwhile another process finds it out, and fetches the good one.
    put(&gate.cache("u0"), &module, &["zip"]);
    assert!(asker.join().unwrap().body != bad.zip(), "the good one was looked at, and the bad one served");
    for asker in asked {
        asker.join().unwrap();
    }
    assert!(gate.get(&module.url("zip")).body != bad.zip());
}

#[test]
fn private_names_are_told_to_no_database_whatever_the_route_wants() {
    let own = Module::new("corp.example/secret", "v1.0.0");
    let up = Upstream::serving(std::slice::from_ref(&own));
    let database = Sumdb::knowing(&[]);
    let server = database.serve();
    let upstreams = upstream("own", &up.url(), "private = true");
    let tables = |verify: &str| database.table(&server) + &upstreams + &route("*", &["own"], verify);
    let gate = Gate::start(&tables(""));
    for mode in ["sumdb", "sumdb-or-trust-first"] {
        gate.rewrite(&tables(&format!("verify = {mode:?}")));
        let said = gate.command(&["check"]);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("routes[0].verify: all upstreams here are private"), "{said}");
    }
    for part in ["info", "mod", "zip"] {
        assert_eq!(gate.get(&own.url(part)).status, 200);
    }
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[test]
fn with_the_cache_alone_nothing_is_taken_on_trust_that_the_database_could_be_asked_about() {
    let module = Module::new("example.com/m", "v1.0.0");
    let bad = forged(&module);
    let up = Upstream::serving(std::slice::from_ref(&module));
    let database = Sumdb::knowing(std::slice::from_ref(&module));
    let server = database.serve();
    let dir = tempfile::tempdir().unwrap();
    put(&dir.path().join("cache/u0"), &bad, &["mod", "zip"]);
    let gate = Gate::start_in(dir, &text(&database.table(&server), &[&up], "verify = \"sumdb-or-trust-first\""));
    for part in ["mod", "zip"] {
        gate.get(&format!("/cached-only{}", module.url(part)));
        assert!(gate.get(&module.url(part)).body == body(&module, part), "{part}");
    }
}

#[test]
fn a_bundle_proves_nothing_by_saying_so() {
    let module = Module::new("example.com/m", "v1.0.0");
    let bad = forged(&module);
    let up = Upstream::serving(std::slice::from_ref(&module));
    let database = Sumdb::knowing(std::slice::from_ref(&module));
    let server = database.serve();
    let gate = gate(&database.table(&server), &[&up], "verify = \"sumdb-or-trust-first\"");
    let bundle = gate.dir.path().join("bundle.tar");
    let mut tar = tar::Builder::new(fs::File::create(&bundle).unwrap());
    let note = format!("{} proven sum.example.org\n", zip_sum(&bad));
    for (name, bytes) in [
        ("modgate-bundle".to_owned(), b"1\n".to_vec()),
        (format!("sums{}", bad.url("zip")), note.into_bytes()),
        (format!("download{}", bad.url("zip")), bad.zip()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &*bytes).unwrap();
    }
    tar.into_inner().unwrap().sync_all().unwrap();
    gate.command(&["import", &bundle.display().to_string()]);
    let strict = Gate::start_in(gate.into_dir(), &text(&database.table(&server), &[&up], "verify = \"sumdb\""));
    let answer = strict.get(&module.url("zip"));
    assert!(answer.body != bad.zip(), "taken for proven");
    assert!(answer.body == module.zip());
}

#[test]
fn the_first_sum_of_a_private_version_in_a_directory_is_kept_too() {
    let module = Module::new("corp.example/m", "v1.0.0").bulk(100_000);
    let tree = tempfile::tempdir().unwrap();
    put(tree.path(), &module, &["info", "mod", "zip"]);
    let directory = format!("[upstreams.tree]\ntype = \"directory\"\nprivate = true\npath = {:?}\n", tree.path());
    let config = directory + &route("*", &["tree"], "");
    let gate = Gate::start(&config);
    for part in ["mod", "zip"] {
        assert!(gate.get(&module.url(part)).body == body(&module, part), "{part}");
    }
    put(tree.path(), &forged(&module), &["mod", "zip"]);
    let gate = Gate::start_in(gate.into_dir(), &config);
    for part in ["mod", "zip"] {
        assert_eq!(gate.get(&module.url(part)).status, 502, "{part}: a version never changes");
    }
}

#[test]
fn what_the_database_does_not_know_is_refused_though_a_proxy_does_not_pass_it_on() {
    let module = Module::new("example.com/m", "v1.0.0");
    let up = Upstream::serving(std::slice::from_ref(&module));
    let database = Sumdb::knowing(&[]);
    let server = database.serve();
    // As by default: the public proxies, then the database itself.
    let gate = gate(&database.table(&server).replace("via = [\"direct\"]\n", ""), &[&up], "");
    let answer = gate.get(&module.url("zip"));
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(gate.get(&format!("{}/lookup/example.com/m@v1.0.0", database.below())).status, 404);
}

#[test]
fn a_newest_head_from_before_is_not_used_and_shown_around() {
    let (a, b) = (Module::new("example.com/a", "v1.0.0"), Module::new("example.com/b", "v1.0.0"));
    let up = Upstream::serving(&[a.clone(), b.clone()]);
    let mut database = Sumdb::knowing(std::slice::from_ref(&a));
    let older = database.head();
    database.add(&b);
    let server = database.serve();
    let config = text(&database.table(&server), &[&up], "");
    let gate = Gate::start(&config);
    assert_eq!(gate.get(&b.url("zip")).status, 200);
    // One of several servers has not heard of the last record; its tree is the beginning of the known one.
    server.set("/latest", Reply::Good(older.into_bytes()));
    let gate = Gate::start_in(gate.into_dir(), &config);
    let answer = gate.get(&format!("{}/latest", database.below()));
    assert!(answer.status == 200 && answer.text() == database.head(), "{}", answer.text());
    let evidence = fs::read_dir(gate.dir.path().join("cache/.sumdb/sum.example.org/evidence")).unwrap().count();
    assert!(evidence == 1 && gate.log().contains("has gone back, or this is a copy of it from before"), "{}", gate.log());
}

#[test]
fn many_askers_of_one_thing_of_the_database_make_one_question() {
    let mut database = Sumdb::knowing(&[]);
    database.fill(400);
    let server = database.serve();
    let answers = database.answers();
    let gate = gate(&database.table(&server), &[&Upstream::start()], "");
    for path in ["/latest", "/tile/8/0/000"] {
        let (_, body) = answers.iter().find(|(p, _)| p == path).unwrap();
        server.set(path, Reply::After(Duration::from_millis(400), Box::new(Reply::Good(body.clone()))));
        server.forget();
        let askers: Vec<_> = (0..40)
            .map(|_| {
                let (address, path) = (gate.address.clone(), format!("{}{path}", database.below()));
                thread::spawn(move || get(&address, &path))
            })
            .collect();
        assert!(askers.into_iter().all(|asker| asker.join().unwrap().body == *body));
        assert_eq!(server.count(path), 1, "{path}");
    }
}

#[test]
fn a_kept_tile_of_records_stands_for_its_beginnings() {
    let mut database = Sumdb::knowing(&[]);
    database.fill(300);
    let server = database.serve();
    let filler = database.answers();
    let record = |n: usize| {
        let (_, answer) = filler.iter().filter(|(path, _)| path.contains("/lookup/")).nth(n).unwrap();
        // Without its number, which follows from the tile's place.
        let start = answer.iter().position(|b| *b == b'\n').unwrap() + 1;
        answer[start..answer.windows(2).position(|two| two == b"\n\n").unwrap() + 2].to_vec()
    };
    let records: Vec<Vec<u8>> = (0..256).map(record).collect();
    server.set("/tile/8/data/000", Reply::Good(records.concat()));
    for width in 1..256 {
        server.set(&format!("/tile/8/data/000.p/{width}"), Reply::Good(records[..width].concat()));
    }
    let gate = gate(&database.table(&server), &[&Upstream::start()], "");
    assert!(gate.get(&format!("{}/tile/8/data/000", database.below())).body == records.concat());
    for width in (1..256).step_by(5) {
        assert!(gate.get(&format!("{}/tile/8/data/000.p/{width}", database.below())).body == records[..width].concat());
    }
    let kept = files(&gate.dir.path().join("cache/.sumdb"));
    let kept: Vec<_> = kept.iter().filter(|(name, _)| name.contains("/data/")).map(|(name, _)| name).collect();
    assert_eq!(kept.len(), 1, "a client can have one file made for each of 255 forms of each tile: {kept:?}");
}

#[test]
fn a_database_that_hangs_does_not_take_an_upstreams_places() {
    let (large, other) = (Module::new("example.com/m", "v1.0.0").bulk(3 << 20), Module::new("example.com/n", "v1.0.0"));
    let up = Upstream::serving(&[large.clone(), other.clone()]);
    let database = Sumdb::knowing(&[]);
    let server = Upstream::always(Reply::Hang);
    let tables = format!("[egress]\nfirst_byte = \"8s\"\n{}", database.table(&server));
    let tables = tables + &upstream("u", &up.url(), "max_concurrent = 1\nbreaker = { failures = 0 }") + &route("*", &["u"], "");
    let gate = Gate::start(&tables);
    let asker = {
        let (address, path) = (gate.address.clone(), large.url("zip"));
        thread::spawn(move || get(&address, &path).status)
    };
    eventually("the database is being asked", || server.asked().iter().any(|path| path.contains("example.com/m")));
    let answer = gate.get(&other.url("info"));
    assert_eq!(answer.status, 200, "what needs no proof waits for the database all the same: {}", answer.text());
    assert_eq!(asker.join().unwrap(), 504);
}

#[test]
fn a_list_that_may_not_be_incomplete_is_not_for_want_of_an_age() {
    let up = Upstream::serving(&[Module::new("example.com/m", "v1.0.0"), Module::new("example.com/m", "v1.1.0")]);
    up.set("/example.com/m/@v/v1.1.0.info", Reply::Status(500));
    let tables = "[policy]\nmin_age = \"7d\"\n".to_owned() + &upstream("u", &up.url(), "");
    let serve = Gate::start(&(tables.clone() + &route("*", &["u"], "")));
    let answer = serve.get("/example.com/m/@v/list");
    assert_eq!((answer.text().as_str(), answer.header("modgate-partial")), ("v1.0.0\n", "ages"));
    let fail = Gate::start(&(tables + &route("*", &["u"], "partial = \"fail\"")));
    assert_eq!(fail.get("/example.com/m/@v/list").status, 502);
}

#[test]
fn a_mistake_about_databases_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.toml");
    let text = "[sumdb]\ndatabases = [\"nonsense\"]\n[upstreams.a]\ntype = \"goproxy\"\nurl = \"ftp://a.example\"\n\
        [[routes]]\nmatch = [\"*\"]\nupstreams = [\"b\"]\nverify = \"on\"\n";
    fs::write(&file, text).unwrap();
    let output = program().arg("check").arg("--config").arg(&file).env("HOME", dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for wanted in ["sumdb.databases", "upstreams.a.url: ", "routes[0].upstreams", "routes[0].verify: "] {
        assert!(said.contains(wanted), "missing {wanted:?} in:\n{said}");
    }
}

#[test]
fn a_file_of_a_directory_that_was_changed_is_looked_at_again() {
    let module = Module::new("example.com/m", "v1.0.0");
    let pack = |version: &str| {
        let mut out = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let package = format!("package m\n\nconst Version = {version:?}\n");
        for (name, contents) in [("go.mod", &module.go_mod), ("p.go", &package)] {
            out.start_file(format!("example.com/m@v1.0.0/{name}"), stored).unwrap();
            std::io::Write::write_all(&mut out, contents.as_bytes()).unwrap();
        }
        out.finish().unwrap().into_inner()
    };
    // Of the same length, so that no head of an answer has to change.
    let (good, bad) = (pack("v1.0.0"), pack("v6.6.6"));
    let tree = tempfile::tempdir().unwrap();
    put(tree.path(), &module, &["info", "mod", "zip"]);
    let file = tree.path().join(&module.url("zip")[1..]);
    fs::write(&file, &good).unwrap();
    let database = Sumdb::knowing(std::slice::from_ref(&module));
    let server = database.serve();
    let directory = format!("[upstreams.tree]\ntype = \"directory\"\npath = {:?}\n", tree.path());
    let gate = Gate::start(&(database.table(&server) + &directory + &route("*", &["tree"], "")));
    for _ in 0..2 {
        assert!(gate.get(&module.url("zip")).body == good);
    }
    // As `rsync --inplace` has it.
    fs::write(&file, &bad).unwrap();
    let answer = gate.get(&module.url("zip"));
    assert!(!answer.whole || answer.body != bad, "served without being looked at");
}

#[test]
fn one_databases_name_may_begin_with_anothers() {
    let (one, other) = (Sumdb::new("sum.example.org"), Sumdb::new("sum.example.org/team"));
    let (here, there) = (one.serve(), other.serve());
    let databases = format!("\"{} {}\", \"{} {}\"", one.verifier(), here.url(), other.verifier(), there.url());
    let gate = gate(&format!("[sumdb]\ndatabases = [{databases}]\nvia = [\"direct\"]\n"), &[&Upstream::start()], "");
    assert_eq!(gate.get("/sumdb/sum.example.org/latest").text(), one.head());
    assert_eq!(gate.get("/sumdb/sum.example.org/team/latest").text(), other.head());
}

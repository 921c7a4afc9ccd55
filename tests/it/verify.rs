//! What upstreams give is proven by the checksum database before it is kept: good and bad answers, a database that does not know, is
//! not there, or lies.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::go::Go;
use crate::support::http::get;
use crate::support::modules::Module;
use crate::support::sumdb::{Sumdb, go_mod_sum, lookups, zip_sum};
use crate::support::upstream::{Reply, Upstream};

const PARTS: [&str; 3] = ["info", "mod", "zip"];

fn module() -> Module {
    Module::new("example.com/m", "v1.0.0")
}

/// The same version as somebody else would like it to be: another package, another go.mod.
pub(crate) fn forged(module: &Module) -> Module {
    module.clone().file("p.go", "package m\n\nconst Evil = true\n").requires("example.com/evil", "v1.0.0")
}

/// A gate over upstreams `u0`, `u1`, … in this order, all public.
pub(crate) fn gate(database: &str, ups: &[&Upstream], more: &str) -> Gate {
    Gate::start(&text(database, ups, more))
}

pub(crate) fn text(database: &str, ups: &[&Upstream], more: &str) -> String {
    let names: Vec<String> = (0..ups.len()).map(|n| format!("u{n}")).collect();
    let tables: String = names.iter().zip(ups).map(|(name, up)| upstream(name, &up.url(), "")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    format!("[egress]\nretries = 0\nfirst_byte = \"600ms\"\n{database}{tables}{}", route("*", &names, more))
}

/// All files below a folder, by their path in it, temporary ones aside.
pub(crate) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten().flatten().filter(|e| e.file_name() != ".tmp") {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                // What is being renamed at this moment is seen under its other name.
                _ => {
                    let name = entry.path().strip_prefix(folder).unwrap().display().to_string();
                    found.extend(fs::read(entry.path()).ok().map(|bytes| (name, bytes)));
                }
            }
        }
    }
    found
}

/// The names of the kept zips and go.mod files of all upstreams.
pub(crate) fn kept(gate: &Gate) -> Vec<String> {
    let names = files(&gate.dir.path().join("cache")).into_iter().map(|(name, _)| name);
    let is_part = |name: &String| Path::new(name).extension().is_some_and(|e| e == "zip" || e == "mod");
    let mut kept: Vec<_> = names.filter(|name| is_part(name) && !name.starts_with('.')).collect();
    kept.sort();
    kept
}

/// That nothing of a module is anywhere below the cache folder.
pub(crate) fn assert_nowhere(gate: &Gate, bad: &Module) {
    for (name, bytes) in files(&gate.dir.path().join("cache")) {
        assert!(bytes != bad.zip() && bytes != bad.go_mod.as_bytes(), "{name} is not what it has to be");
    }
}

pub(crate) fn body(module: &Module, part: &str) -> Vec<u8> {
    match part {
        "info" => module.info(),
        "mod" => module.go_mod.clone().into_bytes(),
        _ => module.zip(),
    }
}

#[test]
fn what_is_kept_was_proven_and_then_nobody_is_asked_again() {
    let modules = [module(), Module::new("example.com/Upper/large", "v1.2.0").bulk(700_000)];
    let up = Upstream::serving(&modules);
    let mut database = Sumdb::knowing(&modules);
    // More than one tile, on two levels.
    database.fill(300);
    let server = database.serve();
    let config = text(&database.table(&server), &[&up], "");
    let first = Gate::start(&config);
    for module in &modules {
        for part in PARTS {
            let answer = first.get(&module.url(part));
            assert!(answer.status == 200 && answer.whole && answer.body == body(module, part), "{part}: {}", answer.text());
        }
    }
    assert_eq!(lookups(&server), 2, "one a version");
    let expected = [
        "u0/example.com/!upper/large/@v/v1.2.0.mod",
        "u0/example.com/!upper/large/@v/v1.2.0.zip",
        "u0/example.com/m/@v/v1.0.0.mod",
        "u0/example.com/m/@v/v1.0.0.zip",
    ];
    eventually("all is kept", || kept(&first) == expected);
    for (path, sum) in
        expected.iter().zip([go_mod_sum(&modules[1]), zip_sum(&modules[1]), go_mod_sum(&modules[0]), zip_sum(&modules[0])])
    {
        let note = fs::read_to_string(first.dir.path().join("cache/.sums").join(path)).unwrap();
        assert!(note.contains(&sum) && note.contains("sum.example.org"), "{path}: {note}");
    }
    // From memory, from disk, from disk when everybody is gone.
    let ask_all = |gate: &Gate| {
        up.forget();
        server.forget();
        for module in &modules {
            for part in PARTS {
                assert!(gate.get(&module.url(part)).body == body(module, part), "{part}");
                assert!(gate.get(&format!("/cached-only{}", module.url(part))).body == body(module, part), "{part}");
            }
        }
        assert_eq!((up.asked(), server.asked()), (vec![], vec![]));
    };
    ask_all(&first);
    let second = Gate::start_in(first.into_dir(), &config);
    ask_all(&second);
    up.only(Reply::Status(500));
    server.only(Reply::Status(500));
    ask_all(&Gate::start_in(second.into_dir(), &config));
}

#[test]
fn a_mismatch_is_corrupt_and_the_next_upstream_is_asked() {
    let module = module();
    let bad = forged(&module);
    let (wrong, right) = (Upstream::serving(std::slice::from_ref(&bad)), Upstream::serving(std::slice::from_ref(&module)));
    let database = Sumdb::knowing(std::slice::from_ref(&module));
    let server = database.serve();
    for (part, other) in [("mod", "zip"), ("zip", "mod")] {
        // Corrupt answers go on whatever the fallback rule is.
        let gate = gate(&database.table(&server), &[&wrong, &right], "fallback = \"not-found\"");
        for part in [part, other] {
            let answer = gate.get(&module.url(part));
            assert!(answer.status == 200 && answer.body == body(&module, part), "{part}: {}", answer.text());
            eventually("it is kept", || kept(&gate).contains(&format!("u1/example.com/m/@v/v1.0.0.{part}")));
        }
        assert_eq!(kept(&gate).len(), 2, "{:?}", kept(&gate));
        assert_nowhere(&gate, &bad);
        assert!(gate.log().contains("checksum mismatch"), "{}", gate.log());
    }
    // Where nobody has the right one.
    let gate = gate(&database.table(&server), &[&wrong], "");
    for part in ["mod", "zip"] {
        let answer = gate.get(&module.url(part));
        assert_eq!(answer.status, 502);
        assert!(answer.text().contains("u0: corrupt: checksum mismatch"), "{}", answer.text());
    }
    assert_eq!(kept(&gate), Vec::<String>::new());
    assert_nowhere(&gate, &bad);
}

#[test]
fn a_zip_with_the_right_files_packed_otherwise_is_as_good() {
    // The sum is over the files, not over the zip.
    let module = module();
    let mut out = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, contents) in module.files.iter().rev().chain([(&"go.mod".to_owned(), &module.go_mod.clone().into_bytes())]) {
        out.start_file(format!("example.com/m@v1.0.0/{name}"), stored).unwrap();
        std::io::Write::write_all(&mut out, contents).unwrap();
    }
    let other = out.finish().unwrap().into_inner();
    assert!(other != module.zip());
    let up = Upstream::start();
    up.set(&module.url("zip"), Reply::Good(other.clone()));
    let database = Sumdb::knowing(std::slice::from_ref(&module));
    assert!(gate(&database.table(&database.serve()), &[&up], "").get(&module.url("zip")).body == other);
}

#[test]
fn a_large_zip_that_does_not_match_is_never_whole_and_the_next_asker_gets_the_good_one() {
    type Wrap = fn(Vec<u8>) -> Reply;
    let wraps: [Wrap; 3] = [Reply::Good, Reply::Chunked, |zip| Reply::Slow(zip, 100_000, Duration::from_millis(20))];
    for wrap in wraps {
        let module = module().bulk(900_000);
        let bad = forged(&module);
        let (wrong, right) = (Upstream::start(), Upstream::serving(std::slice::from_ref(&module)));
        wrong.set(&bad.url("zip"), wrap(bad.zip()));
        let database = Sumdb::knowing(std::slice::from_ref(&module));
        let gate = gate(&database.table(&database.serve()), &[&wrong, &right], "");
        let answer = gate.get(&module.url("zip"));
        assert!(!answer.whole && answer.body.len() < bad.zip().len(), "{} {}", answer.status, answer.whole);
        eventually("the good one comes", || {
            let answer = gate.get(&module.url("zip"));
            assert!(!answer.whole || answer.body == module.zip());
            answer.whole
        });
        assert_eq!(wrong.count(&module.url("zip")), 1, "nobody is sent the bad one twice");
        eventually("it is kept", || kept(&gate) == ["u1/example.com/m/@v/v1.0.0.zip"]);
        assert_nowhere(&gate, &bad);
    }
}

#[test]
fn what_the_database_does_not_know_is_refused() {
    let module = module();
    let (up, absent) = (Upstream::serving(std::slice::from_ref(&module)), Upstream::start());
    let database = Sumdb::knowing(&[]);
    let server = database.serve();
    let first = gate(&database.table(&server), &[&absent, &up], "fallback = \"any-error\"");
    assert_eq!(first.get(&module.url("info")).status, 200);
    for part in ["mod", "zip"] {
        for _ in 0..3 {
            let answer = first.get(&module.url(part));
            // Whoever goes on to the next proxy after a 404 does not after this one.
            assert_eq!((answer.status, answer.text().lines().count()), (403, 1), "{}", answer.text());
            assert!(answer.text().contains("the checksum database does not know it"), "{}", answer.text());
        }
    }
    assert_eq!(lookups(&server), 1, "it is remembered for a while");
    assert_eq!(kept(&first), Vec::<String>::new());
    // What nobody has is still not there.
    let second = gate(&database.table(&server), &[&absent], "");
    assert_eq!((second.get(&module.url("mod")).status, second.get(&module.url("zip")).status), (404, 404));
}

#[test]
fn a_database_that_is_not_there_stops_what_is_new_and_it_is_well_again_when_it_is_back() {
    let module = module();
    let up = Upstream::serving(std::slice::from_ref(&module));
    let database = Sumdb::knowing(std::slice::from_ref(&module));
    let truncated = Reply::Truncate(database.head().into_bytes(), 10);
    for (failure, status) in [
        (Reply::Status(500), 502),
        (Reply::Status(403), 502),
        (Reply::Close, 502),
        (truncated, 502),
        (Reply::Good(b"<html>log in</html>".to_vec()), 502),
        (Reply::Good(Vec::new()), 502),
        (Reply::Hang, 504),
    ] {
        let server = Upstream::always(failure.clone());
        let gate = gate(&database.table(&server), &[&up], "");
        for part in ["mod", "zip"] {
            let answer = gate.get(&module.url(part));
            assert_eq!(answer.status, status, "{failure:?}: {}", answer.text());
            assert!(answer.text().contains("not verified: "), "{}", answer.text());
        }
        assert_eq!(kept(&gate), Vec::<String>::new());
        database.publish(&server, "");
        eventually("it is well again", || gate.get(&module.url("zip")).body == module.zip());
        eventually("the go.mod too", || gate.get(&module.url("mod")).status == 200);
    }
}

#[test]
fn a_database_that_lies_proves_nothing() {
    let modules = [module(), Module::new("example.com/n", "v1.0.0"), Module::new("example.com/o", "v1.0.0")];
    let up = Upstream::serving(&modules);
    let mut database = Sumdb::knowing(&modules[..1]);
    let server = database.serve();
    let gate = gate(&database.table(&server), &[&up], "");
    assert_eq!(gate.get(&modules[0].url("zip")).status, 200);
    let refused = |module: &Module, why: &str| {
        let answer = gate.get(&module.url("zip"));
        assert!(answer.status == 502 && answer.text().contains(why), "{} {}", answer.status, answer.text());
    };
    // A record that is not the one in the tree: another text, another number, another version's.
    let before = database.fork(6);
    database.add(&modules[1]);
    let (head, right) = (database.head(), crate::support::sumdb::go_sum(&modules[1]));
    let evil = right.replace(&zip_sum(&modules[1]), &zip_sum(&forged(&modules[1])));
    let path = "/lookup/example.com/n@v1.0.0";
    database.publish(&server, "");
    for (answer, why) in [
        (format!("6\n{evil}\n{head}"), "record 6 is another in its signed tree"),
        (format!("5\n{right}\n{head}"), "record 5 is another in its signed tree"),
        (format!("7\n{right}\n{head}"), "past the end of its tree"),
        (format!("5\n{}\n{head}", crate::support::sumdb::go_sum(&modules[0])), "says nothing of this version"),
        (format!("6\n{right}\n{}", head.replace("\n7\n", "\n8\n")), "signature"),
        (format!("6\n{right}\n{}", Sumdb::new("sum.example.org").signed(&head[..=head.find("\n\n").unwrap()])), "not signed"),
        (format!("06\n{right}\n{head}"), "no record"),
        (right.clone(), "no record"),
    ] {
        server.set(path, Reply::Good(answer.into_bytes()));
        refused(&modules[1], why);
    }
    // Another history under the same key.
    let mut forked = before.fork(2);
    forked.fill(50);
    forked.add(&modules[2]);
    forked.publish(&server, "");
    refused(&modules[2], "SECURITY");
    assert!(gate.log().contains("SECURITY"), "{}", gate.log());
    let evidence = files(&gate.dir.path().join("cache/.sumdb"));
    let evidence: Vec<_> = evidence.iter().filter(|(name, _)| name.contains("evidence/")).collect();
    assert_eq!(evidence.len(), 1, "both heads are kept");
    assert!(String::from_utf8_lossy(&evidence[0].1).contains(&forked.head()));
    assert_eq!(kept(&gate).len(), 1, "{:?}", kept(&gate));
    // When it tells the truth again, it is believed again.
    database.add(&modules[2]);
    database.publish(&server, "");
    assert!(gate.get(&modules[1].url("zip")).body == modules[1].zip());
    assert!(gate.get(&modules[2].url("zip")).body == modules[2].zip());
    // What the head was outlives a restart.
    forked.publish(&server, "");
    forked.add(&Module::new("example.com/p", "v1.0.0"));
    forked.publish(&server, "");
    let p = Upstream::serving(&[Module::new("example.com/p", "v1.0.0")]);
    let again = Gate::start_in(gate.into_dir(), &text(&database.table(&server), &[&p], ""));
    let answer = again.get("/example.com/p/@v/v1.0.0.mod");
    assert!(answer.status == 502 && answer.text().contains("SECURITY"), "{}", answer.text());
}

#[test]
fn a_herd_for_one_cold_zip_makes_one_fetch_and_one_look_up() {
    let module = module().bulk(300_000);
    let up = Upstream::serving(std::slice::from_ref(&module));
    let database = Sumdb::knowing(std::slice::from_ref(&module));
    let server = database.serve();
    let gate = gate(&database.table(&server), &[&up], "");
    up.set(&module.url("zip"), Reply::Slow(module.zip(), 50_000, Duration::from_millis(40)));
    let askers: Vec<_> = (0..64)
        .map(|_| {
            let (address, path) = (gate.address.clone(), module.url("zip"));
            thread::spawn(move || get(&address, &path))
        })
        .collect();
    for asker in askers {
        let answer = asker.join().unwrap();
        assert!(answer.whole && answer.body == module.zip(), "{}", answer.status);
    }
    assert_eq!((up.count(&module.url("zip")), lookups(&server)), (1, 1));
}

#[test]
fn the_go_command_proves_it_all_again_by_what_is_passed_on() {
    let modules = [module(), Module::new("example.com/Upper", "v1.1.0").requires("example.com/m", "v1.0.0")];
    let up = Upstream::serving(&modules);
    let mut database = Sumdb::knowing(&modules);
    database.fill(600);
    let server = database.serve();
    let gate = gate(&database.table(&server), &[&up], "");
    let download = |gate: &Gate| {
        let go = Go::with_proxy(&gate.url()).env("GOSUMDB", &database.verifier());
        go.main_module("module example.org/main\n\ngo 1.21\n\nrequire example.com/Upper v1.1.0\n");
        go.ok(&["mod", "download", "all"]);
        assert!(go.ok(&["mod", "verify"]).contains("all modules verified"));
    };
    download(&gate);
    // And once more when the database and the upstream are gone.
    up.only(Reply::Close);
    server.only(Reply::Close);
    download(&gate);
    let config = text(&database.table(&server), &[&up], "");
    download(&Gate::start_in(gate.into_dir(), &config));
}

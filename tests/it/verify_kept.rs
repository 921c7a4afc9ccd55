//! Files that came into the cache folder by other hands, directories, and what is asked of nobody.

use std::fs;

use crate::support::gate::{Gate, route, upstream};
use crate::support::modules::Module;
use crate::support::sumdb::{Sumdb, lookups};
use crate::support::upstream::{Reply, Upstream};
use crate::verify::{assert_nowhere, body, files, forged, gate, kept, text};

fn put(gate_dir: &std::path::Path, module: &Module, parts: &[&str]) {
    for part in parts {
        let path = gate_dir.join(format!("cache/u0{}", module.url(part)));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, body(module, part)).unwrap();
    }
}

#[test]
fn files_put_there_by_hand_are_looked_at_when_they_are_first_used() {
    let small = Module::new("example.com/m", "v1.0.0");
    let large = Module::new("example.com/m", "v1.1.0").bulk(900_000);
    let (bad_small, bad_large) = (Module::new("example.com/n", "v1.0.0"), Module::new("example.com/n", "v1.1.0").bulk(900_000));
    let modules = [small.clone(), large.clone(), bad_small.clone(), bad_large.clone()];
    let up = Upstream::serving(&modules);
    let database = Sumdb::knowing(&modules);
    let server = database.serve();
    let dir = tempfile::tempdir().unwrap();
    for module in [&small, &large] {
        put(dir.path(), module, &["info", "mod", "zip"]);
    }
    for module in [&bad_small, &bad_large] {
        put(dir.path(), &forged(module), &["mod", "zip"]);
    }
    let gate = Gate::start_in(dir, &text(&database.table(&server), &[&up], ""));
    for module in [&small, &large] {
        for part in ["mod", "zip"] {
            assert!(gate.get(&module.url(part)).body == body(module, part), "{part}");
        }
    }
    assert_eq!((up.asked(), lookups(&server)), (vec![], 2), "they are good, and were looked up");
    for module in [&bad_small, &bad_large] {
        for part in ["mod", "zip"] {
            let path = format!("{}{}", "u0", module.url(part));
            assert!(gate.get(&module.url(part)).body == body(module, part), "{part}, from the upstream");
            let aside = gate.dir.path().join("cache/.bad").join(&path);
            assert!(fs::read(&aside).unwrap() == body(&forged(module), part), "{path} was put aside");
            crate::support::eventually("the good one is kept", || {
                fs::read(gate.dir.path().join("cache").join(&path)).is_ok_and(|bytes| bytes == body(module, part))
            });
        }
    }
    assert!(gate.log().contains("put aside"), "{}", gate.log());
    up.forget();
    server.forget();
    let again = Gate::start_in(gate.into_dir(), &text(&database.table(&server), &[&up], ""));
    for module in &modules {
        for part in ["mod", "zip"] {
            assert!(again.get(&module.url(part)).body == body(module, part));
        }
    }
    assert_eq!((up.asked(), server.asked()), (vec![], vec![]), "they are looked at once");
}

#[test]
fn files_put_there_by_hand_wait_for_a_database_that_is_not_there() {
    let module = Module::new("example.com/m", "v1.0.0").bulk(300_000);
    let up = Upstream::serving(std::slice::from_ref(&module));
    let database = Sumdb::knowing(std::slice::from_ref(&module));
    let server = Upstream::always(Reply::Status(500));
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &module, &["info", "mod", "zip"]);
    let gate = Gate::start_in(dir, &text(&database.table(&server), &[&up], ""));
    for part in ["mod", "zip"] {
        assert_eq!(gate.get(&module.url(part)).status, 502, "{part}");
    }
    assert_eq!(files(&gate.dir.path().join("cache/.bad")), vec![], "nothing is known against them");
    database.publish(&server, "");
    crate::support::eventually("it is well again", || gate.get(&module.url("zip")).body == module.zip());
    assert_eq!(up.asked(), Vec::<String>::new());
}

#[test]
fn with_the_cache_alone_such_files_are_served_where_their_sums_are_known() {
    let (good, bad) = (Module::new("example.com/m", "v1.0.0"), Module::new("example.com/n", "v1.0.0"));
    let modules = [good.clone(), bad.clone()];
    let up = Upstream::serving(&modules);
    let database = Sumdb::knowing(&modules);
    let server = database.serve();
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &good, &["info", "mod", "zip"]);
    put(dir.path(), &forged(&bad), &["info", "mod", "zip"]);
    let gate = Gate::start_in(dir, &text(&database.table(&server), &[&up], ""));
    let alone = |module: &Module, part: &str| gate.get(&format!("/cached-only{}", module.url(part)));
    for part in ["mod", "zip"] {
        assert_eq!((alone(&good, part).status, alone(&bad, part).status), (404, 404), "{part}: nothing is known of it");
    }
    assert_eq!((alone(&good, "info").status, up.asked(), server.asked()), (200, vec![], vec![]));
    // The look-ups came by somebody's go command.
    for module in &modules {
        let path = format!("{}/lookup/{}@{}", database.below(), module.path, module.version);
        assert_eq!(gate.get(&path).status, 200);
    }
    server.only(Reply::Status(500));
    for part in ["mod", "zip"] {
        assert!(alone(&good, part).body == body(&good, part), "{part}");
        assert_eq!(alone(&bad, part).status, 404, "{part}");
        let aside = gate.dir.path().join("cache/.bad/u0").join(&bad.url(part)[1..]);
        assert!(fs::read(&aside).unwrap() == body(&forged(&bad), part), "{part} was put aside");
    }
    assert_eq!(up.asked(), Vec::<String>::new());
    assert_eq!(gate.get(&bad.url("zip")).body, bad.zip());
}

#[test]
fn directories_are_held_against_the_database_too() {
    let good = Module::new("example.com/m", "v1.0.0").bulk(200_000);
    let (bad, unknown) = (Module::new("example.com/n", "v1.0.0").bulk(200_000), Module::new("example.com/o", "v1.0.0"));
    let tree = tempfile::tempdir().unwrap();
    for module in [&good, &forged(&bad), &unknown] {
        for part in ["info", "mod", "zip"] {
            let path = tree.path().join(&module.url(part)[1..]);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, body(module, part)).unwrap();
        }
    }
    let up = Upstream::serving(std::slice::from_ref(&bad));
    let database = Sumdb::knowing(&[good.clone(), bad.clone()]);
    let server = database.serve();
    let directory = format!("[upstreams.tree]\ntype = \"directory\"\npath = {:?}\n", tree.path());
    let tables = database.table(&server) + &directory + &upstream("u0", &up.url(), "");
    let first = Gate::start(&(tables.clone() + &route("*", &["tree", "u0"], "")));
    for part in ["mod", "zip"] {
        assert!(first.get(&good.url(part)).body == body(&good, part), "{part}");
        assert!(first.get(&bad.url(part)).body == body(&bad, part), "{part}, from the next");
        assert_eq!(first.get(&unknown.url(part)).status, 403, "{part}");
        assert!(first.get(&format!("/cached-only{}", good.url(part))).body == body(&good, part), "{part}");
    }
    assert!(fs::read(tree.path().join(&bad.url("zip")[1..])).unwrap() == forged(&bad).zip(), "a directory is only read");
    assert_nowhere(&first, &forged(&bad));
    let alone = Gate::start(&(tables + &route("*", &["tree"], "")));
    // Now with the cache alone, where nothing is known yet.
    for part in ["mod", "zip"] {
        assert_eq!(alone.get(&format!("/cached-only{}", good.url(part))).status, 404, "{part}");
    }
    for part in ["mod", "zip"] {
        assert_eq!(alone.get(&bad.url(part)).status, 502, "{part}");
        assert_eq!(alone.get(&good.url(part)).status, 200, "{part}");
    }
    let answer = alone.get(&bad.url("zip"));
    assert!(answer.text().contains("tree: corrupt: checksum mismatch"), "{}", answer.text());
}

#[test]
fn a_proxy_that_passes_the_database_on_is_asked_first() {
    let module = Module::new("example.com/m", "v1.0.0");
    let (up, direct) = (Upstream::serving(std::slice::from_ref(&module)), Upstream::always(Reply::Status(500)));
    let database = Sumdb::knowing(std::slice::from_ref(&module));
    database.publish(&up, &database.below());
    let table = database.table(&direct).replace("via = [\"direct\"]\n", "");
    let first = gate(&table, &[&up], "");
    assert!(first.get(&module.url("zip")).body == module.zip());
    assert_eq!((lookups(&up), direct.asked().len()), (1, 0));
    assert_eq!(up.count(&format!("{}/supported", database.below())), 1);
    // One that does not: straight, then.
    let (plain, direct) = (Upstream::serving(std::slice::from_ref(&module)), database.serve());
    let table = database.table(&direct).replace("via = [\"direct\"]\n", "");
    let second = gate(&table, &[&plain], "");
    assert!(second.get(&module.url("zip")).body == module.zip());
    assert_eq!((lookups(&plain), lookups(&direct)), (0, 1));
    // One that says of all that it is not there is not believed while the database itself knows it.
    let (liar, direct) = (Upstream::serving(std::slice::from_ref(&module)), database.serve());
    liar.set(&format!("{}/supported", database.below()), Reply::Good(Vec::new()));
    let table = database.table(&direct).replace("via = [\"direct\"]\n", "");
    let third = gate(&table, &[&liar], "");
    assert!(third.get(&module.url("zip")).body == module.zip());
}

#[test]
fn the_database_is_handed_on_byte_by_byte() {
    let module = Module::new("example.com/Upper", "v1.0.0");
    let up = Upstream::serving(std::slice::from_ref(&module));
    let mut database = Sumdb::knowing(std::slice::from_ref(&module));
    database.fill(400);
    let server = database.serve();
    let gate = gate(&database.table(&server), &[&up], "");
    let below = database.below();
    let answers = database.answers();
    let wanted: Vec<_> = answers.iter().filter(|(path, _)| !path.contains("filler") && !path.ends_with("supported")).collect();
    for round in 0..3 {
        // Every form of every tile, but not all of them each time.
        for (path, body) in wanted.iter().skip(round * 7).step_by(31).chain([&wanted[0], &wanted[1]]) {
            let answer = gate.get(&format!("{below}{path}"));
            assert!(answer.status == 200 && answer.body == *body, "{path}: {}", answer.status);
        }
    }
    assert_eq!((gate.get(&format!("{below}/supported")).status, up.asked().len()), (200, 0));
    server.only(Reply::Status(500));
    for (path, body) in [wanted[0], wanted[1]] {
        assert!(gate.get(&format!("{below}{path}")).body == *body, "{path}");
    }
    for path in ["/latest", "/lookup/example.com/!upper@v1.0.0"] {
        assert_eq!(gate.get(&format!("/cached-only{below}{path}")).status, 200, "{path}");
    }
    assert_eq!(gate.get(&format!("/cached-only{below}/lookup/example.com/m@v1.0.0")).status, 404);
    assert_eq!(gate.get(&format!("{below}/lookup/example.com/other@v1.0.0")).status, 502, "an outage is no absence");
    for path in ["/sumdb/sum.golang.org/supported", "/sumdb/other/latest", "/sumdb/", "/sumdb/sum.example.org", "/sumdb/x/y/z"] {
        assert_eq!(gate.get(path).status, 404, "{path}");
    }
    for (path, status) in [
        ("/lookup/example.com/m@main", 400),
        ("/lookup/example.com/../m@v1.0.0", 400),
        ("/lookup/example.com/m", 404),
        ("/tile/8/0/0", 404),
        ("/tile/8/0/../../latest", 404),
        ("/tile/4/0/000", 404),
        ("/", 404),
    ] {
        assert_eq!(gate.get(&format!("{below}{path}")).status, status, "{path}");
    }
    assert_eq!(kept(&gate), Vec::<String>::new());
}

#[test]
fn what_a_database_answered_counts_goes_with_the_rest_and_is_asked_for_again() {
    let modules: Vec<Module> = (0..3).map(|n| Module::new("example.com/m", &format!("v1.0.{n}"))).collect();
    let (up, database) = (Upstream::serving(&modules), Sumdb::knowing(&modules));
    let server = database.serve();
    let first = gate(&database.table(&server), &[&up], "");
    for module in &modules {
        assert!(first.get(&module.url("zip")).body == module.zip());
    }
    let kept = |gate: &Gate| {
        // Their names alone: what is read here would have been used just now.
        let root = gate.dir.path().join("cache/.sumdb/sum.example.org");
        let all = modgate::store::evict::files(&root).unwrap();
        let names = all.iter().map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
        let (mut answers, mut others): (Vec<_>, Vec<_>) =
            names.partition(|name| name.starts_with("lookup/") || name.starts_with("tile/"));
        others.sort();
        answers.sort();
        (answers, others)
    };
    crate::support::eventually("all is kept", || kept(&first).0.iter().filter(|name| name.starts_with("lookup/")).count() == 3);
    let (answers, others) = kept(&first);
    assert!(
        answers.iter().any(|name| name.starts_with("tile/")) && others.contains(&"latest".to_owned()),
        "{answers:?} {others:?}"
    );
    let dir = first.into_dir();
    let long_ago = fs::FileTimes::new().set_accessed(std::time::SystemTime::UNIX_EPOCH);
    for name in &answers {
        let path = dir.path().join("cache/.sumdb/sum.example.org").join(name);
        fs::File::options().append(true).open(path).unwrap().set_times(long_ago).unwrap();
    }
    let bytes: u64 = files(&dir.path().join("cache/u0")).iter().map(|(_, bytes)| bytes.len() as u64).sum();
    // A bound that what was fetched meets alone: so what the database said has to go. The count at the start finds that out.
    let bounded = |bound: u64| format!("[cache]\nmax_size = \"{bound}B\"\n\n{}", text(&database.table(&server), &[&up], ""));
    let second = Gate::start_in(dir, &bounded(bytes * 10 / 9 + 10));
    crate::support::eventually("it went", || kept(&second).0.is_empty());
    assert_eq!(kept(&second).1, others, "the head that was seen stays");
    assert_eq!(files(&second.cache("u0")).iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>(), bytes, "and so do the zips");
    // What is gone is proven anew.
    second.command(&["gc", "--max-size", "0"]);
    server.forget();
    let third = Gate::start_in(second.into_dir(), &bounded(1 << 20));
    assert!(third.get(&modules[1].url("zip")).body == modules[1].zip());
    assert_eq!(lookups(&server), 1);
}

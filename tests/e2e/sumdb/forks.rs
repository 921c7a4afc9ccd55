//! A database that shows one history to some and another to others, under its own key: what its clients are there to catch.
//! modgate gives nothing of the other history on, keeps the evidence, and does not forget which history it has seen.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::modules::Module;

use super::database::{Database, pads};
use super::{below, cached_files, kept, kept_files, kept_head, lookup, modules, named, plain, sumdb};

fn evidence(gate: &Gate) -> Vec<PathBuf> {
    kept_files(gate, "evidence")
}

/// Everything that is kept of the database but the evidence.
fn everything(gate: &Gate) -> Vec<(PathBuf, Vec<u8>)> {
    let files = kept_files(gate, "").into_iter().filter(|file| !file.starts_with("evidence"));
    files.map(|file| (file.clone(), fs::read(kept(gate).join(file)).unwrap())).collect()
}

/// A gate that has seen the honest history, and what it keeps of that.
fn gate_that_knows(database: &Database) -> Gate {
    let gate = Gate::start(&plain(database));
    let names = [named(&modules()[0]), pads(&[0]).remove(0)];
    let found = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &names);
    assert!(found.all_good(), "{found:?}");
    gate
}

/// Asks for what is not kept yet, which is refused, and for what is, which is given.
fn nothing_of_the_fork_comes_through(gate: &Gate, what: &str) {
    let module = &modules()[1];
    for path in [lookup(&named(module)), lookup(&pads(&[7])[0]), module.url("zip"), module.url("mod")] {
        let answer = gate.get(&path);
        assert_eq!(answer.status, 502, "{what}: {path}: {}", answer.text());
    }
    assert_eq!(gate.get(&lookup(&named(&modules()[0]))).status, 200, "{what}: what is proven stays proven");
    assert_eq!(cached_files(&gate.dir.path().join("cache")).len(), 0, "{what}: no file of a module was proven");
}

#[test]
fn another_history_is_refused_with_evidence_and_not_forgotten() {
    // The record that changes is in a tile that modgate has whole, in one that it has in part, and in one that it never saw; the
    // other history is longer than the kept head, and as long.
    for (pad, fork) in [
        (5, "fork=1&grow=3"),
        (5, "fork=1"),
        (20, "fork=20&grow=300"),
        (700, "fork=3&grow=3"),
        (700, "fork=300&grow=3"),
        (700, "fork=300"),
        (700, "fork=699&grow=500"),
        (66_000, "fork=30000&grow=1"),
    ] {
        let what = format!("{pad} {fork}");
        let database = Database::start(pad.max(8), &modules());
        let gate = gate_that_knows(&database);
        let (head, before) = (kept_head(&gate), everything(&gate));
        database.now(fork);
        nothing_of_the_fork_comes_through(&gate, &what);
        assert_eq!(kept_head(&gate), head, "{what}");
        assert_eq!(everything(&gate), before, "{what}: nothing of it is kept");
        let files = evidence(&gate);
        assert!(!files.is_empty(), "{what}: no evidence");
        eventually("the log speaks of it", || gate.log().lines().any(|l| l.contains("ERROR") || l.contains("\"level\":\"error\"")));

        // The evidence is enough to show it to others: both signed heads are in it.
        let said: String = files.iter().map(|f| fs::read_to_string(kept(&gate).join("evidence").join(f)).unwrap()).collect();
        let root = |head: &str| head.lines().nth(2).unwrap().to_owned();
        let other = database.get("/latest").text();
        assert!(said.contains(&root(&head)), "{what}: the kept head is not in the evidence:\n{said}");
        assert!(said.contains("— sum.test ") && said.matches("go.sum database tree").count() >= 2, "{what}:\n{said}");
        assert!(said.contains(&root(&other)), "{what}: the other head is not in the evidence:\n{said}");

        // The same after a restart, and when the other history goes on.
        let gate = Gate::start_in(gate.into_dir(), &plain(&database));
        nothing_of_the_fork_comes_through(&gate, &what);
        assert_eq!(kept_head(&gate), head, "{what}");

        // The kept history is honest, and goes on where the database shows it again.
        database.now("honest");
        let names: Vec<String> = modules().iter().map(named).collect();
        let found = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &names);
        assert!(found.all_good(), "{what}: {found:?}");
        assert_eq!(gate.get(&modules()[1].url("zip")).status, 200, "{what}");
    }
}

#[test]
fn the_evidence_does_not_grow_with_each_question() {
    let database = Database::start(8, &modules());
    let gate = gate_that_knows(&database);
    database.now("fork=1&grow=3");
    for n in 0..60 {
        assert_eq!(gate.get(&lookup(&pads(&[n % 8])[0])).status, if n % 8 == 0 { 200 } else { 502 });
    }
    let files = evidence(&gate);
    assert!((1..=10).contains(&files.len()), "{files:?}");
}

#[test]
fn a_client_is_told_of_no_other_history_either() {
    let database = Database::start(400, &modules());
    let gate = gate_that_knows(&database);
    let head = kept_head(&gate);
    database.now("fork=2&grow=400");
    // Neither the head nor the tiles of it.
    let latest = gate.get(&below("latest"));
    assert!(latest.status == 502 || latest.text() == head, "{} {}", latest.status, latest.text());
    // A tile past the kept head may be handed on to whoever knows a newer one, who proves it; it is not kept.
    let before = everything(&gate);
    for path in ["tile/8/0/001", "tile/8/0/002", "tile/8/1/000.p/3"] {
        gate.get(&below(path));
    }
    assert_eq!(everything(&gate), before);
    for path in ["tile/8/0/000", "tile/8/0/001.p/145", "tile/8/0/001.p/144"] {
        let ours = gate.get(&below(path));
        database.now("honest");
        let honest = database.get(&format!("/{path}")).body;
        database.now("fork=2&grow=400");
        assert!(ours.status == 200 && ours.body == honest, "{path}: {} bytes of the other history", ours.body.len());
    }
    let store = tempfile::tempdir().unwrap();
    let found = database.client_through(
        &gate.url(),
        store.path(),
        &[named(&modules()[0]), named(&Module::new("example.com/plain", "v1.1.0"))],
    );
    assert!(found.lines[0].contains(" ok ") && found.lines[1].contains(" error "), "{found:?}");
}

#[test]
fn a_head_that_goes_back_does_not_take_the_kept_one_back() {
    let database = Database::start(600, &modules());
    let gate = gate_that_knows(&database);
    let head = kept_head(&gate);
    assert_eq!(super::size_of(&head), 601);
    for back in [1, 10, 256, 300, 512, 600] {
        database.now(&format!("rollback={back}"));
        // Old, and true: it may be given or refused, but changes nothing.
        let answer = gate.get(&lookup(&pads(&[back - 1])[0]));
        assert!(matches!(answer.status, 200 | 502), "{back}: {} {}", answer.status, answer.text());
        assert_eq!(kept_head(&gate), head, "{back}");
        let latest = gate.get(&below("latest"));
        assert_eq!((latest.status, latest.text()), (200, head.clone()), "{back}");
    }
    let gate = Gate::start_in(gate.into_dir(), &plain(&database));
    assert_eq!(gate.get(&below("latest")).text(), head, "after a restart too");
    assert_eq!(kept_head(&gate), head);
    // Nothing that modgate gave is beyond its own head.
    database.now("honest");
    let names = [pads(&[0, 9, 255, 299, 511, 599]), modules().iter().map(named).collect()].concat();
    let found = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &names);
    assert!(found.all_good(), "{found:?}");
}

#[test]
fn a_proxy_with_another_history_does_not_keep_an_honest_database_from_being_heard() {
    let database = Database::start(600, &modules());
    let config = sumdb(&database, &["u1", "direct"]) + &upstream("u1", &database.url(), "") + &route("*", &["u1"], "");
    let gate = Gate::start(&config);
    let names: Vec<String> = modules().iter().map(named).collect();
    let found = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &names);
    assert!(found.all_good(), "{found:?}");
    let before = everything(&gate);
    database.now("fork=2&grow=3&on=proxy");
    // Either it is refused, since somebody cheats, or it is the honest answer.
    for name in pads(&[3, 300, 599]) {
        let answer = gate.get(&lookup(&name));
        let honest = database.get(&format!("/lookup/{name}")).text();
        assert!(answer.status == 502 || answer.text() == honest, "{name}: {} {}", answer.status, answer.text());
    }
    assert!(!evidence(&gate).is_empty());
    eventually("the log speaks of it", || gate.log().contains("ERROR"));
    for (file, bytes) in before {
        let now = fs::read(kept(&gate).join(&file)).unwrap();
        assert!(now == bytes || file == Path::new("latest"), "{} is another one now", file.display());
    }
    database.now("honest");
    let names = [names, pads(&[3, 300, 599])].concat();
    let found = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &names);
    assert!(found.all_good(), "{found:?}");
}

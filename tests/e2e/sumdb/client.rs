//! An honest database behind modgate: x/mod's client finds there what it finds at the database itself, the second time without
//! a question to it, and when the database is gone.

use std::thread;

use crate::support::gate::Gate;

use super::database::{Database, pads};
use super::{kept_head, lookup, modules, named, plain, size_of};

/// Made-up records at all the edges of the tiles of a tree of so many.
fn edges(size: usize) -> Vec<String> {
    let edges = [0, 1, 254, 255, 256, 257, 511, 512, 65_535, 65_536, size.saturating_sub(1)];
    pads(&edges.into_iter().filter(|n| *n < size).collect::<Vec<_>>())
}

fn names(pad: usize) -> Vec<String> {
    edges(pad).into_iter().chain(modules().iter().map(named)).collect()
}

#[test]
fn the_client_finds_through_modgate_what_it_finds_at_the_database() {
    for pad in [0, 255, 256, 700, 65_700] {
        let mut database = Database::start(pad, &modules());
        let gate = Gate::start(&plain(&database));
        let (names, store) = (names(pad), tempfile::tempdir().unwrap());
        let through = database.client_through(&gate.url(), store.path(), &names);
        assert!(through.all_good(), "{pad}: {through:?}");
        assert_eq!(through, database.client(&names), "{pad}");
        assert_eq!(size_of(&kept_head(&gate)), pad + modules().len(), "{pad}: the head of the last lookup is kept");

        // Warm: nobody is asked again, by whichever client, in whichever order.
        database.forget();
        let backwards: Vec<String> = names.iter().rev().cloned().collect();
        let again = database.client_through(&gate.url(), store.path(), &names);
        let fresh = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &backwards);
        assert!(again == through && fresh.all_good(), "{pad}: {again:?} {fresh:?}");
        assert_eq!(database.counts().into_iter().collect::<Vec<_>>(), [], "{pad}: everything is kept");

        // The same when it is gone, and modgate has been started again.
        database.stop();
        let gate = Gate::start_in(gate.into_dir(), &plain(&database));
        for names in [&names, &backwards] {
            let gone = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), names);
            assert!(gone.all_good(), "{pad}: {gone:?}");
        }
        let unknown = gate.get(&lookup("example.org/never@v1.0.0"));
        assert!(matches!(unknown.status, 502 | 504), "{pad}: an outage is no 404: {} {}", unknown.status, unknown.text());
    }
}

#[test]
fn what_clients_learnt_at_different_times_fits_together_when_the_database_is_gone() {
    let mut database = Database::start(300, &modules());
    let gate = Gate::start(&plain(&database));
    let all: Vec<String> = modules().iter().map(named).collect();
    // Each of a client of its own, over a tree that grows past the ends of tiles in between.
    for name in &all {
        let one = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), std::slice::from_ref(name));
        assert!(one.all_good(), "{one:?}");
        database.now("grow=150");
    }
    let whole = database.client(&all);
    assert!(size_of(&database.get("/latest").text()) > 1100 && whole.all_good(), "{whole:?}");
    database.stop();
    // Whichever two a client wants, in whichever order, the signed heads that come with them are of one tree, and it can be shown.
    for (n, first) in all.iter().enumerate() {
        for (m, second) in all.iter().enumerate() {
            let store = tempfile::tempdir().unwrap();
            let found = database.client_through(&gate.url(), store.path(), &[first.clone(), second.clone()]);
            assert!(found.all_good(), "{first} {second}: {found:?}");
            assert_eq!(found.lines, [&*whole.lines[n], &*whole.lines[m]]);
        }
    }
}

#[test]
fn a_client_that_knows_a_newer_head_than_modgate_gets_along_with_it() {
    let database = Database::start(300, &modules());
    let gate = Gate::start(&plain(&database));
    let all: Vec<String> = modules().iter().map(named).collect();
    let early = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &all[..1]);
    assert!(early.all_good(), "{early:?}");
    database.now("grow=600");
    // This client has seen the database itself.
    let store = tempfile::tempdir().unwrap();
    let direct = super::database::client(&database.url(), &database.key, store.path(), &pads(&[800]));
    assert!(direct.all_good(), "{direct:?}");
    let before = size_of(&kept_head(&gate));
    assert_eq!(before, 301);
    let found = database.client_through(&gate.url(), store.path(), &all[..1]);
    assert!(found.all_good(), "the tiles of a head that modgate has not seen are given: {found:?}");
    let found = database.client_through(&gate.url(), store.path(), &all);
    assert!(found.all_good(), "{found:?}");
    assert!(size_of(&kept_head(&gate)) > 900, "{}", kept_head(&gate));
}

#[test]
fn a_database_that_drops_the_parts_of_full_tiles_is_no_trouble() {
    let mut database = Database::start(250, &modules());
    let gate = Gate::start(&plain(&database));
    let all: Vec<String> = modules().iter().map(named).collect();
    database.now("nopartial");
    let first = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &all[..1]);
    assert!(first.all_good(), "{first:?}");
    database.now("nopartial&grow=600");
    // An old lookup, whose head of 251 has no tiles of its own any more.
    for names in [&all[..1], &all[..], &pads(&[3, 700])[..]] {
        let found = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), names);
        assert!(found.all_good(), "{found:?}");
    }
    database.stop();
    let found = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &all);
    assert!(found.all_good(), "{found:?}");
}

#[test]
fn many_clients_at_once_make_one_question_each_and_the_newest_head_stays() {
    let database = Database::start(300, &modules());
    let gate = Gate::start(&plain(&database));
    let names: Vec<String> = pads(&[0, 255, 299]).into_iter().chain(modules().iter().map(named)).collect();
    thread::scope(|scope| {
        for n in 0..8 {
            let (database, gate, mut names) = (&database, &gate, names.clone());
            names.rotate_left(n);
            scope.spawn(move || {
                let found = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &names);
                assert!(found.all_good(), "{found:?}");
            });
        }
    });
    let counts = database.counts();
    let twice: Vec<_> = counts.iter().filter(|(path, count)| path.starts_with("/lookup/") && **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(counts.keys().filter(|path| path.starts_with("/lookup/")).count(), names.len());
    assert_eq!(size_of(&kept_head(&gate)), 300 + modules().len());
}

#[test]
fn two_gates_with_one_cache_folder_do_not_take_each_other_back() {
    let database = Database::start(300, &modules());
    let one = Gate::start(&plain(&database));
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(one.dir.path().join("cache"), dir.path().join("cache")).unwrap();
    let two = Gate::start_in(dir, &plain(&database));
    let client = |gate: &Gate, names: &[String]| database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), names);
    assert!(client(&one, &pads(&[3])).all_good());
    database.now("grow=600");
    assert!(client(&two, &pads(&[4, 800])).all_good());
    assert_eq!(size_of(&kept_head(&two)), 900);
    // The first has not seen that head, and now sees one between.
    database.now("rollback=500");
    let found = client(&one, &pads(&[400]));
    assert_eq!(size_of(&kept_head(&one)), 900, "{found:?}");
    database.now("honest");
    for gate in [&one, &two] {
        let found = client(gate, &pads(&[5, 600, 899]));
        assert!(found.all_good(), "{found:?}");
    }
}

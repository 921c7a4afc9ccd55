//! Answers that prove nothing, whatever is wrong with them: they are not given on, nothing of them is kept, another server of the
//! database is asked, and when it is honest again nothing is left of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::upstream::{Reply, Upstream};

use super::database::{Database, pads};
use super::{below, cached_files, kept, kept_files, kept_head, lookup, modules, named, plain, sumdb};

/// What a server can do wrong by itself, whatever the tree. Each lookup with it fails.
const CHEATS: &[&str] =
    &["badsig", "wrongkey", "badtile", "shorttile", "badrecord", "otherrecord=3", "endless", "status=500", "status=403"];

/// No look-up and no module is kept, and of the tiles only those that the tree really has: a cheat may lie about something else.
fn nothing_bad_is_kept(gate: &Gate, database: &Database, what: &str) {
    let none = Vec::<PathBuf>::new();
    assert_eq!(kept_files(gate, "lookup"), none, "{what}");
    assert_eq!(cached_files(&gate.dir.path().join("cache")).into_keys().collect::<Vec<_>>(), none, "{what}");
    for tile in kept_files(gate, "tile") {
        let path = Path::new("tile").join(tile);
        let theirs = database.get(&format!("/{}", path.display())).body;
        assert!(fs::read(kept(gate).join(&path)).unwrap() == theirs, "{what}: {} is not the tree's", path.display());
    }
}

#[test]
fn what_proves_nothing_is_refused_and_leaves_nothing_behind() {
    for (pad, cheat) in CHEATS.iter().flat_map(|cheat| [(20, cheat), (700, cheat)]) {
        let what = format!("{cheat} {pad}");
        let database = Database::start(pad, &modules());
        let gate = Gate::start(&plain(&database));
        database.now(cheat);
        let module = &modules()[0];
        for path in [lookup(&pads(&[5])[0]), lookup(&named(module)), module.url("mod"), module.url("zip")] {
            let answer = gate.get(&path);
            assert_eq!(answer.status, 502, "{what}: {path}: {}", answer.text());
        }
        database.now("honest");
        nothing_bad_is_kept(&gate, &database, &what);
        let names: Vec<String> = pads(&[0, 5]).into_iter().chain(modules().iter().map(named)).collect();
        let found = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &names);
        assert!(found.all_good(), "{what}: {found:?}");
        assert_eq!(found, database.client(&names), "{what}");
        for part in ["mod", "zip", "info"] {
            assert_eq!(gate.get(&module.url(part)).status, 200, "{what}: {part}");
        }
    }
}

#[test]
fn a_warm_gate_does_not_let_go_of_what_it_has() {
    let database = Database::start(700, &modules());
    let gate = Gate::start(&plain(&database));
    let known = [named(&modules()[0]), pads(&[0]).remove(0)];
    let good = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &known);
    assert!(good.all_good(), "{good:?}");
    let head = kept_head(&gate);
    for cheat in CHEATS {
        database.now(&format!("{cheat}&grow=10"));
        let refused = gate.get(&lookup(&pads(&[600])[0]));
        assert_eq!(refused.status, 502, "{cheat}: {}", refused.text());
        let refused = gate.get(&modules()[1].url("zip"));
        assert_eq!(refused.status, 502, "{cheat}: {}", refused.text());
        let again = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &known);
        assert_eq!(again, good, "{cheat}");
        let latest = gate.get(&below("latest"));
        assert!(latest.status == 200 || latest.status == 502, "{cheat}: {}", latest.status);
    }
    let heads = [head, kept_head(&gate)].map(|head| super::size_of(&head));
    assert!(heads[0] <= heads[1], "{heads:?}");
    assert_eq!(kept_files(&gate, "evidence"), Vec::<PathBuf>::new(), "none of these is a fork");
    database.now("honest");
    assert_eq!(gate.get(&lookup(&pads(&[600])[0])).status, 200);
}

#[test]
fn where_the_proxy_cheats_the_database_itself_is_asked() {
    for cheat in CHEATS.iter().chain(&["hang"]) {
        let database = Database::start(300, &modules());
        // Its own two ways: as the upstream u1 passes it on, and itself.
        let config = sumdb(&database, &["u1", "direct"])
            + &upstream("u1", &database.url(), "first_byte = \"1s\"\n")
            + &route("*", &["u1"], "");
        let gate = Gate::start(&config);
        database.now(&format!("{cheat}&on=proxy"));
        let names: Vec<String> = pads(&[0, 5]).into_iter().chain(modules().iter().map(named)).collect();
        let found = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &names);
        assert!(found.all_good(), "{cheat}: {found:?}\n{}", gate.log());
        assert_eq!(found, database.client(&names), "{cheat}");
        let answer = gate.get(&modules()[0].url("zip"));
        assert_eq!((answer.status, answer.body), (200, modules()[0].zip()), "{cheat}");
        assert!(database.counts().keys().any(|path| path.starts_with("/sumdb/")), "{cheat}: the proxy was asked first");
    }
}

#[test]
fn a_proxy_that_knows_nothing_of_the_database_is_passed_over_and_an_honest_one_is_enough() {
    let database = Database::start(300, &modules());
    let bare = Upstream::serving(&modules());
    let config = sumdb(&database, &["u1", "u2"])
        + &upstream("u1", &bare.url(), "")
        + &upstream("u2", &database.url(), "")
        + &route("*", &["u1", "u2"], "");
    let gate = Gate::start(&config);
    let names: Vec<String> = modules().iter().map(named).collect();
    let found = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &names);
    assert!(found.all_good(), "{found:?}");
    let counts = database.counts();
    assert!(counts.keys().all(|path| path.starts_with("/sumdb/sum.test/")), "the database itself is not asked: {counts:?}");
    let asked = bare.asked();
    assert!(asked.iter().all(|path| path.starts_with("/sumdb/sum.test/supported")) && asked.len() == 1, "{asked:?}");
}

#[test]
fn the_ways_are_the_public_upstreams_of_the_routes_where_none_are_named() {
    let database = Database::start(10, &modules());
    let inside = Upstream::serving(&[]);
    let config = format!("[sumdb]\ndatabases = [{:?}]\n", database.entry())
        + &upstream("inside", &inside.url(), "private = true\n")
        + &upstream("u1", &database.url(), "")
        + &route("corp.example", &["inside"], "")
        + &route("*", &["u1"], "");
    let gate = Gate::start(&config);
    assert_eq!(gate.get(&lookup(&pads(&[3])[0])).status, 200);
    assert_eq!(inside.asked(), Vec::<String>::new(), "a private upstream is not asked about the public database");
    assert!(database.counts().keys().all(|path| path.starts_with("/sumdb/")), "{:?}", database.counts());
    // The last resort is the database itself.
    database.now("status=503&on=proxy");
    assert_eq!(gate.get(&lookup(&pads(&[4])[0])).status, 200);
}

#[test]
fn a_database_that_does_not_answer_fails_in_its_time_and_holds_up_nothing_else() {
    let database = Database::start(10, &modules());
    let config = sumdb(&database, &["u1"])
        + &upstream("u1", &database.url(), "first_byte = \"1s\"\ntotal = \"3s\"\n")
        + &route("*", &["u1"], "");
    let gate = Gate::start(&config);
    assert_eq!(gate.get(&lookup(&pads(&[3])[0])).status, 200);
    database.now("hang");
    let answer = gate.get(&lookup(&pads(&[4])[0]));
    assert_eq!(answer.status, 504, "{}", answer.text());
    let answer = gate.get(&modules()[0].url("mod"));
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert_eq!(gate.get(&lookup(&pads(&[3])[0])).status, 200);
    assert_eq!(gate.get(&format!("/{}/@v/list", modules()[0].path)).status, 200, "a list needs no proof");
    database.now("honest");
    // A request that comes at once may still be told what the one before it was told.
    eventually("it goes on", || gate.get(&modules()[0].url("mod")).status == 200);
}

#[test]
fn a_proxy_that_answers_everything_with_a_page_or_knows_less_does_not_hide_the_database() {
    let database = Database::start(300, &modules());
    let page = Upstream::always(Reply::Good(b"<html>please log in</html>".to_vec()));
    let config = sumdb(&database, &["u1", "u2", "direct"])
        + &upstream("u1", &page.url(), "")
        + &upstream("u2", &database.url(), "")
        + &route("*", &["u2"], "");
    let gate = Gate::start(&config);
    database.now("rollback=100&on=proxy");
    let names: Vec<String> = pads(&[0, 99, 100, 299]).into_iter().chain(modules().iter().map(named)).collect();
    let found = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &names);
    assert!(found.all_good(), "{found:?}");
}

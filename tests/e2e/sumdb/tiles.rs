//! What modgate serves of a database byte by byte: tiles whole and in part, the latest head, and what is not there.

use std::fs;
use std::path::PathBuf;

use crate::support::gate::Gate;
use crate::support::http;

use super::database::{Database, NAME, pads};
use super::{below, kept_files, kept_head, lookup, modules, named, plain, size_of};

#[test]
fn a_part_of_a_tile_is_cut_from_the_full_one() {
    let database = Database::start(300, &modules());
    let gate = Gate::start(&plain(&database));
    let widths = [1, 2, 44, 128, 255];
    let parts: Vec<Vec<u8>> = widths.iter().map(|w| database.get(&format!("/tile/8/0/000.p/{w}")).body).collect();
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), widths.map(|w| 32 * w), "the database gives all of them");
    let full = gate.get(&below("tile/8/0/000"));
    assert_eq!((full.status, &full.body), (200, &database.get("/tile/8/0/000").body));
    database.forget();
    for (width, part) in widths.iter().zip(&parts) {
        let cut = gate.get(&below(&format!("tile/8/0/000.p/{width}")));
        assert_eq!((cut.status, &cut.body), (200, part), "{width}");
    }
    assert_eq!(database.asked(), 0, "the full one holds them all: {:?}", database.counts());
    assert_eq!(kept_files(&gate, "tile/8/0/000.p"), Vec::<PathBuf>::new(), "nothing is kept twice");
}

#[test]
fn every_tile_is_the_databases_own() {
    let mut database = Database::start(66_000, &modules());
    let gate = Gate::start(&plain(&database));
    // 66,000 = 257 * 256 + 208, and 257 = 256 + 1.
    let paths = ["0/000", "0/001", "0/256", "0/257.p/208", "0/257.p/100", "1/000", "1/001.p/1", "1/000.p/17", "2/000.p/1"];
    let tiles: Vec<Vec<u8>> = paths.iter().map(|path| database.get(&format!("/tile/8/{path}")).body).collect();
    for round in ["cold", "warm", "gone"] {
        for (path, tile) in paths.iter().zip(&tiles) {
            let answer = gate.get(&below(&format!("tile/8/{path}")));
            assert_eq!((answer.status, &answer.body), (200, tile), "{round} {path}");
        }
        if round == "warm" {
            database.stop();
        }
    }
}

#[test]
fn lookups_and_the_latest_head_are_the_databases_own() {
    let database = Database::start(10, &modules());
    let gate = Gate::start(&plain(&database));
    let name = pads(&[4]).remove(0);
    let (ours, theirs) = (gate.get(&lookup(&name)), database.get(&format!("/lookup/{name}")));
    assert_eq!((ours.status, ours.text()), (200, theirs.text()));
    let (ours, theirs) = (gate.get(&below("latest")), database.get("/latest"));
    assert_eq!((ours.status, ours.text()), (200, theirs.text()));
    assert_eq!(kept_head(&gate), theirs.text());
    let supported = gate.get(&below("supported"));
    assert_eq!(supported.status, 200);
    // The head grows with what is looked up.
    let last = named(&modules()[0]);
    assert_eq!(gate.get(&lookup(&last)).status, 200);
    assert_eq!(size_of(&kept_head(&gate)), 11);
    // HEAD and the percent-encoding of the go command are the same question.
    let escaped = lookup("example.com/%21capital/%21tool@v1.0.0-%21r%21c.1");
    let answer = gate.get(&escaped);
    assert_eq!(
        (answer.status, answer.text().contains("example.com/Capital/Tool v1.0.0-RC.1 h1:")),
        (200, true),
        "{}",
        answer.text()
    );
    let head = http::request(&gate.address, "HEAD", &escaped, &[]);
    assert_eq!((head.status, head.header("content-length").parse()), (200, Ok(answer.body.len())));
    assert_eq!(http::request(&gate.address, "POST", &escaped, &[("Content-Length", "0")]).status, 405);
    let head = kept_head(&gate);
    let gate = Gate::start_in(gate.into_dir(), &plain(&database));
    assert_eq!((size_of(&head), gate.get(&below("latest")).text()), (12, head));
}

#[test]
fn what_no_database_can_have_is_asked_of_nobody() {
    let database = Database::start(300, &modules());
    let gate = Gate::start(&plain(&database));
    // So that it knows the database already.
    assert_eq!(gate.get(&below("latest")).status, 200);
    database.forget();
    for path in [
        below(""),
        format!("/sumdb/{NAME}"),
        below("nothing"),
        below("supported/x"),
        below("latest/x"),
        below("lookup/"),
        below("lookup/example.com/plain"),
        below("lookup/example.com/plain@"),
        below("lookup/example.com/plain@latest"),
        below("lookup/example.com/plain@v1"),
        below("lookup/example.com/plain@v1.0.0/go.mod"),
        below("lookup/example.com/Plain@v1.0.0"),
        below("lookup/example.com/../plain@v1.0.0"),
        below("lookup/example.com/%2e%2e/plain@v1.0.0"),
        below("lookup/example.com/plain@v1.0.0@v1.0.0"),
        below("lookup/nodot@v1.0.0"),
        below("lookup/example.com/plain@v1.0.0%00"),
        below("tile/8/0"),
        below("tile/8/0/0"),
        below("tile/8/0/000.p/0"),
        below("tile/8/0/000.p/256"),
        below("tile/8/0/000.p/01"),
        below("tile/8/0/x000/000"),
        below("tile/8/-1/000"),
        below("tile/8/64/000"),
        below("tile/9/0/000"),
        below("tile/0/0/000"),
        below("tile/8/0/../0/000"),
        below("tile/8/0/%2e%2e/000"),
        "/sumdb/other.test/supported".to_owned(),
        "/sumdb/other.test/latest".to_owned(),
        format!("/sumdb/{NAME}/x/supported"),
        "/sumdb/supported".to_owned(),
        "/sumdb/".to_owned(),
    ] {
        let answer = gate.get(&path);
        assert!(matches!(answer.status, 400 | 404), "{path}: {} {}", answer.status, answer.text());
    }
    assert_eq!(database.asked(), 0, "{:?}", database.counts());
    assert_eq!(kept_files(&gate, "lookup"), Vec::<PathBuf>::new());
}

#[test]
fn tiles_past_the_end_of_the_tree_are_not_there_and_nothing_is_kept_of_them() {
    let database = Database::start(300, &modules());
    let gate = Gate::start(&plain(&database));
    for path in ["tile/8/0/001", "tile/8/0/001.p/45", "tile/8/0/002", "tile/8/0/x999/x999/999", "tile/8/1/000", "tile/8/7/000.p/1"]
    {
        let answer = gate.get(&below(path));
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
    }
    // What is not there yet will be.
    database.now("grow=1");
    let answer = gate.get(&below("tile/8/0/001.p/45"));
    assert_eq!((answer.status, answer.body), (200, database.get("/tile/8/0/001.p/45").body));
}

#[test]
fn no_database_is_one_that_nobody_set() {
    let off = Gate::start(
        "[sumdb]\ndatabases = []\n[upstreams.u1]\ntype = \"goproxy\"\nurl = \"http://127.0.0.1:9\"\n[[routes]]\nmatch = [\"*\"]\nupstreams = [\"u1\"]\n",
    );
    for path in [below("supported"), below("latest"), "/sumdb/sum.golang.org/supported".to_owned()] {
        let answer = off.get(&path);
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
    }
}

#[test]
fn tiles_of_records_are_proven_too() {
    let database = Database::start(300, &modules());
    let gate = Gate::start(&plain(&database));
    database.now("badrecord");
    for path in ["tile/8/data/000", "tile/8/data/001.p/44"] {
        let answer = gate.get(&below(path));
        assert!(answer.status == 502 || answer.status == 404, "{path}: {}", answer.status);
    }
    database.now("honest");
    for path in ["tile/8/data/000", "tile/8/data/001.p/44"] {
        let answer = gate.get(&below(path));
        // The go command never asks for them.
        if answer.status != 404 {
            assert_eq!((answer.status, answer.body), (200, database.get(&format!("/{path}")).body), "{path}");
        }
    }
}

#[test]
fn what_is_damaged_on_disk_is_had_again() {
    let database = Database::start(700, &modules());
    let gate = Gate::start(&plain(&database));
    let names: Vec<String> = pads(&[0, 300, 699]).into_iter().chain(modules().iter().map(named)).collect();
    let good = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &names);
    assert!(good.all_good(), "{good:?}");
    let dir = gate.into_dir();
    let root = dir.path().join("cache/.sumdb").join(NAME);
    let files = crate::helpers::files_below(&root).into_iter().filter(|f| f.starts_with("tile") || f.starts_with("lookup"));
    for (n, file) in files.enumerate() {
        let mut bytes = fs::read(root.join(&file)).unwrap();
        // One byte, or the end, or everything.
        match n % 3 {
            0 => bytes[20] ^= 1,
            1 => bytes.truncate(bytes.len() / 2),
            _ => bytes.clear(),
        }
        fs::write(root.join(&file), bytes).unwrap();
    }
    let gate = Gate::start_in(dir, &plain(&database));
    for path in ["tile/8/0/000", "tile/8/0/001", "tile/8/0/002.p/189", "tile/8/1/000.p/2"] {
        let answer = gate.get(&below(path));
        assert_eq!((answer.status, answer.body), (200, database.get(&format!("/{path}")).body), "{path}");
    }
    let again = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &names);
    assert_eq!(again, good);
    let found = database.client_through(&gate.url(), tempfile::tempdir().unwrap().path(), &pads(&[5, 400, 650]));
    assert!(found.all_good(), "{found:?}");
}

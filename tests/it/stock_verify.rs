//! `verify`: the kept files looked at once more, put aside, forgotten.

use std::fs;
use std::path::PathBuf;

use crate::stock::Office;
use crate::stock_bundle::{PARTS, World, assert_served};
use crate::support::eventually;
use crate::support::gate::{route, upstream};
use crate::support::modules::Module;
use crate::support::sumdb::Sumdb;
use crate::support::upstream::{Reply, Upstream};
use crate::verify::{body, forged};

/// A world and an office where all of it is kept.
fn warmed() -> (World, Office) {
    let world = World::new();
    let home = world.home();
    let names = World::names(&world.every());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    home.ok(&[&["warm"][..], &names].concat());
    world.forget();
    (world, home)
}

/// The upstream that keeps a module.
fn of(module: &Module) -> &'static str {
    if module.path.starts_with("corp") { "inside" } else { "public" }
}

#[test]
fn good_files_are_good_and_nobody_is_asked() {
    let (world, home) = warmed();
    let said = home.ok(&["verify"]);
    assert!(said.contains("sum.example.org: 3 look-ups proven, 0 not"), "{said}");
    let counts = "8 files: 6 as the checksum database has them, 2 as first seen, 0 with nothing to hold them against, 0 BAD";
    assert!(said.contains(counts), "{said}");
    // What was put there by hand is held against what is known, and noted.
    fs::remove_dir_all(home.path("cache/.sums")).unwrap();
    let said = home.ok(&["verify"]);
    assert!(said.contains("8 files: 6 as the checksum database has them, 0 as first seen, 2 with nothing"), "{said}");
    assert!(fs::metadata(home.path("cache/.sums/public/example.com/m/@v/v1.0.0.zip")).is_ok());
    world.assert_silence();
    // An empty cache is as good.
    let empty = world.home();
    assert!(empty.ok(&["verify"]).contains("0 files: "));
}

#[test]
fn bad_files_are_named_put_aside_and_fetched_anew() {
    let (world, home) = warmed();
    let mut home = home;
    let every = world.every();
    for (n, damage) in [flip, cut, other, empty].into_iter().enumerate() {
        for part in ["mod", "zip"] {
            for module in [&every[0], &every[2], &every[3]] {
                let file = home.kept(of(module), &module.url(part));
                damage(&file, module, part);
                let name = format!("BAD  {}{}", of(module), module.url(part));
                let (code, said) = home.run(&["verify"], "");
                assert!(code == Some(1) && said.contains(&name) && said.contains("1 BAD"), "{n} {name}: {said}");
                assert!(said.contains("--repair puts them aside") && file.exists(), "{said}");
                let bytes = fs::read(&file).unwrap();
                let said = home.ok(&["verify", "--repair"]);
                assert!(said.contains(&name) && said.contains("put aside: "), "{said}");
                assert!(!file.exists());
                let aside = PathBuf::from(home.path("cache/.bad")).join(of(module)).join(&module.url(part)[1..]);
                assert!(fs::read(aside).unwrap() == bytes, "nothing is lost");
                assert!(home.ok(&["verify"]).contains("0 BAD"));
                world.forget();
                let gate = home.serve();
                assert_served(&gate, std::slice::from_ref(module));
                let asked = world.up.asked().len() + world.inside.asked().len();
                assert_eq!(asked, 1, "{:?} {:?}", world.up.asked(), world.inside.asked());
                eventually("it is kept", || fs::read(&file).is_ok_and(|bytes| bytes == body(module, part)));
                home = Office::at(gate.into_dir(), &world.home_text());
            }
        }
    }
}

fn flip(file: &PathBuf, _: &Module, part: &str) {
    let mut bytes = fs::read(file).unwrap();
    // Within the first file of a zip: its head has bytes that say nothing of its contents.
    let at = if part == "zip" { 34 + usize::from(bytes[26]) + usize::from(bytes[28]) } else { 10 };
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn cut(file: &PathBuf, _: &Module, _: &str) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

fn other(file: &PathBuf, module: &Module, part: &str) {
    fs::write(file, body(&forged(module), part)).unwrap();
}

fn empty(file: &PathBuf, _: &Module, _: &str) {
    fs::write(file, "").unwrap();
}

#[test]
fn a_damaged_look_up_is_noticed_and_asked_for_again() {
    let (world, home) = warmed();
    let look_up = home.path("cache/.sumdb/sum.example.org/lookup/example.com/m@v1.0.0");
    let good = fs::read_to_string(&look_up).unwrap();
    for bad in [good.replacen("h1:", "h1:A", 1), good[..good.len() - 5].to_owned(), "x".to_owned()] {
        fs::write(&look_up, &bad).unwrap();
        let (_, said) = home.run(&["verify"], "");
        assert!(said.contains("sum.example.org: 2 look-ups proven, 1 not"), "{said}");
        home.ok(&["verify", "--repair"]);
        fs::remove_dir_all(home.path("cache/public/example.com/m")).unwrap();
        home.ok(&["warm", "example.com/m@v1.0.0"]);
        assert_eq!(fs::read_to_string(&look_up).unwrap(), good);
    }
    world.inside.forget();
}

#[test]
fn a_damaged_tile_is_noticed() {
    let (_world, home) = warmed();
    let mut folders = vec![PathBuf::from(home.path("cache/.sumdb/sum.example.org/tile"))];
    let mut tiles = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let list = if entry.path().is_dir() { &mut folders } else { &mut tiles };
            list.push(entry.path());
        }
    }
    assert!(tiles.len() >= 2);
    let mut bytes = fs::read(&tiles[0]).unwrap();
    bytes[3] ^= 1;
    fs::write(&tiles[0], bytes).unwrap();
    let (_, said) = home.run(&["verify"], "");
    assert!(said.contains("sum.example.org: ") && !said.contains("3 look-ups proven"), "{said}");
}

#[test]
fn files_of_upstreams_that_are_no_more_are_left_alone() {
    let (world, home) = warmed();
    let stray = home.kept("public", &world.public[0].url("zip"));
    fs::write(&stray, "damaged").unwrap();
    let text = world.database.table(&world.server)
        + &upstream("inside", &world.inside.url(), "private = true\n")
        + &route("corp.example", &["inside"], "");
    let rest = Office::at(home.dir, &text);
    let said = rest.ok(&["verify", "--repair"]);
    assert!(said.contains("2 files: ") && said.contains("0 BAD"), "{said}");
    assert_eq!(fs::read(&stray).unwrap(), b"damaged");
}

#[test]
fn a_version_is_forgotten_and_its_change_comes_in() {
    let (world, home) = warmed();
    let secret = &world.private[0];
    let changed = forged(secret);
    for part in PARTS {
        world.inside.set(&secret.url(part), Reply::Good(body(&changed, part)));
    }
    fs::remove_dir_all(home.path("cache/inside")).unwrap();
    let said = home.fails(&["warm", "corp.example/secret@v1.0.0"]);
    assert!(said.contains("was seen first") && said.contains("modgate verify --forget corp.example/secret@v1.0.0"), "{said}");
    let gate = home.serve();
    assert_eq!(gate.get(&secret.url("zip")).status, 502);
    for bad in ["corp.example/secret", "corp.example/secret@main", "@v1.0.0", "corp.example/secret@v2.0.0"] {
        let output = gate.command(&["verify", "--forget", bad]);
        assert_eq!(output.status.code(), Some(1), "{bad}: {output:?}");
    }
    let output = gate.command(&["verify", "--forget", "corp.example/secret@v1.0.0"]);
    assert!(output.status.success(), "{output:?}");
    gate.signal(rustix::process::Signal::HUP);
    eventually("the change is there", || gate.get(&secret.url("zip")).body == changed.zip());
    eventually("the go.mod too", || gate.get(&secret.url("mod")).body == body(&changed, "mod"));
    // Now that one is the first.
    for part in PARTS {
        world.inside.set(&secret.url(part), Reply::Good(body(secret, part)));
    }
    eventually("it is kept", || fs::read(gate.cache("inside").join(&secret.url("zip")[1..])).is_ok_and(|b| b == changed.zip()));
    // Stopped, it writes nothing any more.
    let dir = gate.into_dir();
    fs::remove_dir_all(dir.path().join("cache/inside")).unwrap();
    let home = Office::at(dir, &world.home_text());
    assert!(home.fails(&["warm", "corp.example/secret@v1.0.0"]).contains("was seen first"));
    // Files that are there go aside with what was noted of them.
    let said = home.ok(&["verify", "--forget", "example.com/m@v1.0.0", "--forget", "example.com/large@v1.0.0"]);
    assert!(said.contains("example.com/m@v1.0.0: forgotten; 3 kept files are in "), "{said}");
    assert!(fs::metadata(home.path("cache/.bad/public/example.com/large/@v/v1.0.0.zip")).is_ok());
    home.ok(&["warm", "example.com/m@v1.0.0"]);
}

#[test]
fn it_looks_while_a_server_serves() {
    let modules: Vec<Module> = (0..12).map(|n| Module::new("example.com/m", &format!("v1.{n}.0")).bulk(300_000)).collect();
    let up = Upstream::serving(&modules);
    let database = Sumdb::knowing(&modules);
    let server = database.serve();
    let office = Office::new(&(database.table(&server) + &upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    let gate = office.serve();
    std::thread::scope(|scope| {
        let getting = scope.spawn(|| assert_served(&gate, &modules));
        while !getting.is_finished() {
            let output = gate.command(&["verify", "--repair"]);
            assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(" 0 BAD"), "{output:?}");
        }
    });
    assert!(!gate.cache("../.bad").exists());
}

#[test]
fn what_was_damaged_of_the_database_comes_back_with_the_bundle() {
    let world = World::new();
    let home = world.home();
    let bundle = World::export(&home, "bundle.tar", &world.every());
    let away = world.away();
    away.ok(&["import", &bundle]);
    for (name, looked) in [("tile/8/0/001.p/52", false), ("tile/8/0/001.p/52", true), ("lookup/example.com/m@v1.0.0", true)] {
        let path = away.path(&format!("cache/.sumdb/sum.example.org/{name}"));
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(&path, bytes).unwrap();
        if looked {
            away.run(&["verify"], "");
        }
        away.ok(&["import", &bundle]);
        assert!(away.ok(&["verify"]).contains("3 look-ups proven, 0 not"), "{name}");
    }
}

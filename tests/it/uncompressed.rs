//! `cache.uncompressed`: zips that are kept without compression, and are what they were to the go command.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::support::eventually;
use crate::support::gate::{Gate, route, upstream};
use crate::support::go::Go;
use crate::support::modules::Module;
use crate::support::sumdb::Sumdb;
use crate::support::upstream::Upstream;

const MAIN: &str = "module example.org/main\n\ngo 1.21\n\nrequire (\n\texample.com/a v1.0.0\n\tcorp.example/b v1.0.0\n)\n";

/// One of everybody, and one of the company's own.
fn modules() -> [Module; 2] {
    let words = "the same words again and again, which makes them small\n".repeat(10_000);
    ["example.com/a", "corp.example/b"].map(|path| Module::new(path, "v1.0.0").file("words.txt", words.as_str()))
}

/// Where they come from, and the database that knows the one of everybody.
struct World {
    up: Upstream,
    database: Sumdb,
    server: Upstream,
}

impl World {
    fn new() -> Self {
        let database = Sumdb::knowing(&modules()[..1]);
        Self { up: Upstream::serving(&modules()), server: database.serve(), database }
    }

    fn config(&self, wanted: bool) -> String {
        let tables = upstream("open", &self.up.url(), "") + &upstream("own", &self.up.url(), "private = true");
        let routes = route("corp.example", &["own"], "") + &route("*", &["open"], "");
        format!("[cache]\nuncompressed = {wanted}\n\n{}{tables}{routes}", self.database.table(&self.server))
    }
}

fn kept(gate: &Gate, module: &Module) -> PathBuf {
    let name = if module.path.starts_with("corp") { "own" } else { "open" };
    gate.cache(name).join(module.url("zip").trim_start_matches('/'))
}

/// Whether no file of a zip is compressed.
fn is_plain(path: &Path) -> bool {
    let Ok(mut archive) = fs::File::open(path).map(|file| zip::ZipArchive::new(file).unwrap()) else { return false };
    (0..archive.len()).all(|n| archive.by_index(n).unwrap().compression() == zip::CompressionMethod::Stored)
}

#[test]
fn what_is_fetched_is_kept_without_compression_and_has_the_same_sums() {
    let world = World::new();
    let gate = Gate::start(&world.config(true));
    let first = Go::with_proxy(&gate.url());
    let work = first.main_module(MAIN);
    first.ok(&["mod", "download"]);
    let sums = fs::read_to_string(work.join("go.sum")).unwrap();
    eventually("they are written anew", || modules().iter().all(|module| is_plain(&kept(&gate, module))));
    world.up.forget();
    for module in modules() {
        // The file from before may be open still, for a moment.
        eventually("that is what is sent", || {
            let answer = gate.get(&module.url("zip"));
            assert_eq!(answer.status, 200);
            answer.body == fs::read(kept(&gate, &module)).unwrap()
        });
    }
    // The go command has the sums of those that were compressed.
    let second = Go::with_proxy(&gate.url());
    let work = second.main_module(MAIN);
    fs::write(work.join("go.sum"), &sums).unwrap();
    second.ok(&["mod", "download"]);
    assert!(second.ok(&["mod", "verify"]).contains("all modules verified"));
    assert_eq!(world.up.asked(), Vec::<String>::new(), "nothing was fetched again");
    let verified = gate.command(&["verify"]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(
        verified.status.success() && said.contains("4 files: 2 as the checksum database has them, 2 as first seen, 0 with nothing"),
        "{said}"
    );
}

#[test]
fn what_was_kept_before_follows_and_is_no_newer_for_it() {
    let world = World::new();
    let first = Gate::start(&world.config(false));
    for module in modules() {
        assert!(first.get(&module.url("zip")).whole);
        eventually("it is kept", || kept(&first, &module).exists());
        assert!(!is_plain(&kept(&first, &module)), "not unless it is wanted");
    }
    let used = SystemTime::now() - Duration::from_secs(100_000);
    let age = |gate: &Gate| {
        for module in modules() {
            let times = fs::FileTimes::new().set_accessed(used).set_modified(used - Duration::from_secs(100_000));
            fs::File::options().append(true).open(kept(gate, &module)).unwrap().set_times(times).unwrap();
        }
    };
    age(&first);
    // One that is damaged stays as it is, to be found.
    let damaged = first.cache("own").join("corp.example/c/@v/v1.0.0.zip");
    fs::create_dir_all(damaged.parent().unwrap()).unwrap();
    let [_, module] = modules();
    let bytes = module.zip();
    fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
    let unused = |gate: &Gate| {
        for module in modules() {
            let meta = fs::metadata(kept(gate, &module)).unwrap();
            assert!(meta.accessed().unwrap() <= used && meta.modified().unwrap() < used, "eviction's order is as it was");
        }
    };
    let second = Gate::start_in(first.into_dir(), &world.config(true));
    eventually("it says so", || second.log().contains("kept zips were written anew without compression"));
    unused(&second);
    assert!(modules().iter().all(|module| is_plain(&kept(&second, module))));
    assert!(second.log().contains("a zip stays as it was sent"), "{}", second.log());
    // To look whether they are compressed is no use of them either.
    age(&second);
    let third = Gate::start_in(second.into_dir(), &world.config(true));
    eventually("the last of them was looked at", || third.log().contains("a zip stays as it was sent"));
    unused(&third);
    assert_eq!(fs::read(third.cache("own").join("corp.example/c/@v/v1.0.0.zip")).unwrap(), bytes[..bytes.len() - 1]);
}

#[test]
fn where_there_is_no_room_they_stay_as_they_are() {
    let world = World::new();
    // No disk has as much left as that.
    let config = world.config(true).replace("[cache]\n", "[cache]\nmin_free = \"1000000TiB\"\n");
    let first = Gate::start(&config);
    let [_, own] = modules();
    assert!(first.get(&own.url("zip")).whole);
    eventually("it is kept", || kept(&first, &own).exists());
    let second = Gate::start_in(first.into_dir(), &config);
    eventually("it says so", || second.log().contains("without_room=1"));
    assert!(!is_plain(&kept(&second, &own)));
}

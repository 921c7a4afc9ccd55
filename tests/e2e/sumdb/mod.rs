//! The checksum database, from outside: modgate between the real go command or x/mod's own client and a database that can be told
//! to cheat (`tests/xsumdb`), and between mirrors that swap files and whoever trusts them.
//!
//! What each test looks at in the end is the disk: nothing that was not proven is ever there.

mod cheats;
mod client;
mod database;
mod fences;
mod firstsight;
mod forks;
mod gocommand;
mod largezips;
mod mirrors;
mod parsers;
mod proofs;
mod public;
mod tiles;
mod twofaced;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::helpers::files_below;
use crate::support::gate::{Gate, route, upstream};
use crate::support::modules::Module;

use database::{Database, NAME};

/// Modules of every kind of name: plain, with capitals, without a go.mod of its own time, of no tagged version.
fn modules() -> Vec<Module> {
    vec![
        Module::new("example.com/plain", "v1.0.0"),
        Module::new("example.com/plain", "v1.1.0"),
        Module::new("example.com/Capital/Tool", "v1.0.0-RC.1"),
        Module::new("example.com/old", "v2.0.0+incompatible"),
        Module::new("example.com/bare", "v0.0.0-20240203040506-0123456789ab"),
        Module::new("example.com/plain/v2", "v2.3.4").requires("example.com/plain", "v1.1.0"),
    ]
}

/// As x/mod's client is asked for it.
fn named(module: &Module) -> String {
    format!("{}@{}", module.path, module.version)
}

/// The path of a lookup below modgate.
fn lookup(name: &str) -> String {
    format!("/sumdb/{NAME}/lookup/{name}")
}

/// The path of anything else below modgate.
fn below(path: &str) -> String {
    format!("/sumdb/{NAME}/{path}")
}

/// The table of a database that is asked itself, or through these upstreams.
fn sumdb(database: &Database, via: &[&str]) -> String {
    format!("[sumdb]\ndatabases = [{:?}]\nvia = {via:?}\n", database.entry())
}

/// A gate with one upstream, the files of the database's own modules, and the database asked itself.
fn plain(database: &Database) -> String {
    sumdb(database, &["direct"]) + &upstream("u1", &database.url(), "") + &route("*", &["u1"], "")
}

/// The folder in which modgate keeps what it knows of the database.
fn kept(gate: &Gate) -> PathBuf {
    gate.dir.path().join("cache/.sumdb").join(NAME)
}

/// The head that modgate keeps, as it is on disk.
fn kept_head(gate: &Gate) -> String {
    fs::read_to_string(kept(gate).join("latest")).unwrap_or_default()
}

/// How many records the tree of a signed head has.
fn size_of(head: &str) -> usize {
    head.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("no signed head: {head}"))
}

/// What is below a folder of what modgate keeps of the database, or nothing where there is none.
fn kept_files(gate: &Gate, folder: &str) -> Vec<PathBuf> {
    let folder = kept(gate).join(folder);
    if folder.is_dir() { files_below(&folder) } else { Vec::new() }
}

/// All files of modules that are kept, with their bytes. Folders with a dot in front are for something else.
fn cached_files(cache: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = if cache.is_dir() { files_below(cache) } else { Vec::new() };
    let of_modules = files.into_iter().filter(|file| {
        let kind = file.extension().and_then(|e| e.to_str());
        matches!(kind, Some("zip" | "mod")) && !file.to_string_lossy().starts_with('.')
    });
    of_modules.map(|file| (file.clone(), fs::read(cache.join(&file)).unwrap())).collect()
}

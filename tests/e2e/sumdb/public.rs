//! The public checksum database, as the machine's module proxy passes it on.

use std::fs;
use std::sync::Arc;

use crate::daemons::squid;
use crate::helpers::{files_below, go_ok, public_proxy};
use crate::namespace::Namespace;
use crate::support::gate::{Gate, route, upstream};
use crate::support::go::Go;

/// Its name, which is all that has to be set: the key is built in.
const PUBLIC: &str = "sum.golang.org";

/// Modules of every kind of name.
const MODULES: &[&str] = &[
    "golang.org/x/mod@v0.20.0",
    "github.com/BurntSushi/toml@v1.4.0",
    "github.com/Masterminds/semver@v1.5.0",
    "github.com/pelletier/go-toml/v2@v2.2.3",
    "gopkg.in/yaml.v3@v3.0.1",
    "github.com/docker/docker@v24.0.7+incompatible",
    "rsc.io/quote@v1.5.2",
    "golang.org/x/exp@v0.0.0-20240719175910-8a7402abbf56",
];

fn config(more: &str) -> String {
    format!("[sumdb]\ndatabases = [{PUBLIC:?}]\nvia = [\"public\"]\n")
        + &upstream("public", &public_proxy(), &format!("retries = 2\n{more}"))
        + &route("*", &["public"], "verify = \"sumdb\"\n")
}

#[test]
fn real_modules_are_proven_by_the_public_database() {
    let gate = Gate::start(&config(""));
    let room = || {
        let go = Go::with_proxy(&gate.url()).env("GOSUMDB", PUBLIC);
        go.main_module("module example.com/main\n\ngo 1.21\n");
        Arc::new(go)
    };
    for (round, go) in [room(), room()].iter().enumerate() {
        go_ok(go, &[&["mod", "download"], MODULES].concat());
        let cache = gate.dir.path().join("cache");
        let lookups = files_below(&cache.join(".sumdb").join(PUBLIC).join("lookup"));
        assert!(lookups.len() >= MODULES.len(), "round {round}: {lookups:?}");
        let zips = files_below(&cache.join("public")).into_iter().filter(|f| f.extension().is_some_and(|e| e == "zip")).count();
        assert_eq!(zips, MODULES.len(), "round {round}");
        assert!(files_below(&cache.join(".sums/public")).len() >= MODULES.len());
    }
    let head = fs::read_to_string(gate.dir.path().join("cache/.sumdb").join(PUBLIC).join("latest")).unwrap();
    assert!(super::size_of(&head) > 60_000_000 && head.contains("— sum.golang.org "), "{head}");
}

#[test]
fn modgate_is_all_that_the_go_command_needs_to_reach_with_its_default_settings() {
    let namespace = Namespace::make();
    let squid = squid(namespace.host(), "http_access allow all");
    let inside = namespace.modgate(Some(&config(&format!("proxy = {:?}\n", squid.url("http")))), &[]);
    let download = [&["mod", "download", "-json"], &MODULES[..3]].concat();
    let defaults = [("GOSUMDB", PUBLIC), ("GOPROXY", &*inside.url())].map(|(name, value)| (name, value.to_owned()));
    let defaults: Vec<(&str, &str)> = defaults.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // Cold, warm, and when modgate itself can reach nobody any more.
    let run = |what: &str| {
        let (succeeded, said) = inside.go_with(&inside.url(), &download, &defaults);
        assert!(succeeded && said.matches("\"Sum\"").count() == 3, "{what}: {said}\n{}", inside.log());
    };
    run("cold");
    run("warm");
    drop(squid);
    run("cut off");
    // What was never asked for shows that it is cut off.
    let (succeeded, said) = inside.go_with(&inside.url(), &["mod", "download", MODULES[4]], &defaults);
    assert!(!succeeded && said.contains("modgate: "), "{said}");
}

//! The real go command behind modgate, with a checksum database that it checks everything against and can reach no other way: its
//! name is one that nobody can look up.

use std::fs;
use std::sync::Arc;

use crate::helpers::{go_fails, go_ok};
use crate::support::gate::{Gate, route, upstream};
use crate::support::go::Go;
use crate::support::modules::Module;
use crate::support::upstream::Upstream;

use super::database::Database;
use super::{plain, sumdb};

/// What the go command takes without a complaint.
fn modules() -> Vec<Module> {
    vec![
        Module::new("example.com/plain", "v1.0.0"),
        Module::new("example.com/plain", "v1.1.0"),
        Module::new("example.com/Capital/Tool", "v1.0.0-RC.1").requires("example.com/plain", "v1.1.0"),
        Module::new("example.com/other/v2", "v2.3.4").requires("example.com/plain", "v1.0.0"),
    ]
}

/// A clean room, which checks against this database.
fn room(proxy: &str, database: &Database) -> Arc<Go> {
    let go = Go::with_proxy(proxy).env("GOSUMDB", &database.key).env("GONOSUMDB", "").env("GOPRIVATE", "");
    go.main_module("module example.com/main\n\ngo 1.21\n");
    Arc::new(go)
}

/// Gets two modules that need others; the go.sum that comes of it.
fn get(go: &Arc<Go>) -> String {
    go_ok(go, &["get", "example.com/Capital/Tool@v1.0.0-RC.1", "example.com/other/v2@v2.3.4"]);
    go_ok(go, &["mod", "download", "all"]);
    assert!(go_ok(go, &["mod", "verify"]).contains("all modules verified"));
    fs::read_to_string(go.dir.path().join("work/go.sum")).unwrap()
}

#[test]
fn the_go_command_checks_everything_by_modgate_cold_warm_and_when_the_database_is_gone() {
    let mut database = Database::start(700, &modules());
    let files = Upstream::serving(&modules());
    let config = sumdb(&database, &["direct"]) + &upstream("u1", &files.url(), "") + &route("*", &["u1"], "");
    let gate = Gate::start(&config);
    let go = room(&gate.url(), &database);
    let cold = get(&go);
    assert_eq!(cold.lines().count(), 6, "{cold}");
    for line in cold.lines() {
        let mut words = line.split(' ');
        let (path, version) = (words.next().unwrap(), words.next().unwrap().trim_end_matches("/go.mod"));
        let found = database.client(&[format!("{path}@{version}"), format!("{path}@{version}/go.mod")]);
        assert!(found.lines.iter().any(|said| said.contains(line)), "{line}: {found:?}");
    }
    let known = fs::read_to_string(go.dir.path().join("gopath/pkg/sumdb").join(super::NAME).join("latest")).unwrap();
    assert!(super::size_of(&known) > 700, "the go command has asked: {known}");

    database.forget();
    assert_eq!(get(&room(&gate.url(), &database)), cold);
    assert_eq!(database.asked(), 0, "{:?}", database.counts());
    database.stop();
    assert_eq!(get(&room(&gate.url(), &database)), cold);
    // From the cache alone, asked for as such too, and after a restart.
    let gate = Gate::start_in(gate.into_dir(), &config);
    for proxy in [gate.url(), format!("{}/cached-only", gate.url())] {
        assert_eq!(get(&room(&proxy, &database)), cold, "{proxy}");
    }
}

#[test]
fn the_go_command_itself_catches_what_a_route_does_not_verify() {
    let real = modules();
    let database = Database::start(30, &real);
    let other: Vec<Module> = real.iter().map(|m| m.clone().file("more.go", "package plain\n")).collect();
    let files = Upstream::serving(&other);
    let config = sumdb(&database, &["direct"]) + &upstream("u1", &files.url(), "") + &route("*", &["u1"], "verify = \"off\"");
    let gate = Gate::start(&config);
    let said = go_fails(&room(&gate.url(), &database), &["mod", "download", "example.com/plain@v1.1.0"]);
    assert!(said.contains("SECURITY ERROR") && said.contains("checksum mismatch"), "{said}");
    // Where modgate verifies it does not come so far.
    let config = sumdb(&database, &["direct"]) + &upstream("u1", &files.url(), "") + &route("*", &["u1"], "");
    let gate = Gate::start(&config);
    let said = go_fails(&room(&gate.url(), &database), &["mod", "download", "example.com/plain@v1.1.0"]);
    assert!(said.contains("502") && said.contains("h1:") && !said.contains("SECURITY ERROR"), "{said}");
}

#[test]
fn private_modules_need_no_setting_at_the_go_command_but_the_usual_one() {
    let private = Module::new("corp.example/secret", "v1.0.0").requires("example.com/plain", "v1.0.0");
    let database = Database::start(30, &modules());
    let inside = Upstream::serving(std::slice::from_ref(&private));
    let config = sumdb(&database, &["direct"])
        + &upstream("inside", &inside.url(), "private = true\n")
        + &upstream("u1", &database.url(), "")
        + &route("corp.example", &["inside"], "")
        + &route("*", &["u1"], "");
    let gate = Gate::start(&config);
    let go = Go::with_proxy(&gate.url()).env("GOSUMDB", &database.key).env("GONOSUMDB", "corp.example");
    go.main_module("module example.com/main\n\ngo 1.21\n");
    let go = Arc::new(go);
    go_ok(&go, &["get", "corp.example/secret@v1.0.0"]);
    assert!(database.counts().keys().all(|path| !path.contains("corp.example")), "{:?}", database.counts());
    // Without it the go command is told that nobody knows the module, and stops.
    let said = go_fails(&room(&gate.url(), &database), &["mod", "download", "corp.example/secret@v1.0.0"]);
    assert!(said.contains("404") && said.contains("verifying"), "{said}");
    assert!(database.counts().keys().all(|path| !path.contains("corp.example")), "{:?}", database.counts());
}

#[test]
fn a_plain_gate_serves_what_the_go_command_wants_of_a_database_below_a_proxy() {
    // The upstream passes the database on as the public proxy does, and is all that modgate asks.
    let database = Database::start(300, &modules());
    let config = sumdb(&database, &["u1"]) + &upstream("u1", &database.url(), "") + &route("*", &["u1"], "");
    let gate = Gate::start(&config);
    let through = get(&room(&gate.url(), &database));
    let direct = Gate::start(&plain(&database));
    assert_eq!(through, get(&room(&direct.url(), &database)));
}

//! The real go command, with modgate as its only GOPROXY. Sums and files are the go command's own to judge.

use std::fs;

use crate::support::gate::{Gate, route, upstream};
use crate::support::go::Go;
use crate::support::modules::Module;
use crate::support::upstream::{Reply, Upstream};

fn modules() -> Vec<Module> {
    vec![
        Module::new("example.com/Upper/lib", "v1.0.0"),
        Module::new("example.com/Upper/lib", "v1.1.0").requires("example.com/base", "v0.2.0"),
        Module::new("example.com/Upper/lib", "v1.2.0-rc.1"),
        Module::new("example.com/base", "v0.2.0"),
        Module::new("example.com/base", "v0.3.0").bulk(400_000),
        Module::new("example.com/two/v2", "v2.0.1"),
        Module::new("gopkg.in/three.v3", "v3.0.0"),
        Module::new("example.com/tool", "v1.0.0")
            .file("main.go", "package main\n\nfunc main() { println(\"it works\") }\n")
            .without("p.go"),
    ]
}

fn served() -> (Upstream, Gate) {
    let up = Upstream::serving(&modules());
    let gate = Gate::start(&(upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    (up, gate)
}

const MAIN: &str = "module example.org/main\n\ngo 1.21\n\nrequire (\n\texample.com/Upper/lib v1.1.0\n\texample.com/two/v2 v2.0.1\n\tgopkg.in/three.v3 v3.0.0\n)\n";

#[test]
fn download_and_verify_and_the_second_time_without_a_question() {
    let (up, gate) = served();
    let go = Go::with_proxy(&gate.url());
    let work = go.main_module(MAIN);
    go.ok(&["mod", "download"]);
    assert!(go.ok(&["mod", "verify"]).contains("all modules verified"));
    // The sums are the ones that the go command finds without modgate between.
    let direct = Go::with_proxy(&up.url());
    let direct_work = direct.main_module(MAIN);
    direct.ok(&["mod", "download"]);
    assert_eq!(fs::read_to_string(work.join("go.sum")).unwrap(), fs::read_to_string(direct_work.join("go.sum")).unwrap());
    up.forget();
    let again = Go::with_proxy(&gate.url());
    again.main_module(MAIN);
    again.ok(&["mod", "download"]);
    let asked: Vec<String> = up.asked().into_iter().filter(|p| !p.ends_with("/list") && !p.ends_with("/@latest")).collect();
    assert_eq!(asked, Vec::<String>::new());
}

#[test]
fn versions_latest_branches_and_tools() {
    let (up, gate) = served();
    let branch = Module::new("example.com/base", "v0.3.1-0.20240203040506-0123456789ab");
    for part in ["info", "mod", "zip"] {
        let body = match part {
            "info" => branch.info(),
            "mod" => branch.go_mod.clone().into_bytes(),
            _ => branch.zip(),
        };
        up.set(&branch.url(part), Reply::Good(body));
    }
    up.set("/example.com/base/@v/main.info", Reply::Good(branch.info()));
    let go = Go::with_proxy(&gate.url());
    let work = go.main_module("module example.org/main\n\ngo 1.21\n");
    assert_eq!(
        go.ok(&["list", "-m", "-versions", "example.com/Upper/lib"]).trim(),
        "example.com/Upper/lib v1.0.0 v1.1.0 v1.2.0-rc.1"
    );
    go.ok(&["get", "example.com/Upper/lib@latest"]);
    go.ok(&["get", "example.com/base@main"]);
    let go_mod = fs::read_to_string(work.join("go.mod")).unwrap();
    assert!(go_mod.contains("example.com/Upper/lib v1.1.0") && go_mod.contains(&branch.version), "{go_mod}");
    go.ok(&["get", "example.com/base@v0.2"]);
    go.ok(&["install", "example.com/tool@v1.0.0"]);
    assert!(go.dir.path().join("gopath/bin/tool").is_file());
    let complaint = go.fails(&["get", "example.com/nowhere@v1.0.0"]);
    assert!(complaint.contains("404 Not Found") && complaint.contains("modgate: example.com/nowhere"), "{complaint}");
}

#[test]
fn the_go_command_shows_what_modgate_says_of_an_outage() {
    let up = Upstream::always(Reply::Status(500));
    let gate = Gate::start(&(upstream("athens", &up.url(), "") + &route("*", &["athens"], "")));
    // With a comma the go command goes on to the next proxy only after 404 and 410; an outage has to stop it.
    let go = Go::with_proxy(&format!("{},off", gate.url()));
    go.main_module("module example.org/main\n\ngo 1.21\n");
    let complaint = go.fails(&["get", "example.com/m@v1.0.0"]);
    assert!(complaint.contains("502 Bad Gateway") && complaint.contains("athens: 500 Internal Server Error"), "{complaint}");
}

#[test]
fn a_cache_folder_is_a_file_proxy_and_a_module_cache_is_a_cache_folder() {
    let (up, gate) = served();
    let go = Go::with_proxy(&gate.url());
    go.main_module(MAIN);
    go.ok(&["mod", "download"]);
    go.ok(&["list", "-m", "-versions", "example.com/base"]);
    crate::support::eventually("all is stored", || gate.cache("u").join("gopkg.in/three.v3/@v/v3.0.0.zip").is_file());
    // modgate's folder, by the go command.
    let by_file = Go::with_proxy(&format!("file://{}", gate.cache("u").display()));
    by_file.main_module(MAIN);
    by_file.ok(&["mod", "download"]);
    assert!(by_file.ok(&["mod", "verify"]).contains("all modules verified"));
    assert!(by_file.ok(&["list", "-m", "-versions", "example.com/base"]).contains("v0.2.0 v0.3.0"));
    // A developer's module cache, by modgate: copied in, and as a directory upstream, with nobody else to ask.
    let download = go.mod_cache().join("cache/download");
    up.only(Reply::Status(500));
    let dir = tempfile::tempdir().unwrap();
    let copied = dir.path().join("cache/u");
    fs::create_dir_all(copied.parent().unwrap()).unwrap();
    let copy = std::process::Command::new("cp").arg("-r").arg(&download).arg(&copied).status().unwrap();
    assert!(copy.success());
    let filled = Gate::start_in(dir, &(upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    let tree = format!("[upstreams.tree]\ntype = \"directory\"\npath = {download:?}\n");
    let directory = Gate::start(&(tree + &route("*", &["tree"], "")));
    for gate in [filled, directory] {
        let go = Go::with_proxy(&gate.url());
        go.main_module(MAIN);
        go.ok(&["mod", "download"]);
        assert!(go.ok(&["mod", "verify"]).contains("all modules verified"));
    }
}

#[test]
fn several_at_once_from_an_empty_cache() {
    let (up, gate) = served();
    let sums: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| {
                let gate = &gate;
                scope.spawn(move || {
                    let go = Go::with_proxy(&gate.url());
                    let work = go.main_module(MAIN);
                    go.ok(&["mod", "download"]);
                    fs::read_to_string(work.join("go.sum")).unwrap()
                })
            })
            .collect();
        runs.into_iter().map(|r| r.join().unwrap()).collect()
    });
    assert!(sums.windows(2).all(|w| w[0] == w[1]));
    for path in up.asked().iter().filter(|p| !p.ends_with("/list") && !p.ends_with("/@latest")) {
        assert_eq!(up.count(path), 1, "{path}");
    }
}

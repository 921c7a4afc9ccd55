//! `warm`: what files and lists name is fetched, once. And what the tests of the commands that keep the cache share.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::eventually;
use crate::support::gate::{Gate, config_text, program, route, upstream};
use crate::support::go::Go;
use crate::support::modules::Module;
use crate::support::sumdb::{Sumdb, go_sum};
use crate::support::upstream::{Reply, Upstream};

/// A folder with a configuration, in which commands run. Nobody serves there.
pub(crate) struct Office {
    pub(crate) dir: TempDir,
    text: String,
}

impl Office {
    pub(crate) fn new(text: &str) -> Self {
        Self::at(tempfile::tempdir().unwrap(), text)
    }

    /// In a folder that exists already.
    pub(crate) fn at(dir: TempDir, text: &str) -> Self {
        let file = config_text(dir.path(), "127.0.0.1:0", "127.0.0.1:0", text);
        fs::write(dir.path().join("modgate.toml"), file).unwrap();
        Self { dir, text: text.to_owned() }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.arg("--config").arg(self.path("modgate.toml")).env("HOME", self.dir.path()).args(arguments);
        command
    }

    /// Runs a command with this on its standard input: its exit code, and what it said.
    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> (Option<i32>, String) {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It need not read what it is given.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    /// Runs a command that has to succeed; what it said.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let (code, said) = self.run(arguments, "");
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        said
    }

    /// Runs a command that has to fail; what it said.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let (code, said) = self.run(arguments, "");
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        said
    }

    /// A file or folder of this name.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Writes a file and gives its name.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// A part of a module in the cache's folder of an upstream.
    pub(crate) fn kept(&self, upstream: &str, url: &str) -> PathBuf {
        self.dir.path().join("cache").join(upstream).join(&url[1..])
    }

    pub(crate) fn serve(self) -> Gate {
        Gate::start_in(self.dir, &self.text)
    }
}

/// One public upstream that nothing is held against.
fn plain(up: &Upstream) -> Office {
    Office::new(&(upstream("u", &up.url(), "") + &route("*", &["u"], "")))
}

/// What was asked for, without doubles, in order.
fn asked(up: &Upstream, suffix: &str) -> Vec<String> {
    let mut asked: Vec<String> = up.asked().into_iter().filter(|path| path.ends_with(suffix)).collect();
    asked.sort();
    asked.dedup();
    asked
}

fn urls(modules: &[&Module], suffixes: &[&str]) -> Vec<String> {
    let mut urls: Vec<String> = modules.iter().flat_map(|m| suffixes.iter().map(|suffix| m.url(suffix))).collect();
    urls.sort();
    urls
}

const PARTS: &[&str] = &["info", "mod", "zip"];

#[test]
fn a_go_sum_names_whole_versions_and_such_whose_go_mod_is_enough() {
    let modules = [
        Module::new("example.com/Upper/m", "v1.0.0"),
        Module::new("example.com/n", "v1.0.0"),
        Module::new("example.com/large", "v2.0.0+incompatible").bulk(700_000),
    ];
    let up = Upstream::serving(&modules);
    let database = Sumdb::knowing(&modules);
    let server = database.serve();
    let office = Office::new(&(database.table(&server) + &upstream("u", &up.url(), "") + &route("*", &["u"], "")));
    let only_mod = go_sum(&modules[1]).lines().nth(1).unwrap().to_owned() + "\n";
    let file = office.write("go.sum", &(go_sum(&modules[0]) + &only_mod + "\n" + &go_sum(&modules[2])));
    let said = office.ok(&["warm", &file]);
    assert!(said.contains("3 versions: 7 files came (") && said.contains("0 were there already"), "{said}");
    let mut wanted = urls(&[&modules[0], &modules[2]], PARTS);
    wanted.push(modules[1].url("mod"));
    wanted.sort();
    assert_eq!(asked(&up, ""), wanted);
    assert_eq!(up.asked().len(), wanted.len(), "each once");
    up.forget();
    server.forget();
    let said = office.ok(&["warm", &file]);
    assert!(said.contains("0 files came (0 B), 7 were there already"), "{said}");
    assert_eq!((up.asked(), server.asked()), (vec![], vec![]));
    let gate = office.serve();
    for url in &wanted {
        assert_eq!(gate.get(url).status, 200, "{url}");
    }
    assert_eq!((up.asked(), server.asked()), (vec![], vec![]));
}

/// Modules of new and old Go, of which each leads to others.
fn graph() -> Vec<Module> {
    let old = |path: &str, version: &str| {
        let module = Module::new(path, version);
        Module { go_mod: module.go_mod.replace("1.21", "1.16"), ..module }
    };
    vec![
        Module::new("example.com/new", "v1.1.0").requires("example.com/deep", "v1.0.0").requires("example.com/both", "v1.5.0"),
        Module::new("example.com/deep", "v1.0.0").requires("example.com/deeper", "v1.0.0"),
        Module::new("example.com/deeper", "v1.0.0").requires("example.com/deepest", "v1.0.0"),
        Module::new("example.com/deepest", "v1.0.0"),
        old("example.com/old", "v1.0.0").requires("example.com/both", "v1.2.0").requires("example.com/lazy", "v1.0.0"),
        Module::new("example.com/lazy", "v1.0.0").requires("example.com/last", "v1.0.0"),
        old("example.com/last", "v1.0.0").requires("example.com/both", "v1.3.0"),
        Module::new("example.com/both", "v1.2.0"),
        Module::new("example.com/both", "v1.3.0").requires("example.com/deepest", "v1.0.0"),
        Module::new("example.com/both", "v1.5.0"),
    ]
}

#[test]
fn of_a_go_mod_the_same_go_mods_are_asked_for_as_the_go_command_asks_for() {
    let all = graph();
    for (go, required) in [
        ("1.21", "example.com/new v1.1.0"),
        ("1.21", "example.com/old v1.0.0"),
        ("1.21", "(\n\texample.com/new v1.1.0\n\texample.com/old v1.0.0\n)"),
        ("1.16", "(\n\texample.com/new v1.1.0\n\texample.com/old v1.0.0\n)"),
    ] {
        let text = format!("module example.org/main\n\ngo {go}\n\nrequire {required}\n");
        let theirs = Upstream::serving(&all);
        let command = Go::with_proxy(&theirs.url());
        command.main_module(&text);
        command.ok(&["mod", "graph"]);
        let graph = asked(&theirs, ".mod");
        let listed = command.ok(&["list", "-m", "-f", "{{if not .Main}}{{.Path}}@{{.Version}}{{end}}", "all"]);
        let ours = Upstream::serving(&all);
        let office = plain(&ours);
        office.ok(&["warm", &office.write("go.mod", &text)]);
        assert_eq!(asked(&ours, ".mod"), graph, "go {go}: {required}");
        let zips = asked(&ours, ".zip");
        let selected: Vec<&Module> = match go {
            "1.16" => all.iter().filter(|m| listed.lines().any(|l| l == format!("{}@{}", m.path, m.version))).collect(),
            _ => all.iter().filter(|m| required.contains(&m.path)).collect(),
        };
        assert_eq!(zips, urls(&selected, &["zip"]), "go {go}: {required}: {listed}");
        assert_eq!(asked(&ours, ".info"), urls(&selected, &["info"]), "go {go}: {required}");
    }
}

#[test]
fn after_a_go_mod_the_go_command_builds_by_the_cache_alone() {
    let all = graph();
    let (both, new) = ("example.com/both v1.5.0 // indirect", "example.com/new v1.1.0");
    for text in [
        format!("module example.org/main\n\ngo 1.21\n\nrequire (\n\t{new}\n\t{both}\n\texample.com/deep v1.0.0 // indirect\n\texample.com/deeper v1.0.0 // indirect\n\texample.com/deepest v1.0.0 // indirect\n)\n"),
        format!("module example.org/main\n\ngo 1.16\n\nrequire {new}\n"),
        "module example.org/main\n\ngo 1.21\n\nrequire example.com/gone v1.0.0\n\nreplace example.com/gone => example.com/new v1.1.0\n".into(),
    ] {
        let mut served = all.clone();
        // What is replaced is there too, and nobody needs more than its go.mod.
        served.push(Module::new("example.com/gone", "v1.0.0"));
        let up = Upstream::serving(&served);
        let office = plain(&up);
        office.ok(&["warm", &office.write("go.mod", &text)]);
        let gate = office.serve();
        up.only(Reply::Status(500));
        let go = Go::with_proxy(&format!("{}/cached-only", gate.url()));
        let work = go.main_module(&text);
        let import = if text.contains("gone") { "example.com/gone" } else { "example.com/new" };
        fs::write(work.join("main.go"), format!("package main\n\nimport _ {import:?}\n\nfunc main() {{}}\n")).unwrap();
        go.ok(&["mod", "graph"]);
        go.ok(&["build", "-o", "built", "."]);
    }
}

#[test]
fn a_list_may_be_versions_branches_and_comments() {
    let modules = [
        Module::new("example.com/at", "v1.0.0"),
        Module::new("example.com/apart", "v1.0.0"),
        Module::new("example.com/tabbed", "v1.0.0"),
        Module::new("example.com/newest", "v1.4.0"),
        Module::new("example.com/pre", "v1.3.2"),
        Module::new("example.com/single", "v1.0.0"),
    ];
    let branch = Module::new("example.com/branch", "v0.0.0-20240203040506-0123456789ab");
    let up = Upstream::serving(&modules);
    for part in PARTS {
        up.set(&branch.url(part), Reply::Good(crate::verify::body(&branch, part)));
    }
    up.set("/example.com/branch/@v/main.info", Reply::Good(branch.info()));
    up.set("/example.com/newest/@v/list", Reply::Good(b"v1.0.0\nv1.4.0\n".to_vec()));
    up.set("/example.com/pre/@v/list", Reply::Good(b"v1.2.9\nv1.3.2\nv2.0.0+incompatible\n".to_vec()));
    let office = plain(&up);
    let list = "# what we build\r\nexample.com/at@v1.0.0\n\n  example.com/apart v1.0.0  \nexample.com/tabbed\tv1.0.0\r\n\
                example.com/newest@latest\nexample.com/branch@main\nexample.com/pre v1.3\nexample.com/at@v1.0.0\n";
    let (code, said) = office.run(&["warm", "-", "example.com/single@v1.0.0"], list);
    assert!(code == Some(0) && said.contains("7 versions: "), "{said}");
    let every: Vec<&Module> = modules.iter().chain([&branch]).collect();
    for url in urls(&every, PARTS) {
        assert!(office.kept("u", &url).is_file(), "{url}");
    }
    assert_eq!(asked(&up, ".zip"), urls(&every, &["zip"]));
    up.forget();
    let (code, said) = office.run(&["warm", "-", "example.com/single@v1.0.0"], list);
    assert!(code == Some(0) && said.contains(" 0 files came"), "{said}");
    assert_eq!(up.asked(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_had_is_named_and_tried_alone_the_next_time() {
    let modules: Vec<Module> = (0..20).map(|n| Module::new("example.com/m", &format!("v1.{n}.0"))).collect();
    let gone = Module::new("example.com/gone", "v1.0.0");
    let up = Upstream::serving(&modules);
    up.set(&modules[3].url("zip"), Reply::Status(500));
    up.set(&modules[5].url("mod"), Reply::Truncate(b"module example.com/m\n".to_vec(), 5));
    let office = plain(&up);
    let names: Vec<String> = modules.iter().chain([&gone]).map(|m| format!("{} {}", m.path, m.version)).collect();
    let list = office.write("list", &names.join("\n"));
    let said = office.fails(&["warm", "--jobs", "3", &list]);
    for named in [
        "example.com/m/@v/v1.3.0.zip: ",
        "u: 500",
        "example.com/m/@v/v1.5.0.mod: ",
        "example.com/gone/@v/v1.0.0.info: ",
        "example.com/gone/@v/v1.0.0.zip: ",
        "58 files came",
        "5 files could not be had",
    ] {
        assert!(said.contains(named), "missing {named:?} in:\n{said}");
    }
    for (path, body) in crate::support::modules::tree(&[modules[3].clone(), modules[5].clone(), gone.clone()]) {
        up.set(&path, Reply::Good(body));
    }
    up.forget();
    let said = office.ok(&["warm", &list]);
    assert!(said.contains("5 files came") && said.contains("58 were there already"), "{said}");
    let mut wanted = urls(&[&gone], PARTS);
    wanted.extend([modules[3].url("zip"), modules[5].url("mod")]);
    assert_eq!(asked(&up, ".info").len() + asked(&up, ".mod").len() + asked(&up, ".zip").len(), wanted.len(), "{:?}", up.asked());
}

#[test]
fn a_run_that_was_killed_is_taken_up_again() {
    let modules: Vec<Module> = (0..30).map(|n| Module::new("example.com/m", &format!("v1.{n}.0")).bulk(300_000)).collect();
    let up = Upstream::serving(&modules);
    for module in &modules[10..] {
        up.set(&module.url("zip"), Reply::Stall(module.zip(), 200_000));
    }
    let office = plain(&up);
    let names: Vec<String> = modules.iter().map(|m| format!("{}@{}", m.path, m.version)).collect();
    let list = office.write("list", &names.join("\n"));
    let mut command = office.command(&["warm", &list]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("some are there and some on their way", || {
        office.kept("u", &modules[2].url("zip")).exists() && modules[10..].iter().any(|m| up.count(&m.url("zip")) > 0)
    });
    std::thread::sleep(Duration::from_millis(50));
    child.kill().unwrap();
    child.wait().unwrap();
    for (path, body) in crate::support::modules::tree(&modules) {
        up.set(&path, Reply::Good(body));
    }
    let before: Vec<&Module> = modules.iter().filter(|m| office.kept("u", &m.url("zip")).exists()).collect();
    assert!(!before.is_empty() && before.len() <= 10, "{}", before.len());
    for module in &before {
        assert!(fs::read(office.kept("u", &module.url("zip"))).unwrap() == module.zip(), "whole or not at all");
    }
    up.forget();
    office.ok(&["warm", &list]);
    for module in &modules {
        assert!(fs::read(office.kept("u", &module.url("zip"))).unwrap() == module.zip());
        let again = before.iter().any(|b| b.version == module.version);
        assert_eq!(up.count(&module.url("zip")), usize::from(!again), "{}", module.version);
    }
    let left = fs::read_dir(office.path("cache/.tmp")).unwrap().count();
    assert_eq!(left, 0, "temporary files are swept");
}

#[test]
fn bad_names_are_said_with_their_file_and_line_before_anybody_is_asked() {
    let up = Upstream::start();
    let office = plain(&up);
    for (file, text, said) in [
        ("list", "# x\n\nexample.com/m@v1.0.0\nexample.com/m\n", "list:4: not module@version"),
        ("list", "example.com/m@v1.0.0\nexample.com/../m@v1.0.0\n", "list:2: "),
        ("list", "example.com/m v1.0.0 h1:abc=\n", "list:1: "),
        ("go.sum", "example.com/m v1.0.0 h1:abc=\nexample.com/m v1.0.0\n", "go.sum:2: not a line of a go.sum"),
        ("go.sum", "example.com/m main h1:abc=\n", "go.sum:1: "),
        ("go.sum", "example.com/m v2.0.0 h1:abc=\n", "go.sum:1: "),
        ("go.mod", "module (\n", "go.mod: cannot be read as a go.mod"),
        ("x/../go.mod", "", "go.mod: "),
    ] {
        if !text.is_empty() {
            office.write(file, text);
        }
        for command in [&["warm"][..], &["export", "-o", "/dev/null/x"]] {
            let complaint = office.fails(&[command, &[&office.path(file)]].concat());
            assert!(complaint.contains(said), "{file} {text:?}: {complaint}");
        }
    }
    for (name, said) in [("example.com/m@", "example.com/m@: "), ("@v1.0.0", "@v1.0.0: "), ("nowhere.sum", "nowhere.sum: ")] {
        assert!(office.fails(&["warm", name]).contains(said), "{name}");
    }
    assert!(office.fails(&["warm"]).contains("nothing is named"));
    assert!(office.fails(&["warm", "--toolchain", "go 1.2"]).contains("toolchain \"go 1.2\""));
    assert_eq!(up.asked(), Vec::<String>::new());
}

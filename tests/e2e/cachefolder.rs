//! The disk cache is the module cache's download folder by another name.
//!
//! A folder of modgate's cache can be served to the go command by itself, `GOPROXY=file://…`, so that an office without a network
//! needs no modgate; and what a developer's go command downloaded can be put into modgate's cache, or be an upstream of the type
//! "directory", so that what is gone everywhere else is still there. All of it on real modules.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use crate::helpers::{copy_tree, files_below, go_fails, go_ok, public_proxy};
use crate::support::gate::{Gate, route, upstream};
use crate::support::go::Go;
use crate::support::{eventually, free_port};

/// Escaped paths, gopkg.in, a `/v2`, an `+incompatible` one, a pseudo-version, and one with many requirements.
const REQUIREMENTS: &[&str] = &[
    "github.com/BurntSushi/toml@v1.4.0",
    "github.com/pelletier/go-toml/v2@v2.2.3",
    "github.com/Masterminds/sprig@v2.22.0+incompatible",
    "github.com/spf13/cobra@v1.8.1",
    "gopkg.in/yaml.v3@v3.0.1",
    "golang.org/x/example/hello@v0.0.0-20250915201037-7f05d217867b",
];

/// The go.mod and go.sum of a main module.
struct Project {
    go_mod: String,
    go_sum: String,
}

impl Project {
    /// Makes it in a clean room, which has all that it needs afterwards.
    fn make(go: &Arc<Go>) -> Self {
        let work = go.main_module("module example.com/main\n\ngo 1.23\n");
        go_ok(go, &[&["get"], REQUIREMENTS].concat());
        go_ok(go, &["mod", "download", "all"]);
        let read = |name| fs::read_to_string(work.join(name)).unwrap();
        Self { go_mod: read("go.mod"), go_sum: read("go.sum") }
    }

    /// Downloads it whole into a clean room with this GOPROXY, and finds it to be the same.
    fn comes_from(&self, proxy: &str) -> Arc<Go> {
        let go = Arc::new(Go::with_proxy(proxy));
        let work = go.main_module(&self.go_mod);
        // Without sums to begin with: they are made anew from what comes.
        go_ok(&go, &["mod", "download", "all"]);
        assert_eq!(fs::read_to_string(work.join("go.sum")).unwrap(), self.go_sum, "the sums of what {proxy} gives");
        assert!(go_ok(&go, &["mod", "verify"]).contains("all modules verified"), "{proxy}");
        go
    }
}

fn file_url(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

/// What the go command has downloaded, in a folder that the go command cannot change any more.
fn downloaded(go: &Go, to: &Path) {
    copy_tree(&go.mod_cache().join("cache/download"), to);
}

/// A configuration whose only upstream is not there.
fn dead_upstream() -> String {
    upstream("gone", &format!("http://127.0.0.1:{}", free_port()), "connect = \"1s\"") + &route("*", &["gone"], "")
}

#[test]
fn a_folder_of_the_cache_serves_the_go_command_without_modgate() {
    let mut gate = Gate::start(&(upstream("public", &public_proxy(), "") + &route("*", &["public"], "")));
    let project = Project::make(&Arc::new(Go::with_proxy(&gate.url())));
    let go = Arc::new(Go::with_proxy(&gate.url()));
    let versions = go_ok(&go, &["list", "-m", "-versions", "github.com/BurntSushi/toml"]);
    // The last zip may still be on its way to the disk when its reader has it whole.
    let settled = || files_below(&gate.dir.path().join("cache/.tmp")).iter().all(|file| file.ends_with("lock"));
    eventually("all is stored", settled);
    gate.stop();

    let folder = file_url(&gate.cache("public"));
    let go = project.comes_from(&folder);
    assert_eq!(go_ok(&go, &["list", "-m", "-versions", "github.com/BurntSushi/toml"]), versions);
    assert_eq!(
        go_ok(&go, &["list", "-m", "golang.org/x/example/hello@latest"]),
        "golang.org/x/example/hello v0.0.0-20250915201037-7f05d217867b\n"
    );
    // It holds modules and nothing else.
    let parts = ["info", "mod", "zip"];
    for file in files_below(&gate.cache("public")) {
        let known = file.ends_with("@v/list")
            || file.ends_with("@latest")
            || file.extension().is_some_and(|e| parts.iter().any(|p| e == *p));
        assert!(known, "{} in the cache", file.display());
    }
}

#[test]
fn a_developers_downloads_are_served_from_the_cache_when_the_upstream_is_gone() {
    let developer = Arc::new(Go::with_proxy(&public_proxy()));
    let project = Project::make(&developer);
    let dir = TempDir::new().unwrap();
    downloaded(&developer, &dir.path().join("cache/gone"));
    let gate = Gate::start_in(dir, &dead_upstream());
    let go = project.comes_from(&gate.url());
    // A list that the developer's go command kept is old, and better than none.
    let listed = go_ok(&go, &["list", "-m", "-versions", "github.com/spf13/cobra"]);
    assert!(listed.contains("v1.8.1"), "{listed}");
    let said = go_fails(&go, &["mod", "download", "github.com/spf13/cobra@v1.7.0"]);
    assert!(said.contains("502 Bad Gateway"), "what was never downloaded is out of reach, not absent: {said}");
}

#[test]
fn a_developers_downloads_are_an_upstream() {
    let developer = Arc::new(Go::with_proxy(&public_proxy()));
    let project = Project::make(&developer);
    let dir = TempDir::new().unwrap();
    downloaded(&developer, &dir.path().join("downloads"));
    let before = files_below(&dir.path().join("downloads"));
    let table = "[upstreams.developer]\ntype = \"directory\"\npath = \"{dir}/downloads\"\n";
    let gate = Gate::start_in(dir, &(table.to_owned() + &route("*", &["developer"], "")));
    let go = project.comes_from(&gate.url());
    // Lists and what follows from them are as the go command itself reads them there.
    let by_file = Arc::new(Go::with_proxy(&file_url(&gate.dir.path().join("downloads"))));
    by_file.main_module(&project.go_mod);
    for question in ["github.com/spf13/cobra@latest", "github.com/spf13/cobra@v1.8", "golang.org/x/example/hello@latest"] {
        assert_eq!(go_ok(&go, &["list", "-m", question]), go_ok(&by_file, &["list", "-m", question]), "{question}");
    }
    let said = go_fails(&go, &["mod", "download", "github.com/spf13/cobra@v1.7.0"]);
    assert!(said.contains("404 Not Found"), "a directory knows what it does not have: {said}");
    assert_eq!(files_below(&gate.dir.path().join("downloads")), before, "the directory is only read");
}

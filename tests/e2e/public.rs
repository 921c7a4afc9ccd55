//! modgate without a configuration, before the machine's own Go module proxy: what a person has who just starts it.
//!
//! A real project comes through it whole and with the sums that it has without modgate, comes out of the cache alone the second
//! time, and the go command's other ways of asking (a tool to install, a list of versions, the latest one) work as well. The
//! real proxy has quirks that no upstream of ours has.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::helpers::{Program, files_below, go_fails, go_ok, public_proxy};
use crate::support::free_port;
use crate::support::gate::program;
use crate::support::go::Go;

/// A main module of moderate size: escaped paths, gopkg.in, a `/v2`, an `+incompatible` one, and large zips.
const REQUIREMENTS: &[&str] = &[
    "github.com/prometheus/client_golang@v1.20.5",
    "github.com/spf13/cobra@v1.8.1",
    "github.com/BurntSushi/toml@v1.4.0",
    "github.com/pelletier/go-toml/v2@v2.2.3",
    "github.com/Masterminds/sprig@v2.22.0+incompatible",
    "gopkg.in/yaml.v3@v3.0.1",
    "golang.org/x/text@v0.21.0",
];

/// modgate with nothing but the machine's Go settings, as variables of its own, and a home.
struct Bare {
    address: String,
    program: Program,
    _home: TempDir,
}

impl Bare {
    fn start(proxy: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let [address, admin] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let mut command = program();
        command.env("HOME", home.path()).env("GOENV", "off").env("GOPROXY", proxy);
        command.env("MODGATE_SERVER__LISTEN", &address).env("MODGATE_ADMIN__LISTEN", admin);
        command.env("MODGATE_LOG__FORMAT", "json");
        let mut program = Program::start(command, &home.path().join("log"));
        program.listens(&address);
        Self { address, program, _home: home }
    }

    /// A clean room of the go command behind it.
    fn go(&self) -> Arc<Go> {
        Arc::new(Go::with_proxy(&format!("http://{}", self.address)))
    }

    /// The lines of all requests so far. They are written by a thread of its own, so the log has to come to rest.
    fn requests(&self) -> Vec<Value> {
        let log = self.program.log_at_rest();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.filter(|line: &Value| line["target"] == "modgate::request").collect()
    }
}

/// Makes the project; its go.mod and go.sum.
fn make_project(go: &Arc<Go>) -> (String, String) {
    let work = go.main_module("module example.com/main\n\ngo 1.23\n");
    go_ok(go, &[&["get"], REQUIREMENTS].concat());
    go_ok(go, &["mod", "download", "all"]);
    assert!(go_ok(go, &["mod", "verify"]).contains("all modules verified"));
    read_project(&work)
}

fn read_project(work: &Path) -> (String, String) {
    let read = |name| fs::read_to_string(work.join(name)).unwrap();
    (read("go.mod"), read("go.sum"))
}

#[test]
fn a_real_project_comes_through_whole_and_the_second_time_from_the_cache_alone() {
    let proxy = public_proxy();
    let directly = make_project(&Arc::new(Go::with_proxy(&proxy)));
    assert!(directly.1.lines().count() > 50, "a project of moderate size:\n{}", directly.1);
    let gate = Bare::start(&proxy);
    assert_eq!(make_project(&gate.go()), directly, "the same go.mod and go.sum as without modgate");
    let first = gate.requests().len();

    let go = gate.go();
    let work = go.main_module(&directly.0);
    fs::write(work.join("go.sum"), &directly.1).unwrap();
    go_ok(&go, &["mod", "download", "all"]);
    assert!(go_ok(&go, &["mod", "verify"]).contains("all modules verified"));
    assert_eq!(read_project(&work), directly);
    let zips = zips_of(&go);
    assert!(zips > 25, "a project of moderate size, not {zips} zips");
    let mut immutable = 0;
    for line in &gate.requests()[first..] {
        assert_eq!(line["status"], 200, "{line}");
        let what = line["what"].as_str().unwrap();
        if matches!(what.rsplit('.').next(), Some("info" | "mod" | "zip")) {
            assert!(line["cache"] == "memory" || line["cache"] == "hit", "an upstream was asked again: {line}");
            immutable += 1;
        }
    }
    assert!(immutable >= 3 * zips, "{immutable} requests for {zips} zips");
}

/// How many zips the go command has downloaded.
fn zips_of(go: &Go) -> usize {
    let files = files_below(&go.mod_cache().join("cache/download"));
    files.iter().filter(|file| file.extension().is_some_and(|e| e == "zip")).count()
}

#[test]
fn tools_lists_and_the_latest_version_work_as_without_modgate() {
    let proxy = public_proxy();
    let gate = Bare::start(&proxy);
    let (direct, through) = (Arc::new(Go::with_proxy(&proxy)), gate.go());
    for question in [
        &["list", "-m", "-versions", "golang.org/x/mod"][..],
        &["list", "-m", "-versions", "github.com/BurntSushi/toml"],
        &["list", "-m", "golang.org/x/mod@latest"],
        &["list", "-m", "golang.org/x/mod@<v0.20.0"],
        &["list", "-m", "golang.org/x/mod@v0.19"],
        &["list", "-m", "rsc.io/quote@v1.5.2"],
    ] {
        for go in [&direct, &through] {
            go.main_module("module example.com/main\n\ngo 1.23\n");
        }
        assert_eq!(go_ok(&through, question), go_ok(&direct, question), "{question:?}");
    }

    let work = through.main_module("module example.com/main\n\ngo 1.23\n");
    go_ok(&through, &["get", "golang.org/x/mod@latest"]);
    let latest = go_ok(&direct, &["list", "-m", "golang.org/x/mod@latest"]);
    assert!(read_project(&work).0.contains(latest.trim()), "{latest}");

    go_ok(&through, &["install", "golang.org/x/tools/cmd/stringer@v0.30.0"]);
    // A module without tagged versions.
    go_ok(&through, &["install", "golang.org/x/example/hello@latest"]);
    for tool in ["stringer", "hello"] {
        assert!(through.dir.path().join("gopath/bin").join(tool).is_file(), "{tool} was installed");
    }
    // What the proxy does not have fails with what it said.
    let said = go_fails(&through, &["mod", "download", "golang.org/x/mod@v0.0.99"]);
    assert!(said.contains("modgate: golang.org/x/mod/@v/v0.0.99.info:"), "{said}");
}

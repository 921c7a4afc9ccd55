//! A bundle of real modules and a toolchain, made where the public proxy and database are reached, and used where nobody is.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use crate::daemons::Daemon;
use crate::helpers::{LIMIT, go_env, go_ok, public_proxy};
use crate::namespace::Namespace;
use crate::support::gate::{config_text, program, route, upstream};
use crate::support::go::Go;

/// The public database, which the go command asks by default.
const PUBLIC: &str = "sum.golang.org";
/// What the program needs; each is small, and some need others.
const MODULES: &[&str] = &[
    "rsc.io/quote@v1.5.2",
    "github.com/BurntSushi/toml@v1.4.0",
    "github.com/Masterminds/semver/v3@v3.3.0",
    "gopkg.in/yaml.v3@v3.0.1",
    "github.com/pkg/errors@v0.9.1",
];
const MAIN: &str = r#"package main

import (
	"fmt"

	"github.com/BurntSushi/toml"
	"github.com/Masterminds/semver/v3"
	"github.com/pkg/errors"
	"gopkg.in/yaml.v3"
	"rsc.io/quote"
)

func main() {
	var read struct{ A int }
	_, err := toml.Decode("A = 7", &read)
	fmt.Println(quote.Glass(), read.A, semver.MustParse("1.2.3"), errors.Wrap(err, "x"), yaml.Unmarshal(nil, &read))
}
"#;
/// Not the machine's own.
const TOOLCHAIN: &str = "go1.24.0";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A room of the go command outside, with the public proxy and the default database.
fn room(go_mod: &str) -> Arc<Go> {
    let go = Go::with_proxy(&public_proxy()).env("GOSUMDB", PUBLIC);
    let work = go.main_module(go_mod);
    fs::write(work.join("main.go"), MAIN).unwrap();
    Arc::new(go)
}

fn go_sum(go: &Go) -> String {
    fs::read_to_string(go.dir.path().join("work/go.sum")).unwrap()
}

/// A bundle of all that this room's program needs.
fn export(dir: &Path, work: &Path) -> String {
    let text = format!("[sumdb]\ndatabases = [{PUBLIC:?}]\nvia = [\"public\"]\n")
        + &upstream("public", &public_proxy(), "retries = 2\n")
        + &route("*", &["public"], "verify = \"sumdb\"\n");
    fs::write(dir.join("home.toml"), config_text(dir, "127.0.0.1:0", "127.0.0.1:0", &text)).unwrap();
    let bundle = dir.join("bundle.tar").display().to_string();
    let toolchain = format!("{TOOLCHAIN}.{}-{}", go_env("GOOS"), go_env("GOARCH"));
    let export = || {
        let mut command = program();
        command.arg("--config").arg(dir.join("home.toml")).env("HOME", dir);
        command.args(["export", "--toolchain", &toolchain, "-o", &bundle]).args(["go.mod", "go.sum"].map(|file| work.join(file)));
        command.output().unwrap()
    };
    let mut output = export();
    for _ in 0..2 {
        // The network may fail for a moment; what is there is not fetched again.
        if said(&output).contains("could not be had; run it again") {
            output = export();
        }
    }
    assert!(output.status.success(), "{}", said(&output));
    bundle
}

/// The go command inside, with its default settings but for where it may fetch: its sums are for the default database to prove.
fn go_inside(namespace: &Namespace, room: &Path, arguments: &[&str], more: &[(&str, &str)]) -> Command {
    let folder = |name: &str| room.join(name).display().to_string();
    let (home, cache, build, work) = (folder(""), folder("modcache"), folder("buildcache"), folder("work"));
    let variables = [
        ("HOME", home.as_str()),
        ("GOMODCACHE", &cache),
        ("GOCACHE", &build),
        ("GOENV", "off"),
        ("GOFLAGS", "-modcacherw -mod=mod"),
        ("GOTOOLCHAIN", "local"),
        ("GOPROXY", "http://127.0.0.1:8080"),
    ];
    let limit = LIMIT.as_secs().to_string();
    let words = [&[limit.as_str(), "go", "-C", &work], arguments].concat();
    namespace.command("timeout", &words, &[&variables, more].concat())
}

#[test]
fn an_office_without_a_network_builds_and_proves_by_a_bundle() {
    let outside = room("module example.com/main\n\ngo 1.21\n");
    go_ok(&outside, &[&["get"], MODULES].concat());
    go_ok(&outside, &["build", "-o", "built", "."]);
    let work = outside.dir.path().join("work");
    let dir = tempfile::tempdir().unwrap();
    let bundle = export(dir.path(), &work);
    // Without a go.sum it is written anew, by what the database says.
    let go_mod = fs::read_to_string(work.join("go.mod")).unwrap();
    let direct = room(&go_mod);
    go_ok(&direct, &["build", "-o", "built", "."]);

    let namespace = Namespace::make();
    let office = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/offline.toml")).unwrap();
    let text = text.replace("/var/lib/modgate", &office.path().join("cache").display().to_string());
    let config = office.path().join("offline.toml").display().to_string();
    fs::write(&config, text).unwrap();
    let home = office.path().display().to_string();
    let modgate = |arguments: &[&str]| {
        let words = [&["--config", &config], arguments].concat();
        namespace.command(env!("CARGO_BIN_EXE_modgate"), &words, &[("HOME", &home), ("GOENV", "off")])
    };
    // While it serves, as the configuration says.
    let (folder, address) = (tempfile::tempdir().unwrap(), format!("{}:8080", namespace.inner()));
    let daemon = Daemon::start(modgate(&["serve"]), folder, &address, "said");
    let imported = modgate(&["import", &bundle]).output().unwrap();
    assert!(imported.status.success(), "{}", said(&imported));

    let inside = tempfile::tempdir().unwrap();
    fs::create_dir(inside.path().join("work")).unwrap();
    fs::write(inside.path().join("work/go.mod"), &go_mod).unwrap();
    fs::write(inside.path().join("work/main.go"), MAIN).unwrap();
    let go = |arguments: &[&str], more: &[(&str, &str)]| {
        let output = go_inside(&namespace, inside.path(), arguments, more).output().unwrap();
        (output.status.success(), said(&output))
    };
    let (succeeded, printed) = go(&["env", "GOSUMDB", "GONOSUMDB", "GOPRIVATE"], &[]);
    assert!(succeeded && printed.trim() == PUBLIC, "{printed}");
    let (succeeded, printed) = go(&["build", "-o", "built", "."], &[]);
    assert!(succeeded, "{printed}\n{}", daemon.log());
    let sums = fs::read_to_string(inside.path().join("work/go.sum")).unwrap();
    assert_eq!(sums, go_sum(&direct));
    assert!(sums.lines().count() >= 2 * MODULES.len(), "{sums}");
    let built = inside.path().join("work/built").display().to_string();
    let run = namespace.command(&built, &[], &[]).output().unwrap();
    assert!(run.status.success() && said(&run).contains("7 1.2.3"), "{}", said(&run));
    // By name too, where the go command also wants to know which versions there are and which were taken back.
    fs::write(inside.path().join("work/go.mod"), "module example.com/main\n\ngo 1.21\n").unwrap();
    fs::remove_file(inside.path().join("work/go.sum")).unwrap();
    let (succeeded, printed) = go(&[&["get"], MODULES].concat(), &[]);
    assert!(succeeded, "{printed}\n{}", daemon.log());
    assert_eq!(fs::read_to_string(inside.path().join("work/go.sum")).unwrap(), go_sum(&outside));
    // And a toolchain that is not this machine's.
    let (succeeded, printed) = go(&["version"], &[("GOTOOLCHAIN", TOOLCHAIN)]);
    assert!(succeeded && printed.contains(&format!("go version {TOOLCHAIN} ")), "{printed}\n{}", daemon.log());
    // What the bundle does not have is not there.
    let (succeeded, printed) = go(&["get", "rsc.io/quote@v1.5.1"], &[]);
    assert!(!succeeded && printed.contains("404"), "{printed}");
    let (succeeded, printed) = go(&["version"], &[("GOTOOLCHAIN", "go1.24.1")]);
    assert!(!succeeded && printed.contains("go1.24.1"), "{printed}");
    // All of it is still what it has to be.
    let verified = modgate(&["verify"]).output().unwrap();
    assert!(verified.status.success() && said(&verified).contains(" 0 BAD"), "{}", said(&verified));
}

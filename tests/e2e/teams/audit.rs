//! The audit's file: every line is JSON, none is missing, and what it says of a download is what the go command says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{Site, TLS, htpasswd};
use crate::helpers::{go_ok, output_of, program};
use crate::support::eventually;
use crate::support::gate::{route, upstream};
use crate::support::go::Go;
use crate::support::modules::Module;
use crate::support::people;
use crate::support::sumdb::Sumdb;
use crate::support::upstream::Upstream;

/// The connections of wrk. Answers that are under way at its end it does not count.
const CONNECTIONS: usize = 20;

struct Audited {
    site: Site,
    /// The configuration without the audit's keys.
    text: String,
}

impl Audited {
    fn start(audit: &str) -> Self {
        let lib = Module::new("corp.example/Lib", "v1.2.3").bulk(100_000).requires("example.com/shared", "v1.0.0");
        let shared = Module::new("example.com/shared", "v1.0.0");
        let database = Sumdb::knowing(std::slice::from_ref(&shared));
        let (private, public) = (Upstream::serving(&[lib]), Upstream::serving(&[shared]));
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("users"), htpasswd("bob", "sesame")).unwrap();
        people::user(&dir.path().join("users"), "ann", "open");
        let text = TLS.to_owned()
            + &upstream("own", &private.url(), "private = true")
            + &upstream("public", &public.url(), "")
            + &route("*", &["public"], "")
            + "[teams.maps]\nusers_file = \"users\"\nprefix = \"maps\"\n"
            + &route("corp.example", &["own"], "").replace("[[routes]]", "[[teams.maps.routes]]")
            + &database.table(&database.serve())
            + "[audit]\nfile = \"audit.jsonl\"\n";
        Self { site: Site::start_in(dir, &(text.clone() + audit + "\n")), text }
    }

    fn dir(&self) -> &Path {
        self.site.gate.dir.path()
    }

    /// All lines of all files, in the order of their names, where the one that is being written comes last; none while a line
    /// is half written.
    fn try_lines(&self) -> Option<Vec<Value>> {
        let names = fs::read_dir(self.dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.starts_with("audit.jsonl")).collect();
        names.sort_by_key(|name| (name == "audit.jsonl", name.clone()));
        let texts: Vec<String> = names.iter().map(|name| fs::read_to_string(self.dir().join(name)).unwrap()).collect();
        if texts.iter().any(|text| !text.is_empty() && !text.ends_with('\n')) {
            return None;
        }
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
        Some(texts.iter().flat_map(|text| text.lines()).map(read).collect())
    }

    /// How many requests the lines stand for, once there are so many.
    fn counted(&self, at_least: u64) -> u64 {
        let mut counted = 0;
        eventually(&format!("{at_least} lines"), || {
            let lines = self.try_lines().unwrap_or_default();
            counted = lines.iter().map(|line| line["lost"].as_u64().unwrap_or(1)).sum();
            counted >= at_least
        });
        counted
    }

    /// All lines, once they stand for so many requests.
    fn lines(&self, at_least: u64) -> Vec<Value> {
        self.counted(at_least);
        self.try_lines().unwrap()
    }
}

#[test]
fn a_cold_download_has_the_sums_that_the_go_command_has() {
    let audited = Audited::start("");
    let port = audited.site.port();
    let go = Go::with_proxy(&format!("https://ann:open@localhost:{port}/maps"));
    let go = Arc::new(go.env("SSL_CERT_FILE", &audited.site.authority.path()));
    go.main_module("module example.com/main\n\ngo 1.21\n");
    let said: Value = serde_json::from_str(&go_ok(&go, &["mod", "download", "-json", "corp.example/Lib@v1.2.3"])).unwrap();
    let shared: Value = serde_json::from_str(&go_ok(&go, &["mod", "download", "-json", "example.com/shared@v1.0.0"])).unwrap();
    let lines = audited.lines(4);
    let of: BTreeMap<(&str, &str), &Value> =
        lines.iter().map(|line| ((line["module"].as_str().unwrap(), line["kind"].as_str().unwrap()), line)).collect();
    assert_eq!(of.len(), 4, "a line for each download and no other: {lines:?}");
    for (module, said, upstream, route, version) in [
        ("corp.example/Lib", &said, "own", "teams.maps.routes", "v1.2.3"),
        ("example.com/shared", &shared, "public", "routes", "v1.0.0"),
    ] {
        for (kind, suffix, sum) in [("zip", "Zip", "Sum"), ("mod", "GoMod", "GoModSum")] {
            let line = of[&(module, kind)];
            let text = |key: &str| line[key].as_str().unwrap_or_default();
            let whole = (text("who"), text("how"), text("team"), text("client"), text("version"), text("upstream"), text("cache"));
            assert_eq!(whole, ("ann", "password", "maps", "127.0.0.1", version, upstream, "miss"), "{line}");
            assert!(text("route").starts_with(route), "{line}");
            let file = said[suffix].as_str().unwrap();
            assert_eq!(line["bytes"].as_u64(), Some(fs::metadata(file).unwrap().len()), "{line}");
            assert_eq!((line["status"].as_u64(), line["complete"].as_bool()), (Some(200), Some(true)), "{line}");
            assert!(line["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
            assert_eq!(text("sum"), said[sum].as_str().unwrap(), "{line}");
        }
    }
    // From memory and disk it is the same sum; somebody else's name.
    for argument in ["--http1.1", "--http2"] {
        let client = audited.site.curl().with(&["-u", "bob:sesame", argument]);
        assert_eq!(client.status(&audited.site.url("/maps/corp.example/!lib/@v/v1.2.3.zip")), Some(200));
    }
    assert_eq!(audited.site.curl().status(&audited.site.url("/maps/corp.example/!lib/@v/v1.2.3.info")), Some(401));
    let lines = audited.lines(7);
    for line in &lines[4..6] {
        assert_eq!((line["who"].as_str(), line["sum"].as_str()), (Some("bob"), said["Sum"].as_str()), "{line}");
        assert_ne!(line["cache"].as_str(), Some("miss"), "{line}");
    }
    assert_eq!((lines[6]["status"].as_u64(), &lines[6]["who"], lines.len()), (Some(401), &Value::Null, 7), "{}", lines[6]);
}

/// Loads the gate for some seconds; how many answers wrk counted.
fn load(audited: &Audited, seconds: &str) -> u64 {
    let script = audited.dir().join("paths.lua");
    let paths = ["!lib/@v/v1.2.3.zip", "!lib/@v/v1.2.3.mod", "!lib/@v/v1.2.3.info", "!lib/@v/list", "!lib/@latest"];
    let paths = paths.map(|path| format!("\"/maps/corp.example/{path}\", ")).concat();
    let text = format!(
        "local paths = {{ {paths} }}\nlocal n = 0\nrequest = function() n = n + 1; return wrk.format(\"GET\", paths[n % #paths + 1]) end\n"
    );
    fs::write(&script, text).unwrap();
    let mut wrk = Command::new(program("wrk"));
    // bob:sesame
    wrk.args([
        "-t1",
        &format!("-c{CONNECTIONS}"),
        "-d",
        seconds,
        "--timeout",
        "20s",
        "-H",
        "Authorization: Basic Ym9iOnNlc2FtZQ==",
    ]);
    wrk.arg("-s").arg(script).arg(format!("https://localhost:{}", audited.site.port()));
    let said = output_of(wrk, b"");
    assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
    let line = said.lines().find(|line| line.contains("requests in")).unwrap_or_else(|| panic!("{said}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn under_load_there_is_a_line_for_each_answer_through_rotations() {
    // Small files, so that there are many.
    let audited = Audited::start("include = \"all\"\nmax_size = \"256KiB\"\nkeep = 10000");
    let answered = load(&audited, "5s");
    assert!(answered > 200, "{answered}");
    let counted = audited.counted(answered);
    assert!(counted <= answered + CONNECTIONS as u64, "{counted} lines for {answered} answers");
    let files = fs::read_dir(audited.dir()).unwrap().flatten();
    let files: Vec<_> = files.filter(|entry| entry.file_name().to_string_lossy().starts_with("audit.jsonl.")).collect();
    let bytes: u64 = files.iter().map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(!files.is_empty() && files.iter().all(|entry| entry.metadata().unwrap().len() < 300 << 10), "{bytes} bytes put aside");

    // So many that each counts: nothing is under way at the end.
    let client = audited.site.curl().with(&["-u", "bob:sesame", "-Z", "--parallel-max", "30", "--fail-early", "-f"]);
    let mods = audited.site.url("/maps/corp.example/!lib/@v/v1.2.3.mod?[1-1000]");
    let before = audited.counted(counted);
    output_of(client.with(&["-o", "/dev/null", &mods]).command(), b"");
    let lines = audited.lines(before + 1000);
    assert_eq!(audited.counted(0), before + 1000);
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["lost"].is_null()) {
        *kinds.entry(line["kind"].as_str().unwrap()).or_default() += 1;
        let text = |key: &str| line[key].as_str().unwrap_or_else(|| panic!("{key}: {line}"));
        assert_eq!((text("who"), text("team"), text("module")), ("bob", "maps", "corp.example/Lib"), "{line}");
        // A list may be put together from those of several.
        assert!(matches!(text("kind"), "list" | "latest") || line["upstream"] == "own", "{line}");
        assert!(!text("route").is_empty() && !text("cache").is_empty() && text("id").len() == 16, "{line}");
        assert!(line["bytes"].as_u64().is_some() && line["ms"].as_f64().is_some() && line["status"] == 200, "{line}");
        let sum = line["sum"].as_str();
        assert_eq!(sum.is_some_and(|sum| sum.starts_with("h1:")), matches!(text("kind"), "zip" | "mod"), "{line}");
    }
    assert_eq!(kinds.keys().copied().collect::<Vec<_>>(), ["info", "latest", "list", "mod", "zip"]);
    assert!(kinds.values().all(|n| *n > 20), "{kinds:?}");

    // From now on of downloads alone, and what somebody has put aside is not written to any more.
    let put_aside = audited.dir().join("aside");
    let mut mv = Command::new("mv");
    mv.arg(audited.dir().join("audit.jsonl")).arg(&put_aside);
    output_of(mv, b"");
    audited.site.gate.rewrite(&(audited.text.clone() + "keep = 10000\n"));
    audited.site.gate.signal(Signal::HUP);
    eventually("the file is there again", || audited.dir().join("audit.jsonl").exists());
    let (length, count) = (fs::metadata(&put_aside).unwrap().len(), audited.counted(0));
    let client = audited.site.curl().with(&["-u", "bob:sesame"]);
    for part in ["v1.2.3.info", "list", "v1.2.3.mod", "v1.2.3.zip"] {
        assert_eq!(client.status(&audited.site.url(&format!("/maps/corp.example/!lib/@v/{part}"))), Some(200));
    }
    assert_eq!(audited.counted(count + 2), count + 2);
    assert_eq!(fs::metadata(&put_aside).unwrap().len(), length);
}

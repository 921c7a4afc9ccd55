//! Go's own test proxy as an upstream: the modules that the go command itself is tested with, odd ones among them, and answers
//! that are wrong on demand.
//!
//! It is the test binary of `cmd/go` in the installed Go tree, made to serve instead of test (`proxy_test.go` there says what
//! its URLs mean): whatever the go command's authors thought a proxy could send, modgate has to pass on or refuse rightly.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use modgate::module::gomod::GoMod;
use modgate::module::{ModulePath, ModuleVersion, Query, Version};
use tempfile::TempDir;

use crate::helpers::{Program, go_env, go_fails, go_ok, output_of};
use crate::support::free_port;
use crate::support::gate::{Gate, route, upstream};
use crate::support::go::Go;
use crate::support::http::{self, Answer};

/// The go command's own source.
fn source() -> &'static Path {
    static SOURCE: OnceLock<PathBuf> = OnceLock::new();
    SOURCE.get_or_init(|| Path::new(&go_env("GOROOT")).join("src/cmd/go"))
}

/// The proxy's program, made once.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-test-proxy");
        let mut go = Command::new("go");
        go.args(["test", "-c", "-o"]).arg(&binary).arg(".").current_dir(source()).env("GOFLAGS", "").env("GOWORK", "off");
        output_of(go, b"");
        binary
    })
}

/// A running test proxy.
struct TestProxy {
    address: String,
    _program: Program,
    _dir: TempDir,
}

impl TestProxy {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(binary());
        // Its modules lie beside its source.
        command.arg(format!("-proxy={address}")).current_dir(source());
        let mut program = Program::start(command, &dir.path().join("log"));
        program.listens(&address);
        Self { address, _program: program, _dir: dir }
    }

    /// Its URL, with a prefix that asks for faults.
    fn url(&self, faults: &str) -> String {
        format!("http://{}/mod{faults}", self.address)
    }

    /// What it answers by itself.
    fn get(&self, path: &str) -> Answer {
        http::get(&self.address, &format!("/mod{path}"))
    }
}

/// All modules that the proxy has, by path and version, as the names of their files have them.
fn all_modules() -> Vec<(String, String)> {
    let names = fs::read_dir(source().join("testdata/mod")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<_> = names
        .filter_map(|name| {
            let (path, version) = name.strip_suffix(".txt")?.rsplit_once("_v")?;
            Some((path.replace('_', "/"), format!("v{version}")))
        })
        .collect();
    found.sort();
    found
}

/// Whether this is a version that such a module can have at all.
fn is_well_formed(path: &str, version: &str) -> bool {
    let version = Query::unescape(version).ok().and_then(|q| Version::parse(q.as_str()).ok());
    let module = ModulePath::unescape(path).ok();
    module.zip(version).is_some_and(|(module, version)| ModuleVersion::new(module, version).is_ok())
}

#[test]
fn every_module_of_gos_own_tests_is_served_as_it_is_or_refused() {
    let proxy = TestProxy::start();
    let gate = Gate::start(&(upstream("go", &proxy.url(""), "") + &route("*", &["go"], "")));
    let mut served = BTreeMap::new();
    for (path, version) in all_modules() {
        for part in ["info", "mod", "zip"] {
            let url = format!("/{path}/@v/{version}.{part}");
            let (direct, through) = (proxy.get(&url), gate.get(&url));
            let said = through.text();
            match through.status {
                200 => {
                    assert!(direct.status == 200 && through.whole && through.body == direct.body, "{url}: not what the proxy has");
                    served.insert(url, direct.body);
                }
                404 => assert_eq!(direct.status, 404, "{url}: {said}"),
                // `rsc.io/quote@v2.0.0` and the like, with which the go command's own checks are tested.
                400 => assert!(!is_well_formed(&path, &version), "{url}: {said}"),
                // Toolchains are never served unproven, and these have no database.
                502 if path == "golang.org/toolchain" && said.contains("not verified: no checksum database") => {}
                // One zip holds a file outside its module, and the toolchains' go.mod files are none.
                502 if part == "zip" => assert_eq!(path, "rsc.io/badzip", "{url}: {said}"),
                502 if part == "mod" => assert!(!direct.text().contains("module"), "{url}: {said}"),
                other => panic!("{url}: {other}: {said}"),
            }
        }
    }
    assert!(served.len() > 400, "most of them are served, not {}", served.len());
    // What was served is there to stay.
    drop(proxy);
    for (url, body) in served {
        let again = gate.get(&url);
        assert!(again.whole && again.body == body, "{url}: {} after its upstream went away: {}", again.status, again.text());
    }
}

#[test]
fn lists_and_latest_versions_follow_from_what_the_proxy_lists() {
    let proxy = TestProxy::start();
    let gate = Gate::start(&(upstream("go", &proxy.url(""), "") + &route("*", &["go"], "")));
    let paths: BTreeSet<String> = all_modules().into_iter().map(|(path, _)| path).collect();
    let (mut tagged, mut unretracted) = (0, 0);
    for path in paths.iter().filter(|path| ModulePath::unescape(path).is_ok()) {
        let [list, latest] = ["@v/list", "@latest"].map(|end| format!("/{path}/{end}"));
        let (direct, through) = (proxy.get(&list), gate.get(&list));
        assert_eq!(through.status, 200, "{list}: {}", through.text());
        let mut versions: Vec<Version> = direct.text().lines().map(|line| Version::parse(line).unwrap()).collect();
        versions.sort();
        let lines = versions.iter().map(|version| format!("{version}\n")).collect::<Vec<_>>().concat();
        assert_eq!(through.text(), lines, "{list}");
        let highest = |of: &[Version]| of.iter().rfind(|v| !v.is_prerelease()).or(of.last()).cloned();
        // What its go.mod retracts is not the latest; the parser of that is compared with x/mod's elsewhere.
        if let Some(version) = highest(&versions) {
            let go_mod = proxy.get(&format!("/{path}/@v/{}.mod", version.escaped()));
            let retracted = GoMod::parse(&go_mod.body).unwrap_or_default();
            let standing: Vec<Version> = versions.iter().filter(|v| !retracted.retracts(v.as_str())).cloned().collect();
            unretracted += usize::from(standing.len() < versions.len());
            versions = if standing.is_empty() { versions } else { standing };
        }
        // Without tagged versions it is the upstream that knows the latest one.
        let release = highest(&versions);
        let direct =
            release.as_ref().map_or_else(|| proxy.get(&latest), |v| proxy.get(&format!("/{path}/@v/{}.info", v.escaped())));
        let through = gate.get(&latest);
        assert_eq!((through.status, through.text()), (direct.status, direct.text()), "{latest}");
        tagged += usize::from(release.is_some());
    }
    assert!(tagged > 60, "many modules have tagged versions, not {tagged}");
    assert!(unretracted > 3, "some have retracted ones, not {unretracted}");
    // What is no version but names one: the highest of a prefix by the list, anything else as the upstream says.
    let info = |query: &str| gate.get(&format!("/rsc.io/quote/@v/{query}.info")).text();
    assert!(info("v1").contains(r#""Version":"v1.5.2""#) && info("v1.3").contains(r#""Version":"v1.3.0""#));
    assert_eq!(info("23179ee8a569"), proxy.get("/rsc.io/quote/@v/23179ee8a569.info").text());
    assert_eq!(gate.get("/rsc.io/quote/@v/v7.info").status, 404);
}

/// The upstreams of the next test: their names, and the prefix of the proxy's URLs that makes them so.
const UPSTREAMS: &[(&str, &str)] = &[
    ("good", ""),
    ("far", "/redirect/10"),
    ("loop", "/redirect/11"),
    ("invalid", "/invalid"),
    ("empty", "/200"),
    ("s204", "/204"),
    ("s401", "/401"),
    ("s403", "/403"),
    ("s404", "/404"),
    ("s410", "/410"),
    ("s429", "/429"),
    ("s500", "/500"),
    ("s503", "/503"),
];

/// A module, the chain that its route asks, the route's fallback rule, and the status that comes of it.
const CHAINS: &[(&str, &[&str], &str, u16)] = &[
    ("example.com/cmd", &["good", "s500"], r#""not-found""#, 200),
    ("example.com/dotname", &["s404", "s410", "good"], r#""not-found""#, 200),
    ("example.com/generics", &["s500", "good"], r#""not-found""#, 502),
    ("example.com/ignore", &["s500", "s503", "good"], r#""any-error""#, 200),
    ("example.com/importcrypto", &["invalid", "good"], r#""not-found""#, 200),
    ("example.com/missingpkg", &["empty", "good"], r#""not-found""#, 200),
    ("example.com/nest", &["far"], r#""not-found""#, 200),
    ("example.com/noroot", &["loop", "good"], r#""not-found""#, 502),
    ("example.com/printversion", &["loop", "good"], r#""any-error""#, 200),
    ("example.com/split", &["s404", "s410"], r#""not-found""#, 404),
    ("example.com/stack", &["s404", "s500"], r#""not-found""#, 502),
    ("example.com/tools", &["s500", "s404"], r#""any-error""#, 502),
    ("example.com/undeprecated", &["s403", "good"], r#""not-found""#, 502),
    ("example.com/version", &["s401", "s403", "good"], r#"["denied"]"#, 200),
    ("rsc.io/badfile1", &["s429", "good"], r#"["absent", "busy"]"#, 200),
    ("rsc.io/badfile2", &["s429", "good"], r#"["absent", "outage"]"#, 502),
    ("rsc.io/badsum", &["invalid", "s404"], r#""not-found""#, 502),
    ("rsc.io/fortune", &["s204", "good"], r#""not-found""#, 502),
    ("rsc.io/future", &["s404", "invalid", "far"], "[]", 404),
    ("rsc.io/panicnil", &["s503", "s410", "invalid", "good"], r#"["absent", "outage"]"#, 200),
];

/// All of them, as one configuration.
fn faults(proxy: &TestProxy) -> String {
    let upstreams = UPSTREAMS.iter().map(|(name, prefix)| upstream(name, &proxy.url(prefix), ""));
    let routes = CHAINS.iter().map(|(module, chain, fallback, _)| route(module, chain, &format!("fallback = {fallback}")));
    upstreams.chain(routes).collect::<String>() + &route("*", &["good"], "")
}

#[test]
fn a_chain_goes_on_as_its_rule_says_and_an_outage_is_never_an_absence() {
    let proxy = TestProxy::start();
    let gate = Gate::start(&faults(&proxy));
    for (module, chain, fallback, status) in CHAINS {
        let shown = format!("{module} {chain:?} {fallback}");
        for part in ["v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip"] {
            let url = format!("/{module}/@v/{part}");
            let (direct, through) = (proxy.get(&url), gate.get(&url));
            assert_eq!(direct.status, 200, "{url}");
            assert_eq!(through.status, *status, "{shown}: {part}: {}", through.text());
            assert!(through.whole, "{shown}: {part}");
            if *status == 200 {
                assert_eq!(through.body, direct.body, "{shown}: {part}");
            } else {
                // It says what happened, then a line for each upstream that was asked, in order.
                let said = through.text();
                let mut names = said.lines().skip(1).map(|line| line.split(':').next().unwrap());
                assert!(said.starts_with("modgate: ") && names.clone().count() > 0, "{shown}: {said}");
                assert!(
                    chain.iter().zip(&mut names).all(|(asked, said)| *asked == said) && names.next().is_none(),
                    "{shown}: {said}"
                );
            }
        }
        // Lists are merged over the whole chain, whatever its rule; what is missing in them is named.
        let (direct, through) = (proxy.get(&format!("/{module}/@v/list")), gate.get(&format!("/{module}/@v/list")));
        let absent = |name: &&&str| matches!(**name, "s404" | "s410");
        let listing = |name: &&&str| matches!(**name, "good" | "far" | "empty");
        if chain.iter().any(|name| listing(&name)) {
            let missing: Vec<&str> = chain.iter().filter(|n| !absent(n) && !listing(n)).copied().collect();
            assert_eq!((through.status, through.text()), (200, direct.text()), "{shown}: list");
            assert_eq!(through.header("modgate-partial"), missing.join(", "), "{shown}: list");
        } else {
            let wanted = if chain.iter().all(|name| absent(&name)) { 404 } else { 502 };
            assert_eq!(through.status, wanted, "{shown}: list: {}", through.text());
        }
    }
}

/// The go command asks the next entry of its GOPROXY after a 404, and only then: so it is how modgate's statuses matter.
#[test]
fn the_go_command_is_not_sent_elsewhere_by_an_outage() {
    let proxy = TestProxy::start();
    let gate = Gate::start(&faults(&proxy));
    let go = Arc::new(Go::with_proxy(&format!("{},{}", gate.url(), proxy.url(""))));
    go.main_module("module example.com/main\n\ngo 1.21\n");
    let said = go_fails(&go, &["mod", "download", "example.com/generics@v1.0.0"]);
    assert!(said.contains("502 Bad Gateway") && said.contains("s500: 500 Internal Server Error"), "{said}");
    let said = go_fails(&go, &["mod", "download", "rsc.io/badsum@v1.0.0"]);
    assert!(said.contains("502 Bad Gateway") && said.contains("invalid: corrupt"), "{said}");
    go_ok(&go, &["mod", "download", "example.com/split@v1.0.0", "example.com/nest@v1.0.0"]);

    // A module with requirements, by modgate alone.
    let go = Arc::new(Go::with_proxy(&gate.url()));
    go.main_module("module example.com/main\n\ngo 1.21\n");
    go_ok(&go, &["get", "rsc.io/quote@v1.5.2"]);
    go_ok(&go, &["mod", "verify"]);
    assert_eq!(go_ok(&go, &["list", "-m", "rsc.io/quote@latest"]).trim(), "rsc.io/quote v1.5.2");
    assert_eq!(go_ok(&go, &["list", "-m", "rsc.io/quote@<v1.5.0"]).trim(), "rsc.io/quote v1.4.0");
}

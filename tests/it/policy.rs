//! What may be fetched at all: denied and allowed modules and versions, and how old they have to be.

use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::support::eventually;
use crate::support::gate::{Gate, program, route, upstream};
use crate::support::go::Go;
use crate::support::modules::{Module, tree};
use crate::support::upstream::{Reply, Upstream};

const LIST: &str = "/example.com/m/@v/list";
const LATEST: &str = "/example.com/m/@latest";

/// A gate over one upstream.
fn gate(up: &Upstream, policy: &str) -> Gate {
    Gate::start(&text(up, policy))
}

fn text(up: &Upstream, policy: &str) -> String {
    format!("[policy]\n{policy}\n{}{}", upstream("u", &up.url(), ""), route("*", &["u"], ""))
}

fn versions(versions: &[&str]) -> Upstream {
    Upstream::serving(&versions.iter().map(|v| Module::new("example.com/m", v)).collect::<Vec<_>>())
}

/// The status of each part of a version.
fn statuses(gate: &Gate, module: &str, version: &str) -> Vec<u16> {
    let module = Module::new(module, version);
    ["info", "mod", "zip"].iter().map(|part| gate.get(&module.url(part)).status).collect()
}

/// The version that an answer names, or its status.
fn named(gate: &Gate, path: &str) -> String {
    let answer = gate.get(path);
    if answer.status != 200 {
        return answer.status.to_string();
    }
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    json["Version"].as_str().unwrap().to_owned()
}

/// A time so many days ago, as RFC 3339 has it.
fn days_ago(days: u64) -> String {
    let then = SystemTime::now() - Duration::from_secs(days * 86_400);
    humantime::format_rfc3339_seconds(then).to_string()
}

fn made(version: &str, days: u64) -> Module {
    Module { time: days_ago(days), ..Module::new("example.com/m", version) }
}

#[test]
fn denied_modules_are_denied_on_every_question_and_nobody_is_asked() {
    let up = Upstream::serving(&[
        Module::new("example.com/evil/tool", "v1.0.0"),
        Module::new("example.com/Evil", "v1.0.0"),
        Module::new("example.com/good", "v1.0.0"),
    ]);
    up.set("/example.com/evil/tool/@v/main.info", Reply::Good(Module::new("x", "v1.0.0").info()));
    let gate = gate(&up, "deny = [\"example.com/evil\", \"example.com/E*\"]");
    for module in ["example.com/evil/tool", "example.com/evil", "example.com/!evil", "example.com/%21evil"] {
        for ask in ["@v/list", "@latest", "@v/v1.0.0.info", "@v/main.info", "@v/v1.info", "@v/v1.0.0.mod", "@v/v1.0.0.zip"] {
            for prefix in ["", "/cached-only"] {
                let answer = gate.get(&format!("{prefix}/{module}/{ask}"));
                assert_eq!(answer.status, 403, "{module} {ask}");
                assert!(answer.text().lines().count() <= 8 && answer.text().contains("denied by policy.deny \"example.com/"));
                assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
            }
        }
    }
    assert_eq!(up.asked(), Vec::<String>::new());
    assert_eq!(statuses(&gate, "example.com/good", "v1.0.0"), [200, 200, 200]);
    assert_eq!(statuses(&gate, "example.com/evilly", "v1.0.0"), [404, 404, 404]);
}

#[test]
fn denied_versions_are_hidden_and_denied() {
    let up = versions(&["v1.0.0", "v1.1.0", "v1.2.0-rc.1", "v1.2.0", "v1.2.1", "v1.3.0"]);
    up.set("/example.com/m/@v/main.info", Reply::Good(br#"{"Version":"v1.3.0","Time":"2024-02-03T04:05:06Z"}"#.to_vec()));
    up.set("/example.com/m/@v/stable.info", Reply::Good(br#"{"Version":"v1.2.1","Time":"2024-02-03T04:05:06Z"}"#.to_vec()));
    let gate = gate(&up, "deny = [\"example.com/m@v1.3.0\", \"example.com/m@>=v1.1.0 <v1.2.1\"]");
    // A pre-release is lower than its release, so that of v1.2.0 lies in the range too.
    assert_eq!(gate.get(LIST).text(), "v1.0.0\nv1.2.1\n");
    assert_eq!(named(&gate, LATEST), "v1.2.1");
    for (version, status) in
        [("v1.0.0", 200), ("v1.1.0", 403), ("v1.2.0-rc.1", 403), ("v1.2.0", 403), ("v1.2.1", 200), ("v1.3.0", 403)]
    {
        assert_eq!(statuses(&gate, "example.com/m", version), [status; 3], "{version}");
    }
    for (query, wanted) in [("v1", "v1.2.1"), ("v1.2", "v1.2.1"), ("v1.0", "v1.0.0"), ("main", "403"), ("stable", "v1.2.1")] {
        assert_eq!(named(&gate, &format!("/example.com/m/@v/{query}.info")), wanted, "{query}");
    }
    let answer = gate.get("/example.com/m/@v/main.info");
    assert!(answer.text().contains("denied by policy.deny \"example.com/m@v1.3.0\""), "{}", answer.text());
    // Where all are hidden, there is no latest.
    let none = self::gate(&up, "deny = [\"example.com/m@<v9.0.0\"]");
    assert_eq!((none.get(LIST).status, none.get(LIST).text()), (200, String::new()));
    up.set(LATEST, Reply::Good(br#"{"Version":"v1.3.0","Time":"2024-02-03T04:05:06Z"}"#.to_vec()));
    assert_eq!((named(&none, LATEST), named(&none, "/example.com/m/@v/v1.info")), ("403".into(), "404".into()));
}

#[test]
fn what_is_not_allowed_is_denied() {
    let up = Upstream::serving(&[
        Module::new("example.com/m", "v1.0.0"),
        Module::new("example.com/m", "v1.1.0"),
        Module::new("example.com/n", "v1.0.0"),
        Module::new("corp.example/a/b", "v1.0.0"),
    ]);
    let gate = gate(&up, "allow = [\"example.com/m@>=v1.1.0\", \"corp.example\"]\ndeny = [\"corp.example/a/c\"]");
    assert_eq!(gate.get(LIST).text(), "v1.1.0\n");
    assert_eq!(named(&gate, LATEST), "v1.1.0");
    assert_eq!(statuses(&gate, "example.com/m", "v1.0.0"), [403; 3]);
    assert_eq!(statuses(&gate, "example.com/m", "v1.1.0"), [200; 3]);
    assert_eq!(statuses(&gate, "corp.example/a/b", "v1.0.0"), [200; 3]);
    assert_eq!(statuses(&gate, "corp.example/a/c", "v1.0.0"), [403; 3], "deny holds always");
    up.forget();
    assert_eq!(statuses(&gate, "example.com/n", "v1.0.0"), [403; 3]);
    assert_eq!(gate.get("/example.com/n/@v/list").status, 403);
    let answer = gate.get("/example.com/n/@latest");
    assert!(answer.status == 403 && answer.text().contains("no entry of policy.allow names it"), "{}", answer.text());
    assert_eq!(up.asked(), Vec::<String>::new());
}

#[test]
fn versions_have_to_have_their_age() {
    let up = Upstream::serving(&[made("v1.0.0", 100), made("v1.1.0", 8), made("v1.2.0", 6), made("v1.2.1", 0)]);
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    let future = Module { time: humantime::format_rfc3339_seconds(tomorrow).to_string(), ..made("v1.3.0", 0) };
    let exempt = Module { time: days_ago(0), ..Module::new("corp.example/x", "v1.0.0") };
    for (path, body) in tree(&[future, exempt.clone()]) {
        up.set(&path, Reply::Good(body));
    }
    up.set(LIST, Reply::Good(b"v1.0.0\nv1.1.0\nv1.2.0\nv1.2.1\nv1.3.0\n".to_vec()));
    let young = Module { time: days_ago(1), ..Module::new("example.com/m", "v1.2.2-0.20260101000000-0123456789ab") };
    let old = Module { time: days_ago(30), ..Module::new("example.com/m", "v1.0.1-0.20250101000000-0123456789ab") };
    for (branch, module) in [("main", &young), ("stable", &old)] {
        up.set(&format!("/example.com/m/@v/{branch}.info"), Reply::Good(module.info()));
        up.set(&module.url("info"), Reply::Good(module.info()));
        up.set(&module.url("mod"), Reply::Good(module.go_mod.clone().into_bytes()));
    }
    let gate = gate(&up, "min_age = \"7d\"\nmin_age_exempt = [\"corp.example\"]");
    assert_eq!(gate.get(LIST).text(), "v1.0.0\nv1.1.0\n");
    assert_eq!(named(&gate, LATEST), "v1.1.0");
    for (version, status) in [("v1.0.0", 200), ("v1.1.0", 200), ("v1.2.0", 403), ("v1.2.1", 403), ("v1.3.0", 403)] {
        assert_eq!(statuses(&gate, "example.com/m", version), [status; 3], "{version}");
    }
    for (query, wanted) in [("v1", "v1.1.0"), ("v1.2", "404"), ("main", "403"), ("stable", old.version.as_str())] {
        assert_eq!(named(&gate, &format!("/example.com/m/@v/{query}.info")), wanted, "{query}");
    }
    assert_eq!((gate.get(&young.url("mod")).status, gate.get(&old.url("mod")).status), (403, 200));
    let answer = gate.get("/example.com/m/@v/v1.2.0.zip");
    assert!(answer.text().contains("denied by policy.min_age: made "), "{}", answer.text());
    assert!(answer.text().contains("allowed from "), "{}", answer.text());
    assert_eq!(statuses(&gate, "corp.example/x", "v1.0.0"), [200; 3]);
    assert_eq!(
        (gate.get("/corp.example/x/@v/list").text(), named(&gate, "/corp.example/x/@latest")),
        ("v1.0.0\n".into(), "v1.0.0".into())
    );
}

#[test]
fn a_version_whose_age_cannot_be_had_is_not_served() {
    let up = Upstream::serving(&[made("v1.0.0", 100), made("v1.1.0", 50), made("v1.2.0", 50), made("v1.3.0", 50)]);
    let info = |version: &str| Module::new("example.com/m", version).url("info");
    up.set(&info("v1.1.0"), Reply::Good(br#"{"Version":"v1.1.0"}"#.to_vec()));
    up.set(&info("v1.2.0"), Reply::Status(500));
    up.set(&info("v1.3.0"), Reply::Status(404));
    let gate = gate(&up, "min_age = \"7d\"");
    let first = gate.get(LIST);
    assert_eq!((first.text().as_str(), first.header("cache-control")), ("v1.0.0\n", "no-cache"));
    assert_eq!(named(&gate, LATEST), "v1.0.0");
    assert_eq!(statuses(&gate, "example.com/m", "v1.1.0"), [403; 3]);
    assert!(gate.get("/example.com/m/@v/v1.1.0.mod").text().contains("its .info gives no time"));
    assert_eq!(statuses(&gate, "example.com/m", "v1.2.0"), [502; 3], "an outage is neither an absence nor a denial");
    assert_eq!(statuses(&gate, "example.com/m", "v1.3.0"), [404; 3]);
    for (n, body) in
        [&b"{}"[..], b"<html>", br#"{"Version":"v1.4.9","Time":"2020-01-01T00:00:00Z"}"#, br#"{"Version":"v1.4.3","Time":"0"}"#]
            .iter()
            .enumerate()
    {
        let module = Module::new("example.com/m", &format!("v1.4.{n}"));
        for (path, body) in tree(std::slice::from_ref(&module)).into_iter().filter(|(path, _)| !path.ends_with("list")) {
            up.set(&path, Reply::Good(body));
        }
        up.set(&module.url("info"), Reply::Good(body.to_vec()));
        assert_eq!(statuses(&gate, "example.com/m", &module.version), [502; 3], "{}", String::from_utf8_lossy(body));
    }
    // When its age can be had, so can the version, at once.
    up.set(&info("v1.2.0"), Reply::Good(made("v1.2.0", 50).info()));
    eventually("it is shown", || gate.get(LIST).text() == "v1.0.0\nv1.2.0\n");
    assert_eq!(named(&gate, LATEST), "v1.2.0");
    // A time that a client has no business to give is none: with the cache alone nothing is asked.
    up.forget();
    assert_eq!(gate.get("/cached-only/example.com/m/@v/v1.3.0.zip").status, 404);
    assert_eq!(up.asked(), Vec::<String>::new());
}

#[test]
fn a_hidden_version_may_retract_others() {
    let mut newest = made("v1.2.0", 1);
    newest.go_mod.push_str("\nretract v1.1.0 // broken\n");
    let up = Upstream::serving(&[made("v1.0.0", 100), made("v1.1.0", 50), newest.clone()]);
    for policy in ["min_age = \"7d\"", "deny = [\"example.com/m@v1.2.0\"]"] {
        let gate = gate(&up, policy);
        assert_eq!((gate.get(LIST).text(), named(&gate, LATEST)), ("v1.0.0\nv1.1.0\n".into(), "v1.0.0".into()), "{policy}");
        assert_eq!(gate.get(&newest.url("zip")).status, 403, "{policy}");
    }
}

#[test]
fn a_new_rule_holds_for_what_is_cached() {
    let modules = [Module::new("example.com/m", "v1.0.0"), Module::new("example.com/m", "v1.1.0").bulk(400_000)];
    let up = Upstream::serving(&modules);
    let gate = gate(&up, "");
    let paths: Vec<String> = modules.iter().flat_map(|m| ["info", "mod", "zip"].map(|part| m.url(part))).collect();
    for _ in 0..3 {
        for path in paths.iter().map(String::as_str).chain([LIST, LATEST]) {
            assert_eq!(gate.get(path).status, 200, "{path}");
        }
        eventually("all is kept", || gate.cache("u").join("example.com/m/@v/v1.1.0.zip").is_file());
    }
    gate.rewrite(&text(&up, "deny = [\"example.com/m@v1.1.0\"]"));
    gate.signal(Signal::HUP);
    eventually("the new configuration is in force", || gate.log().contains("is in force"));
    assert_eq!(statuses(&gate, "example.com/m", "v1.1.0"), [403; 3]);
    assert_eq!(statuses(&gate, "example.com/m", "v1.0.0"), [200; 3]);
    assert_eq!((gate.get(LIST).text(), named(&gate, LATEST)), ("v1.0.0\n".into(), "v1.0.0".into()));
    gate.rewrite(&text(&up, "deny = [\"example.com/m\"]"));
    gate.signal(Signal::HUP);
    eventually("it is too", || gate.log().matches("is in force").count() == 2);
    for path in paths.iter().map(String::as_str).chain([LIST, LATEST]) {
        assert_eq!((gate.get(path).status, gate.get(&format!("/cached-only{path}")).status), (403, 403), "{path}");
    }
    // And nothing was thrown away.
    gate.rewrite(&text(&up, ""));
    gate.signal(Signal::HUP);
    eventually("the rule is gone", || gate.log().matches("is in force").count() == 3);
    up.forget();
    assert_eq!(statuses(&gate, "example.com/m", "v1.1.0"), [200; 3]);
    assert_eq!(up.asked(), Vec::<String>::new());
}

#[test]
fn the_go_command_shows_the_reason_and_goes_nowhere_else() {
    let up = Upstream::serving(&[made("v1.0.0", 100), made("v1.1.0", 50), made("v1.2.0", 1)]);
    let elsewhere = Upstream::serving(&[made("v1.1.0", 50), made("v1.2.0", 1)]);
    let gate = gate(&up, "deny = [\"example.com/m@v1.1.0\"]\nmin_age = \"7d\"");
    let go = Go::with_proxy(&format!("{},{}", gate.url(), elsewhere.url()));
    let work = go.main_module("module example.org/main\n\ngo 1.21\n");
    let complaint = go.fails(&["get", "example.com/m@v1.1.0"]);
    assert!(
        complaint.contains("403 Forbidden") && complaint.contains("denied by policy.deny \"example.com/m@v1.1.0\""),
        "{complaint}"
    );
    let complaint = go.fails(&["get", "example.com/m@v1.2.0"]);
    assert!(complaint.contains("denied by policy.min_age: made "), "{complaint}");
    assert_eq!(go.ok(&["list", "-m", "-versions", "example.com/m"]).trim(), "example.com/m v1.0.0");
    go.ok(&["get", "example.com/m@latest"]);
    assert!(std::fs::read_to_string(work.join("go.mod")).unwrap().contains("example.com/m v1.0.0"));
    assert_eq!(elsewhere.asked(), Vec::<String>::new());
}

/// Each line that is wrong says how, behind `#`, by the key and a word of its finding.
const MISTAKES: [&str; 2] = [
    r#"[sumdb]
databases = [
  "sum.golang.org",
  "sum.example.org", # sumdb.databases[1]: whose key is known
  "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn9", # sumdb.databases[2]: hash
  "sum.golang.org https://h.example more", # sumdb.databases[3]: checksum database as GOSUMDB has it
  "sum.golang.org ftp://h.example", # sumdb.databases[4]: http
  "sum.golang.org https://u:sesame@h.example", # sumdb.databases[5]: password
  "off", # sumdb.databases[6]: whose key is known
]
no_sumdb = ["a.b", "["] # sumdb.no_sumdb[1]: pattern
trust = true # sumdb.trust: unknown key
[policy]
deny = ["a.b@"] # policy.deny[0]: nothing follows the @
allow = ["a.b@v1.0.0", "a.b@~v1.0.0"] # policy.allow[1]: version
min_age = 7 # policy.min_age: duration
min_age_exempt = ["a b"] # policy.min_age_exempt[0]: white space
max_age = "7d" # policy.max_age: unknown key
"#,
    r#"[sumdb]
databases = ["sum.golang.org"]
via = ["a", "nobody", "direct"] # sumdb.via[1]: there is no upstream "nobody"
[policy]
deny = ["a.b,c.d"] # policy.deny[0]: one pattern an entry
allow = ["a.b@1.0.0"] # policy.allow[0]: not a semantic version
min_age = "-1s" # policy.min_age: duration
[upstreams.a]
type = "goproxy"
url = "https://a.example"
[[routes]]
match = ["*"]
upstreams = ["a"]
[[policies]] # policies: unknown key
"#,
];

fn check(text: &str) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.toml");
    std::fs::write(&file, text).unwrap();
    let output = program().arg("check").arg("--config").arg(&file).env("HOME", dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.replace(&dir.path().display().to_string(), "DIR"))
}

/// That each line of a configuration that is wrong is named, with its number.
fn assert_named(text: &str) {
    let (good, said) = check(text);
    assert!(!good && !said.contains("sesame"), "{said}");
    for (at, line) in text.lines().enumerate() {
        let Some((_, wanted)) = line.rsplit_once(" # ") else { continue };
        let (key, words) = wanted.split_once(": ").unwrap();
        let place = format!("DIR/m.toml:{}: {key}: ", at + 1);
        assert!(said.lines().any(|l| l.contains(&place) && l.contains(words)), "missing {place}{words} in:\n{said}");
    }
}

#[test]
fn mistakes_about_trust_and_policy_are_named() {
    for text in MISTAKES {
        assert_named(text);
    }
    let one = |sumdb: &str, more: &str| {
        check(&format!(
            "[upstreams.a]\ntype = \"goproxy\"\nurl = \"https://a.example\"\n[upstreams.tree]\ntype = \"directory\"\npath = \"/\"\n\
             [[routes]]\nmatch = [\"*\"]\nupstreams = [\"a\", \"tree\"]\n{more}\n[sumdb]\n{sumdb}\n"
        ))
    };
    let (good, said) = one("via = [\"tree\"]", "");
    assert!(!good && said.contains("DIR/m.toml:12: sumdb.via[0]: \"tree\" is no module proxy"), "{said}");
    let (good, said) = one("", "verify = \"on\"");
    assert!(
        !good && said.contains("DIR/m.toml:10: routes[0].verify: has to be one of: sumdb, sumdb-or-trust-first, off"),
        "{said}"
    );
    for mode in ["sumdb", "sumdb-or-trust-first"] {
        let (good, said) = one("databases = []", &format!("verify = {mode:?}"));
        assert!(!good && said.contains("DIR/m.toml:10: routes[0].verify: there is no database to verify by"), "{said}");
    }
    let (good, said) = one("databases = [\"sum.golang.org\", \"sum.golang.google.cn\"]", "");
    assert!(!good && said.contains("DIR/m.toml:12: sumdb.databases[1]: the database sum.golang.org stands here twice"), "{said}");
    let (good, said) = one("", "");
    assert!(
        good && said.contains("verify sumdb)") && said.contains("sumdb       sum.golang.org: by a, then https://sum.golang.org"),
        "{said}"
    );
}

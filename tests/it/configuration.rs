//! The configuration: samples that hold, errors that name file, line and key, variables, the machine's Go settings.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::support::gate::program;

fn check(text: &str, variables: &[(&str, &str)]) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.toml");
    fs::write(&file, text).unwrap();
    let output =
        program().arg("check").arg("--config").arg(&file).env("HOME", dir.path()).envs(variables.iter().copied()).output().unwrap();
    (output.status.success(), said(&output).replace(&dir.path().display().to_string(), "DIR"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const GOOD: &str =
    "[upstreams.a]\ntype = \"goproxy\"\nurl = \"http://a.example\"\n[[routes]]\nmatch = [\"*\"]\nupstreams = [\"a\"]\n";

#[test]
fn every_sample_is_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let output = program().arg("check").arg("--config").arg(entry.path()).env("HOME", "/nowhere").output().unwrap();
        assert!(output.status.success(), "{}: {}", entry.path().display(), said(&output));
        assert!(said(&output).contains("route 0"), "{}", said(&output));
        seen += 1;
    }
    assert!(seen >= 4, "the default, a company, teams, a restricted network");
}

#[test]
fn all_mistakes_are_named_at_once_with_file_line_and_key() {
    let text = r#"[server]
listen = "nowhere"
colour = "red"

[cache]
max_size = "much"
list_ttl = 5

[egress]
connect = "0"

[upstreams.a]
type = "goproxy"
url = "ftp://a.example"
absent = [200]

[upstreams.B]
type = "goproxy"
url = "http://user:sesame@b.example"

[upstreams.c]
type = "cvs"

[upstreams.d]
type = "directory"
path = "/does/not/exist"

[[routes]]
match = ["[", "https://x.example", "Corp.example/*"]
upstreams = ["a", "zz", "a"]
fallback = "sometimes"
verify = "maybe"

[[routes]]
upstreams = []

[surprise]

[log]
level = "inof"
"#;
    let (good, said) = check(text, &[("MODGATE_CACHE__MEMORY", "lots"), ("MODGATE_CACHE__SHINE", "bright")]);
    assert!(!good);
    for wanted in [
        "DIR/m.toml:2: server.listen: ",
        "DIR/m.toml:3: server.colour: unknown key",
        "DIR/m.toml:6: cache.max_size: ",
        "DIR/m.toml:7: cache.list_ttl: ",
        "DIR/m.toml:10: egress.connect: ",
        "DIR/m.toml:14: upstreams.a.url: ",
        "DIR/m.toml:15: upstreams.a.absent[0]: ",
        "DIR/m.toml:17: upstreams.B: ",
        "DIR/m.toml:19: upstreams.B.url: ",
        "DIR/m.toml:22: upstreams.c.type: ",
        "DIR/m.toml:26: upstreams.d.path: ",
        "DIR/m.toml:29: routes[0].match[0]: ",
        "DIR/m.toml:29: routes[0].match[2]: ",
        "DIR/m.toml:30: routes[0].upstreams[1]: there is no upstream \"zz\"",
        "DIR/m.toml:30: routes[0].upstreams[2]: ",
        "DIR/m.toml:31: routes[0].fallback: ",
        "DIR/m.toml:32: routes[0].verify: has to be one of: ",
        "DIR/m.toml:34: routes[1]: has no match",
        "DIR/m.toml:35: routes[1].upstreams: ",
        "DIR/m.toml:37: surprise: unknown key",
        "DIR/m.toml:40: log.level: not a log level: \"inof\"",
        "environment variable MODGATE_CACHE__MEMORY: cache.memory: ",
        "environment variable MODGATE_CACHE__SHINE: cache.shine: unknown key",
    ] {
        assert!(said.contains(wanted), "missing {wanted:?} in:\n{said}");
    }
    assert!(!said.contains("sesame"), "{said}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let (good, said) = check("[server\nlisten = 1\n", &[]);
    assert!(!good && said.contains("DIR/m.toml:1: "), "{said}");
    let (good, said) = check(&format!("{GOOD}[cache]\ndir = \"a\"\n\n dir = \"b\"\n"), &[]);
    assert!(!good && said.contains("DIR/m.toml:10: duplicate key dir"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    fs::write(&file, b"[log]\nlevel = \"\xff\"\n").unwrap();
    let output = program().args(["check", "--config"]).arg(&file).output().unwrap();
    assert!(!output.status.success() && said_has(&output, "m.toml:2: is no text in UTF-8"), "{output:?}");
    let output = program().args(["check", "--config", "/does/not/exist.toml"]).output().unwrap();
    assert!(!output.status.success() && said_has(&output, "/does/not/exist.toml: cannot be read: "));
    let (good, said) = check(&format!("{GOOD}[[routes]]\nmatch = [\"github.com\"]\nupstreams = [\"a\"]\n"), &[]);
    assert!(!good && said.contains("DIR/m.toml:8: routes[1].match: the pattern \"github.com\" never matches"), "{said}");
    let (good, said) = check("[upstreams.a]\ntype = \"goproxy\"\nurl = \"http://a.example\"\n", &[]);
    assert!(!good && said.contains("no [[routes]] lead to them"), "{said}");
}

#[test]
fn paths_are_texts_and_no_shells_words() {
    let (good, said) = check(&format!("[cache]\ndir = 5\n{GOOD}"), &[]);
    assert!(!good && said.contains("DIR/m.toml:2: cache.dir: has to be a path, a text in quotes"), "{said}");
    let (good, said) = check(&format!("[cache]\ndir = \"~/cache\"\n{GOOD}"), &[]);
    assert!(!good && said.contains("DIR/m.toml:2: cache.dir: ~/cache: only a shell knows what ~ is"), "{said}");
    let (good, said) = check(GOOD, &[("MODGATE_CACHE__DIR", "~")]);
    assert!(!good && said.contains("environment variable MODGATE_CACHE__DIR: cache.dir: ~: only a shell"), "{said}");
    // A folder may have a number's name in a variable, where nothing can be put into quotes.
    let (good, said) = check(GOOD, &[("MODGATE_CACHE__DIR", "007")]);
    assert!(good, "{said}");
}

#[test]
fn what_a_variable_overrides_is_not_blamed() {
    let audit = format!("[audit]\nfile = \"stdout\"\nmax_size = \"1MiB\"\n{GOOD}");
    let (good, said) = check(&audit, &[("MODGATE_AUDIT__MAX_SIZE", "1KiB")]);
    assert!(!good && said.contains("environment variable MODGATE_AUDIT__MAX_SIZE: audit.max_size: "), "{said}");
    let (good, said) = check(&audit.replace("1MiB", "1KiB"), &[]);
    assert!(!good && said.contains("DIR/m.toml:3: audit.max_size: "), "{said}");
}

#[test]
fn a_cache_that_cannot_be_written_is_seen_before_the_start() {
    let (good, said) = check(&format!("[cache]\ndir = \"m.toml/cache\"\nmin_free = \"2GiB\"\n{GOOD}"), &[]);
    assert!(good && said.contains("warning: cache.dir: ") && said.contains("m.toml is not a folder"), "{said}");
    assert!(said.contains(", without bound, leaves 2.0 GiB of the disk free"), "{said}");
    let (good, said) = check(&format!("[cache]\ndir = \"new/cache\"\nmin_free = \"0\"\n{GOOD}"), &[]);
    assert!(good && !said.contains("warning: cache.dir") && !said.contains("of the disk free"), "{said}");
}

fn said_has(output: &Output, wanted: &str) -> bool {
    said(output).contains(wanted)
}

#[test]
fn variables_lie_over_the_file_and_the_file_over_the_defaults() {
    let (good, said) = check(&format!("[server]\nlisten = \"127.0.0.1:1111\"\n[cache]\nmax_size = \"1GiB\"\n{GOOD}"), &[]);
    assert!(good && said.contains("127.0.0.1:1111") && said.contains("1.0 GiB") && said.contains("127.0.0.1:8081"), "{said}");
    let variables = [
        ("MODGATE_SERVER__LISTEN", "127.0.0.1:2222,127.0.0.1:3333"),
        ("MODGATE_ADMIN__LISTEN", ""),
        ("MODGATE_UPSTREAMS__A__URL", "http://other.example"),
        ("MODGATE_SERVICE_HOST", "10.0.0.1"),
        ("MODGATE_PORT", "tcp://10.0.0.1:80"),
    ];
    let (good, said) = check(&format!("[server]\nlisten = \"127.0.0.1:1111\"\n{GOOD}"), &variables);
    assert!(good, "{said}");
    for wanted in ["127.0.0.1:2222, 127.0.0.1:3333", "admin       off", "goproxy http://other.example/"] {
        assert!(said.contains(wanted), "missing {wanted:?} in:\n{said}");
    }
}

#[test]
fn leaks_of_private_names_are_warned_about() {
    let upstreams = "[upstreams.in]\ntype = \"goproxy\"\nprivate = true\nurl = \"http://in.example\"\n[upstreams.out]\ntype = \"goproxy\"\nurl = \"http://out.example\"\n";
    let route = |pattern: &str, ups: &str| format!("[[routes]]\nmatch = [{pattern:?}]\nupstreams = {ups}\n");
    let (good, said) = check(&format!("{upstreams}{}{}", route("corp.example", "[\"in\", \"out\"]"), route("*", "[\"out\"]")), &[]);
    assert!(good && said.contains("routes[0]: a private module of this route"), "{said}");
    let (good, said) = check(&format!("{upstreams}{}{}", route("git.example/group/sub", "[\"in\"]"), route("*", "[\"out\"]")), &[]);
    assert!(good && said.contains("\"git.example/group\" is asked of the public upstream \"out\""), "{said}");
    let (good, said) = check(&format!("{upstreams}{}{}", route("corp.example", "[\"in\"]"), route("*", "[\"out\"]")), &[]);
    assert!(good && !said.contains("routes[0]:"), "{said}");
}

fn zero(variables: &[(&str, &str)]) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let output =
        program().arg("check").env("HOME", dir.path()).env("GOENV", "off").envs(variables.iter().copied()).output().unwrap();
    (output.status.success(), said(&output))
}

#[test]
fn gosumdb_is_read_as_go_reads_it() {
    let key = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    let with_url = format!("{key} https://x.example/y");
    let table = [
        ("", "sumdb       sum.golang.org: by a.example, then https://sum.golang.org/\n"),
        ("sum.golang.org", "sumdb       sum.golang.org: by a.example, then https://sum.golang.org/\n"),
        (key, "sumdb       sum.golang.org: by a.example, then https://sum.golang.org/\n"),
        // With a URL the go command passes by all proxies.
        ("sum.golang.google.cn", "sumdb       sum.golang.org: by https://sum.golang.google.cn/\n"),
        (&with_url, "sumdb       sum.golang.org: by https://x.example/y\n"),
    ];
    for (set, wanted) in table {
        let (good, said) = zero(&[("GOPROXY", "https://a.example"), ("GOSUMDB", set), ("GOPRIVATE", "corp.example")]);
        assert!(good && said.contains(wanted), "{set}: {said}");
        assert!(said.contains("* -> a.example  (lists merged; verify sumdb)") || said.contains("verify sumdb)"), "{set}: {said}");
        assert!(said.contains("no sumdb    for corp.example\n"), "{set}: {said}");
    }
    let (good, said) =
        zero(&[("GOPROXY", "https://a.example"), ("GOSUMDB", "off"), ("GONOSUMDB", "none"), ("GOPRIVATE", "corp.example")]);
    assert!(good && said.contains("verify off") && !said.contains("verify sumdb") && !said.contains("no sumdb"), "{said}");
    for bad in ["sum.nope.example", &key.replace("033d", "033e"), "a b c", "sum.golang.org ftp://x.example"] {
        let (good, said) = zero(&[("GOPROXY", "https://a.example"), ("GOSUMDB", bad)]);
        assert!(!good && said.contains("Go settings of this machine: GOSUMDB: "), "{bad}: {said}");
    }
    // What is configured counts more than what the go command was told.
    let (good, said) =
        zero(&[("GOPROXY", "https://a.example"), ("GOSUMDB", "off"), ("MODGATE_SUMDB__DATABASES", "sum.golang.org")]);
    assert!(good && said.contains("verify sumdb"), "{said}");
}

#[test]
fn without_a_configuration_the_go_settings_of_the_machine_count() {
    let (good, said) =
        zero(&[("GOPROXY", "https://a.example|https://b.example:8443/x,direct"), ("GOPRIVATE", "*.corp.example,github.com/acme")]);
    assert!(good, "{said}");
    for wanted in [
        "upstream    a.example: goproxy https://a.example/",
        "upstream    b.example: goproxy https://b.example:8443/x",
        "upstream    direct: vcs, no rules, discovery by go-import pages",
        "*.corp.example,github.com/acme -> direct",
        "* -> a.example -(any-error)-> b.example -(not-found)-> direct",
        "/.cache/modgate",
    ] {
        assert!(said.contains(wanted), "missing {wanted:?} in:\n{said}");
    }
    let (good, said) = zero(&[("GOPROXY", "https://a.example"), ("HTTPS_PROXY", "http://me:sesame@proxy.example:3128")]);
    assert!(good && said.contains("https://a.example/, through http://proxy.example:3128\n") && !said.contains("sesame"), "{said}");
    let (good, said) = zero(&[("GOPROXY", "https://a.example"), ("HTTPS_PROXY", "ftp://me:sesame@proxy.example")]);
    assert!(!good && said.contains("environment variable HTTPS_PROXY: ") && !said.contains("sesame"), "{said}");
    let (good, said) = zero(&[("GOPROXY", "off")]);
    assert!(!good && said.contains("GOPROXY names no proxy"), "{said}");
    for own in ["http://127.0.0.1:8080", "http://localhost:8080,https://a.example", "https://a.example|http://[::1]:8080/"] {
        let (good, said) = zero(&[
            ("GOPROXY", own),
            ("MODGATE_SERVER__LISTEN", if own.contains("::1") { "[::1]:8080" } else { "127.0.0.1:8080" }),
        ]);
        assert!(!good && said.contains("it would ask itself without end"), "{own}: {said}");
    }
    let (good, said) = zero(&[("GOPROXY", "https://me:sesame@a.example")]);
    assert!(good && said.contains("https://a.example/, with credentials") && !said.contains("sesame"), "{said}");
    let (good, said) = zero(&[("GOPROXY", "http://me:sesame@a.example")]);
    assert!(!good && said.contains("plain http") && !said.contains("sesame"), "{said}");
}

/// Each line that is wrong says how, behind `#`, by the key and a word of its finding.
const REPOSITORIES: &str = r#"[upstreams.git]
type = "vcs"
auth = { headers = { X = "y" } } # auth: repositories are of many hosts
breaker = { failures = 3 } # breaker: unknown key
insecure = ["["] # insecure[0]: pattern
repositories = [
  { match = "{host}/x", repo = "https://h.example/x" }, # repositories[0].match: the host, cannot be a capture
  { match = "h.example/{a}", repo = "https://h.example/{b}" }, # repositories[1].repo: {b} is no capture
  { match = "h.example/{a}", repo = "git@h.example:{a}" }, # repositories[2].repo: has a scheme
  { match = "h.example/{a}", repo = "https://u:sesame@h.example/{a}" }, # repositories[3].repo: password does not belong
  { match = "h.example/{a}", repo = "ext::sh -c {a}" }, # repositories[4].repo: has a scheme
  { match = "h.example/{a}", repo = "https://h.example/{a}", subdir = "../x" }, # repositories[5].subdir: is a directory
  { match = "h.example/{a}", reop = "https://h.example/{a}" }, # repositories[6]: has no repo
]
[upstreams.git.credentials]
"git@h.example" = { token_file = "token" } # git@h.example: has to be a host
"i.example" = { token = "sesame" } # i.example.token: does not stand in a configuration file
"j.example" = { ssh_key_file = "no-key" } # j.example.ssh_key_file: cannot be read
"k.example" = { } # k.example: names no credentials
[[routes]]
match = ["*"]
upstreams = ["git"]
[[vanity]]
match = "v.example/{a}" # vanity[0]: has no repo and no mod
[[vanity]]
match = "v.example/{a}"
repo = "https://h.example/{a}"
mod = "https://p.example" # vanity[1].repo: stands beside mod
[[vanity]]
match = "v.example/{a}"
mod = "ssh://p.example" # vanity[2].mod: http or https URL
home = "https://web.example/{a}" # vanity[2].home: belong together
"#;

#[test]
fn mistakes_about_repositories_are_named() {
    let (good, said) = check(REPOSITORIES, &[]);
    assert!(!good);
    for (at, line) in REPOSITORIES.lines().enumerate() {
        let Some((_, wanted)) = line.rsplit_once(" # ") else { continue };
        let (key, words) = wanted.split_once(": ").unwrap();
        let is_it = |line: &str| line.contains(&format!("{key}: ")) && line.contains(words);
        assert!(said.lines().any(is_it), "line {}: missing {wanted:?} in:\n{said}", at + 1);
    }
    assert!(!said.contains("sesame"), "{said}");
}

//! What is said of a configuration with teams before the port opens: every mistake with its line, and what leaks.

use std::fs;
use std::process::Output;

use crate::support::gate::program;
use crate::support::people::{token, user};
use crate::support::tls::Authority;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Checks a configuration in a folder with some people, keys and certificates.
fn check(text: &str) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    user(&file("people"), "ann", "sesame");
    token(&file("robots"), "ci");
    fs::write(file("bad-people"), "ann:$apr1$xyz$abc\n\nbob\n").unwrap();
    fs::write(file("bad-keys"), "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VzYW1l\"}]}").unwrap();
    let authority = Authority::new("authority");
    let server = authority.server(&["localhost"]);
    fs::write(file("ca.pem"), authority.pem()).unwrap();
    fs::write(file("tls.pem"), &server.pem).unwrap();
    fs::write(file("tls.key"), &server.key_pem).unwrap();
    fs::write(file("other.key"), authority.server(&["localhost"]).key_pem).unwrap();
    fs::write(file("m.toml"), text).unwrap();
    let output = program().arg("check").arg("--config").arg(file("m.toml")).env("HOME", dir.path()).output().unwrap();
    (output.status.success(), said(&output).replace(&dir.path().display().to_string(), "DIR"))
}

/// Each line that is wrong says how, behind `#`, by the key and a word of its finding.
const MISTAKES: &str = r#"[server]
listen = "127.0.0.1:8443"
listen_plain = "127.0.0.1:8443" # server.listen_plain: is in server.listen too
tls = { cert_file = "tls.pem", key_file = "other.key" } # server.tls.cert_file: KeyMismatch
trusted_proxies = ["10.0.0.0/8", "nowhere"] # server.trusted_proxies[1]: no network
[limits]
per_client = { per = "1s" } # limits.per_client: has no requests
each = 1 # limits.each: unknown key
[audit]
file = "nowhere/audit.jsonl" # audit.file: there is no folder
include = "everything" # audit.include: has to be one of
[auth]
anonymous = "maybe" # auth.anonymous: has to be true or false
users_file = "bad-people" # auth.users_file: bad-people:1: not an Argon2id or bcrypt hash
tokens_file = "nowhere" # auth.tokens_file: cannot be read
[auth.issuers.a]
issuer = "https://ci.example" # auth.issuers.a: has no audience
jwks_file = "bad-keys" # auth.issuers.a.jwks_file: without one that is of use
[auth.issuers.b]
issuer = "" # auth.issuers.b.issuer: is empty
audience = "x"
jwks_url = "ftp://ci.example" # auth.issuers.b.jwks_url: http or https
[upstreams.u]
type = "goproxy"
url = "http://u.example"
[[routes]]
match = ["*"]
upstreams = ["u"]
[teams.Bad]
prefix = "a.b" # teams.Bad.prefix: lower-case letters
[teams.a]
prefix = "sumdb" # teams.a.prefix: has a meaning of its own
hosts = ["https://a.example"] # teams.a.hosts[0]: is no host
users = ["nobody"] # teams.a.users[0]: does not stand in auth.users_file
certificates = ["payments"] # teams.a.certificates[0]: has to be CN=
jwt = [
  { issuer = "z", claims = { a = "b" } }, # teams.a.jwt[0].issuer: there is no [auth.issuers.z]
  { issuer = "a", claims = { } }, # teams.a.jwt[1].claims: names no claim
]
routes = [
  { match = ["x.example"], upstreams = ["none"] }, # teams.a.routes[0].upstreams[0]: there is no upstream
]
[teams.b] # teams.b: nothing leads to this team
inherit = false
[teams.c]
prefix = "same"
policy = { deny = ["@"] } # teams.c.policy.deny[0]: 
colour = "red" # teams.c.colour: unknown key
"#;

#[test]
fn all_mistakes_are_named_at_once() {
    let (good, said) = check(MISTAKES);
    assert!(!good);
    for (at, line) in MISTAKES.lines().enumerate() {
        let Some((_, wanted)) = line.rsplit_once(" # ") else { continue };
        let (key, words) = wanted.split_once(": ").unwrap();
        let is_it = |line: &str| line.contains(&format!("{key}: ")) && line.contains(words);
        assert!(said.lines().any(is_it), "line {}: missing {wanted:?} in:\n{said}", at + 1);
    }
    assert!(said.contains("DIR/bad-people:3: not user:hash") && said.contains("teams.Bad: the name of a team"), "{said}");
    assert!(said.contains("teams.b: has no routes, and does not inherit"), "{said}");
    assert!(!said.contains("apr1") && !said.contains("c2VzYW1l"), "{said}");
}

const GOOD: &str =
    "[upstreams.u]\ntype = \"goproxy\"\nurl = \"http://u.example\"\n[[routes]]\nmatch = [\"*\"]\nupstreams = [\"u\"]\n";

#[test]
fn what_two_teams_cannot_both_have() {
    for (teams, wanted) in [
        ("[teams.a]\nprefix = \"x\"\n[teams.b]\nprefix = \"x\"\n", "teams.b.prefix: is the team a's too"),
        (
            "[teams.a]\nhosts = [\"x.example\"]\n[teams.b]\nhosts = [\"X.example\"]\n",
            "teams.b.hosts: \"x.example\" is another team's too",
        ),
        (
            "[auth]\nusers_file = \"people\"\n[teams.a]\nusers_file = \"people\"\n",
            "teams.a.users_file: the user \"ann\" stands in another file too",
        ),
        (
            "[teams.a]\ntokens_file = \"robots\"\n[teams.b]\ntokens_file = \"robots\"\n",
            "teams.b.tokens_file: the token \"ci\" stands in another file too",
        ),
        ("[teams.a]\ncertificates = [\"OU=a\"]\n", "there is no server.tls.client_ca_file"),
        (
            "[teams.a]\nprefix = \"a\"\nroutes = [{ match = [\"b.example\"], upstreams = [\"u\"] }, { match = [\"b.example/c\"], upstreams = [\"u\"] }]\n",
            "teams.a.routes[1].match: the pattern \"b.example/c\" never matches: teams.a.routes[0] comes first",
        ),
    ] {
        let (good, said) = check(&format!("{GOOD}{teams}"));
        assert!(!good && said.contains(wanted), "missing {wanted:?} in:\n{said}");
    }
}

#[test]
fn a_good_one_is_said_back_team_by_team() {
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:8443\"\nlisten_plain = \"127.0.0.1:8080\"\n\
         tls = {{ cert_file = \"tls.pem\", key_file = \"tls.key\", client_ca_file = \"ca.pem\" }}\n\
         [auth]\nusers_file = \"people\"\n[audit]\nfile = \"audit.jsonl\"\n[limits]\nper_client = {{ requests = 9 }}\n\
         {GOOD}[upstreams.in]\ntype = \"goproxy\"\nprivate = true\nurl = \"http://in.example\"\n\
         [teams.a]\nprefix = \"a\"\nusers = [\"ann\"]\ntokens_file = \"robots\"\ncertificates = [\"OU=a\"]\n\
         routes = [{{ match = [\"a.example\"], upstreams = [\"in\"] }}]\nlimits = {{ all = {{ requests = 5, per = \"1m\" }} }}\n\
         [teams.b]\nprefix = \"b\"\ninherit = false\nroutes = [{{ match = [\"*\"], upstreams = [\"u\"] }}]\npolicy = {{ min_age = \"7d\" }}\n"
    );
    let (good, said) = check(&text);
    assert!(good, "{said}");
    for wanted in [
        "serves      127.0.0.1:8443, by TLS, which asks for client certificates\n",
        "serves      127.0.0.1:8080, without TLS\n",
        "people      1 user, 1 token, client certificates; nobody else comes in\n",
        "limits      9 requests in 1s each (9 at once)\n",
        "audit       downloads to DIR/audit.jsonl\n",
        "team        a: at /a/; members: 1 user, 1 token, client certificates\n",
        "  own [0]   a.example -> in  (lists merged; verify off)\n  all [0]   * -> u  (lists merged; verify sumdb)\n",
        "  fence     a.example: nobody else asks a public upstream about it\n",
        "  limits    9 requests in 1s each (9 at once), 5 requests in 1m all together (5 at once)\n",
        "team        b: at /b/; for whoever is known and asks there\n  own [0]   * -> u  (lists merged; verify sumdb)\n",
        "  age       versions at least 7days old\n",
    ] {
        assert!(said.contains(wanted), "missing {wanted:?} in:\n{said}");
    }
    let open = text.replace("127.0.0.1:8080", "0.0.0.0:8080");
    let (good, said) = check(&open);
    assert!(
        good && said.contains("server.listen_plain: passwords and tokens for 0.0.0.0:8080 cross the network unencrypted"),
        "{said}"
    );
}

#[test]
fn there_may_be_nothing_for_those_who_are_of_no_team() {
    let text = "[upstreams.u]\ntype = \"goproxy\"\nurl = \"http://u.example\"\n[teams.a]\nprefix = \"a\"\n\
                routes = [{ match = [\"*\"], upstreams = [\"u\"] }]\n";
    let (good, said) = check(text);
    assert!(good && said.contains("  own [0]   * -> u") && !said.contains("route 0"), "{said}");
}

#[test]
fn lines_for_files_are_made() {
    let dir = tempfile::tempdir().unwrap();
    user(&dir.path().join("people"), "ann", "sesame");
    let line = fs::read_to_string(dir.path().join("people")).unwrap();
    assert!(line.starts_with("ann:$argon2id$v=19$m=19456,t=2,p=1$") && line.ends_with('\n') && !line.contains("sesame"), "{line}");
    for arguments in [&["hash-password", "a b"][..], &["hash-password", "--token", "a:b"], &["hash-password"]] {
        let output = program().args(arguments).stdin(std::process::Stdio::null()).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}: {}", said(&output));
    }
}

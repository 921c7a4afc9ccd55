//! Real proxies between modgate and its upstreams: squid, tinyproxy and dante, with and without a login, and refusing.
//!
//! That something came is no proof that it came through the proxy; the proxy's own log is.

mod isolated;

use std::fs;
use std::slice;
use std::sync::Arc;

use tempfile::TempDir;
use url::Url;

use crate::daemons::{PASSWORD, USER, dante, squid, squid_with_login, tinyproxy};
use crate::helpers::{go_ok, public_proxy};
use crate::support::gate::{Gate, route, upstream};
use crate::support::go::Go;
use crate::support::modules::Module;
use crate::support::upstream::{Reply, Upstream};
use crate::support::{eventually, free_port};

/// A module that every public proxy has, with a zip that does not fit into one packet.
const SMALL: &str = "golang.org/x/mod@v0.20.0";
/// The same as a path below a proxy's URL.
const SMALL_INFO: &str = "/golang.org/x/mod/@v/v0.20.0.info";
const LOOPBACK: &str = "127.0.0.1";
/// A password without what tinyproxy's configuration cannot hold.
const PLAIN_PASSWORD: &str = "Sesame7f3a";

/// The host of the machine's module proxy, which has to be one of https: it is what CONNECT and SOCKS lead to here.
fn public_host() -> String {
    let url = Url::parse(&public_proxy()).unwrap();
    assert_eq!(url.scheme(), "https", "the GOPROXY of this machine");
    url.host_str().unwrap().to_owned()
}

/// `host:port` of the machine's module proxy.
fn public_authority() -> String {
    let url = Url::parse(&public_proxy()).unwrap();
    format!("{}:{}", public_host(), url.port_or_known_default().unwrap())
}

/// An upstream behind a proxy.
fn through(name: &str, url: &str, proxy: &str, more: &str) -> String {
    upstream(name, url, &format!("proxy = {proxy:?}\n{more}"))
}

/// A login at a proxy, its password in a file of the test's folder.
fn login(user: &str) -> String {
    format!("proxy_auth = {{ username = {user:?}, password_file = \"{{dir}}/password\" }}\n")
}

/// A modgate in whose folder a password lies.
fn gate_with_password(password: &str, text: &str) -> Gate {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("password"), format!("{password}\n")).unwrap();
    Gate::start_in(dir, text)
}

/// The real go command gets a module of the machine's module proxy through modgate, whole.
fn go_gets_the_small_module(gate: &Gate) {
    let go = Arc::new(Go::with_proxy(&gate.url()));
    go.main_module("module example.com/main\n\ngo 1.21\n");
    go_ok(&go, &["mod", "download", SMALL]);
    let zip = go.mod_cache().join("cache/download/golang.org/x/mod/@v/v0.20.0.zip");
    assert!(zip.metadata().is_ok_and(|m| m.len() > 100_000), "{} is there", zip.display());
}

/// A request that has to fail as a failure of the way, named by these words, in the body as in the log. Neither holds a password.
fn refused(gate: &Gate, path: &str, words: &[&str]) -> String {
    let answer = gate.get(path);
    let said = answer.text();
    assert_eq!(answer.status, 502, "{path}: {said}");
    for word in words {
        assert!(said.contains(word), "{path}: {word:?} is not in: {said}");
    }
    for secret in [PASSWORD, PLAIN_PASSWORD, "not the password"] {
        assert!(!said.contains(secret) && !gate.log().contains(secret), "{path}: a password is shown: {said}\n{}", gate.log());
    }
    said
}

fn has(text: &str, what: &str) -> bool {
    text.to_ascii_lowercase().contains(what)
}

#[test]
fn squid_is_asked_in_the_absolute_form_and_no_proxy_spares_it() {
    let near = Module::new("example.com/near", "v1.0.0");
    let far = Module::new("example.com/Far", "v1.0.0").bulk(3 << 20);
    let (squid, origin) = (squid(LOOPBACK, "http_access allow all"), Upstream::serving(&[near.clone(), far.clone()]));
    let proxy = squid.url("http");
    let spared = format!("no_proxy = [\"10.0.0.0/8\", {LOOPBACK:?}]\n");
    let gate = Gate::start(
        &(through("far", &origin.url(), &proxy, "")
            + &through("near", &origin.url(), &proxy, &spared)
            + &route("example.com/Far", &["far"], "")
            + &route("example.com/near", &["near"], "")),
    );
    for (suffix, body) in [("info", far.info()), ("mod", far.go_mod.clone().into_bytes()), ("zip", far.zip())] {
        let path = far.url(suffix);
        let answer = gate.get(&path);
        assert!(answer.status == 200 && answer.whole && answer.body == body, "{path}: {}", answer.status);
        squid.logs(&format!("- GET {}{path} 200", origin.url()));
    }
    let heads = origin.heads();
    assert!(heads.iter().all(|h| has(h, "via: ") && h.contains(&format!("Host: {}\r\n", origin.address))), "{heads:?}");

    let before = squid.log();
    for (suffix, body) in [("info", near.info()), ("zip", near.zip())] {
        let answer = gate.get(&near.url(suffix));
        assert!(answer.status == 200 && answer.body == body, "{suffix}: {}", answer.status);
    }
    // A line is written when its answer has gone out, so one more request through squid comes after those that must not be there.
    assert_eq!(gate.get("/example.com/!far/@v/list").status, 200);
    squid.logs("/example.com/!far/@v/list 200");
    assert_eq!(squid.log()[before.len()..].lines().count(), 1, "{}", squid.log());
    assert!(origin.heads().iter().filter(|h| h.contains("/example.com/near/")).all(|h| !has(h, "via: ")));
}

#[test]
fn bodies_redirects_and_cuts_are_told_apart_through_squid() {
    let whole = Module::new("example.com/whole", "v1.0.0").bulk(1 << 20);
    let moved = Module::new("example.com/moved", "v1.0.0");
    let (squid, origin, other) =
        (squid(LOOPBACK, "http_access allow all"), Upstream::start(), Upstream::serving(slice::from_ref(&moved)));
    let zip = whole.zip();
    let gate = Gate::start(&(through("far", &origin.url(), &squid.url("http"), "") + &route("*", &["far"], "")));

    // Squid takes chunks apart and puts them together anew; it hands on that a body was cut off.
    origin.set(&whole.url("mod"), Reply::Good(whole.go_mod.clone().into_bytes()));
    for (cut, how) in
        [(Reply::Truncate(zip.clone(), 600_000), "a length"), (Reply::TruncateChunked(zip.clone(), 600_000), "chunks")]
    {
        origin.set(&whole.url("zip"), cut);
        let answer = gate.get(&whole.url("zip"));
        assert!(answer.status != 200 || !answer.whole, "a zip cut off with {how} was passed on as a whole one");
        assert!(!gate.cache("far").join("example.com/whole/@v/v1.0.0.zip").exists(), "a zip cut off with {how} was kept");
    }
    origin.set(&whole.url("zip"), Reply::Chunked(zip.clone()));
    let answer = gate.get(&whole.url("zip"));
    assert!(answer.status == 200 && answer.whole && answer.body == zip, "{}", answer.status);

    // A redirect leads to another server by the same proxy, not straight.
    let path = moved.url("info");
    let to = format!("{}{path}", other.url());
    origin.set(&path, Reply::Full(302, vec![("Location".into(), to.clone())], b"moved".to_vec()));
    assert_eq!(gate.get(&path).body, moved.info());
    squid.logs(&format!("- GET {}{path} 302", origin.url()));
    squid.logs(&format!("- GET {to} 200"));

    // One that is not there is no answer of the upstream.
    let closed = format!("{LOOPBACK}:{}", free_port());
    let text = through("plain", &format!("http://{closed}"), &squid.url("http"), "")
        + &through("tls", &format!("https://{closed}"), &squid.url("http"), "")
        + &route("example.com/plain", &["plain"], "")
        + &route("example.com/tls", &["tls"], "");
    let gate = Gate::start(&text);
    refused(&gate, "/example.com/plain/@v/v1.0.0.info", &["503", &squid.address, &closed]);
    refused(&gate, "/example.com/tls/@v/v1.0.0.info", &["503", &squid.address, &closed]);
}

#[test]
fn squid_lets_the_right_login_through_and_no_other() {
    let module = Module::new("example.com/plain", "v1.0.0");
    let (squid, origin, public) = (squid_with_login(LOOPBACK), Upstream::serving(slice::from_ref(&module)), public_proxy());
    let upstreams = |login: &str| {
        let public_upstream = through("public", &public, &squid.url("http"), &format!("{login}retries = 2\n"));
        let plain = through("plain", &origin.url(), &squid.url("http"), login);
        public_upstream + &plain + &route("example.com/*", &["plain"], "") + &route("*", &["public"], "")
    };
    let gate = gate_with_password(PASSWORD, &upstreams(&login(USER)));
    go_gets_the_small_module(&gate);
    let zip = gate.get(&module.url("zip"));
    assert!(zip.status == 200 && zip.body == module.zip(), "{}", zip.text());
    squid.logs(&format!("{USER} GET {}{} 200", origin.url(), module.url("zip")));
    assert!(!origin.heads().iter().any(|h| has(h, "authorization")), "the login is the proxy's alone: {:?}", origin.heads());
    // Squid writes of a tunnel when it is closed.
    drop(gate);
    squid.logs(&format!("{USER} CONNECT {} 200", public_authority()));

    let words = ["407", &squid.address];
    let wrong = gate_with_password("not the password", &upstreams(&login(USER)));
    let without = gate_with_password("", &upstreams(""));
    for gate in [&wrong, &without] {
        refused(gate, SMALL_INFO, &words);
        refused(gate, &module.url("info"), &words);
    }
    squid.logs(&format!("{USER} CONNECT {} 407", public_authority()));
    squid.logs(&format!("- CONNECT {} 407", public_authority()));
    let probe = wrong.command(&["check", "--probe"]);
    let said = String::from_utf8_lossy(&[probe.stdout, probe.stderr].concat()).into_owned();
    assert!(said.contains("407") && !said.contains("not the password"), "{said}");
}

/// A proxy that refuses is no upstream that has nothing, whatever statuses stand for absence.
#[test]
fn what_squid_forbids_is_not_taken_for_absent() {
    let module = Module::new("example.com/m", "v1.0.0");
    let (origin, backup) = (Upstream::always(Reply::Status(403)), Upstream::serving(slice::from_ref(&module)));
    let port = origin.address.rsplit(':').next().unwrap();
    let squid = squid(LOOPBACK, &format!("acl origin port {port}\nhttp_access allow origin\nhttp_access deny all"));
    let forbidden = format!("{LOOPBACK}:{}", free_port());
    let absent = "absent = [403, 404]\n";
    let text = through("allowed", &origin.url(), &squid.url("http"), absent)
        + &through("plain", &format!("http://{forbidden}"), &squid.url("http"), absent)
        + &through("tls", &format!("https://{forbidden}"), &squid.url("http"), absent)
        + &upstream("backup", &backup.url(), "proxy = \"none\"\n");
    let first = |name: &str| text.clone() + &route("*", &[name, "backup"], "list = \"first\"\n");

    for name in ["plain", "tls"] {
        let gate = Gate::start(&first(name));
        for path in
            [module.url("info"), module.url("zip"), "/example.com/m/@v/list".to_owned(), "/example.com/m/@latest".to_owned()]
        {
            refused(&gate, &path, &["403", &squid.address, &forbidden]);
        }
        assert_eq!(backup.asked(), [""; 0], "{name}: the next upstream was asked");
    }
    squid.logs(&format!("- CONNECT {forbidden} 403"));
    squid.logs(&format!("- GET http://{forbidden}{} 403", module.url("info")));
    // The very same status of the server itself, through the same squid, means what the configuration says.
    let gate = Gate::start(&first("allowed"));
    assert_eq!(gate.get(&module.url("info")).body, module.info());
    squid.logs(&format!("- GET {}{} 403", origin.url(), module.url("info")));
}

#[test]
fn tinyproxy_leads_both_ways_with_a_login() {
    let module = Module::new("example.com/plain", "v1.0.0").bulk(1 << 20);
    let (origin, public) = (Upstream::serving(slice::from_ref(&module)), public_proxy());
    let tinyproxy = tinyproxy(&format!("BasicAuth {USER} {PLAIN_PASSWORD}"));
    let upstreams = |login: &str| {
        let public_upstream = through("public", &public, &tinyproxy.url("http"), &format!("{login}retries = 2\n"));
        let plain = through("plain", &origin.url(), &tinyproxy.url("http"), login);
        public_upstream + &plain + &route("example.com/*", &["plain"], "") + &route("*", &["public"], "")
    };
    let gate = gate_with_password(PLAIN_PASSWORD, &upstreams(&login(USER)));
    go_gets_the_small_module(&gate);
    tinyproxy.logs(&format!("CONNECT {} HTTP/1.1", public_authority()));
    let zip = gate.get(&module.url("zip"));
    assert!(zip.status == 200 && zip.whole && zip.body == module.zip(), "{}", zip.status);
    tinyproxy.logs(&format!("GET {}{} HTTP/1.1", origin.url(), module.url("zip")));
    let heads = origin.heads();
    assert!(heads.iter().all(|h| h.contains("tinyproxy.test") && !has(h, "authorization")), "{heads:?}");

    let without = gate_with_password("", &upstreams(""));
    refused(&without, SMALL_INFO, &["407", &tinyproxy.address]);
    refused(&without, &module.url("info"), &["407", &tinyproxy.address]);
    // Tinyproxy says 401 where it should say 407; that is its word all the same and not the server's.
    let wrong = gate_with_password("not the password", &upstreams(&login(USER)));
    refused(&wrong, SMALL_INFO, &["401", &tinyproxy.address]);
    refused(&wrong, &module.url("info"), &["401", &tinyproxy.address]);
    assert_eq!(origin.asked().len(), heads.len(), "nothing was asked past the proxy");
}

/// How dante writes an address.
fn dotted(address: &str) -> String {
    address.replace(':', ".")
}

#[test]
fn dante_leads_to_servers_whoever_looks_the_name_up() {
    let module = Module::new("example.com/plain", "v1.0.0").bulk(1 << 20);
    let (public, host) = (public_proxy(), public_host());
    let (near, far) = (dante(LOOPBACK, LOOPBACK, false), dante(LOOPBACK, &host, false));
    for scheme in ["socks5h", "socks5"] {
        let origin = Upstream::serving(slice::from_ref(&module));
        // A name that both sides know.
        let url = origin.url().replace(LOOPBACK, "localhost");
        let text = through("plain", &url, &near.url(scheme), "")
            + &through("public", &public, &far.url(scheme), "retries = 2\n")
            + &route("example.com/*", &["plain"], "")
            + &route("*", &["public"], "");
        let gate = Gate::start(&text);
        let before = far.log().len();
        go_gets_the_small_module(&gate);
        let led = || far.log()[before..].lines().any(|l| l.contains("tcp/connect [") && l.contains(" -> ") && l.ends_with(".443"));
        eventually("dante writes that it led to the public proxy", led);
        for suffix in ["info", "zip"] {
            assert_eq!(gate.get(&module.url(suffix)).status, 200, "{scheme} {suffix}");
        }
        near.logs(&dotted(&origin.address));
    }
    // Where nobody listens, dante says so.
    let closed = format!("{LOOPBACK}:{}", free_port());
    let gate = Gate::start(&(through("far", &format!("http://{closed}"), &near.url("socks5h"), "") + &route("*", &["far"], "")));
    refused(&gate, &module.url("info"), &[&near.address, &closed, "refused"]);
    near.logs(&dotted(&closed));
}

#[test]
fn dante_lets_the_right_login_through_and_no_other() {
    let module = Module::new("example.com/plain", "v1.0.0");
    let origin = Upstream::serving(slice::from_ref(&module));
    let dante = dante(LOOPBACK, LOOPBACK, true);
    let upstream = |login: &str| through("plain", &origin.url(), &dante.url("socks5h"), login) + &route("*", &["plain"], "");
    let right = gate_with_password(PASSWORD, &upstream(&login(USER)));
    assert_eq!(right.get(&module.url("info")).body, module.info());
    eventually("dante writes who came", || {
        dante.log().lines().any(|l| l.contains(&format!("{USER}@")) && l.contains(&dotted(&origin.address)))
    });
    let asked = origin.asked().len();
    let path = module.url("mod");
    let wrong = gate_with_password("not the password", &upstream(&login(USER)));
    refused(&wrong, &path, &[&dante.address, "does not accept the user and password"]);
    let nobody = gate_with_password(PASSWORD, &upstream(&login("nobody-of-this-name")));
    refused(&nobody, &path, &[&dante.address, "does not accept the user and password"]);
    let without = gate_with_password("", &upstream(""));
    refused(&without, &path, &[&dante.address, "another way to log in"]);
    assert_eq!(origin.asked().len(), asked, "nothing was asked past the proxy");
}

/// A proxy that is not there fails the request; nothing goes straight instead.
#[test]
fn nothing_goes_past_a_proxy_that_is_not_there() {
    let module = Module::new("example.com/plain", "v1.0.0");
    let origin = Upstream::serving(slice::from_ref(&module));
    let address = format!("{LOOPBACK}:{}", free_port());
    for scheme in ["http", "https", "socks5", "socks5h"] {
        let proxy = format!("{scheme}://{address}");
        let gate = Gate::start(&(through("plain", &origin.url(), &proxy, "") + &route("*", &["plain"], "")));
        refused(&gate, &module.url("info"), &[&proxy, "refused"]);
    }
    assert_eq!(origin.asked(), [""; 0]);
}

//! The ways out are chosen as Go chooses them: proxies by `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` as `golang.org/x/net` reads
//! them, which the go command goes by, and logins from a netrc file as the go command itself sends them.
//!
//! Both see the same rows here, picked by hand and made from those by a generator that makes the same ones each time.
//! `tests/xnet` prints what Go says.
//!
//! Intended differences, which are not compared:
//! - A proxy's URL that makes no sense is no proxy for Go, which then goes straight without a word; modgate refuses it at the
//!   start ([`ODD_PROXIES`] has all that is read differently).
//! - `ALL_PROXY` counts here, and nothing in Go.
//! - The go command looks a login up by the URL of each request, modgate by the upstream's base URL.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use modgate::egress::credentials::{basic, netrc_login};
use modgate::egress::proxy::{Proxy, ProxyRule, ProxyScheme};
use url::{Host, Url};

use crate::helpers::{Chance, Program, output_of};

/// Entries of `NO_PROXY`.
#[rustfmt::skip]
const ENTRIES: &[&str] = &[
    "", " ", "*", " * ", "**", "*.", ".", "..", "*.*", "*:80", ":80", ":", "example", "corp.example", " corp.example ",
    "CORP.Example", ".corp.example", "*.corp.example", "*corp.example", "**.corp.example", "*.*.corp.example", "..corp.example",
    "*..corp.example", ".*.corp.example", "corp.example.", ".corp.example.", "corp.example:443", "corp.example:80",
    ".corp.example:8443", "*.corp.example:443", "corp.example:", "corp.example:https", "corp.example:0443", "corp.example: 443",
    "corp.example :443", "corp.example:443:443", "[corp.example]:443", "[corp.example]", "corp.example/", "corp.example/x",
    "http://corp.example", "user@corp.example", "a.corp.example", "orp.example", "corp", "localhost", ".localhost",
    "localhost:8080", "10.0.0.1", " 10.0.0.1 ", "10.0.0.1:80", "10.0.0.1:443", "10.0.0.1:", "[10.0.0.1]:80", "[10.0.0.1]",
    ".10.0.0.1", "*.10.0.0.1", "10.0.0", "10.0.0.", "10.", "010.0.0.1", "10.0.0.01", "0x0a.0.0.1", "167772161", "10.1",
    "10.0.0.256", "10.0.0.1.2", "10.0.0.0/8", "10.0.0.1/32", "10.0.0.9/24", "10.0.0.0/0", "0.0.0.0/0", "10.0.0.0/33",
    "10.0.0.0/08", "10.0.0.0/008", "10.0.0.0/+8", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/8:80", "10.0.0.0/255.0.0.0",
    "010.0.0.0/8", "10.0.0/8", "10/8", "10.0.0.0 /8", "[10.0.0.0]/8", "192.168.0.0/16", "fd00::1", "FD00::1", "[fd00::1]",
    "[fd00::1]:443", "[fd00::1]:80", "[fd00::1]:", "fd00:0:0:0:0:0:0:1", "fd00::0001", "fd00::00001", "fd00::1:443", "fd00::/8",
    "FD00::/8", "fd00::1/128", "fd00::/129", "fd00::/08", "[fd00::]/8", "::/0", "::", "::1", "fd00::1%eth0", "::ffff:10.0.0.1",
    "::ffff:a00:1", "[::ffff:10.0.0.1]:80", "::ffff:10.0.0.0/104", "::ffff:10.0.0.0/120", "::ffff:0:0/96", "::ffff:0:0/95",
    "::10.0.0.1", "64:ff9b::10.0.0.1", "bücher.example", "BÜCHER.example", ".bücher.example", "*.bücher.example",
    "bücher.example:443", "xn--bcher-kva.example", ".xn--bcher-kva.example", "bücher.", "straße.example", "strasse.example",
    "例え.example", "例え。example", "bü_cher.example", "-bücher-.example", "bü cher.example", "\u{a0}corp.example\u{3000}",
    "\tcorp.example\r", "corp\u{ff0e}example", "\u{ff43}orp.example", "corp_x.example", "-corp.example", "]", "[", "[]", "[]:80",
    "[:80", "a]:80", "[a]b:80", "[[a]]:80", "a[b:80", "a:b[c", "a:b]", ";", "|", "corp.example;x.example", "%63orp.example",
];

/// URLs that are asked for; Go and the url crate take each for the same server.
#[rustfmt::skip]
const URLS: &[&str] = &[
    "https://corp.example/", "http://corp.example/", "https://corp.example:8443/", "http://corp.example:443/",
    "https://corp.example:443/x", "https://CORP.example/", "https://corp.example./", "https://a.corp.example/",
    "http://a.corp.example/", "https://a.corp.example:8443/", "https://a.b.corp.example/", "https://xcorp.example/",
    "https://corp/", "https://example/", "https://localhost/", "http://localhost:8080/", "https://a.localhost/",
    "https://localhost./", "http://10.0.0.1/", "https://10.0.0.1/", "http://10.0.0.1:8080/", "http://10.200.0.1/",
    "http://192.168.1.1/", "http://127.0.0.1/", "http://127.1.2.3:81/", "http://0.0.0.0/", "https://[fd00::1]/",
    "http://[fd00::1]:8080/", "https://[fdff::2]/", "https://[FD00::1]:443/", "https://[2001:db8::1]/", "https://[::1]/",
    "https://[::]/", "https://[::ffff:10.0.0.1]/", "http://[::ffff:a00:1]:80/", "https://[::ffff:127.0.0.1]/",
    "https://[::10.0.0.1]/", "https://[64:ff9b::a00:1]/", "https://bücher.example/", "https://a.bücher.example/",
    "https://BÜCHER.example/", "https://xn--bcher-kva.example/", "http://straße.example/", "https://例え.example/",
    "https://corp_x.example/", "https://-corp.example/", "https://a..corp.example/",
];

/// Values of a proxy's variable.
#[rustfmt::skip]
const PROXIES: &[&str] = &[
    "p.example", "P.Example", "p.example:3128", "p.example:", "p.example.", "localhost", "localhost:3128", "p", "p:3128",
    "10.0.0.1", "10.0.0.1:3128", "[fd00::1]", "[fd00::1]:3128", "http://p.example", "http://p.example/",
    "http://p.example:3128", "http://p.example:3128/", "HTTP://p.example", "https://p.example", "https://p.example:8443",
    "HTTPS://p.example", "socks5://p.example", "socks5://p.example:9050", "socks5h://p.example", "socks5h://[::1]:9050",
    "SOCKS5://p", "socks4://p.example", "socks://p.example", "ftp://p.example", "http:p.example", "http://:3128", ":3128",
    "http://[::1]", "https://[::1]:8443", "u:w@p.example", "u:w@p.example:3128", "u@p.example:3128",
    "http://u:w@p.example:3128", "http://u@p.example", "http://u:@p.example", "http://:w@p.example",
    "http://u%40x:w%3Ay@p.example", "http://u%2Fx:w%25@p.example", "http://u:w:x@p.example", "http://u:w@x@p.example",
    "http://u:w%C3%A4@p.example", "http://u+x:w+y@p.example", "http://u;x:w&y=z$!*'(),@p.example",
    "socks5://u:w@p.example:1080", "DOMAIN\\u:w@p.example:3128", "http://p.example:0", "http://p.example:65535",
    " p.example:3128 ", "p example", "http://bücher.example:3128", "bücher.example", "http://p_x.example",
    "http://p.example:80", "https://p.example:443", "http://10.0.0.1:3128", "none", "env", "direct", "DIRECT",
    "http=p.example:3128", "p.example,q.example", "x-p://p.example",
];

/// Values that modgate reads in another way than Go, which takes most of them for something that nobody meant: for a host named
/// "http", or for no proxy at all.
#[rustfmt::skip]
const ODD_PROXIES: &[(&str, &str)] = &[
    // What is clear enough is taken as it is meant.
    ("//p.example", "http p.example 80"), ("//p.example:3128", "http p.example 3128"), ("http:///p.example", "http p.example 80"),
    (" http://p.example", "http p.example 80"), ("http://p.example ", "http p.example 80"), ("http://p%2eexample", "http p.example 80"),
    ("http://@p.example", "http p.example 80"), ("http://:@p.example", "http p.example 80"),
    ("http://p.example:03128", "http p.example 3128"), ("http://u:wäß@p.example", "http p.example 80 75 77c3a4c39f"),
    ("http://u:w%zz@p.example", "http p.example 80 75 77257a7a"), ("http://u:w%@p.example", "http p.example 80 75 7725"),
    ("http://u:w x@p.example", "http p.example 80 75 772078"),
    // What is not is refused.
    ("fd00::1", REFUSED), ("fd00::1:3128", REFUSED), ("http://::1", REFUSED), ("http://[::1", REFUSED), ("http:/p.example", REFUSED),
    ("http://", REFUSED), ("https://", REFUSED), ("socks5://", REFUSED), ("http://p.example:65536", REFUSED),
    ("http://p.example:x", REFUSED), ("http://p.example:31 28", REFUSED), ("http://u:w/x@p.example", REFUSED),
    ("http://u:w?x@p.example", REFUSED), ("http://u:w#x@p.example", REFUSED), ("http://p.example/path", REFUSED),
    ("http://p.example?q", REFUSED), ("http://p.example#f", REFUSED), ("p.example/path", REFUSED), ("p.example:3128/path", REFUSED),
    ("http://[fe80::1%25eth0]:3128", REFUSED),
    // Addresses are read as browsers and modgate's other URLs have them.
    ("http://010.0.0.1", "http 8.0.0.1 80"), ("http://0x7f.1", "http 127.0.0.1 80"), ("3128", "http 0.0.12.56 80"),
    ("1:2", "http 0.0.0.1 2"),
];

/// What the tests call a value of which modgate makes no proxy.
const REFUSED: &str = "refused";

/// Netrc files, in which `HOST` stands for the server's address and port, `BARE` for the address and `BASE` for the address with
/// the port and the base URL's path.
#[rustfmt::skip]
const NETRCS: &[&str] = &[
    "", "\n", "machine HOST login u password p", "machine HOST login u password p\n", "machine HOST\nlogin u\npassword p\n",
    "machine HOST\n\tlogin u\n\tpassword p", "machine HOST\r\nlogin u\r\npassword p\r\n", "machine HOST password p login u",
    "machine HOST login u account a password p", "machine HOST account login login u password p", "machine HOST login u",
    "machine HOST password p", "machine HOST login u\nmachine x login v password q", "machine HOST login u password",
    "machine BARE login u password p", "machine x.example login u password p", "login u password p machine HOST",
    "machine HOST login u password p\nmachine HOST login v password q", "machine HOST/ login u password p\nmachine HOST login v password q",
    "machine HOST login u password p login v password q", "machine BASE login u password p", "machine BASE/ login u password p",
    "machine BASE// login u password p", "machine HOST login v password q\nmachine BASE login u password p",
    "machine BASE login u password p\nmachine HOST login v password q", "machine BASE/x login u password p", "machine BASEx login u password p",
    "machine https://HOST login u password p", "machine https://BASE/ login u password p", "machine http://HOST login u password p",
    "machine HTTPS://HOST login u password p", "machine https://https://HOST login u password p", "machine //HOST login u password p",
    "machine HOST login v password q\nmachine https://HOST login u password p", "machine / login u password p",
    "default login u password p", "default\nlogin u password p", "default\nmachine HOST login u password p",
    "machine HOST login u password p\ndefault login v password q", "machine x login v password q default\nmachine HOST login u password p",
    "default x\nmachine HOST login u password p", "default machine HOST login u password p", "x default machine HOST login u password p",
    "machine HOST default login u password p", "machine HOST default x login u password p", "# machine HOST login v password q\nmachine HOST login u password p",
    "# a comment\nmachine HOST login u password p", "#\nmachine HOST login u password p", "# machine HOST login u password p",
    "#machine HOST login u password p", "machine HOST login u # no\npassword p", "machine HOST login u password p # yes", "machine HOST # x\nlogin u password p",
    "machine HOST login #u password #p", "machine HOST\nmacdef init\ncd /\n\nlogin u password p", "macdef init\nmachine HOST login u password p",
    "macdef init\nx\n\nmachine HOST login u password p", "macdef init\r\nx\r\n\r\nmachine HOST login u password p", "macdef init\nx\n \nmachine HOST login u password p",
    "macdef\nmachine HOST login u password p", "macdef init machine HOST login u password p", "machine HOST login u macdef init\npassword p\n\npassword q",
    "machine HOST login u password p macdef x\nmachine HOST login v password q\n\n", "machine HOST login \"u\" password \"p p\"",
    "machine HOST login u password p\\ p", "machine HOST login u:x password p:y", "machine HOST login ü password päß€", "machine\nHOST\nlogin\nu\npassword\np",
    "machine HOST login\nu password p", "machine\tHOST\tlogin\tu\tpassword\tp", "machine\u{a0}HOST\u{3000}login\u{2003}u\u{85}password\u{b}p",
    "  machine   HOST   login   u   password   p  ", "MACHINE HOST LOGIN u PASSWORD p", "machine HOST user u password p", "machine HOST login u passwd p",
    "machine machine login u password p", "machine HOST login login password password", "machine HOST login password password machine",
    "\u{feff}machine HOST login u password p", "machine HOST login u\u{0} password p\u{0}", "machine HOST\rlogin u\rpassword p",
    "machine HOST login u password p\n\n\n\nmachine x", "x machine HOST login u password p", "x y machine HOST login u password p",
    "machine HOST.  login u password p", "machine  login u password p\nmachine HOST login v password q", "machine *  login u password p",
    "machine HOST\nmachine HOST login u password p", "machine HOST login v machine HOST login u password p", "login u\nmachine HOST\npassword p",
];

/// What further files are made of.
const WORDS: &[&str] = &[
    "machine HOST",
    "machine HOST",
    "machine",
    "HOST",
    "machine x",
    "login u",
    "login v",
    "login",
    "password p",
    "password q",
    "password",
    "default",
    "macdef m",
    "macdef",
    "account a",
    "#",
    "# x",
    "\n",
    "\n",
    "\n\n",
    "\r\n",
];

impl Chance {
    /// One of the entries with a few characters moved, doubled or left out.
    fn changed_entry(&mut self, texts: &[&str]) -> String {
        let mut text: Vec<char> = self.of(texts).chars().collect();
        for _ in 0..=self.below(2) {
            let at = self.below(text.len() + 1);
            let piece =
                self.of(&[".", "*", "*.", ":", ":443", "[", "]", "/", "/8", "0", "1", " ", "x", "é", "::", "-", "ffff:", "@"]);
            match self.below(3) {
                0 => drop(text.splice(at..at, piece.chars())),
                1 => drop(text.drain(at..(at + 1).min(text.len()))),
                _ => drop(text.splice(at..at, text.clone())),
            }
        }
        text.into_iter().collect()
    }
}

/// Builds `tests/xnet` in a folder.
fn xnet(folder: &Path) -> PathBuf {
    let program = folder.join("xnet");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).arg(".").current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/xnet"));
    go.env("GOFLAGS", "-mod=readonly").env("GOWORK", "off");
    output_of(go, b"");
    program
}

/// What x/net says about each row of a kind.
fn theirs(kind: &str, rows: &[String]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(xnet(dir.path()));
    command.arg("rows");
    let input = rows.iter().map(|row| format!("{kind}\t{row}\n")).collect::<Vec<_>>().concat();
    let printed: Vec<String> = output_of(command, input.as_bytes()).split_terminator('\n').map(str::to_owned).collect();
    assert_eq!(printed.len(), rows.len(), "a line for each row");
    printed
}

fn assert_same(different: &[String], compared: usize, least: usize) {
    assert!(compared >= least, "most rows are ones that can be compared, not {compared}");
    assert!(different.is_empty(), "{} of {compared} rows differ:\n{}", different.len(), different.join("\n"));
}

#[test]
fn exceptions_from_proxies_are_those_of_x_net() {
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    let mut rows: Vec<String> = ENTRIES.iter().flat_map(|e| URLS.iter().map(move |u| format!("{u}\t{e}"))).collect();
    rows.extend((0..4000).map(|n| {
        let list: Vec<String> = (0..=chance.below(4))
            .map(|_| if n % 2 == 0 { chance.of(&ENTRIES[5..]).to_owned() } else { chance.changed_entry(&ENTRIES[5..]) })
            .collect();
        let between = chance.of(&[",", ", ", " ,", ",,"]);
        format!("{}\t{}", chance.of(URLS), list.join(between))
    }));
    let (mut compared, mut different) = (0, Vec::new());
    for (row, theirs) in rows.iter().zip(theirs("exempt", &rows)) {
        let (url, no_proxy) = row.split_once('\t').unwrap();
        let variable = |name: &str| match name {
            "HTTP_PROXY" | "HTTPS_PROXY" => Some("http://proxy.example".to_owned()),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            _ => None,
        };
        let rule = ProxyRule::from_env(&variable, &[]).unwrap();
        let target = Url::parse(url).unwrap();
        let host = match target.host().unwrap() {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        let chosen = rule.choose(target.scheme() == "https", &host, target.port_or_known_default().unwrap());
        let ours = if chosen.is_some() { "no" } else { "yes" };
        compared += 1;
        if ours != theirs {
            different.push(format!("NO_PROXY={no_proxy:?} {url}: x/net says exempt: {theirs}, modgate {ours}"));
        }
    }
    assert_same(&different, compared, 10_000);
}

/// What modgate makes of a value, in the words of `tests/xnet`.
fn read_proxy(value: &str) -> String {
    let Ok(Proxy { scheme, host, port, login }) = Proxy::parse(value) else { return REFUSED.into() };
    let scheme = match scheme {
        ProxyScheme::Http => "http",
        ProxyScheme::Https => "https",
        ProxyScheme::Socks5 => "socks5",
        ProxyScheme::Socks5h => "socks5h",
    };
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<Vec<_>>().concat();
    let login = login.map(|l| format!(" {} {}", hex(&l.user), hex(l.password.expose())));
    format!("{scheme} {host} {port}{}", login.unwrap_or_default())
}

#[test]
fn a_proxy_is_the_one_that_net_http_would_use() {
    let rows: Vec<String> = PROXIES.iter().copied().chain(ODD_PROXIES.iter().map(|(p, _)| *p)).map(str::to_owned).collect();
    let odd: HashMap<&str, &str> = ODD_PROXIES.iter().copied().collect();
    let mut different = Vec::new();
    for (row, theirs) in rows.iter().zip(theirs("proxy", &rows)) {
        let ours = read_proxy(row);
        // Go goes without a proxy, or fails each request.
        let theirs = if matches!(&*theirs, "none" | "bad") { REFUSED } else { &theirs };
        let same = match odd.get(&**row) {
            None => ours == theirs,
            Some(wanted) => ours == *wanted && ours != theirs,
        };
        if !same {
            different.push(format!("{row:?}: net/http reads {theirs:?}, modgate {ours:?}"));
        }
    }
    assert_same(&different, rows.len(), 100);
}

#[test]
fn a_netrc_file_gives_the_login_that_the_go_command_sends() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut command = Command::new(xnet(dir.path()));
    command.arg("listen").arg(dir.path());
    let mut server = Program::start(command, &path("log"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !path("address").is_file() {
        assert!(Instant::now() < deadline, "the server says no address:\n{}", server.log());
        thread::sleep(Duration::from_millis(20));
    }
    let address = fs::read_to_string(path("address")).unwrap();
    server.listens(&address);
    let mut rows = Vec::new();
    let mut chance = Chance(0x2545_F491_4F6C_DD1D);
    let made = (0..150).map(|_| (0..=chance.below(12)).map(|_| chance.of(WORDS)).collect::<Vec<_>>().join(" "));
    let files: Vec<String> = NETRCS.iter().map(|&f| f.to_owned()).chain(made.map(|f| f.replace("\n ", "\n"))).collect();
    for (n, file) in files.iter().enumerate() {
        let base = format!("{address}/row{n}/base");
        let text = file.replace("BASE", &base).replace("HOST", &address).replace("BARE", address.split(':').next().unwrap());
        let url = format!("https://{base}{}", if n % 2 == 0 { "" } else { "/" });
        fs::write(path("netrc"), &text).unwrap();
        let mut go = Command::new("go");
        go.args(["list", "-m", "-versions", "-retracted", "example.com/m"]).current_dir(dir.path()).env_clear();
        go.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", dir.path()).env("NETRC", path("netrc"));
        go.env("GOPROXY", &url).env("SSL_CERT_FILE", path("certificate.pem")).env("GOENV", "off");
        go.env("GOSUMDB", "off").env("GOFLAGS", "-mod=mod -modcacherw").env("GOTOOLCHAIN", "local").env("GOWORK", "off");
        assert!(output_of(go, b"").contains("v1.0.0"));
        let found = netrc_login(&text, &Url::parse(&url).unwrap());
        rows.push((n, text, found.map(|(login, password)| basic(&login, password.expose()).expose().to_owned())));
    }
    let seen = fs::read_to_string(path("seen")).unwrap();
    let mut sent: HashMap<String, Vec<&str>> = HashMap::new();
    for (at, authorization) in seen.lines().map(|line| line.split_once('\t').unwrap()) {
        sent.entry(at.split('/').nth(1).unwrap().to_owned()).or_default().push(authorization);
    }
    let mut different = Vec::new();
    for (n, text, ours) in &rows {
        let theirs = &sent[&format!("row{n}")];
        if theirs.iter().any(|theirs| *theirs != ours.as_deref().unwrap_or_default()) {
            different.push(format!("{text:?}: the go command sends {theirs:?}, modgate {ours:?}"));
        }
    }
    let logins = rows.iter().filter(|(.., ours)| ours.is_some()).count();
    assert!((50..rows.len() - 50).contains(&logins), "both are tried: {logins} of {}", rows.len());
    assert_same(&different, rows.len(), 200);
}

//! Where others than the configuration may send modgate: not to this machine and not into the own network, by any road. And whom it
//! shows who it is.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::gate::Gate;
use crate::support::git::Fault;
use crate::support::http::Answer;
use crate::support::pages::{Web, tag};
use crate::support::upstream::Reply;

fn list(gate: &Gate, path: &str) -> Answer {
    gate.get(&format!("/{path}/@v/list"))
}

/// A server of this machine that nobody may be sent to; it counts who comes.
struct Inside {
    port: u16,
    visits: Arc<AtomicUsize>,
}

impl Inside {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, visits) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&visits);
        std::thread::spawn(move || {
            for _visit in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { port, visits }
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

/// Ways of writing this machine's address. Programs differ in which of them they take for it.
const THIS_MACHINE: &[&str] = &[
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "0x7f.1",
    "0x7f000001",
    "2130706433",
    "0177.0.0.1",
    "017700000001",
    "0.0.0.0",
    "0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "127.0.0.1.",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:0:0:1]",
    "user@127.0.0.1",
    "169.254.169.254",
    "10.0.0.1",
    "[fd00::1]",
    "[fe80::1]",
];

/// Asks for modules whose pages name all those addresses, in all the ways that lead to requests. What the gate says of each that it
/// should not have asked.
fn lead_inside(web: &Web, gate: &Gate, port: u16) -> Vec<String> {
    let mut findings = Vec::new();
    let schemes =
        ["git https", "git ssh", "git git+ssh", "git http", "git git", "mod https", "mod http", "hg https", "svn svn+ssh"];
    for (at, address) in THIS_MACHINE.iter().enumerate() {
        for scheme in schemes {
            let path = format!("x.test/{}{at}", scheme.replace([' ', '+'], ""));
            web.page(&path, Web::head(&tag(&format!("{path} {scheme}://{address}:{port}/x"))));
            let answer = list(gate, &path);
            let refused = matches!(answer.status, 404 | 502)
                && !["refused", "Connection", "unreachable", "timed out", "no go.mod"].iter().any(|w| answer.text().contains(w));
            if !refused {
                findings.push(format!("{scheme} {address}: {} {}", answer.status, answer.text()));
            }
        }
        let path = format!("x.test/redirect{at}");
        let to = format!("https://{address}:{port}/redirect?go-get=1");
        web.page(&path, Reply::Full(302, vec![("Location".into(), to)], Vec::new()));
        let answer = list(gate, &path);
        if answer.status != 502 {
            findings.push(format!("a redirect to {address}: {} {}", answer.status, answer.text()));
        }
    }
    findings
}

/// The same for import paths themselves.
const PATHS: &[&str] = &[
    "127.0.0.1/x",
    "0x7f.1/x",
    "127.1/x",
    "10.0.0.1/x",
    "127.0.0.1/x.git",
    "0177.0.0.1/x.git",
    "127.0.0.1/x.hg",
    "127.1/x.svn",
    "a.localhost/x",
];

/// Where those addresses are reached straight rather than through the proxy.
const STRAIGHT: &str = "no_proxy = [\"127.0.0.0/8\", \"localhost\", \"::1\", \"0.0.0.0/8\", \"10.0.0.0/8\", \"169.254.0.0/16\", \"fc00::/7\", \
                        \"fe80::/10\", \"::\", \"2130706433\", \"0x7f.1\", \"127.1\", \"127.0.1\", \"0x7f000001\", \"0177.0.0.1\", \"0\"]\n";

fn nobody_is_led_inside(way: &str) {
    let (web, inside) = (Web::new(), Inside::new());
    let gate = web.gate(&format!("{way}insecure = [\"x.test\"]\nconnect = \"2s\"\nfirst_byte = \"2s\"\nidle = \"2s\""));
    let mut findings = lead_inside(&web, &gate, inside.port);
    for path in PATHS {
        let answer = list(&gate, path);
        if !matches!(answer.status, 404 | 502) {
            findings.push(format!("{path}: {} {}", answer.status, answer.text()));
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert_eq!(inside.visits(), 0, "{}", gate.log());
    let targets = web.proxy.targets();
    assert!(targets.iter().all(|target| target == "x.test:443"), "{targets:?}");
}

#[test]
fn nobody_is_led_to_this_machine() {
    nobody_is_led_inside(STRAIGHT);
}

#[test]
fn nobody_is_led_to_a_proxys_machine() {
    nobody_is_led_inside("");
}

#[test]
fn servers_of_the_own_network_are_reached_where_the_configuration_names_them() {
    let web = Web::new();
    let port = web.git.address.rsplit(':').next().unwrap();
    web.page("x.test/in", Web::head(&tag(&format!("x.test/in git http://{}/one", web.git.address))));
    // A page that is not the company's leads nowhere inside, whatever else is named.
    let rows = [
        ("127.0.0.0/8,x.test", 200),
        (&*format!("127.0.0.1:{port},x.test"), 200),
        ("127.0.0.1:1,x.test", 502),
        ("10.0.0.0/8,x.test", 502),
        ("127.0.0.0/8", 502),
    ];
    for (internal, status) in rows {
        let internal_hosts: Vec<&str> = internal.split(',').collect();
        let gate = web.gate(&format!("insecure = [\"x.test\"]\nno_proxy = [\"127.0.0.1\"]\ninternal_hosts = {internal_hosts:?}"));
        web.git.forget();
        let answer = list(&gate, "x.test/in");
        assert_eq!(answer.status, status, "{internal}: {}", answer.text());
        assert_eq!(web.git.asked().is_empty(), status != 200, "{internal}: {:?}", web.git.asked());
    }
}

/// Where a repository's server says that it is.
fn moves(web: &Web, name: &str, to: &str) {
    let reply = Reply::Full(302, vec![("Location".into(), to.into())], Vec::new());
    web.pages.set(&format!("/{name}/info/refs?service=git-upload-pack"), reply);
}

#[test]
fn repositories_that_moved_are_found_where_they_are_and_not_inside() {
    let (web, inside) = (Web::new(), Inside::new());
    let gate = web.gate("no_proxy = [\"127.0.0.1\", \"localhost\"]\nfirst_byte = \"2s\"");
    let there = "https://git.test/one/info/refs?service=git-upload-pack";
    let places = [
        ("there", there.to_owned(), 200),
        ("inside", format!("https://127.0.0.1:{}/one/info/refs?service=git-upload-pack", inside.port), 502),
        ("local", format!("https://localhost:{}/one/info/refs?service=git-upload-pack", inside.port), 502),
        ("plain", "http://git.test/one/info/refs?service=git-upload-pack".into(), 502),
        ("circle", "https://x.test/circle/info/refs?service=git-upload-pack".into(), 502),
        ("file", "file:///one/info/refs".into(), 502),
        ("elsewhere", "https://git.test/one/".into(), 502),
        ("option", "https://git.test/--upload-pack=x/info/refs?service=git-upload-pack".into(), 404),
    ];
    for (name, to, status) in &places {
        moves(&web, name, to);
        web.page(&format!("x.test/m/{name}"), Web::head(&tag(&format!("x.test/m/{name} git https://x.test/{name}"))));
        let answer = list(&gate, &format!("x.test/m/{name}"));
        assert_eq!(answer.status, *status, "{name}: {}", answer.text());
    }
    assert_eq!(inside.visits(), 0, "{}", gate.log());
    for part in ["@v/v1.0.0.info", "@v/v1.0.0.zip", "@latest"] {
        assert_eq!(gate.get(&format!("/x.test/m/there/{part}")).status, 200, "{part}");
    }
    // It moves on: its new place is found by the old one.
    moves(&web, "there", "https://git.test/two/info/refs?service=git-upload-pack");
    web.git.fail("one", Fault::Status(404));
    assert_eq!(gate.get("/x.test/m/there/@v/main.info").status, 200);
}

#[test]
fn who_modgate_is_learn_only_those_for_whom_it_is_meant() {
    let web = Web::new();
    web.git.require("ci", "hush");
    let who = |host: &str| format!("{host:?} = {{ username = \"ci\", password_env = \"PASSWORD\" }}");
    let gate = web.gate_with(&format!("credentials = {{ {}, {} }}", who("x.test"), who("git.test")), &[("PASSWORD", "hush")]);
    web.page("x.test/a", Web::head(&tag("x.test/a git https://git.test/one")));
    assert_eq!(list(&gate, "x.test/a").status, 200);
    let shown = |path: &str| {
        let head =
            web.pages.heads().into_iter().rfind(|head| head.contains(path)).unwrap_or_else(|| panic!("{path} was not asked"));
        head.to_ascii_lowercase().contains("authorization: basic y2k6ahvzaa==")
    };
    assert!(shown("/a?go-get=1"));
    // A stranger's page cannot have modgate fetch by its own logins what the page's reader may not have.
    for (path, tagged) in
        [("y.test/git", "y.test/git git https://git.test/one"), ("y.test/mod", "y.test/mod mod https://git.test/p")]
    {
        web.page(path, Web::head(&tag(tagged)));
        let answer = list(&gate, path);
        assert_eq!(answer.status, 502, "{path}: {}", answer.text());
        assert!(answer.text().contains("denied: "), "{path}: {}", answer.text());
    }
    // Redirects lose them, even those that come back; a host without an entry never gets any.
    let to = |url: &str| Reply::Full(302, vec![("Location".into(), url.into())], Vec::new());
    web.page("x.test/b", to("https://y.test/b2?go-get=1"));
    web.page("y.test/b2", to("https://x.test/b3?go-get=1"));
    web.page("x.test/b3", Web::head(&tag("x.test/b git https://git.test/one")));
    assert_eq!(list(&gate, "x.test/b").status, 200);
    assert!(shown("/b?go-get=1") && !shown("/b2?go-get=1") && !shown("/b3?go-get=1"));
    // Neither does git show them to another host, which asks for some, nor where its server sends it.
    let asks = vec![("WWW-Authenticate".to_owned(), "Basic realm=\"git.test\"".to_owned())];
    web.pages.set("/c/info/refs?service=git-upload-pack", Reply::Full(401, asks, Vec::new()));
    web.page("y.test/c", Web::head(&tag("y.test/c git https://y.test/c")));
    assert_eq!(list(&gate, "y.test/c").status, 502);
    assert!(!shown("/c/info/refs"));
    moves(&web, "d", "https://y.test/e/info/refs?service=git-upload-pack");
    web.page("x.test/d", Web::head(&tag("x.test/d git https://x.test/d")));
    assert_ne!(list(&gate, "x.test/d").status, 200);
    assert!(!shown("/e/info/refs"));
    assert!(!gate.log().contains("hush"), "{}", gate.log());
}

#[test]
fn without_encryption_nothing_is_asked_but_what_the_configuration_says() {
    let web = Web::new();
    let plain = |path: &str, url: &str| web.page(path, Web::head(&tag(&format!("{path} git {url}/one"))));
    plain("plain.test/a", "https://git.test");
    plain("plain.test/b", "https://git.test");
    web.page("plain.test/a/sub/dir", Web::head(&tag("plain.test/a git https://git.test/one")));
    plain("x.test/i", "http://git.test");
    plain("x.test/j", "http://git.test");
    let gate = web.gate("insecure = [\"plain.test/a/sub\", \"plain.test/b\", \"x.test/i\"]");
    assert_eq!(list(&gate, "plain.test/a").status, 502);
    for path in ["plain.test/a/sub/dir", "plain.test/b", "x.test/i"] {
        let answer = list(&gate, path);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // What was learnt without encryption for another path does not count.
    let gate = web.gate("insecure = [\"plain.test/a/sub\"]");
    assert_eq!(list(&gate, "plain.test/a/sub/dir").status, 200);
    assert_eq!(list(&gate, "plain.test/a").status, 502);
    assert_eq!(list(&gate, "x.test/j").status, 404);
}

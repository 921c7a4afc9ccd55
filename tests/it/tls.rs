//! TLS towards upstreams and proxies: who is trusted, who modgate is, which name is asked for, and what is said when it fails.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;

use crate::support::eventually;
use crate::support::gate::{Gate, config_text, program, route, upstream};
use crate::support::http::Answer;
use crate::support::modules::Module;
use crate::support::proxy::{FakeProxy, Manner};
use crate::support::tls::{Authority, Certified, Demands, Front, NONE, Validity, Visit};
use crate::support::upstream::{Reply, Upstream};

const NO_BREAKER: &str = "breaker = { failures = 0 }\n";
const RETRIES: &str = "retries = 3\nbreaker = { failures = 0 }\n";

/// A folder with these files, for a gate to start in.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

/// The module that comes from the upstream of this name.
fn module_of(name: &str) -> Module {
    Module::new(&format!("example.com/{name}"), "v1.0.0")
}

/// A gate with an upstream for each name, URL and further keys; `example.com/<name>` comes from it.
fn gate_of(dir: TempDir, egress: &str, upstreams: &[(&str, String, &str)]) -> Gate {
    let tables: String = upstreams.iter().map(|(name, url, more)| upstream(name, url, more)).collect();
    let routes: String = upstreams.iter().map(|(name, ..)| route(&format!("example.com/{name}"), &[name], "")).collect();
    Gate::start_in(dir, &format!("{egress}\n{tables}{routes}"))
}

/// A plain upstream that serves the modules of these names.
fn plain(names: &[&str]) -> Upstream {
    Upstream::serving(&names.iter().map(|name| module_of(name)).collect::<Vec<_>>())
}

fn ask(gate: &Gate, name: &str) -> Answer {
    gate.get(&module_of(name).url("mod"))
}

fn works(gate: &Gate, name: &str) {
    for part in ["info", "mod", "zip"] {
        let answer = gate.get(&module_of(name).url(part));
        assert_eq!((answer.status, answer.whole), (200, true), "{name}: {}", answer.text());
    }
    assert_eq!(ask(gate, name).text(), module_of(name).go_mod);
}

/// The upstream's line of the body of a refusal with this status. It has to hold all of these.
fn refused(gate: &Gate, name: &str, status: u16, wanted: &[&str]) -> String {
    let answer = ask(gate, name);
    let text = answer.text();
    assert_eq!(answer.status, status, "{name}: {text}");
    let line = text.lines().find(|line| line.starts_with(&format!("{name}: "))).unwrap_or_else(|| panic!("{text}")).to_owned();
    for part in wanted {
        assert!(line.contains(part), "{name}: missing {part:?} in: {line}");
    }
    line
}

/// Servers whose certificates are no good, each with what is to be said of it.
fn bad_servers(authority: &Authority, server: &str) -> Vec<(&'static str, Front, &'static str)> {
    let here = ["127.0.0.1"];
    let certificates = [
        ("unknown", Authority::new("a stranger").server(&here), "comes from an authority that is not trusted here"),
        ("selfsigned", Certified::self_signed(&here), "comes from an authority that is not trusted here"),
        ("incomplete", authority.below("between").server(&here).alone(), "comes from an authority that is not trusted here"),
        ("expired", authority.server_valid(&here, Validity::Past), "its certificate has expired (at 2002-03-04T00:00:00Z)"),
        (
            "early",
            authority.server_valid(&here, Validity::Future),
            "its certificate is not valid yet (before 2095-06-07T00:00:00Z;",
        ),
        ("otherhost", authority.server(&["a.example", "127.0.0.2"]), "its certificate is for another host: for "),
        ("noname", authority.server(&[]), "its certificate is for another host: for no name at all, not for 127.0.0.1"),
    ];
    certificates.into_iter().map(|(name, certified, said)| (name, Front::new(&certified, server), said)).collect()
}

fn leading_to(address: &str) -> FakeProxy {
    FakeProxy::start(Manner::LeadsTo(address.to_owned()))
}

#[test]
fn a_certificate_that_is_no_good_is_named_and_not_tried_again() {
    let authority = Authority::new("the company");
    let names = ["unknown", "selfsigned", "incomplete", "expired", "early", "otherhost", "noname", "good", "between"];
    let up = plain(&names);
    let bad = bad_servers(&authority, &up.address);
    let good = Front::new(&authority.server(&["127.0.0.1"]), &up.address);
    let between = Front::new(&authority.below("between").server(&["127.0.0.1"]), &up.address);
    let mut upstreams: Vec<_> = bad.iter().map(|(name, front, _)| (*name, front.url(), RETRIES)).collect();
    upstreams.push(("good", good.url(), RETRIES));
    upstreams.push(("between", between.url(), RETRIES));
    // One ca_file for all of them, beside the configuration.
    let gate = gate_of(folder(&[("ca.pem", &authority.pem())]), "[egress.tls]\nca_file = \"ca.pem\"\n", &upstreams);
    for (name, front, said) in &bad {
        let line = refused(&gate, name, 502, &[&format!("TLS with {} failed: ", front.address), said]);
        assert_eq!(front.visits().len(), 1, "asked once and not again: {line}");
        // A long body is asked for in another way.
        assert_eq!(gate.get(&module_of(name).url("zip")).status, 502);
        assert_eq!(front.visits().len(), 2, "{name}");
    }
    assert_eq!(up.asked(), Vec::<String>::new());
    works(&gate, "good");
    works(&gate, "between");
    let line = refused(&gate, "otherhost", 502, &["a.example", "127.0.0.2", "not for 127.0.0.1"]);
    assert!(!line.contains("DnsName"), "names as people write them: {line}");
}

#[test]
fn a_ca_file_is_for_its_upstream_and_a_single_certificate_can_be_trusted() {
    let (authority, itself) = (Authority::new("the company"), Certified::self_signed(&["127.0.0.1"]));
    let up = plain(&["with", "without", "itself"]);
    let front = Front::new(&authority.server(&["127.0.0.1"]), &up.address);
    let alone = Front::new(&itself, &up.address);
    let upstreams = [
        ("with", front.url(), "tls = { ca_file = \"{dir}/ca.pem\" }"),
        ("without", front.url(), ""),
        ("itself", alone.url(), "tls = { ca_file = \"itself.pem\" }"),
    ];
    let gate = gate_of(folder(&[("ca.pem", &authority.pem()), ("itself.pem", &itself.pem)]), "", &upstreams);
    works(&gate, "with");
    works(&gate, "itself");
    refused(&gate, "without", 502, &["not trusted here"]);
}

#[test]
fn verification_can_be_left_out_where_that_is_said_and_then_there_is_a_warning() {
    let authority = Authority::new("the company");
    let up = plain(&["unknown", "selfsigned", "incomplete", "expired", "early", "otherhost", "noname"]);
    let bad = bad_servers(&authority, &up.address);
    let by_upstream: Vec<_> =
        bad.iter().map(|(name, front, _)| (*name, front.url(), "tls = { insecure_skip_verify = true }")).collect();
    let by_default: Vec<_> = bad.iter().map(|(name, front, _)| (*name, front.url(), "")).collect();
    let off: Vec<_> = bad.iter().map(|(name, front, _)| (*name, front.url(), "tls = { insecure_skip_verify = false }")).collect();
    let all = "[egress.tls]\ninsecure_skip_verify = true\n";
    for (egress, upstreams) in [("", &by_upstream), (all, &by_default)] {
        let gate = gate_of(folder(&[]), egress, upstreams);
        let check = gate.command(&["check"]);
        let check = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
        for (name, ..) in &bad {
            works(&gate, name);
            let warning = format!("upstreams.{name}.tls.insecure_skip_verify: ");
            let warned = |text: &str| text.lines().any(|line| line.contains("warning") && line.contains(&warning));
            assert!(warned(&gate.log()), "{}", gate.log());
            assert!(warned(&check), "{check}");
        }
        assert_eq!(check.matches("WITHOUT looking at its certificate").count(), bad.len(), "{check}");
    }
    // An upstream's own word counts for more than that of all.
    let gate = gate_of(folder(&[]), all, &off);
    for (name, ..) in &bad {
        refused(&gate, name, 502, &["failed: its certificate "]);
    }
    assert!(!gate.log().contains("insecure_skip_verify"), "{}", gate.log());
}

#[test]
fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let (authority, staff) = (Authority::new("the company"), Authority::new("the staff"));
    let (client, stranger) = (staff.below("between").client(Validity::Now), Authority::new("a stranger").client(Validity::Now));
    let late = staff.client(Validity::Past);
    let names = ["with", "without", "stranger", "late", "unasked"];
    let up = plain(&names);
    let files = [
        ("ca.pem", authority.pem()),
        ("client.pem", client.pem),
        ("client.key", client.key_pem),
        ("stranger.pem", stranger.pem),
        ("stranger.key", stranger.key_pem),
        ("late.pem", late.pem),
        ("late.key", late.key_pem),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let server = authority.server(&["127.0.0.1"]);
    let open = Front::new(&server, &up.address);
    for version in [&TLS12, &TLS13] {
        let front = Front::demanding(&server, &up.address, Demands { versions: &[version], clients: Some(&staff) });
        let keys =
            |name: &str| format!("retries = 3\n{NO_BREAKER}tls = {{ cert_file = \"{name}.pem\", key_file = \"{name}.key\" }}");
        let [own, strange, old] = ["client", "stranger", "late"].map(keys);
        let upstreams = [
            ("with", front.url(), own.as_str()),
            ("without", front.url(), RETRIES),
            ("stranger", front.url(), &strange),
            ("late", front.url(), &old),
            ("unasked", open.url(), &own),
        ];
        let gate = gate_of(folder(&files), "[egress.tls]\nca_file = \"ca.pem\"\n", &upstreams);
        works(&gate, "with");
        let shown = Visit { sni: None, certificate: true, version: Some(version.version) };
        assert!(front.visits().iter().all(|v| *v == shown), "{:?}", front.visits());
        works(&gate, "unasked");
        assert!(open.visits().iter().all(|v| !v.certificate), "it is shown to nobody who does not ask");
        let host = format!("TLS with {} failed: ", front.address);
        // More than once, for with TLS 1.3 the refusal comes after the handshake and races with the request.
        for _ in 0..5 {
            let before = front.visits().len();
            refused(&gate, "without", 502, &[&host, "it asks for a client certificate (tls.cert_file and tls.key_file)"]);
            refused(&gate, "stranger", 502, &[&host, "it refuses modgate's client certificate (TLS alert UnknownCA)"]);
            refused(&gate, "late", 502, &[&host, "it refuses modgate's client certificate (TLS alert CertificateExpired)"]);
            assert_eq!(front.visits().len(), before + 3, "none of them is tried again");
        }
    }
}

#[test]
fn the_oldest_version_can_be_set() {
    let authority = Authority::new("the company");
    let up = plain(&["old", "new", "both", "any"]);
    let server = authority.server(&["127.0.0.1"]);
    let old = Front::demanding(&server, &up.address, Demands { versions: &[&TLS12], ..NONE });
    let new = Front::demanding(&server, &up.address, Demands { versions: &[&TLS13], ..NONE });
    let both = Front::new(&server, &up.address);
    let upstreams = [
        ("old", old.url(), RETRIES),
        ("new", new.url(), ""),
        ("both", both.url(), ""),
        ("any", old.url(), "tls = { min_version = \"1.2\" }"),
    ];
    let gate =
        gate_of(folder(&[("ca.pem", &authority.pem())]), "[egress.tls]\nca_file = \"ca.pem\"\nmin_version = \"1.3\"\n", &upstreams);
    let host = format!("TLS with {} failed: ", old.address);
    refused(&gate, "old", 502, &[&host, "it speaks no version of TLS that is allowed here (TLS alert ProtocolVersion)"]);
    assert_eq!(old.visits().len(), 1);
    for name in ["new", "both", "any"] {
        works(&gate, name);
    }
    assert_eq!(old.visits().last().unwrap().version, Some(rustls::ProtocolVersion::TLSv1_2));
    assert_eq!(both.visits().last().unwrap().version, Some(rustls::ProtocolVersion::TLSv1_3));
}

#[test]
fn the_name_in_the_url_is_asked_for_and_a_connection_serves_many_requests() {
    let authority = Authority::new("the company");
    let up = plain(&["name", "address", "below", "wrong"]);
    let named = Front::new(&authority.server(&["localhost"]), &up.address);
    let addressed = Front::new(&authority.server(&["127.0.0.1"]), &up.address);
    let wild = Front::new(&authority.server(&["*.corp.example"]), &up.address);
    let tunnel = leading_to(&wild.address);
    let through = format!("proxy = \"http://{}\"", tunnel.address);
    let upstreams = [
        ("name", named.url_as("localhost"), RETRIES),
        ("address", addressed.url(), RETRIES),
        ("below", "https://Goproxy.Corp.Example".to_owned(), through.as_str()),
        ("wrong", addressed.url_as("localhost"), RETRIES),
    ];
    let gate = gate_of(folder(&[("ca.pem", &authority.pem())]), "[egress.tls]\nca_file = \"ca.pem\"\n", &upstreams);
    for (name, front, sni) in [("name", &named, Some("localhost")), ("address", &addressed, None)] {
        works(&gate, name);
        let version = Some(rustls::ProtocolVersion::TLSv1_3);
        assert_eq!(front.visits(), [Visit { sni: sni.map(str::to_owned), certificate: false, version }], "one for all requests");
    }
    works(&gate, "below");
    assert_eq!(wild.visits()[0].sni.as_deref(), Some("goproxy.corp.example"));
    assert_eq!(tunnel.targets()[0], "goproxy.corp.example:443");
    let port = addressed.address.rsplit(':').next().unwrap();
    let host = format!("TLS with localhost:{port} failed: ");
    refused(&gate, "wrong", 502, &[&host, "127.0.0.1", "not for localhost"]);
    assert_eq!(addressed.visits().last().unwrap().sni.as_deref(), Some("localhost"));
}

/// A server on loopback that reads the client's first words, says something and closes; its address.
fn says(words: &'static [u8], stays: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut first = [0; 4096];
                // A client that says nothing is answered all the same.
                let _ = stream.read(&mut first);
                let _ = stream.write_all(words);
                while stays && matches!(stream.read(&mut first), Ok(1..)) {}
            });
        }
    });
    address
}

#[test]
fn servers_that_fail_at_tls_are_told_apart() {
    // An alert: fatal, with its number.
    let table: [(&str, &'static [u8], &str); 5] = [
        ("http", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "it does not speak TLS on this port"),
        ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n", "it does not speak TLS on this port"),
        ("alert", &[21, 3, 3, 0, 2, 2, 40], "it ended the handshake with the TLS alert HandshakeFailure"),
        ("noname", &[21, 3, 3, 0, 2, 2, 112], "it knows no server of this name (TLS alert UnrecognisedName)"),
        ("version", &[21, 3, 1, 0, 2, 2, 70], "it speaks no version of TLS that is allowed here (TLS alert ProtocolVersion)"),
    ];
    let servers: Vec<String> = table.iter().map(|(_, words, _)| says(words, false)).collect();
    let mut upstreams: Vec<_> =
        table.iter().zip(&servers).map(|((name, ..), address)| (*name, format!("https://{address}"), NO_BREAKER)).collect();
    let (silent, closes) = (says(b"", true), says(b"", false));
    upstreams.push(("closes", format!("https://{closes}"), NO_BREAKER));
    upstreams.push(("silent", format!("https://{silent}"), "connect = \"500ms\"\nretries = 3"));
    // And the other way round: a TLS server that is asked in plain http.
    let up = plain(&[]);
    let front = Front::new(&Authority::new("the company").server(&["127.0.0.1"]), &up.address);
    upstreams.push(("plain", format!("http://{}", front.address), NO_BREAKER));
    let gate = gate_of(folder(&[]), "", &upstreams);
    for ((name, _, said), address) in table.iter().zip(&servers) {
        refused(&gate, name, 502, &[&format!("TLS with {address} failed: "), said]);
    }
    let started = std::time::Instant::now();
    refused(&gate, "silent", 504, &[&format!("TLS with {silent} took longer than its limit (connect)")]);
    assert!(started.elapsed() < std::time::Duration::from_secs(3), "once, and no longer than its limit");
    refused(&gate, "closes", 502, &[&format!("the TLS handshake with {closes} broke off (")]);
    refused(&gate, "plain", 502, &["not HTTP"]);
}

#[test]
fn a_body_that_is_cut_off_inside_tls_is_never_whole_and_never_kept() {
    let (authority, up) = (Authority::new("the company"), Upstream::start());
    let server = authority.server(&["127.0.0.1"]);
    for (n, version) in [&TLS12, &TLS13].into_iter().enumerate() {
        let front = Front::demanding(&server, &up.address, Demands { versions: &[version], ..NONE });
        let text =
            format!("[egress.tls]\nca_file = \"ca.pem\"\n{}{}", upstream("u", &front.url(), NO_BREAKER), route("*", &["u"], ""));
        let gate = Gate::start_in(folder(&[("ca.pem", &authority.pem())]), &text);
        // The first two end by a proper close_notify, the last by nothing at all.
        let faults: [fn(Vec<u8>, usize) -> Reply; 3] = [Reply::Truncate, Reply::TruncateChunked, Reply::Reset];
        for (m, fault) in faults.into_iter().enumerate() {
            let module = Module::new("example.com/large", &format!("v1.{n}.{m}")).bulk(3 << 20);
            let (zip, go_mod) = (module.zip(), module.go_mod.clone().into_bytes());
            up.set(&module.url("mod"), fault(go_mod.clone(), 9));
            let answer = gate.get(&module.url("mod"));
            assert_eq!(answer.status, 502, "{}", answer.text());
            assert!(answer.text().contains("the body was cut off after 9 bytes"), "{}", answer.text());
            up.set(&module.url("zip"), fault(zip.clone(), 2 << 20));
            let answer = gate.get(&module.url("zip"));
            assert!(!answer.whole && answer.body.len() < zip.len() && zip.starts_with(&answer.body), "fault {m}");
            for part in ["mod", "zip"] {
                assert!(!gate.cache("u").join(&module.url(part)[1..]).exists());
            }
            up.set(&module.url("zip"), Reply::Good(zip.clone()));
            up.set(&module.url("mod"), Reply::Good(go_mod.clone()));
            eventually("the zip is whole", || gate.get(&module.url("zip")).body == zip);
            assert_eq!(gate.get(&module.url("mod")).body, go_mod);
        }
        let module = Module::new("example.com/large", &format!("v1.{n}.9"));
        up.set(&module.url("mod"), Reply::NoLength(module.go_mod.clone().into_bytes()));
        let answer = gate.get(&module.url("mod"));
        assert!(answer.status == 502 && answer.text().contains("its end cannot be told"), "{}", answer.text());
    }
}

#[test]
fn a_proxy_may_speak_tls_itself_and_has_to_prove_who_it_is() {
    let (authority, staff) = (Authority::new("the company"), Authority::new("the staff"));
    let client = staff.client(Validity::Now);
    let up = plain(&["good", "stranger", "lenient", "both", "closed"]);
    let server = Front::demanding(&authority.server(&["127.0.0.1"]), &up.address, Demands { clients: Some(&staff), ..NONE });
    let unknown = Front::new(&Authority::new("a stranger").server(&["127.0.0.1"]), &up.address);
    let (tunnel, to_unknown) = (leading_to(&server.address), leading_to(&unknown.address));
    let proxy = Front::new(&authority.server(&["127.0.0.1"]), &tunnel.address);
    // It asks for a client certificate, which is the upstream's and not the proxy's to see.
    let asking = Front::demanding(
        &authority.server(&["127.0.0.1"]),
        &to_unknown.address,
        Demands { clients: Some(&staff), versions: &[&TLS12] },
    );
    let lenient = Front::new(&authority.server(&["127.0.0.1"]), &to_unknown.address);
    let strange = Front::new(&Authority::new("a stranger").server(&["127.0.0.1"]), &tunnel.address);
    let keys = "tls = { cert_file = \"client.pem\", key_file = \"client.key\" }";
    let through = |front: &Front, more: &str| format!("{RETRIES}proxy = {:?}\n{more}", front.url());
    let insecure = "tls = { insecure_skip_verify = true, min_version = \"1.3\" }";
    let texts = [
        through(&proxy, keys),
        through(&strange, keys),
        through(&lenient, insecure),
        through(&strange, insecure),
        through(&asking, &keys.replace(" }", ", insecure_skip_verify = true }")),
    ];
    let upstreams = [
        ("good", server.url(), texts[0].as_str()),
        ("stranger", server.url(), &texts[1]),
        ("lenient", unknown.url(), &texts[2]),
        ("both", server.url(), &texts[3]),
        ("closed", unknown.url(), &texts[4]),
    ];
    let files = [("ca.pem", authority.pem()), ("client.pem", client.pem), ("client.key", client.key_pem)];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let gate = gate_of(folder(&files), "[egress.tls]\nca_file = \"ca.pem\"\n", &upstreams);
    works(&gate, "good");
    assert_eq!((tunnel.targets(), proxy.visits().len()), (vec![server.address.clone()], 1), "one way for all requests");
    assert!(server.visits()[0].certificate && !proxy.visits()[0].certificate);
    let said = format!("the proxy https://{0} cannot be used: TLS with {0} failed: its certificate comes from", strange.address);
    refused(&gate, "stranger", 502, &[&said]);
    works(&gate, "lenient");
    refused(&gate, "both", 502, &[&said]);
    assert_eq!((strange.visits().len(), tunnel.targets().len()), (2, 1), "not tried again, and not asked to lead on");
    let said = format!("the proxy https://{0} cannot be used: TLS with {0} failed: ", asking.address);
    refused(&gate, "closed", 502, &[&said, "it asks for a client certificate"]);
}

/// Upstreams, what their tables `tls` say, and what is wrong with that.
const MISTAKES: [(&str, &str, &str); 13] = [
    ("a", "ca_file = \"text.pem\"", "ca_file: holds no PEM certificate"),
    ("b", "ca_file = \"missing.pem\"", "ca_file: DIR/missing.pem cannot be read: "),
    ("c", "ca_file = \"garbage.pem\"", "ca_file: holds a certificate that cannot be used ("),
    ("d", "ca_file = \"torn.pem\"", "ca_file: "),
    ("e", "cert_file = \"one.pem\"\nkey_file = \"two.key\"", "cert_file: "),
    ("f", "cert_file = \"one.pem\"", "cert_file: cert_file and key_file belong together"),
    ("g", "key_file = \"one.key\"", "key_file: cert_file and key_file belong together"),
    ("h", "cert_file = \"one.key\"\nkey_file = \"one.key\"", "cert_file: holds no PEM certificate"),
    ("i", "cert_file = \"one.pem\"\nkey_file = \"one.pem\"", "cert_file: the key file holds no PEM private key"),
    ("j", "min_version = \"1.1\"", "min_version: has to be one of: 1.2, 1.3"),
    ("k", "insecure_skip_verify = \"perhaps\"", "insecure_skip_verify: has to be true or false"),
    ("l", "ca_files = \"one.pem\"", "ca_files: unknown key (known here: ca_file, cert_file, key_file, min_version"),
    ("m", "ca_file = \".\"", "ca_file: DIR/. cannot be read: "),
];

#[test]
fn mistakes_about_tls_are_all_named_at_once() {
    let authority = Authority::new("the company");
    let (one, two) = (authority.client(Validity::Now), authority.client(Validity::Now));
    let garbage = "-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n";
    let torn = &one.pem[..one.pem.len() / 2];
    let files = [
        ("one.pem", one.pem.as_str()),
        ("one.key", &one.key_pem),
        ("two.key", &two.key_pem),
        ("text.pem", "hello\n"),
        ("garbage.pem", garbage),
        ("torn.pem", torn),
    ];
    let dir = folder(&files);
    let table = |(name, keys, _): &(&str, &str, &str)| {
        format!("{}[upstreams.{name}.tls]\n{keys}\n", upstream(name, "https://a.example", ""))
    };
    let names: Vec<&str> = MISTAKES.iter().map(|(name, ..)| *name).collect();
    let text = format!(
        "[egress.tls]\nca_file = \"absent.pem\"\ncert_file = \"one.pem\"\n{}{}",
        MISTAKES.iter().map(table).collect::<String>(),
        route("*", &names, "")
    );
    let file = dir.path().join("modgate.toml");
    let text = config_text(dir.path(), "127.0.0.1:0", "127.0.0.1:0", &text);
    fs::write(&file, &text).unwrap();
    let output = program().arg("check").arg("--config").arg(&file).env("HOME", dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).replace(&dir.path().display().to_string(), "DIR");
    assert!(!output.status.success(), "{said}");
    let line_of = |table: &str, key: &str| {
        let from = text.lines().position(|line| line == table).unwrap();
        text.lines().skip(from).position(|line| line.starts_with(key)).unwrap() + from + 1
    };
    for (name, _, problem) in &MISTAKES {
        let key = problem.split(':').next().unwrap();
        let line = line_of(&format!("[upstreams.{name}.tls]"), key);
        let wanted = format!("DIR/modgate.toml:{line}: upstreams.{name}.tls.{problem}");
        assert!(said.contains(&wanted), "missing {wanted:?} in:\n{said}");
    }
    for (key, problem) in [("ca_file", "DIR/absent.pem cannot be read: "), ("cert_file", "cert_file and key_file belong together")]
    {
        let wanted = format!("DIR/modgate.toml:{}: egress.tls.{key}: {problem}", line_of("[egress.tls]", key));
        assert!(said.contains(&wanted), "missing {wanted:?} in:\n{said}");
    }
    assert!(!said.contains("PRIVATE KEY-----"), "{said}");
}

//! Repositories by http and https: logins, certificates and proxies, and that nothing secret comes to light by them.

use std::fs;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::servers::{repository, upstream};
use crate::daemons::{USER as PROXY_USER, squid, squid_with_password};
use crate::helpers::files_below;
use crate::support::gate::Gate;
use crate::support::git::{Fault, GitServer};
use crate::support::http::Answer;
use crate::support::tls::{Authority, Demands, Front, Validity};

const LOOPBACK: &str = "127.0.0.1";
const PASSWORD: &str = "Open:Sesame @ 7%2F";
/// Without a percent sign before digits, which curl before version 8.8 decodes once more than git means it to.
const PROXY_PASSWORD: &str = "Pa:ss w%rd@7f3a/?#";
const ZIP: &str = "/git.example/m/@v/v1.0.0.zip";

/// A server of one repository, and a folder with what a configuration names.
struct Setting {
    server: GitServer,
    authority: Authority,
    _root: TempDir,
}

impl Setting {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        repository(&root.path().join("m"));
        Self { server: GitServer::start(root.path()), authority: Authority::new("one"), _root: root }
    }

    /// TLS before it.
    fn front(&self) -> Front {
        Front::new(&self.authority.server(&[LOOPBACK]), &self.server.address)
    }

    /// A modgate that knows the repository at this URL, with everything that its lines may name beside it.
    fn gate(&self, url: &str, more: &str) -> Gate {
        let dir = TempDir::new().unwrap();
        let client = self.authority.client(Validity::Now);
        let host = url.rsplit('/').next().unwrap();
        for (name, text) in [
            ("password", PASSWORD),
            ("wrong", "not the password"),
            ("proxy_password", PROXY_PASSWORD),
            ("netrc", &format!("machine {host} login ci password {}\n", PASSWORD.replace(' ', "_"))),
            ("ca.pem", &self.authority.pem()),
            ("other.pem", &Authority::new("two").pem()),
            ("client.pem", &client.pem),
            ("client.key", &client.key_pem),
        ] {
            fs::write(dir.path().join(name), format!("{text}\n")).unwrap();
        }
        Gate::start_in(dir, &upstream(&format!("{url}/{{name}}.git"), more))
    }
}

/// Credentials for a server.
fn login(address: &str, words: &str) -> String {
    format!("credentials = {{ {address:?} = {{ {words} }} }}\n")
}

/// No secret is in a text, in any form that it could have taken.
fn keeps_silent(text: &str, secrets: &[&str]) {
    use base64::Engine;
    for secret in secrets {
        let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let percent = encoded.replace('+', "%20");
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("ci:{secret}"));
        for form in [*secret, &encoded, &percent, &basic] {
            assert!(!text.contains(form), "{form:?} is shown in:\n{text}");
        }
    }
}

/// Asks, and sees that no answer, no log and no command shows a secret.
fn ask(gate: &Gate) -> Answer {
    let answer = gate.get(ZIP);
    let secrets = [PASSWORD, "not the password", PROXY_PASSWORD];
    keeps_silent(&answer.text(), &secrets);
    for command in [&["check"][..], &["explain", "git.example/m@v1.0.0"], &["explain", "--json", "git.example/m@main"]] {
        let output = gate.command(command);
        keeps_silent(&(String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr)), &secrets);
    }
    keeps_silent(&gate.log(), &secrets);
    answer
}

fn refused(gate: &Gate, words: &[&str]) {
    let answer = ask(gate);
    let said = answer.text();
    assert!(answer.status == 502 && words.iter().all(|word| said.contains(word)), "{}, not 502 {words:?}: {said}", answer.status);
}

#[test]
fn logins_are_given_in_each_way_that_the_configuration_has() {
    let setting = Setting::new();
    let address = &setting.server.address;
    let url = setting.server.url();
    setting.server.require("ci", PASSWORD);
    let by_password = |file: &str| login(address, &format!("username = \"ci\", password_file = \"{{dir}}/{file}\""));
    assert_eq!(ask(&setting.gate(&url, &by_password("password"))).status, 200);
    refused(&setting.gate(&url, &by_password("wrong")), &["denied: ", address]);
    refused(&setting.gate(&url, ""), &["denied: ", address]);
    refused(&setting.gate(&url, &login("git.other.test", "username = \"ci\", password_file = \"{dir}/password\"")), &["denied: "]);
    let by_token = login(address, "token_file = \"{dir}/password\"");
    refused(&setting.gate(&url, &by_token), &["denied: "]);
    setting.server.require("oauth2", PASSWORD);
    assert_eq!(ask(&setting.gate(&url, &by_token)).status, 200);
    let named = login(LOOPBACK, "username = \"bot\", token_file = \"{dir}/password\"");
    setting.server.require("bot", PASSWORD);
    assert_eq!(ask(&setting.gate(&url, &named)).status, 200);
}

#[test]
fn a_netrc_counts_for_https_alone() {
    let setting = Setting::new();
    let front = setting.front();
    setting.server.require("ci", &PASSWORD.replace(' ', "_"));
    let netrc = "netrc_file = \"{dir}/netrc\"\ntls = { ca_file = \"{dir}/ca.pem\" }\n";
    // The go command, too, looks for the host as the URL has it, with its port.
    assert_eq!(ask(&setting.gate(&front.url(), netrc)).status, 200);
    refused(&setting.gate(&setting.server.url(), netrc), &["denied: "]);
}

#[test]
fn certificates_are_looked_at_and_shown() {
    let setting = Setting::new();
    let trusting = |file: &str| format!("tls = {{ ca_file = \"{{dir}}/{file}\" }}\n");
    let front = setting.front();
    let gate = setting.gate(&front.url(), &trusting("ca.pem"));
    assert_eq!(ask(&gate).status, 200);
    for wrong in ["", &trusting("other.pem")] {
        let gate = setting.gate(&front.url(), wrong);
        refused(&gate, &["certificate", &front.address]);
        let folder = gate.dir.path().display().to_string();
        assert!(!gate.get(ZIP).text().contains(&folder), "{}", gate.get(ZIP).text());
    }
    assert_eq!(ask(&setting.gate(&front.url(), "tls = { insecure_skip_verify = true }\n")).status, 200);
    let elsewhere = Front::new(&setting.authority.server(&["git.other.test"]), &setting.server.address);
    refused(&setting.gate(&elsewhere.url(), &trusting("ca.pem")), &["certificate"]);

    let demands = Demands { clients: Some(&setting.authority), ..crate::support::tls::NONE };
    let demanding = Front::demanding(&setting.authority.server(&[LOOPBACK]), &setting.server.address, demands);
    let shown = "tls = { ca_file = \"{dir}/ca.pem\", cert_file = \"{dir}/client.pem\", key_file = \"{dir}/client.key\" }\n";
    assert_eq!(ask(&setting.gate(&demanding.url(), shown)).status, 200);
    assert!(demanding.visits().iter().any(|visit| visit.certificate));
    refused(&setting.gate(&demanding.url(), &trusting("ca.pem")), &[&demanding.address]);
}

#[test]
fn http_and_https_go_through_a_proxy() {
    let setting = Setting::new();
    let front = setting.front();
    let (open, known) = (squid(LOOPBACK, "http_access allow all"), squid_with_password(LOOPBACK, PROXY_PASSWORD));
    let by = |proxy: &str, more: &str| format!("proxy = {proxy:?}\ntls = {{ ca_file = \"{{dir}}/ca.pem\" }}\n{more}");
    let proxy_login = |file: &str| format!("proxy_auth = {{ username = {PROXY_USER:?}, password_file = \"{{dir}}/{file}\" }}\n");
    let plain = setting.server.url();
    assert_eq!(ask(&setting.gate(&plain, &by(&open.url("http"), ""))).status, 200);
    open.logs(&format!("- GET {plain}/m.git/info/refs?"));
    assert_eq!(ask(&setting.gate(&front.url(), &by(&open.url("http"), ""))).status, 200);
    open.logs(&format!("- CONNECT {} 200", front.address));
    assert_eq!(ask(&setting.gate(&front.url(), &by(&known.url("http"), &proxy_login("proxy_password")))).status, 200);
    known.logs(&format!("{PROXY_USER} CONNECT {} 200", front.address));
    refused(&setting.gate(&front.url(), &by(&known.url("http"), &proxy_login("wrong"))), &["407"]);
    refused(&setting.gate(&plain, &by(&known.url("http"), "")), &["407"]);
    let secure = Front::new(&setting.authority.server(&[LOOPBACK]), &open.address);
    assert_eq!(ask(&setting.gate(&front.url(), &by(&secure.url(), ""))).status, 200);
    assert!(!secure.visits().is_empty(), "the proxy is spoken to by TLS");
    let before = open.log();
    let spared = setting.gate(&plain, &by(&open.url("http"), "no_proxy = [\"127.0.0.1\"]\n"));
    assert_eq!(ask(&spared).status, 200);
    assert_eq!(open.log(), before, "spared servers are reached without it");
}

/// The arguments of every process, one a line.
fn arguments() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    processes.map(|words| String::from_utf8_lossy(&words).replace('\0', " ")).collect()
}

#[test]
fn no_process_has_a_secret_among_its_arguments() {
    let setting = Setting::new();
    let known = squid_with_password(LOOPBACK, PROXY_PASSWORD);
    setting.server.fail("m", Fault::Hang);
    let address = &setting.server.address;
    let more = login(address, "username = \"ci\", password_file = \"{dir}/password\"")
        + &format!(
            "proxy = {:?}\nproxy_auth = {{ username = {PROXY_USER:?}, password_file = \"{{dir}}/proxy_password\" }}\n",
            known.url("http")
        )
        + "connect = \"1s\"\nfirst_byte = \"2s\"\nidle = \"1s\"\n";
    let gate = setting.gate(&setting.server.url(), &more);
    thread::scope(|scope| {
        let asking = scope.spawn(|| gate.get(ZIP));
        let mut seen = 0;
        while !asking.is_finished() {
            let all = arguments();
            seen += all.iter().filter(|words| words.contains(address) && words.contains("git")).count();
            keeps_silent(&all.join("\n"), &[PASSWORD, PROXY_PASSWORD]);
            thread::sleep(Duration::from_millis(20));
        }
        assert!(seen > 10, "git is seen at work: {seen}");
        assert_eq!(asking.join().unwrap().status, 504);
    });
    // What is written down for git to read says nothing either.
    let mirrors = gate.cache(".vcs");
    for file in files_below(&mirrors) {
        keeps_silent(&String::from_utf8_lossy(&fs::read(mirrors.join(file)).unwrap()), &[PASSWORD, PROXY_PASSWORD]);
    }
}

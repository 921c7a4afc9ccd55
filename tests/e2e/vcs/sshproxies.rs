//! git over ssh through proxies that know nothing of ssh: squid, tinyproxy and dante. The proxy's own log is the proof.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::servers::{Sshd, behind_ssh, upstream};
use crate::daemons::{Daemon, PASSWORD, USER, dante, squid, squid_with_login, tinyproxy};
use crate::helpers::program;
use crate::support::free_port;
use crate::support::gate::{Gate, program as modgate};
use crate::support::http::Answer;
use crate::support::proxy::{FakeProxy, Manner};
use crate::support::tls::{Authority, Front};

const LOOPBACK: &str = "127.0.0.1";

struct Setting {
    root: TempDir,
    sshd: Sshd,
}

impl Setting {
    fn new() -> Self {
        let (root, sshd) = behind_ssh();
        Self { root, sshd }
    }

    /// What comes of a version through a proxy. No password is ever shown.
    fn ask(&self, proxy: &str, login: &str) -> Answer {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("password"), PASSWORD).unwrap();
        fs::write(dir.path().join("wrong"), "not the password").unwrap();
        let more = format!("{}\nproxy = {proxy:?}\n{login}", self.sshd.credentials("key", "known"));
        let gate = Gate::start_in(dir, &upstream(&self.sshd.repo(self.root.path()), &more));
        let answer = gate.get("/git.example/m/@v/v1.0.0.zip");
        let (said, log) = (answer.text(), gate.log());
        for secret in [PASSWORD, "not the password", "Pa%3Ass"] {
            assert!(!said.contains(secret) && !log.contains(secret), "a password is shown: {said}\n{log}");
        }
        answer
    }

    fn passes(&self, proxy: &Daemon, scheme: &str, login: &str, logged: &str) {
        let before = self.sshd.sessions();
        let answer = self.ask(&proxy.url(scheme), login);
        assert_eq!(answer.status, 200, "{}\n{}", answer.text(), proxy.log());
        assert!(self.sshd.sessions() > before, "{}", self.sshd.daemon.log());
        proxy.logs(logged);
    }

    fn is_refused(&self, proxy: &str, login: &str, words: &[&str]) {
        let before = self.sshd.sessions();
        let answer = self.ask(proxy, login);
        let said = answer.text();
        let server = proxy.rsplit('@').next().unwrap().rsplit("//").next().unwrap();
        let all = words.iter().chain([&server]).all(|word| said.contains(word));
        assert!(answer.status == 502 && all, "{proxy}: not 502 with {words:?}: {} {said}", answer.status);
        assert_eq!(self.sshd.sessions(), before, "nobody comes around the proxy");
    }
}

fn login(file: &str) -> String {
    format!("proxy_auth = {{ username = {USER:?}, password_file = \"{{dir}}/{file}\" }}\n")
}

#[test]
fn ssh_passes_http_proxies() {
    let setting = Setting::new();
    let to = &setting.sshd.daemon.address;
    let port = to.rsplit(':').next().unwrap();
    let plain = squid(LOOPBACK, "http_access allow all");
    setting.passes(&plain, "http", "", &format!("- CONNECT {to} 200"));
    let known = squid_with_login(LOOPBACK);
    setting.passes(&known, "http", &login("password"), &format!("{USER} CONNECT {to} 200"));
    setting.is_refused(&known.url("http"), "", &["407", "it wants a user and password: proxy_auth"]);
    setting.is_refused(&known.url("http"), &login("wrong"), &["407", "it does not accept the user and password"]);
    let small = tinyproxy(&format!("Allow 127.0.0.1\nConnectPort {port}"));
    setting.passes(&small, "http", "", &format!("CONNECT {to}"));
    let strict = tinyproxy("Allow 127.0.0.1\nConnectPort 443");
    setting.is_refused(&strict.url("http"), "", &["does not lead to", to, "403"]);
    setting.is_refused(&format!("http://127.0.0.1:{}", free_port()), "", &["cannot be used", "refused"]);
}

#[test]
fn a_proxy_that_is_spoken_to_by_tls_has_to_be_trusted() {
    let setting = Setting::new();
    let squid = squid(LOOPBACK, "http_access allow all");
    let authority = Authority::new("the proxy");
    let front = Front::new(&authority.server(&[LOOPBACK]), &squid.address);
    let file = setting.root.path().join("ca.pem");
    fs::write(&file, authority.pem()).unwrap();
    let trusted = setting.ask(&front.url(), &format!("tls = {{ ca_file = \"{}\" }}\n", file.display()));
    assert_eq!(trusted.status, 200, "{}", trusted.text());
    squid.logs(&format!("- CONNECT {} 200", setting.sshd.daemon.address));
    setting.is_refused(&front.url(), "", &["certificate"]);
}

#[test]
fn ssh_passes_socks_proxies() {
    let setting = Setting::new();
    let to = &setting.sshd.daemon.address;
    // In its log, addresses have a dot before the port.
    let logged = to.replace(':', ".");
    let plain = dante(LOOPBACK, LOOPBACK, false);
    setting.passes(&plain, "socks5h", "", &logged);
    setting.passes(&plain, "socks5", "", &logged);
    let known = dante(LOOPBACK, LOOPBACK, true);
    setting.passes(&known, "socks5h", &login("password"), &logged);
    setting.is_refused(&known.url("socks5h"), &login("wrong"), &["it does not accept the user and password"]);
    setting.is_refused(&known.url("socks5h"), "", &["it wants another way to log in"]);
}

/// `modgate connect`, as it is given to ssh by hand.
fn by_hand(sshd: &Sshd, root: &Path, proxy: &str) -> Output {
    let mut ssh = Command::new(program("ssh"));
    let own = modgate();
    let command = format!("ProxyCommand={} connect %h %p --proxy {proxy}", own.get_program().display());
    let port = sshd.daemon.address.rsplit(':').next().unwrap();
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", &command, "-p", port]);
    ssh.args(["-o", &format!("UserKnownHostsFile={}", sshd.file("known").display())]).arg("-i").arg(sshd.file("key"));
    let repo = sshd.repo(root);
    let user = repo.trim_start_matches("ssh://").split('@').next().unwrap();
    ssh.args(["-l", user, LOOPBACK, "echo", "came", "through"]).env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn whoever_uses_ssh_by_hand_can_connect_by_modgate() {
    let Setting { root, sshd } = Setting::new();
    let squid = squid(LOOPBACK, "http_access allow all");
    let output = by_hand(&sshd, root.path(), &squid.url("http"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout == b"came through\n", "{said}");
    squid.logs(&format!("- CONNECT {} 200", sshd.daemon.address));
    let refusing = FakeProxy::start(Manner::Says("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".into()));
    let output = by_hand(&sshd, root.path(), &format!("http://user:sesame@{}", refusing.address));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(&refusing.address) && said.contains("403"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
}

#[test]
fn what_a_server_says_first_may_come_with_the_answer_of_the_proxy() {
    let hasty = FakeProxy::start(Manner::Says("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nSSH-2.0-hasty\r\n".into()));
    let proxy = format!("http://{}", hasty.address);
    let output = modgate().args(["connect", "git.test", "22", "--proxy", &proxy]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout == b"SSH-2.0-hasty\r\n", "{said}");
}

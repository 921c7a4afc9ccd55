//! Clients that say who they are by certificates, which openssl made.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::curl::Client;
use super::openssl::{Authority, CLIENT, SERVER, openssl};
use super::{Site, htpasswd};
use crate::support::gate::{route, upstream};
use crate::support::modules::Module;
use crate::support::{eventually, upstream::Upstream};

const PRIVATE: &str = "/corp.example/lib/@v/v1.0.0.zip";
const SHARED: &str = "/example.com/shared/@v/v1.0.0.zip";
/// The versions of HTTP and TLS by which each client asks.
const WAYS: [&[&str]; 4] = [&["--http1.1", "--tls-max", "1.2"], &["--http1.1"], &["--http2", "--tls-max", "1.2"], &["--http2"]];

fn lib(team: &str) -> Module {
    Module::new("corp.example/lib", "v1.0.0").file("whose.txt", team)
}

/// A modgate with two teams, whose members show certificates.
struct Company {
    site: Site,
    private: Vec<Upstream>,
}

/// The configuration, with this file of authorities for clients.
fn text(ca: &str, private: &[Upstream], public: &str) -> String {
    let server = format!(
        "# [server] tls = {{ cert_file = \"server.pem\", key_file = \"server.key\", client_ca_file = {ca:?} }}\n\
         [auth]\nanonymous = false\nusers_file = \"users\"\n"
    );
    let teams: String = ["payments", "maps"]
        .iter()
        .zip(private)
        .map(|(team, own)| {
            let routes = route("corp.example", &[team], "").replace("[[routes]]", &format!("[[teams.{team}.routes]]"));
            upstream(team, &own.url(), "private = true")
                + &format!("[teams.{team}]\nprefix = {team:?}\ncertificates = [\"OU={team}\"]\n{routes}")
        })
        .collect();
    server + &upstream("public", public, "") + &route("*", &["public"], "") + &teams
}

impl Company {
    fn start() -> Self {
        let private: Vec<Upstream> = ["payments", "maps"].iter().map(|team| Upstream::serving(&[lib(team)])).collect();
        let public = Upstream::serving(&[Module::new("example.com/shared", "v1.0.0")]);
        let (staff, others) = (Authority::new("the staff"), Authority::new("the others"));
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("staff.ca"), staff.pem()).unwrap();
        fs::write(dir.path().join("others.ca"), others.pem()).unwrap();
        fs::write(dir.path().join("users"), htpasswd("ann", "sesame")).unwrap();
        for (name, unit) in [("payments", "payments"), ("maps", "maps"), ("unknown", "legal")] {
            staff.client(&format!("CN=ann/OU={unit}")).lay(dir.path(), name);
        }
        others.client("CN=eve/OU=payments").lay(dir.path(), "stranger");
        let past = ["-startdate", "20010101000000Z", "-enddate", "20020304000000Z"];
        staff.certify("CN=ann/OU=payments", CLIENT, &past).lay(dir.path(), "expired");
        let future = ["-startdate", "20950101000000Z", "-enddate", "20960304000000Z"];
        staff.certify("CN=ann/OU=payments", CLIENT, &future).lay(dir.path(), "early");
        staff.certify("CN=ann/OU=payments", SERVER, &["-days", "7"]).lay(dir.path(), "server-only");
        let site = Site::start_in(dir, &text("staff.ca", &private, &public.url()));
        Self { site, private }
    }

    fn showing(&self, name: &str) -> Client {
        self.site.curl().showing(self.site.gate.dir.path(), name)
    }
}

#[test]
fn certificates_say_of_which_team_their_holders_are() {
    let company = Company::start();
    let url = |path: &str| company.site.url(path);
    for way in WAYS {
        for team in ["payments", "maps"] {
            let client = company.showing(team).with(way);
            for path in [PRIVATE.to_owned(), format!("/{team}{PRIVATE}")] {
                let answer = client.get(&url(&path));
                assert_eq!(answer.whole(), Some(200), "{way:?}, {team}: {path}: {}", answer.text());
                assert!(answer.body == lib(team).zip(), "{way:?}, {team}: {path} is another team's");
            }
            assert_eq!(client.status(&url(SHARED)), Some(200), "{way:?}, {team}");
            let other = if team == "maps" { "payments" } else { "maps" };
            assert_eq!(client.status(&url(&format!("/{other}{PRIVATE}"))), Some(403), "{way:?}, {team} at {other}");
        }
        // Who is known and of no team has what is everybody's.
        let client = company.showing("unknown").with(way);
        let statuses = [SHARED.to_owned(), PRIVATE.to_owned(), format!("/maps{PRIVATE}")].map(|path| client.status(&url(&path)));
        assert_eq!(statuses, [Some(200), Some(403), Some(403)], "{way:?}: of no team");

        let none = company.site.curl().with(way);
        for path in [SHARED.to_owned(), PRIVATE.to_owned(), format!("/maps{PRIVATE}")] {
            let answer = none.get(&url(&path));
            assert_eq!(answer.whole(), Some(401), "{way:?}: no certificate: {path}");
            assert!(answer.header("www-authenticate").starts_with("Basic "), "{way:?}");
        }
        // A password says who somebody is where there is a certificate too.
        let by_password = company.showing("maps").with(way).with(&["-u", "ann:sesame"]);
        assert_eq!(by_password.status(&url(&format!("/maps{PRIVATE}"))), Some(403), "{way:?}: a user of no team");
        assert_eq!(by_password.status(&url(SHARED)), Some(200), "{way:?}");
    }
}

#[test]
fn certificates_that_are_no_good_get_nothing() {
    let company = Company::start();
    for way in WAYS {
        for name in ["stranger", "expired", "early", "server-only"] {
            let client = company.showing(name).with(way);
            for path in [PRIVATE.to_owned(), SHARED.to_owned(), format!("/payments{PRIVATE}")] {
                let answer = client.get(&company.site.url(&path));
                let refused = answer.code != 0 && answer.body.is_empty() || answer.whole() == Some(401);
                assert!(refused, "{way:?}, {name}: {path}: {} {}", answer.code, answer.status);
            }
        }
    }
    assert!(company.private.iter().all(|upstream| upstream.asked().is_empty()));
    // The same requests by one that is good.
    assert_eq!(company.showing("payments").status(&company.site.url(PRIVATE)), Some(200));
}

/// A connection of `openssl s_client`, on which one request follows another.
struct Kept {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Kept {
    fn open(company: &Company, name: &str, more: &[&str]) -> Self {
        let dir = company.site.gate.dir.path();
        let mut command = openssl(&["s_client", "-quiet", "-connect", &company.site.gate.address, "-servername", "localhost"]);
        command.arg("-cert").arg(dir.join(format!("{name}.pem"))).arg("-key").arg(dir.join(format!("{name}.key")));
        command.arg("-CAfile").arg(company.site.authority.file()).args(more);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, lines) = channel();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while let Ok(1..) = output.by_ref().take(1 << 20).read_until(b'\n', &mut line) {
                // Whoever listened may have gone.
                let _ = send.send(String::from_utf8_lossy(&line).into_owned());
                line.clear();
            }
        });
        Self { child, input, lines }
    }

    /// The status of the answer to a question that has a short one; none where the connection has ended.
    fn ask(&mut self, path: &str) -> Option<u16> {
        write!(self.input, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("no answer to {path}"),
            };
            // A body without an end of line stands on one line with the head that follows it.
            if let Some((_, rest)) = line.split_once("HTTP/1.1 ") {
                return rest[..3].parse().ok();
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_kept_connection_is_held_against_the_authorities_of_this_moment() {
    let company = Company::start();
    let public = Upstream::serving(&[Module::new("example.com/shared", "v1.0.0")]);
    let (gate, url) = (&company.site.gate, company.site.url(&format!("/payments{PRIVATE}")));
    let info = "/payments/corp.example/lib/@v/v1.0.0.info";
    let reload = |ca: &str, good: &str| {
        gate.rewrite(&text(ca, &company.private, &public.url()));
        gate.signal(Signal::HUP);
        eventually("the new authorities are in force", || company.showing(good).status(&url) == Some(200));
    };
    let mut kept = Kept::open(&company, "payments", &[]);
    assert_eq!(kept.ask(info), Some(200));
    // Over HTTP/2: three requests of one curl, with time between them.
    let seen = TempDir::new().unwrap();
    let files = [1, 2, 3].map(|n| seen.path().join(format!("{n}")));
    let mut slow = company.showing("payments").with(&["--http2", "--rate", "10/m"]).command();
    for file in &files {
        slow.arg("-o").arg(file).arg(company.site.url(info));
    }
    let slow = slow.args(["-w", "%{http_code}:%{num_connects}:%{http_version} "]).stdout(Stdio::piped()).spawn().unwrap();
    eventually("the first of three has come", || fs::metadata(&files[0]).is_ok_and(|m| m.len() > 0));

    reload("others.ca", "stranger");
    assert!(!files[1].exists(), "the second of three came before the reload; this machine is too slow");
    assert_eq!(kept.ask(info), Some(401), "its authority is not believed any more");
    let answer = company.showing("payments").get(&url);
    assert!(answer.code != 0 || answer.status == 401, "{} {}", answer.code, answer.status);
    eventually("the second of three has come", || fs::metadata(&files[1]).is_ok_and(|m| m.len() > 0));

    reload("staff.ca", "payments");
    assert_eq!(kept.ask(info), Some(200), "it is believed again");
    let said = String::from_utf8(slow.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(said, "200:1:2 401:0:2 200:0:2 ", "one connection");
}

#[test]
fn a_resumed_session_gives_nobody_what_a_whole_handshake_does_not() {
    let company = Company::start();
    let dir = company.site.gate.dir.path();
    let session = dir.join("session").display().to_string();
    let info = "/payments/corp.example/lib/@v/v1.0.0.info";
    for version in ["-tls1_2", "-tls1_3"] {
        let mut first = Kept::open(&company, "payments", &[version, "-sess_out", &session]);
        assert_eq!(first.ask(info), Some(200), "{version}");
        eventually("a session is kept", || fs::metadata(&session).is_ok_and(|m| m.len() > 0));
        drop(first);
        assert_eq!(Kept::open(&company, "payments", &[version, "-sess_in", &session]).ask(info), Some(200), "{version}: resumed");
        let public = Upstream::start();
        for (ca, wanted) in [("others.ca", false), ("staff.ca", true)] {
            company.site.gate.rewrite(&text(ca, &company.private, &public.url()));
            company.site.gate.signal(Signal::HUP);
            let (good, bad) = if wanted { ("payments", "stranger") } else { ("stranger", "payments") };
            let url = company.site.url(&format!("/payments{PRIVATE}"));
            eventually("the new authorities are in force", || {
                company.showing(good).status(&url) == Some(200) && company.showing(bad).status(&url) != Some(200)
            });
            if !wanted {
                // Refused in the handshake there is no answer at all.
                let asked = Kept::open(&company, "payments", &[version, "-sess_in", &session]).ask(info);
                assert!(matches!(asked, None | Some(401)), "{version}: an old session is still good: {asked:?}");
            }
        }
    }
}

//! Three teams and three go commands, each of which says in another way who it is: a user and password in GOPROXY, a netrc, and
//! the token that a command of GOAUTH's gives. Each has its own modules and the shared ones, and nothing of the others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::thread;

use tempfile::TempDir;

use super::{Site, TLS, htpasswd};
use crate::helpers::{go_fails, go_ok};
use crate::support::gate::{route, upstream};
use crate::support::go::Go;
use crate::support::modules::Module;
use crate::support::people;
use crate::support::upstream::Upstream;

const TEAMS: [&str; 3] = ["payments", "maps", "tools"];
/// It holds what a URL and a header could get wrong.
const PASSWORD: &str = "pa:ss/w@rd %41é";
const PASSWORD_IN_A_URL: &str = "pa%3Ass%2Fw%40rd%20%2541%C3%A9";
/// A netrc has no way to write a space.
const PASSWORD_OF_BOB: &str = "b0b:%41/é#";

/// The module that every team has, each another one.
fn lib(team: &str) -> Module {
    Module::new("corp.example/lib", "v1.0.0").file("whose.txt", team)
}

/// A module of this team alone.
fn own(team: &str) -> Module {
    Module::new(&format!("corp.example/{team}"), "v1.0.0").requires("example.com/shared", "v1.0.0")
}

fn named(module: &Module) -> String {
    format!("{}@{}", module.path, module.version)
}

/// A modgate of three teams, each with a private upstream, and what they share.
struct Company {
    site: Site,
    private: Vec<Upstream>,
    public: Upstream,
    /// The token of whoever is of `tools`.
    token: String,
}

impl Company {
    fn start() -> Self {
        let private: Vec<Upstream> = TEAMS.iter().map(|team| Upstream::serving(&[lib(team), own(team)])).collect();
        let public = Upstream::serving(&[Module::new("example.com/shared", "v1.0.0"), Module::new("example.com/late", "v1.0.0")]);
        let dir = TempDir::new().unwrap();
        people::user(&dir.path().join("payments.users"), "ann", PASSWORD);
        fs::write(dir.path().join("maps.users"), htpasswd("bob", PASSWORD_OF_BOB)).unwrap();
        let token = people::token(&dir.path().join("tools.tokens"), "robot");
        let tables: String = TEAMS.iter().zip(&private).map(|(team, own)| upstream(team, &own.url(), "private = true")).collect();
        let members = ["users_file = \"payments.users\"", "users_file = \"maps.users\"", "tokens_file = \"tools.tokens\""];
        let teams = [0, 1, 2].map(|n| {
            let (team, members) = (TEAMS[n], members[n]);
            let routes = route(&format!("corp.example/lib,corp.example/{team}"), &[team], "");
            let routes = routes.replace("[[routes]]", &format!("[[teams.{team}.routes]]"));
            format!("[teams.{team}]\nprefix = {team:?}\n{members}\n{routes}")
        });
        let text =
            TLS.to_owned() + &tables + &upstream("public", &public.url(), "") + &route("*", &["public"], "") + &teams.concat();
        Self { site: Site::start_in(dir, &text), private, public, token }
    }

    /// A clean room that trusts modgate.
    fn room(&self, proxy: &str) -> Go {
        let go = Go::with_proxy(proxy).env("SSL_CERT_FILE", &self.site.authority.path());
        go.main_module("module example.com/main\n\ngo 1.21\n");
        go
    }

    fn ann(&self) -> Go {
        self.room(&format!("https://ann:{PASSWORD_IN_A_URL}@localhost:{}/payments", self.site.port()))
    }

    fn bob(&self) -> Go {
        let go = self.room(&format!("https://localhost:{}/maps", self.site.port()));
        let line = format!("machine localhost:{} login bob password {PASSWORD_OF_BOB}\n", self.site.port());
        fs::write(go.dir.path().join("netrc"), line).unwrap();
        let netrc = go.dir.path().join("netrc").display().to_string();
        go.env("NETRC", &netrc).env("GOAUTH", "netrc")
    }

    /// Without a prefix: of which team it is follows from the token.
    fn robot(&self) -> Go {
        let base = format!("https://localhost:{}", self.site.port());
        let go = self.room(&base);
        let script = go.dir.path().join("login");
        fs::write(&script, format!("#!/bin/sh\nprintf '{base}\\n\\nAuthorization: Bearer {}\\n\\n'\n", self.token)).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        go.env("GOAUTH", &script.display().to_string())
    }

    /// A go command for each team, in the teams' order.
    fn rooms(&self) -> [Arc<Go>; 3] {
        [self.ann(), self.bob(), self.robot()].map(Arc::new)
    }

    fn asked_of_private(&self) -> Vec<usize> {
        self.private.iter().map(|upstream| upstream.asked().len()).collect()
    }
}

/// Does this for each team at the same time.
fn at_once(rooms: &[Arc<Go>; 3], what: impl Fn(usize, &Arc<Go>) + Sync) {
    thread::scope(|scope| {
        for (at, go) in rooms.iter().enumerate() {
            let what = &what;
            scope.spawn(move || what(at, go));
        }
    });
}

#[test]
fn each_team_gets_its_own_and_the_shared_and_nothing_of_the_others() {
    let company = Company::start();
    let rooms = company.rooms();
    at_once(&rooms, |at, go| {
        let team = TEAMS[at];
        go_ok(go, &["mod", "download", "corp.example/lib@v1.0.0", "example.com/shared@v1.0.0"]);
        assert_eq!(fs::read_to_string(go.mod_cache().join("corp.example/lib@v1.0.0/whose.txt")).unwrap(), team);
        let kept = |path: &str| fs::read(go.mod_cache().join("cache/download").join(path)).unwrap();
        assert!(kept("corp.example/lib/@v/v1.0.0.zip") == lib(team).zip(), "{team}: the zip is another one");
        go_ok(go, &["get", &named(&own(team))]);
        let built = format!("example.com/main\ncorp.example/{team} v1.0.0\nexample.com/shared v1.0.0\n");
        assert_eq!(go_ok(go, &["list", "-m", "all"]), built);
        assert_eq!(go_ok(go, &["list", "-m", "-versions", &own(team).path]), format!("corp.example/{team} v1.0.0\n"));
    });

    let before = company.asked_of_private();
    at_once(&rooms, |at, go| {
        for (other, team) in TEAMS.iter().enumerate().filter(|(other, _)| *other != at) {
            for arguments in [&["mod", "download"][..], &["get"], &["list", "-m", "-versions"]] {
                let wanted = if arguments[0] == "list" { own(team).path } else { named(&own(team)) };
                let complaint = go_fails(go, &[arguments, &[&wanted]].concat());
                // A 404 would send the go command on to the next proxy of its list, with the name.
                assert!(complaint.contains("403 Forbidden"), "{} asks for {}: {complaint}", TEAMS[at], TEAMS[other]);
            }
        }
        go_ok(go, &["mod", "download", "example.com/late@v1.0.0"]);
    });
    assert_eq!(company.asked_of_private(), before, "a team's upstream was asked for another");
    for (team, upstream) in TEAMS.iter().zip(&company.private) {
        let asked = upstream.asked();
        let its_own = |path: &String| {
            ["/corp.example/lib/".to_owned(), format!("/corp.example/{team}/")].iter().any(|begin| path.starts_with(begin.as_str()))
        };
        assert!(!asked.is_empty() && asked.iter().all(its_own), "{team}: {asked:?}");
    }
    // Of the host alone the go command asks, whether there is such a module.
    let heard = company
        .public
        .asked()
        .into_iter()
        .filter(|path| path.starts_with("/corp.example/") && !path.starts_with("/corp.example/@"));
    let heard: Vec<String> = heard.collect();
    assert!(heard.is_empty(), "the public upstream heard of private modules: {heard:?}");
    assert_eq!(company.public.count("/example.com/shared/@v/v1.0.0.zip"), 1, "the teams share what is public");
}

#[test]
fn whoever_is_of_another_team_or_nobody_is_turned_away_at_the_door() {
    let company = Company::start();
    let port = company.site.port();
    let (mine, hers) = (own("maps"), own("payments"));
    let ways = [
        ("nobody", company.room(&format!("https://localhost:{port}/payments")), "401 Unauthorized"),
        ("nobody, of no team", company.room(&format!("https://localhost:{port}")), "401 Unauthorized"),
        ("a wrong password", company.room(&format!("https://ann:wrong@localhost:{port}/payments")), "401 Unauthorized"),
        (
            "another's password",
            company.room(&format!("https://bob:{PASSWORD_IN_A_URL}@localhost:{port}/payments")),
            "401 Unauthorized",
        ),
        ("another team's prefix", company.room(&format!("https://ann:{PASSWORD_IN_A_URL}@localhost:{port}/maps")), "403 Forbidden"),
    ];
    for (who, go, status) in ways {
        let go = Arc::new(go);
        for module in [&mine, &hers] {
            let complaint = go_fails(&go, &["mod", "download", &named(module)]);
            assert!(complaint.contains(status), "{who} asks for {}: {complaint}", module.path);
            assert!(!complaint.contains(PASSWORD_IN_A_URL), "{complaint}");
        }
    }
    assert_eq!(company.asked_of_private(), [0, 0, 0]);
    assert!(company.public.asked().is_empty());
    // A list of proxies, as the go command has them: a 403 ends it, so that nobody gets round it by the next one.
    let list = format!("https://ann:{PASSWORD_IN_A_URL}@localhost:{port}/maps,{}", company.public.url());
    let go = Arc::new(company.room(&list));
    go_fails(&go, &["mod", "download", "corp.example/maps@v1.0.0"]);
    assert!(company.public.asked().is_empty(), "{:?}", company.public.asked());
    assert!(!company.site.gate.log().contains(PASSWORD), "a password stands in the log");
}

//! Repositories of Mercurial, Subversion, Bazaar and Fossil, behind their own servers: what modgate's go command makes of them is what the
//! go command of a user makes of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use super::sides::values;
use crate::daemons::Daemon;
use crate::helpers::{go_prints, output_of, program};
use crate::nginx::Nginx;
use crate::support::free_port;
use crate::support::gate::Gate;
use crate::support::go::Go;
use crate::support::proxy::{FakeProxy, Manner};
use crate::support::tls::{Authority, Front};
use crate::support::upstream::{Reply, Upstream};

const HG: &str = "hg.example/team/m";
const SVN: &str = "svn.example/team/s";
const PASSWORD: &str = "Open; #Sesame: 7%2F";

/// Servers of both kinds, with one repository each, and the pages that lead to them.
struct Setting {
    dir: TempDir,
    hg: Daemon,
    svn: Daemon,
    /// The proxy by which each host leads to the pages.
    proxy: FakeProxy,
    pages: Upstream,
}

/// A command with no settings of this user.
fn clean(name: &str, home: &Path) -> Command {
    let mut command = Command::new(program(name));
    command.current_dir(home).env("HOME", home).env("HGPLAIN", "1").env("HGRCPATH", "").env("LC_ALL", "C").stdin(Stdio::null());
    // Fossil will not do without.
    command.env("USER", "somebody");
    command
}

fn run(name: &str, home: &Path, arguments: &[&str]) -> String {
    let mut command = clean(name, home);
    command.args(arguments);
    output_of(command, b"").trim().to_owned()
}

/// Two commits, the first of which is a version. The default branch has a bookmark.
fn hg_repository(home: &Path, folder: &str) {
    let work = home.join(folder);
    run("hg", home, &["init", folder]);
    let commit = |file: &str, text: &str, date: &str| {
        fs::write(work.join(file), text).unwrap();
        run("hg", &work, &["commit", "-q", "-A", "-m", file, "-u", "somebody", "-d", date]);
    };
    commit("go.mod", "module hg.example/team/m\n", "1600000000 0");
    commit("m.go", "package m\n", "1600000060 0");
    run("hg", &work, &["tag", "-u", "somebody", "-d", "1600000120 0", "v1.0.0"]);
    commit("later.go", "package m\n\nconst Later = true\n", "1600000180 0");
}

fn svn_repository(home: &Path) {
    run("svnadmin", home, &["create", "svn/s"]);
    fs::write(home.join("svn/s/conf/svnserve.conf"), "[general]\nanon-access = read\n").unwrap();
    let url = format!("file://{}/svn/s", home.display());
    run("svn", home, &["checkout", "-q", &url, "work"]);
    for (file, text) in [("go.mod", "module svn.example/team/s\n"), ("s.go", "package s\n")] {
        fs::write(home.join("work").join(file), text).unwrap();
        run("svn", &home.join("work"), &["add", "-q", file]);
        run("svn", &home.join("work"), &["commit", "-q", "-m", "more", "--username", "somebody"]);
    }
}

impl Setting {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let home = dir.path();
        for folder in ["hg", "svn"] {
            fs::create_dir(home.join(folder)).unwrap();
        }
        hg_repository(home, "hg/m");
        svn_repository(home);
        let (hg_port, svn_port) = (free_port(), free_port());
        let mut hg = clean("hg", &home.join("hg/m"));
        hg.args(["serve", "--address", "127.0.0.1", "--port", &hg_port.to_string(), "--accesslog", "-", "--errorlog", "-"]);
        let hg = Daemon::start(hg, TempDir::new().unwrap(), &format!("127.0.0.1:{hg_port}"), "said");
        let mut svn = clean("svnserve", home);
        svn.args([
            "--daemon",
            "--foreground",
            "--listen-host",
            "127.0.0.1",
            "--listen-port",
            &svn_port.to_string(),
            "--root",
            "svn",
        ]);
        let svn = Daemon::start(svn, TempDir::new().unwrap(), &format!("127.0.0.1:{svn_port}"), "said");

        let authority = Authority::new("the servers");
        fs::write(home.join("ca.pem"), authority.pem()).unwrap();
        let front = Front::new(&authority.server(&["localhost"]), &hg.address);
        let pages = Upstream::start();
        let page_front = Front::new(
            &authority.server(&["hg.example", "svn.example", "bzr.example", "fossil.example", "login.example"]),
            &pages.address,
        );
        let proxy = FakeProxy::start(Manner::LeadsTo(page_front.address));
        let (hg_url, svn_url) = (front.url_as("localhost"), format!("svn://{}/s", svn.address));
        let setting = Self { dir, hg, svn, proxy, pages };
        setting.page(HG, "hg", &hg_url);
        setting.page(SVN, "svn", &svn_url);
        setting
    }

    /// The page of a module says from now on where it is.
    fn page(&self, root: &str, system: &str, url: &str) {
        let page = format!("<meta name=\"go-import\" content=\"{root} {system} {url}\">");
        let path = root.split_once('/').unwrap().1;
        self.pages.set(&format!("/{path}?go-get=1"), Reply::Full(200, Vec::new(), page.into_bytes()));
    }

    fn config(&self) -> String {
        self.config_with(
            "insecure = [\"svn.example\"]\ninternal_hosts = [\"localhost\", \"127.0.0.1\", \"hg.example\", \"svn.example\"]\n",
        )
    }

    fn config_with(&self, more: &str) -> String {
        format!(
            "[log]\nlevel = \"trace\"\n\n[upstreams.vcs]\ntype = \"vcs\"\nprivate = true\nretries = 0\nproxy = \"http://{}\"\n{more}\
             tls = {{ ca_file = \"{}\" }}\n\n[[routes]]\nmatch = [\"*\"]\nupstreams = [\"vcs\"]\n",
            self.proxy.address,
            self.dir.path().join("ca.pem").display(),
        )
    }

    /// The go command by itself.
    fn direct(&self) -> Arc<Go> {
        let way = format!("http://{}", self.proxy.address);
        let trusted = self.dir.path().join("ca.pem").display().to_string();
        let go = Go::with_proxy("direct").env("HTTPS_PROXY", &way).env("SSL_CERT_FILE", &trusted);
        fs::write(go.dir.path().join(".hgrc"), format!("[web]\ncacerts = {trusted}\n")).unwrap();
        let go = go.env("USER", "somebody").env("GOVCS", "*:all").env("GOINSECURE", "svn.example,bzr.example,fossil.example");
        go.main_module("module example.com/main\n\ngo 1.21\n");
        Arc::new(go)
    }
}

/// What the go command says of these, one value each.
fn downloaded(go: &Arc<Go>, wanted: &[String]) -> Vec<Value> {
    let mut arguments = vec!["mod", "download", "-json"];
    arguments.extend(wanted.iter().map(String::as_str));
    let values = values(&go_prints(go, &arguments));
    assert_eq!(values.len(), wanted.len(), "as many answers as questions");
    values
}

#[test]
fn modules_of_mercurial_and_subversion_are_those_of_the_go_command() {
    let setting = Setting::new();
    let gate = Gate::start(&setting.config());
    let through = Go::with_proxy(&gate.url());
    through.main_module("module example.com/main\n\ngo 1.21\n");
    let (direct, through) = (setting.direct(), Arc::new(through));
    let hash = run("hg", &setting.dir.path().join("hg/m"), &["identify", "--id", "-r", "tip", "--debug"]);
    // A module, a query, and what its version begins with; none where there is no such version.
    let rows = [
        (HG, "v1.0.0", "v1.0.0"),
        (HG, "default", "v1.0.1-0.20200913122940-"),
        (HG, &hash[..12], "v1.0.1-0.20200913122940-"),
        (HG, "nothing", ""),
        (SVN, "latest", "v0.0.0-"),
        (SVN, "9", ""),
    ];
    let wanted: Vec<String> = rows.iter().map(|(module, query, _)| format!("{module}@{query}")).collect();
    // One after the other: two that pull at once now and then get a 500 of hg's own server.
    let (direct, through) = (downloaded(&direct, &wanted), downloaded(&through, &wanted));
    let mut wrong = Vec::new();
    for (((module, query, begins), direct), through) in rows.iter().zip(&direct).zip(&through) {
        for key in ["Version", "Sum", "GoModSum"] {
            if direct[key] != through[key] {
                wrong.push(format!(
                    "{module}@{query}: {key} is {}, through modgate {} ({})",
                    direct[key], through[key], through["Error"]
                ));
            }
        }
        let right = match *begins {
            "" => direct["Sum"].is_null() && through["Error"].as_str().is_some_and(|e| e.contains("404 Not Found")),
            begins => !direct["Sum"].is_null() && direct["Version"].as_str().is_some_and(|v| v.starts_with(begins)),
        };
        if !right {
            wrong.push(format!("{module}@{query}: expected {begins:?}: {direct}\nthrough modgate: {through}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (module, versions) in [(HG, "v1.0.0\n"), (SVN, "")] {
        let list = gate.get(&format!("/{module}/@v/list"));
        assert_eq!((list.status, list.text().as_str()), (200, versions));
    }
}

/// What comes of versions that are not kept yet.
fn answers(gate: &Gate, status: u16, words: [&str; 2]) {
    for (path, words) in [(format!("/{HG}/@v/default.info"), words[0]), (format!("/{SVN}/@v/1.info"), words[1])] {
        let answer = gate.get(&path);
        let said = answer.text();
        assert!(answer.status == status && said.contains(words), "{path}: {}, not {status} {words:?}: {said}", answer.status);
        assert!(!said.contains(&gate.dir.path().display().to_string()), "{said}");
    }
}

#[test]
fn servers_that_are_gone_or_may_not_be_reached_are_told_from_what_they_do_not_have() {
    let setting = Setting::new();
    let inside = setting.config().replace("internal_hosts", "# internal_hosts");
    answers(&Gate::start(&inside), 502, ["inside a private network"; 2]);
    let gate = Gate::start(&setting.config());
    fs::remove_dir_all(setting.dir.path().join("svn/s")).unwrap();
    let gone = gate.get(&format!("/{SVN}/@v/2.info"));
    assert_eq!(gone.status, 404, "{}", gone.text());
    drop((setting.hg, setting.svn));
    answers(&gate, 502, ["abort: ", "E170013"]);
}

#[test]
fn programs_that_are_not_installed_are_named() {
    let setting = Setting::new();
    let start = |programs: &[&str]| {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("programs");
        fs::create_dir(&path).unwrap();
        for name in programs {
            symlink(program(name), path.join(name)).unwrap();
        }
        Gate::start_with(dir, &setting.config(), &[("PATH", path.to_str().unwrap())])
    };
    let without = |name: &str| format!("the program {name} is not installed where modgate runs");
    answers(&start(&["git", "go"]), 502, [&without("hg"), &without("svn")]);
    answers(&start(&["git"]), 502, ["the go command is not installed where modgate runs"; 2]);
}

#[test]
fn mercurial_goes_through_the_proxy_and_logs_in() {
    let setting = Setting::new();
    // Mercurial spares 127.0.0.1 whatever it is told.
    let port = free_port();
    let dir = TempDir::new().unwrap();
    let mut openssl = Command::new(program("openssl"));
    openssl.args(["passwd", "-apr1", "-stdin"]);
    fs::write(dir.path().join("users"), format!("ci:{}", output_of(openssl, PASSWORD.as_bytes()))).unwrap();
    let server = "server { listen 127.0.0.2:PORT; listen {address}; auth_basic x; auth_basic_user_file {dir}/users; \
                  location / { proxy_pass http://HG; } }";
    let _nginx = Nginx::start(dir, &server.replace("PORT", &port.to_string()).replace("HG", &setting.hg.address));
    let host = format!("127.0.0.2:{port}");
    setting.page("login.example/m", "hg", &format!("http://{host}/"));
    let more = "insecure = [\"login.example\"]\ninternal_hosts = [\"127.0.0.2\", \"login.example\"]\n";
    let login = format!("credentials = {{ {host:?} = {{ username = \"ci\", password_file = \"{{dir}}/password\" }} }}\n");
    for (credentials, status) in [(login.as_str(), 200), ("", 502)] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("password"), PASSWORD).unwrap();
        let gate = Gate::start_in(dir, &setting.config_with(&format!("{more}{credentials}")));
        let answer = gate.get("/login.example/m/@v/v1.0.0.info");
        let said = answer.text();
        assert_eq!(answer.status, status, "{said}");
        assert!(status == 200 || said.contains("denied: "), "{said}");
        assert!(!said.contains(PASSWORD) && !gate.log().contains(PASSWORD), "{said}");
    }
    assert!(setting.proxy.targets().iter().any(|target| target.contains(&host)), "{:?}", setting.proxy.targets());
}

/// A repository of each, with two commits and a version between them.
fn bazaar_and_fossil(home: &Path) -> [Daemon; 2] {
    let (bzr, fossil) = (home.join("bzr/b"), home.join("fossil"));
    fs::create_dir_all(home.join("bzr")).unwrap();
    fs::create_dir(&fossil).unwrap();
    run("bzr", home, &["init", "-q", "bzr/b"]);
    run("bzr", &bzr, &["whoami", "--branch", "Somebody <somebody@example.com>"]);
    run("fossil", home, &["init", "--admin-user", "somebody", "f.fossil"]);
    run("fossil", &fossil, &["open", "../f.fossil", "--user", "somebody"]);
    for (file, text) in
        [("go.mod", "module example.com/m\n"), ("m.go", "package m\n"), ("later.go", "package m\n\nconst Later = true\n")]
    {
        fs::write(bzr.join(file), text).unwrap();
        fs::write(fossil.join(file), text).unwrap();
        run("bzr", &bzr, &["add", "-q", file]);
        run("bzr", &bzr, &["commit", "-q", "-m", file]);
        run("fossil", &fossil, &["add", file]);
        run("fossil", &fossil, &["commit", "-m", file, "--no-warnings", "--user-override", "somebody"]);
        if file == "m.go" {
            run("bzr", &bzr, &["tag", "-q", "v1.0.0"]);
            run("fossil", &fossil, &["tag", "add", "v1.0.0", "trunk"]);
        }
    }
    let start = |name: &str, arguments: &dyn Fn(&str) -> Vec<String>| {
        let port = free_port().to_string();
        let mut server = clean(name, home);
        server.args(arguments(&port));
        Daemon::start(server, TempDir::new().unwrap(), &format!("127.0.0.1:{port}"), "said")
    };
    let words = |text: String| text.split(' ').map(str::to_owned).collect();
    [
        start("bzr", &|port| words(format!("serve --bzr --listen=127.0.0.1 --port={port} --directory=bzr"))),
        start("fossil", &|port| words(format!("server --localhost --port {port} f.fossil"))),
    ]
}

#[test]
fn modules_of_bazaar_and_fossil_are_those_of_the_go_command() {
    let setting = Setting::new();
    let [bzr, fossil] = bazaar_and_fossil(setting.dir.path());
    setting.page("bzr.example/b", "bzr", &format!("bzr://{}/b", bzr.address));
    setting.page("fossil.example/f", "fossil", &format!("http://{}", fossil.address));
    let hosts = "\"bzr.example\", \"fossil.example\"";
    let more = format!("insecure = [{hosts}]\ninternal_hosts = [\"127.0.0.1\", {hosts}]\n");
    let gate = Gate::start(&setting.config_with(&more));
    let through = Go::with_proxy(&gate.url());
    through.main_module("module example.com/main\n\ngo 1.21\n");
    let wanted = ["bzr.example/b@v1.0.0", "fossil.example/f@v1.0.0", "bzr.example/b@v1.0.7"].map(str::to_owned);
    let (direct, through) = (downloaded(&setting.direct(), &wanted), downloaded(&Arc::new(through), &wanted));
    for ((wanted, direct), through) in wanted.iter().zip(&direct).zip(&through) {
        for key in ["Version", "Sum", "GoModSum"] {
            assert_eq!(direct[key], through[key], "{wanted}: {key}\n{direct}\nthrough modgate: {through}");
        }
        assert_eq!(direct["Sum"].is_null(), wanted.ends_with("v1.0.7"), "{wanted}: {direct}");
    }
}

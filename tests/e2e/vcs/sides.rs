//! The two sides that are compared: the go command that asks git itself, and the go command that asks modgate, which asks git.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::helpers::go_prints;
use crate::support::gate::Gate;
use crate::support::git::{GitServer, git_ok};
use crate::support::go::Go;
use crate::support::proxy::{FakeProxy, Manner};
use crate::support::tls::{Authority, Front};
use crate::support::upstream::{Reply, Upstream};

/// Paths whose repositories are known without asking, and what stands before the repository's name in the URL that the go
/// command makes of them. git is told that these URLs mean the test's server.
const KNOWN: &[(&str, &str)] = &[
    ("github.com/vcstest/", "https://github.com/vcstest/"),
    ("github.com/rsc/", "https://github.com/rsc/"),
    ("vcs-test.golang.org/git/", "https://vcs-test.golang.org/git/"),
];

/// What stands before a repository's name in the URLs that pages have.
const PAGED: &str = "https://vcs.example/";

/// A module path whose repository is found by a page: its root, the repository's name, and the folder within. modgate has a rule
/// for it instead.
pub(crate) type Root = (&'static str, &'static str, &'static str);

/// Both sides, over the same repositories.
pub(crate) struct Sides {
    pub(crate) root: TempDir,
    pub(crate) gate: Option<Gate>,
    pub(crate) direct: Arc<Go>,
    pub(crate) through: Arc<Go>,
    roots: &'static [Root],
}

impl Sides {
    /// Over the repositories that are built in this folder.
    pub(crate) fn new(build: impl FnOnce(&Path)) -> Self {
        Self::with_roots(&[], build)
    }

    /// The same with roots that no table of hosts has.
    pub(crate) fn with_roots(roots: &'static [Root], build: impl FnOnce(&Path)) -> Self {
        let root = tempfile::tempdir().unwrap();
        build(root.path());
        let server = GitServer::start(root.path());
        let direct = |()| clean_room(&server, "direct", roots);
        // To find out whether the rows say anything at all, the go command can be compared with itself.
        let gate = std::env::var_os("VCS_AGAINST_ITSELF").is_none().then(|| Gate::start(&config(&server, roots)));
        let through = gate.as_ref().map_or_else(|| direct(()), |gate| clean_room(&server, &gate.url(), &[]));
        let direct = direct(());
        Self { root, gate, direct: Arc::new(direct), through: Arc::new(through), roots }
    }

    /// What stands in braces is filled in: `{main}` is the hash that `main` has in the module's repository, `{main:7}` its first
    /// digits, `{main:^7}` the same in upper case, and `{t:main}` the tail of a pseudo-version.
    pub(crate) fn fill(&self, module: &str, text: &str) -> String {
        let Some((before, rest)) = text.split_once('{').filter(|(before, _)| !before.ends_with(['^', '@'])) else {
            return text.to_owned();
        };
        let (inside, after) = rest.split_once('}').unwrap();
        let dir = self.root.path().join(self.repository(module));
        let hash = |revision: &str| git_ok(&dir, &["rev-parse", "--verify", "--end-of-options", &format!("{revision}^{{commit}}")]);
        let filled = if let Some(revision) = inside.strip_prefix("t:") {
            let format = ["log", "-1", "--date=format-local:%Y%m%d%H%M%S", "--format=%cd-%H", "--end-of-options", revision];
            git_ok(&dir, &format)[..27].to_owned()
        } else {
            match inside.split_once(':') {
                None => hash(inside),
                Some((revision, digits)) => match digits.strip_prefix('^') {
                    Some(digits) => hash(revision)[..digits.parse().unwrap()].to_ascii_uppercase(),
                    None => hash(revision)[..digits.parse().unwrap()].to_owned(),
                },
            }
        };
        format!("{before}{filled}{}", self.fill(module, after))
    }

    /// The folder of a module's repository.
    fn repository(&self, module: &str) -> String {
        let own = self
            .roots
            .iter()
            .find(|(root, ..)| module.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        if let Some((_, name, _)) = own {
            return (*name).to_owned();
        }
        let rest = KNOWN.iter().find_map(|(prefix, _)| module.strip_prefix(prefix)).unwrap();
        rest.split('/').next().unwrap().trim_end_matches(".git").to_owned()
    }

    /// Downloads all of these, on each side in one go.
    pub(crate) fn download(&self, wanted: &[String]) -> [Vec<Outcome>; 2] {
        let run = |go: &Arc<Go>| {
            let mut arguments = vec!["mod", "download", "-json"];
            arguments.extend(wanted.iter().map(String::as_str));
            let outcomes: Vec<Outcome> = values(&go_prints(go, &arguments)).iter().map(Outcome::new).collect();
            let fitting = outcomes.len() == wanted.len() && outcomes.iter().zip(wanted).all(|(o, w)| w.starts_with(&o.path));
            assert!(fitting, "{} answers to {} questions", outcomes.len(), wanted.len());
            outcomes
        };
        self.both(run)
    }

    /// All versions of these, by their lists.
    pub(crate) fn lists(&self, modules: &[&str]) -> [Vec<Listing>; 2] {
        let run = |go: &Arc<Go>| {
            let mut arguments = vec!["list", "-m", "-e", "-versions", "-retracted", "-json"];
            arguments.extend(modules);
            let lists: Vec<Listing> = values(&go_prints(go, &arguments)).iter().map(Listing::new).collect();
            assert_eq!(lists.len(), modules.len(), "as many answers as questions");
            lists
        };
        self.both(run)
    }

    fn both<T: Send>(&self, run: impl Fn(&Arc<Go>) -> T + Sync) -> [T; 2] {
        std::thread::scope(|scope| {
            let direct = scope.spawn(|| run(&self.direct));
            let through = run(&self.through);
            [direct.join().unwrap(), through]
        })
    }
}

/// What the go command says of one module at one query.
pub(crate) struct Outcome {
    path: String,
    pub(crate) version: String,
    pub(crate) error: String,
    pub(crate) sum: String,
    pub(crate) go_mod_sum: String,
    pub(crate) origin: Value,
    /// The `.info` that it kept.
    pub(crate) info: Value,
    pub(crate) go_mod: Vec<u8>,
    /// The names in the zip, without what all have in common.
    pub(crate) names: Vec<String>,
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

impl Outcome {
    fn new(value: &Value) -> Self {
        let kept = |key: &str| fs::read(text(value, key)).unwrap_or_default();
        let zip = kept("Zip");
        let prefix = format!("{}@{}/", text(value, "Path"), text(value, "Version"));
        let mut names: Vec<String> = match zip::ZipArchive::new(std::io::Cursor::new(zip)) {
            Ok(archive) => {
                archive.file_names().flatten().map(|name| name.strip_prefix(&prefix).unwrap_or(&name).to_owned()).collect()
            }
            Err(_) => Vec::new(),
        };
        names.sort();
        Self {
            path: text(value, "Path"),
            version: if value["Info"].is_null() { String::new() } else { text(value, "Version") },
            error: text(value, "Error"),
            sum: text(value, "Sum"),
            go_mod_sum: text(value, "GoModSum"),
            origin: value["Origin"].clone(),
            info: serde_json::from_slice(&kept("Info")).unwrap_or_default(),
            go_mod: kept("GoMod"),
            names,
        }
    }

    /// In a word.
    pub(crate) fn shown(&self) -> String {
        match (self.version.as_str(), self.error.as_str()) {
            (version, "") => format!("{version} {}", self.sum),
            ("", error) => format!("!{error}"),
            (version, error) => format!("{version} without a zip: {error}"),
        }
    }
}

/// What the go command says of the versions of one module.
pub(crate) struct Listing {
    pub(crate) versions: Vec<String>,
    pub(crate) error: String,
}

impl Listing {
    fn new(value: &Value) -> Self {
        let versions = value["Versions"].as_array().into_iter().flatten();
        let versions = versions.map(|v| v.as_str().unwrap().to_owned()).collect();
        Self { versions, error: text(&value["Error"], "Err") }
    }
}

/// JSON values, one after the other.
pub(crate) fn values(printed: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(printed).into_iter().map(Result::unwrap).collect()
}

/// The go command, for which the known hosts are the test's server, and the pages of all others the test's own.
fn clean_room(server: &GitServer, proxy: &str, roots: &[Root]) -> Go {
    let go = Go::with_proxy(proxy);
    let kept = go.dir.path();
    let instead = KNOWN.iter().map(|(_, url)| *url).chain([PAGED]).map(|url| format!("\n\tinsteadOf = {url}"));
    fs::write(kept.join("gitconfig"), format!("[url \"{}/\"]{}\n", server.url(), instead.collect::<Vec<_>>().concat())).unwrap();
    let config = kept.join("gitconfig").display().to_string();
    let trusted = kept.join("ca.pem").display().to_string();
    // Nothing is to leave the machine, whatever a row asks for.
    let way = if roots.is_empty() { "127.0.0.1:9".to_owned() } else { pages(roots, &trusted) };
    go.main_module("module example.com/main\n\ngo 1.21\n");
    go.env("GIT_CONFIG_GLOBAL", &config)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GOVCS", "*:all")
        .env("GOFLAGS", "-modcacherw -mod=mod")
        .env("HTTPS_PROXY", &format!("http://{way}"))
        .env("SSL_CERT_FILE", &trusted)
}

/// Serves the pages that lead from roots to repositories; the proxy by which every host leads there.
fn pages(roots: &[Root], trusted: &str) -> String {
    let server = Upstream::start();
    for (root, name, folder) in roots {
        let page = format!("<meta name=\"go-import\" content=\"{root} git {PAGED}{name} {folder}\">");
        let path = root.split_once('/').unwrap().1;
        for end in ["", "/v2", "/sub", "/sub/v2", "/inner", "/inner/v2"] {
            server.set(&format!("/{path}{end}?go-get=1"), Reply::Full(200, Vec::new(), page.clone().into_bytes()));
        }
    }
    let authority = Authority::new("the pages");
    let hosts: Vec<&str> = roots.iter().map(|(root, ..)| root.split('/').next().unwrap()).collect();
    let front = Front::new(&authority.server(&hosts), &server.address);
    fs::write(trusted, authority.pem()).unwrap();
    FakeProxy::start(Manner::LeadsTo(front.address)).address
}

/// The configuration of modgate, which finds the same repositories by its rules.
fn config(server: &GitServer, roots: &[Root]) -> String {
    let url = server.url();
    let own = roots.iter().map(|(root, name, folder)| {
        let folder = if folder.is_empty() { String::new() } else { format!(", subdir = {folder:?}") };
        format!("  {{ match = {root:?}, repo = \"{url}/{name}.git\"{folder} }},\n")
    });
    let known = KNOWN.iter().map(|(prefix, _)| {
        // Where the path itself says so, the repository's name has its ending already.
        let end = if prefix.ends_with("/git/") { "" } else { ".git" };
        format!("  {{ match = \"{prefix}{{name}}\", repo = \"{url}/{{name}}{end}\" }},\n")
    });
    let rules: String = own.chain(known).collect();
    format!(
        "[upstreams.git]\ntype = \"vcs\"\nprivate = true\nrepositories = [\n{rules}]\n\n[[routes]]\nmatch = [\"*\"]\nupstreams = [\"git\"]\n"
    )
}

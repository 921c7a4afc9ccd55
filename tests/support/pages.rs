//! A small web on loopback: hosts with pages that say where repositories are, a host of those repositories, and a module proxy. Their
//! names are known to a proxy alone, which leads to each by TLS.

use tempfile::TempDir;

use super::gate::Gate;
use super::git::Change::File;
use super::git::{GitServer, Script};
use super::modules::Module;
use super::proxy::{FakeProxy, Manner};
use super::tls::{Authority, Front};
use super::upstream::{Reply, Upstream};

/// Hosts that answer with pages, all with the same.
const PAGED: &[&str] = &["x.test", "y.test", "one.x.test"];

/// The web. Its repositories `one` and `two` have the version `v1.0.0` of any module, and one of the module in their directory
/// `sub/dir`.
pub struct Web {
    pub pages: Upstream,
    pub git: GitServer,
    pub modules: Upstream,
    pub proxy: FakeProxy,
    authority: Authority,
    _fronts: Vec<Front>,
    _root: TempDir,
}

impl Web {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            Script::new()
                .commit(
                    "main",
                    &[("go.mod", File("module example.com/one\n")), ("sub/dir/go.mod", File("module example.com/sub\n"))],
                )
                .tag("main", &["v1.0.0", "sub/dir/v1.0.1"])
                .build(&root.path().join(name));
        }
        let (pages, git) = (Upstream::start(), GitServer::start(root.path()));
        let modules = Upstream::serving(&[Module::new("x.test/mod", "v1.2.3"), Module::new("x.test/mod/Sub", "v1.2.4")]);
        let authority = Authority::new("the web");
        let front = |names: &[&str], server: &str| Front::new(&authority.server(names), server);
        let fronts = vec![front(PAGED, &pages.address), front(&["git.test"], &git.address), front(&["mod.test"], &modules.address)];
        let at = |host: &str, port: u16, address: &str| (format!("{host}:{port}"), address.to_owned());
        let mut known: Vec<_> = PAGED.iter().map(|host| at(host, 443, &fronts[0].address)).collect();
        known.extend([at("git.test", 443, &fronts[1].address), at("mod.test", 443, &fronts[2].address)]);
        // Two of them without TLS too, the first of which has nothing else.
        known.extend([at("plain.test", 80, &pages.address), at("git.test", 80, &git.address)]);
        let proxy = FakeProxy::start(Manner::Knows(known));
        Self { pages, git, modules, proxy, authority, _fronts: fronts, _root: root }
    }

    /// A gate that has nothing but this web.
    pub fn gate(&self, more: &str) -> Gate {
        self.gate_with(more, &[])
    }

    /// The same with variables in its environment.
    pub fn gate_with(&self, more: &str, variables: &[(&str, &str)]) -> Gate {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), self.authority.pem()).unwrap();
        let text = format!(
            "[upstreams.vcs]\ntype = \"vcs\"\nprivate = true\nretries = 0\nproxy = \"http://{}\"\ntls = {{ ca_file = \"{{dir}}/ca.pem\" }}\n{more}\n\n\
             [[routes]]\nmatch = [\"*\"]\nupstreams = [\"vcs\"]\n",
            self.proxy.address
        );
        Gate::start_with(dir, &text, variables)
    }

    /// How the page of an import path is answered, whatever its host.
    pub fn page(&self, path: &str, reply: Reply) {
        let path = path.split_once('/').map_or("", |(_, rest)| rest);
        self.pages.set(&format!("/{path}?go-get=1"), reply);
    }

    /// How often the page of an import path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        let path = path.split_once('/').map_or("", |(_, rest)| rest);
        self.pages.count(&format!("/{path}?go-get=1"))
    }

    /// A page with this between its beginning and its end.
    pub fn head(inner: &str) -> Reply {
        Reply::Good(format!("<!DOCTYPE html>\n<html><head>\n{inner}\n</head><body>hello</body></html>").into_bytes())
    }
}

/// A page's tag.
pub fn tag(content: &str) -> String {
    format!("<meta name=\"go-import\" content=\"{content}\">")
}

//! The main job: a program that needs a private module, a public one and a private one behind the vanity host is built with modgate as
//! its only GOPROXY, and its go.sum is the one that the go command writes when it fetches straight.

use std::fs;
use std::sync::Arc;

use tempfile::TempDir;

use crate::helpers::{go_fails, go_ok, public_proxy};
use crate::support::gate::Gate;
use crate::support::git::Change::File;
use crate::support::git::{GitServer, Script};
use crate::support::go::Go;

const MAIN: &str = "package main\n\nimport (\n\t\"fmt\"\n\n\t\"private.test/grp/foo\"\n\t\"vanity.test/lib/v2/deep\"\n)\n\nfunc main() { fmt.Println(foo.Hello(), deep.Hello()) }\n";
const GO_MOD: &str =
    "module example.com/main\n\ngo 1.21\n\nrequire (\n\tprivate.test/grp/foo v1.0.0\n\tvanity.test/lib/v2 v2.1.0\n)\n";
const FOO: &str =
    "package foo\n\nimport \"golang.org/x/text/language\"\n\nfunc Hello() string { return language.English.String() }\n";

/// The two private repositories: one needs a public module, the other keeps its second major version in a directory.
fn repositories() -> (TempDir, GitServer) {
    let root = TempDir::new().unwrap();
    let foo_mod = "module private.test/grp/foo\n\ngo 1.21\n\nrequire golang.org/x/text v0.21.0\n";
    Script::new()
        .commit("main", &[("go.mod", File(foo_mod)), ("foo.go", File(FOO))])
        .tag("main", &["v1.0.0"])
        .build(&root.path().join("foo"));
    let deep = "package deep\n\nfunc Hello() string { return \"deep\" }\n";
    let lib_mod = "module vanity.test/lib/v2\n\ngo 1.21\n";
    Script::new()
        .commit("main", &[("v2/go.mod", File(lib_mod)), ("v2/deep/deep.go", File(deep)), ("LICENSE", File("free\n"))])
        .tag("main", &["v2.1.0"])
        .build(&root.path().join("lib"));
    let server = GitServer::start(root.path());
    server.require("ci", "sesame");
    (root, server)
}

fn configuration(server: &GitServer) -> String {
    let (url, host) = (server.url(), &server.address);
    format!(
        r#"[upstreams.git]
type = "vcs"
private = true
proxy = "none"
repositories = [
  {{ match = "private.test/{{group}}/{{name}}", repo = "{url}/{{name}}.git" }},
  {{ match = "vanity.test/{{name}}", repo = "{url}/{{name}}.git" }},
]
credentials = {{ "{host}" = {{ username = "ci", password_file = "{{dir}}/password" }} }}

[upstreams.public]
type = "goproxy"
url = "{}"
absent = [403, 404, 410]

[[routes]]
match = ["private.test,vanity.test"]
upstreams = ["git"]

[[routes]]
match = ["*"]
upstreams = ["public"]

[[vanity]]
match = "private.test/{{group}}/{{name}}"
repo = "{url}/{{name}}.git"

[[vanity]]
match = "vanity.test/{{name}}"
repo = "{url}/{{name}}.git"
home = "https://web.test/{{name}}"
source = "gitlab"
"#,
        public_proxy()
    )
}

/// Builds the program; what it printed, and the go.sum.
fn built(go: &Arc<Go>) -> (String, String) {
    let work = go.main_module(GO_MOD);
    fs::write(work.join("main.go"), MAIN).unwrap();
    let printed = go_ok(go, &["run", "."]);
    go_ok(go, &["mod", "verify"]);
    (printed, fs::read_to_string(work.join("go.sum")).unwrap())
}

#[test]
fn a_program_of_private_public_and_vanity_modules_is_built() {
    let (_root, server) = repositories();
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("password"), "sesame\n").unwrap();
    let gate = Gate::start_in(dir, &configuration(&server));
    let through = Arc::new(Go::with_proxy(&gate.url()));
    let (printed, sums) = built(&through);
    assert_eq!(printed, "en deep\n");
    assert!(sums.contains("golang.org/x/text v0.21.0 h1:"), "{sums}");

    // Straight: the pages of the vanity host come from modgate, here as the proxy that plain http goes through.
    let config = TempDir::new().unwrap();
    let git_config = config.path().join("gitconfig");
    let address = &server.address;
    fs::write(&git_config, format!("[url \"http://ci:sesame@{address}/\"]\n\tinsteadOf = http://{address}/\n")).unwrap();
    let straight = Go::with_proxy(&public_proxy())
        .env("GOPRIVATE", "private.test,vanity.test")
        .env("GOINSECURE", "private.test,vanity.test")
        .env("HTTP_PROXY", &gate.url())
        .env("GIT_CONFIG_GLOBAL", &git_config.display().to_string());
    let straight = Arc::new(straight);
    assert_eq!(built(&straight), (printed, sums));

    // What is private is never asked of the public proxy, not even where it does not exist.
    let said = go_fails(&through, &["get", "private.test/grp/nothing@latest"]);
    assert!(said.contains("404") || said.contains("not found"), "{said}");
    assert!(!gate.log().contains("public: "), "{}", gate.log());
}

#[test]
fn a_page_says_where_the_module_is_and_where_to_read_it() {
    let (_root, server) = repositories();
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("password"), "sesame\n").unwrap();
    let gate = Gate::start_in(dir, &configuration(&server));
    let page = gate.get("/vanity.test/lib/v2/deep?go-get=1");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let text = page.text();
    assert!(
        text.contains(&format!("<meta name=\"go-import\" content=\"vanity.test/lib git {}/lib.git\">", server.url())),
        "{text}"
    );
    assert!(text.contains(
        "<meta name=\"go-source\" content=\"vanity.test/lib https://web.test/lib https://web.test/lib/-/tree/HEAD{/dir} "
    ));
    let nobody = gate.get("/other.test/lib?go-get=1");
    assert_eq!(nobody.status, 404);
    assert!(nobody.text().contains("no [[vanity]] rule"), "{}", nobody.text());
    // Without the question it is a path like any other.
    assert_eq!(gate.get("/vanity.test/lib/v2/deep").status, 404);
}

//! Modules whose repositories are found by a page, or for modgate by a rule: those of gopkg.in, and those in a folder that the
//! page names.

use std::path::Path;

use super::rows::{Findings, ListRow, Row, compare, compare_lists};
use super::sides::{Root, Sides};
use crate::support::git::Change::{File, Gone};
use crate::support::git::Script;

const ROOTS: &[Root] = &[
    ("gopkg.in/y.v0", "gopkg", ""),
    ("gopkg.in/y.v1", "gopkg", ""),
    ("gopkg.in/y.v2", "gopkg", ""),
    ("gopkg.in/y.v2-unstable", "gopkg", ""),
    ("gopkg.in/y.v3", "gopkg", ""),
    ("gopkg.in/team/y.v4", "gopkg", ""),
    ("own.example/m", "folders", "svc/x"),
    ("own.example/plain", "folders", ""),
    ("other.example/deep/er", "folders", "svc"),
];

fn build(root: &Path) {
    Script::new()
        .commit("main", &[("y.go", File("package y\n"))])
        .tag("main", &["start"])
        .commit("main", &[("a", File("1"))])
        .tag("main", &["v0.1.0", "v1.0.0"])
        .commit("main", &[("a", File("2"))])
        .tag("main", &["v1.1.0", "v2.0.0"])
        .commit("main", &[("a", File("3"))])
        .tag("main", &["v2.1", "v2.2.0-pre"])
        .commit("main", &[("a", File("4")), ("go.mod", File("module gopkg.in/y.v3\n"))])
        .tag("main", &["v3.0.0", "v2.9.0"])
        .commit("main", &[("a", File("5")), ("go.mod", File("module example.com/y/v3\n"))])
        .tag("main", &["v3.1.0"])
        .commit("main", &[("a", File("6")), ("go.mod", File("module example.com/y\n"))])
        .tag("main", &["v3.2.0"])
        .commit("main", &[("a", File("7")), ("go.mod", File("module gopkg.in/y.v4-unstable\n"))])
        .tag("main", &["v4.0.0"])
        .commit("main", &[("a", File("8")), ("go.mod", Gone), ("v4/go.mod", File("module example.com/y/v4\n"))])
        .tag("main", &["v4.1.0"])
        .commit("main", &[("a", File("9"))])
        .build(&root.join("gopkg"));
    let licence = ("LICENSE", File("all rights\n"));
    Script::new()
        .commit("main", &[licence, ("svc/x/go.mod", File("module own.example/m\n")), ("svc/x/m.go", File("package m\n"))])
        .tag("main", &["svc/x/v1.2.3", "v1.0.0"])
        .commit("main", &[("svc/x/v2/go.mod", File("module own.example/m/v2\n")), ("svc/x/v2/m.go", File("package m\n"))])
        .tag("main", &["svc/x/v2.3.4"])
        .commit(
            "main",
            &[("inner/svc/x/go.mod", File("module own.example/m/inner\n")), ("svc/x/inner/go.mod", File("module wrong\n"))],
        )
        .tag("main", &["inner/svc/x/v0.1.0", "svc/x/inner/v0.2.0"])
        .commit("main", &[("sub/svc/go.mod", File("module other.example/deep/er/sub\n"))])
        .commit("main", &[("svc/go.mod", File("module other.example/deep/er\n"))])
        .build(&root.join("folders"));
}

#[rustfmt::skip]
const ROWS: &[Row<'_>] = &[
    ("gopkg.in/y.v0", "v0.1.0", "v0.1.0"),
    ("gopkg.in/y.v0", "start", "v0.0.0-{t:start}"),
    ("gopkg.in/y.v0", "v1.0.0", "!"),
    ("gopkg.in/y.v1", "v1.0.0", "v1.0.0"),
    ("gopkg.in/y.v1", "start", "v1.0.0-{t:start}"),
    ("gopkg.in/y.v1", "v0.0.0-{t:start}", "v0.0.0-{t:start}"),
    ("gopkg.in/y.v1", "v1.0.0-{t:start}", "v1.0.0-{t:start}"),
    ("gopkg.in/y.v1", "v0.1.0", "!"),
    ("gopkg.in/y.v1", "main", "v1.1.1-0.{t:main}"),
    ("gopkg.in/y.v1", "{v2.2.0-pre:12}", "v1.1.1-0.{t:v2.2.0-pre}"),
    ("gopkg.in/y.v1", "latest", "v1.1.0"),
    ("gopkg.in/y.v2", "v2.0.0", "v2.0.0"),
    ("gopkg.in/y.v2", "v2.0.0+incompatible", "!+incompatible suffix not allowed: major version v2 is compatible"),
    ("gopkg.in/y.v2", "start", "v2.0.0-{t:start}"),
    ("gopkg.in/y.v2", "v0.0.0-{t:start}", "!"),
    ("gopkg.in/y.v2", "v2.2.0-pre", "v2.2.0-pre"),
    ("gopkg.in/y.v2", "v2.9.0", "!has non-....v2 module path \"gopkg.in/y.v3\" at revision v2.9.0"),
    ("gopkg.in/y.v2", "latest", "!"),
    ("gopkg.in/y.v2", "main", "v2.9.1-0.{t:main}"),
    ("gopkg.in/y.v2", "v2.1", "!"),
    ("gopkg.in/y.v2-unstable", "start", "v2.0.0-{t:start}"),
    ("gopkg.in/y.v2-unstable", "v2.0.0", "v2.0.0"),
    ("gopkg.in/y.v2-unstable", "latest", "v2.9.1-0.{t:main}"),
    ("gopkg.in/y.v3", "v3.0.0", "v3.0.0"),
    ("gopkg.in/y.v3", "v3.1.0", "v3.1.0"),
    ("gopkg.in/y.v3", "v3.2.0", "!has non-....v3 module path \"example.com/y\" at revision v3.2.0"),
    ("gopkg.in/team/y.v4", "v4.0.0", "!has non-....v4 module path \"gopkg.in/y.v4-unstable\" at revision v4.0.0"),
    ("gopkg.in/team/y.v4", "v4.1.0", "v4.1.0"),
    ("gopkg.in/team/y.v4", "main", "v4.1.1-0.{t:main}"),
    ("own.example/m", "v1.2.3", "v1.2.3"),
    ("own.example/m", "v1.0.0", "!unknown revision svc/x/v1.0.0"),
    ("own.example/m", "main", "v1.2.4-0.{t:main}"),
    ("own.example/m", "{svc/x/v1.2.3:12}", "v1.2.3"),
    ("own.example/m", "latest", "v1.2.3"),
    ("own.example/m/v2", "v2.3.4", "v2.3.4"),
    ("own.example/m/v2", "main", "v2.3.5-0.{t:main}"),
    ("own.example/m/inner", "v0.1.0", "v0.1.0"),
    ("own.example/m/inner", "v0.2.0", "!unknown revision inner/svc/x/v0.2.0"),
    ("own.example/m/inner", "main", "v0.1.1-0.{t:main}"),
    ("own.example/m/sub", "main", "!missing own.example/m/sub/go.mod at revision {main:12}"),
    ("own.example/plain", "v1.0.0", "v1.0.0"),
    ("own.example/plain", "main", "v1.0.1-0.{t:main}"),
    ("other.example/deep/er", "main", "v0.0.0-{t:main}"),
    ("other.example/deep/er/sub", "main", "v0.0.0-{t:main}"),
    ("other.example/deep/er/v2", "main", "!"),
];

#[rustfmt::skip]
const LISTS: &[ListRow] = &[
    ("gopkg.in/y.v0", "v0.1.0"),
    ("gopkg.in/y.v1", "v1.0.0 v1.1.0"),
    ("gopkg.in/y.v2", "v2.0.0 v2.2.0-pre v2.9.0"),
    ("gopkg.in/y.v2-unstable", ""),
    ("gopkg.in/y.v3", "v3.0.0 v3.1.0 v3.2.0"),
    ("own.example/m", "v1.2.3"),
    ("own.example/m/v2", "v2.3.4"),
    ("own.example/m/inner", "v0.1.0"),
    ("own.example/plain", "v1.0.0"),
    ("other.example/deep/er", ""),
];

#[test]
fn modules_are_found_by_rules_as_by_pages() {
    let sides = Sides::with_roots(ROOTS, build);
    let mut findings = Findings::new("roots");
    compare(&sides, ROWS, &mut findings);
    compare_lists(&sides, LISTS, &mut findings);
    findings.end();
}

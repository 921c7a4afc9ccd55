//! go.mod files in every form that is taken, and in forms that are not.

use std::path::Path;

use super::rows::{Findings, Row, compare};
use super::sides::Sides;
use crate::support::git::Change::{self, Bytes, File, Large, Link};
use crate::support::git::Script;

/// A go.mod at the top of a repository, and what a version with it is: good (empty), or refused with these words.
type Form = (Change<'static>, &'static str);

#[rustfmt::skip]
const FORMS: &[Form] = &[
    (File("module github.com/vcstest/forms\n"), ""),
    (File("module \"github.com/vcstest/forms\"\n"), ""),
    (File("module `github.com/vcstest/forms`\n"), ""),
    (File("// a comment\n\nmodule github.com/vcstest/forms // another\n"), ""),
    (File("module github.com/vcstest/forms//close\n"), ""),
    (File("module github.com/vcstest/forms\r\n\r\ngo 1.21\r\n"), ""),
    (File("   \t module github.com/vcstest/forms   \n"), ""),
    (File("module\tgithub.com/vcstest/forms\n"), ""),
    (File("module github.com/vcstest/forms"), ""),
    (File("module (\n\tgithub.com/vcstest/forms\n)\n"), ""),
    (File("go 1.21\nmodule github.com/vcstest/forms\n"), ""),
    (File("module example.com/other\n"), ""),
    (File("module gopkg.in/other.v2\n"), ""),
    (File("module gopkg.in/other\n"), ""),
    (File("module gopkg.in/other.v1\n"), ""),
    (File("module gopkg.in/other.v0-unstable\n"), ""),
    (File("module not!a?path\n"), ""),
    (File("module a b\n"), ""),
    (File("module github.com/vcstest/forms extra words\n"), ""),
    (File("module one\nmodule two/v2\n"), ""),
    (File("module github.com/vcstest/forms\nrequire (\n"), ""),
    (Bytes(b"module github.com/vcstest/forms\n\x00\xff\xfe\x01"), ""),
    (File("module \"a\\x62c\"\n"), ""),
    (File("module x/v\n"), ""),
    (File("module x/xv2\n"), ""),
    (File("module x/v2x\n"), ""),
    (File("modules x\nmodule y\n"), ""),
    (File("module\nmodule y\n"), ""),
    (File("go 1.21\n"), "!go.mod is missing module path"),
    (File(""), "!go.mod is missing module path"),
    (File("// module x\n"), "!go.mod is missing module path"),
    (File("\u{feff}module x\n"), "!go.mod is missing module path"),
    (File("module\n"), "!go.mod is missing module path"),
    (File("module // x\n"), "!go.mod is missing module path"),
    (File("modules x\n"), "!go.mod is missing module path"),
    (File("module \"x\n"), "!go.mod is missing module path"),
    (File("module `x\n"), "!go.mod is missing module path"),
    (File("module \"x\" y\n"), "!go.mod is missing module path"),
    (File("module \"\"\n"), "!go.mod is missing module path"),
    (File("Module x\n"), "!go.mod is missing module path"),
    (File("module\rx\n"), ""),
    (File("module\u{a0}x\n"), ""),
    (File("module\u{2003}x\n"), ""),
    (File("module 'x'\n"), ""),
    (File("module x\rmodule y/v2\n"), "!go.mod has post-v0 module path"),
    (File("module \"x\\n/v2\"\n"), "!go.mod has post-v0 module path"),
    (File("module github.com/vcstest/forms/v2\n"), "!go.mod has post-v0 module path \"github.com/vcstest/forms/v2\" at revision"),
    (File("module x/v10\n"), "!go.mod has post-v0 module path \"x/v10\""),
    (File("module x/v1\n"), "!go.mod has malformed module path \"x/v1\""),
    (File("module x/v0\n"), "!go.mod has malformed module path \"x/v0\""),
    (File("module x/v02\n"), "!go.mod has malformed module path \"x/v02\""),
    (File("module x/v2.0\n"), "!go.mod has malformed module path \"x/v2.0\""),
    (Link("elsewhere/go.mod"), "!go.mod is missing module path"),
    (Link("module x\n"), ""),
    (Change::Submodule("1234567890123456789012345678901234567890"), ""),
    (Large("", 17 << 20), "!go.mod is missing module path"),
];

fn build(root: &Path) {
    let mut script = Script::new();
    for (at, (go_mod, _)) in FORMS.iter().enumerate() {
        // Each begins a history of its own.
        let branch = format!("b{at}");
        script =
            script.commit(&branch, &[("m.go", File("package m\n")), ("go.mod", *go_mod)]).tag(&branch, &[&format!("v0.1.{at}")]);
    }
    script
        .commit("main", &[("m.go", File("package m\n"))])
        .commit("folder", &[("m.go", File("package m\n")), ("go.mod/x.go", File("package x\n"))])
        .tag("folder", &["v0.2.0", "v2.2.0"])
        .build(&root.join("forms"));
    nested().build(&root.join("places"));
}

/// Modules in folders and with major versions, in the right places and in wrong ones.
fn nested() -> Script {
    let root = "module github.com/vcstest/places\n";
    let (two, three) = ("module github.com/vcstest/places/v2\n", "module github.com/vcstest/places/v3\n");
    Script::new()
        .commit("main", &[("go.mod", File(root)), ("LICENSE", File("all rights\n")), ("m.go", File("package m\n"))])
        .tag("main", &["v1.0.0", "sub/v1.0.0"])
        .commit("main", &[("sub/go.mod", File("module github.com/vcstest/places/sub\n")), ("sub/s.go", File("package s\n"))])
        .commit(
            "main",
            &[("sub/v2/go.mod", File("module github.com/vcstest/places/sub/v2\n")), ("sub/v2/s.go", File("package s\n"))],
        )
        .tag("main", &["sub/v1.1.0", "sub/v2.0.0", "sub/v2/v2.5.0", "v1.1.0"])
        .commit("main", &[("v3/go.mod", File(three)), ("v3/m.go", File("package m\n"))])
        .tag("main", &["v3.0.0", "v1.2.0", "v3/v3.9.0"])
        .commit("main", &[("v4/go.mod", File("module github.com/vcstest/places/v44\n")), ("v5/go.mod", File("go 1.21\n"))])
        .tag("main", &["v4.0.0", "v5.0.0", "v6.0.0"])
        .commit(
            "main",
            &[("a/b/c/go.mod", File("module x/c\n")), ("a/b/c/c.go", File("package c\n")), ("a/b/b.go", File("package b\n"))],
        )
        .tag("main", &["a/b/c/v0.1.0", "a/b/v0.1.0", "a/b/c/v1.5.0+meta"])
        .commit("main", &[("a/b/c/more.go", File("package c\n"))])
        .fork("two", "main", &[("go.mod", File(two))])
        .tag("two", &["v2.0.0", "v1.9.0"])
        .commit("two", &[("v2/go.mod", File(two))])
        .tag("two", &["v2.1.0"])
        .commit("two", &[("v2/go.mod", File(root))])
        .tag("two", &["v2.2.0"])
        .commit("two", &[("v2/go.mod", File("go 1.21\n"))])
        .tag("two", &["v2.3.0"])
        .commit("two", &[("v2/go.mod", Link("../go.mod"))])
        .tag("two", &["v2.4.0"])
        .commit("two", &[("go.mod", File("module gopkg.in/places.v2\n")), ("v2", Change::Gone)])
        .tag("two", &["v2.5.0"])
        .commit("two", &[("go.mod", File("module gopkg.in/places.v2-unstable\n"))])
        .tag("two", &["v2.6.0"])
        .commit("two", &[("go.mod", File("module (\n\tgithub.com/vcstest/places/v2\n)\n"))])
        .tag("two", &["v2.7.0"])
        .commit("two", &[("go.mod", File("module other.example/elsewhere/v2\n"))])
        .tag("two", &["v2.8.0"])
        .commit("two", &[("go.mod", Change::Gone)])
        .tag("two", &["v2.9.0"])
}

#[rustfmt::skip]
const PLACES: &[Row<'_>] = &[
    ("github.com/vcstest/places", "v1.0.0", "v1.0.0"),
    ("github.com/vcstest/places", "v1.1.0", "v1.1.0"),
    ("github.com/vcstest/places", "v3.0.0", "!module contains a go.mod file, so module path must match major version (\"github.com/vcstest/places/v3\")"),
    ("github.com/vcstest/places", "v1.9.0", "!go.mod has post-v1 module path \"github.com/vcstest/places/v2\" at revision v1.9.0"),
    ("github.com/vcstest/places", "main", "v1.2.1-0.{t:main}"),
    ("github.com/vcstest/places", "two", "v2.9.0+incompatible"),
    ("github.com/vcstest/places", "v2.9.0", "v2.9.0+incompatible"),
    ("github.com/vcstest/places/sub", "v1.0.0", "!missing github.com/vcstest/places/sub/go.mod at revision sub/v1.0.0"),
    ("github.com/vcstest/places/sub", "v1.1.0", "v1.1.0"),
    ("github.com/vcstest/places/sub", "{v1.1.0:12}", "v1.1.0"),
    ("github.com/vcstest/places/sub", "main", "v1.1.1-0.{t:main}"),
    ("github.com/vcstest/places/sub", "v1.1.1-0.{t:main}", "v1.1.1-0.{t:main}"),
    ("github.com/vcstest/places/sub", "v1.2.1-0.{t:main}", "!preceding tag (v1.2.0) not found"),
    ("github.com/vcstest/places/sub", "v1.1.1-0.{t:sub/v1.1.0}", "!tag (sub/v1.1.0) found on revision {sub/v1.1.0:12} is already canonical"),
    ("github.com/vcstest/places/sub", "v2.0.0", "!"),
    ("github.com/vcstest/places/sub", "v2.0.0+incompatible", "!"),
    ("github.com/vcstest/places/sub/v2", "v2.0.0", "v2.0.0"),
    ("github.com/vcstest/places/sub/v2", "v2.5.0", "!unknown revision sub/v2.5.0"),
    ("github.com/vcstest/places/sub/v2", "main", "v2.0.1-0.{t:main}"),
    ("github.com/vcstest/places/sub/v2", "latest", "v2.0.0"),
    ("github.com/vcstest/places/sub/v3", "main", "!go.mod has non-.../v3 module path \"github.com/vcstest/places/sub\" (and .../v3/go.mod does not exist) at revision {main:12}"),
    ("github.com/vcstest/places/v3", "v3.0.0", "v3.0.0"),
    ("github.com/vcstest/places/v3", "v3.9.0", "!unknown revision v3.9.0"),
    ("github.com/vcstest/places/v3", "main", "v3.0.1-0.{t:main}"),
    ("github.com/vcstest/places/v3", "v1.0.0", "!"),
    ("github.com/vcstest/places/v3", "v3.0.0+incompatible", "!+incompatible suffix not allowed: major version v3 is compatible"),
    ("github.com/vcstest/places/v3", "v4.0.0", "!"),
    ("github.com/vcstest/places/v4", "v4.0.0", "!has non-.../v4 module path \"github.com/vcstest/places/v44\" at revision v4.0.0"),
    ("github.com/vcstest/places/v5", "v5.0.0", "!v5/go.mod is missing module path at revision v5.0.0"),
    ("github.com/vcstest/places/v6", "v6.0.0", "!go.mod has non-.../v6 module path \"github.com/vcstest/places\" (and .../v6/go.mod does not exist) at revision v6.0.0"),
    ("github.com/vcstest/places/v2", "v2.0.0", "v2.0.0"),
    ("github.com/vcstest/places/v2", "v2.1.0", "!both have .../v2 module paths at revision v2.1.0"),
    ("github.com/vcstest/places/v2", "v2.2.0", "!has non-.../v2 module path \"github.com/vcstest/places\" at revision v2.2.0"),
    ("github.com/vcstest/places/v2", "v2.3.0", "!v2/go.mod is missing module path at revision v2.3.0"),
    ("github.com/vcstest/places/v2", "v2.4.0", "!v2/go.mod is missing module path at revision v2.4.0"),
    ("github.com/vcstest/places/v2", "v2.5.0", "v2.5.0"),
    ("github.com/vcstest/places/v2", "v2.6.0", "!has non-.../v2 module path \"gopkg.in/places.v2-unstable\""),
    ("github.com/vcstest/places/v2", "v2.7.0", "!has non-.../v2 module path \"(\""),
    ("github.com/vcstest/places/v2", "v2.8.0", "v2.8.0"),
    ("github.com/vcstest/places/v2", "v2.9.0", "!missing github.com/vcstest/places/go.mod and .../v2/go.mod at revision v2.9.0"),
    ("github.com/vcstest/places/v2", "latest", "!"),
    ("github.com/vcstest/places/v2", "v2", "!"),
    ("github.com/vcstest/places/a/b/c", "v0.1.0", "v0.1.0"),
    ("github.com/vcstest/places/a/b/c", "main", "v1.5.1-0.{t:main}"),
    ("github.com/vcstest/places/a/b/c", "v1.5.0+meta", "v0.1.0"),
    ("github.com/vcstest/places/a/b/c", "v1.5.0", "!unknown revision a/b/c/v1.5.0"),
    ("github.com/vcstest/places/a/b/c", "v1.5.1-0.{t:main}", "v1.5.1-0.{t:main}"),
    ("github.com/vcstest/places/a/b/c", "v0.0.0-{t:main}", "v0.0.0-{t:main}"),
    ("github.com/vcstest/places/a/b", "v0.1.0", "!missing github.com/vcstest/places/a/b/go.mod at revision a/b/v0.1.0"),
    ("github.com/vcstest/places/a/b", "main", "!missing github.com/vcstest/places/a/b/go.mod at revision {main:12}"),
    ("github.com/vcstest/places/a", "latest", "!"),
    ("github.com/vcstest/places/nowhere", "latest", "!"),
    ("github.com/vcstest/places/nowhere/v2", "main", "!missing github.com/vcstest/places/nowhere/go.mod and .../v2/go.mod at revision {main:12}"),
    ("github.com/vcstest/places/go.mod", "main", "!missing github.com/vcstest/places/go.mod/go.mod at revision {main:12}"),
];

#[test]
fn go_mod_files_are_read_alike() {
    let sides = Sides::new(build);
    let mut findings = Findings::new("gomods");
    let rows: Vec<[String; 2]> = FORMS
        .iter()
        .enumerate()
        .map(|(at, (_, want))| [format!("v0.1.{at}"), if want.is_empty() { format!("v0.1.{at}") } else { (*want).to_owned() }])
        .collect();
    let mut rows: Vec<Row<'_>> = rows.iter().map(|[query, want]| ("github.com/vcstest/forms", &**query, &**want)).collect();
    // There is a version, and a zip of it. That the go command cannot work with it is no matter of proxies.
    rows.push(("github.com/vcstest/forms", "v0.2.0", "!is a directory"));
    rows.push(("github.com/vcstest/forms", "v2.2.0", "!is a directory"));
    compare(&sides, &rows, &mut findings);
    compare(&sides, PLACES, &mut findings);
    findings.end();
}

//! What names a commit, and which version a commit becomes.

use std::path::Path;

use super::rows::{Findings, ListRow, Row, ask, compare, compare_lists};
use super::sides::Sides;
use crate::support::git::Change::File;
use crate::support::git::{Script, git_ok};

const M: &str = "module example.com/m\n";

fn build(root: &Path) {
    refs().build(&root.join("refs"));
    pseudo().build(&root.join("pseudo"));
    Script::sha256()
        .commit("main", &[("go.mod", File(M))])
        .tag("main", &["v0.1.0"])
        .commit("main", &[("a", File("a"))])
        .commit("main", &[("b", File("b"))])
        .annotate("main", "v0.2.0")
        .commit("main", &[("c", File("c"))])
        .build(&root.join("long"));
    Script::new().build(&root.join("empty"));
    Script::new()
        .head("gone")
        .commit("main", &[("go.mod", File(M))])
        .tag("main", &["v0.1.0"])
        .commit("main", &[("a", File("a"))])
        .build(&root.join("headless"));
    Script::new().head("gone").commit("main", &[("go.mod", File(M))]).build(&root.join("headless-untagged"));
    // The repository opens with another branch than its first.
    Script::new()
        .head("trunk")
        .commit("main", &[("go.mod", File(M))])
        .fork("trunk", "main", &[("a", File("a"))])
        .build(&root.join("trunk"));
    named_like_hashes(&root.join("hexnames"));
    clashing(&root.join("clash"), &["32963", "40673"], true);
    clashing(&root.join("clash-below"), &["38675", "44244"], false);
}

fn refs() -> Script {
    Script::new()
        .commit("main", &[("go.mod", File(M)), ("m.go", File("package m\n"))])
        .tag("main", &["v0.1.0", "both", "other", "v0.0.9"])
        .commit("main", &[("a", File("a"))])
        .commit("main", &[("b", File("b"))])
        .annotate("main", "noted")
        .annotate("main", "v0.2.0-rc.1")
        .commit("main", &[("c", File("c"))])
        .fork("both", "main", &[("both", File("both"))])
        .fork("refs/pull/1/head", "main", &[("pull", File("pull"))])
        .fork("refs/changes/01/1/1", "main", &[("change", File("change"))])
        .fork("refs/notes/commits", "main", &[("note", File("note"))])
        .fork("v0.7.0", "main", &[("seven", File("seven"))])
        .fork("v0.8.0", "main", &[("eight", File("eight"))])
        .tag("v0.8.0", &["v0.8.0"])
        .commit("v0.8.0", &[("nine", File("nine"))])
        .fork("slash/ed", "main", &[("slashed", File("slashed"))])
        .fork("Upper", "main", &[("upper", File("upper"))])
        .then(&["tag", "-a", "-m", "outer", "v0.3.0", "v0.2.0-rc.1"])
        .then(&["tag", "v0.9.0", "main^{tree}"])
        .then(&["tag", "v0.9.1", "main:go.mod"])
        .then(&["tag", "-a", "-m", "a tree", "v0.9.2", "main^{tree}"])
        .then(&["tag", "atree", "main^{tree}"])
        .then(&["tag", "v0.4", "main~3"])
        .then(&["tag", "v0.5.0+meta", "main~2"])
        .then(&["tag", "1.0.0", "main"])
        .then(&["tag", "v01.0.0", "main"])
        .then(&["config", "uploadpack.allowAnySHA1InWant", "true"])
}

/// Commits before and after all kinds of tags. `old` has no go.mod and its own line of history.
fn pseudo() -> Script {
    Script::new()
        .commit("main", &[("go.mod", File(M))])
        .tag("main", &["first"])
        .commit("main", &[("a", File("1"))])
        .tag("main", &["v1.0.0"])
        .fork("side", "main", &[("s", File("s"))])
        .commit("main", &[("a", File("2"))])
        .tag("main", &["after-release"])
        .commit("main", &[("a", File("3"))])
        .tag("main", &["v1.1.0-rc.1"])
        .commit("main", &[("a", File("4"))])
        .tag("main", &["after-prerelease"])
        .commit("main", &[("a", File("5"))])
        .tag("main", &["v1.2.0+meta", "v1.2.0+other"])
        .commit("main", &[("a", File("6"))])
        .tag("main", &["after-meta"])
        .commit("main", &[("a", File("7"))])
        .tag("main", &["v1.3.0", "v1.3.1", "v1.3.0-pre", "two"])
        .commit("main", &[("a", File("8"))])
        .tag("main", &["v3.0.0", "v1.9.0-0.20200101000000-abcdefabcdef"])
        .commit("main", &[("a", File("9"))])
        .tag("main", &["v1.4.99", "ninety-nine"])
        .commit("main", &[("a", File("10"))])
        .commit("old", &[("a", File("old"))])
        .tag("old", &["v2.1.0", "v1.9.0"])
        .commit("old", &[("a", File("older"))])
        .fork("old-split", "old", &[("v2/go.mod", File("module example.com/m/v2\n"))])
}

/// Branches and tags whose names are the first digits of other commits' hashes, and such that are none's.
fn named_like_hashes(dir: &Path) {
    let script = Script::new().commit("main", &[("go.mod", File(M))]).commit("main", &[("a", File("a"))]);
    let script = script.commit("main", &[("b", File("b"))]).commit("main", &[("c", File("c"))]);
    script.then(&["branch", "deadbeef", "main~1"]).then(&["tag", "0123456789ab", "main~2"]).build(dir);
    let [old, older] = ["main~2", "main~3"].map(|revision| git_ok(dir, &["rev-parse", revision]));
    git_ok(dir, &["branch", &old[..8], "main"]);
    git_ok(dir, &["tag", &older[..9], "main"]);
}

/// Two commits whose hashes begin with the same seven digits, as branches or only below one.
fn clashing(dir: &Path, messages: &[&str; 2], refs: bool) {
    Script::new().commit("main", &[("go.mod", File("module github.com/vcstest/clash\n"))]).build(dir);
    let [one, two] = messages.map(|message| git_ok(dir, &["commit-tree", "-m", message, "main^{tree}"]));
    assert!(one[..7] == two[..7] && one != two, "{one} {two}");
    if refs {
        git_ok(dir, &["branch", "one", &one]);
        git_ok(dir, &["branch", "two", &two]);
    }
    let merged = git_ok(dir, &["commit-tree", "-m", "both", "-p", &one, "-p", &two, "main^{tree}"]);
    git_ok(dir, &["branch", "merged", &merged]);
}

#[rustfmt::skip]
const ROWS: &[Row<'_>] = &[
    // Tags, branches, and what comes first.
    ("github.com/vcstest/refs", "v0.1.0", "v0.1.0"),
    ("github.com/vcstest/refs", "main", "v0.5.1-0.{t:main}"),
    ("github.com/vcstest/refs", "HEAD", "v0.5.1-0.{t:main}"),
    ("github.com/vcstest/refs", "head", "!unknown revision head"),
    ("github.com/vcstest/refs", "both", "v0.1.0"),
    ("github.com/vcstest/refs", "other", "v0.1.0"),
    ("github.com/vcstest/refs", "v0.0.9", "v0.0.9"),
    ("github.com/vcstest/refs", "noted", "v0.3.0"),
    ("github.com/vcstest/refs", "v0.2.0-rc.1", "v0.2.0-rc.1"),
    ("github.com/vcstest/refs", "v0.3.0", "v0.3.0"),
    ("github.com/vcstest/refs", "atree", "!"),
    ("github.com/vcstest/refs", "v0.9.0", "!"),
    ("github.com/vcstest/refs", "v0.9.1", "!"),
    ("github.com/vcstest/refs", "v0.9.2", "!"),
    ("github.com/vcstest/refs", "v0.5.0+meta", "v0.5.1-0.{t:main~2}"),
    ("github.com/vcstest/refs", "v0.5.0", "!unknown revision v0.5.0"),
    ("github.com/vcstest/refs", "v0.5.0+other", "!unknown revision v0.5.0+other"),
    ("github.com/vcstest/refs", "v0.1.0+other", "v0.1.0"),
    ("github.com/vcstest/refs", "1.0.0", "v0.5.1-0.{t:main}"),
    ("github.com/vcstest/refs", "v01.0.0", "v0.5.1-0.{t:main}"),
    ("github.com/vcstest/refs", "v1.0.0", "!unknown revision v1.0.0"),
    ("github.com/vcstest/refs", "v0.7.0", "!resolves to version v0.5.1-0.{t:refs/heads/v0.7.0} (v0.7.0 is not a tag)"),
    ("github.com/vcstest/refs", "v0.8.0", "v0.8.0"),
    ("github.com/vcstest/refs", "Upper", "v0.5.1-0.{t:Upper}"),
    ("github.com/vcstest/refs", "upper", "!unknown revision upper"),
    ("github.com/vcstest/refs", "v0.1", "v0.1.0"),
    ("github.com/vcstest/refs", "v0.4", "!"),
    ("github.com/vcstest/refs", "latest", "!"),
    // Hashes.
    ("github.com/vcstest/refs", "{main}", "v0.5.1-0.{t:main}"),
    ("github.com/vcstest/refs", "{main:12}", "v0.5.1-0.{t:main}"),
    ("github.com/vcstest/refs", "{main:7}", "v0.5.1-0.{t:main}"),
    ("github.com/vcstest/refs", "{main:6}", "!unknown revision"),
    ("github.com/vcstest/refs", "{main:^12}", "!unknown revision"),
    ("github.com/vcstest/refs", "{main:^40}", "!unknown revision"),
    ("github.com/vcstest/refs", "{main}0", "!unknown revision"),
    ("github.com/vcstest/refs", "{main~2}", "v0.5.1-0.{t:main~2}"),
    ("github.com/vcstest/refs", "{main~2:8}", "v0.5.1-0.{t:main~2}"),
    ("github.com/vcstest/refs", "{main~3:10}", "v0.1.0"),
    ("github.com/vcstest/refs", "{slash/ed:12}", "v0.5.1-0.{t:slash/ed}"),
    ("github.com/vcstest/refs", "0000000", "!unknown revision 0000000"),
    ("github.com/vcstest/refs", "0000000000000000000000000000000000000000", "!unknown revision"),
    // Only branches and tags have commits.
    ("github.com/vcstest/refs", "{refs/pull/1/head}", "!unknown revision"),
    ("github.com/vcstest/refs", "{refs/pull/1/head:12}", "!unknown revision"),
    ("github.com/vcstest/refs", "v0.5.1-0.{t:refs/pull/1/head}", "!unknown revision"),
    ("github.com/vcstest/refs", "v0.0.0-{t:refs/pull/1/head}", "!unknown revision"),
    ("github.com/vcstest/refs", "{refs/changes/01/1/1}", "!unknown revision"),
    ("github.com/vcstest/refs", "{refs/notes/commits:12}", "!unknown revision"),
    // What git would understand.
    ("github.com/vcstest/refs", "HEAD~1", "!unknown revision"),
    ("github.com/vcstest/refs", "main^0", "!unknown revision"),
    ("github.com/vcstest/refs", "main~1", "!unknown revision"),
    ("github.com/vcstest/refs", "main..both", "!unknown revision"),
    ("github.com/vcstest/refs", "@", "!"),
    ("github.com/vcstest/refs", "FETCH_HEAD", "!unknown revision"),
    ("github.com/vcstest/refs", "origin", "!unknown revision"),
    ("github.com/vcstest/refs", "v0.2.0-rc.1-1-g{main:7}", "!unknown revision"),
    // Names made of hex digits; first those of commits that are there, as the go command looks no further once it has them.
    ("github.com/vcstest/hexnames", "{main~2:8}", "v0.0.0-{t:main}"),
    ("github.com/vcstest/hexnames", "{main~3:9}", "v0.0.0-{t:main}"),
    ("github.com/vcstest/hexnames", "deadbeef", "v0.0.0-{t:main~1}"),
    ("github.com/vcstest/hexnames", "0123456789ab", "v0.0.0-{t:main~2}"),
    ("github.com/vcstest/hexnames", "{main~2:10}", "v0.0.0-{t:main~2}"),
    ("github.com/vcstest/clash", "97c2300", "!ambiguous revision 97c2300"),
    ("github.com/vcstest/clash", "97c23008", "v0.0.0-20200913122640-97c230087028"),
    ("github.com/vcstest/clash", "merged", "v0.0.0-{t:merged}"),
    ("github.com/vcstest/clash-below", "cf385ee", "!unknown revision cf385ee"),
    ("github.com/vcstest/clash-below", "cf385ee3", "v0.0.0-20200913122640-cf385ee3538d"),
    // SHA-256.
    ("github.com/vcstest/long", "main", "v0.2.1-0.{t:main}"),
    ("github.com/vcstest/long", "v0.2.0", "v0.2.0"),
    ("github.com/vcstest/long", "{main}", "v0.2.1-0.{t:main}"),
    ("github.com/vcstest/long", "{main:40}", "v0.2.1-0.{t:main}"),
    ("github.com/vcstest/long", "{main~2:12}", "v0.1.1-0.{t:main~2}"),
    ("github.com/vcstest/long", "{main~2}", "v0.1.1-0.{t:main~2}"),
    ("github.com/vcstest/long", "v0.1.1-0.{t:main~2}", "v0.1.1-0.{t:main~2}"),
    ("github.com/vcstest/long", "v0.0.0-{t:main~2}", "v0.0.0-{t:main~2}"),
    ("github.com/vcstest/long", "{main}0", "!unknown revision"),
    ("github.com/vcstest/long", "latest", "v0.2.0"),
    // No commits, or no branch to begin with.
    ("github.com/vcstest/empty", "latest", "!"),
    ("github.com/vcstest/empty", "main", "!unknown revision main"),
    ("github.com/vcstest/empty", "HEAD", "!unknown revision HEAD"),
    ("github.com/vcstest/empty", "v1.0.0", "!unknown revision v1.0.0"),
    ("github.com/vcstest/headless", "latest", "v0.1.0"),
    ("github.com/vcstest/headless", "HEAD", "!unknown revision HEAD"),
    ("github.com/vcstest/headless", "main", "v0.1.1-0.{t:main}"),
    ("github.com/vcstest/headless-untagged", "latest", "!"),
    ("github.com/vcstest/headless-untagged", "main", "v0.0.0-{t:main}"),
    ("github.com/vcstest/trunk", "latest", "v0.0.0-{t:trunk}"),
    ("github.com/vcstest/trunk", "HEAD", "v0.0.0-{t:trunk}"),
    ("github.com/vcstest/absent", "latest", "!"),
    ("github.com/vcstest/absent", "v1.0.0", "!"),
];

#[rustfmt::skip]
const PSEUDO: &[Row<'_>] = &[
    // As they are made.
    ("github.com/vcstest/pseudo", "first", "v0.0.0-{t:first}"),
    ("github.com/vcstest/pseudo", "side", "v1.0.1-0.{t:side}"),
    ("github.com/vcstest/pseudo", "after-release", "v1.0.1-0.{t:after-release}"),
    ("github.com/vcstest/pseudo", "after-prerelease", "v1.1.0-rc.1.0.{t:after-prerelease}"),
    ("github.com/vcstest/pseudo", "v1.2.0+meta", "v1.2.1-0.{t:v1.2.0+meta}"),
    ("github.com/vcstest/pseudo", "{v1.2.0+meta:12}", "v1.2.1-0.{t:v1.2.0+meta}"),
    ("github.com/vcstest/pseudo", "after-meta", "v1.2.1-0.{t:after-meta}"),
    ("github.com/vcstest/pseudo", "two", "v1.3.1"),
    ("github.com/vcstest/pseudo", "v1.3.0", "v1.3.0"),
    ("github.com/vcstest/pseudo", "v1.3.0-pre", "v1.3.0-pre"),
    ("github.com/vcstest/pseudo", "v3.0.0", "!module contains a go.mod file, so module path must match major version (\"github.com/vcstest/pseudo/v3\")"),
    ("github.com/vcstest/pseudo", "{v3.0.0:12}", "v1.3.2-0.{t:v3.0.0}"),
    ("github.com/vcstest/pseudo", "v1.9.0-0.20200101000000-abcdefabcdef", "!unknown revision abcdefabcdef"),
    ("github.com/vcstest/pseudo", "ninety-nine", "v1.4.99"),
    ("github.com/vcstest/pseudo", "main", "v1.4.100-0.{t:main}"),
    ("github.com/vcstest/pseudo", "old", "v2.1.1-0.{t:old}+incompatible"),
    ("github.com/vcstest/pseudo", "old-split", "v1.9.1-0.{t:old-split}"),
    ("github.com/vcstest/pseudo", "latest", "v2.1.0+incompatible"),
    // As they are asked for, other good ones among them.
    ("github.com/vcstest/pseudo", "v0.0.0-{t:main}", "v0.0.0-{t:main}"),
    ("github.com/vcstest/pseudo", "v1.0.1-0.{t:main}", "v1.0.1-0.{t:main}"),
    ("github.com/vcstest/pseudo", "v1.1.0-rc.1.0.{t:main}", "v1.1.0-rc.1.0.{t:main}"),
    ("github.com/vcstest/pseudo", "v1.2.1-0.{t:main}", "v1.2.1-0.{t:main}"),
    ("github.com/vcstest/pseudo", "v0.0.0-{t:two}", "v0.0.0-{t:two}"),
    ("github.com/vcstest/pseudo", "v2.1.1-0.{t:old}", "v2.1.1-0.{t:old}+incompatible"),
    ("github.com/vcstest/pseudo", "v2.1.1-0.{t:old-split}+incompatible", "v2.1.1-0.{t:old-split}+incompatible"),
    ("github.com/vcstest/pseudo", "v2.1.1-0.{t:old-split}", "!module contains a go.mod file, so module path must match major version"),
    ("github.com/vcstest/pseudo", "v2.0.0-{t:old}", "v2.0.0-{t:old}+incompatible"),
    ("github.com/vcstest/pseudo", "v5.0.0-{t:old}+incompatible", "v5.0.0-{t:old}+incompatible"),
    ("github.com/vcstest/pseudo", "v1.9.1-0.{t:old}", "v1.9.1-0.{t:old}"),
    // Bad ones.
    ("github.com/vcstest/pseudo", "v1.4.100-0.{t:main}+incompatible", "!+incompatible suffix not allowed: major version v1 is compatible"),
    ("github.com/vcstest/pseudo", "v2.0.0-{t:main}", "!module contains a go.mod file, so module path must match major version"),
    ("github.com/vcstest/pseudo", "v2.0.0-{t:main}+incompatible", "!module contains a go.mod file, so module path must match major version"),
    ("github.com/vcstest/pseudo", "v1.3.1-0.{t:two}", "!invalid pseudo-version: tag (v1.3.0) found on revision {two:12} is already canonical"),
    ("github.com/vcstest/pseudo", "v1.3.0-pre.0.{t:two}", "!invalid pseudo-version: tag (v1.3.0-pre) found on revision {two:12} is already canonical"),
    ("github.com/vcstest/pseudo", "v1.5.1-0.{t:main}", "!invalid pseudo-version: preceding tag (v1.5.0) not found"),
    ("github.com/vcstest/pseudo", "v1.1.1-0.{t:main}", "!invalid pseudo-version: preceding tag (v1.1.0) not found"),
    ("github.com/vcstest/pseudo", "v1.4.100-0.{t:two}", "!invalid pseudo-version: revision {two:12} is not a descendent of preceding tag (v1.4.99)"),
    ("github.com/vcstest/pseudo", "v1.1.0-rc.1.0.{t:side}", "!is not a descendent of preceding tag (v1.1.0-rc.1)"),
    ("github.com/vcstest/pseudo", "v1.2.1-0.{t:side}", "!is not a descendent of preceding tag (v1.2.0+"),
    ("github.com/vcstest/pseudo", "v1.0.0-{t:main}", "!invalid pseudo-version: major version without preceding tag must be v0, not v1"),
    ("github.com/vcstest/pseudo", "v1.0.0-0.{t:main}", "!version before v1.0.0 would have negative patch number"),
    ("github.com/vcstest/pseudo", "v0.0.0-0.{t:main}", "!version before v0.0.0 would have negative patch number"),
    ("github.com/vcstest/pseudo", "v0.0.0-20200101000000-{main:12}", "!invalid pseudo-version: does not match version-control timestamp (expected 2020"),
    ("github.com/vcstest/pseudo", "v0.0.0-20209999000000-{main:12}", "!"),
    ("github.com/vcstest/pseudo", "v0.0.0-20200913122640-{first:11}", "!invalid pseudo-version: revision is shorter than canonical (expected {first:12})"),
    ("github.com/vcstest/pseudo", "v0.0.0-20200913122640-{first}", "!invalid pseudo-version: revision is longer than canonical (expected {first:12})"),
    ("github.com/vcstest/pseudo", "v0.0.0-20200913122640-{first:6}", "!unknown revision"),
    ("github.com/vcstest/pseudo", "v0.0.0-20200913122640-{first:^12}", "!unknown revision"),
    ("github.com/vcstest/pseudo", "v0.0.0-20200913122640-first", "!invalid pseudo-version: does not match short name of revision (expected {first:12})"),
    ("github.com/vcstest/pseudo", "v0.0.0-20200913122640-ffffffffffff", "!unknown revision ffffffffffff"),
    ("github.com/vcstest/pseudo/v2", "v2.0.0-{t:main}", "!go.mod has non-.../v2 module path \"example.com/m\" (and .../v2/go.mod does not exist) at revision {main:12}"),
];

#[rustfmt::skip]
const LISTS: &[ListRow] = &[
    ("github.com/vcstest/refs", "v0.0.9 v0.1.0 v0.2.0-rc.1 v0.3.0 v0.8.0 v0.9.0 v0.9.1 v0.9.2"),
    ("github.com/vcstest/pseudo", "v1.0.0 v1.1.0-rc.1 v1.3.0-pre v1.3.0 v1.3.1 v1.4.99 v1.9.0 v2.1.0+incompatible"),
    ("github.com/vcstest/long", "v0.1.0 v0.2.0"),
    ("github.com/vcstest/empty", ""),
    ("github.com/vcstest/headless", "v0.1.0"),
    ("github.com/vcstest/headless-untagged", ""),
    ("github.com/vcstest/absent", "!"),
];

/// What the go command answers by itself, or never asks for: only modgate is asked, over HTTP.
#[rustfmt::skip]
const ASKED: &[Row<'_>] = &[
    ("github.com/vcstest/refs", "--help", "!unknown revision"),
    ("github.com/vcstest/refs", "-n1", "!unknown revision"),
    ("github.com/vcstest/refs", "--upload-pack=x", "!unknown revision"),
    ("github.com/vcstest/refs", "v0.1.0+other", "!unknown revision v0.1.0+other"),
    ("github.com/vcstest/refs", "v0.4", "v0.1.0"),
    ("github.com/vcstest/refs", "v0", "!unknown revision"),
    ("github.com/vcstest/refs", "slash/ed", "!"),
    ("github.com/vcstest/refs", "refs/heads/main", "!"),
    ("github.com/vcstest/refs", "main^{tree}", "!"),
    ("github.com/vcstest/refs", "@{-1}", "!"),
    ("github.com/vcstest/refs", ":go.mod", "!"),
    ("github.com/vcstest/refs", "main:go.mod", "!"),
    ("github.com/vcstest/refs", "aux", "!"),
    ("github.com/vcstest/refs", "...", "!"),
];

#[test]
fn what_names_a_commit_becomes_the_same_version() {
    let sides = Sides::new(build);
    let mut findings = Findings::new("revisions");
    compare(&sides, ROWS, &mut findings);
    compare(&sides, PSEUDO, &mut findings);
    compare_lists(&sides, LISTS, &mut findings);
    ask(&sides, ASKED, &mut findings);
    findings.end();
}

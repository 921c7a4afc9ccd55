//! Which versions a repository has, and which of them are retracted.

use std::path::Path;

use super::rows::{Findings, ListRow, Row, compare, compare_lists};
use super::sides::Sides;
use crate::support::git::Change::{File, Gone};
use crate::support::git::Script;

const M: &str = "module example.com/m\n";

/// A repository, and its tags in order, each with the files of its commit beside the one that all have.
type Tagged = (&'static str, &'static [(&'static str, &'static [(&'static str, &'static str)])]);

const PLAIN: &[(&str, &str)] = &[];
const TOP: &[(&str, &str)] = &[("go.mod", M)];

#[rustfmt::skip]
const REPOSITORIES: &[Tagged] = &[
    ("list1", &[("v1.0.0", PLAIN), ("v2.0.0", PLAIN), ("v2.1.0-beta", PLAIN), ("v2.1.0", PLAIN), ("v3.0.0", TOP),
        ("v4.0.0-rc.1", PLAIN), ("v4.1.0", &[("v4/go.mod", "module example.com/m/v4\n")])]),
    ("list2", &[("v1.5.0", TOP), ("v2.0.0", PLAIN), ("v3.1.0", PLAIN)]),
    ("list3", &[("v1.0.0", PLAIN), ("v2.0.0", PLAIN), ("v2.1.0", TOP), ("v3.0.0", PLAIN), ("v3.0.1-pre", PLAIN)]),
    ("list4", &[("v1.0.0", PLAIN), ("v1.1.0-alpha", TOP), ("v2.0.0", PLAIN)]),
    ("list5", &[("v2.0.0", PLAIN), ("v2.0.1+incompatible", PLAIN), ("v2.3.0+meta", PLAIN), ("v2.4.0", &[("go.mod", "module example.com/m/v2\n")])]),
    // By order and not by text, and numbers that no machine word holds.
    ("order", &[("v0.10.0", TOP), ("v0.9.0", TOP), ("v0.0.1-a-b.c-d", TOP), ("v0.0.1-a.b", TOP), ("v0.0.1-a.10", TOP),
        ("v0.0.1-a.2", TOP), ("v0.0.1-A", TOP), ("v0.0.1--", TOP), ("v0.0.1-99999999999999999999999", TOP), ("v0.0.1-10", TOP),
        ("v0.0.1-2", TOP), ("v0.18446744073709551616.0", TOP), ("v0.18446744073709551615.0", TOP), ("v0.0.1-alpha.beta", TOP),
        ("v0.0.1-rc.1", TOP), ("v0.0.1-rc.10", TOP), ("v0.0.1-rc.2", TOP), ("v0.0.0", TOP)]),
    // None of these is a version that a list may have.
    ("none", &[("1.0.0", TOP), ("V1.0.0", TOP), ("v1", TOP), ("v1.2", TOP), ("v01.0.0", TOP), ("v1.0.0.0", TOP), ("v1.0.0-", TOP),
        ("v1.0.0-01", TOP), ("v1.0-rc1", TOP), ("v1.0.0+meta", TOP), ("v1.0.1+incompatible", TOP), ("release-1", TOP),
        ("v0.0.0-20200101000000-abcdefabcdef", TOP), ("v1.0.1-0.20200101000000-abcdefabcdef", TOP), ("sub/v1.0.0", TOP), ("xv1.0.0", TOP)]),
    // The highest of them is a prerelease without a go.mod.
    ("mixed", &[("v1.0.0", TOP), ("v1.1.0-pre", PLAIN), ("v2.0.0", PLAIN), ("v10.0.0", PLAIN), ("v9.0.0", PLAIN)]),
    // Without a version that needs no suffix.
    ("higher", &[("v2.0.0", PLAIN), ("v3.0.0", PLAIN), ("v3.1.0-pre", TOP), ("v4.0.0-a", TOP), ("v4.0.0", PLAIN)]),
    ("nested", &[("v1.0.0", &[("sub/go.mod", "module example.com/m/sub\n")]), ("sub/v1.2.0", &[("sub/go.mod", "module example.com/m/sub\n")]),
        ("sub/v2.0.0", &[("sub/go.mod", "module example.com/m/sub\n")]), ("sub/v2/v2.1.0", &[("sub/v2/go.mod", "module example.com/m/sub/v2\n")]),
        ("sub/deep/v0.1.0", &[("sub/deep/go.mod", "module example.com/m/sub/deep\n")]), ("subv1.0.0", PLAIN)]),
];

#[rustfmt::skip]
const LISTS: &[ListRow] = &[
    ("github.com/vcstest/list1", "v1.0.0 v2.0.0+incompatible v2.1.0-beta+incompatible v2.1.0+incompatible v4.0.0-rc.1+incompatible v4.1.0+incompatible"),
    ("github.com/vcstest/list1/v2", "v2.0.0 v2.1.0-beta v2.1.0"),
    ("github.com/vcstest/list1/v3", "v3.0.0"),
    ("github.com/vcstest/list1/v4", "v4.0.0-rc.1 v4.1.0"),
    ("github.com/vcstest/list1/v5", ""),
    ("github.com/vcstest/list2", "v1.5.0"),
    ("github.com/vcstest/list3", "v1.0.0 v3.0.0+incompatible v3.0.1-pre+incompatible"),
    ("github.com/vcstest/list4", "v1.0.0 v1.1.0-alpha"),
    ("github.com/vcstest/list5", ""),
    ("github.com/vcstest/list5/v2", "v2.0.0 v2.4.0"),
    ("github.com/vcstest/order", "v0.0.0 v0.0.1-2 v0.0.1-10 v0.0.1-99999999999999999999999 v0.0.1-- v0.0.1-A v0.0.1-a.2 v0.0.1-a.10 v0.0.1-a.b v0.0.1-a-b.c-d v0.0.1-alpha.beta v0.0.1-rc.1 v0.0.1-rc.2 v0.0.1-rc.10 v0.9.0 v0.10.0 v0.18446744073709551615.0 v0.18446744073709551616.0"),
    ("github.com/vcstest/none", ""),
    ("github.com/vcstest/mixed", "v1.0.0 v1.1.0-pre v2.0.0+incompatible v9.0.0+incompatible v10.0.0+incompatible"),
    ("github.com/vcstest/higher", "v2.0.0+incompatible v4.0.0-a+incompatible v4.0.0+incompatible"),
    ("github.com/vcstest/nested", "v1.0.0"),
    ("github.com/vcstest/nested/sub", "v1.2.0"),
    ("github.com/vcstest/nested/sub/v2", "v2.0.0"),
    ("github.com/vcstest/nested/sub/deep", "v0.1.0"),
    ("github.com/vcstest/nested/v2", ""),
];

#[rustfmt::skip]
const LATEST: &[Row<'_>] = &[
    ("github.com/vcstest/list1", "latest", "v4.1.0+incompatible"),
    ("github.com/vcstest/list1", "v4.1.0+incompatible", "v4.1.0+incompatible"),
    ("github.com/vcstest/list1", "v4.1.0", "!module contains a go.mod file, so module path must match major version (\"github.com/vcstest/list1/v4\")"),
    ("github.com/vcstest/list1", "v3.0.0+incompatible", "!module contains a go.mod file, so module path must match major version"),
    ("github.com/vcstest/list1", "v1.0.0+incompatible", "!+incompatible suffix not allowed: major version v1 is compatible"),
    ("github.com/vcstest/list1", "v2.0.0", "v2.0.0+incompatible"),
    ("github.com/vcstest/list1", "v2", "v2.1.0+incompatible"),
    ("github.com/vcstest/list1/v4", "latest", "v4.1.0"),
    ("github.com/vcstest/list1/v5", "latest", "!"),
    ("github.com/vcstest/list2", "latest", "v1.5.0"),
    ("github.com/vcstest/list2", "v2.0.0+incompatible", "v2.0.0+incompatible"),
    ("github.com/vcstest/list3", "latest", "v3.0.0+incompatible"),
    ("github.com/vcstest/list4", "latest", "v1.0.0"),
    ("github.com/vcstest/list5", "latest", "!"),
    ("github.com/vcstest/order", "latest", "v0.18446744073709551616.0"),
    ("github.com/vcstest/order", "v0.0.1--", "v0.0.1--"),
    ("github.com/vcstest/order", "v0.0.1-A", "v0.0.1-A"),
    ("github.com/vcstest/none", "latest", "v1.0.2-0.{t:main}"),
    ("github.com/vcstest/none", "v1.0.0+meta", "v1.0.1-0.{t:v1.0.0+meta}"),
    ("github.com/vcstest/none", "v1.0.1+incompatible", "!unknown revision v1.0.1"),
    ("github.com/vcstest/mixed", "latest", "v10.0.0+incompatible"),
    ("github.com/vcstest/higher", "latest", "v4.0.0+incompatible"),
    ("github.com/vcstest/nested/sub", "latest", "v1.2.0"),
    ("github.com/vcstest/nested/sub", "v2.0.0", "!"),
    ("github.com/vcstest/nested/sub", "v2.0.0+incompatible", "!"),
    ("github.com/vcstest/nested/sub/v2", "v2.1.0", "!unknown revision sub/v2.1.0"),
    ("github.com/vcstest/nested/sub/deep", "latest", "v0.1.0"),
];

/// What the go.mod of v1.1.0 has below its module line, and which version a commit is that has the tags v1.0.0 and v1.0.1.
#[rustfmt::skip]
const RETRACTIONS: &[(&str, &str)] = &[
    ("retract v1.0.1", "v1.0.0"),
    ("retract \"v1.0.1\"", "v1.0.0"),
    ("retract [v1.0.1, v1.0.1]", "v1.0.0"),
    ("retract (\n\tv1.0.1\n)", "v1.0.0"),
    ("retract (\n\t[v1.0.1, v1.0.9] // why\n\tv1.7.0\n)", "v1.0.0"),
    ("retract v1.0.1+meta", "v1.0.0"),
    ("retract v1.0.1 and more words", "v1.0.0"),
    ("retract v1.0.1 // a reason", "v1.0.0"),
    ("unknown directive\nretract v1.0.1", "v1.0.0"),
    ("unknown (\n\tblock v1\n)\nretract v1.0.1", "v1.0.0"),
    ("replace nonsense\nretract v1.0.1", "v1.0.0"),
    ("go 1.18x\nretract v1.0.1", "v1.0.0"),
    ("go 1.18\nretract v1.0.1", "v1.0.0"),
    ("go v1.18.x\nretract v1.0.1", "v1.0.0"),
    ("go 1.21rc2\nretract v1.0.1", "v1.0.0"),
    ("go (\n\t1.18\n)\nretract v1.0.1", "v1.0.0"),
    ("require x.y/z v1.0.0\nretract v1.0.1", "v1.0.0"),
    ("require x.y/z v2.0.0+incompatible\nretract v1.0.1", "v1.0.0"),
    ("require x.y/z v1.0\nretract v1.0.1", "v1.0.0"),
    ("require x.y/z v1\nretract v1.0.1", "v1.0.0"),
    ("require x.y/z v1.0.0+meta\nretract v1.0.1", "v1.0.0"),
    ("require \"x.y/z\" \"v1.0.0\"\nretract v1.0.1", "v1.0.0"),
    ("require x.y/z v1.0.0+incompatible\nretract v1.0.1", "v1.0.0"),
    ("require ()\nretract v1.0.1", "v1.0.0"),
    ("retract ()\nretract v1.0.1", "v1.0.0"),
    ("go 1.18.4\nretract v1.0.1", "v1.0.0"),
    ("go 1.18.x\nretract v1.0.1", "v1.0.0"),
    ("module_x y\nretract v1.0.1", "v1.0.0"),
    ("{ [ , }\nretract v1.0.1", "v1.0.0"),
    ("retract \"v1.0.1\" // a \"quote", "v1.0.0"),
    ("x \"/* in a string */\"\nretract v1.0.1", "v1.0.0"),
    ("toolchain banana\nretract v1.0.1", "v1.0.0"),
    ("exclude x.y/z\nretract v1.0.1", "v1.0.0"),
    ("ignore ./x\nretract v1.0.1", "v1.0.0"),
    ("retract v1.0.1\r", "v1.0.0"),
    ("retract [v1.0.0, v1.0.1]", ""),
    ("retract (\n\tv1.0.0\n\tv1.0.1\n)", ""),
    ("retract v1.0.0\nretract v1.0.1", ""),
    ("retract [v1, v2]", ""),
    ("retract [foo, v1.0.1]", ""),
    ("retract [v0.0.0, v1.9.0]", ""),
    ("retract v1.0.0", "v1.0.1"),
    ("retract v1", "v1.0.1"),
    ("retract v1.0", "v1.0.1"),
    ("retract [v1.0.1 v1.0.1]", "v1.0.1"),
    ("retract [v1.0.0, v1.0.1", "v1.0.1"),
    ("retract (v1.0.1)", "v1.0.1"),
    ("retract `v1.0.1`", "v1.0.1"),
    ("retract 'v1.0.1'", "v1.0.1"),
    ("retract foo", "v1.0.1"),
    ("retract", "v1.0.1"),
    ("retract [v1.0.1, v1.0.0]", "v1.0.1"),
    ("retract v1.0.10", "v1.0.1"),
    ("// retract v1.0.1", "v1.0.1"),
    ("require x.y/z\nretract v1.0.1", "v1.0.1"),
    ("require x.y/z v2.0.0\nretract v1.0.1", "v1.0.1"),
    ("require x.y/z banana\nretract v1.0.1", "v1.0.1"),
    ("require x.y/z v2\nretract v1.0.1", "v1.0.1"),
    ("require x.y/z/v0 v0.1.0\nretract v1.0.1", "v1.0.1"),
    ("require gopkg.in/y v1.0.0\nretract v1.0.1", "v1.0.1"),
    ("require `x.y/z` v1.0.0\nretract v1.0.1", "v1.0.1"),
    ("require x.y/\"z\" v1.0.0\nretract v1.0.1", "v1.0.1"),
    ("module (\n\tagain\n)\nretract v1.0.1", "v1.0.1"),
    ("require (\n\tx.y/z\n)\nretract v1.0.1", "v1.0.1"),
    ("go 1.18.x.y\ngo 1.18\nretract v1.0.1", "v1.0.1"),
    ("go 01.18\nretract v1.0.1", "v1.0.1"),
    ("require x.y/z v1.0.0 v1.0.0\nretract v1.0.1", "v1.0.1"),
    ("go 1.18\ngo 1.18\nretract v1.0.1", "v1.0.1"),
    ("go banana\nretract v1.0.1", "v1.0.1"),
    ("go\nretract v1.0.1", "v1.0.1"),
    ("module again\nretract v1.0.1", "v1.0.1"),
    ("/* a comment */\nretract v1.0.1", "v1.0.1"),
    ("retract v1.0.1\nrequire (\n", "v1.0.1"),
    ("retract v1.0.1 \"open", "v1.0.1"),
    ("retract v1.0.1\nunknown (\n) more", "v1.0.1"),
    ("retract v1.0.1\nunknown \u{1}", "v1.0.1"),
    ("ignore\nretract v1.0.1", "v1.0.1"),
];

fn build(root: &Path) {
    for (name, tags) in REPOSITORIES {
        let mut script = Script::new();
        for (tag, files) in *tags {
            let mut changes = vec![("go.mod", Gone), ("v4", Gone), ("sub", Gone), ("tag", File(tag))];
            changes.extend(files.iter().map(|(path, text)| (*path, File(text))));
            script = script.commit("main", &changes).tag("main", &[tag]);
        }
        script.build(&root.join(name));
    }
    retractions().build(&root.join("retract"));
    // A repository of prereleases alone: the highest of them counts.
    Script::new()
        .commit("main", &[("go.mod", File(M))])
        .tag("main", &["v1.0.0-a", "v1.0.0-b"])
        .commit("main", &[("go.mod", File("module example.com/m\nretract v1.0.0-b\n"))])
        .tag("main", &["v1.0.0-c"])
        .commit("main", &[("go.mod", File("module example.com/m\nretract v1.0.0-a\n"))])
        .build(&root.join("retract-pre"));
    // A retraction that retracts its own version, and a later prerelease that is not asked.
    Script::new()
        .commit("main", &[("go.mod", File(M))])
        .tag("main", &["v1.0.0", "first"])
        .commit("main", &[("go.mod", File("module example.com/m\nretract [v1.0.0, v1.0.1]\n"))])
        .tag("main", &["v1.0.1", "second"])
        .commit("main", &[("go.mod", File(M))])
        .tag("main", &["v1.1.0-pre"])
        .commit("main", &[("a", File("a"))])
        .build(&root.join("retract-self"));
}

/// One folder for each row.
fn retractions() -> Script {
    let folder = |at: usize| format!("r{at:02}");
    let paths: Vec<String> = (0..RETRACTIONS.len()).map(|at| format!("{}/go.mod", folder(at))).collect();
    let texts: Vec<String> = RETRACTIONS.iter().map(|(text, _)| format!("{M}\n{text}\n")).collect();
    let tags = |version: &str| (0..RETRACTIONS.len()).map(|at| format!("{}/{version}", folder(at))).collect::<Vec<_>>();
    let (mut script, mut changes) = (Script::new(), Vec::new());
    changes.extend(paths.iter().map(|path| (path.as_str(), File(M))));
    script = script.commit("main", &changes).tag("main", &["start"]);
    for version in ["v1.0.0", "v1.0.1"] {
        script = script.tag("main", &tags(version).iter().map(String::as_str).collect::<Vec<_>>());
    }
    changes = paths.iter().zip(&texts).map(|(path, text)| (path.as_str(), File(text))).collect();
    script.commit("main", &changes).tag("main", &tags("v1.1.0").iter().map(String::as_str).collect::<Vec<_>>())
}

#[rustfmt::skip]
const RETRACTED: &[Row<'_>] = &[
    ("github.com/vcstest/retract-pre", "{v1.0.0-a:12}", "v1.0.0-a"),
    ("github.com/vcstest/retract-pre", "main", "v1.0.0-c.0.{t:main}"),
    ("github.com/vcstest/retract-pre", "latest", "v1.0.0-c"),
    ("github.com/vcstest/retract-self", "first", "v0.0.0-{t:first}"),
    ("github.com/vcstest/retract-self", "second", "v0.0.0-{t:second}"),
    ("github.com/vcstest/retract-self", "v1.0.1", "v1.0.1"),
    ("github.com/vcstest/retract-self", "v1.0.1-0.{t:second}", "v1.0.1-0.{t:second}"),
    ("github.com/vcstest/retract-self", "latest", "v1.1.0-pre"),
    ("github.com/vcstest/retract-self", "main", "v1.1.0-pre.0.{t:main}"),
];

#[test]
fn the_same_versions_are_listed_and_the_latest_is_the_same() {
    let sides = Sides::new(build);
    let mut findings = Findings::new("lists");
    compare_lists(&sides, LISTS, &mut findings);
    compare(&sides, LATEST, &mut findings);
    findings.end();
}

#[test]
fn what_is_retracted_is_no_version_of_a_commit() {
    let sides = Sides::new(build);
    let mut findings = Findings::new("retractions");
    let rows: Vec<[String; 3]> = RETRACTIONS
        .iter()
        .enumerate()
        .map(|(at, (_, version))| {
            let want = if version.is_empty() { "v0.0.0-{t:start}" } else { version };
            [format!("github.com/vcstest/retract/r{at:02}"), "start".to_owned(), want.to_owned()]
        })
        .collect();
    compare(&sides, &rows.iter().map(|[module, query, want]| (&**module, &**query, &**want)).collect::<Vec<_>>(), &mut findings);
    compare(&sides, RETRACTED, &mut findings);
    findings.end();
}

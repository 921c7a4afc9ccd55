//! What is in a version's zip: which of the files, and each with which contents.

use std::path::Path;

use super::rows::{Findings, compare_zips};
use super::sides::Sides;
use crate::support::git::Change::{self, Bytes, File, Large, Link, Submodule};
use crate::support::git::Script;

/// Files of a module at the top of a repository beside its go.mod, and the names in the zip, or `!` where there is none.
type Tree = (&'static [(&'static str, Change<'static>)], &'static [&'static str]);

const TEXT: Change<'static> = File("text\n");
const OLD: Change<'static> = File("module example.com/m\n\ngo 1.23\n");
const NEW: Change<'static> = File("module example.com/m\n\ngo 1.24\n");
const REFUSED: &[&str] = &["!"];
const LIMIT: usize = 16 << 20;

#[rustfmt::skip]
const TREES: &[Tree] = &[
    (&[("m.go", TEXT), ("cmd/hello/hello.go", TEXT)], &["cmd/hello/hello.go", "go.mod", "m.go"]),
    (&[("go.mod", Change::Gone)], &[]),
    (&[("go.mod", Change::Gone), ("m.go", TEXT)], &["m.go"]),
    // Names.
    (&[("go.mod", Change::Gone), ("GO.MOD", OLD)], REFUSED),
    (&[("b/GO.MOD", OLD), ("b/b.go", TEXT), ("c/c.go", TEXT)], &["c/c.go", "go.mod"]),
    (&[("b/Go.mod", OLD), ("b/deep/x.go", TEXT)], &["go.mod"]),
    (&[("sub/go.mod", OLD), ("sub/x.go'", TEXT)], &["go.mod"]),
    (&[("sub/go.mod", Link("../go.mod")), ("sub/x.go", TEXT)], &["go.mod", "sub/x.go"]),
    (&[("sub/go.mod/x.go", TEXT), ("sub/y.go", TEXT)], &["go.mod", "sub/go.mod/x.go", "sub/y.go"]),
    (&[("bad.go'", TEXT)], REFUSED),
    (&[("a*b", TEXT)], REFUSED),
    (&[("a:b", TEXT)], REFUSED),
    (&[("a\\b", TEXT)], REFUSED),
    (&[("a\"b", TEXT)], REFUSED),
    (&[("a|b", TEXT)], REFUSED),
    (&[("a;b", TEXT)], REFUSED),
    (&[("a`b", TEXT)], REFUSED),
    (&[("a?b", TEXT)], REFUSED),
    (&[("a<b>", TEXT)], REFUSED),
    (&[("aux.txt", TEXT)], REFUSED),
    (&[("x/con", TEXT)], REFUSED),
    (&[("x/COM1.a.b", TEXT)], REFUSED),
    (&[("nul", TEXT)], REFUSED),
    (&[("com0", TEXT), ("com10", TEXT), ("auxiliary", TEXT)], &["auxiliary", "com0", "com10", "go.mod"]),
    (&[("trailing.", TEXT)], REFUSED),
    (&[("dot./x", TEXT)], REFUSED),
    (&[(".../x", TEXT)], REFUSED),
    (&[("cafe\u{301}", TEXT)], REFUSED),
    (&[("\u{1f600}", TEXT)], REFUSED),
    (&[("a\tb", TEXT)], REFUSED),
    (&[("a\u{a0}b", TEXT)], REFUSED),
    (&[("a\u{7f}b", TEXT)], REFUSED),
    (&[("\u{665}", TEXT)], REFUSED),
    (&[("\u{ab}x", TEXT)], REFUSED),
    (&[("café", TEXT), ("日本語", TEXT), ("испытание.go", TEXT), ("ªº", TEXT)], &["café", "go.mod", "ªº", "испытание.go", "日本語"]),
    (&[("a !#$%&()+,-.=@[]^_{}~b", TEXT), ("~1", TEXT), ("x~1.go", TEXT)], &["a !#$%&()+,-.=@[]^_{}~b", "go.mod", "x~1.go", "~1"]),
    (&[(".hidden", TEXT), ("-dash", TEXT), (".a/.b", TEXT), ("a..b", TEXT), (" x", TEXT), ("x ", TEXT)],
        &[" x", "-dash", ".a/.b", ".hidden", "a..b", "go.mod", "x "]),
    (&[(".hg_archival.txt", TEXT), ("x/.hg_archival.txt", TEXT)], &["go.mod", "x/.hg_archival.txt"]),
    (&[(".gitignore", TEXT), (".gitattributes", File("# nothing\n")), (".github/x.yml", TEXT)], &[".gitattributes", ".github/x.yml", ".gitignore", "go.mod"]),
    // Collisions.
    (&[("m.go", TEXT), ("M.GO", TEXT)], REFUSED),
    (&[("README.md", TEXT), ("readme.md", TEXT)], REFUSED),
    (&[("A/x", TEXT), ("a/y", TEXT)], REFUSED),
    (&[("A", TEXT), ("a/y", TEXT)], REFUSED),
    (&[("x/A/b/c", TEXT), ("x/a/b/d", TEXT)], REFUSED),
    (&[("k", TEXT), ("\u{212a}", TEXT)], REFUSED),
    (&[("s", TEXT), ("ſ", TEXT)], REFUSED),
    (&[("Σ", TEXT), ("ς", TEXT)], REFUSED),
    (&[("Ä", TEXT), ("ä", TEXT)], REFUSED),
    (&[("ß", TEXT), ("SS", TEXT), ("i", TEXT), ("İ", TEXT), ("ı", TEXT)], &["SS", "go.mod", "i", "ß", "İ", "ı"]),
    (&[("a", Link("m.go")), ("A", TEXT)], REFUSED),
    (&[("we?ird", Link("m.go"))], REFUSED),
    (&[("nested/go.mod", OLD), ("nested/a", TEXT), ("nested/A", TEXT)], &["go.mod"]),
    (&[("vendor/a/x", TEXT), ("vendor/A/y", TEXT), ("vendor/b/c*", TEXT)], &["go.mod"]),
    // What is no file.
    (&[("link", Link("m.go")), ("up", Link("../../..")), ("m.go", TEXT)], &["go.mod", "m.go"]),
    (&[(".gitmodules", File("[submodule \"s\"]\n\tpath = s\n\turl = https://example.com/s\n")), ("s", Submodule("1234567890123456789012345678901234567890"))],
        &[".gitmodules", "go.mod"]),
    // Attributes.
    (&[(".gitattributes", File("ignored export-ignore\nfolder export-ignore\n")), ("ignored", TEXT), ("folder/x", TEXT)],
        &[".gitattributes", "folder/x", "go.mod", "ignored"]),
    (&[(".gitattributes", File("* export-subst\n")), ("v.txt", File("$Format:%H$\n"))], &[".gitattributes", "go.mod", "v.txt"]),
    (&[(".gitattributes", File("*.txt eol=crlf\n")), ("v.txt", TEXT), ("v.go", TEXT)], &[".gitattributes", "go.mod", "v.go", "v.txt"]),
    (&[(".gitattributes", File("go.mod eol=crlf\n*.go text eol=crlf\n")), ("v.go", TEXT)], &[".gitattributes", "go.mod", "v.go"]),
    (&[(".gitattributes", File("* text=auto\n")), ("v.txt", File("a\r\nb\n")), ("b.bin", Bytes(b"\0\r\n"))], &[".gitattributes", "b.bin", "go.mod", "v.txt"]),
    (&[(".gitattributes", File("* ident\n")), ("v.txt", File("$Id$ $Id: old $\n"))], &[".gitattributes", "go.mod", "v.txt"]),
    (&[(".gitattributes", File("*.u16 text working-tree-encoding=UTF-16LE-BOM eol=crlf\n")), ("v.u16", TEXT)], &[".gitattributes", "go.mod", "v.u16"]),
    (&[(".gitattributes", File("*.bin filter=lfs diff=lfs merge=lfs -text\n")),
        ("v.bin", File("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"))],
        &[".gitattributes", "go.mod", "v.bin"]),
    (&[(".gitattributes", File("[attr]own eol=crlf\n*.txt own\n")), ("deep/.gitattributes", File("*.txt -eol -text\n")), ("v.txt", TEXT), ("deep/v.txt", TEXT)],
        &[".gitattributes", "deep/.gitattributes", "deep/v.txt", "go.mod", "v.txt"]),
    (&[("crlf.txt", File("a\r\nb\r\n")), ("run.sh", File("#!/bin/sh\n")), ("empty", File(""))], &["crlf.txt", "empty", "go.mod", "run.sh"]),
    // Vendored files, by the language version.
    (&[("go.mod", OLD), ("vendor/modules.txt", TEXT), ("vendor/top.go", TEXT), ("vendor/x/y.go", TEXT), ("pkg/vendor/vendor.go", TEXT),
        ("pkg/vendor/foo/foo.go", TEXT), ("p/vendor/v.go", TEXT), ("longdirname/vendor/modules.txt", TEXT), ("vend/vendor.go", TEXT),
        ("x/vendor", TEXT), ("vendored/vendor", TEXT)],
        &["go.mod", "vend/vendor.go", "vendor/modules.txt", "vendor/top.go", "vendored/vendor", "x/vendor"]),
    (&[("go.mod", NEW), ("vendor/modules.txt", TEXT), ("vendor/top.go", TEXT), ("vendor/x/y.go", TEXT), ("pkg/vendor/vendor.go", TEXT),
        ("pkg/vendor/foo/foo.go", TEXT), ("p/vendor/v.go", TEXT), ("longdirname/vendor/modules.txt", TEXT), ("vend/vendor.go", TEXT),
        ("x/vendor", TEXT), ("vendored/vendor", TEXT), ("a/vendor/vendor/b", TEXT)],
        &["go.mod", "longdirname/vendor/modules.txt", "p/vendor/v.go", "pkg/vendor/vendor.go", "vend/vendor.go", "vendor/top.go", "vendored/vendor", "x/vendor"]),
    (&[("go.mod", File("module m\ngo 1.24rc1\n")), ("vendor/modules.txt", TEXT), ("p/vendor/v.go", TEXT)], &["go.mod", "p/vendor/v.go"]),
    (&[("go.mod", File("module m\ngo 1.24.0\n")), ("vendor/modules.txt", TEXT), ("p/vendor/v.go", TEXT)], &["go.mod", "p/vendor/v.go"]),
    (&[("go.mod", File("module m\ngo 1.23.9\n")), ("vendor/modules.txt", TEXT), ("p/vendor/v.go", TEXT)], &["go.mod", "vendor/modules.txt"]),
    (&[("go.mod", File("module m\ngo 1.9\n")), ("vendor/modules.txt", TEXT), ("p/vendor/v.go", TEXT)], &["go.mod", "vendor/modules.txt"]),
    (&[("go.mod", File("module m\n")), ("vendor/modules.txt", TEXT), ("p/vendor/v.go", TEXT)], &["go.mod", "vendor/modules.txt"]),
    (&[("go.mod", File("module m\ngo 1.24\nrequire x\n")), ("vendor/modules.txt", TEXT), ("p/vendor/v.go", TEXT)], &["go.mod", "vendor/modules.txt"]),
    (&[("go.mod", File("module m\ngo 1.24.x\n")), ("vendor/modules.txt", TEXT), ("p/vendor/v.go", TEXT)], &["go.mod", "p/vendor/v.go"]),
    (&[("go.mod", Change::Gone), ("vendor/modules.txt", TEXT), ("p/vendor/v.go", TEXT), ("vendor/x/x", TEXT)], &["vendor/modules.txt"]),
    // Sizes.
    (&[("LICENSE", Large("", LIMIT))], &["LICENSE", "go.mod"]),
    (&[("LICENSE", Large("", LIMIT + 1))], REFUSED),
    (&[("COPYING", Large("", LIMIT + 1))], &["COPYING", "go.mod"]),
    (&[("go.mod", Large("module example.com/m\n//", LIMIT))], &["go.mod"]),
    (&[("go.mod", Large("module example.com/m\n//", LIMIT + 1))], REFUSED),
];

/// Files of a whole repository, of which the module is the folder `sub`.
#[rustfmt::skip]
const NESTED: &[Tree] = &[
    (&[("LICENSE", TEXT), ("sub/s.go", TEXT)], &["LICENSE", "go.mod", "s.go"]),
    (&[("sub/s.go", TEXT)], &["go.mod", "s.go"]),
    (&[("LICENSE", TEXT), ("sub/LICENSE", File("own\n"))], &["LICENSE", "go.mod"]),
    (&[("LICENSE", Link("deep/LICENSE")), ("deep/LICENSE", TEXT)], &["LICENSE", "go.mod"]),
    (&[("LICENSE", TEXT), ("sub/LICENSE", Link("../LICENSE"))], &["go.mod"]),
    (&[("LICENSE", TEXT), ("sub/license", TEXT)], REFUSED),
    (&[("LICENSE", TEXT), ("sub/LICENSE/x", TEXT)], REFUSED),
    (&[("LICENSE/x", TEXT)], &["go.mod"]),
    (&[("LICENSE", Submodule("1234567890123456789012345678901234567890"))], &["go.mod"]),
    (&[("LICENSE.txt", TEXT), ("License", TEXT)], &["go.mod"]),
    (&[("LICENSE", Large("", LIMIT))], &["LICENSE", "go.mod"]),
    (&[("LICENSE", Large("", LIMIT + 1))], REFUSED),
    (&[("LICENSE", TEXT), (".gitattributes", File("LICENSE eol=crlf\n*.go eol=crlf\n")), ("sub/s.go", TEXT)], &["LICENSE", "go.mod", "s.go"]),
    (&[("LICENSE", TEXT), ("sub/deeper/go.mod", OLD), ("sub/deeper/LICENSE", TEXT), ("sub/other/x", TEXT)], &["LICENSE", "go.mod", "other/x"]),
    (&[("bad*name", TEXT), ("AUX", TEXT), ("sub/s.go", TEXT)], &["go.mod", "s.go"]),
    (&[("sub/vendor/modules.txt", TEXT), ("sub/p/vendor/v.go", TEXT)], &["go.mod", "vendor/modules.txt"]),
    (&[("subs/x", TEXT), ("sub2/y", TEXT), ("sub/sub/z", TEXT)], &["go.mod", "sub/z"]),
];

/// Each tree begins a history of its own, and is a version of its own.
fn one_each(trees: &[Tree], prefix: &str) -> Script {
    let mut script = Script::new();
    for (at, (files, _)) in trees.iter().enumerate() {
        let go_mod = format!("{prefix}go.mod");
        let mut changes = vec![(go_mod.as_str(), OLD)];
        changes.extend_from_slice(files);
        let branch = format!("b{at}");
        script = script.commit(&branch, &changes).tag(&branch, &[&format!("{prefix}v0.1.{at}")]);
    }
    script.commit("main", &[("m.go", TEXT)])
}

fn build(root: &Path) {
    one_each(TREES, "").build(&root.join("zips"));
    one_each(NESTED, "sub/").build(&root.join("nested"));
    // Between the module and the top there is another folder with a licence, which counts for nothing.
    Script::new()
        .commit(
            "main",
            &[
                ("LICENSE", File("top\n")),
                ("deep/LICENSE", File("deep\n")),
                ("deep/sub/go.mod", OLD),
                ("deep/v2/go.mod", File("module m/v2\n")),
            ],
        )
        .tag("main", &["deep/sub/v0.1.0", "deep/v2.0.0"])
        .build(&root.join("between"));
    // A version as `+incompatible` and as a module of its own, whose names in the zip differ.
    Script::new()
        .commit("main", &[("m.go", TEXT), ("v2/go.mod", File("module m/v2\n")), ("v2/m.go", TEXT), ("v2/LICENSE/x", TEXT)])
        .tag("main", &["v2.0.0"])
        .build(&root.join("twofold"));
    Script::new()
        .commit("main", &[("UPPER/go.mod", OLD), ("UPPER/Case.go", TEXT)])
        .tag("main", &["UPPER/v1.0.0-RC1"])
        .build(&root.join("Upper"));
}

#[test]
fn zips_hold_the_same_files() {
    let sides = Sides::new(build);
    let mut findings = Findings::new("zips");
    let mut rows: Vec<(String, &[&str])> = Vec::new();
    rows.extend(TREES.iter().enumerate().map(|(at, (_, names))| (format!("github.com/vcstest/zips@v0.1.{at}"), *names)));
    rows.extend(NESTED.iter().enumerate().map(|(at, (_, names))| (format!("github.com/vcstest/nested/sub@v0.1.{at}"), *names)));
    for (wanted, names) in [
        ("github.com/vcstest/between/deep/sub@v0.1.0", ["LICENSE", "go.mod"].as_slice()),
        ("github.com/vcstest/between/deep/v2@v2.0.0", &["LICENSE", "go.mod"]),
        ("github.com/vcstest/twofold@v2.0.0+incompatible", &["m.go"]),
        ("github.com/vcstest/twofold/v2@v2.0.0", &["LICENSE/x", "go.mod", "m.go"]),
        ("github.com/vcstest/Upper/UPPER@v1.0.0-RC1", &["Case.go", "go.mod"]),
    ] {
        rows.push((wanted.to_owned(), names));
    }
    compare_zips(&sides, &rows, &mut findings);
    findings.end();
}

//! Module paths, versions and patterns are judged as `golang.org/x/mod` judges them.
//!
//! modgate has its own parsers for what the go command parses with x/mod. A path that one takes and the other refuses is a hole
//! in a private fence or a module that nobody can download, so both see the same rows here, picked by hand and made from those
//! by a generator that makes the same ones each time. `tests/xmod` prints what x/mod says.
//!
//! Intended differences, which are not compared:
//! - modgate limits versions to 230 characters, since they are file names.
//! - A pattern that `path.Match` calls malformed matches nothing there and says nothing; modgate refuses it at the start.
//! - modgate may refuse patterns that can only be mistakes: with white space, an empty element, a slash in a class or after a
//!   backslash.
//! - Versions that differ in `+incompatible` alone are equal to `semver.Compare`; modgate orders them, so that lists are stable.

use std::cmp::Ordering;
use std::process::Command;

use modgate::module::{ModulePath, ModuleVersion, Pattern, Query, Version};

use crate::helpers::{Chance, output_of};

/// How many rows of each kind are made by changing those that were picked by hand.
const CHANGED: usize = 900;

/// Each is a path, taken both as it is and as an escaped one.
#[rustfmt::skip]
const PATHS: &[&str] = &[
    "", "/", ".", "..", "a", "a.b", "A.b", "a.B", "a_b.c/d", "a~b.c/d", "a.b/", "/a.b", "a.b//c", "a.b/./c", "a.b/../c", "a.b/c.",
    "a.b/.c", "a.b/...", "a.b/c..d", "-a.b/c", "a.b/-c", "a-.b/c", "a./b", ".a/b", "localhost/x", "localhost:8080/x",
    "a.b:8080/x", "[::1]/x", "github.com/BurntSushi/toml", "github.com/!burnt!sushi/toml", "github.com/!Burnt!sushi/toml",
    "github.com/!!burnt/x", "github.com/x!", "github.com/!1/x", "github.com/!/x", "!github.com/x", "github.com/!é/x", "a.b/é",
    "é.b/c", "a.b/\u{212A}", "a.b/\u{ff41}", "a.b/c d", "a.b/c\td", "a.b/c\r", "a.b/c\u{0}", "a.b/c+d", "a.b/c%41", "a.b/c@v1",
    "a.b/c#d", "a.b/c?d", "a.b/c:d", "a.b\\c", "a.b/c'd", "a.b/con", "a.b/CON", "a.b/Con.txt", "a.b/xcon", "a.b/con1", "a.b/com1",
    "a.b/com0", "a.b/com10", "a.b/lpt9/x", "a.b/nul.v2", "a.b/aux/v2", "aux.b/c", "prn/x.y", "nul.com/x", "a.b/con.", "a.b/con~1",
    "a.b/foo~1", "a.b/foo~12.go", "a.b/foo~1x", "a.b/foo~", "a.b/~1", "a.b/~", "a.b/foo.bar~1", "a.b/foo~1~x", "a~1.b/c", "a.b/v",
    "a.b/v0", "a.b/v1", "a.b/v2", "a.b/v02", "a.b/v1.2", "a.b/v2.", "a.b/v10", "a.b/v2/v1", "a.b/v1/v2", "a.b/v1/x", "a.b/v01/x",
    "a.b/V2", "a.b/xv2", "a.b/c.v2", "a.b/v2-unstable", "a.b/v99999999999999999999", "a.b/.v2", "v2.b/v2", "a.b/v2beta", "v2",
    "/v2", "a.b/vv2", "a.b/v.2", "a.b/v.", "gopkg.in", "gopkg.in/", "gopkg.in/yaml", "gopkg.in/yaml.v2", "gopkg.in/yaml.v0",
    "gopkg.in/yaml.v1", "gopkg.in/yaml.v02", "gopkg.in/yaml.v2-unstable", "gopkg.in/yaml.v0-unstable", "gopkg.in/yaml.v00",
    "gopkg.in/yaml.v2-unstable-unstable", "gopkg.in/yaml-unstable", "gopkg.in/yaml.v", "gopkg.in/yaml.v-unstable",
    "gopkg.in/yaml.v-unstable/x", "gopkg.in/user/yaml.v3", "gopkg.in/yaml/v2", "gopkg.in/yaml.v2/v3", "gopkg.in/yaml.v2/sub",
    "gopkg.in/.v2", "gopkg.in/v2", "gopkg.in/yaml.v2.3", "gopkg.in/yaml.v99999999999999999999", "gopkg.in/!yaml.v2",
    "gopkg.in/Yaml.v2", "sub.gopkg.in/yaml", "gopkg.in.example/yaml", "example.com/deep/er/than/most/paths/are",
];

/// Versions and what only looks like one.
#[rustfmt::skip]
pub(crate) const VERSIONS: &[&str] = &[
    "", "v", "1", "1.0.0", "v1", "v1.2", "v1.", "v1.2.", "v1.2.3", "V1.2.3", "v01.2.3", "v1.02.3", "v1.2.03", "v0.0.0", "v00.0.0",
    "v1.2.3.4", "v1.2-rc", "v1-rc", "v1+x", "v1.2+incompatible", "v1.2.3-", "v1.2.3-rc", "v1.2.3-RC.1", "v1.2.3-rc.01",
    "v1.2.3-01", "v1.2.3-0", "v1.2.3-00a", "v1.2.3--", "v1.2.3-a..b", "v1.2.3-a.", "v1.2.3-.a", "v1.2.3-a_b", "v1.2.3-é",
    "v1.2.3-a b", "v1.2.3-rc.2", "v1.2.3-rc.10", "v1.2.3-rc.10.x", "v1.2.3-1.rc", "v1.2.3+", "v1.2.3+meta", "v1.2.3-rc+meta",
    "v1.2.3+incompatible", "v2.0.0+incompatible", "v2.0.0-rc.1+incompatible", "v2.0.0+incompatible.1", "v2.0.0+Incompatible",
    "v2.0.0+incompatible+x", "v1.2.3+001", "v1.2.3+a..b", "v2.0.0", "v2.0.0-rc.1", "v3.1.4", "v1.10.0", "v1.9.0", "v10.0.0",
    "v99999999999999999999.0.0", "v1.99999999999999999999.1", "v1.100000000000000000000.1", "v1.2.3-99999999999999999999",
    "v1.2.3-100000000000000000000", "v0.0.0-20191109021931-daa7c04131f5", "v0.0.0-20191109021931-DAA7C04131F5",
    "v0.0.0-2019110902193-daa7c04131f5", "v0.0.0-201911090219310-daa7c04131f5", "v0.0.0-20191109021931-", "v0.0.0-20191109021931",
    "v0.0.0-20191109021931-a-b", "v0.0.0-20191109021931-a.b", "v0.0.0-20191109021931-g", "v2.0.0-20191109021931-daa7c04131f5",
    "v1.2.3-20191109021931-daa7c04131f5", "v0.1.0-20191109021931-daa7c04131f5", "v1.0.0-20191109021931-daa7c04131f5",
    "v1.2.4-0.20191109021931-daa7c04131f5", "v1.2.4-1.20191109021931-daa7c04131f5", "v1.2.4-00.20191109021931-daa7c04131f5",
    "v1.2.3-pre.0.20191109021931-daa7c04131f5", "v1.2.3-pre0.20191109021931-daa7c04131f5",
    "v1.2.3-pre.0.1.20191109021931-daa7c04131f5", "v1.2.3-pre-x.0.20191109021931-daa7c04131f5",
    "v1.2.3-0.0.20191109021931-daa7c04131f5", "v0.0.0-0.20191109021931-daa7c04131f5", "v0.0.0-x.20191109021931-daa7c04131f5",
    "v2.0.1-0.20191109021931-daa7c04131f5+incompatible", "v0.0.0-20191109021931-daa7c04131f5+meta",
    "v0.0.0-00000000000000-000000000000", "v0.0.0-", "v0.0.0-x", "master", "main", "feature/x", "feature-x", "HEAD", "deadbeef",
    "latest", "upgrade", "!r!c", "v1.0.0-!r!c", "v1.0.0-RC", "v1!", "!!a", ".x", "..", ".", "x.", "a@b", "a$b", "a b", "a\tb",
    "a\\b", "a'b", "a\"b", "a`b", "a|b", "a*b", "a<b", "a:b", "a;b", "a,b", "a(b)", "a?b", "a{b}", "a[b]^~=&%#", "con", "CON",
    "nul.txt", "com1.x", "!c!o!n", "foo~1", "~1", "é", "%41", "v1.2.3%2b", "-", "-rf", "v1.2.3\r",
];

/// Patterns and lists of them.
#[rustfmt::skip]
const GLOBS: &[&str] = &[
    "", ",", "/", "*", "**", "*/*", "*/*/*", "a.b", "a.b/", "a.b//", "a.b,", ",a.b", "x.y,a.b", "x.y,,a.b/c", "a.b/c", "a.b/*",
    "a.b/c/d", "a.b/c*", "*.b", "*.b/c", "a.*", "a.b/?", "a.b/??", "?.b", "a.b/[cd]", "a.b/[^cd]", "a.b/[a-d]", "a.b/[d-a]",
    "a.b/[c", "a.b/c]", "a.b/[]c]", "a.b/[^]c]", "a.b/[]", "a.b/[^]", "a.b/[-c]", "a.b/[c-]", "a.b/[a-c-e]", "a.b/[\\]c]",
    "a.b/[\\-c]", "a.b/[a\\-c]", "a.b/\\c", "a.b/c\\", "a.b/\\*", "a.b/[*]", "a.b/[?]", "a.b/[!c]", "a.b/{c,d}", "a.b/[c,d]",
    "[a]?[b]", "a.b/*d", "a.b/c*d*", "*c*/*d*", "a.b/é", "a.b/[é-ü]", "github.com/Acme", "github.com/acme/*", "github.com/*/t*l",
    "*.corp.example,corp.example", "gopkg.in/*.v2", "a.b /c", "a.b/\u{a0}c", "a.b/\tc", "https://a.b/c", "a.b/c,[", "[,a.b/c",
    "*[^a]*", "*a*a*a*b", "/a.b", "a//b", "a.b\\/c", "a.b[/]c", "a.b[.-0]c", "a.b[^x]c", "a.b/[/]", "a.b?c", "a.b*c", "a.b/*/d",
    "a.b/*/",
];

/// Paths that patterns are tried on.
#[rustfmt::skip]
const TARGETS: &[&str] = &[
    "a.b", "a.b/c", "a.b/c/d", "a.b/cd", "a.b/d", "a.b/x-y", "a.bc", "x.b/c", "github.com/Acme/tool", "github.com/acme/tool",
    "git.corp.example/x", "corp.example", "gopkg.in/yaml.v2", "aaaa.aaaaaaaaaaaaaaaaaab",
];

/// What changes are made of.
#[rustfmt::skip]
const PIECES: &[&str] = &[
    "/", "//", ".", "..", "-", "!", "!a", "~", "~1", "v", "v1", "v2", "/v2", "/v1", ".v2", "0", "00", "1", "9", "7", "a", "Z",
    "x.y", "é", "_", "%", "+", "@", ",", "\\", "*", "?", "[", "]", "[^", "[a-c]", "[^x]", "-0.", ".0.", "-rc.1", "+incompatible",
    "-unstable", "gopkg.in/", "con", "nul.", "20191109021931", "-daa7c04131f5", "99999999999999999999", "\t", "v0.0.0-",
];

impl Chance {
    /// One of the texts with a few changes.
    pub(crate) fn changed(&mut self, texts: &[&str]) -> String {
        let mut text: Vec<char> = self.of(texts).chars().collect();
        for _ in 0..=self.below(3) {
            let (a, b) = (self.below(text.len() + 1), self.below(text.len() + 1));
            let (low, high) = (a.min(b), a.max(b).min(a.min(b) + 4));
            match self.below(6) {
                0 | 1 => drop(text.splice(low..low, self.of(PIECES).chars())),
                2 => drop(text.splice(low..high, self.of(PIECES).chars())),
                3 => drop(text.drain(low..high)),
                4 => drop(text.splice(low..low, text[low..high].to_vec())),
                // The end of another one.
                _ => {
                    let other: Vec<char> = self.of(texts).chars().collect();
                    let from = self.below(other.len() + 1);
                    drop(text.splice(low.., other[from..].iter().copied()));
                }
            }
        }
        text.into_iter().collect()
    }
}

fn rows() -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    for (kind, texts) in
        [("escpath", PATHS), ("path", PATHS), ("escversion", VERSIONS), ("semvervalid", VERSIONS), ("pseudo", VERSIONS)]
    {
        rows.extend(texts.iter().map(|&text| (kind, text.to_owned())));
        rows.extend((0..CHANGED).map(|_| (kind, chance.changed(texts))));
    }
    for (kind, left, right, between) in
        [("check", PATHS, VERSIONS, '@'), ("compare", VERSIONS, VERSIONS, ' '), ("match", GLOBS, TARGETS, ' ')]
    {
        let pairs = left.iter().flat_map(|a| right.iter().map(move |b| (a, b)));
        rows.extend(pairs.map(|(a, b)| (kind, format!("{a}{between}{b}"))));
        rows.extend((0..CHANGED).map(|_| (kind, format!("{}{between}{}", chance.changed(left), chance.of(right)))));
        rows.extend((0..CHANGED).map(|_| (kind, format!("{}{between}{}", chance.of(left), chance.changed(right)))));
    }
    rows
}

/// What modgate says; `None` where the row is not one that it is ever asked.
fn verdict(kind: &str, value: &str) -> Option<String> {
    let yes_no = |yes: bool| Some(if yes { "yes" } else { "no" }.to_owned());
    let text = |text: Option<String>| Some(text.map_or("no".to_owned(), |t| format!("yes {t}")));
    match kind {
        "escpath" => text(ModulePath::unescape(value).ok().map(|p| p.to_string())),
        "path" => yes_no(ModulePath::parse(value).is_ok()),
        "escversion" => text(Query::unescape(value).ok().map(|q| q.to_string())),
        "check" => {
            let (path, version) = value.split_once('@').unwrap_or((value, ""));
            let parts = ModulePath::parse(path).ok().zip(Version::parse(version).ok());
            yes_no(parts.is_some_and(|(path, version)| ModuleVersion::new(path, version).is_ok()))
        }
        "semvervalid" => {
            let short = || Query::parse(value).is_ok_and(|q| q.is_version_prefix());
            Some(
                if Version::parse(value).is_ok() {
                    "canonical"
                } else if short() {
                    "short"
                } else {
                    "neither"
                }
                .to_owned(),
            )
        }
        "pseudo" => yes_no(Version::parse(value).ok()?.is_pseudo()),
        "compare" => {
            let (a, b) = value.split_once(' ')?;
            let (a, b) = (Version::parse(a).ok()?, Version::parse(b).ok()?);
            let bare = |v: &Version| v.as_str().trim_end_matches("+incompatible").to_owned();
            let order = if bare(&a) == bare(&b) { Ordering::Equal } else { a.cmp(&b) };
            Some((order as i8).to_string())
        }
        "match" => {
            let (globs, target) = value.split_once(' ')?;
            let target = ModulePath::parse(target).ok()?;
            let Ok(patterns) = Pattern::parse_list(globs) else { return Some("malformed".into()) };
            yes_no(patterns.iter().any(|p| p.matches(target.as_str())))
        }
        _ => None,
    }
}

/// Whether modgate refuses patterns that x/mod takes, and means to.
fn is_mistake(globs: &str) -> bool {
    let empty_element = |glob: &str| glob.strip_suffix('/').unwrap_or(glob).split('/').any(str::is_empty);
    let mut real = globs.split(',').filter(|g| !g.is_empty() && *g != "/");
    globs.chars().any(char::is_whitespace)
        || real.any(|glob| empty_element(glob) || glob.contains("\\/") || has_slash_in_class(glob))
}

fn has_slash_in_class(glob: &str) -> bool {
    let (mut open, mut escaped) = (false, false);
    glob.chars().any(|c| {
        match c {
            _ if escaped => {}
            '[' => open = true,
            ']' => open = false,
            _ => {}
        }
        escaped = !escaped && c == '\\';
        open && c == '/'
    })
}

/// What x/mod says to each row: a kind, a tab and a value.
pub(crate) fn x_mod_says(rows: &[String]) -> Vec<String> {
    let mut go = Command::new("go");
    go.args(["run", "."]).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/xmod"));
    go.env("GOFLAGS", "-mod=readonly").env("GOWORK", "off");
    let printed = output_of(go, (rows.join("\n") + "\n").as_bytes());
    let said: Vec<String> = printed.split_terminator('\n').map(str::to_owned).collect();
    assert_eq!(said.len(), rows.len(), "a line for each row");
    said
}

#[test]
fn every_row_is_judged_as_x_mod_judges_it() {
    let rows = rows();
    let theirs = x_mod_says(&rows.iter().map(|(kind, value)| format!("{kind}\t{value}")).collect::<Vec<_>>());
    let (mut compared, mut different) = (0, Vec::new());
    for ((kind, value), theirs) in rows.iter().zip(&theirs) {
        let Some(ours) = verdict(kind, value) else { continue };
        compared += 1;
        let same = match (*kind, theirs.as_str()) {
            ("semvervalid", "invalid" | "metadata") => ours == "neither",
            ("match", "yes" | "no") if ours == "malformed" => is_mistake(value.split_once(' ').unwrap().0),
            _ => ours == *theirs,
        };
        if !same {
            different.push(format!("{kind} {value:?}: x/mod says {theirs}, modgate {ours}"));
        }
    }
    assert!(compared > 20_000, "most rows are ones that can be compared, not {compared}");
    assert!(different.is_empty(), "{} of {compared} rows differ:\n{}", different.len(), different.join("\n"));
}

/// The bounds that modgate sets where x/mod has none.
#[test]
fn a_version_is_no_longer_than_a_file_name_can_be() {
    let long = |length: usize| format!("v1.0.0-{}", "x".repeat(length - 7));
    assert!(Version::parse(&long(230)).is_ok() && Query::parse(&long(230)).is_ok());
    assert!(Version::parse(&long(231)).is_err() && Query::parse(&long(231)).is_err());
}

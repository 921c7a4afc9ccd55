//! What repositories hold is read as `golang.org/x/mod` reads it: go.mod files, which files make a module's zip, and
//! pseudo-versions. The sums in everybody's go.sum depend on it.
//!
//! As in `xmod`, both see the same rows: those picked by hand and those that a generator makes, the same ones each time.
//!
//! Intended differences, which are not compared:
//! - Unicode's tables are newer in modgate than in Go: what Go does not know yet may be a letter here, and three pairs of rare
//!   letters are one where case does not count.
//! - A tree that has a name twice is refused, whatever the kinds; x/mod forgets the second where the first is a symbolic link. No
//!   sound tree of git has a name twice.
//! - How many U+FFFD stand for bytes that are not UTF-8.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::{self, Write as _};

use jiff::Timestamp;
use modgate::module::files::{Entry, Kind, select};
use modgate::module::gomod::{GoMod, declared_path};
use modgate::module::pseudo;

use crate::helpers::Chance;
use crate::xmod::{VERSIONS, x_mod_says};

/// How many rows of each kind the generator makes.
const MADE: usize = 6000;

/// Whole go.mod files.
#[rustfmt::skip]
const GO_MODS: &[&str] = &[
    // Which path it declares.
    "", "\n", "// only", "module", "module ", "module\n", "module\nexample.com/m\n", "modules x\n", "modulex\n", "module x",
    "module x\n", "  \tmodule \t x \t\r\n", "module x\r\n\r\ngo 1.24\r\n", "module x // y\n", "module x//y\n",
    "module // y\nmodule z\n", "//module y\nmodule z", "\u{feff}module x\n", "\n\u{feff}module x\nmodule y", "\u{a0}module x\n",
    "module\u{a0}x\n", "module x\u{85}\n", "\u{3000}module\u{2028}x\n", "\x0bmodule x", "module\x0cx", "module x y\n",
    "module x\nmodule y\n", "module (\n\tx\n)\n", "module (\n\tx\n\ty\n)\n", "module(\nx\n)\n", "module ( x )\n",
    "module ()\nmodule x", "module \"x\"\n", "module \"x\" // y\n", "module \"x//y\"\n", "module `x`\n", "module `x//y`\n",
    "module `x\ry`\n", "module `x\\n`\n", "module 'x'\n", "module \"x\n", "module `x\n", "module \"x\"y\n", "module \"x\" \"y\"\n",
    "module \"\"\n", "module \"x\\\n\"\n", "module \"\\x6d\\155\\u006d\\U0000006d\"\n",
    "module \"\\a\\b\\f\\n\\r\\t\\v\\\\\\\"\"\n", "module \"\\'\"\n", "module \"\\q\"\n", "module \"\\xff\\377\"\n",
    "module \"\\400\"\n", "module \"\\ud800\"\n", "module \"\\U00110000\"\n", "module \"\\UFFFFFFFF\"\n",
    "module \"\\xe2\\x82\\xac\"\n", "module \"\\x4\"\n", "module \"\\18\"\n", "module \"é\\\\\"\n", "module \"x\\\"\n",
    "module x\"y\n", "module x`y\n", "\"module\" x\n", "module example.com/m/v2\n", "module gopkg.in/other.v2\n",
    "module gopkg.in/other\n", "module not!a?path\n", "module x\nrequire (\n", "module x\n\u{0}", "module x\n)\n",
    "module x/* y */\n", "module x /* y */\n", "module x\n/* y", "module x\u{0}",
    // The language.
    "go 1.24", "go 1.23", "go 1.9", "go 1.9x", "go 1.18x", "go 1.23.0", "go 1.24.1", "go 1.23rc1", "go 1.24rc1", "go 1.24rc01",
    "go 1.24rc", "go 1.24.1rc1", "go 1.24.rc1", "go 1.24foo7", "go 1.24-x", "go v1.24", "go v1.24x", "go v1.24.1", "go vv1.24.1",
    "go 1", "go 1.", "go 1..", "go 2.0", "go 0.25", "go 01.25", "go 1.025", "go 1.25.01", "go 1.25.1.1", "go 10.0",
    "go 1.99999999999999999999", "go 99999999999999999999.0", "go 1.24.99999999999999999999", "go banana", "go", "go 1.24 1.24",
    "go 1.24\ngo 1.24", "go \"1.24\"", "go 1.24\"", "go 1.24x\"", "go `1.24`", "go (\n1.24\n)", "go ( 1.24 )", "go ()", "go 1.24,",
    "go 1.24é", "go 1.٢", "go\t1.24\r\n",
    // Retractions, the go.mod otherwise in order.
    "module m\nretract v1.0.1", "module m\nretract \"v1.0.1\"", "module m\nretract [v1.0.1, v1.0.1]",
    "module m\nretract (\n\tv1.0.1 // bad\n)", "retract v1.0.1+meta", "retract v1.0.1 and more", "retract v1.0.1\nwhat ever",
    "retract v1.0.1\nwhat (\n\tever\n)", "retract v1.0.1\nreplace ] => [", "retract v1.0.1\ngo 1.18x", "retract [v1.0.0, v1.0.1]",
    "retract (\n\t[v1.0.0, v1.0.1]\n\n// x\n)", "retract [v1, v2]", "retract [foo, v1.0.1]", "retract [v1.0.1, foo]", "retract v1",
    "retract v1.0", "retract [v1.0.1 v1.0.1]", "retract [v1.0.0, v1.0.1", "retract [v1.0.0, v1.0.1] x", "retract [v1.0.0,v1.0.1]x",
    "retract (v1.0.1)", "retract `v1.0.1`", "retract 'v1.0.1'", "retract foo", "retract", "retract [v1.0.1, v1.0.0]", "retract [",
    "retract ]", "retract ,", "retract [ , , , ]", "retract [,,,]", "retract [[,]]", "retract ()", "retract ( )", "retract (\n)",
    "retract x (\n\tv1.0.1\n)", "retract \"v1.0.1\" // x", "retract \"v1.0.1", "retract \"v1.0.\\x31\"", "retract v1.0.1\"",
    "retract v1.0.1//x", "retract v1.0.1/*x", "retract v1.0.1\nrequire x.y/z", "retract v1.0.1\nrequire x.y/z v2.0.0",
    "retract v1.0.1\ngo 1.1\ngo 1.1", "retract v1.0.1\ngo banana", "retract v1.0.1\n/* */", "retract v1.0.1\nx (",
    "retract v1.0.1\nx (\n", "retract v1.0.1\nx \"open", "retract v1.0.1\nx (\n) y", "retract v1.0.1\nx (\n) // y",
    "retract v1.0.1\nx (\n))",
    // Other directives.
    "require x.y/z v1.2", "require x.y/z v1", "require x.y/z v1.2.3+meta", "require x.y/z v2.0.0+incompatible",
    "require x.y/z v1.0.0+incompatible", "require x.y/z master", "require x.y/z/v2 v2.0.0", "require x.y/z/v2 v2.0.0+incompatible",
    "require x.y/z/v2 v1.0.0", "require x.y/z/v1 v1.0.0", "require x.y/z/v0 v0.0.0", "require x.y/z/v02 v2.0.0",
    "require x.y/z/v2.0 v2.0.0", "require x.y/z/v v1.0.0", "require gopkg.in/z.v2 v2.0.0", "require gopkg.in/z v1.0.0",
    "require gopkg.in/z.v1 v0.0.0-20160102150405-abcdef123456", "require gopkg.in/z.v1 v0.0.0",
    "require gopkg.in/z.v2-unstable v2.0.0", "require gopkg.in/z.v-unstable v2.0.0", "require gopkg.in/z.v0 v0.1.0",
    "require gopkg.in/z.v02 v2.0.0", "require \"x.y/z\" \"v1.0.0\"", "require `x.y/z` v1.0.0", "require x.y/z 'v1.0.0'",
    "require x.y/z v1.0.0 // indirect", "require x.y/z v1.0.0 x", "require , v1.0.0", "require /v2 v2.0.0", "require v2 v2.0.0",
    "require \"\" v1.0.0", "require (\n\tx.y/z v1.0.0\n\tx.y/w v0.1.0 // indirect\n)", "require (\n\tx.y/z\n)",
    "require x (\n\tx.y/z\n)", "require ()", "require ( )", "require (\n\trequire x.y/z v1.0.0\n)", "require", "ignore x",
    "ignore ./x \"y\"", "ignore \"a b\"", "ignore", "ignore 'x'", "ignore (\n\tx\n\ty\n)", "ignore (\n\tx y\n)", "exclude x",
    "toolchain", "godebug (\n)", "tool 'x'", "replace 'x", "replace \"x", "Module x y", "x ( y", "x ( )", "x () ()", "x ( ) )",
    "x ) (\n)", "( (\n)", "(\n)", ") (\n)", "() (\n)", "( )", "()", "x ( (\n)", "x ( ()", "x ( // c\n)", "x (// c\n// d\n\n) // e",
    "x (\n\ty ( z\n)", "x (\n\ty (\n)", "x (\n\t)\n)", "x (\r\n\ty\r\n)\r\n", "[", "{ }", ", ,", "x \"a\\\nb\" // c\n",
    "x \"a\\\nb\" (\n)\n", "x `a\nb`", "x \"\\", "x a//b /* c", "x a/b/ *c", "x /", "/ /", "/", "x //* c", "é ü", "x \u{301}",
    "x \u{200b}", "x \u{a0}y", "x\x0by", "x\u{e000}", "x \u{fffd}", "x 😀", "x \u{85}",
];

/// Words that stand first in a line, with what may follow them there.
#[rustfmt::skip]
const DIRECTIVES: &[(&str, &[&str])] = &[
    ("module", &[
        "example.com/m", "\"example.com/m\"", "`example.com/m`", "\"a\\u006d\\x6d\\155\"", "m/v2", "'m'", "a b", "", "m,", "\"m\\",
        "\u{a0}m",
    ]),
    ("go", &["1.24", "1.23", "1.24.1", "1.24rc1", "v1.24x", "1.9x", "2.0", "", "1", "banana", "1.24 1"]),
    ("require", &[
        "x.y/z v1.0.0", "x.y/z/v2 v2.1", "\"x.y/z\" v0.1.0-pre", "x.y/z v2.0.0+incompatible", "gopkg.in/z.v3 v3", "x.y/z",
        "x.y/z v2.0.0", "x.y/z v1.x", "'x' v1.0.0",
    ]),
    ("retract", &[
        "v1.0.1", "v1", "[v1.0.0, v1.0.1]", "[v1.0.0,v1.1.0] x", "\"v1.0.1\"", "[\"v1.0.0\", \"v1.0.1\"]", "[a, v1.0.1]",
        "[v1.0.0 v1.1.0]", "[v1.0.0, v1.1.0", "'v1'", "`v1.0.1`", "", "(v1)", "]", "[,,,]",
    ]),
    ("ignore", &["./x", "\"a b\"", "x y", "", "'x'"]),
    ("replace", &["x.y/z => ../z", "]", "\"x", "`x`"]),
    ("what", &["ever", "( x", "\"a\\\nb\"", "\"//\" //", "{ [ ]", "a/b", ""]),
    ("", &["", "// c", "(", ")", "\r"]),
];

const LINE_ENDS: &[&str] =
    &["\n", "\n", "\n", "\n", "\r\n", " // c\n", "// c\r\n", " \t\n", "\n\n", "\n\t", "", "\x0b\n", "\u{a0}\n"];

/// What changes of go.mod files are made of.
#[rustfmt::skip]
const GO_MOD_PIECES: &[&str] = &[
    "\"", "`", "'", "\\", "\\x4", "\\u00e9", "\\\n", "//", "/*", "*/", "/", "(", ")", "()", "[", "]", "{", "}", ",", "\n", "\r",
    "\r\n", "\t", " ", "\u{0}", "\u{7f}", "\u{85}", "\u{a0}", "\u{feff}", "\u{2028}", "\u{3000}", "\u{301}", "\u{ad}", "\u{e000}",
    "\u{fffd}", "é", "😀", "module ", "go 1.24\n", "retract ", "v1.0.1", "require (\n", "\n)\n", " (\n", ".", "0", "1", "v", "x",
];

/// Bytes that are not UTF-8, or not alone.
const BROKEN: &[&[u8]] = &[b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\x85", b"\xa0", b"\xf0\x9f\x98", b"\xc0\xaf"];

/// What versions of the language are made of.
const LANGUAGES: &[&[&str]] = &[
    &["1", "2", "0", "v1", "01", "10", "99999999999999999999"],
    &[".", ".", ".", ""],
    &["24", "23", "25", "9", "0", "100", "024", "4294967320", "99999999999999999999"],
    &["", ".0", ".1", ".01", ".", ".99999999999999999999"],
    &["", "rc1", "rc", "rc01", "rc0", "beta2", "x", "rc1x", "-x", "RC1", "é1", "\"", ".1", "r2c1"],
];

/// Trees of files: their names, or `>` and the name of a symbolic link.
#[rustfmt::skip]
const TREES: &[&[&str]] = &[
    &[], &["go.mod", "m.go", "cmd/hello/hello.go"], &["GO.MOD"], &[">GO.MOD"], &["Go.Mod", "x"],
    &["b/GO.MOD", "b/c/d", "b/x'", "bc/d", "b"], &["sub/go.mod", "sub/x.go'", "x.go"], &[">sub/go.mod", "sub/x.go"],
    &[">sub/go.mod", "sub/x.go'"], &["go.mod/a.go"], &["go.mod/go.mod", "go.mod/a.go"], &[">go.mod", "a.go"],
    &["a/b/go.mod", "a/c", "a/b/c/d", "a/bc"], &["bad.go'"], &["a*b"], &["aux.txt"], &["x/con"], &["x/con/y"], &["CoN.a.b"],
    &["lpt9"], &["com0"], &["com1.x"], &["xcon"], &["con~1"], &["con "], &["trailing."], &["dot./x"], &[".../x"], &["..."], &[".."],
    &["."], &[""], &["../x"], &["../vendor/x/y"], &["../x/go.mod", "../x/y"], &["../go.mod"], &["../../x"], &["x/../y"], &["x/.."],
    &["./x"], &["x/."], &["x/./y"], &["x//y"], &["/x"], &["//"], &["/"], &["x/"], &["/vendor/x/y"], &["vendor/../x"],
    &["x//vendor/x/y"], &["a\u{301}"], &["\u{e1}"], &["😀"], &["a\tb"], &["a\u{a0}b"], &["a b"], &[" a"], &["a "], &["-a"], &["-"],
    &[".a"], &["..a"], &["a..b"], &["~1"], &["a~1"], &["!#$%&()+,-.=@[]^_{}~ a"], &["a\\b"], &["a:b"], &["a;b"], &["a\"b"],
    &["a`b"], &["a|b"], &["a<b"], &["a>b"], &["a?b"], &["a\u{0}b"], &["a\u{7f}"], &["a\nb"], &["a\u{2028}"], &["\u{660}"],
    &["\u{2167}"], &["\u{24b6}"], &["日本語/ü.go"], &["\u{aa}"], &["\u{fffd}"], &["\u{e000}"], &["m.go", "M.GO"],
    &["README.md", "readme.md"], &["a.go", "a.go/b.go"], &["a.go/b.go", "a.go"], &["A", "a/b"], &["a/b", "A"], &[">a", "A"],
    &["A", ">a"], &[">a", "a/b"], &["a/b", ">a"], &[">we?ird"], &[">x."], &["A/x", "a/y"], &["A/x", "A/y"], &["A/x", "A/X"],
    &["a/b/x", "a/B/y"], &["k", "\u{212a}"], &["K", "\u{212a}"], &["s", "ſ"], &["S/x", "ſ/y"], &["Σ", "ς"], &["σ", "ς"],
    &["Ä", "ä"], &["å", "\u{212b}"], &["ß", "ss"], &["ß", "SS"], &["ß", "ẞ"], &["İ", "i"], &["İ", "ı"], &["ı", "I"], &["ǅ", "ǆ"],
    &["Ǆ", "ǅ"], &["θ", "ϴ"], &["ϑ", "ϴ"], &["Ω", "\u{2126}"], &["Ꭰ", "ꭰ"], &["ᏸ", "Ᏸ"], &["µ", "μ"], &["ﬁ", "fi"], &["а", "a"],
    &["ᾳ", "ᾼ"], &["\u{10400}", "\u{10428}"], &["ა", "Ა"], &["vendor/modules.txt"], &["vendor/top.go"], &["vendor/x/y.go"],
    &["pkg/vendor/vendor.go"], &["pkg/vendor/foo/foo.go"], &["p/vendor/v.go"], &["longdirname/vendor/modules.txt"],
    &["vend/vendor.go"], &["x/vendor"], &["vendored/vendor"], &["Vendor/x/y.go"], &["vendor/vendor/x"], &["vendor/x"], &["vendor"],
    &["vendor", "vendor/x/y"], &["vendor", "vendor/x"], &["a/vendor/b/vendor/c"], &["vendor/a/vendor/c"], &["a/vendor/vendor/c"],
    &["vendor/x'/y", "vendor/X/y", "vendor/x/Y"], &["a/vendor/x'"], &["vendor/x/go.mod", "x"],
    &["vendor/go.mod", "vendor/x", "vendor/modules.txt"], &[".hg_archival.txt", "x"], &["a/.hg_archival.txt"],
    &[".HG_archival.txt"], &[">.hg_archival.txt", ".HG_ARCHIVAL.TXT"], &["LICENSE", "license"], &["LICENSE", "LICENSE/x"],
    &["license/x", "LICENSE"], &[">LICENSE"], &["LICENSE", "sub/LICENSE"],
];

/// What names of files are made of.
#[rustfmt::skip]
const ELEMENTS: &[&str] = &[
    "a", "b", "c.go", "d.go", "vendor", "A", "e.go", "go.mod", "modules.txt", "LICENSE", "k", "K", "s", "ß", ".hg_archival.txt",
    "GO.MOD", "ss", "Σ", "σ", "i", "I", "Ä", "ä", "å", "日本", "gO.mod", "Vendor", "S", "ſ", "ς", "ẞ", "İ", "ı", "ǅ", "ǆ", "\u{212a}",
    "\u{212b}", "θ", "ϴ", "ϑ", "Ꭰ", "ꭰ", "License", "C.go", ".x", "-x", "a b", "a~1", "com\u{b9}", "con", "CON.txt", "com1",
    "lpt9.x", "nul", "aux.go", "x.", "..", ".", "...", "", "a'b", "a*b", "a\u{308}", "\u{660}", "\u{2167}", "\u{24b6}", "\u{a0}",
    "😀", "\t", "\u{0}", "a\\b",
];

const SIZES: &[u64] = &[0, 16 << 20, (16 << 20) + 1, 250 << 20, 500 << 20, (500 << 20) + 1, u64::MAX >> 1];

/// What pseudo-versions, and what is nearly one, are made of.
#[rustfmt::skip]
const PSEUDOS: &[&[&str]] = &[
    &["v0", "v1", "v2", "v18446744073709551616", "v01", "0", "v"],
    &[".0", ".1", ".0", ".99999999999999999999", ".00", ""],
    &[".0", ".1", ".10", ".100", ".99", ".1000000000000000000000", ".01", ""],
    &[
        "-", "-0.", "-pre.0.", "-0.0.", "-x-y.0.", "--.0.", "-pre.0.0.", "-1.", "-pre.", "-00.", "---0.", "-pre.1.", "-pre0.",
        "-20060102150405.0.", "-é.0.", ".", "",
    ],
    &[
        "20060102150405", "20060102150405", "20061302150405", "20060230000000", "00000000000000", "99991231235959", "2006010215040",
        "200601021504055", "2006010215040x", "",
    ],
    &["-daa7c04131f5", "-hash", "-0", "-0123", "-DAA7", "-a-b", "-a.b", "-a_b", "-é", "-", ""],
    &["", "+incompatible", "+meta", "+a.b-c", "+01", "+a..b", "+", "+incompatible+x"],
];

/// Versions that pseudo-versions follow.
#[rustfmt::skip]
const BASES: &[&str] = &[
    "", "v0.0.0", "v1.2.3", "v1.2.99999999999999999", "v1.2.9", "v1.2.99", "v1.2.0", "v1.2.3-pre", "v1.3.0-pre", "v0.0.0--",
    "v0.0.0-0", "v1.2.3-pre.0", "v1.2.3-0.1", "v2.0.0+incompatible", "v2.3.0-pre+incompatible", "v1.2.3+meta", "v1.2.3-pre+meta",
    "v1", "v1.2", "v1.2.", "v01.2.3", "1.2.3", "x", "v1.2.3-01", "v1.2.3 ", "v1.2.3-20060102150405-daa7c04131f5",
    "v0.0.0-20060102150405-daa7c04131f5",
];

/// What both are asked.
enum Row {
    GoMod(Vec<u8>),
    Files {
        go_mod: Vec<u8>,
        entries: Vec<Entry>,
    },
    PseudoParts(String),
    PseudoBuild {
        major: &'static str,
        seconds: i64,
        revision: &'static str,
        base: String,
    },
    /// 256 characters, from this one on.
    Characters(u32),
}

impl Row {
    /// As `tests/xmod` reads it.
    fn line(&self) -> String {
        match self {
            Self::GoMod(text) => format!("gomod\t{}", hex(text)),
            Self::Files { go_mod, entries } => entries.iter().fold(format!("files\t{}", hex(go_mod)), |line, entry| {
                let kind = if entry.kind == Kind::Regular { 'r' } else { 'l' };
                format!("{line} {kind}:{}:{}", entry.size, hex(&entry.name))
            }),
            Self::PseudoParts(text) => format!("pseudoparts\t{text}"),
            Self::PseudoBuild { major, seconds, revision, base } => format!("pseudobuild\t{major} {seconds} {revision} {base}"),
            Self::Characters(first) => format!("characters\t{first}"),
        }
    }

    /// What modgate says.
    fn verdict(&self) -> String {
        match self {
            Self::GoMod(text) => format!("{} {}", shown(&declared_path(text)), read(text)),
            Self::Files { go_mod, entries } => {
                let has_go_mod = entries.iter().any(|e| e.name == b"go.mod" && e.kind == Kind::Regular);
                let new = has_go_mod && GoMod::parse(go_mod).is_some_and(|found| found.is_1_24());
                select(entries, new).map_or("refused".to_owned(), |chosen| {
                    chosen.iter().fold("chosen".to_owned(), |said, name| format!("{said} {}", shown(name)))
                })
            }
            Self::PseudoParts(text) => pseudo::take_apart(text)
                .map_or("none".to_owned(), |p| format!("{}\t{}\t{}", p.revision, p.time, p.base.unwrap_or_else(|why| why))),
            Self::PseudoBuild { major, seconds, revision, base } => {
                pseudo::build(major, base, Timestamp::from_second(*seconds).unwrap(), revision)
            }
            Self::Characters(first) => (0..256).map(|at| char::from_u32(first + at).map_or('u', character)).collect(),
        }
    }

    /// Whether both said the same.
    fn is_same(&self, ours: &str, theirs: &str) -> bool {
        match self {
            // A time that is none is no commit's, so that modgate need not know.
            Self::PseudoParts(_) => theirs.replace("undated", ours.split('\t').nth(1).unwrap_or_default()) == ours,
            Self::Characters(_) => ours.chars().zip(theirs.chars()).all(|(ours, theirs)| ours == theirs || theirs == 'u'),
            _ => ours == theirs || theirs == "unknown",
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GoMod(text) => write!(f, "go.mod {:?}", String::from_utf8_lossy(text)),
            Self::Files { go_mod, entries } => {
                write!(f, "files, go.mod {:?}:", String::from_utf8_lossy(go_mod))?;
                entries.iter().try_for_each(|e| write!(f, " {:?} ({:?}, {})", String::from_utf8_lossy(&e.name), e.kind, e.size))
            }
            Self::PseudoParts(_) | Self::PseudoBuild { .. } | Self::Characters(_) => f.write_str(&self.line()),
        }
    }
}

fn read(go_mod: &[u8]) -> String {
    let Some(found) = GoMod::parse(go_mod) else { return "invalid".into() };
    let yes_no = |yes| if yes { "yes" } else { "no" };
    let mut said = format!("{} {}", shown(found.go.as_deref().unwrap_or_default()), yes_no(found.is_1_24()));
    for probe in ["v1.0.0", "v1.0.1-pre", "v1.0.1", "v1.1.0", "v2.0.0+incompatible"] {
        write!(said, " {}", yes_no(found.retracts(probe))).unwrap();
    }
    for (low, high) in &found.retracted {
        write!(said, " {}..{}", shown(low), shown(high)).unwrap();
    }
    said
}

/// Whether a character may be in a file's name (1) and in a word of a go.mod (2), as the sum of both.
fn character(c: char) -> char {
    let word = format!("x{c}x");
    let named = select(&[regular(&word)], false).is_ok();
    let read = GoMod::parse(format!("retract {word}").as_bytes());
    let whole = read.is_some_and(|found| found.retracted == [(word.clone(), word)]);
    char::from(b'0' + u8::from(named) + 2 * u8::from(whole))
}

/// As it stands in [`TREES`].
fn entry(text: &str) -> Entry {
    match text.strip_prefix('>') {
        Some(name) => Entry { kind: Kind::Symlink, ..regular(name) },
        None => regular(text),
    }
}

fn regular(name: impl AsRef<[u8]>) -> Entry {
    Entry { name: name.as_ref().to_vec(), kind: Kind::Regular, size: 1 }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |digits, b| format!("{digits}{b:02x}"))
}

/// A text in printable ASCII, with one U+FFFD for many.
fn shown(text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    chars.dedup_by(|a, b| *a == *b && *a == char::REPLACEMENT_CHARACTER);
    String::from_iter(chars).bytes().fold(String::new(), |said, b| {
        if b.is_ascii_graphic() && b != b'%' { format!("{said}{}", char::from(b)) } else { format!("{said}%{b:02x}") }
    })
}

/// One item, rather one of the first, which make sense.
fn likely<'a>(chance: &mut Chance, items: &[&'a str]) -> &'a str {
    let end = 1 + chance.below(items.len());
    chance.of(&items[..end])
}

/// One item of each list, in their order.
fn one_of_each(chance: &mut Chance, lists: &[&[&str]]) -> String {
    lists.iter().map(|list| likely(chance, list)).collect()
}

/// A go.mod of lines that mostly make sense.
fn go_mod(chance: &mut Chance) -> Vec<u8> {
    let mut text = String::new();
    for _ in 0..=chance.below(4) {
        let (word, arguments) = chance.of(DIRECTIVES);
        if chance.below(4) > 0 {
            write!(text, "{word} {}{}", chance.of(arguments), chance.of(LINE_ENDS)).unwrap();
            continue;
        }
        write!(text, "{word} ({}", chance.of(LINE_ENDS)).unwrap();
        for _ in 0..chance.below(3) {
            write!(text, "{}{}", chance.of(arguments), chance.of(LINE_ENDS)).unwrap();
        }
        write!(text, "){}", chance.of(LINE_ENDS)).unwrap();
    }
    let mut text = text.into_bytes();
    for _ in 0..chance.below(3) {
        splice(chance, &mut text);
    }
    text
}

/// Changes a go.mod at one place.
fn splice(chance: &mut Chance, text: &mut Vec<u8>) {
    let low = chance.below(text.len() + 1);
    let high = (low + chance.of(&[0, 0, 0, 1, 2, 3])).min(text.len());
    let piece = match chance.below(8) {
        0 => b"",
        1 => chance.of(BROKEN),
        _ => chance.of(GO_MOD_PIECES).as_bytes(),
    };
    drop(text.splice(low..high, piece.iter().copied()));
}

/// A tree of a few files, no name twice.
fn tree(chance: &mut Chance) -> Vec<Entry> {
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for _ in 0..=chance.below(5) {
        let mut name = Vec::new();
        for depth in 0..=chance.below(4) {
            name.extend_from_slice(if depth > 0 { b"/" } else { b"" });
            name.extend_from_slice(if chance.below(40) == 0 { chance.of(BROKEN) } else { likely(chance, ELEMENTS).as_bytes() });
        }
        let kind = if chance.below(8) == 0 { Kind::Symlink } else { Kind::Regular };
        if seen.insert(name.clone()) {
            entries.push(Entry { name, kind, size: if chance.below(8) == 0 { chance.of(SIZES) } else { 1 } });
        }
    }
    entries
}

fn go_mod_rows(chance: &mut Chance) -> Vec<Row> {
    let by_hand = GO_MODS.iter().flat_map(|text| {
        [(*text).to_owned(), format!("module example.com/m\n{text}"), format!("{text}\nretract v1.0.1\n")].map(String::into_bytes)
    });
    let mut texts: Vec<Vec<u8>> = by_hand.collect();
    for _ in 0..MADE {
        let mut changed = chance.of(GO_MODS).as_bytes().to_vec();
        splice(chance, &mut changed);
        texts.extend([changed, go_mod(chance), format!("go {}", one_of_each(chance, LANGUAGES)).into_bytes()]);
    }
    texts.into_iter().map(Row::GoMod).collect()
}

/// Pairs of letters that may be one where case does not count.
fn letters_of_two_cases() -> impl Iterator<Item = [String; 2]> {
    let mut by_upper: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for c in '\0'..=char::MAX {
        let upper = c.to_uppercase().to_string();
        // Each is one with another since Unicode 15.1, which is newer than Go's.
        if matches!(c, '\u{fb06}' | '\u{1fd3}' | '\u{1fe3}') {
            continue;
        }
        by_upper.entry(upper.clone()).or_default().extend([c.to_string(), c.to_lowercase().to_string(), upper]);
    }
    by_upper.into_values().flat_map(|letters| {
        let pairs = letters.iter().flat_map(|a| letters.range(..a.clone()).map(|b| [a.clone(), b.clone()]));
        pairs.collect::<Vec<_>>()
    })
}

fn file_rows(chance: &mut Chance) -> Vec<Row> {
    const GO_MODS: [&str; 7] = ["", "go 1.23", "go 1.24", "go 1.24.1rc1", "go 1.24\ngo 1.24", "go 1.25x", "go banana"];
    let mut trees = Vec::new();
    for names in TREES {
        let entries: Vec<Entry> = names.iter().map(|name| entry(name)).collect();
        let has_go_mod = names.iter().any(|name| matches!(*name, "go.mod" | ">go.mod"));
        let with_go_mod = || entries.iter().cloned().chain((!has_go_mod).then(|| regular("go.mod"))).collect();
        trees.extend(["", "go 1.23", "go 1.24"].map(|go_mod| (go_mod, with_go_mod())));
        trees.push(("go 1.24", entries.iter().rev().cloned().collect()));
    }
    trees.extend(letters_of_two_cases().map(|pair| ("", pair.map(regular).to_vec())));
    trees.push(("", vec![regular(b"\xff/go.mod"), regular(b"\xff/x'"), regular("x")]));
    trees.extend((0..MADE).map(|_| (chance.of(&GO_MODS), tree(chance))));
    trees.into_iter().map(|(go_mod, entries)| Row::Files { go_mod: go_mod.into(), entries }).collect()
}

fn pseudo_rows(chance: &mut Chance) -> Vec<Row> {
    let mut rows: Vec<Row> = VERSIONS.iter().map(|text| Row::PseudoParts((*text).to_owned())).collect();
    for _ in 0..MADE {
        rows.push(Row::PseudoParts(chance.changed(VERSIONS)));
        rows.push(Row::PseudoParts(one_of_each(chance, PSEUDOS)));
    }
    for base in BASES.iter().chain(VERSIONS) {
        let major = chance.of(&["", "v0", "v1", "v2", "v17"]);
        // From the year 1 to 9999, about 1970, and before, which no commit is.
        let seconds =
            chance.of(&[-62_135_596_800, -1, 0, 1, 951_782_400, 1_136_214_245, 1_583_020_799, 4_294_967_296, 253_370_764_799]);
        let revision = chance.of(&["hash", "daa7c04131f5", "000000000000"]);
        rows.push(Row::PseudoBuild { major, seconds, revision, base: (*base).to_owned() });
    }
    rows
}

/// The planes of Unicode where characters are, as far as this is of any interest.
fn character_rows() -> impl Iterator<Item = Row> {
    (0..0x330).chain(0xe00..0xe02).chain([0xf00, 0x10ff]).map(|block| Row::Characters(block << 8))
}

#[test]
fn what_repositories_hold_is_judged_as_x_mod_judges_it() {
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    let mut rows = go_mod_rows(&mut chance);
    rows.extend(file_rows(&mut chance));
    rows.extend(pseudo_rows(&mut chance));
    rows.extend(character_rows());
    let lines: Vec<String> = rows.iter().map(Row::line).collect();
    let theirs = x_mod_says(&lines);
    for (kind, no) in [("gomod", " invalid"), ("files", "refused"), ("pseudoparts", "none")] {
        let said = lines.iter().zip(&theirs).filter(|(line, _)| line.starts_with(kind));
        let (refused, taken): (Vec<_>, Vec<_>) = said.partition(|(_, said)| said.ends_with(no));
        let [refused, taken] = [refused.len(), taken.len()];
        assert!(refused.min(taken) > 1500, "the rows of {kind} are of both kinds, not {taken} taken and {refused} refused");
    }

    let mut different = Vec::new();
    for (row, theirs) in rows.iter().zip(&theirs) {
        let ours = row.verdict();
        if !row.is_same(&ours, theirs) {
            different.push(format!("{row}: x/mod says {theirs}, modgate {ours}"));
        }
    }
    assert!(different.is_empty(), "{} of {} rows differ:\n{}", different.len(), rows.len(), different.join("\n"));
}

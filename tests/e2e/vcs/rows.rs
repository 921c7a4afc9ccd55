//! Rows and how they are compared. All that differs is gathered, and told at once.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::sides::{Outcome, Sides};
use crate::support::gate::Gate;
use crate::support::http::Answer;
use crate::support::modules::escape;

/// A module, a query, and what comes of it: a version, and after a blank its `h1:` sum where it is known from elsewhere; or `!`
/// and words that both refusals have; or `?` for whatever the go command says.
pub(crate) type Row<'a> = (&'a str, &'a str, &'a str);

/// A module and all its versions, by blanks apart.
pub(crate) type ListRow = (&'static str, &'static str);

/// What differs, and a table of everything for a reader.
pub(crate) struct Findings {
    group: &'static str,
    differences: Vec<String>,
    table: String,
}

impl Findings {
    pub(crate) fn new(group: &'static str) -> Self {
        Self { group, differences: Vec::new(), table: String::new() }
    }

    pub(crate) fn differs(&mut self, what: impl Into<String>) {
        self.differences.push(what.into());
    }

    /// Writes the table, and fails with all that differs.
    pub(crate) fn end(self) {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("vcs-{}.txt", self.group));
        fs::write(&file, &self.table).unwrap();
        let count = self.differences.len();
        assert!(count == 0, "{count} differences; all rows are in {}\n{}", file.display(), self.differences.join("\n"));
    }

    fn tell(&mut self, what: &str, wanted: &str, direct: &str, through: &str) {
        let line = |text: &str| text.trim().replace('\n', "\n              ");
        let _ = writeln!(
            self.table,
            "{what}\n    expected  {wanted}\n    direct    {}\n    modgate   {}\n",
            line(direct),
            line(through)
        );
    }
}

/// Compares rows.
pub(crate) fn compare(sides: &Sides, rows: &[Row<'_>], findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    let rows: Vec<(&str, String, String)> = rows
        .iter()
        .map(|(module, query, want)| (*module, sides.fill(module, query), sides.fill(module, want)))
        .inspect(|(module, query, _)| assert!(seen.insert(format!("{module}@{query}")), "{module}@{query} twice"))
        .collect();
    let wanted: Vec<String> = rows.iter().map(|(module, query, _)| format!("{module}@{query}")).collect();
    let [direct, through] = sides.download(&wanted);
    for (((module, query, want), direct), through) in rows.iter().zip(&direct).zip(&through) {
        let what = format!("{module}@{query}");
        findings.tell(&what, want, &direct.shown(), &through.shown());
        if let Some(said) = unlike(want, direct) {
            findings.differs(format!("{what}: expected {want}, the go command says {said}"));
        }
        for difference in differences(query, want, direct, through) {
            findings.differs(format!("{what}: {difference}"));
        }
        if let Some(gate) = &sides.gate {
            for difference in over_http(gate, module, query, want, direct) {
                findings.differs(format!("{what}: over HTTP: {difference}"));
            }
        }
    }
}

/// Compares zips: a module and its version, and the names in the zip, or `!` where no zip can be made.
pub(crate) fn compare_zips(sides: &Sides, rows: &[(String, &[&str])], findings: &mut Findings) {
    let wanted: Vec<String> = rows.iter().map(|(wanted, _)| wanted.clone()).collect();
    let [direct, through] = sides.download(&wanted);
    for (((wanted, names), direct), through) in rows.iter().zip(&direct).zip(&through) {
        let (module, version) = wanted.split_once('@').unwrap();
        findings.tell(wanted, &names.join(" "), &direct.shown(), &through.shown());
        let refused = *names == ["!"];
        if refused == direct.error.is_empty() || !refused && direct.names != *names {
            findings.differs(format!("{wanted}: expected {names:?}, the go command has {:?} {}", direct.names, direct.error));
        }
        if direct.names != through.names {
            findings.differs(format!("{wanted}: names are {:?}, through modgate {:?}", direct.names, through.names));
        }
        let mut found = differences(version, "", direct, through);
        if let Some(gate) = &sides.gate {
            found.extend(over_http(gate, module, version, "", direct));
        }
        for difference in found {
            findings.differs(format!("{wanted}: {difference}"));
        }
    }
}

/// Asks only modgate, over HTTP, for revisions of which the go command says nothing.
pub(crate) fn ask(sides: &Sides, rows: &[Row<'_>], findings: &mut Findings) {
    let Some(gate) = &sides.gate else { return };
    for (module, query, want) in rows {
        let (query, want) = (sides.fill(module, query), sides.fill(module, want));
        let answer = gate.get(&format!("/{}/@v/{}.info", escape(module), in_url(&query)));
        let said = answer.text();
        findings.tell(&format!("{module}@{query}, over HTTP"), &want, "(not asked)", &format!("{} {said}", answer.status));
        let fits = match want.strip_prefix('!') {
            Some(text) => matches!(answer.status, 400 | 404 | 410) && said.contains(text),
            None => answer.status == 200 && said.contains(&format!("\"Version\":\"{want}\"")),
        };
        if !fits {
            findings.differs(format!("{module}@{query}: expected {want}, over HTTP {} {said}", answer.status));
        }
    }
}

/// What the go command says, where that is not what was expected.
fn unlike(want: &str, direct: &Outcome) -> Option<String> {
    let fits = match want.strip_prefix('!') {
        Some(text) => !direct.error.is_empty() && direct.error.contains(text),
        None if want == "?" => true,
        None => {
            let (version, sum) = want.split_once(' ').unwrap_or((want, &direct.sum));
            direct.error.is_empty() && direct.version == version && direct.sum == sum
        }
    };
    (!fits).then(|| direct.shown())
}

/// A hash or a version made of one. The commit may be there already when such a query comes, and then it is not said by which
/// ref it is known.
fn by_hash(query: &str) -> bool {
    let last = query.trim_end_matches("+incompatible").rsplit(['-', '.']).next().unwrap_or_default();
    last.len() >= 7 && last.bytes().all(|b| b.is_ascii_hexdigit())
}

fn differences(query: &str, want: &str, direct: &Outcome, through: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    let mut same = |what: &str, direct: &str, through: &str| {
        if direct != through {
            found.push(format!("{what} is {direct:?}, through modgate {through:?}"));
        }
    };
    same("version", &direct.version, &through.version);
    same("go.mod's sum", &direct.go_mod_sum, &through.go_mod_sum);
    same("sum", &direct.sum, &through.sum);
    if direct.error.is_empty() != through.error.is_empty() {
        same("error", &direct.error, &through.error);
    }
    if !direct.error.is_empty() || !through.error.is_empty() {
        let text = want.strip_prefix('!').unwrap_or_default();
        if !through.error.is_empty() && !through.error.contains(text) {
            found.push(format!("is refused with other words: {}", through.error));
        }
        return found;
    }
    for key in ["Version", "Time"] {
        same(key, &direct.info[key].to_string(), &through.info[key].to_string());
    }
    // What comes out of a list has no origin, as a proxy's list has none.
    if !by_the_client(query) && query != "latest" {
        found.extend(origins(&direct.origin, &through.origin, by_hash(query)));
    }
    // Which ref a kept version came by depends on what was asked first.
    found.extend(origins(&direct.info["Origin"], &through.info["Origin"], true));
    found
}

/// How two origins differ. A ref may be missing where the commit was known without one.
fn origins(direct: &Value, through: &Value, may_lack_ref: bool) -> Vec<String> {
    let mut found = Vec::new();
    if direct.is_null() {
        // The go command itself says nothing of it.
        return found;
    }
    let mut same = |key: &str, direct: &Value, through: &Value| {
        if direct != through {
            found.push(format!("Origin's {key} is {direct}, through modgate {through}"));
        }
    };
    for key in ["VCS", "Subdir", "Hash"] {
        same(key, &direct[key], &through[key]);
    }
    // The go command forgets HEAD where it had to fetch it.
    if !(may_lack_ref || direct["Ref"].is_null() && through["Ref"] == "HEAD") {
        same("Ref", &direct["Ref"], &through["Ref"]);
    }
    for key in ["TagPrefix", "TagSum", "RepoSum"] {
        if !direct[key].is_null() && !through[key].is_null() {
            same(key, &direct[key], &through[key]);
        }
    }
    // The one has the URL that the path stands for, the other the one by which it got there.
    let name = |origin: &Value| {
        let url = origin["URL"].as_str().unwrap_or_default().to_owned();
        url.trim_end_matches(".git").rsplit('/').next().unwrap_or_default().to_owned()
    };
    same("URL", &name(direct).into(), &name(through).into());
    found
}

/// Whether the go command resolves a query by itself, from the list.
fn by_the_client(query: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let short = query.strip_prefix('v').is_some_and(|rest| rest.split('.').count() < 3 && rest.split('.').all(number));
    short || query.starts_with(['<', '>']) || matches!(query, "upgrade" | "patch") || query.contains('/')
}

/// Escaped for the protocol, and what no URL may have as it is for URLs.
fn in_url(text: &str) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-._~!/+@".contains(&b);
    escape(text).bytes().map(|b| if safe(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// What modgate answers when it is asked without a go command between, which has checks of its own.
fn over_http(gate: &Gate, module: &str, query: &str, want: &str, direct: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    // The go command asks once more without the metadata where a version has some.
    let again = query.split_once('+').is_some_and(|(version, build)| build != "incompatible" && direct.version == version);
    if by_the_client(query) || again {
        return found;
    }
    let below = |rest: &str| gate.get(&format!("/{}/{}", escape(module), in_url(rest)));
    let info = if query == "latest" { below("@latest") } else { below(&format!("@v/{query}.info")) };
    if direct.version.is_empty() {
        // Where the highest version of a list is not good, the tip is as good an answer as none.
        if query == "latest" && !direct.error.contains("no matching versions") {
            return found;
        }
        let text = want.strip_prefix('!').unwrap_or_default();
        let refused = matches!(info.status, 404 | 410) || info.status == 400 && text.is_empty();
        if !refused || !info.text().contains(text) {
            found.push(format!("{} {}, not a 404 with {text:?}", info.status, info.text()));
        }
        return found;
    }
    let value: Value = serde_json::from_slice(&info.body).unwrap_or_default();
    if info.status != 200 || value["Version"] != *direct.version || value["Time"] != direct.info["Time"] {
        found.push(format!("{} {}, not {}", info.status, info.text(), direct.info));
        return found;
    }
    // A version comes from its tag, whatever the go command asked before that led to the same commit.
    let is_tag = query == direct.version && !query.contains("-0.") && !query.starts_with("v0.0.0-");
    let own = query.strip_suffix("+incompatible").unwrap_or(query);
    let reference = value["Origin"]["Ref"].as_str().unwrap_or_default();
    if is_tag && reference.starts_with("refs/") && !reference.ends_with(own) {
        found.push(format!("Origin's Ref is {reference}"));
    }
    found.extend(origins(&direct.origin, &value["Origin"], is_tag || by_hash(query) || query == "latest"));
    found.extend(parts(&below, direct));
    found
}

/// The parts of the version that came out.
fn parts(below: &impl Fn(&str) -> Answer, direct: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    let version = &direct.version;
    let go_mod = below(&format!("@v/{version}.mod"));
    if !direct.go_mod_sum.is_empty() && (go_mod.status != 200 || go_mod.body != direct.go_mod) {
        found.push(format!(
            "{version}.mod: {} {:?}, not {:?}",
            go_mod.status,
            go_mod.text(),
            String::from_utf8_lossy(&direct.go_mod)
        ));
    }
    let zip = below(&format!("@v/{version}.zip"));
    if (zip.status == 200) == direct.sum.is_empty() {
        found.push(format!("{version}.zip: {} {}, where the go command has {:?}", zip.status, said(&zip), direct.sum));
    }
    found
}

fn said(answer: &Answer) -> String {
    if answer.status == 200 { format!("with {} bytes", answer.body.len()) } else { answer.text() }
}

/// Compares lists, those that the go command shows, and those that modgate sends.
pub(crate) fn compare_lists(sides: &Sides, rows: &[ListRow], findings: &mut Findings) {
    let modules: Vec<&str> = rows.iter().map(|(module, _)| *module).collect();
    let [direct, through] = sides.lists(&modules);
    for (((module, want), direct), through) in rows.iter().zip(&direct).zip(&through) {
        let shown = |versions: &[String], error: &str| if error.is_empty() { versions.join(" ") } else { format!("!{error}") };
        let (direct, through) = (shown(&direct.versions, &direct.error), shown(&through.versions, &through.error));
        findings.tell(&format!("{module}: list"), want, &direct, &through);
        let fits = |said: &str| match want.strip_prefix('!') {
            Some(text) => said.starts_with('!') && said.contains(text),
            None => said == *want,
        };
        if !fits(&direct) {
            findings.differs(format!("{module}: expected the list {want:?}, the go command says {direct:?}"));
        }
        if direct != through && !(direct.starts_with('!') && fits(&through)) {
            findings.differs(format!("{module}: the list is {direct:?}, through modgate {through:?}"));
        }
        let Some(gate) = &sides.gate else { continue };
        let answer = gate.get(&format!("/{}/@v/list", escape(module)));
        let lines = answer.text().lines().map(str::to_owned).collect::<Vec<_>>().join(" ");
        // Where there is no version, and where there is no module either, nothing and a 404 are both right.
        let nothing = want.is_empty() && answer.status == 404;
        if !nothing && (answer.status == 200) == direct.starts_with('!') || answer.status == 200 && lines != direct {
            findings.differs(format!("{module}: the list over HTTP is {} {lines:?}, not {direct:?}", answer.status));
        }
    }
}

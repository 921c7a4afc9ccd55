//! What is read of a go.mod: the path that it declares, and leniently, its language version, requirements and retractions
//! (`modfile.ModulePath` and `modfile.ParseLax` of `golang.org/x/mod`, <https://go.dev/ref/mod#go-mod-file>).

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::ModulePath;
use super::path::split_major;
use super::semver::{canonical_module, compare, compare_numbers, major_fits};

/// The module path that a go.mod declares, by a scan of its lines that minds nothing else in the file; empty where there is none.
/// It need not be a valid path.
pub fn declared_path(go_mod: &[u8]) -> String {
    let text = String::from_utf8_lossy(go_mod);
    for line in text.split('\n') {
        let line = line.find("//").map_or(line, |at| &line[..at]).trim();
        let Some(rest) = line.strip_prefix("module") else { continue };
        let path = rest.trim_start();
        if path.len() == rest.len() || path.is_empty() {
            continue;
        }
        if path.starts_with(['"', '`']) {
            return unquote(path).unwrap_or_default();
        }
        return path.to_owned();
    }
    String::new()
}

/// The go.mod of a module that has none.
pub fn synthesized(module: &ModulePath) -> String {
    format!("module {module}\n")
}

/// What a go.mod of a dependency says that bears on modgate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoMod {
    /// The language version, as `1.24` or `1.24.1`.
    pub go: Option<String>,
    /// Retracted versions, from and to, both included. The texts need not be versions.
    pub retracted: Vec<(String, String)>,
    /// The modules that it requires, with their versions. The texts need not be valid paths.
    pub required: Vec<(String, String)>,
    /// What stands in for required modules. That counts in the main module alone.
    pub replacements: Vec<Replacement>,
}

/// One replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The module that is replaced.
    pub module: String,
    /// Its version, where only that is.
    pub version: Option<String>,
    /// The module and version that stand in; none for a folder.
    pub by: Option<(String, String)>,
}

impl GoMod {
    /// Reads a file as the go command reads those of dependencies; `None` where it cannot be read at all.
    pub fn parse(go_mod: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(go_mod);
        let mut read = Reader::default();
        for statement in statements(&text)? {
            match statement {
                Statement::Line(tokens) => {
                    let (verb, arguments) = tokens.split_first()?;
                    read.directive(verb, arguments)?;
                }
                Statement::Block(head, lines) => {
                    let [verb] = head.as_slice() else { continue };
                    if matches!(verb.as_str(), "module" | "require" | "retract" | "ignore" | "replace") {
                        lines.iter().try_for_each(|line| read.directive(verb, line))?;
                    }
                }
            }
        }
        Some(read.found)
    }

    /// Whether a version is retracted.
    pub fn retracts(&self, version: &str) -> bool {
        self.retracted.iter().any(|(low, high)| compare(low, version).is_le() && compare(version, high).is_le())
    }

    /// Whether the language is Go 1.24 or newer, from which on other files count as vendored.
    pub fn is_1_24(&self) -> bool {
        self.is_at_least("24")
    }

    /// Whether the language is Go 1.17 or newer, from which on a go.mod names all modules that its build needs.
    pub fn is_pruned(&self) -> bool {
        self.is_at_least("17")
    }

    fn is_at_least(&self, wanted: &str) -> bool {
        let of_go = self.go.as_deref().and_then(major_minor);
        of_go.is_some_and(|(major, minor)| compare_numbers(major, "1").then_with(|| compare_numbers(minor, wanted)).is_ge())
    }
}

/// The numbers of a language, where it is one to `go/version` too: that knows neither `1.24.1rc1` nor `1.24rc01`.
fn major_minor(go: &str) -> Option<(&str, &str)> {
    let (major, rest) = digits(go)?;
    let (minor, rest) = digits(rest.strip_prefix('.')?)?;
    let last = rest.strip_prefix('.').unwrap_or_else(|| rest.trim_start_matches(|c: char| c.is_ascii_lowercase()));
    (last.is_empty() || digits(last) == Some((last, ""))).then_some((major, minor))
}

#[derive(Default)]
struct Reader {
    found: GoMod,
    has_module: bool,
}

impl Reader {
    /// Takes one directive in; `None` where it makes the whole file invalid.
    fn directive(&mut self, verb: &str, arguments: &[String]) -> Option<()> {
        match (verb, arguments) {
            ("go", [version]) if self.found.go.is_none() => self.found.go = Some(language(version)?),
            ("module", [path]) if !self.has_module => {
                self.has_module = true;
                unquoted(path)?;
            }
            ("require", [path, version]) => {
                let (path, version) = (unquoted(path)?, canonical_module(&unquoted(version)?)?);
                let suffix = &path[split_major(&path)?..];
                if !major_fits(suffix, &version) {
                    return None;
                }
                self.found.required.push((path, version));
            }
            ("ignore", [path]) => drop(unquoted(path)?),
            ("go" | "module" | "require" | "ignore", _) => return None,
            ("retract", arguments) => self.found.retracted.extend(interval(arguments)),
            ("replace", arguments) => self.found.replacements.extend(replacement(arguments)),
            _ => {}
        }
        Some(())
    }
}

/// `old => ./folder`, `old => new v1.0.0`, or either with a version of the old; anything else replaces nothing.
fn replacement(arguments: &[String]) -> Option<Replacement> {
    let arrow = arguments.iter().position(|argument| argument == "=>")?;
    let (old, new) = (&arguments[..arrow], &arguments[arrow + 1..]);
    let version = |text: &String| canonical_module(&unquoted(text)?);
    let by = match new {
        [_folder] => None,
        [path, text] => Some((unquoted(path)?, version(text)?)),
        _ => return None,
    };
    match old {
        [path] => Some(Replacement { module: unquoted(path)?, version: None, by }),
        [path, text] => Some(Replacement { module: unquoted(path)?, version: Some(version(text)?), by }),
        _ => None,
    }
}

/// The argument of a `go` line: `1.23`, `1.23.0`, `1.23rc1`; leniently anything that begins so.
fn language(text: &str) -> Option<String> {
    let (major, rest) = digits(text.strip_prefix('v').unwrap_or(text))?;
    let (minor, rest) = digits(rest.strip_prefix('.')?)?;
    if major == "0" {
        return None;
    }
    let strict = !text.starts_with('v') && {
        let after_patch = rest.strip_prefix('.').map_or(Some(rest), |r| digits(r).map(|(_, r)| r));
        after_patch.is_some_and(is_pre)
    };
    if strict {
        return Some(text.to_owned());
    }
    // The number must end: by something that is no digit.
    (!rest.is_empty() && !rest.contains('\n')).then(|| format!("{major}.{minor}"))
}

/// Digits without a superfluous zero in front, and what follows.
fn digits(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let number = &text[..end];
    (end == 1 || (end > 1 && !number.starts_with('0'))).then_some((number, &text[end..]))
}

/// Empty, or as `rc1`.
fn is_pre(text: &str) -> bool {
    let number = text.trim_start_matches(|c: char| c.is_ascii_lowercase());
    text.is_empty() || (number.len() < text.len() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// `v1.0.0` or `[v1.0.0, v1.1.0]`; what follows is passed over, and so is a directive without this form.
fn interval(arguments: &[String]) -> Option<(String, String)> {
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts.as_slice() {
        ["[", low, ",", high, "]", ..] => Some((unquoted(low)?, unquoted(high)?)),
        ["[" | "(", ..] | [] => None,
        [one, ..] => unquoted(one).map(|v| (v.clone(), v)),
    }
}

/// A token as a string: in `"`, or bare and without any quote.
fn unquoted(token: &str) -> Option<String> {
    if token.starts_with('"') {
        return unquote(token);
    }
    (!token.contains(['"', '\'', '`'])).then(|| token.to_owned())
}

/// Undoes a Go string literal (`strconv.Unquote`), of the interpreted or the raw kind.
fn unquote(literal: &str) -> Option<String> {
    let quote = literal.chars().next()?;
    let inner = literal[1..].strip_suffix(quote)?;
    if quote == '`' {
        return (!inner.contains('`')).then(|| inner.replace('\r', ""));
    }
    let mut bytes = Vec::new();
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' | '\n' => return None,
            '\\' => escaped(&mut rest, &mut bytes)?,
            c => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What stands behind a backslash.
fn escaped(rest: &mut std::str::Chars<'_>, bytes: &mut Vec<u8>) -> Option<()> {
    fn number(first: Option<char>, rest: &mut std::str::Chars<'_>, count: usize, radix: u32) -> Option<u32> {
        let start = first.map_or(Some(0), |c| c.to_digit(radix))?;
        (0..count).try_fold(start, |value, _| value.checked_mul(radix)?.checked_add(rest.next()?.to_digit(radix)?))
    }
    match rest.next()? {
        'a' => bytes.push(7),
        'b' => bytes.push(8),
        'f' => bytes.push(12),
        'n' => bytes.push(b'\n'),
        'r' => bytes.push(b'\r'),
        't' => bytes.push(b'\t'),
        'v' => bytes.push(11),
        '\\' => bytes.push(b'\\'),
        '"' => bytes.push(b'"'),
        'x' => bytes.push(u8::try_from(number(None, rest, 2, 16)?).ok()?),
        first @ '0'..='7' => bytes.push(u8::try_from(number(Some(first), rest, 2, 8)?).ok()?),
        kind @ ('u' | 'U') => {
            let c = char::from_u32(number(None, rest, if kind == 'u' { 4 } else { 8 }, 16)?)?;
            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
        }
        _ => return None,
    }
    Some(())
}

/// One statement of a file: its tokens, or a block's head and lines.
#[derive(Debug, PartialEq, Eq)]
enum Statement {
    Line(Vec<String>),
    Block(Vec<String>, Vec<Vec<String>>),
}

/// Splits a file into statements; `None` where it cannot be done.
fn statements(text: &str) -> Option<Vec<Statement>> {
    let mut lines = lines(text)?.into_iter();
    let mut found = Vec::new();
    while let Some(mut line) = lines.next() {
        match line.as_slice() {
            [] => {}
            [_, .., open] if open == "(" => {
                line.pop();
                found.push(Statement::Block(line, block(&mut lines)?));
            }
            [_, .., open, close] if open == "(" && close == ")" => {
                line.truncate(line.len() - 2);
                found.push(Statement::Block(line, Vec::new()));
            }
            _ => found.push(Statement::Line(line)),
        }
    }
    Some(found)
}

/// The lines of a block up to its end.
fn block(lines: &mut impl Iterator<Item = Vec<String>>) -> Option<Vec<Vec<String>>> {
    let mut found = Vec::new();
    loop {
        let line = lines.next()?;
        match line.as_slice() {
            [] => {}
            [close] if close == ")" => return Some(found),
            [close, ..] if close == ")" => return None,
            _ => found.push(line),
        }
    }
}

/// The tokens of each line, without comments.
fn lines(text: &str) -> Option<Vec<Vec<String>>> {
    let mut lines = vec![Vec::new()];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if matches!(c, ' ' | '\t' | '\r') {
            rest = &rest[1..];
        } else if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |at| &rest[at..]);
        } else if rest.starts_with("/*") {
            return None;
        } else if c == '\n' {
            lines.push(Vec::new());
            rest = &rest[1..];
        } else {
            let end = token_end(rest, c)?;
            lines.last_mut()?.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
    }
    Some(lines)
}

/// Where the token ends that the text begins with; `None` where there is none, or it does not end.
fn token_end(text: &str, first: char) -> Option<usize> {
    match first {
        '(' | ')' | '[' | ']' | '{' | '}' | ',' => Some(1),
        '"' | '`' => {
            let mut inside = text[1..].char_indices();
            while let Some((at, c)) = inside.next() {
                match c {
                    c if c == first => return Some(1 + at + 1),
                    '\n' => return None,
                    // Whatever follows is passed over, a line's end too.
                    '\\' if first == '"' => drop(inside.next()?),
                    _ => {}
                }
            }
            None
        }
        _ => {
            let ends = |(at, c): &(usize, char)| !is_identifier(*c) || text[*at..].starts_with("//");
            let end = text.char_indices().find(ends).map_or(text.len(), |(at, _)| at);
            let comment = text[..end].contains("/*");
            (end > 0 && !comment).then_some(end)
        }
    }
}

/// What a bare word is made of: anything that can be printed, but for blanks, brackets and commas.
fn is_identifier(c: char) -> bool {
    use GeneralCategoryGroup::{Letter, Mark, Number, Punctuation, Symbol};
    let printed = matches!(c.general_category_group(), Letter | Mark | Number | Punctuation | Symbol);
    printed && !matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | ',')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_declared_path_is_found_by_lines() {
        let of = |text: &str| declared_path(text.as_bytes());
        assert_eq!(of("// x\n\n module  example.com/m // y\r\nmodule z"), "example.com/m");
        assert_eq!(of("module \"example.com/\\u006d\"\n"), "example.com/m");
        assert_eq!(of("module `a`"), "a");
        assert_eq!(of("module (\n\texample.com/m\n)\n"), "(");
        assert_eq!(of("module a b"), "a b");
        for none in ["", "modules x", "module", "module\n x", "\u{feff}module x", "module \"x", "// module x"] {
            assert_eq!(of(none), "", "{none:?}");
        }
    }

    #[test]
    fn retractions_and_language_are_read_leniently() {
        let read = |text: &str| GoMod::parse(text.as_bytes());
        let text = "module m\ngo 1.24.1\nretract (\n\tv1.0.0 // bad\n\t[v1.1.0, v1.2.0]\n)\nretract foo bar\nwhat ever (\n x\n)\n";
        let found = read(text).expect("valid");
        assert!(found.retracts("v1.0.0") && found.retracts("v1.1.5") && !found.retracts("v1.3.0"));
        assert!(found.is_1_24());
        assert!(!read("go 1.9x").expect("valid").is_1_24());
        for bad in
            ["go banana", "go 1.1\ngo 1.1", "module a b", "require x.y/z", "/* */", "retract (\n v1\n", "x \"open", "a (\n) b"]
        {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_language_is_compared_as_go_version_compares_it() {
        let is_1_24 = |go: &str| GoMod::parse(format!("go {go}\n").as_bytes()).is_some_and(|found| found.is_1_24());
        for new in ["1.24", "1.24.0", "1.24rc1", "1.24rc", "1.24-x", "v1.24.", "1.100", "2.0", "1.99999999999999999999", "10.3"] {
            assert!(is_1_24(new), "{new}");
        }
        for old in ["1.23.9", "1.9", "1.24.1rc1", "1.24rc01", "1.23x", "0.25", "1", "banana"] {
            assert!(!is_1_24(old), "{old}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (declared_path(&bytes), GoMod::parse(&bytes));
        }

        #[test]
        fn no_likely_text_breaks_it(text in "([a-z]{1,8}|[\"`()\\[\\],\\\\ \n/*x])*") {
            let _ = (declared_path(text.as_bytes()), GoMod::parse(text.as_bytes()));
        }
    }
}

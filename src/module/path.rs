//! Module paths, by the rules of `golang.org/x/mod/module.CheckPath`.

use std::fmt;
use std::sync::Arc;

use super::Malformed;
use super::escape::{escape, unescape};

const WHAT: &str = "module path";

/// File names that Windows reserves, with or without an extension; no path element may be one.
const WINDOWS_NAMES: [&str; 22] = [
    "con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9", "lpt1", "lpt2", "lpt3",
    "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
];

/// A valid module path, decoded: `github.com/BurntSushi/toml`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModulePath(Arc<str>);

impl ModulePath {
    /// Checks a decoded path.
    ///
    /// # Errors
    /// The rule that the path breaks.
    pub fn parse(path: &str) -> Result<Self, Malformed> {
        check(path).map_err(|why| Malformed::new(WHAT, path, why))?;
        Ok(Self(path.into()))
    }

    /// Decodes and checks a path as it stands in a URL (`github.com/!burnt!sushi/toml`).
    ///
    /// # Errors
    /// The rule that the path breaks.
    pub fn unescape(escaped: &str) -> Result<Self, Malformed> {
        let path = unescape(escaped)
            .ok_or_else(|| Malformed::new(WHAT, escaped, "not escaped as the module proxy protocol has it (\"!a\" for \"A\")"))?;
        Self::parse(&path)
    }

    /// The path as it stands in URLs and file names.
    pub fn escaped(&self) -> String {
        escape(&self.0)
    }

    /// The decoded path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without its major version suffix.
    pub fn prefix(&self) -> &str {
        &self.0[..self.0.len() - self.major_suffix().len()]
    }

    /// The major version suffix: empty, `/v2` or, at gopkg.in, `.v2`.
    pub fn major_suffix(&self) -> &str {
        split_major(&self.0).map_or("", |at| &self.0[at..])
    }
}

impl fmt::Display for ModulePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModulePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn check(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("empty".into());
    }
    if path.starts_with('-') {
        return Err("leading dash".into());
    }
    if path.contains("//") {
        return Err("double slash".into());
    }
    if path.starts_with('/') {
        return Err("leading slash".into());
    }
    if path.ends_with('/') {
        return Err("trailing slash".into());
    }
    for element in path.split('/') {
        check_element(element, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~'))?;
        if element.starts_with('.') {
            return Err("leading dot in a path element".into());
        }
        check_short_name(element)?;
    }
    let first = path.split('/').next().unwrap_or_default();
    if !first.contains('.') {
        return Err(format!("no dot in the first element {first:?}, which has to be a host name"));
    }
    if let Some(c) = first.chars().find(|&c| !matches!(c, '-' | '.' | '0'..='9' | 'a'..='z')) {
        return Err(format!("character {c:?} in the first element, which has to be a host name in lower case"));
    }
    split_major(path).map(|_| ()).ok_or_else(|| "its major version suffix is not one".into())
}

/// What holds for an element of a module path and for a version alike (`checkElem` of x/mod).
pub(super) fn check_element(element: &str, allowed: impl Fn(char) -> bool) -> Result<(), String> {
    if element.is_empty() {
        return Err("empty element".into());
    }
    if element.bytes().all(|b| b == b'.') {
        return Err(format!("element {element:?}"));
    }
    if element.ends_with('.') {
        return Err("trailing dot in an element".into());
    }
    if let Some(c) = element.chars().find(|&c| !allowed(c)) {
        return Err(format!("character {c:?}"));
    }
    let short = element.split('.').next().unwrap_or_default();
    if WINDOWS_NAMES.iter().any(|bad| short.eq_ignore_ascii_case(bad)) {
        return Err(format!("{short:?} is a reserved file name on Windows"));
    }
    Ok(())
}

/// Refuses what looks like a short name of Windows (`abcdef~1`).
fn check_short_name(element: &str) -> Result<(), String> {
    let short = element.split('.').next().unwrap_or_default();
    match short.rsplit_once('~') {
        Some((_, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Err("trailing tilde and digits in a path element".into())
        }
        _ => Ok(()),
    }
}

/// Where the major version suffix starts (at the end where there is none); `None` where it is malformed (`/v1`, `/v02`).
pub(crate) fn split_major(path: &str) -> Option<usize> {
    let (stem, separator, gopkg) = match path.strip_prefix("gopkg.in/") {
        Some(_) => (path.strip_suffix("-unstable").unwrap_or(path), '.', true),
        None => (path, '/', false),
    };
    let digits_at = stem.trim_end_matches(|c: char| c.is_ascii_digit() || (!gopkg && c == '.')).len();
    let digits = &stem[digits_at..];
    let head = &stem[..digits_at];
    let Some(prefix) = head.strip_suffix('v').and_then(|h| h.strip_suffix(separator)).filter(|_| digits_at > 1) else {
        return if gopkg { None } else { Some(path.len()) };
    };
    let at = prefix.len();
    let bad = if gopkg {
        // x/mod lets ".v-unstable" pass; no version fits it.
        (digits.is_empty() && !path.ends_with("-unstable")) || (digits.starts_with('0') && path[at..] != *".v0")
    } else if digits.is_empty() {
        return Some(path.len());
    } else {
        digits.contains('.') || digits.starts_with('0') || digits == "1"
    };
    (!bad).then_some(at)
}

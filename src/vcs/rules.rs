//! Rules from import paths to URLs: `private.vcs.com/{group}/{name}` to `https://private.vcs.com:888/{group}/{name}.git`.
//!
//! A rule matches a path by whole elements and takes as many as it has. `{name}` stands for an element, or with text around it
//! for a part of one; `{name...}` at the end for one or more. The matched elements are the root of a repository.

use std::collections::HashMap;
use std::fmt;

/// A rule's left side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    elements: Vec<Element>,
    /// The name of a capture of all that follows.
    rest: Option<String>,
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Element { before, capture, after }) in self.elements.iter().enumerate() {
            let capture = capture.as_ref().map(|name| format!("{{{name}}}")).unwrap_or_default();
            write!(f, "{}{before}{capture}{after}", if at == 0 { "" } else { "/" })?;
        }
        self.rest.iter().try_for_each(|name| write!(f, "/{{{name}...}}"))
    }
}

/// One element: text, or text around a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Element {
    before: String,
    capture: Option<String>,
    after: String,
}

/// A text with captures in it, a rule's right side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Capture(String),
}

/// How a rule matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    /// The elements that it took.
    pub root: String,
    captures: HashMap<String, String>,
}

/// The most elements that a capture of the rest may take.
const MAX_REST: usize = 8;

impl Match {
    /// Reads `host/{group}/{name}`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut names: Vec<String> = Vec::new();
        let mut known = |name: &str| {
            let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !plain {
                return Err(format!("{{{name}}}: the name of a capture has letters, digits and underscores"));
            }
            if names.iter().any(|n| n == name) {
                return Err(format!("{{{name}}} stands there twice"));
            }
            names.push(name.to_owned());
            Ok(name.to_owned())
        };
        let mut all: Vec<&str> = text.split('/').collect();
        let last = all.last().and_then(|last| last.strip_prefix('{')?.strip_suffix("...}"));
        let rest = last.map(&mut known).transpose()?;
        if rest.is_some() {
            all.pop();
        }
        let mut elements = Vec::new();
        for (at, element) in all.into_iter().enumerate() {
            let pieces = pieces(element)?;
            let element = match pieces.as_slice() {
                [Piece::Text(text)] => Element { before: text.clone(), capture: None, after: String::new() },
                [Piece::Capture(name)] => Element { before: String::new(), capture: Some(known(name)?), after: String::new() },
                [Piece::Text(before), Piece::Capture(name)] => {
                    Element { before: before.clone(), capture: Some(known(name)?), after: String::new() }
                }
                [Piece::Capture(name), Piece::Text(after)] => {
                    Element { before: String::new(), capture: Some(known(name)?), after: after.clone() }
                }
                [Piece::Text(before), Piece::Capture(name), Piece::Text(after)] => {
                    Element { before: before.clone(), capture: Some(known(name)?), after: after.clone() }
                }
                [] => return Err("has an empty element".into()),
                _ => return Err("has an element with more than one capture".into()),
            };
            let text_is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
            if !text_is_plain(&element.before) || !text_is_plain(&element.after) {
                return Err("is a module path in which {name} stands for an element, and {name...} at the end for the rest".into());
            }
            if at == 0 && element.capture.is_some() {
                return Err("its first element, the host, cannot be a capture".into());
            }
            elements.push(element);
        }
        if elements.is_empty() {
            return Err("names no host".into());
        }
        Ok(Self { elements, rest })
    }

    /// How it matches a path: once, or where it takes the rest, once for each number of elements, the longest first.
    pub fn matches(&self, path: &str) -> Vec<Matched> {
        let given: Vec<&str> = path.split('/').collect();
        let count = self.elements.len();
        let mut captures = HashMap::new();
        if given.len() < count {
            return Vec::new();
        }
        for (element, given) in self.elements.iter().zip(&given) {
            let Some(inner) = element.inner(given) else { return Vec::new() };
            captures.extend(element.capture.as_ref().map(|name| (name.clone(), inner.to_owned())));
        }
        let Some(rest) = &self.rest else { return vec![Matched { root: given[..count].join("/"), captures }] };
        let longest = given.len().min(count + MAX_REST);
        let taking = |end: usize| {
            let mut captures = captures.clone();
            captures.insert(rest.clone(), given[count..end].join("/"));
            Matched { root: given[..end].join("/"), captures }
        };
        (count + 1..=longest).rev().map(taking).collect()
    }

    /// Whether the paths that it matches lie below this one.
    pub fn is_below(&self, path: &str) -> bool {
        let given: Vec<&str> = path.split('/').collect();
        let shorter = given.len() < self.elements.len() + usize::from(self.rest.is_some());
        shorter && self.elements.iter().zip(given).all(|(element, given)| element.inner(given).is_some())
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.elements.iter().filter_map(|e| e.capture.as_ref()).chain(&self.rest)
    }
}

impl Element {
    /// What a path's element has in the place of the capture; nothing where there is none, and `None` where it does not match.
    fn inner<'t>(&self, given: &'t str) -> Option<&'t str> {
        let inner = given.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_str())?;
        (inner.is_empty() != self.capture.is_some()).then_some(inner)
    }
}

impl Template {
    /// Reads a text with the captures of `of` in it.
    ///
    /// # Errors
    /// A capture that is not there, or a brace without its fellow.
    pub fn parse(text: &str, of: &Match) -> Result<Self, String> {
        let pieces = pieces(text)?;
        let unknown = pieces.iter().find_map(|piece| match piece {
            Piece::Capture(name) if !of.names().any(|n| n == name) => Some(name),
            _ => None,
        });
        match unknown {
            Some(name) => Err(format!("{{{name}}} is no capture of its match")),
            None => Ok(Self(pieces)),
        }
    }

    /// The text for a path that matched.
    pub fn fill(&self, matched: &Matched) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Capture(name) => matched.captures.get(name).cloned().unwrap_or_default(),
        };
        self.0.iter().map(text).collect()
    }

    /// The text with something harmless for each capture, for a look at its form.
    pub fn sample(&self) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Capture(_) => "x".to_owned(),
        };
        self.0.iter().map(text).collect()
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        match rest.find(['{', '}']) {
            None => {
                found.push(Piece::Text(rest.to_owned()));
                break;
            }
            Some(0) if rest.starts_with('{') => {
                let end = rest.find('}').ok_or("has a { without its }")?;
                found.push(Piece::Capture(rest[1..end].to_owned()));
                rest = &rest[end + 1..];
            }
            Some(at) if rest[at..].starts_with('{') => {
                found.push(Piece::Text(rest[..at].to_owned()));
                rest = &rest[at..];
            }
            Some(_) => return Err("has a } without its {".into()),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn urls(pattern: &str, template: &str, path: &str) -> Vec<(String, String)> {
        let pattern = Match::parse(pattern).expect("pattern");
        let template = Template::parse(template, &pattern).expect("template");
        pattern.matches(path).iter().map(|m| (m.root.clone(), template.fill(m))).collect()
    }

    #[test]
    fn captures_stand_for_elements_and_parts_of_them() {
        let one = |root: &str, url: &str| vec![(root.to_owned(), url.to_owned())];
        assert_eq!(
            urls("h.example/{group}/{name}", "https://h.example:888/{group}/{name}.git", "h.example/a/b/c"),
            one("h.example/a/b", "https://h.example:888/a/b.git")
        );
        assert_eq!(
            urls("h.example/go-{name}.x", "ssh://git@h/{name}", "h.example/go-y.x"),
            one("h.example/go-y.x", "ssh://git@h/y")
        );
        assert_eq!(urls("h.example/lib", "ssh://git@h/lib", "h.example/lib/sub"), one("h.example/lib", "ssh://git@h/lib"));
        assert!(urls("h.example/{group}/{name}", "x", "h.example/a").is_empty());
        assert!(urls("h.example/lib", "x", "h.example/library").is_empty());
        let parent = |path: &str| Match::parse("h.example/{group}/{name}").expect("pattern").is_below(path);
        assert!(parent("h.example") && parent("h.example/a") && !parent("h.example/a/b") && !parent("x.example"));
        let rest = urls("h.example/{path...}", "ssh://git@h/{path}.git", "h.example/a/b");
        assert_eq!(rest[0], ("h.example/a/b".to_owned(), "ssh://git@h/a/b.git".to_owned()));
        assert_eq!(rest[1], ("h.example/a".to_owned(), "ssh://git@h/a.git".to_owned()));
    }

    #[test]
    fn mistakes_are_told() {
        for bad in ["", "{host}/x", "h/{a}{b}", "h/{a}/{a}", "h/{a", "h/a}", "h//x", "h/{a...}/b", "h/*", "h/{a b}"] {
            assert!(Match::parse(bad).is_err(), "{bad}");
        }
        let pattern = Match::parse("h.example/{name}").expect("pattern");
        assert!(Template::parse("https://h/{other}", &pattern).is_err());
    }

    proptest! {
        #[test]
        fn no_rule_and_no_path_breaks_it(rule in "[a-z{}./]{0,20}", path in "[a-z./]{0,20}") {
            if let Ok(rule) = Match::parse(&rule) {
                let _ = rule.matches(&path);
            }
        }
    }
}

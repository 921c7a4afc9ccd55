//! Patterns of GOPRIVATE's kind: a glob a path element, matching a prefix of a path's elements
//! (`golang.org/x/mod/module.MatchPrefixPatterns`, `path.Match`).

use std::fmt;

use super::Malformed;

const WHAT: &str = "pattern";

/// One glob such as `*.corp.example` or `github.com/acme/*`. It matches a path that begins with as many elements as it has.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    elements: Vec<Vec<Token>>,
}

#[derive(Clone, PartialEq, Eq)]
enum Token {
    /// Any run of characters within an element.
    Star,
    /// Any one character.
    Any,
    Char(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Star | Self::Any => true,
            Self::Char(own) => *own == c,
            Self::Class { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
        }
    }
}

impl Pattern {
    /// Reads one glob.
    ///
    /// # Errors
    /// What is wrong with it: an open class, a backslash at its end, an empty element.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let bad = |why: &str| Malformed::new(WHAT, text, why);
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        if trimmed.is_empty() {
            return Err(bad("empty"));
        }
        if trimmed.contains("://") {
            return Err(bad("a pattern is a module path prefix, not a URL"));
        }
        if trimmed.chars().any(char::is_whitespace) {
            return Err(bad("white space in a pattern (several patterns are separated by commas alone)"));
        }
        let mut elements = vec![Vec::new()];
        let mut chars = trimmed.chars();
        while let Some(c) = chars.next() {
            let token = match c {
                '/' => {
                    if elements.last().is_none_or(Vec::is_empty) {
                        return Err(bad("empty path element"));
                    }
                    elements.push(Vec::new());
                    continue;
                }
                '*' => Token::Star,
                '?' => Token::Any,
                '[' => class(&mut chars).map_err(bad)?,
                '\\' => {
                    Token::Char(chars.next().filter(|c| *c != '/').ok_or_else(|| bad("a backslash at the end, or before a slash"))?)
                }
                c => Token::Char(c),
            };
            if let Some(element) = elements.last_mut()
                && !(token == Token::Star && element.last() == Some(&Token::Star))
            {
                element.push(token);
            }
        }
        Ok(Self { text: text.to_owned(), elements })
    }

    /// Why no module path can match, where that is so: what is written so fences nothing. GOPRIVATE may hold such globs, and Go says
    /// nothing of it; a configuration is told.
    pub fn never_matches(&self) -> Option<String> {
        let begin = self.elements.first().map_or(&[][..], Vec::as_slice);
        let literal = |token: &Token| if let Token::Char(c) = token { Some(*c) } else { None };
        let host = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        let path = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~');
        if let Some(c) = begin.iter().filter_map(literal).find(|c| !host(c)) {
            return Some(format!("no module path has {c:?} in its first element, so this never matches"));
        }
        if let Some(c) = self.elements.iter().skip(1).flatten().filter_map(literal).find(|c| !path(c)) {
            return Some(format!("no module path has {c:?} in it, so this never matches"));
        }
        let no_dot = begin.iter().all(|token| literal(token).is_some_and(|c| c != '.'));
        no_dot.then(|| "the first element of a module path has a dot in it, so this never matches".to_owned())
    }

    /// Reads a comma-separated list of globs, as GOPRIVATE holds them; empty items are passed over.
    ///
    /// # Errors
    /// The first glob that is malformed.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, Malformed> {
        text.split(',').filter(|glob| !glob.is_empty() && *glob != "/").map(Self::parse).collect()
    }

    /// Whether the path begins with elements that match.
    pub fn matches(&self, path: &str) -> bool {
        let mut names = path.split('/');
        self.elements.iter().all(|tokens| names.next().is_some_and(|name| element_matches(tokens, name)))
    }

    /// Whether it matches every path: `*`.
    pub fn is_catch_all(&self) -> bool {
        matches!(self.elements.as_slice(), [only] if only.as_slice() == [Token::Star])
    }

    /// Whether every path that `other` matches is matched by this one too. Exact for what people write; where a class or
    /// a mixed element makes it hard to say, the answer is no.
    pub fn covers(&self, other: &Self) -> bool {
        self.elements.len() <= other.elements.len()
            && self.elements.iter().zip(&other.elements).all(|(mine, theirs)| {
                mine == theirs
                    || mine.as_slice() == [Token::Star]
                    || literal(theirs).is_some_and(|name| element_matches(mine, &name))
                    || suffix_glob(mine).zip(suffix_glob(theirs)).is_some_and(|(a, b)| b.ends_with(&a))
            })
    }

    /// The pattern's proper prefixes of whole elements, as the go command probes the parents of an import path.
    pub fn parents(&self) -> impl Iterator<Item = Self> + '_ {
        (1..self.elements.len()).map(|n| Self {
            text: self.text.split('/').take(n).collect::<Vec<_>>().join("/"),
            elements: self.elements[..n].to_vec(),
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

fn literal(tokens: &[Token]) -> Option<String> {
    tokens.iter().map(|t| if let Token::Char(c) = t { Some(*c) } else { None }).collect()
}

/// The text after the star of `*.corp.example`.
fn suffix_glob(tokens: &[Token]) -> Option<String> {
    literal(tokens.strip_prefix(&[Token::Star])?)
}

fn class(chars: &mut std::str::Chars<'_>) -> Result<Token, &'static str> {
    const OPEN: &str = "a class [...] that is not closed";
    let mut rest = chars.clone();
    let negated = rest.next() == Some('^');
    if negated {
        chars.next();
    }
    let mut ranges = Vec::new();
    let one = |chars: &mut std::str::Chars<'_>| match chars.next().ok_or(OPEN)? {
        '-' | ']' => Err("a class [...] with nothing on one side of a range"),
        '/' => Err("a slash in a class [...]"),
        '\\' => match chars.next() {
            Some('/') => Err("a slash in a class [...]"),
            escaped => escaped.ok_or(OPEN),
        },
        c => Ok(c),
    };
    loop {
        let mut ahead = chars.clone();
        match ahead.next() {
            Some(']') if !ranges.is_empty() => {
                chars.next();
                return Ok(Token::Class { negated, ranges });
            }
            _ => {
                let low = one(chars)?;
                let mut ahead = chars.clone();
                let high = if ahead.next() == Some('-') {
                    chars.next();
                    one(chars)?
                } else {
                    low
                };
                ranges.push((low, high));
            }
        }
    }
}

/// Matches one element. A star never crosses a slash, so only the latest star has to be tried again: linear for one star,
/// never worse than the product of the lengths.
fn element_matches(tokens: &[Token], name: &str) -> bool {
    let (mut t, mut rest) = (0, name);
    let mut retry: Option<(usize, &str)> = None;
    loop {
        match (tokens.get(t), rest.chars().next()) {
            (None, None) => return true,
            (Some(Token::Star), _) => {
                retry = Some((t + 1, rest));
                t += 1;
                continue;
            }
            (Some(token), Some(c)) if token.takes(c) => {
                t += 1;
                rest = &rest[c.len_utf8()..];
                continue;
            }
            _ => {}
        }
        let Some((after, from)) = retry else { return false };
        let Some(c) = from.chars().next() else { return false };
        rest = &from[c.len_utf8()..];
        retry = Some((after, rest));
        t = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::ModulePath;
    use proptest::prelude::*;

    fn matches(glob: &str, path: &str) -> bool {
        Pattern::parse(glob).expect("pattern").matches(path)
    }

    #[test]
    fn covering() {
        let covers = |a: &str, b: &str| Pattern::parse(a).expect("a").covers(&Pattern::parse(b).expect("b"));
        assert!(covers("*", "github.com/acme/*"));
        assert!(covers("github.com", "github.com/acme"));
        assert!(covers("*.corp.example", "git.corp.example/x"));
        assert!(covers("*.example", "*.corp.example"));
        assert!(!covers("*.corp.example", "*.example"));
        assert!(!covers("github.com/acme", "github.com"));
        assert!(!covers("git.corp.example", "*.corp.example"));
    }

    #[test]
    fn what_no_module_path_can_match() {
        // golang.org/ref/mod#go-mod-file-ident: a host in lower case with a dot in it, then letters, digits and four marks.
        for glob in ["Corp.example", "!a.test", "a.test@v1", "a.test/x@v1", "corp", "corp/*", "a_b.test"] {
            assert!(Pattern::parse(glob).expect("pattern").never_matches().is_some(), "{glob}");
        }
        for glob in ["*", "*/x", "corp*", "?orp.example", "[A-Z].example", "github.com/Acme/*", "a.test/~u/x_y-z.v2"] {
            assert_eq!(Pattern::parse(glob).expect("pattern").never_matches(), None, "{glob}");
        }
    }

    proptest! {
        #[test]
        fn what_matches_a_module_path_is_not_said_to_match_none(path in "[a-z0-9.-]{1,8}\\.[a-z]{2,3}(/[a-zA-Z0-9._~-]{1,6}){0,3}", star in 0_usize..20) {
            let mut glob: String = path.clone();
            if let Some((at, _)) = path.char_indices().nth(star).filter(|(_, c)| *c != '/') {
                glob.replace_range(at..=at, "*");
            }
            if ModulePath::parse(&path).is_ok() {
                let pattern = Pattern::parse(&glob).expect("pattern");
                prop_assert!(!pattern.matches(&path) || pattern.never_matches().is_none(), "{glob}");
            }
        }

        #[test]
        fn a_literal_matches_itself_and_what_lies_below(path in "[a-z.]{1,8}(/[a-z0-9]{1,6}){0,3}") {
            prop_assert!(matches(&path, &path));
            let below = format!("{path}/below");
            prop_assert!(matches(&path, &below));
            let beside = format!("{path}x");
            prop_assert!(!matches(&path, &beside));
        }

        #[test]
        fn nothing_panics(glob in "[a-z*?\\[\\]^/\\\\,-]{0,16}", path in "[a-z/.-]{0,24}") {
            if let Ok(list) = Pattern::parse_list(&glob) {
                for pattern in list { let _ = pattern.matches(&path); }
            }
        }
    }
}

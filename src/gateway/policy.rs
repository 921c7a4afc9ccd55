//! What may be fetched at all, whatever an upstream has: rules about modules and versions, and how old a version has to be. Pure.
//!
//! A `deny` entry always holds. Where there are `allow` entries, what none of them names is denied. What cannot be judged, because the
//! age of a version cannot be had, is denied too.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::module::{Malformed, ModulePath, ModuleVersion, Pattern, Version, semver};

/// All rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// What is denied.
    pub deny: Vec<Entry>,
    /// Where there are any, nothing else is allowed.
    pub allow: Vec<Entry>,
    /// How old a version has to be, by the time that its `.info` gives.
    pub min_age: Duration,
    /// The modules whose versions may be younger.
    pub min_age_exempt: Vec<Pattern>,
}

/// A pattern, or a pattern and a range: `golang.org/x/text@<v0.3.8`.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    text: String,
    pattern: Pattern,
    /// All of them have to hold; none is any version.
    range: Vec<Bound>,
}

/// One end of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    /// How a version may compare with this one.
    order: &'static [Ordering],
    version: Version,
}

const COMPARISONS: [(&str, &[Ordering]); 6] = [
    ("<=", &[Ordering::Less, Ordering::Equal]),
    (">=", &[Ordering::Greater, Ordering::Equal]),
    ("<", &[Ordering::Less]),
    (">", &[Ordering::Greater]),
    ("=", &[Ordering::Equal]),
    ("", &[Ordering::Equal]),
];

impl Entry {
    /// Reads an entry. A range is one or several comparisons with canonical versions, separated by spaces: `>=v1.2.0 <v1.2.9`; a
    /// version alone is that version.
    ///
    /// # Errors
    /// What is wrong with the pattern or the range.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let (pattern, range) = text.split_once('@').map_or((text, None), |(pattern, range)| (pattern, Some(range)));
        let bounds =
            |range: &str| range.split([' ', ',']).filter(|b| !b.is_empty()).map(Bound::parse).collect::<Result<Vec<_>, _>>();
        let range = range.map(bounds).transpose()?;
        if range.as_ref().is_some_and(Vec::is_empty) {
            return Err(Malformed::new("policy entry", text, "nothing follows the @"));
        }
        if pattern.contains(',') {
            return Err(Malformed::new("policy entry", text, "one pattern an entry"));
        }
        let pattern = Pattern::parse(pattern)?;
        if let Some(why) = pattern.never_matches() {
            return Err(Malformed::new("policy entry", text, why));
        }
        Ok(Self { text: text.to_owned(), pattern, range: range.unwrap_or_default() })
    }

    fn names(&self, version: &ModuleVersion) -> bool {
        self.names_module(&version.module) && self.range.iter().all(|bound| bound.holds(&version.version))
    }

    fn names_module(&self, module: &ModulePath) -> bool {
        self.pattern.matches(module.as_str())
    }
}

impl Bound {
    fn parse(text: &str) -> Result<Self, Malformed> {
        let parsed = COMPARISONS.iter().find_map(|(sign, order)| Some((order, text.strip_prefix(sign)?)));
        let (order, version) = parsed.unwrap_or((&COMPARISONS[5].1, text));
        Ok(Self { order, version: Version::parse(version)? })
    }

    /// As semantic versions compare: build metadata does not count, a pre-release is lower than its release.
    fn holds(&self, version: &Version) -> bool {
        self.order.contains(&semver::compare(version.as_str(), self.version.as_str()))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// Why policy denies something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// An entry says so.
    #[error("denied by policy.deny {0:?}")]
    Denied(String),
    /// No entry allows it.
    #[error("no entry of policy.allow names it")]
    NotAllowed,
    /// It is younger than it has to be.
    #[error("denied by policy.min_age: made {made}, allowed from {from} on")]
    TooYoung {
        /// When it was made.
        made: Timestamp,
        /// From when on it is allowed.
        from: Timestamp,
    },
    /// How old it is cannot be said.
    #[error("denied by policy.min_age: its .info gives no time")]
    NoTime,
}

impl Policy {
    /// Why nothing of a module is to be had, where that is so.
    pub fn module(&self, module: &ModulePath) -> Result<(), Denial> {
        if let Some(entry) = self.deny.iter().find(|e| e.range.is_empty() && e.names_module(module)) {
            return Err(Denial::Denied(entry.text.clone()));
        }
        if !self.allow.is_empty() && !self.allow.iter().any(|e| e.names_module(module)) {
            return Err(Denial::NotAllowed);
        }
        Ok(())
    }

    /// Why a version is not to be had, its age aside, where that is so.
    pub fn version(&self, version: &ModuleVersion) -> Result<(), Denial> {
        if let Some(entry) = self.deny.iter().find(|e| e.names(version)) {
            return Err(Denial::Denied(entry.text.clone()));
        }
        if !self.allow.is_empty() && !self.allow.iter().any(|e| e.names(version)) {
            return Err(Denial::NotAllowed);
        }
        Ok(())
    }

    /// Whether a module's versions have to have an age.
    pub fn minds_age(&self, module: &ModulePath) -> bool {
        !self.min_age.is_zero() && !self.min_age_exempt.iter().any(|p| p.matches(module.as_str()))
    }

    /// Whether a version that was made then is old enough now, where age is minded.
    pub fn age(&self, made: Option<Timestamp>, now: Timestamp) -> Result<(), Denial> {
        let made = made.ok_or(Denial::NoTime)?;
        let from = made.saturating_add(jiff::SignedDuration::try_from(self.min_age).unwrap_or(jiff::SignedDuration::MAX));
        let from = from.unwrap_or(Timestamp::MAX);
        if from <= now { Ok(()) } else { Err(Denial::TooYoung { made, from }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(texts: &[&str]) -> Vec<Entry> {
        texts.iter().map(|t| Entry::parse(t).expect("entry")).collect()
    }

    fn version(text: &str) -> ModuleVersion {
        let (module, version) = text.split_once('@').expect("version");
        ModuleVersion::new(ModulePath::parse(module).expect("path"), Version::parse(version).expect("version")).expect("fits")
    }

    #[test]
    fn denied_and_allowed() {
        let policy = Policy {
            deny: entries(&[
                "github.com/evil/*",
                "golang.org/x/text@<v0.3.8",
                "a.b/c@>=v1.2.0 <v1.2.9",
                "a.b/d@v2.0.0",
                "a.b/e@=v1.0.0",
            ]),
            ..Policy::default()
        };
        let denied = |text: &str| policy.version(&version(text)).is_err();
        for text in [
            "github.com/evil/x@v1.0.0",
            "github.com/evil/x/y@v0.0.1",
            "golang.org/x/text@v0.3.7",
            "golang.org/x/text@v0.3.8-rc.1",
            "golang.org/x/text/sub@v0.1.0",
            "golang.org/x/text@v0.0.0-20170915032832-14c0d48ead0c",
            "a.b/c@v1.2.0",
            "a.b/c@v1.2.8",
            "a.b/d@v2.0.0+incompatible",
            "a.b/e@v1.0.0",
        ] {
            assert!(denied(text), "{text}");
        }
        for text in ["github.com/good/x@v1.0.0", "golang.org/x/text@v0.3.8", "a.b/c@v1.2.9", "a.b/c@v1.1.0", "a.b/e@v1.0.1"] {
            assert!(!denied(text), "{text}");
        }
        let module = |path: &str| policy.module(&ModulePath::parse(path).expect("path")).is_err();
        assert!(module("github.com/evil/x") && !module("golang.org/x/text"));
        let listed = Policy { allow: entries(&["golang.org", "github.com/good/x@>=v1.1.0"]), ..policy };
        let allowed = |text: &str| listed.version(&version(text));
        assert_eq!(allowed("golang.org/x/mod@v0.1.0"), Ok(()));
        assert_eq!(
            allowed("golang.org/x/text@v0.3.0"),
            Err(Denial::Denied("golang.org/x/text@<v0.3.8".into())),
            "deny holds always"
        );
        assert_eq!(allowed("github.com/good/x@v1.0.0"), Err(Denial::NotAllowed));
        assert_eq!(allowed("github.com/good/y@v1.1.0"), Err(Denial::NotAllowed));
        assert_eq!(listed.module(&ModulePath::parse("github.com/good/y").expect("path")), Err(Denial::NotAllowed));
    }

    #[test]
    fn bad_entries() {
        for bad in ["", "@v1.0.0", "a.b@", "a.b@<", "a.b@1.0.0", "a.b@v1", "a.b@<<v1.0.0", "a.b,c.d", "a.b@~v1.0.0", "a//b"] {
            assert!(Entry::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ages() {
        let at = |text: &str| text.parse::<Timestamp>().expect("time");
        let policy = Policy {
            min_age: Duration::from_secs(7 * 86_400),
            min_age_exempt: vec![Pattern::parse("corp.example").expect("pattern")],
            ..Policy::default()
        };
        let now = at("2026-11-21T12:00:00Z");
        assert_eq!(policy.age(Some(at("2026-11-14T12:00:00Z")), now), Ok(()));
        assert!(matches!(policy.age(Some(at("2026-11-14T12:00:01Z")), now), Err(Denial::TooYoung { .. })));
        assert!(policy.age(Some(at("2030-01-01T00:00:00Z")), now).is_err());
        assert_eq!(policy.age(None, now), Err(Denial::NoTime));
        let minds = |path: &str| policy.minds_age(&ModulePath::parse(path).expect("path"));
        assert!(minds("golang.org/x/mod") && !minds("corp.example/x"));
        assert!(!Policy::default().minds_age(&ModulePath::parse("golang.org/x/mod").expect("path")));
    }
}

//! Versions as Go has them: semantic versions with a leading `v`, `+incompatible`, and queries that name one
//! (`golang.org/x/mod/semver`, <https://go.dev/ref/mod#versions>).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::escape::{escape, unescape};
use super::path::check_element;
use super::semver::{Parts, compare_parts, major_fits, parts};
use super::{Malformed, ModulePath};

const WHAT: &str = "version";

/// A canonical version: `v1.2.3`, `v1.2.3-rc.1`, a pseudo-version, or one of these with `+incompatible`.
///
/// It orders as `semver.Compare` does; versions that differ only in `+incompatible` order by their text, so that sorting
/// is total.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(Arc<str>);

impl Version {
    /// Checks that the text is a canonical version (`module.CanonicalVersion(v) == v`).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let parts = parts(text).ok_or_else(|| Malformed::new(WHAT, text, "not a semantic version such as v1.2.3"))?;
        if parts.short || !(parts.build.is_empty() || parts.build == "+incompatible") {
            return Err(Malformed::new(WHAT, text, "not canonical (as v1.2.3, without build metadata other than +incompatible)"));
        }
        // A version is also a file name, with the limits of one (a reserved name of Windows cannot start with "v").
        if text.len() > 230 {
            return Err(Malformed::new(WHAT, text, "longer than 230 characters"));
        }
        Ok(Self(text.into()))
    }

    /// The version's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The version as it stands in URLs and file names.
    pub fn escaped(&self) -> String {
        escape(&self.0)
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        // It was parsed when it was made; the fallback is never reached.
        parts(&self.0).unwrap_or(Parts { major: "0", minor: "0", patch: "0", prerelease: "", build: "", short: false })
    }

    /// Whether it has a pre-release part (a pseudo-version has one too).
    pub fn is_prerelease(&self) -> bool {
        !self.parts().prerelease.is_empty()
    }

    /// Whether it is a pseudo-version.
    pub fn is_pseudo(&self) -> bool {
        super::pseudo::is_pseudo(&self.0)
    }

    /// Whether it is `+incompatible`.
    pub fn is_incompatible(&self) -> bool {
        self.0.ends_with("+incompatible")
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_parts(&self.parts(), &other.parts()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What may stand before `.info`: a version, or something that names one (a branch, a commit, `v1`, `v1.2`).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Query(Arc<str>);

impl Query {
    /// Checks a decoded query (`module.UnescapeVersion`, which allows what can be a file name).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        check_element(text, |c| c.is_ascii_alphanumeric() || "#$%&()+,-.=@[]^_{}~ ".contains(c))
            .map_err(|why| Malformed::new(WHAT, text, why))?;
        if text.len() > 230 {
            return Err(Malformed::new(WHAT, text, "longer than 230 characters"));
        }
        Ok(Self(text.into()))
    }

    /// Decodes and checks a query as it stands in a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn unescape(escaped: &str) -> Result<Self, Malformed> {
        let text = unescape(escaped)
            .ok_or_else(|| Malformed::new(WHAT, escaped, "not escaped as the module proxy protocol has it (\"!a\" for \"A\")"))?;
        Self::parse(&text)
    }

    /// The query's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The query as it stands in URLs and file names.
    pub fn escaped(&self) -> String {
        escape(&self.0)
    }

    /// Whether it is `v1` or `v1.2`: a prefix that the highest matching version of the list answers.
    pub fn is_version_prefix(&self) -> bool {
        parts(&self.0).is_some_and(|p| p.short)
    }

    /// Whether `version` is one that this prefix query names.
    pub(crate) fn is_prefix_of(&self, version: &Version) -> bool {
        version.as_str().strip_prefix(self.as_str()).is_some_and(|rest| rest.starts_with('.'))
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// One version of one module, whose major version suits the path (`module.Check`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModuleVersion {
    /// The module.
    pub module: ModulePath,
    /// Its version.
    pub version: Version,
}

impl ModuleVersion {
    /// Joins the two where they fit: `example.com/m/v2` has versions `v2.x.y` only.
    ///
    /// # Errors
    /// Which major version the path asks for.
    pub fn new(module: ModulePath, version: Version) -> Result<Self, Malformed> {
        let suffix = module.major_suffix();
        let fits = major_fits(suffix, version.as_str());
        if fits {
            return Ok(Self { module, version });
        }
        let (wanted, major) = (suffix.get(1..).unwrap_or("v0 or v1"), version.parts().major);
        Err(Malformed::new(WHAT, version.as_str(), format!("module path {module} has to have version {wanted}, not v{major}")))
    }
}

impl fmt::Display for ModuleVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.module, self.version)
    }
}

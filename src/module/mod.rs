//! Layer 1: the vocabulary of Go modules, without I/O.
//!
//! Everything that arrives from outside is parsed here into a type that cannot be wrong: a [`ModulePath`], a canonical
//! [`Version`], a [`Query`], and from a request's URL an [`Ask`]. The rules are those of `golang.org/x/mod/module` and
//! `golang.org/x/mod/semver`; the tests compare them row by row with what those packages say.

pub mod ask;
pub mod escape;
pub mod files;
pub mod gomod;
pub mod info;
pub mod list;
pub mod path;
pub mod pattern;
pub mod pseudo;
pub(crate) mod semver;
pub mod sum;
pub mod unpacked;
pub mod version;
pub mod zip;

pub use ask::{Ask, AskError};
pub use info::Info;
pub use path::ModulePath;
pub use pattern::Pattern;
pub use sum::Sum;
pub use version::{ModuleVersion, Query, Version};

/// Whether a text is a semantic version, canonical or not (`semver.IsValid`).
pub(crate) fn is_semver(text: &str) -> bool {
    semver::parts(text).is_some()
}

/// Why a module path, a version or a pattern is refused. Its text is one line and names the offending part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?}: {why}")]
pub struct Malformed {
    /// What was being read: `module path`, `version`, `pattern`.
    pub what: &'static str,
    /// The offending text, cut to a readable length.
    pub text: String,
    /// The rule that it breaks.
    pub why: String,
}

impl Malformed {
    pub(crate) fn new(what: &'static str, text: &str, why: impl Into<String>) -> Self {
        let mut shown: String = text.chars().take(120).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Self { what, text: shown, why: why.into() }
    }
}

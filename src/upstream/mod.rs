//! Layer 5: the places that modules come from.
//!
//! Every kind answers the same five questions through [`Upstream`], and every failure comes back as one of the closed
//! classes of [`Failure`], so that fallback, status and log decide by class and not by kind. What an upstream returns has been
//! checked for its shape: a list is a list, an `.info` names a version, a go.mod is one. A zip is handed over as it arrives
//! and is checked by the gateway, which holds its end back meanwhile.

pub mod directory;
pub mod error;
pub mod goproxy;
pub mod guard;
pub mod offline;
pub mod vcs;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

pub use error::{Busy, Failure, Outage, UpstreamError};

use crate::base::Call;
use crate::egress::Body;
use crate::module::list::VersionList;
use crate::module::{Info, ModulePath, ModuleVersion, Query};
use crate::store::Stored;

/// The largest list that is read, in bytes.
pub const MAX_LIST: u64 = 4 << 20;
/// The largest `.info` that is read, in bytes.
pub const MAX_INFO: u64 = 1 << 20;

/// What an upstream's answer comes as.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, UpstreamError>> + Send + 'a>>;

/// A zip that begins to arrive.
#[derive(Debug)]
pub enum Incoming {
    /// Over the network.
    Body {
        /// Its length, where it was announced.
        length: Option<u64>,
        /// Its bytes.
        body: Body,
    },
    /// It is a file already.
    File(Stored),
}

/// One place that modules come from, shared by all workers.
pub trait Upstream: Send + Sync + std::fmt::Debug {
    /// The versions it lists.
    fn list<'a>(&'a self, module: &'a ModulePath, call: &'a Call) -> Boxed<'a, VersionList>;
    /// What it takes for the latest version.
    fn latest<'a>(&'a self, module: &'a ModulePath, call: &'a Call) -> Boxed<'a, Info>;
    /// The version that a query names, or the facts about a version.
    fn info<'a>(&'a self, module: &'a ModulePath, query: &'a Query, call: &'a Call) -> Boxed<'a, Info>;
    /// A version's go.mod.
    fn go_mod<'a>(&'a self, version: &'a ModuleVersion, call: &'a Call) -> Boxed<'a, Bytes>;
    /// A version's zip.
    fn zip<'a>(&'a self, version: &'a ModuleVersion, call: &'a Call) -> Boxed<'a, Incoming>;
    /// Whether it can be reached at all, for `check --probe`: what it said to a harmless question.
    fn probe(&self) -> Boxed<'_, String>;
    /// What stands in the way of asking it now, for `explain`; nothing where all is well.
    fn state(&self) -> Option<String> {
        None
    }
    /// Whether it hung or was late a moment ago, so that it may be as well not to wait for it alone.
    fn suspect(&self) -> bool {
        false
    }
    /// Tells it that another upstream was faster, by so much that its answer was no longer waited for.
    fn overtaken(&self, _after: Duration) {}
}

/// Checks that text is a go.mod and not, say, the page of a captive portal.
///
/// # Errors
/// What it is instead.
pub(crate) fn check_go_mod(bytes: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the go.mod is not UTF-8".to_owned())?;
    if text.contains('\0') {
        return Err("the go.mod holds zero bytes".into());
    }
    let is_module = |line: &str| {
        line.trim_start_matches('\u{feff}')
            .trim_start()
            .strip_prefix("module")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_whitespace() || matches!(c, '(' | '"' | '`')))
    };
    if text.lines().any(is_module) { Ok(()) } else { Err("no go.mod: it has no module line".into()) }
}

/// Checks and reads the text of a list.
pub(crate) fn read_list(module: &ModulePath, bytes: &[u8]) -> Result<VersionList, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the list is not UTF-8".to_owned())?;
    let list = VersionList::parse(module, text);
    let looks_like_one = |line: &str| line.split_whitespace().next().is_some_and(crate::module::is_semver);
    let mut lines = text.lines().filter(|l| !l.trim().is_empty()).peekable();
    if lines.peek().is_some() && !lines.any(looks_like_one) {
        return Err("no list: none of its lines is a version".into());
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_mod_has_a_module_line() {
        assert!(check_go_mod(b"module example.com/m\n").is_ok());
        assert!(check_go_mod(b"// Deprecated: no\n\nmodule \"example.com/m\" // x\n").is_ok());
        assert!(check_go_mod(b"<html><body>Please log in, module owner</body></html>").is_err());
        assert!(check_go_mod(b"").is_err());
        assert!(check_go_mod(b"module x\0").is_err());
        assert!(check_go_mod(b"module \xff").is_err());
    }

    #[test]
    fn a_list_is_empty_or_has_versions() {
        let module = ModulePath::parse("example.com/m").expect("path");
        assert!(read_list(&module, b"").is_ok());
        assert!(read_list(&module, b"v1.0.0\nx\n").is_ok());
        assert!(read_list(&module, b"<html>\n").is_err());
    }
}

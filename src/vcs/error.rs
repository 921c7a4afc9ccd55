//! Why a repository gave no module.

use std::io;

use crate::egress::EgressError;
use crate::store::is_full;

/// Why a repository gave no module. Its text holds no secret and no path of this machine.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VcsError {
    /// There is no such repository, revision or module in it.
    #[error("not found: {0}")]
    NotFound(String),
    /// The server does not let modgate in.
    #[error("denied: {0}")]
    Denied(String),
    /// The server, or something on the way to it, does not work.
    #[error("{why}")]
    Broken {
        /// What was said.
        why: String,
        /// Whether it was a time limit.
        hangs: bool,
        /// Whether the same may well succeed a moment later.
        may_pass: bool,
    },
    /// The disk that modgate itself works on is full. What the system or the program said.
    #[error("modgate has no room to work on the repository: {0}")]
    NoRoom(String),
    /// The upstream's limits left no turn.
    #[error(transparent)]
    NoTurn(EgressError),
}

impl VcsError {
    pub(super) fn not_found(why: impl Into<String>) -> Self {
        Self::NotFound(why.into())
    }

    /// Nothing says where the module of an import path is.
    pub(super) fn unrecognized(path: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::NotFound(format!("unrecognized import path \"{path}\": {why}"))
    }

    pub(super) fn broken(why: impl Into<String>) -> Self {
        Self::Broken { why: why.into(), hangs: false, may_pass: false }
    }

    /// modgate's own folder could not be written: `what` was to be done there.
    pub(super) fn own(what: &str, e: &io::Error) -> Self {
        if is_full(e) { Self::NoRoom(e.to_string()) } else { Self::broken(format!("{what}: {e}")) }
    }

    /// Whether it says that there is no such thing, rather than that it cannot be had now.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

impl From<EgressError> for VcsError {
    fn from(e: EgressError) -> Self {
        match e {
            EgressError::NoTurn { .. } => Self::NoTurn(e),
            // A name that leads inside is refused for good, as one that leads nowhere.
            EgressError::Internal { .. } => Self::Denied(e.to_string()),
            e => Self::Broken { why: e.to_string(), hangs: e.is_timeout(), may_pass: e.may_pass() },
        }
    }
}

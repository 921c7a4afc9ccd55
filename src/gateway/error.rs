//! Why there is no answer.

use std::sync::Arc;
use std::time::Duration;

use super::policy::Denial;
use super::trail::Attempt;
use crate::route::FailureClass;

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GatewayError {
    /// No route matches the path.
    #[error("no route matches this module path")]
    NoRoute,
    /// The caller's team has no route for it, or it is private to another.
    #[error("this module path is outside the routes of whoever asks")]
    Outside,
    /// The route that matches has no upstreams.
    #[error("no upstream serves this module path")]
    NoUpstream,
    /// The request asks the cache alone, and the cache does not have it.
    #[error("not in the cache, and this request does not allow fetching")]
    NotCached,
    /// The chain brought nothing.
    #[error("{}", .0.summary())]
    Chain(ChainVerdict, Option<Duration>),
    /// Some upstream's list is missing, and the route does not want an incomplete one.
    #[error("the version list would be incomplete without: {}", names(.0))]
    Partial(Vec<Arc<str>>),
    /// Policy denies it.
    #[error("{0}")]
    Denied(#[from] Denial),
    /// The checksum database does not know it, and the route wants a proof.
    #[error("the checksum database does not know it, so it cannot be proven")]
    Unproven,
    /// The checksum database was asked, and does not know it.
    #[error("the checksum database does not know it")]
    Unrecorded,
    /// It could not be proven, since the database could not be asked or is not to be believed.
    #[error("not verified: {why}")]
    Unverified {
        /// What stood in the way.
        why: Arc<str>,
        /// Whether that was a time limit.
        timed_out: bool,
    },
    /// No checksum database is asked about it from here.
    #[error("no checksum database is asked about this module from here (it belongs into GONOSUMDB or GOPRIVATE)")]
    Fenced,
    /// Too many fetches are under way.
    #[error("too many fetches under way; what is cached is still served")]
    Overloaded,
    /// There is nowhere to put it, or what it is made from: no room on the disk, or no file descriptor. What the system said.
    #[error("modgate cannot store it on its way: {0}")]
    NoRoom(Arc<str>),
    /// Something of modgate's own broke; the log says what.
    #[error("internal error; the log of modgate has more")]
    Internal,
}

fn names(list: &[Arc<str>]) -> String {
    list.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

/// What a chain that brought nothing comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainVerdict {
    /// Whoever was asked said, itself, that it does not have it.
    Absent,
    /// All that was wrong were time limits.
    TimedOut,
    /// Some upstream failed.
    Failed,
}

impl ChainVerdict {
    fn summary(self) -> &'static str {
        match self {
            Self::Absent => "not found",
            Self::TimedOut => "no upstream answered in time",
            Self::Failed => "no upstream could answer",
        }
    }

    /// The verdict over a chain's attempts. An outage is never an absence, whatever the others said.
    pub fn over(attempts: &[Attempt]) -> Self {
        let mut verdict = Self::Absent;
        for failure in attempts.iter().filter_map(|a| a.verdict.failure()).map(|e| &e.failure) {
            match failure {
                f if f.class() == FailureClass::Absent => {}
                f if f.is_timeout() && verdict != Self::Failed => verdict = Self::TimedOut,
                _ => verdict = Self::Failed,
            }
        }
        verdict
    }
}

impl GatewayError {
    pub(super) fn chain(attempts: &[Attempt]) -> Self {
        if let Some(why) = attempts.iter().filter_map(|a| a.verdict.failure()).find_map(|e| e.failure.no_room()) {
            return Self::NoRoom(why.into());
        }
        let retry_after = attempts.iter().filter_map(|a| a.verdict.failure()).find_map(|e| e.failure.retry_after());
        Self::Chain(ChainVerdict::over(attempts), retry_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::{EgressError, Wait};
    use crate::gateway::Verdict;
    use crate::upstream::{Busy, Failure, Outage};

    #[test]
    fn an_outage_is_never_an_absence() {
        let absent = || Failure::Absent(Some(404));
        let timeout = || Failure::Outage(Outage::Network(EgressError::Timeout(Wait::FirstByte)));
        let table = [
            (vec![absent(), absent()], ChainVerdict::Absent),
            (vec![absent(), Failure::Outage(Outage::Status(500))], ChainVerdict::Failed),
            (vec![timeout(), absent()], ChainVerdict::TimedOut),
            (vec![timeout(), Failure::Denied(403)], ChainVerdict::Failed),
            (vec![Failure::Denied(403), timeout()], ChainVerdict::Failed),
            (vec![Failure::Corrupt("x".into())], ChainVerdict::Failed),
            (vec![Failure::Busy(Busy::Said { status: 429, retry_after: None })], ChainVerdict::Failed),
        ];
        for (failures, wanted) in table {
            let attempts: Vec<Attempt> = failures
                .into_iter()
                .map(|f| Attempt { upstream: "u".into(), verdict: Verdict::Failed(f.into()), elapsed: Duration::ZERO })
                .collect();
            assert_eq!(ChainVerdict::over(&attempts), wanted, "{attempts:?}");
        }
    }
}

//! The record of a decision: which rule, what the cache had, which upstreams were asked and what they said.
//!
//! There is one record and it has many renderings: `explain`, the log line, the error body.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::verify::Checked;
use crate::base::units::show_elapsed;
use crate::route::Plan;
use crate::upstream::UpstreamError;

/// What the cache had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheStatus {
    /// It was not asked: the request was refused before.
    #[default]
    Unasked,
    /// The answer was ready in memory.
    Memory,
    /// A copy that is good.
    Hit,
    /// A copy older than its time, used while it is being refreshed or because its upstream failed.
    Stale,
    /// Nothing.
    Miss,
}

impl CacheStatus {
    /// The status's name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unasked => "-",
            Self::Memory => "memory",
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
        }
    }
}

/// What came of one upstream.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It gave what was asked for.
    Fetched,
    /// Its copy is fresh; it was not asked. The copy's age.
    Fresh(Duration),
    /// Its copy is old and used all the same. The copy's age, and the failure that made it so, where there was one.
    Stale(Duration, Option<UpstreamError>),
    /// It failed.
    Failed(UpstreamError),
    /// It said a moment ago that it does not have it, and was not asked again.
    Remembered(UpstreamError),
    /// It gave it, but nobody gets it; the refusal of the whole says why.
    Withheld,
    /// It was being asked when the chain ended before it.
    GivenUp,
    /// There is no copy, and the request asks the cache alone.
    NotCached,
}

impl Verdict {
    /// The failure, where there was one and no copy stood in.
    pub fn failure(&self) -> Option<&UpstreamError> {
        match self {
            Self::Failed(e) | Self::Remembered(e) => Some(e),
            Self::Fetched | Self::Fresh(_) | Self::Stale(..) | Self::Withheld | Self::GivenUp | Self::NotCached => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = |age: &Duration| humantime::format_duration(Duration::from_secs(age.as_secs())).to_string();
        match self {
            Self::Fetched => f.write_str("ok"),
            Self::Fresh(a) => write!(f, "copy, {} old", age(a)),
            Self::Stale(a, None) => write!(f, "copy, {} old, being refreshed", age(a)),
            Self::Stale(a, Some(e)) => write!(f, "copy, {} old, because: {e}", age(a)),
            Self::Failed(e) => write!(f, "{e}"),
            Self::Remembered(e) => write!(f, "{e}, remembered"),
            Self::Withheld => f.write_str("given, but not handed on"),
            Self::GivenUp => f.write_str("given up, the chain ended before it"),
            Self::NotCached => f.write_str("not cached"),
        }
    }
}

/// One upstream that was considered.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// What came of it.
    pub verdict: Verdict,
    /// How long it took.
    pub elapsed: Duration,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.upstream, self.verdict, show_elapsed(self.elapsed))
    }
}

/// The whole record of one request.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    /// The rule that matched.
    pub plan: Option<Plan>,
    /// What the cache had.
    pub cache: CacheStatus,
    /// The upstream whose answer it is; a merged answer has none.
    pub upstream: Option<Arc<str>>,
    /// What the sum of a zip or go.mod rests on. One that is still arriving has none yet.
    pub checked: Option<Checked>,
    /// The upstreams that were considered, in order.
    pub attempts: Vec<Attempt>,
}

impl Trail {
    /// The attempts as one line, for the log.
    pub fn attempts_line(&self) -> String {
        self.attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

//! Whether a copy of something that changes is good enough. Pure.

use std::time::Duration;

/// How a copy is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As it is, for so much longer.
    Fresh(Duration),
    /// As it is, while it is being refreshed.
    Stale,
    /// Only where its upstream fails: it is too old to be shown without asking.
    Expired,
    /// There is none.
    Missing,
}

/// A copy is used while it is being refreshed until it is this many times as old as its time to live.
const STALE_TIMES: u32 = 60;

/// Judges a copy by its age. A copy from the future (a clock that was set back) is as good as an expired one.
pub fn judge(copy: Option<Age>, ttl: Duration) -> Freshness {
    match copy {
        None => Freshness::Missing,
        Some(Age::Future) => Freshness::Expired,
        Some(Age::Past(age)) if age < ttl => Freshness::Fresh(ttl.saturating_sub(age)),
        Some(Age::Past(age)) if age < ttl.saturating_mul(STALE_TIMES) => Freshness::Stale,
        Some(Age::Past(_)) => Freshness::Expired,
    }
}

/// How long ago a file was written, as far as the clocks agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// So long.
    Past(Duration),
    /// Its time has not come yet.
    Future,
}

impl Age {
    /// The age of a file time.
    pub fn of(modified: std::time::SystemTime) -> Self {
        modified.elapsed().map_or(Self::Future, Self::Past)
    }

    /// The age, taken as zero where it lies in the future.
    pub fn duration(self) -> Duration {
        match self {
            Self::Past(age) => age,
            Self::Future => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_age() {
        let s = Duration::from_secs;
        let table = [
            (None, Freshness::Missing),
            (Some(Age::Past(s(0))), Freshness::Fresh(s(60))),
            (Some(Age::Past(s(59))), Freshness::Fresh(s(1))),
            (Some(Age::Past(s(60))), Freshness::Stale),
            (Some(Age::Past(s(3599))), Freshness::Stale),
            (Some(Age::Past(s(3600))), Freshness::Expired),
            (Some(Age::Future), Freshness::Expired),
        ];
        for (age, wanted) in table {
            assert_eq!(judge(age, s(60)), wanted, "{age:?}");
        }
        assert_eq!(judge(Some(Age::Past(s(0))), s(0)), Freshness::Expired);
    }
}

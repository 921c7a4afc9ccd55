//! What accompanies one request on its way down the layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// One request's company: its id, and whether it may cause anything to be fetched.
#[derive(Debug, Clone)]
pub struct Call {
    /// The request id that stands in the log line and in `X-Request-Id`.
    pub id: Arc<str>,
    /// Answer from the cache alone: `/cached-only/…` or `Disable-Module-Fetch: true`.
    pub cached_only: bool,
    /// Whether another upstream is asked where this one fails: then trying again is that one's business.
    pub others: bool,
    /// Whether a late upstream is waited for although others are asked beside it, as for a list that is not to lack its part.
    pub waits: bool,
}

impl Call {
    /// A call with a fresh id that may fetch.
    pub fn new() -> Self {
        Self { id: fresh_id().into(), cached_only: false, others: false, waits: false }
    }
}

impl Default for Call {
    fn default() -> Self {
        Self::new()
    }
}

/// A request id: 16 hexadecimal digits, unique within this process and most likely among its replicas.
pub fn fresh_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut n = NEXT.fetch_add(1, Ordering::Relaxed);
    if n == 0 {
        // The first id starts the counter at a point taken from the clock and the process id.
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let seed = u64::try_from(nanos & u128::from(u64::MAX)).unwrap_or(0) ^ (u64::from(std::process::id()) << 48);
        NEXT.fetch_add(seed, Ordering::Relaxed);
        n = seed;
    }
    // A bijection (odd multiplier, xor-shift) spreads neighbours apart without ever making two of them equal.
    let mixed = (n ^ (n >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("{mixed:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_do_not_repeat() {
        let ids: std::collections::HashSet<String> = (0..10_000).map(|_| fresh_id()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 16));
    }
}

//! When a request may be sent again: a few times, after a wait that grows and differs from one to the next, and never so often
//! that repeating makes an outage worse.
//!
//! Every request adds a tenth of a repetition to a budget and every repetition takes one from it, so that an upstream which fails
//! everything sees a tenth more requests, not a multiple. Only GET is ever sent, which is safe to repeat (RFC 9110 §9.2.2);
//! which failures are worth it, the caller knows.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What one request adds to the budget; a repetition takes `WHOLE`.
const SHARE: u32 = 1;
const WHOLE: u32 = 10;
/// The most that is saved up.
const FULL: u32 = 20 * WHOLE;
/// The first wait, in the mean. Each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// No wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// One upstream's repetitions.
#[derive(Debug)]
pub(super) struct Retry {
    /// How often one request is repeated.
    most: u32,
    budget: AtomicU32,
}

impl Retry {
    pub(super) fn new(most: u32) -> Self {
        Self { most, budget: AtomicU32::new(FULL) }
    }

    /// Counts a request.
    pub(super) fn count(&self) {
        let _ = self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < FULL).then(|| n + SHARE));
    }

    /// After which wait to repeat what was repeated so often already; `None` where it should not be.
    pub(super) fn again(&self, repeated: u32) -> Option<Duration> {
        if repeated >= self.most {
            return None;
        }
        self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(WHOLE)).ok()?;
        let mean = FIRST_WAIT.saturating_mul(1 << repeated.min(10)).min(LONGEST_WAIT);
        Some(mean.mul_f64(0.5 + fastrand::f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_never_multiply_an_outage() {
        let retry = Retry::new(3);
        assert_eq!(retry.again(3), None);
        let mut repeated = 0;
        for _ in 0..1000 {
            retry.count();
            repeated += (0..3).take_while(|n| retry.again(*n).is_some()).count();
        }
        assert!((100..=125).contains(&repeated), "{repeated}");
        assert!(Retry::new(0).again(0).is_none());
    }

    #[test]
    fn waits_grow_and_have_a_bound() {
        let retry = Retry::new(20);
        for n in 0..20 {
            let mean = (50.0 * f64::from(1 << n.min(10))).min(2000.0);
            let wait = retry.again(n).expect("budget").as_secs_f64() * 1000.0;
            assert!(wait >= mean * 0.49 && wait <= mean * 1.51, "{n}: {wait} of {mean}");
        }
    }
}

//! One upstream's limits: so many requests a time (governor), so many at once, and none while it asked to be left alone.
//!
//! Who is let in is decided in the order of asking, so nobody starves. Each wait has a bound; a request that cannot get its
//! turn within it is refused at once where that can be told beforehand, so that a chain goes on without delay.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::EgressError;
use crate::base::units::show_elapsed;

/// The longest pause that an upstream's `Retry-After` may ask for.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// So many requests a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub requests: NonZeroU32,
    /// In which time.
    pub per: Duration,
    /// How many may come at once after a time of rest.
    pub burst: NonZeroU32,
    /// How long a request waits for its turn.
    pub max_wait: Duration,
}

/// One upstream's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleSettings {
    /// How many requests a time.
    pub rate: Option<Rate>,
    /// How many at once, their bodies included.
    pub max_concurrent: Option<usize>,
    /// How long a request waits for a place among those, or for the end of a pause.
    pub max_wait: Duration,
}

impl Default for ThrottleSettings {
    fn default() -> Self {
        Self { rate: None, max_concurrent: None, max_wait: Duration::from_secs(2) }
    }
}

/// A place among the requests to one upstream, given back when it is dropped.
#[derive(Debug, Default)]
pub struct Place {
    _permit: Option<OwnedSemaphorePermit>,
}

/// One upstream's limiter.
#[derive(Debug)]
pub(super) struct Throttle {
    upstream: Arc<str>,
    settings: ThrottleSettings,
    rate: Option<Limiter>,
    places: Option<Arc<Semaphore>>,
    pause: Mutex<Option<Pause>>,
}

#[derive(Debug)]
struct Limiter {
    rate: Rate,
    /// The time from one request to the next.
    step: Duration,
    governor: RateLimiter<NotKeyed, InMemoryState, MonotonicClock>,
    /// Held by the request whose turn is next. tokio's mutex serves in the order of asking.
    next: tokio::sync::Mutex<()>,
    waiting: AtomicU32,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    status: u16,
}

/// One that waits for its turn, as long as it does.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Limiter {
    fn new(rate: Rate) -> Option<Self> {
        let step = rate.per / rate.requests.get();
        let quota = Quota::with_period(step)?.allow_burst(rate.burst);
        let governor = RateLimiter::direct_with_clock(quota, MonotonicClock);
        Some(Self { rate, step, governor, next: tokio::sync::Mutex::new(()), waiting: AtomicU32::new(0) })
    }

    /// Waits for a turn; whether there was one in time.
    async fn turn(&self) -> bool {
        let before = self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        if before > 0 && self.step.saturating_mul(before) > self.rate.max_wait {
            return false;
        }
        let deadline = Instant::now() + self.rate.max_wait;
        let turn = async {
            let _next = self.next.lock().await;
            while let Err(early) = self.governor.check() {
                let wait = early.wait_time_from(MonotonicClock.now());
                if Instant::now() + wait > deadline {
                    return false;
                }
                tokio::time::sleep(wait).await;
            }
            true
        };
        tokio::time::timeout_at(deadline, turn).await.unwrap_or(false)
    }
}

impl Throttle {
    pub(super) fn new(upstream: Arc<str>, settings: ThrottleSettings) -> Self {
        let places = settings.max_concurrent.map(|n| Arc::new(Semaphore::new(n)));
        Self { upstream, settings, rate: settings.rate.and_then(Limiter::new), places, pause: Mutex::new(None) }
    }

    /// Waits for a place and a turn.
    pub(super) async fn enter(&self) -> Result<Place, EgressError> {
        let permit = match &self.places {
            None => None,
            Some(places) => {
                let wait = self.settings.max_wait;
                let permit = tokio::time::timeout(wait, Arc::clone(places).acquire_owned()).await;
                let full = || {
                    refused(
                        format_args!("its {} places (max_concurrent) are taken", self.settings.max_concurrent.unwrap_or(0)),
                        wait,
                    )
                };
                Some(permit.map_err(|_| full())?.map_err(|_| EgressError::Stopped)?)
            }
        };
        self.turn().await?;
        Ok(Place { _permit: permit })
    }

    /// Waits for a turn alone, as a request needs that has a place already.
    pub(super) async fn turn(&self) -> Result<(), EgressError> {
        self.pause_over().await?;
        let Some(limiter) = &self.rate else { return Ok(()) };
        if limiter.turn().await {
            return Ok(());
        }
        let Rate { requests, per, max_wait, .. } = limiter.rate;
        Err(refused(format_args!("its rate_limit of {requests} in {} is used up", show_elapsed(per)), max_wait))
    }

    /// Waits for the end of a pause, where that is near.
    async fn pause_over(&self) -> Result<(), EgressError> {
        let Some((rest, status)) = self.paused() else { return Ok(()) };
        if rest > self.settings.max_wait {
            let why = format!("it asked by {status} to be left alone for {} s more", rest.as_secs_f64().ceil());
            return Err(EgressError::NoTurn { why, retry_after: Some(rest) });
        }
        tokio::time::sleep(rest).await;
        Ok(())
    }

    fn paused(&self) -> Option<(Duration, u16)> {
        let pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = pause.as_ref()?;
        let rest = pause.until.saturating_duration_since(Instant::now());
        (!rest.is_zero()).then_some((rest, pause.status))
    }

    /// Takes note of how the upstream answered: 429 and 503 with Retry-After pause it, anything else ends a pause.
    pub(super) fn note(&self, status: u16, retry_after: Option<Duration>) {
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        match retry_after.filter(|_| matches!(status, 429 | 503)) {
            Some(wait) => {
                let until = Instant::now() + wait.min(LONGEST_PAUSE);
                // Several answers of the same moment say it once.
                if pause.as_ref().is_none_or(|p| p.until + Duration::from_secs(1) < until) {
                    tracing::warn!(upstream = %self.upstream, status, seconds = wait.as_secs(), "the upstream asks to be left alone and is paused");
                    *pause = Some(Pause { until, status });
                }
            }
            None => {
                // Answers to what was asked before the pause began do not end it.
                if pause.as_ref().is_some_and(|p| p.until <= Instant::now()) {
                    *pause = None;
                    tracing::info!(upstream = %self.upstream, "the upstream answers again after its pause");
                }
            }
        }
    }

    /// What stands in the way of requests now.
    pub(super) fn state(&self) -> Option<String> {
        let (rest, status) = self.paused()?;
        Some(format!("paused for {} s more: it asked for that by {status}", rest.as_secs_f64().ceil()))
    }
}

fn refused(why: impl fmt::Display, waited: Duration) -> EgressError {
    EgressError::NoTurn { why: format!("{why}, no turn within {}", show_elapsed(waited)), retry_after: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn throttle(requests: u32, burst: u32, max_wait: Duration, places: Option<usize>) -> Arc<Throttle> {
        let n = |n| NonZeroU32::new(n).expect("number");
        let rate = Rate { requests: n(requests), per: Duration::from_secs(1), burst: n(burst), max_wait };
        let settings = ThrottleSettings { rate: (requests > 0).then_some(rate), max_concurrent: places, max_wait };
        Arc::new(Throttle::new("u".into(), settings))
    }

    #[tokio::test]
    async fn turns_are_given_in_order_and_who_cannot_get_one_hears_so_at_once() {
        let throttle = throttle(50, 1, Duration::from_millis(200), None);
        let ended = AtomicUsize::new(0);
        let askers: Vec<_> = (0..40)
            .map(|n| {
                let (throttle, ended) = (Arc::clone(&throttle), &ended);
                async move { (n, throttle.enter().await.is_ok(), ended.fetch_add(1, Ordering::Relaxed)) }
            })
            .collect();
        let got = futures_util::future::join_all(askers).await;
        let served: Vec<_> = got.iter().filter(|(_, ok, _)| *ok).map(|(n, ..)| *n).collect();
        // The first at once, then one in 20 ms for 200 ms; fewer where the machine has no time for them.
        assert!((2..=11).contains(&served.len()), "{served:?}");
        assert!(served.windows(2).all(|w| w[0] < w[1]) && served.last() < Some(&12), "{served:?}");
        let last_served = got.iter().filter(|(_, ok, _)| *ok).map(|(.., nth)| *nth).max();
        let first_refused = got.iter().filter(|(_, ok, _)| !ok).map(|(.., nth)| *nth).min();
        assert!(first_refused < last_served, "{got:?}");
    }

    #[tokio::test]
    async fn places_are_given_back_and_pauses_end() {
        let throttle = throttle(1, 100, Duration::from_millis(50), Some(1));
        let place = throttle.enter().await.expect("a place");
        assert!(matches!(throttle.enter().await, Err(EgressError::NoTurn { .. })));
        drop(place);
        assert!(throttle.enter().await.is_ok());
        throttle.note(429, None);
        assert_eq!(throttle.state(), None, "a 429 without a time is no pause");
        throttle.note(503, Some(Duration::from_secs(7)));
        let refused = throttle.enter().await.expect_err("paused");
        assert!(refused.to_string().contains("by 503"), "{refused}");
        assert!(throttle.state().is_some());
        *throttle.pause.lock().expect("lock") = None;
        throttle.note(429, Some(Duration::from_millis(30)));
        let started = Instant::now();
        assert!(throttle.enter().await.is_ok(), "a short pause is waited for");
        assert!(started.elapsed() >= Duration::from_millis(25));
        throttle.note(200, None);
        assert!(throttle.pause.lock().expect("lock").is_none());
    }
}

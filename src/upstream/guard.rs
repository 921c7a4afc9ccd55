//! The circuit breaker before an upstream: one that does not work is left alone for a while, so that only the first few requests
//! feel it.
//!
//! After so many failures in a row it opens, and the upstream counts as failed without being asked. When its time is over, one
//! request goes through as a probe: its success closes the breaker, its failure opens it again. What counts is that
//! the upstream cannot be reached, does not answer in time, breaks off, or says 502, 503 or 504. A 500 may be about one module
//! alone, and an absence or a refusal is an answer. Each change of state is one line of the log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Boxed, Failure, Incoming, Outage, Upstream, UpstreamError};
use crate::base::Call;
use crate::module::list::VersionList;
use crate::module::{Info, ModulePath, ModuleVersion, Query};

/// A breaker's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Failures in a row that open it; 0 switches it off.
    pub failures: u32,
    /// How long it stays open.
    pub open_for: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { failures: 5, open_for: Duration::from_secs(30) }
    }
}

#[derive(Debug)]
enum State {
    /// Requests go through; so many failed in a row.
    Closed(u32),
    /// None goes through until then.
    Open(Instant),
    /// One is under way as a probe.
    Probing,
}

/// An upstream behind its breaker.
#[derive(Debug)]
pub struct Guarded {
    name: Arc<str>,
    inner: Box<dyn Upstream>,
    settings: Settings,
    state: Mutex<State>,
    /// Why it opened, for those who are refused.
    reason: Mutex<Option<Arc<str>>>,
}

/// A request that went through; it tells the breaker how it ended. One that is given up counts as neither.
struct Passage<'a> {
    guard: &'a Guarded,
    probe: bool,
    told: bool,
}

impl Guarded {
    /// Puts a breaker before an upstream.
    pub fn new(name: Arc<str>, inner: Box<dyn Upstream>, settings: Settings) -> Self {
        Self { name, inner, settings, state: Mutex::new(State::Closed(0)), reason: Mutex::new(None) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Result<Passage<'_>, UpstreamError> {
        let mut state = self.state();
        let rest = match &*state {
            State::Closed(_) => return Ok(Passage { guard: self, probe: false, told: false }),
            State::Open(until) => until.saturating_duration_since(Instant::now()),
            State::Probing => Duration::from_secs(1),
        };
        if rest.is_zero() {
            *state = State::Probing;
            tracing::info!(upstream = %self.name, "the circuit breaker lets one request through as a probe");
            return Ok(Passage { guard: self, probe: true, told: false });
        }
        let why = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Err(Failure::Outage(Outage::Open { rest, why: why.unwrap_or_default() }).into())
    }

    fn open(&self, state: &mut State, reason: &str) {
        *state = State::Open(Instant::now() + self.settings.open_for);
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.into());
        tracing::warn!(upstream = %self.name, open_for = ?self.settings.open_for, reason, "the circuit breaker opened");
    }

    async fn pass<T>(&self, asking: Boxed<'_, T>) -> Result<T, UpstreamError> {
        if self.settings.failures == 0 {
            return asking.await;
        }
        let passage = self.enter()?;
        let result = asking.await;
        passage.tell(result.as_ref().err());
        result
    }
}

impl Passage<'_> {
    fn tell(mut self, error: Option<&UpstreamError>) {
        self.told = true;
        let mut state = self.guard.state();
        let failed = error.filter(|e| counts(&e.failure));
        match (&mut *state, failed) {
            (State::Closed(failures), Some(e)) => {
                *failures += 1;
                if *failures >= self.guard.settings.failures {
                    self.guard.open(&mut state, &e.to_string());
                }
            }
            (State::Probing, Some(e)) if self.probe => self.guard.open(&mut state, &e.to_string()),
            (State::Closed(failures), None) => *failures = 0,
            // A probe that worked, or a request from before that came back after all.
            (State::Probing | State::Open(_), None) => {
                *state = State::Closed(0);
                tracing::info!(upstream = %self.guard.name, "the circuit breaker closed: the upstream works again");
            }
            (State::Probing | State::Open(_), Some(_)) => {}
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        // A probe that was given up says nothing; the next request is one.
        if self.probe && !self.told {
            *self.guard.state() = State::Open(Instant::now());
        }
    }
}

/// Whether a failure says that the upstream as a whole does not work.
fn counts(failure: &Failure) -> bool {
    match failure {
        Failure::Outage(Outage::Status(status)) => matches!(status, 502..=504),
        Failure::Outage(Outage::Network(_) | Outage::DiskHangs(_)) => true,
        Failure::Outage(Outage::Disk(_) | Outage::Open { .. }) => false,
        Failure::Absent(_) | Failure::Denied(_) | Failure::Busy { .. } | Failure::Corrupt(_) => false,
    }
}

impl Upstream for Guarded {
    fn list<'a>(&'a self, module: &'a ModulePath, call: &'a Call) -> Boxed<'a, VersionList> {
        Box::pin(self.pass(self.inner.list(module, call)))
    }

    fn latest<'a>(&'a self, module: &'a ModulePath, call: &'a Call) -> Boxed<'a, Info> {
        Box::pin(self.pass(self.inner.latest(module, call)))
    }

    fn info<'a>(&'a self, module: &'a ModulePath, query: &'a Query, call: &'a Call) -> Boxed<'a, Info> {
        Box::pin(self.pass(self.inner.info(module, query, call)))
    }

    fn go_mod<'a>(&'a self, version: &'a ModuleVersion, call: &'a Call) -> Boxed<'a, Bytes> {
        Box::pin(self.pass(self.inner.go_mod(version, call)))
    }

    fn zip<'a>(&'a self, version: &'a ModuleVersion, call: &'a Call) -> Boxed<'a, Incoming> {
        Box::pin(self.pass(self.inner.zip(version, call)))
    }

    fn probe(&self) -> Boxed<'_, String> {
        self.inner.probe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

    /// Answers every question by a status, and counts them.
    #[derive(Debug, Default)]
    struct Canned {
        status: Arc<AtomicU16>,
        asked: Arc<AtomicUsize>,
    }

    impl Canned {
        fn answer<T>(&self, good: T) -> Result<T, UpstreamError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            match self.status.load(Ordering::SeqCst) {
                200 => Ok(good),
                404 => Err(Failure::Absent(Some(404)).into()),
                status => Err(Failure::Outage(Outage::Status(status)).into()),
            }
        }
    }

    impl Upstream for Canned {
        fn list<'a>(&'a self, _: &'a ModulePath, _: &'a Call) -> Boxed<'a, VersionList> {
            Box::pin(async { self.answer(VersionList::default()) })
        }
        fn latest<'a>(&'a self, _: &'a ModulePath, _: &'a Call) -> Boxed<'a, Info> {
            Box::pin(async { Err(Failure::Absent(None).into()) })
        }
        fn info<'a>(&'a self, _: &'a ModulePath, _: &'a Query, _: &'a Call) -> Boxed<'a, Info> {
            Box::pin(async { Err(Failure::Absent(None).into()) })
        }
        fn go_mod<'a>(&'a self, _: &'a ModuleVersion, _: &'a Call) -> Boxed<'a, Bytes> {
            Box::pin(async { self.answer(Bytes::new()) })
        }
        fn zip<'a>(&'a self, _: &'a ModuleVersion, _: &'a Call) -> Boxed<'a, Incoming> {
            Box::pin(async { Err(Failure::Absent(None).into()) })
        }
        fn probe(&self) -> Boxed<'_, String> {
            Box::pin(async { self.answer(String::new()) })
        }
    }

    #[tokio::test]
    async fn it_opens_after_failures_in_a_row_and_closes_after_a_probe() {
        let canned = Canned::default();
        let (status, asked) = (Arc::clone(&canned.status), Arc::clone(&canned.asked));
        let settings = Settings { failures: 3, open_for: Duration::from_millis(80) };
        let guarded = Guarded::new("u".into(), Box::new(canned), settings);
        let (module, call) = (ModulePath::parse("example.com/m").expect("path"), Call::new());
        let ask = async |answer: u16| {
            status.store(answer, Ordering::SeqCst);
            let before = asked.load(Ordering::SeqCst);
            let result = guarded.list(&module, &call).await;
            (result.map(|_| ()).map_err(|e| e.to_string()), asked.load(Ordering::SeqCst) - before)
        };
        // Neither a 500 nor an absence counts, and either ends a row.
        for answer in [503, 503, 404, 503, 503, 500, 503, 503] {
            assert_eq!(ask(answer).await.1, 1);
        }
        assert_eq!(ask(503).await.1, 1, "the third in a row");
        let (refused, asked_then) = ask(200).await;
        assert_eq!(asked_then, 0);
        assert!(refused.expect_err("open").contains("503 Service Unavailable"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(ask(502).await.1, 1, "a probe, which fails");
        assert_eq!(ask(200).await.1, 0);
        tokio::time::sleep(Duration::from_millis(100)).await;
        // A probe that is given up leaves its place to the next.
        drop(guarded.enter().expect("a probe"));
        assert_eq!(ask(200).await, (Ok(()), 1));
        assert_eq!(ask(200).await, (Ok(()), 1));
    }
}

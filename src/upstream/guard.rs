//! The circuit breaker before an upstream: one that does not work is left alone for a while, so that only the first few requests
//! feel it.
//!
//! After so many failures in a row it opens, and the upstream counts as failed without being asked. Where it opens because the
//! upstream hangs, those who wait for it already are let go too. When its time is over, the next request has a harmless question
//! sent as a probe and waits for that only a moment: an answer closes the breaker, a failure keeps it open. So nobody pays for
//! finding out. What counts is that the upstream cannot be reached, does not answer in time, breaks off, or says 502, 503 or
//! 504. A 500 may be about one module alone, and an absence or a refusal is an answer. Each change of state is one line of
//! the log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::{Boxed, Failure, Incoming, Outage, Upstream, UpstreamError};
use crate::base::Call;
use crate::module::list::VersionList;
use crate::module::{Info, ModulePath, ModuleVersion, Query};

/// How long a request waits for a probe that it caused.
const PATIENCE: Duration = Duration::from_millis(250);

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
    /// None goes through.
    Open {
        /// Until then; afterwards a probe decides.
        until: Instant,
        /// Whether one is under way.
        probing: bool,
        /// The failure that opened it.
        why: Arc<str>,
        /// Whether that was a time limit.
        hangs: bool,
    },
}

/// What those who wait have to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Works,
    Fails,
    /// It does not answer at all: waiting for it is of no use.
    Hangs,
}

/// Whether a request goes through.
enum Passage {
    Free,
    /// Not now.
    Refused(UpstreamError),
    /// A probe has to say.
    Probe,
}

#[derive(Debug)]
struct Breaker {
    name: Arc<str>,
    settings: Settings,
    state: Mutex<State>,
    condition: watch::Sender<Condition>,
}

/// An upstream behind its breaker.
#[derive(Debug)]
pub struct Guarded {
    inner: Arc<dyn Upstream>,
    breaker: Arc<Breaker>,
}

impl Breaker {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passage(&self) -> Passage {
        match &mut *self.state() {
            State::Closed(_) => Passage::Free,
            State::Open { until, probing: probing @ false, .. } if *until <= Instant::now() => {
                *probing = true;
                tracing::info!(upstream = %self.name, "the circuit breaker has the upstream probed");
                Passage::Probe
            }
            State::Open { until, why, hangs, .. } => Passage::Refused(refusal(*until, why, *hangs)),
        }
    }

    /// Why nothing goes through now, if so.
    fn refuses(&self) -> Option<UpstreamError> {
        match &*self.state() {
            State::Closed(_) => None,
            State::Open { until, why, hangs, .. } => Some(refusal(*until, why, *hangs)),
        }
    }

    fn open(&self, state: &mut State, failure: &Failure) {
        let (why, hangs, open_for) = (failure.to_string(), failure.is_timeout(), self.settings.open_for);
        tracing::warn!(upstream = %self.name, ?open_for, reason = why, "the circuit breaker opened");
        *state = State::Open { until: Instant::now() + open_for, probing: false, why: why.into(), hangs };
        self.condition.send_replace(if hangs { Condition::Hangs } else { Condition::Fails });
    }

    fn close(&self, state: &mut State) {
        tracing::info!(upstream = %self.name, "the circuit breaker closed: the upstream works again");
        *state = State::Closed(0);
        self.condition.send_replace(Condition::Works);
    }

    /// How a request ended.
    fn note(&self, failure: Option<&Failure>) {
        let mut state = self.state();
        match (&mut *state, failure.filter(|f| counts(f))) {
            (State::Closed(failures), Some(failure)) => {
                *failures += 1;
                if *failures >= self.settings.failures {
                    self.open(&mut state, failure);
                }
            }
            (State::Closed(failures), None) => *failures = 0,
            // A request from before that came back after all.
            (State::Open { .. }, None) => self.close(&mut state),
            (State::Open { .. }, Some(_)) => {}
        }
    }

    /// How a probe ended.
    fn probed(&self, failure: Option<&Failure>) {
        let mut state = self.state();
        match failure.filter(|f| counts(f)) {
            Some(failure) => self.open(&mut state, failure),
            None if matches!(*state, State::Open { .. }) => self.close(&mut state),
            None => {}
        }
    }
}

impl Guarded {
    /// Puts a breaker before an upstream.
    pub fn new(name: Arc<str>, inner: Arc<dyn Upstream>, settings: Settings) -> Self {
        let (condition, _) = watch::channel(Condition::Works);
        Self { inner, breaker: Arc::new(Breaker { name, settings, state: Mutex::new(State::Closed(0)), condition }) }
    }

    async fn pass<T>(&self, asking: Boxed<'_, T>) -> Result<T, UpstreamError> {
        let breaker = &*self.breaker;
        if breaker.settings.failures == 0 {
            return asking.await;
        }
        let mut condition = breaker.condition.subscribe();
        match breaker.passage() {
            Passage::Free => {}
            Passage::Refused(e) => return Err(e),
            Passage::Probe => {
                // The probe goes on when this request does not wait for it any more.
                let _ = tokio::time::timeout(PATIENCE, self.probe_apart()).await;
                if let Some(e) = breaker.refuses() {
                    return Err(e);
                }
            }
        }
        tokio::select! {
            result = asking => {
                breaker.note(result.as_ref().err().map(|e| &e.failure));
                result
            }
            _ = condition.wait_for(|c| *c == Condition::Hangs) => {
                // Where it closed again in this very moment, the next request finds that out.
                Err(breaker.refuses().unwrap_or_else(|| refusal(Instant::now(), &"it hung".into(), true)))
            }
        }
    }

    /// Sends a probe as a task of its own.
    fn probe_apart(&self) -> tokio::task::JoinHandle<()> {
        let (breaker, inner) = (Arc::clone(&self.breaker), Arc::clone(&self.inner));
        tokio::spawn(async move {
            let said = inner.probe().await;
            breaker.probed(said.err().map(|e| e.failure).as_ref());
        })
    }
}

fn refusal(until: Instant, why: &Arc<str>, hangs: bool) -> UpstreamError {
    let rest = until.saturating_duration_since(Instant::now());
    Failure::Outage(Outage::Open { rest, why: Arc::clone(why), hangs }).into()
}

/// Whether a failure says that the upstream as a whole does not work.
fn counts(failure: &Failure) -> bool {
    match failure {
        Failure::Outage(Outage::Status(status, _)) => matches!(status, 502..=504),
        Failure::Outage(Outage::Network(_) | Outage::DiskHangs(_) | Outage::Overtaken(_)) => true,
        Failure::Outage(Outage::Disk(_) | Outage::Open { .. }) => false,
        Failure::Absent(_) | Failure::Denied(_) | Failure::Busy(_) | Failure::Corrupt(_) => false,
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

    fn state(&self) -> Option<String> {
        let breaker = match &*self.breaker.state() {
            State::Closed(_) => None,
            State::Open { why, probing: true, .. } => Some(format!("circuit breaker open, being probed; it opened because: {why}")),
            State::Open { until, why, .. } => {
                let rest = until.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
                Some(format!("circuit breaker open for {rest} s more, because: {why}"))
            }
        };
        let states: Vec<String> = breaker.into_iter().chain(self.inner.state()).collect();
        (!states.is_empty()).then(|| states.join("; "))
    }

    fn overtaken(&self, after: Duration) {
        if self.breaker.settings.failures > 0 {
            self.breaker.note(Some(&Failure::Outage(Outage::Overtaken(after))));
        }
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
        async fn answer<T>(&self, good: T) -> Result<T, UpstreamError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            match self.status.load(Ordering::SeqCst) {
                200 => Ok(good),
                404 => Err(Failure::Absent(Some(404)).into()),
                1 => std::future::pending().await,
                status => Err(Failure::Outage(Outage::Status(status, None)).into()),
            }
        }
    }

    impl Upstream for Canned {
        fn list<'a>(&'a self, _: &'a ModulePath, _: &'a Call) -> Boxed<'a, VersionList> {
            Box::pin(self.answer(VersionList::default()))
        }
        fn latest<'a>(&'a self, _: &'a ModulePath, _: &'a Call) -> Boxed<'a, Info> {
            Box::pin(async { Err(Failure::Absent(None).into()) })
        }
        fn info<'a>(&'a self, _: &'a ModulePath, _: &'a Query, _: &'a Call) -> Boxed<'a, Info> {
            Box::pin(async { Err(Failure::Absent(None).into()) })
        }
        fn go_mod<'a>(&'a self, _: &'a ModuleVersion, _: &'a Call) -> Boxed<'a, Bytes> {
            Box::pin(self.answer(Bytes::new()))
        }
        fn zip<'a>(&'a self, _: &'a ModuleVersion, _: &'a Call) -> Boxed<'a, Incoming> {
            Box::pin(async { Err(Failure::Absent(None).into()) })
        }
        fn probe(&self) -> Boxed<'_, String> {
            Box::pin(self.answer(String::new()))
        }
    }

    #[tokio::test]
    async fn it_opens_after_failures_in_a_row_and_closes_after_a_probe() {
        let canned = Canned::default();
        let (status, asked) = (Arc::clone(&canned.status), Arc::clone(&canned.asked));
        let settings = Settings { failures: 3, open_for: Duration::from_millis(80) };
        let guarded = Guarded::new("u".into(), Arc::new(canned), settings);
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
        assert_eq!(ask(200).await, (Ok(()), 2), "a probe, and the question itself");
        assert_eq!(ask(200).await, (Ok(()), 1));
        assert_eq!(guarded.state(), None);
    }

    #[tokio::test]
    async fn when_it_hangs_those_who_wait_are_let_go_and_a_probe_holds_nobody_up() {
        let canned = Canned::default();
        let (status, asked) = (Arc::clone(&canned.status), Arc::clone(&canned.asked));
        let settings = Settings { failures: 2, open_for: Duration::from_millis(50) };
        let guarded = Guarded::new("u".into(), Arc::new(canned), settings);
        let (module, call) = (ModulePath::parse("example.com/m").expect("path"), Call::new());
        status.store(1, Ordering::SeqCst);
        let slow = Duration::from_millis(800);
        let overtake = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            guarded.overtaken(slow);
            guarded.overtaken(slow);
        };
        let started = Instant::now();
        let (waited, ()) = tokio::join!(guarded.list(&module, &call), overtake);
        assert!(waited.expect_err("let go").to_string().contains("no answer after 800 ms"));
        assert!(guarded.state().is_some_and(|s| s.contains("open")));
        tokio::time::sleep(Duration::from_millis(60)).await;
        // The probe hangs too: the one that caused it waits a moment, the others not at all.
        assert!(guarded.list(&module, &call).await.is_err());
        assert!(guarded.list(&module, &call).await.is_err());
        assert!(started.elapsed() < PATIENCE * 3 && asked.load(Ordering::SeqCst) == 2);
    }
}

//! The circuit breaker before an upstream: one that does not work is left alone for a while, so that only the first few requests
//! feel it.
//!
//! After so many failures in a row it opens, and the upstream counts as failed without being asked. Where it opens because the
//! upstream hangs, those who wait for it already are let go too. When its time is over, one request goes through as a scout, which
//! finds out: its success closes the breaker, its failure opens it again. A request for which there is nobody else does not wait for
//! that time: it is a scout itself, or waits a moment for the word of the one that is under way.
//!
//! One that hung once, or that others overtook a few times in a row, is suspect. From then on chains that may go on do not wait for it alone
//! ([`Upstream::suspect`]): one of their requests a second is its scout, beside which the next upstream is asked at once, and the
//! others go on without it, and come back to it only when nobody else has the answer. A scout runs on when nobody waits for it any more, so that its end is known. So a hanging upstream
//! costs its first request a time limit, and those after it nothing.
//!
//! What counts is that the upstream cannot be reached, does not answer in time, breaks off before it has answered, or says 502,
//! 503 or 504. A 500 or an answer that cannot be used may be about one module alone, an absence or a refusal is an answer, and
//! what was never sent says nothing. Each change of state is one line of the log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::{Boxed, Busy, Failure, Incoming, Outage, Upstream, UpstreamError};
use crate::base::Call;
use crate::egress::EgressError;
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
enum Position {
    /// Requests go through.
    Closed {
        /// So many failed in a row.
        failures: u32,
        /// So often in a row another upstream was faster.
        overtaken: u32,
        /// Why it may be as well not to wait for it alone.
        suspect: Option<Arc<str>>,
    },
    /// None goes through, but for a scout when the time is over.
    Open {
        until: Instant,
        /// The failure that opened it.
        why: Arc<str>,
        /// Whether that was a time limit.
        hangs: bool,
    },
}

impl Position {
    const CALM: Self = Self::Closed { failures: 0, overtaken: 0, suspect: None };
}

#[derive(Debug)]
struct State {
    position: Position,
    /// When the newest scout set out, where one is under way.
    scout: Option<Instant>,
}

/// What those who wait have to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Closed,
    Open,
    /// It is open because the upstream hangs, so that waiting for it is of no use.
    Hangs,
}

/// How a request goes through.
enum Passage {
    Free,
    /// As a scout, whose end is waited for whoever goes away.
    Scout(Scout),
    /// When a scout has spoken, or else not.
    Later(UpstreamError),
    Refused(UpstreamError),
}

/// A scout that is under way. Dropped, it makes room for the next.
struct Scout(Arc<Breaker>, Instant);

impl Drop for Scout {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.scout = state.scout.filter(|newest| *newest != self.1);
    }
}

/// One scout may be slow for a reason of its own; after so long another sets out.
const NEXT_SCOUT: Duration = Duration::from_secs(1);
/// So often in a row another upstream has to be faster.
const OVERTAKEN: u32 = 2;

/// What the end of a request says of the upstream as a whole.
enum Sign {
    Works,
    Fails,
    Nothing,
}

#[derive(Debug)]
struct Breaker {
    name: Arc<str>,
    settings: Settings,
    state: Mutex<State>,
    /// Told of each change.
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

    /// Whether a request may go through.
    fn passage(self: &Arc<Self>, call: &Call) -> Passage {
        let mut state = self.state();
        let now = Instant::now();
        let refusal = match &state.position {
            Position::Closed { suspect: Some(why), .. } if call.others && !call.waits => Outage::Suspect(Arc::clone(why)),
            Position::Closed { .. } => return Passage::Free,
            Position::Open { until, why, hangs } => still_open(*until, why, *hangs),
        };
        let refusal = Failure::Outage(refusal).into();
        let closed_for_now = matches!(&state.position, Position::Open { until, .. } if *until > now);
        if call.others && closed_for_now {
            return Passage::Refused(refusal);
        }
        if state.scout.is_some_and(|newest| now.duration_since(newest) < NEXT_SCOUT) {
            return if call.others { Passage::Refused(refusal) } else { Passage::Later(refusal) };
        }
        state.scout = Some(now);
        Passage::Scout(Scout(Arc::clone(self), now))
    }

    /// Why those who wait are let go.
    fn let_go(&self) -> UpstreamError {
        let outage = match &self.state().position {
            Position::Open { until, why, .. } => still_open(*until, why, true),
            // It closed again in this very moment.
            Position::Closed { .. } => still_open(Instant::now(), &"it hung".into(), true),
        };
        Failure::Outage(outage).into()
    }

    fn open(&self, state: &mut State, failure: &Failure) {
        let (why, hangs, open_for) = (failure.to_string(), failure.is_timeout(), self.settings.open_for);
        tracing::warn!(upstream = %self.name, ?open_for, reason = why, "the circuit breaker opened");
        state.position = Position::Open { until: Instant::now() + open_for, why: why.into(), hangs };
        self.condition.send_replace(if hangs { Condition::Hangs } else { Condition::Open });
    }

    /// How a request ended.
    fn note(&self, failure: Option<&Failure>, scout: bool) {
        let mut state = self.state();
        let state = &mut *state;
        match (sign(failure), &mut state.position, failure) {
            (Sign::Nothing, ..) => {}
            (Sign::Works, Position::Open { .. }, _) => {
                tracing::info!(upstream = %self.name, "the circuit breaker closed: the upstream works again");
                state.position = Position::CALM;
                self.condition.send_replace(Condition::Closed);
            }
            (Sign::Works, Position::Closed { failures, suspect, .. }, _) => {
                if suspect.is_some() && *failures > 0 {
                    tracing::info!(upstream = %self.name, "the upstream answers again");
                }
                state.position = Position::CALM;
            }
            (Sign::Fails, Position::Closed { failures, suspect, .. }, Some(failure)) => {
                *failures += 1;
                if *failures >= self.settings.failures {
                    self.open(state, failure);
                } else if failure.is_timeout() && suspect.is_none() {
                    tracing::warn!(upstream = %self.name, reason = %failure, "the upstream hung and is not waited for alone");
                    *suspect = Some(failure.to_string().into());
                }
            }
            // Only a scout's failure is news.
            (Sign::Fails, Position::Open { .. }, Some(failure)) if scout => self.open(state, failure),
            (Sign::Fails, ..) => {}
        }
    }
}

impl Guarded {
    /// Puts a breaker before an upstream.
    pub fn new(name: Arc<str>, inner: Arc<dyn Upstream>, settings: Settings) -> Self {
        let state = Mutex::new(State { position: Position::CALM, scout: None });
        Self { inner, breaker: Arc::new(Breaker { name, settings, state, condition: watch::channel(Condition::Closed).0 }) }
    }

    async fn pass<T, F>(&self, call: &Call, asking: F) -> Result<T, UpstreamError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, UpstreamError>> + Send + 'static,
    {
        let breaker = &self.breaker;
        if breaker.settings.failures == 0 {
            return asking.await;
        }
        let mut condition = breaker.condition.subscribe();
        let mut passage = breaker.passage(call);
        if let Passage::Later(refusal) = passage {
            // Whatever the scout says, or if it says nothing for long.
            let _ = tokio::time::timeout(NEXT_SCOUT, condition.changed()).await;
            if *condition.borrow_and_update() != Condition::Closed {
                return Err(refusal);
            }
            passage = breaker.passage(call);
        }
        let scout = match passage {
            Passage::Refused(e) | Passage::Later(e) => return Err(e),
            Passage::Scout(scout) => scout,
            Passage::Free => {
                return tokio::select! {
                    result = asking => {
                        breaker.note(result.as_ref().err().map(|e| &e.failure), false);
                        result
                    }
                    _ = condition.wait_for(|c| *c == Condition::Hangs) => Err(breaker.let_go()),
                };
            }
        };
        let running = tokio::spawn(async move {
            let result = asking.await;
            scout.0.note(result.as_ref().err().map(|e| &e.failure), true);
            drop(scout);
            result
        });
        running.await.unwrap_or_else(|e| Err(UpstreamError::corrupt(format!("asking it broke down: {e}"))))
    }
}

/// What stands for the answer of an upstream whose breaker is open.
fn still_open(until: Instant, why: &Arc<str>, hangs: bool) -> Outage {
    Outage::Open { rest: until.saturating_duration_since(Instant::now()), why: Arc::clone(why), hangs }
}

/// What the end of a request says of the upstream as a whole.
fn sign(failure: Option<&Failure>) -> Sign {
    match failure {
        None => Sign::Works,
        Some(Failure::Outage(Outage::Status(502..=504) | Outage::DiskHangs(_))) => Sign::Fails,
        Some(Failure::Outage(Outage::Network(e))) => match e {
            EgressError::Redirect(_) | EgressError::Unusable(_) => Sign::Works,
            EgressError::Stopped => Sign::Nothing,
            e if e.is_exhaustion() => Sign::Nothing,
            _ => Sign::Fails,
        },
        Some(
            Failure::Busy(Busy::NoTurn { .. }) | Failure::Outage(Outage::Open { .. } | Outage::Suspect(_) | Outage::Overtaken(_)),
        ) => Sign::Nothing,
        Some(Failure::Outage(Outage::Status(_) | Outage::Disk(_))) => Sign::Works,
        // One repository, or one host of many.
        Some(Failure::Vcs(_)) => Sign::Nothing,
        Some(Failure::Absent(_) | Failure::Denied(_) | Failure::Busy(Busy::Said { .. }) | Failure::Corrupt(_)) => Sign::Works,
    }
}

impl Upstream for Guarded {
    fn list<'a>(&'a self, module: &'a ModulePath, call: &'a Call) -> Boxed<'a, VersionList> {
        let (inner, module, its) = (Arc::clone(&self.inner), module.clone(), call.clone());
        Box::pin(self.pass(call, async move { inner.list(&module, &its).await }))
    }

    fn latest<'a>(&'a self, module: &'a ModulePath, call: &'a Call) -> Boxed<'a, Info> {
        let (inner, module, its) = (Arc::clone(&self.inner), module.clone(), call.clone());
        Box::pin(self.pass(call, async move { inner.latest(&module, &its).await }))
    }

    fn info<'a>(&'a self, module: &'a ModulePath, query: &'a Query, call: &'a Call) -> Boxed<'a, Info> {
        let (inner, module, query, its) = (Arc::clone(&self.inner), module.clone(), query.clone(), call.clone());
        Box::pin(self.pass(call, async move { inner.info(&module, &query, &its).await }))
    }

    fn go_mod<'a>(&'a self, version: &'a ModuleVersion, call: &'a Call) -> Boxed<'a, Bytes> {
        let (inner, version, its) = (Arc::clone(&self.inner), version.clone(), call.clone());
        Box::pin(self.pass(call, async move { inner.go_mod(&version, &its).await }))
    }

    fn zip<'a>(&'a self, version: &'a ModuleVersion, call: &'a Call) -> Boxed<'a, Incoming> {
        let (inner, version, its) = (Arc::clone(&self.inner), version.clone(), call.clone());
        Box::pin(self.pass(call, async move { inner.zip(&version, &its).await }))
    }

    fn probe(&self) -> Boxed<'_, String> {
        self.inner.probe()
    }

    fn state(&self) -> Option<String> {
        let breaker = match &self.breaker.state().position {
            Position::Closed { suspect, .. } => suspect.as_ref().map(|why| format!("not waited for alone, because: {why}")),
            Position::Open { until, why, .. } => {
                let rest = until.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
                Some(format!("circuit breaker open for {rest} s more, because: {why}"))
            }
        };
        let states: Vec<String> = breaker.into_iter().chain(self.inner.state()).collect();
        (!states.is_empty()).then(|| states.join("; "))
    }

    fn suspect(&self) -> bool {
        match &self.breaker.state().position {
            Position::Closed { suspect, .. } => suspect.is_some(),
            Position::Open { until, .. } => *until <= Instant::now(),
        }
    }

    fn overtaken(&self, after: Duration) {
        if self.breaker.settings.failures > 0
            && let Position::Closed { overtaken, suspect, .. } = &mut self.breaker.state().position
        {
            *overtaken += 1;
            if *overtaken >= OVERTAKEN && suspect.is_none() {
                tracing::debug!(upstream = %self.breaker.name, "the upstream is late and is not waited for alone");
                *suspect = Some(Failure::Outage(Outage::Overtaken(after)).to_string().into());
            }
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
                status => Err(Failure::Outage(Outage::Status(status)).into()),
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
        let (module, call) = (ModulePath::parse("example.com/m").expect("path"), Call { others: true, ..Call::new() });
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
        assert_eq!(ask(502).await.1, 1, "a scout, which fails");
        assert_eq!(ask(200).await.1, 0);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(ask(200).await, (Ok(()), 1), "a scout, which comes back");
        assert_eq!(ask(200).await, (Ok(()), 1));
        assert_eq!(guarded.state(), None);
    }

    /// One that hangs (1), or answers by a status, behind a breaker of two failures.
    fn guarded(status: u16) -> (Guarded, Arc<AtomicU16>, Arc<AtomicUsize>) {
        let canned = Canned::default();
        let (answers, asked) = (Arc::clone(&canned.status), Arc::clone(&canned.asked));
        answers.store(status, Ordering::SeqCst);
        let settings = Settings { failures: 2, open_for: Duration::from_millis(50) };
        (Guarded::new("u".into(), Arc::new(canned), settings), answers, asked)
    }

    fn overtake(guarded: &Guarded, times: u32) {
        for _ in 0..times {
            guarded.overtaken(Duration::from_millis(800));
        }
    }

    #[tokio::test]
    async fn a_slow_scout_is_followed_by_another() {
        let (guarded, answers, asked) = guarded(503);
        let (module, call) = (ModulePath::parse("example.com/m").expect("path"), Call { others: true, ..Call::new() });
        for _ in 0..2 {
            assert!(guarded.list(&module, &call).await.is_err());
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
        answers.store(1, Ordering::SeqCst);
        let short = Duration::from_millis(20);
        assert!(tokio::time::timeout(short, guarded.list(&module, &call)).await.is_err(), "the scout hangs");
        answers.store(200, Ordering::SeqCst);
        assert!(guarded.list(&module, &call).await.is_err(), "while it is out there the others are refused");
        tokio::time::sleep(NEXT_SCOUT).await;
        assert!(guarded.list(&module, &call).await.is_ok());
        assert_eq!((asked.load(Ordering::SeqCst), guarded.state()), (4, None));
    }

    #[tokio::test]
    async fn those_who_have_nobody_else_find_out_themselves_or_wait_a_moment() {
        let (guarded, answers, asked) = guarded(503);
        let (module, call) = (ModulePath::parse("example.com/m").expect("path"), Call::new());
        for count in 1..=4 {
            assert!(guarded.list(&module, &call).await.is_err());
            assert_eq!(asked.load(Ordering::SeqCst), count, "a failure that comes at once costs nothing");
        }
        answers.store(200, Ordering::SeqCst);
        let all = futures_util::future::join_all((0..40).map(|_| guarded.list(&module, &call))).await;
        assert!(all.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn a_suspect_has_one_scout_who_runs_on_and_the_others_go_on() {
        let (guarded, _, asked) = guarded(1);
        let (module, call) = (ModulePath::parse("example.com/m").expect("path"), Call::new());
        let others = Call { others: true, ..call.clone() };
        assert!(!guarded.suspect());
        overtake(&guarded, OVERTAKEN - 1);
        assert!(!guarded.suspect());
        overtake(&guarded, 1);
        assert!(guarded.suspect() && guarded.state().is_some_and(|s| s.contains("no answer after 800 ms")));
        // The scout is given up by its asker and stays the only one.
        let short = Duration::from_millis(20);
        assert!(tokio::time::timeout(short, guarded.list(&module, &others)).await.is_err());
        for _ in 0..3 {
            assert!(guarded.list(&module, &others).await.is_err());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        // Where nobody else is asked, it is.
        assert!(tokio::time::timeout(short, guarded.list(&module, &call)).await.is_err());
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_suspect_that_answers_is_none_any_more() {
        let (guarded, ..) = guarded(404);
        let (module, call) = (ModulePath::parse("example.com/m").expect("path"), Call { others: true, ..Call::new() });
        overtake(&guarded, OVERTAKEN);
        assert!(guarded.list(&module, &call).await.is_err());
        assert!(!guarded.suspect() && guarded.state().is_none());
    }

    #[tokio::test]
    async fn when_it_opens_because_it_hangs_those_who_wait_are_let_go() {
        let (guarded, ..) = guarded(1);
        let (module, call) = (ModulePath::parse("example.com/m").expect("path"), Call::new());
        let timeout = || Failure::Outage(Outage::Network(EgressError::Timeout(crate::egress::Wait::FirstByte)));
        let opening = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            for _ in 0..2 {
                guarded.breaker.note(Some(&timeout()), false);
            }
        };
        let (waited, ()) = tokio::join!(guarded.list(&module, &call), opening);
        assert!(waited.expect_err("let go").failure.is_timeout());
    }

    #[test]
    fn what_was_not_sent_and_what_is_about_one_module_says_nothing_bad() {
        let (guarded, ..) = guarded(200);
        let no_turn = Failure::Busy(Busy::NoTurn { why: String::new(), retry_after: None });
        let network = |e| Failure::Outage(Outage::Network(e));
        let refused = network(EgressError::Connect { host: String::new(), why: String::new() });
        // Nor is it the upstream's fault that this machine is at its end.
        let exhausted = || EgressError::Exhausted { host: String::new(), why: String::new() };
        let at_proxy = EgressError::NoProxy { proxy: String::new(), why: Box::new(exhausted()) };
        for failure in [network(exhausted()), network(at_proxy), network(exhausted())] {
            guarded.breaker.note(Some(&failure), false);
        }
        assert_eq!(guarded.state(), None);
        // A request that had no turn ends no row of failures.
        for failure in [&refused, &no_turn, &refused] {
            guarded.breaker.note(Some(failure), false);
        }
        assert!(guarded.state().is_some_and(|s| s.contains("open")));
        guarded.breaker.note(Some(&no_turn), true);
        assert!(guarded.state().is_some_and(|s| s.contains("open")));
        for answer in [network(EgressError::Redirect(String::new())), network(EgressError::Unusable(String::new()))] {
            guarded.breaker.note(Some(&answer), false);
            assert_eq!(guarded.state(), None);
        }
    }
}

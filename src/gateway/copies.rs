//! What changes: lists, `@latest` and queries, of which every upstream has a copy with an age of its own.
//!
//! A fresh copy is used as it is; an older one is used while it is being refreshed; a very old one is refreshed first and used
//! only if that fails. So a list does not lose versions because a mirror had a bad minute.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::answer::Lifetime;
use super::freshness::{Age, Freshness, judge};
use super::trail::{Attempt, CacheStatus, Trail, Verdict};
use super::turns::{Turn, Turns};
use super::{Gateway, GatewayError, landed};
use crate::base::Call;
use crate::base::flight::{Flight, Pilot};
use crate::module::Ask;
use crate::route::{FailureClass, PartialRule, Plan, Step};
use crate::store::{Folder, Look};
use crate::upstream::{Busy, Failure, MAX_LIST, Outage, UpstreamError};

/// What asking an upstream anew brought.
pub(super) type Copied = Result<Bytes, UpstreamError>;

/// One upstream's copy, as it is to be used.
struct Copy {
    /// Its bytes, or why there are none.
    result: Result<Bytes, UpstreamError>,
    attempt: Attempt,
    lifetime: Lifetime,
}

/// The copies of a plan's upstreams.
pub(super) struct Gathered {
    /// Those that there are, in the plan's order.
    pub(super) copies: Vec<Bytes>,
    /// Upstreams that failed and have no copy. One that says it does not have it is not missing.
    pub(super) missing: Vec<Arc<str>>,
    pub(super) lifetime: Lifetime,
}

impl Gathered {
    /// A single copy, or none.
    pub(super) fn of(copy: Option<(Bytes, Lifetime)>) -> Self {
        let lifetime = copy.as_ref().map_or(Lifetime::Passing, |(_, lifetime)| *lifetime);
        Self { copies: copy.into_iter().map(|(bytes, _)| bytes).collect(), missing: Vec::new(), lifetime }
    }
}

impl Gateway {
    /// The copies of all upstreams of the plan.
    pub(super) async fn gather(
        self: &Arc<Self>,
        plan: &Plan,
        ask: &Ask,
        call: &Call,
        trail: &mut Trail,
    ) -> Result<Gathered, GatewayError> {
        let mut gathered = Gathered { copies: Vec::new(), missing: Vec::new(), lifetime: Lifetime::Immutable };
        let mut status = CacheStatus::Hit;
        for copy in self.side_by_side(plan, ask, call).await? {
            status = worse(status, &copy.attempt.verdict);
            match copy.result {
                Ok(bytes) => gathered.copies.push(bytes),
                Err(e) if e.failure.class() == FailureClass::Absent => {}
                Err(_) => gathered.missing.push(Arc::clone(&copy.attempt.upstream)),
            }
            gathered.lifetime = super::shorter(gathered.lifetime, copy.lifetime);
            trail.attempts.push(copy.attempt);
        }
        trail.cache = status;
        if let ([only], [_]) = (plan.route.steps.as_slice(), gathered.copies.as_slice()) {
            trail.upstream = Some(Arc::clone(&self.members[only.upstream].name));
        }
        Ok(gathered)
    }

    /// Asks all upstreams of the plan side by side. Where one copy has come, late ones are waited for no longer than the route's
    /// `hedge_after`, unless the route wants no incomplete answer; their older copies stand in then, if there are any.
    async fn side_by_side(self: &Arc<Self>, plan: &Plan, ask: &Ask, call: &Call) -> Result<Vec<Copy>, GatewayError> {
        let steps = &plan.route.steps;
        let members: Vec<usize> = steps.iter().map(|s| s.upstream).collect();
        let on_disk = self.read_copies(&members, ask).await;
        let started = Instant::now();
        let hedges = plan.route.hedge_after.is_some() && plan.route.partial == PartialRule::Serve;
        let patience = |step: &Step| self.patience(plan, step).filter(|_| hedges).map(|p| started + p);
        let until: Vec<Option<Instant>> = steps.iter().map(patience).collect();
        let asked = members.clone().into_iter().zip(on_disk.clone()).enumerate();
        // With hedging a suspect is left to its scout, as the others are there.
        let others = &Call { others: steps.len() > 1, waits: !hedges, ..call.clone() };
        let mut asking: FuturesUnordered<_> =
            asked.map(|(n, (member, copy))| async move { (n, self.copy(member, ask, copy, others).await) }).collect();
        let mut overloaded = None;
        let mut copies: Vec<Option<Copy>> = steps.iter().map(|_| None).collect();
        while !asking.is_empty() {
            let late = copies.iter().zip(&until).filter(|(copy, _)| copy.is_none()).map(|(_, until)| *until);
            let come = copies.iter().flatten().any(|c| c.result.is_ok());
            // One that is waited for without end has the last word.
            let give_up = late.collect::<Option<Vec<_>>>().and_then(|late| late.into_iter().max()).filter(|_| come);
            let overdue = async {
                match give_up {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some((n, copy)) = asking.next() => match copy {
                    Ok(copy) => copies[n] = Some(copy),
                    Err(e) => {
                        let busy = Failure::Busy(Busy::NoTurn { why: format!("not asked: {e}"), retry_after: None });
                        let attempt = self.attempt(members[n], Verdict::Failed(busy.clone().into()), started);
                        copies[n] = Some(Copy { result: Err(busy.into()), attempt, lifetime: Lifetime::Passing });
                        overloaded = Some(e);
                    }
                },
                () = overdue => break,
            }
        }
        drop(asking);
        let come = copies.iter().flatten().any(|c| c.result.is_ok());
        if let Some(e) = overloaded.filter(|_| !come) {
            return Err(e);
        }
        for (copy, member) in copies.iter_mut().zip(&members).filter(|_| !come) {
            let suspect = |c: &Copy| matches!(&c.result, Err(e) if matches!(e.failure, Failure::Outage(Outage::Suspect(_))));
            if copy.as_ref().is_some_and(suspect) {
                *copy = Some(self.copy(*member, ask, None, call).await?);
            }
        }
        let hedge = plan.route.hedge_after.unwrap_or(Duration::MAX);
        let late = |(copy, (member, on_disk)): (Option<Copy>, (usize, _))| {
            copy.unwrap_or_else(|| self.late(member, on_disk, started, hedge))
        };
        Ok(copies.into_iter().zip(members.into_iter().zip(on_disk)).map(late).collect())
    }

    /// What stands for the copy of an upstream that is late. Its flight goes on, for the next time.
    fn late(&self, member: usize, on_disk: Option<(Bytes, SystemTime)>, started: Instant, hedge: Duration) -> Copy {
        let waited = started.elapsed();
        if waited >= hedge {
            self.members[member].upstream.overtaken(waited);
        }
        let late: UpstreamError = Failure::Outage(Outage::Overtaken(waited)).into();
        let (result, verdict) = match on_disk {
            Some((bytes, modified)) => (Ok(bytes), Verdict::Stale(Age::of(modified).duration(), Some(late))),
            None => (Err(late.clone()), Verdict::Failed(late)),
        };
        Copy { result, attempt: self.attempt(member, verdict, started), lifetime: Lifetime::Passing }
    }

    /// The first upstream's copy that there is, by the route's fallback rule.
    pub(super) async fn first_copy(
        self: &Arc<Self>,
        plan: &Plan,
        ask: &Ask,
        call: &Call,
        trail: &mut Trail,
    ) -> Result<(Bytes, Lifetime), GatewayError> {
        // Whether every upstream before said, itself, that it does not have it.
        let mut all_absent = true;
        let mut first = true;
        let mut cached_only_miss = false;
        trail.cache = CacheStatus::Hit;
        let last = plan.route.steps.last().map(|s| s.upstream);
        let ask_member = |step: Step, resort: bool| async move {
            let last = resort || last == Some(step.upstream);
            let on_disk = self.read_copies(&[step.upstream], ask).await.pop().flatten();
            self.copy(step.upstream, ask, on_disk, &Self::call_for(plan, &step, last, call)).await
        };
        let mut turns = Turns::new(&plan.route.steps, |step: &Step| self.patience(plan, step), ask_member);
        while let Some(Turn { step, result, .. }) = turns.next().await {
            let copy = result?;
            trail.cache = worse(trail.cache, &copy.attempt.verdict);
            cached_only_miss |= matches!(copy.attempt.verdict, Verdict::NotCached);
            let name = Arc::clone(&copy.attempt.upstream);
            match copy.result {
                Ok(bytes) => {
                    let before = trail.attempts.len();
                    self.overtake(&mut turns, plan, &mut trail.attempts);
                    let overtaken = trail.attempts.len() > before;
                    trail.attempts.push(copy.attempt);
                    trail.upstream = Some(name);
                    // An answer from further down lives no longer than what let it come to its turn.
                    let lifetime = match (first, all_absent && !overtaken) {
                        (true, true) => copy.lifetime,
                        (false, true) => super::shorter(copy.lifetime, Lifetime::For(self.settings.not_found_ttl)),
                        (_, false) => Lifetime::Passing,
                    };
                    return Ok((bytes, lifetime));
                }
                Err(UpstreamError { failure: Failure::Outage(Outage::Suspect(_)), .. }) if turns.defer(step) => {
                    (all_absent, first) = (false, false);
                }
                Err(e) => {
                    trail.attempts.push(copy.attempt);
                    all_absent &= e.failure.class() == FailureClass::Absent && !call.cached_only;
                    first = false;
                    if !plan.route.goes_on(&step, e.failure.class()) {
                        let attempts = &mut trail.attempts;
                        turns.stop(&step, |step, started| {
                            attempts.push(self.attempt(step.upstream, Verdict::GivenUp, started));
                        });
                    }
                }
            }
        }
        Err(if cached_only_miss { GatewayError::NotCached } else { GatewayError::chain(&trail.attempts) })
    }

    async fn read_copies(&self, members: &[usize], ask: &Ask) -> Vec<Option<(Bytes, SystemTime)>> {
        let folders: Vec<Folder> = members.iter().map(|m| self.members[*m].folder.clone()).collect();
        let (ask, count) = (ask.clone(), folders.len());
        let read = self.store.look(move |look| {
            // A directory upstream has no copies beside itself; it is asked each time.
            let read = |folder: &Folder| if folder.is_writable() { folder.read(&ask, MAX_LIST, look) } else { Ok(None) };
            let copy = |folder| match read(folder) {
                Err(e) if !e.would_wait() => {
                    tracing::warn!(error = %e, "a copy cannot be used and is fetched again");
                    Ok(None)
                }
                read => read,
            };
            folders.iter().map(copy).collect::<Result<Vec<_>, _>>()
        });
        read.await.unwrap_or_else(|_| vec![None; count])
    }

    /// Decides how one upstream's copy is used, and asks the upstream where that is needed.
    async fn copy(
        self: &Arc<Self>,
        member: usize,
        ask: &Ask,
        on_disk: Option<(Bytes, SystemTime)>,
        call: &Call,
    ) -> Result<Copy, GatewayError> {
        let started = Instant::now();
        let made = |result, verdict, lifetime| {
            let upstream = Arc::clone(&self.members[member].name);
            Copy { result, attempt: Attempt { upstream, verdict, elapsed: started.elapsed() }, lifetime }
        };
        let ttl = self.settings.list_ttl;
        let age = on_disk.as_ref().map(|(_, modified)| Age::of(*modified));
        let years = age.map_or(Duration::ZERO, Age::duration);
        let directory = !self.members[member].folder.is_writable();
        match (judge(age, ttl), on_disk) {
            (Freshness::Fresh(rest), Some((bytes, _))) => Ok(made(Ok(bytes), Verdict::Fresh(years), Lifetime::For(rest))),
            (_, Some((bytes, _))) if call.cached_only => Ok(made(Ok(bytes), Verdict::Stale(years, None), Lifetime::Passing)),
            (_, None) if call.cached_only && !directory => {
                let absent = Failure::Absent(None).into();
                Ok(made(Err(absent), Verdict::NotCached, Lifetime::Passing))
            }
            (Freshness::Stale, Some((bytes, _))) => {
                match self.remembered(member, ask) {
                    Some((e, rest)) if e.failure.class() == FailureClass::Absent => {
                        return Ok(made(Err(e.clone()), Verdict::Remembered(e), Lifetime::For(rest)));
                    }
                    // It failed a moment ago; it gets a moment.
                    Some((e, _)) => return Ok(made(Ok(bytes), Verdict::Stale(years, Some(e)), Lifetime::Passing)),
                    None => {}
                }
                // A flight that cannot start now is started by the next request.
                let _ = self.refresh(member, ask, call);
                Ok(made(Ok(bytes), Verdict::Stale(years, None), Lifetime::Passing))
            }
            (_, copy) => {
                if let Some((e, rest)) = self.remembered_absence(member, ask) {
                    return Ok(made(Err(e.clone()), Verdict::Remembered(e), Lifetime::For(rest)));
                }
                let asked = landed(self.refresh(member, ask, call)).await?;
                Ok(match (asked, copy) {
                    (Ok(bytes), _) => made(Ok(bytes), Verdict::Fetched, Lifetime::For(ttl)),
                    (Err(e), _) if e.failure.class() == FailureClass::Absent => {
                        made(Err(e.clone()), Verdict::Failed(e), Lifetime::For(self.settings.not_found_ttl))
                    }
                    (Err(e), Some((bytes, _))) => made(Ok(bytes), Verdict::Stale(years, Some(e)), Lifetime::Passing),
                    (Err(e), None) => made(Err(e.clone()), Verdict::Failed(e), Lifetime::Passing),
                })
            }
        }
    }

    /// Joins or starts the flight that asks an upstream anew.
    fn refresh(self: &Arc<Self>, member: usize, ask: &Ask, call: &Call) -> Result<Flight<Copied>, super::FlightError> {
        self.refreshes.board((member, ask.clone()), &[], |pilot, _| {
            let (this, ask, call) = (Arc::clone(self), ask.clone(), call.clone());
            self.runtime.spawn(async move { this.ask_anew(member, ask, call, pilot).await });
        })
    }

    async fn ask_anew(self: Arc<Self>, member: usize, ask: Ask, call: Call, pilot: Pilot<(usize, Ask), Copied>) {
        // A flight before this one may have ended between the asker's look and its boarding.
        if let Some((bytes, modified)) = self.read_copies(&[member], &ask).await.pop().flatten()
            && matches!(judge(Some(Age::of(modified)), self.settings.list_ttl), Freshness::Fresh(_))
        {
            return pilot.land(Ok(bytes));
        }
        let upstream = &self.members[member].upstream;
        let result = match &ask {
            Ask::List(module) => upstream.list(module, &call).await.map(|list| Bytes::from(list.render_all())),
            Ask::Latest(module) => upstream.latest(module, &call).await.map(|info| info.json),
            Ask::Query(module, query) => upstream.info(module, query, &call).await.map(|info| info.json),
            Ask::Info(_) | Ask::GoMod(_) | Ask::Zip(_) => Err(UpstreamError::corrupt("not a question whose answer changes")),
        };
        if let Err(e) = &result
            && !matches!(e.failure, Failure::Outage(Outage::Suspect(_)))
        {
            self.remember(member, &ask, e);
            self.make_room_after(e);
            if e.failure.class() == FailureClass::Corrupt {
                tracing::error!(upstream = %self.members[member].name, %ask, error = %e, "an upstream sent a corrupt answer");
            } else {
                tracing::debug!(upstream = %self.members[member].name, %ask, error = %e, "an upstream failed");
            }
        }
        pilot.land(result.clone());
        let folder = self.members[member].folder.clone();
        if let (Ok(bytes), true) = (result, folder.is_writable()) {
            let keep = move || match folder.read(&ask, MAX_LIST, Look::Full) {
                Ok(Some((same, _))) if same == bytes => folder.confirm(&ask),
                _ => folder.keep(&ask, &bytes).map(drop),
            };
            self.stored(&tokio::task::spawn_blocking(keep).await);
        }
    }
}

fn worse(so_far: CacheStatus, verdict: &Verdict) -> CacheStatus {
    match (so_far, verdict) {
        (CacheStatus::Miss, _) | (_, Verdict::Fetched | Verdict::Failed(_) | Verdict::Withheld | Verdict::NotCached) => {
            CacheStatus::Miss
        }
        (CacheStatus::Stale, _) | (_, Verdict::Stale(..)) => CacheStatus::Stale,
        (other, Verdict::Fresh(_) | Verdict::Remembered(_) | Verdict::GivenUp) => other,
    }
}

//! The parts of canonical versions: looked up in the folders of the plan's upstreams, else fetched along the chain.
//!
//! The parts of one version come from one upstream: the one that gave a part before is asked first for the others. Where it
//! fails and the chain goes on, another upstream's part is taken if it is proven ([`super::verify`]), or if the go.mod of both agree
//! byte by byte, or where only the info is known, the times; otherwise it counts as corrupt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::answer::{Answer, Content};
use super::trail::{Attempt, Verdict};
use super::turns::{Turn, Turns};
use super::verify::{Checked, Expected, Ledger, Standing, Wanted};
use super::{Gateway, GatewayError, kind_of, transfer};
use crate::base::Call;
use crate::base::flight::{self, Flight, Pilot};
use crate::module::zip::{self, MAX_GO_MOD, ZipError};
use crate::module::{Ask, Info, ModuleVersion, Query};
use crate::route::{FailureClass, Plan, Step, Verify};
use crate::store::{FileMark, Folder, Look, StoreError, Stored};
use crate::upstream::{Failure, Incoming, MAX_INFO, Outage, UpstreamError};

/// A file that is no older may be one that somebody is copying there.
const COPYING: Duration = Duration::from_secs(60);

/// How a chain ended.
#[derive(Debug, Clone)]
pub(super) struct Landed {
    pub(super) attempts: Arc<[Attempt]>,
    /// The member that gave it, and what it gave. A zip may still be arriving.
    pub(super) found: Option<Found>,
    /// Why it is refused whatever the upstreams have.
    pub(super) refused: Option<GatewayError>,
}

/// A part of a version, whose it is, and what its sum rests on, where that was looked at.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) member: usize,
    pub(super) answer: Answer,
    pub(super) checked: Option<Checked>,
}

impl Found {
    /// Whether a kept part has been proven as much as is wanted. An info has nothing to prove.
    pub(super) fn holds(&self, ask: &Ask, wanted: &Wanted) -> bool {
        let standing = self.checked.as_ref().map(|checked| &checked.standing);
        match (ask, wanted, standing) {
            (Ask::Info(_), ..) | (_, Wanted::Nothing, _) | (_, Wanted::Seen, Some(_)) => true,
            (_, Wanted::Proof(by) | Wanted::ProofOrSeen(by), Some(Standing::Proven(own))) => by.as_ref() == Some(own),
            (_, Wanted::ProofOrSeen(_), Some(Standing::Seen(_))) => true,
            (_, Wanted::Proof(_), Some(Standing::Seen(_))) | (_, _, None) => false,
        }
    }

    /// The file that it is in.
    fn file(&self) -> Option<FileMark> {
        let length = match &self.answer.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { length, .. } => *length,
            Content::Growing { .. } => return None,
        };
        Some(FileMark { length, modified: self.answer.modified? })
    }
}

/// What is known of a version's other parts when the one that is asked for is missing.
#[derive(Debug, Clone, Default)]
struct Siblings {
    /// The member that gave another part before.
    pinned: Option<usize>,
    /// The version's go.mod, and whose it is.
    go_mod: Option<(usize, Bytes)>,
    /// The version's info, and whose it is.
    info: Option<(usize, Bytes)>,
}

/// What a member gave.
pub(super) enum Part {
    Small(Bytes),
    Zip(Incoming),
}

type ChainKey = (usize, Ask);

/// What a part has to be, when that is known.
type Expecting = Shared<BoxFuture<'static, Result<Expected, GatewayError>>>;

/// One fetch along a chain.
pub(super) struct Fetch {
    pub(super) plan: Plan,
    pub(super) ask: Ask,
    call: Call,
    siblings: Siblings,
    expecting: Expecting,
    pilot: Pilot<ChainKey, Landed>,
}

impl Fetch {
    pub(super) fn land(&self, found: Found, attempts: &[Attempt], last: Option<Attempt>) {
        self.pilot.land(Landed { attempts: attempts.iter().cloned().chain(last).collect(), found: Some(found), refused: None });
    }

    fn fail(&self, attempts: &[Attempt], refused: Option<GatewayError>) {
        self.pilot.land(Landed { attempts: attempts.into(), found: None, refused });
    }

    /// What the part has to be.
    pub(super) async fn expected(&self) -> Result<Expected, Unfit> {
        self.expecting.clone().await.map_err(Unfit::Refused)
    }

    /// Another upstream's go.mod of this version, with which a part of this member has to agree where it is not proven.
    pub(super) fn other_go_mod(&self, member: usize) -> Option<&Bytes> {
        self.siblings.go_mod_of_another(member)
    }
}

/// Why a part that came is not handed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// It is no good, and nobody has been told of it: the chain goes on.
    #[error("{0}")]
    Upstream(UpstreamError),
    /// No upstream's would be.
    #[error("{0}")]
    Refused(GatewayError),
}

impl<E: Into<UpstreamError>> From<E> for Unfit {
    fn from(e: E) -> Self {
        Self::Upstream(e.into())
    }
}

impl Gateway {
    /// The folders of the plan's upstreams, in order. A directory upstream's own files are not among them: it is asked in its turn,
    /// within its time limit.
    fn folders(&self, plan: &Plan) -> Vec<(usize, Folder)> {
        let steps = plan.route.steps.iter().map(|s| (s.upstream, self.members[s.upstream].folder.clone()));
        steps.filter(|(_, folder)| folder.is_writable()).collect()
    }

    /// Where sums are noted, where a module's have to be.
    fn notes(&self, plan: &Plan, ask: &Ask) -> Option<Ledger> {
        (self.wanted(plan, ask.module()) != Wanted::Nothing).then(|| self.ledger.clone())
    }

    /// Looks for a part of a version in the folders of the plan's upstreams.
    pub(super) async fn look_up(&self, plan: &Plan, ask: &Ask) -> Option<Found> {
        let (folders, ledger, ask) = (self.folders(plan), self.notes(plan, ask), ask.clone());
        if folders.is_empty() {
            return None;
        }
        self.store.look(move |look| find(&folders, ledger.as_ref(), &ask, look)).await.unwrap_or_default()
    }

    /// The same, and where it is missing, what there is of the version's other parts.
    async fn look_around(&self, plan: &Plan, ask: &Ask) -> Result<Found, Siblings> {
        let (folders, ledger, ask) = (self.folders(plan), self.notes(plan, ask), ask.clone());
        let looked = move || {
            let found = find(&folders, ledger.as_ref(), &ask, Look::Full).unwrap_or_default();
            found.ok_or_else(|| siblings(&folders, &ask))
        };
        tokio::task::spawn_blocking(looked).await.unwrap_or_else(|_| Err(Siblings::default()))
    }

    /// A kept part that has proven what the route wants, now where it has not before; else the siblings of one that is missing.
    async fn look_closely(&self, plan: &Plan, ask: &Ask, call: &Call) -> Result<Result<Found, Siblings>, GatewayError> {
        let wanted = self.wanted(plan, ask.module());
        loop {
            match self.look_around(plan, ask).await {
                Ok(found) if !found.holds(ask, &wanted) => {
                    // Where it was put aside there may be another behind it.
                    if let Some(found) = self.check_kept(plan, ask, found.member, call).await? {
                        return Ok(Ok(found));
                    }
                }
                other => return Ok(other),
            }
        }
    }

    /// Fetches a part of a version along the chain, as a flight. `earlier` are the flights for its other parts that were under
    /// way when this one began: where they come from decides whom this one asks first.
    pub(super) async fn fetch(
        self: Arc<Self>,
        plan: Plan,
        ask: Ask,
        earlier: Vec<(ChainKey, Flight<Landed>)>,
        call: Call,
        pilot: Pilot<ChainKey, Landed>,
    ) {
        let known = known_from(earlier).await;
        // A flight before this one may have ended between the asker's look and its boarding.
        let looked = self.look_closely(&plan, &ask, &call).await;
        let fetch = match looked {
            Ok(Ok(hit)) => return pilot.land(Landed { attempts: [].into(), found: Some(hit), refused: None }),
            Err(refused) => return pilot.land(Landed { attempts: [].into(), found: None, refused: Some(refused) }),
            Ok(Err(siblings)) => {
                let expecting = self.expecting(&plan, &ask);
                Fetch { plan, ask, call, siblings: siblings.or(known), expecting, pilot }
            }
        };
        if let (Ask::Zip(_), Err(e @ GatewayError::Unverified { .. })) = (&fetch.ask, fetch.expecting.clone().await) {
            // An upstream is not kept waiting with a zip until it is known that nothing can be said of it.
            return fetch.fail(&[], Some(e));
        }
        let mut steps = fetch.plan.route.steps.clone();
        if let Some(at) = fetch.siblings.pinned.and_then(|m| steps.iter().position(|s| s.upstream == m)) {
            let pinned = steps.remove(at);
            steps.insert(0, pinned);
        }
        let mut attempts = Vec::new();
        let last = steps.last().map(|s| s.upstream);
        let patience = |step: &Step| self.patience(&fetch.plan, step);
        let mut turns =
            Turns::new(&steps, patience, |step, resort| self.ask_member(step, resort || last == Some(step.upstream), &fetch));
        while let Some(Turn { step, started, result }) = turns.next().await {
            let verdict = match result {
                Ok(part) => {
                    self.overtake(&mut turns, &fetch.plan, &mut attempts);
                    match self.bring(step.upstream, part, &fetch, &attempts, started).await {
                        Ok(()) => return,
                        Err(Unfit::Upstream(e)) => Verdict::Failed(e),
                        Err(Unfit::Refused(e)) => {
                            attempts.push(self.attempt(step.upstream, Verdict::Withheld, started));
                            let elsewhere = fetch.plan.route.goes_on(&step, FailureClass::Outage);
                            if matches!(e, GatewayError::NoRoom(_)) && elsewhere {
                                // What lies in a directory needs no room.
                                let there = self.ask_directories(&fetch.plan, &fetch.ask, &fetch.call).await;
                                if let Ok(Landed { attempts: more, found: Some(found), .. }) = there {
                                    attempts.extend(more.iter().cloned());
                                    return fetch.land(found, &attempts, None);
                                }
                            }
                            return fetch.fail(&attempts, Some(e));
                        }
                    }
                }
                Err(verdict) => verdict,
            };
            let failure = verdict.failure().map(|e| &e.failure);
            if matches!(failure, Some(Failure::Outage(Outage::Suspect(_)))) && turns.defer(step) {
                continue;
            }
            if let (Some(e), Some(Failure::Corrupt(_))) = (verdict.failure(), failure) {
                let upstream = &self.members[step.upstream].name;
                tracing::error!(%upstream, ask = %fetch.ask, error = %e, "an upstream sent a corrupt answer");
            }
            let ends = failure.is_none_or(|f| !fetch.plan.route.goes_on(&step, f.class()));
            attempts.push(self.attempt(step.upstream, verdict, started));
            if ends {
                turns.stop(&step, |step, started| attempts.push(self.attempt(step.upstream, Verdict::GivenUp, started)));
            }
        }
        drop(turns);
        fetch.fail(&attempts, None);
    }

    /// Finds out what a part has to be, while it is on its way. Where that takes a database it is asked at once.
    fn expecting(self: &Arc<Self>, plan: &Plan, ask: &Ask) -> Expecting {
        let (this, plan, ask) = (Arc::clone(self), plan.clone(), ask.clone());
        let finding = async move { this.expected(&plan, &ask, false).await };
        let begun = self.runtime.spawn(finding);
        async move { begun.await.unwrap_or(Err(GatewayError::Internal)) }.boxed().shared()
    }

    pub(super) fn attempt(&self, member: usize, verdict: Verdict, started: Instant) -> Attempt {
        Attempt { upstream: Arc::clone(&self.members[member].name), verdict, elapsed: started.elapsed() }
    }

    /// Gives up the questions that another upstream's answer overtook. Those that were late say so to their upstream.
    pub(super) fn overtake<'a, T, F, A, P>(&self, turns: &mut Turns<'a, T, A, P>, plan: &Plan, attempts: &mut Vec<Attempt>)
    where
        T: Send + 'a,
        F: Future<Output = T> + Send + 'a,
        A: Fn(Step, bool) -> F,
        P: Fn(&Step) -> Option<Duration>,
    {
        turns.overtake(|step, started| {
            let waited = started.elapsed();
            if plan.route.hedge_after.is_some_and(|after| waited >= after) {
                self.members[step.upstream].upstream.overtaken(waited);
            }
            let overtaken = Failure::Outage(Outage::Overtaken(waited)).into();
            attempts.push(self.attempt(step.upstream, Verdict::Failed(overtaken), started));
        });
    }

    /// How long a step is waited for before the next is asked too: as long as the route says; one that hung a moment ago not at
    /// all. Never where the chain would not go on after an outage: being late is no more than that.
    pub(super) fn patience(&self, plan: &Plan, step: &Step) -> Option<Duration> {
        if !plan.route.goes_on(step, FailureClass::Outage) {
            return None;
        }
        let suspect = self.members[step.upstream].upstream.suspect();
        if suspect { Some(Duration::ZERO) } else { plan.route.hedge_after }
    }

    /// The call for a step, which says whether another is asked where this one fails.
    pub(super) fn call_for(plan: &Plan, step: &Step, last: bool, call: &Call) -> Call {
        let others = !last && plan.route.goes_on(step, FailureClass::Outage);
        Call { others, ..call.clone() }
    }

    /// Asks one member for a part, unless it is remembered that it does not have it.
    async fn ask_member(&self, step: Step, last: bool, fetch: &Fetch) -> Result<Part, Verdict> {
        let known = self.remembered(step.upstream, &fetch.ask).map(|(e, _)| e);
        if let Some(e) = known.filter(|e| matches!(e.failure.class(), FailureClass::Absent | FailureClass::Corrupt)) {
            Err(Verdict::Remembered(e))
        } else {
            let call = Self::call_for(&fetch.plan, &step, last, &fetch.call);
            self.part(step.upstream, fetch, &call).await.map_err(Verdict::Failed)
        }
    }

    /// A part of a version from the plan's directories, the only upstreams that may be asked when nothing is to be fetched.
    pub(super) async fn ask_directories(&self, plan: &Plan, ask: &Ask, call: &Call) -> Result<Landed, GatewayError> {
        let mut attempts = Vec::new();
        let mut found = None;
        for member in plan.route.steps.iter().map(|s| s.upstream).filter(|m| !self.members[*m].folder.is_writable()) {
            let started = Instant::now();
            let upstream = &self.members[member].upstream;
            let gave = match ask {
                Ask::Zip(version) => upstream.zip(version, call).await.map(Part::Zip),
                Ask::GoMod(version) => upstream.go_mod(version, call).await.map(Part::Small),
                Ask::Info(version) => self.info(member, version, call).await.map(Part::Small),
                Ask::List(_) | Ask::Latest(_) | Ask::Query(..) => continue,
            };
            let fit = match gave {
                Ok(part) => {
                    let expected = self.expected(plan, ask, true).await?;
                    match part {
                        Part::Zip(Incoming::File(stored)) => self.whole_file(member, ask, stored, &expected, None).await,
                        Part::Zip(Incoming::Body { .. }) => Err(Failure::Absent(None).into()),
                        Part::Small(bytes) => self.small(member, ask, bytes, &expected),
                    }
                }
                Err(e) => Err(e),
            };
            let verdict = match fit {
                Ok(fit) => {
                    found = Some(fit);
                    Verdict::Fetched
                }
                Err(e) => Verdict::Failed(e),
            };
            attempts.push(self.attempt(member, verdict, started));
            if found.is_some() {
                break;
            }
        }
        Ok(Landed { attempts: attempts.into(), found, refused: None })
    }

    /// Asks one member for a part.
    async fn part(&self, member: usize, fetch: &Fetch, call: &Call) -> Result<Part, UpstreamError> {
        let (upstream, siblings) = (&self.members[member].upstream, &fetch.siblings);
        let result = match &fetch.ask {
            Ask::Zip(version) => upstream.zip(version, call).await.map(Part::Zip),
            Ask::GoMod(version) => upstream.go_mod(version, call).await.map(Part::Small),
            Ask::Info(version) => self.info(member, version, call).await.map(Part::Small),
            Ask::List(_) | Ask::Latest(_) | Ask::Query(..) => Err(UpstreamError::corrupt("not a part of a version")),
        };
        if let Err(e) = &result {
            self.make_room_after(e);
            if e.failure.class() == FailureClass::Absent {
                self.remember(member, &fetch.ask, e);
            }
        }
        let part = result?;
        if self.mode(&fetch.plan, fetch.ask.module()) == Verify::Sumdb && !matches!(fetch.ask, Ask::Info(_)) {
            // Its sum will tell.
            return Ok(part);
        }
        match (&fetch.ask, &part, siblings.go_mod_of_another(member), siblings.info_of_another(member)) {
            (Ask::GoMod(_), Part::Small(own), Some(other), _) if own != other => Err(transfer::other_module()),
            // A zip is compared when it is here.
            (Ask::GoMod(_) | Ask::Zip(_), _, Some(_), _) => Ok(part),
            (Ask::Info(version), _, Some(other), _) if upstream.go_mod(version, call).await? != *other => {
                Err(transfer::other_module())
            }
            (Ask::GoMod(version) | Ask::Zip(version), _, None, Some(other)) => {
                let own = Info::parse(self.info(member, version, call).await?).map_err(UpstreamError::corrupt)?;
                let same = Info::parse(other.clone()).is_ok_and(|other| other.time == own.time);
                if same { Ok(part) } else { Err(transfer::other_module()) }
            }
            _ => Ok(part),
        }
    }

    async fn info(&self, member: usize, version: &ModuleVersion, call: &Call) -> Result<Bytes, UpstreamError> {
        let query = Query::parse(version.version.as_str()).map_err(UpstreamError::corrupt)?;
        let info = self.members[member].upstream.info(&version.module, &query, call).await?;
        if info.version != version.version {
            return Err(UpstreamError::corrupt(format!("asked about {version} it speaks of {}", info.version)));
        }
        Ok(info.json)
    }
}

/// The first folder's answer that there is, with what was noted of it where anything has to be.
///
/// # Errors
/// Only that a glance does not do. A file that cannot be read counts as not there.
fn find(folders: &[(usize, Folder)], ledger: Option<&Ledger>, ask: &Ask, look: Look) -> Result<Option<Found>, StoreError> {
    let answer = |(member, folder): &(usize, Folder)| {
        let Some(answer) = read_part(folder, ask, look, ledger.is_none())? else { return Ok(None) };
        let found = Found { member: *member, answer, checked: None };
        let note = match (ask, ledger) {
            (Ask::GoMod(_) | Ask::Zip(_), Some(ledger)) => ledger.read(folder.name(), ask, look)?,
            _ => None,
        };
        // A note of another file, which lay there before, says nothing of this one.
        let checked = note.filter(|note| note.file.is_some() && note.file == found.file()).map(|note| note.checked);
        Ok::<_, StoreError>(Some(Found { checked, ..found }))
    };
    for folder in folders {
        match answer(folder) {
            Ok(None) => {}
            Err(e) if !e.would_wait() => tracing::warn!(error = %e, "a cached file cannot be used and is fetched again"),
            decided => return decided,
        }
    }
    Ok(None)
}

/// A part in a folder. `unproven` says that nothing will be held against it, so that a zip has at least to be whole.
fn read_part(folder: &Folder, ask: &Ask, look: Look, unproven: bool) -> Result<Option<Answer>, StoreError> {
    let limit = if matches!(ask, Ask::GoMod(_)) { MAX_GO_MOD } else { MAX_INFO };
    let Some(stored) = folder.open(ask, look)? else { return Ok(None) };
    // Nothing that is kept is empty; a file that is has been damaged.
    if stored.length == 0 {
        return Ok(None);
    }
    if let Ask::Zip(version) = ask
        && unproven
        && folder.is_writable()
        && !is_whole(&stored, version, look)?
    {
        tracing::error!(upstream = folder.name(), %ask, "a kept zip is not whole, and is fetched anew");
        // One that is being copied there at this moment may become whole.
        if stored.modified.elapsed().is_ok_and(|age| age > COPYING) {
            folder.set_aside(ask)?;
        }
        return Ok(None);
    }
    let modified = Some(stored.modified);
    let content = if matches!(ask, Ask::Zip(_)) {
        Content::File { length: stored.length, file: Arc::new(stored.file) }
    } else {
        Content::Bytes(stored.read(limit, look).map_err(|e| StoreError::new("read", ask.path().as_ref(), e))?)
    };
    Ok(Some(Answer { modified, ..Answer::new(content, kind_of(ask)) }))
}

/// Whether a zip has an end. What was fetched was looked at then; what was put there by other hands was not.
fn is_whole(stored: &Stored, version: &ModuleVersion, look: Look) -> Result<bool, StoreError> {
    let wrap = |e| StoreError::new("read", Ask::Zip(version.clone()).path().as_ref(), e);
    if stored.tail(look).map_err(wrap)?.is_some_and(|end| zip::ends_plainly(&end)) {
        return Ok(true);
    }
    if look == Look::Glance {
        return Err(wrap(std::io::ErrorKind::WouldBlock.into()));
    }
    match zip::check(stored.file.try_clone().map_err(wrap)?, version) {
        Err(ZipError::Io(e)) => Err(wrap(e)),
        looked => Ok(looked.is_ok()),
    }
}

impl Siblings {
    /// What is known here, and where nothing is, there.
    fn or(self, other: Self) -> Self {
        Self { pinned: self.pinned.or(other.pinned), go_mod: self.go_mod.or(other.go_mod), info: self.info.or(other.info) }
    }

    fn go_mod_of_another(&self, member: usize) -> Option<&Bytes> {
        self.go_mod.as_ref().filter(|(of, _)| *of != member).map(|(_, bytes)| bytes)
    }

    fn info_of_another(&self, member: usize) -> Option<&Bytes> {
        self.info.as_ref().filter(|(of, _)| *of != member).map(|(_, bytes)| bytes)
    }
}

/// What flights for the other parts of a version bring, which are waited for.
async fn known_from(earlier: Vec<(ChainKey, Flight<Landed>)>) -> Siblings {
    let mut known = Siblings::default();
    for ((_, part), flight) in earlier {
        let Some(Found { member, answer, .. }) = flight::landed(flight).await.ok().and_then(|landed| landed.found) else {
            continue;
        };
        known.pinned.get_or_insert(member);
        match (answer.content, part) {
            (Content::Bytes(bytes), Ask::GoMod(_)) => known.go_mod = Some((member, bytes)),
            (Content::Bytes(bytes), Ask::Info(_)) => known.info = Some((member, bytes)),
            _ => {}
        }
    }
    known
}

/// The questions about the other parts of a version: go.mod first, then zip, then info.
pub(super) fn other_parts(ask: &Ask) -> Vec<Ask> {
    let (Ask::Info(version) | Ask::GoMod(version) | Ask::Zip(version)) = ask else { return Vec::new() };
    let parts = [Ask::GoMod(version.clone()), Ask::Zip(version.clone()), Ask::Info(version.clone())];
    parts.into_iter().filter(|part| part != ask).collect()
}

/// What the folders hold of a version's other parts. A file that cannot be read now counts as not there.
fn siblings(folders: &[(usize, Folder)], ask: &Ask) -> Siblings {
    let others = other_parts(ask);
    let small = |part: &Ask| {
        let read = |(member, folder): &(usize, Folder)| Some((*member, folder.read(part, MAX_GO_MOD, Look::Full).ok()??.0));
        folders.iter().find_map(read)
    };
    let mut found = Siblings::default();
    for part in &others {
        match part {
            Ask::GoMod(_) => found.go_mod = small(part),
            Ask::Info(_) => found.info = small(part),
            Ask::Zip(version) if matches!(ask, Ask::GoMod(_)) => {
                let of_zip = |(member, folder): &(usize, Folder)| {
                    let file = folder.open(part, Look::Full).ok()??.file;
                    Some((*member, zip::go_mod(file, version).ok()??.into()))
                };
                found.go_mod = found.go_mod.or_else(|| folders.iter().find_map(of_zip));
            }
            _ => {}
        }
    }
    let has_any = |folder: &Folder| others.iter().any(|other| folder.has(other));
    found.pinned = folders.iter().find(|(_, folder)| has_any(folder)).map(|(member, _)| *member);
    found
}

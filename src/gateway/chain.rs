//! The parts of canonical versions: looked up in the folders of the plan's upstreams, else fetched along the chain.
//!
//! The parts of one version come from one upstream: the one that gave a part before is asked first for the others. Where it
//! fails and the chain goes on, another upstream's part is taken only if the go.mod of both agree byte by byte, or where only
//! the info is known, the times; otherwise it counts as corrupt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::answer::{Answer, Content, Kind, Lifetime};
use super::flight::{self, Flight, Pilot};
use super::trail::{Attempt, Verdict};
use super::turns::{Turn, Turns};
use super::{Gateway, kind_of, transfer};
use crate::base::Call;
use crate::module::zip::{self, MAX_GO_MOD};
use crate::module::{Ask, Info, ModuleVersion, Query};
use crate::route::{FailureClass, Plan, Step};
use crate::store::{Folder, Spool, StoreError, Stored};
use crate::upstream::{Failure, Incoming, MAX_INFO, Outage, UpstreamError};

/// Zips up to this many bytes are answered from memory where it has room.
const SMALL_ZIP: u64 = 256 << 10;

/// How a chain ended.
#[derive(Debug, Clone)]
pub(super) struct Landed {
    pub(super) attempts: Arc<[Attempt]>,
    /// The member that gave it, and what it gave. A zip may still be arriving.
    pub(super) found: Option<(usize, Answer)>,
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
enum Part {
    Small(Bytes),
    Zip(Incoming),
}

/// How long a small answer waits for its lane to the disk.
const LANE_PATIENCE: Duration = Duration::from_millis(200);

type ChainKey = (usize, Ask);

/// One fetch along a chain.
struct Fetch {
    plan: Plan,
    ask: Ask,
    call: Call,
    siblings: Siblings,
    pilot: Pilot<ChainKey, Landed>,
}

impl Fetch {
    fn land(&self, found: Option<(usize, Answer)>, attempts: &[Attempt], last: Option<Attempt>) {
        self.pilot.land(Landed { attempts: attempts.iter().cloned().chain(last).collect(), found });
    }
}

impl Gateway {
    /// The folders of the plan's upstreams, in order. A directory upstream's own files are not among them: it is asked in its turn,
    /// within its time limit.
    fn folders(&self, plan: &Plan) -> Vec<(usize, Folder)> {
        let steps = plan.route.steps.iter().map(|s| (s.upstream, self.members[s.upstream].folder.clone()));
        steps.filter(|(_, folder)| folder.is_writable()).collect()
    }

    /// Looks for a part of a version in the folders of the plan's upstreams.
    pub(super) async fn look_up(&self, plan: &Plan, ask: &Ask) -> Option<(usize, Answer)> {
        let (folders, ask) = (self.folders(plan), ask.clone());
        if folders.is_empty() {
            return None;
        }
        tokio::task::spawn_blocking(move || find(&folders, &ask)).await.unwrap_or_default()
    }

    /// The same, and where it is missing, what there is of the version's other parts.
    async fn look_around(&self, plan: &Plan, ask: &Ask) -> Result<(usize, Answer), Siblings> {
        let (folders, ask) = (self.folders(plan), ask.clone());
        let looked = tokio::task::spawn_blocking(move || find(&folders, &ask).ok_or_else(|| siblings(&folders, &ask)));
        looked.await.unwrap_or_else(|_| Err(Siblings::default()))
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
        let looked = self.look_around(&plan, &ask).await;
        let mut fetch = Fetch { plan, ask, call, siblings: known, pilot };
        match looked {
            Ok(hit) => return fetch.land(Some(hit), &[], None),
            Err(siblings) => fetch.siblings = siblings.or(fetch.siblings),
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
                        Err(e) => Verdict::Failed(e),
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
        fetch.land(None, &attempts, None);
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
        if let Some((e, _)) = self.remembered_absence(step.upstream, &fetch.ask) {
            Err(Verdict::Remembered(e))
        } else {
            let call = Self::call_for(&fetch.plan, &step, last, &fetch.call);
            self.part(step.upstream, fetch, &call).await.map_err(Verdict::Failed)
        }
    }

    /// Hands on what a member gave, and keeps it. An error says that it is no good and that nobody has been told of it.
    async fn bring(
        &self,
        member: usize,
        part: Part,
        fetch: &Fetch,
        attempts: &[Attempt],
        started: Instant,
    ) -> Result<(), UpstreamError> {
        let land = |answer| fetch.land(Some((member, answer)), attempts, Some(self.attempt(member, Verdict::Fetched, started)));
        match part {
            Part::Small(bytes) => {
                // Askers are slowed down to what the disk can take rather than refused when it cannot.
                let _backlog = self.backlog.acquire().await;
                land(Answer::bytes(bytes.clone(), kind_of(&fetch.ask), Lifetime::Immutable));
                self.keep(member, fetch.ask.clone(), bytes).await;
                Ok(())
            }
            Part::Zip(incoming) => self.bring_zip(member, incoming, fetch, land).await,
        }
    }

    /// A part of a version from the plan's directories, the only upstreams that may be asked when nothing is to be fetched.
    pub(super) async fn ask_directories(&self, plan: &Plan, ask: &Ask, call: &Call) -> Landed {
        let mut attempts = Vec::new();
        for member in plan.route.steps.iter().map(|s| s.upstream).filter(|m| !self.members[*m].folder.is_writable()) {
            let started = Instant::now();
            let upstream = &self.members[member].upstream;
            let small = |bytes| Answer::bytes(bytes, kind_of(ask), Lifetime::Immutable);
            let found = match ask {
                Ask::Zip(version) => match upstream.zip(version, call).await {
                    Ok(Incoming::File(stored)) => whole_file(stored, version, None).await,
                    Ok(Incoming::Body { .. }) => Err(Failure::Absent(None).into()),
                    Err(e) => Err(e),
                },
                Ask::GoMod(version) => upstream.go_mod(version, call).await.map(small),
                Ask::Info(version) => self.info(member, version, call).await.map(small),
                Ask::List(_) | Ask::Latest(_) | Ask::Query(..) => continue,
            };
            match found {
                Ok(answer) => {
                    attempts.push(self.attempt(member, Verdict::Fetched, started));
                    return Landed { attempts: attempts.into(), found: Some((member, answer)) };
                }
                Err(e) => attempts.push(self.attempt(member, Verdict::Failed(e), started)),
            }
        }
        Landed { attempts: attempts.into(), found: None }
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
        if let Err(e) = &result
            && e.failure.class() == FailureClass::Absent
        {
            self.remember(member, &fetch.ask, e);
        }
        let part = result?;
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

    /// Brings a zip home. It lands when its readers can begin. A zip so small that they would get nothing before it is checked
    /// lands when it is whole, so that a bad one still lets the chain go on.
    async fn bring_zip(
        &self,
        member: usize,
        incoming: Incoming,
        fetch: &Fetch,
        land: impl Fn(Answer),
    ) -> Result<(), UpstreamError> {
        let Ask::Zip(version) = &fetch.ask else { return Err(UpstreamError::corrupt("not a zip")) };
        let name = &self.members[member].name;
        let expected = fetch.siblings.go_mod_of_another(member);
        let (length, mut body) = match incoming {
            Incoming::File(stored) => {
                land(whole_file(stored, version, expected).await?);
                return Ok(());
            }
            Incoming::Body { length, body } => (length, body),
        };
        let mut spool = self.store.spool()?;
        spool.announce(length)?;
        let arriving = |spool: &Spool, length| Answer::new(Content::Growing { reader: spool.reader(), length }, Kind::Zip);
        let mut begun = false;
        let come = |spool: &Spool| {
            if !begun && spool.visible() > 0 {
                begun = true;
                land(arriving(spool, length));
            }
        };
        let received = match transfer::receive(&mut body, &mut spool, come).await {
            Ok(()) => match spool.file() {
                Ok(file) => transfer::check(file, version.clone(), expected.cloned()).await,
                Err(e) => Err(StoreError::new("read the temporary file of", fetch.ask.path().as_ref(), e).into()),
            },
            Err(e) => Err(e),
        };
        if let Err(e) = received {
            spool.fail(&format!("{name}: {e}"));
            if !begun {
                return Err(e);
            }
            // The readers have begun and see an aborted body; the next request starts anew.
            tracing::error!(upstream = %name, ask = %fetch.ask, error = %e, "a zip failed while it was being sent on");
            return Ok(());
        }
        spool.release();
        if !begun {
            land(arriving(&spool, Some(spool.written())));
        }
        let (folder, ask) = (self.members[member].folder.clone(), fetch.ask.clone());
        stored(tokio::task::spawn_blocking(move || folder.commit(&ask, spool)).await);
        Ok(())
    }

    /// Stores a small answer. The askers have it already; a disk that fails costs only the next fetch.
    async fn keep(&self, member: usize, ask: Ask, bytes: Bytes) {
        let folder = self.members[member].folder.clone();
        if folder.is_writable() {
            // When many wait, they go side by side after all: the disk then syncs several by one effort.
            let _lane = tokio::time::timeout(LANE_PATIENCE, self.storing.acquire()).await;
            stored(tokio::task::spawn_blocking(move || folder.keep(&ask, &bytes)).await);
        }
    }
}

pub(super) fn stored(result: Result<Result<(), StoreError>, tokio::task::JoinError>) {
    match result {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::error!(error = %e, "an answer could not be kept in the cache"),
        Err(e) => tracing::error!(error = %e, "storing an answer broke down"),
    }
}

/// The first folder's answer that there is.
fn find(folders: &[(usize, Folder)], ask: &Ask) -> Option<(usize, Answer)> {
    folders.iter().find_map(|(member, folder)| match read_part(folder, ask) {
        Ok(found) => found.map(|answer| (*member, answer)),
        Err(e) => {
            tracing::warn!(error = %e, "a cached file cannot be used and is fetched again");
            None
        }
    })
}

fn read_part(folder: &Folder, ask: &Ask) -> Result<Option<Answer>, StoreError> {
    let limit = match ask {
        Ask::Zip(_) => SMALL_ZIP,
        Ask::GoMod(_) => MAX_GO_MOD,
        _ => MAX_INFO,
    };
    let Some(stored) = folder.open(ask)? else { return Ok(None) };
    let modified = Some(stored.modified);
    let content = if stored.length <= limit {
        match folder.read(ask, limit)? {
            // Nothing that is kept is empty; a file that is has been damaged.
            Some((bytes, _)) if bytes.is_empty() => return Ok(None),
            Some((bytes, _)) => Content::Bytes(bytes),
            None => return Ok(None),
        }
    } else if matches!(ask, Ask::Zip(_)) {
        Content::File { file: Arc::new(stored.file), length: stored.length }
    } else {
        let too_large = std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than such a file can be");
        return Err(StoreError::new("read", ask.path().as_ref(), too_large));
    };
    Ok(Some(Answer { modified, ..Answer::new(content, kind_of(ask)) }))
}

/// A zip that is a file already, checked.
async fn whole_file(stored: Stored, version: &ModuleVersion, expected: Option<&Bytes>) -> Result<Answer, UpstreamError> {
    let file = stored.file.try_clone().map_err(|e| StoreError::new("read the zip of", version.module.as_str().as_ref(), e))?;
    transfer::check(file, version.clone(), expected.cloned()).await?;
    let content = Content::File { file: Arc::new(stored.file), length: stored.length };
    Ok(Answer { modified: Some(stored.modified), ..Answer::new(content, Kind::Zip) })
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
        let Some((member, answer)) = flight::landed(flight).await.ok().and_then(|landed| landed.found) else { continue };
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
        let read = |(member, folder): &(usize, Folder)| Some((*member, folder.read(part, MAX_GO_MOD).ok()??.0));
        folders.iter().find_map(read)
    };
    let mut found = Siblings::default();
    for part in &others {
        match part {
            Ask::GoMod(_) => found.go_mod = small(part),
            Ask::Info(_) => found.info = small(part),
            Ask::Zip(version) if matches!(ask, Ask::GoMod(_)) => {
                let of_zip = |(member, folder): &(usize, Folder)| {
                    let file = folder.open(part).ok()??.file;
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

//! The parts of canonical versions: looked up in the folders of the plan's upstreams, else fetched along the chain.
//!
//! The parts of one version come from one upstream: the one that gave a part before is asked first for the others. Where it
//! fails and the chain goes on, another upstream's part is taken only if the go.mod of both agree, byte by byte; otherwise
//! it counts as corrupt.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::answer::{Answer, Content, Lifetime};
use super::flight::Pilot;
use super::trail::{Attempt, Verdict};
use super::{Gateway, kind_of, transfer};
use crate::base::Call;
use crate::module::zip::{self, MAX_GO_MOD};
use crate::module::{Ask, ModuleVersion, Query};
use crate::route::Plan;
use crate::store::{Folder, Spool, StoreError};
use crate::upstream::{Incoming, MAX_INFO, UpstreamError};

/// Zips up to this many bytes are answered from memory where it has room.
const SMALL_ZIP: u64 = 256 << 10;

/// How a chain ended.
#[derive(Debug, Clone)]
pub(super) struct Landed {
    pub(super) attempts: Arc<[Attempt]>,
    /// The member that gave it, and what it gave. A zip may still be arriving.
    pub(super) found: Option<(usize, Content)>,
}

/// What the cache has of a version.
#[derive(Default)]
pub(super) struct Found {
    pub(super) hit: Option<(usize, Answer)>,
    pub(super) siblings: Siblings,
}

/// What the cache has of a version when the part that is asked for is missing.
#[derive(Debug, Clone, Default)]
pub(super) struct Siblings {
    /// The member that gave another part before.
    pinned: Option<usize>,
    /// The go.mod of the version as the cache has it, and whose it is.
    go_mod: Option<(usize, Bytes)>,
}

/// What a member gave.
enum Part {
    Small(Bytes),
    Zip(Incoming),
}

type ChainPilot = Pilot<(usize, Ask), Landed>;

impl Gateway {
    /// Looks for a part of a version in the folders of the plan's upstreams, in order.
    pub(super) async fn look_up(&self, plan: &Plan, ask: &Ask) -> Found {
        let folders: Vec<(usize, Folder)> =
            plan.route.steps.iter().map(|s| (s.upstream, self.members[s.upstream].folder.clone())).collect();
        let ask = ask.clone();
        let looked = tokio::task::spawn_blocking(move || {
            for (member, folder) in &folders {
                match read_part(folder, &ask) {
                    Ok(Some(answer)) => return Found { hit: Some((*member, answer)), siblings: Siblings::default() },
                    Ok(None) => {}
                    Err(e) => tracing::warn!(error = %e, "a cached file cannot be used and is fetched again"),
                }
            }
            Found { hit: None, siblings: siblings(&folders, &ask) }
        });
        looked.await.unwrap_or_default()
    }

    /// The other parts of a version that have been fetched and are still being stored.
    pub(super) fn landed_siblings(&self, plan: &Plan, ask: &Ask) -> Siblings {
        let landed =
            other_parts(ask).into_iter().filter_map(|part| Some((self.chains.peek(&(plan.index, part.clone()))?.found?, part)));
        let mut siblings = Siblings::default();
        for ((member, content), part) in landed {
            siblings.pinned.get_or_insert(member);
            if let (Content::Bytes(bytes), Ask::GoMod(_)) = (content, part) {
                siblings.go_mod = Some((member, bytes));
            }
        }
        siblings
    }

    /// Fetches a part of a version along the chain, as a flight.
    pub(super) async fn fetch(self: Arc<Self>, plan: Plan, ask: Ask, siblings: Siblings, call: Call, pilot: ChainPilot) {
        let mut attempts = Vec::new();
        let mut steps = plan.route.steps.clone();
        if let Some(at) = siblings.pinned.and_then(|m| steps.iter().position(|s| s.upstream == m)) {
            let pinned = steps.remove(at);
            steps.insert(0, pinned);
        }
        for step in &steps {
            let member = step.upstream;
            let started = Instant::now();
            let expected = siblings.go_mod.as_ref().filter(|(of, _)| *of != member).map(|(_, bytes)| bytes);
            let result = match self.remembered_absence(member, &ask) {
                Some(e) => Err(Verdict::Remembered(e)),
                None => self.part(member, &ask, expected, &call).await.map_err(Verdict::Failed),
            };
            let attempt =
                |verdict| Attempt { upstream: Arc::clone(&self.members[member].name), verdict, elapsed: started.elapsed() };
            let failed = match result {
                Ok(Part::Small(bytes)) => {
                    attempts.push(attempt(Verdict::Fetched));
                    pilot.land(Landed { attempts: attempts.into(), found: Some((member, Content::Bytes(bytes.clone()))) });
                    return self.keep(member, ask, bytes).await;
                }
                Ok(Part::Zip(incoming)) => match self.bring_zip(member, &ask, incoming, expected, &pilot, &attempts, started).await
                {
                    Ok(()) => return,
                    Err(e) => Verdict::Failed(e),
                },
                Err(verdict) => verdict,
            };
            let class = failed.failure().map(|e| e.failure.class());
            if let Some(e) = failed.failure().filter(|_| class == Some(crate::route::FailureClass::Corrupt)) {
                tracing::error!(upstream = %self.members[member].name, %ask, error = %e, "an upstream sent a corrupt answer");
            }
            attempts.push(attempt(failed));
            if class.is_none_or(|c| !plan.route.goes_on(step, c)) {
                break;
            }
        }
        pilot.land(Landed { attempts: attempts.into(), found: None });
    }

    /// Asks one member for a part.
    async fn part(&self, member: usize, ask: &Ask, expected: Option<&Bytes>, call: &Call) -> Result<Part, UpstreamError> {
        let upstream = &self.members[member].upstream;
        let result = match ask {
            Ask::Zip(version) => upstream.zip(version, call).await.map(Part::Zip),
            Ask::GoMod(version) => match upstream.go_mod(version, call).await {
                Ok(bytes) if expected.is_some_and(|e| *e != bytes) => Err(other_module()),
                other => other.map(Part::Small),
            },
            Ask::Info(version) => self.info(member, version, call).await.map(Part::Small),
            Ask::List(_) | Ask::Latest(_) | Ask::Query(..) => Err(UpstreamError::corrupt("not a part of a version")),
        };
        if let Err(e) = &result
            && e.failure.class() == crate::route::FailureClass::Absent
        {
            self.remember_absence(member, ask, e);
        }
        result
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
    #[expect(clippy::too_many_arguments, reason = "one call site, and all of it is this flight's state")]
    async fn bring_zip(
        &self,
        member: usize,
        ask: &Ask,
        incoming: Incoming,
        expected: Option<&Bytes>,
        pilot: &ChainPilot,
        before: &[Attempt],
        started: Instant,
    ) -> Result<(), UpstreamError> {
        let Ask::Zip(version) = ask else { return Err(UpstreamError::corrupt("not a zip")) };
        let name = &self.members[member].name;
        let land = |content| {
            let fetched = Attempt { upstream: Arc::clone(name), verdict: Verdict::Fetched, elapsed: started.elapsed() };
            let attempts = before.iter().cloned().chain([fetched]).collect();
            pilot.land(Landed { attempts, found: Some((member, content)) });
        };
        let (length, mut body) = match incoming {
            Incoming::File(stored) => {
                let file = stored.file.try_clone().map_err(|e| UpstreamError::corrupt(e.to_string()))?;
                transfer::check(file, version.clone(), expected.cloned()).await?;
                land(Content::File { file: Arc::new(stored.file), length: stored.length });
                return Ok(());
            }
            Incoming::Body { length, body } => (length, body),
        };
        let mut spool = self.store.spool()?;
        spool.announce(length);
        let mut begun = false;
        let come = |spool: &Spool| {
            if !begun && spool.visible() > 0 {
                begun = true;
                land(Content::Growing { reader: spool.reader(), length });
            }
        };
        let received = match transfer::receive(&mut body, &mut spool, come).await {
            Ok(()) => match spool.file() {
                Ok(file) => transfer::check(file, version.clone(), expected.cloned()).await,
                Err(e) => Err(StoreError::new("read the temporary file of", ask.path().as_ref(), e).into()),
            },
            Err(e) => Err(e),
        };
        if let Err(e) = received {
            spool.fail(&format!("{name}: {e}"));
            if !begun {
                return Err(e);
            }
            // The readers have begun and see an aborted body; the next request starts anew.
            tracing::error!(upstream = %name, %ask, error = %e, "a zip failed while it was being sent on");
            return Ok(());
        }
        spool.release();
        if !begun {
            land(Content::Growing { reader: spool.reader(), length: Some(spool.written()) });
        }
        let (folder, ask) = (self.members[member].folder.clone(), ask.clone());
        stored(tokio::task::spawn_blocking(move || folder.commit(&ask, spool)).await);
        Ok(())
    }

    /// Stores a small answer. The askers have it already; a disk that fails costs only the next fetch.
    pub(super) async fn keep(&self, member: usize, ask: Ask, bytes: Bytes) {
        let folder = self.members[member].folder.clone();
        if folder.is_writable() {
            stored(tokio::task::spawn_blocking(move || folder.keep(&ask, &bytes)).await);
        }
    }
}

fn other_module() -> UpstreamError {
    UpstreamError::corrupt("its go.mod differs from the one that was served for this version before, from another upstream")
}

pub(super) fn stored(result: Result<Result<(), StoreError>, tokio::task::JoinError>) {
    match result {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::error!(error = %e, "an answer could not be kept in the cache"),
        Err(e) => tracing::error!(error = %e, "storing an answer broke down"),
    }
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
            Some((bytes, _)) => Content::Bytes(bytes),
            None => return Ok(None),
        }
    } else if matches!(ask, Ask::Zip(_)) {
        Content::File { file: Arc::new(stored.file), length: stored.length }
    } else {
        let too_large = std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than such a file can be");
        return Err(StoreError::new("read", ask.path().as_ref(), too_large));
    };
    Ok(Some(Answer { content, kind: kind_of(ask), lifetime: Lifetime::Immutable, modified, partial: Vec::new() }))
}

impl Siblings {
    /// What is known here, and where nothing is, there.
    pub(super) fn or(self, other: Self) -> Self {
        Self { pinned: self.pinned.or(other.pinned), go_mod: self.go_mod.or(other.go_mod) }
    }
}

/// The questions about the other parts of a version: go.mod first, then zip, then info.
fn other_parts(ask: &Ask) -> Vec<Ask> {
    let (Ask::Info(version) | Ask::GoMod(version) | Ask::Zip(version)) = ask else { return Vec::new() };
    let parts = [Ask::GoMod(version.clone()), Ask::Zip(version.clone()), Ask::Info(version.clone())];
    parts.into_iter().filter(|part| part != ask).collect()
}

fn siblings(folders: &[(usize, Folder)], ask: &Ask) -> Siblings {
    let others = other_parts(ask);
    let has_any = |folder: &Folder| others.iter().any(|other| folder.has(other));
    let pinned = folders.iter().find(|(_, folder)| has_any(folder)).map(|(member, _)| *member);
    let go_mod = folders.iter().find_map(|(member, folder)| {
        let bytes = match (ask, others.first()?) {
            (Ask::Zip(_), go_mod) => folder.read(go_mod, MAX_GO_MOD).ok()??.0,
            (Ask::GoMod(version), zip_file) => zip::go_mod(folder.open(zip_file).ok()??.file, version).ok()??.into(),
            _ => return None,
        };
        Some((*member, bytes))
    });
    Siblings { pinned, go_mod }
}

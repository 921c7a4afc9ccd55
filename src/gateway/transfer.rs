//! What came from an upstream on its way to its askers and into the cache: small answers, zips that are files already, and zips that
//! grow in a spool, whose end is held back until they have been looked at.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::answer::{Answer, Content, Kind, Lifetime};
use super::chain::{Fetch, Found, Part, Unfit};
use super::trail::{Attempt, Verdict};
use super::verify::{Checked, Expected, Ledger, Note, Standing};
use super::{Gateway, GatewayError, kind_of};
use crate::egress::{Body, EgressError};
use crate::module::zip::{self, MAX_ZIP, ZipError};
use crate::module::{Ask, ModuleVersion, Sum};
use crate::route::FailureClass;
use crate::store::{DiskStore, FileMark, Folder, Spool, StoreError, Stored, is_full};
use crate::upstream::{Failure, Incoming, Outage, UpstreamError};

/// How long a small answer waits for its lane to the disk.
const LANE_PATIENCE: Duration = Duration::from_millis(200);
/// How long the look at a directory's zip may take.
const FILE_LIMIT: Duration = Duration::from_secs(120);
/// An upstream whose zip was no good is not asked for it again for so long.
const CORRUPT_PAUSE: Duration = Duration::from_secs(60);
/// As many bytes are written to the disk at once, where as many have arrived.
const BATCH: usize = 256 << 10;

/// Writes the body into the spool as it arrives. This runs on the gateway's runtime, where a write into the page cache may
/// block for a moment without keeping a worker from its clients. After each write `came` is told.
async fn receive(body: &mut Body, spool: &mut Spool, store: &DiskStore, mut came: impl FnMut(&Spool)) -> Result<(), Unfit> {
    let mut batch: Vec<Bytes> = Vec::new();
    while let Some(piece) = body.next().await? {
        let mut bytes = piece.len();
        batch.push(piece);
        let mut after = None;
        while bytes < BATCH {
            match body.ready() {
                Some(Ok(Some(piece))) => {
                    bytes += piece.len();
                    batch.push(piece);
                }
                Some(end) => {
                    after = Some(end);
                    break;
                }
                None => break,
            }
        }
        if spool.written() + bytes as u64 > MAX_ZIP {
            return Err(UpstreamError::from(EgressError::TooLarge { limit: MAX_ZIP }).into());
        }
        spool.append(&batch).map_err(|e| no_room(store, &StoreError::new("write a zip to", "the cache".as_ref(), e)))?;
        came(spool);
        batch.clear();
        match after {
            Some(Ok(_)) => return Ok(()),
            Some(Err(e)) => return Err(e.into()),
            None => {}
        }
    }
    Ok(())
}

/// There is nowhere to put what an upstream sends. That is none of its doing, and what another sent would fare no better.
fn no_room(store: &DiskStore, e: &StoreError) -> Unfit {
    tracing::error!(error = %e, "there is no room for what an upstream sends");
    // Other troubles would not go by what else lies there.
    if is_full(&e.source) {
        store.tell_full();
    }
    Unfit::Refused(GatewayError::NoRoom(e.source.to_string().into()))
}

/// Looks at the shape of a whole zip, and where another upstream's go.mod is known, whether this zip holds the same. Its sum is worth
/// the look at all that is in it where it is wanted.
pub(super) async fn check(
    file: File,
    version: ModuleVersion,
    go_mod: Option<Bytes>,
    wanted: bool,
) -> Result<Option<Sum>, UpstreamError> {
    let looked = tokio::task::spawn_blocking(move || {
        zip::check(file.try_clone()?, &version)?;
        if let Some(other) = go_mod
            // A zip without a go.mod has one made up by whoever serves it; there is nothing to compare then.
            && zip::go_mod(file.try_clone()?, &version)?.is_some_and(|own| own != other)
        {
            return Ok(Err(other_module()));
        }
        let sum = if wanted { Some(Sum::of_zip(file, &version)?) } else { None };
        Ok::<_, ZipError>(Ok(sum))
    });
    match looked.await {
        Ok(Ok(looked)) => looked,
        Ok(Err(ZipError::Io(e))) => Err(UpstreamError::disk(StoreError::new("read the zip in", "the cache".as_ref(), e))),
        Ok(Err(e)) => Err(UpstreamError::corrupt(e)),
        Err(e) => Err(UpstreamError::corrupt(format!("looking at it broke down: {e}"))),
    }
}

/// What a part is that belongs to another module than the parts before it.
pub(super) fn other_module() -> UpstreamError {
    UpstreamError::corrupt("its go.mod differs from the one that was served for this version before, from another upstream")
}

impl Gateway {
    /// Hands on what a member gave, and keeps it.
    pub(super) async fn bring(
        &self,
        member: usize,
        part: Part,
        fetch: &Fetch,
        attempts: &[Attempt],
        started: Instant,
    ) -> Result<(), Unfit> {
        let land = |found| fetch.land(found, attempts, Some(self.attempt(member, Verdict::Fetched, started)));
        let expected = fetch.expected().await?;
        match part {
            Part::Small(bytes) => {
                let found = self.small(member, &fetch.ask, bytes.clone(), &expected)?;
                // Askers are slowed down to what the disk can take rather than refused when it cannot.
                let _backlog = self.backlog.acquire().await;
                let checked = found.checked.clone();
                land(found);
                self.keep(member, fetch.ask.clone(), bytes, checked).await;
                Ok(())
            }
            Part::Zip(Incoming::File(stored)) => {
                let other = fetch.other_go_mod(member).filter(|_| !expected.is_proven());
                land(self.whole_file(member, &fetch.ask, stored, &expected, other).await?);
                Ok(())
            }
            Part::Zip(Incoming::Body { length, body }) => self.bring_zip(member, length, body, fetch, &expected, land).await,
        }
    }

    /// A small answer, held against what it has to be.
    pub(super) fn small(&self, member: usize, ask: &Ask, bytes: Bytes, expected: &Expected) -> Result<Found, UpstreamError> {
        let checked = match ask {
            Ask::GoMod(_) if expected.wants_sum() => expected.judge(Sum::of_go_mod(&bytes), &self.members[member].name, ask)?,
            _ => None,
        };
        Ok(Found { member, answer: Answer::bytes(bytes, kind_of(ask), Lifetime::Immutable), checked })
    }

    /// A zip that is a file already, checked. It is not copied: a directory is its own cache.
    pub(super) async fn whole_file(
        &self,
        member: usize,
        ask: &Ask,
        stored: Stored,
        expected: &Expected,
        other: Option<&Bytes>,
    ) -> Result<Found, UpstreamError> {
        let Ask::Zip(version) = ask else { return Err(UpstreamError::corrupt("not a zip")) };
        let name = &self.members[member].name;
        let unreadable = |e| UpstreamError::disk(StoreError::new("read the zip of", version.module.as_str().as_ref(), e));
        let (ledger, of, part) = (self.ledger.clone(), Arc::clone(name), ask.clone());
        let noted = self.store.look(move |look| ledger.read(&of, &part, look)).await.unwrap_or_else(|e| {
            tracing::warn!(error = %e, "what was noted of a zip cannot be read, and it is looked at again");
            None
        });
        // The sum of this very file may be known from before.
        let known = noted.filter(|note| note.file == Some(stored.mark())).map(|note| note.checked.sum);
        let wanted = known.is_none() && expected.wants_sum();
        let _place = if wanted { self.hashing.acquire().await.ok() } else { None };
        // A mount that dies now must not keep the place of others.
        let looking = check(stored.file.try_clone().map_err(unreadable)?, version.clone(), other.cloned(), wanted);
        let looked = tokio::time::timeout(FILE_LIMIT, looking).await;
        let sum = looked.map_err(|_| Failure::Outage(Outage::DiskHangs(FILE_LIMIT)))??.or(known);
        let checked = sum.map_or(Ok(None), |sum| expected.judge(sum, name, ask))?;
        if let (Some(checked), None) = (&checked, known) {
            let (ledger, of, part) = (self.ledger.clone(), Arc::clone(name), ask.clone());
            let note = Note { checked: checked.clone(), file: Some(stored.mark()) };
            let noted = tokio::task::spawn_blocking(move || ledger.write_if_able(&of, &part, &note)).await;
            noted.map_err(UpstreamError::corrupt)?.map_err(UpstreamError::disk)?;
        }
        let content = Content::File { file: Arc::new(stored.file), length: stored.length };
        let answer = Answer { modified: Some(stored.modified), watched: checked.is_some(), ..Answer::new(content, Kind::Zip) };
        Ok(Found { member, answer, checked })
    }

    /// Brings a zip home. It lands when its readers can begin. A zip so small that they would get nothing before it is checked
    /// lands when it is whole, so that a bad one still lets the chain go on.
    async fn bring_zip(
        &self,
        member: usize,
        length: Option<u64>,
        mut body: Body,
        fetch: &Fetch,
        expected: &Expected,
        land: impl Fn(Found),
    ) -> Result<(), Unfit> {
        let Ask::Zip(version) = &fetch.ask else { return Err(UpstreamError::corrupt("not a zip").into()) };
        let name = &self.members[member].name;
        let mut spool = self.store.spool().map_err(|e| no_room(&self.store, &e))?;
        spool.announce(length).map_err(|e| no_room(&self.store, &e))?;
        let arriving = |spool: &Spool, length, checked| {
            let answer = Answer::new(Content::Growing { reader: spool.reader(), length }, Kind::Zip);
            Found { member, answer, checked }
        };
        let mut begun = false;
        let come = |spool: &Spool| {
            if !begun && spool.visible() > 0 {
                begun = true;
                land(arriving(spool, length, None));
            }
        };
        let received = match receive(&mut body, &mut spool, &self.store, come).await {
            Ok(()) => match spool.file() {
                Ok(file) => {
                    let other = fetch.other_go_mod(member).filter(|_| !expected.is_proven());
                    let _place = if expected.wants_sum() { self.hashing.acquire().await.ok() } else { None };
                    let sum = check(file, version.clone(), other.cloned(), expected.wants_sum()).await;
                    let judged = sum.and_then(|sum| sum.map_or(Ok(None), |sum| expected.judge(sum, name, &fetch.ask)));
                    judged.map_err(|e| match &e.failure {
                        // The disk that the zip came to lie on is ours.
                        Failure::Outage(Outage::Disk(e)) => no_room(&self.store, e),
                        _ => e.into(),
                    })
                }
                Err(e) => Err(no_room(&self.store, &StoreError::new("read the temporary file of", fetch.ask.path().as_ref(), e))),
            },
            Err(e) => Err(e),
        };
        let checked = match received {
            Ok(checked) => checked,
            Err(e) => {
                if let Unfit::Upstream(e) = &e
                    && begun
                    && e.failure.class() == FailureClass::Corrupt
                {
                    // Whoever asks again is not sent the same once more.
                    self.remember_for(member, &fetch.ask, e, CORRUPT_PAUSE);
                }
                spool.fail(&format!("{name}: {e}"));
                if !begun {
                    return Err(e);
                }
                // The readers have begun and see an aborted body; the next request starts anew.
                tracing::error!(upstream = %name, ask = %fetch.ask, error = %e, "a zip failed while it was being sent on");
                return Ok(());
            }
        };
        spool.release(checked.as_ref().map(|checked| checked.to_string().into()));
        if !begun {
            land(arriving(&spool, Some(spool.written()), checked.clone()));
        }
        let (folder, ask, ledger) = (self.members[member].folder.clone(), fetch.ask.clone(), self.ledger.clone());
        self.stored(
            &tokio::task::spawn_blocking(move || {
                let named = folder.commit(&ask, spool)?;
                note(&ledger, &folder, &ask, checked, named)
            })
            .await,
        );
        if self.settings.uncompressed.is_some() {
            self.fresh.push(member, &fetch.ask);
        }
        Ok(())
    }

    /// Stores a small answer. The askers have it already; a disk that fails costs only the next fetch.
    async fn keep(&self, member: usize, ask: Ask, bytes: Bytes, checked: Option<Checked>) {
        let (folder, ledger) = (self.members[member].folder.clone(), self.ledger.clone());
        let name = Arc::clone(&self.members[member].name);
        // When many wait, they go side by side after all: the disk then syncs several by one effort.
        let _lane = tokio::time::timeout(LANE_PATIENCE, self.storing.acquire()).await;
        let keeping = tokio::task::spawn_blocking(move || {
            if folder.is_writable() {
                let named = folder.keep(&ask, &bytes)?;
                return note(&ledger, &folder, &ask, checked, named);
            }
            // A directory's go.mod is hashed each time; only the first sum of all has to be kept.
            match checked {
                Some(checked @ Checked { standing: Standing::Seen(_), .. }) => {
                    ledger.write(&name, &ask, &Note { checked, file: None })
                }
                _ => Ok(()),
            }
        });
        self.stored(&keeping.await);
    }

    /// Takes note of what came of storing an answer. Its askers have it already; a disk that fails costs only the next fetch.
    pub(super) fn stored(&self, result: &Result<Result<(), StoreError>, tokio::task::JoinError>) {
        let failed: &dyn std::fmt::Display = match result {
            Ok(Ok(())) => return,
            Ok(Err(e)) => e,
            Err(e) => e,
        };
        self.unstored.fetch_add(1, Ordering::Relaxed);
        tracing::error!(error = %failed, "an answer could not be kept in the cache");
    }
}

/// Notes what the sum of a file rests on that has just got its name. Of one that was there already its own note speaks.
pub(super) fn note(
    ledger: &Ledger,
    folder: &Folder,
    ask: &Ask,
    checked: Option<Checked>,
    named: Option<FileMark>,
) -> Result<(), StoreError> {
    match (checked, named) {
        (Some(checked), file @ Some(_)) => ledger.write(folder.name(), ask, &Note { checked, file }),
        _ => Ok(()),
    }
}

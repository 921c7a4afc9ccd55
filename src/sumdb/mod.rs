//! Layer 4: checksum databases, asked and proven (<https://go.dev/ref/mod#checksum-database>, `golang.org/x/mod/sumdb`).
//!
//! A database is a tree of records that only grows, cut into [`tile`]s, under a head that it signs ([`note`], [`tree`]). What it says of a
//! version ([`record`]) counts when its record is in the tree of a head that is of one history with every head seen before; the
//! newest of these is kept on disk ([`heads`]). So nobody on the way needs to be trusted: neither the proxies that pass the database
//! on ([`source`]), nor the disk.
//!
//! Everything is handed on byte by byte and kept for ever once it is proven, so that the go command, which proves it all again, can be
//! answered when nobody is reached any more. A full tile stands for its partial forms, which are its beginnings.

pub mod ask;
mod export;
mod heads;
pub mod note;
pub mod record;
pub mod source;
pub mod tile;
mod tiles;
pub mod tree;

use std::hash::Hash as Hashable;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;

pub use ask::SumdbAsk;
pub use note::{NoteError, Verifier};
pub use record::Sums;
pub use source::Source;

use crate::base::flight::{self, FlightError, Flights};
use crate::module::ModuleVersion;
use crate::store::memory::Weigh;
use crate::store::{Durable, Memory, Shelf, StoreError};
use heads::{Heads, MAX_HEAD, Signed};
use record::Record;
use source::{Troubles, in_order};
use tile::{FULL, Kind, Named, Tile};
use tiles::Tiles;
use tree::{Coord, Hash};

/// The largest answer to a look-up that is read.
const MAX_LOOKUP: u64 = 1 << 20;
/// The largest tile of records that is read.
const MAX_DATA: u64 = 16 << 20;
/// How long it is not asked again for the newest head.
const LATEST: Duration = Duration::from_secs(30);
/// How long it is remembered that the database does not know a version.
const UNKNOWN: Duration = Duration::from_secs(60);
/// The bytes of look-ups in memory.
const LOOKED_UP: u64 = 4 << 20;
/// The most look-ups under way.
const LOOKUPS: usize = 4096;
/// The most questions for heads and tiles under way.
const OTHERS: usize = 256;
/// The longest that a question may take in all.
const LIMIT: Duration = Duration::from_secs(120);

/// The folder of what is kept of a database, beside the upstreams' folders.
pub fn folder(name: &str) -> String {
    format!(".sumdb/{name}")
}

/// Those folders in it whose files can be asked for again: unlike its head, and what speaks against it.
pub fn answers(name: &str) -> [String; 2] {
    ["lookup", "tile"].map(|kind| format!("{}/{kind}", folder(name)))
}

/// Why a database gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SumdbError {
    /// It says that it does not know the version.
    #[error("the checksum database does not know it")]
    Absent,
    /// It could not be asked.
    #[error("the checksum database cannot be asked: {why}")]
    Unreachable {
        /// What each server said.
        why: Arc<str>,
        /// Whether all that was wrong were time limits.
        timed_out: bool,
    },
    /// What it says is not proven, or is a lie.
    #[error("{0}")]
    Refused(Arc<str>),
    /// It is not known here, and nobody is to be asked.
    #[error("the checksum database's word on it is not in the cache, and nobody is to be asked")]
    NotCached,
}

impl SumdbError {
    fn refused(why: String) -> Self {
        Self::Refused(why.into())
    }
}

impl From<StoreError> for SumdbError {
    fn from(e: StoreError) -> Self {
        Self::Unreachable { why: e.to_string().into(), timed_out: false }
    }
}

/// Why a database cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its folder cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kept head is not what was written there.
    #[error("{0}: the kept tree head of the checksum database is damaged ({1}); if nobody can have changed it, remove the file")]
    Damaged(PathBuf, String),
}

/// What was proven of one version.
struct Looked {
    answer: Bytes,
    sums: Sums,
}

impl Weigh for Looked {
    fn bytes(&self) -> usize {
        self.answer.len() + size_of::<Self>()
    }
}

impl Weigh for Instant {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

/// An answer and how long it holds; `None` is for ever.
pub type Lasting = (Bytes, Option<Duration>);

type Lookup = Result<Arc<Looked>, SumdbError>;

/// One database.
pub struct Database {
    name: String,
    heads: Heads,
    tiles: Tiles,
    shelf: Shelf,
    sources: Vec<Source>,
    looked: Memory<Looked>,
    unknown: Memory<Instant>,
    flights: Arc<Flights<ModuleVersion, Lookup>>,
    /// Questions for heads and tiles under way, by their path.
    others: Arc<Flights<String, Result<Lasting, SumdbError>>>,
    runtime: Handle,
}

impl Database {
    /// Takes a database up where it was left. Its tiles, look-ups and newest head are on the shelf; work is done on `runtime`.
    ///
    /// # Errors
    /// That its kept head cannot be read.
    pub fn open(key: Verifier, shelf: Shelf, sources: Vec<Source>, runtime: Handle) -> Result<Arc<Self>, OpenError> {
        Ok(Arc::new(Self {
            name: key.name().to_owned(),
            heads: Heads::open(key, shelf.clone())?,
            tiles: Tiles::new(shelf.clone()),
            shelf,
            sources,
            looked: Memory::new(LOOKED_UP),
            unknown: Memory::new(1 << 20),
            flights: Flights::new(LOOKUPS),
            others: Flights::new(OTHERS),
            runtime,
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of records under the newest head that is known.
    pub fn size(&self) -> Option<u64> {
        self.heads.newest().map(|signed| signed.head.size)
    }

    /// The proven sums of a version. With `cached_only` nobody is asked.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn sums(self: &Arc<Self>, version: &ModuleVersion, cached_only: bool) -> Result<Sums, SumdbError> {
        Ok(self.look_up(version, cached_only).await?.sums)
    }

    /// The answer to a look-up, as the database gave it, proven.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn lookup(self: &Arc<Self>, version: &ModuleVersion, cached_only: bool) -> Result<Bytes, SumdbError> {
        Ok(self.look_up(version, cached_only).await?.answer.clone())
    }

    async fn look_up(self: &Arc<Self>, version: &ModuleVersion, cached_only: bool) -> Lookup {
        let name = lookup_path(version);
        if let Some(looked) = self.looked.get(&name) {
            return Ok(looked);
        }
        if cached_only {
            return self.kept(version, &name, &[]).await?.ok_or(SumdbError::NotCached);
        }
        if self.unknown.get(&name).is_some_and(|at| at.elapsed() < UNKNOWN) {
            return Err(SumdbError::Absent);
        }
        let (this, asked, path) = (Arc::clone(self), version.clone(), name.clone());
        let fetch = async move {
            let fetched = this.fetch_lookup(&asked, &path).await;
            match &fetched {
                Ok(looked) => this.looked.put(&path, Arc::clone(looked)),
                Err(SumdbError::Absent) => this.unknown.put(&path, Arc::new(Instant::now())),
                Err(_) => {}
            }
            fetched
        };
        self.once(&self.flights, version.clone(), fetch).await
    }

    /// Does this once for all who ask at the same time, within a limit, and to its end whoever goes away.
    async fn once<K, T>(
        &self,
        flights: &Arc<Flights<K, Result<T, SumdbError>>>,
        key: K,
        work: impl Future<Output = Result<T, SumdbError>> + Send + 'static,
    ) -> Result<T, SumdbError>
    where
        K: Eq + Hashable + Clone + Send + Sync + 'static,
        T: Clone + Send + Sync + 'static,
    {
        let flight = flights.board(key, &[], |pilot, _| {
            self.runtime.spawn(async move {
                let done = tokio::time::timeout(LIMIT, work).await;
                let late = || SumdbError::Unreachable { why: "it takes too long".into(), timed_out: true };
                pilot.land(done.unwrap_or_else(|_| Err(late())));
            });
        });
        let landed = match flight {
            Ok(flight) => flight::landed(flight).await,
            Err(e) => Err(e),
        };
        landed.unwrap_or_else(|e| {
            let why = match e {
                FlightError::Full => "too many questions to it under way",
                FlightError::Lost => "asking it broke down; the log of modgate has more",
            };
            Err(SumdbError::Unreachable { why: why.into(), timed_out: false })
        })
    }

    async fn fetch_lookup(&self, version: &ModuleVersion, name: &str) -> Lookup {
        if let Some(looked) = self.kept(version, name, &self.sources).await? {
            return Ok(looked);
        }
        if self.heads.newest().is_none() {
            // With the newest head known first, the older ones that look-ups come with need no head of their own to be kept.
            // Where it cannot be had, theirs will do.
            let _ = self.fetch_latest().await;
        }
        let mut troubles = Troubles::default();
        for source in in_order(&self.sources) {
            let answer = match source.get(name, MAX_LOOKUP).await {
                Ok(answer) => answer,
                Err(trouble) => {
                    troubles.add(trouble);
                    continue;
                }
            };
            match self.judge(version, answer, source.name(), &self.sources).await {
                Ok(looked) => {
                    self.put(name, &looked.answer).await;
                    return Ok(Arc::new(looked));
                }
                Err(e) => {
                    tracing::error!(database = self.name, server = source.name(), %version, error = %e, "a look-up proves nothing");
                    troubles.refuse(source.name(), e);
                }
            }
        }
        Err(troubles.verdict())
    }

    /// The look-up on disk, where there is a good one.
    async fn kept(&self, version: &ModuleVersion, name: &str, sources: &[Source]) -> Result<Option<Arc<Looked>>, SumdbError> {
        let Some(answer) = self.get(name, MAX_LOOKUP).await else { return Ok(None) };
        match self.judge(version, answer, "the cache", sources).await {
            Ok(looked) => Ok(Some(Arc::new(looked))),
            Err(SumdbError::Refused(why)) => {
                tracing::warn!(database = self.name, %version, %why, "a kept look-up proves nothing and is asked for again");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Proves the answer to a look-up.
    async fn judge(&self, version: &ModuleVersion, answer: Bytes, by: &str, sources: &[Source]) -> Result<Looked, SumdbError> {
        let record = Record::parse(&answer).ok_or_else(|| SumdbError::refused("its answer is no record".into()))?;
        let signed = self.heads.read(&answer.slice_ref(record.rest))?;
        let newest = self.heads.admit(signed, by, &self.tiles, sources).await?;
        let at = Coord { level: 0, index: record.number };
        let proof = self.tiles.prove(&newest.head, &[at], sources).await?;
        if proof.hashes != [Hash::of_record(record.text.as_bytes())] {
            return Err(SumdbError::refused(format!("record {} is another in its signed tree", record.number)));
        }
        self.tiles.keep(&proof).await;
        let sums = record.sums(version);
        if sums == (Sums { zip: None, go_mod: None }) {
            return Err(SumdbError::refused(format!("record {} says nothing of this version", record.number)));
        }
        Ok(Looked { answer, sums })
    }

    /// The newest signed head, asked for anew where that was not done just now. A server that has none newer than the kept one does
    /// no harm; without any, the kept one is the answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn latest(self: &Arc<Self>, cached_only: bool) -> Result<Lasting, SumdbError> {
        let kept = self.heads.newest();
        if let (Some(kept), Some(at)) = (&kept, self.heads.confirmed())
            && at.elapsed() < LATEST
        {
            return Ok((kept.note.clone(), Some(LATEST.saturating_sub(at.elapsed()))));
        }
        if cached_only {
            return kept.map(|k| (k.note, Some(Duration::ZERO))).ok_or(SumdbError::NotCached);
        }
        let this = Arc::clone(self);
        self.once(&self.others, "latest".to_owned(), async move { this.fetch_latest().await }).await
    }

    async fn fetch_latest(&self) -> Result<Lasting, SumdbError> {
        let kept = self.heads.newest();
        let mut troubles = Troubles::default();
        for source in in_order(&self.sources) {
            match source.get("latest", MAX_HEAD).await {
                Ok(note) => match self.take_latest(&note, source.name()).await {
                    Ok(Some(newest)) => {
                        self.heads.confirm();
                        return Ok((newest.note, Some(LATEST)));
                    }
                    // It has gone back, or is a copy from before.
                    Ok(None) => {}
                    Err(e) => {
                        tracing::error!(database = self.name, server = source.name(), error = %e, "the newest tree head cannot be taken");
                        troubles.refuse(source.name(), e);
                    }
                },
                Err(trouble) => troubles.add(trouble),
            }
        }
        match (kept, troubles.verdict()) {
            (Some(kept), SumdbError::Unreachable { .. } | SumdbError::Absent | SumdbError::NotCached) => {
                Ok((kept.note, Some(Duration::ZERO)))
            }
            (_, e) => Err(e),
        }
    }

    /// The newest head after this one has been taken in; `None` where this one is of before.
    async fn take_latest(&self, note: &Bytes, by: &str) -> Result<Option<Signed>, SumdbError> {
        let signed = self.heads.read(note)?;
        let newest = self.heads.admit(signed.clone(), by, &self.tiles, &self.sources).await?;
        if signed.head.size < newest.head.size {
            self.heads.rolled_back(&signed, &newest, by);
            return Ok(None);
        }
        Ok(Some(newest))
    }

    /// A tile. One that lies past the newest head that can be had is handed on unproven and not kept: its asker proves it.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn tile(self: &Arc<Self>, named: Named, cached_only: bool) -> Result<Lasting, SumdbError> {
        if let Kind::Hashes(tile) = named.kind
            && let Some(bytes) = self.tiles.proven(tile, named.width)
        {
            return Ok((bytes, None));
        }
        let (this, key) = (Arc::clone(self), format!("{named} {cached_only}"));
        let fetch = async move {
            match named.kind {
                Kind::Hashes(tile) => this.fetch_tile(named, tile, cached_only).await,
                Kind::Data(index) => this.fetch_data(named, index, cached_only).await,
            }
        };
        self.once(&self.others, key, fetch).await
    }

    async fn fetch_tile(&self, named: Named, tile: Tile, cached_only: bool) -> Result<Lasting, SumdbError> {
        let sources = if cached_only { &[][..] } else { &self.sources };
        let covers = |signed: &Signed| tile.width_in(signed.head.size) >= named.width;
        if !cached_only && !self.heads.newest().as_ref().is_some_and(covers) {
            // Whether it could be had shows in the next line.
            let _ = self.fetch_latest().await;
        }
        let Some(newest) = self.heads.newest().filter(covers) else {
            return if cached_only { Err(SumdbError::NotCached) } else { self.pass_on(&named.to_string(), named.width * 32).await };
        };
        let last = Coord { level: tile.level * 8, index: (tile.index << 8) + named.width - 1 };
        let proof = self.tiles.prove(&newest.head, &[last], sources).await?;
        self.tiles.keep(&proof).await;
        let cut = proof.tiles.get(&tile).and_then(|bytes| tile::cut(bytes, named.width));
        cut.map(|bytes| (bytes, None)).ok_or_else(|| SumdbError::refused(format!("{named} is not part of its own proof")))
    }

    /// A tile of records, held against the tile of their hashes.
    async fn fetch_data(&self, named: Named, index: u64, cached_only: bool) -> Result<Lasting, SumdbError> {
        let name = named.to_string();
        if let Some(bytes) = self.get(&name, MAX_DATA).await {
            return Ok((bytes, None));
        }
        let tile = Tile { level: 0, index };
        let (hashes, lasting) = self.fetch_tile(Named { kind: Kind::Hashes(tile), ..named }, tile, cached_only).await?;
        let (bytes, _) = self.pass_on(&name, MAX_DATA).await?;
        let mut rest = &bytes[..];
        for hash in tile::hashes(&hashes) {
            // The records' numbers, which other answers have in front of them, follow from the tile's place.
            let record = record::take_text(rest).filter(|(text, _)| Hash::of_record(text.as_bytes()) == hash);
            rest = record.ok_or_else(|| SumdbError::refused(format!("{name} does not hold the records of its tree")))?.1;
        }
        if !rest.is_empty() {
            return Err(SumdbError::refused(format!("{name} holds more than the records of its tree")));
        }
        // A partial one is soon the beginning of another.
        if lasting.is_none() && named.width == FULL {
            self.put(&name, &bytes).await;
        }
        Ok((bytes, lasting))
    }

    /// What the first server gives that has it.
    async fn pass_on(&self, path: &str, limit: u64) -> Result<Lasting, SumdbError> {
        let mut troubles = Troubles::default();
        for source in in_order(&self.sources) {
            match source.get(path, limit).await {
                Ok(bytes) => return Ok((bytes, Some(Duration::ZERO))),
                Err(trouble) => troubles.add(trouble),
            }
        }
        Err(troubles.verdict())
    }

    async fn get(&self, name: &str, limit: u64) -> Option<Bytes> {
        let (shelf, name) = (self.shelf.clone(), name.to_owned());
        let store = Arc::clone(shelf.store());
        store.look(move |look| shelf.read(&name, limit, look)).await.unwrap_or_else(|e| {
            tracing::warn!(error = %e, "what was kept of the checksum database cannot be read");
            None
        })
    }

    async fn put(&self, name: &str, bytes: &Bytes) {
        let (shelf, name, bytes) = (self.shelf.clone(), name.to_owned(), bytes.clone());
        let written = tokio::task::spawn_blocking(move || shelf.write(&name, &bytes, Durable::No)).await;
        if let Ok(Err(e)) = written {
            tracing::warn!(error = %e, "an answer of the checksum database cannot be kept");
        }
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("name", &self.name).field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// The path of a look-up, which is its file's too.
fn lookup_path(version: &ModuleVersion) -> String {
    format!("lookup/{}@{}", version.module.escaped(), version.version.escaped())
}

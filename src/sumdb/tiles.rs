//! The tiles that are known, in memory and on disk, and proofs by them: what is missing is fetched, what proves nothing is fetched
//! anew from the next server.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::SumdbError;
use super::source::{Source, Troubles, in_order};
use super::tile::{self, FULL, Mismatch, Tile};
use super::tree::{Coord, Hash, Head};
use crate::store::memory::Weigh;
use crate::store::{Durable, Look, Memory, Shelf};

/// The bytes of tiles in memory.
const MEMORY: u64 = 8 << 20;
/// The bytes of a full tile.
const TILE_BYTES: u64 = FULL * 32;
/// Tiles that are fetched at once.
const AT_ONCE: usize = 8;

/// The widest form of a tile that is known.
struct Widest(Bytes);

impl Weigh for Widest {
    fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// Proven tiles.
pub(super) struct Tiles {
    shelf: Shelf,
    memory: Memory<Widest>,
}

/// Hashes that are proven under a head, with the tiles that do it, and which of them came for it and are not kept yet.
pub(super) struct Proof {
    pub(super) hashes: Vec<Hash>,
    pub(super) tiles: BTreeMap<Tile, Bytes>,
    fresh: HashSet<Tile>,
}

impl Tiles {
    pub(super) fn new(shelf: Shelf) -> Self {
        Self { shelf, memory: Memory::new(MEMORY) }
    }

    /// The form of a tile with so many hashes, where it has been proven since the start.
    pub(super) fn proven(&self, tile: Tile, width: u64) -> Option<Bytes> {
        self.memory.get(&tile.path(FULL)).and_then(|widest| tile::cut(&widest.0, width))
    }

    /// The forms of these tiles that have at least so many hashes, cut to that. Those from the disk prove nothing yet.
    async fn find(&self, wanted: &[(Tile, u64)]) -> BTreeMap<Tile, Bytes> {
        let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
        for (tile, width) in wanted {
            match self.proven(*tile, *width) {
                Some(bytes) => drop(found.insert(*tile, bytes)),
                None => missing.push((*tile, *width)),
            }
        }
        if !missing.is_empty() {
            let shelf = self.shelf.clone();
            let read =
                move || missing.into_iter().filter_map(|(tile, width)| Some((tile, width, read(&shelf, tile, width)?))).collect();
            let read: Vec<_> = tokio::task::spawn_blocking(read).await.unwrap_or_default();
            for (tile, width, bytes) in read {
                found.extend(tile::cut(&bytes, width).map(|cut| (tile, cut)));
            }
        }
        found
    }

    fn remember(&self, tile: Tile, bytes: &Bytes) {
        let name = tile.path(FULL);
        if self.memory.get(&name).is_none_or(|known| known.0.len() <= bytes.len()) {
            self.memory.put(&name, std::sync::Arc::new(Widest(bytes.clone())));
        }
    }

    /// Takes a proof's tiles for proven and keeps those that came for it: its head is of the history. On disk the partial forms of a
    /// full tile go.
    pub(super) async fn keep(&self, proof: &Proof) {
        for (tile, bytes) in &proof.tiles {
            self.remember(*tile, bytes);
        }
        if proof.fresh.is_empty() {
            return;
        }
        let fresh: Vec<_> = proof.tiles.iter().filter(|(t, _)| proof.fresh.contains(t)).map(|(t, b)| (*t, b.clone())).collect();
        let shelf = self.shelf.clone();
        let keep = move || {
            for (tile, bytes) in fresh {
                let width = tile::width_of(&bytes);
                // What was not kept is fetched again.
                if let Err(e) = shelf.write(&tile.path(width), &bytes, Durable::No) {
                    tracing::warn!(error = %e, "a tile of the checksum database cannot be kept");
                }
                let partial = format!("{}.p", tile.path(FULL));
                for name in shelf.names(&partial) {
                    if name.parse::<u64>().is_ok_and(|narrower| narrower < width) {
                        shelf.remove(&format!("{partial}/{name}"));
                    }
                }
            }
        };
        // Nobody waits for what this says.
        let _ = tokio::task::spawn_blocking(keep).await;
    }

    /// Proves hashes under a head, by tiles that are known and, where `sources` are given, by those that they have.
    pub(super) async fn prove(&self, head: &Head, wanted: &[Coord], sources: &[Source]) -> Result<Proof, SumdbError> {
        let plan = tile::plan(head.size, wanted).ok_or_else(|| {
            SumdbError::refused(format!("it speaks of a place past the end of its tree of {} records", head.size))
        })?;
        let width = |tile: &Tile| tile.width_in(head.size);
        let mut tiles = self.find(&plan.iter().map(|t| (*t, width(t))).collect::<Vec<_>>()).await;
        let sources = in_order(sources);
        let mut fresh: HashMap<Tile, usize> = HashMap::new();
        let mut next: HashMap<Tile, usize> = HashMap::new();
        loop {
            let missing: Vec<Tile> = plan.iter().filter(|t| !tiles.contains_key(t)).copied().collect();
            let fetch = |tile: Tile| {
                let (from, sources) = (next.get(&tile).copied().unwrap_or(0), &sources);
                async move { (tile, fetch(tile, width(&tile), sources, from).await) }
            };
            let mut fetching = stream::iter(missing.into_iter().map(fetch)).buffer_unordered(AT_ONCE);
            while let Some((tile, fetched)) = fetching.next().await {
                let (bytes, by) = fetched?;
                tiles.insert(tile, bytes);
                fresh.insert(tile, by);
            }
            drop(fetching);
            match tile::check(head, wanted, &plan, &tiles) {
                Ok(hashes) => {
                    return Ok(Proof { hashes, tiles, fresh: fresh.into_keys().collect() });
                }
                Err(Mismatch(bad)) => {
                    // Where a cached one may be at fault it is that which is had again first.
                    let cached: HashSet<Tile> = bad.iter().filter(|t| !fresh.contains_key(t)).copied().collect();
                    for tile in bad {
                        if let Some(by) = fresh.get(&tile).filter(|_| cached.is_empty()) {
                            next.insert(tile, by + 1);
                        } else if !cached.contains(&tile) {
                            continue;
                        }
                        tiles.remove(&tile);
                        fresh.remove(&tile);
                    }
                }
            }
        }
    }
}

/// Fetches a tile from the first server that has it, from this one on, and says which it was.
async fn fetch(tile: Tile, width: u64, sources: &[&Source], from: usize) -> Result<(Bytes, usize), SumdbError> {
    if sources.is_empty() {
        return Err(SumdbError::NotCached);
    }
    if from >= sources.len() {
        // All that there are gave one, and none of them proves anything.
        return Err(SumdbError::refused(format!("{} does not fit the signed tree", tile.path(width))));
    }
    let mut troubles = Troubles::default();
    for (n, source) in sources.iter().enumerate().skip(from) {
        let mut said = source.get(&tile.path(width), TILE_BYTES).await;
        if width < FULL && !matches!(&said, Ok(bytes) if tile::is_whole(bytes, width)) {
            // The tile has become full, and its server has removed the partial form.
            let full = source.get(&tile.path(FULL), TILE_BYTES).await;
            if let Some(cut) = full.ok().and_then(|bytes| tile::cut(&bytes, width)) {
                said = Ok(cut);
            }
        }
        match said {
            Ok(bytes) if tile::is_whole(&bytes, width) => return Ok((bytes, n)),
            Ok(bytes) => {
                let why = format!("{} is {} bytes long", tile.path(width), bytes.len());
                troubles.refuse(source.name(), SumdbError::refused(why));
            }
            Err(trouble) => troubles.add(trouble),
        }
    }
    Err(match troubles.verdict() {
        SumdbError::Absent => SumdbError::Unreachable { why: format!("nobody has {}", tile.path(width)).into(), timed_out: false },
        other => other,
    })
}

/// Reads the smallest form of a tile on disk that has so many hashes. Blocks.
pub(super) fn read(shelf: &Shelf, tile: Tile, width: u64) -> Option<Bytes> {
    let read = |path: &str| {
        shelf.read(path, TILE_BYTES, Look::Full).ok().flatten().filter(|b| b.len() as u64 >= width * 32 && b.len() % 32 == 0)
    };
    read(&tile.path(FULL)).or_else(|| {
        let partial = format!("{}.p", tile.path(FULL));
        let widths = shelf.names(&partial).into_iter().filter_map(|name| name.parse::<u64>().ok());
        read(&tile.path(widths.filter(|w| *w >= width && *w < FULL).min()?))
    })
}

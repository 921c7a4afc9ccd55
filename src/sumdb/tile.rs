//! Tiles: the tree cut into pieces of 256 hashes, and what of them proves a hash under a tree head
//! (`golang.org/x/mod/sumdb/tlog`).
//!
//! A full tile never changes. The last one of a level is partial and grows; every shorter form of it is its beginning.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use bytes::Bytes;

use super::tree::{Coord, Hash, Head, parts, root_of};

/// The levels of the tree that one level of tiles spans.
const HEIGHT: u32 = 8;
/// The hashes of a full tile.
pub const FULL: u64 = 1 << HEIGHT;
/// The bytes of a hash.
const HASH_BYTES: usize = 32;
/// Tiles of a higher level no tree has.
const LEVELS: u32 = 64 / HEIGHT;

/// One tile, whatever its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// Its level: its hashes are those of the tree's level of eight times that number.
    pub level: u32,
    /// Its place in the level, from 0.
    pub index: u64,
}

impl Tile {
    /// The tile that holds a hash, or the hashes that it is made of.
    pub fn of(coord: Coord) -> Self {
        Self { level: coord.level / HEIGHT, index: coord.index >> (HEIGHT - coord.level % HEIGHT) }
    }

    /// How many hashes it has in a tree of this size.
    pub fn width_in(self, size: u64) -> u64 {
        (size >> (self.level * HEIGHT)).saturating_sub(self.index << HEIGHT).min(FULL)
    }

    /// The tile that holds this one's own hash.
    fn parent(self) -> Self {
        Self { level: self.level + 1, index: self.index >> HEIGHT }
    }

    /// The name of a form of it, below the database's URL.
    pub fn path(self, width: u64) -> String {
        Named { kind: Kind::Hashes(self), width }.to_string()
    }
}

/// What a tile's name names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A tile of hashes.
    Hashes(Tile),
    /// The records that a tile of level 0 has the hashes of, by its place.
    Data(u64),
}

/// A tile with its width, as it is asked for: `tile/8/0/x001/234.p/57`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// What it is.
    pub kind: Kind,
    /// The number of its hashes or records.
    pub width: u64,
}

impl Named {
    /// Reads a name; `None` where it is none, or not written as it has to be (`tlog.ParseTilePath`, for tiles of height 8).
    pub fn parse(path: &str) -> Option<Self> {
        let (level, rest) = path.strip_prefix("tile/8/")?.split_once('/')?;
        let plain = |digits: &str| -> Option<u64> {
            let few = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse().ok().filter(|_| few)
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, plain(width).filter(|w| (1..FULL).contains(w))?),
            None => (rest, FULL),
        };
        let index = index.split('/').try_fold(0_u64, |index, group| {
            let group = plain(group.strip_prefix('x').unwrap_or(group))?;
            index.checked_mul(1000)?.checked_add(group).filter(|n| *n <= u64::MAX >> HEIGHT)
        })?;
        let kind = match level {
            "data" => Kind::Data(index),
            level => Kind::Hashes(Tile { level: u32::try_from(plain(level)?).ok().filter(|l| *l < LEVELS)?, index }),
        };
        let named = Self { kind, width };
        (named.to_string() == path).then_some(named)
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = match self.kind {
            Kind::Hashes(Tile { level, index }) => {
                write!(f, "tile/8/{level}/")?;
                index
            }
            Kind::Data(index) => {
                f.write_str("tile/8/data/")?;
                index
            }
        };
        let (mut groups, mut rest) = (vec![index % 1000], index / 1000);
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for group in groups[1..].iter().rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups[0])?;
        if self.width < FULL { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// How many hashes a tile's bytes are.
pub fn width_of(bytes: &[u8]) -> u64 {
    (bytes.len() / HASH_BYTES) as u64
}

/// Whether so many bytes are a tile of this width.
pub fn is_whole(bytes: &[u8], width: u64) -> bool {
    bytes.len() as u64 == width * HASH_BYTES as u64
}

/// The beginning of a tile, of this width.
pub fn cut(bytes: &Bytes, width: u64) -> Option<Bytes> {
    let length = usize::try_from(width).ok()? * HASH_BYTES;
    (bytes.len() >= length).then(|| bytes.slice(..length))
}

/// The hashes of a tile.
pub fn hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks().0.iter().map(|hash| Hash(*hash)).collect()
}

/// The tiles that prove these hashes in a tree of this size, in the order in which they prove each other: first those at its right
/// edge, which make its root, then each after the tile that holds its hash. `None` where a hash is not in the tree.
pub fn plan(size: u64, wanted: &[Coord]) -> Option<Vec<Tile>> {
    let mut tiles = Vec::new();
    for tile in parts(size).into_iter().map(Tile::of) {
        if !tiles.contains(&tile) {
            tiles.push(tile);
        }
    }
    for coord in wanted {
        if coord.index >= size.checked_shr(coord.level).unwrap_or(0) {
            return None;
        }
        let (mut chain, mut tile) = (Vec::new(), Tile::of(*coord));
        while !tiles.contains(&tile) {
            chain.push(tile);
            tile = tile.parent();
        }
        tiles.extend(chain.into_iter().rev());
    }
    Some(tiles)
}

/// Tiles that do not prove what they should. Which of several it is cannot always be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch(pub Vec<Tile>);

/// The hashes that are wanted, proven by the tiles of their [`plan`].
///
/// # Errors
/// Tiles that are missing, or not those of this tree.
pub fn check(head: &Head, wanted: &[Coord], plan: &[Tile], tiles: &BTreeMap<Tile, Bytes>) -> Result<Vec<Hash>, Mismatch> {
    let hashes = |tile: Tile| match tiles.get(&tile) {
        Some(bytes) if is_whole(bytes, tile.width_in(head.size)) => Ok(hashes(bytes)),
        _ => Err(Mismatch(vec![tile])),
    };
    let at = |coord: Coord| {
        let below = coord.level % HEIGHT;
        let from = usize::try_from((coord.index << below) % FULL).unwrap_or(0);
        let held = hashes(Tile::of(coord))?;
        held.get(from..from + (1 << below)).map(Hash::over).ok_or_else(|| Mismatch(vec![Tile::of(coord)]))
    };
    let edge = parts(head.size);
    let root = root_of(&edge.iter().map(|part| at(*part)).collect::<Result<Vec<_>, _>>()?);
    let at_edge: HashSet<Tile> = edge.into_iter().map(Tile::of).collect();
    if root != head.root {
        return Err(Mismatch(at_edge.into_iter().collect()));
    }
    for tile in plan.iter().filter(|tile| !at_edge.contains(tile)) {
        // It is full: only the last tile of a level is not, and that is at the edge.
        let own = Coord { level: (tile.level + 1) * HEIGHT, index: tile.index };
        if Hash::over(&hashes(*tile)?) != at(own)? {
            return Err(Mismatch(vec![*tile]));
        }
    }
    wanted.iter().map(|coord| at(*coord)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        let hashes = |level, index, width| Some(Named { kind: Kind::Hashes(Tile { level, index }), width });
        assert_eq!(Named::parse("tile/8/0/x001/x234/067"), hashes(0, 1_234_067, 256));
        assert_eq!(Named::parse("tile/8/2/000.p/3"), hashes(2, 0, 3));
        assert_eq!(Named::parse("tile/8/data/001"), Some(Named { kind: Kind::Data(1), width: 256 }));
        for bad in [
            "tile/8/0/1",
            "tile/8/0/x001/1",
            "tile/8/0/x000/001",
            "tile/8/0/001.p/0",
            "tile/8/0/001.p/256",
            "tile/8/0/001.p/01",
            "tile/4/0/001",
            "tile/8/00/001",
            "tile/8/8/001",
            "tile/8/0/",
            "tile/8/0/../001",
            "tile/8/0/+01",
            "tile/8/-1/001",
            "tile/8/0/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(Named::parse(bad), None, "{bad}");
        }
    }

    /// A whole tree, the plain way.
    struct Whole(Vec<Vec<Hash>>);

    impl Whole {
        fn of(size: u64) -> Self {
            let mut levels = vec![(0..size).map(|n| Hash::of_record(n.to_string().as_bytes())).collect::<Vec<_>>()];
            while let Some(above) = levels.last().filter(|l| l.len() > 1).map(|l| l.chunks_exact(2).map(Hash::over).collect()) {
                levels.push(above);
            }
            Self(levels)
        }

        fn head(&self) -> Head {
            let size = self.0[0].len() as u64;
            let hash = |part: &Coord| self.0[part.level as usize][usize::try_from(part.index).expect("small")];
            Head { size, root: root_of(&parts(size).iter().map(hash).collect::<Vec<_>>()) }
        }

        fn tile(&self, tile: Tile) -> Bytes {
            let hashes = self.0.get((tile.level * HEIGHT) as usize).map_or(&[][..], |l| l);
            let from = usize::try_from(tile.index << HEIGHT).expect("small");
            hashes[from..(from + 256).min(hashes.len())].iter().flat_map(|h| h.0).collect::<Vec<u8>>().into()
        }
    }

    /// The hash of a tree, by its definition.
    fn plain(hashes: &[Hash]) -> Hash {
        match hashes.len() {
            0 | 1 => Hash::over(hashes),
            n => {
                let (left, right) = hashes.split_at(n.next_power_of_two() / 2);
                Hash::of_node(&plain(left), &plain(right))
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10))]

        #[test]
        fn what_is_in_a_tree_is_proven_and_nothing_else(size in prop_oneof![1_u64..600, 65_000_u64..67_000], at in any::<u64>(), flip in any::<u64>()) {
            let (whole, at) = (Whole::of(size), at % size);
            let (head, wanted) = (whole.head(), [Coord { level: 0, index: at }]);
            let plan = plan(size, &wanted).expect("inside");
            let mut tiles: BTreeMap<Tile, Bytes> = plan.iter().map(|t| (*t, whole.tile(*t))).collect();
            prop_assert_eq!(check(&head, &wanted, &plan, &tiles), Ok(vec![Hash::of_record(at.to_string().as_bytes())]));
            // One bit of one tile.
            let tile = plan[usize::try_from(flip).unwrap_or(0) % plan.len()];
            let mut bytes = tiles[&tile].to_vec();
            let place = usize::try_from(flip >> 8).unwrap_or(0) % bytes.len();
            bytes[place] ^= 1;
            tiles.insert(tile, bytes.into());
            let bad = check(&head, &wanted, &plan, &tiles).expect_err("it proves nothing");
            prop_assert!(bad.0.contains(&tile));
        }

        #[test]
        fn an_earlier_tree_is_the_beginning_of_a_later_one(size in 2_u64..70_000, before in any::<u64>()) {
            let (whole, before) = (Whole::of(size), before % size);
            let wanted = parts(before);
            let plan = plan(size, &wanted).expect("inside");
            let tiles = plan.iter().map(|t| (*t, whole.tile(*t))).collect();
            let hashes = check(&whole.head(), &wanted, &plan, &tiles).expect("proven");
            let small = Head { size: before, root: root_of(&hashes) };
            let earlier: Vec<Hash> = whole.0[0][..usize::try_from(before).expect("small")].to_vec();
            prop_assert_eq!(small.root, plain(&earlier));
        }

        #[test]
        fn names_are_read_back(level in 0_u32..8, index in any::<u64>(), width in 1_u64..=256) {
            let named = Named { kind: Kind::Hashes(Tile { level, index: index >> 8 }), width };
            prop_assert_eq!(Named::parse(&named.to_string()), Some(named));
        }

        #[test]
        fn nothing_panics(path in "tile/8/\\PC{0,40}", text in "\\PC{0,40}") {
            let _ = (Named::parse(&path), Named::parse(&text));
        }
    }
}

//! Trees, the tiles that they are cut into, and what these prove, as `golang.org/x/mod/sumdb/tlog` has it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use modgate::sumdb::note;
use modgate::sumdb::record::Record;
use modgate::sumdb::tile::{self, Named, Tile};
use modgate::sumdb::tree::{Coord, Hash, Head, parts, root_of};
use serde::Deserialize;

use crate::helpers::output_of;

use super::database::{Database, pads, xsumdb};

#[derive(Deserialize)]
struct Proof {
    size: u64,
    hash: String,
    tiles: BTreeSet<String>,
    leaves: BTreeMap<u64, String>,
}

impl Proof {
    fn head(&self) -> Head {
        Head::parse(&format!("go.sum database tree\n{}\n{}\n", self.size, self.hash)).unwrap()
    }
}

/// What tlog says of trees of made-up records, by their sizes in rising order.
fn proofs(sizes: &[u64]) -> Vec<Proof> {
    let mut command = xsumdb();
    command.arg("proofs").args(sizes.iter().map(u64::to_string));
    output_of(command, b"").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const SIZES: &[u64] =
    &[0, 1, 2, 3, 7, 8, 100, 255, 256, 257, 300, 511, 512, 513, 1000, 65_535, 65_536, 65_537, 65_793, 66_000, 70_000];

#[test]
fn a_tree_has_the_tiles_that_tlog_would_publish() {
    for proof in proofs(SIZES) {
        let mut ours = BTreeSet::new();
        for level in 0..8 {
            let tiles = (0..).map(|index| Tile { level, index }).map(|tile| (tile, tile.width_in(proof.size)));
            ours.extend(tiles.take_while(|(_, width)| *width > 0).map(|(tile, width)| tile.path(width)));
        }
        assert_eq!(ours, proof.tiles, "{}", proof.size);
        for name in &proof.tiles {
            assert_eq!(Named::parse(name).map(|named| named.to_string()).as_ref(), Some(name));
        }
        for (record, name) in &proof.leaves {
            let tile = Tile::of(Coord { level: 0, index: *record });
            assert_eq!(tile.path(tile.width_in(proof.size)), *name, "{record} of {}", proof.size);
        }
    }
}

/// The tiles of a plan, as a database of the largest tree gives them.
struct Giver {
    database: Database,
    given: HashMap<String, Bytes>,
}

impl Giver {
    fn tiles(&mut self, size: u64, plan: &[Tile]) -> BTreeMap<Tile, Bytes> {
        let mut tile = |tile: &Tile| {
            let path = tile.path(tile.width_in(size));
            let database = &self.database;
            let bytes = self.given.entry(path.clone()).or_insert_with(|| {
                let answer = database.get(&format!("/{path}"));
                assert_eq!(answer.status, 200, "{path} in a tree of {size}");
                answer.body.into()
            });
            (*tile, bytes.clone())
        };
        plan.iter().map(&mut tile).collect()
    }
}

#[test]
fn tiles_prove_what_tlog_says_is_in_the_tree_and_nothing_else() {
    let all = proofs(SIZES);
    let database = Database::start(70_000, &[]);
    let mut giver = Giver { database, given: HashMap::new() };
    for proof in all.iter().filter(|p| p.size > 0) {
        let head = proof.head();
        // Records, by what their text is.
        for &record in proof.leaves.keys() {
            let wanted = [Coord { level: 0, index: record }];
            let plan = tile::plan(proof.size, &wanted).unwrap();
            let tiles = giver.tiles(proof.size, &plan);
            let name = pads(&[usize::try_from(record).unwrap()]).remove(0);
            let answer = giver.database.get(&format!("/lookup/{name}")).body;
            let text = Record::parse(&answer).unwrap();
            assert_eq!(text.number, record);
            assert_eq!(tile::check(&head, &wanted, &plan, &tiles), Ok(vec![Hash::of_record(text.text.as_bytes())]));
            // Under the head of another tree they prove nothing.
            let other = Head { root: Hash::of_record(b"other"), ..head };
            assert!(tile::check(&other, &wanted, &plan, &tiles).is_err());
            // Nor with a bit of one of them changed.
            for tile in &plan {
                let mut bytes = tiles[tile].to_vec();
                let at = bytes.len() / 2;
                bytes[at] ^= 1;
                let mut tiles = tiles.clone();
                tiles.insert(*tile, bytes.into());
                assert!(tile::check(&head, &wanted, &plan, &tiles).is_err(), "{record} of {}", proof.size);
            }
        }
        assert_eq!(tile::plan(proof.size, &[Coord { level: 0, index: proof.size }]), None);
        // Every smaller tree is its beginning.
        for older in all.iter().filter(|older| older.size <= proof.size) {
            let wanted = parts(older.size);
            let plan = tile::plan(proof.size, &wanted).unwrap();
            let hashes = tile::check(&head, &wanted, &plan, &giver.tiles(proof.size, &plan)).unwrap();
            assert_eq!(root_of(&hashes).to_string(), older.hash, "{} in {}", older.size, proof.size);
        }
    }
}

#[test]
fn the_head_that_a_database_signs_is_the_trees() {
    let database = Database::start(1000, &[]);
    let key = note::Verifier::parse(&database.key).unwrap();
    let latest = database.get("/latest").body;
    let head = Head::parse(note::open(&latest, &key).unwrap()).unwrap();
    assert_eq!(Some(head), proofs(&[1000]).first().map(Proof::head));
}

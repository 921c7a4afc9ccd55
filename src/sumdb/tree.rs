//! The tree of all records: its hashes, its signed heads, and where a hash stands in it (RFC 6962 §2.1,
//! `golang.org/x/mod/sumdb/tlog`).

use std::fmt;

use base64::Engine;
use sha2::{Digest, Sha256};

use crate::module::sum::BASE64;

/// A hash of a record or of a part of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of a record's text.
    pub fn of_record(text: &[u8]) -> Self {
        Self(Sha256::new().chain_update([0]).chain_update(text).finalize().into())
    }

    /// The hash of two parts of a tree, side by side.
    pub fn of_node(left: &Self, right: &Self) -> Self {
        Self(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
    }

    /// The hash over a whole number of neighbours of one level, a power of two of them.
    pub(super) fn over(hashes: &[Self]) -> Self {
        match hashes {
            [] => Self(Sha256::digest([]).into()),
            [one] => *one,
            many => {
                let (left, right) = many.split_at(many.len() / 2);
                Self::of_node(&Self::over(left), &Self::over(right))
            }
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A tree head: how many records the tree has, and the hash over all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// The number of records.
    pub size: u64,
    /// The tree's hash.
    pub root: Hash,
}

/// Larger than any tree: sizes and places are whole numbers of 63 bits in x/mod.
const MAX_SIZE: u64 = i64::MAX.unsigned_abs();

impl Head {
    /// Reads the text of a tree head; `None` where it is none. Lines after the third are not minded.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.splitn(4, '\n');
        if lines.next() != Some("go.sum database tree") || text.len() > 1_000_000 {
            return None;
        }
        let size = number(lines.next()?)?;
        let root = BASE64.decode(lines.next()?).ok()?.try_into().ok()?;
        // The third line has an end.
        lines.next()?;
        Some(Self { size, root: Hash(root) })
    }
}

/// A decimal number without anything superfluous.
pub(super) fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|n| plain && *n <= MAX_SIZE)
}

/// Where a hash stands: level 0 are the records' own, each above is of two below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Coord {
    /// The level.
    pub level: u32,
    /// Its place in the level, from 0.
    pub index: u64,
}

/// The whole parts that a tree of this size is made of, from the left: one a bit of the size, the largest first.
pub fn parts(size: u64) -> Vec<Coord> {
    let mut before = 0;
    let levels = (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1);
    levels
        .map(|level| {
            let part = Coord { level, index: before >> level };
            before += 1 << level;
            part
        })
        .collect()
}

/// The tree's hash, of the hashes of its whole parts.
pub fn root_of(parts: &[Hash]) -> Hash {
    match parts.split_last() {
        None => Hash::over(&[]),
        Some((last, rest)) => rest.iter().rev().fold(*last, |right, left| Hash::of_node(left, &right)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let root = "dRgqg6bNjCv/HjgbQbR4FTQxb01x93qAiafZ4wW6HNI=";
        let head = |size: &str| Head::parse(&format!("go.sum database tree\n{size}\n{root}\n")).map(|h| h.size);
        assert_eq!(head("66385784"), Some(66_385_784));
        assert_eq!(head("0"), Some(0));
        for bad in ["", "01", "-1", "+1", "9223372036854775808", "1 "] {
            assert_eq!(head(bad), None, "{bad}");
        }
        assert_eq!(Head::parse(&format!("go.sum database tree\n1\n{root}")), None);
        assert!(Head::parse(&format!("go.sum database tree\n1\n{root}\nmore\n")).is_some());
    }

    #[test]
    fn parts_are_the_bits_of_a_size() {
        let coord = |level, index| Coord { level, index };
        assert_eq!(parts(0), []);
        assert_eq!(parts(7), [coord(2, 0), coord(1, 2), coord(0, 6)]);
        assert_eq!(parts(256), [coord(8, 0)]);
        assert_eq!(parts(258), [coord(8, 0), coord(1, 128)]);
    }
}

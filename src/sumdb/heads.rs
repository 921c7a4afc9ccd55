//! The newest tree head that was proven, kept on disk: it goes forward alone. A head that does not belong to its history is the
//! database's own signature under a lie; it is refused, and both are kept as evidence.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use base64::Engine;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::note::{self, Verifier};
use super::source::Source;
use super::tile;
use super::tiles::{Proof, Tiles};
use super::tree::{Head, parts, root_of};
use super::{OpenError, SumdbError};
use crate::module::sum::BASE64;
use crate::store::{Durable, Look, Shelf, StoreError};

/// The file of the kept head.
const LATEST: &str = "latest";
/// The largest signed tree head that is read.
pub(super) const MAX_HEAD: u64 = 64 << 10;
/// So many other heads that fit are remembered, so that they are not proven again.
const REMEMBERED: usize = 4096;
/// So many files of evidence are kept.
const MAX_EVIDENCE: usize = 100;

/// A head with the note that it came in.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) head: Head,
    pub(super) note: Bytes,
}

/// The history of one database.
pub(super) struct Heads {
    key: Verifier,
    shelf: Shelf,
    /// The newest head, and when it was last heard that it is.
    newest: Mutex<(Option<Signed>, Option<Instant>)>,
    fitting: Mutex<VecDeque<Head>>,
    /// Held while the newest is replaced.
    advancing: tokio::sync::Mutex<()>,
}

impl Heads {
    /// Takes up the head that was kept.
    pub(super) fn open(key: Verifier, shelf: Shelf) -> Result<Self, OpenError> {
        let kept = shelf.read(LATEST, MAX_HEAD, Look::Full)?;
        let kept = kept.map(|note| read(&key, &note).map_err(|e| OpenError::Damaged(shelf.root().join(LATEST), e.to_string())));
        let newest = Mutex::new((kept.transpose()?, None));
        Ok(Self { key, shelf, newest, fitting: Mutex::default(), advancing: tokio::sync::Mutex::default() })
    }

    pub(super) fn newest(&self) -> Option<Signed> {
        self.lock().0.clone()
    }

    /// When it was last heard that the newest is the newest.
    pub(super) fn confirmed(&self) -> Option<Instant> {
        self.lock().1
    }

    pub(super) fn confirm(&self) {
        self.lock().1 = Some(Instant::now());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Option<Signed>, Option<Instant>)> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a signed head.
    pub(super) fn read(&self, note: &Bytes) -> Result<Signed, SumdbError> {
        read(&self.key, note)
    }

    /// Takes a signed head in: it has to be of one history with the newest, which it replaces where it is newer. The newest, then.
    pub(super) async fn admit(&self, signed: Signed, by: &str, tiles: &Tiles, sources: &[Source]) -> Result<Signed, SumdbError> {
        loop {
            let newest = self.newest();
            if let Some(newest) = newest.as_ref().filter(|newest| signed.head.size <= newest.head.size) {
                if signed.head != newest.head && !self.fits_already(&signed.head) {
                    self.prove(&signed, newest, by, tiles, sources).await?;
                }
                return Ok(newest.clone());
            }
            let _advancing = self.advancing.lock().await;
            if self.newest().map(|now| now.head) != newest.as_ref().map(|before| before.head) {
                continue;
            }
            if let Some(newest) = &newest {
                self.prove(newest, &signed, by, tiles, sources).await?;
            }
            // Another process may have gone on from the same head, and has to be of the same history.
            match self.advance(newest.as_ref(), signed.clone()).await? {
                Ok(()) => {}
                Err(other) => {
                    match &newest {
                        Some(newest) if other.head.size >= newest.head.size => {
                            self.prove(newest, &other, "another process", tiles, sources).await?;
                        }
                        Some(newest) => self.prove(&other, newest, "another process", tiles, sources).await?,
                        None => {}
                    }
                    if newest.is_none_or(|newest| other.head.size > newest.head.size) {
                        self.lock().0 = Some(other);
                    } else {
                        self.overwrite().await?;
                    }
                }
            }
        }
    }

    fn fits_already(&self, head: &Head) -> bool {
        self.fitting.lock().unwrap_or_else(PoisonError::into_inner).contains(head)
    }

    /// Proves that one tree is the beginning of another. Tiles are kept only where it is.
    async fn prove(&self, older: &Signed, newer: &Signed, by: &str, tiles: &Tiles, sources: &[Source]) -> Result<(), SumdbError> {
        let mut shown = String::new();
        let fits = if older.head.size == newer.head.size {
            older.head.root == newer.head.root
        } else {
            let proof = tiles.prove(&newer.head, &parts(older.head.size), sources).await?;
            let fits = root_of(&proof.hashes) == older.head.root;
            if fits {
                tiles.keep(&proof).await;
            } else {
                shown = misbehaviour(&older.head, &proof);
            }
            fits
        };
        if fits {
            let mut fitting = self.fitting.lock().unwrap_or_else(PoisonError::into_inner);
            if fitting.len() >= REMEMBERED {
                fitting.pop_front();
            }
            fitting.push_back(older.head);
            return Ok(());
        }
        let why = format!(
            "SECURITY: the database {} has signed two trees that are not of one history, of {} and of {} records",
            self.key.name(),
            older.head.size,
            newer.head.size
        );
        self.evidence(&why, by, older, newer, &shown);
        Err(SumdbError::Refused(why.into()))
    }

    /// Says that a server gives an older head for its newest: it was rolled back, or is a copy of the database from before. The kept
    /// head stays.
    pub(super) fn rolled_back(&self, to: &Signed, newest: &Signed, by: &str) {
        let why = format!(
            "SECURITY: the database {} has gone back, or this is a copy of it from before: its newest tree has {} records, and {} are known",
            self.key.name(),
            to.head.size,
            newest.head.size
        );
        self.evidence(&why, by, to, newest, "");
    }

    /// Puts evidence on disk, once for each pair of heads, and says so loudly.
    fn evidence(&self, why: &str, by: &str, older: &Signed, newer: &Signed, proof: &str) {
        let digest = Sha256::new().chain_update(&older.note).chain_update(&newer.note).finalize();
        let id = digest[..4].iter().fold(String::new(), |id, byte| format!("{id}{byte:02x}"));
        let name = format!("evidence/{}-{}-{id}.txt", older.head.size, newer.head.size);
        let known = self.shelf.names("evidence");
        if known.iter().any(|n| name.ends_with(n.as_str())) {
            tracing::warn!(server = by, evidence = %self.shelf.root().join(&name).display(), "again: {why}");
            return;
        }
        tracing::error!(server = by, evidence = %self.shelf.root().join(&name).display(), "{why}");
        if known.len() >= MAX_EVIDENCE {
            return;
        }
        let mut text = format!("{why}\nserver: {by}\ntime: {}\n\nthe older tree head:\n\n", jiff::Timestamp::now()).into_bytes();
        text.extend_from_slice(&older.note);
        text.extend_from_slice(b"\nthe newer tree head:\n\n");
        text.extend_from_slice(&newer.note);
        text.extend_from_slice(proof.as_bytes());
        if let Err(e) = self.shelf.write(&name, &text, Durable::Yes) {
            tracing::error!(error = %e, "evidence against the checksum database cannot be kept");
        }
    }

    /// Makes a proven head the newest, here and on disk, where the kept one is still that of before; else the kept one comes back.
    async fn advance(&self, before: Option<&Signed>, signed: Signed) -> Result<Result<(), Signed>, SumdbError> {
        let (key, before, next) = (self.key.clone(), before.map(|signed| signed.head), signed.clone());
        let written = self.with_lock(move |shelf| {
            let kept = shelf.read(LATEST, MAX_HEAD, Look::Full)?.and_then(|note| read(&key, &note).ok());
            match kept {
                Some(kept) if Some(kept.head) != before && kept.head != next.head => return Ok(Err(kept)),
                _ => shelf.write(LATEST, &next.note, Durable::Yes)?,
            }
            Ok(Ok(()))
        });
        let written = written.await?;
        if written.is_ok() {
            self.lock().0 = Some(signed);
        }
        Ok(written)
    }

    /// Writes the newest over a kept head that is older, and of its history.
    async fn overwrite(&self) -> Result<(), SumdbError> {
        let Some(newest) = self.newest() else { return Ok(()) };
        self.with_lock(move |shelf| shelf.write(LATEST, &newest.note, Durable::Yes)).await
    }

    async fn with_lock<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shelf) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, SumdbError> {
        let shelf = self.shelf.clone();
        let done = tokio::task::spawn_blocking(move || shelf.locked(|| work(&shelf))?);
        Ok(done.await.map_err(|e| SumdbError::refused(format!("keeping the tree head broke down: {e}")))??)
    }
}

/// What shows anybody that a tree of the older size in the newer tree is not the older tree: its hash there, and the tiles that prove
/// that under the newer head.
fn misbehaviour(older: &Head, proof: &Proof) -> String {
    let root = root_of(&proof.hashes);
    let mut text = format!("\nthe first {} records of the newer tree have the hash {root}, by these tiles of it:\n\n", older.size);
    for (tile, bytes) in &proof.tiles {
        text.extend([tile.path(tile::width_of(bytes)).as_str(), " ", &BASE64.encode(bytes), "\n"]);
    }
    text
}

/// Reads a signed head.
fn read(key: &Verifier, note: &Bytes) -> Result<Signed, SumdbError> {
    let text = note::open(note, key).map_err(|e| SumdbError::refused(format!("its tree head: {e}")))?;
    let head = Head::parse(text).ok_or_else(|| SumdbError::refused("what it signed is no tree head".into()))?;
    Ok(Signed { head, note: note.clone() })
}

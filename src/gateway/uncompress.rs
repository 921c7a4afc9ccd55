//! Kept zips written anew without compression, where `cache.uncompressed` says so.
//!
//! The go command unpacks each zip twice, for its sum and for its files, and inflating is most of what `go mod download` does
//! when what it asks for is near. What is in a zip is what counts (its sum is of that), not how it is packed.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Gateway;
use super::verify::{Ledger, Note};
use crate::base::units::show_size;
use crate::module::zip::{self, ZipError};
use crate::module::{Ask, ModuleVersion, Sum, unpacked};
use crate::store::{DiskStore, FileMark, Folder, Look, StoreError};

/// Why a zip stays as it was sent.
#[derive(Debug, thiserror::Error)]
enum UncompressError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be read, or its place not be written to.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// What was written is not the same.
    #[error("written without compression it has the sum {0}, not {1}")]
    Differs(Sum, Sum),
}

/// What writes kept zips anew, one at a time: nobody waits for it.
#[derive(Debug, Clone)]
pub(super) struct Uncompressing {
    store: Arc<DiskStore>,
    ledger: Ledger,
    turn: Arc<Semaphore>,
}

impl Uncompressing {
    pub(super) fn new(store: &Arc<DiskStore>) -> Self {
        Self { store: Arc::clone(store), ledger: Ledger::of(store), turn: Arc::new(Semaphore::new(1)) }
    }

    /// Writes a kept zip anew, where it is compressed. What it was like before and is now, where it was.
    pub(super) async fn one(self, folder: Folder, ask: Ask) -> Option<(FileMark, FileMark)> {
        let _turn = Arc::clone(&self.turn).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let Ask::Zip(version) = &ask else { return None };
            self.write_anew(&folder, &ask, version).unwrap_or_else(|e| {
                tracing::warn!(upstream = folder.name(), %ask, error = %e, "a zip stays as it was sent");
                None
            })
        });
        done.await.unwrap_or_else(|e| {
            tracing::error!(error = %e, "writing a zip without compression broke down");
            None
        })
    }

    fn write_anew(
        &self,
        folder: &Folder,
        ask: &Ask,
        version: &ModuleVersion,
    ) -> Result<Option<(FileMark, FileMark)>, UncompressError> {
        let mut noted = self.ledger.read(folder.name(), ask, Look::Full)?;
        let marks = folder.recast(ask, |before| {
            let again = || before.file.try_clone().map_err(ZipError::Io);
            let Some(packed) = unpacked::stay_packed(again()?, unpacked::LARGEST)? else { return Ok(None) };
            let spool = self.store.spool()?;
            let now = || spool.file().map_err(ZipError::Io);
            unpacked::write(again()?, version, &packed, now()?)?;
            // A note of another file says nothing of this one.
            noted = noted.take().filter(|note| note.file == Some(before.mark()));
            let wanted = noted.as_ref().map_or_else(|| Sum::of_zip(again()?, version), |note| Ok(note.checked.sum))?;
            zip::check(now()?, version)?;
            match Sum::of_zip(now()?, version)? {
                sum if sum == wanted => Ok(Some(spool)),
                sum => Err(UncompressError::Differs(sum, wanted)),
            }
        })?;
        if let (Some((_, now)), Some(note)) = (marks, noted) {
            self.ledger.write(folder.name(), ask, &Note { file: Some(now), ..note })?;
        }
        Ok(marks)
    }
}

impl Gateway {
    /// Writes all kept zips anew that are compressed, where that is wanted.
    pub async fn uncompress_all(self: &Arc<Self>) {
        let Some(uncompressing) = &self.uncompressing else { return };
        let (mut zips, mut before, mut after) = (0, 0, 0);
        for member in (0..self.members.len()).filter(|n| self.members[*n].folder.is_writable()) {
            let this = Arc::clone(self);
            let kept = match tokio::task::spawn_blocking(move || this.kept(member)).await {
                Ok(Ok(kept)) => kept,
                Ok(Err(e)) => {
                    tracing::error!(error = %e, "the kept zips cannot be found");
                    continue;
                }
                Err(e) => {
                    tracing::error!(error = %e, "looking for the kept zips broke down");
                    continue;
                }
            };
            for ask in kept {
                if let Some((was, is)) = uncompressing.clone().one(self.members[member].folder.clone(), ask).await {
                    (zips, before, after) = (zips + 1, before + was.length, after + is.length);
                }
            }
        }
        if zips > 0 {
            let (before, after) = (show_size(before), show_size(after));
            tracing::info!(zips, before, after, "kept zips were written anew without compression");
        }
    }
}

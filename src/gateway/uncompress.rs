//! Kept zips written anew without compression, where `cache.uncompressed` says so.
//!
//! The go command unpacks each zip twice, for its sum and for its files, and inflating is most of what `go mod download` does
//! when what it asks for is near. What is in a zip is what counts (its sum is of that), not how it is packed.
//!
//! A serving modgate's upkeep does it, one zip at a time: those that were kept when it begins, then those that come.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use super::verify::{Ledger, Note};
use super::{Gateway, Member};
use crate::base::units::show_size;
use crate::module::unpacked::{LARGEST, Unpacking};
use crate::module::zip::{self, ZipError};
use crate::module::{Ask, ModuleVersion, Sum};
use crate::store::{DiskStore, FileMark, Folder, Look, StoreError, evict};

/// So many zips that were just kept wait for their turn. Of more, those that are left are found when all are looked at again.
const WAITING: usize = 4096;

/// Why a zip stays as it was sent.
#[derive(Debug, thiserror::Error)]
enum UncompressError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The zip.
    #[error(transparent)]
    Zip(ZipError),
    /// Reading the one or writing the other.
    #[error("the zip cannot be read, or the new one not be written: {0}")]
    Io(#[from] io::Error),
    /// What was written is not the same.
    #[error("written without compression it has the sum {0}, not {1}")]
    Differs(Sum, Sum),
}

impl From<ZipError> for UncompressError {
    fn from(e: ZipError) -> Self {
        match e {
            ZipError::Io(e) => Self::Io(e),
            e => Self::Zip(e),
        }
    }
}

/// What became of a zip.
#[derive(Debug, Clone, Copy)]
enum Done {
    /// It was written anew. What it was like before and is now.
    Anew(FileMark, FileMark),
    /// It stays, or went meanwhile.
    AsItWas,
    /// There is no room for it.
    NoRoom,
}

/// The zips that were kept and wait for being written anew.
#[derive(Debug)]
pub(super) struct Fresh {
    sender: mpsc::Sender<(usize, Ask)>,
    receiver: Mutex<mpsc::Receiver<(usize, Ask)>>,
}

impl Fresh {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, receiver: Mutex::new(receiver) }
    }

    pub(super) fn push(&self, member: usize, ask: &Ask) {
        // Where too many wait already it is found later.
        let _ = self.sender.try_send((member, ask.clone()));
    }
}

/// Where a zip is written anew.
struct Place {
    store: Arc<DiskStore>,
    ledger: Ledger,
    folder: Folder,
    /// What its disk is to have left.
    min_free: u64,
    /// By so many bytes the cache may grow.
    growth: u64,
}

impl Place {
    /// Blocks.
    fn write_anew(&self, ask: &Ask, version: &ModuleVersion) -> Result<Done, UncompressError> {
        let name = self.folder.name();
        let (mut room, mut sum) = (true, None);
        let marks = self.folder.recast(ask, |before| {
            let again = || before.file.try_clone();
            let Some(unpacking) = Unpacking::of(again()?, LARGEST)? else { return Ok(None) };
            let free = evict::free(self.store.root()).unwrap_or(u64::MAX);
            room = free >= unpacking.length.saturating_add(self.min_free)
                && self.growth >= unpacking.length.saturating_sub(before.length);
            if !room {
                return Ok(None);
            }
            let spool = self.store.spool()?;
            unpacking.write(again()?, version, spool.file()?)?;
            // A note of another file says nothing of this one.
            let noted = self.ledger.read(name, ask, Look::Full)?.filter(|note| note.file == Some(before.mark()));
            let wanted = match noted {
                Some(note) => note.checked.sum,
                None => Sum::of_zip(again()?, version)?,
            };
            zip::check(spool.file()?, version)?;
            let written = Sum::of_zip(spool.file()?, version)?;
            sum = Some(written);
            if written == wanted { Ok(Some(spool)) } else { Err(UncompressError::Differs(written, wanted)) }
        })?;
        let Some((before, now)) = marks else { return Ok(if room { Done::AsItWas } else { Done::NoRoom }) };
        // What is noted may have changed meanwhile. Where this one is not noted, it is looked at when it is asked for.
        let noted = self.ledger.read(name, ask, Look::Full).and_then(|note| match note {
            Some(note) if note.file == Some(before) && Some(note.checked.sum) == sum => {
                self.ledger.write(name, ask, &Note { file: Some(now), ..note })
            }
            _ => Ok(()),
        });
        if let Err(e) = noted {
            tracing::warn!(upstream = name, %ask, error = %e, "the sum of a zip that was written anew could not be noted");
        }
        Ok(Done::Anew(before, now))
    }
}

impl Gateway {
    /// Writes a kept zip anew, where it is compressed and that is wanted; the cache may grow by so many bytes.
    async fn uncompress(&self, member: usize, ask: Ask, growth: u64) -> Done {
        let (Some(min_free), Ask::Zip(version)) = (self.settings.uncompressed, ask.clone()) else { return Done::AsItWas };
        // Eviction goes a little further than it has to; nothing is to grow into that again.
        let min_free = min_free.saturating_add(min_free / 4);
        let folder = self.members[member].folder.clone();
        let place = Place { store: Arc::clone(&self.store), ledger: self.ledger.clone(), folder, min_free, growth };
        let done = tokio::task::spawn_blocking(move || {
            place.write_anew(&ask, &version).unwrap_or_else(|e| {
                tracing::warn!(upstream = place.folder.name(), %ask, error = %e, "a zip stays as it was sent");
                Done::AsItWas
            })
        });
        done.await.unwrap_or_else(|e| {
            tracing::error!(error = %e, "writing a zip without compression broke down");
            Done::AsItWas
        })
    }

    /// Writes all kept zips anew that are compressed, where that is wanted, as long as `go_on` says so and there is room: old ones push
    /// nothing out of a cache of `max_size` bytes. Whether there were any.
    pub async fn uncompress_all(self: &Arc<Self>, max_size: Option<u64>, go_on: impl Fn() -> bool) -> bool {
        if self.settings.uncompressed.is_none() {
            return false;
        }
        let this = Arc::clone(self);
        let found = tokio::task::spawn_blocking(move || {
            let growth = match max_size {
                Some(most) => (most / 10 * 9).saturating_sub(evict::count(this.store.root(), &this.settings.expendable.beside)?),
                None => u64::MAX,
            };
            let keeps = |(n, member): (usize, &Member)| member.folder.is_writable().then_some(n);
            let mut zips = Vec::new();
            for member in this.members.iter().enumerate().filter_map(keeps) {
                zips.extend(this.kept(member)?.into_iter().filter(|ask| matches!(ask, Ask::Zip(_))).map(|ask| (member, ask)));
            }
            Ok::<_, StoreError>((growth, zips))
        });
        let (mut growth, zips) = match found.await {
            Ok(Ok(found)) => found,
            Ok(Err(e)) => {
                tracing::error!(error = %e, "the kept zips cannot be found");
                return false;
            }
            Err(e) => {
                tracing::error!(error = %e, "looking for the kept zips broke down");
                return false;
            }
        };
        let (mut anew, mut left, mut before, mut after) = (0, 0, 0, 0);
        for (member, ask) in zips {
            if !go_on() {
                break;
            }
            match self.uncompress(member, ask, growth).await {
                Done::Anew(was, is) => {
                    (anew, before, after) = (anew + 1, before + was.length, after + is.length);
                    growth = growth.saturating_sub(is.length.saturating_sub(was.length));
                }
                Done::AsItWas => {}
                Done::NoRoom => left += 1,
            }
        }
        if anew + left > 0 {
            let (before, after) = (show_size(before), show_size(after));
            tracing::info!(zips = anew, before, after, without_room = left, "kept zips were written anew without compression");
        }
        anew > 0
    }

    /// Waits so long for a zip that was just kept, and writes it anew where that is wanted.
    pub async fn uncompress_next(&self, patience: Duration) {
        let next = async { self.fresh.receiver.lock().await.recv().await };
        if let Ok(Some((member, ask))) = tokio::time::timeout(patience, next).await {
            self.uncompress(member, ask, u64::MAX).await;
        }
    }
}

//! Layer 3: where answers are kept.
//!
//! - [`disk`]: one folder an upstream, each in the layout of the module cache's download folder, so that it can be served
//!   as `GOPROXY=file://…` or filled by copying a developer's. A file appears by rename and never changes afterwards,
//!   save lists, `@latest` and queries, whose file time says when they were asked; a zip may give way to one with the same in it.
//! - [`spool`]: a file that grows while an upstream sends it, with any number of readers at their own pace.
//! - [`memory`]: small answers, bounded by their bytes.
//! - [`shelf`]: small files by name, beside the upstreams' folders.
//! - [`look`]: files are looked at where the kernel has them, else on a thread that may wait.
//! - [`evict`]: what goes when the disk bound is reached, least recently used first.

pub mod disk;
pub mod evict;
pub mod look;
pub mod memory;
pub mod shelf;
pub mod spool;

pub use disk::{DiskStore, FileMark, Folder, Stored};
pub use look::Look;
pub use memory::Memory;
pub use shelf::{Durable, Shelf};
pub use spool::{Progress, Spool, SpoolReader, Word};

/// Whether there is no room for something, on the disk or for whoever writes.
pub fn is_full(e: &std::io::Error) -> bool {
    matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Why something could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}: {source}")]
pub struct StoreError {
    /// What was being done.
    pub action: &'static str,
    /// With which file.
    pub path: String,
    /// What the system said.
    pub source: std::io::Error,
}

impl StoreError {
    pub(crate) fn new(action: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self { action, path: path.display().to_string(), source }
    }

    /// Whether nothing is wrong, but a [`Look::Glance`] was not enough.
    pub fn would_wait(&self) -> bool {
        self.source.kind() == std::io::ErrorKind::WouldBlock
    }
}

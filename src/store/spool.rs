//! A temporary file that grows while an upstream sends it, and its readers.
//!
//! One writer appends; any number of readers follow at their own pace, each holding no more than the piece it is sending.
//! Until the whole body has been checked the readers are held back by its last [`HOLD_BACK`] bytes, so that nobody
//! completes a bad file: a failure ends every reader with the same reason, and its client sees an aborted body.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::watch;

use super::StoreError;

/// How many bytes at the end of a body are kept from readers until it has been checked.
pub const HOLD_BACK: u64 = 64 << 10;

/// How far a spool has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes may be read.
    Growing(u64),
    /// It is whole and checked, and has so many bytes.
    Whole(u64),
    /// It will never be whole; the reason, for the log and for late readers.
    Failed(Arc<str>),
}

/// The writing end. Dropped before [`Spool::release`], it fails its readers, and its file goes.
#[derive(Debug)]
pub struct Spool {
    file: Arc<File>,
    path: TempPath,
    progress: watch::Sender<Progress>,
    word: Word,
    written: u64,
    length: Option<u64>,
    done: bool,
}

/// What is said of a file when it is whole; nothing before.
pub type Word = Arc<OnceLock<Arc<str>>>;

/// A temporary file's name; the file goes with it unless it was moved away.
#[derive(Debug)]
pub struct TempPath(Option<PathBuf>);

impl TempPath {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(Some(path))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// Moves the file to its place. Where that fails the file stays a temporary one.
    #[expect(clippy::disallowed_methods, reason = "the one place where a file gets its name")]
    pub(crate) fn persist(&mut self, to: &Path) -> io::Result<()> {
        std::fs::rename(self.path(), to)?;
        self.0 = None;
        Ok(())
    }

    /// The same for a name that is given once: where it has been taken meanwhile, the file under it stays. Whether this one has it.
    pub(crate) fn persist_once(&mut self, to: &Path) -> io::Result<bool> {
        match rustix::fs::renameat_with(rustix::fs::CWD, self.path(), rustix::fs::CWD, to, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.0 = None;
                Ok(true)
            }
            Err(rustix::io::Errno::EXIST) => Ok(false),
            // A file system that cannot do this.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !to.exists() => self.persist(to).map(|()| true),
            Err(e) => Err(e.into()),
        }
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It may be gone already; what is left over is swept at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Spool {
    pub(crate) fn new(file: File, path: TempPath) -> Self {
        Self {
            file: Arc::new(file),
            path,
            progress: watch::Sender::new(Progress::Growing(0)),
            word: Word::default(),
            written: 0,
            length: None,
            done: false,
        }
    }

    /// Announces the length to come. Then its end is known, and no more than that is held back; and a disk without room for it
    /// says so now, before anybody has been sent its beginning.
    ///
    /// # Errors
    /// That there is no room.
    pub fn announce(&mut self, length: Option<u64>) -> Result<(), StoreError> {
        self.length = length;
        let Some(length) = length.filter(|n| *n > 0) else { return Ok(()) };
        match rustix::fs::fallocate(&*self.file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, length) {
            Err(e @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => {
                Err(StoreError::new("make room for a zip in", self.path.path(), e.into()))
            }
            // A file system that cannot reserve finds out while writing.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The bytes that readers may have before the whole has been checked.
    pub fn visible(&self) -> u64 {
        match self.length {
            Some(length) => self.written.min(length.saturating_sub(HOLD_BACK)),
            None => self.written.saturating_sub(HOLD_BACK),
        }
    }

    /// A reader from the start.
    pub fn reader(&self) -> SpoolReader {
        SpoolReader { file: Arc::clone(&self.file), progress: self.progress.subscribe(), word: Arc::clone(&self.word) }
    }

    /// Appends to the file and tells the readers. Blocks on the disk.
    ///
    /// # Errors
    /// What the disk says.
    pub fn append(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        for piece in pieces {
            (&*self.file).write_all(piece)?;
            self.written += piece.len() as u64;
        }
        self.progress.send_replace(Progress::Growing(self.visible()));
        Ok(())
    }

    /// How many bytes there are.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// All its bytes, of a small one.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_all(&self) -> io::Result<Bytes> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; usize::try_from(self.written).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes.into())
    }

    /// The file itself, for checking it.
    ///
    /// # Errors
    /// What the system says.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Lets the readers have all of it, and says what it is.
    pub fn release(&mut self, word: Option<Arc<str>>) {
        self.done = true;
        if let Some(word) = word {
            // It is said once.
            let _ = self.word.set(word);
        }
        self.progress.send_replace(Progress::Whole(self.written));
    }

    /// Ends all readers with a reason.
    pub fn fail(mut self, reason: &str) {
        self.done = true;
        self.progress.send_replace(Progress::Failed(reason.into()));
    }

    pub(crate) fn into_parts(mut self) -> (Arc<File>, TempPath) {
        (Arc::clone(&self.file), std::mem::replace(&mut self.path, TempPath(None)))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.done {
            self.progress.send_replace(Progress::Failed("the fetch was abandoned".into()));
        }
    }
}

/// A reading end.
#[derive(Debug, Clone)]
pub struct SpoolReader {
    /// The growing file, to be read by offset.
    pub file: Arc<File>,
    /// How far it has come.
    pub progress: watch::Receiver<Progress>,
    /// What is said of it when it is whole.
    pub word: Word,
}

impl SpoolReader {
    /// Waits for the end of the file, and says how long it is then.
    ///
    /// # Errors
    /// The reason of a failed fetch.
    pub async fn ended(&mut self) -> Result<u64, Arc<str>> {
        let ended = self.progress.wait_for(|p| !matches!(p, Progress::Growing(_))).await.map(|p| p.clone());
        match ended {
            Ok(Progress::Whole(length)) => Ok(length),
            Ok(Progress::Failed(reason)) => Err(reason),
            Ok(Progress::Growing(_)) | Err(_) => Err("the fetch was abandoned".into()),
        }
    }

    /// Waits until there is something to read at `offset`, or the end.
    ///
    /// # Errors
    /// The reason of a failed fetch.
    pub async fn readable(&mut self, offset: u64) -> Result<Readable, Arc<str>> {
        loop {
            let now = match &*self.progress.borrow_and_update() {
                Progress::Growing(visible) if *visible > offset => Some(Readable::Bytes(visible - offset)),
                Progress::Growing(_) => None,
                Progress::Whole(total) if offset >= *total => Some(Readable::End),
                Progress::Whole(total) => Some(Readable::Bytes(total - offset)),
                Progress::Failed(reason) => return Err(Arc::clone(reason)),
            };
            if let Some(now) = now {
                return Ok(now);
            }
            if self.progress.changed().await.is_err() {
                // The writer is gone; what it said last counts.
                match &*self.progress.borrow() {
                    Progress::Growing(_) => return Err("the fetch was abandoned".into()),
                    Progress::Failed(reason) => return Err(Arc::clone(reason)),
                    Progress::Whole(_) => {}
                }
            }
        }
    }
}

/// What a reader may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readable {
    /// So many bytes from its offset.
    Bytes(u64),
    /// Nothing more: the body is complete.
    End,
}

//! The disk cache: atomic files in the module cache's download layout.
//!
//! Writes go to a temporary file of this process, are synced, and get their name by rename; a crash at any moment leaves
//! whole files or none. The temporary folder is locked while its process lives; at start, folders that nobody holds a lock
//! on are swept. All functions here block and belong on a blocking thread, save those that are told to glance.

use std::fs::{self, File, FileTimes, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::look::{self, Look};
use super::spool::TempPath;
use super::{Shelf, Spool, StoreError};
use crate::module::Ask;

/// The folder of temporary files, beside the upstreams' folders. No upstream's name starts with a dot.
pub(crate) const TEMP: &str = ".tmp";
/// The folder of files that are not what they have to be.
const ASIDE: &str = ".bad";
/// A file's time of last use is renewed when it is older than this.
const TOUCH_AFTER: Duration = Duration::from_secs(3000);

/// The whole cache of one process.
#[derive(Debug)]
pub struct DiskStore {
    root: PathBuf,
    temp: PathBuf,
    /// Held for the life of the process; its lock tells others that the temporary folder is in use.
    lock: Mutex<File>,
    next: AtomicU64,
    used: AtomicU64,
    /// The bytes that were ever added.
    added: watch::Sender<u64>,
    /// Told when there is no room for something.
    full: Notify,
    /// Whether files can be looked at without waiting for the disk.
    pub(super) glances: bool,
}

impl DiskStore {
    /// Opens the cache below `root`, makes what is missing, and sweeps what dead processes left.
    ///
    /// # Errors
    /// What could not be made or written, by name.
    pub fn open(root: &Path) -> Result<Arc<Self>, StoreError> {
        let temps = root.join(TEMP);
        fs::create_dir_all(&temps).map_err(|e| StoreError::new("make the cache folder", &temps, e))?;
        sweep(&temps);
        let mut last = None;
        for attempt in 0..100_u32 {
            let temp = temps.join(format!("{}-{attempt}", std::process::id()));
            match fs::create_dir(&temp) {
                Ok(()) => {
                    let lock = Mutex::new(lock_folder(&temp)?);
                    return Ok(Arc::new(Self {
                        root: root.to_owned(),
                        temp,
                        lock,
                        next: AtomicU64::new(0),
                        used: AtomicU64::new(0),
                        added: watch::Sender::new(0),
                        full: Notify::new(),
                        glances: look::glances(root),
                    }));
                }
                Err(e) => last = Some(StoreError::new("make the folder of temporary files", &temp, e)),
            }
        }
        Err(last
            .unwrap_or_else(|| StoreError::new("make the folder of temporary files", &temps, io::ErrorKind::AlreadyExists.into())))
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of this process's temporary files.
    pub fn temp(&self) -> &Path {
        &self.temp
    }

    /// The folder of one upstream.
    pub fn folder(self: &Arc<Self>, upstream: &str) -> Folder {
        Folder { root: self.root.join(upstream), store: Some(Arc::clone(self)) }
    }

    /// A folder of small files beside the upstreams' folders. Its name starts with a dot, which no upstream's does.
    pub fn shelf(self: &Arc<Self>, name: &str) -> Shelf {
        Shelf::at(self.root.join(name), self)
    }

    /// A new, empty temporary file for a body that is to come.
    ///
    /// # Errors
    /// What the disk says.
    pub fn spool(&self) -> Result<Spool, StoreError> {
        let (file, path) = self.temp_file()?;
        Ok(Spool::new(file, path))
    }

    pub(super) fn temp_file(&self) -> Result<(File, TempPath), StoreError> {
        let path = self.temp.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let open = || OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // Somebody removed the cache's folder; it is made again.
                fs::create_dir_all(&self.temp).map_err(|e| StoreError::new("make the cache folder", &self.temp, e))?;
                if let Ok(lock) = lock_folder(&self.temp) {
                    *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = lock;
                }
                open()
            }
            other => other,
        };
        Ok((file.map_err(|e| StoreError::new("make the temporary file", &path, e))?, TempPath::new(path)))
    }

    /// The bytes in the cache, as far as counted: the last full count and what was added since.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Counts what was added.
    pub(super) fn grew(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.added.send_modify(|added| *added = added.wrapping_add(bytes));
    }

    /// Waits until so many bytes were added from now on.
    pub fn growing(&self, bytes: u64) -> impl Future<Output = ()> + use<> {
        let mut added = self.added.subscribe();
        let from = *added.borrow();
        async move {
            // Without a store nothing grows any more.
            if added.wait_for(|added| added.wrapping_sub(from) >= bytes).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Tells that there was no room for something.
    pub fn tell_full(&self) {
        self.full.notify_one();
    }

    /// Waits until there is no room for something, or was none since the last time.
    pub async fn told_full(&self) {
        self.full.notified().await;
    }

    /// Takes the result of a full count.
    pub fn counted(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        // What stays (a file still being read, a full disk) is swept at the next start.
        let _ = fs::remove_dir_all(&self.temp);
    }
}

/// Makes and locks the file that tells that a temporary folder is in use. It gets its name when it is locked: whoever sweeps would
/// take one that nobody holds for left over.
#[expect(clippy::disallowed_methods, reason = "a lock gets its name when it is held")]
fn lock_folder(temp: &Path) -> Result<File, StoreError> {
    let (made, lock) = (temp.join("lock.new"), temp.join("lock"));
    let file = File::create_new(&made).map_err(|e| StoreError::new("write in the cache folder", &made, e))?;
    file.try_lock().map_err(|e| StoreError::new("lock", &made, e.into()))?;
    fs::rename(&made, &lock).map_err(|e| StoreError::new("write in the cache folder", &lock, e))?;
    Ok(file)
}

/// Removes the temporary folders of processes that are gone. Failures are left for the next start.
fn sweep(temps: &Path) {
    let Ok(entries) = fs::read_dir(temps) else { return };
    for folder in entries.flatten().map(|e| e.path()) {
        // A folder without a lock file is being made this moment, or was left by a crash in that moment.
        let abandoned = match File::open(folder.join("lock")) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => older_than(&folder, Duration::from_secs(60)),
        };
        if abandoned && let Err(e) = fs::remove_dir_all(&folder) {
            tracing::warn!(folder = %folder.display(), error = %e, "a leftover temporary folder could not be removed");
        }
    }
}

fn older_than(path: &Path, age: Duration) -> bool {
    fs::metadata(path).and_then(|m| m.modified()).is_ok_and(|t| t.elapsed().is_ok_and(|e| e > age))
}

/// One upstream's files. A folder of a directory upstream is only read.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    store: Option<Arc<DiskStore>>,
}

/// A file that was found.
#[derive(Debug)]
pub struct Stored {
    /// Opened for reading.
    pub file: File,
    /// Its length in bytes.
    pub length: u64,
    /// When it was written.
    pub modified: SystemTime,
}

/// What tells one file from another that comes to lie under its name: its length and the time it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMark {
    /// Bytes.
    pub length: u64,
    /// When it was written.
    pub modified: SystemTime,
}

impl Stored {
    /// All of it, of at most `limit` bytes.
    ///
    /// # Errors
    /// What the disk says, and a file that is larger.
    pub fn read(&self, limit: u64, look: Look) -> io::Result<Bytes> {
        Ok(look.read(&self.file, self.length, limit)?.into())
    }

    /// Its last bytes; `None` where it has fewer.
    ///
    /// # Errors
    /// What the disk says.
    pub fn tail<const N: usize>(&self, look: Look) -> io::Result<Option<[u8; N]>> {
        let Some(at) = self.length.checked_sub(N as u64) else { return Ok(None) };
        let mut bytes = [0; N];
        look.read_at(&self.file, &mut bytes, at)?;
        Ok(Some(bytes))
    }

    /// What tells it from another.
    pub fn mark(&self) -> FileMark {
        FileMark { length: self.length, modified: self.modified }
    }
}

impl Folder {
    /// A folder that nothing is ever written to.
    pub fn read_only(root: &Path) -> Self {
        Self { root: root.to_owned(), store: None }
    }

    /// The folder's own name, which is its upstream's.
    pub fn name(&self) -> &str {
        self.root.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Whether answers can be kept in it.
    pub fn is_writable(&self) -> bool {
        self.store.is_some()
    }

    fn path(&self, ask: &Ask) -> PathBuf {
        self.root.join(ask.path())
    }

    /// Opens the file that answers `ask`; `None` where there is none.
    ///
    /// # Errors
    /// What the disk says, other than that there is no such file.
    pub fn open(&self, ask: &Ask, look: Look) -> Result<Option<Stored>, StoreError> {
        let path = self.path(ask);
        let Some((stored, meta)) = find(&path, |path| look.open(path))? else { return Ok(None) };
        if self.is_writable() && meta.accessed().is_ok_and(|t| t.elapsed().is_ok_and(|e| e > TOUCH_AFTER)) {
            if look == Look::Glance {
                return Err(StoreError::new("open", &path, look::would_wait()));
            }
            touch(&stored.file);
        }
        Ok(Some(stored))
    }

    /// Whether there is such a file.
    pub fn has(&self, ask: &Ask) -> bool {
        fs::metadata(self.path(ask)).is_ok_and(|m| m.is_file())
    }

    /// Reads a small file whole; `None` where there is none.
    ///
    /// # Errors
    /// What the disk says, and a file larger than `limit`.
    pub fn read(&self, ask: &Ask, limit: u64, look: Look) -> Result<Option<(Bytes, SystemTime)>, StoreError> {
        let Some(stored) = self.open(ask, look)? else { return Ok(None) };
        let bytes = stored.read(limit, look).map_err(|e| StoreError::new("read", &self.path(ask), e))?;
        Ok(Some((bytes, stored.modified)))
    }

    /// Keeps a small answer, and says what its file is, unless there was a file already that stays.
    ///
    /// # Errors
    /// What the disk says; nothing is visible then.
    pub fn keep(&self, ask: &Ask, bytes: &Bytes) -> Result<Option<FileMark>, StoreError> {
        let Some(store) = &self.store else { return Ok(None) };
        let mut spool = store.spool()?;
        let path = self.path(ask);
        spool.append(std::slice::from_ref(bytes)).map_err(|e| StoreError::new("write the temporary file for", &path, e))?;
        self.commit(ask, spool)
    }

    /// Gives a finished spool its name, and says what its file is. Its readers are not disturbed. Where a part of a version is there
    /// already it stays, and nothing is said.
    ///
    /// # Errors
    /// What the disk says; nothing is visible then.
    pub fn commit(&self, ask: &Ask, spool: Spool) -> Result<Option<FileMark>, StoreError> {
        let Some(store) = &self.store else { return Ok(None) };
        let path = self.path(ask);
        let wrap = |e| StoreError::new("keep", &path, e);
        let written = spool.written();
        let (file, mut temp) = spool.into_parts();
        file.sync_data().map_err(wrap)?;
        // A refreshed list takes the place of the one before; a part of a version never does.
        let before = fs::metadata(&path).map_or(0, |m| m.len());
        let is_part = matches!(ask, Ask::Info(_) | Ask::GoMod(_) | Ask::Zip(_));
        if is_part && before > 0 {
            return Ok(None);
        }
        let mark = FileMark { length: written, modified: file.metadata().and_then(|m| m.modified()).map_err(wrap)? };
        let parent = path.parent().unwrap_or(&self.root);
        let mut tries = 3;
        let named = loop {
            fs::create_dir_all(parent).map_err(wrap)?;
            // An empty file under its name is no part of anything: it was damaged, and is replaced.
            let named = if is_part && !path.exists() { temp.persist_once(&path) } else { temp.persist(&path).map(|()| true) };
            match named {
                // Eviction removes empty folders; it may have come between.
                Err(e) if e.kind() == io::ErrorKind::NotFound && tries > 0 => tries -= 1,
                other => break other.map_err(wrap)?,
            }
        };
        store.grew(written.saturating_sub(before));
        Ok(named.then_some(mark))
    }

    /// Puts another file with the same in it into the place of one, made of it by `make`, unless that makes none. It counts as
    /// written and used when the one before was. Where that went or changed meanwhile nothing happens. Both marks, of the file
    /// before and of the one now.
    ///
    /// # Errors
    /// What `make` says, and the disk; the file before is there still.
    pub fn recast<E: From<StoreError>>(
        &self,
        ask: &Ask,
        make: impl FnOnce(&Stored) -> Result<Option<Spool>, E>,
    ) -> Result<Option<(FileMark, FileMark)>, E> {
        let Some(store) = &self.store else { return Ok(None) };
        let path = self.path(ask);
        let wrap = |e| StoreError::new("write anew", &path, e);
        let Some((before, _)) = find(&path, look::open_unused)? else { return Ok(None) };
        let Some(spool) = make(&before)? else { return Ok(None) };
        let (file, mut temp) = spool.into_parts();
        file.sync_data().map_err(wrap)?;
        let Some((there, meta)) = find(&path, look::open_unused)?.filter(|(there, _)| there.mark() == before.mark()) else {
            return Ok(None);
        };
        let times = FileTimes::new().set_modified(there.modified).set_accessed(meta.accessed().map_err(wrap)?);
        file.set_times(times).map_err(wrap)?;
        let meta = file.metadata().map_err(wrap)?;
        let now = FileMark { length: meta.len(), modified: meta.modified().map_err(wrap)? };
        temp.persist(&path).map_err(wrap)?;
        store.grew(now.length.saturating_sub(before.length));
        Ok(Some((before.mark(), now)))
    }

    /// Takes a file that is not what it has to be out of the folder, and says where it was put: nothing is lost by it.
    ///
    /// # Errors
    /// What the disk says; it is still in its place then.
    #[expect(clippy::disallowed_methods, reason = "what was named here loses its name here")]
    pub fn set_aside(&self, ask: &Ask) -> Result<PathBuf, StoreError> {
        let path = self.path(ask);
        let wrap = |e| StoreError::new("put aside", &path, e);
        let name = self.root.file_name().unwrap_or_default();
        let aside = self.root.with_file_name(ASIDE).join(name).join(ask.path());
        fs::create_dir_all(aside.parent().unwrap_or(&self.root)).map_err(wrap)?;
        match fs::rename(&path, &aside) {
            // Somebody else has put it aside.
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(wrap(e)),
            Ok(()) | Err(_) => Ok(aside),
        }
    }

    /// Sets the time at which a list was asked for.
    ///
    /// # Errors
    /// What the disk says.
    pub fn date(&self, ask: &Ask, time: SystemTime) -> Result<(), StoreError> {
        let path = self.path(ask);
        let set = File::options().append(true).open(&path).and_then(|f| f.set_modified(time));
        set.map_err(|e| StoreError::new("set the time of", &path, e))
    }

    /// Renews a list's, a query's or `@latest`'s time without writing it again: it was asked just now and is the same.
    ///
    /// # Errors
    /// What the disk says.
    pub fn confirm(&self, ask: &Ask) -> Result<(), StoreError> {
        if self.is_writable() { self.date(ask, SystemTime::now()) } else { Ok(()) }
    }
}

/// Opens what lies there, where that is a file; `None` where there is none.
fn find(path: &Path, open: impl FnOnce(&Path) -> io::Result<File>) -> Result<Option<(Stored, Metadata)>, StoreError> {
    let wrap = |e| StoreError::new("open", path, e);
    let file = match open(path) {
        Ok(file) => file,
        Err(e) if is_missing(&e) => return Ok(None),
        Err(e) => return Err(wrap(e)),
    };
    let meta = file.metadata().map_err(wrap)?;
    if !meta.is_file() {
        return Ok(None);
    }
    let modified = meta.modified().map_err(wrap)?;
    Ok(Some((Stored { file, length: meta.len(), modified }, meta)))
}

/// Sets the time of last use, which orders eviction, and leaves the time of writing alone.
fn touch(file: &File) {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let same = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: same };
    // Only eviction's order depends on it.
    let _ = rustix::fs::futimens(file, &times);
}

/// Whether the error means that there is no such file: also where a name is longer than the file system allows.
pub(super) fn is_missing(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

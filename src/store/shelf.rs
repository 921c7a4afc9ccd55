//! Small files by name, beside the upstreams' folders: sums, and what a checksum database said. Like those they appear by rename.
//! Eviction leaves them alone, save what it is told can be had again.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::disk::is_missing;
use super::{DiskStore, Look, StoreError};

/// One folder of small files. All its functions block, save [`read`](Self::read) at a glance.
#[derive(Debug, Clone)]
pub struct Shelf {
    root: PathBuf,
    store: Arc<DiskStore>,
}

/// Whether a file has to outlive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// It has: it is synced before it gets its name.
    Yes,
    /// It need not: who reads it notices when it is damaged, and can have it again.
    No,
}

impl Shelf {
    /// The files below a folder, which may be any; temporary ones are those of the store.
    pub fn at(root: PathBuf, store: &Arc<DiskStore>) -> Self {
        Self { root, store: Arc::clone(store) }
    }

    /// The store that its temporary files are of.
    pub fn store(&self) -> &Arc<DiskStore> {
        &self.store
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file of this name is. Names come from parsed module paths and the like; one that leads out of the folder is a mistake
    /// of the program and names nothing.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let inside = !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        inside.then(|| self.root.join(name))
    }

    /// Reads a file of at most `limit` bytes; `None` where there is none, or an empty one.
    ///
    /// # Errors
    /// What the disk says, and a larger file.
    pub fn read(&self, name: &str, limit: u64, look: Look) -> Result<Option<Bytes>, StoreError> {
        let Some(path) = self.path(name) else { return Ok(None) };
        let wrap = |e| StoreError::new("read", &path, e);
        let file = match look.open(&path) {
            Ok(file) => file,
            Err(e) if is_missing(&e) => return Ok(None),
            Err(e) => return Err(wrap(e)),
        };
        let length = file.metadata().map_err(wrap)?.len();
        let bytes = look.read(&file, length, limit).map_err(wrap)?;
        Ok((!bytes.is_empty()).then(|| bytes.into()))
    }

    /// The names in a folder of this one; none where there is no such folder.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let Some(Ok(entries)) = self.path(folder).map(fs::read_dir) else { return Vec::new() };
        entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
    }

    /// Writes a file, or another in its place.
    ///
    /// # Errors
    /// What the disk says; nothing has changed then.
    pub fn write(&self, name: &str, bytes: &[u8], durable: Durable) -> Result<(), StoreError> {
        let path = self.path(name).unwrap_or_default();
        let wrap = |e| StoreError::new("write", &path, e);
        let (file, mut temp) = self.store.temp_file()?;
        io::Write::write_all(&mut &file, bytes).map_err(wrap)?;
        if durable == Durable::Yes {
            file.sync_data().map_err(wrap)?;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(wrap)?;
        }
        temp.persist(&path).map_err(wrap)?;
        self.store.grew(bytes.len() as u64);
        if let (Durable::Yes, Some(parent)) = (durable, path.parent()) {
            // The name is in the folder; without this a power cut may bring the one before back.
            File::open(parent).and_then(|folder| folder.sync_all()).map_err(wrap)?;
        }
        Ok(())
    }

    /// Removes a file; one that is not there is removed already.
    pub fn remove(&self, name: &str) {
        if let Some(path) = self.path(name) {
            // Whoever finds it again notices again what is wrong with it.
            let _ = fs::remove_file(path);
        }
    }

    /// Holds all other holders of this folder's lock off, those of other processes too, while `work` is done.
    ///
    /// # Errors
    /// That there is no lock to be had.
    pub fn locked<T>(&self, work: impl FnOnce() -> T) -> Result<T, StoreError> {
        let path = self.root.join("lock");
        let wrap = |e| StoreError::new("lock", &path, e);
        fs::create_dir_all(&self.root).map_err(wrap)?;
        let lock = File::options().create(true).append(true).open(&path).map_err(wrap)?;
        lock.lock().map_err(wrap)?;
        Ok(work())
    }
}

//! Looks at files: at a glance where the kernel has them in memory, else on a thread that may wait for the disk.
//!
//! What a build asks for has mostly been asked for before, and to hand a look to another thread and wait for it takes longer
//! than the look. So a worker looks itself, in a way that cannot wait (`openat2` with `RESOLVE_CACHED`, `preadv2` with
//! `RWF_NOWAIT`), and hands over only what fails for that.

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::disk::is_missing;
use super::{DiskStore, StoreError};

/// The longest file that is read at a glance: a worker's other connections wait meanwhile.
const GLANCED: u64 = 64 << 10;

/// File systems that keep to what a look asks of them, by their magic numbers (statfs(2)). One over a network or in a
/// program may wait for the other side all the same.
const LOCAL: [u64; 9] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0x794c_7630, // overlayfs
    0xf2f5_2010, // F2FS
    0xca45_1a4e, // bcachefs
    0x2fc1_2fc1, // ZFS
    0x8584_58f6, // ramfs
];

/// How a file is opened. Without the last a pipe that lies there would have its opener wait for a writer.
const READING: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// How a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Without waiting. What would have to wait fails, and [`StoreError::would_wait`] says so.
    Glance,
    /// However long it takes. Blocks.
    Full,
}

/// What a look fails with that would have to wait.
pub(super) fn would_wait() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}

/// Opens a file for reading that does not count as use, where the system lets us have that.
pub(super) fn open_unused(path: &Path) -> io::Result<File> {
    let open = |flags| rustix::fs::open(path, flags, Mode::empty());
    // Only for its owner.
    let opened = open(READING | OFlags::NOATIME).or_else(|e| if e == Errno::PERM { open(READING) } else { Err(e) });
    Ok(opened?.into())
}

impl Look {
    /// Opens a file for reading.
    pub(super) fn open(self, path: &Path) -> io::Result<File> {
        if self == Self::Full {
            return Ok(rustix::fs::open(path, READING, Mode::empty())?.into());
        }
        let opened = rustix::fs::openat2(CWD, path, READING, Mode::empty(), ResolveFlags::CACHED);
        opened.map(File::from).map_err(|e| {
            let e = io::Error::from(e);
            // A kernel or sandbox without this call says so in several ways; a full look finds out what is meant.
            if is_missing(&e) { e } else { would_wait() }
        })
    }

    /// Reads a file of this length whole, of at most `limit` bytes.
    pub(super) fn read(self, file: &File, length: u64, limit: u64) -> io::Result<Vec<u8>> {
        let expected = usize::try_from(length.min(limit)).unwrap_or(0);
        if self == Self::Full {
            let mut bytes = Vec::with_capacity(expected);
            file.take(limit + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > limit {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
            }
            return Ok(bytes);
        }
        if length > limit.min(GLANCED) {
            return Err(would_wait());
        }
        let mut bytes = vec![0; expected];
        self.read_at(file, &mut bytes, 0)?;
        Ok(bytes)
    }

    /// Reads a part of a file.
    pub(super) fn read_at(self, file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
        if self == Self::Full {
            return file.read_exact_at(bytes, at);
        }
        let expected = bytes.len();
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(bytes)], at, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == expected => Ok(()),
            // Some of it is on the disk, or the file system cannot say.
            Ok(_) | Err(_) => Err(would_wait()),
        }
    }
}

/// Whether files below a folder can be looked at without waiting.
pub(super) fn glances(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|fs| u64::try_from(fs.f_type).is_ok_and(|kind| LOCAL.contains(&kind)))
}

impl DiskStore {
    /// Does some looking: here where that goes without waiting, else on a blocking thread, from the beginning.
    ///
    /// # Errors
    /// What `work` says.
    pub async fn look<T: Send + 'static>(
        &self,
        work: impl Fn(Look) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.glances {
            match work(Look::Glance) {
                Err(e) if e.would_wait() => {}
                done => return done,
            }
        }
        let done = tokio::task::spawn_blocking(move || work(Look::Full)).await;
        done.unwrap_or_else(|e| Err(StoreError::new("look into", self.root(), io::Error::other(e))))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::fs::{Advice, FileType};

    use super::*;
    use crate::store::Durable;

    const LIMIT: u64 = 1 << 20;

    fn read(path: &Path, look: Look) -> io::Result<Vec<u8>> {
        let file = look.open(path)?;
        let length = file.metadata()?.len();
        look.read(&file, length, LIMIT)
    }

    /// Lets the kernel forget what is in the file.
    fn evict(path: &Path) {
        let file = File::open(path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }

    /// A folder on the disk that the program lies on, which `/tmp` need not be.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap()
    }

    /// Whether this is a file system of which it is known that it serves what it has in memory.
    fn has_to_glance(folder: &Path) -> bool {
        let kind = rustix::fs::statfs(folder).unwrap().f_type;
        [0xef53, 0x5846_5342].contains(&u64::try_from(kind).unwrap())
    }

    #[test]
    fn a_glance_sees_what_a_full_look_sees_or_says_that_it_would_wait() {
        let folder = folder();
        for length in [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1 << 20, (1 << 20) + 1] {
            let path = folder.path().join(length.to_string());
            let bytes: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[1]).collect();
            fs::write(&path, &bytes).unwrap();
            let full = |path: &Path| read(path, Look::Full).ok();
            assert_eq!(full(&path).as_ref(), (u64::from(length) <= LIMIT).then_some(&bytes), "{length}");
            let hot = read(&path, Look::Glance);
            assert!(hot.is_ok() || u64::from(length) > GLANCED || !has_to_glance(folder.path()), "{length}: {hot:?}");
            evict(&path);
            for glance in [hot, read(&path, Look::Glance)] {
                match glance {
                    Ok(seen) => assert_eq!(seen, bytes, "{length}"),
                    Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock, "{length}: {e}"),
                }
            }
            assert_eq!(full(&path).as_ref(), (u64::from(length) <= LIMIT).then_some(&bytes), "{length}");
        }
    }

    #[test]
    fn what_is_no_file_is_neither_waited_for_nor_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for look in [Look::Glance, Look::Full] {
            let seen = read(&pipe, look);
            assert!(seen.as_ref().map_or_else(|e| e.kind() == io::ErrorKind::WouldBlock, Vec::is_empty), "{look:?}: {seen:?}");
            for missing in ["nothing", "pipe/below", &"long".repeat(100)] {
                let error = look.open(&folder.path().join(missing)).unwrap_err();
                assert!(
                    is_missing(&error) || look == Look::Glance && error.kind() == io::ErrorKind::WouldBlock,
                    "{missing}: {error}"
                );
            }
        }
    }

    #[tokio::test]
    async fn what_a_glance_does_not_show_is_looked_at_again() {
        let folder = folder();
        let store = DiskStore::open(folder.path()).unwrap();
        let shelf = store.shelf("shelf");
        for (name, length, glances) in [("small", 100, 1), ("large", 100_000, 2), ("missing", 0, 1)] {
            if length > 0 {
                shelf.write(name, &vec![7; length], Durable::No).unwrap();
            }
            // Now the kernel knows whether it is there.
            shelf.read(name, LIMIT, Look::Full).unwrap();
            let looks = Arc::new(AtomicUsize::new(0));
            let (counted, shelf) = (Arc::clone(&looks), shelf.clone());
            let seen = store.look(move |look| {
                counted.fetch_add(1, Ordering::Relaxed);
                shelf.read(name, LIMIT, look)
            });
            assert_eq!(seen.await.unwrap().map_or(0, |bytes| bytes.len()), length, "{name}");
            let looks = looks.load(Ordering::Relaxed);
            assert!(looks == glances || !has_to_glance(folder.path()), "{name}: {looks}");
        }
    }
}

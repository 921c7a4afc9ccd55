//! What leaves the disk cache when it is larger than its bound: the least recently used files first.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::StoreError;

/// What can be had again, and so may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expendable {
    /// The upstreams whose files may go; `None` for all. Those of a private one may be the only copy there is, and of a folder
    /// that no upstream owns nobody can say.
    pub upstreams: Option<HashSet<String>>,
    /// Folders beside the upstreams' folders, below the cache's.
    pub beside: Vec<String>,
}

/// What eviction is to keep to.
#[derive(Debug, Clone)]
pub struct EvictRule {
    /// The bytes that may stay.
    pub max_size: u64,
    /// What may go.
    pub expendable: Expendable,
    /// What was used so recently stays all the same.
    pub in_use: Duration,
}

/// What eviction found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Bytes in the cache before.
    pub before: u64,
    /// Bytes in the cache after.
    pub after: u64,
    /// Files removed.
    pub removed: u64,
    /// Bytes of files that the rule keeps.
    pub kept: u64,
}

#[derive(Debug)]
struct Entry {
    used: SystemTime,
    length: u64,
    path: PathBuf,
}

/// How recently a file was used that is spared as a rule: someone may be between asking for a version's parts.
pub const IN_USE: Duration = Duration::from_secs(60);

/// Removes the least recently used files below `root` until the rest fits the rule.
///
/// # Errors
/// A folder that could not be read.
pub fn evict(root: &Path, rule: &EvictRule) -> Result<Evicted, StoreError> {
    let mut entries = Vec::new();
    let mut failed = None;
    let mut result = Evicted::default();
    for (name, folder) in folders(root)? {
        let before = entries.len();
        walk(&folder, &mut |entry| entries.push(entry))?;
        if rule.expendable.upstreams.as_ref().is_some_and(|from| !from.contains(&name)) {
            result.kept += entries.drain(before..).map(|e| e.length).sum::<u64>();
        }
    }
    for folder in &rule.expendable.beside {
        walk(&root.join(folder), &mut |entry| entries.push(entry))?;
    }
    result.before = result.kept + entries.iter().map(|e| e.length).sum::<u64>();
    result.after = result.before;
    entries.sort_unstable_by_key(|e| e.used);
    for entry in entries {
        if result.after <= rule.max_size {
            break;
        }
        if entry.used.elapsed().is_ok_and(|age| age < rule.in_use) {
            continue;
        }
        match fs::remove_file(&entry.path) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                // The others may go all the same.
                failed = Some(StoreError::new("remove", &entry.path, e));
                continue;
            }
        }
        result.after -= entry.length;
        result.removed += 1;
        prune(root, &entry.path);
    }
    if let Some(e) = failed {
        tracing::warn!(error = %e, "files cannot be removed from the cache, of which this is the last");
    }
    Ok(result)
}

/// The bytes in the upstreams' folders below `root` and in those beside them that are named.
///
/// # Errors
/// A folder that could not be read.
pub fn count(root: &Path, beside: &[String]) -> Result<u64, StoreError> {
    let mut bytes = 0;
    let upstreams = folders(root)?.into_iter().map(|(_, folder)| folder);
    for folder in upstreams.chain(beside.iter().map(|folder| root.join(folder))) {
        walk(&folder, &mut |entry| bytes += entry.length)?;
    }
    Ok(bytes)
}

/// The bytes that its disk has left for a folder, where the system says so.
pub fn free(root: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(root).ok()?;
    // A file system that counts no blocks has no such bound.
    (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// All files below a folder.
///
/// # Errors
/// A folder that could not be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut files = Vec::new();
    walk(folder, &mut |entry| files.push(entry.path))?;
    Ok(files)
}

/// The upstreams' folders.
fn folders(root: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let wrap = |e| StoreError::new("read the folder", root, e);
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(wrap)? {
        let entry = entry.map_err(wrap)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Temporary files and mirrors have upkeep of their own.
        if !name.starts_with('.') && entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// Visits all files below a folder; symbolic links are not followed.
fn walk(folder: &Path, visit: &mut impl FnMut(Entry)) -> Result<(), StoreError> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(StoreError::new("read the folder", &folder, e)),
        };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                folders.push(entry.path());
            } else if meta.is_file() {
                let used = meta.accessed().or_else(|_| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                visit(Entry { used, length: meta.len(), path: entry.path() });
            }
        }
    }
    Ok(())
}

/// Removes the folders that became empty, up to the upstream's own.
fn prune(root: &Path, file: &Path) {
    let mut folder = file.parent();
    while let Some(empty) = folder.filter(|f| f.parent().is_some_and(|p| p != root) && *f != root) {
        if fs::remove_dir(empty).is_err() {
            break;
        }
        folder = empty.parent();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn file(root: &Path, name: &str, length: usize, age_hours: u64) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(&path, vec![0; length]).expect("file");
        let then = SystemTime::now() - Duration::from_secs(age_hours * 3600);
        File::options().append(true).open(&path).expect("open").set_times(fs::FileTimes::new().set_accessed(then)).expect("times");
    }

    #[test]
    fn the_least_recently_used_go_first_and_private_ones_stay() {
        let dir = tempfile::tempdir().expect("dir");
        file(dir.path(), "public/example.com/a/@v/v1.0.0.zip", 1000, 30);
        file(dir.path(), "public/example.com/b/@v/v1.0.0.zip", 1000, 10);
        file(dir.path(), "private/corp.example/c/@v/v1.0.0.zip", 1000, 90);
        file(dir.path(), ".tmp/1-0/7", 5000, 90);
        let public = Expendable { upstreams: Some(HashSet::from(["public".to_owned()])), beside: Vec::new() };
        let rule = EvictRule { max_size: 2500, expendable: public, in_use: IN_USE };
        let done = evict(dir.path(), &rule).expect("evict");
        assert_eq!(done, Evicted { before: 3000, after: 2000, removed: 1, kept: 1000 });
        assert!(!dir.path().join("public/example.com/a").exists(), "the empty folders go too");
        assert!(dir.path().join("public/example.com/b/@v/v1.0.0.zip").exists());
        assert!(dir.path().join("private/corp.example/c/@v/v1.0.0.zip").exists());
        assert!(dir.path().join(".tmp/1-0/7").exists());
        assert_eq!(count(dir.path(), &[]).expect("count"), 2000);
        let all = evict(dir.path(), &EvictRule { max_size: 0, expendable: Expendable::default(), in_use: Duration::ZERO })
            .expect("evict");
        assert_eq!((all.after, all.removed), (0, 2));
    }

    #[test]
    fn what_lies_beside_goes_in_its_turn_where_it_is_named() {
        let dir = tempfile::tempdir().expect("dir");
        file(dir.path(), "public/example.com/a/@v/v1.0.0.zip", 1000, 20);
        file(dir.path(), ".kept/base/old/x", 1000, 30);
        file(dir.path(), ".kept/base/new/x", 1000, 10);
        file(dir.path(), ".kept/base/head", 1000, 90);
        let beside = vec![".kept/base/old".to_owned(), ".kept/base/new".to_owned(), ".kept/none".to_owned()];
        assert_eq!(count(dir.path(), &beside).expect("count"), 3000);
        let rule = EvictRule { max_size: 1500, expendable: Expendable { upstreams: None, beside }, in_use: IN_USE };
        let done = evict(dir.path(), &rule).expect("evict");
        assert_eq!(done, Evicted { before: 3000, after: 1000, removed: 2, kept: 0 });
        assert!(dir.path().join(".kept/base/new/x").exists(), "it was used last");
        assert!(dir.path().join(".kept/base/head").exists(), "nobody said that it may go");
    }
}

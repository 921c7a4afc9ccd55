//! Mirrors that nothing was fetched into for long are removed; the next who needs one has it made anew.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// Removes the mirrors below `root` (a folder an upstream) into which nothing was fetched for so long; how many.
///
/// One that is being fetched into is left alone, by its lock.
///
/// # Errors
/// A folder that cannot be read.
pub fn remove_unused(root: &Path, age: Duration) -> std::io::Result<usize> {
    let mut removed = 0;
    let upstreams = match std::fs::read_dir(root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        read => read?,
    };
    for upstream in upstreams {
        let upstream = upstream?;
        if !upstream.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(upstream.path())? {
            let lock = file?.path();
            if lock.extension().is_some_and(|end| end == "lock") && remove_one(&lock, age)? {
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// Whether a lock that was got is the one that others see: whoever removes a mirror removes its lock too, and who waited for that
/// has what is nobody's.
pub(super) fn is_at(lock: &File, path: &Path) -> bool {
    let identity = |of: std::io::Result<Metadata>| of.map(|of| (of.dev(), of.ino())).ok();
    identity(lock.metadata()).is_some_and(|own| identity(std::fs::metadata(path)) == Some(own))
}

fn remove_one(lock: &Path, age: Duration) -> std::io::Result<bool> {
    let held = File::open(lock)?;
    // Each fetch begins by making this file anew.
    let fetched = held.metadata()?.modified()?;
    if fetched.elapsed().is_ok_and(|since| since < age) || held.try_lock().is_err() || !is_at(&held, lock) {
        return Ok(false);
    }
    let mirror = lock.with_extension("");
    // Without its HEAD it is no repository to git, and none to those who look whether there is one.
    for gone in [std::fs::remove_file(mirror.join("HEAD")), std::fs::remove_dir_all(&mirror)] {
        match gone {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    std::fs::remove_file(lock)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fetched_long_ago_goes_and_what_is_locked_stays() {
        let root = tempfile::tempdir().expect("dir");
        let upstream = root.path().join("up");
        for name in ["a", "b"] {
            std::fs::create_dir_all(upstream.join(name).join("objects")).expect("mirror");
            std::fs::write(upstream.join(name).join("HEAD"), "x").expect("head");
            std::fs::write(upstream.join(format!("{name}.lock")), "").expect("lock");
        }
        assert_eq!(remove_unused(root.path(), Duration::from_secs(60)).expect("looked"), 0);
        let held = File::open(upstream.join("a.lock")).expect("lock");
        held.lock().expect("locked");
        assert_eq!(remove_unused(root.path(), Duration::ZERO).expect("looked"), 1);
        assert!(upstream.join("a/HEAD").exists() && !upstream.join("b").exists() && !upstream.join("b.lock").exists());
        // Whoever waited for the lock of one that went has nobody's lock.
        held.unlock().expect("unlocked");
        assert!(is_at(&held, &upstream.join("a.lock")));
        assert_eq!(remove_unused(root.path(), Duration::ZERO).expect("looked"), 1);
        std::fs::write(upstream.join("a.lock"), "").expect("lock");
        assert!(!is_at(&held, &upstream.join("a.lock")));
        assert_eq!(remove_unused(&root.path().join("none"), Duration::ZERO).expect("looked"), 0);
    }
}

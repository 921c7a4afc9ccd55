//! Fetching into a mirror: one fetch at a time, in this process and in others, and what is left over by those that broke off.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::MutexGuard;

use super::error::VcsError;
use super::git::{Hash, MAX_TEXT, Refs, Repository};
use super::mirrors::is_at;
use crate::process::ProcessError;

/// So many packs in a mirror are made one.
const MANY_PACKS: usize = 50;
/// The file that says that a mirror has all history.
const WHOLE: &str = "modgate-whole";
/// The file that says that a mirror is being written to, or was when the writer died.
const WRITING: &str = "modgate-writing";
/// How soon a lock that another process holds is tried again.
const LOCK_AGAIN: Duration = Duration::from_millis(50);

/// How a program ended that wrote into a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By itself, and left nothing that is of no use.
    Well,
    /// By itself, before it was done.
    Broken,
    /// By force.
    Killed,
}

/// How far the mirror has come.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    /// The refs for which all history has been fetched.
    complete: Option<Arc<Refs>>,
    /// When the last fetch failed, and why: for those who waited for it, so that each of them does not wait as long again.
    failed: Option<(Instant, VcsError)>,
}

impl Mirror {
    fn noting(&mut self, done: Result<(), VcsError>) -> Result<(), VcsError> {
        if let Err(e @ (VcsError::Denied(_) | VcsError::NoRoom(_) | VcsError::Broken { .. })) = &done {
            self.failed = Some((Instant::now(), e.clone()));
        }
        done
    }
}

impl Repository {
    pub(super) fn is_made(&self) -> bool {
        self.folder.join("HEAD").exists() && !self.damaged.load(Ordering::Relaxed)
    }

    /// Whether all history is there, as far as the newest fetch saw it.
    pub(super) fn is_whole(&self) -> bool {
        self.folder.join(WHOLE).exists()
    }

    /// Makes the mirror, empty. Its last file is the one by which git knows a repository.
    fn make(&self, sha256: bool) -> Result<(), VcsError> {
        if self.is_made() {
            return Ok(());
        }
        let (version, extension) = if sha256 { (1, "[extensions]\n\tobjectformat = sha256\n") } else { (0, "") };
        let config =
            format!("[core]\n\trepositoryformatversion = {version}\n\tbare = true\n\tlogallrefupdates = false\n{extension}");
        let write = || {
            if self.damaged.load(Ordering::Relaxed) {
                std::fs::remove_dir_all(&self.folder)?;
                self.damaged.store(false, Ordering::Relaxed);
            }
            for folder in ["objects/pack", "refs/heads", "info"] {
                std::fs::create_dir_all(self.folder.join(folder))?;
            }
            std::fs::write(self.folder.join("config"), config)?;
            // What a repository says of archives does not count: its files are wanted as they are.
            std::fs::write(self.folder.join("info/attributes"), "* -export-subst -export-ignore\n")?;
            std::fs::write(self.folder.join("HEAD"), "ref: refs/modgate/head\n")
        };
        write().map_err(|e| VcsError::own("a mirror of the repository cannot be made", &e))
    }

    /// Fetches one commit; by itself where a ref leads to it and history was not needed so far. It was not there when so much had been
    /// added.
    pub(super) async fn bring(self: &Arc<Self>, hash: &Hash, name: Option<&str>, additions: u64) -> Result<(), VcsError> {
        let mut mirror = self.mirror().await?;
        let _lock = self.lock().await?;
        self.make(hash.len() == 64)?;
        // Who was waited for may have brought it.
        if additions != self.additions.load(Ordering::Acquire) && self.has(hash).await {
            return Ok(());
        }
        let done = self.bring_into(&mut mirror, name).await;
        mirror.noting(done)
    }

    async fn bring_into(self: &Arc<Self>, mirror: &mut Mirror, name: Option<&str>) -> Result<(), VcsError> {
        if let Some(name) = name {
            let here = if name == "HEAD" { "refs/modgate/head" } else { name };
            let depth: &[&str] = if self.is_whole() { &[] } else { &["--depth=1"] };
            match self.fetch(depth, &[&format!("+{name}:{here}")]).await {
                Err(
                    e @ (VcsError::NoTurn(_) | VcsError::NoRoom(_) | VcsError::Denied(_) | VcsError::Broken { hangs: true, .. }),
                ) => return Err(e),
                // Whatever went wrong with one alone, it may not with all.
                Err(e) => tracing::debug!(repository = self.url.as_str(), error = %e, "one ref could not be fetched by itself"),
                Ok(()) => {
                    self.tidy();
                    return Ok(());
                }
            }
        }
        let refs = self.refs().await?;
        self.fetch_all(mirror, &refs).await
    }

    /// Fetches all branches and tags with their history, unless that has been done for what the server has.
    pub(super) async fn bring_all(self: &Arc<Self>, refs: &Arc<Refs>) -> Result<(), VcsError> {
        let mut mirror = self.mirror().await?;
        if self.is_made() && mirror.complete.as_ref().is_some_and(|complete| complete == refs) {
            return Ok(());
        }
        let _lock = self.lock().await?;
        self.make(refs.is_sha256())?;
        let done = self.fetch_all(&mut mirror, refs).await;
        mirror.noting(done)
    }

    /// The turn to fetch; the failure of the one that was waited for, where that failed.
    async fn mirror(&self) -> Result<MutexGuard<'_, Mirror>, VcsError> {
        let wanted = Instant::now();
        let mirror = self.mirror.lock().await;
        let failed = mirror.failed.as_ref().filter(|(at, _)| *at >= wanted).map(|(_, e)| e.clone());
        failed.map_or(Ok(mirror), Err)
    }

    async fn fetch_all(self: &Arc<Self>, mirror: &mut Mirror, refs: &Arc<Refs>) -> Result<(), VcsError> {
        const ALL: [&str; 2] = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        if refs.iter().next().is_none() {
            return Ok(());
        }
        let is_shallow = || self.folder.join("shallow").exists();
        self.fetch(if is_shallow() { &["--prune", "--unshallow"] } else { &["--prune"] }, &ALL).await?;
        // Where some refs are new, git asks for the history of these alone; now none is.
        if is_shallow() {
            self.fetch(&["--unshallow"], &ALL).await?;
        }
        self.mark(WHOLE)?;
        mirror.complete = Some(Arc::clone(refs));
        self.tidy();
        Ok(())
    }

    async fn fetch(&self, options: &[&str], refspecs: &[&str]) -> Result<(), VcsError> {
        self.begin_writing()?;
        let arguments = |url: String| {
            let fixed = ["fetch", "-f", "-q", "--no-tags", "--no-write-fetch-head"];
            let all = fixed.iter().chain(options).chain(&["--end-of-options"]).map(|a| (*a).to_owned());
            all.chain([url]).chain(refspecs.iter().map(|r| (*r).to_owned())).collect()
        };
        let done = self.network((self.git.access.limits.total, MAX_TEXT), arguments).await;
        self.additions.fetch_add(1, Ordering::Release);
        let end = match &done {
            Err(VcsError::Broken { hangs: true, .. }) => End::Killed,
            Err(VcsError::Broken { .. } | VcsError::NoRoom(_)) => End::Broken,
            Ok(_) | Err(_) => End::Well,
        };
        self.end_writing(end).await;
        done.map(|_| ())
    }

    /// Marks the mirror as being written to, and takes away what a writer that was killed left behind.
    fn begin_writing(&self) -> Result<(), VcsError> {
        if self.folder.join(WRITING).exists() {
            sweep(&self.folder);
        }
        self.mark(WRITING)
    }

    fn mark(&self, name: &str) -> Result<(), VcsError> {
        let written = std::fs::write(self.folder.join(name), "");
        written.map_err(|e| VcsError::own("the mirror of the repository cannot be written", &e))
    }

    /// What a writer left half done goes, for it may be what fills the disk. One that was killed may be at it still, and leaves the
    /// mark by which the next knows.
    async fn end_writing(&self, end: End) {
        if end == End::Broken {
            let folder = self.folder.clone();
            // What it could not take away is taken away by the next.
            let _ = tokio::task::spawn_blocking(move || sweep(&folder)).await;
        }
        if end != End::Killed {
            let _ = std::fs::remove_file(self.folder.join(WRITING));
        }
    }

    /// Keeps other processes from writing into the mirror.
    async fn lock(&self) -> Result<std::fs::File, VcsError> {
        let path = self.folder.with_extension("lock");
        let failed = |e| VcsError::own("the mirror of the repository cannot be locked", &e);
        let deadline = Instant::now() + self.git.access.limits.total;
        loop {
            let file = std::fs::File::create(&path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => return Ok(file),
                // It was removed together with the mirror.
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                    // Whoever holds it may add something.
                    self.additions.fetch_add(1, Ordering::Release);
                    tokio::time::sleep(LOCK_AGAIN).await;
                }
                Err(std::fs::TryLockError::WouldBlock) => return Err(VcsError::broken("another process keeps the mirror locked")),
                Err(std::fs::TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
    }

    fn is_untidy(&self) -> bool {
        // A pack and its index; whatever is fetched comes as one.
        std::fs::read_dir(self.folder.join("objects/pack")).map_or(0, Iterator::count) / 2 > MANY_PACKS
    }

    /// Packs a mirror of many packs anew, beside those who read it.
    fn tidy(self: &Arc<Self>) {
        if !self.is_untidy() {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let _mirror = this.mirror.lock().await;
            let packed = async {
                let _lock = this.lock().await?;
                // Somebody may have done it meanwhile.
                if !this.is_untidy() {
                    return Ok(());
                }
                this.begin_writing()?;
                let done = this.local(&["gc", "-q"], Vec::new()).await;
                let end = match &done {
                    Ok(_) => End::Well,
                    Err(ProcessError::Timeout { .. }) => End::Killed,
                    Err(_) => End::Broken,
                };
                this.end_writing(end).await;
                done.map(|_| ()).map_err(|e| this.classified(&e))
            };
            if let Err(e) = packed.await {
                tracing::warn!(repository = this.url.as_str(), error = %e, "a mirror could not be packed");
            }
        });
    }
}

/// Takes away what a fetch that was killed left behind: locks, which no ref has the name of, and among the objects, unfinished ones.
fn sweep(mirror: &Path) {
    sweep_folder(&mirror.join("objects"), true);
    sweep_folder(mirror, false);
}

fn sweep_folder(folder: &Path, objects: bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
        if is_folder && objects && (name.starts_with("incoming-") || name.starts_with("tmp_objdir-")) {
            let _ = std::fs::remove_dir_all(path);
        } else if is_folder {
            sweep_folder(&path, objects);
        } else if path.extension().is_some_and(|end| end == "lock") || (objects && name.starts_with("tmp_")) {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interrupted_fetch_left_goes_and_refs_of_such_names_stay() {
        let mirror = tempfile::tempdir().expect("dir");
        let at = |name: &str| mirror.path().join(name);
        let stay = ["refs/tags/tmp_a", "refs/tags/incoming-hooks/v1.0.0", "refs/heads/objects/tmp_b", "objects/pack/pack-1.pack"];
        let go = [
            "refs/tags/tmp_a.lock",
            "packed-refs.lock",
            "objects/pack/tmp_pack_1",
            "objects/incoming-1/pack",
            "objects/17/tmp_obj_1",
        ];
        for name in stay.iter().chain(&go) {
            std::fs::create_dir_all(at(name).parent().expect("folder")).expect("folder");
            std::fs::write(at(name), "").expect("file");
        }
        sweep(mirror.path());
        assert!(stay.iter().all(|name| at(name).exists()) && !go.iter().any(|name| at(name).exists()));
    }
}

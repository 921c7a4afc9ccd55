//! `type = "directory"`: a tree in the layout of the module cache's download folder, local or a mount, as the go command
//! reads it by `GOPROXY=file://…`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{Boxed, Failure, Incoming, MAX_INFO, MAX_LIST, Outage, Upstream, UpstreamError, check_go_mod, read_list};
use crate::base::Call;
use crate::module::list::VersionList;
use crate::module::zip::MAX_GO_MOD;
use crate::module::{Ask, Info, ModulePath, ModuleVersion, Query};
use crate::store::{Folder, Look, StoreError};

/// A directory of modules. It is only read.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    folder: Folder,
    limit: Duration,
    /// Looks under way. On a dead mount they never end, and each holds a thread.
    looks: Arc<Semaphore>,
    /// There was something in it once.
    filled: Arc<AtomicBool>,
}

/// The most looks into one directory at once.
const LOOKS: usize = 16;

impl Directory {
    /// A directory; `limit` bounds each look into it, since a dead mount never answers.
    pub fn new(root: &Path, limit: Duration) -> Self {
        let (looks, filled) = (Arc::new(Semaphore::new(LOOKS)), Arc::new(AtomicBool::new(false)));
        Self { root: root.to_owned(), folder: Folder::read_only(root), limit, looks, filled }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Folder) -> Result<Option<T>, StoreError> + Send + 'static,
    ) -> Result<T, UpstreamError> {
        let (folder, looks) = (self.folder.clone(), Arc::clone(&self.looks));
        let (root, filled) = (self.root.clone(), Arc::clone(&self.filled));
        let look = async move {
            let look = looks.acquire_owned().await.ok()?;
            let done = tokio::task::spawn_blocking(move || {
                let done = match work(folder) {
                    Ok(None) => is_there(&root, &filled).map(|()| None),
                    Ok(found) => {
                        filled.store(true, Ordering::Relaxed);
                        Ok(found)
                    }
                    failed => failed,
                };
                drop(look);
                done
            });
            done.await.ok()
        };
        match tokio::time::timeout(self.limit, look).await {
            Ok(Some(Ok(Some(found)))) => Ok(found),
            Ok(Some(Ok(None))) => Err(Failure::Absent(None).into()),
            Ok(Some(Err(e))) => Err(UpstreamError::disk(e)),
            // The work neither panics nor is cancelled while the runtime lives.
            Ok(None) | Err(_) => Err(Failure::Outage(Outage::DiskHangs(self.limit)).into()),
        }
    }

    async fn read(&self, ask: Ask, limit: u64) -> Result<Bytes, UpstreamError> {
        self.blocking(move |folder| Ok(folder.read(&ask, limit, Look::Full)?.map(|(bytes, _)| bytes))).await
    }
}

/// Whether a directory is there at all. Where it is gone, or empty and was not so before, as the place of a mount is that went, it
/// says nothing of what it has not.
fn is_there(root: &Path, filled: &AtomicBool) -> Result<(), StoreError> {
    let gone = |e| StoreError::new("read the folder", root, e);
    let empty = std::fs::read_dir(root).map_err(gone)?.next().transpose().map_err(gone)?.is_none();
    if !empty {
        filled.store(true, Ordering::Relaxed);
    } else if filled.load(Ordering::Relaxed) {
        return Err(gone(std::io::Error::other("it is empty and was not before")));
    }
    Ok(())
}

impl Upstream for Directory {
    fn list<'a>(&'a self, module: &'a ModulePath, _: &'a Call) -> Boxed<'a, VersionList> {
        Box::pin(async move {
            let bytes = self.read(Ask::List(module.clone()), MAX_LIST).await?;
            read_list(module, &bytes).map_err(UpstreamError::corrupt)
        })
    }

    fn latest<'a>(&'a self, module: &'a ModulePath, _: &'a Call) -> Boxed<'a, Info> {
        Box::pin(async move {
            let json = self.read(Ask::Latest(module.clone()), MAX_INFO).await?;
            Info::parse(json).map_err(UpstreamError::corrupt)
        })
    }

    fn info<'a>(&'a self, module: &'a ModulePath, query: &'a Query, _: &'a Call) -> Boxed<'a, Info> {
        Box::pin(async move {
            let json = self.read(Ask::Query(module.clone(), query.clone()), MAX_INFO).await?;
            Info::parse(json).map_err(UpstreamError::corrupt)
        })
    }

    fn go_mod<'a>(&'a self, version: &'a ModuleVersion, _: &'a Call) -> Boxed<'a, Bytes> {
        Box::pin(async move {
            let bytes = self.read(Ask::GoMod(version.clone()), MAX_GO_MOD).await?;
            check_go_mod(&bytes).map_err(UpstreamError::corrupt)?;
            Ok(bytes)
        })
    }

    fn zip<'a>(&'a self, version: &'a ModuleVersion, _: &'a Call) -> Boxed<'a, Incoming> {
        let ask = Ask::Zip(version.clone());
        Box::pin(async move { self.blocking(move |folder| folder.open(&ask, Look::Full)).await.map(Incoming::File) })
    }

    fn probe(&self) -> Boxed<'_, String> {
        let root = self.root.clone();
        Box::pin(async move {
            self.blocking(move |_| match std::fs::read_dir(&root) {
                Ok(_) => Ok(Some("a folder that can be read".to_owned())),
                Err(e) => Err(StoreError::new("read the folder", &root, e)),
            })
            .await
        })
    }
}

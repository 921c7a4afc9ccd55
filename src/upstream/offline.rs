//! `type = "offline"`: what imports brought, and nothing else. Its files are in its folder of the cache, where every upstream's are looked
//! for first; so all that is left to say is that there is no more, and which versions of a module were brought.

use bytes::Bytes;

use super::{Boxed, Failure, Incoming, MAX_LIST, Upstream, UpstreamError, read_list};
use crate::base::Call;
use crate::module::list::VersionList;
use crate::module::{Ask, Info, ModulePath, ModuleVersion, Query};
use crate::store::{Folder, Look};

/// An upstream that is never asked.
#[derive(Debug)]
pub struct Offline {
    folder: Folder,
}

impl Offline {
    /// An upstream with this folder.
    pub fn new(folder: Folder) -> Self {
        Self { folder }
    }
}

fn absent<'a, T>() -> Boxed<'a, T> {
    Box::pin(async { Err(Failure::Absent(None).into()) })
}

impl Upstream for Offline {
    fn list<'a>(&'a self, module: &'a ModulePath, _: &'a Call) -> Boxed<'a, VersionList> {
        let (folder, ask) = (self.folder.clone(), Ask::List(module.clone()));
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || folder.read(&ask, MAX_LIST, Look::Full)).await;
            let read = read.map_err(|e| UpstreamError::corrupt(format!("looking it up broke down: {e}")))?;
            let (bytes, _) = read.map_err(UpstreamError::disk)?.ok_or(Failure::Absent(None))?;
            read_list(module, &bytes).map_err(UpstreamError::corrupt)
        })
    }

    fn latest<'a>(&'a self, _: &'a ModulePath, _: &'a Call) -> Boxed<'a, Info> {
        absent()
    }

    fn info<'a>(&'a self, _: &'a ModulePath, _: &'a Query, _: &'a Call) -> Boxed<'a, Info> {
        absent()
    }

    fn go_mod<'a>(&'a self, _: &'a ModuleVersion, _: &'a Call) -> Boxed<'a, Bytes> {
        absent()
    }

    fn zip<'a>(&'a self, _: &'a ModuleVersion, _: &'a Call) -> Boxed<'a, Incoming> {
        absent()
    }

    fn probe(&self) -> Boxed<'_, String> {
        Box::pin(async { Ok("offline: nothing to be reached".into()) })
    }
}

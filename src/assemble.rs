//! Layer 9: the one place where the parts meet.

use std::sync::Arc;

use tokio::runtime::{Handle, Runtime};

use crate::config::{Config, UpstreamKind};
use crate::egress::{Egress, EgressStartError};
use crate::gateway::{Gateway, Member};
use crate::server::Site;
use crate::store::{DiskStore, Folder, StoreError};
use crate::upstream::Upstream;
use crate::upstream::directory::Directory;
use crate::upstream::goproxy::GoProxy;
use crate::upstream::guard::Guarded;

/// What outlives a reload: threads, and the cache's folder of temporary files.
pub struct Foundation {
    egress: Egress,
    store: Arc<DiskStore>,
    runtime: Runtime,
}

/// Why modgate cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The cache's folder cannot be used.
    #[error("cannot use the cache folder: {0}")]
    Store(#[from] StoreError),
    /// Egress cannot start.
    #[error(transparent)]
    Egress(#[from] EgressStartError),
    /// The runtime of fetches cannot start.
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
}

/// Threads of the gateway's runtime, on which fetches run. They wait more than they work; a slow disk may hold some of them.
const FETCH_THREADS: usize = 4;
/// Threads that sync files and read zips' directories, those included that a dead mount holds.
const BLOCKING_THREADS: usize = 256;
/// Threads that talk to upstreams.
const EGRESS_THREADS: usize = 1;

impl Foundation {
    /// Starts threads and opens the cache.
    ///
    /// # Errors
    /// What cannot be had.
    pub fn lay(config: &Config) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(FETCH_THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("fetch")
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        Ok(Self { egress: Egress::start(EGRESS_THREADS)?, store: DiskStore::open(&config.cache.dir)?, runtime })
    }

    /// Builds a gateway.
    pub fn gateway(&self, config: &Config) -> Arc<Gateway> {
        let members = config.upstreams.iter().map(|u| self.member(u)).collect();
        Gateway::new(config.gateway, config.routes.clone(), members, Arc::clone(&self.store), self.runtime.handle().clone())
    }

    /// Builds a gateway and its memory.
    pub fn site(&self, config: &Config) -> Site {
        Site::new(self.gateway(config), config.cache.memory)
    }

    fn member(&self, settings: &crate::config::Upstream) -> Member {
        let (upstream, folder): (Box<dyn Upstream>, Folder) = match &settings.kind {
            UpstreamKind::GoProxy(goproxy, policy) => {
                let way = self.egress.upstream(policy.clone());
                (Box::new(GoProxy::new(goproxy.clone(), way)), self.store.folder(&settings.name))
            }
            // A directory is its own cache.
            UpstreamKind::Directory(path, limit) => (Box::new(Directory::new(path, *limit)), Folder::read_only(path)),
        };
        let name: Arc<str> = settings.name.as_str().into();
        let upstream = Box::new(Guarded::new(Arc::clone(&name), upstream, settings.breaker));
        Member { name, private: settings.private, upstream, folder }
    }

    /// The cache's files.
    pub fn store(&self) -> &Arc<DiskStore> {
        &self.store
    }

    /// Where fetches run.
    pub fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Ends the threads; what is still running is given up.
    pub fn close(self) {
        self.runtime.shutdown_background();
    }
}

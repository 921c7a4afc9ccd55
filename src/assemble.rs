//! Layer 9: the one place where the parts meet.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{Handle, Runtime};

use crate::config::{self as settings, Config, UpstreamKind};
use crate::egress::{Egress, EgressStartError, TlsError};
use crate::gateway::{Gateway, Member};
use crate::server::Site;
use crate::store::{DiskStore, Folder, StoreError};
use crate::upstream::Upstream;
use crate::upstream::directory::Directory;
use crate::upstream::goproxy::GoProxy;
use crate::upstream::guard::Guarded;
use crate::upstream::vcs::Vcs;
use crate::vcs::Fetcher;

/// What outlives a reload: threads, and the cache's folder of temporary files.
pub struct Foundation {
    egress: Egress,
    store: Arc<DiskStore>,
    runtime: Runtime,
    /// The upstreams of the configuration that is in force, with their settings. One whose settings a reload leaves as they are
    /// stays itself: its connections, its limits' counts and its breaker's state go on.
    upstreams: Mutex<Vec<(settings::Upstream, Arc<dyn Upstream>)>>,
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
    /// TLS to an upstream cannot be set up.
    #[error("upstreams.{0}: {1}")]
    Upstream(String, TlsError),
    /// The runtime of fetches cannot start.
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
}

/// Threads of the gateway's runtime, on which fetches run. They wait more than they work; a slow disk may hold some of them.
const FETCH_THREADS: usize = 4;
/// Threads that sync files and read zips' directories, those included that a dead mount holds.
const BLOCKING_THREADS: usize = 256;
/// The folder of repositories' mirrors, beside the upstreams' folders. No upstream's name starts with a dot.
pub(crate) const MIRRORS: &str = ".vcs";
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
        let (egress, store) = (Egress::start(EGRESS_THREADS)?, DiskStore::open(&config.cache.dir)?);
        Ok(Self { egress, store, runtime, upstreams: Mutex::default() })
    }

    /// Builds a gateway.
    ///
    /// # Errors
    /// An upstream that cannot be set up.
    pub fn gateway(&self, config: &Config) -> Result<Arc<Gateway>, StartError> {
        let mut kept = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        let made = config.upstreams.iter().map(|settings| {
            let same = kept.iter().find(|(before, _)| before == settings).map(|(_, upstream)| Arc::clone(upstream));
            Ok((settings.clone(), same.map_or_else(|| self.upstream(settings), Ok)?))
        });
        let made = made.collect::<Result<Vec<_>, StartError>>()?;
        let members = made.iter().map(|(settings, upstream)| self.member(settings, Arc::clone(upstream))).collect();
        *kept = made;
        let (store, runtime) = (Arc::clone(&self.store), self.runtime.handle().clone());
        Ok(Gateway::new(config.gateway, config.routes.clone(), members, store, runtime))
    }

    /// Builds a gateway and its memory.
    ///
    /// # Errors
    /// An upstream that cannot be set up.
    pub fn site(&self, config: &Config) -> Result<Site, StartError> {
        Ok(Site::new(self.gateway(config)?, config.cache.memory, config.vanity.clone()))
    }

    fn upstream(&self, settings: &settings::Upstream) -> Result<Arc<dyn Upstream>, StartError> {
        let name: Arc<str> = settings.name.as_str().into();
        let upstream: Arc<dyn Upstream> = match &settings.kind {
            UpstreamKind::GoProxy(goproxy, policy) => {
                let way = self.egress.upstream(Arc::clone(&name), (**policy).clone());
                Arc::new(GoProxy::new(goproxy.clone(), way.map_err(|e| StartError::Upstream(name.to_string(), e))?))
            }
            UpstreamKind::Vcs(vcs, policy) => {
                let way = self.egress.upstream(Arc::clone(&name), (**policy).clone());
                let way = way.map_err(|e| StartError::Upstream(name.to_string(), e))?;
                let folder = self.store.root().join(MIRRORS).join(&*name);
                let fetcher = Fetcher::new((**vcs).clone(), policy, way.clone(), &folder);
                let unusable = |e| StoreError::new("make the folder of mirrors", &folder, e);
                Arc::new(Vcs::new(fetcher.map_err(unusable)?, way))
            }
            UpstreamKind::Directory(path, limit) => Arc::new(Directory::new(path, *limit)),
        };
        Ok(Arc::new(Guarded::new(name, upstream, settings.breaker)))
    }

    fn member(&self, settings: &settings::Upstream, upstream: Arc<dyn Upstream>) -> Member {
        let folder = match &settings.kind {
            UpstreamKind::GoProxy(..) | UpstreamKind::Vcs(..) => self.store.folder(&settings.name),
            // A directory is its own cache.
            UpstreamKind::Directory(path, _) => Folder::read_only(path),
        };
        Member { name: settings.name.as_str().into(), private: settings.private, upstream, folder }
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

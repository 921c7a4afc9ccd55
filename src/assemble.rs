//! Layer 9: the one place where the parts meet.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{Handle, Runtime};

use crate::access::jwt::{Issuer, Keys};
use crate::access::{self, Access, NoRandomness};
use crate::config::{self as settings, Config, UpstreamKind, Via};
use crate::egress::{Egress, EgressHandle, EgressStartError, Policy, TlsError};
use crate::gateway::{Gateway, Member, Trust};
use crate::server::limits::Limiters;
use crate::server::tls::Tls;
use crate::server::{self, Entrance, Site};
use crate::store::{DiskStore, Folder, Shelf, StoreError};
use crate::sumdb::{self, Database, OpenError, Source};
use crate::upstream::Upstream;
use crate::upstream::directory::Directory;
use crate::upstream::goproxy::GoProxy;
use crate::upstream::guard::Guarded;
use crate::upstream::offline::Offline;
use crate::upstream::vcs::Vcs;
use crate::vcs::Fetcher;

/// What outlives a reload: threads, and the cache's folder of temporary files.
pub struct Foundation {
    egress: Egress,
    store: Arc<DiskStore>,
    runtime: Runtime,
    /// The upstreams of the configuration that is in force, with their settings. One whose settings a reload leaves as they are
    /// stays itself: its connections, its limits' counts and its breaker's state go on.
    upstreams: Mutex<Vec<Made>>,
    /// The same of who people are, which has been found out at some cost, and of how much they asked.
    people: Mutex<Option<People>>,
}

/// What is known of people that a reload which does not touch it leaves alone.
#[derive(Clone)]
struct People {
    access: Arc<Access>,
    limits: Arc<Limiters>,
}

/// An upstream that was made of its settings, and its way out, where it has one of its own.
#[derive(Clone)]
struct Made {
    settings: settings::Upstream,
    upstream: Arc<dyn Upstream>,
    way: Option<EgressHandle>,
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
    /// TLS to an issuer's server cannot be set up.
    #[error("auth.issuers.{0}: {1}")]
    Issuer(String, TlsError),
    /// TLS at the listener cannot be set up.
    #[error("server.tls: {0}")]
    Tls(server::tls::TlsError),
    /// Nobody can be told apart.
    #[error(transparent)]
    Access(#[from] NoRandomness),
    /// A checksum database cannot be taken up.
    #[error("checksum database {0}: {1}")]
    Database(String, OpenError),
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
        Ok(Self { egress, store, runtime, upstreams: Mutex::default(), people: Mutex::default() })
    }

    /// Builds a gateway.
    ///
    /// # Errors
    /// An upstream that cannot be set up.
    pub fn gateway(&self, config: &Config) -> Result<Arc<Gateway>, StartError> {
        let mut kept = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        let made = config.upstreams.iter().map(|settings| {
            let same = kept.iter().find(|before| before.settings == *settings).cloned();
            same.map_or_else(|| self.upstream(settings), Ok)
        });
        let made = made.collect::<Result<Vec<_>, StartError>>()?;
        let members = made.iter().map(|made| self.member(&made.settings, Arc::clone(&made.upstream))).collect();
        let databases = config.databases.iter().map(|database| self.database(database, &made)).collect::<Result<_, _>>()?;
        let trust = Trust { databases, no_sumdb: config.no_sumdb.clone() };
        *kept = made;
        let (store, runtime) = (Arc::clone(&self.store), self.runtime.handle().clone());
        Ok(Gateway::new(config.gateway.clone(), config.teams.clone(), members, trust, store, runtime))
    }

    /// Takes a checksum database up where it was left.
    fn database(&self, settings: &settings::Database, upstreams: &[Made]) -> Result<Arc<Database>, StartError> {
        let name = settings.key.name();
        let mut sources = Vec::new();
        for via in &settings.via {
            match via {
                Via::Upstream(at) => {
                    let Made { settings, way, .. } = &upstreams[*at];
                    if let (UpstreamKind::GoProxy(proxy, _), Some(way)) = (&settings.kind, way) {
                        let (upstream, absent) = (settings.name.as_str().into(), proxy.absent.clone());
                        sources.push(Source::proxy(upstream, &proxy.url, name, way.clone(), absent));
                    }
                }
                Via::Direct(url, policy) => {
                    let way = self.egress.upstream(name.into(), (**policy).clone());
                    sources.push(Source::direct(url.clone(), way.map_err(|e| StartError::Upstream(name.to_owned(), e))?));
                }
            }
        }
        self.open(settings, sources)
    }

    /// Builds a gateway, its memory, and who may ask it.
    ///
    /// # Errors
    /// An upstream, or TLS, that cannot be set up.
    pub fn site(&self, config: &Config) -> Result<Site, StartError> {
        // What can be wrong with TLS is found out before anything is changed.
        let tls = config.server.tls.as_ref().map(Tls::new).transpose().map_err(StartError::Tls)?.map(Arc::new);
        let gateway = self.gateway(config)?;
        let People { access, limits } = self.people(config)?;
        let entrance = Entrance { doors: config.doors.clone(), access, limits, tls };
        Ok(Site::new(gateway, entrance, config.cache.memory, config.vanity.clone()))
    }

    fn people(&self, config: &Config) -> Result<People, StartError> {
        let mut kept = self.people.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.as_ref();
        let access = match before.map(|people| &people.access).filter(|access| *access.settings() == config.access) {
            Some(access) => Arc::clone(access),
            None => self.access(&config.access, before.map(|people| &*people.access))?,
        };
        let limits = match before.map(|people| &people.limits).filter(|limits| limits.is_for(&config.limits)) {
            Some(limits) => Arc::clone(limits),
            None => Arc::new(Limiters::new(&config.limits)),
        };
        Ok(kept.insert(People { access, limits }).clone())
    }

    /// Who people are.
    ///
    /// # Errors
    /// TLS to an issuer that cannot be set up.
    pub fn access(&self, settings: &access::Settings, before: Option<&Access>) -> Result<Arc<Access>, StartError> {
        let way = |issuer: &Issuer| match &issuer.keys {
            Keys::Set(_) => Ok(None),
            Keys::Server(_, policy, _) => {
                let way = self.egress.upstream(issuer.name.as_str().into(), (**policy).clone());
                way.map(Some).map_err(|e| StartError::Issuer(issuer.name.clone(), e))
            }
        };
        let ways = settings.issuers.iter().map(way).collect::<Result<Vec<_>, StartError>>()?;
        Ok(Access::new(settings.clone(), ways, self.runtime.handle().clone(), before)?)
    }

    /// The shelf of a database's files below a folder.
    pub fn files(&self, folder: &Path, database: &str) -> Shelf {
        Shelf::at(folder.join(database), &self.store)
    }

    /// The database as it is kept, with the files below a folder to ask instead of anybody.
    ///
    /// # Errors
    /// That what is kept of it cannot be read.
    pub fn database_of_files(&self, settings: &settings::Database, folder: &Path) -> Result<Arc<Database>, StartError> {
        let name = settings.key.name();
        self.open(settings, vec![Source::files("the bundle".into(), self.files(folder, name))])
    }

    fn open(&self, settings: &settings::Database, sources: Vec<Source>) -> Result<Arc<Database>, StartError> {
        let name = settings.key.name();
        let shelf = self.store.shelf(&sumdb::folder(name));
        let opened = Database::open(settings.key.clone(), shelf, sources, self.runtime.handle().clone());
        opened.map_err(|e| StartError::Database(name.to_owned(), e))
    }

    fn upstream(&self, settings: &settings::Upstream) -> Result<Made, StartError> {
        let name: Arc<str> = settings.name.as_str().into();
        let way = |policy: &Policy| {
            let way = self.egress.upstream(Arc::clone(&name), policy.clone());
            way.map_err(|e| StartError::Upstream(name.to_string(), e))
        };
        let (upstream, way): (Arc<dyn Upstream>, _) = match &settings.kind {
            UpstreamKind::GoProxy(goproxy, policy) => {
                let way = way(policy)?;
                (Arc::new(GoProxy::new(goproxy.clone(), way.clone())), Some(way))
            }
            UpstreamKind::Vcs(vcs, policy) => {
                let way = way(policy)?;
                let folder = self.store.root().join(MIRRORS).join(&*name);
                let fetcher = Fetcher::new((**vcs).clone(), policy, way.clone(), &folder);
                let unusable = |e| StoreError::new("make the folder of mirrors", &folder, e);
                (Arc::new(Vcs::new(fetcher.map_err(unusable)?, way.clone())), Some(way))
            }
            UpstreamKind::Directory(path, limit) => (Arc::new(Directory::new(path, *limit)), None),
            UpstreamKind::Offline => (Arc::new(Offline::new(self.store.folder(&name))), None),
        };
        let upstream = Arc::new(Guarded::new(name, upstream, settings.breaker));
        Ok(Made { settings: settings.clone(), upstream, way })
    }

    fn member(&self, settings: &settings::Upstream, upstream: Arc<dyn Upstream>) -> Member {
        let folder = match &settings.kind {
            UpstreamKind::GoProxy(..) | UpstreamKind::Vcs(..) | UpstreamKind::Offline => self.store.folder(&settings.name),
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

//! `modgate serve`: listeners, signals, reload, and the upkeep of the cache.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::upkeep::{self, Bounds};
use super::watch::changed;
use super::{CliError, err, start_logging, warn};
use crate::assemble::{Foundation, MIRRORS};
use crate::config::read::Watch;
use crate::config::{Config, Origin};
use crate::gateway::Gateway;
use crate::server::audit::Audit;
use crate::server::{self, Listen, Role, Shared};

/// How long a configuration and its files may take to be read again.
const READING: Duration = Duration::from_secs(60);

pub(super) fn run(file: Option<&Path>, watch: bool) -> Result<(), CliError> {
    let config = Config::load(file)?;
    warn(&config);
    let _guard = start_logging(&config.log);
    raise_file_limit(config.gateway.max_fetches);
    keep_pages_small();
    let foundation = Foundation::lay(&config)?;
    let shared = Shared::new(foundation.site(&config)?);
    let system = actix_rt::System::new();
    let audit = config.audit.clone().map(Audit::start).transpose();
    let (audit, writing) = audit.map_err(|e| CliError::Said(format!("audit.file: cannot be opened: {e}")))?.unzip();
    shared.audit_by(audit.clone());
    let serving = Serving { file, foundation: &foundation, shared: &shared, audit, origin: Cell::new(config.origin) };
    let served = system.block_on(serving.serve(config, watch));
    foundation.close();
    shared.audit_by(None);
    if let Some(writing) = writing {
        writing.stop();
    }
    served
}

/// What a reload touches.
struct Serving<'a> {
    file: Option<&'a Path>,
    foundation: &'a Foundation,
    shared: &'a Arc<Shared>,
    audit: Option<Arc<Audit>>,
    /// Where the upstreams that are in force come from.
    origin: Cell<Origin>,
}

impl Serving<'_> {
    async fn serve(&self, config: Config, watch: bool) -> Result<(), CliError> {
        let Self { foundation, shared, .. } = *self;
        let grace = config.server.shutdown_grace;
        let mut servers = Vec::new();
        for listener in listeners(&config) {
            servers.push(server::listen(&listener, shared)?);
        }
        let handles: Vec<_> = servers.iter().map(actix_server::Server::handle).collect();
        let running: Vec<_> = servers.into_iter().map(|server| actix_rt::spawn(server)).collect();
        greet(&config);
        let bounds = Bounds { max_size: config.cache.max_size, min_free: config.cache.min_free };
        foundation.runtime().spawn(upkeep::of_cache(Arc::clone(foundation.store()), Arc::clone(shared), bounds));
        foundation.runtime().spawn(upkeep::of_zips(Arc::clone(shared), bounds));
        foundation.runtime().spawn(upkeep::of_mirrors(foundation.store().root().join(MIRRORS), config.cache.mirror_ttl));

        let mut reload = signal(SignalKind::hangup())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut files = config.files.clone();
        loop {
            let again = tokio::select! {
                _ = reload.recv() => true,
                () = changed(&mut files), if watch => true,
                _ = terminate.recv() => false,
                _ = interrupt.recv() => false,
            };
            if !again {
                break;
            }
            files = self.read_again(&config, files).await;
        }
        tracing::info!(grace = ?grace, "stopping");
        shared.stop();
        let deadline = Instant::now() + grace;
        let stop = async {
            futures_util::future::join_all(handles.iter().map(|handle| handle.stop(true))).await;
            futures_util::future::join_all(running).await;
            settle(&shared.gateways(), deadline.saturating_duration_since(Instant::now())).await;
        };
        // A second signal, or the end of the grace, ends it at once.
        tokio::select! {
            () = stop => {}
            () = tokio::time::sleep_until(deadline + Duration::from_secs(1)) => tracing::warn!("the grace is over; answers under way are broken off"),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Reads the configuration again. A bad one changes nothing. Some keys are as the start had them. Gives the files to be watched from
    /// now on: with a bad one its own too, for it may be them that are missing or wrong.
    async fn read_again(&self, started: &Config, watched: Vec<Watch>) -> Vec<Watch> {
        let file = self.file.map(Path::to_path_buf);
        let reading = tokio::task::spawn_blocking(move || Config::load(file.as_deref()));
        // A mount that hangs must not keep the process from being stopped.
        match tokio::time::timeout(READING, reading).await {
            Ok(Ok(Ok(config))) => {
                let files = config.files.clone();
                self.take_up(started, config);
                files
            }
            Ok(Ok(Err(e))) => {
                for finding in &e.findings {
                    tracing::error!(%finding, "the new configuration is bad; the old one stays");
                }
                let others = watched.into_iter().filter(|old| !e.files.iter().any(|new| new.path == old.path));
                others.chain(e.files.clone()).collect()
            }
            Ok(Err(_)) | Err(_) => {
                tracing::error!(limit = ?READING, "the new configuration cannot be read in time; the old one stays");
                watched
            }
        }
    }

    /// Puts a good configuration in force.
    fn take_up(&self, started: &Config, config: Config) {
        if config.server.tls.is_none() && started.server.tls.is_some() {
            tracing::error!("the new configuration has no server.tls, and the listener speaks TLS; the old one stays");
            return;
        }
        // Its fences, policy and people went with them; what is left would send private names to the public.
        if (self.origin.get(), config.origin) == (Origin::Configured, Origin::GoSettings) {
            tracing::error!("the new configuration names no upstreams and no routes any more; the old one stays");
            return;
        }
        let site = match self.foundation.site(&config) {
            Ok(site) => site,
            Err(e) => {
                tracing::error!(error = %e, "the new configuration cannot be used; the old one stays");
                return;
            }
        };
        for warning in &config.warnings {
            tracing::warn!(%warning, "configuration");
        }
        let fixed = [
            ("server.listen", config.server.listen != started.server.listen),
            ("server.listen_plain", config.server.listen_plain != started.server.listen_plain),
            ("server.tls", config.server.tls.is_some() != started.server.tls.is_some()),
            ("admin.listen", config.server.admin != started.server.admin),
            ("server.workers", config.server.workers != started.server.workers),
            ("server.shutdown_grace", config.server.shutdown_grace != started.server.shutdown_grace),
            ("cache.dir", config.cache.dir != started.cache.dir),
            ("cache.mirror_ttl", config.cache.mirror_ttl != started.cache.mirror_ttl),
            ("cache.max_size", config.cache.max_size != started.cache.max_size),
            ("cache.min_free", config.cache.min_free != started.cache.min_free),
            ("log", config.log != started.log),
            ("audit", config.audit.is_some() != started.audit.is_some()),
        ];
        for (key, _) in fixed.iter().filter(|(_, changed)| *changed) {
            tracing::warn!(key, "a change of this key takes effect at the next start");
        }
        self.shared.swap(site);
        self.origin.set(config.origin);
        if let (Some(audit), Some(settings)) = (&self.audit, config.audit) {
            audit.settle(settings);
        }
        tracing::info!("the new configuration is in force");
    }
}

/// Lets the process have as many open files as the system allows it: connections and files being sent need one each.
fn raise_file_limit(max_fetches: usize) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        // The limit that there is serves too; it only holds fewer.
        let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    // A fetch has its upstream, its asker and its file; the rest is for those who are served from the cache.
    let wanted = max_fetches as u64 * 3 + 256;
    if let Some(files) = getrlimit(Resource::Nofile).current
        && files < wanted
    {
        tracing::warn!(files, wanted, "the system's limit of open files (ulimit -n) is too low for server.max_fetches");
    }
}

/// Has memory come in small pages. Threads hold little each, and with huge pages each of them is given 2 MiB at a time, all of which
/// the system clears first: that made half of the cost of an answer from the disk, and most of the memory.
fn keep_pages_small() {
    // A system that cannot do this, or need not, goes on as it is.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// The listeners of a configuration. An address that both name serves both.
fn listeners(config: &Config) -> Vec<Listen> {
    let server = &config.server;
    let of =
        |addresses: Vec<SocketAddr>, role, tls, workers| Listen { addresses, workers, grace: server.shutdown_grace, role, tls };
    let mut listeners = Vec::new();
    for (addresses, tls) in [(&server.listen, server.tls.is_some()), (&server.listen_plain, false)] {
        let (both, proxy): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(|a| server.admin.contains(a));
        listeners.push(of(proxy, Role { proxy: true, admin: false }, tls, server.workers));
        listeners.push(of(both, Role { proxy: true, admin: true }, tls, server.workers));
    }
    let alone = |a: &&SocketAddr| !server.listen.contains(a) && !server.listen_plain.contains(a);
    listeners.push(of(server.admin.iter().filter(alone).copied().collect(), Role { proxy: false, admin: true }, false, Some(1)));
    listeners.retain(|listener| !listener.addresses.is_empty());
    listeners
}

/// Says where it serves, and the line to copy.
fn greet(config: &Config) {
    if config.origin == Origin::GoSettings {
        let names: Vec<&str> = config.upstreams.iter().map(|u| u.name.as_str()).collect();
        err(format_args!("modgate: no upstreams configured; from this machine's Go settings: {}", names.join(", ")));
    }
    let listen = &config.server.listen;
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    tracing::info!(listen = ?listen, plain = ?config.server.listen_plain, tls = config.server.tls.is_some(), admin = ?config.server.admin, cache = %config.cache.dir.display(), "serving");
    if let Some(address) = listen.first() {
        let host = if address.ip().is_unspecified() { format!("THIS-HOST:{}", address.port()) } else { address.to_string() };
        err("modgate: ready. For the go command:");
        err(format_args!("\n    go env -w GOPROXY={scheme}://{host}\n"));
    }
}

/// Waits until no fetch is under way and all that came is stored; whether that came about.
pub(super) async fn settle(gateways: &[Arc<Gateway>], limit: Duration) -> bool {
    let under_way = || gateways.iter().map(|g| g.under_way()).sum::<usize>();
    let settled = async {
        while under_way() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(limit, settled).await.is_ok();
    if !in_time {
        tracing::warn!(fetches = under_way(), "fetches are given up");
    }
    in_time
}

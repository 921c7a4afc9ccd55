//! What keeps the cache's folder in order while modgate serves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::units::show_size;
use crate::server::Shared;
use crate::store::evict::{self, EvictRule, Evicted, IN_USE};
use crate::store::{DiskStore, StoreError};
use crate::vcs::mirrors::remove_unused;

/// How often the size of the cache, and what the disk has left, is looked at.
const EVERY: Duration = Duration::from_secs(30);
/// Where it lacks something and nothing can go, that is looked at again after so long, or when more has come.
const IN_VAIN: Duration = Duration::from_secs(300);
/// How often it is counted anew, whatever was added meanwhile: files may come and go by other hands.
const RECOUNT: Duration = Duration::from_secs(6 * 3600);

/// How often zips are looked for that came by other hands.
const OTHERS: Duration = Duration::from_secs(3600);

/// What the cache on disk keeps to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The most bytes that it takes; `None` is no bound.
    pub(super) max_size: Option<u64>,
    /// The bytes that it leaves to others on its disk.
    pub(super) min_free: u64,
}

/// What a look at the cache found.
#[derive(Debug)]
struct Looked {
    /// Bytes in the cache after it.
    used: u64,
    /// Bytes that the disk lacked.
    lacked: u64,
    /// What was done, where something had to be.
    evicted: Option<Evicted>,
}

impl Bounds {
    /// How many bytes the disk lacks. Blocks.
    fn lacking(self, store: &DiskStore) -> u64 {
        if self.min_free == 0 { 0 } else { evict::free(store.root()).map_or(0, |free| self.min_free.saturating_sub(free)) }
    }

    /// The bytes that come until the disk is looked at again: long before what it has to have left is used up.
    fn step(self) -> u64 {
        (self.min_free / 4).max(1)
    }

    /// Counts, and removes what has to go by the configuration of this moment. `full` says that there was no room for something.
    /// Blocks.
    fn look(self, store: &DiskStore, shared: &Shared, full: bool) -> Result<Looked, StoreError> {
        let expendable = shared.site().gateway().expendable().clone();
        let used = evict::count(store.root(), &expendable.beside)?;
        // What there was no room for may have been larger than all that is free.
        let lacked = self.lacking(store).max(if full { self.step() } else { 0 });
        // More than has to, so that not every new file brings on another round.
        let by_size = self.max_size.filter(|most| used > *most).map(|most| most / 10 * 9);
        let by_disk = (lacked > 0).then(|| used.saturating_sub(lacked).saturating_sub(self.step()).saturating_sub(used / 50));
        let Some(max_size) = by_size.into_iter().chain(by_disk).min() else {
            return Ok(Looked { used, lacked, evicted: None });
        };
        // What goes while it is in use is fetched again; without room nothing would be.
        let in_use = if full || lacked > self.min_free / 2 { Duration::ZERO } else { IN_USE };
        let done = evict::evict(store.root(), &EvictRule { max_size, expendable, in_use })?;
        Ok(Looked { used: done.after, lacked, evicted: Some(done) })
    }

    /// Says what was done.
    fn tell(self, looked: &Looked) {
        let Some(done) = looked.evicted else { return };
        let (before, after, freed) = (show_size(done.before), show_size(done.after), done.before - done.after);
        let over = self.max_size.is_some_and(|most| done.after > most);
        if done.removed > 0 {
            let why = if looked.lacked > 0 { "the disk had less than cache.min_free left" } else { "the cache was over its bound" };
            tracing::info!(before, after, files = done.removed, "{why}");
        }
        if over || freed < looked.lacked {
            let lacking = show_size(looked.lacked.saturating_sub(freed));
            tracing::warn!(
                kept = show_size(done.kept),
                lacking,
                "the cache or the disk stays over its bound: what is left is private, in use, or not the cache's"
            );
        }
    }
}

/// Keeps the disk cache below its bounds.
pub(super) async fn of_cache(store: Arc<DiskStore>, shared: Arc<Shared>, bounds: Bounds) {
    let mut counted: Option<Instant> = None;
    // What was in the cache, and when, as the disk lacked something and nothing could go.
    let mut in_vain: Option<(u64, Instant)> = None;
    let mut full = false;
    loop {
        let growing = store.growing(if bounds.min_free > 0 { bounds.step() } else { u64::MAX });
        let lacks = {
            let store = Arc::clone(&store);
            full || tokio::task::spawn_blocking(move || bounds.lacking(&store) > 0).await.unwrap_or(false)
        };
        let due = bounds.max_size.is_some() && counted.is_none_or(|at| at.elapsed() > RECOUNT);
        let over = bounds.max_size.is_some_and(|most| store.used() > most);
        let came = |before: u64| store.used().saturating_sub(before);
        let hopeless = in_vain.is_some_and(|(used, at)| came(used) < bounds.step() && at.elapsed() < IN_VAIN);
        if due || over || (lacks && !hopeless) {
            let looking = {
                let (store, shared) = (Arc::clone(&store), Arc::clone(&shared));
                tokio::task::spawn_blocking(move || bounds.look(&store, &shared, full))
            };
            match looking.await {
                Ok(Ok(looked)) => {
                    store.counted(looked.used);
                    let freed = looked.evicted.is_some_and(|done| done.removed > 0);
                    in_vain = (looked.lacked > 0 && !freed).then(|| (looked.used, Instant::now()));
                    if freed {
                        shared.site().close_files();
                    }
                    bounds.tell(&looked);
                }
                Ok(Err(e)) => tracing::error!(error = %e, "the cache cannot be brought below its bound"),
                Err(e) => tracing::error!(error = %e, "the upkeep of the cache broke down"),
            }
            counted = Some(Instant::now());
        }
        full = tokio::select! {
            () = tokio::time::sleep(EVERY) => false,
            () = growing => false,
            () = store.told_full(), if bounds.min_free > 0 => true,
        };
        shared.site().tidy();
    }
}

/// Has kept zips written anew without compression, where that is wanted: at first all, then those that come, and now and then all again,
/// for some come by other hands.
pub(super) async fn of_zips(shared: Arc<Shared>, bounds: Bounds) {
    loop {
        let gateway = Arc::clone(shared.site().gateway());
        let in_force = || Arc::ptr_eq(shared.site().gateway(), &gateway);
        if gateway.uncompress_all(bounds.max_size, in_force).await {
            // What they were like takes its room as long as it is open.
            shared.site().close_files();
        }
        let again = Instant::now() + OTHERS;
        while in_force() && Instant::now() < again {
            gateway.uncompress_next(EVERY).await;
        }
    }
}

/// Removes mirrors that nothing is fetched into, now and then.
pub(super) async fn of_mirrors(root: PathBuf, age: Duration) {
    loop {
        let root = root.clone();
        match tokio::task::spawn_blocking(move || remove_unused(&root, age)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(removed)) => tracing::info!(removed, "mirrors of repositories went into which nothing was fetched for long"),
            Ok(Err(e)) => tracing::error!(error = %e, "unused mirrors cannot be removed"),
            Err(e) => tracing::error!(error = %e, "the upkeep of the mirrors broke down"),
        }
        tokio::time::sleep(RECOUNT).await;
    }
}

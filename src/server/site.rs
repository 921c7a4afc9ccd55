//! What all workers share: the site, which is swapped as one when the configuration is read again. It holds the gateway, who comes
//! in, and the memory of ready answers, each under its team's name.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::audit::Audit;
use super::identify::Doors;
use super::limits::Limiters;
use super::respond::{self, Prepared};
use super::tls::Tls;
use super::vanity;
use crate::access::Access;
use crate::gateway::Gateway;
use crate::store::Memory;

/// What is swapped as one when the configuration is read again.
pub struct Site {
    gateway: Arc<Gateway>,
    pub(super) entrance: Entrance,
    ready: Memory<Prepared>,
    /// Files that stay open for their next asker.
    open: Memory<Prepared>,
    pub(super) vanity: Vec<vanity::Rule>,
}

/// Who comes in, as what, and how often.
pub struct Entrance {
    /// Which teams there are, and who is of them. By the places of the gateway's teams.
    pub doors: Doors,
    /// Who people are.
    pub access: Arc<Access>,
    /// How often they may ask.
    pub limits: Arc<Limiters>,
    /// What TLS is spoken with them, where there is a listener for it.
    pub tls: Option<Arc<Tls>>,
}

thread_local! {
    /// Where the name of a team's answer is put together.
    static NAME: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The name in memory of a team's answer to a path. No team is ever given another's.
fn named<T>(team: usize, path: &str, with: impl FnOnce(&str) -> T) -> T {
    use std::fmt::Write;
    if team == 0 {
        return with(path);
    }
    NAME.with_borrow_mut(|name| {
        name.clear();
        // A text takes whatever is written. Everybody's names begin with a slash (see `refuse_early`), these with a digit, and the
        // number ends with the space: no two teams have a name in common.
        let _ = write!(name, "{team} {path}");
        with(name)
    })
}

impl Site {
    /// A gateway and who may ask it, `memory` bytes for its small answers, and the vanity host's rules.
    pub fn new(gateway: Arc<Gateway>, entrance: Entrance, memory: u64, vanity: Vec<vanity::Rule>) -> Self {
        // An eighth of what the process may have open, and never many: connections need theirs.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
        let files = (limit / 8).clamp(16, 1024);
        let weight = respond::OPEN_FILE_WEIGHT as u64;
        Self { gateway, entrance, ready: Memory::new(memory), open: Memory::new(files * weight), vanity }
    }

    /// Closes the files that are held open for their next asker: after eviction, whose space they would keep.
    pub fn close_files(&self) {
        self.open.retain(|_| false);
    }

    /// Closes those that have been open for their time, so that removed ones give their space back.
    pub fn tidy(&self) {
        let now = Instant::now();
        self.open.retain(|prepared| prepared.is_fresh(now));
    }

    pub(super) fn find(&self, team: usize, path: &str) -> Option<Arc<Prepared>> {
        named(team, path, |name| self.ready.get(name).or_else(|| self.open.get(name)))
    }

    pub(super) fn put(&self, team: usize, path: &str, prepared: Prepared) {
        let memory = if prepared.is_file() { &self.open } else { &self.ready };
        named(team, path, |name| memory.put(name, Arc::new(prepared)));
    }

    /// The gateway.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }
}

/// What all workers share.
pub struct Shared {
    pub(super) site: ArcSwap<Site>,
    /// Gateways of configurations before, which may still have fetches under way.
    before: Mutex<Vec<Weak<Gateway>>>,
    pub(super) audit: ArcSwapOption<Audit>,
    stopping: AtomicBool,
}

impl Shared {
    /// Starts with a site.
    pub fn new(site: Site) -> Arc<Self> {
        Arc::new(Self {
            site: ArcSwap::from_pointee(site),
            before: Mutex::default(),
            audit: ArcSwapOption::empty(),
            stopping: AtomicBool::new(false),
        })
    }

    /// From now on requests are written down there, or nowhere.
    pub fn audit_by(&self, audit: Option<Arc<Audit>>) {
        self.audit.store(audit);
    }

    /// Puts another site in its place. Requests under way finish with the one they began with.
    pub fn swap(&self, site: Site) {
        let old = self.site.swap(Arc::new(site));
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        before.retain(|gateway| gateway.strong_count() > 0);
        before.push(Arc::downgrade(&old.gateway));
    }

    /// The gateway of this moment, and those before it that somebody still needs.
    pub fn gateways(&self) -> Vec<Arc<Gateway>> {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        before.iter().filter_map(Weak::upgrade).chain([Arc::clone(&self.site().gateway)]).collect()
    }

    /// The site of this moment.
    pub fn site(&self) -> Arc<Site> {
        self.site.load_full()
    }

    /// From now on `/-/readyz` says no.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

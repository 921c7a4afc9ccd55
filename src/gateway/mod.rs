//! Layer 6: how a question becomes an answer.
//!
//! [`Gateway::answer`] reads top to bottom: the plan says which upstreams a path may be asked of; what never changes is
//! looked up in their folders and otherwise fetched along the chain ([`chain`]); what changes (lists, `@latest`, queries) is
//! made from a copy an upstream, each with its own age ([`copies`]). Cache entries belong to the upstream that gave them,
//! and only the plan's upstreams are looked at: routing comes before the cache.
//!
//! Every fetch is a flight ([`flight`]): one for any number of askers, on the gateway's own runtime, so that neither a leaving
//! client nor a busy worker disturbs it. Decisions without I/O stand apart: [`freshness`], [`list`], and in
//! [`crate::route`] the fallback rules.

pub mod answer;
mod chain;
mod copies;
pub mod error;
mod flight;
pub mod freshness;
pub mod list;
pub mod trail;
mod transfer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;

pub use answer::{Answer, Content, Kind, Lifetime, Outcome};
pub use error::{ChainVerdict, GatewayError};
pub use trail::{Attempt, CacheStatus, Trail, Verdict};

use crate::base::Call;
use crate::module::{Ask, Info, ModulePath, ModuleVersion, Query, Version};
use crate::route::{ListMode, PartialRule, Plan, RouteTable};
use crate::store::memory::Weigh;
use crate::store::{DiskStore, Folder, Memory};
use crate::upstream::{Upstream, UpstreamError};
use chain::Landed;
use copies::Copied;
use flight::{FlightError, Flights};

/// How the gateway keeps what it fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a list, a query's answer or an upstream's `@latest` is fresh.
    pub list_ttl: Duration,
    /// How long it is remembered that an upstream does not have something.
    pub not_found_ttl: Duration,
    /// The most fetches under way at once.
    pub max_fetches: usize,
}

/// One upstream with its name and its folder of the cache.
#[derive(Debug)]
pub struct Member {
    /// Its name in the configuration, which is its folder's too.
    pub name: Arc<str>,
    /// Whether it is the company's own.
    pub private: bool,
    /// How it is asked.
    pub upstream: Box<dyn Upstream>,
    /// What it gave before.
    pub folder: Folder,
}

/// That an upstream said it does not have something.
struct Absence {
    until: Instant,
    error: UpstreamError,
}

impl Weigh for Absence {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

/// The bound of remembered absences, in bytes.
const ABSENCES: u64 = 8 << 20;

/// Answers module questions by a table of routes over upstreams and their cached files.
pub struct Gateway {
    settings: Settings,
    routes: RouteTable,
    members: Vec<Member>,
    store: Arc<DiskStore>,
    absences: Memory<Absence>,
    chains: Arc<Flights<(usize, Ask), Landed>>,
    refreshes: Arc<Flights<(usize, Ask), Copied>>,
    runtime: Handle,
}

impl Gateway {
    /// Puts a gateway together. Fetches run on `runtime`; routes name members by their place.
    pub fn new(settings: Settings, routes: RouteTable, members: Vec<Member>, store: Arc<DiskStore>, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            settings,
            routes,
            members,
            store,
            absences: Memory::new(ABSENCES),
            chains: Flights::new(settings.max_fetches),
            refreshes: Flights::new(settings.max_fetches.saturating_mul(4)),
            runtime,
        })
    }

    /// The table of routes.
    pub fn routes(&self) -> &RouteTable {
        &self.routes
    }

    /// The upstreams, in the order that routes count them.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The cache's files.
    pub fn store(&self) -> &Arc<DiskStore> {
        &self.store
    }

    /// How many fetches are under way, the storing of their results included.
    pub fn under_way(&self) -> usize {
        self.chains.count() + self.refreshes.count()
    }

    /// Answers one question.
    pub async fn answer(self: &Arc<Self>, ask: &Ask, call: &Call) -> Outcome {
        let mut trail = Trail::default();
        let Some(plan) = self.routes.plan(ask.module()) else {
            return Outcome { result: Err(GatewayError::NoRoute), trail };
        };
        trail.plan = Some(plan.clone());
        if plan.route.steps.is_empty() {
            return Outcome { result: Err(GatewayError::NoUpstream), trail };
        }
        let result = match ask {
            Ask::Info(_) | Ask::GoMod(_) | Ask::Zip(_) => self.immutable(&plan, ask, call, &mut trail).await,
            Ask::Query(module, query) => self.query(&plan, module, query, call, &mut trail).await,
            Ask::List(module) => self.list(&plan, module, call, &mut trail).await,
            Ask::Latest(module) => self.latest(&plan, module, call, &mut trail).await,
        };
        Outcome { result, trail }
    }

    /// A part of a canonical version: from the first folder of the plan that has it, else from the chain.
    async fn immutable(self: &Arc<Self>, plan: &Plan, ask: &Ask, call: &Call, trail: &mut Trail) -> Result<Answer, GatewayError> {
        // In this order, since a flight is over only when its result is stored.
        let landed = self.landed_siblings(plan, ask);
        let found = self.look_up(plan, ask).await;
        if let Some((member, answer)) = found.hit {
            trail.cache = CacheStatus::Hit;
            trail.upstream = Some(Arc::clone(&self.members[member].name));
            return Ok(answer);
        }
        trail.cache = CacheStatus::Miss;
        if call.cached_only {
            return Err(GatewayError::NotCached);
        }
        let landed = self.fly(plan, ask, found.siblings.or(landed), call).await?;
        trail.attempts.extend(landed.attempts.iter().cloned());
        let (member, content) = landed.found.ok_or_else(|| GatewayError::chain(&landed.attempts))?;
        trail.upstream = Some(Arc::clone(&self.members[member].name));
        Ok(Answer { content, kind: kind_of(ask), lifetime: Lifetime::Immutable, modified: None, partial: Vec::new() })
    }

    /// A query. `v1` and `v1.2` agree with the merged list; anything else is the upstreams' to say, in order.
    async fn query(
        self: &Arc<Self>,
        plan: &Plan,
        module: &ModulePath,
        query: &Query,
        call: &Call,
        trail: &mut Trail,
    ) -> Result<Answer, GatewayError> {
        if query.is_version_prefix()
            && let Ok(merged) = self.merged(plan, module, call, trail).await
            && let Some(version) = list::highest_of_prefix(&merged.list.tagged, query)
        {
            return self.info_of(plan, module, version.clone(), merged.lifetime, call, trail).await;
        }
        let ask = Ask::Query(module.clone(), query.clone());
        let copied = self.first_copy(plan, &ask, call, trail).await?;
        Ok(Answer::bytes(copied.0, Kind::Json, copied.1))
    }

    async fn list(
        self: &Arc<Self>,
        plan: &Plan,
        module: &ModulePath,
        call: &Call,
        trail: &mut Trail,
    ) -> Result<Answer, GatewayError> {
        let merged = self.merged(plan, module, call, trail).await?;
        let mut answer = Answer::bytes(merged.list.render().into(), Kind::Text, merged.lifetime);
        answer.partial = merged.partial;
        Ok(answer)
    }

    /// The latest version, as the merged list has it; where the list has no tagged version, as the upstreams say.
    async fn latest(
        self: &Arc<Self>,
        plan: &Plan,
        module: &ModulePath,
        call: &Call,
        trail: &mut Trail,
    ) -> Result<Answer, GatewayError> {
        let merged = self.merged(plan, module, call, trail).await;
        if let Ok(merged) = &merged
            && let Some(version) = list::highest(&merged.list.tagged)
        {
            return self.info_of(plan, module, version.clone(), merged.lifetime, call, trail).await;
        }
        // An upstream without a list may still know a latest version, so a failure so far is not the last word.
        if let Err(e @ (GatewayError::Partial(_) | GatewayError::Overloaded | GatewayError::Internal)) = &merged {
            return Err(e.clone());
        }
        let before = trail.attempts.len();
        let gathered = self.gather(plan, &Ask::Latest(module.clone()), call, trail).await?;
        let offered: Vec<Info> = gathered.copies.iter().filter_map(|json| Info::parse(json.clone()).ok()).collect();
        let pseudo = merged.as_ref().map_or(&[][..], |m| &m.list.pseudo);
        let Some(version) = list::latest_untagged(pseudo, &offered).cloned() else {
            let verdict = GatewayError::chain(&trail.attempts[before..]);
            let all_cached_only = call.cached_only && matches!(verdict, GatewayError::Chain(ChainVerdict::Absent, _));
            return Err(if all_cached_only { GatewayError::NotCached } else { verdict });
        };
        let lifetime = match &merged {
            Ok(m) => shorter(m.lifetime, gathered.lifetime),
            Err(_) => Lifetime::Passing,
        };
        match offered.into_iter().find(|info| info.version == version) {
            Some(info) => Ok(Answer::bytes(info.json, Kind::Json, lifetime)),
            None => self.info_of(plan, module, version, lifetime, call, trail).await,
        }
    }

    /// The `.info` of a version that was chosen from a list; the choice lives as long as the list.
    async fn info_of(
        self: &Arc<Self>,
        plan: &Plan,
        module: &ModulePath,
        version: Version,
        lifetime: Lifetime,
        call: &Call,
        trail: &mut Trail,
    ) -> Result<Answer, GatewayError> {
        let version = ModuleVersion::new(module.clone(), version).map_err(|_| GatewayError::Internal)?;
        let answer = self.immutable(plan, &Ask::Info(version), call, trail).await?;
        Ok(Answer { lifetime, ..answer })
    }

    /// The list of the plan's upstreams, by the route's rule.
    async fn merged(
        self: &Arc<Self>,
        plan: &Plan,
        module: &ModulePath,
        call: &Call,
        trail: &mut Trail,
    ) -> Result<Merged, GatewayError> {
        let ask = Ask::List(module.clone());
        let read = |bytes: &Bytes| crate::module::list::VersionList::parse(module, &String::from_utf8_lossy(bytes));
        if plan.route.list == ListMode::First {
            let (bytes, lifetime) = self.first_copy(plan, &ask, call, trail).await?;
            return Ok(Merged { list: read(&bytes), lifetime, partial: Vec::new() });
        }
        let gathered = self.gather(plan, &ask, call, trail).await?;
        if gathered.copies.is_empty() {
            return Err(if call.cached_only { GatewayError::NotCached } else { GatewayError::chain(&trail.attempts) });
        }
        if !gathered.missing.is_empty() && plan.route.partial == PartialRule::Fail {
            return Err(GatewayError::Partial(gathered.missing));
        }
        let list = list::merge(gathered.copies.iter().map(read));
        Ok(Merged { list, lifetime: gathered.lifetime, partial: gathered.missing })
    }

    /// Joins or starts the flight for a part of a version.
    async fn fly(self: &Arc<Self>, plan: &Plan, ask: &Ask, siblings: chain::Siblings, call: &Call) -> Result<Landed, GatewayError> {
        let flight = self.chains.board((plan.index, ask.clone()), |pilot| {
            let (this, plan, ask, call) = (Arc::clone(self), plan.clone(), ask.clone(), call.clone());
            self.runtime.spawn(async move { this.fetch(plan, ask, siblings, call, pilot).await });
        });
        landed(flight).await
    }

    /// What an upstream said lately about not having something.
    fn remembered_absence(&self, member: usize, ask: &Ask) -> Option<UpstreamError> {
        let key = self.absence_key(member, ask);
        let absence = self.absences.get(&key)?;
        if absence.until > Instant::now() {
            return Some(absence.error.clone());
        }
        self.absences.forget(&key);
        None
    }

    fn remember_absence(&self, member: usize, ask: &Ask, error: &UpstreamError) {
        if !self.settings.not_found_ttl.is_zero() {
            let until = Instant::now() + self.settings.not_found_ttl;
            self.absences.put(&self.absence_key(member, ask), Arc::new(Absence { until, error: error.clone() }));
        }
    }

    fn absence_key(&self, member: usize, ask: &Ask) -> String {
        format!("{}/{}", self.members[member].name, ask.path())
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("settings", &self.settings).field("members", &self.members).finish_non_exhaustive()
    }
}

/// Waits for a flight and puts its failures into the gateway's words.
async fn landed<V: Clone>(flight: Result<tokio::sync::watch::Receiver<Option<V>>, FlightError>) -> Result<V, GatewayError> {
    let result = match flight {
        Ok(flight) => flight::landed(flight).await,
        Err(e) => Err(e),
    };
    result.map_err(|e| match e {
        FlightError::Full => GatewayError::Overloaded,
        FlightError::Lost => GatewayError::Internal,
    })
}

struct Merged {
    list: crate::module::list::VersionList,
    lifetime: Lifetime,
    partial: Vec<Arc<str>>,
}

fn kind_of(ask: &Ask) -> Kind {
    match ask {
        Ask::List(_) | Ask::GoMod(_) => Kind::Text,
        Ask::Latest(_) | Ask::Info(_) | Ask::Query(..) => Kind::Json,
        Ask::Zip(_) => Kind::Zip,
    }
}

fn shorter(a: Lifetime, b: Lifetime) -> Lifetime {
    match (a, b) {
        (Lifetime::Passing, _) | (_, Lifetime::Passing) => Lifetime::Passing,
        (Lifetime::Immutable, other) | (other, Lifetime::Immutable) => other,
        (Lifetime::For(a), Lifetime::For(b)) => Lifetime::For(a.min(b)),
    }
}

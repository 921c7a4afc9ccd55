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
pub mod freshness;
pub mod list;
mod permit;
pub mod policy;
pub mod stock;
pub mod team;
pub mod trail;
mod transfer;
mod turns;
mod uncompress;
pub mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub use answer::{Answer, Content, Kind, Lifetime, Outcome};
pub use error::{ChainVerdict, GatewayError};
pub use policy::Policy;
pub use team::Team;
pub use trail::{Attempt, CacheStatus, Trail, Verdict};
pub use verify::{Ledger, Trust};

use crate::base::Call;
use crate::base::flight::{self, Flight, FlightError, Flights};
use crate::module::gomod::GoMod;
use crate::module::list::VersionList;
use crate::module::{Ask, Info, ModulePath, ModuleVersion, Query, Version};
use crate::route::{FailureClass, ListMode, PartialRule, Plan, Unplanned};
use crate::store::evict::Expendable;
use crate::store::memory::Weigh;
use crate::store::{DiskStore, Folder, Memory};
use crate::upstream::{Upstream, UpstreamError};
use chain::{Found, Landed};
use copies::{Copied, Gathered};
use uncompress::Fresh;

/// How the gateway keeps what it fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a list, a query's answer or an upstream's `@latest` is fresh.
    pub list_ttl: Duration,
    /// How long it is remembered that an upstream does not have something.
    pub not_found_ttl: Duration,
    /// The most fetches under way at once.
    pub max_fetches: usize,
    /// Where zips are kept without compression, the bytes that the disk is to have left all the same.
    pub uncompressed: Option<u64>,
    /// What is kept but can be had again.
    pub expendable: Expendable,
}

/// One upstream with its name and its folder of the cache.
#[derive(Debug)]
pub struct Member {
    /// Its name in the configuration, which is its folder's too.
    pub name: Arc<str>,
    /// Whether it is the company's own.
    pub private: bool,
    /// How it is asked.
    pub upstream: Arc<dyn Upstream>,
    /// What it gave before.
    pub folder: Folder,
}

/// A failure that is remembered.
struct Failed {
    until: Instant,
    error: UpstreamError,
}

impl Weigh for Failed {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

/// The bound of remembered failures, in bytes.
const FAILURES: u64 = 8 << 20;
/// An upstream that could not refresh a copy is not asked for it again for so long.
const REFRESH_PAUSE: Duration = Duration::from_secs(3);
/// What a list lacks whose versions' ages could not all be had.
const AGES: &str = "ages";
/// Lists of more bytes than this are read and merged off the workers.
const LONG_LIST: usize = 64 << 10;

/// Answers module questions by each team's table of routes over upstreams and their cached files.
pub struct Gateway {
    settings: Settings,
    /// Who may ask; the first is everybody who is of no team.
    teams: Vec<Team>,
    members: Vec<Member>,
    store: Arc<DiskStore>,
    trust: Trust,
    ledger: Ledger,
    failures: Memory<Failed>,
    /// The versions that were found old enough, which they stay.
    aged: Memory<Aged>,
    chains: Arc<Flights<(usize, Ask), Landed>>,
    refreshes: Arc<Flights<(usize, Ask), Copied>>,
    runtime: Handle,
    /// Small answers that are being stored. Askers have them already; many syncs at once would only disturb those who wait.
    storing: Semaphore,
    /// Small answers that are or wait to be.
    backlog: Semaphore,
    /// Zips that are unpacked for their sum.
    hashing: Semaphore,
    /// Zips that may be written anew without compression.
    fresh: Fresh,
    /// Answers that could not be stored.
    unstored: AtomicUsize,
}

/// A version that is old enough.
struct Aged;

impl Weigh for Aged {
    fn bytes(&self) -> usize {
        0
    }
}

/// The bound of versions that are remembered as old enough, in bytes.
const AGED: u64 = 8 << 20;
/// So many small answers are stored at once.
const STORING: usize = 1;
/// So many may wait for that, where as many fetches may be under way.
const BACKLOG: usize = 256;

impl Gateway {
    /// Puts a gateway together. Fetches run on `runtime`; routes name members by their place. The first team is everybody.
    pub fn new(
        settings: Settings,
        teams: Vec<Team>,
        members: Vec<Member>,
        trust: Trust,
        store: Arc<DiskStore>,
        runtime: Handle,
    ) -> Arc<Self> {
        // A large zip keeps a core for a second; small ones are not to wait behind it.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let max_fetches = settings.max_fetches;
        Arc::new(Self {
            fresh: Fresh::new(),
            settings,
            teams,
            members,
            trust,
            ledger: Ledger::of(&store),
            store,
            failures: Memory::new(FAILURES),
            aged: Memory::new(AGED),
            hashing: Semaphore::new(cores.max(2)),
            unstored: AtomicUsize::new(0),
            chains: Flights::new(max_fetches),
            refreshes: Flights::new(max_fetches.saturating_mul(4)),
            runtime,
            storing: Semaphore::new(STORING),
            backlog: Semaphore::new((max_fetches / 4).clamp(1, BACKLOG)),
        })
    }

    /// Those who may ask. The first is everybody who is of no team, and the others come in the configuration's order.
    pub fn teams(&self) -> &[Team] {
        &self.teams
    }

    /// The team of this name; everybody where none is given.
    pub fn team(&self, name: Option<&str>) -> Option<&Team> {
        self.teams.iter().find(|team| team.name.as_deref() == name)
    }

    /// What any of them may do about a module, everybody first.
    fn plans(&self, module: &ModulePath) -> impl Iterator<Item = Plan> {
        self.teams.iter().filter_map(|team| team.routes.plan(module).ok())
    }

    /// The upstreams, in the order that routes count them.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// What is kept but can be had again.
    pub fn expendable(&self) -> &Expendable {
        &self.settings.expendable
    }

    /// The cache's files.
    pub fn store(&self) -> &Arc<DiskStore> {
        &self.store
    }

    /// How many answers could not be stored so far.
    pub fn unstored(&self) -> usize {
        self.unstored.load(Ordering::Relaxed)
    }

    /// How many fetches are under way, the storing of their results included.
    pub fn under_way(&self) -> usize {
        self.chains.count() + self.refreshes.count()
    }

    /// Answers one question of a team.
    pub async fn answer(self: &Arc<Self>, team: &Team, ask: &Ask, call: &Call) -> Outcome {
        let mut trail = Trail::default();
        let plan = match (team.routes.plan(ask.module()), &team.name) {
            (Ok(plan), _) => plan,
            (Err(Unplanned::NoRoute), None) => return Outcome { result: Err(GatewayError::NoRoute), trail },
            (Err(_), _) => return Outcome { result: Err(GatewayError::Outside), trail },
        };
        trail.plan = Some(plan.clone());
        if plan.route.steps.is_empty() {
            return Outcome { result: Err(GatewayError::NoUpstream), trail };
        }
        if let Err(denial) = team.policy.module(ask.module()) {
            return Outcome { result: Err(denial.into()), trail };
        }
        let result = match ask {
            Ask::Info(version) | Ask::GoMod(version) | Ask::Zip(version) => match self.permit(team, &plan, version, call).await {
                Ok(()) => self.immutable(&plan, ask, call, &mut trail).await,
                Err(e) => Err(e),
            },
            Ask::Query(module, query) => self.query(team, &plan, module, query, call, &mut trail).await,
            Ask::List(module) => self.list(team, &plan, module, call, &mut trail).await,
            Ask::Latest(module) => self.latest(team, &plan, module, call, &mut trail).await,
        };
        Outcome { result, trail }
    }

    /// A part of a canonical version: from the first folder of the plan that has it, else from the chain.
    async fn immutable(self: &Arc<Self>, plan: &Plan, ask: &Ask, call: &Call, trail: &mut Trail) -> Result<Answer, GatewayError> {
        let wanted = self.wanted(plan, ask.module());
        if let Some(found) = self.look_up(plan, ask).await {
            let good = match found.holds(ask, &wanted) {
                true => Some(found),
                false if call.cached_only => self.check_kept(plan, ask, found.member, call).await?,
                // Whoever fetches it looks at it first.
                false => None,
            };
            if let Some(found) = good {
                trail.cache = CacheStatus::Hit;
                return Ok(self.hand_on(found, trail));
            }
        }
        trail.cache = CacheStatus::Miss;
        let landed =
            if call.cached_only { self.ask_directories(plan, ask, call).await? } else { self.fly(plan, ask, call).await? };
        trail.attempts.extend(landed.attempts.iter().cloned());
        match (landed.found, landed.refused) {
            (Some(found), _) => Ok(self.hand_on(found, trail)),
            (None, Some(refused)) => Err(refused),
            (None, None) if call.cached_only => Err(GatewayError::NotCached),
            (None, None) => Err(GatewayError::chain(&landed.attempts)),
        }
    }

    fn hand_on(&self, found: Found, trail: &mut Trail) -> Answer {
        trail.upstream = Some(Arc::clone(&self.members[found.member].name));
        trail.checked = found.checked;
        found.answer
    }

    /// A query. `v1` and `v1.2` agree with the merged list; anything else is the upstreams' to say, in order.
    async fn query(
        self: &Arc<Self>,
        team: &Team,
        plan: &Plan,
        module: &ModulePath,
        query: &Query,
        call: &Call,
        trail: &mut Trail,
    ) -> Result<Answer, GatewayError> {
        if query.is_version_prefix()
            && let Ok(merged) = self.merged(plan, module, call, trail).await
        {
            let merged = self.shown(team, plan, module, merged, call).await?;
            if let Some(version) = list::highest_of_prefix(&merged.list.tagged, query).cloned() {
                return self.info_of(plan, module, version, &merged, call, trail).await;
            }
        }
        let ask = Ask::Query(module.clone(), query.clone());
        let copied = self.first_copy(plan, &ask, call, trail).await?;
        let info = Info::parse(copied.0).map_err(|_| GatewayError::Internal)?;
        Self::permit_info(team, module, &info)?;
        Ok(Answer::bytes(info.json, Kind::Json, copied.1))
    }

    async fn list(
        self: &Arc<Self>,
        team: &Team,
        plan: &Plan,
        module: &ModulePath,
        call: &Call,
        trail: &mut Trail,
    ) -> Result<Answer, GatewayError> {
        let merged = self.shown(team, plan, module, self.merged(plan, module, call, trail).await?, call).await?;
        let mut answer = Answer::bytes(merged.list.render().into(), Kind::Text, merged.lifetime);
        answer.partial = merged.partial;
        Ok(answer)
    }

    /// The latest version, as the merged list has it, retracted ones aside; where the list has no other tagged version, as the
    /// upstreams say.
    async fn latest(
        self: &Arc<Self>,
        team: &Team,
        plan: &Plan,
        module: &ModulePath,
        call: &Call,
        trail: &mut Trail,
    ) -> Result<Answer, GatewayError> {
        let merged = self.merged(plan, module, call, trail).await;
        // A version that policy hides may still say which others are retracted.
        let all = merged.as_ref().map_or(&[][..], |m| &m.list.tagged);
        let retracted = self.retractions(plan, module, all, call).await;
        let merged = match merged {
            Ok(merged) => self.shown(team, plan, module, merged, call).await,
            Err(e) => Err(e),
        };
        let tagged = merged.as_ref().map_or(&[][..], |m| &m.list.tagged);
        let standing: Vec<Version> = tagged.iter().filter(|v| !retracted.retracts(v.as_str())).cloned().collect();
        if let (Ok(merged), Some(version)) = (&merged, list::highest(&standing).cloned()) {
            return self.info_of(plan, module, version, merged, call, trail).await;
        }
        // An upstream without a list may still know a latest version, so a failure so far is not the last word.
        if let Err(e @ (GatewayError::Partial(_) | GatewayError::Overloaded | GatewayError::Internal)) = &merged {
            return Err(e.clone());
        }
        let ask = Ask::Latest(module.clone());
        let gathered = match plan.route.list {
            ListMode::Merge => self.gather(plan, &ask, call, trail).await?,
            // Whom the fallback rule does not let have their turn, nobody asks.
            ListMode::First => match self.first_copy(plan, &ask, call, trail).await {
                Ok(copy) => Gathered::of(Some(copy)),
                // The list may have had pseudo-versions all the same.
                Err(GatewayError::Chain(ChainVerdict::Absent, _)) => Gathered::of(None),
                Err(e) => return Err(e),
            },
        };
        let mut offered: Vec<Info> = gathered.copies.iter().filter_map(|json| Info::parse(json.clone()).ok()).collect();
        let denied = offered.iter().find_map(|info| Self::permit_info(team, module, info).err());
        offered.retain(|info| !retracted.retracts(info.version.as_str()) && Self::permit_info(team, module, info).is_ok());
        let pseudo = merged.as_ref().map_or(&[][..], |m| &m.list.pseudo);
        // Where there is nothing else, a retracted version is better than none.
        let latest = list::latest_untagged(pseudo, &offered).or_else(|| list::highest(tagged)).cloned();
        let Some(version) = latest else {
            if let Some(denied) = denied {
                return Err(denied);
            }
            // A list that could not be had might have held one, so its failures count too.
            let verdict = GatewayError::chain(&trail.attempts);
            let all_cached_only = call.cached_only && matches!(verdict, GatewayError::Chain(ChainVerdict::Absent, _));
            return Err(if all_cached_only { GatewayError::NotCached } else { verdict });
        };
        let chosen_from = match merged {
            Ok(m) => Merged { lifetime: shorter(m.lifetime, gathered.lifetime), ..m },
            Err(_) => Merged { list: VersionList::default(), lifetime: Lifetime::Passing, partial: gathered.missing },
        };
        match offered.into_iter().find(|info| info.version == version) {
            Some(info) => {
                let answer = Answer::bytes(info.json, Kind::Json, chosen_from.lifetime);
                Ok(Answer { partial: chosen_from.partial, ..answer })
            }
            None => self.info_of(plan, module, version, &chosen_from, call, trail).await,
        }
    }

    /// What the go.mod of the highest version retracts; nothing where that cannot be had.
    async fn retractions(self: &Arc<Self>, plan: &Plan, module: &ModulePath, tagged: &[Version], call: &Call) -> GoMod {
        let read = async {
            let highest = ModuleVersion::new(module.clone(), list::highest(tagged)?.clone()).ok()?;
            let answer = self.immutable(plan, &Ask::GoMod(highest), call, &mut Trail::default()).await.ok()?;
            let Content::Bytes(text) = answer.content else { return None };
            GoMod::parse(&text)
        };
        read.await.unwrap_or_default()
    }

    /// The `.info` of a version that was chosen from a list; the choice lives as long as the list, and lacks what it lacks.
    async fn info_of(
        self: &Arc<Self>,
        plan: &Plan,
        module: &ModulePath,
        version: Version,
        chosen_from: &Merged,
        call: &Call,
        trail: &mut Trail,
    ) -> Result<Answer, GatewayError> {
        let version = ModuleVersion::new(module.clone(), version).map_err(|_| GatewayError::Internal)?;
        let answer = self.immutable(plan, &Ask::Info(version), call, trail).await?;
        Ok(Answer { lifetime: chosen_from.lifetime, partial: chosen_from.partial.clone(), ..answer })
    }

    /// A list without what policy hides.
    async fn shown(
        self: &Arc<Self>,
        team: &Team,
        plan: &Plan,
        module: &ModulePath,
        merged: Merged,
        call: &Call,
    ) -> Result<Merged, GatewayError> {
        let Merged { list: VersionList { tagged, pseudo }, mut lifetime, mut partial } = merged;
        let (tagged, pseudo) =
            (self.visible(team, plan, module, tagged, call).await, self.visible(team, plan, module, pseudo, call).await);
        if !(tagged.complete && pseudo.complete) {
            partial.push(AGES.into());
            lifetime = Lifetime::Passing;
            if plan.route.partial == PartialRule::Fail {
                return Err(GatewayError::Partial(partial));
            }
        }
        Ok(Merged { list: VersionList { tagged: tagged.versions, pseudo: pseudo.versions }, lifetime, partial })
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
        if plan.route.list == ListMode::First {
            let (bytes, lifetime) = self.first_copy(plan, &ask, call, trail).await?;
            return Ok(Merged { list: merge_bytes(module, vec![bytes]).await, lifetime, partial: Vec::new() });
        }
        let gathered = self.gather(plan, &ask, call, trail).await?;
        if gathered.copies.is_empty() {
            return Err(if call.cached_only { GatewayError::NotCached } else { GatewayError::chain(&trail.attempts) });
        }
        if !gathered.missing.is_empty() && plan.route.partial == PartialRule::Fail {
            return Err(GatewayError::Partial(gathered.missing));
        }
        let list = merge_bytes(module, gathered.copies).await;
        Ok(Merged { list, lifetime: gathered.lifetime, partial: gathered.missing })
    }

    /// Joins or starts the flight for a part of a version.
    async fn fly(self: &Arc<Self>, plan: &Plan, ask: &Ask, call: &Call) -> Result<Landed, GatewayError> {
        let others: Vec<_> = chain::other_parts(ask).into_iter().map(|part| (plan.route.id, part)).collect();
        let flight = self.chains.board((plan.route.id, ask.clone()), &others, |pilot, earlier| {
            let (this, plan, ask, call) = (Arc::clone(self), plan.clone(), ask.clone(), call.clone());
            self.runtime.spawn(async move { this.fetch(plan, ask, earlier, call, pilot).await });
        });
        landed(flight).await
    }

    /// How an upstream failed lately, where that is remembered, and for how much longer it is.
    fn remembered(&self, member: usize, ask: &Ask) -> Option<(UpstreamError, Duration)> {
        let key = self.memory_key(member, ask);
        let failure = self.failures.get(&key)?;
        let rest = failure.until.saturating_duration_since(Instant::now());
        if !rest.is_zero() {
            return Some((failure.error.clone(), rest));
        }
        self.failures.forget(&key);
        None
    }

    /// The same for what it does not have, which stands for an answer.
    fn remembered_absence(&self, member: usize, ask: &Ask) -> Option<(UpstreamError, Duration)> {
        self.remembered(member, ask).filter(|(e, _)| e.failure.class() == FailureClass::Absent)
    }

    /// Remembers that an upstream does not have something, and shortly that it failed to refresh a copy.
    fn remember(&self, member: usize, ask: &Ask, error: &UpstreamError) {
        let time = match error.failure.class() {
            FailureClass::Absent => self.settings.not_found_ttl,
            _ => REFRESH_PAUSE,
        };
        self.remember_for(member, ask, error, time);
    }

    fn remember_for(&self, member: usize, ask: &Ask, error: &UpstreamError, time: Duration) {
        if !time.is_zero() {
            let until = Instant::now() + time;
            self.failures.put(&self.memory_key(member, ask), Arc::new(Failed { until, error: error.clone() }));
        }
    }

    /// Has room made where that was missing for an upstream's work.
    fn make_room_after(&self, error: &UpstreamError) {
        if error.failure.no_room().is_some() {
            self.store.tell_full();
        }
    }

    fn memory_key(&self, member: usize, ask: &Ask) -> String {
        format!("{}/{}", self.members[member].name, ask.path())
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("settings", &self.settings).field("members", &self.members).finish_non_exhaustive()
    }
}

/// Waits for a flight and puts its failures into the gateway's words.
async fn landed<V: Clone>(flight: Result<Flight<V>, FlightError>) -> Result<V, GatewayError> {
    let result = match flight {
        Ok(flight) => flight::landed(flight).await,
        Err(e) => Err(e),
    };
    result.map_err(|e| match e {
        FlightError::Full => GatewayError::Overloaded,
        FlightError::Lost => GatewayError::Internal,
    })
}

/// Reads lists and makes them one.
async fn merge_bytes(module: &ModulePath, lists: Vec<Bytes>) -> VersionList {
    let merge = |module: &ModulePath, lists: &[Bytes]| {
        list::merge(lists.iter().map(|bytes| VersionList::parse(module, &String::from_utf8_lossy(bytes))))
    };
    if lists.iter().map(Bytes::len).sum::<usize>() <= LONG_LIST {
        return merge(module, &lists);
    }
    let module = module.clone();
    tokio::task::spawn_blocking(move || merge(&module, &lists)).await.unwrap_or_default()
}

struct Merged {
    list: VersionList,
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

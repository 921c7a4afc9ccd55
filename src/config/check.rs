//! From tables to the checked configuration.

use std::path::PathBuf;
use std::time::Duration;

use figment::value::Dict;
use tracing::level_filters::LevelFilter;
use url::Url;

use super::auth::Auth;
use super::egress::{Defaults, policy};
use super::go_chains::go_chains;
use super::load::user_cache_dir;
use super::read::{Finding, Item, Place, Reading, Table, globs};
use super::trust::Sumdb;
use super::{
    Cache, Config, ConfigError, Database, Log, Origin, Server, Upstream, UpstreamKind, audience, server, team, trust, vanity, vcs,
};
use crate::base::units;
use crate::module::Pattern;
use crate::route::{FailureClass, Fallback, ListMode, PartialRule, Route, RouteTable, Step};
use crate::server::identify::{Door, Doors};
use crate::server::limits::TeamLimits;
use crate::server::tls::TlsSettings;
use crate::store::evict::Expendable;
use crate::upstream::{goproxy, guard};
use crate::{access, gateway, sumdb};

/// What upstreams and shared routes came to.
pub(super) struct Chains<'r> {
    pub(super) upstreams: Vec<Upstream>,
    /// None where one of them is wrong, which was said.
    pub(super) routes: Option<Vec<Route>>,
    pub(super) origin: Origin,
    pub(super) sumdb: Sumdb<'r>,
}

/// Who may ask, and what of whom.
struct Askers {
    teams: Vec<gateway::Team>,
    doors: Doors,
    access: access::Settings,
    limits: Vec<TeamLimits>,
}

pub(super) fn check(reading: &Reading, dict: Dict) -> Result<Config, ConfigError> {
    let mut root = Table::root(reading, dict);
    let mut warnings = Vec::new();
    let server = server::server(reading, root.table("server"), root.table("admin"), &mut warnings);
    let cache = cache(reading, root.table("cache"), &mut warnings);
    let (egress, log) = (Defaults::read(reading, root.table("egress")).unwrap_or_default(), log(root.table("log")));
    let (sumdb, policy) = (Sumdb::read(root.table("sumdb")), trust::policy(root.table("policy")));
    let (limits, audit) = (server::limits(root.table("limits")), server::audit(reading, root.table("audit")));
    let chains = chains(reading, &mut root, sumdb, &egress, &mut warnings);
    let auth = Auth::read(reading, root.table("auth"), &egress, &mut warnings);
    let shared = team::Shared { policy: policy.unwrap_or_default(), limits: limits.unwrap_or_default() };
    let team_tables = root.tables("teams");
    let vanity = all(root.list_of_tables("vanity").into_iter().map(vanity::rule));
    root.finish();
    let parts = chains.and_then(|chains| {
        let asks = server.as_ref().is_some_and(|(server, _)| server.tls.as_ref().is_some_and(TlsSettings::asks_for_certificates));
        let teams = team::teams(reading, team_tables, &chains, &shared, auth, asks);
        if let Some((server, _)) = &server {
            server::own_addresses(reading, server, &chains.upstreams, chains.origin);
        }
        let Chains { upstreams, routes, origin, sumdb } = chains;
        let askers =
            askers(reading, routes?, teams?, shared, server.as_ref().map(|(server, _)| server)?, &upstreams, &mut warnings);
        let steps = askers.teams.iter().flat_map(|team| team.routes.routes()).flat_map(|route| route.steps.clone());
        let steps = steps.collect::<Vec<_>>();
        let (databases, no_sumdb) = sumdb.settle(reading, &upstreams, steps.into_iter(), &egress, &mut warnings)?;
        Some((upstreams, askers, origin, databases, no_sumdb))
    });
    let findings = reading.findings.take();
    match (server, cache, log, audit, parts.zip(vanity)) {
        (
            Some((server, max_fetches)),
            Some((cache, list_ttl, not_found_ttl, uncompressed)),
            Some(log),
            Some(audit),
            Some(((upstreams, askers, origin, databases, no_sumdb), vanity)),
        ) if findings.is_empty() => Ok(Config {
            server,
            cache,
            gateway: gateway::Settings {
                list_ttl,
                not_found_ttl,
                max_fetches,
                uncompressed,
                expendable: expendable(&upstreams, &databases),
            },
            upstreams,
            teams: askers.teams,
            doors: askers.doors,
            access: askers.access,
            limits: askers.limits,
            audit,
            databases,
            no_sumdb,
            vanity,
            log,
            warnings,
            origin,
            files: reading.files.take(),
        }),
        _ => Err(ConfigError { findings, files: reading.files.take() }),
    }
}

/// What of the cache can be had again. Nobody is asked for the files of a private upstream lightly; imports were carried here by hand,
/// and what a database said of them with them.
fn expendable(upstreams: &[Upstream], databases: &[Database]) -> Expendable {
    let imports = |upstream: &&Upstream| upstream.kind == UpstreamKind::Offline;
    let names = upstreams.iter().filter(|u| !u.private && !imports(u)).map(|u| u.name.clone());
    let online = databases.iter().filter(|database| !database.via.is_empty() && !upstreams.iter().any(|u| imports(&u)));
    let beside = online.flat_map(|database| sumdb::answers(database.key.name())).collect();
    Expendable { upstreams: Some(names.collect()), beside }
}

/// Puts each team's routes before the shared ones, and fences off what is private to the others.
fn askers(
    reading: &Reading,
    routes: Vec<Route>,
    (teams, access, anonymous): (Vec<team::Parts>, access::Settings, bool),
    shared: team::Shared,
    server: &Server,
    upstreams: &[Upstream],
    warnings: &mut Vec<Finding>,
) -> Askers {
    let everybody = RouteTable::new(routes);
    audience::look_at_table(reading, &everybody);
    let private: Vec<Vec<Pattern>> = teams.iter().map(|team| team.own.private_patterns().cloned().collect()).collect();
    // A team may have a route for everything else, before the shared ones.
    let everybodys: Vec<Pattern> = everybody.private_patterns().cloned().collect();
    let others = |but: usize| -> Vec<Pattern> {
        private.iter().enumerate().filter(|(n, _)| *n != but).flat_map(|(_, own)| own.clone()).collect()
    };
    let doors = teams.iter().map(|team| team.door.clone());
    let doors = Doors {
        anonymous,
        teams: [Door::default()].into_iter().chain(doors).collect(),
        trusted_proxies: server.trusted_proxies.clone(),
    };
    let limits = [shared.limits].into_iter().chain(teams.iter().map(|team| team.limits)).collect();
    let mut all = vec![gateway::Team { name: None, routes: everybody.clone().fenced(others(usize::MAX)), policy: shared.policy }];
    for (n, team) in teams.into_iter().enumerate() {
        audience::look_at_table(reading, &team.own);
        let routes = if team.inherit { team.own.before(&everybody) } else { team.own };
        let fences = [others(n), everybodys.clone()].concat();
        all.push(gateway::Team { name: team.door.name.clone(), routes: routes.fenced(fences), policy: team.policy });
    }
    let audience = audience::Audience { reading, server, upstreams, teams: &all, doors: &doors, access: &access };
    audience.warn(warnings);
    Askers { teams: all, doors, access, limits }
}

type CacheParts = (Cache, Duration, Duration, Option<u64>);

fn cache(reading: &Reading, mut table: Table<'_>, warnings: &mut Vec<Finding>) -> Option<CacheParts> {
    let dir = table.take("dir").and_then(|item| {
        if !item.is_empty() {
            return item.path();
        }
        user_cache_dir().map(|d| d.join("modgate")).or_else(|| {
            reading.say(None, "cache.dir", "this user has no cache directory (no HOME); name a folder");
            None
        })
    });
    let max_size = table.parsed("max_size", |text| if text.is_empty() { Ok(None) } else { units::parse_size(text).map(Some) });
    let min_free = table.parsed("min_free", units::parse_size);
    let list_ttl = table.duration("list_ttl");
    let not_found_ttl = table.duration("not_found_ttl");
    let mirror_ttl = table.duration("mirror_ttl");
    let memory = table.parsed("memory", units::parse_size);
    let uncompressed = table.flag("uncompressed");
    table.finish();
    if max_size == Some(None) {
        warnings.push(Finding {
            place: reading.file.clone().map_or(Place::Default, |f| Place::File(f, None)),
            key: "cache.max_size".into(),
            problem: match min_free {
                Some(0) => "not set: the cache on disk grows without bound".into(),
                _ => "not set: the cache on disk grows until the disk has no more than cache.min_free left".into(),
            },
        });
    }
    let cache = Cache { dir: dir?, max_size: max_size?, min_free: min_free?, mirror_ttl: mirror_ttl?, memory: memory? };
    let uncompressed = uncompressed?.then_some(cache.min_free);
    Some((cache, list_ttl?, not_found_ttl?, uncompressed))
}

fn log(mut table: Table<'_>) -> Option<Log> {
    let filter = table.parsed("level", |text| {
        // A word that is no level would be a target, and everything else silent.
        let words = || text.split(',').map(str::trim).filter(|word| !word.contains(['=', '[', ':']));
        if let Some(word) = words().find(|word| word.parse::<LevelFilter>().is_err() || word.is_empty()) {
            return Err(format!("not a log level: {word:?} (known here: off, error, warn, info, debug, trace)"));
        }
        let parsed = text.parse::<tracing_subscriber::EnvFilter>();
        parsed.map(|_| text.to_owned()).map_err(|e| format!("not a log level or filter: {e}"))
    });
    let json = table.word("format", &[("text", false), ("json", true)]);
    table.finish();
    Some(Log { filter: filter?, json: json? })
}

/// Upstreams and routes as configured, or the machine's Go settings where nothing is.
fn chains<'r>(
    reading: &'r Reading,
    root: &mut Table<'r>,
    sumdb: Sumdb<'r>,
    egress: &Defaults,
    warnings: &mut Vec<Finding>,
) -> Option<Chains<'r>> {
    let tables = root.tables("upstreams");
    let route_tables = root.list_of_tables("routes");
    if tables.is_empty() && route_tables.is_empty() {
        return match go_chains(reading, sumdb, egress, warnings) {
            Ok(chains) => chains,
            Err(problem) => {
                let key = String::new();
                reading.findings.borrow_mut().push(Finding { place: Place::GoSettings, key, problem });
                None
            }
        };
    }
    if route_tables.is_empty() && !root.has("teams") {
        reading.say(None, "routes", "upstreams are named but no [[routes]] lead to them");
    }
    let mut upstreams = Vec::new();
    for (name, table) in tables {
        if let Err(problem) = check_name(&name) {
            table.say("", problem);
        }
        // A bad upstream keeps its place, so that routes to it are not reported as dangling as well.
        let checked = upstream(reading, table, egress, warnings);
        let stand_in = || Upstream {
            name: String::new(),
            private: false,
            kind: UpstreamKind::Directory(PathBuf::new(), egress.limits().idle),
            breaker: guard::Settings::default(),
        };
        upstreams.push(Upstream { name, ..checked.unwrap_or_else(stand_in) });
    }
    let routes = all(route_tables.into_iter().enumerate().map(|(id, table)| route(id, table, &upstreams, &sumdb)));
    Some(Chains { upstreams, routes, origin: Origin::Configured, sumdb })
}

/// A name is a folder of the cache too.
fn check_name(name: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain) {
        return Ok(());
    }
    Err(
        "an upstream's name has lower-case letters, digits, dots, dashes and underscores, begins with a letter or digit, and is not longer than 64",
    )
}

/// An upstream, its name aside.
fn upstream(reading: &Reading, mut table: Table<'_>, defaults: &Defaults, warnings: &mut Vec<Finding>) -> Option<Upstream> {
    #[derive(Clone, Copy)]
    enum Type {
        GoProxy,
        Vcs,
        Directory,
        Offline,
    }
    let Some(item) = table.take("type") else {
        table.say("", "has no type (\"goproxy\", \"vcs\", \"directory\" or \"offline\")");
        return None;
    };
    let kind = item.parsed(|text| match text {
        "goproxy" => Ok(Type::GoProxy),
        "vcs" => Ok(Type::Vcs),
        "directory" => Ok(Type::Directory),
        "offline" => Ok(Type::Offline),
        _ => Err("has to be one of: goproxy, vcs, directory, offline".into()),
    })?;
    let private = table.flag("private").unwrap_or(false);
    let made = match kind {
        Type::GoProxy => {
            let url = required(&mut table, "url").and_then(|item| item.parsed(server_url));
            let absent = table.items("absent").map_or_else(|| Some(goproxy::ABSENT.to_vec()), |items| absent_statuses(&items));
            let policy = policy(reading, &mut table, url.as_ref(), defaults, warnings);
            url.zip(absent)
                .zip(policy)
                .map(|((url, absent), policy)| UpstreamKind::GoProxy(goproxy::Settings { url, absent }, Box::new(policy)))
        }
        Type::Vcs => {
            if table.has("auth") {
                table.say("auth", "repositories are of many hosts: credentials = { \"host:port\" = { … } }");
            }
            let policy = policy(reading, &mut table, None, defaults, warnings);
            let settings = vcs::settings(reading, &mut table);
            settings.zip(policy).map(|((settings, reach), policy)| vcs::upstream(settings, reach, policy))
        }
        Type::Offline => Some(UpstreamKind::Offline),
        Type::Directory => {
            let limit = table.limit("idle").unwrap_or(defaults.limits().idle);
            required(&mut table, "path").and_then(|item| {
                let path = item.path()?;
                if !path.is_dir() {
                    item.say(format!("{} is not a folder", path.display()));
                    return None;
                }
                Some(UpstreamKind::Directory(path, limit))
            })
        }
    };
    let breaker = match kind {
        Type::Vcs | Type::Offline => NO_BREAKER,
        Type::GoProxy | Type::Directory => breaker(table.table("breaker")),
    };
    table.finish();
    made.map(|kind| Upstream { name: String::new(), private, kind, breaker })
}

/// For version control, whose hosts are many: that one does not work says nothing of the others.
pub(super) const NO_BREAKER: guard::Settings = guard::Settings { failures: 0, open_for: Duration::ZERO };

fn breaker(mut table: Table<'_>) -> guard::Settings {
    let default = guard::Settings::default();
    let failures = table.number("failures", 0, 1_000_000).and_then(|n| u32::try_from(n).ok());
    let open_for = table.limit("open_for");
    table.finish();
    guard::Settings { failures: failures.unwrap_or(default.failures), open_for: open_for.unwrap_or(default.open_for) }
}

pub(super) fn required<'r>(table: &mut Table<'r>, key: &'static str) -> Option<Item<'r>> {
    let found = table.take(key);
    if found.is_none() {
        table.say("", format!("has no {key}"));
    }
    found
}

fn server_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("not a URL ({e})"))?;
    check_server_url(&url)?;
    Ok(url)
}

/// The text of an error never repeats the URL, which may hold a password.
pub(super) fn check_server_url(url: &Url) -> Result<(), String> {
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("has to be an http or https URL".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("user and password do not belong into a URL (they go into auth)".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a base URL has neither a query nor a fragment".into());
    }
    Ok(())
}

fn absent_statuses(items: &[Item<'_>]) -> Option<Vec<u16>> {
    let status = |text: &str| match text.parse::<u16>() {
        Ok(n) if (400..=599).contains(&n) => Ok(n),
        _ => Err("has to be a status from 400 to 599".to_owned()),
    };
    all(items.iter().map(|item| item.parsed(status)))
}

/// All of them, or nothing; every one is looked at, so that every mistake is said.
pub(super) fn all<T>(items: impl Iterator<Item = Option<T>>) -> Option<Vec<T>> {
    let looked: Vec<Option<T>> = items.collect();
    looked.into_iter().collect()
}

/// One route, which gets this number.
pub(super) fn route(id: usize, mut table: Table<'_>, upstreams: &[Upstream], sumdb: &Sumdb<'_>) -> Option<Route> {
    let key = table.key.as_str().into();
    let patterns = required(&mut table, "match").and_then(patterns);
    let steps = required(&mut table, "upstreams").and_then(|item| steps(item, upstreams));
    let fallback = table.items("fallback").map_or(Some(Fallback::NotFound), |items| fallback(&items));
    let list = table.word("list", &[("merge", ListMode::Merge), ("first", ListMode::First)]);
    let partial = table.word("partial", &[("serve", PartialRule::Serve), ("fail", PartialRule::Fail)]);
    let hedge = table.take("hedge_after");
    let hedge_after = hedge.as_ref().and_then(|item| item.parsed(units::parse_limit));
    if let (Some(item), Some(fallback)) = (&hedge, &fallback)
        && !fallback.goes_on_after(FailureClass::Outage)
    {
        item.say("needs a fallback that goes on after an outage (\"any-error\", or a list with outage): being late is one");
    }
    let verify = table.take("verify").map(|item| trust::verify(&item, sumdb, steps.as_deref(), upstreams));
    table.finish();
    let steps = steps?;
    Some(Route {
        id,
        key,
        public: steps.iter().any(|step| !upstreams[step.upstream].private),
        patterns: patterns?,
        verify: verify.unwrap_or_else(|| Some(sumdb.default_for(&steps, upstreams)))?,
        steps,
        fallback: fallback?,
        list: list.unwrap_or(ListMode::Merge),
        partial: partial.unwrap_or(PartialRule::Serve),
        hedge_after,
    })
}

fn patterns(item: Item<'_>) -> Option<Vec<Pattern>> {
    let whole = item.clone();
    let parse = |item: Item<'_>| item.parsed(globs);
    let found = all(item.list().into_iter().map(parse))?.concat();
    if found.is_empty() {
        whole.say("at least one pattern is needed");
        return None;
    }
    Some(found)
}

fn steps(item: Item<'_>, upstreams: &[Upstream]) -> Option<Vec<Step>> {
    let whole = item.clone();
    let mut steps: Vec<Step> = Vec::new();
    let mut good = true;
    for item in item.list() {
        let name = item.text()?;
        match upstreams.iter().position(|upstream| upstream.name == name) {
            None => {
                let mut known: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
                known.sort_unstable();
                item.say(format!("there is no upstream {name:?} (there are: {})", known.join(", ")));
                good = false;
            }
            Some(at) if steps.iter().any(|s| s.upstream == at) => {
                item.say(format!("{name:?} stands here twice"));
                good = false;
            }
            Some(at) => steps.push(Step { upstream: at, goes_on: None }),
        }
    }
    if steps.is_empty() && good {
        whole.say("at least one upstream is needed");
    }
    (good && !steps.is_empty()).then_some(steps)
}

fn fallback(items: &[Item<'_>]) -> Option<Fallback> {
    const KNOWN: &str = "has to be \"not-found\", \"any-error\", or a list of: absent, denied, busy, outage, corrupt";
    if let [item] = items {
        match item.text()?.as_str() {
            "not-found" => return Some(Fallback::NotFound),
            "any-error" => return Some(Fallback::AnyError),
            _ => {}
        }
    }
    let class = |text: &str| FailureClass::parse(text).ok_or_else(|| KNOWN.to_owned());
    all(items.iter().map(|item| item.parsed(class))).map(Fallback::Classes)
}

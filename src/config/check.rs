//! From tables to the checked configuration.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Dict;
use url::Url;

use super::egress::{Defaults, policy};
use super::go_chains::go_chains;
use super::load::user_cache_dir;
use super::read::{Finding, Item, Place, Reading, Table, beside};
use super::trust::Sumdb;
use super::{Cache, Config, ConfigError, Log, Origin, Server, Upstream, UpstreamKind, trust, vanity, vcs};
use crate::base::units;
use crate::egress::proxy::bare;
use crate::gateway;
use crate::module::Pattern;
use crate::route::{FailureClass, Fallback, ListMode, PartialRule, Route, RouteTable, Step};
use crate::upstream::{goproxy, guard};

/// What a `Config` without a mistake was made of.
pub(super) struct Chains<'r> {
    pub(super) upstreams: Vec<Upstream>,
    pub(super) routes: RouteTable,
    pub(super) origin: Origin,
    pub(super) sumdb: Sumdb<'r>,
}

pub(super) fn check(reading: &Reading, dict: Dict) -> Result<Config, ConfigError> {
    let mut root = Table::root(reading, dict);
    let mut warnings = Vec::new();
    let mut server = root.table("server");
    let listen = addresses(&mut server, "listen");
    let workers = server.number("workers", 0, 1024);
    let shutdown_grace = server.duration("shutdown_grace");
    let max_fetches = server.number("max_fetches", 1, 1_000_000);
    server.finish();
    let mut admin_table = root.table("admin");
    let admin = addresses(&mut admin_table, "listen");
    admin_table.finish();
    let cache = cache(reading, root.table("cache"), &mut warnings);
    let (egress, log) = (Defaults::read(reading, root.table("egress")).unwrap_or_default(), log(root.table("log")));
    let (sumdb, policy) = (Sumdb::read(root.table("sumdb")), trust::policy(root.table("policy")));
    let chains = chains(reading, &mut root, sumdb, &egress, &mut warnings);
    let vanity = all(root.list_of_tables("vanity").into_iter().map(vanity::rule));
    root.finish();
    let chains = chains.and_then(|Chains { upstreams, routes, origin, sumdb }| {
        let steps = routes.routes().iter().flat_map(|route| route.steps.clone()).collect::<Vec<_>>();
        let (databases, no_sumdb) = sumdb.settle(reading, &upstreams, steps.into_iter(), &egress, &mut warnings)?;
        Some((upstreams, routes, origin, databases, no_sumdb))
    });
    if let Some(listen) = &listen {
        if listen.is_empty() {
            reading.say(None, "server.listen", "at least one address is needed");
        }
        if let Some((upstreams, _, origin, ..)) = &chains {
            own_addresses(reading, listen, upstreams, origin);
        }
    }
    let findings = reading.findings.take();
    match (listen, admin, cache, log, chains.zip(vanity).zip(policy)) {
        (
            Some(listen),
            Some(admin),
            Some((cache, list_ttl, not_found_ttl)),
            Some(log),
            Some((((upstreams, routes, origin, databases, no_sumdb), vanity), policy)),
        ) if findings.is_empty() => Ok(Config {
            server: Server {
                listen,
                admin,
                workers: workers.filter(|n| *n > 0),
                shutdown_grace: shutdown_grace.unwrap_or_default(),
            },
            cache,
            gateway: gateway::Settings { list_ttl, not_found_ttl, max_fetches: max_fetches.unwrap_or(1) },
            upstreams,
            routes,
            databases,
            no_sumdb,
            policy,
            vanity,
            log,
            warnings,
            origin,
        }),
        _ => Err(ConfigError { findings }),
    }
}

/// One address or a list; an empty text is none.
fn addresses(table: &mut Table<'_>, key: &'static str) -> Option<Vec<SocketAddr>> {
    let items = table.items(key)?;
    let mut found: Vec<SocketAddr> = Vec::new();
    let mut good = true;
    for item in items {
        let text = item.text()?;
        // figment takes a comma-separated variable for one text.
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let problem = match address(part) {
                None => format!("{part:?} is not an address such as \"127.0.0.1:8080\" or \":8080\""),
                Some(address) if found.contains(&address) => format!("{address} stands here twice"),
                Some(address) => {
                    found.push(address);
                    continue;
                }
            };
            item.say(problem);
            good = false;
        }
    }
    good.then_some(found)
}

fn address(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix(':') {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port.parse().ok()?));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?));
    }
    text.parse().ok()
}

type CacheParts = (Cache, Duration, Duration);

fn cache(reading: &Reading, mut table: Table<'_>, warnings: &mut Vec<Finding>) -> Option<CacheParts> {
    let dir = table.text("dir").and_then(|dir| match dir.as_str() {
        "" => user_cache_dir().map(|d| d.join("modgate")).or_else(|| {
            reading.say(None, "cache.dir", "this user has no cache directory (no HOME); name a folder");
            None
        }),
        dir => Some(beside(reading.file.as_deref(), dir)),
    });
    let max_size = table.parsed("max_size", |text| if text.is_empty() { Ok(None) } else { units::parse_size(text).map(Some) });
    let list_ttl = table.duration("list_ttl");
    let not_found_ttl = table.duration("not_found_ttl");
    let mirror_ttl = table.duration("mirror_ttl");
    let memory = table.parsed("memory", units::parse_size);
    table.finish();
    if max_size == Some(None) {
        warnings.push(Finding {
            place: reading.file.clone().map_or(Place::Default, |f| Place::File(f, None)),
            key: "cache.max_size".into(),
            problem: "not set: the cache on disk grows without bound".into(),
        });
    }
    Some((Cache { dir: dir?, max_size: max_size?, mirror_ttl: mirror_ttl?, memory: memory? }, list_ttl?, not_found_ttl?))
}

fn log(mut table: Table<'_>) -> Option<Log> {
    let filter = table.parsed("level", |text| match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(e) => Err(format!("not a log level or filter: {e}")),
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
    if route_tables.is_empty() {
        reading.say(None, "routes", "upstreams are named but no [[routes]] lead to them");
    }
    let mut names = HashMap::new();
    let mut upstreams = Vec::new();
    for (name, table) in tables {
        names.insert(name.clone(), upstreams.len());
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
    let routes: Vec<Option<Route>> = route_tables.into_iter().map(|table| route(table, &names, &upstreams, &sumdb)).collect();
    let routes = RouteTable::new(routes.into_iter().collect::<Option<Vec<_>>>()?);
    for (at, pattern, by) in routes.shadowed() {
        let text = &routes.routes()[at].patterns[pattern];
        let problem = format!("the pattern \"{text}\" never matches: routes[{by}] comes first and matches all of it");
        reading.say(None, &format!("routes[{at}].match"), problem);
    }
    warn_of_leaks(reading, &routes, &upstreams, warnings);
    for (at, unused) in upstreams.iter().enumerate() {
        if !routes.routes().iter().any(|r| r.steps.iter().any(|s| s.upstream == at)) {
            let problem = "no route leads to this upstream".to_owned();
            warnings.push(Finding { place: place(reading), key: format!("upstreams.{}", unused.name), problem });
        }
    }
    Some(Chains { upstreams, routes, origin: Origin::Configured, sumdb })
}

fn place(reading: &Reading) -> Place {
    reading.file.clone().map_or(Place::Environment("MODGATE_…".into()), |file| Place::File(file, None))
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
                let path = beside(reading.file.as_deref(), &item.text()?);
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

fn route(mut table: Table<'_>, names: &HashMap<String, usize>, upstreams: &[Upstream], sumdb: &Sumdb<'_>) -> Option<Route> {
    let patterns = required(&mut table, "match").and_then(patterns);
    let steps = required(&mut table, "upstreams").and_then(|item| steps(item, names));
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
    let parse = |item: Item<'_>| item.parsed(|text| Pattern::parse_list(text).map_err(|e| e.to_string()));
    let found = all(item.list().into_iter().map(parse))?.concat();
    if found.is_empty() {
        whole.say("at least one pattern is needed");
        return None;
    }
    Some(found)
}

fn steps(item: Item<'_>, names: &HashMap<String, usize>) -> Option<Vec<Step>> {
    let whole = item.clone();
    let mut steps: Vec<Step> = Vec::new();
    let mut good = true;
    for item in item.list() {
        let name = item.text()?;
        match names.get(&name) {
            None => {
                let mut known: Vec<&str> = names.keys().map(String::as_str).collect();
                known.sort_unstable();
                item.say(format!("there is no upstream {name:?} (there are: {})", known.join(", ")));
                good = false;
            }
            Some(at) if steps.iter().any(|s| s.upstream == *at) => {
                item.say(format!("{name:?} stands here twice"));
                good = false;
            }
            Some(at) => steps.push(Step { upstream: *at, goes_on: None }),
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

/// An upstream that is modgate's own address would be asked by itself, for ever.
fn own_addresses(reading: &Reading, listen: &[SocketAddr], upstreams: &[Upstream], origin: &Origin) {
    for upstream in upstreams {
        let UpstreamKind::GoProxy(settings, _) = &upstream.kind else { continue };
        let port = settings.url.port_or_known_default();
        let host = bare(settings.url.host_str().unwrap_or_default());
        let ip = host.parse::<IpAddr>().ok();
        let is_self = |own: &SocketAddr| {
            let same_host = match ip {
                Some(ip) => {
                    ip == own.ip()
                        || (ip.is_loopback() && own.ip().is_unspecified())
                        || (ip.is_loopback() && own.ip().is_loopback())
                }
                None => host == "localhost" && (own.ip().is_loopback() || own.ip().is_unspecified()),
            };
            port == Some(own.port()) && same_host
        };
        if let Some(own) = listen.iter().find(|own| is_self(own)) {
            let problem = format!("names {own}, where modgate itself listens: it would ask itself without end");
            match origin {
                Origin::Configured => reading.say(None, &format!("upstreams.{}.url", upstream.name), problem),
                Origin::GoSettings => {
                    let problem = format!("GOPROXY {problem}; give the upstreams by --config, or run modgate with another GOPROXY");
                    reading.findings.borrow_mut().push(Finding { place: Place::GoSettings, key: String::new(), problem });
                }
            }
        }
    }
}

/// Where the name of a private module could reach a public upstream.
fn warn_of_leaks(reading: &Reading, routes: &RouteTable, upstreams: &[Upstream], warnings: &mut Vec<Finding>) {
    let public = |route: &Route| route.steps.iter().find(|s| !upstreams[s.upstream].private).map(|s| &upstreams[s.upstream].name);
    let private = |route: &Route| route.steps.iter().any(|s| upstreams[s.upstream].private);
    let mut warn =
        |at: usize, problem: String| warnings.push(Finding { place: place(reading), key: format!("routes[{at}]"), problem });
    for (at, route) in routes.routes().iter().enumerate().filter(|(_, route)| private(route)) {
        let catch_all = route.patterns.iter().any(Pattern::is_catch_all);
        if let Some(public) = public(route).filter(|_| !catch_all) {
            warn(
                at,
                format!(
                    "a private module of this route that its private upstreams do not have is asked of the public upstream {public:?}"
                ),
            );
            continue;
        }
        for parent in route.patterns.iter().flat_map(Pattern::parents) {
            // The go command probes the parents of an import path; a host alone is no module at the well-known ones, and nobody
            // is told anything by it.
            let falls_to = routes.routes().iter().find(|r| r.patterns.iter().any(|p| p.covers(&parent)));
            let leak = falls_to.and_then(|r| public(r)).filter(|_| parent.as_str().contains('/'));
            if let Some(public) = leak {
                warn(
                    at,
                    format!(
                        "the go command probes parents of import paths, and \"{parent}\" is asked of the public upstream {public:?}"
                    ),
                );
            }
        }
    }
}

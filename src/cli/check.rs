//! `modgate check`: the configuration checked and said back, and with `--probe` each upstream tried.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::{CliError, err, out, warn};
use crate::access::jwt::Issuer;
use crate::assemble::Foundation;
use crate::base::units::{show_elapsed, show_size};
use crate::config::{Config, Origin, Upstream, UpstreamKind, Via};
use crate::egress;
use crate::egress::proxy::Proxy;
use crate::gateway::policy::Entry;
use crate::gateway::{Policy, Team};
use crate::module::Pattern;
use crate::route::{Fallback, GoesOn, ListMode, PartialRule, Route};
use crate::server::limits::{Rate, TeamLimits};
use crate::server::tls::TlsSettings;
use crate::vcs;

/// Whether a folder, or the nearest above it that is there, can be written to. Nothing is made or written.
fn could_be_written(dir: &Path) -> Result<(), String> {
    use rustix::fs::{Access, access};
    let dir = std::path::absolute(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let Some(nearest) = dir.ancestors().find(|above| above.symlink_metadata().is_ok()) else { return Ok(()) };
    let problem = |what: &dyn std::fmt::Display| format!("{} {what}", nearest.display());
    if !nearest.is_dir() {
        return Err(problem(&"is not a folder"));
    }
    let may = access(nearest, Access::WRITE_OK | Access::EXEC_OK);
    may.map_err(|e| problem(&format_args!("cannot be written to by this user: {}", std::io::Error::from(e))))
}

pub(super) fn run(file: Option<&Path>, probe: bool) -> Result<(), CliError> {
    let config = Config::load(file)?;
    warn(&config);
    let addresses = |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let tls = match &config.server.tls {
        None => "",
        Some(tls) if tls.asks_for_certificates() => ", by TLS, which asks for client certificates",
        Some(_) => ", by TLS",
    };
    out(format_args!("serves      {}{tls}", addresses(&config.server.listen)));
    if !config.server.listen_plain.is_empty() {
        out(format_args!("serves      {}, without TLS", addresses(&config.server.listen_plain)));
    }
    out(format_args!(
        "admin       {}",
        if config.server.admin.is_empty() { "off".into() } else { addresses(&config.server.admin) }
    ));
    let bound = config.cache.max_size.map_or_else(|| "without bound".to_owned(), |n| format!("at most {}", show_size(n)));
    let free = match config.cache.min_free {
        0 => String::new(),
        least => format!(", leaves {} of the disk free", show_size(least)),
    };
    let zips = if config.gateway.uncompressed.is_some() { ", zips without compression" } else { "" };
    out(format_args!("cache       {}, {bound}{free}{zips}", config.cache.dir.display()));
    if let Err(problem) = could_be_written(&config.cache.dir) {
        err(format_args!("modgate: warning: cache.dir: {problem}"));
    }
    if config.origin == Origin::GoSettings {
        out("upstreams   from this machine's Go settings");
    }
    for upstream in &config.upstreams {
        let private = if upstream.private { ", private" } else { "" };
        out(format_args!("upstream    {}: {}{private}", upstream.name, describe(upstream)));
    }
    for (n, route) in config.teams.iter().take(1).flat_map(|team| team.routes.own()).enumerate() {
        out(format_args!("route {n:<5} {}", describe_route(route, &config.upstreams)));
    }
    for database in &config.databases {
        let via: Vec<_> = database.via.iter().map(|via| describe_via(via, &config.upstreams)).collect();
        let via = if via.is_empty() { "nobody: what is kept of it".to_owned() } else { via.join(", then ") };
        out(format_args!("sumdb       {}: by {via}", database.key.name()));
    }
    if !config.no_sumdb.is_empty() {
        let patterns: Vec<_> = config.no_sumdb.iter().map(Pattern::as_str).collect();
        out(format_args!("no sumdb    for {}", patterns.join(", ")));
    }
    describe_policy(&config.teams[0].policy);
    describe_people(&config);
    for (place, team) in config.teams.iter().enumerate().skip(1) {
        describe_team(&config, place, team);
    }
    if probe { run_probes(&config) } else { Ok(()) }
}

fn describe(upstream: &Upstream) -> String {
    match &upstream.kind {
        UpstreamKind::GoProxy(settings, policy) => {
            let credentials = policy.credentials.is_some();
            format!("goproxy {}{}", settings.url, describe_way(policy.proxy.for_url(&settings.url), credentials, policy))
        }
        UpstreamKind::Vcs(settings, policy) => describe_vcs(settings, policy),
        UpstreamKind::Directory(path, _) => format!("directory {}", path.display()),
        UpstreamKind::Offline => "offline, what imports bring".to_owned(),
    }
}

fn describe_vcs(settings: &vcs::Settings, policy: &egress::Policy) -> String {
    let rules = match settings.rules.len() {
        0 => "no rules".to_owned(),
        1 => "1 rule".to_owned(),
        n => format!("{n} rules"),
    };
    let discovery = if settings.discover { "discovery by go-import pages" } else { "no discovery" };
    let hosts: Vec<&str> = settings.hosts.iter().map(|h| h.host.as_str()).collect();
    let credentials = if hosts.is_empty() { String::new() } else { format!(", credentials for {}", hosts.join(", ")) };
    let netrc = settings.netrc.as_ref().map_or("", |_| ", a netrc");
    let way = describe_way(policy.proxy.https.as_ref(), false, policy);
    format!("vcs, {rules}, {discovery}{credentials}{netrc}{way}")
}

/// The way out, where there is something to say about it. Secrets have no text form.
fn describe_way(proxy: Option<&Arc<Proxy>>, credentials: bool, policy: &egress::Policy) -> String {
    let mut said = Vec::new();
    if let Some(proxy) = proxy {
        said.push(format!("through {proxy}"));
    }
    if credentials {
        said.push("with credentials".to_owned());
    }
    if policy.tls.identity.is_some() {
        said.push("with a client certificate".to_owned());
    }
    if policy.tls.insecure_skip_verify {
        said.push("WITHOUT looking at its certificate".to_owned());
    }
    if let Some(rate) = policy.throttle.rate {
        said.push(format!("at most {} requests in {}", rate.requests, humantime::format_duration(rate.per)));
    }
    if let Some(places) = policy.throttle.max_concurrent {
        said.push(format!("at most {places} at once"));
    }
    said.iter().flat_map(|s| [", ", s]).collect()
}

fn describe_route(route: &Route, upstreams: &[Upstream]) -> String {
    if route.steps.is_empty() {
        return format!("{} -> nobody", route.pattern_text());
    }
    let rule = match &route.fallback {
        Fallback::NotFound => "not-found".to_owned(),
        Fallback::AnyError => "any-error".to_owned(),
        Fallback::Classes(classes) => classes.iter().map(|c| c.name()).collect::<Vec<_>>().join("/"),
    };
    let mut chain = String::new();
    for (n, step) in route.steps.iter().enumerate() {
        if n > 0 {
            let after = match route.steps[n - 1].goes_on {
                None => rule.as_str(),
                Some(GoesOn::NotFound) => "not-found",
                Some(GoesOn::AnyError) => "any-error",
            };
            chain.extend([" -(", after, ")-> "]);
        }
        chain.push_str(&upstreams[step.upstream].name);
    }
    let list = match (route.list, route.partial) {
        (ListMode::First, _) => "lists from the first that answers",
        (ListMode::Merge, PartialRule::Serve) => "lists merged",
        (ListMode::Merge, PartialRule::Fail) => "lists merged, never incomplete",
    };
    let hedge = route.hedge_after.map(|after| format!(", the next is asked too after {}", humantime::format_duration(after)));
    let verify = route.verify.name();
    format!("{} -> {chain}  ({list}{}; verify {verify})", route.pattern_text(), hedge.unwrap_or_default())
}

fn describe_via(via: &Via, upstreams: &[Upstream]) -> String {
    match via {
        Via::Upstream(at) => upstreams[*at].name.clone(),
        Via::Direct(url, policy) => format!("{url}{}", describe_way(policy.proxy.for_url(url), false, policy)),
    }
}

fn describe_policy(policy: &Policy) {
    describe_policy_as("", policy);
}

fn describe_policy_as(indent: &str, policy: &Policy) {
    let width = 11 - indent.len();
    let say = |what: &str, text: String| out(format_args!("{indent}{what:<width$} {text}"));
    let entries = |entries: &[Entry]| entries.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !policy.deny.is_empty() {
        say("denied", entries(&policy.deny));
    }
    if !policy.allow.is_empty() {
        say("allowed", format!("{}, and nothing else", entries(&policy.allow)));
    }
    if !policy.min_age.is_zero() {
        let exempt: Vec<_> = policy.min_age_exempt.iter().map(Pattern::as_str).collect();
        let exempt = if exempt.is_empty() { String::new() } else { format!(", save those of {}", exempt.join(", ")) };
        say("age", format!("versions at least {} old{exempt}", humantime::format_duration(policy.min_age)));
    }
}

/// Who people are, how often they may ask, and what is written down.
fn describe_people(config: &Config) {
    let access = &config.access;
    let mut ways = counted(access.users.len(), "user");
    ways.extend(counted(access.tokens.len(), "token"));
    ways.extend(access.issuers.iter().map(|issuer| format!("JWTs of {}", issuer.name)));
    let asks = config.server.tls.as_ref().is_some_and(TlsSettings::asks_for_certificates);
    ways.extend(asks.then(|| "client certificates".to_owned()));
    if !ways.is_empty() {
        let anonymous = if config.doors.anonymous { "others come in too" } else { "nobody else comes in" };
        out(format_args!("people      {}; {anonymous}", ways.join(", ")));
    }
    describe_limits("limits     ", &config.limits[0]);
    if let Some(audit) = &config.audit {
        let to = audit.file.as_ref().map_or_else(|| "standard output".to_owned(), |file| file.display().to_string());
        out(format_args!("audit       {} to {to}", if audit.all { "everything" } else { "downloads" }));
    }
}

fn counted(n: usize, what: &str) -> Vec<String> {
    match n {
        0 => Vec::new(),
        1 => vec![format!("1 {what}")],
        n => vec![format!("{n} {what}s")],
    }
}

fn describe_limits(head: &str, limits: &TeamLimits) {
    let said = |rate: &Rate, whom: &str| {
        format!("{} requests in {} {whom} ({} at once)", rate.requests, humantime::format_duration(rate.per), rate.burst)
    };
    let each = limits.per_client.as_ref().map(|rate| said(rate, "each"));
    let all = limits.all.as_ref().map(|rate| said(rate, "all together"));
    let both: Vec<String> = each.into_iter().chain(all).collect();
    if !both.is_empty() {
        out(format_args!("{head} {}", both.join(", ")));
    }
}

/// A team: who is of it, where it asks, and all that it may ask, in order.
fn describe_team(config: &Config, place: usize, team: &Team) {
    let door = &config.doors.teams[place];
    let mut by: Vec<String> = door.prefix.iter().map(|prefix| format!("/{prefix}/")).collect();
    by.extend(door.hosts.iter().cloned());
    let access = &config.access;
    let mut members = counted(access.users.iter().filter(|user| user.teams.contains(&place)).count(), "user");
    members.extend(counted(access.tokens.iter().filter(|token| token.teams.contains(&place)).count(), "token"));
    let of_issuer = |issuer: &&Issuer| issuer.teams.iter().any(|(_, team)| *team == place);
    members.extend(access.issuers.iter().filter(of_issuer).map(|issuer| format!("JWTs of {}", issuer.name)));
    members.extend(access.certificates.iter().any(|rule| rule.team == place).then(|| "client certificates".to_owned()));
    let members = match (members.is_empty(), config.doors.anonymous) {
        (false, _) => format!("members: {}", members.join(", ")),
        (true, true) => "for whoever asks there".to_owned(),
        (true, false) => "for whoever is known and asks there".to_owned(),
    };
    let at = if by.is_empty() { String::new() } else { format!(" at {};", by.join(", ")) };
    out(format_args!("\nteam        {}:{at} {members}", team.label()));
    for route in team.routes.routes() {
        out(format_args!("  {:<9} {}", short(&route.key), describe_route(route, &config.upstreams)));
    }
    for fence in team.routes.private_patterns() {
        out(format_args!("  fence     {fence}: nobody else asks a public upstream about it"));
    }
    describe_limits("  limits   ", &config.limits[place]);
    describe_policy_as("  ", &team.policy);
}

/// Where a route of a team stands: its own by their number, the shared ones by theirs.
fn short(key: &str) -> String {
    match key.rsplit_once('.') {
        Some((_, own)) => format!("own {}", own.trim_start_matches("routes")),
        None => format!("all {}", key.trim_start_matches("routes")),
    }
}

/// Tries each upstream; one that cannot be reached fails the command.
fn run_probes(config: &Config) -> Result<(), CliError> {
    let foundation = Foundation::lay(config)?;
    let gateway = foundation.gateway(config)?;
    let access = foundation.access(&config.access, None)?;
    let failed = foundation.runtime().block_on(async {
        let mut failed = Vec::new();
        for member in gateway.members() {
            let started = Instant::now();
            let said = member.upstream.probe().await;
            let took = show_elapsed(started.elapsed());
            match said {
                Ok(said) => out(format_args!("probe       {}: {said} ({took})", member.name)),
                Err(e) => {
                    out(format_args!("probe       {}: FAILED: {e} ({took})", member.name));
                    failed.push(member.name.to_string());
                }
            }
        }
        for (at, issuer) in config.access.issuers.iter().enumerate() {
            match access.probe_issuer(at).await {
                Ok(keys) => out(format_args!("probe       issuer {}: {keys} keys", issuer.name)),
                Err(e) => {
                    out(format_args!("probe       issuer {}: FAILED: {e}", issuer.name));
                    failed.push(format!("issuer {}", issuer.name));
                }
            }
        }
        failed
    });
    foundation.close();
    if failed.is_empty() { Ok(()) } else { Err(CliError::Said(format!("cannot be used: {}", failed.join(", ")))) }
}

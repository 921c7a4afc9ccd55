//! `[sumdb]`, `[policy]` and `verify`: what modules have to prove, and which may be fetched at all.

use std::collections::HashMap;
use std::time::Duration;

use url::Url;

use super::check::{all, check_server_url};
use super::egress::Defaults;
use super::go_env::GoSettings;
use super::read::{Finding, Item, Reading, Table, globs};
use super::{Database, Upstream, UpstreamKind, Via};
use crate::gateway::Policy;
use crate::gateway::policy::Entry;
use crate::module::Pattern;
use crate::route::{Step, Verify};
use crate::sumdb::Verifier;

/// The databases that GOSUMDB may name without their keys, as the go command knows them.
const KNOWN: [(&str, &str, Option<&str>); 2] = [
    ("sum.golang.org", "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8", None),
    (
        "sum.golang.google.cn",
        "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        Some("https://sum.golang.google.cn"),
    ),
];
/// What `via` calls the database itself.
const DIRECT: &str = "direct";

/// A database and where it is itself.
#[derive(Debug, Clone)]
struct Named {
    key: Verifier,
    url: Url,
    /// Whether the URL was given, past all proxies as the go command has it.
    explicit: bool,
}

/// `[sumdb]` as it was read, before the upstreams are known that lead to it.
pub(super) struct Sumdb<'r> {
    databases: Vec<Named>,
    exempt: Vec<Pattern>,
    via: Option<Vec<Item<'r>>>,
    /// Whether nobody has said which databases there are.
    unset: bool,
    /// Whether something is wrong with it, which was said.
    broken: bool,
}

impl<'r> Sumdb<'r> {
    pub(super) fn read(mut table: Table<'r>) -> Self {
        let items = table.items("databases").unwrap_or_default();
        let unset = !items.is_empty() && items.iter().all(Item::is_default);
        let items: Vec<Item<'_>> = items.into_iter().filter(|item| !item.is_empty()).collect();
        let named = all(items.iter().map(|item| item.parsed(database)));
        if let Some(named) = &named {
            for (n, twice) in named.iter().enumerate().filter(|(n, d)| named[..*n].iter().any(|e| e.key.name() == d.key.name())) {
                items[n].say(format!("the database {} stands here twice", twice.key.name()));
            }
        }
        let no_sumdb = table.items("no_sumdb").map_or_else(|| Some(Vec::new()), |items| patterns(&items));
        let via = table.items("via");
        table.finish();
        let broken = named.is_none() || no_sumdb.is_none();
        Self { databases: named.unwrap_or_default(), exempt: no_sumdb.unwrap_or_default(), via, unset, broken }
    }

    /// Takes what the machine's Go settings say, where nothing else does.
    pub(super) fn of_go_settings(mut self, settings: &GoSettings) -> Result<Self, String> {
        if self.unset {
            let sumdb = settings.sumdb.as_str();
            self.databases = if sumdb == "off" { Vec::new() } else { vec![database(sumdb).map_err(|e| format!("GOSUMDB: {e}"))?] };
        }
        self.exempt.extend(Pattern::parse_list(&settings.no_sumdb).map_err(|e| format!("GONOSUMDB or GOPRIVATE: {e}"))?);
        Ok(self)
    }

    /// Whether there is a database to prove anything by.
    pub(super) fn proves(&self) -> bool {
        // What is wrong has been said; nothing else is wrong for that.
        self.broken || !self.databases.is_empty()
    }

    /// How a route verifies, where its configuration says nothing: what comes from a public upstream is proven.
    pub(super) fn default_for(&self, steps: &[Step], upstreams: &[Upstream]) -> Verify {
        let public = steps.iter().any(|step| !upstreams[step.upstream].private);
        if public && self.proves() { Verify::Sumdb } else { Verify::Off }
    }

    /// The databases with the ways to them: as configured, or else by the public proxies in the order of `steps`, then straight.
    pub(super) fn settle(
        self,
        reading: &Reading,
        upstreams: &[Upstream],
        steps: impl Iterator<Item = Step>,
        egress: &Defaults,
        warnings: &mut Vec<Finding>,
    ) -> Option<(Vec<Database>, Vec<Pattern>)> {
        let names: HashMap<&str, usize> = upstreams.iter().enumerate().map(|(n, u)| (u.name.as_str(), n)).collect();
        let is_proxy = |at: usize| matches!(upstreams[at].kind, UpstreamKind::GoProxy(..));
        let named = match &self.via {
            None => None,
            Some(items) => Some(all(items.iter().map(|item| {
                item.parsed(|name| match names.get(name) {
                    _ if name == DIRECT => Ok(None),
                    Some(at) if is_proxy(*at) => Ok(Some(*at)),
                    Some(_) => Err(format!("{name:?} is no module proxy, so it passes no checksum database on")),
                    None => Err(format!("there is no upstream {name:?}, and it is not {DIRECT:?}")),
                })
            }))?),
        };
        let mut by_routes: Vec<usize> = Vec::new();
        for step in steps.filter(|step| !upstreams[step.upstream].private && is_proxy(step.upstream)) {
            if !by_routes.contains(&step.upstream) {
                by_routes.push(step.upstream);
            }
        }
        let default = || by_routes.iter().map(|at| Some(*at)).chain([None]).collect();
        let straight = if self.proves() { Some(egress.plain(reading, None, warnings)?) } else { None };
        let databases = self.databases.into_iter().filter_map(|database| {
            let ways: Vec<Option<usize>> = match &named {
                Some(named) => named.clone(),
                None if database.explicit && self.unset => vec![None],
                None => default(),
            };
            let straight = straight.clone()?;
            let way = |way| match way {
                Some(at) => Via::Upstream(at),
                None => Via::Direct(database.url.clone(), Box::new(straight.clone())),
            };
            Some(Database { via: ways.into_iter().map(way).collect(), key: database.key })
        });
        Some((databases.collect(), self.exempt))
    }
}

/// Reads a database as GOSUMDB names it: a known name, a key, or a key and a URL.
fn database(text: &str) -> Result<Named, String> {
    let mut fields = text.split_whitespace();
    let (Some(name), url, None) = (fields.next(), fields.next(), fields.next()) else {
        return Err("has to be a checksum database as GOSUMDB has it: a known name, a key, or a key and a URL".into());
    };
    let known = KNOWN.iter().find(|(known, _, _)| *known == name);
    let (key, url) = known.map_or((name, url), |(_, key, own)| (*key, url.or(*own)));
    let key = Verifier::parse(key).map_err(|e| {
        let unknown = || format!("{name:?} is no database whose key is known here; write it as name+hash+keydata");
        if name.contains('+') { e.to_string() } else { unknown() }
    })?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    let host_and_path =
        |name: &str| name.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain));
    if !host_and_path(key.name()) {
        return Err("the database's name has to be a host's, in lower case, with a path at most".into());
    }
    let explicit = url.is_some();
    let url = url.map_or_else(|| format!("https://{}", key.name()), str::to_owned);
    let url = Url::parse(&url).map_err(|e| format!("its URL is none ({e})"))?;
    check_server_url(&url)?;
    Ok(Named { key, url, explicit })
}

/// Reads `verify` of a route, where it says something.
pub(super) fn verify(item: &Item<'_>, sumdb: &Sumdb<'_>, steps: Option<&[Step]>, upstreams: &[Upstream]) -> Option<Verify> {
    let private = steps.is_some_and(|steps| steps.iter().all(|step| upstreams[step.upstream].private));
    let modes = [Verify::Sumdb, Verify::SumdbOrTrustFirst, Verify::Off];
    item.parsed(|text| match modes.into_iter().find(|mode| mode.name() == text) {
        Some(mode) if mode != Verify::Off && !sumdb.proves() => {
            Err("there is no database to verify by: sumdb.databases is empty".into())
        }
        Some(mode) if mode != Verify::Off && private => {
            Err("all upstreams here are private, and a database would be told the names of their modules".into())
        }
        Some(mode) => Ok(mode),
        None => Err("has to be one of: sumdb, sumdb-or-trust-first, off".into()),
    })
}

/// Reads `[policy]`.
pub(super) fn policy(mut table: Table<'_>) -> Option<Policy> {
    let mut entries = |key| {
        let items = table.items(key).unwrap_or_default();
        all(items
            .iter()
            .filter(|item| !item.is_empty())
            .map(|item| item.parsed(|text| Entry::parse(text).map_err(|e| e.to_string()))))
    };
    let (deny, allow) = (entries("deny"), entries("allow"));
    let min_age = table.duration("min_age").unwrap_or(Duration::ZERO);
    let min_age_exempt = table.items("min_age_exempt").map_or_else(|| Some(Vec::new()), |items| patterns(&items));
    table.finish();
    Some(Policy { deny: deny?, allow: allow?, min_age, min_age_exempt: min_age_exempt? })
}

/// Reads a team's `policy` over the shared one: what that denies stays denied, and the rest holds where the team does not say
/// otherwise.
pub(super) fn team_policy(table: Table<'_>, shared: &Policy) -> Option<Policy> {
    let says = ["allow", "min_age", "min_age_exempt"].map(|key| table.has(key));
    let own = policy(table)?;
    let [allow, min_age, exempt] = says;
    Some(Policy {
        deny: shared.deny.iter().cloned().chain(own.deny).collect(),
        allow: if allow { own.allow } else { shared.allow.clone() },
        min_age: if min_age { own.min_age } else { shared.min_age },
        min_age_exempt: if exempt { own.min_age_exempt } else { shared.min_age_exempt.clone() },
    })
}

fn patterns(items: &[Item<'_>]) -> Option<Vec<Pattern>> {
    let parse = |item: &Item<'_>| item.parsed(globs);
    Some(all(items.iter().map(parse))?.concat())
}

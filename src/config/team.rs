//! `[teams.NAME]`: what a team may ask of whom, who is of it, and how often they may ask.

use super::auth::Auth;
use super::check::{Chains, all, route};
use super::read::{Reading, Table};
use super::{server, trust};
use crate::access;
use crate::gateway::Policy;
use crate::route::RouteTable;
use crate::server::identify::Door;
use crate::server::limits::TeamLimits;

/// The first elements of paths that mean something of their own.
const TAKEN: [&str; 3] = ["sumdb", "cached-only", "-"];

/// What holds for every team that does not say otherwise.
pub(super) struct Shared {
    pub(super) policy: Policy,
    pub(super) limits: TeamLimits,
}

/// One team as it was read.
pub(super) struct Parts {
    pub(super) door: Door,
    pub(super) own: RouteTable,
    pub(super) inherit: bool,
    pub(super) policy: Policy,
    pub(super) limits: TeamLimits,
}

/// Reads all teams, in the order of their names. Their places begin at 1, for the first is everybody.
pub(super) fn teams<'r>(
    reading: &'r Reading,
    tables: Vec<(String, Table<'r>)>,
    chains: &Chains<'_>,
    shared: &Shared,
    mut auth: Auth<'r>,
    asks_for_certificates: bool,
) -> Option<(Vec<Parts>, access::Settings, bool)> {
    let mut next_route = chains.routes.as_ref().map_or(0, Vec::len);
    let read = tables
        .into_iter()
        .enumerate()
        .map(|(n, (name, table))| team(&name, table, n + 1, chains, shared, &mut auth, &mut next_route));
    let teams = all(read);
    if auth.reads_certificates() && !asks_for_certificates {
        reading.say(
            None,
            "teams",
            "certificates make members of clients, but none are asked for: there is no server.tls.client_ca_file",
        );
    }
    let settled = auth.settle(asks_for_certificates);
    let teams = teams?;
    let doors: Vec<&Door> = teams.iter().map(|team| &team.door).collect();
    let mut good = true;
    for (n, door) in doors.iter().enumerate() {
        let name = door.name.as_deref().unwrap_or_default();
        if let Some(other) = doors[..n].iter().find(|other| door.prefix.is_some() && other.prefix == door.prefix) {
            reading.say(
                None,
                &format!("teams.{name}.prefix"),
                format!("is the team {}'s too", other.name.as_deref().unwrap_or_default()),
            );
            good = false;
        }
        if let Some(host) = door.hosts.iter().find(|host| doors[..n].iter().any(|other| other.hosts.contains(host))) {
            reading.say(None, &format!("teams.{name}.hosts"), format!("{host:?} is another team's too"));
            good = false;
        }
    }
    let (access, anonymous) = settled?;
    good.then_some((teams, access, anonymous))
}

fn team<'r>(
    name: &str,
    mut table: Table<'r>,
    place: usize,
    chains: &Chains<'_>,
    shared: &Shared,
    auth: &mut Auth<'r>,
    next_route: &mut usize,
) -> Option<Parts> {
    let named = word(name).map_err(|why| table.say("", why)).ok();
    let prefix = match table.take("prefix") {
        None => Some(None),
        Some(item) => item.parsed(|text| word(text).map(|()| text.to_owned())).map(Some),
    };
    let hosts = match table.items("hosts") {
        None => Some(Vec::new()),
        Some(items) => all(items.iter().map(|item| item.parsed(host))),
    };
    let members_only = auth.members(&mut table, place);
    let inherit = if table.has("inherit") { table.flag("inherit") } else { Some(true) };
    let routes = all(table.list_of_tables("routes").into_iter().map(|table| {
        *next_route += 1;
        route(*next_route - 1, table, &chains.upstreams, &chains.sumdb)
    }));
    // What is denied to all is denied to those too who share nothing else.
    let denied = Policy { deny: shared.policy.deny.clone(), ..Policy::default() };
    let base = if inherit == Some(false) { &denied } else { &shared.policy };
    let policy = trust::team_policy(table.table("policy"), base);
    let limits = server::limits(table.table("limits"));
    if !members_only && prefix == Some(None) && hosts.as_ref().is_some_and(Vec::is_empty) {
        table.say("", "nothing leads to this team: it has no prefix, no hosts, and no members (users, tokens, jwt, certificates)");
    }
    if inherit == Some(false) && routes.as_ref().is_some_and(Vec::is_empty) {
        table.say("", "has no routes, and does not inherit the shared ones");
    }
    table.finish();
    named?;
    let limits = limits?;
    Some(Parts {
        door: Door { name: Some(name.into()), prefix: prefix?, hosts: hosts?, members_only },
        own: RouteTable::new(routes?),
        inherit: inherit?,
        policy: policy?,
        limits: TeamLimits { per_client: limits.per_client.or(shared.limits.per_client), all: limits.all },
    })
}

/// Checks what may stand as the first element of a path: no module path begins like that, for that needs a dot.
fn word(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if TAKEN.contains(&text) {
        return Err(format!("{text:?} has a meaning of its own at the beginning of a path"));
    }
    if text.is_empty() || text.len() > 64 || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(plain) {
        return Err(
            "the name of a team, and its prefix, has lower-case letters, digits, dashes and underscores, begins with a letter or \
             digit, and is not longer than 64"
                .into(),
        );
    }
    Ok(())
}

/// A host, in lower case.
fn host(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || !text.chars().all(plain) {
        return Err(format!("{text:?} is no host such as \"payments.goproxy.corp.example\" (ports do not count)"));
    }
    Ok(text.to_ascii_lowercase())
}

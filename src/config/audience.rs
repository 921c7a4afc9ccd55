//! Who could see, or be told, what is not theirs: what is looked at when a configuration is otherwise good.

use super::read::{Finding, Reading};
use super::{Server, Upstream};
use crate::access;
use crate::gateway::Team;
use crate::module::Pattern;
use crate::route::{Route, RouteTable};
use crate::server::identify::Doors;

/// What is looked at.
pub(super) struct Audience<'a> {
    pub(super) reading: &'a Reading,
    pub(super) server: &'a Server,
    pub(super) upstreams: &'a [Upstream],
    pub(super) teams: &'a [Team],
    pub(super) doors: &'a Doors,
    pub(super) access: &'a access::Settings,
}

/// Says which patterns never match, because of an earlier one of the same table. That a team's routes come before the shared
/// ones is their purpose.
pub(super) fn look_at_table(reading: &Reading, table: &RouteTable) {
    for (at, pattern, by) in table.shadowed() {
        let (route, by) = (&table.routes()[at], &table.routes()[by].key);
        let problem = format!("the pattern \"{}\" never matches: {by} comes first and matches all of it", route.patterns[pattern]);
        reading.say(None, &format!("{}.match", route.key), problem);
    }
}

impl Audience<'_> {
    /// Says what is allowed but worth a word.
    pub(super) fn warn(&self, warnings: &mut Vec<Finding>) {
        for team in self.teams {
            self.warn_of_leaks(&team.routes, warnings);
        }
        self.warn_of_openings(warnings);
        self.warn_of_open_doors(warnings);
        self.warn_of_plain_credentials(warnings);
        for (at, unused) in self.upstreams.iter().enumerate() {
            let leads_there = |route: &Route| route.steps.iter().any(|step| step.upstream == at);
            if !self.teams.iter().any(|team| team.routes.routes().iter().any(|route| leads_there(route))) {
                warnings.push(self.reading.warning(&format!("upstreams.{}", unused.name), "no route leads to this upstream"));
            }
        }
    }

    fn public(&self, route: &Route) -> Option<&str> {
        route.steps.iter().find(|s| !self.upstreams[s.upstream].private).map(|s| self.upstreams[s.upstream].name.as_str())
    }

    /// Where the name of a private module could reach a public upstream.
    fn warn_of_leaks(&self, table: &RouteTable, warnings: &mut Vec<Finding>) {
        let private = |route: &Route| route.steps.iter().any(|s| self.upstreams[s.upstream].private);
        for route in table.own().iter().filter(|route| private(route)) {
            let catch_all = route.patterns.iter().any(Pattern::is_catch_all);
            if let Some(public) = self.public(route).filter(|_| !catch_all) {
                let problem = format!(
                    "a private module of this route that its private upstreams do not have is asked of the public upstream {public:?}"
                );
                warnings.push(self.reading.warning(&route.key, problem));
                continue;
            }
            for parent in route.patterns.iter().flat_map(Pattern::parents) {
                // The go command probes the parents of an import path; a host alone is no module at the well-known ones, and nobody
                // is told anything by it.
                let falls_to = table.routes().iter().find(|r| r.patterns.iter().any(|p| p.covers(&parent)));
                let leak = falls_to.and_then(|r| self.public(r)).filter(|_| parent.as_str().contains('/'));
                if let Some(public) = leak {
                    let problem = format!(
                        "the go command probes parents of import paths, and \"{parent}\" is asked of the public upstream {public:?}"
                    );
                    warnings.push(self.reading.warning(&route.key, problem));
                }
            }
        }
    }

    /// Where one's routes ask a public upstream about what is private to a team, because they were written for that.
    fn warn_of_openings(&self, warnings: &mut Vec<Finding>) {
        for owner in self.teams.iter().filter(|team| team.name.is_some()) {
            let others = self.teams.iter().filter(|team| team.name != owner.name);
            for route in others.flat_map(|team| team.routes.own()).filter(|route| route.public) {
                let opened = owner.routes.private_patterns().find(|fence| route.patterns.iter().any(|p| fence.covers(p)));
                if let (Some(fence), Some(public)) = (opened, self.public(route)) {
                    let problem = format!(
                        "\"{fence}\" is private to the team {}, and this asks the public upstream {public:?} about it",
                        owner.label()
                    );
                    warnings.push(self.reading.warning(&route.key, problem));
                }
            }
        }
    }

    /// Teams with private upstreams that are anybody's who knows the address.
    fn warn_of_open_doors(&self, warnings: &mut Vec<Finding>) {
        let open = self.teams.iter().zip(&self.doors.teams).filter(|(_, door)| door.name.is_some() && !door.members_only);
        for (team, _) in open {
            if team.routes.own().iter().any(|route| route.steps.iter().any(|step| self.upstreams[step.upstream].private)) {
                let whoever = if self.doors.anonymous { "whoever reaches modgate" } else { "whoever has credentials" };
                let problem = format!(
                    "{whoever} is answered by its private upstreams: it is chosen by the address alone, for it has no members \
                     (users, tokens, jwt, certificates)"
                );
                warnings.push(self.reading.warning(&format!("teams.{}", team.label()), problem));
            }
        }
    }

    fn warn_of_plain_credentials(&self, warnings: &mut Vec<Finding>) {
        if !self.access.has_credentials() {
            return;
        }
        let plain = if self.server.tls.is_some() { &self.server.listen_plain } else { &self.server.listen };
        for address in plain.iter().filter(|address| !address.ip().is_loopback()) {
            let key = if self.server.tls.is_some() { "server.listen_plain" } else { "server.listen" };
            let problem = format!(
                "passwords and tokens for {address} cross the network unencrypted, unless something in front speaks TLS (server.tls)"
            );
            warnings.push(self.reading.warning(key, problem));
        }
    }
}

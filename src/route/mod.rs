//! Layer 2: which upstreams a module path may be asked of, and why.
//!
//! Routes stand in order, and the first whose patterns match wins. A plan is a pure function of the path and the table: it
//! says the rule that matched, so that logs and `explain` can say it too, and it names upstreams by their place in the
//! table of upstreams.
//!
//! Each team has a table: its own routes, then those that all share. What is private to another team is fenced off in it, so
//! that the names of one team's modules do not leave the house through another's routes.

use std::sync::Arc;
use std::time::Duration;

use crate::module::{ModulePath, Pattern};

/// How an upstream failed, as fallback rules speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// It says that it does not have it: 404, 410, or what the upstream's `absent` adds.
    Absent,
    /// It refuses the caller: 401, 403.
    Denied,
    /// It has no time now: 429.
    Busy,
    /// It did not answer as a working server would: refused, timed out, TLS, 5xx, cut off.
    Outage,
    /// It answered with something that cannot be right.
    Corrupt,
}

impl FailureClass {
    /// The class's name in configurations, logs and error bodies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Denied => "denied",
            Self::Busy => "busy",
            Self::Outage => "outage",
            Self::Corrupt => "corrupt",
        }
    }

    /// Reads a class's name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Absent, Self::Denied, Self::Busy, Self::Outage, Self::Corrupt].into_iter().find(|c| c.name() == name)
    }
}

/// After which failures the next upstream of a chain is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fallback {
    /// `"not-found"`, GOPROXY's comma: after absent.
    NotFound,
    /// `"any-error"`, GOPROXY's bar: after any failure.
    AnyError,
    /// A list of classes.
    Classes(Vec<FailureClass>),
}

impl Fallback {
    /// Whether the chain goes on after such a failure. A corrupt answer never ends a chain: the next upstream may have a
    /// good one.
    pub fn goes_on_after(&self, class: FailureClass) -> bool {
        class == FailureClass::Corrupt
            || match self {
                Self::NotFound => class == FailureClass::Absent,
                Self::AnyError => true,
                Self::Classes(classes) => classes.contains(&class),
            }
    }
}

/// How `@v/list` is answered from a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListMode {
    /// The union over the chain.
    Merge,
    /// The first upstream that answers.
    First,
}

/// What becomes of a merged list when an upstream failed and there is no earlier copy of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartialRule {
    /// Answer with what the others list, marked `Modgate-Partial`.
    Serve,
    /// Answer 502.
    Fail,
}

/// Whether what a chain brings has to be proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// By the checksum database; what that does not know is refused.
    Sumdb,
    /// By the checksum database where it can say something; else the sum that was seen first counts.
    SumdbOrTrustFirst,
    /// No database is asked. The sum that was seen first counts.
    Off,
}

impl Verify {
    /// The word for it in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sumdb => "sumdb",
            Self::SumdbOrTrustFirst => "sumdb-or-trust-first",
            Self::Off => "off",
        }
    }
}

/// One step of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The upstream's place in the table of upstreams.
    pub upstream: usize,
    /// Whether the chain goes on from here after failures of this kind; `None` takes the route's rule. GOPROXY lists have a
    /// separator of their own after each upstream.
    pub goes_on: Option<GoesOn>,
}

/// GOPROXY's two separators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoesOn {
    /// `,`
    NotFound,
    /// `|`
    AnyError,
}

/// One entry of `[[routes]]` or of a team's `routes`, checked.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its number among all routes of all tables; the flight of a fetch carries it.
    pub id: usize,
    /// Where it stands in the configuration: `routes[0]`, `teams.payments.routes[0]`.
    pub key: Arc<str>,
    /// Whether any of its upstreams is public.
    pub public: bool,
    /// The patterns that lead here.
    pub patterns: Vec<Pattern>,
    /// The upstreams in order. Empty where a path is to be answered by nobody.
    pub steps: Vec<Step>,
    /// When the next one is asked.
    pub fallback: Fallback,
    /// How lists are made.
    pub list: ListMode,
    /// What an incomplete list becomes.
    pub partial: PartialRule,
    /// The next upstream is asked too when one has not begun to answer after so long.
    pub hedge_after: Option<Duration>,
    /// What its zips and go.mod files are held against.
    pub verify: Verify,
}

impl Route {
    /// Whether the chain goes on after the step failed in such a way.
    pub fn goes_on(&self, step: &Step, class: FailureClass) -> bool {
        match step.goes_on {
            Some(GoesOn::NotFound) => Fallback::NotFound.goes_on_after(class),
            Some(GoesOn::AnyError) => Fallback::AnyError.goes_on_after(class),
            None => self.fallback.goes_on_after(class),
        }
    }

    /// The patterns as they were written, joined by commas.
    pub fn pattern_text(&self) -> String {
        self.patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(",")
    }
}

/// The routes of a team, or of everybody, in order.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    /// So many of them, at the beginning, are its owner's own.
    own: usize,
    /// What is private to others: not asked of public upstreams, save by a route that was made for it.
    fences: Vec<Pattern>,
}

/// What is to be done for a path.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The route.
    pub route: Arc<Route>,
    /// Which of its patterns matched.
    pub pattern: usize,
}

/// Why nothing is to be done for a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unplanned {
    /// No route matches.
    NoRoute,
    /// It is private to a team, and the route that matches here would ask a public upstream.
    Fenced,
}

impl Plan {
    /// The rule that matched, for logs and `explain`: `routes[0] "github.com/acme"`.
    pub fn rule(&self) -> String {
        let pattern = self.route.patterns.get(self.pattern).map_or("", Pattern::as_str);
        format!("{} {pattern:?}", self.route.key)
    }
}

impl RouteTable {
    /// A table of routes in order.
    pub fn new(routes: Vec<Route>) -> Self {
        Self { own: routes.len(), routes: routes.into_iter().map(Arc::new).collect(), fences: Vec::new() }
    }

    /// These routes, and after them those of another table.
    #[must_use]
    pub fn before(mut self, other: &Self) -> Self {
        self.routes.extend(other.routes.iter().cloned());
        self
    }

    /// Those that are not shared with others.
    pub fn own(&self) -> &[Arc<Route>] {
        &self.routes[..self.own]
    }

    /// The same with what is private to others.
    #[must_use]
    pub fn fenced(self, fences: Vec<Pattern>) -> Self {
        Self { fences, ..self }
    }

    /// What others must not see go out: the patterns of its own routes whose upstreams are all private. One that matches
    /// everything says nothing of the names that it matches.
    pub fn private_patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.own().iter().filter(|route| !route.public).flat_map(|route| &route.patterns).filter(|p| !p.is_catch_all())
    }

    /// The first route that matches the path.
    ///
    /// # Errors
    /// That there is none, or that a public upstream would be asked about what is private to others. A pattern as narrow as the
    /// fence was written with it in mind.
    pub fn plan(&self, module: &ModulePath) -> Result<Plan, Unplanned> {
        let found = self.routes.iter().find_map(|route| {
            let pattern = route.patterns.iter().position(|p| p.matches(module.as_str()))?;
            Some(Plan { route: Arc::clone(route), pattern })
        });
        let plan = found.ok_or(Unplanned::NoRoute)?;
        let own = &plan.route.patterns[plan.pattern];
        let fenced = |fence: &Pattern| fence.matches(module.as_str()) && !fence.covers(own);
        if plan.route.public && self.fences.iter().any(fenced) { Err(Unplanned::Fenced) } else { Ok(plan) }
    }

    /// The routes in order.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The places of patterns that can never match, because an earlier route matches all that they match:
    /// `(route, pattern, earlier route)`.
    pub fn shadowed(&self) -> Vec<(usize, usize, usize)> {
        let mut found = Vec::new();
        for (at, route) in self.routes.iter().enumerate() {
            for (p, pattern) in route.patterns.iter().enumerate() {
                let by = self.routes[..at].iter().position(|r| r.patterns.iter().any(|earlier| earlier.covers(pattern)));
                found.extend(by.map(|by| (at, p, by)));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(patterns: &str) -> Route {
        Route {
            id: 0,
            key: "routes[0]".into(),
            public: true,
            patterns: Pattern::parse_list(patterns).expect("patterns"),
            steps: Vec::new(),
            fallback: Fallback::NotFound,
            list: ListMode::Merge,
            partial: PartialRule::Serve,
            hedge_after: None,
            verify: Verify::Off,
        }
    }

    #[test]
    fn the_first_match_wins_on_the_decoded_path() {
        let numbered = |(id, patterns): (usize, &str)| Route { id, ..route(patterns) };
        let routes = ["github.com/Acme,*.corp.example", "github.com", "*"].into_iter().enumerate().map(numbered);
        let table = RouteTable::new(routes.collect());
        let planned = |path: &str| table.plan(&ModulePath::parse(path).expect("path")).map(|p| (p.route.id, p.pattern));
        assert_eq!(planned("github.com/Acme/tool"), Ok((0, 0)));
        assert_eq!(planned("git.corp.example/x"), Ok((0, 1)));
        assert_eq!(planned("github.com/acme/tool"), Ok((1, 0)));
        assert_eq!(planned("golang.org/x/mod"), Ok((2, 0)));
    }

    #[test]
    fn what_is_private_to_a_team_goes_nowhere_by_the_routes_of_others() {
        let private = |patterns: &str| Route { public: false, ..route(patterns) };
        let team = RouteTable::new(vec![private("pay.example,github.com/pay/*"), private("*")]);
        let fences: Vec<_> = team.private_patterns().cloned().collect();
        assert_eq!(fences.iter().map(Pattern::as_str).collect::<Vec<_>>(), ["pay.example", "github.com/pay/*"]);
        let own = RouteTable::new(vec![private("in.example"), route("github.com/pay/open"), route("github.com/pay")]);
        let table = own.before(&RouteTable::new(vec![route("*")])).fenced(fences);
        let planned = |path: &str| table.plan(&ModulePath::parse(path).expect("path")).map(|p| p.rule());
        assert_eq!(planned("pay.example/x"), Err(Unplanned::Fenced));
        assert_eq!(planned("pay.example"), Err(Unplanned::Fenced));
        assert_eq!(planned("repay.example/x").as_deref(), Ok("routes[0] \"*\""));
        assert_eq!(planned("in.example/pay").as_deref(), Ok("routes[0] \"in.example\""));
        assert_eq!(planned("github.com/pay/open/x").as_deref(), Ok("routes[0] \"github.com/pay/open\""), "a route of its own");
        assert_eq!(planned("github.com/pay/closed"), Err(Unplanned::Fenced), "a wider one is no leave");
        assert_eq!(planned("github.com/pay").as_deref(), Ok("routes[0] \"github.com/pay\""), "the fence begins below");
        let closed = RouteTable::new(vec![private("a.example")]);
        assert_eq!(closed.plan(&ModulePath::parse("b.example/x").expect("path")).map(|p| p.rule()), Err(Unplanned::NoRoute));
    }

    #[test]
    fn shadowed_patterns_are_found() {
        let table =
            RouteTable::new(vec![route("github.com"), route("golang.org,github.com/acme"), route("*"), route("corp.example")]);
        assert_eq!(table.shadowed(), [(1, 1, 0), (3, 0, 2)]);
    }

    #[test]
    fn fallback_by_class() {
        use FailureClass::{Absent, Busy, Corrupt, Denied, Outage};
        let table = [
            (Fallback::NotFound, [true, false, false, false, true]),
            (Fallback::AnyError, [true; 5]),
            (Fallback::Classes(vec![Absent, Outage]), [true, false, false, true, true]),
            (Fallback::Classes(vec![]), [false, false, false, false, true]),
        ];
        for (fallback, wanted) in table {
            assert_eq!([Absent, Denied, Busy, Outage, Corrupt].map(|c| fallback.goes_on_after(c)), wanted, "{fallback:?}");
        }
    }
}

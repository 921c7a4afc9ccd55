//! How often clients may ask: each caller of a team, and all of a team together. Whoever asks more is told when to come again.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use quick_cache::sync::Cache;

/// So many clients of a team are counted at once. One that is forgotten begins anew.
const CLIENTS: usize = 50_000;

/// So many requests in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub requests: NonZeroU32,
    /// In which time.
    pub per: Duration,
    /// How many may come at once after a time of rest.
    pub burst: NonZeroU32,
}

/// A team's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TeamLimits {
    /// Of each of its clients.
    pub per_client: Option<Rate>,
    /// Of all of them together.
    pub all: Option<Rate>,
}

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// A caller who is known: how, and by which name.
    Caller(&'static str, Arc<str>),
    /// An address.
    Address(IpAddr),
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, MonotonicClock>;

struct Counted {
    settings: TeamLimits,
    clients: Cache<Client, Arc<Limiter>>,
    all: Option<Limiter>,
}

/// Everybody's limits.
pub struct Limiters {
    teams: Vec<Counted>,
}

impl Limiters {
    /// Begins to count, by the teams' places.
    pub fn new(settings: &[TeamLimits]) -> Self {
        let counted = |settings: &TeamLimits| Counted {
            settings: *settings,
            clients: Cache::new(if settings.per_client.is_some() { CLIENTS } else { 1 }),
            all: settings.all.map(limiter),
        };
        Self { teams: settings.iter().map(counted).collect() }
    }

    /// What was counted goes on where the settings are still these.
    pub fn is_for(&self, settings: &[TeamLimits]) -> bool {
        self.teams.iter().map(|counted| counted.settings).eq(settings.iter().copied())
    }

    /// Counts a request of a team.
    ///
    /// # Errors
    /// That it is one too many, and after which time it would not be.
    pub(super) fn admit(&self, team: usize, client: impl FnOnce() -> Client) -> Result<(), Duration> {
        let Some(counted) = self.teams.get(team) else { return Ok(()) };
        if let Some(rate) = counted.settings.per_client {
            let made = counted.clients.get_or_insert_with(&client(), || Ok::<_, ()>(Arc::new(limiter(rate))));
            made.map_or(Ok(()), |limiter| check(&limiter))?;
        }
        counted.all.as_ref().map_or(Ok(()), check)
    }
}

impl std::fmt::Debug for Limiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.teams.iter().map(|counted| counted.settings)).finish()
    }
}

fn limiter(rate: Rate) -> Limiter {
    let step = rate.per / rate.requests.get();
    // A step of no time would be no limit; it was refused with the configuration.
    let quota = Quota::with_period(step).unwrap_or_else(|| Quota::per_second(rate.requests));
    RateLimiter::direct_with_clock(quota.allow_burst(rate.burst), MonotonicClock)
}

fn check(limiter: &Limiter) -> Result<(), Duration> {
    limiter.check().map_err(|not_until| not_until.wait_time_from(MonotonicClock.now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_and_all_together() {
        let rate = |requests, burst| {
            let number = |n| NonZeroU32::new(n).expect("a number");
            Some(Rate { requests: number(requests), per: Duration::from_secs(1000), burst: number(burst) })
        };
        let settings = [TeamLimits { per_client: rate(1, 2), all: None }, TeamLimits { per_client: rate(1, 2), all: rate(1, 3) }];
        let limits = Limiters::new(&settings);
        let asks = |team, name: &str| limits.admit(team, || Client::Caller("token", name.into()));
        assert_eq!((asks(0, "a"), asks(0, "a"), asks(0, "b")), (Ok(()), Ok(()), Ok(())));
        let wait = asks(0, "a").expect_err("one too many");
        assert!(wait > Duration::from_secs(990) && wait <= Duration::from_secs(1000), "{wait:?}");
        assert_eq!((asks(1, "a"), asks(1, "a"), asks(1, "b")), (Ok(()), Ok(()), Ok(())), "another team counts for itself");
        assert!(asks(1, "b").is_err(), "all of it asked three times");
        assert!(limits.is_for(&settings) && !limits.is_for(&settings[..1]));
        assert_eq!(limits.admit(7, || Client::Address([127, 0, 0, 1].into())), Ok(()));
    }
}

//! How many wrong credentials an address may send. Only failures count, so that many right ones from behind one address do no
//! harm; and each wrong one counts once, since it is remembered.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

/// So many failures are forgiven at once,
const BURST: u32 = 30;
/// and one more after each such time.
const FORGIVEN: Duration = Duration::from_secs(2);
/// So many addresses are known at once.
const ADDRESSES: usize = 20_000;

/// The failures of each address.
pub(super) struct Patience {
    /// When all of an address' failures will be forgiven.
    clear_at: Cache<IpAddr, Arc<Mutex<Instant>>>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { clear_at: Cache::new(ADDRESSES) }
    }
}

impl Patience {
    /// For how long nothing is listened to from this address; `None` where it may try.
    pub(super) fn rest(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let clear_at = *self.clear_at.get(&network(from))?.lock().unwrap_or_else(PoisonError::into_inner);
        let owed = clear_at.saturating_duration_since(now);
        let allowed = FORGIVEN * (BURST - 1);
        (owed > allowed).then(|| owed.saturating_sub(allowed))
    }

    /// A wrong credential came from there.
    pub(super) fn wrong(&self, from: IpAddr, now: Instant) {
        let known = self.clear_at.get_or_insert_with(&network(from), || Ok::<_, ()>(Arc::new(Mutex::new(now))));
        if let Ok(known) = known {
            let mut clear_at = known.lock().unwrap_or_else(PoisonError::into_inner);
            *clear_at = (*clear_at).max(now) + FORGIVEN;
        }
    }
}

/// Whoever has an address of IPv6 has its /64 too.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => {
            v6.to_ipv4_mapped().map_or_else(|| IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))), IpAddr::V4)
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_and_comes_back() {
        let (patience, now) = (Patience::default(), Instant::now());
        let at = |text: &str| text.parse::<IpAddr>().expect("address");
        let (here, there) = (at("2001:db8::1"), at("2001:db8:0:1::1"));
        for _ in 0..BURST {
            assert_eq!(patience.rest(here, now), None);
            patience.wrong(here, now);
        }
        assert_eq!(patience.rest(here, now), Some(FORGIVEN));
        assert_eq!(patience.rest(at("2001:db8::ffff"), now), Some(FORGIVEN), "its neighbour is the same");
        assert_eq!(patience.rest(there, now), None);
        assert_eq!(patience.rest(here, now + FORGIVEN), None);
        patience.wrong(here, now + FORGIVEN);
        assert_eq!(patience.rest(here, now + FORGIVEN), Some(FORGIVEN));
        assert_eq!(patience.rest(here, now + FORGIVEN * (BURST + 1)), None);
        assert_eq!(network(at("::ffff:10.0.0.1")), at("10.0.0.1"));
    }
}

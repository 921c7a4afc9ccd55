//! Single flight: one fetch for any number of askers, across all workers.
//!
//! Whoever asks first starts the fetch as a task of its own; everybody, the first one too, waits for it to land. An asker
//! that goes away takes nothing with it. The flight stays known until its pilot is dropped, which is after its result has
//! been stored, so that nobody starts it a second time in between.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// A flight that was joined; it has landed when there is something in it.
pub(crate) type Flight<V> = watch::Receiver<Option<V>>;

/// Flights under way, by key.
#[derive(Debug)]
pub(crate) struct Flights<K, V> {
    under_way: Mutex<HashMap<K, Flight<V>>>,
    limit: usize,
}

/// Why nothing came of joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlightError {
    /// As many flights as may be are under way.
    Full,
    /// The flight ended without landing: its task broke down.
    Lost,
}

/// Who flies it. Dropped, the flight is over.
pub(crate) struct Pilot<K: Eq + Hash, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
    landing: watch::Sender<Option<V>>,
}

impl<K: Eq + Hash, V> Pilot<K, V> {
    /// Gives the result to all who wait and to all who come while the flight is known.
    pub(crate) fn land(&self, result: V) {
        self.landing.send_replace(Some(result));
    }
}

impl<K: Eq + Hash, V> Drop for Pilot<K, V> {
    fn drop(&mut self) {
        self.flights.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Flights<K, V> {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { under_way: Mutex::new(HashMap::new()), limit })
    }

    /// How many are under way.
    pub(crate) fn count(&self) -> usize {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Joins the flight of this key, starting it where there is none. Nothing is waited for. A new flight is given those of the
    /// `before` keys that are under way already: it may wait for them, and they never for it.
    pub(crate) fn board(
        self: &Arc<Self>,
        key: K,
        before: &[K],
        start: impl FnOnce(Pilot<K, V>, Vec<(K, Flight<V>)>),
    ) -> Result<Flight<V>, FlightError> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = under_way.get(&key) {
            return Ok(flight.clone());
        }
        if under_way.len() >= self.limit {
            return Err(FlightError::Full);
        }
        let (landing, flight) = watch::channel(None);
        let earlier = before.iter().filter_map(|k| Some((k.clone(), under_way.get(k)?.clone()))).collect();
        under_way.insert(key.clone(), flight.clone());
        drop(under_way);
        start(Pilot { flights: Arc::clone(self), key, landing }, earlier);
        Ok(flight)
    }
}

/// Waits until the flight has landed.
pub(crate) async fn landed<V: Clone>(mut flight: Flight<V>) -> Result<V, FlightError> {
    let result = flight.wait_for(Option::is_some).await.map_err(|_| FlightError::Lost)?;
    result.clone().ok_or(FlightError::Lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn one_start_for_many_and_a_bound() {
        let flights = Flights::<u8, u32>::new(1);
        let starts = Arc::new(AtomicUsize::new(0));
        let (go, wait) = watch::channel(false);
        let mut tickets = Vec::new();
        for _ in 0..50 {
            let (starts, mut wait) = (Arc::clone(&starts), wait.clone());
            tickets.push(flights.board(1, &[2], move |pilot, earlier| {
                assert!(earlier.is_empty());
                starts.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let _ = wait.wait_for(|go| *go).await;
                    pilot.land(7);
                });
            }));
        }
        assert_eq!(flights.board(2, &[], |_, _| ()).err(), Some(FlightError::Full));
        go.send_replace(true);
        for ticket in tickets {
            assert_eq!(landed(ticket.expect("room")).await, Ok(7));
        }
        assert_eq!((starts.load(Ordering::SeqCst), flights.count()), (1, 0));
        let lost = flights.board(3, &[], |pilot, _| drop(pilot)).expect("room");
        assert_eq!(landed(lost).await, Err(FlightError::Lost));
    }
}

//! A bounded memory of small answers.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// What a memory holds says how many bytes it takes.
pub trait Weigh {
    /// The bytes that it takes, roughly.
    fn bytes(&self) -> usize;
}

#[derive(Clone)]
struct ByBytes;

impl<T: Weigh> Weighter<Box<str>, Arc<T>> for ByBytes {
    fn weight(&self, key: &Box<str>, value: &Arc<T>) -> u64 {
        // What an entry takes beside its own bytes: the map's slot, two allocations' headers.
        const OVERHEAD: usize = 160;
        (key.len() + value.bytes() + OVERHEAD) as u64
    }
}

/// Values by name, the least useful dropped when the bound in bytes is reached.
pub struct Memory<T> {
    entries: Cache<Box<str>, Arc<T>, ByBytes>,
    /// One value may take a sixty-fourth of the whole, so that none pushes out many.
    largest: usize,
}

impl<T: Weigh> Memory<T> {
    /// A memory of at most `bytes`.
    pub fn new(bytes: u64) -> Self {
        // Entries of a few kilobytes are usual; the estimate only sizes the table.
        let entries = usize::try_from(bytes / 2048).unwrap_or(usize::MAX).clamp(64, 100_000);
        let largest = usize::try_from(bytes / 64).unwrap_or(usize::MAX);
        Self { entries: Cache::with_weighter(entries, bytes, ByBytes), largest }
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<Arc<T>> {
        self.entries.get(name)
    }

    /// Keeps a value, unless it is too large.
    pub fn put(&self, name: &str, value: Arc<T>) {
        if value.bytes() <= self.largest {
            self.entries.insert(name.into(), value);
        }
    }

    /// Keeps only the values that the rule keeps.
    pub fn retain(&self, keep: impl Fn(&T) -> bool) {
        self.entries.retain(|_, value| keep(value));
    }

    /// Forgets a name.
    pub fn forget(&self, name: &str) {
        self.entries.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for Vec<u8> {
        fn bytes(&self) -> usize {
            self.len()
        }
    }

    #[test]
    fn the_bound_holds() {
        let memory = Memory::new(1 << 20);
        for n in 0..10_000 {
            memory.put(&format!("name{n}"), Arc::new(vec![0_u8; 1000]));
        }
        let kept = (0..10_000).filter(|n| memory.get(&format!("name{n}")).is_some()).count();
        assert!(kept > 100 && kept < 1100, "{kept}");
        memory.put("large", Arc::new(vec![0; 1 << 19]));
        assert!(memory.get("large").is_none());
    }
}

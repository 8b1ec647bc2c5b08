//! A bounded map that forgets what was not used for longest.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

struct Held<V> {
    value: V,
    weight: usize,
    used: u64,
}

struct Inner<K, V> {
    held: BTreeMap<K, Held<V>>,
    /// By last use: the first is the next to go.
    order: BTreeMap<u64, K>,
    weight: usize,
    uses: u64,
}

/// Values by key, of bounded weight in all.
pub(crate) struct Lru<K, V> {
    inner: Mutex<Inner<K, V>>,
    weight_max: usize,
}

impl<K: Ord + Clone, V: Clone> Lru<K, V> {
    /// An empty map.
    pub(crate) fn new(weight_max: usize) -> Self {
        let inner = Inner { held: BTreeMap::new(), order: BTreeMap::new(), weight: 0, uses: 0 };
        Self { inner: Mutex::new(inner), weight_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// The value, now the last to go.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.uses += 1;
        let held = inner.held.get_mut(key)?;
        inner.order.remove(&held.used);
        held.used = inner.uses;
        inner.order.insert(inner.uses, key.clone());
        Some(held.value.clone())
    }

    /// Keeps a value; others go until all fit. One that is too heavy by itself is not kept.
    pub(crate) fn insert(&self, key: K, value: V, weight: usize) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.remove(&key);
        if weight > self.weight_max {
            return;
        }
        inner.uses += 1;
        inner.weight += weight;
        inner.order.insert(inner.uses, key.clone());
        inner.held.insert(key, Held { value, weight, used: inner.uses });
        while inner.weight > self.weight_max {
            let Some(oldest) = inner.order.first_key_value().map(|(_, key)| key.clone()) else { break };
            inner.remove(&oldest);
        }
    }

    /// Takes a value out.
    pub(crate) fn remove(&self, key: &K) -> Option<V> {
        self.lock().remove(key)
    }

    /// What all values weigh.
    pub(crate) fn weight(&self) -> usize {
        self.lock().weight
    }
}

impl<K: Ord + Clone, V> Inner<K, V> {
    fn remove(&mut self, key: &K) -> Option<V> {
        let held = self.held.remove(key)?;
        self.order.remove(&held.used);
        self.weight -= held.weight;
        Some(held.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_and_weight_is_bounded() {
        let lru = Lru::new(10);
        lru.insert(1, 'a', 4);
        lru.insert(2, 'b', 4);
        assert_eq!(lru.get(&1), Some('a'));
        lru.insert(3, 'c', 4);
        assert_eq!((lru.get(&1), lru.get(&2), lru.get(&3), lru.weight()), (Some('a'), None, Some('c'), 8));
        lru.insert(4, 'd', 11);
        assert_eq!((lru.get(&4), lru.weight()), (None, 8));
        assert_eq!((lru.remove(&1), lru.remove(&1), lru.weight()), (Some('a'), None, 4));
    }
}

//! What an instance remembers of steps, so that most decisions take one round
//! trip: the next commit finds out when it is no longer so.

use std::{collections::HashMap, hash::Hash, mem};

/// A bounded map that forgets what was not used for long.
///
/// Two generations: what is used moves to the young one; when that is full it
/// becomes the old one, and what the old one still held is forgotten.
#[derive(Debug)]
pub struct Memory<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    size: usize,
}

impl<K: Hash + Eq, V: Clone> Memory<K, V> {
    /// A map of at most twice `size` entries.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), size }
    }

    /// Remembers.
    pub fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.size && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// What is remembered.
    pub fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.put(key, value.clone());
        Some(value)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// Forgets.
    pub fn forget<Q>(&mut self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_kept_and_the_rest_is_forgotten() {
        let mut memory = Memory::new(4);
        for key in 0..100 {
            memory.put(key, key);
            assert_eq!(memory.get(&0), Some(0), "after {key}");
        }
        assert_eq!(memory.get(&50), None);
        assert_eq!(memory.get(&99), Some(99));
        assert!(memory.young.len() + memory.old.len() <= 8);
        memory.forget(&99);
        assert_eq!(memory.get(&99), None);
    }
}

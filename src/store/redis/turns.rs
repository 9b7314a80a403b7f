//! Calls about one step take turns in one process: each then plans on what the
//! one before left, and only other processes are left to conflict with.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex as Gate, OwnedMutexGuard};

type Gates = Arc<Mutex<HashMap<String, Arc<Gate<()>>>>>;

/// Who is at it, by key.
#[derive(Clone, Debug, Default)]
pub struct Turns(Gates);

/// A turn; it ends when dropped. The guard goes before the place: whoever
/// leaves last takes the gate away.
#[derive(Debug)]
pub struct Turn {
    _guard: OwnedMutexGuard<()>,
    _place: Place,
}

/// A place in the line of a key.
#[derive(Debug)]
struct Place {
    gates: Gates,
    key: String,
}

impl Turns {
    /// Waits for a turn.
    pub async fn take(&self, key: &str) -> Turn {
        let gate = Arc::clone(lock(&self.0).entry(key.to_owned()).or_default());
        let place = Place { gates: Arc::clone(&self.0), key: key.to_owned() };
        let guard = gate.lock_owned().await;
        Turn { _guard: guard, _place: place }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut gates = lock(&self.gates);
        if gates.get(&self.key).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            gates.remove(&self.key);
        }
    }
}

fn lock(gates: &Gates) -> MutexGuard<'_, HashMap<String, Arc<Gate<()>>>> {
    gates.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_taken_one_after_the_other_and_leave_nothing() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let other = turns.take("b").await;
        let mut second = std::pin::pin!(turns.take("a"));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(first);
        drop(second.await);
        drop(other);
        assert!(lock(&turns.0).is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_nothing() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        {
            let mut second = std::pin::pin!(turns.take("a"));
            assert!(futures_util::poll!(second.as_mut()).is_pending());
        }
        drop(first);
        assert!(lock(&turns.0).is_empty());
    }
}

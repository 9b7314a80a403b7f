//! Calls that gather.
//!
//! Whatever was asked of one namespace while the two calls before were on their
//! way goes in one script call. There is no timer and nothing waits for company:
//! under no load a call has one item, and under much load up to [`MOST`].

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Items at most in a call: it holds the server for about half a millisecond.
pub const MOST: usize = 64;
/// Calls on their way at most, a namespace: while the server works on one, the
/// next is on the wire.
const CALLS: usize = 2;
/// Items that wait at most. Admission lets far fewer in.
const WAITING: usize = 16 * 1024;

/// Something that may change what it is about: of such one call takes one.
pub trait Changing {
    /// What it may change; None when it only looks.
    fn changes(&self) -> Option<&str>;
}

/// What one item waits for.
pub type Reply<R> = oneshot::Receiver<R>;

/// Items that wait for the next call.
#[derive(Debug)]
pub struct Gathering<I, R> {
    inner: Mutex<Inner<I, R>>,
}

#[derive(Debug)]
struct Inner<I, R> {
    waiting: VecDeque<(I, oneshot::Sender<R>)>,
    calls: usize,
}

/// What follows from adding an item.
#[derive(Debug)]
pub enum Added<R> {
    /// It goes with a call that is made anyway.
    Joined(Reply<R>),
    /// Somebody has to make calls until there are no items.
    Begins(Reply<R>),
    /// Too many wait already.
    Overfull,
}

impl<I, R> Default for Gathering<I, R> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { waiting: VecDeque::new(), calls: 0 }) }
    }
}

/// Two names with one hash are taken for the same: that costs a turn.
fn hash(name: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(name)
}

impl<I: Changing, R> Gathering<I, R> {
    /// Adds an item.
    pub fn add(&self, item: I) -> Added<R> {
        let mut inner = self.inner();
        if inner.waiting.len() >= WAITING {
            return Added::Overfull;
        }
        let (sender, reply) = oneshot::channel();
        inner.waiting.push_back((item, sender));
        if inner.calls < CALLS {
            inner.calls += 1;
            Added::Begins(reply)
        } else {
            Added::Joined(reply)
        }
    }

    /// The items of the next call, each of which changes something else; empty when
    /// the caller is done. The second change of the same waits for the call after.
    pub fn take(&self) -> Vec<(I, oneshot::Sender<R>)> {
        let mut inner = self.inner();
        let (mut names, mut held_back) = (HashSet::new(), Vec::new());
        let mut taken: Vec<(I, _)> = Vec::new();
        while taken.len() < MOST {
            let Some(entry) = inner.waiting.pop_front() else { break };
            if entry.0.changes().is_none_or(|name| names.insert(hash(name))) {
                taken.push(entry);
            } else {
                held_back.push(entry);
            }
        }
        for entry in held_back.into_iter().rev() {
            inner.waiting.push_front(entry);
        }
        if taken.is_empty() {
            inner.calls -= 1;
        }
        taken
    }

    fn inner(&self) -> MutexGuard<'_, Inner<I, R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Changing for &'static str {
        fn changes(&self) -> Option<&str> {
            (!self.starts_with('?')).then_some(*self)
        }
    }

    #[test]
    fn a_call_takes_one_change_of_each_and_leaves_the_others_in_their_order() {
        let gathering = Gathering::<&str, ()>::default();
        for item in ["a", "b", "a", "?a", "c", "b", "a", "?a"] {
            gathering.add(item);
        }
        let taken =
            || -> Vec<&str> { gathering.take().into_iter().map(|(item, _)| item).collect() };
        assert_eq!(taken(), ["a", "b", "?a", "c", "?a"]);
        assert_eq!(taken(), ["a", "b"]);
        assert_eq!(taken(), ["a"]);
        assert_eq!(taken(), [""; 0]);
    }
}

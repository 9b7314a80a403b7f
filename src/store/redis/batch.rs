//! Calls that gather.
//!
//! Whatever was asked of one namespace while the two calls before were on their
//! way goes in one script call. There is no timer and nothing waits for company:
//! under no load a call has one item, and under much load up to [`MOST`].

use std::{
    collections::VecDeque,
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

impl<I, R> Gathering<I, R> {
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

    /// The items of the next call; empty when the caller is done.
    pub fn take(&self) -> Vec<(I, oneshot::Sender<R>)> {
        let mut inner = self.inner();
        let count = inner.waiting.len().min(MOST);
        if count == 0 {
            inner.calls -= 1;
        }
        inner.waiting.drain(..count).collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner<I, R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

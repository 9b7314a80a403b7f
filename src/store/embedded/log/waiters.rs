//! Callers that wait for their batch to be durable.
//!
//! Waking a task from another thread costs a system call in a current-thread
//! runtime, so the writer wakes one waiter of a batch, the herald, and the
//! herald, on the runtime's own thread, wakes the others.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use super::Poisoned;

/// Through which sequence appends are durable, and who waits for more.
pub(super) struct Waiters {
    reached: AtomicU64,
    poisoned: OnceLock<Poisoned>,
    waiting: Mutex<Waiting>,
    /// Whether `Waiting::ready` holds anybody.
    unwoken: AtomicBool,
}

struct Waiting {
    /// Waiters by the sequence they wait for, from `first` on.
    first: u64,
    groups: VecDeque<Vec<Option<Waker>>>,
    /// Waiters whose sequence was reached, left for the herald to wake.
    ready: Vec<Waker>,
}

impl Waiters {
    pub(super) fn new(reached: u64) -> Self {
        Self {
            reached: AtomicU64::new(reached),
            poisoned: OnceLock::new(),
            waiting: Mutex::new(Waiting {
                first: reached + 1,
                groups: VecDeque::new(),
                ready: Vec::new(),
            }),
            unwoken: AtomicBool::new(false),
        }
    }

    /// Everything through `sequence` is durable.
    pub(super) fn reach(&self, sequence: u64) {
        self.reached.store(sequence, Ordering::Release);
        let herald = self.settle(|waiting| {
            let reached = (sequence + 1).saturating_sub(waiting.first) as usize;
            let settled = reached.min(waiting.groups.len());
            waiting.first = sequence + 1;
            waiting.groups.drain(..settled).flatten().flatten().collect()
        });
        if let Some(herald) = herald {
            herald.wake();
        }
    }

    /// Nothing more will be durable.
    pub(super) fn poison(&self, poisoned: Poisoned) {
        // The first reason stays: what follows follows from it.
        let _ = self.poisoned.set(poisoned);
        let herald = self.settle(|waiting| waiting.groups.drain(..).flatten().flatten().collect());
        if let Some(herald) = herald {
            herald.wake();
        }
    }

    /// Leaves those whom `take` took for the herald, and returns the herald.
    fn settle(&self, take: impl FnOnce(&mut Waiting) -> Vec<Waker>) -> Option<Waker> {
        let mut waiting = self.waiting();
        let taken = take(&mut waiting);
        waiting.ready.extend(taken);
        let herald = waiting.ready.pop();
        self.unwoken.store(!waiting.ready.is_empty(), Ordering::Release);
        herald
    }

    /// Wakes those left for the herald.
    fn wake_ready(&self) {
        if !self.unwoken.swap(false, Ordering::AcqRel) {
            return;
        }
        let ready = std::mem::take(&mut self.waiting().ready);
        ready.into_iter().for_each(Waker::wake);
    }

    fn outcome(&self, sequence: u64) -> Option<Result<(), Poisoned>> {
        if self.reached.load(Ordering::Acquire) >= sequence {
            return Some(Ok(()));
        }
        self.poisoned.get().map(|poisoned| Err(poisoned.clone()))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The group of a sequence that was not reached when the lock was taken.
    fn group(&mut self, sequence: u64) -> &mut Vec<Option<Waker>> {
        let index = sequence.saturating_sub(self.first) as usize;
        if self.groups.len() <= index {
            self.groups.resize_with(index + 1, Vec::new);
        }
        &mut self.groups[index]
    }

    fn forget(&mut self, sequence: u64, slot: usize) {
        if let Some(index) = sequence.checked_sub(self.first)
            && let Some(group) = self.groups.get_mut(index as usize)
            && let Some(slot) = group.get_mut(slot)
        {
            *slot = None;
        }
    }
}

/// Resolves once an append is durable. See [`Log::durable`](super::Log::durable).
#[must_use = "an append is durable when this has resolved"]
pub struct Durable {
    waiters: Arc<Waiters>,
    sequence: u64,
    /// Place in its group, while this waits.
    slot: Option<usize>,
}

impl Durable {
    pub(super) fn new(waiters: Arc<Waiters>, sequence: u64) -> Self {
        Self { waiters, sequence, slot: None }
    }

    /// Waits, unless the outcome is there. It is looked at once more under the
    /// lock, so that none falls between looking and waiting.
    fn wait(&mut self, context: &Context<'_>) -> Option<Result<(), Poisoned>> {
        let mut waiting = self.waiters.waiting();
        let outcome = self.waiters.outcome(self.sequence);
        if outcome.is_none() {
            let waker = context.waker().clone();
            let group = waiting.group(self.sequence);
            match self.slot {
                Some(slot) => group[slot] = Some(waker),
                None => {
                    self.slot = Some(group.len());
                    group.push(Some(waker));
                }
            }
        }
        outcome
    }

    /// Stops waiting. From here on this is not chosen as a herald; if it was
    /// already, polled or not, it does a herald's work.
    fn leave(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.waiters.waiting().forget(self.sequence, slot);
            self.waiters.wake_ready();
        }
    }
}

impl Future for Durable {
    type Output = Result<(), Poisoned>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let outcome = this.waiters.outcome(this.sequence);
        let Some(outcome) = outcome.or_else(|| this.wait(context)) else {
            return Poll::Pending;
        };
        this.leave();
        Poll::Ready(outcome)
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.leave();
    }
}

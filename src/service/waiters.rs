//! Who waits for which step, in this process.
//!
//! A step's changes are told to those who wait for it: at once where they were
//! made here, and else by [`follow_until`], which follows the changes of each
//! namespace in which somebody waits, one look for all of them. Who waits costs a
//! place in a table and a timer, and nothing else while nothing happens.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{Notify, Semaphore},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::Service;
use crate::{
    domain::id::StepKey,
    store::{Changes, Store, StoreError},
};

/// Who may wait at the same time: bounds what they cost in memory.
const WAITERS_MAX: usize = 64 * 1024;
/// Waiting callers that look at their steps at the same time: so many that a
/// shared store's calls are full, and few enough to leave room for others.
const LOOKS: usize = 128;
/// How often a shared store is looked at for changes that others made.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
/// How often for what operators changed, while somebody waits for that.
const CONFIGURATION_EVERY: u32 = 5;
/// Changes read at a time.
const PAGE: usize = 1000;
/// Namespaces that are followed at the same time.
const ABREAST: usize = 16;

/// Who waits for which step.
#[derive(Debug)]
pub(super) struct Waiters {
    spaces: Mutex<HashMap<Box<str>, Space>>,
    count: AtomicUsize,
    /// Told when somebody waits, and nobody did.
    begun: Notify,
    /// Turns at looking at a step.
    pub looks: Semaphore,
    /// Cancelled when nobody is to wait any more.
    pub closing: CancellationToken,
}

/// Who waits in one namespace, by the names of steps.
type Space = HashMap<Box<str>, Vec<Arc<Waiter>>>;

/// One who waits.
#[derive(Debug, Default)]
struct Waiter {
    news: Notify,
    /// Whether it waits for an operator.
    for_operator: AtomicBool,
}

/// A place among those who wait. Dropping it gives it up.
pub(super) struct Place {
    waiters: Arc<Waiters>,
    namespace: Box<str>,
    joined: String,
    waiter: Arc<Waiter>,
}

impl Default for Waiters {
    fn default() -> Self {
        Self {
            spaces: Mutex::default(),
            count: AtomicUsize::new(0),
            begun: Notify::new(),
            looks: Semaphore::new(LOOKS),
            closing: CancellationToken::new(),
        }
    }
}

impl Waiters {
    /// Begins to wait for a step; None when too many do.
    pub fn enter(self: &Arc<Self>, key: &StepKey<'_>) -> Option<Place> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= WAITERS_MAX {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let (joined, waiter) = (key.joined(), Arc::<Waiter>::default());
        let mut spaces = self.spaces();
        if spaces.is_empty() {
            self.begun.notify_one();
        }
        let space = spaces.entry(key.namespace.into()).or_default();
        space.entry(joined.as_str().into()).or_default().push(Arc::clone(&waiter));
        drop(spaces);
        let waiters = Arc::clone(self);
        Some(Place { waiters, namespace: key.namespace.into(), joined, waiter })
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// A step has changed.
    pub fn changed(&self, key: &StepKey<'_>) {
        if self.count() > 0 {
            self.tell(key.namespace, &key.joined());
        }
    }

    /// An operator has changed a namespace.
    pub fn reconfigured(&self, namespace: &str) {
        self.tell_all(namespace, |waiter| waiter.for_operator.load(Ordering::Relaxed));
    }

    fn tell(&self, namespace: &str, joined: &str) {
        let spaces = self.spaces();
        let Some(waiters) = spaces.get(namespace).and_then(|space| space.get(joined)) else {
            return;
        };
        waiters.iter().for_each(|waiter| waiter.news.notify_one());
    }

    fn tell_all(&self, namespace: &str, whom: impl Fn(&Waiter) -> bool) {
        let spaces = self.spaces();
        let waiters = spaces.get(namespace).into_iter().flat_map(HashMap::values).flatten();
        waiters.filter(|waiter| whom(waiter)).for_each(|waiter| waiter.news.notify_one());
    }

    /// Namespaces in which somebody waits, and whether somebody waits there for
    /// an operator.
    fn namespaces(&self) -> Vec<(Box<str>, bool)> {
        let for_operator = |space: &Space| {
            space.values().flatten().any(|waiter| waiter.for_operator.load(Ordering::Relaxed))
        };
        let spaces = self.spaces();
        spaces.iter().map(|(name, space)| (name.clone(), for_operator(space))).collect()
    }

    fn spaces(&self) -> MutexGuard<'_, HashMap<Box<str>, Space>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Resolves when the step may have changed.
    pub async fn news(&self) {
        self.waiter.news.notified().await;
    }

    /// Says whether it is an operator who is waited for.
    pub fn waits_for_operator(&self, does: bool) {
        self.waiter.for_operator.store(does, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiters.count.fetch_sub(1, Ordering::Relaxed);
        let mut spaces = self.waiters.spaces();
        let Some(space) = spaces.get_mut(&self.namespace) else { return };
        if let Some(waiters) = space.get_mut(self.joined.as_str()) {
            waiters.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            if waiters.is_empty() {
                space.remove(self.joined.as_str());
            }
        }
        if space.is_empty() {
            spaces.remove(&self.namespace);
        }
    }
}

/// Tells those who wait here what other processes have changed, until `stop`
/// resolves. A store that this process has for itself needs none of it.
pub async fn follow_until<S: Store>(service: Arc<Service<S>>, stop: impl Future<Output = ()>) {
    if !service.store.is_shared() {
        return;
    }
    tokio::select! {
        () = stop => {}
        () = follow(&service) => {}
    }
}

async fn follow<S: Store>(service: &Service<S>) {
    let mut ticks = interval(FOLLOW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard: HashMap<Box<str>, Heard> = HashMap::new();
    for look in (0..u32::MAX).cycle() {
        ticks.tick().await;
        let namespaces = service.waiters.namespaces();
        heard.retain(|known, _| namespaces.iter().any(|(name, _)| name == known));
        if namespaces.is_empty() {
            service.waiters.begun.notified().await;
            continue;
        }
        for abreast in namespaces.chunks(ABREAST) {
            let looks = abreast.iter().map(|(name, for_operator)| {
                let known = heard.get(name).copied().unwrap_or_default();
                let for_operator = *for_operator && look % CONFIGURATION_EVERY == 0;
                service.heard(name, known, for_operator)
            });
            let looked = join_all(looks).await;
            for ((name, _), now) in abreast.iter().zip(looked) {
                // Where the store did not answer it is asked again.
                now.ok().and_then(|now| heard.insert(name.clone(), now));
            }
        }
    }
}

/// How far a namespace was followed.
#[derive(Clone, Copy, Default)]
struct Heard {
    /// The latest change; None before the first look.
    change: Option<u64>,
    /// The latest revision of what operators wrote; 0 when it was not looked at.
    revision: u64,
}

impl<S: Store> Service<S> {
    /// Tells what has changed since it was last looked.
    async fn heard(
        &self,
        namespace: &str,
        known: Heard,
        for_operator: bool,
    ) -> Result<Heard, StoreError> {
        let mut change = known.change.unwrap_or(0);
        loop {
            match self.store.follow(namespace, change, PAGE).await? {
                Changes::Follow(entries) => {
                    for entry in &entries {
                        self.waiters.tell(namespace, &entry.joined);
                    }
                    change = entries.last().map_or(change, |entry| entry.number);
                    if entries.len() < PAGE {
                        break;
                    }
                }
                Changes::Gap(oldest) => {
                    // Anything may have changed, unless this is the beginning.
                    if known.change.is_some() {
                        self.waiters.tell_all(namespace, |_| true);
                    }
                    change = oldest;
                }
            }
        }
        let mut revision = known.revision;
        if for_operator {
            revision = self.store.configuration(namespace).await?.revision;
            if revision != known.revision {
                self.waiters.reconfigured(namespace);
            }
        }
        Ok(Heard { change: Some(change), revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(step: &str) -> StepKey<'_> {
        StepKey { namespace: "n", run: "r", step }
    }

    #[tokio::test]
    async fn a_change_is_told_to_those_who_wait_for_its_step_alone() {
        let waiters = Arc::<Waiters>::default();
        let (one, other) = (waiters.enter(&key("a")).unwrap(), waiters.enter(&key("a")).unwrap());
        let elsewhere = waiters.enter(&key("b")).unwrap();
        waiters.changed(&key("a"));
        one.news().await;
        other.news().await;
        let untold = tokio::time::timeout(Duration::ZERO, elsewhere.news()).await;
        assert!(untold.is_err(), "nobody told it anything");
    }

    #[tokio::test]
    async fn who_goes_leaves_nothing_behind() {
        let waiters = Arc::<Waiters>::default();
        let places: Vec<Place> =
            ["a", "a", "b"].iter().map(|step| waiters.enter(&key(step)).unwrap()).collect();
        assert_eq!((waiters.count(), waiters.namespaces().len()), (3, 1));
        drop(places);
        assert_eq!((waiters.count(), waiters.namespaces().len()), (0, 0));
    }

    #[test]
    fn no_more_wait_than_may() {
        let waiters = Arc::<Waiters>::default();
        waiters.count.store(WAITERS_MAX, Ordering::Relaxed);
        assert!(waiters.enter(&key("a")).is_none());
        assert_eq!(waiters.count(), WAITERS_MAX);
    }
}

//! Lines of steps that wait for a permit: who is at the head is woken.
//!
//! A permit comes free with a release, a lease that ends, a place that is lost or
//! an operator's order. All of them are changes that some process makes, and that
//! process looks at the line afterwards: as many steps at its head as permits are
//! free are told to come, which is written to each of them, so that its worker
//! hears of it wherever it waits. What it does not tell, since it ended in between,
//! the next one tells that looks at the line.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::Notify, time::interval};

use super::{Service, ServiceError};
use crate::{
    domain::{event::Event, id::StepKey, record::Record},
    store::{Expect, Store, StoreError},
};

/// Steps woken at a look. Each of them begins, and has the line looked at again.
const WOKEN_MAX: usize = 64;
/// How often lines are looked at in which somebody waits here, whatever was told.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long nothing is done after the store did not answer.
const PAUSE: Duration = Duration::from_millis(250);

/// A line: its namespace, and the state of its target.
type Line = (Box<str>, Box<str>);

/// Lines to be looked at. Each of them once, however often it moved.
#[derive(Debug, Default)]
pub(super) struct Lines {
    moved: Mutex<BTreeSet<Line>>,
    /// Those in which somebody waits: in a while.
    waited: Mutex<BTreeSet<Line>>,
    news: Notify,
}

impl Lines {
    /// A permit may have come free in these lines.
    pub fn moved(&self, namespace: &str, states: impl IntoIterator<Item = Box<str>>) {
        add(&self.moved, namespace, states);
        self.news.notify_one();
    }

    /// Somebody waits in these lines.
    pub fn waited(&self, namespace: &str, states: impl IntoIterator<Item = Box<str>>) {
        add(&self.waited, namespace, states);
    }

    fn take(&self) -> BTreeSet<Line> {
        std::mem::take(&mut *lock(&self.moved))
    }

    fn look_again(&self) {
        let waited = std::mem::take(&mut *lock(&self.waited));
        lock(&self.moved).extend(waited);
    }
}

fn add(lines: &Mutex<BTreeSet<Line>>, namespace: &str, states: impl IntoIterator<Item = Box<str>>) {
    lock(lines).extend(states.into_iter().map(|state| (namespace.into(), state)));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The states at which a step has a permit or a place in line.
pub(super) fn held(record: Option<&Record>) -> Vec<Box<str>> {
    let claims = record.and_then(|record| record.claims.as_ref());
    claims.map(|claims| claims.held.clone()).unwrap_or_default()
}

/// Wakes who is at the head of a line, whenever one has moved, until `stop`
/// resolves.
pub async fn wake_until<S: Store>(service: Arc<Service<S>>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = service.lines.news.notified() => {}
            _ = looks.tick() => service.lines.look_again(),
        }
        if service.wake_heads().await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl<S: Store> Service<S> {
    /// Wakes who is at the head of the lines that have moved.
    ///
    /// # Errors
    /// The store is away; the lines are looked at again.
    pub async fn wake_heads(&self) -> Result<(), ServiceError> {
        let lines = self.lines.take();
        let looks = lines.into_iter().map(async |line| {
            let woken = self.wake_head(&line).await;
            woken.inspect_err(|_| self.lines.moved(&line.0, [line.1.clone()]))
        });
        join_all(looks).await.into_iter().collect()
    }

    async fn wake_head(&self, (namespace, state): &Line) -> Result<(), ServiceError> {
        let mut heads = self.heads(namespace, state).await?;
        if planted!("head-not-woken") {
            heads.clear();
        }
        let woken = heads.iter().map(|joined| self.wake(namespace, state, joined));
        join_all(woken).await.into_iter().collect()
    }

    /// Whose turn it is in a line; nobody's where there is no such line any more.
    async fn heads(&self, namespace: &str, state: &str) -> Result<Vec<String>, StoreError> {
        let configuration = match self.store.configuration(namespace).await {
            Err(StoreError::NamespaceUnknown(_)) => return Ok(Vec::new()),
            configuration => configuration?,
        };
        match configuration.permits(state, self.store.now().at) {
            Some(permits) => self.store.heads(namespace, state, permits.get(), WOKEN_MAX).await,
            None => Ok(Vec::new()),
        }
    }

    /// Wakes a step at the head of one line, if it is that in all its lines.
    async fn wake(&self, namespace: &str, state: &str, joined: &str) -> Result<(), ServiceError> {
        let Some(key) = StepKey::split(namespace, joined) else { return Ok(()) };
        let loaded = self.store.load(&key, Expect::Anything).await?;
        let lines = held(loaded.record.as_ref());
        drop(loaded);
        for other in lines.iter().filter(|other| ***other != *state) {
            if !self.heads(namespace, other).await?.iter().any(|head| head == joined) {
                return Ok(());
            }
        }
        match self.apply(&key, None, &Event::Wake).await {
            // Who changes it so often has come.
            Ok(_) | Err(ServiceError::Contended) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

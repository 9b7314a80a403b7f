//! A worker waits until there is something for it to do.

use std::{mem::discriminant, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{Ground, PolicyInForce, ROUNDS, Service, ServiceError, line, run, terms};
use crate::{
    domain::{
        decision::Decision,
        id::StepKey,
        plan::{self, Outlook, Readiness, Refusal, Terms},
        record::{Record, State},
        time::Timestamp,
    },
    store::{Expect, Loaded, Store},
};

/// Shortest time between two looks at a step that nobody told to have changed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a worker waited for, and how it stands.
#[derive(Debug)]
pub struct Awaited {
    /// Why the wait has ended.
    pub end: WaitEnd,
    /// The decision as it stands.
    pub decision: Decision,
    /// The policy that the next decision applies.
    pub policy: PolicyInForce,
    /// The store's time.
    pub at: Timestamp,
}

/// Why a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd {
    /// A begin will have another answer than to wait.
    Ready,
    /// The step stands elsewhere than when the wait began: held, say, or no longer
    /// so.
    Changed,
    /// The time was up, or the server is about to stop: there is more to wait for.
    StillWaiting,
}

/// A step as somebody who waits for it sees it.
struct Look {
    record: Record,
    outlook: Outlook,
    policy: PolicyInForce,
    at: Timestamp,
}

impl<S: Store> Service<S> {
    /// Waits until a begin of the step will have another answer than to wait, at
    /// most until `until`. Changes nothing.
    ///
    /// # Errors
    /// [`Refusal::UnknownStep`], [`ServiceError::Crowded`], or the store is away.
    pub async fn await_decision(
        &self,
        key: &StepKey<'_>,
        until: Instant,
    ) -> Result<Awaited, ServiceError> {
        // Before the first look, so that no change is missed after it.
        let place = self.waiters.enter(key).ok_or(ServiceError::Crowded)?;
        let mut began_as = None;
        loop {
            let look = self.look(key).await?;
            let state = discriminant::<State>(&look.record.state);
            let is_same = state == *began_as.get_or_insert(state);
            let is_late = until <= Instant::now() || self.waiters.closing.is_cancelled();
            let end = match look.outlook.ready {
                Readiness::Now => Some(WaitEnd::Ready),
                _ if !is_same => Some(WaitEnd::Changed),
                _ => is_late.then_some(WaitEnd::StillWaiting),
            };
            if let Some(end) = end {
                let Look { outlook, policy, at, .. } = look;
                return Ok(Awaited { end, decision: outlook.decision, policy, at });
            }
            place.waits_for_operator(matches!(look.outlook.ready, Readiness::Resumed(_)));
            self.lines.waited(key.namespace, line::held(Some(&look.record)));
            let again = again_at(&look).map_or(until, |again| until.min(again));
            drop(look);
            tokio::select! {
                () = place.news() => {}
                () = self.waiters.closing.cancelled() => {}
                () = sleep_until(again) => {}
            }
        }
    }

    /// How many wait for a decision.
    pub fn waiting(&self) -> usize {
        self.waiters.count()
    }

    /// Answers whoever waits, now and from now on: the server is about to stop.
    pub fn end_waits(&self) {
        self.waiters.closing.cancel();
    }

    /// The step as it is, not as it may be remembered.
    async fn look(&self, key: &StepKey<'_>) -> Result<Look, ServiceError> {
        // Never closed; and without a turn the look is only not in turn.
        let _turn = self.waiters.looks.acquire().await;
        let Loaded { record, configuration, salt, now, .. } = self.current(key).await?;
        let record = record.ok_or(Refusal::UnknownStep)?;
        let policy = self.in_force(key, &record.policy, &configuration).await?;
        let ground = Ground { configuration: &configuration, salt, now };
        let run = self.run_of(key, Some(&record), 0, ground).await?;
        let bounds = run::bounds(key, &record.targets, run.as_ref(), ground);
        let terms = Terms { run, ..terms(&policy, &record.policy, &configuration, salt, &bounds) };
        let outlook = plan::outlook(&terms, &record, now);
        Ok(Look { record, outlook, policy, at: now.at })
    }

    /// A step as it is, not as it may be remembered; nobody's turn is kept.
    pub(super) async fn current(&self, key: &StepKey<'_>) -> Result<Loaded, ServiceError> {
        for _ in 0..ROUNDS {
            let mut loaded = self.store.load(key, Expect::Anything).await?;
            loaded.turn = None;
            if self.store.confirm(key, &loaded.basis).await? {
                return Ok(loaded);
            }
        }
        Err(ServiceError::Contended)
    }
}

/// When to look again at a step that nobody tells to have changed.
fn again_at(look: &Look) -> Option<Instant> {
    let at = match look.outlook.ready {
        Readiness::At(at) | Readiness::Resumed(Some(at)) => at,
        Readiness::Now | Readiness::Resumed(None) | Readiness::Changed => return None,
    };
    Instant::now().checked_add((at - look.at).max(LOOK_EVERY))
}

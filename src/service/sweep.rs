//! Steps whose next event comes without a caller: leases, holds and waits that
//! end, and steps that are forgotten.

use std::{future::Future, sync::Arc, time::Duration};

use super::{Handled, Service, ServiceError};
use crate::{
    domain::{decision::Reason, event::Event, id::StepKey, plan::Answer},
    store::{Due, Store, StoreError},
};

/// How often it is looked. A lease is noticed to have ended within this time.
const EVERY: Duration = Duration::from_millis(250);
/// Steps handled at a look, before others get their turn.
const BATCH: usize = 64;

/// Sweeps until `stop` resolves.
pub async fn sweep_until<S: Store>(service: Arc<Service<S>>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_blind = false;
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = ticks.tick() => {}
        }
        let swept = loop {
            match service.sweep(BATCH).await {
                Ok(BATCH) => tokio::task::yield_now().await,
                swept => break swept,
            }
        };
        // Told once, not at every look of a long outage.
        match &swept {
            Err(error) if !is_blind => {
                tracing::warn!(%error, "steps whose event has come cannot be looked for");
            }
            Ok(_) if is_blind => tracing::info!("steps whose event has come are looked for again"),
            _ => {}
        }
        is_blind = swept.is_err();
    }
}

impl<S: Store> Service<S> {
    /// Handles steps whose event has come, at most `limit`. Returns how many
    /// moved on: after an outage, leases that have ended wait for the grace to
    /// end, and looking again at once would only find them again.
    ///
    /// # Errors
    /// The store is away.
    pub async fn sweep(&self, limit: usize) -> Result<usize, StoreError> {
        let due = self.store.peek_due(limit).await?;
        // All at once: what they write is made durable together.
        let handled = due.iter().map(|step| self.tick(step));
        let moved = futures_util::future::join_all(handled).await;
        Ok(moved.into_iter().filter(|moved| *moved).count())
    }

    /// Whether the step moved on.
    async fn tick(&self, step: &Due) -> bool {
        let Some(key) = StepKey::split(&step.namespace, &step.joined) else { return false };
        match self.apply(&key, None, &Event::Tick).await {
            // Who is parked again has not moved, though its place was written anew.
            Ok(Handled { answer: Answer::Refused(decision), .. }) => {
                decision.settled.reason != Reason::BreakerOpen
            }
            Ok(done) => done.is_change,
            Err(ServiceError::Contended) => false,
            Err(error) => {
                tracing::error!(step = %key, %error, "a step whose event has come could not be handled");
                false
            }
        }
    }
}

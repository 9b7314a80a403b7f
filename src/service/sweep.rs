//! Steps whose next event comes without a caller: leases, holds and waits that
//! end, and steps that are forgotten.

use std::{future::Future, sync::Arc, time::Duration};

use super::{Service, ServiceError};
use crate::{
    domain::{event::Event, id::StepKey},
    store::Store,
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
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = ticks.tick() => {}
        }
        while service.sweep(BATCH).await == BATCH {
            tokio::task::yield_now().await;
        }
    }
}

impl<S: Store> Service<S> {
    /// Handles steps whose event has come, at most `limit`. Returns how many
    /// there were.
    pub async fn sweep(&self, limit: usize) -> usize {
        let due = match self.store.peek_due(limit).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "could not look for steps whose event has come");
                return 0;
            }
        };
        let mut handled = 0;
        for step in &due {
            let Some(key) = StepKey::split(&step.namespace, &step.joined) else { continue };
            match self.apply(&key, None, &Event::Tick).await {
                Ok(_) => handled += 1,
                Err(ServiceError::Contended) => {}
                Err(error) => {
                    tracing::error!(step = %key, %error, "a step whose event has come could not be handled")
                }
            }
        }
        handled
    }
}

//! Why a step waits.

use super::{Ground, Service, ServiceError, StepView, run, terms};
use crate::{
    domain::{
        id::StepKey,
        plan::{self, Explanation, Now, Terms},
        record::State,
    },
    store::{Expect, Loaded, Store},
};

/// A step, and why it waits.
#[derive(Debug)]
pub struct Explained {
    /// The step.
    pub view: StepView,
    /// Why it waits; None where it does not.
    pub explanation: Option<Explanation>,
    /// The instant of which that is told.
    pub now: Now,
}

impl<S: Store> Service<S> {
    /// Tells why a step waits. What is in use of its targets is read one target
    /// after the other, so that no decision waits for a look.
    ///
    /// # Errors
    /// [`plan::Refusal::UnknownStep`], or the store is away.
    pub async fn explain(&self, key: &StepKey<'_>) -> Result<Explained, ServiceError> {
        let view = self.step(key).await?;
        let Loaded { configuration, salt, mut now, turn, .. } =
            self.store.load(key, Expect::Anything).await?;
        drop(turn);
        if !matches!(view.record.state, State::Waiting { .. }) {
            return Ok(Explained { view, explanation: None, now });
        }
        let ground = Ground { configuration: &configuration, salt, now };
        let run = self.run_of(key, Some(&view.record), 0, ground).await?;
        let bounds = run::bounds(key, &view.record.targets, run.as_ref(), ground);
        let member = key.joined();
        let mut used = Vec::with_capacity(bounds.len());
        for bound in &bounds {
            used.push(self.store.usage(key.namespace, bound, Some(&member)).await?);
        }
        now.at = used.last().map_or(now.at, |used| used.at.max(now.at));
        let terms = terms(&view.policy, &view.record.policy, &configuration, salt, &bounds);
        let terms = Terms { run, ..terms };
        let explanation = plan::explain(&terms, &view.record, &used, now);
        Ok(Explained { view, explanation, now })
    }
}

//! Orders about the health of a target: its breaker forced open or closed, and a
//! cooldown ended before its time.

use super::{
    AdminError, PauseEnd, Service,
    target::{Fate, present},
};
use crate::{
    domain::{
        id::Id,
        limit::{Forced, ForcedState, forced::FORCED_MAX, usage::Usage},
    },
    store::{Store, configuration::TargetEntry},
};

/// An order to force a breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForceOrder {
    /// What it is to be.
    pub state: ForcedState,
    /// Why.
    pub reason: String,
    /// Who orders it; empty when that is not said.
    pub by: String,
    /// When it ends by itself; at most [`FORCED_MAX`] from now.
    pub end: PauseEnd,
}

impl<S: Store> Service<S> {
    /// Forces a target's breaker open or closed for a while. The same order again
    /// keeps its beginning.
    ///
    /// # Errors
    /// There is no such target, it has no breaker, the order would be over already or
    /// last too long, or the store is away.
    pub async fn force_breaker(
        &self,
        namespace: &Id,
        name: &Id,
        order: &ForceOrder,
    ) -> Result<TargetEntry, AdminError> {
        self.change_target(namespace, name, |configuration, now| {
            let present = present(configuration, name)?;
            if present.target.breaker.is_none() {
                return Err(AdminError::NoBreaker(name.to_string()));
            }
            let until = order.end.instant(now)?;
            let latest = now.plus(FORCED_MAX);
            if latest < until {
                return Err(AdminError::ForcedTooLong { until, latest });
            }
            let running = present.forced.as_ref().filter(|forced| forced.holds_at(now));
            let same = running.filter(|forced| forced.state == order.state);
            let forced = Forced {
                state: order.state,
                reason: order.reason.clone(),
                by: order.by.clone(),
                since: same.map_or(now, |forced| forced.since),
                until,
            };
            let entry = TargetEntry { forced: Some(forced), updated_at: now, ..present.clone() };
            Ok(Fate::Written(entry))
        })
        .await
    }

    /// Leaves a target's breaker to what it sees again; after it was forced open its
    /// load grows on a ramp. One that nobody forces stays as it is.
    ///
    /// # Errors
    /// There is no such target, or the store is away.
    pub async fn release_breaker(
        &self,
        namespace: &Id,
        name: &Id,
    ) -> Result<TargetEntry, AdminError> {
        self.end_order(namespace, name, |target, now| {
            let forced = target.forced.as_mut().filter(|forced| forced.holds_at(now));
            forced.map(|forced| forced.until = now).is_some()
        })
        .await
    }

    /// Ends the cooldown of a target, if there is one; `run` says of which run, where
    /// each has the target for itself. Returns what is used of it then.
    ///
    /// Whoever is parked for it is called by the sweep. Instants that were promised
    /// stand: they are reserved, and their workers know of them.
    ///
    /// # Errors
    /// There is no such target, or the store is away.
    pub async fn lift_cooldown(
        &self,
        namespace: &Id,
        name: &Id,
        run: &str,
    ) -> Result<Usage, AdminError> {
        let bound = self.target_bound(namespace, name, run).await?;
        self.store().lift(namespace, &bound).await?;
        Ok(self.store().usage(namespace, &bound, None).await?)
    }
}

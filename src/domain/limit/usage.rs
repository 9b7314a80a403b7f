//! What is used of a target's limits, for operators who look on.

use super::{
    Bound,
    book::TargetState,
    breaker::{Breaker, Standing},
    window::Window,
};
use crate::domain::{plan::Now, time::Timestamp};

/// What is used of a target's limits, at an instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// When.
    pub at: Timestamp,
    /// Starts in the stretch of the instant, and how many it may have; None without
    /// a rate.
    pub starts: Option<(u64, u64)>,
    /// Attempts that run, and how many may; None without such a bound.
    pub permits: Option<(u64, u64)>,
    /// Steps that wait for a permit.
    pub in_line: u64,
    /// What retries cost in the window, and may, in thousandths of a retry; None
    /// without a budget.
    pub spent: Option<(u64, u64)>,
    /// Until when the target's own word has everybody wait.
    pub cooldown: Option<Timestamp>,
    /// How its breaker stands; None without one.
    pub breaker: Option<Standing>,
    /// Steps that wait for it to be back.
    pub parked: u64,
    /// Hosts that start nothing at it for now.
    pub ejected_hosts: u64,
}

/// What a store knows of a target's state.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Starts in the stretch of the instant.
    pub starts: u64,
    /// Permits in force.
    pub permits: u64,
    /// Steps that wait for one.
    pub in_line: u64,
    /// Steps that are parked.
    pub parked: u64,
    /// The end of its cooldown.
    pub cooldown: Timestamp,
    /// What its retry budget has seen.
    pub window: Window,
    /// What is known of its health.
    pub breaker: Breaker,
}

impl Known {
    /// Of a state that is here.
    #[must_use]
    pub fn of(state: &TargetState, now: Now) -> Self {
        let (starts, _) = state.calendar.load(now.at);
        Self {
            starts: u64::from(starts),
            permits: state.permits_in_force(now.leases),
            in_line: state.line.len() as u64,
            parked: state.parked.len() as u64,
            cooldown: state.cooldown,
            window: state.window.clone(),
            breaker: state.breaker.clone(),
        }
    }
}

impl Usage {
    /// As far as the target has limits.
    #[must_use]
    pub fn of(bound: &Bound, known: &Known, now: Timestamp) -> Self {
        let target = &bound.target;
        let most = target.concurrency.map(|most| u64::from(most.get()));
        Self {
            at: now,
            starts: target.rate.map(|rate| (known.starts, u64::from(rate.grid().capacity()))),
            permits: most.map(|most| (known.permits, most)),
            in_line: known.in_line,
            spent: target.budget.as_ref().map(|budget| known.window.balance(budget, now)),
            cooldown: (known.cooldown > now).then_some(known.cooldown),
            breaker: target.breaker.map(|_| known.breaker.standing(now)),
            parked: known.parked,
            ejected_hosts: known.breaker.ejected_at(now) as u64,
        }
    }
}

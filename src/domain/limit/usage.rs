//! What is used of a target's limits, for operators who look on.

use std::borrow::Cow;

use super::{
    Bound, Forced,
    book::{TargetState, oldest},
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
    /// The first instant at which a start has room; None without a rate, or where it
    /// has none as far ahead as it plans.
    pub room: Option<Timestamp>,
    /// Attempts that run, and how many may; None without such a bound.
    pub permits: Option<(u64, u64)>,
    /// Steps that wait for a permit.
    pub in_line: u64,
    /// How many of them go before the step that is asked about; None where it is not
    /// among them.
    pub before_in_line: Option<u64>,
    /// What retries cost in the window, and may, in thousandths of a retry; None
    /// without a budget.
    pub spent: Option<(u64, u64)>,
    /// Until when the target's own word has everybody wait.
    pub cooldown: Option<Timestamp>,
    /// How its breaker stands; None without one.
    pub breaker: Option<Standing>,
    /// What an operator says of it for now.
    pub forced: Option<Forced>,
    /// Steps that wait for it to be back.
    pub parked: u64,
    /// How many of them have waited longer than the step that is asked about; None where
    /// it is not among them.
    pub before_parked: Option<u64>,
    /// Hosts that start nothing at it for now.
    pub ejected_hosts: u64,
}

/// What a store knows of a target's state.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Starts in the stretch of the instant.
    pub starts: u64,
    /// The first instant at which a start has room.
    pub room: Option<Timestamp>,
    /// Permits in force.
    pub permits: u64,
    /// Steps that wait for one.
    pub in_line: u64,
    /// How many of them go before the step that is asked about.
    pub before_in_line: Option<u64>,
    /// Steps that are parked.
    pub parked: u64,
    /// How many of them have waited longer than that step.
    pub before_parked: Option<u64>,
    /// The end of its cooldown.
    pub cooldown: Timestamp,
    /// What its retry budget has seen.
    pub window: Window,
    /// What is known of its health.
    pub breaker: Breaker,
}

impl Known {
    /// Of a state that is here; None is one at which nothing ever happened. `member`
    /// is the step that is asked about.
    #[must_use]
    pub fn of(bound: &Bound, state: Option<&TargetState>, member: Option<&str>, now: Now) -> Self {
        let none = TargetState::default();
        let state = state.unwrap_or(&none);
        let mut calendar = state.calendar.clone();
        if let Some(rate) = &bound.target.rate {
            calendar.open(rate.grid(), oldest(now.at));
        }
        let (starts, _) = calendar.load(now.at);
        Self {
            starts: u64::from(starts),
            room: calendar.room(now.at).map(|room| room.from),
            permits: state.permits_in_force(now.leases),
            in_line: state.line.len() as u64,
            before_in_line: member.and_then(|member| state.line.place(member)),
            parked: state.parked.len() as u64,
            before_parked: member.and_then(|member| state.parked.place(member)),
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
        let breaker = bound.as_freed(Cow::Borrowed(&known.breaker));
        Self {
            at: now,
            starts: target.rate.map(|rate| (known.starts, u64::from(rate.grid().capacity()))),
            room: target.rate.and(known.room),
            permits: most.map(|most| (known.permits, most)),
            in_line: known.in_line,
            before_in_line: known.before_in_line,
            spent: target.budget.as_ref().map(|budget| known.window.balance(budget, now)),
            cooldown: (known.cooldown > now).then_some(known.cooldown),
            breaker: target.breaker.map(|_| breaker.standing(now)),
            forced: bound.forced.clone().filter(|_| target.breaker.is_some()),
            parked: known.parked,
            before_parked: known.before_parked,
            ejected_hosts: breaker.ejected_at(now) as u64,
        }
    }
}

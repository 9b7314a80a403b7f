//! What perfect knowledge of the outage would do: for scale, and for no blame,
//! since no rule can know it.

use std::{collections::VecDeque, time::Duration};

use super::{Ask, Next, Start, Strategy};
use crate::{
    domain::time::Timestamp,
    simulation::{
        START,
        scenario::Scenario,
        target::{BAD_HOST, Failing, Target},
    },
};

/// Starts calls one by one, each when the target can serve it, and none while it
/// cannot; keeps away from a broken host. Which single calls a target that fails
/// in part will fail, it does not know, and what is under way when the target goes
/// down fails like anybody's.
pub struct Oracle {
    /// The target as planned: at its capacity none breaks again.
    target: Target,
    has_bad_node: bool,
    max_retries: u32,
    /// Steps that began when the target was well go first.
    fresh: VecDeque<u32>,
    others: VecDeque<u32>,
    /// When the next one may start.
    slot: Timestamp,
    /// Who has been woken, to start now.
    woken: Option<u32>,
}

impl Oracle {
    /// Before anything happened.
    #[must_use]
    pub fn new(scenario: &Scenario, target: &Target) -> Self {
        Self {
            target: target.clone(),
            has_bad_node: scenario.profile.bad_node.is_some(),
            max_retries: scenario.max_retries,
            fresh: VecDeque::new(),
            others: VecDeque::new(),
            slot: START,
            woken: None,
        }
    }

    fn park(&mut self, ask: &Ask) {
        let line = if ask.is_fresh { &mut self.fresh } else { &mut self.others };
        line.push_back(ask.step);
        self.slot = self.well_from(self.slot.max(ask.now));
    }

    /// The first instant from here on at which a call can succeed.
    fn well_from(&self, mut at: Timestamp) -> Timestamp {
        while let Some(until) = self.target.dead_until(at) {
            at = until;
        }
        at
    }
}

impl Strategy for Oracle {
    fn start(&mut self, ask: &Ask) -> Start {
        if self.woken != Some(ask.step) {
            self.park(ask);
            return Start::Parked;
        }
        if self.has_bad_node && ask.host == BAD_HOST {
            return Start::OtherHost;
        }
        self.woken = None;
        Start::Now
    }

    fn succeeded(&mut self, _ask: &Ask) {}

    fn failed(&mut self, ask: &Ask, _failing: Failing) -> Next {
        if ask.attempt > self.max_retries {
            return Next::Lost;
        }
        self.park(ask);
        Next::Parked
    }

    fn next_release(&self) -> Option<Timestamp> {
        let is_empty = self.fresh.is_empty() && self.others.is_empty();
        (!is_empty).then_some(self.slot)
    }

    fn release(&mut self, now: Timestamp) -> Option<u32> {
        let step = self.fresh.pop_front().or_else(|| self.others.pop_front())?;
        self.woken = Some(step);
        let apart = Duration::from_secs_f64(1.0 / self.target.capacity_at(now));
        self.slot = self.well_from(now.plus(apart));
        Some(step)
    }
}

//! What an operator says of a breaker, whatever the breaker has seen.
//!
//! It stands in the configuration, beside the pause, and not in the breaker's own
//! datum: a decision names the configuration that it was planned on, so every
//! instance obeys from its next decision on, all states of the target at once, and
//! when the order ends the breaker is as its own evidence has left it. Where it would
//! let everybody through at once who was held back, it begins a ramp instead.

use std::time::Duration;

use super::breaker::{self, Freed};
use crate::domain::time::Timestamp;

/// The longest time for which a breaker is forced: longer is a pause, or a target
/// without a breaker.
pub const FORCED_MAX: Duration = Duration::from_secs(7 * 86_400);

/// An order about a breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// What it is to be.
    pub state: ForcedState,
    /// Why, for those who wait.
    pub reason: String,
    /// Who ordered it; empty when that was not said.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; at most [`FORCED_MAX`] after it was ordered.
    pub until: Timestamp,
}

/// What a breaker is forced to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForcedState {
    /// Nothing starts, not even a probe: steps are parked.
    Open,
    /// It refuses nothing and only watches.
    Closed,
}

impl Forced {
    /// Whether it still holds.
    #[must_use]
    pub fn holds_at(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// The ramp on which the target's load grows by now, where the order held the
    /// breaker open and has ended; None once that is over.
    #[must_use]
    pub fn freed_at(&self, now: Timestamp, only_watches: bool) -> Option<Freed> {
        let ramp = breaker::ramp_after(self.until - self.since);
        let is_on =
            !self.holds_at(now) && now < self.until.plus(ramp) && !planted!("freed-at-once");
        (is_on && self.state == ForcedState::Open).then_some(Freed {
            at: self.until,
            ramp,
            only_watches,
        })
    }
}

//! Retry storms, simulated: a fleet of steps, a target that breaks, and rules of
//! retrying side by side under the same workload.
//!
//! Events happen in virtual time, and chance is a hash of seed and question
//! ([`chance`]): the same seed gives the same storm, to the microsecond, and every
//! strategy meets the same arrivals and the same luck. What is simulated is the
//! world ([`target`], [`fleet`]) and the rules of others ([`strategy::alone`]).
//! Reprise is not: [`strategy::coordinated`] calls the rule and the limits that
//! serve, so whatever they learn takes part the moment they have it.

pub mod chance;
pub mod fleet;
pub mod plot;
pub mod preset;
pub mod report;
pub mod scenario;
pub mod strategy;
pub mod tally;
pub mod target;
#[cfg(test)]
mod tests;

pub use self::{
    fleet::run,
    report::Report,
    scenario::Scenario,
    strategy::Kind,
    tally::{Figures, Tally},
};

use std::time::Duration;

use crate::domain::time::Timestamp;

/// When a simulation begins. Far from the epoch, as every real instant is.
pub const START: Timestamp = Timestamp::from_micros(1_000_000_000_000_000);

/// The instant so long after the beginning.
#[must_use]
pub fn after(span: Duration) -> Timestamp {
    START.plus(span)
}

/// Seconds since the beginning; 0 for an instant before it.
#[must_use]
pub fn seconds(at: Timestamp) -> f64 {
    at.since(START).as_secs_f64()
}

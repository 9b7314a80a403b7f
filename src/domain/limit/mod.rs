//! Limits: bounds on the starts that are granted at a target, from whichever
//! process they come.
//!
//! A target is what a step calls or a pool that it needs. What it allows is
//! written by operators ([`spec`]) and parsed once ([`Target`]). What a rate has
//! promised for later stands in its [`calendar`].

pub mod calendar;
pub mod parse;
pub mod spec;

use std::{num::NonZeroU32, time::Duration};

use super::time::Timestamp;

/// What a target allows. A target without any limit allows everything.
/// [`Target::parse`] checks one that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// How many starts in how much time.
    pub rate: Option<Rate>,
    /// Attempts that run at the same time, at most.
    pub concurrency: Option<NonZeroU32>,
    /// How many retries there may be for so many first attempts.
    pub budget: Option<Budget>,
    /// Whether every step of the namespace calls it, named or not.
    pub every_step: bool,
    /// Whether each run has it for itself: its limits then hold for the steps of
    /// a run, not over all of them.
    pub each_run: bool,
}

/// A rate: in every interval of length L at most `limit / period · L + burst`
/// attempts start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Starts in a period.
    pub limit: NonZeroU32,
    /// The period; never zero.
    pub period: Duration,
    /// Starts at once beyond the rate, at least 1.
    pub burst: NonZeroU32,
    /// What it counts.
    pub on: Starts,
}

/// A target that starts nothing, by an operator's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Why, for those who wait.
    pub reason: String,
    /// Who ordered it.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; None is until it is resumed.
    pub until: Option<Timestamp>,
}

impl Pause {
    /// Whether it still holds.
    #[must_use]
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Which starts a rate counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Starts {
    /// All attempts.
    #[default]
    All,
    /// Retries alone.
    Retries,
}

/// A retry budget: for every start t of a retry, what retries cost in
/// (t − window, t], this one included, is at most ratio · first attempts started
/// in it + floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Retries to a thousand first attempts.
    pub per_mille: u32,
    /// Retries in a window that need no first attempts.
    pub floor: u32,
    /// The window; never zero.
    pub window: Duration,
    /// What happens to a retry when it is spent.
    pub when_spent: WhenSpent,
}

/// What happens to a retry when the budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenSpent {
    /// It waits until there is budget again, as long as the step's bounds allow.
    #[default]
    Wait,
    /// The step stops.
    Stop,
}

//! Limits: bounds on the starts that are granted at a target, from whichever
//! process they come.
//!
//! A target is what a step calls or a pool that it needs. What it allows is
//! written by operators ([`spec`]) and parsed once ([`Target`]). What a decision
//! wants of it is an [`Asks`]; what has been granted, promised and spent stands
//! in a [`Book`], which answers with an [`Admission`]. What a rate has promised
//! for later stands in its [`calendar`], what a budget has seen in its [`window`],
//! what is known of its health in its [`breaker`].

pub mod ask;
pub mod book;
pub mod breaker;
pub mod calendar;
pub mod forced;
pub mod line;
pub mod parse;
pub mod pause;
pub mod spec;
pub mod usage;
pub mod window;

pub use self::{
    ask::{Admission, Admitted, Asks, Bound, Comes, Finding, Limit, Promise, Want},
    book::{Book, Charge, Effect},
    breaker::Episodes,
    forced::{Forced, ForcedState},
    pause::Pause,
};

use std::{num::NonZeroU32, time::Duration};

use self::calendar::Grid;
use super::time::micros;

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
    /// Whether it is left alone while it is dead.
    pub breaker: Option<BreakerTerms>,
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

/// Longest time by which a start may come after the instant that was promised
/// to it. A shorter one where the burst is too small to take it from.
pub const GRACE_MAX: Duration = Duration::from_secs(1);

impl Rate {
    /// By how much a start may come after the instant that was promised to it.
    ///
    /// Promised instants keep to a burst that is smaller by what may start in this
    /// time, at least half of it; so starts keep to the whole of it, however late
    /// each of them is. A burst of 1 has nothing to give: there promises are a
    /// tenth further apart than the rate asks for.
    #[must_use]
    pub fn grace(&self) -> Duration {
        let start = micros(self.period) / u64::from(self.limit.get());
        let most = match self.burst.get() {
            1 => start / 10,
            burst => start.saturating_mul(u64::from(burst)) / 2,
        };
        GRACE_MAX.min(Duration::from_micros(most))
    }

    /// The grid on which starts are promised.
    #[must_use]
    pub fn grid(&self) -> Grid {
        if self.burst.get() == 1 {
            return Grid::of(&Self {
                period: self.period.saturating_add(self.period / 10),
                ..*self
            });
        }
        let late = u128::from(micros(self.grace())) * u128::from(self.limit.get());
        let late = late.div_ceil(u128::from(micros(self.period)).max(1));
        let burst = u128::from(self.burst.get()).saturating_sub(late);
        let burst = u32::try_from(burst).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        Grid::of(&Self { burst, ..*self })
    }

    /// Starts a second, in thousandths; at least 1.
    #[must_use]
    pub fn per_thousand_seconds(&self) -> u64 {
        let starts = u128::from(self.limit.get()) * 1_000_000_000;
        let per = starts / u128::from(micros(self.period)).max(1);
        u64::try_from(per).unwrap_or(u64::MAX).max(1)
    }

    /// Whether it counts a start.
    #[must_use]
    pub const fn counts(&self, is_retry: bool) -> bool {
        is_retry || matches!(self.on, Starts::All)
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
    /// Whether each retry costs the same, whatever it came of.
    pub is_flat: bool,
}

impl Budget {
    /// What a retry costs it that costs others so much.
    #[must_use]
    pub const fn cost(&self, cost: u32) -> u32 {
        if self.is_flat { ask::COST } else { cost }
    }
}

/// A breaker, as far as a target has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerTerms {
    /// An attempt that succeeds only after so long counts as failed; None for
    /// one that may take its time.
    pub slow_after: Option<Duration>,
    /// Whether it only watches: it opens and closes, and refuses nothing.
    pub observe_only: bool,
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

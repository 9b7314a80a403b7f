//! Client libraries: each process decides by what it has seen itself.
//!
//! Their numbers are those that their makers publish; only `max_retries` and
//! `max_elapsed` are the scenario's, for all alike. A Retry-After is a lower
//! bound of the wait, for the step that was told and no other, as gRPC takes it
//! (grpc/proposal: A6-client-retries.md); Envoy's is spread upwards by up to a
//! half (route_components.proto). Not every library looks at it at all.

use std::time::Duration;

use super::{Ask, Next, Start, Strategy, budget::Budget};
use crate::simulation::{
    chance::{Chance, Question},
    scenario::Scenario,
    target::Failing,
};

/// A client library with a backoff and a budget of its own.
pub struct Alone<B> {
    waits: Waits,
    budget: B,
    chance: Chance,
    max_retries: u32,
    max_elapsed: Duration,
}

/// The waits before retries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waits {
    /// The first, in seconds.
    first: f64,
    /// The longest, in seconds.
    most: f64,
    /// How they grow.
    growth: Growth,
    /// Whether each is drawn from zero up, rather than kept.
    is_jittered: bool,
    /// By how much of it a Retry-After is spread upwards.
    spread: f64,
}

/// How waits grow with n = 1, 2, 3 …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    /// Not at all.
    Fixed,
    /// 2ⁿ⁻¹.
    Doubling,
    /// 2ⁿ − 1.
    DoublingSum,
}

impl Waits {
    /// Temporal's default retry policy: initial interval 1 s, coefficient 2,
    /// maximum 100 times the initial one.
    pub const EXPONENTIAL: Self =
        Self { first: 1.0, most: 100.0, growth: Growth::Doubling, is_jittered: false, spread: 0.0 };
    /// AWS's full jitter with the numbers of the SDK's standard mode: base 2, 20 s
    /// at most. (Its newer table begins at 50 ms, and would only spend the same
    /// retries sooner.)
    pub const FULL_JITTER: Self =
        Self { first: 1.0, most: 20.0, growth: Growth::Doubling, is_jittered: true, spread: 0.0 };
    /// Airflow's `default_task_retry_delay`.
    pub const FIXED: Self =
        Self { first: 300.0, most: 300.0, growth: Growth::Fixed, is_jittered: false, spread: 0.0 };
    /// Envoy's router: base interval 25 ms, at most ten times that, full jitter.
    pub const ENVOY: Self = Self {
        first: 0.025,
        most: 0.25,
        growth: Growth::DoublingSum,
        is_jittered: true,
        spread: 0.5,
    };

    /// The wait before retry `n`, 1 being the first; `draw` in [0, 1).
    #[must_use]
    pub fn before(&self, n: u32, draw: f64) -> Duration {
        let times = match self.growth {
            Growth::Fixed => 1.0,
            Growth::Doubling => f64::from(n.saturating_sub(1)).exp2(),
            Growth::DoublingSum => f64::from(n).exp2() - 1.0,
        };
        let height = (self.first * times).min(self.most);
        Duration::from_secs_f64(if self.is_jittered { height * draw } else { height })
    }

    /// The wait that a Retry-After leads to.
    fn asked(&self, retry_after: Duration, draw: f64) -> Duration {
        retry_after.mul_f64(1.0 + self.spread * draw)
    }
}

impl<B: Budget> Alone<B> {
    /// The library as it is when its processes start.
    pub fn new(scenario: &Scenario, chance: Chance, waits: Waits, budget: B) -> Self {
        let Scenario { max_retries, max_elapsed, .. } = *scenario;
        Self { waits, budget, chance, max_retries, max_elapsed }
    }
}

impl<B: Budget> Strategy for Alone<B> {
    fn start(&mut self, ask: &Ask) -> Start {
        self.budget.started(ask);
        Start::Now
    }

    fn succeeded(&mut self, ask: &Ask) {
        self.budget.ended(ask, true);
    }

    fn failed(&mut self, ask: &Ask, failing: Failing) -> Next {
        self.budget.ended(ask, false);
        if ask.attempt > self.max_retries {
            return Next::Lost;
        }
        let draw = self.chance.draw(Question::Jitter, ask.step, ask.attempt);
        let asked = self.waits.asked(failing.retry_after.unwrap_or_default(), draw);
        let wait = self.waits.before(ask.attempt, draw).max(asked);
        let at = ask.now.plus(wait);
        if self.max_elapsed < at - ask.arrived || !self.budget.allows(ask, failing.class) {
            return Next::Lost;
        }
        Next::At(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(waits: Waits, draw: f64) -> Vec<u128> {
        (1..=8).map(|n| waits.before(n, draw).as_millis()).collect()
    }

    #[test]
    fn waits_are_what_their_makers_publish() {
        let exponential = [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 100_000];
        assert_eq!(millis(Waits::EXPONENTIAL, 0.9), exponential, "no jitter");
        let half = [500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000];
        assert_eq!(millis(Waits::FULL_JITTER, 0.5), half, "half of a window that ends at 20 s");
        assert_eq!(millis(Waits::FULL_JITTER, 0.0), [0; 8]);
        assert_eq!(millis(Waits::FIXED, 0.1), [300_000; 8]);
        let envoy = [20, 60, 140, 200, 200, 200, 200, 200];
        assert_eq!(millis(Waits::ENVOY, 0.8), envoy, "25 ms, 75 ms, 175 ms, 250 ms …, times 0.8");
        let asked = Duration::from_secs(10);
        assert_eq!(Waits::FULL_JITTER.asked(asked, 0.5), asked, "exactly");
        assert_eq!(Waits::ENVOY.asked(asked, 0.5), Duration::from_millis(12_500), "10 s to 15 s");
    }
}

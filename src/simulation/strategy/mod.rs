//! Rules of retrying, side by side.

pub mod alone;
pub mod budget;
pub mod coordinated;
pub mod oracle;

use serde::Serialize;

use self::{
    alone::{Alone, Waits},
    budget::{Concurrent, Deposits, Free, Quota},
    coordinated::Coordinated,
    oracle::Oracle,
};
use super::{
    chance::Chance,
    scenario::Scenario,
    target::{Failing, Target},
};
use crate::domain::{limit::spec::BreakerSpec, time::Timestamp};

/// A rule of retrying, with all that it remembers of a run.
pub trait Strategy {
    /// A worker asks to start an attempt.
    fn start(&mut self, ask: &Ask) -> Start;
    /// The attempt succeeded.
    fn succeeded(&mut self, ask: &Ask);
    /// The attempt failed.
    fn failed(&mut self, ask: &Ask, failing: Failing) -> Next;

    /// When it wakes one of those that are parked.
    fn next_release(&self) -> Option<Timestamp> {
        None
    }

    /// Wakes one, at that instant: its worker asks again.
    fn release(&mut self, _now: Timestamp) -> Option<u32> {
        None
    }
}

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask {
    /// The step.
    pub step: u32,
    /// Number of the attempt that is to start, or that ended; the first is 1.
    pub attempt: u32,
    /// The process that the step belongs to.
    pub process: u32,
    /// The host that runs the attempt.
    pub host: u32,
    /// Whether the step began when the target was well.
    pub is_fresh: bool,
    /// When the step began.
    pub arrived: Timestamp,
    /// Now.
    pub now: Timestamp,
}

/// The answer to a worker that asks to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It starts.
    Now,
    /// It asks again at this instant.
    At(Timestamp),
    /// It is woken.
    Parked,
    /// Another host may.
    OtherHost,
    /// The step is given up.
    Lost,
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next attempt asks to start at this instant.
    At(Timestamp),
    /// The step is woken.
    Parked,
    /// The step is given up.
    Lost,
}

/// The strategies that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Exponential backoff without jitter.
    Exponential,
    /// Exponential backoff with full jitter.
    FullJitter,
    /// The same wait every time.
    Fixed,
    /// A bucket of tokens in each process.
    TokenBucket,
    /// A budget of deposits in each process.
    Finagle,
    /// A bound on the retries that run in each process at the same time.
    Envoy,
    /// The rule and the limits of this service, without its breaker.
    Limits,
    /// The rule and the limits of this service.
    Reprise,
    /// Knows what will be.
    Oracle,
}

impl Kind {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 9] = [
        Self::Exponential,
        Self::FullJitter,
        Self::Fixed,
        Self::TokenBucket,
        Self::Finagle,
        Self::Envoy,
        Self::Limits,
        Self::Reprise,
        Self::Oracle,
    ];

    /// What tables and plots call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exponential => "exponential",
            Self::FullJitter => "full jitter",
            Self::Fixed => "fixed",
            Self::TokenBucket => "token bucket",
            Self::Finagle => "Finagle budget",
            Self::Envoy => "Envoy budget",
            Self::Limits => "Reprise, no breaker",
            Self::Reprise => "Reprise",
            Self::Oracle => "oracle",
        }
    }

    /// What it does, and who published the numbers.
    #[must_use]
    pub const fn source(self) -> &'static str {
        match self {
            Self::Exponential => {
                "1 s · 2ⁿ⁻¹, at most 100 s, no jitter (Temporal's default retry policy, \
                 temporalio/temporal: common/retrypolicy)"
            }
            Self::FullJitter => {
                "U(0, min(20 s, 1 s · 2ⁿ⁻¹)) (AWS, \"Exponential Backoff and Jitter\"; numbers of \
                 the AWS SDK's standard mode, botocore/retries/standard.py)"
            }
            Self::Fixed => "300 s every time (Airflow's default_task_retry_delay)",
            Self::TokenBucket => {
                "full jitter as above; 500 tokens in each process, a retry takes 5, 10 after a \
                 timeout, a success gives back what its retry took, or 1 (AWS SDK's standard mode, \
                 botocore/retries/standard.py and quota.py)"
            }
            Self::Finagle => {
                "full jitter as above; in each process retries up to 20 % of the requests of the \
                 last 10 s and 10 a second (twitter/finagle: RetryBudget.scala)"
            }
            Self::Envoy => {
                "U(0, min(250 ms, 25 ms · (2ⁿ − 1))); in each process retries at the same time, \
                 their backoff included, up to 20 % of the requests, or 3 (Envoy: retry_budget in \
                 circuit_breaker.proto, x-envoy-max-retries in the router's documentation)"
            }
            Self::Limits => {
                "full jitter as above, through the production rule; one target with a rate at its \
                 capacity, and what the scenario adds"
            }
            Self::Reprise => "the same, and the target has a breaker",
            Self::Oracle => {
                "calls only when the target is well, at its capacity of the moment, fresh steps \
                 first: what perfect knowledge would do, for scale"
            }
        }
    }

    /// The strategy at the beginning of a run.
    #[must_use]
    pub fn strategy(
        self,
        scenario: &Scenario,
        target: &Target,
        chance: Chance,
    ) -> Box<dyn Strategy> {
        let processes = scenario.processes;
        match self {
            Self::Exponential => Box::new(Alone::new(scenario, chance, Waits::EXPONENTIAL, Free)),
            Self::FullJitter => Box::new(Alone::new(scenario, chance, Waits::FULL_JITTER, Free)),
            Self::Fixed => Box::new(Alone::new(scenario, chance, Waits::FIXED, Free)),
            Self::TokenBucket => {
                Box::new(Alone::new(scenario, chance, Waits::FULL_JITTER, Quota::new(processes)))
            }
            Self::Finagle => {
                Box::new(Alone::new(scenario, chance, Waits::FULL_JITTER, Deposits::new(processes)))
            }
            Self::Envoy => {
                Box::new(Alone::new(scenario, chance, Waits::ENVOY, Concurrent::new(processes)))
            }
            Self::Limits => Box::new(Coordinated::new(scenario, None, chance)),
            Self::Reprise => {
                let breaker = Some(BreakerSpec::default());
                Box::new(Coordinated::new(scenario, breaker, chance))
            }
            Self::Oracle => Box::new(Oracle::new(scenario, target)),
        }
    }
}

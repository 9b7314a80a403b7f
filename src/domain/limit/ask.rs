//! What a decision wants of targets, and what they answer.

use std::{sync::Arc, time::Duration};

use super::Target;
use crate::domain::time::Timestamp;

/// A target as it bounds one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What its state is filed under: the target's name, or `name run` where each
    /// run has the target for itself.
    pub state: Box<str>,
    /// What it allows.
    pub target: Arc<Target>,
    /// Revision of what it allows.
    pub revision: u64,
    /// Whether its state is of no use once a run is over: each run has its own, or
    /// nobody wrote a target of this name.
    pub is_passing: bool,
    /// Whether it starts nothing for now: the end of the pause, if one is known.
    pub pause: Option<Option<Timestamp>>,
}

impl Bound {
    /// Whether it is that of the target `name`, to a step of `run`.
    #[must_use]
    pub fn is_of(&self, name: &str, run: &str) -> bool {
        if self.target.each_run {
            let rest = self.state.strip_prefix(name);
            rest.and_then(|rest| rest.strip_prefix(' ')).is_some_and(|rest| rest == run)
        } else {
            *self.state == *name
        }
    }

    /// Whether it bounds anything at all.
    #[must_use]
    pub fn says_something(&self) -> bool {
        let Target { rate, concurrency, budget, .. } = &*self.target;
        rate.is_some() || concurrency.is_some() || budget.is_some() || self.pause.is_some()
    }
}

/// What one decision about a step wants of its targets. All of it is done, or
/// nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asks {
    /// The step, as [`crate::domain::id::StepKey::joined`].
    pub member: Box<str>,
    /// Its targets.
    pub bounds: Vec<Bound>,
    /// What is wanted.
    pub want: Want,
    /// States at which the step has a permit or a place in line.
    pub held: Vec<Box<str>>,
    /// Starts that are promised to it.
    pub tickets: Vec<Promise>,
    /// The instant of that promise.
    pub promised: Timestamp,
    /// What the targets' word has the whole fleet wait for: state and instant.
    pub cool: Option<(Box<str>, Timestamp)>,
    /// A start that nobody asked for, and what it costs a budget: it counts.
    pub counted: Option<Option<u32>>,
    /// The latest instant that is of use.
    pub latest: Option<Timestamp>,
    /// Where in the room that is found the start falls, of 2¹⁶.
    pub draw: u16,
}

/// A start that was promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The state.
    pub state: Box<str>,
    /// By how much the start may come later: as was promised, and not longer than
    /// the target's rate allows now.
    pub grace: Duration,
    /// Whether the target is still of the revision that promised it. What was
    /// promised under another rate holds, but cannot be given back.
    pub is_current: bool,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// Nothing: whatever the step has, it gives back.
    #[default]
    Nothing,
    /// To start now.
    Start {
        /// What it costs a retry budget; None for a first attempt.
        cost: Option<u32>,
        /// The end of the lease.
        lease_until: Timestamp,
        /// Since when the step has been waiting for it: the longer, the sooner.
        since: Timestamp,
        /// How its worker comes again where it has to stand in line.
        comes: Comes,
    },
    /// A start from this instant on.
    Reserve {
        /// The earliest that the step itself allows.
        from: Timestamp,
    },
    /// To keep permits until this instant.
    Keep {
        /// The end of the lease.
        lease_until: Timestamp,
    },
}

/// What a retry costs a budget, in thousandths: the formula's costs are 1 for
/// most failures, 2 for one that timed out, ½ for one that was throttled
/// (AWS's standard mode weighs them likewise).
pub const COST: u32 = 1000;

/// What targets answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It starts now.
    Now,
    /// A start at this instant is promised.
    At(Timestamp),
    /// No instant up to the latest one is free. Nothing is promised.
    TooLate,
    /// It stands in line, and is to come again at this instant.
    InLine(Timestamp),
    /// Nothing is promised; it is to come again at this instant.
    Later(Timestamp),
    /// The retry budget is spent, and says to stop.
    Spent,
}

/// What targets answer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The answer.
    pub admission: Admission,
    /// What each limit had to say.
    pub findings: Vec<Finding>,
}

/// What one limit had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub limit: Limit,
    /// The state it was found in.
    pub state: Box<str>,
    /// Revision of the target.
    pub revision: u64,
    /// The earliest instant that it admits, or is thought to.
    pub earliest: Timestamp,
    /// How much of it is used.
    pub used: u64,
    /// How much there is.
    pub most: u64,
}

/// Kinds of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Starts in a stretch of time.
    Rate,
    /// Attempts that run at the same time.
    Concurrency,
    /// Retries for so many first attempts.
    Budget,
    /// Everybody waits until the target's instant.
    Cooldown,
}

impl Asks {
    /// States of the rates that count the start.
    pub fn rates(&self, is_retry: bool) -> impl Iterator<Item = &Bound> {
        let counts = move |bound: &&Bound| {
            bound.target.rate.as_ref().is_some_and(|rate| rate.counts(is_retry))
        };
        self.bounds.iter().filter(counts)
    }

    /// States with permits.
    pub fn pools(&self) -> impl Iterator<Item = &Bound> {
        self.bounds.iter().filter(|bound| bound.target.concurrency.is_some())
    }

    /// What is promised at a state.
    #[must_use]
    pub fn promise(&self, state: &str) -> Option<&Promise> {
        self.tickets.iter().find(|promise| *promise.state == *state)
    }

    /// Whether a retry is meant.
    #[must_use]
    pub const fn is_retry(&self) -> bool {
        !matches!(self.want, Want::Start { cost: None, .. })
    }
}

/// How a worker comes again that stands in line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Comes {
    /// By itself, so often that it hardly misses its turn.
    #[default]
    ByItself,
    /// When it is woken, since a permit is free for it.
    WhenWoken,
    /// Never: it came for whatever there is, and when this one is woken another
    /// may come.
    Claiming,
}

/// Turns of all permits that somebody in line waits for at most.
pub const TURNS_MAX: u64 = 40;

/// How long a worker waits that is woken, before it comes by itself after all: a
/// wake-up may be lost with the process that was to make it. Long, since what a
/// lost one costs is mended sooner, by whoever next looks at the line.
pub const WOKEN_WITHIN: Duration = Duration::from_secs(300);

/// How long who stands in line waits before it comes again, by how many go
/// before it, for so many permits.
#[must_use]
pub fn patience(comes: Comes, before: u64, permits: u64) -> Duration {
    /// Milliseconds in which a permit is thought to come free.
    const TURN: u64 = 250;
    match comes {
        Comes::ByItself => {
            Duration::from_millis(TURN * (before / permits.max(1) + 1).min(TURNS_MAX))
        }
        Comes::WhenWoken | Comes::Claiming => WOKEN_WITHIN,
    }
}

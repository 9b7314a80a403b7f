//! What a decision wants of targets, and what they answer.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{
    Budget, Forced, ForcedState, Pause, Target, WhenSpent,
    breaker::{Breaker, Ended, Episodes, Freed, TargetOutcome},
    pause::Stood,
};
use crate::domain::time::{Timestamp, micros};

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
    /// Why it starts nothing for now, by an operator's order.
    pub pause: Option<Pause>,
    /// Its pauses that are over.
    pub stood: Stood,
    /// What an operator says of its breaker for now.
    pub forced: Option<Forced>,
    /// The end of an order that held its breaker open, while its load grows after it.
    pub freed: Option<Freed>,
    /// Its episodes, as far as the decision knows them. A store refuses a commit
    /// that was planned on others.
    pub episodes: Episodes,
}

/// How long retries of a run's steps are remembered for its bound on all of them.
const RUN_WINDOW: Duration = Duration::from_secs(10 * 24 * 3600);

impl Bound {
    /// The bound on the retries of all steps of a run together, over its attempts.
    /// It is a budget that no first attempt adds to.
    #[must_use]
    pub fn of_run(run: &str, created_at: Timestamp, max_total_retries: u32) -> Self {
        let budget = Budget {
            per_mille: 0,
            floor: max_total_retries,
            window: RUN_WINDOW,
            when_spent: WhenSpent::Stop,
            is_flat: true,
        };
        Self {
            // No target has an empty name; and a name may be used for a run again.
            state: format!(" {run} {}", created_at.as_micros()).into(),
            target: Arc::new(Target { budget: Some(budget), ..Target::default() }),
            revision: 0,
            is_passing: true,
            pause: None,
            stood: Stood::default(),
            forced: None,
            freed: None,
            episodes: Episodes::default(),
        }
    }

    /// Whether it is that of a run, and no target: see [`Bound::of_run`].
    #[must_use]
    pub fn is_run(&self) -> bool {
        self.state.starts_with(' ')
    }

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

    /// Whether it bounds anything at all. One that was paused does for good: nobody is
    /// given up for what it kept from starting.
    #[must_use]
    pub fn says_something(&self) -> bool {
        let Target { rate, concurrency, budget, breaker, .. } = &*self.target;
        rate.is_some()
            || concurrency.is_some()
            || budget.is_some()
            || breaker.is_some()
            || self.pause.is_some()
            || !self.stood.is_empty()
    }

    /// Starts a second that its rate allows, in thousandths; 0 without a rate.
    #[must_use]
    pub fn full(&self) -> u64 {
        self.target.rate.map_or(0, |rate| rate.per_thousand_seconds())
    }

    /// Whether its breaker has a say: one that is forced closed only watches.
    #[must_use]
    pub fn has_breaker(&self) -> bool {
        let forced = self.forced.as_ref().map(|forced| forced.state);
        self.target.breaker.is_some_and(|breaker| match forced {
            Some(ForcedState::Open) => true,
            Some(ForcedState::Closed) => false,
            None => !breaker.observe_only,
        })
    }

    /// Whether its breaker may pace starts: one that has a say, and for a while one that
    /// only watches but was held open by an order.
    #[must_use]
    pub fn is_paced(&self) -> bool {
        self.has_breaker() || self.freed.is_some() && !planted!("watching-breaker-freed-at-once")
    }

    /// Whether its breaker only watches.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.target.breaker.is_some() && !self.is_paced()
    }

    /// Its breaker, as the end of an order that held it open has left it.
    #[must_use]
    pub fn as_freed<'a>(&self, breaker: Cow<'a, Breaker>) -> Cow<'a, Breaker> {
        let freed = self.freed.filter(|freed| !breaker.knows(*freed));
        let Some(freed) = freed else { return breaker };
        let mut breaker = breaker.into_owned();
        breaker.free(freed, self.full());
        Cow::Owned(breaker)
    }

    /// Until when an operator holds its breaker open; None where nobody does.
    #[must_use]
    pub fn forced_open(&self) -> Option<Timestamp> {
        let forced = self.forced.as_ref().filter(|_| self.target.breaker.is_some());
        let open = forced
            .filter(|forced| forced.state == ForcedState::Open && !planted!("forced-not-heeded"));
        open.map(|forced| forced.until)
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
    /// The attempt that ends with it, if one does.
    pub ended: Option<AttemptEnd>,
    /// The step, as evidence tells it from others.
    pub step: u32,
    /// The host that would run the attempt, likewise; 0 is unknown.
    pub host: u16,
    /// The latest instant that is of use.
    pub latest: Option<Timestamp>,
    /// Where in the room that is found the start falls, of 2¹⁶.
    pub draw: u16,
}

/// An attempt that has ended, as targets see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptEnd {
    /// Where it ran; 0 is unknown.
    pub host: u16,
    /// How long it took.
    pub took: Duration,
    /// What it says, and of which target: None is all of them.
    pub outcome: TargetOutcome,
    /// The one state at fault, where it failed.
    pub at_fault: Option<Box<str>>,
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
    /// Whether no breaker has opened or closed since: where the target is coming
    /// back the start is one of those that it admitted.
    pub is_paced: bool,
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
        /// Another instant that it allows as well: the one at which rates have less
        /// planned is taken.
        other: Option<Timestamp>,
        /// Whether it is that of a first attempt.
        is_first: bool,
        /// Since when the step has been waiting, should it be parked.
        since: Timestamp,
        /// Whether it was waiting before this decision.
        waited: bool,
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
    /// A target is out of order: it stands in line there, is told when that is
    /// over, and comes again at this instant at the latest.
    Parked(Timestamp),
    /// The host fails alone: another one may start it.
    OtherHost,
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
    /// The target is out of order: only probes start.
    Breaker,
    /// The target is coming back: its load grows.
    Ramp,
    /// The host fails alone.
    Host,
    /// An operator has forced the breaker open.
    Forced,
    /// A breaker that only watches would have had it wait: it binds nothing.
    Observed,
}

impl Limit {
    /// Whether a step that it refuses is parked at the target.
    #[must_use]
    pub const fn parks(self) -> bool {
        matches!(self, Self::Breaker | Self::Forced)
    }
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
        !matches!(self.want, Want::Start { cost: None, .. } | Want::Reserve { is_first: true, .. })
    }

    /// States with a breaker that may pace starts.
    pub fn breakers(&self) -> impl Iterator<Item = &Bound> {
        self.bounds.iter().filter(|bound| bound.is_paced())
    }

    /// What the end of an attempt says of a target; None where none has ended,
    /// or nobody watches.
    #[must_use]
    pub fn ended_at(&self, bound: &Bound) -> Option<Ended> {
        let (end, breaker) = (self.ended.as_ref()?, bound.target.breaker?);
        let is_slow = breaker.slow_after.is_some_and(|slow| slow <= end.took);
        let is_at_fault = end.at_fault.as_deref().is_none_or(|state| *state == *bound.state);
        let outcome = match end.outcome {
            TargetOutcome::Served if is_slow => TargetOutcome::Failed,
            TargetOutcome::Failed if !is_at_fault => TargetOutcome::Nothing,
            outcome => outcome,
        };
        Some(Ended {
            step: self.step,
            host: end.host,
            outcome,
            draw: self.draw,
            full: bound.full(),
            only_watches: !bound.has_breaker(),
        })
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

/// How long who is parked sleeps at most. It is told when its target is back, and
/// comes by itself should it not have been heard.
const PARKED: Duration = Duration::from_secs(30);
/// How many of those who stand in line come by themselves for the next probes.
pub const PROBERS: u64 = 8;
/// From one of their probes to the next.
const PROBE_EVERY: Duration = Duration::from_micros(2_500_000);

/// When who is parked comes again: who is woken when it is long overdue, the first in line for the next probes, the
/// others spread over a while.
#[must_use]
pub fn parked_until(
    before: u64,
    draw: u16,
    comes: Comes,
    next_probe: Timestamp,
    now: Timestamp,
) -> Timestamp {
    if comes == Comes::WhenWoken {
        return now.plus(WOKEN_WITHIN);
    }
    if before < PROBERS {
        let turns = u32::try_from(before).unwrap_or_default();
        return next_probe.max(now).plus(PROBE_EVERY * turns);
    }
    let spread = micros(PARKED) * u64::from(draw) / 65_536;
    now.plus(PARKED + Duration::from_micros(spread))
}

//! The answer to "may this step be tried again, and when?"

use super::{
    policy::{RuleName, spec::HoldAnswer},
    time::Timestamp,
};

/// What follows, with the instant it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again at this instant.
    Retry(Timestamp),
    /// Ask again at this instant, if one is known; nothing was counted.
    Wait(Option<Timestamp>),
    /// Do not try again.
    Stop,
    /// A person decides; the default answer is taken at this instant, if any.
    Hold(Option<Timestamp>),
    /// Nothing is left to do.
    Done,
}

/// Why a decision is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// RETRY: the policy's backoff.
    Backoff,
    /// RETRY: the target's pushback was longer than the backoff.
    Pushback,
    /// RETRY: the wait that the worker asked for.
    Wish,
    /// RETRY: after a crash, under the crash counter.
    Crashed,
    /// RETRY: the failure belongs to an outage of its target, and burns no retry.
    Outage,
    /// RETRY: a hold was answered so.
    Answered,
    /// RETRY: an operator ordered it, or a new attempt of its run begins it again.
    Ordered,
    /// RETRY: the work did not start, so that nothing is counted.
    Unstarted,
    /// WAIT: the next attempt is not yet due.
    NotDue,
    /// WAIT: another attempt holds the lease.
    InProgress,
    /// WAIT: the step stops when the backoff would have ended.
    Stopping,
    /// WAIT: the step failed on this host, which may not run it again.
    ExcludedHost,
    /// WAIT: the targets' limits promise a later start.
    Limited,
    /// WAIT: all permits of a target are taken, and the step stands in line.
    InLine,
    /// WAIT: an operator has paused the step or a target.
    Paused,
    /// WAIT: a target is out of order; only probes start.
    BreakerOpen,
    /// STOP: the retry budget of a target is spent.
    BudgetSpent,
    /// STOP: `max_retries` is reached.
    RetriesSpent,
    /// STOP: a rule says so.
    Rule,
    /// STOP: the worker said that another try is pointless.
    NotRetryable,
    /// STOP: the target's pushback said never.
    PushbackNever,
    /// STOP: the earliest next start lies past `max_elapsed`.
    MaxElapsed,
    /// STOP: the earliest next start lies past the step's deadline.
    Deadline,
    /// STOP: the namespace's ceiling is reached.
    Ceiling,
    /// STOP: steps of this kind are never retried.
    StepKind,
    /// STOP: too many crashes.
    CrashesSpent,
    /// STOP: a rule's ceiling on uncounted retries is reached.
    UncountedSpent,
    /// STOP: the backoff's schedule ended.
    ScheduleEnded,
    /// STOP: the step or its attempt was cancelled.
    Canceled,
    /// STOP: nobody came for the step.
    Abandoned,
    /// STOP: an operator gave it up.
    GivenUp,
    /// STOP: the run that the step belongs to is over.
    RunOver,
    /// STOP: a later attempt of the run has begun; this worker belongs to an earlier one.
    RunSuperseded,
    /// STOP: the retries of all steps of the run together are spent.
    RunRetriesSpent,
    /// STOP: the run failed because of a step, and its policy does not retry it for that.
    StepFailed,
    /// HOLD: retries are spent and the policy leaves it to a person.
    Exhausted,
    /// HOLD: a rule leaves it to a person.
    HeldByRule,
    /// DONE: the step succeeded.
    Succeeded,
    /// DONE: the step was skipped.
    Skipped,
}

impl Reason {
    /// Every reason, in the order of their stored numbers, which only grow.
    pub const ALL: [Self; 39] = [
        Self::Backoff,
        Self::Pushback,
        Self::Wish,
        Self::Crashed,
        Self::NotDue,
        Self::InProgress,
        Self::Stopping,
        Self::ExcludedHost,
        Self::RetriesSpent,
        Self::Rule,
        Self::NotRetryable,
        Self::PushbackNever,
        Self::MaxElapsed,
        Self::Deadline,
        Self::Ceiling,
        Self::StepKind,
        Self::CrashesSpent,
        Self::UncountedSpent,
        Self::ScheduleEnded,
        Self::Canceled,
        Self::Abandoned,
        Self::Exhausted,
        Self::HeldByRule,
        Self::Succeeded,
        Self::Skipped,
        Self::Answered,
        Self::Limited,
        Self::InLine,
        Self::Paused,
        Self::BudgetSpent,
        Self::Outage,
        Self::BreakerOpen,
        Self::Ordered,
        Self::Unstarted,
        Self::GivenUp,
        Self::RunOver,
        Self::RunSuperseded,
        Self::RunRetriesSpent,
        Self::StepFailed,
    ];

    /// The verdict that goes with the reason, without its instant.
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Backoff
            | Self::Pushback
            | Self::Wish
            | Self::Crashed
            | Self::Outage
            | Self::Answered
            | Self::Ordered
            | Self::Unstarted => Verdict::Retry(Timestamp::EPOCH),
            Self::NotDue
            | Self::InProgress
            | Self::Stopping
            | Self::ExcludedHost
            | Self::Limited
            | Self::InLine
            | Self::Paused
            | Self::BreakerOpen => Verdict::Wait(None),
            Self::BudgetSpent
            | Self::RetriesSpent
            | Self::Rule
            | Self::NotRetryable
            | Self::PushbackNever
            | Self::MaxElapsed
            | Self::Deadline
            | Self::Ceiling
            | Self::StepKind
            | Self::CrashesSpent
            | Self::UncountedSpent
            | Self::ScheduleEnded
            | Self::Canceled
            | Self::Abandoned
            | Self::GivenUp
            | Self::RunOver
            | Self::RunSuperseded
            | Self::RunRetriesSpent
            | Self::StepFailed => Verdict::Stop,
            Self::Exhausted | Self::HeldByRule => Verdict::Hold(None),
            Self::Succeeded | Self::Skipped => Verdict::Done,
        }
    }

    /// The reason in a sentence for people.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Backoff => "The policy's backoff comes first.",
            Self::Pushback => "The target asked for a longer wait than the policy's backoff.",
            Self::Wish => "The worker asked for this wait.",
            Self::Outage => "The target is out of order; the failure burns no retry.",
            Self::BreakerOpen => "A target is out of order; the step waits until it is back.",
            Self::Answered => "The hold was answered with a retry.",
            Self::Ordered => "An operator, or a new attempt of the run, ordered another try.",
            Self::Unstarted => "The work did not start; the retry is not counted.",
            Self::GivenUp => "An operator gave the step up.",
            Self::Crashed => "The worker vanished; the attempt counts as a crash.",
            Self::NotDue => "The next attempt is not due yet.",
            Self::InProgress => "Another attempt holds the lease.",
            Self::Stopping => "The step stops when its backoff would have ended.",
            Self::ExcludedHost => {
                "The step failed on this host before; another host has to run it."
            }
            Self::Limited => "The limits of its targets promise a later start.",
            Self::InLine => "All permits of a target are taken; the step stands in line.",
            Self::Paused => "An operator has paused the step or a target of it.",
            Self::BudgetSpent => "The retry budget of a target is spent.",
            Self::RetriesSpent => "All retries that the policy allows have been used.",
            Self::Rule => "A rule of the policy stops on this failure.",
            Self::NotRetryable => "The worker said that another try is pointless.",
            Self::PushbackNever => "The target asked not to be called again.",
            Self::MaxElapsed => "The next start would lie past the time that the policy allows.",
            Self::Deadline => "The next start would lie past the step's deadline.",
            Self::Ceiling => "The namespace allows no further retry.",
            Self::StepKind => "Steps of this kind are never retried.",
            Self::CrashesSpent => "The step's workers vanished too often.",
            Self::UncountedSpent => "The rule's ceiling on uncounted retries has been reached.",
            Self::ScheduleEnded => "The backoff's schedule has ended.",
            Self::Canceled => "It was cancelled.",
            Self::Abandoned => "The step was due and nobody came for it.",
            Self::RunOver => "The run that the step belongs to is over.",
            Self::RunSuperseded => "A later attempt of the run has begun.",
            Self::RunRetriesSpent => "The retries of all steps of the run together are spent.",
            Self::StepFailed => "The run failed because of a step, and is not retried for that.",
            Self::Exhausted => "Retries are spent; a person decides.",
            Self::HeldByRule => "A rule of the policy leaves this failure to a person.",
            Self::Succeeded => "The step has succeeded.",
            Self::Skipped => "The step was skipped.",
        }
    }
}

/// What has been counted for a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Attempts begun. Never goes back.
    pub attempts: u32,
    /// Retries on the policy's own counter.
    pub retries: u32,
    /// Retries that rules did not count.
    pub uncounted: u32,
    /// Retries after crashes.
    pub crashes: u32,
    /// Retries after failures that belong to outages of their targets.
    pub forgiven: u32,
    /// Retries on rules' own counters, uncounted ones included; none is zero.
    pub by_rule: Vec<(RuleName, u32)>,
}

/// Which counter a retry is counted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counter {
    /// The policy's own.
    Retries,
    /// That of crashes.
    Crashes,
    /// That of failures which belong to outages of their targets.
    Forgiven,
    /// A rule's own.
    Rule(RuleName),
    /// A rule's own, and the sum of what does not count.
    Uncounted(RuleName),
    /// None: the work did not start. How many there are in a row its attempts tell.
    Unstarted,
}

impl Counters {
    /// Retries granted, over all counters but that of outages.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.by_rule.iter().fold(self.retries.saturating_add(self.crashes), |sum, (_, count)| {
            sum.saturating_add(*count)
        })
    }

    /// What stands on one counter.
    #[must_use]
    pub fn on(&self, counter: &Counter) -> u32 {
        match counter {
            Counter::Retries => self.retries,
            Counter::Crashes => self.crashes,
            Counter::Forgiven => self.forgiven,
            Counter::Unstarted => 0,
            Counter::Rule(name) | Counter::Uncounted(name) => {
                self.by_rule.iter().find(|(rule, _)| rule == name).map_or(0, |(_, count)| *count)
            }
        }
    }

    /// Counts one retry.
    pub fn count(&mut self, counter: &Counter) {
        match counter {
            Counter::Retries => self.retries = self.retries.saturating_add(1),
            Counter::Crashes => self.crashes = self.crashes.saturating_add(1),
            Counter::Forgiven => self.forgiven = self.forgiven.saturating_add(1),
            Counter::Unstarted => {}
            Counter::Rule(name) => self.count_rule(name),
            Counter::Uncounted(name) => {
                self.uncounted = self.uncounted.saturating_add(1);
                self.count_rule(name);
            }
        }
    }

    fn count_rule(&mut self, name: &RuleName) {
        match self.by_rule.iter_mut().find(|(rule, _)| rule == name) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.by_rule.push((name.clone(), 1)),
        }
    }

    /// Takes back one retry that was counted.
    pub fn uncount(&mut self, counter: &Counter) {
        match counter {
            Counter::Retries => self.retries = self.retries.saturating_sub(1),
            Counter::Crashes => self.crashes = self.crashes.saturating_sub(1),
            Counter::Forgiven => self.forgiven = self.forgiven.saturating_sub(1),
            Counter::Unstarted => {}
            Counter::Rule(name) => self.uncount_rule(name),
            Counter::Uncounted(name) => {
                self.uncounted = self.uncounted.saturating_sub(1);
                self.uncount_rule(name);
            }
        }
    }

    fn uncount_rule(&mut self, name: &RuleName) {
        if let Some((_, count)) = self.by_rule.iter_mut().find(|(rule, _)| rule == name) {
            *count = count.saturating_sub(1);
        }
        self.by_rule.retain(|(_, count)| *count > 0);
    }

    /// Starts the counters again. Numbers never restart; counters do.
    pub fn reset(&mut self) {
        *self = Self { attempts: self.attempts, ..Self::default() };
    }
}

/// The part of a decision that is remembered, so that a replay is equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What follows.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Option<RuleName>,
    /// Revision of the policy that was applied; 0 for one given inline.
    pub revision: u64,
    /// The counters after it.
    pub counters: Counters,
    /// When it was decided.
    pub decided_at: Timestamp,
}

/// An answer, with what a person or a scheduler wants beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The remembered part.
    pub settled: Settled,
    /// What bounded the instant, the binding one first.
    pub constraints: Vec<Constraint>,
    /// Hosts that should not run the next attempt.
    pub excluded_hosts: Vec<ExcludedHost>,
    /// The action to resume from; empty means from the start.
    pub resume_from: String,
    /// When the step ends whatever happens.
    pub ends_by: Option<Timestamp>,
    /// HOLD: what a person may answer.
    pub hold_answers: Vec<HoldAnswer>,
}

/// Something that bounded the instant of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// What it is.
    pub kind: ConstraintKind,
    /// What it belongs to: a target, with the run behind it where each run has the
    /// target for itself; empty for the step itself.
    pub key: String,
    /// The earliest instant that it admits.
    pub earliest: Timestamp,
    /// Reserved, or checked again at the start.
    pub firm: bool,
    /// Whether it decided the instant.
    pub binding: bool,
    /// How much of a limit is used, and how much there is; None for the rest.
    pub load: Option<Load>,
}

/// How far a limit is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Used: starts in the stretch of the instant, permits, thousandths of a retry.
    pub used: u64,
    /// How much there is of it.
    pub limit: u64,
    /// Revision of the target.
    pub revision: u64,
}

/// What bounded an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstraintKind {
    /// The policy's backoff, jitter included.
    Backoff,
    /// The target's pushback.
    Pushback,
    /// The wait that the worker asked for.
    Wish,
    /// The lease of the attempt in progress.
    Lease,
    /// The rate of a target.
    Rate,
    /// The permits of a target.
    Concurrency,
    /// The retry budget of a target.
    Budget,
    /// A target has the whole fleet wait.
    Cooldown,
    /// An operator has paused the step or a target.
    Pause,
    /// A target is out of order, and only probes start.
    Breaker,
    /// A target is coming back, and its load grows.
    Ramp,
    /// The host fails at a target at which others do not.
    Host,
    /// The instant that the step was told, whatever accounted for it then.
    Ticket,
    /// An operator has forced the breaker of a target open.
    Forced,
    /// A breaker that only watches would have had it wait.
    Observed,
}

/// A host that should not run the next attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExcludedHost {
    /// The host, as workers name it.
    pub host: String,
    /// Must not, or rather another one.
    pub hard: bool,
}

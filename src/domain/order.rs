//! What an operator orders about a step, and what is remembered of it.

use std::{collections::VecDeque, sync::Arc};

use super::{
    event::Deadline,
    policy::spec::HoldAnswer,
    record::{Ending, Identity, Record, State},
    time::Timestamp,
};

/// Orders remembered. So many are told apart from their repetitions.
pub const ORDERS_MAX: usize = 4;
/// Hosts that orders exclude at most; the oldest may run the step again then.
pub const EXCLUDED_MAX: usize = 16;
/// Bytes kept of who gave an order, and of why.
pub const ORDER_TEXT_KEPT: usize = 128;

/// An operator's order about a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Tells a repeated order from another one.
    pub identity: Identity,
    /// Who gives it.
    pub by: Box<str>,
    /// Why.
    pub reason: Box<str>,
    /// What is to be done.
    pub what: What,
}

/// What is to be done with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Try again now.
    Retry,
    /// Go on without it.
    Skip,
    /// Take it for succeeded.
    Succeed,
    /// Give it up.
    Fail,
    /// End it; an attempt in progress is asked to stop.
    Cancel,
    /// Start its counters again.
    Reset,
    /// Allow more.
    Extend(Extension),
    /// Start nothing until resumed, or until this instant.
    Pause(Option<Deadline>),
    /// End the pause.
    Resume,
    /// Answer the hold.
    Resolve(HoldAnswer),
}

/// What a step is allowed beyond its policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// Retries more, on whichever counter a failure is counted.
    pub retries: u32,
    /// A later deadline; None leaves it.
    pub deadline: Option<Deadline>,
}

/// What orders have left with a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// The latest orders, the newest last, at most [`ORDERS_MAX`].
    pub given: VecDeque<Given>,
    /// Nothing starts while it is in force.
    pub pause: Option<StepPause>,
    /// Whether the running attempt is to stop.
    pub is_cancel_requested: bool,
    /// Whether the attempt that comes next was ordered: no `max_elapsed` stops it.
    pub is_retry_ordered: bool,
    /// Retries allowed beyond the policy's.
    pub extra_retries: u32,
    /// Hosts that may not run the step, at most [`EXCLUDED_MAX`].
    pub excluded_hosts: Vec<Arc<str>>,
}

/// A pause of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPause {
    /// Since when.
    pub since: Timestamp,
    /// Up to when its time is in [`Record::held_for`] already.
    pub counted_to: Timestamp,
    /// When it ends by itself; None is when it is resumed.
    pub until: Option<Timestamp>,
    /// Who ordered it.
    pub by: Box<str>,
    /// Why.
    pub reason: Box<str>,
}

/// An order that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Tells a repeated order from another one.
    pub identity: Identity,
    /// When.
    pub at: Timestamp,
    /// Who gave it, at most [`ORDER_TEXT_KEPT`] bytes.
    pub by: Box<str>,
    /// Why, at most as long.
    pub reason: Box<str>,
    /// What was done.
    pub what: What,
    /// How the step stood before.
    pub before: Footing,
    /// How it stood afterwards.
    pub after: Footing,
}

/// How a step stands, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footing {
    /// Where.
    pub stage: Stage,
    /// Retries on the policy's own counter.
    pub retries: u32,
}

/// Where a step stands, without its instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// [`State::Waiting`].
    Waiting,
    /// [`State::Stopping`].
    Stopping,
    /// [`State::Running`].
    Running,
    /// [`State::Held`].
    Held,
    /// [`State::Over`].
    Over(Ending),
}

impl Stage {
    /// Every stage, in the order of their stored numbers, which only grow.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Stopping,
        Self::Running,
        Self::Held,
        Self::Over(Ending::Succeeded),
        Self::Over(Ending::Failed),
        Self::Over(Ending::Skipped),
        Self::Over(Ending::Canceled),
    ];

    /// That of a state.
    #[must_use]
    pub const fn of(state: &State) -> Self {
        match state {
            State::Waiting { .. } => Self::Waiting,
            State::Stopping { .. } => Self::Stopping,
            State::Running { .. } => Self::Running,
            State::Held(_) => Self::Held,
            State::Over { ending, .. } => Self::Over(*ending),
        }
    }

    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Stopping => "STOPPING",
            Self::Running => "RUNNING",
            Self::Held => "HELD",
            Self::Over(Ending::Succeeded) => "SUCCEEDED",
            Self::Over(Ending::Failed) => "FAILED",
            Self::Over(Ending::Skipped) => "SKIPPED",
            Self::Over(Ending::Canceled) => "CANCELED",
        }
    }
}

impl Footing {
    /// How a step stands.
    #[must_use]
    pub const fn of(record: &Record) -> Self {
        Self { stage: Stage::of(&record.state), retries: record.counters.retries }
    }
}

impl StepPause {
    /// Whether it is in force.
    #[must_use]
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Orders {
    /// Remembers an order, and forgets the oldest where there are too many.
    pub fn remember(&mut self, given: Given) {
        if self.given.len() == ORDERS_MAX {
            self.given.pop_front();
        }
        self.given.push_back(given);
    }

    /// Has a host not run the step any more.
    pub fn exclude(&mut self, host: &Arc<str>) {
        if self.excluded_hosts.contains(host) {
            return;
        }
        if self.excluded_hosts.len() == EXCLUDED_MAX {
            self.excluded_hosts.remove(0);
        }
        self.excluded_hosts.push(Arc::clone(host));
    }
}

impl Record {
    /// What orders have left with the step, to be changed.
    pub fn orders_mut(&mut self) -> &mut Orders {
        self.orders.get_or_insert_default()
    }

    /// The pause that is in force, if one is.
    #[must_use]
    pub fn paused_at(&self, now: Timestamp) -> Option<&StepPause> {
        let pause = self.orders.as_ref()?.pause.as_ref();
        pause.filter(|pause| pause.holds_at(now))
    }

    /// Whether the running attempt was asked to stop.
    #[must_use]
    pub fn is_cancel_requested(&self) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.is_cancel_requested)
    }

    /// Retries allowed beyond the policy's.
    #[must_use]
    pub fn extra_retries(&self) -> u32 {
        self.orders.as_ref().map_or(0, |orders| orders.extra_retries)
    }
}

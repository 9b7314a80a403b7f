//! What can happen to a step.

use std::{sync::Arc, time::Duration};

pub use super::limit::Comes;
use super::{
    failure::Failure, id::Id, labels::Labels, order::Order, record::Identity, time::Timestamp,
};

/// Something that happens to a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A worker asks for the next attempt.
    Begin(Begin),
    /// A worker is still at it.
    Heartbeat(Heartbeat),
    /// A worker tells how an attempt ended.
    Report(Report),
    /// An operator orders something about the step.
    Order(Order),
    /// The step's next event may have come: a lease, a hold, a wait or the
    /// retention ended.
    Tick,
    /// A permit is free for it in each line that it stands in.
    Wake,
}

impl Event {
    /// What a worker says about its step with it.
    #[must_use]
    pub const fn said(&self) -> Option<&StepTerms> {
        match self {
            Self::Begin(begin) => Some(&begin.step),
            Self::Report(report) => Some(&report.step),
            Self::Heartbeat(_) | Self::Order(_) | Self::Tick | Self::Wake => None,
        }
    }
}

/// A worker asks for the next attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Begin {
    /// Who asks.
    pub identity: Identity,
    /// How long the lease shall last; None means the namespace's default.
    pub lease: Option<Duration>,
    /// Host that runs the attempt.
    pub host: Option<Arc<str>>,
    /// Worker that runs it; empty when unknown.
    pub worker: String,
    /// How it comes again where it has to stand in line.
    pub comes: Comes,
    /// What it says about the step.
    pub step: StepTerms,
}

/// What a call says about its step; what it leaves out stays as it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepTerms {
    /// Kind; empty leaves it.
    pub kind: String,
    /// Targets; empty leaves them.
    pub targets: Vec<Id>,
    /// Queue.
    pub queue: Option<Id>,
    /// What a worker is handed that claims it; empty leaves it.
    pub payload: Box<[u8]>,
    /// What tells it apart from other steps of its queue; none leave them.
    pub labels: Labels,
    /// When the step must have ended.
    pub deadline: Option<Deadline>,
    /// The attempt of its run that the worker belongs to; 0 leaves it.
    pub of_run: u32,
}

/// When a step must have ended, by the store's clock or from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// At this instant.
    At(Timestamp),
    /// This long after the call.
    After(Duration),
}

/// A worker is still at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The fence of its lease.
    pub fence: u64,
    /// How long the lease shall last from now; None means as it was granted.
    pub lease: Option<Duration>,
    /// How far the work is, in a unit of the worker's own; None says nothing of it.
    pub progress: Option<u64>,
}

/// A worker tells how an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Which attempt.
    pub attempt: AttemptName,
    /// Digest of what the report says, to tell a repeated one from another.
    pub payload: u64,
    /// None is success.
    pub failure: Option<Failure>,
    /// What it says about the step.
    pub step: StepTerms,
}

/// How a report names its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptName {
    /// By the fence of its grant.
    Fence(u64),
    /// By its number.
    Number(u32),
    /// By the digest of the report's own id: the next attempt, begun implicitly.
    Request(u64),
}

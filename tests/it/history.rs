//! What is done to steps and what is seen of it, in plain words.
//!
//! The same histories drive whatever decides about steps: the rule alone, a
//! store, a service over a socket. So nothing here knows any of them.

use std::collections::BTreeMap;

/// The run of the steps, among them: it is kept as a step without a name.
pub const RUN: u8 = u8::MAX;

/// Something that answers about steps.
pub trait Subject {
    /// Does one thing and tells what was seen.
    fn apply(&mut self, op: &Op) -> Observed;

    /// Where a step stands; None when it is not known.
    fn look(&mut self, step: u8) -> Option<View>;
}

/// One thing done to a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// The store's time, in microseconds. Never goes back within a history.
    pub at: u64,
    /// Which step.
    pub step: u8,
    /// What is done.
    pub call: Call,
}

/// What is done to a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// A worker asks for the next attempt.
    Begin {
        /// Identity of the call.
        request: u64,
        /// What it says.
        said: Begin,
    },
    /// A worker is still at it.
    Heartbeat {
        /// Fence of the grant.
        fence: u64,
        /// Length of the lease from now, in microseconds.
        lease: Option<u64>,
        /// How far the work is.
        progress: Option<u64>,
    },
    /// A worker tells how an attempt ended.
    Report {
        /// Which attempt.
        name: Name,
        /// How it ended; None is success.
        failure: Option<Failed>,
    },
    /// An operator orders something.
    Order {
        /// Identity of the order.
        request: u64,
        /// What is ordered.
        wanted: Wanted,
    },
    /// The step's next event may have come, and one after the other what has
    /// ended with it.
    Tick,
}

/// What an operator may order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// Another try, now.
    Retry,
    /// That its run goes on without it.
    Skip,
    /// That it is taken for succeeded.
    Succeed,
    /// That it is given up.
    Fail,
    /// That it ends.
    Cancel,
    /// That its counters start again.
    Reset,
    /// That it is allowed so many retries more, and has this long left, in
    /// microseconds.
    Extend(u32, Option<u64>),
    /// That nothing of it starts: for so long, in microseconds, or until resumed.
    Pause(Option<u64>),
    /// That it may start again.
    Resume,
    /// An answer to its hold: `RETRY`, `SKIP`, `FAIL` or `EXCLUDE_HOST`.
    Resolve(&'static str),
}

/// What a begin says. All but the identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Begin {
    /// Length of the lease, in microseconds.
    pub lease: Option<u64>,
    /// Host; empty when it does not matter.
    pub host: String,
    /// Kind of the step; empty leaves it.
    pub kind: String,
    /// When the step must have ended, from now, in microseconds.
    pub time_left: Option<u64>,
    /// The attempt of the run that the worker belongs to; 0 says nothing.
    pub of_run: u32,
}

impl Begin {
    /// What a repeated call says again: it may come from another host, and later.
    pub fn said(&self) -> Self {
        Self { host: String::new(), time_left: None, ..self.clone() }
    }

    /// Whether this is the same call as another one.
    pub fn says_as(&self, other: &Self) -> bool {
        self.said() == other.said()
    }
}

/// How a report names its attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Name {
    /// By the fence of its grant.
    Fence(u64),
    /// By its number.
    Number(u32),
    /// By the report's own id.
    Request(u64),
}

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// `FAILURE`, `ERROR`, `TRANSIENT`, `TIMEOUT`, `THROTTLED`, `CRASH` or `CANCELED`.
    pub class: &'static str,
    /// HTTP status.
    pub http: Option<u16>,
    /// Exit code.
    pub exit: Option<i32>,
    /// Host; empty means the one it began on.
    pub host: String,
    /// How long it ran, in microseconds.
    pub ran: Option<u64>,
    /// What the target asked for.
    pub pushback: Option<Pushback>,
    /// Retries that the worker asks for.
    pub wish_retries: Option<u32>,
    /// Exact wait that the worker asks for, in microseconds.
    pub wish_delay: Option<u64>,
    /// False when another try is pointless.
    pub retryable: bool,
    /// The action that failed.
    pub action: String,
    /// Whether the work surely did not take effect.
    pub unstarted: bool,
    /// Of a run: whether it failed because one of its steps did.
    pub of_step: bool,
}

impl Failed {
    /// What a repeated report says again: it may come from another host, and may
    /// have measured anew.
    pub fn said(&self) -> Self {
        Self { host: String::new(), ran: None, ..self.clone() }
    }

    /// Whether this is the same report as another one.
    pub fn says_as(&self, other: &Self) -> bool {
        self.said() == other.said()
    }

    /// A failure of which only the class is known.
    pub fn of(class: &'static str) -> Self {
        Self {
            class,
            http: None,
            exit: None,
            host: String::new(),
            ran: None,
            pushback: None,
            wish_retries: None,
            wish_delay: None,
            retryable: true,
            action: String::new(),
            unstarted: false,
            of_step: false,
        }
    }
}

/// "Not before", as said by the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pushback {
    /// Not sooner than this after the failure, in microseconds.
    After(u64),
    /// Never again.
    Never,
}

/// What was seen of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// The attempt may run.
    Granted(Granted),
    /// It may not, or not now.
    Refused(Seen),
    /// The lease is held until then.
    Held {
        /// Its end.
        lease_until: u64,
        /// Whether the attempt should stop.
        cancel: bool,
    },
    /// The lease is lost.
    Lost,
    /// The decision about an attempt.
    Reported {
        /// Number of the attempt.
        attempt: u32,
        /// How the report was taken.
        status: Status,
        /// Whether it is the answer of an earlier time.
        replayed: bool,
        /// What follows.
        decision: Seen,
    },
    /// An order was carried out.
    Ordered {
        /// Where the step stands afterwards.
        after: &'static str,
        /// Whether it was carried out at an earlier time.
        replayed: bool,
    },
    /// Time was told.
    Ticked,
    /// The step is no longer known.
    Forgotten,
    /// It could not be carried out.
    Failed(Problem),
}

impl Observed {
    /// The same, seen so many microseconds earlier.
    pub fn earlier_by(mut self, shift: u64) -> Self {
        match &mut self {
            Self::Granted(grant) => {
                grant.began_at -= shift;
                grant.lease_until -= shift;
                grant.ends_by = grant.ends_by.map(|at| at - shift);
            }
            Self::Refused(decision) | Self::Reported { decision, .. } => decision.move_by(shift),
            Self::Held { lease_until, .. } => *lease_until -= shift,
            Self::Lost
            | Self::Ordered { .. }
            | Self::Ticked
            | Self::Forgotten
            | Self::Failed(_) => {}
        }
        self
    }
}

/// The right to run an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Granted {
    /// Its number.
    pub attempt: u32,
    /// Its fence.
    pub fence: u64,
    /// When it began.
    pub began_at: u64,
    /// When the lease ends; in a replay, when it ended with its attempt.
    pub lease_until: u64,
    /// Whether it is the answer of an earlier time.
    pub replayed: bool,
    /// Hosts to stay away from, and whether strictly.
    pub excluded_hosts: Vec<(String, bool)>,
    /// When the step ends whatever happens.
    pub ends_by: Option<u64>,
    /// What had been counted when it was granted.
    pub counters: Counts,
}

/// How a report was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It ended the attempt.
    Recorded,
    /// Nothing changed.
    Stale,
    /// It came after the lease had ended.
    Late,
}

/// Why something could not be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The identity was used before with another content.
    IdentityReused,
    /// There is no such step.
    UnknownStep,
    /// Another number is the next.
    AttemptGap(u32),
    /// The run has not so many attempts, but these.
    RunAttempt(u32),
    /// Something else is in the way of an order.
    Order(&'static str),
}

/// A decision. Names are those of the contract without their prefix.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// `RETRY`, `WAIT`, `STOP`, `HOLD` or `DONE`.
    pub verdict: &'static str,
    /// The instant it speaks of.
    pub at: Option<u64>,
    /// Why.
    pub reason: String,
    /// The rule that decided; empty when none did.
    pub rule: String,
    /// The counters after it.
    pub counters: Counts,
    /// When it was decided.
    pub decided_at: u64,
    /// What a person may answer.
    pub hold_answers: Vec<String>,
}

impl Seen {
    fn move_by(&mut self, shift: u64) {
        self.decided_at -= shift;
        self.at = self.at.map(|at| at - shift);
    }
}

/// What has been counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts begun.
    pub attempts: u32,
    /// Retries on the policy's own counter.
    pub retries: u32,
    /// Retries that rules did not count.
    pub uncounted: u32,
    /// Retries after crashes.
    pub crashes: u32,
    /// Retries on rules' own counters.
    pub by_rule: BTreeMap<String, u32>,
}

/// Where a step stands.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// `WAITING` (also while a STOP is still to be given), `RUNNING`, `HELD`,
    /// `SUCCEEDED`, `FAILED`, `SKIPPED` or `CANCELED`.
    pub state: &'static str,
    /// When it is due, or is given up, or the lease or the hold ends.
    pub next_at: Option<u64>,
    /// The counters.
    pub counters: Counts,
    /// The latest attempts: number, and how each ended, empty while it runs.
    pub attempts: Vec<(u32, String)>,
    /// The standing decision, when one was made and no attempt runs.
    pub decision: Option<Seen>,
    /// The action to resume from.
    pub resume_from: String,
    /// The furthest that any attempt has told to have come.
    pub progress: u64,
    /// Retries that orders allow beyond the policy's.
    pub extra_retries: u32,
    /// Whether the running attempt was told to stop.
    pub is_to_stop: bool,
}

impl View {
    /// The same, seen so many microseconds earlier.
    pub fn earlier_by(mut self, shift: u64) -> Self {
        self.next_at = self.next_at.map(|at| at - shift);
        if let Some(decision) = &mut self.decision {
            decision.move_by(shift);
        }
        self
    }
}

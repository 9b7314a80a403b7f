//! From a record and an event to the record and the answer that follow.
//!
//! [`plan`] decides all that the step itself decides. What limits say about the
//! start of a retry is not known to it: that is an input, an [`Admission`],
//! and [`settle`] is the same choice for every store. A store without limits
//! takes [`Draft::admitted`].

mod begin;
mod decide;
mod explain;
mod heartbeat;
mod limits;
mod order;
mod outage;
mod outlook;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod tick;
mod wake;

pub use super::limit::{Admission, Admitted};
pub use decide::{excluded_hosts, waits};
pub use explain::{Explanation, Order, Stands, explain};
pub use limits::standing_constraints;
pub use order::counted;
pub use outlook::{Outlook, Readiness, outlook};
pub use run::RunTerms;

use super::{
    decision::{Constraint, ConstraintKind, Counter, Decision, Reason, Settled, Verdict},
    draw::{Draw, Salt},
    event::{Deadline, Event, StepTerms},
    id::StepKey,
    limit::{Asks, Bound},
    namespace::{LEASE_MIN, Settings},
    order::{Given, Stage},
    policy::{Exhaustion, HoldTerms, Policy, RuleName, StopTiming, spec::HoldAnswer},
    record::{
        Attempt, Ending, FailureText, Hold, Identity, PolicyChoice, Record, State, answers_left,
    },
    time::Timestamp,
};

/// What applies to a decision.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Its revision; 0 for one given inline.
    pub revision: u64,
    /// How it was chosen; kept with the step.
    pub choice: &'a PolicyChoice,
    /// The namespace's defaults and ceilings.
    pub settings: &'a Settings,
    /// What chance is drawn from.
    pub salt: Salt,
    /// The targets that bound the step.
    pub bounds: &'a [Bound],
    /// The run that the step belongs to; None where it was never begun.
    pub run: Option<RunTerms>,
}

/// The instants a decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The store's time.
    pub at: Timestamp,
    /// The instant by which leases are judged: `at`, except for a while after
    /// an outage of the service, during which nobody could be heard. Then it is
    /// the outage's beginning, so that no worker is given up for our absence.
    pub leases: Timestamp,
}

impl Now {
    /// Nothing is amiss: leases are judged by the time.
    #[must_use]
    pub const fn at(at: Timestamp) -> Self {
        Self { at, leases: at }
    }
}

/// What follows an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Nothing changes; this is the answer.
    Stands(Answer),
    /// To be settled and written.
    Write(Box<Draft>),
    /// The step is to be forgotten.
    Purge,
}

impl Plan {
    /// What leaves a step as it is stored is no change.
    fn unless_as(self, stored: Option<&Record>) -> Self {
        match self {
            Self::Write(draft) if Some(&draft.record) == stored => Self::Stands(draft.answer),
            plan => plan,
        }
    }
}

/// The answer to an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Begin: the attempt may run.
    Granted(Box<Grant>),
    /// Begin: it may not, or not now.
    Refused(Box<Decision>),
    /// Heartbeat: the lease is held until this instant, so long from now.
    Held {
        /// The end of the lease.
        lease_until: Timestamp,
        /// Whether the attempt should stop: the step was cancelled.
        cancel: bool,
    },
    /// Heartbeat: the lease is lost.
    Lost,
    /// Report: the decision.
    Reported(Box<Reported>),
    /// Order: carried out.
    Ordered(Box<Ordered>),
    /// Tick or wake: done.
    Ticked,
}

/// An order that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// As it is remembered.
    pub given: Given,
    /// Whether the same order was carried out before.
    pub replayed: bool,
}

/// The right to run an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Its number.
    pub attempt: u32,
    /// Its fence.
    pub fence: u64,
    /// When it began.
    pub began_at: Timestamp,
    /// When the lease ends without a heartbeat. In a replay, when it ended if the
    /// attempt has ended by now.
    pub lease_until: Timestamp,
    /// Whether the same call was answered so before.
    pub replayed: bool,
    /// Hosts that should not run it.
    pub excluded_hosts: Vec<super::decision::ExcludedHost>,
    /// When the step ends whatever happens.
    pub ends_by: Option<Timestamp>,
    /// What had been counted when it was granted.
    pub counters: super::decision::Counters,
    /// The action to resume from; empty means from the start.
    pub resume_from: String,
    /// Retries that the steps of its run have left together, after this start; None
    /// where nothing bounds them.
    pub run_retries_left: Option<u64>,
}

/// How a report was taken, and the decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    /// Number of the attempt.
    pub attempt: u32,
    /// How it was taken.
    pub status: ReportStatus,
    /// Whether the same report was answered so before.
    pub replayed: bool,
    /// What follows.
    pub decision: Decision,
}

/// How a report was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportStatus {
    /// It ended the attempt.
    Recorded,
    /// Nothing changed; the decision is the standing one.
    Stale,
    /// It came after the lease had ended.
    Late,
}

/// Why an event could not be carried out. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The same identity was used before with another content.
    #[error("this identity was used before with another content")]
    IdentityReused,
    /// There is no such step, or it was forgotten.
    #[error("there is no such step")]
    UnknownStep,
    /// Attempt numbers are dense: this one is not the next.
    #[error("the next attempt is number {next}")]
    AttemptGap {
        /// The number that would be accepted.
        next: u32,
    },
    /// The worker says that it belongs to a run of which nobody has begun an attempt,
    /// or to one that has not begun.
    #[error("the run has no attempt {said}; begun so far: {begun}")]
    UnknownRunAttempt {
        /// The attempt of the run that was named.
        said: u32,
        /// Its latest.
        begun: u32,
    },
    /// An attempt holds the lease, and the order is not for it.
    #[error("attempt {attempt} is in progress")]
    InProgress {
        /// Its number.
        attempt: u32,
        /// When its lease ends.
        until: Timestamp,
    },
    /// The step is over, and the order does not reopen it.
    #[error("the step is over")]
    Over(Ending),
    /// There is no hold to be answered.
    #[error("the step is not held")]
    NotHeld(Stage),
    /// The hold does not allow this answer.
    #[error("the hold does not allow this answer")]
    AnswerNotAllowed {
        /// The answer.
        answer: HoldAnswer,
        /// Those that it allows.
        allowed: Vec<HoldAnswer>,
    },
    /// The hold allows no further retry by hand.
    #[error("the hold allows {max} retries by hand")]
    ManualRetriesSpent {
        /// How many it allows.
        max: u32,
    },
    /// No host is known that could be excluded.
    #[error("it is not known where the latest attempt ran")]
    HostUnknown,
    /// Nothing starts past this bound, which `max_elapsed` is not.
    #[error("a bound of the step has passed")]
    PastBound {
        /// The bound.
        at: Timestamp,
        /// Which it is.
        reason: Reason,
    },
    /// There is no deadline to be put off.
    #[error("the step has no deadline")]
    NoDeadline,
    /// The deadline is put off only.
    #[error("the deadline is later than that already")]
    DeadlineNotLater {
        /// As it stands.
        deadline: Timestamp,
    },
    /// The pause would be over before it begins.
    #[error("the pause would end at {until}, and it is {now}")]
    PauseOver {
        /// Its end.
        until: Timestamp,
        /// The store's time.
        now: Timestamp,
    },
    /// There is no pause to be ended.
    #[error("the step is not paused")]
    NotPaused,
}

/// A change that is complete but for what limits say.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// The record as it will be; a pending retry is not yet in it.
    record: Record,
    /// The answer as it will be; likewise.
    answer: Answer,
    /// The retry that waits for its instant.
    retry: Option<Pending>,
    /// The start that limits may refuse.
    start: Option<Box<limits::Start>>,
    /// What is wanted of the step's targets.
    asks: Option<Box<Asks>>,
    /// Texts to be kept.
    text: Option<FailureText>,
    /// How long a step that is over is remembered.
    retention: std::time::Duration,
    /// How long after it was due a step is looked at that waits for its worker.
    abandon_after: std::time::Duration,
}

/// A retry that the step's policy grants, and the instants that it leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// The earliest start that backoff, jitter and pushback allow.
    pub earliest: Timestamp,
    /// Another one that jitter drew, where a target's load is planned: see
    /// [`Want::Reserve`](super::limit::Want).
    other: Option<Timestamp>,
    /// The latest start that is of use, and what bounds it.
    pub latest: Option<(Timestamp, Reason)>,
    /// The counter that the retry counts on.
    counter: Counter,
    /// Why it waits as it does.
    reason: Reason,
    /// The rule that granted it.
    rule: Option<RuleName>,
    /// What happens when it cannot be granted in time.
    on_exhaustion: Exhaustion,
    /// What bounded `earliest`.
    constraints: Vec<Constraint>,
    /// The waits between which jitter drew; None when something else decided.
    window: Option<super::backoff::Window>,
}

impl Pending {
    /// The waits between which jitter drew. None when the worker or the target
    /// asked for another wait.
    #[must_use]
    pub const fn window(&self) -> Option<super::backoff::Window> {
        self.window
    }

    /// The longest wait that jitter may have asked for, where a start was promised;
    /// the one that it did elsewhere.
    fn waits_until(&self, admission: Admission) -> Timestamp {
        match (admission, self.other) {
            (Admission::At(_), Some(other)) => self.earliest.max(other),
            _ => self.earliest,
        }
    }

    /// The other instant was taken: it is the one that the backoff asks for.
    fn take_other(&mut self, other: Timestamp) {
        self.earliest = other;
        for constraint in self.constraints.iter_mut().filter(|constraint| constraint.binding) {
            constraint.earliest = other;
        }
    }
}

/// A change that is complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// The record to be written.
    pub record: Record,
    /// When something happens next: the score of the step's one event entry.
    pub event_at: Timestamp,
    /// The answer.
    pub answer: Answer,
    /// Texts to be kept beside the record.
    pub text: Option<FailureText>,
}

/// Plans what follows `event`.
///
/// Pure and total: equal arguments give an equal plan, in every store and on
/// every instance. Time arrives as `now`, chance as [`Terms::salt`].
///
/// # Errors
/// When the event cannot be carried out; nothing changes then.
pub fn plan(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    record: Option<Record>,
    event: &Event,
    now: Now,
) -> Result<Plan, Refusal> {
    run::check(terms, record.as_ref(), event)?;
    if let Event::Begin(begin) = event
        && let Some(refused) = run::refused(terms, record.as_ref(), begin, now)
    {
        return Ok(refused);
    }
    let resumed = record.as_ref().and_then(|record| run::resumed(terms, record, event, now));
    let forgiven = resumed.as_ref().or(record.as_ref()).and_then(|it| outage::forgiven(terms, it));
    let is_resumed = resumed.is_some();
    let Some(changed) = forgiven.or(resumed) else {
        let stored = record.clone().filter(|_| limits::may_put_off(terms, event));
        let plan = follow(terms, key, record, event, now)?;
        return Ok(plan.unless_as(stored.as_ref()));
    };
    match follow(terms, key, Some(changed), event, now)? {
        // What is not written is told of the step as it is written, unless it is to
        // start again with its run: then it has not ended as is written.
        Plan::Stands(_) if !is_resumed => follow(terms, key, record, event, now),
        plan => Ok(plan),
    }
}

/// The same, when what outages have burnt is taken back, and the step is in the
/// latest attempt of its run.
fn follow(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    record: Option<Record>,
    event: &Event,
    now: Now,
) -> Result<Plan, Refusal> {
    let record = record.map(|record| order::counted(record, now));
    let before = limits::Before::of(terms, record.as_ref());
    let mut plan = match event {
        Event::Begin(begin) => begin::plan(terms, record, begin, now)?,
        Event::Heartbeat(heartbeat) => heartbeat::plan(terms, record, *heartbeat, now)?,
        Event::Report(report) => report::plan(terms, key, record, report, now)?,
        Event::Order(order) => order::plan(terms, record, order, now)?,
        Event::Tick => record
            .map_or(Plan::Stands(Answer::Ticked), |record| tick::plan(terms, key, record, now)),
        Event::Wake => {
            record.map_or(Plan::Stands(Answer::Ticked), |record| wake::plan(terms, record, now))
        }
    };
    if let Some(before) = before {
        limits::ask(&mut plan, before, terms, key, event, now);
    }
    Ok(plan)
}

/// Whether a [`Event::Tick`] comes before anything else: the lease, the hold or
/// the wait of the record has ended.
#[must_use]
pub fn is_overdue(record: &Record, now: Now) -> bool {
    match &record.state {
        State::Running { lease_until } => {
            *lease_until <= now.leases && !planted!("lease-without-end")
        }
        State::Stopping { at, .. } => *at <= now.at,
        State::Held(hold) => hold.until.is_some_and(|until| until <= now.at),
        State::Waiting { .. } | State::Over { .. } => false,
    }
}

/// Fills in what the limits said.
#[must_use]
pub fn settle(mut draft: Draft, admitted: &Admitted) -> Settlement {
    if let Some(start) = draft.start.take() {
        limits::settle_start(&mut draft, *start, admitted);
    }
    if let Some(retry) = draft.retry.take() {
        let decision = settle_retry(&mut draft.record, retry, admitted, draft.retention);
        if let Answer::Reported(reported) = &mut draft.answer {
            let excluded_hosts = match decision.settled.verdict {
                Verdict::Retry(_) => std::mem::take(&mut reported.decision.excluded_hosts),
                _ => Vec::new(),
            };
            reported.decision = Decision { excluded_hosts, ..decision };
        }
    }
    limits::claims(&mut draft, admitted.admission);
    let Draft { mut record, answer, text, abandon_after, .. } = draft;
    record.version += 1;
    let event_at = event_at(&record, abandon_after);
    Settlement { record, event_at, answer, text }
}

impl Draft {
    /// What is said where no target bounds the step: the earliest instant, unless
    /// that is already too late.
    #[must_use]
    pub fn admitted(&self) -> Admitted {
        let admission = match &self.retry {
            Some(Pending { earliest, latest: Some((latest, _)), .. })
                if earliest > latest && !planted!("deadline-ignored") =>
            {
                Admission::TooLate
            }
            Some(Pending { earliest, .. }) => Admission::At(*earliest),
            None => Admission::Now,
        };
        Admitted { admission, findings: Vec::new() }
    }

    /// What is wanted of the step's targets; None where none bounds it.
    #[must_use]
    pub fn asks(&self) -> Option<&Asks> {
        self.asks.as_deref()
    }

    /// The retry that waits for an instant, if one does.
    #[must_use]
    pub fn pending(&self) -> Option<&Pending> {
        self.retry.as_ref()
    }

    /// Whether the change begins a step that is not remembered yet.
    #[must_use]
    pub fn is_new_step(&self) -> bool {
        self.record.version == 0
    }

    /// Whether the change grants something, and so can be refused when room is
    /// short; what ends or settles things must still get in.
    #[must_use]
    pub fn is_granting(&self) -> bool {
        matches!(self.answer, Answer::Granted(_))
    }

    fn new(terms: &Terms<'_>, record: Record, answer: Answer) -> Self {
        Self {
            record,
            answer,
            retry: None,
            start: None,
            asks: None,
            text: None,
            retention: terms.settings.retention,
            abandon_after: terms.settings.abandon_after,
        }
    }

    fn into_plan(self) -> Plan {
        Plan::Write(Box::new(self))
    }
}

fn settle_retry(
    record: &mut Record,
    mut retry: Pending,
    admitted: &Admitted,
    retention: std::time::Duration,
) -> Decision {
    let decided_at = record
        .latest()
        .and_then(|attempt| attempt.end.as_ref())
        .map_or(Timestamp::EPOCH, |end| end.at);
    let waits_until = retry.waits_until(admitted.admission);
    if let (Admission::At(at), Some(other)) = (admitted.admission, retry.other)
        && at == other
    {
        retry.take_other(other);
    }
    let granted = match admitted.admission {
        Admission::At(at) => Some((at, Verdict::Retry(at), retry.reason)),
        Admission::Later(at) => Some((at, Verdict::Wait(Some(at)), Reason::Limited)),
        Admission::Parked(at) => Some((at, Verdict::Wait(Some(at)), Reason::BreakerOpen)),
        Admission::Now => Some((retry.earliest, Verdict::Retry(retry.earliest), retry.reason)),
        Admission::TooLate | Admission::InLine(_) | Admission::Spent | Admission::OtherHost => None,
    };
    let Some((due, verdict, reason)) = granted else {
        return too_late(record, retry, admitted, retention, decided_at);
    };
    if !planted!("retry-not-counted") {
        record.counters.count(&retry.counter);
    }
    // What limits add is no part of the policy's own wait.
    record.last_delay = waits_until - decided_at;
    record.state = State::Waiting { due };
    let settled = Settled {
        verdict,
        reason,
        rule: retry.rule,
        revision: latest_revision(record),
        counters: record.counters.clone(),
        decided_at,
    };
    conclude(record, settled.clone(), Some(retry.counter));
    let ends_by = retry.latest.map(|(latest, _)| latest);
    let mut constraints = retry.constraints;
    if due != retry.earliest {
        constraints.iter_mut().for_each(|constraint| constraint.binding = false);
    }
    let limits = limits::constraints(&admitted.findings, verdict);
    constraints.extend(
        limits
            .into_iter()
            .map(|limit| Constraint { binding: limit.binding && due != retry.earliest, ..limit }),
    );
    Decision { constraints, ends_by, ..decision_of(settled, record) }
}

/// No start in time is left for a retry.
fn too_late(
    record: &mut Record,
    retry: Pending,
    admitted: &Admitted,
    retention: std::time::Duration,
    decided_at: Timestamp,
) -> Decision {
    let reason = retry.latest.map_or(Reason::Deadline, |(_, reason)| reason);
    let ruling = Spent {
        reason,
        rule: retry.rule,
        decided_at,
        revision: latest_revision(record),
        retention,
        would_start: retry.earliest,
    };
    let settled = if reason == Reason::MaxElapsed {
        spent(record, &retry.on_exhaustion, ruling)
    } else {
        stop(record, ruling)
    };
    conclude(record, settled.clone(), None);
    let mut constraints = retry.constraints;
    constraints.extend(limits::constraints(&admitted.findings, settled.verdict));
    Decision { constraints, ..decision_of(settled, record) }
}

/// A verdict that ends the automatic retries.
struct Spent {
    reason: Reason,
    rule: Option<RuleName>,
    decided_at: Timestamp,
    revision: u64,
    retention: std::time::Duration,
    /// When the retry would have started, had there been one.
    would_start: Timestamp,
}

/// Retries are spent: the policy says what then.
fn spent(record: &mut Record, on_exhaustion: &Exhaustion, ruling: Spent) -> Settled {
    match on_exhaustion {
        Exhaustion::Stop(StopTiming::AtOnce) => stop(record, ruling),
        Exhaustion::Stop(StopTiming::AfterBackoff) => stop_later(record, ruling),
        Exhaustion::Hold(terms) => hold(record, terms, Reason::Exhausted, ruling),
    }
}

/// The step is given up now.
fn stop(record: &mut Record, ruling: Spent) -> Settled {
    end(record, Ending::Failed, Verdict::Stop, ruling)
}

/// The step is over.
fn end(record: &mut Record, ending: Ending, verdict: Verdict, ruling: Spent) -> Settled {
    if let Some(orders) = &mut record.orders {
        orders.is_cancel_requested = false;
        orders.pause = None;
    }
    record.state = State::Over { ending, purge_at: ruling.decided_at.plus(ruling.retention) };
    ruling.settled(verdict, record)
}

/// The step is given up when its backoff would have ended.
fn stop_later(record: &mut Record, ruling: Spent) -> Settled {
    let at = ruling.would_start;
    let waiting =
        Settled { reason: Reason::Stopping, ..ruling.settled(Verdict::Wait(Some(at)), record) };
    record.state = State::Stopping { at, verdict: ruling.settled(Verdict::Stop, record) };
    waiting
}

/// A person decides, unless every answer that was allowed is used up: then the
/// step is given up for the reason in `ruling`.
fn hold(record: &mut Record, terms: &HoldTerms, reason: Reason, ruling: Spent) -> Settled {
    let may_retry = record.manual_retries < terms.max_manual_retries;
    if answers_left(&terms.allowed, may_retry).is_empty() {
        return stop(record, ruling);
    }
    let ruling = Spent { reason, ..ruling };
    let until = terms.timeout.map(|timeout| ruling.decided_at.plus(timeout));
    record.state = State::Held(Hold {
        since: ruling.decided_at,
        until,
        allowed: terms.allowed.clone(),
        default_answer: terms.default_answer,
        max_manual_retries: terms.max_manual_retries,
    });
    ruling.settled(Verdict::Hold(until), record)
}

impl Spent {
    /// What is decided now, by no rule.
    fn now(terms: &Terms<'_>, reason: Reason, now: Now) -> Self {
        Self {
            reason,
            rule: None,
            decided_at: now.at,
            revision: terms.revision,
            retention: terms.settings.retention,
            would_start: now.at,
        }
    }

    fn settled(&self, verdict: Verdict, record: &Record) -> Settled {
        Settled {
            verdict,
            reason: self.reason,
            rule: self.rule.clone(),
            revision: self.revision,
            counters: record.counters.clone(),
            decided_at: self.decided_at,
        }
    }
}

/// Writes the decision to the attempt that it is about.
fn conclude(record: &mut Record, settled: Settled, counted: Option<Counter>) {
    if let Some(end) = record.attempts.back_mut().and_then(|attempt| attempt.end.as_mut()) {
        end.settled = settled;
        end.counted = counted;
    }
}

/// The revision under which the latest attempt is being decided.
fn latest_revision(record: &Record) -> u64 {
    record.latest().and_then(|attempt| attempt.end.as_ref()).map_or(0, |end| end.settled.revision)
}

/// A decision with what the record knows beside it.
fn decision_of(settled: Settled, record: &Record) -> Decision {
    let hold_answers = match (settled.verdict, &record.state) {
        (Verdict::Hold(_), State::Held(hold)) => hold.answers_left(record.manual_retries),
        _ => Vec::new(),
    };
    Decision {
        settled,
        constraints: Vec::new(),
        excluded_hosts: Vec::new(),
        resume_from: record.resume_from.to_string(),
        ends_by: None,
        hold_answers,
    }
}

/// The standing decision again, for a caller that comes late or repeats itself.
fn standing(terms: &Terms<'_>, record: &Record, now: Now) -> Decision {
    let settled = record.decision().cloned().unwrap_or_else(|| Settled {
        verdict: Verdict::Wait(None),
        reason: Reason::NotDue,
        rule: None,
        revision: terms.revision,
        counters: record.counters.clone(),
        decided_at: now.at,
    });
    Decision {
        excluded_hosts: excluded_hosts(terms.policy, record, now.at),
        ..decision_of(settled, record)
    }
}

/// A WAIT that changes nothing.
fn wait(
    terms: &Terms<'_>,
    record: &Record,
    now: Now,
    until: Option<Timestamp>,
    reason: Reason,
) -> Decision {
    let settled = Settled {
        verdict: Verdict::Wait(until),
        reason,
        rule: None,
        revision: terms.revision,
        counters: record.counters.clone(),
        decided_at: now.at,
    };
    let kind =
        if reason == Reason::InProgress { ConstraintKind::Lease } else { ConstraintKind::Backoff };
    let constraint = |earliest| Constraint {
        kind,
        key: String::new(),
        earliest,
        firm: reason != Reason::InProgress,
        binding: true,
        load: None,
    };
    Decision {
        constraints: until.into_iter().map(constraint).collect(),
        excluded_hosts: excluded_hosts(terms.policy, record, now.at),
        ends_by: ends_by(terms, record).map(|(at, _)| at),
        ..decision_of(settled, record)
    }
}

/// When to ask again about an attempt that runs under this lease. After an
/// outage the lease may have ended and still be in force: then it is a moment
/// from now, never "at once", again and again.
fn ask_again(lease_until: Timestamp, now: Now) -> Timestamp {
    if now.at < lease_until { lease_until } else { now.at.plus(LEASE_MIN) }
}

/// When the step ends whatever happens, and what bounds it.
///
/// Time spent held is not counted against `max_elapsed`; the deadline does not
/// wait for anybody.
#[must_use]
pub fn ends_by(terms: &Terms<'_>, record: &Record) -> Option<(Timestamp, Reason)> {
    ends_within(terms, record, terms.policy.max_elapsed)
}

/// The same with `max_elapsed` in place of the policy's.
fn ends_within(
    terms: &Terms<'_>,
    record: &Record,
    max_elapsed: Option<std::time::Duration>,
) -> Option<(Timestamp, Reason)> {
    let elapsed = record.first_began_at.map(|first| {
        let ceiling = terms.settings.max_elapsed_ceiling;
        let (span, reason) = match max_elapsed {
            Some(span) if span <= ceiling => (span, Reason::MaxElapsed),
            _ => (ceiling, Reason::Ceiling),
        };
        (first.plus(record.held_for).plus(span), reason)
    });
    let deadline = record.deadline.map(|deadline| (deadline, Reason::Deadline));
    let of_run = terms.run.and_then(|run| run.ends_by).map(|by| (by, Reason::Deadline));
    elapsed.into_iter().chain(deadline).chain(of_run).min_by_key(|(at, _)| *at)
}

/// How long a place in line is kept for a step that does not come when it is
/// to: so long it holds up those behind it.
const PLACE_KEPT: std::time::Duration = std::time::Duration::from_secs(5);

/// Whether a step that waits has a place in a line for permits.
fn is_in_line(record: &Record) -> bool {
    has_place(record) && !is_parked(record)
}

/// Whether a step waits for a target that is out of order.
fn is_parked(record: &Record) -> bool {
    let reason = record.decision().map(|settled| settled.reason);
    has_place(record) && reason == Some(Reason::BreakerOpen)
}

fn has_place(record: &Record) -> bool {
    record.claims.as_ref().is_some_and(|claims| !claims.held.is_empty())
}

/// Whether a person ordered the next attempt, or the time of a hold was up for one.
fn is_ordered(record: &Record) -> bool {
    has_order(record) || is_answered(record)
}

/// Whether a person ordered the next attempt.
fn has_order(record: &Record) -> bool {
    record.orders.as_ref().is_some_and(|orders| orders.is_retry_ordered)
}

fn is_answered(record: &Record) -> bool {
    record.standing.as_ref().is_some_and(|settled| settled.reason == Reason::Answered)
}

/// When something happens next.
fn event_at(record: &Record, abandon_after: std::time::Duration) -> Timestamp {
    match &record.state {
        State::Waiting { due } if is_in_line(record) && !planted!("place-kept-for-ever") => {
            due.plus(PLACE_KEPT)
        }
        // While the step is paused nobody is to come.
        State::Waiting { due } => match pause_of(record) {
            None => due.plus(abandon_after),
            Some(None) => Timestamp::NEVER,
            Some(Some(until)) => until.max(*due).plus(abandon_after),
        },
        State::Stopping { at, .. } => *at,
        State::Running { lease_until } => *lease_until,
        State::Held(hold) => hold.until.unwrap_or(Timestamp::NEVER),
        State::Over { purge_at, .. } => *purge_at,
    }
}

/// The end of the step's pause, if there is one; None in it is when it is resumed.
fn pause_of(record: &Record) -> Option<Option<Timestamp>> {
    let pause = record.orders.as_ref()?.pause.as_ref()?;
    Some(pause.until)
}

/// Takes over what a call says about its step.
fn take_over(record: &mut Record, terms: &Terms<'_>, said: &StepTerms, at: Timestamp) {
    if record.policy != *terms.choice {
        record.policy = terms.choice.clone();
    }
    if !said.kind.is_empty() {
        record.kind = said.kind.as_str().into();
    }
    if !said.targets.is_empty() {
        record.targets.clone_from(&said.targets);
    }
    if said.queue.is_some() {
        record.queue.clone_from(&said.queue);
    }
    if !said.payload.is_empty() {
        record.payload.clone_from(&said.payload);
    }
    if !said.labels.is_empty() {
        record.labels.clone_from(&said.labels);
    }
    match said.deadline {
        Some(Deadline::At(deadline)) => record.deadline = Some(deadline),
        Some(Deadline::After(span)) => record.deadline = Some(at.plus(span)),
        None => {}
    }
}

/// The attempt that this identity belongs to.
fn attempt_of(
    record: &Record,
    find: impl Fn(&Attempt) -> Option<Identity>,
    id: u64,
) -> Option<(&Attempt, Identity)> {
    record.attempts.iter().rev().find_map(|attempt| {
        find(attempt).filter(|known| known.id == id).map(|known| (attempt, known))
    })
}

//! What a run has to say about its steps.
//!
//! A run is kept like a step, with attempts, a lease and a policy of its own. Its
//! steps carry the attempt of the run that their counters belong to, and are not
//! touched when the run is tried again, cancelled or over: each finds that out at
//! its next event.

use std::borrow::Cow;

use super::{
    Answer, Now, Plan, Refusal, Terms, attempt_of, excluded_hosts, order, report, standing, wait,
};
use crate::domain::{
    decision::{Decision, Reason, Settled, Verdict},
    event::{Begin, Event, StepTerms},
    policy::{
        RunRetries,
        spec::{Resume, StepCounters},
    },
    record::{Ending, Record, State},
    time::Timestamp,
};

/// The run of a step, as a decision about the step needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunTerms {
    /// When it was first heard of: tells it from an earlier one of its name.
    pub created_at: Timestamp,
    /// Its latest attempt.
    pub attempt: u32,
    /// Whether it is over, or told to be.
    pub is_over: bool,
    /// When it ends whatever happens.
    pub ends_by: Option<Timestamp>,
    /// What its policy says about its steps.
    pub retries: RunRetries,
    /// Retries that its steps have left together; None where nothing bounds them.
    pub retries_left: Option<u64>,
    /// Whether anything is still known of it.
    pub is_known: bool,
}

impl RunTerms {
    /// The run with this record, under this policy.
    #[must_use]
    pub fn of(terms: &Terms<'_>, run: &Record) -> Self {
        Self {
            created_at: run.created_at,
            attempt: run.counters.attempts,
            is_over: run.is_over() || run.is_cancel_requested(),
            // Its `max_elapsed` bounds its own retries, not what its steps may take.
            ends_by: super::ends_within(terms, run, None).map(|(at, _)| at),
            retries: terms.policy.run,
            retries_left: None,
            is_known: true,
        }
    }

    /// A run that has been over for so long that it is forgotten, of a step that
    /// knows this attempt of it.
    #[must_use]
    pub fn forgotten(attempt: u32) -> Self {
        Self {
            created_at: Timestamp::EPOCH,
            attempt,
            is_over: true,
            ends_by: None,
            retries: RunRetries::default(),
            retries_left: None,
            is_known: false,
        }
    }
}

/// Nobody belongs to an attempt of the run that was not begun. What ends an attempt
/// that was begun before says nothing of it.
pub(super) fn check(
    terms: &Terms<'_>,
    record: Option<&Record>,
    event: &Event,
) -> Result<(), Refusal> {
    if !begins(record, event) {
        return Ok(());
    }
    let said = event.said().map_or(0, |said| said.of_run);
    let begun = terms.run.map_or(0, |run| run.attempt);
    if said > begun { Err(Refusal::UnknownRunAttempt { said, begun }) } else { Ok(()) }
}

/// Whether an event begins an attempt, unless something is in its way.
fn begins(record: Option<&Record>, event: &Event) -> bool {
    match event {
        Event::Begin(_) => true,
        Event::Report(report) => record.is_none_or(|record| report::is_implicit(record, report)),
        Event::Heartbeat(_) | Event::Order(_) | Event::Tick | Event::Wake => false,
    }
}

/// Whether a later attempt of the run has begun than the one that a worker says it
/// belongs to.
pub(super) fn is_superseded(terms: &Terms<'_>, said: &StepTerms) -> bool {
    terms.run.is_some_and(|run| (1..run.attempt).contains(&said.of_run))
}

/// Why a begin is refused for the sake of the run. A call that was granted before
/// is not: it is answered as it was.
pub(super) fn refused(
    terms: &Terms<'_>,
    record: Option<&Record>,
    begin: &Begin,
    now: Now,
) -> Option<Plan> {
    let is_again = |record: &Record| {
        attempt_of(record, |attempt| attempt.begun_by, begin.identity.id).is_some()
    };
    let run = terms.run.filter(|_| !record.is_some_and(is_again))?;
    // What waits is not refused but given up, lest it stays due for ever.
    let is_given_up = record
        .is_some_and(|record| matches!(record.state, State::Waiting { due } if due <= now.at));
    if run.is_over && is_given_up {
        return None;
    }
    let reason = if run.is_over && !planted!("run-over-not-heeded") {
        Reason::RunOver
    } else if is_superseded(terms, &begin.step) {
        Reason::RunSuperseded
    } else {
        return None;
    };
    // Who has an attempt in progress hears of it by heartbeat and report, and what
    // is over stays as it ended.
    let known = record.filter(|record| record.is_over());
    let decision = known
        .map_or_else(|| refusal(terms, record, reason, now), |record| standing(terms, record, now));
    Some(Plan::Stands(Answer::Refused(Box::new(decision))))
}

fn refusal(terms: &Terms<'_>, record: Option<&Record>, reason: Reason, now: Now) -> Decision {
    let new = || Record::new(now.at, terms.choice.clone());
    let record = record.map_or_else(|| Cow::Owned(new()), Cow::Borrowed);
    let undecided = wait(terms, &record, now, None, reason);
    let settled = Settled { verdict: Verdict::Stop, ..undecided.settled };
    Decision { settled, excluded_hosts: excluded_hosts(terms.policy, &record, now.at), ..undecided }
}

/// The step as the attempt of the run finds it that asks for it: where the run has
/// been tried again since, its counters begin anew, and what has failed may start
/// again. None where nothing is different.
pub(super) fn resumed(
    terms: &Terms<'_>,
    record: &Record,
    event: &Event,
    now: Now,
) -> Option<Record> {
    let run = terms.run?;
    let is_running = matches!(record.state, State::Running { .. });
    // Who only reports may be of an earlier attempt, unless it says of which.
    if matches!(event, Event::Report(report) if report.step.of_run < run.attempt) {
        return None;
    }
    if !begins(Some(record), event) || run.attempt <= record.of_run || run.is_over || is_running {
        return None;
    }
    let mut resumed = order::counted(record.clone(), now);
    resumed.of_run = run.attempt;
    if record.of_run == 0 && (run.attempt == 1 || !record.is_over()) {
        // It was there before anybody said that it belongs to a run.
        return Some(resumed);
    }
    let starts_again = match &record.state {
        State::Over { ending: Ending::Succeeded | Ending::Skipped, .. } => {
            run.retries.resume == Resume::AllSteps || planted!("succeeded-step-runs-again")
        }
        State::Over { .. } | State::Held(_) | State::Stopping { .. } => true,
        State::Waiting { .. } | State::Running { .. } => false,
    };
    if !starts_again && record.is_over() {
        return None;
    }
    order::leave_hold(&mut resumed, now);
    if run.retries.step_counters == StepCounters::Reset && !planted!("run-counters-go-on") {
        resumed.counters.reset();
        resumed.first_began_at = None;
        resumed.held_for = std::time::Duration::ZERO;
        resumed.last_delay = std::time::Duration::ZERO;
        resumed.manual_retries = 0;
    }
    if starts_again {
        order::due_now(terms, &mut resumed, Reason::Ordered, now);
    }
    Some(resumed)
}

/// What a begin would be told of a step whose run is over, though the step is not.
pub(super) fn over(terms: &Terms<'_>, record: &Record, now: Now) -> Option<Decision> {
    let waits =
        matches!(record.state, State::Waiting { .. } | State::Stopping { .. } | State::Held(_));
    (waits && is_over(terms)).then(|| refusal(terms, Some(record), Reason::RunOver, now))
}

/// Whether the retries of all steps of the run together are spent.
pub(super) fn retries_spent(terms: &Terms<'_>) -> bool {
    terms.run.is_some_and(|run| run.retries_left == Some(0))
}

/// Why an attempt does not start for the sake of its run.
pub(super) fn stops(terms: &Terms<'_>, is_retry: bool) -> Option<Reason> {
    if is_over(terms) && !planted!("run-over-not-heeded") {
        return Some(Reason::RunOver);
    }
    (is_retry && retries_spent(terms)).then_some(Reason::RunRetriesSpent)
}

/// Whether the run is over: what still runs of it should stop.
pub(super) fn is_over(terms: &Terms<'_>) -> bool {
    terms.run.is_some_and(|run| run.is_over)
}

/// Whether a step that is over is still remembered for its run: as long as that is
/// remembered, since it may be tried again by order.
pub(super) fn keeps(terms: &Terms<'_>) -> bool {
    terms.run.is_some_and(|run| run.is_known) && !planted!("run-forgets-its-steps")
}

/// What the steps of the run have left together once this attempt has started.
pub(super) fn left_after(terms: &Terms<'_>, record: &Record) -> Option<u64> {
    let is_retry = record.counters.attempts > 1;
    terms.run?.retries_left.map(|left| left.saturating_sub(u64::from(is_retry)))
}

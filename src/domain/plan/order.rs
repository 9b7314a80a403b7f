//! An operator orders something about a step.
//!
//! Each order is carried out in each state, or refused with what is in its way:
//!
//! | order | WAITING | STOPPING | RUNNING | HELD | SUCCEEDED | FAILED, CANCELED, SKIPPED |
//! |---|---|---|---|---|---|---|
//! | retry | due now | due now | in progress | answers the hold | over | reopened, due now |
//! | skip | SKIPPED | SKIPPED | in progress | answers the hold | over | SKIPPED; over if it is |
//! | succeed | SUCCEEDED | SUCCEEDED | in progress | SUCCEEDED | over | SUCCEEDED |
//! | fail | FAILED | FAILED | in progress | answers the hold | over | over |
//! | cancel | CANCELED | CANCELED | asked to stop | CANCELED | over | over |
//! | reset | done | done | done | done | over | done, for when it is reopened |
//! | extend | done | done | done | done | over | done, for when it is reopened |
//! | pause | paused | paused | paused, and goes on | paused | over | over |
//! | resume | resumed | resumed | resumed | resumed | over | over |
//! | resolve | not held | not held | not held | by its answer | not held | not held |
//!
//! * A step that is due now is held to its limits all the same, and to a pause. It
//!   is extended by this one attempt: no `max_elapsed` stops it, but a deadline and
//!   the namespace's ceiling do, so that the order is refused where one has passed.
//! * Whoever is in progress has the say about its attempt: it is cancelled first. An
//!   attempt that is asked to stop ends its step as CANCELED however it fails, also
//!   by silence. If it succeeds nevertheless, it has: the work is done.
//! * What answers a hold is held to what the hold allows: a required step is not
//!   skipped, and is tried no more often by hand than its policy says. To cancel it,
//!   or to take it for succeeded, is no answer, and always open to its operator.
//! * What a step has of its targets' limits is given back where an order ends it or
//!   has it wait for something else. Its seniority stays while it is alive.

use super::{
    Answer, Draft, Now, Ordered, Plan, Refusal, Spent, Terms, end, ends_within, run, wait,
};
use crate::domain::{
    decision::{Constraint, ConstraintKind, Decision, Reason, Verdict},
    event::Deadline,
    order::{Extension, Footing, Given, ORDER_TEXT_KEPT, Order, Stage, StepPause, What},
    policy::spec::HoldAnswer,
    record::{Ending, Hold, Record, State, kept},
    time::Timestamp,
};

pub(super) fn plan(
    terms: &Terms<'_>,
    record: Option<Record>,
    order: &Order,
    now: Now,
) -> Result<Plan, Refusal> {
    let mut record = record.ok_or(Refusal::UnknownStep)?;
    if let Some(given) = given_before(&record, order) {
        return match given.identity.payload == order.identity.payload {
            true => Ok(Plan::Stands(answer(given.clone(), true))),
            false => Err(Refusal::IdentityReused),
        };
    }
    let before = Footing::of(&record);
    carry_out(terms, &mut record, order, now)?;
    let given = Given {
        identity: order.identity,
        at: now.at,
        by: text(&order.by),
        reason: text(&order.reason),
        what: order.what,
        before,
        after: Footing::of(&record),
    };
    record.orders_mut().remember(given.clone());
    Ok(Draft::new(terms, record, answer(given, false)).into_plan())
}

fn given_before<'a>(record: &'a Record, order: &Order) -> Option<&'a Given> {
    let mut given = record.orders.as_ref()?.given.iter().rev();
    given.find(|given| given.identity.id == order.identity.id)
}

fn answer(given: Given, replayed: bool) -> Answer {
    Answer::Ordered(Box::new(Ordered { given, replayed }))
}

fn text(given: &str) -> Box<str> {
    kept(given, ORDER_TEXT_KEPT).into()
}

fn carry_out(
    terms: &Terms<'_>,
    record: &mut Record,
    order: &Order,
    now: Now,
) -> Result<(), Refusal> {
    match order.what {
        What::Retry => retry(terms, record, now),
        What::Skip => skip(terms, record, now),
        What::Succeed => succeed(terms, record, now),
        What::Fail => fail(terms, record, now),
        What::Cancel => cancel(terms, record, now),
        What::Reset => reset(record),
        What::Extend(extension) => extend(record, extension, now),
        What::Pause(until) => pause(record, order, until, now),
        What::Resume => resume(record, now),
        What::Resolve(answer) => resolve(terms, record, answer, now),
    }
}

/// Whether what the step has of its targets' limits stays as it is: the order
/// neither ends the step nor has it wait for something else.
pub(super) const fn keeps_claims(order: &Order, after: &Record) -> bool {
    match order.what {
        What::Reset | What::Extend(_) | What::Resume => true,
        What::Cancel | What::Pause(_) => matches!(after.state, State::Running { .. }),
        What::Retry | What::Skip | What::Succeed | What::Fail | What::Resolve(_) => false,
    }
}

fn retry(terms: &Terms<'_>, record: &mut Record, now: Now) -> Result<(), Refusal> {
    match Stage::of(&record.state) {
        Stage::Running => return Err(in_progress(record)),
        Stage::Held => return resolve(terms, record, HoldAnswer::Retry, now),
        Stage::Over(Ending::Succeeded) => return Err(Refusal::Over(Ending::Succeeded)),
        Stage::Waiting | Stage::Stopping | Stage::Over(_) => {}
    }
    within_bounds(terms, record, now)?;
    due_now(terms, record, Reason::Ordered, now);
    Ok(())
}

fn skip(terms: &Terms<'_>, record: &mut Record, now: Now) -> Result<(), Refusal> {
    match Stage::of(&record.state) {
        Stage::Running => return Err(in_progress(record)),
        Stage::Held => return resolve(terms, record, HoldAnswer::Skip, now),
        Stage::Over(ending @ (Ending::Succeeded | Ending::Skipped)) => {
            return Err(Refusal::Over(ending));
        }
        Stage::Waiting | Stage::Stopping | Stage::Over(Ending::Failed | Ending::Canceled) => {}
    }
    finish(terms, record, Ending::Skipped, now);
    Ok(())
}

fn succeed(terms: &Terms<'_>, record: &mut Record, now: Now) -> Result<(), Refusal> {
    match Stage::of(&record.state) {
        Stage::Running => return Err(in_progress(record)),
        Stage::Over(Ending::Succeeded) => return Err(Refusal::Over(Ending::Succeeded)),
        Stage::Waiting | Stage::Stopping | Stage::Held | Stage::Over(_) => {}
    }
    leave_hold(record, now);
    record.resume_from = Box::default();
    finish(terms, record, Ending::Succeeded, now);
    Ok(())
}

fn fail(terms: &Terms<'_>, record: &mut Record, now: Now) -> Result<(), Refusal> {
    match Stage::of(&record.state) {
        Stage::Running => return Err(in_progress(record)),
        Stage::Held => return resolve(terms, record, HoldAnswer::Fail, now),
        Stage::Over(ending) => return Err(Refusal::Over(ending)),
        Stage::Waiting | Stage::Stopping => {}
    }
    finish(terms, record, Ending::Failed, now);
    Ok(())
}

fn cancel(terms: &Terms<'_>, record: &mut Record, now: Now) -> Result<(), Refusal> {
    match Stage::of(&record.state) {
        Stage::Over(ending) => return Err(Refusal::Over(ending)),
        Stage::Running => record.orders_mut().is_cancel_requested = true,
        Stage::Waiting | Stage::Stopping | Stage::Held => {
            leave_hold(record, now);
            finish(terms, record, Ending::Canceled, now);
        }
    }
    Ok(())
}

/// Numbers never restart; counters do.
fn reset(record: &mut Record) -> Result<(), Refusal> {
    not_succeeded(record)?;
    record.counters.reset();
    record.manual_retries = 0;
    record.last_delay = std::time::Duration::ZERO;
    Ok(())
}

fn extend(record: &mut Record, extension: Extension, now: Now) -> Result<(), Refusal> {
    not_succeeded(record)?;
    if let Some(later) = extension.deadline {
        let deadline = record.deadline.ok_or(Refusal::NoDeadline)?;
        let later = instant(later, now);
        if later <= deadline {
            return Err(Refusal::DeadlineNotLater { deadline });
        }
        record.deadline = Some(later);
    }
    let extra = &mut record.orders_mut().extra_retries;
    *extra = extra.saturating_add(extension.retries);
    Ok(())
}

/// One that is paused keeps the beginning of its pause, and takes the rest.
fn pause(
    record: &mut Record,
    order: &Order,
    until: Option<Deadline>,
    now: Now,
) -> Result<(), Refusal> {
    not_over(record)?;
    let until = until.map(|until| instant(until, now));
    if let Some(until) = until.filter(|until| *until <= now.at) {
        return Err(Refusal::PauseOver { until, now: now.at });
    }
    let is_refused = refused_by_limits(record);
    if let State::Waiting { due } = &mut record.state
        && is_refused
    {
        // What it waited for is given back, so it asks anew.
        *due = now.at.min(*due);
    }
    let running = record.paused_at(now.at);
    let pause = StepPause {
        since: running.map_or(now.at, |pause| pause.since),
        counted_to: now.at,
        until,
        by: text(&order.by),
        reason: text(&order.reason),
    };
    record.orders_mut().pause = Some(pause);
    Ok(())
}

fn resume(record: &mut Record, now: Now) -> Result<(), Refusal> {
    not_over(record)?;
    record.paused_at(now.at).ok_or(Refusal::NotPaused)?;
    end_pause(record, now.at);
    Ok(())
}

/// What was due in a pause is due when it ends: nobody is late for it.
fn end_pause(record: &mut Record, at: Timestamp) {
    record.orders_mut().pause = None;
    if let State::Waiting { due } = &mut record.state {
        *due = at.max(*due);
    }
}

/// A person has answered.
fn resolve(
    terms: &Terms<'_>,
    record: &mut Record,
    answer: HoldAnswer,
    now: Now,
) -> Result<(), Refusal> {
    let State::Held(hold) = &record.state else {
        return Err(Refusal::NotHeld(Stage::of(&record.state)));
    };
    is_allowed(record, hold, answer)?;
    match answer {
        HoldAnswer::Skip => finish_held(terms, record, Ending::Skipped, now),
        HoldAnswer::Fail => finish_held(terms, record, Ending::Failed, now),
        HoldAnswer::Retry => retry_held(terms, record, now)?,
        HoldAnswer::ExcludeHost => {
            within_bounds(terms, record, now)?;
            exclude_latest_host(record).ok_or(Refusal::HostUnknown)?;
            retry_held(terms, record, now)?;
        }
    }
    Ok(())
}

fn is_allowed(record: &Record, hold: &Hold, answer: HoldAnswer) -> Result<(), Refusal> {
    let is_retry = matches!(answer, HoldAnswer::Retry | HoldAnswer::ExcludeHost);
    let max = hold.max_manual_retries;
    if is_retry && max <= record.manual_retries && !planted!("manual-retries-unbounded") {
        return Err(Refusal::ManualRetriesSpent { max });
    }
    if hold.allowed.contains(&answer) || planted!("every-answer-allowed") {
        return Ok(());
    }
    Err(Refusal::AnswerNotAllowed { answer, allowed: hold.answers_left(record.manual_retries) })
}

fn retry_held(terms: &Terms<'_>, record: &mut Record, now: Now) -> Result<(), Refusal> {
    within_bounds(terms, record, now)?;
    leave_hold(record, now);
    record.manual_retries = record.manual_retries.saturating_add(1);
    due_now(terms, record, Reason::Answered, now);
    Ok(())
}

fn finish_held(terms: &Terms<'_>, record: &mut Record, ending: Ending, now: Now) {
    leave_hold(record, now);
    finish(terms, record, ending, now);
}

/// The time for which a step was held is none of its own.
pub(super) fn leave_hold(record: &mut Record, now: Now) {
    if let State::Held(hold) = &record.state {
        record.held_for = record.held_for.saturating_add(now.at - hold.since);
    }
}

/// Has the host of the latest attempt not run the step again; None where it is
/// not known.
pub(super) fn exclude_latest_host(record: &mut Record) -> Option<()> {
    let host = record.latest()?.host.clone()?;
    record.orders_mut().exclude(&host);
    Some(())
}

/// The next attempt may begin now.
pub(super) fn due_now(terms: &Terms<'_>, record: &mut Record, reason: Reason, now: Now) {
    record.state = State::Waiting { due: now.at };
    record.standing = Some(Spent::now(terms, reason, now).settled(Verdict::Retry(now.at), record));
    record.orders_mut().is_retry_ordered = true;
}

/// The step ends as it was ordered.
fn finish(terms: &Terms<'_>, record: &mut Record, ending: Ending, now: Now) {
    let (verdict, reason) = match ending {
        Ending::Succeeded => (Verdict::Done, Reason::Succeeded),
        Ending::Skipped => (Verdict::Done, Reason::Skipped),
        Ending::Failed => (Verdict::Stop, Reason::GivenUp),
        Ending::Canceled => (Verdict::Stop, Reason::Canceled),
    };
    let settled = end(record, ending, verdict, Spent::now(terms, reason, now));
    record.standing = Some(settled);
}

/// Nothing starts past a deadline or the namespace's ceiling, whoever orders it.
fn within_bounds(terms: &Terms<'_>, record: &Record, now: Now) -> Result<(), Refusal> {
    if let Some(reason) = run::stops(terms, true) {
        return Err(Refusal::PastBound { at: now.at, reason });
    }
    match ends_within(terms, record, None) {
        Some((at, reason)) if at < now.at => Err(Refusal::PastBound { at, reason }),
        _ => Ok(()),
    }
}

fn in_progress(record: &Record) -> Refusal {
    let until = match record.state {
        State::Running { lease_until } => lease_until,
        _ => Timestamp::EPOCH,
    };
    Refusal::InProgress { attempt: record.counters.attempts, until }
}

const fn not_over(record: &Record) -> Result<(), Refusal> {
    match record.state {
        State::Over { ending, .. } => Err(Refusal::Over(ending)),
        _ => Ok(()),
    }
}

const fn not_succeeded(record: &Record) -> Result<(), Refusal> {
    match record.state {
        State::Over { ending: Ending::Succeeded, .. } => Err(Refusal::Over(Ending::Succeeded)),
        _ => Ok(()),
    }
}

fn instant(given: Deadline, now: Now) -> Timestamp {
    match given {
        Deadline::At(at) => at,
        Deadline::After(span) => now.at.plus(span),
    }
}

fn refused_by_limits(record: &Record) -> bool {
    let reason = record.decision().map(|settled| settled.reason);
    matches!(reason, Some(Reason::Limited | Reason::InLine | Reason::BreakerOpen))
}

/// A record whose time up to now is told apart into that in which the step was
/// paused, and the rest; a pause that is over has ended. While the step is held its
/// time is counted by the hold.
#[must_use]
pub fn counted(mut record: Record, now: Now) -> Record {
    let is_held = matches!(record.state, State::Held(_));
    let Some(pause) = record.orders.as_mut().and_then(|orders| orders.pause.as_mut()) else {
        return record;
    };
    let to = pause.until.map_or(now.at, |until| until.min(now.at));
    let paused = to - pause.counted_to;
    pause.counted_to = to.max(pause.counted_to);
    let until = pause.until;
    if !is_held {
        record.held_for = record.held_for.saturating_add(paused);
    }
    if let Some(until) = until.filter(|until| *until <= now.at) {
        end_pause(&mut record, until);
    }
    record
}

/// The start that an operator's pause of the step refuses.
pub(super) fn paused(terms: &Terms<'_>, record: &Record, now: Now) -> Option<Decision> {
    let State::Waiting { due } = record.state else { return None };
    let pause = record.paused_at(now.at).filter(|_| !planted!("step-pause-not-heeded"))?;
    let until = pause.until.map(|until| until.max(due));
    let mut decision = wait(terms, record, now, until, Reason::Paused);
    decision.constraints = vec![Constraint {
        kind: ConstraintKind::Pause,
        key: String::new(),
        earliest: until.unwrap_or(Timestamp::NEVER),
        firm: false,
        binding: true,
        load: None,
    }];
    Some(decision)
}

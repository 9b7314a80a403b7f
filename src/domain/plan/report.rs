//! A worker tells how an attempt ended.

use std::sync::Arc;

use super::{
    Answer, Draft, Now, Plan, Refusal, ReportStatus, Reported, Spent, Terms, attempt_of,
    decide::{self, Failed},
    decision_of, end, outage, run, standing, take_over,
};
use crate::domain::{
    decision::{Counters, Reason, Settled, Verdict},
    event::{AttemptName, Report},
    failure::Failure,
    id::StepKey,
    record::{
        Attempt, End, Ending, FailureText, Identity, MESSAGE_KEPT, Outcome, Record, State, kept,
    },
    time::Timestamp,
};

pub(super) fn plan(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    record: Option<Record>,
    report: &Report,
    now: Now,
) -> Result<Plan, Refusal> {
    let Some(record) = record else {
        return first(terms, key, report, now);
    };
    match report.attempt {
        AttemptName::Fence(fence) => by_fence(terms, key, record, report, fence, now),
        AttemptName::Number(number) => by_number(terms, key, record, report, number, now),
        AttemptName::Request(id) => by_request(terms, key, record, report, id, now),
    }
}

/// The first that is heard of a step.
fn first(terms: &Terms<'_>, key: &StepKey<'_>, report: &Report, now: Now) -> Result<Plan, Refusal> {
    match report.attempt {
        // A fence never begins implicitly: there was a grant, and the step that
        // it belonged to was forgotten.
        AttemptName::Fence(_) => return Err(Refusal::UnknownStep),
        AttemptName::Number(1) | AttemptName::Request(_) => {}
        AttemptName::Number(_) => return Err(Refusal::AttemptGap { next: 1 }),
    }
    let record = Record::new(now.at, terms.choice.clone());
    Ok(begin_and_record(terms, key, record, report, now))
}

fn by_fence(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    record: Record,
    report: &Report,
    fence: u64,
    now: Now,
) -> Result<Plan, Refusal> {
    let Some(attempt) = record.attempts.iter().rev().find(|attempt| attempt.fence == fence) else {
        return Ok(stale(terms, &record, record.counters.attempts, now));
    };
    let number = attempt.number;
    if attempt.end.is_none() {
        return Ok(record_end(terms, key, record, report, now));
    }
    ended(terms, record, report, number, now)
}

fn by_number(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    record: Record,
    report: &Report,
    number: u32,
    now: Now,
) -> Result<Plan, Refusal> {
    let next = record.counters.attempts.saturating_add(1);
    if number > next {
        return Err(Refusal::AttemptGap { next });
    }
    if number == next {
        return Ok(next_attempt(terms, key, record, report, now));
    }
    match record.attempts.iter().find(|attempt| attempt.number == number) {
        // The attempt runs under a lease that the caller does not show.
        Some(Attempt { end: None, .. }) | None => Ok(stale(terms, &record, number, now)),
        Some(_) => ended(terms, record, report, number, now),
    }
}

fn by_request(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    record: Record,
    report: &Report,
    id: u64,
    now: Now,
) -> Result<Plan, Refusal> {
    match reported(&record, id) {
        Some(attempt) if !planted!("replay-counted-again") => {
            let number = attempt.number;
            ended(terms, record, report, number, now)
        }
        _ => Ok(next_attempt(terms, key, record, report, now)),
    }
}

/// The attempt that was ended by a report of this `request_id`.
fn reported(record: &Record, id: u64) -> Option<&Attempt> {
    let found = attempt_of(record, |attempt| attempt.end.as_ref()?.reported_by, id);
    found.map(|(attempt, _)| attempt)
}

/// Whether it tells of an attempt that nobody began.
pub(super) fn is_implicit(record: &Record, report: &Report) -> bool {
    match report.attempt {
        AttemptName::Fence(_) => false,
        AttemptName::Number(number) => number > record.counters.attempts,
        AttemptName::Request(id) => reported(record, id).is_none(),
    }
}

/// An attempt that nobody began: it is begun by its report, unless another one
/// runs, the step awaits no attempt, or the run has gone on to a later one.
fn next_attempt(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    record: Record,
    report: &Report,
    now: Now,
) -> Plan {
    match record.state {
        State::Waiting { .. } if !run::is_superseded(terms, &report.step) => {
            begin_and_record(terms, key, record, report, now)
        }
        _ => stale(terms, &record, record.counters.attempts, now),
    }
}

fn begin_and_record(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    mut record: Record,
    report: &Report,
    now: Now,
) -> Plan {
    let failure = report.failure.as_ref();
    let ran = failure.and_then(|failure| failure.duration).unwrap_or_default();
    // Not before the attempt before it ended: a worker's measure of its own
    // run is taken, but cannot reach into the past of the step.
    let earliest = record
        .latest()
        .and_then(|attempt| attempt.end.as_ref())
        .map_or(Timestamp::EPOCH, |end| end.at);
    let began_at =
        Timestamp::from_micros(now.at.as_micros().saturating_sub(super::super::time::micros(ran)))
            .max(earliest);
    let host =
        failure.map(|failure| failure.host.as_str()).filter(|host| !host.is_empty()).map(Arc::from);
    record.worker = Box::default();
    record.of_run = record.of_run.max(report.step.of_run);
    record.begin(began_at, None, host, now.at);
    record_end(terms, key, record, report, now)
}

/// Ends the running attempt.
fn record_end(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    mut record: Record,
    report: &Report,
    now: Now,
) -> Plan {
    take_over(&mut record, terms, &report.step, now.at);
    let reported_by = Some(Identity { id: request_id(report), payload: report.payload });
    match &report.failure {
        None => succeed(terms, record, reported_by, false, now),
        Some(failure) => {
            let failed = Failed {
                failure,
                outcome: Outcome::Failure { class: failure.class, exit_code: failure.exit_code },
                reported_by,
                fault: outage::fault(terms, key, failure),
            };
            let text = text_of(failure, &record, false);
            let number = record.counters.attempts;
            let mut draft = decide::fail(terms, key, record, &failed, now, |decision| {
                Answer::Reported(Box::new(Reported {
                    attempt: number,
                    status: ReportStatus::Recorded,
                    replayed: false,
                    decision,
                }))
            });
            draft.text = Some(text);
            draft.into_plan()
        }
    }
}

const fn request_id(report: &Report) -> u64 {
    match report.attempt {
        AttemptName::Request(id) => id,
        AttemptName::Fence(_) | AttemptName::Number(_) => 0,
    }
}

fn succeed(
    terms: &Terms<'_>,
    mut record: Record,
    reported_by: Option<Identity>,
    late: bool,
    now: Now,
) -> Plan {
    let ruling = Spent::now(terms, Reason::Succeeded, now);
    record.resume_from = Box::default();
    record.standing = None;
    let settled = end(&mut record, Ending::Succeeded, Verdict::Done, ruling);
    if let Some(attempt) = record.attempts.back_mut() {
        attempt.end = Some(End {
            at: now.at,
            outcome: Outcome::Success,
            reported_by,
            late,
            settled: settled.clone(),
            counted: None,
            fault: 0,
        });
    }
    let reported = Reported {
        attempt: record.counters.attempts,
        status: if late { ReportStatus::Late } else { ReportStatus::Recorded },
        replayed: false,
        decision: decision_of(settled, &record),
    };
    Draft::new(terms, record, Answer::Reported(Box::new(reported))).into_plan()
}

/// A report about an attempt that has an outcome.
fn ended(
    terms: &Terms<'_>,
    record: Record,
    report: &Report,
    number: u32,
    now: Now,
) -> Result<Plan, Refusal> {
    let Some((attempt, end)) = record
        .attempts
        .iter()
        .find(|attempt| attempt.number == number)
        .and_then(|attempt| Some((attempt, attempt.end.as_ref()?)))
    else {
        return Ok(stale(terms, &record, number, now));
    };
    match end.reported_by {
        Some(known) if known.payload == report.payload => {
            Ok(replay(terms, &record, number, end, now))
        }
        Some(_) => Err(Refusal::IdentityReused),
        None if attempt.number == record.counters.attempts && !planted!("crash-final") => {
            Ok(late(terms, record, report, now))
        }
        None => Ok(stale(terms, &record, number, now)),
    }
}

/// The lease had ended, but nobody has begun again: the crash is provisional.
fn late(terms: &Terms<'_>, mut record: Record, report: &Report, now: Now) -> Plan {
    match &report.failure {
        None => {
            if let Some(counter) = record
                .attempts
                .back()
                .and_then(|attempt| attempt.end.as_ref())
                .and_then(|end| end.counted.clone())
            {
                record.counters.uncount(&counter);
            }
            let reported_by = Some(Identity { id: request_id(report), payload: report.payload });
            succeed(terms, record, reported_by, true, now)
        }
        Some(failure) => {
            let text = text_of(failure, &record, true);
            let number = record.counters.attempts;
            let decision = standing(terms, &record, now);
            // The crash is confirmed: it is not replaced any more, and the same
            // report is answered with the same decision.
            if let Some(end) = record.attempts.back_mut().and_then(|attempt| attempt.end.as_mut()) {
                end.reported_by =
                    Some(Identity { id: request_id(report), payload: report.payload });
                end.late = true;
                end.settled = decision.settled.clone();
            }
            let reported =
                Reported { attempt: number, status: ReportStatus::Late, replayed: false, decision };
            let mut draft = Draft::new(terms, record, Answer::Reported(Box::new(reported)));
            draft.text = Some(text);
            draft.into_plan()
        }
    }
}

/// The decision that the same report was answered with before.
fn replay(terms: &Terms<'_>, record: &Record, number: u32, end: &End, now: Now) -> Plan {
    let settled: Settled = end.settled.clone();
    let decision = super::Decision {
        excluded_hosts: super::excluded_hosts(terms.policy, record, now.at),
        ..decision_of(settled, record)
    };
    let status = if end.late { ReportStatus::Late } else { ReportStatus::Recorded };
    Plan::Stands(Answer::Reported(Box::new(Reported {
        attempt: number,
        status,
        replayed: true,
        decision,
    })))
}

fn stale(terms: &Terms<'_>, record: &Record, number: u32, now: Now) -> Plan {
    let decision = match &record.state {
        State::Running { lease_until } => super::wait(
            terms,
            record,
            now,
            Some(super::ask_again(*lease_until, now)),
            Reason::InProgress,
        ),
        _ => standing(terms, record, now),
    };
    Plan::Stands(Answer::Reported(Box::new(Reported {
        attempt: number,
        status: ReportStatus::Stale,
        replayed: false,
        decision,
    })))
}

fn text_of(failure: &Failure, record: &Record, late: bool) -> FailureText {
    let worker = if failure.worker.is_empty() { &*record.worker } else { &failure.worker };
    FailureText {
        attempt: record.counters.attempts,
        late,
        message: kept(&failure.message, MESSAGE_KEPT),
        error_type: kept(&failure.error_type, 256),
        cause: kept(&failure.cause, 128),
        worker: kept(worker, 128),
    }
}

/// What a decision is about before it is made.
pub(super) fn undecided(terms: &Terms<'_>, counters: &Counters, at: Timestamp) -> Settled {
    Settled {
        verdict: Verdict::Stop,
        reason: Reason::Rule,
        rule: None,
        revision: terms.revision,
        counters: counters.clone(),
        decided_at: at,
    }
}

//! The step's next event has come, and no caller with it.

use std::time::Duration;

use super::{
    Answer, Draft, Now, PLACE_KEPT, Plan, Spent, Terms,
    decide::{self, Failed},
    end, ends_by, is_in_line, is_parked, limits, order, pause_of, run, stop,
};
use crate::domain::{
    decision::{Reason, Settled, Verdict},
    failure::{Failure, FailureClass},
    id::StepKey,
    policy::spec::HoldAnswer,
    record::{Ending, Hold, Outcome, Record, State},
    time::Timestamp,
};

pub(super) fn plan(terms: &Terms<'_>, key: &StepKey<'_>, record: Record, now: Now) -> Plan {
    match &record.state {
        State::Running { lease_until }
            if *lease_until <= now.leases && !planted!("lease-without-end") =>
        {
            crashed(terms, key, record, now)
        }
        State::Stopping { at, verdict } if *at <= now.at => {
            let verdict = verdict.clone();
            stopped(terms, record, verdict, now)
        }
        State::Held(hold) if hold.until.is_some_and(|until| until <= now.at) => {
            let hold = hold.clone();
            unanswered(terms, record, &hold, now)
        }
        State::Waiting { due } if is_abandoned(terms, &record, *due, now) => {
            abandoned(terms, record, now)
        }
        // Its target is back, or may be tried, or the sweep takes it for that.
        State::Waiting { .. } if is_parked(&record) => {
            let start = limits::Start::of(terms, &record, ends_by(terms, &record), now);
            let mut draft = Draft::new(terms, record, Answer::Ticked);
            draft.start = start;
            draft.into_plan()
        }
        // Who stands in line and does not come loses the place.
        State::Waiting { due } if is_in_line(&record) && due.plus(PLACE_KEPT) <= now.at => {
            Draft::new(terms, record, Answer::Ticked).into_plan()
        }
        // Patience has grown since the step's event was filed, or a pause is in the
        // way: it is filed anew, lest it be due for ever.
        State::Waiting { due } if *due <= now.at => {
            looked_after(terms, record, Answer::Ticked, now).into_plan()
        }
        State::Over { ending, purge_at } if *purge_at <= now.at && run::keeps(terms) => {
            let ending = *ending;
            kept(terms, record, ending, now)
        }
        State::Over { purge_at, .. } if *purge_at <= now.at => Plan::Purge,
        _ => Plan::Stands(Answer::Ticked),
    }
}

/// Whether a step has been due for so long that nobody is to be expected any more.
fn is_abandoned(terms: &Terms<'_>, record: &Record, due: Timestamp, now: Now) -> bool {
    patience_left(terms, due, now).is_zero() && pause_of(record).is_none()
}

/// How long a due step still waits for its worker. The time in which a target of it is
/// paused does not count, the rest adds up.
fn patience_left(terms: &Terms<'_>, due: Timestamp, now: Now) -> Duration {
    let waited = (now.at - due).saturating_sub(limits::time_paused(terms, due, now));
    terms.settings.abandon_after.saturating_sub(waited)
}

/// How often a step is looked at, at most, in the time for which it waits for its worker:
/// one that a pause keeps waiting has little patience left all the while.
const LOOKS: u32 = 16;

/// A step that stays as it is: where it is due it is looked at again when it may be given up.
pub(super) fn looked_after(terms: &Terms<'_>, record: Record, answer: Answer, now: Now) -> Draft {
    let due = match record.state {
        State::Waiting { due } if due <= now.at && pause_of(&record).is_none() => Some(due),
        _ => None,
    };
    let mut draft = Draft::new(terms, record, answer);
    if let Some(due) = due {
        let left = patience_left(terms, due, now).max(terms.settings.abandon_after / LOOKS);
        draft.abandon_after = (now.at - due) + left;
    }
    draft
}

/// Its run goes on: the step is looked at again when it would be forgotten next.
fn kept(terms: &Terms<'_>, mut record: Record, ending: Ending, now: Now) -> Plan {
    record.state = State::Over { ending, purge_at: now.at.plus(terms.settings.retention) };
    Draft::new(terms, record, Answer::Ticked).into_plan()
}

/// Claims of a step in a row of which nothing was ever heard, that count as no
/// failure: the answer may have been lost on its way to the worker.
const SILENT_CLAIMS_MAX: u32 = 3;

/// A silent worker is a failed attempt.
fn crashed(terms: &Terms<'_>, key: &StepKey<'_>, record: Record, now: Now) -> Plan {
    let failure =
        Failure { duration: Some(heard_for(&record)), ..Failure::of(FailureClass::Crash) };
    let failed = Failed { failure: &failure, outcome: Outcome::Crash, reported_by: None, fault: 0 };
    let is_given_back = record.is_silent && !record.is_cancel_requested();
    if is_given_back && record.silent_claims < SILENT_CLAIMS_MAX {
        return decide::give_back(terms, record, &failed, now).into_plan();
    }
    decide::fail(terms, key, record, &failed, now, |_| Answer::Ticked).into_plan()
}

/// How long the running attempt is known to have run: until its worker was last
/// heard, a lease before its lease ends. The silence after that, which lasts
/// until somebody looks, is no sign of health.
fn heard_for(record: &Record) -> Duration {
    match (&record.state, record.latest()) {
        (State::Running { lease_until }, Some(attempt)) => {
            (*lease_until - attempt.began_at).saturating_sub(record.lease)
        }
        _ => Duration::ZERO,
    }
}

fn stopped(terms: &Terms<'_>, mut record: Record, verdict: Settled, now: Now) -> Plan {
    record.state =
        State::Over { ending: Ending::Failed, purge_at: now.at.plus(terms.settings.retention) };
    record.standing = Some(verdict);
    if let Some(orders) = &mut record.orders {
        orders.pause = None;
    }
    Draft::new(terms, record, Answer::Ticked).into_plan()
}

/// Nobody answered in time: the default answer is taken.
fn unanswered(terms: &Terms<'_>, mut record: Record, hold: &Hold, now: Now) -> Plan {
    order::leave_hold(&mut record, now);
    let retries_left = record.manual_retries < hold.max_manual_retries;
    let (held, rule) = record
        .decision()
        .map_or((Reason::Exhausted, None), |settled| (settled.reason, settled.rule.clone()));
    let settled = match hold.default_answer {
        HoldAnswer::Skip => end(
            &mut record,
            Ending::Skipped,
            Verdict::Done,
            Spent::now(terms, Reason::Skipped, now),
        ),
        HoldAnswer::Retry | HoldAnswer::ExcludeHost if retries_left => {
            if hold.default_answer == HoldAnswer::ExcludeHost {
                // Where it is not known the retry is all that is left of the answer.
                let _known = order::exclude_latest_host(&mut record);
            }
            record.manual_retries += 1;
            record.state = State::Waiting { due: now.at };
            Spent::now(terms, Reason::Answered, now).settled(Verdict::Retry(now.at), &record)
        }
        HoldAnswer::Fail | HoldAnswer::Retry | HoldAnswer::ExcludeHost => {
            stop(&mut record, Spent { rule, ..Spent::now(terms, given_up_for(held), now) })
        }
    };
    record.standing = Some(settled);
    Draft::new(terms, record, Answer::Ticked).into_plan()
}

/// Why a step stops that was held for this reason.
const fn given_up_for(held: Reason) -> Reason {
    match held {
        Reason::HeldByRule => Reason::Rule,
        _ => Reason::RetriesSpent,
    }
}

fn abandoned(terms: &Terms<'_>, mut record: Record, now: Now) -> Plan {
    let settled = stop(&mut record, Spent::now(terms, Reason::Abandoned, now));
    record.standing = Some(settled);
    Draft::new(terms, record, Answer::Ticked).into_plan()
}

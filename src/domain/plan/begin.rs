//! A worker asks for the next attempt.

use super::{
    Answer, Draft, Grant, Now, Plan, Refusal, Spent, Terms, ask_again, attempt_of, decision_of,
    ends_by, ends_within, excluded_hosts, hold, is_ordered, limits, order, run, standing, stop,
    take_over, tick, wait,
};
use crate::domain::{
    decision::{Counters, Decision, Reason},
    event::{Begin, Comes, Deadline},
    policy::Exhaustion,
    record::{Attempt, End, Outcome, Record, State},
};

pub(super) fn plan(
    terms: &Terms<'_>,
    record: Option<Record>,
    begin: &Begin,
    now: Now,
) -> Result<Plan, Refusal> {
    let is_claim = begin.comes == Comes::Claiming;
    if is_claim && record.as_ref().is_none_or(|record| record.queue.is_none()) {
        return Err(Refusal::UnknownStep);
    }
    let Some(record) = record else {
        let record = Record::new(now.at, terms.choice.clone());
        return Ok(start(terms, record, begin, now));
    };
    if let Some((attempt, known)) =
        attempt_of(&record, |attempt| attempt.begun_by, begin.identity.id)
    {
        if known.payload != begin.identity.payload && !planted!("payload-not-compared") {
            return Err(Refusal::IdentityReused);
        }
        return Ok(Plan::Stands(Answer::Granted(Box::new(grant_again(
            terms, &record, attempt, now,
        )))));
    }
    // Neither a pause, nor a host, nor a bound comes before the end of its run.
    if let State::Waiting { due } = record.state
        && due <= now.at
        && let Some(reason) = run::stops(terms, false)
    {
        return Ok(past_bound(terms, record, reason, now));
    }
    if let Some(paused) = order::paused(terms, &record, now) {
        return Ok(Plan::Stands(Answer::Refused(Box::new(paused))));
    }
    let refusal = match &record.state {
        State::Waiting { due } if now.at < *due && !planted!("begun-before-due") => {
            limits::refused_before(terms, &record, now)
                .unwrap_or_else(|| wait(terms, &record, now, Some(*due), Reason::NotDue))
        }
        State::Waiting { .. } if is_excluded(terms, &record, begin, now) => {
            wait(terms, &record, now, None, Reason::ExcludedHost)
        }
        State::Waiting { .. } => return Ok(start(terms, record, begin, now)),
        State::Stopping { at, .. } => wait(terms, &record, now, Some(*at), Reason::Stopping),
        State::Running { lease_until } => {
            wait(terms, &record, now, Some(ask_again(*lease_until, now)), Reason::InProgress)
        }
        State::Over { .. } if planted!("granted-when-over") => {
            return Ok(start(terms, record, begin, now));
        }
        State::Held(_) | State::Over { .. } => standing(terms, &record, now),
    };
    Ok(Plan::Stands(Answer::Refused(Box::new(refusal))))
}

/// Grants the next attempt, unless the step must have ended by now.
fn start(terms: &Terms<'_>, mut record: Record, begin: &Begin, now: Now) -> Plan {
    let deadline = record.deadline;
    take_over(&mut record, terms, &begin.step, now.at);
    record.of_run = record.of_run.max(begin.step.of_run);
    let passed = |max_elapsed| {
        let bound = ends_within(terms, &record, max_elapsed);
        bound.filter(|(bound, _)| *bound < now.at).map(|(_, reason)| reason)
    };
    // A person who orders another try knows how long it has taken: where
    // `max_elapsed` is over, the order extends it by its attempt, but no deadline
    // and no ceiling.
    let is_extended = is_ordered(&record) && passed(terms.policy.max_elapsed).is_some();
    let max_elapsed = terms.policy.max_elapsed.filter(|_| !is_extended);
    if let Some(reason) = passed(max_elapsed) {
        return past_bound(terms, record, reason, now);
    }
    if let Some(reason) = run::stops(terms, record.counters.attempts > 0) {
        return past_bound(terms, record, reason, now);
    }
    if let Some(decision) = limits::paused(terms, &record, now) {
        // A span counts from each call anew: where there is an end already, it says
        // another one only for the attempt that starts.
        if let Some(Deadline::After(_)) = begin.step.deadline {
            record.deadline = deadline.or(record.deadline);
        }
        return put_off(terms, record, decision, now);
    }
    let start = limits::Start::of(terms, &record, ends_within(terms, &record, max_elapsed), now);
    let lease = begin.lease.unwrap_or(terms.settings.lease);
    let lease_until = now.at.plus(lease);
    let excluded_hosts = excluded_hosts(terms.policy, &record, now.at);
    if record.latest().and_then(|attempt| attempt.end.as_ref()).is_none_or(was_heard) {
        record.silent_claims = 0;
    }
    record.is_silent = begin.comes == Comes::Claiming;
    record.begin(now.at, Some(begin.identity), begin.host.clone(), now.at);
    record.lease = lease;
    record.worker = begin.worker.as_str().into();
    record.state = State::Running { lease_until };
    let grant = Grant {
        attempt: record.counters.attempts,
        fence: record.fence,
        began_at: now.at,
        lease_until,
        replayed: false,
        excluded_hosts,
        ends_by: ends_within(terms, &record, max_elapsed).map(|(at, _)| at),
        counters: record.counters.clone(),
        resume_from: record.resume_from.to_string(),
        run_retries_left: run::left_after(terms, &record),
    };
    let mut draft = Draft::new(terms, record, Answer::Granted(Box::new(grant)));
    draft.start = start;
    draft.into_plan()
}

/// A pause of a target refuses the start. The step is remembered, with what the call says
/// of it: whoever waits for it, or would claim it, finds it when the pause ends. What was
/// decided about it stands, and so does what it has of limits.
fn put_off(terms: &Terms<'_>, mut record: Record, decision: Decision, now: Now) -> Plan {
    if record.version == 0 {
        record.standing = Some(decision.settled.clone());
    } else if planted!("refused-begin-not-kept") {
        return Plan::Stands(Answer::Refused(Box::new(decision)));
    }
    tick::looked_after(terms, record, Answer::Refused(Box::new(decision)), now).into_plan()
}

fn was_heard(end: &End) -> bool {
    end.outcome != Outcome::Crash
}

/// Nothing starts past a bound: the step is given up instead, or held where the
/// policy leaves what is exhausted to a person. A backoff that it would first
/// sit out is over. A step that was never heard of is not remembered for it.
fn past_bound(terms: &Terms<'_>, mut record: Record, reason: Reason, now: Now) -> Plan {
    let ruling = Spent::now(terms, reason, now);
    let settled = match &terms.policy.on_exhaustion {
        Exhaustion::Hold(hold_terms) if reason == Reason::MaxElapsed => {
            hold(&mut record, hold_terms, Reason::Exhausted, ruling)
        }
        Exhaustion::Hold(_) | Exhaustion::Stop(_) => stop(&mut record, ruling),
    };
    let decision = decision_of(settled.clone(), &record);
    let answer = Answer::Refused(Box::new(decision));
    if record.version == 0 {
        return Plan::Stands(answer);
    }
    record.standing = Some(settled);
    Draft::new(terms, record, answer).into_plan()
}

/// The grant that this call was answered with before, with the lease as it
/// stands: that of an attempt which ended has ended with it, so that nobody
/// takes it for the right to run.
fn grant_again(terms: &Terms<'_>, record: &Record, attempt: &Attempt, now: Now) -> Grant {
    let lease_until = match (&attempt.end, &record.state) {
        (Some(end), _) if !planted!("lease-revived") => end.at,
        (_, State::Running { lease_until }) => *lease_until,
        (_, _) => attempt.began_at.plus(record.lease),
    };
    Grant {
        attempt: attempt.number,
        fence: attempt.fence,
        began_at: attempt.began_at,
        lease_until,
        replayed: true,
        excluded_hosts: excluded_hosts(terms.policy, record, now.at),
        ends_by: ends_by(terms, record).map(|(at, _)| at),
        counters: counters_at(record, attempt),
        resume_from: record.resume_from.to_string(),
        run_retries_left: terms.run.and_then(|run| run.retries_left),
    }
}

/// What had been counted when the attempt was granted.
fn counters_at(record: &Record, attempt: &Attempt) -> Counters {
    let before = || {
        let before = record.attempts.iter().find(|known| known.number + 1 == attempt.number);
        before.and_then(|before| Some(before.end.as_ref()?.settled.counters.clone()))
    };
    let began_with = attempt.began_with.as_deref().cloned().or_else(before);
    Counters { attempts: attempt.number, ..began_with.unwrap_or_default() }
}

fn is_excluded(terms: &Terms<'_>, record: &Record, begin: &Begin, now: Now) -> bool {
    begin.host.as_deref().is_some_and(|host| {
        excluded_hosts(terms.policy, record, now.at)
            .iter()
            .any(|excluded| excluded.hard && excluded.host == host)
    })
}

//! What is answered.
//!
//! Instants are told twice: absolute, and counted from the moment of the
//! answer, since a worker's clock may be wrong and a repeated answer is
//! repeated later than it was first given.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    check::{INSTANT_SECONDS_MAX, SPAN_SECONDS_MAX},
    order,
    policy::{answer_number, class_number},
};
use crate::{
    domain::{
        decision::{
            Constraint, ConstraintKind, Counters, Decision, ExcludedHost, Load, Reason, Settled,
            Verdict,
        },
        id::StepKey,
        labels::Labels,
        namespace::LEASE_MIN,
        plan::{Answer, Grant, ReportStatus, Reported, standing_constraints},
        record::{Attempt, Ending, Evidence, FailureText, Outcome, Record, State},
        time::Timestamp,
    },
    proto::{self, begin_attempt_response},
    service::{Claimed, PolicyStamp, StepView, WaitEnd},
};

/// What every answer is told against.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The store's time of the answer.
    pub at: Timestamp,
    /// The policy in force.
    pub policy: PolicyStamp<'a>,
}

/// The answer to `BeginAttempt`; None when `answer` is not one.
#[must_use]
pub fn begin(answer: Answer, context: Context<'_>) -> Option<proto::BeginAttemptResponse> {
    use begin_attempt_response::Answer as Told;
    let (told, replayed) = match answer {
        Answer::Granted(granted) => {
            let replayed = granted.replayed;
            (Told::Grant(grant(*granted, context)), replayed)
        }
        Answer::Refused(refusal) => (Told::Refusal(decision(*refusal, context)), false),
        Answer::Held { .. }
        | Answer::Lost
        | Answer::Reported(_)
        | Answer::Ordered(_)
        | Answer::Ticked => return None,
    };
    Some(proto::BeginAttemptResponse { answer: Some(told), replayed })
}

/// The answer to `Heartbeat` at the instant `at`; None when `answer` is not one.
#[must_use]
pub fn heartbeat(answer: &Answer, at: Timestamp) -> Option<proto::HeartbeatResponse> {
    match answer {
        Answer::Held { lease_until, cancel } => Some(proto::HeartbeatResponse {
            state: proto::LeaseState::Held as i32,
            lease_until: Some(instant(*lease_until)),
            lease: Some(span(*lease_until - at)),
            cancel_requested: *cancel,
        }),
        Answer::Lost => Some(proto::HeartbeatResponse {
            state: proto::LeaseState::Lost as i32,
            ..proto::HeartbeatResponse::default()
        }),
        Answer::Granted(_)
        | Answer::Refused(_)
        | Answer::Reported(_)
        | Answer::Ordered(_)
        | Answer::Ticked => None,
    }
}

/// The answer to `AwaitDecision`.
#[must_use]
pub fn awaited(
    end: WaitEnd,
    standing: Decision,
    context: Context<'_>,
) -> proto::AwaitDecisionResponse {
    let state = match end {
        WaitEnd::Ready => proto::AwaitState::Ready,
        WaitEnd::Changed => proto::AwaitState::Changed,
        WaitEnd::StillWaiting => proto::AwaitState::Waiting,
    };
    proto::AwaitDecisionResponse {
        state: state as i32,
        decision: Some(decision(standing, context)),
    }
}

/// A step in the answer to `ClaimDue`.
#[must_use]
pub fn claimed(claimed: Claimed) -> proto::ClaimedStep {
    let Claimed { name, record, grant: granted, policy, at } = claimed;
    proto::ClaimedStep {
        run: name.run,
        step: name.step,
        kind: record.kind.to_string(),
        targets: record.targets.iter().map(ToString::to_string).collect(),
        payload: record.payload.into_vec().into(),
        labels: labels(&record.labels),
        grant: Some(grant(granted, Context { at, policy: policy.stamp() })),
    }
}

/// The answer to `ReportAttempt`; None when `answer` is not one.
#[must_use]
pub fn report(answer: Answer, context: Context<'_>) -> Option<proto::ReportAttemptResponse> {
    match answer {
        Answer::Reported(answer) => Some(reported(*answer, context)),
        Answer::Granted(_)
        | Answer::Refused(_)
        | Answer::Held { .. }
        | Answer::Lost
        | Answer::Ordered(_)
        | Answer::Ticked => None,
    }
}

fn reported(reported: Reported, context: Context<'_>) -> proto::ReportAttemptResponse {
    let status = match reported.status {
        ReportStatus::Recorded => proto::ReportStatus::Recorded,
        ReportStatus::Stale => proto::ReportStatus::Stale,
        ReportStatus::Late => proto::ReportStatus::Late,
    };
    proto::ReportAttemptResponse {
        decision: Some(decision(reported.decision, context)),
        attempt: reported.attempt,
        status: status as i32,
        replayed: reported.replayed,
    }
}

fn grant(grant: Grant, context: Context<'_>) -> proto::Grant {
    let lease = grant.lease_until - context.at;
    proto::Grant {
        attempt: grant.attempt,
        fence: grant.fence,
        lease_until: Some(instant(grant.lease_until)),
        lease: Some(span(lease)),
        heartbeat_every: Some(span(heartbeat_every(lease))),
        began_at: Some(instant(grant.began_at)),
        counters: Some(counters(&grant.counters)),
        resume_from: grant.resume_from,
        ends_by: grant.ends_by.map(instant),
        excluded_hosts: grant.excluded_hosts.into_iter().map(excluded_host).collect(),
        policy: Some(policy_reference(context.policy.revision, context.policy)),
        run_retries_left: grant.run_retries_left,
    }
}

/// A third of the lease, so that two heartbeats in a row may be lost.
///
/// Never less than for the shortest lease: a grant that is told again may have
/// next to nothing left, and a worker must not be sent into a busy loop.
fn heartbeat_every(lease: Duration) -> Duration {
    lease.max(LEASE_MIN) / 3
}

/// A decision as it is told.
#[must_use]
pub fn decision(decision: Decision, context: Context<'_>) -> proto::Decision {
    let Decision { settled, constraints, excluded_hosts, resume_from, ends_by, hold_answers } =
        decision;
    let Settled { verdict, reason, rule, revision, counters: counted, decided_at } = settled;
    let (not_before, held_until) = match verdict {
        Verdict::Retry(at) => (Some(at), None),
        Verdict::Wait(until) => (until, None),
        Verdict::Hold(until) => (None, until),
        Verdict::Stop | Verdict::Done => (None, None),
    };
    let hold_answers = match verdict {
        Verdict::Hold(_) => hold_answers.into_iter().map(answer_number).collect(),
        _ => Vec::new(),
    };
    proto::Decision {
        verdict: verdict_number(verdict),
        reason: reason_number(reason),
        explanation: reason.sentence().to_owned(),
        not_before: not_before.map(instant),
        delay: not_before.map(|not_before| span(not_before - context.at)),
        decided_at: Some(instant(decided_at)),
        rule: rule.map(|rule| rule.as_str().to_owned()).unwrap_or_default(),
        policy: Some(policy_reference(revision, context.policy)),
        counters: Some(counters(&counted)),
        constraints: constraints.into_iter().map(constraint).collect(),
        excluded_hosts: excluded_hosts.into_iter().map(excluded_host).collect(),
        resume_from,
        ends_by: ends_by.map(instant),
        hold_answers,
        held_until: held_until.map(instant),
    }
}

/// The policy that a decision of this revision applied.
///
/// A decision remembers no more than the revision. Under another one than the
/// revision in force, the digest is not known any more; nor is the name when
/// one of the two was given inline.
fn policy_reference(revision: u64, in_force: PolicyStamp<'_>) -> proto::PolicyReference {
    let is_in_force = revision == in_force.revision;
    let is_named = revision != 0 && in_force.revision != 0;
    proto::PolicyReference {
        name: if is_in_force || is_named { in_force.name.to_owned() } else { String::new() },
        revision,
        digest: if is_in_force { in_force.digest.to_owned() } else { String::new() },
        built_in: is_in_force && in_force.is_built_in,
    }
}

/// A step as it is shown.
#[must_use]
pub fn step_of(key: StepKey<'_>, view: &StepView) -> proto::Step {
    let context = Context { at: view.at, policy: view.policy.stamp() };
    step(key, &view.record, &view.evidence, view.ends_by, context)
}

/// A step as it is shown. `ends_by` is the bound that its policy sets on it.
#[must_use]
pub fn step(
    key: StepKey<'_>,
    record: &Record,
    evidence: &Evidence,
    ends_by: Option<Timestamp>,
    context: Context<'_>,
) -> proto::Step {
    let (state, next_event_at, purge_at) = step_state(&record.state);
    let orders = record.orders.as_ref();
    proto::Step {
        namespace: key.namespace.to_owned(),
        run: key.run.to_owned(),
        step: key.step.to_owned(),
        state: state as i32,
        counters: Some(counters(&record.counters)),
        attempts: attempts(&record.attempts, evidence, context),
        policy: Some(policy_reference(context.policy.revision, context.policy)),
        next_event_at: next_event_at.map(instant),
        first_began_at: record.first_began_at.map(instant),
        deadline: record.deadline.map(instant),
        kind: record.kind.to_string(),
        targets: record.targets.iter().map(ToString::to_string).collect(),
        queue: record.queue.as_ref().map(ToString::to_string).unwrap_or_default(),
        fence: record.fence,
        resume_from: record.resume_from.to_string(),
        decision: record.decision().map(|settled| standing(record, settled, ends_by, context)),
        read_at: Some(instant(context.at)),
        purge_at: purge_at.map(instant),
        ends_by: ends_by.map(instant),
        orders: orders
            .map(|orders| orders.given.iter().map(order::given).collect())
            .unwrap_or_default(),
        pause: record.paused_at(context.at).map(order::pause_to_proto),
        cancel_requested: record.is_cancel_requested(),
        extra_retries: record.extra_retries(),
        manual_retries: record.manual_retries,
        held_since: match &record.state {
            State::Held(hold) => Some(instant(hold.since)),
            _ => None,
        },
        progress: record.progress,
        labels: labels(&record.labels),
    }
}

fn labels(labels: &Labels) -> BTreeMap<String, String> {
    labels.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Where a step stands.
#[must_use]
pub const fn state_of(state: &State) -> proto::StepState {
    step_state(state).0
}

/// Where a step stands, when something happens next, when it is forgotten.
const fn step_state(state: &State) -> (proto::StepState, Option<Timestamp>, Option<Timestamp>) {
    match state {
        State::Waiting { due } => (proto::StepState::Waiting, Some(*due), None),
        State::Stopping { at, .. } => (proto::StepState::Waiting, Some(*at), None),
        State::Running { lease_until } => (proto::StepState::Running, Some(*lease_until), None),
        State::Held(_) => (proto::StepState::Held, None, None),
        State::Over { ending, purge_at } => {
            let state = match ending {
                Ending::Succeeded => proto::StepState::Succeeded,
                Ending::Failed => proto::StepState::Failed,
                Ending::Skipped => proto::StepState::Skipped,
                Ending::Canceled => proto::StepState::Canceled,
            };
            (state, None, Some(*purge_at))
        }
    }
}

/// The latest decision, with what the record knows beside it.
fn standing(
    record: &Record,
    settled: &Settled,
    ends_by: Option<Timestamp>,
    context: Context<'_>,
) -> proto::Decision {
    let hold_answers = match &record.state {
        State::Held(hold) => hold.answers_left(record.manual_retries),
        _ => Vec::new(),
    };
    let remembered = Decision {
        hold_answers,
        resume_from: record.resume_from.to_string(),
        ends_by,
        constraints: standing_constraints(record),
        ..remembered(settled)
    };
    decision(remembered, context)
}

fn remembered(settled: &Settled) -> Decision {
    Decision {
        settled: settled.clone(),
        constraints: Vec::new(),
        excluded_hosts: Vec::new(),
        resume_from: String::new(),
        ends_by: None,
        hold_answers: Vec::new(),
    }
}

fn attempts(
    attempts: &VecDeque<Attempt>,
    evidence: &Evidence,
    context: Context<'_>,
) -> Vec<proto::Attempt> {
    attempts.iter().map(|attempt| self::attempt(attempt, evidence, context)).collect()
}

fn attempt(attempt: &Attempt, evidence: &Evidence, context: Context<'_>) -> proto::Attempt {
    let text_of = |late| {
        evidence.failures.iter().find(|text| text.attempt == attempt.number && text.late == late)
    };
    let FailureText { message, error_type, cause, worker, .. } =
        text_of(false).cloned().unwrap_or_default();
    let outcome = attempt.end.as_ref().map(|end| end.outcome);
    proto::Attempt {
        number: attempt.number,
        began_at: Some(instant(attempt.began_at)),
        ended_at: attempt.end.as_ref().map(|end| instant(end.at)),
        outcome: outcome.map_or(proto::Outcome::Unspecified, outcome_name) as i32,
        class: outcome.and_then(Outcome::class).map_or(0, class_number),
        exit_code: outcome.and_then(Outcome::exit_code),
        host: attempt.host.as_deref().unwrap_or_default().to_owned(),
        decision: attempt.end.as_ref().map(|end| decision(remembered(&end.settled), context)),
        message,
        error_type,
        worker,
        cause,
        late_message: text_of(true).map(|text| text.message.clone()).unwrap_or_default(),
    }
}

const fn outcome_name(outcome: Outcome) -> proto::Outcome {
    match outcome {
        Outcome::Success => proto::Outcome::Success,
        Outcome::Failure { .. } => proto::Outcome::Failure,
        Outcome::Crash => proto::Outcome::Crash,
    }
}

/// Counters as they are told.
#[must_use]
pub fn counters(counters: &Counters) -> proto::Counters {
    proto::Counters {
        attempts: counters.attempts,
        retries: counters.retries,
        retries_by_rule: counters
            .by_rule
            .iter()
            .map(|(rule, count)| (rule.as_str().to_owned(), *count))
            .collect(),
        uncounted: counters.uncounted,
        crashes: counters.crashes,
        forgiven: counters.forgiven,
    }
}

/// A constraint as it is told.
#[must_use]
pub fn constraint(constraint: Constraint) -> proto::Constraint {
    let kind = match constraint.kind {
        ConstraintKind::Backoff => proto::ConstraintKind::Backoff,
        ConstraintKind::Pushback => proto::ConstraintKind::Pushback,
        ConstraintKind::Wish => proto::ConstraintKind::Wish,
        ConstraintKind::Lease => proto::ConstraintKind::Lease,
        ConstraintKind::Rate => proto::ConstraintKind::Rate,
        ConstraintKind::Concurrency => proto::ConstraintKind::Concurrency,
        ConstraintKind::Budget => proto::ConstraintKind::Budget,
        ConstraintKind::Cooldown => proto::ConstraintKind::Cooldown,
        ConstraintKind::Pause => proto::ConstraintKind::Pause,
        ConstraintKind::Breaker => proto::ConstraintKind::Breaker,
        ConstraintKind::Ramp => proto::ConstraintKind::Ramp,
        ConstraintKind::Host => proto::ConstraintKind::Host,
        ConstraintKind::Ticket => proto::ConstraintKind::Ticket,
        ConstraintKind::Forced => proto::ConstraintKind::Forced,
        ConstraintKind::Observed => proto::ConstraintKind::Observed,
    };
    let Load { used, limit, revision } = constraint.load.unwrap_or_default();
    proto::Constraint {
        kind: kind as i32,
        key: constraint.key,
        earliest: Some(instant(constraint.earliest)),
        firm: constraint.firm,
        binding: constraint.binding,
        used,
        limit,
        revision,
    }
}

fn excluded_host(excluded: ExcludedHost) -> proto::ExcludedHost {
    proto::ExcludedHost { host: excluded.host, hard: excluded.hard }
}

const fn verdict_number(verdict: Verdict) -> i32 {
    let verdict = match verdict {
        Verdict::Retry(_) => proto::Verdict::Retry,
        Verdict::Wait(_) => proto::Verdict::Wait,
        Verdict::Stop => proto::Verdict::Stop,
        Verdict::Hold(_) => proto::Verdict::Hold,
        Verdict::Done => proto::Verdict::Done,
    };
    verdict as i32
}

/// A reason as it is told.
#[must_use]
pub const fn reason_number(reason: Reason) -> i32 {
    let reason = match reason {
        Reason::Backoff => proto::Reason::Backoff,
        Reason::Pushback => proto::Reason::Pushback,
        Reason::Wish => proto::Reason::Wish,
        Reason::Crashed => proto::Reason::Crashed,
        Reason::Answered => proto::Reason::Answered,
        Reason::Ordered => proto::Reason::Ordered,
        Reason::Unstarted => proto::Reason::Unstarted,
        Reason::GivenUp => proto::Reason::GivenUp,
        Reason::Outage => proto::Reason::Outage,
        Reason::NotDue => proto::Reason::NotDue,
        Reason::InProgress => proto::Reason::InProgress,
        Reason::Stopping => proto::Reason::Stopping,
        Reason::ExcludedHost => proto::Reason::ExcludedHost,
        Reason::Limited => proto::Reason::Limited,
        Reason::InLine => proto::Reason::InLine,
        Reason::Paused => proto::Reason::Paused,
        Reason::BreakerOpen => proto::Reason::BreakerOpen,
        Reason::BudgetSpent => proto::Reason::BudgetSpent,
        Reason::RetriesSpent => proto::Reason::RetriesSpent,
        Reason::Rule => proto::Reason::Rule,
        Reason::NotRetryable => proto::Reason::NotRetryable,
        Reason::PushbackNever => proto::Reason::PushbackNever,
        Reason::MaxElapsed => proto::Reason::MaxElapsed,
        Reason::Deadline => proto::Reason::Deadline,
        Reason::Ceiling => proto::Reason::Ceiling,
        Reason::StepKind => proto::Reason::StepKind,
        Reason::CrashesSpent => proto::Reason::CrashesSpent,
        Reason::UncountedSpent => proto::Reason::UncountedSpent,
        Reason::ScheduleEnded => proto::Reason::ScheduleEnded,
        Reason::Canceled => proto::Reason::Canceled,
        Reason::Abandoned => proto::Reason::Abandoned,
        Reason::RunOver => proto::Reason::RunOver,
        Reason::RunSuperseded => proto::Reason::RunSuperseded,
        Reason::RunRetriesSpent => proto::Reason::RunRetriesSpent,
        Reason::StepFailed => proto::Reason::StepFailed,
        Reason::Exhausted => proto::Reason::Exhausted,
        Reason::HeldByRule => proto::Reason::HeldByRule,
        Reason::Succeeded => proto::Reason::Succeeded,
        Reason::Skipped => proto::Reason::Skipped,
    };
    reason as i32
}

/// An instant as it is told; later than the contract can say is its last one.
#[must_use]
pub fn instant(instant: Timestamp) -> prost_types::Timestamp {
    let micros = instant.as_micros();
    let nanos = (micros % 1_000_000) as i32 * 1000;
    match i64::try_from(micros / 1_000_000) {
        Ok(seconds) if seconds <= INSTANT_SECONDS_MAX => prost_types::Timestamp { seconds, nanos },
        _ => prost_types::Timestamp { seconds: INSTANT_SECONDS_MAX, nanos: 999_999_999 },
    }
}

/// A length of time as it is told; longer than the contract can say is its
/// longest one.
#[must_use]
pub fn span(span: Duration) -> prost_types::Duration {
    match i64::try_from(span.as_secs()) {
        Ok(seconds) if seconds <= SPAN_SECONDS_MAX => {
            #[expect(clippy::cast_possible_wrap, reason = "less than a billion nanoseconds")]
            let nanos = span.subsec_nanos() as i32;
            prost_types::Duration { seconds, nanos }
        }
        _ => prost_types::Duration { seconds: SPAN_SECONDS_MAX, nanos: 999_999_999 },
    }
}

/// The answer to one report of a batch.
#[must_use]
pub fn batch_result(
    run: String,
    step: String,
    answer: Result<proto::ReportAttemptResponse, tonic::Status>,
) -> proto::BatchReportResult {
    use proto::batch_report_result::Result as Told;
    let result = match answer {
        Ok(response) => Told::Response(response),
        Err(status) => Told::Error(crate::grpc::status::to_item(&status)),
    };
    proto::BatchReportResult { run, step, result: Some(result) }
}

//! What a draft wants of the step's targets, and what becomes of it when they
//! refuse a start.

use std::time::Duration;

use super::{
    Answer, Draft, Now, Plan, ReportStatus, Spent, Terms, decision_of, excluded_hosts, has_order,
    hold, is_ordered, order, outage, stop,
};
use crate::domain::{
    decision::{
        Constraint, ConstraintKind, Counter, Decision, ExcludedHost, Load, Reason, Settled, Verdict,
    },
    event::Event,
    failure::{Failure, FailureClass},
    id::StepKey,
    limit::{
        Admission, Admitted, Asks, Bound, Comes, Finding, GRACE_MAX, Limit, Promise, Want,
        ask::{AttemptEnd, COST},
        book::kept,
        breaker::{TargetOutcome, mark_of},
        pause::{Interval, time_in},
    },
    policy::Exhaustion,
    record::{Attempt, Claims, Outcome, Record, State, Ticket},
    time::Timestamp,
};

/// The start of an attempt, which limits may refuse.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Start {
    /// The step as it stays when they do.
    waiting: Record,
    /// The latest start that is of use, and what bounds it.
    latest: Option<(Timestamp, Reason)>,
    /// What happens when it cannot be granted in time.
    on_exhaustion: Exhaustion,
    excluded_hosts: Vec<ExcludedHost>,
    revision: u64,
    at: Timestamp,
}

impl Start {
    /// None where no target bounds the step, which is as good as always.
    pub(super) fn of(
        terms: &Terms<'_>,
        waiting: &Record,
        latest: Option<(Timestamp, Reason)>,
        now: Now,
    ) -> Option<Box<Self>> {
        (!terms.bounds.is_empty()).then(|| {
            Box::new(Self {
                waiting: waiting.clone(),
                latest,
                on_exhaustion: terms.policy.on_exhaustion.clone(),
                excluded_hosts: excluded_hosts(terms.policy, waiting, now.at),
                revision: terms.revision,
                at: now.at,
            })
        })
    }
}

/// What a record had of limits before an event.
pub(super) struct Before {
    claims: Option<Box<Claims>>,
    due: Timestamp,
    is_running: bool,
    /// What its latest attempt failed with.
    failed: Option<FailureClass>,
    /// Whether that belongs to an outage.
    is_forgiven: bool,
    attempts: u32,
    began_at: Timestamp,
}

impl Before {
    /// None where neither the step ever met limits nor a target bounds it.
    pub(super) fn of(terms: &Terms<'_>, record: Option<&Record>) -> Option<Self> {
        let claims = record.and_then(|record| record.claims.clone());
        if terms.bounds.is_empty() && claims.is_none() {
            return None;
        }
        let state = record.map(|record| &record.state);
        let outcome =
            record.and_then(Record::latest).and_then(|attempt: &Attempt| attempt.end.as_ref());
        Some(Self {
            claims,
            due: match state {
                Some(State::Waiting { due }) => *due,
                _ => Timestamp::EPOCH,
            },
            is_running: matches!(state, Some(State::Running { .. })),
            failed: outcome.and_then(|end| Outcome::class(end.outcome)),
            is_forgiven: outcome.is_some_and(|end| end.counted == Some(Counter::Forgiven)),
            began_at: record
                .and_then(Record::latest)
                .map_or(Timestamp::EPOCH, |latest| latest.began_at),
            attempts: record.map_or(0, |record| record.counters.attempts),
        })
    }

    /// What the next start costs a retry budget; None for a first attempt.
    pub(super) fn cost(&self) -> Option<u32> {
        (self.attempts > 0).then_some(match self.failed {
            _ if self.is_forgiven => 0,
            Some(FailureClass::Timeout) if !planted!("timeout-costs-one") => 2 * COST,
            Some(FailureClass::Throttled) => COST / 2,
            _ => COST,
        })
    }
}

/// Adds to a plan what it wants of the step's targets.
pub(super) fn ask(
    plan: &mut Plan,
    before: Before,
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    event: &Event,
    now: Now,
) {
    let Plan::Write(draft) = plan else { return };
    let keeps = match event {
        Event::Wake => true,
        Event::Begin(_) => is_put_off(draft),
        Event::Order(order) => order::keeps_claims(order, &draft.record),
        _ => stands(draft),
    };
    if !keeps {
        draft.asks = asks(draft, before, terms, key, event, now).map(Box::new);
    }
}

/// What a draft wants; None where neither a target bounds the step nor it has anything
/// to give back.
fn asks(
    draft: &Draft,
    mut before: Before,
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    event: &Event,
    now: Now,
) -> Option<Asks> {
    let Claims { since, tickets, held } =
        before.claims.take().map(|claims| *claims).unwrap_or_default();
    if terms.bounds.is_empty() && tickets.is_empty() && held.is_empty() {
        return None;
    }
    let failure = match event {
        Event::Report(report) => report.failure.as_ref(),
        _ => None,
    };
    let is_implicit = matches!(event, Event::Report(_))
        && !before.is_running
        && draft.record.counters.attempts > before.attempts;
    // What was promised to a worker that starts without coming back is used.
    let is_used = is_implicit && before.due <= now.at;
    let has_ended = before.is_running || is_implicit;
    let ended = has_ended.then(|| attempt_end(terms, key, draft, failure, before.began_at, now));
    let (want, latest) = want(draft, &before, since, event, now);
    let latest_host = draft.record.latest().and_then(|attempt| attempt.host.as_deref());
    let member: Box<str> = key.joined().into();
    Some(Asks {
        step: mark_of(&member),
        member,
        bounds: terms.bounds.to_vec(),
        want,
        held,
        tickets: if is_used { Vec::new() } else { promises(terms, tickets) },
        promised: before.due,
        cool: failure.and_then(|failure| cooled(terms, key, failure, now)),
        counted: is_implicit.then_some(before.cost()),
        ended: ended.flatten(),
        host: latest_host.map_or(0, host_mark),
        latest: latest.map(|(latest, _)| latest),
        draw: super::Draw::of(terms.salt, key, draft.record.counters.attempts).of_two_bytes(),
    })
}

/// What a draft wants of targets for a step that has waited since an instant, and the
/// latest start that is of use.
fn want(
    draft: &Draft,
    before: &Before,
    since: Option<Timestamp>,
    event: &Event,
    now: Now,
) -> (Want, Option<(Timestamp, Reason)>) {
    let (waited, since) = (since.is_some(), since.unwrap_or(now.at));
    let reserve = |from, other, is_first| Want::Reserve { from, other, is_first, since, waited };
    let comes = match event {
        Event::Begin(begin) => begin.comes,
        _ => Comes::ByItself,
    };
    match (&draft.answer, &draft.retry, &draft.start) {
        (Answer::Granted(grant), _, Some(start)) => {
            let lease_until = grant.lease_until;
            (Want::Start { cost: before.cost(), lease_until, since, comes }, start.latest)
        }
        (_, Some(retry), _) => (reserve(retry.earliest, retry.other, false), retry.latest),
        (Answer::Ticked, None, Some(start)) => {
            (reserve(now.at, None, before.attempts == 0), start.latest)
        }
        (Answer::Held { lease_until, .. }, ..) => (Want::Keep { lease_until: *lease_until }, None),
        _ => (Want::Nothing, None),
    }
}

/// The promises, as they hold under the limits that are in force.
fn promises(terms: &Terms<'_>, tickets: Vec<Ticket>) -> Vec<Promise> {
    let promise = |Ticket { state, revision, grace, mark }| {
        let bound = terms.bounds.iter().find(|bound| bound.state == state)?;
        let allowed = bound.target.rate.map_or(GRACE_MAX, |rate| rate.grace());
        let is_current = bound.revision == revision;
        let is_paced = bound.is_paced() && bound.episodes.mark == mark;
        Some(Promise { state, grace: grace.min(allowed), is_current, is_paced })
    };
    tickets.into_iter().filter_map(promise).collect()
}

/// What the end of an attempt says of its targets.
fn attempt_end(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    draft: &Draft,
    failure: Option<&Failure>,
    began_at: Timestamp,
    now: Now,
) -> Option<AttemptEnd> {
    if terms.bounds.iter().all(|bound| bound.target.breaker.is_none()) {
        return None;
    }
    let attempt = draft.record.latest()?;
    let at_fault = failure.and_then(|failure| outage::at_fault(terms, key, failure));
    let outcome = match attempt.end.as_ref()?.outcome {
        Outcome::Success => TargetOutcome::Served,
        Outcome::Failure { .. } if at_fault.is_some() => TargetOutcome::Failed,
        Outcome::Failure { .. } | Outcome::Crash => TargetOutcome::Nothing,
    };
    let host = attempt.host.as_deref().map_or(0, host_mark);
    let at_fault = at_fault.map(|bound| bound.state.clone());
    Some(AttemptEnd { host, took: now.at - began_at, outcome, at_fault })
}

/// A host as evidence tells it from others.
fn host_mark(host: &str) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half tells hosts apart")]
    let mark = mark_of(host) as u16;
    mark.max(1)
}

/// Whether the decision stands: a failure that was told after the lease had ended
/// changes no more than what is known of it, so what was promised stays promised.
fn stands(draft: &Draft) -> bool {
    let is_late = matches!(&draft.answer, Answer::Reported(reported) if reported.status == ReportStatus::Late);
    is_late && matches!(draft.record.state, State::Waiting { .. })
}

/// Whether a pause of a target has refused the start.
fn is_put_off(draft: &Draft) -> bool {
    matches!(&draft.answer, Answer::Refused(told) if told.settled.reason == Reason::Paused)
}

/// The state that a target's own word has everybody wait at, and until when: the
/// target that the failure names, or the only one.
fn cooled(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    failure: &Failure,
    now: Now,
) -> Option<(Box<str>, Timestamp)> {
    let wait = super::decide::asked_wait(terms.policy, failure.pushback?, now.at)?;
    let bound = if failure.target.is_empty() {
        outage::only_target(terms)?
    } else {
        terms.bounds.iter().find(|bound| bound.is_of(&failure.target, key.run))?
    };
    Some((bound.state.clone(), now.at.plus(wait)))
}

/// Whether a pause of a target may refuse the start that an event asks for.
pub(super) fn may_put_off(terms: &Terms<'_>, event: &Event) -> bool {
    matches!(event, Event::Begin(_)) && terms.bounds.iter().any(|bound| bound.pause.is_some())
}

/// A start that an operator's pause refuses.
pub(super) fn paused(terms: &Terms<'_>, record: &Record, now: Now) -> Option<Decision> {
    let is_paused = |bound: &&Bound| bound.pause.is_some() && !planted!("pause-not-heeded");
    let bound = terms.bounds.iter().find(is_paused)?;
    let until = bound.pause.as_ref().and_then(|pause| pause.until);
    let mut decision = super::wait(terms, record, now, until, Reason::Paused);
    decision.constraints = vec![Constraint {
        kind: ConstraintKind::Pause,
        key: bound.state.to_string(),
        earliest: until.unwrap_or(Timestamp::NEVER),
        firm: false,
        binding: true,
        load: None,
    }];
    Some(decision)
}

/// How much of the time since an instant pauses of its targets have kept a step waiting.
pub(super) fn time_paused(terms: &Terms<'_>, since: Timestamp, now: Now) -> Duration {
    let mut spans = Vec::new();
    for bound in terms.bounds.iter().filter(|_| !planted!("pause-is-waiting")) {
        let lasting = bound.pause.as_ref().map(|pause| pause.since);
        spans.extend(bound.stood.iter());
        spans.extend(lasting.map(|since| Interval { since, until: now.at }));
    }
    time_in(spans, since)
}

/// Settles the start of an attempt: granted as drafted, or the step waits on.
pub(super) fn settle_start(draft: &mut Draft, start: Start, admitted: &Admitted) {
    if admitted.admission == Admission::Now {
        return;
    }
    let Start { mut waiting, latest, on_exhaustion, excluded_hosts, revision, at } = start;
    waiting.version = draft.record.version;
    let spent = |reason| Spent {
        reason,
        rule: None,
        decided_at: at,
        revision,
        retention: draft.retention,
        would_start: at,
    };
    let wait = |record: &mut Record, until, reason| {
        record.state = State::Waiting { due: until };
        spent(reason).settled(Verdict::Wait(Some(until)), record)
    };
    let settled: Settled = match admitted.admission {
        Admission::At(until) | Admission::Later(until) => {
            wait(&mut waiting, until, Reason::Limited)
        }
        Admission::InLine(until) => wait(&mut waiting, until, Reason::InLine),
        Admission::Parked(until) => wait(&mut waiting, until, Reason::BreakerOpen),
        Admission::OtherHost => spent(Reason::ExcludedHost).settled(Verdict::Wait(None), &waiting),
        Admission::Spent => stop(&mut waiting, spent(Reason::BudgetSpent)),
        Admission::Now | Admission::TooLate => {
            let reason = latest.map_or(Reason::Deadline, |(_, reason)| reason);
            match &on_exhaustion {
                Exhaustion::Hold(terms) if reason == Reason::MaxElapsed => {
                    hold(&mut waiting, terms, Reason::Exhausted, spent(reason))
                }
                Exhaustion::Hold(_) | Exhaustion::Stop(_) => stop(&mut waiting, spent(reason)),
            }
        }
    };
    let is_wait = matches!(settled.verdict, Verdict::Wait(_));
    // What a hold was answered with stands until its attempt begins.
    let is_of_host = admitted.admission == Admission::OtherHost;
    if !(is_of_host || is_wait && is_ordered(&waiting) && !has_order(&waiting)) {
        waiting.standing = Some(settled.clone());
    }
    let decision = Decision {
        constraints: constraints(&admitted.findings, settled.verdict),
        excluded_hosts,
        ends_by: latest.map(|(at, _)| at),
        ..decision_of(settled, &waiting)
    };
    draft.answer = Answer::Refused(Box::new(decision));
    draft.record = waiting;
}

/// What the step has of limits from now on.
pub(super) fn claims(draft: &mut Draft, admission: Admission) {
    let Some(asks) = &draft.asks else { return };
    let states = |bounds: &mut dyn Iterator<Item = &Bound>| {
        bounds.map(|bound| bound.state.clone()).collect::<Vec<Box<str>>>()
    };
    let tickets = |is_retry| {
        let ticket = |bound: &Bound| {
            let rate = bound.target.rate.filter(|rate| rate.counts(is_retry));
            let is_bound = rate.is_some() || bound.is_paced();
            is_bound.then(|| Ticket {
                state: bound.state.clone(),
                // What no rate has counted is never given back to one.
                revision: rate.map_or(0, |_| bound.revision),
                grace: rate.map_or(GRACE_MAX, |rate| rate.grace()),
                mark: bound.episodes.mark,
            })
        };
        asks.bounds.iter().filter_map(ticket).collect()
    };
    let claims = match (asks.want, admission) {
        (Want::Keep { .. }, _) => Claims { held: kept(asks), ..Claims::default() },
        (Want::Start { .. }, Admission::Now) => {
            Claims { held: states(&mut asks.pools()), ..Claims::default() }
        }
        (Want::Start { since, .. }, Admission::InLine(_)) => {
            Claims { since: Some(since), held: states(&mut asks.pools()), ..Claims::default() }
        }
        (Want::Start { since, .. }, Admission::At(_)) => {
            Claims { since: Some(since), tickets: tickets(asks.is_retry()), ..Claims::default() }
        }
        (Want::Start { since, .. }, Admission::Later(_) | Admission::OtherHost) => {
            Claims { since: Some(since), ..Claims::default() }
        }
        (Want::Start { since, .. } | Want::Reserve { since, .. }, Admission::Parked(_)) => {
            Claims { since: Some(since), held: states(&mut asks.breakers()), ..Claims::default() }
        }
        (Want::Reserve { since, waited, .. }, Admission::At(_)) => Claims {
            since: waited.then_some(since),
            tickets: tickets(asks.is_retry()),
            ..Claims::default()
        },
        // Nobody came while it stood in line: the place is lost, the seniority not.
        (Want::Nothing, _) if matches!(draft.record.state, State::Waiting { .. }) => Claims {
            since: draft.record.claims.as_ref().and_then(|claims| claims.since),
            ..Claims::default()
        },
        _ => Claims::default(),
    };
    draft.record.claims = Some(Box::new(claims));
}

/// What a step that waits has of limits, for who looks at it later: what they
/// had to say when it was decided is not kept.
#[must_use]
pub fn standing_constraints(record: &Record) -> Vec<Constraint> {
    let (State::Waiting { due }, Some(claims)) = (&record.state, &record.claims) else {
        return Vec::new();
    };
    let reason = record.decision().map(|settled| settled.reason);
    let binds = matches!(reason, Some(Reason::Limited | Reason::InLine | Reason::BreakerOpen));
    let place = match reason {
        Some(Reason::BreakerOpen) => ConstraintKind::Breaker,
        _ => ConstraintKind::Concurrency,
    };
    let constraint = |kind, state: &str| Constraint {
        kind,
        key: state.to_owned(),
        earliest: *due,
        firm: kind == ConstraintKind::Rate,
        binding: binds,
        load: None,
    };
    let promised =
        claims.tickets.iter().map(|ticket| constraint(ConstraintKind::Rate, &ticket.state));
    let lines = claims.held.iter().map(|state| constraint(place, state));
    promised.chain(lines).collect()
}

/// The refusal that a step waits under, again.
pub(super) fn refused_before(terms: &Terms<'_>, record: &Record, now: Now) -> Option<Decision> {
    let settled = record.decision()?;
    let is_refusal =
        matches!(settled.reason, Reason::Limited | Reason::InLine | Reason::BreakerOpen);
    is_refusal.then(|| Decision {
        constraints: standing_constraints(record),
        ends_by: super::ends_by(terms, record).map(|(at, _)| at),
        ..super::standing(terms, record, now)
    })
}

/// What limits had to say, as constraints.
pub(super) fn constraints(findings: &[Finding], verdict: Verdict) -> Vec<Constraint> {
    let bound = match verdict {
        Verdict::Retry(at) | Verdict::Wait(Some(at)) => at,
        _ => Timestamp::NEVER,
    };
    let constraint = |finding: &Finding| {
        let kind = match finding.limit {
            Limit::Rate => ConstraintKind::Rate,
            Limit::Concurrency => ConstraintKind::Concurrency,
            Limit::Budget => ConstraintKind::Budget,
            Limit::Cooldown => ConstraintKind::Cooldown,
            Limit::Breaker => ConstraintKind::Breaker,
            Limit::Ramp => ConstraintKind::Ramp,
            Limit::Host => ConstraintKind::Host,
            Limit::Forced => ConstraintKind::Forced,
            Limit::Observed => ConstraintKind::Observed,
        };
        let is_counted = matches!(finding.limit, Limit::Rate | Limit::Concurrency | Limit::Budget);
        Constraint {
            kind,
            key: finding.state.to_string(),
            earliest: finding.earliest,
            firm: matches!(finding.limit, Limit::Rate | Limit::Cooldown | Limit::Ramp),
            binding: finding.earliest == bound && finding.limit != Limit::Observed,
            load: is_counted.then_some(Load {
                used: finding.used,
                limit: finding.most,
                revision: finding.revision,
            }),
        }
    };
    findings.iter().map(constraint).collect()
}

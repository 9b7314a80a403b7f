//! The rule itself: an attempt has failed; what follows?

use std::time::Duration;

use super::{
    Answer, Draft, Now, Pending, Spent, Terms, conclude, decision_of, end, ends_by, hold, outage,
    report, run, spent, stop, stop_later,
};
use crate::domain::{
    backoff::{Backoff, Window},
    condition::{ConditionScope, FailureView, StepView},
    decision::{Constraint, ConstraintKind, Counter, Decision, ExcludedHost, Reason, Verdict},
    draw::Draw,
    failure::{Code, Executed, Failure, FailureClass, Pushback, Wish},
    id::StepKey,
    limit::Bound,
    policy::{
        Action, HoldTerms, Policy, Rule, RuleName, StopTiming,
        spec::{AntiAffinityMode, Quirk},
    },
    record::{Attempt, End, Ending, Identity, Outcome, Record, State},
    time::Timestamp,
};

/// An attempt that has failed.
pub(super) struct Failed<'a> {
    pub failure: &'a Failure,
    pub outcome: Outcome,
    pub reported_by: Option<Identity>,
    /// The target at fault: see [`End::fault`].
    pub fault: u16,
}

/// What the policy says about a failure.
enum Ruling {
    /// Granted by the policy; limits still have their say.
    Retry(Pending),
    /// Given up now.
    Stop(Reason),
    /// Retries are spent: the policy's `on_exhaustion` follows.
    Spent(Reason, Timestamp),
    /// Given up when the backoff would have ended.
    StopLater(Reason, Timestamp),
    /// A person decides.
    Hold(HoldTerms),
    /// Gone on without it.
    Skip,
    /// Its attempt was asked to stop.
    Cancel,
}

/// Ends the latest attempt as failed and drafts what follows.
pub(super) fn fail(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    mut record: Record,
    failed: &Failed<'_>,
    now: Now,
    answer: impl FnOnce(Decision) -> Answer,
) -> Draft {
    let ran = failed.failure.duration.unwrap_or_else(|| {
        record.latest().map_or(Duration::ZERO, |attempt| now.at - attempt.began_at)
    });
    let is_healthy = terms.policy.reset_after.is_some_and(|healthy| ran >= healthy);
    if is_healthy || terms.policy.reset_on_progress && record.has_moved {
        record.counters.reset();
        record.last_delay = Duration::ZERO;
    }
    record_outcome(terms, &mut record, failed, now.at);
    // A worker that vanished said nothing about where to resume: what was told
    // before still holds.
    if failed.outcome != Outcome::Crash {
        record.resume_from = failed.failure.action.as_str().into();
    }

    if record.is_cancel_requested() {
        return conclude_ruling(terms, record, Ruling::Cancel, None, now, answer);
    }
    let rule = matching_rule(terms, key, &record, failed.failure, ran, now.at);
    let name = rule.map(|rule| rule.name.clone());
    let failure = failed.failure;
    let is_outage = outage::covers(terms, failed.fault, now.at);
    let ruling = decide(terms, key, &record, failure, rule, is_outage, now.at);
    conclude_ruling(terms, record, ruling, name, now, answer)
}

/// Ends an attempt that was claimed and of which nothing was ever heard: any worker
/// may claim the step again, and no retry is counted.
pub(super) fn give_back(
    terms: &Terms<'_>,
    mut record: Record,
    failed: &Failed<'_>,
    now: Now,
) -> Draft {
    record_outcome(terms, &mut record, failed, now.at);
    record.silent_claims += 1;
    record.state = State::Waiting { due: now.at };
    let settled = Spent::now(terms, Reason::Crashed, now).settled(Verdict::Retry(now.at), &record);
    conclude(&mut record, settled, None);
    Draft::new(terms, record, Answer::Ticked)
}

/// Writes down a ruling. All but a retry, which waits for limits, is final.
fn conclude_ruling(
    terms: &Terms<'_>,
    mut record: Record,
    ruling: Ruling,
    rule: Option<RuleName>,
    now: Now,
    answer: impl FnOnce(Decision) -> Answer,
) -> Draft {
    let make = |reason, would_start| Spent {
        reason,
        rule: rule.clone(),
        decided_at: now.at,
        revision: terms.revision,
        retention: terms.settings.retention,
        would_start,
    };
    let settled = match ruling {
        Ruling::Retry(mut pending) => {
            pending.rule = rule;
            let excluded_hosts = excluded_hosts(terms.policy, &record, now.at);
            let undecided = Decision {
                excluded_hosts,
                ..decision_of(report::undecided(terms, &record.counters, now.at), &record)
            };
            let mut draft = Draft::new(terms, record, answer(undecided));
            draft.retry = Some(pending);
            return draft;
        }
        Ruling::Stop(reason) => stop(&mut record, make(reason, now.at)),
        Ruling::Spent(reason, would_start) => {
            spent(&mut record, &terms.policy.on_exhaustion, make(reason, would_start))
        }
        Ruling::StopLater(reason, at) => stop_later(&mut record, make(reason, at)),
        Ruling::Hold(hold_terms) => {
            hold(&mut record, &hold_terms, Reason::HeldByRule, make(Reason::Rule, now.at))
        }
        Ruling::Skip => {
            end(&mut record, Ending::Skipped, Verdict::Done, make(Reason::Skipped, now.at))
        }
        Ruling::Cancel => {
            end(&mut record, Ending::Canceled, Verdict::Stop, make(Reason::Canceled, now.at))
        }
    };
    conclude(&mut record, settled.clone(), None);
    let decision = decision_of(settled, &record);
    Draft::new(terms, record, answer(decision))
}

/// The rule of retrying, in the order of precedence: the worker's own "never",
/// then the policy's rules, then what the worker wishes, then the defaults.
fn decide(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    record: &Record,
    failure: &Failure,
    rule: Option<&Rule>,
    is_outage: bool,
    at: Timestamp,
) -> Ruling {
    if !failure.retryable {
        return Ruling::Stop(Reason::NotRetryable);
    }
    if failure.pushback == Some(Pushback::Never) {
        return Ruling::Stop(Reason::PushbackNever);
    }
    if run::is_over(terms) {
        return Ruling::Stop(Reason::RunOver);
    }
    if failure.of_step && terms.policy.run.ignore_step_failures {
        return Ruling::Stop(Reason::StepFailed);
    }
    if terms.policy.never_retry_kinds.iter().any(|kind| **kind == *record.kind) {
        return Ruling::Stop(Reason::StepKind);
    }
    if let Some(ruling) = bound_first(terms, key, record, failure, at) {
        return ruling;
    }
    match rule.map(|rule| &rule.action) {
        Some(Action::Stop(StopTiming::AtOnce)) => return Ruling::Stop(Reason::Rule),
        Some(Action::Hold(terms)) => return Ruling::Hold(terms.clone()),
        Some(Action::Skip) => return Ruling::Skip,
        None if failure.class == FailureClass::Canceled => return Ruling::Stop(Reason::Canceled),
        _ => {}
    }
    let extra = record.extra_retries();
    let mut allowance =
        Allowance::of(terms.policy, failure, rule).extended(extra).waited(terms.policy);
    let stops_later = matches!(rule.map(|rule| &rule.action), Some(Action::Stop(_)));
    if is_outage {
        allowance = allowance.forgiven();
    } else if !stops_later && is_unstarted(record, failure) {
        allowance = allowance.unstarted();
    }
    let used = record.counters.on(&allowance.counter);
    // Rate and ramp pace what belongs to an outage, so its backoff does not grow.
    let grown = if is_outage { 0 } else { used };
    let wait = Wait::of(terms, key, record, failure, &allowance, grown, at);
    if stops_later {
        return Ruling::StopLater(Reason::Rule, wait.map_or(at, |wait| wait.earliest));
    }
    if run::retries_spent(terms) {
        return Ruling::Spent(Reason::RunRetriesSpent, wait.map_or(at, |wait| wait.earliest));
    }
    if allowance.retries_max.is_some_and(|max| used >= max) {
        return Ruling::Spent(allowance.when_spent, wait.map_or(at, |wait| wait.earliest));
    }
    if record.counters.total() >= terms.settings.max_retries_ceiling {
        return Ruling::Stop(Reason::Ceiling);
    }
    let Some(wait) = wait else {
        return Ruling::Spent(Reason::ScheduleEnded, at);
    };
    let latest = ends_by(terms, record);
    let in_time =
        |at: &Timestamp| latest.is_none_or(|(latest, _)| wait.earliest.max(*at) <= latest);
    Ruling::Retry(Pending {
        earliest: wait.earliest,
        other: wait.other.filter(in_time),
        latest,
        counter: allowance.counter,
        reason: wait.reason,
        rule: None,
        on_exhaustion: terms.policy.on_exhaustion.clone(),
        constraints: wait.constraints,
        window: wait.window,
    })
}

/// The bound that ends the step before any rule is asked, where the policy
/// keeps [`Quirk::BoundsFirst`].
fn bound_first(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    record: &Record,
    failure: &Failure,
    at: Timestamp,
) -> Option<Ruling> {
    if !terms.policy.keeps(Quirk::BoundsFirst) || failure.class == FailureClass::Canceled {
        return None;
    }
    if record.deadline.is_some_and(|deadline| deadline < at) {
        return Some(Ruling::Stop(Reason::Deadline));
    }
    let latest = record.first_began_at?.plus(record.held_for).plus(terms.policy.max_elapsed?);
    let backoff = Allowance { wish: None, ..Allowance::of(terms.policy, failure, None) };
    let wait = Wait::of(terms, key, record, failure, &backoff, record.counters.retries, at)?;
    (wait.earliest > latest).then_some(Ruling::Spent(Reason::MaxElapsed, wait.earliest))
}

/// How many retries a failure may have, on which counter, with which backoff.
struct Allowance<'a> {
    counter: Counter,
    retries_max: Option<u32>,
    backoff: &'a Backoff,
    /// The worker's exact wait, when no rule's backoff comes before it.
    wish: Option<Duration>,
    /// Why the step stops when the allowance is used up.
    when_spent: Reason,
}

impl<'a> Allowance<'a> {
    fn of(policy: &'a Policy, failure: &Failure, rule: Option<&'a Rule>) -> Self {
        let wish = failure.wish.unwrap_or(Wish { max_retries: None, delay: None });
        let shared_max = wish.max_retries.or(policy.max_retries);
        let (counter, retries_max, own_backoff, when_spent) = match rule
            .map(|rule| (&rule.name, &rule.action))
        {
            Some((name, Action::Retry { max_retries: Some(max), backoff })) => {
                (Counter::Rule(name.clone()), Some(*max), backoff.as_ref(), Reason::RetriesSpent)
            }
            Some((_, Action::Retry { max_retries: None, backoff })) => {
                (Counter::Retries, shared_max, backoff.as_ref(), Reason::RetriesSpent)
            }
            Some((name, Action::RetryUncounted { max_retries, backoff })) => (
                Counter::Uncounted(name.clone()),
                Some(*max_retries),
                backoff.as_ref(),
                Reason::UncountedSpent,
            ),
            None if failure.class == FailureClass::Crash => {
                (Counter::Crashes, Some(policy.max_crash_retries), None, Reason::CrashesSpent)
            }
            _ => (Counter::Retries, shared_max, None, Reason::RetriesSpent),
        };
        Self {
            counter,
            retries_max,
            backoff: own_backoff.unwrap_or(&policy.backoff),
            wish: if own_backoff.is_some() { None } else { wish.delay },
            when_spent,
        }
    }

    /// The same with what an operator allows beyond it.
    fn extended(self, extra: u32) -> Self {
        let retries_max = self.retries_max.map(|max| max.saturating_add(extra));
        Self { retries_max, ..self }
    }

    /// The same with the backoff that is waited for.
    fn waited(self, policy: &Policy) -> Self {
        match policy.keeps(Quirk::BackoffNotWaited) {
            true => Self { backoff: &NOT_WAITED, ..self },
            false => self,
        }
    }
}

impl Allowance<'_> {
    /// The same of a failure that belongs to an outage: it burns no retry.
    fn forgiven(self) -> Self {
        Self {
            counter: Counter::Forgiven,
            retries_max: Some(outage::FORGIVEN_MAX),
            when_spent: Reason::RetriesSpent,
            ..self
        }
    }

    /// The same of work that did not start: at once, and on no counter.
    fn unstarted(self) -> Self {
        Self {
            counter: Counter::Unstarted,
            retries_max: None,
            backoff: &NOT_WAITED,
            wish: None,
            ..self
        }
    }
}

/// Retries in a row that are not counted since the work did not start. A start that
/// fails so often fails for a reason that waiting may mend, and asking at once for
/// ever would be a storm of its own.
const UNSTARTED_MAX: usize = 3;

/// Whether the work did not start, and not too often in a row.
fn is_unstarted(record: &Record, failure: &Failure) -> bool {
    let is_free = |attempt: &&Attempt| {
        attempt.end.as_ref().is_some_and(|end| end.counted == Some(Counter::Unstarted))
    };
    failure.executed == Executed::No
        && record.attempts.iter().rev().skip(1).take_while(is_free).count() < UNSTARTED_MAX
}

/// No wait, where [`Quirk::BackoffNotWaited`] is kept.
static NOT_WAITED: Backoff = Backoff::NONE;

/// When the next attempt may start, as far as the step itself is concerned.
struct Wait {
    earliest: Timestamp,
    /// Another instant that jitter drew, where a target's load is planned.
    other: Option<Timestamp>,
    reason: Reason,
    constraints: Vec<Constraint>,
    window: Option<Window>,
}

impl Wait {
    /// None when the backoff's schedule has ended.
    fn of(
        terms: &Terms<'_>,
        key: &StepKey<'_>,
        record: &Record,
        failure: &Failure,
        allowance: &Allowance<'_>,
        used: u32,
        at: Timestamp,
    ) -> Option<Self> {
        let window = match allowance.wish {
            Some(delay) => Window { min: delay, max: delay },
            None => allowance.backoff.window(used.saturating_add(1), record.last_wait())?,
        };
        let delay = window.at(Draw::of(terms.salt, key, record.counters.attempts));
        let own = if allowance.wish.is_some() {
            (Reason::Wish, ConstraintKind::Wish)
        } else {
            (own_reason(&allowance.counter), ConstraintKind::Backoff)
        };
        let mut constraints = vec![firm(own.1, at.plus(delay))];
        let mut wait = Self {
            earliest: at.plus(delay),
            other: None,
            reason: own.0,
            constraints: Vec::new(),
            window: Some(window),
        };

        let asked = failure.pushback.and_then(|pushback| asked_wait(terms.policy, pushback, at));
        let other = other_wait(terms, key, record, window);
        let is_late_enough = |other: &Duration| asked.is_none_or(|asked| asked <= *other);
        wait.other = other.filter(is_late_enough).map(|other| at.plus(other));
        if let Some(asked) = asked {
            // A pushback holds everybody to the same instant; what the backoff's
            // jitter would have spread, it spreads from there, upwards only.
            let spread =
                if asked > delay { delay.saturating_sub(window.min) } else { Duration::ZERO };
            let until = at.plus(asked).plus(spread);
            constraints.push(firm(ConstraintKind::Pushback, until));
            if until > wait.earliest {
                constraints.swap(0, 1);
                wait.earliest = until;
                wait.other = None;
                wait.reason = Reason::Pushback;
                wait.window = None;
            }
        }
        constraints[0].binding = true;
        wait.constraints = constraints;
        Some(wait)
    }
}

/// Another wait of the same window, where a target counts retries in advance: of the
/// two the one is taken for which it has planned less.
fn other_wait(
    terms: &Terms<'_>,
    key: &StepKey<'_>,
    record: &Record,
    window: Window,
) -> Option<Duration> {
    let counts = |bound: &Bound| bound.target.rate.is_some_and(|rate| rate.counts(true));
    let is_planned = window.min < window.max && terms.bounds.iter().any(counts);
    let draw = || Draw::other_of(terms.salt, key, record.counters.attempts);
    is_planned.then(|| window.at(draw()))
}

const fn own_reason(counter: &Counter) -> Reason {
    match counter {
        Counter::Crashes => Reason::Crashed,
        Counter::Forgiven => Reason::Outage,
        Counter::Unstarted => Reason::Unstarted,
        _ => Reason::Backoff,
    }
}

const fn firm(kind: ConstraintKind, earliest: Timestamp) -> Constraint {
    Constraint { kind, key: String::new(), earliest, firm: true, binding: false, load: None }
}

/// What a pushback asks for, within the policy's bounds. None for "never".
pub(super) fn asked_wait(policy: &Policy, pushback: Pushback, at: Timestamp) -> Option<Duration> {
    let asked = match pushback {
        Pushback::After(span) => span,
        Pushback::Until(instant) => instant - at,
        Pushback::Never => return None,
    };
    Some(asked.clamp(policy.pushback_min, policy.pushback_max))
}

fn record_outcome(terms: &Terms<'_>, record: &mut Record, failed: &Failed<'_>, at: Timestamp) {
    let settled = report::undecided(terms, &record.counters, at);
    if let Some(attempt) = record.attempts.back_mut() {
        if !failed.failure.host.is_empty() {
            attempt.host = Some(failed.failure.host.as_str().into());
        }
        attempt.end = Some(End {
            at,
            outcome: failed.outcome,
            reported_by: failed.reported_by,
            late: false,
            settled,
            counted: None,
            fault: failed.fault,
        });
    }
}

fn matching_rule<'a>(
    terms: &Terms<'a>,
    key: &StepKey<'_>,
    record: &Record,
    failure: &Failure,
    ran: Duration,
    at: Timestamp,
) -> Option<&'a Rule> {
    let mut facts = None;
    terms.policy.rule_for(failure, |condition| {
        let facts = facts.get_or_insert_with(|| Facts::gather(record, failure));
        condition.holds(&facts.scope(key, record, failure, ran, at)).unwrap_or(false)
    })
}

/// What a condition may ask beside the failure; gathered only when one asks.
struct Facts {
    code: std::borrow::Cow<'static, str>,
    outcomes: Vec<FailureClass>,
    exit_codes: Vec<i32>,
}

impl Facts {
    fn gather(record: &Record, failure: &Failure) -> Self {
        let ended = || {
            record
                .attempts
                .iter()
                .rev()
                .filter_map(|attempt| attempt.end.as_ref())
                .map(|end| end.outcome)
        };
        Self {
            code: failure.code.map(Code::name).unwrap_or_default(),
            outcomes: ended().filter_map(Outcome::class).collect(),
            exit_codes: ended().map(|outcome| outcome.exit_code().unwrap_or(-1)).collect(),
        }
    }

    fn scope<'a>(
        &'a self,
        key: &StepKey<'a>,
        record: &'a Record,
        failure: &'a Failure,
        ran: Duration,
        at: Timestamp,
    ) -> ConditionScope<'a> {
        let host = record.latest().and_then(|attempt| attempt.host.as_deref()).unwrap_or_default();
        let worker = if failure.worker.is_empty() { &*record.worker } else { &failure.worker };
        ConditionScope {
            failure: FailureView {
                class: failure.class,
                error_type: &failure.error_type,
                code: &self.code,
                exit_code: failure.exit_code.unwrap_or(-1),
                signal: failure.signal.map_or(0, i32::from),
                message: &failure.message,
                cause: &failure.cause,
                host,
                worker,
                target: &failure.target,
                action: &failure.action,
                duration_s: ran.as_secs_f64(),
                executed: failure.executed.name(),
                retryable: failure.retryable,
            },
            step: StepView {
                namespace: key.namespace,
                run: key.run,
                name: key.step,
                kind: &record.kind,
                attempt: record.counters.attempts,
                retries: record.counters.retries,
                uncounted: record.counters.uncounted,
                crashes: record.counters.crashes,
                elapsed_s: record.first_began_at.map_or(0.0, |first| (at - first).as_secs_f64()),
            },
            outcomes: &self.outcomes,
            last_exit_codes: &self.exit_codes,
        }
    }
}

/// Hosts that the next attempt should stay away from: those that an operator has
/// excluded, then those that it failed on, the latest first.
#[must_use]
pub fn excluded_hosts(policy: &Policy, record: &Record, at: Timestamp) -> Vec<ExcludedHost> {
    let ordered = record.orders.iter().flat_map(|orders| orders.excluded_hosts.iter().rev());
    let mut hosts: Vec<ExcludedHost> =
        ordered.map(|host| ExcludedHost { host: host.to_string(), hard: true }).collect();
    let hard = match policy.anti_affinity.mode {
        AntiAffinityMode::None => return hosts,
        AntiAffinityMode::Soft => false,
        AntiAffinityMode::Hard => true,
    };
    let still_avoided = |end: &End| hard || at < end.at.plus(policy.anti_affinity.decay);
    let failed_host = |attempt: &Attempt| {
        let end = attempt
            .end
            .as_ref()
            .filter(|end| end.outcome != Outcome::Success && still_avoided(end))?;
        attempt
            .host
            .as_deref()
            .filter(|_| end.outcome.class() != Some(FailureClass::Canceled))
            .map(str::to_owned)
    };
    for host in record.attempts.iter().rev().filter_map(failed_host) {
        if !hosts.iter().any(|known| known.host == host) {
            hosts.push(ExcludedHost { host, hard });
        }
    }
    hosts
}

/// The windows from which the waits before the first `count` retries on the
/// policy's own counter are drawn; fewer when they end before.
#[must_use]
pub fn waits(policy: &Policy, count: u32) -> Vec<Window> {
    let mut before = Duration::ZERO;
    let mut windows = Vec::new();
    for k in 1..=count.min(policy.max_retries.unwrap_or(count)) {
        let Some(window) = policy.backoff.window(k, before) else { break };
        before = window.max;
        windows.push(window);
    }
    windows
}

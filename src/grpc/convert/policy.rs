//! Policies, as the contract and as the domain write them.
//!
//! Unlike a report, a policy with a number that this version does not know is
//! refused: an operator would believe in a rule that nobody follows.

use std::fmt::Display;

use super::{
    answer::span,
    check::{Check, Invalid, Part},
    request::known_class,
};
use crate::{
    domain::{
        failure::FailureClass,
        policy::{
            Policy,
            spec::{
                AntiAffinityMode, AntiAffinitySpec, BackoffSpec, DelaySpec, ExhaustionSpec,
                ExitCodesSpec, ExponentialSpec, HoldAnswer, HoldSpec, JitterSpec, LinearSpec,
                MatchSpec, PolicySpec, PushbackSpec, Quirk, Resume, RetrySpec, RuleSpec, RunSpec,
                ScheduleEndSpec, ScheduleSpec, SkipSpec, StepCounters, StopTimingSpec,
            },
        },
        time::Span,
    },
    proto,
};

/// Reads a policy found in the field `prefix` of a request. Its fields are then
/// in their ranges as far as the contract's types go; whether it holds is for
/// [`Policy::parse`] to say.
///
/// # Errors
/// Everything that is wrong with it.
pub fn from_proto(policy: proto::Policy, prefix: &'static str) -> Result<PolicySpec, Invalid> {
    let mut check = Check::default();
    let spec = check.within(Part::Field(prefix), |check| read(check, policy));
    check.finish(spec)
}

/// Checks whether a policy found in the field `prefix` of a request holds.
///
/// # Errors
/// Everything that is wrong with it, under the same field names as
/// [`from_proto`] uses.
pub fn parse(spec: &PolicySpec, prefix: &str) -> Result<Policy, Invalid> {
    Policy::parse(spec).map_err(|violations| Invalid::of_violations(violations, prefix))
}

pub(super) fn read(check: &mut Check, policy: proto::Policy) -> PolicySpec {
    PolicySpec {
        max_retries: policy.max_retries,
        max_elapsed: read_span(check, "max_elapsed", policy.max_elapsed),
        backoff: policy.backoff.map(|backoff| read_backoff(check, &backoff)),
        rules: read_rules(check, policy.rules),
        pushback: policy.pushback.map(|bounds| read_pushback(check, &bounds)),
        max_crash_retries: policy.max_crash_retries,
        reset_after: read_span(check, "reset_after", policy.reset_after),
        reset_on_progress: policy.reset_on_progress,
        host_anti_affinity: policy
            .host_anti_affinity
            .map(|affinity| read_anti_affinity(check, &affinity)),
        on_exhaustion: policy.on_exhaustion.map(|exhaustion| read_exhaustion(check, exhaustion)),
        never_retry_kinds: policy.never_retry_kinds,
        quirks: policy.quirks.iter().filter_map(|number| read_quirk(check, *number)).collect(),
        run: policy.run.map(|run| check.within(Part::Field("run"), |c| read_run(c, run))),
    }
}

fn read_run(check: &mut Check, run: proto::RunRetries) -> RunSpec {
    let resume = match proto::Resume::try_from(run.resume) {
        Ok(proto::Resume::Unspecified | proto::Resume::FromFailure) => Resume::FromFailure,
        Ok(proto::Resume::AllSteps) => Resume::AllSteps,
        Err(_) => {
            unknown(check, "resume", run.resume, "RESUME_FROM_FAILURE or RESUME_ALL_STEPS");
            Resume::FromFailure
        }
    };
    let step_counters = match proto::StepCounters::try_from(run.step_counters) {
        Ok(proto::StepCounters::Unspecified | proto::StepCounters::Reset) => StepCounters::Reset,
        Ok(proto::StepCounters::Carry) => StepCounters::Carry,
        Err(_) => {
            let accepted = "STEP_COUNTERS_RESET or STEP_COUNTERS_CARRY";
            unknown(check, "step_counters", run.step_counters, accepted);
            StepCounters::Reset
        }
    };
    RunSpec {
        resume,
        step_counters,
        ignore_step_failures: run.ignore_step_failures,
        max_total_retries: run.max_total_retries,
    }
}

fn run_to_proto(run: RunSpec) -> proto::RunRetries {
    proto::RunRetries {
        resume: write_resume(run.resume) as i32,
        step_counters: write_step_counters(run.step_counters) as i32,
        ignore_step_failures: run.ignore_step_failures,
        max_total_retries: run.max_total_retries,
    }
}

/// Where a run goes on, as the contract writes it.
#[must_use]
pub const fn write_resume(resume: Resume) -> proto::Resume {
    match resume {
        Resume::FromFailure => proto::Resume::FromFailure,
        Resume::AllSteps => proto::Resume::AllSteps,
    }
}

const fn write_step_counters(counters: StepCounters) -> proto::StepCounters {
    match counters {
        StepCounters::Reset => proto::StepCounters::Reset,
        StepCounters::Carry => proto::StepCounters::Carry,
    }
}

fn read_quirk(check: &mut Check, number: i32) -> Option<Quirk> {
    match proto::Quirk::try_from(number) {
        Ok(proto::Quirk::BoundsFirst) => Some(Quirk::BoundsFirst),
        Ok(proto::Quirk::BackoffNotWaited) => Some(Quirk::BackoffNotWaited),
        Ok(proto::Quirk::Unspecified) | Err(_) => {
            unknown(check, "quirks", number, "QUIRK_BOUNDS_FIRST or QUIRK_BACKOFF_NOT_WAITED");
            None
        }
    }
}

const fn write_quirk(quirk: Quirk) -> proto::Quirk {
    match quirk {
        Quirk::BoundsFirst => proto::Quirk::BoundsFirst,
        Quirk::BackoffNotWaited => proto::Quirk::BackoffNotWaited,
    }
}

fn read_span(check: &mut Check, field: &str, span: Option<prost_types::Duration>) -> Option<Span> {
    check.span(field, span).map(Span)
}

/// A span that must be given; zero in its place when it is not.
fn read_delay(check: &mut Check, field: &str, span: Option<prost_types::Duration>) -> Span {
    if span.is_none() {
        check.required(field);
    }
    read_span(check, field, span).unwrap_or_default()
}

fn unknown(check: &mut Check, field: &str, number: impl Display, accepted: &str) {
    check.refuse(field, number.to_string(), format!("accepted: {accepted}"));
}

fn read_rules(check: &mut Check, rules: Vec<proto::Rule>) -> Vec<RuleSpec> {
    let rule = |(at, rule)| check.within(Part::Item("rules", at), |check| read_rule(check, rule));
    rules.into_iter().enumerate().map(rule).collect()
}

fn read_rule(check: &mut Check, rule: proto::Rule) -> RuleSpec {
    use proto::rule::Action;
    let matches = rule
        .r#match
        .map(|given| check.within(Part::Field("match"), |check| read_match(check, given)));
    let mut spec = RuleSpec { name: rule.name, matches, ..RuleSpec::default() };
    match rule.action {
        Some(Action::Retry(retry)) => {
            spec.retry = Some(check.within(Part::Field("retry"), |check| {
                read_retry(check, retry.max_retries, retry.backoff.as_ref())
            }));
        }
        Some(Action::RetryUncounted(retry)) => {
            let read =
                |check: &mut Check| read_retry(check, retry.max_retries, retry.backoff.as_ref());
            spec.retry_uncounted = Some(check.within(Part::Field("retry_uncounted"), read));
        }
        Some(Action::Stop(stop)) => spec.stop = Some(read_stop(check, stop)),
        Some(Action::Hold(hold)) => {
            let read = |check: &mut Check| {
                hold.terms.map(|terms| read_hold(check, &terms)).unwrap_or_default()
            };
            spec.hold = Some(check.within(Part::Field("hold"), read));
        }
        Some(Action::Skip(proto::SkipAction {})) => spec.skip = Some(SkipSpec {}),
        None => {}
    }
    spec
}

fn read_match(check: &mut Check, given: proto::Match) -> MatchSpec {
    let classes = given.classes.iter().filter_map(|number| {
        let class = known_class(*number);
        if class.is_none() {
            unknown(
                check,
                "classes",
                number,
                "classes of failure, 1 to 7, such as FAILURE_CLASS_TRANSIENT",
            );
        }
        class
    });
    MatchSpec {
        classes: classes.collect(),
        error_types: given.error_types,
        codes: given.codes,
        exit_codes: given.exit_codes.into_iter().map(read_exit_codes).collect(),
        message_pattern: given.message_pattern,
        condition: given.condition,
    }
}

const fn read_exit_codes(range: proto::ExitCodeRange) -> ExitCodesSpec {
    let proto::ExitCodeRange { min, max } = range;
    if min == max { ExitCodesSpec::One(min) } else { ExitCodesSpec::Range { min, max } }
}

fn read_retry(
    check: &mut Check,
    max_retries: Option<u32>,
    backoff: Option<&proto::Backoff>,
) -> RetrySpec {
    RetrySpec { max_retries, backoff: backoff.map(|backoff| read_backoff(check, backoff)) }
}

fn read_stop(check: &mut Check, stop: proto::StopAction) -> StopTimingSpec {
    match proto::StopTiming::try_from(stop.timing) {
        Ok(proto::StopTiming::Unspecified | proto::StopTiming::AtOnce) => StopTimingSpec::AtOnce,
        Ok(proto::StopTiming::AfterBackoff) => StopTimingSpec::AfterBackoff,
        Err(_) => {
            unknown(
                check,
                "stop.timing",
                stop.timing,
                "STOP_TIMING_AT_ONCE or STOP_TIMING_AFTER_BACKOFF",
            );
            StopTimingSpec::AtOnce
        }
    }
}

fn read_exhaustion(check: &mut Check, exhaustion: proto::Exhaustion) -> ExhaustionSpec {
    use proto::exhaustion::Outcome;
    check.within(Part::Field("on_exhaustion"), |check| match exhaustion.outcome {
        Some(Outcome::Stop(stop)) => {
            ExhaustionSpec { stop: Some(read_stop(check, stop)), hold: None }
        }
        Some(Outcome::Hold(terms)) => {
            let hold = check.within(Part::Field("hold"), |check| read_hold(check, &terms));
            ExhaustionSpec { stop: None, hold: Some(hold) }
        }
        None => ExhaustionSpec::default(),
    })
}

const HOLD_ANSWERS: &str =
    "HOLD_ANSWER_RETRY, HOLD_ANSWER_SKIP, HOLD_ANSWER_FAIL or HOLD_ANSWER_EXCLUDE_HOST";

fn read_hold(check: &mut Check, terms: &proto::HoldTerms) -> HoldSpec {
    let allowed = terms.allowed.iter().filter_map(|number| {
        let answer = known_answer(*number);
        if answer.is_none() {
            unknown(check, "allowed", number, HOLD_ANSWERS);
        }
        answer
    });
    let allowed = allowed.collect();
    let default_answer = known_answer(terms.default_answer);
    if default_answer.is_none() && terms.default_answer != 0 {
        unknown(check, "default_answer", terms.default_answer, HOLD_ANSWERS);
    }
    HoldSpec {
        allowed,
        timeout: read_span(check, "timeout", terms.timeout),
        default_answer,
        max_manual_retries: terms.max_manual_retries,
    }
}

/// The answer to a hold, which must be given.
pub(super) fn hold_answer(check: &mut Check, field: &str, number: i32) -> HoldAnswer {
    known_answer(number).unwrap_or_else(|| {
        let accepted =
            "HOLD_ANSWER_RETRY, HOLD_ANSWER_SKIP, HOLD_ANSWER_FAIL or HOLD_ANSWER_EXCLUDE_HOST";
        unknown(check, field, number, accepted);
        HoldAnswer::Fail
    })
}

fn known_answer(number: i32) -> Option<HoldAnswer> {
    match proto::HoldAnswer::try_from(number).ok()? {
        proto::HoldAnswer::Unspecified => None,
        proto::HoldAnswer::Retry => Some(HoldAnswer::Retry),
        proto::HoldAnswer::Skip => Some(HoldAnswer::Skip),
        proto::HoldAnswer::Fail => Some(HoldAnswer::Fail),
        proto::HoldAnswer::ExcludeHost => Some(HoldAnswer::ExcludeHost),
    }
}

fn read_backoff(check: &mut Check, backoff: &proto::Backoff) -> BackoffSpec {
    use proto::backoff::Shape;
    check.within(Part::Field("backoff"), |check| {
        let mut spec = BackoffSpec {
            max_delay: read_span(check, "max_delay", backoff.max_delay),
            first_delay: read_span(check, "first_delay", backoff.first_delay),
            jitter: backoff.jitter.and_then(|jitter| {
                check.within(Part::Field("jitter"), |check| read_jitter(check, jitter))
            }),
            ..BackoffSpec::default()
        };
        match &backoff.shape {
            Some(Shape::Fixed(fixed)) => {
                spec.fixed =
                    Some(DelaySpec { delay: read_delay(check, "fixed.delay", fixed.delay) })
            }
            Some(Shape::Linear(linear)) => {
                let delay = read_delay(check, "linear.delay", linear.delay);
                spec.linear = Some(LinearSpec {
                    delay,
                    increment: read_span(check, "linear.increment", linear.increment),
                });
            }
            Some(Shape::Exponential(exponential)) => {
                let delay = read_delay(check, "exponential.delay", exponential.delay);
                let proto::ExponentialBackoff { factor, max_doublings, .. } = *exponential;
                spec.exponential = Some(ExponentialSpec { delay, factor, max_doublings });
            }
            Some(Shape::DoublingSum(sum)) => {
                spec.doubling_sum =
                    Some(DelaySpec { delay: read_delay(check, "doubling_sum.delay", sum.delay) });
            }
            Some(Shape::Fibonacci(fibonacci)) => {
                spec.fibonacci = Some(DelaySpec {
                    delay: read_delay(check, "fibonacci.delay", fibonacci.delay),
                });
            }
            Some(Shape::Schedule(schedule)) => {
                spec.schedule = Some(
                    check.within(Part::Field("schedule"), |check| read_schedule(check, schedule)),
                );
            }
            None => {}
        }
        spec
    })
}

fn read_schedule(check: &mut Check, schedule: &proto::ScheduleBackoff) -> ScheduleSpec {
    let delay = |(at, delay): (usize, &prost_types::Duration)| {
        check.within(Part::Item("delays", at), |check| read_delay(check, "", Some(*delay)))
    };
    let delays = schedule.delays.iter().enumerate().map(delay).collect();
    let end = match proto::ScheduleEnd::try_from(schedule.end) {
        Ok(proto::ScheduleEnd::Unspecified | proto::ScheduleEnd::Repeat) => ScheduleEndSpec::Repeat,
        Ok(proto::ScheduleEnd::Stop) => ScheduleEndSpec::Stop,
        Err(_) => {
            unknown(check, "end", schedule.end, "SCHEDULE_END_REPEAT or SCHEDULE_END_STOP");
            ScheduleEndSpec::Repeat
        }
    };
    ScheduleSpec { delays, end }
}

fn read_jitter(check: &mut Check, jitter: proto::Jitter) -> Option<JitterSpec> {
    use proto::JitterKind;
    let kind = JitterKind::try_from(jitter.kind);
    if let Some(ratio) = jitter.ratio.filter(|_| kind != Ok(JitterKind::Ratio)) {
        check.refuse("ratio", ratio.to_string(), "accepted: a ratio with JITTER_KIND_RATIO only");
    }
    match kind {
        Ok(JitterKind::Unspecified | JitterKind::None) => Some(JitterSpec::None),
        Ok(JitterKind::Full) => Some(JitterSpec::Full),
        Ok(JitterKind::Equal) => Some(JitterSpec::Equal),
        Ok(JitterKind::Ratio) => {
            if jitter.ratio.is_none() {
                check.refuse(
                    "ratio",
                    "",
                    "required with JITTER_KIND_RATIO; accepted: more than 0 and at most 1",
                );
            }
            jitter.ratio.map(JitterSpec::Ratio)
        }
        Ok(JitterKind::Base) => Some(JitterSpec::Base),
        Ok(JitterKind::Decorrelated) => Some(JitterSpec::Decorrelated),
        Err(_) => {
            unknown(
                check,
                "kind",
                jitter.kind,
                "kinds of jitter, 0 to 6, such as JITTER_KIND_FULL",
            );
            None
        }
    }
}

fn read_pushback(check: &mut Check, bounds: &proto::PushbackBounds) -> PushbackSpec {
    check.within(Part::Field("pushback"), |check| PushbackSpec {
        min: read_span(check, "min", bounds.min),
        max: read_span(check, "max", bounds.max),
    })
}

fn read_anti_affinity(check: &mut Check, affinity: &proto::HostAntiAffinity) -> AntiAffinitySpec {
    use proto::AntiAffinityMode as Mode;
    check.within(Part::Field("host_anti_affinity"), |check| {
        let mode = match Mode::try_from(affinity.mode) {
            Ok(Mode::Unspecified | Mode::None) => AntiAffinityMode::None,
            Ok(Mode::Soft) => AntiAffinityMode::Soft,
            Ok(Mode::Hard) => AntiAffinityMode::Hard,
            Err(_) => {
                unknown(
                    check,
                    "mode",
                    affinity.mode,
                    "ANTI_AFFINITY_MODE_NONE, ANTI_AFFINITY_MODE_SOFT or ANTI_AFFINITY_MODE_HARD",
                );
                AntiAffinityMode::None
            }
        };
        AntiAffinitySpec { mode, decay: read_span(check, "decay", affinity.decay) }
    })
}

/// Writes a policy that holds. (Of one that does not, only the first of several
/// actions, shapes or outcomes is written: the contract has room for one.)
#[must_use]
pub fn to_proto(spec: &PolicySpec) -> proto::Policy {
    proto::Policy {
        max_retries: spec.max_retries,
        max_elapsed: write_span(spec.max_elapsed),
        backoff: spec.backoff.as_ref().map(write_backoff),
        rules: spec.rules.iter().map(write_rule).collect(),
        pushback: spec.pushback.map(|bounds| proto::PushbackBounds {
            min: write_span(bounds.min),
            max: write_span(bounds.max),
        }),
        max_crash_retries: spec.max_crash_retries,
        reset_after: write_span(spec.reset_after),
        reset_on_progress: spec.reset_on_progress,
        host_anti_affinity: spec.host_anti_affinity.map(write_anti_affinity),
        on_exhaustion: spec.on_exhaustion.as_ref().map(write_exhaustion),
        never_retry_kinds: spec.never_retry_kinds.clone(),
        quirks: spec.quirks.iter().map(|quirk| write_quirk(*quirk) as i32).collect(),
        run: spec.run.map(run_to_proto),
    }
}

fn write_span(given: Option<Span>) -> Option<prost_types::Duration> {
    given.map(|Span(given)| span(given))
}

fn write_rule(rule: &RuleSpec) -> proto::Rule {
    use proto::rule::Action;
    let retry = |retry: &RetrySpec| {
        Action::Retry(proto::RetryAction {
            max_retries: retry.max_retries,
            backoff: retry.backoff.as_ref().map(write_backoff),
        })
    };
    let retry_uncounted = |retry: &RetrySpec| {
        let backoff = retry.backoff.as_ref().map(write_backoff);
        Action::RetryUncounted(proto::RetryUncountedAction {
            max_retries: retry.max_retries,
            backoff,
        })
    };
    let hold = |hold: &HoldSpec| Action::Hold(proto::HoldAction { terms: Some(write_hold(hold)) });
    let action = (rule.retry.as_ref().map(retry))
        .or_else(|| rule.retry_uncounted.as_ref().map(retry_uncounted))
        .or_else(|| rule.stop.map(write_stop).map(Action::Stop))
        .or_else(|| rule.hold.as_ref().map(hold))
        .or_else(|| rule.skip.map(|SkipSpec {}| Action::Skip(proto::SkipAction {})));
    proto::Rule { name: rule.name.clone(), r#match: rule.matches.as_ref().map(write_match), action }
}

fn write_match(spec: &MatchSpec) -> proto::Match {
    proto::Match {
        classes: spec.classes.iter().map(|class| class_number(*class)).collect(),
        error_types: spec.error_types.clone(),
        codes: spec.codes.clone(),
        exit_codes: spec.exit_codes.iter().map(|codes| write_exit_codes(*codes)).collect(),
        message_pattern: spec.message_pattern.clone(),
        condition: spec.condition.clone(),
    }
}

/// The number of a class in the contract.
pub(super) const fn class_number(class: FailureClass) -> i32 {
    let class = match class {
        FailureClass::Failure => proto::FailureClass::Failure,
        FailureClass::Error => proto::FailureClass::Error,
        FailureClass::Transient => proto::FailureClass::Transient,
        FailureClass::Timeout => proto::FailureClass::Timeout,
        FailureClass::Throttled => proto::FailureClass::Throttled,
        FailureClass::Crash => proto::FailureClass::Crash,
        FailureClass::Canceled => proto::FailureClass::Canceled,
    };
    class as i32
}

const fn write_exit_codes(codes: ExitCodesSpec) -> proto::ExitCodeRange {
    match codes {
        ExitCodesSpec::One(code) => proto::ExitCodeRange { min: code, max: code },
        ExitCodesSpec::Range { min, max } => proto::ExitCodeRange { min, max },
    }
}

const fn write_stop(timing: StopTimingSpec) -> proto::StopAction {
    let timing = match timing {
        StopTimingSpec::AtOnce => proto::StopTiming::AtOnce,
        StopTimingSpec::AfterBackoff => proto::StopTiming::AfterBackoff,
    };
    proto::StopAction { timing: timing as i32 }
}

fn write_exhaustion(spec: &ExhaustionSpec) -> proto::Exhaustion {
    use proto::exhaustion::Outcome;
    let stop = spec.stop.map(write_stop).map(Outcome::Stop);
    proto::Exhaustion {
        outcome: stop.or_else(|| spec.hold.as_ref().map(write_hold).map(Outcome::Hold)),
    }
}

fn write_hold(spec: &HoldSpec) -> proto::HoldTerms {
    proto::HoldTerms {
        allowed: spec.allowed.iter().map(|answer| answer_number(*answer)).collect(),
        timeout: write_span(spec.timeout),
        default_answer: spec.default_answer.map_or(0, answer_number),
        max_manual_retries: spec.max_manual_retries,
    }
}

/// The number of an answer to a hold in the contract.
pub(super) const fn answer_number(answer: HoldAnswer) -> i32 {
    let answer = match answer {
        HoldAnswer::Retry => proto::HoldAnswer::Retry,
        HoldAnswer::Skip => proto::HoldAnswer::Skip,
        HoldAnswer::Fail => proto::HoldAnswer::Fail,
        HoldAnswer::ExcludeHost => proto::HoldAnswer::ExcludeHost,
    };
    answer as i32
}

fn write_backoff(spec: &BackoffSpec) -> proto::Backoff {
    proto::Backoff {
        max_delay: write_span(spec.max_delay),
        first_delay: write_span(spec.first_delay),
        jitter: spec.jitter.map(write_jitter),
        shape: write_shape(spec),
    }
}

fn write_shape(spec: &BackoffSpec) -> Option<proto::backoff::Shape> {
    use proto::backoff::Shape;
    let delay = |given: DelaySpec| Some(span(given.delay.0));
    let fixed = |fixed| Shape::Fixed(proto::FixedBackoff { delay: delay(fixed) });
    let linear = |linear: LinearSpec| {
        Shape::Linear(proto::LinearBackoff {
            delay: write_span(Some(linear.delay)),
            increment: write_span(linear.increment),
        })
    };
    let exponential = |ExponentialSpec { delay, factor, max_doublings }| {
        Shape::Exponential(proto::ExponentialBackoff {
            delay: write_span(Some(delay)),
            factor,
            max_doublings,
        })
    };
    let doubling_sum = |sum| Shape::DoublingSum(proto::DoublingSumBackoff { delay: delay(sum) });
    let fibonacci =
        |fibonacci| Shape::Fibonacci(proto::FibonacciBackoff { delay: delay(fibonacci) });
    (spec.fixed.map(fixed))
        .or_else(|| spec.linear.map(linear))
        .or_else(|| spec.exponential.map(exponential))
        .or_else(|| spec.doubling_sum.map(doubling_sum))
        .or_else(|| spec.fibonacci.map(fibonacci))
        .or_else(|| {
            spec.schedule.as_ref().map(|schedule| Shape::Schedule(write_schedule(schedule)))
        })
}

fn write_schedule(schedule: &ScheduleSpec) -> proto::ScheduleBackoff {
    let end = match schedule.end {
        ScheduleEndSpec::Repeat => proto::ScheduleEnd::Repeat,
        ScheduleEndSpec::Stop => proto::ScheduleEnd::Stop,
    };
    proto::ScheduleBackoff {
        delays: schedule.delays.iter().map(|Span(delay)| span(*delay)).collect(),
        end: end as i32,
    }
}

const fn write_jitter(jitter: JitterSpec) -> proto::Jitter {
    let (kind, ratio) = match jitter {
        JitterSpec::None => (proto::JitterKind::None, None),
        JitterSpec::Full => (proto::JitterKind::Full, None),
        JitterSpec::Equal => (proto::JitterKind::Equal, None),
        JitterSpec::Ratio(ratio) => (proto::JitterKind::Ratio, Some(ratio)),
        JitterSpec::Base => (proto::JitterKind::Base, None),
        JitterSpec::Decorrelated => (proto::JitterKind::Decorrelated, None),
    };
    proto::Jitter { kind: kind as i32, ratio }
}

fn write_anti_affinity(spec: AntiAffinitySpec) -> proto::HostAntiAffinity {
    let mode = match spec.mode {
        AntiAffinityMode::None => proto::AntiAffinityMode::None,
        AntiAffinityMode::Soft => proto::AntiAffinityMode::Soft,
        AntiAffinityMode::Hard => proto::AntiAffinityMode::Hard,
    };
    proto::HostAntiAffinity { mode: mode as i32, decay: write_span(spec.decay) }
}

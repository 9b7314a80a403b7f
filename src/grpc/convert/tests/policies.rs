//! A policy means the same on both sides.

use std::time::Duration;

use proptest::{collection::vec, option::of, prelude::*};

use crate::{
    domain::{
        failure::FailureClass,
        policy::spec::{
            AntiAffinityMode, AntiAffinitySpec, BackoffSpec, DelaySpec, ExhaustionSpec,
            ExitCodesSpec, ExponentialSpec, HoldAnswer, HoldSpec, JitterSpec, LinearSpec,
            MatchSpec, PolicySpec, PushbackSpec, Quirk, Resume, RetrySpec, RuleSpec, RunSpec,
            ScheduleEndSpec, ScheduleSpec, SkipSpec, StepCounters, StopTimingSpec,
        },
        time::Span,
    },
    grpc::convert::policy::{from_proto, to_proto},
};

fn span() -> impl Strategy<Value = Span> {
    (0..=315_576_000_000u64, 0..1_000_000_000u32)
        .prop_map(|(seconds, nanos)| Span(Duration::new(seconds, nanos)))
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn jitter() -> impl Strategy<Value = JitterSpec> {
    prop_oneof![
        Just(JitterSpec::None),
        Just(JitterSpec::Full),
        Just(JitterSpec::Equal),
        (-2.0..2.0f64).prop_map(JitterSpec::Ratio),
        Just(JitterSpec::Base),
        Just(JitterSpec::Decorrelated),
    ]
}

fn shape() -> impl Strategy<Value = BackoffSpec> {
    let end = prop_oneof![Just(ScheduleEndSpec::Repeat), Just(ScheduleEndSpec::Stop)];
    prop_oneof![
        Just(BackoffSpec::default()),
        span().prop_map(|delay| BackoffSpec {
            fixed: Some(DelaySpec { delay }),
            ..BackoffSpec::default()
        }),
        (span(), of(span())).prop_map(|(delay, increment)| BackoffSpec {
            linear: Some(LinearSpec { delay, increment }),
            ..BackoffSpec::default()
        }),
        (span(), of(-2.0..9.0f64), of(any::<u32>())).prop_map(|(delay, factor, max_doublings)| {
            BackoffSpec {
                exponential: Some(ExponentialSpec { delay, factor, max_doublings }),
                ..BackoffSpec::default()
            }
        }),
        span().prop_map(|delay| BackoffSpec {
            doubling_sum: Some(DelaySpec { delay }),
            ..BackoffSpec::default()
        }),
        span().prop_map(|delay| BackoffSpec {
            fibonacci: Some(DelaySpec { delay }),
            ..BackoffSpec::default()
        }),
        (vec(span(), 0..4), end).prop_map(|(delays, end)| BackoffSpec {
            schedule: Some(ScheduleSpec { delays, end }),
            ..BackoffSpec::default()
        }),
    ]
}

fn backoff() -> impl Strategy<Value = BackoffSpec> {
    (shape(), of(span()), of(span()), of(jitter())).prop_map(
        |(shape, max_delay, first_delay, jitter)| BackoffSpec {
            max_delay,
            first_delay,
            jitter,
            ..shape
        },
    )
}

fn retry() -> impl Strategy<Value = RetrySpec> {
    (of(any::<u32>()), of(backoff()))
        .prop_map(|(max_retries, backoff)| RetrySpec { max_retries, backoff })
}

fn answer() -> impl Strategy<Value = HoldAnswer> {
    proptest::sample::select(HoldAnswer::ALL.to_vec())
}

fn hold() -> impl Strategy<Value = HoldSpec> {
    (vec(answer(), 0..4), of(span()), of(answer()), of(any::<u32>())).prop_map(
        |(allowed, timeout, default_answer, max_manual_retries)| HoldSpec {
            allowed,
            timeout,
            default_answer,
            max_manual_retries,
        },
    )
}

fn stop() -> impl Strategy<Value = StopTimingSpec> {
    prop_oneof![Just(StopTimingSpec::AtOnce), Just(StopTimingSpec::AfterBackoff)]
}

fn matches() -> impl Strategy<Value = MatchSpec> {
    let class = proptest::sample::select(FailureClass::ALL.to_vec());
    // A range of one is that one, which the contract does not tell apart.
    let codes = prop_oneof![
        any::<i32>().prop_map(ExitCodesSpec::One),
        any::<(i32, i32)>()
            .prop_filter("a range", |(min, max)| min != max)
            .prop_map(|(min, max)| ExitCodesSpec::Range { min, max }),
    ];
    (vec(class, 0..4), vec(text(), 0..3), vec(text(), 0..3), vec(codes, 0..3), text(), text())
        .prop_map(|(classes, error_types, codes, exit_codes, message_pattern, condition)| {
            MatchSpec { classes, error_types, codes, exit_codes, message_pattern, condition }
        })
}

fn rule() -> impl Strategy<Value = RuleSpec> {
    let action = prop_oneof![
        Just(RuleSpec::default()),
        retry().prop_map(|retry| RuleSpec { retry: Some(retry), ..RuleSpec::default() }),
        retry().prop_map(|retry| RuleSpec { retry_uncounted: Some(retry), ..RuleSpec::default() }),
        stop().prop_map(|stop| RuleSpec { stop: Some(stop), ..RuleSpec::default() }),
        hold().prop_map(|hold| RuleSpec { hold: Some(hold), ..RuleSpec::default() }),
        Just(RuleSpec { skip: Some(SkipSpec {}), ..RuleSpec::default() }),
    ];
    (text(), of(matches()), action).prop_map(|(name, matches, action)| RuleSpec {
        name,
        matches,
        ..action
    })
}

fn exhaustion() -> impl Strategy<Value = ExhaustionSpec> {
    prop_oneof![
        Just(ExhaustionSpec::default()),
        stop().prop_map(|stop| ExhaustionSpec { stop: Some(stop), hold: None }),
        hold().prop_map(|hold| ExhaustionSpec { stop: None, hold: Some(hold) }),
    ]
}

fn spec() -> impl Strategy<Value = PolicySpec> {
    let mode = prop_oneof![
        Just(AntiAffinityMode::None),
        Just(AntiAffinityMode::Soft),
        Just(AntiAffinityMode::Hard)
    ];
    let affinity = (mode, of(span())).prop_map(|(mode, decay)| AntiAffinitySpec { mode, decay });
    let pushback = (of(span()), of(span())).prop_map(|(min, max)| PushbackSpec { min, max });
    let numbers = (of(any::<u32>()), of(any::<u32>()), of(span()), of(span()));
    let parts = (
        of(backoff()),
        vec(rule(), 0..4),
        of(pushback),
        of(affinity),
        of(exhaustion()),
        (vec(text(), 0..3), any::<bool>()),
        vec(prop_oneof![Just(Quirk::BoundsFirst), Just(Quirk::BackoffNotWaited)], 0..3),
    );
    (numbers, parts).prop_map(
        |((max_retries, max_crash_retries, max_elapsed, reset_after), parts)| {
            let (
                backoff,
                rules,
                pushback,
                host_anti_affinity,
                on_exhaustion,
                (never_retry_kinds, reset_on_progress),
                quirks,
            ) = parts;
            PolicySpec {
                max_retries,
                max_elapsed,
                backoff,
                rules,
                pushback,
                max_crash_retries,
                reset_after,
                reset_on_progress,
                host_anti_affinity,
                on_exhaustion,
                never_retry_kinds,
                quirks,
                run: Some(RunSpec {
                    resume: Resume::AllSteps,
                    step_counters: StepCounters::Carry,
                    ignore_step_failures: true,
                    max_total_retries: Some(40),
                }),
            }
        },
    )
}

proptest! {
    #[test]
    fn a_policy_comes_back_as_it_went(spec in spec()) {
        prop_assert_eq!(from_proto(to_proto(&spec), "policy").unwrap(), spec);
    }
}

#[test]
fn a_span_beyond_the_contract_is_told_as_its_longest() {
    let spec = PolicySpec { max_elapsed: Some(Span(Duration::MAX)), ..PolicySpec::default() };
    let told = to_proto(&spec);
    assert_eq!(
        told.max_elapsed,
        Some(prost_types::Duration { seconds: 315_576_000_000, nanos: 999_999_999 })
    );
    assert!(from_proto(told, "policy").is_ok());
}

#[test]
fn many_violations_are_counted_not_piled_up() {
    let mut policy = super::policy();
    policy.rules[0].r#match.get_or_insert_default().classes = vec![99; 1000];
    let invalid = from_proto(policy, "policy").unwrap_err();
    assert_eq!(invalid.violations().len(), super::super::check::VIOLATIONS_MAX);
    assert!(invalid.to_string().ends_with("and 992 more"), "{invalid}");
}

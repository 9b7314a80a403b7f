//! What the rule promises for every policy and every failure, beyond what the
//! model's few policies reach.

use std::time::Duration;

use proptest::{prelude::*, sample::select};
use reprise::domain::{
    decision::{Counters, Reason, Verdict},
    draw::Salt,
    event::{AttemptName, Deadline, Event, Report, StepTerms},
    failure::{Failure, FailureClass, Pushback, Wish},
    id::StepKey,
    namespace::Settings,
    plan::{self, Answer, Now, Plan, ReportStatus, Reported, Terms},
    policy::{Action, Exhaustion, Policy, spec::PolicySpec},
    record::{HISTORY_MAX, PolicyChoice, Record},
    time::Timestamp,
};

const START: Timestamp = Timestamp::from_micros(1_750_000_000_000_000);
const S: u64 = 1_000_000;

/// A policy put together at random, as people could write it.
fn policy() -> impl Strategy<Value = Policy> {
    let backoff = (
        select(vec![
            "fixed: {delay: 2s}",
            "linear: {delay: 1s, increment: 3s}",
            "exponential: {delay: 1s, factor: 2.5}",
            "doubling_sum: {delay: 1s}",
            "fibonacci: {delay: 1s}",
            "schedule: {delays: [1s, 5s, 2s]}",
            "schedule: {delays: [0s, 1s], end: stop}",
        ]),
        select(vec!["none", "full", "equal", "{ratio: 0.3}"]),
        select(vec!["1s", "10s", "1h"]),
    )
        .prop_map(|(shape, jitter, max)| {
            format!("{{{shape}, jitter: {jitter}, max_delay: {max}}}")
        });
    let action = prop_oneof![
        4 => (0..4_u32).prop_map(|max| format!("retry: {{max_retries: {max}}}")),
        2 => Just("retry: {}".to_owned()),
        3 => (1..4_u32).prop_map(|max| format!("retry_uncounted: {{max_retries: {max}}}")),
        1 => select(vec!["stop: at_once", "stop: after_backoff", "hold: {}", "skip: {}"]).prop_map(str::to_owned),
    ];
    let rules = prop::collection::vec((select(FailureClass::ALL.to_vec()), action), 0..5).prop_map(
        |rules| {
            let rules = rules.iter().enumerate().map(|(at, (class, action))| {
                format!("{{name: r{at}, match: {{classes: [{}]}}, {action}}}", class.name())
            });
            rules.collect::<Vec<_>>().join(", ")
        },
    );
    let exhaustion = select(vec!["{stop: at_once}", "{stop: after_backoff}", "{hold: {}}"]);
    (prop::option::of(0..5_u32), prop::option::of(1..120_u32), backoff, rules, 0..4_u32, exhaustion).prop_map(
        |(max_retries, max_elapsed, backoff, rules, crashes, exhaustion)| {
            let max_retries = max_retries.map(|max| format!("max_retries: {max}, ")).unwrap_or_default();
            let max_elapsed = max_elapsed.map(|max| format!("max_elapsed: {max}s, ")).unwrap_or_default();
            let yaml = format!(
                "{{{max_retries}{max_elapsed}backoff: {backoff}, rules: [{rules}], max_crash_retries: {crashes}, on_exhaustion: {exhaustion}}}"
            );
            let spec: PolicySpec = serde_saphyr::from_str(&yaml).expect("readable");
            Policy::parse(&spec).expect("accepted")
        },
    )
}

fn failure() -> impl Strategy<Value = Failure> {
    let class = select(FailureClass::ALL.to_vec());
    let pushback = prop_oneof![
        10 => Just(None),
        3 => (0..20_u64).prop_map(|s| Some(Pushback::After(Duration::from_secs(s)))),
        1 => Just(Some(Pushback::After(Duration::MAX))),
        1 => Just(Some(Pushback::Never)),
    ];
    let wish = (prop::option::of(0..4_u32), prop::option::of(0..30_u64)).prop_map(
        |(max_retries, delay)| Wish { max_retries, delay: delay.map(Duration::from_secs) },
    );
    (
        class,
        pushback,
        prop::option::weighted(0.2, wish),
        prop::bool::weighted(0.97),
        prop::option::of(0..100_u64),
    )
        .prop_map(|(class, pushback, wish, retryable, ran)| Failure {
            pushback,
            wish,
            retryable,
            duration: ran.map(Duration::from_secs),
            ..Failure::of(class)
        })
}

/// A step about which failures are reported, one after the other.
struct Step<'a> {
    policy: &'a Policy,
    settings: Settings,
    deadline: Option<Timestamp>,
    record: Option<Record>,
}

impl Step<'_> {
    fn report(
        &mut self,
        number: u32,
        payload: u64,
        failure: Option<&Failure>,
        at: Timestamp,
    ) -> Reported {
        let key = StepKey { namespace: "default", run: "run", step: "step" };
        let step = StepTerms { deadline: self.deadline.map(Deadline::At), ..StepTerms::default() };
        let event = Event::Report(Report {
            attempt: AttemptName::Number(number),
            payload,
            failure: failure.cloned(),
            step,
        });
        let terms = Terms {
            policy: self.policy,
            revision: 1,
            choice: &PolicyChoice::Default,
            settings: &self.settings,
            salt: Salt([7; 16]),
            bounds: &[],
            run: None,
        };
        let planned = plan::plan(&terms, &key, self.record.clone(), &event, Now::at(at))
            .expect("the next attempt");
        let answer = match planned {
            Plan::Stands(answer) => answer,
            Plan::Write(draft) => {
                let admitted = draft.admitted();
                let settled = plan::settle(*draft, &admitted);
                self.record = Some(settled.record);
                settled.answer
            }
            Plan::Purge => unreachable!("a report forgets nothing"),
        };
        let Answer::Reported(reported) = answer else { panic!("answered {answer:?}") };
        *reported
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Until the step ends: counters below their ceilings, starts within their
    /// bounds, reasons true, and every report answered equally once more.
    #[test]
    fn a_step_keeps_within_what_was_allowed(
        policy in policy(),
        failures in prop::collection::vec((failure(), 0..20_u64), 1..40),
        ceiling in 0..12_u32,
        deadline in prop::option::of(0..300_u64),
    ) {
        let deadline = deadline.map(|s| START.plus(Duration::from_secs(s)));
        let settings = Settings { max_retries_ceiling: ceiling, ..Settings::default() };
        let mut step = Step { policy: &policy, settings, deadline, record: None };
        let mut now = START;
        let mut told: Vec<(Failure, Reported)> = Vec::new();
        for ((failure, pause), number) in failures.iter().zip(1..) {
            let before = step.record.as_ref().map(|record| record.counters.clone()).unwrap_or_default();
            let reported = step.report(number, u64::from(number), Some(failure), now);
            if reported.status == ReportStatus::Stale {
                break;
            }
            prop_assert_eq!(reported.attempt, number, "numbers are dense");
            let record = step.record.as_ref().unwrap();
            check(&policy, ceiling, deadline, record, failure, &before, &reported, now)?;
            told.push((failure.clone(), reported.clone()));
            if let Verdict::Retry(due) = reported.decision.settled.verdict {
                now = due.plus(Duration::from_secs(*pause));
            }
        }
        for ((failure, first), number) in told.iter().zip(1_u32..) {
            let forgotten = told.len().saturating_sub(HISTORY_MAX);
            if number as usize <= forgotten {
                continue;
            }
            let again = step.report(number, u64::from(number), Some(failure), now);
            prop_assert!(again.replayed && again.attempt == first.attempt && again.status == first.status);
            prop_assert_eq!(&again.decision.settled, &first.decision.settled);
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "all that a decision rests on")]
fn check(
    policy: &Policy,
    ceiling: u32,
    deadline: Option<Timestamp>,
    record: &Record,
    failure: &Failure,
    before: &Counters,
    reported: &Reported,
    now: Timestamp,
) -> Result<(), TestCaseError> {
    let settled = &reported.decision.settled;
    let counters = &record.counters;
    prop_assert_eq!(&settled.counters, counters);
    prop_assert!(counters.total() <= ceiling);
    prop_assert!(counters.crashes <= policy.max_crash_retries);
    let mut uncounted = 0;
    for (name, count) in &counters.by_rule {
        match policy.rules.iter().find(|rule| rule.name == *name).map(|rule| &rule.action) {
            Some(Action::Retry { max_retries: Some(max), .. }) => prop_assert!(count <= max),
            Some(Action::RetryUncounted { max_retries: max, .. }) => {
                prop_assert!(count <= max);
                uncounted += count;
            }
            other => prop_assert!(false, "{name:?} counts, but is {other:?}"),
        }
    }
    prop_assert_eq!(counters.uncounted, uncounted);

    let grew = counters.total() - before.total();
    let rule = policy
        .rules
        .iter()
        .find(|rule| rule.matches.classes.contains(&failure.class))
        .map(|rule| &rule.action);
    let wished = failure.wish.and_then(|wish| wish.max_retries).or(policy.max_retries);
    let elapsed_end = policy.max_elapsed.map(|span| record.first_began_at.unwrap().plus(span));
    match settled.verdict {
        Verdict::Retry(due) => {
            prop_assert_eq!(grew, 1);
            prop_assert!(due >= now);
            prop_assert!(deadline.is_none_or(|deadline| due <= deadline), "past the deadline");
            prop_assert!(elapsed_end.is_none_or(|end| due <= end), "past max_elapsed");
            prop_assert!(
                counters.retries == before.retries
                    || wished.is_none_or(|max| counters.retries <= max)
            );
            prop_assert!(
                failure.retryable && failure.pushback != Some(Pushback::Never),
                "the worker's never comes first"
            );
            prop_assert!(
                matches!(rule, None | Some(Action::Retry { .. } | Action::RetryUncounted { .. })),
                "a rule comes before the defaults"
            );
            if let Some(Pushback::After(asked)) = failure.pushback {
                prop_assert!(
                    due - now >= asked.min(policy.pushback_max),
                    "a pushback is a lower bound"
                );
            }
            let binding: Vec<_> = reported
                .decision
                .constraints
                .iter()
                .filter(|constraint| constraint.binding)
                .collect();
            prop_assert_eq!(binding.len(), 1);
            prop_assert_eq!(binding[0].earliest, due, "the binding constraint is the instant");
            prop_assert_eq!(&reported.decision.constraints[0], binding[0], "and comes first");
        }
        _ => prop_assert_eq!(grew, 0, "only a retry counts"),
    }
    let waits = matches!(policy.on_exhaustion, Exhaustion::Stop(_));
    let is_true = match settled.reason {
        Reason::NotRetryable => !failure.retryable,
        Reason::PushbackNever => failure.pushback == Some(Pushback::Never),
        Reason::Rule => matches!(rule, Some(Action::Stop(_))),
        Reason::HeldByRule => matches!(rule, Some(Action::Hold(_))),
        Reason::Skipped => matches!(rule, Some(Action::Skip)),
        Reason::Canceled => failure.class == FailureClass::Canceled && rule.is_none(),
        Reason::Ceiling => before.total() >= ceiling,
        Reason::CrashesSpent => {
            failure.class == FailureClass::Crash && counters.crashes == policy.max_crash_retries
        }
        Reason::UncountedSpent => {
            matches!(rule, Some(Action::RetryUncounted { max_retries, .. }) if counters.by_rule.iter().any(|(_, count)| count == max_retries))
        }
        Reason::RetriesSpent => match rule {
            Some(Action::Retry { max_retries: Some(max), .. }) => {
                *max == 0 || counters.by_rule.iter().any(|(_, count)| count == max)
            }
            _ => wished.is_some_and(|max| counters.retries >= max),
        },
        Reason::MaxElapsed => elapsed_end.is_some() && waits,
        Reason::Deadline => deadline.is_some(),
        Reason::Crashed => failure.class == FailureClass::Crash && rule.is_none(),
        Reason::Backoff | Reason::Pushback | Reason::Wish => {
            matches!(settled.verdict, Verdict::Retry(_))
        }
        Reason::Exhausted => matches!(policy.on_exhaustion, Exhaustion::Hold(_)),
        Reason::Stopping => matches!(settled.verdict, Verdict::Wait(_)),
        Reason::ScheduleEnded => waits,
        _ => false,
    };
    prop_assert!(is_true, "{:?} is not true of {failure:?} with {counters:?}", settled.reason);
    Ok(())
}

#[test]
fn nothing_in_a_question_but_its_own_words_changes_the_answer() {
    let policy = crate::rule::policy("{backoff: {fixed: {delay: 1m}, jitter: full}}");
    let failure = Failure::of(FailureClass::Transient);
    let due = |at: Timestamp| {
        let mut step =
            Step { policy: &policy, settings: Settings::default(), deadline: None, record: None };
        match step.report(1, 1, Some(&failure), at).decision.settled.verdict {
            Verdict::Retry(due) => due - at,
            verdict => panic!("{verdict:?}"),
        }
    };
    assert_eq!(
        due(START),
        due(START.plus(Duration::from_micros(S))),
        "chance does not depend on the time"
    );
}

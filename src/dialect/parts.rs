//! Parts of policies that several systems' policies are made of.

use std::time::Duration;

use crate::domain::{
    failure::FailureClass,
    policy::{
        parse::UNCOUNTED_MAX,
        spec::{
            BackoffSpec, DelaySpec, ExponentialSpec, JitterSpec, MatchSpec, RetrySpec, RuleSpec,
            StopTimingSpec,
        },
    },
    time::Span,
};

/// Failures of these classes.
pub fn of_classes(classes: &[FailureClass]) -> MatchSpec {
    MatchSpec { classes: classes.to_vec(), ..MatchSpec::default() }
}

/// Failures with these types of error.
pub fn of_types(types: &[&str]) -> MatchSpec {
    let error_types = types.iter().map(|name| (*name).to_owned()).collect();
    MatchSpec { error_types, ..MatchSpec::default() }
}

/// Failures for which this holds.
pub fn when(condition: impl Into<String>) -> MatchSpec {
    MatchSpec { condition: condition.into(), ..MatchSpec::default() }
}

/// A rule without its action.
fn rule(name: &str, matches: MatchSpec) -> RuleSpec {
    RuleSpec {
        name: name.to_owned(),
        matches: (matches != MatchSpec::default()).then_some(matches),
        ..RuleSpec::default()
    }
}

/// Gives up at once.
pub fn stop(name: &str, matches: MatchSpec) -> RuleSpec {
    RuleSpec { stop: Some(StopTimingSpec::AtOnce), ..rule(name, matches) }
}

/// Gives up when the wait would have ended.
pub fn stop_late(name: &str, matches: MatchSpec) -> RuleSpec {
    RuleSpec { stop: Some(StopTimingSpec::AfterBackoff), ..rule(name, matches) }
}

/// Tries again on the policy's counter.
pub fn retry(name: &str, matches: MatchSpec) -> RuleSpec {
    RuleSpec { retry: Some(RetrySpec::default()), ..rule(name, matches) }
}

/// Tries again on a counter of its own.
pub fn retry_apart(name: &str, matches: MatchSpec, max: u32, backoff: BackoffSpec) -> RuleSpec {
    let own = RetrySpec { max_retries: Some(max), backoff: Some(backoff) };
    RuleSpec { retry: Some(own), ..rule(name, matches) }
}

/// Tries again without counting, so often at most as a policy can say.
pub fn retry_uncounted(
    name: &str,
    matches: MatchSpec,
    max: u32,
    backoff: Option<BackoffSpec>,
) -> RuleSpec {
    let uncounted = RetrySpec { max_retries: Some(max.clamp(1, UNCOUNTED_MAX)), backoff };
    RuleSpec { retry_uncounted: Some(uncounted), ..rule(name, matches) }
}

/// A worker that was lost counts like any other failure.
pub fn crashes() -> RuleSpec {
    retry("crashes", of_classes(&[FailureClass::Crash]))
}

/// The same wait each time.
pub fn fixed(delay: Duration) -> BackoffSpec {
    BackoffSpec { fixed: Some(DelaySpec { delay: Span(delay) }), ..BackoffSpec::default() }
}

/// A wait that is multiplied each time.
pub fn exponential(delay: Duration, factor: f64) -> BackoffSpec {
    let exponential =
        ExponentialSpec { delay: Span(delay), factor: Some(factor), max_doublings: None };
    BackoffSpec { exponential: Some(exponential), ..BackoffSpec::default() }
}

/// Any wait up to a length: somebody looks that often.
pub fn up_to(period: Duration) -> BackoffSpec {
    BackoffSpec { jitter: Some(JitterSpec::Full), ..fixed(period) }
}

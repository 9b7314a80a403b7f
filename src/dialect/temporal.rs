//! Temporal: `RetryPolicy` of activities and workflows, as its server reads it
//! (`service/history/workflow/retry.go`): without jitter, attempts counted from the first.

use std::time::Duration;

use super::{
    Unit,
    document::{Drawn, Part, Reader},
    numbers,
    parts::{crashes, exponential, of_types, stop},
};
use crate::domain::{
    policy::spec::{BackoffSpec, PolicySpec},
    time::Span,
};

/// The first wait when none is given.
const INITIAL: Duration = Duration::from_secs(1);
/// The longest wait when none is given, in first waits.
const LONGEST: u32 = 100;

const FIELDS: [[&str; 2]; 5] = [
    ["initialInterval", "initial_interval"],
    ["backoffCoefficient", "backoff_coefficient"],
    ["maximumInterval", "maximum_interval"],
    ["maximumAttempts", "maximum_attempts"],
    ["nonRetryableErrorTypes", "non_retryable_error_types"],
];

/// Reads a document.
pub fn read(reader: &mut Reader, root: &Part<'_>) {
    if !reader.mapping(root) {
        return;
    }
    let policy = root.any(&["retryPolicy", "retry_policy"]).unwrap_or_else(|| root.clone());
    if policy.path.is_empty() && !FIELDS.iter().any(|names| root.has_any(names)) {
        return;
    }
    let mut drawn = Drawn::default();
    if let Some(spec) = read_policy(reader, root, &policy, &mut drawn) {
        drawn.spec = spec;
        reader.keep(&policy, "temporal", Unit::Step, drawn);
    }
}

fn read_policy(
    reader: &mut Reader,
    root: &Part<'_>,
    policy: &Part<'_>,
    drawn: &mut Drawn,
) -> Option<PolicySpec> {
    if !policy.path.is_empty() {
        reader.only(policy, FIELDS.as_flattened());
    }
    let [initial, coefficient, longest, attempts, never] = FIELDS.map(|names| policy.any(&names));
    let initial = initial.map_or(Some(INITIAL), |part| reader.span(&part));
    let coefficient = coefficient.map_or(Some(2.0), |part| reader.number(&part, 1.0));
    let longest = match longest {
        Some(part) => reader.span(&part).map(Some),
        None => Some(None),
    };
    let attempts = attempts.map_or(Some(0), |part| reader.whole(&part, 0));
    let never = never.map_or(Some(Vec::new()), |part| reader.texts(&part));
    let overall = root.any(&["scheduleToCloseTimeout", "schedule_to_close_timeout"]);
    let overall = match overall {
        Some(part) => Some(reader.span(&part)?),
        None => None,
    };
    let initial = initial?;
    let longest = longest?.unwrap_or(initial.saturating_mul(LONGEST));
    let mut rules = Vec::new();
    let never = never?;
    if !never.is_empty() {
        rules.push(stop("non-retryable", of_types(&never)));
    }
    rules.push(crashes());
    let attempts = attempts?;
    if attempts > 0 {
        drawn.note("maximumAttempts", "counts the first attempt in; max_retries does not.");
    }
    drawn.note(
        "ApplicationFailure",
        "report nonRetryable as retryable: false, and nextRetryDelay as a wish.",
    );
    Some(PolicySpec {
        max_retries: (attempts > 0).then(|| numbers::count(attempts - 1)),
        max_elapsed: overall.map(Span),
        backoff: (!initial.is_zero()).then_some(BackoffSpec {
            max_delay: Some(Span(longest)),
            ..exponential(initial, coefficient?)
        }),
        rules,
        ..PolicySpec::default()
    })
}

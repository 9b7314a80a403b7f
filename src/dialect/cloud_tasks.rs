//! Google Cloud Tasks: `RetryConfig` of queues, as the reference of its API (v2) says.

use std::time::Duration;

use super::{
    Unit,
    document::{Drawn, Part, Reader},
    numbers,
    parts::{crashes, exponential},
};
use crate::domain::{
    policy::spec::{BackoffSpec, ExponentialSpec, PolicySpec},
    time::Span,
};

/// Attempts when it is not said how many.
const ATTEMPTS: i64 = 100;

const FIELDS: [[&str; 2]; 5] = [
    ["maxAttempts", "max_attempts"],
    ["maxRetryDuration", "max_retry_duration"],
    ["minBackoff", "min_backoff"],
    ["maxBackoff", "max_backoff"],
    ["maxDoublings", "max_doublings"],
];

/// Reads a document.
pub fn read(reader: &mut Reader, root: &Part<'_>) {
    if !reader.mapping(root) {
        return;
    }
    let config = root.any(&["retryConfig", "retry_config"]).unwrap_or_else(|| root.clone());
    if config.path.is_empty() && !FIELDS.iter().any(|names| root.has_any(names)) {
        return;
    }
    reader.only(&config, FIELDS.as_flattened());
    let mut drawn = Drawn::default();
    if let Some(spec) = read_config(reader, &config, &mut drawn) {
        drawn.spec = spec;
        let name = root.get("name").and_then(|name| name.text()).unwrap_or("cloud-tasks");
        let name = name.rsplit('/').next().unwrap_or(name);
        reader.keep(&config, name, Unit::Step, drawn);
    }
}

fn read_config(reader: &mut Reader, part: &Part<'_>, drawn: &mut Drawn) -> Option<PolicySpec> {
    let [attempts, longest, first, last, doublings] = FIELDS.map(|names| part.any(&names));
    // Zero is not said, as in any message of its API.
    let attempts = attempts.map_or(Some(0), |part| reader.whole(&part, -1));
    let attempts = attempts.map(|attempts| if attempts == 0 { ATTEMPTS } else { attempts });
    let span = |reader: &mut Reader, part: Option<Part<'_>>, default: Duration| {
        part.map_or(Some(default), |part| reader.span(&part))
    };
    let longest = span(reader, longest, Duration::ZERO);
    let first = span(reader, first, Duration::from_millis(100));
    let last = span(reader, last, Duration::from_secs(3600));
    let doublings = doublings.map_or(Some(16), |part| reader.whole(&part, 0));
    let (attempts, longest, first) = (attempts?, longest?, first?);
    if attempts > 0 {
        drawn.note("maxAttempts", "counts the first attempt in; max_retries does not.");
    }
    if attempts > 0 && !longest.is_zero() {
        drawn.note(
            "maxRetryDuration",
            "Cloud Tasks goes on until both this and maxAttempts are reached; here the first that \
             is reached ends the step.",
        );
    }
    let shape = ExponentialSpec {
        delay: Span(first),
        factor: Some(2.0),
        max_doublings: Some(numbers::count(doublings?)),
    };
    let last = last?.max(first);
    Some(PolicySpec {
        max_retries: (attempts >= 0).then(|| numbers::count(attempts - 1)),
        max_elapsed: (!longest.is_zero()).then_some(Span(longest)),
        backoff: (!first.is_zero()).then(|| BackoffSpec {
            exponential: Some(shape),
            max_delay: Some(Span(last)),
            ..exponential(first, 2.0)
        }),
        rules: vec![crashes()],
        ..PolicySpec::default()
    })
}

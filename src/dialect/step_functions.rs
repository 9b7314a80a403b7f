//! AWS Step Functions: `Retry` of states. Each retrier counts by itself.
//!
//! What names of errors match is by its developer guide, "Handling errors in Step Functions
//! workflows".

use std::time::Duration;

use super::{
    Unit,
    document::{Drawn, Part, Reader},
    numbers,
    parts::{exponential, retry_apart, stop, when},
};
use crate::domain::{
    policy::spec::{BackoffSpec, JitterSpec, MatchSpec, PolicySpec, RuleSpec},
    time::Span,
};

const FIELDS: &[&str] = &[
    "ErrorEquals",
    "IntervalSeconds",
    "MaxAttempts",
    "BackoffRate",
    "MaxDelaySeconds",
    "JitterStrategy",
    "Comment",
];

/// Reads a document.
pub fn read(reader: &mut Reader, root: &Part<'_>) {
    if let Some(states) = root.get("States") {
        for (name, _, state) in states.entries() {
            if let Some(retry) = state.get("Retry") {
                keep(reader, &retry, name);
            }
        }
    } else if let Some(retry) = root.get("Retry") {
        keep(reader, &retry, "step-functions");
    } else if !root.items().is_empty() {
        keep(reader, root, "step-functions");
    }
}

fn keep(reader: &mut Reader, retriers: &Part<'_>, name: &str) {
    let mut rules = Vec::new();
    for (number, retrier) in (1..).zip(retriers.items()) {
        rules.extend(rule(reader, &retrier, number));
    }
    if rules.is_empty() {
        reader.refuse(retriers, "accepted: a list of retriers, each with ErrorEquals");
        return;
    }
    rules.push(stop("unmatched", when("failure.class != \"CANCELED\"")));
    let spec = PolicySpec { max_retries: Some(0), rules, ..PolicySpec::default() };
    let mut drawn = Drawn { spec, notes: Vec::new() };
    drawn.note(
        "ErrorEquals",
        "report the error's name as error type, States.Timeout and States.HeartbeatTimeout as \
         TIMEOUT besides. What no retrier names ends the step: Catch is not a matter of policies.",
    );
    reader.keep(retriers, name, Unit::Step, drawn);
}

fn rule(reader: &mut Reader, part: &Part<'_>, number: u32) -> Option<RuleSpec> {
    if !reader.mapping(part) {
        return None;
    }
    reader.only(part, FIELDS);
    let Some(errors) = part.get("ErrorEquals") else {
        reader.refuse(part, "ErrorEquals is missing; accepted: a list of error names");
        return None;
    };
    let errors = reader.texts(&errors)?;
    let interval = part.get("IntervalSeconds").map_or(Some(1), |part| reader.whole(&part, 1));
    let attempts = part.get("MaxAttempts").map_or(Some(3), |part| reader.whole(&part, 0));
    let rate = part.get("BackoffRate").map_or(Some(2.0), |part| reader.number(&part, 1.0));
    let longest = match part.get("MaxDelaySeconds") {
        Some(part) => Some(reader.whole(&part, 1)?),
        None => None,
    };
    let jitter = match part.get("JitterStrategy") {
        None => None,
        Some(strategy) => match strategy.text() {
            Some("FULL") => Some(JitterSpec::Full),
            Some("NONE") => None,
            _ => {
                reader.refuse(&strategy, "accepted: FULL or NONE");
                return None;
            }
        },
    };
    let span = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let backoff = BackoffSpec {
        max_delay: longest.map(|seconds| Span(span(seconds))),
        jitter,
        ..exponential(span(interval?), rate?)
    };
    let name = format!("retrier-{number}");
    Some(retry_apart(&name, of_errors(&errors), numbers::count(attempts?), backoff))
}

/// Names of errors, those of the service's own among them: `States.ALL` matches all but
/// two that end every execution, and a heartbeat that stays away is a timeout, too.
fn of_errors(errors: &[&str]) -> MatchSpec {
    const ALL: &str = "failure.class != \"CANCELED\" && !(failure.error_type in \
                       [\"States.DataLimitExceeded\", \"States.Runtime\"])";
    let named = |name: &&str| match *name {
        "States.ALL" => ALL.to_owned(),
        "States.TaskFailed" => "!(failure.class in [\"CANCELED\", \"TIMEOUT\"])".to_owned(),
        "States.Timeout" => "failure.class == \"TIMEOUT\"".to_owned(),
        name => format!("failure.error_type == \"{}\"", name.replace(['"', '\\'], "")),
    };
    let own = |name: &&str| name.starts_with("States.");
    if errors.iter().any(own) {
        when(errors.iter().map(named).collect::<Vec<_>>().join(" || "))
    } else {
        super::parts::of_types(errors)
    }
}

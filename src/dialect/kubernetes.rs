//! Kubernetes: `backoffLimit` and `podFailurePolicy` of Jobs.

use std::time::Duration;

use super::{
    Unit,
    document::{Drawn, Part, Reader},
    numbers,
    parts::{crashes, exponential, of_types, retry, retry_uncounted, stop, when},
};
use crate::domain::{
    policy::spec::{BackoffSpec, ExitCodesSpec, MatchSpec, PolicySpec, RuleSpec},
    time::Span,
};

/// Failed pods when a Job does not say how many.
const BACKOFF_LIMIT: i64 = 6;
/// The first and the longest wait between pods, by `pkg/controller/job/job_controller.go`
/// (`DefaultJobPodFailureBackOff`, `MaxJobPodFailureBackOff`). Documentation says six
/// minutes, as it was in older versions.
pub const WAITS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// Reads a document.
pub fn read(reader: &mut Reader, root: &Part<'_>) {
    if !reader.mapping(root) {
        return;
    }
    let kind = root.get("kind").and_then(|kind| kind.text());
    let spec = match kind {
        Some("Job") => root.get("spec"),
        Some("CronJob") => root.at(&["spec", "jobTemplate", "spec"]),
        _ if root.has_any(&["backoffLimit", "podFailurePolicy"]) => Some(root.clone()),
        _ => None,
    };
    let Some(spec) = spec else { return };
    let name = root.at(&["metadata", "name"]).and_then(|name| name.text()).unwrap_or("job");
    let mut drawn = Drawn::default();
    if let Some(policy) = read_spec(reader, &spec, &mut drawn) {
        drawn.spec = policy;
        reader.keep(&spec, name, Unit::Step, drawn);
    }
}

fn read_spec(reader: &mut Reader, spec: &Part<'_>, drawn: &mut Drawn) -> Option<PolicySpec> {
    let limit = spec.get("backoffLimit");
    let limit = limit.map_or(Some(BACKOFF_LIMIT), |part| reader.whole(&part, 0))?;
    let deadline = match spec.get("activeDeadlineSeconds") {
        Some(part) => Some(reader.whole(&part, 1)?),
        None => None,
    };
    let mut rules = Vec::new();
    let failures = spec.at(&["podFailurePolicy", "rules"]);
    for (number, part) in (1..).zip(failures.iter().flat_map(Part::items)) {
        rules.push(rule(reader, &part, number)?);
    }
    rules.push(crashes());
    if deadline.is_some() {
        drawn.note(
            "activeDeadlineSeconds",
            "bounds when a retry may start; Kubernetes also ends the pod that runs then.",
        );
    }
    for key in ["backoffLimitPerIndex", "completions", "parallelism"] {
        if spec.get(key).is_some() {
            drawn.note(key, "each index is a step of its own here, with its own count.");
        }
    }
    let (first, longest) = WAITS;
    let seconds = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Some(PolicySpec {
        max_retries: Some(numbers::count(limit)),
        max_elapsed: deadline.map(|deadline| Span(seconds(deadline))),
        backoff: Some(BackoffSpec { max_delay: Some(Span(longest)), ..exponential(first, 2.0) }),
        rules,
        ..PolicySpec::default()
    })
}

/// The first rule that matches decides, in both.
fn rule(reader: &mut Reader, part: &Part<'_>, number: u32) -> Option<RuleSpec> {
    reader.only(part, &["action", "onExitCodes", "onPodConditions"]);
    let matches = match (part.get("onExitCodes"), part.get("onPodConditions")) {
        (Some(codes), None) => on_exit_codes(reader, &codes)?,
        (None, Some(conditions)) => {
            let types = conditions.items();
            let types: Vec<Part<'_>> = types.iter().filter_map(|part| part.get("type")).collect();
            let types: Vec<&str> = types.iter().filter_map(|part| part.text()).collect();
            of_types(&types)
        }
        _ => {
            reader.refuse(part, "accepted: exactly one of onExitCodes and onPodConditions");
            return None;
        }
    };
    let name = |action: &str| format!("{action}-{number}");
    match part.get("action").and_then(|action| action.text()) {
        Some("FailJob" | "FailIndex") => Some(stop(&name("fail"), matches)),
        Some("Ignore") => Some(retry_uncounted(&name("ignore"), matches, u32::MAX, None)),
        Some("Count") => Some(retry(&name("count"), matches)),
        _ => {
            reader.refuse(
                part,
                "action is missing or unknown; accepted: FailJob, FailIndex, Ignore or Count",
            );
            None
        }
    }
}

fn on_exit_codes(reader: &mut Reader, part: &Part<'_>) -> Option<MatchSpec> {
    let values = part.get("values").map(|values| values.items()).unwrap_or_default();
    let codes: Option<Vec<i32>> = values
        .iter()
        .map(|part| reader.whole(part, 0).and_then(|code| i32::try_from(code).ok()))
        .collect();
    let codes = codes.filter(|codes| !codes.is_empty());
    match (part.get("operator").and_then(|operator| operator.text()), codes) {
        (Some("In"), Some(codes)) => Some(MatchSpec {
            exit_codes: codes.into_iter().map(ExitCodesSpec::One).collect(),
            ..MatchSpec::default()
        }),
        (Some("NotIn"), Some(codes)) => {
            let codes: Vec<String> = codes.iter().map(i32::to_string).collect();
            let codes = codes.join(", ");
            Some(when(format!("failure.exit_code > 0 && !(failure.exit_code in [{codes}])")))
        }
        _ => {
            reader.refuse(part, "accepted: operator In or NotIn, and values, a list of exit codes");
            None
        }
    }
}

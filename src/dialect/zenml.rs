//! ZenML: `StepRetryConfig` of pipelines and steps.
//!
//! A loop around the step: wait `delay`, then multiply it by `backoff`, whose
//! default is 0. Who runs the loop depends on the orchestrator: a Kubernetes Job
//! has waits of its own, and isolated steps of dynamic pipelines have none.

use std::time::Duration;

use super::{
    System, Unit,
    document::{Drawn, Part, Reader},
    kubernetes, numbers,
    parts::{crashes, exponential, fixed, of_types, retry, retry_uncounted, stop, when},
};
use crate::{
    config::yaml::Kind,
    domain::{
        policy::spec::{BackoffSpec, MatchSpec, PolicySpec, RuleSpec},
        time::Span,
    },
};

/// The fields of a `StepRetryConfig`.
const FIELDS: &[&str] = &["max_retries", "delay", "backoff"];
/// Why a pod waits that will never start.
const NEVER_STARTS: [&str; 4] =
    ["InvalidImageName", "ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError"];

/// Reads a document.
pub fn read(reader: &mut Reader, root: &Part<'_>) {
    if !reader.mapping(root) {
        return;
    }
    let place = Place::of(reader, root);
    let of_pipeline = root.said("retry");
    let steps = root.get("steps");
    if let Some(retry) = &of_pipeline {
        let name = if steps.is_some() { "zenml-pipeline" } else { "zenml" };
        keep(reader, Some(retry), name, &place);
    } else if root.has_any(FIELDS) {
        keep(reader, Some(root), "zenml", &place);
    }
    for (name, _, step) in steps.iter().flat_map(Part::entries) {
        if let Some(retry) = step.get("retry") {
            keep(reader, Some(&retry), name, &place);
        }
    }
}

/// What runs the steps.
struct Place {
    kubernetes: bool,
    isolated: bool,
    /// Before 0.84 the number counted attempts.
    counts_attempts: bool,
}

impl Place {
    fn of(reader: &mut Reader, root: &Part<'_>) -> Self {
        let word = |key| root.get(key).and_then(|part| part.text());
        let version = word("zenml_version").unwrap_or_default();
        let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
        let before = matches!((parts.next().flatten(), parts.next().flatten()), (Some(0), Some(minor)) if minor < 84);
        let kubernetes = word("orchestrator") == Some("kubernetes");
        if let (true, Some(margin)) = (kubernetes, root.get("backoff_limit_margin")) {
            reader.note(
                margin.path,
                "pods that Kubernetes starts beyond max_retries are refused by ZenML's server: \
                 the margin grants no retry",
            );
        }
        Self { kubernetes, isolated: word("runtime") == Some("isolated"), counts_attempts: before }
    }
}

/// A config, every value read.
struct Retry {
    max_retries: i64,
    delay: i64,
    backoff: i64,
}

fn keep(reader: &mut Reader, part: Option<&Part<'_>>, name: &str, place: &Place) {
    let Some(part) = part else { return };
    let mut drawn = Drawn::default();
    if *part.kind() == Kind::Nothing {
        drawn.spec = PolicySpec { max_retries: Some(0), ..PolicySpec::default() };
        drawn.spec.rules = rules(reader.is_faithful(), place);
        reader.keep(part, name, Unit::Step, drawn);
        return;
    }
    if !reader.mapping(part) {
        return;
    }
    let retry = read_retry(reader, part, place, &mut drawn);
    let Some(retry) = retry else { return };
    draw(reader.is_faithful(), &retry, place, &mut drawn);
    reader.keep(part, name, Unit::Step, drawn);
}

fn read_retry(
    reader: &mut Reader,
    part: &Part<'_>,
    place: &Place,
    drawn: &mut Drawn,
) -> Option<Retry> {
    let beside = ["zenml_version", "orchestrator", "runtime", "backoff_limit_margin", "steps"];
    for (key, _, field) in part.entries() {
        let known = FIELDS.contains(&key) || (part.path.is_empty() && beside.contains(&key));
        if !known {
            drawn.note(field.path, "ZenML ignores a field that it does not know: left out.");
        }
    }
    let least = if place.counts_attempts { i64::MIN } else { 1 };
    let max_retries = number(reader, part, "max_retries", 1, least);
    let delay = number(reader, part, "delay", 0, 0);
    let backoff = number(reader, part, "backoff", 0, 0);
    Some(Retry { max_retries: max_retries?, delay: delay?, backoff: backoff? })
}

/// A whole number as pydantic reads one: texts and 2.0 are fine.
fn number(
    reader: &mut Reader,
    part: &Part<'_>,
    key: &str,
    default: i64,
    least: i64,
) -> Option<i64> {
    let Some(part) = part.said(key) else { return Some(default) };
    let accepted = match least {
        1 => "a whole number greater than 0",
        0 => "a whole number, 0 or more",
        _ => "a whole number",
    };
    let refused = |reader: &mut Reader, said: &str| {
        reader.refuse(&part, format!("{said}; accepted: {accepted}"));
        None
    };
    if reader.is_template(&part, System::Zenml) {
        return None;
    }
    let number = match part.kind() {
        Kind::Number(number) if number.fract() != 0.0 => {
            return refused(
                reader,
                "Input should be a valid integer, got a number with a fractional part",
            );
        }
        #[expect(clippy::cast_possible_truncation, reason = "whole, and held to its range")]
        Kind::Number(number) if number.abs() < 9e18 => Some(*number as i64),
        Kind::Text(text) => {
            numbers::python_int(text.trim().trim_end_matches('0').strip_suffix('.').unwrap_or(text))
        }
        Kind::Truth(truth) => Some(i64::from(*truth)),
        _ => part.whole(),
    };
    match number {
        None => refused(reader, "Input should be a valid integer"),
        Some(number) if number < least && least == 1 => {
            let how = "to retry nothing, leave the retry config out";
            refused(reader, &format!("Input should be greater than 0; {how}"))
        }
        Some(number) if number < least => {
            refused(reader, "Input should be greater than or equal to 0")
        }
        Some(number) => Some(number),
    }
}

fn draw(faithful: bool, retry: &Retry, place: &Place, drawn: &mut Drawn) {
    let retries = if place.counts_attempts && faithful {
        retry.max_retries.saturating_sub(1)
    } else {
        retry.max_retries
    };
    drawn.spec = PolicySpec {
        max_retries: Some(numbers::count(retries)),
        backoff: backoff(faithful, retry, place),
        rules: rules(faithful, place),
        max_crash_retries: (faithful && !place.kubernetes).then_some(0),
        ..PolicySpec::default()
    };
    tell(faithful, retry, place, drawn);
}

fn backoff(faithful: bool, retry: &Retry, place: &Place) -> Option<BackoffSpec> {
    if faithful && place.kubernetes {
        let (first, longest) = kubernetes::WAITS;
        return Some(BackoffSpec { max_delay: Some(Span(longest)), ..exponential(first, 2.0) });
    }
    if retry.delay == 0 || (faithful && place.isolated) {
        return None;
    }
    let delay = Duration::from_secs(u64::try_from(retry.delay).unwrap_or(0));
    let constant = retry.backoff == 1 || (retry.backoff == 0 && !faithful);
    let factor = f64::from(numbers::count(retry.backoff));
    Some(if constant { fixed(delay) } else { exponential(delay, factor) })
}

fn rules(faithful: bool, place: &Place) -> Vec<RuleSpec> {
    let mut rules = vec![stop("run-stopped", of_types(&["RunStoppedException"]))];
    if place.kubernetes {
        rules.push(stop("never-starts", named(&NEVER_STARTS)));
        let disruption = named(&["DisruptionTarget", "PodDisruption"]);
        rules.push(retry_uncounted("disruption", disruption, u32::MAX, None));
    } else if faithful {
        // The loop catches what ends a process as well.
        rules.push(retry("interrupts", of_types(&["KeyboardInterrupt", "SystemExit"])));
    }
    if !faithful || place.kubernetes {
        rules.push(crashes());
    }
    rules
}

/// What Kubernetes names so, as the type of the error or in its message.
fn named(reasons: &[&str]) -> MatchSpec {
    let types: Vec<String> = reasons.iter().map(|name| format!("{name:?}")).collect();
    let (types, pattern) = (types.join(", "), reasons.join("|"));
    when(format!("failure.error_type in [{types}] || failure.message.matches(\"{pattern}\")"))
}

fn tell(faithful: bool, retry: &Retry, place: &Place, drawn: &mut Drawn) {
    if retry.backoff == 0 && retry.delay > 0 && !(faithful && (place.kubernetes || place.isolated))
    {
        drawn.note(
            "backoff",
            if faithful {
                "0, its default, waits the delay once and then not at all: kept."
            } else {
                "0, its default, is read as a constant delay. ZenML waits the delay once and then \
                 not at all. --faithful keeps ZenML's way."
            },
        );
    }
    if place.counts_attempts {
        drawn.note(
            "max_retries",
            if faithful {
                "before 0.84 the number of all attempts, the first included."
            } else {
                "read as retries. Before 0.84 ZenML counted the first attempt in. --faithful keeps \
                 that."
            },
        );
    }
    if place.kubernetes && (retry.delay > 0 || retry.backoff > 0) {
        drawn.note(
            "delay",
            if faithful {
                "on Kubernetes the Job waits 10 s, 20 s, 40 s … up to 6 min, whatever delay and \
                 backoff say: kept."
            } else {
                "delay and backoff are kept; on Kubernetes ZenML ignores them, and the Job waits \
                 10 s, 20 s, 40 s … up to 6 min. --faithful keeps that."
            },
        );
    }
    if place.isolated && retry.delay > 0 {
        drawn.note(
            "delay",
            if faithful {
                "isolated steps of dynamic pipelines are started again at once: kept."
            } else {
                "kept; ZenML starts isolated steps of dynamic pipelines again at once. --faithful \
                 keeps that."
            },
        );
    }
    if faithful && !place.kubernetes {
        drawn.note(
            "retry",
            "Ctrl-C and sys.exit are retried, and a process that is killed is not: so does ZenML.",
        );
    }
}

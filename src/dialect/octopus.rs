//! Octopus Deploy: step retries and guided failure.
//!
//! An action that fails is tried again at once, then every 15 s (or the minimum
//! backoff), three times in all; then, under guided failure, a person decides.

use std::time::Duration;

use super::{
    System, Unit,
    document::{Drawn, Part, Reader},
    numbers,
    parts::{crashes, fixed, of_classes, stop},
};
use crate::{
    config::yaml::Kind,
    domain::{
        failure::FailureClass,
        policy::spec::{BackoffSpec, ExhaustionSpec, HoldAnswer, HoldSpec, MatchSpec, PolicySpec},
        time::Span,
    },
};

/// The number of retries of an action.
const COUNT: &str = "Octopus.Action.AutoRetry.MaximumCount";
/// Seconds between them.
const BACKOFF: &str = "Octopus.Action.AutoRetry.MinimumBackoff";
/// Retries of a step that has them switched on.
const RETRIES: i64 = 3;
/// The wait between them when none is given.
const WAIT: i64 = 15;
/// An interval from which on Octopus warns.
const LONG: i64 = 3600;
/// Times that a person may have the step run again.
const MANUAL_RETRIES: u32 = 10;
/// The first version in which a timeout leads to guided failure.
const GUIDES_TIMEOUTS: [u32; 3] = [2024, 2, 7909];

/// Types of actions that have neither retries nor guided failure, as the
/// documentation and as deployment processes name them.
const EXCLUDED: [(&str, &str); 4] = [
    ("Deploy a Release", "Octopus.DeployRelease"),
    ("Health Check", "Octopus.HealthCheck"),
    ("Manual Intervention Required", "Octopus.Manual"),
    ("Send an Email", "Octopus.Email"),
];

/// Reads a document.
pub fn read(reader: &mut Reader, root: &Part<'_>) {
    if !reader.mapping(root) {
        return;
    }
    let Some(guided) = guided(reader, root) else { return };
    let version = root.get("octopus_version").and_then(|version| version.text()).map(version);
    let of_all = OfAll { guided, version };
    let process = root.get("DeploymentProcess").unwrap_or_else(|| root.clone());
    if let Some(steps) = process.get("Steps") {
        for step in steps.items() {
            for action in step.get("Actions").iter().flat_map(Part::items) {
                let name = action.get("Name").or_else(|| step.get("Name"));
                let name = name.and_then(|name| name.text()).unwrap_or("action");
                keep(reader, &action, name, &of_all);
            }
        }
    } else {
        keep(reader, root, "octopus", &of_all);
    }
}

/// What holds for every action of the file.
struct OfAll {
    guided: bool,
    version: Option<[u32; 3]>,
}

fn version(text: &str) -> [u32; 3] {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    [parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0)]
}

/// Whether a person is asked: the deployment says so, else the project, else
/// the environment.
fn guided(reader: &mut Reader, root: &Part<'_>) -> Option<bool> {
    let said = root.get("guided_failure");
    let layered = said.as_ref().filter(|part| part.is_map());
    if let (Some(part), None) = (&said, layered) {
        return switch(reader, part).map(|said| said.unwrap_or(false));
    }
    let layer =
        |own: &str, api: &[&str]| layered.and_then(|part| part.get(own)).or_else(|| root.at(api));
    let layers = [
        layer("deployment", &["Deployment", "UseGuidedFailure"])
            .or_else(|| root.get("UseGuidedFailure")),
        layer("project", &["Project", "DefaultGuidedFailureMode"])
            .or_else(|| root.get("DefaultGuidedFailureMode")),
        layer("environment", &["Environment", "UseGuidedFailure"]),
    ];
    for layer in layers.into_iter().flatten() {
        if let Some(said) = switch(reader, &layer)? {
            return Some(said);
        }
    }
    Some(false)
}

/// On, off, or left to the next layer: None within.
fn switch(reader: &mut Reader, part: &Part<'_>) -> Option<Option<bool>> {
    let word = match part.kind() {
        Kind::Truth(truth) => return Some(Some(*truth)),
        Kind::Text(word) => word.to_lowercase(),
        _ => String::new(),
    };
    match word.replace([' ', '_', '-'], "").as_str() {
        "on" | "true" | "alwayson" => Some(Some(true)),
        "off" | "false" | "alwaysoff" => Some(Some(false)),
        "usedefault" | "environmentdefault" | "default" => Some(None),
        _ => {
            reader.refuse(part, "accepted: true, false, On, Off, EnvironmentDefault or UseDefault");
            None
        }
    }
}

/// An action, every value read.
struct Action {
    retries: i64,
    wait: Option<i64>,
    excluded: bool,
    required: bool,
}

fn keep(reader: &mut Reader, part: &Part<'_>, name: &str, of_all: &OfAll) {
    let Some(action) = read_action(reader, part) else { return };
    let mut drawn = Drawn::default();
    draw(reader.is_faithful(), &action, of_all, &mut drawn);
    reader.keep(part, name, Unit::Step, drawn);
}

fn read_action(reader: &mut Reader, part: &Part<'_>) -> Option<Action> {
    let property =
        |key| part.get("Properties").and_then(|all| all.get(key)).or_else(|| part.get(key));
    let count = match property(COUNT) {
        Some(count) => number(reader, &count),
        None => switched(reader, part),
    };
    let wait = property(BACKOFF).map(|wait| (number(reader, &wait), wait));
    let kind = part.get("ActionType").or_else(|| part.get("step_type"));
    let kind_name = kind.as_ref().and_then(|kind| kind.text()).unwrap_or_default();
    let excluded = EXCLUDED
        .iter()
        .any(|(title, id)| title.eq_ignore_ascii_case(kind_name) || *id == kind_name);
    let retries = count?;
    if let (true, Some(kind)) = (excluded && retries > 0, &kind) {
        reader.refuse(
            kind,
            format!("retries are not available for this step type; accepted: no {COUNT}"),
        );
        return None;
    }
    let wait = match wait {
        None => None,
        Some((seconds, part)) => {
            let seconds = seconds?;
            if retries == 0 {
                reader.refuse(
                    &part,
                    "a minimum backoff is not valid when retry is disabled; accepted: retries \
                     beside it, or no minimum backoff",
                );
                return None;
            }
            Some(seconds)
        }
    };
    let required = part.get("IsRequired").or_else(|| part.get("required"));
    let required = match required {
        Some(required) => reader.truth(&required)?,
        None => false,
    };
    Some(Action { retries, wait, excluded, required })
}

/// The switch that the portal shows.
fn switched(reader: &mut Reader, part: &Part<'_>) -> Option<i64> {
    match part.get("retries") {
        None => Some(0),
        Some(part) => match part.whole() {
            Some(_) => number(reader, &part),
            None => reader.truth(&part).map(|on| if on { RETRIES } else { 0 }),
        },
    }
}

/// A property: a whole number, as text or as it is.
fn number(reader: &mut Reader, part: &Part<'_>) -> Option<i64> {
    if reader.is_template(part, System::Octopus) {
        return None;
    }
    let number = match part.text() {
        Some("") => Some(0),
        Some(text) => numbers::go_int(text.trim()),
        None => part.whole(),
    };
    let number = number.filter(|number| *number >= 0);
    if number.is_none() {
        reader.refuse(part, "accepted: a whole number, 0 or more, such as \"3\"");
    }
    number
}

fn draw(faithful: bool, action: &Action, of_all: &OfAll, drawn: &mut Drawn) {
    let guided = of_all.guided && !action.excluded;
    let late_timeouts = of_all.version.is_none_or(|version| version >= GUIDES_TIMEOUTS);
    let mut rules = Vec::new();
    if guided && !late_timeouts && faithful {
        let matches = MatchSpec {
            condition: format!("step.retries >= {}", action.retries),
            ..of_classes(&[FailureClass::Timeout])
        };
        rules.push(stop("timeouts-end", matches));
        drawn.note(
            "octopus_version",
            "before 2024.2.7909 a timeout ended the deployment without guidance: kept.",
        );
    }
    rules.push(crashes());
    drawn.spec = PolicySpec {
        max_retries: Some(numbers::count(action.retries)),
        backoff: backoff(action),
        rules,
        on_exhaustion: guided.then(|| ExhaustionSpec { stop: None, hold: Some(hold(action)) }),
        ..PolicySpec::default()
    };
    tell(action, guided, drawn);
}

/// The first retry at once, the others after the interval.
fn backoff(action: &Action) -> Option<BackoffSpec> {
    let wait = action.wait.unwrap_or(WAIT);
    let seconds = u64::try_from(wait).unwrap_or(0);
    (action.retries > 0 && seconds > 0).then(|| BackoffSpec {
        first_delay: Some(Span(Duration::ZERO)),
        ..fixed(Duration::from_secs(seconds))
    })
}

fn hold(action: &Action) -> HoldSpec {
    let allowed = if action.required {
        vec![HoldAnswer::Fail, HoldAnswer::Retry]
    } else {
        vec![HoldAnswer::Fail, HoldAnswer::Retry, HoldAnswer::Skip, HoldAnswer::ExcludeHost]
    };
    HoldSpec { allowed, max_manual_retries: Some(MANUAL_RETRIES), ..HoldSpec::default() }
}

fn tell(action: &Action, guided: bool, drawn: &mut Drawn) {
    if action.retries > 0 {
        drawn.note(
            "retries",
            "report the action that failed, and the next attempt resumes from it; earlier actions \
             are not repeated.",
        );
    }
    if action.retries > 0 && action.retries != RETRIES {
        drawn.note(COUNT, "the portal of Octopus only offers 3; any number is kept here.");
    }
    if action.wait.is_some() {
        drawn.note(
            BACKOFF,
            "whether Octopus waits it before the first retry, too, its documentation does not say: \
             here the first retry follows at once.",
        );
    }
    if action.wait.is_some_and(|wait| wait >= LONG) {
        drawn.note(BACKOFF, "an hour or more: Octopus warns, and accepts it.");
    }
    if guided {
        drawn.note(
            "guided failure",
            "Ignore is SKIP. Exclude machine is EXCLUDE_HOST, which runs the step again on another \
             host; where a step belongs to its machine, answer SKIP.",
        );
    }
    if action.excluded {
        drawn.note("ActionType", "this type has neither retries nor guided failure.");
    }
}

//! Argo Workflows: `retryStrategy` of templates, and that of container sets.
//!
//! Argo decides after every attempt, in this order: shutdown and deadline of the
//! workflow; `backoff.maxDuration`, the wait included; the wait itself, but only
//! under a `limit`; `retryPolicy`; `limit`; `expression`. Its documentation
//! promises less: retry what the policy and the expression name, `limit` times,
//! with the backoff in between.

use std::time::Duration;

use super::{
    System, Unit,
    document::{Drawn, Part, Reader},
    expression::{self, Translated},
    numbers,
    parts::{crashes, exponential, fixed, of_classes, retry_uncounted, stop, stop_late, when},
};
use crate::{
    config::{problem::Place, yaml::Kind},
    domain::{
        failure::FailureClass,
        pattern::Pattern,
        policy::spec::{
            AntiAffinityMode, AntiAffinitySpec, BackoffSpec, MatchSpec, PolicySpec, Quirk, RuleSpec,
        },
        time::Span,
    },
};

/// The fields of a strategy.
const FIELDS: &[&str] = &["limit", "retryPolicy", "backoff", "expression", "affinity"];
/// The fields of its backoff.
const BACKOFF_FIELDS: &[&str] = &["duration", "factor", "maxDuration", "cap"];

/// Restarts of a pod when the controller does not say how many.
const POD_RESTARTS: i64 = 3;

/// What a pod's lost worker and an interrupted platform look like: Argo's phase
/// Error.
const ERRORS: [FailureClass; 2] = [FailureClass::Error, FailureClass::Crash];
/// What the work itself did wrong: Argo's phase Failed.
const FAILURES: [FailureClass; 4] = [
    FailureClass::Failure,
    FailureClass::Transient,
    FailureClass::Timeout,
    FailureClass::Throttled,
];

/// What Argo finds in a message before it calls an error transient.
const TRANSIENT: &str = "(?:unexpected error|stream error) when reading response body|\
Connection closed by foreign host|net/http: TLS handshake timeout|i/o timeout|\
connection (?:timed out|reset by peer)|http2: client connection lost|\
http2: server sent GOAWAY and closed the connection|\
request did not complete within requested timeout|connect: connection refused|invalid connection|\
etcdserver: (?:leader changed|request timed out|too many requests)|\
client rate limiter Wait returned an error|upper: no more rows in";

/// Reads a document.
pub fn read(reader: &mut Reader, root: &Part<'_>) {
    if !reader.mapping(root) {
        return;
    }
    let controller = Controller::of(reader, root);
    let controller = &controller;
    if let Some(spec) = spec_of(root) {
        read_workflow(reader, root, &spec, controller);
    } else if root.has_any(&["retryStrategy", "containerSet"]) {
        if let Some(strategy) = root.said("retryStrategy") {
            keep_strategy(reader, &strategy, "argo", controller);
        }
        if let Some(strategy) = root.at(&["containerSet", "retryStrategy"]) {
            keep_container_set(reader, &strategy, "argo-containers");
        }
    } else if root.has_any(FIELDS) || root.entries().is_empty() {
        keep_strategy(reader, root, "argo", controller);
    }
}

/// The workflow that a document describes.
fn spec_of<'a>(root: &Part<'a>) -> Option<Part<'a>> {
    let spec = root.get("spec")?;
    Some(spec.get("workflowSpec").unwrap_or(spec))
}

fn read_workflow(reader: &mut Reader, root: &Part<'_>, spec: &Part<'_>, controller: &Controller) {
    let workflow = root
        .at(&["metadata", "name"])
        .or_else(|| root.at(&["metadata", "generateName"]))
        .and_then(|name| name.text())
        .unwrap_or("workflow")
        .trim_end_matches('-')
        .to_owned();
    let of_all = spec.get("retryStrategy");
    let defaults = spec.at(&["templateDefaults", "retryStrategy"]);
    if let Some(strategy) = &of_all {
        reader.note(
            strategy.path.clone(),
            format!(
                "policy {workflow:?} is for every template without a strategy of its own. Argo \
                 applies it to Steps and DAG templates as well, so that retries of nested levels \
                 multiply; here each step has one count."
            ),
        );
        keep_strategy(reader, strategy, &workflow, controller);
    }
    if let Some(strategy) = &defaults {
        keep_strategy(reader, strategy, &format!("{workflow}-default"), controller);
    }
    for template in spec.get("templates").iter().flat_map(Part::items) {
        let name = template.get("name").and_then(|name| name.text()).unwrap_or("template");
        if let Some(strategy) = template.said("retryStrategy").filter(|part| part.is_map()) {
            if template.get("suspend").is_some() {
                reader.note(strategy.path.clone(), "a suspend template is never retried: left out");
            } else {
                keep_merged(reader, &strategy, defaults.as_ref(), name, controller);
            }
        }
        if let Some(strategy) = template.at(&["containerSet", "retryStrategy"]) {
            keep_container_set(reader, &strategy, &format!("{name}-containers"));
        }
    }
    if let Some(deadline) = spec.get("activeDeadlineSeconds") {
        reader.note(
            deadline.path.clone(),
            "the workflow's deadline is no part of a policy: pass it as the deadline of each step",
        );
    }
}

/// A regular expression of Go's.
fn pattern(reader: &mut Reader, part: &Part<'_>) -> Option<String> {
    let text = reader.text(part, System::Argo)?;
    if text.is_empty() {
        return None;
    }
    if let Err(error) = Pattern::parse(text) {
        reader.refuse(part, error.to_string());
        return None;
    }
    Some(text.to_owned())
}

/// What the controller is set to, when a fragment says so beside the strategy.
#[derive(Clone, Default)]
struct Controller {
    /// The pattern of transient errors, beside Argo's own.
    transient: Option<String>,
    /// How often a pod that never started is made anew, uncounted.
    pod_restarts: u32,
}

impl Controller {
    fn of(reader: &mut Reader, root: &Part<'_>) -> Self {
        let transient = root.at(&["env", "TRANSIENT_ERROR_PATTERN"]);
        let transient = transient.and_then(|part| pattern(reader, &part));
        let restarts = root.get("failedPodRestart");
        let enabled = restarts.as_ref().and_then(|part| part.get("enabled"));
        let enabled = enabled.is_some_and(|part| part.truth() == Some(true));
        let max = restarts.and_then(|part| part.get("maxRestarts"));
        let max = max.map_or(Some(POD_RESTARTS), |part| int32(reader, &part));
        let pod_restarts = max.filter(|_| enabled).map_or(0, numbers::count);
        Self { transient, pod_restarts }
    }
}

/// A strategy as it is written, each value read.
#[derive(Default)]
struct Strategy {
    limit: Option<i64>,
    policy: Option<RetryPolicy>,
    expression: Option<Translated>,
    backoff: Option<Backoff>,
    anti_affinity: bool,
    controller: Controller,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RetryPolicy {
    Always,
    OnFailure,
    OnError,
    OnTransientError,
}

/// Spans in nanoseconds, as Argo has them; negative ones are possible.
struct Backoff {
    duration: i64,
    factor: Option<i64>,
    max_duration: Option<i64>,
    cap: Option<i64>,
}

fn keep_strategy(reader: &mut Reader, part: &Part<'_>, name: &str, controller: &Controller) {
    keep_merged(reader, part, None, name, controller);
}

/// A template's strategy over the defaults of templates, field by field.
fn keep_merged(
    reader: &mut Reader,
    part: &Part<'_>,
    defaults: Option<&Part<'_>>,
    name: &str,
    controller: &Controller,
) {
    if *part.kind() != Kind::Nothing && !reader.mapping(part) {
        return;
    }
    reader.only(part, FIELDS);
    let layers = Layers { own: part, defaults };
    let mut drawn = Drawn::default();
    if let Some(strategy) = read_strategy(reader, &layers, controller, &mut drawn) {
        draw(reader, &strategy, &mut drawn);
        reader.keep(part, name, Unit::Step, drawn);
    }
}

/// Where a field is looked for.
struct Layers<'p, 'a> {
    own: &'p Part<'a>,
    defaults: Option<&'p Part<'a>>,
}

impl<'a> Layers<'_, 'a> {
    fn get(&self, keys: &[&str]) -> Option<Part<'a>> {
        self.own.at(keys).or_else(|| self.defaults?.at(keys))
    }
}

/// None when something is wrong with it.
fn read_strategy(
    reader: &mut Reader,
    layers: &Layers<'_, '_>,
    controller: &Controller,
    drawn: &mut Drawn,
) -> Option<Strategy> {
    let limit = given(layers.get(&["limit"]), |part| int32(reader, part));
    let policy = given(layers.get(&["retryPolicy"]), |part| retry_policy(reader, part));
    let expression = given(layers.get(&["expression"]), |part| read_expression(reader, part));
    let backoff = given(layers.get(&["backoff"]), |part| read_backoff(reader, layers, part, drawn));
    if let Some(affinity) = layers.get(&["affinity"]) {
        reader.only(&affinity, &["nodeAntiAffinity"]);
    }
    Some(Strategy {
        limit: limit?,
        policy: policy?,
        expression: expression?.flatten(),
        backoff: backoff?,
        anti_affinity: layers.get(&["affinity", "nodeAntiAffinity"]).is_some(),
        controller: controller.clone(),
    })
}

/// What is read of a part that may be absent: None when it is wrong.
fn given<'a, T>(
    part: Option<Part<'a>>,
    read: impl FnOnce(&Part<'a>) -> Option<T>,
) -> Option<Option<T>> {
    match part {
        None => Some(None),
        Some(part) => read(&part).map(Some),
    }
}

/// A number that Argo takes as it is or in quotes.
fn int32(reader: &mut Reader, part: &Part<'_>) -> Option<i64> {
    let number = match part.text() {
        Some(_) if reader.is_template(part, System::Argo) => return None,
        Some(text) => numbers::go_int(text),
        None => part.whole(),
    };
    let number = number.filter(|number| i32::try_from(*number).is_ok());
    if number.is_none() {
        reader.refuse(
            part,
            "it cannot be resolved to an int; accepted: a whole number such as 3 or \"3\", at most \
             2147483647",
        );
    }
    number
}

fn retry_policy(reader: &mut Reader, part: &Part<'_>) -> Option<RetryPolicy> {
    const ACCEPTED: &str = "accepted: Always, OnFailure, OnError or OnTransientError";
    match reader.text(part, System::Argo)? {
        "Always" => Some(RetryPolicy::Always),
        "OnFailure" => Some(RetryPolicy::OnFailure),
        "OnError" => Some(RetryPolicy::OnError),
        "OnTransientError" => Some(RetryPolicy::OnTransientError),
        _ => {
            reader.refuse(part, format!("it is not a valid RetryPolicy; {ACCEPTED}"));
            None
        }
    }
}

/// None within when it says nothing.
fn read_expression(reader: &mut Reader, part: &Part<'_>) -> Option<Option<Translated>> {
    let text = reader.text(part, System::Argo)?;
    if text.is_empty() {
        return Some(None);
    }
    match expression::translate(text) {
        Ok(translated) => Some(Some(translated)),
        Err(refused) => {
            let place = reader.place_within(part, text, refused.at);
            let near: String = text[refused.at..].chars().take(40).collect();
            let character = text[..refused.at].chars().count() + 1;
            let message = format!("character {character} of the expression: {}", refused.message);
            reader.refuse_at(place, &part.path, &near, message);
            None
        }
    }
}

fn read_backoff(
    reader: &mut Reader,
    layers: &Layers<'_, '_>,
    part: &Part<'_>,
    drawn: &mut Drawn,
) -> Option<Backoff> {
    if !reader.mapping(part) {
        return None;
    }
    reader.only(part, BACKOFF_FIELDS);
    let span = |reader: &mut Reader, drawn: &mut Drawn, key| {
        let part = layers.get(&["backoff", key]).filter(|part| part.text() != Some(""));
        given(part, |part| duration(reader, part, drawn))
    };
    let duration = span(reader, drawn, "duration");
    if matches!(duration, Some(None)) {
        let path = format!("{}.duration", part.path);
        reader.refuse_at(
            part.place(),
            &path,
            "nothing",
            "no base duration is specified; accepted: such as \"10\" for seconds, or 5m",
        );
        return None;
    }
    let factor = given(layers.get(&["backoff", "factor"]), |part| int32(reader, part));
    let max_duration = span(reader, drawn, "maxDuration");
    let cap = span(reader, drawn, "cap");
    Some(Backoff { duration: duration??, factor: factor?, max_duration: max_duration?, cap: cap? })
}

/// A length of time in nanoseconds.
fn duration(reader: &mut Reader, part: &Part<'_>, drawn: &mut Drawn) -> Option<i64> {
    const ACCEPTED: &str = "accepted: seconds in quotes, as \"30\", or a Go duration such as \
                            500ms, 90s, 5m or 1h30m";
    if part.whole().is_some() {
        reader.refuse(part, format!("Argo takes a text here, not a number; {ACCEPTED}"));
        return None;
    }
    let text = reader.text(part, System::Argo)?;
    let seconds = numbers::go_int(text).and_then(|seconds| seconds.checked_mul(1_000_000_000));
    let read = seconds.map_or_else(|| numbers::go_duration(text), Ok);
    let days = text.strip_suffix('d').and_then(numbers::go_int);
    match (read, days) {
        (Ok(nanos), _) => Some(nanos),
        (Err(said), Some(days)) if !reader.is_faithful() => {
            let field = part.path.rsplit("retryStrategy.").next().unwrap_or_default();
            drawn.note(
                field,
                format!(
                    "{text}, as Argo's documentation has it, is {} h here. Argo itself ends such a \
                     step as Error at its first failure: {said}.",
                    days.saturating_mul(24)
                ),
            );
            days.checked_mul(86_400_000_000_000)
        }
        (Err(said), _) => {
            reader.refuse(part, format!("unable to parse it as a duration: {said}; {ACCEPTED}"));
            None
        }
    }
}

/// Writes the policy of a strategy.
fn draw(reader: &Reader, strategy: &Strategy, drawn: &mut Drawn) {
    let faithful = reader.is_faithful();
    let timing = Timing::of(strategy, faithful);
    drawn.spec = PolicySpec {
        max_retries: strategy.limit.map(numbers::count),
        max_elapsed: timing.max_elapsed,
        backoff: timing.backoff.clone(),
        rules: rules(strategy, &timing, faithful),
        host_anti_affinity: strategy
            .anti_affinity
            .then_some(AntiAffinitySpec { mode: AntiAffinityMode::Hard, decay: None }),
        quirks: quirks(&timing, faithful),
        ..PolicySpec::default()
    };
    tell(strategy, &timing, faithful, drawn);
}

/// The waits of a strategy.
struct Timing {
    backoff: Option<BackoffSpec>,
    max_elapsed: Option<Span>,
    /// Whether there is any wait at all.
    waits: bool,
    /// Whether the backoff only bounds, and nobody waits for it.
    only_bounds: bool,
}

impl Timing {
    fn of(strategy: &Strategy, faithful: bool) -> Self {
        let none = Self { backoff: None, max_elapsed: None, waits: false, only_bounds: false };
        let Some(backoff) = &strategy.backoff else { return none };
        let waited = strategy.limit.is_some() || !faithful;
        // No wait at all is a bound that has passed when the first failure comes.
        let max_elapsed = backoff
            .max_duration
            .map(|nanos| Span(numbers::nanos(nanos).max(Duration::from_nanos(1))));
        let has_delay = backoff.duration > 0 && backoff.cap.is_none_or(|cap| cap > 0);
        let written = has_delay && (waited || max_elapsed.is_some());
        Self {
            backoff: written.then(|| spec_of_backoff(backoff, strategy.limit, faithful)),
            max_elapsed,
            waits: has_delay && waited,
            only_bounds: written && !waited,
        }
    }
}

fn spec_of_backoff(backoff: &Backoff, limit: Option<i64>, faithful: bool) -> BackoffSpec {
    let delay = numbers::nanos(backoff.duration);
    let factor = u32::try_from(backoff.factor.unwrap_or(0)).unwrap_or(0);
    let cap = backoff.cap.map(|cap| Span(numbers::nanos(cap)));
    if factor <= 1 {
        return BackoffSpec { max_delay: cap.filter(|cap| *cap < Span(delay)), ..fixed(delay) };
    }
    // Argo's longest wait is what fits in 64 bits of nanoseconds.
    let longest = (faithful && overflows(backoff.duration, factor, limit))
        .then(|| Span(numbers::nanos(i64::MAX)));
    BackoffSpec { max_delay: cap.or(longest), ..exponential(delay, f64::from(factor)) }
}

/// Whether a wait within the limit is longer than Argo can count.
fn overflows(nanos: i64, factor: u32, limit: Option<i64>) -> bool {
    let Some(growths) = limit.map(|limit| limit - 1).filter(|growths| *growths > 0) else {
        return false;
    };
    let mut wait = nanos;
    // A factor of 2 passes any bound within 63 steps.
    (0..growths.min(64)).any(|_| match wait.checked_mul(i64::from(factor)) {
        Some(longer) => {
            wait = longer;
            false
        }
        None => true,
    })
}

fn quirks(timing: &Timing, faithful: bool) -> Vec<Quirk> {
    let mut quirks = Vec::new();
    if faithful {
        quirks.push(Quirk::BoundsFirst);
    }
    if timing.only_bounds {
        quirks.push(Quirk::BackoffNotWaited);
    }
    quirks
}

/// The policy that is in force: an expression without one sees every failure.
fn policy_in_force(strategy: &Strategy) -> RetryPolicy {
    strategy.policy.unwrap_or(match strategy.expression {
        Some(_) => RetryPolicy::Always,
        None => RetryPolicy::OnFailure,
    })
}

fn rules(strategy: &Strategy, timing: &Timing, faithful: bool) -> Vec<RuleSpec> {
    let policy = policy_in_force(strategy);
    let limit = strategy.limit.map(numbers::count);
    // While retries are left Argo waits before it looks whether to retry at all.
    let late = limit.filter(|limit| faithful && timing.waits && *limit > 0);
    let mut rules = Vec::new();
    if strategy.controller.pod_restarts > 0 {
        rules.push(pod_restarts(strategy.controller.pod_restarts));
    }
    let rejected = match policy {
        RetryPolicy::Always => None,
        RetryPolicy::OnFailure => Some(("errors-end", of_classes(&ERRORS))),
        RetryPolicy::OnError => Some(("failures-end", of_classes(&FAILURES))),
        RetryPolicy::OnTransientError => Some(("not-transient", not_transient(strategy))),
    };
    if let Some((name, matches)) = rejected {
        if let Some(limit) = late {
            rules.push(stop_late(&format!("{name}-late"), while_left(&matches, limit)));
        }
        rules.push(stop(name, matches));
    }
    if let Some(false_when) = strategy.expression.as_ref().and_then(false_when) {
        let matches = when(false_when);
        // The limit comes before the expression in Argo, and gives the reason.
        match (late, limit) {
            (Some(limit), _) => {
                rules.push(stop_late("expression-false-late", while_left(&matches, limit)))
            }
            (None, Some(limit)) if faithful => {
                rules.push(stop("expression-false", while_left(&matches, limit)));
            }
            _ => rules.push(stop("expression-false", matches)),
        }
    }
    if policy != RetryPolicy::OnFailure {
        rules.push(crashes());
    }
    rules
}

fn not_transient(strategy: &Strategy) -> MatchSpec {
    let pattern = |text: &str| format!("failure.message.matches({})", quoted(text));
    let own = strategy.controller.transient.as_deref().map(|own| format!(" || {}", pattern(own)));
    let transient = pattern(TRANSIENT) + own.as_deref().unwrap_or_default();
    when(format!("failure.class != \"CANCELED\" && !({transient})"))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// When the expression is false; None when it never is. A cancelled attempt is
/// no matter of expressions.
fn false_when(expression: &Translated) -> Option<String> {
    const ANY: &str = "failure.class != \"CANCELED\"";
    match expression {
        Translated::Always(true) => None,
        Translated::Always(false) => Some(ANY.to_owned()),
        Translated::Condition(condition) => Some(format!("{ANY} && !({condition})")),
    }
}

/// The same while retries are left.
fn while_left(matches: &MatchSpec, limit: u32) -> MatchSpec {
    let left = format!("step.retries < {limit}");
    let condition = match matches.condition.as_str() {
        "" => left,
        condition => format!("{left} && {condition}"),
    };
    MatchSpec { condition, ..matches.clone() }
}

/// A pod that failed before its work began, for reasons of its node.
fn pod_restarts(max: u32) -> RuleSpec {
    let pattern = "^(?:Evicted|NodeShutdown|NodeAffinity|UnexpectedAdmissionError)";
    let matches =
        MatchSpec { message_pattern: pattern.to_owned(), ..when("failure.executed == \"NO\"") };
    retry_uncounted("pod-restarts", matches, max, Some(fixed(Duration::ZERO)))
}

/// What differs, and what to know.
fn tell(strategy: &Strategy, timing: &Timing, faithful: bool, drawn: &mut Drawn) {
    let policy = policy_in_force(strategy);
    if strategy.limit.is_none() {
        drawn.note(
            "limit",
            "unset is without limit, but for the namespace's ceiling (max_retries_ceiling).",
        );
    }
    if let (None, Some(_)) = (strategy.limit, &strategy.backoff) {
        drawn.note(
            "backoff",
            if faithful {
                "without a limit Argo does not wait, and only holds the wait against maxDuration: kept."
            } else {
                "Argo does not wait when limit is unset; here every retry waits. --faithful keeps Argo's way."
            },
        );
    }
    if timing.waits && !faithful && (policy != RetryPolicy::Always || strategy.expression.is_some())
    {
        drawn.note(
            "backoff",
            "a failure that is not retried ends the step at once; Argo sits out the wait before it \
             says so. --faithful keeps Argo's way.",
        );
    }
    if strategy.backoff.as_ref().is_some_and(|backoff| backoff.duration < 0) {
        drawn.note(
            "backoff.duration",
            "a negative wait is none. With a factor Argo would wait 292 years, which is not kept.",
        );
    }
    match policy {
        RetryPolicy::OnFailure => drawn.note(
            "retryPolicy",
            "OnFailure: report a lost or deleted pod as ERROR or CRASH, which end the step, and \
             everything that the container did itself, out of memory included, as FAILURE.",
        ),
        RetryPolicy::OnTransientError => drawn.note(
            "retryPolicy",
            "OnTransientError looks for Argo's own list of texts in the message, and for \
             TRANSIENT_ERROR_PATTERN of the controller when `env` gives it beside retryStrategy.",
        ),
        RetryPolicy::Always if strategy.policy.is_none() => {
            drawn.note("retryPolicy", "unset beside an expression is Always, as in Argo since 3.5.")
        }
        RetryPolicy::Always | RetryPolicy::OnError => {}
    }
    if strategy.anti_affinity {
        drawn.note(
            "affinity",
            "hosts on which an attempt failed are excluded; where none is left the step waits.",
        );
    }
}

/// The retries of a container set happen inside its pod.
fn keep_container_set(reader: &mut Reader, part: &Part<'_>, name: &str) {
    if !reader.mapping(part) {
        return;
    }
    reader.only(part, &["retries", "duration"]);
    let mut drawn = Drawn::default();
    let retries = given(part.get("retries"), |part| int32(reader, part));
    let wait = given(part.get("duration"), |part| positive(reader, part, &mut drawn));
    let (Some(retries), Some(wait)) = (retries, wait) else { return };
    let retries = retries.unwrap_or(0);
    let granted = if reader.is_faithful() { retries.max(1) - 1 } else { retries };
    drawn.spec = PolicySpec {
        max_retries: Some(numbers::count(granted)),
        backoff: wait.filter(|nanos| *nanos > 0).map(|nanos| fixed(numbers::nanos(nanos))),
        rules: vec![crashes()],
        ..PolicySpec::default()
    };
    let text = if reader.is_faithful() {
        "the number of all attempts, the first included, as Argo really counts; its documentation \
         says retries."
    } else {
        "retries after the first attempt, as documented; Argo itself counts the first attempt in. \
         --faithful keeps Argo's way."
    };
    drawn.note("containerSet.retryStrategy.retries", text);
    if retries <= 0 {
        drawn.note(
            "containerSet.retryStrategy.retries",
            "with 0 Argo may not run the command at all; here it runs once.",
        );
    }
    reader.keep(part, name, Unit::Step, drawn);
}

fn positive(reader: &mut Reader, part: &Part<'_>, drawn: &mut Drawn) -> Option<i64> {
    let nanos = duration(reader, part, drawn)?;
    if nanos < 0 {
        reader.refuse(part, "the duration has to be positive; accepted: such as 5s");
        return None;
    }
    Some(nanos)
}

impl Reader {
    /// The place of a byte of a text, as well as it can be told from where the
    /// text begins: exactly when it stands on one line as it is.
    fn place_within(&self, part: &Part<'_>, text: &str, at: usize) -> Place {
        let place = part.place();
        let begins = self.line(place).and_then(|line| line.find(text).map(|at| (line, at)));
        match begins {
            Some((line, start)) => {
                Place { line: place.line, column: line[..start + at].chars().count() + 1 }
            }
            None => place,
        }
    }
}

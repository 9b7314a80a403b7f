//! Dagster: `RetryPolicy` of ops, run retries and run monitoring.
//!
//! Ops: one counter a step; each failure is judged by its own number of retries,
//! the policy's or the one that `RetryRequested` brings. Runs: a group of a run
//! and its re-executions, judged by its size. Lost workers: resumed first, if run
//! monitoring may, and only then a matter of run retries.

use std::time::Duration;

use super::{
    Resume, System, Unit,
    document::{Drawn, Part, Reader},
    numbers,
    parts::{crashes, fixed, of_classes, of_types, retry, retry_uncounted, stop, up_to, when},
};
use crate::{
    config::yaml::Kind,
    domain::{
        failure::FailureClass,
        policy::spec::{
            BackoffSpec, DelaySpec, JitterSpec, LinearSpec, MatchSpec, PolicySpec, RuleSpec,
        },
        time::Span,
    },
};

/// The fields of a `RetryPolicy`.
const POLICY_FIELDS: &[&str] = &["max_retries", "delay", "backoff", "jitter"];
/// Where the policy of an op stands, the strongest first.
const OP_KEYS: &[&str] =
    &["invocation_retry_policy", "retry_policy", "job_op_retry_policy", "op_retry_policy"];
/// The daemon that launches retries looks this often.
const TICK: Duration = Duration::from_secs(5);
/// Run monitoring looks this often when nothing is said.
const POLL_SECONDS: i64 = 120;

/// Reads a document.
pub fn read(reader: &mut Reader, root: &Part<'_>) {
    if !reader.mapping(root) {
        return;
    }
    let level = root.get("level").and_then(|level| level.text());
    let ops = root.has_any(OP_KEYS) || root.said("graph_invocation_retry_policy").is_some();
    if ops || level == Some("op") {
        keep_op(reader, root);
    } else if root.has_any(POLICY_FIELDS) {
        let executor = Executor::of(reader, root);
        keep_policy(reader, root, Some(root), &executor);
    }
    let tagged = root.entries().iter().any(|(key, ..)| key.starts_with("dagster/"));
    if tagged || root.has_any(&["run_retries", "run_monitoring", "tags"]) || level == Some("run") {
        keep_run(reader, root);
    }
}

/// How ops are executed.
struct Executor {
    retries: bool,
    in_process: bool,
}

impl Executor {
    fn of(reader: &mut Reader, root: &Part<'_>) -> Self {
        let config = root
            .get("executor_retries")
            .or_else(|| root.at(&["execution", "config", "retries"]))
            .or_else(|| root.at(&["execution", "config", "multiprocess", "retries"]));
        let retries = config.is_none_or(|config| match config.kind() {
            Kind::Text(word) => word != "disabled",
            Kind::Map(_) if config.said("disabled").is_some() => false,
            Kind::Map(_) if config.said("enabled").is_some() => true,
            _ => {
                reader.refuse(&config, "accepted: {enabled: {}} or {disabled: {}}");
                true
            }
        });
        let executor = root.get("executor").and_then(|executor| executor.text());
        Self { retries, in_process: matches!(executor, Some("in_process" | "in-process")) }
    }
}

/// The strongest policy decides alone: nothing is merged.
fn keep_op(reader: &mut Reader, root: &Part<'_>) {
    let executor = Executor::of(reader, root);
    if let Some(graph) = root.said("graph_invocation_retry_policy") {
        reader.note(
            graph.path,
            "Dagster ignores a policy on a graph for the ops inside it: left out",
        );
    }
    let policy = OP_KEYS.iter().find_map(|key| root.get(key));
    keep_policy(reader, root, policy.as_ref(), &executor);
}

fn keep_policy(
    reader: &mut Reader,
    root: &Part<'_>,
    policy: Option<&Part<'_>>,
    executor: &Executor,
) {
    let mut drawn = Drawn::default();
    let read = match policy {
        Some(policy) => read_policy(reader, policy, &mut drawn),
        None => Some(PolicySpec { max_retries: Some(0), ..PolicySpec::default() }),
    };
    let Some(spec) = read else { return };
    let rules = op_rules(reader, policy.is_some(), executor);
    drawn.spec = PolicySpec { rules, ..spec };
    if policy.is_none() {
        drawn.note("retry_policy", "none: only what RetryRequested asks for is retried.");
    }
    drawn.note(
        "RetryRequested",
        "report it with a wish of its max_retries (1 when it gives none) and its seconds_to_wait \
         (0 when it gives none), and Failure(allow_retries=False) with retryable: false.",
    );
    reader.keep(root, "dagster-op", Unit::Step, drawn);
}

fn read_policy(reader: &mut Reader, part: &Part<'_>, drawn: &mut Drawn) -> Option<PolicySpec> {
    if !reader.mapping(part) {
        return None;
    }
    if part.path.is_empty() {
        // A bare policy may stand beside what executes it.
        let beside = ["level", "executor", "executor_retries", "execution"];
        reader.only(part, &[POLICY_FIELDS, &beside].concat());
    } else {
        reader.only(part, POLICY_FIELDS);
    }
    let max_retries = match part.said("max_retries") {
        None => Some(1),
        Some(number) => {
            let whole = number.whole().or_else(|| number.truth().map(i64::from));
            if whole.is_none() {
                reader.refuse(
                    &number,
                    "Param \"max_retries\" is not a int; accepted: a whole number without quotes",
                );
            }
            whole
        }
    };
    let delay = delay(reader, part);
    let backoff = choice(reader, part, "backoff", &["LINEAR", "EXPONENTIAL"]);
    let jitter = choice(reader, part, "jitter", &["FULL", "PLUS_MINUS"]);
    let (delay, backoff, jitter) = (delay?, backoff?, jitter?);
    if delay.is_none() {
        for (key, said) in [("backoff", backoff), ("jitter", jitter)] {
            if let (Some(_), Some(field)) = (said, part.get(key)) {
                reader.refuse(
                    &field,
                    format!("{key} without a delay; accepted: a delay beside it, such as 10"),
                );
            }
        }
        if backoff.is_some() || jitter.is_some() {
            return None;
        }
    }
    let seconds = delay.unwrap_or(0.0);
    if seconds < 0.0 {
        drawn.note("delay", "a negative delay is none.");
    }
    Some(PolicySpec {
        max_retries: Some(numbers::count(max_retries?)),
        backoff: spec_of_backoff(seconds, backoff, jitter),
        ..PolicySpec::default()
    })
}

/// Seconds; None within when there is no delay.
fn delay(reader: &mut Reader, part: &Part<'_>) -> Option<Option<f64>> {
    let Some(part) = part.get("delay") else { return Some(None) };
    let seconds = match part.kind() {
        Kind::Number(seconds) => Some(*seconds),
        #[expect(clippy::cast_precision_loss, reason = "so long nobody waits")]
        _ => part.whole().map(|seconds| seconds as f64),
    };
    // What a Duration can hold.
    let seconds = seconds.filter(|seconds| seconds.is_finite() && *seconds < 1e18);
    if seconds.is_none() {
        reader
            .refuse(&part, "Param \"delay\" is not a number; accepted: seconds, such as 10 or 0.5");
    }
    seconds.map(Some)
}

/// One of two names, as Dagster's enums spell them; None within when absent.
fn choice(
    reader: &mut Reader,
    part: &Part<'_>,
    key: &str,
    names: &'static [&'static str],
) -> Option<Option<&'static str>> {
    let Some(part) = part.get(key) else { return Some(None) };
    let word = reader.text(&part, System::Dagster)?;
    let word = word.rsplit('.').next().unwrap_or(word);
    let found = names.iter().find(|name| name.eq_ignore_ascii_case(word));
    if found.is_none() {
        reader.refuse(&part, format!("accepted: {}", names.join(" or ")));
    }
    found.map(|name| Some(*name))
}

fn spec_of_backoff(
    seconds: f64,
    backoff: Option<&str>,
    jitter: Option<&str>,
) -> Option<BackoffSpec> {
    let delay = Span(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    if delay.0.is_zero() {
        return None;
    }
    let jitter = jitter.map(|jitter| match jitter {
        "FULL" => JitterSpec::Full,
        _ => JitterSpec::Base,
    });
    let shape = match backoff {
        None => fixed(delay.0),
        Some("LINEAR") => BackoffSpec {
            linear: Some(LinearSpec { delay, increment: None }),
            ..BackoffSpec::default()
        },
        Some(_) => {
            BackoffSpec { doubling_sum: Some(DelaySpec { delay }), ..BackoffSpec::default() }
        }
    };
    Some(BackoffSpec { jitter, ..shape })
}

fn op_rules(reader: &Reader, has_policy: bool, executor: &Executor) -> Vec<RuleSpec> {
    if !executor.retries {
        return vec![stop("retries-disabled", MatchSpec::default())];
    }
    let mut rules = Vec::new();
    if reader.is_faithful() && has_policy {
        // Dagster retries what was interrupted, too.
        let types = of_types(&["KeyboardInterrupt", "DagsterExecutionInterruptedError"]);
        rules.push(retry("interrupts", types));
    }
    if !executor.in_process {
        rules.push(retry("resources", of_types(&["DagsterResourceFunctionError"])));
    }
    rules.push(stop("framework", of_types(&["Dagster*"])));
    rules.push(stop("exits", of_types(&["SystemExit"])));
    if executor.in_process {
        rules.push(stop("run-died", of_classes(&[FailureClass::Crash])));
    } else {
        rules.push(crashes());
    }
    rules
}

/// What is said of the retries of runs.
struct RunRetries {
    max: u32,
    on_step_failure: bool,
    resume: Resume,
}

fn keep_run(reader: &mut Reader, root: &Part<'_>) {
    let mut drawn = Drawn::default();
    let retries = run_retries(reader, root, &mut drawn);
    let monitoring = monitoring(reader, root);
    let (Some(retries), Some(resumes)) = (retries, monitoring) else { return };
    let mut rules = Vec::new();
    if reader.is_faithful() {
        rules.push(stop("launch-lost", when("failure.action == \"launch\"")));
        drawn.note(
            "run_retries",
            "when launching a retry fails, Dagster drops it for good: kept for failures that name \
             the action `launch`.",
        );
    } else {
        drawn.note(
            "run_retries",
            "when launching a retry fails, Dagster drops it for good; here that is one more failed \
             attempt. Dagster also looks only every 5 s; here the retry is due at once.",
        );
    }
    if !retries.on_step_failure {
        rules.push(stop("steps-end", of_types(&["STEP_FAILURE"])));
    }
    rules.extend(resumes.map(|resumes| resumes.rule(retries.max, reader.is_faithful())));
    rules.push(crashes());
    drawn.spec = PolicySpec {
        max_retries: Some(retries.max),
        backoff: reader.is_faithful().then(|| up_to(TICK)),
        rules,
        ..PolicySpec::default()
    };
    drawn.note(
        "run_retries",
        "Dagster gives each retry a new run, in which ops count from 0 again; here the run keeps \
         its id.",
    );
    reader.keep(root, "dagster-run", Unit::Run(retries.resume), drawn);
}

fn run_retries(reader: &mut Reader, root: &Part<'_>, drawn: &mut Drawn) -> Option<RunRetries> {
    let instance = root.get("run_retries");
    // Tags of a job say nothing of the instance, where retries are enabled.
    let mut enabled = root.get("run_monitoring").is_none();
    let mut max = Some(0);
    let mut on_step_failure = Some(true);
    if let Some(instance) = &instance {
        if !reader.mapping(instance) {
            return None;
        }
        reader.only(instance, &["enabled", "max_retries", "retry_on_asset_or_op_failure"]);
        enabled = match instance.get("enabled") {
            Some(part) => reader.truth(&part)?,
            None => false,
        };
        if let Some(part) = instance.get("max_retries") {
            max = part.whole();
            if max.is_none() {
                reader.refuse(&part, "accepted: a whole number");
            }
        }
        if let Some(part) = instance.get("retry_on_asset_or_op_failure") {
            on_step_failure = reader.truth(&part);
        }
    }
    let (mut max, mut on_step_failure) = (max?, on_step_failure?);
    if let Some(part) = tag(root, "dagster/max_retries") {
        max = tagged_max(&part, drawn);
    }
    if let Some(part) = tag(root, "dagster/retry_on_asset_or_op_failure") {
        on_step_failure = tagged_truth(&part, drawn);
    }
    if !enabled && max > 0 {
        drawn.note("run_retries.enabled", "false or absent: no run is retried, whatever tags say.");
        max = 0;
    }
    let resume = tag(root, "dagster/retry_strategy")
        .map_or(Resume::FromFailure, |part| strategy(&part, drawn));
    Some(RunRetries { max: numbers::count(max), on_step_failure, resume })
}

/// A tag, among `tags` or by itself.
fn tag<'a>(root: &Part<'a>, name: &str) -> Option<Part<'a>> {
    root.get("tags").and_then(|tags| tags.get(name)).or_else(|| root.get(name))
}

/// A tag that is no number is accepted by Dagster, and means never.
fn tagged_max(part: &Part<'_>, drawn: &mut Drawn) -> i64 {
    let number = part.text().map_or_else(|| part.whole(), numbers::python_int);
    number.unwrap_or_else(|| {
        drawn.note(
            part.path.clone(),
            format!(
                "{} is no whole number: Dagster then never retries, and so it is here.",
                part.in_words()
            ),
        );
        0
    })
}

/// Only false, none, 0 and nothing are false.
fn tagged_truth(part: &Part<'_>, drawn: &mut Drawn) -> bool {
    let word = match part.kind() {
        Kind::Truth(truth) => return *truth,
        Kind::Text(word) => word.to_lowercase(),
        Kind::Count(number) => number.to_string(),
        _ => return true,
    };
    if matches!(word.as_str(), "no" | "off" | "n" | "f") {
        drawn.note(part.path.clone(), format!("{word:?} is true to Dagster, and so it is here."));
    }
    !matches!(word.as_str(), "false" | "none" | "0" | "")
}

fn strategy(part: &Part<'_>, drawn: &mut Drawn) -> Resume {
    match part.text() {
        Some("ALL_STEPS") => Resume::AllSteps,
        Some("FROM_ASSET_FAILURE") => Resume::FromAssetFailure,
        Some("FROM_FAILURE") => Resume::FromFailure,
        _ => {
            drawn.note(
                part.path.clone(),
                format!(
                    "{} is no strategy: Dagster then takes FROM_FAILURE, and so it is here.",
                    part.in_words()
                ),
            );
            Resume::FromFailure
        }
    }
}

/// A worker that was lost is replaced in the same run.
struct Resumes {
    max: i64,
    poll: Duration,
}

/// None within when nothing is resumed.
fn monitoring(reader: &mut Reader, root: &Part<'_>) -> Option<Option<Resumes>> {
    let Some(part) = root.get("run_monitoring") else { return Some(None) };
    if !reader.mapping(&part) {
        return None;
    }
    let enabled = match part.get("enabled") {
        Some(part) => reader.truth(&part)?,
        None => false,
    };
    let mut number = |key: &str, default: i64| match part.get(key) {
        None => Some(default),
        Some(part) => {
            let number = part.whole().filter(|number| *number >= 0);
            if number.is_none() {
                reader.refuse(&part, "accepted: a whole number, 0 or more");
            }
            number
        }
    };
    let max = number("max_resume_run_attempts", 0)?;
    let poll = number("poll_interval_seconds", POLL_SECONDS)?;
    for seconds in ["start_timeout_seconds", "max_runtime_seconds"] {
        if part.get(seconds).is_some() {
            reader.note(
                format!("run_monitoring.{seconds}"),
                "a time limit of the run is the worker's to keep: report TIMEOUT",
            );
        }
    }
    let poll = Duration::from_secs(u64::try_from(poll).unwrap_or(0));
    Some((enabled && max > 0).then_some(Resumes { max, poll }))
}

impl Resumes {
    /// After so many crashes in a row the run itself has failed, and the next
    /// one has as many of its own.
    fn rule(&self, run_retries: u32, faithful: bool) -> RuleSpec {
        let rounds = i64::from(run_retries) + 1;
        let ceiling = numbers::count(self.max.saturating_mul(rounds));
        let waits = faithful && !self.poll.is_zero();
        let matches = MatchSpec {
            condition: format!("consecutive(\"CRASH\") % {} != 0", self.max.saturating_add(1)),
            ..of_classes(&[FailureClass::Crash])
        };
        retry_uncounted("resume", matches, ceiling, waits.then(|| up_to(self.poll)))
    }
}

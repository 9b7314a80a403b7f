//! Airflow, Prefect and Celery: retry arguments as they are written in Python,
//! as YAML or JSON.
//!
//! By the sources of Airflow 3.3 (`TaskInstance.next_retry_datetime`), Prefect 3
//! (`task_engine.py`) and Celery 5 (`app/autoretry.py`, `app/task.py`).

use std::time::Duration;

use super::{
    Unit,
    document::{Drawn, Part, Reader},
    numbers,
    parts::{crashes, exponential, fixed, of_types, stop, when},
};
use crate::{
    config::yaml::Kind,
    domain::{
        policy::spec::{
            BackoffSpec, JitterSpec, PolicySpec, RuleSpec, ScheduleEndSpec, ScheduleSpec, SkipSpec,
        },
        time::Span,
    },
};

/// Airflow waits so long between attempts when nothing is said.
const AIRFLOW_DELAY: Duration = Duration::from_secs(300);
/// Airflow's waits grow by so much where only that they grow is said.
const AIRFLOW_FACTOR: f64 = 2.0;
/// Airflow's longest wait when it grows.
const AIRFLOW_LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Celery waits so long between attempts when nothing is said.
const CELERY_DELAY: Duration = Duration::from_secs(180);
/// Celery's longest wait when it grows.
const CELERY_LONGEST: i64 = 600;

/// Reads arguments of operators.
pub fn read_airflow(reader: &mut Reader, root: &Part<'_>) {
    let arguments = root.get("default_args").unwrap_or_else(|| root.clone());
    let keys = ["retries", "retry_delay", "retry_exponential_backoff", "max_retry_delay"];
    if arguments.has_any(&keys) {
        let mut drawn = Drawn::default();
        if let Some(spec) = airflow(reader, &arguments, &mut drawn) {
            drawn.spec = spec;
            reader.keep(&arguments, "airflow", Unit::Step, drawn);
        }
    }
}

fn airflow(reader: &mut Reader, part: &Part<'_>, drawn: &mut Drawn) -> Option<PolicySpec> {
    let retries = part.get("retries").map_or(Some(0), |part| reader.whole(&part, 0));
    let delay = part.get("retry_delay").map_or(Some(AIRFLOW_DELAY), |part| reader.span(&part));
    let factor = part.get("retry_exponential_backoff");
    let factor = factor.map_or(Some(None), |part| airflow_factor(reader, &part));
    let longest = part.get("max_retry_delay");
    let longest = longest.map_or(Some(AIRFLOW_LONGEST), |part| reader.span(&part));
    let (delay, longest) = (delay?, longest?);
    let backoff = if let Some(factor) = factor? {
        drawn.note(
            "retry_exponential_backoff",
            format!(
                "Airflow waits between delay * {factor}^(k-1) and twice that, by a hash: the same \
                 here. At the longest wait Airflow's spread is cut off; here it lies below it."
            ),
        );
        BackoffSpec {
            max_delay: Some(Span(longest)),
            jitter: Some(JitterSpec::Equal),
            ..exponential(delay.saturating_mul(2), factor)
        }
    } else {
        fixed(delay)
    };
    let skipped = RuleSpec {
        name: "skipped".to_owned(),
        matches: Some(of_types(&["AirflowSkipException"])),
        skip: Some(SkipSpec {}),
        ..RuleSpec::default()
    };
    Some(PolicySpec {
        max_retries: Some(numbers::count(retries?)),
        backoff: (!delay.is_zero()).then_some(backoff),
        rules: vec![skipped, stop("fail", of_types(&["AirflowFailException"])), crashes()],
        ..PolicySpec::default()
    })
}

/// By how much waits grow: true doubles them, and with 0 and 1 they stay as they are. The
/// inner None is a wait that stays.
fn airflow_factor(reader: &mut Reader, part: &Part<'_>) -> Option<Option<f64>> {
    let factor = match part.truth() {
        Some(grows) => Some(if grows { AIRFLOW_FACTOR } else { 0.0 }),
        None => reader.number(part, 0.0),
    };
    // A factor of one would be no growth, but a spread: Airflow has neither then.
    factor.map(|factor| Some(factor).filter(|factor| *factor > 0.0 && *factor != 1.0))
}

/// Reads arguments of tasks and flows.
pub fn read_prefect(reader: &mut Reader, root: &Part<'_>) {
    let keys = ["retries", "retry_delay_seconds", "retry_jitter_factor"];
    if root.has_any(&keys) {
        let mut drawn = Drawn::default();
        if let Some(spec) = prefect(reader, root, &mut drawn) {
            drawn.spec = spec;
            reader.keep(root, "prefect", Unit::Step, drawn);
        }
    }
}

fn prefect(reader: &mut Reader, part: &Part<'_>, drawn: &mut Drawn) -> Option<PolicySpec> {
    let retries = part.get("retries").map_or(Some(0), |part| reader.whole(&part, 0));
    let backoff = match part.get("retry_delay_seconds") {
        None => None,
        Some(delays) if matches!(delays.kind(), Kind::List(_)) => {
            let spans: Option<Vec<Span>> =
                delays.items().iter().map(|part| reader.span(part).map(Span)).collect();
            let schedule = ScheduleSpec { delays: spans?, end: ScheduleEndSpec::Repeat };
            Some(BackoffSpec { schedule: Some(schedule), ..BackoffSpec::default() })
        }
        Some(delay) => Some(fixed(reader.span(&delay)?)),
    };
    let jitter = match part.get("retry_jitter_factor") {
        None => None,
        Some(factor) => Some(reader.number(&factor, 0.0)?.min(1.0)).filter(|factor| *factor > 0.0),
    };
    if jitter.is_some() && backoff.is_some() {
        drawn.note(
            "retry_jitter_factor",
            "Prefect draws from a clamped Poisson distribution; here evenly, up and down by the \
             factor, at most by all of the wait.",
        );
    }
    let jitter = jitter.map(JitterSpec::Ratio);
    Some(PolicySpec {
        max_retries: Some(numbers::count(retries?)),
        backoff: backoff.map(|backoff| BackoffSpec { jitter, ..backoff }),
        rules: vec![crashes()],
        ..PolicySpec::default()
    })
}

/// Reads arguments of tasks.
pub fn read_celery(reader: &mut Reader, root: &Part<'_>) {
    let keys =
        ["autoretry_for", "max_retries", "retry_kwargs", "retry_backoff", "default_retry_delay"];
    if root.has_any(&keys) {
        let mut drawn = Drawn::default();
        if let Some(spec) = celery(reader, root, &mut drawn) {
            drawn.spec = spec;
            reader.keep(root, "celery", Unit::Step, drawn);
        }
    }
}

fn celery(reader: &mut Reader, part: &Part<'_>, drawn: &mut Drawn) -> Option<PolicySpec> {
    // What a retry is asked for with beats what the task says of itself; None asks for nothing.
    let asked = part.get("retry_kwargs");
    let asked = asked.as_ref();
    let retries = asked.and_then(|asked| asked.get("max_retries"));
    let retries = match retries.or_else(|| part.said("max_retries")) {
        None => Some(3),
        Some(part) if *part.kind() == Kind::Nothing => None,
        Some(part) => Some(reader.whole(&part, 0)?),
    };
    let jitter = part.get("retry_jitter").map_or(Some(true), |part| reader.truth(&part))?;
    let longest = part.get("retry_backoff_max");
    let longest = longest.map_or(Some(CELERY_LONGEST), |part| reader.whole(&part, 1))?;
    let factor = match part.get("retry_backoff") {
        None => 0,
        Some(part) => match part.truth() {
            Some(on) => i64::from(on),
            None => celery_factor(reader.number(&part, 0.0)?),
        },
    };
    let seconds = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let backoff = if factor > 0 {
        BackoffSpec {
            max_delay: Some(Span(seconds(longest))),
            jitter: jitter.then_some(JitterSpec::Full),
            ..exponential(seconds(factor), 2.0)
        }
    } else {
        let delay = asked.and_then(|asked| asked.get("countdown"));
        let delay = delay.or_else(|| part.get("default_retry_delay"));
        fixed(delay.map_or(Some(CELERY_DELAY), |part| reader.span(&part))?)
    };
    if retries.is_none() {
        drawn.note("max_retries", "None is without limit, but for the namespace's ceiling.");
    }
    Some(PolicySpec {
        max_retries: retries.map(numbers::count),
        backoff: Some(backoff),
        rules: celery_rules(reader, part, drawn)?,
        ..PolicySpec::default()
    })
}

/// The first wait in seconds, 0 where waits do not grow: Celery counts in whole ones, at
/// least one.
fn celery_factor(said: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, beyond any wait")]
    let whole = said as i64;
    if said > 0.0 { whole.max(1) } else { 0 }
}

fn celery_rules(reader: &mut Reader, part: &Part<'_>, drawn: &mut Drawn) -> Option<Vec<RuleSpec>> {
    let mut rules = Vec::new();
    if let Some(never) = part.get("dont_autoretry_for") {
        rules.push(stop("not-retried", of_types(&reader.texts(&never)?)));
    }
    if let Some(types) = part.get("autoretry_for") {
        let types = reader.texts(&types)?;
        if !types.contains(&"Exception") {
            let known: Vec<String> = types.iter().map(|name| format!("{name:?}")).collect();
            let known = known.join(", ");
            rules.push(stop(
                "others-end",
                when(format!("failure.class == \"FAILURE\" && !(failure.error_type in [{known}])")),
            ));
            drawn.note(
                "autoretry_for",
                "Python also retries subclasses of these; here name each type that is reported.",
            );
        }
    }
    rules.push(crashes());
    Some(rules)
}

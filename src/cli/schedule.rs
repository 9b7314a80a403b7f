//! The waits that a policy gives, retry by retry.

use std::time::Duration;

use serde::Serialize;

use super::{
    Global,
    error::CliError,
    output::{self, Format},
    text,
};
use crate::domain::{
    backoff::Window,
    plan::waits,
    policy::{Action, Policy},
};

/// The waits of one counter.
#[derive(Debug, Serialize)]
struct Schedule {
    /// The rule whose own backoff it is; null is the policy's.
    rule: Option<String>,
    /// Retries granted at most; null is no limit but the namespace's ceiling.
    max_retries: Option<u32>,
    /// One for each retry.
    waits: Vec<Wait>,
}

/// The wait before one retry.
#[derive(Debug, Serialize)]
struct Wait {
    retry: u32,
    min_seconds: f64,
    max_seconds: f64,
    /// All waits up to this one.
    elapsed_min_seconds: f64,
    elapsed_max_seconds: f64,
}

/// Shows the policy's waits and those of rules with a backoff of their own.
pub fn tell(global: &Global, policy: &Policy, rows: u32) -> Result<(), CliError> {
    let own =
        Schedule { rule: None, max_retries: policy.max_retries, waits: walk(&waits(policy, rows)) };
    let rules = policy.rules.iter().filter_map(|rule| {
        let (max_retries, backoff) = match &rule.action {
            Action::Retry { max_retries, backoff } => (*max_retries, backoff.as_ref()?),
            Action::RetryUncounted { max_retries, backoff } => {
                (Some(*max_retries), backoff.as_ref()?)
            }
            _ => return None,
        };
        let alike = Policy { max_retries, backoff: backoff.clone(), ..policy.clone() };
        let rule = Some(rule.name.as_str().to_owned());
        Some(Schedule { rule, max_retries, waits: walk(&waits(&alike, rows)) })
    });
    let schedules: Vec<Schedule> = std::iter::once(own).chain(rules).collect();
    match global.output {
        Format::Json => output::print_json(&schedules),
        Format::Table => output::print(&schedules.iter().map(shown).collect::<String>()),
    }
}

fn walk(windows: &[Window]) -> Vec<Wait> {
    let (mut least, mut most) = (Duration::ZERO, Duration::ZERO);
    let wait = |(retry, window): (u32, &Window)| {
        least = least.saturating_add(window.min);
        most = most.saturating_add(window.max);
        Wait {
            retry,
            min_seconds: window.min.as_secs_f64(),
            max_seconds: window.max.as_secs_f64(),
            elapsed_min_seconds: least.as_secs_f64(),
            elapsed_max_seconds: most.as_secs_f64(),
        }
    };
    (1..).zip(windows).map(wait).collect()
}

fn shown(schedule: &Schedule) -> String {
    let heading = schedule.rule.as_ref().map(|rule| format!("\nrule {rule}\n"));
    let rows = schedule.waits.iter().map(row).collect();
    let table = output::table(["RETRY", "WAIT", "ELAPSED"], rows);
    heading.unwrap_or_default() + &table + &ending(schedule)
}

fn row(wait: &Wait) -> [String; 3] {
    [
        wait.retry.to_string(),
        range(wait.min_seconds, wait.max_seconds),
        range(wait.elapsed_min_seconds, wait.elapsed_max_seconds),
    ]
}

/// What comes after the last row.
fn ending(schedule: &Schedule) -> String {
    match (schedule.waits.len(), schedule.max_retries) {
        (_, Some(0)) => "never retried\n".to_owned(),
        (rows, Some(max)) if rows as u64 >= u64::from(max) => String::new(),
        (0, _) => "no waits\n".to_owned(),
        (_, Some(max)) => format!("at most {max} retries\n"),
        (_, None) => "and so on: the policy sets no limit\n".to_owned(),
    }
}

fn range(min: f64, max: f64) -> String {
    let span = |seconds| text::duration(text::from_seconds(seconds));
    if min < max { format!("{} to {}", span(min), span(max)) } else { span(max) }
}

//! Vectors: what a system is set to, how its attempts fail, what it decides.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// One case.
#[derive(Clone, Debug, Deserialize)]
pub struct Vector {
    /// The system, by its name on the command line.
    pub system: String,
    /// The case's own name.
    pub id: String,
    /// Where it is known from.
    #[serde(default)]
    pub source: String,
    /// The configuration, in the system's own words.
    #[serde(default)]
    pub config: Value,
    /// Failures of consecutive attempts.
    pub failures: Vec<Failed>,
    /// What the system decides after each.
    pub expected: Vec<Expected>,
}

/// An attempt that failed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Failed {
    /// What the system calls the failure.
    pub class: String,
    /// Seconds from the start of attempt 1.
    pub at_s: f64,
    /// Its number, when it is not the next.
    pub attempt: Option<u32>,
    /// Exit code of the process.
    pub exit_code: Option<i32>,
    /// What it said.
    pub message: String,
    /// Where it ran.
    pub host: String,
    /// How long it ran.
    pub duration_s: Option<f64>,
    /// Dagster: False ends the step.
    pub allow_retries: Option<bool>,
    /// Dagster: what a `RetryRequested` brings.
    pub max_retries: Option<u32>,
    /// Dagster: likewise.
    pub seconds_to_wait: Option<f64>,
    /// Dagster: why the retry of the run could not be launched.
    pub launch_error: Option<String>,
    /// Dagster: which run of the group, from 1.
    pub run: Option<u32>,
    /// Octopus: what a person answers.
    pub guidance: Option<String>,
    /// Octopus: the action that failed.
    pub action: String,
    /// What nobody here knows how to tell.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// What the system decides.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Expected {
    /// Whether there is another attempt.
    pub retry: bool,
    /// The wait before it.
    pub delay_s: Option<f64>,
    /// The waits it lies between.
    pub delay_range_s: Option<[f64; 2]>,
    /// Why, in the system's own words.
    pub reason: Option<String>,
    /// Argo: the phase in which the node ends.
    pub terminal_phase: Option<String>,
    /// The configuration is refused.
    pub config_error: bool,
    /// The verdict is given so long after the failure.
    pub decided_after_s: Option<f64>,
    /// The next attempt must have ended by then, from the start of attempt 1.
    pub next_attempt_deadline_s: Option<f64>,
    /// Dagster: what the next run begins with.
    pub strategy: Option<String>,
    /// Octopus: what happens to the step.
    pub action: Option<String>,
    /// Octopus: what a person may answer.
    pub allowed_guidance: Option<Vec<String>>,
    /// The action that the next attempt begins with.
    pub resume_from: Option<String>,
    /// What nobody here knows how to compare.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl Vector {
    /// A part of the configuration.
    pub fn config(&self, key: &str) -> Option<&Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }
}

/// Reads a file: a list of vectors.
pub fn read(text: &str) -> Result<Vec<Vector>, serde_json::Error> {
    serde_json::from_str(text)
}

//! What the systems' reasons mean here.

use super::vector::Failed;
use crate::{
    dialect::System,
    domain::decision::{Reason, Settled},
};

/// What a reason says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// One of these reasons.
    Reasons(&'static [Reason]),
    /// A rule with a name that begins so.
    Rule(&'static str),
    /// Something does not count against the retries.
    Uncounted,
    /// The configuration is wrong in a field that ends so.
    Wrong(&'static [&'static str]),
}

use Meaning::{Reasons, Rule, Uncounted, Wrong};

/// Retries are used up.
const SPENT: Meaning = Reasons(&[
    Reason::RetriesSpent,
    Reason::CrashesSpent,
    Reason::UncountedSpent,
    Reason::ScheduleEnded,
]);
/// The failure is not one that is retried.
const REFUSED: Meaning = Reasons(&[Reason::Rule, Reason::NotRetryable]);
/// Nobody goes on, for whatever reason.
const GIVEN_UP: Meaning = Reasons(&[
    Reason::RetriesSpent,
    Reason::CrashesSpent,
    Reason::Rule,
    Reason::NotRetryable,
    Reason::StepKind,
]);
/// A person is asked.
const ASKED: Meaning = Reasons(&[Reason::Exhausted, Reason::HeldByRule]);

/// Parts of reasons and what they mean; the first that is found counts.
const TABLE: &[(System, &str, Meaning)] = &[
    (System::Argo, "no more retries left", SPENT),
    (System::Argo, "last command error", SPENT),
    (System::Argo, "expression evaluated to false", Rule("expression-false")),
    (System::Argo, "stopped with strategy", Reasons(&[Reason::Canceled])),
    (System::Argo, "retry exceeded workflow deadline", Reasons(&[Reason::Deadline])),
    (System::Argo, "max duration limit", Reasons(&[Reason::MaxElapsed])),
    (System::Argo, "is not a valid retrypolicy", Wrong(&["retryPolicy"])),
    (System::Argo, "cannot be resolved to an int", Wrong(&["limit", "factor", "retries"])),
    (System::Argo, "no base duration specified", Wrong(&["backoff.duration"])),
    (System::Argo, "as a duration", Wrong(&["uration", "cap"])),
    (System::Argo, "duration has to be positive", Wrong(&["duration"])),
    (System::Argo, "expression", Wrong(&["expression"])),
    (System::Dagster, "exceeded max_retries", SPENT),
    (System::Dagster, "retries are disabled", Rule("retries-disabled")),
    (System::Dagster, "framework", Rule("framework")),
    (System::Dagster, "systemexit", Rule("exits")),
    (System::Dagster, "not retrying run since it failed", Rule("steps-end")),
    (System::Dagster, "asset or op failure", Rule("steps-end")),
    (System::Dagster, "lost for good", Rule("launch-lost")),
    (System::Dagster, "run group size", SPENT),
    (System::Dagster, "will_retry=false", SPENT),
    (System::Dagster, "error parsing int", SPENT),
    (System::Dagster, "to resume the run", SPENT),
    (System::Dagster, "cancel", Reasons(&[Reason::Canceled])),
    (System::Dagster, "resume same run", Uncounted),
    (System::Dagster, "step failure", SPENT),
    (System::Dagster, "op failure", SPENT),
    // Dagster's two messages name each other's field.
    (System::Dagster, "can not set backoff", Wrong(&["jitter"])),
    (System::Dagster, "can not set jitter", Wrong(&["backoff"])),
    (System::Dagster, "param \"max_retries\"", Wrong(&["max_retries"])),
    (System::Dagster, "param \"delay\"", Wrong(&["delay"])),
    (System::Zenml, "not counted", Uncounted),
    (System::Zenml, "failed to run step", SPENT),
    (System::Zenml, "maximum number of retries", SPENT),
    (System::Zenml, "backofflimit", SPENT),
    (System::Zenml, "run stopped", Rule("run-stopped")),
    (System::Zenml, "input should be", Wrong(&["max_retries", "delay", "backoff"])),
    (System::Octopus, "after guidance retry", Reasons(&[Reason::Answered])),
    (System::Octopus, "guidance", ASKED),
    (System::Octopus, "guided failure", ASKED),
    (System::Octopus, "interruption", ASKED),
    (System::Octopus, "skipped", Reasons(&[Reason::Skipped])),
    (System::Octopus, "excluded", Reasons(&[Reason::Skipped])),
    (System::Octopus, "step type", Wrong(&["step_type", "ActionType"])),
    (System::Octopus, "minimum backoff", Wrong(&["MinimumBackoff"])),
    (System::Octopus, "step failed", GIVEN_UP),
    (System::Octopus, "deployment failed", GIVEN_UP),
];

impl Meaning {
    /// What a system's reason means; None for one that the table does not have.
    pub fn of(system: System, reason: &str, failed: &Failed) -> Option<Self> {
        // A policy of Argo's that refuses a failure says what the failure said.
        if system == System::Argo && reason == failed.message {
            return Some(REFUSED);
        }
        if system == System::Dagster && reason == failed.class {
            return Some(REFUSED);
        }
        let reason = reason.to_lowercase();
        let row = TABLE.iter().find(|(of, part, _)| *of == system && reason.contains(part));
        row.map(|(.., meaning)| *meaning)
    }

    /// Whether a decision says the same. `counted` is false when it did not
    /// count against the policy's retries.
    pub fn is_of(self, settled: &Settled, counted: bool) -> bool {
        match self {
            Reasons(reasons) => reasons.contains(&settled.reason),
            Rule(name) => {
                let rule = settled.rule.as_ref().map_or("", |rule| rule.as_str());
                settled.reason == Reason::Rule && rule.starts_with(name)
            }
            Uncounted => !counted,
            Wrong(_) => false,
        }
    }
}

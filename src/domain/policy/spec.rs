//! A policy as people and stores write it: every field plain, nothing checked.
//!
//! One shape serves the YAML file, the stored form (JSON) and the wire. It
//! becomes a [`super::Policy`] by [`super::Policy::parse`], and only then
//! means anything.

mod read;

use serde::{Deserialize, Serialize};

use crate::domain::{failure::FailureClass, time::Span};

/// A policy as written. The meaning of each field, its range and what absent
/// means stand in `proto/reprise/v1/policy.proto`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct PolicySpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_elapsed: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<BackoffSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pushback: Option<PushbackSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_crash_retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_after: Option<Span>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reset_on_progress: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_anti_affinity: Option<AntiAffinitySpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_exhaustion: Option<ExhaustionSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never_retry_kinds: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quirks: Vec<Quirk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunSpec>,
}

/// What holds for runs that follow the policy, as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct RunSpec {
    pub resume: Resume,
    pub step_counters: StepCounters,
    pub ignore_step_failures: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_total_retries: Option<u32>,
}

/// Where a run goes on that is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// Steps that succeeded, or were skipped, are not run again.
    #[default]
    FromFailure,
    /// Every step is run again.
    AllSteps,
}

/// What becomes of the counters of a run's steps when the run is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepCounters {
    /// They begin anew, and with them `max_elapsed`.
    #[default]
    Reset,
    /// They go on.
    Carry,
}

/// A way of another system that an imported policy keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Quirk {
    /// A deadline that has passed and `max_elapsed` are judged before the rules
    /// and before `max_retries`.
    BoundsFirst,
    /// The backoff is not waited for; `BoundsFirst` holds it against
    /// `max_elapsed` all the same.
    BackoffNotWaited,
}

/// A rule as written: `name`, `match` and exactly one action.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct RuleSpec {
    pub name: String,
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<MatchSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_uncounted: Option<RetrySpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopTimingSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip: Option<SkipSpec>,
}

/// Which failures, as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct MatchSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<FailureClass>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub error_types: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "read::codes")]
    pub codes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exit_codes: Vec<ExitCodesSpec>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message_pattern: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub condition: String,
}

/// One exit code, or an inclusive range: `1`, `{min: 2, max: 5}` or `"7-9"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ExitCodesSpec {
    /// One exit code.
    One(i32),
    /// A range, both ends included.
    Range {
        /// Smallest.
        min: i32,
        /// Largest.
        max: i32,
    },
}

/// A retrying action, as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct RetrySpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<BackoffSpec>,
}

/// When a STOP is given: a name, or `{}` for the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopTimingSpec {
    /// With the answer to the report.
    #[default]
    AtOnce,
    /// When the wait before the retry would have ended.
    AfterBackoff,
}

/// Skipping has nothing to say beside itself: `skip: {}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkipSpec {}

/// What happens when retries are spent: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct ExhaustionSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopTimingSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldSpec>,
}

/// What a person may answer and how long they have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct HoldSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<HoldAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_answer: Option<HoldAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_manual_retries: Option<u32>,
}

/// An answer to a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HoldAnswer {
    /// Run the step again.
    Retry,
    /// Go on without it.
    Skip,
    /// Give it up.
    Fail,
    /// Run it again, on another host.
    ExcludeHost,
}

impl HoldAnswer {
    /// Every answer, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Retry, Self::Skip, Self::Fail, Self::ExcludeHost];

    /// The name that policies and people use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retry => "RETRY",
            Self::Skip => "SKIP",
            Self::Fail => "FAIL",
            Self::ExcludeHost => "EXCLUDE_HOST",
        }
    }
}

/// A backoff, as written: at most one shape.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct BackoffSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed: Option<DelaySpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear: Option<LinearSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponential: Option<ExponentialSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubling_sum: Option<DelaySpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fibonacci: Option<DelaySpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_delay: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<JitterSpec>,
}

/// A shape with nothing but its delay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct DelaySpec {
    pub delay: Span,
}

/// A linear shape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct LinearSpec {
    pub delay: Span,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub increment: Option<Span>,
}

/// An exponential shape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct ExponentialSpec {
    pub delay: Span,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_doublings: Option<u32>,
}

/// An explicit schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct ScheduleSpec {
    pub delays: Vec<Span>,
    #[serde(default)]
    pub end: ScheduleEndSpec,
}

/// What follows the last wait of a schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleEndSpec {
    /// The last wait again and again.
    #[default]
    Repeat,
    /// No further retry.
    Stop,
}

/// The random part of a wait: a kind, or `{ratio: 0.2}`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the contract documents each kind, once")]
pub enum JitterSpec {
    None,
    Full,
    Equal,
    Ratio(f64),
    Base,
    Decorrelated,
}

/// Bounds on pushback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct PushbackSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Span>,
}

/// Which hosts to stay away from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct AntiAffinitySpec {
    pub mode: AntiAffinityMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<Span>,
}

/// How strictly hosts of failed attempts are avoided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AntiAffinityMode {
    /// Hosts do not matter.
    #[default]
    None,
    /// Other hosts are preferred, for a while.
    Soft,
    /// A host on which the step failed does not run it again.
    Hard,
}

//! What an operator allows: parsed once, valid ever after.

pub mod parse;
pub mod spec;

use std::{fmt, sync::Arc, time::Duration};

use self::spec::{AntiAffinityMode, HoldAnswer, Quirk, Resume, StepCounters};
use super::{
    backoff::Backoff,
    condition::Condition,
    failure::{Code, Failure, FailureClass},
    pattern::Pattern,
};

pub use super::violation::{Violation, Violations};

/// Rules of retrying. Only [`Policy::parse`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Retries granted at most on the policy's own counter; None is no limit.
    pub max_retries: Option<u32>,
    /// How long after the first start a retry may still start.
    pub max_elapsed: Option<Duration>,
    /// The wait before each retry.
    pub backoff: Backoff,
    /// Tried in order; the first that matches decides.
    pub rules: Vec<Rule>,
    /// Shortest wait that a pushback leads to.
    pub pushback_min: Duration,
    /// Longest wait that a pushback leads to. At least `pushback_min`.
    pub pushback_max: Duration,
    /// Retries granted at most after crashes.
    pub max_crash_retries: u32,
    /// An attempt that ran this long was healthy. None resets nothing.
    pub reset_after: Option<Duration>,
    /// Whether an attempt that came further than any before it was healthy.
    pub reset_on_progress: bool,
    /// Which hosts to stay away from.
    pub anti_affinity: AntiAffinity,
    /// What happens when retries are spent.
    pub on_exhaustion: Exhaustion,
    /// Kinds of steps that are never retried.
    pub never_retry_kinds: Vec<String>,
    /// Ways of another system that it keeps.
    pub quirks: Vec<Quirk>,
    /// What holds for runs that follow it.
    pub run: RunRetries,
}

/// What holds for runs that follow a policy, beside what holds for a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunRetries {
    /// Where a run goes on that is tried again.
    pub resume: Resume,
    /// What becomes of the counters of its steps then.
    pub step_counters: StepCounters,
    /// Whether a run is given up that failed because of one of its steps: its
    /// steps have their own retries.
    pub ignore_step_failures: bool,
    /// Retries of all steps of the run together, over all its attempts; None is
    /// no bound.
    pub max_total_retries: Option<u32>,
}

/// One line of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name, unique within the policy.
    pub name: RuleName,
    /// Which failures.
    pub matches: Match,
    /// What follows.
    pub action: Action,
}

/// Name of a rule: 1 to 32 characters of `a-z 0-9 -`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName(pub(crate) Arc<str>);

impl RuleName {
    /// The name, when `text` is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let legal = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        legal.then(|| Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Which failures: all that is given must hold, any one value of a list is
/// enough, an empty list asks for nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// Classes.
    pub classes: Vec<FailureClass>,
    /// Error types.
    pub error_types: Vec<TypePattern>,
    /// Codes.
    pub codes: Vec<CodePattern>,
    /// Exit codes, as inclusive ranges.
    pub exit_codes: Vec<(i32, i32)>,
    /// Searched for in the message.
    pub message: Option<Pattern>,
    /// Must hold; one that cannot be evaluated does not.
    pub condition: Option<Condition>,
}

/// An error type, or all that begin alike.
#[derive(Clone, Debug, PartialEq)]
pub enum TypePattern {
    /// Exactly this one.
    Exact(String),
    /// Any that begins so.
    Prefix(String),
}

/// A code, or a class of HTTP statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodePattern {
    /// Exactly this one.
    Exact(Code),
    /// Every HTTP status whose hundreds are these: 5 for `5xx`.
    HttpClass(u16),
}

/// What follows a failure that a rule matches.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Try again, counted.
    Retry {
        /// Retries on a counter of the rule's own; None shares the policy's.
        max_retries: Option<u32>,
        /// None means the policy's.
        backoff: Option<Backoff>,
    },
    /// Try again without counting it against the policy's `max_retries`.
    RetryUncounted {
        /// The ceiling on what never counts.
        max_retries: u32,
        /// None means the policy's.
        backoff: Option<Backoff>,
    },
    /// Give up.
    Stop(StopTiming),
    /// Wait for a person.
    Hold(HoldTerms),
    /// Treat the step as skipped.
    Skip,
}

/// When a STOP is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopTiming {
    /// With the answer to the report.
    AtOnce,
    /// When the wait before the retry would have ended.
    AfterBackoff,
}

/// What happens when retries are spent.
#[derive(Clone, Debug, PartialEq)]
pub enum Exhaustion {
    /// Give up.
    Stop(StopTiming),
    /// Wait for a person.
    Hold(HoldTerms),
}

/// What a person may answer to a hold and how long they have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldTerms {
    /// Answers that are allowed, never none.
    pub allowed: Vec<HoldAnswer>,
    /// How long to wait. None means for ever.
    pub timeout: Option<Duration>,
    /// The answer taken when the time is up; one of `allowed`.
    pub default_answer: HoldAnswer,
    /// Manual retries granted at most.
    pub max_manual_retries: u32,
}

/// Which hosts the next attempt should stay away from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AntiAffinity {
    /// How strictly.
    pub mode: AntiAffinityMode,
    /// How long a host is avoided in soft mode.
    pub decay: Duration,
}

impl Policy {
    /// Whether it keeps this way of another system.
    #[must_use]
    pub fn keeps(&self, quirk: Quirk) -> bool {
        self.quirks.contains(&quirk)
    }

    /// The first rule that matches. `holds` evaluates a condition; it is asked
    /// only for rules whose other parts match.
    #[must_use]
    pub fn rule_for(
        &self,
        failure: &Failure,
        mut holds: impl FnMut(&Condition) -> bool,
    ) -> Option<&Rule> {
        self.rules.iter().find(|rule| {
            rule.matches.fits(failure) && rule.matches.condition.as_ref().is_none_or(&mut holds)
        })
    }
}

impl Match {
    /// Whether all but the condition holds.
    fn fits(&self, failure: &Failure) -> bool {
        any_or_empty(&self.classes, |class| *class == failure.class)
            && any_or_empty(&self.error_types, |pattern| pattern.fits(&failure.error_type))
            && any_or_empty(&self.codes, |pattern| {
                failure.code.is_some_and(|code| pattern.fits(code))
            })
            && any_or_empty(&self.exit_codes, |(min, max)| {
                failure.exit_code.is_some_and(|code| (*min..=*max).contains(&code))
            })
            && self.message.as_ref().is_none_or(|pattern| pattern.is_match(&failure.message))
    }
}

fn any_or_empty<T>(values: &[T], fits: impl Fn(&T) -> bool) -> bool {
    values.is_empty() || values.iter().any(fits)
}

impl TypePattern {
    fn fits(&self, error_type: &str) -> bool {
        match self {
            Self::Exact(name) => error_type == name,
            Self::Prefix(prefix) => error_type.starts_with(prefix.as_str()),
        }
    }
}

impl CodePattern {
    fn fits(self, code: Code) -> bool {
        match (self, code) {
            (Self::Exact(wanted), code) => wanted == code,
            (Self::HttpClass(class), Code::Http(status)) => status / 100 == class,
            (Self::HttpClass(_), Code::Grpc(_)) => false,
        }
    }
}

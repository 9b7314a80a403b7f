//! Conditions: the part of a rule that an operator writes as an expression.
//!
//! ```text
//! failure.class == "TRANSIENT" && failure.exit_code in [137, 143] && count("TRANSIENT") < 3
//! ```
//!
//! The language is [CEL](https://cel.dev), which operators know from elsewhere, without what could
//! make an evaluation long or surprising. A condition is checked completely when its policy is
//! written: names, types, limits and patterns. What is left to go wrong later is arithmetic on
//! what a worker reported ([`EvaluationError`]), and a rule treats that as "does not match".
//!
//! # The operator's reference
//!
//! ## `failure`: the attempt that has just failed
//!
//! | name | type | meaning |
//! |---|---|---|
//! | `failure.class` | string | `FAILURE`, `ERROR`, `TRANSIENT`, `TIMEOUT`, `THROTTLED`, `CRASH` or `CANCELED` |
//! | `failure.error_type` | string | the error's type as the worker names it, such as `java.net.ConnectException`; `""` when not reported |
//! | `failure.code` | string | as reported: a gRPC name such as `"UNAVAILABLE"` or an HTTP status such as `"503"`; `""` when not reported |
//! | `failure.exit_code` | int | of the process; -1 when unknown |
//! | `failure.signal` | int | that ended the process; 0 when none did |
//! | `failure.message` | string | the error message as stored; `""` when not reported |
//! | `failure.cause` | string | fingerprint of the cause; `""` when not reported |
//! | `failure.host` | string | where the attempt ran; `""` when not reported |
//! | `failure.worker` | string | which worker ran it; `""` when not reported |
//! | `failure.target` | string | the target named at fault; `""` when none was |
//! | `failure.action` | string | the action inside the step that failed; `""` when not reported |
//! | `failure.duration_s` | double | seconds that the attempt took; 0 when unknown |
//! | `failure.executed` | string | whether the work took effect: `NO`, `MAYBE` or `YES`; `""` when not reported |
//! | `failure.retryable` | bool | what the worker thinks; true unless it said otherwise |
//!
//! ## `step`: the record, this failure counted in
//!
//! | name | type | meaning |
//! |---|---|---|
//! | `step.namespace`, `step.run`, `step.name` | string | the step's own name in three parts |
//! | `step.kind` | string | the kind of step; `""` when it has none |
//! | `step.attempt` | int | number of the attempt that has just failed; the first is 1 |
//! | `step.retries` | int | retries counted so far |
//! | `step.uncounted` | int | retries granted without being counted |
//! | `step.crashes` | int | attempts that ended as a crash |
//! | `step.elapsed_s` | double | seconds since the first start |
//!
//! ## What the step remembers (its last 16 attempts, this one included)
//!
//! | name | type | meaning |
//! |---|---|---|
//! | `last_exit_codes` | list of int | newest first; -1 where unknown |
//! | `count("TIMEOUT")` | int | how many of them ended in that class |
//! | `consecutive("TIMEOUT")` | int | how many of the latest, in a row, ended in that class |
//!
//! ## Operators and functions
//!
//! * `&&`, `||`, `!`, `c ? a : b`. As in CEL, `&&` and `||` overcome an error on one side when the
//!   other side alone decides.
//! * `==`, `!=` on two values of one type; `<`, `<=`, `>`, `>=` on numbers and strings. An int and
//!   a double are compared by value, so `failure.duration_s > 5` is fine.
//! * `+`, `-`, `*`, `/`, `%` on two ints, all but `%` on two doubles, `+` on two strings. To mix an
//!   int and a double, say which is meant: `double(step.retries) * 1.5`.
//! * `x in [1, 2, 3]`, `137 in last_exit_codes`, `last_exit_codes[0]`.
//! * `size(x)` or `x.size()` of a string (in characters) or of `last_exit_codes`.
//! * `x.startsWith("…")`, `x.endsWith("…")`, `x.contains("…")`, and `x.matches("…")` with a
//!   [`Pattern`](super::pattern::Pattern) that is written out.
//! * `int()` of a double (cut off) or a string, `double()` of an int or a string, `string()` of
//!   any of these.
//! * `has(failure.code)`: whether it was reported.
//!
//! ## Limits
//!
//! 1024 bytes, 256 operands and operations, 16 brackets within brackets, 16 conditionals and 8
//! patterns. There are no loops over lists (`all`, `exists`, `map`, …), no maps and no `null`.
//!
//! # Why not the library's evaluator
//!
//! The parser is the `cel` crate's. Its evaluator finds unknown names and wrong types only when
//! they are evaluated, and compiles the pattern of `matches` anew each time. So the parsed form is
//! checked and compiled into a small typed tree that is evaluated without either; a property holds
//! the two to the same answers.

mod compile;
mod expression;
mod fields;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::domain::failure::FailureClass;

use expression::Test;

/// Longest source accepted, in bytes.
pub const SOURCE_BYTES_MAX: usize = 1024;

/// Attempts that a step remembers, so how many a condition can see.
pub const ATTEMPTS_SEEN_MAX: usize = 16;

/// A checked condition. Cloning shares the compiled form. Two are equal when their sources are.
#[derive(Clone)]
pub struct Condition {
    compiled: Arc<Compiled>,
}

struct Compiled {
    source: Box<str>,
    test: Test,
}

impl Condition {
    /// Reads and checks a condition, or says what is wrong with it.
    pub fn parse(source: &str) -> Result<Self, ConditionError> {
        let test = compile::compile(source)?;
        Ok(Self { compiled: Arc::new(Compiled { source: source.into(), test }) })
    }

    /// Whether the condition holds. On an error the rule that asked does not match, and the
    /// decision says why.
    pub fn holds(&self, scope: &ConditionScope<'_>) -> Result<bool, EvaluationError> {
        self.compiled.test.holds(scope)
    }

    /// The source it was parsed from.
    pub fn source(&self) -> &str {
        &self.compiled.source
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl Eq for Condition {}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.source()).finish()
    }
}

/// What a condition is asked about. Borrowed, so that it costs nothing to put together.
#[derive(Clone, Copy, Debug)]
pub struct ConditionScope<'a> {
    /// The failure that is being decided.
    pub failure: FailureView<'a>,
    /// The step that it happened to.
    pub step: StepView<'a>,
    /// How the remembered attempts ended, newest first, this one included. Only the first
    /// [`ATTEMPTS_SEEN_MAX`] are looked at.
    pub outcomes: &'a [FailureClass],
    /// Their exit codes, newest first; -1 where unknown. Only the first [`ATTEMPTS_SEEN_MAX`] are
    /// looked at.
    pub last_exit_codes: &'a [i32],
}

/// The failed attempt, as a condition sees it. Texts are empty where nothing was reported.
#[derive(Clone, Copy, Debug)]
pub struct FailureView<'a> {
    /// What kind of failure.
    pub class: FailureClass,
    /// Type of the error, as the worker names it.
    pub error_type: &'a str,
    /// As reported: `UNAVAILABLE`, `503`.
    pub code: &'a str,
    /// -1 when unknown.
    pub exit_code: i32,
    /// 0 when no signal ended the process.
    pub signal: i32,
    /// What went wrong, for people and for patterns.
    pub message: &'a str,
    /// Fingerprint of the cause.
    pub cause: &'a str,
    /// Host on which the attempt ran.
    pub host: &'a str,
    /// Worker that ran the attempt.
    pub worker: &'a str,
    /// The target named at fault.
    pub target: &'a str,
    /// The action inside the step that failed.
    pub action: &'a str,
    /// Seconds that the attempt took; 0 when unknown.
    pub duration_s: f64,
    /// `NO`, `MAYBE` or `YES`.
    pub executed: &'a str,
    /// False when the worker knows that another try is pointless.
    pub retryable: bool,
}

/// The step's record, as a condition sees it, with this failure counted in.
#[derive(Clone, Copy, Debug)]
pub struct StepView<'a> {
    /// Namespace of the step.
    pub namespace: &'a str,
    /// Run of the step.
    pub run: &'a str,
    /// Name of the step within the run.
    pub name: &'a str,
    /// Empty when the step has none.
    pub kind: &'a str,
    /// Number of the attempt that has just failed; the first is 1.
    pub attempt: u32,
    /// Retries counted so far.
    pub retries: u32,
    /// Retries granted without being counted.
    pub uncounted: u32,
    /// Attempts that ended as a crash.
    pub crashes: u32,
    /// Seconds since the first start.
    pub elapsed_s: f64,
}

/// Why a condition was refused, in the three parts that an answer to its author needs: what is
/// wrong, where, and what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}{}; accepted: {accepted}", Near(excerpt))]
pub struct ConditionError {
    /// What is wrong.
    pub problem: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The part of the source that is meant, shortened; empty when it is all of it.
    pub excerpt: String,
    /// What would be accepted in its place.
    pub accepted: String,
}

struct Near<'a>(&'a str);

impl fmt::Display for Near<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            excerpt => write!(f, " in `{excerpt}`"),
        }
    }
}

/// Why a condition had no answer for this failure. The rule that asked does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// An int was divided by zero, by `/` or `%`.
    #[error("division by zero")]
    DivisionByZero,
    /// A result that does not fit in an int of 64 bits.
    #[error("integer overflow")]
    Overflow,
    /// `last_exit_codes` is shorter than that.
    #[error("last_exit_codes[{index}] does not exist: there are {length}")]
    NoSuchElement {
        /// As asked for, from 0.
        index: i64,
        /// How many there are.
        length: usize,
    },
    /// `int()` or `double()` of a text that is none.
    #[error("{wanted}() of a text that is no {wanted}")]
    NotANumber {
        /// `int` or `double`.
        wanted: &'static str,
    },
}

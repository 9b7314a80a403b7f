//! A request being checked, and what is found wrong with it.

use std::{fmt, ops::RangeInclusive, time::Duration};

use crate::domain::{
    id::{ID_ACCEPTED, Id, StepName, is_id},
    namespace::DEFAULT_NAMESPACE,
    policy::{Violation, Violations},
    time::{Span, Timestamp},
};

/// Violations told at most. A status travels in HTTP/2 trailers, of which some
/// clients accept no more than 8 KiB.
pub const VIOLATIONS_MAX: usize = 8;

/// Characters shown of a value.
const VALUE_SHOWN: usize = 80;

/// Longest span of the contract, as `google.protobuf.Duration` has it: ten
/// thousand years.
pub(super) const SPAN_SECONDS_MAX: i64 = 315_576_000_000;

/// Latest instant of the contract, as `google.protobuf.Timestamp` has it: the
/// last second of the year 9999.
pub(super) const INSTANT_SECONDS_MAX: i64 = 253_402_300_799;

/// What is wrong with a request, never nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The first few, at most [`VIOLATIONS_MAX`].
    violations: Vec<Violation>,
    /// How many there are beside them.
    more: usize,
}

impl Invalid {
    /// One thing wrong: `value` as [`shown`] or empty, `problem` in words.
    #[must_use]
    pub fn of(
        field: impl Into<String>,
        value: impl Into<String>,
        problem: impl Into<String>,
    ) -> Self {
        let violation =
            Violation { field: field.into(), value: value.into(), problem: problem.into() };
        Self { violations: vec![violation], more: 0 }
    }

    /// A policy or a target that does not hold, found in the field `prefix` of the request.
    #[must_use]
    pub fn of_violations(violations: Violations, prefix: &str) -> Self {
        let Violations(mut violations) = violations;
        let more = violations.len().saturating_sub(VIOLATIONS_MAX);
        violations.truncate(VIOLATIONS_MAX);
        Self { violations, more }.within(prefix)
    }

    /// The same, found in the field `prefix` of a larger request.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        for violation in &mut self.violations {
            let separator = if violation.field.is_empty() { "" } else { "." };
            violation.field = format!("{prefix}{separator}{}", violation.field);
        }
        self
    }

    /// What is wrong; the first few when it is much.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

impl std::error::Error for Invalid {}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, violation) in self.violations.iter().enumerate() {
            write!(f, "{}{violation}", if at == 0 { "" } else { "; " })?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// A text of a caller as it may be shown: quoted, escaped, shortened.
#[must_use]
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(VALUE_SHOWN) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// A place in a request.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// A field.
    Field(&'static str),
    /// An entry of a list.
    Item(&'static str, usize),
}

/// Walks a request, remembering where it is and what is wrong. A part that is
/// wrong is replaced by something harmless, so that the walk can go on.
#[derive(Default)]
pub(super) struct Check {
    path: Vec<Part>,
    violations: Vec<Violation>,
    more: usize,
}

impl Check {
    /// What was made of the request, unless something is wrong with it.
    pub fn finish<T>(self, made: T) -> Result<T, Invalid> {
        match self.into_invalid() {
            None => Ok(made),
            Some(invalid) => Err(invalid),
        }
    }

    pub fn into_invalid(self) -> Option<Invalid> {
        let Self { violations, more, .. } = self;
        (!violations.is_empty()).then_some(Invalid { violations, more })
    }

    pub fn within<T>(&mut self, part: Part, walk: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(part);
        let result = walk(self);
        self.path.pop();
        result
    }

    #[cold]
    pub fn refuse(&mut self, field: &str, value: impl Into<String>, problem: impl Into<String>) {
        if self.violations.len() == VIOLATIONS_MAX {
            self.more += 1;
            return;
        }
        let field = self.path_to(field);
        self.violations.push(Violation { field, value: value.into(), problem: problem.into() });
    }

    fn path_to(&self, field: &str) -> String {
        let mut path = Vec::with_capacity(self.path.len() + 1);
        path.extend(self.path.iter().map(|part| match part {
            Part::Field(name) => (*name).to_owned(),
            Part::Item(name, at) => format!("{name}[{at}]"),
        }));
        if !field.is_empty() {
            path.push(field.to_owned());
        }
        path.join(".")
    }

    pub fn required(&mut self, field: &str) {
        self.refuse(field, "", "required");
    }

    /// A name that must be given.
    pub fn name(&mut self, field: &str, name: &str) {
        if !is_id(name) {
            self.refuse(field, shown(name), format!("accepted: {ID_ACCEPTED}"));
        }
    }

    /// An id, None when it is none.
    pub fn id(&mut self, field: &str, text: &str) -> Option<Id> {
        let id = text.parse().ok();
        if id.is_none() {
            self.refuse(field, shown(text), format!("accepted: {ID_ACCEPTED}"));
        }
        id
    }

    /// An id that may be left out by leaving it empty.
    pub fn optional_id(&mut self, field: &str, text: &str) -> Option<Id> {
        if text.is_empty() { None } else { self.id(field, text) }
    }

    /// A namespace; empty is the one that always exists.
    pub fn namespace(&mut self, namespace: String) -> String {
        if namespace.is_empty() {
            return DEFAULT_NAMESPACE.to_owned();
        }
        self.name("namespace", &namespace);
        namespace
    }

    /// The name of a run itself.
    pub fn run(&mut self, namespace: String, run: String) -> StepName {
        let namespace = self.namespace(namespace);
        self.name("run", &run);
        StepName { namespace, run, step: String::new() }
    }

    /// The name of a step, or of the run where no step is named.
    pub fn step_or_run(&mut self, namespace: String, run: String, step: String) -> StepName {
        if step.is_empty() { self.run(namespace, run) } else { self.step(namespace, run, step) }
    }

    /// The name of a step.
    pub fn step(&mut self, namespace: String, run: String, step: String) -> StepName {
        let namespace = self.namespace(namespace);
        self.name("run", &run);
        self.name("step", &step);
        StepName { namespace, run, step }
    }

    /// A text of at most `bytes_max` bytes.
    pub fn text(&mut self, field: &str, text: &str, bytes_max: usize) {
        if text.len() > bytes_max {
            self.refuse(
                field,
                shown(text),
                format!("has {} bytes; accepted: at most {bytes_max}", text.len()),
            );
        }
    }

    /// A length of time, not negative.
    pub fn span(&mut self, field: &str, span: Option<prost_types::Duration>) -> Option<Duration> {
        let given = span?;
        let in_range = (0..=SPAN_SECONDS_MAX).contains(&given.seconds)
            && (0..=999_999_999).contains(&given.nanos);
        match (u64::try_from(given.seconds), u32::try_from(given.nanos)) {
            (Ok(seconds), Ok(nanos)) if in_range => Some(Duration::new(seconds, nanos)),
            _ => {
                let accepted = "accepted: a length of time that is not negative, at most 315576000000 s and 999999999 ns";
                self.refuse(field, format!("{} s {} ns", given.seconds, given.nanos), accepted);
                None
            }
        }
    }

    /// A length of time of more than zero.
    pub fn positive_span(
        &mut self,
        field: &str,
        span: Option<prost_types::Duration>,
    ) -> Option<Duration> {
        let span = self.span(field, span)?;
        if span.is_zero() {
            self.refuse(field, "0s", "accepted: more than zero");
        }
        Some(span)
    }

    /// A length of time within bounds, both included.
    pub fn bounded_span(
        &mut self,
        field: &str,
        span: Option<prost_types::Duration>,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let span = self.span(field, span)?;
        if !bounds.contains(&span) {
            let accepted =
                format!("accepted: {} to {}", Span(*bounds.start()), Span(*bounds.end()));
            self.refuse(field, Span(span).to_string(), accepted);
        }
        Some(span)
    }

    /// An instant, not before 1970. What is finer than a microsecond is cut.
    pub fn instant(
        &mut self,
        field: &str,
        instant: Option<prost_types::Timestamp>,
    ) -> Option<Timestamp> {
        let given = instant?;
        let in_range = (0..=INSTANT_SECONDS_MAX).contains(&given.seconds)
            && (0..=999_999_999).contains(&given.nanos);
        match (u64::try_from(given.seconds), u32::try_from(given.nanos)) {
            (Ok(seconds), Ok(nanos)) if in_range => {
                Some(Timestamp::EPOCH.plus(Duration::new(seconds, nanos)))
            }
            _ => {
                let accepted = "accepted: an instant from 1970-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z";
                self.refuse(field, format!("{} s {} ns", given.seconds, given.nanos), accepted);
                None
            }
        }
    }
}

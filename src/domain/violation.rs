//! What is wrong with something that was written: every violation at once, each
//! with the field, the value and what would be accepted.

use std::fmt;

/// Characters of a value that are shown.
const SHOWN_MAX: usize = 80;

/// One thing wrong with what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, as in `rules[2].match.message_pattern`.
    pub field: String,
    /// The value as it was given, shortened.
    pub value: String,
    /// What would be accepted, or what is wrong.
    pub problem: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "{}: {}", self.field, self.problem)
        } else {
            write!(f, "{}: {}: {}", self.field, self.value, self.problem)
        }
    }
}

/// Everything wrong with what was written, never nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.in_words())]
pub struct Violations(pub Vec<Violation>);

impl Violations {
    fn in_words(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// Walks what was written, remembering where it is and what is wrong. A part
/// that is wrong is replaced by something harmless, so that the walk can go on.
#[derive(Default)]
pub(super) struct Check {
    path: Vec<String>,
    violations: Vec<Violation>,
}

impl Check {
    /// Notes a violation; an empty field is the part itself.
    pub(super) fn refuse(
        &mut self,
        field: &str,
        value: impl fmt::Display,
        problem: impl Into<String>,
    ) {
        let mut path = self.path.clone();
        if !field.is_empty() {
            path.push(field.to_owned());
        }
        let mut value = value.to_string();
        if let Some((cut, _)) = value.char_indices().nth(SHOWN_MAX) {
            value.truncate(cut);
            value.push('…');
        }
        self.violations.push(Violation { field: path.join("."), value, problem: problem.into() });
    }

    /// Walks a part.
    pub(super) fn within<T>(
        &mut self,
        field: impl Into<String>,
        part: impl FnOnce(&mut Self) -> T,
    ) -> T {
        self.path.push(field.into());
        let result = part(self);
        self.path.pop();
        result
    }

    /// What the walk made, if nothing is wrong.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(super) fn finish<T>(self, made: T) -> Result<T, Violations> {
        if self.violations.is_empty() { Ok(made) } else { Err(Violations(self.violations)) }
    }
}

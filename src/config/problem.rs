//! What is wrong with something an operator wrote, and where.

use std::{fmt, sync::Arc};

/// Problems told at most at once; whoever has more begins with these.
pub const PROBLEMS_MAX: usize = 100;
/// Problems told at most where there is little room.
const BRIEFLY_MAX: usize = 10;
/// Characters of a value that are shown.
const VALUE_MAX: usize = 80;
/// Characters of a source line that are shown.
const LINE_MAX: usize = 160;

/// A file as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Its path, as it was given.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A place in a text: both numbers begin at 1, columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The place of byte `offset` of `text`.
    #[must_use]
    pub fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the defaults that are compiled in.
    Default,
    /// In a file.
    File(Arc<Source>, Place),
    /// In a file that could not be read, by its path.
    Unread(String),
    /// In a variable of the environment, by its name.
    Variable(String),
    /// On the command line, by the flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(source, place) => {
                write!(f, "{}:{}:{}", source.name, place.line, place.column)
            }
            Self::Unread(name) | Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub origin: Origin,
    /// Path of the field, as in `policies.nightly.rules[2].match.condition`;
    /// empty when it is the whole.
    pub field: String,
    /// The value as it was given, shortened; empty when there is none to show.
    pub value: String,
    /// What is wrong, or what would be accepted.
    pub message: String,
}

impl Problem {
    /// A problem with a value that is fit to be shown: short, in one line.
    #[must_use]
    pub fn new(
        origin: Origin,
        field: impl Into<String>,
        value: &str,
        message: impl Into<String>,
    ) -> Self {
        Self { origin, field: field.into(), value: shown(value), message: message.into() }
    }

    /// The problem, and below it the line it is on with a caret.
    #[must_use]
    pub fn in_full(&self) -> String {
        let Origin::File(source, place) = &self.origin else { return self.to_string() };
        let line = source.text.lines().nth(place.line - 1).unwrap_or_default();
        let line: String = line.trim_end().chars().take(LINE_MAX).map(harmless).collect();
        if line.trim().is_empty() {
            return self.to_string();
        }
        let margin = place.line.to_string();
        let blank = " ".repeat(margin.len());
        let caret = " ".repeat(place.column.saturating_sub(1).min(LINE_MAX));
        format!("{self}\n {blank} |\n {margin} | {line}\n {blank} | {caret}^")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        for part in [&self.field, &self.value].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Everything wrong, never nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.lines(PROBLEMS_MAX))]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Each problem with its source line and a caret.
    #[must_use]
    pub fn in_full(&self) -> String {
        self.0.iter().map(Problem::in_full).collect::<Vec<_>>().join("\n")
    }

    /// The first few, a line each, and how many more there are.
    #[must_use]
    pub fn briefly(&self) -> String {
        self.lines(BRIEFLY_MAX)
    }

    fn lines(&self, max: usize) -> String {
        let mut lines: Vec<String> = self.0.iter().take(max).map(ToString::to_string).collect();
        if let more @ 1.. = self.0.len().saturating_sub(max) {
            lines.push(format!("and {more} more"));
        }
        lines.join("\n")
    }
}

/// A value in one short line.
fn shown(value: &str) -> String {
    let mut shown: String = value.chars().take(VALUE_MAX).map(harmless).collect();
    if value.chars().nth(VALUE_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// A character that stays on its line and does nothing to a terminal.
fn harmless(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// The one of `names` that `given` was most likely meant to be.
#[must_use]
pub fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Typing errors, not other words: at most one character in three.
    let tolerated = (given.chars().count() / 3).max(1);
    let by_distance = names.into_iter().map(|name| (distance(given, name), name));
    by_distance
        .filter(|(distance, _)| *distance <= tolerated)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Characters to insert, remove, replace or swap with their neighbour to come
/// from one text to the other; case does not matter.
fn distance(one: &str, other: &str) -> usize {
    let [one, other] = [one, other]
        .map(|text| text.chars().take(VALUE_MAX).flat_map(char::to_lowercase).collect::<Vec<_>>());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let replaced = above[j] + usize::from(a != b);
            let mut least = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_mistyped_is_found_and_another_word_is_not() {
        let names = ["max_retries", "max_elapsed", "backoff"];
        assert_eq!(nearest("max_retires", names), Some("max_retries"));
        assert_eq!(nearest("Backoff", names), Some("backoff"));
        assert_eq!(nearest("timeout", names), None);
        assert_eq!(nearest("", names), None);
    }

    #[test]
    fn a_problem_points_at_its_place_and_shows_no_control_characters() {
        let text = "a: 1\n\tbé: \u{1b}[31m\n".to_owned();
        let place = Place::of(&text, text.find('\u{1b}').unwrap());
        assert_eq!(place, Place { line: 2, column: 6 });
        let source = Arc::new(Source { name: "p.yaml".into(), text });
        let problem = Problem::new(Origin::File(source, place), "b", "\u{1b}[31m", "accepted: 1");
        assert_eq!(
            problem.in_full(),
            "p.yaml:2:6: b: \u{fffd}[31m: accepted: 1\n   |\n 2 |  bé: \u{fffd}[31m\n   |      ^"
        );
    }

    #[test]
    fn what_is_told_briefly_says_how_much_is_missing() {
        let problem =
            |n: usize| Problem::new(Origin::Flag("--set".into()), n.to_string(), "", "wrong");
        let problems = Problems((0..13).map(problem).collect());
        assert!(problems.briefly().ends_with("--set: 9: wrong\nand 3 more"));
    }
}

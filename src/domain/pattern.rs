//! A pattern that an operator matches error messages against.
//!
//! Messages come from workers and patterns from operators, and neither may be able to stall a
//! decision: the syntax is the one of the `regex` crate, which has no backtracking, so a match
//! takes time linear in the text. What a pattern may cost in memory is bounded when it is parsed.

use std::fmt;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

/// Longest source accepted, in bytes.
pub const SOURCE_BYTES_MAX: usize = 512;

/// Largest compiled form accepted, in bytes. Room for long alternatives and several Unicode
/// classes; repetitions of repetitions do not fit. The bound is one of time as well: at this size
/// the slowest patterns tried took 2 to 3 ms for the first message of 512 bytes and microseconds
/// for more of its kind; at four times this size, over 10 ms for every message.
const COMPILED_BYTES_MAX: usize = 256 * 1024;

/// Memory that one matching thread may keep for its working tables, in bytes. A pattern that
/// needs more still matches, only slower.
const WORKING_BYTES_MAX: usize = 256 * 1024;

/// Groups within groups. Bounds the stack that parsing needs.
const NESTING_MAX: u32 = 32;

/// A compiled pattern. It matches when it is found anywhere in the text; `^` and `$` anchor it.
///
/// Cloning shares the compiled form. Two patterns are equal when their sources are.
#[derive(Clone)]
pub struct Pattern {
    regex: Arc<Regex>,
}

impl Pattern {
    /// Reads a pattern, or says why it is refused.
    pub fn parse(source: &str) -> Result<Self, PatternError> {
        if source.is_empty() {
            return Err(PatternError::Empty);
        }
        if source.len() > SOURCE_BYTES_MAX {
            return Err(PatternError::TooLong { bytes: source.len() });
        }
        RegexBuilder::new(source)
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(WORKING_BYTES_MAX)
            .nest_limit(NESTING_MAX)
            .build()
            .map(|regex| Self { regex: Arc::new(regex) })
            .map_err(PatternError::from)
    }

    /// Whether the pattern is found anywhere in `text`.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The source it was parsed from.
    pub fn source(&self) -> &str {
        self.regex.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.source()).finish()
    }
}

/// Why a pattern was refused, and what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It would match every text.
    #[error("the pattern is empty and would match every text; leave it out, or write one")]
    Empty,
    /// Longer than [`SOURCE_BYTES_MAX`].
    #[error("the pattern has {bytes} bytes; at most {SOURCE_BYTES_MAX} are accepted")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Short to write, large once its repetitions are written out.
    #[error(
        "the pattern needs more than {COMPILED_BYTES_MAX} bytes when compiled; \
         repeat less ({{n,m}}), or write (?-u) for ASCII classes"
    )]
    TooLarge,
    /// Not a regular expression, or one that needs backtracking.
    #[error(
        "the pattern is not a regular expression: {reason}; \
         accepted is RE2 syntax, so no look-around and no back-references"
    )]
    Syntax {
        /// What the parser says.
        reason: String,
    },
}

impl From<regex::Error> for PatternError {
    fn from(error: regex::Error) -> Self {
        match error {
            regex::Error::CompiledTooBig(_) => Self::TooLarge,
            other => Self::Syntax { reason: last_line(&other.to_string()) },
        }
    }
}

/// The reason without the drawing of the source above it: the source is the caller's own, and the
/// message has to fit on a line.
fn last_line(message: &str) -> String {
    let line = message.lines().last().unwrap_or(message);
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_its_text_anywhere_unless_anchored() {
        let found = |pattern: &str, text: &str| Pattern::parse(pattern).unwrap().is_match(text);
        assert!(found("reset by peer", "read: connection reset by peer (104)"));
        assert!(found("(?i)too many (connections|requests)", "FATAL: Too Many Connections"));
        assert!(found(r"\bOOM\b", "killed: OOM"));
        assert!(!found("^reset", "connection reset"));
        assert!(found("é.$", "cafés"));
    }

    #[test]
    fn says_why_a_pattern_is_refused() {
        let refusal = |pattern: &str| Pattern::parse(pattern).unwrap_err().to_string();
        let nested = format!("{}a{}", "(".repeat(200), ")".repeat(200));
        for (pattern, expected) in [
            ("", "leave it out"),
            ("(oops", "unclosed group; accepted is RE2 syntax"),
            ("[a", "unclosed character class"),
            ("*", "repetition operator missing expression"),
            ("(?=x)", "look-around, including look-ahead and look-behind, is not supported"),
            (r"(a)\1", "backreferences are not supported"),
            (r"(\w{99}){99}", "more than 262144 bytes"),
            ("((((a{99}){99}){99}){99}){99}", "more than 262144 bytes"),
            (&nested, "nest"),
            (&"x".repeat(513), "has 513 bytes; at most 512 are accepted"),
        ] {
            let message = refusal(pattern);
            assert!(message.contains(expected), "{pattern}: {message}");
        }
    }

    #[test]
    fn patterns_of_ordinary_size_fit() {
        let alternatives = vec!["connection (reset|refused)"; 18].join("|");
        for pattern in [
            r"(?i)\w+ timed out after \d+(\.\d+)? ?(ms|s)",
            r"(?i)^\p{L}+: .*\b(reset|closed)\b",
            &alternatives,
        ] {
            assert!(Pattern::parse(pattern).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn is_equal_by_source_and_prints_it() {
        let pattern = Pattern::parse("a+").unwrap();
        assert_eq!(pattern, pattern.clone());
        assert_ne!(pattern, Pattern::parse("aa*").unwrap());
        assert_eq!(format!("{pattern:?}"), r#"Pattern("a+")"#);
    }

    proptest! {
        #[test]
        fn no_source_and_no_text_panics(
            source in prop_oneof![any::<String>(), r"[\[\](){}*+?|^$.\\a-c0-9,-]{0,600}"],
            text in any::<String>(),
        ) {
            if let Ok(pattern) = Pattern::parse(&source) {
                pattern.is_match(&text);
            }
        }
    }
}

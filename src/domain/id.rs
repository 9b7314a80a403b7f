//! Names that callers choose, checked once.

use std::{borrow::Borrow, fmt, ops::Deref, str::FromStr, sync::Arc};

/// A legal id of a namespace, run, step, policy, target or queue: 1 to 128
/// characters of `A-Z a-z 0-9 . _ ~ : / @ + -`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Arc<str>);

/// Longest id, in characters.
pub const ID_MAX: usize = 128;

/// What an id may be, in words.
pub const ID_ACCEPTED: &str = "1 to 128 characters of A-Z a-z 0-9 . _ ~ : / @ + -";

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("accepted: {ID_ACCEPTED}")]
pub struct NotAnId;

/// Whether `text` may be used as an id.
#[must_use]
pub fn is_id(text: &str) -> bool {
    const LEGAL: [bool; 256] = legal_bytes();
    (1..=ID_MAX).contains(&text.len()) && text.bytes().all(|byte| LEGAL[usize::from(byte)])
}

const fn legal_bytes() -> [bool; 256] {
    let mut legal = [false; 256];
    let mut byte = 0u8;
    loop {
        legal[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'_' | b'~' | b':' | b'/' | b'@' | b'+' | b'-');
        if byte == u8::MAX {
            return legal;
        }
        byte += 1;
    }
}

impl FromStr for Id {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        if is_id(text) { Ok(Self(text.into())) } else { Err(NotAnId) }
    }
}

impl Deref for Id {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Id {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The full name of a step. Borrowed: it lives as long as the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepKey<'a> {
    /// The tenant.
    pub namespace: &'a str,
    /// The execution that the step belongs to.
    pub run: &'a str,
    /// The unit of work.
    pub step: &'a str,
}

impl<'a> StepKey<'a> {
    /// A run itself, which is kept as a step without a name: no step has such a
    /// one.
    #[must_use]
    pub const fn of_run(namespace: &'a str, run: &'a str) -> Self {
        Self { namespace, run, step: "" }
    }

    /// Whether it is that of a run.
    #[must_use]
    pub const fn is_run(&self) -> bool {
        self.step.is_empty()
    }

    /// The step of a namespace whose run and step are joined as in
    /// [`StepKey::joined`].
    #[must_use]
    pub fn split(namespace: &'a str, joined: &'a str) -> Option<Self> {
        joined.split_once(SEPARATOR).map(|(run, step)| Self { namespace, run, step })
    }

    /// Run and step in one string, unambiguous since no id has a space.
    #[must_use]
    pub fn joined(&self) -> String {
        let mut joined = String::with_capacity(self.run.len() + 1 + self.step.len());
        joined.push_str(self.run);
        joined.push(SEPARATOR);
        joined.push_str(self.step);
        joined
    }
}

const SEPARATOR: char = ' ';

/// The full name of a step, owned. Its parts are legal ids: see [`is_id`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StepName {
    /// The tenant.
    pub namespace: String,
    /// The execution that the step belongs to.
    pub run: String,
    /// The unit of work.
    pub step: String,
}

impl StepName {
    /// The name, borrowed.
    #[must_use]
    pub fn key(&self) -> StepKey<'_> {
        StepKey { namespace: &self.namespace, run: &self.run, step: &self.step }
    }
}

impl fmt::Display for StepKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.namespace, self.run, self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_plain() {
        for good in ["a", "nightly/sync", "A.b_c~d:e@f+g-9", &"x".repeat(128)] {
            assert!(good.parse::<Id>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a{b}", "a*b", "ü", "a\0b", "a\nb", &"x".repeat(129)] {
            assert_eq!(bad.parse::<Id>(), Err(NotAnId), "{bad}");
        }
    }

    #[test]
    fn a_joined_key_splits_again() {
        let key = StepKey { namespace: "n", run: "r/1", step: "s:2" };
        assert_eq!(StepKey::split("n", &key.joined()), Some(key));
        assert_eq!(StepKey::split("n", "no-separator"), None);
    }
}

//! What tells the steps of one queue apart.

use std::{collections::BTreeMap, fmt};

use super::id::is_id;

/// Pairs at most.
pub const LABELS_MAX: usize = 8;
/// Longest key and longest value, in bytes.
pub const LABEL_MAX: usize = 63;
/// What a key and what a value may be, in words.
pub const LABEL_ACCEPTED: &str = "1 to 63 characters of A-Z a-z 0-9 . _ ~ : / @ + -";

/// Labels of a step, or those that a worker demands of one: at most
/// [`LABELS_MAX`] pairs of a key and a value, each a legal id of at most
/// [`LABEL_MAX`] bytes, each key once.
///
/// Kept as the text `key=value,key=value`, sorted by key: neither separator may
/// stand in an id. It is stored as it is, and is a part of an index entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Box<str>);

/// Why something is no set of labels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLabels {
    /// More pairs than there may be.
    #[error("{0} labels; accepted: at most {LABELS_MAX}")]
    TooMany(usize),
    /// A key or a value that is none, of this pair.
    #[error("label {0:?}; accepted: a key and a value, each {LABEL_ACCEPTED}")]
    Illegal(String),
}

impl Labels {
    /// Labels of these keys and values.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn of(pairs: &BTreeMap<String, String>) -> Result<Self, NotLabels> {
        if pairs.len() > LABELS_MAX {
            return Err(NotLabels::TooMany(pairs.len()));
        }
        let mut text = String::new();
        for (key, value) in pairs {
            if !is_label(key) || !is_label(value) {
                return Err(NotLabels::Illegal(format!("{key}={value}")));
            }
            let separator = if text.is_empty() { "" } else { "," };
            text.extend([separator, key, "=", value]);
        }
        Ok(Self(text.into()))
    }

    /// Labels as [`Labels::as_str`] tells them.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, NotLabels> {
        let mut pairs = BTreeMap::new();
        for pair in text.split(',').filter(|_| !text.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.insert(key.to_owned(), value.to_owned());
        }
        let labels = Self::of(&pairs)?;
        // Anything else would be another text for the same labels.
        if *labels.0 == *text { Ok(labels) } else { Err(NotLabels::Illegal(text.to_owned())) }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels as one text: `key=value,key=value`, sorted by key.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.0
    }

    /// Keys and values, by key.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split(',').filter_map(|pair| pair.split_once('='))
    }

    /// Whether each pair of `demanded` is among these.
    #[must_use]
    pub fn has_all(&self, demanded: &Self) -> bool {
        let has = |pair: &str| self.0.split(',').any(|own| own == pair);
        demanded.is_empty() || demanded.0.split(',').all(has)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(text: &str) -> bool {
    is_id(text) && text.len() <= LABEL_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Labels, NotLabels> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Labels::of(&pairs.iter().map(owned).collect())
    }

    #[test]
    fn labels_are_sorted_and_read_as_they_are_told() {
        let labels = of(&[("zone", "eu-1"), ("gpu", "a100")]).unwrap();
        assert_eq!(labels.as_str(), "gpu=a100,zone=eu-1");
        assert_eq!(labels.pairs().collect::<Vec<_>>(), [("gpu", "a100"), ("zone", "eu-1")]);
        assert_eq!(Labels::parse(labels.as_str()), Ok(labels));
        assert_eq!(Labels::parse(""), Ok(Labels::default()));
        assert_eq!(Labels::default().pairs().count(), 0);
    }

    #[test]
    fn whatever_is_no_label_is_refused() {
        let long = "x".repeat(LABEL_MAX + 1);
        for (key, value) in
            [("", "a"), ("a", ""), ("a b", "c"), ("a", "b,c"), ("a=b", "c"), (&long, "a")]
        {
            let refused = of(&[(key, value)]).unwrap_err();
            assert_eq!(refused, NotLabels::Illegal(format!("{key}={value}")));
        }
        assert!(of(&[(&long[1..], &long[1..])]).is_ok());
        let many = |count: usize| (0..count).map(|at| (format!("k{at}"), "v".to_owned())).collect();
        assert!(Labels::of(&many(LABELS_MAX)).is_ok());
        assert_eq!(Labels::of(&many(LABELS_MAX + 1)), Err(NotLabels::TooMany(9)));
        for bad in ["b=1,a=1", "a=1,a=1", "a=1,", ",", "a", "a=1,,b=1"] {
            assert!(Labels::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_step_has_what_is_demanded_when_it_has_each_pair() {
        let step = of(&[("gpu", "a100"), ("zone", "eu-1")]).unwrap();
        for (demanded, has) in [
            (vec![], true),
            (vec![("gpu", "a100")], true),
            (vec![("zone", "eu-1"), ("gpu", "a100")], true),
            (vec![("gpu", "a10")], false),
            (vec![("gpu", "a100"), ("disk", "ssd")], false),
        ] {
            assert_eq!(step.has_all(&of(&demanded).unwrap()), has, "{demanded:?}");
        }
        assert!(!Labels::default().has_all(&step));
    }
}

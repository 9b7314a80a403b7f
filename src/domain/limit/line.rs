//! Who waits at a target, by how long.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::time::Timestamp;

/// Steps that wait, the longest first; of those who wait equally long, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    order: BTreeSet<(Timestamp, Box<str>)>,
    /// Since when each has been waiting.
    places: BTreeMap<Box<str>, Timestamp>,
}

impl Line {
    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Who waits, the longest first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(|(_, member)| &**member)
    }

    /// Who came after an instant, the latest first.
    pub fn since(&self, instant: Timestamp) -> impl Iterator<Item = &str> {
        self.order.range((instant, Box::from(""))..).rev().map(|(_, member)| &**member)
    }

    /// Who waits, by name, and since when.
    pub fn places(&self) -> impl ExactSizeIterator<Item = (&str, Timestamp)> {
        self.places.iter().map(|(member, since)| (&**member, *since))
    }

    /// Stands in it, having waited since an instant, wherever it stood before.
    pub fn join(&mut self, member: &str, since: Timestamp) {
        self.leave(member);
        self.places.insert(member.into(), since);
        self.order.insert((since, member.into()));
    }

    /// Stands in it no more.
    pub fn leave(&mut self, member: &str) {
        if let Some((name, since)) = self.places.remove_entry(member) {
            self.order.remove(&(since, name));
        }
    }

    /// How many wait before one who stands in it; None where it does not.
    #[must_use]
    pub fn place(&self, member: &str) -> Option<u64> {
        let (member, since) = self.places.get_key_value(member)?;
        Some(self.order.range(..(*since, member.clone())).count() as u64)
    }

    /// How many wait before one who has been waiting since `since`, as far as it
    /// matters.
    #[must_use]
    pub fn before(&self, member: &str, since: Timestamp, matters: u64) -> u64 {
        let end = (since, Box::from(member));
        let others = self.order.range(..end).filter(|(_, known)| **known != *member);
        others.take(usize::try_from(matters).unwrap_or(usize::MAX)).count() as u64
    }
}

//! Pauses of a target: why it starts nothing for now, and when it did not before.
//!
//! Nobody is given up for the time in which a pause kept it waiting, so those that are
//! over are remembered, and a step's waiting is what is left between them
//! ([`time_in`]). However often a target is paused, the rest adds up.

use std::time::Duration;

use crate::domain::time::{Timestamp, micros};

/// Pauses that are over and told apart, at most: see [`Stood::add`].
const TOLD_APART: usize = 16;

/// A target that starts nothing, by an operator's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Why, for those who wait.
    pub reason: String,
    /// Who ordered it.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; None is until it is resumed.
    pub until: Option<Timestamp>,
}

/// A time in which a target was paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

/// The times in which a target was paused and that are over, the latest last. None
/// overlaps another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stood(Vec<Interval>);

impl Pause {
    /// Whether it still holds.
    #[must_use]
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// The time that it took; None while it holds.
    #[must_use]
    pub fn over_at(&self, now: Timestamp) -> Option<Interval> {
        let until = self.until.filter(|until| *until <= now)?;
        Some(Interval { since: self.since, until })
    }
}

impl Interval {
    fn length(self) -> Duration {
        self.until - self.since
    }
}

impl Stood {
    /// These, the latest last.
    #[must_use]
    pub fn of(spans: impl IntoIterator<Item = Interval>) -> Self {
        let mut stood = Self::default();
        spans.into_iter().for_each(|span| stood.add(span));
        stood
    }

    /// Adds one that is later than all others. Where there are too many the oldest moves
    /// to the one after it: no time is lost, and who has waited since before both has
    /// waited as long as ever.
    pub fn add(&mut self, span: Interval) {
        self.0.push(span);
        if self.0.len() > TOLD_APART {
            let oldest = self.0.remove(0);
            if planted!("oldest-pause-forgotten") {
                return;
            }
            let next = &mut self.0[0];
            let since = next.since.as_micros().saturating_sub(micros(oldest.length()));
            next.since = Timestamp::from_micros(since);
        }
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Interval> {
        self.0.iter().copied()
    }
}

/// How much of the time since an instant these take together, each moment once.
#[must_use]
pub fn time_in(mut spans: Vec<Interval>, since: Timestamp) -> Duration {
    spans.sort_unstable();
    let (mut sum, mut counted_to) = (Duration::ZERO, since);
    for span in spans {
        sum += span.until - span.since.max(counted_to);
        counted_to = counted_to.max(span.until);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn span(since: u64, until: u64) -> Interval {
        Interval { since: at(since), until: at(until) }
    }

    fn taken(spans: &[Interval], since: u64) -> u128 {
        time_in(spans.to_vec(), at(since)).as_micros()
    }

    #[test]
    fn each_moment_counts_once() {
        let spans = [span(40, 50), span(0, 10), span(5, 20), span(6, 7)];
        assert_eq!((taken(&spans, 0), taken(&spans, 8), taken(&spans, 45)), (30, 22, 5));
        assert_eq!((taken(&spans, 50), taken(&[], 0)), (0, 0));
    }

    #[test]
    fn of_many_the_oldest_run_together_and_lose_no_time() {
        let stood = Stood::of((0..100).map(|number| span(10 * number, 10 * number + 3)));
        let spans: Vec<Interval> = stood.iter().collect();
        assert_eq!(spans.len(), TOLD_APART);
        assert_eq!(taken(&spans, 0), 300);
        assert!(spans.windows(2).all(|pair| pair[0].until <= pair[1].since), "{spans:?}");
        assert_eq!(taken(&spans, 900), 30, "the latest are as they were");
    }
}

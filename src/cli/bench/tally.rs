//! What happened while a load ran.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use hdrhistogram::Histogram;

/// Kinds of failures that are told apart; the rest is counted together.
const KINDS_MAX: usize = 8;

/// What one reply holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) decisions: u64,
    /// Of those, how many let the work go on: a RETRY, a grant.
    pub(super) granted: u64,
}

impl Judged {
    pub(super) fn add(&mut self, other: &Self) {
        self.decisions += other.decisions;
        self.granted += other.granted;
    }
}

/// Counts and latencies of the calls that ended.
pub(super) struct Tally {
    /// Calls that were answered.
    pub(super) calls: u64,
    pub(super) judged: Judged,
    /// Calls turned away with RESOURCE_EXHAUSTED.
    pub(super) rejected: u64,
    /// Calls that failed otherwise, by what was wrong.
    pub(super) failed: BTreeMap<String, u64>,
    pub(super) request_bytes: u64,
    pub(super) reply_bytes: u64,
    /// From the instant a call was due to its answer, nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// From the instant a call was sent to its answer, nanoseconds.
    pub(super) service: Histogram<u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            calls: 0,
            judged: Judged::default(),
            rejected: 0,
            failed: BTreeMap::new(),
            request_bytes: 0,
            reply_bytes: 0,
            latency: nanoseconds(),
            service: nanoseconds(),
        }
    }

    fn fail(&mut self, what: String) {
        let what = if self.failed.len() < KINDS_MAX { what } else { "other failures".to_owned() };
        *self.failed.entry(what).or_default() += 1;
    }
}

/// Steps of 0.1 µs up to a minute, which stands for everything longer; three
/// digits are kept.
fn nanoseconds() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 60_000_000_000, 3).expect("the bounds are far apart")
}

/// The tally that the callers of one load write together.
pub(super) struct Ledger(Mutex<Tally>);

impl Ledger {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Tally::new()))
    }

    /// Takes what was counted so far and begins anew.
    pub(super) fn take(&self) -> Tally {
        std::mem::replace(&mut *self.lock(), Tally::new())
    }

    pub(super) fn answered(
        &self,
        due: Instant,
        sent: Instant,
        judged: &Judged,
        request_bytes: usize,
        reply_bytes: usize,
    ) {
        let now = Instant::now();
        let mut tally = self.lock();
        tally.calls += 1;
        tally.judged.add(judged);
        tally.request_bytes += request_bytes as u64;
        tally.reply_bytes += reply_bytes as u64;
        tally.latency.saturating_record(nanoseconds_between(due, now));
        tally.service.saturating_record(nanoseconds_between(sent, now));
    }

    pub(super) fn rejected(&self) {
        self.lock().rejected += 1;
    }

    pub(super) fn failed(&self, what: String) {
        self.lock().fail(what);
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        // Counting cannot leave a tally half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds_between(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_of_failure_are_bounded_and_none_is_lost() {
        let ledger = Ledger::new();
        for n in 0..100 {
            ledger.failed(format!("kind {n}"));
        }
        let tally = ledger.take();
        assert_eq!(tally.failed.values().sum::<u64>(), 100);
        assert_eq!(tally.failed.len(), KINDS_MAX + 1);
        assert!(ledger.take().failed.is_empty());
    }

    #[test]
    fn a_late_call_counts_from_when_it_was_due() {
        let ledger = Ledger::new();
        let sent = Instant::now();
        let due = sent.checked_sub(std::time::Duration::from_secs(2)).unwrap();
        ledger.answered(due, sent, &Judged { decisions: 1, granted: 1 }, 200, 100);
        let tally = ledger.take();
        assert!(2_000_000_000 <= tally.latency.max(), "{}", tally.latency.max());
        assert!(tally.service.max() < 2_000_000_000);
    }
}

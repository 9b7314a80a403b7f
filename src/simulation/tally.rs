//! What came of a run.

use std::time::Duration;

use serde::Serialize;

use super::{
    after,
    scenario::{Budget, Scenario},
    seconds,
    strategy::Ask,
};
use crate::domain::time::Timestamp;

/// Everything that is counted while a run goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    recovery: Timestamp,
    budget: Option<Budget>,
    /// Steps that began.
    pub steps: u32,
    /// Steps that succeeded.
    pub done: u32,
    /// Steps that were given up.
    pub lost: u32,
    /// Calls that were made.
    pub calls: u32,
    /// Of those, the ones that could not succeed whatever came.
    pub dead_calls: u32,
    /// Calls that failed.
    pub failed_calls: u32,
    /// Calls by the second in which they were made.
    pub load: Vec<u32>,
    /// By how much the backlog changed, by the second.
    changes: Vec<i64>,
    /// Steps that began when the target was well.
    fresh: u32,
    /// How long each of those waited for its first start, and for its success.
    first_waits: Vec<Duration>,
    done_waits: Vec<Duration>,
    /// When the last of the others ended.
    drained: Timestamp,
    /// How many of the others have not.
    undrained: u32,
    /// When calls were made, and whether each was a retry.
    starts: Vec<(Timestamp, bool)>,
}

/// What is told of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Steps that began.
    pub steps: f64,
    /// Steps that succeeded.
    pub done: f64,
    /// Steps that were given up.
    pub lost: f64,
    /// Steps that were neither when the simulation ended.
    pub waiting: f64,
    /// Calls made while none could succeed.
    pub dead_calls: f64,
    /// Calls for each success; absent without any.
    pub calls_per_success: Option<f64>,
    /// Calls that failed.
    pub wasted_calls: f64,
    /// From recovery until every step from before it had ended, in seconds;
    /// absent when some never did.
    pub drain_seconds: Option<f64>,
    /// Within this time 99 % of the steps that came after recovery had started,
    /// in seconds; absent when fewer did.
    pub fresh_start_p99_seconds: Option<f64>,
    /// Within this time 99 % of them had succeeded, in seconds; absent when fewer
    /// did, lost ones included.
    pub fresh_done_p99_seconds: Option<f64>,
    /// Most calls in a second.
    pub peak_calls: f64,
    /// Most calls in a second from recovery on.
    pub peak_calls_after: f64,
    /// By how much retries went beyond the scenario's budget, in the worst of its
    /// windows; absent where it has none.
    pub over_budget: Option<f64>,
}

impl Tally {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let recovery = after(scenario.recovery);
        Self {
            recovery,
            budget: scenario.budget,
            steps: 0,
            done: 0,
            lost: 0,
            calls: 0,
            dead_calls: 0,
            failed_calls: 0,
            load: Vec::new(),
            changes: Vec::new(),
            fresh: 0,
            first_waits: Vec::new(),
            done_waits: Vec::new(),
            drained: recovery,
            undrained: 0,
            starts: Vec::new(),
        }
    }

    /// A step begins.
    pub fn arrived(&mut self, at: Timestamp, is_fresh: bool) {
        self.steps += 1;
        *second(&mut self.changes, at) += 1;
        let count = if is_fresh { &mut self.fresh } else { &mut self.undrained };
        *count += 1;
    }

    /// An attempt starts.
    pub fn called(&mut self, ask: &Ask, is_dead: bool) {
        self.calls += 1;
        self.dead_calls += u32::from(is_dead);
        *second(&mut self.load, ask.now) += 1;
        if ask.is_fresh && ask.attempt == 1 {
            self.first_waits.push(ask.now - ask.arrived);
        }
        if self.budget.is_some() {
            self.starts.push((ask.now, ask.attempt > 1));
        }
    }

    /// A call failed.
    pub fn failed(&mut self) {
        self.failed_calls += 1;
    }

    /// A step succeeded.
    pub fn done(&mut self, ask: &Ask) {
        self.done += 1;
        if ask.is_fresh {
            self.done_waits.push(ask.now - ask.arrived);
        }
        self.ended(ask);
    }

    /// A step is given up.
    pub fn lost(&mut self, ask: &Ask) {
        self.lost += 1;
        self.ended(ask);
    }

    fn ended(&mut self, ask: &Ask) {
        *second(&mut self.changes, ask.now) -= 1;
        if !ask.is_fresh {
            self.drained = self.drained.max(ask.now);
            self.undrained -= 1;
        }
    }

    /// Steps that have begun and not ended.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.steps - self.done - self.lost
    }

    /// Steps that have begun and not ended, at the end of each second.
    #[must_use]
    pub fn backlog(&self) -> Vec<u32> {
        let mut backlog = 0;
        let sum = |change: &i64| {
            backlog += change;
            u32::try_from(backlog).unwrap_or(0)
        };
        self.changes.iter().map(sum).collect()
    }

    /// What is told of it.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let peak = |load: &[u32]| f64::from(load.iter().copied().max().unwrap_or(0));
        let recovered = seconds(self.recovery) as usize;
        Figures {
            steps: self.steps.into(),
            done: self.done.into(),
            lost: self.lost.into(),
            waiting: self.waiting().into(),
            dead_calls: self.dead_calls.into(),
            calls_per_success: (self.done > 0)
                .then(|| f64::from(self.calls) / f64::from(self.done)),
            wasted_calls: self.failed_calls.into(),
            drain_seconds: (self.undrained == 0)
                .then(|| (self.drained - self.recovery).as_secs_f64()),
            fresh_start_p99_seconds: within(&self.first_waits, self.fresh),
            fresh_done_p99_seconds: within(&self.done_waits, self.fresh),
            peak_calls: peak(&self.load),
            peak_calls_after: peak(self.load.get(recovered..).unwrap_or_default()),
            over_budget: self.budget.map(|budget| over_budget(&self.starts, budget)),
        }
    }
}

impl Figures {
    /// The median of each figure on its own; what is absent counts as endless.
    #[must_use]
    pub fn median(runs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(runs.iter().map(figure)).unwrap_or_default();
        let maybe = |figure: fn(&Self) -> Option<f64>| {
            median(runs.iter().map(|run| figure(run).unwrap_or(f64::INFINITY)))
        };
        Self {
            steps: of(|run| run.steps),
            done: of(|run| run.done),
            lost: of(|run| run.lost),
            waiting: of(|run| run.waiting),
            dead_calls: of(|run| run.dead_calls),
            calls_per_success: maybe(|run| run.calls_per_success),
            wasted_calls: of(|run| run.wasted_calls),
            drain_seconds: maybe(|run| run.drain_seconds),
            fresh_start_p99_seconds: maybe(|run| run.fresh_start_p99_seconds),
            fresh_done_p99_seconds: maybe(|run| run.fresh_done_p99_seconds),
            peak_calls: of(|run| run.peak_calls),
            peak_calls_after: of(|run| run.peak_calls_after),
            over_budget: maybe(|run| run.over_budget),
        }
    }
}

/// The count of the second that an instant is in.
fn second<T: Clone + Default>(counts: &mut Vec<T>, at: Timestamp) -> &mut T {
    let second = seconds(at) as usize;
    if counts.len() <= second {
        counts.resize(second + 1, T::default());
    }
    &mut counts[second]
}

/// Within what time 99 % of `count` had what these waited for; None where fewer
/// had.
fn within(waits: &[Duration], count: u32) -> Option<f64> {
    let mut sorted = waits.to_vec();
    sorted.sort_unstable();
    let rank = (u64::from(count) * 99).div_ceil(100);
    let place = usize::try_from(rank).ok()?.checked_sub(1)?;
    sorted.get(place).map(Duration::as_secs_f64)
}

/// By how much retries went beyond what the first attempts in the same window
/// allow: the law of the budget, read off the starts alone. Each costs 1 here,
/// though a budget may take more or less for some kinds of failure.
fn over_budget(starts: &[(Timestamp, bool)], budget: Budget) -> f64 {
    let (mut firsts, mut retries, mut oldest) = (0.0, 0.0, 0);
    let mut worst = 0.0_f64;
    for (at, is_retry) in starts {
        *(if *is_retry { &mut retries } else { &mut firsts }) += 1.0;
        while let Some((gone, was_retry)) = starts.get(oldest)
            && budget.window <= *at - *gone
        {
            *(if *was_retry { &mut retries } else { &mut firsts }) -= 1.0;
            oldest += 1;
        }
        if *is_retry {
            worst = worst.max(retries - budget.ratio * firsts - f64::from(budget.floor));
        }
    }
    worst
}

/// The middle one, or the mean of the two; None where it is endless.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    let middle = if lower == upper { lower } else { f64::midpoint(lower, upper) };
    middle.is_finite().then_some(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_most_never_had_has_no_time() {
        let waits = [3, 1, 2].map(Duration::from_secs);
        assert_eq!(within(&waits, 3), Some(3.0));
        assert_eq!(within(&waits, 4), None, "a step that never got there is the slowest");
        assert_eq!(within(&[], 0), None);
        let hundred: Vec<Duration> = (1..=100).map(Duration::from_secs).collect();
        assert_eq!(within(&hundred, 100), Some(99.0));
        assert_eq!(within(&hundred, 101), Some(100.0));
        assert_eq!(median([1.0, f64::INFINITY, 3.0].into_iter()), Some(3.0));
        assert_eq!(median([1.0, f64::INFINITY].into_iter()), None);
        assert_eq!(median([1.0, 2.0].into_iter()), Some(1.5));
    }

    #[test]
    fn retries_beyond_the_budget_are_found_in_the_window_that_ends_with_them() {
        let budget = Budget { ratio: 0.5, floor: 1, window: Duration::from_secs(10) };
        let at = |second, is_retry| (after(Duration::from_secs(second)), is_retry);
        let starts = [at(0, false), at(0, false), at(1, true), at(2, true)];
        assert_eq!(over_budget(&starts, budget), 0.0, "2 ≤ 0.5 · 2 + 1");
        let late = [starts.as_slice(), &[at(10, true)]].concat();
        // The first attempts lie 10 s back, outside (t − W, t].
        assert_eq!(over_budget(&late, budget), 2.0, "3 against 0 + 1");
    }
}

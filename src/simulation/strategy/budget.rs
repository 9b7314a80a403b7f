//! Budgets of retries that each process keeps for itself.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::Ask;
use crate::domain::{failure::FailureClass, time::Timestamp};

/// Whether a process may retry. A refusal is final: client libraries fail fast.
pub trait Budget {
    /// An attempt starts.
    fn started(&mut self, ask: &Ask);
    /// An attempt ended.
    fn ended(&mut self, ask: &Ask, succeeded: bool);
    /// Whether a failed attempt may be followed by another one, which is charged.
    fn allows(&mut self, ask: &Ask, class: FailureClass) -> bool;
}

/// No budget.
pub struct Free;

impl Budget for Free {
    fn started(&mut self, _ask: &Ask) {}

    fn ended(&mut self, _ask: &Ask, _succeeded: bool) {}

    fn allows(&mut self, _ask: &Ask, _class: FailureClass) -> bool {
        true
    }
}

/// AWS SDK's standard mode: a retry takes tokens, a success gives back what its
/// retry took.
pub struct Quota {
    tokens: Vec<u32>,
    /// What the latest retry of a step took.
    taken: HashMap<u32, u32>,
}

impl Quota {
    /// Tokens that a process begins with, and has at most.
    const CAPACITY: u32 = 500;
    /// What a retry takes.
    const RETRY: u32 = 5;
    /// What it takes after a timeout.
    const AFTER_TIMEOUT: u32 = 10;
    /// What a success without a retry gives.
    const REWARD: u32 = 1;

    /// Full buckets.
    #[must_use]
    pub fn new(processes: u32) -> Self {
        Self { tokens: vec![Self::CAPACITY; processes as usize], taken: HashMap::new() }
    }
}

impl Budget for Quota {
    fn started(&mut self, _ask: &Ask) {}

    fn ended(&mut self, ask: &Ask, succeeded: bool) {
        let taken = self.taken.remove(&ask.step);
        if succeeded && let Some(tokens) = self.tokens.get_mut(ask.process as usize) {
            *tokens = (*tokens + taken.unwrap_or(Self::REWARD)).min(Self::CAPACITY);
        }
    }

    fn allows(&mut self, ask: &Ask, class: FailureClass) -> bool {
        let cost = if class == FailureClass::Timeout { Self::AFTER_TIMEOUT } else { Self::RETRY };
        let Some(tokens) = self.tokens.get_mut(ask.process as usize) else { return false };
        let Some(left) = tokens.checked_sub(cost) else { return false };
        *tokens = left;
        self.taken.insert(ask.step, cost);
        true
    }
}

/// Finagle's `RetryBudget`: each first request deposits, each retry withdraws
/// five times as much, both for 10 s; a reserve allows 10 retries a second.
pub struct Deposits {
    balances: Vec<Balance>,
}

/// What a process has put in and taken out lately.
#[derive(Clone, Default)]
struct Balance {
    entries: VecDeque<(Timestamp, i64)>,
    sum: i64,
}

impl Deposits {
    /// How long an entry counts.
    const TTL: Duration = Duration::from_secs(10);
    /// What a request deposits.
    const DEPOSIT: i64 = 1000;
    /// What a retry withdraws: 20 % of the requests may be retried.
    const WITHDRAWAL: i64 = 5 * Self::DEPOSIT;
    /// What may be withdrawn without any deposit: 10 retries a second.
    const RESERVE: i64 = 10 * 10 * Self::WITHDRAWAL;

    /// Budgets without deposits.
    #[must_use]
    pub fn new(processes: u32) -> Self {
        Self { balances: vec![Balance::default(); processes as usize] }
    }
}

impl Balance {
    fn enter(&mut self, amount: i64, now: Timestamp) {
        self.entries.push_back((now, amount));
        self.sum += amount;
    }

    fn forget(&mut self, now: Timestamp) {
        while let Some((at, amount)) = self.entries.front().copied()
            && Deposits::TTL <= now - at
        {
            self.sum -= amount;
            self.entries.pop_front();
        }
    }
}

impl Budget for Deposits {
    fn started(&mut self, ask: &Ask) {
        if ask.attempt == 1
            && let Some(balance) = self.balances.get_mut(ask.process as usize)
        {
            balance.forget(ask.now);
            balance.enter(Self::DEPOSIT, ask.now);
        }
    }

    fn ended(&mut self, _ask: &Ask, _succeeded: bool) {}

    fn allows(&mut self, ask: &Ask, _class: FailureClass) -> bool {
        let Some(balance) = self.balances.get_mut(ask.process as usize) else { return false };
        balance.forget(ask.now);
        let has_enough = Self::WITHDRAWAL <= balance.sum + Self::RESERVE;
        if has_enough {
            balance.enter(-Self::WITHDRAWAL, ask.now);
        }
        has_enough
    }
}

/// Envoy's retry budget: retries at the same time, from the decision to their
/// end, against requests at the same time.
pub struct Concurrent {
    processes: Vec<Active>,
}

/// What a process has under way.
#[derive(Clone, Copy, Default)]
struct Active {
    requests: u32,
    retries: u32,
}

impl Concurrent {
    /// Retries to a hundred requests.
    const PERCENT: u32 = 20;
    /// Retries that are always allowed.
    const ALWAYS: u32 = 3;

    /// Nothing is under way.
    #[must_use]
    pub fn new(processes: u32) -> Self {
        Self { processes: vec![Active::default(); processes as usize] }
    }
}

impl Budget for Concurrent {
    fn started(&mut self, ask: &Ask) {
        if let Some(active) = self.processes.get_mut(ask.process as usize) {
            active.requests += 1;
        }
    }

    fn ended(&mut self, ask: &Ask, _succeeded: bool) {
        if let Some(active) = self.processes.get_mut(ask.process as usize) {
            active.requests = active.requests.saturating_sub(1);
            active.retries = active.retries.saturating_sub(u32::from(ask.attempt > 1));
        }
    }

    fn allows(&mut self, ask: &Ask, _class: FailureClass) -> bool {
        let Some(active) = self.processes.get_mut(ask.process as usize) else { return false };
        let most = (active.requests * Self::PERCENT / 100).max(Self::ALWAYS);
        let is_allowed = active.retries < most;
        active.retries += u32::from(is_allowed);
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::after;

    fn ask(step: u32, attempt: u32, millis: u64) -> Ask {
        let now = after(Duration::from_millis(millis));
        Ask { step, attempt, process: 0, host: 0, is_fresh: false, arrived: now, now }
    }

    fn allowed(budget: &mut impl Budget, count: u32, class: FailureClass, millis: u64) -> u32 {
        (0..count).map(|step| u32::from(budget.allows(&ask(step, 1, millis), class))).sum()
    }

    #[test]
    fn five_hundred_tokens_are_a_hundred_retries_or_fifty_after_timeouts() {
        assert_eq!(allowed(&mut Quota::new(1), 200, FailureClass::Transient, 0), 100);
        assert_eq!(allowed(&mut Quota::new(1), 200, FailureClass::Timeout, 0), 50);
        let mut quota = Quota::new(1);
        assert_eq!(allowed(&mut quota, 100, FailureClass::Transient, 0), 100);
        quota.ended(&ask(0, 2, 1), true);
        assert_eq!(quota.tokens, [5], "the retry that succeeded gives back what it took");
        quota.ended(&ask(1, 2, 1), false);
        assert_eq!(quota.tokens, [5], "one that failed does not");
        quota.ended(&ask(900, 1, 1), true);
        assert_eq!(quota.tokens, [6], "a success at once gives 1");
        quota.tokens = vec![499];
        quota.ended(&ask(2, 2, 1), true);
        assert_eq!(quota.tokens, [500], "never more than at first");
    }

    #[test]
    fn deposits_earn_a_fifth_and_the_reserve_ten_a_second() {
        let mut budget = Deposits::new(1);
        assert_eq!(allowed(&mut budget, 300, FailureClass::Transient, 0), 100, "10 a second, 10 s");
        for step in 0..50 {
            budget.started(&ask(step, 1, 5000));
        }
        assert_eq!(allowed(&mut budget, 300, FailureClass::Transient, 6000), 10, "20 % of 50");
        assert_eq!(allowed(&mut budget, 300, FailureClass::Transient, 9999), 0);
        // The first withdrawals are forgotten; 50 deposits and 10 withdrawals are not.
        assert_eq!(allowed(&mut budget, 300, FailureClass::Transient, 10_000), 100);
    }

    #[test]
    fn retries_at_the_same_time_are_a_fifth_of_the_requests_or_three() {
        let mut budget = Concurrent::new(1);
        assert_eq!(allowed(&mut budget, 10, FailureClass::Transient, 0), 3);
        budget.started(&ask(0, 2, 1));
        budget.ended(&ask(0, 2, 2), false);
        assert_eq!(allowed(&mut budget, 10, FailureClass::Transient, 2), 1, "one has ended");
        for step in 0..100 {
            budget.started(&ask(step, 1, 3));
        }
        assert_eq!(allowed(&mut budget, 100, FailureClass::Transient, 3), 17, "20 of 100");
    }
}

//! The laws of limits, held against the starts that were granted.
//!
//! An independent checker by brute force: it imports nothing from the crate, and
//! knows plain lists and whole numbers alone. Time is in microseconds. A limit
//! that changes is told as one more revision, from its instant on.

use std::collections::{BTreeMap, BTreeSet};

/// What a target allows, from an instant on.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    pub since: u64,
    pub rate: Option<Rate>,
    /// Permits at the same time.
    pub max: Option<u64>,
    pub budget: Option<Budget>,
}

/// `limit` starts in a `period`, and `burst` more.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub limit: u64,
    pub period: u64,
    pub burst: u64,
    /// Whether first attempts are not counted.
    pub retries_only: bool,
}

/// Retries may cost so many thousandths of a first attempt in the window, and
/// `floor` whole ones more.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub per_mille: u64,
    pub floor: u64,
    pub window: u64,
}

/// What happened, in the order in which it was decided.
#[derive(Clone, Debug)]
pub enum Happened {
    /// An attempt was granted. `cost` is a retry's, in thousandths; None is a
    /// first attempt.
    Started { at: u64, step: usize, targets: Vec<String>, cost: Option<u64>, lease_until: u64 },
    /// Its lease was extended.
    Held { step: usize, lease_until: u64 },
    /// It was reported.
    Ended { at: u64, step: usize },
    /// A target asked everybody to stay away until an instant.
    Cooled { target: String, until: u64 },
    /// An operator paused a target, until an instant at the latest.
    Paused { target: String, until: u64 },
    /// And resumed it.
    Resumed { target: String },
}

/// A start at a target.
#[derive(Clone, Copy, Debug)]
struct Start {
    at: u64,
    cost: Option<u64>,
}

/// A permit that a step has at targets.
#[derive(Clone, Debug)]
struct Permit {
    from: u64,
    until: u64,
    targets: Vec<String>,
}

/// Checks a history against what its targets allowed.
///
/// # Errors
/// The first law that is broken, and where.
pub fn check(allowed: &BTreeMap<String, Vec<Allowed>>, log: &[Happened]) -> Result<(), String> {
    let starts = starts(log);
    for (target, starts) in &starts {
        let revisions = allowed.get(target).map(Vec::as_slice).unwrap_or_default();
        rates(revisions, starts).map_err(|law| format!("{target}: {law}"))?;
        budgets(revisions, starts).map_err(|law| format!("{target}: {law}"))?;
    }
    permits(allowed, log)?;
    standing(log)
}

/// The starts at each target, in their order.
fn starts(log: &[Happened]) -> BTreeMap<String, Vec<Start>> {
    let mut starts: BTreeMap<String, Vec<Start>> = BTreeMap::new();
    for happened in log {
        if let Happened::Started { at, targets, cost, .. } = happened {
            for target in targets {
                starts.entry(target.clone()).or_default().push(Start { at: *at, cost: *cost });
            }
        }
    }
    starts
}

/// In every interval, however it is laid: no more starts than the rate allows in
/// its length, and the burst. Over a change, the larger of each.
fn rates(revisions: &[Allowed], starts: &[Start]) -> Result<(), String> {
    let rates: Vec<Rate> = revisions.iter().filter_map(|allowed| allowed.rate).collect();
    if rates.is_empty() || rates.len() < revisions.len() {
        return Ok(());
    }
    let counts = |start: &&Start| start.cost.is_some() || !rates[0].retries_only;
    let at: Vec<u64> = starts.iter().filter(counts).map(|start| start.at).collect();
    for first in 0..at.len() {
        for last in first..at.len() {
            let (count, length) = ((last - first + 1) as u64, at[last] - at[first]);
            let burst = rates.iter().map(|rate| rate.burst).max().unwrap_or(0);
            let fits = |rate: &Rate| {
                u128::from(count.saturating_sub(burst)) * u128::from(rate.period)
                    <= u128::from(rate.limit) * u128::from(length)
            };
            if !rates.iter().any(fits) {
                return Err(format!(
                    "{count} starts in {length} µs, from {} to {}, under {rates:?}",
                    at[first], at[last]
                ));
            }
        }
    }
    Ok(())
}

/// At each start of a retry: what retries have cost in the window that ends with
/// it, this one included, is within what first attempts earned in it.
fn budgets(revisions: &[Allowed], starts: &[Start]) -> Result<(), String> {
    for (index, start) in starts.iter().enumerate() {
        let Some(_) = start.cost else { continue };
        let Some(budget) = in_force(revisions, start.at).and_then(|allowed| allowed.budget) else {
            continue;
        };
        let seen = || starts[..=index].iter().filter(|before| before.at + budget.window > start.at);
        let spent: u64 = seen().filter_map(|start| start.cost).sum();
        let firsts = seen().filter(|start| start.cost.is_none()).count() as u64;
        let earned = budget.per_mille * firsts + 1000 * budget.floor;
        if spent > earned {
            return Err(format!(
                "the retry at {} makes {spent} of {earned} thousandths, {firsts} first attempts",
                start.at
            ));
        }
    }
    Ok(())
}

fn in_force(revisions: &[Allowed], at: u64) -> Option<&Allowed> {
    revisions.iter().rfind(|allowed| allowed.since <= at)
}

/// At each start, and so at every instant: no more permits than there are. A permit
/// lives from the start to the report, or to the end of the lease.
fn permits(allowed: &BTreeMap<String, Vec<Allowed>>, log: &[Happened]) -> Result<(), String> {
    let mut permits: BTreeMap<usize, Permit> = BTreeMap::new();
    for happened in log {
        match happened {
            Happened::Started { at, step, targets, lease_until, .. } => {
                let permit = Permit { from: *at, until: *lease_until, targets: targets.clone() };
                let before = permits.insert(*step, permit);
                if let Some(before) = before.filter(|before| before.until > *at) {
                    return Err(format!("step {step} starts at {at} beside itself, {before:?}"));
                }
                for target in targets {
                    let max = allowed
                        .get(target)
                        .and_then(|revisions| in_force(revisions, *at))
                        .and_then(|allowed| allowed.max);
                    let live = permits
                        .values()
                        .filter(|permit| permit.until > *at && permit.targets.contains(target));
                    let live = live.count() as u64;
                    if max.is_some_and(|max| live > max) {
                        return Err(format!("{target}: {live} permits at {at} of {max:?}"));
                    }
                }
            }
            Happened::Held { step, lease_until } => {
                if let Some(permit) = permits.get_mut(step) {
                    permit.until = *lease_until;
                }
            }
            Happened::Ended { at, step } => {
                if let Some(permit) = permits.get_mut(step) {
                    permit.until = permit.until.min((*at).max(permit.from));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Nothing starts at a target that asked to be left alone, or was paused, before.
fn standing(log: &[Happened]) -> Result<(), String> {
    let mut cooled: BTreeMap<&str, u64> = BTreeMap::new();
    let mut paused: BTreeMap<&str, u64> = BTreeMap::new();
    for happened in log {
        match happened {
            Happened::Cooled { target, until } => {
                let known = cooled.entry(target).or_default();
                *known = (*known).max(*until);
            }
            Happened::Paused { target, until } => {
                paused.insert(target, *until);
            }
            Happened::Resumed { target } => {
                paused.remove(target.as_str());
            }
            Happened::Started { at, step, targets, .. } => {
                let named: BTreeSet<&str> = targets.iter().map(String::as_str).collect();
                for target in named {
                    if let Some(until) = cooled.get(target).filter(|until| **until > *at) {
                        return Err(format!(
                            "step {step} starts at {at}, but {target} cools until {until}"
                        ));
                    }
                    let name = target.split('/').next().unwrap_or(target);
                    if let Some(until) = paused.get(name).filter(|until| **until > *at) {
                        return Err(format!(
                            "step {step} starts at {at}, but {target} is paused until {until}"
                        ));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The checker itself finds what is wrong, at the very edge of each law.
mod checked {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn allowed(allowed: Allowed) -> BTreeMap<String, Vec<Allowed>> {
        BTreeMap::from([("db".to_owned(), vec![allowed])])
    }

    fn started(at: u64, step: usize, cost: Option<u64>) -> Happened {
        let targets = vec!["db".to_owned()];
        Happened::Started { at, step, targets, cost, lease_until: at + SECOND }
    }

    #[test]
    fn a_rate_is_broken_by_one_start_or_one_microsecond() {
        let rate = Rate { limit: 10, period: SECOND, burst: 2, retries_only: false };
        let allowed = allowed(Allowed { rate: Some(rate), ..Allowed::default() });
        let at = |instants: &[u64]| -> Vec<Happened> {
            instants.iter().enumerate().map(|(step, at)| started(*at, step, None)).collect()
        };
        check(&allowed, &at(&[0, 0, 100_000, 200_000])).unwrap();
        check(&allowed, &at(&[0, 0, 99_999])).unwrap_err();
        check(&allowed, &at(&[0, 50_000, 100_000, 199_999])).unwrap_err();
        check(&allowed, &at(&[0, 0, 0])).unwrap_err();
    }

    #[test]
    fn a_budget_is_broken_by_one_retry_and_by_a_first_attempt_too_old() {
        let budget = Budget { per_mille: 500, floor: 1, window: SECOND };
        let allowed = allowed(Allowed { budget: Some(budget), ..Allowed::default() });
        let firsts = [started(0, 0, None), started(1, 1, None)];
        let with = |retries: &[Happened]| [&firsts[..], retries].concat();
        check(&allowed, &with(&[started(2, 2, Some(2000))])).unwrap();
        check(&allowed, &with(&[started(2, 2, Some(2001))])).unwrap_err();
        let late = [started(SECOND, 2, Some(1000)), started(SECOND, 3, Some(1000))];
        check(&allowed, &with(&late)).unwrap_err();
        let apart = [started(SECOND, 2, Some(1000)), started(2 * SECOND, 3, Some(1000))];
        check(&allowed, &with(&apart)).unwrap();
    }

    #[test]
    fn a_permit_lives_until_its_report_or_its_lease_ends() {
        let allowed = allowed(Allowed { max: Some(1), ..Allowed::default() });
        let first = started(0, 0, None);
        check(&allowed, &[first.clone(), started(SECOND - 1, 1, None)]).unwrap_err();
        check(&allowed, &[first.clone(), started(SECOND, 1, None)]).unwrap();
        let ended = Happened::Ended { at: 5, step: 0 };
        check(&allowed, &[first.clone(), ended, started(5, 1, None)]).unwrap();
        let held = Happened::Held { step: 0, lease_until: 3 * SECOND };
        check(&allowed, &[first, held, started(SECOND, 1, None)]).unwrap_err();
    }

    #[test]
    fn nothing_starts_where_everybody_is_to_wait() {
        let none = BTreeMap::new();
        let cooled = Happened::Cooled { target: "db".to_owned(), until: 7 };
        check(&none, &[started(6, 0, None), cooled.clone(), started(7, 1, None)]).unwrap();
        check(&none, &[cooled, started(6, 0, None)]).unwrap_err();
        let paused = Happened::Paused { target: "db".to_owned(), until: 7 };
        check(&none, &[paused.clone(), started(6, 0, None)]).unwrap_err();
        let resumed = Happened::Resumed { target: "db".to_owned() };
        check(&none, &[paused, resumed, started(6, 0, None)]).unwrap();
    }
}

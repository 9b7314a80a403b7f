//! From a target as written to one that holds: every violation at once, each
//! with the field, the value and what would be accepted.

use std::{num::NonZeroU32, ops::RangeInclusive, time::Duration};

use super::{
    BreakerTerms, Budget, Rate, Target,
    spec::{BreakerSpec, BudgetSpec, ConcurrencySpec, RateSpec, TargetSpec},
};
use crate::domain::{
    time::{Span, micros},
    violation::{Check, Violations},
};

/// Period of a rate that names none.
pub const PERIOD_DEFAULT: Duration = Duration::from_secs(1);
/// Periods of a rate.
pub const PERIODS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(30 * 24 * 3600);
/// Largest burst of a rate.
pub const BURST_MAX: u32 = 1_000_000;
/// Most attempts that may be allowed to run at the same time.
pub const CONCURRENCY_MAX: u32 = 1_000_000;
/// Retries to a thousand first attempts when the budget names no ratio.
pub const PER_MILLE_DEFAULT: u32 = 200;
/// Largest ratio of a budget: ten retries to a first attempt.
pub const RATIO_MAX: f64 = 10.0;
/// Retries in a window that need no first attempts, when the budget does not say.
pub const FLOOR_DEFAULT: u32 = 10;
/// Largest floor of a budget.
pub const FLOOR_MAX: u32 = 1_000_000;
/// Window of a budget that names none.
pub const WINDOW_DEFAULT: Duration = Duration::from_secs(60);
/// Windows of a budget.
pub const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// How long an attempt may take before its success counts as a failure.
pub const SLOW: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(7 * 24 * 3600);

impl Target {
    /// Checks a target as written.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(spec: &TargetSpec) -> Result<Self, Violations> {
        let mut check = Check::default();
        let target = Self {
            rate: spec.rate.as_ref().map(|spec| check.within("rate", |c| rate(c, spec))),
            concurrency: spec
                .concurrency
                .map(|spec| check.within("concurrency", |c| concurrency(c, spec))),
            budget: spec.budget.map(|spec| check.within("budget", |c| budget(c, spec))),
            breaker: spec.breaker.map(|spec| check.within("breaker", |c| breaker(c, spec))),
            every_step: spec.every_step,
            each_run: spec.each_run,
        };
        check.finish(target)
    }
}

fn rate(check: &mut Check, spec: &RateSpec) -> Rate {
    let period = span(check, "period", spec.period, PERIODS).unwrap_or(PERIOD_DEFAULT);
    let limit = NonZeroU32::new(spec.limit).unwrap_or_else(|| {
        check.refuse("limit", 0, "accepted: 1 or more; to start nothing, pause the target");
        NonZeroU32::MIN
    });
    if u64::from(limit.get()) > micros(period) {
        check.refuse(
            "limit",
            format!("{limit} in {}", Span(period)),
            "faster than a start each microsecond; accepted: fewer starts, or a longer period",
        );
    }
    let burst = match spec.burst {
        Some(burst) => counted(check, "burst", burst, BURST_MAX),
        None => burst_default(limit),
    };
    Rate { limit, period, burst, on: spec.on }
}

/// A tenth of a period's starts. Never 1 by itself: a burst below 2 is kept by a
/// gap between any two starts, which should be somebody's wish.
fn burst_default(limit: NonZeroU32) -> NonZeroU32 {
    NonZeroU32::new(limit.get().div_ceil(10).clamp(2, BURST_MAX)).unwrap_or(NonZeroU32::MIN)
}

fn concurrency(check: &mut Check, spec: ConcurrencySpec) -> NonZeroU32 {
    counted(check, "max", spec.max, CONCURRENCY_MAX)
}

fn budget(check: &mut Check, spec: BudgetSpec) -> Budget {
    let per_mille = spec.ratio.map_or(PER_MILLE_DEFAULT, |ratio| per_mille(check, ratio));
    let floor = spec.floor.unwrap_or(FLOOR_DEFAULT);
    if floor > FLOOR_MAX {
        check.refuse("floor", floor, format!("accepted: 0 to {FLOOR_MAX}"));
    }
    if spec.ratio == Some(0.0) && floor == 0 {
        check.refuse(
            "",
            "ratio 0 and floor 0",
            "no retry would ever start; accepted: a ratio or a floor of more than 0",
        );
    }
    let window = span(check, "window", spec.window, WINDOWS).unwrap_or(WINDOW_DEFAULT);
    Budget { per_mille, floor, window, when_spent: spec.when_spent, is_flat: false }
}

fn breaker(check: &mut Check, spec: BreakerSpec) -> BreakerTerms {
    let slow_after = span(check, "slow_after", spec.slow_after, SLOW);
    BreakerTerms { slow_after, observe_only: spec.observe_only }
}

fn per_mille(check: &mut Check, ratio: f64) -> u32 {
    let thousandths = (ratio * 1000.0).round();
    let is_exact = (ratio * 1000.0 - thousandths).abs() < 1e-6;
    if (0.0..=RATIO_MAX).contains(&ratio) && is_exact {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number from 0 to 10000"
        )]
        return thousandths as u32;
    }
    check.refuse("ratio", ratio, format!("accepted: 0 to {RATIO_MAX}, in thousandths"));
    PER_MILLE_DEFAULT
}

/// A number of at least 1.
fn counted(check: &mut Check, field: &str, given: u32, max: u32) -> NonZeroU32 {
    NonZeroU32::new(given).filter(|number| number.get() <= max).unwrap_or_else(|| {
        check.refuse(field, given, format!("accepted: 1 to {max}"));
        NonZeroU32::MIN
    })
}

/// None where it is absent or refused.
fn span(
    check: &mut Check,
    field: &str,
    given: Option<Span>,
    accepted: RangeInclusive<Duration>,
) -> Option<Duration> {
    let given = given?;
    if accepted.contains(&given.0) {
        return Some(given.0);
    }
    let (min, max) = (Span(*accepted.start()), Span(*accepted.end()));
    check.refuse(field, given, format!("accepted: {min} to {max}"));
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limit::{Starts, WhenSpent};

    fn parsed(yaml: &str) -> Result<Target, Violations> {
        let spec: TargetSpec =
            serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
        Target::parse(&spec)
    }

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[test]
    fn every_violation_names_its_field_its_value_and_what_is_accepted() {
        for (yaml, field, value) in [
            ("{rate: {}}", "rate.limit", "0"),
            ("{rate: {limit: 0, period: 1m}}", "rate.limit", "0"),
            ("{rate: {limit: 1, period: 999us}}", "rate.period", "999µs"),
            ("{rate: {limit: 1, period: 0s}}", "rate.period", "0s"),
            ("{rate: {limit: 1, period: 31d}}", "rate.period", "744h"),
            ("{rate: {limit: 1001, period: 1ms}}", "rate.limit", "1001 in 1ms"),
            ("{rate: {limit: 1000001}}", "rate.limit", "1000001 in 1s"),
            ("{rate: {limit: 1, burst: 0}}", "rate.burst", "0"),
            ("{rate: {limit: 1, burst: 1000001}}", "rate.burst", "1000001"),
            ("{concurrency: {}}", "concurrency.max", "0"),
            ("{concurrency: {max: 1000001}}", "concurrency.max", "1000001"),
            ("{budget: {ratio: -0.1}}", "budget.ratio", "-0.1"),
            ("{budget: {ratio: 10.001}}", "budget.ratio", "10.001"),
            ("{budget: {ratio: 0.0004}}", "budget.ratio", "0.0004"),
            ("{budget: {ratio: .nan}}", "budget.ratio", "NaN"),
            ("{budget: {ratio: .inf}}", "budget.ratio", "inf"),
            ("{budget: {floor: 1000001}}", "budget.floor", "1000001"),
            ("{budget: {window: 999ms}}", "budget.window", "999ms"),
            ("{budget: {window: 61m}}", "budget.window", "1h 1m"),
            ("{budget: {ratio: 0, floor: 0}}", "budget", "ratio 0 and floor 0"),
            ("{breaker: {slow_after: 0s}}", "breaker.slow_after", "0s"),
            ("{breaker: {slow_after: 8d}}", "breaker.slow_after", "192h"),
        ] {
            let found = parsed(yaml).err().map(|violations| violations.0).unwrap_or_default();
            assert_eq!(found.len(), 1, "{yaml}: {found:?}");
            assert_eq!((found[0].field.as_str(), found[0].value.as_str()), (field, value));
            assert!(found[0].problem.contains("accepted: "), "{yaml}: {}", found[0].problem);
        }
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let yaml =
            "{rate: {period: 0s, burst: 0}, concurrency: {}, budget: {ratio: 11, window: 0s}}";
        let Violations(found) = parsed(yaml).unwrap_err();
        let fields: Vec<&str> = found.iter().map(|violation| violation.field.as_str()).collect();
        let expected = [
            "rate.period",
            "rate.limit",
            "rate.burst",
            "concurrency.max",
            "budget.ratio",
            "budget.window",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        assert_eq!(parsed("{}").unwrap(), Target::default(), "a target may be without limits");
        let target = parsed("{rate: {limit: 100}, budget: {}}").unwrap();
        let rate =
            Rate { limit: number(100), period: PERIOD_DEFAULT, burst: number(10), on: Starts::All };
        let budget = Budget {
            per_mille: 200,
            floor: 10,
            window: Duration::from_secs(60),
            when_spent: WhenSpent::Wait,
            is_flat: false,
        };
        assert_eq!((target.rate, target.budget), (Some(rate), Some(budget)));
        for (limit, burst) in [(1, 2), (20, 2), (21, 3), (1_000_000, 100_000)] {
            let target = parsed(&format!("{{rate: {{limit: {limit}}}}}")).unwrap();
            assert_eq!(target.rate.unwrap().burst, number(burst), "{limit}");
        }
        let fastest = parsed("{rate: {limit: 4294967295, period: 30d}}").unwrap();
        assert_eq!(fastest.rate.unwrap().burst, number(BURST_MAX));
    }

    #[test]
    fn the_ends_of_every_range_are_accepted() {
        for yaml in [
            "{rate: {limit: 1, period: 1ms, burst: 1, on: retries}}",
            "{rate: {limit: 1000, period: 1ms, burst: 1000000}}",
            "{rate: {limit: 1, period: 30d}}",
            "{concurrency: {max: 1}, every_step: true, each_run: true}",
            "{concurrency: {max: 1000000}}",
            "{budget: {ratio: 0, floor: 1, window: 1s, when_spent: stop}}",
            "{budget: {ratio: 10, floor: 0, window: 1h}}",
            "{budget: {ratio: 0.001, floor: 1000000}}",
            "{breaker: {}}",
            "{breaker: {slow_after: 1ms, observe_only: true}}",
            "{breaker: {slow_after: 7d}}",
        ] {
            assert!(parsed(yaml).is_ok(), "{yaml}: {:?}", parsed(yaml));
        }
        for thousandths in 0..=10_000_u32 {
            let ratio = f64::from(thousandths) / 1000.0;
            let spec = TargetSpec {
                budget: Some(BudgetSpec { ratio: Some(ratio), ..BudgetSpec::default() }),
                ..TargetSpec::default()
            };
            assert_eq!(Target::parse(&spec).unwrap().budget.unwrap().per_mille, thousandths);
        }
    }

    #[test]
    fn a_target_is_stored_as_it_was_written() {
        let yaml = "{rate: {limit: 3, period: 90s, on: retries}, concurrency: {max: 2}, \
                    budget: {ratio: 0.3, when_spent: stop}, every_step: true}";
        let spec: TargetSpec = serde_saphyr::from_str(yaml).unwrap();
        let stored = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<TargetSpec>(&stored).unwrap(), spec);
        assert!(
            serde_saphyr::from_str::<TargetSpec>("{rate: {limt: 3}}").is_err(),
            "a name that nobody knows is an error"
        );
    }
}

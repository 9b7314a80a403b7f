//! A target given on the command line.

use std::{str::FromStr, time::Duration};

use clap::{Args, ValueEnum};

use super::{error::CliError, text};
use crate::domain::{
    limit::{
        Starts, WhenSpent,
        spec::{BreakerSpec, BudgetSpec, ConcurrencySpec, RateSpec, TargetSpec},
    },
    time::Span,
};

/// What a target allows, as flags.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "What the target allows")]
pub struct TargetFlags {
    /// Starts in a period, such as 100/s or 5/10m; none takes the limit away
    #[arg(long, value_name = "N/PERIOD")]
    rate: Option<Limit<RateFlag>>,
    /// Starts at once beyond the rate [default: a tenth of it, at least 2]
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<u32>,
    /// Which starts the rate counts [default: all]
    #[arg(long, value_name = "WHICH", requires = "rate")]
    rate_on: Option<RateOn>,
    /// Attempts that run at the same time; none takes the limit away
    #[arg(long, value_name = "N")]
    concurrency: Option<Limit<u32>>,
    /// Retries for each first attempt, such as 0.2; none takes the limit away
    #[arg(long, value_name = "RATIO")]
    budget: Option<Limit<f64>>,
    /// Retries in a window that need no first attempts [default: 10]
    #[arg(long, value_name = "N", requires = "budget")]
    budget_floor: Option<u32>,
    /// The window of the budget [default: 1m]
    #[arg(long, value_name = "SPAN", requires = "budget", value_parser = text::parse_positive_duration)]
    budget_window: Option<Duration>,
    /// What happens to a retry when the budget is spent [default: wait]
    #[arg(long, value_name = "WHAT", requires = "budget")]
    when_spent: Option<BudgetSpent>,
    /// Whether it is left alone while it is dead: on, only watched, or none
    #[arg(long, value_name = "WHAT", num_args = 0..=1, default_missing_value = "on")]
    breaker: Option<Limit<BreakerFlag>>,
    /// An attempt that succeeds only after so long counts as failed
    #[arg(long, value_name = "SPAN", requires = "breaker", value_parser = text::parse_positive_duration)]
    slow_after: Option<Duration>,
    /// Whether every step of the namespace calls it, named or not
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    every_step: Option<bool>,
    /// Whether each run has it for itself
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    each_run: Option<bool>,
}

/// A limit that is set or taken away.
#[derive(Clone, Copy, Debug)]
enum Limit<T> {
    /// There is none.
    Without,
    /// It is this.
    Of(T),
}

/// So many starts in a period.
#[derive(Clone, Copy, Debug)]
struct RateFlag {
    limit: u32,
    period: Duration,
}

/// What a breaker does.
#[derive(Clone, Copy, Debug)]
enum BreakerFlag {
    /// It opens and closes.
    On,
    /// It only watches.
    Observe,
}

impl FromStr for BreakerFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "observe" => Ok(Self::Observe),
            _ => Err("accepted is on or observe".to_owned()),
        }
    }
}

/// Which starts a rate counts.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RateOn {
    /// All attempts.
    All,
    /// Retries alone.
    Retries,
}

/// What happens to a retry when the budget is spent.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum BudgetSpent {
    /// It waits until there is budget again.
    Wait,
    /// The step stops.
    Stop,
}

impl TargetFlags {
    /// What the flags say of a target.
    pub fn spec(&self) -> Result<TargetSpec, CliError> {
        self.refuse_what_does_not_apply()?;
        Ok(TargetSpec {
            rate: of(self.rate).map(|rate| self.rate_spec(rate)),
            concurrency: of(self.concurrency).map(|max| ConcurrencySpec { max }),
            budget: of(self.budget).map(|ratio| self.budget_spec(ratio)),
            breaker: of(self.breaker).map(|breaker| BreakerSpec {
                slow_after: self.slow_after.map(Span),
                observe_only: matches!(breaker, BreakerFlag::Observe),
            }),
            every_step: self.every_step.unwrap_or_default(),
            each_run: self.each_run.unwrap_or_default(),
        })
    }

    /// The parts that were named.
    pub fn mask(&self) -> Result<prost_types::FieldMask, CliError> {
        let given = [
            ("target.rate", self.rate.is_some()),
            ("target.concurrency", self.concurrency.is_some()),
            ("target.budget", self.budget.is_some()),
            ("target.breaker", self.breaker.is_some()),
            ("target.every_step", self.every_step.is_some()),
            ("target.each_run", self.each_run.is_some()),
        ];
        let named = given.iter().filter(|(_, given)| *given);
        let paths: Vec<String> = named.map(|(path, _)| (*path).to_owned()).collect();
        if paths.is_empty() {
            return Err(CliError::usage("nothing to change was named")
                .next("name a limit, such as --concurrency 10 or --rate none"));
        }
        Ok(prost_types::FieldMask { paths })
    }

    fn rate_spec(&self, rate: RateFlag) -> RateSpec {
        let on = match self.rate_on {
            None | Some(RateOn::All) => Starts::All,
            Some(RateOn::Retries) => Starts::Retries,
        };
        RateSpec { limit: rate.limit, period: Some(Span(rate.period)), burst: self.burst, on }
    }

    fn budget_spec(&self, ratio: f64) -> BudgetSpec {
        let when_spent = match self.when_spent {
            None | Some(BudgetSpent::Wait) => WhenSpent::Wait,
            Some(BudgetSpent::Stop) => WhenSpent::Stop,
        };
        BudgetSpec {
            ratio: Some(ratio),
            floor: self.budget_floor,
            window: self.budget_window.map(Span),
            when_spent,
        }
    }

    fn refuse_what_does_not_apply(&self) -> Result<(), CliError> {
        let rate = self.burst.is_some() || self.rate_on.is_some();
        if rate && matches!(self.rate, Some(Limit::Without)) {
            return Err(CliError::usage(
                "--rate none has no starts: leave --burst and --rate-on out",
            ));
        }
        if self.slow_after.is_some() && matches!(self.breaker, Some(Limit::Without)) {
            return Err(CliError::usage("--breaker none watches nothing: leave --slow-after out"));
        }
        let budget = self.budget_floor.is_some()
            || self.budget_window.is_some()
            || self.when_spent.is_some();
        if budget && matches!(self.budget, Some(Limit::Without)) {
            return Err(CliError::usage(
                "--budget none has no retries to count: leave --budget-floor, --budget-window and --when-spent out",
            ));
        }
        Ok(())
    }
}

fn of<T>(flag: Option<Limit<T>>) -> Option<T> {
    match flag? {
        Limit::Without => None,
        Limit::Of(limit) => Some(limit),
    }
}

impl<T: FromStr<Err: ToString>> FromStr for Limit<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::Without),
            text => text
                .parse()
                .map(Self::Of)
                .map_err(|error: T::Err| format!("{}, or none", error.to_string())),
        }
    }
}

impl FromStr for RateFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let accepted = "accepted is a number of starts in a period, such as 100/s or 5/10m";
        let (limit, period) = text.split_once('/').ok_or(accepted)?;
        let limit = limit.parse().map_err(|_| accepted)?;
        // "s" is one second.
        let counted = period.starts_with(|first: char| first.is_ascii_digit());
        let period = if counted { period.to_owned() } else { format!("1{period}") };
        let period = text::parse_positive_duration(&period).map_err(|_| accepted)?;
        Ok(Self { limit, period })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_so_many_starts_in_a_period() {
        for (text, limit, millis) in [
            ("100/s", 100, 1000),
            ("5/10m", 5, 600_000),
            ("1/ms", 1, 1),
            ("0/h", 0, 3_600_000),
            ("3/1.5s", 3, 1500),
        ] {
            let rate: RateFlag = text.parse().unwrap();
            assert_eq!((rate.limit, rate.period), (limit, Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "/", "100", "100/", "/s", "-1/s", "1.5/s", "1/0s", "1/-1s", "1/parsec"] {
            assert!(text.parse::<RateFlag>().is_err(), "{text}");
        }
    }

    #[test]
    fn none_takes_a_limit_away() {
        assert!(of(Some("none".parse::<Limit<u32>>().unwrap())).is_none());
        assert_eq!(of(Some("7".parse::<Limit<u32>>().unwrap())), Some(7));
        assert!("many".parse::<Limit<u32>>().unwrap_err().ends_with(", or none"));
    }
}

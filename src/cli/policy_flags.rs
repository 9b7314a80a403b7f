//! A policy given on the command line.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{error::CliError, text};
use crate::domain::{
    policy::{
        Policy, Violations,
        spec::{BackoffSpec, DelaySpec, ExponentialSpec, JitterSpec, LinearSpec, PolicySpec},
    },
    time::Span,
};

/// The wait before the first retry when a backoff is asked for without one,
/// and the longest wait of one that grows. As the built-in policy has them.
const DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(300);

/// The flags of an inline policy.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Inline policy (instead of a named one)")]
pub struct PolicyFlags {
    /// Retries granted at most, attempts after the first
    #[arg(long, value_name = "N")]
    pub max_retries: Option<u32>,
    /// How the wait grows [default: exponential]
    #[arg(long, value_name = "SHAPE")]
    pub backoff: Option<BackoffShape>,
    /// The wait before the first retry [default: 1s]
    #[arg(long, value_name = "SPAN", value_parser = text::parse_duration)]
    pub delay: Option<Duration>,
    /// What an exponential wait is multiplied by each time [default: 2]
    #[arg(long, value_name = "X")]
    pub factor: Option<f64>,
    /// Longest wait, jitter included [default: 5m when the wait grows]
    #[arg(long, value_name = "SPAN", value_parser = text::parse_positive_duration)]
    pub max_delay: Option<Duration>,
    /// The random part of the wait [default: full]
    #[arg(long, value_name = "KIND")]
    pub jitter: Option<JitterFlag>,
    /// How long after the first start a retry may still start
    #[arg(long, value_name = "SPAN", value_parser = text::parse_positive_duration)]
    pub max_elapsed: Option<Duration>,
}

/// How the wait grows from retry to retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackoffShape {
    /// No wait.
    None,
    /// The same each time.
    Fixed,
    /// Grows by the first wait each time.
    Linear,
    /// Is multiplied each time.
    Exponential,
}

/// The random part of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum JitterFlag {
    /// No randomness.
    None,
    /// Anything up to the wait.
    Full,
    /// At least half of the wait.
    Equal,
}

impl PolicyFlags {
    /// The policy as written by the flags, checked; `None` when none was given.
    pub fn spec(&self) -> Result<Option<PolicySpec>, CliError> {
        match self.given() {
            true => self.checked().map(|_| Some(self.written())),
            false => Ok(None),
        }
    }

    /// The policy that the flags describe; without any, their defaults.
    pub fn checked(&self) -> Result<Policy, CliError> {
        self.refuse_what_does_not_apply()?;
        Policy::parse(&self.written()).map_err(|violations| wrong("the inline policy", &violations))
    }

    fn given(&self) -> bool {
        let Self { max_retries, backoff, delay, factor, max_delay, jitter, max_elapsed } = self;
        let spans = [delay, max_delay, max_elapsed];
        max_retries.is_some()
            || backoff.is_some()
            || factor.is_some()
            || jitter.is_some()
            || spans.iter().any(|span| span.is_some())
    }

    fn written(&self) -> PolicySpec {
        PolicySpec {
            max_retries: self.max_retries,
            max_elapsed: self.max_elapsed.map(Span),
            backoff: self.backoff_written(),
            ..PolicySpec::default()
        }
    }

    fn backoff_written(&self) -> Option<BackoffSpec> {
        let delay = Span(self.delay.unwrap_or(DELAY));
        let shape = match self.shape() {
            BackoffShape::None => return None,
            BackoffShape::Fixed => {
                BackoffSpec { fixed: Some(DelaySpec { delay }), ..BackoffSpec::default() }
            }
            BackoffShape::Linear => {
                let linear = Some(LinearSpec { delay, increment: None });
                BackoffSpec { linear, ..BackoffSpec::default() }
            }
            BackoffShape::Exponential => {
                let factor = self.factor;
                let exponential = Some(ExponentialSpec { delay, factor, max_doublings: None });
                BackoffSpec { exponential, ..BackoffSpec::default() }
            }
        };
        let grows = shape.fixed.is_none();
        let max_delay = self.max_delay.or(grows.then_some(MAX_DELAY)).map(Span);
        Some(BackoffSpec { max_delay, jitter: Some(self.jitter_written()), ..shape })
    }

    fn shape(&self) -> BackoffShape {
        self.backoff.unwrap_or(BackoffShape::Exponential)
    }

    fn jitter_written(&self) -> JitterSpec {
        match self.jitter.unwrap_or(JitterFlag::Full) {
            JitterFlag::None => JitterSpec::None,
            JitterFlag::Full => JitterSpec::Full,
            JitterFlag::Equal => JitterSpec::Equal,
        }
    }

    fn refuse_what_does_not_apply(&self) -> Result<(), CliError> {
        let shape = self.shape();
        if self.factor.is_some() && shape != BackoffShape::Exponential {
            return Err(CliError::usage("--factor goes with --backoff exponential only"));
        }
        let timed = self.delay.is_some() || self.max_delay.is_some() || self.jitter.is_some();
        if shape == BackoffShape::None && timed {
            return Err(CliError::usage(
                "--backoff none has no wait: leave --delay, --max-delay and --jitter out",
            ));
        }
        Ok(())
    }

    /// The backoff in words, such as "exponential, full jitter".
    pub fn backoff_in_words(&self) -> String {
        let jitter = match self.jitter.unwrap_or(JitterFlag::Full) {
            JitterFlag::None => "no jitter",
            JitterFlag::Full => "full jitter",
            JitterFlag::Equal => "equal jitter",
        };
        match self.shape() {
            BackoffShape::None => "none".to_owned(),
            BackoffShape::Fixed => format!("fixed, {jitter}"),
            BackoffShape::Linear => format!("linear, {jitter}"),
            BackoffShape::Exponential => format!("exponential, {jitter}"),
        }
    }
}

/// Everything that is wrong with a policy, a line each.
pub fn wrong(what: &str, Violations(violations): &Violations) -> CliError {
    let error = CliError::usage(format!("{what} does not hold"));
    violations.iter().fold(error, |error, violation| error.detail(violation.to_string()))
}

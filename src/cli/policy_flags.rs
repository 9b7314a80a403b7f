//! A policy given on the command line.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{error::CliError, text};
use crate::proto::{
    Backoff, ExponentialBackoff, FixedBackoff, Jitter, JitterKind, LinearBackoff, Policy,
    backoff::Shape,
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
    /// Whether any of the flags was given.
    pub fn given(&self) -> bool {
        let Self { max_retries, backoff, delay, factor, max_delay, jitter, max_elapsed } = self;
        let spans = [delay, max_delay, max_elapsed];
        max_retries.is_some()
            || backoff.is_some()
            || factor.is_some()
            || jitter.is_some()
            || spans.iter().any(|span| span.is_some())
    }

    /// The policy that the flags describe; `None` when none was given.
    pub fn policy(&self) -> Result<Option<Policy>, CliError> {
        match self.given() {
            true => self.described().map(Some),
            false => Ok(None),
        }
    }

    fn described(&self) -> Result<Policy, CliError> {
        Ok(Policy {
            max_retries: self.max_retries,
            max_elapsed: self.max_elapsed.map(text::to_proto_duration),
            backoff: self.backoff()?,
            ..Policy::default()
        })
    }

    fn backoff(&self) -> Result<Option<Backoff>, CliError> {
        let shape = self.backoff.unwrap_or(BackoffShape::Exponential);
        self.refuse_what_does_not_apply(shape)?;
        let delay = Some(text::to_proto_duration(self.delay.unwrap_or(DELAY)));
        let grows = matches!(shape, BackoffShape::Linear | BackoffShape::Exponential);
        let shape = match shape {
            BackoffShape::None => return Ok(None),
            BackoffShape::Fixed => Shape::Fixed(FixedBackoff { delay }),
            BackoffShape::Linear => Shape::Linear(LinearBackoff { delay, increment: None }),
            BackoffShape::Exponential => Shape::Exponential(ExponentialBackoff {
                delay,
                factor: self.factor,
                max_doublings: None,
            }),
        };
        Ok(Some(Backoff {
            shape: Some(shape),
            max_delay: self.max_delay.or(grows.then_some(MAX_DELAY)).map(text::to_proto_duration),
            first_delay: None,
            jitter: Some(self.jitter()),
        }))
    }

    fn refuse_what_does_not_apply(&self, shape: BackoffShape) -> Result<(), CliError> {
        if self.factor.is_some() && shape != BackoffShape::Exponential {
            return Err(CliError::usage("--factor goes with --backoff exponential only"));
        }
        if self.factor.is_some_and(|factor| !factor.is_finite() || factor < 0.0) {
            return Err(CliError::usage("--factor: accepted is a number of 0 or more"));
        }
        let waits = [self.delay, self.max_delay];
        let timed = waits.iter().any(|wait| wait.is_some()) || self.jitter.is_some();
        if shape == BackoffShape::None && timed {
            return Err(CliError::usage(
                "--backoff none has no wait: leave --delay, --max-delay and --jitter out",
            ));
        }
        Ok(())
    }

    fn jitter(&self) -> Jitter {
        let kind = match self.jitter.unwrap_or(JitterFlag::Full) {
            JitterFlag::None => JitterKind::None,
            JitterFlag::Full => JitterKind::Full,
            JitterFlag::Equal => JitterKind::Equal,
        };
        Jitter { kind: kind.into(), ratio: None }
    }

    /// The backoff in words, such as "exponential, full jitter".
    pub fn backoff_in_words(&self) -> String {
        let jitter = match self.jitter.unwrap_or(JitterFlag::Full) {
            JitterFlag::None => "no jitter",
            JitterFlag::Full => "full jitter",
            JitterFlag::Equal => "equal jitter",
        };
        match self.backoff.unwrap_or(BackoffShape::Exponential) {
            BackoffShape::None => "none".to_owned(),
            BackoffShape::Fixed => format!("fixed, {jitter}"),
            BackoffShape::Linear => format!("linear, {jitter}"),
            BackoffShape::Exponential => format!("exponential, {jitter}"),
        }
    }
}

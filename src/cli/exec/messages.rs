//! What `exec` tells on stderr, a line for people or a JSON object for machines.

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::{
    output::{self, Format, Paint},
    text,
};

/// Tells events, in one form or not at all.
#[derive(Clone, Debug)]
pub struct Teller {
    format: Format,
    quiet: bool,
}

impl Teller {
    /// Quiet tells nothing.
    pub fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet }
    }

    /// Tells an event that happened now.
    pub fn tell(&self, event: &Event) {
        let now = Timestamp::now();
        match (self.quiet, self.format) {
            (true, _) => {}
            (false, Format::Table) => {
                let (paint, line) = event.line(now);
                output::message(&output::paint(paint, &format!("reprise: {line}")));
            }
            (false, Format::Json) => {
                let stamped = Stamped { at: now, event };
                output::message(&serde_json::to_string(&stamped).unwrap_or_default());
            }
        }
    }
}

#[derive(Serialize)]
struct Stamped<'a> {
    at: Timestamp,
    #[serde(flatten)]
    event: &'a Event,
}

/// What happened. As JSON, spans are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The command starts.
    Started { namespace: String, run: String, step: String, attempt: u32, policy: String },
    /// The command ended without success.
    Failed { attempt: u32, class: &'static str, cause: String, seconds: f64 },
    /// The command ended with success.
    Succeeded { attempt: u32, seconds: f64 },
    /// It is tried again.
    Retry {
        retry: u32,
        max_retries: Option<u32>,
        seconds: f64,
        not_before: Timestamp,
        why: String,
        /// Decided here, since no service answered.
        local: bool,
    },
    /// It may not begin yet.
    Waiting { reason: &'static str, explanation: String, seconds: Option<f64> },
    /// A person decides.
    Held {
        reason: &'static str,
        explanation: String,
        answers: Vec<String>,
        until: Option<Timestamp>,
    },
    /// It is not tried again.
    Stopped { reason: &'static str, explanation: String, attempts: u32, local: bool },
    /// Nothing is left to do.
    Done { reason: &'static str },
    /// `--once`, or a wait longer than `--max-wait`: the caller comes again.
    Later { seconds: Option<f64> },
    /// A signal was passed on to the command.
    PassedOn { signal: String },
    /// The command took longer than it may.
    TimedOut { seconds: f64 },
    /// The service says that the step was cancelled.
    CancelRequested {},
    /// TERM was not enough.
    Killed { seconds: f64 },
    /// The service counts the attempt as crashed, or another one runs.
    LeaseLost { cause: Option<String>, ending: bool },
    /// The report came when another attempt had taken over.
    Stale { attempt: u32 },
    /// The report came after the lease had ended.
    Late { attempt: u32 },
    /// The service does not answer.
    ServiceAway { address: String, cause: String, seconds: f64 },
    /// The service answers again.
    ServiceBack { seconds: f64 },
    /// No service: decided here.
    Alone { policy: String },
    /// How an attempt ended could not be told to the service.
    Unreported { attempt: u32, cause: String },
    /// A command of a worker ended; without a cause it succeeded.
    Ended { run: String, step: String, attempt: u32, cause: Option<String>, seconds: f64 },
    /// A signal asked a worker to end: it claims nothing more.
    Draining { signal: String },
    /// A signal asked us to end before the step was over.
    Interrupted { signal: String, run: String },
}

impl Event {
    fn line(&self, now: Timestamp) -> (Paint, String) {
        (self.paint(), self.words(now))
    }

    fn paint(&self) -> Paint {
        match self {
            Self::Ended { cause: None, .. } => Paint::Green,
            Self::Ended { .. } => Paint::Red,
            Self::Failed { .. } | Self::Stopped { .. } | Self::Unreported { .. } => Paint::Red,
            Self::Succeeded { .. } | Self::Done { .. } => Paint::Green,
            Self::Started { .. } | Self::ServiceBack { .. } | Self::PassedOn { .. } => Paint::None,
            _ => Paint::Yellow,
        }
    }

    fn words(&self, now: Timestamp) -> String {
        match self {
            Self::Started { run, step, attempt, policy, .. } => {
                format!("{step} attempt {attempt} (run {run}, policy {policy})")
            }
            Self::Failed { attempt, cause, seconds, .. } => {
                format!("attempt {attempt} failed: {cause} after {}", span(*seconds))
            }
            Self::Succeeded { attempt, seconds } => {
                format!("attempt {attempt} succeeded after {}", span(*seconds))
            }
            Self::Retry { .. } => self.retry_in_words(now),
            Self::Waiting { reason, explanation, seconds } => {
                let until = seconds.map(|s| format!(", asking again in {}", span(s)));
                let why = because(reason, explanation);
                format!("waiting: {why}{}", until.unwrap_or_default())
            }
            Self::Held { reason, explanation, answers, until } => {
                let until = until.map(|at| format!(" until {}", text::clock_time(at, now)));
                let why = because(reason, explanation);
                let answers = answers.join(", ").to_lowercase();
                format!(
                    "held for a person{}: {why} (answers: {answers})",
                    until.unwrap_or_default()
                )
            }
            Self::Stopped { reason, explanation, attempts, local } => {
                let why = because(reason, explanation);
                format!("stop: {why} after {}{}", attempts_in_words(*attempts), alone(*local))
            }
            Self::Done { reason } => format!("nothing left to do: {}", text::words(reason)),
            Self::Later { seconds: Some(s) } => format!("retry later: due in {}", span(*s)),
            Self::Later { seconds: None } => "retry later".to_owned(),
            Self::PassedOn { signal } => {
                format!("{signal} is for the command; waiting for its end")
            }
            Self::TimedOut { seconds } => {
                format!("timed out after {}; ending the command", span(*seconds))
            }
            Self::CancelRequested {} => "the step was cancelled; ending the command".to_owned(),
            Self::Killed { seconds } => {
                format!("still running {} after SIGTERM; killing it", span(*seconds))
            }
            Self::LeaseLost { cause, ending } => lease_lost_in_words(cause.as_deref(), *ending),
            Self::Stale { attempt } => {
                format!("attempt {attempt} was reported too late: another one had taken over")
            }
            Self::Late { attempt } => {
                format!("attempt {attempt} was reported after its lease had ended")
            }
            Self::ServiceAway { address, cause, seconds } if *seconds < 1.0 => {
                format!("no answer from {address} ({cause})")
            }
            Self::ServiceAway { address, cause, seconds } => {
                format!("no answer from {address} for {} ({cause}); trying on", span(*seconds))
            }
            Self::ServiceBack { seconds } => {
                format!("the service answers again after {}", span(*seconds))
            }
            Self::Alone { policy } => format!("no service; deciding here by {policy}"),
            Self::Unreported { attempt, cause } => {
                format!("the end of attempt {attempt} could not be reported: {cause}")
            }
            Self::Ended { run, step, attempt, cause, seconds } => {
                let how =
                    cause.as_ref().map_or("succeeded".to_owned(), |it| format!("failed: {it}"));
                format!("{run}/{step} attempt {attempt} {how} after {}", span(*seconds))
            }
            Self::Draining { signal } => {
                format!("{signal}: claiming nothing more; waiting for what runs")
            }
            Self::Interrupted { signal, run } => {
                format!("{signal}: leaving; to go on, run the same with --run {run}")
            }
        }
    }

    fn retry_in_words(&self, now: Timestamp) -> String {
        let Self::Retry { retry, max_retries, seconds, not_before, why, local } = self else {
            return String::new();
        };
        let of = max_retries.map(|max| format!(" of {max}")).unwrap_or_default();
        let at = text::clock_time(*not_before, now);
        format!("retry {retry}{of} in {} ({why}) at {at}{}", span(*seconds), alone(*local))
    }
}

fn lease_lost_in_words(cause: Option<&str>, ending: bool) -> String {
    let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    let then = match ending {
        true => "ending the command",
        false => "the command runs on, since a late success may still count",
    };
    format!("the lease is lost{cause}; {then}")
}

/// The reason's name, or the service's sentence for one that we do not know.
fn because(reason: &str, explanation: &str) -> String {
    match reason {
        "UNSPECIFIED" => explanation.trim_end_matches('.').to_owned(),
        _ => text::words(reason),
    }
}

fn attempts_in_words(attempts: u32) -> String {
    match attempts {
        1 => "1 attempt".to_owned(),
        n => format!("{n} attempts"),
    }
}

fn alone(local: bool) -> &'static str {
    if local { "; decided here, without the service" } else { "" }
}

fn span(seconds: f64) -> String {
    text::duration(text::from_seconds(seconds))
}

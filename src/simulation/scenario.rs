//! What happens: the workload, the target and what befalls it.

use std::{num::NonZeroU32, time::Duration};

use serde::{Serialize, Serializer};

/// One storm. Instants are lengths of time from its beginning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub about: &'static str,
    /// Steps that all begin at the beginning.
    pub steps: u32,
    /// Steps a second that begin after that, on average.
    pub fresh_per_second: f64,
    /// How long steps go on beginning.
    #[serde(rename = "fresh_for_seconds", serialize_with = "in_seconds")]
    pub fresh_for: Duration,
    /// Processes that the steps belong to, each with its own client library; also
    /// the hosts that attempts run on.
    pub processes: u32,
    /// Retries of a step, at most, under every strategy.
    pub max_retries: u32,
    /// How long after its first start a step may still be tried.
    #[serde(rename = "max_elapsed_seconds", serialize_with = "in_seconds")]
    pub max_elapsed: Duration,
    /// How long a worker waits for the target.
    #[serde(rename = "call_timeout_seconds", serialize_with = "in_seconds")]
    pub call_timeout: Duration,
    /// Calls that the target serves a second when it is well.
    pub capacity: NonZeroU32,
    /// What it does with more.
    pub overload: Overload,
    /// What befalls it.
    pub profile: Profile,
    /// The retry budget that Reprise is given, if one.
    pub budget: Option<Budget>,
    /// When the target is well, or as well as it gets: drain and waits of fresh
    /// steps are measured from here.
    #[serde(rename = "recovery_seconds", serialize_with = "in_seconds")]
    pub recovery: Duration,
    /// When the simulation ends, whoever still waits.
    #[serde(rename = "horizon_seconds", serialize_with = "in_seconds")]
    pub horizon: Duration,
}

/// What a target does with more calls than it can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overload {
    /// They wait in line; when so many do, the next one is refused at once.
    Queue(u32),
    /// They are refused at once; a second's worth may come together.
    Reject,
}

/// What befalls a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Profile {
    /// When it is down: from, until.
    #[serde(serialize_with = "spans_in_seconds")]
    pub down: Vec<(Duration, Duration)>,
    /// When it answers every call with 429 and a Retry-After: until this instant.
    #[serde(rename = "throttled_until_seconds", serialize_with = "in_seconds")]
    pub throttled_until: Duration,
    /// Part of the calls that fail, of 1, and until when.
    pub failing: Option<Failing>,
    /// After being down it serves a fifth, and all of it a minute later.
    pub slow_start: bool,
    /// An overload within a minute after being down brings it down for 5 s.
    pub fragile: bool,
    /// One host is broken: it fails each attempt in 10 ms, and draws this part of
    /// them, of 1.
    pub bad_node: Option<f64>,
}

/// A target that fails some calls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Failing {
    /// Part of the calls, of 1.
    pub part: f64,
    /// Until when.
    #[serde(rename = "until_seconds", serialize_with = "in_seconds")]
    pub until: Duration,
}

/// A retry budget: retries in a window for each first attempt in it, and so many
/// that need none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Budget {
    /// Retries to a first attempt.
    pub ratio: f64,
    /// Retries in a window beside those.
    pub floor: u32,
    /// The window.
    #[serde(rename = "window_seconds", serialize_with = "in_seconds")]
    pub window: Duration,
}

/// Lengths of time are numbers of seconds in JSON.
pub(super) fn in_seconds<S: Serializer>(span: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(span.as_secs_f64())
}

fn spans_in_seconds<S: Serializer>(
    spans: &[(Duration, Duration)],
    out: S,
) -> Result<S::Ok, S::Error> {
    out.collect_seq(spans.iter().map(|(from, until)| [from.as_secs_f64(), until.as_secs_f64()]))
}

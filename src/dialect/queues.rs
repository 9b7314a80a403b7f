//! Sidekiq and Asynq: a wait of n⁴ + 15 seconds, and some more by chance.
//!
//! By `lib/sidekiq/job_retry.rb` (`rand(10) * (count + 1)`, thirty in older versions)
//! and by the default delay in `server.go` of asynq (`Intn(30) * (n + 1)`).

use std::time::Duration;

use super::{
    Unit,
    document::{Drawn, Part, Reader},
    numbers,
    parts::crashes,
};
use crate::domain::{
    policy::{
        parse::LIST_MAX,
        spec::{BackoffSpec, JitterSpec, PolicySpec, ScheduleEndSpec, ScheduleSpec},
    },
    time::Span,
};

/// A queue whose formula this is.
pub struct Queue {
    name: &'static str,
    /// What says how many retries there are.
    keys: &'static [&'static str],
    /// Retry n waits up to so many times n seconds more, by chance.
    spread: u64,
}

/// Ruby's Sidekiq.
pub const SIDEKIQ: Queue =
    Queue { name: "sidekiq", keys: &["retry", "max_retries", ":max_retries"], spread: 9 };
/// Go's Asynq.
pub const ASYNQ: Queue =
    Queue { name: "asynq", keys: &["MaxRetry", "max_retry", "retry"], spread: 29 };

/// Retries when nothing is said.
const RETRIES: i64 = 25;

/// Reads a document.
pub fn read(reader: &mut Reader, root: &Part<'_>, queue: &Queue) {
    if !reader.mapping(root) {
        return;
    }
    let Some(part) = root.any(queue.keys) else { return };
    let retries = match part.truth() {
        Some(on) => Some(if on { RETRIES } else { 0 }),
        None => reader.whole(&part, 0),
    };
    let Some(retries) = retries else { return };
    let mut drawn = Drawn::default();
    drawn.note(
        part.path.clone(),
        format!(
            "retry n waits (n-1)^4 + 15 s, and by chance up to {} s * n more: written out, with the \
             middle of it, and a tenth up and down.",
            queue.spread
        ),
    );
    let written = usize::try_from(retries).unwrap_or(usize::MAX).min(LIST_MAX);
    if usize::try_from(retries).is_ok_and(|retries| retries > LIST_MAX) {
        drawn.note(part.path.clone(), format!("from retry {LIST_MAX} on the last wait repeats."));
    }
    drawn.spec = PolicySpec {
        max_retries: Some(numbers::count(retries)),
        backoff: (written > 0).then(|| backoff(queue, written)),
        rules: vec![crashes()],
        ..PolicySpec::default()
    };
    reader.keep(root, queue.name, Unit::Step, drawn);
}

fn backoff(queue: &Queue, retries: usize) -> BackoffSpec {
    let wait =
        |n: u64| Duration::from_millis((n.pow(4) + 15) * 1000 + queue.spread * (n + 1) * 500);
    let delays = (0..).take(retries).map(|n| Span(wait(n))).collect();
    BackoffSpec {
        schedule: Some(ScheduleSpec { delays, end: ScheduleEndSpec::Repeat }),
        jitter: Some(JitterSpec::Ratio(0.1)),
        ..BackoffSpec::default()
    }
}

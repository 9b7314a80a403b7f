//! What the service is to reach. Nearly all are ratios inside one run, since
//! those alone mean the same on every machine.

use std::fmt;

use serde::Serialize;

use super::report::{Measurement, Report, megabytes};

/// A promise and how it was kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Target {
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    #[serde(flatten)]
    pub(super) bound: Bound,
    pub(super) measured: f64,
    pub(super) met: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, measured: f64) -> bool {
        match self {
            Self::AtMost(bound) => measured <= bound,
            Self::AtLeast(bound) => bound <= measured,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
        }
    }
}

/// The targets for which this run has figures.
pub(super) fn evaluate(report: &Report) -> Vec<Target> {
    let found =
        |name: &str| report.measurements.iter().find(|measurement| measurement.name == name);
    let cpu = |name| found(name)?.ratios.cpu;
    let throughput = |name| found(name)?.ratios.throughput;
    let p50 = |name| found(name)?.ratios.p50;
    let start = report.start.as_ref();
    let bound = |what, unit, bound, measured: Option<f64>| {
        measured.map(|measured| Target { what, unit, bound, measured, met: bound.holds(measured) })
    };
    use Bound::{AtLeast, AtMost};
    [
        bound("report: CPU per decision", "× echo", AtMost(1.5), cpu("report")),
        bound("report: throughput", "× echo", AtLeast(0.7), throughput("report")),
        bound("report-one: CPU per decision", "× echo", AtMost(1.5), cpu("report-one")),
        bound("durable: CPU per decision", "× echo", AtMost(3.0), cpu("durable")),
        bound(
            "durable: decisions",
            "× synced appends",
            AtLeast(12.0),
            per_append(report, found("durable")),
        ),
        bound(
            "batch16: CPU per decision",
            "× report",
            AtMost(0.5),
            cpu_over(found("batch16"), found("report")),
        ),
        bound("redis: CPU per decision", "× echo", AtMost(1.9), cpu("redis")),
        bound("redis: throughput", "× echo", AtLeast(0.33), throughput("redis")),
        bound(
            "redis: its CPU per decision",
            "× pipelined SET",
            AtMost(5.0),
            redis_cpu(report, found("redis")),
        ),
        bound(
            "redis-limited: Redis's CPU",
            "× redis",
            AtMost(2.0),
            redis_cpu_over(found("redis-limited"), found("redis")),
        ),
        bound(
            "redis-limited-batch64: Redis's CPU",
            "× redis-batch64",
            AtMost(1.7),
            redis_cpu_over(found("redis-limited-batch64"), found("redis-batch64")),
        ),
        bound(
            "redis-rate-batch64: Redis's CPU",
            "× redis-batch64",
            AtMost(1.4),
            redis_cpu_over(found("redis-rate-batch64"), found("redis-batch64")),
        ),
        bound(
            "limited: CPU per decision",
            "µs more than report",
            AtMost(2.0),
            cpu_more(found("limited"), found("report")),
        ),
        bound("redis: throughput", "× naive", AtLeast(1.5), throughput("redis-naive")),
        bound("redis-one: p50", "× one script", AtMost(1.3), p50("redis-one-script")),
        bound(
            "redis-batch64: throughput",
            "× redis",
            AtLeast(1.5),
            throughput_over(found("redis-batch64"), found("redis")),
        ),
        bound(
            "redis-everysec: throughput",
            "× redis",
            AtLeast(0.75),
            throughput_over(found("redis-everysec"), found("redis")),
        ),
        bound(
            "redis-always: throughput",
            "× redis",
            AtLeast(0.5),
            throughput_over(found("redis-always"), found("redis")),
        ),
        bound("start: first answer", "ms", AtMost(30.0), start.map(|start| start.first_answer_ms)),
        bound(
            "start: idle memory",
            "MB",
            AtMost(15.0),
            start.map(|start| megabytes(start.resident_bytes)),
        ),
        bound(
            "start: binary",
            "MB",
            AtMost(20.0),
            start.map(|start| megabytes(start.binary_bytes)),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Durable decisions for each append that the disk could sync one by one.
fn per_append(report: &Report, durable: Option<&Measurement>) -> Option<f64> {
    Some(durable?.subject.decisions_per_second / report.disk?.appends_per_second)
}

/// CPU of Redis for a decision over that for a SET.
fn redis_cpu(report: &Report, redis: Option<&Measurement>) -> Option<f64> {
    Some(redis?.subject.redis_cpu_us? / report.redis_set_us?)
}

fn throughput_over(one: Option<&Measurement>, other: Option<&Measurement>) -> Option<f64> {
    Some(one?.subject.decisions_per_second / other?.subject.decisions_per_second)
}

fn cpu_over(one: Option<&Measurement>, other: Option<&Measurement>) -> Option<f64> {
    Some(one?.subject.cpu_us? / other?.subject.cpu_us?)
}

fn redis_cpu_over(one: Option<&Measurement>, other: Option<&Measurement>) -> Option<f64> {
    Some(one?.subject.redis_cpu_us? / other?.subject.redis_cpu_us?)
}

fn cpu_more(one: Option<&Measurement>, other: Option<&Measurement>) -> Option<f64> {
    Some(one?.subject.cpu_us? - other?.subject.cpu_us?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_include_their_value() {
        assert!(Bound::AtMost(1.5).holds(1.5) && !Bound::AtMost(1.5).holds(1.51));
        assert!(Bound::AtLeast(0.7).holds(0.7) && !Bound::AtLeast(0.7).holds(0.69));
        assert!(!Bound::AtMost(1.5).holds(f64::NAN));
    }
}

//! What the service is to reach. Nearly all are ratios inside one run, since
//! those alone mean the same on every machine.

use std::fmt;

use serde::Serialize;

use super::{
    figures::Figures,
    report::{Measurement, Report, Start, megabytes},
};
use Bound::{AtLeast, AtMost};

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

/// What was promised, in which unit, how much, and what was measured of it.
type Row = (&'static str, &'static str, Bound, Option<f64>);

/// The targets for which this run has figures.
pub(super) fn evaluate(report: &Report) -> Vec<Target> {
    let figures = Found(report);
    let rows =
        figures.in_process().into_iter().chain(figures.on_redis()).chain(figures.when_idle());
    rows.filter_map(|(what, unit, bound, measured)| {
        let measured = measured?;
        Some(Target { what, unit, bound, measured, met: bound.holds(measured) })
    })
    .collect()
}

/// What was found, by the names of loads.
struct Found<'a>(&'a Report);

impl Found<'_> {
    fn in_process(&self) -> [Row; 7] {
        [
            ("report: CPU per decision", "× echo", AtMost(1.5), self.cpu("report")),
            ("report: throughput", "× echo", AtLeast(0.7), self.throughput("report")),
            ("report-one: CPU per decision", "× echo", AtMost(1.5), self.cpu("report-one")),
            ("durable: CPU per decision", "× echo", AtMost(3.0), self.cpu("durable")),
            ("durable: decisions", "× synced appends", AtLeast(12.0), self.per_append("durable")),
            (
                "batch16: CPU per decision",
                "× report",
                AtMost(0.5),
                self.over("batch16", "report", |of| of.cpu_us),
            ),
            (
                "limited: CPU per decision",
                "µs more than begin-report",
                AtMost(2.0),
                self.cpu_more("limited", "begin-report"),
            ),
        ]
    }

    fn on_redis(&self) -> [Row; 11] {
        let redis_cpu = |one, other| self.over(one, other, |of| of.redis_cpu_us);
        let rate = |one| self.over(one, "redis", |of| Some(of.decisions_per_second));
        let batch = "redis-batch64";
        [
            ("redis: CPU per decision", "× echo", AtMost(1.9), self.cpu("redis")),
            ("redis: throughput", "× echo", AtLeast(0.33), self.throughput("redis")),
            ("redis: its CPU per decision", "× pipelined SET", AtMost(5.0), self.per_set("redis")),
            ("redis: throughput", "× naive", AtLeast(1.5), self.throughput("redis-naive")),
            ("redis-one: p50", "× one script", AtMost(1.3), self.p50("redis-one-script")),
            ("redis-batch64: throughput", "× redis", AtLeast(1.5), rate(batch)),
            ("redis-everysec: throughput", "× redis", AtLeast(0.75), rate("redis-everysec")),
            ("redis-always: throughput", "× redis", AtLeast(0.5), rate("redis-always")),
            (
                "redis-limited: Redis's CPU",
                "× redis-begin-report",
                AtMost(2.0),
                redis_cpu("redis-limited", "redis-begin-report"),
            ),
            (
                "redis-limited-batch64: Redis's CPU",
                "× redis-batch64",
                AtMost(1.7),
                redis_cpu("redis-limited-batch64", batch),
            ),
            (
                "redis-rate-batch64: Redis's CPU",
                "× redis-batch64",
                AtMost(1.4),
                redis_cpu("redis-rate-batch64", batch),
            ),
        ]
    }

    fn when_idle(&self) -> [Row; 3] {
        let start = self.0.start.as_ref();
        let of = |figure: fn(&Start) -> f64| start.map(figure);
        [
            ("start: first answer", "ms", AtMost(30.0), of(|start| start.first_answer_ms)),
            ("start: idle memory", "MB", AtMost(15.0), of(|start| megabytes(start.resident_bytes))),
            ("start: binary", "MB", AtMost(20.0), of(|start| megabytes(start.binary_bytes))),
        ]
    }

    fn load(&self, name: &str) -> Option<&Measurement> {
        self.0.measurements.iter().find(|measurement| measurement.name == name)
    }

    fn cpu(&self, name: &str) -> Option<f64> {
        self.load(name)?.ratios.cpu
    }

    fn throughput(&self, name: &str) -> Option<f64> {
        self.load(name)?.ratios.throughput
    }

    fn p50(&self, name: &str) -> Option<f64> {
        self.load(name)?.ratios.p50
    }

    /// A figure of one load over that of another.
    fn over(&self, one: &str, other: &str, figure: fn(&Figures) -> Option<f64>) -> Option<f64> {
        Some(figure(&self.load(one)?.subject)? / figure(&self.load(other)?.subject)?)
    }

    fn cpu_more(&self, one: &str, other: &str) -> Option<f64> {
        Some(self.load(one)?.subject.cpu_us? - self.load(other)?.subject.cpu_us?)
    }

    /// Decisions for each append that the disk could sync one by one.
    fn per_append(&self, name: &str) -> Option<f64> {
        let disk = self.0.disk.as_ref()?;
        Some(self.load(name)?.subject.decisions_per_second / disk.appends_per_second)
    }

    /// CPU of Redis for a decision over that for a SET.
    fn per_set(&self, name: &str) -> Option<f64> {
        Some(self.load(name)?.subject.redis_cpu_us? / self.0.redis_set_us?)
    }
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

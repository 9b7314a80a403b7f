//! What is measured.

use super::{
    client::Transport,
    load::Shape,
    process::{Program, Store, Threads},
    redis_server::Aof,
    workload::{Limits, Scenario},
};

/// A load on one server, compared with the same load on the baseline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) program: Program,
    /// What it is compared with.
    pub(super) baseline: Program,
    pub(super) transport: Transport,
    pub(super) scenario: Scenario,
    pub(super) limits: Limits,
    pub(super) shape: Shape,
    pub(super) drive: Drive,
}

impl Case {
    /// Whether a Redis is needed for it.
    pub(super) const fn is_on_redis(&self) -> bool {
        matches!(self.program, Program::Reprise(Store::Redis(_)))
    }
}

/// How calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drive {
    /// As fast as they are answered.
    Closed,
    /// At a rate that both servers can bear easily.
    Open,
    /// At the rate that the server can sustain, then at three times that.
    Overload,
}

/// Name of the measurement of starts, sizes and memory, which has no load.
pub(super) const START: &str = "start";

const fn shape(callers: usize, connections: usize) -> Shape {
    Shape { callers, connections }
}

/// What most cases differ from in one thing.
const PLAIN: Case = Case {
    name: "report",
    program: Program::Reprise(Store::Memory),
    baseline: Program::Echo,
    transport: Transport::Tcp,
    scenario: Scenario::Report,
    limits: Limits::None,
    shape: shape(64, 4),
    drive: Drive::Closed,
};

/// What those on Redis differ from in one thing.
const REDIS: Case = Case {
    name: "redis",
    program: Program::Reprise(Store::Redis(Aof::Off)),
    shape: shape(256, 4),
    ..PLAIN
};

const REDIS_BATCH: Case =
    Case { name: "redis-batch64", scenario: Scenario::Batch64, shape: shape(16, 4), ..REDIS };

/// Every case, in the order in which they are measured.
pub(super) const CASES: [Case; 26] = [
    // The baseline against itself: how far equal servers differ here.
    Case { name: "echo", program: Program::Echo, ..PLAIN },
    PLAIN,
    Case { name: "report-one", shape: shape(1, 1), ..PLAIN },
    Case { name: "report-256", shape: shape(256, 4), ..PLAIN },
    Case { name: "report-socket", transport: Transport::Unix, ..PLAIN },
    Case { name: "begin-report", scenario: Scenario::BeginReport, ..PLAIN },
    Case { name: "limited", scenario: Scenario::BeginReport, limits: Limits::Three, ..PLAIN },
    Case { name: "batch16", scenario: Scenario::Batch16, shape: shape(16, 4), ..PLAIN },
    Case { name: "mixed", scenario: Scenario::Mixed, ..PLAIN },
    Case { name: "relaxed", program: Program::Reprise(Store::Relaxed), ..PLAIN },
    Case {
        name: "durable-one",
        program: Program::Reprise(Store::Durable),
        shape: shape(1, 1),
        ..PLAIN
    },
    Case {
        name: "durable",
        program: Program::Reprise(Store::Durable),
        shape: shape(256, 4),
        ..PLAIN
    },
    REDIS,
    Case { name: "redis-naive", baseline: Program::Naive(Threads::Many), ..REDIS },
    Case { name: "redis-one", shape: shape(1, 1), ..REDIS },
    Case {
        name: "redis-one-script",
        baseline: Program::Naive(Threads::One),
        shape: shape(1, 1),
        ..REDIS
    },
    Case { name: "redis-batch16", scenario: Scenario::Batch16, shape: shape(16, 4), ..REDIS },
    REDIS_BATCH,
    Case { name: "redis-begin-report", scenario: Scenario::BeginReport, ..REDIS },
    Case { name: "redis-limited", scenario: Scenario::BeginReport, limits: Limits::Three, ..REDIS },
    Case { name: "redis-rate-batch64", limits: Limits::Rate, ..REDIS_BATCH },
    Case { name: "redis-limited-batch64", limits: Limits::Three, ..REDIS_BATCH },
    Case {
        name: "redis-everysec",
        program: Program::Reprise(Store::Redis(Aof::EverySecond)),
        ..REDIS
    },
    Case { name: "redis-always", program: Program::Reprise(Store::Redis(Aof::Always)), ..REDIS },
    Case { name: "open", shape: shape(128, 4), drive: Drive::Open, ..PLAIN },
    Case { name: "overload", shape: shape(1024, 8), drive: Drive::Overload, ..PLAIN },
];

/// Names that can be asked for.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once(START).chain(CASES.iter().map(|case| case.name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        assert_eq!(names().collect::<BTreeSet<_>>().len(), CASES.len() + 1);
    }
}

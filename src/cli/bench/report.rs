//! What a run found, for people and for machines.

use std::{fmt, io};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{
    client::Transport,
    figures::{Figures, Latency, Ratios},
    load::{Arrivals, Shape},
    process::Store,
    say,
    targets::Target,
    workload::Scenario,
};

/// Everything that one run found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) rounds: u32,
    pub(super) seconds_per_round: f64,
    pub(super) arrivals: Arrivals,
    /// Cores that servers and callers share.
    pub(super) cores: usize,
    pub(super) start: Option<Start>,
    pub(super) disk: Option<Disk>,
    /// CPU of Redis for a pipelined SET, µs. Absent where no Redis was started.
    pub(super) redis_set_us: Option<f64>,
    pub(super) measurements: Vec<Measurement>,
    pub(super) targets: Vec<Target>,
    /// What could not be measured.
    pub(super) unmeasured: Vec<Unmeasured>,
}

/// A load without figures.
#[derive(Debug, Serialize)]
pub(super) struct Unmeasured {
    pub(super) name: &'static str,
    pub(super) reason: String,
}

/// How a server is before it has any load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Start {
    /// From the start of the process to its first answer, ms: the median.
    pub(super) first_answer_ms: f64,
    pub(super) baseline_first_answer_ms: f64,
    pub(super) resident_bytes: u64,
    pub(super) baseline_resident_bytes: u64,
    /// Size of the executable, which is the same for both.
    pub(super) binary_bytes: u64,
}

/// What the disk can do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Disk {
    /// Small appends, each synced before the next, one after another.
    pub(super) appends_per_second: f64,
}

/// One load on two servers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Measurement {
    pub(super) name: String,
    pub(super) scenario: Scenario,
    /// Whether the subject is the baseline too, so that ratios show noise.
    pub(super) is_baseline: bool,
    /// What it is compared with: "echo", or "naive", which makes a script call on Redis
    /// for each report.
    pub(super) baseline_name: &'static str,
    /// Absent for the baseline, and for a server that was running before.
    pub(super) store: Option<Store>,
    pub(super) transport: Transport,
    #[serde(flatten)]
    pub(super) shape: Shape,
    /// Calls a second that were due. Absent in a closed loop.
    pub(super) calls_due_per_second: Option<f64>,
    pub(super) baseline: Figures,
    pub(super) subject: Figures,
    pub(super) ratios: Ratios,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} rounds of {} s each, servers in turn, {} cores shared with the callers, seed {}",
            self.rounds, self.seconds_per_round, self.cores, self.seed
        )?;
        writeln!(f, "medians; in brackets the ratio to a bare tonic echo in the same run\n")?;
        if !self.measurements.is_empty() {
            writeln!(f, "{}\n", self.load_table())?;
        }
        if let Some(start) = &self.start {
            writeln!(f, "{start}")?;
        }
        if let Some(disk) = self.disk {
            writeln!(
                f,
                "disk: {:.0} synced appends a second, one after another",
                disk.appends_per_second
            )?;
        }
        if let Some(cost) = self.redis_set_us {
            writeln!(f, "redis: {cost:.2} µs of its CPU for a pipelined SET")?;
        }
        for Measurement { name, subject, baseline, .. } in &self.measurements {
            if let Some(cost) = subject.redis_cpu_us {
                write!(f, "{name}: {cost:.2} µs of Redis's CPU a decision")?;
                match baseline.redis_cpu_us {
                    Some(baseline) => writeln!(f, ", {baseline:.2} µs of the baseline")?,
                    None => writeln!(f)?,
                }
            }
            if let Some(decisions) = subject.decisions_per_sync {
                writeln!(f, "{name}: {decisions:.1} decisions a sync")?;
            }
        }
        for Unmeasured { name, reason } in &self.unmeasured {
            writeln!(f, "{name}: not measured: {reason}")?;
        }
        for failure in self.measurements.iter().flat_map(Measurement::failures) {
            writeln!(f, "{failure}")?;
        }
        if !self.targets.is_empty() {
            write!(f, "\n{}", target_table(&self.targets))?;
        }
        Ok(())
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "start: first answer after {:.1} ms (echo {:.1}), idle memory {:.1} MB (echo {:.1}), binary {:.1} MB",
            self.first_answer_ms,
            self.baseline_first_answer_ms,
            megabytes(self.resident_bytes),
            megabytes(self.baseline_resident_bytes),
            megabytes(self.binary_bytes),
        )
    }
}

impl Report {
    /// Keeps the reason when there is no value.
    pub(super) fn keep<T>(&mut self, name: &'static str, measured: io::Result<T>) -> Option<T> {
        let reason = match measured {
            Ok(value) => return Some(value),
            Err(error) => error.to_string(),
        };
        say(format_args!("{name}: {reason}"));
        self.unmeasured.push(Unmeasured { name, reason });
        None
    }

    fn load_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header([
            "load",
            "server",
            "decisions/s",
            "CPU µs",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "caller µs",
            "bytes",
            "memory MB",
            "go on",
            "rejected",
        ]);
        for measurement in &self.measurements {
            let Measurement { baseline, subject, ratios, .. } = measurement;
            table.add_row(row(measurement.title(), measurement.baseline_name, baseline, None));
            table.add_row(row(
                measurement.conditions(),
                measurement.server(),
                subject,
                Some(ratios),
            ));
        }
        align_right(&mut table, 2);
        table
    }
}

/// Numbers stand under numbers, from a column on.
fn align_right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn row(title: String, server: &str, figures: &Figures, ratios: Option<&Ratios>) -> [String; 14] {
    let Latency { p50_us, p90_us, p99_us, p999_us, max_us } = figures.latency;
    let milliseconds = |microseconds: f64| format!("{:.3}", microseconds / 1e3);
    let cpu = figures.cpu_us.map_or_else(|| "?".to_owned(), |cpu| format!("{cpu:.2}"));
    let ratio = |which: fn(&Ratios) -> Option<f64>| ratios.and_then(which);
    [
        title,
        server.to_owned(),
        with_ratio(format!("{:.0}", figures.decisions_per_second), ratio(|r| r.throughput)),
        with_ratio(cpu, ratio(|r| r.cpu)),
        with_ratio(milliseconds(p50_us), ratio(|r| r.p50)),
        milliseconds(p90_us),
        with_ratio(milliseconds(p99_us), ratio(|r| r.p99)),
        milliseconds(p999_us),
        milliseconds(max_us),
        format!("{:.2}", figures.client_cpu_us),
        format!("{:.0} → {:.0}", figures.request_bytes, figures.reply_bytes),
        figures.resident_bytes.map_or("?".to_owned(), |bytes| format!("{:.1}", megabytes(bytes))),
        percent(figures.granted_share),
        percent(figures.rejected_share),
    ]
}

impl Measurement {
    fn title(&self) -> String {
        match self.calls_due_per_second {
            Some(rate) => format!("{} {rate:.0}/s", self.name),
            None => self.name.clone(),
        }
    }

    fn server(&self) -> &'static str {
        if self.is_baseline { "echo" } else { "reprise" }
    }

    fn conditions(&self) -> String {
        let Shape { callers, connections } = self.shape;
        format!("{callers} callers, {connections} conn.")
    }

    /// Says what went wrong, each kind once.
    fn failures(&self) -> impl Iterator<Item = String> {
        let both = [(self.baseline_name, &self.baseline), (self.server(), &self.subject)];
        both.into_iter().flat_map(move |(server, figures)| {
            figures
                .failed
                .iter()
                .map(move |(what, count)| format!("{}: {server}: {count} × {what}", self.name))
        })
    }
}

fn target_table(targets: &[Target]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["target", "wanted", "measured", ""]);
    for target in targets {
        let verdict = if target.met { "met" } else { "MISSED" };
        let measured = format!("{:.2} {}", target.measured, target.unit);
        table.add_row([
            target.what.to_owned(),
            target.bound.to_string(),
            measured,
            verdict.to_owned(),
        ]);
    }
    table
}

fn with_ratio(figure: String, ratio: Option<f64>) -> String {
    match ratio {
        Some(ratio) => format!("{figure} ({ratio:.2})"),
        None => figure,
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

//! What strategies made of the same storm, side by side.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Figures, Kind, Scenario, Tally, run};

/// Heads of the table's columns.
pub const COLUMNS: [&str; 11] = [
    "strategy",
    "steps lost",
    "dead calls",
    "calls a success",
    "wasted calls",
    "drain",
    "fresh start p99",
    "fresh done p99",
    "peak/s",
    "peak/s after",
    "over budget",
];

/// Storms, and what came of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The seeds that each was run with.
    pub seeds: Vec<u64>,
    /// One for each scenario.
    pub storms: Vec<Comparison>,
}

/// One scenario under every strategy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What happened.
    pub scenario: Scenario,
    /// What came of it.
    pub strategies: Vec<Row>,
    /// In what Reprise is behind the best of those that lost no more steps, the
    /// oracle aside; in lost steps, behind the best of all.
    pub behind: Vec<String>,
    /// In what it is more than a tenth behind the oracle.
    pub behind_oracle: Vec<String>,
}

/// One strategy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    pub strategy: Kind,
    /// What it does, and who published its numbers.
    pub source: &'static str,
    /// The median of each figure over the seeds.
    pub median: Figures,
    /// The figures of each seed.
    pub runs: Vec<Figures>,
    /// The seed that was worst for it: where it went furthest beyond the scenario's
    /// budget, lost most steps, or took longest to drain, in this order.
    pub worst_seed: u64,
    /// The run of the first seed, for plots.
    #[serde(skip)]
    pub first: Tally,
}

impl Comparison {
    /// Runs a scenario under every strategy, once a seed. `progress` is told of
    /// each strategy before it runs.
    #[must_use]
    pub fn of(scenario: Scenario, seeds: &[u64], mut progress: impl FnMut(Kind)) -> Self {
        let row = |strategy| {
            progress(strategy);
            Row::of(&scenario, strategy, seeds)
        };
        let strategies: Vec<Row> = Kind::ALL.into_iter().filter_map(row).collect();
        let behind = behind_others(&strategies);
        let behind_oracle = behind_oracle(&strategies);
        Self { scenario, strategies, behind, behind_oracle }
    }

    /// In what Reprise is behind, in two sentences.
    #[must_use]
    pub fn standing(&self) -> String {
        let told = |behind: &[String]| match behind {
            [] => "nothing".to_owned(),
            behind => behind.join("; "),
        };
        let own = self.strategies.iter().find(|row| row.is_reprise());
        let worst = own.filter(|row| row.runs.len() > 1);
        format!(
            "Reprise is behind the others in {}. It is behind the oracle in {}.{}",
            told(&self.behind),
            told(&self.behind_oracle),
            worst.map(|row| format!(" Its worst seed is {}.", row.worst_seed)).unwrap_or_default()
        )
    }

    /// The cells of the table, a row for each strategy.
    #[must_use]
    pub fn cells(&self) -> Vec<[String; COLUMNS.len()]> {
        self.strategies.iter().map(Row::cells).collect()
    }
}

impl Row {
    /// None without seeds.
    fn of(scenario: &Scenario, strategy: Kind, seeds: &[u64]) -> Option<Self> {
        let mut first = None;
        let figures = |seed: &u64| {
            let tally = run(scenario, strategy, *seed);
            let figures = tally.figures();
            first.get_or_insert(tally);
            figures
        };
        let runs: Vec<Figures> = seeds.iter().map(figures).collect();
        let median = Figures::median(&runs);
        let worst_seed = worst(seeds, &runs)?;
        Some(Self { strategy, source: strategy.source(), median, runs, worst_seed, first: first? })
    }

    fn is_reprise(&self) -> bool {
        self.strategy == Kind::Reprise
    }

    fn cells(&self) -> [String; COLUMNS.len()] {
        let Figures { calls_per_success, over_budget, .. } = self.median;
        [
            self.strategy.name().to_owned(),
            counted(self.median.lost) + &unfinished(self.median.waiting),
            counted(self.median.dead_calls),
            calls_per_success.map_or_else(|| "∞".to_owned(), |calls| format!("{calls:.2}")),
            counted(self.median.wasted_calls),
            time(self.median.drain_seconds),
            time(self.median.fresh_start_p99_seconds),
            time(self.median.fresh_done_p99_seconds),
            counted(self.median.peak_calls),
            counted(self.median.peak_calls_after),
            over_budget.map_or_else(|| "–".to_owned(), counted),
        ]
    }
}

/// The seed of the worst run, the first of equals.
fn worst(seeds: &[u64], runs: &[Figures]) -> Option<u64> {
    let harm = |figures: &Figures| {
        [figures.over_budget.unwrap_or_default(), figures.lost, or_endless(figures.drain_seconds)]
    };
    let worse = |one: (u64, [f64; 3]), other: (u64, [f64; 3])| {
        if other.1 > one.1 { other } else { one }
    };
    let runs = seeds.iter().zip(runs).map(|(seed, figures)| (*seed, harm(figures)));
    runs.reduce(worse).map(|(seed, _)| seed)
}

/// A measure of which less is better.
struct Measure {
    name: &'static str,
    figure: fn(&Figures) -> f64,
    text: fn(f64) -> String,
    /// What is no difference.
    tolerance: f64,
}

/// All of them. What is absent is endless.
const MEASURES: [Measure; 7] = [
    Measure { name: "steps lost", figure: |f| f.lost, text: counted, tolerance: 0.0 },
    Measure { name: "dead calls", figure: |f| f.dead_calls, text: counted, tolerance: 0.0 },
    Measure { name: "wasted calls", figure: |f| f.wasted_calls, text: counted, tolerance: 0.0 },
    Measure {
        name: "drain",
        figure: |f| or_endless(f.drain_seconds),
        text: seconds,
        tolerance: 1.0,
    },
    Measure {
        name: "fresh start p99",
        figure: |f| or_endless(f.fresh_start_p99_seconds),
        text: seconds,
        tolerance: 0.1,
    },
    Measure {
        name: "fresh done p99",
        figure: |f| or_endless(f.fresh_done_p99_seconds),
        text: seconds,
        tolerance: 0.1,
    },
    Measure { name: "peak after", figure: |f| f.peak_calls_after, text: counted, tolerance: 0.0 },
];

/// Steps lost are compared with all; the rest with those that lost no more, since
/// who gives up soon has little to do.
fn behind_others(rows: &[Row]) -> Vec<String> {
    behind(rows, |row, own, measure| {
        let is_fair = measure.name == "steps lost" || row.median.lost <= own.median.lost;
        !matches!(row.strategy, Kind::Limits | Kind::Reprise | Kind::Oracle) && is_fair
    })
}

/// The oracle has no luck: what is close to it is at it.
fn behind_oracle(rows: &[Row]) -> Vec<String> {
    behind(rows, |row, own, measure| {
        let of = |row: &Row| (measure.figure)(&row.median);
        row.strategy == Kind::Oracle && of(row) * 1.1 < of(own)
    })
}

/// In what Reprise is behind the best of its rivals.
fn behind(rows: &[Row], is_rival: impl Fn(&Row, &Row, &Measure) -> bool) -> Vec<String> {
    let Some(own) = rows.iter().find(|row| row.strategy == Kind::Reprise) else {
        return Vec::new();
    };
    let told = |measure: &Measure| {
        let of = |row: &Row| (measure.figure)(&row.median);
        let rivals = rows.iter().filter(|row| is_rival(row, own, measure));
        let best = rivals.min_by(|a, b| of(a).total_cmp(&of(b)))?;
        let (ours, theirs, name) = (of(own), of(best), best.strategy.name());
        (theirs + measure.tolerance < ours).then(|| {
            let [ours, theirs] = [ours, theirs].map(measure.text);
            format!("{}: {ours}, where {name} has {theirs}", measure.name)
        })
    };
    MEASURES.iter().filter_map(told).collect()
}

fn or_endless(seconds: Option<f64>) -> f64 {
    seconds.unwrap_or(f64::INFINITY)
}

/// A count, its thousands apart.
fn counted(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn unfinished(waiting: f64) -> String {
    if waiting > 0.0 { format!(" (+ {} waiting)", counted(waiting)) } else { String::new() }
}

fn time(length: Option<f64>) -> String {
    seconds(or_endless(length))
}

fn seconds(length: f64) -> String {
    match length {
        _ if length.is_infinite() => "never".to_owned(),
        _ if length < 10.0 => format!("{length:.2} s"),
        _ => format!("{} s", counted(length)),
    }
}

impl Report {
    /// As a Markdown document. `made_by` is the command that writes it again;
    /// `plots` is where its pictures are, seen from the document.
    #[must_use]
    pub fn markdown(&self, made_by: &str, plots: Option<&str>) -> String {
        let mut page = preface(made_by, &self.seeds);
        for storm in &self.storms {
            storm.write(&mut page, plots);
        }
        page
    }
}

fn preface(made_by: &str, seeds: &[u64]) -> String {
    let (first, last) = (seeds.first().unwrap_or(&0), seeds.last().unwrap_or(&0));
    let mut page = format!(
        "# Retry storms\n\n\
         What rules of retrying do to a target that breaks, in virtual time. This page is written by\n\n\
         ```console\n$ {made_by}\n```\n\n\
         and by nothing else{}; the same seeds give the same figures. They are medians over {} seeds, {first} to {last}; \
         plots show the first. Every strategy meets the same arrivals and the same luck, with the scenario's `max_retries`; \
         the other numbers of the libraries are those that their makers publish:\n\n",
        if cfg!(debug_assertions) { " (here by a debug build)" } else { "" },
        seeds.len(),
    );
    for kind in Kind::ALL {
        line(&mut page, format_args!("* **{}**: {}", kind.name(), kind.source()));
    }
    page.push_str(
        "\nReprise takes part through the production rule and limits, with what they can do today. *Dead calls* are those made \
         while none could succeed, *wasted* ones those that failed. *Drain* is the time from recovery until every step from \
         before it had ended, lost ones included, so who loses many drains soon. *Fresh* steps begin after recovery; *start* is \
         until their first attempt starts, *done* until success, and \"never\" where more than 1 % had none. *Over budget* is by \
         how many retries the worst window went beyond the scenario's budget. *Behind the others* compares Reprise with the best \
         of those that lost no more steps, and in steps lost with the best of all.\n",
    );
    page
}

impl Comparison {
    fn write(&self, page: &mut String, plots: Option<&str>) {
        let Scenario { name, about, fresh_per_second, max_retries, capacity, .. } = &self.scenario;
        let steps = counted(self.scenario.steps.into());
        line(page, format_args!("\n## {name}\n\n{about}"));
        line(
            page,
            format_args!(
                "{steps} steps at once and {fresh_per_second} a second; {max_retries} retries each; \
                 {capacity} calls a second.\n"
            ),
        );
        row(page, COLUMNS);
        row(page, ["---"; COLUMNS.len()]);
        for cells in self.cells() {
            row(page, cells);
        }
        line(page, format_args!("\n{}", self.standing()));
        if let Some(plots) = plots {
            for what in ["load", "backlog"] {
                line(page, format_args!("\n![{what} over time]({plots}/{name}-{what}.svg)"));
            }
        }
    }
}

fn row<const N: usize>(page: &mut String, cells: [impl AsRef<str>; N]) {
    let cells = cells.map(|cell| cell.as_ref().to_owned());
    line(page, format_args!("| {} |", cells.join(" | ")));
}

/// Writing to a string cannot fail.
fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(page, "{text}");
}

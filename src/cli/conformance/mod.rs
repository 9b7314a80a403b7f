//! `reprise conformance`: cases of other systems against the rule.

mod meaning;
mod report;
mod run;
mod stage;
mod vector;

use std::{collections::BTreeMap, fs, path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{
    Global,
    error::CliError,
    exit::Exit,
    output::{self, Format},
};
use run::{Outcome, Ran};
use vector::Vector;

/// Which file.
#[derive(Args, Debug)]
pub struct ConformanceArgs {
    /// A JSON list of vectors: system, id, config, failures and what is expected
    file: PathBuf,
}

/// Runs every vector; ends with 1 when one was missed.
pub fn run(global: &Global, args: &ConformanceArgs) -> Result<ExitCode, CliError> {
    let name = args.file.display().to_string();
    let text = fs::read_to_string(&args.file)
        .map_err(|e| CliError::usage(format!("could not read {name}: {e}")))?;
    let vectors = vector::read(&text)
        .map_err(|e| CliError::usage(format!("{name} is no list of vectors: {e}")))?;
    let results = Results::of(&vectors);
    match global.output {
        Format::Json => output::print_json(&results)?,
        Format::Table => output::print(&results.in_words())?,
    }
    let missed = results.systems.values().any(|count| count.missed > 0);
    Ok(if missed { Exit::Failed } else { Exit::Ok }.into())
}

/// What came of all of them.
#[derive(Serialize)]
struct Results<'a> {
    vectors: Vec<Line<'a>>,
    systems: BTreeMap<&'a str, Count>,
}

/// One vector.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    system: &'a str,
    source: &'a str,
    outcome: &'static str,
    /// What was missed, or why it is out of scope; empty when it was met.
    detail: String,
    /// What the vector expects beyond what is compared.
    uncompared: Vec<String>,
}

/// How many of a system.
#[derive(Clone, Copy, Default, Serialize)]
struct Count {
    met: u32,
    missed: u32,
    out_of_scope: u32,
}

impl<'a> Results<'a> {
    fn of(vectors: &'a [Vector]) -> Self {
        let mut systems: BTreeMap<&str, Count> = BTreeMap::new();
        let mut lines = Vec::new();
        for vector in vectors {
            let Ran { outcome, uncompared } = run::run(vector);
            let count = systems.entry(&vector.system).or_default();
            let (word, detail) = match outcome {
                Outcome::Met => {
                    count.met += 1;
                    ("met", String::new())
                }
                Outcome::Missed(detail) => {
                    count.missed += 1;
                    ("missed", detail)
                }
                Outcome::OutOfScope(detail) => {
                    count.out_of_scope += 1;
                    ("out_of_scope", detail)
                }
            };
            lines.push(Line {
                id: &vector.id,
                system: &vector.system,
                source: &vector.source,
                outcome: word,
                detail,
                uncompared,
            });
        }
        Self { vectors: lines, systems }
    }

    fn in_words(&self) -> String {
        let mut out: String = self.vectors.iter().map(Line::in_words).collect();
        let row = |(system, count): (&&str, &Count)| {
            let Count { met, missed, out_of_scope } = *count;
            [
                (*system).to_owned(),
                met.to_string(),
                missed.to_string(),
                out_of_scope.to_string(),
                (met + missed + out_of_scope).to_string(),
            ]
        };
        let rows = self.systems.iter().map(row).collect();
        out.push('\n');
        out.push_str(&output::table(["SYSTEM", "MET", "MISSED", "OUT OF SCOPE", "ALL"], rows));
        out
    }
}

impl Line<'_> {
    fn in_words(&self) -> String {
        let outcome = self.outcome.replace('_', " ");
        let mut line = format!("{outcome:<12}  {}", self.id);
        if !self.detail.is_empty() {
            line.push_str(&format!(": {}", self.detail.replace('\n', "; ")));
        }
        if !self.uncompared.is_empty() {
            line.push_str(&format!(" (not compared: {})", self.uncompared.join(", ")));
        }
        line + "\n"
    }
}

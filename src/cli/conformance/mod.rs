//! `reprise conformance`: cases of other systems against the rule.

mod compare;
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
use vector::Read;

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
    outcome: Kind,
    /// What was missed, or why it is out of scope; empty when it was met.
    detail: String,
    /// What the vector expects beyond what is compared.
    uncompared: Vec<String>,
}

/// How a vector went, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Met,
    Missed,
    OutOfScope,
}

impl Kind {
    const fn in_words(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::OutOfScope => "out of scope",
        }
    }
}

/// How many of a system.
#[derive(Clone, Copy, Default, Serialize)]
struct Count {
    met: u32,
    missed: u32,
    out_of_scope: u32,
}

impl Count {
    const fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Met => self.met += 1,
            Kind::Missed => self.missed += 1,
            Kind::OutOfScope => self.out_of_scope += 1,
        }
    }
}

impl<'a> Results<'a> {
    fn of(vectors: &'a [Read]) -> Self {
        let mut systems: BTreeMap<&str, Count> = BTreeMap::new();
        let vectors: Vec<Line<'a>> = vectors.iter().map(Line::of).collect();
        for line in &vectors {
            systems.entry(line.system).or_default().count(line.outcome);
        }
        Self { vectors, systems }
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

impl<'a> Line<'a> {
    /// What cannot be read is missed: nobody knows what it expects.
    fn of(vector: &'a Read) -> Self {
        let (id, system, source, ran) = match vector {
            Ok(vector) => (&vector.id, &vector.system, vector.source.as_str(), run::run(vector)),
            Err(unreadable) => {
                let outcome = Outcome::Missed(unreadable.problem.clone());
                (&unreadable.id, &unreadable.system, "", Ran { outcome, uncompared: Vec::new() })
            }
        };
        let (outcome, detail) = match ran.outcome {
            Outcome::Met => (Kind::Met, String::new()),
            Outcome::Missed(detail) => (Kind::Missed, detail),
            Outcome::OutOfScope(detail) => (Kind::OutOfScope, detail),
        };
        Self { id, system, source, outcome, detail, uncompared: ran.uncompared }
    }

    fn in_words(&self) -> String {
        let mut line = format!("{:<12}  {}", self.outcome.in_words(), self.id);
        if !self.detail.is_empty() {
            line.push_str(&format!(": {}", self.detail.replace('\n', "; ")));
        }
        if !self.uncompared.is_empty() {
            line.push_str(&format!(" (not compared: {})", self.uncompared.join(", ")));
        }
        line + "\n"
    }
}

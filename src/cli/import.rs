//! `reprise policy import`: retry configuration of other systems as a file of
//! policies.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{
    Global,
    error::CliError,
    exit::Exit,
    output::{self, Format},
};
use crate::{
    dialect::{self, Imported, ImportedPolicy, Note, Reading, System, Unit},
    domain::policy::spec::PolicySpec,
};

/// Which file, of which system.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// The system it was written for
    #[arg(long, value_name = "SYSTEM", value_parser = system)]
    from: System,
    /// Decide as the system really does, where its documentation says otherwise
    #[arg(long)]
    faithful: bool,
    /// The file, in the system's own form
    file: PathBuf,
}

fn system(name: &str) -> Result<System, String> {
    System::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = System::ALL.iter().map(|system| system.name()).collect();
        format!("accepted: {}", names.join(", "))
    })
}

/// Reads the file and writes the policies to stdout.
pub fn run(global: &Global, args: &ImportArgs) -> Result<ExitCode, CliError> {
    let name = args.file.display().to_string();
    let text = fs::read_to_string(&args.file)
        .map_err(|e| CliError::usage(format!("could not read {name}: {e}")))?;
    let reading = if args.faithful { Reading::Faithful } else { Reading::Documented };
    let imported = dialect::import(args.from, reading, &name, &text).map_err(|problems| {
        let error = CliError::usage(format!("could not import {name} from {}", args.from.title()));
        problems.in_full().lines().fold(error, |error, line| error.detail(line))
    })?;
    match global.output {
        Format::Json => output::print_json(&shown(&imported))?,
        Format::Table => output::print(&(heading(args, &name) + &imported.yaml()))?,
    }
    Ok(Exit::Ok.into())
}

fn heading(args: &ImportArgs, name: &str) -> String {
    let system = args.from.title();
    let how = if args.faithful {
        "to decide as it does"
    } else {
        "to decide as its documentation promises"
    };
    format!("# Imported from {system} ({name}), {how}.\n")
}

/// What was imported, for machines.
#[derive(Serialize)]
struct Shown<'a> {
    policies: Vec<ShownPolicy<'a>>,
    notes: &'a [Note],
}

#[derive(Serialize)]
struct ShownPolicy<'a> {
    name: &'a str,
    /// Of a run: what each further run begins with.
    resume: Option<&'static str>,
    policy: &'a PolicySpec,
    notes: &'a [Note],
}

fn shown(imported: &Imported) -> Shown<'_> {
    let policy = |policy: &'_ ImportedPolicy| match policy.unit {
        Unit::Step => None,
        Unit::Run(resume) => Some(resume.name()),
    };
    let policies = imported.policies.iter().map(|imported| ShownPolicy {
        name: &imported.name,
        resume: policy(imported),
        policy: &imported.spec,
        notes: &imported.notes,
    });
    Shown { policies: policies.collect(), notes: &imported.notes }
}

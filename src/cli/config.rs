//! `reprise config`: what a server would run with, without running it.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;

use super::{
    Global,
    error::CliError,
    exit::Exit,
    output::{self, Format},
    serve::{GivenSettings, wrong},
};
use crate::config::{
    layers::{DEFAULTS, Flag},
    policy_file::PolicyFile,
    problem::Problems,
    settings::load,
};

/// Show or check the settings of a server
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show every setting with its default and what it weighs
    Default,
    /// Check settings and the policy file they name, without starting anything:
    /// everything wrong at once, or the settings in force
    Check(Box<CheckArgs>),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// Configuration file, as with --config
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    #[command(flatten)]
    given: GivenSettings,
    /// YAML file of policies to check as well [policies.file]
    #[arg(long, value_name = "FILE")]
    policies: Option<String>,
}

/// Runs the subcommand.
pub fn run(global: &Global, args: ConfigArgs) -> Result<ExitCode, CliError> {
    match args.command {
        ConfigCommand::Default => output::print(DEFAULTS)?,
        ConfigCommand::Check(args) => check(global.output, *args)?,
    }
    Ok(Exit::Ok.into())
}

fn check(format: Format, args: CheckArgs) -> Result<(), CliError> {
    let mut sources = args.given.sources();
    sources.file = args.file.or(sources.file);
    let policies = args.policies.clone().map(PathBuf::from);
    sources.flags.extend(args.policies.map(|value| Flag {
        name: "--policies",
        path: "policies.file".to_owned(),
        value,
    }));
    let loaded = load(&sources);
    // The policies are checked even where the settings are wrong.
    let policies = policies.or_else(|| loaded.as_ref().ok()?.settings.policy_file.clone());
    let checked = policies.map_or(Ok(()), |file| PolicyFile::read(&file).map(drop));
    let problems: Vec<_> = [loaded.as_ref().err(), checked.as_ref().err()]
        .into_iter()
        .flatten()
        .flat_map(|problems| problems.0.clone())
        .collect();
    let Ok(loaded) = loaded else { return Err(wrong(&Problems(problems))) };
    if !problems.is_empty() {
        return Err(wrong(&Problems(problems)));
    }
    for warning in &loaded.warnings {
        output::message(&format!("reprise: warning: {warning}"));
    }
    match format {
        Format::Table => output::print(&loaded.layers.to_toml()),
        Format::Json => output::print_json(&loaded.layers.to_json()),
    }
}

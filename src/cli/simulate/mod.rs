//! `reprise simulate`: what rules of retrying do to a target that breaks.

mod storm;

use std::process::ExitCode;

use super::{Global, error::CliError};

/// What is simulated.
#[derive(Debug, clap::Subcommand)]
pub enum SimulateCommand {
    /// A fleet of steps and a target that breaks, under Reprise and under what
    /// libraries do, side by side
    Storm(storm::StormArgs),
}

/// Simulates, and writes what came of it.
pub fn run(global: &Global, command: SimulateCommand) -> Result<ExitCode, CliError> {
    match command {
        SimulateCommand::Storm(args) => storm::run(global, &args),
    }
}

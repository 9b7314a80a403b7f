//! `reprise store`: the store itself, where no service is asked.

mod copy;
mod pause;
mod place;

use std::process::ExitCode;

use clap::Subcommand;

use super::{Global, error::CliError};

/// What can be done with stores.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy everything of a store into a new one
    Copy(copy::CopyArgs),
    /// Let nothing in Redis change until `reprise store resume`
    Pause(pause::PauseArgs),
    /// Let Redis change again
    Resume(pause::ResumeArgs),
}

/// Does what was asked and shows the result.
pub async fn run(global: &Global, command: StoreCommand) -> Result<ExitCode, CliError> {
    match command {
        StoreCommand::Copy(args) => copy::run(global, args).await,
        StoreCommand::Pause(args) => pause::pause(global, args).await,
        StoreCommand::Resume(args) => pause::resume(global, args).await,
    }
}

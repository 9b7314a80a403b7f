//! `reprise store`: the store itself, where no service is asked.

mod acl;
mod copy;
mod pause;
mod place;

use std::process::ExitCode;

use clap::Subcommand;

use super::{Global, error::CliError, exit::Exit};

/// What can be done with stores.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Print the ACL rules of Redis that suffice for a server, and no more
    Acl(acl::AclArgs),
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
        StoreCommand::Acl(args) => acl::run(global, &args).map(|()| Exit::Ok.into()),
        StoreCommand::Copy(args) => copy::run(global, args).await,
        StoreCommand::Pause(args) => pause::pause(global, args).await,
        StoreCommand::Resume(args) => pause::resume(global, args).await,
    }
}

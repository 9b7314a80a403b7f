//! `reprise store`: the store itself, apart from any server.

mod acl;

use std::process::ExitCode;

use clap::Subcommand;

use super::{Global, error::CliError, exit::Exit};

/// What can be done about a store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Print the ACL rules of Redis that suffice for a server, and no more
    Acl(acl::AclArgs),
}

/// Runs the subcommand.
pub fn run(global: &Global, command: StoreCommand) -> Result<ExitCode, CliError> {
    match command {
        StoreCommand::Acl(args) => acl::run(global, &args)?,
    }
    Ok(Exit::Ok.into())
}

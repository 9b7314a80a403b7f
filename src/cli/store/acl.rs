//! `reprise store acl`: the rights that a server needs in Redis.

use serde::Serialize;

use super::super::{
    Global,
    error::CliError,
    output::{self, Format},
};
use crate::store::redis::commands;

/// Print the ACL rules of Redis that suffice for a server, and no more
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The user has no password from this, and so cannot log in before it is given one:
ACL SETUSER reprise '>...', the same as in the file of password_file.
Sentinels have accounts of their own, which this is not about.")]
pub struct AclArgs {
    /// Name of the user
    #[arg(long, default_value = "reprise", value_name = "NAME", value_parser = user)]
    user: String,
}

/// What the server may do in Redis.
#[derive(Debug, Serialize)]
struct Acl<'a> {
    user: &'a str,
    keys: String,
    commands: Vec<String>,
    /// What creates the user, or holds one that there is to these rights.
    command: String,
}

/// Runs the subcommand.
pub fn run(global: &Global, args: &AclArgs) -> Result<(), CliError> {
    let command = format!("ACL SETUSER {} on {}", args.user, commands::rules());
    match global.output {
        Format::Table => output::print(&format!("{command}\n")),
        Format::Json => output::print_json(&Acl {
            user: &args.user,
            keys: commands::keys(),
            commands: commands::all().into_iter().collect(),
            command,
        }),
    }
}

/// A name that is one word of the command.
fn user(text: &str) -> Result<String, String> {
    let is_word = |char: char| char.is_ascii_graphic() && !matches!(char, '"' | '\'' | '\\');
    match !text.is_empty() && text.chars().all(is_word) {
        true => Ok(text.to_owned()),
        false => Err("accepted: letters, digits and signs without spaces or quotes".to_owned()),
    }
}

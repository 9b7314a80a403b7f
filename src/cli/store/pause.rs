//! `reprise store pause` and `resume`: nothing in a shared store changes for a
//! while, whatever its servers are asked.

use std::{process::ExitCode, time::Duration};

use super::{
    super::{Global, error::CliError, exit::Exit, output, serve::sentence, text},
    place::{self, Place},
};
use crate::store::{
    StoreError,
    redis::{Redis, copy::Standstill},
};

/// What is paused, and how long.
#[derive(Debug, clap::Args)]
pub struct PauseArgs {
    /// Address of Redis
    #[arg(value_name = "STORE")]
    store: String,
    /// How long at most [default: until `reprise store resume`]
    #[arg(long = "for", value_name = "SPAN", value_parser = text::parse_positive_duration)]
    length: Option<Duration>,
}

/// What goes on.
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// Address of Redis
    #[arg(value_name = "STORE")]
    store: String,
}

/// Pauses every namespace.
pub async fn pause(global: &Global, args: PauseArgs) -> Result<ExitCode, CliError> {
    let store = open(global, &args.store).await?;
    let met = store.pause(args.length).await.map_err(|error| wrong("pause", &error))?;
    told(&met, "paused")
}

/// Lets every namespace go on.
pub async fn resume(global: &Global, args: ResumeArgs) -> Result<ExitCode, CliError> {
    let store = open(global, &args.store).await?;
    let met = store.resume().await.map_err(|error| wrong("resume", &error))?;
    told(&met, "not paused any more")
}

async fn open(global: &Global, text: &str) -> Result<Redis, CliError> {
    let Place::Redis(address) = Place::parse("STORE", text)? else {
        let told = CliError::usage("an embedded store has one server, and is closed with it");
        return Err(told.detail("accepted: an address of Redis such as redis://127.0.0.1"));
    };
    let opened = Redis::existing(place::redis(*address, global.call_timeout)).await;
    opened.map_err(|error| place::not_reached("open the store", &error))
}

fn wrong(doing: &str, error: &StoreError) -> CliError {
    CliError::new(
        place::exit_of(error),
        format!("could not {doing} the store: {}", sentence(error)),
    )
}

fn told(met: &Standstill, so: &str) -> Result<ExitCode, CliError> {
    output::message(&format!("reprise: {} namespaces are {so}", met.namespaces.len()));
    if met.held.is_empty() {
        return Ok(Exit::Ok.into());
    }
    let count = met.held.len();
    let error = CliError::new(Exit::Conflict, format!("{count} namespaces are left as they were"));
    let detail = |error: CliError, (name, pause): &_| error.detail(format!("{name}: {pause}"));
    Err(met.held.iter().fold(error, detail))
}

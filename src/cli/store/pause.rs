//! `reprise store pause` and `resume`: nothing in a shared store changes for a
//! while, whatever its servers are asked.

use std::{process::ExitCode, time::Duration};

use serde::Serialize;

use super::{
    super::{
        Global,
        error::CliError,
        exit::Exit,
        output::{self, Format},
        serve::sentence,
        text,
    },
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
    let so = match args.length {
        Some(_) => "paused; `reprise store resume` ends that before its time",
        None => "paused until `reprise store resume`",
    };
    show(global, &met, so)
}

/// Lets every namespace go on.
pub async fn resume(global: &Global, args: ResumeArgs) -> Result<ExitCode, CliError> {
    let store = open(global, &args.store).await?;
    let met = store.resume().await.map_err(|error| wrong("resume", &error))?;
    show(global, &met, "not paused any more")
}

async fn open(global: &Global, text: &str) -> Result<Redis, CliError> {
    let Place::Redis(address) = Place::parse("STORE", text)? else {
        let told =
            CliError::usage("an embedded store is not paused: end its server, and it is closed");
        return Err(told.detail("accepted: an address of Redis such as redis://127.0.0.1"));
    };
    let opened = Redis::existing(place::redis(*address, global.call_timeout)).await;
    opened.map_err(|error| place::not_reached("open the store", &error))
}

fn wrong(doing: &str, error: &StoreError) -> CliError {
    let told = format!("could not {doing} the store: {}", sentence(error));
    CliError::new(place::exit_of(error), told).next("run it again: what is done already stays so")
}

/// What was met, as it is shown.
#[derive(Serialize)]
struct Summary {
    namespaces: Vec<String>,
    held: Vec<Held>,
}

/// A namespace where nothing was done, and why.
#[derive(Serialize)]
struct Held {
    namespace: String,
    why: String,
}

impl Summary {
    fn of(met: &Standstill) -> Self {
        let held = met.held.iter().map(|(name, pause)| {
            let (namespace, why) = (name.to_string(), pause.to_string());
            Held { namespace, why }
        });
        let namespaces = met.namespaces.iter().map(ToString::to_string);
        Self { namespaces: namespaces.collect(), held: held.collect() }
    }
}

fn show(global: &Global, met: &Standstill, so: &str) -> Result<ExitCode, CliError> {
    let summary = Summary::of(met);
    output::message(&format!("reprise: {} namespaces are {so}", summary.namespaces.len()));
    if global.output == Format::Json {
        output::print_json(&summary)?;
    }
    if summary.held.is_empty() {
        return Ok(Exit::Ok.into());
    }
    let count = summary.held.len();
    let error = CliError::new(Exit::Conflict, format!("{count} namespaces are left as they were"))
        .next("wait for the copy to end, and try again");
    let detail =
        |error: CliError, held: &Held| error.detail(format!("{}: {}", held.namespace, held.why));
    Err(summary.held.iter().fold(error, detail))
}

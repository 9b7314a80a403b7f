//! `reprise bench`: what the service costs above the transport it stands on.
//!
//! Absolute figures say as much about a machine as about a server. So every load
//! also runs against a bare tonic echo with the same messages, in turns within
//! one run, and what counts is the ratio.
#![allow(
    clippy::disallowed_methods,
    reason = "measures processes from outside, by the time and chance of the machine"
)]

mod cases;
mod client;
mod echo;
mod figures;
mod load;
mod naive;
mod pacer;
mod process;
mod redis_server;
mod report;
mod run;
mod tally;
mod targets;
mod workload;

use std::{
    fmt,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use self::{client::Address, echo::Replies, load::Arrivals, naive::Naive, redis_server::Redis};
use super::{error::CliError, exit::Exit, output::Format};

/// Measure the service against a bare gRPC echo.
///
/// Starts both servers by itself, each with a store of its own that is removed
/// afterwards. Progress goes to standard error.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    helper: Option<Helper>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Subcommand)]
enum Helper {
    /// The baseline: answers every call with the same reply.
    #[command(hide = true)]
    EchoServer {
        /// Where to listen: host:port or unix:/path.
        #[arg(long)]
        listen: Address,
        /// What to answer, in the form of `echo::Replies`.
        #[arg(long)]
        replies: Option<PathBuf>,
        /// Count each report with a script on this Redis first.
        #[arg(long)]
        redis: Option<String>,
        /// Answer on as many threads as there are cores.
        #[arg(long)]
        threads: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Measure only this; may be given several times. Default: everything but
    /// "echo", which measures the baseline against itself.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = name)]
    only: Vec<&'static str>,

    /// Short rounds, for a look or a test rather than for figures.
    #[arg(long)]
    quick: bool,

    /// Rounds of each load; figures are their medians. Default: 5, quick 2.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,

    /// Length of a round. Default: 2, quick 0.3.
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,

    /// Callers, each with one call at a time. Default: as the load says.
    #[arg(long, value_parser = at_least_one)]
    callers: Option<usize>,

    /// Connections that the callers share. Default: as the load says.
    #[arg(long, value_parser = at_least_one)]
    connections: Option<usize>,

    /// Calls a second in the open loop.
    #[arg(long, default_value = "5000", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: u32,

    /// When calls come in the open loop.
    #[arg(long, value_enum, default_value = "poisson")]
    arrivals: Arrivals,

    /// Equal seeds give equal loads.
    #[arg(long, default_value = "1")]
    seed: u64,

    /// Measure a server that runs already, host:port or unix:/path, under every
    /// load that does not ask for a store of its own.
    #[arg(long, value_name = "ADDR")]
    server: Option<Address>,

    /// Its process, so that its CPU and memory can be read.
    #[arg(long, value_name = "PID", requires = "server")]
    server_pid: Option<u32>,

    /// Measure the loads on Redis as well, at this address. What is in it stays;
    /// the steps of the loads are added. Its CPU is not read, and what it syncs is
    /// not changed.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "redis_server")]
    redis: Option<String>,

    /// Measure the loads on Redis as well, with this program of Redis or Valkey,
    /// started anew for each server.
    #[arg(long, value_name = "PROGRAM")]
    redis_server: Option<PathBuf>,

    /// Where stores are kept while they are measured. A disk, for the durable
    /// loads to mean anything. Default: the directory for temporary files.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Fail when a target is missed.
    #[arg(long)]
    check: bool,
}

impl Options {
    fn redis(&self) -> Option<Redis> {
        let at = self.redis.clone().map(Redis::At);
        at.or_else(|| self.redis_server.clone().map(Redis::Program))
    }
}

/// Why a run is worth nothing.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The runtime, or a helper, could not start.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A server could not be started, reached or read. The reason was printed.
    #[error("not measured: {names}")]
    Unmeasured {
        /// Which loads.
        names: String,
    },
    /// Calls failed. The figures were printed, and mean nothing.
    #[error("{failures} calls failed; the figures above are not those of a working server")]
    Failed {
        /// How many.
        failures: u64,
    },
    /// `--check` was given.
    #[error("{missed} targets were missed")]
    Missed {
        /// How many.
        missed: usize,
    },
}

/// Runs the benchmark and prints what it found. Blocks; makes a runtime of its
/// own, since that of a server would be measured along.
///
/// # Errors
///
/// When a server does not start or answer, when calls fail, and when a target is
/// missed that was to be checked.
pub fn run(args: Args, format: Format) -> Result<ExitCode, CliError> {
    measured(args, format)
        .map(|()| Exit::Ok.into())
        .map_err(|error| CliError::new(Exit::Failed, error.to_string()))
}

fn measured(args: Args, output: Format) -> Result<(), BenchError> {
    let runtime = runtime(&args).map_err(|source| BenchError::Io {
        doing: "could not start the runtime".to_owned(),
        source,
    })?;
    match args.helper {
        Some(Helper::EchoServer { listen, replies, redis, threads: _ }) => {
            let served = runtime.block_on(echo(&listen, replies.as_deref(), redis.as_deref()));
            served.map_err(|source| BenchError::Io {
                doing: format!("could not answer on {listen}"),
                source,
            })
        }
        None => runtime.block_on(measure(&args.options, output)),
    }
}

fn runtime(args: &Args) -> io::Result<tokio::runtime::Runtime> {
    let mut builder = match args.helper {
        Some(Helper::EchoServer { threads: true, .. }) => {
            tokio::runtime::Builder::new_multi_thread()
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    builder.enable_all().build()
}

async fn echo(listen: &Address, replies: Option<&Path>, redis: Option<&str>) -> io::Result<()> {
    let replies = replies.map_or_else(|| Ok(Replies::typical()), Replies::read)?;
    let naive = match redis {
        Some(address) => Some(Naive::connect(address).await?),
        None => None,
    };
    echo::serve(listen, replies, naive).await
}

async fn measure(options: &Options, output: Format) -> Result<(), BenchError> {
    let report = run::Run::new(options).report().await;
    match output {
        Format::Table => print(&report.to_string()),
        Format::Json => {
            print(&serde_json::to_string_pretty(&report).expect("figures are numbers and texts"))
        }
    }
    let failures =
        report.measurements.iter().map(|m| m.baseline.failures() + m.subject.failures()).sum();
    if 0 < failures {
        return Err(BenchError::Failed { failures });
    }
    if !report.unmeasured.is_empty() {
        let names: Vec<_> = report.unmeasured.iter().map(|one| one.name).collect();
        return Err(BenchError::Unmeasured { names: names.join(", ") });
    }
    let missed = report.targets.iter().filter(|target| !target.met).count();
    if options.check && 0 < missed {
        return Err(BenchError::Missed { missed });
    }
    Ok(())
}

/// Writes to standard output. Whoever closed it has read enough.
fn print(text: &str) {
    drop(writeln!(io::stdout().lock(), "{text}"));
}

/// Tells how far the run is.
fn say(progress: fmt::Arguments<'_>) {
    drop(writeln!(io::stderr().lock(), "{progress}"));
}

fn name(text: &str) -> Result<&'static str, String> {
    cases::names().find(|name| *name == text).ok_or_else(|| {
        let names: Vec<_> = cases::names().collect();
        format!("expected one of {}", names.join(", "))
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let length = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let bounds = Duration::from_millis(50)..=Duration::from_secs(3600);
    length
        .filter(|length| bounds.contains(length))
        .ok_or_else(|| "expected 0.05 to 3600 seconds".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=100_000).contains(count))
        .ok_or_else(|| "expected 1 to 100000".to_owned())
}

//! The command line: one file per subcommand. It knows the service by its
//! contract only, and the rule only where no service is asked.
#![expect(
    clippy::disallowed_methods,
    reason = "the edge: what a person waits for passes in real time"
)]

mod bench;
mod call;
mod client;
mod config;
mod conformance;
mod connect;
mod doctor;
mod error;
mod evaluate;
mod exec;
mod exit;
mod explain;
mod failure_flag;
mod giver;
mod healthcheck;
mod id;
mod import;
mod label;
mod namespace;
mod order;
mod output;
mod policy;
mod policy_file;
mod policy_flags;
mod run;
mod schedule;
mod serve;
mod simulate;
mod step;
mod store;
mod target;
mod target_flags;
mod target_health;
mod target_watch;
mod text;
mod view;
mod why;

use std::{process::ExitCode, time::Duration};

use clap::{CommandFactory as _, Parser, Subcommand};

use connect::Address;
use error::CliError;
use output::Format;

/// May this step be tried again, and when? One answer for every process.
#[derive(Debug, Parser)]
#[command(name = "reprise", version, after_help = exit::HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand takes.
#[derive(Clone, Debug, clap::Args)]
struct Global {
    /// Where the service listens: unix:/path, http://host:port or host:port
    /// [default: $XDG_RUNTIME_DIR/reprise.sock or /run/reprise/reprise.sock if
    /// it exists, else http://127.0.0.1:7070]
    #[arg(long, global = true, env = "REPRISE_ADDR", hide_env_values = true, value_name = "ADDR")]
    addr: Option<Address>,
    /// The namespace
    #[arg(
        long,
        short,
        global = true,
        env = "REPRISE_NAMESPACE",
        hide_env_values = true,
        default_value = "default",
        value_name = "NAME"
    )]
    namespace: String,
    /// How data is written
    #[arg(long, short, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// How long one call may take
    #[arg(
        long,
        global = true,
        env = "REPRISE_CALL_TIMEOUT",
        hide_env_values = true,
        default_value = "5s",
        value_parser = text::parse_positive_duration,
        value_name = "SPAN"
    )]
    call_timeout: Duration,
}

impl Global {
    /// The address that was given, or the one that fits here.
    fn address(&self) -> Address {
        self.addr.clone().unwrap_or_else(Address::default_here)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command as a step, and again for as long as the service says so
    Exec(Box<exec::ExecArgs>),
    /// Claim due steps of a queue and run a command for each
    Worker(Box<exec::WorkerArgs>),
    /// Run a command as a run, and show runs
    #[command(subcommand)]
    Run(run::RunCommand),
    /// Show, explain, list and order steps
    #[command(subcommand)]
    Step(Box<step::StepCommand>),
    /// List the steps that wait for a person, and answer them
    #[command(subcommand)]
    Hold(order::HoldCommand),
    /// Check, apply, show and delete policies, and see the waits they give
    #[command(subcommand)]
    Policy(Box<policy::PolicyCommand>),
    /// Apply, create, change, show, pause and delete targets and their limits
    #[command(subcommand)]
    Target(Box<target::TargetCommand>),
    /// Create, show, change and delete namespaces
    #[command(subcommand)]
    Namespace(Box<namespace::NamespaceCommand>),
    /// Decide a sequence of failures without touching any step
    Evaluate(Box<evaluate::EvaluateArgs>),
    /// Decide cases of other systems as their imported policies do, and compare
    Conformance(conformance::ConformanceArgs),
    /// Find out why the service does not answer as it should
    Doctor,
    /// End with 0 when the service is ready, for probes
    Healthcheck,
    /// Write a completion script for a shell to stdout
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Start the service
    Serve(Box<serve::ServeArgs>),
    /// Measure the service against a bare gRPC echo
    Bench(Box<bench::Args>),
    /// See what rules of retrying do to a target that breaks, in virtual time
    #[command(subcommand)]
    Simulate(Box<simulate::SimulateCommand>),
    /// Show or check the settings of a server
    Config(config::ConfigArgs),
    /// Set up, copy or pause the store that several servers share
    #[command(subcommand)]
    Store(Box<store::StoreCommand>),
}

/// Parses the command line, does what it says and turns the result into an
/// exit code.
pub fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let done = match command {
        Command::Exec(args) => asking(exec::run(&global, *args)),
        Command::Worker(args) => asking(exec::work(&global, *args)),
        Command::Run(command) => asking(run::run(&global, command)),
        Command::Step(command) => asking(step::run(&global, *command)),
        Command::Hold(command) => asking(order::hold(&global, command)),
        Command::Policy(command) => asking(policy::run(&global, *command)),
        Command::Target(command) => asking(target::run(&global, *command)),
        Command::Namespace(command) => asking(namespace::run(&global, *command)),
        Command::Evaluate(args) => asking(evaluate::run(&global, *args)),
        Command::Conformance(args) => conformance::run(&global, &args),
        Command::Doctor => asking(doctor::run(&global)),
        Command::Healthcheck => asking(healthcheck::run(&global)),
        Command::Completions { shell } => completions(shell),
        Command::Serve(args) => serve::run(*args),
        Command::Bench(args) => bench::run(*args, global.output),
        Command::Simulate(command) => simulate::run(&global, *command),
        Command::Store(command) => asking(store::run(&global, *command)),
        Command::Config(args) => config::run(&global, args),
    };
    done.unwrap_or_else(|error| {
        output::error(&error);
        error.exit.into()
    })
}

/// Runs a subcommand that asks the service.
fn asking(command: impl Future<Output = Result<ExitCode, CliError>>) -> Result<ExitCode, CliError> {
    let runtime = connect::runtime()?;
    let done = runtime.block_on(command);
    // A thread may still pass a command's stderr on; nothing waits for it.
    runtime.shutdown_background();
    done
}

fn completions(shell: clap_complete::Shell) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "reprise", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(exit::Exit::Ok.into())
}

//! `reprise serve`: the service itself.

use std::{ffi::OsString, io::IsTerminal as _, path::PathBuf, process::ExitCode};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::{error::CliError, exit::Exit, output};
use crate::{
    config::{
        layers::{Flag, Sources},
        problem::Problems,
        settings::{Loaded, LogFormat, LogSettings, Settings, load},
    },
    server::{Server, ServerError},
};

/// Overrides the filter of the log.
const LOG_VARIABLE: &str = "REPRISE_LOG";

/// Start the service
#[derive(Debug, clap::Args)]
#[command(
    after_help = "`reprise config default` shows every setting with its default and what it weighs."
)]
pub struct ServeArgs {
    #[command(flatten)]
    given: GivenSettings,
    /// Where to listen: IP:PORT or unix:PATH; may be repeated. Port 0 lets the
    /// system choose [server.listen]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Where data is kept: embedded, memory, or an address of Redis such as
    /// redis://127.0.0.1 [store.kind]
    #[arg(long, value_name = "KIND")]
    store: Option<String>,
    /// Directory of the embedded store [store.dir]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// When a change is acknowledged: after it is synced to disk, or before,
    /// with a sync every 50 ms [store.fsync]
    #[arg(long, value_parser = ["always", "interval"])]
    fsync: Option<String>,
    /// Where metrics and probes are served, or "none" [metrics.listen]
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
    /// Listen on addresses that are not loopback, although there is neither TLS
    /// nor identity [server.insecure]
    #[arg(long)]
    insecure: bool,
    /// YAML file of policies and targets to apply, at the start and whenever it changes
    /// [policies.file]
    #[arg(long, value_name = "FILE")]
    policies: Option<String>,
}

/// Settings given all at once, or one by one by path.
#[derive(Clone, Debug, clap::Args)]
pub struct GivenSettings {
    /// Configuration file
    #[arg(long, env = "REPRISE_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Any setting by its path, such as server.drain=5s; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (path, value) =
        text.split_once('=').ok_or("accepted: PATH=VALUE, such as server.drain=5s")?;
    Ok((path.trim().to_owned(), value.to_owned()))
}

impl GivenSettings {
    /// What is laid over the defaults: file, environment, and what was set.
    pub fn sources(self) -> Sources {
        let set = |(path, value)| Flag { name: "--set", path, value };
        let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        Sources { file: self.config, variables, flags: self.set.into_iter().map(set).collect() }
    }
}

impl ServeArgs {
    /// What is laid over the defaults. A flag of its own wins over `--set`.
    fn sources(self) -> Sources {
        let listen = (!self.listen.is_empty()).then(|| self.listen.join(","));
        let metrics =
            self.metrics.map(|metrics| if metrics == "none" { String::new() } else { metrics });
        let given = [
            ("--listen", "server.listen", listen),
            ("--store", "store.kind", self.store),
            ("--data", "store.dir", self.data),
            ("--fsync", "store.fsync", self.fsync),
            ("--metrics", "metrics.listen", metrics),
            ("--insecure", "server.insecure", self.insecure.then(|| "true".to_owned())),
            ("--policies", "policies.file", self.policies),
        ];
        let flags = given.into_iter().filter_map(|(name, path, value)| {
            Some(Flag { name, path: path.to_owned(), value: value? })
        });
        let mut sources = self.given.sources();
        sources.flags.extend(flags);
        sources
    }
}

/// Runs the service until it is told to stop.
pub fn run(args: ServeArgs) -> Result<ExitCode, CliError> {
    let Loaded { settings, log, warnings, .. } =
        load(&args.sources()).map_err(|problems| wrong(&problems))?;
    start_logging(&log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // One thread: handing a request to another costs as much as the request.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Exit::Failed, format!("could not start: {error}")))?;
    runtime.block_on(serve(&settings)).map_err(error)?;
    Ok(Exit::Ok.into())
}

async fn serve(settings: &Settings) -> Result<(), ServerError> {
    let server = Server::start(settings).await?;
    let addresses = server.addresses();
    for address in &addresses.service {
        let _ = output::print(&format!("listening on {address}\n"));
    }
    if let Some(metrics) = addresses.metrics {
        let _ = output::print(&format!("metrics on http://{metrics}/metrics\n"));
    }
    let shutdown = CancellationToken::new();
    tokio::spawn(stop_on_signal(shutdown.clone()));
    let drained = server.serve(shutdown).await?;
    tracing::info!(?drained, "stopped");
    Ok(())
}

/// The first signal drains; the second ends the process at once.
async fn stop_on_signal(shutdown: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be heard; only killing ends this process");
        return;
    };
    let mut asked = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    asked().await;
    tracing::info!("stopping: calls in flight are finished; a second signal ends at once");
    shutdown.cancel();
    asked().await;
    #[expect(clippy::exit, reason = "asked for twice: nothing is waited for any more")]
    std::process::exit(130);
}

fn start_logging(settings: &LogSettings) {
    let filter =
        EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(&settings.filter));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start within one process, as in tests, keeps the first's.
    let _ = match settings.format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}

/// Settings that cannot be, each with its place.
pub fn wrong(problems: &Problems) -> CliError {
    let error = CliError::usage("the settings are not right");
    problems.0.iter().fold(error, |error, problem| error.detail(problem.in_full()))
}

fn error(error: ServerError) -> CliError {
    CliError::new(Exit::Failed, sentence(&error))
}

/// An error with its causes, in one line.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !sentence.contains(&told) {
            sentence.push_str(": ");
            sentence.push_str(&told);
        }
        cause = error.source();
    }
    sentence
}

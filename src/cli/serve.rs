//! `reprise serve`: the service itself.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{error::CliError, exit::Exit, output};
use crate::{
    config::settings::{Settings, StoreSettings},
    grpc::{admission::AdmissionSettings, listener::Address},
    server::{Server, ServerError},
    store::embedded::{Embedded, log::Fsync},
};

/// Start the service
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Where to listen: IP:PORT or unix:PATH; may be repeated. Port 0 lets the
    /// system choose
    #[arg(long, value_name = "ADDR", default_values = ["127.0.0.1:7070"])]
    listen: Vec<Address>,
    /// Where data is kept
    #[arg(long, value_enum, default_value_t = StoreKind::Embedded)]
    store: StoreKind,
    /// Directory of the embedded store
    #[arg(long, value_name = "DIR", default_value_os_t = Embedded::default_dir().to_owned())]
    data: PathBuf,
    /// When a change is acknowledged: after it is synced to disk, or before,
    /// with a sync every 50 ms
    #[arg(long, value_enum, default_value_t = FsyncKind::Always)]
    fsync: FsyncKind,
    /// Where metrics and probes are served, or "none"
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7071", value_parser = metrics_address)]
    metrics: MetricsAddress,
    /// Listen on addresses that are not loopback, although there is neither TLS
    /// nor identity
    #[arg(long)]
    insecure: bool,
    /// YAML file of policies to apply, at the start and whenever it changes
    #[arg(long, value_name = "FILE")]
    policies: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    /// In this process, durable
    Embedded,
    /// Nowhere: it ends with the process
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FsyncKind {
    /// After it is synced to disk
    Always,
    /// When the operating system has it
    Interval,
}

#[derive(Clone, Copy, Debug)]
struct MetricsAddress(Option<SocketAddr>);

fn metrics_address(text: &str) -> Result<MetricsAddress, String> {
    if text == "none" {
        return Ok(MetricsAddress(None));
    }
    text.parse().map(Some).map(MetricsAddress).map_err(|_| "accepted: IP:PORT, or none".to_owned())
}

impl ServeArgs {
    fn settings(self) -> Settings {
        let fsync = match self.fsync {
            FsyncKind::Always => Fsync::Always,
            FsyncKind::Interval => Fsync::Interval(Duration::from_millis(50)),
        };
        let store = match self.store {
            StoreKind::Memory => StoreSettings::Memory,
            StoreKind::Embedded => {
                StoreSettings::Embedded { dir: self.data, fsync, size_max: None }
            }
        };
        Settings {
            listen: self.listen,
            socket_mode: 0o660,
            insecure: self.insecure,
            drain: Duration::from_secs(20),
            reflection: true,
            connections_max: 4096,
            metrics: self.metrics.0,
            store,
            policy_file: self.policies,
            admission: AdmissionSettings::default(),
        }
    }
}

/// Runs the service until it is told to stop.
pub fn run(args: ServeArgs) -> Result<ExitCode, CliError> {
    let settings = args.settings();
    start_logging();
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

fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("REPRISE_LOG")
        .unwrap_or_else(|_| "info".into());
    // A second start within one process, as in tests, keeps the first's.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
}

fn error(error: ServerError) -> CliError {
    CliError::new(Exit::Failed, sentence(&error))
}

/// An error with its causes, in one line.
fn sentence(error: &dyn std::error::Error) -> String {
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

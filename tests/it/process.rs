//! The server as a process of its own, and channels to it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use reprise::proto::retry_service_client::RetryServiceClient;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::UnixStream,
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use tonic::transport::{Channel, Endpoint, Uri};

/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// `reprise serve` on `data`, without metrics.
pub fn serve(data: &Path, listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    command
        .args(["serve", "--metrics", "none", "--listen", listen, "--data"])
        .arg(data)
        .env("REPRISE_LOG", "info")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a server that is expected not to start: exit code and stderr.
pub async fn refusal(mut command: Command) -> (Option<i32>, String) {
    let ended = timeout(PATIENCE, command.output()).await.expect("a server that cannot start ends");
    let Output { status, stderr, .. } = ended.unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// A server that runs until it is killed, or dropped.
pub struct Server {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: PathBuf,
    /// Where it listens; known once it does.
    pub address: String,
}

impl Server {
    /// Starts a server and waits until it listens. What it logs goes to
    /// `stderr` beside its data.
    pub async fn start(data: &Path, listen: &str) -> Self {
        Self::start_with(data, serve(data, listen)).await
    }

    /// The same with a command of one's own.
    pub async fn start_with(data: &Path, command: Command) -> Self {
        let mut server = Self::spawn(data, command);
        server.listening().await;
        server
    }

    /// Starts a server, and does not wait for it.
    pub fn spawn(data: &Path, mut command: Command) -> Self {
        let stderr = data.with_extension("stderr");
        let mut child = command.stderr(File::create(&stderr).unwrap()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdout, stderr, address: String::new() }
    }

    /// Waits until it says where it listens.
    pub async fn listening(&mut self) {
        let line =
            timeout(PATIENCE, self.stdout.next_line()).await.expect("a server starts").unwrap();
        let address = line.as_deref().and_then(|line| line.strip_prefix("listening on "));
        self.address = address
            .unwrap_or_else(|| panic!("it said {line:?} and logged {}", self.logged()))
            .to_owned();
    }

    /// A channel to it.
    pub fn channel(&self) -> Channel {
        channel(&self.address)
    }

    /// The workers' calls.
    pub fn client(&self) -> RetryServiceClient<Channel> {
        RetryServiceClient::new(self.channel())
    }

    /// What it has logged.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Ends it at once, as a machine without memory would.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("a server that was told to stop ends")
            .unwrap()
    }
}

/// A channel that connects with its first call, and again when it was cut.
pub fn channel(address: &str) -> Channel {
    let Some(path) = address.strip_prefix("unix:") else {
        return Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    };
    let path = PathBuf::from(path);
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

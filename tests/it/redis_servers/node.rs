//! One server process, and the administrator's way to it.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisResult, cmd};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Kind, address, until};

/// What every server is told. No snapshots: they cost forks, and what is to
/// survive is in the append-only file.
const EVERYWHERE: &[&str] = &[
    "daemonize no",
    "protected-mode no",
    "save \"\"",
    "enable-debug-command yes",
    // Replicas would else wait five seconds for more of their kind.
    "repl-diskless-sync-delay 0",
];

/// What a server says goes into this file beside its data.
const LOG: &str = "log";
/// What its own clock says, as an offset in the words of libfaketime.
const CLOCK: &str = "clock";
/// Gives a process a clock of its own.
const FAKETIME: &str =
    ".tools/servers/redis-7.0/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// Of each server, when a test fails.
const LINES_SHOWN: usize = 40;

/// Where a server listens, and its administrator's client.
///
/// Stays valid while the server is down, and when it comes back.
#[derive(Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    client: Client,
}

impl Endpoint {
    pub const fn new(address: SocketAddr, client: Client) -> Self {
        Self { address, client }
    }

    /// One that takes everybody for its administrator.
    pub fn open(address: SocketAddr) -> Self {
        Self::new(address, Client::open(format!("redis://{address}")).unwrap())
    }

    /// A connection of its own, more patient than a client's.
    pub async fn connect(&self) -> RedisResult<redis::aio::MultiplexedConnection> {
        let patient =
            AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        self.client.get_multiplexed_async_connection_with_config(&patient).await
    }

    /// One command, its words parted by spaces.
    pub async fn call<T: FromRedisValue>(&self, command: &str) -> RedisResult<T> {
        let mut words = command.split_whitespace();
        let mut command = cmd(words.next().expect("a command has a name"));
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut self.connect().await?).await
    }

    /// A command that has to succeed.
    pub async fn tell(&self, command: &str) {
        self.call::<redis::Value>(command)
            .await
            .unwrap_or_else(|error| panic!("{} refused {command}: {error}", self.address));
    }

    /// A field of `INFO`, or of another answer in its form; `None` while the
    /// server does not answer.
    pub async fn field(&self, command: &str, name: &str) -> Option<String> {
        let info: String = self.call(command).await.ok()?;
        let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.to_owned());
        info.lines().find_map(value)
    }

    /// Whether it says that it takes writes; `false` while it does not answer.
    pub async fn is_primary(&self) -> bool {
        self.field("INFO replication", "role").await.as_deref() == Some("master")
    }
}

/// One server process with its configuration and its data. It ends, and they
/// are gone, when this is dropped, and also when the test itself is killed.
pub struct Node {
    kind: Kind,
    /// How it is run: as a server, or as a Sentinel.
    mode: Mode,
    folder: TempDir,
    endpoint: Endpoint,
    child: Option<Child>,
}

/// What the binary is started as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Server,
    /// With a clock of its own.
    ServerWithClock,
    Sentinel,
}

impl Node {
    /// Starts a server that listens on `endpoint` as `configuration` says, and
    /// waits until it answers. Its data is in `folder`.
    pub async fn start(
        kind: Kind,
        mode: Mode,
        folder: TempDir,
        endpoint: Endpoint,
        configuration: &[String],
    ) -> Self {
        let mut lines =
            vec![format!("bind {}", address::host()), format!("dir {}", folder.path().display())];
        if mode != Mode::Sentinel {
            lines.extend(EVERYWHERE.iter().map(|&line| line.to_owned()));
        }
        lines.extend_from_slice(configuration);
        fs::write(folder.path().join("conf"), lines.join("\n") + "\n").unwrap();
        let mut node = Self { kind, mode, folder, endpoint, child: None };
        node.restart().await;
        node
    }

    /// How its administrator reaches it.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where it listens, unless that is a Unix socket.
    pub const fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// Starts it again on the same data, port and configuration, and waits
    /// until it answers with its data loaded.
    pub async fn restart(&mut self) {
        self.kill();
        let (kind, endpoint, folder) = (self.kind, &self.endpoint, self.folder.path());
        let child = self.spawn();
        let child = self.child.insert(child);
        until(&format!("{kind} answers"), || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{kind} ended with {status} and said:\n{}", said(folder));
            }
            async { endpoint.call::<String>("PING").await.is_ok().then_some(()) }
        })
        .await;
    }

    /// Ends it at once, as a power failure of the process would, and waits
    /// until it is gone. Nothing happens when it is gone already.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Lets it stand still, with its connections open.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn cont(&self) {
        self.signal(Signal::CONT);
    }

    /// Sets its own clock off by so much: `+10m`, `-1h`. Before that it is right.
    pub fn set_clock(&self, offset: &str) {
        let file = self.folder.path().join(CLOCK);
        let whole = file.with_extension("new");
        fs::write(&whole, offset).unwrap();
        fs::rename(whole, file).unwrap();
    }

    /// The folder with its data.
    pub fn data(&self) -> &Path {
        self.folder.path()
    }

    fn spawn(&self) -> Child {
        let file = self.folder.path().join(LOG);
        let log = File::options().create(true).append(true).open(file).unwrap();
        // The kernel ends it with the thread that started it, whatever ends that.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(self.kind.binary()).arg("conf");
        if self.mode == Mode::Sentinel {
            command.arg("--sentinel");
        }
        if self.mode == Mode::ServerWithClock {
            let library = Path::new(env!("CARGO_MANIFEST_DIR")).join(FAKETIME);
            assert!(
                library.exists(),
                "libfaketime is not there; `make .tools/servers/stamp` brings it"
            );
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", self.folder.path().join(CLOCK))
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("setpriv, of util-linux, is there")
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("only what runs is sent a signal");
        kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
    }
}

impl Drop for Node {
    /// A test that fails shows the end of what its servers said.
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let (kind, address, said) = (self.kind, self.address(), said(self.folder.path()));
            let lines: Vec<_> = said.lines().collect();
            let end = lines.len().saturating_sub(LINES_SHOWN);
            eprintln!("{kind} at {address} said:\n{}\n", lines[end..].join("\n"));
        }
    }
}

/// All that a server has said, from every start.
fn said(folder: &Path) -> String {
    fs::read_to_string(folder.join(LOG)).unwrap_or_default()
}

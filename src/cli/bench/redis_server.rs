//! A Redis of its own for the loads that need one, and what the least work on it
//! costs.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use redis::aio::MultiplexedConnection;
use tokio::process::{Child, Command};

use super::process::{Cpu, Dir, free_port};

/// How long it may take to its first answer.
const START_MAX: Duration = Duration::from_secs(15);

/// The Redis that is measured.
#[derive(Clone, Debug)]
pub(super) enum Redis {
    /// One that runs already, at this address.
    At(String),
    /// This program, started anew for each server.
    Program(PathBuf),
}

/// What it writes to disk before or after its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aof {
    /// Nothing.
    Off,
    /// What was written, synced each second.
    EverySecond,
    /// What was written, synced before each answer.
    Always,
}

impl Aof {
    fn arguments(self) -> [&'static str; 4] {
        let (on, sync) = match self {
            Self::Off => ("no", "no"),
            Self::EverySecond => ("yes", "everysec"),
            Self::Always => ("yes", "always"),
        };
        ["--appendonly", on, "--appendfsync", sync]
    }
}

/// A Redis that was started here, ended with it. The process goes before its files.
pub(super) struct OwnRedis {
    pub(super) address: String,
    process: Child,
    _dir: Dir,
}

impl OwnRedis {
    pub(super) async fn start(program: &Path, aof: Aof, parent: &Path) -> io::Result<Self> {
        let dir = Dir::create(parent)?;
        let listen = free_port()?;
        let (host, port) = listen.rsplit_once(':').unwrap_or(("127.0.0.1", &listen));
        let mut command = Command::new(program);
        command
            .args([
                "--bind",
                host,
                "--port",
                port,
                "--save",
                "",
                "--maxmemory-policy",
                "noeviction",
            ])
            .args(aof.arguments())
            .arg("--dir")
            .arg(&dir.path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let process = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("could not start {}: {error}", program.display()))
        })?;
        let own = Self { address: format!("redis://{listen}"), process, _dir: dir };
        own.answers().await?;
        Ok(own)
    }

    async fn answers(&self) -> io::Result<()> {
        let since = Instant::now();
        while let Err(error) = self.connect().await {
            if START_MAX < since.elapsed() {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn connect(&self) -> io::Result<MultiplexedConnection> {
        connect(&self.address).await
    }

    /// CPU time that it has used.
    pub(super) fn cpu(&self) -> io::Result<Option<Cpu>> {
        self.process.id().map(|pid| Cpu::of(&pid.to_string())).transpose()
    }
}

/// A connection that many calls share.
pub(super) async fn connect(address: &str) -> io::Result<MultiplexedConnection> {
    let client = redis::Client::open(address).map_err(io::Error::other)?;
    client.get_multiplexed_async_connection().await.map_err(io::Error::other)
}

/// CPU of Redis for a SET of a record's size, µs: the median of several rounds of
/// pipelined ones, `length` in all.
pub(super) async fn set_cost(program: &Path, parent: &Path, length: Duration) -> io::Result<f64> {
    let own = OwnRedis::start(program, Aof::Off, parent).await?;
    let mut connection = own.connect().await?;
    let mut rounds = Vec::new();
    for round in 0..SET_ROUNDS {
        rounds.extend(set_round(&own, &mut connection, round, length / SET_ROUNDS).await?);
    }
    super::figures::median(rounds.into_iter())
        .ok_or_else(|| io::Error::other("the CPU of Redis cannot be read"))
}

async fn set_round(
    own: &OwnRedis,
    connection: &mut MultiplexedConnection,
    round: u32,
    length: Duration,
) -> io::Result<Option<f64>> {
    let (since, before) = (Instant::now(), own.cpu()?);
    let mut sets = 0_u32;
    while since.elapsed() < length {
        let mut pipe = redis::pipe();
        for at in 0..SETS_A_PIPE {
            pipe.set(format!("set:{round}:{}", sets + at), [0x5a_u8; RECORD_BYTES].as_slice())
                .ignore();
        }
        pipe.query_async::<()>(connection).await.map_err(io::Error::other)?;
        sets += SETS_A_PIPE;
    }
    let used = own.cpu()?.zip(before).map(|(after, before)| after.since(&before));
    Ok(used.map(|used| used.as_secs_f64() * 1e6 / f64::from(sets.max(1))))
}

/// Rounds of the measurement: it swings.
const SET_ROUNDS: u32 = 7;
/// As many as the service sends decisions in one call.
const SETS_A_PIPE: u32 = 64;
/// A waiting step with an attempt behind it.
const RECORD_BYTES: usize = 256;

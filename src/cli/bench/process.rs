//! The processes under measurement: how they start, what they use, how they end.

use std::{
    collections::BTreeMap,
    fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
};

use super::{
    client::{Address, Connection, Transport},
    echo::Replies,
    redis_server::{Aof, OwnRedis, Redis},
    workload::{self, Limits},
};

/// How long a server may take to its first answer.
const START_MAX: Duration = Duration::from_secs(15);
/// How long a server may take to end once asked to.
const END_MAX: Duration = Duration::from_secs(10);
/// Unit of the times in `/proc/PID/stat`: Linux shows hundredths of a second on
/// every machine that this runs on.
const TICK: Duration = Duration::from_millis(10);

/// Where the embedded store keeps steps, and what an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    /// Nowhere.
    Memory,
    /// In a file, synced before each answer.
    Durable,
    /// In a file, synced now and then.
    Relaxed,
    /// In Redis.
    Redis(Aof),
}

impl serde::Serialize for Store {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Memory => "memory",
            Self::Durable => "durable",
            Self::Relaxed => "relaxed",
            Self::Redis(Aof::Off) => "redis",
            Self::Redis(Aof::EverySecond) => "redis_everysec",
            Self::Redis(Aof::Always) => "redis_always",
        })
    }
}

/// Where servers that are started keep what they keep.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Their files.
    pub(super) parent: PathBuf,
    /// The Redis that is measured, if one was given.
    pub(super) redis: Option<Redis>,
}

impl Place {
    /// Address of the Redis that a program needs, with the process where one was
    /// started for it.
    async fn redis_for(&self, program: Program) -> io::Result<(Option<String>, Option<OwnRedis>)> {
        let aof = match program {
            Program::Reprise(Store::Redis(aof)) => aof,
            Program::Naive(_) => Aof::Off,
            Program::Echo | Program::Reprise(_) => return Ok((None, None)),
        };
        match &self.redis {
            Some(Redis::Program(program)) => {
                let own = OwnRedis::start(program, aof, &self.parent).await?;
                Ok((Some(own.address.clone()), Some(own)))
            }
            Some(Redis::At(address)) => Ok((Some(address.clone()), None)),
            None => Ok((None, None)),
        }
    }
}

/// Threads on which a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    One,
    /// As many as there are cores.
    Many,
}

/// What to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// The baseline.
    Echo,
    /// The same, with a script on Redis for each report.
    Naive(Threads),
    /// The service.
    Reprise(Store),
}

/// The command line of a program, the only place that knows it.
fn command(
    program: Program,
    address: &Address,
    metrics: Option<&str>,
    dir: &Path,
    redis: Option<&str>,
) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    match program {
        Program::Echo => command.args(["bench", "echo-server"]),
        Program::Reprise(Store::Memory) => command.args(["serve", "--store", "memory"]),
        Program::Reprise(Store::Durable) => durable(&mut command, dir, "always"),
        Program::Reprise(Store::Relaxed) => durable(&mut command, dir, "interval"),
        Program::Naive(threads) => {
            command.args(["bench", "echo-server", "--redis", given(redis)?]);
            if threads == Threads::Many {
                command.arg("--threads");
            }
            &mut command
        }
        Program::Reprise(Store::Redis(_)) => command.args(["serve", "--store", given(redis)?]),
    };
    command.arg("--listen").arg(address.to_string());
    if matches!(program, Program::Reprise(_)) {
        command.args(["--metrics", metrics.unwrap_or("none")]);
    }
    Ok(command)
}

fn given(redis: Option<&str>) -> io::Result<&str> {
    redis.ok_or_else(|| io::Error::other("no --redis-server and no --redis was given"))
}

fn durable<'a>(command: &'a mut Command, dir: &Path, fsync: &str) -> &'a mut Command {
    command
        .args(["serve", "--store", "embedded", "--fsync", fsync])
        .arg("--data")
        .arg(dir.join("data"))
}

/// A server that answers.
pub(super) struct Server {
    pub(super) address: Address,
    /// Process whose CPU and memory are read. Absent when it is not known.
    pub(super) pid: Option<u32>,
    /// From the start of the process to its first answer. Absent for one that
    /// was running before.
    pub(super) started_in: Option<Duration>,
    /// What it answers.
    pub(super) replies: Replies,
    /// Where it tells how often it synced. Absent when it does not.
    metrics: Option<String>,
    own: Option<Own>,
    /// The Redis that was started for it.
    redis: Option<OwnRedis>,
}

/// What has to be cleaned up. The process goes before its files.
struct Own {
    child: Child,
    dir: Dir,
}

impl Server {
    /// Starts a program and waits for its first answer.
    pub(super) async fn start(
        program: Program,
        transport: Transport,
        place: &Place,
    ) -> io::Result<Self> {
        let dir = Dir::create(&place.parent)?;
        let metrics = match program {
            Program::Reprise(Store::Durable | Store::Relaxed) => Some(free_port()?),
            _ => None,
        };
        let (redis, own_redis) = place.redis_for(program).await?;
        let command = |address: &Address, dir: &Path| {
            command(program, address, metrics.as_deref(), dir, redis.as_deref())
        };
        let server = Self::start_in(dir, transport, command).await?;
        Ok(Self { metrics, redis: own_redis, ..server })
    }

    /// Starts a baseline with replies that another server gave.
    pub(super) async fn start_baseline(
        program: Program,
        replies: &Replies,
        transport: Transport,
        place: &Place,
    ) -> io::Result<Self> {
        let dir = Dir::create(&place.parent)?;
        let file = dir.path.join("replies");
        replies.write(&file)?;
        let (redis, own_redis) = place.redis_for(program).await?;
        let server = Self::start_in(dir, transport, |address, dir| {
            let mut command = command(program, address, None, dir, redis.as_deref())?;
            command.arg("--replies").arg(&file);
            Ok(command)
        })
        .await?;
        Ok(Self { redis: own_redis, ..server })
    }

    async fn start_in(
        dir: Dir,
        transport: Transport,
        command: impl Fn(&Address, &Path) -> io::Result<Command>,
    ) -> io::Result<Self> {
        let address = match transport {
            Transport::Tcp => Address::Tcp(free_port()?),
            Transport::Unix => Address::Unix(dir.path.join("socket")),
        };
        let log = fs::File::create(dir.log())?;
        let mut command = command(&address, &dir.path)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let since = Instant::now();
        let mut child = command.spawn()?;
        let replies = first_answer(&address, &mut child, &dir).await?;
        let started_in = Some(since.elapsed());
        let pid = child.id();
        let own = Some(Own { child, dir });
        Ok(Self { address, pid, started_in, replies, metrics: None, own, redis: None })
    }

    /// Sees that the target is there which the steps of a load name.
    pub(super) async fn limit(&self, limits: Limits) -> io::Result<()> {
        let mut connection = Connection::open(&self.address).await?;
        workload::limit(&mut connection, limits).await.map_err(io::Error::other)
    }

    /// A server that somebody else started.
    pub(super) async fn running(address: Address, pid: Option<u32>) -> io::Result<Self> {
        let mut connection = Connection::open(&address).await?;
        let replies = workload::greet(&mut connection).await.map_err(io::Error::other)?;
        Ok(Self { address, pid, started_in: None, replies, metrics: None, own: None, redis: None })
    }

    /// Asks the server to end and waits until it has.
    pub(super) async fn stop(self) -> io::Result<()> {
        let Some(Own { mut child, dir }) = self.own else { return Ok(()) };
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process(pid, Signal::TERM)?;
        }
        let ended = tokio::time::timeout(END_MAX, child.wait()).await;
        drop(dir);
        match ended {
            Ok(status) => status.map(drop),
            Err(_) => Err(io::Error::other(format!("the server did not end within {END_MAX:?}"))),
        }
    }

    /// Memory that the process holds, bytes. Absent when the process is unknown.
    pub(super) fn resident_bytes(&self) -> io::Result<Option<u64>> {
        let Some(pid) = self.pid else { return Ok(None) };
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(resident_bytes(&status))
    }

    /// Syncs of its log so far. Absent when it does not tell.
    pub(super) async fn syncs(&self) -> io::Result<Option<u64>> {
        let Some(metrics) = &self.metrics else { return Ok(None) };
        let mut stream = TcpStream::connect(metrics).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(syncs(&text))
    }

    /// CPU time that its Redis has used. Absent where none was started for it.
    pub(super) fn redis_cpu(&self) -> io::Result<Option<Cpu>> {
        self.redis.as_ref().map_or(Ok(None), OwnRedis::cpu)
    }

    /// CPU time that the process has used. Absent when the process is unknown.
    pub(super) fn cpu(&self) -> io::Result<Option<Cpu>> {
        self.pid.map(|pid| Cpu::of(&pid.to_string())).transpose()
    }
}

/// A port that nobody listens on. Somebody may take it before the server does:
/// then the server does not start, and says so.
pub(super) fn free_port() -> io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

async fn first_answer(address: &Address, child: &mut Child, dir: &Dir) -> io::Result<Replies> {
    let since = Instant::now();
    loop {
        let error = match Connection::open(address).await {
            Ok(mut connection) => match workload::greet(&mut connection).await {
                Ok(replies) => return Ok(replies),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!(
                "the server ended with {status}: {}",
                dir.last_words()
            )));
        }
        if START_MAX < since.elapsed() {
            return Err(io::Error::other(format!(
                "no answer from {address}: {error}; {}",
                dir.last_words()
            )));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A directory of its own for one server, removed with it.
pub(super) struct Dir {
    pub(super) path: PathBuf,
}

impl Dir {
    pub(super) fn create(parent: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("reprise-bench-{}-{number}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The end of what the server wrote, in one line.
    fn last_words(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(1024)..];
        String::from_utf8_lossy(tail).split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What cannot be removed lies in a directory for temporary files.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// CPU time of a process, user and system, at one instant.
///
/// The scheduler counts nanoseconds for each thread and forgets a thread that
/// ends; the process keeps those too, in ticks. So the fine count is used as
/// long as no thread has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cpu {
    threads: BTreeMap<u32, Duration>,
    process: Duration,
}

impl Cpu {
    /// Of this process.
    pub(super) fn own() -> io::Result<Self> {
        Self::of("self")
    }

    /// Of a process, by its number or `self`.
    pub(super) fn of(process: &str) -> io::Result<Self> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{process}/task"))? {
            let path = entry?.path();
            let id =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            // A thread may end between the listing and the reading.
            let Some((id, text)) = id.zip(fs::read_to_string(path.join("schedstat")).ok()) else {
                continue;
            };
            threads.extend(on_cpu(&text).map(|time| (id, time)));
        }
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let process = user_and_system(&stat)
            .ok_or_else(|| io::Error::other("/proc/PID/stat is not readable"))?;
        Ok(Self { threads, process })
    }

    /// What was used since an earlier reading.
    pub(super) fn since(&self, before: &Self) -> Duration {
        let ended = before.threads.keys().any(|id| !self.threads.contains_key(id));
        if ended || self.threads.is_empty() {
            return self.process.saturating_sub(before.process);
        }
        let total = |cpu: &Self| cpu.threads.values().sum::<Duration>();
        total(self).saturating_sub(total(before))
    }
}

/// Syncs out of the metrics' text.
fn syncs(metrics: &str) -> Option<u64> {
    metrics.lines().find_map(|line| line.strip_prefix("reprise_log_syncs_total "))?.parse().ok()
}

/// Time on a CPU out of `/proc/PID/task/TID/schedstat`, its first number.
fn on_cpu(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// User plus system time out of `/proc/PID/stat`: fields 14 and 15. The name in
/// parentheses may itself hold spaces and parentheses.
fn user_and_system(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    TICK.checked_mul(user.checked_add(system)?)
}

/// Resident memory out of `/proc/PID/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(threads: &[(u32, u64)], process_ms: u64) -> Cpu {
        let threads = threads.iter().map(|&(id, ms)| (id, Duration::from_millis(ms))).collect();
        Cpu { threads, process: Duration::from_millis(process_ms) }
    }

    #[test]
    fn threads_are_counted_finely_until_one_ends() {
        let before = cpu(&[(1, 100), (2, 50)], 150);
        assert_eq!(cpu(&[(1, 103), (2, 51)], 150).since(&before), Duration::from_millis(4));
        assert_eq!(
            cpu(&[(1, 103), (2, 50), (3, 7)], 160).since(&before),
            Duration::from_millis(10)
        );
        assert_eq!(cpu(&[(1, 103)], 170).since(&before), Duration::from_millis(20));
        assert_eq!(cpu(&[], 170).since(&cpu(&[], 150)), Duration::from_millis(20));
    }

    #[test]
    fn proc_files_are_read_as_linux_writes_them() {
        assert_eq!(on_cpu("123456789 42 7\n"), Some(Duration::from_nanos(123_456_789)));
        assert_eq!(on_cpu(""), None);
        let stat =
            "4242 (a (very) odd name) S 1 4242 4242 0 -1 4194560 90 0 0 0 37 5 0 0 20 0 3 0 99 1 1";
        assert_eq!(user_and_system(stat), Some(Duration::from_millis(420)));
        assert_eq!(user_and_system("4242 (x) S 1"), None);
        assert_eq!(
            resident_bytes("Name:\tx\nVmRSS:\t   10240 kB\nThreads:\t1\n"),
            Some(10 * 1024 * 1024)
        );
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn syncs_are_read_off_what_the_service_shows() {
        let telemetry = crate::telemetry::Telemetry::new();
        telemetry.show_log_syncs(7);
        telemetry.show_log_syncs(12);
        assert_eq!(syncs(&telemetry.text()), Some(12));
        assert_eq!(syncs("reprise_log_syncs_total"), None);
    }

    #[test]
    fn this_process_has_used_something_and_never_less() {
        let before = Cpu::own().unwrap();
        let spun = (0..5_000_000_u64).fold(0, |sum, n| std::hint::black_box(sum ^ n));
        let after = Cpu::own().unwrap();
        assert!(Duration::ZERO < after.process || !after.threads.is_empty(), "{spun}");
        assert!(after.since(&before) < Duration::from_secs(60));
    }
}

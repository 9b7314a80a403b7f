//! How a load is driven and what it cost.
//!
//! In a closed loop each caller makes its next call when the last is answered:
//! it shows what a server can do. In an open loop calls are due at instants of
//! their own, and a latency counts from that instant even when no caller was
//! free to send: it shows what users would see.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    client::Connection,
    pacer,
    process::{Cpu, Server},
    tally::{Ledger, Tally},
    workload::{Caller, Chance, Limits, Scenario},
};

/// How long the last calls of a load may take.
const DRAIN_MAX: Duration = Duration::from_secs(15);
/// How many calls that are due are sent before answers are looked at again.
const BURST_MAX: u32 = 16;

/// How many callers there are and how they connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Shape {
    pub(super) callers: usize,
    pub(super) connections: usize,
}

/// Everyone who calls one server.
pub(super) struct Fleet {
    callers: Vec<Caller>,
    ledger: Arc<Ledger>,
}

/// One round of a load.
pub(super) struct Round {
    pub(super) tally: Tally,
    pub(super) elapsed: Duration,
    /// CPU time of the server. Absent when its process is unknown.
    pub(super) server_cpu: Option<Duration>,
    pub(super) client_cpu: Duration,
    /// CPU time of its Redis. Absent where none was started for it.
    pub(super) redis_cpu: Option<Duration>,
    /// Syncs of the server's log. Absent when it does not tell.
    pub(super) syncs: Option<u64>,
}

/// When calls are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Arrivals {
    /// Equally far apart.
    Constant,
    /// Independent of one another, as from a large fleet.
    Poisson,
}

impl Fleet {
    pub(super) async fn connect(
        server: &Server,
        (scenario, limits): (Scenario, Limits),
        shape: Shape,
        seed: u64,
    ) -> io::Result<Self> {
        let ledger = Arc::new(Ledger::new());
        let mut chance = Chance::new(seed);
        let mut connections = Vec::new();
        for _ in 0..shape.connections {
            connections.push(Connection::open(&server.address).await?);
        }
        let callers = (0_u64..)
            .zip(connections.iter().cycle())
            .take(shape.callers)
            .map(|(caller, connection)| {
                let chance = Chance::new(chance.next());
                let connection = connection.clone();
                Caller::new(connection, Arc::clone(&ledger), scenario, limits, caller, chance)
            })
            .collect();
        Ok(Self { callers, ledger })
    }

    /// Every caller calls as fast as it is answered.
    pub(super) async fn closed_loop(
        &mut self,
        server: &Server,
        warm_up: Duration,
        length: Duration,
    ) -> io::Result<Round> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for caller in self.callers.drain(..) {
            tasks.spawn(keep_calling(caller, Arc::clone(&stop)));
        }
        tokio::time::sleep(warm_up).await;
        // Failures while warming up are failures too.
        let warm = self.ledger.take();
        let meter = Meter::start(server).await?;
        tokio::time::sleep(length).await;
        let mut round = meter.stop(server, self.ledger.take()).await?;
        stop.store(true, Ordering::Relaxed);
        self.callers =
            tokio::time::timeout(DRAIN_MAX, tasks.join_all()).await.map_err(unanswered)?;
        round.keep_failures(warm, self.ledger.take());
        Ok(round)
    }

    /// Calls are due at the given offsets, whether answers come or not.
    pub(super) async fn open_loop(
        &mut self,
        server: &Server,
        offsets: impl Iterator<Item = Duration> + Send + 'static,
    ) -> io::Result<Round> {
        let callers = self.callers.len();
        let (give_back, mut idle) = mpsc::unbounded_channel();
        for caller in self.callers.drain(..) {
            drop(give_back.send(caller));
        }
        let meter = Meter::start(server).await?;
        let mut due = pacer::due(meter.since, offsets)?;
        let mut taken = 0_u32;
        while let Some(due) = due.recv().await {
            let mut caller: Caller = next_idle(&mut idle).await?;
            let give_back = give_back.clone();
            tokio::spawn(async move {
                caller.turn(due).await;
                // Nobody waits for it any more when the load was given up.
                drop(give_back.send(caller));
            });
            taken = taken.wrapping_add(1);
            if taken.is_multiple_of(BURST_MAX) {
                tokio::task::yield_now().await;
            }
        }
        while self.callers.len() < callers {
            self.callers.push(next_idle(&mut idle).await?);
        }
        meter.stop(server, self.ledger.take()).await
    }
}

async fn keep_calling(mut caller: Caller, stop: Arc<AtomicBool>) -> Caller {
    while !stop.load(Ordering::Relaxed) && !caller.is_broken() {
        caller.turn(Instant::now()).await;
    }
    caller
}

async fn next_idle(idle: &mut mpsc::UnboundedReceiver<Caller>) -> io::Result<Caller> {
    if let Ok(caller) = idle.try_recv() {
        return Ok(caller);
    }
    let next = tokio::time::timeout(DRAIN_MAX, idle.recv()).await.map_err(unanswered)?;
    next.ok_or_else(|| io::Error::other("a caller was lost"))
}

fn unanswered(_: tokio::time::error::Elapsed) -> io::Error {
    io::Error::other(format!("calls were not answered within {DRAIN_MAX:?}"))
}

impl Round {
    fn keep_failures(&mut self, before: Tally, after: Tally) {
        self.tally.rejected += before.rejected + after.rejected;
        for (what, count) in before.failed.into_iter().chain(after.failed) {
            *self.tally.failed.entry(what).or_default() += count;
        }
    }
}

/// Reads clocks at both ends of a round.
struct Meter {
    since: Instant,
    server: Option<Cpu>,
    client: Cpu,
    redis: Option<Cpu>,
    syncs: Option<u64>,
}

impl Meter {
    async fn start(server: &Server) -> io::Result<Self> {
        let syncs = server.syncs().await?;
        let (redis, client) = (server.redis_cpu()?, Cpu::own()?);
        Ok(Self { server: server.cpu()?, client, redis, syncs, since: Instant::now() })
    }

    async fn stop(self, server: &Server, tally: Tally) -> io::Result<Round> {
        let elapsed = self.since.elapsed();
        let used = |(after, before): (Cpu, Cpu)| after.since(&before);
        let server_cpu = server.cpu()?.zip(self.server).map(used);
        let redis_cpu = server.redis_cpu()?.zip(self.redis).map(used);
        let client_cpu = Cpu::own()?.since(&self.client);
        let syncs = server.syncs().await?.zip(self.syncs).map(|(after, before)| after - before);
        Ok(Round { tally, elapsed, server_cpu, client_cpu, redis_cpu, syncs })
    }
}

/// When calls are due: `count` offsets that begin near zero, `rate` a second.
pub(super) fn offsets(
    arrivals: Arrivals,
    rate: f64,
    count: u64,
    mut chance: Chance,
) -> impl Iterator<Item = Duration> {
    let mut at = 0.0;
    (0..count).map(move |_| {
        let offset = Duration::try_from_secs_f64(at).unwrap_or(Duration::MAX);
        at += match arrivals {
            Arrivals::Constant => 1.0 / rate,
            Arrivals::Poisson => -chance.share().ln() / rate,
        };
        offset
    })
}

/// How often a second the disk under `dir` takes one small append, one after
/// another: what a service reaches that syncs for each decision by itself.
pub(super) fn appends_per_second(dir: &Path, length: Duration) -> io::Result<f64> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(dir.join("appends"))?;
    let since = Instant::now();
    let mut appends = 0_u32;
    while since.elapsed() < length {
        file.write_all(&[0x5a; APPEND_BYTES])?;
        file.sync_data()?;
        appends += 1;
    }
    Ok(f64::from(appends) / since.elapsed().as_secs_f64())
}

/// Size of one such append: a decision with its record.
const APPEND_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_keep_their_rate() {
        let constant: Vec<_> = offsets(Arrivals::Constant, 100.0, 3, Chance::new(1)).collect();
        assert_eq!(constant, [0, 10, 20].map(Duration::from_millis));

        let poisson: Vec<_> = offsets(Arrivals::Poisson, 1000.0, 20_000, Chance::new(1)).collect();
        assert_eq!(poisson.len(), 20_000);
        assert!(poisson.is_sorted());
        let length = poisson[19_999].as_secs_f64();
        assert!((19.0..21.0).contains(&length), "{length}");
    }
}

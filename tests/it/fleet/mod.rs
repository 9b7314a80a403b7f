//! A fleet as in life: instances that are processes over one Redis, hundreds of
//! workers, and a target that goes down, asks to be left alone, and comes up slowly.
//! One instance is killed meanwhile, and Redis as well. The laws of its limits have
//! to hold over all starts, whoever granted them.

mod target;
mod worker;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use reprise::proto::{
    Backoff, Breaker, BreakerState, Concurrency, CreatePolicyRequest, CreateTargetRequest,
    FixedBackoff, GetTargetUsageRequest, Jitter, JitterKind, NamedPolicy, NamedTarget, Policy,
    Rate, RetryBudget, Target, TargetUsage, admin_service_client::AdminServiceClient,
    backoff::Shape,
};
use tempfile::TempDir;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::transport::Channel;

use self::{
    target::{Seen, Weather},
    worker::{Attempt, Fleet, LEASE, Worker},
};
use crate::{
    kill::on_one_thread,
    limits::checker::{self, Allowed, Happened},
    process::{Server, serve},
    redis_servers::{Aof, Kind, Options, Standalone},
};

const INSTANCES: usize = 4;
const WORKERS: usize = 200;
/// What the target allows.
const RATE: u32 = 100;
const BURST: u32 = 30;
const AT_ONCE: u32 = 20;
/// Of retries: for each first attempt in the window, and beside that.
const RATIO: f64 = 0.1;
const FLOOR: u32 = 15;
const WINDOW: Duration = Duration::from_secs(10);
/// A plan may be so old when it is carried out.
const PLAN_KEPT: Duration = Duration::from_millis(250);
/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);
/// From one look at what changes to the next.
const LOOK: Duration = Duration::from_millis(20);

/// Instances over one Redis, their workers, and the target.
struct Stage {
    redis: Standalone,
    folder: TempDir,
    instances: Vec<Server>,
    channels: watch::Sender<Vec<Channel>>,
    fleet: Arc<Fleet>,
    seen: Arc<Seen>,
}

impl Stage {
    async fn start() -> Self {
        let options = Options { aof: Aof::Always, ..Options::default() };
        let redis = Standalone::start(Kind::Redis70, options).await;
        let (address, seen) = target::start().await;
        let folder = tempfile::tempdir().unwrap();
        let mut instances = Vec::new();
        for place in 0..INSTANCES {
            instances.push(instance(&folder, &redis, place).await);
        }
        let (channels, watched) = watch::channel(instances.iter().map(Server::channel).collect());
        let fleet = Fleet {
            target: address,
            instances: watched,
            attempts: Mutex::default(),
            cooled: Mutex::default(),
        };
        let stage = Self { redis, folder, instances, channels, fleet: Arc::new(fleet), seen };
        stage.configure().await;
        stage
    }

    fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.instances[1].channel())
    }

    /// A target with every limit, and a policy that never gives up.
    async fn configure(&self) {
        let target = Target {
            rate: Some(Rate { limit: RATE, burst: Some(BURST), ..Rate::default() }),
            concurrency: Some(Concurrency { max: AT_ONCE }),
            breaker: Some(Breaker::default()),
            budget: Some(RetryBudget {
                ratio: Some(RATIO),
                floor: Some(FLOOR),
                window: prost_types::Duration::try_from(WINDOW).ok(),
                ..RetryBudget::default()
            }),
            ..Target::default()
        };
        let target =
            NamedTarget { name: "api".to_owned(), target: Some(target), ..NamedTarget::default() };
        let request =
            CreateTargetRequest { target: Some(target), ..CreateTargetRequest::default() };
        self.admin().create_target(request).await.unwrap();
        let delay = prost_types::Duration::try_from(Duration::from_millis(200)).ok();
        let backoff = Backoff {
            shape: Some(Shape::Fixed(FixedBackoff { delay })),
            jitter: Some(Jitter { kind: JitterKind::Full.into(), ratio: None }),
            ..Backoff::default()
        };
        let policy = Some(Policy { backoff: Some(backoff), ..Policy::default() });
        let policy = NamedPolicy { name: "patient".to_owned(), policy, ..NamedPolicy::default() };
        let request =
            CreatePolicyRequest { policy: Some(policy), ..CreatePolicyRequest::default() };
        self.admin().create_policy(request).await.unwrap();
    }

    async fn usage(&self) -> Option<TargetUsage> {
        let request =
            GetTargetUsageRequest { name: "api".to_owned(), ..GetTargetUsageRequest::default() };
        self.admin().get_target_usage(request).await.ok()?.into_inner().usage
    }

    /// Waits until so many more calls are served.
    async fn serves(&self, more: u64) {
        let enough = self.seen.served() + more;
        let waiting = async {
            while self.seen.served() < enough {
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("calls are served");
    }

    /// Waits until the target's breaker is open.
    async fn opens(&self) {
        let waiting = async {
            loop {
                let breaker = self.usage().await.and_then(|usage| usage.breaker);
                if breaker.is_some_and(|breaker| breaker.state() == BreakerState::Open) {
                    return;
                }
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("nothing but a dead target explains this");
    }

    /// Waits until somebody was asked to stay away.
    async fn cools(&self) {
        let waiting = async {
            while self.fleet.cooled.lock().unwrap().is_empty() {
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("a 429 is reported");
    }

    /// An instance ends at once, and comes back.
    async fn replace(&mut self, place: usize) {
        self.instances[place].kill().await;
        self.instances[place] = instance(&self.folder, &self.redis, place).await;
        self.channels.send_replace(self.instances.iter().map(Server::channel).collect());
    }
}

async fn instance(folder: &TempDir, redis: &Standalone, place: usize) -> Server {
    let data = folder.path().join(place.to_string());
    let listen = format!("unix:{}", folder.path().join(format!("{place}.sock")).display());
    let mut command = serve(&data, &listen);
    command.args(["--store", &redis.url()]);
    Server::start_with(&data, command).await
}

/// What happens to the target and to the fleet, so many times over.
async fn weathers(stage: &mut Stage, rounds: usize, between: u64) {
    for _ in 0..rounds {
        // No outage is to blame for what fails now: its retries cost the budget.
        stage.seen.turn(Weather::Shaky);
        stage.serves(between).await;
        outage(stage).await;
        stage.serves(between).await;
        stage.fleet.cooled.lock().unwrap().clear();
        stage.seen.turn(Weather::Throttling);
        stage.cools().await;
        stage.seen.turn(Weather::Well);
        stage.serves(between).await;
        stage.redis.kill();
        stage.redis.restart().await;
        stage.seen.turn(Weather::Slow);
        stage.serves(between).await;
        stage.seen.turn(Weather::Well);
    }
}

/// The target is dead, one of the instances dies as well, and the target comes back.
async fn outage(stage: &mut Stage) {
    stage.seen.turn(Weather::Down);
    stage.opens().await;
    // Who was on the way has arrived.
    sleep(Duration::from_millis(500)).await;
    let dead_since = Instant::now();
    stage.replace(0).await;
    sleep(Duration::from_secs(2)).await;
    let (calls, lasted) = (stage.seen.hung_up_since(dead_since), dead_since.elapsed());
    let probes = 2 + lasted.as_millis() / 400;
    assert!(calls as u128 <= probes, "{calls} calls of a dead target in {lasted:?}");
    stage.seen.turn(Weather::Slow);
    stage.serves(20).await;
    stage.seen.turn(Weather::Well);
}

/// Everybody works, whatever happens; then the laws are checked.
async fn holds(steps: usize, rounds: usize, between: u64) {
    let mut stage = Stage::start().await;
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        workers.spawn_local(Worker::new(Arc::clone(&stage.fleet), number).works(steps));
    }
    weathers(&mut stage, rounds, between).await;
    let finished = async {
        while let Some(ended) = workers.join_next().await {
            ended.unwrap();
        }
    };
    timeout(PATIENCE, finished).await.expect("every step succeeds in time");
    let attempts = stage.fleet.attempts.lock().unwrap().clone();
    assert_eq!(stage.seen.served(), (WORKERS * steps) as u64, "each step succeeds once");
    let most = stage.seen.most.load(Ordering::SeqCst);
    assert!(most <= u64::from(AT_ONCE), "the target saw {most} calls at the same time");
    rate_holds(&attempts);
    budget_holds(&attempts);
    permits_hold(&attempts, began);
    cooldowns_hold(&stage.fleet, &attempts);
    println!(
        "{} attempts of {} steps in {:.1?}, at most {most} at once",
        attempts.len(),
        WORKERS * steps,
        began.elapsed()
    );
}

fn started(attempt: &Attempt, at: u64, lease_until: u64) -> Happened {
    Happened::Started {
        at,
        step: attempt.step,
        targets: vec!["api".to_owned()],
        cost: attempt.is_retry.then_some(0),
        lease_until,
    }
}

/// Over the instants at which starts were granted, by the store's clock.
fn rate_holds(attempts: &[Attempt]) {
    let (limit, burst) = (u64::from(RATE), u64::from(BURST));
    let rate = checker::Rate { limit, period: 1_000_000, burst, retries_only: false };
    let allowed = Allowed { rate: Some(rate), ..Allowed::default() };
    let mut starts: Vec<&Attempt> = attempts.iter().collect();
    starts.sort_by_key(|attempt| attempt.began_at);
    // Each is taken for over at once: that an attempt was on meanwhile is another law.
    let log: Vec<Happened> =
        starts.iter().map(|attempt| started(attempt, attempt.began_at, attempt.began_at)).collect();
    checker::check(&BTreeMap::from([("api".to_owned(), vec![allowed])]), &log).unwrap();
}

/// At each start of a retry that no outage was to blame for. It was counted when it was
/// carried out, up to 250 ms after it was planned, together with the first attempts that
/// had been carried out by then.
fn budget_holds(attempts: &[Attempt]) {
    let window = WINDOW.as_micros() as u64;
    let budget =
        checker::Budget { per_mille: (RATIO * 1000.0) as u64, floor: FLOOR.into(), window };
    let allowed = Allowed { budget: Some(budget), ..Allowed::default() };
    let at = |attempt: &Attempt| match attempt.cost {
        None => attempt.began_at,
        Some(_) => attempt.began_at + PLAN_KEPT.as_micros() as u64,
    };
    let mut starts: Vec<(u64, &Attempt)> = attempts
        .iter()
        .filter(|attempt| attempt.cost != Some(0))
        .map(|attempt| (at(attempt), attempt))
        .collect();
    starts.sort_by_key(|(at, _)| *at);
    let log: Vec<Happened> = starts
        .iter()
        .map(|(at, attempt)| Happened::Started {
            at: *at,
            step: attempt.step,
            targets: vec!["api".to_owned()],
            cost: attempt.cost,
            lease_until: *at,
        })
        .collect();
    checker::check(&BTreeMap::from([("api".to_owned(), vec![allowed])]), &log).unwrap();
    let counted = starts.iter().filter(|(_, attempt)| attempt.cost.is_some()).count();
    println!("{counted} retries cost the budget something");
    assert!(counted > 0, "no retry cost anything: the law was not tried");
}

/// Over the time in which workers knew that they had them, by one clock of theirs. (A
/// start counts from when it was planned, which may be before another permit came
/// back that it was given.)
fn permits_hold(attempts: &[Attempt], began: Instant) {
    let allowed = Allowed { max: Some(u64::from(AT_ONCE)), ..Allowed::default() };
    let micros = |at: Instant| (at - began).as_micros() as u64;
    let lease = LEASE.as_micros() as u64;
    let mut log: Vec<(u64, Happened)> = Vec::new();
    for attempt in attempts {
        let (from, until) = (micros(attempt.granted), micros(attempt.ended));
        log.push((from, started(attempt, from, from + lease)));
        log.push((until, Happened::Ended { at: until, step: attempt.step }));
    }
    log.sort_by_key(|(at, _)| *at);
    let log: Vec<Happened> = log.into_iter().map(|(_, happened)| happened).collect();
    checker::check(&BTreeMap::from([("api".to_owned(), vec![allowed])]), &log).unwrap();
}

/// Whoever asked after a pushback was taken starts behind it.
fn cooldowns_hold(fleet: &Fleet, attempts: &[Attempt]) {
    let cooled = fleet.cooled.lock().unwrap();
    assert!(!cooled.is_empty(), "somebody was asked to stay away");
    for cooled in cooled.iter() {
        for attempt in attempts.iter().filter(|attempt| attempt.asked > cooled.heard) {
            let is_behind = attempt.began_at >= cooled.until;
            assert!(is_behind, "{attempt:?} begins before the end of {cooled:?}");
        }
    }
}

#[test]
fn the_laws_hold_over_a_fleet_in_bad_weather() {
    on_one_thread(holds(4, 1, 80));
}

#[test]
#[ignore = "takes minutes"]
fn the_laws_hold_over_a_fleet_in_much_bad_weather() {
    on_one_thread(holds(40, 6, 200));
}

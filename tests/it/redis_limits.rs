//! Targets' limits as scripts and as the rule keep them: equal histories have
//! equal answers, constraint by constraint.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{TestCaseError, TestRunner},
};
use redis::cmd;
use reprise::{
    clock::Clock,
    domain::{
        event::{AttemptName, Begin, Comes, Event, Heartbeat, Report, StepTerms},
        failure::{Failure, FailureClass, Pushback},
        limit::{Forced, ForcedState},
        plan::Answer,
        record::Identity,
        time::Timestamp,
    },
    service::Service,
    store::{
        ConfigurationChange, Expect, Store, configuration::TargetEntry, embedded::Embedded,
        redis::Redis,
    },
    telemetry::Telemetry,
};
use tokio::{runtime::Runtime, time::Instant};

use crate::{
    redis_servers::{Kind, Options, Standalone},
    store_contract::subject::{self, START, Subject, id, key},
};

/// Histories in a normal test run.
const HISTORIES: u32 = 150;
/// Steps in each.
const STEPS: usize = 24;

/// Targets of each history.
const NAMES: [&str; 3] = ["db", "gpu", "api"];

/// What targets allow; a history begins with one and may turn to another.
const TARGETS: [[(&str, &str); 3]; 7] = [
    [
        ("db", "{rate: {limit: 10, period: 1s, burst: 4}}"),
        ("gpu", "{concurrency: {max: 2}}"),
        ("api", "{}"),
    ],
    [
        ("db", "{rate: {limit: 3, period: 2s, burst: 1}, concurrency: {max: 3}}"),
        ("gpu", "{concurrency: {max: 1}, every_step: true}"),
        ("api", "{rate: {limit: 40, period: 1s, burst: 12, on: retries}}"),
    ],
    [
        ("db", "{budget: {ratio: 0.2, floor: 2, window: 10s}}"),
        ("gpu", "{budget: {ratio: 0.5, floor: 1, window: 1s, when_spent: stop}}"),
        ("api", "{rate: {limit: 5, period: 1s, burst: 2}, each_run: true}"),
    ],
    [
        (
            "db",
            "{rate: {limit: 7, period: 3s, burst: 5}, budget: {ratio: 1.0, floor: 3, window: 5s}}",
        ),
        ("gpu", "{concurrency: {max: 2}, rate: {limit: 2, period: 1s, burst: 2}}"),
        ("api", "{concurrency: {max: 1}, each_run: true}"),
    ],
    [
        ("db", "{rate: {limit: 1, period: 1h, burst: 3}}"),
        ("gpu", "{rate: {limit: 100, period: 1s, burst: 20}, every_step: true}"),
        ("api", "{concurrency: {max: 2}}"),
    ],
    [
        ("db", "{rate: {limit: 20, period: 1s, burst: 5}, breaker: {}}"),
        ("gpu", "{concurrency: {max: 3}, breaker: {slow_after: 2s}}"),
        ("api", "{budget: {ratio: 0.5, floor: 2, window: 10s}, breaker: {}}"),
    ],
    [
        ("db", "{breaker: {}}"),
        (
            "gpu",
            "{rate: {limit: 30, period: 1s, burst: 9, on: retries}, breaker: {}, each_run: true}",
        ),
        ("api", "{breaker: {observe_only: true}, concurrency: {max: 4}}"),
    ],
];
const POLICY: &str = "{max_retries: 12, max_elapsed: 10m, backoff: {exponential: {delay: 500ms}, max_delay: 8s, jitter: full}}";

/// What happens next in a history.
#[derive(Clone, Debug)]
enum Move {
    Begin(usize),
    Beat(usize),
    Fail(usize, FailureClass, Option<Duration>),
    Succeed(usize),
    /// A worker that reports without having begun.
    FailUnbegun(usize),
    Pass(Duration),
    /// Until what a step was told last.
    Until(usize),
    Turn(usize),
    /// An operator's word about the breaker of one target, or an end of it.
    Force(usize, Option<ForcedState>),
    /// An operator ends a cooldown.
    Lift(usize),
    /// All of them fail, of whichever worker, so many times.
    Storm(usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let step = || 0..STEPS;
    let class = prop::sample::select(vec![
        FailureClass::Transient,
        FailureClass::Timeout,
        FailureClass::Throttled,
    ]);
    let pushback = prop_oneof![5 => Just(None), 1 => (1..4_000_u64).prop_map(|ms| Some(Duration::from_millis(ms)))];
    let forced = prop::sample::select(vec![ForcedState::Open, ForcedState::Closed]);
    let one = prop_oneof![
        8 => step().prop_map(Move::Begin),
        1 => step().prop_map(Move::Beat),
        5 => (step(), class, pushback).prop_map(|(step, class, pushback)| Move::Fail(step, class, pushback)),
        2 => step().prop_map(Move::Succeed),
        1 => step().prop_map(Move::FailUnbegun),
        2 => (0..2_000_000_u64).prop_map(|us| Move::Pass(Duration::from_micros(us))),
        3 => step().prop_map(Move::Until),
        1 => (0..TARGETS.len()).prop_map(Move::Turn),
        1 => (0..NAMES.len(), prop::option::of(forced)).prop_map(|(at, state)| Move::Force(at, state)),
        1 => (0..NAMES.len()).prop_map(Move::Lift),
        1 => (1..3_usize).prop_map(Move::Storm),
    ];
    vec(one, 1..70)
}

struct Side<S> {
    service: Service<S>,
}

impl<S: Store> Side<S> {
    async fn on(place: &Subject<S>, store: S) -> Self {
        place.create("n").await;
        let change = ConfigurationChange::Policy(id("p"), subject::policy(POLICY));
        place.reconfigure("n", change).await.unwrap();
        let service = Service::new(store, Arc::new(Telemetry::new()), place.clock.clone());
        Self { service }
    }

    async fn turn(&self, targets: &[(&str, &str)]) {
        for (name, spec) in targets {
            let revision = self.service.store().configuration("n").await.unwrap().revision;
            let spec = serde_saphyr::from_str(spec).unwrap();
            let entry = TargetEntry::parse(spec, revision + 1, START).unwrap();
            let change = ConfigurationChange::Target(id(name), Some(entry));
            self.service.store().configure(&id("n"), revision, change).await.unwrap();
        }
    }

    async fn force(&self, name: &str, state: Option<ForcedState>, now: Timestamp) {
        let configuration = self.service.store().configuration("n").await.unwrap();
        let present = &configuration.targets[name];
        let forced = match (state, present.forced.clone()) {
            (Some(state), _) => Some(Forced {
                state,
                reason: String::new(),
                by: String::new(),
                since: now,
                until: now.plus(Duration::from_secs(7)),
            }),
            // What it held open is let go on a ramp.
            (None, Some(forced)) => Some(Forced { until: forced.until.min(now), ..forced }),
            (None, None) => None,
        };
        let entry = TargetEntry { forced, ..present.clone() };
        let change = ConfigurationChange::Target(id(name), Some(entry));
        self.service.store().configure(&id("n"), configuration.revision, change).await.unwrap();
    }

    async fn lift(&self, name: &str) {
        self.service.lift_cooldown(&id("n"), &id(name), "run").await.unwrap();
    }

    /// One step after the other, so that they ask in the same order everywhere.
    async fn sweep(&self) {
        while self.service.sweep(1).await.unwrap() > 0 {}
        self.service.wake_heads().await.unwrap();
    }

    async fn happens(&self, run: &str, step: usize, event: &Event) -> Result<Answer, String> {
        let name = format!("step-{step}");
        let given = reprise::service::GivenPolicy::Named(id("p"));
        let handled = self.service.apply(&key("n", run, &name), Some(&given), event).await;
        self.service.wake_heads().await.unwrap();
        handled.map(|handled| handled.answer).map_err(|error| error.to_string())
    }
}

/// Both, as new, on one clock and one salt.
struct Both<'a> {
    runtime: &'a Runtime,
    clock: Clock,
    rule: Side<Embedded>,
    scripts: Side<Redis>,
}

impl<'a> Both<'a> {
    fn new(runtime: &'a Runtime, server: &Standalone) -> Self {
        let clock = subject::clock();
        let (rule, scripts) = runtime.block_on(async {
            let place = subject::memory(clock.clone()).await;
            let rule = Side::on(&place, place.store.clone()).await;
            let loaded = place.store.load(&key("n", "r", "s"), Expect::Anything).await.unwrap();
            server.endpoint().tell("FLUSHALL").await;
            let mut connection = server.endpoint().connect().await.unwrap();
            let salt = loaded.salt.0.to_vec();
            cmd("SET").arg("reprise:salt").arg(salt).exec_async(&mut connection).await.unwrap();
            let store = Redis::open(subject::redis_options(&server.url(), &clock)).await.unwrap();
            let place = Subject { store, clock: clock.clone(), dir: None, server: None };
            let scripts = Side::on(&place, place.store.clone()).await;
            (rule, scripts)
        });
        Self { runtime, clock, rule, scripts }
    }

    fn turn(&self, targets: usize) {
        self.runtime.block_on(async {
            self.rule.turn(&TARGETS[targets]).await;
            self.scripts.turn(&TARGETS[targets]).await;
        });
    }

    fn pass(&self, mut rest: Duration) {
        const SWEEPS: Duration = Duration::from_secs(2);
        self.runtime.block_on(async {
            loop {
                let some = rest.min(SWEEPS);
                self.clock.advance(some);
                rest -= some;
                self.rule.sweep().await;
                self.scripts.sweep().await;
                if rest.is_zero() {
                    return;
                }
            }
        });
    }

    fn agree_on(&self, targets: usize, moves: &[Move]) -> Result<(), TestCaseError> {
        self.turn(targets);
        let mut story = Story::default();
        for (at, next) in (1..).zip(moves) {
            let event = match next {
                Move::Pass(span) => {
                    self.pass(*span);
                    continue;
                }
                Move::Until(step) => {
                    let until = story.told.get(step).copied().unwrap_or(START);
                    self.pass((until - self.clock.now()).min(Duration::from_secs(90)));
                    continue;
                }
                Move::Turn(targets) => {
                    self.turn(*targets);
                    continue;
                }
                Move::Force(target, state) => {
                    let (name, now) = (NAMES[*target], self.clock.now());
                    self.runtime.block_on(async {
                        self.rule.force(name, *state, now).await;
                        self.scripts.force(name, *state, now).await;
                    });
                    continue;
                }
                Move::Lift(target) => {
                    self.runtime.block_on(async {
                        self.rule.lift(NAMES[*target]).await;
                        self.scripts.lift(NAMES[*target]).await;
                    });
                    continue;
                }
                Move::Storm(times) => {
                    for (number, step) in (0..STEPS * times).map(|number| (number, number % STEPS))
                    {
                        self.clock.advance(Duration::from_millis(7));
                        let id = 1_000_000 + at * 1_000 + number as u64;
                        let event = story.event(id, &Move::FailUnbegun(step));
                        self.both(&mut story, at, moves, event)?;
                    }
                    continue;
                }
                other => story.event(at, other),
            };
            self.both(&mut story, at, moves, event)?;
        }
        Ok(())
    }

    fn both(
        &self,
        story: &mut Story,
        at: u64,
        moves: &[Move],
        event: Option<(usize, Event)>,
    ) -> Result<(), TestCaseError> {
        let run = "run";
        let Some((step, event)) = event else { return Ok(()) };
        let (rule, scripts) = self.runtime.block_on(async {
            (
                self.rule.happens(run, step, &event).await,
                self.scripts.happens(run, step, &event).await,
            )
        });
        prop_assert_eq!(&rule, &scripts, "move {} of {:?}: {:?}", at, moves, event);
        story.heard(step, rule.ok());
        Ok(())
    }
}

/// What the workers of a history know.
#[derive(Default)]
struct Story {
    fences: BTreeMap<usize, u64>,
    told: BTreeMap<usize, reprise::domain::time::Timestamp>,
}

impl Story {
    fn event(&self, at: u64, next: &Move) -> Option<(usize, Event)> {
        let terms = |step: usize| StepTerms {
            targets: NAMES.iter().skip(step % 3).take(1 + step % 2).map(|name| id(name)).collect(),
            ..StepTerms::default()
        };
        let report = |step: usize, attempt, failure| {
            Event::Report(Report { attempt, payload: at, failure, step: terms(step) })
        };
        Some(match next {
            Move::Begin(step) => {
                let identity = Identity { id: at, payload: at };
                let host = Some(format!("host-{}", (step + at as usize) % 4).into());
                let worker = String::new();
                // No two leases end at the same instant.
                let lease = Some(Duration::from_millis(10_000 + *step as u64));
                let comes = if step % 2 == 0 { Comes::ByItself } else { Comes::WhenWoken };
                let step_terms = terms(*step);
                (
                    *step,
                    Event::Begin(Begin { identity, lease, host, worker, comes, step: step_terms }),
                )
            }
            Move::Beat(step) => {
                let fence = *self.fences.get(step)?;
                (*step, Event::Heartbeat(Heartbeat { fence, lease: None, progress: None }))
            }
            Move::Fail(step, class, pushback) => {
                let fence = *self.fences.get(step)?;
                let pushback = pushback.map(Pushback::After);
                let target = terms(*step).targets[0].to_string();
                let failure = Failure { pushback, target, ..Failure::of(*class) };
                (*step, report(*step, AttemptName::Fence(fence), Some(failure)))
            }
            Move::Succeed(step) => {
                let fence = *self.fences.get(step)?;
                (*step, report(*step, AttemptName::Fence(fence), None))
            }
            Move::FailUnbegun(step) => {
                let target = terms(*step).targets[0].to_string();
                let host = format!("host-{}", at % 4);
                let failure = Failure { target, host, ..Failure::of(FailureClass::Transient) };
                (*step, report(*step, AttemptName::Request(at), Some(failure)))
            }
            Move::Pass(_)
            | Move::Until(_)
            | Move::Turn(_)
            | Move::Force(..)
            | Move::Lift(_)
            | Move::Storm(_) => return None,
        })
    }

    fn heard(&mut self, step: usize, answer: Option<Answer>) {
        use reprise::domain::decision::Verdict;
        let decision = match answer {
            Some(Answer::Granted(grant)) => {
                self.fences.insert(step, grant.fence);
                return;
            }
            Some(Answer::Refused(decision)) => *decision,
            Some(Answer::Reported(reported)) => reported.decision,
            _ => return,
        };
        if let Verdict::Retry(at) | Verdict::Wait(Some(at)) = decision.settled.verdict {
            self.told.insert(step, at);
        }
    }
}

#[test]
fn scripts_and_the_rule_answer_alike() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(Standalone::start(Kind::Redis70, Options::default()));
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = ProptestConfig {
        cases: cases.unwrap_or(HISTORIES),
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let histories = (0..TARGETS.len(), moves());
    TestRunner::new(config)
        .run(&histories, |(targets, moves)| Both::new(&runtime, &server).agree_on(targets, &moves))
        .unwrap();
}

/// A start that was granted.
#[derive(Clone, Copy, Debug)]
struct Start {
    /// When it was planned, as the grant says, µs. That may be before it was granted, and
    /// so before another permit came back that it was given.
    began_at: u64,
    /// When its worker heard of it: from then on it is known to have a permit.
    from: Instant,
    /// When its end was about to be reported: until then.
    until: Instant,
}

/// One worker: runs steps one after the other, each until it succeeds, and comes
/// back when it is told to.
async fn works(
    service: Arc<Service<Redis>>,
    worker: usize,
    steps: usize,
    targets: &[&str],
) -> Vec<Start> {
    let mut starts = Vec::new();
    for step in 0..steps {
        let name = format!("step-{worker}-{step}");
        let key = key("n", "race", &name);
        let terms = StepTerms {
            targets: targets.iter().map(|name| id(name)).collect(),
            ..StepTerms::default()
        };
        for ask in 1.. {
            let begin = Begin {
                identity: Identity { id: ask, payload: ask },
                lease: None,
                host: None,
                worker: String::new(),
                comes: Comes::ByItself,
                step: terms.clone(),
            };
            let handled = service.apply(&key, None, &Event::Begin(begin)).await.unwrap();
            match handled.answer {
                Answer::Granted(grant) => {
                    let from = Instant::now();
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    let until = Instant::now();
                    let report = Report {
                        attempt: AttemptName::Fence(grant.fence),
                        payload: 1,
                        failure: None,
                        step: StepTerms::default(),
                    };
                    service.apply(&key, None, &Event::Report(report)).await.unwrap();
                    let began_at = grant.began_at.as_micros();
                    starts.push(Start { began_at, from, until });
                    break;
                }
                Answer::Refused(decision) => {
                    use reprise::domain::decision::Verdict;
                    let Verdict::Wait(Some(until)) = decision.settled.verdict else {
                        panic!("{decision:?}")
                    };
                    tokio::time::sleep(until - handled.at).await;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    starts
}

/// Two instances on one server, and all workers at once.
async fn race(targets: &[(&str, &str)], workers: usize, steps: usize) -> Vec<Start> {
    let server = Standalone::start(Kind::Redis70, Options::default()).await;
    let mut sides = Vec::new();
    for at in 0..2 {
        use reprise::store::redis::{RedisOptions, address::Address};
        let options = RedisOptions::new(Address::parse(&server.url()).unwrap());
        let store = Redis::open(options).await.unwrap();
        let clock = Clock::system(START);
        if at == 0 {
            let place =
                Subject { store: store.clone(), clock: clock.clone(), dir: None, server: None };
            place.create("n").await;
        }
        let service = Service::new(store, Arc::new(Telemetry::new()), clock);
        sides.push(Side { service });
    }
    sides[0].turn(targets).await;
    let names: Vec<&str> = targets.iter().map(|(name, _)| *name).collect();
    let services: Vec<_> = sides.into_iter().map(|side| Arc::new(side.service)).collect();
    let all = (0..workers).map(|worker| {
        let service = Arc::clone(&services[worker % 2]);
        works(service, worker, steps, &names)
    });
    let starts = futures_util::future::join_all(all).await;
    let mut starts: Vec<Start> = starts.into_iter().flatten().collect();
    assert_eq!(starts.len(), workers * steps, "nothing is lost");
    starts.sort_by_key(|start| start.began_at);
    starts
}

#[tokio::test]
async fn racing_workers_keep_to_a_rate_over_two_instances() {
    let (limit, burst) = (200, 40);
    let starts = race(&[("db", "{rate: {limit: 200, period: 1s, burst: 40}}")], 64, 5).await;
    for (first, from) in starts.iter().enumerate() {
        for (last, till) in starts.iter().enumerate().skip(first) {
            let (count, span) = ((last - first + 1) as u64, till.began_at - from.began_at);
            let most = limit * span / 1_000_000 + burst;
            assert!(count <= most, "{count} starts in {span} µs, where {most} may be");
        }
    }
}

#[tokio::test]
async fn racing_workers_keep_to_permits_over_two_instances() {
    let targets = [("gpu", "{concurrency: {max: 5}}"), ("db", "{concurrency: {max: 7}}")];
    let starts = race(&targets, 32, 3).await;
    for Start { from: at, .. } in &starts {
        let live = starts.iter().filter(|start| start.from <= *at && *at < start.until).count();
        assert!(live <= 5, "{live} run at {at:?}");
    }
}

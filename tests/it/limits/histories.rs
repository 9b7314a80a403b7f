//! Random histories: a few steps at a few targets, workers who come early, on
//! time, late or not at all, targets that push back, operators who pause them and
//! change what they allow. The starts that were granted are held to the laws;
//! and when failures end and workers come when they are told to, all is done
//! within a bounded time.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use proptest::{
    prelude::*,
    test_runner::{TestCaseError, TestError, TestRunner},
};
use reprise::{
    clock::Clock,
    domain::{
        decision::{Decision, Verdict},
        failure::{Failure, FailureClass, Pushback},
        plan::ReportStatus,
        time::Timestamp,
    },
    store::Store,
};
use tokio::runtime::Runtime;

use super::{
    checker::{self, Allowed, Happened},
    stage::{Asked, Begun, Stage, ms, secs},
};
use crate::{
    model::agreement::cases,
    store_contract::subject::{self, Subject as Place},
};

/// Histories on each store in a normal test run.
const HISTORIES: u32 = 200;
/// Of those on a server of its own, where each call takes a round trip.
const OVER_REDIS: u32 = 10;
/// When all has to be done at the latest: more than the slowest rate, the longest
/// pauses and the widest windows need, one after the other.
const DONE_WITHIN: Duration = secs(1800);
/// Calls of a history at most.
const CALLS_MAX: usize = 20_000;
/// The lease that workers ask for, and how often they are heard.
const LEASE: Duration = secs(2);
const BEAT_EVERY: Duration = ms(900);
const POLICY: &str = "
backoff: {exponential: {delay: 200ms}, max_delay: 2s, jitter: full}
max_crash_retries: 50
";

/// A rate: starts, period in ms, burst.
type Numbers = (u32, u32, u32);

/// What a target allows, and what it allows after a change.
#[derive(Clone, Debug)]
struct TargetSketch {
    rate: Option<[Numbers; 2]>,
    retries_only: bool,
    max: Option<[u32; 2]>,
    budget: Option<BudgetSketch>,
    each_run: bool,
}

#[derive(Clone, Copy, Debug)]
struct BudgetSketch {
    per_mille: u32,
    floor: u32,
    window_s: u32,
    stops: bool,
}

#[derive(Clone, Debug)]
struct StepSketch {
    run: usize,
    /// The targets it names, in its own order.
    targets: Vec<usize>,
    first_ms: u64,
    deadline_s: Option<u64>,
    /// Attempts that do not succeed; the one after them does.
    tries: Vec<Try>,
    /// How its worker comes when it is told to; after these on time.
    comes: Vec<Come>,
}

/// An attempt that does not succeed.
#[derive(Clone, Copy, Debug)]
struct Try {
    end: End,
    took_ms: u64,
    beats: bool,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Fails(FailureClass),
    /// A target asks everybody to stay away so long.
    PushedBack(u64),
    /// Nothing is heard of it again.
    Vanishes,
}

#[derive(Clone, Copy, Debug)]
enum Come {
    Early(u64),
    Late(u64),
}

/// What an operator does.
#[derive(Clone, Copy, Debug)]
enum Order {
    Pause(u64),
    Resume,
    Change,
}

#[derive(Clone, Debug)]
struct Sketch {
    targets: Vec<TargetSketch>,
    steps: Vec<StepSketch>,
    orders: Vec<(u64, usize, Order)>,
}

fn numbers() -> impl Strategy<Value = Numbers> {
    (1..=20u32, prop::sample::select(vec![500u32, 1000, 3000]), 1..=8u32)
}

/// A rate and another one with the same grace, in either order. A worker is given
/// the grace of the rate in force, not of the one that its start was promised
/// under: were that longer, those who are late could start all at once.
fn rates() -> impl Strategy<Value = [Numbers; 2]> {
    (numbers(), 2..=3u32, any::<bool>()).prop_map(|((limit, period, burst), factor, is_raised)| {
        let factor = if burst == 1 { 1 } else { factor };
        let (one, other) = ((limit, period, burst), (limit * factor, period, burst * factor));
        if is_raised { [one, other] } else { [other, one] }
    })
}

fn target() -> impl Strategy<Value = TargetSketch> {
    let rate = prop::option::of(rates());
    let budget = (0..=1000u32, 2..=5u32, 1..=12u32, prop::bool::weighted(0.2));
    let budget = budget.prop_map(|(per_mille, floor, window_s, stops)| BudgetSketch {
        per_mille,
        floor,
        window_s,
        stops,
    });
    let max = prop::option::of([1..=4u32, 1..=4u32]);
    let rest = (prop::bool::weighted(0.2), prop::option::of(budget), prop::bool::weighted(0.2));
    (rate, max, rest).prop_map(|(rate, max, (retries_only, budget, each_run))| {
        // One that bounds nothing is no target.
        let max = max.or_else(|| (rate.is_none() && budget.is_none()).then_some([2, 1]));
        TargetSketch { rate, retries_only, max, budget, each_run }
    })
}

fn attempt() -> impl Strategy<Value = Try> {
    use FailureClass::{Error, Failure, Throttled, Timeout, Transient};
    let class = prop::sample::select(vec![Transient, Failure, Error, Timeout, Throttled]);
    let end = prop_oneof![
        6 => class.prop_map(End::Fails),
        1 => (100..4000u64).prop_map(End::PushedBack),
        2 => Just(End::Vanishes),
    ];
    (end, 0..5000u64, any::<bool>()).prop_map(|(end, took_ms, beats)| Try { end, took_ms, beats })
}

fn step() -> impl Strategy<Value = StepSketch> {
    let come = prop_oneof![
        2 => Just(Come::Late(0)),
        2 => (0..300u64).prop_map(Come::Late),
        2 => (0..7000u64).prop_map(Come::Late),
        1 => (0..2000u64).prop_map(Come::Early),
    ];
    (
        0..2usize,
        prop::sample::subsequence(vec![0usize, 1, 2], 1..=3).prop_shuffle(),
        0..3000u64,
        prop::option::weighted(0.15, 4..60u64),
        prop::collection::vec(attempt(), 0..4),
        prop::collection::vec(come, 0..6),
    )
        .prop_map(|(run, targets, first_ms, deadline_s, tries, comes)| StepSketch {
            run,
            targets,
            first_ms,
            deadline_s,
            tries,
            comes,
        })
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let order = prop_oneof![
        2 => (500..6000u64).prop_map(Order::Pause),
        1 => Just(Order::Resume),
        3 => Just(Order::Change),
    ];
    (
        prop::collection::vec(target(), 3),
        prop::collection::vec(step(), 2..14),
        prop::collection::vec((0..15_000u64, 0..3usize, order), 0..5),
    )
        .prop_map(|(targets, steps, orders)| Sketch { targets, steps, orders })
}

/// What is done next, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Order(usize),
    Begin,
    Beat { fence: u64, until: u64 },
    Report { fence: u64, attempt: usize },
}

/// What a worker remembers of its step.
#[derive(Clone, Debug, Default)]
struct Worker {
    /// Attempts that were granted.
    granted: usize,
    /// Times it was told to come.
    told: usize,
    /// What the next retry costs.
    cost: u64,
    deadline: Option<u64>,
    is_done: bool,
}

/// One history on its way.
struct Playing<'a, S> {
    stage: &'a mut Stage<S>,
    sketch: &'a Sketch,
    began: u64,
    /// Which of its numbers a target has.
    changed: Vec<usize>,
    queue: BinaryHeap<Reverse<(u64, u64, usize, Deed)>>,
    queued: u64,
    workers: Vec<Worker>,
    allowed: BTreeMap<String, Vec<Allowed>>,
    log: Vec<Happened>,
}

fn name(target: usize) -> String {
    format!("t{target}")
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap()
}

impl TargetSketch {
    fn yaml(&self, version: usize) -> String {
        let mut yaml = format!("each_run: {}\n", self.each_run);
        if let Some(rates) = self.rate {
            let (limit, period, burst) = rates[version];
            let on = if self.retries_only { "retries" } else { "all" };
            yaml += &format!(
                "rate: {{limit: {limit}, period: {period}ms, burst: {burst}, on: {on}}}\n"
            );
        }
        if let Some(max) = self.max {
            yaml += &format!("concurrency: {{max: {}}}\n", max[version]);
        }
        if let Some(BudgetSketch { per_mille, floor, window_s, stops }) = self.budget {
            let when = if stops { "stop" } else { "wait" };
            yaml += &format!(
                "budget: {{ratio: {}, floor: {floor}, window: {window_s}s, when_spent: {when}}}\n",
                f64::from(per_mille) / 1000.0
            );
        }
        yaml
    }

    fn allowed(&self, version: usize, since: u64) -> Allowed {
        Allowed {
            since,
            rate: self.rate.map(|rates| {
                let (limit, period, burst) = rates[version];
                checker::Rate {
                    limit: limit.into(),
                    period: u64::from(period) * 1000,
                    burst: burst.into(),
                    retries_only: self.retries_only,
                }
            }),
            max: self.max.map(|max| max[version].into()),
            budget: self.budget.map(|budget| checker::Budget {
                per_mille: budget.per_mille.into(),
                floor: budget.floor.into(),
                window: u64::from(budget.window_s) * 1_000_000,
            }),
        }
    }

    /// What it is known by in the log, to steps of a run.
    fn states(&self, target: usize) -> Vec<String> {
        if self.each_run {
            (0..2).map(|run| format!("{}/run{run}", name(target))).collect()
        } else {
            vec![name(target)]
        }
    }

    fn state(&self, target: usize, run: usize) -> String {
        let states = self.states(target);
        states[run % states.len()].clone()
    }
}

impl<'a, S: Store> Playing<'a, S> {
    async fn begin(stage: &'a mut Stage<S>, sketch: &'a Sketch, number: u64) -> Self {
        stage.enter(&format!("history-{number}"), POLICY).await;
        let mut playing = Self {
            began: stage.now().as_micros(),
            stage,
            sketch,
            changed: vec![0; sketch.targets.len()],
            queue: BinaryHeap::new(),
            queued: 0,
            workers: vec![Worker { cost: 1000, ..Worker::default() }; sketch.steps.len()],
            allowed: BTreeMap::new(),
            log: Vec::new(),
        };
        for target in 0..sketch.targets.len() {
            playing.write(target).await;
        }
        for (at, step) in sketch.steps.iter().enumerate() {
            playing.later(playing.began + step.first_ms * 1000, at, Deed::Begin);
        }
        for (at, (after_ms, ..)) in sketch.orders.iter().enumerate() {
            playing.later(playing.began + after_ms * 1000, 0, Deed::Order(at));
        }
        playing
    }

    /// Writes a target as it now is.
    async fn write(&mut self, target: usize) {
        let (sketch, version) = (&self.sketch.targets[target], self.changed[target]);
        self.stage.target(&name(target), &sketch.yaml(version)).await;
        let allowed = sketch.allowed(version, self.now());
        for state in sketch.states(target) {
            self.allowed.entry(state).or_default().push(allowed.clone());
        }
    }

    fn now(&self) -> u64 {
        self.stage.now().as_micros()
    }

    fn later(&mut self, at: u64, step: usize, deed: Deed) {
        self.queued += 1;
        self.queue.push(Reverse((at, self.queued, step, deed)));
    }

    fn path(&self, step: usize) -> String {
        format!("run{}/step{step}", self.sketch.steps[step].run)
    }

    /// Comes when it is told to, or as its sketch has it.
    fn comes(&mut self, step: usize, told: u64) {
        let worker = &mut self.workers[step];
        let come = self.sketch.steps[step].comes.get(worker.told);
        worker.told += 1;
        let at = match come {
            None => told,
            Some(Come::Late(ms)) => told + ms * 1000,
            Some(Come::Early(ms)) => told.saturating_sub(ms * 1000),
        };
        self.later(at.max(self.now() + 1), step, Deed::Begin);
    }

    /// Obeys a decision.
    fn obeys(&mut self, step: usize, decision: &Decision) {
        match decision.settled.verdict {
            Verdict::Retry(at) | Verdict::Wait(Some(at)) => self.comes(step, at.as_micros()),
            Verdict::Wait(None) => self.comes(step, self.now() + 1_000_000),
            Verdict::Stop | Verdict::Done => self.workers[step].is_done = true,
            Verdict::Hold(_) => panic!("nothing is held here"),
        }
    }

    async fn play(&mut self) -> Result<(), String> {
        for _ in 0..CALLS_MAX {
            if self.workers.iter().all(|worker| worker.is_done) {
                return checker::check(&self.allowed, &self.log);
            }
            let Some(Reverse((at, _, step, deed))) = self.queue.pop() else {
                return Err(format!("nobody comes any more: {:?}", self.workers));
            };
            if at > self.began + micros(DONE_WITHIN) {
                return Err(format!("not done in time: {:?}", self.workers));
            }
            self.stage.reach(Timestamp::from_micros(at.max(self.now()))).await;
            match deed {
                Deed::Order(order) => self.order(order).await,
                Deed::Begin => self.begins(step).await?,
                Deed::Beat { fence, until } => self.beats(step, fence, until).await,
                Deed::Report { fence, attempt } => self.reports(step, fence, attempt).await,
            }
        }
        Err(format!("too many calls: {:?}", self.workers))
    }

    async fn order(&mut self, order: usize) {
        let (_, target, order) = self.sketch.orders[order];
        match order {
            Order::Pause(span) => {
                self.stage.pause(&name(target), Some(ms(span))).await;
                let until = self.now() + span * 1000;
                self.log.push(Happened::Paused { target: name(target), until });
            }
            Order::Resume => {
                self.stage.resume(&name(target)).await;
                self.log.push(Happened::Resumed { target: name(target) });
            }
            Order::Change => {
                // A start of the same instant came before: it was bound by what was.
                self.stage.clock.advance(Duration::from_micros(1));
                self.changed[target] = 1 - self.changed[target];
                self.write(target).await;
            }
        }
    }

    async fn begins(&mut self, step: usize) -> Result<(), String> {
        let sketch = &self.sketch.steps[step];
        let names: Vec<String> = sketch.targets.iter().map(|target| name(*target)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let now = self.now();
        let ends_by = sketch.deadline_s.map(|span| now + micros(secs(span)));
        let deadline = self.workers[step].deadline.or(ends_by);
        self.workers[step].deadline = deadline;
        let deadline = deadline.map(Timestamp::from_micros);
        let asked = Asked {
            step: &self.path(step),
            targets: &names,
            lease: Some(LEASE),
            deadline,
            ..Asked::default()
        };
        let grant = match self.stage.ask(asked).await {
            Begun::Refused(decision) => {
                self.obeys(step, &decision);
                return Ok(());
            }
            Begun::Granted(grant) => grant,
        };
        let worker = &mut self.workers[step];
        if worker.deadline.is_some_and(|deadline| now > deadline) {
            return Err(format!("step {step} starts at {now}, past its deadline"));
        }
        let attempt = worker.granted;
        worker.granted += 1;
        let cost = (grant.attempt > 1).then_some(worker.cost);
        // Unless something else is recorded, it vanished.
        worker.cost = 1000;
        let states = |target: &usize| self.sketch.targets[*target].state(*target, sketch.run);
        self.log.push(Happened::Started {
            at: now,
            step,
            targets: sketch.targets.iter().map(states).collect(),
            cost,
            lease_until: grant.lease_until.as_micros(),
        });
        self.runs(step, attempt, grant.fence, grant.lease_until.as_micros());
        Ok(())
    }

    /// What an attempt will do.
    fn runs(&mut self, step: usize, attempt: usize, fence: u64, lease_until: u64) {
        let now = self.now();
        let sketch = self.sketch.steps[step].tries.get(attempt).copied();
        let took = sketch.map_or(300, |attempt| attempt.took_ms) * 1000;
        if sketch.is_some_and(|attempt| attempt.beats) {
            self.later(now + micros(BEAT_EVERY), step, Deed::Beat { fence, until: now + took });
        }
        match sketch {
            Some(Try { end: End::Vanishes, .. }) => {
                self.comes(step, lease_until.max(now + took) + 1);
            }
            _ => self.later(now + took, step, Deed::Report { fence, attempt }),
        }
    }

    async fn beats(&mut self, step: usize, fence: u64, until: u64) {
        let now = self.now();
        if now >= until {
            return;
        }
        if let Some(held) = self.stage.beat(&self.path(step), fence).await {
            self.log.push(Happened::Held { step, lease_until: held.as_micros() });
            self.later(now + micros(BEAT_EVERY), step, Deed::Beat { fence, until });
        }
    }

    async fn reports(&mut self, step: usize, fence: u64, attempt: usize) {
        let (now, path) = (self.now(), self.path(step));
        let Some(attempt) = self.sketch.steps[step].tries.get(attempt) else {
            match self.stage.succeed(&path, fence).await {
                ReportStatus::Stale => self.comes(step, now + 1_000_000),
                ReportStatus::Recorded | ReportStatus::Late => self.workers[step].is_done = true,
            }
            self.log.push(Happened::Ended { at: now, step });
            return;
        };
        let sketch = &self.sketch.steps[step];
        let at_fault = sketch.targets[0];
        let failure = match attempt.end {
            End::Fails(class) => Failure::of(class),
            End::PushedBack(after) => Failure {
                target: name(at_fault),
                pushback: Some(Pushback::After(ms(after))),
                ..Failure::of(FailureClass::Throttled)
            },
            End::Vanishes => return,
        };
        let class = failure.class;
        let (status, decision) = self.stage.fail(&path, fence, failure).await;
        self.log.push(Happened::Ended { at: now, step });
        if status == ReportStatus::Recorded {
            self.workers[step].cost = match class {
                FailureClass::Timeout => 2000,
                FailureClass::Throttled => 500,
                _ => 1000,
            };
            if let End::PushedBack(after) = attempt.end {
                let target = self.sketch.targets[at_fault].state(at_fault, sketch.run);
                self.log.push(Happened::Cooled { target, until: now + after * 1000 });
            }
        }
        self.obeys(step, &decision);
    }
}

/// Plays random histories on a store, each in a namespace of its own.
fn all_keep<S: Store, F: Future<Output = Place<S>>>(histories: u32, make: impl FnOnce(Clock) -> F) {
    let runtime = Runtime::new().unwrap();
    let stage = runtime.block_on(async { Stage::on(make(subject::clock()).await).await });
    let played = RefCell::new((stage, 0));
    let config = ProptestConfig {
        cases: cases(histories).min(20 * histories),
        failure_persistence: None,
        ..Default::default()
    };
    let kept = TestRunner::new(config).run(&sketch(), |sketch| {
        let (stage, number) = &mut *played.borrow_mut();
        *number += 1;
        let kept = runtime.block_on(async {
            let mut playing = Playing::begin(stage, &sketch, *number).await;
            let kept = playing.play().await;
            let kept = kept.map_err(|law| format!("{law}\n{:#?}", playing.log));
            if kept.is_ok() {
                stage.leave().await;
            }
            kept
        });
        kept.map_err(TestCaseError::fail)
    });
    match kept {
        Ok(()) => {}
        Err(TestError::Fail(why, sketch)) => panic!("{why}\nin {sketch:#?}"),
        Err(error) => panic!("{error}"),
    }
}

/// The histories of a store: `$make` makes it, from a clock.
macro_rules! keeps {
    ($store:ident, $histories:expr, $make:expr) => {
        #[test]
        fn $store() {
            super::all_keep($histories, $make);
        }
    };
}

/// Every history keeps the laws of limits, and comes to its end.
mod every_history_keeps_the_laws_and_ends_on {
    keeps!(memory, super::HISTORIES, crate::store_contract::subject::memory);
    keeps!(embedded, super::HISTORIES, crate::store_contract::subject::embedded);
    keeps!(redis, super::OVER_REDIS, crate::store_contract::subject::redis);
}

//! What a decision costs in memory: load, plan and commit, decoding and encoding
//! included, among 100 000 steps.

#![allow(clippy::panic, reason = "a measurement that goes wrong ends at once")]

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use reprise::{
    clock::Clock,
    domain::{
        event::{AttemptName, Begin, Comes, Event, Heartbeat, Report, StepTerms},
        failure::{Failure, FailureClass},
        id::{StepKey, StepName},
        namespace::Settings,
        plan::{self, Answer, Plan, Terms},
        record::{Identity, PolicyChoice},
        time::Timestamp,
    },
    store::{
        Change, Commit, Committed, ConfigurationChange, Expect, Store,
        configuration::{NamespaceEntry, PolicyHistory, PolicyRevision},
        embedded::Embedded,
    },
};

const STEPS: usize = 100_000;
const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// As in the service's own process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bench {
    runtime: tokio::runtime::Runtime,
    store: Embedded,
    clock: Clock,
    choice: PolicyChoice,
    keys: Vec<StepName>,
    fences: Vec<u64>,
    at: usize,
}

impl Bench {
    fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime is built");
        let clock = Clock::manual(START);
        let store = Embedded::memory(clock.clone());
        let key = |number| StepName {
            namespace: "n".to_owned(),
            run: format!("2024-06-01/{:06}", number / 50),
            step: format!("load-orders-{:02}", number % 50),
        };
        let namespace = "n".parse().expect("an id");
        let policy = "p".parse::<reprise::domain::id::Id>().expect("an id");
        let mut history = PolicyHistory::default();
        let spec = serde_saphyr::from_str("{backoff: {fixed: {delay: 1s}, jitter: full}}")
            .expect("a spec");
        history.add(PolicyRevision::parse(spec, 1, START).expect("a policy"));
        let settings = Settings {
            max_live_steps: u64::MAX,
            max_retries_ceiling: u32::MAX,
            ..Settings::default()
        };
        runtime.block_on(async {
            let entry = NamespaceEntry::new(settings, START);
            store
                .configure(&namespace, 0, ConfigurationChange::Namespace(entry))
                .await
                .expect("it is created");
            store
                .configure(&namespace, 1, ConfigurationChange::Policy(policy.clone(), history))
                .await
                .expect("it is created");
        });
        let choice = PolicyChoice::Named(policy);
        Self {
            runtime,
            store,
            clock,
            choice,
            keys: (0..STEPS).map(key).collect(),
            fences: vec![0; STEPS],
            at: 0,
        }
    }

    /// The next step, not the one that the cache still holds.
    fn next(&mut self) -> usize {
        self.at = (self.at + 7919) % STEPS;
        self.at
    }

    fn apply(&self, key: &StepKey<'_>, event: &Event) -> Answer {
        self.runtime.block_on(async {
            let loaded = self.store.load(key, Expect::Anything).await.expect("it is loaded");
            let (_, revision) = loaded.configuration.policy(&self.choice).expect("it was created");
            let terms = Terms {
                policy: &revision.policy,
                revision: 1,
                choice: &self.choice,
                settings: &loaded.configuration.namespace.settings,
                salt: loaded.salt,
                bounds: &[],
                run: None,
            };
            let version = loaded.record.as_ref().map_or(0, |record| record.version);
            let Ok(Plan::Write(draft)) = plan::plan(&terms, key, loaded.record, event, loaded.now)
            else {
                panic!("{event:?} changes nothing");
            };
            let commit = Commit {
                configuration: loaded.configuration.revision,
                version,
                now: loaded.now,
                change: Change::Write(draft),
            };
            match self.store.commit(key, commit).await {
                Ok(Committed::Written(answer)) => answer,
                other => panic!("{other:?}"),
            }
        })
    }

    fn begin(&mut self, number: usize) {
        let key = self.keys[number].key();
        let identity =
            Identity { id: self.fences[number] + number as u64 + 1, payload: number as u64 };
        let host = Some("node-17.eu-west".into());
        let worker = "worker-3".to_owned();
        let Answer::Granted(grant) = self.apply(
            &key,
            &Event::Begin(Begin {
                identity,
                lease: None,
                host,
                worker,
                comes: Comes::ByItself,
                step: StepTerms::default(),
            }),
        ) else {
            panic!("it is not granted");
        };
        self.fences[number] = grant.fence;
    }

    fn fail(&self, number: usize) {
        let failure = Failure { exit_code: Some(137), ..Failure::of(FailureClass::Transient) };
        let attempt = AttemptName::Fence(self.fences[number]);
        let report =
            Report { attempt, payload: 7, failure: Some(failure), step: StepTerms::default() };
        black_box(self.apply(&self.keys[number].key(), &Event::Report(report)));
    }
}

fn store(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    // Two attempts each, so that records are as long as they are in life.
    for number in (0..STEPS).chain(0..STEPS) {
        bench.begin(number);
        bench.fail(number);
        bench.clock.advance(Duration::from_micros(20));
    }
    bench.clock.advance(Duration::from_secs(1));
    criterion.bench_function("load a step", |b| {
        b.iter(|| {
            let number = bench.next();
            bench
                .runtime
                .block_on(bench.store.load(&bench.keys[number].key(), Expect::Anything))
                .expect("it is loaded")
        });
    });
    criterion.bench_function("begin and report", |b| {
        b.iter(|| {
            let number = bench.next();
            bench.begin(number);
            bench.fail(number);
            bench.clock.advance(Duration::from_micros(20));
        });
    });
    for number in 0..STEPS {
        bench.clock.advance(Duration::from_micros(20));
        bench.begin(number);
    }
    criterion.bench_function("heartbeat", |b| {
        b.iter(|| {
            let number = bench.next();
            let heartbeat = Heartbeat { fence: bench.fences[number], lease: None, progress: None };
            bench.apply(&bench.keys[number].key(), &Event::Heartbeat(heartbeat))
        });
    });
    criterion.bench_function("look for due steps", |b| {
        b.iter(|| bench.runtime.block_on(bench.store.peek_due(64)).expect("it is looked"));
    });
}

criterion_group!(benches, store);
criterion_main!(benches);

//! What only a store on a disk promises: it comes back as it was, one process
//! at a time, and a disk without room takes nothing away.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reprise::{
    clock::Clock,
    domain::{
        event::{AttemptName, Event},
        failure::{Failure, FailureClass},
        limit::{Pause, spec::TargetSpec},
        record::{PolicyChoice, State},
        time::Timestamp,
    },
    store::{
        Changes, ConfigurationChange, Expect, Store, StoreError,
        configuration::TargetEntry,
        embedded::{Embedded, EmbeddedError, EmbeddedOptions, log::Fsync},
    },
};
use tempfile::TempDir;

use crate::store_contract::{
    history::{Chance, World},
    subject::{self, Subject, *},
};

/// A clock that was set back by a day while the store was closed.
fn clock_set_back() -> Clock {
    Clock::manual(Timestamp::from_micros(START.as_micros() - 24 * 3_600_000_000))
}

/// Ends the store as a process ends, and opens it again.
fn reopened(subject: Subject<Embedded>) -> Subject<Embedded> {
    reopened_with(subject, subject::options, clock_set_back())
}

fn reopened_with(
    subject: Subject<Embedded>,
    options: impl Fn(&TempDir) -> EmbeddedOptions,
    clock: Clock,
) -> Subject<Embedded> {
    let Subject { store, dir, .. } = subject;
    let dir = dir.unwrap();
    drop(store);
    let store = Embedded::open(&options(&dir), clock.clone()).unwrap();
    Subject { store, clock, dir: Some(dir), server: None }
}

/// Everything about configuration that a reopening has to keep.
async fn configurations(subject: &Subject<Embedded>) -> Vec<String> {
    let mut all = Vec::new();
    for view in subject.store.namespaces("", 100).await.unwrap() {
        all.push(format!("{:?}", subject.store.configuration(&view.name).await.unwrap()));
    }
    all
}

async fn history(seed: u64, rounds: usize, snapshots: bool) {
    let mut world = World::new(subject::embedded(subject::clock()).await, seed).await;
    let mut chance = Chance(seed ^ 0xabcd);
    for _ in 0..rounds {
        for _ in 0..chance.below(200) {
            world.step().await;
            if snapshots && chance.below(60) == 0 {
                world.subject.store.snapshot().unwrap();
            }
        }
        let key = key("a", "r0", "s0");
        let (salt, configured) =
            (world.subject.load(key).await.salt, configurations(&world.subject).await);
        world.subject = reopened(world.subject);
        assert!(world.subject.clock.now() >= world.model.last, "time went back");
        assert_eq!(world.subject.load(key).await.salt, salt);
        assert_eq!(configurations(&world.subject).await, configured);
        world.check().await;
    }
}

#[tokio::test]
async fn a_history_goes_on_after_each_reopening() {
    for seed in 0..3 {
        history(seed, 6, false).await;
    }
}

#[tokio::test]
async fn a_history_goes_on_from_snapshots() {
    for seed in 10..13 {
        history(seed, 6, true).await;
    }
}

#[tokio::test]
async fn without_a_snapshot_every_change_is_still_known() {
    let subject = subject::embedded(subject::clock()).await;
    subject.create("n").await;
    let fence = subject.apply(key("n", "r", "s"), &begin(1)).await.record().fence;
    for _ in 0..100 {
        subject.apply(key("n", "r", "s"), &heartbeat(fence)).await;
    }
    let changes = subject.changes("n").await;
    let subject = reopened(subject);
    assert_eq!(subject.changes("n").await, changes);
    assert_eq!(changes.len(), 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_while_steps_change_loses_nothing() {
    let subject = Arc::new(subject::embedded(subject::clock()).await);
    for namespace in ["a", "b"] {
        subject.create(namespace).await;
    }
    let mut tasks = Vec::new();
    for task in 0..4u64 {
        let subject = Arc::clone(&subject);
        tasks.push(tokio::spawn(async move {
            let mut chance = Chance(task);
            for round in 0..1500 {
                let namespace = if chance.below(2) == 0 { "a" } else { "b" };
                // Steps of this task only, so that it knows what is right.
                let step = format!("{task}.{}", chance.below(300));
                let event = match chance.below(3) {
                    0 => begin(round),
                    _ => report(
                        AttemptName::Request(round),
                        round,
                        Some(Failure::of(FailureClass::Error)),
                    ),
                };
                subject.apply(key(namespace, "r", &step), &event).await;
            }
        }));
    }
    let snapshots = {
        let subject = Arc::clone(&subject);
        tokio::task::spawn_blocking(move || {
            for _ in 0..20 {
                subject.store.snapshot().unwrap();
            }
        })
    };
    for task in tasks {
        task.await.unwrap();
    }
    snapshots.await.unwrap();

    let subject = Arc::into_inner(subject).unwrap();
    let before = everything(&subject).await;
    assert!(before.len() > 1000);
    let subject = reopened(subject);
    assert_eq!(everything(&subject).await, before);
}

async fn everything(subject: &Subject<Embedded>) -> Vec<String> {
    let mut all = Vec::new();
    for namespace in ["a", "b"] {
        let latest = match subject.store.follow(namespace, u64::MAX, 0).await.unwrap() {
            Changes::Gap(_) => subject.changes(namespace).await.last().map(|change| change.number),
            Changes::Follow(_) => None,
        };
        all.push(format!("{namespace} {latest:?}"));
        for task in 0..4 {
            for number in 0..300 {
                let step = format!("{task}.{number}");
                let key = key(namespace, "r", &step);
                if let Some(record) = subject.record(key).await {
                    all.push(format!(
                        "{key} {record:?} {:?}",
                        subject.store.evidence(&key).await.unwrap()
                    ));
                }
            }
        }
    }
    all
}

#[tokio::test]
async fn targets_survive_a_reopening_with_and_without_a_snapshot() {
    let written = |yaml: &str, revision| {
        let spec: TargetSpec = serde_saphyr::from_str(yaml).unwrap();
        Some(TargetEntry::parse(spec, revision, START).unwrap())
    };
    let pause =
        Pause { reason: "moved".to_owned(), by: "ann".to_owned(), since: START, until: None };
    for snapshot in [false, true] {
        let subject = subject::embedded(subject::clock()).await;
        subject.create("n").await;
        let limited = written("{rate: {limit: 3, period: 90s}, budget: {ratio: 0.3}}", 2);
        let paused =
            written("{}", 3).map(|entry| TargetEntry { pause: Some(pause.clone()), ..entry });
        for (name, entry) in
            [("db", limited), ("gpu", paused), ("gone", written("{}", 4)), ("gone", None)]
        {
            subject.reconfigure("n", ConfigurationChange::Target(id(name), entry)).await.unwrap();
        }
        let before = configurations(&subject).await;
        if snapshot {
            subject.store.snapshot().unwrap();
        }
        let subject = reopened(subject);
        assert_eq!(configurations(&subject).await, before);
        let configuration = subject.store.configuration("n").await.unwrap();
        assert_eq!((configuration.revision, configuration.targets.len()), (5, 2));
    }
}

#[tokio::test]
async fn what_a_snapshot_leaves_out_does_not_stop_the_opening() {
    let subject = subject::embedded(subject::clock()).await;
    subject.create("n").await;
    let step = key("n", "r", "s");
    subject
        .reconfigure("n", ConfigurationChange::Policy(id("p"), policy("max_retries: 1")))
        .await
        .unwrap();
    let target = TargetEntry::parse(TargetSpec::default(), 3, START).unwrap();
    subject.reconfigure("n", ConfigurationChange::Target(id("t"), Some(target))).await.unwrap();
    subject
        .reconfigure("n", ConfigurationChange::Inline(Arc::new(revision("max_retries: 2", 0))))
        .await
        .unwrap();
    subject.apply(step, &failed(1, "text")).await;
    subject.apply(step, &report(AttemptName::Number(2), 0, None)).await;
    subject.pass(Duration::from_secs(61)).await;
    subject.apply(step, &Event::Tick).await;
    subject.reconfigure("n", ConfigurationChange::DeleteNamespace).await.unwrap();
    // The segment in use still holds all of that, and is read after it.
    subject.store.snapshot().unwrap();
    let subject = reopened(subject);
    assert!(matches!(subject.store.configuration("n").await, Err(StoreError::NamespaceUnknown(_))));
    subject.create("n").await;
    let subject = reopened(subject);
    assert_eq!(subject.revision("n").await, 1);
    assert_eq!(subject.record(step).await, None);
}

#[tokio::test]
async fn a_restart_expires_no_lease_for_a_while() {
    let subject = subject::embedded(subject::clock()).await;
    subject.create("n").await;
    let step = key("n", "r", "s");
    subject.apply(step, &begin(1)).await;
    let away = |seconds| Clock::manual(START.plus(Duration::from_secs(seconds)));

    let subject = reopened_with(subject, subject::options, away(60));
    let now = subject.load(step).await.now;
    assert_eq!((now.at, now.leases), (START.plus(Duration::from_secs(60)), START));
    assert_eq!(subject.due(10).await, []);

    // Gone again before anybody could be heard, with something written between.
    subject.pass(Duration::from_secs(5)).await;
    subject.apply(key("n", "r", "other"), &begin(1)).await;
    subject.store.snapshot().unwrap();
    let subject = reopened_with(subject, subject::options, away(120));
    assert_eq!(subject.load(step).await.now.leases, START);
    subject.pass(Duration::from_secs(9)).await;
    assert_eq!(subject.due(10).await, []);
    subject.pass(SECOND).await;
    assert_eq!(subject.due(10).await.len(), 2);
    assert_eq!(subject.load(step).await.now.leases, subject.clock.now());
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let subject = subject::embedded(subject::clock()).await;
    let options = subject::options(subject.dir.as_ref().unwrap());
    let error = Embedded::open(&options, subject::clock()).map(|_| ()).unwrap_err();
    assert!(matches!(error, EmbeddedError::Log(_)));
    assert!(error.to_string().contains("in use by process"), "{error}");
    reopened(subject).create("n").await;
}

#[tokio::test]
async fn stores_say_what_they_are() {
    let about = |fsync| {
        let dir = TempDir::new().unwrap();
        let options = EmbeddedOptions { dir: dir.path().to_owned(), fsync, size_max: None };
        Embedded::open(&options, subject::clock()).unwrap().describe()
    };
    let strict = about(Fsync::Always);
    assert_eq!(
        (strict.store, &*strict.durability),
        ("embedded", "synced to disk before each answer")
    );
    let relaxed = about(Fsync::Interval(Duration::from_millis(200)));
    assert_eq!(relaxed.durability, "survives the process; synced to disk every 200ms");
    let memory = Embedded::memory(subject::clock()).describe();
    assert_eq!((memory.store, &*memory.durability), ("memory", "nothing outlives the process"));
}

#[tokio::test]
async fn memory_keeps_nothing() {
    let first = subject::memory(subject::clock()).await;
    first.create("n").await;
    let second = subject::memory(subject::clock()).await;
    assert!(matches!(second.store.configuration("n").await, Err(StoreError::NamespaceUnknown(_))));
    assert_ne!(
        first.store.load(&key("default", "r", "s"), Expect::Anything).await.unwrap().salt,
        second.store.load(&key("default", "r", "s"), Expect::Anything).await.unwrap().salt
    );
    assert_eq!(first.store.sizes().unwrap().disk_bytes, 0);
}

/// Small enough to be full soon: five segments of 8 MiB.
fn small(dir: &TempDir) -> EmbeddedOptions {
    EmbeddedOptions { size_max: Some(40 << 20), ..subject::options(dir) }
}

/// Large records, so that a disk is full after few writes.
fn large_begin(request: u64) -> Event {
    let Event::Begin(mut begin) = begin(request) else { unreachable!() };
    begin.step.kind = "k".repeat(32 << 10);
    Event::Begin(begin)
}

#[tokio::test]
async fn a_full_store_refuses_beginnings_takes_reports_and_recovers() {
    let dir = TempDir::new().unwrap();
    let clock = subject::clock();
    let store = Embedded::open(&small(&dir), clock.clone()).unwrap();
    let subject = Subject { store, clock, dir: Some(dir), server: None };
    subject.create("n").await;
    let change = ConfigurationChange::Policy(id("p"), policy("{max_retries: 900}"));
    subject.reconfigure("n", change).await.unwrap();
    let choice = PolicyChoice::Named(id("p"));

    // Few steps that begin and fail, over and over, until there is no room.
    let steps: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    let mut acknowledged = BTreeMap::new();
    let mut request = 0;
    let (refused, at) = 'full: loop {
        for step in &steps {
            request += 1;
            match subject.try_apply(key("n", "r", step), &choice, &large_begin(request)).await {
                Ok(applied) => acknowledged.insert(step.clone(), applied.record().clone()),
                Err(error) => break 'full (error, step.clone()),
            };
        }
        for step in &steps {
            let fence = acknowledged[step].fence;
            let report =
                report(AttemptName::Fence(fence), 1, Some(Failure::of(FailureClass::Error)));
            let applied = subject.try_apply(key("n", "r", step), &choice, &report).await.unwrap();
            acknowledged.insert(step.clone(), applied.record().clone());
        }
        assert!(request < 5000, "40 MiB hold more than 160 MiB");
    };
    assert!(matches!(refused, StoreError::Full), "{refused}");
    assert_eq!(subject.record(key("n", "r", &at)).await.as_ref(), acknowledged.get(&at));
    assert!(subject.store.sizes().unwrap().disk_bytes <= 40 << 20);

    // What runs is still heard, up to the reserve.
    let mut heard = 0;
    'full: loop {
        for step in &steps {
            request += 1;
            let report =
                report(AttemptName::Request(request), 1, Some(Failure::of(FailureClass::Error)));
            match subject.try_apply(key("n", "r", step), &choice, &report).await {
                Ok(Applied::Wrote(settlement)) => {
                    acknowledged.insert(step.clone(), settlement.record)
                }
                Ok(_) => {
                    let fence = acknowledged[step].fence;
                    let applied =
                        subject.try_apply(key("n", "r", step), &choice, &heartbeat(fence)).await;
                    match applied {
                        Ok(applied) => acknowledged.insert(step.clone(), applied.record().clone()),
                        Err(StoreError::Full) => break 'full,
                        Err(error) => panic!("{error}"),
                    }
                }
                Err(StoreError::Full) => break 'full,
                Err(error) => panic!("{error}"),
            };
            heard += 1;
        }
    }
    assert!(heard > 50, "only {heard} reports and heartbeats were heard");

    // Everything acknowledged is there, and nothing else.
    let subject = reopened_with(subject, small, clock_set_back());
    for (step, record) in &acknowledged {
        assert_eq!(subject.record(key("n", "r", step)).await.as_ref(), Some(record), "{step}");
    }

    // A sweep finds the store full and makes a snapshot, and that makes room.
    let granted = async {
        for request in 0.. {
            match subject.try_apply(key("n", "r", "new"), &choice, &large_begin(request)).await {
                Ok(applied) => return applied,
                Err(StoreError::Full) => subject.pass(SECOND).await,
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        unreachable!()
    };
    let granted =
        tokio::time::timeout(Duration::from_secs(30), granted).await.expect("room came back");
    assert!(matches!(granted.record().state, State::Running { .. }));
}

//! What the embedded store still knows when its process was killed: promises,
//! permits, the line, budgets and cooldowns, from the log alone, from a snapshot
//! alone, and from a snapshot with a log behind it.

use std::{fs, io, path::Path, time::Duration};

use reprise::{
    domain::{
        decision::Reason,
        failure::FailureClass,
        limit::{ForcedState, breaker::Standing},
        plan::ReportStatus,
    },
    store::embedded::{Embedded, EmbeddedOptions, log::Fsync},
};
use tempfile::TempDir;

use super::outages::{dies, is_back};
use super::stage::{BACKOFF, Begun, LEASE, Stage, ms, of, pushed_back, retries, secs, waits};
use crate::store_contract::subject::{self, Subject as Place};

/// When snapshots are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Snapshot {
    Never,
    Halfway,
    AtTheEnd,
}

const SNAPSHOTS: [Snapshot; 3] = [Snapshot::Never, Snapshot::Halfway, Snapshot::AtTheEnd];
/// After an outage no lease is ended for so long.
const GRACE: Duration = secs(10);

fn options(dir: &TempDir) -> EmbeddedOptions {
    EmbeddedOptions { dir: dir.path().to_owned(), fsync: Fsync::Always, size_max: None }
}

async fn opened() -> Stage<Embedded> {
    let (clock, dir) = (subject::clock(), TempDir::new().unwrap());
    let store = Embedded::open(&options(&dir), clock.clone()).unwrap();
    Stage::on(Place { store, clock, dir: Some(dir), server: None }).await
}

/// The store as its files were at this moment: whatever the process still did
/// after it, such as closing them, is lost.
async fn killed(stage: Stage<Embedded>) -> Stage<Embedded> {
    let calls = stage.calls();
    let dir = copied(stage.dir.as_ref().unwrap().path());
    let (clock, _old, namespace) = stage.taken_apart();
    let store = Embedded::open(&options(&dir), clock.clone()).unwrap();
    let place = Place { store, clock, dir: Some(dir), server: None };
    Stage::again(place, namespace, calls)
}

/// A copy of the files as they are, taken again when one is renamed meanwhile.
fn copied(from: &Path) -> TempDir {
    loop {
        let dir = TempDir::new().unwrap();
        match copy(from, dir.path()) {
            Ok(()) => return dir,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}"),
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&to)?;
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn made(stage: &Stage<Embedded>, when: Snapshot, now: Snapshot) {
    if when == now {
        stage.service.store().snapshot().unwrap();
    }
}

#[tokio::test]
async fn promises_are_kept_over_a_kill() {
    for when in SNAPSHOTS {
        let mut stage = opened().await;
        stage.target("api", "rate: {limit: 1, period: 10s, burst: 1, on: retries}").await;
        let first = retries(&stage.fail_first("a", &["api"], of(FailureClass::Error)).await);
        made(&stage, when, Snapshot::Halfway);
        let second = retries(&stage.fail_first("b", &["api"], of(FailureClass::Error)).await);
        assert!(second >= first.plus(secs(10)));
        made(&stage, when, Snapshot::AtTheEnd);

        let mut stage = killed(stage).await;
        let third = retries(&stage.fail_first("c", &["api"], of(FailureClass::Error)).await);
        assert!(third >= second.plus(secs(10)), "{when:?}");
        for (step, at) in [("a", first), ("b", second), ("c", third)] {
            stage.reach(at).await;
            stage.begin(step, &[]).await.granted();
        }
    }
}

#[tokio::test]
async fn permits_and_the_line_outlive_a_kill() {
    for when in SNAPSHOTS {
        let mut stage = opened().await;
        stage.target("pool", "concurrency: {max: 2}").await;
        let a = stage.begin("a", &["pool"]).await.granted();
        stage.begin("silent", &["pool"]).await.granted();
        stage.begin("c", &["pool"]).await.waits(Reason::InLine);
        made(&stage, when, Snapshot::Halfway);
        stage.pass(ms(100)).await;
        stage.begin("b", &["pool"]).await.waits(Reason::InLine);
        made(&stage, when, Snapshot::AtTheEnd);

        let mut stage = killed(stage).await;
        let reopened = stage.now();
        stage.begin("d", &["pool"]).await.waits(Reason::InLine);
        assert_eq!(stage.succeed("a", a.fence).await, ReportStatus::Recorded);
        stage.until_due("b").await;
        stage.until_due("d").await;
        stage.begin("d", &["pool"]).await.waits(Reason::InLine);
        stage.begin("b", &["pool"]).await.waits(Reason::InLine);
        stage.begin("c", &["pool"]).await.granted();

        // Whoever is silent has the grace after the outage, and no more.
        let mut waited = Duration::ZERO;
        while let Begun::Refused(decision) = stage.begin("b", &["pool"]).await {
            waits(&decision, decision.settled.reason);
            let c = stage.record("c").await.fence;
            assert!(stage.beat("c", c).await.is_some(), "{when:?}");
            stage.pass(ms(250)).await;
            waited = stage.now() - reopened;
            assert!(waited <= GRACE + LEASE, "{when:?}");
        }
        assert!(waited >= GRACE, "{when:?} {waited:?}");
    }
}

#[tokio::test]
async fn what_was_spent_stays_spent_over_a_kill() {
    for when in SNAPSHOTS {
        let mut stage = opened().await;
        stage.target("db", "budget: {ratio: 0.0, floor: 2, window: 1m}").await;
        for step in ["a", "b", "c"] {
            stage.fail_first(step, &["db"], of(FailureClass::Error)).await;
        }
        stage.pass(BACKOFF).await;
        stage.begin("a", &["db"]).await.granted();
        made(&stage, when, Snapshot::Halfway);
        stage.begin("b", &["db"]).await.granted();
        made(&stage, when, Snapshot::AtTheEnd);

        let mut stage = killed(stage).await;
        stage.begin("c", &["db"]).await.waits(Reason::Limited);
        stage.pass(secs(66)).await;
        stage.begin("c", &["db"]).await.granted();
    }
}

#[tokio::test]
async fn an_outage_and_who_is_parked_outlive_a_kill() {
    for when in SNAPSHOTS {
        let mut stage = opened().await;
        stage.target("db", "breaker: {}").await;
        dies(&mut stage, &["db"]).await;
        stage.begin("a", &["db"]).await.waits(Reason::BreakerOpen);
        made(&stage, when, Snapshot::Halfway);
        stage.begin("b", &["db"]).await.waits(Reason::BreakerOpen);
        made(&stage, when, Snapshot::AtTheEnd);

        let mut stage = killed(stage).await;
        stage.begin("c", &["db"]).await.waits(Reason::BreakerOpen);
        is_back(&mut stage, &["db"]).await;
        stage.pass(secs(12)).await;
        for step in ["a", "b", "c"] {
            assert!(!stage.is_parked(step).await, "{step} was called: {when:?}");
            stage.begin(step, &[]).await.granted();
        }
    }
}

#[tokio::test]
async fn a_cooldown_holds_over_a_kill() {
    for when in SNAPSHOTS {
        let mut stage = opened().await;
        stage.target("db", "concurrency: {max: 9}").await;
        made(&stage, when, Snapshot::Halfway);
        stage.fail_first("a", &["db"], pushed_back("db", secs(30))).await;
        let until = stage.now().plus(secs(30));
        made(&stage, when, Snapshot::AtTheEnd);

        let mut stage = killed(stage).await;
        let at = stage.begin("b", &["db"]).await.waits(Reason::Limited);
        assert!(at >= until && at <= until.plus(secs(2)), "{when:?}");
        stage.reach(at).await;
        stage.begin("b", &["db"]).await.granted();
    }
}

#[tokio::test]
async fn what_an_operator_said_of_a_targets_health_outlives_a_kill() {
    for when in SNAPSHOTS {
        let mut stage = opened().await;
        stage.target("db", "{rate: {limit: 100, period: 1s, burst: 20}, breaker: {}}").await;
        stage.target("lies", "breaker: {}").await;
        stage.force("lies", ForcedState::Open, secs(60)).await;
        let until = stage.now().plus(secs(60));
        let a = stage.begin("a", &["db"]).await.granted();
        stage.failed("a", a.fence, pushed_back("db", secs(600))).await;
        made(&stage, when, Snapshot::Halfway);
        stage.lift("db").await;
        made(&stage, when, Snapshot::AtTheEnd);

        let mut stage = killed(stage).await;
        let used = stage.usage("db").await;
        assert_eq!(used.cooldown, None, "{when:?}");
        let began = |standing| matches!(standing, Standing::Ramp { since, .. } if since <= used.at);
        assert!(used.breaker.is_some_and(began), "{when:?}: {used:?}");
        assert_eq!(stage.begin("b", &["lies"]).await.waits(Reason::BreakerOpen), until);
        // What is said after it holds.
        stage.pass(secs(2)).await;
        stage.until_due("a").await;
        let a = stage.begin("a", &[]).await.granted();
        stage.failed("a", a.fence, pushed_back("db", secs(300))).await;
        let until = stage.now().plus(secs(300));
        let stage = killed(stage).await;
        assert_eq!(stage.usage("db").await.cooldown, Some(until), "{when:?}");
    }
}

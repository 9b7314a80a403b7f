//! Why a step waits, told while it does, each on every store.

use reprise::{
    domain::{
        decision::{ConstraintKind, Reason},
        failure::{Failure, FailureClass, Pushback},
        plan::{Explanation, Stands},
        time::Timestamp,
    },
    store::Store,
};

use super::{
    outages::{dies, is_back},
    stage::{Asked, BACKOFF, Stage, ms, of, pushed_back, retries, secs, stories_on_every_store},
};

stories_on_every_store!(
    a_backoff_binds_until_it_is_over,
    a_targets_own_wait_binds_where_it_is_longer,
    a_promised_start_binds_until_its_instant,
    who_stands_in_line_is_told_its_place,
    a_spent_budget_binds_the_next_retry,
    an_open_breaker_binds_until_a_probe_and_then_its_ramp,
    a_cooldown_binds_whoever_comes,
    a_pause_binds_with_its_reason,
    a_deadline_is_told_beside_what_binds,
    what_does_not_wait_is_not_explained,
);

/// What stands of a kind.
#[track_caller]
fn standing(explanation: &Explanation, kind: ConstraintKind) -> &Stands {
    let of_kind = |stands: &&Stands| stands.constraint.kind == kind;
    let found = explanation.constraints.iter().find(of_kind);
    found.unwrap_or_else(|| panic!("no {kind:?}: {explanation:?}"))
}

/// Kinds that decide the instant.
fn binding(explanation: &Explanation) -> Vec<ConstraintKind> {
    let constraints = explanation.constraints.iter().map(|stands| &stands.constraint);
    constraints.filter(|constraint| constraint.binding).map(|constraint| constraint.kind).collect()
}

fn used(stands: &Stands) -> Option<(u64, u64)> {
    stands.constraint.load.map(|load| (load.used, load.limit))
}

async fn a_backoff_binds_until_it_is_over<S: Store>(mut stage: Stage<S>) {
    stage.target("api", "rate: {limit: 10, period: 1s, burst: 4}").await;
    let due = retries(&stage.fail_first("a", &["api"], of(FailureClass::Transient)).await);
    let told = stage.explained("a").await;
    let backoff = standing(&told, ConstraintKind::Backoff);
    assert_eq!(backoff.constraint.earliest, stage.now().plus(BACKOFF));
    assert_eq!((told.starts_at, backoff.constraint.firm), (Some(due), true));
    assert!(backoff.without.is_some_and(|at| at < due), "{told:?}");
    assert_eq!(used(standing(&told, ConstraintKind::Rate)).map(|(_, most)| most > 0), Some(true));

    stage.reach(due).await;
    let told = stage.explained("a").await;
    assert_eq!((told.starts_at, binding(&told)), (Some(stage.now()), Vec::new()));
}

async fn a_targets_own_wait_binds_where_it_is_longer<S: Store>(mut stage: Stage<S>) {
    let failure =
        Failure { pushback: Some(Pushback::After(secs(20))), ..of(FailureClass::Throttled) };
    let due = retries(&stage.fail_first("a", &[], failure).await);
    let told = stage.explained("a").await;
    assert_eq!((told.starts_at, binding(&told)), (Some(due), vec![ConstraintKind::Pushback]));
    assert_eq!(standing(&told, ConstraintKind::Pushback).without, Some(stage.now()));
}

async fn a_promised_start_binds_until_its_instant<S: Store>(mut stage: Stage<S>) {
    let revision = stage.target("api", "rate: {limit: 1, period: 10s, burst: 1}").await;
    stage.target("gpu", "concurrency: {max: 3}").await;
    stage.begin("a", &["api"]).await.granted();
    let due = stage.begin("b", &["api", "gpu"]).await.waits(Reason::Limited);
    stage.pass(secs(1)).await;
    let told = stage.explained("b").await;
    assert_eq!((told.starts_at, binding(&told)), (Some(due), vec![ConstraintKind::Rate]));
    let rate = standing(&told, ConstraintKind::Rate);
    assert_eq!((rate.constraint.key.as_str(), rate.constraint.firm), ("api", true));
    assert_eq!(rate.without, Some(stage.now()), "nothing but the rate is in the way");
    assert_eq!(rate.constraint.load.map(|load| load.revision), Some(revision));
    let permits = standing(&told, ConstraintKind::Concurrency);
    assert_eq!((used(permits), permits.without), (Some((0, 3)), None));
    assert_eq!(permits.constraint.earliest, stage.now(), "it is met");
}

async fn who_stands_in_line_is_told_its_place<S: Store>(mut stage: Stage<S>) {
    stage.target("gpu", "concurrency: {max: 1}").await;
    let running = stage.begin("a", &["gpu"]).await.granted();
    for step in ["b", "c", "d"] {
        stage.stand_in_line(step, &["gpu"]).await;
        stage.pass(ms(10)).await;
    }
    for (before, step) in (0..).zip(["b", "c", "d"]) {
        let told = stage.explained(step).await;
        let permits = standing(&told, ConstraintKind::Concurrency);
        assert_eq!((permits.before, used(permits)), (Some(before), Some((1, 1))));
        assert_eq!((told.starts_at, permits.constraint.firm), (None, false));
        assert_eq!(permits.without, Some(stage.now()));
    }
    stage.succeed("a", running.fence).await;
    let told = stage.explained("b").await;
    assert_eq!((told.starts_at, binding(&told)), (Some(stage.now()), Vec::new()));
    assert_eq!(standing(&stage.explained("d").await, ConstraintKind::Concurrency).before, Some(2));
}

async fn a_spent_budget_binds_the_next_retry<S: Store>(mut stage: Stage<S>) {
    stage.target("api", "budget: {ratio: 0, floor: 1, window: 10s}").await;
    for step in ["a", "b"] {
        let due = retries(&stage.fail_first(step, &["api"], of(FailureClass::Transient)).await);
        stage.reach(due).await;
    }
    stage.begin("a", &[]).await.granted();
    let due = stage.begin("b", &[]).await.waits(Reason::Limited);
    let told = stage.explained("b").await;
    let budget = standing(&told, ConstraintKind::Budget);
    assert_eq!((used(budget), budget.constraint.firm), (Some((1000, 1000)), false));
    assert_eq!((told.starts_at, budget.without), (Some(due), Some(stage.now())));
}

async fn an_open_breaker_binds_until_a_probe_and_then_its_ramp<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "{rate: {limit: 50, period: 1s, burst: 10}, breaker: {}}").await;
    dies(&mut stage, &["db"]).await;
    stage.begin("a", &["db"]).await.waits(Reason::BreakerOpen);
    let told = stage.explained("a").await;
    let breaker = standing(&told, ConstraintKind::Breaker);
    assert!(breaker.before.is_some() && !breaker.constraint.firm, "{told:?}");
    assert_eq!(binding(&told), [ConstraintKind::Breaker]);
    assert_eq!(breaker.without, Some(stage.now()));

    is_back(&mut stage, &["db"]).await;
    for number in 0..20 {
        stage.begin(&format!("more{number}"), &["db"]).await;
    }
    let told = stage.explained("more19").await;
    let ramp = standing(&told, ConstraintKind::Ramp);
    assert!(ramp.constraint.firm && ramp.constraint.earliest > stage.now(), "{told:?}");
}

async fn a_cooldown_binds_whoever_comes<S: Store>(mut stage: Stage<S>) {
    stage.target("api", "rate: {limit: 10, period: 1s, burst: 4}").await;
    let grant = stage.begin("a", &["api"]).await.granted();
    stage.failed("a", grant.fence, pushed_back("api", secs(30))).await;
    let until = stage.now().plus(secs(30));
    let due = stage.begin("b", &["api"]).await.waits(Reason::Limited);
    let told = stage.explained("b").await;
    let cooldown = standing(&told, ConstraintKind::Cooldown);
    assert_eq!((cooldown.constraint.earliest, cooldown.constraint.firm), (until, true));
    assert_eq!(told.starts_at, Some(due));
    assert!(cooldown.without.is_some_and(|at| at < until), "{told:?}");
}

async fn a_pause_binds_with_its_reason<S: Store>(mut stage: Stage<S>) {
    stage.target("api", "{}").await;
    let due = retries(&stage.fail_first("a", &["api"], of(FailureClass::Transient)).await);
    stage.pause("api", None).await;
    let told = stage.explained("a").await;
    let pause = standing(&told, ConstraintKind::Pause);
    let order = pause.order.as_ref().unwrap();
    assert_eq!((order.reason.as_str(), order.by.as_str()), ("it is being moved", "ann"));
    assert_eq!((told.starts_at, pause.without), (None, Some(due)));
    assert_eq!(pause.constraint.earliest, Timestamp::NEVER);

    stage.pause("api", Some(secs(60))).await;
    let told = stage.explained("a").await;
    assert_eq!(
        (told.starts_at, binding(&told)),
        (Some(stage.now().plus(secs(60))), vec![ConstraintKind::Pause])
    );
}

async fn a_deadline_is_told_beside_what_binds<S: Store>(mut stage: Stage<S>) {
    let deadline = stage.now().plus(secs(300));
    let asked = Asked { step: "a", deadline: Some(deadline), ..Asked::default() };
    let grant = stage.ask(asked).await.granted();
    let decision = stage.failed("a", grant.fence, of(FailureClass::Transient)).await;
    let told = stage.explained("a").await;
    assert_eq!(told.ends_by, Some((deadline, Reason::Deadline)));
    assert_eq!(
        (told.starts_at, binding(&told)),
        (Some(retries(&decision)), vec![ConstraintKind::Backoff])
    );
}

async fn what_does_not_wait_is_not_explained<S: Store>(mut stage: Stage<S>) {
    let grant = stage.begin("a", &[]).await.granted();
    assert!(stage.why("a").await.is_none());
    stage.succeed("a", grant.fence).await;
    assert!(stage.why("a").await.is_none());
}

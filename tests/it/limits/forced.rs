//! Stories of breakers that an operator forces, and of cooldowns that one ends, each
//! on every store.

use reprise::{
    domain::{
        decision::{ConstraintKind, Reason},
        failure::FailureClass,
        limit::{ForcedState, breaker::Standing},
        time::Timestamp,
    },
    store::Store,
};

use super::{
    outages::dies,
    stage::{
        Begun, Stage, constraint, ms, of, pushed_back, retries, secs, stories_on_every_store, waits,
    },
};

stories_on_every_store!(
    one_that_is_forced_open_starts_nothing_until_it_is_released,
    one_that_is_forced_open_is_left_to_itself_when_the_order_ends,
    one_that_was_forced_open_begins_a_ramp_however_the_order_ends,
    one_that_only_watches_begins_a_ramp_as_well,
    one_that_opened_by_itself_stays_open_when_an_order_ends,
    one_that_is_forced_closed_refuses_nothing_though_its_target_is_dead,
    who_is_parked_goes_on_when_it_is_forced_closed,
    who_is_parked_goes_on_when_it_only_watches,
    what_a_watching_breaker_would_have_done_is_told,
    a_watching_breaker_closes_when_its_target_serves_again,
    a_cooldown_that_is_lifted_holds_nobody,
    a_lifted_cooldown_at_a_breaker_begins_its_ramp,
);

async fn one_that_is_forced_open_starts_nothing_until_it_is_released<S: Store>(
    mut stage: Stage<S>,
) {
    stage.target("db", "breaker: {}").await;
    let running = stage.begin("a", &["db"]).await.granted();
    stage.force("db", ForcedState::Open, secs(3600)).await;
    let until = stage.now().plus(secs(3600));
    let refused = stage.begin("b", &["db"]).await.refused();
    assert_eq!(waits(&refused, Reason::BreakerOpen), until);
    let forced = constraint(&refused, ConstraintKind::Forced);
    assert_eq!((forced.key.as_str(), forced.firm, forced.binding), ("db", false, true));
    // What runs goes on; what fails is parked like what comes.
    let told = stage.failed("a", running.fence, of(FailureClass::Transient)).await;
    waits(&told, Reason::BreakerOpen);
    let used = stage.usage("db").await;
    assert_eq!((used.parked, used.breaker), (2, Some(Standing::Closed)));
    assert!(used.forced.is_some_and(|forced| forced.until == until && forced.by == "ann"));
    let why = stage.explained("b").await;
    assert_eq!(why.starts_at, Some(until));
    assert_eq!(why.constraints[0].order.as_ref().unwrap().reason, "it lies");

    stage.pass(secs(30)).await;
    assert!(stage.is_parked("a").await && stage.is_parked("b").await, "no probe starts");
    stage.release("db").await;
    stage.pass(secs(1)).await;
    for step in ["a", "b"] {
        assert!(!stage.is_parked(step).await);
        stage.until_due(step).await;
        stage.begin(step, &[]).await.granted();
    }
}

async fn one_that_is_forced_open_is_left_to_itself_when_the_order_ends<S: Store>(
    mut stage: Stage<S>,
) {
    stage
        .target("db", "{rate: {limit: 10, period: 1s, burst: 4}, breaker: {observe_only: true}}")
        .await;
    stage.force("db", ForcedState::Open, secs(20)).await;
    stage.begin("a", &["db"]).await.waits(Reason::BreakerOpen);
    stage.pass(secs(19)).await;
    assert!(stage.is_parked("a").await);
    stage.pass(secs(2)).await;
    stage.until_due("a").await;
    stage.begin("a", &[]).await.granted();
    stage.pass(secs(1)).await;
    stage.begin("b", &["db"]).await.granted();
    assert_eq!(stage.usage("db").await.forced, None);
}

async fn one_that_was_forced_open_begins_a_ramp_however_the_order_ends<S: Store>(
    mut stage: Stage<S>,
) {
    for (target, ends_by_itself) in [("db", true), ("api", false)] {
        stage.target(target, "{rate: {limit: 100, period: 1s, burst: 20}, breaker: {}}").await;
        let length = if ends_by_itself { secs(30) } else { secs(3600) };
        stage.force(target, ForcedState::Open, length).await;
        stage.begin(&format!("{target}-parked"), &[target]).await.waits(Reason::BreakerOpen);
        stage.pass(secs(30) - ms(1)).await;
        stage.begin(&format!("{target}-last"), &[target]).await.waits(Reason::BreakerOpen);
        stage.pass(ms(1)).await;
        if !ends_by_itself {
            stage.release(target).await;
        }
        // Half as long as nothing started, and ten seconds at most.
        let since = stage.now();
        let standing = stage.usage(target).await.breaker;
        let Some(Standing::Ramp { since: begun, until, .. }) = standing else {
            panic!("no ramp: {standing:?}")
        };
        assert_eq!((begun, until), (since, since.plus(secs(10))));

        starts_on_a_ramp(&mut stage, target, since).await;
        stage.pass(secs(11)).await;
        assert_eq!(stage.usage(target).await.breaker, Some(Standing::Closed));
        stage.begin(&format!("{target}-after"), &[target]).await.granted();
    }
}

/// Of forty steps that come at once when a ramp of ten seconds begins, at a target that
/// allows a burst of 20.
async fn starts_on_a_ramp<S: Store>(stage: &mut Stage<S>, target: &str, since: Timestamp) {
    let (mut at_once, mut latest) = (0, since);
    for number in 0..40 {
        match stage.begin(&format!("{target}{number}"), &[target]).await {
            Begun::Granted(_) => at_once += 1,
            Begun::Refused(decision) => {
                latest = latest.max(waits(&decision, Reason::Limited));
                constraint(&decision, ConstraintKind::Ramp);
            }
        }
    }
    assert!(at_once <= 2, "{at_once} of forty at once");
    // 100 · (0.1 x + 0.45 x²/10) are forty at two seconds.
    let fortieth = latest - since;
    assert!((ms(1800)..ms(2300)).contains(&fortieth), "the fortieth after {fortieth:?}");
}

async fn one_that_only_watches_begins_a_ramp_as_well<S: Store>(mut stage: Stage<S>) {
    const WATCHING: &str =
        "{rate: {limit: 100, period: 1s, burst: 20}, breaker: {observe_only: true}}";
    for (target, has_died) in [("db", false), ("api", true)] {
        stage.target(target, WATCHING).await;
        if has_died {
            dies(&mut stage, &[target]).await;
            let seen = stage.usage(target).await.breaker;
            assert!(matches!(seen, Some(Standing::Open { .. })), "{seen:?}");
        }
        stage.force(target, ForcedState::Open, secs(30)).await;
        stage.begin(&format!("{target}-parked"), &[target]).await.waits(Reason::BreakerOpen);
        stage.pass(secs(30)).await;
        let since = stage.now();
        let standing = stage.usage(target).await.breaker;
        assert!(matches!(standing, Some(Standing::Ramp { since: begun, .. }) if begun == since));
        starts_on_a_ramp(&mut stage, target, since).await;
        stage.pass(secs(11)).await;
        assert!(!stage.is_parked(&format!("{target}-parked")).await);
        // It watches again, and refuses nothing.
        let alive = format!("{target}-alive");
        let grant = stage.begin(&alive, &[target]).await.granted();
        dies(&mut stage, &[target]).await;
        let told = stage.failed(&alive, grant.fence, of(FailureClass::Transient)).await;
        constraint(&told, ConstraintKind::Observed);
        stage.reach(retries(&told)).await;
        stage.begin(&alive, &[]).await.granted();
    }
}

async fn one_that_opened_by_itself_stays_open_when_an_order_ends<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {}").await;
    dies(&mut stage, &["db"]).await;
    stage.force("db", ForcedState::Open, secs(5)).await;
    stage.begin("a", &["db"]).await.waits(Reason::BreakerOpen);
    stage.release("db").await;
    assert!(matches!(stage.usage("db").await.breaker, Some(Standing::Open { .. })));
    stage.begin("b", &["db"]).await.waits(Reason::BreakerOpen);
}

async fn one_that_is_forced_closed_refuses_nothing_though_its_target_is_dead<S: Store>(
    mut stage: Stage<S>,
) {
    stage.target("db", "breaker: {}").await;
    stage.force("db", ForcedState::Closed, secs(60)).await;
    dies(&mut stage, &["db"]).await;
    assert!(matches!(stage.usage("db").await.breaker, Some(Standing::Open { .. })), "it watches");
    stage.begin("a", &["db"]).await.granted();
    stage.pass(secs(61)).await;
    // The first may be a probe; the next is not.
    if let Begun::Refused(decision) = stage.begin("b", &["db"]).await {
        waits(&decision, Reason::BreakerOpen);
    }
    stage.begin("c", &["db"]).await.waits(Reason::BreakerOpen);
}

async fn who_is_parked_goes_on_when_it_is_forced_closed<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {}").await;
    dies(&mut stage, &["db"]).await;
    stage.begin("a", &["db"]).await.waits(Reason::BreakerOpen);
    stage.force("db", ForcedState::Closed, secs(3600)).await;
    stage.pass(ms(500)).await;
    assert!(!stage.is_parked("a").await);
    stage.until_due("a").await;
    stage.begin("a", &[]).await.granted();
    // Nobody stands in its lot any more.
    stage.pass(secs(2)).await;
    assert_eq!(stage.usage("db").await.parked, 0);
}

async fn who_is_parked_goes_on_when_it_only_watches<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {}").await;
    dies(&mut stage, &["db"]).await;
    let steps: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    for step in &steps {
        stage.begin(step, &["db"]).await.waits(Reason::BreakerOpen);
    }
    stage.target("db", "breaker: {observe_only: true}").await;
    stage.pass(ms(500)).await;
    for step in &steps {
        assert!(!stage.is_parked(step).await, "{step}");
        stage.until_due(step).await;
        stage.begin(step, &[]).await.granted();
    }
}

async fn what_a_watching_breaker_would_have_done_is_told<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {observe_only: true}").await;
    let running = stage.begin("a", &["db"]).await.granted();
    dies(&mut stage, &["db"]).await;
    let told = stage.failed("a", running.fence, of(FailureClass::Transient)).await;
    let at = retries(&told);
    let observed = constraint(&told, ConstraintKind::Observed);
    assert_eq!((observed.key.as_str(), observed.binding, observed.firm), ("db", false, false));
    assert!(observed.earliest > stage.now());
    stage.reach(at).await;
    stage.begin("a", &[]).await.granted();
}

async fn a_watching_breaker_closes_when_its_target_serves_again<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {observe_only: true}").await;
    let early = stage.begin("early", &["db"]).await.granted();
    dies(&mut stage, &["db"]).await;
    // No probe would have been back by now.
    stage.succeed("early", early.fence).await;
    let is_open = |breaker| matches!(breaker, Some(Standing::Open { .. }));
    assert!(is_open(stage.usage("db").await.breaker));
    stage.pass(secs(1)).await;
    let grant = stage.begin("dead", &["db"]).await.granted();
    stage.failed("dead", grant.fence, of(FailureClass::Transient)).await;
    assert!(is_open(stage.usage("db").await.breaker));
    let grant = stage.begin("alive", &["db"]).await.granted();
    stage.succeed("alive", grant.fence).await;
    let Some(Standing::Ramp { until, .. }) = stage.usage("db").await.breaker else {
        panic!("it has not closed");
    };
    stage.pass(until - stage.now()).await;
    assert_eq!(stage.usage("db").await.breaker, Some(Standing::Closed));
}

async fn a_cooldown_that_is_lifted_holds_nobody<S: Store>(mut stage: Stage<S>) {
    stage.target("api", "rate: {limit: 100, period: 1s, burst: 20}").await;
    let grant = stage.begin("a", &["api"]).await.granted();
    stage.failed("a", grant.fence, pushed_back("api", secs(600))).await;
    let early = stage.begin("b", &["api"]).await.waits(Reason::Limited);
    assert!(early >= stage.now().plus(secs(600)));
    assert_eq!(stage.lift("api").await.cooldown, None);
    stage.begin("c", &["api"]).await.granted();
    assert_eq!(stage.due("b").await, early, "what was promised stands");
    // The target may ask again, for less.
    let grant = stage.begin("d", &["api"]).await.granted();
    stage.failed("d", grant.fence, pushed_back("api", secs(5))).await;
    assert_eq!(stage.usage("api").await.cooldown, Some(stage.now().plus(secs(5))));
    stage.lift("api").await;
    stage.lift("api").await;
    stage.begin("e", &["api"]).await.granted();
}

async fn a_lifted_cooldown_at_a_breaker_begins_its_ramp<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "{rate: {limit: 100, period: 1s, burst: 20}, breaker: {}}").await;
    let grant = stage.begin("a", &["db"]).await.granted();
    stage.failed("a", grant.fence, pushed_back("db", secs(600))).await;
    for step in ["b", "c"] {
        stage.begin(step, &["db"]).await.waits(Reason::BreakerOpen);
    }
    let used = stage.lift("db").await;
    assert!(matches!(used.breaker, Some(Standing::Ramp { since, .. }) if since == used.at));
    stage.pass(secs(2)).await;
    for step in ["b", "c"] {
        assert!(!stage.is_parked(step).await, "the sweep has called it");
        stage.until_due(step).await;
        stage.begin(step, &[]).await.granted();
    }
}

//! Stories of steps that a pause keeps waiting, their own or that of a target, each on
//! every store.

use std::time::Duration;

use reprise::{
    domain::{
        decision::{Reason, Verdict},
        failure::FailureClass,
        order::What,
        record::{Ending, State},
    },
    service::WaitEnd,
    store::Store,
};

use super::stage::{Asked, Stage, ms, of, retries, secs, stories_on_every_store};

stories_on_every_store!(
    a_step_that_a_pause_refuses_is_remembered,
    what_a_refused_begin_says_of_its_step_is_kept,
    the_time_that_is_left_to_who_is_refused_counts_from_the_first_call,
    a_step_that_is_refused_late_is_not_looked_at_at_once,
    a_pause_leaves_what_was_promised,
    nobody_is_given_up_while_a_target_is_paused,
    the_time_in_which_a_target_is_paused_is_no_waiting,
    pauses_that_overlap_count_once,
    pauses_again_and_again_add_nothing_to_the_patience,
    nobody_is_given_up_while_the_step_itself_is_paused,
);

/// How long steps wait for their workers: see the settings of [`Stage`].
const ABANDONED_AFTER: u64 = 120;

async fn is_given_up<S: Store>(stage: &Stage<S>, step: &str) -> bool {
    let record = stage.record(step).await;
    let reason = record.decision().map(|settled| settled.reason);
    let is_over = matches!(record.state, State::Over { ending: Ending::Failed, .. });
    assert_eq!(is_over, reason == Some(Reason::Abandoned), "{record:?}");
    is_over
}

/// A step that pauses have kept waiting is given up so late, at most.
const LATE: Duration = secs(ABANDONED_AFTER / 16);

/// A step that waits for its worker from now on.
async fn is_due<S: Store>(stage: &mut Stage<S>, step: &str, targets: &[&str]) {
    let told = stage.fail_first(step, targets, of(FailureClass::Error)).await;
    stage.reach(retries(&told)).await;
}

async fn a_step_that_a_pause_refuses_is_remembered<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "{}").await;
    stage.pause("db", None).await;
    let refused = stage.begin("a", &["db"]).await.refused();
    assert_eq!(refused.settled.verdict, Verdict::Wait(None));
    let record = stage.record("a").await;
    assert_eq!((record.counters.attempts, record.decision()), (0, Some(&refused.settled)));
    assert!(stage.explained("a").await.constraints[0].order.is_some());
    // Who waits for it is told when the pause ends.
    let waiting = stage.wait_for("a", secs(60));
    let (awaited, ()) = tokio::join!(waiting, stage.resume("db"));
    assert_eq!(awaited.end, WaitEnd::Ready);
    assert_eq!(stage.begin("a", &[]).await.granted().attempt, 1);
}

async fn what_a_refused_begin_says_of_its_step_is_kept<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "{}").await;
    is_due(&mut stage, "a", &["db"]).await;
    let decided = stage.record("a").await.decision().cloned();
    stage.pause("db", Some(secs(60))).await;
    let deadline = stage.now().plus(secs(90));
    let says_no_instant = || Asked { step: "a", queue: "q", ..Asked::default() };
    let says = || Asked { deadline: Some(deadline), ..says_no_instant() };
    let refused = stage.ask(says()).await.refused();
    assert_eq!((refused.settled.reason, refused.ends_by), (Reason::Paused, Some(deadline)));
    let record = stage.record("a").await;
    assert_eq!((record.queue.as_deref(), record.deadline), (Some("q"), Some(deadline)));
    assert_eq!(record.decision().cloned(), decided, "the decision stands");
    // Who says nothing new changes nothing.
    stage.ask(says()).await.refused();
    stage.begin("a", &[]).await.refused();
    for _ in 0..3 {
        stage.pass(ms(50)).await;
        stage.ask(Asked { time_left: Some(secs(90)), ..says_no_instant() }).await.refused();
    }
    assert_eq!(stage.record("a").await.version, record.version);
    stage.pass(secs(62)).await;
    assert_eq!(stage.claim("q", "h").await, ["a"]);
}

async fn the_time_that_is_left_to_who_is_refused_counts_from_the_first_call<S: Store>(
    mut stage: Stage<S>,
) {
    stage.target("db", "{}").await;
    is_due(&mut stage, "a", &["db"]).await;
    stage.pause("db", Some(secs(10))).await;
    let asks = || Asked { step: "a", time_left: Some(secs(60)), ..Asked::default() };
    let first = stage.now().plus(secs(60));
    for _ in 0..3 {
        stage.ask(asks()).await.refused();
        assert_eq!(stage.record("a").await.deadline, Some(first));
        stage.pass(secs(2)).await;
    }
    stage.pass(secs(5)).await;
    let grant = stage.ask(asks()).await.granted();
    assert_eq!(grant.ends_by, Some(stage.now().plus(secs(60))), "it counts from the start");
}

async fn a_step_that_is_refused_late_is_not_looked_at_at_once<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "{}").await;
    is_due(&mut stage, "a", &["db"]).await;
    stage.pass(secs(60)).await;
    stage.pause("db", None).await;
    stage.pass(secs(2 * ABANDONED_AFTER)).await;
    assert!(!is_given_up(&stage, "a").await);
    stage.ask(Asked { step: "a", queue: "q", ..Asked::default() }).await.refused();
    let version = stage.record("a").await.version;
    for _ in 0..3 {
        stage.pass(secs(1)).await;
        assert!(!is_given_up(&stage, "a").await);
    }
    assert_eq!(stage.record("a").await.version, version);
}

async fn a_pause_leaves_what_was_promised<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "rate: {limit: 1, period: 1m, burst: 4, on: retries}").await;
    is_due(&mut stage, "a", &["db"]).await;
    let claims = stage.record("a").await.claims;
    assert!(claims.as_ref().is_some_and(|claims| !claims.tickets.is_empty()));
    stage.pause("db", Some(ms(200))).await;
    stage.ask(Asked { step: "a", queue: "q", ..Asked::default() }).await.refused();
    assert_eq!(stage.record("a").await.claims, claims);
    stage.pass(ms(200)).await;
    stage.begin("a", &[]).await.granted();
}

async fn nobody_is_given_up_while_a_target_is_paused<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "rate: {limit: 10, period: 1s, burst: 4}").await;
    is_due(&mut stage, "a", &["db"]).await;
    is_due(&mut stage, "b", &["other"]).await;
    stage.pause("db", None).await;
    stage.begin("c", &["db"]).await.refused();
    stage.pass(secs(3 * ABANDONED_AFTER)).await;
    assert!(is_given_up(&stage, "b").await, "nothing keeps it waiting");
    for step in ["a", "c"] {
        assert!(!is_given_up(&stage, step).await, "{step}");
        assert_eq!(stage.begin(step, &[]).await.refused().settled.reason, Reason::Paused);
    }
    stage.resume("db").await;
    for step in ["a", "c"] {
        stage.begin(step, &[]).await.granted();
        stage.pass(secs(1)).await;
    }
}

/// Whether a step is given up when it has been due for so long outside of pauses, and
/// not before.
async fn is_given_up_in_time<S: Store>(stage: &Stage<S>, step: &str, waited: u64) {
    stage.pass(secs(ABANDONED_AFTER - waited - 2)).await;
    assert!(!is_given_up(stage, step).await, "{step} at {:?}", stage.now());
    stage.pass(secs(4) + LATE).await;
    assert!(is_given_up(stage, step).await, "{step} at {:?}", stage.now());
}

async fn the_time_in_which_a_target_is_paused_is_no_waiting<S: Store>(mut stage: Stage<S>) {
    // One pause ends by itself, the other is ended; neither target allows less than all.
    for (target, ends_by_itself) in [("db", true), ("api", false)] {
        stage.target(target, "{}").await;
        is_due(&mut stage, target, &[target]).await;
        stage.pass(secs(60)).await;
        stage.pause(target, ends_by_itself.then_some(secs(100))).await;
        stage.pass(secs(100)).await;
        if !ends_by_itself {
            stage.resume(target).await;
        }
        is_given_up_in_time(&stage, target, 60).await;
    }
}

async fn pauses_that_overlap_count_once<S: Store>(mut stage: Stage<S>) {
    for target in ["db", "api"] {
        stage.target(target, "{}").await;
    }
    is_due(&mut stage, "a", &["db", "api"]).await;
    stage.pass(secs(30)).await;
    stage.pause("db", Some(secs(100))).await;
    stage.pass(secs(50)).await;
    stage.pause("api", Some(secs(100))).await;
    stage.pass(secs(100)).await;
    is_given_up_in_time(&stage, "a", 30).await;
}

async fn pauses_again_and_again_add_nothing_to_the_patience<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "{}").await;
    is_due(&mut stage, "a", &["db"]).await;
    // More of them than are told apart.
    for _ in 0..20 {
        stage.pass(secs(5)).await;
        stage.pause("db", Some(secs(1))).await;
        stage.pass(secs(1)).await;
    }
    is_given_up_in_time(&stage, "a", 100).await;
}

async fn nobody_is_given_up_while_the_step_itself_is_paused<S: Store>(mut stage: Stage<S>) {
    is_due(&mut stage, "a", &[]).await;
    stage.order("a", What::Pause(None)).await.unwrap();
    stage.pass(secs(3 * ABANDONED_AFTER)).await;
    assert!(!is_given_up(&stage, "a").await);
    stage.order("a", What::Resume).await.unwrap();
    stage.pass(secs(ABANDONED_AFTER - 2)).await;
    assert!(!is_given_up(&stage, "a").await);
    stage.pass(secs(4)).await;
    assert!(is_given_up(&stage, "a").await);
}

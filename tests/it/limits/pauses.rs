//! Stories of steps that a pause keeps waiting, their own or that of a target, each on
//! every store.

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

use super::stage::{Stage, of, retries, secs, stories_on_every_store};

stories_on_every_store!(
    a_step_that_a_pause_refuses_is_remembered,
    nobody_is_given_up_while_a_target_is_paused,
    the_grace_of_a_step_counts_from_the_end_of_its_targets_pause,
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

async fn the_grace_of_a_step_counts_from_the_end_of_its_targets_pause<S: Store>(
    mut stage: Stage<S>,
) {
    // One pause ends by itself, the other is ended; neither target allows less than all.
    for target in ["db", "api"] {
        stage.target(target, "{}").await;
    }
    for (step, target) in [("a", "db"), ("b", "api")] {
        is_due(&mut stage, step, &[target]).await;
    }
    stage.pass(secs(60)).await;
    stage.pause("db", Some(secs(100))).await;
    stage.pause("api", None).await;
    stage.pass(secs(100)).await;
    stage.resume("api").await;
    stage.pass(secs(ABANDONED_AFTER - 2)).await;
    for step in ["a", "b"] {
        assert!(!is_given_up(&stage, step).await, "{step}");
    }
    stage.pass(secs(4)).await;
    for step in ["a", "b"] {
        assert!(is_given_up(&stage, step).await, "{step}");
    }
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

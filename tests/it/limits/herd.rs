//! Stories of steps that fail together at a target whose load is planned: their retries
//! are spread evenly, within the windows of their backoff.

use std::{collections::BTreeMap, time::Duration};

use reprise::{
    domain::{
        decision::{ConstraintKind, Decision, Verdict},
        failure::FailureClass,
        time::Timestamp,
    },
    store::Store,
};

use super::stage::{Stage, constraint, of, retries, secs, stories_on_every_store};
use crate::store_contract::subject;

stories_on_every_store!(
    retries_keep_to_their_windows_and_spread_within_them,
    a_decorrelated_wait_follows_the_wait_that_was_chosen,
    an_instant_past_the_deadline_is_never_chosen,
);

/// Any wait up to a hundred seconds.
const JITTERED: &str = "backoff: {fixed: {delay: 100s}, jitter: full}";
/// Plans retries in buckets of a second, and has room for two hundred in each.
const PLANNED: &str = "rate: {limit: 200, period: 1s, burst: 400, on: retries}";

/// What so many steps that fail at this instant are told.
async fn fail_together<S: Store>(
    stage: &mut Stage<S>,
    count: usize,
    targets: &[&str],
) -> Vec<Decision> {
    let mut told = Vec::new();
    for number in 0..count {
        let step = format!("s{number}");
        told.push(stage.fail_unbegun(&step, targets, of(FailureClass::Error)).await);
    }
    told
}

/// The largest of the loads of each second, over the mean of a hundred.
fn peak_over_mean(told: &[Decision]) -> f64 {
    let mut loads: BTreeMap<u64, u32> = BTreeMap::new();
    for decision in told {
        *loads.entry(retries(decision).as_micros() / 1_000_000).or_default() += 1;
    }
    let peak = loads.into_values().max().unwrap();
    f64::from(peak) * 100.0 / told.len() as f64
}

#[tokio::test]
async fn ten_thousand_failures_are_spread_evenly() {
    let place = subject::memory(subject::clock()).await;
    let mut stage = Stage::on(place).await;
    stage.enter("alone", JITTERED).await;
    let alone = peak_over_mean(&fail_together(&mut stage, 10_000, &[]).await);
    stage.enter("planned", JITTERED).await;
    stage.target("db", PLANNED).await;
    let planned = peak_over_mean(&fail_together(&mut stage, 10_000, &["db"]).await);
    println!("peak over mean {alone:.3} by chance alone, {planned:.3} where load is planned");
    assert!(alone > 1.15, "{alone} by chance alone");
    assert!(planned <= 1.05, "{planned} where load is planned");
}

async fn retries_keep_to_their_windows_and_spread_within_them<S: Store>(mut stage: Stage<S>) {
    stage.enter("jittered", JITTERED).await;
    stage.target("db", PLANNED).await;
    let now = stage.now();
    let told = fail_together(&mut stage, 1000, &["db"]).await;
    for decision in &told {
        let at = retries(decision);
        assert!((now..=now.plus(secs(100))).contains(&at), "{decision:?}");
        // It is the backoff that says when, though the load says which of its instants.
        let backoff = constraint(decision, ConstraintKind::Backoff);
        assert_eq!((backoff.earliest, backoff.binding), (at, true));
        let rate = constraint(decision, ConstraintKind::Rate);
        assert_eq!((rate.earliest, rate.binding), (at, false));
    }
    let peak = peak_over_mean(&told);
    assert!(peak <= 1.4, "{peak}: ten in each second, more or less four");
}

async fn a_decorrelated_wait_follows_the_wait_that_was_chosen<S: Store>(mut stage: Stage<S>) {
    const STEPS: usize = 40;
    let (base, cap) = (secs(1), secs(90));
    let policy = "backoff: {fixed: {delay: 1s}, max_delay: 90s, jitter: decorrelated}";
    stage.enter("decorrelated", policy).await;
    stage.target("db", PLANNED).await;
    let mut before = vec![Duration::ZERO; STEPS];
    for _ in 0..6 {
        let now = stage.now();
        let told = fail_together(&mut stage, STEPS, &["db"]).await;
        for (decision, before) in told.iter().zip(&mut before) {
            let wait = retries(decision) - now;
            let most = (3 * (*before).max(base)).min(cap);
            assert!((base..=most).contains(&wait), "{wait:?} after {before:?}");
            *before = wait;
        }
        let latest = told.iter().map(retries).max().unwrap();
        stage.reach(latest).await;
    }
}

async fn an_instant_past_the_deadline_is_never_chosen<S: Store>(mut stage: Stage<S>) {
    stage.enter("hurried", &format!("max_elapsed: 50s\n{JITTERED}")).await;
    stage.target("db", PLANNED).await;
    let now = stage.now();
    let mut granted = 0;
    for decision in fail_together(&mut stage, 400, &["db"]).await {
        let at = decision.constraints.iter().find(|found| found.kind == ConstraintKind::Backoff);
        let at = at.map_or(Timestamp::NEVER, |backoff| backoff.earliest);
        let is_granted = at <= now.plus(secs(50));
        let is_retry = matches!(decision.settled.verdict, Verdict::Retry(_));
        assert_eq!(is_granted, is_retry, "{decision:?}");
        granted += usize::from(is_granted);
    }
    assert!((150..250).contains(&granted), "half of them are in time: {granted}");
}

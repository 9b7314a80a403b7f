//! Stories of steps at targets with limits, each on every store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use reprise::{
    domain::{
        decision::{ConstraintKind, Load, Reason, Verdict},
        failure::FailureClass,
        limit::breaker::Standing,
        order::What,
        plan::ReportStatus,
        record::State,
        time::Timestamp,
    },
    store::Store,
};

use super::{
    checker::{self, Allowed, Happened, Rate},
    stage::{
        Asked, BACKOFF, LEASE, Stage, constraint, ms, of, pushed_back, retries, secs,
        stories_on_every_store, waits,
    },
};

stories_on_every_store!(
    a_hundred_failures_at_once_are_retried_within_the_rate,
    a_first_attempt_beyond_the_rate_waits_and_is_not_counted,
    who_runs_when_permits_are_introduced_takes_one_with_the_next_heartbeat,
    a_rate_on_retries_leaves_first_attempts_alone,
    a_third_stands_in_line_and_the_line_keeps_its_order,
    the_permit_of_a_silent_worker_comes_back_with_its_lease,
    leases_end_while_calls_come_and_sweeps_do_not,
    who_does_not_come_loses_the_place_and_keeps_the_seniority,
    who_waits_to_be_woken_is_not_sent_for_before_its_turn,
    who_is_gone_holds_up_nobody_once_it_is_woken,
    who_waits_for_two_pools_is_woken_when_it_may_have_both,
    a_pool_that_grows_wakes_as_many_as_it_grows_by,
    a_line_keeps_its_order_among_those_who_come_together,
    nobody_is_woken_at_a_paused_pool_before_it_is_resumed,
    two_steps_that_want_two_pools_in_opposite_order_both_run,
    a_spent_budget_has_retries_wait_until_it_is_earned_again,
    what_was_spent_counts_to_the_very_end_of_its_window,
    a_spent_budget_stops_where_it_says_so,
    a_timeout_costs_two_and_a_throttled_one_half,
    one_pushback_holds_everybody_at_its_target,
    a_pause_starts_nothing_until_it_ends_or_is_ended,
    a_promise_is_kept_within_the_grace_and_planned_again_after_it,
    a_late_report_leaves_the_promise_as_it_is,
    what_a_cancelled_step_was_promised_is_there_for_others,
    permits_follow_a_bound_that_is_changed_while_they_are_held,
    a_target_that_is_deleted_and_written_again_remembers_its_permits,
    what_was_promised_counts_under_the_next_rate,
    a_target_for_each_run_bounds_each_by_itself,
    targets_bound_steps_that_do_not_name_them,
    a_deadline_before_the_reserved_instant_stops_and_reserves_nothing,
    what_bounds_a_start_is_told_in_the_contracts_words,
    what_is_used_of_a_target_is_told,
);

/// A start of a first attempt, or of a retry, as the checker reads it.
fn started(step: usize, at: Timestamp, is_retry: bool) -> Happened {
    let at = at.as_micros();
    Happened::Started {
        at,
        step,
        targets: vec!["api".to_owned()],
        cost: is_retry.then_some(1000),
        lease_until: at + 1,
    }
}

/// What a rate of so many a second allows, on retries alone.
fn allowed(limit: u64, burst: u64, since: Timestamp) -> Allowed {
    let rate = Rate { limit, period: 1_000_000, burst, retries_only: true };
    Allowed { since: since.as_micros(), rate: Some(rate), ..Allowed::default() }
}

async fn a_hundred_failures_at_once_are_retried_within_the_rate<S: Store>(mut stage: Stage<S>) {
    let revision = stage.target("api", "rate: {limit: 10, burst: 4, on: retries}").await;
    let began = stage.now();
    let mut promised = BTreeSet::new();
    for step in 0..100 {
        let name = format!("step{step}");
        let decision = stage.fail_first(&name, &["api"], of(FailureClass::Transient)).await;
        let at = retries(&decision);
        assert!(at >= began.plus(BACKOFF));
        let rate = constraint(&decision, ConstraintKind::Rate);
        let Load { used, limit, revision: told } = rate.load.unwrap();
        assert_eq!((rate.key.as_str(), told, rate.firm), ("api", revision, true));
        assert!(used < limit, "the instant is in a stretch that has room: {used} of {limit}");
        assert_eq!(rate.binding, at != began.plus(BACKOFF));
        let backoff = constraint(&decision, ConstraintKind::Backoff);
        assert_eq!((backoff.earliest, backoff.binding), (began.plus(BACKOFF), !rate.binding));
        promised.insert((at, step));
    }
    let instants: BTreeSet<Timestamp> = promised.iter().map(|(at, _)| *at).collect();
    assert!(instants.len() >= 95, "{} instants for a hundred", instants.len());
    let last = promised.last().unwrap().0;
    assert!(last <= began.plus(secs(12)), "nothing of the rate is wasted: {:?}", last - began);

    // Who comes when told to starts.
    let mut log = Vec::new();
    for (at, step) in promised {
        stage.reach(at).await;
        let grant = stage.begin(&format!("step{step}"), &[]).await.granted();
        assert_eq!((grant.attempt, grant.began_at), (2, at));
        log.push(started(step, at, true));
    }
    let allowed = BTreeMap::from([("api".to_owned(), vec![allowed(10, 4, began)])]);
    checker::check(&allowed, &log).unwrap();
}

async fn a_first_attempt_beyond_the_rate_waits_and_is_not_counted<S: Store>(mut stage: Stage<S>) {
    let revision = stage.target("api", "rate: {limit: 1, period: 10s, burst: 1}").await;
    stage.begin("a", &["api"]).await.granted();
    let refused = stage.begin("b", &["api"]).await.refused();
    let at = waits(&refused, Reason::Limited);
    assert!(at >= stage.now().plus(secs(10)) && at < stage.now().plus(secs(23)));
    let rate = constraint(&refused, ConstraintKind::Rate);
    assert_eq!((rate.earliest, rate.binding, rate.firm), (at, true, true));
    assert_eq!(
        rate.load.map(|load| (load.used, load.limit, load.revision)),
        Some((0, 1, revision))
    );
    let record = stage.record("b").await;
    assert_eq!((record.counters.attempts, record.state), (0, State::Waiting { due: at }));

    // Who comes too early, or asks again since the answer was lost, is told the same.
    assert_eq!(stage.begin("b", &["api"]).await.waits(Reason::Limited), at);
    stage.reach(at).await;
    let grant = stage.begin("b", &["api"]).await.granted();
    assert_eq!((grant.attempt, grant.began_at), (1, at));
}

async fn who_runs_when_permits_are_introduced_takes_one_with_the_next_heartbeat<S: Store>(
    mut stage: Stage<S>,
) {
    stage.target("pool", "rate: {limit: 100, period: 1s, burst: 20}").await;
    let first = stage.begin("a", &["pool"]).await.granted();
    let second = stage.begin("b", &["pool"]).await.granted();
    stage.target("pool", "concurrency: {max: 1}").await;
    assert!(stage.beat("a", first.fence).await.is_some(), "nothing that runs is ended");
    assert!(stage.beat("b", second.fence).await.is_some());
    stage.begin("c", &["pool"]).await.waits(Reason::InLine);
    stage.succeed("a", first.fence).await;
    stage.until_due("c").await;
    stage.begin("c", &["pool"]).await.waits(Reason::InLine);
    stage.succeed("b", second.fence).await;
    stage.until_due("c").await;
    stage.begin("c", &["pool"]).await.granted();
}

async fn a_rate_on_retries_leaves_first_attempts_alone<S: Store>(mut stage: Stage<S>) {
    stage.target("api", "rate: {limit: 1, period: 10s, burst: 1, on: retries}").await;
    for step in ["a", "b", "c"] {
        stage.begin(step, &["api"]).await.granted();
    }
    let first = stage.record("a").await.fence;
    let at = retries(&stage.failed("a", first, of(FailureClass::Error)).await);
    assert_eq!(at, stage.now().plus(BACKOFF));
    let second = stage.record("b").await.fence;
    let after = retries(&stage.failed("b", second, of(FailureClass::Error)).await);
    assert!(after >= at.plus(secs(10)));
}

async fn a_third_stands_in_line_and_the_line_keeps_its_order<S: Store>(mut stage: Stage<S>) {
    let revision = stage.target("pool", "concurrency: {max: 2}").await;
    let a = stage.begin("a", &["pool"]).await.granted();
    let b = stage.begin("b", &["pool"]).await.granted();
    let refused = stage.begin("c", &["pool"]).await.refused();
    let at = waits(&refused, Reason::InLine);
    let told = constraint(&refused, ConstraintKind::Concurrency);
    assert_eq!((told.key.as_str(), told.firm, told.binding), ("pool", false, true));
    assert_eq!(told.load, Some(Load { used: 2, limit: 2, revision }));
    assert_eq!(stage.record("c").await.counters.attempts, 0);
    stage.pass(ms(100)).await;
    stage.begin("d", &["pool"]).await.waits(Reason::InLine);

    // One permit comes back; it is for whoever has waited longest.
    stage.succeed("a", a.fence).await;
    stage.reach(at.plus(ms(200))).await;
    stage.begin("d", &["pool"]).await.waits(Reason::InLine);
    stage.begin("e", &["pool"]).await.waits(Reason::InLine);
    assert_eq!(stage.begin("c", &["pool"]).await.granted().attempt, 1);
    let failed = stage.failed("b", b.fence, of(FailureClass::Failure)).await;
    stage.until_due("d").await;
    assert_eq!(stage.begin("d", &["pool"]).await.granted().attempt, 1);

    // A retry has waited no longer than since it first came.
    stage.reach(retries(&failed)).await;
    stage.begin("b", &["pool"]).await.waits(Reason::InLine);
    let d = stage.record("d").await.fence;
    stage.failed("d", d, of(FailureClass::Failure)).await;
    stage.reach(stage.due("b").await.max(stage.due("e").await)).await;
    stage.begin("b", &["pool"]).await.waits(Reason::InLine);
    stage.begin("e", &["pool"]).await.granted();
}

async fn the_permit_of_a_silent_worker_comes_back_with_its_lease<S: Store>(mut stage: Stage<S>) {
    stage.target("pool", "concurrency: {max: 1}").await;
    let a = stage.begin("a", &["pool"]).await.granted();
    stage.begin("b", &["pool"]).await.waits(Reason::InLine);
    stage.pass(LEASE - secs(1)).await;
    let until = stage.beat("a", a.fence).await.unwrap();
    assert_eq!(until, stage.now().plus(LEASE));
    // Past the first end of the lease, until the other.
    stage.pass(secs(2)).await;
    stage.begin("b", &["pool"]).await.waits(Reason::InLine);
    stage.reach(until).await;
    stage.begin("b", &["pool"]).await.granted();
    assert_eq!(stage.beat("a", a.fence).await, None);
    assert_eq!(stage.succeed("a", a.fence).await, ReportStatus::Late);

    // A heartbeat a moment earlier keeps it.
    let b = stage.record("b").await.fence;
    stage.begin("c", &["pool"]).await.waits(Reason::InLine);
    let ends = stage.now().plus(LEASE);
    stage.reach(Timestamp::from_micros(ends.as_micros() - 1)).await;
    stage.begin("c", &["pool"]).await.waits(Reason::InLine);
    let until = stage.beat("b", b).await.unwrap();
    stage.until_due("c").await;
    stage.begin("c", &["pool"]).await.waits(Reason::InLine);

    // One whose end nobody has noticed yet is over all the same.
    stage.reach(Timestamp::from_micros(until.as_micros() - 1)).await;
    stage.begin("c", &["pool"]).await.waits(Reason::InLine);
    stage.clock.advance(ms(300));
    stage.begin("c", &["pool"]).await.granted();
}

async fn who_does_not_come_loses_the_place_and_keeps_the_seniority<S: Store>(mut stage: Stage<S>) {
    stage.target("pool", "concurrency: {max: 1}").await;
    let a = stage.begin("a", &["pool"]).await.granted();
    stage.begin("b", &["pool"]).await.waits(Reason::InLine);
    let since = stage.now();
    stage.pass(ms(100)).await;
    stage.begin("c", &["pool"]).await.waits(Reason::InLine);

    // The place is kept for five seconds from when it was woken, and holds up the
    // next one.
    stage.succeed("a", a.fence).await;
    let due = stage.due("b").await;
    assert_eq!(due, stage.now());
    stage.reach(due.plus(ms(4900))).await;
    stage.begin("c", &["pool"]).await.waits(Reason::InLine);
    stage.reach(due.plus(ms(5250))).await;
    let claims = stage.record("b").await.claims.unwrap();
    assert_eq!((claims.held.len(), claims.since), (0, Some(since)));
    stage.until_due("c").await;
    let c = stage.begin("c", &["pool"]).await.granted();

    // Back again, it goes before one who came while it was away.
    stage.begin("d", &["pool"]).await.waits(Reason::InLine);
    stage.begin("b", &["pool"]).await.waits(Reason::InLine);
    stage.succeed("c", c.fence).await;
    stage.pass(ms(600)).await;
    stage.begin("d", &["pool"]).await.waits(Reason::InLine);
    stage.begin("b", &["pool"]).await.granted();
}

async fn who_waits_to_be_woken_is_not_sent_for_before_its_turn<S: Store>(mut stage: Stage<S>) {
    stage.target("pool", "concurrency: {max: 1}").await;
    let a = stage.begin("a", &["pool"]).await.granted();
    let b = stage.stand_in_line("b", &["pool"]).await;
    stage.pass(ms(100)).await;
    let c = stage.stand_in_line("c", &["pool"]).await;
    assert_eq!((b, c), (b.min(c), b.plus(ms(100))));
    assert!(b > stage.now().plus(secs(60)), "it is woken long before it comes by itself");

    stage.pass(ms(100)).await;
    stage.succeed("a", a.fence).await;
    assert_eq!((stage.due("b").await, stage.due("c").await), (stage.now(), c));
    stage.begin("c", &["pool"]).await.waits(Reason::InLine);
    let b = stage.begin("b", &["pool"]).await.granted();
    stage.pass(ms(100)).await;
    stage.failed("b", b.fence, of(FailureClass::Failure)).await;
    assert_eq!(stage.due("c").await, stage.now());
}

async fn who_is_gone_holds_up_nobody_once_it_is_woken<S: Store>(mut stage: Stage<S>) {
    stage.target("pool", "concurrency: {max: 1}").await;
    let a = stage.begin("a", &["pool"]).await.granted();
    stage.stand_in_line("gone", &["pool"]).await;
    stage.pass(ms(100)).await;
    stage.stand_in_line("b", &["pool"]).await;
    stage.succeed("a", a.fence).await;
    let woken = stage.now();
    stage.reach(woken.plus(ms(5250))).await;
    assert!(stage.due("b").await <= stage.now());
    stage.begin("b", &["pool"]).await.granted();
}

async fn who_waits_for_two_pools_is_woken_when_it_may_have_both<S: Store>(mut stage: Stage<S>) {
    stage.target("one", "concurrency: {max: 1}").await;
    stage.target("two", "concurrency: {max: 1}").await;
    let a = stage.begin("a", &["one"]).await.granted();
    let b = stage.begin("b", &["two"]).await.granted();
    let both = stage.stand_in_line("both", &["one", "two"]).await;
    stage.succeed("a", a.fence).await;
    assert_eq!(stage.due("both").await, both);
    stage.succeed("b", b.fence).await;
    assert_eq!(stage.due("both").await, stage.now());
    stage.begin("both", &["one", "two"]).await.granted();
}

async fn a_pool_that_grows_wakes_as_many_as_it_grows_by<S: Store>(mut stage: Stage<S>) {
    stage.target("pool", "concurrency: {max: 1}").await;
    stage.begin("a", &["pool"]).await.granted();
    for step in ["b", "c", "d"] {
        stage.stand_in_line(step, &["pool"]).await;
        stage.pass(ms(10)).await;
    }
    stage.target("pool", "concurrency: {max: 3}").await;
    stage.pass(ms(10)).await;
    let woken = stage.now();
    assert!(stage.due("b").await <= woken && stage.due("c").await <= woken);
    assert!(stage.due("d").await > woken);
}

async fn a_line_keeps_its_order_among_those_who_come_together<S: Store>(mut stage: Stage<S>) {
    stage.target("pool", "concurrency: {max: 1}").await;
    stage.begin("a", &["pool"]).await.granted();
    let waiting: Vec<String> = (0..18).map(|number| format!("s{number}")).collect();
    for step in &waiting {
        stage.stand_in_line(step, &["pool"]).await;
        stage.pass(ms(10)).await;
    }
    stage.target("pool", "concurrency: {max: 17}").await;
    stage.pass(ms(10)).await;
    // There is room for all but the last two.
    let (first, last) = waiting.split_at(16);
    for begun in stage.begin_together(first, &["pool"]).await {
        begun.granted();
    }
    for step in last {
        assert!(stage.due(step).await > stage.now(), "{step} is not sent for");
    }
}

async fn nobody_is_woken_at_a_paused_pool_before_it_is_resumed<S: Store>(mut stage: Stage<S>) {
    stage.target("pool", "concurrency: {max: 1}").await;
    let a = stage.begin("a", &["pool"]).await.granted();
    let due = stage.stand_in_line("b", &["pool"]).await;
    stage.pause("pool", None).await;
    stage.succeed("a", a.fence).await;
    assert_eq!(stage.due("b").await, due);
    stage.resume("pool").await;
    stage.pass(ms(10)).await;
    assert!(stage.due("b").await <= stage.now());
    stage.begin("b", &["pool"]).await.granted();
}

async fn two_steps_that_want_two_pools_in_opposite_order_both_run<S: Store>(mut stage: Stage<S>) {
    stage.target("p", "concurrency: {max: 1}").await;
    stage.target("q", "concurrency: {max: 1}").await;
    let orders = [["p", "q"], ["q", "p"]];
    let p = stage.begin("holder", &["p"]).await.granted();
    // All or nothing: who waits for p has no permit of q.
    for step in 0..6 {
        let refused = stage.begin(&format!("s{step}"), &orders[step % 2]).await.refused();
        waits(&refused, Reason::InLine);
        let used = |constraint: &reprise::domain::decision::Constraint| {
            (constraint.key.clone(), constraint.load.map_or(0, |load| load.used))
        };
        let mut told: Vec<(String, u64)> = refused.constraints.iter().map(used).collect();
        told.sort();
        assert_eq!(told, [("p".to_owned(), 1), ("q".to_owned(), 0)]);
    }
    stage.succeed("holder", p.fence).await;
    let mut waiting: BTreeSet<usize> = (0..6).collect();
    let began = stage.now();
    while !waiting.is_empty() {
        assert!(stage.now() < began.plus(secs(60)), "they wait for each other: {waiting:?}");
        stage.pass(ms(250)).await;
        let mut granted = None;
        for step in waiting.clone() {
            let name = format!("s{step}");
            if stage.due(&name).await > stage.now() {
                continue;
            }
            if let super::stage::Begun::Granted(grant) = stage.begin(&name, &orders[step % 2]).await
            {
                assert_eq!(granted.replace((name, grant.fence)), None, "one at a time");
                waiting.remove(&step);
            }
        }
        if let Some((name, fence)) = granted {
            stage.succeed(&name, fence).await;
        }
    }
}

async fn a_spent_budget_has_retries_wait_until_it_is_earned_again<S: Store>(mut stage: Stage<S>) {
    let revision = stage.target("db", "budget: {ratio: 0.5, floor: 1, window: 10s}").await;
    for step in ["a", "b", "c", "d"] {
        stage.fail_first(step, &["db"], of(FailureClass::Transient)).await;
    }
    stage.pass(BACKOFF).await;
    // Four first attempts earn two retries, and one needs none.
    for step in ["a", "b", "c"] {
        stage.begin(step, &["db"]).await.granted();
    }
    let refused = stage.begin("d", &["db"]).await.refused();
    let at = waits(&refused, Reason::Limited);
    let budget = constraint(&refused, ConstraintKind::Budget);
    assert_eq!((budget.key.as_str(), budget.firm, budget.binding), ("db", false, true));
    assert_eq!(budget.load, Some(Load { used: 3000, limit: 3000, revision }));
    assert_eq!((at, stage.record("d").await.counters.attempts), (stage.now().plus(secs(1)), 1));

    // Two first attempts earn another one.
    for step in ["e", "f"] {
        stage.begin(step, &["db"]).await.granted();
    }
    stage.reach(at).await;
    stage.begin("d", &["db"]).await.granted();

    // What was spent is forgotten with its window, and so is what was earned.
    let g = stage.fail_first("g", &["db"], of(FailureClass::Transient)).await;
    stage.reach(retries(&g)).await;
    let mut refusals = 0;
    while let super::stage::Begun::Refused(decision) = stage.begin("g", &["db"]).await {
        refusals += 1;
        stage.reach(waits(&decision, Reason::Limited)).await;
    }
    assert!((5..=11).contains(&refusals), "{refusals}");
}

async fn what_was_spent_counts_to_the_very_end_of_its_window<S: Store>(mut stage: Stage<S>) {
    // Stretches of a second begin with the full second, as every test does.
    stage.target("db", "budget: {ratio: 0.0, floor: 1, window: 10s}").await;
    stage.pass(ms(500)).await;
    for step in ["a", "b"] {
        stage.fail_first(step, &["db"], of(FailureClass::Error)).await;
    }
    stage.pass(BACKOFF).await;
    let spent = stage.begin("a", &["db"]).await.granted().began_at;
    stage.pass(ms(900)).await;
    while stage.now() < spent.plus(secs(10)) {
        let again = stage.begin("b", &["db"]).await.waits(Reason::Limited);
        assert_eq!(again, stage.now().plus(secs(1)));
        stage.reach(again).await;
    }
    // A stretch more, since it is not known when in its stretch it was spent.
    stage.reach(spent.plus(secs(11))).await;
    stage.begin("b", &["db"]).await.granted();
}

async fn a_spent_budget_stops_where_it_says_so<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "budget: {ratio: 0.0, floor: 1, window: 10s, when_spent: stop}").await;
    for step in ["a", "b"] {
        stage.fail_first(step, &["db"], of(FailureClass::Transient)).await;
    }
    stage.pass(BACKOFF).await;
    stage.begin("a", &["db"]).await.granted();
    stage.begin("b", &["db"]).await.stops(Reason::BudgetSpent);
    assert!(matches!(stage.record("b").await.state, State::Over { .. }));
    stage.begin("c", &["db"]).await.granted();
}

async fn a_timeout_costs_two_and_a_throttled_one_half<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "budget: {ratio: 0.0, floor: 3, window: 1h}").await;
    let classes = [
        ("timeout", FailureClass::Timeout, 2000),
        ("throttled", FailureClass::Throttled, 500),
        ("half", FailureClass::Throttled, 500),
        ("error", FailureClass::Error, 1000),
    ];
    for (step, class, _) in classes {
        stage.fail_first(step, &["db"], of(class)).await;
    }
    stage.pass(BACKOFF).await;
    let mut used = 0;
    for (step, _, cost) in &classes[..3] {
        stage.begin(step, &["db"]).await.granted();
        used += cost;
    }
    let refused = stage.begin("error", &["db"]).await.refused();
    let budget = constraint(&refused, ConstraintKind::Budget);
    assert_eq!(budget.load.map(|load| (load.used, load.limit)), Some((used, 3000)));
}

async fn leases_end_while_calls_come_and_sweeps_do_not<S: Store>(mut stage: Stage<S>) {
    stage.target("pool", "concurrency: {max: 1}").await;
    let a = stage.begin("a", &["pool"]).await.granted();
    for second in 0..11 {
        stage.clock.advance(secs(1));
        stage.begin(&format!("other{second}"), &[]).await.granted();
    }
    let b = stage.begin("b", &["pool"]).await.granted();
    stage.clock.advance(secs(2));
    assert_eq!(stage.beat("a", a.fence).await, None, "its permit is another's by now");
    assert!(stage.beat("b", b.fence).await.is_some());
}

async fn one_pushback_holds_everybody_at_its_target<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "concurrency: {max: 100}").await;
    stage.target("mail", "concurrency: {max: 100}").await;
    let running = stage.begin("running", &["db"]).await.granted();
    let refused = stage.begin("a", &["db", "mail"]).await.granted();
    let told = stage.failed("a", refused.fence, pushed_back("db", secs(30))).await;
    let until = stage.now().plus(secs(30));
    assert!(retries(&told) >= until);

    // Each comes when it is over, and not all of them at once.
    let after = |at: Timestamp, until: Timestamp, most| at >= until && at <= until.plus(most);
    let refused = stage.begin("b", &["mail", "db"]).await.refused();
    assert!(after(waits(&refused, Reason::Limited), until, secs(2)));
    let cooldown = constraint(&refused, ConstraintKind::Cooldown);
    assert_eq!(
        (cooldown.key.as_str(), cooldown.earliest),
        ("db", waits(&refused, Reason::Limited))
    );
    assert!(cooldown.firm && cooldown.binding);
    stage.begin("elsewhere", &["mail"]).await.granted();
    // What runs goes on; its retry waits as everybody does.
    let failed = stage.failed("running", running.fence, of(FailureClass::Error)).await;
    assert!(after(retries(&failed), until, secs(2)));

    // A shorter word does not take back a longer one; a longer one holds what
    // had been told an instant before it.
    stage.reach(until.plus(secs(2))).await;
    let running = stage.begin("running", &["db"]).await.granted();
    stage.failed("running", running.fence, pushed_back("db", secs(5))).await;
    let until = stage.now().plus(secs(5));
    let again = stage.begin("b", &["mail", "db"]).await.waits(Reason::Limited);
    assert!(after(again, until, ms(400)));
    stage.reach(again).await;
    stage.begin("b", &["mail", "db"]).await.granted();
}

async fn a_pause_starts_nothing_until_it_ends_or_is_ended<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "concurrency: {max: 10}").await;
    let a = stage.begin("a", &["db"]).await.granted();
    stage.pause("db", Some(secs(5))).await;
    let until = stage.now().plus(secs(5));
    let refused = stage.begin("b", &["db"]).await.refused();
    assert_eq!(waits(&refused, Reason::Paused), until);
    let pause = constraint(&refused, ConstraintKind::Pause);
    assert_eq!((pause.key.as_str(), pause.earliest, pause.binding), ("db", until, true));
    // What runs goes on, and is decided about.
    assert!(stage.beat("a", a.fence).await.is_some());
    let retry = retries(&stage.failed("a", a.fence, of(FailureClass::Error)).await);
    stage.reach(retry).await;
    assert_eq!(stage.begin("a", &["db"]).await.waits(Reason::Paused), until);
    stage.reach(until).await;
    stage.begin("a", &["db"]).await.granted();
    stage.begin("b", &["db"]).await.granted();

    stage.pause("db", None).await;
    let refused = stage.begin("c", &["db"]).await.refused();
    assert_eq!(refused.settled.verdict, Verdict::Wait(None));
    assert_eq!(refused.settled.reason, Reason::Paused);
    stage.pass(secs(600)).await;
    assert_eq!(stage.begin("c", &["db"]).await.refused().settled.reason, Reason::Paused);
    stage.resume("db").await;
    stage.begin("c", &["db"]).await.granted();
}

async fn a_promise_is_kept_within_the_grace_and_planned_again_after_it<S: Store>(
    mut stage: Stage<S>,
) {
    // Of a burst of one the grace is a tenth of a start's time.
    for (step, late, is_kept) in [("in-time", ms(1000), true), ("too-late", ms(1001), false)] {
        let target = format!("api-{step}");
        stage.target(&target, "rate: {limit: 1, period: 10s, burst: 1}").await;
        let promised = retries(&stage.fail_first(step, &[&target], of(FailureClass::Error)).await);
        assert!(promised > stage.now().plus(BACKOFF), "the first attempt is in the way");
        stage.reach(promised.plus(ms(500))).await;
        // Nobody else starts in its place meanwhile.
        let other = stage.begin("other", &[&target]).await.waits(Reason::Limited);
        assert!(other >= promised.plus(secs(10)));
        stage.reach(promised.plus(late)).await;
        let begun = stage.begin(step, &[&target]).await;
        if is_kept {
            begun.granted();
        } else {
            let again = begun.waits(Reason::Limited);
            assert!(again > promised.plus(late));
        }
        stage.delete_target(&target).await;
        stage.enter(&format!("after-{step}"), "backoff: {fixed: {delay: 1s}}").await;
    }
}

async fn what_a_cancelled_step_was_promised_is_there_for_others<S: Store>(mut stage: Stage<S>) {
    // Starts are told apart by gaps, and by buckets.
    for (target, burst) in [("gaps", 1), ("buckets", 8)] {
        let rate = format!("rate: {{limit: 1, period: 10s, burst: {burst}, on: retries}}");
        stage.target(target, &rate).await;
        let mut latest = [Timestamp::EPOCH; 2];
        for (round, latest) in latest.iter_mut().enumerate() {
            for number in 0..12 {
                let step = format!("{target}{round}-{number}");
                let told = stage.fail_first(&step, &[target], of(FailureClass::Error)).await;
                *latest = retries(&told).max(*latest);
            }
            for number in 0..12 {
                let step = format!("{target}{round}-{number}");
                stage.order(&step, What::Cancel).await.unwrap();
            }
        }
        let [first, second] = latest;
        assert!(second < first.plus(secs(20)), "{target}: {first}, then {second}");
    }
}

async fn a_late_report_leaves_the_promise_as_it_is<S: Store>(mut stage: Stage<S>) {
    stage.target("api", "rate: {limit: 1, period: 10s, burst: 1}").await;
    let grant = stage.begin("a", &["api"]).await.granted();
    stage.pass(LEASE + ms(250)).await;
    let promised = stage.due("a").await;
    let (status, decision) = stage.fail("a", grant.fence, of(FailureClass::Timeout)).await;
    assert_eq!((status, retries(&decision)), (ReportStatus::Late, promised));
    assert_eq!(stage.due("a").await, promised);
    // Nobody else is promised what it has.
    let other = stage.begin("b", &["api"]).await.waits(Reason::Limited);
    assert!(other >= promised.plus(secs(10)), "{:?}", other - promised);
    stage.reach(promised).await;
    stage.begin("a", &["api"]).await.granted();
}

async fn permits_follow_a_bound_that_is_changed_while_they_are_held<S: Store>(mut stage: Stage<S>) {
    stage.target("pool", "concurrency: {max: 3}").await;
    let mut running = Vec::new();
    for step in ["a", "b", "c"] {
        running.push((step, stage.begin(step, &["pool"]).await.granted().fence));
    }
    stage.target("pool", "concurrency: {max: 1}").await;
    for (step, fence) in &running {
        assert!(stage.beat(step, *fence).await.is_some(), "what runs goes on");
    }
    stage.begin("d", &["pool"]).await.waits(Reason::InLine);
    for (step, fence) in running {
        stage.until_due("d").await;
        let told = stage.begin("d", &["pool"]).await.refused();
        waits(&told, Reason::InLine);
        let load = constraint(&told, ConstraintKind::Concurrency).load.unwrap();
        assert_eq!(load.limit, 1);
        assert_eq!(stage.succeed(step, fence).await, ReportStatus::Recorded);
    }
    stage.until_due("d").await;
    stage.begin("d", &["pool"]).await.granted();

    stage.begin("e", &["pool"]).await.waits(Reason::InLine);
    stage.begin("f", &["pool"]).await.waits(Reason::InLine);
    stage.target("pool", "concurrency: {max: 2}").await;
    stage.reach(stage.due("e").await.max(stage.due("f").await)).await;
    stage.begin("f", &["pool"]).await.waits(Reason::InLine);
    stage.begin("e", &["pool"]).await.granted();
    // Without a bound nobody stands in line.
    stage.target("pool", "{}").await;
    stage.until_due("f").await;
    stage.begin("f", &["pool"]).await.granted();
}

async fn a_target_that_is_deleted_and_written_again_remembers_its_permits<S: Store>(
    mut stage: Stage<S>,
) {
    stage.target("pool", "concurrency: {max: 1}").await;
    let a = stage.begin("a", &["pool"]).await.granted();
    stage.begin("b", &["pool"]).await.waits(Reason::InLine);
    stage.delete_target("pool").await;
    assert!(stage.beat("a", a.fence).await.is_some());
    stage.begin("c", &["pool"]).await.granted();
    stage.target("pool", "concurrency: {max: 1}").await;
    stage.until_due("b").await;
    stage.begin("b", &["pool"]).await.waits(Reason::InLine);
    assert_eq!(stage.succeed("a", a.fence).await, ReportStatus::Recorded);
    stage.until_due("b").await;
    stage.begin("b", &["pool"]).await.granted();
}

async fn what_was_promised_counts_under_the_next_rate<S: Store>(mut stage: Stage<S>) {
    let mut revisions = vec![allowed(10, 4, stage.now())];
    stage.target("api", "rate: {limit: 10, burst: 4, on: retries}").await;
    let mut promised = BTreeSet::new();
    let mut number = 0;
    for (limit, burst) in [(20, 6), (4, 2), (10, 4), (10, 1)] {
        for _ in 0..20 {
            let decision =
                stage.fail_first(&number.to_string(), &["api"], of(FailureClass::Error)).await;
            promised.insert((retries(&decision), number));
            number += 1;
        }
        stage.pass(ms(130)).await;
        let yaml = format!("rate: {{limit: {limit}, burst: {burst}, on: retries}}");
        stage.target("api", &yaml).await;
        revisions.push(allowed(limit, burst, stage.now()));
    }
    let mut log = Vec::new();
    for (at, step) in promised {
        stage.reach(at).await;
        stage.begin(&step.to_string(), &["api"]).await.granted();
        log.push(started(step, at, true));
    }
    checker::check(&BTreeMap::from([("api".to_owned(), revisions)]), &log).unwrap();
}

async fn a_target_for_each_run_bounds_each_by_itself<S: Store>(mut stage: Stage<S>) {
    stage.target("pool", "{each_run: true, concurrency: {max: 1}}").await;
    stage.begin("first/a", &["pool"]).await.granted();
    stage.begin("second/a", &["pool"]).await.granted();
    let refused = stage.begin("first/b", &["pool"]).await.refused();
    waits(&refused, Reason::InLine);
    assert_eq!(constraint(&refused, ConstraintKind::Concurrency).key, "pool first");
}

async fn targets_bound_steps_that_do_not_name_them<S: Store>(mut stage: Stage<S>) {
    stage.target("all", "{every_step: true, concurrency: {max: 3}}").await;
    stage.target("usual", "concurrency: {max: 1}").await;
    stage.default_target("usual").await;
    stage.begin("a", &[]).await.granted();
    stage.begin("b", &["new"]).await.granted();
    // Each unknown one has the default's limits for itself.
    stage.begin("c", &["newer"]).await.granted();
    let refused = stage.begin("d", &[]).await.refused();
    waits(&refused, Reason::InLine);
    assert_eq!(constraint(&refused, ConstraintKind::Concurrency).key, "all");
    let refused = stage.begin("e", &["new"]).await.refused();
    waits(&refused, Reason::InLine);
    let keys: Vec<&str> =
        refused.constraints.iter().map(|constraint| constraint.key.as_str()).collect();
    assert_eq!(keys, ["all", "new"]);
}

async fn a_deadline_before_the_reserved_instant_stops_and_reserves_nothing<S: Store>(
    mut stage: Stage<S>,
) {
    stage.target("api", "rate: {limit: 1, period: 10s, burst: 1, on: retries}").await;
    let first = retries(&stage.fail_first("a", &["api"], of(FailureClass::Error)).await);
    let deadline = Some(first.plus(secs(3)));
    let asked = Asked { step: "b", targets: &["api"], deadline, ..Asked::default() };
    let b = stage.ask(asked).await.granted();
    let decision = stage.failed("b", b.fence, of(FailureClass::Error)).await;
    assert_eq!(decision.settled.verdict, Verdict::Stop);
    assert_eq!(decision.settled.reason, Reason::Deadline);
    let second = retries(&stage.fail_first("c", &["api"], of(FailureClass::Error)).await);
    assert!(second < first.plus(secs(22)), "{:?}", second - first);

    // A first attempt is refused likewise.
    stage.target("slow", "rate: {limit: 1, period: 10s, burst: 1}").await;
    stage.begin("d", &["slow"]).await.granted();
    let deadline = Some(stage.now().plus(secs(3)));
    let asked = Asked { step: "e", targets: &["slow"], deadline, ..Asked::default() };
    stage.ask(asked).await.stops(Reason::Deadline);
    let next = stage.begin("f", &["slow"]).await.waits(Reason::Limited);
    assert!(next < stage.now().plus(secs(22)));
}

async fn what_bounds_a_start_is_told_in_the_contracts_words<S: Store>(mut stage: Stage<S>) {
    use reprise::proto::{
        BeginAttemptRequest, Constraint, ConstraintKind, Reason, Verdict,
        begin_attempt_response::Answer, retry_service_server::RetryService as _,
    };
    let revision = stage.target("api", "rate: {limit: 1, period: 10s, burst: 1}").await;
    stage.begin("a", &["api"]).await.granted();
    let request = BeginAttemptRequest {
        namespace: "limits".to_owned(),
        run: "run".to_owned(),
        step: "b".to_owned(),
        request_id: vec![7; 16].into(),
        targets: vec!["api".to_owned()],
        ..BeginAttemptRequest::default()
    };
    let retry = reprise::grpc::retry::Retry::new(Arc::clone(&stage.service), stage.clock.clone());
    let answer = retry.begin_attempt(tonic::Request::new(request)).await.unwrap().into_inner();
    let Some(Answer::Refusal(decision)) = answer.answer else { panic!("no refusal: {answer:?}") };
    assert_eq!((decision.verdict(), decision.reason()), (Verdict::Wait, Reason::Limited));
    let told = Constraint {
        kind: ConstraintKind::Rate.into(),
        key: "api".to_owned(),
        earliest: decision.not_before,
        firm: true,
        binding: true,
        used: 0,
        limit: 1,
        revision,
    };
    assert_eq!(decision.constraints, [told]);
}

async fn what_is_used_of_a_target_is_told<S: Store>(mut stage: Stage<S>) {
    let yaml = "{rate: {limit: 10, period: 10s, burst: 10}, concurrency: {max: 3}, \
                budget: {ratio: 0.5, floor: 1, window: 1m}, breaker: {}}";
    stage.target("db", yaml).await;
    let new = stage.usage("db").await;
    assert_eq!((new.permits, new.in_line, new.parked), (Some((0, 3)), 0, 0));
    assert!(new.starts.is_some_and(|(starts, most)| starts == 0 && most > 0), "{new:?}");
    assert_eq!(
        (new.spent, new.cooldown, new.breaker),
        (Some((0, 1000)), None, Some(Standing::Closed))
    );

    let a = stage.begin("a", &["db"]).await.granted();
    stage.begin("b", &["db"]).await.granted();
    let c = stage.begin("c", &["db"]).await.granted();
    stage.begin("d", &["db"]).await.waits(Reason::InLine);
    let used = stage.usage("db").await;
    assert_eq!((used.permits, used.in_line), (Some((3, 3)), 1));
    assert_eq!(used.spent, Some((0, 2500)), "three first attempts earn half a retry each");
    assert!(used.starts.is_some_and(|(starts, most)| starts > 0 && starts <= most), "{used:?}");

    stage.failed("a", a.fence, of(FailureClass::Error)).await;
    stage.failed("c", c.fence, pushed_back("db", secs(30))).await;
    let cooled = stage.usage("db").await;
    let until = stage.now().plus(secs(30));
    assert_eq!((cooled.permits, cooled.cooldown), (Some((1, 3)), Some(until)));
    assert!(matches!(cooled.breaker, Some(Standing::Ramp { since, .. }) if since == until));
    stage.begin("e", &["db"]).await.waits(Reason::BreakerOpen);
    assert_eq!(stage.usage("db").await.parked, 1);
    let bare = stage.target("bare", "{}").await;
    assert!(bare > 0);
    let usage = stage.usage("bare").await;
    assert_eq!((usage.starts, usage.permits, usage.spent, usage.breaker), (None, None, None, None));
}

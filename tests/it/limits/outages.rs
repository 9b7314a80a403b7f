//! Stories of targets that are out of order, each on every store.

use std::time::Duration;

use reprise::{
    domain::{
        decision::{ConstraintKind, Decision, Reason, Verdict},
        failure::{Failure, FailureClass},
        limit::breaker::Standing,
        plan::{Grant, ReportStatus},
        time::Timestamp,
    },
    store::Store,
};

use super::stage::{
    Asked, Begun, Stage, constraint, ms, of, pushed_back, retries, secs, stories_on_every_store,
    waits,
};

stories_on_every_store!(
    a_dead_target_is_left_alone_but_for_probes,
    failures_of_an_outage_burn_no_retries,
    a_failure_of_the_work_itself_says_nothing_of_its_target,
    one_bad_host_is_kept_away_and_its_target_is_not,
    failures_of_one_host_alone_leave_the_breaker_shut,
    a_host_that_fails_alone_claims_nothing_at_its_target,
    who_is_parked_is_called_on_the_ramp_the_longest_waiting_first,
    a_relapse_makes_the_next_ramp_longer,
    a_pushback_parks_everybody_and_ends_in_a_ramp,
    a_breaker_that_only_watches_refuses_nothing,
    a_success_that_took_too_long_counts_as_a_failure,
    a_probe_that_is_never_heard_of_is_followed_by_others,
    a_poisonous_step_does_not_keep_a_breaker_open,
    probes_cost_no_budget,
    a_step_that_names_two_targets_waits_for_the_dead_one,
    of_two_targets_only_one_that_is_named_is_to_blame,
);

/// Hosts that are not to blame alone.
const HOSTS: [&str; 4] = ["n1", "n2", "n3", "n4"];
/// Attempts that are enough to tell a dead target.
const ENOUGH: usize = 20;

/// As many steps as it takes begin and fail, one after the other.
pub async fn dies<S: Store>(stage: &mut Stage<S>, targets: &[&str]) {
    for number in 0..ENOUGH {
        let (step, host) = (format!("dies{number}"), HOSTS[number % HOSTS.len()]);
        stage.pass(ms(50)).await;
        let grant = match stage.begin_on(host, &step, targets).await {
            Begun::Granted(grant) => grant,
            Begun::Refused(decision) => {
                waits(&decision, Reason::BreakerOpen);
                return;
            }
        };
        let failure = Failure { target: targets[0].into(), ..of(FailureClass::Transient) };
        stage.failed(&step, grant.fence, failure).await;
    }
}

/// The first of some steps that is let through, within ten seconds.
async fn probe<S: Store>(stage: &mut Stage<S>, name: &str, targets: &[&str]) -> (String, Grant) {
    for _ in 0..40 {
        let step = format!("{name}{}", stage.calls());
        match stage.begin_on("n1", &step, targets).await {
            Begun::Granted(grant) => return (step, *grant),
            Begun::Refused(decision) => {
                waits(&decision, Reason::BreakerOpen);
            }
        }
        stage.pass(ms(250)).await;
    }
    panic!("no probe in ten seconds");
}

/// A probe succeeds.
pub async fn is_back<S: Store>(stage: &mut Stage<S>, targets: &[&str]) {
    let (step, grant) = probe(stage, "probe", targets).await;
    stage.succeed(&step, grant.fence).await;
}

async fn a_dead_target_is_left_alone_but_for_probes<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {}").await;
    dies(&mut stage, &["db"]).await;
    let opened = stage.now();

    let refused = stage.begin("a", &["db"]).await.refused();
    waits(&refused, Reason::BreakerOpen);
    let found = constraint(&refused, ConstraintKind::Breaker);
    assert_eq!((found.key.as_str(), found.firm, found.binding), ("db", false, true));

    let (mut probes, mut starts) = (0, Vec::new());
    for number in 0..200 {
        let step = format!("later{number}");
        if let Begun::Granted(grant) = stage.begin_on("n1", &step, &["db"]).await {
            probes += 1;
            starts.push(stage.now() - opened);
            let told = stage.failed(&step, grant.fence, of(FailureClass::Timeout)).await;
            waits(&told, Reason::BreakerOpen);
        }
        stage.pass(ms(100)).await;
    }
    let first = starts[0];
    assert!((ms(300)..ms(800)).contains(&first), "half a second, more or less: {first:?}");
    assert!((6..14).contains(&probes), "one each 2.5 s in 20 s: {starts:?}");

    is_back(&mut stage, &["db"]).await;
    let refused_once = stage.begin("z", &["db"]).await;
    if let Begun::Refused(decision) = refused_once {
        waits(&decision, Reason::Limited);
        constraint(&decision, ConstraintKind::Ramp);
    }
    stage.pass(secs(12)).await;
    stage.begin("y", &["db"]).await.granted();
}

async fn failures_of_an_outage_burn_no_retries<S: Store>(mut stage: Stage<S>) {
    stage.enter("few", "{max_retries: 3, backoff: {fixed: {delay: 1s}}}").await;
    stage.target("db", "breaker: {}").await;
    // Two of its three retries are burnt before anybody knows of an outage.
    let mut told = stage.fail_first("a", &["db"], of(FailureClass::Transient)).await;
    for _ in 0..2 {
        stage.reach(retries(&told)).await;
        let grant = stage.begin("a", &["db"]).await.granted();
        told = stage.failed("a", grant.fence, of(FailureClass::Transient)).await;
    }
    assert_eq!((told.settled.counters.retries, told.settled.counters.forgiven), (3, 0));
    dies(&mut stage, &["db"]).await;

    // It comes as a probe, and fails once more than it may.
    stage.reach(retries(&told)).await;
    let mut granted = None;
    for _ in 0..40 {
        match stage.begin_on("n2", "a", &["db"]).await {
            Begun::Granted(grant) => {
                granted = Some(grant);
                break;
            }
            Begun::Refused(decision) => stage.reach(until(&decision)).await,
        }
    }
    let grant = granted.expect("it is among the first in line for a probe");
    let told = stage.failed("a", grant.fence, of(FailureClass::Transient)).await;
    waits(&told, Reason::BreakerOpen);
    let counters = &told.settled.counters;
    assert_eq!((counters.attempts, counters.retries, counters.forgiven), (4, 0, 4));
    let kept = stage.record("a").await;
    assert_eq!((kept.counters.retries, kept.counters.forgiven), (0, 4));
}

fn until(decision: &Decision) -> Timestamp {
    match decision.settled.verdict {
        Verdict::Wait(Some(at)) | Verdict::Retry(at) => at,
        other => panic!("it does not wait: {other:?}"),
    }
}

async fn a_failure_of_the_work_itself_says_nothing_of_its_target<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {}").await;
    for number in 0..60 {
        let (step, host) = (format!("s{number}"), HOSTS[number % HOSTS.len()]);
        let grant = stage.begin_on(host, &step, &["db"]).await.granted();
        stage.failed(&step, grant.fence, of(FailureClass::Failure)).await;
    }
    stage.begin("a", &["db"]).await.granted();
}

async fn one_bad_host_is_kept_away_and_its_target_is_not<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {}").await;
    let mut kept_away = None;
    for number in 0..40 {
        let (good, bad) = (format!("good{number}"), format!("bad{number}"));
        let grant = stage.begin_on(HOSTS[number % 3 + 1], &good, &["db"]).await.granted();
        stage.succeed(&good, grant.fence).await;
        match stage.begin_on("n1", &bad, &["db"]).await {
            Begun::Granted(grant) => {
                stage.failed(&bad, grant.fence, of(FailureClass::Error)).await;
            }
            Begun::Refused(decision) => {
                kept_away = Some((bad, decision));
                break;
            }
        }
        stage.pass(ms(10)).await;
    }
    let (bad, decision) = kept_away.expect("the host is told apart");
    assert_eq!(decision.settled.verdict, Verdict::Wait(None));
    assert_eq!(decision.settled.reason, Reason::ExcludedHost);
    let host = constraint(&decision, ConstraintKind::Host);
    assert_eq!(host.key, "db");
    // Any other host may run the step at once, and this one in a while.
    stage.begin_on("n2", &bad, &["db"]).await.granted();
    stage.reach(host.earliest).await;
    stage.begin_on("n1", "after", &["db"]).await.granted();
}

/// Steps begin on a host and end as they do.
async fn ends<S: Store>(stage: &mut Stage<S>, host: &str, class: Option<FailureClass>, of: usize) {
    for _ in 0..of {
        let step = format!("{host}-{}", stage.calls());
        let grant = stage.begin_on(host, &step, &["db"]).await.granted();
        match class {
            Some(class) => {
                stage.failed(&step, grant.fence, Failure::of(class)).await;
            }
            None => assert_eq!(stage.succeed(&step, grant.fence).await, ReportStatus::Recorded),
        }
        stage.pass(ms(10)).await;
    }
}

async fn failures_of_one_host_alone_leave_the_breaker_shut<S: Store>(mut stage: Stage<S>) {
    let failed = Some(FailureClass::Transient);
    stage.target("db", "breaker: {}").await;
    // Nobody else was heard of, then too few to say anything without it.
    ends(&mut stage, "n1", failed, 40).await;
    ends(&mut stage, "n2", failed, 9).await;
    assert_eq!(stage.usage("db").await.breaker, Some(Standing::Closed));
    ends(&mut stage, "n1", failed, 10).await;
    assert_eq!(stage.usage("db").await.breaker, Some(Standing::Closed));
    // The tenth is evidence that does not rest on one host.
    ends(&mut stage, "n3", failed, 1).await;
    assert!(matches!(stage.usage("db").await.breaker, Some(Standing::Open { .. })));
}

async fn a_host_that_fails_alone_claims_nothing_at_its_target<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {}").await;
    let names = ["q0", "q1", "q2"];
    for step in names {
        let asked = Asked { step, host: "n2", queue: "etl", targets: &["db"], ..Asked::default() };
        let grant = stage.ask(asked).await.granted();
        stage.failed(step, grant.fence, of(FailureClass::Failure)).await;
    }
    let elsewhere = Asked { step: "other", host: "n2", queue: "etl", ..Asked::default() };
    let grant = stage.ask(elsewhere).await.granted();
    stage.failed("other", grant.fence, of(FailureClass::Failure)).await;
    stage.pass(secs(1)).await;
    ends(&mut stage, "n2", None, 12).await;
    ends(&mut stage, "n1", Some(FailureClass::Error), 5).await;

    let used = stage.usage("db").await;
    assert_eq!((used.breaker, used.ejected_hosts), (Some(Standing::Closed), 1));
    assert_eq!(stage.claim("etl", "n1").await, ["other"], "it is kept from its target alone");
    let fence = stage.record("other").await.fence;
    stage.succeed("other", fence).await;
    assert_eq!(stage.claim("etl", "n2").await, names);
    // In a while it may try again.
    for step in names {
        let fence = stage.record(step).await.fence;
        stage.failed(step, fence, of(FailureClass::Failure)).await;
    }
    stage.pass(secs(31)).await;
    assert_eq!(stage.claim("etl", "n1").await, names);
}

async fn who_is_parked_is_called_on_the_ramp_the_longest_waiting_first<S: Store>(
    mut stage: Stage<S>,
) {
    stage.target("db", "{rate: {limit: 40, burst: 10}, breaker: {}}").await;
    dies(&mut stage, &["db"]).await;
    let names: Vec<String> = (0..60).map(|number| format!("p{number:02}")).collect();
    for name in &names {
        stage.begin(name, &["db"]).await.waits(Reason::BreakerOpen);
        stage.pass(ms(5)).await;
    }
    // Nobody who waits is fresh.
    stage.pass(secs(40)).await;
    is_back(&mut stage, &["db"]).await;
    let closed = stage.now();

    let mut starts: Vec<(Duration, &str)> = Vec::new();
    let mut left: Vec<&str> = names.iter().map(String::as_str).collect();
    while !left.is_empty() && stage.now() < closed.plus(secs(30)) {
        let now = stage.now();
        let mut waiting = Vec::new();
        for name in left {
            if stage.due(name).await <= now && !stage.is_parked(name).await {
                match stage.begin(name, &[]).await {
                    Begun::Granted(grant) => {
                        starts.push((now - closed, name));
                        stage.succeed(name, grant.fence).await;
                    }
                    Begun::Refused(decision) => panic!("{name} was called: {decision:?}"),
                }
            } else {
                waiting.push(name);
            }
        }
        left = waiting;
        stage.pass(ms(20)).await;
    }
    assert!(left.is_empty(), "all are called: {left:?}");
    let order: Vec<&str> = starts.iter().map(|(_, name)| *name).collect();
    let far = order
        .iter()
        .enumerate()
        .map(|(at, name)| at.abs_diff(names.iter().position(|known| known == name).unwrap()));
    assert!(far.max() <= Some(15), "the longest waiting first: {order:?}");
    // At x seconds of a ramp of L, 40 · (0.1 x + 0.45 x²/L) starts, and no more.
    for (count, (at, _)) in starts.iter().enumerate() {
        let (x, long) = (at.as_secs_f64(), 10.0_f64);
        let admitted = if x < long { 40.0 * (0.1 * x + 0.45 * x * x / long) } else { f64::MAX };
        assert!(count as f64 <= admitted + 2.0, "{count} by {x} s of the ramp: {starts:?}");
    }
}

async fn a_relapse_makes_the_next_ramp_longer<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "{rate: {limit: 20, burst: 10}, breaker: {}}").await;
    dies(&mut stage, &["db"]).await;
    stage.pass(secs(30)).await;
    is_back(&mut stage, &["db"]).await;
    let first = ramp(&mut stage, "one").await;
    stage.pass(secs(11)).await;
    for number in 0..60 {
        let (step, host) = (format!("again{number}"), HOSTS[number % HOSTS.len()]);
        stage.pass(ms(120)).await;
        let Begun::Granted(grant) = stage.begin_on(host, &step, &["db"]).await else { break };
        stage.failed(&step, grant.fence, of(FailureClass::Transient)).await;
    }
    stage.begin("b", &["db"]).await.waits(Reason::BreakerOpen);
    stage.pass(secs(30)).await;
    is_back(&mut stage, &["db"]).await;
    let second = ramp(&mut stage, "two").await;
    assert!(second > first * 5 / 4, "the start of 40 comes after {first:?}, then {second:?}");
}

/// How long after the beginning of a ramp the fortieth start comes.
async fn ramp<S: Store>(stage: &mut Stage<S>, name: &str) -> Duration {
    let closed = stage.now();
    let mut latest = closed;
    for number in 0..40 {
        let begun = stage.begin(&format!("ramp-{name}{number}"), &["db"]).await;
        if let Begun::Refused(decision) = begun {
            latest = latest.max(waits(&decision, Reason::Limited));
        }
    }
    latest - closed
}

async fn a_pushback_parks_everybody_and_ends_in_a_ramp<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "{rate: {limit: 100, burst: 100}, breaker: {}}").await;
    let told = stage.fail_first("a", &["db"], pushed_back("db", secs(20))).await;
    let until = stage.now().plus(secs(20));
    assert!(retries(&told) >= until, "it is planned before the pushback is known to others");
    stage.begin("b", &["db"]).await.waits(Reason::BreakerOpen);
    stage.pass(secs(19)).await;
    stage.begin("c", &["db"]).await.waits(Reason::BreakerOpen);
    stage.reach(until).await;
    let mut at_once = 0;
    for number in 0..50 {
        match stage.begin(&format!("d{number}"), &["db"]).await {
            Begun::Granted(_) => at_once += 1,
            Begun::Refused(decision) => {
                assert_eq!(decision.settled.reason, Reason::Limited, "{decision:?}");
            }
        }
    }
    assert!(at_once <= 2, "{at_once} of fifty at once, where a burst of 100 is allowed");
}

async fn a_breaker_that_only_watches_refuses_nothing<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {observe_only: true}").await;
    dies(&mut stage, &["db"]).await;
    let grant = stage.begin("a", &["db"]).await.granted();
    let told = stage.failed("a", grant.fence, of(FailureClass::Transient)).await;
    assert_eq!((told.settled.counters.retries, told.settled.counters.forgiven), (1, 0));
}

async fn a_success_that_took_too_long_counts_as_a_failure<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {slow_after: 2s}").await;
    let mut grants = Vec::new();
    for number in 0..ENOUGH {
        let step = format!("slow{number}");
        let grant = stage.begin_on(HOSTS[number % HOSTS.len()], &step, &["db"]).await.granted();
        grants.push((step, grant.fence));
    }
    stage.pass(secs(3)).await;
    for (step, fence) in grants {
        stage.succeed(&step, fence).await;
    }
    stage.begin("a", &["db"]).await.waits(Reason::BreakerOpen);
}

async fn a_probe_that_is_never_heard_of_is_followed_by_others<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {}").await;
    dies(&mut stage, &["db"]).await;
    for _ in 0..3 {
        probe(&mut stage, "silent", &["db"]).await;
        stage.pass(secs(3)).await;
    }
    // Three are on their way: nobody follows until they are lost.
    stage.begin("d", &["db"]).await.waits(Reason::BreakerOpen);
    stage.pass(secs(30)).await;
    is_back(&mut stage, &["db"]).await;
    stage.pass(secs(12)).await;
    stage.begin("e", &["db"]).await.granted();
}

async fn a_poisonous_step_does_not_keep_a_breaker_open<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {}").await;
    dies(&mut stage, &["db"]).await;
    let (poison, grant) = probe(&mut stage, "poison", &["db"]).await;
    stage.failed(&poison, grant.fence, of(FailureClass::Error)).await;
    // However often it comes, it is not tried again in this outage.
    for _ in 0..10 {
        stage.pass(secs(1)).await;
        let at = stage.due(&poison).await.max(stage.now());
        stage.reach(at).await;
        stage.begin(&poison, &[]).await.waits(Reason::BreakerOpen);
    }
    is_back(&mut stage, &["db"]).await;
}

async fn probes_cost_no_budget<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "{breaker: {}, budget: {ratio: 0.0, floor: 1, window: 1m}}").await;
    dies(&mut stage, &["db"]).await;
    let mut probes = 0;
    for number in 0..5 {
        let step = format!("dies{number}");
        for _ in 0..20 {
            match stage.begin_on("n1", &step, &["db"]).await {
                Begun::Granted(grant) => {
                    probes += 1;
                    stage.failed(&step, grant.fence, of(FailureClass::Transient)).await;
                    break;
                }
                Begun::Refused(decision) => stage.reach(until(&decision)).await,
            }
        }
    }
    assert_eq!(probes, 5, "each is a retry, and the budget has one");
}

async fn of_two_targets_only_one_that_is_named_is_to_blame<S: Store>(mut stage: Stage<S>) {
    for target in ["db", "api"] {
        stage.target(target, "breaker: {}").await;
    }
    // Twice as often as it takes.
    for number in 0..2 * ENOUGH {
        let (step, host) = (format!("unsaid{number}"), HOSTS[number % HOSTS.len()]);
        let grant = stage.begin_on(host, &step, &["db", "api"]).await.granted();
        stage.failed(&step, grant.fence, of(FailureClass::Transient)).await;
    }
    dies(&mut stage, &["db", "api"]).await;
    let stands = [stage.usage("db").await.breaker, stage.usage("api").await.breaker];
    assert!(matches!(stands, [Some(Standing::Open { .. }), Some(Standing::Closed)]), "{stands:?}");
}

async fn a_step_that_names_two_targets_waits_for_the_dead_one<S: Store>(mut stage: Stage<S>) {
    stage.target("db", "breaker: {}").await;
    stage.target("api", "{rate: {limit: 100}, breaker: {}}").await;
    dies(&mut stage, &["db"]).await;
    let refused = stage.begin("both", &["api", "db"]).await.refused();
    waits(&refused, Reason::BreakerOpen);
    assert_eq!(constraint(&refused, ConstraintKind::Breaker).key, "db");
    stage.begin("other", &["api"]).await.granted();
    is_back(&mut stage, &["db"]).await;
    stage.pass(secs(12)).await;
    stage.until_due("both").await;
    stage.begin("both", &[]).await.granted();
}

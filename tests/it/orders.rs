//! What operators order about steps: every order in every state, on every store, and
//! what becomes of who waits, of who runs and of what the step had of its targets.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use reprise::{
    domain::{
        decision::{ConstraintKind, Reason, Verdict},
        event::Deadline,
        failure::{Executed, Failure, FailureClass},
        order::{Extension, Footing, ORDERS_MAX, Stage as Standing, What},
        plan::Refusal,
        policy::spec::HoldAnswer,
        record::{Ending, Identity, Record, State},
    },
    service::{StepFilter, WaitEnd},
    store::Store,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::{
    limits::stage::{Asked, LEASE, Stage, of, retries, secs, stories_on_every_store, waits},
    process::Server,
    rule::refusal_name,
};

/// One retry a minute later, then a person decides; some failures at once.
const GUIDED: &str = r"
max_retries: 1
max_elapsed: 1h
backoff: {fixed: {delay: 1m}}
rules:
  - {name: later, match: {error_types: [later]}, stop: after_backoff}
  - name: held
    match: {error_types: [held]}
    hold: {allowed: [RETRY, SKIP, FAIL, EXCLUDE_HOST], max_manual_retries: 2}
  - {name: required, match: {error_types: [required]}, hold: {allowed: [RETRY], max_manual_retries: 1}}
on_exhaustion: {hold: {allowed: [RETRY, FAIL], timeout: 10m, default_answer: FAIL}}
";
const MINUTE: Duration = secs(60);
const EXTENSION: What = What::Extend(Extension { retries: 2, deadline: None });

fn as_of(error_type: &str) -> Failure {
    Failure { error_type: error_type.to_owned(), ..of(FailureClass::Failure) }
}

/// Brings a step of this name where it says.
async fn bring<S: Store>(stage: &mut Stage<S>, step: &str, to: Standing) {
    let fence = stage.begin_on("h", step, &[]).await.granted().fence;
    match to {
        Standing::Running => {}
        Standing::Waiting => drop(stage.failed(step, fence, as_of("")).await),
        Standing::Stopping => drop(stage.failed(step, fence, as_of("later")).await),
        Standing::Held => drop(stage.failed(step, fence, as_of("held")).await),
        Standing::Over(Ending::Succeeded) => drop(stage.succeed(step, fence).await),
        Standing::Over(Ending::Failed) => {
            let failure = Failure { retryable: false, ..as_of("") };
            drop(stage.failed(step, fence, failure).await);
        }
        Standing::Over(Ending::Skipped) => {
            stage.failed(step, fence, as_of("")).await;
            stage.order(step, What::Skip).await.unwrap();
        }
        Standing::Over(Ending::Canceled) => {
            stage.failed(step, fence, as_of("")).await;
            stage.order(step, What::Cancel).await.unwrap();
        }
    }
    assert_eq!(Standing::of(&stage.record(step).await.state), to);
}

/// What becomes of a step in each state, in the order of [`Standing::ALL`]: where it
/// stands afterwards, or what is in the order's way.
fn table() -> Vec<(What, [&'static str; 8])> {
    const BUSY: &str = "in progress";
    const UNHELD: [&str; 3] = ["not held"; 3];
    let resolved = |after| {
        let [waiting, stopping, running] = UNHELD;
        let [succeeded, failed, skipped] = UNHELD;
        [waiting, stopping, running, after, succeeded, failed, skipped, "not held"]
    };
    let alive = ["WAITING", "STOPPING", "RUNNING", "HELD"];
    let over = ["over"; 4];
    let whether_over = |alive: [&'static str; 4], over: [&'static str; 4]| {
        let ([a, b, c, d], [e, f, g, h]) = (alive, over);
        [a, b, c, d, e, f, g, h]
    };
    let bounds = ["over", "FAILED", "SKIPPED", "CANCELED"];
    let ended = |name| [name, name, BUSY, name];
    vec![
        (What::Retry, whether_over(ended("WAITING"), ["over", "WAITING", "WAITING", "WAITING"])),
        (What::Skip, whether_over(ended("SKIPPED"), ["over", "SKIPPED", "over", "SKIPPED"])),
        (
            What::Succeed,
            whether_over(ended("SUCCEEDED"), ["over", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED"]),
        ),
        (What::Fail, whether_over(ended("FAILED"), over)),
        (What::Cancel, whether_over(["CANCELED", "CANCELED", "RUNNING", "CANCELED"], over)),
        (What::Reset, whether_over(alive, bounds)),
        (EXTENSION, whether_over(alive, bounds)),
        (What::Pause(None), whether_over(alive, over)),
        (What::Resume, whether_over(["not paused"; 4], over)),
        (What::Resolve(HoldAnswer::Retry), resolved("WAITING")),
        (What::Resolve(HoldAnswer::Skip), resolved("SKIPPED")),
        (What::Resolve(HoldAnswer::Fail), resolved("FAILED")),
        (What::Resolve(HoldAnswer::ExcludeHost), resolved("WAITING")),
    ]
}

async fn every_order_is_carried_out_in_every_state_or_refused<S: Store>(mut stage: Stage<S>) {
    stage.enter("table", GUIDED).await;
    for (number, (what, cells)) in table().into_iter().enumerate() {
        for (column, (from, expected)) in Standing::ALL.into_iter().zip(cells).enumerate() {
            let step = format!("{number}-{column}");
            bring(&mut stage, &step, from).await;
            let before = stage.record(&step).await;
            let found = stage.order(&step, what).await;
            let after = stage.record(&step).await;
            let case = format!("{what:?} of {from:?}");
            match found {
                Ok(ordered) => {
                    assert_eq!(ordered.given.after.stage.name(), expected, "{case}");
                    assert_eq!(ordered.given.before, Footing::of(&before), "{case}");
                    assert_eq!(ordered.given.after, Footing::of(&after), "{case}");
                    let orders = after.orders.as_ref().unwrap();
                    assert_eq!(orders.given.back(), Some(&ordered.given), "{case}");
                    assert_eq!(
                        (&*ordered.given.by, &*ordered.given.reason),
                        ("ann", "it has to be")
                    );
                }
                Err(refusal) => {
                    assert_eq!(refusal_name(&refusal), expected, "{case}");
                    assert_eq!(after, before, "{case}");
                }
            }
        }
    }
    let unknown = stage.order("nobody", What::Retry).await;
    assert_eq!(unknown, Err(Refusal::UnknownStep));
}

async fn an_order_that_is_repeated_is_carried_out_once<S: Store>(mut stage: Stage<S>) {
    stage.enter("again", GUIDED).await;
    bring(&mut stage, "a", Standing::Waiting).await;
    let identity = Identity { id: 900, payload: 1 };
    let first = stage.order_as("a", EXTENSION, identity).await.unwrap();
    let again = stage.order_as("a", EXTENSION, identity).await.unwrap();
    assert_eq!((first.replayed, again.replayed), (false, true));
    assert_eq!(first.given, again.given);
    assert_eq!(stage.record("a").await.extra_retries(), 2);
    // The same also when the step has gone on meanwhile.
    stage.order("a", What::Cancel).await.unwrap();
    assert!(stage.order_as("a", EXTENSION, identity).await.unwrap().replayed);
    let other = Identity { payload: 2, ..identity };
    assert_eq!(stage.order_as("a", What::Retry, other).await, Err(Refusal::IdentityReused));
    // The latest few are remembered.
    for _ in 0..2 * ORDERS_MAX {
        stage.order("a", What::Reset).await.unwrap();
    }
    assert_eq!(stage.record("a").await.orders.unwrap().given.len(), ORDERS_MAX);
}

async fn a_hold_is_answered_as_it_allows<S: Store>(mut stage: Stage<S>) {
    stage.enter("holds", GUIDED).await;
    let fence = stage.begin("a", &[]).await.granted().fence;
    stage.failed("a", fence, as_of("required")).await;
    for answer in [What::Skip, What::Fail, What::Resolve(HoldAnswer::Skip)] {
        let refused = stage.order("a", answer).await;
        assert_eq!(refused.map_err(|refusal| refusal_name(&refusal)), Err("not allowed"));
    }
    // Nobody told on which host it ran.
    let excluded = stage.order("a", What::Resolve(HoldAnswer::ExcludeHost)).await;
    assert_eq!(excluded.map_err(|refusal| refusal_name(&refusal)), Err("not allowed"));
    stage.order("a", What::Resolve(HoldAnswer::Retry)).await.unwrap();
    let record = stage.record("a").await;
    assert_eq!((record.manual_retries, record.decision().unwrap().reason), (1, Reason::Answered));
    // A hold without an answer that is left gives the step up.
    let fence = stage.begin("a", &[]).await.granted().fence;
    let decision = stage.failed("a", fence, as_of("required")).await;
    assert_eq!(decision.settled.verdict, Verdict::Stop);

    // Twice by hand, on whichever host the operator leaves.
    let step = "b";
    for (host, expected) in [("h", Ok(())), ("i", Ok(())), ("k", Err("spent"))] {
        let fence = stage.begin_on(host, step, &[]).await.granted().fence;
        stage.failed(step, fence, as_of("held")).await;
        let found = stage.order(step, What::Resolve(HoldAnswer::ExcludeHost)).await;
        assert_eq!(found.map(drop).map_err(|refusal| refusal_name(&refusal)), expected);
        if expected.is_ok() {
            let refused = stage.begin_on(host, step, &[]).await.refused();
            assert_eq!(refused.settled.reason, Reason::ExcludedHost);
            assert!(refused.excluded_hosts.iter().any(|excluded| excluded.hard));
        }
    }
    // Counters that start again have it tried by hand again.
    stage.order("b", What::Reset).await.unwrap();
    stage.order("b", What::Resolve(HoldAnswer::Retry)).await.unwrap();
}

async fn who_waits_for_a_step_hears_of_its_answer_at_once<S: Store>(mut stage: Stage<S>) {
    stage.enter("waits", GUIDED).await;
    bring(&mut stage, "a", Standing::Held).await;
    let answers =
        [(HoldAnswer::Retry, Verdict::Retry(stage.now())), (HoldAnswer::Skip, Verdict::Done)];
    for (answer, verdict) in answers {
        let service = std::sync::Arc::clone(&stage.service);
        let waiter = tokio::spawn(async move {
            let key = crate::store_contract::subject::key("waits", "run", "a");
            let until = tokio::time::Instant::now() + secs(60);
            service.await_decision(&key, until).await.unwrap()
        });
        while stage.service.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        stage.order("a", What::Resolve(answer)).await.unwrap();
        let awaited = waiter.await.unwrap();
        assert_eq!((awaited.end, awaited.decision.settled.verdict), (WaitEnd::Ready, verdict));
        if answer == HoldAnswer::Retry {
            let fence = stage.begin_on("h", "a", &[]).await.granted().fence;
            stage.failed("a", fence, as_of("held")).await;
        }
    }
}

async fn an_attempt_that_is_cancelled_is_told_and_ends_its_step<S: Store>(mut stage: Stage<S>) {
    stage.enter("cancel", GUIDED).await;
    for step in ["fails", "vanishes", "succeeds"] {
        let fence = stage.begin(step, &[]).await.granted().fence;
        assert_eq!(stage.get_on(step, fence, 1).await, Some(false));
        stage.order(step, What::Cancel).await.unwrap();
        assert_eq!(stage.get_on(step, fence, 2).await, Some(true));
        match step {
            "fails" => {
                let decision = stage.failed(step, fence, as_of("")).await;
                assert_eq!(decision.settled.verdict, Verdict::Stop);
                assert_eq!(decision.settled.reason, Reason::Canceled);
            }
            "vanishes" => stage.pass(LEASE).await,
            _ => drop(stage.succeed(step, fence).await),
        }
        let ending = if step == "succeeds" { Ending::Succeeded } else { Ending::Canceled };
        let record = stage.record(step).await;
        assert_eq!(Standing::of(&record.state), Standing::Over(ending), "{step}");
        assert!(!record.is_cancel_requested());
    }
}

async fn nothing_starts_while_a_step_is_paused<S: Store>(mut stage: Stage<S>) {
    stage.enter("pause", GUIDED).await;
    bring(&mut stage, "a", Standing::Waiting).await;
    stage.order("a", What::Pause(None)).await.unwrap();
    stage.pass(2 * MINUTE).await;
    let decision = stage.begin("a", &[]).await.refused();
    assert_eq!(
        (decision.settled.verdict, decision.settled.reason),
        (Verdict::Wait(None), Reason::Paused)
    );
    let told = stage.explained("a").await;
    let first = &told.constraints[0];
    assert_eq!((first.constraint.kind, told.starts_at), (ConstraintKind::Pause, None));
    assert!(first.constraint.binding && first.order.is_some() && first.without.is_some());
    // A longer pause takes the place of the first, and ends by itself.
    let until = stage.now().plus(90 * MINUTE);
    stage.order("a", What::Pause(Some(Deadline::At(until)))).await.unwrap();
    assert_eq!(stage.begin("a", &[]).await.waits(Reason::Paused), until);
    let over = stage.order("a", What::Pause(Some(Deadline::At(stage.now())))).await;
    assert_eq!(over.map_err(|refusal| refusal_name(&refusal)), Err("pause over"));
    stage.reach(until).await;
    // An hour and a half later its hour is not over.
    let grant = stage.begin("a", &[]).await.granted();
    assert_eq!(grant.ends_by, Some(grant.began_at.plus(60 * MINUTE)));
    assert!(stage.record("a").await.paused_at(stage.now()).is_none());

    // Who runs goes on, and its retry waits.
    stage.order("a", What::Pause(None)).await.unwrap();
    assert_eq!(stage.get_on("a", grant.fence, 1).await, Some(false));
    retries(&stage.failed("a", grant.fence, of(FailureClass::Crash)).await);
    stage.pass(2 * MINUTE).await;
    assert_eq!(stage.begin("a", &[]).await.refused().settled.reason, Reason::Paused);
    stage.order("a", What::Resume).await.unwrap();
    stage.begin("a", &[]).await.granted();
}

async fn who_waits_for_a_paused_step_hears_when_it_is_resumed<S: Store>(mut stage: Stage<S>) {
    stage.enter("resume", GUIDED).await;
    bring(&mut stage, "a", Standing::Waiting).await;
    stage.order("a", What::Pause(None)).await.unwrap();
    stage.pass(2 * MINUTE).await;
    let end = stage.wait_for("a", Duration::ZERO).await.end;
    assert_eq!(end, WaitEnd::StillWaiting);
    stage.order("a", What::Resume).await.unwrap();
    assert_eq!(stage.wait_for("a", Duration::ZERO).await.end, WaitEnd::Ready);
}

/// Nobody is late for what an operator has paused.
async fn a_paused_step_is_not_abandoned<S: Store>(mut stage: Stage<S>) {
    stage.enter("patience", GUIDED).await;
    bring(&mut stage, "a", Standing::Waiting).await;
    stage.order("a", What::Pause(None)).await.unwrap();
    let patience = reprise::domain::namespace::Settings::default().abandon_after;
    stage.clock.advance(2 * patience);
    stage.pass(secs(1)).await;
    stage.order("a", What::Resume).await.unwrap();
    stage.pass(secs(1)).await;
    stage.begin("a", &[]).await.granted();
}

async fn what_a_step_has_of_limits_is_given_back<S: Store>(mut stage: Stage<S>) {
    stage.target("pool", "concurrency: {max: 1}").await;
    let pool = &["pool"];
    let fence = stage.begin("first", pool).await.granted().fence;
    for (step, order) in
        [("b", What::Skip), ("c", What::Cancel), ("d", What::Pause(None)), ("e", What::Fail)]
    {
        stage.stand_in_line(step, pool).await;
        assert_eq!(stage.usage("pool").await.in_line, 1);
        stage.order(step, order).await.unwrap();
        assert_eq!(stage.usage("pool").await.in_line, 0, "{order:?}");
    }
    // The permit of an attempt is its own until it ends, whatever is ordered.
    for order in [What::Reset, What::Cancel, What::Pause(None), What::Resume] {
        stage.order("first", order).await.unwrap();
        assert_eq!(stage.usage("pool").await.permits, Some((1, 1)), "{order:?}");
    }
    stage.failed("first", fence, as_of("")).await;
    assert_eq!(stage.usage("pool").await.permits, Some((0, 1)));
}

async fn a_promised_start_that_is_not_used_has_room_again<S: Store>(mut stage: Stage<S>) {
    // One start in ten seconds: each retry is promised one further on.
    stage.target("api", "rate: {limit: 1, period: 10s, burst: 1}").await;
    let api = &["api"];
    stage.begin("a", api).await.granted();
    let first = stage.ask(Asked { step: "b", targets: api, ..Asked::default() }).await;
    let first = waits(&first.refused(), Reason::Limited);
    stage.order("b", What::Cancel).await.unwrap();
    let second = stage.ask(Asked { step: "c", targets: api, ..Asked::default() }).await;
    assert!(waits(&second.refused(), Reason::Limited) < first.plus(secs(9)));
    // Who is to start now is held to the limit all the same.
    stage.order("c", What::Retry).await.unwrap();
    stage.begin("c", api).await.waits(Reason::Limited);
}

async fn an_order_reopens_what_was_given_up<S: Store>(mut stage: Stage<S>) {
    stage.enter("reopened", GUIDED).await;
    bring(&mut stage, "a", Standing::Over(Ending::Failed)).await;
    // Long after its hour: who orders it knows how long it took.
    stage.pass(59 * MINUTE).await;
    stage.order("a", What::Retry).await.unwrap();
    stage.pass(MINUTE + secs(1)).await;
    let grant = stage.begin("a", &[]).await.granted();
    assert_eq!((grant.attempt, grant.counters.retries), (2, 0));
    // By this one attempt.
    let decision = stage.failed("a", grant.fence, as_of("")).await;
    assert!(matches!(decision.settled.verdict, Verdict::Hold(_)), "{decision:?}");
}

async fn nothing_is_ordered_past_a_deadline_unless_it_is_put_off<S: Store>(mut stage: Stage<S>) {
    stage.enter("deadline", GUIDED).await;
    let deadline = stage.now().plus(MINUTE);
    let asked = Asked { step: "a", deadline: Some(deadline), ..Asked::default() };
    let fence = stage.ask(asked).await.granted().fence;
    stage.failed("a", fence, as_of("held")).await;
    stage.pass(MINUTE + secs(1)).await;
    for order in [What::Retry, What::Resolve(HoldAnswer::Retry)] {
        let refused = stage.order("a", order).await;
        let reason = Reason::Deadline;
        assert_eq!(refused, Err(Refusal::PastBound { at: deadline, reason }));
    }
    let extension = |deadline| What::Extend(Extension { retries: 0, deadline: Some(deadline) });
    let earlier = stage.order("a", extension(Deadline::At(deadline))).await;
    assert_eq!(earlier, Err(Refusal::DeadlineNotLater { deadline }));
    stage.order("a", extension(Deadline::After(MINUTE))).await.unwrap();
    stage.order("a", What::Retry).await.unwrap();
    stage.begin("a", &[]).await.granted();
    bring(&mut stage, "b", Standing::Waiting).await;
    let none = stage.order("b", extension(Deadline::After(MINUTE))).await;
    assert_eq!(none, Err(Refusal::NoDeadline));
}

async fn retries_are_extended_and_counters_start_again<S: Store>(mut stage: Stage<S>) {
    stage.enter("counters", "{max_retries: 1, backoff: {fixed: {delay: 1s}}}").await;
    let fails = async |stage: &mut Stage<S>| {
        let fence = stage.begin("a", &[]).await.granted().fence;
        let verdict = stage.failed("a", fence, as_of("")).await.settled.verdict;
        stage.pass(secs(1)).await;
        verdict
    };
    assert!(matches!(fails(&mut stage).await, Verdict::Retry(_)));
    stage.order("a", EXTENSION).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(fails(&mut stage).await, Verdict::Retry(_)));
    }
    stage.order("a", What::Reset).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(fails(&mut stage).await, Verdict::Retry(_)));
    }
    assert_eq!(fails(&mut stage).await, Verdict::Stop);
    let record = stage.record("a").await;
    assert_eq!((record.counters.attempts, record.counters.retries), (7, 3));
}

async fn work_that_did_not_start_is_retried_free_and_at_once<S: Store>(mut stage: Stage<S>) {
    stage.enter("unstarted", "{max_retries: 1, backoff: {fixed: {delay: 1m}}}").await;
    let unstarted = || Failure { executed: Executed::No, ..as_of("") };
    for counted in 0..=1 {
        for _ in 0..3 {
            let fence = stage.begin("a", &[]).await.granted().fence;
            let decision = stage.failed("a", fence, unstarted()).await;
            assert_eq!(retries(&decision), stage.now());
            assert_eq!(decision.settled.reason, Reason::Unstarted);
            assert_eq!(decision.settled.counters.retries, counted);
        }
        // The fourth in a row counts like any other.
        let fence = stage.begin("a", &[]).await.granted().fence;
        let decision = stage.failed("a", fence, unstarted()).await;
        if counted == 0 {
            assert_eq!(retries(&decision), stage.now().plus(MINUTE));
            stage.pass(MINUTE).await;
        } else {
            assert_eq!(decision.settled.reason, Reason::RetriesSpent);
        }
    }
    // A worker that wants no retry has none.
    let fence = stage.begin("b", &[]).await.granted().fence;
    let failure = Failure { retryable: false, ..unstarted() };
    assert_eq!(stage.failed("b", fence, failure).await.settled.verdict, Verdict::Stop);
}

async fn counters_start_again_when_the_work_gets_on<S: Store>(mut stage: Stage<S>) {
    let policy = "{max_retries: 1, reset_on_progress: true, backoff: {fixed: {delay: 1s}}}";
    stage.enter("progress", policy).await;
    // What each attempt tells, and the retries that are counted afterwards.
    for (told, counted) in [(&[5_u64, 9][..], 1), (&[10], 1), (&[10, 10, 3], 0)] {
        let fence = stage.begin("a", &[]).await.granted().fence;
        for progress in told {
            stage.get_on("a", fence, *progress).await;
        }
        let decision = stage.failed("a", fence, as_of("")).await;
        if counted == 0 {
            assert_eq!(decision.settled.reason, Reason::RetriesSpent);
        } else {
            assert_eq!(decision.settled.counters.retries, counted);
            stage.pass(secs(1)).await;
        }
    }
    assert_eq!(stage.record("a").await.progress, 10);
}

async fn soft_anti_affinity_prefers_others_and_starves_nobody<S: Store>(mut stage: Stage<S>) {
    let policy = "{host_anti_affinity: {mode: soft}, backoff: {fixed: {delay: 1s}}}";
    stage.enter("affinity", policy).await;
    for _ in 0..20 {
        let fence = stage.begin_on("only", "a", &[]).await.granted().fence;
        let decision = stage.failed("a", fence, as_of("")).await;
        assert_eq!(decision.excluded_hosts.len(), 1);
        assert!(!decision.excluded_hosts[0].hard);
        stage.until_due("a").await;
    }
}

/// Whether the step waits, and is due by now.
fn is_due<S: Store>(stage: &Stage<S>, record: &Record) -> bool {
    matches!(record.state, State::Waiting { due } if due <= stage.now())
}

async fn a_retry_that_is_ordered_is_due_at_once<S: Store>(mut stage: Stage<S>) {
    stage.enter("now", GUIDED).await;
    for from in [Standing::Waiting, Standing::Stopping, Standing::Held] {
        let step = from.name();
        bring(&mut stage, step, from).await;
        stage.order(step, What::Retry).await.unwrap();
        let record = stage.record(step).await;
        assert!(is_due(&stage, &record), "{record:?}");
        stage.begin_on("i", step, &[]).await.granted();
    }
}

async fn steps_are_listed_by_what_they_are<S: Store>(mut stage: Stage<S>) {
    stage.enter("lists", GUIDED).await;
    stage.target("db", "breaker: {}").await;
    for (at, to) in Standing::ALL.into_iter().enumerate() {
        for step in 0..40 {
            bring(&mut stage, &format!("run-{at}/{step}"), to).await;
        }
    }
    let outage = Failure { retryable: false, ..of(FailureClass::Transient) };
    let fence = stage.begin("run-x/outage", &["db"]).await.granted().fence;
    stage.failed("run-x/outage", fence, outage).await;
    stage.order("run-0/7", What::Pause(None)).await.unwrap();
    let listed = async |filter: StepFilter, size: usize| {
        let (mut names, mut from) = (BTreeSet::new(), Some(0));
        while let Some(start) = from {
            let page = stage.service.list_steps("lists", &filter, start, size).await.unwrap();
            names.extend(page.steps.into_iter().map(|step| (step.name.run, step.name.step)));
            from = page.next;
        }
        names
    };
    for size in [1, 100, 1000] {
        assert_eq!(listed(StepFilter::default(), size).await.len(), 8 * 40 + 1);
        let held = StepFilter { stages: vec![Standing::Held], ..StepFilter::default() };
        let held = listed(held, size).await;
        assert!(held.len() == 40 && held.iter().all(|(run, _)| run == "run-3"), "{held:?}");
    }
    let name = |run: &str, step: &str| BTreeSet::from([(run.to_owned(), step.to_owned())]);
    let of_run = StepFilter { run: Some("run-1".to_owned()), ..StepFilter::default() };
    assert_eq!(listed(of_run, 10).await.len(), 40);
    let ended = StepFilter { ended_in_outage: true, ..StepFilter::default() };
    assert_eq!(listed(ended, 10).await, name("run-x", "outage"));
    let paused = StepFilter { is_paused: true, ..StepFilter::default() };
    assert_eq!(listed(paused, 10).await, name("run-0", "7"));
    let queue = Some(crate::store_contract::subject::id("etl"));
    assert!(listed(StepFilter { queue, ..StepFilter::default() }, 10).await.is_empty());
}

/// A real server, and commands of people and workers against it.
struct Site {
    _folder: TempDir,
    server: Server,
}

impl Site {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("data"), "127.0.0.1:0").await;
        Self { _folder: folder, server }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
        command
            .args(["--addr", &self.server.address])
            .args(arguments)
            .env_remove("REPRISE_NAMESPACE")
            .env("USER", "ann")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// What a command tells, as JSON.
    async fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let (code, stdout, stderr) = self.run(&[arguments, &["--output", "json"]].concat()).await;
        assert_eq!(code, 0, "{arguments:?}: {stderr}");
        serde_json::from_str(&stdout).unwrap()
    }
}

#[tokio::test]
async fn a_command_that_is_held_goes_on_when_a_person_answers() {
    let site = Site::open().await;
    let policy = site._folder.path().join("policies.yaml");
    let guided = "policies:\n  guided:\n    max_retries: 0\n    on_exhaustion: {hold: {allowed: [RETRY, FAIL]}}\n";
    std::fs::write(&policy, guided).unwrap();
    let (code, _, stderr) = site.run(&["policy", "apply", policy.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{stderr}");

    // Fails at first, and succeeds when it is tried again.
    let flag = site._folder.path().join("mended");
    let script = format!("test -e {0} || {{ touch {0}; exit 1; }}", flag.display());
    let exec =
        ["exec", "--run", "r", "--step", "load", "--policy", "guided", "--", "sh", "-c", &script];
    let mut worker = site.command(&exec).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(worker.stderr.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().expect("it is held").contains("held for a person") {}

    let holds = site.json(&["hold", "list"]).await;
    assert_eq!((&holds[0]["run"], &holds[0]["step"]), (&"r".into(), &"load".into()));
    assert_eq!(holds[0]["hold_answers"], serde_json::json!(["RETRY", "FAIL"]));
    let (_, table, _) = site.run(&["hold", "list"]).await;
    assert!(table.contains("RETRY, FAIL"), "{table}");

    let skip = ["hold", "resolve", "r", "load", "--answer", "skip", "--reason", "no need"];
    let (code, _, stderr) = site.run(&skip).await;
    assert!(code != 0 && stderr.contains("does not allow SKIP but RETRY, FAIL"), "{stderr}");
    let retry = ["hold", "resolve", "r", "load", "--answer", "retry", "--reason", "it is mended"];
    let answered = site.json(&retry).await;
    assert_eq!(answered["order"]["kind"], "RESOLVE");
    assert_eq!(
        (&answered["order"]["by"], &answered["order"]["before"]["state"]),
        (&"ann".into(), &"HELD".into())
    );

    let ended = worker.wait().await.unwrap();
    assert_eq!(ended.code(), Some(0));
    let (_, told, _) = site.run(&["step", "explain", "r", "load"]).await;
    assert!(told.contains("by ann: resolve retry (held → waiting): it is mended"), "{told}");
    assert_eq!(site.json(&["hold", "list"]).await, serde_json::json!([]));
}

#[tokio::test]
async fn every_order_has_a_command() {
    let site = Site::open().await;
    let report = |step: String| {
        let failure = reprise::proto::Failure {
            class: reprise::proto::FailureClass::Transient as i32,
            ..Default::default()
        };
        let request = reprise::proto::ReportAttemptRequest {
            run: "r".into(),
            step,
            attempt: 1,
            outcome: Some(reprise::proto::report_attempt_request::Outcome::Failure(failure)),
            ..Default::default()
        };
        let mut client = site.server.client();
        async move { client.report_attempt(request).await.unwrap() }
    };
    for (verb, flags, state) in [
        ("retry", &[][..], "WAITING"),
        ("skip", &[], "SKIPPED"),
        ("succeed", &[], "SUCCEEDED"),
        ("fail", &[], "FAILED"),
        ("cancel", &[], "CANCELED"),
        ("reset", &[], "WAITING"),
        ("extend", &["--retries", "2"], "WAITING"),
        ("pause", &["--for", "1h"], "WAITING"),
    ] {
        report(verb.to_owned()).await;
        let arguments = [&["step", verb, "r", verb, "--reason", "so"], flags].concat();
        assert_eq!(site.json(&arguments).await["step"]["state"], state, "{verb}");
    }
    let (_, told, _) = site.run(&["step", "get", "r", "pause"]).await;
    assert!(told.contains("paused") && told.contains("by ann: so until"), "{told}");
    assert_eq!(site.json(&["step", "list", "--paused"]).await.as_array().unwrap().len(), 1);
    site.json(&["step", "resume", "r", "pause", "--reason", "so"]).await;
    let again = ["step", "resume", "r", "pause", "--reason", "so"];
    let (code, _, stderr) = site.run(&again).await;
    assert!(code != 0 && stderr.contains("it is not paused"), "{stderr}");
    let nobody = ["step", "retry", "r", "fail", "--reason", "so", "--by", ""];
    let by = site.json(&nobody).await["order"]["by"].to_string();
    assert!(by.contains("uid "), "an account without a name has a number: {by}");
    let nobody = ["step", "fail", "r", "fail", "--reason", "so"];
    assert_eq!(site.json(&nobody).await["step"]["state"], "FAILED");

    // All that have failed, looked at first.
    let all = ["step", "retry", "--all", "--state", "failed", "--reason", "so"];
    let (_, told, _) = site.run(&[&all[..], &["--dry-run"]].concat()).await;
    assert!(told.contains("fail") && !told.contains("skip"), "{told}");
    let (code, _, stderr) = site.run(&all).await;
    assert!(code == 0 && stderr.contains("1 steps are tried again"), "{stderr}");
    assert_eq!(site.json(&["step", "list", "--state", "failed"]).await, serde_json::json!([]));
}

stories_on_every_store!(
    steps_are_listed_by_what_they_are,
    every_order_is_carried_out_in_every_state_or_refused,
    an_order_that_is_repeated_is_carried_out_once,
    a_hold_is_answered_as_it_allows,
    who_waits_for_a_step_hears_of_its_answer_at_once,
    an_attempt_that_is_cancelled_is_told_and_ends_its_step,
    nothing_starts_while_a_step_is_paused,
    who_waits_for_a_paused_step_hears_when_it_is_resumed,
    a_paused_step_is_not_abandoned,
    what_a_step_has_of_limits_is_given_back,
    a_promised_start_that_is_not_used_has_room_again,
    an_order_reopens_what_was_given_up,
    nothing_is_ordered_past_a_deadline_unless_it_is_put_off,
    retries_are_extended_and_counters_start_again,
    work_that_did_not_start_is_retried_free_and_at_once,
    counters_start_again_when_the_work_gets_on,
    soft_anti_affinity_prefers_others_and_starves_nobody,
    a_retry_that_is_ordered_is_due_at_once,
);

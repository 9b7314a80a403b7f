//! What a change was planned on is compared when it is committed: the age of
//! the plan, what governs, and by which instant leases were judged.

use std::time::Duration;

use redis::cmd;
use reprise::{
    domain::{
        event::Event,
        limit::{Forced, ForcedState, spec::TargetSpec},
        record::{PolicyChoice, State},
    },
    store::{Committed, ConfigurationChange, Store as _, configuration::TargetEntry, redis::Redis},
};

use crate::store_contract::subject::{
    SECOND, START, Subject, begin, clock, heartbeat, id, key, policy, redis, redis_options,
};

async fn subject() -> Subject<Redis> {
    let subject = redis(clock()).await;
    subject.create("n").await;
    subject
}

#[tokio::test]
async fn an_old_plan_is_made_again() {
    let subject = subject().await;
    let key = key("n", "r", "s");
    let (choice, event) = (PolicyChoice::Default, begin(1));

    let old = subject.planned(key, &choice, &event).await.unwrap();
    subject.clock.advance(Duration::from_millis(251));
    assert!(matches!(subject.store.commit(&key, old).await, Ok(Committed::Conflict)));
    assert_eq!(subject.record(key).await, None);

    let young = subject.planned(key, &choice, &event).await.unwrap();
    subject.clock.advance(Duration::from_millis(250));
    assert!(matches!(subject.store.commit(&key, young).await, Ok(Committed::Written(_))));
}

#[tokio::test]
async fn a_plan_under_what_another_instance_has_changed_is_made_again() {
    let subject = subject().await;
    let url = subject.server.as_ref().unwrap().url();
    let other = Redis::open(redis_options(&url, &subject.clock)).await.unwrap();
    let key = key("n", "r", "s");
    let plan = subject.planned(key, &PolicyChoice::Default, &begin(1)).await.unwrap();

    let revision = other.configuration("n").await.unwrap().revision;
    let change = ConfigurationChange::Policy(id("p"), policy("max_retries: 1"));
    other.configure(&id("n"), revision, change).await.unwrap();

    assert!(matches!(subject.store.commit(&key, plan).await, Ok(Committed::Conflict)));
    assert_eq!(subject.record(key).await, None);
}

#[tokio::test]
async fn what_another_instance_says_of_a_target_holds_at_the_next_decision() {
    let subject = subject().await;
    let url = subject.server.as_ref().unwrap().url();
    let other = Redis::open(redis_options(&url, &subject.clock)).await.unwrap();
    let key = key("n", "r", "s");
    for entry in [Some(TargetEntry::parse(TargetSpec::default(), 2, START).unwrap()), None] {
        let plan = subject.planned(key, &PolicyChoice::Default, &begin(1)).await.unwrap();
        let revision = other.configuration("n").await.unwrap().revision;
        let change = ConfigurationChange::Target(id("t"), entry.clone());
        other.configure(&id("n"), revision, change).await.unwrap();

        assert!(matches!(subject.store.commit(&key, plan).await, Ok(Committed::Conflict)));
        let configuration = subject.load(key).await.configuration;
        assert_eq!(configuration.targets.get("t"), entry.as_ref());
    }
}

#[tokio::test]
async fn a_crash_planned_before_an_outage_was_noted_is_not_recorded() {
    let subject = subject().await;
    let key_of = |step| key("n", "r", step);
    subject.apply(key_of("s"), &begin(1)).await;
    subject.pass(9 * SECOND).await;

    // Nobody sweeps any more, and the lease of ten seconds ends.
    subject.clock.advance(Duration::from_millis(2900));
    let crash = subject.planned(key_of("s"), &PolicyChoice::Default, &Event::Tick).await.unwrap();
    // The plan is young when it is noted that nobody could be heard.
    subject.clock.advance(Duration::from_millis(200));
    let now = subject.load(key_of("other")).await.now;
    assert!(now.leases < now.at, "an outage was noted: {now:?}");

    assert!(matches!(subject.store.commit(&key_of("s"), crash).await, Ok(Committed::Conflict)));
    let record = subject.record(key_of("s")).await.unwrap();
    assert!(matches!(record.state, State::Running { .. }), "{:?}", record.state);
}

#[tokio::test]
async fn an_answer_from_what_another_instance_has_changed_is_not_confirmed() {
    let subject = subject().await;
    let url = subject.server.as_ref().unwrap().url();
    let other = Redis::open(redis_options(&url, &subject.clock)).await.unwrap();
    let other = Subject { store: other, clock: subject.clock.clone(), dir: None, server: None };
    let key = key("n", "r", "s");
    let fence = subject.apply(key, &begin(1)).await.record().fence;
    let basis = subject.load(key).await.basis;
    assert!(basis.remembered && subject.store.confirm(&key, &basis).await.unwrap());

    other.apply(key, &heartbeat(fence)).await;
    let basis = subject.load(key).await.basis;
    assert!(basis.remembered && !subject.store.confirm(&key, &basis).await.unwrap());
    let basis = subject.load(key).await.basis;
    assert!(subject.store.confirm(&key, &basis).await.unwrap(), "it was told what is there");
}

/// What is kept of a target's breaker.
async fn breaker_of(subject: &Subject<Redis>, target: &str) -> Vec<u8> {
    let mut connection = subject.server.as_ref().unwrap().endpoint().connect().await.unwrap();
    let key = format!("reprise:{{n}}:limit:{target}");
    cmd("HGET").arg(key).arg("b").query_async(&mut connection).await.unwrap()
}

#[tokio::test]
async fn what_is_told_of_a_breaker_is_written() {
    let subject = subject().await;
    let spec = serde_saphyr::from_str("breaker: {}").unwrap();
    let forced = Forced {
        state: ForcedState::Open,
        reason: String::new(),
        by: String::new(),
        since: START,
        until: START.plus(SECOND),
    };
    let entry = TargetEntry::parse(spec, 2, START).unwrap();
    let change =
        ConfigurationChange::Target(id("db"), Some(TargetEntry { forced: Some(forced), ..entry }));
    subject.reconfigure("n", change).await.unwrap();
    subject.clock.advance(SECOND);

    let key = key("n", "r", "s");
    let targets = [id("db")];
    let plan = subject.planned_at(key, &PolicyChoice::Default, &begin(1), &targets).await.unwrap();
    assert_eq!(breaker_of(&subject, "db").await, b"");
    assert!(matches!(subject.store.commit(&key, plan).await, Ok(Committed::Conflict)), "told");
    assert_eq!(subject.record(key).await, None);
    assert_ne!(breaker_of(&subject, "db").await, b"");
}

//! Steps: loading, committing, evidence, quota, events and changes.

use std::{sync::Arc, time::Duration};

use reprise::{
    domain::{
        event::{AttemptName, Event},
        failure::FailureClass,
        namespace::Settings,
        plan::{Answer, Now},
        record::{Ending, Outcome, PolicyChoice, State},
    },
    store::{
        Basis, Change, ChangeEntry, Changes, Commit, Committed, ConfigurationChange, Expect, Store,
        StoreError,
    },
};

use super::subject::*;

pub async fn an_unknown_step_has_no_record<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let loaded = subject.load(key("n", "r", "s")).await;
    assert_eq!(loaded.record, None);
    assert_eq!(loaded.now.at, START);
    assert_eq!(loaded.now.leases, START);
    assert!(subject.store.evidence(&key("n", "r", "s")).await.unwrap().failures.is_empty());

    let unknown = subject.store.load(&key("none", "r", "s"), Expect::Anything).await;
    assert!(matches!(unknown, Err(StoreError::NamespaceUnknown(name)) if name == "none"));
    subject.load(key("default", "r", "s")).await;
}

pub async fn a_new_step_is_found_again<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let key = key("n", "r", "s");
    let applied = subject.apply(key, &begin(1)).await;
    assert_eq!(subject.record(key).await.as_ref(), Some(applied.record()));
    assert_eq!(subject.live_steps("n").await, 1);
}

pub async fn the_second_of_two_commits_is_told_to_plan_again<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let key = key("n", "r", "s");
    let first = subject.planned(key, &PolicyChoice::Default, &begin(1)).await.unwrap();
    let second = subject.planned(key, &PolicyChoice::Default, &begin(2)).await.unwrap();
    assert!(matches!(subject.store.commit(&key, first).await, Ok(Committed::Written(_))));
    let written = subject.record(key).await;
    assert!(matches!(subject.store.commit(&key, second).await, Ok(Committed::Conflict)));
    assert_eq!(subject.record(key).await, written);
    assert_eq!(subject.changes("n").await.len(), 1);
}

pub async fn a_newer_configuration_is_told_to_plan_again<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let key = key("n", "r", "s");
    let commit = subject.planned(key, &PolicyChoice::Default, &begin(1)).await.unwrap();
    let change = ConfigurationChange::Policy(id("p"), policy("max_retries: 1"));
    subject.reconfigure("n", change).await.unwrap();
    assert!(matches!(subject.store.commit(&key, commit).await, Ok(Committed::Conflict)));
    assert_eq!(subject.record(key).await, None);
}

pub async fn a_purged_step_is_gone_with_its_evidence<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let key = key("n", "r", "s");
    subject.apply(key, &failed(1, "first life")).await;
    assert_eq!(subject.store.evidence(&key).await.unwrap().failures.len(), 1);
    subject.apply(key, &report(AttemptName::Number(2), 0, None)).await;
    subject.pass(Duration::from_secs(60)).await;
    assert!(matches!(subject.apply(key, &Event::Tick).await, Applied::Purged));

    assert_eq!(subject.record(key).await, None);
    assert!(subject.store.evidence(&key).await.unwrap().failures.is_empty());
    assert!(subject.due(10).await.is_empty());
    assert_eq!(subject.live_steps("n").await, 0);
    assert_eq!(subject.changes("n").await.last().unwrap().version, 0);

    // What takes its place begins anew.
    subject.apply(key, &begin(9)).await;
    assert_eq!(subject.record(key).await.unwrap().counters.attempts, 1);
    assert!(subject.store.evidence(&key).await.unwrap().failures.is_empty());
}

pub async fn purging_what_is_unknown_changes_nothing<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let configuration = subject.revision("n").await;
    let commit = Commit { configuration, version: 0, now: Now::at(START), change: Change::Purge };
    let committed = subject.store.commit(&key("n", "r", "s"), commit).await;
    assert!(matches!(committed, Ok(Committed::Written(Answer::Ticked))));
    assert!(subject.changes("n").await.is_empty());
}

pub async fn evidence_is_bounded_and_replaced_by_attempt<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let change = ConfigurationChange::Policy(id("p"), policy("max_retries: 100"));
    subject.reconfigure("n", change).await.unwrap();
    let (key, choice) = (key("n", "r", "s"), PolicyChoice::Named(id("p")));
    for number in 1..=6 {
        let message = format!("{number}\n{}", "x".repeat(1000));
        subject.try_apply(key, &choice, &failed(number, &message)).await.unwrap();
    }
    let evidence = subject.store.evidence(&key).await.unwrap();
    let numbers: Vec<u32> = evidence.failures.iter().map(|text| text.attempt).collect();
    assert_eq!(numbers, [3, 4, 5, 6]);
    for text in &evidence.failures {
        assert!(text.message.starts_with(&format!("{}\\n", text.attempt)));
        assert_eq!(text.message.len(), 512);
    }
}

pub async fn live_steps_never_pass_their_quota<S: Store>(subject: Subject<S>) {
    subject.create_with("n", Settings { max_live_steps: 10, ..settings() }).await;
    subject.create("other").await;
    let subject = Arc::new(subject);
    let mut tasks = Vec::new();
    for number in 0..40u64 {
        let subject = Arc::clone(&subject);
        tasks.push(tokio::spawn(async move {
            let step = format!("s{number}");
            subject
                .try_apply(key("n", "r", &step), &PolicyChoice::Default, &begin(number))
                .await
                .map(|_| step)
        }));
    }
    let mut begun = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(step) => begun.push(step),
            Err(StoreError::QuotaReached { max: 10, .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(begun.len(), 10);
    assert_eq!(subject.live_steps("n").await, 10);

    // Those that are begun go on, and nobody else's quota is touched.
    let fence = subject.record(key("n", "r", &begun[0])).await.unwrap().fence;
    subject.apply(key("n", "r", &begun[0]), &heartbeat(fence)).await;
    subject.apply(key("other", "r", "s"), &begin(1)).await;

    // One that ends makes room for one, although it is still remembered.
    subject.apply(key("n", "r", &begun[0]), &report(AttemptName::Fence(fence), 0, None)).await;
    subject.apply(key("n", "r", "new"), &begin(1)).await;
    let refused =
        subject.try_apply(key("n", "r", "newer"), &PolicyChoice::Default, &begin(2)).await;
    assert!(matches!(refused, Err(StoreError::QuotaReached { .. })));
}

pub async fn one_of_many_that_commit_at_once_wins<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let subject = Arc::new(subject);
    let mut tasks = Vec::new();
    for number in 0..16u64 {
        let subject = Arc::clone(&subject);
        tasks.push(tokio::spawn(
            async move { subject.apply(key("n", "r", "s"), &begin(number)).await },
        ));
    }
    let mut granted = 0;
    for task in tasks {
        match task.await.unwrap() {
            Applied::Wrote(_) => granted += 1,
            Applied::Stood(Answer::Refused(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(granted, 1);
    assert_eq!(subject.record(key("n", "r", "s")).await.unwrap().counters.attempts, 1);
}

pub async fn due_steps_come_in_order_however_often_they_moved<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    for step in ["a", "b", "c"] {
        subject.apply(key("n", "r", step), &begin(1)).await;
        subject.pass(SECOND).await;
    }
    // The first one moves behind the others.
    let fence = subject.record(key("n", "r", "a")).await.unwrap().fence;
    subject.pass(Duration::from_secs(5)).await;
    subject.apply(key("n", "r", "a"), &heartbeat(fence)).await;
    assert!(subject.due(10).await.is_empty());

    subject.pass(Duration::from_secs(20)).await;
    let due = subject.due(10).await;
    let steps: Vec<&str> = due.iter().map(|due| &*due.joined).collect();
    assert_eq!(steps, ["r b", "r c", "r a"]);
    assert!(due.is_sorted_by_key(|due| due.event_at));
    assert_eq!(subject.due(1).await, due[..1]);
    assert_eq!(subject.due(0).await, []);

    // Looking takes nothing away; handling does.
    assert_eq!(subject.due(10).await, due);
    for step in ["b", "c", "a"] {
        let crashed = subject.apply(key("n", "r", step), &Event::Tick).await;
        let end = crashed.record().latest().unwrap().end.as_ref().unwrap();
        assert_eq!(end.outcome, Outcome::Crash);
    }
    assert_eq!(subject.due(10).await, []);
}

pub async fn due_steps_of_all_namespaces_come_in_one_order<S: Store>(subject: Subject<S>) {
    for namespace in ["a", "b", "c"] {
        subject.create(namespace).await;
    }
    for (namespace, step) in
        [("b", "1"), ("c", "2"), ("a", "3"), ("b", "4"), ("a", "5"), ("c", "6")]
    {
        subject.apply(key(namespace, "r", step), &begin(1)).await;
        subject.pass(SECOND).await;
    }
    subject.pass(Duration::from_secs(30)).await;
    for limit in 1..=6 {
        let due = subject.due(limit).await;
        let steps: Vec<&str> = due.iter().map(|due| &due.joined[2..]).collect();
        assert_eq!(steps, ["1", "2", "3", "4", "5", "6"][..limit]);
    }
}

pub async fn thousands_of_moved_events_hide_nothing<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let mut fences = Vec::new();
    for number in 0..3000 {
        let step = format!("s{number}");
        let grant = subject.apply(key("n", "r", &step), &begin(1)).await;
        fences.push((step, grant.record().fence));
    }
    subject.clock.advance(SECOND);
    subject.apply(key("n", "r", "silent"), &begin(1)).await;
    subject.pass(Duration::from_secs(8)).await;
    for (step, fence) in &fences {
        subject.apply(key("n", "r", step), &heartbeat(*fence)).await;
    }
    subject.pass(Duration::from_secs(2)).await;
    let due = subject.due(64).await;
    assert_eq!(due.len(), 1);
    assert_eq!(&*due[0].joined, "r silent");
}

pub async fn a_waiting_step_moves_with_a_longer_patience<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let key = key("n", "r", "s");
    subject.apply(key, &failed(1, "")).await;
    let mut entry = subject.store.configuration("n").await.unwrap().namespace.clone();
    entry.settings.abandon_after = Duration::from_secs(3600);
    subject.reconfigure("n", ConfigurationChange::Namespace(entry)).await.unwrap();

    // Due as it was filed; not abandoned, since patience is longer by now; and
    // not due again at once.
    subject.pass(Duration::from_secs(300)).await;
    assert_eq!(subject.due(10).await.len(), 1);
    let ticked = subject.apply(key, &Event::Tick).await;
    assert!(matches!(ticked.record().state, State::Waiting { .. }));
    assert_eq!(subject.due(10).await, []);
    subject.pass(Duration::from_secs(3600)).await;
    assert_eq!(subject.due(10).await.len(), 1);
    let ticked = subject.apply(key, &Event::Tick).await;
    assert!(matches!(ticked.record().state, State::Over { ending: Ending::Failed, .. }));
}

pub async fn changes_are_dense_and_older_ones_are_a_gap<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let key = key("n", "r", "s");
    let fence = subject.apply(key, &begin(1)).await.record().fence;
    for _ in 0..5000 {
        subject.apply(key, &heartbeat(fence)).await;
    }
    let changes = subject.changes("n").await;
    assert!(changes.len() >= 4096, "the log keeps {}", changes.len());
    assert_eq!(changes.last().unwrap().number, 5001);
    for pair in changes.windows(2) {
        assert_eq!(pair[1].number, pair[0].number + 1);
        assert_eq!(pair[1].version, pair[0].version + 1);
    }
    let oldest = changes[0].number - 1;
    assert_eq!(subject.store.follow("n", oldest - 1, 10).await.unwrap(), Changes::Gap(oldest));
    assert_eq!(
        subject.store.follow("n", oldest, 10).await.unwrap(),
        Changes::Follow(changes[..10].to_vec())
    );
    assert_eq!(subject.store.follow("n", 5001, 10).await.unwrap(), Changes::Follow(Vec::new()));
    assert_eq!(subject.store.follow("n", 5002, 10).await.unwrap(), Changes::Gap(oldest));
    assert!(matches!(
        subject.store.follow("none", 0, 1).await,
        Err(StoreError::NamespaceUnknown(_))
    ));
}

pub async fn a_policy_given_inline_must_be_remembered<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let inline = Arc::new(revision("max_retries: 7", 0));
    let choice = PolicyChoice::Inline(inline.digest);
    subject.reconfigure("n", ConfigurationChange::Inline(Arc::clone(&inline))).await.unwrap();
    let known = key("n", "r", "s");
    subject.try_apply(known, &choice, &begin(1)).await.unwrap();
    assert_eq!(subject.record(known).await.unwrap().policy, choice);

    // A step whose policy nobody can find could never be decided about.
    subject.create("other").await;
    subject.reconfigure("other", ConfigurationChange::Inline(inline)).await.unwrap();
    let mut commit = subject.planned(key("other", "r", "s"), &choice, &begin(1)).await.unwrap();
    subject.create("third").await;
    commit.configuration = subject.revision("third").await;
    let committed = subject.store.commit(&key("third", "r", "s"), commit).await;
    assert!(matches!(committed, Ok(Committed::Conflict)));
}

pub async fn time_does_not_go_back_in_the_change_log<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let early =
        subject.planned(key("n", "r", "a"), &PolicyChoice::Default, &begin(1)).await.unwrap();
    subject.pass(SECOND).await;
    subject.apply(key("n", "r", "b"), &begin(2)).await;
    // A store may hand back a plan that is old; then the second one is written.
    let committed = subject.store.commit(&key("n", "r", "a"), early).await.unwrap();
    if matches!(committed, Committed::Conflict) {
        subject.apply(key("n", "r", "a"), &begin(1)).await;
    }
    let changes: Vec<ChangeEntry> = subject.changes("n").await;
    assert_eq!(changes.len(), 2);
    assert!(changes.is_sorted_by_key(|change| change.at));
}

pub async fn a_pause_expires_no_lease<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let silent = key("n", "r", "silent");
    subject.apply(silent, &begin(1)).await;
    let heard = key("n", "r", "heard");
    let fence = subject.apply(heard, &begin(1)).await.record().fence;

    // The process stood still. Whoever comes first, a caller or a sweep, finds
    // the leases as they were.
    subject.clock.advance(Duration::from_secs(60));
    let now = subject.load(silent).await.now;
    assert_eq!((now.at, now.leases), (START.plus(Duration::from_secs(60)), START));
    assert_eq!(subject.store.now(), now);
    assert_eq!(subject.due(10).await, []);
    assert!(matches!(subject.apply(silent, &Event::Tick).await, Applied::Stood(Answer::Ticked)));
    subject.apply(heard, &heartbeat(fence)).await;

    subject.pass(Duration::from_secs(9)).await;
    assert_eq!(subject.due(10).await, []);
    subject.pass(SECOND).await;
    let due = subject.due(10).await;
    assert_eq!(due.iter().map(|due| &*due.joined).collect::<Vec<_>>(), ["r silent", "r heard"]);
    let crashed = subject.apply(silent, &Event::Tick).await;
    assert_eq!(
        crashed.record().latest().unwrap().end.as_ref().unwrap().outcome.class(),
        Some(FailureClass::Crash)
    );
}

pub async fn a_second_pause_in_the_grace_expires_none_either<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let key = key("n", "r", "s");
    subject.apply(key, &begin(1)).await;
    for then in [5, 9] {
        subject.clock.advance(Duration::from_secs(60));
        assert_eq!(subject.due(10).await, []);
        subject.pass(Duration::from_secs(then)).await;
    }
    assert_eq!(subject.load(key).await.now.leases, START);
    assert_eq!(subject.due(10).await, []);
    subject.pass(SECOND).await;
    assert_eq!(subject.due(10).await.len(), 1);
}

pub async fn what_is_loaded_can_be_confirmed<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let key = key("n", "r", "s");
    let basis = subject.load(key).await.basis;
    assert!(subject.store.confirm(&key, &basis).await.unwrap());
    subject.apply(key, &begin(1)).await;
    let basis = subject.load(key).await.basis;
    assert!(subject.store.confirm(&key, &basis).await.unwrap());
    // What was assumed and is not so is not confirmed.
    let assumed = Basis { version: 0, remembered: true, ..basis };
    let confirmed = subject.store.confirm(&key, &assumed).await;
    assert!(matches!(confirmed, Ok(false)) || !basis.remembered);
}

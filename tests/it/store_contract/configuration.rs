//! Namespaces, policies and targets.

use std::sync::Arc;

use reprise::{
    domain::{
        event::AttemptName,
        id::Id,
        limit::{Pause, spec::TargetSpec},
        namespace::Settings,
        policy::spec::PolicySpec,
        record::PolicyChoice,
    },
    store::{
        Committed, ConfigurationChange, Store, StoreError,
        configuration::{
            INLINE_MAX, NamespaceEntry, POLICIES_MAX, PolicyHistory, PolicyRevision,
            REVISIONS_KEPT, TARGETS_MAX, TargetEntry,
        },
    },
};

use super::subject::*;

fn entry(max_live_steps: u64) -> NamespaceEntry {
    NamespaceEntry::new(Settings { max_live_steps, ..Settings::default() }, START)
}

fn named(name: &str, yaml: &str) -> ConfigurationChange {
    ConfigurationChange::Policy(id(name), policy(yaml))
}

fn target(yaml: &str, revision: u64) -> TargetEntry {
    let spec: TargetSpec = serde_saphyr::from_str(yaml).unwrap();
    TargetEntry::parse(spec, revision, START).unwrap()
}

fn targeted(name: &str, entry: &TargetEntry) -> ConfigurationChange {
    ConfigurationChange::Target(id(name), Some(entry.clone()))
}

pub async fn a_namespace_is_created_changed_and_deleted<S: Store>(subject: Subject<S>) {
    let unknown = subject.store.configuration("n").await;
    assert!(matches!(unknown, Err(StoreError::NamespaceUnknown(name)) if name == "n"));

    subject.configure("n", 0, ConfigurationChange::Namespace(entry(5))).await.unwrap();
    let created = subject.store.configuration("n").await.unwrap();
    assert_eq!((created.revision, &created.namespace), (1, &entry(5)));
    subject.configure("n", 1, named("p", "max_retries: 1")).await.unwrap();

    let newer = NamespaceEntry { revision: 2, ..entry(6) };
    subject.configure("n", 2, ConfigurationChange::Namespace(newer.clone())).await.unwrap();
    let changed = subject.store.configuration("n").await.unwrap();
    assert_eq!((changed.revision, &changed.namespace), (3, &newer));
    assert!(changed.policies.contains_key("p"), "settings leave the policies alone");

    subject.configure("n", 3, ConfigurationChange::DeleteNamespace).await.unwrap();
    assert!(matches!(subject.store.configuration("n").await, Err(StoreError::NamespaceUnknown(_))));
    let again = subject.configure("n", 0, ConfigurationChange::DeleteNamespace).await;
    assert!(matches!(again, Err(StoreError::NamespaceUnknown(_))));

    subject.configure("n", 0, ConfigurationChange::Namespace(entry(7))).await.unwrap();
    assert!(subject.store.configuration("n").await.unwrap().policies.is_empty());
}

pub async fn a_namespace_with_steps_is_not_deleted<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let step = key("n", "r", "s");
    subject.apply(step, &begin(1)).await;
    let refused = subject.reconfigure("n", ConfigurationChange::DeleteNamespace).await;
    assert!(matches!(refused, Err(StoreError::NamespaceNotEmpty { steps: 1 })));
    // One that is over is still remembered.
    let fence = subject.record(step).await.unwrap().fence;
    subject.apply(step, &report(AttemptName::Fence(fence), 0, None)).await;
    let refused = subject.reconfigure("n", ConfigurationChange::DeleteNamespace).await;
    assert!(matches!(refused, Err(StoreError::NamespaceNotEmpty { steps: 1 })));
    assert_eq!(subject.revision("n").await, 1);
}

pub async fn an_old_revision_is_refused<S: Store>(subject: Subject<S>) {
    subject.configure("n", 0, ConfigurationChange::Namespace(entry(5))).await.unwrap();
    let inline = Arc::new(revision("max_retries: 1", 0));
    let changes = || {
        [
            ConfigurationChange::Namespace(entry(9)),
            ConfigurationChange::DeleteNamespace,
            named("p", "max_retries: 1"),
            targeted("t", &target("{}", 1)),
            ConfigurationChange::Target(id("t"), None),
            ConfigurationChange::Inline(Arc::clone(&inline)),
        ]
    };
    for stale in [0, 2] {
        for change in changes() {
            let refused = subject.configure("n", stale, change).await;
            assert!(matches!(refused, Err(StoreError::ConfigurationChanged)));
        }
    }
    let configuration = subject.store.configuration("n").await.unwrap();
    assert_eq!((configuration.revision, &configuration.namespace), (1, &entry(5)));
    assert!(configuration.policies.is_empty());
    for change in changes() {
        assert!(matches!(
            subject.configure("none", 1, change).await,
            Err(StoreError::ConfigurationChanged)
        ));
    }
}

pub async fn a_policy_keeps_its_latest_revisions<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let mut history = PolicyHistory::default();
    for number in 1..=40 {
        history.add(revision(&format!("max_retries: {number}"), number));
        subject
            .reconfigure("n", ConfigurationChange::Policy(id("p"), history.clone()))
            .await
            .unwrap();
    }
    let configuration = subject.store.configuration("n").await.unwrap();
    assert_eq!(configuration.revision, 41);
    let stored = &configuration.policies["p"];
    assert_eq!(stored.revisions.len(), REVISIONS_KEPT);
    assert_eq!(stored.latest().unwrap().number, 40);
    assert_eq!(stored.revision(0).unwrap().policy.max_retries, Some(40));
    assert_eq!(stored.revision(9).unwrap().policy.max_retries, Some(9));
    assert!(stored.revision(8).is_none());
    for (stored, written) in stored.revisions.iter().zip(&history.revisions) {
        assert_eq!((stored.number, stored.digest), (written.number, written.digest));
        assert_eq!((&stored.spec, &stored.policy), (&written.spec, &written.policy));
        assert_eq!(stored.updated_at, written.updated_at);
    }
}

pub async fn a_deleted_policy_stays_readable<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    subject.reconfigure("n", named("p", "max_retries: 2")).await.unwrap();
    let deleted = PolicyHistory { deleted: true, ..policy("max_retries: 2") };
    subject.reconfigure("n", ConfigurationChange::Policy(id("p"), deleted)).await.unwrap();
    let configuration = subject.store.configuration("n").await.unwrap();
    assert!(configuration.policies["p"].deleted);
    let choice = PolicyChoice::Named(id("p"));
    let (name, revision) = configuration.policy(&choice).unwrap();
    assert_eq!(name, Some(&id("p")));
    assert_eq!(revision.policy.max_retries, Some(2));
}

pub async fn an_inline_policy_is_found_by_its_digest<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    subject.create("other").await;
    // Numbers that a careless reader of JSON would not give back as they were.
    for ratio in [
        "0.1",
        "0.30000000000000004",
        "0.9999999999999999",
        "0.123456789012345678",
        "0.7205759403792794",
    ] {
        let yaml = format!("backoff: {{fixed: {{delay: 90s}}, jitter: {{ratio: {ratio}}}}}");
        let inline = Arc::new(revision(&yaml, 0));
        let before = subject.revision("n").await;
        for _ in 0..2 {
            let change = ConfigurationChange::Inline(Arc::clone(&inline));
            subject.reconfigure("n", change).await.unwrap();
        }
        assert_eq!(subject.revision("n").await, before, "nobody plans anew for it");
        let found = subject.store.inline_policy("n", inline.digest).await.unwrap().unwrap();
        assert_eq!(found.digest, inline.digest, "{ratio}");
        assert_eq!(found.policy, inline.policy, "{ratio}");
        let elsewhere = subject.store.inline_policy("other", inline.digest).await.unwrap();
        assert!(elsewhere.is_none());
    }
}

/// A change of nothing but what is said, made quickly: these tests make many.
fn many(number: usize) -> PolicySpec {
    PolicySpec { max_retries: Some(u32::try_from(number).unwrap()), ..PolicySpec::default() }
}

pub async fn policies_have_a_quota_and_unused_ones_make_room<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let of = |number, deleted| {
        let mut history = PolicyHistory::default();
        history.add(PolicyRevision::parse(many(number), 1, START).unwrap());
        history.deleted = deleted;
        history
    };
    for number in 0..POLICIES_MAX {
        let change = ConfigurationChange::Policy(id(&format!("p{number}")), of(number, false));
        subject.reconfigure("n", change).await.unwrap();
    }
    let one_more = || ConfigurationChange::Policy(id("more"), of(1, false));
    let refused = subject.reconfigure("n", one_more()).await;
    assert!(matches!(refused, Err(StoreError::QuotaReached { max: 1000, .. })));
    // Those that are there can still be changed.
    subject.apply(key("n", "r", "s"), &begin(1)).await;
    let used = PolicyChoice::Named(id("p0"));
    subject.try_apply(key("n", "r", "t"), &used, &begin(1)).await.unwrap();
    for number in 0..3 {
        let change = ConfigurationChange::Policy(id(&format!("p{number}")), of(number, true));
        subject.reconfigure("n", change).await.unwrap();
    }
    let before = subject.revision("n").await;
    subject.reconfigure("n", one_more()).await.unwrap();
    let configuration = subject.store.configuration("n").await.unwrap();
    assert_eq!(configuration.revision, before + 1);
    assert!(configuration.policies.contains_key("p0"), "a step uses it");
    assert!(
        !configuration.policies.contains_key("p1") && !configuration.policies.contains_key("p2")
    );
    assert_eq!(configuration.policies.len(), POLICIES_MAX - 1);
}

pub async fn inline_policies_have_a_quota_and_unused_ones_make_room<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let mut digests = Vec::new();
    for number in 0..INLINE_MAX {
        let inline = Arc::new(PolicyRevision::parse(many(number), 0, START).unwrap());
        digests.push(inline.digest);
        subject.reconfigure("n", ConfigurationChange::Inline(inline)).await.unwrap();
    }
    for number in [0, 500] {
        let step = format!("s{number}");
        let choice = PolicyChoice::Inline(digests[number]);
        subject.try_apply(key("n", "r", &step), &choice, &begin(1)).await.unwrap();
    }
    let more = Arc::new(PolicyRevision::parse(many(INLINE_MAX), 0, START).unwrap());
    digests.push(more.digest);
    subject.reconfigure("n", ConfigurationChange::Inline(more)).await.unwrap();
    for (number, digest) in digests.iter().enumerate() {
        let kept = subject.store.inline_policy("n", *digest).await.unwrap().is_some();
        assert_eq!(kept, [0, 500, INLINE_MAX].contains(&number), "{number}");
    }
}

pub async fn a_target_is_created_replaced_paused_and_deleted<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let open = target("{}", 2);
    let all = target(
        "{rate: {limit: 100, period: 90s, burst: 7, on: retries}, concurrency: {max: 3}, \
         budget: {ratio: 0.3, floor: 1, window: 2m, when_spent: stop}, every_step: true, each_run: true}",
        3,
    );
    let pause = Pause {
        reason: "being moved\n".to_owned(),
        by: "ann".to_owned(),
        since: START,
        until: Some(START.plus(SECOND)),
    };
    let paused = TargetEntry { pause: Some(pause.clone()), ..all.clone() };
    let until_resumed =
        TargetEntry { pause: Some(Pause { until: None, ..pause.clone() }), ..all.clone() };
    for (revision, entry) in (2..).zip([&open, &all, &paused, &until_resumed, &all]) {
        subject.reconfigure("n", targeted("db", entry)).await.unwrap();
        let configuration = subject.store.configuration("n").await.unwrap();
        assert_eq!(configuration.revision, revision);
        assert_eq!(configuration.targets.get("db"), Some(entry));
    }
    subject.reconfigure("n", targeted("gpu", &open)).await.unwrap();
    subject.reconfigure("n", ConfigurationChange::Target(id("db"), None)).await.unwrap();
    let configuration = subject.store.configuration("n").await.unwrap();
    let names: Vec<&Id> = configuration.targets.keys().collect();
    assert_eq!((configuration.revision, names), (8, vec![&id("gpu")]));
    let settings =
        Settings { default_target: Some(id("gpu")), ..configuration.namespace.settings.clone() };
    let entry = NamespaceEntry { settings, ..configuration.namespace.clone() };
    subject.reconfigure("n", ConfigurationChange::Namespace(entry.clone())).await.unwrap();
    let configuration = subject.store.configuration("n").await.unwrap();
    assert_eq!(configuration.namespace, entry);
    assert!(configuration.targets.contains_key("gpu"), "settings leave the targets alone");
}

pub async fn a_change_of_a_target_is_told_to_plan_again<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let step = key("n", "r", "s");
    let change = || [targeted("t", &target("{}", 2)), ConfigurationChange::Target(id("t"), None)];
    for change in change() {
        let choice = PolicyChoice::Default;
        let planned = subject.planned(step, &choice, &begin(1)).await.unwrap();
        subject.reconfigure("n", change).await.unwrap();
        let committed = subject.store.commit(&step, planned).await.unwrap();
        assert!(matches!(committed, Committed::Conflict), "{committed:?}");
    }
    subject.apply(step, &begin(1)).await.record();
}

pub async fn targets_have_a_quota<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    for number in 0..TARGETS_MAX {
        let change = targeted(&format!("t{number}"), &target("{}", 1));
        subject.reconfigure("n", change).await.unwrap();
    }
    let before = subject.revision("n").await;
    let refused = subject.reconfigure("n", targeted("more", &target("{}", 1))).await;
    assert!(
        matches!(refused, Err(StoreError::QuotaReached { what: "targets", max: 1000 })),
        "{refused:?}"
    );
    assert_eq!(subject.revision("n").await, before);
    // Those that are there can still be changed, and make room when they go.
    let changed = target("concurrency: {max: 1}", 2);
    subject.reconfigure("n", targeted("t0", &changed)).await.unwrap();
    subject.reconfigure("n", ConfigurationChange::Target(id("t1"), None)).await.unwrap();
    subject.reconfigure("n", targeted("more", &changed)).await.unwrap();
    let configuration = subject.store.configuration("n").await.unwrap();
    assert_eq!(configuration.targets.len(), TARGETS_MAX);
    assert_eq!(configuration.targets.get("t0"), Some(&changed));
}

pub async fn namespaces_are_listed_in_pages<S: Store>(subject: Subject<S>) {
    let mut names: Vec<String> = (0..25).map(|number| format!("n{number:02}")).collect();
    for name in &names {
        subject.create(name).await;
    }
    names.push("default".to_owned());
    names.sort();
    subject.apply(key("n03", "r", "s"), &begin(1)).await;

    for limit in [1, 7, 100] {
        let mut listed: Vec<String> = Vec::new();
        loop {
            let after = listed.last().cloned().unwrap_or_default();
            let page = subject.store.namespaces(&after, limit).await.unwrap();
            assert!(page.len() <= limit);
            for view in &page {
                assert_eq!(view.live_steps, u64::from(&*view.name == "n03"));
            }
            listed.extend(page.iter().map(|view| view.name.to_string()));
            if page.len() < limit {
                break;
            }
        }
        assert_eq!(listed, names);
    }
    assert!(subject.store.namespaces("zzz", 10).await.unwrap().is_empty());
}

pub async fn what_happens_in_one_namespace_does_not_show_in_another<S: Store>(subject: Subject<S>) {
    for namespace in ["a", "b"] {
        subject.create(namespace).await;
        subject.apply(key(namespace, "r", "s"), &begin(1)).await;
    }
    let before = subject.record(key("b", "r", "s")).await;
    subject.apply(key("a", "r", "t"), &failed(1, "text")).await;
    let fence = subject.record(key("a", "r", "s")).await.unwrap().fence;
    subject.apply(key("a", "r", "s"), &report(AttemptName::Fence(fence), 0, None)).await;
    subject.reconfigure("a", named("p", "max_retries: 0")).await.unwrap();

    assert_eq!(subject.record(key("b", "r", "s")).await, before);
    assert_eq!(subject.record(key("b", "r", "t")).await, None);
    assert_eq!(subject.revision("b").await, 1);
    assert_eq!(subject.changes("b").await.len(), 1);
    assert_eq!(subject.live_steps("b").await, 1);
    let policies: Vec<Id> =
        subject.store.configuration("b").await.unwrap().policies.keys().cloned().collect();
    assert!(policies.is_empty());
}

//! Random histories beside a model that is a map of records.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use reprise::{
    domain::{
        event::{AttemptName, Event},
        failure::{Failure, FailureClass},
        id::StepKey,
        plan::{Now, Settlement},
        record::{Evidence, PolicyChoice, Record, State},
        time::Timestamp,
    },
    store::{ChangeEntry, Changes, ConfigurationChange, Store},
};

use super::subject::*;

/// Numbers that repeat: SplitMix64.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[usize::try_from(self.below(values.len() as u64)).unwrap()]
    }
}

/// What a store has to know.
#[derive(Default)]
pub struct Model {
    pub steps: BTreeMap<(String, String), Known>,
    pub changes: BTreeMap<String, Vec<ChangeEntry>>,
    /// The latest instant that was committed.
    pub last: Timestamp,
    /// What was seen on the way, so that a history that misses the point fails.
    pub seen: BTreeSet<&'static str>,
}

pub struct Known {
    pub record: Record,
    pub event_at: Timestamp,
    pub evidence: Evidence,
}

/// A store, the model beside it, and chance.
pub struct World<S> {
    pub subject: Subject<S>,
    pub model: Model,
    pub chance: Chance,
    requests: u64,
}

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const POLICY: &str = "
max_retries: 6
max_crash_retries: 2
backoff: {exponential: {delay: 1s}, max_delay: 8s, jitter: full}
rules:
  - {name: own, match: {error_types: [own]}, retry: {max_retries: 2}}
  - {name: free, match: {error_types: [free]}, retry_uncounted: {max_retries: 3}}
  - {name: later, match: {error_types: [later]}, stop: after_backoff}
  - {name: skip, match: {error_types: [skip]}, skip: {}}
  - name: ask
    match: {error_types: [ask]}
    hold: {allowed: [RETRY, SKIP], default_answer: RETRY, timeout: 5s, max_manual_retries: 1}
";

impl<S: Store> World<S> {
    pub async fn new(subject: Subject<S>, seed: u64) -> Self {
        for namespace in NAMESPACES {
            subject.create(namespace).await;
            let change = ConfigurationChange::Policy(id("p"), policy(POLICY));
            subject.reconfigure(namespace, change).await.unwrap();
        }
        Self { subject, model: Model::default(), chance: Chance(seed), requests: 0 }
    }

    /// Something happens.
    pub async fn step(&mut self) {
        match self.chance.below(20) {
            0..3 => {
                let span =
                    Duration::from_millis(*self.chance.one_of(&[1, 300, 2_000, 12_000, 70_000]));
                self.subject.pass(span).await;
            }
            3..5 => self.sweep().await,
            _ => self.event().await,
        }
    }

    async fn event(&mut self) {
        let namespace = (*self.chance.one_of(&NAMESPACES)).to_owned();
        let (run, step) =
            (format!("r{}", self.chance.below(3)), format!("s{}", self.chance.below(3)));
        let key = StepKey { namespace: &namespace, run: &run, step: &step };
        let event = self.drawn(&key);
        self.apply(key, &event).await;
    }

    fn drawn(&mut self, key: &StepKey<'_>) -> Event {
        self.requests += 1;
        let request = self.requests;
        let known = self.model.steps.get(&(key.namespace.to_owned(), key.joined()));
        let fence = known.map_or(1, |known| known.record.fence);
        let next = known.map_or(1, |known| known.record.counters.attempts + 1);
        let attempt = match self.chance.below(4) {
            0 => AttemptName::Number(next),
            1 => AttemptName::Request(request),
            _ => AttemptName::Fence(fence),
        };
        match self.chance.below(12) {
            0..4 => begin(request),
            4 => heartbeat(fence),
            5 => report(attempt, request, None),
            6 => Event::Tick,
            _ => report(attempt, request, Some(self.failure())),
        }
    }

    fn failure(&mut self) -> Failure {
        let class = *self.chance.one_of(&FailureClass::ALL);
        let error_type =
            (*self.chance.one_of(&["", "", "own", "free", "later", "skip", "ask"])).to_owned();
        let exit_code = (self.chance.below(2) == 0).then_some(137);
        let retryable = self.chance.below(12) > 0;
        let message = "m".repeat(usize::try_from(self.chance.below(700)).unwrap());
        let host = if self.chance.below(2) == 0 { "node-9" } else { "" }.to_owned();
        Failure { error_type, exit_code, retryable, message, host, ..Failure::of(class) }
    }

    async fn apply(&mut self, key: StepKey<'_>, event: &Event) {
        let choice = PolicyChoice::Named(id("p"));
        let name = (key.namespace.to_owned(), key.joined());
        let at = self.subject.load(key).await.now.at;
        let version = match self.subject.try_apply(key, &choice, event).await.unwrap() {
            Applied::Stood(_) | Applied::Refused(_) => return,
            Applied::Purged => {
                self.model.seen.insert("purged");
                self.model.steps.remove(&name);
                0
            }
            Applied::Wrote(settlement) => self.model.write(name, *settlement),
        };
        self.model.last = at;
        let changes = self.model.changes.entry(key.namespace.to_owned()).or_default();
        let number = changes.len() as u64 + 1;
        changes.push(ChangeEntry { number, at, joined: key.joined().into(), version });
    }

    /// Handles everything that is due, and nothing may be due after it.
    async fn sweep(&mut self) {
        self.check_due().await;
        for due in self.subject.due(usize::MAX).await {
            let key = StepKey::split(&due.namespace, &due.joined).unwrap();
            self.apply(key, &Event::Tick).await;
        }
        assert_eq!(self.subject.due(usize::MAX).await, [], "what was due was handled");
    }

    /// Every step has exactly one event, and it comes when it should.
    async fn check_due(&mut self) {
        let now = self.subject.store.now();
        let due = self.subject.due(usize::MAX).await;
        assert!(due.is_sorted_by_key(|due| due.event_at));
        let limit = usize::try_from(self.chance.below(4)).unwrap();
        assert_eq!(self.subject.due(limit).await.len(), due.len().min(limit));
        let mut named: Vec<_> = due
            .into_iter()
            .map(|due| (due.event_at, due.namespace.to_string(), due.joined.to_string()))
            .collect();
        named.sort();
        assert_eq!(named, self.model.due(now));
    }

    /// The store knows all that the model knows, and nothing else.
    pub async fn check(&mut self) {
        let mut live: BTreeMap<&str, u64> = BTreeMap::new();
        for ((namespace, joined), known) in &self.model.steps {
            let key = StepKey::split(namespace, joined).unwrap();
            assert_eq!(self.subject.record(key).await.as_ref(), Some(&known.record), "{key}");
            assert_eq!(self.subject.store.evidence(&key).await.unwrap(), known.evidence, "{key}");
            *live.entry(namespace).or_default() += u64::from(!known.record.is_over());
        }
        for namespace in NAMESPACES {
            let expected = live.get(namespace).copied().unwrap_or_default();
            assert_eq!(self.subject.live_steps(namespace).await, expected);
            self.check_changes(namespace).await;
        }
        self.check_due().await;
    }

    /// What is still kept of the changes is what happened, to the latest one.
    async fn check_changes(&self, namespace: &str) {
        let all = self.model.changes.get(namespace).map(Vec::as_slice).unwrap_or_default();
        let kept = self.subject.changes(namespace).await;
        assert_eq!(kept, all[all.len() - kept.len()..]);
        let latest = all.len() as u64;
        assert_eq!(
            self.subject.store.follow(namespace, latest, 1).await.unwrap(),
            Changes::Follow(Vec::new())
        );
        assert!(matches!(
            self.subject.store.follow(namespace, latest + 1, 1).await.unwrap(),
            Changes::Gap(_)
        ));
    }
}

impl Model {
    fn write(&mut self, name: (String, String), settlement: Settlement) -> u64 {
        let Settlement { record, event_at, text, .. } = settlement;
        self.seen.insert(match &record.state {
            State::Waiting { .. } => "waiting",
            State::Stopping { .. } => "stopping",
            State::Running { .. } => "running",
            State::Held(_) => "held",
            State::Over { .. } => "over",
        });
        let version = record.version;
        let evidence = self.steps.remove(&name).map(|known| known.evidence).unwrap_or_default();
        let mut known = Known { record, event_at, evidence };
        if let Some(text) = text {
            self.seen.insert(if text.late { "late text" } else { "text" });
            known.evidence.add(text);
        }
        self.steps.insert(name, known);
        version
    }

    fn due(&self, now: Now) -> Vec<(Timestamp, String, String)> {
        let is_due = |known: &Known| match known.record.state {
            State::Running { lease_until } => lease_until <= now.leases,
            _ => known.event_at <= now.at,
        };
        let due = self.steps.iter().filter(|(_, known)| is_due(known));
        let mut due: Vec<_> = due
            .map(|((namespace, joined), known)| (known.event_at, namespace.clone(), joined.clone()))
            .collect();
        due.sort();
        due
    }
}

pub async fn every_history_is_kept_as_planned<S: Store>(subject: Subject<S>) {
    let mut world = World::new(subject, 1).await;
    for _ in 0..30 {
        for _ in 0..100 {
            world.step().await;
        }
        world.check().await;
    }
    let expected =
        ["held", "late text", "over", "purged", "running", "stopping", "text", "waiting"];
    assert_eq!(world.model.seen.iter().copied().collect::<Vec<_>>(), expected);
}

//! A store under test, and the shortest way from an event to its commit.

use std::{sync::Arc, time::Duration};

use reprise::{
    clock::Clock,
    domain::{
        event::{AttemptName, Begin, Comes, Event, Heartbeat, Report, StepTerms},
        failure::{Failure, FailureClass},
        id::{Id, StepKey},
        namespace::Settings,
        plan::{self, Answer, Plan, Refusal, Settlement, Terms},
        policy::spec::PolicySpec,
        record::{Identity, PolicyChoice, Record},
        time::Timestamp,
    },
    store::{
        Change, ChangeEntry, Changes, Commit, Committed, ConfigurationChange, Due, Expect, Loaded,
        Store, StoreError,
        configuration::{NamespaceEntry, PolicyHistory, PolicyRevision},
        embedded::{Embedded, EmbeddedOptions, log::Fsync},
        redis::{Redis, RedisOptions, address::Address, commands},
    },
};
use tempfile::TempDir;

use crate::redis_servers::{Access, Cluster, Kind, Options, SentinelSet, Standalone};

/// When every test begins.
pub const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

pub fn clock() -> Clock {
    Clock::manual(START)
}

/// A store with its clock, and what has to outlive it.
pub struct Subject<S> {
    pub store: S,
    pub clock: Clock,
    pub dir: Option<TempDir>,
    /// The server behind the store.
    pub server: Option<Standalone>,
}

pub async fn memory(clock: Clock) -> Subject<Embedded> {
    Subject { store: Embedded::memory(clock.clone()), clock, dir: None, server: None }
}

pub async fn embedded(clock: Clock) -> Subject<Embedded> {
    let dir = TempDir::new().unwrap();
    let store = Embedded::open(&options(&dir), clock.clone()).unwrap();
    Subject { store, clock, dir: Some(dir), server: None }
}

/// On the oldest server, as the user that `reprise store acl` tells to create.
pub async fn redis(clock: Clock) -> Subject<Redis> {
    let access = Access::Rules(commands::rules().leak());
    let server = Standalone::start(Kind::Redis70, Options { access, ..Options::default() }).await;
    let store = Redis::open(redis_options(&server.url(), &clock)).await.unwrap();
    Subject { store, clock, dir: None, server: Some(server) }
}

pub fn redis_options(url: &str, clock: &Clock) -> RedisOptions {
    RedisOptions {
        timeout: Duration::from_secs(5),
        given_time: Some(clock.clone()),
        ..RedisOptions::new(Address::parse(url).unwrap())
    }
}

/// Servers that several parts of a test use, one after the other.
pub enum Servers {
    Alone(Box<Standalone>),
    Sentinel(SentinelSet),
    Cluster(Cluster),
}

impl Servers {
    pub async fn alone(kind: Kind) -> Self {
        Self::Alone(Box::new(Standalone::start(kind, Options::default()).await))
    }

    pub async fn sentinel(kind: Kind) -> Self {
        Self::Sentinel(SentinelSet::start(kind, &[]).await)
    }

    /// Three primaries without replicas.
    pub async fn cluster(kind: Kind) -> Self {
        Self::Cluster(Cluster::start(kind, false, &[]).await)
    }

    /// A store on them that is as new.
    pub async fn subject(&self, clock: Clock) -> Subject<Redis> {
        let url = match self {
            Self::Alone(server) => {
                server.endpoint().tell("FLUSHALL").await;
                server.url()
            }
            Self::Sentinel(set) => {
                set.servers[set.primary().await].endpoint().tell("FLUSHALL").await;
                set.url()
            }
            Self::Cluster(cluster) => {
                for node in &cluster.nodes {
                    node.endpoint().tell("FLUSHALL").await;
                }
                cluster.url()
            }
        };
        let store = Redis::open(redis_options(&url, &clock)).await.unwrap();
        Subject { store, clock, dir: None, server: None }
    }
}

pub fn options(dir: &TempDir) -> EmbeddedOptions {
    let fsync = Fsync::Interval(Duration::from_millis(50));
    EmbeddedOptions { dir: dir.path().to_owned(), fsync, size_max: None }
}

/// What became of an event.
#[derive(Debug)]
pub enum Applied {
    Stood(Answer),
    Wrote(Box<Settlement>),
    Purged,
    Refused(#[expect(dead_code, reason = "shown when a test fails")] Refusal),
}

impl Applied {
    /// The record that was written.
    #[track_caller]
    pub fn record(&self) -> &Record {
        match self {
            Self::Wrote(settlement) => &settlement.record,
            other => panic!("nothing was written: {other:?}"),
        }
    }
}

pub fn key<'a>(namespace: &'a str, run: &'a str, step: &'a str) -> StepKey<'a> {
    StepKey { namespace, run, step }
}

pub fn id(text: &str) -> Id {
    text.parse().unwrap()
}

pub const SECOND: Duration = Duration::from_secs(1);

impl<S: Store> Subject<S> {
    pub async fn load(&self, key: StepKey<'_>) -> Loaded {
        self.store.load(&key, Expect::Anything).await.unwrap()
    }

    pub async fn record(&self, key: StepKey<'_>) -> Option<Record> {
        self.load(key).await.record
    }

    /// Plans an event on what is stored; None when nothing is to be written.
    pub async fn planned(
        &self,
        key: StepKey<'_>,
        choice: &PolicyChoice,
        event: &Event,
    ) -> Result<Commit, Applied> {
        self.planned_at(key, choice, event, &[]).await
    }

    /// The same of a step that these targets bound.
    pub async fn planned_at(
        &self,
        key: StepKey<'_>,
        choice: &PolicyChoice,
        event: &Event,
        targets: &[Id],
    ) -> Result<Commit, Applied> {
        let loaded = self.load(key).await;
        let bounds = loaded.configuration.bounds(targets, key.run, loaded.now.at);
        let revision = match choice {
            PolicyChoice::Inline(digest) => {
                self.store.inline_policy(key.namespace, *digest).await.unwrap().unwrap()
            }
            choice => Arc::clone(loaded.configuration.policy(choice).unwrap().1),
        };
        let terms = Terms {
            policy: &revision.policy,
            revision: revision.number,
            choice,
            settings: &loaded.configuration.namespace.settings,
            salt: loaded.salt,
            bounds: &bounds,
            run: None,
        };
        let version = loaded.record.as_ref().map_or(0, |record| record.version);
        let change = match plan::plan(&terms, &key, loaded.record, event, loaded.now) {
            Ok(Plan::Stands(answer)) => return Err(Applied::Stood(answer)),
            Ok(Plan::Write(draft)) => Change::Write(draft),
            Ok(Plan::Purge) => Change::Purge,
            Err(refusal) => return Err(Applied::Refused(refusal)),
        };
        Ok(Commit {
            configuration: loaded.configuration.revision,
            version,
            now: loaded.now,
            change,
        })
    }

    pub async fn try_apply(
        &self,
        key: StepKey<'_>,
        choice: &PolicyChoice,
        event: &Event,
    ) -> Result<Applied, StoreError> {
        for _ in 0..1000 {
            let commit = match self.planned(key, choice, event).await {
                Ok(commit) => commit,
                Err(applied) => return Ok(applied),
            };
            let expected = settled(&commit.change);
            match (self.store.commit(&key, commit).await?, expected) {
                (Committed::Conflict, _) => {}
                (Committed::Written(answer), None) => {
                    assert_eq!(answer, Answer::Ticked);
                    return Ok(Applied::Purged);
                }
                (Committed::Written(answer), Some(settlement)) => {
                    assert_eq!(answer, settlement.answer);
                    return Ok(Applied::Wrote(settlement));
                }
            }
        }
        panic!("{key} changed a thousand times while it was planned");
    }

    /// Plans and commits an event under the policy that the step has.
    pub async fn apply(&self, key: StepKey<'_>, event: &Event) -> Applied {
        let choice = self.record(key).await.map_or(PolicyChoice::Default, |record| record.policy);
        self.try_apply(key, &choice, event).await.unwrap()
    }

    /// Lets time pass as it passes in life: with a sweep now and then.
    pub async fn pass(&self, span: Duration) {
        let mut rest = span;
        while !rest.is_zero() {
            let some = rest.min(SECOND);
            self.clock.advance(some);
            self.store.peek_due(0).await.unwrap();
            rest -= some;
        }
    }

    /// What is due: run, step and when.
    pub async fn due(&self, limit: usize) -> Vec<Due> {
        self.store.peek_due(limit).await.unwrap()
    }

    /// Creates a namespace with short spans, so that a test sees them end.
    pub async fn create(&self, name: &str) {
        self.create_with(name, settings()).await;
    }

    pub async fn create_with(&self, name: &str, settings: Settings) {
        let entry = NamespaceEntry::new(settings, self.clock.now());
        self.configure(name, 0, ConfigurationChange::Namespace(entry)).await.unwrap();
    }

    pub async fn configure(
        &self,
        name: &str,
        revision: u64,
        change: ConfigurationChange,
    ) -> Result<(), StoreError> {
        self.store.configure(&id(name), revision, change).await
    }

    /// Configures whatever the revision.
    pub async fn reconfigure(
        &self,
        name: &str,
        change: ConfigurationChange,
    ) -> Result<(), StoreError> {
        let revision = self.revision(name).await;
        self.configure(name, revision, change).await
    }

    pub async fn revision(&self, name: &str) -> u64 {
        self.store.configuration(name).await.unwrap().revision
    }

    /// All the changes that are still kept.
    pub async fn changes(&self, name: &str) -> Vec<ChangeEntry> {
        let after = match self.store.follow(name, 0, 0).await.unwrap() {
            Changes::Follow(_) => 0,
            Changes::Gap(after) => after,
        };
        match self.store.follow(name, after, usize::MAX).await.unwrap() {
            Changes::Follow(changes) => changes,
            Changes::Gap(after) => panic!("a gap where the log was said to begin: {after}"),
        }
    }

    pub async fn live_steps(&self, name: &str) -> u64 {
        self.store.live_steps(name).await.unwrap()
    }
}

/// What a store without limits makes of a change; None when it forgets.
pub fn settled(change: &Change) -> Option<Box<Settlement>> {
    match change {
        Change::Purge => None,
        Change::Write(draft) => Some(Box::new(plan::settle((**draft).clone(), &draft.admitted()))),
    }
}

/// Settings under which everything ends soon.
pub fn settings() -> Settings {
    Settings {
        lease: Duration::from_secs(10),
        retention: Duration::from_secs(60),
        abandon_after: Duration::from_secs(120),
        ..Settings::default()
    }
}

pub fn begin(request: u64) -> Event {
    Event::Begin(Begin {
        identity: Identity { id: request, payload: request },
        lease: None,
        host: Some("node-7".into()),
        worker: "worker-3".to_owned(),
        comes: Comes::ByItself,
        step: StepTerms::default(),
    })
}

pub fn heartbeat(fence: u64) -> Event {
    Event::Heartbeat(Heartbeat { fence, lease: None, progress: None })
}

pub fn report(attempt: AttemptName, payload: u64, failure: Option<Failure>) -> Event {
    Event::Report(Report { attempt, payload, failure, step: StepTerms::default() })
}

/// A failure of attempt `number` that says `message`.
pub fn failed(number: u32, message: &str) -> Event {
    let failure = Failure { message: message.to_owned(), ..Failure::of(FailureClass::Transient) };
    report(AttemptName::Number(number), 0, Some(failure))
}

/// A policy as people write it.
pub fn spec(yaml: &str) -> PolicySpec {
    serde_saphyr::from_str(yaml).unwrap()
}

pub fn revision(yaml: &str, number: u64) -> PolicyRevision {
    PolicyRevision::parse(spec(yaml), number, START).unwrap()
}

/// A policy of one revision.
pub fn policy(yaml: &str) -> PolicyHistory {
    let mut history = PolicyHistory::default();
    history.add(revision(yaml, 1));
    history
}

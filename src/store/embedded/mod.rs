//! The default store: in this process, durable, nothing to install.
//!
//! State is in memory, packed ([`steps`]); what changes is appended to a log
//! ([`log`]) and acknowledged after the log says that it is durable. A snapshot
//! of the state replaces the log when that has grown long. In memory mode there
//! is no log, and nothing outlives the process.
//!
//! Everything happens under one lock, held for a microsecond or two: the process
//! runs on one thread, and the lock is there for the snapshot's.

pub mod entry;
pub mod log;
pub mod state;
pub mod steps;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use self::{
    entry::{Entry, StepChange},
    log::{AppendError, Fsync, Growth, Log, LogOptions, OpenError, Position},
    state::{ApplyError, Namespace, State},
};
use super::{
    Change, Changes, Commit, Committed, ConfigurationChange, Description, Due, Loaded,
    NamespaceView, Store, StoreError,
    configuration::{Configuration, INLINE_MAX, NamespaceEntry, POLICIES_MAX, PolicyRevision},
    record,
};
use crate::{
    chance,
    clock::Clock,
    domain::{
        draw::Salt,
        id::{Id, StepKey},
        namespace::{DEFAULT_NAMESPACE, Settings},
        plan::{self, Answer, Draft, Now},
        record::{Evidence, PolicyChoice},
        time::Timestamp,
    },
};

/// After an outage of the service, leases are judged as of its beginning for so
/// long: time enough for every worker's next heartbeat under the default lease.
pub const GRACE: Duration = Duration::from_secs(10);
/// A pause between two sweeps that is an outage: the process was stopped, or
/// the machine was.
const STALL: Duration = Duration::from_secs(3);
/// Log bytes below which no snapshot is made.
const SNAPSHOT_MIN: u64 = 64 << 20;
/// Steps copied under the lock at a time while a snapshot is made.
const SLICE: usize = 256;

/// Settings of the embedded store.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Where the data is.
    pub dir: PathBuf,
    /// When a change is durable.
    pub fsync: Fsync,
    /// Bytes at most on the disk; None is no bound but the disk's.
    pub size_max: Option<u64>,
}

/// The embedded store. Cheap to clone.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    clock: Clock,
    salt: Salt,
    held: Mutex<Held>,
    log: Option<Log>,
    fsync: Fsync,
    snapshotting: AtomicBool,
}

/// What the lock guards.
struct Held {
    state: State,
    /// The latest append; everything loaded so far is durable when it is.
    latest: Option<Position>,
    grace: Grace,
}

/// Leases are not judged by time during which nobody could be heard.
#[derive(Clone, Copy, Debug, Default)]
struct Grace {
    /// The last instant before the outage, and the end of the grace after it.
    outage: Option<(Timestamp, Timestamp)>,
    /// The latest sweep.
    swept_at: Timestamp,
}

/// Why the embedded store did not open.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The log did not.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The store was opened and could not be written.
    #[error("the new store could not be written: {0}")]
    Write(#[from] AppendError),
    /// What was found is not a store.
    #[error("{} holds a log without a store's salt", .0.display())]
    NotAStore(PathBuf),
}

impl Embedded {
    /// A store that keeps nothing.
    #[must_use]
    pub fn memory(clock: Clock) -> Self {
        let salt = Salt(chance::bytes());
        let mut state = State { salt: Some(salt), ..State::default() };
        let at = clock.now();
        let default = default_namespace(at);
        state.apply(&joined(&default.entry())).expect("the entry was just written");
        Self::new(state, salt, clock, None, Fsync::Always, Timestamp::EPOCH)
    }

    /// Opens the store in `options.dir`, which is made when absent. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// When another process has it, when it is damaged, when a newer version
    /// wrote it, or when the disk refuses.
    pub fn open(options: &EmbeddedOptions, clock: Clock) -> Result<Self, EmbeddedError> {
        let mut state = State::default();
        let log_options = LogOptions {
            fsync: options.fsync,
            size_max: options.size_max,
            ..LogOptions::default()
        };
        let (log, recovered) = Log::open(&options.dir, log_options, |entry| state.apply(entry))?;
        let last = Timestamp::from_micros(recovered.at_us);
        let clock = clock.not_before(last);
        if recovered.entries == 0 {
            write_beginnings(&mut state, &log, clock.now())?;
        }
        let salt = state.salt.ok_or_else(|| EmbeddedError::NotAStore(options.dir.clone()))?;
        Ok(Self::new(state, salt, clock, Some(log), options.fsync, last))
    }

    fn new(
        state: State,
        salt: Salt,
        clock: Clock,
        log: Option<Log>,
        fsync: Fsync,
        last: Timestamp,
    ) -> Self {
        let now = clock.now();
        let outage = (last > Timestamp::EPOCH).then(|| (last, now.plus(GRACE)));
        let grace = Grace { outage, swept_at: now };
        let held = Mutex::new(Held { state, latest: None, grace });
        Self(Arc::new(Inner {
            clock,
            salt,
            held,
            log,
            fsync,
            snapshotting: AtomicBool::new(false),
        }))
    }

    /// Resolves when the store has stopped for good, with the reason: the
    /// process should end, since nothing can be acknowledged any more.
    pub async fn failed(&self) -> String {
        match &self.0.log {
            Some(log) => log.poisoned().await.to_string(),
            None => std::future::pending().await,
        }
    }

    /// Steps, live steps and bytes on the disk, for metrics.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let held = self.0.held();
        let mut sizes = Sizes::default();
        for namespace in held.state.namespaces.values() {
            sizes.steps += namespace.steps.len() as u64;
            sizes.live_steps += namespace.steps.live();
        }
        sizes.disk_bytes = self.0.log.as_ref().map_or(0, |log| log.size().disk_bytes);
        sizes
    }
}

/// How much the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Steps, those that are over included.
    pub steps: u64,
    /// Steps that are not over.
    pub live_steps: u64,
    /// Bytes on the disk.
    pub disk_bytes: u64,
}

/// A namespace entry with its bytes.
struct DefaultNamespace(Vec<u8>);

impl DefaultNamespace {
    fn entry(&self) -> Entry<'_> {
        Entry::Namespace { namespace: DEFAULT_NAMESPACE, changes: 0, value: &self.0 }
    }
}

fn default_namespace(at: Timestamp) -> DefaultNamespace {
    let entry = NamespaceEntry::new(Settings::default(), at);
    DefaultNamespace(entry.to_bytes().expect("settings are plain data"))
}

/// Head and value of an entry in one piece, as [`State::apply`] reads it.
fn joined(entry: &Entry<'_>) -> Vec<u8> {
    let (mut head, value) = entry.parts();
    head.extend_from_slice(value);
    head
}

/// A new store begins with its salt and the default namespace.
fn write_beginnings(state: &mut State, log: &Log, at: Timestamp) -> Result<(), EmbeddedError> {
    let salt = chance::bytes::<16>();
    let namespace = default_namespace(at);
    let entries = [joined(&Entry::Salt(&salt)), joined(&namespace.entry())];
    log.append(at.as_micros(), Growth::Granting, |out| {
        entries.iter().for_each(|entry| out.push(&[entry]))
    })?;
    for entry in &entries {
        state.apply(entry).expect("the entry was just written");
    }
    Ok(())
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        // Every change under the lock is complete before anything can panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends entries and, in the same hold of the lock, applies them.
    ///
    /// `prepare` looks at the state and says what to append; it is asked again
    /// when room had to be waited for, since the state may have changed.
    async fn write<T>(
        &self,
        growth: Growth,
        mut prepare: impl FnMut(&State) -> Result<Prepared<T>, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            let appended = {
                let mut held = self.held();
                let prepared = prepare(&held.state)?;
                self.append(&mut held, growth, prepared)?
            };
            match (appended, &self.log) {
                (Appended::Done(answer, Some(position)), Some(log)) => {
                    log.durable(position)
                        .await
                        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
                    return Ok(answer);
                }
                (Appended::Done(answer, _), _) => return Ok(answer),
                (Appended::NoRoomYet, Some(log)) => log.room(growth).await.map_err(store_error)?,
                (Appended::NoRoomYet, None) => {}
            }
        }
    }

    fn append<T>(
        &self,
        held: &mut Held,
        growth: Growth,
        prepared: Prepared<T>,
    ) -> Result<Appended<T>, StoreError> {
        let Prepared { entries, answer } = prepared;
        if entries.is_empty() {
            return Ok(Appended::Done(answer, None));
        }
        let position = match &self.log {
            None => None,
            Some(log) => {
                let at_us = self.clock.now().as_micros();
                match log.append(at_us, growth, |out| {
                    entries.iter().for_each(|entry| out.push(&[entry]))
                }) {
                    Ok(position) => Some(position),
                    Err(AppendError::NotYet) => return Ok(Appended::NoRoomYet),
                    Err(error) => return Err(store_error(error)),
                }
            }
        };
        held.latest = position.or(held.latest);
        for entry in &entries {
            held.state.apply(entry).map_err(|error| apply_error(&error))?;
        }
        Ok(Appended::Done(answer, position))
    }
}

/// What is to be appended, and the answer once it is durable.
struct Prepared<T> {
    entries: Vec<Vec<u8>>,
    answer: T,
}

enum Appended<T> {
    Done(T, Option<Position>),
    NoRoomYet,
}

fn store_error(error: AppendError) -> StoreError {
    match error {
        AppendError::Full => StoreError::Full,
        error => StoreError::Unavailable(error.to_string()),
    }
}

fn apply_error(error: &ApplyError) -> StoreError {
    StoreError::Unavailable(format!("an entry that was just written cannot be applied: {error}"))
}

fn unreadable(key: &StepKey<'_>) -> impl FnOnce(record::RecordError) -> StoreError {
    let key = key.to_string();
    move |source| StoreError::Unreadable { key, source }
}

fn namespace<'a>(state: &'a State, name: &str) -> Result<&'a Namespace, StoreError> {
    state.namespaces.get(name).ok_or_else(|| StoreError::NamespaceUnknown(name.to_owned()))
}

impl Store for Embedded {
    async fn load(&self, key: &StepKey<'_>) -> Result<Loaded, StoreError> {
        let held = self.0.held();
        let namespace = namespace(&held.state, key.namespace)?;
        let record = match namespace.steps.find(key) {
            Some((_, slot)) => Some(record::decode(&slot.value).map_err(unreadable(key))?),
            None => None,
        };
        let now = held.grace.now(self.0.clock.now());
        Ok(Loaded {
            record,
            configuration: Arc::clone(&namespace.configuration),
            salt: self.0.salt,
            now,
        })
    }

    async fn commit(&self, key: &StepKey<'_>, commit: Commit) -> Result<Committed, StoreError> {
        let growth = match &commit.change {
            Change::Write(draft) if draft.is_granting() => Growth::Granting,
            Change::Write(_) | Change::Purge => Growth::Settling,
        };
        let mut change = Some(commit.change);
        let mut settled = None;
        self.0
            .write(growth, |state| {
                let namespace = namespace(state, key.namespace)?;
                let slot = namespace.steps.find(key);
                let version = match slot {
                    Some((_, slot)) => {
                        record::Header::read(&slot.value).map_err(unreadable(key))?.version
                    }
                    None => 0,
                };
                if version != commit.version
                    || namespace.configuration.revision != commit.configuration
                {
                    return Ok(Prepared { entries: Vec::new(), answer: Committed::Conflict });
                }
                if settled.is_none() {
                    settled = Some(settle(key, namespace, change.take())?);
                }
                let at_us = commit.at.as_micros();
                let number = namespace.changes.latest() + 1;
                let written = settled.as_ref().expect("it was just put there");
                Ok(written.prepared(key, StepNumber { number, at_us }))
            })
            .await
    }

    async fn confirm(&self) -> Result<(), StoreError> {
        let latest = self.0.held().latest;
        match (&self.0.log, latest) {
            (Some(log), Some(latest)) => log
                .durable(latest)
                .await
                .map_err(|error| StoreError::Unavailable(error.to_string())),
            _ => Ok(()),
        }
    }

    async fn evidence(&self, key: &StepKey<'_>) -> Result<Evidence, StoreError> {
        let held = self.0.held();
        let namespace = namespace(&held.state, key.namespace)?;
        let stored =
            namespace.steps.find(key).and_then(|(number, _)| namespace.steps.evidence(number));
        stored.map_or_else(
            || Ok(Evidence::default()),
            |bytes| record::decode_evidence(bytes).map_err(unreadable(key)),
        )
    }

    async fn peek_due(&self, limit: usize) -> Result<Vec<Due>, StoreError> {
        let mut held = self.0.held();
        let now = self.0.clock.now();
        held.grace.swept(now);
        let mut due = Vec::new();
        for (name, namespace) in &mut held.state.namespaces {
            let found = namespace.steps.due(now, limit - due.len());
            due.extend(found.into_iter().map(|(event_at, joined)| Due {
                namespace: name.clone(),
                joined,
                event_at,
            }));
            if due.len() >= limit {
                break;
            }
        }
        drop(held);
        self.maintain();
        Ok(due)
    }

    async fn follow(&self, name: &str, after: u64, limit: usize) -> Result<Changes, StoreError> {
        let held = self.0.held();
        Ok(namespace(&held.state, name)?.changes.after(after, limit))
    }

    async fn configuration(&self, name: &str) -> Result<Arc<Configuration>, StoreError> {
        let held = self.0.held();
        Ok(Arc::clone(&namespace(&held.state, name)?.configuration))
    }

    async fn inline_policy(
        &self,
        name: &str,
        digest: u128,
    ) -> Result<Option<Arc<PolicyRevision>>, StoreError> {
        let held = self.0.held();
        Ok(namespace(&held.state, name)?.inline.get(&digest).cloned())
    }

    async fn namespaces(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<NamespaceView>, StoreError> {
        let held = self.0.held();
        let views = held.state.namespaces.iter().filter(|(name, _)| &***name > after).take(limit);
        Ok(views
            .map(|(name, namespace)| NamespaceView {
                name: name.clone(),
                entry: namespace.configuration.namespace.clone(),
                live_steps: namespace.steps.live(),
            })
            .collect())
    }

    async fn live_steps(&self, name: &str) -> Result<u64, StoreError> {
        let held = self.0.held();
        Ok(namespace(&held.state, name)?.steps.live())
    }

    async fn configure(
        &self,
        name: &Id,
        revision: u64,
        change: ConfigurationChange,
    ) -> Result<(), StoreError> {
        self.0
            .write(Growth::Granting, |state| {
                let current = state.namespaces.get(name);
                if current.map_or(0, |namespace| namespace.configuration.revision) != revision {
                    return Err(StoreError::ConfigurationChanged);
                }
                Ok(Prepared { entries: configuration_entries(name, current, &change)?, answer: () })
            })
            .await
    }

    fn now(&self) -> Now {
        self.0.held().grace.now(self.0.clock.now())
    }

    fn describe(&self) -> Description {
        let Some(_) = &self.0.log else {
            return Description {
                store: "memory",
                durability: "nothing outlives the process".to_owned(),
            };
        };
        let durability = match self.0.fsync {
            Fsync::Always => "synced to disk before each answer".to_owned(),
            Fsync::Interval(span) => format!(
                "survives the process; synced to disk every {}",
                crate::domain::time::Span(span)
            ),
        };
        Description { store: "embedded", durability }
    }
}

/// A change as it is written, but for its number in the change log.
enum Written {
    Step { value: Vec<u8>, evidence: Option<Vec<u8>>, answer: Answer },
    Purged,
}

struct StepNumber {
    number: u64,
    at_us: u64,
}

/// Settles a draft: a store without limits admits the earliest instant.
fn settle(
    key: &StepKey<'_>,
    namespace: &Namespace,
    change: Option<Change>,
) -> Result<Written, StoreError> {
    let draft: Box<Draft> = match change {
        Some(Change::Write(draft)) => draft,
        Some(Change::Purge) | None => return Ok(Written::Purged),
    };
    let max = namespace.configuration.namespace.settings.max_live_steps;
    if draft.is_new_step() && namespace.steps.live() >= max {
        return Err(StoreError::QuotaReached { what: "live steps", max });
    }
    let admission = draft.admission();
    let settlement = plan::settle(*draft, admission);
    let evidence = match settlement.text {
        None => None,
        Some(text) => {
            let stored =
                namespace.steps.find(key).and_then(|(number, _)| namespace.steps.evidence(number));
            let mut evidence = stored
                .map_or_else(|| Ok(Evidence::default()), record::decode_evidence)
                .map_err(unreadable(key))?;
            evidence.add(text);
            Some(record::encode_evidence(&evidence))
        }
    };
    let value = record::encode(&settlement.record, settlement.event_at);
    Ok(Written::Step { value, evidence, answer: settlement.answer })
}

impl Written {
    fn prepared(&self, key: &StepKey<'_>, at: StepNumber) -> Prepared<Committed> {
        let joined_key = key.joined();
        let step = StepChange {
            namespace: key.namespace,
            joined: &joined_key,
            number: at.number,
            at_us: at.at_us,
        };
        match self {
            Self::Purged => Prepared {
                entries: vec![joined(&Entry::Step { step, value: &[] })],
                answer: Committed::Written(Answer::Ticked),
            },
            Self::Step { value, evidence, answer } => {
                let mut entries = Vec::with_capacity(2);
                entries.push(joined(&Entry::Step { step, value }));
                if let Some(evidence) = evidence {
                    entries.push(joined(&Entry::Evidence {
                        namespace: key.namespace,
                        joined: &joined_key,
                        value: evidence,
                    }));
                }
                Prepared { entries, answer: Committed::Written(answer.clone()) }
            }
        }
    }
}

/// The entries of a change of configuration, within the namespace's bounds.
fn configuration_entries(
    name: &Id,
    current: Option<&Namespace>,
    change: &ConfigurationChange,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let unknown = || StoreError::NamespaceUnknown(name.to_string());
    let mut entries = Vec::new();
    match change {
        ConfigurationChange::Namespace(entry) => {
            let changes = current.map_or(0, |namespace| namespace.changes.latest());
            entries.push(joined(&Entry::Namespace {
                namespace: name,
                changes,
                value: &entry.to_bytes()?,
            }));
        }
        ConfigurationChange::DeleteNamespace => {
            let steps = current.ok_or_else(unknown)?.steps.len() as u64;
            if steps > 0 {
                return Err(StoreError::NamespaceNotEmpty { steps });
            }
            entries.push(joined(&Entry::NamespaceGone { namespace: name }));
        }
        ConfigurationChange::Policy(policy, history) => {
            let namespace = current.ok_or_else(unknown)?;
            if !namespace.configuration.policies.contains_key(policy) {
                make_room_for_policy(name, namespace, &mut entries)?;
            }
            entries.push(joined(&Entry::Policy {
                namespace: name,
                name: policy,
                value: &history.to_bytes()?,
            }));
        }
        ConfigurationChange::Inline(revision) => {
            let namespace = current.ok_or_else(unknown)?;
            if namespace.inline.contains_key(&revision.digest) {
                return Ok(entries);
            }
            make_room_for_inline(name, namespace, &mut entries)?;
            let value = revision.spec_bytes()?;
            entries.push(joined(&Entry::Inline {
                namespace: name,
                digest: revision.digest,
                value: &value,
            }));
        }
    }
    Ok(entries)
}

fn policies_in_use(name: &Id, namespace: &Namespace) -> Result<HashSet<PolicyChoice>, StoreError> {
    namespace
        .policies_in_use()
        .map_err(|source| StoreError::Unreadable { key: format!("in namespace {name}"), source })
}

/// Forgets deleted policies that no step uses, once there are too many.
fn make_room_for_policy(
    name: &Id,
    namespace: &Namespace,
    entries: &mut Vec<Vec<u8>>,
) -> Result<(), StoreError> {
    let policies = &namespace.configuration.policies;
    if policies.len() < POLICIES_MAX {
        return Ok(());
    }
    let in_use = policies_in_use(name, namespace)?;
    let forgotten = policies.iter().filter(|(policy, history)| {
        history.deleted && !in_use.contains(&PolicyChoice::Named((*policy).clone()))
    });
    entries.extend(
        forgotten.map(|(policy, _)| {
            joined(&Entry::Policy { namespace: name, name: policy, value: &[] })
        }),
    );
    if entries.is_empty() {
        Err(StoreError::QuotaReached { what: "policies", max: POLICIES_MAX as u64 })
    } else {
        Ok(())
    }
}

/// Forgets policies given inline that no step uses, once there are too many.
fn make_room_for_inline(
    name: &Id,
    namespace: &Namespace,
    entries: &mut Vec<Vec<u8>>,
) -> Result<(), StoreError> {
    if namespace.inline.len() < INLINE_MAX {
        return Ok(());
    }
    let in_use = policies_in_use(name, namespace)?;
    let forgotten =
        namespace.inline.keys().filter(|digest| !in_use.contains(&PolicyChoice::Inline(**digest)));
    entries.extend(
        forgotten
            .map(|digest| joined(&Entry::Inline { namespace: name, digest: *digest, value: &[] })),
    );
    if entries.is_empty() {
        Err(StoreError::QuotaReached { what: "inline policies", max: INLINE_MAX as u64 })
    } else {
        Ok(())
    }
}

impl Grace {
    fn now(&self, at: Timestamp) -> Now {
        match self.outage {
            Some((before, until)) if at < until => Now { at, leases: before },
            _ => Now::at(at),
        }
    }

    /// Sweeps come several times a second; a long pause between two is an outage.
    fn swept(&mut self, at: Timestamp) {
        if at - self.swept_at > STALL {
            self.outage = Some((self.swept_at, at.plus(GRACE)));
        }
        self.swept_at = at;
    }
}

impl Embedded {
    /// Makes a snapshot in the background when the log has grown long.
    fn maintain(&self) {
        let Some(log) = &self.0.log else { return };
        let size = log.size();
        if size.log_bytes < SNAPSHOT_MIN.max(size.snapshot_bytes * 2)
            || self.0.snapshotting.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let inner = Arc::clone(&self.0);
        let spawned = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            if let Err(error) = inner.snapshot() {
                tracing::warn!(%error, "the snapshot was not made; the log goes on growing and it will be tried again");
            }
            inner.snapshotting.store(false, Ordering::Release);
        });
        if spawned.is_err() {
            self.0.snapshotting.store(false, Ordering::Release);
        }
    }

    /// Makes a snapshot now. Blocks on the disk.
    ///
    /// # Errors
    /// When the disk refuses; the log is whole and goes on.
    pub fn snapshot(&self) -> Result<(), log::SnapshotError> {
        self.0.snapshot()
    }

    /// Where the data of an embedded store is by default.
    #[must_use]
    pub fn default_dir() -> &'static Path {
        Path::new("data")
    }
}

impl Inner {
    fn snapshot(&self) -> Result<(), log::SnapshotError> {
        let Some(log) = &self.log else { return Ok(()) };
        let mut writer = log.snapshot_begin()?;
        writer.push(&[&joined(&Entry::Salt(&self.salt.0))])?;
        let names: Vec<Id> = self.held().state.namespaces.keys().cloned().collect();
        for name in names {
            for entry in self.configuration_snapshot(&name) {
                writer.push(&[&entry])?;
            }
            let mut from = 0;
            while let Some(entries) = self.steps_snapshot(&name, from) {
                for entry in entries {
                    writer.push(&[&entry])?;
                }
                from += SLICE;
            }
        }
        writer.finish()
    }

    fn configuration_snapshot(&self, name: &Id) -> Vec<Vec<u8>> {
        let held = self.held();
        let Some(namespace) = held.state.namespaces.get(name) else { return Vec::new() };
        let mut entries = Vec::new();
        // What is held was parsed when it came in, so it can be written again.
        if let Ok(value) = namespace.configuration.namespace.to_bytes() {
            entries.push(joined(&Entry::Namespace {
                namespace: name,
                changes: namespace.changes.latest(),
                value: &value,
            }));
        }
        for (policy, history) in &namespace.configuration.policies {
            if let Ok(value) = history.to_bytes() {
                entries.push(joined(&Entry::Policy {
                    namespace: name,
                    name: policy,
                    value: &value,
                }));
            }
        }
        for (digest, revision) in &namespace.inline {
            if let Ok(value) = revision.spec_bytes() {
                entries.push(joined(&Entry::Inline {
                    namespace: name,
                    digest: *digest,
                    value: &value,
                }));
            }
        }
        entries
    }

    /// One slice of a namespace's steps; None behind the last.
    fn steps_snapshot(&self, name: &Id, from: usize) -> Option<Vec<Vec<u8>>> {
        let held = self.held();
        let steps = &held.state.namespaces.get(name)?.steps;
        if from >= steps.slots() {
            return None;
        }
        let mut entries = Vec::new();
        for number in
            (from..steps.slots().min(from + SLICE)).filter_map(|number| u32::try_from(number).ok())
        {
            let Some(slot) = steps.slot(number) else { continue };
            let step = StepChange { namespace: name, joined: &slot.joined, number: 0, at_us: 0 };
            entries.push(joined(&Entry::Step { step, value: &slot.value }));
            if let Some(value) = steps.evidence(number) {
                entries.push(joined(&Entry::Evidence {
                    namespace: name,
                    joined: &slot.joined,
                    value,
                }));
            }
        }
        Some(entries)
    }
}

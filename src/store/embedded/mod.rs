//! The default store: in this process, durable, nothing to install.
//!
//! State is in memory, packed ([`steps`]); what changes is appended to a log
//! ([`log`]) and acknowledged after the log says that it is durable. A snapshot
//! of the state replaces the log when that has grown long. In memory mode there
//! is no log, and nothing outlives the process.
//!
//! Everything happens under one lock, held for a microsecond or two: the process
//! runs on one thread, and the lock is there for the snapshot's.

pub mod charges;
pub mod copy;
pub mod entry;
pub mod log;
pub mod state;
pub mod steps;

use std::{
    collections::HashSet,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use self::{
    entry::{Entry, StepChange},
    log::{AppendError, Entries, Fsync, Growth, Log, LogOptions, LogSize, OpenError, Position},
    state::{ApplyError, Namespace, State},
};
use super::{
    Basis, Change, Changes, Commit, Committed, ConfigurationChange, Description, Due, Expect,
    Loaded, NamespaceView, Queued, Sizes, StepPage, Store, StoreError,
    configuration::{
        Configuration, INLINE_MAX, NamespaceEntry, POLICIES_MAX, PolicyRevision, TargetEntry,
    },
    copy::Mark,
    record::{self, Header, RecordError},
};
use crate::{
    chance,
    clock::Clock,
    domain::{
        draw::Salt,
        id::{Id, StepKey},
        limit::{
            self, Charge,
            book::charges as charges_of,
            usage::{Known, Usage},
        },
        namespace::{DEFAULT_NAMESPACE, Settings},
        plan::{self, Answer, Now, Settlement},
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
/// States of targets below which none is looked at, whether it is of any use.
const BOOK_MIN: usize = 1024;
/// How long a plan holds about a step that targets bound.
const PLAN_KEPT: Duration = Duration::from_millis(250);
/// Log bytes below which no snapshot is made.
const SNAPSHOT_MIN: u64 = 64 << 20;
/// While the store is full a snapshot is what makes room, however short the log:
/// steps may have been forgotten since the one before. One is made this often,
/// and one that failed is tried again after this time.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(30);
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
    /// Whether something was refused for want of room, and nothing was granted
    /// since.
    full: AtomicBool,
    snapshotting: AtomicBool,
    /// When the next snapshot may be tried, µs.
    snapshot_after_us: AtomicU64,
}

/// What the lock guards.
struct Held {
    state: State,
    /// The latest append; everything loaded so far is durable when it is.
    latest: Option<Position>,
    grace: Grace,
}

/// Leases are not judged by time during which nobody could be heard.
#[derive(Clone, Copy, Debug)]
struct Grace {
    /// The latest outage.
    outage: Option<Outage>,
    /// The latest sweep or change: until then somebody was heard.
    swept_at: Timestamp,
}

/// A time during which nobody could be heard.
#[derive(Clone, Copy, Debug)]
struct Outage {
    /// The last instant before it, by which leases are judged.
    before: Timestamp,
    /// The end of the grace after it.
    until: Timestamp,
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
    /// It is the target of a copy that is not whole.
    #[error("{} must not be used: {mark}", dir.display())]
    Unfinished {
        /// Where.
        dir: PathBuf,
        /// What is copied into it.
        mark: Mark,
    },
    /// Steps or policies were found of a namespace that was never created.
    #[error("{} holds entries of namespace {namespace:?}, which no entry created", dir.display())]
    Orphans {
        /// Where.
        dir: PathBuf,
        /// The namespace.
        namespace: String,
    },
}

impl Embedded {
    /// A store that keeps nothing.
    #[must_use]
    pub fn memory(clock: Clock) -> Self {
        let salt = Salt(chance::bytes());
        let mut state = State { salt: Some(salt), ..State::default() };
        let now = clock.now();
        state.apply(&joined(&default_namespace(now).entry())).expect("the entry was just written");
        Self::new(state, salt, clock, None, Fsync::Always, Grace { outage: None, swept_at: now })
    }

    /// Opens the store in `options.dir`, which is made when absent. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// When another process has it, when it is damaged, when a newer version
    /// wrote it, or when the disk refuses.
    pub fn open(options: &EmbeddedOptions, clock: Clock) -> Result<Self, EmbeddedError> {
        let store = Self::open_any(options, clock)?;
        let mark = store.0.held().state.copying.clone();
        match mark {
            Some(mark) => Err(EmbeddedError::Unfinished { dir: options.dir.clone(), mark }),
            None => Ok(store),
        }
    }

    /// The same of a store that may be the target of a copy.
    fn open_any(options: &EmbeddedOptions, clock: Clock) -> Result<Self, EmbeddedError> {
        let mut state = State::default();
        let log_options = LogOptions {
            fsync: options.fsync,
            size_max: options.size_max,
            ..LogOptions::default()
        };
        let (log, recovered) = Log::open(&options.dir, log_options, |entry| state.apply(entry))?;
        if let Some(namespace) = state.orphans.pop_first() {
            return Err(EmbeddedError::Orphans { dir: options.dir.clone(), namespace });
        }
        let last = Timestamp::from_micros(recovered.at_us);
        let clock = clock.not_before(last);
        let now = clock.now();
        if recovered.entries == 0 {
            write_beginnings(&mut state, &log, now)?;
        }
        let salt = state.salt.ok_or_else(|| EmbeddedError::NotAStore(options.dir.clone()))?;
        let grace = Grace::reopened(state.outage, last, now);
        if let Some(outage) = grace.outage {
            note_outage(&log, outage, now);
        }
        Ok(Self::new(state, salt, clock, Some(log), options.fsync, grace))
    }

    fn new(
        state: State,
        salt: Salt,
        clock: Clock,
        log: Option<Log>,
        fsync: Fsync,
        grace: Grace,
    ) -> Self {
        Self(Arc::new(Inner {
            clock,
            salt,
            held: Mutex::new(Held { state, latest: None, grace }),
            log,
            fsync,
            full: AtomicBool::new(false),
            snapshotting: AtomicBool::new(false),
            snapshot_after_us: AtomicU64::new(0),
        }))
    }
}

/// A namespace entry with its bytes.
struct DefaultNamespace(Vec<u8>);

impl DefaultNamespace {
    fn entry(&self) -> Entry<'_> {
        Entry::Namespace { namespace: DEFAULT_NAMESPACE, revision: 1, changes: 0, value: &self.0 }
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

/// Should the service go again within the grace, the next opening has to know.
/// Without it leases are only judged more strictly, so a full disk is no reason
/// not to open.
fn note_outage(log: &Log, outage: Outage, at: Timestamp) {
    let entry = joined(&outage_entry(outage.before, outage.until));
    if let Err(error) = log.append(at.as_micros(), Growth::Settling, |out| out.push(&[&entry])) {
        tracing::warn!(%error, "the end of the outage could not be noted");
    }
}

const fn outage_entry(before: Timestamp, until: Timestamp) -> Entry<'static> {
    Entry::Outage { before_us: before.as_micros(), until_us: until.as_micros() }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        // Every change under the lock is complete before anything can panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles, appends and applies a change of a step, in one hold of the lock.
    fn commit(
        &self,
        key: &StepKey<'_>,
        pending: &mut Pending,
    ) -> Result<Appended<Committed>, StoreError> {
        let mut held = self.held();
        let Held { state, latest, grace } = &mut *held;
        let namespace = state
            .namespaces
            .get_mut(key.namespace)
            .ok_or_else(|| namespace_unknown(key.namespace))?;
        let found = namespace.steps.find(key).map(|(number, _)| number);
        if !pending.is_current(key, namespace, found)? {
            return Ok(Appended::Done(Committed::Conflict, None));
        }
        if found.is_none() && !pending.begins {
            return Ok(Appended::Done(Committed::Written(Answer::Ticked), None));
        }
        let noted = namespace.changes.next(pending.at);
        let written = pending.settled(key, namespace, found, noted.1)?;
        if written.inline.is_some_and(|digest| !namespace.inline.contains_key(&digest)) {
            return Ok(Appended::Done(Committed::Conflict, None));
        }
        let Room::Taken(position) =
            self.append(pending.growth, |out| written.push(out, key, noted))?
        else {
            pending.keep(written);
            return Ok(Appended::NoRoomYet);
        };
        let answer = written.apply(key, namespace, found, noted).map_err(unreadable(key))?;
        *latest = position.or(*latest);
        grace.swept(self.clock.now());
        Ok(Appended::Done(Committed::Written(answer), position))
    }

    /// Appends and applies a change of configuration, in one hold of the lock.
    fn configure(
        &self,
        name: &Id,
        revision: u64,
        change: &ConfigurationChange,
    ) -> Result<Appended<()>, StoreError> {
        let mut held = self.held();
        let current = held.state.namespaces.get(name);
        if current.map_or(0, |namespace| namespace.configuration.revision) != revision {
            return Err(StoreError::ConfigurationChanged);
        }
        let entries = configuration_entries(name, current, change)?;
        if entries.is_empty() {
            return Ok(Appended::Done((), None));
        }
        let Room::Taken(position) = self
            .append(Growth::Granting, |out| entries.iter().for_each(|entry| out.push(&[entry])))?
        else {
            return Ok(Appended::NoRoomYet);
        };
        held.latest = position.or(held.latest);
        for entry in &entries {
            held.state.apply(entry).map_err(|error| apply_error(&error))?;
        }
        Ok(Appended::Done((), position))
    }

    /// Appends and applies the end of a cooldown, in one hold of the lock.
    fn lift(&self, name: &str, state: &str) -> Result<Appended<()>, StoreError> {
        let mut held = self.held();
        let changes = namespace(&held.state, name)?.booked;
        let at_us = self.clock.now().as_micros();
        let entry = joined(&Entry::Lift { namespace: name, changes, at_us, state });
        let Room::Taken(position) = self.append(Growth::Settling, |out| out.push(&[&entry]))?
        else {
            return Ok(Appended::NoRoomYet);
        };
        held.latest = position.or(held.latest);
        held.state.apply(&entry).map_err(|error| apply_error(&error))?;
        Ok(Appended::Done((), position))
    }

    fn append(
        &self,
        growth: Growth,
        write: impl FnOnce(&mut Entries<'_>),
    ) -> Result<Room, StoreError> {
        let Some(log) = &self.log else { return Ok(Room::Taken(None)) };
        match log.append(self.clock.now().as_micros(), growth, write) {
            Ok(position) => {
                if growth == Growth::Granting {
                    self.full.store(false, Ordering::Relaxed);
                }
                Ok(Room::Taken(Some(position)))
            }
            Err(AppendError::NotYet) => Ok(Room::NotYet),
            Err(error) => Err(self.refusal(error)),
        }
    }

    /// The answer once it is durable; None when room was waited for, and it is
    /// to be tried again on what the state is then.
    async fn acknowledged<T>(
        &self,
        appended: Appended<T>,
        growth: Growth,
    ) -> Result<Option<T>, StoreError> {
        match (appended, &self.log) {
            (Appended::Done(answer, Some(position)), Some(log)) => {
                log.durable(position)
                    .await
                    .map_err(|error| StoreError::Unavailable(error.to_string()))?;
                Ok(Some(answer))
            }
            (Appended::Done(answer, _), _) => Ok(Some(answer)),
            (Appended::NoRoomYet, Some(log)) => {
                log.room(growth).await.map_err(|error| self.refusal(error))?;
                Ok(None)
            }
            (Appended::NoRoomYet, None) => Ok(None),
        }
    }

    fn refusal(&self, error: AppendError) -> StoreError {
        match error {
            AppendError::Full => {
                self.full.store(true, Ordering::Relaxed);
                StoreError::Full
            }
            error => StoreError::Unavailable(error.to_string()),
        }
    }

    /// The longest overdue steps of all namespaces, at most `limit`. The second
    /// part says whether there may be more that were not looked at yet.
    fn peek_due(&self, limit: usize) -> (Vec<Due>, bool) {
        let mut held = self.held();
        let now = self.clock.now();
        held.grace.swept(now);
        let grace = held.grace;
        let (mut due, mut is_partial) = (Vec::new(), false);
        for (name, namespace) in &mut held.state.namespaces {
            if namespace.book.len() >= namespace.book_forgotten_at {
                namespace.book.forget_idle(now);
                namespace.book_forgotten_at = (2 * namespace.book.len()).max(BOOK_MIN);
            }
            let (found, more) =
                namespace.steps.due(now, limit, |header| grace.event_at(header, now));
            let configuration = &namespace.configuration;
            let forced = |state: &str| configuration.forced_of(state, now);
            let called = namespace.book.called(now, limit, forced).into_iter();
            let called = called.map(|joined| (now, Arc::from(joined)));
            due.extend(found.into_iter().chain(called).map(|(event_at, joined)| Due {
                namespace: name.clone(),
                joined,
                event_at,
            }));
            is_partial |= more;
        }
        due.sort_by_key(|step| step.event_at);
        due.truncate(limit);
        (due, is_partial)
    }
}

/// What became of an append.
enum Room {
    /// It has its place; None without a log.
    Taken(Option<Position>),
    /// Room is being prepared.
    NotYet,
}

enum Appended<T> {
    Done(T, Option<Position>),
    NoRoomYet,
}

fn apply_error(error: &ApplyError) -> StoreError {
    StoreError::Unavailable(format!("an entry that was just written cannot be applied: {error}"))
}

fn unreadable(key: &StepKey<'_>) -> impl FnOnce(record::RecordError) -> StoreError {
    move |source| StoreError::Unreadable { key: key.to_string(), source }
}

fn namespace<'a>(state: &'a State, name: &str) -> Result<&'a Namespace, StoreError> {
    state.namespaces.get(name).ok_or_else(|| namespace_unknown(name))
}

fn namespace_unknown(name: &str) -> StoreError {
    StoreError::NamespaceUnknown(name.to_owned())
}

impl Store for Embedded {
    async fn load(&self, key: &StepKey<'_>, _expect: Expect) -> Result<Loaded, StoreError> {
        let held = self.0.held();
        let namespace = namespace(&held.state, key.namespace)?;
        let record = match namespace.steps.find(key) {
            Some((_, slot)) => Some(record::decode(&slot.value).map_err(unreadable(key))?),
            None => None,
        };
        let now = held.grace.now(self.0.clock.now());
        let basis = Basis {
            version: record.as_ref().map_or(0, |record| record.version),
            configuration: namespace.configuration.revision,
            remembered: false,
        };
        Ok(Loaded {
            record,
            basis,
            turn: None,
            configuration: Arc::clone(&namespace.configuration),
            salt: self.0.salt,
            now,
        })
    }

    async fn commit(&self, key: &StepKey<'_>, commit: Commit) -> Result<Committed, StoreError> {
        let mut pending = Pending::new(commit);
        loop {
            let appended = self.0.commit(key, &mut pending)?;
            if let Some(committed) = self.0.acknowledged(appended, pending.growth).await? {
                return Ok(committed);
            }
            // What limits promise is promised as of when it was planned.
            if pending.is_bound() && self.0.clock.now() - pending.at > PLAN_KEPT {
                return Ok(Committed::Conflict);
            }
        }
    }

    async fn confirm(&self, _key: &StepKey<'_>, _basis: &Basis) -> Result<bool, StoreError> {
        let latest = self.0.held().latest;
        if let (Some(log), Some(latest)) = (&self.0.log, latest) {
            log.durable(latest)
                .await
                .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        }
        Ok(true)
    }

    fn tell_episodes(&self, name: &str, bounds: &mut [limit::Bound]) {
        if let Some(namespace) = self.0.held().state.namespaces.get(name) {
            namespace.book.tell_episodes(bounds);
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
        let due = loop {
            let (due, is_partial) = self.0.peek_due(limit);
            if !is_partial || due.len() == limit {
                break due;
            }
            tokio::task::yield_now().await;
        };
        self.maintain();
        Ok(due)
    }

    async fn heads(
        &self,
        name: &str,
        state: &str,
        permits: u32,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let held = self.0.held();
        let now = held.grace.now(self.0.clock.now());
        let heads = namespace(&held.state, name)?.book.heads(state, permits, now, limit);
        Ok(heads.into_iter().map(String::from).collect())
    }

    async fn usage(
        &self,
        name: &str,
        bound: &limit::Bound,
        member: Option<&str>,
    ) -> Result<Usage, StoreError> {
        let held = self.0.held();
        let now = held.grace.now(self.0.clock.now());
        let state = namespace(&held.state, name)?.book.state(&bound.state);
        Ok(Usage::of(bound, &Known::of(bound, state, member, now), now.at))
    }

    async fn lift(&self, name: &str, bound: &limit::Bound) -> Result<(), StoreError> {
        loop {
            let appended = self.0.lift(name, &bound.state)?;
            if let Some(()) = self.0.acknowledged(appended, Growth::Settling).await? {
                return Ok(());
            }
        }
    }

    async fn queued(
        &self,
        name: &str,
        queue: &str,
        limit: usize,
    ) -> Result<Vec<Queued>, StoreError> {
        let held = self.0.held();
        Ok(namespace(&held.state, name)?.steps.queued(queue, limit).collect())
    }

    async fn run_steps(
        &self,
        name: &str,
        run: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let held = self.0.held();
        let steps = namespace(&held.state, name)?.steps.of_run(run, after, limit);
        Ok(steps.map(str::to_owned).collect())
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
        let views = held
            .state
            .namespaces
            .range::<str, _>((Bound::Excluded(after), Bound::Unbounded))
            .take(limit);
        Ok(views
            .map(|(name, namespace)| NamespaceView {
                name: name.clone(),
                entry: namespace.configuration.namespace.clone(),
                live_steps: namespace.steps.live(),
            })
            .collect())
    }

    async fn page(&self, name: &str, from: u64, limit: usize) -> Result<StepPage, StoreError> {
        let held = self.0.held();
        copy::page(name, &namespace(&held.state, name)?.steps, from, limit)
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
        loop {
            let appended = self.0.configure(name, revision, &change)?;
            if let Some(()) = self.0.acknowledged(appended, Growth::Granting).await? {
                return Ok(());
            }
        }
    }

    fn now(&self) -> Now {
        self.0.held().grace.now(self.0.clock.now())
    }

    fn watch(&self) -> watch::Receiver<Result<(), String>> {
        // It is in this process: as long as that answers, so does the store.
        watch::Sender::new(Ok(())).subscribe()
    }

    fn is_unsafe(&self) -> bool {
        false
    }

    async fn ended(&self) -> String {
        match &self.0.log {
            Some(log) => log.poisoned().await.to_string(),
            None => std::future::pending().await,
        }
    }

    fn sizes(&self) -> Option<Sizes> {
        let held = self.0.held();
        let mut sizes = Sizes::default();
        for namespace in held.state.namespaces.values() {
            sizes.steps += namespace.steps.len() as u64;
            sizes.live_steps += namespace.steps.live();
        }
        sizes.disk_bytes = self.0.log.as_ref().map_or(0, |log| log.size().disk_bytes);
        sizes.syncs = self.0.log.as_ref().map_or(0, Log::syncs);
        Some(sizes)
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

/// A commit on its way. It is settled once, and looked at again when room had
/// to be waited for, since the state may have changed.
struct Pending {
    configuration: u64,
    version: u64,
    at: Timestamp,
    leases: Timestamp,
    growth: Growth,
    /// Whether it begins a step; purging an unknown one does not.
    begins: bool,
    change: Option<Change>,
    written: Option<Written>,
}

impl Pending {
    fn new(commit: Commit) -> Self {
        let growth = match &commit.change {
            Change::Write(draft) if draft.is_granting() => Growth::Granting,
            Change::Write(_) | Change::Purge => Growth::Settling,
        };
        let Commit { configuration, version, now, change } = commit;
        let begins = version == 0 && matches!(change, Change::Write(_));
        let Now { at, leases } = now;
        Self {
            configuration,
            version,
            at,
            leases,
            growth,
            begins,
            change: Some(change),
            written: None,
        }
    }

    /// Whether step and configuration are still what the change was planned on.
    fn is_current(
        &self,
        key: &StepKey<'_>,
        namespace: &Namespace,
        found: Option<u32>,
    ) -> Result<bool, StoreError> {
        let version = match found.and_then(|number| namespace.steps.slot(number)) {
            Some(slot) => Header::read(&slot.value).map_err(unreadable(key))?.version,
            None => 0,
        };
        let is_same = version == self.version || planted!("version-not-compared");
        let knows_episodes = match &self.change {
            Some(Change::Write(draft)) => {
                draft.asks().is_none_or(|asks| namespace.book.knows_episodes(asks))
            }
            Some(Change::Purge) | None => true,
        };
        Ok(is_same && knows_episodes && namespace.configuration.revision == self.configuration)
    }

    /// The change, settled on what the targets say at `at`.
    fn settled(
        &mut self,
        key: &StepKey<'_>,
        namespace: &mut Namespace,
        found: Option<u32>,
        at: Timestamp,
    ) -> Result<Written, StoreError> {
        let max = namespace.configuration.namespace.settings.max_live_steps;
        if self.begins && namespace.steps.live() >= max + u64::from(planted!("quota-one-more")) {
            return Err(StoreError::QuotaReached { what: "live steps", max });
        }
        match (self.written.take(), self.change.take()) {
            (Some(written), _) => Ok(written),
            (None, Some(Change::Write(draft))) => {
                let now = Now { at, leases: self.leases };
                let (admitted, charges) = match draft.asks() {
                    None => (draft.admitted(), Vec::new()),
                    Some(asks) => {
                        let admitted = namespace.book.admit(asks, now);
                        let charges = charges_of(asks, &admitted, at);
                        self.change = Some(Change::Write(draft.clone()));
                        (admitted, charges)
                    }
                };
                let written = Written::of(plan::settle(*draft, &admitted), namespace, found)
                    .map_err(unreadable(key))?;
                Ok(Written { charges, ..written })
            }
            (None, Some(Change::Purge) | None) => Ok(Written::FORGOTTEN),
        }
    }

    /// Whether targets are asked again, since there was no room for the change.
    const fn is_bound(&self) -> bool {
        self.change.is_some()
    }

    /// Keeps a change for which there is no room yet. What targets said may not
    /// be so any more when there is: they are asked again.
    fn keep(&mut self, written: Written) {
        if self.change.is_none() {
            self.written = Some(written);
        }
    }
}

/// A change as it is written, but for its number in the change log.
struct Written {
    /// The packed record; None when the step is forgotten.
    value: Option<Box<[u8]>>,
    /// The texts of its failures, when they change.
    evidence: Option<Box<[u8]>>,
    /// The policy that the step was given inline: it must be remembered.
    inline: Option<u128>,
    /// What it charges to targets.
    charges: Vec<Charge>,
    answer: Answer,
}

impl Written {
    const FORGOTTEN: Self = Self {
        value: None,
        evidence: None,
        inline: None,
        charges: Vec::new(),
        answer: Answer::Ticked,
    };

    fn of(
        settlement: Settlement,
        namespace: &Namespace,
        found: Option<u32>,
    ) -> Result<Self, RecordError> {
        let Settlement { record, event_at, answer, text } = settlement;
        let evidence = match text {
            Some(text) if !planted!("evidence-forgotten") => {
                let stored = found.and_then(|number| namespace.steps.evidence(number));
                Some(record::add_evidence(stored, &text)?)
            }
            _ => None,
        };
        let inline = match record.policy {
            PolicyChoice::Inline(digest) => Some(digest),
            PolicyChoice::Default | PolicyChoice::Named(_) => None,
        };
        let value = Some(record::encode(&record, event_at).into());
        Ok(Self { value, evidence, inline, charges: Vec::new(), answer })
    }

    /// Puts it down in the log.
    fn push(&self, out: &mut Entries<'_>, key: &StepKey<'_>, (number, at): (u64, Timestamp)) {
        let joined = key.joined();
        let value = self.value.as_deref().unwrap_or_default();
        let step =
            StepChange { namespace: key.namespace, joined: &joined, number, at_us: at.as_micros() };
        push(out, &Entry::Step { step, value });
        if !self.charges.is_empty() && !planted!("charges-not-logged") {
            push(out, &Entry::Charges { step, value: &charges::pack(&self.charges) });
        }
        if let Some(value) = &self.evidence {
            push(out, &Entry::Evidence { namespace: key.namespace, joined: &joined, value });
        }
    }

    /// Does in memory what its entries in the log say.
    fn apply(
        self,
        key: &StepKey<'_>,
        namespace: &mut Namespace,
        found: Option<u32>,
        noted: (u64, Timestamp),
    ) -> Result<Answer, RecordError> {
        if !self.charges.is_empty() {
            let joined = key.joined();
            let (number, at_us) = (noted.0, noted.1.as_micros());
            let step = StepChange { namespace: key.namespace, joined: &joined, number, at_us };
            namespace.charge(&step, &self.charges);
        }
        match self.value {
            None => namespace.forget_step(key, Some(noted)),
            Some(value) => {
                let slot = namespace.put_step(key, found, value, Some(noted))?;
                if let Some(evidence) = self.evidence {
                    namespace.steps.put_evidence(slot, evidence);
                }
            }
        }
        Ok(self.answer)
    }
}

fn push(out: &mut Entries<'_>, entry: &Entry<'_>) {
    let (head, value) = entry.parts();
    out.push(&[&head, value]);
}

/// The entries of a change of configuration, within the namespace's bounds.
fn configuration_entries(
    name: &Id,
    current: Option<&Namespace>,
    change: &ConfigurationChange,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let unknown = || namespace_unknown(name);
    let revision = current.map_or(0, |namespace| namespace.configuration.revision) + 1;
    let mut entries = Vec::new();
    match change {
        ConfigurationChange::Namespace(entry) => {
            let changes = current.map_or(0, |namespace| namespace.changes.latest());
            entries.push(joined(&Entry::Namespace {
                namespace: name,
                revision,
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
                make_room_for_policy(name, namespace, revision, &mut entries)?;
            }
            entries.push(joined(&Entry::Policy {
                namespace: name,
                revision,
                name: policy,
                value: &history.to_bytes()?,
            }));
        }
        ConfigurationChange::Target(target, entry) => {
            let configuration = &current.ok_or_else(unknown)?.configuration;
            if let Some(entry) = entry {
                configuration.check_room_for_target(target, entry)?;
            }
            let value = entry.as_ref().map(TargetEntry::to_bytes).transpose()?.unwrap_or_default();
            entries.push(joined(&Entry::Target {
                namespace: name,
                revision,
                name: target,
                value: &value,
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
    revision: u64,
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
    entries.extend(forgotten.map(|(policy, _)| {
        joined(&Entry::Policy { namespace: name, revision, name: policy, value: &[] })
    }));
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
    /// After the service was away from `last` to `now`. When it went within the
    /// grace after an outage, as `noted`, that one is not over yet.
    fn reopened(noted: Option<(Timestamp, Timestamp)>, last: Timestamp, now: Timestamp) -> Self {
        let before = match noted {
            Some((before, until)) if last < until => before,
            _ => last,
        };
        let outage = (last > Timestamp::EPOCH).then(|| Outage { before, until: now.plus(GRACE) });
        Self { outage, swept_at: now }
    }

    fn now(&self, at: Timestamp) -> Now {
        Now { at, leases: self.outage_at(at).map_or(at, |outage| outage.before) }
    }

    /// The outage whose grace lasts at `at`. Sweeps come several times a second;
    /// a long pause since the latest one is an outage of its own, which whoever
    /// is heard first must not suffer from.
    fn outage_at(&self, at: Timestamp) -> Option<Outage> {
        let lasting = |at| self.outage.filter(|outage| at < outage.until);
        if at - self.swept_at > STALL {
            let before = lasting(self.swept_at).map_or(self.swept_at, |outage| outage.before);
            Some(Outage { before, until: at.plus(GRACE) })
        } else {
            lasting(at)
        }
    }

    fn swept(&mut self, at: Timestamp) {
        self.outage = self.outage_at(at);
        self.swept_at = at;
    }

    /// When a step has to be looked at: after an outage, leases that ended
    /// meanwhile have to wait.
    fn event_at(&self, header: &Header, at: Timestamp) -> Timestamp {
        match self.outage_at(at) {
            Some(outage) if header.is_running && header.event_at > outage.before => {
                header.event_at.max(outage.until)
            }
            _ => header.event_at,
        }
    }
}

impl Embedded {
    /// Makes a snapshot in the background when the log has grown long.
    fn maintain(&self) {
        let Some(log) = &self.0.log else { return };
        let size = log.size();
        if !self.0.wants_snapshot(&size) || self.0.snapshotting.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::clone(&self.0);
        let spawned = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            let was_full = inner.full.load(Ordering::Relaxed);
            let made = inner.snapshot();
            if was_full || made.is_err() {
                inner.snapshot_after_us.store(inner.clock.now().plus(SNAPSHOT_RETRY).as_micros(), Ordering::Relaxed);
            }
            if let Err(error) = made {
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
    fn wants_snapshot(&self, size: &LogSize) -> bool {
        let is_long = size.log_bytes >= SNAPSHOT_MIN.max(size.snapshot_bytes * 2);
        let is_early =
            self.clock.now().as_micros() < self.snapshot_after_us.load(Ordering::Relaxed);
        (is_long || self.full.load(Ordering::Relaxed)) && !is_early
    }

    fn snapshot(&self) -> Result<(), log::SnapshotError> {
        let Some(log) = &self.log else { return Ok(()) };
        let mut writer = log.snapshot_begin()?;
        writer.push(&[&joined(&Entry::Salt(&self.salt.0))])?;
        let outage = self.held().grace.outage;
        if let Some(Outage { before, until }) = outage {
            writer.push(&[&joined(&outage_entry(before, until))])?;
        }
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
        let revision = namespace.configuration.revision;
        // What is held was parsed when it came in, so it can be written again.
        if let Ok(value) = namespace.configuration.namespace.to_bytes() {
            entries.push(joined(&Entry::Namespace {
                namespace: name,
                revision,
                changes: namespace.changes.latest(),
                value: &value,
            }));
        }
        for (policy, history) in &namespace.configuration.policies {
            if let Ok(value) = history.to_bytes() {
                entries.push(joined(&Entry::Policy {
                    namespace: name,
                    revision,
                    name: policy,
                    value: &value,
                }));
            }
        }
        for (target, entry) in &namespace.configuration.targets {
            if let Ok(value) = entry.to_bytes() {
                entries.push(joined(&Entry::Target {
                    namespace: name,
                    revision,
                    name: target,
                    value: &value,
                }));
            }
        }
        for (state, kept) in namespace.book.states() {
            entries.push(joined(&Entry::TargetState {
                namespace: name,
                changes: namespace.booked,
                state,
                value: &charges::pack_state(kept),
            }));
            let health = charges::pack_health(kept);
            if !health.is_empty() {
                entries.push(joined(&Entry::TargetHealth {
                    namespace: name,
                    state,
                    value: &health,
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

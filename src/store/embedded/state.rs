//! Everything the store holds, in memory, and how an entry of the log changes it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use super::{
    super::{
        ChangeEntry, Changes,
        configuration::{
            Configuration, ConfigurationError, NamespaceEntry, PolicyHistory, PolicyRevision,
            TargetEntry,
        },
        copy::Mark,
        pack::Malformed,
        record::{self, RecordError},
    },
    charges,
    entry::{Entry, StepChange},
    steps::Steps,
};
use crate::domain::{
    draw::Salt,
    id::{Id, NotAnId, StepKey},
    limit::{Book, Charge},
    record::PolicyChoice,
    time::Timestamp,
};

/// Changes kept of a namespace for those who follow it.
const CHANGES_KEPT: usize = 4096;

/// Everything the store holds.
#[derive(Debug, Default)]
pub struct State {
    /// What chance is drawn from; None in a store that is just being made.
    pub salt: Option<Salt>,
    /// The namespaces by name.
    pub namespaces: BTreeMap<Id, Namespace>,
    /// The latest outage that was noted: the last instant before it, and the
    /// end of the grace after it.
    pub outage: Option<(Timestamp, Timestamp)>,
    /// What is copied into this store, as long as the copy is not whole.
    pub copying: Option<Mark>,
    /// Namespaces that entries belonged to although none created them. A
    /// snapshot leaves out what is gone when it is made, and entries from before
    /// that are read once more after it; the one that says so must then follow.
    pub orphans: BTreeSet<String>,
}

/// A namespace with its steps.
#[derive(Debug)]
pub struct Namespace {
    /// What governs it.
    pub configuration: Arc<Configuration>,
    /// Policies given inline, by digest.
    pub inline: HashMap<u128, Arc<PolicyRevision>>,
    /// Its steps.
    pub steps: Steps,
    /// Its latest changes.
    pub changes: ChangeLog,
    /// What its targets have granted, promised and spent.
    pub book: Book,
    /// The change that it is of.
    pub booked: u64,
    /// How many states of targets it takes to look which are of no use any more.
    pub book_forgotten_at: usize,
}

/// The latest changes of a namespace, numbered densely.
#[derive(Debug, Default)]
pub struct ChangeLog {
    /// Number of the latest one.
    latest: u64,
    entries: VecDeque<ChangeEntry>,
}

/// Why an entry of the log could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Not an entry.
    #[error("an entry is not in the form of this version")]
    Malformed,
    /// A record that cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A configuration that cannot be read.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
}

impl From<Malformed> for ApplyError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<NotAnId> for ApplyError {
    fn from(_: NotAnId) -> Self {
        Self::Malformed
    }
}

impl Namespace {
    fn new(entry: NamespaceEntry) -> Self {
        Self {
            configuration: Arc::new(Configuration::new(entry)),
            inline: HashMap::new(),
            steps: Steps::default(),
            changes: ChangeLog::default(),
            book: Book::default(),
            booked: 0,
            book_forgotten_at: 0,
        }
    }

    /// Replaces a part of the configuration.
    fn reconfigure(&mut self, revision: u64, change: impl FnOnce(&mut Configuration)) {
        let mut configuration = Configuration::clone(&self.configuration);
        configuration.revision = revision;
        change(&mut configuration);
        self.configuration = Arc::new(configuration);
    }

    /// The policies that records refer to.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn policies_in_use(&self) -> Result<HashSet<PolicyChoice>, RecordError> {
        let numbers = 0..u32::try_from(self.steps.slots()).unwrap_or(u32::MAX);
        let slots = numbers.filter_map(|number| self.steps.slot(number));
        slots.map(|slot| record::decode(&slot.value).map(|record| record.policy)).collect()
    }
}

impl ChangeLog {
    /// Number of the latest change.
    #[must_use]
    pub const fn latest(&self) -> u64 {
        self.latest
    }

    /// Number and time of a change at `at`: time never goes back in the log.
    #[must_use]
    pub fn next(&self, at: Timestamp) -> (u64, Timestamp) {
        let skipped = u64::from(planted!("change-number-skipped"));
        (self.latest + 1 + skipped, self.entries.back().map_or(at, |entry| entry.at.max(at)))
    }

    fn note(&mut self, entry: ChangeEntry) {
        self.latest = entry.number;
        if self.entries.len() == CHANGES_KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// The changes after number `after`, at most `limit`.
    #[must_use]
    pub fn after(&self, after: u64, limit: usize) -> Changes {
        let oldest = self.latest - self.entries.len() as u64;
        if after < oldest || after > self.latest {
            return Changes::Gap(oldest);
        }
        let skip = usize::try_from(after - oldest).unwrap_or(usize::MAX);
        Changes::Follow(self.entries.iter().skip(skip).take(limit).cloned().collect())
    }
}

impl State {
    /// Applies one entry.
    ///
    /// # Errors
    /// When it is not one that this version writes.
    pub fn apply(&mut self, entry: &[u8]) -> Result<(), ApplyError> {
        match Entry::read(entry)? {
            Entry::Salt(salt) => {
                self.salt = Some(Salt(salt.try_into().map_err(|_| ApplyError::Malformed)?))
            }
            Entry::Outage { before_us, until_us } => {
                self.outage =
                    Some((Timestamp::from_micros(before_us), Timestamp::from_micros(until_us)));
            }
            Entry::Copying(mark) => self.copying = Mark::from_bytes(mark)?,
            Entry::Namespace { namespace, revision, changes, value } => {
                self.apply_namespace(namespace, revision, changes, value)?
            }
            Entry::NamespaceGone { namespace } => {
                self.namespaces.remove(namespace);
                self.orphans.remove(namespace);
            }
            Entry::Policy { namespace, revision, name, value } => {
                let history =
                    if value.is_empty() { None } else { Some(PolicyHistory::from_bytes(value)?) };
                let name = name.parse()?;
                if let Some(namespace) = self.namespace(namespace) {
                    namespace.put_policy(revision, name, history);
                }
            }
            Entry::Target { namespace, revision, name, value } => {
                let target =
                    if value.is_empty() { None } else { Some(TargetEntry::from_bytes(value)?) };
                let name = name.parse()?;
                if let Some(namespace) = self.namespace(namespace) {
                    namespace.reconfigure(revision, |configuration| {
                        configuration.put_target(name, target)
                    });
                }
            }
            Entry::Inline { namespace, digest, value } => {
                let revision = if value.is_empty() {
                    None
                } else {
                    Some(Arc::new(PolicyRevision::inline_from_bytes(value)?))
                };
                if let Some(namespace) = self.namespace(namespace) {
                    namespace.put_inline(digest, revision);
                }
            }
            Entry::Step { step, value } => {
                if let Some(namespace) = self.namespace(step.namespace) {
                    namespace.apply_step(step, value)?;
                }
            }
            Entry::Charges { step, value } => {
                let charged = charges::unpack(value)?;
                if let Some(namespace) = self.namespace(step.namespace) {
                    namespace.charge(&step, &charged);
                }
            }
            Entry::TargetState { namespace, changes, state, value } => {
                let kept = charges::unpack_state(value)?;
                if let Some(namespace) = self.namespace(namespace) {
                    namespace.book.put(state.into(), kept);
                    namespace.booked = namespace.booked.max(changes);
                }
            }
            Entry::TargetHealth { namespace, state, value } => {
                let (parked, breaker) = charges::unpack_health(value)?;
                if let Some(namespace) = self.namespace(namespace) {
                    namespace.book.put_health(state, parked, breaker);
                }
            }
            Entry::Lift { namespace, changes, at_us, state } => {
                // A snapshot of a later change has it already.
                if let Some(namespace) = self.namespace(namespace)
                    && namespace.booked <= changes
                {
                    namespace.book.lift(state, Timestamp::from_micros(at_us));
                }
            }
            Entry::Evidence { namespace, joined, value } => {
                let key = StepKey::split(namespace, joined).ok_or(ApplyError::Malformed)?;
                if let Some(namespace) = self.namespace(namespace) {
                    namespace.put_evidence(&key, value);
                }
            }
        }
        Ok(())
    }

    fn namespace(&mut self, name: &str) -> Option<&mut Namespace> {
        let namespace = self.namespaces.get_mut(name);
        if namespace.is_none() {
            self.orphans.insert(name.to_owned());
        }
        namespace
    }

    fn apply_namespace(
        &mut self,
        name: &str,
        revision: u64,
        changes: u64,
        value: &[u8],
    ) -> Result<(), ApplyError> {
        let entry = NamespaceEntry::from_bytes(value)?;
        let namespace = match self.namespaces.get_mut(name) {
            Some(namespace) => namespace,
            None => self.namespaces.entry(name.parse()?).or_insert(Namespace::new(entry.clone())),
        };
        namespace.reconfigure(revision, |configuration| configuration.namespace = entry);
        namespace.changes.latest = namespace.changes.latest.max(changes);
        Ok(())
    }
}

impl Namespace {
    /// Creates, replaces or forgets a policy.
    fn put_policy(&mut self, revision: u64, name: Id, history: Option<PolicyHistory>) {
        self.reconfigure(revision, |configuration| {
            match history {
                Some(history) => configuration.policies.insert(name, history),
                None => configuration.policies.remove(&name),
            };
        });
    }

    fn put_inline(&mut self, digest: u128, revision: Option<Arc<PolicyRevision>>) {
        match revision {
            Some(revision) => self.inline.insert(digest, revision),
            None => self.inline.remove(&digest),
        };
    }

    /// Charges to targets what a change of a step does, once.
    pub fn charge(&mut self, step: &StepChange<'_>, charges: &[Charge]) {
        if step.number <= self.booked {
            return;
        }
        self.booked = step.number;
        for charge in charges {
            self.book.charge(step.joined, charge, Timestamp::from_micros(step.at_us));
        }
    }

    fn apply_step(&mut self, step: StepChange<'_>, value: &[u8]) -> Result<(), ApplyError> {
        let key = StepKey::split(step.namespace, step.joined).ok_or(ApplyError::Malformed)?;
        let noted = (step.number > 0).then(|| (step.number, Timestamp::from_micros(step.at_us)));
        if value.is_empty() {
            self.forget_step(&key, noted);
        } else {
            let found = self.steps.find(&key).map(|(number, _)| number);
            self.put_step(&key, found, value.into(), noted)?;
        }
        Ok(())
    }

    /// Creates or replaces a step, `found` being its slot. Notes the change
    /// under the number and time that it has. Returns the slot.
    ///
    /// # Errors
    /// When the record's header cannot be read; nothing is changed then.
    pub fn put_step(
        &mut self,
        key: &StepKey<'_>,
        found: Option<u32>,
        value: Box<[u8]>,
        noted: Option<(u64, Timestamp)>,
    ) -> Result<u32, RecordError> {
        let version = record::Header::read(&value)?.version;
        let (slot, joined) = self.steps.put(key, found, value)?;
        if let Some((number, at)) = noted {
            self.changes.note(ChangeEntry { number, at, joined, version });
        }
        Ok(slot)
    }

    /// Forgets a step, and notes the change.
    pub fn forget_step(&mut self, key: &StepKey<'_>, noted: Option<(u64, Timestamp)>) {
        let joined = self.steps.remove(key);
        if let Some((number, at)) = noted {
            let joined = joined.unwrap_or_else(|| key.joined().into());
            self.changes.note(ChangeEntry { number, at, joined, version: 0 });
        }
    }

    fn put_evidence(&mut self, key: &StepKey<'_>, value: &[u8]) {
        if let Some(number) = self.steps.find(key).map(|(number, _)| number) {
            self.steps.put_evidence(number, value.into());
        }
    }
}

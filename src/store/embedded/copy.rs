//! The embedded store as the source or the target of a copy.
//!
//! Whoever has a directory open is alone with it: that closes a source, and
//! keeps servers from a target. The mark of a target that is not whole stands in
//! its log, so a server refuses it afterwards as well.

use std::{path::Path, sync::Arc};

use super::{
    super::{
        StepPage, StoreError,
        copy::{
            CopyError, Export, Kept, Mark, Page, Released, Source, StoredNamespace, StoredStep,
            Target,
        },
        record::{self, Header},
    },
    Embedded, EmbeddedError, EmbeddedOptions, GRACE, Inner, SLICE,
    entry::{Entry, StepChange},
    joined,
    log::Growth,
    namespace, outage_entry,
    state::Namespace,
    steps::Steps,
};
use super::{Appended, Room, apply_error};
use crate::{
    clock::Clock,
    domain::{draw::Salt, id::Id, namespace::DEFAULT_NAMESPACE, record::Evidence, time::Timestamp},
};

/// Bytes of an append, about: well below the largest that a log takes.
const APPEND: usize = 1 << 20;

impl Inner {
    /// Appends and applies entries, in one hold of the lock.
    fn write(&self, entries: &[Vec<u8>]) -> Result<Appended<()>, StoreError> {
        let mut held = self.held();
        let room = self
            .append(Growth::Granting, |out| entries.iter().for_each(|entry| out.push(&[entry])))?;
        let Room::Taken(position) = room else { return Ok(Appended::NoRoomYet) };
        held.latest = position.or(held.latest);
        for entry in entries {
            held.state.apply(entry).map_err(|error| apply_error(&error))?;
        }
        Ok(Appended::Done((), position))
    }

    /// Writes entries in appends that the log takes, and waits until they are
    /// durable.
    async fn written(&self, entries: &[Vec<u8>]) -> Result<(), StoreError> {
        for entries in appends(entries) {
            loop {
                let appended = self.write(entries)?;
                if self.acknowledged(appended, Growth::Granting).await?.is_some() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Entries in pieces of about [`APPEND`] bytes.
fn appends(entries: &[Vec<u8>]) -> impl Iterator<Item = &[Vec<u8>]> {
    let mut bytes = 0;
    entries.chunk_by(move |before, _| {
        bytes += before.len();
        let fits = bytes < APPEND;
        if !fits {
            bytes = 0;
        }
        fits
    })
}

impl Export for Embedded {
    async fn namespace(&self, name: &Id) -> Result<StoredNamespace, StoreError> {
        let held = self.0.held();
        let namespace = namespace(&held.state, name)?;
        Ok(StoredNamespace {
            name: name.clone(),
            configuration: Arc::clone(&namespace.configuration),
            inline: namespace.inline.values().cloned().collect(),
            changes: namespace.changes.latest(),
            heard_at: held.grace.now(self.0.clock.now()).leases,
        })
    }

    async fn steps(&self, name: &Id, from: u64) -> Result<Page, StoreError> {
        let held = self.0.held();
        let steps = &namespace(&held.state, name)?.steps;
        let first = usize::try_from(from).unwrap_or(usize::MAX);
        if first >= steps.slots() {
            return Ok(Page::default());
        }
        let last = steps.slots().min(first + SLICE);
        let mut page = Page { steps: Vec::new(), next: Some(last as u64) };
        for number in (first..last).filter_map(|number| u32::try_from(number).ok()) {
            let Some(slot) = steps.slot(number) else { continue };
            let step = stored(&slot.joined, &slot.value, steps.evidence(number));
            page.steps.push(step.map_err(|source| StoreError::Unreadable {
                key: format!("{name} {}", slot.joined),
                source,
            })?);
        }
        Ok(page)
    }
}

/// Steps from a slot on. A step keeps its slot as long as it is there.
pub(super) fn page(
    name: &str,
    steps: &Steps,
    from: u64,
    limit: usize,
) -> Result<StepPage, StoreError> {
    let first = usize::try_from(from).unwrap_or(usize::MAX).min(steps.slots());
    let last = steps.slots().min(first.saturating_add(limit.max(1)));
    let mut page = StepPage::default();
    for slot in (first..last).filter_map(|at| steps.slot(u32::try_from(at).ok()?)) {
        let record = record::decode(&slot.value).map_err(|source| StoreError::Unreadable {
            key: format!("{name} {}", slot.joined),
            source,
        })?;
        page.steps.push((Arc::clone(&slot.joined), record));
    }
    page.next = (last < steps.slots()).then_some(last as u64);
    Ok(page)
}

/// A step as it is kept.
fn stored(
    joined: &Arc<str>,
    value: &[u8],
    evidence: Option<&[u8]>,
) -> Result<StoredStep, record::RecordError> {
    Ok(StoredStep {
        joined: Arc::clone(joined),
        record: record::decode(value)?,
        event_at: Header::read(value)?.event_at,
        evidence: evidence.map_or_else(|| Ok(Evidence::default()), record::decode_evidence)?,
    })
}

impl Embedded {
    /// Whether `dir` holds a store.
    #[must_use]
    pub fn is_in(dir: &Path) -> bool {
        let Ok(files) = std::fs::read_dir(dir) else { return false };
        let is_data = |file: std::fs::DirEntry| {
            file.path().extension().is_some_and(|ending| ending == "log" || ending == "snapshot")
        };
        files.filter_map(Result::ok).any(is_data)
    }

    fn names(&self) -> Vec<Id> {
        self.0.held().state.namespaces.keys().cloned().collect()
    }
}

impl Source for Embedded {
    fn salt(&self) -> Salt {
        self.0.salt
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.0.clock.now())
    }

    /// It is closed as long as this process has it.
    async fn close(&mut self) -> Result<Vec<Id>, CopyError> {
        Ok(self.names())
    }

    async fn keep(&mut self, _kept: Kept) -> Result<(), CopyError> {
        Ok(())
    }

    async fn release(&mut self) -> Result<Released, CopyError> {
        Ok(Released::AtRest)
    }
}

/// A directory that is filled.
pub struct EmbeddedTarget {
    options: EmbeddedOptions,
    clock: Clock,
    /// None for a moment, while it is opened again.
    store: Option<Embedded>,
}

impl EmbeddedTarget {
    /// Opens a directory that is to be filled, made when absent. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// See [`EmbeddedError`].
    pub fn open(options: EmbeddedOptions, clock: Clock) -> Result<Self, EmbeddedError> {
        let store = Embedded::open_any(&options, clock.clone())?;
        Ok(Self { options, clock, store: Some(store) })
    }

    fn store(&self) -> Result<&Embedded, StoreError> {
        let closed = || StoreError::Unavailable("it did not open again".to_owned());
        self.store.as_ref().ok_or_else(closed)
    }

    async fn written(&self, entries: &[Vec<u8>]) -> Result<(), StoreError> {
        self.store()?.0.written(entries).await
    }

    /// Why it cannot be filled: what is in it.
    fn objection(&self, mark: &Mark) -> Result<Option<String>, StoreError> {
        let held = self.store()?.0.held();
        match &held.state.copying {
            Some(other) if other.salt != mark.salt => return Ok(Some(other.to_string())),
            Some(_) => return Ok(None),
            None => {}
        }
        let mut used = held
            .state
            .namespaces
            .iter()
            .filter(|(name, namespace)| ***name != *DEFAULT_NAMESPACE || !is_new(namespace));
        Ok(used.next().map(|(name, namespace)| {
            let steps = namespace.steps.len();
            format!("it holds namespace {name} with {steps} steps; a copy needs a new store")
        }))
    }
}

fn is_new(namespace: &Namespace) -> bool {
    namespace.changes.latest() == 0
        && namespace.steps.is_empty()
        && namespace.configuration.is_new()
}

impl Export for EmbeddedTarget {
    async fn namespace(&self, name: &Id) -> Result<StoredNamespace, StoreError> {
        self.store()?.namespace(name).await
    }

    async fn steps(&self, name: &Id, from: u64) -> Result<Page, StoreError> {
        self.store()?.steps(name, from).await
    }
}

impl Target for EmbeddedTarget {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.store()?.0.clock.now())
    }

    async fn begin(&mut self, mark: &Mark) -> Result<(), CopyError> {
        if let Some(what) = self.objection(mark).map_err(CopyError::Target)? {
            return Err(CopyError::TargetInUse(what));
        }
        let mut entries = vec![joined(&Entry::Copying(&mark.to_bytes()))];
        let names = self.store().map_err(CopyError::Target)?.names();
        entries.extend(names.iter().map(|name| joined(&Entry::NamespaceGone { namespace: name })));
        entries.push(joined(&Entry::Salt(&mark.salt.0)));
        self.written(&entries).await.map_err(CopyError::Target)
    }

    async fn found(&mut self, namespace: &StoredNamespace) -> Result<(), StoreError> {
        let StoredNamespace { name, configuration, inline, changes, .. } = namespace;
        let revision = configuration.revision;
        let mut entries = vec![joined(&Entry::Namespace {
            namespace: name,
            revision,
            changes: *changes,
            value: &configuration.namespace.to_bytes()?,
        })];
        for (policy, history) in &configuration.policies {
            let value = history.to_bytes()?;
            let entry = Entry::Policy { namespace: name, revision, name: policy, value: &value };
            entries.push(joined(&entry));
        }
        for (target, entry) in &configuration.targets {
            let value = entry.to_bytes()?;
            let entry = Entry::Target { namespace: name, revision, name: target, value: &value };
            entries.push(joined(&entry));
        }
        for revision in inline {
            let value = revision.spec_bytes()?;
            let entry = Entry::Inline { namespace: name, digest: revision.digest, value: &value };
            entries.push(joined(&entry));
        }
        self.written(&entries).await
    }

    async fn put(&mut self, name: &Id, steps: &[StoredStep]) -> Result<(), StoreError> {
        let mut entries = Vec::with_capacity(steps.len());
        for StoredStep { joined: step_name, record, event_at, evidence } in steps {
            let step = StepChange { namespace: name, joined: step_name, number: 0, at_us: 0 };
            let value = record::encode(record, *event_at);
            entries.push(joined(&Entry::Step { step, value: &value }));
            if !evidence.failures.is_empty() {
                let value = record::encode_evidence(evidence);
                let entry = Entry::Evidence { namespace: name, joined: step_name, value: &value };
                entries.push(joined(&entry));
            }
        }
        self.written(&entries).await
    }

    /// Opened again: what is then there was read from the disk.
    async fn reread(&mut self) -> Result<Vec<Id>, CopyError> {
        self.store = None;
        let opened = Embedded::open_any(&self.options, self.clock.clone());
        let store = opened.map_err(|error| CopyError::Differs(error.to_string()))?;
        let names = store.names();
        self.store = Some(store);
        Ok(names)
    }

    async fn open(&mut self, heard_at: Timestamp) -> Result<(), CopyError> {
        // Until it is opened the next time nobody is heard.
        let now = self.now().await.map_err(CopyError::Target)?;
        let entries = [outage_entry(heard_at.min(now), now.plus(GRACE)), Entry::Copying(&[])];
        self.written(&entries.map(|entry| joined(&entry))).await.map_err(CopyError::Target)
    }
}

//! Moving house: everything of one store into another, whatever their kinds.
//!
//! The source is closed first, so that nothing changes behind the copy: an
//! embedded store by its lock, Redis by pausing its namespaces under a lease.
//! What is read is told by the target's time ([`Shift`]) and written in pages.
//! Then the target is read back and compared, and only a target that is equal
//! is opened. Until then it carries a [`Mark`], and no server takes it. A copy
//! that was interrupted begins anew: its source may have gone on meanwhile.

use std::{fmt, future::Future, sync::Arc};

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::{
    StoreError,
    configuration::{Configuration, ConfigurationError, PolicyHistory, PolicyRevision},
    pack::Malformed,
    record,
};
use crate::domain::{
    draw::Salt,
    id::Id,
    limit::pause::{Interval, Stood},
    record::{Evidence, Record},
    shift::Shift,
    time::Timestamp,
};

/// Steps in a page, about.
pub const PAGE: usize = 256;

/// What a target carries as long as it is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The salt of the source, which tells it from every other store.
    pub salt: Salt,
    /// Where the source was, in words.
    pub source: String,
}

impl Mark {
    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.salt.0.to_vec();
        bytes.extend(self.source.as_bytes());
        bytes
    }

    /// Reads the stored form; nothing is no mark.
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let (salt, source) = bytes.split_first_chunk().ok_or(Malformed)?;
        let source = String::from_utf8(source.to_vec()).map_err(|_| Malformed)?;
        Ok(Some(Self { salt: Salt(*salt), source }))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, .. } = self;
        write!(f, "it is the target of a copy of {source} that is not whole; run the copy again")
    }
}

/// What governs a namespace, and where it stands.
#[derive(Clone, Debug)]
pub struct StoredNamespace {
    /// Its name.
    pub name: Id,
    /// What governs it.
    pub configuration: Arc<Configuration>,
    /// Policies given inline.
    pub inline: Vec<Arc<PolicyRevision>>,
    /// Number of its latest change.
    pub changes: u64,
    /// Until when its workers were heard: leases are judged as of then for a
    /// while, once the store is open again.
    pub heard_at: Timestamp,
}

/// A step with everything that is kept of it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredStep {
    /// Run and step, as [`crate::domain::id::StepKey::joined`].
    pub joined: Arc<str>,
    /// Its record.
    pub record: Record,
    /// When something happens next.
    pub event_at: Timestamp,
    /// The texts of its failures.
    pub evidence: Evidence,
}

/// Some steps.
#[derive(Debug, Default)]
pub struct Page {
    /// These.
    pub steps: Vec<StoredStep>,
    /// Where to read on; None behind the last.
    pub next: Option<u64>,
}

/// A store that is read from one end to the other.
pub trait Export {
    /// What is said of a namespace.
    ///
    /// # Errors
    /// The store is away, or what is there cannot be read.
    fn namespace(&self, name: &Id) -> impl Future<Output = Result<StoredNamespace, StoreError>>;

    /// About [`PAGE`] steps of a namespace, from 0 or where a page said.
    ///
    /// # Errors
    /// As above.
    fn steps(&self, name: &Id, from: u64) -> impl Future<Output = Result<Page, StoreError>>;
}

/// A store that is copied.
pub trait Source: Export {
    /// What its chance is drawn from.
    fn salt(&self) -> Salt;

    /// Its time.
    ///
    /// # Errors
    /// The store is away.
    fn now(&self) -> impl Future<Output = Result<Timestamp, StoreError>>;

    /// Sees to it that nothing changes, and says which namespaces there are.
    ///
    /// # Errors
    /// [`CopyError::SourceInUse`], or the store is away.
    fn close(&mut self) -> impl Future<Output = Result<Vec<Id>, CopyError>>;

    /// Sees to it that nothing changes further on. After an error something
    /// may have.
    ///
    /// # Errors
    /// [`CopyError::SourceWentOn`], or the store is away.
    fn keep(&mut self, kept: Kept) -> impl Future<Output = Result<(), CopyError>>;

    /// Lets it go on.
    ///
    /// # Errors
    /// The store is away; it goes on by itself then, a little later.
    fn release(&mut self) -> impl Future<Output = Result<Released, CopyError>>;
}

/// How sure it has to be that nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Now and then is enough.
    InPassing,
    /// Up to now, for certain.
    ForCertain,
}

/// Where a source is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It takes changes again, if servers are there.
    GoesOn,
    /// An operator had it paused, and it stays so.
    StaysPaused,
    /// No server has it.
    AtRest,
}

/// A store that is filled.
pub trait Target: Export {
    /// Its time.
    ///
    /// # Errors
    /// The store is away.
    fn now(&self) -> impl Future<Output = Result<Timestamp, StoreError>>;

    /// Puts the mark up and clears away what an earlier try left.
    ///
    /// # Errors
    /// [`CopyError::TargetInUse`], or the store is away.
    fn begin(&mut self, mark: &Mark) -> impl Future<Output = Result<(), CopyError>>;

    /// Founds a namespace.
    ///
    /// # Errors
    /// The store is away or full.
    fn found(
        &mut self,
        namespace: &StoredNamespace,
    ) -> impl Future<Output = Result<(), StoreError>>;

    /// Puts steps into a namespace that was founded.
    ///
    /// # Errors
    /// The store is away or full.
    fn put(
        &mut self,
        name: &Id,
        steps: &[StoredStep],
    ) -> impl Future<Output = Result<(), StoreError>>;

    /// Makes sure that what is read back is what is kept, and says which
    /// namespaces there are.
    ///
    /// # Errors
    /// The store is away, or does not open again.
    fn reread(&mut self) -> impl Future<Output = Result<Vec<Id>, CopyError>>;

    /// Takes the mark down. Leases are judged as of `heard_at` for a while.
    ///
    /// # Errors
    /// The store is away.
    fn open(&mut self, heard_at: Timestamp) -> impl Future<Output = Result<(), CopyError>>;
}

/// Why a copy was not made. The source is as it was; the target is not whole,
/// carries its mark, and the same copy may be run again.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Somebody else has the source.
    #[error("the source is in use: {0}")]
    SourceInUse(String),
    /// The source was changed while it was copied.
    #[error("the source went on before the copy was whole: {0}")]
    SourceWentOn(String),
    /// The source could not be read.
    #[error("the source could not be read")]
    Source(#[source] StoreError),
    /// There is something in the target already, or somebody has it.
    #[error("the target is in use: {0}")]
    TargetInUse(String),
    /// The target could not be written.
    #[error("the target could not be written")]
    Target(#[source] StoreError),
    /// What was read back is not what was written.
    #[error("the target differs from what was copied: {0}")]
    Differs(String),
}

impl From<ConfigurationError> for CopyError {
    fn from(error: ConfigurationError) -> Self {
        Self::Source(error.into())
    }
}

/// What a copy tells on its way.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// So many steps of a namespace are written.
    Copied(&'a Id, u64),
    /// So many steps of a namespace were read back.
    ReadBack(&'a Id, u64),
}

/// A copy that was made.
#[derive(Clone, Debug)]
pub struct Copied {
    /// By how much every instant was moved.
    pub shift: Shift,
    /// The namespaces with what is in them.
    pub namespaces: Vec<(Id, Tally)>,
    /// Where the source is left.
    pub source: Released,
}

/// How much is in a namespace, and what: equal digests are equal contents, in
/// whatever order they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Steps, those that are over included.
    pub steps: u64,
    /// Steps that are not over.
    pub live_steps: u64,
    /// Texts of failures.
    pub texts: u64,
    /// Policies by name.
    pub policies: u64,
    /// Policies given inline.
    pub inline: u64,
    /// Of all of it.
    pub digest: u128,
}

impl Tally {
    /// The tally of a namespace without steps.
    ///
    /// # Errors
    /// Never for a configuration that was parsed.
    pub fn of(namespace: &StoredNamespace) -> Result<Self, ConfigurationError> {
        let StoredNamespace { name, configuration, inline, changes, .. } = namespace;
        let Configuration { revision, namespace: entry, policies, targets } = &**configuration;
        let mut tally = Self {
            policies: policies.len() as u64,
            inline: inline.len() as u64,
            ..Self::default()
        };
        let numbers = [revision.to_le_bytes(), changes.to_le_bytes()].concat();
        tally.add(&[b"namespace", name.as_bytes(), &numbers, &entry.to_bytes()?]);
        for (policy, history) in policies {
            tally.add(&[b"policy", policy.as_bytes(), &history.to_bytes()?]);
        }
        for (target, entry) in targets {
            tally.add(&[b"target", target.as_bytes(), &entry.to_bytes()?]);
        }
        for revision in inline {
            tally.add(&[b"inline", &revision.digest.to_le_bytes(), &revision.spec_bytes()?]);
        }
        Ok(tally)
    }

    /// Counts a step.
    pub fn count(&mut self, step: &StoredStep) {
        self.steps += 1;
        self.live_steps += u64::from(!step.record.is_over());
        self.texts += step.evidence.failures.len() as u64;
        let record = record::encode(&step.record, step.event_at);
        let evidence = record::encode_evidence(&step.evidence);
        self.add(&[b"step", step.joined.as_bytes(), &record, &evidence]);
    }

    fn add(&mut self, parts: &[&[u8]]) {
        let mut hasher = SipHasher13::new_with_key(b"reprise.v1 copy.");
        for part in parts {
            std::hash::Hasher::write(&mut hasher, &(part.len() as u64).to_le_bytes());
            std::hash::Hasher::write(&mut hasher, part);
        }
        self.digest = self.digest.wrapping_add(hasher.finish128().as_u128());
    }
}

impl StoredNamespace {
    /// The same by another clock.
    fn shifted(self, shift: Shift) -> Result<Self, CopyError> {
        let mut configuration = Configuration::clone(&self.configuration);
        let moved = |micros| shift.instant(Timestamp::from_micros(micros)).as_micros();
        let entry = &mut configuration.namespace;
        entry.created_us = moved(entry.created_us);
        entry.updated_us = moved(entry.updated_us);
        for history in configuration.policies.values_mut() {
            *history = shifted(history, shift)?;
        }
        for entry in configuration.targets.values_mut() {
            entry.updated_at = shift.instant(entry.updated_at);
            if let Some(pause) = &mut entry.pause {
                pause.since = shift.instant(pause.since);
                pause.until = pause.until.map(|until| shift.instant(until));
            }
            let moved = |span: Interval| Interval {
                since: shift.instant(span.since),
                until: shift.instant(span.until),
            };
            entry.stood = Stood::of(entry.stood.iter().map(moved));
            if let Some(forced) = &mut entry.forced {
                forced.since = shift.instant(forced.since);
                forced.until = shift.instant(forced.until);
            }
        }
        let heard_at = shift.instant(self.heard_at);
        Ok(Self { configuration: Arc::new(configuration), heard_at, ..self })
    }
}

fn shifted(history: &PolicyHistory, shift: Shift) -> Result<PolicyHistory, CopyError> {
    let revision = |revision: &Arc<PolicyRevision>| {
        let updated_at = shift.instant(revision.updated_at);
        let parsed = PolicyRevision::parse(revision.spec.clone(), revision.number, updated_at);
        parsed.map(Arc::new).map_err(ConfigurationError::from)
    };
    let revisions = history.revisions.iter().map(revision).collect::<Result<_, _>>()?;
    Ok(PolicyHistory { revisions, deleted: history.deleted })
}

impl StoredStep {
    /// The same by another clock.
    #[must_use]
    pub fn shifted(self, shift: Shift) -> Self {
        let (record, event_at) = (shift.record(self.record), shift.instant(self.event_at));
        Self { record, event_at, ..self }
    }
}

/// Copies everything of `source`, which is called so, into `target`.
///
/// # Errors
/// See [`CopyError`].
pub async fn copy(
    source: &mut impl Source,
    called: &str,
    target: &mut impl Target,
    mut tell: impl FnMut(Told<'_>),
) -> Result<Copied, CopyError> {
    let made = match source.close().await {
        Ok(names) => fill(source, called, target, names, &mut tell).await,
        Err(error) => Err(error),
    };
    let released = source.release().await;
    let Filled { shift, namespaces } = made?;
    Ok(Copied { shift, namespaces, source: released? })
}

struct Filled {
    shift: Shift,
    namespaces: Vec<(Id, Tally)>,
}

async fn fill(
    source: &mut impl Source,
    called: &str,
    target: &mut impl Target,
    names: Vec<Id>,
    tell: &mut impl FnMut(Told<'_>),
) -> Result<Filled, CopyError> {
    let mark = Mark { salt: source.salt(), source: called.to_owned() };
    target.begin(&mark).await?;
    let from = source.now().await.map_err(CopyError::Source)?;
    let shift = Shift::between(from, target.now().await.map_err(CopyError::Target)?);

    let (mut namespaces, mut heard_at) = (Vec::new(), Timestamp::NEVER);
    let mut waiting = names;
    while !waiting.is_empty() {
        for name in waiting {
            let (tally, heard) = filled(source, target, &name, shift, tell).await?;
            heard_at = heard_at.min(heard);
            namespaces.push((name, tally));
        }
        // Some may have been created meanwhile.
        waiting = source.close().await?;
        waiting.retain(|name| namespaces.iter().all(|(known, _)| known != name));
    }
    compare(source, target, &namespaces, tell).await?;
    source.keep(Kept::ForCertain).await?;
    target.open(heard_at).await?;
    Ok(Filled { shift, namespaces })
}

/// Fills one namespace. What was written, and until when workers were heard.
async fn filled(
    source: &mut impl Source,
    target: &mut impl Target,
    name: &Id,
    shift: Shift,
    tell: &mut impl FnMut(Told<'_>),
) -> Result<(Tally, Timestamp), CopyError> {
    let namespace = source.namespace(name).await.map_err(CopyError::Source)?.shifted(shift)?;
    let mut tally = Tally::of(&namespace)?;
    target.found(&namespace).await.map_err(CopyError::Target)?;
    let mut next = Some(0);
    while let Some(from) = next {
        let page = source.steps(name, from).await.map_err(CopyError::Source)?;
        next = page.next;
        let steps: Vec<_> = page.steps.into_iter().map(|step| step.shifted(shift)).collect();
        steps.iter().for_each(|step| tally.count(step));
        target.put(name, &steps).await.map_err(CopyError::Target)?;
        source.keep(Kept::InPassing).await?;
        tell(Told::Copied(name, tally.steps));
    }
    Ok((tally, namespace.heard_at))
}

/// Reads the target back and compares it with what was written.
async fn compare(
    source: &mut impl Source,
    target: &mut impl Target,
    namespaces: &[(Id, Tally)],
    tell: &mut impl FnMut(Told<'_>),
) -> Result<(), CopyError> {
    let mut found = target.reread().await?;
    found.retain(|name| namespaces.iter().all(|(known, _)| known != name));
    if let Some(name) = found.first() {
        return Err(CopyError::Differs(format!("it has a namespace {name} more")));
    }
    for (name, written) in namespaces {
        let namespace = target.namespace(name).await.map_err(CopyError::Target)?;
        let mut tally = Tally::of(&namespace)?;
        let mut next = Some(0);
        while let Some(from) = next {
            let page = target.steps(name, from).await.map_err(CopyError::Target)?;
            next = page.next;
            page.steps.iter().for_each(|step| tally.count(step));
            source.keep(Kept::InPassing).await?;
            tell(Told::ReadBack(name, tally.steps));
        }
        if tally != *written && !planted!("copy-not-compared") {
            return Err(CopyError::Differs(difference(name, written, &tally)));
        }
    }
    Ok(())
}

fn difference(name: &Id, written: &Tally, found: &Tally) -> String {
    let Tally { steps, digest, .. } = written;
    format!(
        "namespace {name} has {} of {steps} steps and digest {:032x} instead of {digest:032x}",
        found.steps, found.digest
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mark = Mark { salt: Salt([7; 16]), source: "embedded:/data".to_owned() };
        assert_eq!(Mark::from_bytes(&mark.to_bytes()), Ok(Some(mark)));
        assert_eq!(Mark::from_bytes(&[]), Ok(None));
        assert_eq!(Mark::from_bytes(&[1; 10]), Err(Malformed));
    }
}

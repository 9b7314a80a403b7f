//! What operators wrote: namespaces, their settings, policies and targets.
//!
//! It lives in the store, beside what it governs, so that a sweep can decide
//! without a worker and every instance obeys one truth.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, LazyLock},
};

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::StoreError;
use crate::domain::{
    id::Id,
    limit::{
        Bound, Episodes, Forced, ForcedState, Pause, Rate, Target,
        breaker::Freed,
        pause::{Interval, Stood},
        spec::TargetSpec,
    },
    namespace::Settings,
    policy::{
        Policy, Violations,
        spec::{BackoffSpec, ExponentialSpec, JitterSpec, PolicySpec},
    },
    record::PolicyChoice,
    time::{Span, Timestamp},
};

/// Revisions kept of a policy.
pub const REVISIONS_KEPT: usize = 32;
/// Policies at most in a namespace, deleted ones that steps use included.
pub const POLICIES_MAX: usize = 1000;
/// Targets at most in a namespace.
pub const TARGETS_MAX: usize = 1000;
/// Targets at most that every step of a namespace calls.
pub const EVERY_STEP_MAX: usize = 16;
/// Policies given inline that are remembered at most in a namespace.
pub const INLINE_MAX: usize = 1000;

/// A namespace with everything that governs it. Replaced as a whole.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Grows by one with every change of anything in it.
    pub revision: u64,
    /// The namespace's own part.
    pub namespace: NamespaceEntry,
    /// Its policies by name, deleted ones that steps may use included.
    pub policies: BTreeMap<Id, PolicyHistory>,
    /// What its targets allow, by name.
    pub targets: BTreeMap<Id, TargetEntry>,
}

/// The stored form of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceEntry {
    /// Defaults, ceilings, retention.
    pub settings: Settings,
    /// Grows by one with every change of the settings.
    pub revision: u64,
    /// When it was created, µs.
    pub created_us: u64,
    /// When it was last changed, µs.
    pub updated_us: u64,
}

/// A policy and its past.
#[derive(Clone, Debug, Default)]
pub struct PolicyHistory {
    /// The oldest first, never empty.
    pub revisions: Vec<Arc<PolicyRevision>>,
    /// Whether it was deleted, and stays for the steps that use it.
    pub deleted: bool,
}

/// One revision of a policy, parsed.
#[derive(Debug)]
pub struct PolicyRevision {
    /// Its number, from 1; 0 for one given inline.
    pub number: u64,
    /// Of its content.
    pub digest: u128,
    /// The same in hexadecimal.
    pub digest_text: String,
    /// As it was written.
    pub spec: PolicySpec,
    /// As it holds.
    pub policy: Policy,
    /// When it was written.
    pub updated_at: Timestamp,
}

/// A target, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetEntry {
    /// Grows with every change of what it allows. It is the revision of the
    /// namespace's configuration that wrote it, so that a target which is
    /// deleted and written again has none that it had before.
    pub revision: u64,
    /// As it was written.
    pub spec: TargetSpec,
    /// As it holds.
    pub target: Arc<Target>,
    /// Whether it starts nothing for now; one that is over may still be here.
    pub pause: Option<Pause>,
    /// Those before it.
    pub stood: Stood,
    /// What an operator says of its breaker; what is over may still be here.
    pub forced: Option<Forced>,
    /// When it was last written, or an order about it given or ended.
    pub updated_at: Timestamp,
}

/// The stored form of a [`TargetEntry`].
#[derive(Debug, Serialize, Deserialize)]
struct StoredTarget {
    revision: u64,
    updated_us: u64,
    spec: TargetSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pause: Option<StoredPause>,
    /// Since when and until when, of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stood_us: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forced: Option<StoredForced>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredPause {
    reason: String,
    by: String,
    since_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_us: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredForced {
    state: ForcedState,
    reason: String,
    by: String,
    since_us: u64,
    until_us: u64,
}

/// The stored form of a [`PolicyHistory`].
#[derive(Debug, Serialize, Deserialize)]
struct StoredHistory {
    deleted: bool,
    revisions: Vec<StoredRevision>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredRevision {
    number: u64,
    updated_us: u64,
    spec: PolicySpec,
}

/// Why a stored configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// Not the form that is written.
    #[error("not a stored configuration")]
    Malformed(#[from] serde_json::Error),
    /// A stored policy or target is not valid to this version.
    #[error("a stored policy or target is not valid to this version: {0}")]
    Invalid(#[from] Violations),
}

impl NamespaceEntry {
    /// A namespace that begins now.
    #[must_use]
    pub fn new(settings: Settings, at: Timestamp) -> Self {
        Self { settings, revision: 1, created_us: at.as_micros(), updated_us: at.as_micros() }
    }

    /// The stored form.
    ///
    /// # Errors
    /// Never for settings that were parsed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ConfigurationError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigurationError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl PolicyRevision {
    /// Parses a policy as written.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(spec: PolicySpec, number: u64, updated_at: Timestamp) -> Result<Self, Violations> {
        let policy = Policy::parse(&spec)?;
        let digest = digest(&spec);
        Ok(Self { number, digest, digest_text: format!("{digest:032x}"), spec, policy, updated_at })
    }

    /// The spec in its stored form.
    ///
    /// # Errors
    /// Never for a spec that was parsed.
    pub fn spec_bytes(&self) -> Result<Vec<u8>, ConfigurationError> {
        Ok(serde_json::to_vec(&self.spec)?)
    }

    /// Reads a policy given inline from its stored form.
    ///
    /// # Errors
    /// When it is not one.
    pub fn inline_from_bytes(bytes: &[u8]) -> Result<Self, ConfigurationError> {
        Ok(Self::parse(serde_json::from_slice(bytes)?, 0, Timestamp::EPOCH)?)
    }
}

impl PolicyHistory {
    /// The newest revision.
    #[must_use]
    pub fn latest(&self) -> Option<&Arc<PolicyRevision>> {
        self.revisions.last()
    }

    /// One revision; 0 is the newest.
    #[must_use]
    pub fn revision(&self, number: u64) -> Option<&Arc<PolicyRevision>> {
        if number == 0 {
            self.latest()
        } else {
            self.revisions.iter().find(|revision| revision.number == number)
        }
    }

    /// Adds a revision and forgets the oldest beyond those kept.
    pub fn add(&mut self, revision: PolicyRevision) {
        self.deleted = false;
        self.revisions.push(Arc::new(revision));
        let surplus = self.revisions.len().saturating_sub(REVISIONS_KEPT);
        self.revisions.drain(..surplus);
    }

    /// The stored form.
    ///
    /// # Errors
    /// Never for specs that were parsed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ConfigurationError> {
        let stored = |revision: &Arc<PolicyRevision>| StoredRevision {
            number: revision.number,
            updated_us: revision.updated_at.as_micros(),
            spec: revision.spec.clone(),
        };
        let history = StoredHistory {
            deleted: self.deleted,
            revisions: self.revisions.iter().map(stored).collect(),
        };
        Ok(serde_json::to_vec(&history)?)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is not one, or a policy in it is not valid to this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigurationError> {
        let stored: StoredHistory = serde_json::from_slice(bytes)?;
        let mut revisions = Vec::with_capacity(stored.revisions.len());
        for revision in stored.revisions {
            let updated_at = Timestamp::from_micros(revision.updated_us);
            revisions.push(Arc::new(PolicyRevision::parse(
                revision.spec,
                revision.number,
                updated_at,
            )?));
        }
        Ok(Self { revisions, deleted: stored.deleted })
    }
}

impl TargetEntry {
    /// Parses a target as written, not paused.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(
        spec: TargetSpec,
        revision: u64,
        updated_at: Timestamp,
    ) -> Result<Self, Violations> {
        let target = Arc::new(Target::parse(&spec)?);
        let stood = Stood::default();
        Ok(Self { revision, spec, target, pause: None, stood, forced: None, updated_at })
    }

    /// How it bounds a step of `run` that calls it `name`.
    fn bound(&self, name: &Id, run: &str, at: Timestamp, is_written: bool) -> Bound {
        let state = if self.target.each_run { format!("{name} {run}") } else { name.to_string() };
        Bound {
            state: state.into(),
            target: Arc::clone(&self.target),
            revision: self.revision,
            is_passing: self.target.each_run || !is_written,
            pause: self.pause.as_ref().filter(|pause| pause.holds_at(at)).cloned(),
            stood: self.stood_at(at),
            forced: self.forced.as_ref().filter(|forced| forced.holds_at(at)).cloned(),
            freed: self.freed_at(at),
            episodes: Episodes::default(),
        }
    }

    fn freed_at(&self, now: Timestamp) -> Option<Freed> {
        let breaker = self.target.breaker.as_ref()?;
        self.forced.as_ref()?.freed_at(now, breaker.observe_only)
    }

    /// Its pauses that are over by now.
    #[must_use]
    pub fn stood_at(&self, now: Timestamp) -> Stood {
        let mut stood = self.stood.clone();
        if let Some(span) = self.pause.as_ref().and_then(|pause| pause.over_at(now)) {
            stood.add(span);
        }
        stood
    }

    /// The stored form.
    ///
    /// # Errors
    /// Never for a spec that was parsed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ConfigurationError> {
        let micros = |span: Interval| (span.since.as_micros(), span.until.as_micros());
        Ok(serde_json::to_vec(&StoredTarget {
            revision: self.revision,
            updated_us: self.updated_at.as_micros(),
            spec: self.spec.clone(),
            pause: self.pause.as_ref().map(StoredPause::from),
            stood_us: self.stood.iter().map(micros).collect(),
            forced: self.forced.as_ref().map(StoredForced::from),
        })?)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is not one, or the target is not valid to this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigurationError> {
        let stored: StoredTarget = serde_json::from_slice(bytes)?;
        let updated_at = Timestamp::from_micros(stored.updated_us);
        let entry = Self::parse(stored.spec, stored.revision, updated_at)?;
        let instant = Timestamp::from_micros;
        let span = |(since, until)| Interval { since: instant(since), until: instant(until) };
        Ok(Self {
            pause: stored.pause.map(Pause::from),
            stood: Stood::of(stored.stood_us.into_iter().map(span)),
            forced: stored.forced.map(Forced::from),
            ..entry
        })
    }
}

impl From<&Pause> for StoredPause {
    fn from(pause: &Pause) -> Self {
        Self {
            reason: pause.reason.clone(),
            by: pause.by.clone(),
            since_us: pause.since.as_micros(),
            until_us: pause.until.map(Timestamp::as_micros),
        }
    }
}

impl From<StoredPause> for Pause {
    fn from(stored: StoredPause) -> Self {
        Self {
            reason: stored.reason,
            by: stored.by,
            since: Timestamp::from_micros(stored.since_us),
            until: stored.until_us.map(Timestamp::from_micros),
        }
    }
}

impl From<&Forced> for StoredForced {
    fn from(forced: &Forced) -> Self {
        Self {
            state: forced.state,
            reason: forced.reason.clone(),
            by: forced.by.clone(),
            since_us: forced.since.as_micros(),
            until_us: forced.until.as_micros(),
        }
    }
}

impl From<StoredForced> for Forced {
    fn from(stored: StoredForced) -> Self {
        Self {
            state: stored.state,
            reason: stored.reason,
            by: stored.by,
            since: Timestamp::from_micros(stored.since_us),
            until: Timestamp::from_micros(stored.until_us),
        }
    }
}

impl Configuration {
    /// A namespace without policies and targets.
    #[must_use]
    pub const fn new(namespace: NamespaceEntry) -> Self {
        Self { revision: 1, namespace, policies: BTreeMap::new(), targets: BTreeMap::new() }
    }

    /// The targets that bound a step of `run` which names `targets`: those that
    /// every step calls, then those that it names, in their order, each once.
    #[must_use]
    pub fn bounds(&self, targets: &[Id], run: &str, at: Timestamp) -> Vec<Bound> {
        if self.targets.is_empty() {
            return Vec::new();
        }
        let fallback =
            self.namespace.settings.default_target.as_ref().and_then(|name| self.targets.get(name));
        let every = self.targets.iter().filter(|(_, entry)| entry.target.every_step);
        let named = targets
            .iter()
            .filter_map(|name| Some((name, self.targets.get(name).or(fallback)?)))
            .filter(|(name, entry)| !entry.target.every_step || !self.targets.contains_key(*name));
        let mut bounds: Vec<Bound> = Vec::new();
        for (name, entry) in every.chain(named) {
            let bound = entry.bound(name, run, at, self.targets.contains_key(name));
            let is_known = bounds.iter().any(|known| known.state == bound.state);
            if bound.says_something() && !is_known {
                bounds.push(bound);
            }
        }
        bounds
    }

    /// A target as it bounds a step of `run`, written or not; None where there is
    /// none of this name.
    #[must_use]
    pub fn bound(&self, name: &Id, run: &str, at: Timestamp) -> Option<Bound> {
        self.targets.get(name).map(|entry| entry.bound(name, run, at, true))
    }

    /// The rate of the target whose state this is: see [`Bound::state`].
    #[must_use]
    pub fn rate_of(&self, state: &str) -> Option<Rate> {
        self.entry_of(state)?.target.rate
    }

    /// What an operator says of the breaker of the target whose state this is: one that
    /// only watches is as good as closed, once its load has grown after an order.
    #[must_use]
    pub fn forced_of(&self, state: &str, at: Timestamp) -> Option<ForcedState> {
        let entry = self.entry_of(state)?;
        let watches = entry.target.breaker.as_ref()?.observe_only && entry.freed_at(at).is_none();
        let forced = entry.forced.as_ref().filter(|forced| forced.holds_at(at));
        forced.map(|forced| forced.state).or(watches.then_some(ForcedState::Closed))
    }

    /// The target whose state this is, the default one where nobody wrote it.
    fn entry_of(&self, state: &str) -> Option<&TargetEntry> {
        let name = state.split_once(' ').map_or(state, |(name, _)| name);
        let fallback = self.namespace.settings.default_target.as_ref();
        self.targets.get(name).or_else(|| self.targets.get(fallback?))
    }

    /// How many permits there are in the pool that is filed under `state`, while
    /// starts are made there; None where there is no such pool, or it is paused.
    #[must_use]
    pub fn permits(&self, state: &str, at: Timestamp) -> Option<NonZeroU32> {
        let entry = self.entry_of(state)?;
        let is_paused = entry.pause.as_ref().is_some_and(|pause| pause.holds_at(at));
        entry.target.concurrency.filter(|_| !is_paused)
    }

    /// Whether a target may be written.
    ///
    /// # Errors
    /// It would be one too many.
    pub fn check_room_for_target(&self, name: &Id, entry: &TargetEntry) -> Result<(), StoreError> {
        let others = self.targets.iter().filter(|(known, _)| *known != name);
        let every = others.filter(|(_, known)| known.target.every_step).count();
        if entry.target.every_step && every >= EVERY_STEP_MAX {
            let what = "targets that every step calls";
            return Err(StoreError::QuotaReached { what, max: EVERY_STEP_MAX as u64 });
        }
        if self.targets.len() < TARGETS_MAX || self.targets.contains_key(name) {
            return Ok(());
        }
        Err(StoreError::QuotaReached { what: "targets", max: TARGETS_MAX as u64 })
    }

    /// Writes a target, or deletes it.
    pub fn put_target(&mut self, name: Id, entry: Option<TargetEntry>) {
        match entry {
            Some(entry) => self.targets.insert(name, entry),
            None => self.targets.remove(&name),
        };
    }

    /// Whether nobody ever changed anything in it.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.revision == 1 && self.policies.is_empty()
    }

    /// The policy of a choice that is not inline, with its name; the built-in
    /// one where the namespace has no default.
    #[must_use]
    pub fn policy(&self, choice: &PolicyChoice) -> Option<(Option<&Id>, &Arc<PolicyRevision>)> {
        let named = |name| {
            self.policies
                .get_key_value::<Id>(name)
                .and_then(|(name, history)| Some((Some(name), history.latest()?)))
        };
        match choice {
            PolicyChoice::Named(name) => named(name),
            PolicyChoice::Default => match &self.namespace.settings.default_policy {
                Some(name) => named(name),
                None => Some((None, &BUILT_IN)),
            },
            PolicyChoice::Inline(_) => None,
        }
    }
}

/// The policy of steps that name none, in a namespace without a default: three
/// retries, exponential from one second to five minutes, full jitter.
pub static BUILT_IN: LazyLock<Arc<PolicyRevision>> = LazyLock::new(|| {
    let spec = PolicySpec {
        max_retries: Some(3),
        backoff: Some(BackoffSpec {
            exponential: Some(ExponentialSpec {
                delay: Span(std::time::Duration::from_secs(1)),
                factor: None,
                max_doublings: None,
            }),
            max_delay: Some(Span(std::time::Duration::from_secs(300))),
            jitter: Some(JitterSpec::Full),
            ..BackoffSpec::default()
        }),
        ..PolicySpec::default()
    };
    Arc::new(
        PolicyRevision::parse(spec, 0, Timestamp::EPOCH)
            .expect("the built-in policy is valid: a test parses it"),
    )
});

/// Digest of a policy's content.
#[must_use]
pub fn digest(spec: &PolicySpec) -> u128 {
    // A spec is plain data with string keys; serialising it cannot fail.
    let bytes = serde_json::to_vec(spec).unwrap_or_default();
    let mut hasher = SipHasher13::new_with_key(b"reprise.v1policy");
    std::hash::Hasher::write(&mut hasher, &bytes);
    hasher.finish128().as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_were_stored_before_there_were_targets_are_read() {
        let entry = NamespaceEntry::new(Settings::default(), Timestamp::EPOCH);
        let mut stored = serde_json::to_value(&entry).unwrap();
        assert!(stored["settings"].as_object_mut().unwrap().remove("default_target").is_some());
        assert_eq!(NamespaceEntry::from_bytes(stored.to_string().as_bytes()).unwrap(), entry);
    }

    #[test]
    fn the_pauses_of_a_target_survive_storage() {
        let at = |seconds: u64| Timestamp::from_micros(1_000_000 * seconds);
        let span = |since, until| Interval { since: at(since), until: at(until) };
        let pause = Pause {
            reason: "it is being moved".to_owned(),
            by: "ann".to_owned(),
            since: at(50),
            until: Some(at(60)),
        };
        let parsed = TargetEntry::parse(TargetSpec::default(), 1, Timestamp::EPOCH).unwrap();
        let stood = Stood::of([span(10, 20), span(30, 40)]);
        let entry = TargetEntry { stood, pause: Some(pause), ..parsed };
        assert_eq!(TargetEntry::from_bytes(&entry.to_bytes().unwrap()).unwrap(), entry);
        let over = |now| entry.stood_at(at(now)).iter().collect::<Vec<_>>();
        assert_eq!(over(59), [span(10, 20), span(30, 40)]);
        assert_eq!(over(60), [span(10, 20), span(30, 40), span(50, 60)]);
    }

    #[test]
    fn a_target_that_this_version_finds_invalid_is_not_read() {
        let entry = TargetEntry::parse(TargetSpec::default(), 1, Timestamp::EPOCH).unwrap();
        let mut stored: serde_json::Value =
            serde_json::from_slice(&entry.to_bytes().unwrap()).unwrap();
        stored["spec"]["concurrency"] = serde_json::json!({ "max": 0 });
        let read = TargetEntry::from_bytes(stored.to_string().as_bytes());
        assert!(matches!(read, Err(ConfigurationError::Invalid(_))), "{read:?}");
    }

    #[test]
    fn the_built_in_policy_is_valid_and_survives_storage() {
        let bytes = BUILT_IN.spec_bytes().unwrap();
        let read = PolicyRevision::inline_from_bytes(&bytes).unwrap();
        assert_eq!(read.policy, BUILT_IN.policy);
        assert_eq!(read.digest, BUILT_IN.digest);
    }
}

//! Where records live between events.
//!
//! A store knows how to be indivisible, how long to remember and what time it
//! is. It holds no opinion about retries: it loads, settles and commits what
//! [`crate::domain::plan`] drafted.

pub mod configuration;
pub mod copy;
pub mod embedded;
pub mod pack;
pub mod record;
pub mod redis;

use std::{future::Future, sync::Arc};

use tokio::sync::watch;

use self::{
    configuration::{
        Configuration, ConfigurationError, NamespaceEntry, PolicyHistory, PolicyRevision,
        TargetEntry,
    },
    record::RecordError,
};
use crate::domain::{
    draw::Salt,
    id::{Id, StepKey},
    labels::Labels,
    limit::{Bound, usage::Usage},
    plan::{Answer, Draft, Now},
    record::{Evidence, Record},
    time::Timestamp,
};

/// Keeps steps and what governs them.
///
/// Every method is indivisible. What a method returned is durable, in the sense
/// that the store states, once [`Store::confirm`] has resolved as well; a
/// commit is durable when it returns.
pub trait Store: Send + Sync + 'static {
    /// A step, with what applies to it. It may be what the store remembers or
    /// what `expect` lets it assume: a commit finds out when it is no longer so,
    /// and for an answer without one [`Store::confirm`] does.
    ///
    /// # Errors
    /// [`StoreError::NamespaceUnknown`], [`StoreError::Unreadable`], or the
    /// store is away.
    fn load(
        &self,
        key: &StepKey<'_>,
        expect: Expect,
    ) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// Settles a draft and writes it, if the step and its configuration are
    /// still what the draft was planned on.
    ///
    /// # Errors
    /// The store is away, full, or the namespace has all the live steps it may.
    /// Only after [`StoreError::Unavailable`] is it unknown whether the draft
    /// was written.
    fn commit(
        &self,
        key: &StepKey<'_>,
        commit: Commit,
    ) -> impl Future<Output = Result<Committed, StoreError>> + Send;

    /// Whether what was loaded is still so. When it resolves, what is so is
    /// durable as well.
    ///
    /// # Errors
    /// The store is away.
    fn confirm(
        &self,
        key: &StepKey<'_>,
        basis: &Basis,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Tells what a decision has to know of the targets' episodes: what the store
    /// knows without a look. A commit finds out when there are others.
    fn tell_episodes(&self, namespace: &str, bounds: &mut [Bound]);

    /// The texts kept for a step's latest failures.
    ///
    /// # Errors
    /// As [`Store::load`].
    fn evidence(
        &self,
        key: &StepKey<'_>,
    ) -> impl Future<Output = Result<Evidence, StoreError>> + Send;

    /// Steps whose next event has come, the longest overdue first, at most
    /// `limit`.
    ///
    /// # Errors
    /// The store is away.
    fn peek_due(&self, limit: usize) -> impl Future<Output = Result<Vec<Due>, StoreError>> + Send;

    /// Whose turn it is at a pool with so many permits, which is filed under
    /// `state`: the names of as many steps in line as permits are free, the longest
    /// waiting first, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::load`].
    fn heads(
        &self,
        namespace: &str,
        state: &str,
        permits: u32,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// The steps that wait in a queue and when they are due, the first due first,
    /// at most `limit`.
    ///
    /// # Errors
    /// As [`Store::load`].
    fn queued(
        &self,
        namespace: &str,
        queue: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Queued>, StoreError>> + Send;

    /// The steps of a run which was begun, by name, after the step `after`, at most
    /// `limit`. Steps that nobody said to belong to it are not among them.
    ///
    /// # Errors
    /// As [`Store::load`].
    fn run_steps(
        &self,
        namespace: &str,
        run: &str,
        after: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// Whether other processes change what it holds: who waits for a change then
    /// has to follow it.
    fn is_shared(&self) -> bool {
        false
    }

    /// What is used of a target's limits now, and where the step `member` (as
    /// [`StepKey::joined`]) stands among those who wait there.
    ///
    /// # Errors
    /// As [`Store::load`].
    fn usage(
        &self,
        namespace: &str,
        bound: &Bound,
        member: Option<&str>,
    ) -> impl Future<Output = Result<Usage, StoreError>> + Send;

    /// Ends the cooldown of a target.
    ///
    /// # Errors
    /// As [`Store::load`].
    fn lift(
        &self,
        namespace: &str,
        bound: &Bound,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Steps of a namespace, over ones included, in no order of theirs: about
    /// `limit` of them, from the start with 0, or from where a page has ended. A step
    /// that is there all the while is on one page at least, however many come and go;
    /// and who reads all pages reads every step there is.
    ///
    /// # Errors
    /// As [`Store::load`].
    fn page(
        &self,
        namespace: &str,
        from: u64,
        limit: usize,
    ) -> impl Future<Output = Result<StepPage, StoreError>> + Send;

    /// The changes of a namespace after number `after`, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::load`].
    fn follow(
        &self,
        namespace: &str,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Changes, StoreError>> + Send;

    /// What governs a namespace.
    ///
    /// # Errors
    /// [`StoreError::NamespaceUnknown`], or the store is away.
    fn configuration(
        &self,
        namespace: &str,
    ) -> impl Future<Output = Result<Arc<Configuration>, StoreError>> + Send;

    /// A policy that was given inline.
    ///
    /// # Errors
    /// [`StoreError::NamespaceUnknown`], or the store is away.
    fn inline_policy(
        &self,
        namespace: &str,
        digest: u128,
    ) -> impl Future<Output = Result<Option<Arc<PolicyRevision>>, StoreError>> + Send;

    /// Namespaces by name after `after`, at most `limit`.
    ///
    /// # Errors
    /// The store is away.
    fn namespaces(
        &self,
        after: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<NamespaceView>, StoreError>> + Send;

    /// How many steps of a namespace are not over.
    ///
    /// # Errors
    /// [`StoreError::NamespaceUnknown`], or the store is away.
    fn live_steps(&self, namespace: &str) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Changes what governs a namespace, if it is still at `revision`; 0 is a
    /// namespace that does not exist.
    ///
    /// # Errors
    /// [`StoreError::ConfigurationChanged`] when it is not, a bound that is
    /// reached, or the store is away.
    fn configure(
        &self,
        namespace: &Id,
        revision: u64,
        change: ConfigurationChange,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The store's time.
    fn now(&self) -> Now;

    /// Whether the store answers, and if not, why; changes are told.
    fn watch(&self) -> watch::Receiver<Result<(), String>>;

    /// Whether something that can be put right may cost what was acknowledged;
    /// the log says what it is.
    fn is_unsafe(&self) -> bool;

    /// Resolves when the store has stopped for good, with the reason: the
    /// process should end, since nothing can be acknowledged any more.
    fn ended(&self) -> impl Future<Output = String> + Send;

    /// Acknowledged changes that are proven to be gone, since the start, at
    /// least.
    fn lost(&self) -> u64 {
        0
    }

    /// How much it holds, for metrics; None where that is not this process's to
    /// tell.
    fn sizes(&self) -> Option<Sizes>;

    /// Where the data is and when it is durable, in words.
    fn describe(&self) -> Description;
}

/// What a caller has reason to expect of a step, so that a store may save
/// itself a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing in particular.
    Anything,
    /// That nobody has heard of it.
    Unknown,
}

/// What a load rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    /// Version of the record; 0 without one.
    pub version: u64,
    /// Revision of the configuration.
    pub configuration: u64,
    /// Whether it was remembered or assumed rather than read.
    pub remembered: bool,
}

/// A step, with what applies to it.
#[derive(Debug)]
pub struct Loaded {
    /// The step; None when it is unknown.
    pub record: Option<Record>,
    /// What it rests on.
    pub basis: Basis,
    /// The step's turn in this process, where the store has calls take turns.
    pub turn: Option<redis::turns::Turn>,
    /// What governs its namespace.
    pub configuration: Arc<Configuration>,
    /// What chance is drawn from.
    pub salt: Salt,
    /// The time.
    pub now: Now,
}

/// What is to be written.
#[derive(Debug)]
pub struct Commit {
    /// The configuration that was used.
    pub configuration: u64,
    /// The version of the record that was used; 0 when there was none.
    pub version: u64,
    /// The instants that were used.
    pub now: Now,
    /// The change.
    pub change: Change,
}

/// A change to a step.
#[derive(Debug)]
pub enum Change {
    /// Settle and write.
    Write(Box<Draft>),
    /// Forget the step.
    Purge,
}

/// What became of a commit.
#[derive(Debug)]
pub enum Committed {
    /// Written; this is the answer.
    Written(Answer),
    /// Somebody else wrote first, or the configuration is newer: plan again.
    Conflict,
}

/// A step whose next event has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its namespace.
    pub namespace: Id,
    /// Run and step, as [`StepKey::joined`].
    pub joined: Arc<str>,
    /// When it came.
    pub event_at: Timestamp,
}

/// A step that waits in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Run and step, as [`StepKey::joined`].
    pub joined: String,
    /// When it is due.
    pub due: Timestamp,
    /// Its labels.
    pub labels: Labels,
}

/// Some steps.
#[derive(Debug, Default)]
pub struct StepPage {
    /// These: run and step, as [`StepKey::joined`], and the step.
    pub steps: Vec<(Arc<str>, Record)>,
    /// Where to read on; None behind the last.
    pub next: Option<u64>,
}

/// Changes of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// These follow without a gap.
    Follow(Vec<ChangeEntry>),
    /// The log no longer reaches back so far; it begins after this number.
    Gap(u64),
}

/// One change of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeEntry {
    /// Its number in the namespace, dense.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Run and step, as [`StepKey::joined`].
    pub joined: Arc<str>,
    /// The version that was written; 0 when the step was forgotten.
    pub version: u64,
}

/// A namespace in a list.
#[derive(Clone, Debug)]
pub struct NamespaceView {
    /// Its name.
    pub name: Id,
    /// Its own part.
    pub entry: NamespaceEntry,
    /// Steps that are not over.
    pub live_steps: u64,
}

/// A change of what governs a namespace.
#[derive(Debug)]
pub enum ConfigurationChange {
    /// Creates the namespace or replaces its settings.
    Namespace(NamespaceEntry),
    /// Deletes the namespace, which must have no steps.
    DeleteNamespace,
    /// Creates or replaces a policy.
    Policy(Id, PolicyHistory),
    /// Creates or replaces a target; None deletes it.
    Target(Id, Option<TargetEntry>),
    /// Remembers a policy given inline.
    Inline(Arc<PolicyRevision>),
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Steps, those that are over included.
    pub steps: u64,
    /// Steps that are not over.
    pub live_steps: u64,
    /// Bytes on the disk.
    pub disk_bytes: u64,
    /// Times that changes were synced to the disk since the store was opened.
    pub syncs: u64,
}

/// Where the data is and when it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Kind of the store, such as "embedded".
    pub store: &'static str,
    /// When an acknowledged change is durable.
    pub durability: String,
}

/// Why a store could not do what it was asked. What it says of state holds
/// exactly: only [`StoreError::Unavailable`] leaves it open.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such namespace.
    #[error("there is no namespace {0:?}")]
    NamespaceUnknown(String),
    /// A namespace with steps is not deleted.
    #[error("the namespace still has {steps} steps")]
    NamespaceNotEmpty {
        /// How many.
        steps: u64,
    },
    /// Somebody changed the configuration meanwhile.
    #[error("the configuration was changed meanwhile")]
    ConfigurationChanged,
    /// A bound on what a namespace may hold.
    #[error("the namespace has {max} {what}, the most it may")]
    QuotaReached {
        /// What there are too many of.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// No room; nothing was changed, and nothing is lost.
    #[error("the store is full")]
    Full,
    /// A record that this version cannot read. Someone has to look.
    #[error("the record of step {key} is not readable")]
    Unreadable {
        /// Which.
        key: String,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// A configuration that cannot be written or read.
    #[error("the configuration is not readable")]
    Configuration(#[from] ConfigurationError),
    /// No answer. It is unknown whether a change was made; worth another try.
    #[error("the store is away: {0}")]
    Unavailable(String),
    /// The store is there and refuses. Nothing was changed; worth another try
    /// once the reason has passed.
    #[error("the store refuses: {0}")]
    Refused(String),
}

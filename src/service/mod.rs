//! One event: load the step, find its policy, plan, commit, answer.
//!
//! Nothing of the transport and nothing of a particular store is known here.

mod admin;
mod claim;
mod evaluate;
mod explain;
mod force;
mod line;
mod order;
mod run;
mod supply;
mod sweep;
mod target;
mod wait;
mod waiters;

use std::sync::Arc;

pub use admin::{AdminError, PolicyWrite, etag};
pub use claim::{Claim, Claimed};
pub use evaluate::{Evaluated, EvaluatedDecision, Evaluation};
pub use explain::Explained;
pub use force::ForceOrder;
pub use line::wake_until;
pub use order::{Listed, ListedStep, StepFilter};
pub use run::RunStep;
pub use supply::{Handed, Supply};
pub use sweep::sweep_until;
pub use target::{PauseEnd, PauseOrder, TargetWrite};
pub use wait::{Awaited, WaitEnd};
pub use waiters::follow_until;

use self::{claim::Queues, line::Lines, waiters::Waiters};

use crate::{
    clock::Clock,
    domain::{
        draw::Salt,
        event::{AttemptName, Begin, Comes, Event, Report, StepTerms},
        id::{Id, StepKey},
        limit::Bound,
        plan::{self, Answer, Plan, Refusal, Terms},
        policy::{Violations, spec::PolicySpec},
        record::{Evidence, PolicyChoice, Record},
        time::Timestamp,
    },
    store::{
        Basis, Change, Commit, Committed, ConfigurationChange, Expect, Loaded, Store, StoreError,
        configuration::{BUILT_IN, Configuration, PolicyRevision, digest},
    },
    telemetry::Telemetry,
};

/// Rounds of planning, after which a step is hotter than can be served.
const ROUNDS: usize = 16;

/// Answers events about steps, and keeps what governs them.
#[derive(Debug)]
pub struct Service<S> {
    store: S,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    /// Lines that have moved.
    lines: Lines,
    /// Who waits for a step.
    waiters: Arc<Waiters>,
    /// Queues at which somebody waits.
    queues: Queues,
}

/// A policy that came with a call.
#[derive(Clone, Debug, PartialEq)]
pub enum GivenPolicy {
    /// One of the namespace's, by name.
    Named(Id),
    /// One given with the call, as written.
    Inline(Box<PolicySpec>),
}

/// An answer, with what it rests on.
#[derive(Debug)]
pub struct Handled {
    /// The answer.
    pub answer: Answer,
    /// The policy that was applied.
    pub policy: PolicyInForce,
    /// The store's time.
    pub at: Timestamp,
    /// Whether anything was written.
    pub is_change: bool,
}

/// A policy in force, and its name unless it was given inline or is built in.
#[derive(Clone, Debug)]
pub struct PolicyInForce {
    /// Its name.
    pub name: Option<Id>,
    /// What it says.
    pub revision: Arc<PolicyRevision>,
}

/// How a policy in force is named to callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyStamp<'a> {
    /// Its name; empty for one given inline and for the built-in one.
    pub name: &'a str,
    /// Its revision, from 1; 0 for one without a name.
    pub revision: u64,
    /// Hexadecimal digest of its content.
    pub digest: &'a str,
    /// Whether it is the built-in one.
    pub is_built_in: bool,
}

impl PolicyInForce {
    /// How it is named to callers.
    #[must_use]
    pub fn stamp(&self) -> PolicyStamp<'_> {
        PolicyStamp {
            name: self.name.as_deref().unwrap_or_default(),
            revision: self.revision.number,
            digest: &self.revision.digest_text,
            is_built_in: Arc::ptr_eq(&self.revision, &BUILT_IN),
        }
    }
}

/// A step, with everything that is shown of it.
#[derive(Debug)]
pub struct StepView {
    /// The step.
    pub record: Record,
    /// The texts of its latest failures.
    pub evidence: Evidence,
    /// The policy that its next decision applies.
    pub policy: PolicyInForce,
    /// The store's time.
    pub at: Timestamp,
    /// When the step ends whatever happens.
    pub ends_by: Option<Timestamp>,
}

/// What a decision rests on beside the step.
#[derive(Clone, Copy)]
struct Ground<'a> {
    configuration: &'a Configuration,
    salt: Salt,
    now: plan::Now,
}

/// Why a call could not be carried out. Nothing changed, unless the store went
/// away.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The event contradicts what is recorded.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such policy.
    #[error("there is no policy {0:?}")]
    PolicyUnknown(String),
    /// The policy given inline is not valid.
    #[error(transparent)]
    PolicyInvalid(#[from] Violations),
    /// The store said no, or nothing.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too many wait for a decision already.
    #[error("too many calls wait for a decision")]
    Crowded,
    /// Others wrote first in every round.
    #[error("the step changed {ROUNDS} times while it was being decided")]
    Contended,
}

impl<S: Store> Service<S> {
    /// A service on a store.
    #[must_use]
    pub fn new(store: S, telemetry: Arc<Telemetry>, clock: Clock) -> Self {
        let (lines, waiters, queues) = <(Lines, Arc<Waiters>, Queues)>::default();
        Self { store, telemetry, clock, lines, waiters, queues }
    }

    /// The store.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The service's metrics.
    pub const fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Answers one event about one step.
    ///
    /// What is overdue comes first: an attempt whose lease has ended is recorded
    /// as crashed before anything else is heard about its step.
    ///
    /// # Errors
    /// See [`ServiceError`].
    pub async fn apply(
        &self,
        key: &StepKey<'_>,
        given: Option<&GivenPolicy>,
        event: &Event,
    ) -> Result<Handled, ServiceError> {
        let mut is_change = false;
        let mut expect = expected(event);
        for _ in 0..ROUNDS {
            // The turn ends with the round.
            let Loaded { record, basis, turn: _turn, configuration, salt, now } =
                self.store.load(key, expect).await?;
            expect = Expect::Anything;
            let held = line::held(record.as_ref());
            let overdue = record.as_ref().is_some_and(|record| plan::is_overdue(record, now));
            let (event, given) = if overdue { (&Event::Tick, None) } else { (event, given) };

            let at = now.at;
            let ground = Ground { configuration: &configuration, salt, now };
            let (policy, change) = match self.planned(key, given, record, event, ground).await {
                Ok((policy, Plan::Write(draft))) => (policy, Change::Write(draft)),
                Ok((policy, Plan::Purge)) => (policy, Change::Purge),
                // Nothing is written that would find out whether what was loaded
                // is still so, and durable: nothing is told that a crash could
                // take back.
                stands => {
                    if !self.store.confirm(key, &basis).await? {
                        self.telemetry.conflicts.inc();
                        continue;
                    }
                    let (policy, plan) = stands?;
                    let Plan::Stands(answer) = plan else { continue };
                    self.telemetry.answered(&answer);
                    return Ok(Handled { answer, policy, at, is_change });
                }
            };
            let Basis { version, configuration, .. } = basis;
            let commit = Commit { configuration, version, now, change };
            let committed = self.committed(key, commit).await?;
            if let Committed::Written(_) = committed {
                self.tell(key, event, held);
            }
            match committed {
                Committed::Written(answer) if !overdue => {
                    if !matches!(event, Event::Tick) {
                        self.telemetry.answered(&answer);
                    }
                    return Ok(Handled { answer, policy, at, is_change: true });
                }
                Committed::Written(_) => {
                    is_change = true;
                    self.telemetry.ticks.inc();
                }
                Committed::Conflict => {
                    self.telemetry.conflicts.inc();
                }
            }
        }
        Err(ServiceError::Contended)
    }

    /// The policy that applies, and what follows under it.
    async fn planned(
        &self,
        key: &StepKey<'_>,
        given: Option<&GivenPolicy>,
        record: Option<Record>,
        event: &Event,
        Ground { configuration, salt, now }: Ground<'_>,
    ) -> Result<(PolicyInForce, Plan), ServiceError> {
        let choice = self.choice(key, given, record.as_ref(), configuration).await?;
        let policy = self.in_force(key, &choice, configuration).await?;
        let ground = Ground { configuration, salt, now };
        let said = event.said();
        let run_attempt = said.map_or(0, |said| said.of_run);
        let run = self.run_of(key, record.as_ref(), run_attempt, ground).await?;
        let mut bounds = run::bounds(key, targets(record.as_ref(), said), run.as_ref(), ground);
        if bounds.iter().any(Bound::is_paced) {
            self.store.tell_episodes(key.namespace, &mut bounds);
        }
        let terms = Terms { run, ..terms(&policy, &choice, configuration, salt, &bounds) };
        let plan = plan::plan(&terms, key, record, event, now)?;
        Ok((policy, plan))
    }

    /// Tells those who wait that an event has changed a step, which had these
    /// permits and places before.
    fn tell(&self, key: &StepKey<'_>, event: &Event, held: Vec<Box<str>>) {
        // Neither gives anything back.
        if !held.is_empty() && !matches!(event, Event::Heartbeat(_) | Event::Wake) {
            self.lines.moved(key.namespace, held);
        }
        self.waiters.changed(key);
    }

    async fn committed(&self, key: &StepKey<'_>, commit: Commit) -> Result<Committed, StoreError> {
        let started = self.clock.now();
        let committed = self.store.commit(key, commit).await;
        self.telemetry.commit_seconds.observe((self.clock.now() - started).as_secs_f64());
        if committed.is_err() {
            self.telemetry.store_errors.inc();
        }
        committed
    }

    /// Shows a step.
    ///
    /// # Errors
    /// [`Refusal::UnknownStep`], or the store is away.
    pub async fn step(&self, key: &StepKey<'_>) -> Result<StepView, ServiceError> {
        for _ in 0..ROUNDS {
            let Loaded { record, basis, turn: _turn, configuration, salt, now } =
                self.store.load(key, Expect::Anything).await?;
            let evidence = self.store.evidence(key).await?;
            if !self.store.confirm(key, &basis).await? {
                continue;
            }
            let record = plan::counted(record.ok_or(Refusal::UnknownStep)?, now);
            let policy = self.in_force(key, &record.policy, &configuration).await?;
            let ground = Ground { configuration: &configuration, salt, now };
            let run = self.run_of(key, Some(&record), 0, ground).await?;
            let terms = Terms { run, ..terms(&policy, &record.policy, &configuration, salt, &[]) };
            let ends_by = plan::ends_by(&terms, &record).map(|(at, _)| at);
            return Ok(StepView { record, evidence, policy, at: now.at, ends_by });
        }
        Err(ServiceError::Contended)
    }

    /// The policy that a call asks for, else the one that the step has.
    async fn choice(
        &self,
        key: &StepKey<'_>,
        given: Option<&GivenPolicy>,
        record: Option<&Record>,
        configuration: &Configuration,
    ) -> Result<PolicyChoice, ServiceError> {
        match given {
            // Nobody expects a run to be started again who did not ask for it.
            None if key.is_run() && record.is_none() => {
                let digest = digest(&run::NOT_RETRIED);
                self.remember_inline(key, &run::NOT_RETRIED, digest).await?;
                Ok(PolicyChoice::Inline(digest))
            }
            None => Ok(record.map_or(PolicyChoice::Default, |record| record.policy.clone())),
            Some(GivenPolicy::Named(name)) => {
                let choice = PolicyChoice::Named(name.clone());
                let deleted =
                    configuration.policies.get(name).is_none_or(|history| history.deleted);
                // A deleted policy stays in force where it is, and nowhere else.
                if deleted && record.is_none_or(|record| record.policy != choice) {
                    return Err(ServiceError::PolicyUnknown(name.to_string()));
                }
                Ok(choice)
            }
            Some(GivenPolicy::Inline(spec)) => {
                let digest = digest(spec);
                self.remember_inline(key, spec, digest).await?;
                Ok(PolicyChoice::Inline(digest))
            }
        }
    }

    /// A policy given inline is kept in the store, so that a sweep can decide
    /// without a worker.
    async fn remember_inline(
        &self,
        key: &StepKey<'_>,
        spec: &PolicySpec,
        digest: u128,
    ) -> Result<(), ServiceError> {
        if self.store.inline_policy(key.namespace, digest).await?.is_some() {
            return Ok(());
        }
        let revision = Arc::new(PolicyRevision::parse(spec.clone(), 0, Timestamp::EPOCH)?);
        let unknown = || StoreError::NamespaceUnknown(key.namespace.to_owned());
        let namespace: Id = key.namespace.parse().map_err(|_| unknown())?;
        for _ in 0..ROUNDS {
            let current = self.store.configuration(key.namespace).await?.revision;
            let change = ConfigurationChange::Inline(Arc::clone(&revision));
            match self.store.configure(&namespace, current, change).await {
                Ok(()) => return Ok(()),
                Err(StoreError::ConfigurationChanged) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ServiceError::Contended)
    }

    async fn in_force(
        &self,
        key: &StepKey<'_>,
        choice: &PolicyChoice,
        configuration: &Configuration,
    ) -> Result<PolicyInForce, ServiceError> {
        if let PolicyChoice::Inline(digest) = choice {
            let revision = self.store.inline_policy(key.namespace, *digest).await?;
            return match revision {
                Some(revision) => Ok(PolicyInForce { name: None, revision }),
                None => Err(ServiceError::PolicyUnknown(format!("{digest:032x}"))),
            };
        }
        match configuration.policy(choice) {
            Some((name, revision)) => {
                Ok(PolicyInForce { name: name.cloned(), revision: Arc::clone(revision) })
            }
            None => Err(ServiceError::PolicyUnknown(match choice {
                PolicyChoice::Named(name) => name.to_string(),
                PolicyChoice::Default | PolicyChoice::Inline(_) => "default".to_owned(),
            })),
        }
    }
}

/// What there is reason to expect of the step that an event is about. Where it is
/// wrong, that costs no more than a look would have.
const fn expected(event: &Event) -> Expect {
    match event {
        Event::Begin(Begin { comes: Comes::ByItself | Comes::WhenWoken, .. })
        | Event::Report(Report {
            attempt: AttemptName::Number(1) | AttemptName::Request(_), ..
        }) => Expect::Unknown,
        _ => Expect::Anything,
    }
}

/// The targets that a step names, with what an event says of it.
fn targets<'a>(record: Option<&'a Record>, said: Option<&'a StepTerms>) -> &'a [Id] {
    let said = said.map_or(&[][..], |said| &said.targets);
    if said.is_empty() { record.map_or(&[], |record| &record.targets) } else { said }
}

fn terms<'a>(
    policy: &'a PolicyInForce,
    choice: &'a PolicyChoice,
    configuration: &'a Configuration,
    salt: Salt,
    bounds: &'a [Bound],
) -> Terms<'a> {
    Terms {
        policy: &policy.revision.policy,
        revision: policy.revision.number,
        choice,
        settings: &configuration.namespace.settings,
        salt,
        bounds,
        run: None,
    }
}

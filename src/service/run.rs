//! Runs: what they have to say about their steps, and which steps they have.

use std::sync::LazyLock;

use futures_util::future::try_join_all;

use super::{Ground, ROUNDS, Service, ServiceError, terms};
use crate::{
    domain::{
        id::{Id, StepKey},
        limit::Bound,
        plan::{self, RunTerms},
        policy::spec::PolicySpec,
        record::{Record, State},
    },
    store::{Expect, Loaded, Store},
};

/// Steps that are looked at together.
const TOGETHER: usize = 64;

/// The policy of a run that was begun without one: it is not retried.
pub(super) static NOT_RETRIED: LazyLock<PolicySpec> = LazyLock::new(|| PolicySpec {
    max_retries: Some(0),
    max_crash_retries: Some(0),
    ..PolicySpec::default()
});

/// A step of a run, as a list has it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunStep {
    /// Its name.
    pub step: String,
    /// What is remembered of it.
    pub record: Record,
}

/// The targets that bound a step, and what its run allows all of its steps
/// together. A run itself calls nothing.
pub(super) fn bounds(
    key: &StepKey<'_>,
    targets: &[Id],
    run: Option<&RunTerms>,
    ground: Ground<'_>,
) -> Vec<Bound> {
    if key.is_run() {
        return Vec::new();
    }
    let mut bounds = ground.configuration.bounds(targets, key.run, ground.now.at);
    let bound = run.and_then(|run| {
        let most = run.retries.max_total_retries?;
        Some(Bound::of_run(key.run, run.created_at, most))
    });
    bounds.extend(bound.filter(|_| !planted!("run-total-not-charged")));
    bounds
}

impl<S: Store> Service<S> {
    /// The run of a step, where somebody said before, or says, that it belongs to this
    /// attempt of one which was begun.
    pub(super) async fn run_of(
        &self,
        key: &StepKey<'_>,
        record: Option<&Record>,
        said: u32,
        ground: Ground<'_>,
    ) -> Result<Option<RunTerms>, ServiceError> {
        let of_run = record.map_or(0, |record| record.of_run);
        if key.is_run() || said.max(of_run) == 0 {
            return Ok(None);
        }
        // Few steps have one, and a future is as large as its largest part.
        let run = Box::pin(self.begun_run(key, ground)).await?;
        Ok(run.or_else(|| (of_run > 0).then(|| RunTerms::forgotten(of_run))))
    }

    async fn begun_run(
        &self,
        key: &StepKey<'_>,
        ground: Ground<'_>,
    ) -> Result<Option<RunTerms>, ServiceError> {
        let key = StepKey::of_run(key.namespace, key.run);
        let Some(record) = self.confirmed(&key).await? else { return Ok(None) };
        let record = plan::counted(record, ground.now);
        let policy = self.in_force(&key, &record.policy, ground.configuration).await?;
        let terms = terms(&policy, &record.policy, ground.configuration, ground.salt, &[]);
        let run = RunTerms::of(&terms, &record);
        let retries_left = self.retries_left(&key, &run).await?;
        Ok(Some(RunTerms { retries_left, ..run }))
    }

    async fn retries_left(
        &self,
        key: &StepKey<'_>,
        run: &RunTerms,
    ) -> Result<Option<u64>, ServiceError> {
        let Some(most) = run.retries.max_total_retries else { return Ok(None) };
        let bound = Bound::of_run(key.run, run.created_at, most);
        let usage = self.store.usage(key.namespace, &bound, None).await?;
        Ok(usage.spent.map(|(spent, most)| most.saturating_sub(spent) / 1000))
    }

    /// A run as its steps see it; None when there is none.
    ///
    /// # Errors
    /// The store is away.
    pub async fn run(&self, key: &StepKey<'_>) -> Result<Option<RunTerms>, ServiceError> {
        let Loaded { configuration, salt, now, turn, .. } =
            self.store.load(key, Expect::Anything).await?;
        drop(turn);
        let ground = Ground { configuration: &configuration, salt, now };
        self.begun_run(key, ground).await
    }

    /// The steps of a run after the step `after`, by name, at most `limit`: those
    /// that somebody said to belong to it, of which `is_wanted`.
    ///
    /// # Errors
    /// The store is away.
    pub async fn run_steps(
        &self,
        run: &StepKey<'_>,
        is_wanted: impl Fn(&State) -> bool,
        after: &str,
        limit: usize,
    ) -> Result<Vec<RunStep>, ServiceError> {
        let mut after = after.to_owned();
        let mut found = Vec::new();
        loop {
            let names = self.store.run_steps(run.namespace, run.run, &after, TOGETHER).await?;
            let look = |step: &String| self.run_step(run, step.clone());
            let steps = try_join_all(names.iter().map(look)).await?;
            let wanted = steps.into_iter().flatten().filter(|step| is_wanted(&step.record.state));
            found.extend(wanted.take(limit - found.len()));
            match names.last() {
                Some(last) if found.len() < limit && names.len() == TOGETHER => {
                    after.clone_from(last);
                }
                _ => return Ok(found),
            }
        }
    }

    /// None when it was forgotten meanwhile.
    async fn run_step(
        &self,
        run: &StepKey<'_>,
        step: String,
    ) -> Result<Option<RunStep>, ServiceError> {
        let key = StepKey { step: &step, ..*run };
        let record = self.confirmed(&key).await?;
        Ok(record.map(|record| RunStep { step, record }))
    }

    /// A step as it is, not as it may be remembered; None when there is none.
    async fn confirmed(&self, key: &StepKey<'_>) -> Result<Option<Record>, ServiceError> {
        for _ in 0..ROUNDS {
            let Loaded { record, basis, turn: _turn, .. } =
                self.store.load(key, Expect::Anything).await?;
            if self.store.confirm(key, &basis).await? {
                return Ok(record);
            }
        }
        Err(ServiceError::Contended)
    }
}

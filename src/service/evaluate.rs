//! A dry run: failures decided one after the other, no step touched.

use std::{sync::Arc, time::Duration};

use super::{GivenPolicy, PolicyInForce, Service, ServiceError, terms};
use crate::{
    domain::{
        backoff::Window,
        decision::{Decision, Verdict},
        event::{AttemptName, Deadline, Event, Report, StepTerms},
        failure::Failure,
        id::{StepKey, StepName},
        plan::{self, Answer, Now, Plan},
        record::{PolicyChoice, Record},
        time::Timestamp,
    },
    store::{
        Expect, Store,
        configuration::{Configuration, PolicyRevision},
    },
};

/// Failures to be decided.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The imagined step; part of what jitter is drawn from.
    pub step: StepName,
    /// Its policy; None means the namespace's default.
    pub policy: Option<GivenPolicy>,
    /// Its kind; empty means none.
    pub kind: String,
    /// What happens to it, in order.
    pub failures: Vec<Failure>,
    /// Time from the start of the first attempt to its deadline.
    pub time_left: Option<Duration>,
}

/// The decisions of a dry run.
#[derive(Debug)]
pub struct Evaluated {
    /// The policy that was applied.
    pub policy: PolicyInForce,
    /// One for each failure, up to the first that ends the step.
    pub decisions: Vec<EvaluatedDecision>,
}

/// One decision of a dry run.
#[derive(Debug)]
pub struct EvaluatedDecision {
    /// The decision.
    pub decision: Decision,
    /// The waits between which jitter drew. None unless it is a RETRY.
    pub window: Option<Window>,
    /// When it was decided.
    pub at: Timestamp,
}

impl<S: Store> Service<S> {
    /// Decides failures without touching any step.
    ///
    /// # Errors
    /// An unknown or invalid policy, an unknown namespace, or the store is away.
    pub async fn evaluate(&self, evaluation: &Evaluation) -> Result<Evaluated, ServiceError> {
        let key = evaluation.step.key();
        let loaded = self.store.load(&key, Expect::Unknown).await?;
        let (choice, policy) =
            self.imagined_policy(&key, evaluation.policy.as_ref(), &loaded.configuration).await?;
        let terms = terms(&policy, &choice, &loaded.configuration, loaded.salt, &[]);
        let mut decisions = Vec::new();
        let mut record = None;
        let mut at = loaded.now.at;
        for (number, failure) in (1..).zip(&evaluation.failures) {
            at = at.plus(failure.duration.unwrap_or_default());
            let report = Event::Report(Report {
                attempt: AttemptName::Number(number),
                payload: 0,
                failure: Some(failure.clone()),
                step: imagined_terms(evaluation, number, loaded.now.at),
            });
            let Plan::Write(draft) = plan::plan(&terms, &key, record.take(), &report, Now::at(at))?
            else {
                break;
            };
            let window = draft.pending().and_then(plan::Pending::window);
            let admitted = draft.admitted();
            let settlement = plan::settle(*draft, &admitted);
            let Answer::Reported(reported) = settlement.answer else { break };
            let verdict = reported.decision.settled.verdict;
            decisions.push(EvaluatedDecision { decision: reported.decision, window, at });
            let Verdict::Retry(next) = verdict else { break };
            at = next;
            record = Some(settlement.record);
        }
        Ok(Evaluated { policy: policy.clone(), decisions })
    }

    /// The policy of a step that is only imagined: one given inline is parsed,
    /// and not remembered.
    async fn imagined_policy(
        &self,
        key: &StepKey<'_>,
        given: Option<&GivenPolicy>,
        configuration: &Configuration,
    ) -> Result<(PolicyChoice, PolicyInForce), ServiceError> {
        if let Some(GivenPolicy::Inline(spec)) = given {
            let revision = PolicyRevision::parse((**spec).clone(), 0, Timestamp::EPOCH)?;
            return Ok((
                PolicyChoice::Inline(revision.digest),
                PolicyInForce { name: None, revision: Arc::new(revision) },
            ));
        }
        let none: Option<&Record> = None;
        let choice = self.choice(key, given, none, configuration).await?;
        let policy = self.in_force(key, &choice, configuration).await?;
        Ok((choice, policy))
    }
}

fn imagined_terms(evaluation: &Evaluation, number: u32, began_at: Timestamp) -> StepTerms {
    if number > 1 {
        return StepTerms::default();
    }
    StepTerms {
        kind: evaluation.kind.clone(),
        deadline: evaluation.time_left.map(|left| Deadline::At(began_at.plus(left))),
        ..StepTerms::default()
    }
}

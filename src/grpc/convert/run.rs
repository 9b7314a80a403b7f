//! Runs: what workers ask of them, and what they are told.

use std::sync::Arc;

use super::{
    admin::{Page, page},
    answer::{self, Context},
    check::{Check, Invalid, Part},
    policy::write_resume,
    request::{
        Call, LABEL_MAX, attempt_name, begin_payload, deadline, failure, identity, inline_policy,
        lease, named_policy, report_payload, request_id,
    },
};
use crate::{
    domain::{
        event::{Begin, Comes, Report, StepTerms},
        id::StepName,
        plan::Answer,
        policy::RunRetries,
        record::Identity,
    },
    proto::{
        self, begin_attempt_response, begin_run_request, begin_run_response, report_run_request,
    },
    service::RunStep,
};

/// States that a list may be asked for, at most: all there are.
const STATES_MAX: usize = 16;

/// Reads a call of `BeginRun`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn begin(request: proto::BeginRunRequest) -> Result<Call<Begin>, Invalid> {
    let mut check = Check::default();
    let name = check.run(request.namespace, request.run);
    request_id(&mut check, &request.request_id);
    let policy = request.policy.and_then(|policy| match policy {
        begin_run_request::Policy::PolicyName(name) => named_policy(&mut check, &name),
        begin_run_request::Policy::InlinePolicy(policy) => Some(inline_policy(&mut check, policy)),
    });
    let lease = lease(&mut check, request.lease);
    check.text("host", &request.host, LABEL_MAX);
    check.text("worker", &request.worker, LABEL_MAX);
    let deadline = deadline(&mut check, request.deadline, request.time_left);
    let step = StepTerms { deadline, ..StepTerms::default() };
    let payload = begin_payload(&step, lease);
    let begin = Begin {
        identity: Identity { id: identity(&request.request_id), payload },
        lease,
        host: (!request.host.is_empty()).then(|| Arc::from(request.host)),
        worker: request.worker,
        comes: Comes::ByItself,
        step,
    };
    check.finish((name, policy, begin))
}

/// Reads a call of `ReportRun`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn report(request: proto::ReportRunRequest) -> Result<Call<Report>, Invalid> {
    let mut check = Check::default();
    let name = check.run(request.namespace, request.run);
    let attempt = attempt_name(&mut check, request.fence, request.attempt, &request.request_id);
    let policy = request.policy.and_then(|policy| match policy {
        report_run_request::Policy::PolicyName(name) => named_policy(&mut check, &name),
        report_run_request::Policy::InlinePolicy(policy) => Some(inline_policy(&mut check, policy)),
    });
    let failure = match request.outcome {
        Some(report_run_request::Outcome::Success(proto::Success {})) => None,
        Some(report_run_request::Outcome::Failure(given)) => {
            Some(check.within(Part::Field("failure"), |check| failure(check, given)))
        }
        None => {
            check.refuse("outcome", "", "required: success or failure");
            None
        }
    };
    let failure = failure
        .map(|failure| crate::domain::failure::Failure { of_step: request.step_failed, ..failure });
    let payload = report_payload(failure.as_ref());
    let deadline = deadline(&mut check, request.deadline, request.time_left);
    let step = StepTerms { deadline, ..StepTerms::default() };
    check.finish((name, policy, Report { attempt, payload, failure, step }))
}

/// Reads a call of `GetRun`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn get(request: proto::GetRunRequest) -> Result<StepName, Invalid> {
    let mut check = Check::default();
    let name = check.run(request.namespace, request.run);
    check.finish(name)
}

/// Which steps of which run, and the page.
pub type StepsWanted = (StepName, Vec<proto::StepState>, Page);

/// Reads a call of `ListRunSteps`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn list_steps(request: proto::ListRunStepsRequest) -> Result<StepsWanted, Invalid> {
    let mut check = Check::default();
    let name = check.run(request.namespace, request.run);
    let mut states = Vec::new();
    for (at, number) in request.states.iter().take(STATES_MAX).enumerate() {
        match proto::StepState::try_from(*number) {
            Ok(state) if state != proto::StepState::Unspecified => states.push(state),
            _ => check.within(Part::Item("states", at), |check| {
                check.refuse(
                    "",
                    number.to_string(),
                    "accepted: states of a step, 1 to 7, such as STEP_STATE_SUCCEEDED",
                );
            }),
        }
    }
    if request.states.len() > STATES_MAX {
        let given = format!("{} entries", request.states.len());
        check.refuse("states", given, format!("accepted: at most {STATES_MAX}"));
    }
    let page = page(&mut check, request.page_size, request.page_token);
    check.finish((name, states, page))
}

/// What is told of a run beside its record.
#[derive(Clone, Copy, Debug)]
pub struct RunContext {
    /// What its policy says about its steps.
    pub retries: RunRetries,
    /// Retries that they have left together; None where nothing bounds them.
    pub retries_left: Option<u64>,
}

/// The answer to `BeginRun`; None when `answer` is not one.
#[must_use]
pub fn begun(
    answer: Answer,
    run: RunContext,
    context: Context<'_>,
) -> Option<proto::BeginRunResponse> {
    use begin_attempt_response::Answer as Told;
    use begin_run_response::Answer as OfRun;
    let proto::BeginAttemptResponse { answer, replayed } = answer::begin(answer, context)?;
    let answer = match answer? {
        Told::Grant(grant) => OfRun::Grant(proto::RunGrant {
            attempt: grant.attempt,
            fence: grant.fence,
            lease_until: grant.lease_until,
            lease: grant.lease,
            heartbeat_every: grant.heartbeat_every,
            began_at: grant.began_at,
            counters: grant.counters,
            ends_by: grant.ends_by,
            policy: grant.policy,
            resume: write_resume(run.retries.resume) as i32,
            retries_left: run.retries_left,
        }),
        Told::Refusal(decision) => OfRun::Refusal(decision),
    };
    Some(proto::BeginRunResponse { answer: Some(answer), replayed })
}

/// The answer to `ReportRun`; None when `answer` is not one.
#[must_use]
pub fn reported(
    answer: Answer,
    retries: RunRetries,
    context: Context<'_>,
) -> Option<proto::ReportRunResponse> {
    let proto::ReportAttemptResponse { decision, attempt, status, replayed } =
        answer::report(answer, context)?;
    let goes_on = decision.as_ref().is_some_and(goes_on);
    let resume = if goes_on { write_resume(retries.resume) as i32 } else { 0 };
    Some(proto::ReportRunResponse { decision, attempt, status, replayed, resume })
}

fn goes_on(decision: &proto::Decision) -> bool {
    matches!(decision.verdict(), proto::Verdict::Retry | proto::Verdict::Wait)
}

/// A step in the answer to `ListRunSteps`.
#[must_use]
pub fn step(step: RunStep) -> proto::RunStep {
    proto::RunStep {
        step: step.step,
        state: answer::state_of(&step.record.state) as i32,
        counters: Some(answer::counters(&step.record.counters)),
        run_attempt: step.record.of_run,
    }
}

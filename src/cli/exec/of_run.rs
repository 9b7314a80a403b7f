//! A run asked for and reported like a step: to `exec` they are alike but for the
//! calls.

use std::time::Duration;

use tonic::{Status, transport::Channel};

use crate::{
    cli::call,
    proto::{
        BeginAttemptRequest, BeginAttemptResponse, BeginRunRequest, BeginRunResponse,
        GetRunRequest, Grant, ListRunStepsRequest, ReportAttemptRequest, ReportAttemptResponse,
        ReportRunRequest, ReportRunResponse, Run, StepState, begin_attempt_request,
        begin_attempt_response, begin_run_request, begin_run_response, report_attempt_request,
        report_run_request, retry_service_client::RetryServiceClient,
    },
};

/// Steps asked for in a call.
const PAGE: u32 = 1000;

type Client = RetryServiceClient<Channel>;

/// What is asked of a run that is asked for like a step.
pub fn begin(request: BeginAttemptRequest) -> BeginRunRequest {
    use begin_attempt_request::Policy as OfStep;
    use begin_run_request::Policy;
    BeginRunRequest {
        namespace: request.namespace,
        run: request.run,
        request_id: request.request_id,
        policy: request.policy.map(|policy| match policy {
            OfStep::PolicyName(name) => Policy::PolicyName(name),
            OfStep::InlinePolicy(policy) => Policy::InlinePolicy(policy),
        }),
        lease: request.lease,
        host: request.host,
        worker: request.worker,
        deadline: request.deadline,
        time_left: request.time_left,
    }
}

/// The answer, as that to a step.
pub fn begun(response: BeginRunResponse) -> BeginAttemptResponse {
    use begin_attempt_response::Answer;
    use begin_run_response::Answer as OfRun;
    let answer = response.answer.map(|answer| match answer {
        OfRun::Grant(grant) => Answer::Grant(Grant {
            attempt: grant.attempt,
            fence: grant.fence,
            lease_until: grant.lease_until,
            lease: grant.lease,
            heartbeat_every: grant.heartbeat_every,
            began_at: grant.began_at,
            counters: grant.counters,
            ends_by: grant.ends_by,
            policy: grant.policy,
            run_retries_left: grant.retries_left,
            ..Grant::default()
        }),
        OfRun::Refusal(decision) => Answer::Refusal(decision),
    });
    BeginAttemptResponse { answer, replayed: response.replayed }
}

/// What is reported of a run that is reported like a step; `step_failed` where a
/// step of it is why.
pub fn report(request: ReportAttemptRequest, step_failed: bool) -> ReportRunRequest {
    use report_attempt_request::{Outcome as OfStep, Policy as PolicyOfStep};
    use report_run_request::{Outcome, Policy};
    ReportRunRequest {
        namespace: request.namespace,
        run: request.run,
        fence: request.fence,
        attempt: request.attempt,
        request_id: request.request_id,
        outcome: request.outcome.map(|outcome| match outcome {
            OfStep::Success(success) => Outcome::Success(success),
            OfStep::Failure(failure) => Outcome::Failure(failure),
        }),
        step_failed,
        policy: request.policy.map(|policy| match policy {
            PolicyOfStep::PolicyName(name) => Policy::PolicyName(name),
            PolicyOfStep::InlinePolicy(policy) => Policy::InlinePolicy(policy),
        }),
        deadline: request.deadline,
        time_left: request.time_left,
    }
}

/// Whether a step is why the attempt of a run failed, as far as can be seen from
/// outside: one has failed for good in it.
pub async fn step_failed(
    client: &mut Client,
    request: &ReportAttemptRequest,
    within: Duration,
) -> Result<bool, Status> {
    let is_failure = matches!(request.outcome, Some(report_attempt_request::Outcome::Failure(_)));
    // Without a fence nobody has begun the attempt, so that no step names it.
    if !is_failure || request.fence == 0 {
        return Ok(false);
    }
    let (namespace, run) = (request.namespace.clone(), request.run.clone());
    let get = GetRunRequest { namespace: namespace.clone(), run: run.clone() };
    let begun = client.get_run(call::request(get, within)).await?.into_inner().run;
    let attempt = attempt_of(begun.unwrap_or_default());
    let mut list = ListRunStepsRequest {
        namespace,
        run,
        states: vec![StepState::Failed as i32],
        page_size: PAGE,
        page_token: String::new(),
    };
    loop {
        let page = client.list_run_steps(call::request(list.clone(), within)).await?.into_inner();
        if page.steps.iter().any(|step| step.run_attempt == attempt) {
            return Ok(true);
        }
        if page.next_page_token.is_empty() {
            return Ok(false);
        }
        list.page_token = page.next_page_token;
    }
}

fn attempt_of(run: Run) -> u32 {
    run.record.and_then(|record| record.counters).map_or(0, |counters| counters.attempts)
}

/// The answer, as that to a step.
pub fn reported(response: ReportRunResponse) -> ReportAttemptResponse {
    let ReportRunResponse { decision, attempt, status, replayed, resume: _ } = response;
    ReportAttemptResponse { decision, attempt, status, replayed }
}

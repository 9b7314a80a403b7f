//! A run asked for and reported like a step: to `exec` they are alike but for the
//! calls.

use crate::proto::{
    BeginAttemptRequest, BeginAttemptResponse, BeginRunRequest, BeginRunResponse, Grant,
    ReportAttemptRequest, ReportAttemptResponse, ReportRunRequest, ReportRunResponse,
    begin_attempt_request, begin_attempt_response, begin_run_request, begin_run_response,
    report_attempt_request, report_run_request,
};

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

/// What is reported of a run that is reported like a step.
pub fn report(request: ReportAttemptRequest) -> ReportRunRequest {
    use report_attempt_request::Outcome as OfStep;
    use report_run_request::Outcome;
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
        step_failed: false,
    }
}

/// The answer, as that to a step.
pub fn reported(response: ReportRunResponse) -> ReportAttemptResponse {
    let ReportRunResponse { decision, attempt, status, replayed, resume: _ } = response;
    ReportAttemptResponse { decision, attempt, status, replayed }
}

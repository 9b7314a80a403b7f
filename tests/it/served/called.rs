//! The service as a client of the contract meets it, over a socket.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reprise::{
    chance,
    grpc::{
        listener::{Listener, ListenerSettings},
        retry::Retry,
    },
    proto::{
        self, BeginAttemptRequest, BeginRunRequest, Decision, Executed, FailureClass,
        GetRunRequest, GetStepRequest, HeartbeatRequest, LeaseState, Outcome, ReportAttemptRequest,
        ReportRunRequest, ReportStatus, StepState, Success, Verdict,
        begin_attempt_response::Answer, begin_run_request, begin_run_response, failure::Code,
        pushback::Until, report_attempt_request, report_run_request,
        retry_service_client::RetryServiceClient, retry_service_server::RetryServiceServer,
    },
    store::Store,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, service::Routes, transport::Channel};
use tonic_types::StatusExt as _;

use super::{Served, step_name};
use crate::{
    history::{
        Begin, Call, Counts, Failed, Granted, Name, Observed, Op, Problem, Pushback, RUN, Seen,
        Status as Taken, Subject, View,
    },
    process::channel,
    rule,
};

/// Calls over a socket to the service beneath. Ticks have no call: they are the
/// service's own.
pub struct Called<S> {
    pub served: Served<S>,
    client: RetryServiceClient<Channel>,
    _serving: DropGuard,
}

impl<S: Store> Called<S> {
    pub fn over(served: Served<S>) -> Self {
        let _within = served.runtime.enter();
        let retry = Retry::new(Arc::clone(&served.service), served.clock.clone());
        let listen = ["127.0.0.1:0".parse().unwrap()];
        let listener = Listener::bind(&listen, ListenerSettings::default(), chance::unit).unwrap();
        let client = RetryServiceClient::new(channel(&listener.addresses()[0].to_string()));
        let stop = CancellationToken::new();
        let routes = Routes::new(RetryServiceServer::new(retry));
        served.runtime.spawn(listener.serve(routes, stop.clone()));
        drop(_within);
        Self { served, client, _serving: stop.drop_guard() }
    }

    fn begin(&mut self, step: u8, request: u64, said: &Begin) -> Result<Observed, Status> {
        if step == RUN {
            return self.begin_run(request, said);
        }
        let request = BeginAttemptRequest {
            namespace: self.served.namespace(),
            run: self.served.run(),
            step: step_name(step),
            request_id: request_id(request),
            lease: said.lease.map(span),
            host: said.host.clone(),
            kind: said.kind.clone(),
            time_left: said.time_left.map(span),
            run_attempt: said.of_run,
            ..BeginAttemptRequest::default()
        };
        let begun = self.served.runtime.block_on(self.client.begin_attempt(request))?.into_inner();
        Ok(match begun.answer.expect("an answer") {
            Answer::Grant(grant) => Observed::Granted(granted(&grant, begun.replayed)),
            Answer::Refusal(decision) => Observed::Refused(seen(&decision)),
        })
    }

    fn begin_run(&mut self, request: u64, said: &Begin) -> Result<Observed, Status> {
        let policy = begin_run_request::Policy::PolicyName(self.served.of_run());
        let request = BeginRunRequest {
            namespace: self.served.namespace(),
            run: self.served.run(),
            request_id: request_id(request),
            policy: Some(policy),
            lease: said.lease.map(span),
            host: said.host.clone(),
            time_left: said.time_left.map(span),
            ..BeginRunRequest::default()
        };
        let begun = self.served.runtime.block_on(self.client.begin_run(request))?.into_inner();
        Ok(match begun.answer.expect("an answer") {
            begin_run_response::Answer::Grant(grant) => Observed::Granted(Granted {
                attempt: grant.attempt,
                fence: grant.fence,
                began_at: instant(grant.began_at).expect("it began"),
                lease_until: instant(grant.lease_until).expect("it has a lease"),
                replayed: begun.replayed,
                // Runs are told no hosts; who excluded one is told when refused.
                excluded_hosts: Vec::new(),
                ends_by: instant(grant.ends_by),
                counters: counts(grant.counters.as_ref()),
            }),
            begin_run_response::Answer::Refusal(decision) => Observed::Refused(seen(&decision)),
        })
    }

    fn heartbeat(
        &mut self,
        step: u8,
        fence: u64,
        lease: Option<u64>,
        progress: Option<u64>,
    ) -> Result<Observed, Status> {
        let request = HeartbeatRequest {
            namespace: self.served.namespace(),
            run: self.served.run(),
            step: step_name(step),
            fence,
            lease: lease.map(span),
            progress,
        };
        let beat = self.served.runtime.block_on(self.client.heartbeat(request))?.into_inner();
        Ok(match beat.state() {
            LeaseState::Held => {
                let lease_until = instant(beat.lease_until).expect("it is held");
                Observed::Held { lease_until, cancel: beat.cancel_requested }
            }
            LeaseState::Lost => Observed::Lost,
            LeaseState::Unspecified => panic!("never sent"),
        })
    }

    fn report(
        &mut self,
        step: u8,
        name: Name,
        failure: Option<&Failed>,
    ) -> Result<Observed, Status> {
        if step == RUN {
            return self.report_run(name, failure);
        }
        let outcome = match failure {
            None => report_attempt_request::Outcome::Success(Success {}),
            Some(failed) => report_attempt_request::Outcome::Failure(failure_of(failed)),
        };
        let mut request = ReportAttemptRequest {
            namespace: self.served.namespace(),
            run: self.served.run(),
            step: step_name(step),
            outcome: Some(outcome),
            ..ReportAttemptRequest::default()
        };
        match name {
            Name::Fence(fence) => request.fence = fence,
            Name::Number(number) => request.attempt = number,
            Name::Request(id) => request.request_id = request_id(id),
        }
        let report =
            self.served.runtime.block_on(self.client.report_attempt(request))?.into_inner();
        let status = taken(report.status());
        let decision = seen(&report.decision.expect("a decision"));
        let (attempt, replayed) = (report.attempt, report.replayed);
        Ok(Observed::Reported { attempt, status, replayed, decision })
    }

    fn report_run(&mut self, name: Name, failure: Option<&Failed>) -> Result<Observed, Status> {
        let outcome = match failure {
            None => report_run_request::Outcome::Success(Success {}),
            Some(failed) => report_run_request::Outcome::Failure(failure_of(failed)),
        };
        let mut request = ReportRunRequest {
            namespace: self.served.namespace(),
            run: self.served.run(),
            outcome: Some(outcome),
            step_failed: failure.is_some_and(|failed| failed.of_step),
            ..ReportRunRequest::default()
        };
        match name {
            Name::Fence(fence) => request.fence = fence,
            Name::Number(number) => request.attempt = number,
            Name::Request(id) => request.request_id = request_id(id),
        }
        let report = self.served.runtime.block_on(self.client.report_run(request))?.into_inner();
        let status = taken(report.status());
        let decision = seen(&report.decision.expect("a decision"));
        let (attempt, replayed) = (report.attempt, report.replayed);
        Ok(Observed::Reported { attempt, status, replayed, decision })
    }

    /// The step, or the run.
    fn shown(&mut self, step: u8) -> Result<proto::Step, Status> {
        let (namespace, run) = (self.served.namespace(), self.served.run());
        if step == RUN {
            let request = GetRunRequest { namespace, run };
            let shown = self.served.runtime.block_on(self.client.get_run(request))?;
            let run = shown.into_inner().run.expect("a run");
            return Ok(run.record.expect("a record"));
        }
        let request = GetStepRequest { namespace, run, step: step_name(step) };
        let shown = self.served.runtime.block_on(self.client.get_step(request))?;
        Ok(shown.into_inner().step.expect("a step"))
    }
}

fn taken(status: ReportStatus) -> Taken {
    match status {
        ReportStatus::Recorded => Taken::Recorded,
        ReportStatus::Stale => Taken::Stale,
        ReportStatus::Late => Taken::Late,
        ReportStatus::Unspecified => panic!("never sent"),
    }
}

impl<S: Store> Subject for Called<S> {
    fn apply(&mut self, op: &Op) -> Observed {
        self.served.reach(op.at);
        let observed = match &op.call {
            Call::Begin { request, said } => self.begin(op.step, *request, said),
            Call::Heartbeat { fence, lease, progress } => {
                self.heartbeat(op.step, *fence, *lease, *progress)
            }
            Call::Report { name, failure } => self.report(op.step, *name, failure.as_ref()),
            // Orders and ticks are no calls of workers.
            Call::Order { .. } => {
                let ordered = self.served.happens(op.step, &rule::event(&op.call));
                Ok(ordered.unwrap_or_else(Observed::Failed))
            }
            Call::Tick => Ok(self.served.tick(op.step)),
        };
        observed
            .unwrap_or_else(|status| Observed::Failed(problem(&status)))
            .earlier_by(self.served.shift())
    }

    fn look(&mut self, step: u8) -> Option<View> {
        match self.shown(step) {
            Ok(step) => Some(view(&step).earlier_by(self.served.shift())),
            Err(status) if problem(&status) == Problem::UnknownStep => None,
            Err(status) => panic!("{status:?}"),
        }
    }
}

/// Sixteen bytes for an id of a history.
fn request_id(id: u64) -> prost::bytes::Bytes {
    [id.to_be_bytes(), id.to_be_bytes()].concat().into()
}

fn span(micros: u64) -> prost_types::Duration {
    Duration::from_micros(micros).try_into().unwrap()
}

fn instant(at: Option<prost_types::Timestamp>) -> Option<u64> {
    at.map(|at| {
        let nanos = u64::try_from(at.nanos).unwrap();
        u64::try_from(at.seconds).unwrap() * 1_000_000 + nanos / 1_000
    })
}

fn failure_of(failed: &Failed) -> proto::Failure {
    let wishes = failed.wish_retries.is_some() || failed.wish_delay.is_some();
    let class = format!("FAILURE_CLASS_{}", failed.class);
    proto::Failure {
        class: FailureClass::from_str_name(&class).expect("a class").into(),
        code: failed.http.map(|http| Code::HttpStatus(http.into())),
        exit_code: failed.exit,
        host: failed.host.clone(),
        duration: failed.ran.map(span),
        pushback: failed.pushback.map(|pushback| proto::Pushback {
            until: Some(match pushback {
                Pushback::After(micros) => Until::After(span(micros)),
                Pushback::Never => Until::Never(true),
            }),
        }),
        wish: wishes.then(|| proto::RetryWish {
            max_retries: failed.wish_retries,
            delay: failed.wish_delay.map(span),
        }),
        retryable: (!failed.retryable).then_some(false),
        executed: if failed.unstarted { Executed::No } else { Executed::Unspecified }.into(),
        action: failed.action.clone(),
        ..proto::Failure::default()
    }
}

fn problem(status: &Status) -> Problem {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("{status:?}"));
    match &*info.reason {
        "IDENTITY_REUSED" => Problem::IdentityReused,
        "STEP_NOT_FOUND" | "RUN_NOT_FOUND" => Problem::UnknownStep,
        "RUN_ATTEMPT_UNKNOWN" => Problem::RunAttempt(info.metadata["begun"].parse().unwrap()),
        "ATTEMPT_GAP" => Problem::AttemptGap(info.metadata["next"].parse().unwrap()),
        _ => panic!("{status:?}"),
    }
}

fn granted(grant: &proto::Grant, replayed: bool) -> Granted {
    Granted {
        attempt: grant.attempt,
        fence: grant.fence,
        began_at: instant(grant.began_at).expect("it began"),
        lease_until: instant(grant.lease_until).expect("it has a lease"),
        replayed,
        excluded_hosts: grant
            .excluded_hosts
            .iter()
            .map(|excluded| (excluded.host.clone(), excluded.hard))
            .collect(),
        ends_by: instant(grant.ends_by),
        counters: counts(grant.counters.as_ref()),
    }
}

fn seen(decision: &Decision) -> Seen {
    let verdict = match decision.verdict() {
        Verdict::Retry => "RETRY",
        Verdict::Wait => "WAIT",
        Verdict::Stop => "STOP",
        Verdict::Hold => "HOLD",
        Verdict::Done => "DONE",
        Verdict::Unspecified => panic!("never sent"),
    };
    Seen {
        verdict,
        at: instant(decision.not_before.or(decision.held_until)),
        reason: without("REASON_", decision.reason().as_str_name()),
        rule: decision.rule.clone(),
        counters: counts(decision.counters.as_ref()),
        decided_at: instant(decision.decided_at).expect("it was decided"),
        hold_answers: decision
            .hold_answers()
            .map(|answer| without("HOLD_ANSWER_", answer.as_str_name()))
            .collect(),
    }
}

fn without(prefix: &str, name: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

fn counts(counters: Option<&proto::Counters>) -> Counts {
    let counters = counters.expect("counters");
    Counts {
        attempts: counters.attempts,
        retries: counters.retries,
        uncounted: counters.uncounted,
        crashes: counters.crashes,
        by_rule: counters.retries_by_rule.clone().into_iter().collect::<BTreeMap<_, _>>(),
    }
}

fn view(step: &proto::Step) -> View {
    let state = match step.state() {
        StepState::Waiting => "WAITING",
        StepState::Running => "RUNNING",
        StepState::Held => "HELD",
        StepState::Succeeded => "SUCCEEDED",
        StepState::Failed => "FAILED",
        StepState::Skipped => "SKIPPED",
        StepState::Canceled => "CANCELED",
        StepState::Unspecified => panic!("never sent"),
    };
    let decision = step.decision.as_ref().filter(|_| state != "RUNNING");
    let held_until = decision.filter(|_| state == "HELD").and_then(|decision| decision.held_until);
    View {
        state,
        next_at: instant(step.next_event_at.or(held_until)),
        counters: counts(step.counters.as_ref()),
        attempts: step.attempts.iter().map(|attempt| (attempt.number, ended(attempt))).collect(),
        decision: decision.map(|decision| Seen { hold_answers: Vec::new(), ..seen(decision) }),
        resume_from: step.resume_from.clone(),
        progress: step.progress,
        extra_retries: step.extra_retries,
        is_to_stop: step.cancel_requested,
    }
}

/// How an attempt ended; empty while it runs.
fn ended(attempt: &proto::Attempt) -> String {
    match attempt.outcome() {
        Outcome::Unspecified => String::new(),
        Outcome::Success => "SUCCESS".to_owned(),
        Outcome::Crash => "CRASH".to_owned(),
        Outcome::Failure => without("FAILURE_CLASS_", attempt.class().as_str_name()),
    }
}

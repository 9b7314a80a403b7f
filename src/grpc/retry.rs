//! What workers call.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{
    future::join_all,
    stream::{BoxStream, StreamExt as _, try_unfold},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{
    convert::{
        admin::page_token,
        answer::{self, Context},
        check::Invalid,
        policy::write_resume,
        request::{self, Batch, Call},
        run::{self, RunContext, StepsWanted},
    },
    listener::farewell,
    status,
};
use crate::{
    clock::Clock,
    domain::{
        event::{Begin, Event, Heartbeat, Report},
        id::{StepKey, StepName},
        record::State,
        time::Timestamp,
    },
    proto::{self, retry_service_server::RetryService},
    service::{Awaited, Claim, GivenPolicy, Handed, Handled, Service, ServiceError, Supply},
    store::Store,
    telemetry::{MethodMetrics, Telemetry},
};

/// Steps as they come due.
type DueStream = BoxStream<'static, Result<proto::StreamDueResponse, Status>>;

/// The workers' calls on a service.
#[derive(Debug)]
pub struct Retry<S> {
    service: Arc<Service<S>>,
    clock: Clock,
    metrics: Metrics,
}

#[derive(Debug)]
struct Metrics {
    begin: MethodMetrics,
    heartbeat: MethodMetrics,
    report: MethodMetrics,
    batch: MethodMetrics,
    await_decision: MethodMetrics,
    claim_due: MethodMetrics,
    /// How streams were opened; what follows has no end to measure.
    stream_due: MethodMetrics,
    get_step: MethodMetrics,
    begin_run: MethodMetrics,
    report_run: MethodMetrics,
    get_run: MethodMetrics,
    list_run_steps: MethodMetrics,
}

impl<S: Store> Retry<S> {
    /// The workers' calls on `service`.
    #[must_use]
    pub fn new(service: Arc<Service<S>>, clock: Clock) -> Self {
        let metrics = Metrics::new(service.telemetry());
        Self { service, clock, metrics }
    }

    async fn apply(
        &self,
        step: &StepName,
        given: Option<&GivenPolicy>,
        event: &Event,
    ) -> Result<Handled, Status> {
        self.service
            .apply(&step.key(), given, event)
            .await
            .map_err(|error| status::service(&error, &step.key(), "inline_policy"))
    }

    async fn report(
        &self,
        step: &StepName,
        given: Option<&GivenPolicy>,
        report: &Event,
    ) -> Result<proto::ReportAttemptResponse, Status> {
        let handled = self.apply(step, given, report).await?;
        let context = Context { at: handled.at, policy: handled.policy.stamp() };
        answer::report(handled.answer, context).ok_or_else(status::mismatched)
    }

    /// Records how a call that began at `started` ended, and how long it took.
    fn measured<T>(
        &self,
        metrics: &MethodMetrics,
        started: Timestamp,
        answer: Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let seconds = (self.clock.now() - started).as_secs_f64();
        metrics
            .ended(answer.as_ref().err().map(|status| status::code_name(status.code())), seconds);
        answer.map(Response::new)
    }

    async fn begin_attempt(
        &self,
        call: Result<Call<Begin>, Invalid>,
    ) -> Result<proto::BeginAttemptResponse, Status> {
        let (step, given, begin) = call?;
        let handled = self.apply(&step, given.as_ref(), &Event::Begin(begin)).await?;
        let context = Context { at: handled.at, policy: handled.policy.stamp() };
        answer::begin(handled.answer, context).ok_or_else(status::mismatched)
    }

    async fn heartbeat(
        &self,
        call: Result<(StepName, Heartbeat), Invalid>,
    ) -> Result<proto::HeartbeatResponse, Status> {
        let (step, heartbeat) = call?;
        let handled = self.apply(&step, None, &Event::Heartbeat(heartbeat)).await?;
        answer::heartbeat(&handled.answer, handled.at).ok_or_else(status::mismatched)
    }

    async fn report_attempt(
        &self,
        call: Result<Call<Report>, Invalid>,
    ) -> Result<proto::ReportAttemptResponse, Status> {
        let (step, given, report) = call?;
        self.report(&step, given.as_ref(), &Event::Report(report)).await
    }

    /// Reports of different steps are made durable together: all are handed to
    /// the store before the first is waited for. Those of one step follow each
    /// other, since the first may have to wait for its policy to be kept.
    async fn batch(
        &self,
        batch: Result<Batch, Invalid>,
    ) -> Result<proto::BatchReportAttemptsResponse, Status> {
        let batch = batch?;
        let mut lines: BTreeMap<String, Vec<(usize, Call<Report>)>> = BTreeMap::new();
        let mut results = Vec::with_capacity(batch.reports.len());
        for (at, report) in batch.reports.into_iter().enumerate() {
            match report {
                Ok(call) => {
                    let step = call.0.key().joined();
                    let line = if planted!("batch-overtaken") { at.to_string() } else { step };
                    lines.entry(line).or_default().push((at, call));
                }
                Err(rejected) => {
                    let refused = Err(rejected.invalid.into());
                    results.push((at, answer::batch_result(rejected.run, rejected.step, refused)));
                }
            }
        }
        let carried_out = join_all(lines.into_values().map(|line| self.in_line(line))).await;
        results.extend(carried_out.into_iter().flatten());
        results.sort_by_key(|(at, _)| *at);
        let results = results.into_iter().map(|(_, result)| result).collect();
        Ok(proto::BatchReportAttemptsResponse { results })
    }

    /// Reports of one step, each after the one before it.
    async fn in_line(
        &self,
        line: Vec<(usize, Call<Report>)>,
    ) -> Vec<(usize, proto::BatchReportResult)> {
        let mut results = Vec::with_capacity(line.len());
        for (at, (step, given, report)) in line {
            let answer = self.report(&step, given.as_ref(), &Event::Report(report)).await;
            results.push((at, answer::batch_result(step.run, step.step, answer)));
        }
        results
    }

    async fn await_decision(
        &self,
        call: Result<(StepName, Duration), Invalid>,
    ) -> Result<proto::AwaitDecisionResponse, Status> {
        let (step, timeout) = call?;
        let key = step.key();
        let until = Instant::now() + timeout;
        let awaited = self.service.await_decision(&key, until).await;
        let Awaited { end, decision, policy, at } =
            awaited.map_err(|error| status::service(&error, &key, ""))?;
        Ok(answer::awaited(end, decision, Context { at, policy: policy.stamp() }))
    }

    async fn claim_due(
        &self,
        call: Result<(Claim, Duration), Invalid>,
    ) -> Result<proto::ClaimDueResponse, Status> {
        let (claim, timeout) = call?;
        let claimed = self.service.claim(&claim, Instant::now() + timeout).await;
        // No step is named, so that an error is the store's.
        let key = StepKey { namespace: &claim.namespace, run: "", step: "" };
        let claimed = claimed.map_err(|error| status::service(&error, &key, ""))?;
        let steps = claimed.into_iter().map(answer::claimed).collect();
        Ok(proto::ClaimDueResponse { steps })
    }

    fn stream_due(&self, call: Result<(Claim, Vec<Handed>), Invalid>) -> Result<DueStream, Status> {
        let (claim, running) = call?;
        let supply = Supply::new(Arc::clone(&self.service), claim, running, farewell());
        // It is asked for more only when what it gave before has been handed to the
        // connection, which takes no more than the client is ready to read.
        let steps = try_unfold(supply, |mut supply| async {
            let claimed = supply.next().await;
            let key = StepKey { namespace: supply.namespace(), run: "", step: "" };
            let claimed = claimed.map_err(|error| status::service(&error, &key, ""))?;
            Ok(claimed.map(|claimed| {
                let steps = claimed.into_iter().map(answer::claimed).collect();
                (proto::StreamDueResponse { steps }, supply)
            }))
        });
        Ok(steps.boxed())
    }

    async fn step(
        &self,
        name: Result<StepName, Invalid>,
    ) -> Result<proto::GetStepResponse, Status> {
        let name = name?;
        let key = name.key();
        let view = self
            .service
            .step(&key)
            .await
            .map_err(|error: ServiceError| status::service(&error, &key, ""))?;
        Ok(proto::GetStepResponse { step: Some(answer::step_of(key, &view)) })
    }

    async fn begin_run(
        &self,
        call: Result<Call<Begin>, Invalid>,
    ) -> Result<proto::BeginRunResponse, Status> {
        let (name, given, begin) = call?;
        let handled = self.apply(&name, given.as_ref(), &Event::Begin(begin)).await?;
        let run = self.run_context(&name).await?;
        let context = Context { at: handled.at, policy: handled.policy.stamp() };
        run::begun(handled.answer, run, context).ok_or_else(status::mismatched)
    }

    async fn report_run(
        &self,
        call: Result<Call<Report>, Invalid>,
    ) -> Result<proto::ReportRunResponse, Status> {
        let (name, policy, report) = call?;
        let handled = self.apply(&name, policy.as_ref(), &Event::Report(report)).await?;
        let retries = handled.policy.revision.policy.run;
        let context = Context { at: handled.at, policy: handled.policy.stamp() };
        run::reported(handled.answer, retries, context).ok_or_else(status::mismatched)
    }

    async fn run(&self, name: Result<StepName, Invalid>) -> Result<proto::GetRunResponse, Status> {
        let name = name?;
        let key = name.key();
        let view = self.service.step(&key).await;
        let view = view.map_err(|error| status::service(&error, &key, ""))?;
        let RunContext { retries, retries_left } = self.run_context(&name).await?;
        let context = Context { at: view.at, policy: view.policy.stamp() };
        let record = answer::step(key, &view.record, &view.evidence, view.ends_by, context);
        let resume = write_resume(retries.resume) as i32;
        let run = proto::Run { record: Some(record), resume, retries_left };
        Ok(proto::GetRunResponse { run: Some(run) })
    }

    async fn run_steps(
        &self,
        call: Result<StepsWanted, Invalid>,
    ) -> Result<proto::ListRunStepsResponse, Status> {
        let (name, states, page) = call?;
        let key = name.key();
        let is_wanted =
            |state: &State| states.is_empty() || states.contains(&answer::state_of(state));
        let after = page.after.unwrap_or_default();
        let steps = self.service.run_steps(&key, is_wanted, &after, page.size).await;
        let steps = steps.map_err(|error| status::service(&error, &key, ""))?;
        let last = steps.last().filter(|_| steps.len() == page.size);
        let next_page_token = last.map(|last| page_token(&last.step)).unwrap_or_default();
        let steps = steps.into_iter().map(run::step).collect();
        Ok(proto::ListRunStepsResponse { steps, next_page_token })
    }

    /// What is told of a run beside its record.
    async fn run_context(&self, name: &StepName) -> Result<RunContext, Status> {
        let key = name.key();
        let run = self.service.run(&key).await;
        let run = run.map_err(|error| status::service(&error, &key, ""))?;
        let (retries, left) = run.map(|run| (run.retries, run.retries_left)).unwrap_or_default();
        Ok(RunContext { retries, retries_left: left })
    }
}

impl Metrics {
    fn new(telemetry: &Telemetry) -> Self {
        Self {
            begin: telemetry.method("BeginAttempt"),
            heartbeat: telemetry.method("Heartbeat"),
            report: telemetry.method("ReportAttempt"),
            batch: telemetry.method("BatchReportAttempts"),
            await_decision: telemetry.method("AwaitDecision"),
            claim_due: telemetry.method("ClaimDue"),
            stream_due: telemetry.method("StreamDue"),
            get_step: telemetry.method("GetStep"),
            begin_run: telemetry.method("BeginRun"),
            report_run: telemetry.method("ReportRun"),
            get_run: telemetry.method("GetRun"),
            list_run_steps: telemetry.method("ListRunSteps"),
        }
    }
}

// Requests are read before the first wait. A future that held one beside what
// was read from it, or inside of a future that measures it, would be several
// times as large, and each call's future is copied to the heap.
#[tonic::async_trait]
impl<S: Store> RetryService for Retry<S> {
    type StreamDueStream = DueStream;

    async fn begin_attempt(
        &self,
        request: Request<proto::BeginAttemptRequest>,
    ) -> Result<Response<proto::BeginAttemptResponse>, Status> {
        let started = self.clock.now();
        let answer = self.begin_attempt(request::begin(request.into_inner())).await;
        self.measured(&self.metrics.begin, started, answer)
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        let started = self.clock.now();
        let answer = self.heartbeat(request::heartbeat(request.into_inner())).await;
        self.measured(&self.metrics.heartbeat, started, answer)
    }

    async fn report_attempt(
        &self,
        request: Request<proto::ReportAttemptRequest>,
    ) -> Result<Response<proto::ReportAttemptResponse>, Status> {
        let started = self.clock.now();
        let answer = self.report_attempt(request::report(request.into_inner())).await;
        self.measured(&self.metrics.report, started, answer)
    }

    async fn batch_report_attempts(
        &self,
        request: Request<proto::BatchReportAttemptsRequest>,
    ) -> Result<Response<proto::BatchReportAttemptsResponse>, Status> {
        let started = self.clock.now();
        let answer = self.batch(request::batch(request.into_inner())).await;
        self.measured(&self.metrics.batch, started, answer)
    }

    async fn await_decision(
        &self,
        request: Request<proto::AwaitDecisionRequest>,
    ) -> Result<Response<proto::AwaitDecisionResponse>, Status> {
        let started = self.clock.now();
        let answer = self.await_decision(request::await_decision(request.into_inner())).await;
        self.measured(&self.metrics.await_decision, started, answer)
    }

    async fn claim_due(
        &self,
        request: Request<proto::ClaimDueRequest>,
    ) -> Result<Response<proto::ClaimDueResponse>, Status> {
        let started = self.clock.now();
        let answer = self.claim_due(request::claim_due(request.into_inner())).await;
        self.measured(&self.metrics.claim_due, started, answer)
    }

    async fn stream_due(
        &self,
        request: Request<proto::StreamDueRequest>,
    ) -> Result<Response<DueStream>, Status> {
        let started = self.clock.now();
        let answer = self.stream_due(request::stream_due(request.into_inner()));
        self.measured(&self.metrics.stream_due, started, answer)
    }

    async fn get_step(
        &self,
        request: Request<proto::GetStepRequest>,
    ) -> Result<Response<proto::GetStepResponse>, Status> {
        let started = self.clock.now();
        let answer = self.step(request::get_step(request.into_inner())).await;
        self.measured(&self.metrics.get_step, started, answer)
    }

    async fn begin_run(
        &self,
        request: Request<proto::BeginRunRequest>,
    ) -> Result<Response<proto::BeginRunResponse>, Status> {
        let started = self.clock.now();
        let answer = self.begin_run(run::begin(request.into_inner())).await;
        self.measured(&self.metrics.begin_run, started, answer)
    }

    async fn report_run(
        &self,
        request: Request<proto::ReportRunRequest>,
    ) -> Result<Response<proto::ReportRunResponse>, Status> {
        let started = self.clock.now();
        let answer = self.report_run(run::report(request.into_inner())).await;
        self.measured(&self.metrics.report_run, started, answer)
    }

    async fn get_run(
        &self,
        request: Request<proto::GetRunRequest>,
    ) -> Result<Response<proto::GetRunResponse>, Status> {
        let started = self.clock.now();
        let answer = self.run(run::get(request.into_inner())).await;
        self.measured(&self.metrics.get_run, started, answer)
    }

    async fn list_run_steps(
        &self,
        request: Request<proto::ListRunStepsRequest>,
    ) -> Result<Response<proto::ListRunStepsResponse>, Status> {
        let started = self.clock.now();
        let answer = self.run_steps(run::list_steps(request.into_inner())).await;
        self.measured(&self.metrics.list_run_steps, started, answer)
    }
}

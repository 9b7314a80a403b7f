//! A service that answers from a script and remembers what it was asked.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use reprise::proto::{
    self, AwaitDecisionRequest, AwaitDecisionResponse, BatchReportAttemptsRequest,
    BatchReportAttemptsResponse, BeginAttemptRequest, BeginAttemptResponse, ClaimDueRequest,
    ClaimDueResponse, Counters, Decision, GetStepRequest, GetStepResponse, Grant, HeartbeatRequest,
    HeartbeatResponse, LeaseState, PolicyReference, Reason, ReportAttemptRequest,
    ReportAttemptResponse, ReportStatus, StreamDueRequest, StreamDueResponse, Verdict,
    begin_attempt_response::Answer,
    retry_service_server::{RetryService, RetryServiceServer},
};
use tokio::{
    net::UnixListener,
    runtime::{self, Runtime},
    sync::watch,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, async_trait, transport::Server};

/// What a service was asked, in order.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a test remembers a handful of them")]
pub enum Call {
    Begin(BeginAttemptRequest),
    Heartbeat(HeartbeatRequest),
    Report(ReportAttemptRequest),
}

/// Answers in the order in which they are given out.
#[derive(Default)]
pub struct Script {
    begins: VecDeque<Result<BeginAttemptResponse, Status>>,
    heartbeats: VecDeque<Result<HeartbeatResponse, Status>>,
    reports: VecDeque<Result<ReportAttemptResponse, Status>>,
    steps: VecDeque<Result<GetStepResponse, Status>>,
}

impl Script {
    pub fn begin(mut self, answer: impl Into<Result<BeginAttemptResponse, Status>>) -> Self {
        self.begins.push_back(answer.into());
        self
    }

    pub fn heartbeat(mut self, answer: Result<HeartbeatResponse, Status>) -> Self {
        self.heartbeats.push_back(answer);
        self
    }

    pub fn report(mut self, answer: Result<ReportAttemptResponse, Status>) -> Self {
        self.reports.push_back(answer);
        self
    }

    pub fn step(mut self, answer: Result<GetStepResponse, Status>) -> Self {
        self.steps.push_back(answer);
        self
    }

    /// Listens on a socket of its own.
    pub fn start(self) -> ScriptedService {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("reprise.sock");
        let mut service = ScriptedService::silent(socket, self);
        service.folder = Some(folder);
        service.listen();
        service
    }

    /// Has a socket, but listens only when it is told to.
    pub fn asleep(self) -> ScriptedService {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("reprise.sock");
        let mut service = ScriptedService::silent(socket, self);
        service.folder = Some(folder);
        service
    }
}

/// A script that listens.
pub struct ScriptedService {
    socket: PathBuf,
    state: State,
    calls: watch::Receiver<Vec<Call>>,
    /// Connections are served on a runtime of their own, so that going away
    /// cuts them. `None` while nobody listens.
    server: Option<Runtime>,
    folder: Option<tempfile::TempDir>,
}

impl ScriptedService {
    fn silent(socket: PathBuf, script: Script) -> Self {
        let (sender, calls) = watch::channel(Vec::new());
        let state = State { script: Arc::new(Mutex::new(script)), calls: Arc::new(sender) };
        Self { socket, state, calls, server: None, folder: None }
    }

    pub fn listen(&mut self) {
        let service = RetryServiceServer::new(self.state.clone());
        let listener = std::os::unix::net::UnixListener::bind(&self.socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = self.server.insert(runtime.unwrap());
        runtime.spawn(async move {
            let incoming = UnixListenerStream::new(UnixListener::from_std(listener).unwrap());
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
    }

    /// Goes away: connections are cut and no new one is taken.
    pub fn go_away(&mut self) {
        self.server.take().unwrap().shutdown_background();
        std::fs::remove_file(&self.socket).unwrap();
    }

    pub fn address(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    pub fn folder(&self) -> &Path {
        self.socket.parent().unwrap()
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    /// Waits until it was asked something, and tells how often by then.
    pub async fn asked(&self, what: impl Fn(&Call) -> bool) -> usize {
        let mut calls = self.calls.clone();
        let calls = calls.wait_for(|calls| calls.iter().any(&what)).await.unwrap();
        calls.iter().filter(|call| what(call)).count()
    }

    pub fn begins(&self) -> Vec<BeginAttemptRequest> {
        let pick = |call| if let Call::Begin(it) = call { Some(it) } else { None };
        self.calls().into_iter().filter_map(pick).collect()
    }

    pub fn reports(&self) -> Vec<ReportAttemptRequest> {
        let pick = |call| if let Call::Report(it) = call { Some(it) } else { None };
        self.calls().into_iter().filter_map(pick).collect()
    }
}

#[derive(Clone)]
struct State {
    script: Arc<Mutex<Script>>,
    calls: Arc<watch::Sender<Vec<Call>>>,
}

impl State {
    fn remember(&self, call: Call) {
        self.calls.send_modify(|calls| calls.push(call));
    }

    fn next<T>(
        &self,
        pick: impl Fn(&mut Script) -> &mut VecDeque<Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        let next = pick(&mut self.script.lock().unwrap()).pop_front();
        next.unwrap_or_else(|| Err(Status::internal("the script has ended"))).map(Response::new)
    }
}

#[async_trait]
impl RetryService for State {
    async fn begin_attempt(
        &self,
        request: Request<BeginAttemptRequest>,
    ) -> Result<Response<BeginAttemptResponse>, Status> {
        self.remember(Call::Begin(request.into_inner()));
        self.next(|script| &mut script.begins)
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        self.remember(Call::Heartbeat(request.into_inner()));
        let next = self.script.lock().unwrap().heartbeats.pop_front();
        next.unwrap_or_else(|| Ok(held())).map(Response::new)
    }

    async fn report_attempt(
        &self,
        request: Request<ReportAttemptRequest>,
    ) -> Result<Response<ReportAttemptResponse>, Status> {
        self.remember(Call::Report(request.into_inner()));
        self.next(|script| &mut script.reports)
    }

    async fn batch_report_attempts(
        &self,
        _: Request<BatchReportAttemptsRequest>,
    ) -> Result<Response<BatchReportAttemptsResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn await_decision(
        &self,
        _: Request<AwaitDecisionRequest>,
    ) -> Result<Response<AwaitDecisionResponse>, Status> {
        Err(Status::unimplemented("nobody waits here"))
    }

    async fn claim_due(
        &self,
        _: Request<ClaimDueRequest>,
    ) -> Result<Response<ClaimDueResponse>, Status> {
        Err(Status::unimplemented("nothing is claimed here"))
    }

    type StreamDueStream = tokio_stream::Empty<Result<StreamDueResponse, Status>>;

    async fn stream_due(
        &self,
        _: Request<StreamDueRequest>,
    ) -> Result<Response<Self::StreamDueStream>, Status> {
        Err(Status::unimplemented("nothing is claimed here"))
    }

    async fn get_step(
        &self,
        _: Request<GetStepRequest>,
    ) -> Result<Response<GetStepResponse>, Status> {
        self.next(|script| &mut script.steps)
    }

    async fn begin_run(
        &self,
        _: Request<proto::BeginRunRequest>,
    ) -> Result<Response<proto::BeginRunResponse>, Status> {
        Err(Status::unimplemented("nothing runs here"))
    }

    async fn report_run(
        &self,
        _: Request<proto::ReportRunRequest>,
    ) -> Result<Response<proto::ReportRunResponse>, Status> {
        Err(Status::unimplemented("nothing runs here"))
    }

    async fn get_run(
        &self,
        _: Request<proto::GetRunRequest>,
    ) -> Result<Response<proto::GetRunResponse>, Status> {
        Err(Status::unimplemented("nothing runs here"))
    }

    async fn list_run_steps(
        &self,
        _: Request<proto::ListRunStepsRequest>,
    ) -> Result<Response<proto::ListRunStepsResponse>, Status> {
        Err(Status::unimplemented("nothing runs here"))
    }
}

fn span(span: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(span).unwrap()
}

/// Attempt `number` may run, under fence 100 and its number.
pub fn grant(number: u32) -> Grant {
    Grant {
        attempt: number,
        fence: 100 + u64::from(number),
        lease: Some(span(Duration::from_secs(1))),
        heartbeat_every: Some(span(Duration::from_millis(50))),
        counters: Some(Counters { attempts: number, ..Counters::default() }),
        policy: Some(PolicyReference {
            name: "default".to_owned(),
            revision: 1,
            digest: "00".to_owned(),
            built_in: false,
        }),
        ..Grant::default()
    }
}

pub fn granted(grant: Grant) -> Result<BeginAttemptResponse, Status> {
    Ok(BeginAttemptResponse { answer: Some(Answer::Grant(grant)), replayed: false })
}

pub fn refused(decision: Decision) -> Result<BeginAttemptResponse, Status> {
    Ok(BeginAttemptResponse { answer: Some(Answer::Refusal(decision)), replayed: false })
}

pub fn reported(decision: Decision) -> Result<ReportAttemptResponse, Status> {
    Ok(ReportAttemptResponse {
        decision: Some(decision),
        attempt: 0,
        status: ReportStatus::Recorded.into(),
        replayed: false,
    })
}

pub fn decision(verdict: Verdict, reason: Reason, attempts: u32) -> Decision {
    Decision {
        verdict: verdict.into(),
        reason: reason.into(),
        counters: Some(Counters { attempts, retries: attempts, ..Counters::default() }),
        ..Decision::default()
    }
}

/// Try again after `delay`, the attempts so far being `attempts`.
pub fn retry(attempts: u32, delay: Duration) -> Decision {
    Decision { delay: Some(span(delay)), ..decision(Verdict::Retry, Reason::Backoff, attempts) }
}

pub fn wait(delay: Duration) -> Decision {
    Decision { delay: Some(span(delay)), ..decision(Verdict::Wait, Reason::NotDue, 1) }
}

pub fn stop(attempts: u32) -> Decision {
    decision(Verdict::Stop, Reason::RetriesSpent, attempts)
}

pub fn done() -> Decision {
    decision(Verdict::Done, Reason::Succeeded, 1)
}

pub fn held() -> HeartbeatResponse {
    HeartbeatResponse {
        state: LeaseState::Held.into(),
        lease: Some(span(Duration::from_secs(1))),
        ..HeartbeatResponse::default()
    }
}

impl Drop for ScriptedService {
    /// A runtime must not be dropped where it would be waited for.
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

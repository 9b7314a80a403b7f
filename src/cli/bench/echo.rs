//! The baseline: the same calls and messages on a plain tonic server that does
//! no work. What Reprise costs above it is what Reprise costs.
//!
//! Its replies are those that the measured server gave to the same calls, so
//! that neither side is favoured by shorter ones.

use std::{io, path::Path};

use prost::Message as _;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Request, Response, Status,
    transport::server::{Server, TcpIncoming},
};

use super::{client::Address, naive::Naive};
use crate::proto::{
    self, AwaitDecisionRequest, AwaitDecisionResponse, BatchReportAttemptsRequest,
    BatchReportAttemptsResponse, BatchReportResult, BeginAttemptRequest, BeginAttemptResponse,
    ClaimDueRequest, ClaimDueResponse, Constraint, ConstraintKind, Counters, Decision,
    GetStepRequest, GetStepResponse, Grant, HeartbeatRequest, HeartbeatResponse, LeaseState,
    PolicyReference, Reason, ReportAttemptRequest, ReportAttemptResponse, ReportStatus, Step,
    StepState, StreamDueRequest, StreamDueResponse, Verdict, batch_report_result,
    begin_attempt_response,
    retry_service_server::{RetryService, RetryServiceServer},
};

/// Answers until the process is ended. With `naive` reports are counted first.
pub(super) async fn serve(
    address: &Address,
    replies: Replies,
    naive: Option<Naive>,
) -> io::Result<()> {
    let server = Server::builder().add_service(RetryServiceServer::new(Echo { replies, naive }));
    match address {
        Address::Tcp(address) => {
            let listener = TcpListener::bind(address).await?;
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            server.serve_with_incoming(incoming).await
        }
        Address::Unix(path) => server.serve_with_incoming(unix(path)?).await,
    }
    .map_err(io::Error::other)
}

fn unix(path: &Path) -> io::Result<UnixListenerStream> {
    UnixListener::bind(path).map(UnixListenerStream::new)
}

/// Gives the same answers to everyone.
struct Echo {
    replies: Replies,
    naive: Option<Naive>,
}

/// One reply for each kind of call. Handed from process to process in a file.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Replies {
    #[prost(message, required, tag = "1")]
    pub(super) granted: BeginAttemptResponse,
    #[prost(message, required, tag = "2")]
    pub(super) decided: ReportAttemptResponse,
    #[prost(message, required, tag = "3")]
    pub(super) step: GetStepResponse,
}

impl Replies {
    /// What a service would answer, for want of one.
    pub(super) fn typical() -> Self {
        let granted = Grant {
            attempt: 2,
            fence: 2,
            lease_until: Some(instant(60)),
            lease: Some(seconds(60)),
            heartbeat_every: Some(seconds(20)),
            began_at: Some(instant(0)),
            counters: Some(counters()),
            policy: Some(policy()),
            ..Grant::default()
        };
        Self {
            granted: BeginAttemptResponse {
                answer: Some(begin_attempt_response::Answer::Grant(granted)),
                replayed: false,
            },
            decided: ReportAttemptResponse {
                decision: Some(decision()),
                attempt: 2,
                status: ReportStatus::Recorded.into(),
                replayed: false,
            },
            step: GetStepResponse { step: Some(step()) },
        }
    }

    pub(super) fn read(file: &Path) -> io::Result<Self> {
        Self::decode(&*std::fs::read(file)?).map_err(io::Error::other)
    }

    pub(super) fn write(&self, file: &Path) -> io::Result<()> {
        std::fs::write(file, self.encode_to_vec())
    }
}

fn decision() -> Decision {
    Decision {
        verdict: Verdict::Retry.into(),
        reason: Reason::Backoff.into(),
        explanation: "retry 2 of 3 after a backoff of 1.734s".to_owned(),
        not_before: Some(instant(2)),
        delay: Some(seconds(2)),
        decided_at: Some(instant(0)),
        policy: Some(policy()),
        counters: Some(counters()),
        constraints: vec![Constraint {
            kind: ConstraintKind::Backoff.into(),
            earliest: Some(instant(2)),
            firm: true,
            binding: true,
            ..Constraint::default()
        }],
        ..Decision::default()
    }
}

fn step() -> Step {
    Step {
        namespace: "default".to_owned(),
        run: "run-00000000-0000-000001".to_owned(),
        step: "load-orders/partition-0001".to_owned(),
        state: StepState::Waiting.into(),
        counters: Some(counters()),
        policy: Some(policy()),
        decision: Some(decision()),
        next_event_at: Some(instant(2)),
        first_began_at: Some(instant(0)),
        read_at: Some(instant(0)),
        ..Step::default()
    }
}

fn counters() -> Counters {
    Counters { attempts: 2, retries: 2, ..Counters::default() }
}

fn policy() -> PolicyReference {
    PolicyReference {
        name: "default".to_owned(),
        revision: 1,
        digest: "9f86d081884c7d65".to_owned(),
        built_in: false,
    }
}

/// An instant as long on the wire as one of today.
fn instant(after_seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: 1_800_000_000 + after_seconds, nanos: 734_000_000 }
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

#[tonic::async_trait]
impl RetryService for Echo {
    async fn begin_attempt(
        &self,
        _: Request<BeginAttemptRequest>,
    ) -> Result<Response<BeginAttemptResponse>, Status> {
        Ok(Response::new(self.replies.granted.clone()))
    }

    async fn heartbeat(
        &self,
        _: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        Ok(Response::new(HeartbeatResponse {
            state: LeaseState::Held.into(),
            lease_until: Some(instant(60)),
            lease: Some(seconds(60)),
            cancel_requested: false,
        }))
    }

    async fn report_attempt(
        &self,
        request: Request<ReportAttemptRequest>,
    ) -> Result<Response<ReportAttemptResponse>, Status> {
        if let Some(naive) = &self.naive {
            naive.count(request.get_ref()).await?;
        }
        Ok(Response::new(self.replies.decided.clone()))
    }

    async fn batch_report_attempts(
        &self,
        request: Request<BatchReportAttemptsRequest>,
    ) -> Result<Response<BatchReportAttemptsResponse>, Status> {
        let result = |report: ReportAttemptRequest| BatchReportResult {
            run: report.run,
            step: report.step,
            result: Some(batch_report_result::Result::Response(self.replies.decided.clone())),
        };
        let results = request.into_inner().reports.into_iter().map(result).collect();
        Ok(Response::new(BatchReportAttemptsResponse { results }))
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
        Ok(Response::new(self.replies.step.clone()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_survive_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("replies");
        Replies::typical().write(&file).unwrap();
        assert_eq!(Replies::read(&file).unwrap(), Replies::typical());
        std::fs::write(&file, b"\xff").unwrap();
        assert!(Replies::read(&file).is_err());
    }
}

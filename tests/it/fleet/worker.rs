//! Workers of a fleet: each runs its steps one after the other, each until it
//! succeeds, through whichever instance answers, and writes down what it was granted.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use reprise::proto::{
    AwaitDecisionRequest, BeginAttemptRequest, Failure, FailureClass, Grant, Pushback,
    ReportAttemptRequest, ReportAttemptResponse, Success, begin_attempt_request::Policy,
    begin_attempt_response::Answer, pushback::Until, report_attempt_request::Outcome,
    retry_service_client::RetryServiceClient,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tonic::{Request, Status, transport::Channel};

use super::target::{self, Called, RETRY_AFTER};

/// How long a worker waits before it turns to the next instance.
const ELSEWHERE: Duration = Duration::from_millis(100);
/// How long one call may take, but for those that wait by design.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for a decision at a time.
const AWAITS: Duration = Duration::from_secs(5);
/// The lease of an attempt; longer than whatever happens here.
pub const LEASE: Duration = Duration::from_secs(60);

/// An attempt that was granted, with the instants of this process around it.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub step: usize,
    pub is_retry: bool,
    /// What it costs a retry budget, in thousandths: None is a first attempt, 0 what an
    /// outage was to blame for, or may have been.
    pub cost: Option<u64>,
    /// When it was planned, as the grant says, µs.
    pub began_at: u64,
    /// When it was first asked for: not later than it was granted.
    pub asked: Instant,
    /// When its worker heard of it: not before it was granted.
    pub granted: Instant,
    /// When its end was first reported: not later than its permit was given back.
    pub ended: Instant,
}

/// A pushback that was reported.
#[derive(Clone, Copy, Debug)]
pub struct Cooled {
    /// When it was heard that the report was taken.
    pub heard: Instant,
    /// Until when everybody is to wait, µs.
    pub until: u64,
}

/// What all workers of a fleet know.
pub struct Fleet {
    pub target: SocketAddr,
    /// Channels to the instances that there are.
    pub instances: watch::Receiver<Vec<Channel>>,
    pub attempts: Mutex<Vec<Attempt>>,
    pub cooled: Mutex<Vec<Cooled>>,
}

/// One worker.
pub struct Worker {
    pub fleet: Arc<Fleet>,
    pub number: usize,
    calls: u64,
    /// The instance that it turns to.
    instance: usize,
    /// What the attempt before has ended with.
    before: Option<Called>,
}

impl Worker {
    pub fn new(fleet: Arc<Fleet>, number: usize) -> Self {
        Self { fleet, number, calls: 0, instance: number, before: None }
    }

    /// Runs so many steps until each has succeeded.
    pub async fn works(mut self, steps: usize) {
        for at in 0..steps {
            let step = self.number * steps + at;
            while !self.attempt(step).await {}
        }
    }

    /// One attempt. Whether the step has succeeded.
    async fn attempt(&mut self, step: usize) -> bool {
        let (asked, grant) = self.begins(step).await;
        let granted = Instant::now();
        let called = target::call(self.fleet.target).await;
        let ended = Instant::now();
        let began_at = grant.began_at.map_or(0, micros);
        let is_retry = grant.attempt > 1;
        let cost = is_retry.then(|| self.cost(&grant));
        self.before = Some(called);
        let attempt = Attempt { step, is_retry, cost, began_at, asked, granted, ended };
        self.fleet.attempts.lock().unwrap().push(attempt);
        let told = self.reports(step, grant.fence, called).await;
        if called == Called::Throttled {
            let decided = told.decision.and_then(|decision| decision.decided_at).map_or(0, micros);
            let until = decided + RETRY_AFTER.as_micros() as u64;
            self.fleet.cooled.lock().unwrap().push(Cooled { heard: Instant::now(), until });
        }
        called == Called::Served
    }

    /// What a retry costs a budget at least.
    fn cost(&self, grant: &Grant) -> u64 {
        let is_forgiven = grant.counters.as_ref().is_none_or(|counters| counters.forgiven > 0);
        match self.before {
            _ if is_forgiven => 0,
            Some(Called::Throttled) => 500,
            _ => 1000,
        }
    }

    /// The right to run the step, and when it was asked for.
    async fn begins(&mut self, step: usize) -> (Instant, Grant) {
        loop {
            self.calls += 1;
            let request = BeginAttemptRequest {
                run: "fleet".to_owned(),
                step: step.to_string(),
                request_id: self.request_id(),
                policy: Some(Policy::PolicyName("patient".to_owned())),
                host: format!("host-{}", self.number % 8),
                targets: vec!["api".to_owned()],
                awaits: true,
                lease: prost_types::Duration::try_from(LEASE).ok(),
                ..BeginAttemptRequest::default()
            };
            let asked = Instant::now();
            let answer = self
                .answered(async |mut client| client.begin_attempt(patient(request.clone())).await)
                .await;
            match answer.answer {
                Some(Answer::Grant(grant)) => return (asked, grant),
                _ => self.waits(step).await,
            }
        }
    }

    /// Waits until another begin has another answer.
    async fn waits(&mut self, step: usize) {
        let request = AwaitDecisionRequest {
            run: "fleet".to_owned(),
            step: step.to_string(),
            timeout: prost_types::Duration::try_from(AWAITS).ok(),
            ..AwaitDecisionRequest::default()
        };
        self.answered(async |mut client| client.await_decision(request.clone()).await).await;
    }

    async fn reports(&mut self, step: usize, fence: u64, called: Called) -> ReportAttemptResponse {
        let outcome = match called {
            Called::Served => Outcome::Success(Success {}),
            Called::Failed => Outcome::Failure(failure(FailureClass::Transient)),
            Called::Throttled => Outcome::Failure(Failure {
                pushback: Some(Pushback {
                    until: prost_types::Duration::try_from(RETRY_AFTER).ok().map(Until::After),
                }),
                ..failure(FailureClass::Throttled)
            }),
        };
        let request = ReportAttemptRequest {
            run: "fleet".to_owned(),
            step: step.to_string(),
            fence,
            outcome: Some(outcome),
            ..ReportAttemptRequest::default()
        };
        self.answered(async |mut client| client.report_attempt(patient(request.clone())).await)
            .await
    }

    /// The answer of whichever instance gives one. The same call again is known for
    /// what it is.
    async fn answered<T>(
        &mut self,
        call: impl AsyncFn(RetryServiceClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> T {
        loop {
            let channel = {
                let instances = self.fleet.instances.borrow();
                instances[self.instance % instances.len()].clone()
            };
            match call(RetryServiceClient::new(channel)).await {
                Ok(answer) => return answer.into_inner(),
                Err(status) => {
                    let passes = !matches!(
                        status.code(),
                        tonic::Code::InvalidArgument | tonic::Code::AlreadyExists
                    );
                    assert!(passes, "{status:?}");
                    self.instance += 1;
                    sleep(ELSEWHERE).await;
                }
            }
        }
    }

    fn request_id(&self) -> bytes::Bytes {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(self.number as u64).to_le_bytes());
        id[8..].copy_from_slice(&self.calls.to_le_bytes());
        id.to_vec().into()
    }
}

fn failure(class: FailureClass) -> Failure {
    Failure { class: class.into(), target: "api".to_owned(), ..Failure::default() }
}

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

fn micros(at: prost_types::Timestamp) -> u64 {
    at.seconds.unsigned_abs() * 1_000_000 + u64::from(at.nanos.unsigned_abs()) / 1000
}

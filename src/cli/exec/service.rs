//! The service as `exec` needs it: asked until it answers, or until patience
//! ends. What a command has done is worth more than one lost call.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, transport::Channel};

use super::{
    messages::{Event, Teller},
    of_run,
};
use crate::{
    chance,
    cli::{
        call,
        connect::Address,
        error::{CliError, asked_delay, headline, may_pass},
        text,
    },
    proto::{
        AwaitDecisionRequest, AwaitState, BeginAttemptRequest, BeginAttemptResponse,
        ClaimDueRequest, ClaimedStep, HeartbeatRequest, HeartbeatResponse, LeaseState,
        ReportAttemptRequest, ReportAttemptResponse, retry_service_client::RetryServiceClient,
    },
};

/// Between two tries of a call: drawn from zero to this, doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How often a person is told that the service still does not answer.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// Longest wait of one call: less than a proxy on the way, or a connection that
/// is told to go, leaves it.
const TOLD_EVERY: Duration = Duration::from_secs(20);

/// Before we ask again about a step of which we could not be told. Jitter of the
/// same length is added.
const UNTOLD: Duration = Duration::from_secs(1);

/// Longest time between two tries of a heartbeat.
const BEAT_AGAIN: Duration = Duration::from_secs(1);

/// Why a call has no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// Nobody answered for as long as we were patient.
    Away {
        /// What stood in the way at the last try.
        cause: String,
    },
    /// The service answered that it will not.
    Refused(Status),
}

impl NoAnswer {
    /// As an error of `exec`; `doing` completes "could not …".
    pub fn into_error(self, doing: &str, address: &Address) -> CliError {
        match self {
            Self::Refused(status) => CliError::of_call(doing, &status),
            Self::Away { cause } => CliError::new(
                crate::cli::exit::Exit::NoService,
                format!("could not {doing}: no service at {address}: {cause}"),
            )
            .next("`reprise doctor` looks for the reason; --offline wait or local goes on without"),
        }
    }
}

/// How long calls are repeated while nobody answers. At least one is made.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// Until somebody does.
    Endless,
    /// For this long since somebody last did.
    For(Duration),
}

/// A service at an address.
#[derive(Clone)]
pub struct Service {
    client: RetryServiceClient<Channel>,
    address: Address,
    call_timeout: Duration,
    teller: Teller,
    /// The time since which nobody has answered us. `None` while somebody does.
    outage: Option<Outage>,
    /// Whether the service tells when there is something to do, as far as we know.
    tells: bool,
    /// Of the run's attempt with this fence, whether a step is why it failed: what a
    /// report has said once it says again.
    step_failed: Option<(u64, bool)>,
}

impl NoAnswer {
    /// Why, in a line.
    pub fn in_words(&self) -> String {
        match self {
            Self::Away { cause } => cause.clone(),
            Self::Refused(status) => headline(status),
        }
    }
}

impl Service {
    /// Connects with the first call.
    pub fn at(address: Address, call_timeout: Duration, teller: Teller) -> Self {
        let client = RetryServiceClient::new(address.channel(call_timeout));
        Self { client, address, call_timeout, teller, outage: None, tells: true, step_failed: None }
    }

    /// Asks for the right to run the next attempt, of a run where no step is named.
    pub async fn begin(
        &mut self,
        request: BeginAttemptRequest,
        patience: Patience,
    ) -> Result<BeginAttemptResponse, NoAnswer> {
        self.insist(patience, self.call_timeout, async |mut client, within| {
            if request.step.is_empty() {
                let request = call::request(of_run::begin(request.clone()), within);
                return Ok(of_run::begun(client.begin_run(request).await?.into_inner()));
            }
            let request = call::request(request.clone(), within);
            Ok(client.begin_attempt(request).await?.into_inner())
        })
        .await
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Asks for steps of a queue that are due; waits a while for one.
    pub async fn claim(
        &mut self,
        request: ClaimDueRequest,
        patience: Patience,
    ) -> Result<Vec<ClaimedStep>, NoAnswer> {
        let timeout = Some(text::to_proto_duration(TOLD_EVERY));
        let request = ClaimDueRequest { timeout, ..request };
        self.insist(patience, TOLD_EVERY + self.call_timeout, async |mut client, within| {
            let request = call::request(request.clone(), within);
            Ok(client.claim_due(request).await?.into_inner().steps)
        })
        .await
    }

    /// Tells how an attempt ended, of a run where no step is named.
    pub async fn report(
        &mut self,
        request: ReportAttemptRequest,
        patience: Patience,
    ) -> Result<ReportAttemptResponse, NoAnswer> {
        let step_failed = request.step.is_empty() && self.step_failed(&request).await;
        self.insist(patience, self.call_timeout, async |mut client, within| {
            if request.step.is_empty() {
                let report = of_run::report(request.clone(), step_failed);
                let request = call::request(report, within);
                return Ok(of_run::reported(client.report_run(request).await?.into_inner()));
            }
            let request = call::request(request.clone(), within);
            Ok(client.report_attempt(request).await?.into_inner())
        })
        .await
    }

    /// Whether a step is why an attempt of a run failed. A report is worth more than
    /// that: where it cannot be found out soon it is said that none is.
    async fn step_failed(&mut self, report: &ReportAttemptRequest) -> bool {
        if let Some((fence, step_failed)) = self.step_failed
            && fence == report.fence
        {
            return step_failed;
        }
        let mut client = self.client.clone();
        let looked = of_run::step_failed(&mut client, report, self.call_timeout);
        let looked = tokio::time::timeout(self.call_timeout, looked).await;
        let step_failed = matches!(looked, Ok(Ok(true)));
        self.step_failed = Some((report.fence, step_failed));
        step_failed
    }

    /// Whether the service tells when there is something to do, as far as we know:
    /// older ones do not.
    pub fn tells(&self) -> bool {
        self.tells
    }

    /// Waits until the service says that there is something to do, at most so
    /// long. Where it does not say, until the step should be asked about again.
    pub async fn wait(&mut self, request: AwaitDecisionRequest, at_most: Duration) {
        let until = Instant::now() + at_most;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match self.wait_once(request.clone(), left.min(TOLD_EVERY)).await {
                Ok(state) if state != AwaitState::Waiting => return,
                Ok(_) => {}
                Err(status) => {
                    self.tells = status.code() != Code::Unimplemented;
                    let pause = asked_delay(&status).unwrap_or(UNTOLD) + full_jitter(UNTOLD);
                    return sleep(pause.min(left)).await;
                }
            }
        }
    }

    async fn wait_once(
        &self,
        request: AwaitDecisionRequest,
        at_most: Duration,
    ) -> Result<AwaitState, Status> {
        let timeout = Some(text::to_proto_duration(at_most));
        let request = AwaitDecisionRequest { timeout, ..request };
        let within = at_most + self.call_timeout;
        let mut client = self.client.clone();
        let request = call::request(request, within);
        let answer = call::in_time(Instant::now() + within, client.await_decision(request)).await?;
        Ok(answer.into_inner().state())
    }

    /// Keeps a lease until the handle is dropped, and tells what becomes of it.
    pub fn keep(
        &self,
        request: HeartbeatRequest,
        every: Duration,
        news: mpsc::Sender<News>,
    ) -> AbortOnDropHandle<()> {
        let heart = Heart { service: self.clone(), request, every, news };
        AbortOnDropHandle::new(tokio::spawn(heart.beat()))
    }

    /// Repeats a call that carries its own identity until it is answered, each time
    /// within so long.
    async fn insist<T>(
        &mut self,
        patience: Patience,
        within: Duration,
        call: impl AsyncFn(RetryServiceClient<Channel>, Duration) -> Result<T, Status>,
    ) -> Result<T, NoAnswer> {
        loop {
            let status = match self.once(within, &call).await {
                Ok(answer) => {
                    self.outage.take().inspect(|outage| outage.over(&self.teller));
                    return Ok(answer);
                }
                Err(status) => status,
            };
            if !may_pass(&status) {
                return Err(NoAnswer::Refused(status));
            }
            let outage = self.outage.get_or_insert_with(Outage::begin);
            outage.tell(&self.teller, &self.address, &status);
            let pause = outage.next_pause(&status);
            if let Patience::For(limit) = patience
                && outage.since.elapsed() + pause > limit
            {
                return Err(NoAnswer::Away { cause: headline(&status) });
            }
            sleep(pause).await;
        }
    }

    async fn once<T>(
        &self,
        within: Duration,
        call: &impl AsyncFn(RetryServiceClient<Channel>, Duration) -> Result<T, Status>,
    ) -> Result<T, Status> {
        call::in_time(Instant::now() + within, call(self.client.clone(), within)).await
    }
}

/// A time in which nobody answers.
#[derive(Clone)]
struct Outage {
    since: Instant,
    told_at: Option<Instant>,
    window: Duration,
}

impl Outage {
    fn begin() -> Self {
        Self { since: Instant::now(), told_at: None, window: RETRY_MIN }
    }

    /// Full jitter: clients that lost the service together come back apart.
    fn next_pause(&mut self, status: &Status) -> Duration {
        let window = self.window;
        self.window = (window * 2).min(RETRY_MAX);
        asked_delay(status).unwrap_or_default() + full_jitter(window)
    }

    /// Once, and then rarely.
    fn tell(&mut self, teller: &Teller, address: &Address, status: &Status) {
        let now = Instant::now();
        if self.told_at.is_some_and(|told| now - told < REMIND_EVERY) {
            return;
        }
        self.told_at = Some(now);
        teller.tell(&Event::ServiceAway {
            address: address.to_string(),
            cause: headline(status),
            seconds: (now - self.since).as_secs_f64(),
        });
    }

    fn over(&self, teller: &Teller) {
        if self.told_at.is_some() {
            teller.tell(&Event::ServiceBack { seconds: self.since.elapsed().as_secs_f64() });
        }
    }
}

/// Uniform in [0, window).
pub fn full_jitter(window: Duration) -> Duration {
    window.mul_f64(chance::unit())
}

/// What becomes of a lease.
#[derive(Debug)]
pub enum News {
    /// Another attempt may run; heartbeats have ended.
    LeaseLost {
        /// Why the service does not know the lease. `None` when it is just lost.
        cause: Option<String>,
    },
    /// The step was cancelled.
    CancelRequested,
}

struct Heart {
    service: Service,
    request: HeartbeatRequest,
    every: Duration,
    news: mpsc::Sender<News>,
}

impl Heart {
    async fn beat(self) {
        let mut pause = self.every;
        loop {
            sleep(pause).await;
            pause = match self.once().await {
                Ok(response) if response.state() == LeaseState::Held => {
                    self.pass_cancel(&response).await;
                    self.every
                }
                Ok(_) => return self.tell(News::LeaseLost { cause: None }).await,
                Err(status) if gone(&status) => {
                    let cause = Some(headline(&status));
                    return self.tell(News::LeaseLost { cause }).await;
                }
                Err(_) => full_jitter(self.every.min(BEAT_AGAIN)),
            };
        }
    }

    /// One try, which may not use up the time of the next.
    async fn once(&self) -> Result<HeartbeatResponse, Status> {
        let within = self.service.call_timeout.min(self.every);
        let mut client = self.service.client.clone();
        let request = call::request(self.request.clone(), within);
        let answer = call::in_time(Instant::now() + within, client.heartbeat(request)).await?;
        Ok(answer.into_inner())
    }

    async fn pass_cancel(&self, response: &HeartbeatResponse) {
        if response.cancel_requested {
            self.tell(News::CancelRequested).await;
        }
    }

    /// Whoever no longer listens has seen the command's end.
    async fn tell(&self, news: News) {
        let _ = self.news.send(news).await;
    }
}

/// Whether the service answered that there is no such lease to keep.
fn gone(status: &Status) -> bool {
    matches!(status.code(), Code::NotFound | Code::FailedPrecondition) && !may_pass(status)
}

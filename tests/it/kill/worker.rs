//! Workers that never give up: each call is repeated as it was until it is
//! answered, over as many servers as it takes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use reprise::proto::{
    BatchReportAttemptsRequest, BatchReportResult, BeginAttemptRequest, Failure, FailureClass,
    Grant, HeartbeatRequest, LeaseState, Reason, ReportAttemptRequest, ReportStatus, Success,
    Verdict, batch_report_result, begin_attempt_request, begin_attempt_response,
    report_attempt_request, retry_service_client::RetryServiceClient,
};
use tokio::{
    sync::{RwLock, watch},
    time::{sleep, timeout},
};
use tonic::{Code, Response, Status, transport::Channel};
use tonic_types::StatusExt as _;

use super::ledger::{Ledger, StepName, Terms};
use crate::chance::Chance;

/// Longer than any call takes, with all the servers that die meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// Before a call is made again whose store is away. Callers in life wait longer.
const PAUSE: Duration = Duration::from_millis(20);
/// Steps that a worker has of its own at a time.
const OWN: usize = 12;
/// Steps at a time over which all workers race.
const SHARED: u64 = 6;

/// The server that runs now.
#[derive(Clone)]
pub struct Life {
    /// Counts servers, from 1.
    pub generation: u64,
    /// A channel to this one.
    pub channel: Channel,
}

/// What workers share.
pub struct World {
    pub ledger: RefCell<Ledger>,
    /// The servers that run now; any will do.
    pub lives: watch::Receiver<Vec<Life>>,
    /// Calls answered.
    pub answered: watch::Sender<u64>,
    /// Calls that had to be repeated.
    pub repeated: std::cell::Cell<u64>,
    /// What servers said of their store in place of an answer, and how often.
    pub told: watch::Sender<BTreeMap<String, u64>>,
    /// Held while a call is on its way, and by whoever wants that none is.
    pub quiet: RwLock<()>,
    /// How often each shared step has come to its end and been replaced.
    pub shared: RefCell<Vec<u32>>,
    /// True when all workers do is to race over the shared steps.
    pub is_hot: std::cell::Cell<bool>,
    /// True when workers are to finish.
    pub finish: std::cell::Cell<bool>,
}

impl World {
    pub fn new(lives: watch::Receiver<Vec<Life>>) -> Rc<Self> {
        Rc::new(Self {
            ledger: RefCell::default(),
            lives,
            told: watch::channel(BTreeMap::new()).0,
            quiet: RwLock::new(()),
            answered: watch::channel(0).0,
            repeated: std::cell::Cell::new(0),
            shared: RefCell::new(vec![0; usize::try_from(SHARED).unwrap()]),
            is_hot: std::cell::Cell::new(false),
            finish: std::cell::Cell::new(false),
        })
    }

    /// Repeats a call until it is answered. Says how often it was made.
    pub async fn call<A>(
        &self,
        make: impl AsyncFn(RetryServiceClient<Channel>) -> Result<Response<A>, Status>,
    ) -> (A, u32) {
        let mut dead = BTreeSet::new();
        let mut tries = 0;
        loop {
            let Life { generation, channel } = self.living(&dead, tries).await;
            let on_its_way = self.quiet.read().await;
            tries += 1;
            let made = timeout(PATIENCE, make(RetryServiceClient::new(channel))).await;
            match made.expect("a call is answered") {
                Ok(answer) => {
                    self.answered.send_modify(|answered| *answered += 1);
                    return (answer.into_inner(), tries);
                }
                Err(status) if is_of_transport(&status) => {
                    dead.insert(generation);
                }
                // A machine that other work keeps busy: the call was not begun.
                Err(status) if is_of_admission(&status) => {}
                Err(status) => {
                    let said = of_store(&status).unwrap_or_else(|| panic!("{status:?}"));
                    self.told(said);
                    drop(on_its_way);
                    sleep(PAUSE).await;
                }
            }
            self.repeated.set(self.repeated.get() + 1);
        }
    }

    /// Notes what a server said in place of an answer.
    fn told(&self, said: String) {
        self.told.send_modify(|told| *told.entry(said).or_default() += 1);
    }

    /// A server that is not known to be dead, another one for each try.
    async fn living(&self, dead: &BTreeSet<u64>, tries: u32) -> Life {
        let mut lives = self.lives.clone();
        let is_living = |life: &&Life| !dead.contains(&life.generation);
        let waiting = lives.wait_for(|lives| lives.iter().any(|life| is_living(&life)));
        let lives = timeout(PATIENCE, waiting).await;
        let lives = lives.expect("a call fails only because its server died").unwrap();
        let living: Vec<&Life> = lives.iter().filter(is_living).collect();
        let turn = *self.answered.borrow() + u64::from(tries);
        living[usize::try_from(turn).unwrap() % living.len()].clone()
    }
}

/// Whether the store kept this report of a batch from being heard.
fn is_for_later(result: &BatchReportResult) -> bool {
    use batch_report_result::Result;
    matches!(&result.result, Some(Result::Error(status)) if status.code == Code::Unavailable as i32)
}

/// What a server said of its store in place of an answer: that nothing was
/// acknowledged, and when to come again.
fn of_store(status: &Status) -> Option<String> {
    let reason = status.get_error_details().error_info()?.reason.clone();
    let code = match &*reason {
        "STORE_UNAVAILABLE" | "STORE_REFUSES" => Code::Unavailable,
        "STORE_FULL" | "OVERLOADED" => Code::ResourceExhausted,
        // After an outage calls are thought to take as long as they did in it.
        "DEADLINE_TOO_SHORT" => Code::DeadlineExceeded,
        _ => return None,
    };
    assert_eq!(status.code(), code, "{status:?}");
    let again = status.get_error_details().retry_info().is_some();
    assert!(again || code == Code::DeadlineExceeded, "{status:?} does not say when to come again");
    Some(format!("{reason}: {}", status.message()))
}

/// Whether the server died, or at least did not say this itself: what it says
/// comes with details.
pub fn is_of_transport(status: &Status) -> bool {
    let possible = matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
    );
    possible && status.details().is_empty()
}

/// Whether the server was too busy to look at a call at all.
fn is_of_admission(status: &Status) -> bool {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    matches!(&*reason, "OVERLOADED" | "DEADLINE_TOO_SHORT" | "REQUEST_TOO_LATE")
}

/// A worker with steps of its own, of which it knows all that happens.
pub struct Worker {
    number: u64,
    world: Rc<World>,
    chance: Chance,
    own: Vec<Own>,
    /// Steps of its own so far.
    named: u64,
}

/// A step that nobody else touches.
struct Own {
    name: StepName,
    terms: Terms,
    /// Attempts begun.
    attempts: u32,
    /// Fence of the running attempt.
    running: Option<u64>,
    is_over: bool,
    /// Latest end of the lease.
    lease_until: i64,
}

impl Worker {
    pub fn new(number: u64, world: Rc<World>, chance: Chance) -> Self {
        Self { number, world, chance, own: Vec::new(), named: 0 }
    }

    /// Works until it is told to finish.
    pub async fn work(mut self) {
        while !self.world.finish.get() {
            match self.chance.within(0..100) {
                0..90 if self.world.is_hot.get() => self.race().await,
                90.. if self.world.is_hot.get() => self.repeat().await,
                0..15 => self.race().await,
                15..23 => self.repeat().await,
                23..33 => self.batch().await,
                _ => self.act().await,
            }
        }
    }

    /// A step of its own that is not over, by its place.
    fn pick(&mut self) -> usize {
        self.own.retain(|own| !own.is_over);
        while self.own.len() < OWN {
            self.named += 1;
            let name = (format!("run-{}", self.number), format!("own/{}", self.named));
            let terms = if self.named.is_multiple_of(2) { Terms::Quick } else { Terms::Inline };
            self.own.push(Own {
                name,
                terms,
                attempts: 0,
                running: None,
                is_over: false,
                lease_until: 0,
            });
        }
        usize::try_from(self.chance.within(0..OWN as u64)).unwrap()
    }

    /// Does the next thing about a step of its own.
    async fn act(&mut self) {
        let at = self.pick();
        match (self.own[at].running, self.chance.within(0..100)) {
            (Some(fence), 0..30) => self.heartbeat(at, fence).await,
            (Some(fence), 30..40) => self.report_stale(at, fence).await,
            (Some(fence), _) => {
                let request = ReportAttemptRequest { fence, ..self.report(at) };
                self.send_report(at, request).await;
            }
            (None, 0..60) => self.begin(at).await,
            (None, _) => {
                let request = self.report_unbegun(at);
                self.send_report(at, request).await;
            }
        }
    }

    async fn begin(&mut self, at: usize) {
        let own = &self.own[at];
        let request = begin(&own.name, own.terms, self.chance.id());
        let Some(grant) = granted(&self.world, own.terms, &request).await else { return };
        let own = &mut self.own[at];
        own.attempts += 1;
        assert_eq!(grant.attempt, own.attempts, "{:?}", own.name);
        assert_eq!(grant.counters.as_ref().unwrap().attempts, own.attempts, "{:?}", own.name);
        own.running = Some(grant.fence);
        own.lease_until = grant.lease_until.unwrap().seconds;
    }

    async fn heartbeat(&mut self, at: usize, fence: u64) {
        let name = self.own[at].name.clone();
        let until = self.beat(&name, fence).await;
        let own = &mut self.own[at];
        assert!(until >= own.lease_until, "{:?}: a heartbeat shortened the lease", own.name);
        own.lease_until = until;
    }

    /// A heartbeat of an attempt that runs. Says until when the lease lasts, in
    /// seconds.
    async fn beat(&self, name: &StepName, fence: u64) -> i64 {
        let (run, step) = name.clone();
        let request = HeartbeatRequest { run, step, fence, ..HeartbeatRequest::default() };
        let (answer, _) =
            self.world.call(async |mut client| client.heartbeat(request.clone()).await).await;
        assert_eq!(answer.state(), LeaseState::Held, "{name:?}");
        answer.lease_until.unwrap().seconds
    }

    /// Somebody shows a fence that is no longer, or never was: nothing happens.
    async fn report_stale(&mut self, at: usize, fence: u64) {
        let stale = if self.chance.percent(50) { fence - 1 } else { fence + 1 };
        if self.chance.percent(30) {
            let (run, step) = self.own[at].name.clone();
            let request =
                HeartbeatRequest { run, step, fence: stale, ..HeartbeatRequest::default() };
            let (answer, _) =
                self.world.call(async |mut client| client.heartbeat(request.clone()).await).await;
            assert_eq!(answer.state(), LeaseState::Lost, "{request:?}");
            return;
        }
        let request = ReportAttemptRequest { fence: stale, ..self.report(at) };
        let (answer, _) =
            self.world.call(async |mut client| client.report_attempt(request.clone()).await).await;
        let told = (answer.status(), answer.attempt, answer.decision.unwrap().reason());
        assert_eq!(
            told,
            (ReportStatus::Stale, self.own[at].attempts, Reason::InProgress),
            "{:?}",
            self.own[at].name
        );
    }

    /// A report of a step's running or next attempt, which it does not yet name.
    fn report(&mut self, at: usize) -> ReportAttemptRequest {
        let own = &self.own[at];
        report(&own.name, own.terms, &mut self.chance)
    }

    /// A report of an attempt that nobody began.
    fn report_unbegun(&mut self, at: usize) -> ReportAttemptRequest {
        let request = self.report(at);
        if self.chance.percent(50) {
            ReportAttemptRequest { attempt: self.own[at].attempts + 1, ..request }
        } else {
            ReportAttemptRequest { request_id: self.chance.id().into(), ..request }
        }
    }

    async fn send_report(&mut self, at: usize, request: ReportAttemptRequest) {
        let (answer, tries) =
            self.world.call(async |mut client| client.report_attempt(request.clone()).await).await;
        assert!(tries > 1 || !answer.replayed, "{answer:?} was asked for once");
        self.take(at, &request, &answer);
    }

    /// Notes the answer to a report of a step of its own.
    fn take(
        &mut self,
        at: usize,
        request: &ReportAttemptRequest,
        answer: &reprise::proto::ReportAttemptResponse,
    ) {
        let own = &mut self.own[at];
        if own.running.take().is_none() {
            own.attempts += 1;
        }
        assert_eq!(answer.attempt, own.attempts, "{:?}: {answer:?}", own.name);
        self.world.ledger.borrow_mut().reported(own.terms, request, answer);
        own.is_over = answer.decision.as_ref().unwrap().verdict() != Verdict::Retry;
    }

    /// Reports about each idle step of its own in one call, some of them twice
    /// in a row: two attempts.
    async fn batch(&mut self) {
        self.pick();
        let idle: Vec<usize> = (0..OWN).filter(|at| self.own[*at].running.is_none()).collect();
        let mut places = Vec::new();
        let mut reports = Vec::new();
        for at in idle {
            let first = self.report_unbegun(at);
            let doubled = first.attempt > 0 && first.attempt <= 2 && self.chance.percent(40);
            let second = ReportAttemptRequest { attempt: first.attempt + 1, ..first.clone() };
            let fails = matches!(first.outcome, Some(report_attempt_request::Outcome::Failure(_)));
            reports.push(first);
            places.push(at);
            if doubled && fails {
                reports.push(second);
                places.push(at);
            }
        }
        let request = BatchReportAttemptsRequest { namespace: String::new(), reports };
        let answer = loop {
            let (answer, _) = self
                .world
                .call(async |mut client| client.batch_report_attempts(request.clone()).await)
                .await;
            // Reports that the store kept from being heard are made again, with
            // those that were: by their names they are known.
            if !answer.results.iter().any(is_for_later) {
                break answer;
            }
            self.world.told("STORE_, of one in a batch".to_owned());
            sleep(PAUSE).await;
        };
        assert_eq!(answer.results.len(), request.reports.len());
        for ((at, report), result) in places.into_iter().zip(&request.reports).zip(&answer.results)
        {
            let Some(batch_report_result::Result::Response(response)) = &result.result else {
                panic!("{report:?} -> {result:?}")
            };
            self.take(at, report, response);
        }
    }

    /// Makes a call again that was answered some time ago.
    async fn repeat(&mut self) {
        let known = self.chance.of_these(self.world.ledger.borrow().reports()).cloned();
        let Some(request) = known else { return };
        let (answer, _) =
            self.world.call(async |mut client| client.report_attempt(request.clone()).await).await;
        let terms = terms_of(&request);
        self.world.ledger.borrow_mut().reported(terms, &request, &answer);
        assert!(answer.replayed, "{answer:?}");
    }

    /// Competes with the others for a step.
    async fn race(&mut self) {
        let place = usize::try_from(self.chance.within(0..SHARED)).unwrap();
        let life = self.world.shared.borrow()[place];
        let name = ("shared".to_owned(), format!("{place}/{life}"));
        let request = begin(&name, Terms::Quick, self.chance.id());
        let Some(Grant { fence, .. }) = granted(&self.world, Terms::Quick, &request).await else {
            return;
        };
        if self.world.is_hot.get() {
            self.beat(&name, fence).await;
        }
        let request =
            ReportAttemptRequest { fence, ..report(&name, Terms::Quick, &mut self.chance) };
        let (answer, _) =
            self.world.call(async |mut client| client.report_attempt(request.clone()).await).await;
        self.world.ledger.borrow_mut().reported(Terms::Quick, &request, &answer);
        if answer.decision.unwrap().verdict() != Verdict::Retry {
            let mut shared = self.world.shared.borrow_mut();
            shared[place] = shared[place].max(life + 1);
        }
    }
}

/// Asks for an attempt. None when it is not the time.
async fn granted(world: &World, terms: Terms, request: &BeginAttemptRequest) -> Option<Grant> {
    let (answer, tries) =
        world.call(async |mut client| client.begin_attempt(request.clone()).await).await;
    match answer.answer.unwrap() {
        begin_attempt_response::Answer::Grant(grant) => {
            assert!(tries > 1 || !answer.replayed, "{grant:?} was asked for once");
            world.ledger.borrow_mut().granted(terms, request, &grant);
            Some(grant)
        }
        begin_attempt_response::Answer::Refusal(decision) => {
            let expected = match decision.reason() {
                Reason::NotDue => {
                    decision.not_before.unwrap().seconds >= decision.decided_at.unwrap().seconds
                }
                Reason::InProgress | Reason::Succeeded | Reason::RetriesSpent => {
                    request.run == "shared"
                }
                _ => false,
            };
            assert!(expected, "{request:?} -> {decision:?}");
            None
        }
    }
}

fn begin((run, step): &StepName, terms: Terms, request_id: Vec<u8>) -> BeginAttemptRequest {
    let policy = match terms {
        Terms::Quick => begin_attempt_request::Policy::PolicyName("quick".to_owned()),
        Terms::Inline => begin_attempt_request::Policy::InlinePolicy(terms.policy()),
    };
    BeginAttemptRequest {
        run: run.clone(),
        step: step.clone(),
        request_id: request_id.into(),
        policy: Some(policy),
        // Nobody falls silent here.
        lease: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ..BeginAttemptRequest::default()
    }
}

fn report((run, step): &StepName, terms: Terms, chance: &mut Chance) -> ReportAttemptRequest {
    let policy = match terms {
        Terms::Quick => report_attempt_request::Policy::PolicyName("quick".to_owned()),
        Terms::Inline => report_attempt_request::Policy::InlinePolicy(terms.policy()),
    };
    let failure = Failure {
        class: FailureClass::Transient as i32,
        message: format!("the target hung up, {:x}", chance.next()),
        host: format!("host-{}", chance.within(0..4)),
        ..Failure::default()
    };
    let outcome = if chance.percent(15) {
        report_attempt_request::Outcome::Success(Success {})
    } else {
        report_attempt_request::Outcome::Failure(failure)
    };
    ReportAttemptRequest {
        run: run.clone(),
        step: step.clone(),
        policy: Some(policy),
        outcome: Some(outcome),
        ..ReportAttemptRequest::default()
    }
}

fn terms_of(request: &ReportAttemptRequest) -> Terms {
    match request.policy {
        Some(report_attempt_request::Policy::InlinePolicy(_)) => Terms::Inline,
        _ => Terms::Quick,
    }
}

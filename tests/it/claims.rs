//! Steps that any worker of a queue may run: claimed once each, never before they
//! are due, in turn by run, and back in the queue when nothing is heard of a claim.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use reprise::{
    chance,
    domain::{
        event::{AttemptName, Begin, Comes, Event, Report, StepTerms},
        failure::{Failure, FailureClass},
        id::StepKey,
        labels::Labels,
        limit::spec::TargetSpec,
        plan::{Answer, Grant},
        record::{Identity, Record, State},
    },
    proto::{
        BeginAttemptRequest, ClaimDueRequest, ClaimedStep, Counters, FailureClass as Class,
        ReportAttemptRequest, StreamDueRequest, Success, begin_attempt_request,
        begin_attempt_response, report_attempt_request::Outcome,
        retry_service_client::RetryServiceClient,
    },
    service::{Claim, Claimed, Handed, PauseOrder, Service, Supply, TargetWrite},
    store::{ConfigurationChange, Store},
    telemetry::Telemetry,
};
use rustix::process::Signal;
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    process::{Server, serve},
    redis_servers::{Kind, Options, Standalone},
    store_contract::subject::{self, Subject, id, key, policy},
};

const SECOND: Duration = Duration::from_secs(1);

/// A service on a store, its time moved by hand.
struct Stage<S> {
    service: Arc<Service<S>>,
    subject: Subject<S>,
    calls: u64,
}

impl<S: Store + Clone> Stage<S> {
    async fn on(subject: Subject<S>, retries: &str) -> Self {
        subject.create("n").await;
        let change = ConfigurationChange::Policy(id("p"), policy(retries));
        subject.reconfigure("n", change).await.unwrap();
        let telemetry = Arc::new(Telemetry::new());
        let service = Service::new(subject.store.clone(), telemetry, subject.clock.clone());
        let service = Arc::new(service);
        Self { service, subject, calls: 0 }
    }

    async fn apply(&self, key: StepKey<'_>, event: &Event) -> Answer {
        let given = reprise::service::GivenPolicy::Named(id("p"));
        self.service.apply(&key, Some(&given), event).await.unwrap().answer
    }

    /// Begins a step of the queue on host `a`.
    async fn begin(&mut self, run: &str, step: &str, targets: &[&str]) -> Grant {
        self.begin_with(run, step, targets, "").await
    }

    async fn begin_with(&mut self, run: &str, step: &str, targets: &[&str], labels: &str) -> Grant {
        self.calls += 1;
        let begin = Begin {
            identity: Identity { id: self.calls, payload: 1 },
            lease: None,
            host: Some("a".into()),
            worker: String::new(),
            comes: Comes::ByItself,
            step: StepTerms {
                queue: Some(id("etl")),
                payload: b"what to load".as_slice().into(),
                targets: targets.iter().map(|name| id(name)).collect(),
                labels: Labels::parse(labels).unwrap(),
                ..StepTerms::default()
            },
        };
        match self.apply(key("n", run, step), &Event::Begin(begin)).await {
            Answer::Granted(grant) => *grant,
            other => panic!("{other:?}"),
        }
    }

    async fn fail(&mut self, run: &str, step: &str, targets: &[&str]) {
        let grant = self.begin(run, step, targets).await;
        self.report_failed(run, step, &grant).await;
    }

    /// Has a step fail that was begun with these labels.
    async fn fail_with(&mut self, step: &str, labels: &str) {
        let grant = self.begin_with("r", step, &[], labels).await;
        self.report_failed("r", step, &grant).await;
    }

    async fn report_failed(&self, run: &str, step: &str, grant: &Grant) {
        let report = Report {
            attempt: AttemptName::Fence(grant.fence),
            payload: 1,
            failure: Some(Failure { host: "a".into(), ..Failure::of(FailureClass::Failure) }),
            step: StepTerms::default(),
        };
        self.apply(key("n", run, step), &Event::Report(report)).await;
    }

    fn claim_of(&mut self, host: &str, most: usize, labels: &str) -> Claim {
        self.calls += 1;
        Claim {
            namespace: "n".to_owned(),
            queue: id("etl"),
            request_id: self.calls.to_le_bytes().to_vec(),
            most,
            lease: Some(SECOND),
            host: Some(host.into()),
            worker: "w".to_owned(),
            labels: Labels::parse(labels).unwrap(),
        }
    }

    async fn claim_on(&mut self, host: &str, most: usize) -> Vec<Claimed> {
        let claim = self.claim_of(host, most, "");
        self.service.claim(&claim, Instant::now()).await.unwrap()
    }

    async fn claim_with(&mut self, labels: &str) -> Vec<String> {
        let claim = self.claim_of("b", 64, labels);
        names(self.service.claim(&claim, Instant::now()).await.unwrap())
    }

    async fn claim(&mut self) -> Vec<String> {
        names(self.claim_on("b", 64).await)
    }

    /// A supply for a worker that runs so many attempts at the same time.
    fn supply(&mut self, most: usize, running: Vec<Handed>) -> Supply<S> {
        let claim = self.claim_of("b", most, "");
        Supply::new(Arc::clone(&self.service), claim, running, CancellationToken::new())
    }

    /// Has steps of the run `r` fail, and waits until they are due.
    async fn due(&mut self, steps: &[&str]) {
        for step in steps {
            self.fail("r", step, &[]).await;
        }
        self.pass(SECOND).await;
    }

    async fn succeed(&self, step: &str, fence: u64) {
        let attempt = AttemptName::Fence(fence);
        let report = Report { attempt, payload: 1, failure: None, step: StepTerms::default() };
        self.apply(key("n", "r", step), &Event::Report(report)).await;
    }

    async fn heartbeat(&self, step: &str, fence: u64) {
        let beat = reprise::domain::event::Heartbeat { fence, lease: None, progress: None };
        self.apply(key("n", "r", step), &Event::Heartbeat(beat)).await;
    }

    async fn pass(&self, mut span: Duration) {
        while !span.is_zero() {
            let some = span.min(Duration::from_millis(500));
            self.subject.clock.advance(some);
            while self.service.sweep(100).await.unwrap() > 0 {}
            self.service.wake_heads().await.unwrap();
            span -= some;
        }
    }

    async fn record(&self, step: &str) -> Record {
        self.subject.record(key("n", "r", step)).await.unwrap()
    }

    async fn target(&self, name: &str, yaml: &str) {
        let spec: TargetSpec = serde_saphyr::from_str(yaml).unwrap();
        let write = TargetWrite { may_exist: true, may_be_missing: true, ..TargetWrite::default() };
        let (namespace, name) = (id("n"), id(name));
        let written = self.service.write_target(&namespace, &name, &write, |_| spec.clone());
        written.await.unwrap();
    }
}

/// Steps in the order of their names.
fn names(claimed: Vec<Claimed>) -> Vec<String> {
    let name = |step: Claimed| format!("{}/{}", step.name.run, step.name.step);
    let mut names: Vec<String> = claimed.into_iter().map(name).collect();
    names.sort();
    names
}

const FIXED: &str = "backoff: {fixed: {delay: 1s}}";

async fn nothing_is_claimed_before_it_is_due_nor_while_it_is_leased<S: Store + Clone>(
    subject: Subject<S>,
) {
    let mut stage = Stage::on(subject, FIXED).await;
    stage.begin("r", "running", &[]).await;
    stage.fail("r", "a", &[]).await;
    stage.pass(SECOND - Duration::from_micros(1)).await;
    assert!(stage.claim().await.is_empty());
    stage.pass(Duration::from_micros(1)).await;
    let [claimed] = <[Claimed; 1]>::try_from(stage.claim_on("b", 64).await).unwrap();
    assert_eq!((&*claimed.name.step, claimed.grant.attempt), ("a", 2));
    assert_eq!(&*claimed.record.payload, b"what to load");
    assert!(stage.claim().await.is_empty(), "it is leased");
}

async fn nothing_is_claimed_at_a_paused_target<S: Store + Clone>(subject: Subject<S>) {
    let mut stage = Stage::on(subject, FIXED).await;
    stage.target("db", "concurrency: {max: 5}").await;
    stage.fail("r", "a", &["db"]).await;
    let order = PauseOrder { reason: "it moves".to_owned(), by: "ann".to_owned(), end: None };
    stage.service.pause_target(&id("n"), &id("db"), &order).await.unwrap();
    stage.pass(2 * SECOND).await;
    assert!(stage.claim().await.is_empty());
    stage.service.resume_target(&id("n"), &id("db")).await.unwrap();
    // It is left alone for a moment.
    stage.pass(2 * SECOND).await;
    assert_eq!(stage.claim().await, ["r/a"]);
}

async fn a_claim_is_held_to_permits_and_made_when_one_is_free<S: Store + Clone>(
    subject: Subject<S>,
) {
    let mut stage = Stage::on(subject, FIXED).await;
    stage.target("pool", "concurrency: {max: 1}").await;
    stage.fail("r", "a", &["pool"]).await;
    stage.fail("r", "b", &["pool"]).await;
    stage.pass(SECOND).await;
    assert_eq!(stage.claim().await.len(), 1);
    assert!(stage.claim().await.is_empty(), "the other stands in line");
    // Nothing is heard of the first one, whose permit comes back with its lease.
    stage.pass(2 * SECOND).await;
    assert_eq!(stage.claim().await.len(), 1);
}

async fn a_step_is_left_to_hosts_that_may_run_it<S: Store + Clone>(subject: Subject<S>) {
    let policy = "{backoff: {fixed: {delay: 1s}}, host_anti_affinity: {mode: hard}}";
    let mut stage = Stage::on(subject, policy).await;
    stage.fail("r", "a", &[]).await;
    stage.pass(SECOND).await;
    assert!(stage.claim_on("a", 1).await.is_empty());
    assert_eq!(stage.claim_on("b", 1).await.len(), 1);
}

async fn who_may_not_run_a_step_holds_up_nobody_who_may<S: Store + Clone>(subject: Subject<S>) {
    let policy = "{backoff: {fixed: {delay: 1s}}, host_anti_affinity: {mode: hard}}";
    let mut stage = Stage::on(subject, policy).await;
    let excluded = stage.claim_of("a", 1, "");
    let elsewhere = stage.claim_of("b", 1, "gpu=l4");
    let fit = stage.claim_of("c", 1, "");
    let patience = Instant::now() + Duration::from_secs(60);
    stage.fail_with("a", "gpu=a100").await;
    stage.pass(SECOND).await;
    // Those who wait first are never served, and are still there at the end.
    let waiting = async {
        tokio::join!(
            stage.service.claim(&excluded, patience),
            stage.service.claim(&elsewhere, patience),
        )
    };
    let served = async {
        tokio::task::yield_now().await;
        stage.service.claim(&fit, patience).await
    };
    tokio::select! {
        biased;
        _ = waiting => panic!("they have nothing to claim"),
        served = served => assert_eq!(names(served.unwrap()), ["r/a"]),
    }
}

async fn labels_choose_among_the_steps_of_a_queue<S: Store + Clone>(subject: Subject<S>) {
    let mut stage = Stage::on(subject, FIXED).await;
    for (step, labels) in [("a", "gpu=a100,zone=eu"), ("b", "gpu=a100"), ("c", "gpu=l4"), ("d", "")]
    {
        stage.fail_with(step, labels).await;
    }
    stage.pass(SECOND).await;
    assert!(stage.claim_with("gpu=h100").await.is_empty());
    assert_eq!(stage.claim_with("gpu=a100,zone=eu").await, ["r/a"]);
    assert_eq!(stage.claim_with("gpu=a100").await, ["r/b"]);
    let claim = stage.claim_of("b", 64, "");
    let claimed = stage.service.claim(&claim, Instant::now()).await.unwrap();
    let labels: BTreeSet<String> =
        claimed.iter().map(|step| step.record.labels.to_string()).collect();
    assert_eq!(labels, BTreeSet::from([String::new(), "gpu=l4".to_owned()]));
    assert_eq!(names(claimed), ["r/c", "r/d"]);
}

async fn runs_take_turns<S: Store + Clone>(subject: Subject<S>) {
    let mut stage = Stage::on(subject, FIXED).await;
    for step in ["1", "2", "3", "4"] {
        stage.fail("large", step, &[]).await;
    }
    stage.fail("small", "1", &[]).await;
    stage.pass(SECOND).await;
    let mut runs = BTreeSet::new();
    for _ in 0..2 {
        runs.insert(stage.claim_on("b", 1).await[0].name.run.clone());
    }
    assert_eq!(runs.len(), 2, "{runs:?}");
}

async fn a_claim_of_which_nothing_is_heard_returns_uncounted_three_times<S: Store + Clone>(
    subject: Subject<S>,
) {
    let mut stage = Stage::on(subject, FIXED).await;
    stage.fail("r", "a", &[]).await;
    stage.pass(SECOND).await;
    for lost in 1..=3 {
        assert_eq!(stage.claim().await, ["r/a"]);
        stage.pass(SECOND).await;
        let record = stage.record("a").await;
        assert_eq!((record.counters.retries, record.counters.crashes), (1, 0));
        assert_eq!((record.silent_claims, record.counters.attempts), (lost, 1 + lost));
    }
    assert_eq!(stage.claim().await, ["r/a"]);
    stage.pass(SECOND).await;
    let record = stage.record("a").await;
    assert_eq!(record.counters.crashes, 1);
    assert!(matches!(record.state, State::Waiting { due } if due > stage.subject.clock.now()));
}

async fn a_claim_that_was_heard_of_is_a_crash_like_any_other<S: Store + Clone>(
    subject: Subject<S>,
) {
    let mut stage = Stage::on(subject, FIXED).await;
    stage.fail("r", "a", &[]).await;
    stage.pass(SECOND).await;
    let fence = stage.claim_on("b", 1).await[0].grant.fence;
    stage.heartbeat("a", fence).await;
    stage.pass(2 * SECOND).await;
    assert_eq!(stage.record("a").await.counters.crashes, 1);
}

/// Nothing comes of a supply: it is asked for longer than a look at the queue takes.
async fn gives_nothing<S: Store>(supply: &mut Supply<S>) -> bool {
    tokio::time::timeout(Duration::from_millis(150), supply.next()).await.is_err()
}

async fn a_supply_claims_for_the_places_that_are_free<S: Store + Clone>(subject: Subject<S>) {
    let mut stage = Stage::on(subject, FIXED).await;
    stage.due(&["a", "b", "c", "d"]).await;
    let mut supply = stage.supply(2, Vec::new());
    let first = supply.next().await.unwrap().unwrap();
    assert_eq!(first.len(), 2);
    assert!(gives_nothing(&mut supply).await, "both run");
    // What it has no room for is there for others, and those who ask are given it.
    assert_eq!(stage.claim_on("b", 1).await.len(), 1);
    stage.succeed(&first[0].name.step, first[0].grant.fence).await;
    let second = supply.next().await.unwrap().unwrap();
    assert_eq!(second.len(), 1);
    stage.succeed(&first[1].name.step, first[1].grant.fence).await;
    assert!(gives_nothing(&mut supply).await, "nothing is due");
}

async fn a_supply_counts_what_its_worker_runs_already<S: Store + Clone>(subject: Subject<S>) {
    let mut stage = Stage::on(subject, FIXED).await;
    stage.due(&["a", "b"]).await;
    let claimed = stage.claim_on("b", 1).await.pop().unwrap();
    let (step, fence) = (claimed.name.step.clone(), claimed.grant.fence);
    let mut supply = stage.supply(1, vec![Handed { name: claimed.name, fence }]);
    assert!(gives_nothing(&mut supply).await, "its place is taken");
    stage.heartbeat(&step, fence).await;
    assert!(gives_nothing(&mut supply).await, "it runs on");
    stage.succeed(&step, fence).await;
    assert_eq!(supply.next().await.unwrap().unwrap().len(), 1);
}

async fn a_supply_outlives_what_its_worker_has_lost_of_before<S: Store + Clone>(
    subject: Subject<S>,
) {
    let mut stage = Stage::on(subject, FIXED).await;
    stage.due(&["a"]).await;
    let claimed = stage.claim_on("b", 1).await.pop().unwrap();
    let fence = claimed.grant.fence;
    stage.heartbeat("a", fence).await;
    stage.pass(3 * SECOND).await;
    let mut supply = stage.supply(1, vec![Handed { name: claimed.name, fence }]);
    let again = supply.next().await.unwrap().expect("its worker is alive");
    assert_eq!((&*again[0].name.step, again[0].grant.attempt), ("a", 3));
}

async fn a_call_that_is_repeated_too_late_leaves_its_steps_to_others<S: Store + Clone>(
    subject: Subject<S>,
) {
    let mut stage = Stage::on(subject, FIXED).await;
    stage.due(&["a"]).await;
    let claim = stage.claim_of("b", 1, "");
    for lapsed in [false, true] {
        if lapsed {
            stage.pass(2 * SECOND).await;
        }
        let claimed = stage.service.claim(&claim, Instant::now()).await.unwrap();
        assert_eq!(claimed.is_empty(), lapsed);
    }
    stage.pass(2 * SECOND).await;
    assert_eq!(stage.claim().await, ["r/a"]);
}

async fn a_supply_ends_when_nothing_is_heard_of_a_claim<S: Store + Clone>(subject: Subject<S>) {
    let mut stage = Stage::on(subject, FIXED).await;
    stage.due(&["a"]).await;
    let mut supply = stage.supply(1, Vec::new());
    let fence = supply.next().await.unwrap().unwrap()[0].grant.fence;
    assert!(gives_nothing(&mut supply).await, "it runs");
    // A worker that was alive has crashed, which frees its place.
    stage.heartbeat("a", fence).await;
    assert!(gives_nothing(&mut supply).await, "it still runs");
    stage.pass(3 * SECOND).await;
    let again = supply.next().await.unwrap().unwrap();
    assert_eq!((&*again[0].name.step, again[0].grant.attempt), ("a", 3));
    // One that never was returns its claim, and is given nothing more.
    stage.pass(2 * SECOND).await;
    assert!(supply.next().await.unwrap().is_none());
    assert_eq!(stage.record("a").await.counters.crashes, 1);
    assert_eq!(stage.claim().await, ["r/a"]);
}

async fn a_supply_ends_with_its_connection_and_with_the_server<S: Store + Clone>(
    subject: Subject<S>,
) {
    let mut stage = Stage::on(subject, FIXED).await;
    let (claim, farewell) = (stage.claim_of("b", 1, ""), CancellationToken::new());
    let service = Arc::clone(&stage.service);
    let mut supply = Supply::new(service, claim, Vec::new(), farewell.clone());
    let mut other = stage.supply(1, Vec::new());
    let (ended, ()) = tokio::join!(supply.next(), async { farewell.cancel() });
    assert!(ended.unwrap().is_none());
    let (ended, ()) = tokio::join!(other.next(), async { stage.service.end_waits() });
    assert!(ended.unwrap().is_none());
    stage.due(&["a"]).await;
    assert!(other.next().await.unwrap().is_none(), "the server stops");
}

/// Each story on every store.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        stories!(memory: $($story),*);
        stories!(embedded: $($story),*);
        stories!(redis: $($story),*);
    };
    ($store:ident: $($story:ident),*) => {
        mod $store {
            $(
                #[tokio::test]
                async fn $story() {
                    let clock = super::subject::clock();
                    super::$story(super::subject::$store(clock).await).await;
                }
            )*
        }
    };
}

stories!(
    nothing_is_claimed_before_it_is_due_nor_while_it_is_leased,
    nothing_is_claimed_at_a_paused_target,
    a_claim_is_held_to_permits_and_made_when_one_is_free,
    a_step_is_left_to_hosts_that_may_run_it,
    who_may_not_run_a_step_holds_up_nobody_who_may,
    labels_choose_among_the_steps_of_a_queue,
    runs_take_turns,
    a_claim_of_which_nothing_is_heard_returns_uncounted_three_times,
    a_claim_that_was_heard_of_is_a_crash_like_any_other,
    a_supply_claims_for_the_places_that_are_free,
    a_supply_counts_what_its_worker_runs_already,
    a_supply_outlives_what_its_worker_has_lost_of_before,
    a_call_that_is_repeated_too_late_leaves_its_steps_to_others,
    a_supply_ends_when_nothing_is_heard_of_a_claim,
    a_supply_ends_with_its_connection_and_with_the_server,
);

type Client = RetryServiceClient<Channel>;

fn claim() -> ClaimDueRequest {
    ClaimDueRequest {
        queue: "etl".into(),
        request_id: chance::bytes::<16>().to_vec().into(),
        ..ClaimDueRequest::default()
    }
}

/// Whether a machine that is busy with others did not let a call in.
fn is_busy(status: &Status) -> bool {
    matches!(status.code(), Code::ResourceExhausted | Code::DeadlineExceeded)
}

/// The answer to a call that is repeated until it is let in.
macro_rules! insisted {
    ($client:ident.$call:ident($request:ident)) => {
        loop {
            match $client.$call($request.clone()).await {
                Err(busy) if is_busy(&busy) => tokio::time::sleep(Duration::from_millis(10)).await,
                answer => break answer.unwrap().into_inner(),
            }
        }
    };
}

async fn claimed(client: &mut Client, seconds: i64) -> Vec<ClaimedStep> {
    let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
    let request = ClaimDueRequest { timeout, ..claim() };
    insisted!(client.claim_due(request)).steps
}

/// Begins a step of a queue and has it fail: it is due within a moment.
async fn fail(client: &mut Client, run: &str, step: &str) {
    let delay = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
    let backoff = reprise::proto::Backoff {
        shape: Some(reprise::proto::backoff::Shape::Fixed(reprise::proto::FixedBackoff { delay })),
        ..reprise::proto::Backoff::default()
    };
    let policy = reprise::proto::Policy { backoff: Some(backoff), ..Default::default() };
    let begin = BeginAttemptRequest {
        run: run.into(),
        step: step.into(),
        queue: "etl".into(),
        payload: step.as_bytes().to_vec().into(),
        request_id: vec![1; 16].into(),
        policy: Some(begin_attempt_request::Policy::InlinePolicy(policy)),
        ..BeginAttemptRequest::default()
    };
    // An attempt that holds its lease is ended by its fence alone.
    let fence = match insisted!(client.begin_attempt(begin)).answer {
        Some(begin_attempt_response::Answer::Grant(grant)) => grant.fence,
        other => panic!("{other:?}"),
    };
    let failure = reprise::proto::Failure { class: Class::Transient.into(), ..Default::default() };
    let report = ReportAttemptRequest {
        run: run.into(),
        step: step.into(),
        fence,
        outcome: Some(Outcome::Failure(failure)),
        ..ReportAttemptRequest::default()
    };
    insisted!(client.report_attempt(report));
}

/// So many claimers at these instances, for as many steps.
async fn claimers(instances: &[&Server], count: usize) {
    let mut client = instances[0].client();
    let mut tasks = JoinSet::new();
    let mut clients = Vec::new();
    for at in 0..count {
        if at % 50 == 0 {
            clients = instances.iter().map(|instance| instance.client()).collect();
        }
        let mut client: Client = clients[at % clients.len()].clone();
        tasks.spawn(async move {
            loop {
                if let Some(step) = claimed(&mut client, 20).await.pop() {
                    return step;
                }
            }
        });
    }
    for at in 0..count {
        fail(&mut client, &format!("run-{}", at % 10), &format!("step-{at}")).await;
    }
    let mut steps = BTreeSet::new();
    while let Some(step) = tasks.join_next().await {
        let step = step.unwrap();
        assert_eq!(step.payload, step.step.as_bytes());
        assert_eq!(step.grant.unwrap().attempt, 2);
        assert!(steps.insert(step.step.clone()), "{} was claimed twice", step.step);
    }
    assert_eq!(steps.len(), count);
    assert!(claimed(&mut client, 0).await.is_empty());
}

/// Two servers on one Redis.
async fn two_instances(redis: &Standalone, folder: &Path) -> [Server; 2] {
    let start = async |name: &str| {
        let data = folder.join(name);
        let mut command = serve(&data, "127.0.0.1:0");
        command.args(["--store", &redis.url()]);
        Server::start_with(&data, command).await
    };
    [start("one").await, start("other").await]
}

#[tokio::test]
async fn a_thousand_claimers_get_a_thousand_steps_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), "127.0.0.1:0").await;
    claimers(&[&server], 1000).await;
}

#[tokio::test]
async fn claimers_at_two_instances_get_each_step_once() {
    let redis = Standalone::start(Kind::Redis70, Options::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let instances = two_instances(&redis, folder.path()).await;
    claimers(&[&instances[0], &instances[1]], 300).await;
}

fn stream(max_running: u32) -> StreamDueRequest {
    StreamDueRequest {
        queue: "etl".into(),
        request_id: chance::bytes::<16>().to_vec().into(),
        max_running: Some(max_running),
        lease: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
        ..StreamDueRequest::default()
    }
}

async fn succeed(client: &mut Client, step: &ClaimedStep) {
    let report = ReportAttemptRequest {
        run: step.run.clone(),
        step: step.step.clone(),
        fence: step.grant.as_ref().unwrap().fence,
        outcome: Some(Outcome::Success(Success {})),
        ..ReportAttemptRequest::default()
    };
    insisted!(client.report_attempt(report));
}

/// Works off what it is handed, and tells of each step at another instance maybe.
async fn works(mut client: Client, mut told: Client, done: UnboundedSender<ClaimedStep>) {
    loop {
        let mut steps = client.stream_due(stream(4)).await.unwrap().into_inner();
        while let Some(handed) = steps.message().await.unwrap() {
            assert!((1..=4).contains(&handed.steps.len()));
            for step in handed.steps {
                succeed(&mut told, &step).await;
                let _ = done.send(step);
            }
        }
    }
}

/// So many steps, for streams and claimers at these instances alike.
async fn streams(instances: &[&Server], count: usize) {
    let (sender, mut done) = unbounded_channel();
    let mut tasks = JoinSet::new();
    for (at, instance) in instances.iter().enumerate() {
        let other = instances[(at + 1) % instances.len()];
        tasks.spawn(works(instance.client(), instance.client(), sender.clone()));
        tasks.spawn(works(instance.client(), other.client(), sender.clone()));
        let (mut client, sender) = (instance.client(), sender.clone());
        tasks.spawn(async move {
            loop {
                for step in claimed(&mut client, 20).await {
                    succeed(&mut client, &step).await;
                    let _ = sender.send(step);
                }
            }
        });
    }
    let mut client = instances[0].client();
    for at in 0..count {
        fail(&mut client, &format!("run-{}", at % 10), &format!("step-{at}")).await;
    }
    let mut steps = BTreeSet::new();
    while steps.len() < count {
        let step = done.recv().await.unwrap();
        assert_eq!(step.payload, step.step.as_bytes());
        assert!(steps.insert(step.step.clone()), "{} was handed out twice", step.step);
    }
}

#[tokio::test]
async fn streams_and_claimers_get_each_step_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), "127.0.0.1:0").await;
    streams(&[&server], 200).await;
}

#[tokio::test]
async fn streams_at_two_instances_get_each_step_once() {
    let redis = Standalone::start(Kind::Redis70, Options::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let instances = two_instances(&redis, folder.path()).await;
    streams(&[&instances[0], &instances[1]], 200).await;
}

#[tokio::test]
async fn what_a_client_leaves_unheard_returns_with_its_lease() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), "127.0.0.1:0").await;
    let mut client = server.client();
    fail(&mut client, "r", "a").await;
    let lease = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let request = StreamDueRequest { lease, ..stream(8) };
    let mut gone = server.client();
    let mut steps = gone.stream_due(request).await.unwrap().into_inner();
    let handed = steps.message().await.unwrap().unwrap().steps.pop().unwrap().grant.unwrap();
    assert_eq!(handed.attempt, 2);
    drop((steps, gone));
    let again = claimed(&mut client, 20).await.pop().unwrap().grant.unwrap();
    // It counts as an attempt, and as nothing else.
    let counters = Counters { attempts: 3, ..handed.counters.unwrap() };
    assert_eq!((again.attempt, again.counters.unwrap()), (3, counters));
}

#[tokio::test]
async fn a_stream_ends_well_when_its_server_stops() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(&folder.path().join("data"), "127.0.0.1:0").await;
    let mut client = server.client();
    fail(&mut client, "r", "a").await;
    let mut steps = client.stream_due(stream(8)).await.unwrap().into_inner();
    assert_eq!(steps.message().await.unwrap().unwrap().steps.len(), 1);
    server.signal(Signal::TERM);
    assert!(steps.message().await.unwrap().is_none());
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn a_stream_from_nowhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), "127.0.0.1:0").await;
    let mut client = server.client();
    let wrong = StreamDueRequest { request_id: vec![1].into(), ..stream(65) };
    let refused = client.stream_due(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let nowhere = StreamDueRequest { namespace: "nowhere".into(), ..stream(1) };
    let mut steps = client.stream_due(nowhere).await.unwrap().into_inner();
    assert_eq!(steps.message().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_claim_that_is_wrong_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), "127.0.0.1:0").await;
    let mut client = server.client();
    let request = ClaimDueRequest {
        queue: "e t l".into(),
        request_id: vec![1].into(),
        max_steps: Some(65),
        labels: [("gpu".to_owned(), "one of a100, h100".to_owned())].into(),
        ..ClaimDueRequest::default()
    };
    let refused = client.claim_due(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let fields = refused.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = fields.iter().map(|violation| &*violation.field).collect();
    assert_eq!(fields, ["queue", "request_id", "max_steps", "labels"]);
    let nowhere = ClaimDueRequest { namespace: "nowhere".into(), ..claim() };
    assert_eq!(client.claim_due(nowhere).await.unwrap_err().code(), Code::NotFound);
}

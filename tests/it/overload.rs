//! More callers than can be served: the real services behind the real edge, with
//! room for a few calls at a time, in this process and in one of their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use prost::Message as _;
use reprise::{
    chance,
    clock::Clock,
    domain::time::Timestamp,
    grpc::{
        admin::{About, Admin},
        admission::{Admission, AdmissionLayer, AdmissionSettings, class_of},
        listener::{Listener, ListenerSettings},
        retry::Retry,
        routes::Routes,
    },
    proto::{
        BeginAttemptRequest, CreateNamespaceRequest, Failure, FailureClass, Namespace,
        ReportAttemptRequest, admin_service_client::AdminServiceClient,
        report_attempt_request::Outcome, retry_service_client::RetryServiceClient,
    },
    service::Service,
    store::embedded::{Embedded, EmbeddedOptions, log::Fsync},
    telemetry::Telemetry,
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};
use tonic_health::{pb::health_server::HealthServer, server::HealthService};
use tonic_types::StatusExt as _;
use tower::Layer as _;

use crate::process::{Server, channel, serve};

const CALLERS: u32 = 48;
const CALLS: u32 = 40;
const RETRY_DELAY: Duration = Duration::from_millis(400);

/// Serves with room for two calls at a time, until the token is dropped.
fn narrow_server(folder: &tempfile::TempDir) -> (String, tokio_util::sync::DropGuard) {
    let options =
        EmbeddedOptions { dir: folder.path().join("data"), fsync: Fsync::Always, size_max: None };
    let clock = Clock::system(Timestamp::EPOCH);
    let store = Embedded::open(&options, clock.clone()).unwrap();
    let service = Arc::new(Service::new(store, Arc::new(Telemetry::new()), clock.clone()));
    let about = About {
        started_at: Timestamp::EPOCH,
        policy_file: String::new(),
        policy_file_error: arc_swap::ArcSwap::default(),
    };
    let health = HealthServer::new(HealthService::from_health_reporter(
        tonic_health::server::HealthReporter::new(),
    ));
    let routes = Routes::new(
        Retry::new(Arc::clone(&service), clock),
        Admin::new(service, Arc::new(about)),
        health,
        false,
    )
    .unwrap();
    let narrow = AdmissionSettings {
        limit_start: 2,
        limit_floor: 2,
        limit_max: 2,
        // Longer than a turn takes on the slowest machine: who waits for their
        // turn has it, and who is refused had no place in the queue.
        wait_target: Duration::from_secs(2),
        wait_burst: Duration::from_secs(2),
        retry_delay: RETRY_DELAY,
        ..AdmissionSettings::default()
    };
    let admission = Admission::new(narrow, chance::unit);
    let served = AdmissionLayer::new(admission, class_of).layer(routes);
    let listen = ["127.0.0.1:0".parse().unwrap()];
    let listener = Listener::bind(&listen, ListenerSettings::default(), chance::unit).unwrap();
    let address = listener.addresses()[0].to_string();
    let stop = CancellationToken::new();
    tokio::spawn(listener.serve(served, stop.clone()));
    (address, stop.drop_guard())
}

fn begin(namespace: &str, step: String) -> BeginAttemptRequest {
    let request_id = vec![7; 16].into();
    BeginAttemptRequest {
        namespace: namespace.into(),
        run: "r".into(),
        step,
        request_id,
        ..BeginAttemptRequest::default()
    }
}

fn report(step: String) -> ReportAttemptRequest {
    let failure = Failure { class: FailureClass::Timeout as i32, ..Failure::default() };
    let outcome = Some(Outcome::Failure(failure));
    ReportAttemptRequest {
        run: "r".into(),
        step,
        attempt: 1,
        outcome,
        ..ReportAttemptRequest::default()
    }
}

/// A refusal says when to come back, and exactly once why.
fn is_hint(status: &Status) {
    is_overload(status);
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(
        retry.is_some_and(|delay| (RETRY_DELAY / 2..=RETRY_DELAY * 3 / 2).contains(&delay)),
        "{status:?}"
    );
}

fn is_overload(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(retry.is_some_and(|delay| !delay.is_zero()), "{status:?}");
    let told = tonic_types::Status::decode(status.details()).unwrap();
    let reasons =
        told.details.iter().filter(|detail| detail.type_url.ends_with("google.rpc.ErrorInfo"));
    assert_eq!(reasons.count(), 1, "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, "OVERLOADED");
}

/// Calls that were refused, of reports and of begins.
#[derive(Default)]
struct Refused {
    reports: AtomicU32,
    begins: AtomicU32,
}

/// Comes back at once, whatever it is told.
async fn shout(number: u32, mut client: RetryServiceClient<Channel>, refused: Arc<Refused>) {
    for call in 0..CALLS {
        let step = format!("{number}/{call}");
        let (answer, counted) = if number.is_multiple_of(2) {
            (client.report_attempt(report(step)).await.err(), &refused.reports)
        } else {
            (client.begin_attempt(begin("", step)).await.err(), &refused.begins)
        };
        if let Some(status) = answer {
            is_hint(&status);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn too_many_callers_are_told_to_come_back_and_a_quiet_one_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _serving) = narrow_server(&folder);
    let namespace = Namespace { name: "quiet".into(), ..Namespace::default() };
    let request = CreateNamespaceRequest { namespace: Some(namespace) };
    AdminServiceClient::new(channel(&address)).create_namespace(request).await.unwrap();

    let refused = Arc::<Refused>::default();
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let client = RetryServiceClient::new(channel(&address));
        callers.spawn(shout(number, client, Arc::clone(&refused)));
    }
    let mut quiet = RetryServiceClient::new(channel(&address));
    let mut served = 0;
    for call in 0..20 {
        match quiet.begin_attempt(begin("quiet", format!("{call}"))).await {
            Ok(_) => served += 1,
            Err(status) => is_hint(&status),
        }
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    let reports = refused.reports.load(Ordering::Relaxed);
    let begins = refused.begins.load(Ordering::Relaxed);
    let each = CALLERS / 2 * CALLS;
    println!(
        "refused {reports} of {each} reports, {begins} of {each} begins; quiet {served} of 20"
    );
    assert!(begins > 0, "nothing was refused");
    assert!(reports < begins, "{reports} reports were refused, and {begins} begins");
    assert_eq!(served, 20, "a namespace pays for nobody but itself");
}

/// Slots of the server that is flooded.
const SLOTS: u32 = 4;
/// Longer than a place in its queue lasts on the slowest machine: who has a place
/// is served.
const WAIT_BURST: Duration = Duration::from_secs(5);
/// What a busy machine may add to any call.
const NOISE: Duration = Duration::from_millis(50);

/// A server in a process of its own, with a durable store.
async fn small_server(folder: &tempfile::TempDir) -> Server {
    let data = folder.path().join("data");
    let mut command = serve(&data, "127.0.0.1:0");
    for name in ["LIMIT_START", "LIMIT_FLOOR", "LIMIT_MAX"] {
        command.env(format!("REPRISE__ADMISSION__{name}"), SLOTS.to_string());
    }
    command.env("REPRISE__ADMISSION__WAIT_BURST", format!("{}s", WAIT_BURST.as_secs()));
    Server::start_with(&data, command).await
}

/// What the callers saw.
#[derive(Default)]
struct Tally {
    served: Vec<Duration>,
    refused: Vec<Status>,
}

impl Tally {
    fn p99(&mut self) -> Duration {
        self.served.sort();
        self.served[self.served.len() * 99 / 100]
    }

    fn count(&mut self, took: Duration, answer: Result<(), Status>) {
        match answer {
            Ok(()) => self.served.push(took),
            Err(status) => self.refused.push(status),
        }
    }
}

type Answered = (Duration, Result<(), Status>);

async fn timed(mut client: RetryServiceClient<Channel>, step: String) -> Answered {
    let asked = Instant::now();
    let answer = client.begin_attempt(begin("", step)).await.map(drop);
    (asked.elapsed(), answer)
}

/// As many callers as have a slot or a place in the queue, each waiting for its
/// answers: all that the server can do, and the rate at which it does it.
async fn as_many_as_fit(client: &RetryServiceClient<Channel>) -> (Tally, f64) {
    const EACH: u32 = 100;
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..2 * SLOTS {
        let client = client.clone();
        callers.spawn(async move {
            let mut answers = Vec::new();
            for call in 0..EACH {
                answers.push(timed(client.clone(), format!("fits/{caller}/{call}")).await);
            }
            answers
        });
    }
    let mut tally = Tally::default();
    for (took, answer) in callers.join_all().await.into_iter().flatten() {
        tally.count(took, answer);
    }
    let rate = tally.served.len() as f64 / began.elapsed().as_secs_f64();
    (tally, rate)
}

/// So many calls a second, whether or not the earlier ones are answered; no more
/// than `IN_FLIGHT_MAX` at a time, as with any client that has bounds.
async fn flood(client: &RetryServiceClient<Channel>, per_second: f64) -> Tally {
    const IN_FLIGHT_MAX: usize = 100;
    const LASTS: Duration = Duration::from_secs(2);
    let began = Instant::now();
    let mut calls: JoinSet<Answered> = JoinSet::new();
    let mut tally = Tally::default();
    let mut sent = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    while began.elapsed() < LASTS {
        tick.tick().await;
        let should = (began.elapsed().as_secs_f64() * per_second) as u32;
        while sent < should && calls.len() < IN_FLIGHT_MAX {
            calls.spawn(timed(client.clone(), format!("flood/{sent}")));
            sent += 1;
        }
        // What the client could not send in time is not made up for.
        sent = sent.max(should);
        while let Some(answered) = calls.try_join_next() {
            let (took, answer) = answered.unwrap();
            tally.count(took, answer);
        }
    }
    for (took, answer) in calls.join_all().await {
        tally.count(took, answer);
    }
    tally
}

#[tokio::test]
async fn three_times_what_a_server_can_do_is_refused_and_the_rest_served_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let server = small_server(&folder).await;
    let client = server.client();
    let (mut full, rate) = as_many_as_fit(&client).await;
    assert_eq!(full.refused.len(), 0, "{:?}", full.refused.first());

    let mut flooded = flood(&client, 3.0 * rate).await;
    let (served, refused) = (flooded.served.len(), flooded.refused.len());
    let (p99_full, p99) = (full.p99(), flooded.p99());
    println!(
        "{rate:.0}/s, p99 {p99_full:?}; flooded: {served} served, {refused} refused, p99 {p99:?}"
    );
    assert!(refused > 0, "nothing was refused");
    flooded.refused.iter().for_each(is_overload);
    assert!(served as f64 > rate * 2.0 / 8.0, "{served} served in 2 s, at {rate:.0}/s before");
    assert!(p99 < 4 * p99_full.max(NOISE), "{p99:?}, and {p99_full:?} without the flood");
}

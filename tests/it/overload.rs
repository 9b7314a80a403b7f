//! More callers than can be served: the real services behind the real edge,
//! with room for two calls at a time.

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
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};
use tonic_health::{pb::health_server::HealthServer, server::HealthService};
use tonic_types::StatusExt as _;
use tower::Layer as _;

use crate::process::channel;

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
        wait_target: Duration::from_millis(20),
        wait_burst: Duration::from_millis(200),
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
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(
        retry.is_some_and(|delay| (RETRY_DELAY / 2..=RETRY_DELAY * 3 / 2).contains(&delay)),
        "{status:?}"
    );
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
    let others = 20 * (2 * each - reports - begins) / (2 * each);
    assert!(served > others, "of 20 calls, {served} were served where it is quiet, {others} else");
}

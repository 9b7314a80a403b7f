//! What is right is read as it was meant, and nothing makes reading panic.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use prost::Message;

use super::{
    begin_request, evaluate_request, failure, named_policy, named_target, namespace,
    pause_target_request, policy, report_request, seconds,
};
use crate::{
    domain::{
        event::{AttemptName, Comes, Deadline},
        failure::{Code, Executed, FailureClass, Pushback, Wish},
        limit::spec::TargetSpec,
        namespace::Settings,
        time::Timestamp,
    },
    grpc::convert::{admin, request, target},
    proto::{self, report_attempt_request::Outcome},
    service::GivenPolicy,
};

#[test]
fn a_begin_is_read_as_it_was_meant() {
    let (name, policy, begin) = request::begin(begin_request()).unwrap();
    assert_eq!(name.key().to_string(), "ads nightly/2026-01-05 load");
    assert!(matches!(policy, Some(GivenPolicy::Inline(_))));
    assert_eq!(begin.lease, Some(Duration::from_secs(30)));
    assert_eq!(begin.host.as_deref(), Some("node-1"));
    assert_eq!(begin.worker, "w1");
    assert_eq!(begin.comes, Comes::WhenWoken);
    assert_eq!(begin.step.kind, "sql");
    assert_eq!(
        begin.step.targets.iter().map(|target| &**target).collect::<Vec<_>>(),
        ["warehouse-db"]
    );
    assert_eq!(begin.step.queue.as_deref(), Some("etl"));
    assert_eq!(
        begin.step.deadline,
        Some(Deadline::At(Timestamp::from_micros(1_800_000_000_000_005)))
    );
}

#[test]
fn what_is_left_out_stays_out() {
    let bare = proto::BeginAttemptRequest {
        run: "r".into(),
        step: "s".into(),
        request_id: vec![1; 16].into(),
        ..Default::default()
    };
    let (name, policy, begin) = request::begin(bare).unwrap();
    assert_eq!(name.namespace, "default");
    assert_eq!(policy, None);
    assert_eq!((begin.lease, begin.host, begin.step), (None, None, Default::default()));
    assert_eq!(begin.comes, Comes::ByItself);
}

#[test]
fn a_report_is_read_as_it_was_meant() {
    let (_, policy, report) = request::report(report_request()).unwrap();
    assert!(matches!(policy, Some(GivenPolicy::Named(name)) if &*name == "etl"));
    assert_eq!(report.step.deadline, Some(Deadline::After(Duration::from_secs(60))));
    let failure = report.failure.unwrap();
    assert_eq!(failure.class, FailureClass::Transient);
    assert_eq!(failure.code, Some(Code::Http(503)));
    assert_eq!((failure.exit_code, failure.signal), (Some(-1), Some(9)));
    assert_eq!(failure.pushback, Some(Pushback::After(Duration::from_secs(5))));
    assert_eq!(
        failure.wish,
        Some(Wish { max_retries: Some(2), delay: Some(Duration::from_secs(1)) })
    );
    assert_eq!((failure.retryable, failure.executed), (true, Executed::No));
    assert_eq!((failure.action.as_str(), failure.target.as_str()), ("upload", "warehouse-db"));
}

#[test]
fn the_first_given_of_fence_number_and_request_id_names_the_attempt() {
    let named = |fence, attempt| {
        let (_, _, report) =
            request::report(proto::ReportAttemptRequest { fence, attempt, ..report_request() })
                .unwrap();
        report.attempt
    };
    assert_eq!(named(5, 6), AttemptName::Fence(5));
    assert_eq!(named(0, 6), AttemptName::Number(6));
    assert!(matches!(named(0, 0), AttemptName::Request(id) if id != 0));
}

#[test]
fn unknown_numbers_are_read_the_safe_way() {
    let read = |class, executed| {
        let outcome = Some(Outcome::Failure(proto::Failure { class, executed, ..failure() }));
        let (_, _, report) =
            request::report(proto::ReportAttemptRequest { outcome, ..report_request() }).unwrap();
        let failure = report.failure.unwrap();
        (failure.class, failure.executed)
    };
    assert_eq!(read(99, 99), (FailureClass::Failure, Executed::Maybe));
    assert_eq!(read(-1, 0), (FailureClass::Failure, Executed::Maybe));
    for (number, class) in (1..).zip(FailureClass::ALL) {
        assert_eq!(read(number, 3), (class, Executed::Yes));
    }
}

fn payload_of(edit: impl FnOnce(&mut proto::ReportAttemptRequest, &mut proto::Failure)) -> u64 {
    let (mut request, mut failure) = (report_request(), failure());
    edit(&mut request, &mut failure);
    request.outcome = Some(Outcome::Failure(failure));
    request::report(request).unwrap().2.payload
}

#[test]
fn a_repeated_report_may_measure_anew() {
    let first = payload_of(|_, _| {});
    for again in [
        payload_of(|_, f| f.duration = seconds(4)),
        payload_of(|_, f| f.host = "node-2".into()),
        payload_of(|_, f| f.worker = "w2".into()),
        payload_of(|r, _| r.time_left = seconds(59)),
        payload_of(|r, _| r.policy = None),
    ] {
        assert_eq!(again, first);
    }
}

#[test]
fn another_report_has_another_payload() {
    use proto::pushback::Until;
    let success = request::report(proto::ReportAttemptRequest {
        outcome: Some(Outcome::Success(proto::Success {})),
        ..report_request()
    });
    let payloads = [
        success.unwrap().2.payload,
        payload_of(|_, _| {}),
        payload_of(|_, f| f.class = 1),
        payload_of(|_, f| f.error_type = "E".into()),
        payload_of(|_, f| f.code = Some(proto::failure::Code::HttpStatus(500))),
        payload_of(|_, f| f.code = None),
        payload_of(|_, f| f.exit_code = None),
        payload_of(|_, f| f.exit_code = Some(1)),
        payload_of(|_, f| f.signal = None),
        payload_of(|_, f| f.message = "other".into()),
        payload_of(|_, f| f.cause = "other".into()),
        payload_of(|_, f| (f.message, f.cause) = ("connection resetc0ffee".into(), String::new())),
        payload_of(|_, f| f.target = "other".into()),
        payload_of(|_, f| f.pushback = None),
        payload_of(|_, f| f.pushback = Some(proto::Pushback { until: Some(Until::Never(true)) })),
        payload_of(|_, f| f.wish = None),
        payload_of(|_, f| f.wish = Some(proto::RetryWish::default())),
        payload_of(|_, f| f.wish = Some(proto::RetryWish { max_retries: Some(2), delay: None })),
        payload_of(|_, f| f.retryable = Some(false)),
        payload_of(|_, f| f.executed = 3),
        payload_of(|_, f| f.action = "other".into()),
    ];
    let distinct: std::collections::HashSet<u64> = payloads.into_iter().collect();
    assert_eq!(distinct.len(), payloads.len());
}

#[test]
fn stored_payloads_keep_their_digests() {
    // Changing one of these turns calls that are repeated across an upgrade into misuses.
    assert_eq!(payload_of(|_, _| {}), REPORT_DIGEST);
    let (_, _, begin) = request::begin(begin_request()).unwrap();
    assert_eq!(begin.identity.payload, BEGIN_DIGEST);
}

const REPORT_DIGEST: u64 = 13_577_250_211_243_460_847;
const BEGIN_DIGEST: u64 = 13_247_000_496_911_517_452;

#[test]
fn a_repeated_begin_may_come_from_elsewhere() {
    let payload = |edit: fn(&mut proto::BeginAttemptRequest)| {
        let mut request = begin_request();
        edit(&mut request);
        request::begin(request).unwrap().2.identity.payload
    };
    let first = payload(|_| {});
    assert_eq!(payload(|r| (r.host, r.worker) = ("node-2".into(), "w2".into())), first);
    assert_eq!(payload(|r| (r.deadline, r.policy) = (None, None)), first);
    for other in [
        payload(|r| r.kind = "x".into()),
        payload(|r| r.targets = vec![]),
        payload(|r| r.queue = "x".into()),
        payload(|r| r.lease = seconds(31)),
        payload(|r| r.payload = b"gpu=a100".as_slice().into()),
        payload(|r| r.labels = labels("a100")),
        payload(|r| r.labels = labels("l4")),
    ] {
        assert_ne!(other, first);
    }
    let labeled = payload(|r| r.labels = labels("a100"));
    assert_ne!(payload(|r| r.payload = b"gpu=a100".as_slice().into()), labeled);
    assert_ne!(payload(|r| r.labels = labels("l4")), labeled);
}

fn labels(gpu: &str) -> std::collections::BTreeMap<String, String> {
    [("gpu".to_owned(), gpu.to_owned())].into()
}

#[test]
fn one_bad_report_harms_no_other() {
    let bad = proto::ReportAttemptRequest { step: "a b".into(), ..report_request() };
    let own = proto::ReportAttemptRequest { namespace: String::new(), ..report_request() };
    let reports = vec![report_request(), bad, own];
    let batch =
        request::batch(proto::BatchReportAttemptsRequest { namespace: "ads".into(), reports })
            .unwrap();
    let [Ok(_), Err(rejected), Ok((name, _, _))] = batch.reports.as_slice() else {
        panic!("{batch:?}")
    };
    assert_eq!((rejected.run.as_str(), rejected.step.as_str()), ("r", "a b"));
    assert_eq!(rejected.invalid.violations()[0].field, "reports[1].step");
    assert_eq!(name.namespace, "ads");
}

#[test]
fn everything_wrong_is_told_at_once() {
    let request = proto::BeginAttemptRequest {
        queue: "a\u{1b}[31m".into(),
        lease: seconds(0),
        ..Default::default()
    };
    let invalid = request::begin(request).unwrap_err();
    let fields: Vec<&str> =
        invalid.violations().iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["run", "step", "request_id", "lease", "queue"]);
    assert_eq!(invalid.violations()[4].value, r#""a\u{1b}[31m""#);
}

#[test]
fn a_mask_changes_what_it_names_and_nothing_else() {
    let current = Settings { max_live_steps: 7, ..Settings::default() };
    let changed = |paths: &[&str]| {
        let update_mask =
            Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() });
        let request = proto::UpdateNamespaceRequest { namespace: Some(namespace()), update_mask };
        admin::update_namespace(request).unwrap().apply(&current)
    };
    assert_eq!(
        changed(&["settings.lease"]),
        Settings { lease: Duration::from_secs(60), ..current.clone() }
    );
    let all = changed(&[]);
    assert_eq!(all, changed(&["settings"]));
    assert_eq!(admin::settings_to_proto(&all), namespace().settings.unwrap());
}

#[test]
fn settings_left_out_are_the_defaults() {
    let bare = proto::Namespace { name: "ads".into(), ..Default::default() };
    let creation =
        admin::create_namespace(proto::CreateNamespaceRequest { namespace: Some(bare) }).unwrap();
    assert_eq!(creation.settings, Settings::default());
}

#[test]
fn a_page_goes_on_after_the_last_name() {
    let page = |page_size, page_token: String| {
        admin::list_namespaces(proto::ListNamespacesRequest { page_size, page_token }).unwrap()
    };
    assert_eq!(page(0, String::new()), admin::Page { size: 100, after: None });
    assert_eq!(
        page(1000, admin::page_token("ads")),
        admin::Page { size: 1000, after: Some("ads".into()) }
    );
}

/// Reads whatever these bytes are as every request.
fn read_as_everything(bytes: &[u8]) {
    fn read<M: Message + Default, T>(bytes: &[u8], read: impl FnOnce(M) -> T) {
        if let Ok(message) = M::decode(bytes) {
            read(message);
        }
    }
    read(bytes, request::begin);
    read(bytes, request::heartbeat);
    read(bytes, request::report);
    read(bytes, request::batch);
    read(bytes, request::get_step);
    read(bytes, request::claim_due);
    read(bytes, request::await_decision);
    read(bytes, admin::create_namespace);
    read(bytes, admin::get_namespace);
    read(bytes, admin::list_namespaces);
    read(bytes, |request| {
        admin::update_namespace(request).map(|change| change.apply(&Settings::default()))
    });
    read(bytes, admin::delete_namespace);
    read(bytes, admin::create_policy);
    read(bytes, admin::update_policy);
    read(bytes, admin::get_policy);
    read(bytes, admin::list_policies);
    read(bytes, admin::delete_policy);
    read(bytes, admin::list_policy_revisions);
    read(bytes, target::create);
    read(bytes, |request| {
        target::update(request).map(|change| change.apply(&TargetSpec::default()))
    });
    read(bytes, target::get);
    read(bytes, target::list);
    read(bytes, target::delete);
    read(bytes, target::pause);
    read(bytes, target::resume);
    read(bytes, |request| admin::evaluate(request).map_err(tonic::Status::from));
}

fn good_bytes() -> impl Strategy<Value = Vec<u8>> {
    let reports = vec![report_request(); 2];
    proptest::sample::select(vec![
        begin_request().encode_to_vec(),
        report_request().encode_to_vec(),
        proto::BatchReportAttemptsRequest { namespace: "ads".into(), reports }.encode_to_vec(),
        evaluate_request().encode_to_vec(),
        policy().encode_to_vec(),
        proto::UpdateNamespaceRequest { namespace: Some(namespace()), update_mask: None }
            .encode_to_vec(),
        proto::UpdatePolicyRequest { policy: Some(named_policy()), ..Default::default() }
            .encode_to_vec(),
        proto::UpdateTargetRequest { target: Some(named_target()), ..Default::default() }
            .encode_to_vec(),
        pause_target_request().encode_to_vec(),
    ])
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn no_spoiled_request_makes_reading_panic(
        mut bytes in good_bytes(),
        spoiled in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        for (at, byte) in spoiled {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_as_everything(&bytes);
    }
}

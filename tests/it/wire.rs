//! A real server, seen from the other end of the wire: sizes, bad input,
//! callers that go away, and what keeps a server from starting.

use std::{fs, os::unix::fs::FileExt as _, path::Path, time::Duration};

use reprise::proto::{
    BatchReportAttemptsRequest, BeginAttemptRequest, Failure, FailureClass, GetStepRequest,
    HeartbeatRequest, LeaseState, Policy, ReportAttemptRequest, ReportAttemptResponse, Step,
    Success, batch_report_result, begin_attempt_request, begin_attempt_response,
    report_attempt_request::{self, Outcome},
    retry_service_client::RetryServiceClient,
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::process::{Server, refusal, serve};

type Client = RetryServiceClient<Channel>;

/// A folder for a server's data and its socket.
fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn over_tcp(folder: &TempDir) -> Server {
    Server::start(&folder.path().join("data"), "127.0.0.1:0").await
}

async fn over_socket(folder: &TempDir) -> Server {
    let listen = format!("unix:{}", folder.path().join("reprise.sock").display());
    Server::start(&folder.path().join("data"), &listen).await
}

fn begin(step: &str, id: u8) -> BeginAttemptRequest {
    BeginAttemptRequest {
        run: "nightly".into(),
        step: step.into(),
        request_id: vec![id; 16].into(),
        ..BeginAttemptRequest::default()
    }
}

fn failed(step: &str, attempt: u32) -> ReportAttemptRequest {
    let failure = Failure {
        class: FailureClass::Transient as i32,
        message: "it hung up".into(),
        ..Failure::default()
    };
    ReportAttemptRequest {
        run: "nightly".into(),
        step: step.into(),
        attempt,
        outcome: Some(Outcome::Failure(failure)),
        ..ReportAttemptRequest::default()
    }
}

fn batch(reports: Vec<ReportAttemptRequest>) -> BatchReportAttemptsRequest {
    BatchReportAttemptsRequest { namespace: String::new(), reports }
}

async fn shown(client: &mut Client, step: &str) -> Result<Step, Status> {
    let request =
        GetStepRequest { namespace: String::new(), run: "nightly".into(), step: step.into() };
    let mut step = client.get_step(request).await?.into_inner().step.unwrap();
    step.read_at = None;
    Ok(step)
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test]
async fn a_message_is_bounded_and_a_batch_may_be_larger() {
    let folder = folder();
    {
        let server = over_tcp(&folder).await;
        let mut client = server.client();
        let mut large = failed("large", 1);
        if let Some(Outcome::Failure(failure)) = &mut large.outcome {
            failure.message = "x".repeat(65 * 1024);
        }
        let refused = client.report_attempt(large).await.unwrap_err();
        assert!(
            matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted),
            "{refused:?}"
        );
        assert_eq!(shown(&mut client, "large").await.unwrap_err().code(), Code::NotFound);

        let spoken = |at: usize| {
            let mut report = failed(&format!("step-{at}"), 1);
            if let Some(Outcome::Failure(failure)) = &mut report.outcome {
                failure.message = "x".repeat(3800);
            }
            report
        };
        let answer = client
            .batch_report_attempts(batch((0..256).map(spoken).collect()))
            .await
            .unwrap()
            .into_inner();
        let carried_out = |result: &&reprise::proto::BatchReportResult| {
            matches!(result.result, Some(batch_report_result::Result::Response(_)))
        };
        assert_eq!(answer.results.iter().filter(carried_out).count(), 256);

        let refused = client
            .batch_report_attempts(batch(
                (0..257).map(|at| failed(&format!("more-{at}"), 1)).collect(),
            ))
            .await
            .unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::InvalidArgument, "INVALID_ARGUMENT")
        );
        assert_eq!(shown(&mut client, "more-0").await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_said_not_to() {
    let folder = folder();
    let server = over_socket(&folder).await;
    for path in [
        "/reprise.v1.RetryService/Guess",
        "/reprise.v1.AdminService/Guess",
        "/reprise.v2.RetryService/BeginAttempt",
        "/nothing",
    ] {
        let mut grpc = tonic::client::Grpc::new(server.channel());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<
            BeginAttemptRequest,
            reprise::proto::BeginAttemptResponse,
        >::default();
        let refused = grpc
            .unary(Request::new(begin("a", 1)), path.parse().unwrap(), codec)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{path}: {refused:?}");
    }
}

/// A policy that was never seen before has to be kept first, which takes a
/// while: the second report of a step does not overtake the first.
#[tokio::test]
async fn reports_of_one_step_are_taken_in_order_within_a_batch() {
    let folder = folder();
    let server = over_tcp(&folder).await;
    let policy = Policy { max_retries: Some(1000), ..Policy::default() };
    let report = |attempt| ReportAttemptRequest {
        policy: Some(report_attempt_request::Policy::InlinePolicy(policy.clone())),
        ..failed("hot", attempt)
    };
    let answer = server
        .client()
        .batch_report_attempts(batch((1..=100).map(report).collect()))
        .await
        .unwrap()
        .into_inner();
    for (number, result) in (1..).zip(&answer.results) {
        let Some(batch_report_result::Result::Response(response)) = &result.result else {
            panic!("report {number}: {result:?}")
        };
        assert_eq!((response.attempt, response.replayed), (number, false));
    }
    assert_eq!(shown(&mut server.client(), "hot").await.unwrap().counters.unwrap().retries, 100);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_whole_work_or_none() {
    let folder = folder();
    let server = over_tcp(&folder).await;
    // Each caller gives up after another number of turns: before anything is
    // sent, while it waits for the disk, and when the answer is on its way.
    let mut callers = JoinSet::new();
    for turns in 0..64_u32 {
        let channel = server.channel();
        callers.spawn(async move {
            let step = format!("left-{turns}");
            let mut client = RetryServiceClient::new(channel.clone());
            let call = client.report_attempt(failed(&step, 1));
            tokio::select! {
                biased;
                () = async { for _ in 0..turns { tokio::time::sleep(Duration::from_micros(50)).await } } => {}
                answer = call => drop(answer),
            }
            drop(channel);
            step
        });
    }
    let mut client = server.client();
    while let Some(step) = callers.join_next().await {
        let step = step.unwrap();
        let before = shown(&mut client, &step).await;
        let answer = client.report_attempt(failed(&step, 1)).await.unwrap().into_inner();
        assert_eq!(answer.attempt, 1);
        if let Ok(before) = before {
            assert!(answer.replayed, "{step} was recorded");
            assert_eq!(before.attempts.len(), 1);
            assert_eq!(
                before.attempts[0].decision.as_ref().unwrap().not_before,
                answer.decision.unwrap().not_before
            );
        }
        assert_eq!(shown(&mut client, &step).await.unwrap().counters.unwrap().attempts, 1);
    }
}

#[tokio::test]
async fn bad_input_is_refused_and_changes_nothing() {
    let folder = folder();
    let server = over_socket(&folder).await;
    let mut client = server.client();
    let answer = client.begin_attempt(begin("a", 1)).await.unwrap().into_inner();
    let Some(begin_attempt_response::Answer::Grant(grant)) = answer.answer else {
        panic!("{answer:?}")
    };
    let before = shown(&mut client, "a").await.unwrap();

    let begins = [
        ("no id", BeginAttemptRequest { request_id: Vec::new().into(), ..begin("a", 2) }),
        ("a short id", BeginAttemptRequest { request_id: vec![2; 15].into(), ..begin("a", 2) }),
        ("no run", BeginAttemptRequest { run: String::new(), ..begin("a", 2) }),
        ("a lease of a day", BeginAttemptRequest { lease: Some(span(86_400)), ..begin("a", 2) }),
        (
            "time that has run out",
            BeginAttemptRequest { time_left: Some(span(0)), ..begin("a", 2) },
        ),
        (
            "a target with a space",
            BeginAttemptRequest { targets: vec!["the db".into()], ..begin("a", 2) },
        ),
        (
            "a policy with a hole",
            BeginAttemptRequest {
                policy: Some(begin_attempt_request::Policy::InlinePolicy(Policy {
                    rules: vec![reprise::proto::Rule::default()],
                    ..Policy::default()
                })),
                ..begin("a", 2)
            },
        ),
    ];
    for (what, request) in begins {
        let refused = client.begin_attempt(request).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::InvalidArgument, "INVALID_ARGUMENT"),
            "{what}: {refused:?}"
        );
        assert!(
            refused.get_details_bad_request().is_some_and(|bad| !bad.field_violations.is_empty()),
            "{what}: {refused:?}"
        );
    }
    let named = BeginAttemptRequest {
        policy: Some(begin_attempt_request::Policy::PolicyName("nobody".into())),
        ..begin("a", 2)
    };
    assert_eq!(reason(&client.begin_attempt(named).await.unwrap_err()), "POLICY_NOT_FOUND");
    let reused = BeginAttemptRequest { lease: Some(span(60)), ..begin("a", 1) };
    assert_eq!(reason(&client.begin_attempt(reused).await.unwrap_err()), "IDENTITY_REUSED");

    let reports = [
        (
            "no outcome",
            ReportAttemptRequest { outcome: None, ..failed("a", 1) },
            "INVALID_ARGUMENT",
        ),
        ("no attempt", failed("a", 0), "INVALID_ARGUMENT"),
        (
            "a fence out of range",
            ReportAttemptRequest { fence: 1 << 53, ..failed("a", 0) },
            "INVALID_ARGUMENT",
        ),
        ("a step with a space", failed("a b", 1), "INVALID_ARGUMENT"),
        ("an attempt too far", failed("a", 3), "ATTEMPT_GAP"),
        (
            "a namespace that is not",
            ReportAttemptRequest { namespace: "elsewhere".into(), ..failed("a", 1) },
            "NAMESPACE_NOT_FOUND",
        ),
    ];
    for (what, request, expected) in reports {
        let refused = client.report_attempt(request).await.unwrap_err();
        assert_eq!(reason(&refused), expected, "{what}: {refused:?}");
    }
    let beat =
        HeartbeatRequest { run: "nightly".into(), step: "a".into(), ..HeartbeatRequest::default() };
    assert_eq!(reason(&client.heartbeat(beat).await.unwrap_err()), "INVALID_ARGUMENT");

    let stale = HeartbeatRequest {
        run: "nightly".into(),
        step: "a".into(),
        fence: grant.fence - 1,
        lease: Some(span(3600)),
        ..HeartbeatRequest::default()
    };
    let answer = client.heartbeat(stale).await.unwrap().into_inner();
    assert_eq!(answer.state(), LeaseState::Lost, "the fence is not the grant's");

    assert_eq!(shown(&mut client, "a").await.unwrap(), before);
    // The one that may: it was not harmed.
    let done = ReportAttemptRequest {
        fence: grant.fence,
        outcome: Some(Outcome::Success(Success {})),
        ..failed("a", 0)
    };
    let ReportAttemptResponse { attempt, replayed, .. } =
        client.report_attempt(done).await.unwrap().into_inner();
    assert_eq!((attempt, replayed), (1, false));
}

fn span(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

#[tokio::test]
async fn a_deadline_that_cannot_be_kept_is_said_early() {
    let folder = folder();
    let server = over_tcp(&folder).await;
    let mut request = Request::new(begin("late", 1));
    request.metadata_mut().insert("grpc-timeout", "1n".parse().unwrap());
    let refused = server.client().begin_attempt(request).await.unwrap_err();
    assert!(
        matches!(
            refused.code(),
            Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted
        ),
        "{refused:?}"
    );
    assert_eq!(shown(&mut server.client(), "late").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn other_addresses_than_loopback_want_to_be_insisted_on() {
    let folder = folder();
    let (code, said) = refusal(serve(&folder.path().join("data"), "0.0.0.0:0")).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("0.0.0.0:0") && said.contains("insecure"), "{said}");
    let mut insisting = serve(&folder.path().join("data"), "0.0.0.0:0");
    insisting.arg("--insecure");
    Server::start_with(&folder.path().join("data"), insisting).await;
}

#[tokio::test]
async fn data_and_ports_have_one_server_at_a_time() {
    let folder = folder();
    let first = over_tcp(&folder).await;
    let (code, said) = refusal(serve(&folder.path().join("data"), "127.0.0.1:0")).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("in use by process") && said.contains(&first.pid().to_string()),
        "{said}"
    );

    let (code, said) = refusal(serve(&folder.path().join("other"), &first.address)).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&first.address), "{said}");
}

#[tokio::test]
async fn data_that_cannot_be_written_is_named() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for data in [file.join("data"), Path::new("/proc/reprise/data").to_owned()] {
        let (code, said) = refusal(serve(&data, "127.0.0.1:0")).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&*data.to_string_lossy()), "{said}");
    }
}

/// A server with a few steps, killed: its log's first segment.
async fn left_behind(folder: &TempDir) -> std::path::PathBuf {
    let mut server = over_tcp(folder).await;
    let mut client = server.client();
    for at in 0..32 {
        client.report_attempt(failed(&format!("step-{at}"), 1)).await.unwrap();
    }
    server.kill().await;
    folder.path().join("data").join("0000000000000001.log")
}

/// Where the zeros begin that nothing was written over.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[tokio::test]
async fn damage_in_the_middle_of_the_log_keeps_the_server_from_starting() {
    let folder = folder();
    let log = left_behind(&folder).await;
    let bytes = fs::read(&log).unwrap();
    let middle = written(&bytes) / 2;
    let file = fs::OpenOptions::new().write(true).open(&log).unwrap();
    file.write_all_at(&[bytes[middle] ^ 0x40], middle as u64).unwrap();
    let (code, said) = refusal(serve(&folder.path().join("data"), "127.0.0.1:0")).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("0000000000000001.log is damaged at byte "), "{said}");
}

#[tokio::test]
async fn a_torn_tail_is_cut_with_a_word() {
    let folder = folder();
    let log = left_behind(&folder).await;
    let bytes = fs::read(&log).unwrap();
    let end = written(&bytes);
    // The disk wrote part of the last batch: the sectors from here on are blank.
    let torn = (end - 1) / 512 * 512;
    let file = fs::OpenOptions::new().write(true).open(&log).unwrap();
    file.write_all_at(&vec![0; end - torn], torn as u64).unwrap();
    let server = over_tcp(&folder).await;
    assert!(server.logged().contains("cut what a crash left"), "{}", server.logged());
    assert!(shown(&mut server.client(), "step-0").await.is_ok());
}

/// A disk of two segments, on which a server keeps its data; None where one
/// cannot be made.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let folder = folder();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=20m", "reprise"])
            .arg(folder.path())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_begins_and_loses_nothing() {
    let disk = SmallDisk::new().expect("a small disk can be mounted: run the tests as root");
    let data = disk.0.path().join("data");
    let mut server = Server::start(&data, "127.0.0.1:0").await;
    let mut client = server.client();
    let mut granted = Vec::new();
    let full = 'full: {
        for round in 0_u32..2000 {
            let mut begins = JoinSet::new();
            for at in 0..32 {
                let mut client = client.clone();
                let step = format!("{round}/{at}");
                let request = BeginAttemptRequest {
                    request_id: vec![1; 16].into(),
                    kind: "k".repeat(128),
                    worker: "w".repeat(128),
                    targets: (0..8).map(|at| format!("{at}").repeat(128)).collect(),
                    ..begin(&step, 1)
                };
                begins.spawn(async move { (step, client.begin_attempt(request).await) });
            }
            let mut refused = None;
            while let Some(begun) = begins.join_next().await {
                match begun.unwrap() {
                    (step, Ok(answer)) => match answer.into_inner().answer {
                        Some(begin_attempt_response::Answer::Grant(grant)) => {
                            granted.push((step, grant.fence))
                        }
                        answer => panic!("{answer:?}"),
                    },
                    (_, Err(status)) if reason(&status) == "OVERLOADED" => {}
                    (_, Err(status)) => refused = Some(status),
                }
            }
            if let Some(status) = refused {
                break 'full status;
            }
        }
        panic!("{} begins did not fill the disk", granted.len());
    };
    assert_eq!(
        (full.code(), reason(&full).as_str()),
        (Code::ResourceExhausted, "STORE_FULL"),
        "{full:?}"
    );

    let (reported, rest) = granted.split_at(100);
    for (step, fence) in reported {
        let done = ReportAttemptRequest { fence: *fence, ..failed(step, 0) };
        client.report_attempt(done).await.unwrap();
    }
    server.kill().await;
    let server = Server::start(&data, "127.0.0.1:0").await;
    let mut client = server.client();
    for (step, fence) in reported {
        let step = shown(&mut client, step).await.unwrap();
        assert_eq!((step.fence, step.counters.unwrap().retries), (*fence, 1));
    }
    for (step, fence) in rest {
        assert_eq!(shown(&mut client, step).await.unwrap().fence, *fence);
    }
}

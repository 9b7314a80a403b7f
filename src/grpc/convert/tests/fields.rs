//! A table over every field that a request can carry, however deep. A field
//! without an entry fails the test, so that none is added unchecked.

use std::collections::{BTreeSet, HashMap};

use prost::Message as _;
use prost_types::{Duration, FileDescriptorSet, Timestamp, field_descriptor_proto::Type};
use tonic_types::{FieldViolation, StatusExt as _};

use super::{
    begin_request, evaluate_request, named_policy, named_target, namespace, pause_target_request,
    policy, report_request, rule, seconds,
};
use crate::{
    grpc::convert::{
        Invalid, admin, explain, force, order, policy as policies, request, run, target,
    },
    proto::{
        self, DESCRIPTORS, backoff::Shape, failure::Code, pushback::Until,
        report_attempt_request::Outcome, rule::Action,
    },
};

enum Entry {
    /// This was told of a bad value, and had to name this field.
    Refused { told: Option<Invalid>, path: &'static str },
    /// No value is bad, and why.
    Any(#[expect(dead_code, reason = "for the reader")] &'static str),
}

fn refused(path: &'static str, told: Option<Invalid>) -> Entry {
    Entry::Refused { told, path }
}

const MESSAGE: Entry = Entry::Any("a message; its fields have entries of their own");
const FLAG: Entry = Entry::Any("both values mean something");
const COUNT: Entry = Entry::Any("any number is a bound, zero included");
const OUTPUT: Entry = Entry::Any("output only; not looked at");
const ETAG: Entry = Entry::Any("only ever compared; an unknown one is a mismatch");

fn begin(edit: impl FnOnce(&mut proto::BeginAttemptRequest)) -> Option<Invalid> {
    let mut request = begin_request();
    edit(&mut request);
    request::begin(request).err()
}

fn heartbeat(edit: impl FnOnce(&mut proto::HeartbeatRequest)) -> Option<Invalid> {
    let mut request = proto::HeartbeatRequest {
        run: "r".into(),
        step: "s".into(),
        fence: 1,
        ..Default::default()
    };
    edit(&mut request);
    request::heartbeat(request).err()
}

fn report(edit: impl FnOnce(&mut proto::ReportAttemptRequest)) -> Option<Invalid> {
    let mut request = report_request();
    edit(&mut request);
    request::report(request).err()
}

fn failure(edit: impl FnOnce(&mut proto::Failure)) -> Option<Invalid> {
    let mut failure = super::failure();
    edit(&mut failure);
    report(|r| r.outcome = Some(Outcome::Failure(failure)))
}

fn pushback(until: Until) -> Option<Invalid> {
    failure(|f| f.pushback = Some(proto::Pushback { until: Some(until) }))
}

fn batch(edit: impl FnOnce(&mut proto::BatchReportAttemptsRequest)) -> Option<Invalid> {
    let mut request = proto::BatchReportAttemptsRequest {
        namespace: "ads".into(),
        reports: vec![report_request()],
    };
    edit(&mut request);
    match request::batch(request) {
        Ok(batch) => {
            batch.reports.into_iter().find_map(Result::err).map(|rejected| rejected.invalid)
        }
        Err(invalid) => Some(invalid),
    }
}

fn await_decision(edit: impl FnOnce(&mut proto::AwaitDecisionRequest)) -> Option<Invalid> {
    let mut request =
        proto::AwaitDecisionRequest { run: "r".into(), step: "s".into(), ..Default::default() };
    edit(&mut request);
    request::await_decision(request).err()
}

/// So many labels, each of this value.
fn labels(count: usize, value: &str) -> std::collections::BTreeMap<String, String> {
    (0..count).map(|at| (format!("k{at}"), value.to_owned())).collect()
}

fn claim_due(edit: impl FnOnce(&mut proto::ClaimDueRequest)) -> Option<Invalid> {
    let mut request = proto::ClaimDueRequest {
        queue: "etl".into(),
        request_id: vec![1; 16].into(),
        ..Default::default()
    };
    edit(&mut request);
    request::claim_due(request).err()
}

fn stream(edit: impl FnOnce(&mut proto::StreamDueRequest)) -> Option<Invalid> {
    let mut request = proto::StreamDueRequest {
        queue: "etl".into(),
        request_id: vec![1; 16].into(),
        running: vec![an_attempt(|_| {})],
        ..Default::default()
    };
    edit(&mut request);
    request::stream_due(request).err()
}

fn an_attempt(edit: impl FnOnce(&mut proto::RunningAttempt)) -> proto::RunningAttempt {
    let mut attempt = proto::RunningAttempt { run: "r".into(), step: "s".into(), fence: 1 };
    edit(&mut attempt);
    attempt
}

fn begin_run(edit: impl FnOnce(&mut proto::BeginRunRequest)) -> Option<Invalid> {
    let mut request = proto::BeginRunRequest {
        run: "r".into(),
        request_id: vec![1; 16].into(),
        ..Default::default()
    };
    edit(&mut request);
    run::begin(request).err()
}

fn report_run(edit: impl FnOnce(&mut proto::ReportRunRequest)) -> Option<Invalid> {
    let mut request = proto::ReportRunRequest {
        run: "r".into(),
        attempt: 1,
        outcome: Some(proto::report_run_request::Outcome::Success(proto::Success {})),
        ..Default::default()
    };
    edit(&mut request);
    run::report(request).err()
}

fn get_run(edit: impl FnOnce(&mut proto::GetRunRequest)) -> Option<Invalid> {
    let mut request = proto::GetRunRequest { run: "r".into(), ..Default::default() };
    edit(&mut request);
    run::get(request).err()
}

fn run_steps(edit: impl FnOnce(&mut proto::ListRunStepsRequest)) -> Option<Invalid> {
    let mut request = proto::ListRunStepsRequest { run: "r".into(), ..Default::default() };
    edit(&mut request);
    run::list_steps(request).err()
}

fn get_step(edit: impl FnOnce(&mut proto::GetStepRequest)) -> Option<Invalid> {
    let mut request =
        proto::GetStepRequest { run: "r".into(), step: "s".into(), ..Default::default() };
    edit(&mut request);
    request::get_step(request).err()
}

fn a_policy(edit: impl FnOnce(&mut proto::Policy)) -> Option<Invalid> {
    let mut policy = policy();
    edit(&mut policy);
    let spec = match policies::from_proto(policy, "inline_policy") {
        Ok(spec) => spec,
        Err(invalid) => return Some(invalid),
    };
    policies::parse(&spec, "inline_policy").err()
}

fn a_rule(edit: impl FnOnce(&mut proto::Rule)) -> Option<Invalid> {
    let mut rule = rule();
    edit(&mut rule);
    a_policy(|p| p.rules = vec![rule])
}

fn a_match(edit: impl FnOnce(&mut proto::Match)) -> Option<Invalid> {
    a_rule(|r| edit(r.r#match.get_or_insert_default()))
}

fn hold(edit: impl FnOnce(&mut proto::HoldTerms)) -> Option<Invalid> {
    let mut terms = proto::HoldTerms::default();
    edit(&mut terms);
    a_policy(|p| {
        p.on_exhaustion =
            Some(proto::Exhaustion { outcome: Some(proto::exhaustion::Outcome::Hold(terms)) })
    })
}

fn a_backoff(edit: impl FnOnce(&mut proto::Backoff)) -> Option<Invalid> {
    a_policy(|p| edit(p.backoff.get_or_insert_default()))
}

fn shape(shape: Shape) -> Option<Invalid> {
    a_policy(|p| p.backoff = Some(super::backoff(shape)))
}

fn linear(delay: Option<Duration>, increment: Option<Duration>) -> Option<Invalid> {
    shape(Shape::Linear(proto::LinearBackoff { delay, increment }))
}

fn exponential(delay: Option<Duration>, factor: f64) -> Option<Invalid> {
    shape(Shape::Exponential(proto::ExponentialBackoff {
        delay,
        factor: Some(factor),
        max_doublings: None,
    }))
}

fn schedule(delays: Vec<Duration>, end: i32) -> Option<Invalid> {
    shape(Shape::Schedule(proto::ScheduleBackoff { delays, end }))
}

fn jitter(kind: i32, ratio: Option<f64>) -> Option<Invalid> {
    a_backoff(|b| b.jitter = Some(proto::Jitter { kind, ratio }))
}

fn settings(edit: impl FnOnce(&mut proto::NamespaceSettings)) -> Option<Invalid> {
    let mut namespace = namespace();
    edit(namespace.settings.get_or_insert_default());
    admin::create_namespace(proto::CreateNamespaceRequest { namespace: Some(namespace) }).err()
}

fn a_namespace(edit: impl FnOnce(&mut proto::Namespace)) -> Option<Invalid> {
    let mut namespace = namespace();
    edit(&mut namespace);
    admin::update_namespace(proto::UpdateNamespaceRequest {
        namespace: Some(namespace),
        update_mask: None,
    })
    .err()
}

fn create_policy(edit: impl FnOnce(&mut proto::CreatePolicyRequest)) -> Option<Invalid> {
    let mut request =
        proto::CreatePolicyRequest { policy: Some(named_policy()), ..Default::default() };
    edit(&mut request);
    admin::create_policy(request).err()
}

fn update_policy(edit: impl FnOnce(&mut proto::UpdatePolicyRequest)) -> Option<Invalid> {
    let mut request =
        proto::UpdatePolicyRequest { policy: Some(named_policy()), ..Default::default() };
    edit(&mut request);
    admin::update_policy(request).err()
}

fn evaluate(edit: impl FnOnce(&mut proto::EvaluateRequest)) -> Option<Invalid> {
    let mut request = evaluate_request();
    edit(&mut request);
    admin::evaluate(request).err()
}

fn id(bad: &str) -> String {
    bad.to_owned()
}

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

const NEGATIVE: Duration = Duration { seconds: -1, nanos: 0 };
const NEGATIVE_NANOS: Duration = Duration { seconds: 1, nanos: -1 };
const BEFORE_EPOCH: Timestamp = Timestamp { seconds: -1, nanos: 0 };
const FENCE_TOO_LARGE: u64 = 1 << 53;

fn retry_entries() -> Vec<(&'static str, Entry)> {
    use proto::begin_attempt_request::Policy as BeginPolicy;
    use proto::report_attempt_request::Policy as ReportPolicy;
    vec![
        ("BeginAttemptRequest.namespace", refused("namespace", begin(|r| r.namespace = id("a b")))),
        ("BeginAttemptRequest.run", refused("run", begin(|r| r.run = id("")))),
        ("BeginAttemptRequest.run", refused("run", begin(|r| r.run = long(129)))),
        ("BeginAttemptRequest.step", refused("step", begin(|r| r.step = id("a\nb")))),
        (
            "BeginAttemptRequest.request_id",
            refused("request_id", begin(|r| r.request_id = Default::default())),
        ),
        (
            "BeginAttemptRequest.request_id",
            refused("request_id", begin(|r| r.request_id = vec![1; 17].into())),
        ),
        (
            "BeginAttemptRequest.policy_name",
            refused("policy_name", begin(|r| r.policy = Some(BeginPolicy::PolicyName(id(""))))),
        ),
        ("BeginAttemptRequest.inline_policy", MESSAGE),
        (
            "BeginAttemptRequest.lease",
            refused(
                "lease",
                begin(|r| r.lease = Some(Duration { seconds: 0, nanos: 999_999_999 })),
            ),
        ),
        (
            "BeginAttemptRequest.lease",
            refused("lease", begin(|r| r.lease = Some(Duration { seconds: 3600, nanos: 1 }))),
        ),
        ("BeginAttemptRequest.lease", refused("lease", begin(|r| r.lease = Some(NEGATIVE_NANOS)))),
        ("BeginAttemptRequest.host", refused("host", begin(|r| r.host = long(129)))),
        ("BeginAttemptRequest.worker", refused("worker", begin(|r| r.worker = long(129)))),
        ("BeginAttemptRequest.kind", refused("kind", begin(|r| r.kind = long(129)))),
        (
            "BeginAttemptRequest.targets",
            refused("targets", begin(|r| r.targets = vec![id("t"); 9])),
        ),
        (
            "BeginAttemptRequest.targets",
            refused("targets[1]", begin(|r| r.targets = vec![id("t"), id("")])),
        ),
        ("BeginAttemptRequest.queue", refused("queue", begin(|r| r.queue = id("a{b}")))),
        (
            "BeginAttemptRequest.deadline",
            refused("deadline", begin(|r| r.deadline = Some(BEFORE_EPOCH))),
        ),
        (
            "BeginAttemptRequest.deadline",
            refused(
                "deadline",
                begin(|r| r.deadline = Some(Timestamp { seconds: 253_402_300_800, nanos: 0 })),
            ),
        ),
        (
            "BeginAttemptRequest.deadline",
            refused(
                "deadline",
                begin(|r| r.deadline = Some(Timestamp { seconds: 1, nanos: 1_000_000_000 })),
            ),
        ),
        (
            "BeginAttemptRequest.time_left",
            refused("time_left", begin(|r| r.time_left = seconds(5))),
        ),
        (
            "BeginAttemptRequest.time_left",
            refused("time_left", begin(|r| (r.deadline, r.time_left) = (None, seconds(0)))),
        ),
        ("HeartbeatRequest.namespace", refused("namespace", heartbeat(|r| r.namespace = id("é")))),
        ("HeartbeatRequest.run", refused("run", heartbeat(|r| r.run = id("")))),
        ("HeartbeatRequest.step", refused("step", heartbeat(|r| r.step = id("a b")))),
        ("HeartbeatRequest.fence", refused("fence", heartbeat(|r| r.fence = 0))),
        ("HeartbeatRequest.fence", refused("fence", heartbeat(|r| r.fence = FENCE_TOO_LARGE))),
        ("HeartbeatRequest.progress", Entry::Any("any number may be how far the work is")),
        ("HeartbeatRequest.lease", refused("lease", heartbeat(|r| r.lease = seconds(0)))),
        (
            "ReportAttemptRequest.namespace",
            refused("namespace", report(|r| r.namespace = long(129))),
        ),
        ("ReportAttemptRequest.run", refused("run", report(|r| r.run = id("")))),
        ("ReportAttemptRequest.step", refused("step", report(|r| r.step = id("")))),
        ("ReportAttemptRequest.fence", refused("fence", report(|r| r.fence = FENCE_TOO_LARGE))),
        (
            "ReportAttemptRequest.attempt",
            refused("request_id", report(|r| (r.attempt, r.request_id) = (0, Default::default()))),
        ),
        (
            "ReportAttemptRequest.request_id",
            refused("request_id", report(|r| r.request_id = vec![1; 15].into())),
        ),
        (
            "ReportAttemptRequest.request_id",
            refused("request_id", report(|r| (r.fence, r.request_id) = (1, vec![1].into()))),
        ),
        ("ReportAttemptRequest.success", refused("outcome", report(|r| r.outcome = None))),
        ("ReportAttemptRequest.failure", refused("outcome", report(|r| r.outcome = None))),
        (
            "ReportAttemptRequest.policy_name",
            refused(
                "policy_name",
                report(|r| r.policy = Some(ReportPolicy::PolicyName(id("a b")))),
            ),
        ),
        ("ReportAttemptRequest.inline_policy", MESSAGE),
        ("ReportAttemptRequest.kind", refused("kind", report(|r| r.kind = long(129)))),
        (
            "ReportAttemptRequest.targets",
            refused("targets", report(|r| r.targets = vec![id("t"); 9])),
        ),
        (
            "ReportAttemptRequest.deadline",
            refused("deadline", report(|r| (r.deadline, r.time_left) = (Some(BEFORE_EPOCH), None))),
        ),
        (
            "ReportAttemptRequest.time_left",
            refused("time_left", report(|r| r.time_left = seconds(-1))),
        ),
        (
            "BatchReportAttemptsRequest.namespace",
            refused("namespace", batch(|r| r.namespace = id(" "))),
        ),
        (
            "BatchReportAttemptsRequest.namespace",
            refused("reports[0].namespace", batch(|r| r.namespace = id("other"))),
        ),
        (
            "BatchReportAttemptsRequest.reports",
            refused("reports", batch(|r| r.reports = vec![report_request(); 257])),
        ),
        (
            "BatchReportAttemptsRequest.reports",
            refused("reports[0].outcome", batch(|r| r.reports[0].outcome = None)),
        ),
        ("BeginAttemptRequest.awaits", FLAG),
        (
            "AwaitDecisionRequest.namespace",
            refused("namespace", await_decision(|r| r.namespace = id("a b"))),
        ),
        ("AwaitDecisionRequest.run", refused("run", await_decision(|r| r.run = id("")))),
        ("AwaitDecisionRequest.step", refused("step", await_decision(|r| r.step = id("a b")))),
        (
            "AwaitDecisionRequest.timeout",
            refused("timeout", await_decision(|r| r.timeout = seconds(61))),
        ),
        (
            "BeginAttemptRequest.payload",
            refused("payload", begin(|r| r.payload = vec![0; 4097].into())),
        ),
        (
            "BeginAttemptRequest.labels",
            refused("labels", begin(|r| r.labels = labels(1, "a100 or more"))),
        ),
        ("BeginAttemptRequest.labels", refused("labels", begin(|r| r.labels = labels(9, "a")))),
        (
            "ClaimDueRequest.labels",
            refused("labels", claim_due(|r| r.labels = labels(1, &"a".repeat(64)))),
        ),
        ("ClaimDueRequest.labels", refused("labels", claim_due(|r| r.labels = labels(9, "a")))),
        ("ClaimDueRequest.namespace", refused("namespace", claim_due(|r| r.namespace = id("a b")))),
        ("ClaimDueRequest.queue", refused("queue", claim_due(|r| r.queue = id("")))),
        (
            "ClaimDueRequest.request_id",
            refused("request_id", claim_due(|r| r.request_id = vec![1; 15].into())),
        ),
        ("ClaimDueRequest.max_steps", refused("max_steps", claim_due(|r| r.max_steps = Some(0)))),
        ("ClaimDueRequest.max_steps", refused("max_steps", claim_due(|r| r.max_steps = Some(65)))),
        ("ClaimDueRequest.lease", refused("lease", claim_due(|r| r.lease = seconds(0)))),
        ("ClaimDueRequest.host", refused("host", claim_due(|r| r.host = long(129)))),
        ("ClaimDueRequest.worker", refused("worker", claim_due(|r| r.worker = long(129)))),
        ("ClaimDueRequest.timeout", refused("timeout", claim_due(|r| r.timeout = seconds(61)))),
        ("StreamDueRequest.namespace", refused("namespace", stream(|r| r.namespace = id("a b")))),
        ("StreamDueRequest.queue", refused("queue", stream(|r| r.queue = id("")))),
        (
            "StreamDueRequest.request_id",
            refused("request_id", stream(|r| r.request_id = vec![1; 17].into())),
        ),
        (
            "StreamDueRequest.max_running",
            refused("max_running", stream(|r| r.max_running = Some(0))),
        ),
        (
            "StreamDueRequest.max_running",
            refused("max_running", stream(|r| r.max_running = Some(65))),
        ),
        ("StreamDueRequest.lease", refused("lease", stream(|r| r.lease = seconds(0)))),
        ("StreamDueRequest.host", refused("host", stream(|r| r.host = long(129)))),
        ("StreamDueRequest.worker", refused("worker", stream(|r| r.worker = long(129)))),
        ("StreamDueRequest.labels", refused("labels", stream(|r| r.labels = labels(9, "a")))),
        (
            "StreamDueRequest.running",
            refused("running", stream(|r| r.running = vec![an_attempt(|_| {}); 65])),
        ),
        (
            "RunningAttempt.run",
            refused("running[0].run", stream(|r| r.running = vec![an_attempt(|a| a.run = id(""))])),
        ),
        (
            "RunningAttempt.step",
            refused(
                "running[0].step",
                stream(|r| r.running = vec![an_attempt(|a| a.step = id(""))]),
            ),
        ),
        (
            "RunningAttempt.fence",
            refused("running[0].fence", stream(|r| r.running = vec![an_attempt(|a| a.fence = 0)])),
        ),
        ("GetStepRequest.namespace", refused("namespace", get_step(|r| r.namespace = id("a b")))),
        ("GetStepRequest.run", refused("run", get_step(|r| r.run = id("")))),
        ("GetStepRequest.step", refused("step", get_step(|r| r.step = id("")))),
    ]
}

fn run_entries() -> Vec<(&'static str, Entry)> {
    use proto::{
        begin_run_request::Policy,
        report_run_request::{Outcome::Failure, Policy as PolicyOfReport},
    };
    vec![
        (
            "BeginAttemptRequest.run_attempt",
            Entry::Any("one that has not begun is refused by the run"),
        ),
        (
            "ReportAttemptRequest.run_attempt",
            Entry::Any("one that has not begun is refused by the run"),
        ),
        ("BeginRunRequest.namespace", refused("namespace", begin_run(|r| r.namespace = id("a b")))),
        ("BeginRunRequest.run", refused("run", begin_run(|r| r.run = id("")))),
        (
            "BeginRunRequest.request_id",
            refused("request_id", begin_run(|r| r.request_id = vec![1; 15].into())),
        ),
        (
            "BeginRunRequest.policy_name",
            refused("policy_name", begin_run(|r| r.policy = Some(Policy::PolicyName(id("a b"))))),
        ),
        ("BeginRunRequest.inline_policy", MESSAGE),
        ("BeginRunRequest.lease", refused("lease", begin_run(|r| r.lease = seconds(0)))),
        ("BeginRunRequest.host", refused("host", begin_run(|r| r.host = long(129)))),
        ("BeginRunRequest.worker", refused("worker", begin_run(|r| r.worker = long(129)))),
        (
            "BeginRunRequest.deadline",
            refused("deadline", begin_run(|r| r.deadline = Some(BEFORE_EPOCH))),
        ),
        (
            "BeginRunRequest.time_left",
            refused("time_left", begin_run(|r| r.time_left = seconds(0))),
        ),
        (
            "ReportRunRequest.namespace",
            refused("namespace", report_run(|r| r.namespace = id("a b"))),
        ),
        ("ReportRunRequest.run", refused("run", report_run(|r| r.run = id("")))),
        ("ReportRunRequest.fence", refused("fence", report_run(|r| r.fence = FENCE_TOO_LARGE))),
        ("ReportRunRequest.attempt", refused("request_id", report_run(|r| r.attempt = 0))),
        (
            "ReportRunRequest.request_id",
            refused("request_id", report_run(|r| r.request_id = vec![1].into())),
        ),
        ("ReportRunRequest.success", refused("outcome", report_run(|r| r.outcome = None))),
        (
            "ReportRunRequest.failure",
            refused(
                "failure.class",
                report_run(|r| r.outcome = Some(Failure(proto::Failure::default()))),
            ),
        ),
        ("ReportRunRequest.step_failed", FLAG),
        (
            "ReportRunRequest.policy_name",
            refused(
                "policy_name",
                report_run(|r| r.policy = Some(PolicyOfReport::PolicyName(id("a b")))),
            ),
        ),
        ("ReportRunRequest.inline_policy", MESSAGE),
        (
            "ReportRunRequest.deadline",
            refused("deadline", report_run(|r| r.deadline = Some(BEFORE_EPOCH))),
        ),
        (
            "ReportRunRequest.time_left",
            refused("time_left", report_run(|r| r.time_left = seconds(0))),
        ),
        ("GetRunRequest.namespace", refused("namespace", get_run(|r| r.namespace = id("a b")))),
        ("GetRunRequest.run", refused("run", get_run(|r| r.run = id("")))),
        (
            "ListRunStepsRequest.namespace",
            refused("namespace", run_steps(|r| r.namespace = id("a b"))),
        ),
        ("ListRunStepsRequest.run", refused("run", run_steps(|r| r.run = id("")))),
        ("ListRunStepsRequest.states", refused("states[1]", run_steps(|r| r.states = vec![4, 99]))),
        ("ListRunStepsRequest.states", refused("states", run_steps(|r| r.states = vec![4; 17]))),
        ("ListRunStepsRequest.page_size", refused("page_size", run_steps(|r| r.page_size = 1001))),
        (
            "ListRunStepsRequest.page_token",
            refused("page_token", run_steps(|r| r.page_token = id("a b"))),
        ),
        ("Policy.run", MESSAGE),
        ("RunRetries.resume", refused("inline_policy.run.resume", a_run(|r| r.resume = 9))),
        (
            "RunRetries.step_counters",
            refused("inline_policy.run.step_counters", a_run(|r| r.step_counters = 9)),
        ),
        ("RunRetries.ignore_step_failures", FLAG),
        (
            "RunRetries.max_total_retries",
            refused(
                "inline_policy.run.max_total_retries",
                a_run(|r| r.max_total_retries = Some(1_000_001)),
            ),
        ),
    ]
}

fn a_run(edit: impl FnOnce(&mut proto::RunRetries)) -> Option<Invalid> {
    a_policy(|p| edit(p.run.get_or_insert_default()))
}

fn failure_entries() -> Vec<(&'static str, Entry)> {
    vec![
        ("Failure.class", refused("failure.class", failure(|f| f.class = 0))),
        (
            "Failure.error_type",
            refused("failure.error_type", failure(|f| f.error_type = long(257))),
        ),
        (
            "Failure.grpc_code",
            refused("failure.grpc_code", failure(|f| f.code = Some(Code::GrpcCode(0)))),
        ),
        (
            "Failure.grpc_code",
            refused("failure.grpc_code", failure(|f| f.code = Some(Code::GrpcCode(17)))),
        ),
        (
            "Failure.http_status",
            refused("failure.http_status", failure(|f| f.code = Some(Code::HttpStatus(99)))),
        ),
        (
            "Failure.http_status",
            refused("failure.http_status", failure(|f| f.code = Some(Code::HttpStatus(70_000)))),
        ),
        ("Failure.exit_code", Entry::Any("platforms use all of 32 bits")),
        ("Failure.signal", refused("failure.signal", failure(|f| f.signal = Some(0)))),
        ("Failure.signal", refused("failure.signal", failure(|f| f.signal = Some(65)))),
        ("Failure.message", refused("failure.message", failure(|f| f.message = long(4097)))),
        ("Failure.cause", refused("failure.cause", failure(|f| f.cause = long(129)))),
        ("Failure.host", refused("failure.host", failure(|f| f.host = long(129)))),
        ("Failure.worker", refused("failure.worker", failure(|f| f.worker = long(129)))),
        ("Failure.duration", refused("failure.duration", failure(|f| f.duration = Some(NEGATIVE)))),
        ("Failure.target", refused("failure.target", failure(|f| f.target = id("a b")))),
        (
            "Failure.pushback",
            refused(
                "failure.pushback.until",
                failure(|f| f.pushback = Some(proto::Pushback { until: None })),
            ),
        ),
        ("Failure.wish", MESSAGE),
        ("Failure.retryable", FLAG),
        ("Failure.executed", Entry::Any("an unknown number is read as MAYBE")),
        ("Failure.action", refused("failure.action", failure(|f| f.action = long(129)))),
        ("Pushback.after", refused("failure.pushback.after", pushback(Until::After(NEGATIVE)))),
        ("Pushback.time", refused("failure.pushback.time", pushback(Until::Time(BEFORE_EPOCH)))),
        ("Pushback.never", refused("failure.pushback.never", pushback(Until::Never(false)))),
        ("RetryWish.max_retries", COUNT),
        (
            "RetryWish.delay",
            refused(
                "failure.wish.delay",
                failure(|f| {
                    f.wish = Some(proto::RetryWish { max_retries: None, delay: Some(NEGATIVE) })
                }),
            ),
        ),
    ]
}

fn policy_entries() -> Vec<(&'static str, Entry)> {
    let no_action = || a_rule(|r| r.action = None);
    let no_outcome = || a_policy(|p| p.on_exhaustion = Some(proto::Exhaustion { outcome: None }));
    let unknown_stop =
        || a_rule(|r| r.action = Some(Action::Stop(proto::StopAction { timing: 99 })));
    let uncounted = |max| {
        a_rule(|r| {
            r.action = Some(Action::RetryUncounted(proto::RetryUncountedAction {
                max_retries: Some(max),
                backoff: None,
            }))
        })
    };
    let backwards = || a_match(|m| m.exit_codes = vec![proto::ExitCodeRange { min: 2, max: 1 }]);
    vec![
        ("Policy.max_retries", COUNT),
        (
            "Policy.max_elapsed",
            refused("inline_policy.max_elapsed", a_policy(|p| p.max_elapsed = seconds(0))),
        ),
        (
            "Policy.max_elapsed",
            refused("inline_policy.max_elapsed", a_policy(|p| p.max_elapsed = Some(NEGATIVE))),
        ),
        ("Policy.backoff", MESSAGE),
        ("Policy.rules", refused("inline_policy.rules", a_policy(|p| p.rules = vec![rule(); 65]))),
        ("Policy.pushback", MESSAGE),
        ("Policy.max_crash_retries", COUNT),
        (
            "Policy.reset_after",
            refused("inline_policy.reset_after", a_policy(|p| p.reset_after = seconds(0))),
        ),
        ("Policy.reset_on_progress", FLAG),
        ("Policy.host_anti_affinity", MESSAGE),
        ("Policy.on_exhaustion", MESSAGE),
        (
            "Policy.never_retry_kinds",
            refused(
                "inline_policy.never_retry_kinds",
                a_policy(|p| p.never_retry_kinds = vec![id("")]),
            ),
        ),
        ("Policy.quirks", refused("inline_policy.quirks", a_policy(|p| p.quirks = vec![99]))),
        (
            "Rule.name",
            refused("inline_policy.rules[0].name", a_rule(|r| r.name = id("Not a name"))),
        ),
        ("Rule.match", MESSAGE),
        ("Rule.retry", refused("inline_policy.rules[0]", no_action())),
        ("Rule.retry_uncounted", refused("inline_policy.rules[0]", no_action())),
        ("Rule.stop", refused("inline_policy.rules[0]", no_action())),
        ("Rule.hold", refused("inline_policy.rules[0]", no_action())),
        ("Rule.skip", refused("inline_policy.rules[0]", no_action())),
        (
            "Match.classes",
            refused("inline_policy.rules[0].match.classes", a_match(|m| m.classes = vec![0])),
        ),
        (
            "Match.classes",
            refused("inline_policy.rules[0].match.classes", a_match(|m| m.classes = vec![1, 99])),
        ),
        (
            "Match.error_types",
            refused(
                "inline_policy.rules[0].match.error_types",
                a_match(|m| m.error_types = vec![id("")]),
            ),
        ),
        (
            "Match.codes",
            refused("inline_policy.rules[0].match.codes", a_match(|m| m.codes = vec![id("600")])),
        ),
        (
            "Match.exit_codes",
            refused(
                "inline_policy.rules[0].match.exit_codes",
                a_match(|m| m.exit_codes = vec![Default::default(); 65]),
            ),
        ),
        (
            "Match.message_pattern",
            refused(
                "inline_policy.rules[0].match.message_pattern",
                a_match(|m| m.message_pattern = id("(")),
            ),
        ),
        (
            "Match.condition",
            refused(
                "inline_policy.rules[0].match.condition",
                a_match(|m| m.condition = id("nobody == 1")),
            ),
        ),
        ("ExitCodeRange.min", refused("inline_policy.rules[0].match.exit_codes", backwards())),
        ("ExitCodeRange.max", refused("inline_policy.rules[0].match.exit_codes", backwards())),
        ("RetryAction.max_retries", COUNT),
        ("RetryAction.backoff", MESSAGE),
        (
            "RetryUncountedAction.max_retries",
            refused("inline_policy.rules[0].retry_uncounted.max_retries", uncounted(0)),
        ),
        (
            "RetryUncountedAction.max_retries",
            refused("inline_policy.rules[0].retry_uncounted.max_retries", uncounted(10_001)),
        ),
        ("RetryUncountedAction.backoff", MESSAGE),
        ("StopAction.timing", refused("inline_policy.rules[0].stop.timing", unknown_stop())),
        ("HoldAction.terms", MESSAGE),
        ("Exhaustion.stop", refused("inline_policy.on_exhaustion", no_outcome())),
        ("Exhaustion.hold", refused("inline_policy.on_exhaustion", no_outcome())),
        (
            "HoldTerms.allowed",
            refused("inline_policy.on_exhaustion.hold.allowed", hold(|t| t.allowed = vec![0])),
        ),
        (
            "HoldTerms.timeout",
            refused("inline_policy.on_exhaustion.hold.timeout", hold(|t| t.timeout = seconds(0))),
        ),
        (
            "HoldTerms.default_answer",
            refused(
                "inline_policy.on_exhaustion.hold.default_answer",
                hold(|t| t.default_answer = 99),
            ),
        ),
        (
            "HoldTerms.default_answer",
            refused(
                "inline_policy.on_exhaustion.hold.default_answer",
                hold(|t| t.default_answer = 4),
            ),
        ),
        ("HoldTerms.max_manual_retries", COUNT),
        ("Backoff.fixed", MESSAGE),
        ("Backoff.linear", MESSAGE),
        ("Backoff.exponential", MESSAGE),
        ("Backoff.doubling_sum", MESSAGE),
        ("Backoff.fibonacci", MESSAGE),
        ("Backoff.schedule", MESSAGE),
        (
            "Backoff.max_delay",
            refused("inline_policy.backoff.max_delay", a_backoff(|b| b.max_delay = seconds(0))),
        ),
        (
            "Backoff.first_delay",
            refused(
                "inline_policy.backoff.first_delay",
                a_backoff(|b| b.first_delay = Some(NEGATIVE)),
            ),
        ),
        ("Backoff.jitter", MESSAGE),
        (
            "FixedBackoff.delay",
            refused(
                "inline_policy.backoff.fixed.delay",
                shape(Shape::Fixed(proto::FixedBackoff { delay: None })),
            ),
        ),
        ("LinearBackoff.delay", refused("inline_policy.backoff.linear.delay", linear(None, None))),
        (
            "LinearBackoff.increment",
            refused("inline_policy.backoff.linear.increment", linear(seconds(1), Some(NEGATIVE))),
        ),
        (
            "ExponentialBackoff.delay",
            refused("inline_policy.backoff.exponential.delay", exponential(None, 2.0)),
        ),
        (
            "ExponentialBackoff.factor",
            refused("inline_policy.backoff.exponential.factor", exponential(seconds(1), -1.0)),
        ),
        (
            "ExponentialBackoff.factor",
            refused("inline_policy.backoff.exponential.factor", exponential(seconds(1), f64::NAN)),
        ),
        ("ExponentialBackoff.max_doublings", COUNT),
        (
            "DoublingSumBackoff.delay",
            refused(
                "inline_policy.backoff.doubling_sum.delay",
                shape(Shape::DoublingSum(proto::DoublingSumBackoff { delay: Some(NEGATIVE) })),
            ),
        ),
        (
            "FibonacciBackoff.delay",
            refused(
                "inline_policy.backoff.fibonacci.delay",
                shape(Shape::Fibonacci(proto::FibonacciBackoff { delay: None })),
            ),
        ),
        (
            "ScheduleBackoff.delays",
            refused("inline_policy.backoff.schedule.delays", schedule(vec![], 0)),
        ),
        (
            "ScheduleBackoff.delays",
            refused("inline_policy.backoff.schedule.delays[0]", schedule(vec![NEGATIVE], 0)),
        ),
        (
            "ScheduleBackoff.end",
            refused(
                "inline_policy.backoff.schedule.end",
                schedule(vec![Duration { seconds: 1, nanos: 0 }], 99),
            ),
        ),
        ("Jitter.kind", refused("inline_policy.backoff.jitter.kind", jitter(99, None))),
        (
            "Jitter.ratio",
            refused(
                "inline_policy.backoff.jitter.ratio",
                jitter(proto::JitterKind::Ratio as i32, None),
            ),
        ),
        (
            "Jitter.ratio",
            refused(
                "inline_policy.backoff.jitter.ratio",
                jitter(proto::JitterKind::Ratio as i32, Some(1.5)),
            ),
        ),
        (
            "Jitter.ratio",
            refused(
                "inline_policy.backoff.jitter.ratio",
                jitter(proto::JitterKind::Full as i32, Some(0.5)),
            ),
        ),
        (
            "PushbackBounds.min",
            refused(
                "inline_policy.pushback.min",
                a_policy(|p| {
                    p.pushback = Some(proto::PushbackBounds { min: Some(NEGATIVE), max: None })
                }),
            ),
        ),
        (
            "PushbackBounds.max",
            refused(
                "inline_policy.pushback.max",
                a_policy(|p| {
                    p.pushback = Some(proto::PushbackBounds { min: seconds(2), max: seconds(1) })
                }),
            ),
        ),
        (
            "HostAntiAffinity.mode",
            refused(
                "inline_policy.host_anti_affinity.mode",
                a_policy(|p| {
                    p.host_anti_affinity = Some(proto::HostAntiAffinity { mode: 99, decay: None })
                }),
            ),
        ),
        (
            "HostAntiAffinity.decay",
            refused(
                "inline_policy.host_anti_affinity.decay",
                a_policy(|p| {
                    p.host_anti_affinity =
                        Some(proto::HostAntiAffinity { mode: 2, decay: seconds(0) })
                }),
            ),
        ),
    ]
}

fn create_target(edit: impl FnOnce(&mut proto::CreateTargetRequest)) -> Option<Invalid> {
    let mut request =
        proto::CreateTargetRequest { target: Some(named_target()), ..Default::default() };
    edit(&mut request);
    target::create(request).err()
}

fn update_target(edit: impl FnOnce(&mut proto::UpdateTargetRequest)) -> Option<Invalid> {
    let mut request =
        proto::UpdateTargetRequest { target: Some(named_target()), ..Default::default() };
    edit(&mut request);
    target::update(request).err()
}

fn a_target(edit: impl FnOnce(&mut proto::Target)) -> Option<Invalid> {
    create_target(|r| edit(r.target.get_or_insert_default().target.get_or_insert_default()))
}

fn rate(edit: impl FnOnce(&mut proto::Rate)) -> Option<Invalid> {
    a_target(|t| edit(t.rate.get_or_insert_default()))
}

fn budget(edit: impl FnOnce(&mut proto::RetryBudget)) -> Option<Invalid> {
    a_target(|t| edit(t.budget.get_or_insert_default()))
}

fn breaker(edit: impl FnOnce(&mut proto::Breaker)) -> Option<Invalid> {
    a_target(|t| edit(t.breaker.get_or_insert_default()))
}

fn pause(edit: impl FnOnce(&mut proto::PauseTargetRequest)) -> Option<Invalid> {
    let mut request = pause_target_request();
    edit(&mut request);
    target::pause(request).err()
}

fn force(edit: impl FnOnce(&mut proto::ForceBreakerRequest)) -> Option<Invalid> {
    let mut request = proto::ForceBreakerRequest {
        namespace: "ads".into(),
        name: "db".into(),
        state: proto::ForcedBreakerState::Open as i32,
        reason: "it lies".into(),
        by: "ann".into(),
        end: seconds(60).map(proto::force_breaker_request::End::ForceFor),
    };
    edit(&mut request);
    force::force(request).err()
}

fn force_entries() -> Vec<(&'static str, Entry)> {
    use proto::force_breaker_request::End;
    let bad = || id("a b");
    let release =
        |namespace, name| force::release(proto::ReleaseBreakerRequest { namespace, name }).err();
    let lift = |namespace, name, run: &str| {
        force::lift(proto::LiftCooldownRequest { namespace, name, run: run.into() }).err()
    };
    let week = || seconds(7 * 86_400 + 1);
    let past = || Timestamp { seconds: -1, nanos: 0 };
    vec![
        ("NamedTarget.forced_breaker", OUTPUT),
        ("ForcedBreaker.state", OUTPUT),
        ("ForcedBreaker.reason", OUTPUT),
        ("ForcedBreaker.by", OUTPUT),
        ("ForcedBreaker.since", OUTPUT),
        ("ForcedBreaker.until", OUTPUT),
        ("ForceBreakerRequest.namespace", refused("namespace", force(|r| r.namespace = bad()))),
        ("ForceBreakerRequest.name", refused("name", force(|r| r.name = id("")))),
        ("ForceBreakerRequest.state", refused("state", force(|r| r.state = 0))),
        ("ForceBreakerRequest.state", refused("state", force(|r| r.state = 9))),
        ("ForceBreakerRequest.reason", refused("reason", force(|r| r.reason = id("")))),
        ("ForceBreakerRequest.by", refused("by", force(|r| r.by = long(129)))),
        ("ForceBreakerRequest.until", refused("until", force(|r| r.end = None))),
        (
            "ForceBreakerRequest.until",
            refused("until", force(|r| r.end = Some(End::Until(past())))),
        ),
        (
            "ForceBreakerRequest.force_for",
            refused("force_for", force(|r| r.end = seconds(0).map(End::ForceFor))),
        ),
        (
            "ForceBreakerRequest.force_for",
            refused("force_for", force(|r| r.end = week().map(End::ForceFor))),
        ),
        ("ReleaseBreakerRequest.namespace", refused("namespace", release(bad(), id("db")))),
        ("ReleaseBreakerRequest.name", refused("name", release(id(""), id("")))),
        ("LiftCooldownRequest.namespace", refused("namespace", lift(bad(), id("db"), ""))),
        ("LiftCooldownRequest.name", refused("name", lift(id(""), id(""), ""))),
        ("LiftCooldownRequest.run", refused("run", lift(id(""), id("db"), "a b"))),
    ]
}

fn limit_entries() -> Vec<(&'static str, Entry)> {
    let finer = || Some(0.000_1);
    vec![
        ("Target.rate", MESSAGE),
        ("Target.concurrency", MESSAGE),
        ("Target.budget", MESSAGE),
        ("Target.breaker", MESSAGE),
        ("Breaker.observe_only", FLAG),
        (
            "Breaker.slow_after",
            refused("target.target.breaker.slow_after", breaker(|b| b.slow_after = seconds(0))),
        ),
        ("Target.every_step", FLAG),
        ("Target.each_run", FLAG),
        ("Rate.limit", refused("target.target.rate.limit", rate(|r| r.limit = 0))),
        ("Rate.limit", refused("target.target.rate.limit", rate(|r| r.limit = 1_000_001))),
        ("Rate.period", refused("target.target.rate.period", rate(|r| r.period = seconds(0)))),
        ("Rate.period", refused("target.target.rate.period", rate(|r| r.period = seconds(-1)))),
        (
            "Rate.period",
            refused("target.target.rate.period", rate(|r| r.period = seconds(31 * 86_400))),
        ),
        ("Rate.burst", refused("target.target.rate.burst", rate(|r| r.burst = Some(0)))),
        ("Rate.burst", refused("target.target.rate.burst", rate(|r| r.burst = Some(1_000_001)))),
        ("Rate.on", refused("target.target.rate.on", rate(|r| r.on = 99))),
        (
            "Concurrency.max",
            refused(
                "target.target.concurrency.max",
                a_target(|t| t.concurrency = Some(proto::Concurrency { max: 0 })),
            ),
        ),
        (
            "Concurrency.max",
            refused(
                "target.target.concurrency.max",
                a_target(|t| t.concurrency = Some(proto::Concurrency { max: 1_000_001 })),
            ),
        ),
        (
            "RetryBudget.ratio",
            refused("target.target.budget.ratio", budget(|b| b.ratio = Some(-0.1))),
        ),
        (
            "RetryBudget.ratio",
            refused("target.target.budget.ratio", budget(|b| b.ratio = Some(f64::NAN))),
        ),
        ("RetryBudget.ratio", refused("target.target.budget.ratio", budget(|b| b.ratio = finer()))),
        (
            "RetryBudget.ratio",
            refused("target.target.budget", budget(|b| (b.ratio, b.floor) = (Some(0.0), Some(0)))),
        ),
        (
            "RetryBudget.floor",
            refused("target.target.budget.floor", budget(|b| b.floor = Some(1_000_001))),
        ),
        (
            "RetryBudget.window",
            refused("target.target.budget.window", budget(|b| b.window = seconds(0))),
        ),
        (
            "RetryBudget.window",
            refused("target.target.budget.window", budget(|b| b.window = seconds(3601))),
        ),
        (
            "RetryBudget.when_spent",
            refused("target.target.budget.when_spent", budget(|b| b.when_spent = 99)),
        ),
    ]
}

fn target_entries() -> Vec<(&'static str, Entry)> {
    let bad = || id("a b");
    let mask = |path: &str| {
        let paths = vec![path.to_owned()];
        update_target(|r| r.update_mask = Some(prost_types::FieldMask { paths }))
    };
    let list = |namespace, page_size, page_token| {
        target::list(proto::ListTargetsRequest { namespace, page_size, page_token }).err()
    };
    let get = |namespace, name| target::get(proto::GetTargetRequest { namespace, name }).err();
    let usage = |namespace, name, run: &str| {
        target::usage(proto::GetTargetUsageRequest { namespace, name, run: run.into() }).err()
    };
    let delete = |namespace, name| {
        target::delete(proto::DeleteTargetRequest { namespace, name, etag: id("") }).err()
    };
    let explain = |namespace, run, step| {
        explain::request(proto::ExplainStepRequest { namespace, run, step }).err()
    };
    let resume =
        |namespace, name| target::resume(proto::ResumeTargetRequest { namespace, name }).err();
    use proto::pause_target_request::End;
    vec![
        ("NamedTarget.namespace", OUTPUT),
        (
            "NamedTarget.name",
            refused(
                "target.name",
                create_target(|r| r.target.get_or_insert_default().name = bad()),
            ),
        ),
        (
            "NamedTarget.target",
            refused(
                "target.target",
                create_target(|r| r.target.get_or_insert_default().target = None),
            ),
        ),
        ("NamedTarget.revision", OUTPUT),
        ("NamedTarget.etag", ETAG),
        ("NamedTarget.update_time", OUTPUT),
        ("NamedTarget.pause", OUTPUT),
        ("TargetPause.reason", OUTPUT),
        ("TargetPause.by", OUTPUT),
        ("TargetPause.since", OUTPUT),
        ("TargetPause.until", OUTPUT),
        (
            "CreateTargetRequest.namespace",
            refused("namespace", create_target(|r| r.namespace = bad())),
        ),
        ("CreateTargetRequest.target", refused("target", create_target(|r| r.target = None))),
        ("CreateTargetRequest.validate_only", FLAG),
        (
            "UpdateTargetRequest.namespace",
            refused("namespace", update_target(|r| r.namespace = bad())),
        ),
        ("UpdateTargetRequest.target", refused("target", update_target(|r| r.target = None))),
        ("UpdateTargetRequest.update_mask", refused("update_mask", mask("target.nothing"))),
        ("UpdateTargetRequest.update_mask", refused("update_mask", mask("rate"))),
        ("UpdateTargetRequest.validate_only", FLAG),
        ("UpdateTargetRequest.allow_missing", FLAG),
        ("GetTargetRequest.namespace", refused("namespace", get(bad(), id("db")))),
        ("GetTargetRequest.name", refused("name", get(id(""), id("")))),
        ("ListTargetsRequest.namespace", refused("namespace", list(bad(), 0, id("")))),
        ("ListTargetsRequest.page_size", refused("page_size", list(id(""), 1001, id("")))),
        ("ListTargetsRequest.page_token", refused("page_token", list(id(""), 0, bad()))),
        ("DeleteTargetRequest.namespace", refused("namespace", delete(bad(), id("db")))),
        ("DeleteTargetRequest.name", refused("name", delete(id(""), id("")))),
        ("DeleteTargetRequest.etag", ETAG),
        ("PauseTargetRequest.namespace", refused("namespace", pause(|r| r.namespace = bad()))),
        ("PauseTargetRequest.name", refused("name", pause(|r| r.name = id("")))),
        ("PauseTargetRequest.reason", refused("reason", pause(|r| r.reason = id("")))),
        ("PauseTargetRequest.reason", refused("reason", pause(|r| r.reason = long(513)))),
        ("PauseTargetRequest.reason", refused("reason", pause(|r| r.reason = id("a\u{1b}[31m")))),
        ("PauseTargetRequest.by", refused("by", pause(|r| r.by = long(129)))),
        ("PauseTargetRequest.by", refused("by", pause(|r| r.by = id("a\nb")))),
        (
            "PauseTargetRequest.until",
            refused(
                "until",
                pause(|r| r.end = Some(End::Until(Timestamp { seconds: -1, nanos: 0 }))),
            ),
        ),
        (
            "PauseTargetRequest.pause_for",
            refused("pause_for", pause(|r| r.end = seconds(0).map(End::PauseFor))),
        ),
        ("ExplainStepRequest.namespace", refused("namespace", explain(bad(), id("r"), id("s")))),
        ("ExplainStepRequest.run", refused("run", explain(id(""), bad(), id("s")))),
        ("ExplainStepRequest.step", refused("step", explain(id(""), id("r"), id("")))),
        ("GetTargetUsageRequest.namespace", refused("namespace", usage(bad(), id("db"), ""))),
        ("GetTargetUsageRequest.name", refused("name", usage(id(""), id(""), ""))),
        ("GetTargetUsageRequest.run", refused("run", usage(id(""), id("db"), "a b"))),
        ("ResumeTargetRequest.namespace", refused("namespace", resume(bad(), id("db")))),
        ("ResumeTargetRequest.name", refused("name", resume(id(""), id("")))),
    ]
}

fn admin_entries() -> Vec<(&'static str, Entry)> {
    let bad = || id("a b");
    let mask = |path: &str| {
        let update_mask = Some(prost_types::FieldMask { paths: vec![path.to_owned()] });
        admin::update_namespace(proto::UpdateNamespaceRequest {
            namespace: Some(namespace()),
            update_mask,
        })
        .err()
    };
    let list_policies = |namespace: String, page_size, page_token| {
        admin::list_policies(proto::ListPoliciesRequest { namespace, page_size, page_token }).err()
    };
    let get_policy = |namespace, name| {
        admin::get_policy(proto::GetPolicyRequest { namespace, name, revision: 0 }).err()
    };
    let delete_policy = |namespace, name| {
        admin::delete_policy(proto::DeletePolicyRequest { namespace, name, etag: id("") }).err()
    };
    let revisions = |namespace, name| {
        admin::list_policy_revisions(proto::ListPolicyRevisionsRequest { namespace, name }).err()
    };
    use proto::evaluate_request::Policy as EvaluatePolicy;
    vec![
        ("Namespace.name", refused("namespace.name", a_namespace(|n| n.name = id("")))),
        ("Namespace.settings", MESSAGE),
        ("Namespace.etag", ETAG),
        ("Namespace.create_time", OUTPUT),
        ("Namespace.update_time", OUTPUT),
        ("Namespace.live_steps", OUTPUT),
        (
            "NamespaceSettings.default_target",
            refused("namespace.settings.default_target", settings(|s| s.default_target = bad())),
        ),
        (
            "NamespaceSettings.default_policy",
            refused("namespace.settings.default_policy", settings(|s| s.default_policy = bad())),
        ),
        (
            "NamespaceSettings.lease",
            refused("namespace.settings.lease", settings(|s| s.lease = seconds(3601))),
        ),
        ("NamespaceSettings.max_retries_ceiling", COUNT),
        (
            "NamespaceSettings.max_elapsed_ceiling",
            refused(
                "namespace.settings.max_elapsed_ceiling",
                settings(|s| s.max_elapsed_ceiling = seconds(0)),
            ),
        ),
        (
            "NamespaceSettings.retention",
            refused("namespace.settings.retention", settings(|s| s.retention = seconds(59))),
        ),
        (
            "NamespaceSettings.abandon_after",
            refused(
                "namespace.settings.abandon_after",
                settings(|s| s.abandon_after = seconds(366 * 86_400)),
            ),
        ),
        (
            "NamespaceSettings.max_live_steps",
            refused("namespace.settings.max_live_steps", settings(|s| s.max_live_steps = Some(0))),
        ),
        (
            "NamespaceSettings.max_live_steps",
            refused(
                "namespace.settings.max_live_steps",
                settings(|s| s.max_live_steps = Some(100_000_001)),
            ),
        ),
        (
            "CreateNamespaceRequest.namespace",
            refused("namespace", admin::create_namespace(Default::default()).err()),
        ),
        (
            "GetNamespaceRequest.namespace",
            refused(
                "namespace",
                admin::get_namespace(proto::GetNamespaceRequest { namespace: bad() }).err(),
            ),
        ),
        (
            "ListNamespacesRequest.page_size",
            refused(
                "page_size",
                admin::list_namespaces(proto::ListNamespacesRequest {
                    page_size: 1001,
                    page_token: id(""),
                })
                .err(),
            ),
        ),
        (
            "ListNamespacesRequest.page_token",
            refused(
                "page_token",
                admin::list_namespaces(proto::ListNamespacesRequest {
                    page_size: 0,
                    page_token: bad(),
                })
                .err(),
            ),
        ),
        (
            "UpdateNamespaceRequest.namespace",
            refused("namespace", admin::update_namespace(Default::default()).err()),
        ),
        ("UpdateNamespaceRequest.update_mask", refused("update_mask", mask("settings.nothing"))),
        ("UpdateNamespaceRequest.update_mask", refused("update_mask", mask("lease"))),
        (
            "DeleteNamespaceRequest.namespace",
            refused("namespace", admin::delete_namespace(Default::default()).err()),
        ),
        ("DeleteNamespaceRequest.etag", ETAG),
        ("NamedPolicy.namespace", OUTPUT),
        (
            "NamedPolicy.name",
            refused(
                "policy.name",
                create_policy(|r| r.policy.get_or_insert_default().name = bad()),
            ),
        ),
        (
            "NamedPolicy.policy",
            refused(
                "policy.policy",
                create_policy(|r| r.policy.get_or_insert_default().policy = None),
            ),
        ),
        (
            "NamedPolicy.policy",
            refused(
                "policy.policy.rules[0].name",
                create_policy(|r| {
                    r.policy.get_or_insert_default().policy.get_or_insert_default().rules[0].name =
                        bad()
                }),
            ),
        ),
        ("NamedPolicy.revision", OUTPUT),
        ("NamedPolicy.etag", ETAG),
        ("NamedPolicy.digest", OUTPUT),
        ("NamedPolicy.update_time", OUTPUT),
        ("NamedPolicy.deleted", OUTPUT),
        (
            "CreatePolicyRequest.namespace",
            refused("namespace", create_policy(|r| r.namespace = bad())),
        ),
        ("CreatePolicyRequest.policy", refused("policy", create_policy(|r| r.policy = None))),
        ("CreatePolicyRequest.validate_only", FLAG),
        (
            "UpdatePolicyRequest.namespace",
            refused("namespace", update_policy(|r| r.namespace = bad())),
        ),
        ("UpdatePolicyRequest.policy", refused("policy", update_policy(|r| r.policy = None))),
        ("UpdatePolicyRequest.validate_only", FLAG),
        ("UpdatePolicyRequest.allow_missing", FLAG),
        ("GetPolicyRequest.namespace", refused("namespace", get_policy(bad(), id("p")))),
        ("GetPolicyRequest.name", refused("name", get_policy(id(""), id("")))),
        ("GetPolicyRequest.revision", Entry::Any("an unknown one is not found")),
        ("ListPoliciesRequest.namespace", refused("namespace", list_policies(bad(), 0, id("")))),
        (
            "ListPoliciesRequest.page_size",
            refused("page_size", list_policies(id(""), 1001, id(""))),
        ),
        ("ListPoliciesRequest.page_token", refused("page_token", list_policies(id(""), 0, bad()))),
        ("DeletePolicyRequest.namespace", refused("namespace", delete_policy(bad(), id("p")))),
        ("DeletePolicyRequest.name", refused("name", delete_policy(id(""), id("")))),
        ("DeletePolicyRequest.etag", ETAG),
        ("ListPolicyRevisionsRequest.namespace", refused("namespace", revisions(bad(), id("p")))),
        ("ListPolicyRevisionsRequest.name", refused("name", revisions(id(""), id("")))),
        ("EvaluateRequest.namespace", refused("namespace", evaluate(|r| r.namespace = bad()))),
        (
            "EvaluateRequest.policy_name",
            refused(
                "policy_name",
                evaluate(|r| r.policy = Some(EvaluatePolicy::PolicyName(bad()))),
            ),
        ),
        ("EvaluateRequest.inline_policy", MESSAGE),
        ("EvaluateRequest.run", refused("run", evaluate(|r| r.run = bad()))),
        ("EvaluateRequest.step", refused("step", evaluate(|r| r.step = bad()))),
        ("EvaluateRequest.kind", refused("kind", evaluate(|r| r.kind = long(129)))),
        (
            "EvaluateRequest.failures",
            refused("failures", evaluate(|r| r.failures = vec![super::failure(); 257])),
        ),
        (
            "EvaluateRequest.failures",
            refused("failures[1].class", evaluate(|r| r.failures[1].class = 0)),
        ),
        ("EvaluateRequest.time_left", refused("time_left", evaluate(|r| r.time_left = seconds(0)))),
    ]
}

fn a_step_order() -> proto::StepOrder {
    proto::StepOrder {
        namespace: id("ads"),
        run: id("r"),
        step: id("s"),
        request_id: vec![1; 16].into(),
        reason: id("the node is broken"),
        by: id("ann"),
    }
}

fn step_order(edit: impl FnOnce(&mut proto::StepOrder)) -> Option<Invalid> {
    let mut given = a_step_order();
    edit(&mut given);
    order::retry(proto::RetryStepRequest { order: Some(given) }).err()
}

fn extend(edit: impl FnOnce(&mut proto::ExtendStepRequest)) -> Option<Invalid> {
    let mut request =
        proto::ExtendStepRequest { order: Some(a_step_order()), more_retries: 1, deadline: None };
    edit(&mut request);
    order::extend(request).err()
}

fn pause_step(edit: impl FnOnce(&mut proto::PauseStepRequest)) -> Option<Invalid> {
    let mut request = proto::PauseStepRequest { order: Some(a_step_order()), end: None };
    edit(&mut request);
    order::pause(request).err()
}

fn resolve(edit: impl FnOnce(&mut proto::ResolveHoldRequest)) -> Option<Invalid> {
    let mut request = proto::ResolveHoldRequest { order: Some(a_step_order()), answer: 1 };
    edit(&mut request);
    order::resolve(request).err()
}

fn list_steps(edit: impl FnOnce(&mut proto::ListStepsRequest)) -> Option<Invalid> {
    let mut request = proto::ListStepsRequest::default();
    edit(&mut request);
    order::list(request).err()
}

fn order_entries() -> Vec<(&'static str, Entry)> {
    use proto::{extend_step_request::Deadline, pause_step_request::End};
    vec![
        ("StepOrder.namespace", refused("order.namespace", step_order(|o| o.namespace = id("é")))),
        ("StepOrder.run", refused("order.run", step_order(|o| o.run = id("")))),
        ("StepOrder.step", refused("order.step", step_order(|o| o.step = id("a b")))),
        (
            "StepOrder.request_id",
            refused("order.request_id", step_order(|o| o.request_id = vec![1; 15].into())),
        ),
        ("StepOrder.reason", refused("order.reason", step_order(|o| o.reason = id("")))),
        ("StepOrder.reason", refused("order.reason", step_order(|o| o.reason = long(129)))),
        ("StepOrder.by", refused("order.by", step_order(|o| o.by = id("")))),
        ("StepOrder.by", refused("order.by", step_order(|o| o.by = id("a\nb")))),
        (
            "RetryStepRequest.order",
            refused("order", order::retry(proto::RetryStepRequest { order: None }).err()),
        ),
        (
            "SkipStepRequest.order",
            refused("order", order::skip(proto::SkipStepRequest { order: None }).err()),
        ),
        (
            "SucceedStepRequest.order",
            refused("order", order::succeed(proto::SucceedStepRequest { order: None }).err()),
        ),
        (
            "FailStepRequest.order",
            refused("order", order::fail(proto::FailStepRequest { order: None }).err()),
        ),
        (
            "CancelStepRequest.order",
            refused("order", order::cancel(proto::CancelStepRequest { order: None }).err()),
        ),
        (
            "ResetStepRequest.order",
            refused("order", order::reset(proto::ResetStepRequest { order: None }).err()),
        ),
        (
            "ResumeStepRequest.order",
            refused("order", order::resume(proto::ResumeStepRequest { order: None }).err()),
        ),
        ("ExtendStepRequest.order", refused("order", extend(|r| r.order = None))),
        (
            "ExtendStepRequest.more_retries",
            refused("more_retries", extend(|r| r.more_retries = 1001)),
        ),
        ("ExtendStepRequest.more_retries", refused("more_retries", extend(|r| r.more_retries = 0))),
        (
            "ExtendStepRequest.time",
            refused("time", extend(|r| r.deadline = Some(Deadline::Time(BEFORE_EPOCH)))),
        ),
        (
            "ExtendStepRequest.time_left",
            refused("time_left", extend(|r| r.deadline = Some(Deadline::TimeLeft(NEGATIVE)))),
        ),
        ("PauseStepRequest.order", refused("order", pause_step(|r| r.order = None))),
        (
            "PauseStepRequest.until",
            refused("until", pause_step(|r| r.end = Some(End::Until(BEFORE_EPOCH)))),
        ),
        (
            "PauseStepRequest.pause_for",
            refused("pause_for", pause_step(|r| r.end = Some(End::PauseFor(NEGATIVE)))),
        ),
        ("ResolveHoldRequest.order", refused("order", resolve(|r| r.order = None))),
        ("ResolveHoldRequest.answer", refused("answer", resolve(|r| r.answer = 0))),
        ("ResolveHoldRequest.answer", refused("answer", resolve(|r| r.answer = 99))),
        ("ListStepsRequest.namespace", refused("namespace", list_steps(|r| r.namespace = id("é")))),
        ("ListStepsRequest.states", refused("states", list_steps(|r| r.states = vec![99]))),
        ("ListStepsRequest.run", refused("run", list_steps(|r| r.run = id("a b")))),
        ("ListStepsRequest.queue", refused("queue", list_steps(|r| r.queue = id("a b")))),
        ("ListStepsRequest.ended_in_outage", FLAG),
        ("ListStepsRequest.paused", FLAG),
        ("ListStepsRequest.page_size", refused("page_size", list_steps(|r| r.page_size = 1001))),
        (
            "ListStepsRequest.page_token",
            refused("page_token", list_steps(|r| r.page_token = id("x"))),
        ),
    ]
}

fn entries() -> Vec<(&'static str, Entry)> {
    let messages =
        [retry_entries(), run_entries(), failure_entries(), policy_entries(), limit_entries()];
    let orders = [admin_entries(), target_entries(), force_entries(), order_entries()];
    messages.into_iter().chain(orders).flatten().collect()
}

/// Every field of every request, and of every message of ours within one.
fn request_fields() -> BTreeSet<String> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let ours = files.iter().filter(|file| file.package() == "reprise.v1");
    let messages: HashMap<&str, _> =
        ours.flat_map(|file| &file.message_type).map(|message| (message.name(), message)).collect();
    let mut open: Vec<&str> =
        messages.keys().copied().filter(|name| name.ends_with("Request")).collect();
    let mut seen = BTreeSet::new();
    let mut fields = BTreeSet::new();
    while let Some(message) = open.pop() {
        if !seen.insert(message) {
            continue;
        }
        for field in &messages[message].field {
            fields.insert(format!("{message}.{}", field.name()));
            let within = field
                .type_name()
                .strip_prefix(".reprise.v1.")
                .filter(|_| field.r#type() == Type::Message);
            // A map's keys and values are told by the name of the map.
            open.extend(within.filter(|within| messages.contains_key(within)));
        }
    }
    fields
}

#[test]
fn every_field_of_every_request_is_in_the_table() {
    let known: BTreeSet<String> =
        entries().into_iter().map(|(field, _)| field.to_owned()).collect();
    let fields = request_fields();
    assert_eq!(
        fields.difference(&known).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "fields without an entry"
    );
    assert_eq!(
        known.difference(&fields).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "entries without a field"
    );
    assert!(fields.len() > 100, "{}", fields.len());
}

#[test]
fn a_bad_value_is_refused_by_the_name_of_its_field() {
    for (field, entry) in entries() {
        let Entry::Refused { told, path } = entry else { continue };
        let invalid = told.unwrap_or_else(|| panic!("{field} was accepted"));
        let status = tonic::Status::from(invalid);
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains(path), "{field}: {}", status.message());
        let details = status.get_error_details();
        let told = &details.bad_request().unwrap().field_violations;
        // Of a list, the entry at fault is named.
        let named = |violation: &&FieldViolation| {
            violation.field == path || violation.field.strip_suffix("[0]") == Some(path)
        };
        let violation = told.iter().find(named);
        let violation =
            violation.unwrap_or_else(|| panic!("{field}: {path} is not among {told:?}"));
        assert!(
            ["accepted", "required"].iter().any(|word| violation.description.contains(word)),
            "{field}: {}",
            violation.description
        );
        assert_eq!(details.error_info().unwrap().reason, "INVALID_ARGUMENT");
    }
}

#[test]
fn what_the_table_spoils_was_good() {
    assert_eq!(begin(|_| {}), None);
    assert_eq!(heartbeat(|_| {}), None);
    assert_eq!(report(|_| {}), None);
    assert_eq!(batch(|_| {}), None);
    assert_eq!(await_decision(|_| {}), None);
    assert_eq!(claim_due(|_| {}), None);
    assert_eq!(stream(|_| {}), None);
    assert_eq!(get_step(|_| {}), None);
    assert_eq!(begin_run(|_| {}), None);
    assert_eq!(report_run(|_| {}), None);
    assert_eq!(get_run(|_| {}), None);
    assert_eq!(run_steps(|_| {}), None);
    assert_eq!(a_policy(|_| {}), None);
    assert_eq!(a_namespace(|_| {}), None);
    assert_eq!(create_policy(|_| {}), None);
    assert_eq!(update_policy(|_| {}), None);
    assert_eq!(create_target(|_| {}), None);
    assert_eq!(update_target(|_| {}), None);
    assert_eq!(pause(|_| {}), None);
    assert_eq!(force(|_| {}), None);
    assert_eq!(step_order(|_| {}), None);
    assert_eq!(extend(|_| {}), None);
    assert_eq!(pause_step(|_| {}), None);
    assert_eq!(resolve(|_| {}), None);
    assert_eq!(list_steps(|_| {}), None);
    assert_eq!(evaluate(|_| {}), None);
}

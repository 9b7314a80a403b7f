//! What workers ask, checked.
//!
//! A number of an enum that this version does not know is read the safe way,
//! since a newer worker's report must still count: an unknown class as FAILURE,
//! an unknown `executed` as MAYBE.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    check::{Check, Invalid, Part, shown},
    policy,
};
use crate::{
    domain::{
        draw,
        event::{AttemptName, Begin, Comes, Deadline, Heartbeat, Report, StepTerms},
        failure::{Code, Executed, Failure, FailureClass, Pushback, Wish},
        id::{Id, StepName},
        labels::{LABEL_ACCEPTED, LABELS_MAX, Labels, NotLabels},
        namespace::{LEASE_MAX, LEASE_MIN},
        record::Identity,
    },
    proto::{self, begin_attempt_request, report_attempt_request},
    service::{Claim, GivenPolicy, Handed},
};

/// Reports of one batch at most.
pub const REPORTS_MAX: usize = 256;
/// Targets of a step at most.
pub const TARGETS_MAX: usize = 8;

/// Steps at most that one call claims: their answer fits a message.
pub const CLAIMS_MAX: u32 = 64;
/// Largest payload of a step, in bytes.
pub const PAYLOAD_MAX: usize = 4096;
/// Longest wait of one call. Nobody is kept for longer than a proxy on the way
/// may keep a silent call.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Wait of a call that says nothing of it: within what a connection has left that
/// is told to go.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(20);

/// Longest name of a kind, host, worker, cause or action, in bytes.
pub(super) const LABEL_MAX: usize = 128;
const ERROR_TYPE_MAX: usize = 256;
const MESSAGE_MAX: usize = 4096;
const REQUEST_ID_BYTES: usize = 16;
/// First fence that not every client can represent.
const FENCE_END: u64 = 1 << 53;

/// What happens to which step, and the policy that came with it, if one did.
pub type Call<E> = (StepName, Option<GivenPolicy>, E);

/// Reports that came together.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The namespace of them all.
    pub namespace: String,
    /// Each by itself, in their order.
    pub reports: Vec<Result<Call<Report>, Rejected>>,
}

/// A report of a batch that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its run, as it was given.
    pub run: String,
    /// Its step, as it was given.
    pub step: String,
    /// What is wrong with it.
    pub invalid: Invalid,
}

/// Reads a call of `BeginAttempt`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn begin(request: proto::BeginAttemptRequest) -> Result<Call<Begin>, Invalid> {
    let mut check = Check::default();
    let name = check.step(request.namespace, request.run, request.step);
    request_id(&mut check, &request.request_id);
    let policy = request.policy.and_then(|policy| match policy {
        begin_attempt_request::Policy::PolicyName(name) => named_policy(&mut check, &name),
        begin_attempt_request::Policy::InlinePolicy(policy) => {
            Some(inline_policy(&mut check, policy))
        }
    });
    let lease = lease(&mut check, request.lease);
    check.text("host", &request.host, LABEL_MAX);
    check.text("worker", &request.worker, LABEL_MAX);
    let queue = check.optional_id("queue", &request.queue);
    let deadline = deadline(&mut check, request.deadline, request.time_left);
    let step = StepTerms {
        payload: payload(&mut check, &request.payload),
        labels: labels(&mut check, &request.labels),
        of_run: request.run_attempt,
        ..step_terms(&mut check, request.kind, &request.targets, queue, deadline)
    };
    let begin = Begin {
        identity: Identity {
            id: identity(&request.request_id),
            payload: begin_payload(&step, lease),
        },
        lease,
        host: (!request.host.is_empty()).then(|| Arc::from(request.host)),
        worker: request.worker,
        comes: if request.awaits { Comes::WhenWoken } else { Comes::ByItself },
        step,
    };
    check.finish((name, policy, begin))
}

/// Reads a call of `Heartbeat`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn heartbeat(request: proto::HeartbeatRequest) -> Result<(StepName, Heartbeat), Invalid> {
    let mut check = Check::default();
    let name = check.step_or_run(request.namespace, request.run, request.step);
    let fence = fence(&mut check, request.fence);
    let lease = lease(&mut check, request.lease);
    let heartbeat = Heartbeat { fence, lease, progress: request.progress };
    check.finish((name, heartbeat))
}

/// Reads a call of `ReportAttempt`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn report(request: proto::ReportAttemptRequest) -> Result<Call<Report>, Invalid> {
    let mut check = Check::default();
    let call = report_call(&mut check, request);
    check.finish(call)
}

/// Reads a call of `BatchReportAttempts`.
///
/// # Errors
/// What is wrong with the batch itself; what is wrong with one report is told
/// in its place.
pub fn batch(request: proto::BatchReportAttemptsRequest) -> Result<Batch, Invalid> {
    let mut check = Check::default();
    let namespace = check.namespace(request.namespace);
    let count = request.reports.len();
    if count > REPORTS_MAX {
        check.refuse(
            "reports",
            format!("{count} entries"),
            format!("accepted: at most {REPORTS_MAX}"),
        );
    }
    if let Some(invalid) = check.into_invalid() {
        return Err(invalid);
    }
    let reports = request
        .reports
        .into_iter()
        .enumerate()
        .map(|(at, report)| batch_item(at, report, &namespace))
        .collect();
    Ok(Batch { namespace, reports })
}

/// Reads a call of `AwaitDecision`: for which step, and for how long at most.
///
/// # Errors
/// Everything that is wrong with it.
pub fn await_decision(
    request: proto::AwaitDecisionRequest,
) -> Result<(StepName, Duration), Invalid> {
    let mut check = Check::default();
    let name = check.step_or_run(request.namespace, request.run, request.step);
    let timeout = check.bounded_span("timeout", request.timeout, Duration::ZERO..=WAIT_MAX);
    check.finish((name, timeout.unwrap_or(WAIT_DEFAULT)))
}

/// Reads a call of `ClaimDue`: for what, and how long to wait at most.
///
/// # Errors
/// Everything that is wrong with it.
pub fn claim_due(request: proto::ClaimDueRequest) -> Result<(Claim, Duration), Invalid> {
    let mut check = Check::default();
    let timeout = check.bounded_span("timeout", request.timeout, Duration::ZERO..=WAIT_MAX);
    let claim = claim(&mut check, request, "max_steps");
    claimed_with(check, claim, timeout.unwrap_or(WAIT_DEFAULT))
}

/// Reads a call of `StreamDue`: for what, and what the worker runs already.
///
/// # Errors
/// Everything that is wrong with it.
pub fn stream_due(request: proto::StreamDueRequest) -> Result<(Claim, Vec<Handed>), Invalid> {
    let mut check = Check::default();
    let asked = proto::ClaimDueRequest {
        namespace: request.namespace,
        queue: request.queue,
        request_id: request.request_id,
        max_steps: request.max_running,
        lease: request.lease,
        host: request.host,
        worker: request.worker,
        timeout: None,
        labels: request.labels,
    };
    let claim = claim(&mut check, asked, "max_running");
    let namespace = claim.as_ref().map(|claim| claim.namespace.clone()).unwrap_or_default();
    let running = running(&mut check, &namespace, request.running);
    claimed_with(check, claim, running)
}

/// What `ClaimDue` and `StreamDue` have in common; how many steps, `most` says. None
/// without a legal queue, which was told then.
fn claim(check: &mut Check, request: proto::ClaimDueRequest, most: &str) -> Option<Claim> {
    let namespace = check.namespace(request.namespace);
    let queue = check.id("queue", &request.queue);
    request_id(check, &request.request_id);
    let count = request.max_steps.unwrap_or(1);
    if !(1..=CLAIMS_MAX).contains(&count) {
        check.refuse(most, count.to_string(), format!("accepted: 1 to {CLAIMS_MAX}"));
    }
    let lease = lease(check, request.lease);
    check.text("host", &request.host, LABEL_MAX);
    check.text("worker", &request.worker, LABEL_MAX);
    let labels = labels(check, &request.labels);
    queue.map(|queue| Claim {
        namespace,
        queue,
        request_id: request.request_id.to_vec(),
        most: usize::try_from(count).unwrap_or(1),
        lease,
        host: (!request.host.is_empty()).then(|| Arc::from(request.host)),
        worker: request.worker,
        labels,
    })
}

fn claimed_with<T>(check: Check, claim: Option<Claim>, with: T) -> Result<(Claim, T), Invalid> {
    match (check.into_invalid(), claim) {
        (None, Some(claim)) => Ok((claim, with)),
        (Some(invalid), _) => Err(invalid),
        (None, None) => Err(Invalid::of("queue", "", "required")),
    }
}

/// Attempts that a worker runs already.
fn running(check: &mut Check, namespace: &str, given: Vec<proto::RunningAttempt>) -> Vec<Handed> {
    let most = usize::try_from(CLAIMS_MAX).unwrap_or(usize::MAX);
    if given.len() > most {
        let count = format!("{} entries", given.len());
        check.refuse("running", count, format!("accepted: at most {CLAIMS_MAX}"));
    }
    let attempt = |(at, given): (usize, proto::RunningAttempt)| {
        check.within(Part::Item("running", at), |check| {
            let name = check.step(namespace.to_owned(), given.run, given.step);
            Handed { name, fence: fence(check, given.fence) }
        })
    };
    given.into_iter().take(most).enumerate().map(attempt).collect()
}

/// Reads a call of `GetStep`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn get_step(request: proto::GetStepRequest) -> Result<StepName, Invalid> {
    let mut check = Check::default();
    let name = check.step(request.namespace, request.run, request.step);
    check.finish(name)
}

fn batch_item(
    at: usize,
    mut request: proto::ReportAttemptRequest,
    namespace: &str,
) -> Result<Call<Report>, Rejected> {
    let mut check = Check::default();
    let call = check.within(Part::Item("reports", at), |check| {
        if request.namespace.is_empty() {
            namespace.clone_into(&mut request.namespace);
        } else if request.namespace != namespace {
            check.refuse(
                "namespace",
                shown(&request.namespace),
                format!("accepted: empty, or the batch's own, {namespace:?}"),
            );
        }
        report_call(check, request)
    });
    match check.into_invalid() {
        None => Ok(call),
        Some(invalid) => Err(Rejected { run: call.0.run, step: call.0.step, invalid }),
    }
}

fn report_call(check: &mut Check, request: proto::ReportAttemptRequest) -> Call<Report> {
    let name = check.step(request.namespace, request.run, request.step);
    let attempt = attempt_name(check, request.fence, request.attempt, &request.request_id);
    let policy = request.policy.and_then(|policy| match policy {
        report_attempt_request::Policy::PolicyName(name) => named_policy(check, &name),
        report_attempt_request::Policy::InlinePolicy(policy) => Some(inline_policy(check, policy)),
    });
    let failure = match request.outcome {
        Some(report_attempt_request::Outcome::Success(proto::Success {})) => None,
        Some(report_attempt_request::Outcome::Failure(given)) => {
            Some(check.within(Part::Field("failure"), |check| failure(check, given)))
        }
        None => {
            check.refuse("outcome", "", "required: success or failure");
            None
        }
    };
    let deadline = deadline(check, request.deadline, request.time_left);
    let step = StepTerms {
        of_run: request.run_attempt,
        ..step_terms(check, request.kind, &request.targets, None, deadline)
    };
    let payload = report_payload(failure.as_ref());
    (name, policy, Report { attempt, payload, failure, step })
}

/// A fence that must be given.
fn fence(check: &mut Check, fence: u64) -> u64 {
    if !(1..FENCE_END).contains(&fence) {
        let accepted = "accepted: the fence of the grant, 1 to 9007199254740991";
        check.refuse("fence", fence.to_string(), accepted);
    }
    fence
}

/// The first that is given of fence, number and request id names the attempt.
pub(super) fn attempt_name(
    check: &mut Check,
    fence: u64,
    number: u32,
    request_id: &[u8],
) -> AttemptName {
    if fence >= FENCE_END {
        check.refuse(
            "fence",
            fence.to_string(),
            "accepted: the fence of the grant, 1 to 9007199254740991",
        );
    }
    if !request_id.is_empty() {
        self::request_id(check, request_id);
    }
    match (fence, number) {
        (0, 0) => {
            if request_id.is_empty() {
                check.refuse(
                    "request_id",
                    "",
                    "which attempt? required: fence, attempt or request_id",
                );
            }
            AttemptName::Request(identity(request_id))
        }
        (0, number) => AttemptName::Number(number),
        (fence, _) => AttemptName::Fence(fence),
    }
}

pub(super) fn request_id(check: &mut Check, request_id: &[u8]) {
    if request_id.len() != REQUEST_ID_BYTES {
        check.refuse(
            "request_id",
            format!("{} bytes", request_id.len()),
            "accepted: exactly 16 bytes, random, the same when the call is repeated",
        );
    }
}

/// What is kept of a request id. Never 0, which says that a call named its
/// attempt without one.
pub(super) fn identity(request_id: &[u8]) -> u64 {
    draw::digest(request_id).max(1)
}

pub(super) fn named_policy(check: &mut Check, name: &str) -> Option<GivenPolicy> {
    check.id("policy_name", name).map(GivenPolicy::Named)
}

pub(super) fn inline_policy(check: &mut Check, policy: proto::Policy) -> GivenPolicy {
    let spec = check.within(Part::Field("inline_policy"), |check| policy::read(check, policy));
    GivenPolicy::Inline(Box::new(spec))
}

/// What a worker is handed that claims the step.
fn payload(check: &mut Check, payload: &[u8]) -> Box<[u8]> {
    if payload.len() > PAYLOAD_MAX {
        let given = format!("{} bytes", payload.len());
        check.refuse("payload", given, format!("accepted: at most {PAYLOAD_MAX} bytes"));
    }
    payload.into()
}

/// What tells a step apart, or is demanded of one.
fn labels(check: &mut Check, given: &BTreeMap<String, String>) -> Labels {
    Labels::of(given).unwrap_or_else(|wrong| {
        let (value, accepted) = match wrong {
            NotLabels::TooMany(count) => {
                (format!("{count} entries"), format!("at most {LABELS_MAX}"))
            }
            NotLabels::Illegal(pair) => {
                (shown(&pair), format!("keys and values of {LABEL_ACCEPTED}"))
            }
        };
        check.refuse("labels", value, format!("accepted: {accepted}"));
        Labels::default()
    })
}

pub(super) fn lease(check: &mut Check, lease: Option<prost_types::Duration>) -> Option<Duration> {
    check.bounded_span("lease", lease, LEASE_MIN..=LEASE_MAX)
}

pub(super) fn deadline(
    check: &mut Check,
    deadline: Option<prost_types::Timestamp>,
    time_left: Option<prost_types::Duration>,
) -> Option<Deadline> {
    if deadline.is_some() && time_left.is_some() {
        check.refuse("time_left", "", "given together with deadline; accepted: one of the two");
    }
    let at = check.instant("deadline", deadline).map(Deadline::At);
    let after = check.positive_span("time_left", time_left).map(Deadline::After);
    at.or(after)
}

fn step_terms(
    check: &mut Check,
    kind: String,
    targets: &[String],
    queue: Option<Id>,
    deadline: Option<Deadline>,
) -> StepTerms {
    check.text("kind", &kind, LABEL_MAX);
    if targets.len() > TARGETS_MAX {
        check.refuse(
            "targets",
            format!("{} entries", targets.len()),
            format!("accepted: at most {TARGETS_MAX}"),
        );
    }
    let target = |(at, target): (usize, &String)| {
        check.within(Part::Item("targets", at), |check| check.id("", target))
    };
    let targets = targets.iter().take(TARGETS_MAX).enumerate().filter_map(target).collect();
    StepTerms { kind, targets, queue, deadline, ..StepTerms::default() }
}

/// Reads a failure, wherever it stands.
pub(super) fn failure(check: &mut Check, given: proto::Failure) -> Failure {
    for (field, text, bytes_max) in [
        ("error_type", &given.error_type, ERROR_TYPE_MAX),
        ("message", &given.message, MESSAGE_MAX),
        ("cause", &given.cause, LABEL_MAX),
        ("host", &given.host, LABEL_MAX),
        ("worker", &given.worker, LABEL_MAX),
        ("action", &given.action, LABEL_MAX),
    ] {
        check.text(field, text, bytes_max);
    }
    if !given.target.is_empty() {
        check.name("target", &given.target);
    }
    Failure {
        class: class(check, given.class),
        code: given.code.and_then(|code| self::code(check, code)),
        exit_code: given.exit_code,
        signal: given.signal.and_then(|signal| self::signal(check, signal)),
        duration: check.span("duration", given.duration),
        pushback: given.pushback.and_then(|pushback| self::pushback(check, pushback)),
        wish: given.wish.map(|wish| self::wish(check, wish)),
        retryable: given.retryable.unwrap_or(true),
        executed: executed(given.executed),
        error_type: given.error_type,
        message: given.message,
        cause: given.cause,
        host: given.host,
        worker: given.worker,
        target: given.target,
        action: given.action,
        of_step: false,
    }
}

fn class(check: &mut Check, number: i32) -> FailureClass {
    if number == 0 {
        check.refuse(
            "class",
            "",
            "required: what kind of failure, such as FAILURE_CLASS_TRANSIENT",
        );
    }
    known_class(number).unwrap_or(FailureClass::Failure)
}

/// The class of this number in the contract.
pub(super) fn known_class(number: i32) -> Option<FailureClass> {
    match proto::FailureClass::try_from(number).ok()? {
        proto::FailureClass::Unspecified => None,
        proto::FailureClass::Failure => Some(FailureClass::Failure),
        proto::FailureClass::Error => Some(FailureClass::Error),
        proto::FailureClass::Transient => Some(FailureClass::Transient),
        proto::FailureClass::Timeout => Some(FailureClass::Timeout),
        proto::FailureClass::Throttled => Some(FailureClass::Throttled),
        proto::FailureClass::Crash => Some(FailureClass::Crash),
        proto::FailureClass::Canceled => Some(FailureClass::Canceled),
    }
}

fn code(check: &mut Check, code: proto::failure::Code) -> Option<Code> {
    match code {
        proto::failure::Code::GrpcCode(number) => {
            let code = u8::try_from(number)
                .ok()
                .filter(|number| (1..=16).contains(number))
                .map(Code::Grpc);
            if code.is_none() {
                check.refuse(
                    "grpc_code",
                    number.to_string(),
                    "accepted: the code of a failure, 1 to 16",
                );
            }
            code
        }
        proto::failure::Code::HttpStatus(status) => {
            let code = u16::try_from(status)
                .ok()
                .filter(|status| (100..=599).contains(status))
                .map(Code::Http);
            if code.is_none() {
                check.refuse("http_status", status.to_string(), "accepted: 100 to 599");
            }
            code
        }
    }
}

fn signal(check: &mut Check, number: u32) -> Option<u8> {
    let signal = u8::try_from(number).ok().filter(|number| (1..=64).contains(number));
    if signal.is_none() {
        check.refuse(
            "signal",
            number.to_string(),
            "accepted: 1 to 64; leave it out when no signal ended the process",
        );
    }
    signal
}

fn pushback(check: &mut Check, given: proto::Pushback) -> Option<Pushback> {
    use proto::pushback::Until;
    check.within(Part::Field("pushback"), |check| match given.until {
        Some(Until::After(span)) => check.span("after", Some(span)).map(Pushback::After),
        Some(Until::Time(instant)) => check.instant("time", Some(instant)).map(Pushback::Until),
        Some(Until::Never(true)) => Some(Pushback::Never),
        Some(Until::Never(false)) => {
            check.refuse("never", "false", "accepted: true; leave the pushback out when the target asked for nothing");
            None
        }
        None => {
            check.refuse("until", "", "required: after, time or never; leave the pushback out when the target asked for nothing");
            None
        }
    })
}

fn wish(check: &mut Check, given: proto::RetryWish) -> Wish {
    let delay = check.within(Part::Field("wish"), |check| check.span("delay", given.delay));
    Wish { max_retries: given.max_retries, delay }
}

const fn executed(number: i32) -> Executed {
    match number {
        number if number == proto::Executed::No as i32 => Executed::No,
        number if number == proto::Executed::Yes as i32 => Executed::Yes,
        _ => Executed::Maybe,
    }
}

/// Digest of a call, to tell its repetition from another call under the same
/// identity.
///
/// It covers what the answer rests on and what a caller that repeats itself
/// still knows. It leaves out what a repeated call may honestly say anew: host
/// and worker (another process may repeat the call), `time_left` and `deadline`
/// (computed from the time of the call), the measured duration, and the policy
/// (resolved live: a new revision in between must not turn a repetition into a
/// misuse).
///
/// It is stored with attempts. What goes into it may only change under another
/// tag, or a call that is repeated across an upgrade is taken for a misuse.
struct Payload(Vec<u8>);

impl Payload {
    const BEGIN: u64 = 1;
    const SUCCESS: u64 = 2;
    const FAILURE: u64 = 3;

    fn tagged(tag: u64) -> Self {
        let mut payload = Self(Vec::with_capacity(384));
        payload.number(tag);
        payload
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Absent is told apart from every number.
    fn optional(&mut self, number: Option<u64>) {
        self.0.push(u8::from(number.is_some()));
        self.number(number.unwrap_or_default());
    }

    fn optional_span(&mut self, span: Option<Duration>) {
        self.optional(span.map(|span| span.as_secs()));
        self.number(span.map_or(0, |span| u64::from(span.subsec_nanos())));
    }

    /// Length first, so that no two lists of texts run into the same bytes.
    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn digest(self) -> u64 {
        draw::digest(&self.0)
    }
}

pub(super) fn begin_payload(step: &StepTerms, lease: Option<Duration>) -> u64 {
    let mut payload = Payload::tagged(Payload::BEGIN);
    payload.text(&step.kind);
    payload.number(step.targets.len() as u64);
    for target in &step.targets {
        payload.text(target);
    }
    payload.text(step.queue.as_deref().unwrap_or_default());
    payload.optional_span(lease);
    // Calls without one are digested as they were before there were any.
    if !step.payload.is_empty() {
        payload.bytes(&step.payload);
    }
    if step.of_run > 0 {
        payload.number(u64::from(step.of_run));
    }
    if !step.labels.is_empty() {
        // No length and no attempt of a run, either of which may stand here.
        payload.number(u64::MAX);
        payload.text(step.labels.as_str());
    }
    payload.digest()
}

pub(super) fn report_payload(failure: Option<&Failure>) -> u64 {
    let Some(failure) = failure else {
        return Payload::tagged(Payload::SUCCESS).digest();
    };
    let mut payload = Payload::tagged(Payload::FAILURE);
    payload.number(failure.class as u64);
    payload.text(&failure.error_type);
    payload.optional(failure.code.map(|code| match code {
        Code::Grpc(code) => u64::from(code),
        Code::Http(status) => u64::from(status),
    }));
    payload.optional(failure.exit_code.map(|code| u64::from(code.cast_unsigned())));
    payload.optional(failure.signal.map(u64::from));
    for text in [&failure.message, &failure.cause, &failure.target, &failure.action] {
        payload.text(text);
    }
    let (tag, number) = match failure.pushback {
        None => (0, 0),
        Some(Pushback::After(span)) => (1, u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        Some(Pushback::Until(instant)) => (2, instant.as_micros()),
        Some(Pushback::Never) => (3, 0),
    };
    payload.number(tag);
    payload.number(number);
    payload.optional(failure.wish.map(|wish| u64::from(wish.max_retries.is_some())));
    payload.optional(failure.wish.and_then(|wish| wish.max_retries).map(u64::from));
    payload.optional_span(failure.wish.and_then(|wish| wish.delay));
    payload.number(u64::from(failure.retryable));
    payload.number(failure.executed as u64);
    if failure.of_step {
        payload.number(1);
    }
    payload.digest()
}

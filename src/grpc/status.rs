//! The only table from errors to gRPC codes.
//!
//! Refusals are answers and not here. Each error carries exactly one
//! `ErrorInfo` with a [`ErrorReason`] that programs may rely on, what else helps
//! a caller to go on, and a message for people that names the next step.

use std::{collections::HashMap, time::Duration};

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use super::convert::Invalid;
use crate::{
    domain::{
        decision::Reason, id::StepKey, order::Stage, plan::Refusal, policy::Violation,
        policy::spec::HoldAnswer,
    },
    service::{AdminError, ServiceError},
    store::StoreError,
};

/// Who speaks, in every `ErrorInfo`.
pub const DOMAIN: &str = "reprise.v1";

/// Bytes at most of what one violation says. The status travels in HTTP/2
/// trailers, of which some clients accept no more than 8 KiB, in base64.
const DESCRIPTION_MAX: usize = 320;

/// Why a call could not be carried out. Programs may rely on the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorReason {
    /// The request is wrong; `BadRequest` says where.
    InvalidArgument,
    /// A `request_id`, fence or attempt number was used before with another
    /// content.
    IdentityReused,
    /// There is no such step, or it was forgotten.
    StepNotFound,
    /// There is no such run: nobody has begun it, or it was forgotten.
    RunNotFound,
    /// Attempt numbers are dense and this one is not the next; `next` is.
    AttemptGap,
    /// The attempt of a run that a worker says to belong to has not begun.
    RunAttemptUnknown,
    /// An attempt of the step is in progress, and the order is not for it.
    StepInProgress,
    /// The step is over, and the order does not reopen it.
    StepOver,
    /// There is no hold to be answered.
    StepNotHeld,
    /// The hold does not allow this answer.
    AnswerNotAllowed,
    /// The hold allows no further retry by hand.
    ManualRetriesSpent,
    /// It is not known where the latest attempt ran.
    HostUnknown,
    /// The step's deadline or the namespace's ceiling has passed.
    PastBound,
    /// The step has no deadline to be put off.
    NoDeadline,
    /// The deadline is later than that already.
    DeadlineNotLater,
    /// The step is not paused.
    StepNotPaused,
    /// There is no such namespace.
    NamespaceNotFound,
    /// There is no such policy.
    PolicyNotFound,
    /// There is no such target.
    TargetNotFound,
    /// There is a namespace of this name.
    NamespaceExists,
    /// There is a policy of this name.
    PolicyExists,
    /// There is a target of this name.
    TargetExists,
    /// It was changed since the etag was read.
    EtagMismatch,
    /// The namespace has steps.
    NamespaceNotEmpty,
    /// The namespace always exists.
    NamespaceProtected,
    /// The namespace's bound on steps that are not over is reached.
    LiveStepsQuota,
    /// A bound on what the namespace may hold is reached.
    NamespaceQuota,
    /// The policy is the default of its namespace.
    PolicyIsDefault,
    /// The target is the default of its namespace.
    TargetIsDefault,
    /// The target has no breaker that could be forced.
    TargetHasNoBreaker,
    /// There is no room left to keep anything new.
    StoreFull,
    /// The store does not answer.
    StoreUnavailable,
    /// The store is there and refuses for a while. Nothing was done.
    StoreRefuses,
    /// More calls than can be served.
    Overloaded,
    /// A fault of the server.
    Internal,
}

impl ErrorReason {
    /// Every reason.
    pub const ALL: [Self; 35] = [
        Self::InvalidArgument,
        Self::IdentityReused,
        Self::StepNotFound,
        Self::RunNotFound,
        Self::AttemptGap,
        Self::RunAttemptUnknown,
        Self::StepInProgress,
        Self::StepOver,
        Self::StepNotHeld,
        Self::AnswerNotAllowed,
        Self::ManualRetriesSpent,
        Self::HostUnknown,
        Self::PastBound,
        Self::NoDeadline,
        Self::DeadlineNotLater,
        Self::StepNotPaused,
        Self::NamespaceNotFound,
        Self::PolicyNotFound,
        Self::TargetNotFound,
        Self::NamespaceExists,
        Self::PolicyExists,
        Self::TargetExists,
        Self::EtagMismatch,
        Self::NamespaceNotEmpty,
        Self::NamespaceProtected,
        Self::LiveStepsQuota,
        Self::NamespaceQuota,
        Self::PolicyIsDefault,
        Self::TargetIsDefault,
        Self::TargetHasNoBreaker,
        Self::StoreFull,
        Self::StoreUnavailable,
        Self::StoreRefuses,
        Self::Overloaded,
        Self::Internal,
    ];

    /// The name in `ErrorInfo.reason`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::IdentityReused => "IDENTITY_REUSED",
            Self::StepNotFound => "STEP_NOT_FOUND",
            Self::RunNotFound => "RUN_NOT_FOUND",
            Self::AttemptGap => "ATTEMPT_GAP",
            Self::RunAttemptUnknown => "RUN_ATTEMPT_UNKNOWN",
            Self::StepInProgress => "STEP_IN_PROGRESS",
            Self::StepOver => "STEP_OVER",
            Self::StepNotHeld => "STEP_NOT_HELD",
            Self::AnswerNotAllowed => "ANSWER_NOT_ALLOWED",
            Self::ManualRetriesSpent => "MANUAL_RETRIES_SPENT",
            Self::HostUnknown => "HOST_UNKNOWN",
            Self::PastBound => "PAST_BOUND",
            Self::NoDeadline => "NO_DEADLINE",
            Self::DeadlineNotLater => "DEADLINE_NOT_LATER",
            Self::StepNotPaused => "STEP_NOT_PAUSED",
            Self::NamespaceNotFound => "NAMESPACE_NOT_FOUND",
            Self::PolicyNotFound => "POLICY_NOT_FOUND",
            Self::TargetNotFound => "TARGET_NOT_FOUND",
            Self::NamespaceExists => "NAMESPACE_EXISTS",
            Self::PolicyExists => "POLICY_EXISTS",
            Self::TargetExists => "TARGET_EXISTS",
            Self::EtagMismatch => "ETAG_MISMATCH",
            Self::NamespaceNotEmpty => "NAMESPACE_NOT_EMPTY",
            Self::NamespaceProtected => "NAMESPACE_PROTECTED",
            Self::LiveStepsQuota => "LIVE_STEPS_QUOTA",
            Self::NamespaceQuota => "NAMESPACE_QUOTA",
            Self::PolicyIsDefault => "POLICY_IS_DEFAULT",
            Self::TargetIsDefault => "TARGET_IS_DEFAULT",
            Self::TargetHasNoBreaker => "TARGET_HAS_NO_BREAKER",
            Self::StoreFull => "STORE_FULL",
            Self::StoreUnavailable => "STORE_UNAVAILABLE",
            Self::StoreRefuses => "STORE_REFUSES",
            Self::Overloaded => "OVERLOADED",
            Self::Internal => "INTERNAL",
        }
    }

    /// The code that goes with it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::InvalidArgument => Code::InvalidArgument,
            Self::IdentityReused
            | Self::NamespaceExists
            | Self::PolicyExists
            | Self::TargetExists => Code::AlreadyExists,
            Self::StepNotFound
            | Self::RunNotFound
            | Self::NamespaceNotFound
            | Self::PolicyNotFound
            | Self::TargetNotFound => Code::NotFound,
            Self::AttemptGap
            | Self::RunAttemptUnknown
            | Self::StepInProgress
            | Self::StepOver
            | Self::StepNotHeld
            | Self::AnswerNotAllowed
            | Self::ManualRetriesSpent
            | Self::HostUnknown
            | Self::PastBound
            | Self::NoDeadline
            | Self::DeadlineNotLater
            | Self::StepNotPaused
            | Self::NamespaceNotEmpty
            | Self::NamespaceProtected
            | Self::NamespaceQuota
            | Self::PolicyIsDefault
            | Self::TargetIsDefault
            | Self::TargetHasNoBreaker => Code::FailedPrecondition,
            Self::EtagMismatch => Code::Aborted,
            Self::LiveStepsQuota | Self::StoreFull | Self::Overloaded => Code::ResourceExhausted,
            Self::StoreUnavailable | Self::StoreRefuses => Code::Unavailable,
            Self::Internal => Code::Internal,
        }
    }
}

/// An error on its way to the caller.
struct Told {
    reason: ErrorReason,
    details: ErrorDetails,
}

impl Told {
    fn new<const N: usize>(reason: ErrorReason, metadata: [(&str, &str); N]) -> Self {
        let metadata: HashMap<String, String> =
            metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Self { reason, details: ErrorDetails::with_error_info(reason.name(), DOMAIN, metadata) }
    }

    fn about(mut self, resource_type: &str, name: &str) -> Self {
        self.details.set_resource_info(resource_type, name, "", "");
        self
    }

    fn unmet(mut self, subject: &str, description: &str) -> Self {
        self.details.add_precondition_failure_violation(self.reason.name(), subject, description);
        self
    }

    fn exceeding(mut self, subject: &str, description: &str) -> Self {
        self.details.add_quota_failure_violation(subject, description);
        self
    }

    fn retry_after(mut self, delay: Duration) -> Self {
        self.details.set_retry_info(Some(delay));
        self
    }

    fn saying(self, message: impl Into<String>) -> Status {
        Status::with_error_details(self.reason.code(), message, self.details)
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        let first = invalid.violations().first().map_or("", |violation| violation.field.as_str());
        let mut told = Told::new(ErrorReason::InvalidArgument, [("field", first)]);
        let violations: Vec<FieldViolation> =
            invalid.violations().iter().map(field_violation).collect();
        told.details.set_bad_request(violations);
        told.saying(shortened(invalid.to_string(), 2 * DESCRIPTION_MAX))
    }
}

fn field_violation(violation: &Violation) -> FieldViolation {
    let separator = if violation.value.is_empty() { "" } else { ": " };
    let value = shortened(violation.value.clone(), DESCRIPTION_MAX / 2);
    let description = format!("{value}{separator}{}", violation.problem);
    FieldViolation::new(violation.field.as_str(), shortened(description, DESCRIPTION_MAX))
}

fn shortened(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let cut = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// An event that could not be carried out.
#[must_use]
pub fn refusal(refusal: &Refusal, step: StepKey<'_>) -> Status {
    let name = step.to_string();
    let StepKey { namespace, run, step } = step;
    let named = [("namespace", namespace), ("run", run), ("step", step)];
    match refusal {
        Refusal::IdentityReused => Told::new(ErrorReason::IdentityReused, named).saying(format!(
            "step {name}: this request_id, fence or attempt was used before with another content; \
             repeat a call unchanged, or give a new call an identity of its own"
        )),
        Refusal::UnknownStep if step.is_empty() => Told::new(
            ErrorReason::RunNotFound,
            [("namespace", namespace), ("run", run)],
        )
        .about("reprise.v1.Run", &format!("{namespace} {run}"))
        .saying(format!(
            "there is no run {run:?} in namespace {namespace:?}: nobody has begun it, or it was \
                     over and has been forgotten; begin it with BeginRun"
        )),
        Refusal::UnknownStep => Told::new(ErrorReason::StepNotFound, named)
            .about("reprise.v1.Step", &name)
            .saying(format!(
                "there is no step {name}, or it was over and has been forgotten; \
             check namespace, run and step, or begin it with BeginAttempt"
            )),
        Refusal::AttemptGap { next } => {
            let next = next.to_string();
            let [namespace, run, step] = named;
            Told::new(ErrorReason::AttemptGap, [namespace, run, step, ("next", &next)])
                .unmet(&name, &format!("the next attempt is number {next}"))
                .saying(format!(
                    "step {name}: attempt numbers are dense and the next is {next}; \
                     report that one, or leave the number out and give a request_id"
                ))
        }
        Refusal::UnknownRunAttempt { said, begun } => {
            let [said, begun] = [said, begun].map(ToString::to_string);
            let [namespace, run, step] = named;
            let told = [namespace, run, step, ("run_attempt", &*said), ("begun", &*begun)];
            Told::new(ErrorReason::RunAttemptUnknown, told)
                .unmet(&name, &format!("attempts of the run that have begun: {begun}"))
                .saying(format!(
                    "step {name}: attempt {said} of its run has not begun, {begun} have; \
                     give the number that BeginRun answered, or none"
                ))
        }
        Refusal::PauseOver { until, now } => {
            let accepted = format!("accepted: an instant after {now}, the store's time");
            Invalid::of("until", until.to_string(), accepted).into()
        }
        order => {
            let (reason, unmet, next) = in_the_way(order);
            Told::new(reason, named)
                .unmet(&name, &unmet)
                .saying(format!("step {name}: {unmet}; {next}"))
        }
    }
}

/// What is in the way of an order: its reason, what it is, and what helps.
fn in_the_way(refusal: &Refusal) -> (ErrorReason, String, &'static str) {
    match refusal {
        Refusal::InProgress { attempt, until } => (
            ErrorReason::StepInProgress,
            format!("attempt {attempt} is in progress, its lease ends at {until}"),
            "cancel it first with CancelStep, or wait for its end",
        ),
        Refusal::Over(ending) => (
            ErrorReason::StepOver,
            format!("it is over: {}", Stage::Over(*ending).name()),
            "RetryStep reopens a step that did not succeed",
        ),
        Refusal::NotHeld(stage) => (
            ErrorReason::StepNotHeld,
            format!("it is not held but {}", stage.name()),
            "there is nothing to answer; RetryStep, SkipStep and FailStep do without a hold",
        ),
        Refusal::AnswerNotAllowed { answer, allowed } => (
            ErrorReason::AnswerNotAllowed,
            format!("its hold does not allow {} but {}", answer.name(), names(allowed)),
            "give one of these answers, or change the policy for the next hold",
        ),
        Refusal::ManualRetriesSpent { max } => (
            ErrorReason::ManualRetriesSpent,
            format!("its hold allows {max} retries by hand, and they are used up"),
            "give another answer, or start its counters again with ResetStep",
        ),
        Refusal::HostUnknown => (
            ErrorReason::HostUnknown,
            "it is not known where its latest attempt ran".to_owned(),
            "answer with RETRY; hosts are known that workers name in BeginAttempt",
        ),
        Refusal::PastBound { at, reason: Reason::Deadline } => (
            ErrorReason::PastBound,
            format!("its deadline passed at {at}"),
            "put it off with ExtendStep first",
        ),
        Refusal::PastBound { reason: Reason::RunOver, .. } => (
            ErrorReason::PastBound,
            "its run is over".to_owned(),
            "have the run tried again first: RetryStep without a step",
        ),
        Refusal::PastBound { reason: Reason::RunRetriesSpent, .. } => (
            ErrorReason::PastBound,
            "the retries of all steps of its run together are spent".to_owned(),
            "raise max_total_retries of the run's policy first",
        ),
        Refusal::PastBound { at, .. } => (
            ErrorReason::PastBound,
            format!("the namespace's max_elapsed_ceiling ended it at {at}"),
            "raise the ceiling with UpdateNamespace first",
        ),
        Refusal::NoDeadline => (
            ErrorReason::NoDeadline,
            "it has no deadline to be put off".to_owned(),
            "leave the deadline out",
        ),
        Refusal::DeadlineNotLater { deadline } => (
            ErrorReason::DeadlineNotLater,
            format!("its deadline is {deadline} already"),
            "give a later one",
        ),
        // The rest is told by `refusal`.
        Refusal::NotPaused
        | Refusal::PauseOver { .. }
        | Refusal::IdentityReused
        | Refusal::UnknownStep
        | Refusal::UnknownRunAttempt { .. }
        | Refusal::AttemptGap { .. } => (
            ErrorReason::StepNotPaused,
            "it is not paused".to_owned(),
            "there is nothing to resume; a pause of a target ends with ResumeTarget",
        ),
    }
}

fn names(answers: &[HoldAnswer]) -> String {
    answers.iter().map(|answer| answer.name()).collect::<Vec<_>>().join(", ")
}

/// There is no such namespace.
#[must_use]
pub fn namespace_not_found(namespace: &str) -> Status {
    Told::new(ErrorReason::NamespaceNotFound, [("namespace", namespace)])
        .about("reprise.v1.Namespace", namespace)
        .saying(format!("there is no namespace {namespace:?}; create it with CreateNamespace, or leave it empty for \"default\""))
}

/// There is no such policy, or not in this revision.
#[must_use]
pub fn policy_not_found(namespace: &str, policy: &str) -> Status {
    Told::new(ErrorReason::PolicyNotFound, [("namespace", namespace), ("policy", policy)])
        .about("reprise.v1.Policy", &format!("{namespace} {policy}"))
        .saying(format!(
            "there is no policy {policy:?} in namespace {namespace:?}, or not in this revision; \
             create it with CreatePolicy, or list what there is with ListPolicies"
        ))
}

/// There is no such target.
#[must_use]
pub fn target_not_found(namespace: &str, target: &str) -> Status {
    Told::new(ErrorReason::TargetNotFound, [("namespace", namespace), ("target", target)])
        .about("reprise.v1.Target", &format!("{namespace} {target}"))
        .saying(format!(
            "there is no target {target:?} in namespace {namespace:?}; \
             create it with CreateTarget, or list what there is with ListTargets"
        ))
}

/// There is a target of this name.
#[must_use]
pub fn target_exists(namespace: &str, target: &str) -> Status {
    Told::new(ErrorReason::TargetExists, [("namespace", namespace), ("target", target)])
        .about("reprise.v1.Target", &format!("{namespace} {target}"))
        .saying(format!(
            "there is a target {target:?} in namespace {namespace:?}; change it with UpdateTarget"
        ))
}

/// There is a namespace of this name.
#[must_use]
pub fn namespace_exists(namespace: &str) -> Status {
    Told::new(ErrorReason::NamespaceExists, [("namespace", namespace)])
        .about("reprise.v1.Namespace", namespace)
        .saying(format!("there is a namespace {namespace:?}; change it with UpdateNamespace"))
}

/// There is a policy of this name.
#[must_use]
pub fn policy_exists(namespace: &str, policy: &str) -> Status {
    Told::new(ErrorReason::PolicyExists, [("namespace", namespace), ("policy", policy)])
        .about("reprise.v1.Policy", &format!("{namespace} {policy}"))
        .saying(format!(
            "there is a policy {policy:?} in namespace {namespace:?}; replace it with UpdatePolicy"
        ))
}

/// Namespace or policy `name` was changed since the caller read its etag.
#[must_use]
pub fn etag_mismatch(name: &str, current: &str) -> Status {
    Told::new(ErrorReason::EtagMismatch, [("resource", name), ("etag", current)]).saying(format!(
        "{name:?} was changed meanwhile; read it again, and repeat the change with its new etag"
    ))
}

/// A namespace that still has steps cannot be deleted.
#[must_use]
pub fn namespace_not_empty(namespace: &str, live_steps: u64) -> Status {
    let description = format!("it has {live_steps} steps that are not over");
    Told::new(ErrorReason::NamespaceNotEmpty, [("namespace", namespace), ("live_steps", &live_steps.to_string())])
        .unmet(namespace, &description)
        .saying(format!("namespace {namespace:?} cannot be deleted: {description} or not yet forgotten; wait until they are"))
}

/// The namespace that always exists cannot be deleted.
#[must_use]
pub fn namespace_protected(namespace: &str) -> Status {
    Told::new(ErrorReason::NamespaceProtected, [("namespace", namespace)])
        .unmet(namespace, "it always exists")
        .saying(format!("namespace {namespace:?} cannot be deleted: it always exists; its settings can be changed with UpdateNamespace"))
}

/// The namespace's bound on steps that are not over is reached.
#[must_use]
pub fn live_steps_quota(namespace: &str, max_live_steps: u64, retry_after: Duration) -> Status {
    let bound = max_live_steps.to_string();
    let description = format!("at most {bound} steps that are not over");
    Told::new(ErrorReason::LiveStepsQuota, [("namespace", namespace), ("max_live_steps", &bound)])
        .exceeding(namespace, &description)
        .retry_after(retry_after)
        .saying(format!(
            "namespace {namespace:?} has {description}, and no room for another; \
             let some end, or raise max_live_steps with UpdateNamespace"
        ))
}

/// There is no room left to keep anything new. What is kept stays, and what
/// ends an attempt is still taken.
#[must_use]
pub fn store_full(retry_after: Option<Duration>) -> Status {
    let told = Told::new(ErrorReason::StoreFull, []).exceeding("store", "no room for new attempts");
    let told = match retry_after {
        Some(delay) => told.retry_after(delay),
        None => told,
    };
    told.saying("the store is full: no new attempts are granted, reports are still taken; give it room, or lower the retention")
}

/// The store does not answer. Whether the call was carried out is unknown;
/// repeating it is safe under the same identity.
#[must_use]
pub fn store_unavailable(retry_after: Duration) -> Status {
    Told::new(ErrorReason::StoreUnavailable, [])
        .retry_after(retry_after)
        .saying("the store does not answer; repeat the call unchanged, which is safe under the same identity")
}

/// The store is there and refuses. Nothing was changed.
#[must_use]
pub fn store_refuses(why: &str, retry_after: Duration) -> Status {
    tracing::warn!(why, "the store refuses");
    Told::new(ErrorReason::StoreRefuses, [("why", why)])
        .retry_after(retry_after)
        .saying(format!("the store refuses, and nothing was done: {why}; repeat the call later"))
}

/// More calls than can be served; this one was not looked at.
#[must_use]
pub fn overloaded(subject: &str, retry_after: Duration) -> Status {
    Told::new(ErrorReason::Overloaded, [("subject", subject)])
        .exceeding(subject, "more calls than can be served")
        .retry_after(retry_after)
        .saying("more calls than can be served; nothing was done, repeat the call later")
}

/// A fault of the server. The cause belongs into the log, once; the caller is
/// told no more than that it is ours.
#[must_use]
pub fn internal() -> Status {
    Told::new(ErrorReason::Internal, []).saying("a fault of the server; its log says more")
}

/// The status as one item of a batch carries it.
#[must_use]
pub fn to_item(status: &Status) -> tonic_types::Status {
    let rich = tonic_types::Status::decode(status.details()).unwrap_or_default();
    tonic_types::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: rich.details,
    }
}

/// How long to wait before the store is asked again, at the least.
const STORE_PAUSE: Duration = Duration::from_millis(500);
/// The same when room has to be made first.
const ROOM_PAUSE: Duration = Duration::from_secs(5);

/// Why an event was not carried out. `inline` is the field of a policy that
/// came with the call.
#[must_use]
pub fn service(error: &ServiceError, key: &StepKey<'_>, inline: &str) -> Status {
    match error {
        ServiceError::Refused(refused) => refusal(refused, *key),
        ServiceError::PolicyUnknown(policy) => policy_not_found(key.namespace, policy),
        ServiceError::PolicyInvalid(violations) => {
            Invalid::of_violations(violations.clone(), inline).into()
        }
        ServiceError::Store(error) => store(error),
        ServiceError::Crowded => overloaded("await_decision", spread(STORE_PAUSE)),
        ServiceError::Contended => overloaded(&key.to_string(), spread(STORE_PAUSE)),
    }
}

/// Why an order of an operator was not carried out; `name` is that of the
/// policy or target, empty when the order was about the namespace itself.
#[must_use]
pub fn admin(error: &AdminError, namespace: &str, name: &str) -> Status {
    match error {
        AdminError::Exists(_) if name.is_empty() => namespace_exists(namespace),
        AdminError::Exists(_) => policy_exists(namespace, name),
        AdminError::PolicyUnknown { policy, .. } => policy_not_found(namespace, policy),
        AdminError::EtagMismatch { current, .. } if name.is_empty() => {
            etag_mismatch(namespace, current)
        }
        AdminError::EtagMismatch { current, .. } => etag_mismatch(name, current),
        AdminError::NamespaceProtected => namespace_protected(namespace),
        AdminError::PolicyIsDefault => policy_is_default(namespace, name),
        AdminError::TargetExists => target_exists(namespace, name),
        AdminError::TargetUnknown(target) => target_not_found(namespace, target),
        AdminError::TargetIsDefault => target_is_default(namespace, name),
        AdminError::TargetInvalid(violations) => {
            Invalid::of_violations(violations.clone(), "target.target").into()
        }
        AdminError::PauseOver { until, now } => {
            let accepted = format!("accepted: an instant after {now}, the store's time");
            Invalid::of("until", until.to_string(), accepted).into()
        }
        AdminError::ForcedTooLong { until, latest } => {
            let accepted = format!("accepted: an instant up to {latest}, seven days from now");
            Invalid::of("until", until.to_string(), accepted).into()
        }
        AdminError::NoBreaker(target) => target_without_breaker(namespace, target),
        AdminError::Invalid(violations) => {
            Invalid::of_violations(violations.clone(), "policy.policy").into()
        }
        AdminError::Store(StoreError::NamespaceNotEmpty { steps }) => {
            namespace_not_empty(namespace, *steps)
        }
        AdminError::Store(error) => store(error),
    }
}

/// Why the store did not do what it was asked. What nobody but its operator can
/// mend is logged here, once.
#[must_use]
pub fn store(error: &StoreError) -> Status {
    match error {
        StoreError::NamespaceUnknown(namespace) => namespace_not_found(namespace),
        StoreError::NamespaceNotEmpty { steps } => namespace_not_empty("", *steps),
        StoreError::QuotaReached { what: "live steps", max } => {
            live_steps_quota("", *max, spread(ROOM_PAUSE))
        }
        StoreError::QuotaReached { what, max } => quota_reached(what, *max),
        StoreError::Full => store_full(Some(spread(ROOM_PAUSE))),
        StoreError::ConfigurationChanged => overloaded("configuration", spread(STORE_PAUSE)),
        StoreError::Unavailable(_) => store_unavailable(spread(STORE_PAUSE)),
        StoreError::Refused(why) => store_refuses(why, spread(STORE_PAUSE)),
        StoreError::Unreadable { .. } | StoreError::Configuration(_) => {
            tracing::error!(error = error as &dyn std::error::Error, "stored data cannot be read");
            internal()
        }
    }
}

/// Between once and twice the pause, so that callers do not return together.
fn spread(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + crate::chance::unit())
}

/// A bound on what a namespace may hold is reached.
#[must_use]
pub fn quota_reached(what: &str, max: u64) -> Status {
    let bound = max.to_string();
    let description = format!("at most {bound} {what}");
    Told::new(ErrorReason::NamespaceQuota, [("what", what), ("max", &bound)])
        .unmet(what, &description)
        .saying(format!("the namespace has {description}, and no room for another; delete some that no step uses"))
}

/// The default policy of a namespace cannot be deleted.
#[must_use]
pub fn policy_is_default(namespace: &str, policy: &str) -> Status {
    Told::new(ErrorReason::PolicyIsDefault, [("namespace", namespace), ("policy", policy)])
        .unmet(policy, "it is the namespace's default")
        .saying(format!("policy {policy:?} is the default of namespace {namespace:?}; choose another default with UpdateNamespace first"))
}

/// The default target of a namespace cannot be deleted.
#[must_use]
pub fn target_is_default(namespace: &str, target: &str) -> Status {
    Told::new(ErrorReason::TargetIsDefault, [("namespace", namespace), ("target", target)])
        .unmet(target, "it is the namespace's default")
        .saying(format!("target {target:?} is the default of namespace {namespace:?}; choose another default with UpdateNamespace first"))
}

/// What has no breaker cannot be forced.
#[must_use]
pub fn target_without_breaker(namespace: &str, target: &str) -> Status {
    Told::new(ErrorReason::TargetHasNoBreaker, [("namespace", namespace), ("target", target)])
        .unmet(target, "it has no breaker")
        .saying(format!("target {target:?} of namespace {namespace:?} has no breaker; give it one with UpdateTarget, or stop its starts with PauseTarget"))
}

/// The answer was of another kind than the call.
#[must_use]
pub fn mismatched() -> Status {
    tracing::error!("an answer was of another kind than the call");
    internal()
}

/// Name of a gRPC code, as metrics have it.
#[must_use]
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::domain::{record::Ending, time::Timestamp};

    const STEP: StepKey<'_> = StepKey { namespace: "n", run: "r", step: "s" };
    const SOON: Duration = Duration::from_millis(500);

    fn every_status() -> Vec<(ErrorReason, Status)> {
        let at = Timestamp::EPOCH;
        let in_progress = Refusal::InProgress { attempt: 2, until: at };
        let not_allowed = Refusal::AnswerNotAllowed {
            answer: HoldAnswer::Skip,
            allowed: vec![HoldAnswer::Retry, HoldAnswer::Fail],
        };
        let spent = Refusal::ManualRetriesSpent { max: 3 };
        let past_bound = Refusal::PastBound { at, reason: Reason::Deadline };
        let not_later = Refusal::DeadlineNotLater { deadline: at };
        vec![
            (ErrorReason::InvalidArgument, Invalid::of("run", "\"a b\"", "accepted: an id").into()),
            (ErrorReason::IdentityReused, refusal(&Refusal::IdentityReused, STEP)),
            (ErrorReason::StepNotFound, refusal(&Refusal::UnknownStep, STEP)),
            (
                ErrorReason::RunNotFound,
                refusal(&Refusal::UnknownStep, StepKey { step: "", ..STEP }),
            ),
            (ErrorReason::AttemptGap, refusal(&Refusal::AttemptGap { next: 4 }, STEP)),
            (
                ErrorReason::RunAttemptUnknown,
                refusal(&Refusal::UnknownRunAttempt { said: 3, begun: 1 }, STEP),
            ),
            (ErrorReason::StepInProgress, refusal(&in_progress, STEP)),
            (ErrorReason::StepOver, refusal(&Refusal::Over(Ending::Succeeded), STEP)),
            (ErrorReason::StepNotHeld, refusal(&Refusal::NotHeld(Stage::Waiting), STEP)),
            (ErrorReason::AnswerNotAllowed, refusal(&not_allowed, STEP)),
            (ErrorReason::ManualRetriesSpent, refusal(&spent, STEP)),
            (ErrorReason::HostUnknown, refusal(&Refusal::HostUnknown, STEP)),
            (ErrorReason::PastBound, refusal(&past_bound, STEP)),
            (ErrorReason::NoDeadline, refusal(&Refusal::NoDeadline, STEP)),
            (ErrorReason::DeadlineNotLater, refusal(&not_later, STEP)),
            (ErrorReason::StepNotPaused, refusal(&Refusal::NotPaused, STEP)),
            (ErrorReason::NamespaceNotFound, namespace_not_found("n")),
            (ErrorReason::PolicyNotFound, policy_not_found("n", "p")),
            (ErrorReason::TargetNotFound, target_not_found("n", "t")),
            (ErrorReason::NamespaceExists, namespace_exists("n")),
            (ErrorReason::PolicyExists, policy_exists("n", "p")),
            (ErrorReason::TargetExists, target_exists("n", "t")),
            (ErrorReason::EtagMismatch, etag_mismatch("n", "7")),
            (ErrorReason::NamespaceNotEmpty, namespace_not_empty("n", 3)),
            (ErrorReason::NamespaceProtected, namespace_protected("default")),
            (ErrorReason::LiveStepsQuota, live_steps_quota("n", 100, SOON)),
            (ErrorReason::NamespaceQuota, quota_reached("policies", 1000)),
            (ErrorReason::PolicyIsDefault, policy_is_default("n", "p")),
            (ErrorReason::TargetIsDefault, target_is_default("n", "t")),
            (ErrorReason::TargetHasNoBreaker, target_without_breaker("n", "t")),
            (ErrorReason::StoreFull, store_full(Some(SOON))),
            (ErrorReason::StoreUnavailable, store_unavailable(SOON)),
            (ErrorReason::StoreRefuses, store_refuses("it is reading its data", SOON)),
            (ErrorReason::Overloaded, overloaded("server", SOON)),
            (ErrorReason::Internal, internal()),
        ]
    }

    #[test]
    fn every_error_says_who_and_why_once() {
        let statuses = every_status();
        let reasons: HashSet<ErrorReason> = statuses.iter().map(|(reason, _)| *reason).collect();
        assert_eq!(reasons.len(), ErrorReason::ALL.len());
        for (reason, status) in statuses {
            assert_eq!(status.code(), reason.code());
            let infos: Vec<_> = status
                .get_error_details_vec()
                .into_iter()
                .filter_map(|detail| match detail {
                    tonic_types::ErrorDetail::ErrorInfo(info) => Some(info),
                    _ => None,
                })
                .collect();
            let [info] = infos.as_slice() else { panic!("{reason:?}: {infos:?}") };
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.name(), DOMAIN));
            assert!(reason.name().bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'));
        }
    }

    #[test]
    fn what_may_pass_says_when_to_try_again() {
        for (reason, status) in every_status() {
            let waits = matches!(reason.code(), Code::Unavailable | Code::ResourceExhausted);
            let delay = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
            assert_eq!(delay, waits.then_some(SOON), "{reason:?}");
        }
        assert!(store_full(None).get_error_details().retry_info().is_none());
    }

    #[test]
    fn details_fit_the_code() {
        for (reason, status) in every_status() {
            let details = status.get_error_details();
            assert_eq!(
                details.bad_request().is_some(),
                reason.code() == Code::InvalidArgument,
                "{reason:?}"
            );
            assert_eq!(
                details.precondition_failure().is_some(),
                reason.code() == Code::FailedPrecondition,
                "{reason:?}"
            );
            assert_eq!(
                details.quota_failure().is_some(),
                reason.code() == Code::ResourceExhausted,
                "{reason:?}"
            );
            assert!(
                details.resource_info().is_some() || reason.code() != Code::NotFound,
                "{reason:?}"
            );
        }
        let gap = refusal(&Refusal::AttemptGap { next: 4 }, STEP).get_error_details();
        assert_eq!(gap.error_info().unwrap().metadata["next"], "4");
    }

    #[test]
    fn a_status_fits_into_trailers_however_much_is_wrong() {
        let long = "ä".repeat(5000);
        let violation = || Violation {
            field: "a.rather[17].deep.path".into(),
            value: super::super::convert::check::shown(&long),
            problem: long.clone(),
        };
        let violations = crate::domain::policy::Violations(
            std::iter::repeat_with(violation).take(500).collect(),
        );
        let status = Status::from(Invalid::of_violations(violations, "inline_policy"));
        // In base64 the details, percent-encoded the message.
        let bytes = status.details().len() * 4 / 3 + status.message().len() * 3;
        assert!(bytes < 8 * 1024, "{bytes}");
    }

    #[test]
    fn an_item_of_a_batch_carries_the_same() {
        for (_, status) in every_status() {
            let item = to_item(&status);
            assert_eq!(
                (item.code, item.message.as_str()),
                (i32::from(status.code()), status.message())
            );
            assert!(!item.details.is_empty());
        }
        assert_eq!(to_item(&Status::not_found("x")).code, 5);
    }
}

//! Errors as a person reads them: what could not be done, which field or value
//! stood in the way, what would be accepted, and what to do next.

use std::{fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{exit::Exit, text};

/// Why a command could not do what it was asked.
#[derive(Debug)]
pub struct CliError {
    /// How the program ends.
    pub exit: Exit,
    /// What could not be done, in one line.
    message: String,
    /// Fields and values that stood in the way, a line each.
    details: Vec<String>,
    /// What to do about it.
    next: Option<String>,
}

impl CliError {
    /// An error in one line.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), details: Vec::new(), next: None }
    }

    /// A wrong command line, or a wrong file that it names.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Adds a line about a field or value.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.details.push(detail.into());
        self
    }

    /// Says what to do about it.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The same, with another exit code.
    pub fn ending(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// Reads the error of a call; `doing` completes "could not …".
    pub fn of_call(doing: &str, status: &Status) -> Self {
        let details = details_of(status);
        let headline = match headline(status) {
            // Told field by field below, and once is enough.
            told if details.iter().any(|line| told.contains(line)) => "it was refused".to_owned(),
            told => told,
        };
        let reason = reason(status).map(|reason| format!(" ({reason})"));
        Self {
            exit: exit_of(status),
            message: format!("could not {doing}: {headline}{}", reason.unwrap_or_default()),
            details,
            next: next_step(status),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for detail in &self.details {
            write!(f, "\n  {detail}")?;
        }
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CliError {}

/// Whether nobody answered, as opposed to a service that answered with a
/// refusal. An error with a source was made on this side of the wire.
pub fn unanswered(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// Whether the same call may succeed later.
pub fn may_pass(status: &Status) -> bool {
    let passing = matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted
    );
    passing || unanswered(status) || asked_delay(status).is_some()
}

/// How long the service asked us to wait before the call is repeated.
pub fn asked_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// The cause in one line: the innermost error for a connection that failed,
/// the service's own words otherwise.
pub fn headline(status: &Status) -> String {
    let mut innermost = std::error::Error::source(status);
    while let Some(deeper) = innermost.and_then(std::error::Error::source) {
        innermost = Some(deeper);
    }
    match innermost {
        Some(cause) => cause.to_string(),
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    }
}

fn exit_of(status: &Status) -> Exit {
    match status.code() {
        _ if unanswered(status) => Exit::Unavailable,
        Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => Exit::Permission,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Exit::Conflict,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => Exit::Unavailable,
        _ => Exit::Failed,
    }
}

fn details_of(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let mut lines = Vec::new();
    if let Some(request) = details.bad_request() {
        lines.extend(request.field_violations.iter().map(|v| about(&v.field, &v.description)));
    }
    if let Some(condition) = details.precondition_failure() {
        lines.extend(condition.violations.iter().map(|v| about(&v.subject, &v.description)));
    }
    if let Some(quota) = details.quota_failure() {
        lines.extend(quota.violations.iter().map(|v| about(&v.subject, &v.description)));
    }
    lines
}

fn about(subject: &str, description: &str) -> String {
    match subject {
        "" => description.to_owned(),
        _ => format!("{subject}: {description}"),
    }
}

/// The service's own name for what is wrong.
fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

fn next_step(status: &Status) -> Option<String> {
    if unanswered(status) {
        return Some("`reprise doctor` looks for the reason".to_owned());
    }
    if let Some(delay) = asked_delay(status) {
        return Some(format!("try again in {}", text::duration(delay)));
    }
    let step = match status.code() {
        Code::NotFound => return reason(status).as_deref().and_then(where_to_look).map(Into::into),
        Code::InvalidArgument | Code::OutOfRange => "correct the value and try again",
        Code::Aborted => "it has changed since it was read; read it again and retry",
        Code::Unauthenticated | Code::PermissionDenied => {
            "ask whoever runs the service, or use another --addr or --namespace"
        }
        Code::Unavailable | Code::DeadlineExceeded => "`reprise doctor` looks for the reason",
        Code::Unimplemented => "client and server differ in version; `reprise doctor` shows both",
        _ => return None,
    };
    Some(step.to_owned())
}

/// Where a person sees what there is, when something is not there.
fn where_to_look(reason: &str) -> Option<&'static str> {
    match reason {
        "NAMESPACE_NOT_FOUND" => Some("`reprise namespace list` shows what there is"),
        "POLICY_NOT_FOUND" => Some("`reprise policy list` shows what there is"),
        "STEP_NOT_FOUND" => Some("check run, step and --namespace; steps are forgotten in time"),
        _ => None,
    }
}

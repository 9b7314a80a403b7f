//! How failures of the systems are reported to Reprise.

use super::{
    stage::seconds,
    vector::{Failed, Vector},
};
use crate::{
    dialect::System,
    domain::failure::{Failure, FailureClass, Wish},
};

/// The failure as a worker of that system would report it.
pub fn failure(system: System, vector: &Vector, failed: &Failed) -> Failure {
    let class = class(system, vector, failed);
    let reported = Failure {
        error_type: error_type(system, &failed.class),
        exit_code: failed.exit_code,
        message: failed.message.clone(),
        host: failed.host.clone(),
        duration: failed.duration_s.map(seconds),
        action: failed.action.clone(),
        retryable: failed.allow_retries.unwrap_or(true),
        ..Failure::of(class)
    };
    match system {
        System::Dagster => dagster(reported, failed),
        _ => reported,
    }
}

/// What it was, in the words of Reprise.
fn class(system: System, vector: &Vector, failed: &Failed) -> FailureClass {
    let name = failed.class.to_lowercase();
    let is = |part: &str| name.contains(part);
    match system {
        System::Argo if vector.config("workflow_shutdown").is_some() => FailureClass::Canceled,
        System::Argo if is("error") => FailureClass::Error,
        System::Argo => FailureClass::Failure,
        _ if is("interrupt") || is("cancel") || is("runstopped") => FailureClass::Canceled,
        _ if is("crash") || is("unhealthy") || is("killed") => FailureClass::Crash,
        _ if is("timeout") => FailureClass::Timeout,
        _ if is("disruption") => FailureClass::Error,
        _ if is("connectionlost") => FailureClass::Transient,
        _ => FailureClass::Failure,
    }
}

/// The type of the error as the system's own code names it.
fn error_type(system: System, class: &str) -> String {
    match system {
        System::Argo | System::Octopus => String::new(),
        System::Dagster if class.contains("Resource") => "DagsterResourceFunctionError".to_owned(),
        _ => class.to_owned(),
    }
}

/// `RetryRequested` brings its own number and wait; a launch is an action.
fn dagster(failure: Failure, failed: &Failed) -> Failure {
    let requested = failed.class == "RetryRequested";
    let wish = Wish {
        max_retries: Some(failed.max_retries.unwrap_or(1)),
        delay: Some(seconds(failed.seconds_to_wait.unwrap_or(0.0).max(0.0))),
    };
    let action = match failed.launch_error {
        Some(_) => "launch".to_owned(),
        None => failure.action,
    };
    Failure { wish: requested.then_some(wish), action, ..failure }
}

//! What a failed command is reported as.

use std::{collections::BTreeMap, str::FromStr};

use super::{
    child::End,
    signals,
    supervise::{Cut, Ended},
};
use crate::{
    cli::{connect, text},
    proto::{Failure, FailureClass},
};

/// Exit codes of a command that is missing or cannot be run: the same line
/// would fail the same way again.
const CANNOT_RUN: [i32; 2] = [126, 127];

/// `CODE=CLASS`: what an exit code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassOf {
    code: i32,
    class: FailureClass,
}

impl FromStr for ClassOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let accepted =
            || format!("accepted is CODE=CLASS with a code of 1 to 255 and one of {CLASSES}");
        let (code, class) = text.split_once('=').ok_or_else(accepted)?;
        let code: u8 = code.trim().parse().map_err(|_| accepted())?;
        let class = class_named(class.trim()).ok_or_else(accepted)?;
        match code {
            0 => Err(accepted()),
            _ => Ok(Self { code: code.into(), class }),
        }
    }
}

/// The names of the classes that a person may give.
pub const CLASSES: &str = "FAILURE, ERROR, TRANSIENT, TIMEOUT, THROTTLED, CRASH or CANCELED";

/// The class of a name such as `TRANSIENT`, in any case.
pub fn class_named(name: &str) -> Option<FailureClass> {
    let class = FailureClass::from_str_name(&format!("FAILURE_CLASS_{}", name.to_uppercase()))?;
    (class != FailureClass::Unspecified).then_some(class)
}

/// Reads how commands ended.
#[derive(Debug, Default)]
pub struct Classes(BTreeMap<i32, FailureClass>);

impl Classes {
    /// With what the caller knows about its command's exit codes.
    pub fn new(given: &[ClassOf]) -> Self {
        Self(given.iter().map(|of| (of.code, of.class)).collect())
    }

    /// What a command that did not succeed is reported as.
    pub fn failure(&self, ended: &Ended) -> Failure {
        let (exit_code, signal) = match ended.end {
            End::Exited(code) => (Some(code), None),
            End::NotStarted { code, .. } => (Some(code), None),
            End::Signalled(signal) => (None, u32::try_from(signal).ok()),
        };
        Failure {
            class: self.class(ended).into(),
            exit_code,
            signal,
            message: message(ended),
            duration: Some(text::to_proto_duration(ended.ran)),
            retryable: self.pointless(ended).then_some(false),
            action: ended.action.clone(),
            ..Failure::default()
        }
    }

    /// A person or the service cancels; whoever else ends a command, be it an
    /// eviction or the kernel short of memory, is the platform.
    fn class(&self, ended: &Ended) -> FailureClass {
        match (ended.cut, ended.told, &ended.end) {
            (Some(Cut::TimedOut), ..) => FailureClass::Timeout,
            (Some(Cut::Canceled), ..) => FailureClass::Canceled,
            (Some(Cut::LeaseLost), ..) => FailureClass::Error,
            (_, Some(told), _) if signals::cancels(told) => FailureClass::Canceled,
            (_, Some(_), _) | (_, _, End::Signalled(_)) => FailureClass::Error,
            (.., End::Exited(code) | End::NotStarted { code, .. }) => {
                self.0.get(code).copied().unwrap_or(FailureClass::Failure)
            }
        }
    }

    fn pointless(&self, ended: &Ended) -> bool {
        let by_itself = ended.cut.is_none() && ended.told.is_none();
        match ended.end {
            End::Exited(code) | End::NotStarted { code, .. } => {
                by_itself && CANNOT_RUN.contains(&code) && !self.0.contains_key(&code)
            }
            End::Signalled(_) => false,
        }
    }
}

fn message(ended: &Ended) -> String {
    match &ended.end {
        End::NotStarted { cause, .. } => cause.clone(),
        _ => ended.stderr.clone(),
    }
}

/// How a command ended, in a few words: `exit code 1`, `SIGKILL`.
pub fn in_words(ended: &Ended) -> String {
    let end = match &ended.end {
        End::Exited(code) => format!("exit code {code}"),
        End::Signalled(signal) => signals::name(*signal),
        End::NotStarted { cause, .. } => cause.clone(),
    };
    match ended.cut {
        Some(Cut::TimedOut) => format!("timed out, {end}"),
        Some(Cut::Canceled) => format!("canceled, {end}"),
        Some(Cut::LeaseLost) => format!("lease lost, {end}"),
        None => end,
    }
}

/// Where an attempt runs: the host, and on it our process.
pub struct Place {
    /// The host's name.
    pub host: String,
    /// Host and process id.
    pub worker: String,
}

impl Place {
    /// This process.
    pub fn here() -> Self {
        let host = connect::hostname();
        let worker = format!("{host}:{}", std::process::id());
        Self { host, worker }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::Signal;

    use super::*;

    fn ended(end: End) -> Ended {
        Ended { ran: Duration::from_secs(1), ..Ended::not_started(end) }
    }

    fn class(ended: &Ended) -> FailureClass {
        Classes::default().failure(ended).class()
    }

    #[test]
    fn a_command_that_exits_failed_by_itself() {
        let failure = Classes::default().failure(&ended(End::Exited(3)));
        assert_eq!(failure.class(), FailureClass::Failure);
        assert_eq!((failure.exit_code, failure.signal, failure.retryable), (Some(3), None, None));
    }

    #[test]
    fn whoever_ended_it_decides_the_class() {
        let killed = || ended(End::Signalled(9));
        assert_eq!(class(&killed()), FailureClass::Error);
        let told = |signal| class(&Ended { told: Some(signal), ..killed() });
        assert_eq!(told(Signal::INT), FailureClass::Canceled);
        assert_eq!(told(Signal::TERM), FailureClass::Error);
        let cut = |cut| class(&Ended { cut: Some(cut), ..killed() });
        assert_eq!(cut(Cut::TimedOut), FailureClass::Timeout);
        assert_eq!(cut(Cut::Canceled), FailureClass::Canceled);
        assert_eq!(cut(Cut::LeaseLost), FailureClass::Error);
    }

    #[test]
    fn a_missing_command_is_not_worth_another_try_unless_its_code_means_something() {
        let missing = ended(End::Exited(127));
        assert_eq!(Classes::default().failure(&missing).retryable, Some(false));
        let known = Classes::new(&["127=transient".parse().unwrap()]).failure(&missing);
        assert_eq!((known.class(), known.retryable), (FailureClass::Transient, None));
    }

    #[test]
    fn a_wrong_class_of_a_code_is_refused_with_what_is_accepted() {
        for wrong in ["", "1", "0=ERROR", "256=ERROR", "1=", "1=UNSPECIFIED", "x=ERROR"] {
            assert!(wrong.parse::<ClassOf>().unwrap_err().contains("TRANSIENT"), "{wrong}");
        }
    }

    #[test]
    fn a_command_that_we_ended_never_leaves_with_zero() {
        let cut = |cut| Ended { cut: Some(cut), ..ended(End::Exited(0)) };
        assert!(!cut(Cut::TimedOut).succeeded());
        assert_eq!(cut(Cut::TimedOut).exit_code(), 124);
        assert_eq!(cut(Cut::Canceled).exit_code(), 130);
        assert_eq!(ended(End::Signalled(15)).exit_code(), 143);
    }
}

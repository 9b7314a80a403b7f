//! What a worker can tell about a failed attempt.

use std::time::Duration;

use super::time::Timestamp;

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureClass {
    /// The work itself failed.
    Failure,
    /// The platform failed the work.
    Error,
    /// A passing fault of something the work depends on.
    Transient,
    /// It took too long.
    Timeout,
    /// The target asked for less.
    Throttled,
    /// The worker vanished.
    Crash,
    /// Somebody stopped it.
    Canceled,
}

impl FailureClass {
    /// Every class, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Failure,
        Self::Error,
        Self::Transient,
        Self::Timeout,
        Self::Throttled,
        Self::Crash,
        Self::Canceled,
    ];

    /// The name that conditions, policies and people use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failure => "FAILURE",
            Self::Error => "ERROR",
            Self::Transient => "TRANSIENT",
            Self::Timeout => "TIMEOUT",
            Self::Throttled => "THROTTLED",
            Self::Crash => "CRASH",
            Self::Canceled => "CANCELED",
        }
    }

    /// The class of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

/// The code that a target answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// A gRPC status code, 1 to 16.
    Grpc(u8),
    /// An HTTP status, 100 to 599.
    Http(u16),
}

/// gRPC status codes by number.
const GRPC_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl Code {
    /// The gRPC code of this name, such as `UNAVAILABLE`.
    #[must_use]
    pub fn from_grpc_name(name: &str) -> Option<Self> {
        GRPC_NAMES
            .iter()
            .skip(1)
            .position(|known| *known == name)
            .and_then(|at| u8::try_from(at + 1).ok())
            .map(Self::Grpc)
    }

    /// The name of a gRPC code, the digits of an HTTP status.
    #[must_use]
    pub fn name(self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::Grpc(code) => {
                GRPC_NAMES.get(usize::from(code)).copied().unwrap_or("UNKNOWN").into()
            }
            Self::Http(status) => status.to_string().into(),
        }
    }
}

/// "Not before", as said by the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Not sooner than this after the failure.
    After(Duration),
    /// Not before this instant.
    Until(Timestamp),
    /// Never again.
    Never,
}

/// What the worker itself asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Retries at most, judged for this failure only. None leaves the policy's.
    pub max_retries: Option<u32>,
    /// Exact wait before the next attempt. None leaves the policy's backoff.
    pub delay: Option<Duration>,
}

/// Whether the work took effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Executed {
    /// It surely did not.
    No,
    /// Nobody knows.
    #[default]
    Maybe,
    /// It surely did, at least in part.
    Yes,
}

impl Executed {
    /// The name that conditions use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::No => "NO",
            Self::Maybe => "MAYBE",
            Self::Yes => "YES",
        }
    }
}

/// How a failed attempt is to be read. Everything but the class may be unknown:
/// texts are then empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What kind of failure.
    pub class: FailureClass,
    /// Type of the error.
    pub error_type: String,
    /// The code that the target answered with.
    pub code: Option<Code>,
    /// Exit code of the process.
    pub exit_code: Option<i32>,
    /// Signal that ended the process, 1 to 64.
    pub signal: Option<u8>,
    /// What went wrong, at most 4096 bytes.
    pub message: String,
    /// Fingerprint of the cause.
    pub cause: String,
    /// Host on which the attempt ran; empty means the one it began on.
    pub host: String,
    /// Worker that ran the attempt; empty means the one that began it.
    pub worker: String,
    /// How long the attempt ran. None means since it began.
    pub duration: Option<Duration>,
    /// The target at fault.
    pub target: String,
    /// What the target asked for.
    pub pushback: Option<Pushback>,
    /// What the worker asks for.
    pub wish: Option<Wish>,
    /// False when another try is pointless.
    pub retryable: bool,
    /// Whether the work took effect.
    pub executed: Executed,
    /// The action inside the step that failed.
    pub action: String,
    /// Of a run: whether it failed because one of its steps did.
    pub of_step: bool,
}

impl Failure {
    /// A failure of which only the class is known.
    #[must_use]
    pub const fn of(class: FailureClass) -> Self {
        Self {
            class,
            error_type: String::new(),
            code: None,
            exit_code: None,
            signal: None,
            message: String::new(),
            cause: String::new(),
            host: String::new(),
            worker: String::new(),
            duration: None,
            target: String::new(),
            pushback: None,
            wish: None,
            retryable: true,
            executed: Executed::Maybe,
            action: String::new(),
            of_step: false,
        }
    }
}

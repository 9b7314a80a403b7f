//! What Redis says when it does not do what it was asked, told apart.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::{super::StoreError, wire::Pause};

/// Why a command has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no connection, or it broke, or no answer came in time: whether
    /// anything was done is not known.
    Away(String),
    /// It was refused and nothing was done: this server does not take writes, or
    /// not over this connection.
    Elsewhere(&'static str),
    /// It was refused and nothing was done, for a reason that passes.
    Refused(&'static str),
    /// It was refused and nothing was done: the namespace is paused.
    Paused(Pause),
    /// It was refused and nothing was done: there is no memory left.
    Full,
    /// The server does not know the script.
    UnknownScript,
    /// It was refused, and will be again.
    Wrong(String),
}

impl Fault {
    /// Whether another connection may do better.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        match self {
            Self::Away(_) => !planted!("redis-silence-not-noticed"),
            Self::Elsewhere(_) => !planted!("redis-replica-not-left"),
            _ => false,
        }
    }
}

/// What is wrong, and what to do about it where that is known.
#[must_use]
pub fn told(error: &RedisError) -> String {
    let said = error.to_string();
    match remedy(error, &said) {
        Some(remedy) => format!("{said}; {remedy}"),
        None => said,
    }
}

fn remedy(error: &RedisError, said: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    match (error.kind(), error.code()) {
        (_, Some("NOPERM")) => {
            Some("`reprise store acl` prints the rules that its user has to be given")
        }
        (_, Some("NOAUTH")) => {
            Some("it asks for a password: name a file that holds it with ?password_file=PATH")
        }
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS")) => Some(
            "check the user in USER@HOST, \"default\" where none is named, and the file of password_file",
        ),
        _ if says(&["NotValidForName", "not valid for name"]) => {
            Some("its certificate is for another name: use one that it is for")
        }
        _ if says(&["UnknownIssuer", "BadSignature", "invalid peer certificate"]) => {
            Some("name the file with the authority that signed its certificate with ?ca_file=PATH")
        }
        _ if says(&["CertificateRequired", "HandshakeFailure", "UnknownCA"]) => {
            Some("it asks for a certificate that it trusts: name one with cert_file and key_file")
        }
        _ => None,
    }
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        let kind = error.kind();
        match (kind, error.code()) {
            (ErrorKind::Server(ServerErrorKind::NoScript), _) => Self::UnknownScript,
            (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
                Self::Elsewhere("it is a replica (READONLY)")
            }
            (ErrorKind::Server(ServerErrorKind::MasterDown), _) => {
                Self::Elsewhere("it is a replica without its primary (MASTERDOWN)")
            }
            (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => {
                Self::Elsewhere("it is reading its data from disk (LOADING)")
            }
            (ErrorKind::Server(ServerErrorKind::ClusterDown), _) => {
                Self::Refused("its cluster is not whole (CLUSTERDOWN)")
            }
            (ErrorKind::Server(ServerErrorKind::TryAgain), _) => {
                Self::Refused("the namespace is being moved between nodes (TRYAGAIN)")
            }
            (ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask), _) => {
                Self::Refused("the namespace has been moved to another node")
            }
            (_, Some("NOAUTH")) => Self::Elsewhere("it wants a password (NOAUTH)"),
            // In the words of Redis 7.0.
            _ if error.detail().is_some_and(|detail| detail.contains("readonly replica")) => {
                Self::Elsewhere("it is a replica")
            }
            (_, Some("OOM")) => Self::Full,
            (_, Some("BUSY")) => Self::Refused("another script keeps it busy (BUSY)"),
            (_, Some("MISCONF")) => {
                Self::Refused("it cannot save its data to disk and takes no writes (MISCONF)")
            }
            (_, Some("NOREPLICAS")) => {
                Self::Refused("it has fewer replicas in step than it wants (NOREPLICAS)")
            }
            (ErrorKind::Server(_) | ErrorKind::Extension, _) => Self::Wrong(told(&error)),
            (ErrorKind::AuthenticationFailed, _) => Self::Wrong(told(&error)),
            _ => Self::Away(error.to_string()),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full => Self::Full,
            Fault::Away(why) => Self::Unavailable(why),
            Fault::Elsewhere(why) | Fault::Refused(why) => Self::Refused(why.to_owned()),
            Fault::Paused(pause) => Self::Refused(pause.to_string()),
            Fault::UnknownScript => Self::Refused("it forgets its scripts".to_owned()),
            Fault::Wrong(why) => Self::Refused(why),
        }
    }
}

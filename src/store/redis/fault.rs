//! What Redis says when it does not do what it was asked, told apart.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::{super::StoreError, wire::Pause};

/// Why a command has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no connection, or it broke, or no answer came in time: whether
    /// anything was done is not known.
    Away(String),
    /// It was refused and nothing was done: no server in this place takes writes.
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
    pub const fn ends_connection(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Elsewhere(_))
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
                Self::Refused("it is reading its data from disk (LOADING)")
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
            (_, Some("OOM")) => Self::Full,
            (_, Some("BUSY")) => Self::Refused("another script keeps it busy (BUSY)"),
            (_, Some("MISCONF")) => {
                Self::Refused("it cannot save its data to disk and takes no writes (MISCONF)")
            }
            (_, Some("NOREPLICAS")) => {
                Self::Refused("it has fewer replicas in step than it wants (NOREPLICAS)")
            }
            (ErrorKind::Server(_) | ErrorKind::Extension, _) => Self::Wrong(error.to_string()),
            (ErrorKind::AuthenticationFailed, _) => Self::Wrong(error.to_string()),
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

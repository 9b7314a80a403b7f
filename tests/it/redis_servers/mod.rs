//! Real servers of the Redis family, started for one test and gone with it:
//! alone, under Sentinel, as a Cluster, and behind a proxy that breaks things.
//!
//! Nothing here waits for time. Whoever starts, kills or moves something gets
//! back control when the servers themselves say that it has happened.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{sleep, timeout};

mod node;
mod address;
mod certificates;
mod standalone;
mod sentinel;
mod cluster;
mod proxy;
mod tests;

pub use self::{
    cluster::Cluster,
    proxy::{Fault, Proxy},
    sentinel::SentinelSet,
    standalone::{Access, Aof, Link, Options, Standalone},
};

/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which server, in the versions that `make unit` brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The oldest that is supported, and the only one here with TLS.
    Redis70,
    Redis82,
    Valkey81,
    Valkey91,
}

impl Kind {
    /// All of them, for what has to hold everywhere.
    pub const ALL: [Self; 4] = [Self::Redis70, Self::Redis82, Self::Valkey81, Self::Valkey91];

    /// The folder that `tests/servers` puts it into.
    const fn name(self) -> &'static str {
        match self {
            Self::Redis70 => "redis-7.0",
            Self::Redis82 => "redis-8.2",
            Self::Valkey81 => "valkey-8.1",
            Self::Valkey91 => "valkey-9.1",
        }
    }

    /// Its binary. A server that is not there fails the test: what is skipped
    /// is not tested.
    pub fn binary(self) -> PathBuf {
        let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/servers");
        let binary = servers.join(self.name()).join("redis-server");
        assert!(binary.exists(), "{self} is not there; `make .tools/servers/stamp` brings it");
        binary
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Asks until the answer is `Some`, and gives up on the test when it never is.
pub async fn until<T, A>(what: &str, mut answer: impl FnMut() -> A) -> T
where
    A: Future<Output = Option<T>>,
{
    let asking = async {
        loop {
            if let Some(answer) = answer().await {
                return answer;
            }
            // Between two questions, not instead of them.
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

//! The connection to Redis, kept up.
//!
//! One multiplexed connection carries everything. A task of its own makes it,
//! notices when it is no good any more and makes another, with full jitter, so
//! that many instances do not come back at once. Calls never wait for it: while
//! there is no connection they are told so. A cluster's connections are kept by
//! the client library.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use redis::{
    AsyncConnectionConfig, Client, Cmd, RedisError, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
    cluster_async::ClusterConnection,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    address::{Address, Host, Topology},
    commands::ROLE,
    fault::{Fault, told},
};

/// Waits between tries to connect: full jitter below this, doubled up to the
/// second one, so that what comes back is found within a second.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(800);

/// The connection, or the lack of one.
pub struct Link {
    shared: Arc<Shared>,
    _ends: DropGuard,
}

struct Shared {
    address: Address,
    timeout: Duration,
    /// A number in [0, 1).
    chance: fn() -> f64,
    live: ArcSwapOption<Live>,
    broken: Notify,
    up: watch::Sender<Result<(), String>>,
}

struct Live {
    connection: Connection,
}

#[derive(Clone)]
enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// Begins to connect, and goes on until dropped.
    #[must_use]
    pub fn new(address: Address, timeout: Duration, chance: fn() -> f64) -> Self {
        let ended = CancellationToken::new();
        let shared = Arc::new(Shared {
            address,
            timeout,
            chance,
            live: ArcSwapOption::empty(),
            broken: Notify::new(),
            up: watch::Sender::new(Err("not connected yet".to_owned())),
        });
        let keeping = Arc::clone(&shared);
        let until = ended.clone();
        tokio::spawn(async move { until.run_until_cancelled(keeping.keep()).await });
        Self { shared, _ends: ended.drop_guard() }
    }

    /// Whether there is a connection, and if not, why.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Result<(), String>> {
        self.shared.up.subscribe()
    }

    /// How long a command may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.shared.timeout
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.shared.address
    }

    /// Sends a command and waits for its result.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn send(&self, command: &Cmd) -> Result<Value, Fault> {
        let Some(live) = self.shared.live.load_full() else {
            let why = self.shared.up.borrow().clone().err();
            return Err(Fault::Away(why.unwrap_or_else(|| "it was just lost".to_owned())));
        };
        let sent = match live.connection.clone() {
            Connection::Server(mut connection) => connection.req_packed_command(command).await,
            Connection::Cluster(mut connection) => connection.req_packed_command(command).await,
        };
        let fault = match sent.and_then(Value::extract_error) {
            Ok(value) => return Ok(value),
            Err(error) => Fault::from(error),
        };
        let is_server = matches!(live.connection, Connection::Server(_));
        if fault.ends_connection() && is_server {
            self.shared.lose(&live, &fault);
        }
        Err(fault)
    }
}

impl Shared {
    /// Gives a connection up, unless that was done already.
    fn lose(&self, live: &Arc<Live>, fault: &Fault) {
        let before = self.live.compare_and_swap(live, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, live)) {
            let why = match fault {
                Fault::Elsewhere(why) => (*why).to_owned(),
                Fault::Away(why) => why.clone(),
                other => format!("{other:?}"),
            };
            tracing::warn!(address = %self.address, why, "the connection to Redis was given up");
            let _ = self.up.send_replace(Err(why));
            self.broken.notify_one();
        }
    }

    async fn keep(&self) {
        let mut failures = 0;
        loop {
            match tokio::time::timeout(self.timeout * 2, self.connect()).await {
                Ok(Ok(connection)) => {
                    failures = 0;
                    let live = Arc::new(Live { connection });
                    self.live.store(Some(Arc::clone(&live)));
                    let _ = self.up.send_replace(Ok(()));
                    tracing::info!(address = %self.address, "connected to Redis");
                    tokio::select! {
                        () = self.broken.notified() => {}
                        why = self.demoted() => self.lose(&live, &Fault::Elsewhere(why)),
                    }
                }
                Ok(Err(error)) => self.failed(&told(&error), &mut failures).await,
                Err(_) => self.failed("no connection was made in time", &mut failures).await,
            }
        }
    }

    async fn failed(&self, why: &str, failures: &mut u32) {
        if *failures == 0 {
            tracing::warn!(address = %self.address, why, "Redis cannot be reached");
        }
        let _ = self.up.send_replace(Err(why.to_owned()));
        let longest = FIRST_WAIT.saturating_mul(1 << (*failures).min(8)).min(LONGEST_WAIT);
        *failures += 1;
        tokio::time::sleep(longest.mul_f64((self.chance)())).await;
    }

    async fn connect(&self) -> Result<Connection, RedisError> {
        match self.address.topology() {
            Topology::Server(host) => self.connect_to(self.address.server(host)?).await,
            Topology::Socket(path) => self.connect_to(self.address.socket(path)?).await,
            Topology::Sentinel { sentinels, primary } => {
                let host = self.primary(sentinels, primary).await?;
                self.connect_to(self.address.server(&host)?).await
            }
            Topology::Cluster(nodes) => {
                let client = self.address.cluster(nodes, self.timeout)?;
                Ok(Connection::Cluster(client.get_async_connection().await?))
            }
        }
    }

    /// A connection to a server that takes writes.
    async fn connect_to(&self, client: Client) -> Result<Connection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let role: Vec<Value> = ROLE.cmd().query_async(&mut connection).await?;
        match role.first() {
            Some(Value::BulkString(role)) if role == b"master" => {
                Ok(Connection::Server(connection))
            }
            _ => Err(wrong("the server is a replica, not a primary")),
        }
    }

    /// The primary, by the first sentinel that knows it.
    async fn primary(&self, sentinels: &[Host], name: &str) -> Result<Host, RedisError> {
        let mut last = wrong("no sentinel answered");
        for sentinel in sentinels {
            match self.ask(sentinel, name).await {
                Ok(host) => return Ok(host),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask(&self, sentinel: &Host, name: &str) -> Result<Host, RedisError> {
        let client = self.address.sentinel(sentinel)?;
        let patience = self.timeout.min(Duration::from_millis(500));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(Some(patience));
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let answer: Option<(String, u16)> = redis::cmd("SENTINEL")
            .arg("get-master-addr-by-name")
            .arg(name)
            .query_async(&mut connection)
            .await?;
        let (name, port) = answer.ok_or_else(|| wrong("the sentinels know no such primary"))?;
        Ok(Host { name, port })
    }

    /// Resolves when a sentinel says that another server is the primary now.
    async fn demoted(&self) -> &'static str {
        let Topology::Sentinel { sentinels, primary } = self.address.topology() else {
            return std::future::pending().await;
        };
        loop {
            for sentinel in sentinels {
                if self.told(sentinel, primary).await.unwrap_or(false) {
                    return "the sentinels chose another primary";
                }
            }
            tokio::time::sleep(LONGEST_WAIT.mul_f64((self.chance)())).await;
        }
    }

    /// Listens to one sentinel. Whether it told of another primary; it may also
    /// just go away.
    async fn told(&self, sentinel: &Host, name: &str) -> Result<bool, RedisError> {
        use futures_util::StreamExt as _;
        let mut messages = self.address.sentinel(sentinel)?.get_async_pubsub().await?;
        messages.subscribe("+switch-master").await?;
        let mut messages = messages.on_message();
        while let Some(message) = messages.next().await {
            let told: String = message.get_payload()?;
            if told.split(' ').next() == Some(name) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn wrong(what: &'static str) -> RedisError {
    RedisError::from((redis::ErrorKind::Client, what))
}

//! The connection to Redis, kept up.
//!
//! One multiplexed connection carries everything. A task of its own makes it,
//! notices when it is no good any more and makes another, with full jitter, so
//! that many instances do not come back at once. Calls never wait for it: while
//! there is no connection they are told so. A cluster's connections are kept by
//! the client library.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use redis::{
    AsyncConnectionConfig, Client, Cmd, RedisError, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    address::{Address, Host, Topology},
    commands,
    commands::ROLE,
    fault::{Fault, told},
};

/// Waits between tries to connect: full jitter below this, doubled up to the
/// second one, so that what comes back is found within a second.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(800);
/// How often sentinels are asked for the primary, and a cluster how it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks in a row at which no node of a cluster that was asked answers, after
/// which its connections are made anew.
const SILENT_MAX: u32 = 3;

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
    /// Connections made so far.
    made: AtomicU64,
    broken: Notify,
    up: watch::Sender<Result<(), String>>,
}

struct Live {
    connection: Connection,
    /// Where it leads to, if that was asked of sentinels.
    host: Option<Host>,
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
            made: AtomicU64::new(0),
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

    /// Connections made so far. What was seen by an earlier one may have been
    /// seen on another server, and may be gone.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.shared.made.load(Ordering::Acquire)
    }

    /// Sends a command and waits for its result.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn send(&self, command: &Cmd) -> Result<Value, Fault> {
        let Some(live) = self.shared.live() else {
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
    /// The connection. It comes and goes together with the word that it does, so
    /// that whoever was told finds it.
    fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full().or_else(|| {
            let _no_word_meanwhile = self.up.borrow();
            self.live.load_full()
        })
    }

    /// Gives a connection up, unless that was done already.
    fn lose(&self, live: &Arc<Live>, fault: &Fault) {
        let why = match fault {
            Fault::Elsewhere(why) => (*why).to_owned(),
            Fault::Away(why) => why.clone(),
            other => format!("{other:?}"),
        };
        let is_lost = self.up.send_if_modified(|told| {
            let before = self.live.compare_and_swap(live, None);
            let is_live = before.as_ref().is_some_and(|before| Arc::ptr_eq(before, live));
            if is_live {
                *told = Err(why.clone());
            }
            is_live
        });
        if is_lost {
            tracing::warn!(address = %self.address, why, "the connection to Redis was given up");
            self.broken.notify_one();
        }
    }

    async fn keep(&self) {
        let mut failures = 0;
        loop {
            match tokio::time::timeout(self.timeout * 2, self.connect()).await {
                Ok(Ok(live)) => {
                    failures = 0;
                    tracing::info!(address = %self.address, "connected to Redis");
                    self.hold(&Arc::new(live)).await;
                    tokio::time::sleep(FIRST_WAIT.mul_f64((self.chance)())).await;
                }
                Ok(Err(error)) => self.failed(&told(&error), &mut failures).await,
                Err(_) => self.failed("no connection was made in time", &mut failures).await,
            }
        }
    }

    /// Lets a connection be used until it is no good any more.
    async fn hold(&self, live: &Arc<Live>) {
        self.made.fetch_add(1, Ordering::Release);
        self.up.send_modify(|told| {
            self.live.store(Some(Arc::clone(live)));
            *told = Ok(());
        });
        tokio::select! {
            () = self.lost(live) => {}
            why = self.demoted(live) => self.lose(live, &Fault::Elsewhere(why)),
            why = self.scattered(live) => self.lose(live, &Fault::Away(why)),
        }
    }

    /// Resolves when somebody gave this connection up.
    async fn lost(&self, live: &Arc<Live>) {
        while self.live.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, live)) {
            self.broken.notified().await;
        }
    }

    fn tell(&self, state: Result<(), String>) {
        self.up.send_if_modified(|told| {
            let is_news = *told != state;
            *told = state;
            is_news
        });
    }

    async fn failed(&self, why: &str, failures: &mut u32) {
        if *failures == 0 {
            tracing::warn!(address = %self.address, why, "Redis cannot be reached");
        }
        self.tell(Err(why.to_owned()));
        let longest = FIRST_WAIT.saturating_mul(1 << (*failures).min(8)).min(LONGEST_WAIT);
        *failures += 1;
        tokio::time::sleep(longest.mul_f64((self.chance)())).await;
    }

    async fn connect(&self) -> Result<Live, RedisError> {
        let connection = match self.address.topology() {
            Topology::Server(host) => self.connect_to(self.address.server(host)?).await?,
            Topology::Socket(path) => self.connect_to(self.address.socket(path)?).await?,
            Topology::Sentinel { sentinels, primary } => {
                return self.connect_by(sentinels, primary).await;
            }
            Topology::Cluster(nodes) => {
                let client = self.address.cluster(nodes, self.timeout)?;
                Connection::Cluster(client.get_async_connection().await?)
            }
        };
        Ok(Live { connection, host: None })
    }

    /// A connection to the first of the named primaries that is one.
    async fn connect_by(&self, sentinels: &[Host], name: &str) -> Result<Live, RedisError> {
        let mut last = wrong("the sentinels know no such primary");
        for (host, _) in self.named(sentinels, name).await? {
            match self.connect_to(self.address.server(&host)?).await {
                Ok(connection) => return Ok(Live { connection, host: Some(host) }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A connection to a server that takes writes.
    async fn connect_to(&self, client: Client) -> Result<Connection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let role: Vec<Value> = ROLE.cmd().query_async(&mut connection).await?;
        match role.first() {
            Some(Value::BulkString(role)) if role == b"master" => {}
            _ => return Err(wrong("the server is a replica, not a primary")),
        }
        // It tells its role also while it reads its data, and this it does not.
        commands::PING.cmd().query_async::<Value>(&mut connection).await?;
        Ok(Connection::Server(connection))
    }

    /// The servers that sentinels call the primary, and how many do: the most
    /// first. One that is cut off may still name a former one.
    async fn named(
        &self,
        sentinels: &[Host],
        name: &str,
    ) -> Result<Vec<(Host, usize)>, RedisError> {
        let asked = sentinels.iter().map(|sentinel| self.ask(sentinel, name));
        let mut named: Vec<(Host, usize)> = Vec::new();
        let mut last = wrong("no sentinel answered");
        for answer in futures_util::future::join_all(asked).await {
            match answer {
                Ok(host) => match named.iter_mut().find(|(known, _)| *known == host) {
                    Some((_, votes)) => *votes += 1,
                    None => named.push((host, 1)),
                },
                Err(error) => last = error,
            }
        }
        if named.is_empty() {
            return Err(last);
        }
        named.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
        Ok(named)
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

    /// Resolves when more sentinels name another server than name this one.
    async fn demoted(&self, live: &Live) -> &'static str {
        let (Topology::Sentinel { sentinels, primary }, Some(host)) =
            (self.address.topology(), &live.host)
        else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let named = self.named(sentinels, primary).await.unwrap_or_default();
            let votes = |of: &Host| {
                named.iter().find(|(known, _)| known == of).map_or(0, |(_, votes)| *votes)
            };
            if !planted!("redis-demotion-not-heard")
                && named.iter().any(|(other, _)| votes(other) > votes(host))
            {
                return "the sentinels chose another primary";
            }
        }
    }

    /// Tells how a cluster is. Resolves when its nodes have long been silent:
    /// what the client library still tries then is not waited for.
    async fn scattered(&self, live: &Live) -> String {
        let Connection::Cluster(connection) = &live.connection else {
            return std::future::pending().await;
        };
        let mut connection = connection.clone();
        let mut silent = 0;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match how_is(&mut connection).await {
                Ok(is_whole) => {
                    silent = 0;
                    let state = if is_whole { Ok(()) } else { Err(NOT_WHOLE.to_owned()) };
                    self.tell(state);
                }
                Err(error) if silent + 1 == SILENT_MAX => return error.to_string(),
                Err(_) => silent += 1,
            }
        }
    }
}

const NOT_WHOLE: &str = "its cluster is not whole (CLUSTERDOWN)";

/// Whether a cluster is whole, as one of its nodes sees it.
async fn how_is(connection: &mut ClusterConnection) -> Result<bool, RedisError> {
    let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let command = redis::cmd("CLUSTER").arg("INFO").take();
    let info = connection.route_command(command, any).await?;
    let info: String = redis::from_redis_value(info)?;
    Ok(info.lines().any(|line| line.trim() == "cluster_state:ok"))
}

fn wrong(what: &'static str) -> RedisError {
    RedisError::from((redis::ErrorKind::Client, what))
}

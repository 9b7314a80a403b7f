//! A primary with two replicas, watched by three Sentinels.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use super::{
    Kind, address,
    node::{Endpoint, Mode, Node},
    until,
};

/// What the Sentinels call the primary.
const NAME: &str = "reprise";
const REPLICAS: usize = 2;
const SENTINELS: usize = 3;

/// How often Sentinels look and tell each other, in milliseconds. By themselves
/// they take up to twenty seconds until a former primary is a replica; and on a
/// busy machine they would lose faith in their clocks. `PING-PERIOD` is left: a
/// replica is thought fit for primary by what it said within five of them.
const ATTENTIVE: &str = "SENTINEL DEBUG INFO-PERIOD 200 PUBLISH-PERIOD 200 ASK-PERIOD 200 \
    MIN-LINK-RECONNECT-PERIOD 500 TILT-TRIGGER 30000";

/// A primary with two replicas, watched by three Sentinels that give up on a
/// silent primary after a second: with less, a busy machine has them give up on
/// ones that are well.
pub struct SentinelSet {
    /// The servers. The first begins as primary.
    pub servers: Vec<Node>,
    pub sentinels: Vec<Node>,
}

impl SentinelSet {
    /// Starts all, and waits until a failover would succeed. `configuration`
    /// is added to that of each server.
    pub async fn start(kind: Kind, configuration: &[&str]) -> Self {
        let servers = servers(kind, configuration).await;
        let sentinels = sentinels(kind, &servers).await;
        let set = Self { servers, sentinels };
        set.settled().await;
        set
    }

    /// How a client is told to reach it.
    pub fn url(&self) -> String {
        let addresses: Vec<_> =
            self.sentinels.iter().map(|node| node.address().to_string()).collect();
        format!("redis+sentinel://{}/{NAME}", addresses.join(","))
    }

    /// The primary that a majority of the Sentinels names, by its place in
    /// `servers`, once it says so itself.
    pub async fn primary(&self) -> usize {
        until("one primary is named", || self.agreed()).await
    }

    /// The same, once it is another than `former`.
    pub async fn primary_after(&self, former: usize) -> usize {
        until("another primary is named", || async move {
            self.agreed().await.filter(|primary| *primary != former)
        })
        .await
    }

    /// Kills the primary and says which it was; [`Self::primary_after`] is
    /// its successor. It comes back as a replica with `restart`.
    pub async fn kill_primary(&mut self) -> usize {
        let primary = self.primary().await;
        self.servers[primary].kill();
        primary
    }

    /// Has the Sentinels make another server primary, and says which.
    pub async fn failover_by_command(&self) -> usize {
        let former = self.settled().await;
        // They refuse as long as they have another failover in mind.
        let sentinel = self.sentinels[0].endpoint();
        until("a failover begins", || async move {
            sentinel.call::<String>(&format!("SENTINEL FAILOVER {NAME}")).await.ok()
        })
        .await;
        self.primary_after(former).await
    }

    /// Waits until all servers run and could replace the primary, and says
    /// which that is. It need not be who succeeded a former one at first: on a
    /// busy machine it may have been given up in turn.
    pub async fn settled(&self) -> usize {
        until("all replicas follow one primary", || self.in_order()).await
    }

    async fn in_order(&self) -> Option<usize> {
        let primary = self.agreed().await?;
        for sentinel in &self.sentinels {
            let sentinel = sentinel.endpoint();
            sentinel.call::<String>(&format!("SENTINEL CKQUORUM {NAME}")).await.ok()?;
            let replicas: Vec<HashMap<String, String>> =
                sentinel.call(&format!("SENTINEL REPLICAS {NAME}")).await.ok()?;
            if replicas.iter().filter(|replica| is_counted_on(replica)).count() < REPLICAS {
                return None;
            }
        }
        for (place, server) in self.servers.iter().enumerate() {
            if place != primary && !is_in_sync(server.endpoint()).await {
                return None;
            }
        }
        Some(primary)
    }

    async fn agreed(&self) -> Option<usize> {
        let mut votes = vec![0; self.servers.len()];
        for sentinel in &self.sentinels {
            let command = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {NAME}");
            let Ok((ip, port)) = sentinel.endpoint().call::<(String, u16)>(&command).await else {
                continue;
            };
            let address = SocketAddr::from((ip.parse::<IpAddr>().ok()?, port));
            let place = self.servers.iter().position(|server| server.address() == address)?;
            votes[place] += 1;
        }
        let place = votes.iter().position(|votes| *votes > SENTINELS / 2)?;
        self.servers[place].endpoint().is_primary().await.then_some(place)
    }
}

/// Whether a replica has what its primary has, and follows it.
pub async fn is_in_sync(replica: &Endpoint) -> bool {
    replica.field("INFO replication", "master_link_status").await.as_deref() == Some("up")
}

/// Whether a Sentinel would make this replica primary.
fn is_counted_on(replica: &HashMap<String, String>) -> bool {
    let is = |name: &str, value: &str| replica.get(name).is_some_and(|field| field == value);
    is("flags", "slave") && is("master-link-status", "ok")
}

async fn servers(kind: Kind, configuration: &[&str]) -> Vec<Node> {
    let mut servers: Vec<Node> = Vec::new();
    for _ in 0..=REPLICAS {
        let address = address::fresh();
        let mut lines = vec![
            format!("port {}", address.port()),
            // Else the address would be the one that its connections come from.
            format!("replica-announce-ip {}", address.ip()),
        ];
        if let Some(primary) = servers.first() {
            let primary = primary.address();
            lines.push(format!("replicaof {} {}", primary.ip(), primary.port()));
        }
        lines.extend(configuration.iter().map(|&line| line.to_owned()));
        servers.push(node(kind, Mode::Server, address, &lines).await);
    }
    servers
}

/// Sentinels that know each other from the beginning; they would find out by
/// themselves, within some seconds.
async fn sentinels(kind: Kind, servers: &[Node]) -> Vec<Node> {
    let (primary, replicas) = servers.split_first().expect("there is a primary");
    let addresses: [SocketAddr; SENTINELS] = std::array::from_fn(|_| address::fresh());
    let mut sentinels = Vec::new();
    for (place, address) in addresses.into_iter().enumerate() {
        let mut lines = vec![
            format!("port {}", address.port()),
            format!("sentinel myid {}", id(place)),
            format!("sentinel announce-ip {}", address.ip()),
            format!("sentinel monitor {NAME} {} 2", spaced(primary.address())),
            format!("sentinel down-after-milliseconds {NAME} 1000"),
            format!("sentinel failover-timeout {NAME} 2000"),
            format!("sentinel parallel-syncs {NAME} 2"),
        ];
        let replicas = replicas.iter().map(Node::address);
        lines.extend(replicas.map(|it| format!("sentinel known-replica {NAME} {}", spaced(it))));
        let others = addresses.into_iter().enumerate().filter(|(other, _)| *other != place);
        lines.extend(others.map(|(other, it)| {
            format!("sentinel known-sentinel {NAME} {} {}", spaced(it), id(other))
        }));
        let sentinel = node(kind, Mode::Sentinel, address, &lines).await;
        sentinel.endpoint().tell(ATTENTIVE).await;
        sentinels.push(sentinel);
    }
    sentinels
}

async fn node(kind: Kind, mode: Mode, address: SocketAddr, lines: &[String]) -> Node {
    Node::start(kind, mode, tempfile::tempdir().unwrap(), Endpoint::open(address), lines).await
}

/// Forty hexadecimal digits.
fn id(place: usize) -> String {
    format!("{:040x}", place + 1)
}

fn spaced(address: SocketAddr) -> String {
    format!("{} {}", address.ip(), address.port())
}

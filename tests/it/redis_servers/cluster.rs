//! A Cluster of three primaries, with or without a replica each.

use std::net::SocketAddr;

use super::{
    Kind, address,
    node::{Endpoint, Mode, Node},
    sentinel::is_in_sync,
    until,
};

const PRIMARIES: usize = 3;
const SLOTS: u16 = 16_384;

/// A Cluster of three primaries, with or without a replica each, that gives up
/// on a silent node after a second.
pub struct Cluster {
    /// The first three begin as primaries with a third of the slots each; node
    /// `n + 3`, if there is one, begins as replica of node `n`.
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// Starts all, and waits until every node takes requests and every replica
    /// could take over. `configuration` is added to that of each node.
    pub async fn start(kind: Kind, replicas: bool, configuration: &[&str]) -> Self {
        let count = if replicas { 2 * PRIMARIES } else { PRIMARIES };
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(node(kind, configuration).await);
        }
        let cluster = Self { nodes };
        cluster.share_slots().await;
        cluster.introduce().await;
        cluster.assign_replicas().await;
        cluster.settled().await;
        cluster
    }

    /// How a client is told to reach it.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }

    /// The slot that a key is in.
    pub async fn slot(&self, key: &str) -> u16 {
        self.endpoint(0).call(&format!("CLUSTER KEYSLOT {key}")).await.unwrap()
    }

    /// The node that has a slot, as the nodes that answer agree.
    pub async fn owner(&self, slot: u16) -> usize {
        until("the nodes agree on a slot's owner", || async move {
            let mut owners = Vec::new();
            for node in &self.nodes {
                owners.extend(self.owner_by(node.endpoint(), slot).await);
            }
            let first = *owners.first()?;
            owners.iter().all(|owner| *owner == first).then_some(first)
        })
        .await
    }

    /// The same, once it is another than `former`, and the Cluster takes
    /// requests again.
    pub async fn owner_after(&self, former: usize, slot: u16) -> usize {
        let owner = until("a slot has another owner", || async move {
            let owner = self.owner(slot).await;
            (owner != former).then_some(owner)
        })
        .await;
        self.well().await;
        owner
    }

    /// Begins to move a slot, the way of Redis before 8.4 and every Valkey:
    /// nothing has happened before [`Migration::open`].
    pub async fn migration(&self, slot: u16, from: usize, to: usize) -> Migration {
        Migration {
            slot,
            from: self.endpoint(from).clone(),
            to: self.endpoint(to).clone(),
            to_id: self.id(to).await,
            from_id: self.id(from).await,
        }
    }

    /// Moves a slot with all its keys.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let migration = self.migration(slot, from, to).await;
        migration.open().await;
        migration.carry_keys().await;
        migration.close().await;
    }

    /// Kills a node; [`Self::owner_after`] waits for its successor.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Makes a replica primary in its primary's place, without loss, and waits
    /// until all nodes that answer know it.
    pub async fn failover(&self, replica: usize) {
        let endpoint = self.endpoint(replica);
        endpoint.tell("CLUSTER FAILOVER").await;
        until("a replica takes over", || async move { endpoint.is_primary().await.then_some(()) })
            .await;
        let id = &self.id(replica).await;
        for node in &self.nodes {
            until("all know the new primary", || async move {
                let Ok(nodes) = node.endpoint().call::<String>("CLUSTER NODES").await else {
                    return Some(());
                };
                let line = nodes.lines().find(|line| line.starts_with(id))?;
                line.contains("master").then_some(())
            })
            .await;
        }
        self.well().await;
    }

    /// Waits until every node that runs takes requests.
    pub async fn well(&self) {
        for node in &self.nodes {
            until("the Cluster is well", || async move {
                let endpoint = node.endpoint();
                if endpoint.call::<String>("PING").await.is_err() {
                    return Some(());
                }
                let state = endpoint.field("CLUSTER INFO", "cluster_state").await?;
                (state == "ok").then_some(())
            })
            .await;
        }
    }

    /// Waits until everybody knows every slot's owner, and replicas are in sync.
    async fn settled(&self) {
        self.well().await;
        for (place, node) in self.nodes.iter().enumerate() {
            let endpoint = node.endpoint();
            until("a node knows who has which slots", || async move {
                for (primary, slot) in [0, SLOTS / 2, SLOTS - 1].into_iter().enumerate() {
                    if self.owner_by(endpoint, slot).await? != primary {
                        return None;
                    }
                }
                Some(())
            })
            .await;
            if place >= PRIMARIES {
                until("a replica is in sync", || async move {
                    is_in_sync(endpoint).await.then_some(())
                })
                .await;
            }
        }
    }

    async fn share_slots(&self) {
        for place in 0..PRIMARIES {
            let third = |place: usize| place * usize::from(SLOTS) / PRIMARIES;
            let (first, last) = (third(place), third(place + 1) - 1);
            self.endpoint(place).tell(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")).await;
        }
        for (place, node) in self.nodes.iter().enumerate() {
            // Equal epochs would be sorted out while tests run.
            node.endpoint().tell(&format!("CLUSTER SET-CONFIG-EPOCH {}", place + 1)).await;
        }
    }

    async fn introduce(&self) {
        for other in &self.nodes[1..] {
            let (ip, port) = (other.address().ip(), other.address().port());
            self.endpoint(0).tell(&format!("CLUSTER MEET {ip} {port}")).await;
        }
        for node in &self.nodes {
            until("all nodes know each other", || async move {
                let nodes: String = node.endpoint().call("CLUSTER NODES").await.ok()?;
                let known = nodes.lines().filter(|line| !line.contains("handshake")).count();
                (known == self.nodes.len()).then_some(())
            })
            .await;
        }
    }

    async fn assign_replicas(&self) {
        for place in PRIMARIES..self.nodes.len() {
            let primary = self.id(place - PRIMARIES).await;
            self.endpoint(place).tell(&format!("CLUSTER REPLICATE {primary}")).await;
        }
    }

    async fn owner_by(&self, witness: &Endpoint, slot: u16) -> Option<usize> {
        let nodes: String = witness.call("CLUSTER NODES").await.ok()?;
        let owner = nodes.lines().find_map(|line| owns(line, slot))?;
        self.nodes.iter().position(|node| node.address() == owner)
    }

    async fn id(&self, node: usize) -> String {
        self.endpoint(node).call("CLUSTER MYID").await.unwrap()
    }

    fn endpoint(&self, node: usize) -> &Endpoint {
        self.nodes[node].endpoint()
    }
}

/// One slot on its way, in steps: open, carry keys (all at once or some), close.
pub struct Migration {
    slot: u16,
    from: Endpoint,
    from_id: String,
    to: Endpoint,
    to_id: String,
}

impl Migration {
    /// From here on the source sends callers on for keys that it does not
    /// have (ASK), and the destination takes those that ask for it.
    pub async fn open(&self) {
        let Self { slot, from_id, to_id, .. } = self;
        self.to.tell(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")).await;
        self.from.tell(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}")).await;
    }

    /// The keys that are still at the source, at most 1000.
    pub async fn keys(&self) -> Vec<String> {
        self.from.call(&format!("CLUSTER GETKEYSINSLOT {} 1000", self.slot)).await.unwrap()
    }

    /// Carries one key over.
    pub async fn carry(&self, key: &str) {
        let to = self.to.address;
        let mut command = redis::cmd("MIGRATE");
        command.arg(to.ip().to_string()).arg(to.port()).arg(key).arg(0).arg(5000);
        let mut connection = self.from.connect().await.unwrap();
        command.exec_async(&mut connection).await.unwrap();
    }

    /// Carries all keys over.
    pub async fn carry_keys(&self) {
        loop {
            let keys = self.keys().await;
            if keys.is_empty() {
                return;
            }
            for key in keys {
                self.carry(&key).await;
            }
        }
    }

    /// The destination has the slot from here on. Keys that are still at the
    /// source are lost: the servers refuse to close before they are carried.
    pub async fn close(&self) {
        let Self { slot, to_id, .. } = self;
        // In this order the slot has an owner throughout.
        self.to.tell(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await;
        self.from.tell(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await;
    }
}

/// Where the node listens that a line of `CLUSTER NODES` is about, if it has
/// the slot: `id ip:port@bus flags primary ping pong epoch link 0-5460 [7->-id]`.
fn owns(line: &str, slot: u16) -> Option<SocketAddr> {
    let mut words = line.split(' ');
    let address = words.nth(1)?.split('@').next()?.parse().ok()?;
    let has = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((first.parse(), last.parse()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
    };
    words.skip(6).any(has).then_some(address)
}

async fn node(kind: Kind, configuration: &[&str]) -> Node {
    let address = address::fresh();
    let mut lines = vec![
        format!("port {}", address.port()),
        "cluster-enabled yes".to_owned(),
        "cluster-node-timeout 1000".to_owned(),
        // A replica stands for election however long its primary was silent.
        "cluster-replica-validity-factor 0".to_owned(),
        "cluster-allow-replica-migration no".to_owned(),
        // Else the address would be the one that its connections come from.
        format!("cluster-announce-ip {}", address.ip()),
    ];
    lines.extend(configuration.iter().map(|&line| line.to_owned()));
    let folder = tempfile::tempdir().unwrap();
    Node::start(kind, Mode::Server, folder, Endpoint::open(address), &lines).await
}

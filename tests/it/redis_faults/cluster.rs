//! A Cluster that moves slots, loses nodes, and replaces them.

use super::*;
use crate::redis_servers::Cluster;

const KEY: &str = "reprise:{default}:state";

#[test]
fn a_slot_moves_in_steps() {
    on_one_thread(async {
        let cluster = Cluster::start(Kind::Redis70, false, &[]).await;
        let mut stage = Stage::start(cluster.url(), 2, 6).await;
        let slot = cluster.slot(KEY).await;
        let from = cluster.owner(slot).await;
        let migration = cluster.migration(slot, from, (from + 1) % 3).await;
        migration.open().await;
        for key in migration.keys().await.into_iter().step_by(3) {
            migration.carry(&key).await;
        }
        stage.told("STORE_REFUSES").await;
        migration.carry_keys().await;
        migration.close().await;
        stage.works().await;
        stage.holds().await;
    });
}

#[test]
fn a_node_is_killed_and_its_replica_takes_over() {
    on_one_thread(async {
        let mut cluster = Cluster::start(Kind::Valkey91, true, &[]).await;
        let stage = Stage::start(cluster.url(), 1, 6).await;
        let slot = cluster.slot(KEY).await;
        let former = cluster.owner(slot).await;
        {
            let _quiet = stage.fleet.world.quiet.write().await;
            let replica = &cluster.nodes[former + 3];
            crate::redis_servers::until("the replica has everything", || async {
                let primary = cluster.nodes[former].endpoint();
                let sent = primary.field("INFO replication", "master_repl_offset").await?;
                let got = replica.endpoint().field("INFO replication", "slave_repl_offset").await?;
                (sent == got).then_some(())
            })
            .await;
            cluster.kill(former);
        }
        cluster.owner_after(former, slot).await;
        stage.holds().await;
    });
}

#[test]
fn a_replica_takes_over_when_told_to() {
    on_one_thread(async {
        let cluster = Cluster::start(Kind::Redis82, true, &[]).await;
        let stage = Stage::start(cluster.url(), 1, 6).await;
        let former = cluster.owner(cluster.slot(KEY).await).await;
        cluster.failover(former + 3).await;
        stage.holds().await;
    });
}

#[test]
fn a_node_is_killed_that_has_no_replica() {
    on_one_thread(async {
        let configuration = &["appendonly yes", "appendfsync always"];
        let mut cluster = Cluster::start(Kind::Valkey81, false, configuration).await;
        let stage = Stage::start(cluster.url(), 1, 6).await;
        let slot = cluster.slot(KEY).await;
        let owner = cluster.owner(slot).await;
        cluster.kill(owner);
        stage.health(ServingStatus::NotServing).await;
        stage.told("STORE_").await;
        cluster.nodes[owner].restart().await;
        cluster.well().await;
        stage.holds().await;
    });
}

#[test]
fn all_its_nodes_are_killed_and_come_back() {
    on_one_thread(async {
        let configuration = &["appendonly yes", "appendfsync always"];
        let mut cluster = Cluster::start(Kind::Redis70, false, configuration).await;
        let stage = Stage::start(cluster.url(), 1, 6).await;
        for node in 0..3 {
            cluster.kill(node);
        }
        stage.health(ServingStatus::NotServing).await;
        for node in &mut cluster.nodes {
            node.restart().await;
        }
        cluster.well().await;
        stage.holds().await;
    });
}

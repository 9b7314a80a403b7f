//! Under Sentinel: another server takes the primary's place.

use super::*;
use crate::redis_servers::{SentinelSet, until};

const CONFIGURATION: &[&str] = &["min-replicas-to-write 1", "min-replicas-max-lag 10"];

/// Nothing is on its way, and every replica has everything: from here on a
/// failover loses nothing that was acknowledged.
async fn in_step(set: &SentinelSet, stage: &Stage) -> usize {
    let primary = set.settled().await;
    let _quiet = stage.fleet.world.quiet.write().await;
    until("every replica has everything", || async {
        let mut offsets = Vec::new();
        for server in &set.servers {
            let name = match offsets.len() == primary {
                true => "master_repl_offset",
                false => "slave_repl_offset",
            };
            offsets.push(server.endpoint().field("INFO replication", name).await?);
        }
        offsets.iter().all(|offset| *offset == offsets[0]).then_some(())
    })
    .await;
    primary
}

#[test]
fn the_primary_is_killed() {
    on_one_thread(async {
        let mut set = SentinelSet::start(Kind::Valkey91, CONFIGURATION).await;
        let stage = Stage::start(set.url(), 2, 6).await;
        let former = set.settled().await;
        {
            let _quiet = quiet(&set, &stage).await;
            set.servers[former].kill();
        }
        stage.health(ServingStatus::NotServing).await;
        set.primary_after(former).await;
        stage.health(ServingStatus::Serving).await;
        set.servers[former].restart().await;
        stage.holds().await;
    });
}

/// Keeps calls from being made, with every replica in step.
async fn quiet<'a>(set: &SentinelSet, stage: &'a Stage) -> tokio::sync::RwLockWriteGuard<'a, ()> {
    in_step(set, stage).await;
    stage.fleet.world.quiet.write().await
}

#[test]
fn the_sentinels_choose_another() {
    on_one_thread(async {
        let set = SentinelSet::start(Kind::Redis70, CONFIGURATION).await;
        let stage = Stage::start(set.url(), 2, 6).await;
        {
            let _quiet = quiet(&set, &stage).await;
            set.failover_by_command().await;
        }
        stage.holds().await;
    });
}

#[test]
fn the_primary_stands_still_is_replaced_and_goes_on() {
    on_one_thread(async {
        let set = SentinelSet::start(Kind::Redis82, CONFIGURATION).await;
        let stage = Stage::start(set.url(), 1, 6).await;
        let former = set.settled().await;
        {
            let _quiet = quiet(&set, &stage).await;
            set.servers[former].stop();
        }
        let next = set.primary_after(former).await;
        assert_ne!(next, former);
        stage.health(ServingStatus::Serving).await;
        // It takes itself for the primary still; nobody writes to it.
        set.servers[former].cont();
        stage.holds().await;
    });
}

#[test]
fn sentinels_are_gone_and_the_primary_is_not() {
    on_one_thread(async {
        let mut set = SentinelSet::start(Kind::Valkey81, CONFIGURATION).await;
        let mut stage = Stage::start(set.url(), 1, 6).await;
        for sentinel in &mut set.sentinels {
            sentinel.kill();
        }
        stage.works().await;
        assert!(stage.fleet.world.told.borrow().is_empty(), "nobody hears of it");
        for sentinel in &mut set.sentinels {
            sentinel.restart().await;
        }
        stage.holds().await;
    });
}

/// What a failover loses that takes a replica which lacks the latest writes:
/// it is seen and counted, and work goes on.
#[test]
fn what_a_replica_lacked_is_lost_and_is_told() {
    on_one_thread(async {
        let primary = Standalone::start(Kind::Redis70, Options::default()).await;
        let replica = Standalone::start(Kind::Redis70, Options::default()).await;
        let proxy = Proxy::start(primary.address()).await;
        let mut stage = Stage::start(primary.url_at(proxy.address()), 1, 1).await;
        stage.fleet.finish().await;
        let address = primary.address();
        let follow = format!("REPLICAOF {} {}", address.ip(), address.port());
        replica.endpoint().tell(&follow).await;
        until("the replica is in step", || async {
            let status = replica.endpoint().field("INFO replication", "master_link_status").await?;
            (status == "up").then_some(())
        })
        .await;
        replica.endpoint().tell("REPLICAOF NO ONE").await;
        for step in 0..10 {
            stage.begin_once(begin_of(&format!("s{step}"))).await.unwrap();
        }
        // The way leads to the former replica from now on.
        proxy.lead_to(replica.address()).await;
        let lost = async {
            while !stage.logged().contains("acknowledged changes are gone") {
                let _ = stage.begin_once(begin_of("after")).await;
            }
        };
        timeout(PATIENCE, lost).await.unwrap();
        // One of them may have come before anybody looked.
        let logged = stage.logged();
        assert!(logged.contains("lost=9") || logged.contains("lost=10"), "{logged}");
        stage.begin_once(begin_of("s3")).await.unwrap();
        stage.get_once("s3").await.unwrap();
        assert_eq!(stage.get_once("s4").await.unwrap_err().code(), tonic::Code::NotFound);
    });
}

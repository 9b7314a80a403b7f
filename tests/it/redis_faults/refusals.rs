//! A server that is there, and says no.

use super::*;
use crate::redis_servers::Access;

#[test]
fn out_of_memory_it_grants_nothing_and_hears_how_attempts_end() {
    on_one_thread(async {
        let (server, stage) = standalone(kept(Aof::EverySecond)).await;
        server.endpoint().tell("CONFIG SET maxmemory 1").await;
        stage.told("STORE_FULL").await;
        server.endpoint().tell("CONFIG SET maxmemory 0").await;
        stage.holds().await;
    });
}

#[test]
fn out_of_memory_reports_and_heartbeats_get_in() {
    on_one_thread(async {
        let server = Standalone::start(Kind::Redis82, Options::default()).await;
        let mut stage = Stage::start(server.url(), 1, 1).await;
        stage.fleet.finish().await;
        let mut client = stage.instances[0].client();
        let answer = client.begin_attempt(begin_of("a")).await.unwrap().into_inner();
        let Some(reprise::proto::begin_attempt_response::Answer::Grant(grant)) = answer.answer
        else {
            panic!("{answer:?}")
        };
        server.endpoint().tell("CONFIG SET maxmemory 1").await;
        let (run, step) = ("r".to_owned(), "a".to_owned());
        let beat = reprise::proto::HeartbeatRequest {
            run: run.clone(),
            step: step.clone(),
            fence: grant.fence,
            ..Default::default()
        };
        client.heartbeat(beat).await.unwrap();
        let report = reprise::proto::ReportAttemptRequest {
            run,
            step,
            fence: grant.fence,
            outcome: Some(reprise::proto::report_attempt_request::Outcome::Success(
                reprise::proto::Success {},
            )),
            ..Default::default()
        };
        client.report_attempt(report).await.unwrap();
        let status = stage.begin_once(begin_of("b")).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    });
}

#[test]
fn it_cannot_save_and_takes_no_writes() {
    on_one_thread(async {
        let options = Options {
            configuration: &["stop-writes-on-bgsave-error yes", "save 3600 1000000"],
            ..kept(Aof::EverySecond)
        };
        let (server, stage) = standalone(options).await;
        let endpoint = server.endpoint();
        // What it would write is a folder.
        std::fs::create_dir(server.data().join("dump.rdb")).unwrap();
        std::fs::write(server.data().join("dump.rdb/in-the-way"), "").unwrap();
        endpoint.tell("BGSAVE").await;
        stage.told("MISCONF").await;
        endpoint.tell("CONFIG SET stop-writes-on-bgsave-error no").await;
        stage.holds().await;
    });
}

#[test]
fn it_has_fewer_replicas_than_it_wants() {
    on_one_thread(async {
        let (server, stage) = standalone(kept(Aof::EverySecond)).await;
        server.endpoint().tell("CONFIG SET min-replicas-to-write 1").await;
        stage.told("NOREPLICAS").await;
        server.endpoint().tell("CONFIG SET min-replicas-to-write 0").await;
        stage.holds().await;
    });
}

#[test]
fn it_reads_its_data_for_long() {
    on_one_thread(async {
        let (mut server, stage) = standalone(kept(Aof::EverySecond)).await;
        let endpoint = server.endpoint();
        // A long list of small keys, each of which takes its time when it loads.
        endpoint.tell("DEBUG POPULATE 300 filler 10").await;
        endpoint.tell("BGREWRITEAOF").await;
        crate::redis_servers::until("the file is rewritten", || async {
            let field = endpoint.field("INFO persistence", "aof_rewrite_in_progress").await?;
            (field == "0").then_some(())
        })
        .await;
        endpoint.tell("CONFIG SET key-load-delay 10000").await;
        endpoint.tell("CONFIG SET loading-process-events-interval-bytes 1024").await;
        endpoint.tell("CONFIG REWRITE").await;
        server.kill();
        stage.health(ServingStatus::NotServing).await;
        server.restart().await;
        stage.holds().await;
    });
}

#[test]
fn a_foreign_script_keeps_it_busy() {
    on_one_thread(async {
        let (server, stage) = standalone(kept(Aof::EverySecond)).await;
        let endpoint = server.endpoint().clone();
        endpoint.tell("CONFIG SET busy-reply-threshold 100").await;
        let mut connection = endpoint.connect().await.unwrap();
        let busy = tokio::task::spawn_local(async move {
            let script = "while true do redis.call('PING') end";
            redis::cmd("EVAL").arg(script).arg(0).exec_async(&mut connection).await
        });
        stage.told("(BUSY)").await;
        endpoint.tell("SCRIPT KILL").await;
        busy.await.unwrap().unwrap_err();
        stage.holds().await;
    });
}

#[test]
fn it_becomes_a_replica_by_hand() {
    on_one_thread(async {
        let (server, stage) = standalone(kept(Aof::EverySecond)).await;
        let other = Standalone::start(Kind::Redis70, Options::default()).await;
        // Of one that is not there, so that it keeps its data.
        let address = other.address();
        drop(other);
        let place = format!("{} {}", address.ip(), address.port());
        server.endpoint().tell(&format!("REPLICAOF {place}")).await;
        // Whoever meets it first is told that it is a replica, the rest that the
        // connection was given up for that.
        stage.told("STORE_").await;
        stage.health(ServingStatus::NotServing).await;
        server.endpoint().tell("REPLICAOF NO ONE").await;
        stage.holds().await;
    });
}

#[test]
fn its_password_is_changed() {
    on_one_thread(async {
        let options = Options { access: Access::Password, ..kept(Aof::EverySecond) };
        let server = Standalone::start(Kind::Redis82, options).await;
        let stage = Stage::start(server.url(), 1, 6).await;
        let mut administrator = server.endpoint().connect().await.unwrap();
        let mut set = async |word: &str| {
            let mut set = redis::cmd("CONFIG");
            set.arg("SET").arg("requirepass").arg(word);
            set.exec_async(&mut administrator).await.unwrap();
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
            kill.exec_async(&mut administrator).await.unwrap();
        };
        set("another").await;
        stage.health(ServingStatus::NotServing).await;
        stage.told("STORE_UNAVAILABLE").await;
        assert!(stage.logged().to_lowercase().contains("password"), "{}", stage.logged());
        set("not-a-secret").await;
        stage.holds().await;
    });
}

#[test]
fn its_user_may_not_do_what_is_needed() {
    on_one_thread(async {
        let options =
            Options { access: Access::Rules("~reprise:* +@all"), ..kept(Aof::EverySecond) };
        let server = Standalone::start(Kind::Valkey81, options).await;
        let stage = Stage::start(server.url(), 1, 6).await;
        server.endpoint().tell("ACL SETUSER reprise -evalsha -eval").await;
        stage.told("no permissions").await;
        server.endpoint().tell("ACL SETUSER reprise +evalsha +eval").await;
        stage.holds().await;
    });
}

#[test]
fn a_password_that_is_wrong_from_the_beginning_is_told() {
    on_one_thread(async {
        let options = Options { access: Access::Password, ..Options::default() };
        let server = Standalone::start(Kind::Redis70, options).await;
        let folder = tempfile::tempdir().unwrap();
        let file = file_in(folder.path(), "password", "wrong\n");
        let url = format!("redis://{}?password_file={file}", server.address());
        let address = Address::parse(&url).unwrap();
        let timeout = Duration::from_secs(2);
        let error =
            Redis::open(RedisOptions { timeout, ..RedisOptions::new(address) }).await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("password"), "{error}");
        assert!(!error.to_string().contains("wrong\n"), "{error}");
    });
}

//! A single server that ends, stands still, forgets, or is emptied.

use super::*;

#[test]
fn killed_and_started_again_with_every_write_synced() {
    killed_and_started_again(Aof::Always);
}

#[test]
fn killed_and_started_again_with_a_sync_every_second() {
    killed_and_started_again(Aof::EverySecond);
}

fn killed_and_started_again(aof: Aof) {
    on_one_thread(async {
        let (mut server, mut stage) = standalone(kept(aof)).await;
        for _ in 0..3 {
            kill(&mut server, &stage, aof).await;
            stage.health(ServingStatus::NotServing).await;
            stage.listen_anew();
            stage.told("STORE_UNAVAILABLE").await;
            server.restart().await;
            stage.health(ServingStatus::Serving).await;
            stage.works().await;
        }
        stage.holds().await;
        each_step_is_filed(&server).await;
    });
}

/// Ends the server while everybody works. With a sync every second not before it
/// has written what was acknowledged: while a sync lasts it keeps that to itself,
/// for two seconds at most.
async fn kill(server: &mut Standalone, stage: &Stage, aof: Aof) {
    if aof == Aof::Always {
        server.kill();
    } else {
        let _quiet = stage.fleet.world.quiet.write().await;
        crate::redis_servers::until("everything is written", || async {
            let field = server.endpoint().field("INFO persistence", "aof_buffer_length").await?;
            (field == "0").then_some(())
        })
        .await;
        server.kill();
    }
}

#[test]
fn stopped_for_less_than_a_command_may_take() {
    on_one_thread(async {
        let (server, mut stage) = standalone(kept(Aof::EverySecond)).await;
        server.stop();
        tokio::time::sleep(Duration::from_millis(TIMEOUT / 2)).await;
        server.cont();
        stage.works().await;
        stage.holds().await;
    });
}

#[test]
fn stopped_for_longer_than_a_command_may_take() {
    on_one_thread(async {
        let (server, stage) = standalone(kept(Aof::EverySecond)).await;
        server.stop();
        stage.health(ServingStatus::NotServing).await;
        stage.told("STORE_UNAVAILABLE").await;
        server.cont();
        stage.holds().await;
        each_step_is_filed(&server).await;
    });
}

#[test]
fn paused_for_its_clients() {
    on_one_thread(async {
        let (server, stage) = standalone(kept(Aof::EverySecond)).await;
        server.endpoint().tell(&format!("CLIENT PAUSE {} ALL", 2 * TIMEOUT)).await;
        stage.told("STORE_UNAVAILABLE").await;
        stage.holds().await;
    });
}

#[test]
fn its_scripts_are_forgotten_again_and_again() {
    on_one_thread(async {
        let (server, mut stage) = standalone(kept(Aof::EverySecond)).await;
        for _ in 0..20 {
            server.endpoint().tell("SCRIPT FLUSH").await;
            timeout(PATIENCE, stage.fleet.answered(10)).await.unwrap();
        }
        assert!(stage.fleet.world.told.borrow().is_empty(), "nobody hears of it");
        stage.holds().await;
    });
}

#[test]
fn its_connections_are_ended_by_an_administrator() {
    on_one_thread(async {
        let (server, mut stage) = standalone(kept(Aof::EverySecond)).await;
        for _ in 0..10 {
            server.endpoint().tell("CLIENT KILL TYPE normal SKIPME yes").await;
            timeout(PATIENCE, stage.fleet.answered(10)).await.unwrap();
        }
        stage.holds().await;
    });
}

/// Workers whose steps are gone would rightly complain; here are none.
async fn idle(options: Options) -> (Standalone, Stage) {
    let server = Standalone::start(Kind::Redis70, options).await;
    let mut stage = Stage::start(server.url(), 1, 1).await;
    stage.fleet.finish().await;
    (server, stage)
}

#[test]
fn emptied_by_somebody() {
    on_one_thread(async {
        let (server, stage) = idle(kept(Aof::EverySecond)).await;
        stage.begin_once(begin_of("a")).await.unwrap();
        server.endpoint().tell("FLUSHALL").await;
        begins_anew(&stage).await;
    });
}

#[test]
fn started_again_without_its_data() {
    on_one_thread(async {
        let (mut server, stage) = idle(Options::default()).await;
        stage.begin_once(begin_of("a")).await.unwrap();
        server.restart().await;
        begins_anew(&stage).await;
    });
}

/// What was there is gone, which is told; what comes is kept.
async fn begins_anew(stage: &Stage) {
    let again = async {
        loop {
            match stage.begin_once(begin_of("b")).await {
                Ok(()) => return,
                Err(status) => assert!(
                    matches!(status.code(), tonic::Code::NotFound | tonic::Code::Unavailable),
                    "{status:?}"
                ),
            }
        }
    };
    timeout(PATIENCE, again).await.unwrap();
    stage.get_once("b").await.unwrap();
    assert_eq!(stage.get_once("a").await.unwrap_err().code(), tonic::Code::NotFound);
    assert!(stage.logged().contains("the store is empty, and was not"), "{}", stage.logged());
}

#[test]
fn the_state_of_a_namespace_is_deleted() {
    on_one_thread(async {
        let (server, stage) = idle(kept(Aof::EverySecond)).await;
        stage.begin_once(begin_of("a")).await.unwrap();
        server.endpoint().tell("DEL reprise:{default}:state").await;
        let status = stage.begin_once(begin_of("b")).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
        // It is not made up anew over steps that it does not count.
        let found: Option<String> =
            server.endpoint().call("GET reprise:{default}:state").await.unwrap();
        assert_eq!(found, None);
    });
}

#[test]
fn something_else_is_in_a_steps_place() {
    on_one_thread(async {
        let (server, stage) = idle(kept(Aof::EverySecond)).await;
        stage.begin_once(begin_of("a")).await.unwrap();
        let key = "reprise:{default}:step:r a";
        let mut connection = server.endpoint().connect().await.unwrap();
        // The last says that the name of its policy is longer than it is itself.
        let long = [&[b'x'; 16][..], &[255], &[b'x'; 80]].concat();
        for value in [&b"x"[..], b"", &long] {
            redis::cmd("SET").arg(key).arg(value).exec_async(&mut connection).await.unwrap();
            let once_more = BeginAttemptRequest { request_id: vec![8; 16].into(), ..begin_of("a") };
            let code = stage.begin_once(once_more).await.unwrap_err().code();
            assert_eq!(code, tonic::Code::Internal);
            stage.begin_once(begin_of("b")).await.unwrap();
        }
    });
}

#[test]
fn an_instance_is_killed_while_another_works_on() {
    on_one_thread(async {
        let server = Standalone::start(Kind::Redis82, kept(Aof::EverySecond)).await;
        let mut stage = Stage::start(server.url(), 2, 8).await;
        for _ in 0..3 {
            stage.replace(0).await;
            stage.works().await;
        }
        assert!(stage.fleet.world.told.borrow().is_empty(), "the store was never away");
        stage.holds().await;
    });
}

#[test]
fn its_clock_is_set_forward() {
    on_one_thread(async {
        let (server, mut stage) = shifted().await;
        server.set_clock("+10m");
        stage.works().await;
        stage.holds().await;
    });
}

#[test]
fn its_clock_is_set_back() {
    on_one_thread(async {
        let (server, mut stage) = shifted().await;
        server.set_clock("-10m");
        stage.works().await;
        stage.holds().await;
    });
}

async fn shifted() -> (Standalone, Stage) {
    let options = Options { own_clock: true, ..kept(Aof::EverySecond) };
    let server = Standalone::start(Kind::Redis82, options).await;
    server.set_clock("+0");
    let stage = Stage::start(server.url(), 1, 6).await;
    (server, stage)
}

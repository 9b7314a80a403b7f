//! Four instances and many workers on few steps, while instances are killed.

use super::*;
use tokio::time::Instant;

const INSTANCES: usize = 4;
const WORKERS: u64 = 256;
/// With so many on so few processors nothing is quick, in milliseconds.
const PATIENT: u64 = 10_000;

/// How long: `REPRISE_HOT_SECONDS`, else what a test run has time for.
fn span() -> Duration {
    let seconds = std::env::var("REPRISE_HOT_SECONDS");
    Duration::from_secs(seconds.map_or(12, |seconds| seconds.parse().unwrap()))
}

#[test]
fn four_instances_race_on_few_steps_and_are_killed() {
    on_one_thread(async {
        let server = Standalone::start(Kind::Valkey91, kept(Aof::EverySecond)).await;
        let mut stage = Stage::start_with(server.url(), INSTANCES, WORKERS, PATIENT).await;
        stage.fleet.world.is_hot.set(true);
        let mut chance = Chance::seeded();
        let until = Instant::now() + span();
        let mut kills = 0;
        while Instant::now() < until {
            stage.works().await;
            let place = usize::try_from(chance.within(0..INSTANCES as u64)).unwrap();
            stage.replace(place).await;
            kills += 1;
        }
        println!("{kills} kills");
        stage.holds().await;
        each_step_is_filed(&server).await;
    });
}

//! When all faults have ended, every step that runs moves within its lease and a second
//! more, whoever fell silent: workers, servers or their Redis. What the store has
//! written is asked for that, by its own clock; and nobody is given up before a lease
//! has ended.

use std::{collections::BTreeMap, time::Duration};

use reprise::proto::{
    BeginAttemptRequest, GetStepRequest, HeartbeatRequest, LeaseState, Outcome, Policy,
    ReportAttemptRequest, ReportStatus, Step, StepState, Success, begin_attempt_request,
    begin_attempt_response::Answer, report_attempt_request,
    retry_service_client::RetryServiceClient,
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tonic::{Code, Response, Status, transport::Channel};

use crate::{
    process::{Server, serve},
    redis_servers::{Aof, Kind, Options, Standalone},
};

const STEPS: usize = 24;
/// After an outage leases are judged as of its beginning for so long: faults end with it.
const GRACE: u64 = 10 * SECOND;
/// In microseconds.
const SECOND: u64 = 1_000_000;
/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);
/// From one look at what changes to the next.
const LOOK: Duration = Duration::from_millis(50);

/// Servers over one store, and what workers know of their attempts.
struct Stage {
    folder: TempDir,
    redis: Option<Standalone>,
    servers: Vec<Server>,
    /// By step and number.
    attempts: BTreeMap<(usize, u32), Held>,
    calls: u64,
}

/// An attempt, as its worker knows it.
#[derive(Clone, Copy, Debug)]
struct Held {
    fence: u64,
    /// The end of its lease, as it was told last.
    until: u64,
}

impl Stage {
    /// So many servers over a Redis, or one by itself.
    async fn start(redis: Option<Standalone>, servers: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (attempts, calls) = (BTreeMap::new(), 0);
        let mut stage = Self { folder, redis, servers: Vec::new(), attempts, calls };
        for place in 0..servers {
            let server = stage.server(place).await;
            stage.servers.push(server);
        }
        stage
    }

    async fn server(&self, place: usize) -> Server {
        let data = self.folder.path().join(place.to_string());
        let listen = format!("unix:{}", self.folder.path().join(format!("{place}.sock")).display());
        let mut command = serve(&data, &listen);
        if let Some(redis) = &self.redis {
            command.args(["--store", &redis.url()]);
        }
        Server::start_with(&data, command).await
    }

    /// The answer, once there is one.
    async fn answered<A>(
        &self,
        place: usize,
        call: impl AsyncFn(RetryServiceClient<Channel>) -> Result<Response<A>, Status>,
    ) -> A {
        let asking = async {
            loop {
                match call(self.servers[place].client()).await {
                    Ok(answer) => return answer.into_inner(),
                    Err(status) => {
                        let is_misuse = matches!(
                            status.code(),
                            Code::InvalidArgument | Code::AlreadyExists | Code::NotFound
                        );
                        assert!(!is_misuse, "{status:?}");
                        sleep(LOOK).await;
                    }
                }
            }
        };
        timeout(PATIENCE, asking).await.expect("a call is answered when faults have ended")
    }

    /// Begins the next attempt of a step, if it is due. Nobody reports it.
    async fn begins(&mut self, place: usize, step: usize, lease: u64) {
        self.calls += 1;
        let mut request_id = vec![7; 16];
        request_id[..8].copy_from_slice(&self.calls.to_le_bytes());
        let policy = Policy { max_crash_retries: Some(1000), ..Policy::default() };
        let request = BeginAttemptRequest {
            run: "run".to_owned(),
            step: step.to_string(),
            request_id: request_id.into(),
            policy: Some(begin_attempt_request::Policy::InlinePolicy(policy)),
            lease: prost_types::Duration::try_from(Duration::from_micros(lease)).ok(),
            ..BeginAttemptRequest::default()
        };
        let begun = self
            .answered(place, async |mut client| client.begin_attempt(request.clone()).await)
            .await;
        if let Some(Answer::Grant(grant)) = begun.answer {
            let held = Held { fence: grant.fence, until: micros(grant.lease_until) };
            self.attempts.insert((step, grant.attempt), held);
        }
    }

    /// The latest attempt of a step is heard once more.
    async fn beats(&mut self, place: usize, step: usize) {
        let (attempt, held) = self.latest(step);
        let request = HeartbeatRequest {
            run: "run".to_owned(),
            step: step.to_string(),
            fence: held.fence,
            ..HeartbeatRequest::default()
        };
        let beat =
            self.answered(place, async |mut client| client.heartbeat(request.clone()).await).await;
        if beat.state() == LeaseState::Held {
            let until = micros(beat.lease_until);
            self.attempts.insert((step, attempt), Held { until, ..held });
        }
    }

    fn latest(&self, step: usize) -> (u32, Held) {
        let mut attempts = self.attempts.range((step, 0)..=(step, u32::MAX));
        let ((_, attempt), held) = attempts.next_back().expect("it was begun");
        (*attempt, *held)
    }

    async fn shown(&self, place: usize, step: usize) -> Step {
        let request = GetStepRequest {
            run: "run".to_owned(),
            step: step.to_string(),
            ..GetStepRequest::default()
        };
        let shown =
            self.answered(place, async |mut client| client.get_step(request.clone()).await).await;
        shown.step.expect("a step")
    }

    /// The store's time.
    async fn now(&self, place: usize) -> u64 {
        micros(self.shown(place, 0).await.read_at)
    }

    /// Waits until a step does not run any more.
    async fn moves(&self, place: usize, step: usize) -> Step {
        let moving = async {
            loop {
                let shown = self.shown(place, step).await;
                if shown.state() != StepState::Running {
                    return shown;
                }
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, moving).await.expect("every step that runs moves")
    }

    /// Waits until nothing runs, and holds each end to its lease: where faults ended
    /// at `faults_ended`, a second after that or after the lease.
    async fn all_move(&self, place: usize, faults_ended: u64) {
        for step in 0..STEPS {
            let shown = self.moves(place, step).await;
            for attempt in &shown.attempts {
                let Some(held) = self.attempts.get(&(step, attempt.number)) else { continue };
                let ended = micros(attempt.ended_at);
                assert_eq!(attempt.outcome(), Outcome::Crash, "{step}: {attempt:?}");
                assert!(held.until <= ended, "{step}: {attempt:?} of {held:?} was given up early");
                let latest = held.until.max(faults_ended) + SECOND;
                assert!(ended <= latest, "{step}: {attempt:?} of {held:?} ends after {latest}");
            }
        }
    }

    /// Workers come, some are heard once more, and all fall silent.
    async fn come_and_vanish(&mut self) {
        let servers = self.servers.len();
        for step in 0..STEPS {
            self.begins(step % servers, step, SECOND * (1 + step as u64 % 3)).await;
        }
        for step in (0..STEPS).step_by(2) {
            self.beats(step % servers, step).await;
        }
    }

    /// When all faults have ended: silence is noticed in time, and who was silent is told
    /// apart when it comes back.
    async fn lives_on(&mut self) {
        let faults_ended = self.now(0).await + GRACE;
        for step in 0..STEPS {
            self.begins(0, step, 2 * SECOND).await;
        }
        self.all_move(0, faults_ended).await;
        let waiting = async {
            while self.now(0).await <= faults_ended {
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("time passes");
        self.come_and_vanish().await;
        self.all_move(0, faults_ended).await;
        self.comes_back().await;
    }

    /// A worker that was stopped past its lease goes on: it counts where nobody else has
    /// begun since, once, however often it tells.
    async fn comes_back(&mut self) {
        let (_, overtaken) = self.latest(1);
        self.begins(0, 1, 2 * SECOND).await;
        let (_, in_time) = self.latest(0);
        for (step, held, status) in
            [(1, overtaken, ReportStatus::Stale), (0, in_time, ReportStatus::Late)]
        {
            for _ in 0..2 {
                let request = ReportAttemptRequest {
                    run: "run".to_owned(),
                    step: step.to_string(),
                    fence: held.fence,
                    outcome: Some(report_attempt_request::Outcome::Success(Success {})),
                    ..ReportAttemptRequest::default()
                };
                let told = self
                    .answered(0, async |mut client| client.report_attempt(request.clone()).await)
                    .await;
                assert_eq!(told.status(), status, "{step}: {told:?}");
            }
        }
        assert_eq!(self.shown(0, 0).await.state(), StepState::Succeeded);
        assert_eq!(self.shown(0, 1).await.state(), StepState::Running);
    }
}

fn micros(at: Option<prost_types::Timestamp>) -> u64 {
    let at = at.expect("an instant");
    at.seconds.unsigned_abs() * SECOND + u64::from(at.nanos.unsigned_abs()) / 1000
}

#[tokio::test]
async fn silence_is_noticed_in_time_when_the_server_was_killed() {
    let mut stage = Stage::start(None, 1).await;
    for _ in 0..2 {
        stage.come_and_vanish().await;
        stage.servers[0].kill().await;
        stage.servers[0] = stage.server(0).await;
    }
    stage.lives_on().await;
}

#[tokio::test]
async fn silence_is_noticed_in_time_when_servers_and_redis_were_away() {
    let options = Options { aof: Aof::Always, ..Options::default() };
    let redis = Standalone::start(Kind::Redis70, options).await;
    let mut stage = Stage::start(Some(redis), 3).await;
    stage.come_and_vanish().await;
    // One ends, one stands still for longer than the leases of its workers, and the
    // third goes on alone.
    stage.servers[0].kill().await;
    stage.servers[1].signal(Signal::STOP);
    let latest = stage.attempts.values().map(|held| held.until).max().unwrap();
    stage.all_move(2, latest).await;
    for step in 0..STEPS {
        stage.begins(2, step, 2 * SECOND).await;
    }
    let redis = stage.redis.as_mut().unwrap();
    redis.kill();
    redis.restart().await;
    stage.servers[1].signal(Signal::CONT);
    stage.servers[0] = stage.server(0).await;
    stage.lives_on().await;
}

//! `kill -9`, hundreds of times, while workers go on: nothing that was
//! acknowledged is lost, and nothing is counted twice.

pub mod ledger;
pub mod worker;

use std::{env, path::Path, rc::Rc, slice, time::Duration};

use reprise::proto::{
    BatchReportAttemptsRequest, CreatePolicyRequest, GetStepRequest, NamedPolicy,
    admin_service_client::AdminServiceClient, begin_attempt_response,
};
use rustix::process::Signal;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::watch,
    task::{JoinSet, LocalSet},
    time::{Instant, sleep},
};

use self::{
    ledger::{Terms, same_grant},
    worker::{Life, Worker, World},
};
use crate::{
    chance::Chance,
    process::{Server, serve},
};

const WORKERS: u64 = 16;
/// How long calls in flight may take when a server stops.
const DRAIN: Duration = Duration::from_secs(20);

/// How often the server is killed: `REPRISE_KILLS`, else what a test run has
/// time for.
fn kills() -> u64 {
    env::var("REPRISE_KILLS").map_or(200, |kills| kills.parse().expect("REPRISE_KILLS is a number"))
}

pub fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// A server that is replaced by another one on the same data, and the workers
/// that do not mind.
pub struct Fleet {
    pub world: Rc<World>,
    lives: watch::Sender<Vec<Life>>,
    generation: u64,
    workers: JoinSet<()>,
}

impl Fleet {
    /// Starts so many workers; they wait for servers.
    pub fn start(chance: &Chance, size: u64) -> Self {
        let (lives, watched) = watch::channel(Vec::new());
        let world = World::new(watched);
        let mut workers = JoinSet::new();
        for number in 0..size {
            workers.spawn_local(Worker::new(number, Rc::clone(&world), chance.of(number)).work());
        }
        Self { world, lives, generation: 0, workers }
    }

    /// Workers turn to this server.
    async fn meet(&mut self, server: &Server) {
        self.meet_all(slice::from_ref(server)).await;
    }

    /// Workers turn to these servers, each to any. All are new to them.
    pub async fn meet_all(&mut self, servers: &[Server]) {
        if self.generation == 0 {
            create_policy(&servers[0].channel()).await;
        }
        let mut life = |server: &Server| {
            self.generation += 1;
            Life { generation: self.generation, channel: server.channel() }
        };
        self.lives.send_replace(servers.iter().map(&mut life).collect());
    }

    /// Waits until `count` more calls are answered. A worker whose law was
    /// broken ends the test.
    pub async fn answered(&mut self, count: u64) {
        let mut answered = self.world.answered.subscribe();
        let enough = *answered.borrow() + count;
        tokio::select! {
            reached = answered.wait_for(|answered| *answered >= enough) => drop(reached.unwrap()),
            Some(ended) = self.workers.join_next() => ended.unwrap(),
        }
    }

    /// Workers come to an end; every call that was begun is answered.
    pub async fn finish(&mut self) {
        self.world.finish.set(true);
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
    }
}

async fn create_policy(channel: &tonic::transport::Channel) {
    let policy = NamedPolicy {
        name: "quick".to_owned(),
        policy: Some(Terms::Quick.policy()),
        ..NamedPolicy::default()
    };
    let request = CreatePolicyRequest { policy: Some(policy), ..CreatePolicyRequest::default() };
    AdminServiceClient::new(channel.clone()).create_policy(request).await.unwrap();
}

/// With a deadline of its own: after an outage calls are thought to take as
/// long as they did in it, and those that set none may be refused for it.
fn patient<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(Duration::from_secs(60));
    request
}

/// Holds what a server shows to what workers were told, and asks everything
/// again.
pub async fn audit(world: &World, server: &Server) {
    let mut client = server.client();
    let names = world.ledger.borrow().steps();
    for (run, step) in names {
        let request = GetStepRequest { namespace: String::new(), run, step };
        let shown = client.get_step(patient(request)).await;
        let shown = shown.unwrap_or_else(|status| panic!("{status:?}\n{}", server.logged()));
        let shown = shown.into_inner().step.unwrap();
        world.ledger.borrow().holds(&shown);
    }
    let reports = world.ledger.borrow().reports().to_vec();
    for reports in reports.chunks(256) {
        let request =
            BatchReportAttemptsRequest { namespace: String::new(), reports: reports.to_vec() };
        let results = patiently(|| {
            let (mut client, request) = (client.clone(), patient(request.clone()));
            async move { client.batch_report_attempts(request).await }
        })
        .await
        .results;
        assert_eq!(results.len(), reports.len());
        for (report, result) in reports.iter().zip(&results) {
            world.ledger.borrow_mut().replays(report, result);
        }
    }
    let grants = world.ledger.borrow().grants();
    for (request, first) in grants.into_iter().step_by(7) {
        let answer = patiently(|| {
            let (mut client, request) = (client.clone(), patient(request.clone()));
            async move { client.begin_attempt(request).await }
        })
        .await;
        let Some(begin_attempt_response::Answer::Grant(again)) = &answer.answer else {
            panic!("{first:?} -> {answer:?}")
        };
        assert!(answer.replayed, "{again:?}");
        same_grant(&first, again);
    }
}

/// The answer, once the store takes writes again: after a failover it may want
/// its replicas back first.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let asking = async {
        loop {
            match call().await {
                Ok(answer) => return answer.into_inner(),
                Err(status) if status.code() == tonic::Code::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(status) => panic!("{status:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.expect("the store comes back")
}

/// A server that is killed `kills` times, at moments drawn from `chance`.
async fn killed_again_and_again(
    data: &Path,
    listen: &str,
    chance: &mut Chance,
    kills: u64,
) -> Rc<World> {
    let mut fleet = Fleet::start(chance, WORKERS);
    for _ in 0..kills {
        let mut server = Server::start(data, listen).await;
        fleet.meet(&server).await;
        fleet.answered(chance.within(1..50)).await;
        for _ in 0..chance.within(0..16) {
            tokio::task::yield_now().await;
        }
        server.kill().await;
        // Now and then the next one does not live to see a call.
        if chance.percent(15) {
            let mut stillborn = Server::spawn(data, serve(data, listen));
            sleep(Duration::from_millis(chance.within(0..60))).await;
            stillborn.kill().await;
        }
    }
    let mut server = Server::start(data, listen).await;
    fleet.meet(&server).await;
    fleet.finish().await;
    assert!(fleet.world.told.borrow().is_empty(), "the store was never away");
    audit(&fleet.world, &server).await;
    // Dropped, it might still hold the store when the next one asks for it.
    server.kill().await;

    // And once more, from the disk alone.
    let server = Server::start(data, listen).await;
    audit(&fleet.world, &server).await;
    fleet.world
}

#[test]
fn a_server_killed_at_any_moment_loses_and_doubles_nothing() {
    on_one_thread(async {
        let mut chance = Chance::seeded();
        let folder = tempfile::tempdir().unwrap();
        let listen = format!("unix:{}", folder.path().join("reprise.sock").display());
        let kills = kills();
        let started = Instant::now();
        let world =
            killed_again_and_again(&folder.path().join("data"), &listen, &mut chance, kills).await;
        let (answered, repeated) = (*world.answered.borrow(), world.repeated.get());
        println!(
            "{kills} kills, {answered} calls answered, {repeated} repeated, {} attempts of {} steps, {:.1?}",
            world.ledger.borrow().attempts(),
            world.ledger.borrow().steps().len(),
            started.elapsed(),
        );
        assert!(
            repeated >= kills / 2,
            "only {repeated} calls met a death; these kills prove little"
        );
    });
}

/// A peer that connects and says nothing, or only half of hello.
async fn half_open(address: &str) -> (TcpStream, TcpStream) {
    let silent = TcpStream::connect(address).await.unwrap();
    let mut begun = TcpStream::connect(address).await.unwrap();
    begun.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    (silent, begun)
}

#[test]
fn a_server_told_to_stop_answers_what_it_took_and_goes() {
    on_one_thread(async {
        let mut chance = Chance::seeded();
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut fleet = Fleet::start(&chance, 8);
        let mut listen = "127.0.0.1:0".to_owned();
        for _ in 0..5 {
            let mut server = Server::start(&data, &listen).await;
            listen.clone_from(&server.address);
            let peers = half_open(&listen).await;
            fleet.meet(&server).await;
            fleet.answered(chance.within(20..60)).await;
            let told = Instant::now();
            server.signal(Signal::TERM);
            let status = server.ended().await;
            assert_eq!(status.code(), Some(0), "{}", server.logged());
            assert!(
                told.elapsed() < DRAIN + Duration::from_secs(5),
                "it took {:?}",
                told.elapsed()
            );
            println!("stopped within {:.1?}", told.elapsed());
            drop(peers);
        }
        let server = Server::start(&data, &listen).await;
        fleet.meet(&server).await;
        fleet.finish().await;
        audit(&fleet.world, &server).await;
    });
}

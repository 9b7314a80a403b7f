//! What breaks between `reprise serve` and its Redis, and Redis itself, under
//! load: callers are told the truth while it lasts, and afterwards nothing that
//! was acknowledged is lost and nothing is counted twice.

mod cluster;
mod failover;
mod hot;
mod network;
mod refusals;
mod server;

use std::{collections::BTreeMap, path::Path, time::Duration};

use reprise::{
    domain::id::StepKey,
    proto::{BeginAttemptRequest, GetStepRequest},
    store::{
        Changes, Expect, Store as _,
        redis::{Redis, RedisOptions, address::Address},
    },
};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    chance::Chance,
    kill::{Fleet, audit, on_one_thread},
    laws,
    process::{Server, serve},
    redis_servers::{Aof, Kind, Options, Proxy, Standalone},
};

/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a command may take here, in milliseconds.
const TIMEOUT: u64 = 1000;
/// Answers that show that work goes on.
const SOME: u64 = 60;
const NAMESPACE: &str = "default";

/// Instances over one store, and workers that do not mind what happens to it.
struct Stage {
    fleet: Fleet,
    url: String,
    /// How long a command may take, in milliseconds.
    timeout: u64,
    instances: Vec<Server>,
    folder: TempDir,
}

impl Stage {
    /// Starts so many instances and workers, and lets them work a little.
    async fn start(url: String, instances: usize, workers: u64) -> Self {
        Self::start_with(url, instances, workers, TIMEOUT).await
    }

    /// The same, where a command may take so many milliseconds.
    async fn start_with(url: String, instances: usize, workers: u64, timeout: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let chance = Chance::seeded();
        let fleet = Fleet::start(&chance, workers);
        let mut stage = Self { fleet, url, timeout, instances: Vec::new(), folder };
        for place in 0..instances {
            let instance = stage.instance(place).await;
            stage.instances.push(instance);
        }
        stage.fleet.meet_all(&stage.instances).await;
        stage.works().await;
        stage
    }

    async fn instance(&self, place: usize) -> Server {
        let data = self.folder.path().join(place.to_string());
        let listen = format!("unix:{}", self.folder.path().join(format!("{place}.sock")).display());
        let mut command = serve(&data, &listen);
        command.args(["--store", &self.url, "--set", &format!("store.timeout={}ms", self.timeout)]);
        Server::start_with(&data, command).await
    }

    /// An instance ends at once, and comes back.
    async fn replace(&mut self, place: usize) {
        self.instances[place].kill().await;
        self.instances[place] = self.instance(place).await;
        self.fleet.meet_all(&self.instances).await;
    }

    /// Waits until workers got more answers.
    async fn works(&mut self) {
        timeout(PATIENCE, self.fleet.answered(SOME)).await.unwrap_or_else(|_| {
            panic!("calls are not answered, but {:?}", self.fleet.world.told.borrow())
        });
    }

    /// Forgets what callers were told so far.
    fn listen_anew(&self) {
        self.fleet.world.told.send_replace(BTreeMap::new());
    }

    /// Waits until callers were told something with these words in place of an
    /// answer.
    async fn told(&self, words: &str) {
        let mut told = self.fleet.world.told.subscribe();
        let heard = told.wait_for(|told| told.keys().any(|said| said.contains(words)));
        if timeout(PATIENCE, heard).await.is_err() {
            panic!("nobody was told {words:?}, but {:?}", self.fleet.world.told.borrow());
        }
    }

    /// Waits until health says so, of the first instance.
    async fn health(&self, wanted: ServingStatus) {
        let mut client = HealthClient::new(self.instances[0].channel());
        let mut told = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        let waiting = async {
            while let Some(now) = told.message().await.unwrap() {
                if now.status() == wanted {
                    return;
                }
            }
            panic!("health is not told any more");
        };
        let waited = timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("{wanted:?} in vain; {}", self.logged()));
    }

    fn logged(&self) -> String {
        self.instances[0].logged()
    }

    /// One call that is made once.
    async fn begin_once(&self, request: BeginAttemptRequest) -> Result<(), Status> {
        self.instances[0].client().begin_attempt(request).await.map(|_| ())
    }

    async fn get_once(&self, step: &str) -> Result<(), Status> {
        let request =
            GetStepRequest { namespace: String::new(), run: "r".to_owned(), step: step.to_owned() };
        self.instances[0].client().get_step(request).await.map(|_| ())
    }

    /// Work goes on, comes to an end, and everything is as callers were told.
    async fn holds(mut self) {
        self.health(ServingStatus::Serving).await;
        self.works().await;
        self.fleet.finish().await;
        audit(&self.fleet.world, self.instances.last().unwrap()).await;
        let histories = self.fleet.world.ledger.borrow().histories();
        for history in histories {
            laws::check(&history).unwrap();
        }
        let steps = self.fleet.world.ledger.borrow().steps();
        let store = opened(&self.url).await;
        let (mut live, mut changes) = (0, 0);
        for (run, step) in steps {
            let key = StepKey { namespace: NAMESPACE, run: &run, step: &step };
            let record = store.load(&key, Expect::Anything).await.unwrap().record.unwrap();
            live += u64::from(!record.is_over());
            changes += record.version;
        }
        assert_eq!(store.live_steps(NAMESPACE).await.unwrap(), live, "live steps are counted");
        let mut from = 0;
        let latest = loop {
            match store.follow(NAMESPACE, from, 10_000).await.unwrap() {
                Changes::Gap(oldest) => from = oldest,
                Changes::Follow(entries) => break entries.last().map_or(from, |last| last.number),
            }
        };
        assert_eq!(latest, changes, "each change has its number");
        let told = self.fleet.world.told.borrow().clone();
        println!("{} answers, {told:?}", *self.fleet.world.answered.borrow());
    }
}

async fn opened(url: &str) -> Redis {
    let address = Address::parse(url).unwrap();
    let timeout = Duration::from_secs(5);
    Redis::open(RedisOptions { timeout, ..RedisOptions::new(address) }).await.unwrap()
}

/// One server that keeps what it is told, one instance and six workers.
async fn standalone(options: Options) -> (Standalone, Stage) {
    let server = Standalone::start(Kind::Redis70, options).await;
    let stage = Stage::start(server.url(), 1, 6).await;
    (server, stage)
}

/// The same through a proxy.
async fn behind_proxy() -> (Standalone, Proxy, Stage) {
    let server = Standalone::start(Kind::Valkey91, kept(Aof::EverySecond)).await;
    let proxy = Proxy::start(server.address()).await;
    let stage = Stage::start(server.url_at(proxy.address()), 1, 6).await;
    (server, proxy, stage)
}

fn kept(aof: Aof) -> Options {
    Options { aof, ..Options::default() }
}

/// A begin of a step of nobody's.
fn begin_of(step: &str) -> BeginAttemptRequest {
    BeginAttemptRequest {
        run: "r".to_owned(),
        step: step.to_owned(),
        request_id: vec![7; 16].into(),
        ..BeginAttemptRequest::default()
    }
}

/// Every entry of the event index is of a step, and every step has one.
async fn each_step_is_filed(server: &Standalone) {
    let keys: Vec<String> =
        server.endpoint().call(&format!("KEYS reprise:{{{NAMESPACE}}}:step:*")).await.unwrap();
    let filed: usize =
        server.endpoint().call(&format!("ZCARD reprise:{{{NAMESPACE}}}:events")).await.unwrap();
    assert_eq!(keys.len(), filed);
}

fn file_in(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

//! Workers that wait for a decision: woken when there is something for them to
//! do, by whichever instance, once each and in order, at next to no cost.

use std::{
    fs,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use reprise::{
    chance,
    clock::Clock,
    domain::time::Timestamp,
    grpc::{
        listener::{Listener, ListenerSettings},
        retry::Retry,
    },
    proto::{
        AwaitDecisionRequest, AwaitDecisionResponse, AwaitState, BeginAttemptRequest, Concurrency,
        CreateTargetRequest, Decision, Grant, NamedTarget, PauseTargetRequest, Rate, Reason,
        ReportAttemptRequest, ResumeTargetRequest, Success, Target,
        admin_service_client::AdminServiceClient, begin_attempt_response::Answer,
        report_attempt_request::Outcome, retry_service_client::RetryServiceClient,
        retry_service_server::RetryServiceServer,
    },
    service::Service,
    store::embedded::Embedded,
    telemetry::Telemetry,
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    process::Command,
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, service::Routes, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    process::{Server, channel, serve},
    redis_servers::{Kind, Options, Standalone},
};

type Client = RetryServiceClient<Channel>;

/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
/// Waiters on one connection: fewer than a server lets one have calls in flight.
const ON_ONE: usize = 100;

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn pool(max: u32) -> Target {
    Target { concurrency: Some(Concurrency { max }), ..Target::default() }
}

fn rate(limit: u32, burst: u32) -> Target {
    let rate = Rate { limit, period: seconds(1), burst: Some(burst), ..Rate::default() };
    Target { rate: Some(rate), ..Target::default() }
}

async fn create(server: &Server, name: &str, target: Target) {
    let target = NamedTarget { name: name.into(), target: Some(target), ..NamedTarget::default() };
    let request = CreateTargetRequest { target: Some(target), ..CreateTargetRequest::default() };
    AdminServiceClient::new(server.channel()).create_target(request).await.unwrap();
}

/// A server on an embedded store in a folder of its own.
async fn server() -> (TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), "127.0.0.1:0").await;
    (folder, server)
}

/// One that keeps nothing, for figures that are not the disk's.
async fn server_in_memory() -> (TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let server = instance(folder.path(), "none", "memory").await;
    (folder, server)
}

/// An instance on a store.
async fn instance(folder: &Path, name: &str, url: &str) -> Server {
    let data = folder.join(name);
    let mut command = serve(&data, "127.0.0.1:0");
    command.args(["--store", url]);
    Server::start_with(&data, command).await
}

/// A worker of one step.
#[derive(Clone)]
struct Worker {
    client: Client,
    step: String,
    target: &'static str,
}

impl Worker {
    fn new(client: Client, step: impl Into<String>, target: &'static str) -> Self {
        Self { client, step: step.into(), target }
    }

    async fn begin(&mut self) -> Answer {
        let request = BeginAttemptRequest {
            run: "r".into(),
            step: self.step.clone(),
            request_id: chance::bytes::<16>().to_vec().into(),
            targets: vec![self.target.into()],
            lease: seconds(600),
            awaits: true,
            ..BeginAttemptRequest::default()
        };
        loop {
            match self.client.begin_attempt(request.clone()).await {
                Ok(answer) => return answer.into_inner().answer.unwrap(),
                // A machine that is busy with others; nothing was begun.
                Err(busy) if busy.message().contains("deadline") => {}
                Err(busy) if busy.code() == Code::ResourceExhausted => {}
                Err(status) => panic!("{status:?}"),
            }
        }
    }

    async fn granted(&mut self) -> Grant {
        match self.begin().await {
            Answer::Grant(grant) => grant,
            Answer::Refusal(refusal) => panic!("{}: {refusal:?}", self.step),
        }
    }

    async fn refused(&mut self) -> Decision {
        match self.begin().await {
            Answer::Refusal(refusal) => refusal,
            Answer::Grant(grant) => panic!("{}: {grant:?}", self.step),
        }
    }

    async fn succeed(&mut self, grant: &Grant) {
        let request = ReportAttemptRequest {
            run: "r".into(),
            step: self.step.clone(),
            fence: grant.fence,
            outcome: Some(Outcome::Success(Success {})),
            ..ReportAttemptRequest::default()
        };
        self.client.report_attempt(request).await.unwrap();
    }

    async fn wait(&mut self, at_most: i64) -> Result<AwaitDecisionResponse, Status> {
        let request = AwaitDecisionRequest {
            run: "r".into(),
            step: self.step.clone(),
            timeout: seconds(at_most),
            ..AwaitDecisionRequest::default()
        };
        Ok(self.client.await_decision(request).await?.into_inner())
    }

    /// Waits until there is something to do.
    async fn ready(&mut self) {
        while self.wait(20).await.unwrap().state() != AwaitState::Ready {}
    }

    /// Waits in a task of its own.
    fn waiting(&self, at_most: i64) -> JoinHandle<Result<AwaitDecisionResponse, Status>> {
        let mut worker = self.clone();
        tokio::spawn(async move { worker.wait(at_most).await })
    }

    /// Waits until it may start, starts and is done. When it started, µs, and how
    /// often it asked.
    async fn work(mut self) -> (i64, u32) {
        for asked in 1.. {
            self.ready().await;
            if let Answer::Grant(grant) = self.begin().await {
                self.succeed(&grant).await;
                return (micros(grant.began_at.unwrap()), asked);
            }
        }
        unreachable!()
    }
}

fn micros(at: prost_types::Timestamp) -> i64 {
    at.seconds * 1_000_000 + i64::from(at.nanos) / 1000
}

/// Workers that are refused, one after the other: the first is the senior. What
/// each does then begins at once.
async fn refused<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    server: &Server,
    target: &'static str,
    count: usize,
    then: impl Fn(usize, Worker) -> F,
) -> JoinSet<T> {
    let mut tasks = JoinSet::new();
    let mut client = server.client();
    for at in 0.. {
        if tasks.len() == count {
            break;
        }
        if at % ON_ONE == 0 {
            client = server.client();
        }
        let mut worker = Worker::new(client.clone(), format!("step-{at:05}"), target);
        if let Answer::Refusal(_) = worker.begin().await {
            tasks.spawn(then(tasks.len(), worker));
        }
    }
    tasks
}

/// Workers that were refused and then wait until they are done.
async fn working(
    server: &Server,
    target: &'static str,
    count: usize,
) -> JoinSet<(usize, (i64, u32))> {
    refused(server, target, count, async |at, worker| (at, worker.work().await)).await
}

/// What became of them: when each started, in their order, and how often one
/// asked in the mean.
async fn all_done(mut tasks: JoinSet<(usize, (i64, u32))>) -> (Vec<i64>, f64) {
    let (mut starts, mut asked) = (vec![0; tasks.len()], 0);
    while let Some(done) = tasks.join_next().await {
        let (at, (start, asks)) = done.unwrap();
        starts[at] = start;
        asked += asks;
    }
    #[expect(clippy::cast_precision_loss, reason = "few thousands")]
    let mean = f64::from(asked) / starts.len() as f64;
    (starts, mean)
}

/// How many that came later started before one.
fn overtaken(starts: &[i64]) -> usize {
    let later = |at: usize| starts[at..].iter().filter(|start| **start < starts[at]).count();
    (0..starts.len()).map(later).max().unwrap_or(0)
}

/// Memory of a process, MiB, and the time that it has computed, s.
fn spent(server: &Server) -> (u64, f64) {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = resident.split_whitespace().next().unwrap().parse().unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u32 = [fields[11], fields[12]].iter().map(|it| it.parse::<u32>().unwrap()).sum();
    (kib / 1024, f64::from(ticks) / 100.0)
}

/// So many waiters for four permits, which are given back one after the other.
async fn waiters_for_permits(server: Server, count: usize) {
    create(&server, "pool", pool(4)).await;
    let mut holders = Vec::new();
    for at in 0..4 {
        let mut holder = Worker::new(server.client(), format!("holder-{at}"), "pool");
        holders.push((holder.granted().await, holder));
    }
    let workers = working(&server, "pool", count).await;
    for (grant, mut holder) in holders {
        holder.succeed(&grant).await;
    }
    let (starts, asked) = all_done(workers).await;
    println!("asked {asked:.3} times each, overtaken by {} at most", overtaken(&starts));
    assert!(asked <= 1.1, "asked {asked} times each");
    assert!(overtaken(&starts) <= 8, "overtaken by {}", overtaken(&starts));
}

#[tokio::test]
async fn a_thousand_waiters_for_four_permits_are_sent_for_once_each_in_their_order() {
    let (_folder, server) = server().await;
    waiters_for_permits(server, 1000).await;
}

#[tokio::test]
#[ignore = "takes a minute"]
async fn ten_thousand_waiters_for_four_permits_are_sent_for_once_each_in_their_order() {
    let (_folder, server) = server_in_memory().await;
    waiters_for_permits(server, 10_000).await;
}

/// So many waiters for a rate.
async fn waiters_for_starts(count: usize, limit: u32) {
    let (_folder, server) = server().await;
    create(&server, "api", rate(limit, limit)).await;
    let workers = working(&server, "api", count).await;
    let (_, asked) = all_done(workers).await;
    println!("asked {asked:.3} times each");
    assert!(asked <= 1.1, "asked {asked} times each");
}

#[tokio::test]
async fn waiters_for_a_rate_come_once_each() {
    waiters_for_starts(300, 50).await;
}

#[tokio::test]
#[ignore = "takes two minutes"]
async fn ten_thousand_waiters_for_a_hundred_starts_a_second_come_once_each() {
    waiters_for_starts(10_000, 100).await;
}

#[tokio::test]
#[ignore = "takes a minute"]
async fn ten_thousand_idle_waiters_cost_next_to_nothing() {
    const IDLE: Duration = Duration::from_secs(10);
    let (_folder, server) = server().await;
    create(&server, "pool", pool(1)).await;
    Worker::new(server.client(), "holder", "pool").granted().await;
    let (memory_before, _) = spent(&server);
    let _waits =
        refused(&server, "pool", 10_000, async |_, mut worker| worker.wait(60).await).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (memory, began) = spent(&server);
    tokio::time::sleep(IDLE).await;
    let share = (spent(&server).1 - began) / IDLE.as_secs_f64();
    println!(
        "{memory} MiB, {} of them for waiting, {:.1} % of a core",
        memory - memory_before,
        share * 100.0
    );
    assert!(memory - memory_before <= 100, "{} MiB", memory - memory_before);
    assert!(share <= 0.05, "{share} of a core");
}

/// Hands one permit from worker to worker; how long each took from the report of
/// the one before it to its own answer, sorted.
async fn handovers(here: &Server, there: &Server, count: usize) -> Vec<Duration> {
    create(here, "pool", pool(1)).await;
    let mut took = Vec::new();
    let mut holder = Worker::new(here.client(), "first", "pool");
    let mut grant = holder.granted().await;
    let (mut mine, mut other) = (here.client(), there.client());
    for at in 0..count {
        let mut next = Worker::new(other.clone(), format!("next-{at}"), "pool");
        assert_eq!(next.refused().await.reason(), Reason::InLine);
        let wait = next.waiting(20);
        // Long enough for the wait to have begun in nearly every case; where it had
        // not, it is answered at once.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let began = Instant::now();
        holder.succeed(&grant).await;
        let answer = wait.await.unwrap().unwrap();
        took.push(began.elapsed());
        assert_eq!(answer.state(), AwaitState::Ready);
        grant = next.granted().await;
        holder = next;
        std::mem::swap(&mut mine, &mut other);
        holder.client = mine.clone();
    }
    took.sort();
    println!("half within {:?}, 99 % within {:?}", took[count / 2], took[count * 99 / 100]);
    took
}

#[tokio::test]
async fn a_permit_that_comes_free_is_told_at_once() {
    let (_folder, server) = server().await;
    let took = handovers(&server, &server, 100).await;
    assert!(took[50] <= Duration::from_millis(250), "{:?}", took[50]);
}

#[tokio::test]
async fn a_permit_that_comes_free_at_one_instance_is_told_at_another() {
    let redis = Standalone::start(Kind::Redis70, Options::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let one = instance(folder.path(), "one", &redis.url()).await;
    let other = instance(folder.path(), "other", &redis.url()).await;
    let took = handovers(&one, &other, 50).await;
    assert!(took[25] <= Duration::from_millis(500), "{:?}", took[25]);
}

#[tokio::test]
async fn an_operator_who_resumes_a_target_wakes_who_waits_for_it_at_every_instance() {
    let redis = Standalone::start(Kind::Redis70, Options::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let one = instance(folder.path(), "one", &redis.url()).await;
    let other = instance(folder.path(), "other", &redis.url()).await;
    create(&one, "api", pool(1)).await;
    let mut holder = Worker::new(one.client(), "holder", "api");
    let grant = holder.granted().await;
    let mut worker = Worker::new(other.client(), "a", "api");
    assert_eq!(worker.refused().await.reason(), Reason::InLine);
    let mut admin = AdminServiceClient::new(one.channel());
    let (name, reason) = ("api".to_owned(), "it is being moved".to_owned());
    let request = PauseTargetRequest { name, reason, by: "ann".into(), ..Default::default() };
    admin.pause_target(request).await.unwrap();
    holder.succeed(&grant).await;
    let wait = worker.waiting(20);
    assert_eq!(worker.wait(1).await.unwrap().state(), AwaitState::Waiting);
    let request = ResumeTargetRequest { name: "api".into(), ..Default::default() };
    admin.resume_target(request).await.unwrap();
    let answer = timeout(PATIENCE, wait).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.state(), AwaitState::Ready);
    worker.granted().await;
}

#[tokio::test]
async fn a_wait_that_is_not_over_says_so_and_changes_nothing() {
    let (_folder, server) = server().await;
    create(&server, "pool", pool(1)).await;
    Worker::new(server.client(), "holder", "pool").granted().await;
    let mut worker = Worker::new(server.client(), "a", "pool");
    let refused = worker.refused().await;
    for at_most in [0, 1] {
        let answer = worker.wait(at_most).await.unwrap();
        assert_eq!(answer.state(), AwaitState::Waiting);
        let standing = answer.decision.unwrap();
        assert_eq!(
            (standing.reason(), standing.not_before),
            (refused.reason(), refused.not_before)
        );
    }
}

#[tokio::test]
async fn who_waits_when_the_server_stops_is_answered() {
    let (_folder, mut server) = server().await;
    create(&server, "pool", pool(1)).await;
    Worker::new(server.client(), "holder", "pool").granted().await;
    let mut worker = Worker::new(server.client(), "a", "pool");
    worker.refused().await;
    let waits: Vec<_> = (0..50).map(|_| worker.waiting(60)).collect();
    // One that is answered came after the others were.
    worker.wait(0).await.unwrap();
    let began = Instant::now();
    server.signal(Signal::TERM);
    for wait in waits {
        assert_eq!(wait.await.unwrap().unwrap().state(), AwaitState::Waiting);
    }
    assert!(server.ended().await.success());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test]
async fn who_goes_away_leaves_no_place_behind() {
    let clock = Clock::system(Timestamp::EPOCH);
    let store = Embedded::memory(clock.clone());
    let service = Arc::new(Service::new(store, Arc::new(Telemetry::new()), clock.clone()));
    let listen = ["127.0.0.1:0".parse().unwrap()];
    let listener = Listener::bind(&listen, ListenerSettings::default(), chance::unit).unwrap();
    let address = listener.addresses()[0].to_string();
    let retry = RetryServiceServer::new(Retry::new(Arc::clone(&service), clock));
    tokio::spawn(listener.serve(Routes::new(retry), CancellationToken::new()));
    let mut worker = Worker::new(RetryServiceClient::new(channel(&address)), "a", "pool");
    worker.granted().await;
    let waits: Vec<_> = (0..10).map(|_| worker.waiting(60)).collect();
    let count = |count: usize| {
        let service = Arc::clone(&service);
        async move {
            while service.waiting() != count {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(PATIENCE, count(10)).await.expect("they wait");
    waits.iter().for_each(JoinHandle::abort);
    timeout(PATIENCE, count(0)).await.expect("they are gone");
}

#[tokio::test]
async fn a_wait_for_what_cannot_be_waited_for_is_refused() {
    let (_folder, server) = server().await;
    let mut worker = Worker::new(server.client(), "a", "pool");
    let unknown = worker.wait(1).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    worker.granted().await;
    let long = worker.wait(61).await.unwrap_err();
    assert_eq!(long.code(), Code::InvalidArgument);
    let fields = long.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields[0].field, "timeout");
    assert_eq!(fields[0].description, "1m 1s: accepted: 0s to 1m");
    let mut nameless = Worker::new(server.client(), "a b", "pool");
    let bad = nameless.wait(1).await.unwrap_err();
    assert_eq!(bad.get_details_bad_request().unwrap().field_violations[0].field, "step");
}

#[tokio::test]
async fn who_waits_for_a_step_that_another_runs_hears_of_its_end() {
    let (_folder, server) = server().await;
    let mut worker = Worker::new(server.client(), "a", "pool");
    let grant = worker.granted().await;
    let asked = Arc::new(AtomicU32::new(0));
    let wait = {
        let (mut other, asked) = (worker.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            loop {
                asked.fetch_add(1, Ordering::Relaxed);
                let answer = other.wait(20).await.unwrap();
                if answer.state() != AwaitState::Waiting {
                    return answer;
                }
            }
        })
    };
    assert_eq!(worker.wait(0).await.unwrap().decision.unwrap().reason(), Reason::InProgress);
    worker.succeed(&grant).await;
    let answer = wait.await.unwrap();
    assert_eq!((answer.state(), asked.load(Ordering::Relaxed)), (AwaitState::Ready, 1));
    assert_eq!(answer.decision.unwrap().reason(), Reason::Succeeded);
}

#[tokio::test]
async fn exec_runs_its_command_when_its_turn_has_come() {
    let (_folder, server) = server().await;
    create(&server, "pool", pool(1)).await;
    let mut holder = Worker::new(server.client(), "holder", "pool");
    let grant = holder.granted().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    command
        .args(["--addr", &server.address, "exec", "--run", "r", "--step", "b"])
        .args(["--target", "pool", "--", "echo", "it ran"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let exec = command.spawn().unwrap();
    let mut watcher = Worker::new(server.client(), "b", "pool");
    timeout(PATIENCE, async {
        while watcher.wait(0).await.map_or(true, |seen| seen.state() != AwaitState::Waiting) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it stands in line");
    holder.succeed(&grant).await;
    // Long before it would have come by itself.
    let output = timeout(PATIENCE, exec.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "it ran\n", "{output:?}");
}

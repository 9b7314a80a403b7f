//! Figures of claims, for whoever wants to know: steps handed out a second, how long
//! after it is due a step is handed out, and what thousands cost who wait in vain.
//!
//! Left out of a usual run. On a quiet machine, with Redis 7.0 on the same one:
//!
//! ```text
//! cargo nextest run --release --run-ignored only --no-capture -E 'test(claims_figures)'
//! ```

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt as _, stream};
use reprise::{
    chance,
    proto::{
        BatchReportAttemptsRequest, BeginAttemptRequest, ClaimDueRequest, ClaimedStep, Failure,
        FailureClass, ReportAttemptRequest, batch_report_result, begin_attempt_request,
        begin_attempt_response::Answer, report_attempt_request::Outcome,
        retry_service_client::RetryServiceClient,
    },
};
use tokio::{sync::mpsc::unbounded_channel, task::JoinSet, time::Instant};
use tonic::transport::Channel;

use crate::{
    process::{Server, channel, serve},
    redis_servers::{Kind, Options, Standalone},
};

/// Steps that are handed out at full speed.
const STEPS: usize = 50_000;
/// Calls that are made at the same time to fill a queue.
const ABREAST: usize = 128;
/// Reports in a batch, and steps in a claim.
const BATCH: usize = 64;
/// Claimers at full speed.
const CLAIMERS: usize = 8;
/// Steps that come due while nothing else happens.
const ALONE: usize = 200;
/// Calls that wait in vain, and the connections that they share.
const IDLE: (usize, usize) = (10_000, 100);
/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(20);

type Client = RetryServiceClient<Channel>;

/// A server on a Redis of its own.
struct Stage {
    server: Server,
    _redis: Standalone,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn on_redis() -> Self {
        let redis = Standalone::start(Kind::Redis70, Options::default()).await;
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut command = serve(&data, "127.0.0.1:0");
        command.args(["--store", &redis.url()]);
        let server = Server::start_with(&data, command).await;
        Self { server, _redis: redis, _folder: folder }
    }

    fn clients(&self, count: usize) -> Vec<Client> {
        (0..count).map(|_| Client::new(channel(&self.server.address))).collect()
    }

    /// CPU time that the server has used.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server.pid())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        // Fields 14 and 15 of the file, in hundredths of a second.
        let ticks = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    /// Memory that the server has, in bytes.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.pid()));
        let status = status.unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

fn span(length: Duration) -> prost_types::Duration {
    length.try_into().unwrap()
}

fn name(at: usize) -> (String, String) {
    (format!("run-{}", at % 100), format!("step-{at}"))
}

fn begin(queue: &str, at: usize, delay: Duration) -> BeginAttemptRequest {
    use reprise::proto::{Backoff, FixedBackoff, Policy, backoff::Shape};
    let shape = Shape::Fixed(FixedBackoff { delay: Some(span(delay)) });
    let backoff = Some(Backoff { shape: Some(shape), ..Backoff::default() });
    let policy = Policy { backoff, ..Policy::default() };
    let (run, step) = name(at);
    BeginAttemptRequest {
        run,
        step,
        queue: queue.to_owned(),
        payload: b"what to load".as_slice().into(),
        request_id: vec![1; 16].into(),
        policy: Some(begin_attempt_request::Policy::InlinePolicy(policy)),
        ..BeginAttemptRequest::default()
    }
}

/// The report of an attempt, by the fence of its grant: it holds its lease.
fn failed(at: usize, fence: u64) -> ReportAttemptRequest {
    let (run, step) = name(at);
    let failure = Failure { class: FailureClass::Transient.into(), ..Failure::default() };
    ReportAttemptRequest {
        run,
        step,
        fence,
        outcome: Some(Outcome::Failure(failure)),
        ..ReportAttemptRequest::default()
    }
}

fn claim(queue: &str, most: usize, timeout: Duration) -> ClaimDueRequest {
    ClaimDueRequest {
        queue: queue.to_owned(),
        request_id: chance::bytes::<16>().to_vec().into(),
        max_steps: Some(u32::try_from(most).unwrap()),
        timeout: Some(span(timeout)),
        // Nobody reports, and nothing is to return meanwhile.
        lease: Some(span(Duration::from_secs(3600))),
        ..ClaimDueRequest::default()
    }
}

/// Steps that are handed out; until something is, where the server is overloaded.
async fn claimed(client: &mut Client, request: ClaimDueRequest) -> Vec<ClaimedStep> {
    loop {
        if let Ok(answer) = client.claim_due(request.clone()).await {
            return answer.into_inner().steps;
        }
    }
}

/// The fence of an attempt that begins, however often the server is overloaded.
async fn granted(client: &mut Client, request: BeginAttemptRequest) -> u64 {
    loop {
        let Ok(begun) = client.begin_attempt(request.clone()).await else { continue };
        match begun.into_inner().answer {
            Some(Answer::Grant(grant)) => return grant.fence,
            other => panic!("{other:?}"),
        }
    }
}

/// Fills a queue with steps that are due.
async fn fill(clients: &[Client], queue: &str, count: usize) {
    let begun =
        stream::iter(0..count).map(|at| {
            let mut client = clients[at % clients.len()].clone();
            async move {
                failed(at, granted(&mut client, begin(queue, at, Duration::from_millis(1))).await)
            }
        });
    let failures: Vec<_> = begun.buffer_unordered(ABREAST).collect().await;
    for (from, reports) in failures.chunks(BATCH).enumerate() {
        let reports = reports.to_vec();
        let request = BatchReportAttemptsRequest { reports, ..Default::default() };
        let mut client = clients[from % clients.len()].clone();
        let results = loop {
            if let Ok(answer) = client.batch_report_attempts(request.clone()).await {
                break answer.into_inner().results;
            }
        };
        let is_taken = |result: &Option<batch_report_result::Result>| {
            matches!(result, Some(batch_report_result::Result::Response(_)))
        };
        assert!(results.iter().all(|result| is_taken(&result.result)));
    }
}

#[tokio::test]
#[ignore = "prints figures, for a quiet machine"]
async fn steps_handed_out_a_second() {
    let stage = Stage::on_redis().await;
    let clients = stage.clients(4);
    fill(&clients, "etl", STEPS).await;
    let (before, began) = (stage.cpu(), Instant::now());
    let mut tasks = JoinSet::new();
    for at in 0..CLAIMERS {
        let mut client = clients[at % clients.len()].clone();
        tasks.spawn(async move {
            let mut count = 0;
            loop {
                let steps = claimed(&mut client, claim("etl", BATCH, Duration::ZERO)).await;
                if steps.is_empty() {
                    return count;
                }
                count += steps.len();
            }
        });
    }
    let mut count = 0;
    while let Some(handed) = tasks.join_next().await {
        count += handed.unwrap();
    }
    let (took, cpu) = (began.elapsed(), stage.cpu() - before);
    println!(
        "{count} of {STEPS} steps handed out in {took:.2?}: {:.0} a second, {:.1} µs of CPU each",
        count as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / count as f64
    );
}

#[tokio::test]
#[ignore = "prints figures, for a quiet machine"]
async fn from_due_to_handed_out_while_idle() {
    let stage = Stage::on_redis().await;
    for delay in [1, 20, 100].map(Duration::from_millis) {
        let queue = format!("after-{}", delay.as_millis());
        let (sender, mut arrivals) = unbounded_channel();
        let mut tasks = JoinSet::new();
        for mut client in stage.clients(4) {
            let (queue, sender) = (queue.clone(), sender.clone());
            tasks.spawn(async move {
                loop {
                    let request = claim(&queue, 1, Duration::from_secs(20));
                    for step in claimed(&mut client, request).await {
                        let _ = sender.send((step.step, Instant::now()));
                    }
                }
            });
        }
        let mut client = stage.server.client();
        let (mut due, mut waits) = (HashMap::new(), Vec::new());
        for at in 0..ALONE {
            // Each delay has steps of its own.
            let at = usize::try_from(delay.as_millis()).unwrap() * ALONE + at;
            let fence = granted(&mut client, begin(&queue, at, delay)).await;
            let report = client.report_attempt(failed(at, fence)).await.unwrap().into_inner();
            let decision = report.decision;
            let left: Duration = decision.unwrap().delay.unwrap().try_into().unwrap();
            due.insert(name(at).1, Instant::now() + left);
            let (step, at) = arrivals.recv().await.unwrap();
            waits.push(at.saturating_duration_since(due[&step]));
        }
        waits.sort();
        println!(
            "due after {delay:?}: handed out p50 {:.1?}, p99 {:.1?} after it was due",
            waits[ALONE / 2],
            waits[ALONE * 99 / 100]
        );
    }
}

#[tokio::test]
#[ignore = "prints figures, for a quiet machine"]
async fn thousands_that_wait_in_vain() {
    let stage = Stage::on_redis().await;
    let (calls, connections) = IDLE;
    let clients = stage.clients(connections);
    for client in &clients {
        claimed(&mut client.clone(), claim("etl", 1, Duration::ZERO)).await;
    }
    let before = stage.resident();
    let mut tasks = JoinSet::new();
    for at in 0..calls {
        let mut client = clients[at % connections].clone();
        tasks.spawn(async move {
            loop {
                claimed(&mut client, claim("etl", 1, Duration::from_secs(60))).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (cpu, began) = (stage.cpu(), Instant::now());
    tokio::time::sleep(WATCHED).await;
    let share = (stage.cpu() - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    println!(
        "{calls} calls on {connections} connections wait: {:.1} % of a core, {:.1} kB each",
        100.0 * share,
        (stage.resident() - before) as f64 / calls as f64 / 1e3
    );
}

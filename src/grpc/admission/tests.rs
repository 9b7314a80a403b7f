//! Admission in virtual time: every rule by itself, then a simulated service under
//! load, and the layer as a client meets it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tower::{Layer as _, ServiceExt as _};

use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::grpc::listener::{Drained, Listener, ListenerSettings};

use super::call::namespace_in;
use super::*;

fn small(limit: usize) -> AdmissionSettings {
    AdmissionSettings {
        limit_start: limit,
        limit_floor: limit,
        limit_max: limit,
        wait_burst: ms(100),
        ..Default::default()
    }
}

/// A gate whose limit stands at `limit`.
fn gate_of(limit: usize) -> Admission {
    Admission::new(small(limit), || 0.5)
}

fn call(class: Class, namespace: &str) -> CallInfo<'_> {
    let now = Instant::now();
    CallInfo { class, namespace, arrived_at: now, deadline: now + Duration::from_secs(2) }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Lets in, or says why not, without waiting.
fn ask(admission: &Admission, class: Class, namespace: &str) -> Result<Permit, Option<Refusal>> {
    match admission.enter(call(class, namespace)) {
        Entry::Admitted(permit) => Ok(permit),
        Entry::Refused(refusal) => Err(Some(refusal)),
        Entry::Queued(_) => Err(None),
    }
}

/// Takes every slot, reports' included.
fn fill(admission: &Admission) -> Vec<Permit> {
    std::iter::from_fn(|| ask(admission, Class::Report, "full").ok()).collect()
}

/// Calls that wait, and the order in which they are let in.
struct Line {
    admission: Admission,
    served: Arc<Mutex<Vec<String>>>,
    waiting: JoinSet<()>,
}

impl Line {
    fn new(admission: &Admission) -> Self {
        Self { admission: admission.clone(), served: Arc::default(), waiting: JoinSet::new() }
    }

    /// A call called `name` that waits, works for no time and leaves.
    async fn join(&mut self, class: Class, namespace: &str, name: &str) {
        let (admission, served) = (self.admission.clone(), Arc::clone(&self.served));
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.waiting.spawn(async move {
            match admission.admit(call(class, &namespace)).await {
                Ok(_permit) => served.lock().unwrap().push(name),
                Err(refusal) => served.lock().unwrap().push(format!("{name}: {refusal:?}")),
            }
        });
        tokio::task::yield_now().await;
    }

    async fn served(self) -> Vec<String> {
        self.waiting.join_all().await;
        std::mem::take(&mut *self.served.lock().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn one_slot_in_five_is_for_reports() {
    let admission = gate_of(10);
    let begins: Vec<_> = std::iter::from_fn(|| ask(&admission, Class::Begin, "n").ok()).collect();
    assert_eq!(begins.len(), 8);
    assert!(matches!(ask(&admission, Class::Other, "n"), Err(None)));
    let reports: Vec<_> = std::iter::from_fn(|| ask(&admission, Class::Report, "n").ok()).collect();
    assert_eq!(reports.len(), 2);
    assert_eq!(admission.stats().in_flight.load(Ordering::Relaxed), 10);
    drop((begins, reports));
    assert_eq!(admission.stats().in_flight.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn reports_are_served_before_begins_before_the_rest() {
    let admission = gate_of(10);
    let slots = fill(&admission);
    let mut line = Line::new(&admission);
    line.join(Class::Other, "n", "look").await;
    line.join(Class::Begin, "n", "begin").await;
    line.join(Class::Report, "n", "report").await;
    drop(slots);
    assert_eq!(line.served().await, ["report", "begin", "look"]);
}

#[tokio::test(start_paused = true)]
async fn an_operator_is_not_starved() {
    let admission = gate_of(10);
    let mut slots = fill(&admission);
    let mut line = Line::new(&admission);
    line.join(Class::Other, "n", "look").await;
    for _ in 0..15 {
        line.join(Class::Report, "n", "report").await;
    }
    slots.truncate(7);
    drop(slots);
    let served = line.served().await;
    assert_eq!(served.iter().position(|name| name == "look"), Some(7));
}

#[tokio::test(start_paused = true)]
async fn namespaces_take_turns() {
    let admission = gate_of(10);
    let slots = fill(&admission);
    let mut line = Line::new(&admission);
    for name in ["a1", "a2", "a3", "a4"] {
        line.join(Class::Report, "a", name).await;
    }
    line.join(Class::Begin, "b", "b1").await;
    line.join(Class::Report, "c", "c1").await;
    drop(slots);
    assert_eq!(line.served().await, ["a1", "b1", "c1", "a2", "a3", "a4"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_takes_from_the_longest_line() {
    let admission = gate_of(10);
    let slots = fill(&admission);
    let mut line = Line::new(&admission);
    for n in 0..20 {
        line.join(Class::Begin, "flood", &format!("flood{n}")).await;
    }
    assert_eq!(admission.stats().queued.load(Ordering::Relaxed), 20);
    // Its own call is refused: nobody's line is longer.
    assert_eq!(ask(&admission, Class::Begin, "flood").unwrap_err(), Some(Refusal::QueueFull));
    // A quiet one finds room, and so does a report among begins.
    line.join(Class::Other, "quiet", "quiet").await;
    line.join(Class::Report, "flood", "report").await;
    assert_eq!(admission.stats().queued.load(Ordering::Relaxed), 20);
    drop(slots);
    let served = line.served().await;
    assert!(served.contains(&"quiet".to_owned()));
    assert!(served.contains(&"report".to_owned()));
    assert_eq!(served.iter().filter(|name| name.ends_with("QueueFull")).count(), 2);
    assert_eq!(admission.stats().refused_queue_full.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_burst_may_wait_and_an_overload_may_not() {
    let admission = gate_of(10);
    let slots = fill(&admission);
    let began_at = Instant::now();
    let refusal = admission.admit(call(Class::Begin, "n")).await.unwrap_err();
    assert_eq!(refusal, Refusal::WaitedTooLong);
    let waited = began_at.elapsed();
    assert!((ms(100)..ms(103)).contains(&waited), "{waited:?}");

    // Somebody was refused: now it is no burst any more.
    let began_at = Instant::now();
    let refusal = admission.admit(call(Class::Begin, "n")).await.unwrap_err();
    assert_eq!(refusal, Refusal::WaitedTooLong);
    let waited = began_at.elapsed();
    assert!((ms(5)..ms(8)).contains(&waited), "{waited:?}");

    // Calm returns with time.
    sleep(ms(200)).await;
    drop(slots);
    let slots = fill(&admission);
    let began_at = Instant::now();
    let mut line = Line::new(&admission);
    line.join(Class::Begin, "n", "begin").await;
    sleep(ms(50)).await;
    drop(slots);
    assert_eq!(line.served().await, ["begin"]);
    assert_eq!(began_at.elapsed(), ms(50));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_processor_counts_as_waiting() {
    let admission = gate_of(10);
    let late = |by| CallInfo { arrived_at: Instant::now() - ms(by), ..call(Class::Begin, "n") };
    sleep(ms(1000)).await;
    // A hiccup is survived, and so is a machine that is merely slow.
    let _permit = admission.admit(late(50)).await.unwrap();
    sleep(ms(101)).await;
    let _permit = admission.admit(late(99)).await.unwrap();
    // Later than anybody may wait: from now on whoever is later than the target goes.
    assert_eq!(admission.admit(late(101)).await.unwrap_err(), Refusal::WaitedTooLong);
    assert_eq!(admission.admit(late(6)).await.unwrap_err(), Refusal::WaitedTooLong);
    let _permit = admission.admit(late(4)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_cannot_be_met_is_refused_at_once() {
    let admission = gate_of(10);
    let within = |left| CallInfo { deadline: Instant::now() + ms(left), ..call(Class::Begin, "n") };
    assert_eq!(admission.admit(within(4)).await.unwrap_err(), Refusal::DeadlineTooShort);
    drop(admission.admit(within(5)).await.unwrap());

    // Begins take 50 ms; reports are not known to.
    for _ in 0..40 {
        let permit = admission.admit(call(Class::Begin, "n")).await.unwrap();
        sleep(ms(50)).await;
        drop(permit);
    }
    assert_eq!(admission.admit(within(45)).await.unwrap_err(), Refusal::DeadlineTooShort);
    drop(admission.admit(within(60)).await.unwrap());
    let report = CallInfo { class: Class::Report, ..within(45) };
    drop(admission.admit(report).await.unwrap());

    // What was learned is forgotten when nothing confirms it.
    sleep(ms(1001)).await;
    drop(admission.admit(within(45)).await.unwrap());
    assert_eq!(admission.stats().refused_deadline.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_is_told_when_its_deadline_comes_too_near() {
    let admission = gate_of(10);
    let _slots = fill(&admission);
    let began_at = Instant::now();
    let impatient = CallInfo { deadline: began_at + ms(25), ..call(Class::Begin, "n") };
    assert!(admission.admit(impatient).await.is_err());
    assert!(began_at.elapsed() <= ms(22));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_the_queue_leaves_nothing() {
    let admission = gate_of(10);
    let slots = fill(&admission);
    let mut line = Line::new(&admission);
    line.join(Class::Begin, "n", "leaves").await;
    line.waiting.shutdown().await;
    assert_eq!(admission.stats().queued.load(Ordering::Relaxed), 0);

    // Granted and gone before it knew.
    let Entry::Queued(ticket) = admission.enter(call(Class::Begin, "n")) else {
        panic!("there was no slot");
    };
    drop(slots);
    assert_eq!(admission.stats().in_flight.load(Ordering::Relaxed), 1);
    drop(ticket);
    assert_eq!(admission.stats().in_flight.load(Ordering::Relaxed), 0);
}

/// A service with room for `room` calls at once, each taking `base` to twice that;
/// more queue inside it, where nobody sees.
#[derive(Clone)]
struct Simulated {
    room: Arc<Semaphore>,
    base: Duration,
    drawn: Arc<AtomicU32>,
}

impl Simulated {
    fn new(room: usize, base: Duration) -> Self {
        Self { room: Arc::new(Semaphore::new(room)), base, drawn: Arc::default() }
    }

    async fn work(&self) {
        let _room = self.room.acquire().await;
        // A Weyl sequence: spread evenly, and the same in every run.
        let n = self.drawn.fetch_add(1, Ordering::Relaxed);
        let share = f64::from(n.wrapping_mul(2_654_435_769)) / f64::from(u32::MAX);
        sleep(self.base.mul_f64(1.0 + share)).await;
    }
}

/// What the callers of one namespace saw.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    refused: usize,
}

impl Seen {
    fn p99(&mut self) -> Duration {
        self.latencies.sort();
        self.latencies[self.latencies.len() * 99 / 100]
    }
}

struct Load {
    namespace: &'static str,
    class: Class,
    per_second: u64,
}

/// Runs open-loop loads against the service for 15 s of virtual time; the first
/// 5 s, in which the limit is learned, are not counted.
async fn run(admission: &Admission, service: &Simulated, loads: &[Load]) -> Vec<Seen> {
    let began_at = Instant::now();
    let seen: Vec<Arc<Mutex<Seen>>> = loads.iter().map(|_| Arc::default()).collect();
    let mut sent = vec![0; loads.len()];
    let mut calls = VecDeque::new();
    for tick in 0..15_000 {
        tokio::time::sleep_until(began_at + ms(tick)).await;
        for (n, load) in loads.iter().enumerate() {
            while sent[n] * 1000 < tick * load.per_second {
                sent[n] += 1;
                let seen = (5_000 < tick).then(|| Arc::clone(&seen[n]));
                calls.push_back(one_call(admission, service, load, seen));
            }
        }
        while calls.front().is_some_and(JoinHandle::is_finished) {
            calls.pop_front();
        }
    }
    for call in calls {
        call.await.unwrap();
    }
    seen.into_iter().map(|seen| std::mem::take(&mut *seen.lock().unwrap())).collect()
}

fn one_call(
    admission: &Admission,
    service: &Simulated,
    load: &Load,
    seen: Option<Arc<Mutex<Seen>>>,
) -> JoinHandle<()> {
    let (admission, service) = (admission.clone(), service.clone());
    let (class, namespace) = (load.class, load.namespace);
    tokio::spawn(async move {
        let arrived_at = Instant::now();
        let admitted = admission.admit(call(class, namespace)).await;
        if admitted.is_ok() {
            service.work().await;
        }
        let Some(seen) = seen else { return };
        let mut seen = seen.lock().unwrap();
        match admitted {
            Ok(_) => seen.latencies.push(arrived_at.elapsed()),
            Err(_) => seen.refused += 1,
        }
    })
}

/// 32 at once, 30 ms each on average: 1067 calls a second.
fn simulated() -> Simulated {
    Simulated::new(32, ms(20))
}

#[tokio::test(start_paused = true)]
async fn three_times_the_load_leaves_p99_flat() {
    let mut p99 = Vec::new();
    for per_second in [1_050, 3_150] {
        let admission = Admission::new(AdmissionSettings::default(), || 0.5);
        let load = Load { namespace: "n", class: Class::Begin, per_second };
        let mut seen = run(&admission, &simulated(), &[load]).await.remove(0);
        let served = seen.latencies.len();
        let p99_now = seen.p99();
        eprintln!(
            "{per_second}/s: {served} served, {} refused, p99 {:?}, limit {:?}",
            seen.refused,
            p99_now,
            admission.stats().limit
        );
        assert!(9_600 < served, "{served} served of 10 500 that can be");
        p99.push(p99_now);
    }
    assert!(p99[1] < p99[0].mul_f64(1.2), "{p99:?}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_paid_for_by_who_floods() {
    let quiet = |class| Load { namespace: "quiet", class, per_second: 100 };
    let flood = |class| Load { namespace: "flood", class, per_second: 1_500 };
    let alone = Admission::new(AdmissionSettings::default(), || 0.5);
    let mut seen = run(&alone, &simulated(), &[quiet(Class::Begin)]).await;
    let p99_alone = seen[0].p99();

    let shared = Admission::new(AdmissionSettings::default(), || 0.5);
    let loads = [quiet(Class::Begin), flood(Class::Report), flood(Class::Begin)];
    let mut seen = run(&shared, &simulated(), &loads).await;
    eprintln!("alone {p99_alone:?}, in a flood {:?}, refused {}", seen[0].p99(), seen[0].refused);
    assert!(seen[0].refused <= 1_000 / 100, "{} refused", seen[0].refused);
    assert!(seen[0].p99() < p99_alone.mul_f64(1.5));
    assert!(13_000 < seen[1].refused + seen[2].refused);
}

#[tokio::test(start_paused = true)]
async fn begins_give_way_to_reports() {
    let admission = Admission::new(AdmissionSettings::default(), || 0.5);
    let loads = [
        Load { namespace: "n", class: Class::Report, per_second: 800 },
        Load { namespace: "n", class: Class::Begin, per_second: 2_400 },
    ];
    let seen = run(&admission, &simulated(), &loads).await;
    eprintln!("refused: {} reports, {} begins", seen[0].refused, seen[1].refused);
    assert!(seen[0].refused < 10 * 800 / 100);
    assert!(10 * 2_000 < seen[1].refused);
}

/// One caller after another sends its next call when its last one is answered.
async fn in_turns(admission: &Admission, service: &Simulated, callers: usize) -> Seen {
    let seen = Arc::<Mutex<Seen>>::default();
    let until = Instant::now() + Duration::from_secs(3);
    let mut calling = JoinSet::new();
    for _ in 0..callers {
        let (admission, service, seen) = (admission.clone(), service.clone(), Arc::clone(&seen));
        calling.spawn(async move {
            while Instant::now() < until {
                let load = Load { namespace: "n", class: Class::Begin, per_second: 0 };
                one_call(&admission, &service, &load, Some(Arc::clone(&seen))).await.unwrap();
            }
        });
    }
    calling.join_all().await;
    std::mem::take(&mut *seen.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn callers_that_wait_for_their_answers_are_all_served() {
    // A store with room for 64 at once, then slower in proportion: at 4267 a second,
    // 256 callers are answered in 60 ms each, wherever they wait for it.
    for (room, base) in [(64, ms(10)), (32, ms(5)), (8, ms(2))] {
        let admission = Admission::new(AdmissionSettings::default(), || 0.5);
        let mut seen = in_turns(&admission, &Simulated::new(room, base), 256).await;
        let (served, p99) = (seen.latencies.len(), seen.p99());
        eprintln!("room {room}: {served} served, p99 {p99:?}, limit {:?}", admission.stats().limit);
        assert_eq!(seen.refused, 0, "of {served}, with room for {room}");
        assert!(p99 < ms(250), "{p99:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn concurrency_that_buys_throughput_is_granted() {
    // Never crowded: latency is the same at any concurrency.
    let admission = Admission::new(AdmissionSettings::default(), || 0.5);
    let load = Load { namespace: "n", class: Class::Begin, per_second: 8_000 };
    let seen = run(&admission, &Simulated::new(100_000, ms(20)), &[load]).await;
    let limit = admission.stats().limit.load(Ordering::Relaxed);
    assert!(200 < limit, "{limit}");
    assert!(seen[0].refused < 8_000 * 10 / 50, "{}", seen[0].refused);
}

/// A call whose first message is `namespace` in field 1.
fn request(path: &str, namespace: &str) -> Request<Full<Bytes>> {
    Request::post(path).body(Full::new(message(namespace))).unwrap()
}

fn message(namespace: &str) -> Bytes {
    let request = HealthCheckRequest { service: namespace.into() };
    let body = prost::Message::encode_to_vec(&request);
    let mut bytes = vec![0];
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend(body);
    bytes.into()
}

const BEGIN: &str = "/reprise.v1.RetryService/BeginAttempt";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// The status that an answer's headers carry.
fn status<B>(answer: &Response<B>) -> Status {
    Status::from_header_map(answer.headers()).unwrap_or_else(|| Status::ok(""))
}

/// A service that counts the calls it has done, each in 50 ms.
fn slow(
    done: Arc<AtomicU32>,
) -> impl Clone
+ tower::Service<
    Request<Heard<Full<Bytes>>>,
    Response = Response<Bytes>,
    Error = Infallible,
    Future: Send + 'static,
> {
    tower::service_fn(move |_: Request<_>| {
        let done = Arc::clone(&done);
        async move {
            sleep(ms(50)).await;
            done.fetch_add(1, Ordering::Relaxed);
            Ok(Response::new(Bytes::new()))
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_refused_caller_is_told_when_to_come_back() {
    let admission = gate_of(10);
    let _slots = fill(&admission);
    let layer = AdmissionLayer::new(admission.clone(), class_of);
    let service = layer.layer(slow(Arc::default()));
    let answer = service.clone().oneshot(request(BEGIN, "n")).await.unwrap();
    let status = status(&answer);
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((&*info.reason, &*info.domain), ("OVERLOADED", "reprise.v1"));
    assert_eq!(details.retry_info().unwrap().retry_delay, Some(ms(1000)));

    // Health is answered under any load.
    service.oneshot(request(HEALTH, "n")).await.unwrap();
}

#[test]
fn refused_callers_do_not_return_together() {
    for (draw, delay) in [(|| 0.0) as fn() -> f64, || 0.999].into_iter().zip([500, 1499]) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _guard = runtime.enter();
        let admission = Admission::new(AdmissionSettings::default(), draw);
        let status = admission.refusal_status(Refusal::QueueFull);
        let told = status.get_error_details().retry_info().unwrap().retry_delay;
        assert_eq!(told, Some(ms(delay)));
        let late = admission.refusal_status(Refusal::DeadlineTooShort);
        assert_eq!(late.code(), Code::DeadlineExceeded);
        assert!(late.get_error_details().retry_info().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_was_begun_is_done_once_though_its_caller_leaves() {
    let admission = gate_of(10);
    let done = Arc::new(AtomicU32::new(0));
    let service = AdmissionLayer::new(admission.clone(), class_of).layer(slow(Arc::clone(&done)));
    let call = tokio::spawn(service.oneshot(request(BEGIN, "n")));
    sleep(ms(10)).await;
    assert_eq!(admission.stats().in_flight.load(Ordering::Relaxed), 1);
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());

    // The slot is taken as long as the work goes on.
    assert_eq!(done.load(Ordering::Relaxed), 0);
    assert_eq!(admission.stats().in_flight.load(Ordering::Relaxed), 1);
    sleep(ms(50)).await;
    assert_eq!(done.load(Ordering::Relaxed), 1);
    assert_eq!(admission.stats().in_flight.load(Ordering::Relaxed), 0);
    assert_eq!(admission.stats().detached.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn work_that_was_not_begun_is_never_done() {
    let admission = gate_of(10);
    let slots = fill(&admission);
    let done = Arc::new(AtomicU32::new(0));
    let service = AdmissionLayer::new(admission.clone(), class_of).layer(slow(Arc::clone(&done)));
    let call = tokio::spawn(service.oneshot(request(BEGIN, "n")));
    sleep(ms(10)).await;
    assert_eq!(admission.stats().queued.load(Ordering::Relaxed), 1);
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    drop(slots);
    sleep(ms(200)).await;
    assert_eq!(done.load(Ordering::Relaxed), 0);
    assert_eq!(admission.stats().in_flight.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn work_that_panics_gives_its_slot_back() {
    let admission = gate_of(10);
    let service = tower::service_fn(|_: Request<Heard<Full<Bytes>>>| async {
        if true {
            panic!("as a handler may");
        }
        Ok::<_, Infallible>(Response::new(Bytes::new()))
    });
    let service = AdmissionLayer::new(admission.clone(), class_of).layer(service);
    let call = tokio::spawn(service.oneshot(request(BEGIN, "n")));
    assert!(call.await.unwrap_err().is_panic());
    assert_eq!(admission.stats().in_flight.load(Ordering::Relaxed), 0);
    assert_eq!(admission.stats().detached.load(Ordering::Relaxed), 0);
}

/// Health, which works until it is released and counts what it has finished.
struct Held {
    begun: Arc<Semaphore>,
    release: Arc<Semaphore>,
    done: Arc<Semaphore>,
}

#[tonic::async_trait]
impl Health for Held {
    async fn check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        self.begun.add_permits(1);
        let _ = self.release.acquire().await;
        self.done.add_permits(1);
        Ok(tonic::Response::new(HealthCheckResponse::default()))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Ok(tonic::Response::new(tokio_stream::empty()))
    }
}

#[tokio::test]
async fn over_a_socket_a_reset_does_not_stop_what_was_begun() {
    let [begun, release, done] = [(); 3].map(|()| Arc::new(Semaphore::new(0)));
    let service =
        Held { begun: Arc::clone(&begun), release: Arc::clone(&release), done: Arc::clone(&done) };
    let admission = gate_of(10);
    let layer = AdmissionLayer::new(admission.clone(), |_| Some(Class::Begin));
    let service = layer.layer(Routes::new(HealthServer::new(service)));
    let address = ["127.0.0.1:0".parse().unwrap()];
    let listener = Listener::bind(&address, ListenerSettings::default(), || 0.5).unwrap();
    let url = format!("http://{}", listener.addresses()[0]);
    let shutdown = CancellationToken::new();
    let drained = tokio::spawn(listener.serve(service, shutdown.clone()));

    let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    let call = tokio::spawn(async move { client.check(HealthCheckRequest::default()).await });
    begun.acquire().await.unwrap().forget();
    call.abort();
    // The connection has no call left, so the drain ends; the work goes on.
    shutdown.cancel();
    assert_eq!(drained.await.unwrap(), Drained::default());
    assert_eq!(admission.stats().detached.load(Ordering::Relaxed), 1);
    assert_eq!(admission.stats().in_flight.load(Ordering::Relaxed), 1);
    release.add_permits(1);
    done.acquire().await.unwrap().forget();
    assert_eq!(done.available_permits(), 0);
    admission.emptied().await;
    assert_eq!(admission.stats().in_flight.load(Ordering::Relaxed), 0);
}

type Pieces =
    StreamBody<tokio_stream::wrappers::ReceiverStream<Result<http_body::Frame<Bytes>, Infallible>>>;

/// A service that hands out the bodies it was given, as they were read.
fn echo() -> impl Clone
+ tower::Service<
    Request<Heard<Pieces>>,
    Response = Response<Bytes>,
    Error = Infallible,
    Future: Send + 'static,
> {
    tower::service_fn(|request: Request<Heard<Pieces>>| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Ok(Response::new(body))
    })
}

#[tokio::test(start_paused = true)]
async fn a_client_that_dawdles_holds_no_slot() {
    let admission = gate_of(10);
    let service = AdmissionLayer::new(admission.clone(), class_of).layer(echo());
    let (pieces, body) = tokio::sync::mpsc::channel(1);
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(body));
    let call = tokio::spawn(service.oneshot(Request::post(BEGIN).body(body).unwrap()));
    let message = message("namespace");
    for piece in message[..message.len() - 1].chunks(1) {
        let frame = http_body::Frame::data(Bytes::copy_from_slice(piece));
        pieces.send(Ok(frame)).await.unwrap();
        sleep(ms(20)).await;
        assert_eq!(admission.stats().in_flight.load(Ordering::Relaxed), 0);
    }
    let began_at = Instant::now();
    let answer = call.await.unwrap().unwrap();
    assert_eq!(status(&answer).code(), Code::DeadlineExceeded);
    assert!(began_at.elapsed() < Duration::from_secs(2));
    assert_eq!(admission.stats().refused_late.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_in_pieces_reaches_the_service_whole() {
    let admission = gate_of(10);
    let service = AdmissionLayer::new(admission.clone(), class_of).layer(echo());
    let whole = message(&"n".repeat(400));
    let (pieces, body) = tokio::sync::mpsc::channel(1000);
    for piece in whole.chunks(3) {
        let frame = http_body::Frame::data(Bytes::copy_from_slice(piece));
        pieces.send(Ok(frame)).await.unwrap();
    }
    drop(pieces);
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(body));
    let answer = service.oneshot(Request::post(BEGIN).body(body).unwrap()).await.unwrap();
    assert_eq!(answer.into_body(), whole);
}

#[test]
fn the_namespace_is_read_off_the_message() {
    for namespace in ["", "n", "payments-prod", &"n".repeat(127), &"n".repeat(128)] {
        assert_eq!(namespace_in(&message(namespace)), namespace);
    }
    let whole = message("payments");
    for end in 0..whole.len() {
        assert_eq!(namespace_in(&whole[..end]), "");
    }
    for bytes in [
        &[1, 0, 0, 0, 3, 0x0a, 1, b'n'][..],
        &[0, 0, 0, 0, 3, 0x12, 1, b'n'],
        &[0, 0, 0, 0, 3, 0x0a, 1, 0xff],
        &[0, 0, 0, 0, 9, 0x0a, 0xff, 0xff, 0xff, 1],
    ] {
        assert_eq!(namespace_in(bytes), "", "{bytes:?}");
    }
}

#[test]
fn the_class_is_read_off_the_path() {
    let retry = |method| class_of(&format!("/reprise.v1.RetryService/{method}"));
    for method in ["ReportAttempt", "BatchReportAttempts", "Heartbeat", "ReportRun"] {
        assert_eq!(retry(method), Some(Class::Report));
    }
    for method in ["BeginAttempt", "BeginRun"] {
        assert_eq!(retry(method), Some(Class::Begin));
    }
    assert_eq!(retry("GetStep"), Some(Class::Other));
    for method in ["AwaitDecision", "ClaimDue", "StreamDue"] {
        assert_eq!(retry(method), None);
    }
    assert_eq!(class_of("/reprise.v1.AdminService/Pause"), Some(Class::Other));
    assert_eq!(class_of("/reprise.v1.AdminService/WatchEvents"), None);
    assert_eq!(class_of(HEALTH), None);
    assert_eq!(class_of(""), None);
}

#[test]
fn the_time_left_is_read_off_the_header() {
    let given = |value: &str| {
        let mut headers = http::HeaderMap::new();
        headers.insert("grpc-timeout", value.parse().unwrap());
        time_left(&headers)
    };
    assert_eq!(time_left(&http::HeaderMap::new()), ms(2_000));
    assert_eq!(given("250m"), ms(250));
    assert_eq!(given("250000u"), ms(250));
    assert_eq!(given("250000n"), Duration::from_micros(250));
    assert_eq!(given("3S"), ms(3_000));
    assert_eq!(given("0m"), ms(0));
    for beyond in ["1M", "1H", "99999999H", "31S"] {
        assert_eq!(given(beyond), ms(30_000), "{beyond}");
    }
    for wrong in ["", "m", "1", "1x", "-1m", "+1m", "999999999n", " 1m"] {
        assert_eq!(given(wrong), ms(2_000), "{wrong:?}");
    }
}

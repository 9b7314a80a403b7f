//! Moving house: everything of one store into another, interrupted and refused.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use reprise::{
    clock::Clock,
    domain::{
        decision::{Counters, Reason, Settled, Verdict},
        draw::Salt,
        event::{AttemptName, Event},
        failure::{Failure, FailureClass},
        id::Id,
        namespace::Settings,
        plan::Answer,
        policy::spec::HoldAnswer,
        record::{Attempt, End, Ending, Hold, Outcome, PolicyChoice, Record, State as StepState},
        shift::Shift,
        time::Timestamp,
    },
    proto,
    store::{
        ConfigurationChange, Store, StoreError,
        configuration::NamespaceEntry,
        copy::{
            Copied, CopyError, Export, Kept, Page, Released, Source, StoredNamespace, StoredStep,
            Tally, Told, copy,
        },
        embedded::{Embedded, EmbeddedError, copy::EmbeddedTarget},
        redis::{
            Redis, RedisError, commands,
            copy::{RedisSource, RedisTarget},
        },
    },
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    process::{self, Server},
    redis_servers::{Access, Cluster, Kind, Options, Standalone},
    store_contract::subject::{
        Applied, SECOND, START, Subject, begin, embedded, failed, heartbeat, id, key, options,
        policy, redis_options, report, revision, settings,
    },
};

const HOUR: Duration = Duration::from_secs(3600);

/// A Redis, used as the user that `reprise store acl` tells to create.
async fn house() -> Standalone {
    let access = Access::Rules(commands::rules().leak());
    Standalone::start(Kind::Redis70, Options { access, ..Options::default() }).await
}

fn later(span: Duration) -> Clock {
    Clock::manual(START.plus(span))
}

/// A store with some of everything.
async fn furnished(clock: Clock) -> Subject<Embedded> {
    let subject = embedded(clock).await;
    let named = PolicyChoice::Named(id("patient"));
    subject.create("tenant").await;
    let mut history = policy(
        "{ max_retries: 5, backoff: { fixed: { delay: 1m } }, on_exhaustion: { hold: { timeout: 1h } } }",
    );
    history.add(revision(
        "{ max_retries: 1, backoff: { fixed: { delay: 1m } }, on_exhaustion: { hold: { timeout: 1h } } }",
        2,
    ));
    subject
        .reconfigure("tenant", ConfigurationChange::Policy(id("patient"), history))
        .await
        .unwrap();
    let inline = Arc::new(revision("{ max_retries: 7, backoff: { fixed: { delay: 30s } } }", 0));
    let digest = inline.digest;
    subject.reconfigure("tenant", ConfigurationChange::Inline(inline)).await.unwrap();
    for number in 0..600 {
        let (run, step) = (format!("run-{}", number % 7), format!("step-{number}"));
        let key = key("tenant", &run, &step);
        let choice = match number % 3 {
            0 => PolicyChoice::Default,
            1 => named.clone(),
            _ => PolicyChoice::Inline(digest),
        };
        subject.try_apply(key, &choice, &begin(number + 1)).await.unwrap();
        let fence = AttemptName::Fence(subject.record(key).await.unwrap().fence);
        let message = format!("it broke {number}");
        let failure = Failure { message, ..Failure::of(FailureClass::Transient) };
        match number % 4 {
            0 => {}
            1 => drop(subject.apply(key, &report(fence, 0, None)).await),
            _ => drop(subject.apply(key, &report(fence, 0, Some(failure))).await),
        }
    }
    subject.apply(key("default", "r", "s"), &failed(1, "only the default")).await;
    subject
}

type Everything = BTreeMap<String, (Tally, u64, BTreeMap<String, StoredStep>)>;

/// Everything in a store, by another clock.
async fn everything(store: &impl Export, names: &[&str], shift: Shift) -> Everything {
    let mut all = Everything::new();
    for name in names {
        let namespace = store.namespace(&id(name)).await.unwrap();
        let revision = namespace.configuration.revision;
        let mut tally = Tally {
            policies: namespace.configuration.policies.len() as u64,
            inline: namespace.inline.len() as u64,
            ..Tally::default()
        };
        let mut steps = BTreeMap::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let page = store.steps(&id(name), from).await.unwrap();
            next = page.next;
            for step in page.steps {
                let step = step.shifted(shift);
                tally.count(&step);
                steps.insert(step.joined.to_string(), step);
            }
        }
        all.insert((*name).to_owned(), (tally, revision, steps));
    }
    all
}

fn unmoved() -> Shift {
    Shift::between(START, START)
}

async fn into_redis(
    source: &mut impl Source,
    server: &Standalone,
    clock: &Clock,
) -> Result<Copied, CopyError> {
    let mut target = RedisTarget::connect(redis_options(&server.url(), clock)).await.unwrap();
    copy(source, "the first house", &mut target, |_| {}).await
}

async fn opened(server: Standalone, clock: Clock) -> Subject<Redis> {
    let store = Redis::open(redis_options(&server.url(), &clock)).await.unwrap();
    Subject { store, clock, dir: None, server: Some(server) }
}

#[tokio::test]
async fn a_round_trip_changes_nothing_but_the_clock() {
    let first = furnished(later(Duration::ZERO)).await;
    let server = house().await;
    let clock = later(HOUR);
    let copied = into_redis(&mut first.store.clone(), &server, &clock).await.unwrap();
    assert_eq!(copied.shift.as_micros(), 3_600_000_000);
    assert_eq!(copied.source, Released::AtRest);
    let steps: u64 = copied.namespaces.iter().map(|(_, tally)| tally.steps).sum();
    assert_eq!(steps, 601);

    let second = opened(server, clock).await;
    let names = ["default", "tenant"];
    let before = everything(&first.store, &names, Shift::between(START, START.plus(HOUR))).await;
    assert_eq!(everything(&second.store, &names, unmoved()).await, before);
    assert_eq!(second.live_steps("tenant").await, first.live_steps("tenant").await);
    let salt = first.load(key("tenant", "r", "s")).await.salt;
    assert_eq!(second.load(key("tenant", "r", "s")).await.salt, salt);

    // And on into a third house, whose clock is behind.
    let dir = TempDir::new().unwrap();
    let clock = later(SECOND * 30);
    let mut target = EmbeddedTarget::open(options(&dir), clock.clone()).unwrap();
    let store =
        Redis::existing(redis_options(&second.server.as_ref().unwrap().url(), &second.clock));
    let mut source = RedisSource::new(store.await.unwrap());
    let copied = copy(&mut source, "the second house", &mut target, |_| {}).await.unwrap();
    assert_eq!(copied.source, Released::GoesOn);
    drop(target);
    let store = Embedded::open(&options(&dir), clock.clone()).unwrap();
    let third = Subject { store, clock, dir: Some(dir), server: None };
    let shift = Shift::between(START, START.plus(SECOND * 30));
    assert_eq!(
        everything(&third.store, &names, unmoved()).await,
        everything(&first.store, &names, shift).await
    );
    assert_eq!(third.load(key("tenant", "r", "s")).await.salt, salt);
    let (old, new) = (
        first.store.configuration("tenant").await.unwrap(),
        third.store.configuration("tenant").await.unwrap(),
    );
    assert_eq!(new.namespace.settings, old.namespace.settings);
    assert_eq!(new.namespace.created_us, old.namespace.created_us + 30_000_000);
    let patient = &new.policies[&id("patient")];
    assert_eq!(patient.revisions.len(), 2);
    assert_eq!(
        patient.latest().unwrap().digest,
        old.policies[&id("patient")].latest().unwrap().digest
    );
}

#[tokio::test]
async fn a_cluster_is_a_house_like_any_other() {
    let first = furnished(later(Duration::ZERO)).await;
    let cluster = Cluster::start(Kind::Redis70, false, &[]).await;
    let (clock, names) = (later(HOUR), ["default", "tenant"]);
    let wanted = everything(&first.store, &names, Shift::between(START, START.plus(HOUR))).await;
    // The second try clears away what the first one left.
    for pages in [3, u32::MAX] {
        let options = redis_options(&cluster.url(), &clock);
        let mut target = RedisTarget::connect(options).await.unwrap();
        let mut source = Failing { source: first.store.clone(), pages: pages.into() };
        let copied = copy(&mut source, "first", &mut target, |_| {}).await;
        assert_eq!(copied.is_ok(), pages > 3, "{:?}", copied.err());
    }
    let second = Redis::open(redis_options(&cluster.url(), &clock)).await.unwrap();
    assert_eq!(everything(&second, &names, unmoved()).await, wanted);

    let dir = TempDir::new().unwrap();
    let mut target = EmbeddedTarget::open(options(&dir), clock).unwrap();
    copy(&mut RedisSource::new(second), "second", &mut target, |_| {}).await.unwrap();
    assert_eq!(everything(&target, &names, unmoved()).await, wanted);
}

#[tokio::test]
async fn a_pending_retry_goes_on_in_the_new_house() {
    let first = embedded(later(Duration::ZERO)).await;
    let at = key("default", "nightly", "load");
    let text = "{ max_retries: 2, backoff: { fixed: { delay: 1m } } }";
    let settings = Settings { default_policy: Some(id("short")), ..Settings::default() };
    first
        .reconfigure("default", ConfigurationChange::Policy(id("short"), policy(text)))
        .await
        .unwrap();
    let entry = NamespaceEntry { revision: 2, ..NamespaceEntry::new(settings, START) };
    first.reconfigure("default", ConfigurationChange::Namespace(entry)).await.unwrap();
    let due = START.plus(SECOND * 60);
    let applied = first.apply(at, &failed(1, "the first time")).await;
    assert_eq!(applied.record().state, StepState::Waiting { due });

    let server = house().await;
    let clock = later(HOUR);
    into_redis(&mut first.store.clone(), &server, &clock).await.unwrap();
    let second = opened(server, clock).await;
    let Applied::Stood(Answer::Refused(refused)) = second.apply(at, &begin(7)).await else {
        panic!("it was not due yet");
    };
    assert_eq!(refused.settled.verdict, Verdict::Wait(Some(due.plus(HOUR))));
    second.pass(SECOND * 59).await;
    assert_eq!(second.due(10).await, []);
    second.pass(SECOND).await;
    let Applied::Wrote(granted) = second.apply(at, &begin(8)).await else { panic!("it is due") };
    assert_eq!(granted.record.counters.attempts, 2);
    assert_eq!(granted.record.counters.retries, 1);
    let fence = granted.record.fence;
    assert!(fence > first.record(at).await.unwrap().fence);
    let told = report(AttemptName::Fence(fence), 1, None);
    assert!(second.apply(at, &told).await.record().is_over());
    assert_eq!(second.store.evidence(&at).await.unwrap().failures[0].message, "the first time");
}

#[tokio::test]
async fn a_running_attempt_keeps_its_fence_and_gets_its_grace() {
    let first = embedded(later(Duration::ZERO)).await;
    first.create("tenant").await;
    let at = key("tenant", "nightly", "load");
    let fence = first.apply(at, &begin(1)).await.record().fence;
    let server = house().await;
    // The way took longer than the lease.
    let clock = later(Duration::ZERO);
    into_redis(&mut first.store.clone(), &server, &clock).await.unwrap();
    clock.advance(SECOND * 300);
    let second = opened(server, clock).await;
    assert_eq!(second.due(10).await, []);
    let Applied::Wrote(held) = second.apply(at, &heartbeat(fence)).await else {
        panic!("the holder is heard again");
    };
    assert!(matches!(held.answer, Answer::Held { .. }));

    // The next holder is told apart, wherever the clocks stand.
    second.pass(settings().lease + SECOND * 12).await;
    second.apply(at, &Event::Tick).await;
    second.pass(SECOND * 400).await;
    let next = second.apply(at, &begin(2)).await;
    assert!(next.record().fence > fence, "{next:?}");
    let Applied::Stood(Answer::Lost) = second.apply(at, &heartbeat(fence)).await else {
        panic!("the holder before was heard");
    };
}

#[tokio::test]
async fn nothing_is_written_over_a_store_that_is_used() {
    let first = furnished(later(Duration::ZERO)).await;
    let server = house().await;
    let clock = later(HOUR);
    into_redis(&mut first.store.clone(), &server, &clock).await.unwrap();
    // A finished copy is a store like any other.
    clock.advance(SECOND * 60);
    let error = into_redis(&mut first.store.clone(), &server, &clock).await.unwrap_err();
    assert!(
        matches!(&error, CopyError::TargetInUse(what) if what.contains("holds namespace")),
        "{error}"
    );
    let second = opened(server, clock).await;
    assert_eq!(second.live_steps("tenant").await, first.live_steps("tenant").await);

    let used = embedded(later(Duration::ZERO)).await;
    used.apply(key("default", "r", "s"), &begin(1)).await;
    let Subject { store, dir, .. } = used;
    drop(store);
    let dir = dir.unwrap();
    let mut target = EmbeddedTarget::open(options(&dir), later(HOUR)).unwrap();
    let error = copy(&mut first.store.clone(), "first", &mut target, |_| {}).await.unwrap_err();
    assert!(matches!(&error, CopyError::TargetInUse(what) if what.contains("1 steps")), "{error}");
    drop(target);
    assert!(Embedded::open(&options(&dir), later(HOUR)).is_ok());
}

#[tokio::test]
async fn a_target_with_servers_is_refused_and_one_that_is_as_new_is_not() {
    let first = furnished(later(Duration::ZERO)).await;
    let server = house().await;
    let second = opened(server, later(HOUR)).await;
    second.due(1).await;
    let server = second.server.as_ref().unwrap();
    let error = into_redis(&mut first.store.clone(), server, &second.clock).await.unwrap_err();
    assert!(matches!(&error, CopyError::TargetInUse(what) if what.contains("server")), "{error}");
    second.clock.advance(SECOND * 4);
    into_redis(&mut first.store.clone(), server, &second.clock).await.unwrap();
}

/// Sends one command to a server, on a connection of its own, and waits for its answer.
fn send(server: &Standalone, command: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).trim().to_owned()
}

#[tokio::test]
async fn a_target_that_differs_is_told_and_gets_no_server() {
    let first = furnished(later(Duration::ZERO)).await;
    let server = Standalone::start(Kind::Redis70, Options::default()).await;
    let clock = later(HOUR);
    // The step is whole, and the text of its failure is lost on the way.
    let mut lost = Vec::new();
    let lose = |told: Told<'_>| {
        if matches!(told, Told::Copied(name, 1) if **name == *"default") {
            lost.push(send(&server, "DEL \"reprise:{default}:text:r s\""));
        }
    };
    let mut target = RedisTarget::connect(redis_options(&server.url(), &clock)).await.unwrap();
    let error = copy(&mut first.store.clone(), "first", &mut target, lose).await.unwrap_err();
    assert_eq!(lost[0], ":1");
    let told = "namespace default has 1 of 1 steps and digest";
    assert!(matches!(&error, CopyError::Differs(what) if what.starts_with(told)), "{error}");
    let refused = Redis::open(redis_options(&server.url(), &clock)).await.err().unwrap();
    assert!(
        matches!(&refused, RedisError::Unfit { why, .. } if why.contains("run the copy again"))
    );
    into_redis(&mut first.store.clone(), &server, &clock).await.unwrap();
}

#[tokio::test]
async fn steps_that_have_lost_their_state_are_not_cleared_away() {
    let first = furnished(later(Duration::ZERO)).await;
    let server = house().await;
    let second = opened(server, later(HOUR)).await;
    second.apply(key("default", "r", "s"), &begin(1)).await;
    let server = second.server.as_ref().unwrap();
    server.endpoint().tell("DEL reprise:{default}:state").await;
    let error = into_redis(&mut first.store.clone(), server, &second.clock).await.unwrap_err();
    assert!(matches!(&error, CopyError::TargetInUse(what) if what.contains("1 steps")), "{error}");
    let steps: u64 = server.endpoint().call("ZCARD reprise:{default}:events").await.unwrap();
    assert_eq!(steps, 1);
}

/// A source that fails after some pages.
struct Failing<S> {
    source: S,
    pages: std::cell::Cell<u32>,
}

impl<S: Source> Export for Failing<S> {
    async fn namespace(&self, name: &Id) -> Result<StoredNamespace, StoreError> {
        self.source.namespace(name).await
    }

    async fn steps(&self, name: &Id, from: u64) -> Result<Page, StoreError> {
        match self.pages.get().checked_sub(1) {
            Some(left) => self.pages.set(left),
            None => return Err(StoreError::Unavailable("as planned".to_owned())),
        }
        self.source.steps(name, from).await
    }
}

impl<S: Source> Source for Failing<S> {
    fn salt(&self) -> Salt {
        self.source.salt()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.source.now().await
    }

    async fn close(&mut self) -> Result<Vec<Id>, CopyError> {
        self.source.close().await
    }

    async fn keep(&mut self, kept: Kept) -> Result<(), CopyError> {
        self.source.keep(kept).await
    }

    async fn release(&mut self) -> Result<Released, CopyError> {
        self.source.release().await
    }
}

#[tokio::test]
async fn a_target_that_is_not_whole_gets_no_server_and_is_begun_anew() {
    let first = furnished(later(Duration::ZERO)).await;
    let other = furnished(later(Duration::ZERO)).await;
    let failing = || Failing { source: first.store.clone(), pages: 3.into() };
    let (clock, names) = (later(HOUR), ["default", "tenant"]);
    let wanted = everything(&first.store, &names, Shift::between(START, START.plus(HOUR))).await;

    let server = house().await;
    let error = into_redis(&mut failing(), &server, &clock).await.unwrap_err();
    assert!(matches!(error, CopyError::Source(_)), "{error}");
    let refused = Redis::open(redis_options(&server.url(), &clock)).await.unwrap_err();
    assert!(
        matches!(&refused, RedisError::Unfit { why, .. } if why.contains("the first house")),
        "{refused}"
    );
    let error = into_redis(&mut other.store.clone(), &server, &clock).await.unwrap_err();
    assert!(matches!(error, CopyError::TargetInUse(_)), "{error}");
    into_redis(&mut first.store.clone(), &server, &clock).await.unwrap();
    let second = opened(server, clock.clone()).await;
    assert_eq!(everything(&second.store, &names, unmoved()).await, wanted);

    let dir = TempDir::new().unwrap();
    let target = || EmbeddedTarget::open(options(&dir), clock.clone()).unwrap();
    copy(&mut failing(), "first", &mut target(), |_| {}).await.unwrap_err();
    let refused = Embedded::open(&options(&dir), clock.clone()).err().unwrap();
    assert!(matches!(refused, EmbeddedError::Unfinished { .. }), "{refused}");
    let error = copy(&mut other.store.clone(), "other", &mut target(), |_| {}).await.unwrap_err();
    assert!(matches!(error, CopyError::TargetInUse(_)), "{error}");
    copy(&mut first.store.clone(), "first", &mut target(), |_| {}).await.unwrap();
    let third = Embedded::open(&options(&dir), clock.clone()).unwrap();
    assert_eq!(everything(&third, &names, unmoved()).await, wanted);
}

/// A Redis with one step in progress, and a copy's view of it.
async fn shared() -> (Subject<Redis>, RedisSource, u64) {
    let server = house().await;
    let subject = opened(server, later(Duration::ZERO)).await;
    let fence = subject.apply(key("default", "r", "s"), &begin(1)).await.record().fence;
    let url = subject.server.as_ref().unwrap().url();
    let store = Redis::existing(redis_options(&url, &subject.clock)).await.unwrap();
    (subject, RedisSource::new(store), fence)
}

async fn refusal(subject: &Subject<Redis>, fence: u64) -> String {
    let (at, event) = (key("default", "r", "s"), heartbeat(fence));
    match subject.try_apply(at, &PolicyChoice::Default, &event).await {
        Err(StoreError::Refused(why)) => why,
        other => panic!("it was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_source_takes_no_change_while_it_is_copied_and_goes_on_after() {
    let (subject, mut source, fence) = shared().await;
    let at = key("default", "r", "s");
    assert_eq!(source.close().await.unwrap(), [id("default")]);
    let why = refusal(&subject, fence).await;
    assert_eq!(why, "it is paused while it is copied to another store");
    let entry = NamespaceEntry::new(settings(), START);
    let refused = subject.reconfigure("default", ConfigurationChange::Namespace(entry)).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    // Reading goes on, and nothing is due.
    assert!(subject.record(at).await.is_some());
    subject.clock.advance(SECOND * 9);
    source.keep(Kept::ForCertain).await.unwrap();
    subject.clock.advance(SECOND * 9);
    assert_eq!(subject.due(10).await, []);
    refusal(&subject, fence).await;
    assert_eq!(source.release().await.unwrap(), Released::GoesOn);
    // Nobody was heard meanwhile, so nobody is given up.
    subject.clock.advance(SECOND * 9);
    assert_eq!(subject.due(10).await, []);
    assert!(matches!(subject.apply(at, &heartbeat(fence)).await, Applied::Wrote(_)));
}

#[tokio::test]
async fn nobody_is_given_up_for_what_a_short_pause_refused() {
    let (subject, _, fence) = shared().await;
    subject.pass(Settings::default().lease - SECOND).await;
    subject.store.pause(None).await.unwrap();
    refusal(&subject, fence).await;
    // The lease ends meanwhile.
    subject.clock.advance(SECOND * 2);
    subject.store.resume().await.unwrap();
    assert_eq!(subject.due(10).await, []);
    let heard = subject.apply(key("default", "r", "s"), &heartbeat(fence)).await;
    assert!(matches!(heard, Applied::Wrote(_)), "{heard:?}");
}

#[tokio::test]
async fn the_pause_of_a_copy_that_was_killed_ends_by_itself() {
    let (subject, mut source, fence) = shared().await;
    source.close().await.unwrap();
    refusal(&subject, fence).await;
    subject.clock.advance(SECOND * 10);
    assert!(matches!(
        subject.apply(key("default", "r", "s"), &heartbeat(fence)).await,
        Applied::Wrote(_)
    ));
    // Should it still be there, it notices.
    let error = source.keep(Kept::ForCertain).await.unwrap_err();
    assert!(matches!(error, CopyError::SourceWentOn(_)), "{error}");
}

#[tokio::test]
async fn an_operators_pause_outlasts_a_copy() {
    let (subject, mut source, fence) = shared().await;
    let url = subject.server.as_ref().unwrap().url();
    let operator = Redis::existing(redis_options(&url, &subject.clock)).await.unwrap();
    let met = operator.pause(None).await.unwrap();
    assert_eq!(met.namespaces, [id("default")]);
    assert!(refusal(&subject, fence).await.contains("reprise store resume"));
    let dir = TempDir::new().unwrap();
    let mut target = EmbeddedTarget::open(options(&dir), later(HOUR)).unwrap();
    let copied = copy(&mut source, "shared", &mut target, |_| {}).await.unwrap();
    assert_eq!(copied.source, Released::StaysPaused);
    refusal(&subject, fence).await;
    operator.resume().await.unwrap();
    assert!(matches!(
        subject.apply(key("default", "r", "s"), &heartbeat(fence)).await,
        Applied::Wrote(_)
    ));

    // One with an end ends; one that a copy has is left alone.
    operator.pause(Some(SECOND * 5)).await.unwrap();
    assert!(refusal(&subject, fence).await.contains("until"));
    subject.clock.advance(SECOND * 5);
    subject.apply(key("default", "r", "s"), &heartbeat(fence)).await;
    let mut source = RedisSource::new(operator.clone());
    source.close().await.unwrap();
    let met = operator.resume().await.unwrap();
    assert_eq!((met.namespaces.len(), met.held.len()), (0, 1));
    refusal(&subject, fence).await;
}

#[tokio::test]
async fn what_is_no_store_is_no_source() {
    let server = house().await;
    let none = Redis::existing(redis_options(&server.url(), &later(Duration::ZERO))).await;
    assert!(matches!(none, Err(RedisError::Empty { .. })));
}

// As a command.

/// Runs `reprise store …`: code, stdout, stderr.
async fn store(arguments: &[&str]) -> (i32, String, String) {
    let output = command(arguments).output().await.unwrap();
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    command
        .arg("store")
        .args(arguments)
        .env("NO_COLOR", "1")
        .env_remove("REPRISE_NAMESPACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn place(dir: &Path) -> String {
    format!("embedded:{}", dir.display())
}

async fn report_failure(server: &Server, run: &str, attempt: u32) -> proto::ReportAttemptResponse {
    let failure = proto::Failure {
        class: proto::FailureClass::Transient.into(),
        message: "not now".to_owned(),
        ..proto::Failure::default()
    };
    let request = proto::ReportAttemptRequest {
        run: run.to_owned(),
        step: "load".to_owned(),
        attempt,
        outcome: Some(proto::report_attempt_request::Outcome::Failure(failure)),
        ..proto::ReportAttemptRequest::default()
    };
    server.client().report_attempt(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_service_moves_into_redis_and_goes_on() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let mut old = Server::start(&data, "127.0.0.1:0").await;
    report_failure(&old, "moved", 1).await;
    let redis = house().await;
    let (from, url) = (place(&data), redis.url());

    let (code, _, stderr) = store(&["copy", "--from", &from, "--to", &url]).await;
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.contains(&format!("in use by process {}", old.pid())), "{stderr}");
    assert!(stderr.contains("end the server that has it"), "{stderr}");

    old.kill().await;
    let (code, stdout, stderr) =
        store(&["copy", "--from", &from, "--to", &url, "--output", "json"]).await;
    assert_eq!(code, 0, "{stderr}");
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&summary["steps"], &summary["source"]), (&1.into(), &"AT_REST".into()));
    assert_eq!(summary["namespaces"][0]["failure_texts"], 1);

    let (code, _, stderr) = store(&["copy", "--from", &from, "--to", &url]).await;
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.contains("a copy needs a new store"), "{stderr}");

    let mut serve = process::serve(&folder.path().join("unused"), "127.0.0.1:0");
    serve.args(["--store", &url]);
    let new = Server::start_with(&folder.path().join("new"), serve).await;
    let answer = report_failure(&new, "moved", 2).await;
    let counters = answer.decision.unwrap().counters.unwrap();
    assert_eq!((counters.attempts, counters.retries), (2, 2));

    let (code, stdout, stderr) = store(&["pause", &url, "-o", "json"]).await;
    assert_eq!(code, 0, "{stderr}");
    let standstill: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(standstill, serde_json::json!({ "namespaces": ["default"], "held": [] }));
    assert!(stderr.contains("until `reprise store resume`"), "{stderr}");
    let begun = proto::BeginAttemptRequest {
        run: "more".to_owned(),
        step: "load".to_owned(),
        request_id: vec![1; 16].into(),
        ..proto::BeginAttemptRequest::default()
    };
    let refused = new.client().begin_attempt(begun.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(refused.message().contains("an operator paused it"), "{refused}");
    let (code, _, stderr) = store(&["resume", &url]).await;
    assert_eq!(code, 0, "{stderr}");
    new.client().begin_attempt(begun).await.unwrap();
}

#[tokio::test]
async fn a_copy_that_was_killed_is_run_again() {
    let subject = furnished(Clock::system(START)).await;
    for number in 0..3000 {
        let run = format!("many-{number}");
        subject.apply(key("default", &run, "s"), &begin(number + 1)).await;
    }
    let Subject { store: first, dir, .. } = subject;
    drop(first);
    let dir = dir.unwrap();
    let redis = house().await;
    let (from, url) = (place(dir.path()), redis.url());

    let mut child = command(&["copy", "--from", &from, "--to", &url]).spawn().unwrap();
    loop {
        let written: u64 = redis.endpoint().call("ZCARD reprise:{default}:events").await.unwrap();
        if written > 0 {
            break;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
    }
    redis.stop();
    child.kill().await.unwrap();
    redis.cont();
    let mark: Option<Vec<u8>> = redis.endpoint().call("GET reprise:copying").await.unwrap();
    assert!(mark.is_some(), "it was whole before it was killed");
    let mut serve = process::serve(&dir.path().join("unused"), "127.0.0.1:0");
    serve.args(["--store", &url]);
    let (code, stderr) = process::refusal(serve).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("run the copy again"), "{stderr}");

    let (code, stdout, stderr) =
        store(&["copy", "--from", &from, "--to", &url, "-o", "json"]).await;
    assert_eq!(code, 0, "{stderr}");
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(summary["steps"], 3601);
    let mark: Option<Vec<u8>> = redis.endpoint().call("GET reprise:copying").await.unwrap();
    assert_eq!(mark, None);
}

#[tokio::test]
async fn what_cannot_be_copied_is_told() {
    let folder = TempDir::new().unwrap();
    let nothing = place(&folder.path().join("nothing"));
    let target = place(&folder.path().join("target"));
    for (from, to, code, told) in [
        (&*nothing, &*target, 3, "holds no store"),
        ("somewhere", &*target, 2, "accepted: embedded:DIR"),
        (&*nothing, "redis://u:secret@a", 2, "password_file"),
        (&*nothing, &*nothing, 2, "the same store"),
        ("redis://127.0.0.1:1", &*target, 6, "could not be reached"),
    ] {
        let arguments = ["copy", "--call-timeout", "200ms", "--from", from, "--to", to];
        let (ended, _, stderr) = store(&arguments).await;
        assert_eq!(ended, code, "{from} {to}: {stderr}");
        assert!(stderr.contains(told), "{from} {to}: {stderr}");
        assert!(!stderr.contains("secret"), "{stderr}");
    }
    assert!(!folder.path().join("nothing").exists());
}

// Shifts.

/// A record in which every instant is `at` of its own number, with the number of
/// instants.
fn record(at: impl Fn(u64) -> Timestamp, state: u8) -> Record {
    let settled = |from: u64, verdict| Settled {
        verdict,
        reason: Reason::Backoff,
        rule: None,
        revision: 3,
        counters: Counters::default(),
        decided_at: at(from),
    };
    let mut record = Record::new(at(0), PolicyChoice::Default);
    record.fence = 77;
    record.first_began_at = Some(at(1));
    record.deadline = Some(at(2));
    record.held_for = SECOND;
    record.standing = Some(settled(3, Verdict::Wait(Some(at(4)))));
    let end = End {
        at: at(5),
        outcome: Outcome::Crash,
        reported_by: None,
        late: false,
        settled: settled(6, Verdict::Hold(Some(at(7)))),
        counted: None,
        fault: 0,
    };
    let attempt = |number, began_at, end| Attempt {
        number,
        fence: 70 + u64::from(number),
        began_at,
        begun_by: None,
        host: None,
        began_with: None,
        end,
    };
    record.attempts = VecDeque::from([attempt(1, at(8), Some(end)), attempt(2, at(9), None)]);
    record.state = match state {
        0 => StepState::Waiting { due: at(10) },
        1 => StepState::Stopping { at: at(10), verdict: settled(11, Verdict::Retry(at(12))) },
        2 => StepState::Running { lease_until: at(10) },
        3 => StepState::Held(Hold {
            since: at(10),
            until: Some(at(11)),
            allowed: Vec::new(),
            default_answer: HoldAnswer::ALL[0],
            max_manual_retries: 1,
        }),
        _ => StepState::Over { ending: Ending::Failed, purge_at: at(10) },
    };
    record
}

proptest! {
    #[test]
    fn every_instant_moves_alike_and_nothing_else_does(
        instants in proptest::collection::vec(1_000_000_000_000u64..1 << 51, 13),
        by in -1_000_000_000_000i64..1_000_000_000_000,
        state in 0u8..5,
    ) {
        let at = |number: u64| Timestamp::from_micros(instants[usize::try_from(number).unwrap()]);
        let base = Timestamp::from_micros(1 << 50);
        let shift = Shift::between(base, Timestamp::from_micros((1u64 << 50).saturating_add_signed(by)));
        let moved = |number: u64| Timestamp::from_micros(at(number).as_micros().saturating_add_signed(by));
        prop_assert_eq!(shift.as_micros(), by);
        prop_assert_eq!(shift.record(record(at, state)), record(moved, state));
        let back = Shift::between(base, Timestamp::from_micros((1u64 << 50).saturating_add_signed(-by)));
        prop_assert_eq!(back.record(shift.record(record(at, state))), record(at, state));
    }
}

#[test]
fn nothing_stays_when_there_is_nothing() {
    let shift = Shift::between(START, START.plus(HOUR));
    let mut held = record(|_| START, 3);
    held.state = match held.state {
        StepState::Held(hold) => StepState::Held(Hold { until: None, ..hold }),
        other => other,
    };
    let StepState::Held(hold) = shift.record(held).state else { panic!("it is held") };
    assert_eq!((hold.since, hold.until), (START.plus(HOUR), None));
    assert_eq!(shift.instant(Timestamp::NEVER), Timestamp::NEVER);
}

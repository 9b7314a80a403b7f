//! What is kept in Redis carries versions: what earlier ones wrote is read, and
//! what a later one wrote is refused by its number.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use redis::{Value, aio::MultiplexedConnection, cmd};
use reprise::{
    domain::{
        decision::Reason,
        event::AttemptName,
        record::{Ending, PolicyChoice, State},
    },
    store::{ConfigurationChange, Expect, Store, StoreError, record::RecordError, redis::Redis},
};

use crate::{
    redis_servers::{Kind, Options, Standalone},
    store_contract::subject::{self, START, Subject, id, key},
};

async fn server() -> (Standalone, MultiplexedConnection) {
    let server = Standalone::start(Kind::Redis70, Options::default()).await;
    let connection = server.endpoint().connect().await.unwrap();
    (server, connection)
}

/// A store that remembers nothing of what another one did.
async fn opened(server: &Standalone) -> Subject<Redis> {
    let clock = subject::clock();
    let store = Redis::open(subject::redis_options(&server.url(), &clock)).await.unwrap();
    Subject { store, clock, dir: None, server: None }
}

/// Changes one byte of a value.
async fn plant(connection: &mut MultiplexedConnection, key: &str, at: usize, byte: u8) {
    let mut value: Vec<u8> = cmd("GET").arg(key).query_async(connection).await.unwrap();
    value[at] = byte;
    cmd("SET").arg(key).arg(value).exec_async(connection).await.unwrap();
}

#[tokio::test]
async fn a_record_of_a_later_version_is_refused_by_its_number() {
    let (server, mut connection) = server().await;
    let before = opened(&server).await;
    before.create("n").await;
    let (later, other) = (key("n", "r", "later"), key("n", "r", "other"));
    before.apply(later, &subject::begin(1)).await;
    plant(&mut connection, "reprise:{n}:step:r later", 17, 5).await;

    let subject = opened(&server).await;
    let refused = subject.store.load(&later, Expect::Anything).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Unreadable { source: RecordError::Format(5), .. }),
        "{refused:?}"
    );
    subject.apply(other, &subject::begin(1)).await;
    assert_eq!(subject.live_steps("n").await, 2, "it harms no other");
}

#[tokio::test]
async fn a_namespace_of_a_later_version_is_refused_by_its_number() {
    let (server, mut connection) = server().await;
    opened(&server).await.create("n").await;
    // Whatever it looks like behind its number.
    cmd("SET").arg("reprise:{n}:state").arg(b"\x03").exec_async(&mut connection).await.unwrap();
    let subject = opened(&server).await;
    let refusals = [
        subject.store.load(&key("n", "r", "s"), Expect::Anything).await.map(drop),
        subject.store.configuration("n").await.map(drop),
        subject.store.follow("n", 0, 1).await.map(drop),
        subject.store.peek_due(1).await.map(drop),
    ];
    for refused in refusals {
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("newer version of Reprise, in format 3"), "{told}");
    }
    subject.load(key("default", "r", "s")).await;
}

/// Of samples: commands that write their keys, a line each, words in hexadecimal.
///
/// The first format of a namespace's state, and the second, which tells of a pause.
const SAMPLES: [&str; 2] = ["tests/samples/redis-v1.hex", "tests/samples/redis-v2.hex"];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What [`SAMPLES`] hold.
async fn fill(subject: &Subject<Redis>) {
    subject.create("n").await;
    let named = subject::policy("{max_retries: 3, backoff: {fixed: {delay: 1s}}}");
    subject.reconfigure("n", ConfigurationChange::Policy(id("p"), named)).await.unwrap();
    let inline = Arc::new(subject::revision("max_retries: 7", 0));
    let by_digest = PolicyChoice::Inline(inline.digest);
    subject.reconfigure("n", ConfigurationChange::Inline(inline)).await.unwrap();

    let choice = PolicyChoice::Named(id("p"));
    let (waiting, over) = (key("n", "r", "waiting"), key("n", "r", "over"));
    subject.try_apply(waiting, &choice, &subject::failed(1, "no luck")).await.unwrap();
    subject.try_apply(key("n", "r", "running"), &by_digest, &subject::begin(5)).await.unwrap();
    let fence = subject.apply(over, &subject::begin(6)).await.record().fence;
    subject.apply(over, &subject::report(AttemptName::Fence(fence), 0, None)).await;
}

/// Reads every key as the command that writes it.
async fn written(connection: &mut MultiplexedConnection) -> String {
    let mut keys: Vec<String> = cmd("KEYS").arg("*").query_async(connection).await.unwrap();
    keys.sort();
    let mut lines = String::new();
    for key in keys {
        let kind: String = cmd("TYPE").arg(&key).query_async(connection).await.unwrap();
        let mut get = match kind.as_str() {
            "string" => cmd("GET"),
            "hash" => cmd("HGETALL"),
            "list" => cmd("LRANGE"),
            "zset" => cmd("ZRANGE"),
            "stream" => cmd("XRANGE"),
            other => panic!("{key} is a {other}"),
        };
        get.arg(&key);
        let commands: Vec<Vec<Vec<u8>>> = match kind.as_str() {
            "string" => vec![vec![b"SET".to_vec(), get.query_async(connection).await.unwrap()]],
            "hash" => {
                let fields: Vec<Vec<u8>> = get.query_async(connection).await.unwrap();
                vec![[vec![b"HSET".to_vec()], fields].concat()]
            }
            "list" => {
                let values: Vec<Vec<u8>> =
                    get.arg(0).arg(-1).query_async(connection).await.unwrap();
                vec![[vec![b"RPUSH".to_vec()], values].concat()]
            }
            "zset" => {
                let members: Vec<(Vec<u8>, Vec<u8>)> =
                    get.arg(0).arg(-1).arg("WITHSCORES").query_async(connection).await.unwrap();
                let pairs = members.into_iter().flat_map(|(member, score)| [score, member]);
                vec![std::iter::once(b"ZADD".to_vec()).chain(pairs).collect()]
            }
            _ => {
                let entries: Vec<(Vec<u8>, Vec<Vec<u8>>)> =
                    get.arg("-").arg("+").query_async(connection).await.unwrap();
                let entry = |(id, fields)| [vec![b"XADD".to_vec(), id], fields].concat();
                entries.into_iter().map(entry).collect()
            }
        };
        for mut words in commands {
            words.insert(1, key.clone().into_bytes());
            let words: Vec<String> = words.iter().map(|word| hex(word)).collect();
            lines += &(words.join(" ") + "\n");
        }
    }
    lines
}

/// Writes [`SAMPLES`] where there are none: once for each format that there ever is.
#[tokio::test]
#[ignore = "writes the samples that later versions are held to"]
async fn write_the_samples() {
    for (name, is_paused) in SAMPLES.into_iter().zip([false, true]) {
        let file = sample(name);
        if file.exists() {
            continue;
        }
        let (server, mut connection) = server().await;
        let subject = opened(&server).await;
        fill(&subject).await;
        if is_paused {
            subject.store.pause(None).await.unwrap();
        }
        fs::write(file, written(&mut connection).await).unwrap();
    }
}

/// Puts a sample into a server.
async fn restore(name: &str, connection: &mut MultiplexedConnection) {
    for line in fs::read_to_string(sample(name)).unwrap().lines() {
        let words: Vec<Vec<u8>> = line.split(' ').map(bytes).collect();
        let mut command = redis::Cmd::new();
        command.arg(words);
        let _: Value = command.query_async(connection).await.unwrap();
    }
}

#[tokio::test]
async fn what_version_1_kept_in_redis_is_read_and_goes_on() {
    let (server, mut connection) = server().await;
    restore(SAMPLES[0], &mut connection).await;
    reads_and_goes_on(&opened(&server).await).await;
}

#[tokio::test]
async fn what_version_2_kept_in_redis_is_read_and_goes_on_after_its_pause() {
    let (server, mut connection) = server().await;
    restore(SAMPLES[1], &mut connection).await;
    let subject = opened(&server).await;
    let refused = subject
        .try_apply(key("n", "r", "new"), &PolicyChoice::Default, &subject::begin(9))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("an operator paused it"), "{refused}");
    subject.store.resume().await.unwrap();
    reads_and_goes_on(&subject).await;
}

/// Versions that know no pause read the state of whatever is not paused, and of
/// nothing else.
#[tokio::test]
async fn a_state_tells_of_a_pause_as_long_as_there_is_one() {
    let (server, mut connection) = server().await;
    let subject = opened(&server).await;
    subject.create("n").await;
    let mut state = async || -> Vec<u8> {
        cmd("GET").arg("reprise:{n}:state").query_async(&mut connection).await.unwrap()
    };
    let before = state().await;
    assert_eq!((before[0], before.len()), (1, 65));
    subject.store.pause(None).await.unwrap();
    let paused = state().await;
    assert_eq!((paused[0], paused.len()), (2, 81));
    subject.store.resume().await.unwrap();
    assert_eq!(state().await[0], 1);
    // One that ends by itself is gone with the next change.
    subject.store.pause(Some(Duration::from_secs(2))).await.unwrap();
    assert_eq!(state().await[0], 2);
    subject.pass(Duration::from_secs(2)).await;
    subject.apply(key("n", "r", "s"), &subject::begin(1)).await;
    assert_eq!(state().await[0], 1);
}

/// Holds a store to what [`fill`] has put there.
async fn reads_and_goes_on(subject: &Subject<Redis>) {
    let configuration = subject.store.configuration("n").await.unwrap();
    assert_eq!((configuration.revision, configuration.policies.len()), (2, 1));
    assert_eq!(subject.changes("n").await.len(), 4);
    assert_eq!(subject.live_steps("n").await, 2);

    let waiting = key("n", "r", "waiting");
    let record = subject.record(waiting).await.unwrap();
    assert_eq!(record.state, State::Waiting { due: START.plus(Duration::from_secs(1)) });
    assert_eq!(record.latest().unwrap().end.as_ref().unwrap().settled.reason, Reason::Backoff);
    assert_eq!(record.policy, PolicyChoice::Named(id("p")));
    let evidence = subject.store.evidence(&waiting).await.unwrap();
    assert_eq!(evidence.failures.front().unwrap().message, "no luck");

    let running = subject.record(key("n", "r", "running")).await.unwrap();
    let PolicyChoice::Inline(digest) = running.policy else { panic!("{:?}", running.policy) };
    assert!(subject.store.inline_policy("n", digest).await.unwrap().is_some());
    let over = subject.record(key("n", "r", "over")).await.unwrap();
    assert!(matches!(over.state, State::Over { ending: Ending::Succeeded, .. }));

    // Everything goes on from there: the step that runs ends, the others are due.
    let ended = subject::report(AttemptName::Fence(running.fence), 0, None);
    subject.apply(key("n", "r", "running"), &ended).await;
    assert_eq!(subject.changes("n").await.len(), 5);
    subject.pass(Duration::from_secs(200)).await;
    assert_eq!(subject.due(10).await.len(), 3);
}

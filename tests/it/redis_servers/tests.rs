//! What the other tests rely on: each topology starts, keeps what it promises
//! to keep, and comes back.

use std::net::SocketAddr;

use redis::{RedisResult, aio::MultiplexedConnection, cmd};
use tokio::time::Instant;

use super::{node::Endpoint, *};

/// Writes, reads back, and counts in a script: how often that was done.
async fn count(endpoint: &Endpoint) -> RedisResult<u64> {
    let mut connection = endpoint.connect().await?;
    endpoint.call::<()>("SET {key}:word said").await?;
    let word: String = endpoint.call("GET {key}:word").await?;
    assert_eq!(word, "said");
    cmd("EVAL")
        .arg("#!lua\nreturn redis.call('INCR', KEYS[1])")
        .arg(1)
        .arg("{key}:count")
        .query_async(&mut connection)
        .await
}

/// A client of the harness through a proxy.
async fn through(proxy: &Proxy) -> MultiplexedConnection {
    Endpoint::open(proxy.address()).connect().await.unwrap()
}

async fn increment(connection: &mut MultiplexedConnection) -> RedisResult<u64> {
    cmd("INCR").arg("count").query_async(connection).await
}

#[tokio::test]
async fn every_server_runs_scripts() {
    for kind in Kind::ALL {
        let server = Standalone::start(kind, Options::default()).await;
        assert_eq!(count(server.endpoint()).await.unwrap(), 1, "{kind}");
        assert_eq!(server.url(), format!("redis://{}", server.address()));
    }
}

#[tokio::test]
async fn what_is_synced_survives_a_kill_and_what_is_not_kept_does_not() {
    for (aof, kept) in [(Aof::Always, 1), (Aof::EverySecond, 1), (Aof::Never, 1), (Aof::Off, 0)] {
        let options = Options { aof, ..Options::default() };
        let mut server = Standalone::start(Kind::Redis82, options).await;
        count(server.endpoint()).await.unwrap();
        let before = server.address();
        server.kill();
        assert!(server.endpoint().call::<String>("PING").await.is_err());
        server.restart().await;
        assert_eq!(server.address(), before);
        assert_eq!(count(server.endpoint()).await.unwrap(), kept + 1);
        assert_eq!(server.data().join("appendonlydir").exists(), kept == 1);
    }
}

#[tokio::test]
async fn a_server_that_is_stopped_answers_once_it_goes_on() {
    let server = Standalone::start(Kind::Valkey91, Options::default()).await;
    let mut connection = server.endpoint().connect().await.unwrap();
    server.stop();
    let mut asked = Box::pin(increment(&mut connection));
    let early = timeout(Duration::from_millis(100), &mut asked).await;
    assert!(early.is_err(), "a server that is stopped does not answer");
    server.cont();
    assert_eq!(asked.await.unwrap(), 1);
}

#[tokio::test]
async fn past_its_memory_a_server_refuses_writes() {
    let options = Options { maxmemory: Some(1), ..Options::default() };
    let server = Standalone::start(Kind::Valkey81, options).await;
    let refused = count(server.endpoint()).await.unwrap_err();
    assert_eq!(refused.code(), Some("OOM"));
}

#[tokio::test]
async fn a_user_may_do_what_its_rules_say() {
    let access = Access::Rules("~mine:* +@all");
    let server = Standalone::start(Kind::Redis70, Options { access, ..Options::default() }).await;
    let password = format!("password_file={}/password", server.data().display());
    assert_eq!(server.url(), format!("redis://reprise@{}?{password}", server.address()));
    assert_eq!(count(server.endpoint()).await.unwrap(), 1, "the administrator may do everything");
    let url = format!("redis://reprise:not-a-secret@{}", server.address());
    let user = Endpoint::new(server.address(), redis::Client::open(url).unwrap());
    user.tell("SET mine:key value").await;
    let refused = user.call::<()>("SET key value").await.unwrap_err();
    assert_eq!(refused.code(), Some("NOPERM"));
}

#[tokio::test]
async fn without_the_password_nobody_is_let_in() {
    let access = Access::Password;
    let server = Standalone::start(Kind::Valkey91, Options { access, ..Options::default() }).await;
    assert_eq!(count(server.endpoint()).await.unwrap(), 1);
    let refused = Endpoint::open(server.address()).call::<()>("GET key").await.unwrap_err();
    assert_eq!(refused.code(), Some("NOAUTH"));
}

#[tokio::test]
async fn tls_may_ask_for_a_clients_certificate() {
    for (link, files) in [(Link::Tls, 1), (Link::MutualTls, 3)] {
        let server = Standalone::start(Kind::Redis70, Options { link, ..Options::default() }).await;
        assert_eq!(count(server.endpoint()).await.unwrap(), 1);
        assert!(server.url().starts_with(&format!("rediss://{}?ca_file=/", server.address())));
        assert_eq!(server.url().matches("_file=").count(), files);
        let plain = Endpoint::open(server.address());
        assert!(plain.call::<String>("PING").await.is_err());
    }
}

#[tokio::test]
async fn a_unix_socket_is_enough() {
    let link = Link::UnixSocket;
    let mut server =
        Standalone::start(Kind::Valkey81, Options { link, ..Options::default() }).await;
    assert_eq!(count(server.endpoint()).await.unwrap(), 1);
    assert_eq!(server.url(), format!("redis+unix://{}/socket", server.data().display()));
    server.restart().await;
    assert_eq!(count(server.endpoint()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let options = Options { configuration: &["no-such-setting yes"], ..Options::default() };
    let started = tokio::spawn(Standalone::start(Kind::Redis82, options)).await;
    let panic = started.err().expect("the setting is refused").into_panic();
    let said = panic.downcast::<String>().unwrap();
    assert!(said.contains("no-such-setting"), "{said}");
}

#[tokio::test]
async fn sentinels_replace_a_primary_that_is_killed() {
    for kind in [Kind::Redis70, Kind::Valkey91] {
        let mut set = SentinelSet::start(kind, &[]).await;
        assert_eq!(set.url().matches("127.").count(), 3);
        assert!(set.url().ends_with("/reprise"));
        let first = set.kill_primary().await;
        assert_ne!(set.primary_after(first).await, first);
        set.servers[first].restart().await;
        let primary = set.settled().await;
        count(set.servers[primary].endpoint()).await.unwrap();
        let replica = (primary + 1) % set.servers.len();
        let refused = count(set.servers[replica].endpoint()).await.unwrap_err();
        assert_eq!(refused.code(), Some("READONLY"));
    }
}

#[tokio::test]
async fn sentinels_replace_a_primary_when_told_to() {
    let set = SentinelSet::start(Kind::Redis82, &["min-replicas-to-write 1"]).await;
    let former = set.primary().await;
    count(set.servers[former].endpoint()).await.unwrap();
    assert_ne!(set.failover_by_command().await, former);
    let primary = set.settled().await;
    count(set.servers[primary].endpoint()).await.unwrap();
}

#[tokio::test]
async fn a_slot_moves_in_steps() {
    for kind in Kind::ALL {
        let cluster = Cluster::start(kind, false, &[]).await;
        let slot = cluster.slot("{key}:count").await;
        let from = cluster.owner(slot).await;
        let to = (from + 1) % 3;
        let [source, destination] = [from, to].map(|place| cluster.nodes[place].endpoint());
        assert_eq!(count(source).await.unwrap(), 1);

        let migration = cluster.migration(slot, from, to).await;
        migration.open().await;
        assert_eq!(count(source).await.unwrap(), 2, "keys that are there are served");
        migration.carry("{key}:count").await;
        let asked = source.call::<u64>("GET {key}:count").await.unwrap_err();
        assert_eq!(asked.code(), Some("ASK"), "{kind}");
        assert_eq!(migration.keys().await, ["{key}:word"]);
        migration.carry_keys().await;
        migration.close().await;
        assert_eq!(cluster.owner_after(from, slot).await, to);
        assert_eq!(count(destination).await.unwrap(), 3);
        let moved = source.call::<u64>("GET {key}:count").await.unwrap_err();
        assert_eq!(moved.code(), Some("MOVED"), "{kind}");

        cluster.move_slot(slot, to, from).await;
        assert_eq!(cluster.owner_after(to, slot).await, from);
        assert_eq!(count(source).await.unwrap(), 4);
    }
}

#[tokio::test]
async fn a_replica_takes_over_when_its_primary_is_killed_or_told_to() {
    for kind in [Kind::Redis70, Kind::Valkey91] {
        let mut cluster = Cluster::start(kind, true, &[]).await;
        assert_eq!(cluster.url().matches(',').count(), 5);
        let slot = cluster.slot("{key}").await;
        let first = cluster.owner(slot).await;
        assert_eq!(count(cluster.nodes[first].endpoint()).await.unwrap(), 1);
        let replica = first + 3;
        cluster.failover(replica).await;
        assert_eq!(count(cluster.nodes[replica].endpoint()).await.unwrap(), 2);
        cluster.kill(replica);
        assert_eq!(cluster.owner_after(replica, slot).await, first);
        count(cluster.nodes[first].endpoint()).await.unwrap();
        cluster.nodes[replica].restart().await;
        cluster.well().await;
    }
}

#[tokio::test]
async fn a_proxy_passes_counts_and_delays() {
    let server = Standalone::start(Kind::Valkey91, Options::default()).await;
    let proxy = Proxy::start(server.address()).await;
    assert_eq!(server.url_at(proxy.address()), format!("redis://{}", proxy.address()));
    let mut connection = through(&proxy).await;
    assert_eq!(increment(&mut connection).await.unwrap(), 1);
    let counts = proxy.counts();
    assert_eq!((counts.accepted, counts.open, counts.swallowed), (1, 1, 0));
    assert!(counts.requested > 20 && counts.replied > 3, "{counts:?}");
    let delay = Duration::from_millis(50);
    for fault in [Fault::DelayRequests(delay), Fault::DelayReplies(delay)] {
        proxy.set(fault).await;
        let asked = Instant::now();
        increment(&mut connection).await.unwrap();
        assert!(asked.elapsed() >= delay, "{fault:?}");
    }
    drop(connection);
    proxy.until(|counts| counts.open == 0).await;
}

#[tokio::test]
async fn a_half_open_connection_holds_back_and_lets_go() {
    let server = Standalone::start(Kind::Valkey91, Options::default()).await;
    let proxy = Proxy::start(server.address()).await;
    let mut connection = through(&proxy).await;
    proxy.set(Fault::HalfOpen).await;
    let mut asked = Box::pin(increment(&mut connection));
    let early = timeout(Duration::from_millis(100), &mut asked).await;
    assert!(early.is_err(), "nothing gets through");
    assert_eq!(server.endpoint().call::<u64>("EXISTS count").await.unwrap(), 0);
    proxy.set(Fault::None).await;
    assert_eq!(asked.await.unwrap(), 1);
}

#[tokio::test]
async fn a_swallowed_reply_leaves_its_effect() {
    let server = Standalone::start(Kind::Valkey91, Options::default()).await;
    let proxy = Proxy::start(server.address()).await;
    let mut connection = through(&proxy).await;
    proxy.set(Fault::SwallowNextReply).await;
    assert!(increment(&mut connection).await.is_err());
    assert_eq!(server.endpoint().call::<u64>("GET count").await.unwrap(), 1);
    let mut connection = through(&proxy).await;
    proxy.set(Fault::SwallowReplies).await;
    assert!(increment(&mut connection).await.is_err());
    assert!(Endpoint::open(proxy.address()).connect().await.is_err());
    assert_eq!(server.endpoint().call::<u64>("GET count").await.unwrap(), 2);
    assert!(proxy.counts().swallowed >= 3);
}

#[tokio::test]
async fn a_connection_is_cut_where_it_was_said() {
    let server = Standalone::start(Kind::Valkey91, Options::default()).await;
    let proxy = Proxy::start(server.address()).await;
    for (fault, effect) in [(Fault::CutRequestsAfter(5), 0), (Fault::CutRepliesAfter(2), 1)] {
        let mut connection = through(&proxy).await;
        let before = proxy.counts();
        proxy.set(fault).await;
        assert!(increment(&mut connection).await.is_err());
        let counts = proxy.until(|counts| counts.open == 0).await;
        match fault {
            Fault::CutRequestsAfter(_) => assert_eq!(counts.requested, before.requested + 5),
            _ => assert_eq!(counts.replied, before.replied + 2),
        }
        assert_eq!(server.endpoint().call::<u64>("EXISTS count").await.unwrap(), effect);
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_can_come_back() {
    let server = Standalone::start(Kind::Valkey91, Options::default()).await;
    let proxy = Proxy::start(server.address()).await;
    let mut connection = through(&proxy).await;
    proxy.set(Fault::Refuse).await;
    assert!(increment(&mut connection).await.is_err());
    assert!(is_refused(proxy.address()).await);
    proxy.set(Fault::None).await;
    assert_eq!(increment(&mut through(&proxy).await).await.unwrap(), 1);
}

async fn is_refused(address: SocketAddr) -> bool {
    let connected = tokio::net::TcpStream::connect(address).await;
    connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

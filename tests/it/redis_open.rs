//! Opening the store over every kind of connection, and being told what to do
//! when it does not open.

use std::{fs, time::Duration};

use reprise::{
    domain::{
        event::AttemptName,
        failure::{Failure, FailureClass},
        record::{Ending, State},
    },
    store::{
        Store as _,
        redis::{Redis, RedisError, RedisOptions, address::Address, commands},
    },
};

use crate::{
    redis_servers::{Access, Aof, Kind, Link, Options, Standalone},
    store_contract::subject::{self, Subject, key},
};

/// What must never be said.
const SECRETS: [&str; 2] = ["not-a-secret", "another-secret"];

fn options(url: &str) -> RedisOptions {
    RedisOptions {
        timeout: Duration::from_secs(3),
        ..RedisOptions::new(Address::parse(url).unwrap())
    }
}

/// One step begins, is kept alive, fails, is retried and succeeds.
async fn a_step_lives(url: &str) {
    let clock = subject::clock();
    let store = Redis::open(subject::redis_options(url, &clock)).await.unwrap();
    let subject = Subject { store, clock, dir: None, server: None };
    subject.create("n").await;
    let key = key("n", "r", "s");
    let fence = subject.apply(key, &subject::begin(1)).await.record().fence;
    subject.apply(key, &subject::heartbeat(fence)).await;
    let failure = Failure::of(FailureClass::Transient);
    let failed = subject::report(AttemptName::Fence(fence), 0, Some(failure));
    subject.apply(key, &failed).await;
    subject.pass(Duration::from_secs(30)).await;
    let ended = subject.apply(key, &subject::report(AttemptName::Number(2), 0, None)).await;
    assert!(matches!(ended.record().state, State::Over { ending: Ending::Succeeded, .. }));
    assert_eq!(subject.store.evidence(&key).await.unwrap().failures.len(), 1);
}

/// Why the store does not open.
async fn refusal(options: RedisOptions) -> String {
    let error = Redis::open(options).await.expect_err("it must not open");
    let source = std::error::Error::source(&error).map_or(String::new(), ToString::to_string);
    let told = format!("{error}: {source}");
    for secret in SECRETS {
        assert!(!told.contains(secret), "{told}");
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
    told
}

#[track_caller]
fn assert_told(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
}

#[tokio::test]
async fn a_step_lives_over_every_link() {
    for link in [Link::Tcp, Link::Tls, Link::MutualTls, Link::UnixSocket] {
        let server = Standalone::start(Kind::Redis70, Options { link, ..Options::default() }).await;
        a_step_lives(&server.url()).await;
    }
}

#[tokio::test]
async fn a_step_lives_behind_passwords() {
    let user = Access::Rules(commands::rules().leak());
    for (access, link) in [
        (Access::Password, Link::Tcp),
        (Access::Password, Link::UnixSocket),
        (user, Link::Tcp),
        (user, Link::MutualTls),
    ] {
        let options = Options { access, link, ..Options::default() };
        let server = Standalone::start(Kind::Redis70, options).await;
        a_step_lives(&server.url()).await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_apart_from_none() {
    let access = Access::Password;
    let server = Standalone::start(Kind::Redis70, Options { access, ..Options::default() }).await;
    let none = format!("redis://{}", server.address());
    assert_told(&refusal(options(&none)).await, &[&none, "NOAUTH", "password_file"]);

    let wrong = server.data().join("wrong");
    fs::write(&wrong, "another-secret\n").unwrap();
    let wrong = format!("redis://{}?password_file={}", server.address(), wrong.display());
    assert_told(&refusal(options(&wrong)).await, &["authentication failed", "password_file"]);
}

#[tokio::test]
async fn a_user_with_too_few_rights_is_told_where_the_rules_are() {
    let access = Access::Rules("~reprise:* -@all +role +info +ping");
    let server = Standalone::start(Kind::Redis70, Options { access, ..Options::default() }).await;
    let told = refusal(options(&server.url())).await;
    assert_told(&told, &["reprise store acl"]);
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_with_the_remedy() {
    let link = Link::Tls;
    let server = Standalone::start(Kind::Redis70, Options { link, ..Options::default() }).await;
    let other = Standalone::start(Kind::Redis70, Options { link, ..Options::default() }).await;
    let ca = other.data().join("ca.pem");
    let url = format!("rediss://{}?ca_file={}", server.address(), ca.display());
    assert_told(&refusal(options(&url)).await, &["ca_file"]);
}

#[tokio::test]
async fn a_certificate_that_is_missing_is_told_with_the_remedy() {
    let link = Link::MutualTls;
    let server = Standalone::start(Kind::Redis70, Options { link, ..Options::default() }).await;
    let ca = server.data().join("ca.pem");
    let url = format!("rediss://{}?ca_file={}", server.address(), ca.display());
    assert_told(&refusal(options(&url)).await, &["cert_file", "key_file"]);
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    let configuration = &["maxmemory-policy allkeys-lru"];
    let server =
        Standalone::start(Kind::Redis70, Options { configuration, ..Options::default() }).await;
    let told = refusal(options(&server.url())).await;
    assert_told(&told, &["allkeys-lru", "noeviction"]);
}

#[tokio::test]
async fn a_server_that_keeps_nothing_is_refused_where_that_is_asked_for() {
    let server = Standalone::start(Kind::Redis70, Options::default()).await;
    let strict = RedisOptions { strict: true, ..options(&server.url()) };
    assert_told(&refusal(strict).await, &["appendonly"]);
    let store = Redis::open(options(&server.url())).await.unwrap();
    assert!(store.is_unsafe(), "it is warned of otherwise");

    let aof = Aof::EverySecond;
    let server = Standalone::start(Kind::Redis70, Options { aof, ..Options::default() }).await;
    let strict = RedisOptions { strict: true, ..options(&server.url()) };
    assert!(!Redis::open(strict).await.unwrap().is_unsafe());
}

#[tokio::test]
async fn it_is_noticed_when_a_server_begins_to_evict_and_when_it_ends() {
    let aof = Aof::EverySecond;
    let server = Standalone::start(Kind::Valkey91, Options { aof, ..Options::default() }).await;
    let look_every = Duration::from_millis(20);
    let store = Redis::open(RedisOptions { look_every, ..options(&server.url()) }).await.unwrap();
    for (policy, is_unsafe) in [("allkeys-lru", true), ("noeviction", false)] {
        server.endpoint().tell(&format!("CONFIG SET maxmemory-policy {policy}")).await;
        let noticed = async {
            while store.is_unsafe() != is_unsafe {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), noticed).await.expect(policy);
    }
}

#[tokio::test]
async fn nobody_there_is_told_with_the_address() {
    let server = Standalone::start(Kind::Redis70, Options::default()).await;
    let url = server.url();
    drop(server);
    let options = RedisOptions { timeout: Duration::from_millis(100), ..options(&url) };
    let error = Redis::open(options).await.expect_err("it must not open");
    assert!(matches!(error, RedisError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&url), "{error}");
}

//! What a network does to the connection.

use super::*;
use crate::redis_servers::Fault;

#[test]
fn replies_are_swallowed_and_what_they_told_of_is_done_once() {
    on_one_thread(async {
        let (_server, proxy, mut stage) = behind_proxy().await;
        for _ in 0..20 {
            let before = proxy.counts().swallowed;
            proxy.set(Fault::SwallowNextReply).await;
            proxy.until(|counts| counts.swallowed > before).await;
            timeout(PATIENCE, stage.fleet.answered(10)).await.unwrap();
        }
        stage.holds().await;
    });
}

#[test]
fn replies_are_late() {
    on_one_thread(async {
        let (_server, proxy, mut stage) = behind_proxy().await;
        proxy.set(Fault::DelayReplies(Duration::from_millis(100))).await;
        stage.works().await;
        assert!(stage.fleet.world.told.borrow().is_empty(), "nobody hears of it");
        proxy.set(Fault::None).await;
        stage.holds().await;
    });
}

#[test]
fn requests_are_too_late_and_void() {
    on_one_thread(async {
        let (_server, proxy, stage) = behind_proxy().await;
        proxy.set(Fault::DelayRequests(Duration::from_millis(2 * TIMEOUT))).await;
        stage.told("STORE_UNAVAILABLE").await;
        stage.health(ServingStatus::NotServing).await;
        proxy.set(Fault::None).await;
        stage.holds().await;
    });
}

#[test]
fn the_connection_is_half_open() {
    on_one_thread(async {
        let (_server, proxy, stage) = behind_proxy().await;
        proxy.set(Fault::HalfOpen).await;
        stage.told("STORE_UNAVAILABLE").await;
        stage.health(ServingStatus::NotServing).await;
        // What was held back arrives now, when nobody waits for it.
        proxy.set(Fault::None).await;
        stage.holds().await;
    });
}

#[test]
fn the_connection_is_cut_within_requests() {
    cut(Fault::CutRequestsAfter);
}

#[test]
fn the_connection_is_cut_within_replies() {
    cut(Fault::CutRepliesAfter);
}

fn cut(fault: fn(u64) -> Fault) {
    on_one_thread(async {
        let (_server, proxy, mut stage) = behind_proxy().await;
        let mut chance = Chance::seeded();
        for _ in 0..30 {
            proxy.set(fault(chance.within(1..1500))).await;
            timeout(PATIENCE, stage.fleet.answered(10)).await.unwrap();
        }
        proxy.set(Fault::None).await;
        stage.holds().await;
    });
}

#[test]
fn the_connection_is_refused() {
    on_one_thread(async {
        let (_server, proxy, stage) = behind_proxy().await;
        for _ in 0..2 {
            proxy.set(Fault::Refuse).await;
            stage.health(ServingStatus::NotServing).await;
            stage.told("STORE_UNAVAILABLE").await;
            proxy.set(Fault::None).await;
            stage.health(ServingStatus::Serving).await;
        }
        stage.holds().await;
    });
}

#[test]
fn replies_are_swallowed_for_a_while() {
    on_one_thread(async {
        let (_server, proxy, stage) = behind_proxy().await;
        proxy.set(Fault::SwallowReplies).await;
        stage.health(ServingStatus::NotServing).await;
        proxy.set(Fault::None).await;
        stage.holds().await;
    });
}

#[test]
fn the_server_shows_a_certificate_of_another_authority() {
    on_one_thread(async {
        use crate::redis_servers::Link;
        let options = || Options { link: Link::Tls, ..Options::default() };
        let (one, other) = (
            Standalone::start(Kind::Redis70, options()).await,
            Standalone::start(Kind::Redis70, options()).await,
        );
        drop(opened(&one.url()).await);
        let (place, _) =
            one.url().split_once('?').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let url = other.url();
        let (_, trust) = url.split_once('?').unwrap();
        let address = Address::parse(&format!("{place}?{trust}")).unwrap();
        let timeout = Duration::from_secs(2);
        let error =
            Redis::open(RedisOptions { timeout, ..RedisOptions::new(address) }).await.unwrap_err();
        assert!(error.to_string().contains("could not be reached"), "{error}");
        assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
    });
}

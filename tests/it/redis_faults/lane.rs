//! The connection that commands share.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::User;
use crate::support::eventually;
use crate::support::fault::Fault;
use crate::support::flavours::Server;

/// What a machine that has other things to do may add.
const SCHEDULING: Duration = Duration::from_millis(500);

#[tokio::test]
async fn no_call_takes_longer_than_it_may() {
    let server = Server::node(None, "").await;
    let way = Fault::on_the_way_to(server.address());
    let user = User::at(&server, way.address, 200).await;
    way.freeze();
    let mut asked = 0;
    let since = Instant::now();
    while user.redis.is_up() {
        let since = Instant::now();
        assert!(!user.count().await);
        assert!(since.elapsed() < Duration::from_millis(200) + SCHEDULING, "{:?}", since.elapsed());
        asked += 1;
        tokio::task::yield_now().await;
    }
    assert!(since.elapsed() < 4 * Duration::from_millis(200) + SCHEDULING, "noticed after {asked} calls");
    // From now on nobody waits, and nothing is sent.
    let trips = user.redis.trips();
    for _ in 0..1000 {
        assert!(!user.count().await);
    }
    assert_eq!(user.redis.trips(), trips);
    way.heal();
    user.is_served().await;
}

#[tokio::test]
async fn the_breaker_spares_who_would_wait_in_vain_and_closes_again() {
    let server = Server::node(None, "").await;
    // Long enough that the connection is still believed in while this goes on.
    let user = User::at(&server, server.address(), 2000).await;
    let before = server.calls("hincrby").await;
    let connections = *user.redis.connected().borrow();
    server.pause();
    let asked = join_all((0..16).map(|_| user.count())).await;
    assert!(asked.iter().all(|done| !done));
    let trips = user.redis.trips();
    for _ in 0..1000 {
        assert!(!user.count().await);
    }
    assert_eq!(user.redis.trips(), trips, "the breaker is open");
    server.go_on();
    eventually("the breaker to close", async || user.count().await).await;
    for _ in 0..10 {
        assert!(user.count().await);
    }
    assert_eq!(*user.redis.connected().borrow(), connections, "on the same connection");
    let arrived = server.calls("hincrby").await - before;
    assert!((27..=30).contains(&arrived), "{arrived} calls reached the server");
}

#[tokio::test]
async fn a_new_connection_is_made_whenever_the_old_one_breaks() {
    let mut server = Server::node(None, "").await;
    let way = Fault::on_the_way_to(server.address());
    let user = User::at(&server, way.address, 250).await;
    for _ in 0..3 {
        way.cut();
        user.is_alone().await;
        let since = Instant::now();
        assert!(!user.count().await);
        assert!(since.elapsed() < SCHEDULING);
        way.heal();
        user.is_served().await;
    }
    server.kill().await;
    user.is_alone().await;
    server.come_back().await;
    user.is_served().await;
    assert_eq!(user.metrics.redis_refused.get(), 0);
}

#[tokio::test]
async fn a_server_that_only_reads_is_none() {
    let server = Server::node(None, "replica-serve-stale-data no\n").await;
    let user = User::at(&server, server.address(), 250).await;
    for stale in ["yes", "no"] {
        // READONLY, then MASTERDOWN: it follows somebody who is not there.
        let _: () = server.ask(&format!("CONFIG SET replica-serve-stale-data {stale}")).await;
        let _: () = server.ask("REPLICAOF 127.0.0.1 1").await;
        eventually("the refusal", async || !user.count().await).await;
        user.is_alone().await;
        let _: () = server.ask("REPLICAOF NO ONE").await;
        user.is_served().await;
    }
    assert_eq!(user.metrics.redis_refused.get(), 0, "that is absence, and no refusal");
}

#[tokio::test]
async fn a_server_that_loads_its_data_is_not_there_yet() {
    let settings =
        "enable-debug-command yes\nloading-process-events-interval-bytes 1024\nkey-load-delay 10000\n";
    let server = Server::node(None, settings).await;
    let user = User::at(&server, server.address(), 250).await;
    for key in 0..200 {
        let _: () = server.ask(&format!("SET filler:{key} {}", "x".repeat(100))).await;
    }
    let mut other = server.connect().await;
    let loading = async {
        let reload: redis::RedisResult<()> = redis::cmd("DEBUG").arg("RELOAD").query_async(&mut other).await;
        reload
    };
    let noticing = async {
        user.is_alone().await;
        assert!(!user.count().await);
    };
    // The test's own connection has less patience than the server needs.
    let (_, ()) = tokio::join!(loading, noticing);
    user.is_served().await;
    assert_eq!(user.metrics.redis_refused.get(), 0);
}

#[tokio::test]
async fn a_refusal_is_no_outage() {
    let server = Server::node(None, "").await;
    let user = User::at(&server, server.address(), 250).await;
    for _ in 0..50 {
        let mut wrong = redis::cmd("GET");
        assert!(user.redis.run::<Option<String>>(wrong.arg("it:count")).await.is_err());
    }
    assert!(user.redis.is_up() && user.count().await, "the breaker is closed");
    assert_eq!(user.metrics.redis_refused.get(), 50);
}

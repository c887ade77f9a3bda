//! What the other stories stand on does what they think it does.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::balancer::Balancer;
use crate::support::cluster::Cluster;
use crate::support::fault::Fault;
use crate::support::port::Port;
use crate::support::private::{Postgres, Redis};
use crate::support::{Modern, eventually, within};

/// Long enough to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(200);

async fn ask(connection: &mut MultiplexedConnection) -> bool {
    let ping = redis::cmd("PING");
    let answer = tokio::time::timeout(SILENCE, ping.query_async::<String>(connection)).await;
    answer.is_ok_and(|answer| answer.is_ok())
}

#[tokio::test]
async fn a_way_can_be_frozen_cut_and_healed() {
    let server = Redis::start().await;
    let way = Fault::on_the_way_to(server.address());
    let client = redis::Client::open(server.url(way.address)).expect("a URL");
    let connect = async || client.get_multiplexed_async_connection().await;
    let mut connection = connect().await.expect("a connection");
    assert!(ask(&mut connection).await);
    way.freeze();
    assert!(!ask(&mut connection).await);
    assert!(tokio::time::timeout(SILENCE, connect()).await.is_err(), "nobody says anything");
    way.heal();
    eventually("the same connection", async || ask(&mut connection).await).await;
    way.cut();
    assert!(!ask(&mut connection).await);
    let refused = TcpStream::connect(way.address).await.expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    way.heal();
    eventually("a new connection", async || connect().await.is_ok()).await;
}

#[tokio::test]
async fn services_forget_stand_still_and_come_back() {
    let mut redis = Redis::start().await;
    let mut connection = redis.connect().await;
    let set: redis::RedisResult<()> = redis::cmd("SET").arg("a").arg(1).query_async(&mut connection).await;
    set.expect("set");
    redis.flush().await;
    let kept = async |redis: &Redis| -> i64 {
        redis::cmd("DBSIZE").query_async(&mut redis.connect().await).await.expect("a number")
    };
    assert_eq!(kept(&redis).await, 0);
    redis.pause();
    assert!(!ask(&mut connection).await);
    redis.go_on().await;
    eventually("the same connection", async || ask(&mut connection).await).await;
    redis.stop().await;
    assert!(TcpStream::connect(redis.address()).await.is_err());
    redis.come_back().await;
    assert_eq!(kept(&redis).await, 0);

    let mut postgres = Postgres::start().await;
    let connect = async |postgres: &Postgres| {
        use sqlx::Connection;
        sqlx::PgConnection::connect(&postgres.url(postgres.address())).await
    };
    let mut connection = connect(&postgres).await.expect("a connection");
    sqlx::query("create table kept (n int)").execute(&mut connection).await.expect("created");
    postgres.stop().await;
    assert!(connect(&postgres).await.is_err());
    postgres.come_back().await;
    let mut connection = connect(&postgres).await.expect("a connection");
    sqlx::query("insert into kept values (1)").execute(&mut connection).await.expect("it is still there");
}

/// Takes one connection.
async fn accepted(port: &tokio::net::TcpListener) -> TcpStream {
    within("a connection", port.accept()).await.expect("a connection").0
}

#[tokio::test]
async fn the_balancer_takes_turns_and_passes_on_ends_and_resets() {
    let (first, second) = (Port::take(), Port::take());
    let (one, two) = (first.listen(None), second.listen(None));
    let balancer = Balancer::start([first.address, second.address], Some(4096));
    let connect = async || TcpStream::connect(balancer.address).await.expect("a connection");
    let (mut a, mut b) = (connect().await, connect().await);
    let (mut at_one, mut at_two) = (accepted(&one).await, accepted(&two).await);

    // An end in one direction leaves the other open.
    a.write_all(b"all").await.expect("sent");
    a.shutdown().await.expect("an end");
    let mut text = String::new();
    within("the end", at_one.read_to_string(&mut text)).await.expect("an end in good order");
    at_one.write_all(b"heard").await.expect("sent");
    drop(at_one);
    text.clear();
    within("the end", a.read_to_string(&mut text)).await.expect("an end in good order");
    assert_eq!(text, "heard");

    // A reset is one on the other side.
    b.write_all(b"x").await.expect("sent");
    at_two.read_exact(&mut [0]).await.expect("a byte");
    b.set_zero_linger().expect("an option");
    drop(b);
    let broken = within("the reset", at_two.read(&mut [0])).await.expect_err("no end in good order");
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);

    // Who sends more than the other side reads has to wait, soon.
    let c = connect().await;
    let mut at_one = accepted(&one).await;
    let mut sent = 0;
    while let Ok(Ok(bytes)) = tokio::time::timeout(SILENCE, at_one.write(&[0; 65536])).await {
        sent += bytes;
        assert!(sent < 8 * 1024 * 1024, "somebody holds it all");
    }
    drop(c);

    // Out of the rotation means no turn; a replica that refuses is passed over.
    balancer.rotate(0, false);
    let (_d, _e) = (connect().await, connect().await);
    accepted(&two).await;
    accepted(&two).await;
    balancer.rotate(0, true);
    drop(two);
    for _ in 0..3 {
        let _f = connect().await;
        accepted(&one).await;
    }
}

#[tokio::test]
async fn requests_go_to_every_replica_and_around_those_that_are_gone() {
    let mut cluster = Cluster::start().await;
    let key = cluster.caller().await;
    let client = Modern::new(&cluster, &key);
    let served = r#"weir_mcp_requests_total{era="modern",method="tools/call"}"#;
    for _ in 0..9 {
        assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    }
    for replica in 0..3 {
        assert_eq!(cluster.metric(replica, served).await, 3.0, "replica {replica}");
    }
    cluster.kill(0).await;
    for _ in 0..6 {
        assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    }
    cluster.restart(0).await;
    cluster.is_whole().await;
    cluster.terminate(1);
    eventually("the balancer's way around", async || cluster.readiness(1).await != 200).await;
    for _ in 0..6 {
        assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    }
    assert!(cluster.ended(1).await.success(), "a replica that is told to stop does, in good order");
    let addresses: BTreeSet<_> = cluster.doors().iter().map(|door| format!("{door:?}")).collect();
    assert_eq!(addresses.len(), 3);
}

#[tokio::test]
async fn the_binary_that_operators_run_makes_a_cluster_too() {
    let cluster = Cluster::build().without_tools().start().await;
    let client = Modern::new(&cluster, &cluster.caller().await);
    for _ in 0..3 {
        let reply = client.call("get_status", json!({})).await;
        assert_eq!(reply.result()["isError"], false, "{}", reply.text);
    }
}

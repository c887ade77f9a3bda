//! What is handed over and not waited for.

use std::time::{Duration, Instant};

use redis::Pipeline;
use redis::streams::StreamRangeReply;
use weir::replicas::Message;

use super::{User, numbers};
use crate::support::eventually;
use crate::support::fault::Fault;
use crate::support::flavours::Server;

/// Where the stories write.
const LOG: &str = "it:{log}";
/// How long a parcel may wait.
const TRIES: Duration = Duration::from_secs(5);

fn entry(key: &str, number: u64) -> Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.cmd("XADD").arg(key).arg(format!("1-{number}")).arg("n").arg(number);
    pipeline
}

/// The numbers of what was written.
async fn written(server: &Server) -> Vec<u64> {
    let reply: StreamRangeReply = server.ask(&format!("XRANGE {LOG} - +")).await;
    reply.ids.iter().map(|entry| entry.get("n").expect("a number")).collect()
}

#[tokio::test]
async fn order_is_kept_and_nothing_comes_twice_whatever_breaks() {
    let server = Server::node(None, "").await;
    let way = Fault::on_the_way_to(server.address());
    let user = User::at(&server, way.address, 250).await;
    let hearer = User::at(&server, server.address(), 1000).await;
    let mut ear = hearer.ear().await;
    let mut last = 0;
    for round in 0..4 {
        match round {
            1 => way.cut(),
            2 => way.freeze(),
            // What is sent arrives, and nobody says so in time.
            3 => server.pause(),
            _ => {}
        }
        for _ in 0..300 {
            last += 1;
            assert!(user.courier.commands(&entry(LOG, last), 100));
            assert!(user.courier.tell_all(Message::Ack { number: last }));
        }
        if round > 0 {
            user.is_alone().await;
        }
        way.heal();
        server.go_on();
        assert_eq!(ear.until(last).await, numbers(last - 299..=last), "round {round}");
        assert_eq!(written(&server).await, Vec::from_iter(1..=last));
    }
    assert_eq!(user.metrics.messages_dropped.get(), 0);
    assert_eq!(user.metrics.redis_refused.get(), 0, "what came late is no mistake");
    let said: u64 = server.ask("XLEN it:{replicas}:all").await;
    assert!(said > last + 2, "some were told twice: {said}");
    assert!(!user.courier.has_dropped());
}

#[tokio::test]
async fn what_is_refused_holds_nothing_up() {
    let server = Server::node(None, "").await;
    let user = User::at(&server, server.address(), 250).await;
    let _: () = server.ask("SET it:{log}:text x").await;
    let since = Instant::now();
    user.courier.commands(&entry(LOG, 1), 100);
    user.courier.commands(&entry("it:{log}:text", 1), 100);
    user.courier.commands(&entry(LOG, 1), 100);
    user.courier.commands(&entry(LOG, 2), 100);
    user.courier.flush(TRIES).await;
    assert!(since.elapsed() < TRIES / 5, "{:?}", since.elapsed());
    assert_eq!(written(&server).await, [1, 2]);
    assert_eq!(user.metrics.redis_refused.get(), 2, "of another type, and too late");
    assert_eq!(user.metrics.messages_dropped.get(), 0);
    assert!(user.redis.is_up() && user.count().await);
}

#[tokio::test]
async fn what_waits_for_too_long_is_dropped_and_everybody_knows() {
    let server = Server::node(None, "").await;
    let way = Fault::on_the_way_to(server.address());
    let user = User::at(&server, way.address, 250).await;
    let hearer = User::at(&server, server.address(), 1000).await;
    let mut ear = hearer.ear().await;
    way.cut();
    user.is_alone().await;
    let since = Instant::now();
    for number in 1..=300 {
        user.courier.commands(&entry(LOG, number), 100);
        user.courier.tell_all(Message::Ack { number });
    }
    // It is dropped when it is too old, and not before, however much there is.
    user.courier.flush(2 * TRIES).await;
    assert!((TRIES..TRIES + Duration::from_secs(2)).contains(&since.elapsed()), "{:?}", since.elapsed());
    assert_eq!(user.metrics.messages_dropped.get(), 600);
    user.courier.tell_all(Message::Ack { number: 301 });
    way.heal();
    assert_eq!(ear.next().await, None, "something was not said");
    assert_eq!(ear.until(301).await, numbers([301]));
    assert!(written(&server).await.is_empty());
    assert!(user.courier.has_dropped() && !user.courier.has_dropped());
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let server = Server::node(None, "").await;
    let way = Fault::on_the_way_to(server.address());
    let user = User::at(&server, way.address, 250).await;
    way.cut();
    user.is_alone().await;
    // Bytes.
    assert!(user.courier.commands(&entry(LOG, 1), 40 << 20));
    assert!(!user.courier.commands(&entry(LOG, 2), 40 << 20));
    assert!(user.courier.commands(&entry(LOG, 3), 20 << 20));
    // Parcels.
    let taken = (4..20_000).take_while(|number| user.courier.commands(&entry(LOG, *number), 1)).count();
    assert!((8000..9000).contains(&taken), "{taken}");
    assert_eq!(user.metrics.messages_dropped.get(), 2);
    way.heal();
    eventually("what was taken", async || written(&server).await.len() == taken + 2).await;
    assert!(user.courier.commands(&entry(LOG, 20_000), 60 << 20), "there is room again");
}

#[tokio::test]
async fn a_demoted_master_is_left_and_what_it_did_not_take_goes_to_the_next() {
    let server = Server::node(None, "").await;
    let user = User::at(&server, server.address(), 250).await;
    let _: () = server.ask("REPLICAOF 127.0.0.1 1").await;
    for number in 1..=10 {
        user.courier.commands(&entry(LOG, number), 100);
    }
    user.is_alone().await;
    let _: () = server.ask("REPLICAOF NO ONE").await;
    eventually("what was taken", async || written(&server).await.len() == 10).await;
    assert_eq!(written(&server).await, Vec::from_iter(1..=10));
    assert_eq!(user.metrics.redis_refused.get(), 0);
}

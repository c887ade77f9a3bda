//! Limits are those of the tenant, however many replicas it asks, and what one tenant does costs no other.

use std::time::{Duration, Instant};

use serde_json::json;

use super::greed::{Greedy, Rate};
use super::load::exchange;
use crate::support::cluster::Cluster;
use crate::support::{Key, Modern};

const RATE: Rate = Rate { burst: 40, per_second: 20 };
/// How long a tenant asks for ten times as much.
const STORM: Duration = Duration::from_secs(10);
/// How many requests the other tenant sends meanwhile, and alone.
const OTHERS: u32 = 100;

/// A tenant within its limit: what its requests took, the slowest last. All of them are served.
async fn modest(cluster: &Cluster, key: &Key) -> Vec<Duration> {
    let client = Modern::new(cluster, key);
    let mut timer = tokio::time::interval(STORM / OTHERS);
    let mut took = Vec::new();
    for number in 0..OTHERS {
        timer.tick().await;
        let since = Instant::now();
        let answer = exchange(client.draft("tools/list", json!({}))).await;
        took.push(since.elapsed());
        let is_good =
            answer.as_ref().is_ok_and(|(status, body)| *status == 200 && body["result"].is_object());
        assert!(is_good, "request {number}: {answer:?}");
    }
    took.sort();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_the_limit_gets_the_limit_and_harms_nobody() {
    let cluster = Cluster::build()
        .without_tools()
        .set("limits.tenant.burst", RATE.burst.to_string())
        .set("limits.tenant.per_second", RATE.per_second.to_string())
        .set("limits.key.burst", 1000)
        .set("limits.key.per_second", 1000)
        .start()
        .await;
    let (greedy, other) = (cluster.caller().await, cluster.caller().await);
    let alone = modest(&cluster, &other).await;
    let storm = Greedy::start(&cluster, &greedy, 10 * RATE.per_second);
    let beside = modest(&cluster, &other).await;
    let (accepted, time, wrong) = storm.stop().await;
    assert_eq!(wrong, Vec::<String>::new());
    let most = RATE.most(time, 0, 3);
    assert!(accepted <= most, "{accepted} of {most} within {time:?}");
    // What a replica leased and did not use is lost, but never more than an eighth.
    let least = RATE.burst * 7 / 8 + RATE.filled(time) * 3 / 4;
    assert!(accepted >= least, "{accepted}: much less than it may have ({least})");
    let p99 = |took: &[Duration]| took[took.len() * 99 / 100].as_secs_f64() * 1e3;
    eprintln!(
        "{accepted} requests accepted within {time:.1?}, at most {most} by the bound; the other tenant: 100 % served, \
         p99 {:.1} ms beside it and {:.1} ms alone, ratio {:.2}",
        p99(&beside),
        p99(&alone),
        p99(&beside) / p99(&alone),
    );
}

#[tokio::test]
async fn what_is_left_is_the_same_at_every_replica() {
    let cluster = Cluster::build()
        .set("limits.tenant.burst", 600)
        .set("limits.tenant.per_second", 1)
        .set("limits.key.burst", 30)
        .set("limits.key.per_second", 1)
        .start()
        .await;
    let key = cluster.caller().await;
    let rate = Rate { burst: 30, per_second: 1 };
    let (since, mut accepted) = (Instant::now(), 0);
    // A client that opens a session for each call, at each replica in turn, gains nothing.
    for door in cluster.doors().iter().cycle().take(120) {
        let reply = Modern::new(door, &key).send("tools/list", json!({})).await;
        accepted += u32::from(reply.json()["result"].is_object());
    }
    let most = rate.most(since.elapsed(), 0, 3);
    assert!((rate.burst * 7 / 8..=most).contains(&accepted), "{accepted} of {most}");
}

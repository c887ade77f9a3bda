//! Every kind of Redis that a URL can name, with three replicas on it that tell the same story. They need a PostgreSQL and
//! run where a recipe brings one, under `scripts/with-services`; each starts the Redis that it is about.

use std::time::Instant;

use serde_json::json;

use crate::support::flavours::{Cluster, PASSWORD, Server, Tls, Watched};
use crate::support::gateway::Builder;
use crate::support::legacy::Old;
use crate::support::services::{self, Deployment};
use crate::support::{Draft, Gateway, Key, Legacy, Modern, eventually};

/// No such session (any more).
const GONE: (u16, i64) = (404, -31004);
/// What one key may do at once, and in a second.
const BURST: u128 = 40;
const RATE: u128 = 2;

/// Three replicas of one deployment.
struct Trio {
    replicas: Vec<Gateway>,
}

impl Trio {
    /// Starts them on the Redis at this URL.
    async fn start(url: String, tls: Option<&Tls>) -> Self {
        services::needed("WEIR_TEST_POSTGRES");
        let deployment = Deployment::replicated(url).await;
        let ca = tls.map_or_else(String::new, |tls| tls.ca_file().display().to_string());
        let set = |builder: Builder| {
            let builder = builder.set("redis.ca_file", ca.clone()).set("redis.lease_ms", "1000");
            builder.set("limits.key.per_second", RATE).set("limits.key.burst", BURST)
        };
        let first = set(Gateway::build().on(deployment)).start().await;
        let (second, third) = (set(first.replica()).start().await, set(first.replica()).start().await);
        let replicas = vec![first, second, third];
        let trio = Self { replicas };
        trio.are_together().await;
        trio
    }

    /// Waits until each has Redis and knows the others.
    async fn are_together(&self) {
        for replica in &self.replicas {
            eventually("the replicas to be together", async || {
                replica.metric("weir_redis_up") == 1.0 && replica.metric("weir_replicas") == 3.0
            })
            .await;
        }
    }

    /// How often each found Redis.
    fn connections(&self) -> Vec<f64> {
        self.replicas.iter().map(|replica| replica.metric("weir_redis_connections_total")).collect()
    }

    /// Waits until each has missed Redis and found it again.
    async fn are_back(&self, before: &[f64]) {
        eventually("the replicas to find Redis again", async || {
            self.connections().iter().zip(before).all(|(now, before)| now > before)
        })
        .await;
        self.are_together().await;
    }

    /// Nothing was refused or given up, and nothing was tried that is not allowed.
    async fn had_no_trouble(&self, servers: &[Server]) {
        for server in servers {
            assert!(!server.has_denied().await);
        }
        for series in ["weir_redis_refused_total", "weir_messages_dropped_total"] {
            let count: f64 = self.replicas.iter().map(|replica| replica.metric(series)).sum();
            assert_eq!(count, 0.0, "{series}");
        }
    }
}

fn progress(session: &Legacy, steps: u32) -> Draft {
    session.draft_call("slow_count", &json!({ "steps": steps, "delay_ms": 20 })).progress(json!("p"))
}

/// What is the same on every Redis.
async fn story(trio: &Trio) {
    let [a, b, c] = &trio.replicas[..] else { panic!("three replicas") };
    let key = a.caller().await;
    let able = json!({ "elicitation": { "form": {} } });
    let session = Legacy::open_with(a, &key, "2025-11-25", able).await;
    session.at(b).send("ping", json!({})).await.result();

    // A stream that broke is read on elsewhere.
    let mut events = progress(&session, 5).stream().await;
    events.next_of_any_kind().await.expect("an event");
    let first = events.next().await.expect("progress").id.expect("an id");
    drop(events);
    let rest = session.at(b).draft_resume(&first).stream().await.rest().await;
    let steps: Vec<_> = rest.iter().filter_map(|said| said["params"]["progress"].as_i64()).collect();
    assert_eq!(steps, [2, 3, 4, 5]);
    assert_eq!(rest[4]["result"]["content"][0]["text"], "counted to 5");

    // A question is answered elsewhere, and a change is heard elsewhere.
    let mut asking = session.draft_call("asks", &json!({ "topic": "tea" })).stream().await;
    let question = asking.message().await;
    let given = json!({ "action": "accept", "content": { "opinion": "warm" } });
    assert_eq!(session.at(c).answer(&question, "result", given).await.status, 202);
    let answer = asking.message().await;
    assert!(answer["result"]["content"][0]["text"].as_str().expect("a text").contains("warm"), "{answer}");
    let mut stream = session.at(b).stream().await;
    stream.next_of_any_kind().await.expect("the stream is open");
    session.at(c).call("notify", json!({ "what": "tools" })).await.result();
    assert_eq!(stream.message().await["method"], "notifications/tools/list_changed");

    // HTTP+SSE: what is posted at one replica is answered where the stream is.
    let mut old = Old::open(a, &key).await;
    let ping = json!({ "jsonrpc": "2.0", "id": "there", "method": "ping" });
    assert_eq!(old.post_at(b, ping).send().await.status, 202);
    assert_eq!(old.events.message().await["id"], "there");

    // An end is known everywhere.
    assert_eq!(session.draft_delete().send().await.status, 204);
    assert_eq!(stream.next().await, None);
    for replica in [b, c] {
        assert_eq!(session.at(replica).send("ping", json!({})).await.error(), GONE);
    }
    limits(trio, &a.caller().await).await;
}

/// A limit is one for all replicas.
async fn limits(trio: &Trio, key: &Key) {
    let since = Instant::now();
    let mut accepted = 0;
    for turn in 0..usize::try_from(2 * BURST).expect("a few") {
        let client = Modern::new(&trio.replicas[turn % 3], key);
        accepted += u128::from(client.send("ping", json!({})).await.status == 200);
    }
    let most = BURST + RATE * (1 + since.elapsed().as_secs() as u128);
    assert!((BURST / 2..=most).contains(&accepted), "{accepted}, of {most} at most");
}

#[tokio::test]
async fn one_node_with_a_password_and_a_database() {
    let redis = [Server::node(None, "").await];
    let trio = Trio::start(format!("{}/3", redis[0].url(redis[0].address())), None).await;
    story(&trio).await;
    let databases: String = redis[0].ask("INFO keyspace").await;
    let used: Vec<_> =
        databases.lines().filter_map(|line| line.strip_prefix("db")?.split(':').next()).collect();
    assert_eq!(used, ["3"]);
    trio.had_no_trouble(&redis).await;
}

#[tokio::test]
async fn one_node_over_tls() {
    let tls = Tls::new();
    let redis = [Server::node(Some(&tls), "").await];
    let url = redis[0].url(redis[0].address());
    let trio = Trio::start(url.clone(), Some(&tls)).await;
    story(&trio).await;
    trio.had_no_trouble(&redis).await;
    // Nobody else's word is taken for who it is: neither that of another authority nor of those that browsers trust.
    let other = Tls::new();
    for ca in [other.ca_file().display().to_string(), String::new()] {
        let deployment = Deployment::replicated(url.clone()).await;
        let replica = Gateway::build().on(deployment).set("redis.ca_file", ca).start().await;
        assert_eq!(replica.metric("weir_redis_up"), 0.0);
    }
}

#[tokio::test]
async fn the_master_that_sentinels_name() {
    let mut redis = Watched::start(None, None).await;
    let trio = Trio::start(redis.url(2), None).await;
    story(&trio).await;
    trio.had_no_trouble(&redis.nodes).await;
    let [a, b, _] = &trio.replicas[..] else { panic!("three replicas") };
    let session = Legacy::open(a, &a.caller().await, "2025-11-25").await;
    let before = trio.connections();
    redis.nodes[0].kill().await;
    trio.are_back(&before).await;
    assert_eq!(redis.nodes[1].info("replication", "role").await.as_deref(), Some("master"));
    session.at(b).send("ping", json!({})).await.result();
    story(&trio).await;
}

#[tokio::test]
async fn sentinels_over_tls_that_want_the_password_too() {
    let tls = Tls::new();
    let redis = Watched::start(Some(&tls), Some(PASSWORD)).await;
    let trio = Trio::start(redis.url(0), Some(&tls)).await;
    story(&trio).await;
    trio.had_no_trouble(&redis.nodes).await;
}

#[tokio::test]
async fn a_cluster_one_of_whose_masters_dies() {
    let mut redis = Cluster::start(None).await;
    let trio = Trio::start(redis.url(), None).await;
    story(&trio).await;
    trio.had_no_trouble(&redis.nodes).await;
    let mut used = 0;
    for node in &redis.nodes[..3] {
        used += u32::from(node.ask::<u64>("DBSIZE").await > 0);
    }
    assert!(used > 1, "the stories are about several slots");
    redis.nodes[0].kill().await;
    eventually("the replica to take over", async || {
        redis.nodes[3].info("replication", "role").await.as_deref() == Some("master")
    })
    .await;
    trio.are_together().await;
    story(&trio).await;
}

#[tokio::test]
async fn a_cluster_whose_slots_move() {
    let redis = Cluster::start(None).await;
    let trio = Trio::start(redis.url(), None).await;
    let [a, b, c] = &trio.replicas[..] else { panic!("three replicas") };
    let key = a.caller().await;
    let session = Legacy::open(a, &key, "2025-11-25").await;
    let mut stream = session.at(b).stream().await;
    stream.next_of_any_kind().await.expect("the stream is open");
    // What belongs to the tenant, and what belongs to all replicas, on which they wait.
    for tag in [key.tenant.to_string(), "replicas".to_owned()] {
        let slot: u16 = redis.nodes[0].ask(&format!("CLUSTER KEYSLOT {tag}")).await;
        let owner = Cluster::owner(slot);
        redis.move_slot(slot, owner, (owner + 1) % 3).await;
    }
    trio.are_together().await;
    session.at(c).call("notify", json!({ "what": "tools" })).await.result();
    assert_eq!(stream.message().await["method"], "notifications/tools/list_changed");
    story(&trio).await;
}

#[tokio::test]
async fn a_cluster_over_tls() {
    let tls = Tls::new();
    let redis = Cluster::start(Some(&tls)).await;
    let trio = Trio::start(redis.url(), Some(&tls)).await;
    story(&trio).await;
    trio.had_no_trouble(&redis.nodes).await;
}

//! Replicas that come, go and die: who is there, and what the dead held.

use std::time::Duration;

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::door::Door;
use crate::support::{Events, Key, Modern, eventually};

/// Starts a call that does not end by itself, and waits until it runs.
async fn occupy(door: &Door, key: &Key) -> Result<Events, i64> {
    let count = json!({ "steps": 1000, "delay_ms": 60_000 });
    let draft = Modern::new(door, key).draft_call("slow_count", &count).progress(json!(1));
    let response = draft.open().await;
    if response.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream") {
        let mut events = Events::of(response);
        assert_eq!(events.message().await["params"]["progress"], 1);
        return Ok(events);
    }
    let refused: serde_json::Value = response.json().await.expect("JSON");
    assert_eq!(refused["error"]["data"]["limit"], "concurrency", "{refused}");
    Err(refused["error"]["code"].as_i64().expect("a code"))
}

/// The same as soon as there is a place. Replicas keep some at hand, and give them back when another is refused.
async fn free(door: &Door, key: &Key) -> Events {
    let mut found = None;
    eventually("a place", async || {
        found = occupy(door, key).await.ok();
        found.is_some()
    })
    .await;
    found.expect("a place")
}

#[tokio::test]
async fn what_a_dead_replica_held_is_given_back_once() {
    let mut cluster = Cluster::build().set("limits.tenant.concurrency", 3).start().await;
    let [a, b, c] = cluster.doors().try_into().expect("three replicas");
    let key = cluster.caller().await;
    let held = [free(&a, &key).await, free(&a, &key).await, free(&b, &key).await];
    for door in [&b, &c] {
        assert_eq!(occupy(door, &key).await.err(), Some(-31001), "the places are the tenant's, wherever");
    }
    cluster.kill(0).await;
    let found = [free(&c, &key).await, free(&b, &key).await];
    // Twice its lease later nothing more has been given back.
    let later = tokio::time::Instant::now() + Duration::from_secs(2);
    while tokio::time::Instant::now() < later {
        assert_eq!(occupy(&c, &key).await.err(), Some(-31001), "one place still runs at the second replica");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop((found, held));
    let _all = [free(&b, &key).await, free(&c, &key).await, free(&b, &key).await];
}

#[tokio::test]
async fn streams_of_a_dead_replica_are_given_back() {
    let mut cluster = Cluster::build().set("limits.tenant.streams", 2).start().await;
    let [a, b, c] = cluster.doors().try_into().expect("three replicas");
    let key = cluster.caller().await;
    let listen = async |door: &Door| {
        Modern::new(door, &key).draft("subscriptions/listen", json!({ "notifications": {} })).open().await
    };
    let is_stream = |response: &reqwest::Response| {
        response.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream")
    };
    let mut held = Vec::new();
    for door in [&a, &b] {
        eventually("a stream", async || {
            held.push(listen(door).await);
            held.last().is_some_and(is_stream)
        })
        .await;
    }
    assert!(!is_stream(&listen(&c).await), "two streams are all that the tenant may have");
    cluster.kill(0).await;
    let mut found = None;
    eventually("the stream of the dead", async || {
        let response = listen(&c).await;
        let is_one = is_stream(&response);
        found = is_one.then_some(response);
        is_one
    })
    .await;
    assert!(!is_stream(&listen(&b).await), "and no more than that");
}

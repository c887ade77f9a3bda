//! What one replica is told, all know within a second, also one that could not hear for a while.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::{Events, Legacy, Modern, eventually};

/// How long news may take.
const SOON: Duration = Duration::from_secs(1);

/// Waits until it holds, which must be soon.
async fn soon(what: &str, holds: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    eventually(what, holds).await;
    assert!(since.elapsed() <= SOON, "{what} took {:?}", since.elapsed());
}

#[tokio::test]
async fn what_an_operator_does_holds_everywhere_within_a_second() {
    let cluster = Cluster::start().await;
    let operator = cluster.operator(0).await;
    let (revoked, suspended, bystander) =
        (cluster.caller().await, cluster.caller().await, cluster.caller().await);
    let mut streams: Vec<Events> = Vec::new();
    for door in cluster.doors() {
        for key in [&revoked, &suspended, &bystander] {
            assert_eq!(Modern::new(&door, key).call("echo", json!({ "text": "x" })).await.tool_text(), "x");
        }
        let (events, _) = Modern::new(&door, &revoked).listen(json!({ "toolsListChanged": true })).await;
        streams.push(events);
        streams.push(Legacy::open(&door, &suspended, "2025-06-18").await.stream().await);
    }
    operator.delete(&format!("/admin/v1/tenants/{}/keys/{}", revoked.tenant, revoked.id)).await;
    let suspend = format!("/admin/v1/tenants/{}/suspend", suspended.tenant);
    assert_eq!(operator.request(Method::POST, &suspend).send().await.status, 200);
    let done = Instant::now();
    for door in cluster.doors() {
        for (key, status) in [(&revoked, 401), (&suspended, 403)] {
            let client = Modern::new(&door, key);
            soon("a refusal", async || client.send("tools/list", json!({})).await.status == status).await;
        }
    }
    for mut events in streams {
        while events.next().await.is_some() {}
    }
    assert!(done.elapsed() <= 2 * SOON, "all of it took {:?}", done.elapsed());
    for door in cluster.doors() {
        assert_eq!(Modern::new(&door, &bystander).send("tools/list", json!({})).await.status, 200);
    }
}

#[tokio::test]
async fn a_change_is_heard_at_every_replica_within_a_second() {
    let cluster = Cluster::start().await;
    let (key, other) = (cluster.caller().await, cluster.caller().await);
    let doors = cluster.doors();
    let mut listeners = Vec::new();
    for door in &doors {
        for who in [&key, &other] {
            let wanted = json!({ "toolsListChanged": true, "promptsListChanged": true });
            listeners.push(Modern::new(door, who).listen(wanted).await.0);
        }
    }
    for door in &doors {
        let client = Modern::new(door, &key);
        // The first is the tenant's alone: the others' next news is the second.
        client.call("notify", json!({ "what": "tools", "mine": true })).await.result();
        client.call("notify", json!({ "what": "prompts" })).await.result();
        let told = Instant::now();
        for (number, events) in listeners.iter_mut().enumerate() {
            if number % 2 == 0 {
                assert_eq!(events.message().await["method"], "notifications/tools/list_changed");
            }
            assert_eq!(events.message().await["method"], "notifications/prompts/list_changed");
        }
        assert!(told.elapsed() <= SOON, "{:?}", told.elapsed());
    }
}

#[tokio::test]
async fn a_replica_that_could_not_hear_finds_out_what_it_missed() {
    let cluster = Cluster::start().await;
    let key = cluster.caller().await;
    let revoked = cluster.caller().await;
    let [a, _, c] = cluster.doors().try_into().expect("three replicas");
    assert_eq!(Modern::new(&c, &revoked).send("tools/list", json!({})).await.status, 200);
    let (mut events, _) = Modern::new(&c, &key).listen(json!({ "toolsListChanged": true })).await;
    let session = Legacy::open(&a, &key, "2025-11-25").await;
    let mut stream = session.at(&c).stream().await;
    stream.next_of_any_kind().await.expect("an event to come back to");
    cluster.way_to_redis(2).freeze();
    Modern::new(&a, &key).call("notify", json!({ "what": "tools" })).await.result();
    // What is no longer allowed does not wait for Redis.
    let operator = cluster.operator(0).await;
    operator.delete(&format!("/admin/v1/tenants/{}/keys/{}", revoked.tenant, revoked.id)).await;
    let client = Modern::new(&c, &revoked);
    soon("a refusal", async || client.send("tools/list", json!({})).await.status == 401).await;
    cluster.way_to_redis(2).heal();
    assert_eq!(events.message().await["method"], "notifications/tools/list_changed");
    let heard = stream.message().await;
    assert_eq!(heard["method"], "notifications/tools/list_changed", "the stream of a session, too");
}

#[tokio::test]
async fn a_replica_whose_way_was_cut_does_the_same() {
    let cluster = Cluster::start().await;
    let key = cluster.caller().await;
    let [a, _, c] = cluster.doors().try_into().expect("three replicas");
    let (mut events, _) = Modern::new(&c, &key).listen(json!({ "promptsListChanged": true })).await;
    cluster.way_to_redis(2).cut();
    Modern::new(&a, &key).call("notify", json!({ "what": "prompts" })).await.result();
    eventually("the replica to notice", async || cluster.metric(2, "weir_redis_up").await == 0.0).await;
    cluster.way_to_redis(2).heal();
    assert_eq!(events.message().await["method"], "notifications/prompts/list_changed");
    cluster.is_whole().await;
}

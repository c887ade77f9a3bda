//! Limits: rates per key and tenant, places for calls, sessions and streams, and strangers per address.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use weir::clock::{Clock, Timestamp};

use crate::support::legacy::Old;
use crate::support::{Draft, Gateway, Key, Legacy, Modern, Reply, eventually};

fn clock() -> Clock {
    Clock::manual(Timestamp::from_micros(1_790_000_000_000_000))
}

fn limited(reply: &Reply, limit: &str, max: u32) {
    assert_eq!(reply.error(), (200, -31001), "{} {:?}", reply.text, reply.messages);
    let data = &reply.json()["error"]["data"];
    assert_eq!((&data["limit"], &data["max"]), (&json!(limit), &json!(max)));
    assert!(data["retryAfterMs"].as_u64().expect("a number") > 0);
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(reply.header("ratelimit-limit"), Some(max.to_string().as_str()));
    assert_eq!(
        (reply.header("ratelimit-remaining"), reply.header("ratelimit-reset")),
        (Some("0"), Some("1"))
    );
}

#[tokio::test]
async fn a_key_has_a_burst_and_then_its_rate() {
    let clock = clock();
    // Alone: the hand that moves this clock does not move that of Redis.
    let gateway = Gateway::build()
        .alone()
        .clock(&clock)
        .set("limits.key.burst", 3)
        .set("limits.key.per_second", 1)
        .start()
        .await;
    let key = gateway.caller().await;
    let neighbour = Modern::new(&gateway, &gateway.key(key.tenant).await);
    let client = Modern::new(&gateway, &key);
    for left in ["2", "1", "0"] {
        let reply = client.call("echo", json!({ "text": "x" })).await;
        assert_eq!(reply.tool_text(), "x");
        assert_eq!(
            (reply.header("ratelimit-limit"), reply.header("ratelimit-remaining")),
            (Some("3"), Some(left))
        );
        assert_eq!(reply.header("retry-after"), None);
    }
    limited(&client.call("echo", json!({ "text": "x" })).await, "key", 3);
    limited(&client.send("tools/list", json!({})).await, "key", 3);
    assert_eq!(neighbour.send("tools/list", json!({})).await.status, 200);
    assert_eq!(gateway.metric(r#"weir_rate_limited_total{scope="key"}"#), 2.0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    limited(&client.call("echo", json!({ "text": "x" })).await, "key", 3);
}

#[tokio::test]
async fn no_transport_and_no_new_session_gets_around_the_rate() {
    let clock = clock();
    // Alone: the hand that moves this clock does not move that of Redis.
    let gateway = Gateway::build()
        .alone()
        .clock(&clock)
        .set("limits.key.burst", 7)
        .set("limits.key.per_second", 1)
        .start()
        .await;
    let key = gateway.caller().await;
    let session = Legacy::open(&gateway, &key, "2025-03-26").await; // 2, initialize and initialized
    let mut old = Old::open(&gateway, &key).await; // 4, the stream and initialize
    let ping = |id: u32| json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
    let batch = session.message(Value::from((1..=4).map(ping).collect::<Vec<_>>())).send().await; // 7
    let codes: Vec<_> =
        batch.json().as_array().expect("a list").iter().map(|m| m["error"]["code"].as_i64()).collect();
    assert_eq!(codes, [None, None, None, Some(-31001)]);
    limited(&session.send("ping", json!({})).await, "key", 7);
    limited(&Legacy::hello(&gateway, &key, "2025-11-25").send().await, "key", 7);
    limited(&Modern::new(&gateway, &key).send("tools/list", json!({})).await, "key", 7);
    assert_eq!(old.send("ping", json!({})).await["error"]["code"], -31001);
    let stream = Old::hello(&gateway, "/sse").bearer(&key.secret).send().await;
    assert_eq!(stream.error(), (429, -31001));
}

#[tokio::test]
async fn a_tenant_has_a_rate_over_all_its_keys() {
    let clock = clock();
    // Alone: the hand that moves this clock does not move that of Redis.
    let gateway = Gateway::build()
        .alone()
        .clock(&clock)
        .set("limits.tenant.burst", 2)
        .set("limits.tenant.per_second", 1)
        .start()
        .await;
    let key = gateway.caller().await;
    let (a, b) = (Modern::new(&gateway, &key), Modern::new(&gateway, &gateway.key(key.tenant).await));
    let elsewhere = Modern::new(&gateway, &gateway.caller().await);
    assert_eq!(a.send("tools/list", json!({})).await.status, 200);
    assert_eq!(b.send("tools/list", json!({})).await.status, 200);
    limited(&a.send("tools/list", json!({})).await, "tenant", 2);
    limited(&b.send("tools/list", json!({})).await, "tenant", 2);
    assert_eq!(elsewhere.send("tools/list", json!({})).await.header("ratelimit-remaining"), Some("1"));
    clock.advance(Duration::from_secs(1));
    let left = a.send("tools/list", json!({})).await;
    assert_eq!(left.header("ratelimit-remaining"), Some("0"));
    limited(&b.send("tools/list", json!({})).await, "tenant", 2);
}

#[tokio::test]
async fn a_tenant_has_a_rate_of_bytes_in_and_out() {
    let clock = clock();
    // Alone: what one replica has charged the others learn a moment later.
    let gateway = Gateway::build()
        .alone()
        .clock(&clock)
        .set("limits.tenant.bytes_per_second", 10_000)
        .set("limits.tenant.bytes_burst", 20_000)
        .start()
        .await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    let neighbour = Modern::new(&gateway, &gateway.key(key.tenant).await);
    let elsewhere = Modern::new(&gateway, &gateway.caller().await);
    assert_eq!(client.call("big", json!({ "bytes": 30_000 })).await.status, 200, "nobody knows before");
    let refused = neighbour.call("echo", json!({ "text": "x" })).await;
    assert_eq!(refused.error(), (200, -31001), "{}", refused.text);
    assert_eq!(refused.json()["error"]["data"]["limit"], "bytes");
    let wait = refused.json()["error"]["data"]["retryAfterMs"].as_u64().expect("a number");
    assert!((1000..2500).contains(&wait), "10 KB too much at 10 KB a second: {wait}");
    assert_eq!(elsewhere.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    clock.advance(Duration::from_millis(wait + 1000));
    assert_eq!(client.call("echo", json!({ "text": "x".repeat(30_000) })).await.error().1, 0);
    let large = client.draft_call("echo", &json!({ "text": "x".repeat(100_000) })).send().await;
    assert_eq!(large.error(), (429, -31001), "not even read");
    clock.advance(Duration::from_secs(10));
    // What is said on a stream counts as well.
    let count = client.draft_call("slow_count", &json!({ "steps": 100, "delay_ms": 0 }));
    count.progress(json!("x".repeat(300))).stream().await.rest().await;
    let refused = client.call("echo", json!({ "text": "x" })).await;
    assert_eq!(refused.json()["error"]["data"]["limit"], "bytes", "{}", refused.text);
}

#[tokio::test]
async fn calls_at_once_are_counted_over_all_keys_of_a_tenant() {
    let gateway = Gateway::build().set("limits.tenant.concurrency", 1).start().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    let neighbour = Modern::new(&gateway, &gateway.key(key.tenant).await);
    let stranger = Modern::new(&gateway, &gateway.caller().await);
    let count = client.draft_call("slow_count", &json!({ "steps": 1000, "delay_ms": 1000 }));
    let mut running = count.progress(json!(1)).stream().await;
    running.message().await;
    limited(&client.call("echo", json!({ "text": "x" })).await, "concurrency", 1);
    limited(&neighbour.call("echo", json!({ "text": "x" })).await, "concurrency", 1);
    assert_eq!(client.send("tools/list", json!({})).await.status, 200, "lists run nothing");
    assert_eq!(stranger.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    drop(running);
    eventually("the place", async || client.call("echo", json!({ "text": "x" })).await.error().1 == 0).await;
    for tool in ["panics", "fails", "no_such_tool"] {
        client.call(tool, json!({})).await;
    }
    assert_eq!(
        client.call("echo", json!({ "text": "x" })).await.tool_text(),
        "x",
        "no way out keeps its place"
    );
}

#[tokio::test]
async fn streams_have_places_too() {
    let gateway = Gateway::build().set("limits.tenant.streams", 1).start().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    let (events, _) = client.listen(json!({})).await;
    let listen = client.send("subscriptions/listen", json!({ "notifications": {} })).await;
    limited(&listen, "streams", 1);
    assert_eq!(session.draft_get().send().await.error(), (429, -31001));
    assert_eq!(Old::hello(&gateway, "/sse").bearer(&key.secret).send().await.error(), (429, -31001));
    gateway.is_recorded().await;
    let sessions = format!("/admin/v1/tenants/{}/sessions", key.tenant);
    let sessions = gateway.operator().await.get(&sessions).await;
    let open = sessions.json()["data"].as_array().map(Vec::len);
    assert_eq!(open, Some(1), "a stream that is refused leaves no session behind");
    Modern::new(&gateway, &gateway.caller().await).listen(json!({})).await;
    drop(events);
    let open = r#"weir_streams_open{kind="listen"}"#;
    eventually("the end of the stream", async || gateway.metric(open) == 0.0).await;
    let stream = session.stream().await;
    drop(stream);
}

async fn flooded() -> (Gateway, Key) {
    // Alone: strangers are counted by each process for itself.
    let gateway = Gateway::build()
        .alone()
        .set("limits.ip.burst", 5)
        .set("limits.ip.per_second", 1)
        .set("auth.failure_floor_ms", 0)
        .start()
        .await;
    let key = gateway.caller().await;
    (gateway, key)
}

fn ping(gateway: &Gateway) -> Draft {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    Draft::post(&gateway.http, format!("{}/mcp", gateway.url), body)
}

/// Sends a request until it is one too many. A place comes back every second, so that may take more than one try.
async fn refused(draft: &Draft) -> Reply {
    for _ in 0..50 {
        let reply = draft.clone().send().await;
        if reply.status == 429 {
            return reply;
        }
    }
    panic!("nobody stops the flood");
}

#[tokio::test]
async fn a_flood_of_strangers_is_stopped_and_known_callers_pass() {
    let (gateway, key) = flooded().await;
    assert_eq!(ping(&gateway).bearer(&key.secret).send().await.status, 200);
    for _ in 0..4 {
        assert_eq!(ping(&gateway).bearer("wk_nonsense").send().await.status, 401);
    }
    let reply = refused(&ping(&gateway).bearer("wk_nonsense")).await;
    assert_eq!(reply.error(), (429, -31001));
    assert!(reply.header("retry-after").expect("seconds").parse::<u32>().expect("a number") >= 1);
    for _ in 0..20 {
        assert_eq!(ping(&gateway).bearer(&key.secret).send().await.status, 200);
    }
    // A guess may be good, too: what is not in memory waits its turn. A place that came back meanwhile lets one pass.
    let mut fresh = 200;
    for _ in 0..10 {
        let key = gateway.key(key.tenant).await;
        refused(&ping(&gateway).bearer("wk_nonsense")).await;
        fresh = ping(&gateway).bearer(&key.secret).send().await.status;
        if fresh == 429 {
            break;
        }
    }
    assert_eq!(fresh, 429);
    for _ in 0..20 {
        let health = gateway.request(Method::GET, "/health").send().await;
        assert_eq!(health.status, 200, "a balancer's address is not only its own");
    }
    for path in ["/ready", "/nowhere", "/admin/v1/tenants", "/.well-known/oauth-protected-resource"] {
        refused(&gateway.request(Method::GET, path)).await;
    }
    assert!(gateway.metric(r#"weir_auth_refusals_total{reason="limited_ip"}"#) >= 3.0);
}

#[tokio::test]
async fn guesses_at_session_ids_are_a_flood_too() {
    let (gateway, key) = flooded().await;
    let old = Old::open(&gateway, &key).await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let url = format!("{}/messages?sessionId=guess", gateway.url);
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(Draft::post(&gateway.http, url.clone(), ping.clone()).send().await.status);
    }
    assert_eq!((statuses[0], statuses[7]), (404, 429), "{statuses:?}");
    assert_eq!(old.post(ping).send().await.status, 202);
}

#[tokio::test]
async fn forwarded_addresses_count_only_behind_a_trusted_proxy() {
    for (trusted, different) in [("", false), ("127.0.0.0/8", true)] {
        // Alone: strangers are counted by each process for itself.
        let gateway = Gateway::build()
            .alone()
            .set("server.trusted_proxies", trusted)
            .set("limits.ip.burst", 2)
            .set("limits.ip.per_second", 1)
            .start()
            .await;
        let from = |address: &str| ping(&gateway).header("x-forwarded-for", address).send();
        let mut statuses = Vec::new();
        for number in 0..5 {
            statuses.push(from(&format!("198.51.100.{number}")).await.status);
        }
        assert_eq!(statuses.contains(&429), !different, "{trusted}: {statuses:?}");
        // Behind the proxy, what the client itself wrote further left counts for nothing.
        let mut statuses = Vec::new();
        for number in 0..5 {
            statuses.push(from(&format!("203.0.113.{number}, 198.51.100.77")).await.status);
        }
        assert!(statuses.contains(&429), "{trusted}: {statuses:?}");
    }
}

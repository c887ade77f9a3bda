//! Stopping: what is under way ends well, and nothing takes longer than it may.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use crate::support::legacy::Old;
use crate::support::{Gateway, Legacy, Modern, raw};

#[tokio::test]
async fn what_is_under_way_ends_well() {
    let mut gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    let count = json!({ "steps": 4, "delay_ms": 200 });
    let mut streamed = client.draft_call("slow_count", &count).progress(json!(1)).stream().await;
    streamed.message().await;
    let plain = client.draft_call("slow_count", &count).header("accept", "application/json");
    let plain = gateway.app.last_tasks.spawn(plain.send());
    let mut legacy = session.draft_call("slow_count", &count).progress(json!(1)).stream().await;
    legacy.message().await;
    let (mut listener, _) = client.listen(json!({ "toolsListChanged": true })).await;
    let mut stream = session.stream().await;
    let mut old = Old::open(&gateway, &key).await;
    let idle = raw::connect(gateway.address).await;
    let started = r#"weir_mcp_requests_total{era="modern",method="tools/call"}"#;
    crate::support::eventually("both calls", async || gateway.metric(started) == 2.0).await;

    let stopping = Instant::now();
    gateway.begin_stop();
    assert_eq!(listener.message().await["result"]["resultType"], "complete");
    assert_eq!((listener.next().await, stream.next().await, old.events.next().await), (None, None, None));
    assert!(!raw::is_served(gateway.address).await, "new connections are refused");
    for events in [streamed, legacy] {
        let last = events.rest().await.pop().expect("an answer");
        assert_eq!(last["result"]["content"][0]["text"], "counted to 4");
    }
    assert_eq!(plain.await.expect("no panic").tool_text(), "counted to 4");
    gateway.stopped().await;
    assert!(stopping.elapsed() < Duration::from_secs(3), "{:?}", stopping.elapsed());
    drop(idle);
    // What replicas share outlives each of them.
    assert!(gateway.app.sessions.is_empty() || gateway.apps().count() > 1);
}

#[tokio::test]
async fn a_call_over_http_and_sse_is_answered_before_its_stream_ends() {
    // Alone: the call runs where the stream is.
    let mut gateway = Gateway::build().alone().start().await;
    let mut old = Old::open(&gateway, &gateway.caller().await).await;
    let count = json!({ "name": "slow_count", "arguments": { "steps": 3, "delay_ms": 200 },
        "_meta": { "progressToken": 1 } });
    let id = old.start("tools/call", count).await;
    assert_eq!(old.events.message().await["method"], "notifications/progress");
    gateway.begin_stop();
    let last = old.events.rest().await.pop().expect("an answer");
    assert_eq!((&last["id"], &last["result"]["content"][0]["text"]), (&json!(id), &json!("counted to 3")));
    gateway.stopped().await;
}

#[tokio::test]
async fn readiness_goes_first_where_a_balancer_needs_time() {
    let mut gateway = Gateway::build().set("server.drain_delay_ms", 1000).start().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    gateway.begin_stop();
    crate::support::eventually("draining", async || gateway.app.is_draining()).await;
    let ready = gateway.request(Method::GET, "/ready").send().await;
    assert_eq!((ready.status, &ready.json()["status"]), (503, &json!("draining")));
    assert_eq!(gateway.request(Method::GET, "/health").send().await.status, 200);
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x", "it still serves");
    gateway.stopped().await;
}

#[tokio::test]
async fn what_does_not_end_is_cut() {
    let mut gateway = Gateway::build().set("server.drain_timeout_ms", 200).start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let endless = client.draft_call("hangs", &json!({}));
    let _waiting = gateway.app.tasks.spawn(endless.header("accept", "application/json").open());
    let started = r#"weir_mcp_requests_total{era="modern",method="tools/call"}"#;
    crate::support::eventually("the call", async || gateway.metric(started) == 1.0).await;
    let stopping = Instant::now();
    gateway.begin_stop();
    gateway.stopped().await;
    let took = stopping.elapsed();
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn records_of_the_last_calls_are_written() {
    let mut gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    let count = client.draft_call("slow_count", &json!({ "steps": 2, "delay_ms": 50 }));
    let mut events = count.progress(json!(1)).stream().await;
    events.message().await;
    let replica = gateway.replica().start().await;
    gateway.begin_stop();
    gateway.stopped().await;
    let today = weir::clock::Clock::system().now().to_string();
    let uri = format!("logs://calls/{}", today.split('T').next().expect("a date"));
    let read = Modern::new(&replica, &key).send("resources/read", json!({ "uri": uri })).await;
    let text = read.result()["contents"][0]["text"].as_str().expect("text");
    assert!(text.contains("slow_count") && text.contains("\"ok\""), "{text}");
}

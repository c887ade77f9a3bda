//! 2025-03-26 to 2025-11-25: progress, cancellation, and what a session hears on its GET stream.

use serde_json::{Value, json};

use crate::support::tools::NOTE;
use crate::support::{Gateway, Legacy, Modern, eventually};

async fn cancelled(session: &Legacy, at_least: u32) -> String {
    session.call("slow_count_cancelled", json!({ "at_least": at_least })).await.tool_text().to_owned()
}

#[tokio::test]
async fn progress_comes_on_the_stream_of_its_request() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    let draft = session.draft_call("slow_count", &json!({ "steps": 3, "delay_ms": 20 }));
    let reply = draft.progress(json!("p")).send().await;
    assert!(reply.is_stream());
    let steps: Vec<_> = reply.messages.iter().filter_map(|m| m["params"]["progress"].as_i64()).collect();
    assert_eq!(steps, [1, 2, 3]);
    assert_eq!(reply.tool_text(), "counted to 3");
    assert!(reply.result().get("resultType").is_none());
}

#[tokio::test]
async fn log_messages_come_from_info_on_until_the_client_says_otherwise() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    let levels = async || {
        let reply = session.call("talks", json!({ "messages": 1 })).await;
        let said = reply.messages.iter().filter_map(|m| m["params"]["level"].as_str().map(str::to_owned));
        said.collect::<Vec<_>>()
    };
    assert_eq!(levels().await, ["info", "warning", "error"]);
    for (level, heard) in [("debug", 4), ("error", 1), ("emergency", 0)] {
        let set = session.send("logging/setLevel", json!({ "level": level })).await;
        assert_eq!(set.result(), &json!({}));
        assert_eq!(levels().await.len(), heard, "{level}");
    }
    for level in [json!("loud"), json!(3), Value::Null] {
        assert_eq!(session.send("logging/setLevel", json!({ "level": level })).await.error(), (200, -32602));
    }
}

#[tokio::test]
async fn a_cancelled_call_ends_without_an_answer() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    let count = json!({
        "jsonrpc": "2.0", "id": "the call", "method": "tools/call",
        "params": {
            "name": "slow_count", "arguments": { "steps": 1000, "delay_ms": 1000 }, "_meta": { "progressToken": 1 }
        },
    });
    let mut events = session.message(count).stream().await;
    events.message().await;
    for ignored in [json!({ "requestId": "another" }), json!({ "requestId": { "a": 1 } }), json!({})] {
        assert_eq!(session.notify("notifications/cancelled", ignored).await.status, 202);
    }
    assert_eq!(cancelled(&session, 0).await, "0");
    assert_eq!(
        session.notify("notifications/cancelled", json!({ "requestId": "the call" })).await.status,
        202
    );
    assert_eq!(events.next().await, None);
    assert_eq!(cancelled(&session, 1).await, "1");
}

#[tokio::test]
async fn another_session_cannot_cancel_the_call() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    let other = Legacy::open(&gateway, &key, "2025-11-25").await;
    let count =
        session.draft_call("slow_count", &json!({ "steps": 2, "delay_ms": 100 })).set("/id", json!(77));
    let mut events = count.progress(json!(1)).stream().await;
    events.message().await;
    assert_eq!(other.notify("notifications/cancelled", json!({ "requestId": 77 })).await.status, 202);
    let last = events.rest().await.pop().expect("an answer");
    assert_eq!(last["result"]["content"][0]["text"], "counted to 2");
}

#[tokio::test]
async fn closing_the_stream_is_no_cancellation() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    let count = session.draft_call("slow_count", &json!({ "steps": 2, "delay_ms": 50 }));
    let mut events = count.progress(json!(1)).stream().await;
    events.message().await;
    drop(events);
    let series = r#"weir_tool_calls_total{outcome="ok",server="lab",tool="slow_count"}"#;
    eventually("the call's end", async || gateway.metric(series) == 1.0).await;
}

#[tokio::test]
async fn deleting_the_session_cancels_what_runs_in_it() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    let count = session.draft_call("slow_count", &json!({ "steps": 1000, "delay_ms": 1000 }));
    let mut events = count.progress(json!(1)).stream().await;
    events.message().await;
    assert_eq!(session.draft_delete().send().await.status, 204);
    assert_eq!(events.next().await, None);
    let after = Modern::new(&gateway, &key).call("slow_count_cancelled", json!({ "at_least": 1 })).await;
    assert_eq!(after.tool_text(), "1");
}

#[tokio::test]
async fn an_id_that_is_in_flight_is_refused_a_second_time() {
    // Alone: each replica knows the requests that run there (docs/DESIGN.md says why).
    let gateway = Gateway::build().alone().start().await;
    let key = gateway.caller().await;
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    let endless = json!({ "steps": 1000, "delay_ms": 1000 });
    let count = session.draft_call("slow_count", &endless).set("/id", json!(7));
    let mut events = count.progress(json!(1)).stream().await;
    events.message().await;
    let twin = session.draft_call("echo", &json!({ "text": "x" })).set("/id", json!(7));
    assert_eq!(twin.clone().send().await.error(), (400, -32600));
    let other = Legacy::open(&gateway, &key, "2025-11-25").await;
    let elsewhere = other.draft_call("echo", &json!({ "text": "x" })).set("/id", json!(7));
    assert_eq!(elsewhere.send().await.tool_text(), "x", "another session has ids of its own");
    let as_text = session.draft_call("echo", &json!({ "text": "x" })).set("/id", json!("7"));
    assert_eq!(as_text.send().await.tool_text(), "x", "7 is not \"7\"");
    session.notify("notifications/cancelled", json!({ "requestId": 7 })).await;
    assert_eq!(events.next().await, None);
    assert_eq!(twin.send().await.tool_text(), "x", "the id is free again");
}

#[tokio::test]
async fn changes_come_on_the_newest_stream_only() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    let mut first = session.stream().await;
    let mut second = session.stream().await;
    let changed = |what: &str| session.call("notify", json!({ "what": what }));
    for (what, method) in [
        ("tools", "notifications/tools/list_changed"),
        ("prompts", "notifications/prompts/list_changed"),
        ("resources", "notifications/resources/list_changed"),
    ] {
        changed(what).await.result();
        assert_eq!(second.message().await, json!({ "jsonrpc": "2.0", "method": method }));
    }
    drop(second);
    let open = r#"weir_streams_open{kind="session"}"#;
    eventually("the end of the stream", async || gateway.metric(open) == 1.0).await;
    changed("tools").await.result();
    assert_eq!(first.message().await["method"], "notifications/tools/list_changed");
    session.draft_delete().send().await;
    assert_eq!(first.next().await, None, "it heard nothing that went to the other");
}

#[tokio::test]
async fn a_subscribed_resource_is_reported_until_it_is_unsubscribed() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-06-18").await;
    let mut stream = session.stream().await;
    let updated = || session.call("notify", json!({ "what": NOTE }));
    updated().await.result();
    assert_eq!(session.send("resources/subscribe", json!({ "uri": NOTE })).await.result(), &json!({}));
    updated().await.result();
    let message = stream.message().await;
    assert_eq!(message["method"], "notifications/resources/updated");
    assert_eq!(message["params"], json!({ "uri": NOTE }));
    assert_eq!(session.send("resources/unsubscribe", json!({ "uri": NOTE })).await.result(), &json!({}));
    updated().await.result();
    session.call("notify", json!({ "what": "tools" })).await.result();
    assert_eq!(stream.message().await["method"], "notifications/tools/list_changed");

    let nowhere = session.send("resources/subscribe", json!({ "uri": "lab://nowhere" })).await;
    assert_eq!(nowhere.error(), (200, -32002));
    assert_eq!(session.send("resources/subscribe", json!({})).await.error(), (200, -32602));
}

#[tokio::test]
async fn the_stream_of_a_revoked_key_ends_and_its_session_with_it() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    let neighbour = Legacy::open(&gateway, &gateway.key(key.tenant).await, "2025-11-25").await;
    let mut stream = session.stream().await;
    let operator = gateway.operator().await;
    operator.delete(&format!("/admin/v1/tenants/{}/keys/{}", key.tenant, key.id)).await;
    assert_eq!(stream.next().await, None);
    assert_eq!(session.send("ping", json!({})).await.status, 401);
    eventually("the end of the session", async || gateway.app.sessions.len() == 1).await;
    assert_eq!(neighbour.send("ping", json!({})).await.status, 200);
    assert_eq!(gateway.metric(r#"weir_sessions_closed_total{reason="revoked"}"#), 1.0);
}

#[tokio::test]
async fn a_get_must_accept_a_stream() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    let reply = session.draft_get().header("accept", "application/json").send().await;
    assert_eq!(reply.status, 406);
}

#[tokio::test]
async fn a_batch_whose_client_leaves_is_settled_all_the_same() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-03-26").await;
    let count = json!([{ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "slow_count", "arguments": { "steps": 3, "delay_ms": 100 } } }]);
    let waiting = gateway.app.last_tasks.spawn(session.message(count).send());
    let started = r#"weir_mcp_requests_total{era="legacy",method="tools/call"}"#;
    eventually("the call", async || gateway.metric(started) == 1.0).await;
    waiting.abort();
    let ended = r#"weir_tool_calls_total{outcome="ok",server="lab",tool="slow_count"}"#;
    eventually("its end", async || gateway.metric(ended) == 1.0).await;
}

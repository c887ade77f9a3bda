//! 2026-07-28: replies that stream, cancellation by closing, and `subscriptions/listen`.

use serde_json::{Value, json};

use crate::support::tools::NOTE;
use crate::support::{Gateway, Key, Modern, eventually};

fn methods(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|m| m["method"].as_str().unwrap_or("response")).collect()
}

/// How many counts of this caller were cancelled, once there are so many.
async fn cancelled(client: &Modern, at_least: u32) -> String {
    client.call("slow_count_cancelled", json!({ "at_least": at_least })).await.tool_text().to_owned()
}

#[tokio::test]
async fn progress_turns_the_reply_into_a_stream() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let draft = client.draft_call("slow_count", &json!({ "steps": 3, "delay_ms": 20 }));
    for token in [json!("a \"token\""), json!(7)] {
        let reply = draft.clone().progress(token.clone()).send().await;
        assert!(reply.is_stream());
        assert_eq!(reply.header("x-accel-buffering"), Some("no"));
        assert_eq!(reply.header("cache-control"), Some("no-cache, no-transform"));
        let (response, progress) = reply.messages.split_last().expect("messages");
        for (step, message) in (1..).zip(progress) {
            assert_eq!(message["method"], "notifications/progress");
            assert_eq!(message["params"], json!({ "progressToken": token, "progress": step, "total": 3 }));
        }
        assert_eq!((progress.len(), &response["id"]), (3, &json!(1)));
        assert_eq!(response["result"]["content"][0]["text"], "counted to 3");
    }
    let silent = draft.send().await;
    assert!(!silent.is_stream(), "nobody asked for progress");
}

#[tokio::test]
async fn a_slow_reply_turns_into_a_stream_with_heartbeats() {
    let gateway = Gateway::build().set("mcp.stream_after_ms", 20).set("mcp.heartbeat_ms", 20).start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let mut events = client.draft_call("slow_count", &json!({ "steps": 1, "delay_ms": 600 })).stream().await;
    events.heartbeat().await;
    events.heartbeat().await;
    assert_eq!(events.message().await["result"]["content"][0]["text"], "counted to 1");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn log_messages_come_at_the_level_that_the_request_names() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let draft = client.draft_call("talks", &json!({ "messages": 1 }));
    let silent = draft.clone().send().await;
    assert!(!silent.is_stream(), "without a level there are none");
    let level = "/params/_meta/io.modelcontextprotocol~1logLevel";
    let reply = draft.clone().set(level, json!("warning")).send().await;
    assert_eq!(methods(&reply.messages), ["notifications/message", "notifications/message", "response"]);
    assert_eq!(
        reply.messages[0]["params"],
        json!({ "level": "warning", "logger": "lab", "data": { "number": 1 } })
    );
    assert_eq!(draft.set(level, json!("loud")).send().await.error(), (200, -32602));
}

#[tokio::test]
async fn closing_the_stream_cancels_the_call() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let draft = client.draft_call("slow_count", &json!({ "steps": 1000, "delay_ms": 1000 }));
    let mut events = draft.progress(json!(1)).stream().await;
    assert_eq!(events.message().await["params"]["progress"], 1);
    assert_eq!(cancelled(&client, 0).await, "0");
    drop(events);
    assert_eq!(cancelled(&client, 1).await, "1");
    let series = r#"weir_tool_calls_total{outcome="cancelled",server="lab",tool="slow_count"}"#;
    eventually("the call's end", async || gateway.metric(series) > 0.0).await;
}

#[tokio::test]
async fn closing_the_connection_cancels_a_call_that_did_not_answer_yet() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let draft = client.draft_call("slow_count", &json!({ "steps": 1, "delay_ms": 60_000 }));
    let waiting = gateway.app.tasks.spawn(draft.header("accept", "application/json").open());
    eventually("the call", async || gateway.metric("weir_http_requests_in_flight") >= 1.0).await;
    let started = r#"weir_mcp_requests_total{era="modern",method="tools/call"}"#;
    eventually("the call", async || gateway.metric(started) >= 1.0).await;
    waiting.abort();
    assert_eq!(cancelled(&client, 1).await, "1");
}

async fn listening(gateway: &Gateway) -> (Key, Modern) {
    let key = gateway.caller().await;
    let client = Modern::new(gateway, &key);
    (key, client)
}

#[tokio::test]
async fn a_listener_hears_what_it_asked_for_and_nothing_else() {
    let gateway = Gateway::start().await;
    let (_, client) = listening(&gateway).await;
    let wanted = json!({ "toolsListChanged": true, "resourceSubscriptions": [NOTE, "lab://nowhere"] });
    let (mut events, acknowledged) = client.listen(wanted).await;
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(
        acknowledged["params"]["notifications"],
        json!({ "toolsListChanged": true, "resourceSubscriptions": [NOTE] })
    );
    let id = |message: &Value| message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"].clone();
    assert_eq!(id(&acknowledged), 1);

    for what in ["prompts", "resources", "lab://other", NOTE, "tools"] {
        client.call("notify", json!({ "what": what })).await.result();
    }
    let updated = events.message().await;
    assert_eq!(updated["method"], "notifications/resources/updated");
    assert_eq!((&updated["params"]["uri"], id(&updated)), (&json!(NOTE), json!(1)));
    let changed = events.message().await;
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    assert_eq!(id(&changed), 1);
}

#[tokio::test]
async fn a_listener_hears_only_its_tenant_and_its_server() {
    let gateway = Gateway::start().await;
    let (_, client) = listening(&gateway).await;
    let (_, other) = listening(&gateway).await;
    let all = json!({ "toolsListChanged": true, "promptsListChanged": true });
    let (mut here, _) = client.listen(all.clone()).await;
    let (mut core, _) = client.clone().at("/s/core/mcp").listen(all.clone()).await;
    let (mut elsewhere, _) = other.listen(all).await;
    client.call("notify", json!({ "what": "tools", "mine": true })).await.result();
    assert_eq!(here.message().await["method"], "notifications/tools/list_changed");
    client.call("notify", json!({ "what": "prompts" })).await.result();
    assert_eq!(elsewhere.message().await["method"], "notifications/prompts/list_changed");
    gateway.begin_stop();
    assert!(core.message().await["result"].is_object(), "another server's changes are not heard");
}

#[tokio::test]
async fn a_listener_is_told_when_the_service_stops() {
    let mut gateway = Gateway::start().await;
    let (_, client) = listening(&gateway).await;
    let (mut events, _) = client.listen(json!({})).await;
    gateway.begin_stop();
    let end = events.message().await;
    assert_eq!(end["id"], 1);
    assert_eq!(end["result"]["resultType"], "complete");
    assert_eq!(end["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1);
    assert_eq!(events.next().await, None);
    gateway.stopped().await;
}

#[tokio::test]
async fn a_listener_ends_with_its_credential() {
    let gateway = Gateway::start().await;
    let (key, client) = listening(&gateway).await;
    let bystander = Modern::new(&gateway, &gateway.key(key.tenant).await);
    let (mut events, _) = client.listen(json!({ "toolsListChanged": true })).await;
    let (mut others, _) = bystander.listen(json!({ "toolsListChanged": true })).await;
    let operator = gateway.operator().await;
    operator.delete(&format!("/admin/v1/tenants/{}/keys/{}", key.tenant, key.id)).await.json();
    assert!(events.message().await["result"].is_object());
    assert_eq!(events.next().await, None);
    bystander.call("notify", json!({ "what": "tools" })).await.result();
    assert_eq!(others.message().await["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn a_filter_that_is_none_is_refused() {
    let gateway = Gateway::start().await;
    let (_, client) = listening(&gateway).await;
    for params in
        [json!({}), json!({ "notifications": { "toolsListChanged": "yes" } }), json!({ "notifications": [] })]
    {
        let reply = client.send("subscriptions/listen", params.clone()).await;
        assert_eq!(reply.error(), (200, -32602), "{params}");
    }
    let many: Vec<_> = (0..300).map(|n| format!("lab://notes/{n}")).collect();
    let reply = client
        .send("subscriptions/listen", json!({ "notifications": { "resourceSubscriptions": many } }))
        .await;
    assert_eq!(reply.error(), (200, -32602));
}

#[tokio::test]
async fn a_quiet_listener_is_kept_alive() {
    let gateway = Gateway::build().set("mcp.heartbeat_ms", 10).start().await;
    let (_, client) = listening(&gateway).await;
    let (mut events, _) = client.listen(json!({ "toolsListChanged": true })).await;
    events.heartbeat().await;
    events.heartbeat().await;
    client.call("notify", json!({ "what": "tools" })).await.result();
    assert_eq!(events.message().await["method"], "notifications/tools/list_changed");
}

//! Structured results: what a tool with an `outputSchema` promises, and what older clients can read of it (2025-06-18
//! "Tools: Structured Content", "Output Schema"; 2026-07-28 loosens both to any JSON value).

use serde_json::json;

use super::{LEGACY, press};
use crate::support::recorder::Recorder;
use crate::support::{Legacy, Modern, Reply};

fn texts(reply: &Reply) -> Vec<&str> {
    let blocks = reply.result()["content"].as_array().expect("content");
    blocks.iter().filter_map(|block| block["text"].as_str()).collect()
}

#[tokio::test]
async fn a_result_that_fits_its_schema_comes_with_its_text() {
    let gateway = press::gateway().await;
    let key = gateway.caller().await;
    let legacy = Legacy::open(&gateway, &key, "2025-11-25").await;
    let modern = Modern::new(&gateway, &key);
    let silent = json!({ "give": { "n": 7 } });
    for reply in
        [modern.call("gives_object", silent.clone()).await, legacy.call("gives_object", silent).await]
    {
        assert_eq!(reply.result()["structuredContent"], json!({ "n": 7 }));
        assert_eq!(texts(&reply), [r#"{"n":7}"#]);
    }
    let spoken = json!({ "give": { "n": 7 }, "text": "It is seven." });
    let reply = modern.call("gives_object", spoken).await;
    assert_eq!(texts(&reply), ["It is seven."], "a tool that says it in words is not corrected");
}

#[tokio::test]
async fn a_result_that_breaks_its_promise_is_a_fault_of_the_server() {
    let recorder = Recorder::default();
    let gateway = press::build().hook(recorder.clone()).start().await;
    let key = gateway.caller().await;
    let modern = Modern::new(&gateway, &key);
    let legacy = Legacy::open(&gateway, &key, "2025-06-18").await;
    let wrong = json!({ "give": { "n": "hunter2" } });
    for reply in [
        modern.call("gives_object", wrong.clone()).await,
        modern.call("gives_object", json!({ "bare": true, "text": "seven" })).await,
        legacy.call("gives_object", wrong).await,
    ] {
        assert_eq!(reply.error(), (200, -32603));
        assert!(!reply.text.contains("hunter2") && !reply.text.contains("outputSchema"), "{}", reply.text);
        let id = reply.json()["error"]["data"]["correlationId"].as_str().expect("a correlation id");
        assert!(id.starts_with("call_"), "{id}");
    }
    let failed =
        recorder.lines().iter().filter(|line| *line == "after press/gives_object: system_error").count();
    assert_eq!(failed, 3, "{:?}", recorder.lines());
}

#[tokio::test]
async fn a_business_error_promises_nothing() {
    let gateway = press::gateway().await;
    let key = gateway.caller().await;
    let reply = Modern::new(&gateway, &key)
        .call("gives_object", json!({ "bare": true, "error": true, "text": "No." }))
        .await;
    assert_eq!(reply.result()["isError"], true);
    assert_eq!(reply.tool_text(), "No.");
}

#[tokio::test]
async fn any_json_value_may_be_a_structured_result() {
    let gateway = press::gateway().await;
    let key = gateway.caller().await;
    let modern = Modern::new(&gateway, &key);
    let reply = modern.call("gives_list", json!({ "give": [1, 2], "text": "Two." })).await;
    assert_eq!(reply.result()["structuredContent"], json!([1, 2]));
    for value in [json!(null), json!(1.5)] {
        let reply = modern.call("gives_any", json!({ "give": value })).await;
        assert_eq!(reply.result().get("structuredContent"), Some(&value));
        assert_eq!(texts(&reply), [value.to_string()]);
    }
    assert_eq!(modern.call("gives_any", json!({ "bare": true })).await.error(), (200, -32603));
    assert_eq!(modern.call("gives_list", json!({ "give": ["a"] })).await.error(), (200, -32603));
}

#[tokio::test]
async fn older_clients_read_as_text_what_they_do_not_know_as_structure() {
    let gateway = press::gateway().await;
    let key = gateway.caller().await;
    for revision in LEGACY {
        let legacy = Legacy::open(&gateway, &key, revision).await;
        let reply = legacy.call("gives_list", json!({ "give": [1, 2], "text": "Two." })).await;
        assert_eq!(reply.result().get("structuredContent"), None, "{revision}");
        assert_eq!(texts(&reply), ["Two.", "[1,2]"], "{revision}");
        let reply = legacy.call("gives_list", json!({ "give": [1, 2], "text": "[1, 2]" })).await;
        assert_eq!(texts(&reply), ["[1, 2]"], "{revision}: said once is enough");

        let tools = legacy.send("tools/list", json!({})).await.result()["tools"].clone();
        let named = |name: &str| tools.as_array().and_then(|t| t.iter().find(|t| t["name"] == name)).cloned();
        assert_eq!(named("gives_object").expect("a tool")["outputSchema"]["type"], "object", "{revision}");
        assert_eq!(named("gives_list").expect("a tool").get("outputSchema"), None, "{revision}");
        let loose = named("loose").expect("a tool");
        assert_eq!(loose["inputSchema"]["properties"]["any"], json!({}), "{revision}");
    }
}

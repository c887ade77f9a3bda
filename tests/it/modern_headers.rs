//! 2026-07-28: the headers that mirror the body, and what happens where they do not.

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::support::tools::NOTE;
use crate::support::{Draft, Gateway, Modern};

const MISMATCH: (u16, i64) = (400, -32020);

fn sentinel(text: &str) -> String {
    format!("=?base64?{}?=", BASE64.encode(text.as_bytes()))
}

#[tokio::test]
async fn standard_headers_must_be_there_once_and_match() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let call = client.draft_call("echo", &json!({ "text": "x" }));
    let cases: Vec<(&str, Draft)> = vec![
        ("no version", call.clone().without("mcp-protocol-version")),
        ("another version", call.clone().header("mcp-protocol-version", "2025-11-25")),
        ("two versions", call.clone().also("mcp-protocol-version", "2026-07-28")),
        ("no method", call.clone().without("mcp-method")),
        ("another method", call.clone().header("mcp-method", "tools/list")),
        ("a method in another case", call.clone().header("mcp-method", "Tools/Call")),
        ("two methods", call.clone().also("mcp-method", "tools/call")),
        ("no name", call.clone().without("mcp-name")),
        ("another name", call.clone().header("mcp-name", "big")),
        ("two names", call.clone().also("mcp-name", "echo")),
        ("a broken sentinel", call.clone().header("mcp-name", "=?base64?!?=")),
        ("a sentinel of another name", call.clone().header("mcp-name", &sentinel("big"))),
    ];
    for (what, draft) in cases {
        let reply = draft.send().await;
        assert_eq!(reply.error(), MISMATCH, "{what}: {}", reply.text);
        assert_eq!(reply.json()["id"], 1, "{what}");
    }
    for (what, draft) in [
        ("blanks around", call.clone().header("mcp-name", " echo ")),
        ("a sentinel", call.clone().header("mcp-name", &sentinel("echo"))),
        ("a session of another era", call.header("mcp-session-id", "stale")),
    ] {
        assert_eq!(draft.send().await.tool_text(), "x", "{what}");
    }
}

#[tokio::test]
async fn names_of_prompts_and_resources_are_mirrored_too() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let read = client.draft("resources/read", json!({ "uri": NOTE }));
    let get = client.draft("prompts/get", json!({ "name": "greet", "arguments": { "name": "Ada" } }));
    for draft in [read.clone(), get.clone()] {
        assert_eq!(draft.clone().without("mcp-name").send().await.error(), MISMATCH);
        assert_eq!(draft.clone().header("mcp-name", "other").send().await.error(), MISMATCH);
        assert_eq!(draft.send().await.status, 200);
    }
    let list = client.draft("tools/list", json!({})).header("mcp-name", "whatever");
    assert_eq!(list.send().await.status, 200, "methods without a name do not look at it");
}

#[tokio::test]
async fn arguments_with_a_header_are_mirrored() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let call = |arguments: Value| client.draft_call("routed", &arguments);
    let region = call(json!({ "region": "us-west1" }));
    for (what, draft, good) in [
        ("no argument, no header", call(json!({})), true),
        ("null, no header", call(json!({ "region": null })), false),
        ("both", region.clone().header("mcp-param-region", "us-west1"), true),
        ("a sentinel", region.clone().header("mcp-param-region", &sentinel("us-west1")), true),
        ("no header", region.clone(), false),
        ("another value", region.clone().header("mcp-param-region", "eu-west1"), false),
        (
            "twice",
            region.clone().header("mcp-param-region", "us-west1").also("mcp-param-region", "us-west1"),
            false,
        ),
        ("a header without an argument", call(json!({})).header("mcp-param-region", "x"), false),
        (
            "text that no header can hold",
            call(json!({ "region": "Zürich" })).header("mcp-param-region", &sentinel("Zürich")),
            true,
        ),
        ("a number", call(json!({ "shard": 42 })).header("mcp-param-shard", "42"), true),
        ("the same number", call(json!({ "shard": 42 })).header("mcp-param-shard", "42.0"), true),
        ("another number", call(json!({ "shard": 42 })).header("mcp-param-shard", "43"), false),
        ("a nested flag", call(json!({ "at": { "dry": true } })).header("mcp-param-dry", "true"), true),
        (
            "a wrong nested flag",
            call(json!({ "at": { "dry": true } })).header("mcp-param-dry", "True"),
            false,
        ),
        ("an unknown one", call(json!({})).header("mcp-param-colour", "blue"), true),
    ] {
        let reply = draft.send().await;
        match (what, good) {
            // Null counts as absent for headers; the schema then refuses it, as a business error.
            ("null, no header", _) => assert_eq!(reply.result()["isError"], true),
            (_, true) => assert_eq!(reply.result()["isError"], false, "{what}"),
            (_, false) => assert_eq!(reply.error(), MISMATCH, "{what}: {}", reply.text),
        }
    }
    let echoed = region.header("mcp-param-region", "us-west1").send().await;
    assert_eq!(
        serde_json::from_str::<Value>(echoed.tool_text()).expect("JSON"),
        json!({ "region": "us-west1", "shard": null, "dry": null })
    );
}

#[tokio::test]
async fn a_client_that_reads_only_json_gets_only_json() {
    let gateway = Gateway::build().set("mcp.stream_after_ms", 0).start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let arguments = json!({ "steps": 3, "delay_ms": 1 });
    let draft = client.draft_call("slow_count", &arguments).progress(json!(1));
    let reply = draft.clone().header("accept", "application/json").send().await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.tool_text(), "counted to 3");
    let stream = client.draft("tools/list", json!({})).header("accept", "text/event-stream").send().await;
    assert!(stream.is_stream() && stream.result()["tools"].is_array());
    let neither = draft.header("accept", "text/html").send().await;
    assert_eq!(neither.status, 406);
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_without_an_id() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    for body in [json!(7), json!({}), json!({ "jsonrpc": "2.0", "id": null, "method": "tools/list" })] {
        let draft = client.draft("tools/list", json!({})).body(body.clone());
        let reply = draft.clone().send().await;
        assert_eq!(reply.error(), (400, -32600), "{body}");
        assert_eq!(reply.json().get("id"), None, "2026-07-28 has no id null: {body}");
        let legacy = draft.without("mcp-protocol-version").send().await;
        assert_eq!(legacy.json().get("id"), Some(&Value::Null), "JSON-RPC 2.0 has: {body}");
    }
}

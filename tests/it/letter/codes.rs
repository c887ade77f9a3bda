//! Which code each way to fail has, in each revision.

use serde_json::json;

use super::LEGACY;
use crate::support::{Gateway, Legacy, Modern, Reply};

/// Sends one request in every revision; the reply beside the revision.
async fn in_each(gateway: &Gateway, method: &str, params: serde_json::Value) -> Vec<(&'static str, Reply)> {
    let key = gateway.caller().await;
    let mut all = vec![("2026-07-28", Modern::new(gateway, &key).send(method, params.clone()).await)];
    for revision in LEGACY {
        all.push((revision, Legacy::open(gateway, &key, revision).await.send(method, params.clone()).await));
    }
    all
}

#[tokio::test]
async fn a_resource_that_is_not_there_has_the_code_of_its_revision() {
    let gateway = Gateway::start().await;
    // Neither a resource nor a template; a template whose provider knows no such thing.
    for uri in ["lab://nowhere", "lab://notes/missing"] {
        for (revision, reply) in in_each(&gateway, "resources/read", json!({ "uri": uri })).await {
            let code = if revision == "2026-07-28" { -32602 } else { -32002 };
            assert_eq!(reply.error(), (200, code), "{revision} {uri}");
            assert_eq!(reply.json()["error"]["data"], json!({ "uri": uri }), "{revision} {uri}");
        }
    }
    for (revision, reply) in in_each(&gateway, "resources/read", json!({ "uri": "lab://notes/broken" })).await
    {
        assert_eq!(reply.error(), (200, -32603), "{revision}");
    }
}

#[tokio::test]
async fn wrong_parameters_are_the_clients_fault_in_every_revision() {
    let gateway = Gateway::start().await;
    for (method, params) in [
        ("tools/call", json!({ "name": "no_such_tool", "arguments": {} })),
        ("prompts/get", json!({ "name": "no_such_prompt" })),
        ("prompts/get", json!({ "name": "greet", "arguments": {} })),
        ("prompts/get", json!({ "name": "greet", "arguments": { "name": 7 } })),
        ("tools/list", json!({ "cursor": "made up" })),
        ("tools/list", json!({ "cursor": "" })),
        ("prompts/list", json!({ "cursor": "made up" })),
        ("resources/list", json!({ "cursor": "made up" })),
        ("resources/templates/list", json!({ "cursor": "made up" })),
        ("completion/complete", json!({ "ref": { "type": "ref/prompt", "name": "greet" } })),
    ] {
        for (revision, reply) in in_each(&gateway, method, params.clone()).await {
            assert_eq!(reply.error(), (200, -32602), "{revision} {method} {params}");
        }
    }
}

#[tokio::test]
async fn arguments_that_a_tool_refuses_are_for_its_model_to_read() {
    let gateway = super::press::gateway().await;
    // Fits the schema that the tool has, and not the type that it reads.
    let params = json!({ "name": "strict", "arguments": { "n": "seven" } });
    for (revision, reply) in in_each(&gateway, "tools/call", params).await {
        assert_eq!(reply.result()["isError"], true, "{revision}");
        assert!(reply.tool_text().contains("seven"), "{revision}: {}", reply.tool_text());
    }
}

#[tokio::test]
async fn an_error_has_the_id_of_its_request_or_none_at_all() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    for (revision, nameless) in [("2025-11-25", None), ("2025-06-18", Some(&json!(null)))] {
        let session = Legacy::open(&gateway, &key, revision).await;
        let html =
            session.draft("tools/list", &json!({})).set("/id", json!("mine")).header("accept", "text/html");
        let refused = html.send().await;
        assert_eq!((refused.error(), &refused.json()["id"]), ((406, -31007), &json!("mine")));
        let drafts = [
            (405, session.draft_get().without("mcp-session-id")),
            (406, session.draft_get().header("accept", "text/html")),
            (405, session.draft_delete().without("mcp-session-id")),
            (404, session.draft_get().header("mcp-session-id", "gone")),
            (400, session.draft_get().header("last-event-id", "nowhere")),
            (400, session.message(json!([{ "jsonrpc": "2.0", "id": 1, "method": "ping" }]))),
        ];
        for (status, draft) in drafts {
            let reply = draft.send().await;
            assert_eq!(
                (reply.status, reply.json().get("id")),
                (status, nameless),
                "{revision}: {}",
                reply.text
            );
        }
        let unknown = session.draft_get().header("mcp-protocol-version", "1999-01-01").send().await;
        assert_eq!(unknown.error(), (400, -32022));
        let unknown = session.draft_delete().header("mcp-protocol-version", "1999-01-01").send().await;
        assert_eq!(unknown.error(), (400, -32022));
    }
}

#[tokio::test]
async fn a_response_under_2026_07_28_answers_nothing() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    let response = session.message(json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
    assert_eq!(response.clone().send().await.status, 202);
    let modern = response.header("mcp-protocol-version", "2026-07-28").without("mcp-session-id").send().await;
    assert_eq!((modern.error(), modern.json().get("id")), ((400, -32600), None));
}

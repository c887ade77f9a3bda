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

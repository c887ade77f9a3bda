//! Rules that only 2026-07-28 has.

use http::Method;
use serde_json::{Value, json};

use super::press;
use crate::support::{Gateway, Modern};

/// "Value Encoding", "Server Validation": integers are compared as numbers, exactly, and within what a double holds.
#[tokio::test]
async fn integers_in_headers_are_compared_as_numbers() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    for (body, header, good) in [
        (json!(42), "42", true),
        (json!(42), "42.0", true),
        (json!(-7), "-7", true),
        (json!(42), "43", false),
        (json!(42), "4.2e1", false),
        (json!(42), "=?base64?NDI=?=", true),
        (json!(9_007_199_254_740_991_i64), "9007199254740991", true),
        (json!(9_007_199_254_740_993_i64), "9007199254740992", false),
        (json!(9_007_199_254_740_993_i64), "9007199254740993", false),
    ] {
        let call = client.draft_call("routed", &json!({ "shard": body }));
        let reply = call.header("mcp-param-shard", header).send().await;
        let (error, want) = (reply.error(), if good { (200, 0) } else { (400, -32020) });
        assert_eq!(error, want, "{body} {header}: {}", reply.text);
    }
}

/// "Error Responses": the same id as the request; none where the id is not known.
#[tokio::test]
async fn errors_have_the_id_of_their_request_or_none() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let draft = client.draft("tools/list", json!({}));
    let unreadable = draft.clone().header("content-type", "text/plain").send().await;
    assert_eq!(unreadable.error(), (415, -31007));
    assert_eq!(unreadable.json().get("id"), None);
    let unacceptable = draft.header("accept", "text/html").send().await;
    assert_eq!((unacceptable.error(), &unacceptable.json()["id"]), ((406, -31007), &json!(1)));
    let listen = client.draft("subscriptions/listen", json!({ "notifications": {} }));
    let no_stream = listen.header("accept", "application/json").send().await;
    assert_eq!((no_stream.error(), &no_stream.json()["id"]), ((406, -31007), &json!(1)));
}

/// Schema, `JSONRPCErrorResponse`: from 2025-11-25 on an id may be left out and is never null. Before, JSON-RPC has null.
#[tokio::test]
async fn an_error_of_no_request_has_no_id_where_the_revision_knows_that() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let at = |method: Method, path: &str| gateway.request(method, path).bearer(&key.secret);
    for (revision, id) in [("2026-07-28", None), ("2025-11-25", None), ("2025-06-18", Some(&Value::Null))] {
        let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
        for (draft, status) in [
            (gateway.request(Method::POST, "/mcp").body(list.clone()), 401),
            (at(Method::POST, "/mcp").body(list.clone()).header("origin", "https://evil.example"), 403),
            (at(Method::POST, "/s/nowhere/mcp").body(list.clone()), 404),
            (at(Method::PUT, "/mcp"), 405),
            (at(Method::POST, "/mcp").body(list.clone()).header("content-type", "text/plain"), 415),
            (at(Method::POST, "/mcp").body(json!({})).header("content-type", "application/json"), 400),
        ] {
            let reply = draft.header("mcp-protocol-version", revision).send().await;
            assert_eq!(reply.status, status, "{revision}: {}", reply.text);
            assert!(reply.json()["error"]["code"].is_i64(), "{revision} {status}: {}", reply.text);
            assert_eq!(reply.json().get("id"), id, "{revision} {status}: {}", reply.text);
        }
    }
}

/// "Subscriptions: Graceful Closure", "Per-response protocol fields": the last message says which subscription ends and
/// who says so.
#[tokio::test]
async fn the_end_of_a_subscription_says_who_ends_it() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let (mut events, _) = client.listen(json!({ "toolsListChanged": true })).await;
    gateway.begin_stop();
    let meta = events.message().await["result"]["_meta"].clone();
    assert_eq!(meta["io.modelcontextprotocol/subscriptionId"], 1);
    assert_eq!(meta["io.modelcontextprotocol/serverInfo"]["name"], "weir");
}

/// "Sampling: Capabilities": tools only for clients that declared that they can use them.
#[tokio::test]
async fn sampling_with_tools_needs_a_client_that_can() {
    let gateway = press::gateway().await;
    let key = gateway.caller().await;
    let plain = json!({ "messages": [], "maxTokens": 1 });
    let with_tools = json!({ "messages": [], "maxTokens": 1, "tools": [] });
    let with_choice = json!({ "messages": [], "maxTokens": 1, "toolChoice": { "mode": "none" } });
    for (capabilities, params, missing) in [
        (json!({ "sampling": {} }), &plain, None),
        (json!({ "sampling": { "tools": {} } }), &with_tools, None),
        (json!({ "sampling": {} }), &with_tools, Some(json!({ "sampling": { "tools": {} } }))),
        (json!({ "sampling": {} }), &with_choice, Some(json!({ "sampling": { "tools": {} } }))),
        (json!({}), &plain, Some(json!({ "sampling": {} }))),
    ] {
        let client = Modern::new(&gateway, &key).with_capabilities(capabilities.clone());
        let reply = client.call("samples", params.clone()).await;
        match missing {
            None => assert_eq!(reply.result()["resultType"], "input_required", "{capabilities} {params}"),
            Some(missing) => {
                assert_eq!(reply.error(), (400, -32021), "{capabilities} {params}");
                assert_eq!(reply.json()["error"]["data"]["requiredCapabilities"], missing);
            }
        }
    }
}

/// "Multi Round-Trip Requests: Server Requirements": something is asked or remembered, and only what clients can be asked.
#[tokio::test]
async fn a_question_that_is_none_is_a_fault_of_the_server() {
    let gateway = press::gateway().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    for arguments in [json!({}), json!({ "method": "ping" }), json!({ "method": "tools/call" })] {
        let reply = client.call("misasks", arguments.clone()).await;
        assert_eq!(reply.error(), (200, -32603), "{arguments}");
    }
    let read = client.send("resources/read", json!({ "uri": "press://page/misasked" })).await;
    assert_eq!(read.error(), (200, -32603));
    let roots = client.with_capabilities(json!({ "roots": {} }));
    let asked = roots.call("misasks", json!({ "method": "roots/list" })).await;
    assert_eq!(asked.result()["resultType"], "input_required");
}

//! 2024-11-05: HTTP+SSE, for old clients and for `EventSource`.

use http::Method;
use serde_json::{Value, json};

use crate::support::legacy::{Old, initialize};
use crate::support::tools::NOTE;
use crate::support::{Draft, Events, Gateway, Legacy, Modern, eventually};

const GONE: (u16, i64) = (404, -31004);

#[tokio::test]
async fn the_endpoint_carries_an_authority_of_its_own_and_not_the_token() {
    let gateway = Gateway::start().await;
    let token = gateway.url_token(gateway.tenant("a").await).await;
    let hello = Old::hello(&gateway, "/sse").query(&format!("token={}", token.secret));
    let old = Old::connect(&gateway, hello).await;
    assert!(old.endpoint.starts_with("/messages?sessionId="), "{}", old.endpoint);
    assert!(!old.endpoint.contains(&token.secret) && !old.endpoint.contains("token="));
    assert!(old.id().len() >= 43);
    let again = Old::hello(&gateway, "/sse").query(&format!("token={}", token.secret));
    assert_ne!(Old::connect(&gateway, again).await.id(), old.id());
}

#[tokio::test]
async fn messages_need_nothing_but_the_endpoint() {
    let gateway = Gateway::start().await;
    let mut old = Old::open(&gateway, &gateway.caller().await).await;
    let note = old.post(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).send().await;
    assert_eq!(note.status, 202);
    assert_eq!(old.send("ping", json!({})).await["result"], json!({}));
    let tools = old.send("tools/list", json!({})).await;
    assert!(tools["result"]["tools"].as_array().expect("a list").len() > 5);
    let echo = old.send("tools/call", json!({ "name": "echo", "arguments": { "text": "x" } })).await;
    assert_eq!(echo["result"]["content"][0]["text"], "x");
    let note = old.send("resources/read", json!({ "uri": NOTE })).await;
    assert_eq!(note["result"]["contents"][0]["text"], "a note");
    let unknown = old.send("tools/call", json!({ "name": "no_such_tool" })).await;
    assert_eq!(unknown["error"]["code"], -32602);
    let probe = old.send("server/discover", json!({})).await;
    assert_eq!(probe["error"]["code"], -32601);
}

#[tokio::test]
async fn newer_revisions_are_agreed_on_here_too() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    for (asked, agreed) in [("2025-11-25", "2025-11-25"), ("2026-07-28", "2025-11-25"), ("1", "2025-11-25")] {
        let hello = Old::hello(&gateway, "/sse").bearer(&key.secret);
        let mut old = Old::connect(&gateway, hello).await;
        assert_eq!(old.post(initialize(asked)).send().await.status, 202);
        assert_eq!(old.events.message().await["result"]["protocolVersion"], agreed);
    }
}

#[tokio::test]
async fn progress_comes_before_the_answer() {
    let gateway = Gateway::start().await;
    let mut old = Old::open(&gateway, &gateway.caller().await).await;
    let count = json!({
        "name": "slow_count", "arguments": { "steps": 3, "delay_ms": 5 }, "_meta": { "progressToken": "p" }
    });
    let id = old.start("tools/call", count).await;
    for step in 1..=3 {
        let message = old.events.message().await;
        assert_eq!(message["params"], json!({ "progressToken": "p", "progress": step, "total": 3 }));
    }
    let answer = old.events.message().await;
    assert_eq!(
        (&answer["id"], &answer["result"]["content"][0]["text"]),
        (&json!(id), &json!("counted to 3"))
    );
}

fn endless() -> Value {
    json!({
        "name": "slow_count", "arguments": { "steps": 1000, "delay_ms": 1000 }, "_meta": { "progressToken": 1 }
    })
}

#[tokio::test]
async fn a_call_can_be_cancelled() {
    let gateway = Gateway::start().await;
    let mut old = Old::open(&gateway, &gateway.caller().await).await;
    let id = old.start("tools/call", endless()).await;
    old.events.message().await;
    let cancel = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id }
    });
    assert_eq!(old.post(cancel).send().await.status, 202);
    let asked = json!({ "name": "slow_count_cancelled", "arguments": { "at_least": 1 } });
    let answer = old.send("tools/call", asked).await;
    assert_eq!(answer["result"]["content"][0]["text"], "1", "and the cancelled call has no answer");
}

#[tokio::test]
async fn an_id_that_is_in_flight_is_refused_a_second_time() {
    // Alone: each replica knows the requests that run there (docs/DESIGN.md says why).
    let gateway = Gateway::build().alone().start().await;
    let mut old = Old::open(&gateway, &gateway.caller().await).await;
    let id = old.start("tools/call", endless()).await;
    old.events.message().await;
    let twin =
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "get_status" } });
    assert_eq!(old.post(twin).send().await.status, 202);
    assert_eq!(old.events.message().await["error"]["code"], -32600);
}

#[tokio::test]
async fn closing_the_stream_ends_the_session_and_what_runs_in_it() {
    let gateway = Gateway::build().set("mcp.sse_grace_ms", 0).start().await;
    let key = gateway.caller().await;
    let mut old = Old::open(&gateway, &key).await;
    old.start("tools/call", endless()).await;
    old.events.message().await;
    let ping = old.post(json!({ "jsonrpc": "2.0", "id": 9, "method": "ping" }));
    drop(old);
    let counted = Modern::new(&gateway, &key).call("slow_count_cancelled", json!({ "at_least": 1 })).await;
    assert_eq!(counted.tool_text(), "1");
    assert_eq!(ping.send().await.error(), GONE);
    assert_eq!(gateway.metric(r#"weir_sessions_open{transport="sse"}"#), 0.0);
    assert_eq!(gateway.metric(r#"weir_sessions_closed_total{reason="disconnected"}"#), 1.0);
}

#[tokio::test]
async fn changes_and_subscriptions_come_on_the_stream() {
    let gateway = Gateway::start().await;
    let mut old = Old::open(&gateway, &gateway.caller().await).await;
    assert_eq!(old.send("resources/subscribe", json!({ "uri": NOTE })).await["result"], json!({}));
    let client = Modern::new(&gateway, &gateway.caller().await);
    for (what, method) in
        [(NOTE, "notifications/resources/updated"), ("tools", "notifications/tools/list_changed")]
    {
        client.call("notify", json!({ "what": what })).await.result();
        assert_eq!(old.events.message().await["method"], method);
    }
}

#[tokio::test]
async fn an_endpoint_without_a_session_is_404() {
    let gateway = Gateway::start().await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    for path in
        ["/messages", "/messages?sessionId=", "/messages?sessionId=nope", "/messages?a=b", "/s/lab/messages"]
    {
        let draft = Draft::post(&gateway.http, format!("{}{path}", gateway.url), ping.clone());
        assert_eq!(draft.send().await.error(), GONE, "{path}");
    }
}

#[tokio::test]
async fn ids_of_one_transport_mean_nothing_to_the_other() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let old = Old::open(&gateway, &key).await;
    let mut session = Legacy::open(&gateway, &key, "2025-11-25").await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let url = format!("{}/messages?sessionId={}", gateway.url, session.id);
    assert_eq!(Draft::post(&gateway.http, url, ping).bearer(&key.secret).send().await.error(), GONE);
    old.id().clone_into(&mut session.id);
    assert_eq!(session.send("ping", json!({})).await.error(), GONE);
    assert_eq!(session.draft_get().send().await.error(), GONE);
    assert_eq!(session.draft_delete().send().await.error(), GONE);
}

#[tokio::test]
async fn a_revoked_key_ends_its_stream_and_a_suspended_tenant_all_of_them() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let mut revoked = Old::open(&gateway, &key).await;
    let mut suspended = Old::open(&gateway, &gateway.key(key.tenant).await).await;
    let bystander = Old::open(&gateway, &gateway.caller().await).await;
    let ping = |old: &Old| old.post(json!({ "jsonrpc": "2.0", "id": 9, "method": "ping" })).send();
    let operator = gateway.operator().await;
    operator.delete(&format!("/admin/v1/tenants/{}/keys/{}", key.tenant, key.id)).await;
    assert_eq!(revoked.events.next().await, None);
    assert_eq!(ping(&revoked).await.error(), GONE);
    assert_eq!(suspended.send("ping", json!({})).await["result"], json!({}));
    operator.request(Method::POST, &format!("/admin/v1/tenants/{}/suspend", key.tenant)).send().await;
    assert_eq!(suspended.events.next().await, None);
    assert_eq!(ping(&suspended).await.error(), GONE);
    assert_eq!(ping(&bystander).await.status, 202);
}

#[tokio::test]
async fn a_server_has_an_sse_url_of_its_own() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let hello = Old::hello(&gateway, "/s/lab/sse").bearer(&key.secret);
    let mut old = Old::connect(&gateway, hello).await;
    assert!(old.endpoint.starts_with("/s/lab/messages?sessionId="), "{}", old.endpoint);
    let tools = old.send("tools/list", json!({})).await;
    let tools = tools["result"]["tools"].as_array().expect("a list").clone();
    assert!(tools.iter().all(|tool| tool["name"] != "dns_resolve"));
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    for path in ["/messages", "/s/core/messages"] {
        let url = format!("{}{path}?sessionId={}", gateway.url, old.id());
        assert_eq!(Draft::post(&gateway.http, url, ping.clone()).send().await.error(), GONE, "{path}");
    }
    assert_eq!(old.send("ping", json!({})).await["result"], json!({}));
    let nowhere = Old::hello(&gateway, "/s/nowhere/sse").bearer(&key.secret).send().await;
    assert_eq!(nowhere.status, 404);
}

#[tokio::test]
async fn a_post_to_the_stream_url_is_405_so_that_clients_fall_back() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let post = Draft::post(&gateway.http, format!("{}/sse", gateway.url), initialize("2025-11-25"));
    assert_eq!(post.clone().send().await.status, 401);
    let reply = post.bearer(&key.secret).send().await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")));
}

#[tokio::test]
async fn batches_and_broken_messages_are_answered_on_the_stream_or_at_once() {
    let gateway = Gateway::start().await;
    let mut old = Old::open(&gateway, &gateway.caller().await).await;
    let batch = json!([
        { "jsonrpc": "2.0", "id": "a", "method": "ping" },
        { "jsonrpc": "2.0", "id": "b", "method": 7 },
    ]);
    assert_eq!(old.post(batch).send().await.status, 202);
    let mut answers = [old.events.message().await, old.events.message().await];
    answers.sort_by_key(|answer| answer["id"].to_string());
    assert_eq!((&answers[0]["result"], &answers[1]["error"]["code"]), (&json!({}), &json!(-32600)));
    let wrong = old.post(json!({ "jsonrpc": "2.0", "id": 1 })).send().await;
    assert_eq!(wrong.error(), (400, -32600));
    let plain =
        old.post(json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).header("content-type", "text/plain");
    assert_eq!(plain.send().await.status, 415);
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_and_a_stop_ends_it() {
    let mut gateway = Gateway::build().set("mcp.heartbeat_ms", 10).start().await;
    let mut old = Old::open(&gateway, &gateway.caller().await).await;
    old.events.heartbeat().await;
    gateway.begin_stop();
    assert_eq!(old.events.next().await, None);
    gateway.stopped().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_off() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let mut old = Old::open(&gateway, &key).await;
    // Larger answers than the socket's buffers hold, and more of them than the queue does.
    let call = json!({ "name": "big", "arguments": { "bytes": 4_000_000 } });
    let cut = r#"weir_sessions_closed_total{reason="slow_reader"}"#;
    let (mut id, mut status) = (0, 202);
    while status == 202 {
        id += 1;
        assert!(id < 5000, "it is never cut");
        let method = if id < 5 { "tools/call" } else { "ping" };
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": call });
        status = old.post(body).send().await.status;
    }
    assert_eq!(status, 404);
    eventually("the cut", async || gateway.metric(cut) == 1.0).await;
    while old.events.next().await.is_some() {}
}

#[tokio::test]
async fn a_get_with_a_bad_credential_opens_nothing() {
    let gateway = Gateway::build().set("mcp.sse_grace_ms", 0).start().await;
    let response = Old::hello(&gateway, "/sse").bearer("wk_nope").open().await;
    assert_eq!(response.status(), 401);
    assert_eq!(gateway.sessions(), 0);
    let key = gateway.caller().await;
    let stream = Events::of(Old::hello(&gateway, "/sse").bearer(&key.secret).open().await);
    assert_eq!(gateway.sessions(), 1);
    drop(stream);
    eventually("the end of the session", async || gateway.sessions() == 0).await;
}

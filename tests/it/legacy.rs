//! 2025-03-26 to 2025-11-25: sessions over Streamable HTTP.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use weir::clock::{Clock, Timestamp};

use crate::support::legacy::initialize;
use crate::support::tools::{NOTE, SECRET_CAUSE};
use crate::support::{Draft, Gateway, Legacy, Modern, eventually};

const GONE: (u16, i64) = (404, -31004);

#[tokio::test]
async fn every_revision_is_agreed_on_and_unknown_ones_become_the_newest() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    for (asked, agreed) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("2019-01-01", "2025-11-25"),
        ("nonsense", "2025-11-25"),
    ] {
        let reply = Legacy::hello(&gateway, &key, asked).send().await;
        let result = reply.result();
        assert_eq!(result["protocolVersion"], agreed, "{asked}");
        assert_eq!(result["serverInfo"]["name"], "weir");
        assert!(result["instructions"].is_string() && result["capabilities"]["tools"].is_object());
        for field in ["resultType", "ttlMs", "cacheScope", "_meta"] {
            assert!(result.get(field).is_none(), "{field} is of a later revision");
        }
        let id = reply.header("mcp-session-id").expect("a session");
        assert!(id.len() >= 43 && id.bytes().all(|b| (0x21..=0x7e).contains(&b)), "{id}");
    }
}

#[tokio::test]
async fn initialize_without_its_fields_is_refused() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let hello = Legacy::hello(&gateway, &key, "2025-11-25");
    for (what, draft) in [
        ("no version", hello.clone().unset("/params/protocolVersion")),
        ("a number for a version", hello.clone().set("/params/protocolVersion", json!(2025))),
        ("a list for capabilities", hello.clone().set("/params/capabilities", json!("all"))),
        ("no params", hello.clone().unset("/params")),
    ] {
        let reply = draft.send().await;
        assert_eq!(reply.error(), (200, -32602), "{what}");
        assert_eq!(reply.header("mcp-session-id"), None, "{what}");
    }
    for tolerated in [
        hello.clone().unset("/params/clientInfo"),
        hello.clone().unset("/params/capabilities"),
        hello.clone().header("mcp-protocol-version", "2025-11-25"),
        hello.clone().header("mcp-protocol-version", "2026-07-28"),
        hello.clone().header("mcp-method", "initialize"),
        hello.header("mcp-session-id", "stale"),
    ] {
        assert!(tolerated.send().await.header("mcp-session-id").is_some());
    }
}

#[tokio::test]
async fn a_session_lists_reads_and_calls() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let session = Legacy::open(&gateway, &key, revision).await;
        assert_eq!(session.send("ping", json!({})).await.result(), &json!({}));
        for (method, field) in [
            ("tools/list", "tools"),
            ("resources/list", "resources"),
            ("resources/templates/list", "resourceTemplates"),
            ("prompts/list", "prompts"),
        ] {
            let reply = session.send(method, json!({})).await;
            assert!(!reply.result()[field].as_array().expect("a list").is_empty(), "{method}");
            assert!(reply.result().get("ttlMs").is_none(), "{method}");
        }
        let echo = session.call("echo", json!({ "text": revision })).await;
        assert_eq!((echo.tool_text(), echo.header("content-type")), (revision, Some("application/json")));
        let note = session.send("resources/read", json!({ "uri": NOTE })).await;
        assert_eq!(note.result()["contents"][0]["text"], "a note");
        let prompt = json!({ "name": "greet", "arguments": { "name": "Ada" } });
        assert_eq!(session.send("prompts/get", prompt).await.result()["messages"][0]["role"], "user");
        let tone = json!({
            "ref": { "type": "ref/prompt", "name": "greet" }, "argument": { "name": "tone", "value": "fu" }
        });
        let completed = session.send("completion/complete", tone).await;
        assert_eq!(completed.result()["completion"]["values"], json!(["funny"]));
    }
}

#[tokio::test]
async fn each_way_to_fail_has_its_own_words() {
    let gateway = Gateway::build().set("mcp.tool_timeout_ms", 100).start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    assert_eq!(session.call("refuses", json!({})).await.result()["isError"], true);
    assert_eq!(session.call("echo", json!({})).await.result()["isError"], true);
    assert_eq!(session.call("no_such_tool", json!({})).await.error(), (200, -32602));
    assert_eq!(session.send("tools/call", json!({})).await.error(), (200, -32602));
    assert_eq!(session.send("made/up", json!({})).await.error(), (200, -32601));
    let missing = session.send("resources/read", json!({ "uri": "lab://nowhere" })).await;
    assert_eq!(missing.error(), (200, -32002));
    for tool in ["fails", "panics"] {
        let reply = session.call(tool, json!({})).await;
        assert_eq!(reply.error(), (200, -32603));
        assert!(!reply.text.contains(SECRET_CAUSE), "{}", reply.text);
    }
    assert_eq!(session.call("hangs", json!({})).await.error(), (200, -31005));
    let asked = session.call("asks", json!({ "topic": "tea" })).await;
    assert_eq!(asked.result()["isError"], true, "a question that this client cannot be asked");
}

#[tokio::test]
async fn a_session_that_is_not_there_is_404_for_every_method() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    let neighbour = session.stolen_by(&gateway.key(key.tenant).await);
    let stranger = session.stolen_by(&gateway.caller().await);
    let mut stale = session.stolen_by(&key);
    stale.id = "A".repeat(43);
    let lab = Draft::post(
        &gateway.http,
        format!("{}/s/lab/mcp", gateway.url),
        json!({
            "jsonrpc": "2.0", "id": 1, "method": "ping"
        }),
    );
    let elsewhere = lab.bearer(&key.secret).header("mcp-session-id", &session.id).send().await;
    assert_eq!(elsewhere.error(), GONE, "a session belongs to the URL that it was opened at");
    for (whose, other) in [("another key's", neighbour), ("another tenant's", stranger), ("nobody's", stale)]
    {
        assert_eq!(other.send("ping", json!({})).await.error(), GONE, "{whose}");
        assert_eq!(other.notify("notifications/initialized", json!({})).await.error(), GONE, "{whose}");
        let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
        assert_eq!(other.message(answer).send().await.error(), GONE, "{whose}");
        assert_eq!(other.message(json!([])).send().await.error(), (400, -32600), "{whose}");
        assert_eq!(other.draft_get().send().await.error(), GONE, "{whose}");
        assert_eq!(other.draft_delete().send().await.error(), GONE, "{whose}");
    }
    assert_eq!(session.send("ping", json!({})).await.status, 200, "it still belongs to its opener");
}

#[tokio::test]
async fn a_deleted_session_is_gone() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    let mut stream = session.stream().await;
    assert_eq!(session.draft_delete().send().await.status, 204);
    assert_eq!(stream.next().await, None);
    assert_eq!(session.send("ping", json!({})).await.error(), GONE);
    assert_eq!(session.draft_delete().send().await.error(), GONE);
    assert_eq!(session.draft_get().send().await.error(), GONE);
    assert_eq!(gateway.metric(r#"weir_sessions_open{transport="streamable"}"#), 0.0);
}

#[tokio::test]
async fn without_a_session_there_is_no_stream_and_nothing_to_delete() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    for method in [Method::GET, Method::DELETE] {
        let draft = gateway.request(method.clone(), "/mcp").header("accept", "text/event-stream");
        assert_eq!(draft.clone().send().await.status, 401, "{method}: no credential comes first");
        let reply = draft.bearer(&key.secret).send().await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")), "{method}");
        assert!(reply.json()["error"]["code"].is_i64());
    }
}

#[tokio::test]
async fn a_second_initialize_settles_anew_on_the_same_session() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    let again = Legacy::hello(&gateway, &key, "2025-03-26").header("mcp-session-id", &session.id);
    let reply = again.send().await;
    assert_eq!(reply.result()["protocolVersion"], "2025-03-26");
    assert_eq!(reply.header("mcp-session-id"), Some(session.id.as_str()));
    assert_eq!(session.send("ping", json!({})).await.status, 200);
    assert_eq!(gateway.app.sessions.len(), 1);
}

#[tokio::test]
async fn a_call_needs_no_session() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let message = |method: &str, params: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": "a", "method": method, "params": params });
        Draft::post(&gateway.http, format!("{}/mcp", gateway.url), body).bearer(&key.secret)
    };
    let call = message("tools/call", json!({ "name": "echo", "arguments": { "text": "x" } }));
    for draft in [
        call.clone(),
        call.clone().header("mcp-protocol-version", "2025-06-18"),
        call.clone().header("mcp-method", "tools/call"),
    ] {
        let reply = draft.send().await;
        assert_eq!((reply.tool_text(), &reply.json()["id"]), ("x", &json!("a")));
    }
    assert_eq!(message("ping", json!({})).send().await.result(), &json!({}));
    let unserved = call.header("mcp-protocol-version", "2030-01-01").send().await;
    assert_eq!(unserved.error(), (400, -32022));
    assert_eq!(message("resources/subscribe", json!({ "uri": NOTE })).send().await.error(), (400, -32600));
}

#[tokio::test]
async fn batches_are_answered_in_2025_03_26_only() {
    let gateway = Gateway::build().set("mcp.max_batch", 4).start().await;
    let key = gateway.caller().await;
    let session = Legacy::open(&gateway, &key, "2025-03-26").await;
    let batch = json!([
        { "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "echo", "arguments": { "text": "x" } } },
        { "jsonrpc": "2.0", "method": "notifications/initialized" },
        { "jsonrpc": "2.0", "id": "b", "method": "made/up" },
        7,
    ]);
    let reply = session.message(batch.clone()).send().await;
    let answers = reply.json().as_array().expect("a list");
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0]["result"]["content"][0]["text"], "x");
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["code"]), (&json!("b"), &json!(-32601)));
    assert_eq!((&answers[2]["id"], &answers[2]["error"]["code"]), (&Value::Null, &json!(-32600)));

    let quiet = json!([{ "jsonrpc": "2.0", "method": "notifications/initialized" }]);
    assert_eq!(session.message(quiet).send().await.status, 202);
    let twins = json!([
        { "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {} },
        { "jsonrpc": "2.0", "id": 2, "method": "ping" },
    ]);
    let reply = session.message(twins).send().await;
    assert_eq!(reply.json()[0]["error"]["code"], -32600, "initialize must stand alone");
    assert_eq!(reply.json()[1]["result"], json!({}));
    let five: Vec<_> = (0..5).map(|id| json!({ "jsonrpc": "2.0", "id": id, "method": "ping" })).collect();
    for refused in [json!([]), Value::from(five)] {
        assert_eq!(session.message(refused).send().await.error(), (400, -32600));
    }
    for revision in ["2025-06-18", "2025-11-25"] {
        let session = Legacy::open(&gateway, &key, revision).await;
        assert_eq!(session.message(batch.clone()).send().await.error(), (400, -32600), "{revision}");
    }
    let modern = Modern::new(&gateway, &key).draft("ping", json!({})).body(batch);
    assert_eq!(modern.send().await.error(), (400, -32600));
}

#[tokio::test]
async fn a_tenant_that_has_all_its_sessions_loses_the_one_that_was_idle_longest() {
    let clock = Clock::manual(Timestamp::from_micros(1_790_000_000_000_000));
    // Alone: the hand that moves this clock does not move that of Redis.
    let gateway = Gateway::build().alone().clock(&clock).set("limits.tenant.sessions", 2).start().await;
    let key = gateway.caller().await;
    let first = Legacy::open(&gateway, &key, "2025-11-25").await;
    clock.advance(Duration::from_secs(1));
    let second = Legacy::open(&gateway, &key, "2025-11-25").await;
    clock.advance(Duration::from_secs(1));
    assert_eq!(first.send("ping", json!({})).await.status, 200);
    clock.advance(Duration::from_secs(1));
    let third = Legacy::open(&gateway, &key, "2025-11-25").await;
    assert_eq!(second.send("ping", json!({})).await.error(), GONE);
    assert_eq!(first.send("ping", json!({})).await.status, 200);

    // A session with an open stream is in use; when all are, there is none to give up.
    let _streams = (first.stream().await, third.stream().await);
    let refused = Legacy::hello(&gateway, &key, "2025-11-25").send().await;
    assert_eq!(refused.error(), (200, -31001));
    assert_eq!(refused.json()["error"]["data"]["limit"], "sessions");
    Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
}

#[tokio::test]
async fn an_idle_session_ends_and_one_in_use_does_not() {
    let clock = Clock::manual(Timestamp::from_micros(1_790_000_000_000_000));
    // Alone: the hand that moves this clock does not move that of Redis.
    let gateway = Gateway::build().alone().clock(&clock).set("mcp.session_idle_ms", 60_000).start().await;
    let key = gateway.caller().await;
    let idle = Legacy::open(&gateway, &key, "2025-11-25").await;
    let streaming = Legacy::open(&gateway, &key, "2025-11-25").await;
    let calling = Legacy::open(&gateway, &key, "2025-11-25").await;
    let active = Legacy::open(&gateway, &key, "2025-11-25").await;
    let _stream = streaming.stream().await;
    let count = calling.draft_call("slow_count", &json!({ "steps": 9, "delay_ms": 60_000 }));
    let mut events = count.progress(json!(1)).stream().await;
    events.message().await;
    clock.advance(Duration::from_secs(59));
    assert_eq!(active.send("ping", json!({})).await.status, 200);
    assert!(!gateway.app.sessions.sweep());
    assert_eq!(gateway.app.sessions.len(), 4);
    clock.advance(Duration::from_secs(2));
    assert!(!gateway.app.sessions.sweep());
    assert_eq!(idle.send("ping", json!({})).await.error(), GONE);
    for session in [&streaming, &calling, &active] {
        assert_eq!(session.send("ping", json!({})).await.status, 200);
    }
    assert_eq!(gateway.metric(r#"weir_sessions_closed_total{reason="idle"}"#), 1.0);
}

#[tokio::test]
async fn what_a_client_says_about_itself_is_kept_short() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let long = json!({ "name": "é".repeat(5000), "version": "1\n2" });
    let hello = Legacy::hello(&gateway, &key, "2025-11-25").set("/params/clientInfo", long);
    assert_eq!(hello.send().await.status, 200);
    let (operator, path) = (gateway.operator().await, format!("/admin/v1/tenants/{}/sessions", key.tenant));
    let listed = async || operator.get(&path).await.json()["data"].clone();
    // The process that opened it writes that down in a moment.
    eventually("the session's record", async || listed().await[0].is_object()).await;
    let row = &listed().await[0];
    assert_eq!(row["client_name"].as_str().expect("a name").len(), 128);
    assert_eq!(row["client_version"], "12");
    assert_eq!(initialize("x")["method"], "initialize");
}

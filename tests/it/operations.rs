//! What an operator relies on: health, metrics, request ids, limits in time, and records of what happened.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use weir::hooks::{CallEnd, Hook, SessionInfo};
use weir::telemetry::labels::SessionEnd;

use crate::support::gateway::value_of;
use crate::support::legacy::Old;
use crate::support::recorder::Recorder;
use crate::support::{Draft, Gateway, Legacy, Modern, raw};

#[tokio::test]
async fn health_and_readiness_follow_the_database() {
    // Alone: of several, each says how Redis is, too.
    let gateway = Gateway::build().alone().start().await;
    let get = |path: &str| gateway.request(Method::GET, path).send();
    let engine = gateway.app.db.engine();
    let health = get("/health").await;
    assert_eq!(health.status, 200);
    assert_eq!(
        health.json(),
        &json!({
            "status": "ok",
            "version": env!("CARGO_PKG_VERSION"),
            "dependencies": { "database": { "engine": engine, "state": "up" } },
        })
    );
    let ready = get("/ready").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("ready")));
    for app in gateway.apps() {
        app.db.close().await;
    }
    for _ in gateway.apps() {
        let ready = get("/ready").await;
        assert_eq!((ready.status, &ready.json()["status"]), (503, &json!("unavailable")));
    }
    // Liveness does not wait for the database; it says what the last look found.
    for _ in gateway.apps() {
        let health = get("/health").await;
        assert_eq!((health.status, &health.json()["status"]), (200, &json!("degraded")));
    }
    assert_eq!(gateway.metric("weir_database_up"), 0.0);
}

#[tokio::test]
async fn metrics_have_a_listener_of_their_own() {
    let gateway = Gateway::build().set("metrics.listen", "127.0.0.1:0").start().await;
    let key = gateway.caller().await;
    let _session = Legacy::open(&gateway, &key, "2025-11-25").await;
    let _old = Old::open(&gateway, &key).await;
    let client = Modern::new(&gateway, &key);
    client.call("echo", json!({ "text": "x" })).await;
    client.call("refuses", json!({})).await;
    client.send("made/up", json!({})).await;
    gateway.request(Method::GET, "/nowhere").send().await;
    let get = |at: SocketAddr, path: &str| {
        Draft::new(&gateway.http, Method::GET, format!("http://{at}{path}")).send()
    };
    let mut pages = Vec::new();
    for at in &gateway.metrics {
        let metrics = get(*at, "/metrics").await;
        assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        for path in ["/nowhere", "/mcp"] {
            assert_eq!(get(*at, path).await.status, 404);
        }
        for secret in [key.id.to_string(), key.tenant.to_string()] {
            assert!(!metrics.text.contains(&secret), "no label names a caller");
        }
        pages.push(metrics.text);
    }
    for (series, value) in [
        (r#"weir_tool_calls_total{outcome="ok",server="lab",tool="echo"}"#, 1.0),
        (r#"weir_tool_calls_total{outcome="tool_error",server="lab",tool="refuses"}"#, 1.0),
        (r#"weir_mcp_requests_total{era="modern",method="tools/call"}"#, 2.0),
        (r#"weir_mcp_requests_total{era="modern",method="other"}"#, 1.0),
        (r#"weir_mcp_requests_total{era="legacy",method="initialize"}"#, 2.0),
        (r#"weir_streams_open{kind="sse"}"#, 1.0),
        (r#"weir_http_requests_total{method="GET",route="unmatched",status="4xx"}"#, 1.0),
        (r#"weir_http_requests_total{method="POST",route="/mcp",status="4xx"}"#, 1.0),
    ] {
        let sum: f64 = pages.iter().map(|page| value_of(series, page)).sum();
        assert_eq!(sum, value, "{series} in\n{}", pages.join("\n"));
    }
    for transport in ["streamable", "sse"] {
        let known = gateway.metric(&format!(r#"weir_sessions_open{{transport="{transport}"}}"#));
        // It counts at each replica that knows of it.
        assert!((1.0..=gateway.apps().count() as f64).contains(&known), "{transport}: {known}");
    }
    assert_eq!(gateway.request(Method::GET, "/metrics").send().await.status, 404);
}

#[tokio::test]
async fn the_admin_api_can_have_a_listener_of_its_own_or_none() {
    let gateway = Gateway::build().set("admin.listen", "127.0.0.1:0").start().await;
    let operator = gateway.operator().await;
    assert_eq!(operator.get("/admin/v1/tenants").await.status, 200);
    assert_eq!(operator.get("/ready").await.status, 200);
    assert_eq!(operator.get("/mcp").await.status, 404);
    let public = gateway.request(Method::GET, "/admin/v1/tenants").bearer(&operator.secret).send().await;
    assert_eq!(public.status, 404);

    let gateway =
        Gateway::build().set("admin.enabled", false).set("admin.listen", "127.0.0.1:0").start().await;
    assert_eq!(gateway.admin, None);
    let operator = gateway.operator().await;
    assert_eq!(operator.get("/admin/v1/tenants").await.status, 404);
}

#[tokio::test]
async fn every_answer_has_a_request_id_of_its_own() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let mut seen = Vec::new();
    for draft in [
        gateway.request(Method::GET, "/health"),
        gateway.request(Method::GET, "/nowhere"),
        gateway.request(Method::GET, "/mcp"),
        gateway.request(Method::POST, "/mcp").bearer(&key.secret),
        gateway.request(Method::GET, "/admin/v1/tenants"),
        gateway.request(Method::GET, "/health").header("host", "evil.example.com"),
        Modern::new(&gateway, &key).draft("tools/list", json!({})).header("x-request-id", "mine"),
    ] {
        let reply = draft.send().await;
        let id = reply.header("x-request-id").expect("an id").to_owned();
        assert!(id.starts_with("req_") && id.len() == 30, "{id}");
        seen.push(id);
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let gateway = Gateway::build().set("server.header_read_timeout_ms", 100).start().await;
    for head in ["", "PRI * HTTP/2", "POST /mcp HTTP/1.1\r\nhost: localhost\r\nx-slow: "] {
        let mut stream = raw::connect(gateway.address).await;
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut rest = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
        assert!(crate::support::within("the end", read).await.is_ok());
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&rest));
    }
    // One that has served a request may wait for the next no longer.
    let mut stream = raw::connect(gateway.address).await;
    stream.write_all(b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    assert_eq!(raw::read_to_end(&mut stream).await.status, 404);
    assert_eq!(gateway.request(Method::GET, "/health").send().await.status, 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let gateway = Gateway::build().set("server.max_connections", 1).start().await;
    // The balancer gives one to each replica.
    let mut first = Vec::new();
    for _ in gateway.apps() {
        first.push(raw::connect(gateway.address).await);
    }
    let waiting = gateway.app.tasks.spawn(gateway.request(Method::GET, "/health").send());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    drop(first);
    assert_eq!(waiting.await.expect("no panic").status, 200);
}

#[tokio::test]
async fn a_panicking_tool_takes_nothing_with_it() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    let count = client.draft_call("slow_count", &json!({ "steps": 2, "delay_ms": 100 }));
    let mut beside = count.progress(json!(1)).stream().await;
    beside.message().await;
    let reply = client.call("panics", json!({})).await;
    assert_eq!(reply.error(), (200, -32603));
    assert!(reply.json()["error"]["data"]["correlationId"].as_str().expect("an id").starts_with("call_"));
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    assert_eq!(beside.rest().await.len(), 2);
    assert_eq!(gateway.metric(r#"weir_tool_calls_total{outcome="panic",server="lab",tool="panics"}"#), 1.0);
}

#[tokio::test]
async fn a_tool_that_takes_too_long_is_given_up() {
    let gateway =
        Gateway::build().set("mcp.tool_timeout_ms", 50).set("mcp.stream_after_ms", 10).start().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    let streamed = client.call("hangs", json!({})).await;
    assert!(streamed.is_stream());
    assert_eq!(streamed.error(), (200, -31005));
    let count = json!({ "steps": 9, "delay_ms": 1000 });
    assert_eq!(client.call("slow_count", count.clone()).await.error(), (200, -31005));
    let cancelled = client.call("slow_count_cancelled", json!({ "at_least": 1 })).await;
    assert_eq!(cancelled.tool_text(), "1", "a tool whose time is over stops working");
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    assert_eq!(session.call("slow_count", count.clone()).await.error(), (200, -31005));
    let mut old = Old::open(&gateway, &key).await;
    let late = old.send("tools/call", json!({ "name": "slow_count", "arguments": count })).await;
    assert_eq!(late["error"]["code"], -31005);
}

#[tokio::test]
async fn hooks_hear_of_calls_and_sessions() {
    let recorder = Recorder::default();
    let gateway = Gateway::build().hook(recorder.clone()).start().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    for (tool, arguments) in [
        ("echo", json!({ "text": "x" })),
        ("echo", json!({})),
        ("refuses", json!({})),
        ("fails", json!({})),
        ("panics", json!({})),
        ("asks", json!({ "topic": "tea" })),
        ("no_such_tool", json!({})),
    ] {
        client.call(tool, arguments).await;
    }
    let session = Legacy::open(&gateway, &key, "2025-06-18").await;
    session.draft_delete().send().await;
    let lines = recorder.lines();
    assert_eq!(
        lines,
        [
            "before lab/echo",
            "after lab/echo: ok",
            "before lab/echo",
            "after lab/echo: invalid_arguments",
            "before lab/refuses",
            "after lab/refuses: tool_error",
            "before lab/fails",
            "after lab/fails: system_error",
            "before lab/panics",
            "after lab/panics: panic",
            "before lab/asks",
            "after lab/asks: input_required",
            "opened streamable 2025-06-18",
            "closed streamable 2025-06-18: client",
        ]
    );
}

struct Broken;

impl Hook for Broken {
    fn after_call(&self, _call: &CallEnd<'_>) {
        panic!("a hook of the test suite panics on purpose");
    }
    fn session_closed(&self, _session: &SessionInfo<'_>, _reason: SessionEnd) {
        panic!("a hook of the test suite panics on purpose");
    }
}

#[tokio::test]
async fn a_hook_that_panics_takes_nothing_with_it() {
    let recorder = Recorder::default();
    let gateway = Gateway::build().hook(Broken).hook(recorder.clone()).start().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    assert_eq!(session.draft_delete().send().await.status, 204);
    let heard = recorder.lines();
    assert_eq!(heard.len(), 4, "the hooks after it are told: {heard:?}");
    gateway.is_recorded().await;
    let today = weir::clock::Clock::system().now().to_string();
    let today = today.split('T').next().expect("a date");
    let logged = log(&client, &format!("logs://calls/{today}")).await;
    assert_eq!(logged["calls"][0]["tool"], "echo", "the call is recorded");
}

/// Reads one page of `logs://calls/...`.
async fn log(client: &Modern, uri: &str) -> Value {
    let reply = client.send("resources/read", json!({ "uri": uri })).await;
    let text = reply.result()["contents"][0]["text"].as_str().expect("text").to_owned();
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn callers_read_their_own_calls_in_pages() {
    let gateway =
        Gateway::build().set("limits.key.burst", 1000).set("limits.tenant.burst", 1000).start().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    let neighbour = Modern::new(&gateway, &gateway.key(key.tenant).await);
    neighbour.call("echo", json!({ "text": "x" })).await;
    let mut calls = Vec::new();
    for _ in 0..101 {
        let reply = client.call("echo", json!({ "text": "x" })).await;
        calls.push(reply.result()["_meta"]["dev.weir/receipt"]["call"].clone());
    }
    client.call("refuses", json!({})).await;
    gateway.is_recorded().await;
    let today = weir::clock::Clock::system().now().to_string();
    let today = today.split('T').next().expect("a date");
    let first = log(&client, &format!("logs://calls/{today}")).await;
    let rest = log(&client, first["next"].as_str().expect("one more page")).await;
    assert_eq!(
        (first["calls"].as_array().map(Vec::len), rest["calls"].as_array().map(Vec::len)),
        (Some(100), Some(2))
    );
    assert_eq!((&rest["next"], &rest["calls"][0]["call"]), (&Value::Null, &calls[100]));
    let last = &rest["calls"][1];
    assert_eq!(
        (&last["server"], &last["tool"], &last["outcome"]),
        (&json!("lab"), &json!("refuses"), &json!("tool_error"))
    );
    assert_eq!(
        log(&neighbour, &format!("logs://calls/{today}")).await["calls"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(log(&client, "logs://calls/2001-01-01").await["calls"], json!([]));
    for date in ["today", "2026-13-01", "2026-1-1"] {
        let reply = client.send("resources/read", json!({ "uri": format!("logs://calls/{date}") })).await;
        assert_eq!(reply.error(), (200, -32602), "{date}");
    }
}

#[tokio::test]
async fn the_history_of_sessions_says_how_each_ended() {
    let mut gateway = Gateway::build().set("mcp.sse_grace_ms", 0).start().await;
    let key = gateway.caller().await;
    let operator = gateway.operator().await;
    let deleted = Legacy::open(&gateway, &key, "2025-06-18").await;
    deleted.call("echo", json!({ "text": "x" })).await;
    deleted.send("tools/list", json!({})).await;
    deleted.draft_delete().send().await;
    drop(Old::open(&gateway, &key).await);
    let open = Legacy::open(&gateway, &key, "2025-11-25").await;
    let path = format!("/admin/v1/tenants/{}/sessions", key.tenant);
    let mut rows = Vec::new();
    crate::support::eventually("the end of the stream", async || {
        gateway.is_recorded().await;
        rows = operator.get(&path).await.json()["data"].as_array().expect("a list").clone();
        rows[1]["close_reason"].is_string()
    })
    .await;
    let told: Vec<_> = rows
        .iter()
        .map(|r| {
            (r["transport"].as_str(), r["revision"].as_str(), r["close_reason"].as_str(), r["calls"].as_i64())
        })
        .collect();
    assert_eq!(
        told,
        [
            (Some("streamable"), Some("2025-06-18"), Some("client"), Some(1)),
            (Some("sse"), Some("2024-11-05"), Some("disconnected"), Some(0)),
            (Some("streamable"), Some("2025-11-25"), None, Some(0)),
        ]
    );
    assert_eq!((&rows[0]["client_name"], &rows[0]["requests"]), (&json!("it"), &json!(2)));
    assert!(rows.iter().all(|row| !row.to_string().contains(&open.id)), "the id on the wire is a secret");

    let replica = gateway.replica().start().await;
    gateway.begin_stop();
    gateway.stopped().await;
    let rows = replica.operator().await.get(&path).await.json()["data"].clone();
    let goes_on = open.at(&replica).send("ping", json!({})).await.status == 200;
    let reason = if goes_on { Value::Null } else { json!("shutdown") };
    assert_eq!((&rows[2]["close_reason"], goes_on), (&reason, gateway.apps().count() > 1));
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call_and_others_may_not() {
    let gateway = Gateway::build().set("server.allowed_origins", "https://app.example.com").start().await;
    let key = gateway.caller().await;
    let preflight = |origin: &str| {
        let draft = gateway.request(Method::OPTIONS, "/mcp").header("origin", origin);
        draft
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,mcp-method")
            .send()
    };
    for origin in ["https://app.example.com", "http://localhost:5173"] {
        let reply = preflight(origin).await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some(origin)));
        assert_eq!(reply.header("access-control-allow-headers"), Some("authorization,mcp-method"));
        assert_eq!(reply.header("access-control-allow-credentials"), None);
        let call = Legacy::hello(&gateway, &key, "2025-11-25").header("origin", origin).send().await;
        let exposed = call.header("access-control-expose-headers").expect("a list");
        assert!(exposed.contains("mcp-session-id") && exposed.contains("www-authenticate"), "{exposed}");
        let refused = gateway.request(Method::GET, "/mcp").header("origin", origin).send().await;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some(origin)));
    }
    for origin in ["https://evil.example.com", "null"] {
        let reply = preflight(origin).await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (403, None));
    }
}

#[tokio::test]
async fn http_2_without_tls_works() {
    let mut gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().expect("a client");
    gateway.http = http;
    let client = Modern::new(&gateway, &key);
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    let (mut events, _) = client.listen(json!({ "toolsListChanged": true })).await;
    client.call("notify", json!({ "what": "tools" })).await.result();
    assert_eq!(events.message().await["method"], "notifications/tools/list_changed");
    gateway.begin_stop();
    assert!(events.message().await["result"].is_object());
    gateway.stopped().await;
}

//! Servers that are not well: what the probe says, and what it does not say.

use std::time::{Duration, Instant};

use axum::body::Body;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::peer::{Peer, Weir, modern, respond};
use super::probe;
use crate::egress;

/// What a probe of `words` says.
async fn failure(words: &[&str]) -> String {
    let (report, outcome) = probe(words).await;
    let error = outcome.expect_err("a failure");
    assert_eq!(report.to_json()["ok"], false);
    assert_eq!(report.to_json()["error"]["problem"], error.problem.as_str());
    error.to_string()
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

fn read_only(name: &str) -> Value {
    json!({ "name": name, "annotations": { "readOnlyHint": true }, "inputSchema": { "required": [] } })
}

#[tokio::test]
async fn nobody_listens() {
    egress::install_crypto();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/mcp?token=hunter22", listener.local_addr().expect("an address"));
    drop(listener);
    let text = failure(&[&url]).await;
    says(&text, &["server/discover: ", "refused", "is the server running"]);
    assert!(!text.contains("hunter22"), "{text}");
}

#[tokio::test]
async fn credentials_that_are_not_good_end_it_at_once() {
    let weir = Weir::start().await;
    let url = format!("http://{}/mcp", weir.address);
    says(&failure(&[&url]).await, &["server/discover: HTTP 401", "pass --key-file"]);
    let text = failure(&[&url, "--key", "wk_nonsense"]).await;
    says(&text, &["HTTP 401", "not expired and not revoked"]);
    says(
        &failure(&[&url, "--key", &weir.api_key, "--tool", "nope"]).await,
        &["no tool \"nope\"", "get_status"],
    );
    let bad = ["--tool", "dns_resolve", "--arguments", "{}"];
    let words = [&[url.as_str(), "--key", &weir.api_key], &bad[..]].concat();
    says(&failure(&words).await, &["tools/call: the tool answers with an error", "name"]);
}

#[tokio::test]
async fn answers_that_are_no_mcp() {
    let html = Peer::always(200, "text/html", "<html>welcome</html>").await;
    says(&failure(&[&html.url]).await, &["HTTP 200 with text/html", "is this the URL of an MCP server?"]);
    assert_eq!(html.asked().len(), 1);

    let missing = Peer::always(404, "text/html", "<html>nothing</html>").await;
    says(&failure(&[&missing.url]).await, &["GET: HTTP 404: a page of HTML", "to `initialize`: HTTP 404"]);
    assert_eq!(missing.asked(), ["POST server/discover", "POST initialize", "GET"]);

    let broken = Peer::always(503, "text/plain", "down for maintenance").await;
    says(&failure(&[&broken.url]).await, &["HTTP 503: down for maintenance", "logs"]);
    assert_eq!(broken.asked().len(), 1);

    let moved = Peer::start(|_| async {
        let mut response = respond(308, "text/plain", "");
        let to = "https://elsewhere.example/mcp?token=hunter22".parse().expect("a value");
        response.headers_mut().insert("location", to);
        response
    })
    .await;
    let text = failure(&[&moved.url]).await;
    says(&text, &["redirects to https://elsewhere.example/mcp", "not followed"]);
    assert!(!text.contains("hunter22"), "{text}");

    let null = Peer::always(200, "application/json", "null").await;
    says(&failure(&[&null.url]).await, &["no answer to the request"]);
}

#[tokio::test]
async fn tools_that_are_not_well() {
    let no = json!({ "isError": true, "content": [{ "type": "text", "text": "the upstream is down" }] });
    let peer = modern(json!([read_only("look")]), no).await;
    says(&failure(&[&peer.url]).await, &["tools/call: the tool answers with an error: the upstream is down"]);

    let asks = json!({ "resultType": "input_required", "inputRequests": {} });
    let peer = modern(json!([read_only("look")]), asks).await;
    says(&failure(&[&peer.url]).await, &["\"input_required\" instead of a result"]);

    let peer = modern(json!([read_only("look")]), json!({})).await;
    says(&failure(&[&peer.url]).await, &["no `content`"]);

    let wants =
        json!({ "name": "a", "annotations": { "readOnlyHint": true }, "inputSchema": { "required": ["b"] } });
    let peer = modern(json!([wants, { "name": "writes" }]), json!({})).await;
    says(&failure(&[&peer.url]).await, &["of 2 tools, none", "--tool"]);

    let circle = Peer::start(|seen| async move {
        match seen.rpc() {
            "server/discover" => seen.result(&json!({ "supportedVersions": ["2026-07-28"] })),
            _ => seen.result(&json!({ "tools": [], "nextCursor": "again" })),
        }
    })
    .await;
    says(&failure(&[&circle.url]).await, &["tools/list: the list does not end", "circle"]);
}

#[tokio::test]
async fn time_and_size_are_bounded() {
    let silent = Peer::start(|_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        respond(200, "text/plain", "")
    })
    .await;
    let started = Instant::now();
    says(&failure(&[&silent.url, "--timeout", "1"]).await, &["no answer within the 1 s", "--timeout"]);
    assert!(started.elapsed() < Duration::from_secs(5));

    let endless = Peer::start(|_| async {
        let spaces =
            std::iter::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 65536])));
        respond(200, "application/json", Body::from_stream(futures_util::stream::iter(spaces)))
    })
    .await;
    says(&failure(&[&endless.url]).await, &["larger than 4194304 bytes"]);

    let cut = Peer::always(200, "text/event-stream", ": nothing\n\n").await;
    says(&failure(&[&cut.url]).await, &["the event stream ended before the answer"]);
}

#[tokio::test]
async fn an_endpoint_of_another_origin_gets_nothing() {
    let lure = Peer::always(200, "application/json", "{}").await;
    let to = lure.url.clone();
    let peer = Peer::start(move |seen| {
        let event = format!("event: endpoint\ndata: {to}\n\n");
        async move {
            if seen.method == "GET" {
                respond(200, "text/event-stream", event)
            } else {
                respond(405, "text/plain", "")
            }
        }
    })
    .await;
    says(&failure(&[&peer.url, "--key", "hunter22"]).await, &["leads to another origin, http://127.0.0.1:"]);
    assert!(lure.asked().is_empty());
}

#[tokio::test]
async fn what_the_server_repeats_is_cleaned() {
    let echo = Peer::start(|seen| async move {
        let text = format!("{} and wu%5Fhunter33 and wu_hunter33 \u{1b}[31m", seen.header("authorization"));
        seen.error(403, -1, &text, &json!(null))
    })
    .await;
    let url = format!("{}?token=wu%5Fhunter33", echo.url);
    let (report, outcome) = probe(&[&url, "--key", "wk_hunter22"]).await;
    let all = format!("{} {report} {}", outcome.expect_err("refused"), report.to_json());
    says(&all, &["Bearer [redacted] and [redacted] and [redacted]"]);
    assert!(!all.contains("hunter") && !all.contains('\u{1b}'), "{all}");
}

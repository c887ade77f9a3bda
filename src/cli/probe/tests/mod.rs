//! Probes of real and scripted servers, through the arguments that a user types.

mod failures;
mod peer;

use clap::Parser;
use serde_json::json;

use super::events::{Event, Parser as EventParser};
use super::report::Report;
use super::{Plan, ProbeArgs, ProbeError};
use peer::{Peer, Seen, Weir, modern, respond};

#[derive(Debug, clap::Parser)]
struct Typed {
    #[command(flatten)]
    args: ProbeArgs,
}

fn args(words: &[&str]) -> ProbeArgs {
    Typed::try_parse_from([&["weir probe"], words].concat()).expect("arguments").args
}

async fn probe(words: &[&str]) -> (Report, Result<(), ProbeError>) {
    let plan = Plan::new(args(words)).expect("a plan");
    Box::pin(super::run::run(plan)).await
}

fn steps(report: &Report) -> Vec<&str> {
    report.steps.iter().map(|step| step.name).collect()
}

#[tokio::test]
async fn weir_is_well_over_its_modern_and_its_oldest_transport() {
    let weir = Weir::start().await;
    let url = format!("http://{}/mcp", weir.address);
    let (report, outcome) = probe(&[&url, "--key", &weir.api_key]).await;
    assert_eq!(outcome, Ok(()));
    assert_eq!(steps(&report), ["server/discover", "tools/list", "tools/call"]);
    let json = report.to_json();
    assert_eq!(json["ok"], true);
    assert_eq!(json["protocolVersion"], "2026-07-28");
    assert_eq!(json["server"]["name"], "weir");
    assert_eq!(json["tool"], "get_status");
    assert!(json["totalMs"].as_f64().is_some_and(|ms| ms > 0.0), "{json}");

    let url = format!("http://{}/sse?token={}", weir.address, weir.url_token);
    let (report, outcome) = probe(&[&url]).await;
    assert_eq!(outcome, Ok(()));
    assert_eq!(
        steps(&report),
        [
            "server/discover",
            "initialize",
            "GET",
            "initialize",
            "notifications/initialized",
            "tools/list",
            "tools/call"
        ]
    );
    let text = report.to_string();
    assert!(text.contains("MCP 2024-11-05 over HTTP+SSE"), "{text}");
    assert!(
        !text.contains(&weir.url_token) && !report.to_json().to_string().contains(&weir.url_token),
        "{text}"
    );
}

/// A server of 2025 that pages its list, answers with streams and has sessions.
async fn of_2025() -> Peer {
    Peer::start(|seen: Seen| async move {
        let with_session = |mut response: axum::response::Response| {
            response.headers_mut().insert("mcp-session-id", "s-1".parse().expect("a value"));
            response
        };
        match (seen.method.as_str(), seen.rpc()) {
            ("DELETE", _) => respond(204, "text/plain", ""),
            (_, "server/discover") => respond(400, "text/plain", "Bad Request: no session"),
            (_, "initialize") => with_session(seen.result(&json!({
                "protocolVersion": "2025-06-18", "capabilities": {},
                "serverInfo": { "name": "old", "version": "1" },
            }))),
            (_, "notifications/initialized") => respond(202, "text/plain", ""),
            (_, "tools/list") if seen.body["params"]["cursor"] == "more" => {
                let tool =
                    json!({ "name": "look", "annotations": { "readOnlyHint": true }, "inputSchema": {} });
                seen.result_as_stream(&json!({ "tools": [tool] }))
            }
            (_, "tools/list") => {
                seen.result_as_stream(&json!({ "tools": [{ "name": "x" }], "nextCursor": "more" }))
            }
            _ => seen.result_as_stream(&json!({ "content": [] })),
        }
    })
    .await
}

#[tokio::test]
async fn a_session_is_opened_used_and_ended() {
    let peer = of_2025().await;
    let (report, outcome) = probe(&[&peer.url, "--key", "wk_1"]).await;
    assert_eq!(outcome, Ok(()));
    assert_eq!((report.tools, report.tool.as_deref()), (Some(2), Some("look")));
    assert_eq!(
        peer.asked(),
        [
            "POST server/discover",
            "POST initialize",
            "POST notifications/initialized",
            "POST tools/list",
            "POST tools/list",
            "POST tools/call",
            "DELETE"
        ]
    );
    for (place, seen) in peer.seen().iter().enumerate() {
        assert_eq!(seen.header("authorization"), "Bearer wk_1");
        let want = if place < 2 { "" } else { "s-1" };
        assert_eq!(seen.header("mcp-session-id"), want, "{}", seen.rpc());
        let want = ["2026-07-28", ""].get(place).copied().unwrap_or("2025-06-18");
        assert_eq!(seen.header("mcp-protocol-version"), want, "{}", seen.rpc());
    }
}

#[tokio::test]
async fn a_session_is_ended_after_a_failure_too() {
    let peer = of_2025().await;
    let (_, outcome) = probe(&[&peer.url, "--tool", "none"]).await;
    assert!(outcome.is_err());
    assert_eq!(peer.asked().last().map(String::as_str), Some("DELETE"));
}

#[tokio::test]
async fn a_modern_request_repeats_its_body_in_headers() {
    let tool = json!({ "name": "grüß", "inputSchema": { "properties": {
        "region": { "type": "string", "x-mcp-header": "Region" },
        "at": { "properties": { "zone": { "type": "integer", "x-mcp-header": "Zone" } } },
        "unset": { "type": "string", "x-mcp-header": "Unset" },
    } } });
    let peer = modern(json!([tool]), json!({ "resultType": "complete", "content": [] })).await;
    let arguments = r#"{"region":" eu","at":{"zone":7}}"#;
    let (_, outcome) = probe(&[&peer.url, "--tool", "grüß", "--arguments", arguments]).await;
    assert_eq!(outcome, Ok(()));
    let seen = peer.seen();
    let call = seen.last().expect("a call");
    assert_eq!(call.header("mcp-method"), "tools/call");
    assert_eq!(call.header("mcp-name"), "=?base64?Z3LDvMOf?=");
    assert_eq!(call.header("mcp-param-region"), "=?base64?IGV1?=");
    assert_eq!(call.header("mcp-param-zone"), "7");
    assert_eq!(call.header("mcp-param-unset"), "");
    let meta = &call.body["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert!(meta["io.modelcontextprotocol/clientCapabilities"].is_object());
}

#[tokio::test]
async fn versions_that_the_server_names_decide() {
    for (supported, older) in [(json!(["2025-11-25"]), true), (json!(["2026-07-28"]), false)] {
        let peer = Peer::start(move |seen| {
            let supported = json!({ "supported": supported });
            async move { seen.error(400, -32022, "Unsupported protocol version", &supported) }
        })
        .await;
        let (_, outcome) = probe(&[&peer.url]).await;
        assert!(outcome.is_err());
        assert_eq!(peer.asked().iter().any(|asked| asked == "POST initialize"), older);
    }
}

#[test]
fn what_is_typed_is_checked_and_never_repeated() {
    let refused = |words: &[&str]| Plan::new(args(words)).map(|_| ()).expect_err("refused").to_string();
    let text = refused(&["ftp://host/?token=hunter22"]);
    assert!(text.contains("http://HOST/PATH") && !text.contains("hunter22"), "{text}");
    assert!(refused(&["http://h", "--tool", "t", "--arguments", "[1]"]).contains("--arguments"));
    assert!(refused(&["http://h", "--key", "a\nb"]).contains("the key"));
    assert!(refused(&["http://h", "--key-file", "/no/such/file"]).contains("--key-file /no/such/file"));
    let typed = args(&["http://h/?token=hunter22", "--key", "hunter33"]);
    let debug = format!("{typed:?}");
    assert!(!debug.contains("hunter"), "{debug}");
    assert!(Typed::try_parse_from(["weir probe", "http://h", "--timeout", "0"]).is_err());
    assert!(Typed::try_parse_from(["weir probe", "http://h", "--arguments", "{}"]).is_err());
}

#[test]
fn a_key_file_may_end_with_a_line_break() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "wk_x\n").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let plan = Plan::new(args(&["http://h", "--key-file", path])).expect("a plan");
    assert_eq!(plan.key.expect("a key"), "Bearer wk_x");
}

#[test]
fn events_are_read_however_they_are_cut() {
    let stream =
        "\u{feff}event: endpoint\r\ndata: /a\r\n\r\n: comment\n\ndata: 1\rdata:2\r\rretry: 5\n\nid\ndata\n\n";
    let event = |name: &str, data: &str| Event { name: name.to_owned(), data: data.to_owned() };
    let want = [event("endpoint", "/a"), event("", "1\n2"), event("", "")];
    for size in 1..stream.len() {
        let mut parser = EventParser::default();
        stream.as_bytes().chunks(size).for_each(|chunk| parser.feed(chunk));
        let events: Vec<_> = std::iter::from_fn(|| parser.next()).collect();
        assert_eq!(events, want, "in pieces of {size}");
    }
}

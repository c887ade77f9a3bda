//! Input that no client should send: each piece of it has one exact answer, and none of it makes Weir stumble.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;

use crate::support::panics::count_panics;
use crate::support::{Gateway, raw};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// Lines to put in the place of good ones.
type Changes<'a> = &'a [(&'static str, &'a str)];

/// The lines of a head that is good, but for one.
struct Head {
    lines: Vec<(&'static str, String)>,
}

impl Head {
    fn good(token: &str) -> Self {
        let lines = vec![
            ("host", "localhost".to_owned()),
            ("authorization", format!("Bearer {token}")),
            ("content-type", "application/json".to_owned()),
            ("accept", "application/json, text/event-stream".to_owned()),
        ];
        Self { lines }
    }

    /// The text, with these lines instead of those of the same names; a name without a value is left out.
    fn with(&self, changes: Changes) -> String {
        let kept = self.lines.iter().filter(|(name, _)| changes.iter().all(|(other, _)| other != name));
        let mut out: String = kept.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        for (name, value) in changes.iter().filter(|(_, value)| !value.is_empty()) {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out
    }
}

async fn start() -> (Gateway, Head) {
    let gateway = Gateway::build()
        .set("server.max_body_bytes", 4096)
        .set("server.body_read_timeout_ms", 150)
        .set("server.max_header_bytes", 8192)
        .start()
        .await;
    let token = gateway.caller().await.secret;
    (gateway, Head::good(&token))
}

/// The status and the JSON-RPC code; 0 where there is none.
async fn answer(address: SocketAddr, request: &[u8]) -> (u16, i64) {
    let reply = raw::send(address, request).await;
    (reply.status, reply.json()["error"]["code"].as_i64().unwrap_or(0))
}

/// Everything still works, and nothing panicked.
async fn still_well(gateway: &Gateway, head: &Head, panics: &AtomicUsize) {
    let good = raw::post("/mcp", &head.with(&[]), PING.as_bytes());
    assert_eq!(answer(gateway.address, &good).await, (200, 0));
    assert_eq!(panics.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn bodies_that_are_no_message() {
    let (gateway, head) = start().await;
    let panics = count_panics();
    let message = |id: &str, rest: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},{rest}}}"#);
    let call = |params: &str| message("1", &format!(r#""method":"tools/call","params":{params}"#));
    let read = |params: &str| message("1", &format!(r#""method":"resources/read","params":{params}"#));
    let list = |params: &str| message("1", &format!(r#""method":"tools/list","params":{params}"#));
    let deep = |levels: usize| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{}1{}}}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    let (parse, invalid, params) = ((400, -32700), (400, -32600), (200, -32602));
    for (what, body, want) in [
        ("nothing", String::new(), parse),
        ("blanks", "  \n".to_owned(), parse),
        ("half", PING[..PING.len() - 1].to_owned(), parse),
        ("too much", format!("{PING} x"), parse),
        ("two messages", format!("{PING}{PING}"), parse),
        ("a number", "7".to_owned(), invalid),
        ("a text", "\"ping\"".to_owned(), invalid),
        ("null", "null".to_owned(), invalid),
        ("an empty object", "{}".to_owned(), invalid),
        ("an empty batch", "[]".to_owned(), invalid),
        ("no version", r#"{"id":1,"method":"ping"}"#.to_owned(), invalid),
        ("another version", PING.replace("2.0", "1.0"), invalid),
        ("a number for the version", PING.replace("\"2.0\"", "2.0"), invalid),
        ("id null", message("null", r#""method":"ping""#), invalid),
        ("id with a fraction", message("1.5", r#""method":"ping""#), invalid),
        ("id with an exponent", message("1e3", r#""method":"ping""#), invalid),
        ("id true", message("true", r#""method":"ping""#), invalid),
        ("id list", message("[1]", r#""method":"ping""#), invalid),
        ("id object", message("{}", r#""method":"ping""#), invalid),
        ("id too long", message(&format!("\"{}\"", "x".repeat(1023)), r#""method":"ping""#), invalid),
        ("two ids", message("1", r#""id":2,"method":"ping""#), invalid),
        ("a huge integer as id", message(&"9".repeat(300), r#""method":"ping""#), (200, 0)),
        ("a negative id", message("-1", r#""method":"ping""#), (200, 0)),
        ("an empty id", message("\"\"", r#""method":"ping""#), (200, 0)),
        ("no method", message("1", r#""params":{}"#), invalid),
        ("a number for a method", message("1", r#""method":7"#), invalid),
        ("null for a method", message("1", r#""method":null"#), invalid),
        ("an empty method", message("1", r#""method":"""#), (200, -32601)),
        ("a long method", message("1", &format!(r#""method":"{}""#, "m".repeat(3000))), (200, -32601)),
        ("a method with control characters", message("1", r#""method":"a\u0000\u001b[2J""#), (200, -32601)),
        ("result and error", message("1", r#""result":{},"error":{}"#), invalid),
        ("params list", message("1", r#""method":"ping","params":[1]"#), params),
        ("params null", message("1", r#""method":"ping","params":null"#), params),
        ("params text", message("1", r#""method":"ping","params":"a""#), params),
        ("name number", call(r#"{"name":7}"#), params),
        ("name null", call(r#"{"name":null}"#), params),
        ("arguments list", call(r#"{"name":"echo","arguments":[]}"#), params),
        ("arguments text", call(r#"{"name":"echo","arguments":"{}"}"#), params),
        ("a lone surrogate", call(r#"{"name":"\ud800"}"#), params),
        ("uri number", read(r#"{"uri":7}"#), params),
        ("uri missing", read("{}"), params),
        ("cursor object", list(r#"{"cursor":{}}"#), params),
        ("_meta number", list(r#"{"_meta":7}"#), params),
        ("progress token with a fraction", list(r#"{"_meta":{"progressToken":1.5}}"#), params),
        ("progress token object", list(r#"{"_meta":{"progressToken":{}}}"#), params),
        ("64 levels", deep(62), (200, 0)),
        ("65 levels", deep(63), parse),
        ("a thousand levels", deep(1000), parse),
        ("a byte order mark", format!("\u{feff}{PING}"), (200, 0)),
    ] {
        let request = raw::post("/mcp", &head.with(&[]), body.as_bytes());
        assert_eq!(answer(gateway.address, &request).await, want, "{what}: {body}");
    }
    let not_text = [&PING.as_bytes()[..10], &[0xff, 0xfe], &PING.as_bytes()[10..]].concat();
    for body in [not_text.as_slice(), &[0xed, 0xa0, 0x80], &[0; 100]] {
        assert_eq!(answer(gateway.address, &raw::post("/mcp", &head.with(&[]), body)).await, parse);
    }
    still_well(&gateway, &head, &panics).await;
}

#[tokio::test]
async fn heads_that_are_wrong() {
    let (gateway, head) = start().await;
    let panics = count_panics();
    let (unsupported, unacceptable, forbidden) = ((415, -31007), (406, -31007), (403, -31007));
    let (mismatch, fine) = ((400, -32020), (200, 0));
    let cases: &[(&str, Changes, (u16, i64))] = &[
        ("no content type", &[("content-type", "")], unsupported),
        ("plain text", &[("content-type", "text/plain")], unsupported),
        ("a form", &[("content-type", "application/x-www-form-urlencoded")], unsupported),
        ("nearly JSON", &[("content-type", "application/jsonp")], unsupported),
        ("two types", &[("content-type", "application/json"), ("content-type", "text/plain")], unsupported),
        ("JSON with a charset", &[("content-type", "Application/JSON; charset=utf-8")], fine),
        ("HTML wanted", &[("accept", "text/html")], unacceptable),
        ("JSON refused", &[("accept", "application/json;q=0")], unacceptable),
        ("anything wanted", &[("accept", "*/*")], fine),
        ("nothing wanted in particular", &[("accept", "")], fine),
        ("another host", &[("host", "evil.example.com")], forbidden),
        ("a host that begins well", &[("host", "localhost.evil.example.com")], forbidden),
        ("no host", &[("host", "")], forbidden),
        ("two hosts", &[("host", "localhost"), ("host", "localhost")], forbidden),
        ("another page", &[("origin", "https://evil.example.com")], forbidden),
        ("a page without an origin", &[("origin", "null")], forbidden),
        ("two pages", &[("origin", "http://localhost"), ("origin", "http://localhost")], forbidden),
        ("a page of this machine", &[("origin", "http://localhost:5173")], fine),
        ("two sessions", &[("mcp-session-id", "a"), ("mcp-session-id", "a")], mismatch),
        ("a session with odd bytes", &[("mcp-session-id", "\u{e9}")], mismatch),
        ("a session that is not there", &[("mcp-session-id", "a")], (404, -31004)),
        ("an empty session", &[("mcp-session-id", " ")], (404, -31004)),
        (
            "two versions",
            &[("mcp-protocol-version", "2025-06-18"), ("mcp-protocol-version", "2025-06-18")],
            mismatch,
        ),
        ("an unknown version", &[("mcp-protocol-version", "1999-01-01")], (400, -32022)),
        ("no credential", &[("authorization", "")], (401, -31002)),
        ("two credentials", &[("authorization", "Bearer a"), ("authorization", "Bearer b")], (401, -31002)),
        ("a credential with odd bytes", &[("authorization", "Bearer \u{e9}")], (401, -31002)),
        ("a traceparent that is none", &[("traceparent", "nonsense")], fine),
        ("an odd forwarded address", &[("x-forwarded-for", "nonsense, \u{e9}")], fine),
    ];
    for (what, changes, want) in cases {
        let request = raw::post("/mcp", &head.with(changes), PING.as_bytes());
        assert_eq!(answer(gateway.address, &request).await, *want, "{what}");
    }
    still_well(&gateway, &head, &panics).await;
}

#[tokio::test]
async fn requests_that_are_too_large_or_too_slow() {
    let (gateway, head) = start().await;
    let panics = count_panics();
    let large = vec![b' '; 5000];
    assert_eq!(answer(gateway.address, &raw::post("/mcp", &head.with(&[]), &large)).await, (413, -31007));
    let chunked = format!(
        "POST /mcp HTTP/1.1\r\n{}transfer-encoding: chunked\r\nconnection: close\r\n\r\n1388\r\n{}\r\n0\r\n\r\n",
        head.with(&[]),
        String::from_utf8_lossy(&large)
    );
    assert_eq!(answer(gateway.address, chunked.as_bytes()).await, (413, -31007));

    let slow = raw::post("/mcp", &head.with(&[]), PING.as_bytes());
    let mut stream = raw::connect(gateway.address).await;
    stream.write_all(&slow[..slow.len() - 1]).await.expect("sent");
    let reply = raw::read_to_end(&mut stream).await;
    assert_eq!((reply.status, reply.json()["error"]["code"].as_i64()), (408, Some(-31007)));

    let mut stream = raw::connect(gateway.address).await;
    stream.write_all(&slow[..slow.len() - 1]).await.expect("sent");
    stream.shutdown().await.expect("half closed");
    let reply = raw::read_to_end(&mut stream).await;
    assert!(matches!(reply.status, 400 | 0), "a body that breaks off: {}", reply.status);

    let long = "x".repeat(9000);
    assert_eq!(
        answer(gateway.address, &raw::post("/mcp", &head.with(&[("x-long", &long)]), b"{}")).await.0,
        431
    );
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let request = raw::post("/mcp", &format!("{}{many}", head.with(&[])), b"{}");
    assert_eq!(answer(gateway.address, &request).await.0, 431);
    let path = format!("/mcp?{}", "a".repeat(9000));
    let status = answer(gateway.address, &raw::post(&path, &head.with(&[]), b"{}")).await.0;
    assert!(matches!(status, 414 | 431), "{status}");
    still_well(&gateway, &head, &panics).await;
}

#[tokio::test]
async fn requests_that_are_no_http() {
    let (gateway, head) = start().await;
    let panics = count_panics();
    for (what, bytes) in [
        ("a word", b"GARBAGE\r\n\r\n".as_slice()),
        ("another protocol", b"SSH-2.0-OpenSSH_9.7\r\n\r\n"),
        ("TLS", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n"),
        ("zeros", &[0; 64]),
        ("a header without a colon", b"GET / HTTP/1.1\r\nhost localhost\r\n\r\n"),
        ("a NUL in a header", b"GET / HTTP/1.1\r\nhost: local\0host\r\n\r\n"),
        (
            "two lengths",
            b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        ),
        ("a length that is none", b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n"),
    ] {
        assert_eq!(raw::send(gateway.address, bytes).await.status, 400, "{what}");
    }
    // What looks like HTTP/2 and is not is hung up on.
    raw::send(gateway.address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no frame at all").await;
    still_well(&gateway, &head, &panics).await;
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there() {
    let (gateway, head) = start().await;
    let panics = count_panics();
    let request = |method: &str, path: &str, head: &str| {
        format!("{method} {path} HTTP/1.1\r\n{head}connection: close\r\n\r\n").into_bytes()
    };
    for path in [
        "/",
        "/mcp/",
        "/mcp/x",
        "//mcp",
        "/MCP",
        "/s/lab",
        "/s/lab/",
        "/s//mcp",
        "/s/lab/mcp/",
        "/s/a/b/mcp",
        "/sse/",
        "/admin",
        "/admin/v1",
        "/admin/v2/tenants",
        "/metrics",
        "/.env",
        "/%6dcp",
        "/..%2fmcp",
        "/register",
        "/authorize",
        "/.well-known/",
        "/favicon.ico",
        "/health/",
        "/mcp;x=1",
    ] {
        let reply = raw::send(gateway.address, &request("GET", path, &head.with(&[]))).await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.text);
    }
    let undecodable = raw::send(gateway.address, &request("GET", "/s/%ff/mcp", &head.with(&[]))).await;
    assert_eq!((undecodable.status, undecodable.json()["error"]["code"].as_i64()), (404, Some(-32600)));
    for method in ["PUT", "PATCH", "TRACE", "CONNECT", "PROPFIND", "get"] {
        let reply = raw::send(gateway.address, &request(method, "/mcp", &head.with(&[]))).await;
        let expected = if method == "CONNECT" { [400, 403, 405].as_slice() } else { &[405] };
        assert!(expected.contains(&reply.status), "{method}: {}", reply.text);
    }
    let stranger =
        raw::send(gateway.address, &request("PUT", "/mcp", &head.with(&[("authorization", "")]))).await;
    assert_eq!(stranger.status, 401, "who may not come in is not told what could be done here");
    for path in [
        "/messages?sessionId=%ff",
        "/messages?sessionId=a&sessionId=b",
        "/messages?%%%",
        "/messages?sessionId[]=a",
    ] {
        let reply = raw::send(gateway.address, &raw::post(path, &head.with(&[]), PING.as_bytes())).await;
        assert_eq!((reply.status, reply.json()["error"]["code"].as_i64()), (404, Some(-31004)), "{path}");
    }
    let odd = raw::post("/mcp?%%%=&&;token", &head.with(&[]), PING.as_bytes());
    assert_eq!(answer(gateway.address, &odd).await, (200, 0));
    still_well(&gateway, &head, &panics).await;
}

//! Good requests of every era and every route, with what they need made for them, to be damaged.

use serde_json::{Value, json};
use weir::id::TenantId;

use crate::support::legacy::{Old, initialize};
use crate::support::modern::VERSION;
use crate::support::tools::NOTE;
use crate::support::{Gateway, Key, Legacy, Modern};

/// A request in its parts.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The method.
    pub method: Vec<u8>,
    /// Path and query.
    pub target: Vec<u8>,
    /// Names and values, without those that frame the body.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Sample {
    fn new(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Self {
        let headers =
            headers.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        let headers = std::iter::once((b"host".to_vec(), b"localhost".to_vec())).chain(headers).collect();
        let (method, target) = (method.as_bytes().to_vec(), target.as_bytes().to_vec());
        Self { method, target, headers, body: body.as_bytes().to_vec() }
    }

    /// As it goes over the wire, one answer and no more.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = [self.method.as_slice(), b" ", &self.target, b" HTTP/1.1\r\n"].concat();
        for (name, value) in &self.headers {
            out.extend_from_slice(&[name.as_slice(), b": ", value, b"\r\n"].concat());
        }
        if !self.body.is_empty() || self.method == b"POST" {
            out.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"connection: close\r\n\r\n");
        [out, self.body.clone()].concat()
    }
}

/// Samples, and what none of their answers may hold.
pub struct Corpus {
    /// The samples.
    pub samples: Vec<Sample>,
    /// Secrets that the samples carry.
    pub secrets: Vec<String>,
    /// An HTTP+SSE session lives as long as its stream.
    _stream: Old,
}

/// The tenants of a fuzzed gateway, and its operator.
pub struct People {
    key: Key,
    url_token: Key,
    operator: String,
    /// A tenant that may be suspended or deleted.
    victim: TenantId,
}

impl People {
    /// Makes them.
    pub async fn of(gateway: &Gateway) -> Self {
        let key = gateway.caller().await;
        let url_token = gateway.url_token(key.tenant).await;
        let victim = gateway.tenant("victim").await;
        Self { key, url_token, operator: gateway.operator().await.secret, victim }
    }

    /// The tenant's API key.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");
const BOTH: (&str, &str) = ("accept", "application/json, text/event-stream");

/// A fresh corpus: what an earlier one opened may be closed by now.
pub async fn corpus(gateway: &Gateway, people: &People) -> Corpus {
    let (key, token) = (&people.key, &people.url_token);
    let old = Old::open(gateway, key).await;
    let mut samples = modern(gateway, key).await;
    let mut sessions = Vec::new();
    for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let session = Legacy::open(gateway, key, revision).await;
        samples.extend(legacy(&session, key));
        sessions.push(session.id.clone());
    }
    samples.extend(sse(&old, token));
    samples.extend(others(people));
    let secrets = [&key.secret, &token.secret, &people.operator].into_iter().cloned().chain(sessions);
    let secrets = secrets.chain([old.id().to_owned()]).collect();
    Corpus { samples, secrets, _stream: old }
}

fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}

/// 2026-07-28, with a cursor and a state that are good.
async fn modern(gateway: &Gateway, key: &Key) -> Vec<Sample> {
    let client = Modern::new(gateway, key);
    let page = client.send("tools/list", json!({})).await;
    let cursor = page.result()["nextCursor"].as_str().expect("a second page").to_owned();
    let asked = client.call("asks", json!({ "topic": "tea" })).await;
    let state = asked.result()["requestState"].clone();
    let opinion = json!({ "opinion": { "action": "accept", "content": { "opinion": "good" } } });
    let routed = json!({ "region": "eu", "shard": 7, "at": { "dry": true } });
    let requests = [
        ("server/discover", json!({})),
        ("tools/list", json!({ "cursor": cursor })),
        ("tools/call", json!({ "name": "echo", "arguments": { "text": "a \u{e9} \"b\"" } })),
        ("tools/call", json!({ "name": "routed", "arguments": routed })),
        (
            "tools/call",
            json!({ "name": "asks", "arguments": { "topic": "tea" }, "requestState": state,
            "inputResponses": opinion }),
        ),
        ("tools/call", json!({ "name": "talks", "arguments": { "messages": 2 } })),
        ("resources/list", json!({})),
        ("resources/templates/list", json!({})),
        ("resources/read", json!({ "uri": NOTE })),
        ("prompts/list", json!({})),
        ("prompts/get", json!({ "name": "greet", "arguments": { "name": "Ada" } })),
        (
            "completion/complete",
            json!({ "ref": { "type": "ref/prompt", "name": "greet" },
            "argument": { "name": "tone", "value": "f" } }),
        ),
        ("subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } })),
    ];
    requests.into_iter().map(|(method, params)| modern_sample(key, method, params)).collect()
}

fn modern_sample(key: &Key, method: &str, mut params: Value) -> Sample {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientInfo": { "name": "fuzz", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } },
        "io.modelcontextprotocol/logLevel": "info",
        "progressToken": 1,
    });
    let name = params.get("name").or_else(|| params.get("uri")).and_then(Value::as_str).unwrap_or("");
    let bearer = bearer(&key.secret);
    let mut headers = vec![
        ("authorization", bearer.as_str()),
        JSON,
        BOTH,
        ("mcp-protocol-version", VERSION),
        ("mcp-method", method),
        ("mcp-name", name),
    ];
    if name == "routed" {
        headers.extend([
            ("mcp-param-region", "=?base64?ZXU=?="),
            ("mcp-param-shard", "7"),
            ("mcp-param-dry", "true"),
        ]);
    }
    let body = json!({ "jsonrpc": "2.0", "id": "m", "method": method, "params": params }).to_string();
    Sample::new("POST", "/mcp", &headers, &body)
}

/// 2025-03-26 to 2025-11-25, in a session.
fn legacy(session: &Legacy, key: &Key) -> Vec<Sample> {
    let bearer = bearer(&key.secret);
    let headers = [
        ("authorization", bearer.as_str()),
        JSON,
        BOTH,
        ("mcp-session-id", session.id.as_str()),
        ("mcp-protocol-version", session.revision.as_str()),
    ];
    let request = |method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    let call =
        |tool: &str, arguments: Value| request("tools/call", json!({ "name": tool, "arguments": arguments }));
    let mut bodies = vec![
        initialize(&session.revision),
        request("ping", json!({})),
        request("tools/list", json!({})),
        call("echo", json!({ "text": "x" })),
        call("asks", json!({ "topic": "tea" })),
        call("talks", json!({ "messages": 2 })),
        call("notify", json!({ "what": NOTE, "mine": true })),
        request("logging/setLevel", json!({ "level": "debug" })),
        request("resources/subscribe", json!({ "uri": NOTE })),
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } }),
        json!({ "jsonrpc": "2.0", "id": "ask_00000000000000000000000000", "result": { "action": "decline" } }),
    ];
    if session.revision == "2025-03-26" {
        bodies.push(
            json!([request("ping", json!({})), call("echo", json!({ "text": "x" })), { "jsonrpc": "2.0" }]),
        );
    }
    let mut samples: Vec<_> =
        bodies.iter().map(|body| Sample::new("POST", "/s/lab/mcp", &headers, &body.to_string())).collect();
    samples.extend(bodies.iter().map(|body| Sample::new("POST", "/mcp", &headers, &body.to_string())));
    for last in ["", "l1-0", "r1-1", "l99-18446744073709551615"] {
        let listen = [headers.as_slice(), &[("last-event-id", last)]].concat();
        samples.push(Sample::new("GET", "/mcp", &listen, ""));
    }
    samples
}

/// 2024-11-05, with the token in the URL.
fn sse(old: &Old, token: &Key) -> Vec<Sample> {
    let post = |body: Value| Sample::new("POST", &old.endpoint, &[JSON], &body.to_string());
    let back = format!("{}-1", weir::id::SessionRowId::new());
    vec![
        post(initialize("2024-11-05")),
        post(json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/list" })),
        post(json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call",
            "params": { "name": "echo", "arguments": { "text": "x" } } })),
        Sample::new("GET", &format!("/sse?token={}", token.secret), &[("accept", "text/event-stream")], ""),
        Sample::new("GET", &format!("/s/lab/sse?token={}", token.secret), &[("last-event-id", &back)], ""),
        Sample::new(
            "POST",
            &format!("/mcp?token={}", token.secret),
            &[JSON, BOTH],
            &json!({ "jsonrpc": "2.0", "id": 7, "method": "ping" }).to_string(),
        ),
    ]
}

/// What is not MCP.
fn others(people: &People) -> Vec<Sample> {
    let (tenant, bearer) = (people.victim, bearer(&people.operator));
    let headers = [("authorization", bearer.as_str()), JSON];
    let name = json!({ "name": "a tenant" }).to_string();
    let key =
        json!({ "name": "a key", "kind": "api_key", "scopes": {}, "expires_at": "2099-01-01T00:00:00Z" });
    vec![
        Sample::new("GET", "/health", &[("x-forwarded-for", "203.0.113.7, ::1")], ""),
        Sample::new(
            "GET",
            "/.well-known/oauth-protected-resource/mcp",
            &[("origin", "http://localhost:1")],
            "",
        ),
        Sample::new(
            "OPTIONS",
            "/mcp",
            &[
                ("origin", "http://localhost:1"),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", "mcp-session-id"),
            ],
            "",
        ),
        Sample::new("GET", "/admin/v1/tenants?limit=2", &headers, ""),
        Sample::new("POST", "/admin/v1/tenants", &headers, &name),
        Sample::new("GET", &format!("/admin/v1/tenants/{tenant}"), &headers, ""),
        Sample::new("POST", &format!("/admin/v1/tenants/{tenant}/keys"), &headers, &key.to_string()),
        Sample::new("GET", &format!("/admin/v1/tenants/{tenant}/sessions?limit=2&after=x"), &headers, ""),
        Sample::new("GET", "/admin/v1/audit?limit=2", &headers, ""),
    ]
}

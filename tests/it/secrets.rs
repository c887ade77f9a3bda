//! No secret leaves: not in a log line or span at any level, not in a metric, not in an error.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use serde_json::{Value, json};
use weir::config::Layers;
use weir::credentials::token::{Kind, Secret};
use weir::http::router::{admin_routes, open_routes, public_routes};
use weir::telemetry;

use crate::support::legacy::Old;
use crate::support::tools::SECRET_CAUSE;
use crate::support::{Draft, Gateway, Legacy, Modern, Reply};

/// Everything that was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Logs everything there is, on every thread of this process.
fn capture() -> Lines {
    let flags = [("log.filter", "debug,weir=trace"), ("log.format", "json")];
    let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let config = Layers { flags, ..Layers::default() }.load().expect("a configuration");
    let lines = Lines::default();
    let writer = {
        let lines = lines.clone();
        move || lines.clone()
    };
    let (subscriber, guard) =
        telemetry::subscriber(&config.log, &config.otel, writer, false).expect("telemetry");
    // Nothing is exported, so the guard holds nothing.
    drop(guard);
    tracing::subscriber::set_global_default(subscriber).expect("the only one of this process");
    lines
}

/// What came back that a client could show or keep.
#[derive(Default)]
struct Seen(Vec<String>);

impl Seen {
    /// Notes a response. A successful answer may hold what the caller asked for, an error nothing of it.
    fn note(&mut self, reply: &Reply) {
        self.0.push(format!("{:?}", reply.headers));
        let failed = reply.status >= 400 || reply.json().get("error").is_some();
        if failed {
            self.0.push(format!("{} {:?}", reply.text, reply.messages));
        }
    }
}

/// Every form in which a secret could show: as it is, its random part alone, and percent-encoded.
fn forms(secret: &str) -> Vec<String> {
    let upper: String = secret.bytes().map(|b| format!("%{b:02X}")).collect();
    let lower = upper.to_lowercase();
    // Without the prefix and without the end, which lists show as a hint.
    let middle = &secret[3.min(secret.len())..secret.len() - 4];
    vec![secret.to_owned(), middle.to_owned(), middle[..middle.len() / 2].to_owned(), upper, lower]
}

struct Secrets {
    good: Vec<String>,
    all: Vec<String>,
}

/// Credentials of every kind, good ones and bad ones.
async fn secrets(gateway: &Gateway) -> Secrets {
    let tenant = gateway.tenant("a").await;
    let revoked = gateway.key(tenant).await;
    let operator = gateway.operator().await;
    let path = format!("/admin/v1/tenants/{tenant}/keys/{}", revoked.id);
    assert_eq!(operator.delete(&path).await.status, 200);
    let generated = |kind| Secret::generate(kind).expect("a secret").expose().to_owned();
    let good =
        vec![gateway.key(tenant).await.secret, gateway.url_token(tenant).await.secret, operator.secret];
    let bad = [
        revoked.secret,
        generated(Kind::UrlToken),
        "wk_0123456789_no_token_at_all_but_typed_in_good_faith".to_owned(),
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUuY29tIn0.c2VjcmV0c2lnbmF0dXJl"
            .to_owned(),
    ];
    let all = good.iter().cloned().chain(bad).collect();
    Secrets { good, all }
}

/// Requests with the secret in every place where one could stand, the path among them.
fn drafts(gateway: &Gateway, method: &Method, path: &str, secret: &str) -> Vec<Draft> {
    let lower: String = secret.bytes().map(|b| format!("%{b:02x}")).collect();
    let upper = lower.to_uppercase();
    let concrete = |server: &str, other: &str| {
        let path = path.replace("{server}", server).replace("{*path}", other);
        let path = path.replace("{tenant}", other).replace("{key}", other);
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
        let draft = gateway.request(method.clone(), &path).header("accept", "application/json");
        draft.header("content-type", "application/json").body(body)
    };
    let (plain, misplaced) = (concrete("lab", "mcp"), concrete(&upper, &upper));
    vec![
        plain.clone().bearer(secret),
        plain.clone().header("authorization", &format!("Basic {secret}")),
        plain.clone().query(&format!("a=b&token={lower}&sessionId={lower}&cursor={lower}")),
        plain.clone().query(&format!("token={secret}")).bearer(secret),
        plain.clone().header("mcp-session-id", secret).header("referer", &format!("http://x/?token={upper}")),
        plain.header("cookie", &format!("token={secret}")).header("x-forwarded-for", secret),
        misplaced.query(&format!("token={upper}")),
    ]
}

/// Sends one of them.
async fn drive(draft: Draft, seen: &mut Seen) {
    let response = draft.open().await;
    let (status, headers) = (response.status(), format!("{:?}", response.headers()));
    // Streams stay open; their heads are what counts here.
    if !headers.contains("text/event-stream") {
        let text = response.text().await.expect("a body");
        if !status.is_success() || text.contains("\"error\"") {
            seen.0.push(text);
        }
    }
    seen.0.push(headers);
}

/// Uses good credentials in earnest, so that sessions, calls and failures are logged.
async fn use_in_earnest(gateway: &Gateway, seen: &mut Seen) -> Vec<String> {
    let key = gateway.caller().await;
    let token = gateway.url_token(key.tenant).await;
    let client = Modern::new(gateway, &key);
    for (tool, arguments) in [("echo", json!({ "text": "x" })), ("fails", json!({})), ("panics", json!({}))] {
        seen.note(&client.call(tool, arguments).await);
    }
    let state = client.call("asks", json!({ "topic": "tea" })).await;
    let state = state.result()["requestState"].as_str().expect("a state").to_owned();
    let wrong =
        client.draft_call("asks", &json!({ "topic": "coffee" })).set("/params/requestState", json!(state));
    seen.note(&wrong.send().await);
    let session = Legacy::open(gateway, &key, "2025-11-25").await;
    seen.note(&session.call("echo", json!({ "text": "x" })).await);
    seen.note(&session.stolen_by(&token).send("ping", json!({})).await);
    seen.note(&session.draft_delete().send().await);
    seen.note(&session.send("ping", json!({})).await);
    let hello = Old::hello(gateway, "/sse").query(&format!("token={}", token.secret));
    let mut old = Old::connect(gateway, hello).await;
    old.send("tools/call", json!({ "name": "fails" })).await;
    let sse = old.id().to_owned();
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let url = format!("{}/s/lab/messages?sessionId={sse}", gateway.url);
    seen.note(&Draft::post(&gateway.http, url, ping).send().await);
    drop(old);
    vec![key.secret, token.secret, session.id, sse, state]
}

#[tokio::test]
async fn no_secret_shows_anywhere() {
    let lines = capture();
    let gateway = Gateway::build().set("auth.failure_floor_ms", 0).start().await;
    let mut seen = Seen::default();
    let Secrets { good, all } = secrets(&gateway).await;
    let routes = [public_routes(), open_routes(), admin_routes()].into_iter().flatten();
    let mut paths: Vec<_> = routes.map(|(path, methods, _)| (path.to_owned(), methods.to_owned())).collect();
    paths.push(("/nowhere/{tenant}".to_owned(), "GET POST PUT".to_owned()));
    for secret in &all {
        for (path, methods) in &paths {
            for method in methods.split(' ') {
                let method = method.parse().expect("a method");
                for draft in drafts(&gateway, &method, path, secret) {
                    drive(draft, &mut seen).await;
                }
            }
        }
    }
    let mut guarded = use_in_earnest(&gateway, &mut seen).await;
    guarded.extend(all);
    gateway.app.usage.flush().await;

    let (logged, metrics) = (lines.text(), gateway.app.metrics.render());
    assert!(
        logged.contains("weir::access") && logged.contains("\"level\":\"DEBUG\""),
        "nothing was captured"
    );
    assert!(logged.contains(SECRET_CAUSE), "the cause of a failure belongs into the log");
    assert!(metrics.contains("weir_auth_refusals_total") && seen.0.len() > 1000);
    assert_eq!(good.len(), 3);
    for secret in &guarded {
        for form in forms(secret) {
            let line = logged.lines().find(|line| line.contains(&form));
            assert_eq!(line, None, "in the log: {form}");
            assert!(!metrics.contains(&form), "in the metrics: {form}");
            let shown = seen.0.iter().find(|text| text.contains(&form) && !is_own_session(text, &form));
            assert_eq!(shown, None, "in a response: {form}");
        }
    }
    let told = seen.0.iter().find(|text| text.contains(SECRET_CAUSE));
    assert_eq!(told, None);
}

/// The one response that has to name a session: the one that opens it.
fn is_own_session(text: &str, form: &str) -> bool {
    text.contains(&format!("\"mcp-session-id\": \"{form}"))
}

#[tokio::test]
async fn a_new_key_is_shown_once_and_not_kept_by_anybody() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator().await;
    let tenant = gateway.tenant("a").await;
    let path = format!("/admin/v1/tenants/{tenant}/keys");
    let made = operator.post(&path, json!({ "name": "laptop" })).await;
    assert_eq!((made.status, made.header("cache-control")), (201, Some("no-store")));
    let secret = made.json()["secret"].as_str().expect("the secret").to_owned();
    let id = made.json()["id"].as_str().expect("an id");
    for path in [path.clone(), format!("{path}/{id}"), "/admin/v1/audit".to_owned()] {
        let reply = operator.get(&path).await;
        assert_eq!(reply.status, 200);
        assert!(!reply.text.contains(&secret[..secret.len() - 4]), "{path}");
        assert!(reply.json().pointer("/data/0/secret").is_none_or(Value::is_null));
    }
}

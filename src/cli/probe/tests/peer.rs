//! Servers to probe: a scripted one, and Weir itself.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::api_keys::{self, KeyKind, NewKey};
use crate::app::{App, Parts};
use crate::audit::Actor;
use crate::clock::Clock;
use crate::config::Layers;
use crate::db::Db;
use crate::serve::Listeners;
use crate::tasks::Tasks;
use crate::{egress, tenants};

/// One request, as a scripted server got it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Seen {
    /// The JSON-RPC method.
    pub(super) fn rpc(&self) -> &str {
        self.body["method"].as_str().unwrap_or("")
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    /// A successful response to it.
    pub(super) fn result(&self, result: &Value) -> Response {
        let text = json!({ "jsonrpc": "2.0", "id": self.body["id"], "result": result }).to_string();
        respond(200, "application/json", text)
    }

    /// The same as an event, behind one of another name and one that answers nothing.
    pub(super) fn result_as_stream(&self, result: &Value) -> Response {
        let answer = json!({ "jsonrpc": "2.0", "id": self.body["id"], "result": result });
        let other = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} });
        let text =
            format!(": hello\r\n\r\nevent: other\ndata: x\n\ndata: {other}\n\nid: 7\ndata: {answer}\n\n");
        respond(200, "text/event-stream", text)
    }

    pub(super) fn error(&self, status: u16, code: i64, message: &str, data: &Value) -> Response {
        let error = json!({ "code": code, "message": message, "data": data });
        let text = json!({ "jsonrpc": "2.0", "id": self.body["id"], "error": error }).to_string();
        respond(status, "application/json", text)
    }
}

pub(super) fn respond(status: u16, kind: &str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert("content-type", kind.parse().expect("a media type"));
    response
}

/// A scripted server and what it was asked. It ends with the test's runtime.
pub(super) struct Peer {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Peer {
    /// A server that answers everything with `script`.
    pub(super) async fn start<Fut>(script: impl Fn(Seen) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Response> + Send + 'static,
    {
        egress::install_crypto();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::new(script), seen.clone());
        let answer = move |request: Request| {
            let (script, log) = (script.clone(), log.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let one = Seen { method: parts.method, headers: parts.headers, body };
                log.lock().expect("not poisoned").push(one.clone());
                script(one).await
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
        let server = axum::serve(listener, axum::Router::new().fallback(answer)).into_future();
        Tasks::new().spawn(async move { server.await.expect("a server") });
        Self { url, seen }
    }

    /// A server that gives everybody the same answer.
    pub(super) async fn always(status: u16, kind: &'static str, body: &'static str) -> Self {
        Self::start(move |_| async move { respond(status, kind, body) }).await
    }

    /// What it was asked: HTTP methods with their JSON-RPC methods.
    pub(super) fn asked(&self) -> Vec<String> {
        let seen = self.seen.lock().expect("not poisoned");
        seen.iter().map(|one| format!("{} {}", one.method, one.rpc()).trim_end().to_owned()).collect()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

/// A modern server with these tools, whose calls all answer `outcome`.
pub(super) async fn modern(tools: Value, outcome: Value) -> Peer {
    Peer::start(move |seen| {
        let result = match seen.rpc() {
            "server/discover" => json!({
                "supportedVersions": ["2026-07-28"], "capabilities": {},
                "_meta": { "io.modelcontextprotocol/serverInfo": { "name": "peer", "version": "7" } },
            }),
            "tools/list" => json!({ "tools": tools }),
            _ => outcome.clone(),
        };
        async move { seen.result(&result) }
    })
    .await
}

/// Weir, with one tenant.
pub(super) struct Weir {
    pub(super) address: SocketAddr,
    pub(super) api_key: String,
    pub(super) url_token: String,
    _directory: tempfile::TempDir,
}

impl Weir {
    pub(super) async fn start() -> Self {
        egress::install_crypto();
        let directory = tempfile::tempdir().expect("a directory");
        let flags = [
            ("server.listen", "127.0.0.1:0".to_owned()),
            ("metrics.listen", String::new()),
            ("database.url", format!("sqlite:{}", directory.path().join("weir.db").display())),
        ];
        let flags = flags.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let config = Layers { flags, ..Layers::default() }.load().expect("a configuration");
        let db = Db::connect(&config.database).await.expect("a database");
        db.migrate().await.expect("migrations");
        let clock = Clock::system();
        let tenant = tenants::create(&db, &clock, Actor::Cli, "probed").await.expect("a tenant");
        let key = async |kind, name: &str| {
            let new = NewKey::new(kind, name);
            let made = api_keys::create(&db, &clock, Actor::Cli, tenant.id, new).await;
            made.expect("a key").1.expose().to_owned()
        };
        let (api_key, url_token) = (key(KeyKind::ApiKey, "a").await, key(KeyKind::UrlToken, "b").await);
        let app = Box::pin(App::start(Parts::new(config, db))).await.expect("Weir");
        let listeners = Listeners::bind(&app.config).await.expect("a port");
        let address = listeners.public.local_addr().expect("an address");
        Tasks::new().spawn(crate::serve::run(app, listeners, std::future::pending()));
        Self { address, api_key, url_token, _directory: directory }
    }
}

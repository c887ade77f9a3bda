//! Clients of the legacy era: sessions over Streamable HTTP, and HTTP+SSE.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use serde_json::{Value, json};

use super::door::Entrance;
use super::{Draft, Events, Key, Reply};

/// `initialize` with what a client has to say.
pub fn initialize(revision: &str) -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": 0,
        "method": "initialize",
        "params": {
            "protocolVersion": revision,
            "capabilities": {},
            "clientInfo": { "name": "it", "version": "1" },
        },
    })
}

/// A session over Streamable HTTP.
pub struct Legacy {
    http: reqwest::Client,
    url: String,
    token: String,
    /// The session's id.
    pub id: String,
    /// The revision that was agreed on.
    pub revision: String,
    next: Arc<AtomicU64>,
}

impl Legacy {
    /// `initialize`, as it would be sent.
    pub fn hello(gateway: &impl Entrance, key: &Key, revision: &str) -> Draft {
        let url = format!("{}/mcp", gateway.url());
        Draft::post(gateway.http(), url, initialize(revision)).bearer(&key.secret)
    }

    /// Opens a session at `/mcp`.
    pub async fn open(gateway: &impl Entrance, key: &Key, revision: &str) -> Self {
        Self::open_with(gateway, key, revision, json!({})).await
    }

    /// Opens a session at `/mcp` for a client that can be asked.
    pub async fn open_with(gateway: &impl Entrance, key: &Key, revision: &str, capabilities: Value) -> Self {
        let hello = Self::hello(gateway, key, revision).set("/params/capabilities", capabilities);
        let reply = hello.send().await;
        let agreed = reply.result()["protocolVersion"].as_str().expect("a revision");
        let id = reply.header("mcp-session-id").expect("a session");
        let session = Self::opened(gateway, key, agreed, id);
        assert_eq!(session.notify("notifications/initialized", json!({})).await.status, 202);
        session
    }

    /// A session that was opened.
    pub fn opened(entrance: &impl Entrance, key: &Key, revision: &str, id: &str) -> Self {
        Self {
            http: entrance.http().clone(),
            url: format!("{}/mcp", entrance.url()),
            token: key.secret.clone(),
            id: id.to_owned(),
            revision: revision.to_owned(),
            next: Arc::new(AtomicU64::new(1)),
        }
    }

    /// The same session as somebody else would use it.
    pub fn stolen_by(&self, key: &Key) -> Self {
        Self {
            http: self.http.clone(),
            url: self.url.clone(),
            token: key.secret.clone(),
            id: self.id.clone(),
            revision: self.revision.clone(),
            next: Arc::new(AtomicU64::new(1)),
        }
    }

    /// The same session at another entrance.
    pub fn at(&self, entrance: &impl Entrance) -> Self {
        Self {
            http: entrance.http().clone(),
            url: format!("{}/mcp", entrance.url()),
            token: self.token.clone(),
            id: self.id.clone(),
            revision: self.revision.clone(),
            next: self.next.clone(),
        }
    }

    fn dress(&self, draft: Draft) -> Draft {
        let draft = draft.bearer(&self.token).header("mcp-session-id", &self.id);
        // The header came with 2025-06-18.
        if self.revision.as_str() < "2025-06-18" {
            draft
        } else {
            draft.header("mcp-protocol-version", &self.revision)
        }
    }

    /// Any message.
    pub fn message(&self, body: Value) -> Draft {
        self.dress(Draft::post(&self.http, self.url.clone(), body))
    }

    /// A request.
    pub fn draft(&self, method: &str, params: &Value) -> Draft {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.message(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
    }

    /// Sends a request.
    pub async fn send(&self, method: &str, params: Value) -> Reply {
        self.draft(method, &params).send().await
    }

    /// A tool call that is not sent yet.
    pub fn draft_call(&self, tool: &str, arguments: &Value) -> Draft {
        self.draft("tools/call", &json!({ "name": tool, "arguments": arguments }))
    }

    /// Calls a tool.
    pub async fn call(&self, tool: &str, arguments: Value) -> Reply {
        self.draft_call(tool, &arguments).send().await
    }

    /// Sends a notification.
    pub async fn notify(&self, method: &str, params: Value) -> Reply {
        self.message(json!({ "jsonrpc": "2.0", "method": method, "params": params })).send().await
    }

    /// Answers a question of the server: with `result`, or with `error`.
    pub async fn answer(&self, question: &Value, kind: &str, value: Value) -> Reply {
        let mut body = json!({ "jsonrpc": "2.0", "id": question["id"] });
        body[kind] = value;
        self.message(body).send().await
    }

    /// A GET for what came after an event.
    pub fn draft_resume(&self, last: &str) -> Draft {
        self.draft_get().header("last-event-id", last)
    }

    /// A GET of the session's stream.
    pub fn draft_get(&self) -> Draft {
        let draft = Draft::new(&self.http, Method::GET, self.url.clone());
        self.dress(draft).header("accept", "text/event-stream")
    }

    /// A GET of the session's stream, as bytes of HTTP/1.1.
    pub fn raw_get(&self) -> String {
        format!(
            "GET /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nmcp-session-id: {}\r\n\
             mcp-protocol-version: {}\r\naccept: text/event-stream\r\n\r\n",
            self.token, self.id, self.revision
        )
    }

    /// Opens the session's stream.
    pub async fn stream(&self) -> Events {
        self.draft_get().stream().await
    }

    /// A DELETE of the session.
    pub fn draft_delete(&self) -> Draft {
        self.dress(Draft::new(&self.http, Method::DELETE, self.url.clone()))
    }
}

/// A client of 2024-11-05.
pub struct Old {
    /// What the server says.
    pub events: Events,
    /// Where messages go, as the server said.
    pub endpoint: String,
    http: reqwest::Client,
    base: String,
    next: u64,
}

impl Old {
    /// A GET of `/sse`, as it would be sent.
    pub fn hello(gateway: &impl Entrance, path: &str) -> Draft {
        let draft = Draft::new(gateway.http(), Method::GET, format!("{}{path}", gateway.url()));
        draft.header("accept", "text/event-stream")
    }

    /// Connects with this request.
    pub async fn connect(gateway: &impl Entrance, hello: Draft) -> Self {
        let mut events = hello.stream().await;
        let first = events.next().await.expect("the endpoint");
        assert_eq!(first.name, "endpoint");
        let (http, base) = (gateway.http().clone(), gateway.url().to_owned());
        Self { events, endpoint: first.data, http, base, next: 1 }
    }

    /// Connects with an API key and initializes.
    pub async fn open(gateway: &impl Entrance, key: &Key) -> Self {
        let mut old = Self::connect(gateway, Self::hello(gateway, "/sse").bearer(&key.secret)).await;
        assert_eq!(old.post(initialize("2024-11-05")).send().await.status, 202);
        let answer = old.events.message().await;
        assert_eq!(answer["result"]["protocolVersion"], "2024-11-05");
        old
    }

    /// The session's id.
    pub fn id(&self) -> &str {
        self.endpoint.split_once("sessionId=").expect("a session").1
    }

    /// A message to the endpoint, without any credential.
    pub fn post(&self, body: Value) -> Draft {
        Draft::post(&self.http, format!("{}{}", self.base, self.endpoint), body)
    }

    /// A message to the endpoint of another replica.
    pub fn post_at(&self, entrance: &impl Entrance, body: Value) -> Draft {
        Draft::post(entrance.http(), format!("{}{}", entrance.url(), self.endpoint), body)
    }

    /// Sends a request and returns its id.
    pub async fn start(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next;
        self.next += 1;
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        assert_eq!(self.post(body).send().await.status, 202);
        id
    }

    /// Sends a request and waits for its answer, which must come next.
    pub async fn send(&mut self, method: &str, params: Value) -> Value {
        let id = self.start(method, params).await;
        let answer = self.events.message().await;
        assert_eq!(answer["id"], id);
        answer
    }
}

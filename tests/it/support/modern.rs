//! A client of 2026-07-28: no session, every request describes itself.

use serde_json::{Value, json};

use super::door::Entrance;
use super::{Draft, Events, Key, Reply};

/// The newest revision.
pub const VERSION: &str = "2026-07-28";
/// The key of the version in `_meta`, as a step of a JSON pointer.
pub const META_VERSION: &str = "/params/_meta/io.modelcontextprotocol~1protocolVersion";
/// The key of the client's capabilities in `_meta`, as a step of a JSON pointer.
pub const META_CAPABILITIES: &str = "/params/_meta/io.modelcontextprotocol~1clientCapabilities";

/// A client with one credential.
#[derive(Clone)]
pub struct Modern {
    http: reqwest::Client,
    base: String,
    path: String,
    token: String,
    capabilities: Value,
}

impl Modern {
    /// A client that can be asked for forms, at `/mcp`.
    pub fn new(gateway: &impl Entrance, key: &Key) -> Self {
        Self {
            http: gateway.http().clone(),
            base: gateway.url().to_owned(),
            path: "/mcp".to_owned(),
            token: key.secret.clone(),
            capabilities: json!({ "elicitation": { "form": {} } }),
        }
    }

    /// The same client at another URL.
    pub fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// The same client with these capabilities.
    pub fn with_capabilities(mut self, capabilities: Value) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// A request with correct headers and `_meta`.
    pub fn draft(&self, method: &str, mut params: Value) -> Draft {
        let name = ["name", "uri"].into_iter().find_map(|field| params.get(field)).cloned();
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientInfo": { "name": "it", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": self.capabilities,
        });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let draft = Draft::post(&self.http, format!("{}{}", self.base, self.path), body)
            .bearer(&self.token)
            .header("mcp-protocol-version", VERSION)
            .header("mcp-method", method);
        match name.as_ref().and_then(Value::as_str) {
            Some(name) if matches!(method, "tools/call" | "prompts/get" | "resources/read") => {
                draft.header("mcp-name", name)
            }
            _ => draft,
        }
    }

    /// Sends a request.
    pub async fn send(&self, method: &str, params: Value) -> Reply {
        self.draft(method, params).send().await
    }

    /// A tool call that is not sent yet.
    pub fn draft_call(&self, tool: &str, arguments: &Value) -> Draft {
        self.draft("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// Calls a tool.
    pub async fn call(&self, tool: &str, arguments: Value) -> Reply {
        self.draft_call(tool, &arguments).send().await
    }

    /// Opens `subscriptions/listen` and reads the acknowledgement.
    pub async fn listen(&self, notifications: Value) -> (Events, Value) {
        let draft = self.draft("subscriptions/listen", json!({ "notifications": notifications }));
        let mut events = draft.stream().await;
        let acknowledged = events.message().await;
        (events, acknowledged)
    }
}

//! The wire, and the three ways of talking over it.

use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};
use serde_json::{Value, json};

use super::events::EventStream;
use super::message::{Answer, Incoming};
use super::trouble::Trouble;
use crate::egress;
use crate::mcp::revision::Revision;

pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");

/// Sends HTTP requests with the credential.
pub(super) struct Wire {
    client: Client,
    pub(super) url: Url,
    key: Option<HeaderValue>,
    pub(super) limit: Duration,
    last_id: u64,
}

impl Wire {
    pub(super) fn new(url: Url, key: Option<HeaderValue>, limit: Duration) -> Result<Self, Trouble> {
        let client = egress::client(limit).map_err(|e| Trouble::new(e.to_string(), ""))?;
        Ok(Self { client, url, key, limit, last_id: 0 })
    }

    /// Whether requests carry a credential of any kind.
    pub(super) fn has_credential(&self) -> bool {
        self.key.is_some() || self.url.query().is_some()
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Trouble> {
        let request = match &self.key {
            Some(key) => request.header(AUTHORIZATION, key.clone()),
            None => request,
        };
        request.send().await.map_err(|e| Trouble::transport(e, self.limit))
    }

    pub(super) async fn get(&self, headers: HeaderMap) -> Result<Response, Trouble> {
        self.send(self.client.get(self.url.clone()).headers(headers)).await
    }

    pub(super) async fn delete(&self, headers: HeaderMap) -> Result<Response, Trouble> {
        self.send(self.client.delete(self.url.clone()).headers(headers)).await
    }

    pub(super) async fn post(
        &self,
        url: &Url,
        mut headers: HeaderMap,
        message: &Value,
    ) -> Result<Response, Trouble> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        self.send(self.client.post(url.clone()).headers(headers).body(message.to_string())).await
    }

    /// Sends a request to the URL and reads the answer of the same HTTP exchange.
    pub(super) async fn ask(
        &mut self,
        headers: HeaderMap,
        method: &str,
        params: &Value,
    ) -> Result<Answer, Trouble> {
        let (id, message) = self.request(method, params);
        let response = self.post(&self.url, headers, &message).await?;
        Answer::read(response, id, self.limit).await
    }

    fn request(&mut self, method: &str, params: &Value) -> (u64, Value) {
        self.last_id += 1;
        let id = self.last_id;
        (id, json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
    }
}

/// How requests reach the server after the handshake. There is one per run.
#[expect(clippy::large_enum_variant, reason = "one value, never moved in a hot path")]
pub(super) enum Link {
    /// 2026-07-28: each request says everything itself.
    Modern,
    /// Streamable HTTP of the legacy era.
    Streamable {
        /// `Mcp-Session-Id`, if the server gave one.
        session: Option<HeaderValue>,
        /// The negotiated revision.
        revision: Revision,
    },
    /// HTTP+SSE.
    Sse {
        /// Where answers come from.
        stream: EventStream,
        /// Where messages go.
        endpoint: Url,
    },
}

impl Link {
    /// The revision that is spoken.
    pub(super) fn transport(&self) -> &'static str {
        match self {
            Self::Modern => "stateless HTTP",
            Self::Streamable { .. } => "Streamable HTTP",
            Self::Sse { .. } => "HTTP+SSE",
        }
    }

    /// Sends a request and waits for its result. `mirrored` are headers that a modern request repeats of its body.
    pub(super) async fn ask(
        &mut self,
        wire: &mut Wire,
        method: &'static str,
        mut params: Value,
        mirrored: HeaderMap,
    ) -> Result<Value, Trouble> {
        let sent_credential = wire.has_credential();
        match self {
            Self::Modern => {
                let mut headers = modern_headers(method);
                headers.extend(mirrored);
                params["_meta"] = modern_meta();
                wire.ask(headers, method, &params).await?.result(sent_credential)
            }
            Self::Streamable { session, revision } => {
                let headers = session_headers(session.as_ref(), *revision);
                wire.ask(headers, method, &params).await?.result(sent_credential)
            }
            Self::Sse { stream, endpoint } => {
                let (id, message) = wire.request(method, &params);
                let response = wire.post(endpoint, HeaderMap::new(), &message).await?;
                if !response.status().is_success() {
                    return Answer::read(response, id, wire.limit).await?.result(sent_credential);
                }
                match stream.answer(id).await? {
                    Incoming::Result(result) => Ok(result),
                    Incoming::Error { code, message, .. } => {
                        Err(Trouble::new(format!("the server says: {message} ({code})"), ""))
                    }
                }
            }
        }
    }

    /// `notifications/initialized`.
    pub(super) async fn initialized(&self, wire: &Wire) -> Result<(), Trouble> {
        let message = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let response = match self {
            Self::Modern => return Ok(()),
            Self::Streamable { session, revision } => {
                wire.post(&wire.url, session_headers(session.as_ref(), *revision), &message).await?
            }
            Self::Sse { endpoint, .. } => wire.post(endpoint, HeaderMap::new(), &message).await?,
        };
        if response.status().is_success() {
            return Ok(());
        }
        // No request has the id 0, so only an error without an id is taken for an answer.
        Answer::read(response, 0, wire.limit).await?.result(wire.has_credential()).map(|_| ())
    }

    /// Whether there is a session to end with DELETE.
    pub(super) fn has_session(&self) -> bool {
        matches!(self, Self::Streamable { session: Some(_), .. })
    }

    /// DELETE. A server that does not let its clients end sessions says 405 (2025-11-25 "Session Management").
    pub(super) async fn end(&self, wire: &Wire) -> Result<&'static str, Trouble> {
        let Self::Streamable { session, revision } = self else { return Ok("") };
        let response = wire.delete(session_headers(session.as_ref(), *revision)).await?;
        match response.status() {
            status if status.is_success() => Ok("session ended"),
            http::StatusCode::METHOD_NOT_ALLOWED => Ok("the server ends sessions itself"),
            _ => Answer::read(response, 0, wire.limit).await?.result(wire.has_credential()).map(|_| ""),
        }
    }
}

/// The headers of every modern request (2026-07-28 "Request Metadata").
pub(super) fn modern_headers(method: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(VERSION, HeaderValue::from_static(Revision::V2026_07_28.name()));
    headers.insert(METHOD, HeaderValue::from_static(method));
    headers
}

/// The `_meta` of every modern request (2026-07-28 "Base Protocol: `_meta`").
pub(super) fn modern_meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": Revision::V2026_07_28.name(),
        "io.modelcontextprotocol/clientInfo": client_info(),
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// Who asks.
pub(super) fn client_info() -> Value {
    json!({ "name": "weir-probe", "version": env!("CARGO_PKG_VERSION") })
}

fn session_headers(session: Option<&HeaderValue>, revision: Revision) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(session) = session {
        headers.insert(SESSION, session.clone());
    }
    headers.insert(VERSION, HeaderValue::from_static(revision.name()));
    headers
}

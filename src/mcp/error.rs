//! JSON-RPC errors and the HTTP status that each travels with.

use std::borrow::Cow;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::revision::Revision;

/// Codes. Those below −32000 are the specifications'; ours stand outside −32768…−32000, as MCP 2026-07-28
/// "Base Protocol: Error Codes" asks.
pub mod code {
    /// Not JSON.
    pub const PARSE: i64 = -32700;
    /// Not a JSON-RPC message.
    pub const INVALID_REQUEST: i64 = -32600;
    /// No such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// Wrong parameters; also unknown tools, prompts and resources.
    pub const INVALID_PARAMS: i64 = -32602;
    /// Our fault.
    pub const INTERNAL: i64 = -32603;
    /// Resource not found, in revisions up to 2025-11-25 only.
    pub const LEGACY_RESOURCE_NOT_FOUND: i64 = -32002;
    /// HTTP headers and body disagree (2026-07-28).
    pub const HEADER_MISMATCH: i64 = -32020;
    /// The call needs a capability that the client did not declare (2026-07-28).
    pub const MISSING_CAPABILITY: i64 = -32021;
    /// The protocol version is not served (2026-07-28).
    pub const UNSUPPORTED_VERSION: i64 = -32022;
    /// A rate or concurrency limit; `data.retryAfterMs` says when to come back.
    pub const LIMITED: i64 = -31001;
    /// No good credential.
    pub const UNAUTHENTICATED: i64 = -31002;
    /// The tenant is suspended.
    pub const SUSPENDED: i64 = -31003;
    /// No such session (any more); initialize again.
    pub const SESSION_NOT_FOUND: i64 = -31004;
    /// The tool did not answer in time.
    pub const TIMEOUT: i64 = -31005;
    /// A dependency is not available; the call may be repeated.
    pub const UNAVAILABLE: i64 = -31006;
    /// What the client comes back for is no longer kept.
    pub const GONE: i64 = -31008;
    /// The HTTP request itself is not acceptable (method, media type, size, origin).
    pub const HTTP: i64 = -31007;
}

/// A JSON-RPC error on its way out.
#[derive(Debug)]
pub struct RpcError {
    /// The JSON-RPC code.
    pub code: i64,
    /// One sentence for whoever reads it; never internals.
    pub message: Cow<'static, str>,
    /// The `data` member.
    pub data: Option<Box<RawValue>>,
    /// The HTTP status that the response has where it is not part of a stream.
    pub status: u16,
    /// Seconds for `Retry-After`, where coming back makes sense.
    pub retry_after: Option<u32>,
    /// The size of the limit that was reached, for `RateLimit-Limit`.
    pub limit: Option<u32>,
}

impl RpcError {
    /// An error of this code, HTTP status and text.
    #[must_use]
    pub fn new(code: i64, status: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), data: None, status, retry_after: None, limit: None }
    }

    /// The same error with a `data` member.
    #[must_use]
    pub fn with_data(mut self, data: &Value) -> Self {
        self.data = RawValue::from_string(data.to_string()).ok();
        self
    }

    /// −32700, HTTP 400.
    #[must_use]
    pub fn parse(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code::PARSE, 400, message)
    }

    /// −32600, HTTP 400.
    #[must_use]
    pub fn invalid_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code::INVALID_REQUEST, 400, message)
    }

    /// −32602, HTTP 200: the request was well-formed, its parameters were not.
    #[must_use]
    pub fn invalid_params(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code::INVALID_PARAMS, 200, message)
    }

    /// −32601. Modern: HTTP 404 (2026-07-28 "Streamable HTTP: Protocol Version Header"); legacy: HTTP 200.
    #[must_use]
    pub fn method_not_found(method: &str, revision: Revision) -> Self {
        let status = if revision.is_modern() { 404 } else { 200 };
        let shown: String = method.chars().filter(|c| !c.is_control()).take(64).collect();
        Self::new(code::METHOD_NOT_FOUND, status, format!("method not found: {shown}"))
    }

    /// −32603 with the id under which the log knows the cause.
    #[must_use]
    pub fn internal(correlation: &impl std::fmt::Display) -> Self {
        let text = format!("internal error; quote {correlation} when you report it");
        Self::new(code::INTERNAL, 200, text).with_data(&json!({ "correlationId": correlation.to_string() }))
    }

    /// −32020, HTTP 400 (2026-07-28 "Streamable HTTP: Server Validation").
    #[must_use]
    pub fn header_mismatch(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code::HEADER_MISMATCH, 400, message)
    }

    /// −32022, HTTP 400, with the versions that are served (2026-07-28 "Protocol Version Negotiation").
    #[must_use]
    pub fn unsupported_version(requested: &str) -> Self {
        let requested: String = requested.chars().take(64).collect();
        Self::new(code::UNSUPPORTED_VERSION, 400, "Unsupported protocol version")
            .with_data(&json!({ "supported": Revision::NAMES, "requested": requested }))
    }

    /// −32021, HTTP 400, naming the capabilities (2026-07-28 "Base Protocol: `_meta`").
    #[must_use]
    pub fn missing_capability(required: &Value) -> Self {
        // Several agents show their model the message and nothing else.
        let text = format!("the client did not declare a capability that this call needs: {required}");
        Self::new(code::MISSING_CAPABILITY, 400, text).with_data(&json!({ "requiredCapabilities": required }))
    }

    /// No such session, HTTP 404: the client must initialize again (2025-11-25 "Session Management").
    #[must_use]
    pub fn session_not_found() -> Self {
        Self::new(code::SESSION_NOT_FOUND, 404, "session not found; send `initialize` to open a new one")
    }

    /// A dependency does not answer, HTTP 503.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::away("credentials cannot be checked right now; try again")
    }

    /// The same in other words.
    #[must_use]
    pub fn away(message: &'static str) -> Self {
        let mut error = Self::new(code::UNAVAILABLE, 503, message);
        error.retry_after = Some(1);
        error
    }

    /// What a call needs is not available: −31006 with the id under which the log knows the cause.
    #[must_use]
    pub fn call_unavailable(correlation: &impl std::fmt::Display) -> Self {
        let text = format!("what this needs is not available right now; try again (quote {correlation})");
        let mut error = Self::new(code::UNAVAILABLE, 200, text)
            .with_data(&json!({ "correlationId": correlation.to_string(), "retryable": true }));
        error.retry_after = Some(1);
        error
    }

    /// The `error` member as JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let message = Value::from(self.message.as_ref());
        match &self.data {
            Some(data) => format!("{{\"code\":{},\"message\":{message},\"data\":{data}}}", self.code),
            None => format!("{{\"code\":{},\"message\":{message}}}", self.code),
        }
    }
}

//! A request as the core sees it: self-describing, whatever the era that it came in.
//!
//! `params` is looked into once, here: the fields that some decision needs are picked out as slices of the body,
//! everything else stays bytes.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error::RpcError;
use super::jsonrpc::RequestId;
use super::revision::Revision;

/// Longest URI of a resource, in bytes. Subscriptions keep theirs.
pub const MAX_URI: usize = 2048;

/// Severity of a log message, least first (RFC 5424 section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are RFC 5424's")]
pub enum LogLevel {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl LogLevel {
    /// The level of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        serde_json::from_value(Value::from(name)).ok()
    }
}

/// What a client can be asked for (`ClientCapabilities` of the schema), as far as the core has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// `elicitation` in form mode.
    pub elicitation_form: bool,
    /// `elicitation` in URL mode.
    pub elicitation_url: bool,
    /// `sampling`.
    pub sampling: bool,
    /// `sampling` with tools.
    pub sampling_tools: bool,
    /// `roots`.
    pub roots: bool,
}

impl Capabilities {
    /// From the JSON object that the client sent. An `elicitation` object without a mode means forms
    /// (2025-11-25 "Elicitation: Capabilities").
    ///
    /// # Errors
    /// −32602 where it is not an object.
    pub fn parse(raw: &[u8]) -> Result<Self, RpcError> {
        #[derive(Deserialize)]
        struct Wire {
            elicitation: Option<Elicitation>,
            sampling: Option<Sampling>,
            roots: Option<Value>,
        }
        #[derive(Deserialize)]
        struct Elicitation {
            form: Option<Value>,
            url: Option<Value>,
        }
        #[derive(Deserialize)]
        struct Sampling {
            tools: Option<Value>,
        }
        let wire: Wire = serde_json::from_slice(raw)
            .map_err(|_| RpcError::invalid_params("client capabilities must be an object of objects"))?;
        let (form, url) = wire
            .elicitation
            .map_or((false, false), |e| (e.form.is_some() || e.url.is_none(), e.url.is_some()));
        Ok(Self {
            elicitation_form: form,
            elicitation_url: url,
            sampling: wire.sampling.is_some(),
            sampling_tools: wire.sampling.is_some_and(|sampling| sampling.tools.is_some()),
            roots: wire.roots.is_some(),
        })
    }

    /// One bit per capability.
    #[must_use]
    pub fn to_bits(self) -> u8 {
        let all =
            [self.elicitation_form, self.elicitation_url, self.sampling, self.sampling_tools, self.roots];
        all.iter().enumerate().map(|(place, on)| u8::from(*on) << place).sum()
    }

    /// The capabilities of these [bits](Self::to_bits).
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        let on = |place: u8| bits & (1 << place) != 0;
        Self {
            elicitation_form: on(0),
            elicitation_url: on(1),
            sampling: on(2),
            sampling_tools: on(3),
            roots: on(4),
        }
    }

    /// The capability that a server request of this method and params needs, if this client lacks it.
    #[must_use]
    pub fn missing_for(self, method: &str, params: &Value) -> Option<Value> {
        let with_tools =
            ["tools", "toolChoice"].iter().any(|name| params.get(name).is_some_and(|v| !v.is_null()));
        let url_mode = params.get("mode").and_then(Value::as_str) == Some("url");
        match method {
            "elicitation/create" if url_mode => {
                (!self.elicitation_url).then(|| json!({ "elicitation": { "url": {} } }))
            }
            "elicitation/create" => {
                (!self.elicitation_form).then(|| json!({ "elicitation": { "form": {} } }))
            }
            // 2025-11-25 "Sampling: Capabilities": no tools for clients that did not say that they can use them.
            "sampling/createMessage" if with_tools && !self.sampling_tools => {
                Some(json!({ "sampling": { "tools": {} } }))
            }
            "sampling/createMessage" => (!self.sampling).then(|| json!({ "sampling": {} })),
            "roots/list" => (!self.roots).then(|| json!({ "roots": {} })),
            _ => None,
        }
    }
}

/// `params._meta`, as far as the protocol defines it.
#[derive(Debug, Default)]
pub struct Meta {
    /// `io.modelcontextprotocol/protocolVersion`: its presence makes a request a modern one.
    pub protocol_version: Option<String>,
    /// `io.modelcontextprotocol/clientInfo`, raw.
    pub client_info: Option<Bytes>,
    /// `io.modelcontextprotocol/clientCapabilities`, raw.
    pub client_capabilities: Option<Bytes>,
    /// `io.modelcontextprotocol/logLevel`, not yet checked.
    pub log_level: Option<String>,
    /// `progressToken`, raw: a string or an integer.
    pub progress_token: Option<Bytes>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
    /// `tracestate` (W3C Trace Context).
    pub tracestate: Option<String>,
    /// `dev.weir/idempotencyKey`, or the `Idempotency-Key` header.
    pub idempotency_key: Option<String>,
}

/// The fields of `params` that decisions need.
#[derive(Debug, Default)]
pub struct Params {
    /// All of it, as it came.
    pub raw: Option<Bytes>,
    /// `_meta`.
    pub meta: Meta,
    /// `name` of a tool or prompt.
    pub name: Option<String>,
    /// `uri` of a resource.
    pub uri: Option<String>,
    /// `cursor` of a list.
    pub cursor: Option<String>,
    /// `arguments`, raw.
    pub arguments: Option<Bytes>,
    /// `inputResponses`, raw (2026-07-28 "Multi Round-Trip Requests").
    pub input_responses: Option<Bytes>,
    /// `requestState`.
    pub request_state: Option<String>,
}

#[derive(Deserialize)]
struct ParamsWire<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    uri: Option<Cow<'a, str>>,
    #[serde(borrow)]
    cursor: Option<Cow<'a, str>>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, rename = "inputResponses")]
    input_responses: Option<&'a RawValue>,
    #[serde(borrow, rename = "requestState")]
    request_state: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct MetaWire<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    protocol_version: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "io.modelcontextprotocol/clientInfo")]
    client_info: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/clientCapabilities")]
    client_capabilities: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/logLevel")]
    log_level: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "progressToken")]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tracestate: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "dev.weir/idempotencyKey")]
    idempotency_key: Option<Cow<'a, str>>,
}

/// What serde says of a wrong field, without its own position (which is relative to a fragment).
fn describe(place: &str, error: &serde_json::Error) -> RpcError {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or("wrong type").to_owned();
    RpcError::invalid_params(format!("{place}: {text}"))
}

impl Params {
    /// Picks the fields out of a `params` object.
    ///
    /// # Errors
    /// −32602 where a field has the wrong type.
    pub fn parse(raw: Option<Bytes>) -> Result<Self, RpcError> {
        let Some(raw) = raw else { return Ok(Self::default()) };
        let wire: ParamsWire<'_> = serde_json::from_slice(&raw).map_err(|e| describe("params", &e))?;
        let slice = |part: &RawValue| raw.slice_ref(part.get().as_bytes());
        if wire.arguments.is_some_and(|a| !a.get().starts_with('{')) {
            return Err(RpcError::invalid_params("params.arguments must be an object"));
        }
        if wire.input_responses.is_some_and(|a| !a.get().starts_with('{')) {
            return Err(RpcError::invalid_params("params.inputResponses must be an object"));
        }
        if wire.uri.as_ref().is_some_and(|uri| uri.len() > MAX_URI) {
            return Err(RpcError::invalid_params(format!("params.uri is longer than {MAX_URI} bytes")));
        }
        let meta = wire.meta.map(|m| Meta::parse(&slice(m))).transpose()?.unwrap_or_default();
        Ok(Self {
            meta,
            name: wire.name.map(Cow::into_owned),
            uri: wire.uri.map(Cow::into_owned),
            cursor: wire.cursor.map(Cow::into_owned),
            arguments: wire.arguments.map(slice),
            input_responses: wire.input_responses.map(slice),
            request_state: wire.request_state.map(Cow::into_owned),
            raw: Some(raw),
        })
    }

    /// Reads all of `params` as a type of the method's own.
    ///
    /// # Errors
    /// −32602 where it does not fit.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, RpcError> {
        serde_json::from_slice(self.raw.as_deref().unwrap_or(b"{}")).map_err(|e| describe("params", &e))
    }
}

impl Meta {
    fn parse(raw: &Bytes) -> Result<Self, RpcError> {
        let wire: MetaWire<'_> = serde_json::from_slice(raw).map_err(|e| describe("params._meta", &e))?;
        let slice = |part: &RawValue| raw.slice_ref(part.get().as_bytes());
        let progress_token = wire.progress_token.map(slice);
        if let Some(token) = &progress_token {
            let good = token.starts_with(b"\"")
                || token.iter().enumerate().all(|(i, b)| b.is_ascii_digit() || (i == 0 && *b == b'-'));
            if !good || token.len() > RequestId::MAX_LEN {
                return Err(RpcError::invalid_params(
                    "params._meta.progressToken must be a string or an integer of at most 1024 bytes",
                ));
            }
        }
        Ok(Self {
            protocol_version: wire.protocol_version.map(Cow::into_owned),
            client_info: wire.client_info.map(slice),
            client_capabilities: wire.client_capabilities.map(slice),
            log_level: wire.log_level.map(Cow::into_owned),
            progress_token,
            traceparent: wire.traceparent.map(Cow::into_owned),
            tracestate: wire.tracestate.map(Cow::into_owned),
            idempotency_key: wire.idempotency_key.map(Cow::into_owned),
        })
    }
}

/// A self-describing request: what every transport hands to the core.
#[derive(Debug)]
pub struct Request {
    /// Echoed in the answer.
    pub id: RequestId,
    /// The method's name.
    pub method: Box<str>,
    /// Its parameters.
    pub params: Params,
    /// The revision that the answer must speak.
    pub revision: Revision,
    /// What the client can be asked for.
    pub capabilities: Capabilities,
    /// The least severity of log messages that the client wants for this request; `None`: it wants none.
    pub log_level: Option<LogLevel>,
}

#[cfg(test)]
mod fuzz;

//! The JSON-RPC envelope: parsed once, with everything below `params` left as raw bytes.
//!
//! <https://www.jsonrpc.org/specification>, as MCP narrows it ("Base Protocol: Messages" of each revision): an id is
//! a string or an integer, of any size, and is kept as the text that the peer sent; `params` is an object.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error::RpcError;
use crate::id::{QuestionId, ReplicaId};

/// A request id, as the JSON text that the peer sent: a string with its quotes, or an integer of any size.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// Longest id that is accepted, in bytes of JSON text. It is held for every request in flight.
    pub const MAX_LEN: usize = 1024;

    /// From JSON text.
    ///
    /// # Errors
    /// −32600 where the text is neither a string nor an integer, or is too long.
    pub fn parse(raw: &str) -> Result<Self, RpcError> {
        if raw.len() > Self::MAX_LEN {
            return Err(RpcError::invalid_request("`id` is longer than 1024 bytes"));
        }
        let integer = raw.strip_prefix('-').unwrap_or(raw);
        let is_integer = !integer.is_empty() && integer.bytes().all(|b| b.is_ascii_digit());
        if raw.starts_with('"') || is_integer {
            return Ok(Self(raw.into()));
        }
        Err(RpcError::invalid_request("`id` must be a string or an integer"))
    }

    /// An integer id of our own.
    #[must_use]
    pub fn integer(value: u64) -> Self {
        Self(value.to_string().into())
    }

    /// The id of a question of ours, with the number of the replica that waits for the answer, where there are several.
    #[must_use]
    pub fn question(id: QuestionId, replica: Option<ReplicaId>) -> Self {
        match replica {
            None => Self(format!("\"{id}\"").into()),
            Some(replica) => Self(format!("\"{id}.{}\"", replica.number()).into()),
        }
    }

    /// The number of the replica that waits for the answer, if this is such an id.
    #[must_use]
    pub fn asker(&self) -> Option<u32> {
        let (id, number) = self.0.trim_matches('"').split_once('.')?;
        id.parse::<QuestionId>().ok()?;
        number.parse().ok()
    }

    /// The id as JSON text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// The id in a field of its own, as `notifications/cancelled` carries it.
    ///
    /// # Errors
    /// Where the text is neither a string nor an integer.
    pub fn from_json(raw: &RawValue) -> Result<Self, RpcError> {
        Self::parse(raw.get())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One parsed message. `params`, `result` and `error` are slices of the body that it came in.
#[derive(Debug)]
pub enum Message {
    /// Wants an answer.
    Request {
        /// Echoed in the answer.
        id: RequestId,
        /// The method's name.
        method: Box<str>,
        /// The `params` object, if there is one.
        params: Option<Bytes>,
    },
    /// Wants no answer.
    Notification {
        /// The method's name.
        method: Box<str>,
        /// The `params` object, if there is one.
        params: Option<Bytes>,
    },
    /// The answer to a request of ours.
    Response {
        /// The id of our request.
        id: RequestId,
        /// `result` as raw JSON, or `error` as raw JSON.
        outcome: Result<Bytes, Bytes>,
    },
}

/// A message that could not be read, with its id where that much could be.
#[derive(Debug)]
pub struct Malformed {
    /// The id to answer with, if it was readable.
    pub id: Option<RequestId>,
    /// What is wrong.
    pub error: RpcError,
}

impl From<RpcError> for Malformed {
    fn from(error: RpcError) -> Self {
        Self { id: None, error }
    }
}

/// A body: one message, or a batch of them (2025-03-26 only).
#[derive(Debug)]
pub enum Body {
    /// One message.
    Single(Message),
    /// A JSON-RPC batch; each element is read on its own.
    Batch(Vec<Result<Message, Malformed>>),
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// A field that is there, even as `null`: plain `Option` would take `"id": null` for no id at all.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a request body.
///
/// # Errors
/// −32700 where it is not JSON in UTF-8 or is nested deeper than `max_depth`, −32600 where it is JSON but no
/// JSON-RPC 2.0 message.
pub fn parse(body: &Bytes, max_depth: usize, max_batch: usize) -> Result<Body, Malformed> {
    let text = std::str::from_utf8(body).map_err(|_| RpcError::parse("the body is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if too_deep(text.as_bytes(), max_depth) {
        return Err(RpcError::parse(format!("the body is nested deeper than {max_depth} levels")).into());
    }
    if !text.trim_start().starts_with('[') {
        return message(body, text).map(Body::Single);
    }
    let parts: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| unreadable(&e))?;
    if parts.is_empty() || parts.len() > max_batch {
        return Err(RpcError::invalid_request(format!(
            "a batch holds 1 to {max_batch} messages, this one {}",
            parts.len()
        ))
        .into());
    }
    Ok(Body::Batch(parts.into_iter().map(|part| message(body, part.get())).collect()))
}

fn unreadable(error: &serde_json::Error) -> RpcError {
    match error.classify() {
        serde_json::error::Category::Data => {
            RpcError::invalid_request("the body is not a JSON-RPC 2.0 message object")
        }
        _ => RpcError::parse(format!(
            "the body is not JSON (line {}, column {})",
            error.line(),
            error.column()
        )),
    }
}

fn message(body: &Bytes, text: &str) -> Result<Message, Malformed> {
    let wire: Wire<'_> = serde_json::from_str(text).map_err(|e| unreadable(&e))?;
    let id = wire.id.map(|raw| RequestId::parse(raw.get())).transpose()?;
    let fail = |id: &Option<RequestId>, text: &'static str| Malformed {
        id: id.clone(),
        error: RpcError::invalid_request(text),
    };
    if wire.jsonrpc.is_none_or(|v| v.get() != "\"2.0\"") {
        return Err(fail(&id, "`jsonrpc` must be \"2.0\""));
    }
    let slice = |raw: &RawValue| body.slice_ref(raw.get().as_bytes());
    let Some(method) = wire.method else {
        let outcome = match (wire.result, wire.error) {
            (Some(result), None) => Ok(slice(result)),
            (None, Some(error)) => Err(slice(error)),
            _ => return Err(fail(&id, "a message has a `method`, or either `result` or `error`")),
        };
        let Some(id) = id else { return Err(fail(&id, "a response has an `id`")) };
        return Ok(Message::Response { id, outcome });
    };
    let Ok(method) = serde_json::from_str::<Cow<'_, str>>(method.get()) else {
        return Err(fail(&id, "`method` must be a string"));
    };
    let method = Box::from(method.as_ref());
    if let Some(params) = wire.params
        && !params.get().starts_with('{')
    {
        return Err(Malformed { id, error: RpcError::invalid_params("`params` must be an object") });
    }
    let params = wire.params.map(slice);
    Ok(match id {
        Some(id) => Message::Request { id, method, params },
        None => Message::Notification { method, params },
    })
}

/// Whether brackets nest deeper than `limit`. serde_json skips raw values without a recursion limit of its own, so
/// this stands before every later parser.
fn too_deep(text: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The text of a successful response around an already serialised result.
#[must_use]
pub fn response(id: &RequestId, result: &str) -> String {
    let mut out = String::with_capacity(40 + id.0.len() + result.len());
    out.push_str("{\"jsonrpc\":\"2.0\",\"id\":");
    out.push_str(&id.0);
    out.push_str(",\"result\":");
    out.push_str(result);
    out.push('}');
    out
}

/// The text of an error response. Where no id could be read it is `null`, as JSON-RPC 2.0 section 5 says.
#[must_use]
pub fn error_response(id: Option<&RequestId>, error: &RpcError) -> String {
    let body = error.to_json();
    let id = id.map_or("null", RequestId::as_json);
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{body}}}")
}

/// The text of an error response to nothing in particular, which 2026-07-28 writes without an `id` member
/// ("Base Protocol: Error Responses").
#[must_use]
pub fn error_without_id(error: &RpcError) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"error\":{}}}", error.to_json())
}

/// The text of a request around already serialised params.
#[must_use]
pub fn request(id: &RequestId, method: &str, params: &str) -> String {
    let method = serde_json::Value::from(method);
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":{method},\"params\":{params}}}", id.0)
}

/// The text of a notification around already serialised params.
#[must_use]
pub fn notification(method: &str, params: Option<&str>) -> String {
    match params {
        Some(params) => format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{params}}}"),
        None => format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\"}}"),
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Body, Malformed> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), 8, 3)
    }

    fn code(text: &str) -> i64 {
        match read(text) {
            Err(e) => e.error.code,
            Ok(Body::Batch(parts)) => {
                parts.into_iter().find_map(|p| p.err()).map_or(0, |malformed| malformed.error.code)
            }
            Ok(Body::Single(_)) => 0,
        }
    }

    #[test]
    fn ids_of_any_size_come_back_as_they_were() {
        for id in ["1", "-7", "123456789012345678901234567890", "\"a\\u00e9\"", "\"\""] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
            match read(&body) {
                Ok(Body::Single(Message::Request { id: got, .. })) => assert_eq!(got.as_json(), id),
                other => panic!("{id}: {other:?}"),
            }
        }
    }

    #[test]
    fn bad_messages_have_the_codes_of_the_specification() {
        for (text, want) in [
            ("", -32700),
            ("{", -32700),
            ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"} x", -32700),
            ("\"ping\"", -32600),
            ("{}", -32600),
            (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#, -32602),
            ("[]", -32600),
            ("[1,2,3,4]", -32600),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},7]"#, -32600),
            ("[[[[[[[[[1]]]]]]]]]", -32700),
        ] {
            assert_eq!(code(text), want, "{text}");
        }
    }

    #[test]
    fn depth_ignores_brackets_in_strings() {
        assert!(!too_deep(br#"{"a":"[[[[[[\"[[[[[["}"#, 2));
        assert!(too_deep(br#"{"a":[{"b":1}]}"#, 2));
    }
}

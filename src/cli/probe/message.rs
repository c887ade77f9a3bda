//! Answers: JSON or an event stream, within 4 MiB, down to the result or the error of one JSON-RPC response.

use std::time::Duration;

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode};
use reqwest::Response;
use serde_json::Value;

use super::events::EventStream;
use super::trouble::Trouble;

/// Largest body, and most of a stream that is read for one answer, in bytes.
pub(super) const MAX_BODY: usize = 4 * 1024 * 1024;

pub(super) fn too_large() -> Trouble {
    Trouble::protocol(format!("the answer is larger than {MAX_BODY} bytes"))
}

/// What a JSON-RPC response says.
#[derive(Debug)]
pub(super) enum Incoming {
    /// `result`.
    Result(Value),
    /// `error`.
    Error {
        /// Its code.
        code: i64,
        /// Its message.
        message: String,
        /// Its data, or null.
        data: Value,
    },
}

impl Incoming {
    /// The response to the request of this id, if `message` is one. Errors without an id belong to what was sent, too.
    pub(super) fn to(id: u64, mut message: Value) -> Option<Self> {
        let same = match message.get("id") {
            None | Some(Value::Null) => message.get("error").is_some(),
            Some(other) => other.as_u64() == Some(id),
        };
        if !same || message.get("method").is_some() || message.get("jsonrpc") != Some(&"2.0".into()) {
            return None;
        }
        if let Some(result) = message.get_mut("result") {
            return Some(Self::Result(result.take()));
        }
        let error = message.get_mut("error")?;
        Some(Self::Error {
            code: error.get("code")?.as_i64()?,
            message: error.get("message").and_then(Value::as_str).unwrap_or("").to_owned(),
            data: error.get_mut("data").map(Value::take).unwrap_or_default(),
        })
    }
}

/// The answer to one request over HTTP.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// `Mcp-Session-Id`.
    pub(super) session: Option<HeaderValue>,
    /// What it says as JSON-RPC; where it says nothing in JSON-RPC, its text.
    pub(super) said: Result<Incoming, String>,
}

impl Answer {
    /// Reads the answer to the request of this id.
    ///
    /// # Errors
    /// Where it breaks off, is too large, or is a success that is not MCP.
    pub(super) async fn read(response: Response, id: u64, limit: Duration) -> Result<Self, Trouble> {
        let status = response.status();
        let session = response.headers().get("mcp-session-id").cloned();
        let kind = kind(&response);
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or("nowhere");
            let to = to.split(['?', '#']).next().unwrap_or("");
            return Ok(Self { status, session, said: Err(format!("redirects to {to}")) });
        }
        if kind == "text/event-stream" {
            let said = Ok(EventStream::new(response, limit).answer(id).await?);
            return Ok(Self { status, session, said });
        }
        let body = body(response, limit).await?;
        let message = if kind == "application/json" || !status.is_success() {
            serde_json::from_slice::<Value>(&body).ok()
        } else {
            None
        };
        let said = match message.and_then(|message| Incoming::to(id, message)) {
            Some(incoming) => Ok(incoming),
            None if status.is_success() => {
                let kind = if kind.is_empty() { "no media type".to_owned() } else { kind };
                let text = format!("HTTP {} with {kind}, which is no answer to the request", status.as_u16());
                return Err(Trouble::protocol(text));
            }
            None => Err(first_words(&kind, &body)),
        };
        Ok(Self { status, session, said })
    }

    /// The result.
    ///
    /// # Errors
    /// For everything else.
    pub(super) fn result(self, sent_credential: bool) -> Result<Value, Trouble> {
        let status = self.status;
        match self.said {
            Ok(Incoming::Result(result)) if status.is_success() => Ok(result),
            Ok(Incoming::Error { code, message, .. }) if status.is_success() => {
                Err(Trouble::new(format!("the server says: {message} ({code})"), ""))
            }
            Ok(Incoming::Error { code, message, .. }) => {
                Err(Trouble::status(status, &format!("{message} ({code})"), sent_credential))
            }
            Ok(Incoming::Result(_)) => Err(Trouble::status(status, "", sent_credential)),
            Err(said) => Err(Trouble::status(status, &said, sent_credential)),
        }
    }
}

/// The media type of a response, in lower case and without parameters.
pub(super) fn kind(response: &Response) -> String {
    let value = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

async fn body(mut response: Response, limit: Duration) -> Result<Vec<u8>, Trouble> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| Trouble::transport(e, limit))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What a body that is not JSON-RPC says, if it is for people to read.
fn first_words(kind: &str, body: &[u8]) -> String {
    if kind == "text/html" {
        return "a page of HTML".to_owned();
    }
    String::from_utf8_lossy(&body[..body.len().min(500)]).trim().to_owned()
}

//! Replies: what came of a request, in the words of its era and the forms of HTTP.

use axum::body::Body;
use axum::response::Response;
use futures_util::stream;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use super::accept::Accepts;
use super::stream::sse;
use crate::app::App;
use crate::limits::Standing;
use crate::mcp::content::ToolResult;
use crate::mcp::error::{RpcError, code};
use crate::mcp::feed;
use crate::mcp::jsonrpc::{self, RequestId};
use crate::mcp::result::{Complete, CoreResult};
use crate::telemetry::labels::Stream;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// In which era's words a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// With `resultType`, cache hints and server info.
    Modern,
    /// The plain result of 2025-11-25 and earlier.
    Legacy,
}

/// What came of a request.
#[derive(Debug)]
pub struct Finished {
    /// The response message; none where the client cancelled the request and expects none.
    pub text: Option<String>,
    /// The HTTP status, where it is not part of a stream.
    pub status: u16,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u32>,
    /// The size of the limit that was reached.
    pub limit: Option<u32>,
}

/// Writes an outcome as a response message.
pub fn render(
    app: &App,
    dialect: Dialect,
    id: &RequestId,
    method: &str,
    outcome: Result<CoreResult, RpcError>,
) -> Finished {
    let outcome = match (dialect, outcome) {
        (Dialect::Legacy, outcome) => legacy_words(method, outcome),
        (Dialect::Modern, outcome) => outcome,
    };
    match outcome {
        Ok(result) => {
            let body = match (dialect, &result) {
                (Dialect::Legacy, CoreResult::Complete(complete)) => complete.to_legacy(),
                _ => result.to_modern(&app.server_info),
            };
            Finished { text: Some(jsonrpc::response(id, &body)), status: 200, retry_after: None, limit: None }
        }
        Err(error) => Finished {
            text: Some(jsonrpc::error_response(Some(id), &error)),
            status: error.status,
            retry_after: error.retry_after,
            limit: error.limit,
        },
    }
}

/// What a legacy client is told instead of a question or −32021, both of which its revision does not know: a business
/// error that its model can read.
fn legacy_words(method: &str, outcome: Result<CoreResult, RpcError>) -> Result<CoreResult, RpcError> {
    let text = match &outcome {
        Ok(CoreResult::InputRequired { requests, .. }) => {
            let asked: Vec<_> = requests.values().filter_map(|r| r.get("method")?.as_str()).collect();
            format!(
                "This call needs an answer from the user ({}), which this connection cannot carry. Use a client that \
                 opens a session and accepts text/event-stream.",
                asked.join(", ")
            )
        }
        Err(error) if error.code == code::MISSING_CAPABILITY => {
            let missing = error.data.as_ref().map_or("", |data| data.get());
            format!("This call needs a client capability that was not declared: {missing}")
        }
        _ => return outcome,
    };
    business_error(method, text)
}

/// A "no" that the client's model can read and act on; where the method has none, an error.
pub fn business_error(method: &str, text: String) -> Result<CoreResult, RpcError> {
    if method != "tools/call" {
        return Err(RpcError::new(code::INVALID_REQUEST, 200, text));
    }
    let result = ToolResult::error(text);
    Ok(Complete::new().field("content", &result.content)?.field("isError", &true)?.into())
}

/// A finished request as one JSON object.
pub fn json_reply(finished: Finished, standing: Option<Standing>) -> Response {
    let status = StatusCode::from_u16(finished.status).unwrap_or(StatusCode::OK);
    let mut response = match finished.text {
        Some(text) => json_body(status, text),
        None => empty(StatusCode::ACCEPTED),
    };
    let headers = response.headers_mut();
    if let Some(seconds) = finished.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let (Some(limit), Some(seconds)) = (finished.limit, finished.retry_after) {
        headers.insert(LIMIT, HeaderValue::from(limit));
        headers.insert(REMAINING, HeaderValue::from(0));
        headers.insert(RESET, HeaderValue::from(seconds));
        return response;
    }
    with_rate(response, standing)
}

/// A finished request in the form that the client can read.
pub fn finished_reply(app: &App, finished: Finished, accepts: Accepts) -> Response {
    match finished.text {
        Some(text) if !accepts.json => {
            sse(app, Stream::Response, stream::iter([feed::frame(None, &text)]), ())
        }
        text => json_reply(Finished { text, ..finished }, None),
    }
}

/// Adds what is left of the caller's rate (`RateLimit-Limit`, `-Remaining`, `-Reset` in requests and seconds).
pub fn with_rate(mut response: Response, standing: Option<Standing>) -> Response {
    if let Some(Standing { limit, remaining, reset }) = standing {
        let headers = response.headers_mut();
        headers.insert(LIMIT, HeaderValue::from(limit));
        headers.insert(REMAINING, HeaderValue::from(remaining));
        headers.insert(RESET, HeaderValue::from(reset.as_secs() + u64::from(reset.subsec_nanos() > 0)));
    }
    response
}

/// A limit that was reached, for a request of this id: HTTP 200 with the JSON-RPC error, and always the headers.
pub fn limited(id: Option<&RequestId>, limited: crate::limits::Limited) -> Response {
    error_response(id, &RpcError::from(limited))
}

/// A JSON-RPC error as a whole response with its own HTTP status.
#[must_use]
pub fn error_response(id: Option<&RequestId>, error: &RpcError) -> Response {
    let finished = Finished {
        text: Some(jsonrpc::error_response(id, error)),
        status: error.status,
        retry_after: error.retry_after,
        limit: error.limit,
    };
    json_reply(finished, None)
}

/// An error that belongs to no request.
#[must_use]
pub fn rpc_error(error: &RpcError) -> Response {
    error_response(None, error)
}

/// An HTTP-level refusal with a JSON-RPC error body, as clients of `/mcp` expect one.
pub fn http_error(status: StatusCode, message: impl Into<std::borrow::Cow<'static, str>>) -> Response {
    rpc_error(
        &RpcError::new(code::HTTP, status.as_u16(), message).with_data(&json!({ "status": status.as_u16() })),
    )
}

/// A JSON body.
pub fn json_body(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// No body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

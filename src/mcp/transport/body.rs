//! Request bodies: bounded in size and time, of the right type, parsed into messages.

use axum::body::Body as HttpBody;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::headers::VERSION;
use super::reply::{error_response, http_error, json_body};
use crate::app::App;
use crate::mcp::error::RpcError;
use crate::mcp::jsonrpc::{self, Body};
use crate::mcp::revision::Revision;

/// Reads and parses a body.
///
/// # Errors
/// The response to send: 415 for another media type, 413 for too much, 408 for too slow, 400 for what is not
/// JSON-RPC.
pub async fn read(app: &App, headers: &HeaderMap, body: HttpBody) -> Result<Body, Response> {
    if !is_json(headers) {
        return Err(http_error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send `Content-Type: application/json`"));
    }
    let server = &app.config.server;
    let bytes = collect(body, server.max_body_bytes, server.body_read_timeout.get()).await?;
    jsonrpc::parse(&bytes, server.max_json_depth, app.config.mcp.max_batch).map_err(|malformed| {
        match &malformed.id {
            None if is_modern(headers) => without_id(&malformed.error),
            id => error_response(id.as_ref(), &malformed.error),
        }
    })
}

async fn collect(body: HttpBody, limit: usize, time: std::time::Duration) -> Result<Bytes, Response> {
    let too_large =
        || http_error(StatusCode::PAYLOAD_TOO_LARGE, format!("a request body holds at most {limit} bytes"));
    if http_body::Body::size_hint(&body).lower() > limit as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(time, Limited::new(body, limit).collect()).await {
        Err(_) => Err(http_error(StatusCode::REQUEST_TIMEOUT, "the request body did not arrive in time")),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(http_error(StatusCode::BAD_REQUEST, "the request body broke off")),
    }
}

/// Whether the headers say 2026-07-28, which leaves out an id that it does not know.
fn is_modern(headers: &HeaderMap) -> bool {
    let version = headers.get(VERSION).and_then(|v| v.to_str().ok());
    version.and_then(Revision::parse).is_some_and(Revision::is_modern)
}

fn without_id(error: &RpcError) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    json_body(status, jsonrpc::error_without_id(error))
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let kind = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/json")
}

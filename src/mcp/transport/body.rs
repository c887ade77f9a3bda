//! Request bodies: bounded in size and time, of the right type, parsed into messages.

use std::borrow::Cow;

use axum::body::Body as HttpBody;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;

use super::refuse::refusal;
use super::reply::error_response;
use crate::app::App;
use crate::mcp::error::{RpcError, code};
use crate::mcp::jsonrpc::{self, Body, Malformed};

/// Reads and parses a body; says how many bytes it had.
///
/// # Errors
/// The response to send: 415 for another media type, 413 for too much, 408 for too slow, 400 for what is not
/// JSON-RPC.
pub async fn read(app: &App, headers: &HeaderMap, body: HttpBody) -> Result<(Body, usize), Response> {
    parsed(app, headers, body).await.map_err(|malformed| match &malformed.id {
        None => refusal(headers, &malformed.error),
        id => error_response(id.as_ref(), &malformed.error),
    })
}

async fn parsed(app: &App, headers: &HeaderMap, body: HttpBody) -> Result<(Body, usize), Malformed> {
    if !is_json(headers) {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(http_refusal(status, "send `Content-Type: application/json`").into());
    }
    let server = &app.config.server;
    let bytes = collect(body, server.max_body_bytes, server.body_read_timeout.get()).await?;
    let parsed = jsonrpc::parse(&bytes, server.max_json_depth, app.config.mcp.max_batch)?;
    Ok((parsed, bytes.len()))
}

fn http_refusal(status: StatusCode, message: impl Into<Cow<'static, str>>) -> RpcError {
    RpcError::new(code::HTTP, status.as_u16(), message).with_data(&json!({ "status": status.as_u16() }))
}

async fn collect(body: HttpBody, limit: usize, time: std::time::Duration) -> Result<Bytes, RpcError> {
    let too_large =
        || http_refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("a request body holds at most {limit} bytes"));
    if http_body::Body::size_hint(&body).lower() > limit as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(time, Limited::new(body, limit).collect()).await {
        Err(_) => Err(http_refusal(StatusCode::REQUEST_TIMEOUT, "the request body did not arrive in time")),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(http_refusal(StatusCode::BAD_REQUEST, "the request body broke off")),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let kind = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/json")
}

//! Errors that belong to no request: it was not read yet, or cannot be read.

use axum::body::Body;
use axum::response::Response;
use http::HeaderMap;

use super::headers::VERSION;
use super::reply::rpc_error;
use crate::limits::{Limited, Scope};
use crate::mcp::error::RpcError;
use crate::mcp::jsonrpc;
use crate::mcp::revision::Revision;

/// An error without a request. From 2025-11-25 on it has no `id` (schema, `JSONRPCErrorResponse`: optional, and never
/// `null`); before, and where the headers do not say, it is `null`, as JSON-RPC 2.0 section 5 says.
pub fn refusal(headers: &HeaderMap, error: &RpcError) -> Response {
    let mut response = rpc_error(error);
    let version = headers.get(VERSION).and_then(|value| value.to_str().ok()).and_then(Revision::parse);
    if version.is_some_and(|version| version >= Revision::V2025_11_25) {
        *response.body_mut() = Body::from(jsonrpc::error_without_id(error));
    }
    response
}

/// A limit that was reached by what is no JSON-RPC request: HTTP 429.
pub fn limited_http(headers: &HeaderMap, reached: Limited) -> Response {
    let mut error = RpcError::from(reached);
    if reached.scope != Scope::Unavailable {
        error.status = 429;
    }
    refusal(headers, &error)
}

//! The modern era (2026-07-28): every request describes itself, and headers mirror what intermediaries route by.

use axum::response::Response;

use super::accept::Accepts;
use super::headers::{self, VERSION};
use super::reply::{Dialect, error_response};
use super::run::{self, Begun, Launch};
use super::{Arrival, listen};
use crate::limits::Admission;
use crate::mcp::error::{RpcError, code};
use crate::mcp::feed::Feed;
use crate::mcp::jsonrpc::RequestId;
use crate::mcp::outlet::Outlet;
use crate::mcp::request::{Capabilities, LogLevel, Params, Request};
use crate::mcp::revision::Revision;
use crate::mcp::{Exchange, METHODS};
use crate::telemetry::labels::Era;

/// Whether a request of this era was meant: its `_meta` or its header says so, or it is `server/discover`.
pub fn is_meant(header: Option<&str>, method: &str, params: &Params) -> bool {
    params.meta.protocol_version.is_some()
        || method == "server/discover"
        || header.is_some_and(|v| Revision::parse(v).is_some_and(Revision::is_modern))
}

/// Answers a request.
///
/// # Errors
/// The response that says why there is none.
pub async fn request(
    arrival: Arrival,
    admission: Admission,
    id: RequestId,
    method: Box<str>,
    params: Params,
) -> Result<Begun, Response> {
    let fail = |error: &RpcError| error_response(Some(&id), error);
    let app = arrival.app.clone();
    let accepts = Accepts::from(&arrival.headers);
    if !accepts.json && !accepts.stream {
        let text = "accept application/json or text/event-stream";
        return Err(fail(&RpcError::new(code::HTTP, 406, text)));
    }
    check_headers(&arrival, &method, &params).map_err(|e| fail(&e))?;
    let (capabilities, log_level) = check_meta(&arrival, &method, &params).map_err(|e| fail(&e))?;
    if method.as_ref() != "subscriptions/listen" && !METHODS.contains(&method.as_ref()) {
        app.metrics.mcp_request(Era::Modern, "other");
        return Err(fail(&RpcError::method_not_found(&method, Revision::V2026_07_28)));
    }
    app.metrics.mcp_request(Era::Modern, &method);
    if method.as_ref() == "subscriptions/listen" {
        return listen::listen(&arrival, &id, &params, &admission).await.map(Begun::Answered);
    }
    if method.as_ref() == "tools/call" {
        check_params(&arrival, &params).map_err(|e| fail(&e))?;
    }
    let asked = params.meta.progress_token.is_some() || log_level.is_some();
    let feed = (accepts.stream && asked).then(Feed::passing);
    let (cancelled, cancel_on_drop) = run::cancellation(true);
    let outlet =
        Outlet::new(feed.clone(), params.meta.progress_token.clone(), log_level, app.metrics.clone());
    let request = Request { id, method, params, revision: Revision::V2026_07_28, capabilities, log_level };
    let Arrival { caller, endpoint, .. } = arrival;
    let exchange = Exchange { caller, endpoint, request, admission, outlet, cancelled };
    let dialect = Dialect::Modern;
    let launch = Launch { exchange, dialect, accepts, in_flight: None, feed, line: None, cancel_on_drop };
    Ok(Begun::Launched(Box::new(launch)))
}

/// The standard headers. `server/discover` is served without them: it is what clients of every age probe with.
fn check_headers(arrival: &Arrival, method: &str, params: &Params) -> Result<(), RpcError> {
    let sent = headers::single(&arrival.headers, VERSION)?;
    let lenient = method == "server/discover";
    if !lenient {
        headers::check_method(&arrival.headers, method)?;
        if sent.is_none() {
            return Err(RpcError::header_mismatch("header MCP-Protocol-Version is required"));
        }
    }
    if let (Some(sent), Some(said)) = (sent, params.meta.protocol_version.as_deref())
        && sent != said
    {
        return Err(RpcError::header_mismatch(
            "header MCP-Protocol-Version does not match params._meta[\"io.modelcontextprotocol/protocolVersion\"]",
        ));
    }
    if !lenient {
        headers::check_standard(&arrival.headers, method, params)?;
    }
    Ok(())
}

/// The required fields of `_meta`. A bare `server/discover` (no header, no `_meta`) is a probe and is answered.
fn check_meta(
    arrival: &Arrival,
    method: &str,
    params: &Params,
) -> Result<(Capabilities, Option<LogLevel>), RpcError> {
    let malformed = |what: &str| {
        let mut error =
            RpcError::invalid_params(format!("params._meta[\"io.modelcontextprotocol/{what}\"] is required"));
        error.status = 400;
        error
    };
    let meta = &params.meta;
    let probe = method == "server/discover" && !arrival.headers.contains_key(VERSION);
    match meta.protocol_version.as_deref() {
        None if probe => return Ok((Capabilities::default(), None)),
        None => return Err(malformed("protocolVersion")),
        Some(version) => match Revision::parse(version) {
            Some(revision) if revision.is_modern() => {}
            Some(_) if method == "server/discover" => {}
            Some(_) => {
                return Err(RpcError::invalid_request(
                    "this protocol version has no per-request metadata; send `initialize` instead",
                ));
            }
            None => return Err(RpcError::unsupported_version(version)),
        },
    }
    let raw = meta.client_capabilities.as_ref().ok_or_else(|| malformed("clientCapabilities"))?;
    let capabilities = Capabilities::parse(raw).map_err(|mut error| {
        error.status = 400;
        error
    })?;
    let log_level = match meta.log_level.as_deref() {
        None => None,
        Some(name) => Some(LogLevel::parse(name).ok_or_else(|| {
            RpcError::invalid_params(
                "params._meta[\"io.modelcontextprotocol/logLevel\"] must be one of debug, info, notice, warning, \
                 error, critical, alert, emergency",
            )
        })?),
    };
    Ok((capabilities, log_level))
}

/// `Mcp-Param-*`, against the tool as this caller sees it.
fn check_params(arrival: &Arrival, params: &Params) -> Result<(), RpcError> {
    let Some(name) = params.name.as_deref() else { return Ok(()) };
    let Some(snapshot) = arrival.app.registry.snapshot(arrival.endpoint.0.as_deref()) else { return Ok(()) };
    match snapshot.tools.get(name, |found| crate::policy::allowed(&arrival.caller, found)) {
        Some(tool) => headers::check_params(&arrival.headers, &tool.entry.headers, params),
        None => Ok(()),
    }
}

//! `resources/list`, `resources/templates/list` and `resources/read`.

use serde_json::json;

use super::error::{RpcError, code};
use super::result::{CacheHint, Complete, CoreResult};
use super::revision::Revision;
use super::{Exchange, lists, rounds, tools};
use crate::app::App;
use crate::id::CallId;
use crate::providers::{self, Call, Failure, Found, Reply};

/// `resources/list`.
///
/// # Errors
/// −32602 for a bad cursor.
pub fn list(app: &App, exchange: &Exchange) -> Result<CoreResult, RpcError> {
    let snapshot = exchange.snapshot(app)?;
    lists::page(
        app,
        exchange,
        "resources",
        &snapshot.resources,
        |f| sees(exchange, f),
        |f| &*f.entry.descriptor,
    )
    .map(Into::into)
}

/// `resources/templates/list`.
///
/// # Errors
/// −32602 for a bad cursor.
pub fn templates(app: &App, exchange: &Exchange) -> Result<CoreResult, RpcError> {
    let snapshot = exchange.snapshot(app)?;
    lists::page(
        app,
        exchange,
        "resourceTemplates",
        &snapshot.templates,
        |f| sees(exchange, f),
        |f| &*f.entry.descriptor,
    )
    .map(Into::into)
}

fn sees<T>(exchange: &Exchange, found: &Found<T>) -> bool {
    exchange.caller.scopes().allows_server(&found.server)
}

/// `resources/read`.
///
/// # Errors
/// −32602 (−32002 up to 2025-11-25) where the caller can see no such resource.
pub async fn read(app: &App, exchange: &mut Exchange) -> Result<CoreResult, RpcError> {
    let uri =
        exchange.request.params.uri.clone().ok_or_else(|| {
            RpcError::invalid_params("params.uri is required: the URI of the resource to read")
        })?;
    let unknown = not_found(&uri, exchange.request.revision);
    let snapshot = exchange.snapshot(app)?;
    let Some((provider, server)) = snapshot.resource(&uri, exchange.caller.scopes()) else {
        return Err(unknown);
    };
    let round = rounds::open(app, exchange)?;
    let _place = exchange.place(app).await?;
    let id = CallId::new();
    let call = Call::start(app, exchange, id, &server, round);
    let cancelled = call.cancelled().clone();
    let work = async move { provider.read_resource(call, &uri).await };
    let reply = providers::guarded(work, app.config.mcp.tool_timeout.get(), &cancelled).await;
    match reply.and_then(providers::sound) {
        Ok(Reply::Done(contents)) => {
            let hint = CacheHint { ttl_ms: 0 };
            Ok(Complete::new().field("contents", &contents)?.cached(hint).into())
        }
        Ok(Reply::NeedsInput(input)) => rounds::ask(app, exchange, input),
        Err(Failure::NotFound) => Err(unknown),
        Err(failure) => Err(tools::failed(failure, &id)),
    }
}

fn not_found(uri: &str, revision: Revision) -> RpcError {
    let code = if revision.is_modern() { code::INVALID_PARAMS } else { code::LEGACY_RESOURCE_NOT_FOUND };
    RpcError::new(code, 200, "Resource not found").with_data(&json!({ "uri": uri }))
}

//! OAuth protected resource metadata (RFC 9728): where a client may get a token for which URL.
//!
//! Served only where issuers are configured; elsewhere the paths do not exist, and clients that probe them get a clean
//! 404.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::extract::Json;
use super::problem::Problem;
use crate::app::App;

/// The path of the protected resource that a request path belongs to: that of the MCP endpoint.
#[must_use]
pub fn resource_path(path: &str) -> &str {
    match path {
        path if path.starts_with("/s/") => path,
        "/sse" | "/messages" => "/sse",
        _ => "/mcp",
    }
}

/// `GET /.well-known/oauth-protected-resource[/path]`. The resource is the URL that the well-known path was formed from
/// (RFC 9728 section 3.1).
pub async fn protected_resource(State(app): State<Arc<App>>, request: Request) -> Response {
    let issuers = &app.config.auth.issuers;
    let suffix = request.uri().path().strip_prefix("/.well-known/oauth-protected-resource").unwrap_or("");
    let known = matches!(suffix, "" | "/mcp" | "/sse") || is_server_path(&app, suffix);
    if issuers.is_empty() || !known {
        return Problem::not_found("not found").into_response();
    }
    let path = if suffix.is_empty() { "/mcp" } else { suffix };
    Json(json!({
        "resource": format!("{}{path}", app.config.public_url()),
        "authorization_servers": issuers.iter().map(|i| i.issuer.as_str()).collect::<Vec<_>>(),
        "bearer_methods_supported": ["header"],
        "resource_name": app.config.mcp.server_name,
    }))
    .into_response()
}

fn is_server_path(app: &App, suffix: &str) -> bool {
    suffix
        .strip_prefix("/s/")
        .and_then(|rest| rest.strip_suffix("/mcp").or_else(|| rest.strip_suffix("/sse")))
        .is_some_and(|server| app.registry.snapshot(Some(server)).is_some())
}

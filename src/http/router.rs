//! Every route. What may reach it stands in the handler's signature ([`super::caller`]).
//!
//! [`public_routes`], [`webhook_routes`], [`billing_routes`] and [`admin_routes`] are also lists: a test walks them and fails for a route that no isolation
//! case covers.

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, delete, get, post, put};
use http::StatusCode;
use tower_governor::{GovernorError, GovernorLayer};

use super::middleware::Front;
use super::problem::Problem;
use super::{admin, billing, health, mcp, metadata, webhooks};
use crate::app::App;
use crate::billing::events;
use crate::mcp::error::{RpcError, code};
use crate::mcp::transport::rpc_error;

/// A path, the methods that it takes, and who answers.
pub type Route = (&'static str, &'static str, MethodRouter<Arc<App>>);

/// MCP, on the public listener.
#[must_use]
pub fn public_routes() -> Vec<Route> {
    let mcp = || {
        post(mcp::post).get(mcp::get).head(mcp::not_allowed).delete(mcp::delete).fallback(mcp::not_allowed)
    };
    let sse = || get(mcp::sse).head(mcp::sse_not_allowed).fallback(mcp::sse_not_allowed);
    vec![
        ("/mcp", "POST GET DELETE", mcp()),
        ("/s/{server}/mcp", "POST GET DELETE", mcp()),
        ("/sse", "GET", sse()),
        ("/s/{server}/sse", "GET", sse()),
        ("/messages", "POST", post(mcp::messages)),
        ("/s/{server}/messages", "POST", post(mcp::messages)),
    ]
}

/// What asks for no credential; limited per address.
#[must_use]
pub fn open_routes() -> Vec<Route> {
    vec![
        ("/health", "GET", get(health::health)),
        ("/ready", "GET", get(health::ready)),
        ("/.well-known/oauth-protected-resource", "GET", get(metadata::protected_resource)),
        ("/.well-known/oauth-protected-resource/{*path}", "GET", get(metadata::protected_resource)),
    ]
}

/// What others send who prove who they are by signature; there where the other side is configured.
#[must_use]
pub fn webhook_routes() -> Vec<Route> {
    vec![(events::PATH, "POST", post(webhooks::stripe))]
}

/// What tenants buy for themselves; where there is a Stripe.
#[must_use]
pub fn billing_routes() -> Vec<Route> {
    vec![
        ("/billing", "GET", get(billing::show)),
        ("/billing/checkout", "POST", post(billing::checkout)),
        ("/billing/top_ups", "POST", post(billing::top_up)),
        ("/billing/portal", "POST", post(billing::portal)),
        ("/billing/plan", "PUT DELETE", put(billing::change_plan).delete(billing::cancel)),
        ("/billing/invoice", "GET", get(billing::invoice)),
        ("/billing/return", "GET", get(billing::back)),
    ]
}

/// The admin API, on its own listener or the public one.
#[must_use]
pub fn admin_routes() -> Vec<Route> {
    vec![
        ("/admin/v1/tenants", "GET POST", get(admin::tenants::list).post(admin::tenants::create)),
        (
            "/admin/v1/tenants/{tenant}",
            "GET DELETE",
            get(admin::tenants::show).delete(admin::tenants::delete),
        ),
        ("/admin/v1/tenants/{tenant}/plan", "PUT", put(admin::tenants::set_plan)),
        ("/admin/v1/tenants/{tenant}/suspend", "POST", post(admin::tenants::suspend)),
        ("/admin/v1/tenants/{tenant}/resume", "POST", post(admin::tenants::resume)),
        ("/admin/v1/tenants/{tenant}/keys", "GET POST", get(admin::keys::list).post(admin::keys::create)),
        (
            "/admin/v1/tenants/{tenant}/keys/{key}",
            "GET DELETE",
            get(admin::keys::show).delete(admin::keys::revoke),
        ),
        ("/admin/v1/tenants/{tenant}/keys/{key}/limits", "PUT", put(admin::keys::set_limits)),
        ("/admin/v1/tenants/{tenant}/sessions", "GET", get(admin::sessions::list)),
        (
            "/admin/v1/tenants/{tenant}/account",
            "GET PUT",
            get(admin::accounts::show).put(admin::accounts::put),
        ),
        ("/admin/v1/tenants/{tenant}/periods", "GET", get(admin::accounts::periods)),
        ("/admin/v1/tenants/{tenant}/events", "GET", get(admin::accounts::events)),
        ("/admin/v1/tenants/{tenant}/grants", "GET POST", get(admin::grants::list).post(admin::grants::add)),
        ("/admin/v1/tenants/{tenant}/grants/{grant}", "DELETE", delete(admin::grants::void)),
        ("/admin/v1/tenants/{tenant}/usage", "GET", get(admin::usage::sums)),
        ("/admin/v1/tenants/{tenant}/calls", "GET", get(admin::usage::calls)),
        ("/admin/v1/plans", "GET", get(admin::plans::list)),
        (
            "/admin/v1/plans/{plan}",
            "GET PUT DELETE",
            get(admin::plans::show).put(admin::plans::put).delete(admin::plans::delete),
        ),
        (
            "/admin/v1/plans/{plan}/prices",
            "GET POST",
            get(admin::plans::list_prices).post(admin::plans::publish),
        ),
        ("/admin/v1/audit", "GET", get(admin::audit::list)),
    ]
}

fn table(routes: Vec<Route>) -> Router<Arc<App>> {
    routes.into_iter().fold(Router::new(), |router, (path, _, handlers)| router.route(path, handlers))
}

/// The router of the public listener.
pub fn public(app: &Arc<App>) -> Router {
    let config = &app.config;
    let mut router = table(public_routes());
    if config.admin.enabled && config.admin.listen.is_none() {
        router = router.merge(table(admin_routes()));
    }
    if app.webhooks.is_some() {
        router = router.merge(table(webhook_routes())).merge(table(billing_routes()));
    }
    // Liveness asks nobody anything and must not depend on who else comes from a balancer's address.
    let (free, limited): (Vec<_>, Vec<_>) =
        open_routes().into_iter().partition(|(path, ..)| *path == "/health");
    let flood = GovernorLayer::new(app.flood.config()).error_handler(flooded);
    let open = table(limited).fallback(not_found).layer(flood).merge(table(free));
    finish(app, router.merge(open))
}

/// The router of the admin listener, where it has its own.
pub fn admin(app: &Arc<App>) -> Router {
    let health = Router::new().route("/health", get(health::health)).route("/ready", get(health::ready));
    finish(app, table(admin_routes()).merge(health).fallback(not_found))
}

/// The router of the metrics listener.
pub fn metrics(app: &Arc<App>) -> Router {
    let metrics = app.metrics.clone();
    let render = move || async move {
        ([(http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
    };
    Router::new().route("/metrics", get(render)).fallback(any(not_found))
}

fn finish(app: &Arc<App>, router: Router<Arc<App>>) -> Router {
    router.method_not_allowed_fallback(method_not_allowed).layer(Front::new(app)).with_state(app.clone())
}

async fn not_found() -> Problem {
    Problem::not_found("there is nothing here; MCP is served at /mcp and /sse")
}

/// In the words of whoever is asked there: JSON-RPC for MCP, problem details for everything else.
async fn method_not_allowed(uri: http::Uri) -> Response {
    let text = "this URL does not take this method";
    if uri.path().ends_with("/messages") {
        return rpc_error(&RpcError::new(code::HTTP, 405, text));
    }
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text).into_response()
}

#[expect(clippy::needless_pass_by_value, reason = "the layer hands the error over")]
fn flooded(error: GovernorError) -> Response {
    match error {
        GovernorError::TooManyRequests { wait_time, .. } => {
            Problem::too_many(u32::try_from(wait_time).unwrap_or(u32::MAX).max(1)).into_response()
        }
        _ => Problem::bad_request("the client's address is not known").into_response(),
    }
}

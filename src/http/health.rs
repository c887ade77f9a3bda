//! `GET /health` and `GET /ready`, for supervisors and balancers. No credential, no internals.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::extract::Json;
use crate::app::App;

/// How long `/ready` waits for the database.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(800);

/// Asks the database, unless it is known to be away; not for long, because probes have short timeouts of their own.
async fn ask(app: &App) -> bool {
    let up = matches!(tokio::time::timeout(PATIENCE, app.db.ping()).await, Ok(Ok(())));
    if !up {
        app.db.breaker().failed();
        app.metrics.database_up.set(0);
    }
    up
}

fn dependencies(app: &App, up: bool) -> Value {
    let state = if up { "up" } else { "down" };
    json!({ "database": { "engine": app.db.engine(), "state": state } })
}

/// Liveness: 200 as long as the process answers, with the state of what it depends on. A restart would not bring a
/// database back, so that one is down does not change the status; nor is it waited for: the state is the one that the
/// last look found.
pub async fn health(State(app): State<Arc<App>>) -> Response {
    let up = app.metrics.database_up.get() == 1;
    let dependencies = dependencies(&app, up);
    let status = if up { "ok" } else { "degraded" };
    let body = json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "dependencies": dependencies,
    });
    Json(body).into_response()
}

/// Readiness: 200 where new requests are welcome, 503 while Weir stops or its database is away.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let up = ask(&app).await;
    let dependencies = dependencies(&app, up);
    let (status, word) = match (app.is_draining(), up) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        (false, true) => (StatusCode::OK, "ready"),
    };
    (status, Json(json!({ "status": word, "dependencies": dependencies }))).into_response()
}

//! `GET /health` and `GET /ready`, for supervisors and balancers. No credential, no internals.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::extract::Json;
use crate::app::App;
use crate::config::WithoutRedis;

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
    let word = |up: bool| if up { "up" } else { "down" };
    let mut all = json!({ "database": { "engine": app.db.engine(), "state": word(up) } });
    if let Some(peers) = &app.peers {
        all["redis"] = json!({ "state": word(peers.redis.is_up()), "replicas": peers.replicas.count() });
    }
    all
}

/// Whether this replica does without Redis, which it should have.
fn lacks_redis(app: &App) -> bool {
    app.peers.as_ref().is_some_and(|peers| !peers.redis.is_up())
}

/// Liveness: 200 as long as the process answers, with the state of what it depends on. A restart would not bring a
/// database back, so that one is down does not change the status; nor is it waited for: the state is the one that the
/// last look found.
pub async fn health(State(app): State<Arc<App>>) -> Response {
    let up = app.metrics.database_up.get() == 1;
    let dependencies = dependencies(&app, up);
    let status = if up && !lacks_redis(&app) { "ok" } else { "degraded" };
    let body = json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "dependencies": dependencies,
    });
    Json(body).into_response()
}

/// Readiness: 200 where new requests are welcome, 503 while Weir stops or its database is away. That Redis is away says 503
/// only where requests are refused without it.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let up = ask(&app).await;
    let dependencies = dependencies(&app, up);
    let refuses = lacks_redis(&app) && app.config.limits.without_redis == WithoutRedis::Refuse;
    let (status, word) = match (app.is_draining(), up && !refuses) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        (false, true) => (StatusCode::OK, "ready"),
    };
    (status, Json(json!({ "status": word, "dependencies": dependencies }))).into_response()
}

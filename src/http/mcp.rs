//! The MCP routes: from an authenticated HTTP request to a transport.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::caller::{self, Authenticated};
use super::client_ip;
use super::extract::Query;
use super::metered::Meter;
use super::problem::Problem;
use crate::app::App;
use crate::mcp::Endpoint;
use crate::mcp::error::{RpcError, code};
use crate::mcp::session::Transport;
use crate::mcp::transport::{self, Arrival, refusal};

/// The server in the path, where the route has one.
pub struct ServerPath(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for ServerPath {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        // A name that is no text names no server.
        let params = params.map_err(|_| refusal(&parts.headers, &no_such_server()))?;
        Ok(Self(params.iter().find(|(name, _)| *name == "server").map(|(_, server)| server.to_owned())))
    }
}

fn no_such_server() -> RpcError {
    RpcError::new(code::INVALID_REQUEST, 404, "no such server; check the URL")
}

/// What the route offers, if the caller may see it; another server looks like none at all.
fn arrive(
    app: Arc<App>,
    found: Authenticated,
    server: ServerPath,
    request: Request,
) -> Result<(Arrival, Body), Response> {
    let endpoint = match server.0 {
        None => Endpoint(None),
        Some(name) => {
            let known = app.registry.snapshot(Some(&name)).is_some();
            if !known || !found.caller.scopes().allows_server(&name) {
                return Err(refusal(request.headers(), &no_such_server()));
            }
            Endpoint(Some(name.into()))
        }
    };
    let Authenticated { caller, credential } = found;
    let (parts, body) = request.into_parts();
    Ok((Arrival { app, caller, credential, endpoint, headers: parts.headers }, body))
}

/// `POST /mcp`.
pub async fn post(
    State(app): State<Arc<App>>,
    found: Authenticated,
    server: ServerPath,
    request: Request,
) -> Response {
    match arrive(app, found, server, request) {
        Ok((arrival, body)) => {
            let meter = Meter::of(&arrival.app, &arrival.caller);
            meter.count(transport::post(arrival, body).await)
        }
        Err(response) => response,
    }
}

/// `GET /mcp`.
pub async fn get(
    State(app): State<Arc<App>>,
    found: Authenticated,
    server: ServerPath,
    request: Request,
) -> Response {
    match arrive(app, found, server, request) {
        Ok((arrival, _)) => Meter::of(&arrival.app, &arrival.caller).count(transport::get(&arrival).await),
        Err(response) => response,
    }
}

/// `DELETE /mcp`.
pub async fn delete(
    State(app): State<Arc<App>>,
    found: Authenticated,
    server: ServerPath,
    request: Request,
) -> Response {
    match arrive(app, found, server, request) {
        Ok((arrival, _)) => transport::delete(&arrival).await,
        Err(response) => response,
    }
}

/// `GET /sse`.
pub async fn sse(
    State(app): State<Arc<App>>,
    found: Authenticated,
    server: ServerPath,
    request: Request,
) -> Response {
    match arrive(app, found, server, request) {
        Ok((arrival, _)) => {
            Meter::of(&arrival.app, &arrival.caller).count(transport::sse::connect(&arrival).await)
        }
        Err(response) => response,
    }
}

/// The query of `POST /messages`.
#[derive(serde::Deserialize)]
pub struct MessageQuery {
    #[serde(rename = "sessionId")]
    session_id: Option<String>,
}

/// `POST /messages?sessionId=`. The session id is the credential; one that comes beside it must be the opener's, because a
/// session is nobody else's.
pub async fn messages(
    State(app): State<Arc<App>>,
    query: Result<Query<MessageQuery>, Problem>,
    server: ServerPath,
    request: Request,
) -> Response {
    let id = query.ok().and_then(|Query(query)| query.session_id);
    let ip = client_ip::of(&request);
    let endpoint = Endpoint(server.0.map(Into::into));
    let (parts, body) = request.into_parts();
    let id = match id {
        Some(id) if may_use(&app, &parts, &id).await => Some(id),
        _ => None,
    };
    let response = transport::sse::message(app.clone(), endpoint, id, parts.headers, body).await;
    if response.status() == StatusCode::NOT_FOUND
        && let Err(seconds) = app.flood.check(ip)
    {
        return caller::too_many(&HeaderMap::new(), seconds);
    }
    response
}

/// Whether there is such a session and no credential beside its id that is not its opener's.
async fn may_use(app: &App, parts: &Parts, id: &str) -> bool {
    let Some(session) = app.sessions.get(id, Transport::Sse, None).await else { return false };
    match caller::beside(parts, app).await {
        None => true,
        Some(found) => found.is_some_and(|caller| *caller.principal() == session.owner),
    }
}

/// Any other method on `/mcp`: 405 with what is allowed, after authentication.
pub async fn not_allowed(headers: HeaderMap, _found: Authenticated) -> Response {
    refuse_method(&headers, "GET, POST, DELETE")
}

/// The same on `/sse`. Clients that try a POST first fall back on the 405.
pub async fn sse_not_allowed(headers: HeaderMap, _found: Authenticated) -> Response {
    refuse_method(&headers, "GET")
}

fn refuse_method(headers: &HeaderMap, allowed: &'static str) -> Response {
    let error = RpcError::new(code::HTTP, 405, "this URL does not take this method");
    let mut response = refusal(headers, &error);
    response.headers_mut().insert(http::header::ALLOW, http::HeaderValue::from_static(allowed));
    response
}

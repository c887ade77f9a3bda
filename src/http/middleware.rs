//! Every layer, in order, each with its reason.
//!
//! 1. [`Front`]: request id (so that a client can name a request) → span → client address → Host and Origin (before
//!    anything reads the request) → the handler, its panics caught → metrics → access log.
//! 2. CORS, for configured origins only: browsers ask before they send. A POST that no page sent passes it by: there is
//!    nothing to allow, and its answer is never cached for one.
//!
//! The body limit and its timeout stand where bodies are read; connection limits stand where connections are accepted.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use tower::{Layer, Service, ServiceExt};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument;

use super::client_ip::{ClientIp, client_ip};
use super::origin::Allowed;
use super::problem::Problem;
use crate::app::App;
use crate::id::RequestUid;
use crate::mcp::error::{RpcError, code};
use crate::mcp::transport::refusal;
use crate::telemetry::traces;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The layers, around everything that is routed.
#[derive(Clone)]
pub struct Front(Arc<Inner>);

struct Inner {
    app: Arc<App>,
    allowed: Arc<Allowed>,
    cors: CorsLayer,
}

impl Front {
    /// Around the routes of `app`.
    #[must_use]
    pub fn new(app: &Arc<App>) -> Self {
        let allowed = Arc::new(Allowed::from(&app.config));
        let cors = cors(allowed.clone());
        Self(Arc::new(Inner { app: app.clone(), allowed, cors }))
    }
}

impl Layer<Route> for Front {
    type Service = Fronted;

    fn layer(&self, routed: Route) -> Fronted {
        Fronted { front: self.clone(), routed }
    }
}

/// What is routed, behind the layers.
#[derive(Clone)]
pub struct Fronted {
    front: Front,
    routed: Route,
}

impl Service<Request> for Fronted {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Self { front, routed } = self.clone();
        Box::pin(async move { Ok(answer(&front.0, request, routed).await) })
    }
}

async fn answer(front: &Inner, mut request: Request, routed: Route) -> Response {
    let app = &front.app;
    let started = Instant::now();
    let id = RequestUid::new();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = app.metrics.route(matched.as_ref().map(MatchedPath::as_str));
    let method = request.method().clone();
    let span = tracing::info_span!(
        "request",
        id = %id,
        method = method.as_str(),
        route = matched.as_ref().map_or("unmatched", MatchedPath::as_str),
        tenant = tracing::field::Empty,
    );
    if request.headers().contains_key("traceparent") {
        traces::set_parent(&span, traces::extract(request.headers(), None));
    }
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    if let Some(peer) = peer {
        let ip = client_ip(peer, request.headers(), &app.config.server.trusted_proxies);
        request.extensions_mut().insert(ClientIp(ip));
    }
    let _in_flight = app.metrics.in_flight();

    let handled =
        AssertUnwindSafe(handle(front, request, routed)).catch_unwind().instrument(span.clone()).await;
    let mut response = handled.unwrap_or_else(|_| broken());

    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let elapsed = started.elapsed();
    route.observe(&method, response.status(), elapsed);
    span.in_scope(|| {
        tracing::info!(
            target: "weir::access",
            status = response.status().as_u16(),
            duration_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            "answered",
        );
    });
    response
}

async fn handle(front: &Inner, request: Request, routed: Route) -> Response {
    let forbidden = |text: &'static str| refusal(request.headers(), &RpcError::new(code::HTTP, 403, text));
    // Balancers and supervisors probe by address; these two say nothing that a stranger could use.
    let probe = matches!(request.uri().path(), "/health" | "/ready");
    if !probe && !front.allowed.host(request.headers(), request.uri().authority().map(|a| a.as_str())) {
        return forbidden("this Host is not served here; the operator can add it to server.allowed_hosts");
    }
    if !front.allowed.origin(request.headers()) {
        return forbidden("this Origin is not let in; the operator can add it to server.allowed_origins");
    }
    let Ok(response) = if request.method() == Method::POST && !request.headers().contains_key(header::ORIGIN)
    {
        routed.oneshot(request).await
    } else {
        front.cors.layer(routed).oneshot(request).await
    };
    response
}

fn broken() -> Response {
    let text = "something broke here; quote the X-Request-Id of this response when you report it";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text).into_response()
}

/// CORS for the origins that are let in. Credentials are bearer tokens, never cookies, so none are allowed.
fn cors(allowed: Arc<Allowed>) -> CorsLayer {
    let origins =
        AllowOrigin::predicate(move |origin, _| origin.to_str().is_ok_and(|o| allowed.is_origin(o)));
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(tower_http::cors::AllowHeaders::mirror_request())
        .expose_headers([
            header::WWW_AUTHENTICATE,
            header::RETRY_AFTER,
            REQUEST_ID,
            HeaderName::from_static("mcp-session-id"),
            HeaderName::from_static("mcp-protocol-version"),
            HeaderName::from_static("ratelimit-limit"),
            HeaderName::from_static("ratelimit-remaining"),
            HeaderName::from_static("ratelimit-reset"),
        ])
        .max_age(std::time::Duration::from_secs(600))
}

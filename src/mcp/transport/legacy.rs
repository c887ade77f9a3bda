//! What the two legacy transports share: lifting a request to a self-describing one, and the methods that only the
//! legacy era has.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::Line;
use super::reply::{Dialect, Finished, render};
use super::run::finish;
use super::{Arrival, admit};
use crate::app::App;
use crate::limits::Admission;
use crate::mcp::error::RpcError;
use crate::mcp::feed::Feed;
use crate::mcp::jsonrpc::RequestId;
use crate::mcp::outlet::Outlet;
use crate::mcp::request::{Capabilities, LogLevel, Params, Request};
use crate::mcp::result::{Complete, CoreResult};
use crate::mcp::revision::Revision;
use crate::mcp::session::{Negotiated, Session, Settle};
use crate::mcp::{Exchange, METHODS, capabilities};
use crate::telemetry::labels::Era;

/// Longest client name or version that is kept, in bytes.
const MAX_CLIENT: usize = 128;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialize {
    protocol_version: String,
    #[serde(default)]
    capabilities: Value,
    client_info: Option<ClientInfo>,
}

#[derive(Deserialize)]
struct ClientInfo {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
}

fn short(text: &str) -> Box<str> {
    let mut end = text.len().min(MAX_CLIENT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().filter(|c| !c.is_control()).collect::<String>().into()
}

/// Reads `initialize` and settles on a revision: the one asked for where it is a legacy one that is served, else
/// the newest legacy one ("Lifecycle: Version Negotiation").
///
/// # Errors
/// −32602 where a required field is missing.
pub fn negotiate(params: &Params) -> Result<Negotiated, RpcError> {
    let wire: Initialize = params.read()?;
    let revision = Revision::parse(&wire.protocol_version)
        .filter(|revision| !revision.is_modern())
        .unwrap_or(Revision::NEWEST_LEGACY);
    let capabilities = match &wire.capabilities {
        Value::Null => Capabilities::default(),
        given => Capabilities::parse(given.to_string().as_bytes())?,
    };
    let client = wire.client_info.map(|info| (short(&info.name), short(&info.version)));
    Ok(Negotiated { revision, capabilities, client })
}

/// The result of `initialize`.
///
/// # Errors
/// None in practice.
pub fn initialized(app: &App, negotiated: &Negotiated) -> Result<CoreResult, RpcError> {
    let info: Value = serde_json::from_str(&app.server_info).unwrap_or(Value::Null);
    Ok(Complete::new()
        .field("protocolVersion", &negotiated.revision.name())?
        .field("capabilities", &capabilities())?
        .field("serverInfo", &info)?
        .field("instructions", &app.config.mcp.instructions)?
        .into())
}

/// Methods of the legacy era beside those of the core.
pub const OWN_METHODS: [&str; 5] =
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];

/// The method's name for metrics.
pub fn metric_name(method: &str) -> &str {
    if METHODS.contains(&method) || OWN_METHODS.contains(&method) { method } else { "other" }
}

/// Answers a method that only this era has; `None` where the core must.
pub async fn own_method(
    arrival: &Arrival,
    session: Option<&Arc<Session>>,
    method: &str,
    params: &Params,
) -> Option<Result<CoreResult, RpcError>> {
    match method {
        "ping" => Some(Ok(Complete::new().into())),
        "logging/setLevel" => Some(set_level(arrival, session, params).await),
        "resources/subscribe" => Some(subscribe(arrival, session, params).await),
        "resources/unsubscribe" => Some(unsubscribe(arrival, session, params).await),
        // Over a legacy connection the method does not exist; discovery proper is answered on `POST /mcp`.
        "server/discover" => Some(Err(RpcError::method_not_found(method, Revision::NEWEST_LEGACY))),
        _ => None,
    }
}

async fn set_level(
    arrival: &Arrival,
    session: Option<&Arc<Session>>,
    params: &Params,
) -> Result<CoreResult, RpcError> {
    #[derive(Deserialize)]
    struct SetLevel {
        level: String,
    }
    let wire: SetLevel = params.read()?;
    let level = LogLevel::parse(&wire.level).ok_or_else(|| {
        RpcError::invalid_params(
            "params.level must be one of debug, info, notice, warning, error, critical, alert, emergency",
        )
    })?;
    if let Some(session) = session {
        session.set_log_level(level);
        arrival.app.sessions.settled(session, Settle::Level(level)).await;
    }
    Ok(Complete::new().into())
}

async fn unsubscribe(
    arrival: &Arrival,
    session: Option<&Arc<Session>>,
    params: &Params,
) -> Result<CoreResult, RpcError> {
    let uri = params.uri.as_deref().ok_or_else(|| RpcError::invalid_params("params.uri is required"))?;
    if let Some(session) = session {
        session.unsubscribe(uri);
        arrival.app.sessions.settled(session, Settle::Unsubscribed(uri)).await;
    }
    Ok(Complete::new().into())
}

async fn subscribe(
    arrival: &Arrival,
    session: Option<&Arc<Session>>,
    params: &Params,
) -> Result<CoreResult, RpcError> {
    let uri = params.uri.as_deref().ok_or_else(|| RpcError::invalid_params("params.uri is required"))?;
    let Some(session) = session else {
        return Err(RpcError::invalid_request("subscriptions need a session; send `initialize` first"));
    };
    let known = arrival
        .app
        .registry
        .snapshot(arrival.endpoint.0.as_deref())
        .and_then(|snapshot| snapshot.resource(uri, arrival.caller.scopes()));
    if known.is_none() {
        let code = crate::mcp::error::code::LEGACY_RESOURCE_NOT_FOUND;
        return Err(RpcError::new(code, 200, "Resource not found").with_data(&json!({ "uri": uri })));
    }
    session.subscribe(uri)?;
    arrival.app.sessions.settled(session, Settle::Subscribed(uri)).await;
    Ok(Complete::new().into())
}

/// A legacy request as the core wants it.
pub struct Lifted {
    /// The request's id.
    pub id: RequestId,
    /// Its method.
    pub method: Box<str>,
    /// Its parameters.
    pub params: Params,
    /// The session, where there is one.
    pub session: Option<Arc<Session>>,
    /// The revision where there is no session.
    pub revision: Revision,
}

impl Lifted {
    /// Puts the request together with what its session knows.
    pub fn exchange(
        self,
        arrival: &Arrival,
        admission: Admission,
        feed: Option<Arc<Feed>>,
        cancelled: tokio_util::sync::CancellationToken,
    ) -> Exchange {
        let (revision, capabilities, log_level) = match &self.session {
            Some(session) => {
                let (revision, capabilities, log_level) = session.settled();
                (revision, capabilities, Some(log_level))
            }
            None => (self.revision, Capabilities::default(), None),
        };
        let token = self.params.meta.progress_token.clone();
        let outlet = Outlet::new(feed, token, log_level, arrival.app.metrics.clone());
        let request = Request {
            id: self.id,
            method: self.method,
            params: self.params,
            revision,
            capabilities,
            log_level,
        };
        Exchange {
            caller: arrival.caller.clone(),
            endpoint: arrival.endpoint.clone(),
            request,
            admission,
            outlet,
            cancelled,
        }
    }
}

/// Answers one request without a stream of its own: an element of a batch, or a message over HTTP+SSE, which is told of
/// and asked over the session's stream. Admits it.
pub async fn answer_alone(arrival: &Arrival, lifted: Lifted, line: Option<&Line>) -> Finished {
    let app = &arrival.app;
    let (id, method) = (lifted.id.clone(), lifted.method.clone());
    let fail = |error: RpcError| render(app, Dialect::Legacy, &id, &method, Err(error));
    app.metrics.mcp_request(Era::Legacy, metric_name(&method));
    let admission = match admit::request(arrival, &method, &lifted.params, 0).await {
        Ok(admission) => admission,
        Err(reached) => return fail(reached.into()),
    };
    let own = own_method(arrival, lifted.session.as_ref(), &method, &lifted.params).await;
    if let Some(outcome) = own {
        return render(app, Dialect::Legacy, &id, &method, outcome);
    }
    let cancelled = tokio_util::sync::CancellationToken::new();
    let in_flight = match &lifted.session {
        None => None,
        Some(session) => {
            session.count(&*method == "tools/call");
            match session.begin(&id, cancelled.clone()) {
                Ok(in_flight) => Some(in_flight),
                Err(error) => return fail(error),
            }
        }
    };
    let feed = line.map(|line| line.feed.clone());
    let mut exchange = lifted.exchange(arrival, admission, feed, cancelled);
    let finished = finish(app, &mut exchange, Dialect::Legacy, line).await;
    drop(in_flight);
    finished
}

//! `/mcp`: POST and DELETE. POST serves both eras; what it does with a message is decided here, once.
//!
//! Legacy rules are those of 2025-11-25 "Transports: Streamable HTTP" and its predecessors.

use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::response::Response;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::accept::Accepts;
use super::ask::Line;
use super::headers::{SESSION, VERSION, single, take_key};
use super::legacy::{Lifted, answer_alone, initialized, metric_name, negotiate, own_method};
use super::refuse::{limited_http, refusal};
use super::reply::{self, Dialect, empty, error_response, json_body, limited, render, rpc_error};
use super::run::{self, Begun, Launch};
use super::{Answer, Arrival, admit, body, modern};
use crate::app::App;
use crate::limits::Admission;
use crate::mcp::error::{RpcError, code};
use crate::mcp::feed::Feed;
use crate::mcp::jsonrpc::{self, Body, Malformed, Message, RequestId};
use crate::mcp::request::Params;
use crate::mcp::revision::Revision;
use crate::mcp::session::{Opening, Session, Settle, Transport};
use crate::telemetry::labels::{Era, SessionEnd};
use crate::telemetry::traces;

/// Bodies larger than this are not read for a caller that is over its rate, in bytes.
const SMALL_BODY: u64 = 64 * 1024;

/// POST: one message, or a batch of them.
pub async fn post(arrival: Arrival, http_body: HttpBody) -> Response {
    if http_body::Body::size_hint(&http_body).lower() > SMALL_BODY
        && let Err(reached) = admit::look(&arrival)
    {
        return limited_http(&arrival.headers, reached);
    }
    let read = body::read(&arrival.app, &arrival.headers, http_body).await;
    let app = arrival.app.clone();
    let answer = match read {
        Err(response) => match admit::plain(&arrival, 0).await {
            Ok(_) => Err(response),
            Err(reached) => Err(limited_http(&arrival.headers, reached)),
        },
        Ok((Body::Batch(messages), bytes)) => batch(arrival, messages, bytes).await,
        Ok((Body::Single(Message::Request { id, method, params }), bytes)) => {
            match Box::pin(request(arrival, id, method, params, bytes)).await {
                Ok(Begun::Launched(launch)) => Ok(run::run(&app, launch).await),
                Ok(Begun::Answered(response)) => Ok(response),
                Err(response) => Err(response),
            }
        }
        // These are counted but never refused: a caller that is over its rate must still be able to cancel.
        Ok((Body::Single(Message::Notification { method, params }), bytes)) => {
            let _ = admit::plain(&arrival, bytes).await;
            notified(&arrival, &method, params.as_ref()).await.map(|()| empty(StatusCode::ACCEPTED))
        }
        Ok((Body::Single(Message::Response { id, outcome }), bytes)) => {
            let _ = admit::plain(&arrival, bytes).await;
            responded(&arrival, &id, outcome).await.map(|()| empty(StatusCode::ACCEPTED))
        }
    };
    answer.unwrap_or_else(|response| response)
}

async fn request(
    arrival: Arrival,
    id: RequestId,
    method: Box<str>,
    params: Option<bytes::Bytes>,
    bytes: usize,
) -> Result<Begun, Response> {
    let fail = |error: &RpcError| error_response(Some(&id), error);
    let params = Params::parse(params);
    let admitted = match &params {
        Ok(params) => admit::request(&arrival, &method, params, bytes).await,
        Err(_) => admit::plain(&arrival, bytes).await,
    };
    let admission = admitted.map_err(|reached| limited(Some(&id), reached))?;
    let mut params = params.map_err(|e| fail(&e))?;
    continue_trace(&arrival, &params);
    take_key(&arrival.headers, &mut params).map_err(|e| fail(&e))?;
    let header = single(&arrival.headers, VERSION).map_err(|e| fail(&e))?;
    if modern::is_meant(header, &method, &params)
        && !(&*method == "initialize" && params.meta.protocol_version.is_none())
    {
        return modern::request(arrival, admission, id, method, params).await;
    }
    let accepts = Accepts::from(&arrival.headers);
    if !accepts.json && !accepts.stream {
        let text = "accept application/json or text/event-stream";
        return Err(fail(&RpcError::new(code::HTTP, 406, text)));
    }
    if &*method == "initialize" {
        return initialize(&arrival, &admission, &id, &params).await.map(Begun::Answered);
    }
    let revision = header_revision(header).map_err(|e| fail(&e))?;
    let session = session(&arrival).await.map_err(|e| fail(&e))?;
    legacy(&arrival, admission, Lifted { id, method, params, session, revision }, accepts).await
}

/// Makes the request's span a child of the one that `_meta` names, where no header did (2026-07-28 "OpenTelemetry trace
/// context").
fn continue_trace(arrival: &Arrival, params: &Params) {
    if let Some(parent) = params.meta.traceparent.as_deref()
        && !arrival.headers.contains_key("traceparent")
    {
        let context = traces::extract(&arrival.headers, Some((parent, params.meta.tracestate.as_deref())));
        traces::set_parent(&tracing::Span::current(), context);
    }
}

async fn legacy(
    arrival: &Arrival,
    admission: Admission,
    lifted: Lifted,
    accepts: Accepts,
) -> Result<Begun, Response> {
    let app = &arrival.app;
    let id = lifted.id.clone();
    app.metrics.mcp_request(Era::Legacy, metric_name(&lifted.method));
    let own = own_method(arrival, lifted.session.as_ref(), &lifted.method, &lifted.params).await;
    if let Some(outcome) = own {
        let finished = render(app, Dialect::Legacy, &id, &lifted.method, outcome);
        let response = reply::finished_reply(app, finished, accepts);
        return Ok(Begun::Answered(reply::with_rate(response, Some(admission.standing))));
    }
    let (cancelled, _) = run::cancellation(false);
    let in_flight = match &lifted.session {
        None => None,
        Some(session) => {
            session.count(&*lifted.method == "tools/call");
            Some(session.begin(&id, cancelled.clone()).map_err(|e| error_response(Some(&id), &e))?)
        }
    };
    let line = lifted.session.as_ref().filter(|_| accepts.stream).map(|session| {
        let feed = session.reply_feed(&id, session.revision());
        Line::new(arrival, session, feed)
    });
    let asked = accepts.stream && lifted.params.meta.progress_token.is_some();
    let feed = line.as_ref().map(|line| line.feed.clone()).or_else(|| asked.then(Feed::passing));
    let exchange = lifted.exchange(arrival, admission, feed.clone(), cancelled);
    let dialect = Dialect::Legacy;
    let launch = Launch { exchange, dialect, accepts, in_flight, feed, line, cancel_on_drop: None };
    Ok(Begun::Launched(Box::new(launch)))
}

/// `initialize`: opens a session, or settles anew on the one that the request names.
async fn initialize(arrival: &Arrival, admission: &Admission, id: &RequestId, params: &Params) -> Answer {
    let fail = |error: &RpcError| error_response(Some(id), error);
    let app = &arrival.app;
    app.metrics.mcp_request(Era::Legacy, "initialize");
    let negotiated = negotiate(params).map_err(|e| fail(&e))?;
    let session = match session(arrival).await {
        Ok(Some(known)) => {
            known.renegotiate(negotiated.clone());
            app.sessions.settled(&known, Settle::Negotiated).await;
            known
        }
        _ => app
            .sessions
            .open(Opening {
                caller: arrival.caller.clone(),
                credential: arrival.credential.clone(),
                endpoint: arrival.endpoint.clone(),
                transport: Transport::Streamable,
                negotiated: negotiated.clone(),
            })
            .await
            .map_err(|reached| {
                app.metrics.rate_limited.inc(reached.scope);
                limited(Some(id), reached)
            })?,
    };
    let finished = render(app, Dialect::Legacy, id, "initialize", initialized(app, &negotiated));
    let accepts = Accepts::from(&arrival.headers);
    let mut response =
        reply::with_rate(reply::finished_reply(app, finished, accepts), Some(admission.standing));
    if let Ok(value) = HeaderValue::from_str(&session.id) {
        response.headers_mut().insert(HeaderName::from_static(SESSION), value);
    }
    Ok(response)
}

/// The revision that a legacy request speaks by its header alone. None means 2025-03-26 (2025-06-18 "Protocol
/// Version Header"); one that is not served is refused.
fn header_revision(header: Option<&str>) -> Result<Revision, RpcError> {
    match header {
        None => Ok(Revision::V2025_03_26),
        Some(name) => Revision::parse(name).ok_or_else(|| RpcError::unsupported_version(name)),
    }
}

/// The revision that the header of any request names, a GET or DELETE as well (2025-11-25 "Protocol Version Header").
pub(super) fn spoken_revision(arrival: &Arrival) -> Result<Revision, RpcError> {
    single(&arrival.headers, VERSION).and_then(header_revision)
}

/// The session that a request names: none where it names none.
///
/// # Errors
/// 404 where there is no such session of this principal at this URL.
pub(super) async fn session(arrival: &Arrival) -> Result<Option<Arc<Session>>, RpcError> {
    let Some(id) = single(&arrival.headers, SESSION)? else { return Ok(None) };
    let known = arrival.app.sessions.get(id, Transport::Streamable, Some(arrival.caller.principal())).await;
    let session = known
        .filter(|session| session.endpoint == arrival.endpoint)
        .ok_or_else(RpcError::session_not_found)?;
    if arrival.credential.runs_out() {
        arrival.app.sessions.renew(&session, &arrival.credential);
    }
    Ok(Some(session))
}

#[derive(Deserialize)]
struct Cancelled<'a> {
    #[serde(borrow, rename = "requestId")]
    request_id: &'a RawValue,
}

/// `notifications/cancelled`; a malformed one is ignored ("Cancellation: Error Handling").
pub(super) fn cancel(app: &App, session: &Session, params: Option<&bytes::Bytes>) {
    let wire = params.and_then(|raw| serde_json::from_slice::<Cancelled<'_>>(raw).ok());
    if let Some(id) = wire.and_then(|wire| RequestId::from_json(wire.request_id).ok()) {
        app.sessions.cancel(session, &id);
    }
}

async fn notified(arrival: &Arrival, method: &str, params: Option<&bytes::Bytes>) -> Result<(), Response> {
    let refuse = |error: RpcError| refusal(&arrival.headers, &error);
    let header = single(&arrival.headers, VERSION).map_err(refuse)?;
    if header.and_then(Revision::parse).is_some_and(Revision::is_modern) {
        return Ok(());
    }
    header_revision(header).map_err(refuse)?;
    if let Some(session) = session(arrival).await.map_err(refuse)?
        && method == "notifications/cancelled"
    {
        cancel(&arrival.app, &session, params);
    }
    Ok(())
}

/// A response of the client: the answer to a question of a running call. One that nobody waits for is ignored.
async fn responded(
    arrival: &Arrival,
    id: &RequestId,
    outcome: Result<bytes::Bytes, bytes::Bytes>,
) -> Result<(), Response> {
    let refuse = |error: RpcError| refusal(&arrival.headers, &error);
    if spoken_revision(arrival).map_err(refuse)?.is_modern() {
        let text =
            "2026-07-28 has no requests that clients answer; send the answers with the request that asked";
        return Err(refuse(RpcError::invalid_request(text)));
    }
    if let Some(session) = session(arrival).await.map_err(refuse)? {
        arrival.app.sessions.answered(&session, id, outcome);
    }
    Ok(())
}

/// A batch: 2025-03-26 only. Answered as one array, in the order of the requests.
async fn batch(arrival: Arrival, messages: Vec<Result<Message, Malformed>>, bytes: usize) -> Answer {
    admit::look(&arrival).map_err(|reached| limited_http(&arrival.headers, reached))?;
    // Each of its requests is admitted by itself. Without any it is counted, as what is not to be served is.
    if !messages.iter().any(|message| matches!(message, Ok(Message::Request { .. }))) {
        let _ = admit::plain(&arrival, 0).await;
    }
    arrival.app.limits.charge(&arrival.caller, bytes);
    let refuse = |error: RpcError| refusal(&arrival.headers, &error);
    let session = session(&arrival).await.map_err(refuse)?;
    let by_header = spoken_revision(&arrival).map_err(refuse)?;
    let revision = session.as_ref().map_or(by_header, |s| s.negotiated().revision);
    if !revision.has_batches() {
        let text = format!("MCP {revision} has no JSON-RPC batches; send one message per request");
        return Err(refuse(RpcError::invalid_request(text)));
    }
    // A task of its own: what it calls is settled, also when the client goes away.
    let work = {
        let arrival = Arc::new(arrival);
        arrival.app.tasks.clone().spawn(tracing::Instrument::in_current_span(async move {
            let each = |message| element(&arrival, session.as_ref(), revision, message);
            join_all(messages.into_iter().map(each)).await
        }))
    };
    let answers = work.await.map_err(|error| {
        tracing::error!(%error, "a batch ended without an answer");
        rpc_error(&RpcError::internal(&crate::id::CallId::new()))
    })?;
    let answers: Vec<String> = answers.into_iter().flatten().collect();
    if answers.is_empty() {
        return Ok(empty(StatusCode::ACCEPTED));
    }
    Ok(json_body(StatusCode::OK, format!("[{}]", answers.join(","))))
}

async fn element(
    arrival: &Arrival,
    session: Option<&Arc<Session>>,
    revision: Revision,
    message: Result<Message, Malformed>,
) -> Option<String> {
    match message {
        Err(malformed) => Some(jsonrpc::error_response(malformed.id.as_ref(), &malformed.error)),
        Ok(Message::Response { id, outcome }) => {
            if let Some(session) = session {
                arrival.app.sessions.answered(session, &id, outcome);
            }
            None
        }
        Ok(Message::Notification { method, params }) => {
            if let (Some(session), "notifications/cancelled") = (session, &*method) {
                cancel(&arrival.app, session, params.as_ref());
            }
            None
        }
        Ok(Message::Request { id, method, .. }) if &*method == "initialize" => {
            let error = RpcError::invalid_request("`initialize` must not be part of a batch");
            Some(jsonrpc::error_response(Some(&id), &error))
        }
        Ok(Message::Request { id, method, params }) => match Params::parse(params) {
            Err(error) => Some(jsonrpc::error_response(Some(&id), &error)),
            Ok(params) => {
                let lifted = Lifted { id, method, params, session: session.cloned(), revision };
                answer_alone(arrival, lifted, None).await.text
            }
        },
    }
}

pub(super) fn no_session(headers: &HeaderMap) -> Response {
    let text = "this method needs the session that its Mcp-Session-Id names; send messages with POST";
    let mut response = refusal(headers, &RpcError::new(code::HTTP, 405, text));
    response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("POST"));
    response
}

/// DELETE: ends the session that the request names.
pub async fn delete(arrival: &Arrival) -> Response {
    if let Err(reached) = admit::plain(arrival, 0).await {
        return limited_http(&arrival.headers, reached);
    }
    let found = match spoken_revision(arrival) {
        Ok(_) => session(arrival).await,
        Err(error) => Err(error),
    };
    match found {
        Err(error) => refusal(&arrival.headers, &error),
        Ok(None) => no_session(&arrival.headers),
        Ok(Some(session)) => {
            arrival.app.sessions.close_everywhere(&session, SessionEnd::Client).await;
            empty(StatusCode::NO_CONTENT)
        }
    }
}

//! HTTP+SSE (2024-11-05): `GET /sse` opens the stream, `POST /messages?sessionId=` sends to it.
//!
//! The `endpoint` event does not repeat the URL token that the client may have come with. Its `sessionId` is an
//! authority of its own: 256 random bits that are good for this session only. Four real clients POST to exactly that
//! URL without any other credential.

use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::response::Response;
use http::{HeaderMap, StatusCode};

use super::ask::Line;
use super::headers::take_key;
use super::hearing::{self, Hearing};
use super::legacy::{Lifted, answer_alone, initialized, negotiate};
use super::refuse::limited_http;
use super::reply::{Dialect, Finished, http_error, json_body, render, rpc_error};
use super::run::{self, Pace};
use super::streamable::cancel;
use super::{Answer, Arrival, admit, body};
use crate::app::App;
use crate::credentials::Refused;
use crate::mcp::Endpoint;
use crate::mcp::error::RpcError;
use crate::mcp::feed::{EventId, StreamId, endpoint};
use crate::mcp::jsonrpc::{Body, Malformed, Message};
use crate::mcp::request::Params;
use crate::mcp::session::{Negotiated, Opening, Session, Settle, Transport};
use crate::telemetry::labels::{Era, Resumption, SessionEnd, Stream};

/// `GET /sse`: opens a session and its stream, or brings back the stream of a session whose connection broke.
pub async fn connect(arrival: &Arrival) -> Response {
    open(arrival).await.unwrap_or_else(|response| response)
}

async fn open(arrival: &Arrival) -> Answer {
    let app = &arrival.app;
    admit::plain(arrival, 0).await.map_err(|reached| limited_http(&arrival.headers, reached))?;
    let place = hearing::place(arrival).await?;
    let (session, after) = match left_behind(arrival).await {
        Some(known) => {
            app.metrics.streams_resumed.inc(Resumption::Resumed);
            app.sessions.renew(&known.0, &arrival.credential);
            known
        }
        None => {
            let opening = Opening {
                caller: arrival.caller.clone(),
                credential: arrival.credential.clone(),
                endpoint: arrival.endpoint.clone(),
                transport: Transport::Sse,
                negotiated: Negotiated::default(),
            };
            let opened = app.sessions.open(opening).await.map_err(|reached| {
                app.metrics.rate_limited.inc(reached.scope);
                limited_http(&arrival.headers, reached)
            })?;
            (opened, 0)
        }
    };
    let feed = app.sessions.come_home(&session).await;
    let feed = feed.map_err(|_| rpc_error(&RpcError::session_not_found()))?;
    let path = match &arrival.endpoint.0 {
        None => "/messages".to_owned(),
        Some(server) => format!("/s/{server}/messages"),
    };
    let mut hearing = Hearing::new(arrival, &session, feed, after, Pace::default()).await;
    let id = EventId { stream: StreamId::Session(session.row), seq: after };
    let retry = run::retry_ms(app);
    hearing.first = Some(endpoint(id, retry, &format!("{path}?sessionId={}", session.id)));
    hearing.leaves = Some(Leaves { app: app.clone(), session });
    Ok(hearing.respond(Stream::Sse, place))
}

/// The session that the client comes back to, and what it read there last. A browser's `EventSource` reconnects by itself
/// and names the last event that had an id (HTML standard, "Server-sent events").
async fn left_behind(arrival: &Arrival) -> Option<(Arc<Session>, u64)> {
    let EventId { stream: StreamId::Session(row), seq } = hearing::last_event(&arrival.headers).ok()?? else {
        return None;
    };
    let session = arrival.app.sessions.left_behind(row, arrival.caller.principal()).await?;
    (session.endpoint == arrival.endpoint).then_some((session, seq))
}

/// Tells the session that its stream is gone.
pub(super) struct Leaves {
    app: Arc<App>,
    session: Arc<Session>,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        // A client that was sent to another process has not left its session.
        if !self.app.hands_over() {
            self.app.sessions.left(&self.session);
        }
    }
}

/// `POST /messages?sessionId=`: takes a message; its answer goes to the session's stream.
pub async fn message(
    app: Arc<App>,
    endpoint: Endpoint,
    id: Option<String>,
    headers: HeaderMap,
    http_body: HttpBody,
) -> Response {
    let taken = take(app, endpoint, id, headers, http_body).await;
    taken.unwrap_or_else(|response| response)
}

async fn take(
    app: Arc<App>,
    at: Endpoint,
    id: Option<String>,
    headers: HeaderMap,
    http_body: HttpBody,
) -> Answer {
    let known = match id {
        Some(id) => app.sessions.get(&id, Transport::Sse, None).await,
        None => None,
    };
    let session = known
        .filter(|session| session.endpoint == at)
        .ok_or_else(|| rpc_error(&RpcError::session_not_found()))?;
    let caller = match app.credentials.resolve_reference(&session.credential()).await {
        Ok(caller) => caller,
        Err(Refused::Unavailable) => return Err(rpc_error(&RpcError::unavailable())),
        Err(Refused::Invalid | Refused::Suspended { .. }) => {
            app.sessions.close_everywhere(&session, SessionEnd::Revoked).await;
            return Err(rpc_error(&RpcError::session_not_found()));
        }
    };
    let (read, bytes) = body::read(&app, &headers, http_body).await?;
    app.limits.charge(&caller, bytes);
    let credential = session.credential();
    let arrival = Arc::new(Arrival { app, caller, credential, endpoint: at, headers });
    if !matches!(&read, Body::Single(Message::Request { .. })) {
        // Requests are admitted one by one, and refused on the stream. What is none is counted but not refused: a caller
        // that is over its rate must still be able to cancel.
        let _ = admit::plain(&arrival, 0).await;
    }
    match read {
        Body::Single(message) => dispatch(&arrival, &session, Ok(message)),
        Body::Batch(messages) if session.negotiated().revision.has_batches() => {
            messages.into_iter().for_each(|message| dispatch(&arrival, &session, message));
        }
        Body::Batch(_) => {
            return Err(rpc_error(&RpcError::invalid_request("this revision has no JSON-RPC batches")));
        }
    }
    if session.closed.is_cancelled() {
        return Err(http_error(StatusCode::NOT_FOUND, "the session ended; connect to its SSE URL again"));
    }
    Ok(json_body(StatusCode::ACCEPTED, "\"Accepted\"".to_owned()))
}

/// Starts on one message. Requests run as tasks: the POST is answered at once.
fn dispatch(arrival: &Arc<Arrival>, session: &Arc<Session>, message: Result<Message, Malformed>) {
    match message {
        Err(malformed) => {
            let text = crate::mcp::jsonrpc::error_response(malformed.id.as_ref(), &malformed.error);
            say(&arrival.app, session, Some(text));
        }
        Ok(Message::Response { id, outcome }) => arrival.app.sessions.answered(session, &id, outcome),
        Ok(Message::Notification { method, params }) => {
            if &*method == "notifications/cancelled" {
                cancel(&arrival.app, session, params.as_ref());
            }
        }
        Ok(Message::Request { id, method, params }) => {
            let (arrival, session) = (arrival.clone(), session.clone());
            let tasks = arrival.app.tasks.clone();
            let span = tracing::Span::current();
            let tracked = session.work.token();
            tasks.spawn(tracing::Instrument::instrument(
                async move {
                    let _tracked = tracked;
                    let parsed = Params::parse(params).and_then(|mut params| {
                        take_key(&arrival.headers, &mut params)?;
                        Ok(params)
                    });
                    let params = match parsed {
                        Ok(params) => params,
                        Err(error) => {
                            let finished = render(&arrival.app, Dialect::Legacy, &id, &method, Err(error));
                            return say(&arrival.app, &session, finished.text);
                        }
                    };
                    // Until it is answered.
                    let mut running = None;
                    let finished = if &*method == "initialize" {
                        settle(&arrival, &session, &id, &params).await
                    } else {
                        running = arrival.app.sessions.runs_here(&session, &id);
                        let revision = session.negotiated().revision;
                        let lifted = Lifted { id, method, params, session: Some(session.clone()), revision };
                        let feed = session.speaker();
                        let line = feed.map(|feed| Line::new(&arrival, &session, feed));
                        answer_alone(&arrival, lifted, line.as_ref()).await
                    };
                    say(&arrival.app, &session, finished.text);
                    drop(running);
                },
                span,
            ));
        }
    }
}

/// `initialize`, which may come again on the same stream.
async fn settle(
    arrival: &Arrival,
    session: &Session,
    id: &crate::mcp::jsonrpc::RequestId,
    params: &Params,
) -> Finished {
    let app = &arrival.app;
    app.metrics.mcp_request(Era::Legacy, "initialize");
    let admitted = admit::plain(arrival, 0).await.map_err(RpcError::from);
    let outcome = admitted.and_then(|_| negotiate(params)).and_then(|negotiated| {
        let result = initialized(app, &negotiated);
        session.renegotiate(negotiated);
        result
    });
    app.sessions.settled(session, Settle::Negotiated).await;
    render(app, Dialect::Legacy, id, "initialize", outcome)
}

/// Puts a message on the session's stream. A reader that is too far behind is cut off: dropping a response would
/// leave its client waiting for ever.
fn say(app: &App, session: &Arc<Session>, text: Option<String>) {
    let (Some(text), Some(speaker)) = (text, session.speaker()) else { return };
    if speaker.must(&text).is_err() {
        app.sessions.close(session, SessionEnd::SlowReader);
    }
}

//! HTTP+SSE (2024-11-05): `GET /sse` opens the stream, `POST /messages?sessionId=` sends to it.
//!
//! The `endpoint` event does not repeat the URL token that the client may have come with. Its `sessionId` is an
//! authority of its own: 256 random bits that are good for this session only. Four real clients POST to exactly that
//! URL without any other credential.

use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::response::Response;
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc;

use super::legacy::{Lifted, answer_alone, initialized, negotiate};
use super::notices::Notices;
use super::reply::{Dialect, Finished, http_error, json_body, limited_http, render, rpc_error};
use super::stream::{event, named_event, sse};
use super::streamable::{cancel, texts};
use super::{Answer, Arrival, body};
use crate::app::App;
use crate::credentials::Refused;
use crate::limits::{Limited, Place, Scope};
use crate::mcp::Endpoint;
use crate::mcp::error::RpcError;
use crate::mcp::jsonrpc::{Body, Malformed, Message};
use crate::mcp::request::Params;
use crate::mcp::session::{Attached, Negotiated, Opening, Session, Transport};
use crate::telemetry::labels::{Era, SessionEnd, Stream};

/// Messages that may wait for a slow reader. Beyond that the stream is cut.
const QUEUE: usize = 256;

/// `GET /sse`: opens a session and its stream.
pub fn connect(arrival: &Arrival) -> Response {
    open(arrival).unwrap_or_else(|response| response)
}

fn open(arrival: &Arrival) -> Answer {
    let app = &arrival.app;
    let refused = |reached: Limited| {
        app.metrics.rate_limited.inc(reached.scope);
        limited_http(reached)
    };
    app.limits.admit(&arrival.caller).map_err(refused)?;
    let place = app.limits.place(arrival.caller.tenant(), Scope::Streams).map_err(refused)?;
    let (speak, hear) = mpsc::channel(QUEUE);
    let notices =
        Notices::subscribe(app, arrival.caller.clone(), arrival.credential.clone(), arrival.endpoint.clone());
    let session = app
        .sessions
        .open(Opening {
            caller: arrival.caller.clone(),
            credential: arrival.credential.clone(),
            endpoint: arrival.endpoint.clone(),
            transport: Transport::Sse,
            negotiated: Negotiated::default(),
            outbound: Some(speak),
        })
        .map_err(refused)?;
    let path = match &arrival.endpoint.0 {
        None => "/messages".to_owned(),
        Some(server) => format!("/s/{server}/messages"),
    };
    let first = named_event("endpoint", &format!("{path}?sessionId={}", session.id));
    let state = Conversation {
        first: Some(first),
        queue: Vec::new(),
        hear,
        notices,
        stopping: false,
        _attached: session.attach(),
        open: OpenStream { app: app.clone(), session, _place: place },
    };
    let messages = stream::unfold(state, |mut state| async move {
        let bytes = state.next().await?;
        Some((bytes, state))
    });
    Ok(sse(app, Stream::Sse, messages, ()))
}

/// Ends the session when its stream does.
struct OpenStream {
    app: Arc<App>,
    session: Arc<Session>,
    _place: Place,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.app.sessions.close(&self.session, SessionEnd::Disconnected);
    }
}

struct Conversation {
    first: Option<bytes::Bytes>,
    queue: Vec<String>,
    hear: mpsc::Receiver<String>,
    notices: Notices,
    /// Weir stops; the stream ends when nothing runs in the session any more.
    stopping: bool,
    _attached: Attached,
    open: OpenStream,
}

impl Conversation {
    async fn next(&mut self) -> Option<bytes::Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            if let Some(text) = self.queue.pop() {
                return Some(event(&text));
            }
            let session = &self.open.session;
            tokio::select! {
                biased;
                () = session.closed.cancelled() => return None,
                said = self.hear.recv() => return said.map(|text| event(&text)),
                () = session.work.wait(), if self.stopping => return None,
                notice = self.notices.next(), if !self.stopping => match notice {
                    Some(notice) => self.queue = texts(session, notice),
                    // Weir stops: what runs may still answer. Otherwise the credential is no longer good.
                    None if self.open.app.tasks.stopping().is_cancelled() => {
                        self.stopping = true;
                        session.work.close();
                    }
                    None => return None,
                },
            }
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
    endpoint: Endpoint,
    id: Option<String>,
    headers: HeaderMap,
    http_body: HttpBody,
) -> Answer {
    let session = id
        .and_then(|id| app.sessions.get(&id, Transport::Sse, None))
        .filter(|session| session.endpoint == endpoint)
        .ok_or_else(|| rpc_error(&RpcError::session_not_found()))?;
    let caller = match app.credentials.resolve_reference(&session.credential).await {
        Ok(caller) => caller,
        Err(Refused::Unavailable) => return Err(rpc_error(&RpcError::unavailable())),
        Err(Refused::Invalid | Refused::Suspended { .. }) => {
            app.sessions.close(&session, SessionEnd::Revoked);
            return Err(rpc_error(&RpcError::session_not_found()));
        }
    };
    let read = body::read(&app, &headers, http_body).await?;
    if !matches!(&read, Body::Single(Message::Request { .. })) {
        // Requests are admitted one by one, and refused on the stream. What is none is counted but not refused: a caller
        // that is over its rate must still be able to cancel.
        let _ = app.limits.admit(&caller);
    }
    let credential = session.credential.clone();
    let arrival = Arc::new(Arrival { app, caller, credential, endpoint, headers });
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
        Ok(Message::Response { .. }) => {}
        Ok(Message::Notification { method, params }) => {
            if &*method == "notifications/cancelled" {
                cancel(session, params.as_ref());
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
                    let params = match Params::parse(params) {
                        Ok(params) => params,
                        Err(error) => {
                            let finished = render(&arrival.app, Dialect::Legacy, &id, &method, Err(error));
                            return say(&arrival.app, &session, finished.text);
                        }
                    };
                    let finished = if &*method == "initialize" {
                        settle(&arrival, &session, &id, &params)
                    } else {
                        let revision = session.negotiated().revision;
                        let lifted = Lifted { id, method, params, session: Some(session.clone()), revision };
                        answer_alone(&arrival, None, lifted, session.outbound.clone()).await
                    };
                    say(&arrival.app, &session, finished.text);
                },
                span,
            ));
        }
    }
}

/// `initialize`, which may come again on the same stream.
fn settle(
    arrival: &Arrival,
    session: &Session,
    id: &crate::mcp::jsonrpc::RequestId,
    params: &Params,
) -> Finished {
    let app = &arrival.app;
    app.metrics.mcp_request(Era::Legacy, "initialize");
    let admitted = app.limits.admit(&arrival.caller).map_err(|reached| {
        app.metrics.rate_limited.inc(reached.scope);
        RpcError::from(reached)
    });
    let outcome = admitted.and_then(|_| negotiate(params)).and_then(|negotiated| {
        let result = initialized(app, &negotiated);
        session.renegotiate(negotiated);
        result
    });
    render(app, Dialect::Legacy, id, "initialize", outcome)
}

/// Puts a message on the session's stream. A reader that is too far behind is cut off: dropping a response would
/// leave its client waiting for ever.
fn say(app: &App, session: &Session, text: Option<String>) {
    let (Some(text), Some(outbound)) = (text, &session.outbound) else { return };
    if outbound.try_send(text).is_err() {
        app.sessions.close(session, SessionEnd::SlowReader);
    }
}

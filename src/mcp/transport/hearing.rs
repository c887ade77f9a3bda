//! The streams of legacy sessions that belong to no request: GET of `/mcp`, which also brings back streams that broke
//! off, and the stream of HTTP+SSE.
//!
//! A session hears every change once, on the newest of its streams (2025-11-25 "Multiple Connections"). What it has not
//! heard while none was open waits on the bus, for the next one.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;

use super::accept::Accepts;
use super::notices::{Notice, Notices, everything, notification};
use super::refuse::{limited_http, refusal};
use super::run::{Elsewhere, Pace, Reading};
use super::sse::Leaves;
use super::stream::sse;
use super::streamable::{no_session, session, spoken_revision};
use super::{Answer, Arrival, admit, headers};
use crate::limits::{Place, Scope};
use crate::mcp::bus::Changed;
use crate::mcp::error::{RpcError, code};
use crate::mcp::feed::{EventId, Feed, Reader, Step, StreamId};
use crate::mcp::session::Session;
use crate::telemetry::labels::{Resumption, Stream};

/// `Last-Event-ID` (HTML standard, "Server-sent events: The `Last-Event-ID` header").
const LAST_EVENT: &str = "last-event-id";

/// GET: the stream for what belongs to no request, or the rest of one that broke off. Only sessions have them;
/// elsewhere it is 405, on which clients fall back.
pub async fn get(arrival: &Arrival) -> Response {
    open(arrival).await.unwrap_or_else(|response| response)
}

async fn open(arrival: &Arrival) -> Answer {
    let headers = &arrival.headers;
    let refuse = |error: RpcError| refusal(headers, &error);
    admit::plain(arrival, 0).await.map_err(|reached| limited_http(headers, reached))?;
    spoken_revision(arrival).map_err(refuse)?;
    let session = session(arrival).await.map_err(refuse)?.ok_or_else(|| no_session(headers))?;
    if !Accepts::from(headers).stream {
        return Err(refuse(RpcError::new(code::HTTP, 406, "accept text/event-stream")));
    }
    let last = last_event(headers).map_err(refuse)?;
    let place = place(arrival).await?;
    let app = &arrival.app;
    let pace = Pace::of(app, session.revision());
    let found = match last {
        Some(last) => Some((last, app.sessions.resume(&session, last.stream).await)),
        None => None,
    };
    if let Some((_, feed)) = &found {
        let outcome = if feed.is_some() { Resumption::Resumed } else { Resumption::Gone };
        app.metrics.streams_resumed.inc(outcome);
    }
    match found {
        Some((EventId { stream: StreamId::Reply(number), seq }, Some(feed))) => {
            let is_here = session.feed(StreamId::Reply(number)).is_some();
            let elsewhere = (!is_here).then(|| Elsewhere(pace.hand_over(&session)));
            let reading = Reading { first: None, reader: feed.read(seq), pace, guard: None, elsewhere };
            Ok(reading.respond(app, Stream::Response, (session.attach(), Arc::new(place))))
        }
        Some((EventId { stream: StreamId::Listen(_), seq }, Some(feed))) => {
            Ok(Hearing::new(arrival, &session, feed, seq, pace).await.respond(Stream::Session, place))
        }
        None | Some((EventId { stream: StreamId::Listen(_), .. }, None)) => {
            let feed = session.listen_feed();
            let first = pace.first(&feed);
            let mut hearing = Hearing::new(arrival, &session, feed.clone(), 0, pace).await;
            session.keep(&feed);
            if last.is_some() {
                // Whatever the stream said that is no longer known.
                hearing.tell(Notice::Missed);
            }
            hearing.first = first;
            Ok(hearing.respond(Stream::Session, place))
        }
        Some(_) => Err(refuse(gone())),
    }
}

/// A place among the tenant's streams.
pub(super) async fn place(arrival: &Arrival) -> Result<Place, Response> {
    let place = arrival.app.limits.place(&arrival.caller, Scope::Streams).await;
    place.map_err(|reached| {
        arrival.app.metrics.rate_limited.inc(reached.scope);
        limited_http(&arrival.headers, reached)
    })
}

/// The event that the client read last, if it says so.
///
/// # Errors
/// −31008, HTTP 400 where it is none of ours.
pub(super) fn last_event(headers: &HeaderMap) -> Result<Option<EventId>, RpcError> {
    let text = headers::single(headers, LAST_EVENT)?.filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|_| gone())).transpose()
}

fn gone() -> RpcError {
    let text =
        "no stream is kept under this Last-Event-ID; open a stream without it, or send the request again";
    RpcError::new(code::GONE, 400, text)
}

/// A stream that carries notifications of a session.
pub(super) struct Hearing {
    /// What comes before everything.
    pub(super) first: Option<Bytes>,
    session: Arc<Session>,
    feed: Arc<Feed>,
    reader: Reader,
    pace: Pace,
    /// What the session hears, where this is its newest stream.
    notices: Notices,
    /// Weir stops; what runs in the session may still answer, where answers come on this stream.
    stopping: bool,
    /// It ended because Weir stops, and another process goes on with the session.
    hands_over: bool,
    /// Dropped last, when the stream no longer counts as open.
    pub(super) leaves: Option<Leaves>,
}

impl Hearing {
    pub(super) async fn new(
        arrival: &Arrival,
        session: &Arc<Session>,
        feed: Arc<Feed>,
        after: u64,
        pace: Pace,
    ) -> Self {
        let bus = &arrival.app.bus;
        let listener = arrival.app.sessions.listener(session, bus).await;
        let attached = session.listen(bus, listener);
        let hearing = Self {
            first: None,
            session: session.clone(),
            reader: feed.read(after),
            feed,
            pace,
            notices: Notices::of_session(arrival, attached),
            stopping: false,
            hands_over: false,
            leaves: None,
        };
        if hearing.reader.missed() {
            hearing.tell(Notice::Missed);
        }
        hearing
    }

    pub(super) fn respond(self, kind: Stream, place: Place) -> Response {
        let app = self.notices.app().clone();
        let events = stream::unfold(Some(self), |hearing| async move {
            let mut hearing = hearing?;
            if let Some(first) = hearing.first.take() {
                return Some((first, Some(hearing)));
            }
            match hearing.next().await {
                Step::Event(bytes) => Some((bytes, Some(hearing))),
                Step::Pause => hearing.pace.last().map(|bytes| (bytes, None)),
                Step::End => hearing.farewell().map(|bytes| (bytes, None)),
            }
        });
        sse(&app, kind, events, Arc::new(place))
    }

    async fn next(&mut self) -> Step {
        loop {
            let Self { session, notices, reader, pace, stopping, .. } = self;
            let notice = tokio::select! {
                biased;
                () = session.closed.cancelled() => return Step::End,
                step = reader.next() => return step,
                () = pace.over() => return Step::Pause,
                // An answer may have come between the look at the reader and this one.
                () = session.work.wait(), if *stopping => return reader.try_next().unwrap_or(Step::End),
                notice = notices.next(), if !*stopping => notice,
            };
            match notice {
                Some(notice) => self.tell(notice),
                None if self.drains() => {
                    self.stopping = true;
                    self.session.work.close();
                }
                None => {
                    self.hands_over = self.notices.app().hands_over();
                    return Step::End;
                }
            }
        }
    }

    /// The last word to a client that goes on elsewhere.
    fn farewell(&self) -> Option<Bytes> {
        self.pace.hand_over(&self.session).filter(|_| self.hands_over && !self.session.closed.is_cancelled())
    }

    /// There is room: everything said before was read before this was heard.
    fn tell(&self, notice: Notice) {
        let place = self.session.heard();
        for text in texts(&self.session, notice) {
            let _ = self.feed.must_of(&text, place);
        }
    }

    /// Whether answers still come on this stream although Weir stops. Otherwise the credential is no longer good.
    fn drains(&self) -> bool {
        self.notices.app().tasks.stopping().is_cancelled() && self.session.speaker().is_some()
    }
}

/// What a legacy session is told of a notice.
fn texts(session: &Session, notice: Notice) -> Vec<String> {
    match notice {
        Notice::Changed(Changed::Resource(uri)) if !session.subscribed(&uri) => Vec::new(),
        Notice::Changed(what) => vec![notification(&what, "")],
        Notice::Missed => {
            everything(session.subscriptions().iter()).map(|what| notification(&what, "")).collect()
        }
    }
}

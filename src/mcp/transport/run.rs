//! Running a request, and answering with one JSON object or, when something has to stream, with an event stream.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

use super::accept::Accepts;
use super::ask::{self, Line};
use super::reply::{Dialect, Finished, json_reply, render, with_rate};
use super::stream::sse;
use super::work::Work;
use crate::app::App;
use crate::limits::Standing;
use crate::mcp::feed::{Feed, Reader, Step, priming, retry};
use crate::mcp::session::{InFlight, Session};
use crate::mcp::{self, Exchange};
use crate::telemetry::labels::Stream;

/// Within how many milliseconds the clients of a process that stops come to another: they are spread over this time.
const HAND_OVER_MS: u64 = 250;

/// How far a request has come before anything had to be waited for.
pub enum Begun {
    /// To its answer.
    Answered(Response),
    /// To the core, which [`run`] waits for.
    Launched(Box<Launch>),
}

/// One request on its way, and how to answer it.
pub struct Launch {
    /// The request.
    pub exchange: Exchange,
    /// In which words to answer.
    pub dialect: Dialect,
    /// What the client can read.
    pub accepts: Accepts,
    /// The request's place in its session.
    pub in_flight: Option<InFlight>,
    /// What the client is told on the way, where it can read a stream and may be told something.
    pub feed: Option<Arc<Feed>>,
    /// How to ask the client something, where that goes by messages of their own (legacy era).
    pub line: Option<Line>,
    /// Cancels the request when the response is dropped (modern era: closing the stream is the cancellation).
    pub cancel_on_drop: Option<DropGuard>,
}

/// Runs the request. What may take time is [`Work`], so that it is settled even when the client goes away; lists are
/// answered right here.
pub async fn run(app: &Arc<App>, launch: Box<Launch>) -> Response {
    let Launch { mut exchange, dialect, accepts, in_flight, feed, line, cancel_on_drop } = *launch;
    let standing = exchange.admission.standing;
    let id = exchange.request.id.clone();
    if !mcp::runs_provider(&exchange.request.method) && accepts.json {
        let finished = Box::pin(finish(app, &mut exchange, dialect, None)).await;
        drop((in_flight, cancel_on_drop));
        return json_reply(finished, Some(standing));
    }
    let work = {
        let (app, line) = (app.clone(), line.clone());
        async move {
            let _in_flight = in_flight;
            finish(&app, &mut exchange, dialect, line.as_ref()).await
        }
    };
    let waiting = Waiting { work: Work::new(&app.tasks, id, work), feed, line, guard: cancel_on_drop };
    wait(app, waiting, accepts, standing).await
}

/// Answers a request and writes the answer down. Questions to a legacy client go over `line`.
pub async fn finish(app: &App, exchange: &mut Exchange, dialect: Dialect, line: Option<&Line>) -> Finished {
    let id = exchange.request.id.clone();
    let method = exchange.request.method.clone();
    let cancelled = exchange.cancelled.clone();
    let outcome = match dialect {
        Dialect::Modern => mcp::answer(app, exchange).await,
        Dialect::Legacy => ask::answer(app, exchange, line).await,
    };
    if cancelled.is_cancelled() {
        return Finished { text: None, status: 200, retry_after: None, limit: None };
    }
    render(app, dialect, &id, &method, outcome)
}

struct Waiting {
    work: Work,
    feed: Option<Arc<Feed>>,
    line: Option<Line>,
    guard: Option<DropGuard>,
}

async fn wait(app: &App, waiting: Waiting, accepts: Accepts, standing: Standing) -> Response {
    let Waiting { mut work, feed, line, guard } = waiting;
    if !accepts.stream {
        return json_reply(work.await, Some(standing));
    }
    let unheard = Unheard(feed.clone());
    let mut early = None;
    if accepts.json {
        tokio::select! {
            biased;
            finished = &mut work => {
                if feed.as_ref().is_none_or(|feed| feed.is_silent()) {
                    return json_reply(finished, Some(standing));
                }
                early = Some(finished);
            }
            () = stirred(feed.as_deref()) => {}
            () = tokio::time::sleep(app.config.mcp.stream_after.get()) => {}
        }
    }
    unheard.heard();
    let feed = feed.unwrap_or_else(Feed::passing);
    let reader = feed.read(0);
    let attached = line.as_ref().map(|line| {
        line.session.keep(&feed);
        line.session.attach()
    });
    let pace = line.as_ref().map_or_else(Pace::default, |line| Pace::of(app, line.session.revision()));
    let first = pace.first(&feed);
    let session = line.map(|line| line.session);
    let end = move |finished: Finished| {
        feed.end(finished.text.as_deref());
        if let Some(session) = session {
            session.trim();
        }
    };
    match early {
        Some(finished) => end(finished),
        None => {
            // A task of its own: what it comes to is said even where nobody reads it now.
            app.tasks.spawn(async move { end(work.await) }.in_current_span());
        }
    }
    let reading = Reading { first, reader, pace, guard, elsewhere: None };
    with_rate(reading.respond(app, Stream::Response, attached), Some(standing))
}

/// Ends the feed when the client goes away before it has a stream: it could not come back to what it does not know of, and
/// must not be asked anything.
struct Unheard(Option<Arc<Feed>>);

impl Unheard {
    fn heard(mut self) {
        self.0 = None;
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        if let Some(feed) = &self.0 {
            feed.end(None);
        }
    }
}

async fn stirred(feed: Option<&Feed>) {
    match feed {
        Some(feed) => feed.stirred().await,
        None => std::future::pending().await,
    }
}

/// When a stream lets its connection go for a while (2025-11-25 "Sending Messages to the Server", item 6). By default
/// never: clients of other revisions would not come back.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// Milliseconds after which the client is to come back; none where it does not know how.
    retry: Option<u64>,
    until: Option<Instant>,
    /// Fires when Weir stops. A stream that waits for an answer from here then stays until that has come.
    stopping: CancellationToken,
}

impl Pace {
    /// The pace of a stream that is opened now.
    pub fn of(app: &App, revision: mcp::revision::Revision) -> Self {
        let stopping = app.tasks.stopping().clone();
        if !revision.has_polling() {
            return Self { stopping, ..Self::default() };
        }
        let longest = app.config.mcp.stream_max.get();
        let until = (longest > Duration::ZERO).then(|| Instant::now() + longest);
        Self { retry: Some(retry_ms(app)), until, stopping }
    }

    /// The priming event, where the client knows it.
    pub fn first(&self, feed: &Feed) -> Option<Bytes> {
        Some(priming(feed.id()?, self.retry?))
    }

    /// What is said before the connection goes: when to come back. Nothing where it has to stay.
    pub fn last(&self) -> Option<Bytes> {
        self.retry.filter(|_| !self.stopping.is_cancelled()).map(retry)
    }

    /// What is said when Weir stops and the client goes on at another process: when to come there. That process sets the
    /// time anew with the first thing it says, so it may be short; it is another one for each session, so that not all come
    /// at once. Nothing for clients that would take it for a message.
    pub fn hand_over(&self, session: &Session) -> Option<Bytes> {
        let mut hasher = DefaultHasher::new();
        session.row.hash(&mut hasher);
        self.retry.map(|_| retry(hasher.finish() % HAND_OVER_MS))
    }

    /// Returns when Weir stops.
    async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Returns when the connection has to go.
    pub async fn over(&self) {
        match self.until {
            Some(until) if !self.stopping.is_cancelled() => tokio::time::sleep_until(until).await,
            _ => std::future::pending().await,
        }
    }
}

/// After how many milliseconds a client is to come back.
pub fn retry_ms(app: &App) -> u64 {
    u64::try_from(app.config.mcp.retry.get().as_millis()).unwrap_or(u64::MAX)
}

/// The stream of one request: what is said on the way, then its response.
pub struct Reading {
    /// What comes before everything.
    pub first: Option<Bytes>,
    /// The rest.
    pub reader: Reader,
    /// When to let the connection go.
    pub pace: Pace,
    /// Cancels the request when the stream is dropped before its end.
    pub guard: Option<DropGuard>,
    /// The answer comes from another process, whose word is only passed on here.
    pub elsewhere: Option<Elsewhere>,
}

/// What a client is told that waits here for the answer of another process, when this one stops.
pub struct Elsewhere(pub Option<Bytes>);

impl Reading {
    /// The stream as a response. `held` lives as long as it does.
    pub fn respond<G: Send + Unpin + 'static>(self, app: &App, kind: Stream, held: G) -> Response {
        let events = stream::unfold(Some(self), |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Next::Event(bytes) => Some((bytes, Some(reading))),
                Next::Last(bytes) => Some((bytes, None)),
                Next::End => None,
            }
        });
        sse(app, kind, events, held)
    }

    async fn next(&mut self) -> Next {
        if let Some(first) = self.first.take() {
            return Next::Event(first);
        }
        loop {
            let step = tokio::select! {
                biased;
                step = self.reader.next() => step,
                () = self.pace.over() => Step::Pause,
                () = self.pace.stopping(), if self.elsewhere.is_some() => {
                    return self.elsewhere.take().and_then(|word| word.0).map_or(Next::End, Next::Last);
                }
            };
            match step {
                Step::Event(bytes) => return Next::Event(bytes),
                Step::Pause => {
                    if let Some(last) = self.pace.last() {
                        return Next::Last(last);
                    }
                }
                Step::End => {
                    if let Some(guard) = self.guard.take() {
                        guard.disarm();
                    }
                    return Next::End;
                }
            }
        }
    }
}

enum Next {
    Event(Bytes),
    Last(Bytes),
    End,
}

/// A token and the guard that cancels it.
pub fn cancellation(on_drop: bool) -> (CancellationToken, Option<DropGuard>) {
    let token = CancellationToken::new();
    let guard = on_drop.then(|| token.clone().drop_guard());
    (token, guard)
}

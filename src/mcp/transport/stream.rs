//! Event streams as responses: heartbeats, and the headers that keep proxies from buffering them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::time::{Instant, Sleep};

use crate::app::App;
use crate::telemetry::labels::{Open, Stream as Kind};

/// A stream as a response. `held` lives as long as the stream does.
pub fn sse<S, G>(app: &App, kind: Kind, events: S, held: G) -> Response
where
    S: Stream<Item = Bytes> + Send + 'static,
    G: Send + Unpin + 'static,
{
    let every = app.config.mcp.heartbeat.get();
    let body = Heartbeats {
        events: Box::pin(events),
        every,
        timer: Box::pin(tokio::time::sleep(every)),
        _held: held,
        _open: app.metrics.streams_open.open(kind),
    };
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Puts a comment into a stream that was quiet for a while, so that proxies and clients keep it.
struct Heartbeats<S, G> {
    events: Pin<Box<S>>,
    every: Duration,
    timer: Pin<Box<Sleep>>,
    _held: G,
    _open: Open,
}

impl<S: Stream<Item = Bytes>, G: Unpin> Stream for Heartbeats<S, G> {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let quiet_until = Instant::now() + self.every;
        match self.events.as_mut().poll_next(cx) {
            Poll::Ready(Some(bytes)) => {
                self.timer.as_mut().reset(quiet_until);
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match self.timer.as_mut().poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => {
                    self.timer.as_mut().reset(quiet_until);
                    Poll::Ready(Some(Ok(Bytes::from_static(b": keep-alive\n\n"))))
                }
            },
        }
    }
}

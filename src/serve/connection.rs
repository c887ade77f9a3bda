//! One connection, from its first byte to its last.
//!
//! A connection that Weir wants to be rid of is never closed under a request. HTTP/1 clients are told with each answer to
//! connect anew, and whoever says nothing for a while is closed after a last look for what may have come. HTTP/2 has words
//! for it: GOAWAY, twice (RFC 9113 section 6.8), between which everything that the client sends is still served.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use futures_util::poll;
use http::HeaderValue;
use http::header::CONNECTION;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tower::ServiceExt;

use super::activity::{Activity, Look};
use super::peer::{self, Streams, Watched};
use crate::app::App;
use crate::config;

/// Streams at once on one HTTP/2 connection.
const MAX_H2_STREAMS: u32 = 128;
/// HTTP/2 pings a quiet connection at least this often and drops it when nothing comes back.
const H2_PING: Duration = Duration::from_secs(20);
/// How long a connection must have been idle before it is closed while Weir stops: its next request may be on its way.
const LAST_CALL: Duration = Duration::from_millis(500);
/// How often a new connection of HTTP/2 is looked at while Weir stops: it may bring one request before it is sent away.
const FRESH: Duration = Duration::from_millis(50);

/// Serves one connection, which has `_place` while it lasts.
///
/// A connection on which no request comes in time is dropped here: hyper's own limit begins with the first byte that tells
/// HTTP/1 from HTTP/2.
pub(super) async fn serve(
    app: Arc<App>,
    mut stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    _place: Option<OwnedSemaphorePermit>,
) {
    // Without this, Nagle's algorithm holds back every other small event of a stream for some 40 ms.
    let _ = stream.set_nodelay(true);
    let server = &app.config.server;
    let (request_limit, peer_limit) = (server.header_read_timeout.get(), server.dead_peer_timeout.get());
    peer::tune(&stream, peer_limit, app.config.mcp.heartbeat.get());
    let activity = Arc::new(Activity::new());
    let (seen, state) = (activity.clone(), app.clone());
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let (router, state) = (router.clone(), state.clone());
        let busy = seen.begin();
        async move {
            let is_http1 = request.version() < http::Version::HTTP_2;
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            // In a box, which goes when the head of the answer is there: hyper keeps the room of this future for the next
            // request, also while a stream is open.
            let mut response = match Box::pin(router.oneshot(request)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if is_http1 && state.is_draining() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| busy.until_end_of(body)))
        }
    });
    let first = tokio::select! {
        biased;
        first = tokio::time::timeout(request_limit, peer::first_bytes(&mut stream)) => first,
        () = last_call(&app) => return,
    };
    let Ok(Ok(first)) = first else { return };
    let is_h2 = peer::is_h2(&first);
    let io = TokioIo::new(Watched::new(stream, first, peer_limit));
    let line = Line { app: &app, activity: &activity, is_h2 };
    let ended = if is_h2 {
        // In a box, because HTTP/1 does not need so much room.
        let builder = http2(server, Streams::new(app.tasks.clone(), peer_limit));
        Box::pin(async {
            let connection = std::pin::pin!(builder.serve_connection(io, service));
            drive(connection, line, (request_limit, peer_limit)).await
        })
        .await
    } else {
        let connection = std::pin::pin!(http1(server).serve_connection(io, service));
        drive(connection, line, (request_limit, peer_limit)).await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Returns when a connection on which nothing comes has to go, because Weir stops.
async fn last_call(app: &App) {
    app.tasks.stopping().cancelled().await;
    tokio::time::sleep(LAST_CALL).await;
}

/// What is known of a connection.
#[derive(Clone, Copy)]
struct Line<'a> {
    app: &'a App,
    activity: &'a Activity,
    is_h2: bool,
}

impl Line<'_> {
    /// Returns when the connection is to be told that it ends.
    async fn over(self) {
        if self.is_h2 {
            self.app.draining().cancelled().await;
            // In boxes: every open connection would keep room for what happens once.
            Box::pin(self.has_been_used()).await;
        } else {
            // Whoever sends requests is told by their answers.
            self.app.tasks.stopping().cancelled().await;
            Box::pin(self.is_idle()).await;
        }
    }

    /// Returns when there was a request, or none came although there was time for one: a client that is sent away before its
    /// first would connect anew for ever.
    async fn has_been_used(self) {
        let mut last_call = std::pin::pin!(last_call(self.app));
        while self.activity.requests() == 0 {
            tokio::select! {
                () = tokio::time::sleep(FRESH) => {}
                () = &mut last_call => return,
            }
        }
    }

    /// Returns when no request was open for a while.
    async fn is_idle(self) {
        loop {
            let before = self.activity.requests();
            tokio::time::sleep(LAST_CALL).await;
            if !self.activity.is_busy() && self.activity.requests() == before {
                return;
            }
        }
    }
}

/// Runs a connection until it ends, or until nothing comes or goes for too long.
async fn drive<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    line: Line<'_>,
    (request_limit, peer_limit): (Duration, Duration),
) -> Result<(), C::Error> {
    let mut over = std::pin::pin!(line.over());
    let mut told = false;
    let mut next_look = Instant::now() + request_limit;
    let mut closing = None::<Instant>;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            () = over.as_mut(), if !told => {
                // What has reached the kernel by now is read before the connection is closed.
                tokio::task::yield_now().await;
                if let Poll::Ready(ended) = poll!(connection.as_mut()) {
                    return ended;
                }
                if !line.is_h2 && line.activity.is_busy() {
                    over.set(line.over());
                    continue;
                }
                told = true;
                connection.as_mut().graceful_shutdown();
                continue;
            }
            () = tokio::time::sleep_until(next_look) => next_look = Instant::now() + request_limit,
        }
        match line.activity.look() {
            // hyper's own timer runs from the first bytes of a request head on; nothing has come so far.
            Look::Silent => return Ok(()),
            // hyper closes it.
            Look::Quiet if !line.is_h2 => {}
            // What is left of finished responses may still have to go out.
            Look::Quiet if closing.is_some_and(|since| since.elapsed() >= peer_limit) => return Ok(()),
            Look::Quiet => {
                closing.get_or_insert_with(Instant::now);
                connection.as_mut().graceful_shutdown();
            }
            Look::Busy => {}
        }
    }
}

/// HTTP/1 within the limits that are configured.
fn http1(server: &config::Server) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(server.header_read_timeout.get())
        .max_headers(server.max_headers)
        .max_buf_size(server.max_header_bytes);
    builder
}

/// HTTP/2 within the limits that are configured.
fn http2(server: &config::Server, streams: Streams) -> http2::Builder<Streams> {
    let ping = H2_PING.min(server.dead_peer_timeout.get() / 2);
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_H2_STREAMS)
        .max_header_list_size(u32::try_from(server.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(ping)
        .keep_alive_timeout(ping);
    builder
}

//! The service as a function: state, listeners and a shutdown future in; it returns when everything has ended.

mod peer;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http_body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::app::App;
use crate::error::{Error, Result};
use crate::http::router;
use crate::mcp::session::AT_ONCE;
use crate::telemetry::labels::SessionEnd;
use peer::{Streams, Turn, Watched};

/// Streams at once on one HTTP/2 connection.
const MAX_H2_STREAMS: u32 = 128;
/// HTTP/2 pings a quiet connection at least this often and drops it when nothing comes back.
const H2_PING: Duration = Duration::from_secs(20);
/// Largest piece of an HTTP/2 response that is handed out at once, in bytes.
const H2_PIECE: usize = 64 * 1024;
/// How long to wait after `accept` failed, which it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections at once on the admin and metrics listeners.
const SIDE_CONNECTIONS: usize = 256;

/// Bound sockets. Binding is the caller's, so that it knows the ports before anything is served.
pub struct Listeners {
    /// MCP, health, metadata, and the admin API where it has no listener of its own.
    pub public: TcpListener,
    /// The admin API.
    pub admin: Option<TcpListener>,
    /// Prometheus.
    pub metrics: Option<TcpListener>,
}

impl Listeners {
    /// Binds what is configured.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key and the address that cannot be bound.
    pub async fn bind(config: &crate::config::Config) -> Result<Self> {
        let admin = config.admin.listen.filter(|_| config.admin.enabled);
        Ok(Self {
            public: bind("server.listen", config.server.listen).await?,
            admin: bind_some("admin.listen", admin).await?,
            metrics: bind_some("metrics.listen", config.metrics.listen).await?,
        })
    }
}

async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| {
        Error::Invalid(format!("{key}: cannot listen on {address}: {e}; choose another address"))
    })
}

async fn bind_some(key: &str, address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    match address {
        Some(address) => bind(key, address).await.map(Some),
        None => Ok(None),
    }
}

/// Serves until `shutdown` resolves, then drains: `/ready` says no, after `server.drain_delay_ms` the listeners close and
/// streams end, calls in flight may finish within `server.drain_timeout_ms`, and what is left is cut.
pub async fn run(app: Arc<App>, listeners: Listeners, shutdown: impl Future<Output = ()>) {
    let stop_accepting = CancellationToken::new();
    let Listeners { public, admin, metrics } = listeners;
    let limit = app.config.server.max_connections;
    accept(&app, public, router::public(&app), limit, stop_accepting.clone());
    if let Some(listener) = admin {
        accept(&app, listener, router::admin(&app), SIDE_CONNECTIONS, stop_accepting.clone());
    }
    if let Some(listener) = metrics {
        accept(&app, listener, router::metrics(&app), SIDE_CONNECTIONS, stop_accepting.clone());
    }

    shutdown.await;
    tracing::info!("stopping: no longer ready");
    app.start_draining();
    tokio::time::sleep(app.config.server.drain_delay.get()).await;
    stop_accepting.cancel();
    let limit = app.config.server.drain_timeout.get();
    if tokio::time::timeout(limit, app.tasks.shut_down()).await.is_err() {
        tracing::warn!(left = app.tasks.running(), "the drain limit is over; cutting what still runs");
    }
    if app.has_peers() {
        crate::app::peers::leave(&app).await;
    } else {
        for some in app.sessions.select(|_| true).chunks(AT_ONCE) {
            some.iter().for_each(|session| app.sessions.close(session, SessionEnd::Shutdown));
            app.usage.flush().await;
        }
    }
    app.last_tasks.shut_down().await;
    app.db.close().await;
    tracing::info!("stopped");
}

fn accept(app: &Arc<App>, listener: TcpListener, router: Router, limit: usize, stop: CancellationToken) {
    let app = app.clone();
    let places = Arc::new(Semaphore::new(limit));
    app.tasks.clone().spawn(async move {
        loop {
            let place = tokio::select! {
                () = stop.cancelled() => return,
                place = places.clone().acquire_owned() => place,
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Without a block around it: what a future holds and then awaits takes its room twice.
                    let place = Place { stop: stop.clone(), _permit: place.ok() };
                    app.tasks.spawn(connection(app.clone(), stream, peer, router.clone(), place));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
}

/// Serves one connection. When Weir stops it takes no further request and ends after the one in flight.
///
/// A connection on which no request comes in time is dropped here: hyper's own limit begins with the first byte that tells
/// HTTP/1 from HTTP/2.
async fn connection(app: Arc<App>, mut stream: TcpStream, peer: SocketAddr, router: Router, place: Place) {
    // Without this, Nagle's algorithm holds back every other small event of a stream for some 40 ms.
    let _ = stream.set_nodelay(true);
    let server = &app.config.server;
    let (request_limit, peer_limit) = (server.header_read_timeout.get(), server.dead_peer_timeout.get());
    peer::tune(&stream, peer_limit, app.config.mcp.heartbeat.get());
    let activity = Arc::new(Activity::new());
    let seen = activity.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        let busy = seen.begin(request.version());
        async move {
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            // In a box, which goes when the head of the answer is there: hyper keeps the room of this future for the next
            // request, also while a stream is open.
            let response = match Box::pin(router.oneshot(request)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            Ok::<_, Infallible>(match busy {
                None => response,
                Some(busy) => response.map(|body| {
                    let turn = Turn::of_this_stream();
                    axum::body::Body::new(Guarded { body, rest: Bytes::new(), turn, _busy: busy })
                }),
            })
        }
    });
    let first = tokio::select! {
        () = place.stop.cancelled() => return,
        first = tokio::time::timeout(request_limit, peer::first_bytes(&mut stream)) => first,
    };
    let Ok(Ok(first)) = first else { return };
    let is_h2 = peer::is_h2(&first);
    let io = TokioIo::new(Watched::new(stream, first, peer_limit));
    let ended = if is_h2 {
        // In a box, because HTTP/1 does not need so much room.
        let builder = http2(server, Streams::new(app.tasks.clone(), peer_limit));
        Box::pin(async {
            let connection = std::pin::pin!(builder.serve_connection(io, service));
            drive(connection, &activity, &place.stop, (request_limit, peer_limit)).await
        })
        .await
    } else {
        let connection = std::pin::pin!(http1(server).serve_connection(io, service));
        drive(connection, &activity, &place.stop, (request_limit, peer_limit)).await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// What a connection needs to be let in.
struct Place {
    stop: CancellationToken,
    _permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// Runs a connection until it ends, or until nothing comes or goes for too long.
async fn drive<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    activity: &Activity,
    stop: &CancellationToken,
    (request_limit, peer_limit): (Duration, Duration),
) -> std::result::Result<(), C::Error> {
    let mut closing = None::<Instant>;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                return connection.await;
            }
            () = tokio::time::sleep(request_limit) => {}
        }
        match activity.look() {
            // hyper's own timer runs from the first bytes of a request head on; nothing has come so far.
            Look::Silent => return Ok(()),
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
fn http1(server: &crate::config::Server) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(server.header_read_timeout.get())
        .max_headers(server.max_headers)
        .max_buf_size(server.max_header_bytes);
    builder
}

/// HTTP/2 within the limits that are configured.
fn http2(server: &crate::config::Server, streams: Streams) -> http2::Builder<Streams> {
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

/// What happens on a connection, as far as hyper does not watch it: whether any request came, and for HTTP/2, whose pings a
/// peer may answer for ever, whether any is open. HTTP/1 closes quiet connections by its header timer.
#[derive(Debug)]
struct Activity {
    seen: AtomicBool,
    is_h2: AtomicBool,
    open: AtomicUsize,
    /// No request was open at the last look.
    was_quiet: AtomicBool,
}

/// What a look at a connection shows.
enum Look {
    /// No request in all its time.
    Silent,
    /// HTTP/2, and no request open now or at the last look.
    Quiet,
    /// In use.
    Busy,
}

impl Activity {
    fn new() -> Self {
        let (seen, is_h2, was_quiet) =
            (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        Self { seen, is_h2, open: AtomicUsize::new(0), was_quiet }
    }

    /// Notes a request; for HTTP/2, until the guard is dropped with the end of its response.
    fn begin(self: &Arc<Self>, version: http::Version) -> Option<Busy> {
        self.seen.store(true, Ordering::Relaxed);
        if version != http::Version::HTTP_2 {
            return None;
        }
        self.is_h2.store(true, Ordering::Relaxed);
        self.was_quiet.store(false, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Busy(self.clone()))
    }

    fn look(&self) -> Look {
        if !self.seen.load(Ordering::Relaxed) {
            return Look::Silent;
        }
        let quiet = self.is_h2.load(Ordering::Relaxed) && self.open.load(Ordering::Relaxed) == 0;
        if self.was_quiet.swap(quiet, Ordering::Relaxed) && quiet { Look::Quiet } else { Look::Busy }
    }
}

/// An HTTP/2 request that is open.
struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response body that keeps its request open, and notes whose turn it is. Hands out pieces: what hyper has taken waits
/// for the peer unseen.
struct Guarded {
    body: axum::body::Body,
    rest: Bytes,
    turn: Option<Arc<Turn>>,
    _busy: Busy,
}

impl Guarded {
    fn waits_for_peer(&self) {
        if let Some(turn) = &self.turn {
            turn.waits_for_peer();
        }
    }

    fn waits_for_us(&self) {
        if let Some(turn) = &self.turn {
            turn.waits_for_us();
        }
    }

    /// The next piece of data that is there already.
    fn piece(&mut self) -> Frame<Bytes> {
        let end = self.rest.len().min(H2_PIECE);
        Frame::data(self.rest.split_to(end))
    }
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            self.waits_for_peer();
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.waits_for_us();
            return Poll::Pending;
        };
        self.waits_for_peer();
        Poll::Ready(polled.map(|frame| match frame?.into_data() {
            Ok(data) => {
                self.rest = data;
                Ok(self.piece())
            }
            Err(trailers) => Ok(trailers),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

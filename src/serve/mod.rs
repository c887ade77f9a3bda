//! The service as a function: state, listeners and a shutdown future in; it returns when everything has ended.

mod accept;
mod activity;
mod connection;
mod peer;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::{App, peers};
use crate::error::{Error, Result};
use crate::http::router;
use crate::mcp::session::AT_ONCE;
use crate::telemetry::labels::SessionEnd;

/// Connections at once on the admin and metrics listeners.
const SIDE_CONNECTIONS: usize = 256;
/// How long the other replicas may take to hear what is left to say.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the last records may take to be written.
const LAST_RECORDS: Duration = Duration::from_secs(5);

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

/// Serves until `shutdown` resolves, then stops:
///
/// 1. `/ready` says no, and HTTP clients are asked to connect anew (`Connection: close`, GOAWAY). For
///    `server.drain_delay_ms` everything is served as before, so that a balancer can send them elsewhere.
/// 2. The listeners close; whoever has connected by then is served.
/// 3. Streams end, requests that have come are answered, and connections close, within `server.drain_timeout_ms`. What is
///    left then is cut.
/// 4. Sessions end, where no other process has them, and what the journal holds is written.
pub async fn run(app: Arc<App>, listeners: Listeners, shutdown: impl Future<Output = ()>) {
    run_or_cut(app, listeners, shutdown, std::future::pending()).await;
}

/// The same; once `cut` resolves, too, nothing is waited for but the journal.
pub async fn run_or_cut(
    app: Arc<App>,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
    cut: impl Future<Output = ()>,
) {
    let stop_accepting = CancellationToken::new();
    let Listeners { public, admin, metrics } = listeners;
    let limit = app.config.server.max_connections;
    let mut accepting = vec![accept::run(&app, public, router::public(&app), limit, &stop_accepting)];
    if let Some(listener) = admin {
        let router = router::admin(&app);
        accepting.push(accept::run(&app, listener, router, SIDE_CONNECTIONS, &stop_accepting));
    }
    if let Some(listener) = metrics {
        let router = router::metrics(&app);
        accepting.push(accept::run(&app, listener, router, SIDE_CONNECTIONS, &stop_accepting));
    }

    shutdown.await;
    let drained = async {
        let delay = app.config.server.drain_delay.get();
        tracing::info!(serving_on_ms = delay.as_millis(), "stopping: no longer ready");
        app.start_draining();
        tokio::time::sleep(delay).await;
        stop_accepting.cancel();
        join_all(accepting).await;
        tracing::info!("stopping: no longer accepting connections; ending streams, finishing requests");
        let limit = app.config.server.drain_timeout.get();
        tokio::time::timeout(limit, app.tasks.shut_down()).await
    };
    tokio::select! {
        drained = drained => match drained {
            Ok(()) => tracing::info!("stopping: everything has ended"),
            Err(_) => {
                tracing::warn!(left = app.tasks.running(), "the drain limit is over; cutting what still runs");
            }
        },
        () = cut => tracing::warn!(left = app.tasks.running(), "told to stop at once; cutting what still runs"),
    }
    app.start_draining();
    stop_accepting.cancel();
    app.tasks.stopping().cancel();
    put_away(&app).await;
    tracing::info!("stopped");
}

/// The end of what outlives connections.
async fn put_away(app: &App) {
    if app.has_peers() {
        // Their sessions go on without this replica.
        if tokio::time::timeout(LAST_WORDS, peers::leave(app)).await.is_err() {
            tracing::error!("the other replicas could not be told of the end; they will notice");
        }
    }
    let recorded = async {
        if !app.has_peers() {
            for some in app.sessions.select(|_| true).chunks(AT_ONCE) {
                some.iter().for_each(|session| app.sessions.close(session, SessionEnd::Shutdown));
                app.usage.flush().await;
            }
        }
        app.last_tasks.shut_down().await;
    };
    if tokio::time::timeout(LAST_RECORDS, recorded).await.is_err() {
        let lost = u64::try_from(app.metrics.calls_queued.get()).unwrap_or(0);
        app.metrics.calls_dropped.inc_by(lost);
        tracing::error!(lost, "records could not be written before the end");
    }
    app.db.close().await;
}

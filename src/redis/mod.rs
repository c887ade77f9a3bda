//! Redis: the state that replicas share and that may be lost at any moment without a wrong charge or a leak between
//! tenants. Single node, Sentinel or Cluster, by the URL; Valkey works the same.
//!
//! Commands of requests share one multiplexed connection of the pool: a check-out per command would cost two more
//! commands. Nothing here waits for a connection: while there is none, or the breaker is open, an operation fails at once
//! and its caller does without, as `docs/OPERATIONS.md` says for each. Every operation has a timeout.

mod connection;
pub mod keys;
pub mod limits;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use recloser::{AsyncRecloser, Recloser};
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, ScriptInvocation};
use secrecy::ExposeSecret;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::error::{Error, Result};
use crate::telemetry::metrics::Metrics;
use connection::Pool;
use keys::Keys;

pub use connection::Connection;

/// How often the connection is tried while nothing else goes over it.
const PING: Duration = Duration::from_millis(500);
/// Shortest and longest wait between two attempts to connect; jitter comes on top.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// Outcomes that the closed breaker looks at, of which half must have failed to open it.
const CLOSED_LOOK: usize = 8;
/// Outcomes that the half-open breaker looks at.
const HALF_OPEN_LOOK: usize = 2;
/// How long the breaker stays open before it lets something through again.
const OPEN: Duration = Duration::from_millis(500);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);

/// Redis did not do what it was asked, or not in time. The cause is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Redis is not available")]
pub struct Down;

/// The shared state. Cheap to clone: every clone uses the same connection.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    pool: Pool,
    keys: Keys,
    timeout: Duration,
    lane: Mutex<Option<Connection>>,
    breaker: AsyncRecloser,
    /// The supervisor has something to do.
    broken: Notify,
    up: AtomicBool,
    /// Counts connections that came about; those who lean on one look here.
    connected: watch::Sender<u64>,
    /// Round trips made, for the figures.
    trips: AtomicU64,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

impl Redis {
    /// Redis as configured; nothing is connected before [`Redis::supervise`] runs.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the URL or the certificate authority cannot be used.
    pub fn new(config: &config::Redis, metrics: Arc<Metrics>) -> Result<Self> {
        let pool = Pool::new(config.url.expose_secret(), config.ca_file.as_deref())
            .map_err(|text| Error::Invalid(format!("redis.url: {text}")))?;
        let breaker = Recloser::custom()
            .error_rate(0.5)
            .closed_len(CLOSED_LOOK)
            .half_open_len(HALF_OPEN_LOOK)
            .open_wait(OPEN)
            .build();
        Ok(Self(Arc::new(Inner {
            pool,
            keys: Keys::new(&config.prefix),
            timeout: config.timeout.get(),
            lane: Mutex::default(),
            breaker: breaker.into(),
            broken: Notify::new(),
            up: AtomicBool::new(false),
            connected: watch::Sender::new(0),
            trips: AtomicU64::new(0),
            metrics,
        })))
    }

    /// The names of all keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Whether the last look found it working.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.up.load(Ordering::Acquire)
    }

    /// Counts the connections that came about; changes when Redis is there again.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<u64> {
        self.0.connected.subscribe()
    }

    /// Round trips made so far.
    #[must_use]
    pub fn trips(&self) -> u64 {
        self.0.trips.load(Ordering::Relaxed)
    }

    /// Runs one command.
    ///
    /// # Errors
    /// [`Down`].
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Down> {
        self.guarded(async |mut lane| command.query_async(&mut lane).await).await
    }

    /// Runs several commands in one round trip. In a Cluster all of their keys must be in one slot.
    ///
    /// # Errors
    /// [`Down`].
    pub async fn pipe<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Down> {
        self.guarded(async |mut lane| commands.query_async(&mut lane).await).await
    }

    /// Runs a script, by its digest where Redis knows it.
    ///
    /// # Errors
    /// [`Down`].
    pub async fn script<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Down> {
        self.guarded(async |mut lane| script.invoke_async(&mut lane).await).await
    }

    /// A connection of its own, for commands that block.
    ///
    /// # Errors
    /// [`Down`].
    pub async fn own_connection(&self) -> Result<Connection, Down> {
        match tokio::time::timeout(CONNECT, self.0.pool.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no connection to Redis");
                Err(Down)
            }
            Err(_) => Err(Down),
        }
    }

    async fn guarded<T>(
        &self,
        operation: impl AsyncFnOnce(Connection) -> std::result::Result<T, RedisError>,
    ) -> Result<T, Down> {
        let lane = self.lane().clone().ok_or(Down)?;
        self.0.trips.fetch_add(1, Ordering::Relaxed);
        let limited = async {
            match tokio::time::timeout(self.0.timeout, operation(lane)).await {
                Ok(Ok(done)) => Ok(Ok(done)),
                Ok(Err(error)) if is_answer(&error) => Ok(Err(error)),
                Ok(Err(error)) => Err(Some(error)),
                Err(_) => Err(None),
            }
        };
        match self.0.breaker.call(limited).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(refused)) => {
                tracing::error!(error = %refused, "Redis refused a command");
                Err(Down)
            }
            Err(recloser::Error::Inner(Some(error))) => {
                tracing::debug!(%error, "a command did not reach Redis");
                self.0.broken.notify_one();
                Err(Down)
            }
            Err(recloser::Error::Inner(None)) => {
                tracing::debug!("Redis did not answer in time");
                self.0.broken.notify_one();
                Err(Down)
            }
            Err(recloser::Error::Rejected) => Err(Down),
        }
    }

    fn lane(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.0.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the connection alive until `stop` fires: connects, tries it from time to time, connects again.
    pub async fn supervise(self, stop: CancellationToken) {
        // In a box: connecting keeps a lot of room.
        let _ = stop.run_until_cancelled(Box::pin(self.keep())).await;
    }

    async fn keep(&self) {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(RETRY.0)
            .with_max_delay(RETRY.1)
            .with_jitter()
            .without_max_times();
        loop {
            let connect = || async { self.own_connection().await };
            let Ok(lane) = connect.retry(backoff).notify(|_, _| self.note(false)).await else { continue };
            if !answers(lane.clone(), self.0.timeout).await {
                self.note(false);
                tokio::time::sleep(RETRY.0).await;
                continue;
            }
            *self.lane() = Some(lane.clone());
            self.note(true);
            self.0.connected.send_modify(|count| *count += 1);
            self.watch(lane).await;
            *self.lane() = None;
            self.note(false);
        }
    }

    /// Returns when the connection no longer works.
    async fn watch(&self, lane: Connection) {
        loop {
            let _ = tokio::time::timeout(PING, self.0.broken.notified()).await;
            if !answers(lane.clone(), self.0.timeout).await {
                return;
            }
        }
    }

    fn note(&self, up: bool) {
        let before = self.0.up.swap(up, Ordering::AcqRel);
        self.0.metrics.redis_up.set(i64::from(up));
        match (before, up) {
            (false, true) => tracing::info!("Redis is there"),
            (true, false) => tracing::warn!("Redis is away; this replica does without it"),
            _ => {}
        }
    }
}

async fn answers(mut lane: Connection, limit: Duration) -> bool {
    let ping = redis::cmd("PING");
    let asked = ping.query_async::<()>(&mut lane);
    matches!(tokio::time::timeout(limit, asked).await, Ok(Ok(())))
}

/// Whether Redis itself said no, so that it is there. While it loads its data or has lost its master it is not.
fn is_answer(error: &RedisError) -> bool {
    use redis::ErrorKind;
    !error.is_io_error()
        && !error.is_unrecoverable_error()
        && !error.is_cluster_error()
        && matches!(error.kind(), ErrorKind::Server(kind) if !is_absence(kind))
        || matches!(error.kind(), ErrorKind::UnexpectedReturnType | ErrorKind::Extension)
}

fn is_absence(kind: redis::ServerErrorKind) -> bool {
    use redis::ServerErrorKind as Kind;
    matches!(kind, Kind::BusyLoading | Kind::MasterDown | Kind::ReadOnly | Kind::ClusterDown | Kind::TryAgain)
}

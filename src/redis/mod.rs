//! Redis: the state that replicas share and that may be lost at any moment without a wrong charge or a leak between
//! tenants. Single node, Sentinel or Cluster, by the URL; Valkey works the same.
//!
//! Commands of requests share one multiplexed connection, the lane: a check-out per command would cost two more commands.
//! Nothing here waits for a connection: while there is none, or the breaker is open, an operation fails at once and its
//! caller does without, as `docs/OPERATIONS.md` says for each. Every operation has a time limit.

mod connection;
mod delivery;
pub mod keys;
pub mod limits;
mod supervision;
#[cfg(test)]
pub(crate) mod testing;
mod url;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use recloser::{AsyncRecloser, Recloser};
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ScriptInvocation, ServerErrorKind};
use secrecy::ExposeSecret;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config;
use crate::error::{Error, Result};
use crate::telemetry::metrics::Metrics;
use connection::{Pools, Purpose};
use keys::Keys;

pub use connection::{Connection, Held};
pub use delivery::Outcome;

/// The longest that a command on a connection of its own may be told to wait for something.
pub const LONGEST_BLOCK: Duration = Duration::from_secs(1);
/// How long the answer may take beyond that.
const BLOCK_ANSWER: Duration = Duration::from_secs(1);
/// What deliveries, which are large and for which nobody waits, have at least.
const DELIVERY: Duration = Duration::from_secs(1);
/// How long a connection may take to come about, with everybody who must be asked for it.
const CONNECT: Duration = Duration::from_secs(3);
/// Outcomes that the closed breaker looks at, of which half must have failed to open it.
const CLOSED_LOOK: usize = 8;
/// Outcomes that the half-open breaker looks at.
const HALF_OPEN_LOOK: usize = 2;
/// How long the breaker stays open before it lets something through again.
const OPEN: Duration = Duration::from_millis(500);
/// How often it is logged that Redis refuses commands; each is counted.
const SAY_REFUSALS: Duration = Duration::from_secs(10);

/// Redis did not do what it was asked, or not in time. The cause is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Redis is not available")]
pub struct Down;

/// The shared state. Cheap to clone: every clone uses the same connection.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    pools: Pools,
    keys: Keys,
    timeout: Duration,
    lane: Mutex<Option<Lane>>,
    /// The supervisor has something to look at.
    doubted: Notify,
    up: AtomicBool,
    /// Counts connections that came about; those who lean on one look here.
    connected: watch::Sender<u64>,
    /// Round trips made, for the figures.
    trips: AtomicU64,
    /// When it was last said that commands are refused.
    said_refused: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

/// The connection that commands share, and the breaker of its own: a new connection begins with a closed one.
#[derive(Clone)]
struct Lane {
    connection: Connection,
    breaker: AsyncRecloser,
}

impl Lane {
    fn new(connection: Connection) -> Self {
        let breaker = Recloser::custom()
            .error_rate(0.5)
            .closed_len(CLOSED_LOOK)
            .half_open_len(HALF_OPEN_LOOK)
            .open_wait(OPEN)
            .build();
        Self { connection, breaker: breaker.into() }
    }
}

/// Why the breaker counts an operation as failed.
enum Trouble<T> {
    /// No answer, or one that means that Redis is not there.
    Error(RedisError),
    /// No answer in time.
    Late,
    /// An answer, parts of which mean that Redis is not there.
    Within(T),
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
        let timeout = config.timeout.get();
        let answers = (timeout.max(DELIVERY), LONGEST_BLOCK + BLOCK_ANSWER);
        let pools = Pools::new(config.url.expose_secret(), config.ca_file.as_deref(), answers);
        Ok(Self(Arc::new(Inner {
            pools: pools.map_err(Error::Invalid)?,
            keys: Keys::new(&config.prefix),
            timeout,
            lane: Mutex::default(),
            doubted: Notify::new(),
            up: AtomicBool::new(false),
            connected: watch::Sender::new(0),
            trips: AtomicU64::new(0),
            said_refused: Mutex::default(),
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
        let run = async |mut lane| command.query_async(&mut lane).await;
        self.guarded(self.0.timeout, run, |_| false).await
    }

    /// Runs several commands in one round trip. In a Cluster all of their keys must be in one slot.
    ///
    /// # Errors
    /// [`Down`]: at least one of them was refused or did not arrive.
    pub async fn pipe<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Down> {
        let run = async |mut lane| commands.query_async(&mut lane).await;
        self.guarded(self.0.timeout, run, |_| false).await
    }

    /// Runs a script, by its digest where Redis knows it.
    ///
    /// # Errors
    /// [`Down`].
    pub async fn script<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Down> {
        let run = async |mut lane| script.invoke_async(&mut lane).await;
        self.guarded(self.0.timeout, run, |_| false).await
    }

    /// A connection of its own, for commands that block, for [`LONGEST_BLOCK`] at most.
    ///
    /// # Errors
    /// [`Down`].
    pub async fn own_connection(&self) -> Result<Held, Down> {
        self.connection(Purpose::Blocking).await.map_err(|error| {
            tracing::debug!(error, "no connection to Redis");
            Down
        })
    }

    async fn connection(&self, purpose: Purpose) -> Result<Held, String> {
        match tokio::time::timeout(CONNECT, self.0.pools.connect(purpose)).await {
            Ok(made) => made,
            Err(_) => Err("nobody answers".to_owned()),
        }
    }

    /// Runs an operation on the lane, under the breaker. What `is_trouble` finds in an answer counts as a failure, and the
    /// answer is returned.
    async fn guarded<T>(
        &self,
        limit: Duration,
        operation: impl AsyncFnOnce(Connection) -> std::result::Result<T, RedisError>,
        is_trouble: impl FnOnce(&T) -> bool,
    ) -> Result<T, Down> {
        let Lane { connection, breaker } = self.lane().clone().ok_or(Down)?;
        let limited = async {
            self.0.trips.fetch_add(1, Ordering::Relaxed);
            match tokio::time::timeout(limit, operation(connection)).await {
                Ok(Ok(done)) if is_trouble(&done) => Err(Trouble::Within(done)),
                Ok(Ok(done)) => Ok(Ok(done)),
                Ok(Err(error)) if is_refusal(&error) => Ok(Err(error)),
                Ok(Err(error)) => Err(Trouble::Error(error)),
                Err(_) => Err(Trouble::Late),
            }
        };
        let trouble = match breaker.call(limited).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(refusal)) => {
                self.refused(&refusal);
                return Err(Down);
            }
            Err(recloser::Error::Rejected) => return Err(Down),
            Err(recloser::Error::Inner(trouble)) => trouble,
        };
        self.0.doubted.notify_one();
        match trouble {
            Trouble::Within(done) => return Ok(done),
            Trouble::Error(error) => tracing::debug!(%error, "Redis did not do what it was asked"),
            Trouble::Late => tracing::debug!("Redis did not answer in time"),
        }
        Err(Down)
    }

    /// Takes note that Redis refused a command. That is either a mistake here or a matter for its operator.
    pub(crate) fn refused(&self, error: &RedisError) {
        self.0.metrics.redis_refused.inc();
        let mut said = self.0.said_refused.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|said| said.elapsed() < SAY_REFUSALS) {
            return;
        }
        *said = Some(Instant::now());
        // What follows may be the beginning of what was to be written.
        let text = error.to_string();
        let text = text.split(", with args").next().unwrap_or_default();
        tracing::error!(error = text, "Redis refuses commands");
    }

    fn lane(&self) -> MutexGuard<'_, Option<Lane>> {
        self.0.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether Redis itself said no, so that it is there, and would say the same again.
fn is_refusal(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => !is_absence(kind),
        // By code: what the library has no name for.
        ErrorKind::Extension => !error.code().is_some_and(|code| ABSENT.contains(&code)),
        // An answer of another kind than expected.
        ErrorKind::UnexpectedReturnType => true,
        _ => false,
    }
}

/// Answers which mean that Redis cannot do anything now: it is busy with a script, wants a password, cannot save, or has
/// too few replicas.
const ABSENT: [&str; 5] = ["BUSY", "NOAUTH", "MISCONF", "NOREPLICAS", "UNBLOCKED"];

/// Whether an answer means that this is not, or not yet, or no longer, the server that has the data.
fn is_absence(kind: ServerErrorKind) -> bool {
    use ServerErrorKind as Kind;
    matches!(
        kind,
        Kind::BusyLoading
            | Kind::MasterDown
            | Kind::ReadOnly
            | Kind::ClusterDown
            | Kind::TryAgain
            | Kind::Moved
            | Kind::Ask
    )
}

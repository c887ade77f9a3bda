//! PostgreSQL: the pool, and how to tell whether the server is there.
//!
//! sqlx has no time limit for handing a connection back, and a network that swallows packets lets that wait for as long as
//! the kernel does, up to hours, while the pool counts the connection as in use. So a connection on which something did not
//! end is closed and never handed back ([`Held`]), and after an outage the whole pool is replaced.

use std::str::FromStr;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Postgres};

use super::held::Held;
use crate::config;
use crate::error::{Error, Result};

/// A connection that was idle for longer than this has to prove that it still is one; how long that may take.
const IDLE: Duration = Duration::from_millis(250);
const PROOF: Duration = Duration::from_secs(1);
/// Connections on which calls are settled: one, and another while one that broke is being closed.
const SETTLING: u32 = 2;
/// How long the server may take to answer before it counts as away: on any connection, and on a new one when it is looked
/// for during an outage.
const LOOK: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(1500);
/// When a second way of asking is tried beside the first.
const SECOND_WAY: Duration = Duration::from_millis(200);
/// Pauses between the tries of a start.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// One server, and the connections to it.
pub(super) struct Server {
    options: PgConnectOptions,
    pool_options: PgPoolOptions,
    pools: RwLock<Open>,
}

/// What is open to the server.
#[derive(Clone)]
struct Open {
    all: PgPool,
    /// A connection on which calls are settled: a settlement waits for nobody else's queries, and finds at the server what the one
    /// before it left there.
    settling: PgPool,
}

/// The connection on which calls are settled.
pub(super) struct Settling(PgPool);

impl Settling {
    /// The connection.
    pub(super) async fn acquire(&self) -> sqlx::Result<Held<Postgres>> {
        Ok(Held::fragile(self.0.acquire().await?))
    }
}

impl Server {
    /// Connects once, so that a wrong URL is found out, and opens the pool. A server that is starting is waited for.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the URL is not one; [`Error::Database`] with the reason why the server could not be reached
    /// within `acquire_timeout`.
    pub(super) async fn connect(url: &str, config: &config::Database) -> Result<Self> {
        // The parser's message could quote the URL, which holds a password.
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            Error::Invalid(
                "database.url: expected \"postgres://USER:PASSWORD@HOST/DATABASE\", with special characters \
                 percent-encoded"
                    .to_owned(),
            )
        })?;
        let statement = config.statement_timeout.get().as_millis().to_string();
        let options = options.application_name("weir").options([
            ("statement_timeout", statement.as_str()),
            ("idle_in_transaction_session_timeout", statement.as_str()),
        ]);
        first_connection(&options, config.acquire_timeout.get()).await?;
        let pool_options = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout.get())
            // Its test of idle connections has no limit of its own.
            .test_before_acquire(false)
            .before_acquire(|connection, seen| {
                let in_doubt = seen.idle_for > IDLE;
                Box::pin(async move { if in_doubt { prove(connection).await } else { Ok(true) } })
            });
        let pools = RwLock::new(Open::new(&pool_options, &options));
        Ok(Self { options, pool_options, pools })
    }

    fn pools(&self) -> Open {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connection on which calls are settled.
    pub(super) fn settling(&self) -> Settling {
        Settling(self.pools().settling)
    }

    /// A connection of the pool.
    pub(super) async fn acquire(&self) -> sqlx::Result<Held<Postgres>> {
        let connection: PoolConnection<Postgres> = self.pools().all.acquire().await?;
        Ok(Held::fragile(connection))
    }

    /// How to connect outside of the pool.
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Whether the server answers on any connection: one of the pool, where `pooled` is set, or a new one. A pool may have
    /// none left although the server is well; and while no new ones can be made, those of the pool may still work.
    pub(super) async fn answers(&self, pooled: bool) -> bool {
        let limit = if pooled { LOOK } else { LOOK_AGAIN };
        let asked = tokio::time::timeout(limit, async {
            if !pooled {
                return self.ask_anew().await.is_ok();
            }
            let mut first = std::pin::pin!(self.ask_pool());
            let mut second = std::pin::pin!(async {
                tokio::time::sleep(SECOND_WAY).await;
                self.ask_anew().await
            });
            tokio::select! {
                first = &mut first => first.is_ok() || second.await.is_ok(),
                second = &mut second => second.is_ok() || first.await.is_ok(),
            }
        });
        asked.await.unwrap_or(false)
    }

    async fn ask_pool(&self) -> sqlx::Result<()> {
        let mut held = self.acquire().await?;
        held.ping().await?;
        held.finished();
        Ok(())
    }

    async fn ask_anew(&self) -> sqlx::Result<()> {
        let mut connection = self.options.connect().await?;
        connection.ping().await?;
        connection.close().await
    }

    /// Lets go of every connection that there is: after an outage none of them can be trusted.
    pub(super) fn renew(&self) {
        let fresh = Open::new(&self.pool_options, &self.options);
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *pools, fresh);
        // Marks them as closed. Waiting for their connections could take for ever.
        drop((old.all.close(), old.settling.close()));
    }

    /// Closes what is open, after what runs on it.
    pub(super) async fn close(&self) {
        let open = self.pools();
        tokio::join!(open.all.close(), open.settling.close());
    }
}

impl Open {
    fn new(pool_options: &PgPoolOptions, options: &PgConnectOptions) -> Self {
        let settling = pool_options.clone().max_connections(SETTLING);
        Self {
            all: pool_options.clone().connect_lazy_with(options.clone()),
            settling: settling.connect_lazy_with(options.clone()),
        }
    }
}

/// Connects once, within `patience`. What passes while a server starts is tried again.
async fn first_connection(options: &PgConnectOptions, patience: Duration) -> Result<()> {
    let last = std::sync::Mutex::new(None);
    let tries = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
    let connecting = (|| async { options.connect().await })
        .retry(tries.without_max_times().with_jitter())
        .when(is_starting)
        .notify(|error, _| {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        });
    match tokio::time::timeout(patience, connecting).await {
        Ok(Ok(connection)) => {
            // Closing politely could take for ever as well.
            let _ = tokio::time::timeout(LOOK, connection.close()).await;
            Ok(())
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => {
            let last = last.into_inner().unwrap_or_else(PoisonError::into_inner);
            let why = last.unwrap_or_else(|| "it does not answer".to_owned());
            let kind = std::io::ErrorKind::TimedOut;
            Err(Error::Database(sqlx::Error::Io(std::io::Error::new(kind, why))))
        }
    }
}

/// What a server says, or the system instead of it, until it has started.
fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        // cannot_connect_now, too_many_connections.
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("57P03" | "53300")),
        _ => false,
    }
}

async fn prove(connection: &mut PgConnection) -> sqlx::Result<bool> {
    match tokio::time::timeout(PROOF, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

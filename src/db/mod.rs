//! The truth: SQLite (embedded) or PostgreSQL, with the SQL written once for both.
//!
//! [`Db`] holds the pools; each noun has a file here with its row type beside its SQL, and no other room of the
//! house contains SQL. A query is literal text with `$1` binds; `on_reader!`, `on_writer!` and `in_tx!` expand
//! it once per engine. Arrays, `now()`, intervals and JSON operators differ between the engines and stay out;
//! where a statement cannot be written once, two plain ones stand side by side.

#[macro_use]
mod macros;
#[macro_use]
mod text;

pub mod account_events;
pub mod accounts;
pub mod api_keys;
pub mod audit;
pub mod calls;
pub(crate) mod corrections;
pub(crate) mod expired_keys;
pub mod exports;
pub mod grants;
mod held;
pub(crate) mod idempotency;
pub mod invalidations;
pub mod invoice_proofs;
pub mod ledger;
pub(crate) mod meters;
mod migrations;
pub mod mirror;
pub mod operator_keys;
mod page;
pub mod periods;
pub mod plans;
mod postgres;
pub(crate) mod price_versions;
pub mod proofs;
pub mod session_history;
pub mod settings;
pub(crate) mod settlements;
pub(crate) mod slabs;
mod sqlite;
pub mod stripe_events;
pub mod tenants;
pub(crate) mod top_ups;
mod tx;
pub mod usage_days;

#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::IntCounter;
use secrecy::ExposeSecret;
use sqlx::postgres::PgQueryResult;
use sqlx::sqlite::SqliteQueryResult;

use crate::breaker::Breaker;
use crate::config;
use crate::error::{Error, Result};

pub use page::{Listed, Page};
pub(crate) use text::{JsonText, storable};
pub use tx::Tx;

/// Added to the engine's own limits before we give up on it, so that its error wins where it has one.
const GRACE: Duration = Duration::from_millis(500);

/// How long closing waits for connections that are in use.
const LAST_CALL: Duration = Duration::from_secs(2);

/// The database. Cheap to clone: every clone uses the same pools.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    pools: Pools,
    /// The longest that one query may take, waiting for a connection included.
    limit: Duration,
    breaker: Breaker,
    /// Counts the queries that were tried.
    statements: OnceLock<IntCounter>,
}

/// The pools of either engine.
enum Pools {
    /// One file. SQLite has one writer at a time, so there is one connection to write, and many to read.
    Sqlite { read: sqlite::Connections, write: sqlite::Connections },
    /// One server.
    Postgres(Box<postgres::Server>),
}

impl Db {
    /// Opens the database named by `[database]`. A SQLite file that is not there is created, readable by its
    /// owner only.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `database.url` is of neither form, [`Error::Database`] where the database does
    /// not answer.
    pub async fn connect(config: &config::Database) -> Result<Self> {
        let url = config.url.expose_secret();
        let pools = if let Some(path) = url.strip_prefix("sqlite:") {
            sqlite::open(&sqlite::path(path)?, config).await?
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Pools::Postgres(Box::new(postgres::Server::connect(url, config).await?))
        } else {
            return Err(Error::Invalid(
                "database.url: expected \"sqlite:PATH\" or \"postgres://USER:PASSWORD@HOST/DATABASE\""
                    .to_owned(),
            ));
        };
        let limit = config.acquire_timeout.get() + config.statement_timeout.get() + GRACE;
        Ok(Self(Arc::new(Inner {
            pools,
            limit,
            breaker: Breaker::new("database"),
            statements: OnceLock::new(),
        })))
    }

    /// Opens a database that is there already: what `serve` and the management commands do, so that a typo in a
    /// path does not leave an empty database behind.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and [`Error::Invalid`] where the SQLite file does not exist.
    pub async fn connect_existing(config: &config::Database) -> Result<Self> {
        if let Some(path) = config.url.expose_secret().strip_prefix("sqlite:") {
            let path = sqlite::path(path)?;
            if !path.exists() {
                let path = path.display();
                return Err(Error::Invalid(format!(
                    "database.url: there is no database at {path}; run `weir migrate` to create it"
                )));
            }
        }
        Self::connect(config).await
    }

    /// Brings the schema up to this build's. Safe when several processes start together: one migrates, the
    /// others wait and find nothing to do.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the schema was changed by a newer build or by hand; [`Error::Database`].
    pub async fn migrate(&self) -> Result<()> {
        migrations::run(self.pools()).await
    }

    /// How many migrations of this build the database lacks.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn pending_migrations(&self) -> Result<usize> {
        migrations::pending(self).await
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`Error::Database`] where it does not.
    pub async fn ping(&self) -> Result<()> {
        on_reader!(self, |conn| done(sqlx::query("select 1").execute(conn))).map(|_| ())
    }

    /// The engine's name, for logs and health: `sqlite` or `postgres`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        match self.pools() {
            Pools::Sqlite { .. } => "sqlite",
            Pools::Postgres(_) => "postgres",
        }
    }

    /// Closes every connection, after the queries that are running on them; one whose query does not end is not waited for
    /// any longer after two seconds.
    pub async fn close(&self) {
        let closed = async {
            match self.pools() {
                // The writer last: the last one to leave puts the WAL back into the file, and readers cannot.
                Pools::Sqlite { read, write } => {
                    read.pool().close().await;
                    write.pool().close().await;
                }
                Pools::Postgres(server) => server.close().await,
            }
        };
        let _ = tokio::time::timeout(LAST_CALL, closed).await;
    }

    /// Counts the queries that are tried from now on.
    pub fn count(&self, statements: IntCounter) {
        let _ = self.0.statements.set(statements);
    }

    /// What knows whether the database is there.
    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.0.breaker
    }

    /// Watches the database for ever: while it is away, every query fails at once with [`Error::Away`]. Without a watch every
    /// query is tried.
    pub async fn watch(&self) {
        self.breaker().watch(|| Box::pin(self.look())).await;
    }

    async fn look(&self) -> bool {
        match self.pools() {
            Pools::Sqlite { read, .. } => read.answers().await,
            Pools::Postgres(server) => {
                let was_up = self.breaker().is_up();
                let answers = server.answers(was_up).await;
                if answers && !was_up {
                    server.renew();
                }
                answers
            }
        }
    }

    fn pools(&self) -> &Pools {
        &self.0.pools
    }

    /// Runs a query, but not for ever: a network that swallows packets must not hold a request. Not at all while the database
    /// is known to be away, and no longer once that is found out.
    async fn guarded<T>(&self, query: impl Future<Output = sqlx::Result<T>> + Send) -> Result<T> {
        let breaker = self.breaker();
        if !breaker.allow() {
            return Err(Error::Away(breaker.name()));
        }
        if let Some(statements) = self.0.statements.get() {
            statements.inc();
        }
        let broken_off = |kind: std::io::ErrorKind| Err(sqlx::Error::Io(kind.into()));
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout(self.0.limit, query) => {
                answer.unwrap_or_else(|_| broken_off(std::io::ErrorKind::TimedOut))
            }
            () = breaker.tripped() => broken_off(std::io::ErrorKind::ConnectionAborted),
        };
        answer.map_err(|error| {
            if could_be_away(&error) {
                breaker.failed();
            }
            Error::Database(error)
        })
    }
}

/// Whether an absent database would explain this error.
fn could_be_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // PostgreSQL: connection exceptions, too many connections, the server is being shut down or starts.
        sqlx::Error::Database(refusal) => refusal
            .code()
            .is_some_and(|code| ["08", "53300", "57P"].iter().any(|class| code.starts_with(class))),
        _ => false,
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Db").field(&self.engine()).finish()
    }
}

/// How many rows a statement changed, in a type that the engines share.
async fn done<T: Affected>(statement: impl Future<Output = sqlx::Result<T>> + Send) -> sqlx::Result<u64> {
    Ok(statement.await?.rows())
}

trait Affected {
    fn rows(&self) -> u64;
}

impl Affected for SqliteQueryResult {
    fn rows(&self) -> u64 {
        self.rows_affected()
    }
}

impl Affected for PgQueryResult {
    fn rows(&self) -> u64 {
        self.rows_affected()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Millis;

    fn config(url: &str) -> config::Database {
        config::Database {
            url: url.to_owned().into(),
            max_connections: 2,
            acquire_timeout: Millis::new(2000),
            statement_timeout: Millis::new(2000),
        }
    }

    #[tokio::test]
    async fn other_urls_are_refused_without_being_quoted() {
        for url in ["mysql://u:hunter2@h/d", "sqlite:", "sqlite::memory:", "postgres://u:hunter2@h:port/d"] {
            let error = Db::connect(&config(url)).await.expect_err(url);
            assert!(matches!(error, Error::Invalid(_)), "{url}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn several_processes_may_start_together() {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite:{}", dir.path().join("weir.db").display());
        let tasks = crate::tasks::Tasks::new();
        let start = || {
            let config = config(&url);
            tasks.spawn(async move {
                let db = Db::connect(&config).await?;
                db.migrate().await?;
                db.pending_migrations().await
            })
        };
        for started in [start(), start(), start(), start(), start(), start()] {
            assert_eq!(started.await.expect("no panic").expect("a start"), 0);
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_file_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("weir.db");
        let db = Db::connect(&config(&format!("sqlite:{}", path.display()))).await.expect("a database");
        db.migrate().await.expect("migrations");
        settings::get_or_insert(&db, "name", "value").await.expect("a write");
        for name in ["weir.db", "weir.db-wal", "weir.db-shm"] {
            let mode = std::fs::metadata(dir.path().join(name)).expect(name).permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[tokio::test]
    async fn the_engine_answers_and_knows_what_it_lacks() {
        testing::on_every_engine(async |db| {
            db.ping().await.expect("an answer");
            assert_eq!(db.pending_migrations().await.expect("a count"), 0);
            db.migrate().await.expect("nothing to do");
        })
        .await;
    }

    #[tokio::test]
    async fn a_fresh_database_lacks_everything() {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite:{}", dir.path().join("weir.db").display());
        let db = Db::connect(&config(&url)).await.expect("a database");
        assert!(db.pending_migrations().await.expect("a count") > 0);
    }
}

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

pub mod api_keys;
pub mod audit;
pub mod calls;
pub mod invalidations;
mod migrations;
pub mod operator_keys;
mod page;
pub mod session_history;
pub mod settings;
pub mod tenants;
mod tx;

#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgQueryResult};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteQueryResult,
    SqliteSynchronous,
};

use crate::config;
use crate::error::{Error, Result};

pub use page::{Listed, Page};
pub(crate) use text::{JsonText, storable};
pub use tx::Tx;

/// Added to the engine's own limits before we give up on it, so that its error wins where it has one.
const GRACE: Duration = Duration::from_millis(500);

/// How often, and after which pause, a SQLite file that is being set up by another process is opened again.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The database. Cheap to clone: every clone uses the same pools.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    pools: Pools,
    /// The longest that one query may take, waiting for a connection included.
    limit: Duration,
}

/// The pools of either engine.
enum Pools {
    /// One file. SQLite has one writer at a time, so there is one connection to write, and many to read.
    Sqlite { read: SqlitePool, write: SqlitePool },
    /// One server.
    Postgres(PgPool),
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
            Self::open_sqlite(&sqlite_path(path)?, config).await?
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Self::open_postgres(url, config).await?
        } else {
            return Err(Error::Invalid(
                "database.url: expected \"sqlite:PATH\" or \"postgres://USER:PASSWORD@HOST/DATABASE\""
                    .to_owned(),
            ));
        };
        let limit = config.acquire_timeout.get() + config.statement_timeout.get() + GRACE;
        Ok(Self(Arc::new(Inner { pools, limit })))
    }

    /// Opens a database that is there already: what `serve` and the management commands do, so that a typo in a
    /// path does not leave an empty database behind.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and [`Error::Invalid`] where the SQLite file does not exist.
    pub async fn connect_existing(config: &config::Database) -> Result<Self> {
        if let Some(path) = config.url.expose_secret().strip_prefix("sqlite:") {
            let path = sqlite_path(path)?;
            if !path.exists() {
                let path = path.display();
                return Err(Error::Invalid(format!(
                    "database.url: there is no database at {path}; run `weir migrate` to create it"
                )));
            }
        }
        Self::connect(config).await
    }

    async fn open_sqlite(path: &Path, config: &config::Database) -> Result<Pools> {
        create_private(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .busy_timeout(config.acquire_timeout.get())
            .synchronous(SqliteSynchronous::Normal);
        // The writer stays open for good: while it lives, the WAL is there for the readers.
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(config.acquire_timeout.get());
        let with_wal = options.clone().journal_mode(SqliteJournalMode::Wal);
        let mut tries = 0;
        let write = loop {
            match writer.clone().connect_with(with_wal.clone()).await {
                Ok(pool) => break pool,
                // Another process turns a new file to WAL at this moment; SQLite does not wait for that.
                Err(error) if is_busy(&error) && tries < BUSY_TRIES => tries += 1,
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        };
        let read = SqlitePoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout.get())
            .connect_lazy_with(options.read_only(true));
        Ok(Pools::Sqlite { read, write })
    }

    async fn open_postgres(url: &str, config: &config::Database) -> Result<Pools> {
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
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout.get())
            .connect_with(options)
            .await?;
        Ok(Pools::Postgres(pool))
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

    /// Closes every connection, after the queries that are running on them.
    pub async fn close(&self) {
        match self.pools() {
            // The writer last: the last one to leave puts the WAL back into the file, and readers cannot.
            Pools::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }

    fn pools(&self) -> &Pools {
        &self.0.pools
    }

    fn limit(&self) -> Duration {
        self.0.limit
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Db").field(&self.engine()).finish()
    }
}

/// Gives up after `limit`: a network that swallows packets must not hold a request for ever.
async fn bounded<T>(limit: Duration, query: impl Future<Output = sqlx::Result<T>> + Send) -> Result<T> {
    match tokio::time::timeout(limit, query).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::Database(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
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

/// The path in `sqlite:PATH`; `sqlite://PATH`, which other programs write, means the same.
fn sqlite_path(path: &str) -> Result<PathBuf> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path == ":memory:" || path.contains('?') {
        return Err(Error::Invalid(
            "database.url: expected \"sqlite:PATH\" with the path of a file and no parameters".to_owned(),
        ));
    }
    Ok(PathBuf::from(path))
}

/// Creates the file before SQLite does, so that it is nobody else's to read; WAL and index take its mode.
///
/// A file that exists is left alone: closing any handle on it would drop the locks that this process holds on it.
fn create_private(path: &Path) -> Result<()> {
    let mut open = std::fs::OpenOptions::new();
    open.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
    match open.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::Invalid(format!(
            "database.url: cannot create {} ({error}); its directory must exist and be writable",
            path.display()
        ))),
    }
}

/// `SQLITE_BUSY` and its extended codes.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
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

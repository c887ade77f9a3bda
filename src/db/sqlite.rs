//! SQLite: one file, which is created where it is missing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Sqlite};

use super::Pools;
use super::held::Held;
use crate::config;
use crate::error::{Error, Result};

/// How often, and after which pause, a SQLite file that is being set up by another process is opened again.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How long a look at the file may take.
const LOOK: Duration = Duration::from_millis(500);

/// After so many pages of 4 KiB the WAL is put back into the file. A page that many commits change is written back once: with
/// calls of many tenants nearly every page of an index is such a page.
const CHECKPOINT: u32 = 8192;
/// A long read lets the WAL grow; afterwards it is cut down to this, in bytes.
const WAL_MOST: u64 = 64 << 20;
/// What the writer keeps of the file in memory, in KiB.
const CACHE_KIB: u32 = 32 * 1024;

/// Connections to the file, for one purpose.
pub(super) struct Connections(SqlitePool);

impl Connections {
    pub(super) fn pool(&self) -> &SqlitePool {
        &self.0
    }

    /// One of them.
    pub(super) async fn acquire(&self) -> sqlx::Result<Held<Sqlite>> {
        self.0.acquire().await.map(Held::robust)
    }

    /// Whether the file can be read. One whose readers are all busy can be.
    pub(super) async fn answers(&self) -> bool {
        let asked = tokio::time::timeout(LOOK, async { self.acquire().await?.ping().await });
        !matches!(asked.await, Ok(Err(_)))
    }
}

/// Opens the file at `path`, and creates it where there is none.
pub(super) async fn open(path: &Path, config: &config::Database) -> Result<Pools> {
    create_private(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(config.acquire_timeout.get())
        // What was committed is there after a power cut, too: calls are charged on the strength of it.
        .synchronous(SqliteSynchronous::Full);
    // The writer stays open for good: while it lives, the WAL is there for the readers.
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(config.acquire_timeout.get());
    let with_wal = options
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .pragma("wal_autocheckpoint", CHECKPOINT.to_string())
        .pragma("journal_size_limit", WAL_MOST.to_string())
        .pragma("cache_size", format!("-{CACHE_KIB}"))
        // Otherwise every statement of a transaction that a trigger may undo makes a file, and deletes it.
        .pragma("temp_store", "memory");
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
    Ok(Pools::Sqlite { read: Connections(read), write: Connections(write) })
}

/// The path in `sqlite:PATH`; `sqlite://PATH`, which other programs write, means the same.
pub(super) fn path(path: &str) -> Result<PathBuf> {
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

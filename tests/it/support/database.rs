//! A database for one test: SQLite in a directory of its own, or PostgreSQL where `WEIR_TEST_POSTGRES` holds the URL
//! of a server on which schemas may be created in the database `postgres`, such as `postgres://postgres@127.0.0.1`.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tempfile::TempDir;

use super::services;

/// A database that goes away with this value.
pub struct Database {
    /// For `database.url`.
    pub url: String,
    home: Home,
}

enum Home {
    Directory {
        _directory: TempDir,
    },
    /// A schema, because a whole database takes a third of a second to create.
    Schema {
        server: String,
        name: String,
    },
}

impl Database {
    /// A fresh database without tables.
    pub async fn new() -> Self {
        let Some(server) = services::variable("WEIR_TEST_POSTGRES") else {
            let directory = tempfile::tempdir().expect("a directory");
            let url = format!("sqlite:{}", directory.path().join("weir.db").display());
            return Self { url, home: Home::Directory { _directory: directory } };
        };
        let server = format!("{server}/postgres");
        let name = format!("weir_it_{}", uuid::Uuid::now_v7().simple());
        execute(&server, &format!("create schema {name}")).await;
        let url = format!("{server}?options[search_path]={name}");
        Self { url, home: Home::Schema { server, name } }
    }
}

async fn execute(server: &str, sql: &str) {
    let mut connection = PgConnection::connect(server).await.expect("a server");
    sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("executed");
}

impl Drop for Database {
    fn drop(&mut self) {
        let Home::Schema { server, name } = &self.home else { return };
        // A statement of the gateway that was cut may still hold a table; it ends by itself.
        let (server, sql) = (server.clone(), format!("drop schema if exists {name} cascade"));
        // A destructor cannot wait for its own runtime.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(execute(&server, &sql));
        });
        let dropped = dropping.join();
        assert!(dropped.is_ok() || std::thread::panicking(), "the test's database could not be dropped");
    }
}

/// What a query finds, as text.
pub async fn rows(url: &str, query: &str) -> Vec<Vec<String>> {
    Reader::open(url).await.rows(query).await
}

/// A connection for whoever asks often.
pub enum Reader {
    Sqlite(sqlx::SqliteConnection),
    Postgres(PgConnection),
}

impl Reader {
    pub async fn open(url: &str) -> Self {
        if url.starts_with("sqlite:") {
            return Self::Sqlite(sqlx::SqliteConnection::connect(url).await.expect("a database"));
        }
        Self::Postgres(PgConnection::connect(url).await.expect("a database"))
    }

    /// What a query finds, as text.
    pub async fn rows(&mut self, query: &str) -> Vec<Vec<String>> {
        fn read<R: Row>(row: &R) -> Vec<String>
        where
            for<'r> String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
            for<'r> i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
            usize: sqlx::ColumnIndex<R>,
        {
            let text = |place: usize| match row.try_get::<i64, _>(place) {
                Ok(number) => number.to_string(),
                Err(_) => {
                    row.try_get::<Option<String>, _>(place).expect("text or a number").unwrap_or_default()
                }
            };
            (0..row.len()).map(text).collect()
        }
        let text = AssertSqlSafe(query.to_owned());
        match self {
            Self::Sqlite(connection) => {
                let query = sqlx::query(text);
                query.fetch_all(connection).await.expect("rows").iter().map(read).collect()
            }
            Self::Postgres(connection) => {
                // Another text each time: none is prepared to be asked again.
                let query = sqlx::query(text).persistent(false);
                query.fetch_all(connection).await.expect("rows").iter().map(read).collect()
            }
        }
    }
}

/// Nothing can be written to the ledger while this is held.
pub enum Stall {
    Sqlite(sqlx::SqliteConnection),
    Postgres(PgConnection),
}

impl Stall {
    pub async fn begin(url: &str) -> Self {
        if url.starts_with("sqlite:") {
            let mut connection = sqlx::SqliteConnection::connect(url).await.expect("a database");
            sqlx::raw_sql("begin immediate").execute(&mut connection).await.expect("a lock");
            return Self::Sqlite(connection);
        }
        let mut connection = PgConnection::connect(url).await.expect("a database");
        let lock = "begin; lock table calls in share mode";
        sqlx::raw_sql(lock).execute(&mut connection).await.expect("a lock");
        Self::Postgres(connection)
    }

    pub async fn end(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await,
            Self::Postgres(connection) => connection.close().await,
        }
        .expect("closed");
    }
}

//! Databases for unit tests: SQLite always, and PostgreSQL where the environment names a server.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::Db;
use crate::config::{self, Millis};
use crate::id::TenantId;

/// The configuration of a database for a test.
pub(crate) fn config(url: &str) -> config::Database {
    config::Database {
        url: url.to_owned().into(),
        max_connections: 4,
        acquire_timeout: Millis::new(5000),
        statement_timeout: Millis::new(5000),
    }
}

async fn migrated(url: &str) -> Db {
    let db = Db::connect(&config(url)).await.expect("a database");
    db.migrate().await.expect("migrations");
    db
}

/// Gives a tenant an account, and nothing in it.
pub(crate) async fn open_account(db: &Db, tenant: TenantId) {
    let made = on_writer!(db, |conn| super::done(
        sqlx::query(
            "insert into accounts (tenant_id, cycle, anchor_at, created_at, updated_at)
             values ($1, 'calendar', 1, 1, 1)"
        )
        .bind(tenant)
        .execute(conn)
    ));
    made.expect("an account");
}

/// Runs a test on a fresh database of each engine. PostgreSQL takes part where `WEIR_TEST_POSTGRES` holds the
/// URL of a server on which databases may be created, such as `postgres://postgres@127.0.0.1`.
pub(crate) async fn on_every_engine(test: impl AsyncFn(Db)) {
    let dir = tempfile::tempdir().expect("a directory");
    let db = migrated(&format!("sqlite:{}", dir.path().join("weir.db").display())).await;
    test(db.clone()).await;
    db.close().await;

    #[expect(clippy::disallowed_methods, reason = "names a service for tests, not a setting of Weir")]
    let Ok(server) = std::env::var("WEIR_TEST_POSTGRES") else { return };
    let name = format!("weir_test_{}", uuid::Uuid::now_v7().simple());
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await.expect("a server");
    sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await.expect("created");
    let db = migrated(&format!("{server}/{name}")).await;
    test(db.clone()).await;
    db.close().await;
    sqlx::query(AssertSqlSafe(format!("drop database {name}"))).execute(&mut admin).await.expect("dropped");
}

/// Runs statements that no query of Weir's is, such as ones that do harm.
pub(crate) async fn execute(db: &Db, sql: &str) {
    try_execute(db, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The same, where it may be refused.
pub(crate) async fn try_execute(db: &Db, sql: &str) -> Result<(), String> {
    let sql = AssertSqlSafe(sql.to_owned());
    let done = on_writer!(db, |conn| super::done(sqlx::raw_sql(sql).execute(conn)));
    done.map(|_| ()).map_err(|error| format!("{error:?}"))
}

/// One number.
pub(crate) async fn number(db: &Db, sql: &str) -> i64 {
    let sql = AssertSqlSafe(sql.to_owned());
    let found = on_writer!(db, |conn| sqlx::query_scalar(sql).fetch_one(conn));
    found.unwrap_or_else(|error| panic!("{error:?}"))
}

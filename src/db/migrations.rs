//! Migrations, embedded: `migrations/sqlite` and `migrations/postgres` hold files of the same names.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{ConnectOptions, Connection};

use super::{Db, Pools};
use crate::error::{Error, Result};

static SQLITE: Migrator = sqlx::migrate!("./migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("./migrations/postgres");

/// How long a process waits for another one's migration of the same SQLite file.
const PATIENCE: Duration = Duration::from_secs(60);

/// Applies what is missing, on a connection of its own with longer limits than a request has.
///
/// `run_direct` and not `run`, whose future cannot move between threads.
pub(super) async fn run(pools: &Pools) -> Result<()> {
    match pools {
        Pools::Sqlite { write, .. } => {
            let options = write.pool().connect_options().as_ref().clone().busy_timeout(PATIENCE);
            let mut connection = options.connect().await?;
            // sqlx takes no lock on SQLite. The write lock makes a second process wait here, and then see the
            // first one's migrations as applied; each migration becomes a savepoint inside.
            let mut all = connection.begin_with("BEGIN IMMEDIATE").await?;
            SQLITE.run_direct(None, &mut *all, false).await.map_err(explain)?;
            all.commit().await?;
            connection.close().await?;
        }
        Pools::Postgres(server) => {
            // The last option wins: a migration may take longer than a request's statement. sqlx takes an
            // advisory lock, which ends with the connection.
            let options = server
                .options()
                .clone()
                .options([("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0")]);
            let mut connection = options.connect().await?;
            POSTGRES.run_direct(None, &mut connection, false).await.map_err(explain)?;
            connection.close().await?;
        }
    }
    Ok(())
}

/// How many embedded migrations have not been applied.
pub(super) async fn pending(db: &Db) -> Result<usize> {
    let (embedded, tables) = match db.pools() {
        Pools::Sqlite { read, .. } => (
            &SQLITE,
            on_pool!(db, read, |conn| sqlx::query_scalar::<_, i64>(
                "select count(*) from sqlite_master where type = 'table' and name = '_sqlx_migrations'"
            )
            .fetch_one(conn))?,
        ),
        Pools::Postgres(pool) => (
            &POSTGRES,
            on_pool!(db, pool, |conn| sqlx::query_scalar::<_, i64>(
                "select count(*) from (select to_regclass('_sqlx_migrations') as t) as f where t is not null"
            )
            .fetch_one(conn))?,
        ),
    };
    let applied: HashSet<i64> = if tables == 0 {
        HashSet::new()
    } else {
        on_reader!(db, |conn| sqlx::query_scalar("select version from _sqlx_migrations where success")
            .fetch_all(conn))?
        .into_iter()
        .collect()
    };
    Ok(embedded.iter().filter(|migration| !applied.contains(&migration.version)).count())
}

fn explain(error: MigrateError) -> Error {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Error::Database(error),
        MigrateError::VersionMissing(version) => Error::Conflict(format!(
            "the database was migrated by a newer Weir (migration {version} is not in this one); run that build"
        )),
        MigrateError::VersionMismatch(version) => Error::Conflict(format!(
            "migration {version} of this Weir is not the one that was applied to the database; run the build \
             that migrated it, or restore a backup"
        )),
        other => Error::Internal(format!("migration failed: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::clock::Timestamp;
    use crate::db::invalidations::{self, Kind};
    use crate::db::testing::config;

    /// Processes remember up to which invalidation they have read; none may come below that.
    #[tokio::test]
    async fn invalidations_of_an_older_sqlite_file_go_on_counting() {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite:{}", dir.path().join("weir.db").display());
        let db = Db::connect(&config(&url)).await.expect("a database");
        let Pools::Sqlite { write, .. } = db.pools() else { panic!("SQLite") };
        let first = SQLITE.iter().take(1).cloned().collect();
        let first = Migrator { migrations: Cow::Owned(first), ..Migrator::DEFAULT };
        first.run(write.pool()).await.expect("the first migration");
        let at = Timestamp::from_micros(1);
        let insert = async |kind| {
            let mut tx = db.begin().await.expect("a transaction");
            invalidations::insert(&mut tx, at, kind, "x".to_owned()).await.expect("a row");
            tx.commit().await.expect("committed");
        };
        insert(Kind::Tenant).await;
        insert(Kind::Tenant).await;
        invalidations::delete_before(&db, Timestamp::from_micros(2)).await.expect("deleted");
        db.migrate().await.expect("the rest");
        insert(Kind::Plan).await;
        let rows = invalidations::after(&db, 0, 10).await.expect("rows");
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [3]);
    }
}

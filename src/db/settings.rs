//! Deployment-wide values, one per row: SQL only.

use super::Db;
use crate::error::Result;

/// Stores `value` under `name` unless something is there already, then reads what is there: of several processes
/// that start together, all get the same.
pub(crate) async fn get_or_insert(db: &Db, name: &str, value: &str) -> Result<String> {
    on_writer!(db, |conn| async {
        sqlx::query("insert into settings (name, value) values ($1, $2) on conflict (name) do nothing")
            .bind(name)
            .bind(value)
            .execute(&mut *conn)
            .await?;
        sqlx::query_scalar("select value from settings where name = $1").bind(name).fetch_one(conn).await
    })
}

/// What is stored under `name`.
pub(crate) async fn get(db: &Db, name: &str) -> Result<Option<String>> {
    on_reader!(db, |conn| sqlx::query_scalar("select value from settings where name = $1")
        .bind(name)
        .fetch_optional(conn))
}

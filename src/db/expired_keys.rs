//! Idempotency keys whose time is over: SQL.

use super::{Db, Pools};
use crate::clock::Timestamp;
use crate::error::Result;

/// Deletes up to `limit` keys that ended before `at`, and says how many. Several processes may do it at once: on PostgreSQL
/// each takes such as no other holds.
pub(crate) async fn delete(db: &Db, at: Timestamp, limit: i64) -> Result<u64> {
    match db.pools() {
        Pools::Sqlite { write, .. } => on_pool!(db, write, |conn| super::done(
            sqlx::query(
                "delete from idempotency_keys
                 where (tenant_id, credential, key_hash) in (
                     select tenant_id, credential, key_hash from idempotency_keys
                     where expires_at < $1
                     order by expires_at
                     limit $2)"
            )
            .bind(at)
            .bind(limit)
            .execute(conn)
        )),
        Pools::Postgres(pool) => on_pool!(db, pool, |conn| super::done(
            sqlx::query(
                "delete from idempotency_keys
                 where (tenant_id, credential, key_hash) in (
                     select tenant_id, credential, key_hash from idempotency_keys
                     where expires_at < $1
                     order by expires_at
                     limit $2
                     for update skip locked)"
            )
            .bind(at)
            .bind(limit)
            .execute(conn)
        )),
    }
}

//! Operator keys: rows and SQL. What may be done to one is in [`crate::operator_keys`].

use std::time::Duration;

use sqlx::FromRow;

use super::{Db, Listed, Page, Tx, done};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::OperatorKeyId;

/// A key to the admin API, without its secret.
#[derive(Debug, Clone, FromRow)]
pub struct OperatorKey {
    /// Its id.
    pub id: OperatorKeyId,
    /// What the operator calls it.
    pub name: String,
    /// The last four characters of the token.
    pub hint: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last used; up to a minute behind.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// What checking a token needs.
#[derive(FromRow)]
pub(crate) struct KnownHash {
    pub(crate) id: OperatorKeyId,
    pub(crate) hash: Vec<u8>,
    pub(crate) last_used_at: Option<Timestamp>,
}

pub(crate) async fn insert(tx: &mut Tx, key: &OperatorKey, hash: &[u8; 32]) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into operator_keys (id, name, hash, hint, created_at) values ($1, $2, $3, $4, $5)"
        )
        .bind(key.id)
        .bind(key.name.as_str())
        .bind(hash.as_slice())
        .bind(key.hint.as_str())
        .bind(key.created_at)
        .execute(conn)
    ))
    .map(|_| ())
}

pub(crate) async fn get(db: &Db, id: OperatorKeyId) -> Result<Option<OperatorKey>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select id, name, hint, created_at, last_used_at, revoked_at from operator_keys where id = $1"
    )
    .bind(id)
    .fetch_optional(conn))
}

pub(crate) async fn list(db: &Db, page: Page<OperatorKeyId>) -> Result<Listed<OperatorKey>> {
    let rows = on_reader!(db, |conn| sqlx::query_as(
        "select id, name, hint, created_at, last_used_at, revoked_at
         from operator_keys
         where id > $1
         order by id
         limit $2"
    )
    .bind(page.after_text())
    .bind(page.fetch())
    .fetch_all(conn))?;
    Ok(page.cut(rows))
}

/// Revokes one key; `None` where there is none that is not revoked already.
pub(crate) async fn revoke(tx: &mut Tx, id: OperatorKeyId, now: Timestamp) -> Result<Option<OperatorKey>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "update operator_keys set revoked_at = $2
         where id = $1 and revoked_at is null
         returning id, name, hint, created_at, last_used_at, revoked_at"
    )
    .bind(id)
    .bind(now)
    .fetch_optional(conn))
}

/// The key whose token has this hash, unless it is revoked.
pub(crate) async fn find_by_hash(db: &Db, hash: &[u8; 32]) -> Result<Option<KnownHash>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select id, hash, last_used_at from operator_keys where hash = $1 and revoked_at is null"
    )
    .bind(hash.as_slice())
    .fetch_optional(conn))
}

/// Records a use, at most once per `spacing` even where several requests come together.
pub(crate) async fn record_use(db: &Db, id: OperatorKeyId, now: Timestamp, spacing: Duration) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "update operator_keys set last_used_at = $2
         where id = $1 and (last_used_at is null or last_used_at < $3)"
        )
        .bind(id)
        .bind(now)
        .bind(now.minus(spacing))
        .execute(conn)
    ))
    .map(|_| ())
}

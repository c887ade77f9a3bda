//! Calls that may come again: rows and SQL. What a key means is in [`crate::usage`].

use sqlx::FromRow;

use super::{Db, Tx, done};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Result;
use crate::id::{CallId, MeterId, TenantId};

/// Under which a call is found again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KeyName {
    pub(crate) tenant: TenantId,
    pub(crate) credential: String,
    /// SHA-256 of the key, in hexadecimal.
    pub(crate) hash: String,
}

/// A call that came with a key.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct KeyedCall {
    pub(crate) fingerprint: String,
    pub(crate) call_id: CallId,
    pub(crate) settled_at: Option<Timestamp>,
    pub(crate) credits: Credits,
    pub(crate) result: Option<String>,
}

/// A call that is about to run under a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub(crate) key: &'a KeyName,
    pub(crate) fingerprint: &'a str,
    pub(crate) call: CallId,
    pub(crate) meter: MeterId,
    pub(crate) at: Timestamp,
    pub(crate) until: Timestamp,
}

/// Takes the key for this call. `false`: somebody has it. A key that is past its time counts as free.
pub(crate) async fn claim(db: &Db, claim: Claim<'_>) -> Result<bool> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "insert into idempotency_keys (tenant_id, credential, key_hash, fingerprint, call_id, meter_id,
                                           created_at, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (tenant_id, credential, key_hash) do update
             set fingerprint = excluded.fingerprint, call_id = excluded.call_id, meter_id = excluded.meter_id,
                 created_at = excluded.created_at, expires_at = excluded.expires_at, settled_at = null,
                 credits = 0, result = null
             where idempotency_keys.expires_at <= excluded.created_at"
        )
        .bind(claim.key.tenant)
        .bind(&*claim.key.credential)
        .bind(&*claim.key.hash)
        .bind(claim.fingerprint)
        .bind(claim.call)
        .bind(claim.meter)
        .bind(claim.at)
        .bind(claim.until)
        .execute(conn)
    ))
    .map(|rows| rows > 0)
}

pub(crate) async fn find(db: &Db, key: &KeyName, now: Timestamp) -> Result<Option<KeyedCall>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select fingerprint, call_id, settled_at, credits, result from idempotency_keys
         where tenant_id = $1 and credential = $2 and key_hash = $3 and expires_at > $4"
    )
    .bind(key.tenant)
    .bind(&*key.credential)
    .bind(&*key.hash)
    .bind(now)
    .fetch_optional(conn))
}

/// Forgets the answer of this call.
pub(crate) async fn forget(tx: &mut Tx, key: &KeyName, call: CallId) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "delete from idempotency_keys
             where tenant_id = $1 and credential = $2 and key_hash = $3 and call_id = $4"
        )
        .bind(key.tenant)
        .bind(&*key.credential)
        .bind(&*key.hash)
        .bind(call)
        .execute(conn)
    ))
    .map(|_| ())
}

/// Gives the key free, if this call has it and was not settled.
pub(crate) async fn release(db: &Db, key: &KeyName, call: CallId) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "delete from idempotency_keys
             where tenant_id = $1 and credential = $2 and key_hash = $3 and call_id = $4 and settled_at is null"
        )
        .bind(key.tenant)
        .bind(&*key.credential)
        .bind(&*key.hash)
        .bind(call)
        .execute(conn)
    ))
    .map(|_| ())
}

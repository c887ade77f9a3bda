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
    /// When the answer was first given again.
    pub(crate) given_at: Option<Timestamp>,
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
                 credits = 0, result = null, given_at = null
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
        "select fingerprint, call_id, settled_at, credits, result, given_at from idempotency_keys
         where tenant_id = $1 and credential = $2 and key_hash = $3 and expires_at > $4"
    )
    .bind(key.tenant)
    .bind(&*key.credential)
    .bind(&*key.hash)
    .bind(now)
    .fetch_optional(conn))
}

/// Notes that the answer of this call is given again: its charge stays. `false`: the charge was taken back meanwhile, and the
/// key is free.
pub(crate) async fn give(db: &Db, key: &KeyName, call: CallId, now: Timestamp) -> Result<bool> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "update idempotency_keys set given_at = coalesce(given_at, $5)
             where tenant_id = $1 and credential = $2 and key_hash = $3 and call_id = $4 and settled_at is not null"
        )
        .bind(key.tenant)
        .bind(&*key.credential)
        .bind(&*key.hash)
        .bind(call)
        .bind(now)
        .execute(conn)
    ))
    .map(|rows| rows > 0)
}

/// Gives the key of a settled call free whose charge is taken back. `false`: its answer was given to somebody who came again,
/// and the charge is right.
///
/// The caller holds the account's row.
pub(crate) async fn take_back(tx: &mut Tx, key: &KeyName, call: CallId) -> Result<bool> {
    in_tx!(tx, |conn| {
        done(
        sqlx::query(
            "delete from idempotency_keys
             where tenant_id = $1 and credential = $2 and key_hash = $3 and call_id = $4 and given_at is null"
        )
        .bind(key.tenant)
        .bind(&*key.credential)
        .bind(&*key.hash)
        .bind(call)
        .execute(conn)
    )
    })?;
    let given: i64 = in_tx!(tx, |conn| sqlx::query_scalar(
        "select count(*) from idempotency_keys
         where tenant_id = $1 and credential = $2 and key_hash = $3 and call_id = $4"
    )
    .bind(key.tenant)
    .bind(&*key.credential)
    .bind(&*key.hash)
    .bind(call)
    .fetch_one(conn))?;
    Ok(given == 0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::{execute, on_every_engine};

    #[tokio::test]
    async fn a_charge_is_taken_back_or_its_answer_is_given_and_never_both() {
        on_every_engine(async |db| {
            let (tenant, now, until) =
                (TenantId::new(), Timestamp::from_micros(1), Timestamp::from_micros(100));
            execute(&db, &format!("insert into tenants (id, name, created_at, updated_at, status, plan) values ('{tenant}', 't', 1, 1, 'active', 'default')")).await;
            for given in [true, false] {
                let key = KeyName { tenant, credential: "key".to_owned(), hash: given.to_string() };
                let (call, meter) = (CallId::new(), MeterId::new());
                let new = Claim { key: &key, fingerprint: "", call, meter, at: now, until };
                assert!(claim(&db, new).await.expect("a claim"));
                assert!(!give(&db, &key, call, now).await.expect("a look"), "it still runs");
                execute(&db, &format!("update idempotency_keys set settled_at = 1 where call_id = '{call}'")).await;
                if given {
                    assert!(give(&db, &key, call, now).await.expect("a look"));
                }
                let mut tx = db.begin().await.expect("a transaction");
                assert_eq!(take_back(&mut tx, &key, call).await.expect("an answer"), !given);
                tx.commit().await.expect("committed");
                assert_eq!(give(&db, &key, call, now).await.expect("a look"), given);
                assert_eq!(find(&db, &key, now).await.expect("a look").is_some(), given);
            }
        })
        .await;
    }
}

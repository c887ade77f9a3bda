//! Meters: the processes that settle calls. Rows and SQL.
//!
//! A process that holds credits is seen again and again; one that was not seen for long is closed by another, and after that
//! nothing that it says counts any more: every settlement looks whether its meter is open, in its own statement.

use super::{Db, done};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::{MeterId, SlabId, TenantId};

/// Dead meters, and slabs of closed ones, that are looked at in one go.
const BATCH: i64 = 100;

pub(crate) async fn open(db: &Db, id: MeterId, now: Timestamp) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query("insert into meters (id, opened_at, seen_at) values ($1, $2, $2)")
            .bind(id)
            .bind(now)
            .execute(conn)
    ))
    .map(|_| ())
}

/// Says that the process lives. `false`: it was closed meanwhile.
pub(crate) async fn beat(db: &Db, id: MeterId, now: Timestamp) -> Result<bool> {
    on_writer!(db, |conn| done(
        sqlx::query("update meters set seen_at = $2 where id = $1 and closed_at is null")
            .bind(id)
            .bind(now)
            .execute(conn)
    ))
    .map(|rows| rows > 0)
}

/// Meters that were last seen before `before` and are still open.
pub(crate) async fn unseen(db: &Db, before: Timestamp) -> Result<Vec<MeterId>> {
    on_reader!(db, |conn| sqlx::query_scalar(
        "select id from meters where closed_at is null and seen_at < $1 order by seen_at limit $2"
    )
    .bind(before)
    .bind(BATCH)
    .fetch_all(conn))
}

/// Closes a meter, unless it was seen since `before`. From here on nothing can be settled in its name.
pub(crate) async fn close(db: &Db, id: MeterId, before: Timestamp, now: Timestamp) -> Result<bool> {
    on_writer!(db, |conn| done(
        sqlx::query("update meters set closed_at = $3 where id = $1 and closed_at is null and seen_at < $2")
            .bind(id)
            .bind(before)
            .bind(now)
            .execute(conn)
    ))
    .map(|rows| rows > 0)
}

/// Slabs that closed meters left open.
pub(crate) async fn left_slabs(db: &Db) -> Result<Vec<(TenantId, SlabId)>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select slabs.tenant_id, slabs.id from slabs join meters on meters.id = slabs.meter_id
         where slabs.closed_at is null and meters.closed_at is not null
         order by slabs.tenant_id, slabs.id limit $1"
    )
    .bind(BATCH)
    .fetch_all(conn))
}

/// Forgets the keys of calls that closed meters were running: whoever comes back with one runs it anew.
pub(crate) async fn release_keys(db: &Db) -> Result<u64> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "delete from idempotency_keys
             where settled_at is null
                   and not exists (select 1 from meters where id = meter_id and closed_at is null)"
        )
        .execute(conn)
    ))
}

//! What may be deleted of the ledger, and its deletion. The floor only rises; the database refuses to delete calls above it.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::db::{Db, Pools, Tx, done};
use crate::error::Result;
use crate::id::{CallId, SlabId};

/// Below which calls may be gone.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct FloorRow {
    /// Ids of calls that may be gone are smaller.
    pub(crate) call_id: CallId,
    /// The instant that the id stands for.
    pub(crate) at: Timestamp,
}

pub(crate) async fn get(db: &Db) -> Result<Option<FloorRow>> {
    on_reader!(db, |conn| sqlx::query_as("select call_id, at from ledger_floor").fetch_optional(conn))
}

pub(crate) async fn get_in(tx: &mut Tx) -> Result<Option<FloorRow>> {
    in_tx!(tx, |conn| sqlx::query_as("select call_id, at from ledger_floor").fetch_optional(conn))
}

pub(crate) async fn raise(db: &Db, floor: &FloorRow) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "insert into ledger_floor (one, call_id, at) values (1, $1, $2)
             on conflict (one) do update set call_id = excluded.call_id, at = excluded.at
             where ledger_floor.call_id < excluded.call_id"
        )
        .bind(floor.call_id)
        .bind(floor.at)
        .execute(conn)
    ))
    .map(|_| ())
}

/// When the oldest period began whose numbers are not final.
pub(crate) async fn oldest_open_period(db: &Db) -> Result<Option<Timestamp>> {
    on_reader!(db, |conn| sqlx::query_scalar("select min(starts_at) from periods where closed_at is null")
        .fetch_one(conn))
}

/// Makes the part of the month that begins on this day (`YYYY-MM-DD`). SQLite has no parts.
pub(crate) async fn add_month(db: &Db, first: &str) -> Result<()> {
    let Pools::Postgres(pool) = db.pools() else { return Ok(()) };
    on_pool!(db, pool, |conn| done(
        sqlx::query("select weir_add_calls_month(cast($1 as timestamp))").bind(first).execute(conn)
    ))
    .map(|_| ())
}

/// The names of the parts that there are: `calls_YYYY_MM`, and `calls_other`.
pub(crate) async fn parts(db: &Db) -> Result<Vec<String>> {
    let Pools::Postgres(pool) = db.pools() else { return Ok(Vec::new()) };
    on_pool!(db, pool, |conn| sqlx::query_scalar(
        "select cast(part.relname as text) from pg_inherits join pg_class part on part.oid = inhrelid
         where inhparent = to_regclass('calls') order by 1"
    )
    .fetch_all(conn))
}

/// Drops the part of the month that begins on this day.
pub(crate) async fn drop_month(db: &Db, first: &str) -> Result<()> {
    let Pools::Postgres(pool) = db.pools() else { return Ok(()) };
    on_pool!(db, pool, |conn| done(
        sqlx::query("select weir_drop_calls_month(cast($1 as timestamp))").bind(first).execute(conn)
    ))
    .map(|_| ())
}

/// Deletes some of the calls below the floor; how many. On PostgreSQL, of those that are in no month's part.
pub(crate) async fn delete_calls(db: &Db, floor: &FloorRow, most: i64) -> Result<u64> {
    match db.pools() {
        Pools::Sqlite { write, .. } => on_pool!(db, write, |conn| done(
            sqlx::query(
                "delete from calls where id in
                     (select id from calls where id < $1 and started_at < $2 order by id limit $3)"
            )
            .bind(floor.call_id)
            .bind(floor.at)
            .bind(most)
            .execute(conn)
        )),
        Pools::Postgres(pool) => on_pool!(db, pool, |conn| done(
            sqlx::query(
                "delete from calls_other where id in
                     (select id from calls_other where id < $1 and started_at < $2 order by id limit $3)"
            )
            .bind(floor.call_id)
            .bind(floor.at)
            .bind(most)
            .execute(conn)
        )),
    }
}

/// Deletes some of the slabs that were closed before the floor and belong to periods whose numbers are final; how many.
pub(crate) async fn delete_slabs(db: &Db, before: Timestamp, most: i64) -> Result<u64> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "delete from slabs where id in
                 (select s.id from slabs s join periods p on p.id = s.period_id
                  where s.id < $1 and s.closed_at < $2 and p.closed_at is not null
                  order by s.id limit $3)"
        )
        .bind(SlabId::lowest_at(before))
        .bind(before)
        .bind(most)
        .execute(conn)
    ))
}

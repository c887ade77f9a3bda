//! Databases for unit tests: SQLite always, and PostgreSQL where the environment names a server.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Db, Tx};
use crate::clock::Timestamp;
use crate::config::{self, Millis};
use crate::credits::Credits;
use crate::id::{GrantId, MeterId, PeriodId, SlabId, TenantId};

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

/// Waits until somebody waits for what this transaction holds. PostgreSQL only.
pub(crate) async fn is_waited_for(db: &Db, tx: &mut Tx) {
    let process = in_tx!(tx, |conn| sqlx::query_scalar::<_, i32>("select pg_backend_pid()").fetch_one(conn));
    let process = process.expect("a process");
    let waiting = async || {
        on_reader!(db, |conn| sqlx::query_scalar::<_, i64>(
            "select count(*) from pg_stat_activity where $1 = any(pg_blocking_pids(pid))"
        )
        .bind(process)
        .fetch_one(conn))
    };
    while waiting().await.expect("a number") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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

/// Leases credits of a grant, or to be owed, into a slab of its own, as processes do; none where that is too much.
pub(crate) async fn lease(
    db: &Db,
    period: &super::periods::Period,
    grant: Option<GrantId>,
    amount: Credits,
    at: Timestamp,
) -> Option<SlabId> {
    let mut tx = db.begin().await.expect("a transaction");
    super::accounts::lock(&mut tx, period.tenant_id, at).await.expect("a lock").expect("an account");
    let leased = match grant {
        Some(grant) => in_tx!(&mut tx, |conn| super::done(
            sqlx::query(
                "update grants set leased = leased + $2
                 where id = $1 and used + leased + expired + voided + $2 <= granted and voided_at is null
                       and (expires_at is null or expires_at > $3)"
            )
            .bind(grant)
            .bind(amount)
            .bind(at)
            .execute(conn)
        )),
        None => in_tx!(&mut tx, |conn| super::done(
            sqlx::query(
                "update periods set overage_leased = overage_leased + $2
                 where id = $1 and closed_at is null
                       and (hard_cap is null or overage_used + overage_leased + $2 <= hard_cap)"
            )
            .bind(period.id)
            .bind(amount)
            .execute(conn)
        )),
    };
    if leased.expect("an update") == 0 {
        return None;
    }
    let (slab, meter) = (SlabId::new(), MeterId::new());
    in_tx!(&mut tx, |conn| super::done(
        sqlx::query("insert into meters (id, opened_at, seen_at) values ($1, $2, $2)")
            .bind(meter)
            .bind(at)
            .execute(conn)
    ))
    .expect("a meter");
    in_tx!(&mut tx, |conn| super::done(
        sqlx::query(
            "insert into slabs (id, tenant_id, period_id, grant_id, meter_id, amount, leased_at)
             values ($1, $2, $3, $4, $5, $6, $7)"
        )
        .bind(slab)
        .bind(period.tenant_id)
        .bind(period.id)
        .bind(grant)
        .bind(meter)
        .bind(amount)
        .bind(at)
        .execute(conn)
    ))
    .expect("a slab");
    tx.commit().await.expect("a commit");
    Some(slab)
}

/// Uses credits of a slab; says whether it held so many.
pub(crate) async fn spend(db: &Db, slab: SlabId, credits: Credits) -> bool {
    on_writer!(db, |conn| super::done(
        sqlx::query(
            "update slabs set used = used + $2 where id = $1 and closed_at is null and used + $2 <= amount"
        )
        .bind(slab)
        .bind(credits)
        .execute(conn)
    ))
    .expect("an update")
        > 0
}

/// Closes a slab, as processes do: what was not used goes back to where it came from, unless that is over.
pub(crate) async fn close_slab(db: &Db, tenant: TenantId, slab: SlabId, at: Timestamp) {
    let mut tx = db.begin().await.expect("a transaction");
    super::accounts::lock(&mut tx, tenant, at).await.expect("a lock").expect("an account");
    in_tx!(&mut tx, |conn| super::done(
        sqlx::query(
            "update grants
             set leased = leased - s.amount, used = grants.used + s.used,
                 voided = voided + case when voided_at is not null then s.amount - s.used else 0 end,
                 expired = expired
                     + case when voided_at is null and expires_at <= $2 then s.amount - s.used else 0 end
             from slabs s
             where s.id = $1 and s.closed_at is null and grants.id = s.grant_id"
        )
        .bind(slab)
        .bind(at)
        .execute(conn)
    ))
    .expect("an update");
    in_tx!(&mut tx, |conn| super::done(
        sqlx::query(
            "update periods
             set overage_leased = overage_leased - s.amount, overage_used = overage_used + s.used
             from slabs s
             where s.id = $1 and s.closed_at is null and s.grant_id is null and periods.id = s.period_id"
        )
        .bind(slab)
        .execute(conn)
    ))
    .expect("an update");
    in_tx!(&mut tx, |conn| super::done(
        sqlx::query("update slabs set closed_at = $2 where id = $1 and closed_at is null")
            .bind(slab)
            .bind(at)
            .execute(conn)
    ))
    .expect("an update");
    tx.commit().await.expect("a commit");
}

/// What the slabs and corrections of a grant, or of what a period owes, say was used through slabs that are closed.
pub(crate) async fn booked(db: &Db, grant: Option<GrantId>, period: Option<PeriodId>) -> Credits {
    on_reader!(db, |conn| sqlx::query_scalar(
        "select cast(coalesce((select sum(used) from slabs
                               where closed_at is not null
                                     and (grant_id = $1 or (grant_id is null and period_id = $2))), 0)
                     + coalesce((select sum(credits) from corrections where kind = 'true_up' and grant_id = $1), 0)
                     - coalesce((select sum(credits) from corrections where kind = 'true_up' and period_id = $2), 0)
                     as bigint)"
    )
    .bind(grant)
    .bind(period)
    .fetch_one(conn))
    .expect("a sum")
}

/// Adds keys of idempotent calls that end at this instant, and counts those that are there.
pub(crate) async fn add_keys(db: &Db, tenant: TenantId, count: i64, expires_at: Timestamp) -> i64 {
    for number in 0..count {
        on_writer!(db, |conn| super::done(
            sqlx::query(
                "insert into idempotency_keys
                     (tenant_id, credential, key_hash, fingerprint, call_id, meter_id, created_at, expires_at)
                 values ($1, 'key', $2, '', '', '', 0, $3)"
            )
            .bind(tenant)
            .bind(format!("{expires_at} {number}"))
            .bind(expires_at)
            .execute(conn)
        ))
        .expect("a key");
    }
    on_reader!(db, |conn| sqlx::query_scalar("select count(*) from idempotency_keys").fetch_one(conn))
        .expect("a count")
}

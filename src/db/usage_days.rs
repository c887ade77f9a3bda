//! Sums of the ledger, per day and on the fly: rows and SQL. When a day is summed is in [`crate::ledger::rollups`].
//!
//! What counts as a call, as charged and as failed stands in one place, `rows!`, for what is kept and for what is not.

use std::ops::Range;

use serde::Serialize;
use sqlx::FromRow;

use super::{Db, Tx, done};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Result;
use crate::id::TenantId;

text_enum! {
    /// What sums are taken over.
    pub enum By {
        /// A day in UTC.
        Day = "day",
        /// A credential.
        Key = "key",
        /// A server.
        Server = "server",
        /// A tool of a server.
        Tool = "tool",
    }
}

/// Sums over calls. Rounds of a call that asked its client, and answers that were given again, are not calls of their own;
/// what they carried counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromRow, Serialize)]
#[expect(missing_docs, reason = "the columns of usage_days")]
pub struct Sums {
    pub calls: i64,
    /// Calls that cost something.
    pub charged: i64,
    /// Calls that ended otherwise than with a result; denied ones not counted.
    pub failed: i64,
    pub credits: Credits,
    pub included: Credits,
    pub promotional: Credits,
    pub prepaid: Credits,
    pub overage: Credits,
    pub request_bytes: i64,
    pub result_bytes: i64,
    pub duration_us: i64,
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.charged += other.charged;
        self.failed += other.failed;
        self.credits += other.credits;
        self.included += other.included;
        self.promotional += other.promotional;
        self.prepaid += other.prepaid;
        self.overage += other.overage;
        self.request_bytes = self.request_bytes.saturating_add(other.request_bytes);
        self.result_bytes = self.result_bytes.saturating_add(other.result_bytes);
        self.duration_us = self.duration_us.saturating_add(other.duration_us);
    }
}

/// One group of calls: of `By::Day` the name is the day, of `By::Tool` there is a server.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Group {
    pub(crate) server: String,
    pub(crate) name: String,
    /// Days since 1970-01-01, where the name does not say.
    pub(crate) day_number: i64,
    #[sqlx(flatten)]
    pub(crate) sums: Sums,
}

/// The finest group that is kept.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct DayRow {
    pub(crate) credential: String,
    pub(crate) server: String,
    pub(crate) tool: String,
    #[sqlx(flatten)]
    pub(crate) sums: Sums,
}

/// A day that was summed.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct RolledDay {
    pub(crate) day: String,
    /// The same day, if its sums are not right any more.
    pub(crate) stale: Option<String>,
}

/// Calls that began in `[$1, $2)`, and what was taken back of them, each as what it adds to sums.
macro_rules! rows {
    ($of_tenant:literal, $of_call:literal) => {
        concat!(
            "select c.tenant_id, c.credential, c.server, c.tool, c.started_at,
                    case when c.outcome in ('input_required', 'replay') then 0 else 1 end as calls,
                    case when c.credits > 0 then 1 else 0 end as charged,
                    case when c.outcome in ('ok', 'input_required', 'replay', 'denied') then 0 else 1 end as failed,
                    c.credits, c.included, c.promotional, c.prepaid, c.overage,
                    c.request_bytes, c.result_bytes, c.duration_us
             from tenants t cross join calls c
             where c.tenant_id = t.id and c.started_at >= $1 and c.started_at < $2 ",
            $of_tenant,
            " union all
             select c.tenant_id, c.credential, c.server, c.tool, c.started_at, 0,
                    case when k.id = (select min(f.id) from corrections f where f.call_id = k.call_id) then -1 else 0 end,
                    0, k.credits, case when g.kind = 'included' then k.credits else 0 end,
                    case when g.kind = 'promotional' then k.credits else 0 end,
                    case when g.kind = 'prepaid' then k.credits else 0 end,
                    case when k.grant_id is null then k.credits else 0 end, 0, 0, 0
             from corrections k cross join calls c left join grants g on g.id = k.grant_id
             where c.id = k.call_id and k.kind = 'not_released' and c.started_at >= $1 and c.started_at < $2 ",
            $of_call
        )
    };
}

macro_rules! sums {
    () => {
        "cast(sum(r.calls) as bigint) as calls, cast(sum(r.charged) as bigint) as charged,
         cast(sum(r.failed) as bigint) as failed, cast(sum(r.credits) as bigint) as credits,
         cast(sum(r.included) as bigint) as included, cast(sum(r.promotional) as bigint) as promotional,
         cast(sum(r.prepaid) as bigint) as prepaid, cast(sum(r.overage) as bigint) as overage,
         cast(sum(r.request_bytes) as bigint) as request_bytes,
         cast(sum(r.result_bytes) as bigint) as result_bytes,
         cast(sum(r.duration_us) as bigint) as duration_us"
    };
}

/// When the first call began that is there.
pub(crate) async fn first_call(db: &Db) -> Result<Option<Timestamp>> {
    // One look into the index per tenant.
    on_reader!(db, |conn| {
        sqlx::query_scalar(
        "select min(f.first) from
             (select (select min(c.started_at) from calls c where c.tenant_id = t.id) as first from tenants t) as f"
    )
    .fetch_one(conn)
    })
}

/// The days that were summed, in their order.
pub(crate) async fn rolled(db: &Db) -> Result<Vec<RolledDay>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select r.day, s.day as stale from usage_rolled r left join usage_stale s on s.day = r.day order by r.day"
    )
    .fetch_all(conn)
    })
}

/// The days of a span that were summed.
pub(crate) async fn rolled_in(tx: &mut Tx, (from, to): (&str, &str)) -> Result<Vec<RolledDay>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select r.day, s.day as stale from usage_rolled r left join usage_stale s on s.day = r.day
         where r.day >= $1 and r.day <= $2 order by r.day"
    )
    .bind(from)
    .bind(to)
    .fetch_all(conn))
}

/// The days whose sums are not right, or were never made although somebody wrote calls of them late.
pub(crate) async fn stale(db: &Db) -> Result<Vec<String>> {
    on_reader!(db, |conn| sqlx::query_scalar("select day from usage_stale order by day").fetch_all(conn))
}

/// Says that the sums of a day are not right any more. Whoever sums it waits until this transaction has ended, so this
/// stands at a transaction's end.
pub(crate) async fn mark_stale(tx: &mut Tx, day: &str) -> Result<()> {
    // The update that changes nothing takes the row's lock.
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into usage_stale (day) values ($1) on conflict (day) do update set day = excluded.day"
        )
        .bind(day)
        .execute(conn)
    ))
    .map(|_| ())
}

/// Forgets marks of days before this one.
pub(crate) async fn forget_stale(db: &Db, before: &str) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query("delete from usage_stale where day < $1").bind(before).execute(conn)
    ))
    .map(|_| ())
}

/// Takes a day to sum it. `false`: another process did so meanwhile.
pub(crate) async fn claim(tx: &mut Tx, day: &str, now: Timestamp) -> Result<bool> {
    // Of two that insert the row at once, one waits here for the other's end.
    let fresh = in_tx!(tx, |conn| done(
        sqlx::query("insert into usage_rolled (day, at) values ($1, $2) on conflict (day) do nothing")
            .bind(day)
            .bind(now)
            .execute(conn)
    ))?;
    if fresh == 0 {
        in_tx!(tx, |conn| done(
            sqlx::query("update usage_rolled set at = $2 where day = $1").bind(day).bind(now).execute(conn)
        ))?;
    }
    // Waits for whoever is just writing a late call. What comes after this leaves a mark again.
    let stale = in_tx!(tx, |conn| done(
        sqlx::query("delete from usage_stale where day = $1").bind(day).execute(conn)
    ))?;
    Ok(fresh > 0 || stale > 0)
}

/// Sums a day anew.
pub(crate) async fn roll(tx: &mut Tx, day: &str, range: &Range<Timestamp>) -> Result<()> {
    in_tx!(tx, |conn| done(sqlx::query("delete from usage_days where day = $1").bind(day).execute(conn)))?;
    in_tx!(tx, |conn| done(
        sqlx::query(concat!(
            "insert into usage_days (tenant_id, day, credential, server, tool, calls, charged, failed, credits, included,
                                     promotional, prepaid, overage, request_bytes, result_bytes, duration_us)
             select r.tenant_id, cast($3 as text), r.credential, r.server, r.tool, ",
            sums!(),
            " from (",
            rows!("", ""),
            ") as r group by r.tenant_id, r.credential, r.server, r.tool"
        ))
        .bind(range.start)
        .bind(range.end)
        .bind(day)
        .execute(conn)
    ))
    .map(|_| ())
}

/// Sums over kept days, both ends included.
pub(crate) async fn kept(
    tx: &mut Tx,
    tenant: TenantId,
    (from, to): (&str, &str),
    by: By,
    limit: i64,
) -> Result<Vec<Group>> {
    in_tx!(tx, |conn| sqlx::query_as(concat!(
        "select case when $4 = 'tool' then r.server else '' end as server,
                case $4 when 'day' then r.day when 'key' then r.credential when 'server' then r.server
                        else r.tool end as name,
                cast(-1 as bigint) as day_number, ",
        sums!(),
        " from usage_days r
         where r.tenant_id = $1 and r.day >= $2 and r.day <= $3
         group by 1, 2 limit $5"
    ))
    .bind(tenant)
    .bind(from)
    .bind(to)
    .bind(by)
    .bind(limit)
    .fetch_all(conn))
}

/// Sums over calls that began within `range`.
pub(crate) async fn counted(
    tx: &mut Tx,
    tenant: TenantId,
    range: &Range<Timestamp>,
    by: By,
    limit: i64,
) -> Result<Vec<Group>> {
    in_tx!(tx, |conn| sqlx::query_as(concat!(
        "select case when $4 = 'tool' then r.server else '' end as server,
                case $4 when 'day' then '' when 'key' then r.credential when 'server' then r.server
                        else r.tool end as name,
                case when $4 = 'day' then r.started_at / 86400000000 else -1 end as day_number, ",
        sums!(),
        " from (",
        rows!("and t.id = $3", "and c.tenant_id = $3"),
        ") as r group by 1, 2, 3 limit $5"
    ))
    .bind(range.start)
    .bind(range.end)
    .bind(tenant)
    .bind(by)
    .bind(limit)
    .fetch_all(conn))
}

/// The rows of a kept day.
pub(crate) async fn kept_rows(tx: &mut Tx, tenant: TenantId, day: &str) -> Result<Vec<DayRow>> {
    in_tx!(tx, |conn| {
        sqlx::query_as(
        "select credential, server, tool, calls, charged, failed, credits, included, promotional, prepaid, overage,
                request_bytes, result_bytes, duration_us
         from usage_days where tenant_id = $1 and day = $2"
    )
    .bind(tenant)
    .bind(day)
    .fetch_all(conn)
    })
}

/// Writes a call, as whoever settles calls does.
#[cfg(test)]
pub(crate) async fn test_call(tx: &mut Tx, tenant: TenantId, started_at: i64) {
    let written = in_tx!(tx, |conn| {
        done(
        sqlx::query(
            "insert into calls (id, tenant_id, credential, server, tool, outcome, started_at, duration_us, request_bytes,
                                result_bytes, correlation_id)
             values ($1, $2, 'key_x', 'lab', 'late', 'ok', $3, 1, 1, 1, 'x')"
        )
        .bind(crate::id::CallId::new())
        .bind(tenant)
        .bind(started_at)
        .execute(conn)
    )
    });
    assert_eq!(written.expect("a row"), 1);
}

//! Periods of accounts: rows and SQL. How they follow one another is in [`crate::accounts`].

use std::ops::Range;

use sqlx::FromRow;

use super::{Db, JsonText, Listed, Page, Tx, done};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Result;
use crate::id::{PeriodId, PriceVersionId, TenantId};
use crate::plans::PlanName;
use crate::prices::Terms;

/// A span of time in which a tenant's use is added up, from `starts_at` up to but not including `ends_at`.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Period {
    /// Its id.
    pub id: PeriodId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The plan by whose prices calls that begin in it are charged.
    pub plan: PlanName,
    /// The version that was in force at its beginning: it says what is included and where the caps are.
    pub price_version_id: PriceVersionId,
    /// When it begins.
    pub starts_at: Timestamp,
    /// When it ends. May become earlier while it runs, never later.
    pub ends_at: Timestamp,
    /// The most that may be owed, used and leased together. None: no cap.
    pub hard_cap: Option<Credits>,
    /// Owed credits of which the tenant is told.
    pub soft_cap: Option<Credits>,
    /// Owed through slabs that are closed.
    pub overage_used: Credits,
    /// What open slabs hold to be owed.
    pub overage_leased: Credits,
    /// When its numbers became final.
    pub closed_at: Option<Timestamp>,
}

/// The period that this instant is in and the one after it, as far as they are there: those that end after it.
pub(crate) async fn around(db: &Db, tenant: TenantId, at: Timestamp) -> Result<Vec<Period>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select id, tenant_id, plan, price_version_id, starts_at, ends_at, hard_cap, soft_cap, overage_used,
                overage_leased, closed_at
         from periods
         where tenant_id = $1 and ends_at > $2
         order by starts_at
         limit 2"
    )
    .bind(tenant)
    .bind(at)
    .fetch_all(conn))
}

/// The periods that end after this instant, as a transaction sees them, in order.
pub(crate) async fn ending_after(tx: &mut Tx, tenant: TenantId, at: Timestamp) -> Result<Vec<Period>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select id, tenant_id, plan, price_version_id, starts_at, ends_at, hard_cap, soft_cap, overage_used,
                overage_leased, closed_at
         from periods
         where tenant_id = $1 and ends_at > $2
         order by starts_at"
    )
    .bind(tenant)
    .bind(at)
    .fetch_all(conn))
}

/// The last period of a tenant.
pub(crate) async fn latest(tx: &mut Tx, tenant: TenantId) -> Result<Option<Period>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select id, tenant_id, plan, price_version_id, starts_at, ends_at, hard_cap, soft_cap, overage_used,
                overage_leased, closed_at
         from periods
         where tenant_id = $1
         order by starts_at desc
         limit 1"
    )
    .bind(tenant)
    .fetch_optional(conn))
}

/// One period, as a transaction sees it.
pub(crate) async fn get_in(tx: &mut Tx, id: PeriodId) -> Result<Option<Period>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select id, tenant_id, plan, price_version_id, starts_at, ends_at, hard_cap, soft_cap, overage_used,
                overage_leased, closed_at
         from periods
         where id = $1"
    )
    .bind(id)
    .fetch_optional(conn))
}

/// One page of a tenant's periods, oldest first.
pub(crate) async fn list(db: &Db, tenant: TenantId, page: Page<PeriodId>) -> Result<Listed<Period>> {
    let rows = on_reader!(db, |conn| {
        sqlx::query_as(
        "select id, tenant_id, plan, price_version_id, starts_at, ends_at, hard_cap, soft_cap, overage_used,
                overage_leased, closed_at
         from periods
         where tenant_id = $1 and id > $2
         order by id
         limit $3"
    )
    .bind(tenant)
    .bind(page.after_text())
    .bind(page.fetch())
    .fetch_all(conn)
    })?;
    Ok(page.cut(rows))
}

/// Adds a period of which nothing is used, in its cycle; `has_all`: it is given all that its plan includes, whatever its share.
pub(crate) async fn insert(
    tx: &mut Tx,
    period: &Period,
    cycle: &Range<Timestamp>,
    has_all: bool,
) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into periods (id, tenant_id, plan, price_version_id, starts_at, ends_at, hard_cap, soft_cap,
                                  cycle_starts_at, cycle_ends_at, has_all)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
        )
        .bind(period.id)
        .bind(period.tenant_id)
        .bind(period.plan.as_str())
        .bind(period.price_version_id)
        .bind(period.starts_at)
        .bind(period.ends_at)
        .bind(period.hard_cap)
        .bind(period.soft_cap)
        .bind(cycle.start)
        .bind(cycle.end)
        .bind(i64::from(has_all))
        .execute(conn)
    ))
    .map(|_| ())
}

/// Ends a period earlier.
pub(crate) async fn end_at(tx: &mut Tx, id: PeriodId, ends_at: Timestamp) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query("update periods set ends_at = $2 where id = $1 and ends_at > $2")
            .bind(id)
            .bind(ends_at)
            .execute(conn)
    ))
    .map(|_| ())
}

/// Caps what may be owed, but not below what is used and leased already.
pub(crate) async fn set_hard_cap(tx: &mut Tx, id: PeriodId, cap: Option<Credits>) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "update periods
             set hard_cap = case when overage_used + overage_leased > cast($2 as bigint) then overage_used + overage_leased
                                 else cast($2 as bigint) end
             where id = $1 and closed_at is null"
        )
        .bind(id)
        .bind(cap)
        .execute(conn)
    ))
    .map(|_| ())
}

/// What a period gave.
#[derive(FromRow)]
pub(crate) struct Given {
    /// What its plan said at its beginning.
    #[sqlx(try_from = "JsonText<Terms>")]
    pub(crate) terms: Terms,
    /// Its included credits that were used or still can be.
    pub(crate) kept: Credits,
}

impl From<JsonText<Terms>> for Terms {
    fn from(text: JsonText<Terms>) -> Self {
        text.0
    }
}

/// What the periods gave that begin from `from` on and before `to`.
pub(crate) async fn given(
    tx: &mut Tx,
    tenant: TenantId,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Given>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select v.terms, coalesce(g.granted - g.expired - g.voided, 0) as kept
         from periods p
         join price_versions v on v.id = p.price_version_id
         left join grants g on g.tenant_id = p.tenant_id and g.source = 'period:' || p.id
         where p.tenant_id = $1 and p.starts_at >= $2 and p.starts_at < $3"
    )
    .bind(tenant)
    .bind(from)
    .bind(to)
    .fetch_all(conn))
}

/// A period that is over and not closed.
#[derive(Debug, Clone, Copy, FromRow)]
pub(crate) struct Over {
    pub(crate) id: PeriodId,
    pub(crate) tenant_id: TenantId,
    pub(crate) ends_at: Timestamp,
}

/// Up to `limit` periods that ended by `at` and are not closed, by their ends, after this one.
pub(crate) async fn over(db: &Db, at: Timestamp, after: Option<Over>, limit: i64) -> Result<Vec<Over>> {
    let (ended, id) = after.map_or((Timestamp::from_micros(i64::MIN), String::new()), |last| {
        (last.ends_at, last.id.to_string())
    });
    on_reader!(db, |conn| sqlx::query_as(
        "select id, tenant_id, ends_at
         from periods
         where closed_at is null and ends_at <= $1 and (ends_at, id) > ($2, $3)
         order by ends_at, id
         limit $4"
    )
    .bind(at)
    .bind(ended)
    .bind(id)
    .bind(limit)
    .fetch_all(conn))
}

/// How many slabs of a period are open. Counts among the tenant's open slabs, of which there are few; a period has many
/// that are closed.
pub(crate) async fn open_slabs(tx: &mut Tx, period: &Period) -> Result<i64> {
    in_tx!(tx, |conn| {
        sqlx::query_scalar(
        "select count(case when period_id = $2 then 1 end) from slabs where tenant_id = $1 and closed_at is null"
    )
    .bind(period.tenant_id)
    .bind(period.id)
    .fetch_one(conn)
    })
}

/// Takes from what is owed what a grant pays after all.
pub(crate) async fn owe_less(tx: &mut Tx, id: PeriodId, credits: Credits) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query("update periods set overage_used = overage_used - $2 where id = $1")
            .bind(id)
            .bind(credits)
            .execute(conn)
    ))
    .map(|_| ())
}

/// Makes a period's numbers final.
pub(crate) async fn close(tx: &mut Tx, id: PeriodId, at: Timestamp) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query("update periods set closed_at = $2 where id = $1 and closed_at is null")
            .bind(id)
            .bind(at)
            .execute(conn)
    ))
    .map(|_| ())
}

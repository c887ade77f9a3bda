//! Events of accounts: rows and SQL. What makes one is in [`crate::accounts::events`].

use sqlx::FromRow;

use super::{Db, Listed, Page, Tx, done};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Result;
use crate::id::{AccountEventId, PeriodId, TenantId};

text_enum! {
    /// What happened to an account.
    pub enum EventKind {
        /// Four fifths of the included credits are used.
        Included80 = "included_80",
        /// The included credits are used.
        Included100 = "included_100",
        /// Four fifths of the soft cap are owed.
        SoftCap80 = "soft_cap_80",
        /// The soft cap is owed.
        SoftCap100 = "soft_cap_100",
        /// Four fifths of the hard cap are owed.
        HardCap80 = "hard_cap_80",
        /// The hard cap is owed: nothing more is done on credit.
        HardCap100 = "hard_cap_100",
    }
}

/// What somebody should know about an account; of each kind there is one per period.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Event {
    /// Its id.
    pub id: AccountEventId,
    /// Whose account it is.
    pub tenant_id: TenantId,
    /// The period in which it happened.
    pub period_id: PeriodId,
    /// What happened.
    pub kind: EventKind,
    /// When it was found.
    pub at: Timestamp,
    /// More about it, as a JSON object.
    pub detail: String,
}

/// What decides whether there is an event.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Levels {
    pub(crate) tenant_id: TenantId,
    /// Owed, open slabs included.
    pub(crate) owed: Credits,
    pub(crate) soft_cap: Option<Credits>,
    pub(crate) hard_cap: Option<Credits>,
    /// Included credits of the period that were not taken back, and what is used of them, open slabs included.
    pub(crate) included: Credits,
    pub(crate) included_used: Credits,
}

/// Where a period stands, as a transaction sees it.
pub(crate) async fn levels(tx: &mut Tx, period: PeriodId) -> Result<Option<Levels>> {
    in_tx!(tx, |conn| {
        sqlx::query_as(
        "select p.tenant_id, p.soft_cap, p.hard_cap,
                p.overage_used
                + cast(coalesce((select sum(case when s.period_id = p.id and s.grant_id is null then s.used else 0 end)
                                 from slabs s
                                 where s.tenant_id = p.tenant_id and s.closed_at is null), 0) as bigint) as owed,
                coalesce(g.granted - g.voided, 0) as included,
                coalesce(g.used, 0)
                + cast(coalesce((select sum(case when s.grant_id = g.id then s.used else 0 end)
                                 from slabs s
                                 where s.tenant_id = p.tenant_id and s.closed_at is null), 0) as bigint) as included_used
         from periods p
         left join grants g on g.tenant_id = p.tenant_id and g.source = 'period:' || p.id
         where p.id = $1"
    )
    .bind(period)
    .fetch_optional(conn)
    })
}

/// The kinds of events that a period has.
pub(crate) async fn kinds(tx: &mut Tx, period: PeriodId) -> Result<Vec<EventKind>> {
    in_tx!(tx, |conn| sqlx::query_scalar("select kind from account_events where period_id = $1")
        .bind(period)
        .fetch_all(conn))
}

/// Adds an event, unless the period has one of its kind; says whether it did.
pub(crate) async fn insert(tx: &mut Tx, event: &Event) -> Result<bool> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into account_events (id, tenant_id, period_id, kind, at, detail)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (period_id, kind) do nothing"
        )
        .bind(event.id)
        .bind(event.tenant_id)
        .bind(event.period_id)
        .bind(event.kind)
        .bind(event.at)
        .bind(event.detail.as_str())
        .execute(conn)
    ))
    .map(|rows| rows > 0)
}

/// One page of a tenant's events, oldest first.
pub(crate) async fn list(db: &Db, tenant: TenantId, page: Page<AccountEventId>) -> Result<Listed<Event>> {
    let rows = on_reader!(db, |conn| sqlx::query_as(
        "select id, tenant_id, period_id, kind, at, detail
         from account_events
         where tenant_id = $1 and id > $2
         order by id
         limit $3"
    )
    .bind(tenant)
    .bind(page.after_text())
    .bind(page.fetch())
    .fetch_all(conn))?;
    Ok(page.cut(rows))
}

/// The events of one period, oldest first: six at most.
pub(crate) async fn of_period(db: &Db, period: PeriodId) -> Result<Vec<Event>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select id, tenant_id, period_id, kind, at, detail from account_events where period_id = $1 order by id"
    )
    .bind(period)
    .fetch_all(conn)
    })
}

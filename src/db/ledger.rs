//! The ledger as it is read: calls with what they cost. Rows and SQL.

pub(crate) mod balance;
pub(crate) mod checks;
pub(crate) mod export_checks;
pub(crate) mod floor;

use std::ops::Range;

use sqlx::FromRow;

use super::{Db, Listed, Page};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Result;
use crate::id::{CallId, PeriodId, PriceVersionId, TenantId};

/// A call, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Entry {
    /// Its id.
    pub id: CallId,
    /// The credential that made it: `key_...` or `jwt_...`.
    pub credential: String,
    /// The server that the tool belongs to.
    pub server: String,
    /// The tool.
    pub tool: String,
    /// How it ended.
    pub outcome: String,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in microseconds.
    pub duration_us: i64,
    /// The size of its arguments.
    pub request_bytes: i64,
    /// The size of its result.
    pub result_bytes: i64,
    /// The period that it belongs to, where its tenant had one.
    pub period_id: Option<PeriodId>,
    /// The prices that it was charged by, where there were any.
    pub price_version_id: Option<PriceVersionId>,
    /// What it cost when it was settled.
    pub credits: Credits,
    /// Of that, from included credits.
    pub included: Credits,
    /// Of that, from promotional credits.
    pub promotional: Credits,
    /// Of that, from prepaid credits.
    pub prepaid: Credits,
    /// Of that, owed.
    pub overage: Credits,
    /// What was taken back after that, because its result was not released; not negative.
    pub given_back: Credits,
}

/// A tenant's calls that began within `range`, in the order in which they began.
pub(crate) async fn list(
    db: &Db,
    tenant: TenantId,
    range: Range<Timestamp>,
    page: Page<CallId>,
) -> Result<Listed<Entry>> {
    let start = super::calls::start_of(db, tenant, range.start, page).await?;
    let rows = on_reader!(db, |conn| {
        sqlx::query_as(
        "select c.id, c.credential, c.server, c.tool, c.outcome, c.started_at, c.duration_us, c.request_bytes,
                c.result_bytes, c.period_id, c.price_version_id, c.credits, c.included, c.promotional, c.prepaid,
                c.overage,
                coalesce((select cast(-sum(k.credits) as bigint) from corrections k
                          where k.call_id = c.id and k.kind = 'not_released'), 0) as given_back
         from calls c
         where c.tenant_id = $1 and (c.started_at, c.id) > ($2, $3) and c.started_at < $4
         order by c.started_at, c.id
         limit $5"
    )
    .bind(tenant)
    .bind(start)
    .bind(page.after_text())
    .bind(range.end)
    .bind(page.fetch())
    .fetch_all(conn)
    })?;
    Ok(page.cut(rows))
}

/// Whether there is a row of this tenant, be it deleted.
pub(crate) async fn has_tenant(db: &Db, tenant: TenantId) -> Result<bool> {
    let rows: i64 = on_reader!(db, |conn| sqlx::query_scalar("select count(*) from tenants where id = $1")
        .bind(tenant)
        .fetch_one(conn))?;
    Ok(rows > 0)
}

//! What an account has and has used at a moment. Rows and SQL.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::Tx;
use crate::db::grants::GrantKind;
use crate::error::Result;
use crate::id::{PeriodId, PriceVersionId, TenantId};

/// The period of a moment, with what was used in it so far.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct PeriodRow {
    pub(crate) plan: String,
    pub(crate) price_version_id: PriceVersionId,
    pub(crate) starts_at: Timestamp,
    pub(crate) ends_at: Timestamp,
    pub(crate) hard_cap: Option<Credits>,
    /// By all slabs, and what was taken back after they were closed.
    pub(crate) used: Credits,
    /// Of that, what is owed.
    pub(crate) owed: Credits,
}

/// What grants of one kind have left.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct LeftRow {
    pub(crate) kind: GrantKind,
    pub(crate) credits: Credits,
}

pub(crate) async fn current_period(
    tx: &mut Tx,
    tenant: TenantId,
    now: Timestamp,
) -> Result<Option<PeriodRow>> {
    let id: Option<PeriodId> = in_tx!(tx, |conn| sqlx::query_scalar(
        "select id from periods where tenant_id = $1 and starts_at <= $2 and ends_at > $2"
    )
    .bind(tenant)
    .bind(now)
    .fetch_optional(conn))?;
    let Some(id) = id else { return Ok(None) };
    in_tx!(tx, |conn| {
        sqlx::query_as(
        "select p.plan, p.price_version_id, p.starts_at, p.ends_at, p.hard_cap,
                coalesce((select cast(sum(s.used) as bigint) from slabs s where s.period_id = p.id), 0)
              + coalesce((select cast(sum(k.credits) as bigint) from corrections k
                          where k.period_id = p.id and k.kind = 'not_released' and k.booked = 'source'), 0) as used,
                p.overage_used
              + coalesce((select cast(sum(s.used) as bigint) from slabs s
                          where s.tenant_id = p.tenant_id and s.closed_at is null and s.grant_id is null
                                and s.period_id = p.id), 0) as owed
         from periods p where p.id = $1"
    )
    .bind(id)
    .fetch_optional(conn)
    })
}

/// What is left of the grants that calls of this moment are paid from, by kind.
pub(crate) async fn left(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Vec<LeftRow>> {
    in_tx!(tx, |conn| {
        sqlx::query_as(
        "select g.kind, cast(sum(g.granted - g.used - g.expired - g.voided - coalesce(o.used, 0)) as bigint) as credits
         from grants g
         left join (select s.grant_id, sum(s.used) as used from slabs s
                    where s.tenant_id = $1 and s.closed_at is null and s.grant_id is not null
                    group by s.grant_id) o on o.grant_id = g.id
         where g.tenant_id = $1 and g.voided_at is null and g.granted_at <= $2
               and (g.expires_at is null or g.expires_at > $2)
         group by g.kind"
    )
    .bind(tenant)
    .bind(now)
    .fetch_all(conn)
    })
}

//! Slabs: credits of one source that one meter holds to spend. Rows and SQL.
//!
//! Whoever leases or closes holds the account's row first, so that a tenant's sources are changed by one at a time and always
//! in the same order; the checks of `grants` and `periods` refuse what would be more than there is.

use sqlx::FromRow;

use super::accounts::Access;
use super::grants::GrantKind;
use super::{Tx, done};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Result;
use crate::id::{GrantId, MeterId, PeriodId, SlabId, TenantId};

/// Grants that one lease looks at.
const GRANTS: i64 = 256;

/// A grant with credits that nobody holds.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct FreeGrant {
    pub(crate) id: GrantId,
    pub(crate) kind: GrantKind,
    pub(crate) free: Credits,
    pub(crate) expires_at: Option<Timestamp>,
}

/// What of a period decides what may be owed in it.
#[derive(Debug, Clone, Copy, FromRow)]
pub(crate) struct Room {
    pub(crate) hard_cap: Option<Credits>,
    pub(crate) overage_used: Credits,
    pub(crate) overage_leased: Credits,
}

/// A slab that was just closed.
#[derive(Debug, Clone, Copy, FromRow)]
pub(crate) struct ClosedSlab {
    pub(crate) period_id: PeriodId,
    pub(crate) grant_id: Option<GrantId>,
    pub(crate) amount: Credits,
    pub(crate) used: Credits,
}

/// A slab to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewSlab {
    pub(crate) id: SlabId,
    pub(crate) tenant: TenantId,
    pub(crate) period: PeriodId,
    pub(crate) grant: Option<GrantId>,
    pub(crate) meter: MeterId,
    pub(crate) amount: Credits,
    pub(crate) at: Timestamp,
}

/// Holds the account's row until the transaction ends, and says what it may still do. Nothing: there is none.
pub(crate) async fn lock_account(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Option<Access>> {
    in_tx!(tx, |conn| sqlx::query_scalar(
        "update accounts set revision = revision + 1, updated_at = $2 where tenant_id = $1 returning access"
    )
    .bind(tenant)
    .bind(now)
    .fetch_optional(conn))
}

/// The grants that calls of this moment are paid from, in the order in which they burn.
pub(crate) async fn free_grants(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Vec<FreeGrant>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select id, kind, granted - used - leased - expired - voided as free, expires_at
         from grants
         where tenant_id = $1 and voided_at is null and granted_at <= $2
               and (expires_at is null or expires_at > $2)
               and granted - used - leased - expired - voided > 0
         order by case kind when 'included' then 0 when 'promotional' then 1 else 2 end,
                  coalesce(expires_at, 9223372036854775807), id
         limit $3"
    )
    .bind(tenant)
    .bind(now)
    .bind(GRANTS)
    .fetch_all(conn))
}

/// What processes hold of the grants that calls of this moment are paid from.
pub(crate) async fn held(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Credits> {
    in_tx!(tx, |conn| sqlx::query_scalar(
        "select cast(coalesce(sum(leased), 0) as bigint) from grants
         where tenant_id = $1 and voided_at is null and (expires_at is null or expires_at > $2)"
    )
    .bind(tenant)
    .bind(now)
    .fetch_one(conn))
}

/// What may still be owed in the period, if calls of this moment belong to it.
pub(crate) async fn room(tx: &mut Tx, period: PeriodId, now: Timestamp) -> Result<Option<Room>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select hard_cap, overage_used, overage_leased from periods
         where id = $1 and closed_at is null and starts_at <= $2 and ends_at > $2"
    )
    .bind(period)
    .bind(now)
    .fetch_optional(conn))
}

/// Moves credits from a source into a new slab.
pub(crate) async fn lease(tx: &mut Tx, slab: NewSlab) -> Result<()> {
    match slab.grant {
        Some(grant) => in_tx!(tx, |conn| done(
            sqlx::query("update grants set leased = leased + $2 where id = $1")
                .bind(grant)
                .bind(slab.amount)
                .execute(conn)
        ))?,
        None => in_tx!(tx, |conn| done(
            sqlx::query("update periods set overage_leased = overage_leased + $2 where id = $1")
                .bind(slab.period)
                .bind(slab.amount)
                .execute(conn)
        ))?,
    };
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into slabs (id, tenant_id, period_id, grant_id, meter_id, amount, leased_at)
             values ($1, $2, $3, $4, $5, $6, $7)"
        )
        .bind(slab.id)
        .bind(slab.tenant)
        .bind(slab.period)
        .bind(slab.grant)
        .bind(slab.meter)
        .bind(slab.amount)
        .bind(slab.at)
        .execute(conn)
    ))
    .map(|_| ())
}

/// Leaves a slab no more than `amount`; the rest goes back to where it came from, or is lost with it. Nothing, where it has no
/// more or is closed.
pub(crate) async fn shrink(tx: &mut Tx, id: SlabId, amount: Credits, now: Timestamp) -> Result<()> {
    let before: Option<(PeriodId, Option<GrantId>, Credits)> = in_tx!(tx, |conn| {
        sqlx::query_as(
        "select period_id, grant_id, amount from slabs where id = $1 and closed_at is null and amount > $2"
    )
    .bind(id)
    .bind(amount)
    .fetch_optional(conn)
    })?;
    let Some((period, grant, before)) = before else { return Ok(()) };
    in_tx!(tx, |conn| done(
        sqlx::query("update slabs set amount = $2 where id = $1").bind(id).bind(amount).execute(conn)
    ))?;
    let rest = before - amount;
    let back = Back { period, grant, amount: rest, used: Credits::ZERO, now };
    give_back(tx, back).await
}

/// Credits that leave a slab for their source.
struct Back {
    period: PeriodId,
    grant: Option<GrantId>,
    /// No longer leased.
    amount: Credits,
    /// Of those, used.
    used: Credits,
    now: Timestamp,
}

async fn give_back(tx: &mut Tx, back: Back) -> Result<()> {
    match back.grant {
        Some(grant) => in_tx!(tx, |conn| done(
            sqlx::query(
                "update grants set leased = leased - $2, used = used + $3,
                        voided = voided + case when voided_at is not null then $4 else 0 end,
                        expired = expired + case when voided_at is null and expires_at <= $5 then $4 else 0 end
                 where id = $1"
            )
            .bind(grant)
            .bind(back.amount)
            .bind(back.used)
            .bind(back.amount - back.used)
            .bind(back.now)
            .execute(conn)
        )),
        None => in_tx!(tx, |conn| done(
            sqlx::query(
                "update periods set overage_leased = overage_leased - $2, overage_used = overage_used + $3
                 where id = $1"
            )
            .bind(back.period)
            .bind(back.amount)
            .bind(back.used)
            .execute(conn)
        )),
    }
    .map(|_| ())
}

/// Closes a slab: what was used of it is booked, the rest goes back to where it came from, or is lost with it. Nothing, where
/// it is closed already.
pub(crate) async fn close(tx: &mut Tx, id: SlabId, now: Timestamp) -> Result<Option<ClosedSlab>> {
    let closed: Option<ClosedSlab> = in_tx!(tx, |conn| sqlx::query_as(
        "update slabs set closed_at = $2 where id = $1 and closed_at is null
         returning period_id, grant_id, amount, used"
    )
    .bind(id)
    .bind(now)
    .fetch_optional(conn))?;
    if let Some(ClosedSlab { period_id, grant_id, amount, used }) = closed {
        give_back(tx, Back { period: period_id, grant: grant_id, amount, used, now }).await?;
    }
    Ok(closed)
}

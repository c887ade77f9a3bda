//! Tenants: row and SQL. What may be done to one is in [`crate::tenants`].

use sqlx::FromRow;

use super::{Db, JsonText, Listed, Page, Tx};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::TenantId;
use crate::limits::PlanLimits;

text_enum! {
    /// Where a tenant stands.
    pub enum Status {
        /// Its credentials work.
        Active = "active",
        /// Its credentials are known, and refused with a message of its own.
        Suspended = "suspended",
        /// Gone for everybody; kept for the ledger and the audit trail.
        Deleted = "deleted",
    }
}

/// A customer organisation of the operator.
#[derive(Debug, Clone, FromRow)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name; unique among those that are not deleted.
    pub name: String,
    /// Where it stands.
    pub status: Status,
    /// The plan that it is on.
    pub plan: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Tenants for whom nobody pays.
#[derive(Debug, Clone)]
pub(crate) struct Unsubscribed {
    pub(crate) count: i64,
    /// Some of their names.
    pub(crate) names: Vec<String>,
}

/// The tenants on a plan that have no subscription that goes on; at most so many names.
pub(crate) async fn unsubscribed(db: &Db, plan: &str, limit: i64) -> Result<Unsubscribed> {
    let count = on_reader!(db, |conn| sqlx::query_scalar(
        "select count(*) from tenants t
         where t.plan = $1 and t.status <> 'deleted'
               and not exists (select 1 from billing_subscriptions s
                               where s.tenant_id = t.id
                                     and s.status in ('trialing', 'active', 'past_due', 'unpaid', 'paused'))"
    )
    .bind(plan)
    .fetch_one(conn))?;
    let names = on_reader!(db, |conn| sqlx::query_scalar(
        "select t.name from tenants t
         where t.plan = $1 and t.status <> 'deleted'
               and not exists (select 1 from billing_subscriptions s
                               where s.tenant_id = t.id
                                     and s.status in ('trialing', 'active', 'past_due', 'unpaid', 'paused'))
         order by t.id limit $2"
    )
    .bind(plan)
    .bind(limit)
    .fetch_all(conn))?;
    Ok(Unsubscribed { count, names })
}

pub(crate) async fn insert(tx: &mut Tx, id: TenantId, name: &str, now: Timestamp) -> Result<Tenant> {
    in_tx!(tx, |conn| sqlx::query_as(
        "insert into tenants (id, name, status, created_at, updated_at)
         values ($1, $2, 'active', $3, $3)
         returning id, name, status, plan, created_at, updated_at"
    )
    .bind(id)
    .bind(name)
    .bind(now)
    .fetch_one(conn))
}

/// One tenant, unless it is deleted.
pub(crate) async fn get(db: &Db, id: TenantId) -> Result<Option<Tenant>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select id, name, status, plan, created_at, updated_at
         from tenants
         where id = $1 and status <> 'deleted'"
    )
    .bind(id)
    .fetch_optional(conn))
}

/// One tenant, unless it is deleted; until the transaction ends, nobody else can change it.
pub(crate) async fn lock(tx: &mut Tx, id: TenantId) -> Result<Option<Tenant>> {
    // An update that changes nothing takes the row's lock on PostgreSQL; SQLite's writer is alone anyway.
    in_tx!(tx, |conn| sqlx::query_as(
        "update tenants set updated_at = updated_at
         where id = $1 and status <> 'deleted'
         returning id, name, status, plan, created_at, updated_at"
    )
    .bind(id)
    .fetch_optional(conn))
}

pub(crate) async fn find_by_name(db: &Db, name: &str) -> Result<Option<Tenant>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select id, name, status, plan, created_at, updated_at
         from tenants
         where name = $1 and status <> 'deleted'"
    )
    .bind(name)
    .fetch_optional(conn))
}

pub(crate) async fn list(db: &Db, page: Page<TenantId>) -> Result<Listed<Tenant>> {
    let rows = on_reader!(db, |conn| sqlx::query_as(
        "select id, name, status, plan, created_at, updated_at
         from tenants
         where id > $1 and status <> 'deleted'
         order by id
         limit $2"
    )
    .bind(page.after_text())
    .bind(page.fetch())
    .fetch_all(conn))?;
    Ok(page.cut(rows))
}

/// A tenant with what authentication has to know of its plan.
#[derive(FromRow)]
pub(crate) struct TenantWithPlan {
    #[sqlx(flatten)]
    pub(crate) tenant: Tenant,
    pub(crate) plan_limits: Option<JsonText<PlanLimits>>,
    /// Whether the plan has prices, or the tenant an account.
    pub(crate) metered: bool,
}

/// One tenant with its plan, unless it is deleted.
pub(crate) async fn with_plan(db: &Db, id: TenantId) -> Result<Option<TenantWithPlan>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select t.id, t.name, t.status, t.plan, t.created_at, t.updated_at, p.limits as plan_limits,
                exists (select 1 from price_versions v where v.plan = t.plan)
                or exists (select 1 from accounts a where a.tenant_id = t.id) as metered
         from tenants t left join plans p on p.name = t.plan
         where t.id = $1 and t.status <> 'deleted'"
    )
    .bind(id)
    .fetch_optional(conn))
}

pub(crate) async fn set_plan(tx: &mut Tx, id: TenantId, plan: &str, now: Timestamp) -> Result<Tenant> {
    in_tx!(tx, |conn| sqlx::query_as(
        "update tenants set plan = $2, updated_at = $3
         where id = $1
         returning id, name, status, plan, created_at, updated_at"
    )
    .bind(id)
    .bind(plan)
    .bind(now)
    .fetch_one(conn))
}

pub(crate) async fn set_status(tx: &mut Tx, id: TenantId, status: Status, now: Timestamp) -> Result<Tenant> {
    in_tx!(tx, |conn| sqlx::query_as(
        "update tenants set status = $2, updated_at = $3
         where id = $1
         returning id, name, status, plan, created_at, updated_at"
    )
    .bind(id)
    .bind(status)
    .bind(now)
    .fetch_one(conn))
}

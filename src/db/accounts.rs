//! Accounts: rows and SQL. What may be done to one is in [`crate::accounts`].
//!
//! Who changes periods or grants of a tenant holds its account's row to the end of the transaction; who needs the tenant's
//! row as well takes that one first.

use sqlx::FromRow;

use super::{Db, Tx, done};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::plans::PlanName;
use crate::prices::Cycle;

text_enum! {
    /// What an account may still do.
    pub enum Access {
        /// Everything.
        Open = "open",
        /// Use what it was given, and owe nothing: nobody has paid yet.
        Trial = "trial",
        /// Everything, and an invoice is not paid.
        Grace = "grace",
        /// Use what it was given, and owe nothing more: an invoice is not paid.
        Restricted = "restricted",
        /// Nothing that costs anything: an invoice is not paid.
        Suspended = "suspended",
    }
}

impl Access {
    /// Whether it may use more than it was granted, and owe it.
    #[must_use]
    pub const fn may_owe(self) -> bool {
        matches!(self, Self::Open | Self::Grace)
    }
}

/// What periods and grants of a tenant hang on.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Account {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// How long its periods are.
    #[sqlx(try_from = "String")]
    pub cycle: Cycle,
    /// What anchored months are counted from.
    pub anchor_at: Timestamp,
    /// What the tenant may owe per period, where that is less than its plan's cap.
    pub spend_cap: Option<Credits>,
    /// What it may still do.
    pub access: Access,
    /// The provider's id of the subscription that it follows.
    pub subscription: Option<String>,
    /// The plan of its periods that begin from `next_plan_at` on, where that is not the one that the tenant is on.
    pub next_plan: Option<PlanName>,
    /// From when on.
    pub next_plan_at: Option<Timestamp>,
    /// Counts what happened to it.
    pub revision: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When something last happened to it.
    pub updated_at: Timestamp,
}

const fn word(cycle: Cycle) -> &'static str {
    match cycle {
        Cycle::Calendar => "calendar",
        Cycle::Anchored => "anchored",
    }
}

impl TryFrom<String> for Cycle {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        [Self::Calendar, Self::Anchored]
            .into_iter()
            .find(|cycle| word(*cycle) == text)
            .ok_or_else(|| Error::Internal(format!("{text:?} is no cycle")))
    }
}

/// A tenant's account.
pub(crate) async fn get(db: &Db, tenant: TenantId) -> Result<Option<Account>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select tenant_id, cycle, anchor_at, spend_cap, access, subscription, next_plan, next_plan_at, revision, created_at,
                   updated_at
         from accounts
         where tenant_id = $1"
    )
    .bind(tenant)
    .fetch_optional(conn)
    })
}

/// A tenant's account; until the transaction ends, nobody else can change it, its periods or its grants.
pub(crate) async fn lock(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Option<Account>> {
    in_tx!(tx, |conn| {
        sqlx::query_as(
        "update accounts set revision = revision + 1, updated_at = $2 where tenant_id = $1
         returning tenant_id, cycle, anchor_at, spend_cap, access, subscription, next_plan, next_plan_at, revision, created_at,
                   updated_at"
    )
    .bind(tenant)
    .bind(now)
    .fetch_optional(conn)
    })
}

/// The same; made where there is none. The tenant's row must be held, so that nobody else makes it.
pub(crate) async fn lock_or_make(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Account> {
    if let Some(account) = lock(tx, tenant, now).await? {
        return Ok(account);
    }
    in_tx!(tx, |conn| {
        sqlx::query_as(
        "insert into accounts (tenant_id, cycle, anchor_at, created_at, updated_at)
         values ($1, 'calendar', $2, $2, $2)
         returning tenant_id, cycle, anchor_at, spend_cap, access, subscription, next_plan, next_plan_at, revision, created_at,
                   updated_at"
    )
    .bind(tenant)
    .bind(now)
    .fetch_one(conn)
    })
}

/// Says how long its periods are that begin from now on.
pub(crate) async fn set_cycle(
    tx: &mut Tx,
    tenant: TenantId,
    cycle: Cycle,
    anchor_at: Timestamp,
) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query("update accounts set cycle = $2, anchor_at = $3 where tenant_id = $1")
            .bind(tenant)
            .bind(word(cycle))
            .bind(anchor_at)
            .execute(conn)
    ))
    .map(|_| ())
}

pub(crate) async fn set_spend_cap(tx: &mut Tx, tenant: TenantId, cap: Option<Credits>) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query("update accounts set spend_cap = $2 where tenant_id = $1")
            .bind(tenant)
            .bind(cap)
            .execute(conn)
    ))
    .map(|_| ())
}

pub(crate) async fn set_access(tx: &mut Tx, tenant: TenantId, access: Access) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query("update accounts set access = $2 where tenant_id = $1")
            .bind(tenant)
            .bind(access)
            .execute(conn)
    ))
    .map(|_| ())
}

pub(crate) async fn set_subscription(
    tx: &mut Tx,
    tenant: TenantId,
    subscription: Option<&str>,
) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query("update accounts set subscription = $2 where tenant_id = $1")
            .bind(tenant)
            .bind(subscription)
            .execute(conn)
    ))
    .map(|_| ())
}

pub(crate) async fn set_next_plan(
    tx: &mut Tx,
    tenant: TenantId,
    next: Option<(&PlanName, Timestamp)>,
) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query("update accounts set next_plan = $2, next_plan_at = $3 where tenant_id = $1")
            .bind(tenant)
            .bind(next.map(|(plan, _)| plan.as_str()))
            .bind(next.map(|(_, at)| at))
            .execute(conn)
    ))
    .map(|_| ())
}

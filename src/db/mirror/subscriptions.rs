//! The mirror of subscriptions: rows and SQL.

use sqlx::FromRow;

use super::Mirrored;
use crate::clock::Timestamp;
use crate::db::{Db, Tx, done};
use crate::error::Result;
use crate::id::TenantId;

/// A subscription, as far as it is looked at. <https://docs.stripe.com/api/subscriptions/object>
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Subscription {
    /// `sub_...`.
    pub id: String,
    /// Whose it is at Stripe.
    pub customer: String,
    /// Such as `active`, `past_due` or `canceled`, in Stripe's words.
    pub status: String,
    /// The plan that its metadata names.
    pub plan: Option<String>,
    /// The plan until `plan_from`, as its metadata says, where there is one.
    pub plan_before: Option<String>,
    /// From when on it is for `plan`, where it was for another one before.
    pub plan_from: Option<Timestamp>,
    /// By which its periods are counted.
    pub billing_cycle_anchor: Timestamp,
    /// The earliest beginning of a period of its items.
    pub current_period_start: Option<Timestamp>,
    /// The latest end of one.
    pub current_period_end: Option<Timestamp>,
    /// When its trial ends, or ended.
    pub trial_end: Option<Timestamp>,
    /// When it will end.
    pub cancel_at: Option<Timestamp>,
    /// Whether that is the end of its period.
    pub cancel_at_period_end: bool,
    /// When somebody cancelled it, be it for a later end.
    pub canceled_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The price of its base fee.
    pub base_price: Option<String>,
    /// The item of its base fee.
    pub base_item: Option<String>,
    /// The base fee, in the smallest unit of the currency; nothing, where Stripe has no whole number.
    pub base_amount: Option<i64>,
    /// The item of metered usage.
    pub metered_item: Option<String>,
    /// Its newest invoice.
    pub latest_invoice: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Subscription {
    /// Whether it goes on: somebody pays, or is to, or will.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.status.as_str(), "trialing" | "active" | "past_due" | "unpaid" | "paused")
    }

    /// Whether it ever began: its first payment did not fail.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !matches!(self.status.as_str(), "incomplete" | "incomplete_expired")
    }

    /// When it ends, where it is cancelled for a time to come, or was.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        self.cancel_at.or(self.current_period_end.filter(|_| self.cancel_at_period_end))
    }

    /// The plan that it is for at an instant.
    #[must_use]
    pub fn plan_at(&self, at: Timestamp) -> Option<&str> {
        match (&self.plan_before, self.plan_from) {
            (Some(before), Some(from)) if at < from => Some(before),
            _ => self.plan.as_deref(),
        }
    }
}

/// Puts a subscription of a tenant in the place of what is known of it.
pub(crate) async fn upsert(
    tx: &mut Tx,
    tenant: TenantId,
    row: &Subscription,
    fetched_at: Timestamp,
) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into billing_subscriptions (id, tenant_id, customer, status, plan, billing_cycle_anchor,
                 current_period_start, current_period_end, trial_end, cancel_at, cancel_at_period_end,
                 canceled_at, ended_at, base_price, base_item, base_amount, metered_item, latest_invoice,
                 created_at, fetched_at, plan_before, plan_from)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                     $20, $21, $22)
             on conflict (id) do update set customer = $3, status = $4, plan = $5,
                 billing_cycle_anchor = $6, current_period_start = $7, current_period_end = $8,
                 trial_end = $9, cancel_at = $10, cancel_at_period_end = $11, canceled_at = $12,
                 ended_at = $13, base_price = $14, base_item = $15, base_amount = $16, metered_item = $17,
                 latest_invoice = $18, fetched_at = $20, plan_before = $21, plan_from = $22,
                 revision = billing_subscriptions.revision + 1"
        )
        .bind(row.id.as_str())
        .bind(tenant)
        .bind(row.customer.as_str())
        .bind(row.status.as_str())
        .bind(row.plan.as_deref())
        .bind(row.billing_cycle_anchor)
        .bind(row.current_period_start)
        .bind(row.current_period_end)
        .bind(row.trial_end)
        .bind(row.cancel_at)
        .bind(row.cancel_at_period_end)
        .bind(row.canceled_at)
        .bind(row.ended_at)
        .bind(row.base_price.as_deref())
        .bind(row.base_item.as_deref())
        .bind(row.base_amount)
        .bind(row.metered_item.as_deref())
        .bind(row.latest_invoice.as_deref())
        .bind(row.created_at)
        .bind(fetched_at)
        .bind(row.plan_before.as_deref())
        .bind(row.plan_from)
        .execute(conn)
    ))
    .map(|_| ())
}

/// The subscription of this id.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database), [`Error::Away`](crate::error::Error::Away).
pub async fn get(db: &Db, id: &str) -> Result<Option<Mirrored<Subscription>>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select id, customer, status, plan, billing_cycle_anchor, current_period_start, current_period_end,
               trial_end, cancel_at, cancel_at_period_end, canceled_at, ended_at, base_price, base_item,
               base_amount, metered_item, latest_invoice, created_at, plan_before, plan_from, tenant_id, fetched_at,
               revision
         from billing_subscriptions where id = $1"
    )
    .bind(id)
    .fetch_optional(conn)
    })
}

/// The subscriptions of a tenant, newest first; at most so many.
///
/// # Errors
/// As [`get`].
pub async fn of_tenant(db: &Db, tenant: TenantId, limit: i64) -> Result<Vec<Mirrored<Subscription>>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select id, customer, status, plan, billing_cycle_anchor, current_period_start, current_period_end,
               trial_end, cancel_at, cancel_at_period_end, canceled_at, ended_at, base_price, base_item,
               base_amount, metered_item, latest_invoice, created_at, plan_before, plan_from, tenant_id, fetched_at,
               revision
         from billing_subscriptions where tenant_id = $1 order by created_at desc, id desc limit $2"
    )
    .bind(tenant)
    .bind(limit)
    .fetch_all(conn)
    })
}

/// The same, as a transaction sees them.
pub(crate) async fn of_tenant_in(tx: &mut Tx, tenant: TenantId, limit: i64) -> Result<Vec<Subscription>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select id, customer, status, plan, billing_cycle_anchor, current_period_start, current_period_end,
               trial_end, cancel_at, cancel_at_period_end, canceled_at, ended_at, base_price, base_item,
               base_amount, metered_item, latest_invoice, created_at, plan_before, plan_from
         from billing_subscriptions where tenant_id = $1 order by created_at desc, id desc limit $2"
    )
    .bind(tenant)
    .bind(limit)
    .fetch_all(conn))
}

/// Under which name a process claims to end a subscription: another one than that of the subscription, so that what Stripe says of it
/// meanwhile does not wait for that.
pub(crate) fn ending(id: &str) -> String {
    format!("end {id}")
}

/// Subscriptions that go on although their tenants are deleted, and that nobody is [`ending`] now, with those tenants; in order,
/// after this one.
pub(crate) async fn of_nobody(
    db: &Db,
    now: Timestamp,
    after: &str,
    limit: i64,
) -> Result<Vec<Mirrored<Subscription>>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select s.id, s.customer, s.status, s.plan, s.billing_cycle_anchor, s.current_period_start,
               s.current_period_end, s.trial_end, s.cancel_at, s.cancel_at_period_end, s.canceled_at, s.ended_at,
               s.base_price, s.base_item, s.base_amount, s.metered_item, s.latest_invoice, s.created_at,
               s.plan_before, s.plan_from, s.tenant_id, s.fetched_at, s.revision
         from billing_subscriptions s join tenants t on t.id = s.tenant_id
         where t.status = 'deleted' and s.status in ('trialing', 'active', 'past_due', 'unpaid', 'paused')
               and s.id > $1
               and not exists (select 1 from stripe_objects o where o.id = 'end ' || s.id and o.claimed_until > $2)
         order by s.id
         limit $3"
    )
    .bind(after)
    .bind(now)
    .bind(limit)
    .fetch_all(conn)
    })
}

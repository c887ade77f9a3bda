//! The mirror of invoices: rows and SQL.

use sqlx::FromRow;

use super::Mirrored;
use crate::clock::Timestamp;
use crate::db::{Db, Tx, done};
use crate::error::Result;
use crate::id::TenantId;

/// An invoice, as far as it is looked at. Amounts are in the smallest unit of its currency. <https://docs.stripe.com/api/invoices/object>
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Invoice {
    /// `in_...`.
    pub id: String,
    /// Whose it is at Stripe.
    pub customer: String,
    /// The subscription that it belongs to.
    pub subscription: Option<String>,
    /// `draft`, `open`, `paid`, `uncollectible` or `void`, in Stripe's words; `deleted` where a draft is no longer there.
    pub status: String,
    /// Such as `subscription_cycle`.
    pub billing_reason: Option<String>,
    /// Its number, once it has one.
    pub number: Option<String>,
    /// Three lower-case letters.
    pub currency: String,
    /// With tax.
    pub total: i64,
    /// What is to be paid.
    pub amount_due: i64,
    /// What was paid.
    pub amount_paid: i64,
    /// The difference.
    pub amount_remaining: i64,
    /// How often Stripe tried to collect it.
    pub attempt_count: i64,
    /// When it tries again.
    pub next_payment_attempt: Option<Timestamp>,
    /// When it is due, where it is not collected automatically.
    pub due_at: Option<Timestamp>,
    /// When it got final.
    pub finalized_at: Option<Timestamp>,
    /// When it was paid.
    pub paid_at: Option<Timestamp>,
    /// Where its owner sees it, and pays.
    pub hosted_invoice_url: Option<String>,
    /// The earliest beginning of its lines of metered usage; nothing where it has none.
    pub metered_from: Option<Timestamp>,
    /// The latest end of them.
    pub metered_to: Option<Timestamp>,
    /// How many micro-credits these lines are about.
    pub metered_quantity: Option<i64>,
    /// What they come to.
    pub metered_amount: Option<i64>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Puts an invoice of a tenant in the place of what is known of it.
pub(crate) async fn upsert(
    tx: &mut Tx,
    tenant: TenantId,
    row: &Invoice,
    fetched_at: Timestamp,
) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into billing_invoices (id, tenant_id, customer, subscription, status, billing_reason,
                 number, currency, total, amount_due, amount_paid, amount_remaining, attempt_count,
                 next_payment_attempt, due_at, finalized_at, paid_at, hosted_invoice_url, metered_from,
                 metered_to, metered_quantity, metered_amount, created_at, fetched_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                     $20, $21, $22, $23, $24)
             on conflict (id) do update set customer = $3, subscription = $4, status = $5,
                 billing_reason = $6, number = $7, currency = $8, total = $9, amount_due = $10,
                 amount_paid = $11, amount_remaining = $12, attempt_count = $13, next_payment_attempt = $14,
                 due_at = $15, finalized_at = $16, paid_at = $17, hosted_invoice_url = $18,
                 metered_from = $19, metered_to = $20, metered_quantity = $21, metered_amount = $22,
                 fetched_at = $24, revision = billing_invoices.revision + 1"
        )
        .bind(row.id.as_str())
        .bind(tenant)
        .bind(row.customer.as_str())
        .bind(row.subscription.as_deref())
        .bind(row.status.as_str())
        .bind(row.billing_reason.as_deref())
        .bind(row.number.as_deref())
        .bind(row.currency.as_str())
        .bind(row.total)
        .bind(row.amount_due)
        .bind(row.amount_paid)
        .bind(row.amount_remaining)
        .bind(row.attempt_count)
        .bind(row.next_payment_attempt)
        .bind(row.due_at)
        .bind(row.finalized_at)
        .bind(row.paid_at)
        .bind(row.hosted_invoice_url.as_deref())
        .bind(row.metered_from)
        .bind(row.metered_to)
        .bind(row.metered_quantity)
        .bind(row.metered_amount)
        .bind(row.created_at)
        .bind(fetched_at)
        .execute(conn)
    ))
    .map(|_| ())
}

/// The invoice of this id.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database), [`Error::Away`](crate::error::Error::Away).
pub async fn get(db: &Db, id: &str) -> Result<Option<Mirrored<Invoice>>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select id, customer, subscription, status, billing_reason, number, currency, total, amount_due,
                amount_paid, amount_remaining, attempt_count, next_payment_attempt, due_at, finalized_at,
                paid_at, hosted_invoice_url, metered_from, metered_to, metered_quantity, metered_amount,
                created_at, tenant_id, fetched_at, revision
         from billing_invoices where id = $1"
    )
    .bind(id)
    .fetch_optional(conn))
}

/// The invoices of a tenant, newest first; at most so many.
///
/// # Errors
/// As [`get`].
pub async fn of_tenant(db: &Db, tenant: TenantId, limit: i64) -> Result<Vec<Mirrored<Invoice>>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select id, customer, subscription, status, billing_reason, number, currency, total, amount_due,
                amount_paid, amount_remaining, attempt_count, next_payment_attempt, due_at, finalized_at,
                paid_at, hosted_invoice_url, metered_from, metered_to, metered_quantity, metered_amount,
                created_at, tenant_id, fetched_at, revision
         from billing_invoices where tenant_id = $1 order by created_at desc, id desc limit $2"
    )
    .bind(tenant)
    .bind(limit)
    .fetch_all(conn))
}

/// A draft is no longer there. `false`: it was never seen.
pub(crate) async fn gone(tx: &mut Tx, id: &str, fetched_at: Timestamp) -> Result<bool> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "update billing_invoices set status = 'deleted', fetched_at = $2, revision = revision + 1 where id = $1"
        )
        .bind(id)
        .bind(fetched_at)
        .execute(conn)
    ))
    .map(|rows| rows > 0)
}

/// The rest of a query, after what it says of invoices that somebody tried to collect in vain, and of those that were given up. Debits that
/// take days are not in vain before they fail: until then the subscription is active whose newest invoice it is. Of older ones
/// its status says nothing. <https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses>
macro_rules! unpaid {
    ($select:literal, $rest:literal) => {
        concat!(
            $select,
            " from billing_invoices i
             where i.status in ('open', 'uncollectible') and i.attempt_count > 0
                   and (i.status = 'uncollectible'
                        or not exists (select 1 from billing_subscriptions s
                                       where s.id = i.subscription and s.latest_invoice = i.id
                                             and s.status in ('active', 'trialing'))) ",
            $rest
        )
    };
}

/// Since when the oldest invoice of a tenant is to be paid that somebody tried to collect in vain.
pub(crate) async fn unpaid_since(tx: &mut Tx, tenant: TenantId) -> Result<Option<Timestamp>> {
    in_tx!(tx, |conn| {
        sqlx::query_scalar(unpaid!("select min(i.finalized_at)", "and i.tenant_id = $1"))
            .bind(tenant)
            .fetch_one(conn)
    })
}

/// The tenants with such invoices, in order, after this one.
pub(crate) async fn unpaid_tenants(db: &Db, after: Option<TenantId>, limit: i64) -> Result<Vec<TenantId>> {
    on_reader!(db, |conn| {
        sqlx::query_scalar(unpaid!(
            "select distinct i.tenant_id",
            "and i.tenant_id > $1 order by i.tenant_id limit $2"
        ))
        .bind(after.map(|after| after.to_string()).unwrap_or_default())
        .bind(limit)
        .fetch_all(conn)
    })
}

/// The invoices of a tenant that became final after `since` and that somebody tried to collect, and that are not paid; the oldest first.
pub(crate) async fn to_be_paid(
    db: &Db,
    tenant: TenantId,
    since: Timestamp,
    limit: i64,
) -> Result<Vec<String>> {
    on_reader!(db, |conn| {
        sqlx::query_scalar(
        "select id from billing_invoices
         where status in ('open', 'uncollectible') and attempt_count > 0 and tenant_id = $1 and finalized_at > $2
         order by finalized_at, id limit $3"
    )
    .bind(tenant)
    .bind(since)
    .bind(limit)
    .fetch_all(conn)
    })
}

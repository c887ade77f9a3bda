//! The mirror of checkouts: rows and SQL.

use sqlx::FromRow;

use super::Mirrored;
use crate::clock::Timestamp;
use crate::db::{Db, Tx, done};
use crate::error::Result;
use crate::id::TenantId;

/// A Checkout session, as far as it is looked at. <https://docs.stripe.com/api/checkout/sessions/object>
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Checkout {
    /// `cs_...`.
    pub id: String,
    /// Whose it is at Stripe.
    pub customer: String,
    /// `payment`, `setup` or `subscription`, in Stripe's words.
    pub mode: String,
    /// `open`, `complete` or `expired`.
    pub status: String,
    /// `paid`, `unpaid` or `no_payment_required`.
    pub payment_status: String,
    /// The subscription that it made.
    pub subscription: Option<String>,
    /// The payment that it made.
    pub payment_intent: Option<String>,
    /// The invoice that it made.
    pub invoice: Option<String>,
    /// What was to be paid, in the smallest unit of the currency.
    pub amount_total: Option<i64>,
    /// Three lower-case letters.
    pub currency: Option<String>,
    /// What its metadata names as `topup`.
    pub topup: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Puts a checkout of a tenant in the place of what is known of it.
pub(crate) async fn upsert(
    tx: &mut Tx,
    tenant: TenantId,
    row: &Checkout,
    fetched_at: Timestamp,
) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into billing_checkouts (id, tenant_id, customer, mode, status, payment_status,
                 subscription, payment_intent, invoice, amount_total, currency, topup, created_at,
                 fetched_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
             on conflict (id) do update set customer = $3, mode = $4, status = $5, payment_status = $6,
                 subscription = $7, payment_intent = $8, invoice = $9, amount_total = $10, currency = $11,
                 topup = $12, fetched_at = $14, revision = billing_checkouts.revision + 1"
        )
        .bind(row.id.as_str())
        .bind(tenant)
        .bind(row.customer.as_str())
        .bind(row.mode.as_str())
        .bind(row.status.as_str())
        .bind(row.payment_status.as_str())
        .bind(row.subscription.as_deref())
        .bind(row.payment_intent.as_deref())
        .bind(row.invoice.as_deref())
        .bind(row.amount_total)
        .bind(row.currency.as_deref())
        .bind(row.topup.as_deref())
        .bind(row.created_at)
        .bind(fetched_at)
        .execute(conn)
    ))
    .map(|_| ())
}

/// The checkouts of a tenant, newest first; at most so many.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database), [`Error::Away`](crate::error::Error::Away).
pub async fn of_tenant(db: &Db, tenant: TenantId, limit: i64) -> Result<Vec<Mirrored<Checkout>>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select id, customer, mode, status, payment_status, subscription, payment_intent, invoice,
                amount_total, currency, topup, created_at, tenant_id, fetched_at, revision
         from billing_checkouts where tenant_id = $1 order by created_at desc, id desc limit $2"
    )
    .bind(tenant)
    .bind(limit)
    .fetch_all(conn))
}

/// The top-up that a payment of a tenant was for.
pub(crate) async fn top_up_of(db: &Db, tenant: TenantId, payment_intent: &str) -> Result<Option<String>> {
    on_reader!(db, |conn| {
        sqlx::query_scalar(
        "select topup from billing_checkouts where tenant_id = $1 and payment_intent = $2 and topup is not null"
    )
    .bind(tenant)
    .bind(payment_intent)
    .fetch_optional(conn)
    })
}

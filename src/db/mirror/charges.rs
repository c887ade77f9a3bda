//! The mirror of charges: rows and SQL.

use sqlx::FromRow;

use super::Mirrored;
use crate::clock::Timestamp;
use crate::db::{Db, Tx, done};
use crate::error::Result;
use crate::id::TenantId;

/// A charge, as far as it is looked at. Amounts are in the smallest unit of its currency. <https://docs.stripe.com/api/charges/object>
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Charge {
    /// `ch_...`.
    pub id: String,
    /// Whose it is at Stripe.
    pub customer: String,
    /// The payment that it is part of.
    pub payment_intent: Option<String>,
    /// `succeeded`, `pending` or `failed`, in Stripe's words.
    pub status: String,
    /// Three lower-case letters.
    pub currency: String,
    /// What was charged.
    pub amount: i64,
    /// What of that was given back.
    pub amount_refunded: i64,
    /// Whether its payer disputes it, or did.
    pub disputed: bool,
    /// How its newest dispute stands: `needs_response`, `under_review`, `won`, `lost`, ... in Stripe's words.
    pub dispute_status: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Puts a charge of a tenant in the place of what is known of it.
pub(crate) async fn upsert(tx: &mut Tx, tenant: TenantId, row: &Charge, fetched_at: Timestamp) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into billing_charges (id, tenant_id, customer, payment_intent, status, currency, amount,
                  amount_refunded, disputed, created_at, fetched_at, dispute_status)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             on conflict (id) do update set customer = $3, payment_intent = $4, status = $5, currency = $6,
                  amount = $7, amount_refunded = $8, disputed = $9, fetched_at = $11, dispute_status = $12,
                  revision = billing_charges.revision + 1"
        )
        .bind(row.id.as_str())
        .bind(tenant)
        .bind(row.customer.as_str())
        .bind(row.payment_intent.as_deref())
        .bind(row.status.as_str())
        .bind(row.currency.as_str())
        .bind(row.amount)
        .bind(row.amount_refunded)
        .bind(row.disputed)
        .bind(row.created_at)
        .bind(fetched_at)
        .bind(row.dispute_status.as_deref())
        .execute(conn)
    ))
    .map(|_| ())
}

/// The charges of a tenant, newest first; at most so many.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database), [`Error::Away`](crate::error::Error::Away).
pub async fn of_tenant(db: &Db, tenant: TenantId, limit: i64) -> Result<Vec<Mirrored<Charge>>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select id, customer, payment_intent, status, currency, amount, amount_refunded, disputed, dispute_status,
                created_at, tenant_id, fetched_at, revision
         from billing_charges where tenant_id = $1 order by created_at desc, id desc limit $2"
    )
    .bind(tenant)
    .bind(limit)
    .fetch_all(conn)
    })
}

/// The charges that a payment of a tenant came to, newest first: those that were declined, too.
pub(crate) async fn of_intent(db: &Db, tenant: TenantId, intent: &str, limit: i64) -> Result<Vec<Charge>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select id, customer, payment_intent, status, currency, amount, amount_refunded, disputed, dispute_status,
                created_at
         from billing_charges where tenant_id = $1 and payment_intent = $2
         order by created_at desc, id desc limit $3"
    )
    .bind(tenant)
    .bind(intent)
    .bind(limit)
    .fetch_all(conn)
    })
}

/// Whether a payment of a tenant is disputed, and that is not decided.
pub(crate) async fn is_disputed(tx: &mut Tx, tenant: TenantId) -> Result<bool> {
    let open: i64 = in_tx!(tx, |conn| sqlx::query_scalar(
        "select count(*) from billing_charges
         where tenant_id = $1 and disputed and dispute_status in ('needs_response', 'under_review')"
    )
    .bind(tenant)
    .fetch_one(conn))?;
    Ok(open > 0)
}

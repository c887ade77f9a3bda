//! What Stripe was last found to say: one row per object, written whenever it was asked for. Never changed by anything else.

pub mod charges;
pub mod checkouts;
pub mod invoices;
pub mod subscriptions;

use sqlx::{Decode, FromRow, Row, Type};

use super::{Db, done};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::TenantId;

/// An object of a tenant's, as it was when it was last asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrored<T> {
    /// Whose it is.
    pub tenant: TenantId,
    /// When it was asked for.
    pub fetched_at: Timestamp,
    /// How often it was, from 1.
    pub revision: i64,
    /// What it was.
    pub object: T,
}

impl<'r, R, T> FromRow<'r, R> for Mirrored<T>
where
    R: Row,
    T: FromRow<'r, R>,
    for<'a> &'a str: sqlx::ColumnIndex<R>,
    TenantId: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            tenant: row.try_get("tenant_id")?,
            fetched_at: row.try_get("fetched_at")?,
            revision: row.try_get("revision")?,
            object: T::from_row(row)?,
        })
    }
}

/// The tenant that this customer is billed for.
pub(crate) async fn tenant_of(db: &Db, customer: &str) -> Result<Option<TenantId>> {
    on_reader!(db, |conn| sqlx::query_scalar("select tenant_id from billing_customers where customer = $1")
        .bind(customer)
        .fetch_optional(conn))
}

/// Notes that a customer is deleted at Stripe. `false`: that is known.
pub(crate) async fn customer_deleted(db: &Db, customer: &str, at: Timestamp) -> Result<bool> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "update billing_customers set deleted_at = $2 where customer = $1 and deleted_at is null"
        )
        .bind(customer)
        .bind(at)
        .execute(conn)
    ))
    .map(|rows| rows > 0)
}

/// How many customers are deleted at Stripe.
pub(crate) async fn deleted_customers(db: &Db) -> Result<i64> {
    on_reader!(db, |conn| sqlx::query_scalar(
        "select count(*) from billing_customers where deleted_at is not null"
    )
    .fetch_one(conn))
}

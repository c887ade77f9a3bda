//! Top-ups: credits that a tenant wants to buy, as they were shown to it. Rows and SQL. They are granted when they are paid, in
//! [`crate::billing::consequences`].

use sqlx::FromRow;

use super::{Db, Tx, done};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Result;
use crate::id::{TenantId, TopUpId};

/// Credits that a tenant wants to buy.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(crate) struct TopUp {
    pub(crate) id: TopUpId,
    pub(crate) tenant_id: TenantId,
    pub(crate) credits: Credits,
    /// What they cost, in the smallest unit of the currency.
    pub(crate) amount: i64,
    pub(crate) currency: String,
}

/// Keeps what is about to be shown.
pub(crate) async fn insert(db: &Db, top_up: &TopUp, now: Timestamp) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "insert into top_ups (id, tenant_id, credits, amount, currency, created_at)
             values ($1, $2, $3, $4, $5, $6)"
        )
        .bind(top_up.id)
        .bind(top_up.tenant_id)
        .bind(top_up.credits)
        .bind(top_up.amount)
        .bind(top_up.currency.as_str())
        .bind(now)
        .execute(conn)
    ))
    .map(|_| ())
}

/// What a tenant was shown.
pub(crate) async fn get_in(tx: &mut Tx, tenant: TenantId, id: TopUpId) -> Result<Option<TopUp>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select id, tenant_id, credits, amount, currency from top_ups where tenant_id = $1 and id = $2"
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(conn))
}

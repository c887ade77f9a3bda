//! What `weir ledger verify` reads of exports, in pages.

use sqlx::FromRow;

use super::checks::PAGE;
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::Tx;
use crate::error::Result;
use crate::id::{ExportId, PeriodId, TenantId};

/// An export, as far as it can be wrong.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct ExportFacts {
    pub(crate) id: ExportId,
    pub(crate) period_id: PeriodId,
    pub(crate) slot: Timestamp,
    pub(crate) credits: Credits,
    pub(crate) generation: i64,
    /// As it is written, be it none of the states.
    pub(crate) state: String,
    pub(crate) first_sent_at: Option<Timestamp>,
    pub(crate) last_sent_at: Option<Timestamp>,
    pub(crate) counted: Option<Credits>,
    pub(crate) created_at: Timestamp,
}

/// Since when a tenant has a customer at the provider of invoices.
pub(crate) async fn customer_since(tx: &mut Tx, tenant: TenantId) -> Result<Option<Timestamp>> {
    in_tx!(tx, |conn| sqlx::query_scalar("select created_at from billing_customers where tenant_id = $1")
        .bind(tenant)
        .fetch_optional(conn))
}

/// The exports of a tenant by their minutes, after the one that has this minute and this id.
pub(crate) async fn exports(
    tx: &mut Tx,
    tenant: TenantId,
    after: (Timestamp, &str),
) -> Result<Vec<ExportFacts>> {
    in_tx!(tx, |conn| {
        sqlx::query_as(
        "select id, period_id, slot, credits, generation, state, first_sent_at, last_sent_at, counted, created_at
         from exports
         where tenant_id = $1 and (slot, id) > ($2, $3)
         order by slot, id
         limit $4"
    )
    .bind(tenant)
    .bind(after.0)
    .bind(after.1)
    .bind(PAGE)
    .fetch_all(conn)
    })
}

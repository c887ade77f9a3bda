//! How invoices compare with what was told for their spans: rows and SQL.

use serde::Serialize;
use sqlx::FromRow;

use super::proofs::Verdict;
use super::{Db, done};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Result;
use crate::id::TenantId;

/// Invoices of a tenant that are looked at again.
const MOST: i64 = 100;

/// The comparison of one invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct InvoiceProof {
    /// `in_...`.
    pub invoice: String,
    /// Whose it is.
    #[serde(rename = "tenant")]
    pub tenant_id: TenantId,
    /// From when on its usage is.
    pub starts_at: Timestamp,
    /// Until when.
    pub ends_at: Timestamp,
    /// What it bills.
    pub billed: Credits,
    /// What the minutes of that span are worth.
    pub slots: Credits,
    /// What that means.
    pub verdict: Verdict,
    /// When they were compared.
    pub at: Timestamp,
}

/// What the minutes of a span are worth, and how many of them are neither proven nor frozen.
pub(crate) async fn worth(
    db: &Db,
    tenant: TenantId,
    (from, to): (Timestamp, Timestamp),
) -> Result<(Credits, i64)> {
    on_reader!(db, |conn| sqlx::query_as(
        "select cast(coalesce(sum(case when state = 'frozen' then counted else credits end), 0) as bigint),
                coalesce(sum(case when state in ('open', 'sent') then 1 else 0 end), 0)
         from exports
         where tenant_id = $1 and slot >= $2 and slot < $3"
    )
    .bind(tenant)
    .bind(from)
    .bind(to)
    .fetch_one(conn))
}

/// Keeps the comparison of an invoice, in the place of an earlier one.
pub(crate) async fn put(db: &Db, proof: &InvoiceProof) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "insert into invoice_proofs (invoice, tenant_id, starts_at, ends_at, billed, slots, verdict, at)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (invoice) do update
             set starts_at = $3, ends_at = $4, billed = $5, slots = $6, verdict = $7, at = $8
             where invoice_proofs.at <= excluded.at"
        )
        .bind(proof.invoice.as_str())
        .bind(proof.tenant_id)
        .bind(proof.starts_at)
        .bind(proof.ends_at)
        .bind(proof.billed)
        .bind(proof.slots)
        .bind(proof.verdict)
        .bind(proof.at)
        .execute(conn)
    ))
    .map(|_| ())
}

/// Invoices of a tenant that are not proven, newest first.
pub(crate) async fn open(db: &Db, tenant: TenantId) -> Result<Vec<String>> {
    on_reader!(db, |conn| {
        sqlx::query_scalar(
        "select invoice from invoice_proofs where tenant_id = $1 and verdict <> 'equal' order by at desc limit $2"
    )
    .bind(tenant)
    .bind(MOST)
    .fetch_all(conn)
    })
}

/// How many invoices that were compared after `since` have which verdict.
pub(crate) async fn verdicts(db: &Db, since: Timestamp) -> Result<Vec<(Verdict, i64)>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select verdict, count(*) from invoice_proofs where at > $1 group by verdict"
    )
    .bind(since)
    .fetch_all(conn))
}

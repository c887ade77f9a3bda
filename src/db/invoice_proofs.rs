//! How invoices compare with what was told for their spans: rows and SQL.

use serde::Serialize;
use sqlx::FromRow;

use super::{Db, Tx, done};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Result;
use crate::id::{PeriodId, TenantId};

/// Invoices of a tenant that are looked at again.
const MOST: i64 = 100;

text_enum! {
    /// How a final invoice compares with what was told for its span.
    pub enum InvoiceVerdict {
        /// It bills that. Nothing else is proof.
        Equal = "equal",
        /// Not all of it is proven yet.
        InFlight = "in_flight",
        /// It bills something else, and the difference is told in a later minute.
        Carried = "carried",
        /// It bills less, and there is no period to which that could be put.
        Missing = "missing",
        /// It bills more, and there is no period to which that could be put.
        Extra = "extra",
        /// It does not say how much it bills.
        Unreadable = "unreadable",
    }
}

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
    pub verdict: InvoiceVerdict,
    /// The latest period that its span is of.
    #[serde(rename = "period")]
    pub period_id: Option<PeriodId>,
    /// What of that period counts as not told, because the invoice left it out; negative: what it bills beyond what was told.
    pub carried: Credits,
    /// When they were compared.
    pub at: Timestamp,
}

/// What the minutes of a span are worth, and how many of them are neither proven nor frozen.
pub(crate) async fn worth(
    tx: &mut Tx,
    tenant: TenantId,
    (from, to): (Timestamp, Timestamp),
) -> Result<(Credits, i64)> {
    in_tx!(tx, |conn| sqlx::query_as(
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

/// The latest period of a tenant that has time in common with a span.
pub(crate) async fn period(
    tx: &mut Tx,
    tenant: TenantId,
    (from, to): (Timestamp, Timestamp),
) -> Result<Option<PeriodId>> {
    in_tx!(tx, |conn| {
        sqlx::query_scalar(
        "select id from periods where tenant_id = $1 and starts_at < $3 and ends_at > $2 order by starts_at desc limit 1"
    )
    .bind(tenant)
    .bind(from)
    .bind(to)
    .fetch_optional(conn)
    })
}

/// The last comparison of an invoice.
pub(crate) async fn get(tx: &mut Tx, invoice: &str) -> Result<Option<InvoiceProof>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select invoice, tenant_id, starts_at, ends_at, billed, slots, verdict, period_id, carried, at
         from invoice_proofs where invoice = $1"
    )
    .bind(invoice)
    .fetch_optional(conn))
}

/// Keeps the comparison of an invoice, in the place of an earlier one.
pub(crate) async fn put(tx: &mut Tx, proof: &InvoiceProof) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into invoice_proofs (invoice, tenant_id, starts_at, ends_at, billed, slots, verdict, period_id, carried, at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             on conflict (invoice) do update
             set starts_at = $3, ends_at = $4, billed = $5, slots = $6, verdict = $7, period_id = $8, carried = $9, at = $10"
        )
        .bind(proof.invoice.as_str())
        .bind(proof.tenant_id)
        .bind(proof.starts_at)
        .bind(proof.ends_at)
        .bind(proof.billed)
        .bind(proof.slots)
        .bind(proof.verdict)
        .bind(proof.period_id)
        .bind(proof.carried)
        .bind(proof.at)
        .execute(conn)
    ))
    .map(|_| ())
}

/// Invoices of a tenant whose span ends after `since`, newest first.
pub(crate) async fn since(db: &Db, tenant: TenantId, since: Timestamp) -> Result<Vec<String>> {
    on_reader!(db, |conn| {
        sqlx::query_scalar(
        "select invoice from invoice_proofs where tenant_id = $1 and ends_at > $2 order by ends_at desc limit $3"
    )
    .bind(tenant)
    .bind(since)
    .bind(MOST)
    .fetch_all(conn)
    })
}

/// How many invoices whose span ends after `since` have which verdict.
pub(crate) async fn verdicts(db: &Db, since: Timestamp) -> Result<Vec<(InvoiceVerdict, i64)>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select verdict, count(*) from invoice_proofs where ends_at > $1 group by verdict"
    )
    .bind(since)
    .fetch_all(conn))
}

/// What the invoice of a running month will bill for usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct Coming {
    /// What was told in its minutes, for whichever period.
    pub(crate) told: Credits,
    /// Of that, what Stripe is proven to count.
    pub(crate) counted: Credits,
    /// What is still to be told in them.
    pub(crate) missing: Credits,
    /// What processes drew of their slabs and did not give back yet.
    pub(crate) drawn: Credits,
}

/// What is known of the invoice for the months of a tenant from `from` on. Of periods that ended before that, only those that still
/// owe something after `since` and whose own invoice is final at `final_before` count.
pub(crate) async fn coming(
    db: &Db,
    tenant: TenantId,
    from: Timestamp,
    (since, final_before): (Timestamp, Timestamp),
) -> Result<Coming> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select cast(coalesce(sum(case when state = 'frozen' then counted else credits end), 0) as bigint) as told,
                cast(coalesce(sum(counted), 0) as bigint) as counted,
                cast(coalesce((select sum(b.owed - b.told) from period_books b
                               where b.tenant_id = $1 and b.ends_at > $3
                                     and (b.ends_at > $2 or b.ends_at <= $4)), 0) as bigint) as missing,
                cast(coalesce((select sum(s.used) from slabs s join periods p on p.id = s.period_id
                               where s.tenant_id = $1 and s.closed_at is null and s.grant_id is null
                                     and (p.ends_at > $2 or p.ends_at <= $4)), 0) as bigint) as drawn
         from exports
         where tenant_id = $1 and slot >= $2"
    )
    .bind(tenant)
    .bind(from)
    .bind(since)
    .bind(final_before)
    .fetch_one(conn)
    })
}

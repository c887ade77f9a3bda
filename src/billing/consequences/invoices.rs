//! An invoice is final: what it bills for usage is compared with what was told for its span.

use super::Follower;
use crate::credits::Credits;
use crate::db;
use crate::db::invoice_proofs::InvoiceProof;
use crate::db::mirror::invoices::Invoice;
use crate::db::proofs::Verdict;
use crate::error::Result;
use crate::id::TenantId;

impl Follower {
    /// Compares a final invoice's line of usage with what the minutes of its span are worth, and keeps the verdict. A negative sum is
    /// billed as none. <https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api>
    ///
    /// # Errors
    /// `Database`, `Away`.
    pub async fn invoice(&self, tenant: TenantId, invoice: &Invoice) -> Result<()> {
        let span = invoice.metered_from.zip(invoice.metered_to);
        let (Some((from, to)), Some(billed), Some(_)) =
            (span, invoice.metered_quantity, invoice.finalized_at)
        else {
            return Ok(());
        };
        let billed = Credits::from_micros(billed);
        let (slots, in_flight) = db::invoice_proofs::worth(&self.db, tenant, (from, to)).await?;
        let owed = slots.max(Credits::ZERO);
        let verdict = match billed.cmp(&owed) {
            std::cmp::Ordering::Equal if in_flight == 0 => Verdict::Equal,
            _ if in_flight > 0 => Verdict::InFlight,
            std::cmp::Ordering::Less => Verdict::Missing,
            _ => Verdict::Extra,
        };
        if matches!(verdict, Verdict::Missing | Verdict::Extra) {
            tracing::error!(%tenant, invoice = invoice.id, %billed, %slots, "an invoice does not bill what was told");
        }
        let at = self.clock.now();
        let proof = InvoiceProof {
            invoice: invoice.id.clone(),
            tenant_id: tenant,
            starts_at: from,
            ends_at: to,
            billed,
            slots,
            verdict,
            at,
        };
        db::invoice_proofs::put(&self.db, &proof).await
    }

    /// Compares those once more that could not be compared for good.
    ///
    /// # Errors
    /// `Database`, `Away`.
    pub async fn invoices_again(&self, tenant: TenantId) -> Result<()> {
        for id in db::invoice_proofs::open(&self.db, tenant).await? {
            if let Some(known) = db::mirror::invoices::get(&self.db, &id).await? {
                self.invoice(tenant, &known.object).await?;
            }
        }
        Ok(())
    }
}

//! An invoice is final: what it bills for usage is compared with what was told for its span, and what it left out is told again.

use super::Follower;
use crate::billing::export::SINCE;
use crate::credits::Credits;
use crate::db;
use crate::db::invoice_proofs::{InvoiceProof, InvoiceVerdict};
use crate::db::mirror::invoices::Invoice;
use crate::error::Result;
use crate::id::TenantId;

impl Follower {
    /// Compares a final invoice's line of usage with what the minutes of its span are worth, and keeps the verdict.
    ///
    /// A final invoice is the last word: usage of its span that came too late for it is on none after it, and a sum below
    /// nothing is billed as nothing (<https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api>). So once all
    /// of its minutes are proven, the difference counts as not told, and the export tells it in a minute of the running month.
    /// It is a function of the minutes as they are now: where one of them turns out otherwise later, it comes out otherwise.
    ///
    /// # Errors
    /// `Database`, `Away`.
    pub async fn invoice(&self, tenant: TenantId, invoice: &Invoice) -> Result<()> {
        let span = invoice.metered_from.zip(invoice.metered_to);
        let (Some(span), Some(_)) = (span, invoice.finalized_at) else { return Ok(()) };
        let quantity = invoice.metered_quantity.map(Credits::from_micros);
        let billed = quantity.unwrap_or_default();
        let mut tx = self.db.begin().await?;
        if db::accounts::lock(&mut tx, tenant, self.clock.now()).await?.is_none() {
            return tx.commit().await;
        }
        let before = db::invoice_proofs::get(&mut tx, &invoice.id).await?;
        let (slots, in_flight) = db::invoice_proofs::worth(&mut tx, tenant, span).await?;
        let period_id = db::invoice_proofs::period(&mut tx, tenant, span).await?;
        let left_out = slots - billed;
        // What is not known now takes back nothing of what was known.
        let known = before.as_ref().map(|before| before.carried).unwrap_or_default();
        let (verdict, carried) = if quantity.is_none() {
            (InvoiceVerdict::Unreadable, known)
        } else if in_flight > 0 {
            (InvoiceVerdict::InFlight, known)
        } else if left_out.is_zero() {
            (InvoiceVerdict::Equal, Credits::ZERO)
        } else if period_id.is_some() {
            (InvoiceVerdict::Carried, left_out)
        } else if left_out.is_positive() {
            (InvoiceVerdict::Missing, Credits::ZERO)
        } else {
            (InvoiceVerdict::Extra, Credits::ZERO)
        };
        let proof = InvoiceProof {
            invoice: invoice.id.clone(),
            tenant_id: tenant,
            starts_at: span.0,
            ends_at: span.1,
            billed,
            slots,
            verdict,
            period_id,
            carried,
            at: self.clock.now(),
        };
        db::invoice_proofs::put(&mut tx, &proof).await?;
        tx.commit().await?;
        let is_news = before.is_none_or(|before| (before.verdict, before.carried) != (verdict, carried));
        if is_news && !left_out.is_zero() && in_flight == 0 {
            tracing::error!(
                %tenant, invoice = invoice.id, %billed, %slots, %carried,
                "an invoice does not bill what was told; what it left out goes to the running month"
            );
        }
        Ok(())
    }

    /// Compares the invoices of the last two months once more: minutes of theirs may count something else by now.
    ///
    /// # Errors
    /// `Database`, `Away`.
    pub async fn invoices_again(&self, tenant: TenantId) -> Result<()> {
        let since = self.clock.now().minus(SINCE);
        for id in db::invoice_proofs::since(&self.db, tenant, since).await? {
            if let Some(known) = db::mirror::invoices::get(&self.db, &id).await? {
                self.invoice(tenant, &known.object).await?;
            }
        }
        Ok(())
    }
}

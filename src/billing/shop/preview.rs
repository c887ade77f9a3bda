//! What the invoice of the running month would say: what was used as the ledger has it, exactly; base fee, credits of the customer and
//! tax as Stripe reckons them. <https://docs.stripe.com/api/invoices/create_preview>

use miniserde::Deserialize;
use serde::Serialize;
use stripe_billing::invoice::CreatePreviewInvoice;
use stripe_client::{RequestBuilder, StripeMethod, StripeRequest};

use super::super::export::SINCE;
use super::super::stripe::Key;
use super::{Shop, trouble};
use crate::clock::Timestamp;
use crate::config::amount_of;
use crate::credits::Credits;
use crate::db;
use crate::db::invoice_proofs::Coming;
use crate::error::{Error, Result};
use crate::id::TenantId;

/// Lines of a preview that are asked for at once, and pages of them.
const LINES: u32 = 100;
const PAGES: usize = 10;

/// A line that Stripe has. Amounts are in the smallest unit of the currency.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// In Stripe's words.
    pub description: String,
    /// What it comes to.
    pub amount: i64,
}

/// What would be billed if the month ended now.
#[derive(Debug, Clone, Serialize)]
pub struct Preview {
    /// Three lower-case letters.
    pub currency: String,
    /// When the invoice will be made.
    pub at: Option<Timestamp>,
    /// Everything but what was used: the base fee, changes of the plan, and so on.
    pub lines: Vec<Line>,
    /// Credits that are owed: all calls that were charged until now, and what came too late for the invoices before.
    pub used: Credits,
    /// Those of them that Stripe has counted already; the others are on their way.
    pub counted: Credits,
    /// Those that are on their way.
    pub in_flight: Credits,
    /// What those that are owed come to.
    pub used_amount: i64,
    /// Tax, on the lines and on what Stripe has counted.
    pub tax: i64,
    /// Everything together, what is on its way at its price without tax. Never below 0.
    pub total: i64,
}

#[derive(Deserialize)]
struct Invoice {
    id: String,
    currency: String,
    total: i64,
    total_taxes: Option<Vec<Tax>>,
    lines: Lines,
}

#[derive(Deserialize)]
struct Tax {
    amount: i64,
}

#[derive(Deserialize)]
struct Lines {
    data: Vec<InvoiceLine>,
    has_more: bool,
}

#[derive(Serialize)]
struct Cursor {
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    starting_after: Option<String>,
}

#[derive(Deserialize)]
struct InvoiceLine {
    id: String,
    amount: i64,
    description: Option<String>,
    pricing: Option<Pricing>,
}

#[derive(Deserialize)]
struct Pricing {
    price_details: Option<PriceDetails>,
}

#[derive(Deserialize)]
struct PriceDetails {
    product: Option<String>,
}

impl InvoiceLine {
    fn is_of(&self, product: &str) -> bool {
        let details = self.pricing.as_ref().and_then(|pricing| pricing.price_details.as_ref());
        details.and_then(|details| details.product.as_deref()) == Some(product)
    }
}

impl Shop {
    /// What would be billed to a tenant if its month ended now.
    ///
    /// # Errors
    /// [`Error::Conflict`] without a subscription, [`Error::Away`] where Stripe does not answer, [`Error::Internal`],
    /// [`Error::Database`].
    pub async fn preview(&self, tenant: TenantId) -> Result<Preview> {
        let subscription = self.subscribed(tenant).await?;
        let now = self.clock.now();
        let from = subscription.current_period_start.unwrap_or(subscription.billing_cycle_anchor);
        let span = (now.minus(SINCE), now.minus(self.config.grace()));
        let Coming { told, counted, missing, drawn } =
            db::invoice_proofs::coming(&self.db, tenant, from, span).await?;
        let used = told + missing + drawn;
        let request = CreatePreviewInvoice::new()
            .customer(subscription.customer.as_str())
            .subscription(subscription.id.as_str());
        let invoice = self.stripe.send_raw::<Invoice>(request.build(), Key::Fresh).await;
        let invoice = invoice.map_err(|error| trouble("the invoice cannot be foreseen", &error))?;
        let product = self.config.credits_name();
        let lines = self.all_lines(&invoice.id, invoice.lines).await?;
        let (metered, others): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.is_of(&product));
        let billed: i64 = metered.iter().map(|line| line.amount).sum();
        // A sum below nothing is billed as nothing.
        let owed = used.max(Credits::ZERO);
        let used_amount = amount_of(owed, &self.config.credit_price)
            .ok_or_else(|| Error::Internal("what was used comes to more than there is".to_owned()))?;
        let lines = others
            .into_iter()
            .map(|line| Line { description: line.description.unwrap_or_default(), amount: line.amount });
        Ok(Preview {
            currency: invoice.currency,
            at: subscription.current_period_end,
            lines: lines.collect(),
            used,
            counted,
            in_flight: used - counted,
            used_amount,
            tax: invoice.total_taxes.iter().flatten().map(|tax| tax.amount).sum(),
            total: (invoice.total - billed + used_amount).max(0),
        })
    }

    /// All lines of a preview, which itself has the first ten: where what was used is on another page, it would be in the total
    /// twice. That they are listed by its id is an assumption. <https://docs.stripe.com/api/invoice-line-item/retrieve>
    async fn all_lines(&self, preview: &str, first: Lines) -> Result<Vec<InvoiceLine>> {
        if !first.has_more {
            return Ok(first.data);
        }
        let mut lines: Vec<InvoiceLine> = Vec::new();
        for _ in 0..PAGES {
            let cursor = Cursor { limit: LINES, starting_after: lines.last().map(|line| line.id.clone()) };
            let request =
                RequestBuilder::new(StripeMethod::Get, format!("/invoices/{preview}/lines")).query(&cursor);
            let page = self.stripe.send_raw::<Lines>(request, Key::Fresh).await;
            let page = page.map_err(|error| trouble("the invoice cannot be foreseen whole", &error))?;
            lines.extend(page.data);
            if !page.has_more {
                return Ok(lines);
            }
        }
        Err(Error::Internal(format!("the next invoice has more than {} lines", lines.len())))
    }
}

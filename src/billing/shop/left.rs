//! What is left of a payment, or of an invoice that is paid, to be given back. There are two ways to give the same money back: a refund
//! of the payment, and a credit note of the invoice, which may make a refund or leave it for later invoices. Each is bounded by
//! Stripe, the two together are not: so both are counted, as they are now.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stripe_client::{RequestBuilder, StripeMethod};

use super::{Shop, trouble};
use crate::clock::Timestamp;
use crate::error::{Error, Result};

/// Objects of a list that are asked for, the most that Stripe gives at once. <https://docs.stripe.com/api/pagination>
const MOST: u32 = 100;

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    has_more: bool,
}

#[derive(Serialize, Default)]
struct Of<'a> {
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    invoice: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    charge: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_intent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment: Option<By<'a>>,
}

#[derive(Serialize)]
struct By<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    payment_intent: &'a str,
}

/// <https://docs.stripe.com/api/invoice-payment/object>
#[derive(Deserialize)]
struct InvoicePayment {
    invoice: String,
    status: String,
    amount_paid: Option<i64>,
    payment: Payment,
}

#[derive(Deserialize)]
struct Payment {
    payment_intent: Option<String>,
}

#[derive(Deserialize)]
struct Charge {
    #[serde(default)]
    amount_refunded: i64,
}

/// A refund or a credit note, as far as it is looked at. <https://docs.stripe.com/api/refunds/object>,
/// <https://docs.stripe.com/api/credit_notes/object>
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Given {
    pub(super) id: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) status: Option<String>,
    created: i64,
    #[serde(default)]
    metadata: std::collections::HashMap<String, String>,
    #[serde(default)]
    post_payment_amount: i64,
    #[serde(default)]
    refunds: Vec<NoteRefund>,
}

#[derive(Debug, Clone, Deserialize)]
struct NoteRefund {
    #[serde(default)]
    amount_refunded: i64,
}

impl Given {
    /// Whether it was given, and not taken back again.
    fn counts(&self) -> bool {
        !matches!(self.status.as_deref(), Some("failed" | "canceled" | "void"))
    }

    /// Whether it was asked for so.
    pub(super) fn is_marked(&self, key: &str, mark: &str) -> bool {
        self.metadata.get(key).is_some_and(|found| found == mark)
    }

    /// Whether it was given since then.
    pub(super) fn is_since(&self, at: Timestamp) -> bool {
        self.created >= at.as_seconds()
    }

    /// What a note gave for a paid invoice, other than by refunds.
    fn elsewhere(&self) -> i64 {
        self.post_payment_amount - self.refunds.iter().map(|refund| refund.amount_refunded).sum::<i64>()
    }
}

impl Shop {
    /// The refunds of a charge that count.
    pub(super) async fn refunds(&self, charge: &str) -> Result<Vec<Given>> {
        self.given("/refunds", Of { charge: Some(charge), ..Of::default() }).await
    }

    /// The credit notes of an invoice that count.
    pub(super) async fn notes(&self, invoice: &str) -> Result<Vec<Given>> {
        self.given("/credit_notes", Of { invoice: Some(invoice), ..Of::default() }).await
    }

    async fn given(&self, path: &str, of: Of<'_>) -> Result<Vec<Given>> {
        let mut found: Vec<Given> = self.whole(path, of).await?;
        found.retain(Given::counts);
        Ok(found)
    }

    /// What is left of what was paid for an invoice: less what its payments gave back, and less what its notes gave otherwise.
    pub(super) async fn left_of_invoice(&self, invoice: &str) -> Result<i64> {
        let payments: Vec<InvoicePayment> =
            self.whole("/invoice_payments", Of { invoice: Some(invoice), ..Of::default() }).await?;
        let mut left = 0;
        for payment in payments.iter().filter(|payment| payment.status == "paid") {
            left += payment.amount_paid.unwrap_or(0);
            let Some(intent) = payment.payment.payment_intent.as_deref() else { continue };
            let of = Of { payment_intent: Some(intent), ..Of::default() };
            let charges: Vec<Charge> = self.whole("/charges", of).await?;
            left -= charges.iter().map(|charge| charge.amount_refunded).sum::<i64>();
        }
        let notes = self.notes(invoice).await?;
        Ok(left - notes.iter().map(Given::elsewhere).sum::<i64>())
    }

    /// What is left of the invoices that a payment was for; nothing, where it was for none.
    pub(super) async fn left_of_payment(&self, intent: &str) -> Result<Option<i64>> {
        let by = By { kind: "payment_intent", payment_intent: intent };
        let payments: Vec<InvoicePayment> =
            self.whole("/invoice_payments", Of { payment: Some(by), ..Of::default() }).await?;
        let mut sum = None;
        for payment in payments.iter().filter(|payment| payment.status == "paid") {
            let left = self.left_of_invoice(&payment.invoice).await?;
            sum = Some(sum.unwrap_or(0) + left);
        }
        Ok(sum)
    }

    /// A whole list, which must fit on a page: sums over a part of it would be wrong.
    async fn whole<T: DeserializeOwned>(&self, path: &str, of: Of<'_>) -> Result<Vec<T>> {
        let request = RequestBuilder::new(StripeMethod::Get, path).query(&Of { limit: MOST, ..of });
        let page: Page<T> = self
            .stripe
            .read_json(request)
            .await
            .map_err(|error| trouble("what is left cannot be found out", &error))?;
        if page.has_more {
            return Err(Error::Internal(format!("{path} has more than {MOST} objects")));
        }
        Ok(page.data)
    }
}

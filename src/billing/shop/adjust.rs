//! Adjustments: money that an operator gives back, or forgives. Never more than the original; each has a reason, and leaves what was asked
//! and what came of it in the audit trail. <https://docs.stripe.com/api/refunds>, <https://docs.stripe.com/api/credit_notes>

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use miniserde::Deserialize;
use serde::Serialize;
use serde_json::json;
use stripe_billing::credit_note::CreateCreditNote;
use stripe_client::{RequestBuilder, StripeRequest};
use stripe_core::refund::CreateRefund;

use super::super::mirror::stripe::Account;
use super::super::mirror::{Fetched, Found, Source, Subject as Object};
use super::super::stripe::Key;
use super::{Shop, trouble};
use crate::audit::{self, Actor, By, Subject};
use crate::db;
use crate::db::stripe_events::ObjectKind;
use crate::error::{Error, Result};
use crate::id::TenantId;

/// Longest reason, in characters: what Stripe takes as a value of metadata. <https://docs.stripe.com/api/metadata>
const MAX_REASON: usize = 500;

/// Where what a paid invoice bills too much goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Back {
    /// To the customer's balance, which the next invoices use up.
    Balance,
    /// To where it was paid from.
    Payer,
}

/// What came of an adjustment.
#[derive(Debug, Clone, Serialize)]
pub struct Adjustment {
    /// `re_...` or `cn_...`.
    pub id: String,
    /// How much, in the smallest unit of the currency.
    pub amount: i64,
    /// Three lower-case letters.
    pub currency: String,
    /// In Stripe's words.
    pub status: String,
}

#[derive(Deserialize)]
struct Made {
    id: String,
    amount: i64,
    currency: String,
    status: Option<String>,
}

/// Who gives what to whom, and why.
#[derive(Debug, Clone, Copy)]
pub struct Adjust<'a> {
    /// Who.
    pub actor: Actor,
    /// To whom.
    pub tenant: TenantId,
    /// How much, in the smallest unit of the currency; nothing: all that is left.
    pub amount: Option<i64>,
    /// Why.
    pub reason: &'a str,
}

impl Shop {
    /// Gives a payment back, or a part of it. The same amount for the same reason is given once within a day. Credits that were bought with a payment that is given back whole are taken back, as far as they are left.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an amount beyond the original, [`Error::NotFound`] for a charge that is not the tenant's,
    /// [`Error::Away`] where Stripe does not answer, [`Error::Internal`] with Stripe's words, [`Error::Database`].
    pub async fn refund(&self, adjust: Adjust<'_>, charge: &str) -> Result<Adjustment> {
        let Fetched::Charge(charge) = self.now(adjust.tenant, ObjectKind::Charge, charge).await? else {
            return Err(Error::NotFound("charge"));
        };
        let amount = bounded(adjust.amount, charge.amount - charge.amount_refunded)?;
        let request = CreateRefund::new()
            .charge(charge.id.as_str())
            .amount(amount)
            .metadata(self.marks(adjust.tenant, &[("reason", reason(adjust.reason)?)]));
        self.adjust(adjust, ("billing.refund", &charge.id, amount), request.build()).await
    }

    /// Makes an invoice worth less: what is to be paid of one that is open, or what comes back of one that is paid.
    ///
    /// # Errors
    /// As [`refund`](Self::refund), for an invoice.
    pub async fn credit_note(&self, adjust: Adjust<'_>, invoice: &str, back: Back) -> Result<Adjustment> {
        let Fetched::Invoice(invoice) = self.now(adjust.tenant, ObjectKind::Invoice, invoice).await? else {
            return Err(Error::NotFound("invoice"));
        };
        let is_open = match invoice.status.as_str() {
            "open" => true,
            "paid" => false,
            other => {
                return Err(Error::Conflict(format!(
                    "the invoice is {other}: only an open or a paid one is corrected"
                )));
            }
        };
        let amount = bounded(adjust.amount, if is_open { invoice.amount_remaining } else { invoice.total })?;
        let mut request = CreateCreditNote::new(invoice.id.as_str())
            .amount(amount)
            .memo(reason(adjust.reason)?)
            .metadata(self.marks(adjust.tenant, &[("reason", reason(adjust.reason)?)]));
        request = match back {
            _ if is_open => request,
            Back::Balance => request.credit_amount(amount),
            Back::Payer => request.refund_amount(amount),
        };
        self.adjust(adjust, ("billing.credit_note", &invoice.id, amount), request.build()).await
    }

    async fn adjust(
        &self,
        adjust: Adjust<'_>,
        (what, of, amount): (&str, &str, i64),
        request: RequestBuilder,
    ) -> Result<Adjustment> {
        let key = key(what, of, amount, adjust.reason);
        let asked = json!({ "of": of, "amount": amount, "reason": adjust.reason });
        self.note(adjust, &format!("{what}.asked"), &asked).await?;
        let made = self.stripe.send_raw::<Made>(request, Key::Named(&key)).await;
        let made = made.map_err(|error| trouble("it cannot be given back", &error))?;
        let done = json!({ "of": of, "amount": made.amount, "reason": adjust.reason, "id": made.id });
        self.note(adjust, what, &done).await?;
        let Made { id, amount, currency, status } = made;
        Ok(Adjustment { id, amount, currency, status: status.unwrap_or_default() })
    }

    /// An object of the tenant's as it is now: what is left of it is not to be taken from a mirror that may be late.
    async fn now(&self, tenant: TenantId, kind: ObjectKind, id: &str) -> Result<Fetched> {
        let subject = Object { kind, id: id.to_owned() };
        let source = Account::new(self.stripe.clone(), self.config.credits_name());
        let Found::Object(fetched) = source.fetch(&subject).await.map_err(Error::Internal)? else {
            return Err(Error::NotFound(kind.as_str()));
        };
        if db::mirror::tenant_of(&self.db, fetched.customer()).await? != Some(tenant) {
            return Err(Error::NotFound(kind.as_str()));
        }
        Ok(*fetched)
    }

    async fn note(&self, adjust: Adjust<'_>, action: &str, detail: &serde_json::Value) -> Result<()> {
        let by = By { actor: adjust.actor, at: self.clock.now() };
        let mut tx = self.db.begin().await?;
        audit::record(&mut tx, by, action, Subject::Tenant(adjust.tenant), detail).await?;
        tx.commit().await
    }
}

/// The same for the same: whoever is not sure whether it was done can ask once more, for a day.
fn key(what: &str, of: &str, amount: i64, reason: &str) -> String {
    let mut context = Context::new(&SHA256);
    for part in [what, of, &amount.to_string(), reason.trim()] {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    format!("weir-{}", HEXLOWER.encode(context.finish().as_ref()))
}

fn bounded(amount: Option<i64>, left: i64) -> Result<i64> {
    let amount = amount.unwrap_or(left);
    if left <= 0 {
        return Err(Error::Conflict("nothing of it is left to be given back".to_owned()));
    }
    if !(1..=left).contains(&amount) {
        return Err(Error::Invalid(format!("amount: expected 1 to {left}, which is what is left of it")));
    }
    Ok(amount)
}

fn reason(text: &str) -> Result<&str> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > MAX_REASON || text.chars().any(char::is_control) {
        return Err(Error::Invalid(format!("reason: expected 1 to {MAX_REASON} characters on one line")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_back_more_than_was_paid() {
        assert_eq!(bounded(None, 500).expect("all"), 500);
        assert_eq!(bounded(Some(500), 500).expect("all"), 500);
        for (amount, left) in [(501, 500), (0, 500), (-1, 500), (i64::MAX, 500)] {
            assert!(matches!(bounded(Some(amount), left), Err(Error::Invalid(_))), "{amount} of {left}");
        }
        assert!(matches!(bounded(None, 0), Err(Error::Conflict(_))));
    }

    #[test]
    fn a_reason_is_a_line() {
        assert_eq!(reason("  they asked ").expect("a reason"), "they asked");
        for odd in ["", "  ", "a\nb", &"x".repeat(501)] {
            assert!(reason(odd).is_err(), "{odd:?}");
        }
    }
}

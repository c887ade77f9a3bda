//! Adjustments: money that an operator gives back, or forgives. Never more than the original; each has a reason, and leaves what was asked
//! and what came of it in the audit trail. <https://docs.stripe.com/api/refunds>, <https://docs.stripe.com/api/credit_notes>

use std::future::Future;
use std::time::Duration;

use miniserde::Deserialize;
use serde::Serialize;
use serde_json::json;
use stripe_billing::credit_note::CreateCreditNote;
use stripe_client::StripeRequest;
use stripe_core::refund::CreateRefund;

use super::super::mirror::stripe::Account;
use super::super::mirror::{Fetched, Found, Source, Subject as Object};
use super::super::stripe::{Key, digest};
use super::left::Given;
use super::{Shop, trouble};
use crate::audit::{self, Actor, By, Subject};
use crate::clock::Timestamp;
use crate::db;
use crate::db::stripe_events::ObjectKind;
use crate::error::{Error, Result};
use crate::id::TenantId;

/// Longest reason, in characters: what Stripe takes as a value of metadata. <https://docs.stripe.com/api/metadata>
const MAX_REASON: usize = 500;
/// The key in `metadata` by which what was given is found again by whoever asks the same.
const ASK: &str = "ask";
/// For so long the same is given once.
const DAY: Duration = Duration::from_secs(86_400);
/// How many idempotency keys are tried where Stripe says again what it said before.
const GENERATIONS: u32 = 3;

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
    /// Gives a payment back, or a part of it. The same amount for the same reason is given once within a day. Credits that were bought
    /// with a payment that is given back whole are taken back, as far as they are left.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an amount beyond the original, [`Error::NotFound`] for a charge that is not the tenant's,
    /// [`Error::Conflict`] where nothing is left or another change is under way, [`Error::Away`] where Stripe does not answer,
    /// [`Error::Internal`] with Stripe's words, [`Error::Database`].
    pub async fn refund(&self, adjust: Adjust<'_>, charge: &str) -> Result<Adjustment> {
        let adjust = Adjust { reason: reason(adjust.reason)?, ..adjust };
        let claim = self.claim(adjust.tenant).await?;
        let done = self.refund_alone(adjust, charge).await;
        self.let_go(claim).await;
        done
    }

    async fn refund_alone(&self, adjust: Adjust<'_>, charge: &str) -> Result<Adjustment> {
        let Fetched::Charge(charge) = self.now(adjust.tenant, ObjectKind::Charge, charge).await? else {
            return Err(Error::NotFound("charge"));
        };
        let ask = Ask::new(adjust, Back::Payer, "billing.refund", &charge.id);
        let (before, earlier) = ask.among(self.refunds(&charge.id).await?, self.clock.now());
        if let Some(given) = before {
            return self.again(&ask, given).await;
        }
        let mut left = charge.amount - charge.amount_refunded;
        // What a note of the invoice left for later ones is not given a second time.
        if let Some(intent) = charge.payment_intent.as_deref().filter(|_| left > 0) {
            left = self.left_of_payment(intent).await?.map_or(left, |of_invoice| left.min(of_invoice));
        }
        let amount = bounded(adjust.amount, left)?;
        let request = CreateRefund::new()
            .charge(charge.id.as_str())
            .amount(amount)
            .metadata(self.marks(adjust.tenant, &[("reason", adjust.reason), (ASK, &ask.mark)]));
        self.adjust(&ask, (amount, earlier), &request, || self.refunds(&charge.id)).await
    }

    /// Makes an invoice worth less: what is to be paid of one that is open, or what comes back of one that is paid.
    ///
    /// # Errors
    /// As [`refund`](Self::refund), for an invoice.
    pub async fn credit_note(&self, adjust: Adjust<'_>, invoice: &str, back: Back) -> Result<Adjustment> {
        let adjust = Adjust { reason: reason(adjust.reason)?, ..adjust };
        let claim = self.claim(adjust.tenant).await?;
        let done = self.credit_note_alone(adjust, invoice, back).await;
        self.let_go(claim).await;
        done
    }

    async fn credit_note_alone(&self, adjust: Adjust<'_>, invoice: &str, back: Back) -> Result<Adjustment> {
        let Fetched::Invoice(invoice) = self.now(adjust.tenant, ObjectKind::Invoice, invoice).await? else {
            return Err(Error::NotFound("invoice"));
        };
        let ask = Ask::new(adjust, back, "billing.credit_note", &invoice.id);
        let (before, earlier) = ask.among(self.notes(&invoice.id).await?, self.clock.now());
        if let Some(given) = before {
            return self.again(&ask, given).await;
        }
        let is_open = match invoice.status.as_str() {
            "open" => true,
            "paid" => false,
            other => {
                return Err(Error::Conflict(format!(
                    "the invoice is {other}: only an open or a paid one is corrected"
                )));
            }
        };
        let left = if is_open { invoice.amount_remaining } else { self.left_of_invoice(&invoice.id).await? };
        let amount = bounded(adjust.amount, left)?;
        let mut request = CreateCreditNote::new(invoice.id.as_str())
            .amount(amount)
            .memo(adjust.reason)
            .metadata(self.marks(adjust.tenant, &[("reason", adjust.reason), (ASK, &ask.mark)]));
        request = match back {
            _ if is_open => request,
            Back::Balance => request.credit_amount(amount),
            Back::Payer => request.refund_amount(amount),
        };
        self.adjust(&ask, (amount, earlier), &request, || self.notes(&invoice.id)).await
    }

    /// Gives. `look` lists what was given of the same: Stripe keeps a refusal for a day and gives it again, and then another key is
    /// used, unless it was given after all.
    async fn adjust<F>(
        &self,
        ask: &Ask<'_>,
        (amount, earlier): (i64, usize),
        request: &impl StripeRequest,
        look: impl Fn() -> F,
    ) -> Result<Adjustment>
    where
        F: Future<Output = Result<Vec<Given>>>,
    {
        self.note(ask, "asked", json!({ "amount": amount })).await?;
        let mut last = None;
        for generation in 0..GENERATIONS {
            let part = |number: &dyn ToString| number.to_string();
            let named = digest(&[&ask.mark, &part(&amount), &part(&earlier), &part(&generation)]);
            let key = format!("weir-{named}");
            match self.stripe.send_raw::<Made>(request.build(), Key::Named(&key)).await {
                Ok(made) => return self.done(ask, made).await,
                Err(error) if error.replayed => last = Some(error),
                Err(error) => return Err(trouble("it cannot be given back", &error)),
            }
            if let (Some(given), _) = ask.among(look().await?, self.clock.now()) {
                return self.done(ask, given.into()).await;
            }
        }
        Err(match last {
            Some(error) => trouble("it cannot be given back, and Stripe gives old answers for a day", &error),
            None => Error::Internal("nothing was asked".to_owned()),
        })
    }

    /// It was given before, and whoever asked did not hear of it.
    async fn again(&self, ask: &Ask<'_>, given: Given) -> Result<Adjustment> {
        self.note(ask, "asked", json!({ "amount": given.amount })).await?;
        self.done(ask, given.into()).await
    }

    async fn done(&self, ask: &Ask<'_>, made: Made) -> Result<Adjustment> {
        self.note(ask, "", json!({ "amount": made.amount, "id": made.id })).await?;
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

    async fn note(&self, ask: &Ask<'_>, step: &str, mut detail: serde_json::Value) -> Result<()> {
        let Ask { adjust, what, of, .. } = ask;
        let action = if step.is_empty() { (*what).to_owned() } else { format!("{what}.{step}") };
        detail["of"] = json!(of);
        detail["reason"] = json!(adjust.reason);
        let by = By { actor: adjust.actor, at: self.clock.now() };
        let mut tx = self.db.begin().await?;
        audit::record(&mut tx, by, &action, Subject::Tenant(adjust.tenant), &detail).await?;
        tx.commit().await
    }
}

/// What is asked for, and of what.
struct Ask<'a> {
    adjust: Adjust<'a>,
    what: &'static str,
    of: &'a str,
    /// The same for whoever asks the same: by it is found at Stripe what was given.
    mark: String,
}

impl<'a> Ask<'a> {
    fn new(adjust: Adjust<'a>, back: Back, what: &'static str, of: &'a str) -> Self {
        let amount = adjust.amount.map_or_else(|| "all".to_owned(), |amount| amount.to_string());
        let back = match back {
            Back::Balance => "balance",
            Back::Payer => "payer",
        };
        let mark = digest(&[what, &adjust.tenant.to_string(), of, back, &amount, adjust.reason]);
        Self { adjust, what, of, mark }
    }

    /// What was given within a day because the same was asked for; and how often it was before.
    fn among(&self, given: Vec<Given>, now: Timestamp) -> (Option<Given>, usize) {
        let same = given.into_iter().filter(|given| given.is_marked(ASK, &self.mark));
        let (new, old): (Vec<_>, Vec<_>) = same.partition(|given| given.is_since(now.minus(DAY)));
        (new.into_iter().next(), old.len())
    }
}

impl From<Given> for Made {
    fn from(given: Given) -> Self {
        Self { id: given.id, amount: given.amount, currency: given.currency, status: given.status }
    }
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
    fn the_same_is_what_everything_is_the_same_of() {
        let (tenant, other) = (TenantId::new(), TenantId::new());
        let mark = |tenant, amount, back, of| {
            let adjust = Adjust { actor: Actor::Cli, tenant, amount, reason: "an outage" };
            Ask::new(adjust, back, "billing.credit_note", of).mark
        };
        let first = mark(tenant, Some(5), Back::Balance, "in_1");
        assert_eq!(mark(tenant, Some(5), Back::Balance, "in_1"), first);
        for different in [
            mark(other, Some(5), Back::Balance, "in_1"),
            mark(tenant, None, Back::Balance, "in_1"),
            mark(tenant, Some(5), Back::Payer, "in_1"),
            mark(tenant, Some(5), Back::Balance, "in_2"),
        ] {
            assert_ne!(different, first);
        }
    }

    #[test]
    fn what_was_given_counts_for_a_day() {
        let adjust = Adjust { actor: Actor::Cli, tenant: TenantId::new(), amount: None, reason: "an outage" };
        let ask = Ask::new(adjust, Back::Payer, "billing.refund", "ch_1");
        let given = |id: &str, mark: &str, created: i64| -> Given {
            let object = json!({
                "id": id, "amount": 5, "currency": "usd", "created": created, "metadata": { "ask": mark },
            });
            serde_json::from_value(object).expect("a refund")
        };
        let all = vec![
            given("re_3", &ask.mark, 100_000),
            given("re_2", "other", 100_000),
            given("re_1", &ask.mark, 5),
        ];
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let found = |now| {
            let (given, earlier) = ask.among(all.clone(), at(now));
            (given.map(|given| given.id), earlier)
        };
        assert_eq!(found(100_001), (Some("re_3".to_owned()), 1));
        assert_eq!(found(186_401), (None, 2), "a day later it is another time");
    }

    #[test]
    fn a_reason_is_a_line() {
        assert_eq!(reason("  they asked ").expect("a reason"), "they asked");
        for odd in ["", "  ", "a\nb", &"x".repeat(501)] {
            assert!(reason(odd).is_err(), "{odd:?}");
        }
    }
}

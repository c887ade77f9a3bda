//! Stripe's objects as JSON, and what is kept of them. Tolerant: what is not looked at may be anything, and what may be absent may
//! be so in other versions of the API as well. The crates' types would refuse a whole object for one field.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::Deserialize;

use super::{Charge, Checkout, Current, Customer, Fetched, Found, Invoice, Paid, Subscription};
use crate::clock::Timestamp;

/// An id, or the object in its place. <https://docs.stripe.com/api/expanding_objects>
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Reference {
    /// The id.
    Id(String),
    /// The object.
    Object {
        /// Its id.
        id: String,
    },
}

impl Reference {
    /// The id.
    #[must_use]
    pub fn into_id(self) -> String {
        match self {
            Self::Id(id) | Self::Object { id } => id,
        }
    }
}

fn id(reference: Option<Reference>) -> Option<String> {
    reference.map(Reference::into_id)
}

fn object(fetched: Fetched) -> Found {
    Found::Object(Box::new(fetched))
}

/// Whole seconds since 1970.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Seconds(i64);

impl From<Seconds> for Timestamp {
    fn from(seconds: Seconds) -> Self {
        Self::from_micros(seconds.0.saturating_mul(1_000_000))
    }
}

fn time(seconds: Option<Seconds>) -> Option<Timestamp> {
    seconds.map(Into::into)
}

/// A page of a list. <https://docs.stripe.com/api/pagination>
#[derive(Debug, Deserialize)]
pub(super) struct Page<T> {
    pub(super) data: Vec<T>,
    #[serde(default)]
    pub(super) has_more: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawCustomer {
    id: String,
    #[serde(default)]
    deleted: bool,
}

impl RawCustomer {
    pub(super) fn kept(self) -> Found {
        object(Fetched::Customer(Customer { id: self.id, deleted: self.deleted }))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct RawSubscription {
    id: String,
    customer: Option<Reference>,
    status: String,
    #[serde(default)]
    metadata: HashMap<String, String>,
    billing_cycle_anchor: Seconds,
    items: Page<Item>,
    trial_end: Option<Seconds>,
    cancel_at: Option<Seconds>,
    #[serde(default)]
    cancel_at_period_end: bool,
    canceled_at: Option<Seconds>,
    ended_at: Option<Seconds>,
    latest_invoice: Option<Reference>,
    created: Seconds,
}

#[derive(Debug, Deserialize)]
struct Item {
    id: String,
    price: Price,
    current_period_start: Option<Seconds>,
    current_period_end: Option<Seconds>,
}

#[derive(Debug, Deserialize)]
struct Price {
    id: String,
    unit_amount: Option<i64>,
    recurring: Option<Recurring>,
}

#[derive(Debug, Deserialize)]
struct Recurring {
    usage_type: String,
}

impl Item {
    fn is(&self, usage_type: &str) -> bool {
        self.price.recurring.as_ref().is_some_and(|recurring| recurring.usage_type == usage_type)
    }
}

impl RawSubscription {
    pub(super) fn kept(self) -> Found {
        self.current().map_or(Found::Nobodys, |current| object(Fetched::Subscription(current.subscription)))
    }

    /// What the mirror keeps, and what is noted beside it; nothing, where it is nobody's.
    pub(super) fn current(mut self) -> Option<Current> {
        let customer = id(self.customer)?;
        let mut marked = |key: &str| self.metadata.remove(key);
        let at = |text: Option<String>| text?.parse().ok().map(|s| Timestamp::from(Seconds(s)));
        let paid = at(marked("paid_until")).map(|until| Paid {
            until,
            price: marked("paid_price"),
            amount: marked("paid_amount").and_then(|text| text.parse().ok()).unwrap_or(0),
        });
        let plan_from = at(marked("plan_from"));
        let items = &self.items.data;
        let base = items.iter().find(|item| item.is("licensed"));
        let starts = items.iter().filter_map(|item| time(item.current_period_start));
        let ends = items.iter().filter_map(|item| time(item.current_period_end));
        let subscription = Subscription {
            id: self.id,
            customer,
            status: self.status,
            plan: self.metadata.remove("plan"),
            plan_before: self.metadata.remove("plan_before"),
            plan_from,
            billing_cycle_anchor: self.billing_cycle_anchor.into(),
            current_period_start: starts.min(),
            current_period_end: ends.max(),
            trial_end: time(self.trial_end),
            cancel_at: time(self.cancel_at),
            cancel_at_period_end: self.cancel_at_period_end,
            canceled_at: time(self.canceled_at),
            ended_at: time(self.ended_at),
            base_price: base.map(|item| item.price.id.clone()),
            base_item: base.map(|item| item.id.clone()),
            base_amount: base.and_then(|item| item.price.unit_amount),
            metered_item: items.iter().find(|item| item.is("metered")).map(|item| item.id.clone()),
            latest_invoice: id(self.latest_invoice),
            created_at: self.created.into(),
        };
        Some(Current { subscription, paid })
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct RawInvoice {
    id: String,
    customer: Option<Reference>,
    parent: Option<InvoiceParent>,
    status: Option<String>,
    billing_reason: Option<String>,
    number: Option<String>,
    currency: String,
    total: i64,
    amount_due: i64,
    amount_paid: i64,
    amount_remaining: i64,
    #[serde(default)]
    attempt_count: i64,
    next_payment_attempt: Option<Seconds>,
    due_date: Option<Seconds>,
    status_transitions: Transitions,
    hosted_invoice_url: Option<String>,
    created: Seconds,
    /// The first lines.
    pub(super) lines: Page<Line>,
}

#[derive(Debug, Deserialize)]
struct InvoiceParent {
    subscription_details: Option<SubscriptionDetails>,
}

#[derive(Debug, Deserialize)]
struct SubscriptionDetails {
    subscription: Option<Reference>,
}

#[derive(Debug, Deserialize)]
struct Transitions {
    finalized_at: Option<Seconds>,
    paid_at: Option<Seconds>,
}

/// A line of an invoice. <https://docs.stripe.com/api/invoice-line-item/object>
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) id: String,
    amount: i64,
    quantity: Option<i64>,
    period: Period,
    pricing: Option<Pricing>,
}

#[derive(Debug, Deserialize)]
struct Period {
    start: Seconds,
    end: Seconds,
}

#[derive(Debug, Deserialize)]
struct Pricing {
    price_details: Option<PriceDetails>,
}

#[derive(Debug, Deserialize)]
struct PriceDetails {
    product: Reference,
}

impl Line {
    fn is_of(&self, wanted: &str) -> bool {
        let details = self.pricing.as_ref().and_then(|pricing| pricing.price_details.as_ref());
        details.is_some_and(|details| details.product.clone().into_id() == wanted)
    }
}

impl RawInvoice {
    /// The invoice's id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// With all its lines; `metered` is the product of metered usage.
    pub(super) fn kept(self, lines: &[Line], metered: &str) -> Found {
        let Some(customer) = id(self.customer) else { return Found::Nobodys };
        let lines: Vec<_> = lines.iter().filter(|line| line.is_of(metered)).collect();
        let amounts = lines.iter().map(|line| line.amount);
        // Where one has none, it is not known how much is billed.
        let quantities = lines.iter().map(|line| line.quantity).collect::<Option<Vec<_>>>();
        let subscription = self.parent.and_then(|parent| parent.subscription_details);
        object(Fetched::Invoice(Invoice {
            id: self.id,
            customer,
            subscription: id(subscription.and_then(|details| details.subscription)),
            status: self.status.unwrap_or_else(|| "draft".to_owned()),
            billing_reason: self.billing_reason,
            number: self.number,
            currency: self.currency,
            total: self.total,
            amount_due: self.amount_due,
            amount_paid: self.amount_paid,
            amount_remaining: self.amount_remaining,
            attempt_count: self.attempt_count,
            next_payment_attempt: time(self.next_payment_attempt),
            due_at: time(self.due_date),
            finalized_at: time(self.status_transitions.finalized_at),
            paid_at: time(self.status_transitions.paid_at),
            hosted_invoice_url: self.hosted_invoice_url,
            metered_from: lines.iter().map(|line| line.period.start.into()).min(),
            metered_to: lines.iter().map(|line| line.period.end.into()).max(),
            metered_quantity: quantities.and_then(|all| all.into_iter().reduce(i64::saturating_add)),
            metered_amount: amounts.reduce(i64::saturating_add),
            created_at: self.created.into(),
        }))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct RawCheckout {
    id: String,
    customer: Option<Reference>,
    mode: String,
    status: Option<String>,
    payment_status: String,
    subscription: Option<Reference>,
    payment_intent: Option<Reference>,
    invoice: Option<Reference>,
    amount_total: Option<i64>,
    currency: Option<String>,
    metadata: Option<HashMap<String, String>>,
    created: Seconds,
}

impl RawCheckout {
    pub(super) fn kept(self) -> Found {
        let Some(customer) = id(self.customer) else { return Found::Nobodys };
        object(Fetched::Checkout(Checkout {
            id: self.id,
            customer,
            mode: self.mode,
            status: self.status.unwrap_or_else(|| "open".to_owned()),
            payment_status: self.payment_status,
            subscription: id(self.subscription),
            payment_intent: id(self.payment_intent),
            invoice: id(self.invoice),
            amount_total: self.amount_total,
            currency: self.currency,
            topup: self.metadata.and_then(|mut metadata| metadata.remove("topup")),
            created_at: self.created.into(),
        }))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct RawCharge {
    id: String,
    customer: Option<Reference>,
    payment_intent: Option<Reference>,
    status: String,
    currency: String,
    amount: i64,
    #[serde(default)]
    amount_refunded: i64,
    #[serde(default)]
    pub(super) disputed: bool,
    created: Seconds,
}

/// A dispute about a charge. <https://docs.stripe.com/api/disputes/object>
#[derive(Debug, Deserialize)]
pub(super) struct RawDispute {
    status: String,
}

impl RawCharge {
    /// With its newest dispute.
    pub(super) fn kept(self, dispute: Option<RawDispute>) -> Found {
        let Some(customer) = id(self.customer) else { return Found::Nobodys };
        object(Fetched::Charge(Charge {
            id: self.id,
            customer,
            payment_intent: id(self.payment_intent),
            status: self.status,
            currency: self.currency,
            amount: self.amount,
            amount_refunded: self.amount_refunded,
            disputed: self.disputed,
            dispute_status: dispute.map(|dispute| dispute.status),
            created_at: self.created.into(),
        }))
    }
}

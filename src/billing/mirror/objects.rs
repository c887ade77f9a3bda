//! Stripe's objects as JSON, and what is kept of them. Tolerant: what is not looked at may be anything, and what may be absent may
//! be so in other versions of the API as well. The crates' types would refuse a whole object for one field.

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

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn read<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    fn fetched(found: Found) -> Fetched {
        match found {
            Found::Object(fetched) => *fetched,
            other => panic!("{other:?}"),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn item(id: &str, usage_type: &str, (start, end): (i64, i64)) -> Value {
        json!({
            "id": id, "object": "subscription_item", "current_period_start": start, "current_period_end": end,
            "price": {
                "id": format!("price_of_{id}"), "unit_amount": if usage_type == "licensed" { json!(900) } else { json!(null) },
                "recurring": { "interval": "month", "usage_type": usage_type },
            },
        })
    }

    #[test]
    fn of_a_subscription_the_items_are_told_apart() {
        let mut object = json!({
            "id": "sub_1", "object": "subscription", "customer": { "id": "cus_1", "object": "customer" },
            "status": "active", "metadata": { "plan": "pro", "tenant": "tn_of_somebody_else" },
            "billing_cycle_anchor": 100, "created": 50, "latest_invoice": "in_1", "cancel_at_period_end": true,
            "cancel_at": 300, "canceled_at": 150, "ended_at": null, "trial_end": null, "something_new": [1],
            "items": { "object": "list", "has_more": false, "data": [
                item("si_m", "metered", (100, 300)), item("si_b", "licensed", (90, 280)),
            ] },
        });
        let found = fetched(read::<RawSubscription>(object.clone()).kept());
        let expected = Subscription {
            id: "sub_1".to_owned(),
            customer: "cus_1".to_owned(),
            status: "active".to_owned(),
            plan: Some("pro".to_owned()),
            plan_before: None,
            plan_from: None,
            billing_cycle_anchor: at(100),
            current_period_start: Some(at(90)),
            current_period_end: Some(at(300)),
            trial_end: None,
            cancel_at: Some(at(300)),
            cancel_at_period_end: true,
            canceled_at: Some(at(150)),
            ended_at: None,
            base_price: Some("price_of_si_b".to_owned()),
            base_item: Some("si_b".to_owned()),
            base_amount: Some(900),
            metered_item: Some("si_m".to_owned()),
            latest_invoice: Some("in_1".to_owned()),
            created_at: at(50),
        };
        assert_eq!(found, Fetched::Subscription(expected));
        let paid =
            |object: &Value| read::<RawSubscription>(object.clone()).current().expect("somebody's").paid;
        assert_eq!(paid(&object), None);
        object["metadata"] = json!({ "paid_until": "300", "paid_price": "price_1", "paid_amount": "1900" });
        let price = Some("price_1".to_owned());
        assert_eq!(paid(&object), Some(Paid { until: at(300), price, amount: 1900 }));
        object["metadata"] = json!({ "paid_until": "300" });
        assert_eq!(paid(&object), Some(Paid { until: at(300), price: None, amount: 0 }), "no base fee");
        object["customer"] = Value::Null;
        assert_eq!(read::<RawSubscription>(object).kept(), Found::Nobodys);
    }

    fn line(id: &str, product: &Value, quantity: Option<i64>, period: (i64, i64)) -> Value {
        json!({
            "id": id, "amount": 7, "quantity": quantity, "period": { "start": period.0, "end": period.1 },
            "pricing": { "type": "price_details", "price_details": { "price": "price_1", "product": product } },
        })
    }

    #[test]
    fn of_an_invoice_the_metered_lines_are_summed() {
        let object = json!({
            "id": "in_1", "object": "invoice", "customer": "cus_1", "status": "open", "currency": "usd", "total": 1_000,
            "amount_due": 1_000, "amount_paid": 1, "amount_remaining": 999, "attempt_count": 2, "attempted": true,
            "next_payment_attempt": 900, "due_date": null, "hosted_invoice_url": "https://example.com/i", "number": "A-1",
            "billing_reason": "subscription_cycle", "created": 500,
            "status_transitions": { "finalized_at": 600, "paid_at": null, "voided_at": null },
            "parent": { "type": "subscription_details", "subscription_details": { "subscription": "sub_1" } },
            "lines": { "has_more": false, "data": [] },
        });
        let lines: Vec<Line> = read(json!([
            line("il_1", &json!("weir_plan_pro"), Some(1), (0, 1)),
            line("il_2", &json!("weir_credits"), Some(2_000_000), (100, 200)),
            line("il_3", &json!({ "id": "weir_credits" }), Some(40), (90, 150)),
            line("il_4", &json!("weir_credits"), Some(0), (100, 200)),
            { "id": "il_5", "amount": 5, "quantity": 5, "period": { "start": 0, "end": 0 }, "pricing": null },
        ]));
        let Fetched::Invoice(with) = fetched(read::<RawInvoice>(object.clone()).kept(&lines, "weir_credits"))
        else {
            panic!("an invoice")
        };
        assert_eq!((with.metered_quantity, with.metered_amount), (Some(2_000_040), Some(21)));
        assert_eq!((with.metered_from, with.metered_to), (Some(at(90)), Some(at(200))));
        assert_eq!((with.subscription.as_deref(), with.status.as_str()), (Some("sub_1"), "open"));
        assert_eq!(
            (with.next_payment_attempt, with.finalized_at, with.paid_at),
            (Some(at(900)), Some(at(600)), None)
        );
        let Fetched::Invoice(without) =
            fetched(read::<RawInvoice>(object.clone()).kept(&lines[..1], "weir_credits"))
        else {
            panic!("an invoice")
        };
        assert_eq!((without.metered_quantity, without.metered_from), (None, None));
        let lines: Vec<Line> = read(json!([
            line("il_1", &json!("weir_credits"), Some(1), (100, 200)),
            line("il_2", &json!("weir_credits"), None, (100, 200)),
        ]));
        let Fetched::Invoice(unknown) = fetched(read::<RawInvoice>(object).kept(&lines, "weir_credits"))
        else {
            panic!("an invoice")
        };
        assert_eq!((unknown.metered_quantity, unknown.metered_from), (None, Some(at(100))));
    }

    #[test]
    fn of_a_checkout_and_a_charge_what_matters_is_kept() {
        let session = json!({
            "id": "cs_1", "object": "checkout.session", "customer": "cus_1", "mode": "payment", "status": "complete",
            "payment_status": "paid", "payment_intent": "pi_1", "subscription": null, "invoice": "in_9",
            "amount_total": 2_000, "currency": "usd", "metadata": { "topup": "gr_1" }, "created": 5,
        });
        let Fetched::Checkout(session) = fetched(read::<RawCheckout>(session).kept()) else {
            panic!("a session")
        };
        assert_eq!((session.topup.as_deref(), session.amount_total), (Some("gr_1"), Some(2_000)));
        let charge = json!({
            "id": "ch_1", "customer": "cus_1", "payment_intent": "pi_1", "status": "succeeded", "currency": "usd",
            "amount": 2_000, "amount_refunded": 500, "disputed": true, "created": 5,
        });
        let Fetched::Charge(charge) =
            fetched(read::<RawCharge>(charge).kept(Some(read(json!({ "id": "dp_1", "status": "lost" })))))
        else {
            panic!("a charge")
        };
        assert_eq!((charge.amount_refunded, charge.disputed), (500, true));
        assert_eq!(charge.dispute_status.as_deref(), Some("lost"));
        let deleted =
            read::<RawCustomer>(json!({ "id": "cus_1", "object": "customer", "deleted": true })).kept();
        let expected = Customer { id: "cus_1".to_owned(), deleted: true };
        assert_eq!(fetched(deleted), Fetched::Customer(expected));
    }
}

//! What Stripe does by itself: periods that end, invoices, payments, and what follows from them. The operations of the
//! API that set it in motion are in `api/`.

pub mod balance;
pub mod calendar;
pub mod charge;
pub mod collect;
pub mod cycle;
pub mod dispute;
pub mod invoice;
pub mod lines;
pub mod money;
pub mod prorate;
pub mod refund;
pub mod start;

use std::collections::HashMap;

use serde_json::{Value, json};

use super::api::changed;
use super::look::{listed, text, whole};
use super::world::{Call, World};

/// What the subscriptions' objects do not tell.
#[derive(Default)]
pub struct Ledger {
    /// What was last billed for a subscription item, and for which time: credits are parts of it. STANDIN-PRORATE-1
    pub debits: HashMap<String, Debit>,
    /// From when on the usage of a metered item has not been billed yet, where that is not its period's start.
    pub metered_from: HashMap<String, i64>,
    /// The lines that invoice items become, by the items' ids.
    pub waiting: HashMap<String, Value>,
}

impl Ledger {
    /// An item is gone.
    pub fn forget(&mut self, item: &str) {
        self.debits.remove(item);
        self.metered_from.remove(item);
    }
}

/// A sum that was billed for a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Debit {
    /// In the smallest unit of currency.
    pub amount: i64,
    /// From when to when, in seconds.
    pub period: (i64, i64),
}

/// Changes an object, and tells of the change where there is one. The object after it; null where there is none of this id.
pub fn change(
    world: &mut World,
    call: &Call,
    what: (&'static str, &str),
    event: &str,
    with: impl FnOnce(&mut Value),
) -> Value {
    let Some(before) = world.live(what.0, what.1).cloned() else { return Value::Null };
    let mut after = before.clone();
    with(&mut after);
    world.replace(what.0, &after);
    changed(world, call, event, &before, &after);
    after
}

/// The period of a subscription: all its items have the same. In this version of the API it stands on the items.
pub fn period(subscription: &Value) -> (i64, i64) {
    let first = listed(subscription, "items").first().unwrap_or(&Value::Null);
    (whole(first, "current_period_start"), whole(first, "current_period_end"))
}

/// Whether a price is billed by usage.
pub fn is_metered(price: &Value) -> bool {
    price["recurring"]["usage_type"] == "metered"
}

/// The payment method that a customer's invoices are paid with: the subscription's, or else the customer's own.
pub fn default_method(world: &World, customer: &str, subscription: Option<&Value>) -> Option<String> {
    let own = subscription.and_then(|subscription| subscription["default_payment_method"].as_str());
    let customer = world.live("customer", customer)?;
    own.or(customer["invoice_settings"]["default_payment_method"].as_str()).map(str::to_owned)
}

/// Whether a subscription of this status goes on.
pub fn is_going_on(subscription: &Value) -> bool {
    matches!(text(subscription, "status"), "trialing" | "active" | "past_due" | "unpaid")
}

/// A list object.
pub fn list_of(data: &[Value], url: &str) -> Value {
    json!({ "object": "list", "data": data, "has_more": false, "url": url })
}

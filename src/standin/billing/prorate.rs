//! Changes in the middle of a period: what was billed for the rest of it comes back, and the rest is billed anew
//! (docs.stripe.com/billing/subscriptions/prorations). Until there is an invoice, both wait as invoice items.

use serde_json::{Value, json};

use super::super::api::create;
use super::super::look::{text, whole};
use super::super::refusal::Refusal;
use super::super::shelf::Shelf;
use super::super::world::{Call, World};
use super::calendar::Cycle;
use super::lines::{self, About, Line, line};
use super::{Debit, is_metered, money};

/// What waits for an invoice.
pub const KIND: &str = "invoiceitem";

/// Something that waits for an invoice.
pub struct Waiting<'a> {
    /// The subscription item that it is about; its price is the one billed.
    item: &'a Value,
    amount: i64,
    quantity: i64,
    period: (i64, i64),
    description: String,
    /// A part of a period, as opposed to usage, which is owed whatever was asked for.
    pub is_proration: bool,
}

/// What a change of one item at a time brings: `before` is null for an item that is new, `after` for one that goes. Usage
/// of a metered item that goes is billed as far as it is known. STANDIN-PRORATE-1 STANDIN-PRORATE-2
pub fn change<'a>(
    world: &World,
    subscription: &Value,
    items: (&'a Value, &'a Value),
    at: i64,
) -> Vec<Waiting<'a>> {
    let (before, after) = items;
    let end = super::period(subscription).1;
    let mut found = Vec::new();
    if before.is_object() && is_metered(&before["price"]) {
        let period = lines::unbilled(&world.ledger, before, (super::period(subscription).0, at));
        let (quantity, amount) =
            lines::usage(world, &before["price"], text(subscription, "customer"), period, None);
        if amount > 0 {
            let description = format!("{quantity} × {}", lines::name_of(world, &before["price"]));
            found.push(Waiting { item: before, amount, quantity, period, description, is_proration: false });
        }
    } else if let Some(debit) = world.ledger.debits.get(text(before, "id")) {
        let (start, until) = debit.period;
        if start <= at && at < until {
            let amount = -money::share(debit.amount, until - at, until - start);
            let name = lines::name_of(world, &before["price"]);
            let quantity = whole(before, "quantity");
            let description = format!("Unused time on {quantity} × {name}");
            let period = (at, until);
            found.push(Waiting { item: before, amount, quantity, period, description, is_proration: true });
        }
    }
    if after.is_object() && !is_metered(&after["price"]) && at < end {
        let quantity = whole(after, "quantity");
        let anchor = whole(subscription, "billing_cycle_anchor");
        let amount = part_of_period(after, anchor, (at, end));
        let description =
            format!("Remaining time on {quantity} × {}", lines::name_of(world, &after["price"]));
        let period = (at, end);
        found.push(Waiting { item: after, amount, quantity, period, description, is_proration: true });
    }
    found.retain(|waiting| waiting.amount != 0);
    found
}

/// What a licensed item costs for the last part of the period that ends at `span.1`, to the second.
pub fn part_of_period(item: &Value, anchor: i64, span: (i64, i64)) -> i64 {
    let full = money::total(whole(item, "quantity"), text(&item["price"], "unit_amount_decimal"));
    let (start, end) = Cycle::new(&item["price"]["recurring"], anchor).ending(span.1);
    money::share(full, span.1 - span.0, end - start)
}

impl Waiting<'_> {
    /// As a line.
    pub fn line(&self, world: &mut World, subscription: &Value) -> Value {
        let ids = (text(subscription, "id"), text(self.item, "id"));
        let about =
            if self.is_proration { About::Proration(ids.0, ids.1) } else { About::Item(ids.0, ids.1) };
        let Self { amount, quantity, period, .. } = *self;
        let description = self.description.clone();
        let mut line =
            line(world, &self.item["price"], &Line { about, description, amount, quantity, period });
        // What waited is settled: drafts read only the usage of their own period again.
        line["parent"]["subscription_item_details"]["invoice_item"] = json!(world.ids.next("ii"));
        line
    }

    /// Lets it wait for the next invoice, and takes down what was billed.
    ///
    /// # Errors
    /// Where there are too many objects.
    pub fn put(&self, world: &mut World, call: &Call, subscription: &Value) -> Result<(), Refusal> {
        let line = self.line(world, subscription);
        let item = text(self.item, "id").to_owned();
        if self.is_proration && self.amount < 0 {
            world.ledger.debits.remove(&item);
        } else if self.is_proration {
            world.ledger.debits.insert(item.clone(), Debit { amount: self.amount, period: self.period });
        }
        let details = json!({ "subscription": subscription["id"], "subscription_item": item });
        let waiting = json!({
            "id": line["parent"]["subscription_item_details"]["invoice_item"], "amount": self.amount,
            "currency": line["currency"], "customer": subscription["customer"], "customer_account": null,
            "date": world.now(), "description": self.description, "discountable": false, "discounts": [],
            "invoice": null, "metadata": {}, "net_amount": self.amount,
            "parent": { "subscription_details": details, "type": "subscription_details" },
            "period": line["period"], "pricing": line["pricing"], "proration": self.is_proration,
            "proration_details": null, "quantity": self.quantity, "quantity_decimal": self.quantity.to_string(),
            "tax_rates": [], "test_clock": null,
        });
        let kept = create(world, call, KIND, "ii", waiting)?;
        world.ledger.waiting.insert(text(&kept, "id").to_owned(), line);
        Ok(())
    }
}

/// The lines that wait for the subscription's next invoice, the oldest first.
pub fn waiting(world: &World, subscription: &str) -> Vec<Value> {
    let mut found: Vec<_> = world
        .shelf(KIND)
        .into_iter()
        .flat_map(Shelf::newest_first)
        .filter(|one| one["invoice"].is_null())
        .filter(|one| one["parent"]["subscription_details"]["subscription"] == subscription)
        .filter_map(|one| world.ledger.waiting.get(text(one, "id")).cloned())
        .collect();
    found.reverse();
    found
}

/// Writes down that what waited is on an invoice now.
pub fn invoiced(world: &mut World, invoice: &Value) {
    let ids: Vec<String> = super::super::look::listed(invoice, "lines")
        .iter()
        .filter_map(|line| line["parent"]["subscription_item_details"]["invoice_item"].as_str())
        .map(str::to_owned)
        .collect();
    for id in ids {
        world.ledger.waiting.remove(&id);
        if let Some(mut one) = world.live(KIND, &id).cloned() {
            one["invoice"] = invoice["id"].clone();
            world.replace(KIND, &one);
        }
    }
}

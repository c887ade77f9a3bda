//! Lines of invoices, and of items that wait for an invoice (docs.stripe.com/api/invoice-line-item).

use serde_json::{Value, json};

use super::super::api::aggregate;
use super::super::look::{text, whole};
use super::super::settings::Billed;
use super::super::world::World;
use super::{Ledger, is_metered, money};
use crate::clock::Timestamp;

/// What a line is about.
#[derive(Clone, Copy)]
pub enum About<'a> {
    /// An item of a subscription: ids of both.
    Item(&'a str, &'a str),
    /// Part of a period, of an item of a subscription.
    Proration(&'a str, &'a str),
    /// Something that was bought once.
    Once,
}

/// What a line says besides its price.
pub struct Line<'a> {
    /// What it is about.
    pub about: About<'a>,
    /// For a person.
    pub description: String,
    /// In the smallest unit of currency.
    pub amount: i64,
    /// How many.
    pub quantity: i64,
    /// From when to when, in seconds.
    pub period: (i64, i64),
}

/// A line at a price, for no invoice yet.
pub fn line(world: &mut World, price: &Value, line: &Line<'_>) -> Value {
    let id = world.ids.next("il");
    let subscription_item = |subscription: &str, item: &str, proration: bool| {
        let details = json!({
            "invoice_item": null, "proration": proration, "proration_details": { "credited_items": null },
            "subscription": subscription, "subscription_item": item,
        });
        json!({
            "invoice_item_details": null, "subscription_item_details": details, "type": "subscription_item_details",
        })
    };
    let (parent, subscription) = match line.about {
        About::Item(subscription, item) => {
            (subscription_item(subscription, item, false), json!(subscription))
        }
        About::Proration(subscription, item) => {
            (subscription_item(subscription, item, true), json!(subscription))
        }
        About::Once => {
            let details = json!({
                "invoice_item": world.ids.next("ii"), "proration": false,
                "proration_details": { "credited_items": null }, "subscription": null,
            });
            let parent = json!({
                "invoice_item_details": details, "subscription_item_details": null, "type": "invoice_item_details",
            });
            (parent, Value::Null)
        }
    };
    json!({
        "id": id, "object": "line_item", "amount": line.amount, "currency": price["currency"],
        "description": line.description, "discount_amounts": [], "discountable": true, "discounts": [],
        "invoice": null, "livemode": false, "metadata": {}, "parent": parent,
        "period": { "end": line.period.1, "start": line.period.0 }, "pretax_credit_amounts": [],
        "pricing": {
            "price_details": { "price": price["id"], "product": price["product"] }, "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": line.quantity, "quantity_decimal": line.quantity.to_string(), "subscription": subscription,
        "subtotal": line.amount, "taxes": [],
    })
}

/// The line for a whole period of an item that is billed in advance; `amount` where it is not the full one.
pub fn licensed(
    world: &mut World,
    subscription: &Value,
    item: &Value,
    period: (i64, i64),
    amount: Option<i64>,
) -> Value {
    let (quantity, name) = (whole(item, "quantity"), name_of(world, &item["price"]));
    let full = money::total(quantity, text(&item["price"], "unit_amount_decimal"));
    let (subscription, item_id) = (text(subscription, "id"), text(item, "id"));
    let description = format!("{quantity} × {name}");
    let about = if amount.is_some_and(|amount| amount != full) {
        About::Proration(subscription, item_id)
    } else {
        About::Item(subscription, item_id)
    };
    line(
        world,
        &item["price"],
        &Line { about, description, amount: amount.unwrap_or(full), quantity, period },
    )
}

/// The line for usage in a span, as far as it is known: at `seen` in what summaries show, or all that was accepted. A
/// sum below zero bills nothing. STANDIN-INVOICE-3
pub fn metered(
    world: &mut World,
    subscription: &Value,
    item: &Value,
    period: (i64, i64),
    seen: Option<Timestamp>,
) -> Value {
    let (quantity, amount) = usage(world, &item["price"], text(subscription, "customer"), period, seen);
    let description = format!("{quantity} × {}", name_of(world, &item["price"]));
    let about = About::Item(text(subscription, "id"), text(item, "id"));
    line(world, &item["price"], &Line { about, description, amount, quantity, period })
}

/// Quantity and amount of a customer's usage at a metered price.
pub fn usage(
    world: &World,
    price: &Value,
    customer: &str,
    period: (i64, i64),
    seen: Option<Timestamp>,
) -> (i64, i64) {
    let id = text(&price["recurring"], "meter");
    let Some(meter) = world.live("billing.meter", id) else { return (0, 0) };
    let quantity = aggregate(meter, world.usage.sums(id, customer, period, seen)).max(0);
    let transform = &price["transform_quantity"];
    let billed = match whole(transform, "divide_by") {
        by if by > 0 && transform["round"] == "up" => quantity.saturating_add(by - 1) / by,
        by if by > 0 => quantity / by,
        _ => quantity,
    };
    (quantity, money::total(billed, text(price, "unit_amount_decimal")))
}

/// The span of an item's usage that has not been billed yet: an item may have come later than the period, and part of the
/// period may have been billed when its price changed.
pub fn unbilled(ledger: &Ledger, item: &Value, period: (i64, i64)) -> (i64, i64) {
    let from = ledger.metered_from.get(text(item, "id")).copied().unwrap_or_default();
    (period.0.max(whole(item, "created")).max(from), period.1)
}

/// The name of a price's product.
pub fn name_of(world: &World, price: &Value) -> String {
    let product = world.live("product", text(price, "product"));
    product.map_or_else(String::new, |product| text(product, "name").to_owned())
}

/// Brings the usage lines of a draft up to date.
pub fn refresh(world: &World, invoice: &mut Value) {
    let customer = text(invoice, "customer").to_owned();
    let seen = (world.settings.invoices_bill == Billed::Shown).then(|| world.time());
    let lines = invoice["lines"]["data"].as_array_mut().into_iter().flatten();
    let read_again = |line: &&mut Value| {
        let details = &line["parent"]["subscription_item_details"];
        details["proration"] == false && details["invoice_item"].is_null()
    };
    for line in lines.filter(read_again) {
        let price = world.live("price", text(&line["pricing"]["price_details"], "price"));
        let Some(price) = price.filter(|price| is_metered(price)) else { continue };
        let period = (whole(&line["period"], "start"), whole(&line["period"], "end"));
        let (quantity, amount) = usage(world, price, &customer, period, seen);
        line["description"] = json!(format!("{quantity} × {}", name_of(world, price)));
        line["quantity"] = json!(quantity);
        line["quantity_decimal"] = json!(quantity.to_string());
        line["amount"] = json!(amount);
        line["subtotal"] = json!(amount);
    }
}

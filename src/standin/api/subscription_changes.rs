//! Changes of a subscription: plan, quantity, trial, and whether it ends (docs.stripe.com/api/subscriptions/update).

use serde_json::{Value, json};

use super::super::agenda::Due;
use super::super::api::changed;
use super::super::billing::prorate::{self, Waiting};
use super::super::billing::start::{KIND, TOLD_BEFORE, item, plan};
use super::super::billing::{collect, cycle, invoice, is_metered, period};
use super::super::look::{listed, text};
use super::super::refusal::Refusal;
use super::super::schema::{Field, Kind, METADATA, TEXT, clear, opt};
use super::super::world::{Call, World, overlay};
use super::Done;
use super::subscriptions::{DETAILS, fits, own_method, recurring_price, times};

/// What a change takes besides what a new subscription takes.
pub const FIELDS: &[Field] = &[
    opt("billing_cycle_anchor", Kind::OneOf(&["unchanged"])),
    clear("cancel_at", Kind::Whole),
    opt("cancellation_details", Kind::Object(DETAILS)),
    opt("items", Kind::Many(&Kind::Object(ITEM), 20)),
];
/// One item of a change: an item that is there by its id, or a new one.
pub const ITEM: &[Field] = &[
    opt("deleted", Kind::Flag),
    opt("id", TEXT),
    METADATA,
    opt("price", TEXT),
    opt("quantity", Kind::Whole),
];

/// Changes a subscription. STANDIN-PRORATE-1 STANDIN-PRORATE-2
pub fn change(world: &mut World, call: &Call) -> Done {
    let before = world.named(KIND, call)?.clone();
    let ended = matches!(text(&before, "status"), "canceled" | "incomplete_expired");
    let harmless = |name: &String| matches!(name.as_str(), "metadata" | "cancellation_details");
    if ended && !call.params.keys().all(harmless) {
        let message = "A canceled subscription can only update its cancellation_details and metadata.";
        return Err(Refusal::conflict(None, "subscription", message));
    }
    if let Some(method) = call.text("default_payment_method") {
        own_method(world, method, text(&before, "customer"))?;
    }
    let now = world.now();
    let asked = call.params.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let changes = item_changes(world, &before, &asked)?;
    let waiting = waiting(world, &before, &changes, call.text("proration_behavior"));
    let mut after = before.clone();
    lay_items(&mut after, &changes, &asked)?;
    let mut given = call.params.clone();
    given.retain(|name, _| {
        matches!(
            name.as_str(),
            "metadata"
                | "description"
                | "default_payment_method"
                | "cancellation_details"
                | "cancel_at_period_end"
                | "automatic_tax"
                | "trial_settings"
        )
    });
    overlay(&mut after, &given);
    lay_end(world, call, &before, &mut after)?;
    let trial = trial(world, call, &mut after)?;
    for (old, new) in &changes {
        if new.is_object() && is_metered(&new["price"]) && old.is_object() {
            world.ledger.metered_from.insert(text(new, "id").to_owned(), now);
        }
    }
    world.replace(KIND, &after);
    for one in &waiting {
        one.put(world, call, &after)?;
    }
    for (old, _) in changes.iter().filter(|(_, new)| new.is_null()) {
        world.ledger.forget(text(old, "id"));
    }
    changed(world, call, "customer.subscription.updated", &before, &after);
    if trial == Some(now) {
        begin_now(world, call, &after)?;
    } else if call.text("proration_behavior") == Some("always_invoice") {
        cycle::bill_now(world, call, &after)?;
    }
    world.named(KIND, call).cloned()
}

/// When the subscription will end, where that was asked for: at the end of its period, which moves with it, or at a time, which does
/// not. What takes back the one leaves the other as it is. STANDIN-CANCEL-1
fn lay_end(world: &mut World, call: &Call, before: &Value, after: &mut Value) -> Result<(), Refusal> {
    let (at, flag) = (call.params.get("cancel_at"), call.params.get("cancel_at_period_end"));
    let end = match (at, flag) {
        (Some(_), Some(_)) => {
            let message = "You may only specify one of these parameters: cancel_at, cancel_at_period_end.";
            return Err(Refusal::conflict(None, "cancel_at", message));
        }
        (Some(Value::Null), None) => Value::Null,
        (Some(at), None) => {
            if at.as_i64().unwrap_or_default() <= world.now() {
                return Err(Refusal::conflict(None, "cancel_at", "`cancel_at` must be in the future."));
            }
            at.clone()
        }
        (None, Some(flag)) if *flag != before["cancel_at_period_end"] => {
            if *flag == true {
                json!(period(after).1)
            } else {
                Value::Null
            }
        }
        (None, _) => return Ok(()),
    };
    if at.is_some() {
        after["cancel_at_period_end"] = json!(false);
        if let Some(at) = end.as_i64() {
            world.agenda.put(at, Due::SubscriptionEnds, text(after, "id"));
        }
    }
    let is_ending = !end.is_null();
    after["cancel_at"] = end;
    after["canceled_at"] = if is_ending { json!(world.now()) } else { Value::Null };
    after["cancellation_details"]["reason"] =
        if is_ending { json!("cancellation_requested") } else { Value::Null };
    Ok(())
}

/// The items that become different, before and after; null before for a new one, null after for one that goes.
pub fn item_changes(
    world: &mut World,
    subscription: &Value,
    asked: &[Value],
) -> Result<Vec<(Value, Value)>, Refusal> {
    let mut found = Vec::new();
    let open = matches!(text(subscription, "status"), "active" | "trialing" | "past_due" | "unpaid");
    if !asked.is_empty() && !open {
        let message = "The items of a subscription that is not active cannot be changed.";
        return Err(Refusal::conflict(None, "items", message));
    }
    for (n, one) in asked.iter().enumerate() {
        let at = format!("items[{n}]");
        let price = match one["price"].as_str() {
            Some(price) => Some(recurring_price(world, price, &at)?),
            None => None,
        };
        let first = &subscription["items"]["data"][0]["price"];
        if let Some(price) = &price {
            fits(first, price, &at)?;
        }
        let Some(id) = one["id"].as_str() else {
            let Some(price) = price else { return Err(Refusal::missing(&format!("{at}[price]"))) };
            let what = (&price, one["quantity"].as_i64());
            let new = item(world, text(subscription, "id"), what, period(subscription));
            found.push((Value::Null, new));
            continue;
        };
        let there = listed(subscription, "items").iter().find(|item| item["id"] == id).ok_or_else(|| {
            Refusal::conflict(
                Some("resource_missing"),
                &format!("{at}[id]"),
                format!("No such subscription_item: '{id}'"),
            )
        })?;
        if one["deleted"] == true {
            found.push((there.clone(), Value::Null));
            continue;
        }
        let mut new = there.clone();
        if let Some(price) = price {
            if is_metered(&price) != is_metered(&there["price"]) {
                let message =
                    "An item cannot go from licensed to metered, or back: take it away and add another.";
                return Err(Refusal::conflict(None, &format!("{at}[price]"), message));
            }
            new["plan"] = plan(&price);
            new["price"] = price;
        }
        match one["quantity"].as_i64() {
            Some(quantity) if quantity < 0 || is_metered(&new["price"]) => {
                let message = "You cannot set this quantity.";
                return Err(Refusal::conflict(None, &format!("{at}[quantity]"), message));
            }
            Some(quantity) => new["quantity"] = json!(quantity),
            None => {}
        }
        if new["quantity"] != there["quantity"] || new["price"]["id"] != there["price"]["id"] {
            found.push((there.clone(), new));
        }
    }
    Ok(found)
}

/// What the changes bring for the next invoice.
pub fn waiting<'a>(
    world: &World,
    subscription: &Value,
    changes: &'a [(Value, Value)],
    behavior: Option<&str>,
) -> Vec<Waiting<'a>> {
    if subscription["status"] == "trialing" {
        return Vec::new();
    }
    let all =
        changes.iter().flat_map(|(old, new)| prorate::change(world, subscription, (old, new), world.now()));
    all.filter(|one| behavior != Some("none") || !one.is_proration).collect()
}

/// Puts the changed items in their places.
pub fn lay_items(
    subscription: &mut Value,
    changes: &[(Value, Value)],
    asked: &[Value],
) -> Result<(), Refusal> {
    let Some(items) = subscription["items"]["data"].as_array_mut() else { return Ok(()) };
    for (old, new) in changes {
        if new.is_null() {
            items.retain(|item| item["id"] != old["id"]);
        } else if let Some(place) = items.iter_mut().find(|item| item["id"] == old["id"]) {
            place.clone_from(new);
        } else {
            items.push(new.clone());
        }
    }
    for one in asked.iter().filter(|one| one["metadata"].is_object()) {
        let place = items.iter_mut().find(|item| item["id"] == one["id"]);
        if let (Some(place), Some(pairs)) = (place, one["metadata"].as_object()) {
            overlay(place, &[("metadata".to_owned(), Value::Object(pairs.clone()))].into_iter().collect());
        }
    }
    if items.is_empty() {
        let message = "A subscription must have at least one active plan.";
        return Err(Refusal::conflict(None, "items", message));
    }
    Ok(())
}

/// Moves the end of a trial that runs; the periods are counted from it. When it ends, where that was changed.
fn trial(world: &mut World, call: &Call, subscription: &mut Value) -> Result<Option<i64>, Refusal> {
    if !call.params.contains_key("trial_end") {
        return Ok(None);
    }
    if subscription["status"] != "trialing" {
        let message = "The stand-in changes trial_end only while the subscription is in its trial.";
        return Err(Refusal::conflict(None, "trial_end", message));
    }
    let end = times(world, &call.params, &[], "")?.trial_end.unwrap_or_else(|| world.now());
    subscription["trial_end"] = json!(end);
    subscription["billing_cycle_anchor"] = json!(end);
    for item in subscription["items"]["data"].as_array_mut().into_iter().flatten() {
        item["current_period_end"] = json!(end);
    }
    if subscription["cancel_at_period_end"] == true {
        subscription["cancel_at"] = json!(end);
    }
    let id = text(subscription, "id");
    if end > world.now() {
        world.agenda.put(end, Due::PeriodEnds, id);
        if end - TOLD_BEFORE > world.now() {
            world.agenda.put(end - TOLD_BEFORE, Due::TrialEndsSoon, id);
        }
    }
    Ok(Some(end))
}

/// The trial is over: the first period begins, and is paid at once.
fn begin_now(world: &mut World, call: &Call, subscription: &Value) -> Result<(), Refusal> {
    cycle::renew(world, call, subscription, world.now())?;
    let first = world.live(KIND, text(subscription, "id")).map(|one| text(one, "latest_invoice").to_owned());
    let first = first.unwrap_or_default();
    let is_draft = world.live(invoice::KIND, &first).is_some_and(|first| first["status"] == "draft");
    if is_draft && invoice::finalize(world, call, &first)?["status"] == "open" {
        // What a failure comes to stands in the objects.
        let _ = collect::attempt(world, call, &first, None, true);
    }
    Ok(())
}

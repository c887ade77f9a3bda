//! How a subscription goes on and ends: periods one after the other, each with its invoice
//! (docs.stripe.com/billing/subscriptions/overview).

use serde_json::{Value, json};

use super::super::agenda::Due;
use super::super::api::changed;
use super::super::deliveries::tell;
use super::super::look::{listed, text, whole};
use super::super::refusal::Refusal;
use super::super::shelf::Shelf;
use super::super::world::{Call, World};
use super::calendar::Cycle;
use super::invoice::{self, Draft};
use super::start::{KIND, TOLD_BEFORE};
use super::{Debit, change, collect, default_method, is_going_on, is_metered, lines, money, period, prorate};

/// A period's end has come: there is a next one, or the subscription ends.
pub fn period_ends(world: &mut World, id: &str, at: i64) {
    let call = Call::nobodys();
    let Some(subscription) = world.live(KIND, id).cloned() else { return };
    if !is_going_on(&subscription) || period(&subscription).1 != at {
        return;
    }
    let trial_unpaid = subscription["status"] == "trialing"
        && subscription["trial_settings"]["end_behavior"]["missing_payment_method"] == "cancel"
        && default_method(world, text(&subscription, "customer"), Some(&subscription)).is_none();
    let is_over = subscription["cancel_at_period_end"] == true || subscription["cancel_at"] == at;
    if is_over || trial_unpaid {
        // Where the stand-in is full, the last invoice is missing.
        let _ = bill(world, &call, &subscription, at, None);
        end(world, &call, id, if trial_unpaid { "payment_failed" } else { "cancellation_requested" });
    } else {
        let _ = renew(world, &call, &subscription, at);
    }
}

/// The time has come at which a subscription was to end, unless that was taken back: its usage until then is billed, and nothing is
/// given back. STANDIN-CANCEL-1
pub fn ends_at(world: &mut World, id: &str, at: i64) {
    let call = Call::nobodys();
    let Some(subscription) = world.live(KIND, id).cloned() else { return };
    let is_due = subscription["cancel_at"] == at && subscription["cancel_at_period_end"] != true;
    if !is_due || !is_going_on(&subscription) {
        return;
    }
    // Where the stand-in is full, the last invoice is missing.
    let _ = bill(world, &call, &subscription, at, None);
    end(world, &call, id, "cancellation_requested");
}

/// Goes on to the next period.
///
/// # Errors
/// Where there are too many objects.
pub fn renew(world: &mut World, call: &Call, subscription: &Value, at: i64) -> Result<(), Refusal> {
    let id = text(subscription, "id");
    let first = listed(subscription, "items").first().unwrap_or(&Value::Null);
    let anchor = whole(subscription, "billing_cycle_anchor");
    let end = Cycle::new(&first["price"]["recurring"], anchor).next_after(at);
    world.agenda.put(end, Due::PeriodEnds, id);
    let invoice = bill(world, call, subscription, at, Some(end))?;
    change(world, call, (KIND, id), "customer.subscription.updated", |subscription| {
        for item in subscription["items"]["data"].as_array_mut().into_iter().flatten() {
            item["current_period_start"] = json!(at);
            item["current_period_end"] = json!(end);
        }
        if subscription["status"] == "trialing" {
            subscription["status"] = json!("active");
        }
        if let Some(invoice) = &invoice {
            subscription["latest_invoice"] = invoice["id"].clone();
        }
    });
    Ok(())
}

/// The invoice at the end of a period: its usage, the next period in advance, and what waited. STANDIN-INVOICE-4
fn bill(
    world: &mut World,
    call: &Call,
    subscription: &Value,
    at: i64,
    next: Option<i64>,
) -> Result<Option<Value>, Refusal> {
    let lines = due_lines(world, subscription, at, next, None);
    if lines.is_empty() {
        return Ok(None);
    }
    for item in listed(subscription, "items").iter().filter(|item| !is_metered(&item["price"])) {
        if let Some(end) = next {
            let amount = money::total(whole(item, "quantity"), text(&item["price"], "unit_amount_decimal"));
            world.ledger.debits.insert(text(item, "id").to_owned(), Debit { amount, period: (at, end) });
        }
    }
    let draft = Draft {
        customer: text(subscription, "customer"),
        subscription,
        reason: "subscription_cycle",
        lines,
        period: (period(subscription).0, at),
        taxed: subscription["automatic_tax"]["enabled"] == true,
        auto_advance: subscription["status"] != "unpaid",
        metadata: json!({}),
    };
    let invoice = invoice::draft(world, call, draft)?;
    prorate::invoiced(world, &invoice);
    Ok(Some(invoice))
}

/// The lines of that invoice. Usage in a trial is not billed. STANDIN-TRIAL-1
pub fn due_lines(
    world: &mut World,
    subscription: &Value,
    at: i64,
    next: Option<i64>,
    seen: Option<crate::clock::Timestamp>,
) -> Vec<Value> {
    let mut found = prorate::waiting(world, text(subscription, "id"));
    let span = period(subscription);
    for item in listed(subscription, "items") {
        if is_metered(&item["price"]) {
            let unbilled = lines::unbilled(&world.ledger, item, (span.0, at));
            if subscription["status"] != "trialing" && unbilled.0 < unbilled.1 {
                found.push(lines::metered(world, subscription, item, unbilled, seen));
            }
        } else if let Some(end) = next {
            found.push(lines::licensed(world, subscription, item, (at, end), None));
        }
    }
    found
}

/// A trial ends soon.
pub fn trial_ends_soon(world: &mut World, id: &str, at: i64) {
    let Some(subscription) = world.live(KIND, id).cloned() else { return };
    if subscription["status"] == "trialing" && whole(&subscription, "trial_end") - TOLD_BEFORE == at {
        tell(world, &Call::nobodys(), "customer.subscription.trial_will_end", &subscription, None);
    }
}

/// A subscription whose first invoice was not paid in time never was. STANDIN-SUB-2
pub fn gives_up(world: &mut World, id: &str) {
    let call = Call::nobodys();
    let Some(subscription) = world.live(KIND, id).cloned() else { return };
    if subscription["status"] != "incomplete" {
        return;
    }
    let now = world.now();
    change(world, &call, (KIND, id), "customer.subscription.updated", |subscription| {
        subscription["status"] = json!("incomplete_expired");
        subscription["ended_at"] = json!(now);
    });
    // It is open, or somebody has made it void.
    let _ = invoice::void(world, &call, text(&subscription, "latest_invoice"));
}

/// Ends a subscription now. What is open stays owed, but nobody collects it any more. STANDIN-SUB-3
pub fn end(world: &mut World, call: &Call, id: &str, reason: &str) {
    let Some(before) = world.live(KIND, id).cloned() else { return };
    let now = world.now();
    let mut after = before.clone();
    after["status"] = json!("canceled");
    after["ended_at"] = json!(now);
    if after["canceled_at"].is_null() {
        after["canceled_at"] = json!(now);
    }
    after["cancellation_details"]["reason"] = json!(reason);
    world.replace(KIND, &after);
    tell(world, call, "customer.subscription.deleted", &after, None);
    listed(&after, "items").iter().for_each(|item| world.ledger.forget(text(item, "id")));
    let open: Vec<Value> = world
        .shelf(invoice::KIND)
        .into_iter()
        .flat_map(Shelf::newest_first)
        .filter(|one| one["parent"]["subscription_details"]["subscription"] == *id && one["status"] == "open")
        .cloned()
        .collect();
    for before in open {
        let mut after = before.clone();
        after["auto_advance"] = json!(false);
        after["next_payment_attempt"] = Value::Null;
        world.replace(invoice::KIND, &after);
        changed(world, call, "invoice.updated", &before, &after);
    }
}

/// Ends all subscriptions of a customer that goes.
pub fn end_all(world: &mut World, call: &Call, customer: &str) {
    let subscriptions: Vec<String> = world
        .shelf(KIND)
        .into_iter()
        .flat_map(Shelf::newest_first)
        .filter(|one| one["customer"] == customer && (is_going_on(one) || one["status"] == "incomplete"))
        .map(|one| text(one, "id").to_owned())
        .collect();
    subscriptions.iter().for_each(|id| end(world, call, id, "cancellation_requested"));
}

/// A last invoice for usage that was not billed yet, and for what waits.
///
/// # Errors
/// Where there are too many objects.
pub fn last_bill(world: &mut World, call: &Call, subscription: &Value) -> Result<(), Refusal> {
    let now = world.now();
    if let Some(invoice) = bill(world, call, subscription, now, None)? {
        change(
            world,
            call,
            (KIND, text(subscription, "id")),
            "customer.subscription.updated",
            |subscription| {
                subscription["latest_invoice"] = invoice["id"].clone();
            },
        );
    }
    Ok(())
}

/// Bills what waits at once, and tries to get it paid.
///
/// # Errors
/// Where there are too many objects.
pub fn bill_now(world: &mut World, call: &Call, subscription: &Value) -> Result<(), Refusal> {
    let (id, now) = (text(subscription, "id"), world.now());
    let lines = prorate::waiting(world, id);
    if lines.is_empty() {
        return Ok(());
    }
    let draft = Draft {
        customer: text(subscription, "customer"),
        subscription,
        reason: "subscription_update",
        lines,
        period: (now, now),
        taxed: subscription["automatic_tax"]["enabled"] == true,
        auto_advance: true,
        metadata: json!({}),
    };
    let invoice = invoice::draft(world, call, draft)?;
    prorate::invoiced(world, &invoice);
    let invoice = text(&invoice, "id").to_owned();
    change(world, call, (KIND, id), "customer.subscription.updated", |subscription| {
        subscription["latest_invoice"] = json!(invoice);
    });
    if invoice::finalize(world, call, &invoice)?["status"] == "open" {
        let _ = collect::attempt(world, call, &invoice, None, true);
    }
    Ok(())
}

//! Getting paid: attempts, retries, and what a payment or its failure does to the subscription
//! (docs.stripe.com/billing/revenue-recovery/smart-retries, docs.stripe.com/billing/subscriptions/overview).

use http::StatusCode;
use serde_json::{Value, json};

use super::super::agenda::Due;
use super::super::api::Done;
use super::super::cards::Decline;
use super::super::look::{listed, text, whole};
use super::super::refusal::Refusal;
use super::super::settings::AfterRetries;
use super::super::shelf::Shelf;
use super::super::world::{Call, World};
use super::invoice::{KIND, intent};
use super::{change, charge, cycle, default_method, is_going_on, period};

const DAY: i64 = 24 * 3600;

/// Tries to get an open invoice paid: with this payment method, or the one that is the default. Where that fails and
/// nobody asked for it, it is tried again later. STANDIN-DUNNING-1
///
/// # Errors
/// 402 where the card is declined, 400 where the invoice is not open.
pub fn attempt(world: &mut World, call: &Call, id: &str, method: Option<&str>, automatic: bool) -> Done {
    let invoice = world.need(KIND, id, "invoice", StatusCode::NOT_FOUND)?.clone();
    if invoice["status"] == "paid" {
        return Err(Refusal::conflict(Some("invoice_already_paid"), "invoice", "Invoice is already paid"));
    }
    let Some(intent) =
        intent(&invoice).filter(|_| matches!(text(&invoice, "status"), "open" | "uncollectible"))
    else {
        return Err(Refusal::conflict(
            Some("invoice_not_open"),
            "invoice",
            "Only open invoices can be paid.",
        ));
    };
    let subscription = subscription_of(world, &invoice).cloned();
    let default = default_method(world, text(&invoice, "customer"), subscription.as_ref());
    match charge::charge(world, call, intent, method.or(default.as_deref()))? {
        Ok(_) => {
            paid(world, call, id);
            Ok(world.live(KIND, id).cloned().unwrap_or_default())
        }
        Err(decline) => {
            failed(world, call, &invoice, automatic);
            Err(refusal(decline))
        }
    }
}

/// A card's refusal, or 400 where there is no card.
pub fn refusal(decline: Decline) -> Refusal {
    if decline == super::super::cards::NO_CARD {
        return Refusal::conflict(Some("resource_missing"), "customer", decline.message);
    }
    decline.into()
}

fn subscription_of<'a>(world: &'a World, invoice: &Value) -> Option<&'a Value> {
    world.live("subscription", text(&invoice["parent"]["subscription_details"], "subscription"))
}

/// An invoice is paid: by a charge, by the balance, or because nothing was due.
pub fn paid(world: &mut World, call: &Call, id: &str) {
    let now = world.now();
    let payments: Vec<Value> = world
        .live(KIND, id)
        .map(|invoice| listed(invoice, "payments").to_vec())
        .into_iter()
        .flatten()
        .map(|mut payment| {
            payment["status"] = json!("paid");
            payment["amount_paid"] = payment["amount_requested"].clone();
            payment["status_transitions"]["paid_at"] = json!(now);
            payment
        })
        .collect();
    payments.iter().for_each(|payment| world.replace("invoice_payment", payment));
    let after = change(world, call, (KIND, id), "invoice.paid", |invoice| {
        let remaining = whole(invoice, "amount_remaining");
        invoice["status"] = json!("paid");
        invoice["attempted"] = json!(true);
        if remaining > 0 {
            invoice["attempt_count"] = json!(whole(invoice, "attempt_count") + 1);
        }
        invoice["amount_paid"] = json!(whole(invoice, "amount_paid") + remaining);
        invoice["amount_remaining"] = json!(0);
        invoice["next_payment_attempt"] = Value::Null;
        invoice["status_transitions"]["paid_at"] = json!(now);
        invoice["payments"]["data"] = json!(payments);
    });
    super::super::deliveries::tell(world, call, "invoice.payment_succeeded", &after, None);
    follow(world, call, &after);
}

/// An attempt failed: the subscription is past due, and there is a next attempt or there is none.
fn failed(world: &mut World, call: &Call, invoice: &Value, automatic: bool) {
    let (id, now) = (text(invoice, "id"), world.now());
    let first = whole(&invoice["status_transitions"], "finalized_at");
    let subscription = subscription_of(world, invoice).cloned().unwrap_or_default();
    // What never came to be is not tried again. STANDIN-SUB-2
    let retried = invoice["auto_advance"] == true && subscription["status"] != "incomplete";
    let days = world.settings.retry_days.iter().map(|days| first + i64::from(*days) * DAY);
    let next = days.filter(|_| retried).find(|at| *at > now);
    change(world, call, (KIND, id), "invoice.payment_failed", |invoice| {
        invoice["attempted"] = json!(true);
        invoice["attempt_count"] = json!(whole(invoice, "attempt_count") + 1);
        invoice["next_payment_attempt"] = json!(next);
    });
    if let Some(at) = next {
        world.agenda.put(at, Due::Retry, id);
    }
    let of = ("subscription", text(&subscription, "id"));
    if matches!(text(&subscription, "status"), "active" | "trialing") {
        change(world, call, of, "customer.subscription.updated", |subscription| {
            subscription["status"] = json!("past_due");
        });
    }
    let last = automatic && next.is_none() && retried;
    match world.settings.after_retries {
        _ if !last || !is_going_on(&subscription) => {}
        AfterRetries::Cancel => cycle::end(world, call, of.1, "payment_failed"),
        AfterRetries::Unpaid => {
            change(world, call, of, "customer.subscription.updated", |subscription| {
                subscription["status"] = json!("unpaid");
            });
        }
        AfterRetries::PastDue => {}
    }
}

/// A retry's time has come.
pub fn retries(world: &mut World, id: &str, at: i64) {
    let due = world.live(KIND, id).is_some_and(|invoice| {
        invoice["status"] == "open"
            && invoice["auto_advance"] == true
            && whole(invoice, "next_payment_attempt") == at
    });
    if due {
        // That it failed again stands in the invoice.
        let _ = attempt(world, &Call::nobodys(), id, None, true);
    }
}

/// A subscription is what its latest final invoice makes of it: paid, it is active again. STANDIN-DUNNING-2
pub fn follow(world: &mut World, call: &Call, invoice: &Value) {
    let Some(subscription) = subscription_of(world, invoice) else { return };
    let id = text(subscription, "id").to_owned();
    let latest = world.shelf(KIND).into_iter().flat_map(Shelf::newest_first).find(|one| {
        one["parent"]["subscription_details"]["subscription"] == *id
            && matches!(text(one, "status"), "open" | "paid" | "uncollectible")
    });
    let is_paid = latest.is_some_and(|latest| latest["status"] == "paid");
    if is_paid && matches!(text(subscription, "status"), "past_due" | "unpaid" | "incomplete") {
        let after =
            change(world, call, ("subscription", &id), "customer.subscription.updated", |subscription| {
                subscription["status"] = json!("active");
            });
        // A period that ended while it was incomplete ends after all.
        let end = period(&after).1;
        if end <= world.now() {
            world.agenda.put(end, Due::PeriodEnds, &id);
        }
    }
}

/// A payment intent is no longer wanted.
pub fn call_off(world: &mut World, call: &Call, intent: &str) {
    let now = world.now();
    if world.live("payment_intent", intent).is_some_and(|intent| intent["status"] != "succeeded") {
        change(world, call, ("payment_intent", intent), "payment_intent.canceled", |intent| {
            intent["status"] = json!("canceled");
            intent["canceled_at"] = json!(now);
            intent["cancellation_reason"] = json!("void_invoice");
        });
    }
}

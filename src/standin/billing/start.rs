//! How a subscription begins: in a trial, or with a first invoice that is paid at once
//! (docs.stripe.com/billing/subscriptions/overview).

use serde_json::{Value, json};

use super::super::agenda::Due;
use super::super::api::Done;
use super::super::cards::{Card, NO_CARD};
use super::super::deliveries::tell;
use super::super::look::{both, listed, text, whole};
use super::super::refusal::Refusal;
use super::super::world::{Call, World};
use super::calendar::Cycle;
use super::invoice::{self, Draft};
use super::{Debit, change, collect, default_method, is_metered, lines, list_of, period, prorate};

pub const KIND: &str = "subscription";
const DAY: i64 = 24 * 3600;
/// Seconds before a trial's end at which it is told of.
pub const TOLD_BEFORE: i64 = 3 * DAY;
/// Seconds for which a first invoice can be paid. STANDIN-SUB-2
const PAYABLE_FOR: i64 = 23 * 3600;

/// What comes of a first payment that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpaid {
    /// The subscription is `incomplete`.
    Incomplete,
    /// Nobody tries: the subscription is `incomplete` until somebody pays.
    Untried,
    /// There is no subscription.
    Refused,
}

/// What a subscription begins with.
pub struct Start {
    /// Who pays.
    pub customer: String,
    /// Prices, as whole objects, and how many; `None` for a metered one.
    pub items: Vec<(Value, Option<i64>, Value)>,
    /// When the first full period begins, in seconds, where that is not now.
    pub anchor: Option<i64>,
    /// When the trial ends, in seconds.
    pub trial_end: Option<i64>,
    /// The time before the first full period is billed.
    pub prorates: bool,
    /// The payment method of this subscription alone.
    pub method: Option<String>,
    /// What comes of a first payment that fails.
    pub unpaid: Unpaid,
    /// Tax is worked out.
    pub taxed: bool,
    /// The subscription ends when its trial ends, where there is nothing to pay with.
    pub ends_unpaid_trial: bool,
    /// Further fields of the object: `metadata`, `description`, `cancel_at_period_end`.
    pub rest: Value,
}

/// Begins a subscription.
///
/// # Errors
/// 402 or 400 where its first payment fails and that is not accepted; where there are too many objects.
pub fn start(world: &mut World, call: &Call, start: &Start) -> Done {
    if start.unpaid != Unpaid::Untried && is_due(world, start) {
        payable(world, start)?;
    }
    let subscription = object(world, start);
    let subscription = world.create(KIND, "sub", subscription)?;
    let id = text(&subscription, "id").to_owned();
    world.agenda.put(period(&subscription).1, Due::PeriodEnds, &id);
    if let Some(end) = start.trial_end.filter(|end| end - TOLD_BEFORE > world.now()) {
        world.agenda.put(end - TOLD_BEFORE, Due::TrialEndsSoon, &id);
    }
    let lines = first_lines(world, &subscription, start);
    if lines.is_empty() {
        tell(world, call, "customer.subscription.created", &subscription, None);
        return Ok(subscription);
    }
    let now = world.now();
    let mut owed = subscription.clone();
    if start.trial_end.is_none() {
        owed["status"] = json!("incomplete");
    }
    world.replace(KIND, &owed);
    tell(world, call, "customer.subscription.created", &owed, None);
    let draft = Draft {
        customer: &start.customer,
        subscription: &subscription,
        reason: "subscription_create",
        lines,
        period: (now, now),
        taxed: start.taxed,
        auto_advance: true,
        metadata: json!({}),
    };
    let first = invoice::draft(world, call, draft)?;
    let first_id = text(&first, "id").to_owned();
    change(world, call, (KIND, &id), "customer.subscription.updated", |subscription| {
        subscription["latest_invoice"] = json!(first_id);
    });
    let first = invoice::finalize(world, call, &first_id)?;
    if first["status"] != "paid" {
        if start.unpaid != Unpaid::Untried {
            // What the failure comes to stands in the objects.
            let _ = collect::attempt(world, call, &first_id, None, true);
        }
        world.agenda.put(now + PAYABLE_FOR, Due::Incomplete, &id);
    }
    Ok(world.live(KIND, &id).cloned().unwrap_or(subscription))
}

/// Whether there is something to pay at once.
fn is_due(world: &World, start: &Start) -> bool {
    let costs = |price: &Value| !is_metered(price) && text(price, "unit_amount_decimal") != "0";
    !is_free(world, start)
        && start.trial_end.is_none()
        && start.items.iter().any(|(price, _, _)| costs(price))
}

/// Whether the time up to the first full period is given away.
fn is_free(world: &World, start: &Start) -> bool {
    !start.prorates && start.anchor.is_some_and(|anchor| anchor > world.now())
}

/// Without a card there is no subscription, and with one that is declined none where that was asked for.
fn payable(world: &World, start: &Start) -> Result<(), Refusal> {
    let method = start.method.clone().or_else(|| default_method(world, &start.customer, None));
    let method = method.and_then(|method| world.live("payment_method", &method));
    let Some(card) = method.and_then(Card::of) else { return Err(collect::refusal(NO_CARD)) };
    let decline = card.decline().filter(|_| start.unpaid == Unpaid::Refused);
    decline.map_or(Ok(()), |decline| Err(decline.into()))
}

fn object(world: &mut World, start: &Start) -> Value {
    let (now, id) = (world.now(), world.ids.next("sub"));
    let anchor = start.trial_end.or(start.anchor).unwrap_or(now);
    let end = if anchor > now { anchor } else { cycle(start, anchor).next_after(now) };
    // An anchor that went by while Checkout was open begins a whole period.
    let begin = now.min(anchor);
    let items: Vec<_> = start
        .items
        .iter()
        .map(|(price, quantity, metadata)| {
            let mut item = item(world, &id, (price, *quantity), (begin, end));
            item["metadata"] = metadata.clone();
            item
        })
        .collect();
    let missing = if start.ends_unpaid_trial { "cancel" } else { "create_invoice" };
    let settings = json!({
        "pending_invoice_item_interval": null, "pending_setup_intent": null, "pending_update": null, "schedule": null,
        "start_date": now, "status": if start.trial_end.is_some() { "trialing" } else { "active" },
        "test_clock": null, "transfer_data": null, "trial_end": start.trial_end,
        "trial_settings": { "end_behavior": { "missing_payment_method": missing } },
        "trial_start": start.trial_end.map(|_| now),
    });
    let mut subscription = json!({
        "id": id, "application": null, "application_fee_percent": null,
        "automatic_tax": { "disabled_reason": null, "enabled": start.taxed, "liability": null },
        "billing_cycle_anchor": anchor, "billing_cycle_anchor_config": null,
        "billing_mode": { "flexible": { "proration_discounts": "included" }, "type": "flexible", "updated_at": null },
        "billing_schedules": [], "billing_thresholds": null, "cancel_at": null, "cancel_at_period_end": false,
        "canceled_at": null, "cancellation_details": { "comment": null, "feedback": null, "reason": null },
        "collection_method": "charge_automatically", "currency": items[0]["price"]["currency"],
        "customer": start.customer, "customer_account": null, "days_until_due": null,
        "default_payment_method": start.method, "default_source": null, "default_tax_rates": [],
        "description": null, "discounts": [], "ended_at": null,
        "invoice_settings": { "account_tax_ids": null, "issuer": { "type": "self" } },
        "items": list_of(&items, &format!("/v1/subscription_items?subscription={id}")), "latest_invoice": null,
        "metadata": {}, "next_pending_invoice_item_invoice": null, "on_behalf_of": null, "pause_collection": null,
        "payment_settings": {
            "payment_method_options": null, "payment_method_types": null, "save_default_payment_method": "off",
        },
    });
    subscription = both(subscription, settings);
    if let Some(rest) = start.rest.as_object() {
        super::super::world::overlay(&mut subscription, rest);
    }
    if subscription["cancel_at_period_end"] == true {
        subscription["cancel_at"] = json!(end);
        subscription["canceled_at"] = json!(now);
    }
    subscription
}

fn cycle(start: &Start, anchor: i64) -> Cycle {
    Cycle::new(start.items.first().map_or(&Value::Null, |(price, _, _)| &price["recurring"]), anchor)
}

/// An item of a subscription.
pub fn item(world: &mut World, subscription: &str, what: (&Value, Option<i64>), period: (i64, i64)) -> Value {
    let (price, quantity) = what;
    let mut item = json!({
        "id": world.ids.next("si"), "object": "subscription_item", "billing_thresholds": null, "created": world.now(),
        "current_period_end": period.1, "current_period_start": period.0, "discounts": [], "metadata": {},
        "plan": plan(price), "price": price, "subscription": subscription, "tax_rates": [],
    });
    if !is_metered(price) {
        item["quantity"] = json!(quantity.unwrap_or(1));
    }
    item
}

/// A price as the older plan, which items still tell.
pub fn plan(price: &Value) -> Value {
    let recurring = &price["recurring"];
    json!({
        "id": price["id"], "object": "plan", "active": price["active"], "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"], "billing_scheme": price["billing_scheme"],
        "created": price["created"], "currency": price["currency"], "interval": recurring["interval"],
        "interval_count": recurring["interval_count"], "livemode": false, "metadata": price["metadata"],
        "meter": recurring["meter"], "nickname": price["nickname"], "product": price["product"],
        "tiers_mode": null, "transform_usage": null, "trial_period_days": null, "usage_type": recurring["usage_type"],
    })
}

/// What the first invoice bills: nothing in a trial but for the record, the part up to the first full period, or a whole
/// period. Metered items have no line on it, and without lines there is no invoice. STANDIN-SUB-1
fn first_lines(world: &mut World, subscription: &Value, start: &Start) -> Vec<Value> {
    let span = period(subscription);
    let licensed: Vec<Value> =
        listed(subscription, "items").iter().filter(|item| !is_metered(&item["price"])).cloned().collect();
    let mut found = Vec::new();
    for item in licensed {
        let amount = if start.trial_end.is_some() {
            0
        } else if is_free(world, start) {
            continue;
        } else {
            prorate::part_of_period(&item, whole(subscription, "billing_cycle_anchor"), span)
        };
        if start.trial_end.is_none() {
            let debit = Debit { amount, period: span };
            world.ledger.debits.insert(text(&item, "id").to_owned(), debit);
        }
        found.push(lines::licensed(world, subscription, &item, span, Some(amount)));
    }
    found
}

//! Subscriptions: how they are asked for, looked at and ended (docs.stripe.com/api/subscriptions). Changes are in
//! `subscription_changes`.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::billing::calendar::Cycle;
use super::super::billing::start::{KIND, Start, Unpaid, start};
use super::super::billing::{cycle, is_metered, prorate};
use super::super::look::{listed, text, whole};
use super::super::refusal::Refusal;
use super::super::schema::{Field, Kind, METADATA, PAGE, TEXT, clear, opt, req};
use super::super::shelf::{in_range, page};
use super::super::world::{Call, World};
use super::subscription_changes::change;
use super::{Done, Route, route};

const ALL: &str = "/v1/subscriptions";
const ONE: &str = "/v1/subscriptions/{subscription}";
/// Items of one subscription (docs.stripe.com/billing/subscriptions/quantities).
const MOST_ITEMS: usize = 20;
const DAY: i64 = 24 * 3600;
/// Seconds of a trial at most: 730 days.
const LONGEST_TRIAL: i64 = 730 * DAY;

/// Operations on subscriptions.
pub const ROUTES: &[Route] = &[
    route("POST", ALL, KIND, &[FIELDS, NEW], make),
    route("GET", ALL, KIND, &[PAGE, FILTERS], list),
    route("GET", ONE, KIND, &[], |world, call| world.named(KIND, call).cloned()),
    route("POST", ONE, KIND, &[FIELDS, super::subscription_changes::FIELDS], change),
    route("DELETE", ONE, KIND, &[CANCEL], cancel),
    route("GET", "/v1/subscription_items", KIND, &[PAGE, &[req("subscription", TEXT)]], items_of),
];

const FIELDS: &[Field] = &[
    opt("automatic_tax", Kind::Object(&[req("enabled", Kind::Flag)])),
    opt("cancel_at_period_end", Kind::Flag),
    opt("collection_method", Kind::OneOf(&["charge_automatically"])),
    opt("default_payment_method", TEXT),
    clear("description", Kind::Text(500)),
    METADATA,
    opt("off_session", Kind::Flag),
    opt("payment_behavior", Kind::OneOf(&["allow_incomplete", "default_incomplete", "error_if_incomplete"])),
    opt("proration_behavior", PRORATION),
    opt("trial_end", TEXT),
    opt("trial_settings", TRIAL_SETTINGS),
];
/// How parts of a period are billed.
pub const PRORATION: Kind = Kind::OneOf(&["always_invoice", "create_prorations", "none"]);
/// What comes after a trial without a payment method.
pub const TRIAL_SETTINGS: Kind = Kind::Object(&[req(
    "end_behavior",
    Kind::Object(&[req("missing_payment_method", Kind::OneOf(&["cancel", "create_invoice"]))]),
)]);
const NEW: &[Field] = &[
    opt("billing_cycle_anchor", Kind::Whole),
    opt("billing_mode", Kind::Object(&[req("type", Kind::OneOf(&["flexible"]))])),
    opt("currency", Kind::Text(3)),
    req("customer", TEXT),
    req("items", Kind::Many(&Kind::Object(ITEM), MOST_ITEMS)),
    opt("trial_period_days", Kind::Whole),
];
const ITEM: &[Field] = &[METADATA, req("price", TEXT), opt("quantity", Kind::Whole)];
const FILTERS: &[Field] = &[
    opt("collection_method", Kind::OneOf(&["charge_automatically", "send_invoice"])),
    opt("created", Kind::Range),
    opt("customer", TEXT),
    opt("price", TEXT),
    opt(
        "status",
        Kind::OneOf(&[
            "active",
            "all",
            "canceled",
            "ended",
            "incomplete",
            "incomplete_expired",
            "past_due",
            "paused",
            "trialing",
            "unpaid",
        ]),
    ),
];
const CANCEL: &[Field] = &[
    opt("cancellation_details", Kind::Object(DETAILS)),
    opt("invoice_now", Kind::Flag),
    opt("prorate", Kind::Flag),
];
/// Why somebody goes.
pub const DETAILS: &[Field] = &[clear("comment", TEXT), clear("feedback", Kind::OneOf(REASONS))];
/// Reasons that Stripe knows.
pub const REASONS: &[&str] = &[
    "customer_service",
    "low_quality",
    "missing_features",
    "other",
    "switched_service",
    "too_complex",
    "too_expensive",
    "unused",
];

/// Whether a parameter is there and true.
pub fn flag(params: &Map<String, Value>, name: &str) -> bool {
    params.get(name) == Some(&json!(true))
}

fn make(world: &mut World, call: &Call) -> Done {
    let customer = call.text("customer").unwrap_or_default().to_owned();
    world.need("customer", &customer, "customer", StatusCode::BAD_REQUEST)?;
    let asked = call.params.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let items = items(world, &asked, "items")?;
    if let Some(method) = call.text("default_payment_method") {
        own_method(world, method, &customer)?;
    }
    let times = times(world, &call.params, &items, "")?;
    let mut rest = call.params.clone();
    rest.retain(|name, _| matches!(name.as_str(), "metadata" | "description" | "cancel_at_period_end"));
    let begin = Start {
        customer,
        items,
        anchor: times.anchor,
        trial_end: times.trial_end,
        prorates: call.text("proration_behavior") != Some("none"),
        method: call.text("default_payment_method").map(str::to_owned),
        unpaid: match call.text("payment_behavior") {
            Some("error_if_incomplete") => Unpaid::Refused,
            Some("default_incomplete") => Unpaid::Untried,
            _ => Unpaid::Incomplete,
        },
        taxed: call.params.get("automatic_tax").is_some_and(|tax| tax["enabled"] == true),
        ends_unpaid_trial: ends_unpaid_trial(&call.params),
        rest: Value::Object(rest),
    };
    start(world, call, &begin)
}

/// Whether a subscription ends with its trial where there is nothing to pay with.
pub fn ends_unpaid_trial(params: &Map<String, Value>) -> bool {
    params
        .get("trial_settings")
        .is_some_and(|settings| settings["end_behavior"]["missing_payment_method"] == "cancel")
}

/// When the first full period begins, and when a trial ends.
pub struct Times {
    /// `billing_cycle_anchor`, where it was said.
    pub anchor: Option<i64>,
    /// In seconds.
    pub trial_end: Option<i64>,
}

/// Reads `billing_cycle_anchor`, `trial_end` and `trial_period_days`. Not both a trial and an anchor: that is more than the
/// stand-in knows.
///
/// # Errors
/// 400 where a time has gone by, or is further off than it may be.
pub fn times(
    world: &World,
    params: &Map<String, Value>,
    items: &[Item],
    prefix: &str,
) -> Result<Times, Refusal> {
    let now = world.now();
    let at = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}[{name}]") };
    let anchor = params.get("billing_cycle_anchor").and_then(Value::as_i64);
    let days = params.get("trial_period_days").and_then(Value::as_i64);
    let trial_end = match params.get("trial_end") {
        Some(Value::String(text)) if text == "now" => None,
        Some(Value::Number(time)) => time.as_i64(),
        Some(Value::String(text)) => Some(text.parse().map_err(|_| {
            Refusal::invalid(
                Some("parameter_invalid_integer"),
                at("trial_end"),
                format!("Invalid integer: {text}"),
            )
        })?),
        _ => days.map(|days| now.saturating_add(days.saturating_mul(DAY))),
    };
    if let Some(end) = trial_end {
        if end <= now || end - now > LONGEST_TRIAL {
            let message = "The trial must end in the future, and within 730 days.";
            return Err(Refusal::conflict(None, &at("trial_end"), message));
        }
        if anchor.is_some() {
            let message = "The stand-in knows trial_end and billing_cycle_anchor only one at a time.";
            return Err(Refusal::conflict(None, &at("billing_cycle_anchor"), message));
        }
    }
    if let Some(anchor) = anchor {
        let recurring = items.first().map_or(&Value::Null, |(price, _, _)| &price["recurring"]);
        if anchor <= now || anchor > Cycle::new(recurring, now).next_after(now) {
            let message =
                "billing_cycle_anchor must be in the future, and not after the next natural billing date.";
            return Err(Refusal::conflict(None, &at("billing_cycle_anchor"), message));
        }
    }
    Ok(Times { anchor, trial_end })
}

/// A payment method that is the customer's.
///
/// # Errors
/// 400 where it is not.
pub fn own_method(world: &World, method: &str, customer: &str) -> Result<(), Refusal> {
    let at = "default_payment_method";
    if world.need("payment_method", method, at, StatusCode::BAD_REQUEST)?["customer"] == customer {
        return Ok(());
    }
    let message = format!("The customer does not have a payment method with the ID {method}.");
    Err(Refusal::conflict(Some("resource_missing"), at, message))
}

/// A price, how many of it, and metadata.
pub type Item = (Value, Option<i64>, Value);

/// The items that are asked for: prices that recur, in one currency and interval, each once.
///
/// # Errors
/// 400 where one does not fit.
pub fn items(world: &World, asked: &[Value], at: &str) -> Result<Vec<Item>, Refusal> {
    let mut found: Vec<Item> = Vec::new();
    for (n, one) in asked.iter().enumerate() {
        let at = format!("{at}[{n}]");
        let price = recurring_price(world, text(one, "price"), &at)?;
        if let Some((first, _, _)) = found.first() {
            fits(first, &price, &at)?;
        }
        if found.iter().any(|(other, _, _)| other["id"] == price["id"]) {
            let message = "Each price can be on a subscription once.";
            return Err(Refusal::conflict(None, &format!("{at}[price]"), message));
        }
        let quantity = one["quantity"].as_i64();
        if is_metered(&price) && quantity.is_some() {
            let message = "You cannot set the quantity for metered plans.";
            return Err(Refusal::conflict(None, &format!("{at}[quantity]"), message));
        }
        if quantity.is_some_and(|quantity| quantity < 0) {
            return Err(Refusal::conflict(None, &format!("{at}[quantity]"), "Invalid non-negative integer"));
        }
        let metadata = if one["metadata"].is_object() { one["metadata"].clone() } else { json!({}) };
        found.push((price, quantity, metadata));
    }
    if found.is_empty() {
        return Err(Refusal::missing(at));
    }
    Ok(found)
}

/// A price that can be subscribed to.
///
/// # Errors
/// 400 where there is none, or it is not.
pub fn recurring_price(world: &World, id: &str, at: &str) -> Done {
    let at = format!("{at}[price]");
    let price = world.need("price", id, &at, StatusCode::BAD_REQUEST)?;
    if price["type"] != "recurring" {
        let message = "The price specified is set to `type=one_time` but this field only accepts prices with \
                       `type=recurring`.";
        return Err(Refusal::conflict(None, &at, message));
    }
    if price["active"] != true {
        return Err(Refusal::conflict(None, &at, format!("The price specified is inactive: {id}.")));
    }
    Ok(price.clone())
}

/// Whether two prices can be on one subscription. Stripe takes several intervals, the stand-in does not.
///
/// # Errors
/// 400 where they cannot.
pub fn fits(one: &Value, other: &Value, at: &str) -> Result<(), Refusal> {
    let same = ["interval", "interval_count"]
        .iter()
        .all(|name| one["recurring"][*name] == other["recurring"][*name]);
    if one["currency"] == other["currency"] && same {
        return Ok(());
    }
    let message =
        "All prices on a subscription must have the same currency and, in the stand-in, the same interval.";
    Err(Refusal::conflict(None, &format!("{at}[price]"), message))
}

fn list(world: &mut World, call: &Call) -> Done {
    let wanted = call.text("status");
    let price = call.text("price");
    world.list(KIND, call, |one| {
        let status = text(one, "status");
        let ended = matches!(status, "canceled" | "incomplete_expired");
        let fits = match wanted {
            None => !ended,
            Some("all") => true,
            Some("ended") => ended,
            Some(wanted) => status == wanted,
        };
        let has_price = |price: &str| listed(one, "items").iter().any(|item| item["price"]["id"] == price);
        fits && price.is_none_or(has_price)
            && ["customer", "collection_method"].iter().all(|name| call.wants(name, &one[*name]))
            && in_range(call.params.get("created"), &one["created"])
    })
}

fn items_of(world: &mut World, call: &Call) -> Done {
    let id = call.text("subscription").unwrap_or_default();
    let one = world.need(KIND, id, "subscription", StatusCode::BAD_REQUEST)?;
    page(listed(one, "items").iter(), &call.params, &call.path)
}

/// Ends a subscription at once. Its usage since the last invoice is billed only where `invoice_now` asks for it.
/// STANDIN-SUB-3
fn cancel(world: &mut World, call: &Call) -> Done {
    let before = world.named(KIND, call)?.clone();
    let id = text(&before, "id");
    if matches!(text(&before, "status"), "canceled" | "incomplete_expired") {
        return Err(Refusal::no_such(KIND, id, "subscription", StatusCode::NOT_FOUND));
    }
    let now = world.now();
    if flag(&call.params, "prorate") && before["status"] != "trialing" && whole(&before, "ended_at") == 0 {
        for item in listed(&before, "items").iter().filter(|item| !is_metered(&item["price"])) {
            for waiting in prorate::change(world, &before, (item, &Value::Null), now) {
                waiting.put(world, call, &before)?;
            }
        }
    }
    if flag(&call.params, "invoice_now") {
        cycle::last_bill(world, call, &before)?;
    }
    if let Some(details) = call.params.get("cancellation_details").and_then(Value::as_object) {
        let mut after = world.named(KIND, call)?.clone();
        super::super::world::overlay(&mut after["cancellation_details"], details);
        world.replace(KIND, &after);
    }
    cycle::end(world, call, id, "cancellation_requested");
    world.named(KIND, call).cloned()
}

//! Checkout sessions (docs.stripe.com/api/checkout/sessions). What happens on their pages is in `checkout`.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::agenda::Due;
use super::super::billing::{is_metered, money, prorate, start};
use super::super::checkout::{self, KIND};
use super::super::look::{both, listed, text};
use super::super::refusal::Refusal;
use super::super::schema::{Field, Kind, METADATA, PAGE, TEXT, clear, opt, req};
use super::super::shelf::{in_range, page};
use super::super::world::{Call, World};
use super::subscriptions::{TRIAL_SETTINGS, Times, items, times};
use super::{Done, Route, catalog, route};

const ALL: &str = "/v1/checkout/sessions";
const ONE: &str = "/v1/checkout/sessions/{session}";
const RESOURCE: &str = "checkout_session";
const HOUR: i64 = 3600;

/// Operations on sessions.
pub const ROUTES: &[Route] = &[
    route("POST", ALL, RESOURCE, &[FIELDS, WHAT], make),
    route("GET", ALL, RESOURCE, &[PAGE, FILTERS], list),
    route("GET", ONE, RESOURCE, &[], |world, call| world.named(KIND, call).cloned()),
    route("POST", ONE, RESOURCE, &[&[METADATA]], |world, call| {
        world.update(KIND, call).map(|(_, after)| after)
    }),
    route("POST", "/v1/checkout/sessions/{session}/expire", RESOURCE, &[], expire),
    route("GET", "/v1/checkout/sessions/{session}/line_items", RESOURCE, &[PAGE], line_items),
];

const ENABLED: Kind = Kind::Object(&[req("enabled", Kind::Flag)]);
const AUTO: Kind = Kind::OneOf(&["auto", "never"]);
const FIELDS: &[Field] = &[
    opt("automatic_tax", ENABLED),
    opt("billing_address_collection", Kind::OneOf(&["auto", "required"])),
    opt("cancel_url", TEXT),
    opt("client_reference_id", Kind::Text(200)),
    opt("currency", Kind::Text(3)),
    opt("customer", TEXT),
    opt("customer_email", Kind::Text(800)),
    opt("customer_update", Kind::Object(&[opt("address", AUTO), opt("name", AUTO)])),
    opt("expires_at", Kind::Whole),
    opt("locale", TEXT),
    METADATA,
    req("mode", Kind::OneOf(&["payment", "subscription"])),
    opt("payment_method_collection", Kind::OneOf(&["always"])),
    opt("submit_type", Kind::OneOf(&["auto", "pay", "subscribe"])),
    req("success_url", TEXT),
];
const WHAT: &[Field] = &[
    opt(
        "invoice_creation",
        Kind::Object(&[req("enabled", Kind::Flag), opt("invoice_data", Kind::Object(INVOICE))]),
    ),
    req("line_items", Kind::Many(&Kind::Object(LINE), 20)),
    opt("payment_intent_data", Kind::Object(INTENT)),
    opt("subscription_data", Kind::Object(SUBSCRIPTION)),
];
const INVOICE: &[Field] = &[opt("description", Kind::Text(1500)), opt("footer", TEXT), METADATA];
const LINE: &[Field] =
    &[opt("price", TEXT), opt("price_data", Kind::Object(PRICE_DATA)), opt("quantity", Kind::Whole)];
const PRICE_DATA: &[Field] = &[
    req("currency", Kind::Text(3)),
    opt("product", TEXT),
    opt(
        "product_data",
        Kind::Object(&[req("name", TEXT), opt("description", TEXT), METADATA, opt("tax_code", TEXT)]),
    ),
    opt("tax_behavior", Kind::OneOf(&["exclusive", "inclusive", "unspecified"])),
    opt("unit_amount", Kind::Whole),
    opt("unit_amount_decimal", Kind::Decimal),
];
const INTENT: &[Field] = &[
    opt("description", Kind::Text(1000)),
    METADATA,
    opt("setup_future_usage", Kind::OneOf(&["off_session", "on_session"])),
];
const SUBSCRIPTION: &[Field] = &[
    opt("billing_cycle_anchor", Kind::Whole),
    opt("billing_mode", Kind::Object(&[req("type", Kind::OneOf(&["flexible"]))])),
    clear("description", Kind::Text(500)),
    METADATA,
    opt("proration_behavior", Kind::OneOf(&["create_prorations", "none"])),
    opt("trial_end", Kind::Whole),
    opt("trial_period_days", Kind::Whole),
    opt("trial_settings", TRIAL_SETTINGS),
];
const FILTERS: &[Field] = &[
    opt("created", Kind::Range),
    opt("customer", TEXT),
    opt("payment_intent", TEXT),
    opt("status", Kind::OneOf(&["complete", "expired", "open"])),
    opt("subscription", TEXT),
];

/// Opens a session. STANDIN-CHECKOUT-1
fn make(world: &mut World, call: &Call) -> Done {
    let is_subscription = call.text("mode") == Some("subscription");
    for (name, fits) in [
        ("subscription_data", is_subscription),
        ("payment_intent_data", !is_subscription),
        ("invoice_creation", !is_subscription),
    ] {
        if call.params.contains_key(name) && !fits {
            let message = format!("You can not pass `{name}` in this mode.");
            return Err(Refusal::conflict(None, name, message));
        }
    }
    for name in ["success_url", "cancel_url"] {
        if call
            .text(name)
            .is_some_and(|url| !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)))
        {
            return Err(Refusal::conflict(Some("url_invalid"), name, "Not a valid URL"));
        }
    }
    taxable(world, call)?;
    let now = world.now();
    let expires_at = call.params.get("expires_at").and_then(Value::as_i64).unwrap_or(now + 24 * HOUR);
    if !(now + HOUR / 2..=now + 24 * HOUR).contains(&expires_at) {
        let message = "The `expires_at` timestamp must be at least 30 minutes and at most 24 hours from Checkout \
                       Session creation.";
        return Err(Refusal::conflict(None, "expires_at", message));
    }
    let lines = if is_subscription { subscribed(world, call)? } else { bought(world, call)? };
    let id = format!("cs_test_{}", world.ids.next("a").trim_start_matches("a_"));
    let session = object(world, call, &id, &lines);
    let mut session = session;
    session["expires_at"] = json!(expires_at);
    let session = world.create(KIND, "cs_test", session)?;
    world.agenda.put(expires_at, Due::SessionEnds, &id);
    let mut asked = call.params.clone();
    asked.remove("line_items");
    world.asked.insert(id, asked);
    Ok(session)
}

/// Tax needs to know where the customer is. STANDIN-TAX-1
fn taxable(world: &World, call: &Call) -> Result<(), Refusal> {
    let Some(customer) = call.text("customer") else { return Ok(()) };
    let customer = world.need("customer", customer, "customer", StatusCode::BAD_REQUEST)?;
    let is_taxed = call.params.get("automatic_tax").is_some_and(|tax| tax["enabled"] == true);
    let is_asked = call.params.get("customer_update").is_some_and(|update| update["address"] == "auto");
    if is_taxed && !is_asked && !customer["address"]["country"].is_string() {
        let message = "Automatic tax calculation in Checkout requires a valid address on the Customer. Add a valid \
                       address to the Customer or set either `customer_update[address]` to 'auto'.";
        return Err(Refusal::conflict(Some("customer_tax_location_invalid"), "automatic_tax", message));
    }
    Ok(())
}

fn asked_lines(call: &Call) -> Vec<Value> {
    call.params.get("line_items").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// The lines of a subscription, with what is paid at once: nothing for usage and in a trial, else the part of the period up to the
/// first full one.
fn subscribed(world: &mut World, call: &Call) -> Result<Vec<Value>, Refusal> {
    let asked = asked_lines(call);
    if asked.iter().any(|line| line["price_data"].is_object()) {
        let message = "The stand-in takes no price_data in subscription mode.";
        return Err(Refusal::conflict(None, "line_items[0][price_data]", message));
    }
    let items = items(world, &asked, "line_items")?;
    let data = call.params.get("subscription_data").and_then(Value::as_object).cloned().unwrap_or_default();
    let now = world.now();
    let Times { anchor, trial_end } = times(world, &data, &items, "subscription_data")?;
    if trial_end.is_some_and(|end| end < now + 48 * HOUR) {
        let message = "The `trial_end` date has to be at least 2 days in the future.";
        return Err(Refusal::conflict(None, "subscription_data[trial_end]", message));
    }
    let free =
        trial_end.is_some() || (anchor.is_some() && data.get("proration_behavior") == Some(&json!("none")));
    let mut lines = Vec::new();
    for (n, (price, quantity, _)) in items.iter().enumerate() {
        if !is_metered(price) && quantity.is_none() {
            return Err(Refusal::missing(&format!("line_items[{n}][quantity]")));
        }
        let end = anchor.unwrap_or_else(|| {
            super::super::billing::calendar::Cycle::new(&price["recurring"], now).next_after(now)
        });
        let item = json!({ "price": price, "quantity": quantity });
        let amount = if free || is_metered(price) {
            0
        } else {
            prorate::part_of_period(&item, anchor.unwrap_or(now), (now, end))
        };
        lines.push(line(world, call, price, *quantity, amount));
    }
    Ok(lines)
}

/// The lines of a payment.
fn bought(world: &mut World, call: &Call) -> Result<Vec<Value>, Refusal> {
    let mut lines = Vec::new();
    for (n, one) in asked_lines(call).iter().enumerate() {
        let at = format!("line_items[{n}]");
        let price = match (one["price"].as_str(), one["price_data"].as_object()) {
            (Some(price), None) => {
                world.need("price", price, &format!("{at}[price]"), StatusCode::BAD_REQUEST)?.clone()
            }
            (None, Some(data)) => inline_price(world, call, data)?,
            _ => return Err(Refusal::missing(&format!("{at}[price]"))),
        };
        if price["type"] != "one_time" {
            let message = "You must provide one-time prices in payment mode.";
            return Err(Refusal::conflict(None, &format!("{at}[price]"), message));
        }
        let Some(quantity) = one["quantity"].as_i64().filter(|quantity| *quantity > 0) else {
            return Err(Refusal::missing(&format!("{at}[quantity]")));
        };
        let amount = money::total(quantity, text(&price, "unit_amount_decimal"));
        lines.push(line(world, call, &price, Some(quantity), amount));
    }
    if lines.is_empty() {
        return Err(Refusal::missing("line_items"));
    }
    if checkout::total(&lines, "amount_total") < money::SMALLEST {
        let message = "The Checkout Session's total amount due must add up to at least 50 cents.";
        return Err(Refusal::conflict(Some("amount_too_small"), "line_items", message));
    }
    Ok(lines)
}

/// A price for this session alone: nobody else can use it.
fn inline_price(world: &mut World, call: &Call, data: &Map<String, Value>) -> Done {
    let mut price = catalog::create_price(world, &call.with(data.clone()))?;
    price["active"] = json!(false);
    world.replace("price", &price);
    Ok(price)
}

fn line(world: &mut World, call: &Call, price: &Value, quantity: Option<i64>, amount: i64) -> Value {
    let is_taxed = call.params.get("automatic_tax").is_some_and(|tax| tax["enabled"] == true);
    let tax = if is_taxed { money::share(amount, world.settings.tax_basis_points, 10_000) } else { 0 };
    let name = super::super::billing::lines::name_of(world, price);
    json!({
        "id": world.ids.next("li"), "object": "item", "adjustable_quantity": null, "amount_discount": 0,
        "amount_subtotal": amount, "amount_tax": tax, "amount_total": amount + tax, "currency": price["currency"],
        "description": name, "metadata": {}, "price": price, "quantity": quantity,
    })
}

fn object(world: &World, call: &Call, id: &str, lines: &[Value]) -> Value {
    let given = |name: &str| call.params.get(name).cloned().unwrap_or(Value::Null);
    let is_subscription = call.text("mode") == Some("subscription");
    let (subtotal, total) =
        (checkout::total(lines, "amount_subtotal"), checkout::total(lines, "amount_total"));
    let data = &given("invoice_creation")["invoice_data"];
    let invoice_creation = json!({
        "enabled": given("invoice_creation")["enabled"] == true,
        "invoice_data": {
            "account_tax_ids": null, "custom_fields": null, "description": data["description"],
            "footer": data["footer"], "issuer": null, "metadata": data["metadata"], "rendering_options": null,
        },
    });
    let metadata = given("metadata");
    let payment = json!({
        "metadata": if metadata.is_object() { metadata } else { json!({}) }, "mode": given("mode"),
        "payment_intent": null, "payment_link": null,
        "payment_method_collection": if is_subscription { json!("always") } else { json!("if_required") },
        "payment_method_configuration_details": null, "payment_method_options": {},
        "payment_method_types": ["card"], "payment_status": "unpaid", "permissions": null,
        "phone_number_collection": { "enabled": false }, "recovered_from": null,
        "saved_payment_method_options": null, "setup_intent": null, "shipping_address_collection": null,
        "shipping_cost": null, "shipping_options": [], "status": "open", "submit_type": given("submit_type"),
        "subscription": null, "success_url": given("success_url"),
        "total_details": { "amount_discount": 0, "amount_shipping": 0, "amount_tax": total - subtotal },
        "ui_mode": "hosted_page", "url": format!("{}/_standin/checkout/{id}", world.base_url),
        "wallet_options": null,
    });
    let session = json!({
        "id": id, "adaptive_pricing": { "enabled": false }, "after_expiration": null, "allow_promotion_codes": null,
        "amount_subtotal": subtotal, "amount_total": total,
        "automatic_tax": {
            "enabled": given("automatic_tax")["enabled"] == true, "liability": null, "provider": null, "status": null,
        },
        "billing_address_collection": given("billing_address_collection"), "cancel_url": given("cancel_url"),
        "client_reference_id": given("client_reference_id"), "client_secret": null, "collected_information": null,
        "consent": null, "consent_collection": null, "currency": lines[0]["currency"], "currency_conversion": null,
        "custom_fields": [],
        "custom_text": {
            "after_submit": null, "shipping_address": null, "submit": null, "terms_of_service_acceptance": null,
        },
        "customer": given("customer"), "customer_account": null,
        "customer_creation": if is_subscription { Value::Null } else { json!("if_required") },
        "customer_details": null, "customer_email": given("customer_email"), "discounts": [], "invoice": null,
        "invoice_creation": if is_subscription { Value::Null } else { invoice_creation },
        "line_items": { "object": "list", "data": lines, "has_more": false, "url": format!("{ALL}/{id}/line_items") },
        "locale": given("locale"), "origin_context": null,
    });
    both(session, payment)
}

fn list(world: &mut World, call: &Call) -> Done {
    world.list(KIND, call, |one| {
        ["customer", "payment_intent", "status", "subscription"]
            .iter()
            .all(|name| call.wants(name, &one[*name]))
            && in_range(call.params.get("created"), &one["created"])
    })
}

fn expire(world: &mut World, call: &Call) -> Done {
    if world.named(KIND, call)?["status"] != "open" {
        let message = "Only Checkout Sessions with a status in [\"open\"] can be expired.";
        return Err(Refusal::conflict(None, "session", message));
    }
    Ok(checkout::expire(world, call, call.id().0))
}

fn line_items(world: &mut World, call: &Call) -> Done {
    let session = world.named(KIND, call)?;
    page(listed(session, "line_items").iter(), &call.params, &call.path)
}

/// What a session's subscription begins with.
pub fn start_of(
    world: &World,
    session: &Value,
    customer: &str,
    method: &str,
) -> Result<start::Start, Refusal> {
    let asked = world.asked.get(text(session, "id")).cloned().unwrap_or_default();
    let data = asked.get("subscription_data").and_then(Value::as_object).cloned().unwrap_or_default();
    let items = listed(session, "line_items")
        .iter()
        .map(|line| (line["price"].clone(), line["quantity"].as_i64(), json!({})))
        .collect();
    let days = data.get("trial_period_days").and_then(Value::as_i64);
    let trial_end = data.get("trial_end").and_then(Value::as_i64);
    let mut rest = data.clone();
    rest.retain(|name, _| matches!(name.as_str(), "metadata" | "description"));
    Ok(start::Start {
        customer: customer.to_owned(),
        items,
        anchor: data.get("billing_cycle_anchor").and_then(Value::as_i64),
        trial_end: trial_end.or(days.map(|days| world.now() + days * 24 * HOUR)),
        prorates: data.get("proration_behavior") != Some(&json!("none")),
        method: Some(method.to_owned()),
        unpaid: start::Unpaid::Refused,
        taxed: session["automatic_tax"]["enabled"] == true,
        ends_unpaid_trial: super::subscriptions::ends_unpaid_trial(&data),
        rest: Value::Object(rest),
    })
}

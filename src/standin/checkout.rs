//! What happens on the pages of Checkout: somebody pays, or nobody does (docs.stripe.com/payments/checkout).

use http::StatusCode;
use serde_json::{Value, json};

use super::api::checkout::start_of;
use super::api::payment_methods::{add, attach_to};
use super::api::{self, Done};
use super::billing::invoice::{self, Draft};
use super::billing::lines::{About, Line, line};
use super::billing::{change, charge, collect, start};
use super::cards::{self, Card};
use super::look::{listed, text, whole};
use super::refusal::Refusal;
use super::world::{Call, World};

/// The objects' kind.
pub const KIND: &str = "checkout.session";

/// Lines added up, by one of their amounts.
pub fn total(lines: &[Value], name: &str) -> i64 {
    lines.iter().map(|line| whole(line, name)).sum()
}

/// A session was open for too long.
pub fn ends(world: &mut World, id: &str) {
    if world.live(KIND, id).is_some_and(|session| session["status"] == "open") {
        expire(world, &Call::nobodys(), id);
    }
}

/// Ends an open session.
pub fn expire(world: &mut World, call: &Call, id: &str) -> Value {
    world.asked.remove(id);
    let (call, what) = (call.clone(), (KIND, id));
    change(world, &call, what, "checkout.session.expired", |session| {
        session["status"] = json!("expired");
        session["url"] = Value::Null;
    })
}

/// Pays with a card, by its number or name: then there is a subscription or a payment, and the session is complete.
///
/// # Errors
/// 404 where there is no such session, 400 where it is not open, 402 where the card is declined; then it stays open.
pub fn complete(world: &mut World, id: &str, card: &str) -> Done {
    let call = Call::nobodys();
    let session = world.need(KIND, id, "session", StatusCode::NOT_FOUND)?.clone();
    if session["status"] != "open" {
        let message = format!("The session is {}.", text(&session, "status"));
        return Err(Refusal::conflict(None, "session", message));
    }
    let Some(card) = cards::find(card) else {
        return Err(Refusal::card("incorrect_number", None, "Your card number is incorrect."));
    };
    let customer = customer_of(world, &call, &session)?;
    let mut outcome = if session["mode"] == "subscription" {
        subscribe(world, &call, &session, &customer, card)?
    } else {
        pay(world, &call, &session, &customer, card)?
    };
    let details = world.live("customer", &customer).cloned().unwrap_or_default();
    outcome["customer"] = if customer.is_empty() { Value::Null } else { json!(customer) };
    outcome["customer_details"] = json!({
        "address": details["address"], "business_name": null, "email": details["email"], "individual_name": null,
        "name": details["name"], "phone": details["phone"], "tax_exempt": "none", "tax_ids": [],
    });
    world.asked.remove(id);
    Ok(change(world, &call, (KIND, id), "checkout.session.completed", |session| {
        session["status"] = json!("complete");
        session["url"] = Value::Null;
        if let (Some(session), Some(outcome)) = (session.as_object_mut(), outcome.as_object()) {
            session.extend(outcome.clone());
        }
    }))
}

/// The session's customer, or a new one where it has none.
fn customer_of(world: &mut World, call: &Call, session: &Value) -> Result<String, Refusal> {
    if let Some(customer) = session["customer"].as_str() {
        world.need("customer", customer, "customer", StatusCode::BAD_REQUEST)?;
        return Ok(customer.to_owned());
    }
    if session["mode"] == "payment" && session["invoice_creation"]["enabled"] != true {
        return Ok(String::new());
    }
    let params = json!({ "email": session["customer_email"] });
    let call = call.with(params.as_object().cloned().unwrap_or_default());
    Ok(text(&api::new_customer(world, &call)?, "id").to_owned())
}

/// Where nothing is due at first, the card need only be one that can be kept. STANDIN-CHECKOUT-2
fn subscribe(world: &mut World, call: &Call, session: &Value, customer: &str, card: &Card) -> Done {
    let is_due = whole(session, "amount_total") > 0;
    if let Some(decline) = card.decline().filter(|_| is_due) {
        return Err(decline.into());
    }
    let method = text(&add(world, card)?, "id").to_owned();
    attach_to(world, call, (&method, "payment_method"), customer)?;
    let begin = start_of(world, session, customer, &method)?;
    let begin = start::Start { unpaid: start::Unpaid::Incomplete, ..begin };
    let subscription = start::start(world, call, &begin)?;
    let status = if is_due { "paid" } else { "no_payment_required" };
    Ok(json!({
        "subscription": subscription["id"], "invoice": subscription["latest_invoice"], "payment_status": status,
    }))
}

/// The payment intent comes with the first attempt, and stays for the next where the card is declined.
fn pay(world: &mut World, call: &Call, session: &Value, customer: &str, card: &Card) -> Done {
    let id = text(session, "id");
    let data =
        world.asked.get(id).and_then(|asked| asked.get("payment_intent_data")).cloned().unwrap_or_default();
    let buyer = if customer.is_empty() { Value::Null } else { json!(customer) };
    let intent = if let Some(intent) = session["payment_intent"].as_str() {
        intent.to_owned()
    } else {
        let metadata = if data["metadata"].is_object() { data["metadata"].clone() } else { json!({}) };
        let sum = (whole(session, "amount_total"), &session["currency"]);
        let intent = charge::intend(world, call, &buyer, sum, (&metadata, &data["description"]))?;
        let mut kept = session.clone();
        kept["payment_intent"] = intent["id"].clone();
        world.replace(KIND, &kept);
        text(&intent, "id").to_owned()
    };
    let method = text(&add(world, card)?, "id").to_owned();
    charge::charge(world, call, &intent, Some(&method))?.map_err(collect::refusal)?;
    if data["setup_future_usage"].is_string() && !customer.is_empty() {
        attach_to(world, call, (&method, "payment_method"), customer)?;
    }
    let mut outcome = json!({ "payment_intent": intent, "payment_status": "paid" });
    if session["invoice_creation"]["enabled"] == true {
        outcome["invoice"] = receipt(world, call, session, customer, &intent)?["id"].clone();
    }
    Ok(outcome)
}

fn receipt(world: &mut World, call: &Call, session: &Value, customer: &str, intent: &str) -> Done {
    let now = world.now();
    let mut lines = Vec::new();
    for one in listed(session, "line_items") {
        let entry = Line {
            about: About::Once,
            description: text(one, "description").to_owned(),
            amount: whole(one, "amount_subtotal"),
            quantity: whole(one, "quantity"),
            period: (now, now),
        };
        lines.push(line(world, &one["price"], &entry));
    }
    let metadata = &session["invoice_creation"]["invoice_data"]["metadata"];
    let draft = Draft {
        customer,
        subscription: &Value::Null,
        reason: "manual",
        lines,
        period: (now, now),
        taxed: session["automatic_tax"]["enabled"] == true,
        auto_advance: false,
        metadata: if metadata.is_object() { metadata.clone() } else { json!({}) },
    };
    let intent = json!({ "id": intent });
    invoice::receipt(world, call, draft, &intent)
}

/// Gives a customer another card, as the portal does: for everything that it pays from now on.
///
/// # Errors
/// 404 where there is no such customer, 402 where the card is refused.
pub fn set_card(world: &mut World, customer: &str, card: &str) -> Done {
    let call = Call::nobodys();
    world.need("customer", customer, "customer", StatusCode::NOT_FOUND)?;
    let Some(card) = cards::find(card) else {
        return Err(Refusal::card("incorrect_number", None, "Your card number is incorrect."));
    };
    let method = text(&add(world, card)?, "id").to_owned();
    let attached = attach_to(world, &call, (&method, "payment_method"), customer)?;
    change(world, &call, ("customer", customer), "customer.updated", |customer| {
        customer["invoice_settings"]["default_payment_method"] = json!(method);
    });
    let own: Vec<String> = world
        .shelf(start::KIND)
        .into_iter()
        .flat_map(super::shelf::Shelf::newest_first)
        .filter(|one| one["customer"] == customer && one["default_payment_method"].is_string())
        .filter(|one| one["ended_at"].is_null())
        .map(|one| text(one, "id").to_owned())
        .collect();
    for id in own {
        change(world, &call, (start::KIND, &id), "customer.subscription.updated", |subscription| {
            subscription["default_payment_method"] = json!(method);
        });
    }
    Ok(attached)
}

//! Payment methods: cards, and of these the test cards (docs.stripe.com/api/payment_methods).

use http::StatusCode;
use serde_json::{Value, json};

use super::super::billing::change;
use super::super::cards::{self, Card, Conduct};
use super::super::deliveries::tell;
use super::super::look::text;
use super::super::refusal::Refusal;
use super::super::schema::{Field, Kind, METADATA, PAGE, TEXT, opt, req};
use super::super::world::{Call, World};
use super::{Done, Route, route, update};

const KIND: &str = "payment_method";
const ALL: &str = "/v1/payment_methods";
const ONE: &str = "/v1/payment_methods/{payment_method}";

/// Operations on payment methods.
pub const ROUTES: &[Route] = &[
    route("GET", ALL, KIND, &[PAGE, FILTERS, &[opt("customer", TEXT)]], list),
    route("GET", ONE, KIND, &[], retrieve),
    route("POST", ONE, KIND, &[&[METADATA]], |world, call| update(world, call, KIND)),
    route("POST", "/v1/payment_methods/{payment_method}/attach", KIND, &[&[req("customer", TEXT)]], attach),
    route("POST", "/v1/payment_methods/{payment_method}/detach", KIND, &[], detach),
    route("GET", "/v1/customers/{customer}/payment_methods", KIND, &[PAGE, FILTERS], of_customer),
];

const FILTERS: &[Field] = &[opt("type", Kind::OneOf(&["card"]))];

fn list(world: &mut World, call: &Call) -> Done {
    if let Some(customer) = call.text("customer") {
        world.need("customer", customer, "customer", StatusCode::BAD_REQUEST)?;
    }
    world.list(KIND, call, |method| {
        method["customer"].is_string() && call.wants("customer", &method["customer"])
    })
}

fn of_customer(world: &mut World, call: &Call) -> Done {
    let customer = world.named("customer", call)?["id"].clone();
    world.list(KIND, call, |method| method["customer"] == customer)
}

/// The test cards themselves can be looked at, too.
fn retrieve(world: &mut World, call: &Call) -> Done {
    let id = call.id().0;
    if let Some(card) = id.strip_prefix("pm_card_").and_then(cards::find) {
        let mut method = card.method(id);
        method["object"] = json!(KIND);
        method["created"] = json!(world.now());
        method["livemode"] = json!(false);
        return Ok(method);
    }
    world.named(KIND, call).cloned()
}

fn attach(world: &mut World, call: &Call) -> Done {
    let customer = call.text("customer").unwrap_or_default().to_owned();
    world.need("customer", &customer, "customer", StatusCode::BAD_REQUEST)?;
    attach_to(world, call, call.id(), &customer)
}

/// Attaches a payment method, by id or the name of a test card, to a customer. A test card becomes a payment method
/// of its own with each use. STANDIN-CARD-1
///
/// # Errors
/// 402 where the card is one of those that are refused, 400 where there is no such payment method or it is taken.
pub fn attach_to(world: &mut World, call: &Call, id: (&str, &str), customer: &str) -> Done {
    let (id, param) = id;
    let id = match id.strip_prefix("pm_card_").and_then(cards::find) {
        Some(card) => text(&add(world, card)?, "id").to_owned(),
        None => id.to_owned(),
    };
    let method = world.need(KIND, &id, param, StatusCode::BAD_REQUEST)?;
    if method["customer"] == customer {
        return Ok(method.clone());
    }
    if method["customer"].is_string() {
        let message = "The payment method you provided has already been attached to a customer.";
        return Err(Refusal::conflict(None, param, message));
    }
    if let Some(Conduct::Refused(decline)) = Card::of(method).map(|card| card.conduct) {
        return Err(decline.into());
    }
    let method = change(world, call, (KIND, &id), "payment_method.attached", |method| {
        method["customer"] = json!(customer);
    });
    Ok(method)
}

/// Makes a payment method of a test card.
///
/// # Errors
/// Where there are too many objects.
pub fn add(world: &mut World, card: &Card) -> Done {
    let id = world.ids.next("pm");
    world.create(KIND, "pm", card.method(&id))
}

/// Takes it away from its customer, and from where it stands as a default.
fn detach(world: &mut World, call: &Call) -> Done {
    let before = world.named(KIND, call)?.clone();
    let Some(customer) = before["customer"].as_str() else {
        let message =
            "The payment method you provided is not attached to a customer so detachment is impossible.";
        return Err(Refusal::conflict(None, call.id().1, message));
    };
    let mut after = before.clone();
    after["customer"] = Value::Null;
    world.replace(KIND, &after);
    tell(world, call, "payment_method.detached", &after, None);
    change(world, call, ("customer", customer), "customer.updated", |customer| {
        let default = &mut customer["invoice_settings"]["default_payment_method"];
        if *default == before["id"] {
            *default = Value::Null;
        }
    });
    Ok(after)
}

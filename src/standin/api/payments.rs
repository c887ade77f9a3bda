//! Payment intents, charges, and what ties them to invoices (docs.stripe.com/api/payment_intents, /api/charges,
//! /api/invoice-payment). Who wants money makes an invoice or opens Checkout: neither is made here.

use http::StatusCode;
use serde_json::Value;

use super::super::billing::{dispute, refund};
use super::super::refusal::Refusal;
use super::super::schema::{Field, Kind, METADATA, PAGE, TEXT, clear, opt, req};
use super::super::shelf::in_range;
use super::super::world::{Call, World};
use super::{Done, Route, route, update};

/// Operations on payments.
pub const ROUTES: &[Route] = &[
    route("GET", "/v1/payment_intents", "payment_intent", &[PAGE, INTENTS], |world, call| {
        list(world, call, "payment_intent")
    }),
    route("GET", "/v1/payment_intents/{intent}", "payment_intent", &[], |world, call| {
        world.named("payment_intent", call).cloned()
    }),
    route("GET", "/v1/charges", "charge", &[PAGE, CHARGES], |world, call| list(world, call, "charge")),
    route("GET", "/v1/charges/{charge}", "charge", &[], |world, call| world.named("charge", call).cloned()),
    route(
        "POST",
        "/v1/charges/{charge}",
        "charge",
        &[&[clear("description", TEXT), METADATA]],
        |world, call| update(world, call, "charge"),
    ),
    route("GET", "/v1/invoice_payments", "invoice", &[PAGE, PAYMENTS], payments),
    route("GET", "/v1/invoice_payments/{invoice_payment}", "invoice", &[], |world, call| {
        world.named("invoice_payment", call).cloned()
    }),
    route("POST", "/v1/refunds", "charge", &[REFUND], give_back),
    route("GET", "/v1/refunds", "charge", &[PAGE, OF_CHARGE], |world, call| list(world, call, "refund")),
    route("GET", "/v1/refunds/{refund}", "charge", &[], |world, call| world.named("refund", call).cloned()),
    route("POST", "/v1/refunds/{refund}", "charge", &[&[METADATA]], |world, call| {
        update(world, call, "refund")
    }),
    route("GET", "/v1/disputes", "dispute", &[PAGE, OF_CHARGE], |world, call| list(world, call, "dispute")),
    route("GET", "/v1/disputes/{dispute}", "dispute", &[], |world, call| {
        world.named("dispute", call).cloned()
    }),
    route("POST", "/v1/disputes/{dispute}/close", "dispute", &[], |world, call| {
        dispute::close(world, call, call.id().0, false)
    }),
];

const INTENTS: &[Field] = &[opt("created", Kind::Range), opt("customer", TEXT)];
const CHARGES: &[Field] = &[opt("created", Kind::Range), opt("customer", TEXT), opt("payment_intent", TEXT)];
const OF_CHARGE: &[Field] = &[opt("charge", TEXT), opt("created", Kind::Range), opt("payment_intent", TEXT)];
const PAYMENTS: &[Field] = &[
    opt("created", Kind::Range),
    opt("invoice", TEXT),
    opt(
        "payment",
        Kind::Object(&[req("type", Kind::OneOf(&["payment_intent"])), opt("payment_intent", TEXT)]),
    ),
    opt("status", Kind::OneOf(&["canceled", "open", "paid"])),
];
const REFUND: &[Field] = &[
    opt("amount", Kind::Whole),
    opt("charge", TEXT),
    METADATA,
    opt("payment_intent", TEXT),
    opt("reason", Kind::OneOf(&["duplicate", "fraudulent", "requested_by_customer"])),
];

fn list(world: &mut World, call: &Call, kind: &'static str) -> Done {
    world.list(kind, call, |one| {
        ["customer", "payment_intent", "charge"].iter().all(|name| call.wants(name, &one[*name]))
            && in_range(call.params.get("created"), &one["created"])
    })
}

fn payments(world: &mut World, call: &Call) -> Done {
    let intent = call.params.get("payment").and_then(|payment| payment["payment_intent"].as_str());
    world.list("invoice_payment", call, |one| {
        call.wants("invoice", &one["invoice"])
            && call.wants("status", &one["status"])
            && intent.is_none_or(|intent| one["payment"]["payment_intent"] == intent)
            && in_range(call.params.get("created"), &one["created"])
    })
}

fn give_back(world: &mut World, call: &Call) -> Done {
    let charge = match (call.text("charge"), call.text("payment_intent")) {
        (Some(charge), _) => {
            world.need("charge", charge, "charge", StatusCode::BAD_REQUEST)?;
            charge.to_owned()
        }
        (None, Some(intent)) => refund::charge_of(world, intent)?,
        (None, None) => return Err(Refusal::missing("charge")),
    };
    let given = |name: &str| call.params.get(name).cloned().unwrap_or(Value::Null);
    let amount = given("amount").as_i64();
    refund::refund(world, call, &charge, amount, (&given("reason"), &given("metadata")))
}

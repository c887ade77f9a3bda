//! Customers' balances (docs.stripe.com/api/customer_balance_transactions), and items that wait for an invoice
//! (docs.stripe.com/api/invoiceitems).

use serde_json::{Value, json};

use super::super::billing::{balance, prorate};
use super::super::look::text;
use super::super::schema::{Field, Kind, PAGE, TEXT, opt, req};
use super::super::world::{Call, World, overlay};
use super::{Done, Route, route};

const KIND: &str = "customer_balance_transaction";
const ALL: &str = "/v1/customers/{customer}/balance_transactions";

/// Operations on balances.
pub const ROUTES: &[Route] = &[
    route("POST", ALL, "customer", &[FIELDS], adjust),
    route("GET", ALL, "customer", &[PAGE], list),
    route("GET", "/v1/invoiceitems", "invoice", &[PAGE, ITEMS], items),
    route("GET", "/v1/invoiceitems/{invoiceitem}", "invoice", &[], |world, call| {
        world.named(prorate::KIND, call).cloned()
    }),
];

const FIELDS: &[Field] = &[
    req("amount", Kind::Whole),
    req("currency", Kind::Text(3)),
    opt("description", Kind::Text(350)),
    opt("metadata", Kind::Pairs),
];
const ITEMS: &[Field] = &[opt("customer", TEXT), opt("invoice", TEXT), opt("pending", Kind::Flag)];

fn adjust(world: &mut World, call: &Call) -> Done {
    let customer = text(world.named("customer", call)?, "id").to_owned();
    let amount = call.params.get("amount").and_then(Value::as_i64).unwrap_or_default();
    let currency = call.text("currency").unwrap_or_default().to_owned();
    let mut made = balance::transact(world, call, &customer, ("adjustment", amount, &currency), None)?;
    let mut rest = call.params.clone();
    rest.retain(|name, _| matches!(name.as_str(), "description" | "metadata"));
    overlay(&mut made, &rest);
    world.replace(KIND, &made);
    Ok(made)
}

fn list(world: &mut World, call: &Call) -> Done {
    let customer = world.named("customer", call)?["id"].clone();
    world.list(KIND, call, |one| one["customer"] == customer)
}

/// What waits for an invoice, and what waited.
fn items(world: &mut World, call: &Call) -> Done {
    world.list(prorate::KIND, call, |one| {
        call.wants("customer", &one["customer"])
            && call.wants("invoice", &one["invoice"])
            && call.params.get("pending").is_none_or(|wanted| *wanted == json!(one["invoice"].is_null()))
    })
}

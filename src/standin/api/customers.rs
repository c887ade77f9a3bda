//! Customers (docs.stripe.com/api/customers).

use http::StatusCode;
use serde_json::{Value, json};

use super::super::billing::cycle;
use super::super::look::text;
use super::super::refusal::Refusal;
use super::super::schema::{Field, Kind, METADATA, PAGE, TEXT, clear, opt};
use super::super::shelf::in_range;
use super::super::world::{Call, World, overlay};
use super::{Done, Route, create, route, update};

const KIND: &str = "customer";
const ALL: &str = "/v1/customers";
const ONE: &str = "/v1/customers/{customer}";

/// Operations on customers.
pub const ROUTES: &[Route] = &[
    route("POST", ALL, KIND, &[FIELDS], make),
    route("GET", ALL, KIND, &[PAGE, FILTERS], list),
    route("GET", ONE, KIND, &[], retrieve),
    route("POST", ONE, KIND, &[FIELDS], change),
    route("DELETE", ONE, KIND, &[], delete),
];

const FIELDS: &[Field] = &[
    clear("address", Kind::Object(ADDRESS)),
    opt("balance", Kind::Whole),
    clear("business_name", Kind::Text(150)),
    clear("description", TEXT),
    clear("email", Kind::Text(512)),
    clear("individual_name", Kind::Text(150)),
    opt("invoice_settings", Kind::Object(&[clear("default_payment_method", TEXT), clear("footer", TEXT)])),
    METADATA,
    clear("name", Kind::Text(256)),
    clear("phone", Kind::Text(20)),
    opt("preferred_locales", Kind::Many(&TEXT, 100)),
    clear("tax_exempt", Kind::OneOf(&["none", "exempt", "reverse"])),
];
const ADDRESS: &[Field] = &[
    clear("city", TEXT),
    clear("country", TEXT),
    clear("line1", TEXT),
    clear("line2", TEXT),
    clear("postal_code", TEXT),
    clear("state", TEXT),
];
const FILTERS: &[Field] = &[opt("created", Kind::Range), opt("email", Kind::Text(512))];

/// Makes a customer.
pub fn make(world: &mut World, call: &Call) -> Done {
    let number = world.count(KIND) + 1;
    let mut customer = json!({
        "address": null, "balance": 0, "currency": null, "default_source": null, "delinquent": false,
        "description": null, "discount": null, "email": null, "invoice_prefix": format!("STANDIN{number}"),
        "invoice_settings": {
            "custom_fields": null, "default_payment_method": null, "footer": null, "rendering_options": null,
        },
        "metadata": {}, "name": null, "next_invoice_sequence": 1, "phone": null, "preferred_locales": [],
        "shipping": null, "tax_exempt": "none", "test_clock": null,
    });
    overlay(&mut customer, &call.params);
    let default = &customer["invoice_settings"]["default_payment_method"];
    if default.is_string() {
        return Err(foreign(default));
    }
    create(world, call, KIND, "cus", customer)
}

fn foreign(method: &Value) -> Refusal {
    let message = format!(
        "The customer does not have a payment method with the ID {}. The payment method must be attached to the customer.",
        method.as_str().unwrap_or_default()
    );
    Refusal::conflict(Some("resource_missing"), "invoice_settings[default_payment_method]", message)
}

fn change(world: &mut World, call: &Call) -> Done {
    if let Some(method) =
        call.params.get("invoice_settings").and_then(|s| s["default_payment_method"].as_str())
    {
        let at = "invoice_settings[default_payment_method]";
        let method = world.need("payment_method", method, at, StatusCode::BAD_REQUEST)?;
        if method["customer"] != call.id().0 {
            return Err(foreign(&method["id"]));
        }
    }
    update(world, call, KIND)
}

fn list(world: &mut World, call: &Call) -> Done {
    world.list(KIND, call, |customer| {
        call.wants("email", &customer["email"]) && in_range(call.params.get("created"), &customer["created"])
    })
}

/// A customer that was deleted leaves a trace.
fn retrieve(world: &mut World, call: &Call) -> Done {
    if let Some(gone) = world.shelf(KIND).and_then(|shelf| shelf.get(call.id().0)) {
        return Ok(gone.clone());
    }
    world.named(KIND, call).cloned()
}

fn delete(world: &mut World, call: &Call) -> Done {
    let customer = world.named(KIND, call)?.clone();
    cycle::end_all(world, call, text(&customer, "id"));
    let trace: Value = json!({ "id": customer["id"], "object": KIND, "deleted": true });
    world.replace(KIND, &trace);
    super::super::deliveries::tell(world, call, "customer.deleted", &customer, None);
    Ok(trace)
}

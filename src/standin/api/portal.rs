//! The customer portal: configurations and sessions (docs.stripe.com/api/customer_portal).

use http::StatusCode;
use serde_json::{Value, json};

use super::super::refusal::Refusal;
use super::super::schema::{Field, Kind, METADATA, PAGE, TEXT, clear, opt, req};
use super::super::world::{Call, World, overlay};
use super::subscriptions::{PRORATION, REASONS};
use super::{Done, Route, create, route, update};

const KIND: &str = "billing_portal.configuration";
const ALL: &str = "/v1/billing_portal/configurations";
const ONE: &str = "/v1/billing_portal/configurations/{configuration}";
const RESOURCE: &str = "customer_portal";

/// Operations on the portal.
pub const ROUTES: &[Route] = &[
    route("POST", ALL, RESOURCE, &[FIELDS, &[req("features", Kind::Object(FEATURES))]], make),
    route("GET", ALL, RESOURCE, &[PAGE, FILTERS], list),
    route("GET", ONE, RESOURCE, &[], |world, call| world.named(KIND, call).cloned()),
    route("POST", ONE, RESOURCE, &[FIELDS, CHANGES], change),
    route("POST", "/v1/billing_portal/sessions", RESOURCE, &[SESSION], open),
];

const FIELDS: &[Field] = &[
    opt("business_profile", Kind::Object(PROFILE)),
    clear("default_return_url", TEXT),
    opt("login_page", Kind::Object(&[req("enabled", Kind::Flag)])),
    METADATA,
    clear("name", TEXT),
];
const CHANGES: &[Field] = &[opt("active", Kind::Flag), opt("features", Kind::Object(FEATURES))];
const FILTERS: &[Field] = &[opt("active", Kind::Flag), opt("is_default", Kind::Flag)];
const PROFILE: &[Field] = &[
    clear("headline", Kind::Text(60)),
    clear("privacy_policy_url", TEXT),
    clear("terms_of_service_url", TEXT),
];
const ENABLED: Field = opt("enabled", Kind::Flag);
const FEATURES: &[Field] = &[
    opt(
        "customer_update",
        Kind::Object(&[
            clear(
                "allowed_updates",
                Kind::Many(&Kind::OneOf(&["address", "email", "name", "phone", "shipping", "tax_id"]), 6),
            ),
            ENABLED,
        ]),
    ),
    opt("invoice_history", Kind::Object(&[req("enabled", Kind::Flag)])),
    opt(
        "payment_method_update",
        Kind::Object(&[req("enabled", Kind::Flag), clear("payment_method_configuration", TEXT)]),
    ),
    opt(
        "subscription_cancel",
        Kind::Object(&[
            opt(
                "cancellation_reason",
                Kind::Object(&[
                    req("enabled", Kind::Flag),
                    clear("options", Kind::Many(&Kind::OneOf(REASONS), 8)),
                ]),
            ),
            ENABLED,
            opt("mode", Kind::OneOf(&["at_period_end", "immediately"])),
            opt("proration_behavior", PRORATION),
        ]),
    ),
    opt(
        "subscription_update",
        Kind::Object(&[
            opt("billing_cycle_anchor", Kind::OneOf(&["now", "unchanged"])),
            clear(
                "default_allowed_updates",
                Kind::Many(&Kind::OneOf(&["price", "promotion_code", "quantity"]), 3),
            ),
            ENABLED,
            clear("products", Kind::Many(&Kind::Object(PRODUCT), 10)),
            opt("proration_behavior", PRORATION),
            opt(
                "schedule_at_period_end",
                Kind::Object(&[clear("conditions", Kind::Many(&Kind::Object(CONDITION), 2))]),
            ),
            opt("trial_update_behavior", Kind::OneOf(&["continue_trial", "end_trial"])),
        ]),
    ),
];
const PRODUCT: &[Field] = &[
    opt(
        "adjustable_quantity",
        Kind::Object(&[req("enabled", Kind::Flag), opt("maximum", Kind::Whole), opt("minimum", Kind::Whole)]),
    ),
    req("prices", Kind::Many(&TEXT, 10)),
    req("product", TEXT),
];
const CONDITION: &[Field] = &[req("type", Kind::OneOf(&["decreasing_item_amount", "shortening_interval"]))];
const SESSION: &[Field] =
    &[req("customer", TEXT), opt("configuration", TEXT), opt("locale", TEXT), opt("return_url", TEXT)];

/// What an array is that was cleared.
const LISTS: &[&str] = &[
    "/features/customer_update/allowed_updates",
    "/features/subscription_cancel/cancellation_reason/options",
    "/features/subscription_update/default_allowed_updates",
    "/features/subscription_update/products",
    "/features/subscription_update/schedule_at_period_end/conditions",
];

fn make(world: &mut World, call: &Call) -> Done {
    let mut configuration = json!({
        "active": true, "application": null,
        "business_profile": { "headline": null, "privacy_policy_url": null, "terms_of_service_url": null },
        "default_return_url": null,
        "features": {
            "customer_update": { "allowed_updates": [], "enabled": false },
            "invoice_history": { "enabled": false },
            "payment_method_update": { "enabled": false, "payment_method_configuration": null },
            "subscription_cancel": {
                "cancellation_reason": { "enabled": false, "options": [] },
                "enabled": false, "mode": "at_period_end", "proration_behavior": "none",
            },
            "subscription_update": {
                "billing_cycle_anchor": null, "default_allowed_updates": [], "enabled": false, "products": [],
                "proration_behavior": "none", "schedule_at_period_end": { "conditions": [] },
                "trial_update_behavior": "end_trial",
            },
        },
        "is_default": false, "login_page": { "enabled": false, "url": null }, "metadata": {}, "name": null,
        "updated": world.now(),
    });
    overlay(&mut configuration, &call.params);
    check(world, &mut configuration)?;
    create(world, call, KIND, "bpc", configuration)
}

fn change(world: &mut World, call: &Call) -> Done {
    let mut after = world.named(KIND, call)?.clone();
    overlay(&mut after, &call.params);
    check(world, &mut after)?;
    let mut done = update(world, call, KIND)?;
    if LISTS.iter().any(|list| done.pointer(list).is_some_and(Value::is_null)) {
        clear_lists(&mut done);
        world.replace(KIND, &done);
    }
    Ok(done)
}

fn clear_lists(configuration: &mut Value) {
    for list in LISTS {
        if let Some(list) = configuration.pointer_mut(list).filter(|list| list.is_null()) {
            *list = json!([]);
        }
    }
}

/// Plan changes need products with prices of theirs to change between. STANDIN-PORTAL-2
fn check(world: &World, configuration: &mut Value) -> Result<(), Refusal> {
    clear_lists(configuration);
    let changes = &configuration["features"]["subscription_update"];
    let products = changes["products"].as_array().map(Vec::as_slice).unwrap_or_default();
    if changes["enabled"] == true {
        for name in ["products", "default_allowed_updates"] {
            if changes[name].as_array().is_none_or(Vec::is_empty) {
                return Err(Refusal::missing(&format!("features[subscription_update][{name}]")));
            }
        }
    }
    for (n, each) in products.iter().enumerate() {
        let at = format!("features[subscription_update][products][{n}]");
        let product = each["product"].as_str().unwrap_or_default();
        world.need("product", product, &format!("{at}[product]"), StatusCode::BAD_REQUEST)?;
        for price in each["prices"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let at = format!("{at}[prices]");
            if world.need("price", price, &at, StatusCode::BAD_REQUEST)?["product"] != product {
                return Err(Refusal::conflict(
                    None,
                    &at,
                    format!("The price {price} is not of the product {product}."),
                ));
            }
        }
    }
    Ok(())
}

fn list(world: &mut World, call: &Call) -> Done {
    world.list(KIND, call, |one| ["active", "is_default"].iter().all(|name| call.wants(name, &one[*name])))
}

/// Opens a session. There is no default configuration, as in a new account. STANDIN-PORTAL-1
fn open(world: &mut World, call: &Call) -> Done {
    let customer = call.text("customer").unwrap_or_default();
    world.need("customer", customer, "customer", StatusCode::BAD_REQUEST)?;
    let Some(configuration) = call.text("configuration") else {
        let message =
            "No configuration provided and your test mode default configuration has not been created.";
        return Err(Refusal::conflict(None, "configuration", message));
    };
    let configuration = world.need(KIND, configuration, "configuration", StatusCode::BAD_REQUEST)?.clone();
    if configuration["active"] != true {
        return Err(Refusal::conflict(None, "configuration", "The configuration is not active."));
    }
    let id = world.ids.next("bps");
    let session = json!({
        "id": id, "configuration": configuration["id"], "customer": customer, "customer_account": null,
        "flow": null, "locale": call.params.get("locale"), "on_behalf_of": null,
        "return_url": call.text("return_url").map_or(configuration["default_return_url"].clone(), |url| json!(url)),
        "url": format!("{}/_standin/portal/{id}", world.base_url),
    });
    create(world, call, "billing_portal.session", "bps", session)
}

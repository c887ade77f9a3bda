//! Products and prices (docs.stripe.com/api/products, /api/prices).

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::refusal::Refusal;
use super::super::schema::{Field, Kind, METADATA, PAGE, TEXT, clear, opt, req};
use super::super::shelf::in_range;
use super::super::world::{Call, World, overlay};
use super::{Done, Route, create, delete, route, update};

const PRODUCTS: &str = "/v1/products";
const PRODUCT: &str = "/v1/products/{id}";
const PRICES: &str = "/v1/prices";
const PRICE: &str = "/v1/prices/{price}";

/// Operations on products and prices.
pub const ROUTES: &[Route] = &[
    route("POST", PRODUCTS, "product", &[PRODUCT_FIELDS, NEW_PRODUCT], create_product),
    route("GET", PRODUCTS, "product", &[PAGE, PRODUCT_FILTERS], list_products),
    route("GET", PRODUCT, "product", &[], |world, call| world.named("product", call).cloned()),
    route("POST", PRODUCT, "product", &[PRODUCT_FIELDS, CHANGED_PRODUCT], update_product),
    route("DELETE", PRODUCT, "product", &[], delete_product),
    route("POST", PRICES, "plan", &[PRICE_FIELDS, NEW_PRICE], create_price),
    route("GET", PRICES, "plan", &[PAGE, PRICE_FILTERS], list_prices),
    route("GET", PRICE, "plan", &[], |world, call| world.named("price", call).cloned()),
    route("POST", PRICE, "plan", &[PRICE_FIELDS], update_price),
];

const PRODUCT_FIELDS: &[Field] = &[
    opt("active", Kind::Flag),
    clear("description", TEXT),
    METADATA,
    opt("statement_descriptor", Kind::Text(22)),
    clear("tax_code", TEXT),
    clear("unit_label", Kind::Text(12)),
    clear("url", TEXT),
];
const NEW_PRODUCT: &[Field] = &[req("name", TEXT), opt("id", TEXT)];
const CHANGED_PRODUCT: &[Field] = &[opt("name", TEXT), opt("default_price", TEXT)];
const PRODUCT_FILTERS: &[Field] = &[
    opt("active", Kind::Flag),
    opt("created", Kind::Range),
    opt("ids", Kind::Many(&TEXT, 100)),
    opt("url", TEXT),
];
const INTERVALS: Kind = Kind::OneOf(&["day", "week", "month", "year"]);
const USAGE_TYPES: Kind = Kind::OneOf(&["licensed", "metered"]);
const RECURRING: &[Field] = &[
    req("interval", INTERVALS),
    opt("interval_count", Kind::Whole),
    opt("meter", TEXT),
    opt("trial_period_days", Kind::Whole),
    opt("usage_type", USAGE_TYPES),
];
const PRICE_FIELDS: &[Field] = &[
    opt("active", Kind::Flag),
    clear("lookup_key", Kind::Text(200)),
    METADATA,
    clear("nickname", TEXT),
    opt("tax_behavior", Kind::OneOf(&["exclusive", "inclusive", "unspecified"])),
    opt("transfer_lookup_key", Kind::Flag),
];
const NEW_PRICE: &[Field] = &[
    req("currency", Kind::Text(3)),
    opt("billing_scheme", Kind::OneOf(&["per_unit"])),
    opt("product", TEXT),
    opt("product_data", Kind::Object(PRODUCT_DATA)),
    opt("recurring", Kind::Object(RECURRING)),
    opt("transform_quantity", Kind::Object(TRANSFORM)),
    opt("unit_amount", Kind::Whole),
    opt("unit_amount_decimal", Kind::Decimal),
];
const PRODUCT_DATA: &[Field] = &[
    req("name", TEXT),
    opt("active", Kind::Flag),
    opt("id", TEXT),
    METADATA,
    opt("statement_descriptor", Kind::Text(22)),
    opt("tax_code", TEXT),
    opt("unit_label", Kind::Text(12)),
];
const TRANSFORM: &[Field] = &[req("divide_by", Kind::Whole), req("round", Kind::OneOf(&["up", "down"]))];
const PRICE_FILTERS: &[Field] = &[
    opt("active", Kind::Flag),
    opt("created", Kind::Range),
    opt("currency", TEXT),
    opt("lookup_keys", Kind::Many(&TEXT, 10)),
    opt("product", TEXT),
    opt("recurring", Kind::Object(RECURRING_FILTERS)),
    opt("type", Kind::OneOf(&["one_time", "recurring"])),
];
const RECURRING_FILTERS: &[Field] =
    &[opt("interval", INTERVALS), opt("meter", TEXT), opt("usage_type", USAGE_TYPES)];

fn create_product(world: &mut World, call: &Call) -> Done {
    new_product(world, call, &call.params)
}

fn new_product(world: &mut World, call: &Call, given: &Map<String, Value>) -> Done {
    let mut product = json!({
        "active": true, "default_price": null, "description": null, "images": [], "marketing_features": [],
        "metadata": {}, "package_dimensions": null, "shippable": null, "statement_descriptor": null,
        "tax_code": null, "type": "service", "unit_label": null, "updated": world.now(), "url": null,
    });
    overlay(&mut product, given);
    create(world, call, "product", "prod", product)
}

fn list_products(world: &mut World, call: &Call) -> Done {
    world.list("product", call, |product| {
        ["active", "url"].iter().all(|name| call.wants(name, &product[*name]))
            && call.params.get("ids").and_then(Value::as_array).is_none_or(|ids| ids.contains(&product["id"]))
            && in_range(call.params.get("created"), &product["created"])
    })
}

fn update_product(world: &mut World, call: &Call) -> Done {
    if let Some(price) = call.text("default_price") {
        world.need("price", price, "default_price", StatusCode::BAD_REQUEST)?;
    }
    update(world, call, "product")
}

fn delete_product(world: &mut World, call: &Call) -> Done {
    let product = world.named("product", call)?["id"].clone();
    let priced =
        world.shelf("price").is_some_and(|prices| prices.newest_first().any(|p| p["product"] == product));
    if priced {
        let message = "This product cannot be deleted because it has one or more user-created prices.";
        return Err(Refusal::conflict(None, "id", message));
    }
    delete(world, call, "product")
}

/// Makes a price, and its product where `product_data` says so.
pub fn create_price(world: &mut World, call: &Call) -> Done {
    let mut price = json!({
        "active": true, "billing_scheme": "per_unit", "custom_unit_amount": null, "lookup_key": null,
        "metadata": {}, "nickname": null, "recurring": null, "tax_behavior": "unspecified", "tiers_mode": null,
        "transform_quantity": null, "type": "one_time",
    });
    let mut given = call.params.clone();
    let (product, data) = (given.remove("product"), given.remove("product_data"));
    given.remove("transfer_lookup_key");
    overlay(&mut price, &given);
    let currency = price["currency"].as_str().unwrap_or_default().to_ascii_lowercase();
    if currency.len() != 3 || !currency.bytes().all(|letter| letter.is_ascii_lowercase()) {
        return Err(Refusal::conflict(None, "currency", format!("Invalid currency: {currency}")));
    }
    price["currency"] = json!(currency);
    amount(&mut price)?;
    if !price["recurring"].is_null() {
        price["type"] = json!("recurring");
        price["recurring"] = recurring(world, &price["recurring"])?;
    }
    free_lookup_key(world, call, "")?;
    let product = match (product, data) {
        (Some(Value::String(id)), None) => {
            world.need("product", &id, "product", StatusCode::BAD_REQUEST)?["id"].clone()
        }
        (None, Some(Value::Object(data))) => new_product(world, call, &data)?["id"].clone(),
        (None, _) => return Err(Refusal::missing("product")),
        _ => {
            let message = "You may only specify one of these parameters: product, product_data.";
            return Err(Refusal::conflict(None, "product", message));
        }
    };
    price["product"] = product;
    create(world, call, "price", "price", price)
}

/// One of the two ways to say what a unit costs, told in both. STANDIN-PRICE-2
fn amount(price: &mut Value) -> Result<(), Refusal> {
    match (price["unit_amount"].as_i64(), price["unit_amount_decimal"].as_str()) {
        (Some(amount), None) => price["unit_amount_decimal"] = json!(amount.to_string()),
        (None, Some(amount)) => price["unit_amount"] = json!(amount.parse::<i64>().ok()),
        (None, None) => return Err(Refusal::missing("unit_amount")),
        (Some(_), Some(_)) => {
            let message = "You may only specify one of these parameters: unit_amount, unit_amount_decimal.";
            return Err(Refusal::conflict(None, "unit_amount", message));
        }
    }
    if price["unit_amount_decimal"].as_str().is_some_and(|amount| amount.starts_with('-')) {
        let message = "Invalid non-negative integer";
        return Err(Refusal::conflict(Some("parameter_invalid_integer"), "unit_amount", message));
    }
    Ok(())
}

/// Metered prices have a meter, and others have none. STANDIN-PRICE-1
fn recurring(world: &World, given: &Value) -> Done {
    let usage_type = given["usage_type"].as_str().unwrap_or("licensed");
    match (usage_type, given["meter"].as_str()) {
        ("metered", None) => return Err(Refusal::missing("recurring[meter]")),
        ("metered", Some(meter)) => {
            let meter = world.need("billing.meter", meter, "recurring[meter]", StatusCode::BAD_REQUEST)?;
            if meter["status"] != "active" {
                return Err(Refusal::conflict(None, "recurring[meter]", "The meter is not active."));
            }
        }
        (_, Some(_)) => {
            let message = "recurring[meter] can only be set where recurring[usage_type] is metered.";
            return Err(Refusal::conflict(None, "recurring[meter]", message));
        }
        (_, None) => {}
    }
    let count = given["interval_count"].as_i64().unwrap_or(1);
    if count < 1 {
        return Err(Refusal::conflict(None, "recurring[interval_count]", "Invalid positive integer"));
    }
    Ok(json!({
        "interval": given["interval"], "interval_count": count, "meter": given["meter"],
        "trial_period_days": given["trial_period_days"], "usage_type": usage_type,
    }))
}

/// A lookup key belongs to one price; another takes it over only when it says so. STANDIN-PRICE-3
fn free_lookup_key(world: &mut World, call: &Call, of: &str) -> Result<(), Refusal> {
    let Some(key) = call.text("lookup_key") else { return Ok(()) };
    let owner = world.shelf("price").and_then(|prices| {
        prices.newest_first().find(|price| price["lookup_key"] == key && price["id"] != of).cloned()
    });
    let Some(owner) = owner else { return Ok(()) };
    if call.params.get("transfer_lookup_key") != Some(&json!(true)) {
        let message =
            format!("A price (`{}`) already uses that lookup key.", owner["id"].as_str().unwrap_or_default());
        return Err(Refusal::conflict(None, "lookup_key", message));
    }
    let mut without = owner.clone();
    without["lookup_key"] = Value::Null;
    world.replace("price", &without);
    super::changed(world, call, "price.updated", &owner, &without);
    Ok(())
}

fn list_prices(world: &mut World, call: &Call) -> Done {
    world.list("price", call, |price| {
        let filter = call.params.get("recurring").and_then(Value::as_object);
        ["active", "currency", "product", "type"].iter().all(|name| call.wants(name, &price[*name]))
            && filter.into_iter().flatten().all(|(name, wanted)| price["recurring"][name.as_str()] == *wanted)
            && call
                .params
                .get("lookup_keys")
                .and_then(Value::as_array)
                .is_none_or(|keys| keys.contains(&price["lookup_key"]))
            && in_range(call.params.get("created"), &price["created"])
    })
}

fn update_price(world: &mut World, call: &Call) -> Done {
    let id = world.named("price", call)?["id"].as_str().unwrap_or_default().to_owned();
    free_lookup_key(world, call, &id)?;
    let mut params = call.params.clone();
    params.remove("transfer_lookup_key");
    update(world, &call.with(params), "price")
}

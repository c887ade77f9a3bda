//! The operations, one file per family of objects, each with its table of routes and parameters.

pub mod balances;
mod catalog;
pub mod checkout;
mod credit_notes;
mod customers;
mod events;
mod invoices;
mod meters;
pub mod payment_methods;
mod payments;
mod portal;
mod subscription_changes;
pub mod subscriptions;
mod webhook_endpoints;

pub use customers::make as new_customer;
pub use meters::{EVENTS, aggregate, lane};
pub use subscription_changes::change as change_subscription;
pub use webhook_endpoints::new as new_endpoint;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::schema::Field;
use super::world::{Call, World};

/// What an operation comes to.
pub type Done = Result<Value, Refusal>;

/// The parts of a path that stand for ids, by name.
pub type PathIds = Vec<(&'static str, String)>;

/// One operation.
pub struct Route {
    /// `GET`, `POST` or `DELETE`.
    method: &'static str,
    /// With `{name}` for ids.
    path: &'static str,
    /// What a restricted key needs to read or write. STANDIN-KEY-1
    pub resource: &'static str,
    /// What it takes.
    pub fields: &'static [&'static [Field]],
    /// What it does.
    pub run: fn(&mut World, &Call) -> Done,
}

/// One operation, in a line.
const fn route(
    method: &'static str,
    path: &'static str,
    resource: &'static str,
    fields: &'static [&'static [Field]],
    run: fn(&mut World, &Call) -> Done,
) -> Route {
    Route { method, path, resource, fields, run }
}

/// All operations.
const FAMILIES: &[&[Route]] = &[
    balances::ROUTES,
    catalog::ROUTES,
    checkout::ROUTES,
    credit_notes::ROUTES,
    customers::ROUTES,
    events::ROUTES,
    invoices::ROUTES,
    meters::ROUTES,
    payment_methods::ROUTES,
    payments::ROUTES,
    portal::ROUTES,
    subscriptions::ROUTES,
    webhook_endpoints::ROUTES,
];

/// The operation of a method and path, and the ids in the path.
///
/// # Errors
/// 404 where there is none.
pub fn find(method: &Method, path: &str) -> Result<(&'static Route, PathIds), Refusal> {
    let routes = FAMILIES.iter().copied().flatten();
    let mut found = routes.filter(|route| route.method == method.as_str());
    found.find_map(|route| Some((route, ids(route.path, path)?))).ok_or_else(|| {
        let message =
            format!("Unrecognized request URL ({method}: {path}). The stand-in knows no such operation.");
        Refusal::plain(StatusCode::NOT_FOUND, message)
    })
}

fn ids(pattern: &'static str, path: &str) -> Option<PathIds> {
    let mut ids = Vec::new();
    let (mut left, mut right) = (pattern.split('/'), path.split('/'));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Some(ids),
            (Some(wanted), Some(part)) => {
                if let Some(name) = wanted.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                    let id = percent_encoding::percent_decode_str(part).decode_utf8().ok()?;
                    ids.push((name, id.into_owned()));
                } else if wanted != part {
                    return None;
                }
            }
            _ => return None,
        }
    }
}

/// Keeps a new object and tells of it.
pub fn create(world: &mut World, call: &Call, kind: &'static str, prefix: &str, object: Value) -> Done {
    let object = world.create(kind, prefix, object)?;
    super::deliveries::tell(world, call, &format!("{kind}.created"), &object, None);
    Ok(object)
}

/// Changes the object that the path names, and tells of it where something is different.
fn update(world: &mut World, call: &Call, kind: &'static str) -> Done {
    let (before, after) = world.update(kind, call)?;
    changed(world, call, &format!("{kind}.updated"), &before, &after);
    Ok(after)
}

/// Tells of a change, with what was before.
pub fn changed(world: &mut World, call: &Call, event: &str, before: &Value, after: &Value) {
    let fields = before.as_object().into_iter().flatten().filter(|(name, old)| after[name.as_str()] != **old);
    let previous: serde_json::Map<_, _> = fields.map(|(name, old)| (name.clone(), old.clone())).collect();
    if previous.keys().any(|name| name != "updated") {
        super::deliveries::tell(world, call, event, after, Some(previous));
    }
}

/// Takes the object that the path names away, and tells of it.
fn delete(world: &mut World, call: &Call, kind: &'static str) -> Done {
    let object = world.named(kind, call)?.clone();
    world.remove(kind, call.id().0);
    super::deliveries::tell(world, call, &format!("{kind}.deleted"), &object, None);
    Ok(json!({ "id": object["id"], "object": kind, "deleted": true }))
}

/// What objects of a kind tell only where `expand` asks for it.
const INCLUDED: &[(&str, &str)] =
    &[("charge", "refunds"), ("checkout.session", "line_items"), ("invoice", "payments")];

/// Puts objects in the place of their ids where `expand` asks for it (docs.stripe.com/api/expanding_objects), and takes away
/// what is told only where it asks.
///
/// # Errors
/// 400 where the path leads to no id.
pub fn expand(world: &World, answer: &mut Value, paths: &[String]) -> Result<(), Refusal> {
    for path in paths {
        let mut places = vec![&mut *answer];
        for part in path.split('.') {
            places.iter_mut().for_each(|place| resolve(world, place));
            places = places.into_iter().flat_map(|place| step(place, part)).collect();
        }
        let is_list = path.starts_with("data.");
        let known = places
            .iter()
            .all(|place| place.is_object() || place.is_array() || place.is_string() || place.is_null());
        if !known || (places.is_empty() && !is_list) {
            let message = format!("This property cannot be expanded ({path}).");
            return Err(Refusal::invalid(None, "expand", message));
        }
        places.into_iter().for_each(|place| resolve(world, place));
    }
    prune(answer, "", paths);
    Ok(())
}

fn resolve(world: &World, place: &mut Value) {
    if let Some(object) = place.as_str().and_then(|id| world.any(id)) {
        *place = object.clone();
    }
}

/// Lines that an invoice includes; the others are on pages of their own. STANDIN-INVOICE-6
const LINES: usize = 10;

/// Takes away what is told only where it is asked for, and of an invoice's lines those that it does not include.
pub fn prune(value: &mut Value, path: &str, wanted: &[String]) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Array(all) => all.iter_mut().for_each(|each| prune(each, path, wanted)),
        Value::Object(fields) => {
            let kind = fields.get("object").and_then(Value::as_str).unwrap_or_default();
            let included = INCLUDED.iter().find(|(of, _)| *of == kind).map(|(_, name)| *name);
            let is_invoice = kind == "invoice";
            if let Some(name) = included {
                let at = below(name);
                let is_wanted = |path: &String| {
                    path.strip_prefix(&at).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                };
                if !wanted.iter().any(is_wanted) {
                    fields.remove(name);
                }
            }
            if is_invoice {
                cut(fields.get_mut("lines"));
            }
            fields.iter_mut().for_each(|(name, field)| prune(field, &below(name), wanted));
        }
        _ => {}
    }
}

fn cut(list: Option<&mut Value>) {
    let Some(list) = list else { return };
    if let Some(lines) = list["data"].as_array_mut().filter(|lines| lines.len() > LINES) {
        lines.truncate(LINES);
        list["has_more"] = json!(true);
    }
}

fn step<'a>(place: &'a mut Value, part: &str) -> Vec<&'a mut Value> {
    match place {
        Value::Array(all) => all.iter_mut().filter_map(|each| each.get_mut(part)).collect(),
        other => other.get_mut(part).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_operation() {
        let found = |method: &str, path: &str| {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            find(&method, path).map(|(route, ids)| (route.path, ids)).ok()
        };
        let ids = vec![("id", "mtr_1".to_owned())];
        let path = "/v1/billing/meters/{id}/event_summaries";
        assert_eq!(found("GET", "/v1/billing/meters/mtr_1/event_summaries"), Some((path, ids)));
        assert_eq!(found("GET", "/v1/products").map(|found| found.0), Some("/v1/products"));
        for (method, path) in
            [("PUT", "/v1/products"), ("GET", "/v1"), ("GET", "/v1/x"), ("GET", "/v1/prices/a/b")]
        {
            assert_eq!(found(method, path), None, "{method} {path}");
        }
    }
}

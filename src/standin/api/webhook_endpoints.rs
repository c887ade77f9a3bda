//! Webhook endpoints (docs.stripe.com/api/webhook_endpoints). The secret is told once, at their creation.

use serde_json::{Value, json};

use super::super::refusal::Refusal;
use super::super::schema::{Field, Kind, METADATA, PAGE, TEXT, clear, opt, req};
use super::super::world::{Call, World, overlay};
use super::{Done, Route, route};

const KIND: &str = "webhook_endpoint";
const ALL: &str = "/v1/webhook_endpoints";
const ONE: &str = "/v1/webhook_endpoints/{webhook_endpoint}";
/// Endpoints of one account, at most (docs.stripe.com/webhooks).
const MOST: usize = 16;

/// Operations on endpoints.
pub const ROUTES: &[Route] = &[
    route("POST", ALL, "webhook", &[FIELDS, NEW], make),
    route("GET", ALL, "webhook", &[PAGE], |world, call| world.list(KIND, call, |_| true)),
    route("GET", ONE, "webhook", &[], |world, call| world.named(KIND, call).cloned()),
    route("POST", ONE, "webhook", &[FIELDS, CHANGES], change),
    route("DELETE", ONE, "webhook", &[], delete),
];

const EVENTS: Kind = Kind::Many(&TEXT, 500);
const FIELDS: &[Field] = &[clear("description", TEXT), METADATA];
const NEW: &[Field] =
    &[req("enabled_events", EVENTS), req("url", TEXT), opt("api_version", TEXT), opt("connect", Kind::Flag)];
const CHANGES: &[Field] = &[opt("enabled_events", EVENTS), opt("url", TEXT), opt("disabled", Kind::Flag)];

fn make(world: &mut World, call: &Call) -> Done {
    let secret = world.ids.secret();
    new(world, call, &secret)
}

/// Makes an endpoint that signs with this secret.
pub fn new(world: &mut World, call: &Call, secret: &str) -> Done {
    check_url(call)?;
    if world.shelf(KIND).is_some_and(|shelf| shelf.newest_first().count() >= MOST) {
        let message = format!("You have reached the maximum of {MOST} test webhook endpoints.");
        return Err(Refusal::conflict(None, "url", message));
    }
    let mut endpoint = json!({
        "api_version": null, "application": null, "description": null, "metadata": {}, "status": "enabled",
    });
    let mut given = call.params.clone();
    given.remove("connect");
    overlay(&mut endpoint, &given);
    let mut made = world.create(KIND, "we", endpoint)?;
    let id = made["id"].as_str().unwrap_or_default().to_owned();
    world.outbox.know(&id, secret);
    made["secret"] = json!(secret);
    Ok(made)
}

fn change(world: &mut World, call: &Call) -> Done {
    check_url(call)?;
    let disabled = call.params.get("disabled").and_then(Value::as_bool);
    let mut params = call.params.clone();
    params.remove("disabled");
    if let Some(disabled) = disabled {
        params.insert("status".to_owned(), json!(if disabled { "disabled" } else { "enabled" }));
    }
    world.update(KIND, &call.with(params)).map(|(_, after)| after)
}

fn check_url(call: &Call) -> Result<(), Refusal> {
    match call.text("url") {
        Some(url) if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) => {
            Err(Refusal::conflict(
                Some("url_invalid"),
                "url",
                "Invalid URL: an explicit scheme (such as https) must be provided.",
            ))
        }
        _ => Ok(()),
    }
}

fn delete(world: &mut World, call: &Call) -> Done {
    let id = world.named(KIND, call)?["id"].clone();
    world.remove(KIND, call.id().0);
    world.outbox.forget(call.id().0);
    Ok(json!({ "id": id, "object": KIND, "deleted": true }))
}

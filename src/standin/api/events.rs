//! Events that happened (docs.stripe.com/api/events). They can be had for thirty days.

use serde_json::{Value, json};

use super::super::refusal::Refusal;
use super::super::schema::{Field, Kind, PAGE, TEXT, opt};
use super::super::shelf::in_range;
use super::super::world::{Call, World};
use super::{Done, Route, route};

const KIND: &str = "event";
/// Seconds for which events can be had.
const KEPT_FOR: i64 = 30 * 24 * 3600;

/// Operations on events.
pub const ROUTES: &[Route] = &[
    route("GET", "/v1/events", KIND, &[PAGE, FILTERS], list),
    route("GET", "/v1/events/{id}", KIND, &[], retrieve),
];

const FILTERS: &[Field] = &[
    opt("created", Kind::Range),
    opt("delivery_success", Kind::Flag),
    opt("type", TEXT),
    opt("types", Kind::Many(&TEXT, 20)),
];

fn is_kept(world: &World, event: &Value) -> bool {
    event["created"].as_i64().is_some_and(|created| created > world.now() - KEPT_FOR)
}

fn list(world: &mut World, call: &Call) -> Done {
    if call.params.contains_key("type") && call.params.contains_key("types") {
        let message = "You may only specify one of these parameters: type, types.";
        return Err(Refusal::invalid(None, "types", message));
    }
    world.list(KIND, call, |event| {
        let arrived = || json!(event["pending_webhooks"] == 0);
        is_kept(world, event)
            && call.text("type").is_none_or(|pattern| fits(pattern, &event["type"]))
            && call
                .params
                .get("types")
                .and_then(Value::as_array)
                .is_none_or(|types| types.contains(&event["type"]))
            && call.params.get("delivery_success").is_none_or(|wanted| *wanted == arrived())
            && in_range(call.params.get("created"), &event["created"])
    })
}

/// `customer.*` is every event of a customer.
fn fits(pattern: &str, kind: &Value) -> bool {
    let kind = kind.as_str().unwrap_or_default();
    pattern.strip_suffix('*').map_or(pattern == kind, |start| kind.starts_with(start))
}

fn retrieve(world: &mut World, call: &Call) -> Done {
    let event = world.named(KIND, call)?;
    if is_kept(world, event) {
        return Ok(event.clone());
    }
    Err(Refusal::no_such(KIND, call.id().0, "id", http::StatusCode::NOT_FOUND))
}

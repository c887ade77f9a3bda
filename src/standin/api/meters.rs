//! Meters, usage and its summaries (docs.stripe.com/api/billing/meter, /meter-event, /meter-event-summary).

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::refusal::Refusal;
use super::super::schema::{Field, Kind, PAGE, TEXT, opt, req};
use super::super::shelf::page;
use super::super::usage::{Event, Sums};
use super::super::world::{Call, World, overlay};
use super::{Done, Route, create, route, update};

const KIND: &str = "billing.meter";
const ALL: &str = "/v1/billing/meters";
const ONE: &str = "/v1/billing/meters/{id}";
/// Where usage comes in.
pub const EVENTS: &str = "/v1/billing/meter_events";

/// Operations on meters and usage.
pub const ROUTES: &[Route] = &[
    route("POST", ALL, "billing_meter", &[FIELDS], make),
    route("GET", ALL, "billing_meter", &[PAGE, FILTERS], list),
    route("GET", ONE, "billing_meter", &[], |world, call| world.named(KIND, call).cloned()),
    route("POST", ONE, "billing_meter", &[CHANGES], |world, call| update(world, call, KIND)),
    route("POST", "/v1/billing/meters/{id}/deactivate", "billing_meter", &[], deactivate),
    route("POST", "/v1/billing/meters/{id}/reactivate", "billing_meter", &[], reactivate),
    route("GET", "/v1/billing/meters/{id}/event_summaries", "billing_meter", &[PAGE, SUMMARY], summaries),
    route("POST", EVENTS, "billing_meter_event", &[USAGE], record),
];

const FIELDS: &[Field] = &[
    opt(
        "customer_mapping",
        Kind::Object(&[req("event_payload_key", Kind::Text(100)), req("type", Kind::OneOf(&["by_id"]))]),
    ),
    req("default_aggregation", Kind::Object(&[req("formula", Kind::OneOf(&["count", "last", "sum"]))])),
    req("display_name", Kind::Text(250)),
    req("event_name", Kind::Text(100)),
    opt("value_settings", Kind::Object(&[req("event_payload_key", Kind::Text(100))])),
];
const CHANGES: &[Field] = &[opt("display_name", Kind::Text(250))];
const FILTERS: &[Field] = &[opt("status", Kind::OneOf(&["active", "inactive"]))];
const SUMMARY: &[Field] = &[
    req("customer", TEXT),
    req("start_time", Kind::Whole),
    req("end_time", Kind::Whole),
    opt("value_grouping_window", Kind::OneOf(&["day", "hour"])),
];
const USAGE: &[Field] = &[
    req("event_name", Kind::Text(100)),
    opt("identifier", Kind::Text(100)),
    req("payload", Kind::Pairs),
    opt("timestamp", Kind::Whole),
];

/// Usage may be so old, and so far ahead, in seconds. STANDIN-USAGE-2
const OLDEST: i64 = 35 * 24 * 3600;
const AHEAD: i64 = 5 * 60;
/// The most windows that one list of summaries is made of.
const MOST_WINDOWS: i64 = 10_000;

fn make(world: &mut World, call: &Call) -> Done {
    // STANDIN-METER-1
    if let Some(meter) = active(world, call.text("event_name").unwrap_or_default()) {
        let message = format!(
            "There is already an active meter (`{}`) of this event_name.",
            meter["id"].as_str().unwrap_or_default()
        );
        return Err(Refusal::conflict(Some("resource_already_exists"), "event_name", message));
    }
    let mut meter = json!({
        "customer_mapping": { "event_payload_key": "stripe_customer_id", "type": "by_id" },
        "event_time_window": null, "status": "active", "status_transitions": { "deactivated_at": null },
        "updated": world.now(), "value_settings": { "event_payload_key": "value" },
    });
    overlay(&mut meter, &call.params);
    create(world, call, KIND, "mtr_test", meter)
}

fn active<'a>(world: &'a World, event_name: &str) -> Option<&'a Value> {
    let mut meters = world.shelf(KIND)?.newest_first();
    meters.find(|meter| meter["event_name"] == event_name && meter["status"] == "active")
}

fn list(world: &mut World, call: &Call) -> Done {
    world.list(KIND, call, |meter| call.wants("status", &meter["status"]))
}

fn deactivate(world: &mut World, call: &Call) -> Done {
    let now = world.now();
    turn(world, call, ("inactive", json!(now), "billing.meter.deactivated"))
}

fn reactivate(world: &mut World, call: &Call) -> Done {
    turn(world, call, ("active", Value::Null, "billing.meter.reactivated"))
}

fn turn(world: &mut World, call: &Call, to: (&str, Value, &str)) -> Done {
    let before = world.named(KIND, call)?.clone();
    let (status, since, event) = to;
    if before["status"] == status {
        return Err(Refusal::conflict(None, "id", format!("The meter is already {status}.")));
    }
    let mut after = before.clone();
    after["status"] = json!(status);
    after["status_transitions"]["deactivated_at"] = since;
    after["updated"] = json!(world.now());
    world.replace(KIND, &after);
    super::changed(world, call, event, &before, &after);
    Ok(after)
}

/// Meter and customer of a usage event, by which two at once are told. Only what is complete.
pub fn lane(world: &World, params: &Map<String, Value>) -> Option<(String, String)> {
    let event_name = params.get("event_name")?.as_str()?;
    let key = active(world, event_name)?["customer_mapping"]["event_payload_key"].as_str()?;
    Some((event_name.to_owned(), params.get("payload")?.get(key)?.as_str()?.to_owned()))
}

/// Takes in usage. 200 means accepted: an event of an unknown meter or customer is, and never counts.
fn record(world: &mut World, call: &Call) -> Done {
    let (now, time) = (world.now(), world.time());
    let timestamp = call.params.get("timestamp").and_then(Value::as_i64).unwrap_or(now);
    if timestamp < now - OLDEST {
        let message = "The timestamp must be within the past 35 calendar days.";
        return Err(Refusal::conflict(Some("timestamp_too_far_in_past"), "timestamp", message));
    }
    if timestamp > now + AHEAD {
        let message = "The timestamp must be at most 5 minutes in the future.";
        return Err(Refusal::conflict(Some("timestamp_in_future"), "timestamp", message));
    }
    let event_name = call.text("event_name").unwrap_or_default();
    let meter = active(world, event_name).cloned().unwrap_or_default(); // STANDIN-USAGE-4
    let payload = &call.params["payload"];
    let part = |settings: &str| {
        let key = meter[settings]["event_payload_key"].as_str()?;
        Some((key, payload.get(key)?.as_str()?))
    };
    let value = match part("value_settings") {
        _ if meter["default_aggregation"]["formula"] == "count" => Some(1),
        // STANDIN-USAGE-3
        Some((key, text)) => Some(text.parse::<i64>().map_err(|_| {
            let message = format!("Invalid value for {key}: {text} is not a whole number.");
            Refusal::conflict(Some("meter_event_invalid_value"), &format!("payload[{key}]"), message)
        })?),
        None => None,
    };
    let identifier = match call.text("identifier") {
        Some(given) => given.to_owned(),
        None => world.ids.next("mtrevt"),
    };
    if !world.usage.take(&identifier, time) {
        let message = format!("An event already exists with identifier {identifier}.");
        return Err(Refusal::conflict(None, "identifier", message));
    }
    let customer =
        part("customer_mapping").map(|(_, id)| id).filter(|id| world.live("customer", id).is_some());
    if let (Some(meter), Some(customer), Some(value)) = (meter["id"].as_str(), customer, value) {
        // STANDIN-USAGE-5
        let lag = std::time::Duration::from_secs(world.settings.summary_lag_seconds);
        let visible = (!world.dropping).then(|| time.plus(lag));
        if !world.usage.add(meter, customer, Event { timestamp, value, visible }) {
            return Err(Refusal::plain(
                StatusCode::INSUFFICIENT_STORAGE,
                "The stand-in is full: start it again.",
            ));
        }
    }
    Ok(json!({
        "object": "billing.meter_event", "created": now, "event_name": event_name, "identifier": identifier,
        "livemode": false, "payload": payload, "timestamp": timestamp,
    }))
}

/// What a customer used over `[start_time, end_time)`, in one sum or by hours or days in UTC; the newest window first, and
/// none where nothing was used. STANDIN-SUMMARY-1
fn summaries(world: &mut World, call: &Call) -> Done {
    let meter = world.named(KIND, call)?.clone();
    let customer = call.text("customer").unwrap_or_default();
    world.need("customer", customer, "customer", StatusCode::BAD_REQUEST)?;
    let number = |name: &str| call.params.get(name).and_then(Value::as_i64).unwrap_or_default();
    let (start, end) = (number("start_time"), number("end_time"));
    let window = match call.text("value_grouping_window") {
        Some("hour") => 3600,
        Some(_) => 24 * 3600,
        None => end.saturating_sub(start),
    };
    let grain = if call.params.contains_key("value_grouping_window") { window } else { 60 };
    for (name, time) in [("start_time", start), ("end_time", end)] {
        if time < 0 || time % grain != 0 {
            let message = format!("{name} must be aligned with the boundaries of {grain} seconds (UTC).");
            return Err(Refusal::conflict(None, name, message));
        }
    }
    if start >= end || (end - start) / window > MOST_WINDOWS {
        return Err(Refusal::conflict(
            None,
            "end_time",
            "end_time must be after start_time, and not too far from it.",
        ));
    }
    let meter_id = meter["id"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    for from in (start..end).step_by(usize::try_from(window).unwrap_or(1)) {
        let sums = world.usage.sums(meter_id, customer, (from, from + window), Some(world.time()));
        if sums.count > 0 {
            found.push(json!({
                "id": world.ids.of("mtrusg_test", &format!("{meter_id} {customer} {from} {window}")),
                "object": "billing.meter_event_summary", "aggregated_value": aggregate(&meter, sums),
                "end_time": from + window, "livemode": false, "meter": meter_id, "start_time": from,
            }));
        }
    }
    page(found.iter().rev(), &call.params, &call.path)
}

/// What a meter makes of usage.
pub fn aggregate(meter: &Value, sums: Sums) -> i64 {
    match meter["default_aggregation"]["formula"].as_str() {
        Some("count") => sums.count,
        Some("last") => sums.last.map_or(0, |(_, value)| value),
        _ => sums.sum,
    }
}

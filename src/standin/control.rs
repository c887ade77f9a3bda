//! The stand-in's own endpoints, under `/_standin/`: none of them is Stripe's. JSON in and out, without a key: the
//! stand-in holds nothing of anybody.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::answer::Answer;
use super::fault::Fault;

/// Faults that may wait at once.
const MOST_FAULTS: usize = 10_000;
/// The furthest that one request moves the clock, in seconds: ten years.
const FURTHEST: u64 = 10 * 366 * 24 * 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    advance_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    summary_lag_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    key: String,
    permissions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Secret {
    endpoint: String,
    #[serde(default)]
    secret: Option<String>,
}

/// Answers what is not Stripe's.
pub fn answer(shared: &Arc<Shared>, parts: &Parts, body: &Bytes) -> Answer {
    let path = parts.uri.path();
    let done = match (parts.method.as_str(), path) {
        ("GET", "/") => return welcome(),
        ("GET", "/_standin/faults") => Ok(json!({ "faults": shared.world().faults })),
        ("POST", "/_standin/faults") => read(body).and_then(|fault| add(shared, fault)),
        ("DELETE", "/_standin/faults") => {
            shared.world().faults.clear();
            Ok(json!({ "faults": [] }))
        }
        ("GET", "/_standin/clock") => Ok(clock(shared)),
        ("POST", "/_standin/clock") => read(body).and_then(|to: Clock| advance(shared, to.advance_seconds)),
        ("POST", "/_standin/settings") => read(body).map(|settings: Settings| {
            shared.world().usage.lag = Duration::from_secs(settings.summary_lag_seconds.min(FURTHEST));
            json!({ "summary_lag_seconds": settings.summary_lag_seconds })
        }),
        ("POST", "/_standin/keys") => read(body).and_then(|key: Key| restrict(shared, &key)),
        ("POST", "/_standin/webhook_secrets") => read(body).map(|secret: Secret| roll(shared, &secret)),
        ("GET", "/_standin/requests") => Ok(requests(shared)),
        ("GET", "/_standin/deliveries") => Ok(deliveries(shared)),
        ("GET", _) if path.starts_with("/_standin/portal/") => return portal(shared, path),
        _ => return refuse(StatusCode::NOT_FOUND, "The stand-in has no such page. Its API is under /v1/."),
    };
    match done {
        Ok(object) => Answer::json(StatusCode::OK, &object),
        Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
    }
}

fn refuse(status: StatusCode, message: &str) -> Answer {
    Answer::json(status, &json!({ "error": { "message": message, "type": "standin" } }))
}

fn read<T: for<'de> Deserialize<'de>>(body: &Bytes) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn add(shared: &Arc<Shared>, fault: Fault) -> Result<Value, String> {
    let mut world = shared.world();
    if world.faults.len() >= MOST_FAULTS || fault.times == 0 {
        return Err(format!("a fault hits at least one request, and at most {MOST_FAULTS} faults wait"));
    }
    world.faults.push_back(fault);
    Ok(json!({ "faults": world.faults }))
}

fn clock(shared: &Arc<Shared>) -> Value {
    let now = shared.world().time();
    json!({ "now": now.as_seconds(), "utc": now })
}

fn advance(shared: &Arc<Shared>, seconds: u64) -> Result<Value, String> {
    if seconds > FURTHEST {
        return Err(format!("advance_seconds: at most {FURTHEST}"));
    }
    shared.world().advance(Duration::from_secs(seconds));
    shared.wake.notify_one();
    Ok(clock(shared))
}

fn restrict(shared: &Arc<Shared>, key: &Key) -> Result<Value, String> {
    if !key.key.starts_with("rk_test_") {
        return Err("key: a restricted key begins with rk_test_".to_owned());
    }
    if !shared.world().keys.restrict(&key.key, key.permissions.iter().cloned()) {
        return Err("there are too many keys".to_owned());
    }
    Ok(json!({ "permissions": key.permissions }))
}

/// With a secret, the endpoint signs with it besides the old one; without, the old ones are forgotten.
fn roll(shared: &Arc<Shared>, secret: &Secret) -> Value {
    let mut world = shared.world();
    match &secret.secret {
        Some(new) => world.outbox.know(&secret.endpoint, new),
        None => world.outbox.retire(&secret.endpoint),
    }
    json!({ "endpoint": secret.endpoint })
}

fn requests(shared: &Arc<Shared>) -> Value {
    let world = shared.world();
    let all = world.seen.iter().map(|seen| {
        json!({ "method": seen.method, "path": seen.path, "params": seen.params, "idempotency_key": seen.key })
    });
    json!({ "requests": all.collect::<Vec<_>>() })
}

fn deliveries(shared: &Arc<Shared>) -> Value {
    let made = shared.world().outbox.made();
    let all = made.iter().map(|attempt| {
        json!({ "event": attempt.event, "type": attempt.kind, "endpoint": attempt.endpoint, "status": attempt.status })
    });
    json!({ "deliveries": all.collect::<Vec<_>>() })
}

fn welcome() -> Answer {
    let text = "This is a stand-in for Stripe's API, made for trying out Weir. It is not Stripe, knows nobody's money,\n\
                and forgets everything when it stops. Its API is under /v1/, its own controls under /_standin/.\n";
    Answer::new(StatusCode::OK, "text/plain; charset=utf-8", text)
}

/// What stands in the place of the customer portal.
fn portal(shared: &Arc<Shared>, path: &str) -> Answer {
    let world = shared.world();
    let session = path.rsplit('/').next().and_then(|id| world.live("billing_portal.session", id));
    let Some(session) = session else {
        return refuse(StatusCode::NOT_FOUND, "There is no such session of the customer portal.");
    };
    let customer = session["customer"].as_str().unwrap_or_default();
    let back = session["return_url"]
        .as_str()
        .filter(|url| url.starts_with("http"))
        .map_or(String::new(), |url| format!("<p><a href=\"{}\">Back</a></p>", escape(url)));
    let name =
        world.live("customer", customer).and_then(|customer| customer["name"].as_str()).unwrap_or(customer);
    let page = format!(
        "<!doctype html><meta charset=\"utf-8\"><title>Stand-in, not Stripe</title>\
         <h1>This is a stand-in, not Stripe</h1>\
         <p>With Stripe, the customer portal of {} ({}) would open here. No money is moved.</p>{back}\n",
        escape(name),
        escape(customer),
    );
    Answer::new(StatusCode::OK, "text/html; charset=utf-8", page)
        .with("content-security-policy", "default-src 'none'; frame-ancestors 'none'")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

//! The stand-in's own endpoints, under `/_standin/`: none of them is Stripe's. JSON in and out, without a key: the
//! stand-in holds nothing of anybody.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::billing::dispute;
use super::fault::Fault;
use super::refusal::Refusal;
use super::world::Call;
use super::{Shared, checkout, pages};

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
struct Card {
    card: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dispute {
    charge: String,
    #[serde(default)]
    amount: Option<i64>,
    #[serde(default = "fraudulent")]
    reason: String,
}

fn fraudulent() -> String {
    "fraudulent".to_owned()
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Verdict {
    Won,
    Lost,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Closing {
    outcome: Verdict,
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
        ("GET", "/_standin/held") => Ok(json!({ "held": shared.held.count() })),
        ("DELETE", "/_standin/held") => {
            shared.held.release();
            Ok(json!({ "held": 0 }))
        }
        ("GET", "/_standin/clock") => Ok(clock(shared)),
        ("POST", "/_standin/clock") => read(body).and_then(|to: Clock| advance(shared, to.advance_seconds)),
        ("GET", "/_standin/settings") => Ok(settings(shared)),
        ("POST", "/_standin/settings") => {
            read(body).and_then(|change| shared.world().settings.change(change)).map(|()| settings(shared))
        }
        ("POST", "/_standin/keys") => read(body).and_then(|key: Key| restrict(shared, &key)),
        ("POST", "/_standin/webhook_secrets") => read(body).map(|secret: Secret| roll(shared, &secret)),
        ("GET", "/_standin/requests") => Ok(requests(shared)),
        ("GET", "/_standin/deliveries") => Ok(deliveries(shared)),
        ("POST", "/_standin/disputes") => read(body).and_then(|dispute| open(shared, &dispute)),
        _ => match deeper(shared, parts, body) {
            Some(done) => done,
            None => {
                let page = pages::answer(shared, parts, body);
                let nowhere = "The stand-in has no such page. Its API is under /v1/.";
                return page.unwrap_or_else(|| refuse(StatusCode::NOT_FOUND, nowhere));
            }
        },
    };
    match done {
        Ok(object) => Answer::json(StatusCode::OK, &object),
        Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
    }
}

/// The controls of one object.
fn deeper(shared: &Arc<Shared>, parts: &Parts, body: &Bytes) -> Option<Result<Value, String>> {
    let path: Vec<_> = parts.uri.path().strip_prefix("/_standin/")?.split('/').collect();
    let said = |refusal: Refusal| refusal.message().to_owned();
    match (parts.method.as_str(), path.as_slice()) {
        // A page's form comes in another encoding, and gets a page.
        ("POST", ["checkout", id]) if !pages::is_form(parts, body) => {
            Some(read(body).and_then(|Card { card }| {
                shared.act(|world| checkout::complete(world, id, &card)).map_err(said)
            }))
        }
        ("POST", ["customers", id, "card"]) => Some(read(body).and_then(|Card { card }| {
            shared.act(|world| checkout::set_card(world, id, &card)).map_err(said)
        })),
        ("POST", ["disputes", id]) => Some(read(body).and_then(|Closing { outcome }| {
            let won = matches!(outcome, Verdict::Won);
            shared.act(|world| dispute::close(world, &Call::nobodys(), id, won)).map_err(said)
        })),
        _ => None,
    }
}

fn open(shared: &Arc<Shared>, asked: &Dispute) -> Result<Value, String> {
    let what = (asked.amount, asked.reason.as_str());
    let done = shared.act(|world| dispute::open(world, &Call::nobodys(), &asked.charge, what));
    done.map_err(|refusal| refusal.message().to_owned())
}

fn settings(shared: &Arc<Shared>) -> Value {
    json!(shared.world().settings)
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
    shared.advance(Duration::from_secs(seconds));
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

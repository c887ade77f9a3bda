//! Events, and their way to the webhook endpoints (docs.stripe.com/webhooks).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};

use super::Shared;
use super::fault::{self, Trouble};
use super::world::{Call, World};
use crate::clock::Timestamp;

/// How long an endpoint may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How often the clock is looked at while a delivery waits for its next attempt.
const LOOK: Duration = Duration::from_millis(250);
/// Seconds by the stand-in's clock before each further attempt: three days in all. STANDIN-HOOK-2
const PAUSES: &[u64] = &[60, 300, 1_800, 7_200, 18_000, 36_000, 43_200, 43_200, 43_200, 43_200];
/// Deliveries that wait; further ones are not made.
const MOST_WAITING: usize = 100_000;
/// Attempts that are remembered.
const MOST_MADE: usize = 10_000;

/// One attempt to deliver an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// `evt_...`.
    pub event: String,
    /// Its type.
    pub kind: String,
    /// `we_...`.
    pub endpoint: String,
    /// The status of the answer; none where there was no answer.
    pub status: Option<u16>,
}

#[derive(Debug, Clone)]
struct Delivery {
    event: String,
    kind: String,
    endpoint: String,
    attempt: usize,
    due: Timestamp,
    /// Faults have been looked at.
    sorted: bool,
    /// Beside the delivery that counts.
    extra: bool,
}

/// What is on its way.
#[derive(Default)]
pub struct Outbox {
    /// The secrets that each endpoint signs with, the newest first.
    secrets: BTreeMap<String, Vec<String>>,
    waiting: VecDeque<Delivery>,
    /// Goes after the next one.
    held: Option<Delivery>,
    sending: bool,
    made: VecDeque<Attempt>,
}

impl Outbox {
    /// An endpoint signs with this secret; with those from before, too, until they are forgotten.
    pub fn know(&mut self, endpoint: &str, secret: &str) {
        self.secrets.entry(endpoint.to_owned()).or_default().insert(0, secret.to_owned());
    }

    /// Leaves an endpoint only its newest secret.
    pub fn retire(&mut self, endpoint: &str) {
        if let Some(secrets) = self.secrets.get_mut(endpoint) {
            secrets.truncate(1);
        }
    }

    /// An endpoint is gone, and what was on its way to it.
    pub fn forget(&mut self, endpoint: &str) {
        self.secrets.remove(endpoint);
        self.waiting.retain(|delivery| delivery.endpoint != endpoint);
    }

    /// The attempts that were made, the oldest first.
    pub fn made(&self) -> Vec<Attempt> {
        self.made.iter().cloned().collect()
    }

    /// Whether anything goes out at this moment, or could.
    pub fn is_busy(&self, now: Timestamp) -> bool {
        self.sending || self.waiting.iter().any(|delivery| delivery.due <= now)
    }
}

/// Makes an event of what happened to an object and sends it to every endpoint that asked for it.
pub fn tell(
    world: &mut World,
    call: &Call,
    kind: &str,
    object: &Value,
    previous: Option<Map<String, Value>>,
) {
    let endpoints: Vec<String> = world
        .shelf("webhook_endpoint")
        .into_iter()
        .flat_map(super::shelf::Shelf::newest_first)
        .filter(|endpoint| wants(endpoint, kind))
        .filter_map(|endpoint| endpoint["id"].as_str().map(str::to_owned))
        .collect();
    let room = world.outbox.waiting.len() + endpoints.len() <= MOST_WAITING;
    let endpoints = if room { endpoints } else { Vec::new() };
    let mut object = object.clone();
    super::api::prune(&mut object, "", &[]);
    let mut data = json!({ "object": object });
    if let Some(previous) = previous {
        data["previous_attributes"] = Value::Object(previous);
    }
    // What happens by itself, nobody asked for.
    let request = Some(&call.request).filter(|request| !request.is_empty());
    let event = json!({
        "api_version": super::API_VERSION.as_str(), "data": data, "pending_webhooks": endpoints.len(),
        "request": { "id": request, "idempotency_key": call.key }, "type": kind,
    });
    // Where there is no room for events, there is none for objects either, and that has been said.
    let Ok(event) = world.create("event", "evt", event) else { return };
    let id = event["id"].as_str().unwrap_or_default();
    let due = world.time();
    for endpoint in endpoints.into_iter().rev() {
        let (event, kind) = (id.to_owned(), kind.to_owned());
        world.outbox.waiting.push_back(Delivery {
            event,
            kind,
            endpoint,
            attempt: 0,
            due,
            sorted: false,
            extra: false,
        });
    }
}

fn wants(endpoint: &Value, kind: &str) -> bool {
    endpoint["status"] == "enabled"
        && endpoint["enabled_events"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|wanted| wanted == "*" || wanted == kind)
}

/// The next delivery that is due, after the faults had their say.
fn next(world: &mut World) -> Option<Delivery> {
    let now = world.time();
    loop {
        let place = world.outbox.waiting.iter().position(|delivery| delivery.due <= now)?;
        let mut delivery = world.outbox.waiting.remove(place)?;
        if !std::mem::replace(&mut delivery.sorted, true) {
            match fault::take(&mut world.faults, None, &delivery.kind).map(|fault| fault.fault) {
                Some(Trouble::ReorderDelivery) if world.outbox.held.is_none() => {
                    world.outbox.held = Some(delivery);
                    continue;
                }
                Some(Trouble::DuplicateDelivery) => {
                    world.outbox.waiting.push_front(Delivery { extra: true, ..delivery.clone() });
                }
                _ => {}
            }
        }
        world.outbox.sending = true;
        return Some(delivery);
    }
}

/// Where it goes, what it says, and the signature over that. None where the endpoint or the event is gone.
fn letter(world: &World, delivery: &Delivery) -> Option<(String, String, String)> {
    let endpoint = world.live("webhook_endpoint", &delivery.endpoint)?;
    let mut event = world.live("event", &delivery.event)?.clone();
    if endpoint["api_version"].is_string() {
        event["api_version"].clone_from(&endpoint["api_version"]);
    }
    let body = format!("{event:#}");
    let secrets = world.outbox.secrets.get(&delivery.endpoint)?;
    Some((endpoint["url"].as_str()?.to_owned(), signature(secrets, world.wall(), &body), body))
}

/// `Stripe-Signature`: HMAC-SHA-256 over the time and the raw body, once per secret
/// (docs.stripe.com/webhooks#verify-manually). STANDIN-HOOK-1
pub fn signature(secrets: &[String], time: i64, body: &str) -> String {
    let mut header = format!("t={time}");
    for secret in secrets {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, format!("{time}.{body}").as_bytes());
        header.push_str(",v1=");
        header.push_str(&HEXLOWER.encode(tag.as_ref()));
    }
    header
}

/// Notes what became of an attempt, and plans the next one where it failed.
fn done(world: &mut World, delivery: Delivery, status: Option<u16>) {
    let outbox = &mut world.outbox;
    outbox.sending = false;
    if outbox.made.len() == MOST_MADE {
        outbox.made.pop_front();
    }
    let Delivery { event, kind, endpoint, .. } = delivery.clone();
    outbox.made.push_back(Attempt { event, kind, endpoint, status });
    if let Some(held) = outbox.held.take() {
        outbox.waiting.push_front(held);
    }
    if delivery.extra {
        return;
    }
    if status.is_some_and(|status| (200..300).contains(&status)) {
        if let Some(event) = world.live("event", &delivery.event).cloned() {
            let left = event["pending_webhooks"].as_i64().unwrap_or_default() - 1;
            let mut event = event;
            event["pending_webhooks"] = json!(left);
            world.replace("event", &event);
        }
    } else if let Some(pause) = PAUSES.get(delivery.attempt) {
        let due = world.time().plus(Duration::from_secs(*pause));
        world.outbox.waiting.push_back(Delivery { attempt: delivery.attempt + 1, due, ..delivery });
    }
}

/// Delivers, one after the other, until the stand-in stops.
pub async fn run(shared: Arc<Shared>, client: reqwest::Client) {
    let stop = shared.tasks.stopping().clone();
    while !stop.is_cancelled() {
        let (job, is_waiting) = {
            let mut world = shared.world();
            let job = next(&mut world).map(|delivery| (letter(&world, &delivery), delivery));
            (job, !world.outbox.waiting.is_empty())
        };
        if let Some((letter, delivery)) = job {
            let status = match letter {
                Some(letter) => stop.run_until_cancelled(send(&client, letter)).await.flatten(),
                None => None,
            };
            done(&mut shared.world(), delivery, status);
            shared.settled.notify_waiters();
            continue;
        }
        shared.settled.notify_waiters();
        tokio::select! {
            () = shared.wake.notified() => {}
            () = stop.cancelled() => {}
            () = tokio::time::sleep(LOOK), if is_waiting => {}
        }
    }
}

async fn send(client: &reqwest::Client, letter: (String, String, String)) -> Option<u16> {
    let (url, signature, body) = letter;
    let request = client
        .post(url)
        .header("Content-Type", "application/json; charset=utf-8")
        .header("Stripe-Signature", signature)
        .body(body);
    Some(request.send().await.ok()?.status().as_u16())
}

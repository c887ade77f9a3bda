//! Whether Stripe tells Weir what happens. <https://docs.stripe.com/api/webhook_endpoints>

use std::collections::BTreeMap;

use miniserde::Deserialize;
use stripe_client::{RequestBuilder, StripeMethod};

use super::super::events::{EVENTS, PATH};
use super::super::report::{Line, Problem, Verdict};
use super::super::stripe::{Key, Stripe};

/// As much of an endpoint as is looked at; the crate that has it whole is large.
#[derive(Deserialize)]
struct Endpoint {
    id: String,
    url: String,
    status: String,
    enabled_events: Vec<String>,
}

#[derive(Deserialize)]
struct Endpoints {
    data: Vec<Endpoint>,
}

pub(super) async fn check(stripe: &Stripe, public_url: &str) -> Line {
    match look(stripe, public_url).await {
        Ok(id) => {
            Line::new(Verdict::There, "webhook endpoint", format!("{id}, {} types of events", EVENTS.len()))
        }
        Err(Problem(text)) => Line::new(Verdict::Wrong, "webhook endpoint", text),
    }
}

async fn look(stripe: &Stripe, public_url: &str) -> Result<String, Problem> {
    let url = format!("{public_url}{PATH}");
    // An account may have 16 of them.
    let request = RequestBuilder::new(StripeMethod::Get, "/webhook_endpoints")
        .query(&BTreeMap::from([("limit", "100")]));
    let all: Endpoints = stripe.send_raw(request, Key::Fresh).await?;
    let Some(found) = all.data.into_iter().find(|endpoint| endpoint.url == url) else {
        return Err(Problem(format!(
            "none has the URL {url} (server.public_url and {PATH}); add one in the dashboard, with the events {}",
            EVENTS.join(", ")
        )));
    };
    let Endpoint { id, status, enabled_events, .. } = found;
    if status != "enabled" {
        return Err(Problem(format!("{id} is {status}; enable it in the dashboard")));
    }
    let is_heard = |event: &&str| enabled_events.iter().any(|enabled| enabled == "*" || enabled == event);
    let missing: Vec<_> = EVENTS.iter().copied().filter(|event| !is_heard(event)).collect();
    if missing.is_empty() {
        return Ok(id);
    }
    Err(Problem(format!("{id} does not hear of {}; add these events in the dashboard", missing.join(", "))))
}

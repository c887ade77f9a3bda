//! What calls cost: prices, credits, caps and keys, through the front door.

mod keys;
mod line;

use serde_json::{Value, json};

use crate::support::gateway::Key;
use crate::support::shop::Shop;
use crate::support::{Gateway, Modern, Reply};

/// A gateway on which changes of plan hold soon.
async fn gateway() -> Gateway {
    built(Gateway::build()).await
}

async fn built(builder: crate::support::gateway::Builder) -> Gateway {
    builder
        .set("metering.lead_ms", 500)
        .set("metering.lease_ms", 2_000)
        .set("server.drain_delay_ms", 0)
        .set("metering.top_up_url", "https://pay.example/{tenant}")
        .start()
        .await
}

fn shop(gateway: &Gateway) -> Shop<'_> {
    Shop { db: &gateway.app.db, clock: &gateway.app.clock }
}

/// A plan on which a piece of work costs a quarter of a credit.
fn terms(kind: &str, included: &str) -> Value {
    json!({ "kind": kind, "included": included, "tools": [
        { "name": "work", "server": "lab", "per_call": "0.25" },
        { "name": "echo", "per_call": 0 },
    ] })
}

async fn work(client: &Modern, id: &str) -> Reply {
    client.call("work", json!({ "id": id })).await
}

fn receipt(reply: &Reply) -> &Value {
    &reply.result()["_meta"]["dev.weir/receipt"]
}

fn client(gateway: &Gateway, key: &Key) -> Modern {
    Modern::new(gateway, key)
}

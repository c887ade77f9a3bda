//! What the stories stand on: a gateway on a port of its own, clients of every era, and tools that misbehave.

pub mod balancer;
pub mod business;
pub mod client;
pub mod cluster;
pub mod database;
pub mod door;
pub mod events;
pub mod fault;
pub mod flavours;
pub mod gateway;
pub mod legacy;
pub mod modern;
pub mod panics;
pub mod port;
pub mod private;
pub mod process;
pub mod raw;
pub mod recorder;
pub mod relay;
pub mod services;
pub mod shop;
pub mod stripe;
pub mod tools;

use std::future::Future;
use std::time::Duration;

pub use client::{Draft, Reply};
pub use events::Events;
pub use gateway::{Gateway, Key};
pub use legacy::Legacy;
pub use modern::Modern;

/// What a test waits for at most. Far more than anything takes; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for `future`, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Waits until `holds`, for what no event tells of.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

//! Keeps the lane: connects, tries it from time to time, and connects again where it does not work.

use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Held, Purpose};
use super::{Lane, Redis};

/// How often the connection is tried while nobody doubts it.
const LOOK: Duration = Duration::from_millis(500);
/// Shortest and longest wait between two attempts to connect; jitter comes on top.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

impl Redis {
    /// Keeps the connection alive until `stop` fires.
    pub async fn supervise(self, stop: CancellationToken) {
        // In a box: connecting keeps a lot of room.
        let _ = stop.run_until_cancelled(Box::pin(self.keep())).await;
    }

    async fn keep(&self) {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(RETRY.0)
            .with_max_delay(RETRY.1)
            .with_jitter()
            .without_max_times();
        let mut said = String::new();
        loop {
            let connect = || async { self.good_connection().await };
            let failed = |why: &String, _| {
                self.note(false);
                // Once per cause: an outage may last.
                if *why != said {
                    tracing::warn!(error = why, "no connection to Redis; trying again");
                    said.clone_from(why);
                }
            };
            let Ok(held) = connect.retry(backoff).notify(failed).await else { continue };
            said.clear();
            *self.lane() = Some(Lane::new(held.connection.clone()));
            self.note(true);
            self.0.metrics.redis_connections.inc();
            self.0.connected.send_modify(|count| *count += 1);
            self.watch(&held).await;
            *self.lane() = None;
            self.note(false);
        }
    }

    /// A connection that works.
    async fn good_connection(&self) -> Result<Held, String> {
        let held = self.connection(Purpose::Commands).await?;
        self.probe(held.connection.clone()).await?;
        Ok(held)
    }

    /// Returns when the connection no longer works.
    async fn watch(&self, held: &Held) {
        loop {
            let _ = tokio::time::timeout(LOOK, self.0.doubted.notified()).await;
            if let Err(error) = self.probe(held.connection.clone()).await {
                tracing::debug!(error, "the connection to Redis does not work any more");
                return;
            }
        }
    }

    /// Tries a connection. What it sends is a write of nothing: a server that only reads is not the one that we want,
    /// however well it answers.
    async fn probe(&self, mut connection: Connection) -> Result<(), String> {
        let mut delete = redis::cmd("DEL");
        delete.arg(self.keys().nothing());
        let probed = async {
            if self.0.pools.is_cluster {
                // To every master, where the deletion goes to one.
                redis::cmd("PING").query_async::<()>(&mut connection).await?;
            }
            delete.query_async::<()>(&mut connection).await
        };
        match tokio::time::timeout(self.0.timeout, probed).await {
            Ok(tried) => tried.map_err(|error| error.to_string()),
            Err(_) => Err("Redis does not answer in time".to_owned()),
        }
    }

    fn note(&self, up: bool) {
        let before = self.0.up.swap(up, Ordering::AcqRel);
        self.0.metrics.redis_up.set(i64::from(up));
        match (before, up) {
            (false, true) => tracing::info!("Redis is there"),
            (true, false) => tracing::warn!("Redis is away; this replica does without it"),
            _ => {}
        }
    }
}

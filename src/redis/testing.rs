//! Redis for unit tests: the private one that `scripts/with-services` starts, under a prefix of the test's own.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Redis;
use crate::clock::Clock;
use crate::config::{self, Millis};
use crate::id::ReplicaId;
use crate::telemetry::metrics::Metrics;

/// Runs a story against Redis, where there is one: in the recipes that bring services.
#[expect(clippy::disallowed_methods, reason = "the recipe names the services in the environment")]
pub(crate) async fn on_redis(story: impl AsyncFnOnce(Redis)) {
    let Ok(url) = std::env::var("WEIR_TEST_REDIS_URL") else { return };
    crate::egress::install_crypto();
    let config = config::Redis {
        url: url.into(),
        ca_file: None,
        prefix: format!("test-{}", ReplicaId::new()),
        timeout: Millis::new(2_000),
        lease: Millis::new(1_000),
    };
    let metrics = Arc::new(Metrics::new(Clock::system().now()).expect("metrics"));
    let redis = Redis::new(&config, metrics).expect("a client");
    let stop = CancellationToken::new();
    let mut connected = redis.connected();
    let supervised = crate::tasks::Tasks::new().spawn(redis.clone().supervise(stop.clone()));
    tokio::time::timeout(Duration::from_secs(10), connected.wait_for(|count| *count > 0))
        .await
        .expect("Redis answers")
        .expect("a supervisor");
    story(redis).await;
    stop.cancel();
    supervised.await.expect("no panic");
}

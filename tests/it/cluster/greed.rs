//! A tenant that asks for far more than it may have, and what it gets.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir::tasks::Tasks;

use super::load::exchange;
use crate::support::cluster::Cluster;
use crate::support::{Key, Modern};

/// Requests at once; one more waits, as clients do.
const AT_ONCE: usize = 64;

/// A rate as it is configured.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Requests at once after a while without any.
    pub burst: u32,
    /// Requests per second.
    pub per_second: u32,
}

impl Rate {
    /// How many requests `replicas` may let through within `time` at most, where the buckets were `refills` times full again
    /// because nobody knew any more how empty they were. What they lease ahead makes them wrong by an eighth of the
    /// burst, as `weir::limits` says.
    pub fn most(self, time: Duration, refills: u32, replicas: u32) -> u32 {
        let error = if self.burst < 8 * replicas { 0 } else { self.burst / 8 };
        self.burst * (1 + refills) + self.filled(time) + error
    }
}

impl Rate {
    /// Tokens that flow back in this time, rounded up.
    pub fn filled(self, time: Duration) -> u32 {
        let millis = u128::from(self.per_second) * time.as_millis();
        u32::try_from(millis.div_ceil(1000)).expect("a count of requests")
    }
}

/// A tenant that sends `TIMES` its rate, steadily.
pub struct Greedy {
    stop: CancellationToken,
    running: JoinHandle<()>,
    since: Instant,
    accepted: Arc<AtomicU32>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Greedy {
    /// Starts to send this many requests per second.
    pub fn start(cluster: &Cluster, key: &Key, per_second: u32) -> Self {
        let (stop, client) = (CancellationToken::new(), Modern::new(cluster, key));
        let (accepted, wrong) = (Arc::<AtomicU32>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (stopped, counted, noted) = (stop.clone(), accepted.clone(), wrong.clone());
        let (tasks, places) = (Tasks::new(), Arc::new(Semaphore::new(AT_ONCE)));
        let running = Tasks::new().spawn(async move {
            let mut timer = tokio::time::interval(Duration::from_secs(1) / per_second);
            while stopped.run_until_cancelled(timer.tick()).await.is_some() {
                let place = places.clone().acquire_owned().await.expect("a place");
                let (draft, counted, noted) =
                    (client.draft("tools/list", json!({})), counted.clone(), noted.clone());
                tasks.spawn(async move {
                    let _place = place;
                    match exchange(draft).await {
                        Ok((200, body)) if body["result"].is_object() => {
                            counted.fetch_add(1, Ordering::AcqRel);
                        }
                        Ok((200, body)) if body["error"]["code"] == -31001 => {}
                        other => {
                            noted.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{other:?}"));
                        }
                    }
                });
            }
            tasks.shut_down().await;
        });
        Self { stop, running, since: Instant::now(), accepted, wrong }
    }

    /// Waits until so many more have been accepted: the bucket is empty then, or was.
    pub async fn is_served(&self, more: u32) {
        let enough = self.accepted.load(Ordering::Acquire) + more;
        crate::support::eventually("more to be accepted", async || {
            self.accepted.load(Ordering::Acquire) >= enough
        })
        .await;
    }

    /// Stops. How many requests were accepted, in what time, and what was answered that is neither yes nor "too many".
    pub async fn stop(self) -> (u32, Duration, Vec<String>) {
        self.stop.cancel();
        self.running.await.expect("no panic");
        let wrong = std::mem::take(&mut *self.wrong.lock().unwrap_or_else(PoisonError::into_inner));
        (self.accepted.load(Ordering::Acquire), self.since.elapsed(), wrong)
    }
}

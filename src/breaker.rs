//! Circuit breakers: while a dependency is known to be away, what needs it fails at once instead of waiting for it.
//!
//! A failure is a suspicion and not a verdict: one broken connection says little about what is behind it. It makes the
//! [watch](Breaker::watch) look at once, and only what the watch finds opens the breaker. While it is open the watch alone
//! asks, with growing pauses; nobody's request is the probe. Where nobody watches, a breaker stays closed.

use std::fmt;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use prometheus::{IntCounter, IntGauge};
use tokio::sync::{Notify, watch};

/// How often the watch looks while nothing is suspected.
const EVERY: Duration = Duration::from_secs(1);
/// The least time between two looks, however much is suspected.
const LEAST: Duration = Duration::from_millis(50);
/// The first pause between two looks while the dependency is away, and the longest. Jitter makes each up to twice as long,
/// so that replicas do not all come back in the same moment.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The breaker of one dependency.
pub struct Breaker {
    /// What it is, in a word, for the log and for errors.
    name: &'static str,
    up: watch::Sender<bool>,
    suspicion: Notify,
    told: OnceLock<Told>,
}

/// Metrics that follow the breaker.
struct Told {
    up: IntGauge,
    refused: IntCounter,
}

impl Breaker {
    /// The closed breaker of the dependency called `name`.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, up: watch::Sender::new(true), suspicion: Notify::new(), told: OnceLock::new() }
    }

    /// Lets metrics follow from now on: `up` is 1 while the dependency answers, `refused` counts what was not let through.
    pub fn tell(&self, up: IntGauge, refused: IntCounter) {
        up.set(i64::from(self.is_up()));
        let _ = self.told.set(Told { up, refused });
    }

    /// What the dependency is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the dependency is there, as far as is known.
    #[must_use]
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Whether to try. What is not let through is counted.
    #[must_use]
    pub fn allow(&self) -> bool {
        let up = self.is_up();
        if let (false, Some(told)) = (up, self.told.get()) {
            told.refused.inc();
        }
        up
    }

    /// Something failed in a way that an absent dependency could explain: the watch looks.
    pub fn failed(&self) {
        self.suspicion.notify_one();
    }

    /// Returns when the dependency is found to be away; at once while it is.
    pub async fn tripped(&self) {
        // The sender is here, so waiting cannot fail.
        let _ = self.up.subscribe().wait_for(|up| !up).await;
    }

    /// Returns when the dependency is there; at once while it is.
    pub async fn restored(&self) {
        let _ = self.up.subscribe().wait_for(|up| *up).await;
    }

    /// Watches for ever. `look` asks the dependency and must bound its own time. When the future is dropped nobody looks any
    /// more, and everything is let through.
    pub async fn watch<F, Fut>(&self, look: F)
    where
        F: Fn() -> Fut,
        Fut: Future<Output = bool>,
    {
        let _watching = Watching(self);
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.suspicion.notified() => {}
            }
            if look().await {
                self.note(true);
            } else {
                self.note(false);
                tracing::error!(dependency = self.name, "away; what needs it is refused until it is back");
                self.wait_for(&look).await;
                self.note(true);
                tracing::info!(dependency = self.name, "back");
            }
            tokio::time::sleep(LEAST).await;
        }
    }

    /// Looks until the dependency is there.
    async fn wait_for<F, Fut>(&self, look: &F)
    where
        F: Fn() -> Fut,
        Fut: Future<Output = bool>,
    {
        for pause in pauses(FIRST_PAUSE, LONGEST_PAUSE) {
            tokio::time::sleep(pause).await;
            if look().await {
                return;
            }
        }
    }

    fn note(&self, up: bool) {
        self.up.send_if_modified(|known| std::mem::replace(known, up) != up);
        if let Some(told) = self.told.get() {
            told.up.set(i64::from(up));
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("name", &self.name).field("up", &self.is_up()).finish_non_exhaustive()
    }
}

/// Pauses between tries without end: each twice the one before, up to `longest`, and up to twice as long by jitter.
pub fn pauses(first: Duration, longest: Duration) -> impl Iterator<Item = Duration> {
    let builder = ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest);
    builder.without_max_times().with_factor(2.0).with_jitter().build()
}

/// Closes the breaker when nobody watches any more: it could not be closed otherwise.
struct Watching<'a>(&'a Breaker);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.up.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::tasks::Tasks;

    struct World {
        breaker: Arc<Breaker>,
        there: Arc<AtomicBool>,
        looks: Arc<AtomicUsize>,
        tasks: Tasks,
    }

    /// A breaker that is watched.
    fn world() -> World {
        let breaker = Arc::new(Breaker::new("thing"));
        let (there, looks) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let tasks = Tasks::new();
        let (watched, seen, counted) = (breaker.clone(), there.clone(), looks.clone());
        let stop = tasks.stopping().clone();
        tasks.spawn(async move {
            let look = || async {
                counted.fetch_add(1, Ordering::Relaxed);
                seen.load(Ordering::Relaxed)
            };
            stop.run_until_cancelled(watched.watch(look)).await;
        });
        World { breaker, there, looks, tasks }
    }

    #[tokio::test]
    async fn a_failure_alone_opens_nothing() {
        let world = world();
        world.breaker.failed();
        while world.looks.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(world.breaker.allow());
    }

    #[tokio::test]
    async fn what_is_away_is_refused_until_it_is_back() {
        let world = world();
        let (up, refused) = (IntGauge::new("up", "up").expect("a name"), IntCounter::new("no", "no"));
        let refused = refused.expect("a name");
        world.breaker.tell(up.clone(), refused.clone());
        assert_eq!(up.get(), 1);
        world.there.store(false, Ordering::Relaxed);
        world.breaker.failed();
        world.breaker.tripped().await;
        assert!(!world.breaker.allow() && !world.breaker.is_up());
        assert_eq!((up.get(), refused.get()), (0, 1));
        let looks = world.looks.load(Ordering::Relaxed);
        while world.looks.load(Ordering::Relaxed) < looks + 2 {
            tokio::task::yield_now().await;
        }
        assert!(!world.breaker.is_up(), "looking changes nothing while nothing answers");

        world.there.store(true, Ordering::Relaxed);
        world.breaker.restored().await;
        assert!(world.breaker.allow());
        assert_eq!((up.get(), refused.get()), (1, 1));
    }

    #[tokio::test]
    async fn what_nobody_watches_is_tried() {
        let world = world();
        world.there.store(false, Ordering::Relaxed);
        world.breaker.failed();
        world.breaker.tripped().await;
        world.tasks.shut_down().await;
        assert!(world.breaker.allow());
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_have_no_end() {
        let all: Vec<_> = pauses(FIRST_PAUSE, LONGEST_PAUSE).take(1000).collect();
        assert_eq!(all.len(), 1000);
        assert!(all[0] >= FIRST_PAUSE && all[0] <= 2 * FIRST_PAUSE, "{:?}", all[0]);
        assert!(all[4..].iter().all(|pause| (LONGEST_PAUSE..=2 * LONGEST_PAUSE).contains(pause)));
    }
}

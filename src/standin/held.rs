//! What is kept on its way, in either direction, until somebody lets it go.

use std::time::Duration;

use tokio::sync::watch;

use crate::tasks::Tasks;

/// The longest that anything is held.
const LONGEST: Duration = Duration::from_secs(60);

/// How much is held, and how often all of it was let go.
pub struct Held {
    count: watch::Sender<usize>,
    releases: watch::Sender<u64>,
}

impl Held {
    /// Nothing.
    pub fn new() -> Self {
        Self { count: watch::Sender::new(0), releases: watch::Sender::new(0) }
    }

    /// Waits until it is let go, or nobody may wait any longer.
    pub async fn wait(&self, tasks: &Tasks) {
        // First, so that whoever sees it held can let it go.
        let mut releases = self.releases.subscribe();
        self.count.send_modify(|count| *count += 1);
        let waiting = tokio::time::timeout(LONGEST, releases.changed());
        tasks.stopping().run_until_cancelled(waiting).await;
        self.count.send_modify(|count| *count -= 1);
    }

    /// Waits until something is held.
    pub async fn any(&self) {
        // The sender is here.
        let _ = self.count.subscribe().wait_for(|count| *count > 0).await;
    }

    /// How much is held.
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Lets all of it go.
    pub fn release(&self) {
        self.releases.send_modify(|releases| *releases += 1);
    }
}

//! The background work of credentials: hearing of changes made by other processes, and writing last uses.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{Change, Credentials};
use crate::db::invalidations::{self, Invalidation, Kind};
use crate::error::Result;
use crate::tasks::Tasks;

/// Rows are read again for this long after they were first seen, because a row of a lower number may become
/// visible after one of a higher number: numbers are given before the commit.
const WINDOW: Duration = Duration::from_secs(5);

/// Rows are kept for this long after whatever they concern has gone from every cache: a process that does not hear for
/// longer has nothing in its caches from before.
const KEEP: Duration = Duration::from_secs(3600);

/// How often old rows are deleted.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// How often last uses are written.
const FLUSH_EVERY: Duration = Duration::from_secs(30);

/// Rows read at once.
const BATCH: i64 = 500;

impl Credentials {
    /// Starts the background work, which ends when `tasks` shuts down: polls for changes made by any process, this
    /// one included, forgets them, and tells `on_change` once per change; writes last uses; deletes old rows.
    pub fn run_invalidations(&self, tasks: &Tasks, on_change: impl Fn(Change) + Send + Sync + 'static) {
        let (listener, stop) = (self.clone(), tasks.stopping().clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(listener.listen(on_change)).await;
        });
        let (keeper, stop) = (self.clone(), tasks.stopping().clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(keeper.keep_house()).await;
            keeper.flush_last_used().await;
        });
    }

    async fn listen(&self, on_change: impl Fn(Change)) {
        let mut ticks = tokio::time::interval(self.0.poll.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut log = Log::default();
        let mut deaf = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.look.notified() => {}
            }
            match self.poll(&mut log, &on_change).await {
                Ok(()) => deaf = false,
                Err(error) if !deaf => {
                    deaf = true;
                    tracing::warn!(?error, "changes made elsewhere cannot be read; trying on");
                }
                Err(_) => {}
            }
        }
    }

    /// Reads what is new and applies it.
    async fn poll(&self, log: &mut Log, on_change: &impl Fn(Change)) -> Result<()> {
        let mut after = log.floor;
        loop {
            let rows = invalidations::after(&self.0.db, after, BATCH).await?;
            let now = self.0.clock.monotonic_micros();
            let full = i64::try_from(rows.len()).is_ok_and(|count| count == BATCH);
            for row in rows {
                after = row.id;
                if !log.is_new(row.id, now) {
                    continue;
                }
                if row.kind == Kind::Plan {
                    self.forget_plan(&row.subject);
                } else if let Some(change) = change(&row) {
                    self.invalidate(change);
                    on_change(change);
                }
            }
            if !full {
                log.settle(now);
                return Ok(());
            }
        }
    }

    async fn keep_house(&self) {
        let mut ticks = tokio::time::interval(FLUSH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let per_sweep = SWEEP_EVERY.as_secs() / FLUSH_EVERY.as_secs();
        for tick in 0_u64.. {
            ticks.tick().await;
            self.flush_last_used().await;
            if tick % per_sweep == 0 {
                let before = self.0.clock.now().minus(KEEP + self.0.longest);
                if let Err(error) = invalidations::delete_before(&self.0.db, before).await {
                    tracing::warn!(?error, "old invalidations were not deleted");
                }
            }
        }
    }

    /// Writes the last uses noted so far; a failure costs only them.
    async fn flush_last_used(&self) {
        if let Err(error) = self.0.last_used.flush(&self.0.db).await {
            tracing::warn!(?error, "the last uses of some keys were not recorded");
        }
    }
}

fn change(row: &Invalidation) -> Option<Change> {
    let change = match row.kind {
        Kind::Credential => row.subject.parse().map(Change::Credential),
        Kind::Tenant => row.subject.parse().map(Change::Tenant),
        Kind::Plan | Kind::Account => return None,
    };
    if change.is_err() {
        tracing::error!(id = row.id, "an invalidation names no id; skipped");
    }
    change.ok()
}

/// Which rows have been seen.
#[derive(Default)]
struct Log {
    /// Every row up to this one is done with.
    floor: i64,
    /// Rows above the floor, with the monotonic microsecond at which each was first seen.
    seen: BTreeMap<i64, i64>,
}

impl Log {
    fn is_new(&mut self, id: i64, now: i64) -> bool {
        let mut new = false;
        self.seen.entry(id).or_insert_with(|| {
            new = true;
            now
        });
        new
    }

    /// Lifts the floor to the highest row that was seen a window ago.
    fn settle(&mut self, now: i64) {
        let window = i64::try_from(WINDOW.as_micros()).unwrap_or(i64::MAX);
        let settled = self.seen.iter().rev().find(|(_, first)| now - **first >= window).map(|(id, _)| *id);
        if let Some(id) = settled {
            self.seen = self.seen.split_off(&(id + 1));
            self.floor = id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_new_once_and_late_ones_are_seen() {
        let mut log = Log::default();
        assert!(log.is_new(10, 0));
        log.settle(0);
        assert_eq!(log.floor, 0);
        assert!(log.is_new(9, 4_000_000), "committed late");
        assert!(!log.is_new(10, 4_000_000));
        log.settle(5_000_000);
        assert_eq!((log.floor, log.seen.len()), (10, 0));
        assert!(log.is_new(11, 6_000_000));
        log.settle(6_000_000);
        assert_eq!((log.floor, log.seen.len()), (10, 1));
    }
}

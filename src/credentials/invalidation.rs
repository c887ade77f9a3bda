//! The background work of credentials: hearing of changes made by other processes, and writing last uses.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{Change, Credentials, News};
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
    /// one included, forgets them, and tells `on_news` once per change; writes last uses; deletes old rows.
    pub fn run_invalidations(&self, tasks: &Tasks, on_news: impl Fn(News) + Send + Sync + 'static) {
        let (listener, stop) = (self.clone(), tasks.stopping().clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(listener.listen(on_news)).await;
        });
        let (keeper, stop) = (self.clone(), tasks.stopping().clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(keeper.keep_house()).await;
            keeper.flush_last_used().await;
        });
    }

    async fn listen(&self, on_news: impl Fn(News)) {
        let mut ticks = tokio::time::interval(self.0.poll.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut log = Log::default();
        let mut deaf = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.look.notified() => {}
            }
            match self.poll(&mut log, &on_news).await {
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
    async fn poll(&self, log: &mut Log, on_news: &impl Fn(News)) -> Result<()> {
        let began = self.0.clock.monotonic_micros();
        let mut after = log.floor;
        loop {
            let rows = invalidations::after(&self.0.db, after, BATCH).await?;
            let now = self.0.clock.monotonic_micros();
            let full = i64::try_from(rows.len()).is_ok_and(|count| count == BATCH);
            after = rows.last().map_or(after, |row| row.id);
            let new: Vec<_> = rows.iter().filter(|row| log.is_new(row.id, now)).filter_map(read).collect();
            self.apply(&new);
            new.into_iter().for_each(on_news);
            if !full {
                log.settle(now);
                self.0.heard_at.store(began, Ordering::Release);
                return Ok(());
            }
        }
    }

    /// Forgets what is no longer so.
    fn apply(&self, news: &[News]) {
        // All at once: each goes through everything that is known, and a new month concerns every account.
        let mut accounts = HashSet::new();
        for one in news {
            match one {
                News::Change(change) => self.invalidate(*change),
                News::Plan(name) => self.forget_plan(name),
                News::Account(tenant) => {
                    accounts.insert(*tenant);
                }
            }
        }
        if !accounts.is_empty() {
            self.forget_unmetered(&accounts);
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

fn read(row: &Invalidation) -> Option<News> {
    let news = match row.kind {
        Kind::Credential => row.subject.parse().map(|key| News::Change(Change::Credential(key))),
        Kind::Tenant => row.subject.parse().map(|tenant| News::Change(Change::Tenant(tenant))),
        Kind::Account => row.subject.parse().map(News::Account),
        Kind::Plan => Ok(News::Plan(row.subject.clone())),
    };
    if news.is_err() {
        tracing::error!(id = row.id, "an invalidation names no id; skipped");
    }
    news.ok()
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

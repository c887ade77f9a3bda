//! What Stripe says happened: events come in by webhook, or are found by the sweep, and wait in the inbox until the object that they
//! are about was asked for.
//!
//! Two processes that work on one object cannot leave the older state behind: who asks about an object claims it first, claims
//! have numbers that only grow, and what was found is written in a transaction that holds the object's row and sees
//! that its claim is still the newest. A claim is made before Stripe is asked, so what is written later was asked for later.

mod asking;
pub mod envelope;
pub mod receive;
pub mod signature;
mod sweep;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::consequences::Follower;
use super::job::Job;
use super::mirror::Source;
use super::mirror::stripe::Account;
use super::stripe::Stripe;
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::db::stripe_events::{self as rows, EventRow, EventState};
use crate::db::{Db, mirror};
use crate::error::{Error, Result};
use crate::telemetry::billing::Billing as Metrics;

pub use asking::ask_again;
pub use work::Round;

/// How often it is looked whether a sweep is due, and what may be forgotten.
const UPKEEP: Duration = Duration::from_secs(3600);
/// How long ids of events are kept: longer than Stripe sends an event again (3 days) and than it can be listed (30).
const IDS: Duration = Duration::from_secs(60 * 24 * 3600);
/// Rows that one statement forgets, and statements of one round.
const BATCH: i64 = 1000;
const BATCHES: usize = 1000;

/// The inbox, and what works it off.
pub struct Inbox<S> {
    db: Db,
    clock: Clock,
    source: S,
    follower: Follower,
    stripe: Stripe,
    config: config::Billing,
    metrics: Metrics,
    /// In whose name objects are claimed.
    holder: String,
    /// Rung when something came in here.
    bell: Arc<Notify>,
}

impl Inbox<Account> {
    /// The inbox of the account that `job` works with. `bell` is rung when something comes in.
    #[must_use]
    pub fn new(job: &Job, bell: Arc<Notify>) -> Self {
        // Events that could not be worked on wait in the inbox, and need not hold a place here.
        let stripe = job.stripe.clone().with_attempts(1);
        Self {
            db: job.db.clone(),
            clock: job.clock.clone(),
            source: Account::new(stripe.clone(), job.config.credits_name()),
            follower: job.follower.clone(),
            stripe,
            config: job.config.clone(),
            metrics: job.metrics.clone(),
            holder: job.process.to_string(),
            bell,
        }
    }
}

impl<S: Source> Inbox<S> {
    /// Works for ever.
    pub async fn run(self) {
        tokio::join!(self.work_for_ever(), self.keep_for_ever());
    }

    async fn work_for_ever(&self) {
        let mut turns = tokio::time::interval(self.config.inbox_every.get());
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turns.tick() => {}
                () = self.bell.notified() => {}
            }
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "what Stripe said cannot be worked on now; trying on");
            }
        }
    }

    async fn keep_for_ever(&self) {
        let mut turns = tokio::time::interval(UPKEEP.min(self.config.sweep_every.get()));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "events cannot be listed now; trying on");
            }
            if let Err(error) = self.forget().await {
                tracing::warn!(%error, "old events cannot be forgotten now; trying on");
            }
        }
    }

    /// Drops bodies that are kept no longer, and events whose ids need not be known any more.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Away`].
    pub async fn forget(&self) -> Result<()> {
        let now = self.clock.now();
        let bodies = now.minus(Duration::from_secs(u64::from(self.config.keep_event_bodies_days) * 86_400));
        let ids = now.minus(IDS);
        for _ in 0..BATCHES {
            let rows = rows::drop_bodies(&self.db, bodies, BATCH).await?
                + rows::forget(&self.db, ids, BATCH).await?
                + rows::forget_objects(&self.db, ids, BATCH).await?;
            if rows == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Shows how much waits, and for how long.
    async fn measure(&self, now: Timestamp) -> Result<()> {
        let (oldest, failed) = rows::backlog(&self.db).await?;
        let age = oldest.map_or(0, |oldest| (now.as_seconds() - oldest.as_seconds()).max(0));
        self.metrics.events_oldest.set(age);
        self.metrics.events_failed.set(failed);
        self.metrics.customers_deleted.set(mirror::deleted_customers(&self.db).await?);
        Ok(())
    }
}

/// The newest events, or of the failed ones, newest first; at most so many.
///
/// # Errors
/// [`Error::Database`], [`Error::Away`].
pub async fn list(db: &Db, failed: bool, limit: u32) -> Result<Vec<EventRow>> {
    rows::list(db, failed.then_some(EventState::Failed), limit.into()).await
}

/// Puts an event back, whatever became of it.
///
/// # Errors
/// [`Error::NotFound`] where none of this id is there, or it waits already; [`Error::Database`], [`Error::Away`].
pub async fn again(db: &Db, clock: &Clock, id: &str) -> Result<()> {
    match rows::again(db, id, clock.now()).await? {
        true => Ok(()),
        false => Err(Error::NotFound("an event of this id that does not wait already")),
    }
}

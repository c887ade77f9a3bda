//! What usage does beside calls: settles, says that this process lives, gives back what nobody needs, and closes what dead
//! processes left.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Usage;
use super::purse::Purse;
use super::settler::Settler;
use crate::error::Result;

/// How often purses are looked through.
const TURN: Duration = Duration::from_millis(500);
/// A tenant is forgotten when it did nothing for this long and nothing of it is held.
const FORGET: Duration = Duration::from_secs(600);
/// How long giving everything back may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The background work.
pub struct Work {
    usage: Usage,
    settler: Settler,
}

impl Work {
    pub(super) fn new(usage: Usage, settler: Settler) -> Self {
        Self { usage, settler }
    }

    /// Works until `stop` fires, then gives everything back. Whoever stops it must have stopped the calls first.
    pub async fn run(self, stop: CancellationToken) {
        let Self { usage, settler } = self;
        let upkeep = stop.run_until_cancelled(usage.keep_house());
        tokio::join!(settler.run(stop.clone()), upkeep);
        let _ = tokio::time::timeout(LAST_WORDS, usage.put_away()).await;
    }
}

impl Usage {
    async fn keep_house(&self) {
        let beat = self.0.config.lease.get() / 3;
        let mut turns = tokio::time::interval(TURN.min(beat));
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut next_beat = tokio::time::Instant::now();
        loop {
            tokio::select! {
                _ = turns.tick() => {}
                () = self.0.nudge.notified() => {}
            }
            if tokio::time::Instant::now() >= next_beat {
                next_beat = tokio::time::Instant::now() + beat;
                if let Err(error) = self.beat().await {
                    tracing::debug!(%error, "this process cannot say that it lives");
                }
            }
            if let Err(error) = self.tidy().await {
                tracing::debug!(%error, "what is held cannot be given back now");
            }
        }
    }

    async fn beat(&self) -> Result<()> {
        if !self.0.meter.beat().await? {
            self.0.drop_what_others_closed();
        }
        self.0.meter.bury_the_dead(self.0.config.lease.get()).await
    }

    /// Gives back what nobody needs, settles what is to be taken back, gives keys free.
    async fn tidy(&self) -> Result<()> {
        let inner = &*self.0;
        inner.drop_what_others_closed();
        inner.keys.release().await?;
        inner.give_backs.settle(&inner.meter).await?;
        let asked = std::mem::take(&mut *inner.asked_back());
        for purse in &asked {
            inner.meter.give_back(purse, true).await?;
        }
        let forget = i64::try_from(FORGET.as_micros()).unwrap_or(i64::MAX);
        let since = inner.meter.clock.monotonic_micros().saturating_sub(forget);
        let purses: Vec<_> = inner.purses.iter().collect();
        for (tenant, purse) in purses {
            inner.meter.give_back(&purse, false).await?;
            if purse.is_empty(since) {
                inner.purses.remove(&tenant);
            }
        }
        Ok(())
    }

    /// Gives everything back and closes the meter.
    async fn put_away(&self) {
        let inner = &*self.0;
        let _ = inner.keys.release().await;
        let _ = inner.give_backs.settle(&inner.meter).await;
        for (_, purse) in inner.purses.iter() {
            if let Err(error) = inner.meter.give_back(&purse, true).await {
                tracing::warn!(%error, "what is held cannot be given back; others will do it");
                return;
            }
        }
        if let Err(error) = inner.meter.end().await {
            tracing::warn!(%error, "the meter cannot be closed; others will do it");
        }
    }

    /// Gives back what is held of a tenant's credits and is not in use, because another replica needs it.
    pub fn give_back(&self, tenant: crate::id::TenantId) {
        if let Some(purse) = self.0.purses.peek(&tenant) {
            self.0.soon(purse);
        }
    }
}

impl super::Inner {
    /// Gives back what this purse holds and nobody is using, soon.
    pub(super) fn soon(&self, purse: Arc<Purse>) {
        self.asked_back().push(purse);
        self.nudge.notify_one();
    }

    fn drop_what_others_closed(&self) {
        let open = self.meter.id();
        if self.meter.take_lost() {
            for (_, purse) in self.purses.iter() {
                purse.state().keep_of(open);
            }
        }
    }
}

//! What usage does beside calls: settles, says that this process lives, gives back what nobody needs, and closes what dead
//! processes left.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Usage;
use super::settler::Settler;
use crate::error::Result;
use crate::id::TenantId;

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
        // By itself: however much there is to tidy, this process must be seen to live.
        let beating = stop.run_until_cancelled(usage.keep_beating());
        tokio::join!(settler.run(stop.clone()), upkeep, beating);
        let _ = tokio::time::timeout(LAST_WORDS, usage.put_away()).await;
    }
}

impl Usage {
    async fn keep_beating(&self) {
        let lease = self.0.config.lease.get();
        let mut beats = tokio::time::interval(lease / 3);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            match self.0.meter.beat().await {
                Ok(true) => {}
                Ok(false) => self.0.nudge.notify_one(),
                Err(error) => tracing::debug!(%error, "this process cannot say that it lives"),
            }
            if let Err(error) = self.0.meter.bury_the_dead(lease).await {
                tracing::debug!(%error, "what dead processes left cannot be looked for");
            }
        }
    }

    async fn keep_house(&self) {
        let mut turns = tokio::time::interval(TURN.min(self.0.config.lease.get() / 3));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turns.tick() => {}
                () = self.0.nudge.notified() => {}
            }
            self.tidy().await;
        }
    }

    /// Gives back what nobody needs, settles what is to be taken back, gives keys free. What cannot be done now is tried again in
    /// the next turn, and holds up nothing else.
    async fn tidy(&self) {
        let inner = &*self.0;
        let failed = |what: Result<()>| {
            if let Err(error) = what {
                tracing::debug!(%error, "what is held cannot be given back now");
            }
        };
        inner.drop_what_others_closed();
        failed(inner.keys.release().await);
        failed(inner.give_backs.settle(&inner.meter).await);
        let forget = i64::try_from(FORGET.as_micros()).unwrap_or(i64::MAX);
        let since = inner.meter.clock.monotonic_micros().saturating_sub(forget);
        let purses: Vec<_> = inner.purses.iter().collect();
        for (tenant, purse) in purses {
            let asked = std::mem::take(&mut *inner.asked_back());
            for tenant in asked {
                if let Some(wanted) = inner.purses.peek(&tenant) {
                    failed(inner.meter.give_back(&wanted, Duration::ZERO).await);
                }
            }
            failed(inner.meter.give_back(&purse, inner.meter.idle).await);
            drop(purse);
            // Nobody else has it: what is put into one that is no longer here would never be given back.
            inner.purses.remove_if(&tenant, |purse| Arc::strong_count(purse) <= 2 && purse.is_empty(since));
        }
    }

    /// Gives everything back and closes the meter.
    async fn put_away(&self) {
        let inner = &*self.0;
        let _ = inner.keys.release().await;
        let _ = inner.give_backs.settle(&inner.meter).await;
        for (_, purse) in inner.purses.iter() {
            if let Err(error) = inner.meter.give_back(&purse, Duration::ZERO).await {
                tracing::warn!(%error, "what is held cannot be given back; others will do it");
                return;
            }
        }
        if let Err(error) = inner.meter.end().await {
            tracing::warn!(%error, "the meter cannot be closed; others will do it");
        }
    }

    /// Gives back what is held of a tenant's credits and is not in use, because another replica needs it.
    pub fn give_back(&self, tenant: TenantId) {
        if self.0.purses.contains_key(&tenant) {
            self.0.soon(tenant);
        }
    }
}

impl super::Inner {
    /// Gives back what is held of a tenant's credits and nobody is using, soon.
    pub(super) fn soon(&self, tenant: TenantId) {
        self.asked_back().insert(tenant);
        self.nudge.notify_one();
    }

    fn drop_what_others_closed(&self) {
        if self.meter.take_lost() {
            let open = self.meter.id();
            for (_, purse) in self.purses.iter() {
                purse.state().keep_of(open);
            }
        }
    }
}

//! Reserving: the price of a call is found, and the most that it can cost is set aside.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::MutexGuard;

use super::lease::Leased;
use super::purse::{Hold, Purse, Terms};
use super::reservation::{Reservation, Tariff};
use super::{Inner, Key, Refusal, Usage};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::{Error, Result};
use crate::id::{PeriodId, TenantId};
use crate::limits::Place;
use crate::policy::{Guarded, Permit};

/// Looks at account and purse that one reservation may take.
const LOOKS: u32 = 8;
/// How often, and after which time, it is asked again whether others gave back what they held.
const RECALLS: u32 = 3;
const RECALL_PAUSE: Duration = Duration::from_millis(100);

/// What a look at the purse found.
enum Look {
    /// What the call goes by.
    Found(Tariff),
    /// Something was learnt or leased: look again.
    Again,
}

impl Usage {
    /// Turns a permit and a place into a reservation: the price is found, and the most that the call can cost set aside.
    ///
    /// # Errors
    /// Why the call may not be made.
    pub async fn reserve<'a, T: Guarded>(
        &self,
        permit: Permit<'a, T>,
        place: Place,
        key: Option<Key>,
    ) -> Result<Reservation<'a, T>, Refusal> {
        let inner = &*self.0;
        if !permit.caller().is_metered() {
            let begun_at = inner.meter.clock.now();
            return Ok(Reservation { permit, place, tariff: Tariff::None, key, begun_at });
        }
        if inner.queue.is_closed() {
            return Err(Refusal::Unavailable(Error::Away("ledger")));
        }
        let purse = inner.purse(permit.caller().tenant());
        purse.touch(inner.meter.clock.monotonic_micros());
        let mut recalls = 0;
        for _ in 0..LOOKS {
            let begun_at = inner.meter.clock.now();
            let plan = &permit.caller().data().plan;
            let look = inner.look(&purse, (plan, permit.tool()), begun_at, &mut recalls).await;
            match look
                .inspect_err(|refusal| inner.meter.metrics.metering.calls_refused.inc(refusal.label()))?
            {
                Look::Found(tariff) => return Ok(Reservation { permit, place, tariff, key, begun_at }),
                Look::Again => {}
            }
        }
        let text = "an account changes faster than it can be looked at";
        Err(Refusal::Unavailable(Error::Internal(text.to_owned())))
    }
}

impl Inner {
    /// What the tenant pays for a call of this tool that begins now, and the credits for it.
    async fn look(
        &self,
        purse: &Arc<Purse>,
        (plan, tool): (&str, &impl Guarded),
        now: Timestamp,
        recalls: &mut u32,
    ) -> Result<Look, Refusal> {
        let tick = self.meter.clock.monotonic_micros();
        let terms = purse.state().terms(now, (self.meter.heard)(), tick - self.trust());
        let (period, version) = match terms {
            Some(Terms::Priced { period, version }) => (period, version),
            Some(Terms::Free) => return Ok(Look::Found(Tariff::None)),
            None if tool.is_free() => return Ok(Look::Found(Tariff::None)),
            None => {
                self.learn(purse, plan).await.map_err(Refusal::Unavailable)?;
                return Ok(Look::Again);
            }
        };
        let price = version.terms.price_for(tool.server(), tool.name(), tool.is_free());
        let price = price.ok_or(Refusal::Unpriced)?;
        let hold = if price.is_free() {
            None
        } else {
            let Some(hold) = self.hold(purse, (price.most(), period), now, recalls).await? else {
                return Ok(Look::Again);
            };
            Some(hold)
        };
        // What is free by itself is not by any price.
        let version = (!tool.is_free()).then_some(version.id);
        Ok(Look::Found(Tariff::Priced { period, version, price, hold, purse: purse.clone() }))
    }

    /// Sets credits aside, and leases more where there are too few; nothing: look again.
    async fn hold(
        &self,
        purse: &Arc<Purse>,
        (most, period): (Credits, PeriodId),
        now: Timestamp,
        recalls: &mut u32,
    ) -> Result<Option<Hold>, Refusal> {
        // Without the database it could not be settled.
        if !self.meter.db.breaker().is_up() {
            return Err(Refusal::Unavailable(Error::Away("database")));
        }
        let tick = self.meter.clock.monotonic_micros();
        if let Ok(hold) = purse.reserve(most, period, (now, tick), self.meter.id()) {
            return Ok(Some(hold));
        }
        match self.lease(purse, most, period).await.map_err(Refusal::Unavailable)? {
            Leased::Enough(hold) => Ok(hold),
            Leased::PeriodOver => Ok(None),
            Leased::Suspended => Err(Refusal::Suspended),
            Leased::Short { left, held } => {
                let others_may_have_it = held.is_positive() && left + held >= most && *recalls < RECALLS;
                if others_may_have_it && self.call_back(purse.tenant, recalls).await {
                    return Ok(None);
                }
                // What this process has itself, but too little of it.
                let left = purse.left(period, now).unwrap_or(left);
                Err(Refusal::Exhausted { price: most, left })
            }
        }
    }

    /// For how long something is true that was true when changes were last looked for: whoever changes it announces it
    /// `lead_ms` ahead, and may take a while to commit.
    fn trust(&self) -> i64 {
        i64::try_from(self.config.lead.get().as_micros() * 2 / 5).unwrap_or(i64::MAX)
    }

    /// Waits until nobody else asks the database about this purse; no longer than a settlement may take.
    async fn turn<'p>(&self, purse: &'p Purse) -> Result<MutexGuard<'p, ()>> {
        let turn = tokio::time::timeout(self.config.settle_timeout.get(), purse.asking.lock()).await;
        turn.map_err(|_| Error::Away("database"))
    }

    /// Asks about the account, unless somebody else just did.
    async fn learn(&self, purse: &Purse, plan: &str) -> Result<()> {
        let _turn = self.turn(purse).await?;
        let (now, tick) = (self.meter.clock.now(), self.meter.clock.monotonic_micros());
        let since = tick - self.trust();
        if purse.state().terms(now, (self.meter.heard)(), since).is_some() {
            return Ok(());
        }
        Box::pin(self.meter.learn(purse, plan, since)).await
    }

    /// Leases what a call of this price needs, unless somebody else just did.
    async fn lease(&self, purse: &Arc<Purse>, price: Credits, period: PeriodId) -> Result<Leased> {
        let _turn = self.turn(purse).await?;
        let known = purse.state().known.as_ref().and_then(|known| known.period.clone());
        let Some(known) = known.filter(|known| known.id == period) else {
            return Ok(Leased::PeriodOver);
        };
        let at = (self.meter.clock.now(), self.meter.clock.monotonic_micros());
        let missing = match purse.reserve(price, period, at, self.meter.id()) {
            Ok(hold) => return Ok(Leased::Enough(Some(hold))),
            Err(missing) => missing,
        };
        let leased = Box::pin(self.meter.lease(purse, &known, (price, missing))).await?;
        if matches!(leased, Leased::PeriodOver) {
            purse.state().forget();
        }
        Ok(leased)
    }

    /// Asks others to give back what they hold, and waits a moment. `false`: there are no others.
    async fn call_back(&self, tenant: TenantId, recalls: &mut u32) -> bool {
        let Some(recall) = &self.recall else { return false };
        *recalls += 1;
        recall(tenant);
        tokio::time::sleep(RECALL_PAUSE).await;
        true
    }
}

//! What one process holds of one tenant's credits, and what it knows of the tenant's account.
//!
//! Reserving is a subtraction under a short lock. What a call does not need goes back at once; what it uses leaves the slab when
//! the call is settled. Nothing here is the truth: a purse that is lost costs nothing, because whoever closes its slabs in
//! the database goes by what was settled.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::accounts::Period;
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::id::{MeterId, PeriodId, SlabId, TenantId};
use crate::prices::{History, PriceVersion};

/// A slab is given back after this time, so that what was used is booked and what was not can be used elsewhere.
const LIFE: Duration = Duration::from_secs(30);
/// A first lease is for so many calls like the one that needs it, where there is much of a source.
const AHEAD: u64 = 128;
/// Slabs that follow one another faster than this are doubled, and halved if slower than eight times this.
const SOON: Duration = Duration::from_secs(5);

/// Which part of a charge a slab pays, in the order in which they burn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Included,
    Promotional,
    Prepaid,
    Overage,
}

/// What the database said of an account.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub period: Option<Period>,
    pub next: Option<Period>,
    /// Prices of the period's plan.
    pub prices: Arc<History>,
    /// When the plan's first prices come into force, where there is no period before that.
    pub free_until: Option<Timestamp>,
    /// When it was asked, on the monotonic clock.
    pub as_of: i64,
}

/// Credits that were leased.
#[derive(Debug, Clone)]
pub(super) struct Slab {
    pub id: SlabId,
    pub meter: MeterId,
    pub period: PeriodId,
    pub source: Source,
    /// All of it.
    pub amount: Credits,
    /// Neither reserved nor used.
    pub left: Credits,
    /// Reserved by running calls and by settlements under way.
    pub reserved: Credits,
    /// No call may begin on it from here on.
    pub until: Timestamp,
    pub leased: i64,
    pub touched: i64,
}

/// By which terms a call goes.
#[derive(Debug, Clone)]
pub(super) enum Terms {
    /// Nothing has a price.
    Free,
    /// This version's prices, in this period.
    Priced { period: PeriodId, version: Arc<PriceVersion> },
}

/// What is given back of a slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Return {
    /// It is out of use.
    All(SlabId),
    /// Calls still run on it, and need this much.
    AllBut(SlabId, Credits),
}

/// What a call set aside of one slab.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub slab: SlabId,
    pub meter: MeterId,
    pub source: Source,
    pub credits: Credits,
}

#[derive(Default)]
pub(super) struct State {
    pub known: Option<Known>,
    /// Counts how often what is known was forgotten.
    pub epoch: u64,
    /// In the order in which they burn.
    slabs: Vec<Slab>,
    /// What the database has to hear of slabs.
    pub returned: Vec<Return>,
    /// What the tenant had beside what is held here, at the last lease; nothing: no end of it.
    pub elsewhere: Option<Credits>,
    appetite: Credits,
    last_lease: i64,
    touched: i64,
}

/// One tenant's.
pub(super) struct Purse {
    pub tenant: TenantId,
    state: Mutex<State>,
    /// Who asks the database, for all that wait.
    pub asking: tokio::sync::Mutex<()>,
}

/// Credits set aside for one call; given back when dropped.
pub(super) struct Hold {
    pub purse: Arc<Purse>,
    pub parts: Vec<Part>,
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Hold").field(&self.parts).finish()
    }
}

impl Purse {
    /// An empty one.
    pub fn new(tenant: TenantId) -> Self {
        Self { tenant, state: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// Somebody calls.
    pub fn touch(&self, tick: i64) {
        self.state().touched = tick;
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets credits aside for a call of this period, from slabs of this meter. Those of one that was closed hold nothing any more.
    ///
    /// # Errors
    /// How much is missing.
    pub fn reserve(
        self: &Arc<Self>,
        amount: Credits,
        period: PeriodId,
        (now, tick): (Timestamp, i64),
        meter: Option<MeterId>,
    ) -> Result<Hold, Credits> {
        let parts = self.state().set_aside(amount, period, (now, tick), meter)?;
        Ok(Hold { purse: self.clone(), parts })
    }

    /// Ends a reservation: what was used leaves its slab, the rest can be used again.
    pub fn release(&self, part: Part, used: Credits) {
        self.state().change(part.slab, |slab| {
            slab.reserved -= part.credits;
            slab.left += part.credits - used;
        });
    }

    /// What is left for the tenant, as far as this process knows; nothing: no end of it.
    pub fn left(&self, period: PeriodId, now: Timestamp) -> Option<Credits> {
        let state = self.state();
        let here: Credits = state
            .slabs
            .iter()
            .filter(|slab| slab.period == period && slab.until > now)
            .map(|slab| slab.left)
            .sum();
        Some(state.elsewhere? + here)
    }

    /// Whether nothing would be lost with it.
    pub fn is_empty(&self, since: i64) -> bool {
        let state = self.state();
        state.slabs.is_empty() && state.returned.is_empty() && state.touched < since
    }
}

impl State {
    fn change(&mut self, id: SlabId, change: impl FnOnce(&mut Slab)) {
        if let Some(slab) = self.slabs.iter_mut().find(|slab| slab.id == id) {
            change(slab);
        }
    }

    /// Sets credits aside for a call of this period, from slabs of this meter.
    ///
    /// # Errors
    /// How much is missing; then nothing is set aside.
    pub fn set_aside(
        &mut self,
        amount: Credits,
        period: PeriodId,
        (now, tick): (Timestamp, i64),
        meter: Option<MeterId>,
    ) -> Result<Vec<Part>, Credits> {
        let usable = |slab: &&mut Slab| {
            let ours = slab.period == period && Some(slab.meter) == meter;
            ours && slab.until > now && slab.left.is_positive()
        };
        let mut missing = amount;
        let mut parts = Vec::with_capacity(1);
        for slab in self.slabs.iter_mut().filter(usable) {
            let credits = missing.min(slab.left);
            parts.push(Part { slab: slab.id, meter: slab.meter, source: slab.source, credits });
            missing -= credits;
            if missing.is_zero() {
                break;
            }
        }
        if missing.is_positive() {
            return Err(missing);
        }
        for part in &parts {
            self.change(part.slab, |slab| {
                slab.left -= part.credits;
                slab.reserved += part.credits;
                slab.touched = tick;
            });
        }
        Ok(parts)
    }

    /// By which terms a call goes that begins now: `None` where that is not known. `heard` is when changes were last looked
    /// for; knowledge that is not confirmed since `since` does not count.
    pub fn terms(&self, now: Timestamp, heard: i64, since: i64) -> Option<Terms> {
        let known = self.known.as_ref().filter(|known| known.as_of.max(heard) >= since)?;
        match &known.period {
            Some(period) if period.starts_at <= now && now < period.ends_at => {
                Some(match known.prices.at(now) {
                    Some(version) => Terms::Priced { period: period.id, version: version.clone() },
                    None => Terms::Free,
                })
            }
            Some(_) => None,
            None if known.next.as_ref().is_some_and(|next| next.starts_at <= now) => None,
            None if known.free_until.is_some_and(|until| until <= now) => None,
            None => Some(Terms::Free),
        }
    }

    /// Forgets what is known of the account.
    pub fn forget(&mut self) {
        self.known = None;
        self.epoch += 1;
    }

    /// Takes up new slabs.
    pub fn add(&mut self, slabs: impl IntoIterator<Item = Slab>) {
        self.slabs.extend(slabs);
        // Stable: of one source, the older first.
        self.slabs.sort_by_key(|slab| slab.source);
    }

    /// How much to lease where `missing` is needed now.
    pub fn appetite(&mut self, missing: Credits, tick: i64) -> Credits {
        let since = tick.saturating_sub(self.last_lease);
        let soon = i64::try_from(SOON.as_micros()).unwrap_or(i64::MAX);
        if since < soon {
            self.appetite = self.appetite + self.appetite;
        } else if since > soon * 8 {
            self.appetite = Credits::from_micros(self.appetite.micros() / 2);
        }
        self.appetite = self.appetite.max(missing.share(AHEAD, 1)).min(Credits::MOST);
        self.last_lease = tick;
        self.appetite
    }

    /// Takes back what nobody needs: slabs whose time is over, and those that nobody used for as long as `idle`. What running
    /// calls have set aside stays; the slab ends with them.
    pub fn retire(&mut self, (now, tick): (Timestamp, i64), idle: Duration) {
        let past = |since: i64, span: Duration| {
            tick.saturating_sub(since) >= i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
        };
        let returned = &mut self.returned;
        self.slabs.retain_mut(|slab| {
            let over = slab.until <= now || past(slab.leased, LIFE) || past(slab.touched, idle);
            if slab.reserved.is_zero() && (over || slab.left.is_zero()) {
                returned.push(Return::All(slab.id));
                return false;
            }
            if over && slab.left.is_positive() {
                slab.amount -= slab.left;
                slab.left = Credits::ZERO;
                returned.push(Return::AllBut(slab.id, slab.amount));
            }
            true
        });
    }

    /// Drops what is held in the name of other meters: it is no longer ours.
    pub fn keep_of(&mut self, meter: Option<MeterId>) {
        self.slabs.retain(|slab| Some(slab.meter) == meter);
        if meter.is_none() {
            self.returned.clear();
        }
    }
}

impl Hold {
    /// Splits what was set aside into what is used, first come first used, and gives the rest back. The parts that are used stay
    /// reserved until they are [released](Purse::release).
    pub fn into_used(mut self, used: Credits) -> Vec<Part> {
        let mut rest = used;
        let mut kept = Vec::with_capacity(self.parts.len());
        for part in std::mem::take(&mut self.parts) {
            let credits = rest.min(part.credits);
            rest -= credits;
            let back = part.credits - credits;
            if back.is_positive() {
                self.purse.release(Part { credits: back, ..part }, Credits::ZERO);
            }
            if credits.is_positive() {
                kept.push(Part { credits, ..part });
            }
        }
        kept
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for part in std::mem::take(&mut self.parts) {
            self.purse.release(part, Credits::ZERO);
        }
    }
}

#[cfg(test)]
mod tests;

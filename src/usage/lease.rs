//! Leasing: credits of a tenant's sources that this process sets aside for calls to come, in one transaction that holds the
//! account.

use std::sync::Arc;

use super::meter::{CLOSE, Meter};
use super::purse::{Hold, Purse, Return, Slab, Source};
use crate::accounts::{self, Access, Period};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db;
use crate::db::grants::GrantKind;
use crate::db::slabs::{FreeGrant, NewSlab, Room};
use crate::error::{Error, Result};
use crate::id::{MeterId, SlabId};

/// Of what is left of a source, a lease takes at most one part in so many, unless a call needs more.
const PART: u64 = 8;
/// What a lease brought.
#[derive(Debug)]
pub(super) enum Leased {
    /// What the call needs is set aside; nothing, where what was leased has ended already.
    Enough(Option<Hold>),
    /// The sources have so much and no more; others hold so much that may come back.
    Short { left: Credits, held: Credits },
    /// The period is over: look again.
    PeriodOver,
    /// An invoice is not paid for so long that nothing is sold any more.
    Suspended,
}

/// A lease under way.
struct Leasing<'a> {
    meter: &'a Meter,
    id: MeterId,
    purse: &'a Purse,
    period: &'a Period,
    missing: Credits,
    appetite: Credits,
    now: Timestamp,
    /// What was written, as far as it got.
    slabs: Vec<(NewSlab, Source, Timestamp)>,
}

impl Meter {
    /// Leases what is missing for a call of this price, and more ahead of use where there is much, and sets aside what the call
    /// needs before anybody else can take it; closes slabs that are out of use in the same go.
    pub async fn lease(
        &self,
        purse: &Arc<Purse>,
        period: &Period,
        (price, missing): (Credits, Credits),
    ) -> Result<Leased> {
        let meter = self.opened().await?;
        let (now, tick) = (self.clock.now(), self.clock.monotonic_micros());
        let (returned, appetite) = {
            let mut state = purse.state();
            state.retire((now, tick), self.idle);
            let count = state.returned.len().min(CLOSE);
            (state.returned.drain(..count).collect::<Vec<_>>(), state.appetite(missing, tick))
        };
        let slabs = Vec::new();
        let mut leasing = Leasing { meter: self, id: meter, purse, period, missing, appetite, now, slabs };
        let leased = leasing.run(&returned).await;
        let mut state = purse.state();
        match leased {
            Ok((mut leased, elsewhere)) => {
                state.elsewhere = elsewhere;
                if self.id() == Some(meter) {
                    state.add(leasing.slabs.into_iter().map(|slab| taken(slab, tick)));
                }
                if let Leased::Enough(hold) = &mut leased {
                    let parts = state.set_aside(price, period.id, (self.clock.now(), tick), Some(meter));
                    *hold = parts.ok().map(|parts| Hold { purse: purse.clone(), parts });
                }
                Ok(leased)
            }
            Err(error) => {
                // What became of them is not known; closing what is not there does nothing.
                state.returned.extend(returned);
                state.returned.extend(leasing.slabs.iter().map(|(slab, ..)| Return::All(slab.id)));
                Err(error)
            }
        }
    }
}

impl Leasing<'_> {
    /// The transaction. Also: what is left elsewhere, where that has an end.
    async fn run(&mut self, returned: &[Return]) -> Result<(Leased, Option<Credits>)> {
        let (meter, now) = (self.meter, self.now);
        let mut tx = meter.db.begin().await?;
        let access = db::slabs::lock_account(&mut tx, self.purse.tenant, now).await?;
        let access = access.ok_or(Error::NotFound("account"))?;
        let mut events = meter.close_in(&mut tx, returned, now).await?;
        if access == Access::Suspended {
            tx.commit().await?;
            accounts::events::announce(&meter.metrics, &events);
            return Ok((Leased::Suspended, Some(Credits::ZERO)));
        }
        let Some(mut room) = db::slabs::room(&mut tx, self.period.id, now).await? else {
            tx.commit().await?;
            return Ok((Leased::PeriodOver, Some(Credits::ZERO)));
        };
        if !access.may_owe() {
            // What others still hold of it is given back, and not handed out again.
            (room.hard_cap, room.overage_leased) = (Some(Credits::ZERO), Credits::ZERO);
        }
        let grants = db::slabs::free_grants(&mut tx, self.purse.tenant, now).await?;
        let free = total(&grants, room);
        let chosen = choose(&grants, room, self.missing, self.appetite);
        let all: Credits = chosen.iter().map(|(_, amount)| *amount).sum();
        for (grant, amount) in &chosen {
            let slab = self.slab(*grant, *amount);
            self.slabs.push(slab);
            db::slabs::lease(&mut tx, slab.0).await?;
        }
        if chosen.is_empty() {
            let held = db::slabs::held(&mut tx, self.purse.tenant, now).await? + room.overage_leased;
            tx.commit().await?;
            accounts::events::announce(&meter.metrics, &events);
            return Ok((Leased::Short { left: free.unwrap_or(Credits::MOST), held }, free));
        }
        events.extend(accounts::events::note(&mut tx, self.period.id, now).await?);
        tx.commit().await?;
        accounts::events::announce(&meter.metrics, &events);
        meter.metrics.metering.leases.inc();
        Ok((Leased::Enough(None), free.map(|free| free - all)))
    }

    /// A slab of this grant, or one to be owed; which part of charges it pays, and until when calls may begin on it.
    fn slab(&self, grant: Option<&FreeGrant>, amount: Credits) -> (NewSlab, Source, Timestamp) {
        let slab = NewSlab {
            id: SlabId::new(),
            tenant: self.purse.tenant,
            period: self.period.id,
            grant: grant.map(|grant| grant.id),
            meter: self.id,
            amount,
            at: self.now,
        };
        let end = grant.and_then(|grant| grant.expires_at).unwrap_or(self.period.ends_at);
        let source = match grant.map(|grant| grant.kind) {
            Some(GrantKind::Included) => Source::Included,
            Some(GrantKind::Promotional) => Source::Promotional,
            Some(GrantKind::Prepaid) => Source::Prepaid,
            None => Source::Overage,
        };
        (slab, source, end.min(self.period.ends_at))
    }
}

/// A new slab as the purse has it.
fn taken((slab, source, until): (NewSlab, Source, Timestamp), tick: i64) -> Slab {
    Slab {
        id: slab.id,
        meter: slab.meter,
        period: slab.period,
        source,
        amount: slab.amount,
        left: slab.amount,
        reserved: Credits::ZERO,
        until,
        leased: tick,
        touched: tick,
    }
}

/// What to lease from where, in the order in which credits burn: nothing, where all sources together have too little.
fn choose(
    grants: &[FreeGrant],
    room: Room,
    missing: Credits,
    appetite: Credits,
) -> Vec<(Option<&FreeGrant>, Credits)> {
    let mut missing = missing;
    let mut taken = Vec::new();
    for grant in grants.iter().filter(|grant| grant.free.is_positive()) {
        let ahead = appetite.min(part_of(grant.free));
        let amount = grant.free.min(missing.max(ahead));
        taken.push((Some(grant), amount));
        missing -= amount.min(missing);
        if missing.is_zero() {
            return taken;
        }
    }
    let free = free_room(room);
    if free.is_some_and(|free| free < missing) {
        return Vec::new();
    }
    let ahead = free.map_or(appetite, |free| appetite.min(part_of(free)));
    taken.push((None, missing.max(ahead)));
    taken
}

/// What the next lease may take of `free` ahead of use.
fn part_of(free: Credits) -> Credits {
    Credits::from_micros(free.share(1, PART).micros().max(0))
}

/// What may still be owed, where that has an end.
fn free_room(room: Room) -> Option<Credits> {
    Some((room.hard_cap? - room.overage_used - room.overage_leased).max(Credits::ZERO))
}

/// What nobody holds, where that has an end.
fn total(grants: &[FreeGrant], room: Room) -> Option<Credits> {
    let free: Credits = grants.iter().map(|grant| grant.free).sum();
    free_room(room).map(|room| room + free)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::GrantId;

    fn of(micros: i64) -> Credits {
        Credits::from_micros(micros)
    }

    fn grant(free: i64) -> FreeGrant {
        FreeGrant { id: GrantId::new(), kind: GrantKind::Prepaid, free: of(free), expires_at: None }
    }

    fn room(cap: Option<i64>) -> Room {
        Room { hard_cap: cap.map(of), overage_used: of(3), overage_leased: of(4) }
    }

    #[test]
    fn the_last_credits_are_leased_one_call_at_a_time() {
        let leased = |free: i64, missing: i64| {
            let (grants, room) = ([grant(free)], room(Some(7)));
            let chosen = choose(&grants, room, of(missing), of(1_000_000));
            chosen.iter().map(|(_, amount)| amount.micros()).collect::<Vec<_>>()
        };
        assert_eq!(leased(800, 1), [100]);
        assert_eq!(leased(7, 1), [1]);
        assert_eq!(leased(7, 7), [7]);
        assert!(leased(7, 8).is_empty());
    }

    proptest! {
        /// What is leased covers what is missing, or there is not enough of it; and never more than there is of a source.
        #[test]
        fn a_lease_is_enough_and_within_its_sources(
            free in prop::collection::vec(0..1_000_i64, 0..5),
            cap in prop::option::of(7..2_000_i64),
            missing in 1..3_000_i64,
            appetite in 1..10_000_i64,
        ) {
            let grants: Vec<_> = free.iter().map(|free| grant(*free)).collect();
            let chosen = choose(&grants, room(cap), of(missing), of(appetite));
            let all: Credits = chosen.iter().map(|(_, amount)| *amount).sum();
            let there = cap.map(|cap| cap - 7 + free.iter().sum::<i64>());
            prop_assert_eq!(chosen.is_empty(), there.is_some_and(|there| there < missing));
            prop_assert!(chosen.is_empty() || all >= of(missing));
            for (grant, amount) in chosen {
                prop_assert!(amount.is_positive());
                match grant {
                    Some(grant) => prop_assert!(amount <= grant.free),
                    None => prop_assert!(cap.is_none_or(|cap| amount.micros() <= cap - 7)),
                }
            }
        }
    }
}

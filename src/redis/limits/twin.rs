//! `lease.lua` in Rust: the same decisions on the same numbers, on a clock that a test moves.

use std::collections::{BTreeMap, HashMap};

use super::{Draw, Drawn, Held, Hold, Kind, Lease, Leased, Meter};
use crate::id::TenantId;

/// What Redis would keep. Nothing ends by itself.
#[derive(Debug, Default)]
pub(crate) struct Twin {
    buckets: HashMap<(TenantId, String), Meter>,
    places: HashMap<(TenantId, Kind), BTreeMap<u32, (u32, u64)>>,
}

impl Twin {
    /// Leases to a replica, in its lease of this number.
    pub(crate) fn lease(&mut self, now: i64, replica: u32, number: u64, lease: &Lease<'_>) -> Leased {
        let (mut granted, mut scarce) = (true, i64::MAX);
        let mut drawing = Vec::new();
        for draw in &lease.draws {
            let key = (lease.tenant, draw.name.to_string());
            let mut meter = self.buckets.get(&key).copied().unwrap_or_default();
            let changed = meter.drain(draw.rate, now) || draw.owed > 0;
            meter.charge(draw.owed);
            if draw.want > 0 {
                granted &= meter.free() >= 1;
                if !draw.soft {
                    scarce = scarce.min(meter.free());
                }
            }
            drawing.push((key, meter, changed, draw));
        }
        let mut holding = Vec::new();
        for hold in &lease.holds {
            let leased = self.places.entry((lease.tenant, hold.kind)).or_default();
            let stale = leased.get(&replica).is_some_and(|(_, last)| *last >= number);
            let others: u32 =
                leased.iter().filter(|(other, _)| **other != replica).map(|(_, (n, _))| n).sum();
            if hold.more > 0 {
                let free = i64::from(hold.limit) - i64::from(others) - i64::from(hold.used);
                granted &= free >= 1 && !stale;
                scarce = scarce.min(free);
            }
            holding.push((others, stale, hold));
        }
        let least = |wanted: u32| u32::try_from(i64::from(wanted).min(scarce)).unwrap_or(0);
        let draws = drawing.into_iter().map(|(key, mut meter, changed, draw)| {
            let Draw { want, ahead, soft, .. } = *draw;
            let mut grant = match (granted, want) {
                (false, _) | (_, 0) => 0,
                _ if soft => want,
                _ => least(want),
            };
            if granted && ahead > 0 && meter.is_plentiful(grant.saturating_add(ahead)) {
                grant += ahead;
            }
            meter.charge(grant);
            if changed || grant > 0 {
                self.buckets.insert(key, meter);
            }
            Drawn { debt: meter.debt(), granted: grant }
        });
        let draws = draws.collect();
        let mut holds = Vec::new();
        for (others, stale, hold) in holding {
            let Hold { kind, limit, used, more, spare } = *hold;
            let mut places = if granted { used + least(more) } else { used };
            if spare > 0 && u64::from(others + places + spare) * 2 <= u64::from(limit) {
                places += spare;
            }
            if !stale {
                self.places.entry((lease.tenant, kind)).or_default().insert(replica, (places, number));
            }
            holds.push(Held { leased: places, total: others + places });
        }
        Leased { granted, draws, holds }
    }

    /// Gives back what a replica had.
    pub(crate) fn forget(&mut self, replica: u32) {
        self.places.values_mut().for_each(|leased| {
            leased.remove(&replica);
        });
    }

    /// Loses everything.
    pub(crate) fn flush(&mut self) {
        *self = Self::default();
    }
}

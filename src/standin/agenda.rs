//! What is due and when: the ends of periods, invoices to finalise, payments to try again. When the clock moves, all of it
//! happens in its order, each at its own time.

use std::collections::BTreeMap;

use super::billing;
use super::world::World;

/// Entries at once; the objects that they are about are fewer.
const MOST_ENTRIES: usize = 4_000_000;

/// Something that happens by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A subscription's period ends.
    PeriodEnds,
    /// The time comes at which a subscription was to end.
    SubscriptionEnds,
    /// A trial ends in three days.
    TrialEndsSoon,
    /// The first invoice of a subscription was not paid in time.
    Incomplete,
    /// A draft becomes an invoice.
    Finalize,
    /// A payment is tried again.
    Retry,
    /// A Checkout session has been open for too long.
    SessionEnds,
}

/// What is due, by time in seconds and then in the order in which it was put down.
#[derive(Default)]
pub struct Agenda {
    entries: BTreeMap<(i64, u64), (Due, String)>,
    count: u64,
}

impl Agenda {
    /// Puts something down for the object of this id. What an entry is about is checked when its time comes, so
    /// none has to be taken back. Where there are too many, nothing more is put down.
    pub fn put(&mut self, at: i64, due: Due, id: &str) {
        if self.entries.len() >= MOST_ENTRIES {
            tracing::warn!(id, "the agenda is full");
            return;
        }
        self.count += 1;
        self.entries.insert((at, self.count), (due, id.to_owned()));
    }

    fn take(&mut self, now: i64) -> Option<(i64, Due, String)> {
        let first = self.entries.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((at, _), (due, id)) = first.remove_entry();
        Some((at, due, id))
    }
}

/// Lets everything happen that is due. Whether there was anything.
pub fn catch_up(world: &mut World) -> bool {
    let now = world.now();
    let mut happened = false;
    while let Some((at, due, id)) = world.agenda.take(now) {
        happened = true;
        world.live_through(at, |world| match due {
            Due::PeriodEnds => billing::cycle::period_ends(world, &id, at),
            Due::SubscriptionEnds => billing::cycle::ends_at(world, &id, at),
            Due::TrialEndsSoon => billing::cycle::trial_ends_soon(world, &id, at),
            Due::Incomplete => billing::cycle::gives_up(world, &id),
            Due::Finalize => billing::invoice::finalizes(world, &id, at),
            Due::Retry => billing::collect::retries(world, &id, at),
            Due::SessionEnds => super::checkout::ends(world, &id),
        });
    }
    happened
}

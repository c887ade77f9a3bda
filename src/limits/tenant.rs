//! What this process knows of one tenant: its buckets, and which of its places are used and leased here.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Scope;
use super::bucket::Bucket;
use super::upkeep::Queue;
use crate::id::TenantId;
use crate::redis::limits::{Held, Hold, Kind};

/// What is counted per tenant: the kinds of shared places, and sessions.
const COUNTS: usize = 4;
/// Of the places of a kind, all replicas together have at most one part in this many leased and unused for long.
const PARTS: u32 = 8;

/// Places of one kind.
#[derive(Debug, Default)]
struct Count {
    used: u32,
    /// Places that are ours; those that are not used among them. 0 where nothing is shared.
    leased: u32,
    /// Requests that wait for more of them.
    waiting: u32,
    /// How many to keep although they are not used.
    spare: u32,
    /// How many there were, when that was last asked.
    limit: u32,
    /// Some were taken since the last round.
    touched: bool,
    /// More than half of all places are leased: what is not used is given back at once.
    scarce: bool,
    /// What the shared state says of ours may not be so.
    unsure: bool,
}

/// One tenant.
#[derive(Debug)]
pub(super) struct Tenant {
    /// Its id.
    pub(super) id: TenantId,
    /// Requests.
    pub(super) requests: Arc<Bucket>,
    /// Bytes of bodies and answers.
    pub(super) bytes: Arc<Bucket>,
    /// Held by who leases for it: one at a time, for everybody who waits.
    pub(super) gate: tokio::sync::Mutex<()>,
    /// When it was noted last that we have places of it, and when others were last asked for theirs, in microseconds.
    noted: AtomicI64,
    recalled: AtomicI64,
    counts: [Mutex<Count>; COUNTS],
    queue: Option<Arc<Queue>>,
    /// It is in the queue.
    queued: AtomicBool,
}

/// What came of reaching for a place.
pub(super) enum Reached {
    /// Here it is.
    Got(Place),
    /// None of those that were leased is free.
    Short,
    /// All that there are are used here.
    Full,
}

fn kind_of(scope: Scope) -> usize {
    match scope {
        Scope::Streams => 1,
        Scope::Questions => 2,
        Scope::Sessions => 3,
        _ => 0,
    }
}

/// The kind of shared places that a limit counts. Sessions are counted where they are registered.
pub(super) fn shared_kind(scope: Scope) -> Option<Kind> {
    Kind::ALL.get(kind_of(scope)).copied()
}

impl Tenant {
    pub(super) fn new(id: TenantId, queue: Option<Arc<Queue>>) -> Self {
        Self {
            id,
            requests: Arc::default(),
            bytes: Arc::default(),
            gate: tokio::sync::Mutex::default(),
            noted: AtomicI64::new(i64::MIN),
            recalled: AtomicI64::new(i64::MIN),
            counts: Default::default(),
            queue,
            queued: AtomicBool::new(false),
        }
    }

    fn count(&self, at: usize) -> MutexGuard<'_, Count> {
        self.counts[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place where fewer than `limit` are used here.
    pub(super) fn take_here(self: &Arc<Self>, scope: Scope, limit: u32) -> Option<Place> {
        let mut count = self.count(kind_of(scope));
        (count.used < limit).then(|| self.place(&mut count, scope))
    }

    /// Takes one of the places that were leased.
    pub(super) fn take_leased(self: &Arc<Self>, scope: Scope, limit: u32) -> Reached {
        let mut count = self.count(kind_of(scope));
        if count.used >= limit {
            return Reached::Full;
        }
        if count.used >= count.leased {
            return Reached::Short;
        }
        Reached::Got(self.place(&mut count, scope))
    }

    /// Takes a place of this replica's share, or one that it had leased, while Redis is away.
    pub(super) fn take_share(self: &Arc<Self>, scope: Scope, limit: u32, replicas: u32) -> Option<Place> {
        let mut count = self.count(kind_of(scope));
        let share = (limit / replicas.max(1)).max(1).max(count.leased.min(limit));
        if count.used >= share {
            return None;
        }
        count.unsure = true;
        Some(self.place(&mut count, scope))
    }

    fn place(self: &Arc<Self>, count: &mut Count, scope: Scope) -> Place {
        count.used += 1;
        count.touched = true;
        Place { tenant: self.clone(), at: kind_of(scope) }
    }

    /// One more, or one less, waits for a place.
    pub(super) fn wait(&self, scope: Scope, waits: bool) {
        let mut count = self.count(kind_of(scope));
        count.waiting = if waits { count.waiting + 1 } else { count.waiting - 1 };
    }

    /// What to lease for everybody who waits for a place. Until the answer is there nobody takes one.
    pub(super) fn hold(&self, kind: Kind, limit: u32, replicas: u32) -> Hold {
        let mut count = self.count(kind as usize);
        count.spare = (limit / PARTS.saturating_mul(replicas)).max(1);
        count.limit = limit;
        let (waiting, spare) = (count.waiting.max(1), count.spare);
        count.hold(kind, waiting, spare)
    }

    /// What to say of our places where nobody waits; `None` where there is nothing to say. Those that are not used are given
    /// back, but for a few to have at hand.
    pub(super) fn settlement(&self, kind: Kind) -> Option<Hold> {
        let mut count = self.count(kind as usize);
        let says = count.used > 0 || count.leased > 0 || count.unsure;
        says.then(|| {
            let spare = count.spare;
            count.hold(kind, 0, spare)
        })
    }

    /// Takes over what was leased.
    pub(super) fn leased(&self, kind: Kind, held: Held) {
        let mut count = self.count(kind as usize);
        count.leased = held.leased;
        count.scarce = u64::from(held.total) * 2 > u64::from(count.limit);
        count.unsure = false;
    }

    /// Takes the place that was just leased for this request.
    pub(super) fn take_granted(self: &Arc<Self>, scope: Scope) -> Place {
        let mut count = self.count(kind_of(scope));
        self.place(&mut count, scope)
    }

    /// Has what the shared state says of this tenant put right, soon.
    pub(super) fn doubt(self: &Arc<Self>) {
        for kind in Kind::ALL {
            let mut count = self.count(kind as usize);
            count.unsure |= count.used > 0 || count.leased > 0;
        }
        self.queue(false);
    }

    /// Puts the tenant into the queue of those that have something to say to the shared state.
    pub(super) fn queue(self: &Arc<Self>, at_once: bool) {
        if let Some(queue) = &self.queue {
            if !self.queued.swap(true, Ordering::AcqRel) {
                queue.push(self.clone());
            }
            if at_once {
                queue.hurry();
            }
        }
    }

    /// It was taken out of the queue.
    pub(super) fn unqueued(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// Gives up places that nobody took since the last round. Says whether there is something to say of others.
    pub(super) fn grow_idle(&self) -> bool {
        let mut says = false;
        for kind in Kind::ALL {
            let mut count = self.count(kind as usize);
            if !count.touched && count.used == 0 && count.leased > 0 {
                count.spare = 0;
                says = true;
            }
            says |= count.unsure;
            count.touched = false;
        }
        says
    }

    /// Whether places of it are used or leased here.
    pub(super) fn is_held(&self) -> bool {
        (0..COUNTS).any(|at| {
            let count = self.count(at);
            count.used > 0 || count.leased > 0 || count.unsure
        })
    }

    /// Gives back all places that are not used.
    pub(super) fn give_back(self: &Arc<Self>) {
        for kind in Kind::ALL {
            self.count(kind as usize).spare = 0;
        }
        self.queue(true);
    }

    /// Whether our having places has to be noted again, for it was not for so long.
    pub(super) fn must_note(&self, now: i64, every: i64) -> bool {
        due(&self.noted, now, every)
    }

    /// That was not heard.
    pub(super) fn not_noted(&self) {
        self.noted.store(i64::MIN, Ordering::Relaxed);
    }

    /// Whether others may be asked again for their places.
    pub(super) fn may_recall(&self, now: i64, every: i64) -> bool {
        due(&self.recalled, now, every)
    }
}

impl Count {
    fn hold(&mut self, kind: Kind, more: u32, spare: u32) -> Hold {
        self.leased = self.used;
        self.unsure = true;
        Hold { kind, limit: self.limit, used: self.used, more, spare }
    }
}

/// Whether something is due again that was done last at this time, and if so that it is done now.
fn due(last: &AtomicI64, now: i64, every: i64) -> bool {
    let before = last.load(Ordering::Relaxed);
    let due = now.saturating_sub(before) >= every;
    if due {
        last.store(now, Ordering::Relaxed);
    }
    due
}

/// One of a counted number of places; given back when dropped.
#[derive(Debug)]
pub struct Place {
    tenant: Arc<Tenant>,
    at: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut count = self.tenant.count(self.at);
        count.used -= 1;
        let spare = if count.scarce { 0 } else { count.spare };
        let gives = count.leased.saturating_sub(count.used) > spare.saturating_add(count.waiting);
        let at_once = count.scarce;
        drop(count);
        if gives {
            self.tenant.queue(at_once);
        }
    }
}

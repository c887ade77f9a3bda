//! Limits: how much of Weir one tenant and one credential may use at once, over all replicas together.
//!
//! Rates are token buckets (GCRA) per tenant and per credential, and for the servers and tools for which the tenant's plan has
//! rules; beside them stand places for what runs, open streams and questions of a tenant, and a bucket of bytes.
//! Everything is keyed by tenant and credential, never by session, so a client that opens a new session for each call
//! gains nothing.
//!
//! A process that is alone has the buckets and places itself. Replicas share them through Redis
//! ([`crate::redis::limits`]) and *lease* from there ahead of use, so that most requests ask nobody: what is leased is
//! debited at once, and a request takes what it needs from what its replica has. Only where that is not enough it asks,
//! once, for everything it needs; of the requests of one tenant on one replica one asks at a time, for all that wait. A
//! refusal is remembered until there is a token again. Near a limit nothing is leased ahead, and every request asks.
//!
//! # How exact
//!
//! With *R* living replicas, and a bucket of *burst* that refills at *rate*:
//!
//! * **Rates.** A replica has at most ⌊*burst* / 8*R*⌋ tokens ahead of use, so in any span of time *t* all replicas together
//!   let in at most *burst* + *rate* · *t* + *burst* / 8 requests. Where *burst* < 8*R* it is *burst* + *rate* · *t* exactly.
//!   Tokens are leased ahead only while at least half of the bucket is left; those that nobody uses are lost, and never
//!   more than an eighth of a bucket. Replicas that have not yet heard of a new one (they do within a third of
//!   `redis.lease_ms`) may have another eighth.
//! * **Bytes.** The same, and what is under way: a body and an answer are charged whole, once their size is known, and what
//!   was sent on one replica is known to the others within 150 ms.
//! * **Places.** Never more than there are. Of a limit of *n* places a replica keeps up to max(1, *n* / 8*R*) at hand while
//!   at most half of all are leased, so that somebody else may be refused one of the last *n* / 8 (or *R*) although it is
//!   free; that refusal makes the others give back theirs, before the caller comes back after the second that it is told
//!   to wait. What a replica does not need it gives back within 150 ms, and at once while more than half are leased.
//!
//! Beyond that only faults lead: Redis that loses its memory forgets what was taken, which lets *burst* in once more, and
//! which places are in use until the replicas have said so again (within a beat); a replica that has not reached Redis
//! for longer than its lease still uses places that the others believe to be free. While Redis is away each replica has
//! 1 / *R* of every rate and every number of places (`limits.without_redis`); what it lets in is charged to the shared
//! bucket afterwards.

mod bucket;
mod known;
mod shared;
mod tenant;
#[cfg(test)]
mod tests;
mod upkeep;
mod values;
mod visit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crate::caller::Caller;
use crate::clock::Clock;
use crate::config::{self, WithoutRedis};
use crate::redis::Down;
use crate::redis::limits::{Lease, Leased};
use crate::telemetry::labels::Trip;
use crate::telemetry::metrics::Metrics;
use bucket::Taking;
use known::Known;
use tenant::Tenant;
use upkeep::Queue;
use visit::{Visit, Wanted, Which};

pub use crate::redis::limits::Level;
/// What can run out.
pub use crate::telemetry::labels::Limit as Scope;
pub use shared::Shared;
pub use tenant::Place;
pub use values::{EffectiveLimits, KeyLimits, PlanLimits, Rule};

/// A limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// Which one.
    pub scope: Scope,
    /// Its size: a burst, or a count.
    pub limit: u32,
    /// When it is worth coming back.
    pub retry_after: Duration,
}

/// What is left in the emptiest bucket that a request went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Size of that bucket.
    pub limit: u32,
    /// Tokens left in it.
    pub remaining: u32,
    /// Until it is full again.
    pub reset: Duration,
}

/// Proof that a request is within its limits. One that runs something holds a place for it.
#[derive(Debug)]
pub struct Admission {
    /// What is left.
    pub standing: Standing,
    place: Option<Place>,
}

/// What a request takes beside its one token of credential and tenant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// Size of its body.
    pub bytes: usize,
    /// Server and name of the tool that it calls.
    pub tool: Option<(&'a str, &'a str)>,
    /// It runs something and needs a place.
    pub runs: bool,
}

/// Having places of a tenant is noted this often, in microseconds.
const NOTE: i64 = 60_000_000;
/// After Redis did not answer, nobody asks for this long, in microseconds.
const AWAY: i64 = 100_000;

/// All limits of this process, and its part of those that replicas share.
pub struct Limits {
    clock: Clock,
    known: Known,
    shared: Option<Shared>,
    without_redis: WithoutRedis,
    queue: Arc<Queue>,
    /// When Redis last did not answer, on the monotonic clock.
    down_at: AtomicI64,
    /// This replica has given everything back and is about to end.
    left: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Limits {
    /// Limits of which nothing is used here. Nothing `shared`: this process is alone.
    #[must_use]
    pub fn new(config: &config::Limits, clock: Clock, shared: Option<Shared>, metrics: Arc<Metrics>) -> Self {
        let queue = Arc::new(Queue::default());
        let known = Known::new(shared.is_some().then(|| queue.clone()));
        Self {
            clock,
            known,
            shared,
            without_redis: config.without_redis,
            queue,
            down_at: AtomicI64::new(i64::MIN),
            left: AtomicBool::new(false),
            metrics,
        }
    }

    /// Whether a request of this caller would be refused for all that is known here. Takes nothing.
    ///
    /// # Errors
    /// Which bucket is empty and when it has a token again.
    pub fn look(&self, caller: &Caller) -> Result<(), Limited> {
        let (now, limits) = (self.clock.monotonic_micros(), caller.limits());
        let tenant = self.known.tenant(caller.tenant());
        let key = self.known.key(caller.principal());
        let buckets = [
            (Scope::Key, Some(limits.key), &key),
            (Scope::Tenant, Some(limits.tenant), &tenant.requests),
            (Scope::Bytes, limits.bytes, &tenant.bytes),
        ];
        for (scope, rate, bucket) in buckets {
            let Some(rate) = rate else { continue };
            let wait = match &self.shared {
                None => bucket.look_here(rate, now),
                Some(_) => bucket.look_leased(rate, now),
            };
            if let Some(retry_after) = wait {
                return Err(Limited { scope, limit: rate.burst, retry_after });
            }
        }
        Ok(())
    }

    /// Takes what a request needs from everything that limits it; from nothing where something is missing.
    ///
    /// # Errors
    /// What is missing and when it is there again.
    pub async fn admit(&self, caller: &Caller, asked: Asked<'_>) -> Result<Admission, Limited> {
        let limits = caller.limits();
        let principal = caller.principal();
        let tenant = self.known.tenant(caller.tenant());
        let wanted = Wanted { scope: Scope::Concurrency, limit: limits.concurrency };
        let mut visit = Visit::new(tenant.clone(), asked.runs.then_some(wanted));
        let one = |scope, rate| Taking { scope, rate, amount: 1 };
        visit.through(
            Which::Key(&principal.credential),
            one(Scope::Key, limits.key),
            self.known.key(principal),
        );
        visit.through(Which::Tenant, one(Scope::Tenant, limits.tenant), tenant.requests.clone());
        if let Some((server, tool)) = asked.tool {
            if let Some(rate) = limits.of_server(server) {
                let bucket = self.known.called(caller.tenant(), server, None);
                visit.through(Which::Server(server), one(Scope::Server, rate), bucket);
            }
            if let Some(rate) = limits.of_tool(tool) {
                let bucket = self.known.called(caller.tenant(), server, Some(tool));
                visit.through(Which::Tool(server, tool), one(Scope::Tool, rate), bucket);
            }
        }
        if let Some(rate) = limits.bytes {
            let taking = Taking { scope: Scope::Bytes, rate, amount: whole(asked.bytes) };
            visit.through(Which::Bytes, taking, tenant.bytes.clone());
        }
        self.pass(&mut visit).await?;
        Ok(visit.admitted())
    }

    /// Lets a request through all that it wants.
    async fn pass(&self, visit: &mut Visit<'_>) -> Result<(), Limited> {
        let now = self.clock.monotonic_micros();
        let Some(shared) = &self.shared else { return visit.take_here(now) };
        let replicas = shared.replicas();
        if visit.take_leased(replicas, now)? {
            return Ok(());
        }
        if !self.may_ask(shared) {
            return visit.take_share(self, replicas, now);
        }
        // In a box, so that those who need not wait do not carry it.
        Box::pin(visit.take_missing(self, shared)).await
    }

    /// The admission's place for something that runs, or another one: a call that comes back after a question has given up
    /// its own.
    ///
    /// # Errors
    /// Where the tenant has as much running as it may.
    pub async fn running(&self, caller: &Caller, admission: &mut Admission) -> Result<Place, Limited> {
        match admission.place.take() {
            Some(place) => Ok(place),
            None => self.place(caller, Scope::Concurrency).await,
        }
    }

    /// Takes one of the tenant's places for what runs, for streams or for calls that wait for an answer; of all replicas
    /// together. Places for sessions are counted in this process.
    ///
    /// # Errors
    /// Where all are taken.
    pub async fn place(&self, caller: &Caller, scope: Scope) -> Result<Place, Limited> {
        if self.shared.is_none() || tenant::shared_kind(scope).is_none() {
            return self.place_here(caller, scope);
        }
        let wanted = wanted(caller, scope);
        let mut visit = Visit::new(self.known.tenant(caller.tenant()), Some(wanted));
        self.pass(&mut visit).await?;
        visit.into_place().ok_or(wanted.limited())
    }

    /// Takes one of the tenant's places in this process.
    ///
    /// # Errors
    /// Where all are taken.
    pub fn place_here(&self, caller: &Caller, scope: Scope) -> Result<Place, Limited> {
        let wanted = wanted(caller, scope);
        let place = self.known.tenant(caller.tenant()).take_here(scope, wanted.limit);
        place.ok_or(wanted.limited())
    }

    /// Notes bytes that were sent to this caller. Whether they may be sent was decided when its request was let in; the next
    /// one has to wait for them.
    pub fn charge(&self, caller: &Caller, bytes: usize) {
        let Some(rate) = caller.limits().bytes else { return };
        let (now, bytes) = (self.clock.monotonic_micros(), whole(bytes));
        let tenant = self.known.tenant(caller.tenant());
        match &self.shared {
            None => tenant.bytes.charge_here(rate, bytes, now),
            Some(shared) if self.may_ask(shared) => {
                if tenant.bytes.charge_leased(rate, bytes) {
                    tenant.queue(false);
                }
            }
            Some(shared) => tenant.bytes.charge_share(rate, bytes, shared.replicas(), now),
        }
    }

    /// Whether there is somebody to ask.
    fn may_ask(&self, shared: &Shared) -> bool {
        let since = self.clock.monotonic_micros().saturating_sub(self.down_at.load(Ordering::Relaxed));
        shared.is_up() && since >= AWAY && !self.left.load(Ordering::Relaxed)
    }

    fn was_down_since(&self, time: i64) -> bool {
        self.down_at.load(Ordering::Relaxed) >= time
    }

    /// Asks the shared state. That this replica has places of the tenant is noted in the same breath, where it was not for a
    /// while.
    async fn ask(
        &self,
        shared: &Shared,
        tenant: &Tenant,
        lease: &Lease<'_>,
        why: Trip,
    ) -> Result<Leased, Down> {
        self.metrics.limit_trips.inc(why);
        let now = self.clock.monotonic_micros();
        let has_places = lease.holds.iter().any(|hold| hold.used > 0 || hold.more > 0);
        let leased = if has_places && tenant.must_note(now, NOTE) {
            let noting = shared.note(tenant.id, self.clock.now().as_seconds());
            let (noted, leased) = tokio::join!(noting, shared.lease(lease));
            if noted.is_err() {
                tenant.not_noted();
            }
            leased
        } else {
            shared.lease(lease).await
        };
        if leased.is_err() {
            self.down_at.store(self.clock.monotonic_micros(), Ordering::Relaxed);
        }
        leased
    }
}

/// How many places of a kind the caller's tenant has.
fn wanted(caller: &Caller, scope: Scope) -> Wanted {
    let limits = caller.limits();
    let limit = match scope {
        Scope::Sessions => limits.sessions,
        Scope::Streams => limits.streams,
        Scope::Questions => limits.questions,
        _ => limits.concurrency,
    };
    Wanted { scope, limit }
}

fn whole(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

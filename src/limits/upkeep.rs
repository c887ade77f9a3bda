//! What limits do beside requests: give back places that nobody needs, say what is used where the shared state cannot know
//! or has forgotten, and report bytes that were sent.
//!
//! Tenants with something to say wait in a queue, each once. It is emptied a few times a second, and at once where places
//! are scarce; whatever came meanwhile goes in the next turn.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::shared::Shared;
use super::tenant::Tenant;
use crate::id::{ReplicaId, TenantId};
use crate::redis::Down;
use crate::redis::limits::{KEPT, Kind, Lease, Name};
use crate::telemetry::labels::Trip;

/// How often the queue is emptied.
const TURN: Duration = Duration::from_millis(150);
/// How often places that nobody took since the last time are given back.
const ROUND: Duration = Duration::from_secs(60);
/// Rounds after which what is held is said again, so that it is not forgotten.
const ROUNDS: u64 = KEPT.as_secs() / 3 / ROUND.as_secs();
/// Tenants that are settled at once.
const AT_ONCE: usize = 64;

/// Tenants that have something to say to the shared state. Each is in it once, so there are no more of them than are
/// remembered.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Arc<Tenant>>>,
    hurry: Notify,
}

impl Queue {
    pub(super) fn push(&self, tenant: Arc<Tenant>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(tenant);
    }

    /// Has it emptied at once.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    fn take(&self) -> Vec<Arc<Tenant>> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Limits {
    /// Does it until `stop` fires. Without a shared state there is nothing to do.
    pub async fn upkeep(self: Arc<Self>, stop: CancellationToken) {
        if let Some(shared) = &self.shared {
            let _ = stop.run_until_cancelled(self.keep(shared)).await;
        }
    }

    async fn keep(&self, shared: &Shared) {
        let mut turn = tokio::time::interval(TURN);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = tokio::time::interval(ROUND);
        let mut rounds = 0;
        let mut connected = shared.connected();
        loop {
            tokio::select! {
                _ = turn.tick() => {}
                () = self.queue.hurry.notified() => {}
                _ = round.tick() => {
                    rounds += 1;
                    self.go_round(rounds % ROUNDS == 0);
                }
                // What was said over a connection that broke may not have been heard.
                _ = connected.changed() => self.doubt_all(),
            }
            self.settle_all(shared).await;
        }
    }

    /// Settles every tenant in the queue.
    pub(super) async fn settle_all(&self, shared: &Shared) {
        if !self.may_ask(shared) {
            return;
        }
        let settle = |tenant| self.settle(shared, tenant);
        stream::iter(self.queue.take()).for_each_concurrent(AT_ONCE, settle).await;
    }

    pub(super) fn go_round(&self, say_again: bool) {
        self.known.each_tenant(|tenant| {
            let says = tenant.grow_idle();
            if says || (say_again && tenant.is_held()) {
                tenant.queue(false);
            }
        });
    }

    /// Has everything said again that the shared state should know of this replica.
    fn doubt_all(&self) {
        self.known.each_tenant(|tenant| {
            if tenant.is_held() {
                tenant.doubt();
            }
        });
    }

    /// What was leased is worth nothing any more, because the shared state has lost its memory or took this replica for dead:
    /// gives it up, and has said again what is in use.
    pub fn reassert(&self) {
        self.known.each_bucket(super::bucket::Bucket::forget_leased);
        self.doubt_all();
        self.queue.hurry();
    }

    /// Gives back the tenant's places that are not used here: somebody else needs one.
    pub fn give_back(&self, tenant: TenantId) {
        if let Some(tenant) = self.known.peek(tenant) {
            tenant.give_back();
        }
    }

    /// Says which places the tenant uses here, and what it used without having leased it.
    async fn settle(&self, shared: &Shared, tenant: Arc<Tenant>) {
        tenant.unqueued();
        // Who leases now says it as well; what is left is said in the next turn.
        let Ok(_gate) = tenant.gate.try_lock() else { return tenant.queue(false) };
        let (now, replicas) = (self.clock.monotonic_micros(), shared.replicas());
        let reported = tenant.bytes.report(Name::Bytes, replicas, now);
        let holds: Vec<_> = Kind::ALL.into_iter().filter_map(|kind| tenant.settlement(kind)).collect();
        if reported.is_none() && holds.is_empty() {
            return;
        }
        let draws = reported.iter().map(|(draw, _)| *draw).collect();
        let lease = Lease { tenant: tenant.id, draws, holds };
        let Ok(leased) = self.ask(shared, &tenant, &lease, Trip::Upkeep).await else {
            return tenant.queue(false);
        };
        if let (Some((draw, owed)), Some(drawn)) = (reported, leased.draws.first()) {
            tenant.bytes.leased(draw.rate, *drawn, owed, now);
        }
        for (hold, held) in lease.holds.iter().zip(&leased.holds) {
            tenant.leased(hold.kind, *held);
        }
    }

    /// Gives back every place of a replica that died. Doing it twice changes nothing.
    ///
    /// # Errors
    /// [`Down`]; then some may still be taken.
    pub async fn forget_replica(&self, dead: ReplicaId) -> Result<(), Down> {
        match &self.shared {
            Some(Shared::Redis { store, .. }) => store.forget(dead).await,
            _ => Ok(()),
        }
    }

    /// Gives back everything that this replica has: it is about to end.
    ///
    /// # Errors
    /// [`Down`]; it then stays taken until the replica counts as dead.
    pub async fn leave(&self) -> Result<(), Down> {
        // Nothing that is leased after this would be given back.
        self.left.store(true, Ordering::Relaxed);
        match &self.shared {
            Some(Shared::Redis { store, .. }) => store.leave().await,
            _ => Ok(()),
        }
    }
}

//! What sessions that replicas share need from time to time: those that have run out are found, and what Redis forgot is
//! written down again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::shared::{Busy, GONE_AT_ONCE, NOTED_FOR, Shared};
use super::{Session, Sessions};
use crate::id::{SessionRowId, TenantId};
use crate::replicas::{Message, SessionName};
use crate::telemetry::labels::SessionEnd;

/// How often what ran out is looked for among all tenants, in seconds; one replica does it.
const REAP_EVERY: u64 = 30;

impl Sessions {
    /// This replica stops; its sessions go on at others. Records what they carried here.
    pub fn leave(&self) {
        for session in self.select(|_| true) {
            if session.unsaved.load(Ordering::Relaxed) {
                self.close_here(&session, SessionEnd::Shutdown);
            } else {
                self.carried_here(&session);
            }
        }
    }

    /// Ends at this replica what has run out, and looks for what ran out everywhere.
    pub async fn sweep_shared(&self) {
        let Some(shared) = &self.shared else { return };
        let now = self.clock.monotonic_micros();
        for session in self.select(|_| true) {
            self.sweep_one(shared, &session, now).await;
        }
        for tenant in self.tenants() {
            self.reap(shared, tenant).await;
        }
        self.reap_all(shared).await;
    }

    async fn sweep_one(&self, shared: &Arc<Shared>, session: &Arc<Session>, now: i64) {
        let quiet = now - session.last_seen.load(Ordering::Relaxed);
        let time = self.time_of(session);
        if session.is_orphan() {
            if quiet > time {
                self.close_everywhere(session, SessionEnd::Disconnected).await;
            }
        } else if session.is_busy() {
            session.last_seen.store(now, Ordering::Relaxed);
            let busy = Busy::For(shared.busy_for);
            let is_open = shared.touch(session.name(), shared.lives_for(session), busy).await;
            if is_open == Ok(false) && !session.unsaved.load(Ordering::Relaxed) && self.forget(session) {
                self.used_here(session);
            }
        } else if quiet > time && !session.inner().streams.keeps() {
            if session.unsaved.load(Ordering::Relaxed) {
                self.close_here(session, SessionEnd::Idle);
            } else if self.forget(session) {
                // Others may use it still; whoever finds that it has run out says so.
                self.used_here(session);
            }
        }
    }

    async fn reap(&self, shared: &Shared, tenant: TenantId) {
        while let Ok(gone) = shared.reap(tenant).await {
            let more = gone.len() == GONE_AT_ONCE;
            self.ran_out(tenant, &gone);
            if !more {
                return;
            }
        }
    }

    /// Looks at every tenant that has something in Redis, where no other replica did so just now.
    async fn reap_all(&self, shared: &Shared) {
        let redis = &shared.peers.redis;
        let mut turn = redis::cmd("SET");
        turn.arg(redis.keys().reaping()).arg(1).arg("NX").arg("EX").arg(REAP_EVERY);
        if redis.run::<Option<String>>(&turn).await.ok().flatten().is_none() {
            return;
        }
        let oldest = self.clock.now().as_seconds() - NOTED_FOR;
        let mut old = redis::cmd("ZREMRANGEBYSCORE");
        let _ = redis.run::<()>(old.arg(redis.keys().tenants()).arg("-inf").arg(oldest)).await;
        let mut all = redis::cmd("ZRANGE");
        let tenants: Vec<String> =
            redis.run(all.arg(redis.keys().tenants()).arg(0).arg(-1)).await.unwrap_or_default();
        for tenant in tenants.iter().filter_map(|text| text.parse().ok()) {
            self.reap(shared, tenant).await;
        }
    }

    /// These have run out, and nobody else says so.
    pub(super) fn ran_out(&self, tenant: TenantId, gone: &[SessionRowId]) {
        for row in gone {
            let name = SessionName { tenant, row: *row };
            match self.at(name) {
                Some(session) => {
                    if self.forget(&session) {
                        self.ended(&session, SessionEnd::Idle);
                    }
                }
                None => self.ended_elsewhere(name, SessionEnd::Idle),
            }
            if let Some(shared) = &self.shared {
                shared.peers.courier.tell_all(Message::Closed { session: name });
            }
        }
    }

    /// Redis is there again, or has lost its memory: what is known here is written down, and what others ended meanwhile is
    /// dropped. Where some of what streams said was not written down, all that is kept of them is.
    pub async fn write_again(&self, memory_lost: bool, has_gaps: bool) {
        let Some(shared) = &self.shared else { return };
        let sessions = self.select(|_| true);
        if memory_lost {
            // Whatever becomes of this attempt.
            sessions.iter().for_each(|session| session.unsaved.store(true, Ordering::Relaxed));
        }
        for session in sessions {
            let (name, time) = (session.name(), shared.lives_for(&session));
            if session.unsaved.load(Ordering::Relaxed) {
                if shared.save(name, time, &session.fields()).await.is_err() {
                    return;
                }
                session.unsaved.store(false, Ordering::Relaxed);
                drop(session.place.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
                session.mirror_again(shared);
                continue;
            }
            match shared.touch(name, time, Busy::NotHere).await {
                Ok(true) if has_gaps => session.mirror_again(shared),
                Ok(false) if self.forget(&session) => self.used_here(&session),
                _ => {}
            }
        }
    }
}

impl Session {
    /// Writes down again what is kept of its streams.
    fn mirror_again(&self, shared: &Shared) {
        let name = self.name();
        self.inner().streams.mirror_again(|feed| shared.mirror(name, feed));
        if let Some(held) = self.held() {
            held.mirror(shared.mirror(name, &held), false);
        }
    }
}

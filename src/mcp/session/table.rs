//! All sessions of this process: opened, found, swept and closed here.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;

use super::{Opening, Session, Transport};
use crate::caller::Principal;
use crate::clock::Clock;
use crate::config;
use crate::hooks::{self, Hook};
use crate::id::{SessionRowId, TenantId};
use crate::limits::{Limited, Limits, Place, Scope};
use crate::mcp::feed::{Memory, Store};
use crate::telemetry::labels::SessionEnd;
use crate::usage::Journal;

/// Sessions that one sweep, or one step of a stop, ends.
pub const AT_ONCE: usize = 1000;
/// How long the first message after `initialize` may take before the session counts as unused, in microseconds.
const HANDSHAKE: i64 = 5_000_000;
/// How often room for one more session is made, where others take it first.
const TRIES: u32 = 8;

/// All sessions of this process.
pub struct Sessions {
    clock: Clock,
    limits: Arc<Limits>,
    hooks: Arc<[Box<dyn Hook>]>,
    journal: Journal,
    times: Times,
    memory: Arc<Memory>,
    open: Mutex<Table>,
}

/// How long sessions and what they keep live, in microseconds.
struct Times {
    idle: i64,
    unused: i64,
    grace: i64,
    replay: i64,
}

impl Times {
    /// How long this session may be quiet.
    fn of(&self, session: &Session) -> i64 {
        if session.is_orphan() {
            self.grace
        } else if session.used.load(Ordering::Relaxed) {
            self.idle
        } else {
            self.unused
        }
    }

    fn new(config: &config::Mcp) -> Self {
        let micros = |time: config::Millis| i64::try_from(time.get().as_micros()).unwrap_or(i64::MAX);
        Self {
            idle: micros(config.session_idle),
            unused: micros(config.session_unused.min(config.session_idle)),
            grace: micros(config.sse_grace),
            replay: micros(config.replay),
        }
    }
}

#[derive(Default)]
struct Table {
    by_id: HashMap<Box<str>, Arc<Session>>,
    by_tenant: HashMap<TenantId, OfTenant>,
}

/// The sessions of one tenant, and what they keep for clients that come back.
struct OfTenant {
    sessions: HashMap<SessionRowId, Arc<Session>>,
    store: Arc<Store>,
}

impl Table {
    /// The tenant's store: one for all of its sessions. It is there until its last session ends.
    fn store(&mut self, tenant: TenantId, memory: &Arc<Memory>) -> Arc<Store> {
        let fresh = || OfTenant { sessions: HashMap::new(), store: memory.store() };
        self.by_tenant.entry(tenant).or_insert_with(fresh).store.clone()
    }

    fn insert(&mut self, session: &Arc<Session>) {
        self.by_id.insert(session.id.clone(), session.clone());
        let fresh = || OfTenant { sessions: HashMap::new(), store: session.store.clone() };
        let of_tenant = self.by_tenant.entry(session.owner.tenant).or_insert_with(fresh);
        of_tenant.sessions.insert(session.row, session.clone());
    }

    /// The session of the tenant that is missed least, of those that are not busy: first one that nothing has come on for
    /// longer than a handshake takes, or whose client is away; then the one that has used up most of its time.
    fn least_wanted(&self, tenant: TenantId, times: &Times, now: i64) -> Option<Arc<Session>> {
        let idle = self.by_tenant.get(&tenant)?.sessions.values().filter(|s| !s.is_busy());
        let rank = |s: &Session| {
            let quiet = now - s.last_seen.load(Ordering::Relaxed);
            let waits = !s.is_orphan() && (s.used.load(Ordering::Relaxed) || quiet < HANDSHAKE);
            (!waits, quiet * 1_000_000 / times.of(s).max(1))
        };
        idle.max_by_key(|s| rank(s)).cloned()
    }

    fn remove(&mut self, session: &Session) -> bool {
        if let Some(of_tenant) = self.by_tenant.get_mut(&session.owner.tenant) {
            of_tenant.sessions.remove(&session.row);
            if of_tenant.sessions.is_empty() {
                self.by_tenant.remove(&session.owner.tenant);
            }
        }
        let removed = self.by_id.remove(&session.id).is_some();
        // What a storm of sessions needed is given back after it.
        if self.by_id.len() < self.by_id.capacity() / 8 {
            self.by_id.shrink_to(self.by_id.len() * 2);
        }
        removed
    }
}

impl Sessions {
    /// No sessions.
    #[must_use]
    pub fn new(
        clock: Clock,
        limits: Arc<Limits>,
        hooks: Arc<[Box<dyn Hook>]>,
        journal: Journal,
        config: &config::Mcp,
    ) -> Self {
        let (memory, times) = (Memory::new(config), Times::new(config));
        Self { clock, limits, hooks, journal, times, memory, open: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session. A tenant that has as many as it may loses one that is not busy: first those that were never used or
    /// whose client is away, then the one that has used up most of its time. Clients that initialize before every call never
    /// close what they opened.
    ///
    /// # Errors
    /// Where all of the tenant's sessions are busy.
    pub fn open(&self, opening: Opening) -> Result<Arc<Session>, Limited> {
        let tenant = opening.caller.tenant();
        let place = self.place(tenant)?;
        let mut secret = [0; 32];
        if aws_lc_rs::rand::fill(&mut secret).is_err() {
            return Err(Limited { scope: Scope::Sessions, limit: 0, retry_after: Duration::from_secs(1) });
        }
        let id = BASE64URL_NOPAD.encode(&secret).into();
        let now = (self.clock.now(), self.clock.monotonic_micros());
        let store = self.table().store(tenant, &self.memory);
        let session = Arc::new(Session::new(id, opening, place, store, now));
        // Told before it can be found, and so before it can end.
        hooks::tell(&self.hooks, |hook| hook.session_opened(&session.info()));
        self.journal.session_opened(&session);
        self.table().insert(&session);
        Ok(session)
    }

    /// A place for one more session of the tenant. Others may be quicker to take one that was made.
    fn place(&self, tenant: TenantId) -> Result<Place, Limited> {
        for _ in 0..TRIES {
            if let Ok(place) = self.limits.place(tenant, Scope::Sessions) {
                return Ok(place);
            }
            if !self.evict_one(tenant) {
                break;
            }
        }
        self.limits.place(tenant, Scope::Sessions)
    }

    /// The session of this id on this transport, if it is this principal's. Counts as activity.
    #[must_use]
    pub fn get(&self, id: &str, transport: Transport, owner: Option<&Principal>) -> Option<Arc<Session>> {
        let session = self.table().by_id.get(id).cloned()?;
        let mine = owner.is_none_or(|owner| *owner == session.owner);
        if !mine || session.transport != transport {
            return None;
        }
        self.touch(&session);
        Some(session)
    }

    /// The HTTP+SSE session that `owner` comes back to. Counts as activity.
    #[must_use]
    pub fn left_behind(&self, row: SessionRowId, owner: &Principal) -> Option<Arc<Session>> {
        let session = self.table().by_tenant.get(&owner.tenant)?.sessions.get(&row).cloned()?;
        if session.owner != *owner || session.transport != Transport::Sse {
            return None;
        }
        self.touch(&session);
        Some(session)
    }

    fn touch(&self, session: &Session) {
        session.last_seen.store(self.clock.monotonic_micros(), Ordering::Relaxed);
        session.used.store(true, Ordering::Relaxed);
    }

    /// A stream of an HTTP+SSE session is gone. The session ends with its last one, unless a grace period is configured in
    /// which the client may come back.
    pub fn left(&self, session: &Session) {
        session.last_seen.store(self.clock.monotonic_micros(), Ordering::Relaxed);
        if self.times.grace == 0 && session.is_orphan() {
            self.close(session, SessionEnd::Disconnected);
        }
    }

    /// Ends a session, and with it what still runs in it: nobody is left to hear the answers. Ending one twice is
    /// fine.
    pub fn close(&self, session: &Session, reason: SessionEnd) {
        if self.table().remove(session) {
            self.ended(session, reason);
        }
    }

    fn ended(&self, session: &Session, reason: SessionEnd) {
        session.end();
        hooks::tell(&self.hooks, |hook| hook.session_closed(&session.info(), reason));
        self.journal.session_closed(session, self.clock.now(), reason);
    }

    /// Sessions for which `which` holds.
    #[must_use]
    pub fn select(&self, which: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        self.table().by_id.values().filter(|s| which(s)).cloned().collect()
    }

    /// Ends what was idle for too long and gives up what is kept for too long. Open streams and running calls count as
    /// activity, but for the session of an HTTP+SSE client that went away: nobody is left to hear of its calls. Ends some
    /// [thousand](AT_ONCE) sessions and no more, so that the journal keeps up; says whether there are others.
    pub fn sweep(&self) -> bool {
        let now = self.clock.monotonic_micros();
        let quiet = |session: &Session| now - session.last_seen.load(Ordering::Relaxed);
        for session in self.select(|_| true) {
            session.age(now, self.times.replay);
        }
        self.table().by_tenant.values().for_each(|of_tenant| of_tenant.store.purge());
        let least = self.times.idle.min(self.times.unused).min(self.times.grace);
        let mut ended = 0;
        for session in self.select(|session| quiet(session) > least) {
            if ended == AT_ONCE {
                return true;
            }
            if session.is_orphan() {
                if quiet(&session) > self.times.of(&session) {
                    self.close(&session, SessionEnd::Disconnected);
                    ended += 1;
                }
                continue;
            }
            if quiet(&session) <= self.times.of(&session) {
                continue;
            }
            if session.is_busy() {
                session.last_seen.store(now, Ordering::Relaxed);
            } else {
                self.close(&session, SessionEnd::Idle);
                ended += 1;
            }
        }
        false
    }

    /// Ends one session of the tenant. Whether there was one to end.
    fn evict_one(&self, tenant: TenantId) -> bool {
        let now = self.clock.monotonic_micros();
        let mut table = self.table();
        let Some(victim) = table.least_wanted(tenant, &self.times, now) else { return false };
        // Out of the table before anybody else can choose it.
        table.remove(&victim);
        drop(table);
        self.ended(&victim, SessionEnd::Evicted);
        true
    }

    /// How many bytes are kept for clients that come back.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.memory.used()
    }

    /// How many sessions are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table().by_id.len()
    }

    /// Whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

//! All sessions of this process: opened, found, swept and closed here.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::sync::Cache;

use super::across::NOTE_EVERY;
use super::shared::{self, Shared};
use super::{Opening, Session, Transport};
use crate::caller::{Caller, Principal};
use crate::clock::Clock;
use crate::config;
use crate::hooks::{self, Hook};
use crate::id::{SessionRowId, TenantId};
use crate::limits::{Limited, Limits, Place, Scope};
use crate::mcp::feed::{Memory, Store};
use crate::replicas::{Peers, SessionName};
use crate::seal::Sealer;
use crate::tasks::Tasks;
use crate::telemetry::labels::SessionEnd;
use crate::telemetry::metrics::Metrics;
use crate::usage::Journal;

/// Sessions that one sweep, or one step of a stop, ends.
pub const AT_ONCE: usize = 1000;
/// How long the first message after `initialize` may take before the session counts as unused, in microseconds.
const HANDSHAKE: i64 = 5_000_000;
/// Tenants of which it is remembered when they were noted.
const NOTED: usize = 10_000;
/// How often room for one more session is made, where others take it first.
const TRIES: u32 = 8;

/// All sessions of this process.
pub struct Sessions {
    pub(super) clock: Clock,
    pub(super) limits: Arc<Limits>,
    pub(super) sealer: Arc<Sealer>,
    /// What is shared with other replicas, where there are any.
    pub(super) shared: Option<Arc<Shared>>,
    hooks: Arc<[Box<dyn Hook>]>,
    journal: Journal,
    metrics: Arc<Metrics>,
    times: Times,
    memory: Arc<Memory>,
    open: Mutex<Table>,
    /// When each tenant was noted as having something in Redis.
    noted: Cache<TenantId, i64>,
}

/// What sessions are made with.
pub struct Foundation {
    /// The time.
    pub clock: Clock,
    /// How many a tenant may have.
    pub limits: Arc<Limits>,
    /// Makes their ids.
    pub sealer: Arc<Sealer>,
    /// Is told of each.
    pub hooks: Arc<[Box<dyn Hook>]>,
    /// Records each.
    pub journal: Journal,
    /// Counts them.
    pub metrics: Arc<Metrics>,
    /// The other replicas, and the tasks that work for them.
    pub peers: Option<(Arc<Peers>, Tasks)>,
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

    fn at(&self, name: SessionName) -> Option<Arc<Session>> {
        self.by_tenant.get(&name.tenant)?.sessions.get(&name.row).cloned()
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
    pub fn new(on: Foundation, config: &config::Mcp) -> Arc<Self> {
        let Foundation { clock, limits, sealer, hooks, journal, metrics, peers } = on;
        let (memory, times) = (Memory::new(config), Times::new(config));
        let shared = peers.map(|(peers, tasks)| {
            let times = shared::Times {
                idle: config.session_idle.get(),
                unused: config.session_unused.get().min(config.session_idle.get()),
                grace: config.sse_grace.get(),
                replay: config.replay.get(),
            };
            Arc::new(Shared::new(peers, tasks, times))
        });
        let (open, noted) = (Mutex::default(), Cache::new(NOTED));
        Arc::new(Self { clock, limits, sealer, shared, hooks, journal, metrics, times, memory, open, noted })
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
    pub async fn open(&self, opening: Opening) -> Result<Arc<Session>, Limited> {
        if let Some(shared) = &self.shared {
            return Box::pin(self.open_shared(shared, opening)).await;
        }
        let place = self.place(&opening.caller)?;
        let session = self.make(SessionRowId::new(), opening, None);
        *session.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        Ok(self.opened(session))
    }

    /// Tells of a session that was opened here.
    pub(super) fn opened(&self, session: Arc<Session>) -> Arc<Session> {
        // Told before it can be found, and so before it can end.
        hooks::tell(&self.hooks, |hook| hook.session_opened(&session.info()));
        self.journal.session_opened(&session);
        self.metrics.sessions_open.enter(session.transport);
        self.table().insert(&session);
        session
    }

    /// Keeps a session that was read from Redis, unless somebody was quicker.
    pub(super) fn keep_first(&self, session: Arc<Session>) -> Arc<Session> {
        let mut table = self.table();
        if let Some(known) = table.at(session.name()) {
            return known;
        }
        self.metrics.sessions_open.enter(session.transport);
        table.insert(&session);
        session
    }

    /// The session of this name, as far as it is known here.
    pub(super) fn at(&self, name: SessionName) -> Option<Arc<Session>> {
        self.table().at(name)
    }

    /// Where the tenant's streams keep what they said.
    pub(super) fn store(&self, tenant: TenantId) -> Arc<Store> {
        self.table().store(tenant, &self.memory)
    }

    /// Tenants of which there are sessions here.
    pub(super) fn tenants(&self) -> Vec<TenantId> {
        self.table().by_tenant.keys().copied().collect()
    }

    /// Whether it is time to note a tenant.
    pub(super) fn is_to_note(&self, tenant: TenantId, now: i64) -> bool {
        let due = self.noted.get(&tenant).is_none_or(|noted| now - noted >= NOTE_EVERY);
        if due {
            self.noted.insert(tenant, now);
        }
        due
    }

    /// How long this session may be quiet, in microseconds.
    pub(super) fn time_of(&self, session: &Session) -> i64 {
        self.times.of(session)
    }

    /// The shortest time that a session may be quiet, in microseconds.
    pub(super) fn shortest(&self) -> i64 {
        self.times.idle.min(self.times.unused)
    }

    /// A place for one more session of the tenant. Others may be quicker to take one that was made.
    pub(super) fn place(&self, caller: &Caller) -> Result<Place, Limited> {
        for _ in 0..TRIES {
            if let Ok(place) = self.limits.place_here(caller, Scope::Sessions) {
                return Ok(place);
            }
            if !self.evict_one(caller.tenant()) {
                break;
            }
        }
        self.limits.place_here(caller, Scope::Sessions)
    }

    /// The session of this id on this transport, if it is this principal's. Counts as activity.
    pub async fn get(
        &self,
        id: &str,
        transport: Transport,
        owner: Option<&Principal>,
    ) -> Option<Arc<Session>> {
        let known = self.table().by_id.get(id).cloned();
        let session = match known {
            Some(session) => session,
            None => {
                self.shared.as_ref()?;
                let (tenant, row) = self.sealer.session_of(id)?;
                if owner.is_some_and(|owner| owner.tenant != tenant) {
                    return None;
                }
                Box::pin(self.load(SessionName { tenant, row })).await?
            }
        };
        let mine = owner.is_none_or(|owner| *owner == session.owner);
        if !mine || session.transport != transport {
            return None;
        }
        self.touch(&session);
        Some(session)
    }

    /// The HTTP+SSE session that `owner` comes back to. Counts as activity.
    pub async fn left_behind(&self, row: SessionRowId, owner: &Principal) -> Option<Arc<Session>> {
        let session = Box::pin(self.load(SessionName { tenant: owner.tenant, row })).await?;
        if session.owner != *owner || session.transport != Transport::Sse {
            return None;
        }
        self.touch(&session);
        Some(session)
    }

    fn touch(&self, session: &Session) {
        session.last_seen.store(self.clock.monotonic_micros(), Ordering::Relaxed);
        let was_used = session.used.swap(true, Ordering::Relaxed);
        self.tell_in_use(session, was_used);
    }

    /// A stream of an HTTP+SSE session is gone. The session ends with its last one, unless a grace period is configured in
    /// which the client may come back.
    pub fn left(self: &Arc<Self>, session: &Arc<Session>) {
        session.last_seen.store(self.clock.monotonic_micros(), Ordering::Relaxed);
        if self.times.grace == 0 && session.is_orphan() {
            self.close(session, SessionEnd::Disconnected);
        }
    }

    /// Ends a session, and with it what still runs in it: nobody is left to hear the answers. Ending one twice is
    /// fine. Other replicas hear of it a moment later; [`Sessions::close_everywhere`] waits for them.
    pub fn close(self: &Arc<Self>, session: &Arc<Session>, reason: SessionEnd) {
        match &self.shared {
            Some(shared) if !session.unsaved.load(Ordering::Relaxed) => {
                session.closed.cancel();
                let (sessions, session) = (self.clone(), session.clone());
                shared.tasks.spawn(async move { sessions.close_everywhere(&session, reason).await });
            }
            _ => self.close_here(session, reason),
        }
    }

    /// Ends a session that no other replica knows of.
    pub(super) fn close_here(&self, session: &Session, reason: SessionEnd) {
        if self.forget(session) {
            self.ended(session, reason);
        }
    }

    /// Takes a session out of what is known here. Whether it was there.
    pub(super) fn forget(&self, session: &Session) -> bool {
        let was_there = self.table().remove(session);
        if was_there {
            self.metrics.sessions_open.leave(session.transport);
        }
        was_there
    }

    /// Tells of a session that was ended here.
    pub(super) fn ended(&self, session: &Session, reason: SessionEnd) {
        session.end();
        hooks::tell(&self.hooks, |hook| hook.session_closed(&session.info(), reason));
        self.journal.session_closed(session, self.clock.now(), reason);
    }

    /// Records what a session did here that was ended at another replica, and ends it here.
    pub(super) fn used_here(&self, session: &Session) {
        session.end();
        self.carried_here(session);
    }

    /// Records what a session carried here, and nothing of its end.
    pub(super) fn carried_here(&self, session: &Session) {
        self.journal.session_used(session);
    }

    /// Tells of a session that this replica has ended and knew nothing of.
    pub(super) fn ended_elsewhere(&self, name: SessionName, reason: SessionEnd) {
        self.metrics.sessions_closed.inc(reason);
        self.journal.session_lost(name, self.clock.now(), reason);
    }

    /// Sessions for which `which` holds.
    #[must_use]
    pub fn select(&self, which: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        self.table().by_id.values().filter(|s| which(s)).cloned().collect()
    }

    /// Ends what was idle for too long and gives up what is kept for too long. Open streams and running calls count as
    /// activity, but for the session of an HTTP+SSE client that went away: nobody is left to hear of its calls. Ends some
    /// [thousand](AT_ONCE) sessions and no more, so that the journal keeps up; says whether there are others.
    pub fn sweep(self: &Arc<Self>) -> bool {
        let now = self.clock.monotonic_micros();
        let quiet = |session: &Session| now - session.last_seen.load(Ordering::Relaxed);
        for session in self.select(|_| true) {
            session.age(now, self.times.replay);
        }
        self.table().by_tenant.values().for_each(|of_tenant| of_tenant.store.purge());
        if self.shared.is_some() {
            return false;
        }
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
        self.metrics.sessions_open.leave(victim.transport);
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

//! Legacy sessions: protocol conversations, opened by `initialize` or by an SSE stream.
//!
//! A session belongs to the principal that opened it and holds what later requests lean on: the negotiated revision,
//! what the client can do, its log level and subscriptions, and which requests are running. It holds no tenant, quota
//! or policy state; those are looked up again for every request.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Endpoint;
use super::error::{RpcError, code};
use super::jsonrpc::RequestId;
use super::request::{Capabilities, LogLevel};
use super::revision::Revision;
use crate::caller::{Caller, Principal};
use crate::clock::{Clock, Timestamp};
use crate::credentials::CredentialRef;
use crate::hooks::{self, Hook, SessionInfo};
use crate::id::{SessionRowId, TenantId};
use crate::limits::{Limited, Limits, Place, Scope};
use crate::telemetry::labels::SessionEnd;
use crate::usage::Journal;

/// Which transport a session lives on. An id of one is unknown to the other.
pub use crate::telemetry::labels::Transport;

/// Subscriptions to resources that one session may have.
const MAX_SUBSCRIPTIONS: usize = 256;
/// Requests that one session may have in flight.
const MAX_RUNNING: usize = 256;

/// What `initialize` settled.
#[derive(Debug, Clone)]
pub struct Negotiated {
    /// The revision.
    pub revision: Revision,
    /// What the client can be asked for.
    pub capabilities: Capabilities,
    /// The client's name and version, as it says.
    pub client: Option<(Box<str>, Box<str>)>,
}

impl Default for Negotiated {
    fn default() -> Self {
        Self { revision: Revision::V2024_11_05, capabilities: Capabilities::default(), client: None }
    }
}

struct Inner {
    negotiated: Negotiated,
    log_level: LogLevel,
    subscriptions: BTreeSet<Box<str>>,
    running: HashMap<RequestId, CancellationToken>,
    /// Open streams of the session, oldest first; the newest one carries notifications.
    streams: Vec<u32>,
    next_stream: u32,
}

/// One session.
pub struct Session {
    /// The id on the wire: 256 random bits, and a secret.
    pub id: Box<str>,
    /// The id in logs and in the history.
    pub row: SessionRowId,
    /// The transport.
    pub transport: Transport,
    /// Who opened it, and alone may use it.
    pub owner: Principal,
    /// How to check the opener again where a request brings no credential of its own (HTTP+SSE).
    pub credential: CredentialRef,
    /// The URL that it was opened at.
    pub endpoint: Endpoint,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Messages for the SSE stream (HTTP+SSE only).
    pub outbound: Option<mpsc::Sender<String>>,
    /// Messages of the client that are being worked on (HTTP+SSE only).
    pub work: TaskTracker,
    /// Fires when the session ends; its streams end with it.
    pub closed: CancellationToken,
    last_seen: AtomicI64,
    requests: AtomicU32,
    calls: AtomicU32,
    inner: Mutex<Inner>,
    /// Given back when the session closes, whoever still holds it.
    place: Mutex<Option<Place>>,
}

impl Session {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `initialize` settled.
    #[must_use]
    pub fn negotiated(&self) -> Negotiated {
        self.inner().negotiated.clone()
    }

    /// Takes over what a (repeated) `initialize` settled.
    pub fn renegotiate(&self, negotiated: Negotiated) {
        self.inner().negotiated = negotiated;
    }

    /// The least severity of log messages that the client wants. All from `info` on until it says otherwise, which
    /// the legacy revisions leave to the server ("Logging: Setting Log Level").
    #[must_use]
    pub fn log_level(&self) -> LogLevel {
        self.inner().log_level
    }

    /// `logging/setLevel`.
    pub fn set_log_level(&self, level: LogLevel) {
        self.inner().log_level = level;
    }

    /// `resources/subscribe`.
    ///
    /// # Errors
    /// −31001 where the session has as many subscriptions as it may.
    pub fn subscribe(&self, uri: &str) -> Result<(), RpcError> {
        let mut inner = self.inner();
        if inner.subscriptions.len() >= MAX_SUBSCRIPTIONS && !inner.subscriptions.contains(uri) {
            let text = format!("a session has at most {MAX_SUBSCRIPTIONS} subscriptions; end one first");
            return Err(RpcError::new(code::LIMITED, 200, text));
        }
        inner.subscriptions.insert(uri.into());
        Ok(())
    }

    /// `resources/unsubscribe`.
    pub fn unsubscribe(&self, uri: &str) {
        self.inner().subscriptions.remove(uri);
    }

    /// Whether the client subscribed to this resource.
    #[must_use]
    pub fn subscribed(&self, uri: &str) -> bool {
        self.inner().subscriptions.contains(uri)
    }

    /// Notes a request in flight. Dropping the guard notes its end.
    ///
    /// # Errors
    /// −32600 where a request of this id is in flight already, −31001 where too many are.
    pub fn begin(self: &Arc<Self>, id: &RequestId, cancel: CancellationToken) -> Result<InFlight, RpcError> {
        let mut inner = self.inner();
        if inner.running.len() >= MAX_RUNNING {
            let text =
                format!("a session has at most {MAX_RUNNING} requests in flight; wait for some to end");
            return Err(RpcError::new(code::LIMITED, 200, text));
        }
        if inner.running.contains_key(id) {
            return Err(RpcError::invalid_request("a request with this id is in flight already"));
        }
        inner.running.insert(id.clone(), cancel);
        Ok(InFlight { session: self.clone(), id: id.clone() })
    }

    /// `notifications/cancelled`. An unknown id is ignored, as the specification asks.
    pub fn cancel(&self, id: &RequestId) {
        if let Some(token) = self.inner().running.get(id) {
            token.cancel();
        }
    }

    /// Gives up everything that is in flight: nobody is left to be answered.
    fn cancel_all(&self) {
        self.inner().running.values().for_each(CancellationToken::cancel);
    }

    /// Notes a stream. Dropping the guard notes its end.
    #[must_use]
    pub fn attach(self: &Arc<Self>) -> Attached {
        let mut inner = self.inner();
        let number = inner.next_stream;
        inner.next_stream = number.wrapping_add(1);
        inner.streams.push(number);
        Attached { session: self.clone(), number }
    }

    /// Counts a request.
    pub fn count(&self, is_call: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if is_call {
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many requests and calls the session served.
    #[must_use]
    pub fn counts(&self) -> (u32, u32) {
        (self.requests.load(Ordering::Relaxed), self.calls.load(Ordering::Relaxed))
    }

    fn is_busy(&self) -> bool {
        let inner = self.inner();
        !inner.running.is_empty() || !inner.streams.is_empty()
    }

    fn info(&self) -> SessionInfo<'_> {
        SessionInfo {
            id: self.row,
            owner: &self.owner,
            transport: self.transport,
            revision: self.inner().negotiated.revision.name(),
        }
    }
}

/// A request in flight.
pub struct InFlight {
    session: Arc<Session>,
    id: RequestId,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut inner = self.session.inner();
        inner.running.remove(&self.id);
        if inner.running.is_empty() {
            inner.running.shrink_to_fit();
        }
    }
}

/// A stream of a session.
pub struct Attached {
    session: Arc<Session>,
    number: u32,
}

impl Attached {
    /// Whether this stream is the newest one: a message goes to one stream only (2025-11-25 "Multiple Connections").
    #[must_use]
    pub fn is_newest(&self) -> bool {
        self.session.inner().streams.last() == Some(&self.number)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.session.inner().streams.retain(|n| *n != self.number);
    }
}

/// What is needed to open a session.
pub struct Opening {
    /// Who opens it.
    pub caller: Caller,
    /// How to check the caller again.
    pub credential: CredentialRef,
    /// At which URL.
    pub endpoint: Endpoint,
    /// On which transport.
    pub transport: Transport,
    /// What was settled so far.
    pub negotiated: Negotiated,
    /// Where messages for the SSE stream go (HTTP+SSE only).
    pub outbound: Option<mpsc::Sender<String>>,
}

/// All sessions of this process.
pub struct Sessions {
    clock: Clock,
    limits: Arc<Limits>,
    hooks: Arc<[Box<dyn Hook>]>,
    journal: Journal,
    idle: Duration,
    open: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_id: HashMap<Box<str>, Arc<Session>>,
    by_tenant: HashMap<TenantId, HashMap<SessionRowId, Arc<Session>>>,
}

impl Table {
    fn insert(&mut self, session: &Arc<Session>) {
        self.by_id.insert(session.id.clone(), session.clone());
        self.by_tenant.entry(session.owner.tenant).or_default().insert(session.row, session.clone());
    }

    fn remove(&mut self, session: &Session) -> bool {
        if let Some(of_tenant) = self.by_tenant.get_mut(&session.owner.tenant) {
            of_tenant.remove(&session.row);
            if of_tenant.is_empty() {
                self.by_tenant.remove(&session.owner.tenant);
            }
        }
        self.by_id.remove(&session.id).is_some()
    }
}

impl Sessions {
    /// No sessions; those that will be opened end after `idle` without use.
    #[must_use]
    pub fn new(
        clock: Clock,
        limits: Arc<Limits>,
        hooks: Arc<[Box<dyn Hook>]>,
        journal: Journal,
        idle: Duration,
    ) -> Self {
        Self { clock, limits, hooks, journal, idle, open: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session. A tenant that has as many as it may loses the one that was idle longest: clients that
    /// initialize before every call never close what they opened.
    ///
    /// # Errors
    /// Where all of the tenant's sessions are busy.
    pub fn open(&self, opening: Opening) -> Result<Arc<Session>, Limited> {
        let tenant = opening.caller.tenant();
        let place = match self.limits.place(tenant, Scope::Sessions) {
            Ok(place) => place,
            Err(limited) => {
                self.evict_one(tenant).ok_or(limited)?;
                self.limits.place(tenant, Scope::Sessions)?
            }
        };
        let mut secret = [0; 32];
        if aws_lc_rs::rand::fill(&mut secret).is_err() {
            return Err(Limited { scope: Scope::Sessions, limit: 0, retry_after: Duration::from_secs(1) });
        }
        let session = Arc::new(Session {
            id: BASE64URL_NOPAD.encode(&secret).into(),
            row: SessionRowId::new(),
            transport: opening.transport,
            owner: opening.caller.principal().clone(),
            credential: opening.credential,
            endpoint: opening.endpoint,
            opened_at: self.clock.now(),
            outbound: opening.outbound,
            work: TaskTracker::new(),
            closed: CancellationToken::new(),
            last_seen: AtomicI64::new(self.clock.monotonic_micros()),
            requests: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            inner: Mutex::new(Inner {
                negotiated: opening.negotiated,
                log_level: LogLevel::Info,
                subscriptions: BTreeSet::new(),
                running: HashMap::new(),
                streams: Vec::new(),
                next_stream: 0,
            }),
            place: Mutex::new(Some(place)),
        });
        self.table().insert(&session);
        hooks::tell(&self.hooks, |hook| hook.session_opened(&session.info()));
        self.journal.session_opened(&session);
        Ok(session)
    }

    /// The session of this id on this transport, if it is this principal's. Counts as activity.
    #[must_use]
    pub fn get(&self, id: &str, transport: Transport, owner: Option<&Principal>) -> Option<Arc<Session>> {
        let session = self.table().by_id.get(id).cloned()?;
        let mine = owner.is_none_or(|owner| *owner == session.owner);
        if !mine || session.transport != transport {
            return None;
        }
        session.last_seen.store(self.clock.monotonic_micros(), Ordering::Relaxed);
        Some(session)
    }

    /// Ends a session, and with it what still runs in it: nobody is left to hear the answers. Ending one twice is
    /// fine.
    pub fn close(&self, session: &Session, reason: SessionEnd) {
        if !self.table().remove(session) {
            return;
        }
        session.closed.cancel();
        drop(session.place.lock().unwrap_or_else(PoisonError::into_inner).take());
        session.cancel_all();
        hooks::tell(&self.hooks, |hook| hook.session_closed(&session.info(), reason));
        self.journal.session_closed(session, self.clock.now(), reason);
    }

    /// Sessions for which `which` holds.
    #[must_use]
    pub fn select(&self, which: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        self.table().by_id.values().filter(|s| which(s)).cloned().collect()
    }

    /// Ends what was idle for too long. Open streams and running calls count as activity.
    pub fn sweep(&self) {
        let limit = i64::try_from(self.idle.as_micros()).unwrap_or(i64::MAX);
        let now = self.clock.monotonic_micros();
        for session in self.select(|s| now - s.last_seen.load(Ordering::Relaxed) > limit) {
            if session.is_busy() {
                session.last_seen.store(now, Ordering::Relaxed);
            } else {
                self.close(&session, SessionEnd::Idle);
            }
        }
    }

    fn evict_one(&self, tenant: TenantId) -> Option<()> {
        let victim = {
            let table = self.table();
            let idle = table.by_tenant.get(&tenant)?.values().filter(|s| !s.is_busy());
            idle.min_by_key(|s| s.last_seen.load(Ordering::Relaxed)).cloned()
        }?;
        self.close(&victim, SessionEnd::Evicted);
        Some(())
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

//! Legacy sessions: protocol conversations, opened by `initialize` or by an SSE stream.
//!
//! A session belongs to the principal that opened it and holds what later requests lean on: the negotiated revision,
//! what the client can do, its log level and subscriptions, and which requests are running. It holds no tenant, quota
//! or policy state; those are looked up again for every request.
//!
//! Where there are other replicas, a session is written down in Redis, and each replica that serves one of its requests
//! has a [`Session`] of its own for it: what runs there, and what was settled, which the others are told to read again
//! when it changes (`across`). Without, the one session is all there is.

mod across;
mod news;
mod outbound;
mod questions;
mod record;
mod shared;
mod streams;
mod table;
mod upkeep;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Endpoint;
use super::error::{RpcError, code};
use super::feed::{Feed, Store, StreamId};
use super::jsonrpc::RequestId;
use super::request::{Capabilities, LogLevel};
use super::revision::Revision;
use crate::caller::{Caller, Principal};
use crate::clock::Timestamp;
use crate::credentials::CredentialRef;
use crate::hooks::SessionInfo;
use crate::id::SessionRowId;
use crate::limits::Place;
use crate::replicas::SessionName;
use outbound::Outbound;
use questions::Questions;
use shared::Shared;
use streams::Streams;

pub use across::Settle;
pub use questions::Question;
pub use streams::Attached;
pub use table::{AT_ONCE, Foundation, Sessions};

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
    /// How to check the owner again where nothing else says who is there.
    credential: CredentialRef,
    negotiated: Negotiated,
    log_level: LogLevel,
    subscriptions: BTreeSet<Box<str>>,
    running: HashMap<RequestId, CancellationToken>,
    questions: Questions,
    streams: Streams,
}

/// One session.
pub struct Session {
    /// The id on the wire: holds 256 bits that nobody can guess, and is a secret.
    pub id: Box<str>,
    /// The id in logs and in the history.
    pub row: SessionRowId,
    /// The transport.
    pub transport: Transport,
    /// Who opened it, and alone may use it.
    pub owner: Principal,
    /// The URL that it was opened at.
    pub endpoint: Endpoint,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Where the client is told everything (HTTP+SSE only).
    outbound: Option<Outbound>,
    /// Messages of the client that are being worked on (HTTP+SSE only).
    pub work: TaskTracker,
    /// Fires when the session ends; its streams end with it.
    pub closed: CancellationToken,
    /// Fires when streams came or went.
    listeners_changed: Notify,
    next_feed: AtomicU64,
    store: Arc<Store>,
    /// What is shared with other replicas, where there are any.
    shared: Option<Arc<Shared>>,
    /// Redis could not be told of the session when it was opened.
    unsaved: AtomicBool,
    last_seen: AtomicI64,
    /// When the other replicas were told last that it is in use.
    told_at: AtomicI64,
    /// Something came after `initialize`.
    used: AtomicBool,
    requests: AtomicU32,
    calls: AtomicU32,
    inner: Mutex<Inner>,
    /// Given back when the session closes, whoever still holds it.
    place: Mutex<Option<Place>>,
}

impl Session {
    fn new(id: Box<str>, row: SessionRowId, opening: Opening, new: New, now: (Timestamp, i64)) -> Arc<Self> {
        let New { place, store, shared } = new;
        Arc::new_cyclic(|this| Self {
            id,
            row,
            transport: opening.transport,
            owner: opening.caller.principal().clone(),
            endpoint: opening.endpoint,
            opened_at: now.0,
            outbound: (opening.transport == Transport::Sse)
                .then(|| Outbound::new(this, row, &store, shared.as_ref())),
            work: TaskTracker::new(),
            closed: CancellationToken::new(),
            listeners_changed: Notify::new(),
            store,
            shared,
            unsaved: AtomicBool::new(false),
            last_seen: AtomicI64::new(now.1),
            told_at: AtomicI64::new(now.1),
            used: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            next_feed: AtomicU64::new(1),
            inner: Mutex::new(Inner {
                credential: opening.credential,
                negotiated: opening.negotiated,
                log_level: LogLevel::Info,
                subscriptions: BTreeSet::new(),
                running: HashMap::new(),
                questions: Questions::default(),
                streams: Streams::default(),
            }),
            place: Mutex::new(place),
        })
    }

    /// What every replica knows it by.
    #[must_use]
    pub fn name(&self) -> SessionName {
        SessionName { tenant: self.owner.tenant, row: self.row }
    }

    /// Where the client is told something, on the one stream that it has (HTTP+SSE only).
    #[must_use]
    pub fn speaker(&self) -> Option<Arc<Feed>> {
        self.outbound.as_ref().map(Outbound::speaker)
    }

    /// What the client reads, where this replica holds it (HTTP+SSE only).
    #[must_use]
    pub fn held(&self) -> Option<Arc<Feed>> {
        self.outbound.as_ref().and_then(Outbound::held)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `initialize` settled.
    #[must_use]
    pub fn negotiated(&self) -> Negotiated {
        self.inner().negotiated.clone()
    }

    /// What a request leans on: the revision, what the client can be asked for, and its log level. The level is `info`
    /// until the client says otherwise, which the legacy revisions leave to the server ("Logging: Setting Log Level").
    #[must_use]
    pub fn settled(&self) -> (Revision, Capabilities, LogLevel) {
        let inner = self.inner();
        (inner.negotiated.revision, inner.negotiated.capabilities, inner.log_level)
    }

    /// The revision that it speaks.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.inner().negotiated.revision
    }

    /// How to check the owner again where nothing else says who is there.
    #[must_use]
    pub fn credential(&self) -> CredentialRef {
        self.inner().credential.clone()
    }

    /// Takes over the newest credential of the owner. Whether it is another one.
    fn renew(&self, credential: &CredentialRef) -> bool {
        let mut inner = self.inner();
        let is_new = inner.credential != *credential;
        if is_new {
            inner.credential = credential.clone();
        }
        is_new
    }

    /// Whether something came after `initialize`.
    fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes over what a (repeated) `initialize` settled.
    pub fn renegotiate(&self, negotiated: Negotiated) {
        self.inner().negotiated = negotiated;
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

    /// What the client subscribed to.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Box<str>> {
        self.inner().subscriptions.iter().cloned().collect()
    }

    /// Whether the client subscribed to this resource.
    #[must_use]
    pub fn subscribed(&self, uri: &str) -> bool {
        self.inner().subscriptions.contains(uri)
    }

    /// Notes a request in flight. Dropping the guard notes its end.
    ///
    /// # Errors
    /// −32600 where a request of this id is in flight already, −31001 where too many are, −31004 where the session has
    /// ended.
    pub fn begin(self: &Arc<Self>, id: &RequestId, cancel: CancellationToken) -> Result<InFlight, RpcError> {
        let mut inner = self.inner();
        if self.closed.is_cancelled() {
            return Err(RpcError::session_not_found());
        }
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

    /// Cancels a request that runs here. Whether there is one.
    fn cancel(&self, id: &RequestId) -> bool {
        let inner = self.inner();
        let token = inner.running.get(id);
        token.inspect(|token| token.cancel()).is_some()
    }

    /// Gives up everything that is in flight: nobody is left to be answered.
    fn cancel_all(&self) {
        self.inner().running.values().for_each(CancellationToken::cancel);
    }

    /// A feed for the answer to this request, which the client can come back to once it is [kept](Self::keep).
    #[must_use]
    pub fn reply_feed(&self, request: &RequestId, revision: Revision) -> Arc<Feed> {
        let id = StreamId::Reply(self.next_feed());
        Feed::kept(id, Some(request.clone()), revision.has_polling(), self.store.clone())
    }

    /// A feed for a stream that carries notifications.
    #[must_use]
    pub fn listen_feed(&self) -> Arc<Feed> {
        let id = StreamId::Listen(self.next_feed());
        Feed::kept(id, None, false, self.store.clone())
    }

    /// A number that no other stream of the session has, at any replica.
    fn next_feed(&self) -> u64 {
        match &self.shared {
            None => self.next_feed.fetch_add(1, Ordering::Relaxed),
            Some(shared) => shared.next_feed(),
        }
    }

    /// Keeps a feed, which is being read, for a client that comes back.
    pub fn keep(&self, feed: &Arc<Feed>) {
        if let Some(shared) = &self.shared {
            feed.mirror(shared.mirror(self.name(), feed), false);
        }
        self.inner().streams.keep(feed);
    }

    /// Gives up old answers where the session keeps too much.
    pub fn trim(&self) {
        self.inner().streams.trim(self.store.per_session());
    }

    /// The feed of this stream, where it is still kept.
    #[must_use]
    pub fn feed(&self, id: StreamId) -> Option<Arc<Feed>> {
        self.inner().streams.find(id)
    }

    /// Gives up what has been kept for `time`, in microseconds.
    fn age(&self, now: i64, time: i64) {
        self.inner().streams.age(now, time);
        if let Some(held) = self.held() {
            held.age(now, time);
        }
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
        !inner.running.is_empty() || inner.streams.is_open()
    }

    /// Whether this is the session of an HTTP+SSE client that went away.
    fn is_orphan(&self) -> bool {
        self.transport == Transport::Sse && self.inner().streams.were_left() && self.held().is_some()
    }

    /// Ends everything that hangs on the session.
    fn end(&self) {
        self.closed.cancel();
        drop(self.place.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.cancel_all();
        if let Some(outbound) = &self.outbound {
            outbound.end();
        }
        let mut inner = self.inner();
        inner.streams.clear();
        inner.questions = Questions::default();
        inner.subscriptions = BTreeSet::new();
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

/// What a new session is given.
struct New {
    place: Option<Place>,
    store: Arc<Store>,
    shared: Option<Arc<Shared>>,
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
}

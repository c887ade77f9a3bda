//! Sessions across replicas: found wherever they are, ended everywhere at once, and told of by one replica to the others.
//!
//! What this replica knows of a session it may have heard late by a moment; whoever changes one waits until the others know.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::value::RawValue;

use super::outbound::come_home;
use super::questions::Answer;
use super::record::{self, Record};
use super::shared::{Busy, Fields, Opened, Shared};
use super::{New, Opening, Session, Sessions};
use crate::caller::{Caller, CallerData};
use crate::credentials::CredentialRef;
use crate::id::{SessionRowId, TenantId};
use crate::limits::{Limited, Scope};
use crate::mcp::bus::Bus;
use crate::mcp::feed::{Feed, Log, StreamId};
use crate::mcp::jsonrpc::RequestId;
use crate::mcp::request::LogLevel;
use crate::redis::Down;
use crate::replicas::{Message, SessionName};
use crate::telemetry::labels::SessionEnd;

/// How often other replicas are told that a session is in use, in microseconds.
const TELL_EVERY: i64 = 5_000_000;
/// How often a tenant is noted, in microseconds.
pub(super) const NOTE_EVERY: i64 = 3_600_000_000;

/// What a session settles after it is open.
pub enum Settle<'a> {
    /// `initialize`, again or at last.
    Negotiated,
    /// `logging/setLevel`.
    Level(LogLevel),
    /// `resources/subscribe`.
    Subscribed(&'a str),
    /// `resources/unsubscribe`.
    Unsubscribed(&'a str),
}

impl Session {
    /// What is written down of it.
    pub(super) fn fields(&self) -> Fields {
        let fixed = record::fixed(&self.owner, &self.endpoint, self.transport, self.opened_at);
        let inner = self.inner();
        let mut fields = vec![
            (record::FIXED.to_owned(), fixed),
            (record::NEGOTIATED.to_owned(), record::negotiated(&inner.negotiated)),
            (record::CREDENTIAL.to_owned(), inner.credential.text()),
        ];
        if inner.log_level != LogLevel::Info {
            fields.push((record::LEVEL.to_owned(), level_text(inner.log_level)));
        }
        let subscriptions = inner.subscriptions.iter();
        fields.extend(subscriptions.map(|uri| (format!("{}{uri}", record::SUBSCRIPTION), String::new())));
        if let Some(heard) = inner.streams.heard() {
            fields.push((record::HEARD.to_owned(), heard.to_string()));
        }
        drop(inner);
        if let (Some(shared), Some(_)) = (&self.shared, self.held()) {
            fields.push((record::HOME.to_owned(), shared.peers.replicas.me().to_string()));
        }
        fields
    }

    /// Takes over what another replica has written down.
    pub(super) fn take_over(&self, record: Record) {
        let mut inner = self.inner();
        inner.negotiated = record.negotiated;
        inner.credential = record.credential;
        inner.log_level = record.level;
        inner.subscriptions = record.subscriptions.into_iter().collect();
        drop(inner);
        if let Some(outbound) = &self.outbound {
            outbound.is_at(record.home);
        }
    }

    /// Tells the other replicas that streams are open here, or no longer.
    pub(super) fn tell_busy(&self, is_busy: bool) {
        if let Some(shared) = &self.shared
            && !self.closed.is_cancelled()
        {
            let (time, busy) = if is_busy {
                (shared.lives_for(self), Busy::For(shared.busy_for))
            } else {
                (shared.lives_for(self), Busy::NoLonger)
            };
            shared.touch_later(self.name(), time, busy);
        }
    }
}

fn level_text(level: LogLevel) -> String {
    serde_json::to_value(level).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

impl Sessions {
    /// Opens a session that all replicas share. Where Redis is away it is this replica's alone, and is written down when
    /// Redis is there again.
    pub(super) async fn open_shared(
        &self,
        shared: &Arc<Shared>,
        opening: Opening,
    ) -> Result<Arc<Session>, Limited> {
        let caller = opening.caller.clone();
        let tenant = caller.tenant();
        let row = SessionRowId::new();
        let session = self.make(row, opening, None);
        if let (Some(outbound), None) = (&session.outbound, session.held()) {
            let feed = Feed::kept(StreamId::Session(row), None, false, session.store.clone());
            feed.mirror(shared.mirror(session.name(), &feed), false);
            outbound.begin(feed);
        }
        let fields = session.fields();
        let limit = caller.limits().sessions;
        self.note_tenant(shared, tenant).await;
        let mut busy_here: Option<Vec<SessionRowId>> = None;
        loop {
            let ttl = shared.lives_for(&session);
            match shared.open(session.name(), ttl, limit, &fields, busy_here.as_deref()).await {
                Err(Down) => {
                    let place = self.place(&caller)?;
                    session.unsaved.store(true, Ordering::Relaxed);
                    *session.place.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(place);
                    return Ok(self.opened(session));
                }
                Ok((opened, gone)) => {
                    self.ran_out(tenant, &gone);
                    match opened {
                        Opened::Yes(evicted) => {
                            if let Some(row) = evicted {
                                self.made_way(shared, SessionName { tenant, row }).await;
                            }
                            return Ok(self.opened(session));
                        }
                        Opened::Full(others) if busy_here.is_none() => {
                            busy_here = Some(self.busy_of(tenant, &others));
                        }
                        Opened::Full(_) => break,
                    }
                }
            }
        }
        session.end();
        Err(Limited { scope: Scope::Sessions, limit, retry_after: Duration::from_secs(1) })
    }

    /// Those of these sessions that are busy, as far as is known here.
    fn busy_of(&self, tenant: TenantId, rows: &[SessionRowId]) -> Vec<SessionRowId> {
        let is_busy = |row: &SessionRowId| {
            self.at(SessionName { tenant, row: *row }).is_some_and(|session| session.is_busy())
        };
        rows.iter().copied().filter(|row| is_busy(row)).collect()
    }

    /// This session has made way for another one: it ends everywhere.
    async fn made_way(&self, shared: &Arc<Shared>, name: SessionName) {
        // Only what it was is left of it.
        let _ = shared.close(name).await;
        match self.at(name).filter(|session| self.forget(session)) {
            Some(session) => self.ended(&session, SessionEnd::Evicted),
            None => self.ended_elsewhere(name, SessionEnd::Evicted),
        }
        let _ = shared.peers.post.tell_all_and_wait(Message::Closed { session: name }).await;
    }

    async fn note_tenant(&self, shared: &Shared, tenant: TenantId) {
        let now = self.clock.monotonic_micros();
        if self.is_to_note(tenant, now) {
            let _ = shared.note_tenant(tenant, self.clock.now().as_seconds()).await;
        }
    }

    /// The session of this name, read from Redis where it is not known here.
    pub(super) async fn load(&self, name: SessionName) -> Option<Arc<Session>> {
        if let Some(session) = self.at(name) {
            return Some(session);
        }
        let shared = self.shared.as_ref()?;
        let record = shared.load(name).await.ok()??;
        let opening = Opening {
            caller: placeholder(&record),
            credential: record.credential.clone(),
            endpoint: record.endpoint.clone(),
            transport: record.transport,
            negotiated: record.negotiated.clone(),
        };
        let session = self.make(name.row, opening, Some(record.opened_at));
        session.used.store(true, Ordering::Relaxed);
        session.take_over(record);
        Some(self.keep_first(session))
    }

    /// Tells the other replicas that a session is in use, from time to time.
    pub(super) fn tell_in_use(&self, session: &Session, was_used: bool) {
        let Some(shared) = &session.shared else { return };
        let now = self.clock.monotonic_micros();
        let told = session.told_at.load(Ordering::Relaxed);
        let every = TELL_EVERY.min(self.shortest() / 4);
        if (!was_used || now - told >= every)
            && session.told_at.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            shared.touch_later(session.name(), shared.lives_for(session), Busy::NotHere);
        }
    }

    /// Ends a session at every replica, and returns when all know. Ending one twice is fine.
    pub async fn close_everywhere(&self, session: &Arc<Session>, reason: SessionEnd) {
        let Some(shared) = &self.shared else { return self.close_here(session, reason) };
        if !self.forget(session) {
            return;
        }
        let name = session.name();
        let was_open = shared.close(name).await.unwrap_or(true);
        if was_open {
            self.ended(session, reason);
            let _ = shared.peers.post.tell_all_and_wait(Message::Closed { session: name }).await;
        } else {
            self.used_here(session);
        }
    }

    /// Writes down what a session settled, here and for every replica.
    pub async fn settled(&self, session: &Session, what: Settle<'_>) {
        let Some(shared) = &self.shared else { return };
        let name = session.name();
        let field = match what {
            Settle::Negotiated => (record::NEGOTIATED.to_owned(), record::negotiated(&session.negotiated())),
            Settle::Level(level) => (record::LEVEL.to_owned(), level_text(level)),
            Settle::Subscribed(uri) => (format!("{}{uri}", record::SUBSCRIPTION), String::new()),
            Settle::Unsubscribed(uri) => {
                let _ = shared.unsettle(name, &format!("{}{uri}", record::SUBSCRIPTION)).await;
                let _ = shared.peers.post.tell_all_and_wait(Message::Settled { session: name }).await;
                return;
            }
        };
        if shared.settle(name, &vec![field]).await.is_ok() {
            let _ = shared.peers.post.tell_all_and_wait(Message::Settled { session: name }).await;
        }
    }

    /// Takes over the newest credential of the owner, at every replica: one that the session was opened with may run out.
    pub fn renew(&self, session: &Session, credential: &CredentialRef) {
        if session.renew(credential)
            && let Some(shared) = &self.shared
        {
            shared.write_later(session.name(), record::CREDENTIAL, &credential.text());
        }
    }

    /// `notifications/cancelled`. An unknown id is ignored, as the specification asks.
    pub fn cancel(&self, session: &Session, id: &RequestId) {
        if session.cancel(id) {
            return;
        }
        if let Some(shared) = &self.shared
            && let Ok(request) = RawValue::from_string(id.as_json().to_owned())
        {
            shared.peers.courier.tell_all(Message::Cancel { session: session.name(), request });
        }
    }

    /// Takes the client's answer to a question. One that nobody waits for is ignored.
    pub fn answered(&self, session: &Session, id: &RequestId, answer: Answer) {
        let Err(answer) = session.answered(id, answer) else { return };
        let Some(shared) = &self.shared else { return };
        let replicas = &shared.peers.replicas;
        let asker = id.asker().and_then(|number| replicas.numbered(number));
        let is_error = answer.is_err();
        let value = match &answer {
            Ok(value) | Err(value) => std::str::from_utf8(value).ok().map(str::to_owned),
        };
        let (Some(asker), Some(value)) = (asker.filter(|asker| *asker != replicas.me()), value) else {
            return;
        };
        let (Ok(question), Ok(value)) =
            (RawValue::from_string(id.as_json().to_owned()), RawValue::from_string(value))
        else {
            return;
        };
        let session = session.name();
        shared.peers.courier.tell(asker, Message::Answer { session, question, is_error, value });
    }

    /// The number of a new stream that carries notifications, and up to where the session has heard, once the streams at
    /// other replicas are silent. Nothing where there are no others.
    pub async fn listener(&self, session: &Session, bus: &Bus) -> Option<(u32, u64)> {
        let shared = self.shared.as_ref()?;
        let name = session.name();
        let (number, before) = shared.listen(name, bus.changes_from_now()).await.ok()?;
        if number == 0 {
            return None;
        }
        let _ = shared.peers.post.tell_all_and_wait(Message::Listening { session: name, number }).await;
        let heard = shared.place(name).await.ok().flatten().unwrap_or(before);
        Some((number, heard))
    }

    /// The stream that a client comes back to, from wherever it is.
    pub async fn resume(&self, session: &Arc<Session>, id: StreamId) -> Option<Arc<Feed>> {
        if let Some(feed) = session.feed(id) {
            return Some(feed);
        }
        let shared = self.shared.as_ref()?;
        let (name, stream) = (session.name(), id.to_string());
        let take = Message::Take { session: name, stream: stream.as_str().into() };
        shared.peers.post.tell_all_and_wait(take).await.ok()?;
        let log = Log::read(&shared.peers.redis, name, &stream, None).await.ok()??;
        let pauses = session.revision().has_polling();
        match id {
            StreamId::Reply(_) => {
                let (speaker, last, ended) = (log.speaker, log.last, log.ended);
                let feed = Feed::restored(id, log, pauses, session.store.clone());
                feed.expect_reader();
                shared.follow(name, stream, feed.clone(), (speaker, last, ended));
                Some(feed)
            }
            StreamId::Listen(_) => {
                session.has_heard(log.place);
                let feed = Feed::restored(id, log, false, session.store.clone());
                feed.mirror(shared.mirror(name, &feed), true);
                session.keep_again(&feed);
                Some(feed)
            }
            StreamId::Session(_) => None,
        }
    }

    /// The stream of an HTTP+SSE session, once it is here.
    ///
    /// # Errors
    /// [`Down`] where it cannot be had.
    pub async fn come_home(&self, session: &Arc<Session>) -> Result<Arc<Feed>, Down> {
        come_home(session).await
    }

    /// Writes down that a request of an HTTP+SSE session runs here, until what is returned is dropped: if this replica
    /// dies, another one answers.
    #[must_use]
    pub fn runs_here(&self, session: &Session, id: &RequestId) -> Option<Running> {
        let shared = self.shared.as_ref()?;
        shared.runs(session.name(), id, true);
        Some(Running { shared: shared.clone(), session: session.name(), id: id.clone() })
    }
}

/// A request that is written down as running here.
pub struct Running {
    shared: Arc<Shared>,
    session: SessionName,
    id: RequestId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.runs(self.session, &self.id, false);
    }
}

/// The owner, as far as a session must know: who it is.
fn placeholder(record: &Record) -> Caller {
    Caller::new(CallerData {
        principal: record.owner.clone(),
        tenant_name: String::new(),
        plan: String::new(),
        credential_name: String::new(),
        scopes: crate::policy::Scopes::default(),
        expires_at: None,
        limits: Arc::default(),
        metered: false,
    })
}

impl Session {
    /// Keeps a feed that came from another replica.
    fn keep_again(&self, feed: &Arc<Feed>) {
        self.inner().streams.keep(feed);
    }
}

impl Sessions {
    /// A session that nobody knows of yet.
    pub(super) fn make(
        &self,
        row: SessionRowId,
        opening: Opening,
        opened_at: Option<crate::clock::Timestamp>,
    ) -> Arc<Session> {
        let tenant = opening.caller.tenant();
        let id = self.sealer.session_id(tenant, row).into();
        let new = New { place: None, store: self.store(tenant), shared: self.shared.clone() };
        let at = (opened_at.unwrap_or_else(|| self.clock.now()), self.clock.monotonic_micros());
        Session::new(id, row, opening, new, at)
    }
}

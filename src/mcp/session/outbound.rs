//! The one stream of an HTTP+SSE session. One replica holds it, its home: there the client reads. Whatever other replicas
//! have to say to the client they send there; where the home is dead, who has something to say becomes the home, and keeps
//! it until the client comes back, to whichever replica.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Session;
use super::shared::Shared;
use crate::id::{ReplicaId, SessionRowId};
use crate::mcp::feed::{Feed, Log, Relay, Store, StreamId, Undeliverable};
use crate::redis::Down;
use crate::replicas::Message;

/// Where the stream is.
enum Held {
    /// Here.
    Here(Arc<Feed>),
    /// At another replica.
    There(ReplicaId),
    /// Nowhere, as far as is known.
    Nowhere,
}

/// The stream of an HTTP+SSE session, as one replica sees it.
pub(super) struct Outbound {
    speaker: Arc<Feed>,
    held: Mutex<Held>,
    /// Who said last, on the stream that all replicas read, that it takes the stream.
    taker: Mutex<Option<ReplicaId>>,
    /// One of those that have something to say becomes the home; the others wait for it.
    homing: tokio::sync::Mutex<()>,
}

/// Sends what is said to wherever the stream is.
struct ToHome(Weak<Session>);

impl Outbound {
    pub(super) fn new(
        session: &Weak<Session>,
        row: SessionRowId,
        store: &Arc<Store>,
        shared: Option<&Arc<Shared>>,
    ) -> Self {
        let (speaker, held) = match shared {
            None => {
                let feed = Feed::kept(StreamId::Session(row), None, false, store.clone());
                (feed.clone(), Held::Here(feed))
            }
            Some(_) => (Feed::away(Box::new(ToHome(session.clone()))), Held::Nowhere),
        };
        Self {
            speaker,
            held: Mutex::new(held),
            taker: Mutex::default(),
            homing: tokio::sync::Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taker(&self) -> MutexGuard<'_, Option<ReplicaId>> {
        self.taker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn speaker(&self) -> Arc<Feed> {
        self.speaker.clone()
    }

    pub(super) fn held(&self) -> Option<Arc<Feed>> {
        match &*self.lock() {
            Held::Here(feed) => Some(feed.clone()),
            Held::There(_) | Held::Nowhere => None,
        }
    }

    /// Takes note of where the stream is, unless it is here.
    pub(super) fn is_at(&self, home: Option<ReplicaId>) {
        let mut held = self.lock();
        if !matches!(&*held, Held::Here(_)) {
            *held = home.map_or(Held::Nowhere, Held::There);
        }
    }

    /// Begins the stream here, for a session that is new.
    pub(super) fn begin(&self, feed: Arc<Feed>) {
        *self.lock() = Held::Here(feed);
    }

    /// Another replica takes the stream: it is no longer here. Its own taking comes by here, too.
    pub(super) fn taken(&self, by: ReplicaId, me: ReplicaId) {
        *self.taker() = Some(by);
        if by == me {
            return;
        }
        let before = std::mem::replace(&mut *self.lock(), Held::There(by));
        if let Held::Here(feed) = before {
            feed.retire();
        }
    }

    pub(super) fn end(&self) {
        if let Held::Here(feed) = &*self.lock() {
            feed.end(None);
        }
        self.speaker.end(None);
    }
}

impl Relay for ToHome {
    fn say(&self, json: &str) -> bool {
        self.send(json, false).is_ok()
    }

    fn must(&self, json: &str) -> Result<(), Undeliverable> {
        self.send(json, true)
    }
}

impl ToHome {
    fn send(&self, json: &str, must: bool) -> Result<(), Undeliverable> {
        let session = self.0.upgrade().filter(|session| !session.closed.is_cancelled());
        let session = session.ok_or(Undeliverable::Ended)?;
        let (Some(outbound), Some(shared)) = (&session.outbound, &session.shared) else {
            return Err(Undeliverable::Ended);
        };
        if let Some(feed) = outbound.held() {
            return if must {
                feed.must(json)
            } else {
                feed.say(json).then_some(()).ok_or(Undeliverable::Full)
            };
        }
        let home = match &*outbound.lock() {
            Held::There(home) if shared.peers.replicas.lives(*home) => Some(*home),
            _ => None,
        };
        if let Some(home) = home {
            let (name, text) = (session.name(), json.into());
            let sent = shared.peers.courier.tell(home, Message::Say { session: name, text, must });
            return sent.then_some(()).ok_or(Undeliverable::Full);
        }
        if must {
            let (session, text) = (session.clone(), json.to_owned());
            shared.tasks.spawn(async move {
                if let Ok(feed) = come_home(&session).await {
                    let _ = feed.must(&text);
                }
            });
        }
        Ok(())
    }
}

/// Makes this replica the home of the session's stream, where it is not: what was said so far is taken over.
///
/// # Errors
/// [`Down`] where the others cannot be told, or the session is none of HTTP+SSE.
pub(super) async fn come_home(session: &Arc<Session>) -> Result<Arc<Feed>, Down> {
    let outbound = session.outbound.as_ref().ok_or(Down)?;
    let Some(shared) = &session.shared else { return outbound.held().ok_or(Down) };
    let _turn = outbound.homing.lock().await;
    if let Some(feed) = outbound.held() {
        return Ok(feed);
    }
    let (name, me) = (session.name(), shared.peers.replicas.me());
    let id = StreamId::Session(session.row);
    let take = Message::Take { session: name, stream: id.to_string().into() };
    shared.peers.post.tell_all_and_wait(take).await?;
    let log = Log::read(&shared.peers.redis, name, &id.to_string(), None).await?;
    let known = log.is_some();
    let feed = Feed::restored(id, log.unwrap_or_default(), false, session.store.clone());
    feed.mirror(shared.mirror(name, &feed), known);
    shared.settle(name, &vec![(super::record::HOME.to_owned(), me.to_string())]).await?;
    let taker = *outbound.taker();
    match taker {
        // Somebody else was later, and has it.
        Some(other) if other != me => {
            feed.retire();
            Err(Down)
        }
        _ => {
            outbound.begin(feed.clone());
            Ok(feed)
        }
    }
}

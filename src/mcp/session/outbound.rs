//! The one stream of an HTTP+SSE session. One replica holds it, its home: there the client reads. Whatever other replicas
//! have to say to the client they send there; where the home is dead, who has something to say becomes the home, and keeps
//! it until the client comes back, to whichever replica.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Session;
use super::shared::Shared;
use crate::id::{ReplicaId, SessionRowId};
use crate::mcp::feed::{Feed, Log, Relay, Store, StreamId, Undeliverable, frame};
use crate::redis::Down;
use crate::replicas::Message;

/// Messages that may wait for a stream that is on its way.
const MAX_SAID: usize = 512;

/// Where the stream is.
enum Held {
    /// Here.
    Here(Arc<Feed>),
    /// On its way here; what is said meanwhile, and whether it must arrive.
    Coming(Vec<(Box<str>, bool)>),
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
            Held::Coming(_) | Held::There(_) | Held::Nowhere => None,
        }
    }

    /// Takes note of where the stream is, unless it is here.
    pub(super) fn is_at(&self, home: Option<ReplicaId>) {
        let mut held = self.lock();
        if matches!(&*held, Held::There(_) | Held::Nowhere) {
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
        let mut held = self.lock();
        match &*held {
            // Whoever brings it here looks who was last.
            Held::Coming(_) => return,
            Held::Here(feed) => feed.retire(),
            Held::There(_) | Held::Nowhere => {}
        }
        *held = Held::There(by);
    }

    /// The stream is to come here: from where, if that is known. Nothing where it is here.
    fn expect(&self) -> Option<Option<ReplicaId>> {
        let mut held = self.lock();
        let from = match &*held {
            Held::Here(_) => return None,
            Held::Coming(_) => return Some(None),
            Held::There(home) => Some(*home),
            Held::Nowhere => None,
        };
        *held = Held::Coming(Vec::new());
        Some(from)
    }

    /// The stream is somewhere from now on; what was said while it was on its way.
    fn settle(&self, place: Held) -> Vec<(Box<str>, bool)> {
        match std::mem::replace(&mut *self.lock(), place) {
            Held::Coming(said) => said,
            _ => Vec::new(),
        }
    }

    /// The stream is here: what was said while it was on its way is said on it.
    fn arrive(&self, feed: &Arc<Feed>) {
        let mut held = self.lock();
        if let Held::Coming(said) = &*held {
            for (text, must) in said {
                let _ = say(feed, text, *must);
            }
        }
        *held = Held::Here(feed.clone());
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
        let mut held = outbound.lock();
        let home = match &mut *held {
            Held::Here(feed) => return say(feed, json, must),
            Held::Coming(said) if said.len() < MAX_SAID => {
                said.push((json.into(), must));
                return Ok(());
            }
            Held::Coming(_) => return Err(Undeliverable::Full),
            Held::There(home) => Some(*home),
            Held::Nowhere => None,
        };
        match home.filter(|home| shared.peers.replicas.lives(*home)) {
            Some(home) => {
                let message = Message::Say { session: session.name(), text: json.into(), must };
                shared.peers.courier.tell(home, message).then_some(()).ok_or(Undeliverable::Full)
            }
            None => {
                let from = home;
                *held = Held::Coming(vec![(json.into(), must)]);
                drop(held);
                let session = session.clone();
                shared.tasks.spawn(async move { bring_home(&session, from).await });
                Ok(())
            }
        }
    }
}

fn say(feed: &Feed, json: &str, must: bool) -> Result<(), Undeliverable> {
    if must { feed.must(json) } else { feed.say(json).then_some(()).ok_or(Undeliverable::Full) }
}

/// Makes this replica the home of the session's stream, where it is not: what was said so far is taken over.
///
/// # Errors
/// [`Down`] where the others cannot be told, another replica was later, or the session is none of HTTP+SSE.
pub(super) async fn come_home(session: &Arc<Session>) -> Result<Arc<Feed>, Down> {
    let outbound = session.outbound.as_ref().ok_or(Down)?;
    if session.shared.is_none() {
        return outbound.held().ok_or(Down);
    }
    let from = outbound.expect().flatten();
    bring_home(session, from).await;
    outbound.held().ok_or(Down)
}

/// Brings the stream here, from where it was.
async fn bring_home(session: &Arc<Session>, from: Option<ReplicaId>) {
    let (Some(outbound), Some(shared)) = (&session.outbound, &session.shared) else { return };
    let _turn = outbound.homing.lock().await;
    if outbound.held().is_some() {
        return;
    }
    let me = shared.peers.replicas.me();
    match fetch(session, shared, from).await {
        Err(Down) => {
            // What was said is lost: so is whatever the client was told here, and it begins anew.
            outbound.settle(Held::Nowhere);
        }
        Ok(feed) => {
            let taker = *outbound.taker();
            match taker.filter(|other| *other != me) {
                Some(other) => {
                    feed.retire();
                    for (text, must) in outbound.settle(Held::There(other)) {
                        let session = session.name();
                        shared.peers.courier.tell(other, Message::Say { session, text, must });
                    }
                }
                None => {
                    outbound.arrive(&feed);
                    shared.answer_for_the_dead(session.name(), &feed).await;
                }
            }
        }
    }
}

/// The stream with all that was said on it: what its last home wrote down, and what that was told and did not read.
async fn fetch(session: &Session, shared: &Shared, from: Option<ReplicaId>) -> Result<Arc<Feed>, Down> {
    let (name, me) = (session.name(), shared.peers.replicas.me());
    let id = StreamId::Session(session.row);
    let take = Message::Take { session: name, stream: id.to_string().into() };
    let silent = shared.peers.post.tell_all_and_wait(take).await?;
    let log = Log::read(&shared.peers.redis, name, &id.to_string(), None).await?;
    let known = log.is_some();
    let written: Vec<_> =
        log.iter().flat_map(|log| log.events.iter().map(|(_, frame)| frame.clone())).collect();
    let feed = Feed::restored(id, log.unwrap_or_default(), false, session.store.clone());
    feed.mirror(shared.mirror(name, &feed), known);
    if let Some(dead) = from.filter(|from| silent.contains(from)) {
        let for_it = |message: &Message| matches!(message, Message::Say { session, .. } if *session == name);
        for message in shared.peers.post.take_left(dead, for_it).await {
            // It may have said a message without having struck it out of its post.
            let is_new = |text: &str| {
                let end = frame(None, text);
                !written.iter().any(|said| said.ends_with(&end))
            };
            if let Message::Say { text, must, .. } = message
                && is_new(&text)
            {
                let _ = say(&feed, &text, must);
            }
        }
    }
    shared.settle(name, &vec![(super::record::HOME.to_owned(), me.to_string())]).await?;
    Ok(feed)
}

//! Feeds: what one event stream carries, in order and numbered, for a reader that may break off and come back.
//!
//! Whoever speaks never waits: what may be lost (progress, log messages) is dropped when too much of it waits, what
//! must arrive (responses, questions) is taken as long as a reader could still take it. A feed that
//! [keeps](Feed::kept) gives every event an id and holds on to what it handed out, so that a client can ask for the rest
//! with `Last-Event-ID` (2025-11-25 "Resumability and Redelivery"). The [`Store`] bounds what all feeds of a tenant hold.

mod event;
mod mirror;
mod reader;
mod store;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::error::{RpcError, code};
use super::jsonrpc::{self, RequestId};
use crate::id::ReplicaId;

pub use event::{EventId, StreamId, endpoint, frame, priming, retry};
pub use mirror::{Log, Mirror};
pub use reader::{Reader, Step};
pub use store::{Memory, Store};

/// Events that may wait for their reader. More than one session has subscriptions: it may be told of all at once.
const MAX_WAITING: u64 = 512;
/// Bytes that may wait before nothing further is taken; a quarter of it while the tenant keeps too much. One event may be
/// larger, and what a session is told of all its subscriptions is less.
const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;
/// Above these, what may be lost is dropped: a quarter stays free for what must arrive.
const ROOM: u64 = MAX_WAITING / 4 * 3;
const ROOM_BYTES: usize = 256 * 1024;
/// Events that are kept after they were handed out.
const MAX_KEPT: usize = 256;

/// Why something that must arrive cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undeliverable {
    /// Too much waits for a reader that does not take it.
    Full,
    /// The last thing was said.
    Ended,
}

struct Event {
    seq: u64,
    frame: Bytes,
    /// The place on the bus of the change that it tells of.
    place: Option<u64>,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// Number of the event that was said last. 0 is the priming event.
    last: u64,
    /// Everything up to this number was handed out.
    read: u64,
    /// Bytes in `events`.
    bytes: usize,
    /// Counts readers; the newest one is served.
    reader: u32,
    /// A reader is there.
    is_read: bool,
    /// The connection is to close; the feed goes on.
    pausing: bool,
    ended: bool,
    /// Somebody else holds it from now on.
    retired: bool,
    /// Where it is kept beside, for other replicas.
    mirror: Option<Mirror>,
    /// The replica at which it is read on.
    followed_by: Option<ReplicaId>,
    /// When the mirror was told last to stay, in microseconds.
    stayed: Option<i64>,
    /// It stands in the store's queue of idle feeds.
    queued: bool,
    /// What had been handed out when the store was last swept, and when that was, in microseconds.
    mark: Option<(i64, u64)>,
}

/// Where what is said goes, where the feed itself is somewhere else.
pub trait Relay: Send + Sync {
    /// Says what may be lost. Whether it was taken.
    fn say(&self, json: &str) -> bool;
    /// Says what must arrive.
    ///
    /// # Errors
    /// [`Undeliverable`], as far as that can be told from here.
    fn must(&self, json: &str) -> Result<(), Undeliverable>;
}

/// What one event stream carries.
pub struct Feed {
    relay: Option<Box<dyn Relay>>,
    kept: Option<Kept>,
    state: Mutex<State>,
    news: Notify,
}

/// What a feed needs to keep its events.
struct Kept {
    id: StreamId,
    /// The request that it answers, if it answers one.
    request: Option<RequestId>,
    /// The client knows that a connection may go before the stream ends.
    pauses: bool,
    store: Arc<Store>,
}

impl Feed {
    /// A feed whose events have no ids and are gone when they are read.
    #[must_use]
    pub fn passing() -> Arc<Self> {
        Arc::new(Self { relay: None, kept: None, state: Mutex::default(), news: Notify::new() })
    }

    /// A feed that a reader can come back to. `request` is the one that it answers, if it does; `pauses` says whether the
    /// client knows that a connection may go before the stream ends.
    #[must_use]
    pub fn kept(id: StreamId, request: Option<RequestId>, pauses: bool, store: Arc<Store>) -> Arc<Self> {
        let kept = Some(Kept { id, request, pauses, store });
        Arc::new(Self { relay: None, kept, state: Mutex::default(), news: Notify::new() })
    }

    /// A feed that others hold: what is said goes through `relay`, and nobody reads it here.
    #[must_use]
    pub fn away(relay: Box<dyn Relay>) -> Arc<Self> {
        Arc::new(Self { relay: Some(relay), kept: None, state: Mutex::default(), news: Notify::new() })
    }

    /// A feed that goes on where another replica's left off.
    #[must_use]
    pub fn restored(id: StreamId, log: Log, pauses: bool, store: Arc<Store>) -> Arc<Self> {
        let feed = Self::kept(id, log.request.clone(), pauses, store);
        let mut state = feed.state();
        feed.take_over(&mut state, log);
        drop(state);
        feed
    }

    /// Takes what another replica said on the stream that this feed follows.
    pub fn follow(self: &Arc<Self>, log: Log) {
        let mut state = self.state();
        self.take_over(&mut state, log);
        drop(state);
        self.queue_if_idle();
        self.told();
    }

    fn take_over(&self, state: &mut State, log: Log) {
        let untouched = state.last == 0;
        for (seq, frame) in log.events.into_iter().filter(|(seq, _)| *seq > state.last).collect::<Vec<_>>() {
            if untouched && state.events.is_empty() {
                // What was given up there is given up here.
                state.read = seq - 1;
            }
            state.last = seq;
            self.hold(state, Event { seq, frame, place: None });
        }
        state.last = state.last.max(log.last);
        state.ended |= log.ended;
    }

    /// Keeps the feed at another place, too. What it holds already goes there, unless it came from there.
    pub fn mirror(&self, mirror: Mirror, came_from_there: bool) {
        let mut state = self.state();
        if !came_from_there {
            if state.mirror.is_some() {
                // What is there may have gaps, and nothing can be put into them.
                mirror.forget();
            }
            mirror.begin(self.request());
            state.events.iter().for_each(|event| mirror.event(event, None));
            if state.ended {
                mirror.end(state.last, None);
            }
        }
        state.mirror = Some(mirror);
    }

    /// Hands the feed over to another replica: its reader here ends, what is said from now on is not taken, and its mirror
    /// stays.
    pub fn retire(&self) {
        let mut state = self.state();
        state.retired = true;
        state.ended = true;
        state.reader = state.reader.wrapping_add(1);
        state.mirror = None;
        drop(state);
        self.news.notify_waiters();
    }

    /// The feed is read on at another replica: its reader here ends, and that replica is told when more is said.
    pub fn read_at(&self, replica: ReplicaId) {
        let mut state = self.state();
        state.reader = state.reader.wrapping_add(1);
        state.followed_by = Some(replica);
        state.read = state.last;
        drop(state);
        self.news.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> Option<&Arc<Store>> {
        self.kept.as_ref().map(|kept| &kept.store)
    }

    /// The stream's id, where its events have ids.
    #[must_use]
    pub fn id(&self) -> Option<StreamId> {
        self.kept.as_ref().map(|kept| kept.id)
    }

    /// Says what may be lost. Whether it was taken.
    pub fn say(&self, json: &str) -> bool {
        if let Some(relay) = &self.relay {
            return relay.say(json);
        }
        let mut state = self.state();
        let room = self.store().map_or(ROOM_BYTES, |store| store.per_session());
        let taken = !state.ended && state.waiting() < ROOM && state.bytes <= room;
        if taken {
            self.push(&mut state, json, None);
        }
        drop(state);
        self.told();
        taken
    }

    /// Says what must arrive.
    ///
    /// # Errors
    /// [`Undeliverable`] where nobody would ever read it, or the reader is too far behind.
    pub fn must(&self, json: &str) -> Result<(), Undeliverable> {
        self.must_of(json, None)
    }

    /// Says what must arrive, and tells of the change at this place on the bus.
    ///
    /// # Errors
    /// As [`Feed::must`].
    pub fn must_of(&self, json: &str, place: Option<u64>) -> Result<(), Undeliverable> {
        if let Some(relay) = &self.relay {
            return relay.must(json);
        }
        let mut state = self.state();
        if state.ended {
            return Err(Undeliverable::Ended);
        }
        let store_is_full = self.store().is_some_and(|store| store.is_full());
        let limit = if store_is_full { MAX_WAITING_BYTES / 4 } else { MAX_WAITING_BYTES };
        if state.waiting() >= MAX_WAITING || (state.waiting() > 0 && state.bytes > limit) {
            return Err(Undeliverable::Full);
        }
        self.push(&mut state, json, place);
        drop(state);
        self.told();
        Ok(())
    }

    /// Says the last thing, if there is one. Whatever is said later is dropped.
    pub fn end(self: &Arc<Self>, json: Option<&str>) {
        let mut state = self.state();
        if let (Some(json), false) = (json, state.ended) {
            self.push(&mut state, json, None);
        }
        if let (Some(mirror), false) = (&state.mirror, state.ended) {
            mirror.end(state.last, state.followed_by);
        }
        state.ended = true;
        drop(state);
        self.queue_if_idle();
        self.told();
    }

    /// Asks the reader to let its connection go and come back later (2025-11-25 "Sending Messages to the Server", item 6).
    /// Without effect where readers would not come back.
    pub fn pause(&self) {
        let mut state = self.state();
        state.pausing = self.kept.as_ref().is_some_and(|kept| kept.pauses) && !state.ended;
        drop(state);
        self.news.notify_waiters();
    }

    /// Whether there was no reason yet to open a stream.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        let state = self.state();
        state.last == 0 && !state.pausing
    }

    /// Whether somebody reads it.
    #[must_use]
    pub fn is_being_read(&self) -> bool {
        self.state().is_read
    }

    /// A reader will be there at once: until it is, the feed counts as being read.
    pub fn expect_reader(&self) {
        self.state().is_read = true;
    }

    /// Whoever spoke is dead: the request that the feed answers is answered for, and nothing more is said.
    pub fn abandon(self: &Arc<Self>) {
        let answer = self.request().map(lost);
        self.end(answer.as_deref());
    }

    /// Whether nobody reads it, and nothing more will be said unless somebody does.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.idles(&self.state())
    }

    fn idles(&self, state: &State) -> bool {
        !state.is_read && (state.ended || matches!(self.id(), Some(StreamId::Listen(_))))
    }

    fn request(&self) -> Option<&RequestId> {
        self.kept.as_ref()?.request.as_ref()
    }

    /// Returns when there is a reason to open a stream.
    pub async fn stirred(&self) {
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            news.as_mut().enable();
            if !self.is_silent() {
                return;
            }
            news.await;
        }
    }

    /// Reads on after the event of this number, from the newest reader on: an older one ends.
    #[must_use]
    pub fn read(self: &Arc<Self>, after: u64) -> Reader {
        let mut state = self.state();
        state.reader = state.reader.wrapping_add(1);
        state.is_read = true;
        state.followed_by = None;
        // Pausing is over for whoever comes back; the first reader is still to be told.
        state.pausing &= state.reader == 1;
        let after = after.min(state.last);
        // What was given up meanwhile does not count as waiting.
        let first = state.events.front().map_or(state.last + 1, |event| event.seq);
        let missed = after + 1 < first;
        let answer_is_gone = missed && state.ended && state.events.is_empty();
        state.read = if missed && !answer_is_gone { first - 1 } else { after };
        let number = state.reader;
        drop(state);
        self.news.notify_waiters();
        Reader::new(self.clone(), number, missed)
    }

    /// How many bytes are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Gives up what is kept, if the feed is [idle](Self::is_idle). Whether it was.
    pub fn forget(&self) -> bool {
        let mut state = self.state();
        let idle = self.idles(&state);
        if idle {
            self.drop_events(&mut state, |_, _| true);
        }
        idle
    }

    /// Gives up what had been handed out `time` microseconds ago, as far as this can be told: it is called from time to
    /// time.
    pub fn age(&self, now: i64, time: i64) {
        let mut state = self.state();
        let stayed = *state.stayed.get_or_insert(now);
        if let Some(mirror) = &state.mirror
            && now - stayed >= time / 3
        {
            mirror.stay();
            state.stayed = Some(now);
        }
        let Some((at, seq)) = state.mark else {
            state.mark = Some((now, state.read));
            return;
        };
        if now - at >= time {
            let old = seq.min(state.read);
            self.drop_events(&mut state, |_, seq| seq <= old);
            state.mark = Some((now, state.read));
        }
    }

    fn push(&self, state: &mut State, json: &str, place: Option<u64>) {
        state.last += 1;
        let seq = state.last;
        let id = self.kept.as_ref().map(|kept| EventId { stream: kept.id, seq });
        let event = Event { seq, frame: event::frame(id, json), place };
        if let Some(mirror) = &state.mirror {
            mirror.event(&event, state.followed_by);
        }
        if state.followed_by.is_some() {
            // The replica that reads it takes it from the mirror.
            state.read = seq;
        }
        self.hold(state, event);
    }

    /// Keeps the newest event.
    fn hold(&self, state: &mut State, event: Event) {
        state.bytes += event.frame.len();
        if let Some(store) = self.store() {
            store.add(event.frame.len());
        }
        state.events.push_back(event);
        self.trim(state);
    }

    /// Wakes the reader and, where the store is full by now, makes room in it.
    fn told(&self) {
        self.news.notify_waiters();
        if let Some(store) = self.store() {
            store.make_room();
        }
    }

    /// Puts an idle feed where the store finds it when it is full.
    fn queue_if_idle(self: &Arc<Self>) {
        let Some(store) = self.store() else { return };
        let mut state = self.state();
        let joins = self.idles(&state) && !state.queued && !state.events.is_empty();
        state.queued |= joins;
        drop(state);
        if joins {
            store.queue(Arc::downgrade(self));
        }
    }

    /// Called by the store when it takes the feed from its queue.
    fn give_up(&self) {
        self.state().queued = false;
        self.forget();
    }

    /// Gives up the oldest of what was handed out, as far as there is too much of it. The newest event stays, however
    /// large: it is what a connection that just broke has lost.
    fn trim(&self, state: &mut State) {
        let Some(store) = self.store() else {
            return self.drop_events(state, |state, seq| seq <= state.read);
        };
        self.drop_events(state, |state, seq| {
            let too_much =
                state.events.len() > MAX_KEPT || state.bytes > store.per_session() || store.is_full();
            seq <= state.read && seq < state.last && too_much
        });
    }

    fn drop_events(&self, state: &mut State, which: impl Fn(&State, u64) -> bool) {
        let first = state.events.front().map(|event| event.seq);
        self.pop_events(state, which);
        if let (Some(mirror), Some(first)) = (&state.mirror, first) {
            let last = state.events.front().map_or(state.last, |event| event.seq - 1);
            if last >= first {
                mirror.give_up(first, last);
            }
        }
    }

    fn pop_events(&self, state: &mut State, which: impl Fn(&State, u64) -> bool) {
        while let Some(first) = state.events.front() {
            if !which(state, first.seq) {
                break;
            }
            if let Some(gone) = state.events.pop_front() {
                state.bytes -= gone.frame.len();
                if let Some(store) = self.store() {
                    store.sub(gone.frame.len());
                }
            }
        }
        if state.events.is_empty() {
            state.events = VecDeque::new();
        }
    }

    /// The answer to a request whose answer was given up.
    fn apology(&self) -> Option<Bytes> {
        let request = self.request()?;
        let text = "the answer to this request is no longer kept; send the request again";
        let error = RpcError::new(code::GONE, 200, text);
        Some(event::frame(None, &jsonrpc::error_response(Some(request), &error)))
    }
}

/// The answer to a request whose replica is dead.
#[must_use]
pub fn lost(request: &RequestId) -> String {
    let text = "the gateway's process that worked on this request is gone; send the request again";
    jsonrpc::error_response(Some(request), &RpcError::new(code::GONE, 200, text))
}

impl State {
    fn waiting(&self) -> u64 {
        self.last - self.read
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut state = std::mem::take(&mut *self.state());
        self.pop_events(&mut state, |_, _| true);
        if let Some(mirror) = &state.mirror {
            mirror.forget();
        }
    }
}

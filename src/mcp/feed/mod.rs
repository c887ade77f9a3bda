//! Feeds: what one event stream carries, in order and numbered, for a reader that may break off and come back.
//!
//! Whoever speaks never waits: what may be lost (progress, log messages) is dropped when too much of it waits, what
//! must arrive (responses, questions) is taken as long as a reader could still take it. A feed that
//! [keeps](Feed::kept) gives every event an id and holds on to what it handed out, so that a client can ask for the rest
//! with `Last-Event-ID` (2025-11-25 "Resumability and Redelivery"). The [`Store`] bounds what all feeds of a tenant hold.

mod event;
mod reader;
mod store;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::error::{RpcError, code};
use super::jsonrpc::{self, RequestId};

pub use event::{EventId, StreamId, endpoint, frame, priming, retry};
pub use reader::{Reader, Step};
pub use store::{Memory, Store};

/// Events that may wait for their reader. More than one session has subscriptions: it may be told of all at once.
const MAX_WAITING: u64 = 512;
/// Bytes that may wait before nothing further is taken. One event may be larger.
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
    /// It stands in the store's queue of idle feeds.
    queued: bool,
    /// What had been handed out when the store was last swept, and when that was, in microseconds.
    mark: Option<(i64, u64)>,
}

/// What one event stream carries.
pub struct Feed {
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
        Arc::new(Self { kept: None, state: Mutex::default(), news: Notify::new() })
    }

    /// A feed that a reader can come back to. `request` is the one that it answers, if it does; `pauses` says whether the
    /// client knows that a connection may go before the stream ends.
    #[must_use]
    pub fn kept(id: StreamId, request: Option<RequestId>, pauses: bool, store: Arc<Store>) -> Arc<Self> {
        let kept = Some(Kept { id, request, pauses, store });
        Arc::new(Self { kept, state: Mutex::default(), news: Notify::new() })
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
        let mut state = self.state();
        let room = self.store().map_or(ROOM_BYTES, |store| store.per_session());
        let taken = !state.ended && state.waiting() < ROOM && state.bytes <= room;
        if taken {
            self.push(&mut state, json);
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
        let mut state = self.state();
        if state.ended {
            return Err(Undeliverable::Ended);
        }
        let store_is_full = || self.store().is_some_and(|store| store.is_full());
        let too_much = || state.bytes > MAX_WAITING_BYTES || store_is_full();
        if state.waiting() >= MAX_WAITING || (state.waiting() > 0 && too_much()) {
            return Err(Undeliverable::Full);
        }
        self.push(&mut state, json);
        drop(state);
        self.told();
        Ok(())
    }

    /// Says the last thing, if there is one. Whatever is said later is dropped.
    pub fn end(self: &Arc<Self>, json: Option<&str>) {
        let mut state = self.state();
        if let (Some(json), false) = (json, state.ended) {
            self.push(&mut state, json);
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

    fn push(&self, state: &mut State, json: &str) {
        state.last += 1;
        let seq = state.last;
        let id = self.kept.as_ref().map(|kept| EventId { stream: kept.id, seq });
        let frame = event::frame(id, json);
        state.bytes += frame.len();
        if let Some(store) = self.store() {
            store.add(frame.len());
        }
        state.events.push_back(Event { seq, frame });
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

impl State {
    fn waiting(&self) -> u64 {
        self.last - self.read
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut state = std::mem::take(&mut *self.state());
        self.drop_events(&mut state, |_, _| true);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answering(store: &Arc<Store>) -> Arc<Feed> {
        Feed::kept(StreamId::Reply(1), Some(RequestId::integer(7)), true, store.clone())
    }

    fn store(bytes: usize) -> Arc<Store> {
        Memory::with(bytes, 1 << 20, 1 << 20).store()
    }

    /// The number of the event, and what it says.
    fn read_event(frame: &Bytes) -> (u64, String) {
        let text = std::str::from_utf8(frame).expect("UTF-8");
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").to_owned();
        let seq = field("id: ").parse::<EventId>().map_or(0, |id| id.seq);
        (seq, field("data: "))
    }

    #[derive(Debug, Clone)]
    enum Deed {
        Say,
        Must,
        Read(usize),
        /// The client lost what it read since then, and comes back.
        Break(u64),
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let deed = prop_oneof![
            Just(Deed::Say),
            Just(Deed::Must),
            (1..6_usize).prop_map(Deed::Read),
            (0..4_u64).prop_map(Deed::Break),
        ];
        proptest::collection::vec(deed, 0..200)
    }

    proptest! {
        #![proptest_config(crate::fuzz::config(256))]

        #[test]
        fn every_event_is_read_once_and_in_order_whenever_the_connection_breaks(deeds in deeds()) {
            let store = store(1 << 20);
            let feed = answering(&store);
            let (mut said, mut got) = (Vec::new(), Vec::new());
            let mut reader = feed.read(0);
            for deed in deeds {
                match deed {
                    Deed::Say | Deed::Must => {
                        let text = format!("{}", said.len());
                        if matches!(deed, Deed::Say) {
                            prop_assert!(feed.say(&text));
                        } else {
                            prop_assert_eq!(feed.must(&text), Ok(()));
                        }
                        said.push(text);
                    }
                    Deed::Read(times) => {
                        for _ in 0..times {
                            if let Some(Step::Event(frame)) = reader.try_next() {
                                got.push(read_event(&frame));
                            }
                        }
                    }
                    Deed::Break(lost) => {
                        got.truncate(got.len().saturating_sub(usize::try_from(lost).expect("small")));
                        reader = feed.read(got.last().map_or(0, |(seq, _)| *seq));
                    }
                }
            }
            feed.end(Some("end"));
            said.push("end".to_owned());
            while let Some(Step::Event(frame)) = reader.try_next() {
                got.push(read_event(&frame));
            }
            prop_assert_eq!(reader.try_next(), Some(Step::End));
            let numbered: Vec<_> = (1..).zip(said).collect();
            prop_assert_eq!(got, numbered);
        }

        #[test]
        fn what_is_kept_is_counted_and_bounded(deeds in deeds()) {
            let store = store(600);
            let feed = answering(&store);
            let mut reader = feed.read(0);
            for deed in deeds {
                match deed {
                    Deed::Say | Deed::Must => {
                        let _ = feed.say(&"x".repeat(40));
                    }
                    Deed::Read(times) => (0..times).for_each(|_| drop(reader.try_next())),
                    Deed::Break(back) => reader = feed.read(back),
                }
                prop_assert_eq!(store.used(), feed.bytes());
                prop_assert!(feed.bytes() <= 600 + 2 * 100, "{}", feed.bytes());
            }
            drop((reader, feed));
            prop_assert_eq!(store.used(), 0);
        }
    }

    #[test]
    fn what_may_be_lost_is_dropped_before_what_must_arrive() {
        let feed = Feed::passing();
        let taken = (0..1000).filter(|_| feed.say("0")).count() as u64;
        assert_eq!(taken, ROOM);
        let more = (0..1000).take_while(|_| feed.must("0").is_ok()).count() as u64;
        assert_eq!(taken + more, MAX_WAITING);
        assert_eq!(feed.must("0"), Err(Undeliverable::Full));
        feed.end(Some("the end is always taken"));
        assert_eq!(feed.must("0"), Err(Undeliverable::Ended));
        let mut reader = feed.read(0);
        let read =
            std::iter::from_fn(|| reader.try_next()).take_while(|step| *step != Step::End).count() as u64;
        assert_eq!((read, feed.bytes()), (MAX_WAITING + 1, 0));
    }

    #[test]
    fn an_answer_that_was_given_up_is_answered_for() {
        let store = store(1 << 20);
        let feed = answering(&store);
        feed.say("1");
        let first = feed.read(0);
        feed.end(Some("2"));
        assert!(!feed.forget(), "somebody reads it");
        drop(first);
        assert!(feed.forget());
        assert_eq!(store.used(), 0);
        let Some(Step::Event(apology)) = feed.read(0).try_next() else { panic!("no apology") };
        assert!(read_event(&apology).1.contains("-31008"));
        assert_eq!(feed.read(2).try_next(), Some(Step::End), "whoever had it all needs none");
    }

    #[test]
    fn a_connection_pauses_once_and_only_where_the_client_knows() {
        let feed = answering(&store(1 << 20));
        feed.say("1");
        feed.pause();
        let mut reader = feed.read(0);
        assert!(matches!(reader.try_next(), Some(Step::Event(_))));
        assert_eq!(reader.try_next(), Some(Step::Pause));
        assert_eq!(feed.read(1).try_next(), None);
        let ignorant = Feed::kept(StreamId::Reply(2), None, false, store(1 << 20));
        ignorant.pause();
        assert!(ignorant.is_silent());
    }

    #[test]
    fn a_full_store_gives_up_the_oldest_idle_feeds_of_its_tenant() {
        let memory = Memory::with(100, 10_000, 1 << 20);
        let (mine, other) = (memory.store(), memory.store());
        let say = |store: &Arc<Store>, number| {
            let feed =
                Feed::kept(StreamId::Reply(number), Some(RequestId::integer(number)), false, store.clone());
            feed.end(Some(&"x".repeat(3000)));
            feed
        };
        let theirs = say(&other, 1);
        let feeds: Vec<_> = (1..=5).map(|number| say(&mine, number)).collect();
        let held: Vec<_> = feeds.iter().map(|feed| feed.bytes() > 0).collect();
        assert_eq!(
            held,
            [false, false, true, true, true],
            "an answer larger than a session's share is kept, too"
        );
        assert!(mine.used() <= 10_000 && theirs.bytes() > 0);
        let reader = feeds[2].read(0);
        let next = say(&mine, 6);
        assert!(feeds[2].bytes() > 0 && feeds[3].bytes() == 0, "one that is read is no longer idle");
        drop(reader);
        let last = say(&mine, 7);
        assert_eq!((feeds[4].bytes(), feeds[2].bytes() > 0), (0, true), "it queues again, at the end");
        drop((feeds, next, last, theirs));
        assert_eq!((mine.used(), memory.used()), (0, 0));
    }

    #[test]
    fn a_reader_that_comes_back_far_behind_does_not_fill_the_feed() {
        let feed = Feed::kept(StreamId::Listen(1), None, false, store(1 << 20));
        let mut reader = feed.read(0);
        for _ in 0..2000 {
            feed.must("0").expect("room");
            reader.try_next();
        }
        let late = feed.read(3);
        assert!(late.missed());
        assert_eq!(feed.must("0"), Ok(()));
        assert!(!feed.read(1999).missed());
    }

    #[test]
    fn what_was_handed_out_long_ago_is_given_up() {
        let feed = answering(&store(1 << 20));
        let mut reader = feed.read(0);
        feed.say("1");
        reader.try_next();
        feed.age(0, 10);
        feed.say("2");
        reader.try_next();
        feed.age(9, 10);
        assert_eq!(feed.state().events.len(), 2);
        feed.age(10, 10);
        assert_eq!(feed.state().events.len(), 1);
        feed.age(20, 10);
        assert_eq!(feed.bytes(), 0);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_too() {
        let store = Memory::with(1 << 30, 1 << 30, 1 << 30).store();
        let feed = Feed::kept(StreamId::Session(crate::id::SessionRowId::new()), None, false, store);
        let large = "x".repeat(3 << 20);
        assert_eq!((feed.must(&large), feed.must(&large)), (Ok(()), Ok(())));
        assert_eq!(feed.must("0"), Err(Undeliverable::Full));
    }
}

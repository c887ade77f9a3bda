//! The streams of a session: which one carries its notifications, and what is kept of those that broke off.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::futures::Notified;

use super::Session;
use crate::id::ReplicaId;
use crate::mcp::bus::{Bus, Change, Heard};
use crate::mcp::feed::{Feed, Mirror, StreamId};

/// Streams of one session that a client can come back to.
const MAX_FEEDS: usize = 64;
/// Streams of one session at other replicas that are remembered.
const MAX_ELSEWHERE: usize = 64;

/// The streams of one session.
#[derive(Default)]
pub(super) struct Streams {
    /// Streams that carry notifications, oldest first; the newest one is told.
    listeners: Vec<u32>,
    /// Streams of any kind that are open.
    open: u32,
    next_listener: u32,
    /// Streams that carry notifications at other replicas, as far as they are newer than those here were when they came.
    elsewhere: Vec<(u32, ReplicaId)>,
    /// Oldest first. The time is that of the sweep which first found the feed idle.
    feeds: VecDeque<(Arc<Feed>, Option<i64>)>,
    /// The session's place on the bus, from its first stream on.
    heard: Option<u64>,
}

impl Streams {
    pub(super) fn is_open(&self) -> bool {
        self.open > 0
    }

    /// Whether there was a stream that carried notifications, and there is none of any kind now.
    pub(super) fn were_left(&self) -> bool {
        self.next_listener > 0 && !self.is_open()
    }

    pub(super) fn find(&self, id: StreamId) -> Option<Arc<Feed>> {
        self.feeds.iter().map(|(feed, _)| feed).find(|feed| feed.id() == Some(id)).cloned()
    }

    /// Keeps one more feed; where there are too many, the oldest that is idle goes.
    pub(super) fn keep(&mut self, feed: &Arc<Feed>) {
        if self.feeds.len() >= MAX_FEEDS
            && let Some(oldest) = self.feeds.iter().position(|(feed, _)| feed.forget())
        {
            self.feeds.remove(oldest);
        }
        self.feeds.push_back((feed.clone(), None));
    }

    /// Gives up what the oldest idle feeds hold, until all hold no more than `bytes`. The newest feed stays: one large
    /// answer is kept, too.
    pub(super) fn trim(&mut self, bytes: usize) {
        let mut held: usize = self.feeds.iter().map(|(feed, _)| feed.bytes()).sum();
        for (feed, _) in self.feeds.iter().take(self.feeds.len().saturating_sub(1)) {
            if held <= bytes {
                return;
            }
            let of_feed = feed.bytes();
            if of_feed > 0 && feed.forget() {
                held -= of_feed;
            }
        }
    }

    /// Gives up feeds that have been idle for `time`, in microseconds, and events that were handed out so long ago.
    pub(super) fn age(&mut self, now: i64, time: i64) {
        self.feeds.retain_mut(|(feed, since)| {
            feed.age(now, time);
            if !feed.is_idle() {
                *since = None;
                return true;
            }
            let since = *since.get_or_insert(now);
            now - since < time || !feed.forget()
        });
        if self.feeds.is_empty() {
            self.feeds = VecDeque::new();
        }
    }

    /// A stream that carries notifications was opened at another replica. Up to where the session has heard here.
    pub(super) fn opened_elsewhere(&mut self, number: u32, replica: ReplicaId) -> Option<u64> {
        self.elsewhere.push((number, replica));
        if self.elsewhere.len() > MAX_ELSEWHERE {
            self.elsewhere.remove(0);
        }
        self.heard
    }

    /// A stream at another replica is gone; there the session has heard up to this place.
    pub(super) fn left_elsewhere(&mut self, number: u32, heard: u64) {
        self.elsewhere.retain(|(other, _)| *other != number);
        self.heard = self.heard.map(|here| here.max(heard));
    }

    /// All streams at this replica are gone.
    pub(super) fn died(&mut self, replica: ReplicaId) {
        self.elsewhere.retain(|(_, other)| *other != replica);
    }

    /// Takes out the feed of a stream that carries notifications, for another replica.
    pub(super) fn take(&mut self, id: StreamId) -> Option<Arc<Feed>> {
        let place = self.feeds.iter().position(|(feed, _)| feed.id() == Some(id))?;
        self.feeds.remove(place).map(|(feed, _)| feed)
    }

    /// Up to where the session has heard, if it ever had a stream.
    pub(super) fn heard(&self) -> Option<u64> {
        self.heard
    }

    /// Writes what is kept down again.
    pub(super) fn mirror_again(&self, mirror: impl Fn(&Feed) -> Mirror) {
        for (feed, _) in &self.feeds {
            feed.mirror(mirror(feed), false);
        }
    }

    /// Whether something is kept for a client that comes back.
    pub(super) fn keeps(&self) -> bool {
        !self.feeds.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.feeds = VecDeque::new();
        self.heard = None;
    }
}

/// An open stream of a session, which counts as activity. Dropping it notes its end.
pub struct Attached {
    session: Arc<Session>,
    /// Its number among those that carry notifications, if it is one.
    listener: Option<u32>,
}

impl Session {
    /// Notes an open stream.
    #[must_use]
    pub fn attach(self: &Arc<Self>) -> Attached {
        self.opens(&mut self.inner().streams);
        Attached { session: self.clone(), listener: None }
    }

    /// Notes an open stream that carries notifications; the session hears them from its first one on. `listener` is its
    /// number, and up to where the session has heard, where other replicas may hold streams of the session.
    #[must_use]
    pub fn listen(self: &Arc<Self>, bus: &Bus, listener: Option<(u32, u64)>) -> Attached {
        let mut inner = self.inner();
        let streams = &mut inner.streams;
        self.opens(streams);
        let number = match listener {
            Some((number, heard)) => {
                streams.heard = Some(streams.heard.unwrap_or(0).max(heard));
                number
            }
            None => streams.next_listener,
        };
        streams.next_listener = number + 1;
        streams.listeners.push(number);
        streams.heard.get_or_insert_with(|| bus.changes_from_now());
        drop(inner);
        self.listeners_changed.notify_waiters();
        Attached { session: self.clone(), listener: Some(number) }
    }

    fn opens(&self, streams: &mut Streams) {
        streams.open += 1;
        if streams.open == 1 {
            self.tell_busy(true);
        }
    }

    /// Up to where the session has heard, if it ever had a stream.
    #[must_use]
    pub fn heard(&self) -> Option<u64> {
        self.inner().streams.heard
    }

    /// Takes note that the session has heard up to this place.
    pub(super) fn has_heard(&self, place: Option<u64>) {
        let mut inner = self.inner();
        inner.streams.heard = inner.streams.heard.max(place);
    }

    /// Wakes the streams here: which of them is the newest may be another one now.
    pub(super) fn listeners_have_changed(&self) {
        self.listeners_changed.notify_waiters();
    }
}

impl Attached {
    /// What the session hears next, if there is something and this stream is the newest one: a message goes to one stream
    /// only (2025-11-25 "Multiple Connections").
    #[must_use]
    pub fn hear(&self, bus: &Bus) -> Option<Heard<Change>> {
        let mut inner = self.session.inner();
        let streams = &mut inner.streams;
        let newest = streams.listeners.iter().max().copied();
        if self.listener.is_none()
            || newest != self.listener
            || streams.elsewhere.iter().any(|(number, _)| Some(*number) > self.listener)
        {
            return None;
        }
        bus.next_change(streams.heard.as_mut()?)
    }

    /// Returns when streams come or go, from this call on.
    pub fn listeners_changed(&self) -> Notified<'_> {
        self.session.listeners_changed.notified()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut inner = self.session.inner();
        inner.streams.open -= 1;
        if inner.streams.open == 0 {
            self.session.tell_busy(false);
        }
        if let Some(number) = self.listener {
            inner.streams.listeners.retain(|n| *n != number);
            if let (Some(shared), Some(heard)) = (&self.session.shared, inner.streams.heard) {
                shared.left(self.session.name(), number, heard);
            }
        }
        drop(inner);
        self.session.listeners_changed.notify_waiters();
    }
}

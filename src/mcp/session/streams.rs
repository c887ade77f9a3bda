//! The streams of a session: which one carries its notifications, and what is kept of those that broke off.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::futures::Notified;

use super::Session;
use crate::mcp::bus::{Bus, Event};
use crate::mcp::feed::{Feed, StreamId};

/// Streams of one session that a client can come back to.
const MAX_FEEDS: usize = 64;

/// What a session hears of the bus.
pub enum Heard {
    /// This.
    Event(Event),
    /// Something that is no longer there to be heard.
    Missed,
}

/// The streams of one session.
#[derive(Default)]
pub(super) struct Streams {
    /// Streams that carry notifications, oldest first; the newest one is told.
    listeners: Vec<u32>,
    /// Streams of any kind that are open.
    open: u32,
    next_listener: u32,
    /// Oldest first. The time is that of the sweep which first found the feed idle.
    feeds: VecDeque<(Arc<Feed>, Option<i64>)>,
    /// The session's place on the bus, from its first stream on.
    ear: Option<Receiver<Event>>,
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

    pub(super) fn clear(&mut self) {
        self.feeds = VecDeque::new();
        self.ear = None;
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
        self.inner().streams.open += 1;
        Attached { session: self.clone(), listener: None }
    }

    /// Notes an open stream that carries notifications; the session hears them from its first one on.
    #[must_use]
    pub fn listen(self: &Arc<Self>, bus: &Bus) -> Attached {
        let mut inner = self.inner();
        let streams = &mut inner.streams;
        streams.open += 1;
        let number = streams.next_listener;
        streams.next_listener += 1;
        streams.listeners.push(number);
        streams.ear.get_or_insert_with(|| bus.subscribe());
        drop(inner);
        self.listeners_changed.notify_waiters();
        Attached { session: self.clone(), listener: Some(number) }
    }
}

impl Attached {
    /// What the session hears next, if there is something and this stream is the newest one: a message goes to one stream
    /// only (2025-11-25 "Multiple Connections").
    #[must_use]
    pub fn hear(&self) -> Option<Heard> {
        let mut inner = self.session.inner();
        let streams = &mut inner.streams;
        if self.listener.is_none() || streams.listeners.last().copied() != self.listener {
            return None;
        }
        let ear = streams.ear.as_mut()?;
        match ear.try_recv() {
            Ok(event) => Some(Heard::Event(event)),
            Err(TryRecvError::Lagged(_)) => {
                *ear = ear.resubscribe();
                Some(Heard::Missed)
            }
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
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
        if let Some(number) = self.listener {
            inner.streams.listeners.retain(|n| *n != number);
        }
        drop(inner);
        self.session.listeners_changed.notify_waiters();
    }
}

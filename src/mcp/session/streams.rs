//! The streams of a session: which one carries its notifications, and what is kept of those that broke off.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast::Receiver;

use super::Session;
use crate::mcp::bus::Event;
use crate::mcp::feed::{Feed, StreamId};

/// Streams of one session that a client can come back to.
const MAX_FEEDS: usize = 64;

/// The streams of one session.
#[derive(Default)]
pub(super) struct Streams {
    /// Streams that carry notifications, oldest first; the newest one is told.
    listeners: Vec<u32>,
    /// Streams of any kind that are open.
    open: u32,
    next_listener: u32,
    next_feed: u64,
    /// Oldest first. The time is that of the sweep which first found the feed at its end.
    feeds: VecDeque<(Arc<Feed>, Option<i64>)>,
    /// What the session has not heard of the bus while none of its streams listened.
    ear: Option<Receiver<Event>>,
    /// A stream listens, or has listened.
    hears: bool,
}

impl Streams {
    pub(super) fn is_open(&self) -> bool {
        self.open > 0
    }

    /// Whether there was a stream that carried notifications, and there is none of any kind now.
    pub(super) fn were_left(&self) -> bool {
        self.next_listener > 0 && !self.is_open()
    }

    pub(super) fn keeps_answers(&self) -> bool {
        !self.feeds.is_empty()
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.next_feed += 1;
        self.next_feed
    }

    pub(super) fn find(&self, id: StreamId) -> Option<Arc<Feed>> {
        self.feeds.iter().map(|(feed, _)| feed).find(|feed| feed.id() == Some(id)).cloned()
    }

    /// Keeps one more feed, and gives up the oldest where there are too many or they hold too much.
    pub(super) fn keep(&mut self, feed: &Arc<Feed>, bytes: usize) {
        self.feeds.push_back((feed.clone(), None));
        let mut excess = self.feeds.len().saturating_sub(MAX_FEEDS);
        self.feeds.retain(|(feed, _)| {
            let goes = excess > 0 && feed.forget();
            excess -= usize::from(goes);
            !goes
        });
        let mut held: usize = self.feeds.iter().map(|(feed, _)| feed.bytes()).sum();
        for (feed, _) in &self.feeds {
            let of_feed = feed.bytes();
            if held > bytes && of_feed > 0 && feed.forget() {
                held -= of_feed;
            }
        }
    }

    /// Gives up what has been at its end for `time`, in microseconds.
    pub(super) fn forget(&mut self, now: i64, time: i64) {
        self.feeds.retain_mut(|(feed, since)| {
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

    /// Notes an open stream that carries notifications.
    #[must_use]
    pub fn listen(self: &Arc<Self>) -> Attached {
        let mut inner = self.inner();
        let streams = &mut inner.streams;
        streams.open += 1;
        let number = streams.next_listener;
        streams.next_listener = number.wrapping_add(1);
        streams.listeners.push(number);
        drop(inner);
        self.listeners_changed.notify_waiters();
        Attached { session: self.clone(), listener: Some(number) }
    }
}

impl Attached {
    /// The session.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Whether this stream is the newest one: a message goes to one stream only (2025-11-25 "Multiple Connections").
    #[must_use]
    pub fn is_newest(&self) -> bool {
        self.listener.is_some() && self.session.inner().streams.listeners.last().copied() == self.listener
    }

    /// What the session has not heard yet, for its newest stream; `subscribe` where it never listened. Nothing while
    /// another stream has it.
    #[must_use]
    pub fn take_ear(&self, subscribe: impl FnOnce() -> Receiver<Event>) -> Option<Receiver<Event>> {
        let mut inner = self.session.inner();
        if !inner.streams.hears {
            inner.streams.hears = true;
            return Some(subscribe());
        }
        inner.streams.ear.take()
    }

    /// Gives back what [`take_ear`](Self::take_ear) gave, for the next stream.
    pub fn return_ear(&self, ear: Receiver<Event>) {
        if !self.session.closed.is_cancelled() {
            self.session.inner().streams.ear = Some(ear);
            self.session.listeners_changed.notify_waiters();
        }
    }

    /// Returns when streams came or went, from the moment that this is first polled on.
    pub fn listeners_changed(&self) -> tokio::sync::futures::Notified<'_> {
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

//! The reading end of a feed.

use std::sync::Arc;

use bytes::Bytes;

use super::Feed;

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The next event.
    Event(Bytes),
    /// The connection is to close; the client comes back for the rest.
    Pause,
    /// There is nothing more, or a newer reader took over.
    End,
}

/// Reads a feed, from one event to the next.
pub struct Reader {
    feed: Arc<Feed>,
    number: u32,
    missed: bool,
}

impl Reader {
    pub(super) fn new(feed: Arc<Feed>, number: u32, missed: bool) -> Self {
        Self { feed, number, missed }
    }

    /// Whether something was given up that this reader has not had.
    #[must_use]
    pub fn missed(&self) -> bool {
        self.missed
    }

    /// The next step. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Step {
        let feed = self.feed.clone();
        loop {
            let mut news = std::pin::pin!(feed.news.notified());
            news.as_mut().enable();
            if let Some(step) = self.try_next() {
                return step;
            }
            news.await;
        }
    }

    /// The next step, if it can be told now.
    pub fn try_next(&mut self) -> Option<Step> {
        let mut state = self.feed.state();
        if state.reader != self.number {
            return Some(Step::End);
        }
        // What was given up before it could be read again is skipped; an answer is not skipped in silence.
        let first = state.events.front().map_or(state.last + 1, |event| event.seq);
        if state.events.is_empty() && state.read < state.last {
            state.read = state.last;
            if let (true, Some(apology)) = (state.ended, self.feed.apology()) {
                return Some(Step::Event(apology));
            }
        }
        let at = first.max(state.read + 1);
        let place = usize::try_from(at - first).unwrap_or(usize::MAX);
        if let Some(event) = state.events.get(place) {
            let frame = event.frame.clone();
            state.read = at;
            self.feed.trim(&mut state);
            return Some(Step::Event(frame));
        }
        if state.ended {
            return Some(Step::End);
        }
        std::mem::take(&mut state.pausing).then_some(Step::Pause)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.feed.state();
        if state.reader == self.number {
            state.is_read = false;
        }
        drop(state);
        self.feed.queue_if_idle();
    }
}

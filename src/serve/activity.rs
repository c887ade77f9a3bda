//! What happens on a connection, as far as hyper does not say.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::peer::Turn;

/// Largest piece of an HTTP/2 response that is handed out at once, in bytes.
const H2_PIECE: usize = 64 * 1024;

/// Whether any request came, and whether any is open. hyper closes quiet connections of HTTP/1 by its header timer, but those
/// of HTTP/2 only when the peer no longer answers pings, which it may do for ever.
#[derive(Debug)]
pub(super) struct Activity {
    requests: AtomicU32,
    open: AtomicUsize,
    /// No request was open at the last look.
    was_quiet: AtomicBool,
}

/// What a look at a connection shows.
pub(super) enum Look {
    /// No request in all its time.
    Silent,
    /// No request open now or at the last look.
    Quiet,
    /// In use.
    Busy,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { requests: AtomicU32::new(0), open: AtomicUsize::new(0), was_quiet: AtomicBool::new(false) }
    }

    /// Notes a request, until the guard is dropped with the end of its response.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.was_quiet.store(false, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// How many requests came so far.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether a request is open.
    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    pub(super) fn look(&self) -> Look {
        if self.requests() == 0 {
            return Look::Silent;
        }
        let quiet = !self.is_busy();
        if self.was_quiet.swap(quiet, Ordering::Relaxed) && quiet { Look::Quiet } else { Look::Busy }
    }
}

/// A request that is open.
pub(super) struct Busy(Arc<Activity>);

impl Busy {
    /// The body of its response, which keeps it open.
    pub(super) fn until_end_of(self, body: Body) -> Body {
        match Turn::of_this_stream() {
            None => Body::new(Counted { body, _busy: self }),
            Some(turn) => Body::new(Guarded { body, rest: Bytes::new(), turn, _busy: self }),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response body of HTTP/1.
struct Counted {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body of HTTP/2, which notes whose turn it is. Hands out pieces: what hyper has taken waits for the peer unseen.
struct Guarded {
    body: Body,
    rest: Bytes,
    turn: Arc<Turn>,
    _busy: Busy,
}

impl Guarded {
    /// The next piece of data that is there already.
    fn piece(&mut self) -> Frame<Bytes> {
        let end = self.rest.len().min(H2_PIECE);
        Frame::data(self.rest.split_to(end))
    }
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            self.turn.waits_for_peer();
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.turn.waits_for_us();
            return Poll::Pending;
        };
        self.turn.waits_for_peer();
        Poll::Ready(polled.map(|frame| match frame?.into_data() {
            Ok(data) => {
                self.rest = data;
                Ok(self.piece())
            }
            Err(trailers) => Ok(trailers),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

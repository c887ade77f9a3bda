//! Counts the bytes of answers, streams among them, as they are handed to the connection. Only for callers whose bytes
//! are limited; nobody else's answer is touched.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::app::App;
use crate::caller::Caller;

/// Whose bytes are counted, if anybody's.
pub struct Meter(Option<(Arc<App>, Caller)>);

impl Meter {
    /// A meter for this caller.
    pub fn of(app: &Arc<App>, caller: &Caller) -> Self {
        Self(caller.limits().bytes.is_some().then(|| (app.clone(), caller.clone())))
    }

    /// The answer, counted while it is sent.
    pub fn count(self, response: Response) -> Response {
        match self.0 {
            None => response,
            Some((app, caller)) => response.map(|body| Body::new(Counted { body, app, caller })),
        }
    }
}

struct Counted {
    body: Body,
    app: Arc<App>,
    caller: Caller,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.app.limits.charge(&self.caller, data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! The work behind a reply: it runs where it is waited for, and goes on without whoever waited.

use std::any::Any;
use std::future::Future;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use super::reply::Finished;
use crate::id::CallId;
use crate::mcp::error::RpcError;
use crate::mcp::jsonrpc::{self, RequestId};
use crate::tasks::Tasks;

/// A request being answered. Most calls end while their HTTP request waits for them, and need no task of their own. One
/// that is dropped before it ends, because its client went away, becomes a task and is settled like any other.
pub struct Work {
    id: RequestId,
    tasks: Tasks,
    span: Span,
    state: State,
}

/// What came of it, or what it panicked with.
type End = Result<Finished, Box<dyn Any + Send>>;

enum State {
    Here(Pin<Box<dyn Future<Output = End> + Send>>),
    Task(JoinHandle<End>),
    Over,
}

impl Work {
    /// Work that has not begun, on the request of this id.
    pub fn new(tasks: &Tasks, id: RequestId, work: impl Future<Output = Finished> + Send + 'static) -> Self {
        let work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        Self { id, tasks: tasks.clone(), span: Span::current(), state: State::Here(work) }
    }

    /// Makes it a task, which a stream beside it cannot hold up and which cannot hold up the stream.
    pub fn detach(&mut self) {
        self.state = match mem::replace(&mut self.state, State::Over) {
            State::Here(work) => State::Task(self.tasks.spawn(work.instrument(self.span.clone()))),
            other => other,
        };
    }

    /// The answer where there is none. Panics of tools are caught further in; one of our own ends here, and its own text
    /// is in the log.
    fn lost(&self) -> Finished {
        let correlation = CallId::new();
        tracing::error!(%correlation, "a request ended without an answer");
        let text = jsonrpc::error_response(Some(&self.id), &RpcError::internal(&correlation));
        Finished { text: Some(text), status: 200, retry_after: None, limit: None }
    }
}

impl Future for Work {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        let finished = match &mut self.state {
            State::Here(work) => ready!(work.as_mut().poll(cx)).ok(),
            State::Task(task) => ready!(Pin::new(task).poll(cx)).ok().and_then(Result::ok),
            State::Over => None,
        };
        self.state = State::Over;
        Poll::Ready(finished.unwrap_or_else(|| self.lost()))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Without a runtime there is nothing left to run on, and spawning would panic.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.detach();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Notify, oneshot};

    use super::*;

    fn finished(text: &str) -> Finished {
        Finished { text: Some(text.to_owned()), status: 200, retry_after: None, limit: None }
    }

    fn work(tasks: &Tasks, work: impl Future<Output = Finished> + Send + 'static) -> Work {
        Work::new(tasks, RequestId::integer(7), work)
    }

    #[tokio::test]
    async fn what_ends_while_it_is_waited_for_is_no_task() {
        let tasks = Tasks::new();
        let inside = tasks.clone();
        let done = work(&tasks, async move {
            tokio::task::yield_now().await;
            assert_eq!(inside.running(), 0);
            finished("done")
        });
        assert_eq!(done.await.text.as_deref(), Some("done"));
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_goes_on() {
        let tasks = Tasks::new();
        let go = Arc::new(Notify::new());
        let (tell, told) = oneshot::channel();
        let waits = go.clone();
        let mut begun = work(&tasks, async move {
            waits.notified().await;
            let _ = tell.send(());
            finished("done")
        });
        assert!(futures_util::poll!(&mut begun).is_pending());
        drop(begun);
        assert_eq!(tasks.running(), 1);
        go.notify_one();
        told.await.expect("settled");
        tasks.shut_down().await;
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_here_and_in_a_task() {
        let tasks = Tasks::new();
        for detached in [false, true] {
            let mut panics = work(&tasks, async { panic!("seven") });
            if detached {
                panics.detach();
            }
            let text = panics.await.text.expect("an answer");
            assert!(
                text.contains("\"id\":7") && text.contains("-32603") && !text.contains("seven"),
                "{text}"
            );
        }
        tasks.shut_down().await;
    }
}

//! Questions to the client that wait for its answer. The answer comes as a message of its own, with the question's id.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Session;
use crate::id::QuestionId;
use crate::mcp::error::{RpcError, code};
use crate::mcp::jsonrpc::RequestId;

/// Questions of one session that may wait at once.
const MAX_QUESTIONS: usize = 64;

/// `result` or `error` of a response, as raw JSON.
pub(super) type Answer = Result<Bytes, Bytes>;

/// Questions that wait, by their ids.
#[derive(Default)]
pub(super) struct Questions(HashMap<RequestId, oneshot::Sender<Answer>>);

/// A question that waits. Dropping it gives it up; an answer that comes later is ignored.
pub struct Question {
    session: Arc<Session>,
    id: RequestId,
    answer: oneshot::Receiver<Answer>,
}

impl Session {
    /// Registers a question to the client under an id of its own.
    ///
    /// # Errors
    /// −31001 where too many wait already, −31004 where the session has ended.
    pub fn ask(self: &Arc<Self>) -> Result<Question, RpcError> {
        let mut inner = self.inner();
        if self.closed.is_cancelled() {
            return Err(RpcError::session_not_found());
        }
        let waiting = &mut inner.questions.0;
        if waiting.len() >= MAX_QUESTIONS {
            let text = format!("a session has at most {MAX_QUESTIONS} questions open; answer some first");
            return Err(RpcError::new(code::LIMITED, 200, text));
        }
        let replica = self.shared.as_ref().map(|shared| shared.peers.replicas.me());
        let id = RequestId::question(QuestionId::new(), replica);
        let (tell, answer) = oneshot::channel();
        waiting.insert(id.clone(), tell);
        Ok(Question { session: self.clone(), id, answer })
    }

    /// Takes the client's answer to a question that waits here; hands back one that nobody here waits for.
    pub(super) fn answered(&self, id: &RequestId, answer: Answer) -> Result<(), Answer> {
        let waiting = self.inner().questions.0.remove(id);
        let Some(waiting) = waiting else { return Err(answer) };
        let _ = waiting.send(answer);
        Ok(())
    }
}

impl Question {
    /// Its id on the wire.
    #[must_use]
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// The answer; nothing where the session ended first. Dropping the future loses nothing.
    pub async fn answer(&mut self) -> Option<Answer> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let mut inner = self.session.inner();
        inner.questions.0.remove(&self.id);
        if inner.questions.0.is_empty() {
            inner.questions.0 = HashMap::new();
        }
    }
}

//! What other replicas say of sessions, and what this one does about it.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use super::{Session, Sessions};
use crate::id::ReplicaId;
use crate::mcp::feed::StreamId;
use crate::mcp::jsonrpc::RequestId;
use crate::replicas::{Envelope, Message, SessionName};
use crate::telemetry::labels::SessionEnd;

/// Longest that a message of another replica is worked on.
const FLUSH: Duration = Duration::from_millis(200);

impl Sessions {
    /// Hears what another replica says of sessions. Whether it was about them.
    pub fn hear(self: &Arc<Self>, envelope: Envelope) {
        let Some(shared) = self.shared.clone() else { return };
        let me = shared.peers.replicas.me();
        if let Some(session) = subject(&envelope.message).and_then(|name| self.at(name)) {
            match &envelope.message {
                Message::Closed { .. } if envelope.from != me && self.forget(&session) => {
                    self.used_here(&session);
                }
                Message::Cancel { request, .. } => {
                    if let Ok(id) = RequestId::from_json(request) {
                        session.cancel(&id);
                    }
                }
                Message::Answer { question, is_error, value, .. } => {
                    if let Ok(id) = RequestId::from_json(question) {
                        let value = bytes::Bytes::from(value.get().to_owned());
                        let _ = session.answered(&id, if *is_error { Err(value) } else { Ok(value) });
                    }
                }
                Message::Left { number, heard, .. } if envelope.from != me => {
                    session.inner().streams.left_elsewhere(*number, *heard);
                    session.listeners_have_changed();
                }
                Message::News { stream, .. } => shared.news(session.name(), stream),
                // Here, and not in a task of its own: the order matters.
                Message::Say { text, must, .. } => return self.said(&session, text, *must),
                _ => {}
            }
        }
        let slow = matches!(
            envelope.message,
            Message::Settled { .. } | Message::Listening { .. } | Message::Take { .. } | Message::Say { .. }
        );
        if slow {
            let sessions = self.clone();
            shared.tasks.clone().spawn(async move {
                sessions.hear_slowly(&shared, &envelope).await;
                shared.peers.post.done(&envelope).await;
            });
        } else if envelope.ack.is_some() {
            shared.tasks.clone().spawn(async move { shared.peers.post.done(&envelope).await });
        }
    }

    /// What takes a look into Redis.
    async fn hear_slowly(self: &Arc<Self>, shared: &Arc<Shared>, envelope: &Envelope) {
        let Some(name) = subject(&envelope.message) else { return };
        let from_other = envelope.from != shared.peers.replicas.me();
        match &envelope.message {
            Message::Say { text, must, .. } => {
                if let Some(session) = self.load(name).await {
                    self.said(&session, text, *must);
                }
            }
            Message::Settled { .. } if from_other => {
                if let Some(session) = self.at(name)
                    && let Ok(Some(record)) = shared.load(name).await
                {
                    session.take_over(record);
                }
            }
            Message::Listening { number, .. } if from_other => {
                let Some(session) = self.at(name) else { return };
                let heard = session.inner().streams.opened_elsewhere(*number, envelope.from);
                if let Some(heard) = heard {
                    let _ = shared.heard(name, heard).await;
                }
            }
            Message::Take { stream, .. } => {
                let Some(session) = self.at(name) else { return };
                if from_other {
                    shared.unfollow(name, stream);
                }
                if session.hand_over(stream, envelope.from, shared.peers.replicas.me()) {
                    shared.peers.courier.flush(FLUSH).await;
                }
            }
            _ => {}
        }
    }

    /// A message for the client of an HTTP+SSE session whose stream should be here.
    fn said(self: &Arc<Self>, session: &Arc<Session>, text: &str, must: bool) {
        let Some(speaker) = session.speaker() else { return };
        if !must {
            speaker.say(text);
        } else if speaker.must(text).is_err() {
            self.close(session, SessionEnd::SlowReader);
        }
    }

    /// A replica is dead: what it held of sessions is held by nobody, and the clients of HTTP+SSE whose streams are here are
    /// told which of their requests died with it.
    pub async fn replica_died(&self, replica: ReplicaId) {
        for session in self.select(|_| true) {
            session.inner().streams.died(replica);
            session.listeners_have_changed();
            if let (Some(held), Some(shared)) = (session.held(), &self.shared) {
                shared.answer_for_the_dead(session.name(), &held).await;
            }
        }
    }
}

impl Session {
    /// Hands a stream over to another replica. Whether it was here.
    fn hand_over(&self, stream: &str, to: ReplicaId, me: ReplicaId) -> bool {
        let Ok(id) = stream.parse::<StreamId>() else { return false };
        match id {
            StreamId::Session(_) => {
                if let Some(outbound) = &self.outbound {
                    outbound.taken(to, me);
                }
                true
            }
            _ if to == me => false,
            StreamId::Reply(_) => {
                let feed = self.feed(id);
                feed.inspect(|feed| feed.read_at(to)).is_some()
            }
            StreamId::Listen(_) => {
                let feed = self.inner().streams.take(id);
                feed.inspect(|feed| feed.retire()).is_some()
            }
        }
    }
}

/// Which session a message is about.
fn subject(message: &Message) -> Option<SessionName> {
    match message {
        Message::Closed { session }
        | Message::Settled { session }
        | Message::Cancel { session, .. }
        | Message::Answer { session, .. }
        | Message::Listening { session, .. }
        | Message::Left { session, .. }
        | Message::Take { session, .. }
        | Message::News { session, .. }
        | Message::Say { session, .. } => Some(*session),
        Message::Hello
        | Message::Died { .. }
        | Message::Dropped
        | Message::Invalidated
        | Message::Recall { .. }
        | Message::Changed { .. }
        | Message::Ack { .. } => None,
    }
}

//! What replicas tell each other. Small, but for [`Message::Say`] and [`Message::Answer`], which go to one replica only.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::{ReplicaId, SessionRowId, TenantId};

/// A session, by what every replica knows it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionName {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its row.
    pub row: SessionRowId,
}

/// One message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// A replica has started or stops.
    Hello,
    /// A replica is dead, and what it held was given back.
    Died {
        /// Which.
        replica: ReplicaId,
    },
    /// The sender could not say something that it had to say: whoever hears this has missed it.
    Dropped,
    /// Rows of invalidations were written: look at once.
    Invalidated,
    /// The sender was refused a place of this tenant: give back those that are not used.
    Recall {
        /// Which tenant.
        tenant: TenantId,
    },
    /// A catalogue or a resource changed.
    Changed {
        /// Only for this tenant.
        tenant: Option<TenantId>,
        /// The server that it belongs to.
        server: Box<str>,
        /// `tools`, `prompts`, `resources`, or `resource`.
        what: Box<str>,
        /// Which resource.
        uri: Option<Box<str>>,
    },
    /// A session ended.
    Closed {
        /// Which.
        session: SessionName,
    },
    /// What a session settled is different now: read it again.
    Settled {
        /// Which.
        session: SessionName,
    },
    /// `notifications/cancelled`.
    Cancel {
        /// In which session.
        session: SessionName,
        /// The id of the request, as JSON.
        request: Box<RawValue>,
    },
    /// The client's answer to a question that the receiver waits with.
    Answer {
        /// In which session.
        session: SessionName,
        /// The question's id, as JSON.
        question: Box<RawValue>,
        /// `result`, or `error`.
        is_error: bool,
        /// It, as JSON.
        value: Box<RawValue>,
    },
    /// A stream that carries the session's notifications was opened elsewhere: be silent, and write down what was heard.
    Listening {
        /// In which session.
        session: SessionName,
        /// The stream's number among those of the session.
        number: u32,
    },
    /// A stream that carried the session's notifications is gone.
    Left {
        /// In which session.
        session: SessionName,
        /// The stream's number.
        number: u32,
        /// Up to where the session has heard.
        heard: u64,
    },
    /// The sender wants to read a stream on: hand it over, or tell of what it still says.
    Take {
        /// In which session.
        session: SessionName,
        /// The stream's id.
        stream: Box<str>,
    },
    /// A stream that the receiver reads has said more, or has ended.
    News {
        /// In which session.
        session: SessionName,
        /// The stream's id.
        stream: Box<str>,
    },
    /// A message for the client of an HTTP+SSE session whose stream the receiver holds.
    Say {
        /// Which session.
        session: SessionName,
        /// The message.
        text: Box<str>,
        /// It must arrive; otherwise it may be dropped where there is no room.
        must: bool,
    },
    /// The sender is done with a message that asked to be told so.
    Ack {
        /// The number that stood in the message.
        number: u64,
    },
}

/// A message on its way.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// Who sent it.
    pub from: ReplicaId,
    /// To be quoted in an [`Message::Ack`] when the receiver is done with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<u64>,
    /// The message.
    #[serde(rename = "m")]
    pub message: Message,
}

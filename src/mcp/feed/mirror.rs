//! The mirror of a feed in Redis: what it keeps, so that a client can come back to it at any replica, also when the one
//! that speaks is gone.
//!
//! A Redis stream per feed, bounded as the feed itself is: what the feed gives up is taken out there. `0-1` says who
//! speaks and which request is answered, `1-N` is event N, `2-1` the end. It outlives its replica by `mcp.replay_ms`.

use std::time::Duration;

use bytes::Bytes;
use redis::Pipeline;
use redis::streams::{StreamInfoStreamReply, StreamRangeReply};

use super::Event;
use crate::id::ReplicaId;
use crate::mcp::jsonrpc::RequestId;
use crate::redis::{Down, Redis};
use crate::replicas::{Courier, Message, Peers, SessionName};

/// Where a feed writes what it keeps.
pub struct Mirror {
    courier: Courier,
    key: String,
    time: Duration,
    me: ReplicaId,
    session: SessionName,
    stream: Box<str>,
}

/// What a mirror holds.
#[derive(Debug, Default)]
pub struct Log {
    /// The number of the replica that speaks.
    pub speaker: Option<u32>,
    /// The request that is answered.
    pub request: Option<RequestId>,
    /// Events and their numbers, in order.
    pub events: Vec<(u64, Bytes)>,
    /// The number of the event that was said last, as far as that is known.
    pub last: u64,
    /// The place on the bus up to which its events tell of changes.
    pub place: Option<u64>,
    /// Nothing more will be said.
    pub ended: bool,
}

impl Mirror {
    /// A mirror for a stream of this session. What it holds is kept for `time` after the last word.
    #[must_use]
    pub fn new(peers: &Peers, session: SessionName, stream: String, time: Duration) -> Self {
        Self {
            courier: peers.courier.clone(),
            key: peers.redis.keys().feed(session.tenant, session.row, &stream),
            time,
            me: peers.replicas.me(),
            session,
            stream: stream.into(),
        }
    }

    fn add(&self, pipeline: &mut Pipeline, id: &str, fields: &[(&str, &[u8])]) {
        let add = pipeline.cmd("XADD").arg(&self.key).arg(id);
        for (name, value) in fields {
            add.arg(*name).arg(*value);
        }
        add.ignore();
    }

    fn send(&self, mut pipeline: Pipeline, bytes: usize) {
        let time = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
        pipeline.cmd("PEXPIRE").arg(&self.key).arg(time).ignore();
        self.courier.commands(&pipeline, bytes + self.key.len());
    }

    /// Writes down who speaks.
    pub(super) fn begin(&self, request: Option<&RequestId>) {
        let mut pipeline = redis::pipe();
        let request = request.map_or("", RequestId::as_json);
        let number = self.me.number().to_string();
        self.add(&mut pipeline, "0-1", &[("b", number.as_bytes()), ("q", request.as_bytes())]);
        self.send(pipeline, request.len());
    }

    /// Writes an event down, with the place on the bus that it tells of, and tells the replica that reads on.
    pub(super) fn event(&self, event: &Event, reader: Option<ReplicaId>) {
        let (mut pipeline, id) = (redis::pipe(), format!("1-{}", event.seq));
        match event.place {
            None => self.add(&mut pipeline, &id, &[("f", &event.frame)]),
            Some(place) => {
                self.add(&mut pipeline, &id, &[("f", &event.frame), ("p", place.to_string().as_bytes())]);
            }
        }
        self.send(pipeline, event.frame.len());
        self.news(reader);
    }

    /// Writes the end down, and tells the replica that reads on.
    pub(super) fn end(&self, last: u64, reader: Option<ReplicaId>) {
        let mut pipeline = redis::pipe();
        self.add(&mut pipeline, "2-1", &[("e", last.to_string().as_bytes())]);
        self.send(pipeline, 0);
        self.news(reader);
    }

    fn news(&self, reader: Option<ReplicaId>) {
        if let Some(reader) = reader {
            let (session, stream) = (self.session, self.stream.clone());
            self.courier.tell(reader, Message::News { session, stream });
        }
    }

    /// Takes out the events from `first` to `last`.
    pub(super) fn give_up(&self, first: u64, last: u64) {
        let mut pipeline = redis::pipe();
        let delete = pipeline.cmd("XDEL").arg(&self.key);
        for seq in first..=last {
            delete.arg(format!("1-{seq}"));
        }
        delete.ignore();
        self.courier.commands(&pipeline, self.key.len());
    }

    /// Keeps what is there for another while.
    pub(super) fn stay(&self) {
        self.send(redis::pipe(), 0);
    }

    /// Takes everything out.
    pub(super) fn forget(&self) {
        let mut pipeline = redis::pipe();
        pipeline.cmd("DEL").arg(&self.key).ignore();
        self.courier.commands(&pipeline, self.key.len());
    }
}

impl Log {
    /// Reads what the mirror of a stream holds after event `after`; nothing where there is no such stream.
    ///
    /// # Errors
    /// [`Down`].
    pub async fn read(
        redis: &Redis,
        session: SessionName,
        stream: &str,
        after: Option<u64>,
    ) -> Result<Option<Self>, Down> {
        let key = redis.keys().feed(session.tenant, session.row, stream);
        let from = after.map_or_else(|| "-".to_owned(), |seq| format!("(1-{seq}"));
        let mut range = redis::cmd("XRANGE");
        let reply: StreamRangeReply = redis.run(range.arg(&key).arg(from).arg("+")).await?;
        if reply.ids.is_empty() && after.is_none() {
            return Ok(None);
        }
        let mut log = Self::default();
        for entry in &reply.ids {
            match entry.id.split_once('-') {
                Some(("0", _)) => {
                    log.speaker = entry.get::<u32>("b");
                    log.request = entry.get::<String>("q").and_then(|json| RequestId::parse(&json).ok());
                }
                Some(("1", seq)) => {
                    if let (Ok(seq), Some(frame)) = (seq.parse(), entry.get::<Vec<u8>>("f")) {
                        log.last = seq;
                        log.place = log.place.max(entry.get::<u64>("p"));
                        log.events.push((seq, frame.into()));
                    }
                }
                _ => {
                    log.ended = true;
                    log.last = entry.get::<u64>("e").unwrap_or(log.last);
                }
            }
        }
        if after.is_none() && !log.ended && log.events.is_empty() {
            // All of it was given up; what the last one was is known still.
            let mut info = redis::cmd("XINFO");
            let info: StreamInfoStreamReply = redis.run(info.arg("STREAM").arg(&key)).await?;
            let last = info.last_generated_id.strip_prefix("1-").and_then(|seq| seq.parse().ok());
            log.last = last.unwrap_or(0);
        }
        Ok(Some(log))
    }
}

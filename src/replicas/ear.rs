//! The ear: reads the two streams of a replica, goes on where it was after the connection broke, and notices what is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use redis::aio::ConnectionLike;
use redis::streams::{StreamId, StreamInfoStreamReply, StreamRangeReply, StreamReadReply};
use redis::{Cmd, FromRedisValue, RedisResult};

use super::post::{self, Delivery, Heard, NUMBER};
use super::{Message, Replicas};
use crate::id::ReplicaId;
use crate::redis::{LONGEST_BLOCK, Redis};

/// How long the answer to a command may take, and to one that blocks beyond that.
const ANSWER: Duration = Duration::from_secs(1);
/// Messages of one stream that are read at once.
const BATCH: usize = 256;
/// Shortest and longest wait between two attempts to read; jitter comes on top.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// Senders whose numbers are remembered before it is looked which of them live.
const SENDERS: usize = 64;

/// The place before every entry of a stream.
const BEGINNING: Place = Place(0, 0);

/// A place in a stream: the id of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64, u64);

impl Place {
    fn parse(id: &str) -> Result<Self, Broken> {
        let (millis, seq) = id.split_once('-').ok_or(Broken)?;
        Ok(Self(millis.parse().map_err(|_| Broken)?, seq.parse().map_err(|_| Broken)?))
    }

    fn id(self) -> String {
        format!("{}-{}", self.0, self.1)
    }

    fn next(self) -> Self {
        Self(self.0, self.1.saturating_add(1))
    }

    /// As a number that grows.
    fn number(self) -> u64 {
        (self.0 << 20) | self.1.min(0xf_ffff)
    }
}

/// Reading does not go on over this connection.
struct Broken;

/// One of the two streams.
struct Stream {
    key: String,
    /// What was read last.
    at: Place,
    /// The number of the last message of each sender, of those with numbers. One that is not higher was heard.
    numbers: HashMap<ReplicaId, u64>,
}

impl Stream {
    fn new(key: String) -> Self {
        Self { key, at: BEGINNING, numbers: HashMap::new() }
    }

    /// Whether it was heard before: its sender did not know that it had arrived.
    fn is_repeated(&mut self, from: ReplicaId, number: Option<u64>, replicas: &Replicas) -> bool {
        let Some(number) = number else { return false };
        if self.numbers.len() > SENDERS {
            self.numbers.retain(|sender, _| replicas.lives(*sender));
        }
        let last = self.numbers.entry(from).or_default();
        let is_repeated = number <= *last;
        *last = number.max(*last);
        is_repeated
    }
}

/// Reads.
pub(super) struct Ear {
    redis: Redis,
    replicas: Arc<Replicas>,
    all: Stream,
    own: Stream,
    /// It is known where in the stream to all to read.
    is_placed: bool,
    /// What was read last when it was said that something is lost: it is not said twice.
    lost_at: Option<Place>,
    /// Something may have been said before that was known.
    is_late: bool,
    /// Something of the own stream was read and is there still.
    is_to_trim: bool,
}

impl Ear {
    pub(super) fn new(redis: Redis, replicas: Arc<Replicas>) -> Self {
        let keys = redis.keys();
        let (all, own) = (Stream::new(keys.to_all()), Stream::new(keys.to_one(replicas.me())));
        Self { redis, replicas, all, own, is_placed: false, lost_at: None, is_late: false, is_to_trim: false }
    }

    /// Reads for ever.
    pub(super) async fn listen(mut self, hear: impl Fn(Heard)) {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(RETRY.0)
            .with_max_delay(RETRY.1)
            .with_jitter()
            .without_max_times();
        let mut waits = backoff.build();
        let mut connected = self.redis.connected();
        loop {
            connected.borrow_and_update();
            if let Ok(mut held) = self.redis.own_connection().await {
                let reading = async {
                    self.settle(&mut held.connection, &hear).await?;
                    waits = backoff.build();
                    loop {
                        self.read(&mut held.connection, &hear).await?;
                    }
                };
                tokio::select! {
                    broken = reading => { let _: Result<(), Broken> = broken; }
                    // Commands go over a new connection: this one may lead to a server that is no longer the one.
                    _ = connected.changed() => continue,
                }
            }
            self.is_late = true;
            let wait = waits.next().unwrap_or(RETRY.1);
            let _ = tokio::time::timeout(wait, connected.changed()).await;
        }
    }

    /// Finds the places to read from, over a new connection.
    async fn settle(
        &mut self,
        connection: &mut impl ConnectionLike,
        hear: &impl Fn(Heard),
    ) -> Result<(), Broken> {
        let mut name = redis::cmd("CLIENT");
        name.arg("SETNAME").arg(format!("weir:{}", self.replicas.me()));
        // For whoever looks at the server; not all may.
        let _ = tokio::time::timeout(ANSWER, name.query_async::<()>(connection)).await;
        if self.is_placed {
            let found: StreamRangeReply = ask(connection, &self.look()).await?;
            if self.is_lost(&found) {
                hear(Heard::Missed);
                self.step_back(connection).await?;
            }
        } else {
            self.all.at = self.newest(connection).await?;
            self.is_placed = true;
            if self.is_late {
                hear(Heard::Missed);
            }
        }
        let mut exists = redis::cmd("EXISTS");
        if !ask::<bool>(connection, exists.arg(&self.own.key)).await? {
            self.own.at = BEGINNING;
            return Ok(());
        }
        let mut info = redis::cmd("XINFO");
        let info = ask::<StreamInfoStreamReply>(connection, info.arg("STREAM").arg(&self.own.key)).await?;
        let last = Place::parse(&info.last_generated_id)?;
        if last < self.own.at {
            self.own.at = last;
            hear(Heard::Missed);
        }
        Ok(())
    }

    /// Waits for something to come, and hears it.
    async fn read(
        &mut self,
        connection: &mut impl ConnectionLike,
        hear: &impl Fn(Heard),
    ) -> Result<(), Broken> {
        let (last, news) = self.wait(connection).await?;
        self.is_to_trim = false;
        let mut is_lost = self.is_lost(&last);
        if is_lost {
            hear(Heard::Missed);
            self.lost_at = Some(self.all.at);
        }
        for news in news.into_iter().flat_map(|news| news.keys) {
            let is_to_all = news.key == self.all.key;
            let stream = if is_to_all { &mut self.all } else { &mut self.own };
            for entry in &news.ids {
                stream.at = Place::parse(&entry.id)?;
                hear_entry(entry, stream, &self.replicas, is_to_all, hear);
            }
            is_lost &= !is_to_all;
            self.is_to_trim |= !is_to_all;
        }
        if is_lost {
            self.step_back(connection).await?;
        }
        Ok(())
    }

    /// Reads, and in the same round trip forgets what was read before, and looks whether what was read last is there still.
    async fn wait(
        &self,
        connection: &mut impl ConnectionLike,
    ) -> Result<(StreamRangeReply, Option<StreamReadReply>), Broken> {
        let mut pipeline = redis::pipe();
        if self.is_to_trim {
            pipeline.cmd("XTRIM").arg(&self.own.key).arg("MINID").arg(self.own.at.next().id()).ignore();
        }
        pipeline.add_command(self.look());
        let block = u64::try_from(LONGEST_BLOCK.as_millis()).unwrap_or(u64::MAX);
        pipeline.cmd("XREAD").arg("COUNT").arg(BATCH).arg("BLOCK").arg(block).arg("STREAMS");
        pipeline.arg(&self.all.key).arg(&self.own.key).arg(self.all.at.id()).arg(self.own.at.id());
        answer(LONGEST_BLOCK + ANSWER, pipeline.query_async(connection)).await
    }

    /// Asks for what was read last of the stream to all.
    fn look(&self) -> Cmd {
        let mut look = redis::cmd("XRANGE");
        look.arg(&self.all.key).arg(self.all.at.id()).arg(self.all.at.id());
        look
    }

    /// Whether what was read last of the stream to all is not there any more, and with it perhaps some of what came after.
    fn is_lost(&self, found: &StreamRangeReply) -> bool {
        found.ids.is_empty() && self.all.at != BEGINNING && self.lost_at != Some(self.all.at)
    }

    /// Where a server has less than was read, as one may that took over or has lost its memory, what comes next is less than
    /// that as well.
    async fn step_back(&mut self, connection: &mut impl ConnectionLike) -> Result<(), Broken> {
        self.lost_at = Some(self.all.at);
        self.all.at = self.newest(connection).await?.min(self.all.at);
        self.lost_at = Some(self.all.at);
        Ok(())
    }

    /// The place of the newest message to all.
    async fn newest(&self, connection: &mut impl ConnectionLike) -> Result<Place, Broken> {
        let mut newest = redis::cmd("XREVRANGE");
        newest.arg(&self.all.key).arg("+").arg("-").arg("COUNT").arg(1);
        let reply: StreamRangeReply = ask(connection, &newest).await?;
        reply.ids.first().map_or(Ok(BEGINNING), |entry| Place::parse(&entry.id))
    }
}

async fn ask<T: FromRedisValue>(connection: &mut impl ConnectionLike, command: &Cmd) -> Result<T, Broken> {
    answer(ANSWER, command.query_async(connection)).await
}

async fn answer<T>(limit: Duration, asked: impl Future<Output = RedisResult<T>>) -> Result<T, Broken> {
    match tokio::time::timeout(limit, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            tracing::debug!(%error, "what other replicas say cannot be read");
            Err(Broken)
        }
        Err(_) => Err(Broken),
    }
}

fn hear_entry(
    entry: &StreamId,
    stream: &mut Stream,
    replicas: &Replicas,
    is_to_all: bool,
    hear: &impl Fn(Heard),
) {
    let Some(envelope) = post::read(entry) else {
        tracing::error!(id = %entry.id, "a message of another replica cannot be read; skipped");
        return;
    };
    if stream.is_repeated(envelope.from, entry.get(NUMBER), replicas) {
        return;
    }
    hear(match envelope.message {
        Message::Dropped => Heard::Missed,
        _ => Heard::Message(Delivery { position: is_to_all.then(|| stream.at.number()), envelope }),
    });
}

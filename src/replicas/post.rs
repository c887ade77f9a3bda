//! The post between replicas: two Redis streams, one that all read and one per replica.
//!
//! A stream and not publish/subscribe, because a reader whose connection broke goes on where it was; where what it has not
//! read is gone, it says so ([`Heard::Missed`]), and whoever keeps something by what it heard must look again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Pipeline;
use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use tokio::sync::oneshot;

use super::{Envelope, Message, Replicas};
use crate::id::ReplicaId;
use crate::redis::{Connection, Down, Redis};

/// Messages to all that are kept for a reader that was away, about.
const KEPT: usize = 8192;
/// Messages to one that may wait, about.
const WAITING: usize = 8192;
/// How long what waits for one replica outlives it, in seconds.
const OUTLIVES: u64 = 120;
/// How long one read waits for something. Below the time that the client library gives an answer.
const BLOCK_MS: u64 = 400;
/// How long the answer to a read may take beyond that.
const ANSWER: Duration = Duration::from_secs(1);
/// Messages read at once.
const BATCH: usize = 256;
/// How long to wait until others are done with a message.
const ACK: Duration = Duration::from_millis(250);
/// How long to wait before reading again after Redis went away.
const AWAY: Duration = Duration::from_millis(50);

/// A message that came.
#[derive(Debug)]
pub struct Delivery {
    /// Where it stands in the stream that all read; grows. Nothing where it came to this replica alone.
    pub position: Option<u64>,
    /// Who sent it, and what to do when done.
    pub envelope: Envelope,
}

/// What a reader hears.
#[derive(Debug)]
pub enum Heard {
    /// A message; of this replica's own only those to all.
    Message(Delivery),
    /// Messages are gone that were not read.
    Missed,
}

/// A place in the stream that all read, as a number that grows.
fn position(id: &str) -> Option<u64> {
    let (millis, seq) = id.split_once('-')?;
    let (millis, seq) = (millis.parse::<u64>().ok()?, seq.parse::<u64>().ok()?);
    Some((millis << 20) | seq.min(0xf_ffff))
}

/// Who has yet to say that it is done.
struct Waiting {
    left: HashSet<ReplicaId>,
    done: oneshot::Sender<()>,
}

/// Sends messages, and reads those that come.
pub struct Post {
    redis: Redis,
    replicas: Arc<Replicas>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

impl Post {
    /// The post of this replica.
    #[must_use]
    pub fn new(redis: Redis, replicas: Arc<Replicas>) -> Self {
        Self { redis, replicas, next: AtomicU64::new(1), waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self, message: Message, ack: Option<u64>) -> Result<String, Down> {
        let envelope = Envelope { from: self.replicas.me(), ack, message };
        serde_json::to_string(&envelope).map_err(|_| Down)
    }

    /// Tells every replica, this one included.
    ///
    /// # Errors
    /// [`Down`]: nobody was told.
    pub async fn tell_all(&self, message: Message) -> Result<(), Down> {
        self.send_all(self.text(message, None)?).await
    }

    async fn send_all(&self, text: String) -> Result<(), Down> {
        self.redis.pipe(&self.pipe_to_all(text)).await
    }

    fn pipe_to_all(&self, text: String) -> Pipeline {
        let key = self.redis.keys().to_all();
        let mut pipeline = redis::pipe();
        pipeline.cmd("XADD").arg(&key).arg("MAXLEN").arg("~").arg(KEPT).arg("*").arg("m").arg(text).ignore();
        pipeline.cmd("EXPIRE").arg(&key).arg(86_400).ignore();
        pipeline
    }

    fn pipe_to(&self, replica: ReplicaId, text: String) -> Pipeline {
        let key = self.redis.keys().to_one(replica);
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("XADD")
            .arg(&key)
            .arg("MAXLEN")
            .arg("~")
            .arg(WAITING)
            .arg("*")
            .arg("m")
            .arg(text)
            .ignore();
        pipeline.cmd("EXPIRE").arg(&key).arg(OUTLIVES).ignore();
        pipeline
    }

    /// What tells every replica, and about how many bytes it is.
    pub(super) fn parcel_to_all(&self, message: Message) -> Result<(Pipeline, usize), Down> {
        let text = self.text(message, None)?;
        let bytes = text.len();
        Ok((self.pipe_to_all(text), bytes))
    }

    /// What tells one replica, and about how many bytes it is.
    pub(super) fn parcel_to(&self, replica: ReplicaId, message: Message) -> Result<(Pipeline, usize), Down> {
        let text = self.text(message, None)?;
        let bytes = text.len();
        Ok((self.pipe_to(replica, text), bytes))
    }

    /// Tells every replica, and waits until those that live, this one included, are done with it, for a quarter of a second
    /// at most: one that is stuck holds nobody up for longer.
    ///
    /// Returns who is not done.
    ///
    /// # Errors
    /// [`Down`]: nobody was told.
    pub async fn tell_all_and_wait(&self, message: Message) -> Result<Vec<ReplicaId>, Down> {
        let left: HashSet<_> = self.replicas.live().iter().copied().collect();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (done, all_done) = oneshot::channel();
        self.waiting().insert(number, Waiting { left, done });
        let sent = match self.text(message, Some(number)) {
            Ok(text) => self.send_all(text).await,
            Err(Down) => Err(Down),
        };
        if sent.is_ok() {
            let _ = tokio::time::timeout(ACK, all_done).await;
        }
        let silent = self.waiting().remove(&number).map(|waiting| waiting.left.into_iter().collect());
        sent.map(|()| silent.unwrap_or_default())
    }

    /// Tells one replica.
    ///
    /// # Errors
    /// [`Down`]: it was not told.
    pub async fn tell(&self, replica: ReplicaId, message: Message) -> Result<(), Down> {
        let text = self.text(message, None)?;
        self.redis.pipe(&self.pipe_to(replica, text)).await
    }

    /// Waits until this replica has heard everything that it was told alone, for a quarter of a second at most.
    pub async fn catch_up(&self) {
        let me = self.replicas.me();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (done, heard) = oneshot::channel();
        self.waiting().insert(number, Waiting { left: HashSet::from([me]), done });
        if self.tell(me, Message::Ack { number }).await.is_ok() {
            let _ = tokio::time::timeout(ACK, heard).await;
        }
        self.waiting().remove(&number);
    }

    /// Says that this replica is done with a message, if its sender waits for that.
    pub async fn done(&self, envelope: &Envelope) {
        if let Some(number) = envelope.ack {
            let _ = self.tell(envelope.from, Message::Ack { number }).await;
        }
    }

    /// Takes from what a dead replica was told, and has not read, the messages for which `wanted` holds.
    pub async fn take_left(&self, dead: ReplicaId, wanted: impl Fn(&Message) -> bool) -> Vec<Message> {
        let key = self.redis.keys().to_one(dead);
        let mut range = redis::cmd("XRANGE");
        range.arg(&key).arg("-").arg("+").arg("COUNT").arg(WAITING);
        let reply: StreamRangeReply = self.redis.run(&range).await.unwrap_or_default();
        let mut taken = Vec::new();
        for entry in reply.ids {
            let Some(envelope) = read(&entry).filter(|envelope| wanted(&envelope.message)) else { continue };
            let mut delete = redis::cmd("XDEL");
            if self.redis.run::<u32>(delete.arg(&key).arg(&entry.id)).await == Ok(1) {
                taken.push(envelope.message);
            }
        }
        taken
    }

    /// What a dead replica was told and has not read.
    pub async fn left_for(&self, dead: ReplicaId) -> Vec<Envelope> {
        let mut range = redis::cmd("XRANGE");
        range.arg(self.redis.keys().to_one(dead)).arg("-").arg("+").arg("COUNT").arg(WAITING);
        let reply: StreamRangeReply = self.redis.run(&range).await.unwrap_or_default();
        let envelopes = reply.ids.iter().filter_map(read);
        // Nobody waits for an answer that the dead one would have given.
        envelopes.map(|envelope| Envelope { ack: None, ..envelope }).collect()
    }

    /// Takes note that another replica is done.
    pub fn acked(&self, from: ReplicaId, number: u64) {
        let mut waiting = self.waiting();
        let Some(entry) = waiting.get_mut(&number) else { return };
        entry.left.remove(&from);
        if entry.left.is_empty()
            && let Some(entry) = waiting.remove(&number)
        {
            let _ = entry.done.send(());
        }
    }

    /// Reads for ever, and hands what comes to `hear`, one after the other. The first thing that is heard is what was said
    /// last before this replica came, as far as it is kept, but not what was said to all replicas of that time alone.
    pub async fn read(&self, hear: impl Fn(Heard)) {
        let keys = self.redis.keys();
        let names = [keys.to_all(), keys.to_one(self.replicas.me())];
        let mut last: Option<[String; 2]> = None;
        loop {
            let mut connected = self.redis.connected();
            connected.borrow_and_update();
            let outcome = match self.redis.own_connection().await {
                Ok(mut connection) => self.read_on(&mut connection, &names, &mut last, &hear).await,
                Err(Down) => Err(()),
            };
            if outcome.is_err() {
                tokio::time::sleep(AWAY).await;
            }
        }
    }

    async fn read_on(
        &self,
        connection: &mut Connection,
        names: &[String; 2],
        last: &mut Option<[String; 2]>,
        hear: &impl Fn(Heard),
    ) -> Result<(), ()> {
        let at = match last {
            Some(at) => at,
            None => {
                let newest = self.newest(connection, &names[0]).await?;
                last.insert([newest, "0-0".to_owned()])
            }
        };
        let mut name = redis::cmd("CLIENT");
        name.arg("SETNAME").arg(format!("weir:{}", self.replicas.me()));
        let _ = name.query_async::<()>(connection).await;
        let mut unsure = true;
        loop {
            if unsure && !self.is_there(connection, &names[0], &at[0]).await? {
                hear(Heard::Missed);
            }
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(BATCH).arg("BLOCK").arg(BLOCK_MS).arg("STREAMS");
            read.arg(names).arg(&*at);
            let limit = Duration::from_millis(BLOCK_MS) + ANSWER;
            let reading = read.query_async::<Option<StreamReadReply>>(connection);
            let Ok(Ok(reply)) = tokio::time::timeout(limit, reading).await else { return Err(()) };
            unsure = false;
            for stream in reply.into_iter().flat_map(|reply| reply.keys) {
                let place = usize::from(stream.key != names[0]);
                unsure |= place == 0 && stream.ids.len() == BATCH;
                if let Some(newest) = stream.ids.last() {
                    at[place].clone_from(&newest.id);
                }
                for entry in &stream.ids {
                    self.hear_entry(entry, place == 0, hear);
                }
                if place == 1 {
                    let mut trim = redis::cmd("XTRIM");
                    trim.arg(&names[1]).arg("MINID").arg(next_id(&at[1]));
                    let _ = trim.query_async::<()>(connection).await;
                }
            }
        }
    }

    fn hear_entry(&self, entry: &StreamId, to_all: bool, hear: &impl Fn(Heard)) {
        let parsed =
            entry.get::<Vec<u8>>("m").and_then(|text| serde_json::from_slice::<Envelope>(&text).ok());
        let Some(envelope) = parsed else {
            tracing::error!(id = %entry.id, "a message of another replica cannot be read; skipped");
            return;
        };
        let position = if to_all { position(&entry.id) } else { None };
        hear(Heard::Message(Delivery { position, envelope }));
    }

    /// The id of the newest message to all.
    async fn newest(&self, connection: &mut Connection, name: &str) -> Result<String, ()> {
        let mut newest = redis::cmd("XREVRANGE");
        newest.arg(name).arg("+").arg("-").arg("COUNT").arg(1);
        let reply: StreamRangeReply = newest.query_async(connection).await.map_err(|_| ())?;
        Ok(reply.ids.into_iter().next().map_or_else(|| "0-0".to_owned(), |entry| entry.id))
    }

    /// Whether the message that was read last is kept still, and with it everything after it.
    async fn is_there(&self, connection: &mut Connection, name: &str, id: &str) -> Result<bool, ()> {
        if id == "0-0" {
            return Ok(true);
        }
        let mut look = redis::cmd("XRANGE");
        look.arg(name).arg(id).arg(id);
        let reply: StreamRangeReply = look.query_async(connection).await.map_err(|_| ())?;
        Ok(!reply.ids.is_empty())
    }
}

fn read(entry: &StreamId) -> Option<Envelope> {
    serde_json::from_slice(&entry.get::<Vec<u8>>("m")?).ok()
}

/// The id after this one.
fn next_id(id: &str) -> String {
    match id.split_once('-').and_then(|(millis, seq)| Some((millis, seq.parse::<u64>().ok()?))) {
        Some((millis, seq)) => format!("{millis}-{}", seq.saturating_add(1)),
        None => id.to_owned(),
    }
}

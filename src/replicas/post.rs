//! The post between replicas: two Redis streams, one that all read and one per replica.
//!
//! A stream and not publish/subscribe, because a reader whose connection broke goes on where it was; where what it has not
//! read is gone, it says so ([`Heard::Missed`]), and whoever keeps something by what it heard must look again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::streams::{StreamId, StreamRangeReply};
use redis::{Cmd, Pipeline};
use tokio::sync::oneshot;

use super::ear::Ear;
use super::{Envelope, Message, Replicas};
use crate::id::ReplicaId;
use crate::redis::keys::Keys;
use crate::redis::{Down, Redis};

/// Messages to all that are kept for a reader that was away, about.
const KEPT: usize = 8192;
/// How long they are kept after the last one, in seconds.
const KEPT_FOR: u64 = 86_400;
/// Messages to one that may wait, about.
const WAITING: usize = 8192;
/// How long what waits for one replica outlives it, in seconds.
const OUTLIVES: u64 = 120;
/// Messages of a dead replica that are read at once.
const LEFT_AT_ONCE: usize = 256;
/// How long to wait until others are done with a message.
const ACK: Duration = Duration::from_millis(250);

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

/// What an entry's fields are called: the text, and its number among those that the courier of its sender delivers.
pub(super) const TEXT: &str = "m";
pub(super) const NUMBER: &str = "n";

/// Commands that tell one message.
pub(super) const COMMANDS: usize = 2;

/// The commands that tell a message to one replica or to all. What has a number may be told twice and is heard once.
pub(super) fn told(keys: &Keys, to: Option<ReplicaId>, text: &str, number: Option<u64>) -> [Cmd; COMMANDS] {
    let (key, length, time) = match to {
        None => (keys.to_all(), KEPT, KEPT_FOR),
        Some(replica) => (keys.to_one(replica), WAITING, OUTLIVES),
    };
    let mut add = redis::cmd("XADD");
    add.arg(&key).arg("MAXLEN").arg("~").arg(length).arg("*").arg(TEXT).arg(text);
    if let Some(number) = number {
        add.arg(NUMBER).arg(number);
    }
    let mut expire = redis::cmd("EXPIRE");
    expire.arg(&key).arg(time);
    [add, expire]
}

/// Who has yet to say that it is done.
struct Waiting {
    left: HashSet<ReplicaId>,
    done: oneshot::Sender<()>,
}

/// A place among those who wait, given back with this value.
struct Place<'a> {
    post: &'a Post,
    number: u64,
}

impl Place<'_> {
    /// Waits no longer. Returns who is not done.
    fn give_up(self) -> Vec<ReplicaId> {
        let waiting = self.post.waiting().remove(&self.number);
        waiting.map_or_else(Vec::new, |waiting| waiting.left.into_iter().collect())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.post.waiting().remove(&self.number);
    }
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

    pub(super) fn text(&self, message: Message, ack: Option<u64>) -> Result<String, Down> {
        let envelope = Envelope { from: self.replicas.me(), ack, message };
        serde_json::to_string(&envelope).map_err(|_| Down)
    }

    async fn send(&self, to: Option<ReplicaId>, text: &str) -> Result<(), Down> {
        let mut pipeline = Pipeline::new();
        for command in told(self.redis.keys(), to, text, None) {
            pipeline.add_command(command).ignore();
        }
        self.redis.pipe(&pipeline).await
    }

    /// Tells every replica, this one included.
    ///
    /// # Errors
    /// [`Down`]: nobody was told, as far as is known.
    pub async fn tell_all(&self, message: Message) -> Result<(), Down> {
        self.send(None, &self.text(message, None)?).await
    }

    /// Tells every replica, and waits until those that live, this one included, are done with it, for a quarter of a second
    /// at most: one that is stuck holds nobody up for longer. Returns who is not done.
    ///
    /// # Errors
    /// [`Down`]: nobody was told, as far as is known.
    pub async fn tell_all_and_wait(&self, message: Message) -> Result<Vec<ReplicaId>, Down> {
        let (place, all_done) = self.wait_for(self.replicas.live().iter().copied().collect());
        self.send(None, &self.text(message, Some(place.number))?).await?;
        let _ = tokio::time::timeout(ACK, all_done).await;
        Ok(place.give_up())
    }

    /// Waits until this replica has heard everything that it was told alone, for a quarter of a second at most.
    pub async fn catch_up(&self) {
        let me = self.replicas.me();
        let (place, heard) = self.wait_for(HashSet::from([me]));
        if self.tell(me, Message::Ack { number: place.number }).await.is_ok() {
            let _ = tokio::time::timeout(ACK, heard).await;
        }
    }

    fn wait_for(&self, left: HashSet<ReplicaId>) -> (Place<'_>, oneshot::Receiver<()>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (done, all_done) = oneshot::channel();
        self.waiting().insert(number, Waiting { left, done });
        (Place { post: self, number }, all_done)
    }

    /// Tells one replica.
    ///
    /// # Errors
    /// [`Down`]: it was not told, as far as is known.
    pub async fn tell(&self, replica: ReplicaId, message: Message) -> Result<(), Down> {
        self.send(Some(replica), &self.text(message, None)?).await
    }

    /// Says that this replica is done with a message, if its sender waits for that.
    pub async fn done(&self, envelope: &Envelope) {
        if let Some(number) = envelope.ack {
            let _ = self.tell(envelope.from, Message::Ack { number }).await;
        }
    }

    /// Takes from what a dead replica was told, and has not read, the messages for which `wanted` holds. Of several that take
    /// the same one has it. What cannot be taken because Redis is away stays.
    pub async fn take_left(&self, dead: ReplicaId, wanted: impl Fn(&Message) -> bool) -> Vec<Message> {
        let key = self.redis.keys().to_one(dead);
        let mut taken = Vec::new();
        for (id, envelope) in self.left(dead).await.unwrap_or_default() {
            if !wanted(&envelope.message) {
                continue;
            }
            let mut delete = redis::cmd("XDEL");
            if self.redis.run::<u32>(delete.arg(&key).arg(&id)).await == Ok(1) {
                taken.push(envelope.message);
            }
        }
        taken
    }

    /// What a dead replica was told and has not read.
    ///
    /// # Errors
    /// [`Down`]: it must not be [buried](Replicas::bury) yet.
    pub async fn left_for(&self, dead: ReplicaId) -> Result<Vec<Envelope>, Down> {
        let left = self.left(dead).await?;
        // Nobody waits for an answer that the dead one would have given.
        Ok(left.into_iter().map(|(_, envelope)| Envelope { ack: None, ..envelope }).collect())
    }

    async fn left(&self, dead: ReplicaId) -> Result<Vec<(String, Envelope)>, Down> {
        let key = self.redis.keys().to_one(dead);
        let (mut left, mut from) = (Vec::new(), "-".to_owned());
        loop {
            let mut range = redis::cmd("XRANGE");
            range.arg(&key).arg(&from).arg("+").arg("COUNT").arg(LEFT_AT_ONCE);
            let reply: StreamRangeReply = self.redis.run(&range).await?;
            let next = reply.ids.last().map(|last| format!("({}", last.id));
            let is_all = reply.ids.len() < LEFT_AT_ONCE;
            left.extend(reply.ids.into_iter().filter_map(|entry| Some((entry.id.clone(), read(&entry)?))));
            match next {
                Some(next) if !is_all => from = next,
                _ => return Ok(left),
            }
        }
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

    /// Reads for ever, and hands what comes to `hear`, one after the other: what is said to all from now on, and whatever
    /// was said to this replica.
    pub async fn read(&self, hear: impl Fn(Heard)) {
        Ear::new(self.redis.clone(), self.replicas.clone()).listen(hear).await;
    }
}

/// The message in an entry.
pub(super) fn read(entry: &StreamId) -> Option<Envelope> {
    serde_json::from_slice(&entry.get::<Vec<u8>>(TEXT)?).ok()
}

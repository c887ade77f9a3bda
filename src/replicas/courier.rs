//! The courier: takes what a replica wants to say to others, or to write down for them, and delivers it, many things in one
//! round trip. Whoever hands something over does not wait.
//!
//! Commands on one key run in the order in which they were handed over, messages arrive in theirs, and what a message is
//! about is written down before it arrives. What is not known to have arrived is tried again and has the effect of having
//! arrived once: messages are numbered, and commands must be of that kind. While Redis is away the courier tries for a while.
//! What has waited for too long is dropped and counted, and all replicas are told that they have missed something; what
//! this replica should have written down it must write down again ([`Courier::has_dropped`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use redis::{Cmd, Pipeline};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Message, Post, post};
use crate::id::ReplicaId;
use crate::redis::{Outcome, Redis};
use crate::telemetry::metrics::Metrics;

/// Parcels that may wait.
const WAITING: usize = 8192;
/// Bytes that may wait.
const WAITING_BYTES: usize = 64 * 1024 * 1024;
/// Parcels that go in one round trip, and their bytes, about. They hold up what else goes over the connection.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 512 * 1024;
/// How long a parcel may wait to be delivered.
const TRIES: Duration = Duration::from_secs(5);
/// Shortest and longest wait between two tries; jitter comes on top.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How often others are told that something was dropped: they then look at everything.
const CONFESS: Duration = Duration::from_secs(1);

struct Parcel {
    what: What,
    /// About how many it is.
    bytes: usize,
    since: Instant,
    /// It was tried before, and may have been delivered.
    tried: bool,
}

enum What {
    Commands(Vec<Cmd>),
    /// A message as text, to one or to all. It gets its number when it is tried first.
    Message {
        to: Option<ReplicaId>,
        text: String,
        number: Option<u64>,
    },
    Flush(oneshot::Sender<()>),
}

/// What the courier and its round share.
struct Shelf {
    bytes: AtomicUsize,
    /// A message was dropped, and the others do not know.
    owes: AtomicBool,
    /// Commands were dropped.
    has_dropped: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Shelf {
    /// Takes note that something is given up.
    fn dropped(&self, what: &What) {
        match what {
            What::Commands(_) => self.has_dropped.store(true, Ordering::Release),
            What::Message { .. } => self.owes.store(true, Ordering::Release),
            What::Flush(_) => return,
        }
        self.metrics.messages_dropped.inc();
    }

    fn done(&self, parcel: Parcel) {
        self.bytes.fetch_sub(parcel.bytes, Ordering::Relaxed);
        if let What::Flush(waiting) = parcel.what {
            let _ = waiting.send(());
        }
    }
}

/// Where parcels are handed over. Cheap to clone.
#[derive(Clone)]
pub struct Courier {
    queue: mpsc::Sender<Parcel>,
    shelf: Arc<Shelf>,
    post: Arc<Post>,
}

/// What delivers them; must be [run](Round::run).
pub struct Round {
    queue: mpsc::Receiver<Parcel>,
    batch: VecDeque<Parcel>,
    /// The number that was given out last.
    number: u64,
    next_confession: Instant,
    shelf: Arc<Shelf>,
    redis: Redis,
    post: Arc<Post>,
}

impl Courier {
    /// A courier and its round.
    #[must_use]
    pub fn new(redis: Redis, post: Arc<Post>, metrics: Arc<Metrics>) -> (Self, Round) {
        let (queue, reader) = mpsc::channel(WAITING);
        let shelf = Arc::new(Shelf {
            bytes: AtomicUsize::new(0),
            owes: AtomicBool::new(false),
            has_dropped: AtomicBool::new(false),
            metrics,
        });
        let round = Round {
            queue: reader,
            batch: VecDeque::new(),
            number: 0,
            next_confession: Instant::now(),
            shelf: shelf.clone(),
            redis,
            post: post.clone(),
        };
        (Self { queue, shelf, post }, round)
    }

    /// Hands commands over, of about so many bytes. To do them twice must be the same as to do them once. Whether there was
    /// room.
    pub fn commands(&self, commands: &Pipeline, bytes: usize) -> bool {
        self.hand_over(What::Commands(commands.cmd_iter().cloned().collect()), bytes)
    }

    /// Hands over a message to every replica. Whether there was room.
    pub fn tell_all(&self, message: Message) -> bool {
        self.message(None, message)
    }

    /// Hands over a message to one replica. Whether there was room.
    pub fn tell(&self, replica: ReplicaId, message: Message) -> bool {
        self.message(Some(replica), message)
    }

    fn message(&self, to: Option<ReplicaId>, message: Message) -> bool {
        let Ok(text) = self.post.text(message, None) else { return false };
        let bytes = text.len();
        self.hand_over(What::Message { to, text, number: None }, bytes)
    }

    fn hand_over(&self, what: What, bytes: usize) -> bool {
        let before = self.shelf.bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = before + bytes <= WAITING_BYTES;
        let parcel = Parcel { what, bytes, since: Instant::now(), tried: false };
        let left =
            if has_room { self.queue.try_send(parcel).err() } else { Some(TrySendError::Full(parcel)) };
        if let Some(TrySendError::Full(parcel) | TrySendError::Closed(parcel)) = &left {
            self.shelf.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shelf.dropped(&parcel.what);
        }
        left.is_none()
    }

    /// Waits until everything that was handed over so far is delivered or dropped, or for `limit`.
    pub async fn flush(&self, limit: Duration) {
        let (done, delivered) = oneshot::channel();
        let flushed = async {
            let parcel = Parcel { what: What::Flush(done), bytes: 0, since: Instant::now(), tried: false };
            if self.queue.send(parcel).await.is_ok() {
                let _ = delivered.await;
            }
        };
        let _ = tokio::time::timeout(limit, flushed).await;
    }

    /// Whether something was dropped since this was asked last: what this replica has written down may have gaps.
    #[must_use]
    pub fn has_dropped(&self) -> bool {
        self.shelf.has_dropped.swap(false, Ordering::AcqRel)
    }
}

impl Round {
    /// Delivers until `stop` fires and nothing waits.
    pub async fn run(mut self, stop: CancellationToken) {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(RETRY.0)
            .with_max_delay(RETRY.1)
            .with_jitter()
            .without_max_times();
        let mut waits = backoff.build();
        let mut connected = self.redis.connected();
        loop {
            if self.batch.is_empty() {
                let owes = self.shelf.owes.load(Ordering::Acquire);
                tokio::select! {
                    biased;
                    parcel = self.queue.recv() => match parcel {
                        Some(parcel) => self.batch.push_back(parcel),
                        None => return,
                    },
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep_until(self.next_confession), if owes && self.redis.is_up() => {}
                    _ = connected.changed(), if owes => {}
                }
            }
            self.fill();
            while self.drop_old() {
                self.fill();
            }
            if self.deliver().await {
                waits = backoff.build();
            } else {
                tokio::time::sleep(waits.next().unwrap_or(RETRY.1)).await;
            }
        }
    }

    /// Takes more parcels, as far as they go together.
    fn fill(&mut self) {
        let mut bytes: usize = self.batch.iter().map(|parcel| parcel.bytes).sum();
        while self.batch.len() < BATCH && bytes < BATCH_BYTES {
            let Ok(parcel) = self.queue.try_recv() else { return };
            bytes += parcel.bytes;
            self.batch.push_back(parcel);
        }
    }

    /// Drops what waits for too long. Whether there was something.
    fn drop_old(&mut self) -> bool {
        let count = self.batch.iter().take_while(|parcel| parcel.since.elapsed() > TRIES).count();
        for parcel in self.batch.drain(..count) {
            self.shelf.dropped(&parcel.what);
            self.shelf.done(parcel);
        }
        if count > 0 {
            tracing::warn!(parcels = count, "Redis could not be told something in time; dropped");
        }
        count > 0
    }

    /// Tries to deliver the batch. Whether all of it is gone; what is left is to be tried again.
    async fn deliver(&mut self) -> bool {
        let confession = self.confession();
        let (mut commands, mut messages) = (Vec::new(), confession.clone());
        for parcel in &mut self.batch {
            match &mut parcel.what {
                What::Commands(these) => commands.extend_from_slice(these),
                What::Message { to, text, number } => {
                    let number = *number.get_or_insert_with(|| {
                        self.number += 1;
                        self.number
                    });
                    messages.extend(post::told(self.redis.keys(), *to, text, Some(number)));
                }
                What::Flush(_) => {}
            }
        }
        let mut outcomes = Vec::new();
        if !(commands.is_empty() && messages.is_empty()) {
            outcomes = self.redis.deliver(commands, messages).await;
        }
        // In the order in which they were sent: commands, the confession, messages.
        let mut outcomes = outcomes.into_iter();
        let mut left = vec![false; self.batch.len()];
        for (parcel, left) in self.batch.iter_mut().zip(&mut left) {
            if let What::Commands(these) = &parcel.what {
                let count = these.len();
                *left = parcel.judge(&self.redis, &self.shelf, outcomes.by_ref().take(count));
            }
        }
        let has_confessed = self.has_confessed(&outcomes.by_ref().take(confession.len()).collect::<Vec<_>>());
        for (parcel, left) in self.batch.iter_mut().zip(&mut left) {
            if let What::Message { .. } = &parcel.what {
                *left = parcel.judge(&self.redis, &self.shelf, outcomes.by_ref().take(post::COMMANDS));
            }
        }
        self.put_away(&left) && has_confessed
    }

    /// The message that says that something was dropped, where it is due.
    fn confession(&mut self) -> Vec<Cmd> {
        if Instant::now() < self.next_confession || !self.shelf.owes.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let text = self.post.text(Message::Dropped, None);
        text.map_or_else(|_| Vec::new(), |text| post::told(self.redis.keys(), None, &text, None).to_vec())
    }

    /// Takes note of what became of the confession. Whether Redis has heard it, if only to refuse it.
    fn has_confessed(&mut self, outcomes: &[Outcome]) -> bool {
        let is_done = outcomes.iter().all(|outcome| *outcome == Outcome::Done);
        let is_heard = outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done | Outcome::Refused(_)));
        if !is_done {
            self.shelf.owes.store(true, Ordering::Release);
        }
        if is_heard && !outcomes.is_empty() {
            self.next_confession = Instant::now() + CONFESS;
        }
        is_heard
    }

    /// Keeps what is left. Whether there is nothing.
    fn put_away(&mut self, left: &[bool]) -> bool {
        let mut kept = VecDeque::new();
        for (parcel, left) in self.batch.drain(..).zip(left) {
            // Whoever waits for a flush waits for everything before it.
            let waits = matches!(parcel.what, What::Flush(_)) && !kept.is_empty();
            if *left || waits {
                kept.push_back(parcel);
            } else {
                self.shelf.done(parcel);
            }
        }
        self.batch = kept;
        self.batch.is_empty()
    }
}

impl Parcel {
    /// Takes note of what became of its commands. Whether it is to be tried again.
    fn judge(&mut self, redis: &Redis, shelf: &Shelf, outcomes: impl Iterator<Item = Outcome>) -> bool {
        let is_message = matches!(self.what, What::Message { .. });
        let (mut again, mut untouched, mut lost) = (false, true, false);
        for outcome in outcomes {
            match outcome {
                Outcome::Done => untouched = false,
                // Commands that were done before may be refused now, as too late.
                Outcome::Refused(error) if is_message || !self.tried => {
                    redis.refused(&error);
                    lost = is_message;
                }
                Outcome::Refused(_) => {}
                Outcome::NotDone => again = true,
                Outcome::Unknown => (again, untouched) = (true, false),
            }
        }
        if lost {
            shelf.dropped(&self.what);
        } else if untouched {
            // It may now come after others, whose numbers are higher.
            if let What::Message { number, .. } = &mut self.what {
                *number = None;
            }
        } else {
            self.tried = true;
        }
        again
    }
}

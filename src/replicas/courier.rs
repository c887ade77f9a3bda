//! The courier: takes what a replica wants to say to others, or to write down for them, and delivers it in order, many
//! things in one round trip. Whoever hands something over does not wait.
//!
//! While Redis is away the courier tries again for a while; what it cannot deliver by then is dropped and counted, and
//! written down again from memory, as far as it is state, when Redis is there again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use redis::Pipeline;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Message, Post};
use crate::id::ReplicaId;
use crate::redis::Redis;
use crate::telemetry::metrics::Metrics;

/// Parcels that may wait.
const WAITING: usize = 8192;
/// Bytes that may wait.
const WAITING_BYTES: usize = 64 * 1024 * 1024;
/// Parcels that go in one round trip, and their bytes, about.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How long a batch is tried.
const TRIES: Duration = Duration::from_secs(5);
/// Shortest and longest wait between two tries; jitter comes on top.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

enum Parcel {
    /// Commands, and about how many bytes they are.
    Commands(Pipeline, usize),
    Flush(oneshot::Sender<()>),
}

impl Parcel {
    fn bytes(&self) -> usize {
        match self {
            Self::Commands(_, bytes) => *bytes,
            Self::Flush(_) => 0,
        }
    }
}

/// Where parcels are handed over. Cheap to clone.
#[derive(Clone)]
pub struct Courier {
    queue: mpsc::Sender<Parcel>,
    waiting: Arc<AtomicUsize>,
    post: Arc<Post>,
    metrics: Arc<Metrics>,
}

/// What delivers them; must be [run](Round::run).
pub struct Round {
    queue: mpsc::Receiver<Parcel>,
    waiting: Arc<AtomicUsize>,
    redis: Redis,
    metrics: Arc<Metrics>,
}

impl Courier {
    /// A courier and its round.
    #[must_use]
    pub fn new(redis: Redis, post: Arc<Post>, metrics: Arc<Metrics>) -> (Self, Round) {
        let (queue, reader) = mpsc::channel(WAITING);
        let waiting = Arc::new(AtomicUsize::new(0));
        let round = Round { queue: reader, waiting: waiting.clone(), redis, metrics: metrics.clone() };
        (Self { queue, waiting, post, metrics }, round)
    }

    /// Hands commands over, of about so many bytes. Whether there was room.
    pub fn commands(&self, commands: Pipeline, bytes: usize) -> bool {
        let has_room = self.waiting.load(Ordering::Relaxed) < WAITING_BYTES;
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let taken = has_room && self.queue.try_send(Parcel::Commands(commands, bytes)).is_ok();
        if !taken {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.metrics.messages_dropped.inc();
        }
        taken
    }

    /// Hands over a message to every replica. Whether there was room.
    pub fn tell_all(&self, message: Message) -> bool {
        let Ok((pipeline, bytes)) = self.post.parcel_to_all(message) else { return false };
        self.commands(pipeline, bytes)
    }

    /// Hands over a message to one replica. Whether there was room.
    pub fn tell(&self, replica: ReplicaId, message: Message) -> bool {
        let Ok((pipeline, bytes)) = self.post.parcel_to(replica, message) else { return false };
        self.commands(pipeline, bytes)
    }

    /// Waits until everything that was handed over so far is delivered or dropped, or for `limit`.
    pub async fn flush(&self, limit: Duration) {
        let (done, delivered) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Parcel::Flush(done)).await.is_ok() {
                let _ = delivered.await;
            }
        };
        let _ = tokio::time::timeout(limit, flushed).await;
    }
}

impl Round {
    /// Delivers until `stop` fires and nothing waits.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                _ = self.queue.recv_many(&mut batch, BATCH) => {}
                () = stop.cancelled() => return,
            }
            if batch.is_empty() {
                return;
            }
            self.deliver(std::mem::take(&mut batch)).await;
        }
    }

    async fn deliver(&self, batch: Vec<Parcel>) {
        let mut done = Vec::new();
        let (mut pipeline, mut bytes, mut count) = (redis::pipe(), 0, 0_u64);
        let all: usize = batch.iter().map(Parcel::bytes).sum();
        for parcel in batch {
            match parcel {
                Parcel::Commands(commands, of_these) => {
                    commands.cmd_iter().for_each(|command| {
                        pipeline.add_command(command.clone()).ignore();
                    });
                    bytes += of_these;
                    count += 1;
                    if bytes > BATCH_BYTES {
                        self.send(&pipeline, count).await;
                        (pipeline, bytes, count) = (redis::pipe(), 0, 0);
                    }
                }
                Parcel::Flush(waiting) => done.push(waiting),
            }
        }
        if count > 0 {
            self.send(&pipeline, count).await;
        }
        self.waiting.fetch_sub(all, Ordering::Relaxed);
        for waiting in done {
            let _ = waiting.send(());
        }
    }

    async fn send(&self, pipeline: &Pipeline, parcels: u64) {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(RETRY.0)
            .with_max_delay(RETRY.1)
            .with_jitter()
            .with_total_delay(Some(TRIES))
            .without_max_times();
        let send = || async { self.redis.pipe::<()>(pipeline).await };
        if send.retry(backoff).await.is_err() {
            tracing::warn!(parcels, "other replicas could not be told something; dropped");
            self.metrics.messages_dropped.inc_by(parcels);
        }
    }
}

//! What a Redis that is slow, silent, gone, empty or not the right one does to those who use it. Each story has a Redis of
//! its own, and a way to it that breaks. They run where a recipe brings services, as everything about Redis does.

mod courier;
mod ear;
mod lane;
mod partition;
mod presence;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use weir::clock::Clock;
use weir::config::{self, Millis};
use weir::redis::Redis;
use weir::replicas::{Courier, Heard, Message, Post, Replicas};
use weir::tasks::Tasks;
use weir::telemetry::metrics::Metrics;

use crate::support::flavours::Server;
use crate::support::{eventually, within};

/// What all keys begin with.
const PREFIX: &str = "it";

/// One that uses Redis, as a replica does.
struct User {
    redis: Redis,
    metrics: Arc<Metrics>,
    replicas: Arc<Replicas>,
    post: Arc<Post>,
    courier: Courier,
    tasks: Tasks,
}

impl Drop for User {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

impl User {
    /// One that reaches the server there, and gives it so many milliseconds.
    async fn at(server: &Server, address: SocketAddr, timeout_ms: u64) -> Self {
        weir::egress::install_crypto();
        let config = config::Redis {
            url: server.url(address).into(),
            ca_file: None,
            prefix: PREFIX.to_owned(),
            timeout: Millis::new(timeout_ms),
            lease: Millis::new(1000),
        };
        let metrics = Arc::new(Metrics::new(Clock::system().now()).expect("metrics"));
        let redis = Redis::new(&config, metrics.clone()).expect("a client");
        let tasks = Tasks::new();
        tasks.spawn(redis.clone().supervise(tasks.stopping().clone()));
        let replicas = Arc::new(Replicas::new(redis.clone(), config.lease.get()));
        let post = Arc::new(Post::new(redis.clone(), replicas.clone()));
        let (courier, round) = Courier::new(redis.clone(), post.clone(), metrics.clone());
        tasks.spawn(round.run(tasks.stopping().clone()));
        let user = Self { redis, metrics, replicas, post, courier, tasks };
        user.is_served().await;
        user
    }

    /// Waits until Redis does what it is asked.
    async fn is_served(&self) {
        eventually("Redis", async || self.redis.is_up() && self.count().await).await;
    }

    /// Waits until it is known that Redis is away.
    async fn is_alone(&self) {
        eventually("Redis to be missed", async || !self.redis.is_up()).await;
    }

    /// Counts, in Redis. Whether that was done.
    async fn count(&self) -> bool {
        let mut count = redis::cmd("HINCRBY");
        self.redis.run::<u64>(count.arg("it:count").arg("n").arg(1)).await.is_ok()
    }

    /// Hears what is said from when this returns.
    async fn ear(&self) -> Ear {
        let (tell, heard) = mpsc::unbounded_channel();
        let (post, stop) = (self.post.clone(), self.tasks.stopping().clone());
        self.tasks.spawn(stop.run_until_cancelled_owned(async move {
            post.read(|heard| drop(tell.send(heard))).await;
        }));
        let mut ear = Ear(heard);
        // A word of its own shows when the reading has begun.
        eventually("the ear", async || {
            self.post.tell_all(Message::Hello).await.expect("Redis");
            tokio::time::timeout(std::time::Duration::from_millis(50), ear.0.recv()).await.is_ok()
        })
        .await;
        self.say(0).await;
        while ear.next().await != Some(0) {}
        ear
    }

    /// Says a number to all.
    async fn say(&self, number: u64) {
        self.post.tell_all(Message::Ack { number }).await.expect("Redis");
    }
}

/// What is heard.
struct Ear(mpsc::UnboundedReceiver<Heard>);

impl Ear {
    /// The next number that was said, or `None`: something was missed.
    async fn next(&mut self) -> Option<u64> {
        loop {
            match within("a word", self.0.recv()).await.expect("a reader") {
                Heard::Missed => return None,
                Heard::Message(delivery) => {
                    if let Message::Ack { number } = delivery.envelope.message {
                        return Some(number);
                    }
                }
            }
        }
    }

    /// Everything up to this number.
    async fn until(&mut self, last: u64) -> Vec<Option<u64>> {
        let mut heard = Vec::new();
        while heard.last() != Some(&Some(last)) {
            heard.push(self.next().await);
        }
        heard
    }
}

/// These numbers, said.
fn numbers(numbers: impl IntoIterator<Item = u64>) -> Vec<Option<u64>> {
    numbers.into_iter().map(Some).collect()
}

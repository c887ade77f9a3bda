//! What this process does because others of its deployment run beside it: renews its lease, hears what they say, cleans up
//! after the dead, and writes down again what Redis forgot.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::App;
use crate::config;
use crate::error::Result;
use crate::redis::Redis;
use crate::replicas::{Beat, Delivery, Heard, Message, Post, Replicas};
use crate::tasks::Tasks;
use crate::telemetry::metrics::Metrics;

/// How long a start waits for Redis. After it this replica serves without, until Redis is there.
const START: Duration = Duration::from_secs(3);

/// The other replicas, and what is shared with them.
pub struct Peers {
    /// The shared state.
    pub redis: Redis,
    /// Who there is.
    pub replicas: Arc<Replicas>,
    /// What they say.
    pub post: Arc<Post>,
}

impl Peers {
    /// Connects, where Redis is configured.
    ///
    /// # Errors
    /// Where the configuration cannot be used. That Redis does not answer is none: it may come later.
    pub(super) async fn join(
        config: &config::Redis,
        metrics: &Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<Option<Arc<Self>>> {
        if !config.is_configured() {
            return Ok(None);
        }
        let redis = Redis::new(config, metrics.clone())?;
        let mut connected = redis.connected();
        tasks.spawn(redis.clone().supervise(tasks.stopping().clone()));
        let replicas = Arc::new(Replicas::new(redis.clone(), config.lease.get()));
        let there = tokio::time::timeout(START, connected.wait_for(|count| *count > 0)).await;
        if there.is_err() || replicas.beat().await.is_err() {
            tracing::error!("Redis does not answer; this replica serves without it until it does");
        }
        let post = Arc::new(Post::new(redis.clone(), replicas.clone()));
        Ok(Some(Arc::new(Self { redis, replicas, post })))
    }
}

/// Starts what runs for the other replicas. It ends after everything that may still want to tell them something.
pub(super) fn spawn(app: &Arc<App>, peers: &Arc<Peers>) {
    let tasks = &app.last_tasks;
    let stop = tasks.stopping().clone();
    let (hearer, post) = (app.clone(), peers.post.clone());
    let listening = async move {
        post.read(|heard| hear(&hearer, heard)).await;
    };
    tasks.spawn(stop.clone().run_until_cancelled_owned(listening));
    tasks.spawn(stop.run_until_cancelled_owned(keep_lease(app.clone(), peers.clone())));
}

/// Renews the lease, also when somebody comes or goes.
async fn keep_lease(app: Arc<App>, peers: Arc<Peers>) {
    let _ = peers.post.tell_all(Message::Hello).await;
    let mut timer = tokio::time::interval(peers.replicas.interval());
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connected = peers.redis.connected();
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            _ = connected.changed() => {}
            () = app.hello.notified() => {}
        }
        if let Ok(beat) = peers.replicas.beat().await {
            app.metrics.replicas.set(i64::from(peers.replicas.count()));
            beaten(&app, &peers, beat);
        }
    }
}

fn beaten(app: &Arc<App>, peers: &Arc<Peers>, beat: Beat) {
    if beat.memory_lost {
        tracing::warn!("Redis has lost its memory; writing down again what is known here");
    }
    for dead in beat.dead {
        tracing::warn!(replica = %dead, "a replica died; giving back what it held");
        let peers = peers.clone();
        app.last_tasks.spawn(async move {
            let _ = peers.replicas.bury(dead).await;
        });
    }
}

fn hear(app: &Arc<App>, heard: Heard) {
    let Heard::Message(Delivery { position: _, envelope }) = heard else {
        return;
    };
    match envelope.message {
        Message::Hello => app.hello.notify_one(),
        Message::Ack { number } => {
            if let Some(peers) = &app.peers {
                peers.post.acked(envelope.from, number);
            }
        }
        _ => {}
    }
}

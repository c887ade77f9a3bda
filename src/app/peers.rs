//! What this process does because others of its deployment run beside it: renews its lease, hears what they say, cleans up
//! after the dead, and writes down again what Redis forgot.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::App;
use crate::config;
use crate::error::Result;
use crate::mcp::bus::{Change, Changed};
use crate::redis::Redis;
use crate::replicas::{Beat, Courier, Delivery, Heard, Message, Peers, Post, Replicas};
use crate::tasks::Tasks;
use crate::telemetry::metrics::Metrics;

/// How long a start waits for Redis. After it this replica serves without, until Redis is there.
const START: Duration = Duration::from_secs(3);
/// How long a stop waits until the others have heard what is left to say.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Connects, where Redis is configured.
///
/// # Errors
/// Where the configuration cannot be used. That Redis does not answer is none: it may come later.
pub(super) async fn join(
    config: &config::Redis,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
) -> Result<Option<Arc<Peers>>> {
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
    let (courier, round) = Courier::new(redis.clone(), post.clone(), metrics.clone());
    tasks.spawn(round.run(tasks.stopping().clone()));
    Ok(Some(Arc::new(Peers { redis, replicas, post, courier })))
}

/// Starts what runs for the other replicas. It ends after everything that may still want to tell them something.
pub(super) fn spawn(app: &Arc<App>, peers: &Arc<Peers>) {
    let (courier, redis) = (peers.courier.clone(), peers.redis.clone());
    // While Redis is away those here hear of it at once, and perhaps once more with the others.
    app.bus.relay_through(move |change| courier.tell_all(in_words(change)) && redis.is_up());
    let tasks = &app.last_tasks;
    let stop = tasks.stopping().clone();
    let (hearer, post) = (app.clone(), peers.post.clone());
    let listening = async move {
        post.read(|heard| hear(&hearer, heard)).await;
    };
    tasks.spawn(stop.clone().run_until_cancelled_owned(listening));
    tasks.spawn(app.limits.clone().upkeep(stop.clone()));
    tasks.spawn(stop.run_until_cancelled_owned(keep_lease(app.clone(), peers.clone())));
}

/// Leaves the others: nobody sends this replica anything more, what it was sent is heard, and what it has to say is said.
pub async fn leave(app: &App) {
    let Some(peers) = &app.peers else { return };
    // Who has not given everything back must be found dead, so that others do it.
    if app.limits.leave().await.is_ok() {
        let _ = peers.replicas.leave().await;
    }
    let _ = peers.post.tell_all_and_wait(Message::Hello).await;
    peers.post.catch_up().await;
    app.sessions.leave();
    peers.courier.flush(LAST_WORDS).await;
}

/// Renews the lease, also when somebody comes or goes.
async fn keep_lease(app: Arc<App>, peers: Arc<Peers>) {
    let _ = peers.post.tell_all(Message::Hello).await;
    let mut timer = tokio::time::interval(peers.replicas.interval());
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connected = peers.redis.connected();
    connected.borrow_and_update();
    let mut back = false;
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            _ = connected.changed() => back = true,
        }
        // Where that fails it is tried again at the next turn.
        if let Ok(beat) = peers.replicas.beat().await {
            app.metrics.replicas.set(i64::from(peers.replicas.count()));
            beaten(&app, &peers, beat, std::mem::take(&mut back));
        }
    }
}

/// Does what a beat asks for, beside the beating.
fn beaten(app: &Arc<App>, peers: &Arc<Peers>, beat: Beat, back: bool) {
    if beat.memory_lost {
        tracing::warn!("Redis has lost its memory; writing down again what is known here");
        app.bus.miss();
    }
    let has_gaps = peers.courier.has_dropped();
    if beat.memory_lost || beat.lapsed || back || has_gaps {
        let (app, lost) = (app.clone(), beat.memory_lost);
        app.clone().last_tasks.spawn(async move { app.sessions.write_again(lost, has_gaps).await });
    }
    if beat.memory_lost || beat.lapsed {
        app.limits.reassert();
    }
    for dead in beat.dead {
        tracing::warn!(replica = %dead, "a replica died; giving back what it held");
        let (app, peers) = (app.clone(), peers.clone());
        app.clone().last_tasks.spawn(async move {
            // What it was told last is for whoever has taken its place.
            let Ok(left) = peers.post.left_for(dead).await else { return };
            for envelope in left {
                app.sessions.hear(envelope);
            }
            if app.limits.forget_replica(dead).await.is_ok() {
                let _ = peers.replicas.bury(dead).await;
            }
            peers.courier.tell_all(Message::Died { replica: dead });
        });
    }
}

/// A change as a message.
fn in_words(change: &Change) -> Message {
    let (what, uri) = match &change.what {
        Changed::Tools => ("tools", None),
        Changed::Prompts => ("prompts", None),
        Changed::Resources => ("resources", None),
        Changed::Resource(uri) => ("resource", Some(Box::from(&**uri))),
    };
    Message::Changed { tenant: change.tenant, server: (&*change.server).into(), what: what.into(), uri }
}

fn hear(app: &Arc<App>, heard: Heard) {
    let Heard::Message(Delivery { position, envelope }) = heard else {
        tracing::warn!("messages of other replicas were missed; looking at everything again");
        app.bus.miss();
        app.credentials.look_now();
        let app = app.clone();
        app.clone().last_tasks.spawn(async move { app.sessions.write_again(false, false).await });
        return;
    };
    match envelope.message {
        Message::Hello => {
            let peers = app.peers.clone();
            app.last_tasks.spawn(async move {
                if let Some(peers) = peers {
                    let _ = peers.replicas.look().await;
                    peers.post.done(&envelope).await;
                }
            });
        }
        Message::Died { replica } => {
            let app = app.clone();
            app.clone().last_tasks.spawn(async move {
                if let Some(peers) = &app.peers {
                    let _ = peers.replicas.look().await;
                }
                app.sessions.replica_died(replica).await;
            });
        }
        Message::Ack { number } => {
            if let Some(peers) = &app.peers {
                peers.post.acked(envelope.from, number);
            }
        }
        Message::Invalidated => app.credentials.look_now(),
        Message::Recall { tenant } => {
            app.limits.give_back(tenant);
            app.usage.give_back(tenant);
        }
        Message::Changed { tenant, server, what, uri } => {
            let what = match (&*what, uri) {
                ("tools", _) => Changed::Tools,
                ("prompts", _) => Changed::Prompts,
                ("resource", Some(uri)) => Changed::Resource(uri.into()),
                _ => Changed::Resources,
            };
            app.bus.deliver(position, Change { tenant, server: server.into(), what });
        }
        _ => app.sessions.hear(envelope),
    }
}

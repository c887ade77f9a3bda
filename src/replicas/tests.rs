//! Presence and the post, between replicas that share a process but nothing else.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::{Delivery, Heard, Message, Post, Replicas};
use crate::id::{SessionRowId, TenantId};
use crate::redis::Redis;
use crate::redis::testing::on_redis;
use crate::replicas::SessionName;
use crate::tasks::Tasks;

const LEASE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(10);

fn replica(redis: &Redis) -> (Arc<Replicas>, Arc<Post>) {
    let replicas = Arc::new(Replicas::new(redis.clone(), LEASE));
    let post = Arc::new(Post::new(redis.clone(), replicas.clone()));
    (replicas, post)
}

/// Reads until the test ends; a probe to all shows when the reading has begun.
async fn ear(tasks: &Tasks, post: &Arc<Post>) -> mpsc::UnboundedReceiver<Heard> {
    let (tell, mut heard) = mpsc::unbounded_channel();
    let reader = post.clone();
    let stop = tasks.stopping().clone();
    tasks.spawn(stop.run_until_cancelled_owned(async move {
        reader.read(|heard| drop(tell.send(heard))).await;
    }));
    loop {
        post.tell_all(Message::Hello).await.expect("Redis");
        if tokio::time::timeout(Duration::from_millis(100), heard.recv()).await.is_ok() {
            return heard;
        }
    }
}

async fn next(ear: &mut mpsc::UnboundedReceiver<Heard>) -> Delivery {
    loop {
        match tokio::time::timeout(PATIENCE, ear.recv()).await.expect("a message").expect("a reader") {
            Heard::Message(Delivery { envelope, .. }) if matches!(envelope.message, Message::Hello) => {}
            Heard::Message(delivery) => return delivery,
            Heard::Missed => panic!("missed"),
        }
    }
}

#[tokio::test]
async fn the_dead_are_found_and_cleaned_up_after_once() {
    on_redis(async |redis| {
        let (a, _) = replica(&redis);
        let (b, _) = replica(&redis);
        let (c, _) = replica(&redis);
        assert!(a.beat().await.expect("a beat").lapsed, "never there before");
        for one in [&b, &c, &a, &b] {
            one.beat().await.expect("a beat");
        }
        assert_eq!((a.count(), b.count()), (3, 3));
        // C is silent from now on; A and B live on.
        let mut found = Vec::new();
        let mut rounds = 0;
        while found.is_empty() {
            for one in [&a, &b] {
                found.extend(one.beat().await.expect("a beat").dead);
            }
            tokio::time::sleep(LEASE / 10).await;
            rounds += 1;
            assert!(rounds < 1000, "C was never found dead");
        }
        assert_eq!(found, [c.me()], "handed out once");
        assert!(!a.lives(c.me()) && a.lives(b.me()));
        a.bury(c.me()).await.expect("buried");
        assert!(c.beat().await.expect("a beat").lapsed);
        assert!(!c.beat().await.expect("a beat").lapsed);
        c.leave().await.expect("left");
        let beat = a.beat().await.expect("a beat");
        assert!(beat.dead.is_empty() && !a.lives(c.me()), "who leaves is not dead");
    })
    .await;
}

#[tokio::test]
async fn the_dead_are_handed_out_again_where_nobody_buries_them() {
    on_redis(async |redis| {
        let (a, _) = replica(&redis);
        let (b, _) = replica(&redis);
        for one in [&a, &b] {
            one.beat().await.expect("a beat");
        }
        let mut times = 0;
        for _ in 0..1000 {
            let dead = a.beat().await.expect("a beat").dead;
            times += dead.len();
            if times == 2 {
                return;
            }
            tokio::time::sleep(LEASE / 10).await;
        }
        panic!("handed out {times} times");
    })
    .await;
}

#[tokio::test]
async fn lost_memory_is_noticed() {
    on_redis(async |redis| {
        let (a, _) = replica(&redis);
        assert!(!a.beat().await.expect("a beat").memory_lost, "nothing was known before");
        assert!(!a.beat().await.expect("a beat").memory_lost);
        let keys = redis.keys();
        let mut flush = redis::cmd("DEL");
        flush.arg(keys.live()).arg(keys.dead()).arg(keys.epoch());
        redis.run::<()>(&flush).await.expect("deleted");
        let beat = a.beat().await.expect("a beat");
        assert!(beat.memory_lost && beat.lapsed);
        assert!(!a.beat().await.expect("a beat").memory_lost);
    })
    .await;
}

#[tokio::test]
async fn what_is_told_arrives_in_order_and_is_acknowledged() {
    on_redis(async |redis| {
        let tasks = Tasks::new();
        let (a, post_a) = replica(&redis);
        let (b, post_b) = replica(&redis);
        for one in [&a, &b, &a] {
            one.beat().await.expect("a beat");
        }
        let mut ear_a = ear(&tasks, &post_a).await;
        let mut ear_b = ear(&tasks, &post_b).await;
        let session = SessionName { tenant: TenantId::new(), row: SessionRowId::new() };
        let request = |n: u32| RawValue::from_string(n.to_string()).expect("json");
        for n in 0..100 {
            let cancel = Message::Cancel { session, request: request(n) };
            post_a.tell_all(cancel).await.expect("told");
        }
        for n in 0..100 {
            let delivery = next(&mut ear_b).await;
            let Message::Cancel { request, .. } = delivery.envelope.message else {
                panic!("another message")
            };
            assert_eq!((request.get(), delivery.envelope.from), (&*n.to_string(), a.me()));
            assert!(delivery.position.is_some());
        }
        // To one only.
        post_a.tell(b.me(), Message::Closed { session }).await.expect("told");
        assert!(next(&mut ear_b).await.position.is_none());
        // With acknowledgement: A waits for B, and for nobody longer than it must.
        let waiting = {
            let post_a = post_a.clone();
            tasks.spawn(async move { post_a.tell_all_and_wait(Message::Settled { session }).await })
        };
        let delivery = next(&mut ear_b).await;
        assert!(!waiting.is_finished());
        post_b.done(&delivery.envelope).await;
        while !waiting.is_finished() {
            let Delivery { envelope, .. } = next(&mut ear_a).await;
            match envelope.message {
                Message::Ack { number } => post_a.acked(envelope.from, number),
                _ => post_a.done(&envelope).await,
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(waiting.await.expect("no panic"), Ok(Vec::new()), "nobody was silent");
        tasks.shut_down().await;
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_lost_something_says_so() {
    on_redis(async |redis| {
        let tasks = Tasks::new();
        let (a, post) = replica(&redis);
        a.beat().await.expect("a beat");
        let mut heard = ear(&tasks, &post).await;
        // The connection of the reader breaks, and while it does, everything is forgotten.
        let mut list = redis::cmd("CLIENT");
        let clients: String = redis.run(list.arg("LIST")).await.expect("a list");
        let name = format!("name=weir:{}", a.me());
        let line = clients.lines().find(|line| line.contains(&name)).expect("the reader");
        let id = line.split([' ', '=']).nth(1).expect("an id");
        let mut gone = redis::pipe();
        gone.cmd("DEL").arg(redis.keys().to_all()).ignore();
        gone.cmd("CLIENT").arg("KILL").arg("ID").arg(id).ignore();
        redis.pipe::<()>(&gone).await.expect("killed");
        loop {
            let heard = tokio::time::timeout(PATIENCE, heard.recv()).await.expect("news").expect("a reader");
            if matches!(heard, Heard::Missed) {
                break;
            }
        }
        tasks.shut_down().await;
    })
    .await;
}

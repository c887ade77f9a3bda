//! Who lives, where Redis itself was away.

use weir::id::{SessionRowId, TenantId};
use weir::replicas::{Message, SessionName};

use super::User;
use crate::support::eventually;
use crate::support::flavours::Server;

#[tokio::test]
async fn nobody_is_dead_because_redis_stood_still() {
    let server = Server::node(None, "").await;
    let (a, b) =
        (User::at(&server, server.address(), 500).await, User::at(&server, server.address(), 500).await);
    for user in [&a, &b, &a] {
        user.replicas.beat().await.expect("a beat");
    }
    server.pause();
    let lease = a.replicas.lease();
    tokio::time::sleep(lease + lease / 2).await;
    server.go_on();
    a.is_served().await;
    let beat = a.replicas.beat().await.expect("a beat");
    assert!(beat.dead.is_empty() && a.replicas.lives(b.replicas.me()), "nobody could say that it lives");
    b.is_served().await;
    assert!(!b.replicas.beat().await.expect("a beat").lapsed);
    // Who says nothing now is.
    eventually("the death", async || {
        tokio::time::sleep(lease / 10).await;
        a.replicas.beat().await.expect("a beat").dead == [b.replicas.me()]
    })
    .await;
}

#[tokio::test]
async fn all_that_a_dead_replica_was_told_is_left() {
    let server = Server::node(None, "").await;
    let (a, b) =
        (User::at(&server, server.address(), 500).await, User::at(&server, server.address(), 500).await);
    let session = SessionName { tenant: TenantId::new(), row: SessionRowId::new() };
    for number in 0..600 {
        let news = Message::News { session, stream: number.to_string().into() };
        assert!(a.courier.tell(b.replicas.me(), news));
    }
    a.courier.flush(a.replicas.lease()).await;
    let streams = |messages: Vec<Message>| {
        let number = |message: Message| match message {
            Message::News { stream, .. } => stream.parse::<u32>().expect("a number"),
            other => panic!("{other:?}"),
        };
        messages.into_iter().map(number).collect::<Vec<_>>()
    };
    let left = a.post.left_for(b.replicas.me()).await.expect("Redis");
    assert_eq!(streams(left.into_iter().map(|envelope| envelope.message).collect()), Vec::from_iter(0..600));
    let wanted =
        |message: &Message| matches!(message, Message::News { stream, .. } if stream.ends_with("00"));
    let taken = a.post.take_left(b.replicas.me(), wanted).await;
    assert_eq!(streams(taken), [100, 200, 300, 400, 500]);
    assert_eq!(a.post.left_for(b.replicas.me()).await.expect("Redis").len(), 595);
    let _: () = server.ask("REPLICAOF 127.0.0.1 1").await;
    a.is_alone().await;
    assert!(a.post.left_for(b.replicas.me()).await.is_err(), "it must not be buried");
}

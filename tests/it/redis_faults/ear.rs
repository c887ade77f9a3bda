//! What replicas say to each other, and who hears it.

use weir::replicas::{Envelope, Heard, Message};

use super::{User, numbers};
use crate::support::eventually;
use crate::support::fault::Fault;
use crate::support::flavours::Server;

/// One that speaks, and one that hears over a way that breaks.
async fn pair() -> (Server, Fault, User, User) {
    let server = Server::node(None, "").await;
    let way = Fault::on_the_way_to(server.address());
    let speaker = User::at(&server, server.address(), 1000).await;
    let hearer = User::at(&server, way.address, 250).await;
    (server, way, speaker, hearer)
}

#[tokio::test]
async fn whoever_was_away_hears_what_was_said_and_misses_nothing() {
    let (_server, way, speaker, hearer) = pair().await;
    let mut ear = hearer.ear().await;
    for round in 0..3 {
        if round == 1 {
            way.freeze()
        } else {
            way.cut()
        }
        hearer.is_alone().await;
        for number in 1..=20 {
            speaker.say(100 * round + number).await;
        }
        way.heal();
        assert_eq!(ear.until(100 * round + 20).await, numbers(100 * round + 1..=100 * round + 20));
    }
}

#[tokio::test]
async fn whoever_was_away_for_too_long_is_told_once() {
    let (server, way, speaker, hearer) = pair().await;
    let mut ear = hearer.ear().await;
    way.cut();
    hearer.is_alone().await;
    for number in 1..=20 {
        speaker.say(number).await;
    }
    let _: u64 = server.ask("XTRIM it:{replicas}:all MAXLEN 5").await;
    way.heal();
    assert_eq!(ear.until(20).await, [vec![None], numbers(16..=20)].concat());
    // Not again, whatever breaks.
    way.cut();
    hearer.is_alone().await;
    way.heal();
    hearer.is_served().await;
    speaker.say(21).await;
    assert_eq!(ear.until(21).await, numbers([21]));
}

#[tokio::test]
async fn lost_memory_is_noticed_with_and_without_a_broken_connection() {
    let (server, way, speaker, hearer) = pair().await;
    let mut ear = hearer.ear().await;
    let mut last = 0;
    for breaks in [false, true, false] {
        if breaks {
            way.cut();
            hearer.is_alone().await;
        }
        let _: () = server.ask("FLUSHALL").await;
        way.heal();
        assert_eq!(ear.next().await, None);
        for _ in 0..3 {
            last += 1;
            speaker.say(last).await;
        }
        assert_eq!(ear.until(last).await, numbers(last - 2..=last));
    }
}

#[tokio::test]
async fn a_server_that_has_less_than_was_read_is_read_all_the_same() {
    let (server, _way, speaker, hearer) = pair().await;
    let mut ear = hearer.ear().await;
    let say = async |place: &str, number: u64| {
        let message = Message::Ack { number };
        let envelope = Envelope { from: speaker.replicas.me(), ack: None, message };
        let text = serde_json::to_string(&envelope).expect("JSON");
        let _: String = server.ask(&format!("XADD it:{{replicas}}:all {place} m {text}")).await;
    };
    say("9999999999999-7", 1).await;
    assert_eq!(ear.until(1).await, numbers([1]));
    // Another takes over that lacks the last, and whose clock is behind: what is said comes before what was read.
    let _: u64 = server.ask("DEL it:{replicas}:all").await;
    say("9999999999998-1", 2).await;
    assert_eq!(ear.next().await, None);
    say("9999999999998-2", 3).await;
    while ear.next().await != Some(3) {}
    speaker.say(4).await;
    assert_eq!(ear.until(4).await, numbers([4]));
}

#[tokio::test]
async fn who_comes_late_knows_it() {
    let server = Server::node(None, "").await;
    let way = Fault::on_the_way_to(server.address());
    let user = User::at(&server, way.address, 250).await;
    way.cut();
    user.is_alone().await;
    let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let (post, stop) = (user.post.clone(), user.tasks.stopping().clone());
    user.tasks.spawn(stop.run_until_cancelled_owned(async move {
        post.read(|heard| drop(tell.send(heard))).await;
    }));
    // Once to fail.
    tokio::task::yield_now().await;
    let failed = user.redis.own_connection().await;
    assert!(failed.is_err());
    way.heal();
    eventually("the news", async || matches!(heard.try_recv(), Ok(Heard::Missed))).await;
}

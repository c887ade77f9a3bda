//! Who is let in: what Stripe signed, just now, of the right mode, and within bounds.

use http::Method;
use serde_json::json;

use super::{SECRET, START, World, signed};
use crate::support::database::rows;
use crate::support::{Gateway, eventually, gateway, within};

#[tokio::test]
async fn what_happens_at_stripe_is_known_here() {
    let world = World::new().await;
    world.listen();
    world.rename("other").await;
    world.standin.quiet().await;
    world.is_done().await;
    assert!(!world.is_deleted().await);
    world.delete().await;
    world.standin.quiet().await;
    eventually("the deletion to be known", async || world.is_deleted().await).await;
    world.is_done().await;
    assert_eq!(world.events("done").await, 2);
    let statuses: Vec<_> = world.standin.deliveries().iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [Some(200), Some(200)]);
    assert!((world.received("stored") - 2.0).abs() < 0.1);
}

#[tokio::test]
async fn only_what_stripe_signed_now_comes_in() {
    let world = World::with(|builder| {
        builder.set("billing.webhook_secrets", format!("{SECRET},whsec_the_next_one_1"))
    })
    .await;
    let event = world.event("evt_1").to_string();
    let body = event.as_bytes();
    let good = signed(SECRET, START, body);
    for (body, header, code) in [
        (body, None, "bad_signature"),
        (body, Some(String::new()), "bad_signature"),
        (body, Some(format!("t={START},v1=")), "bad_signature"),
        (body, Some(signed("whsec_of_somebody_else", START, body)), "bad_signature"),
        (&body[..body.len() - 1], Some(good.clone()), "bad_signature"),
        (&body[1..], Some(good.clone()), "bad_signature"),
        (b"".as_slice(), Some(good.clone()), "bad_signature"),
        (body, Some(signed(SECRET, START - 301, body)), "stale"),
        (body, Some(signed(SECRET, START + 302, body)), "stale"),
        (b"{}".as_slice(), Some(signed(SECRET, START, b"{}")), "malformed"),
        (b"\xff".as_slice(), Some(signed(SECRET, START, b"\xff")), "malformed"),
    ] {
        let said = world.send(body, header.as_deref()).await;
        assert_eq!((said.status, &said.body["code"]), (400, &json!(code)), "{header:?}: {said:?}");
        assert_eq!(said.body["status"], 400);
    }
    assert_eq!(world.number("select count(*) from stripe_events").await, 0);
    // Both secrets hold while one takes over from the other.
    let next = signed("whsec_the_next_one_1", START, body);
    let (next_only, both) =
        (next.clone(), format!("{good},{}", &next[next.find("v1=").expect("a scheme")..]));
    for (header, received) in [(good, "stored"), (next_only, "known"), (both, "known")] {
        let said = world.send(body, Some(&header)).await;
        assert_eq!((said.status, &said.body["received"]), (200, &json!(received)), "{header}");
    }
    assert!(world.received("bad_signature") > 6.0 && world.received("stale") > 1.0);
    let stored = rows(world.gateway.database_url(), "select mode, via, kind from stripe_events").await;
    assert_eq!(stored, [["test", "hook", "customer.updated"]]);
}

#[tokio::test]
async fn a_body_has_an_end_and_comes_in_time() {
    let world = World::with(|builder| builder.set("server.body_read_timeout_ms", 200)).await;
    let large = vec![b' '; 256 * 1024 + 1];
    let said = world.send(&large, Some(&signed(SECRET, START, &large))).await;
    assert_eq!((said.status, &said.body["code"]), (413, &json!("too_large")));
    // Without a length it is seen when it is there.
    let chunks = large.chunks(1000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>();
    let request = gateway::client().post(format!("{}/webhooks/stripe", world.gateway.url));
    let request = request.header("stripe-signature", signed(SECRET, START, b"something else"));
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    assert_eq!(request.body(stream).send().await.expect("an answer").status(), 413);
    // The largest is read.
    let largest = vec![b' '; 256 * 1024];
    let said = world.send(&largest, Some(&signed(SECRET, START, &largest))).await;
    assert_eq!((said.status, &said.body["code"]), (400, &json!("malformed")));
    // One that stops half-way.
    let pending = futures_util::stream::once(async { Ok::<_, std::io::Error>(b"{".to_vec()) });
    let pending = futures_util::StreamExt::chain(pending, futures_util::stream::pending());
    let request = gateway::client().post(format!("{}/webhooks/stripe", world.gateway.url));
    let request = request.header("stripe-signature", signed(SECRET, START, b"{}"));
    let sent = request.body(reqwest::Body::wrap_stream(pending)).send();
    assert_eq!(within("an answer", sent).await.expect("an answer").status(), 408);
    assert!(world.received("oversized") > 1.5 && world.received("slow") > 0.5);
    // Who cannot be Stripe is not waited for.
    let request = gateway::client().post(format!("{}/webhooks/stripe", world.gateway.url));
    let pending = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let sent = request.body(reqwest::Body::wrap_stream(pending)).send();
    assert_eq!(within("an answer", sent).await.expect("an answer").status(), 400);
}

#[tokio::test]
async fn an_event_of_the_other_mode_is_refused() {
    let world = World::new().await;
    let mut event = world.event("evt_1");
    event["livemode"] = json!(true);
    let said = world.tell(&event).await;
    assert_eq!((said.status, &said.body["code"]), (400, &json!("wrong_mode")));
    assert_eq!(world.number("select count(*) from stripe_events").await, 0);
    assert!((world.received("wrong_mode") - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn without_a_secret_nobody_is_believed_and_without_a_stripe_there_is_nothing() {
    let world = World::with(|builder| builder.set("billing.webhook_secrets", "")).await;
    let said = world.tell(&world.event("evt_1")).await;
    assert_eq!((said.status, &said.body["code"]), (503, &json!("no_secret")));
    let gateway = Gateway::start().await;
    for method in [Method::POST, Method::GET] {
        assert_eq!(gateway.request(method, "/webhooks/stripe").send().await.status, 404);
    }
}

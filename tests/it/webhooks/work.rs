//! What came in is worked on: in any order, however often it comes, by any process, and until Stripe answers.

use std::process::Command;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use weir::billing::inbox::Round;
use weir::clock::Clock;
use weir::standin::{Fault, Trouble};

use super::{DAY, SECRET, World, idle, signed};
use crate::support::database::rows;
use crate::support::eventually;

#[tokio::test]
async fn what_is_said_twice_changes_nothing() {
    let world = World::new().await;
    world.listen();
    world.standin.fault(Fault::new(Trouble::DuplicateDelivery).on("POST", "customer.updated"));
    world.standin.fault(Fault::new(Trouble::ReorderDelivery).on("POST", "customer.updated"));
    world.rename("twice").await;
    world.rename("late").await;
    world.delete().await;
    world.standin.quiet().await;
    world.is_done().await;
    assert!(world.is_deleted().await, "the older event that came last changes nothing");
    let kinds: Vec<_> = world.standin.deliveries().into_iter().map(|attempt| attempt.kind).collect();
    assert_eq!(kinds.last().map(String::as_str), Some("customer.updated"), "{kinds:?}");
    assert_eq!((kinds.len(), world.events("done").await), (4, 3));
    // And once more, by hand.
    let said = world.tell(&world.event("evt_1")).await;
    assert_eq!(said.body["received"], "stored");
    assert_eq!(world.tell(&world.event("evt_1")).await.body["received"], "known");
    world.is_done().await;
    assert!(world.is_deleted().await);
}

#[tokio::test]
async fn thin_events_count_and_types_of_no_interest_do_not() {
    let world = World::new().await;
    let thin = |id: &str, kind: &str, related: Value| {
        json!({
            "id": id, "object": "v2.core.event", "type": kind, "created": "2026-09-21T14:13:20.000Z",
            "livemode": false, "context": null, "related_object": related,
        })
    };
    let customer = json!({ "id": world.customer, "type": "customer", "url": "/v1/customers/x" });
    let meter = json!({ "id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1" });
    world.delete().await;
    for (event, received) in [
        (thin("evt_65a", "v1.customer.updated", customer), "stored"),
        (thin("evt_65b", "v1.billing.meter.error_report_triggered", meter), "stored"),
        (thin("evt_65c", "v1.billing.meter.no_meter_found", Value::Null), "stored"),
        (thin("evt_65d", "v2.core.account.updated", Value::Null), "not followed"),
    ] {
        let said = world.tell(&event).await;
        assert_eq!((said.status, &said.body["received"]), (200, &json!(received)), "{event}");
    }
    world.is_done().await;
    assert!(world.is_deleted().await);
    assert_eq!(world.events("done").await, 3);
    assert_eq!(world.number("select count(*) from stripe_events").await, 3);
}

#[tokio::test]
async fn what_no_webhook_brought_is_found() {
    // The gateway sweeps as well, at its start, when there was nobody yet.
    let world = World::with(idle).await;
    let inbox = world.inbox().await;
    world.rename("unheard").await;
    world.clock.advance(DAY);
    world.rename("heard").await;
    world.delete().await;
    assert_eq!(inbox.sweep().await.expect("a sweep"), Some(3));
    assert_eq!(inbox.sweep().await.expect("a sweep"), None, "once a day");
    assert_eq!(inbox.round().await.expect("a round"), Round { done: 1, ..Round::default() });
    assert!(world.is_deleted().await);
    let sql = "select distinct via, state from stripe_events";
    assert_eq!(rows(world.gateway.database_url(), sql).await, [["sweep", "done"]]);

    // A page of them is a hundred, and lists are of twenty types at most.
    for number in 0..120 {
        world.ask(Method::POST, "/v1/customers", &format!("name={number}")).await;
    }
    let other = world.ask(Method::POST, "/v1/customers", "name=other").await;
    for number in 0..120 {
        let path = format!("/v1/customers/{}", other["id"].as_str().expect("an id"));
        world.ask(Method::POST, &path, &format!("name={number}")).await;
    }
    world.clock.advance(DAY);
    world.standin.fault(Fault::new(Trouble::ServerError).on("GET", "/v1/events"));
    assert!(inbox.sweep().await.is_err());
    assert_eq!(inbox.sweep().await.expect("a sweep"), Some(120), "the next one makes it good");
    assert_eq!(inbox.round().await.expect("a round"), Round { ignored: 1, ..Round::default() });
    let (a, b) = tokio::join!(inbox.sweep(), async { world.inbox().await.sweep().await });
    assert_eq!((a.expect("a sweep"), b.expect("a sweep")), (None, None));
}

#[tokio::test]
async fn what_stripe_does_not_answer_is_asked_again() {
    let world = World::new().await;
    world.listen();
    world.standin.fault(Fault::new(Trouble::BadGateway).on("GET", "/v1/customers").times(2));
    world.delete().await;
    world.standin.quiet().await;
    for tries in 1..=2 {
        let sql = format!("select count(*) from stripe_events where state = 'new' and tries = {tries}");
        eventually("a try in vain", async || world.number(&sql).await == 1).await;
        world.clock.advance(Duration::from_secs(2));
    }
    world.is_done().await;
    assert!(world.is_deleted().await);
    assert!((world.gateway.metric("weir_stripe_events_worked_total{outcome=\"retried\"}") - 2.0).abs() < 0.1);
}

#[tokio::test]
async fn two_processes_share_an_inbox() {
    let world = World::with(idle).await;
    let inboxes = [world.inbox().await, world.inbox().await];
    let app = &world.gateway.app;
    let receiver = app.webhooks.as_ref().expect("a Stripe");
    // What comes in rings the bell of this process, so it is stored where no bell hangs: by the sweep.
    for number in 0..5 {
        world.rename(&number.to_string()).await;
    }
    world.clock.advance(DAY);
    let before = world.asked();
    assert_eq!(inboxes[0].sweep().await.expect("a sweep"), Some(5));
    let (a, b) = tokio::join!(inboxes[0].round(), inboxes[1].round());
    let (a, b) = (a.expect("a round"), b.expect("a round"));
    assert_eq!(a.done + b.done, 1, "{a:?} {b:?}");
    assert_eq!(world.asked() - before, 1, "one asks, for all of them");
    assert_eq!(world.events("done").await, 5);
    // The other one knows events that came to this one.
    let said = world.tell(&world.event("evt_1")).await;
    assert_eq!(said.body["received"], "stored");
    let body = world.event("evt_1").to_string();
    let signature = signed(SECRET, world.clock.now().as_seconds(), body.as_bytes());
    let known = receiver.receive(&signature, body.as_bytes()).await.expect("taken");
    assert_eq!(known, weir::billing::inbox::receive::Received::Duplicate);
}

#[tokio::test]
async fn the_command_lists_events_and_puts_one_back() {
    let world = World::with(idle).await;
    world.tell(&world.event("evt_1")).await;
    world.is_done().await;
    let fail =
        "update stripe_events set state = 'failed', note = 'it would not' where id = 'evt_1' returning tries";
    rows(world.gateway.database_url(), fail).await;
    let url = world.gateway.database_url().to_owned();
    let weir = async |arguments: &'static [&'static str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["billing", "events"]).args(arguments);
        command.env_clear().env("WEIR_DATABASE__URL", &url);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends");
        let output = output.expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("text"))
    };
    let (code, text) = weir(&["--failed"]).await;
    assert!(code == Some(0) && text.contains("evt_1") && text.contains("it would not"), "{text}");
    let (_, text) = weir(&["--json"]).await;
    let listed: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&listed[0]["id"], &listed[0]["object_id"]), (&json!("evt_1"), &json!(world.customer)));
    let (code, text) = weir(&["--again", "evt_2"]).await;
    assert!(code == Some(1) && text.contains("not found"), "{text}");
    let (code, text) = weir(&["--again", "evt_1"]).await;
    assert_eq!(code, Some(0), "{text}");
    let (_, text) = weir(&["--failed"]).await;
    assert!(!text.contains("evt_1"), "{text}");
    assert_eq!(world.events("new").await, 1);
    // It is due by the clock on the wall, which the command goes by.
    let long = Clock::system().now().as_micros() - world.clock.now().as_micros() + 365 * 86_400_000_000;
    world.clock.advance(Duration::from_micros(u64::try_from(long).expect("ahead")));
    assert_eq!(world.inbox().await.round().await.expect("a round").done, 1);
    assert!(!world.is_deleted().await && world.tenant.to_string().starts_with("tn_"));
}

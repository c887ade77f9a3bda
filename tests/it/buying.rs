//! Tenants change their minds faster than webhooks come, operators give money back twice, and things fail half-way: nobody pays
//! for what they have not got, nor gets what they have not paid for. Against the stand-in.

use http::Method;
use serde_json::{Value, json};
use weir::audit::Actor;
use weir::billing::shop::{Adjust, Adjustment, Back};
use weir::clock::Timestamp;
use weir::error::{Error, Result};
use weir::standin::{Fault, Trouble};

use crate::support::business::{Business, Customer, DAY, GOOD, HOUR, MINUTE};
use crate::support::{eventually, within};

impl Customer {
    /// When the month ends, as Stripe has it.
    async fn month_ends(&self) -> String {
        let end = self.subscription().await["items"]["data"][0]["current_period_end"].as_i64();
        Timestamp::from_micros(end.expect("an instant") * 1_000_000).to_string()
    }

    /// What the base fee is by the item that has one.
    async fn base_fee(&self) -> i64 {
        let subscription = self.subscription().await;
        let items = subscription["items"]["data"].as_array().expect("items").clone();
        let base = items.iter().find(|item| item["price"]["recurring"]["usage_type"] == "licensed");
        base.expect("a base fee")["price"]["unit_amount"].as_i64().expect("an amount")
    }

    async fn gives(&self, what: &str, amount: Option<i64>, back: Back) -> Result<Adjustment> {
        let shop = self.gateway.app.shop.as_ref().expect("a shop");
        let adjust = Adjust { actor: Actor::Cli, tenant: self.tenant(), amount, reason: "an outage" };
        match what.starts_with("ch_") {
            true => shop.refund(adjust, what).await,
            false => shop.credit_note(adjust, what, back).await,
        }
    }

    /// The charge and the invoice of the only payment.
    async fn paid(&self) -> (String, String) {
        eventually("the payment", async || {
            let paid = "select (select count(*) from billing_invoices where status = 'paid')
                             * (select count(*) from billing_charges where status = 'succeeded')";
            self.number(paid).await == 1
        })
        .await;
        (
            self.text("select id from billing_charges").await,
            self.text("select id from billing_invoices").await,
        )
    }
}

#[tokio::test]
async fn a_change_follows_the_one_before_it_and_not_what_is_known_of_it_yet() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    world.days(3).await;
    world.webhooks_are_late().await;
    let end = world.month_ends().await;
    assert!(world.changes_to("firm").await < end, "it costs more");
    // By the mirror the tenant is on pro, and team would cost more than that.
    assert_eq!(world.changes_to("team").await, end, "the larger plan is paid for");
    let marks = world.subscription().await["metadata"].clone();
    assert_eq!((&marks["plan"], &marks["plan_before"]), (&json!("team"), &json!("firm")));
    // What was to follow is taken back, and then it ends; and that, too.
    assert!(world.changes_to("firm").await < end);
    assert_eq!(world.base_fee().await, 9900);
    assert_eq!(world.ask("DELETE", "/billing/plan", Value::Null).await.status, 200);
    assert_eq!(world.subscription().await["cancel_at_period_end"], true);
    assert!(world.changes_to("firm").await < end);
    assert_eq!(world.subscription().await["cancel_at"], Value::Null);
}

#[tokio::test]
async fn of_two_changes_at_once_one_is_asked_to_come_again() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    world.standin.fault(Fault::new(Trouble::Hold).on("POST", "/v1/subscriptions/"));
    let change = async |plan: &str| world.ask("PUT", "/billing/plan", json!({ "plan": plan })).await.status;
    let other = async {
        within("the first", world.standin.holds()).await;
        let status = change("firm").await;
        world.standin.release();
        status
    };
    assert_eq!(tokio::join!(change("team"), other), (200, 409));
    assert!(
        world.changes_to("firm").await < world.month_ends().await,
        "there is no change under way any more"
    );
}

#[tokio::test]
async fn nobody_subscribes_twice_because_a_webhook_is_late() {
    let world = Business::first_customer().await;
    world.webhooks_are_late().await;
    world.pay("/billing/checkout", json!({ "plan": "pro" }), GOOD).await.expect("a subscription");
    let second = world.ask("POST", "/billing/checkout", json!({ "plan": "team" })).await;
    assert_eq!(second.status, 409, "{}", second.text);
    world.comes_to("what no webhook told", |account| account["plan"] == "pro").await;
    assert_eq!(world.account().await["has_subscription"], true);
}

#[tokio::test]
async fn what_was_refunded_is_not_credited_as_well() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    let (charge, invoice) = world.paid().await;
    assert_eq!(world.gives(&charge, None, Back::Payer).await.expect("a refund").amount, 1900);
    let more = world.gives(&invoice, None, Back::Balance).await;
    assert!(matches!(more, Err(Error::Conflict(_))), "{more:?}");
}

#[tokio::test]
async fn what_was_credited_is_not_refunded_as_well() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    let (charge, invoice) = world.paid().await;
    world.gives(&invoice, Some(400), Back::Balance).await.expect("a note");
    let more = world.gives(&charge, Some(1501), Back::Payer).await.expect_err("too much").to_string();
    assert!(more.contains("expected 1 to 1500"), "{more}");
    world.gives(&charge, Some(300), Back::Payer).await.expect("a refund");
    world.gives(&invoice, Some(200), Back::Payer).await.expect("a note with a refund");
    assert_eq!(world.gives(&invoice, None, Back::Balance).await.expect("the rest").amount, 1000);
    let more = world.gives(&charge, Some(1), Back::Payer).await;
    assert!(matches!(more, Err(Error::Conflict(_))), "{more:?}");
    let path = format!("/v1/charges/{charge}");
    assert_eq!(world.stripe(Method::GET, &path).await["amount_refunded"], 500);
}

#[tokio::test]
async fn whoever_is_not_sure_asks_again_and_hears_of_the_same() {
    let world = Business::first_customer().await;
    world.pay("/billing/top_ups", json!({ "credits": "100" }), GOOD).await.expect("paid");
    let (charge, _) = world.paid().await;
    let first = world.gives(&charge, Some(1500), Back::Payer).await.expect("a refund");
    // Less than that is left.
    let again = world.gives(&charge, Some(1500), Back::Payer).await.expect("the same");
    assert_eq!((again.id, again.amount), (first.id, 1500));
    let rest = world.gives(&charge, None, Back::Payer).await.expect("the rest");
    let again = world.gives(&charge, None, Back::Payer).await.expect("the same");
    assert_eq!((rest.amount, again.id), (1000, rest.id));
}

#[tokio::test]
async fn a_refusal_that_stripe_keeps_is_not_the_last_word() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    let (charge, _) = world.paid().await;
    let broken = || Fault::new(Trouble::ServerError).on("POST", "/v1/refunds");
    world.standin.fault(broken());
    world.gives(&charge, Some(100), Back::Payer).await.expect("with another key");
    // This time it was done, and Stripe says that something broke.
    world.standin.fault(broken().applied());
    world.gives(&charge, Some(200), Back::Payer).await.expect("found");
    let path = format!("/v1/charges/{charge}");
    assert_eq!(world.stripe(Method::GET, &path).await["amount_refunded"], 300);
}

#[tokio::test]
async fn a_plan_by_which_more_may_be_owed_brings_the_price_of_that() {
    let world = Business::first_customer().await;
    let terms = |kind: &str| json!({ "kind": kind, "base_fee": 1900, "self_service": true });
    world.publish("club", terms("prepaid"), "0.25").await;
    world.clock.advance(HOUR);
    world.subscribe("club", GOOD).await;
    let items = async || world.subscription().await["items"]["data"].as_array().expect("items").len();
    assert_eq!(items().await, 1);
    world.publish("club", terms("hybrid"), "0.25").await;
    eventually("the price of a credit", async || {
        world.clock.advance(HOUR);
        world.standin.quiet().await;
        items().await == 2
    })
    .await;
}

#[tokio::test]
async fn a_plan_that_costs_nothing_any_more_ends_its_subscriptions() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    world.publish("pro", json!({ "kind": "free", "self_service": true }), "0.25").await;
    eventually("its end", async || {
        world.clock.advance(HOUR);
        world.standin.quiet().await;
        world.subscription().await["cancel_at_period_end"] == true
    })
    .await;
    world.days(32).await;
    world.comes_to("nothing to pay", |account| account["has_subscription"] == false).await;
}

#[tokio::test]
async fn what_is_paid_for_is_known_of_a_plan_that_is_younger_than_the_month() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    world.days(5).await;
    let terms = json!({ "kind": "hybrid", "included": "2", "base_fee": 5900, "self_service": true });
    world.publish("late", terms, "0.25").await;
    world.clock.advance(HOUR);
    let end = world.month_ends().await;
    assert!(world.changes_to("late").await < end);
    world.comes_to("the new plan", |account| account["plan"] == "late").await;
    assert_eq!(world.changes_to("pro").await, end);
    world.comes_to("what follows", |account| account["next_plan"] == "pro").await;
    assert_eq!(world.changes_to("team").await, end, "5900 are paid for, and not 1900");
    let marks = world.subscription().await["metadata"].clone();
    assert_eq!((&marks["paid_amount"], &marks["plan_before"]), (&json!("5900"), &json!("late")));
    assert!(world.changes_to("firm").await < end);
    assert_eq!(world.subscription().await["metadata"].get("paid_amount"), None);
}

#[tokio::test]
async fn a_change_that_fails_half_way_is_put_back() {
    let world = Business::first_customer().await;
    world.subscribe("team", GOOD).await;
    world.days(3).await;
    world.changes_to("pro").await;
    world.comes_to("what follows", |account| account["next_plan"] == "pro").await;
    assert_eq!(world.base_fee().await, 1900);
    world.standin.fault(Fault::new(Trouble::ServerError).on("POST", "/v1/subscriptions/").skip(1));
    let failed = world.ask("PUT", "/billing/plan", json!({ "plan": "firm" })).await;
    assert_eq!(failed.status, 503, "{}", failed.text);
    assert_eq!(world.base_fee().await, 1900, "what follows is as it was");
    let marks = world.subscription().await["metadata"].clone();
    assert_eq!((&marks["plan"], &marks["plan_before"]), (&json!("pro"), &json!("team")));
    assert!(world.changes_to("firm").await < world.month_ends().await, "another time it can be done");
}

#[tokio::test]
async fn a_change_goes_on_where_its_client_hangs_up() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    world.standin.fault(Fault::new(Trouble::Hold).on("POST", "/v1/subscriptions/"));
    tokio::select! {
        reply = world.ask("PUT", "/billing/plan", json!({ "plan": "team" })) => panic!("{}", reply.text),
        () = within("the change", world.standin.holds()) => {}
    }
    world.standin.release();
    world.comes_to("the other plan", |account| account["plan"] == "team").await;
}

#[tokio::test]
async fn who_cancels_in_the_portal_and_thinks_again_stays() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    let page = world.ask("POST", "/billing/portal", Value::Null).await;
    let page = page.json()["url"].as_str().expect("a URL").to_owned();
    let id = world.subscription().await["id"].as_str().expect("an id").to_owned();
    let client = crate::support::gateway::client();
    let cancel = client.post(&page).body(format!("do=cancel&subscription={id}"));
    let done =
        cancel.header("content-type", "application/x-www-form-urlencoded").send().await.expect("an answer");
    assert!(done.status().is_redirection() || done.status().is_success(), "{}", done.status());
    world.comes_to("its end", |account| account["next_plan"] == "free").await;
    let ending = world.subscription().await;
    assert_eq!((&ending["cancel_at_period_end"], ending["cancel_at"].is_i64()), (&json!(false), true));
    // Whoever cancels once more hears when.
    let end = world.ask("DELETE", "/billing/plan", Value::Null).await;
    assert_eq!(end.json()["from"], world.month_ends().await.as_str(), "{}", end.text);
    world.changes_to("pro").await;
    world.comes_to("no end", |account| account["next_plan"].is_null()).await;
    world.days(32).await;
    world.clock.advance(2 * HOUR);
    eventually("the second month", async || {
        world.clock.advance(MINUTE);
        world.number("select count(*) from billing_invoices where status = 'paid'").await == 2
    })
    .await;
    assert_eq!(world.account().await["has_subscription"], true);
}

#[tokio::test]
async fn a_preview_of_many_lines_has_what_was_used_once() {
    let world = Business::first_customer().await;
    for step in 1..8 {
        let terms = json!({ "kind": "hybrid", "base_fee": 1000 * step, "self_service": true });
        world.publish(&format!("step-{step}"), terms, "0.25").await;
    }
    world.clock.advance(HOUR);
    world.subscribe("step-1", GOOD).await;
    for step in 2..8 {
        let plan = format!("step-{step}");
        world.clock.advance(DAY);
        world.changes_to(&plan).await;
        world.comes_to("the next step", |account| account["plan"] == plan).await;
    }
    for number in 0..8 {
        assert!(world.calls(&format!("{number}")).await, "call {number}");
    }
    world.is_proven(2_000_000).await;
    let preview = world.ask("GET", "/billing/invoice", Value::Null).await;
    assert_eq!(preview.status, 200, "{}", preview.text);
    let preview = preview.json();
    assert_eq!((&preview["used"], &preview["used_amount"]), (&json!("2"), &json!(50)));
    let lines = preview["lines"].as_array().expect("lines");
    assert_eq!(lines.len(), 13, "two for each change, and the next month");
    let sum: i64 = lines.iter().map(|line| line["amount"].as_i64().expect("an amount")).sum();
    assert_eq!(preview["total"], json!(sum + 50));
}

//! Tenants sign up, pay, use tools, are billed, and stop. Against the stand-in, through its pages and webhooks.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use weir::audit::Actor;
use weir::billing::shop::{Adjust, Back};
use weir::clock::Timestamp;
use weir::standin::{Fault, Trouble};

use crate::support::business::{Business, DAY, EMPTY, GOOD, HOUR, MINUTE};
use crate::support::eventually;
use crate::support::shop::Shop;

#[tokio::test]
async fn sign_up_pay_call_and_see_the_invoice() {
    let world = Business::first_customer().await;
    let account = world.account().await;
    assert_eq!((&account["plan"], &account["access"]), (&json!("free"), &json!("open")));
    let plans: Vec<_> = account["offers"]["plans"].as_array().expect("plans").iter().collect();
    assert_eq!(
        plans.iter().map(|plan| plan["plan"].as_str().expect("a name")).collect::<Vec<_>>(),
        ["firm", "pro", "taste", "team"]
    );
    world.subscribe("pro", GOOD).await;
    let second = world.ask("POST", "/billing/checkout", json!({ "plan": "team" })).await;
    assert_eq!(second.status, 409, "{}", second.text);
    let operator = world.gateway.operator().await;
    let by_hand = operator.request(Method::PUT, &format!("/admin/v1/tenants/{}/plan", world.tenant()));
    let by_hand = by_hand.header("content-type", "application/json").body(json!({ "plan": "free" }));
    let by_hand = by_hand.send().await;
    assert_eq!(by_hand.status, 409, "{}", by_hand.text);

    // Two credits are included; three more calls are owed.
    for number in 0..11 {
        assert!(world.calls(&format!("{number}")).await, "call {number}");
    }
    world.is_proven(750_000).await;
    let preview = world.ask("GET", "/billing/invoice", Value::Null).await;
    assert_eq!(preview.status, 200, "{}", preview.text);
    let preview = preview.json();
    assert_eq!((&preview["used"], &preview["in_flight"]), (&json!("0.75"), &json!("0")));
    // 0.75 credits of 25 cents.
    assert_eq!((&preview["used_amount"], &preview["total"]), (&json!(19), &json!(1919)));

    // The month is over, and so is the hour of grace.
    world.clock.advance(31 * DAY);
    world.clock.advance(2 * HOUR);
    eventually("the invoice", async || {
        world.clock.advance(Duration::from_secs(5));
        world.number("select count(*) from invoice_proofs where verdict = 'equal' and billed = 750000").await
            == 1
    })
    .await;
    eventually("its payment", async || {
        world.number("select count(*) from billing_invoices where status = 'paid' and total = 1919").await
            == 1
    })
    .await;
    // Base fee of the first month, then base fee of the second and usage of the first.
    assert_eq!(
        world.number("select cast(sum(amount_paid) as bigint) from billing_invoices").await,
        1900 + 1919
    );
    assert_eq!(world.account().await["access"], "open");
    world.is_verified().await;
}

#[tokio::test]
async fn a_card_that_fails_costs_access_step_by_step_and_paying_brings_it_back() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    let customer = world.text("select customer from billing_customers").await;
    world.standin.set_card(&customer, EMPTY).expect("a card");
    world.clock.advance(31 * DAY);
    world.clock.advance(HOUR + MINUTE);
    world.comes_to("grace", |account| account["access"] == "grace").await;
    for number in 0..9 {
        assert!(
            world.calls(&format!("grace {number}")).await,
            "two credits are included, and more may be owed"
        );
    }
    world.days(3).await;
    world.comes_to("restriction", |account| account["access"] == "restricted").await;
    eventually("no more debts", async || !world.calls(&format!("{}", world.clock.now())).await).await;
    world.pay("/billing/top_ups", json!({ "credits": "100" }), GOOD).await.expect("credits");
    eventually("bought credits work", async || world.calls(&format!("{}", world.clock.now())).await).await;
    world.days(11).await;
    world.comes_to("suspension", |account| account["access"] == "suspended").await;
    eventually("nothing that costs", async || !world.calls(&format!("{}", world.clock.now())).await).await;
    assert_eq!(world.ask("POST", "/billing/portal", Value::Null).await.status, 200, "it can be paid");
    world.pays_by(GOOD).await;
    world.comes_to("everything again", |account| account["access"] == "open").await;
    eventually("a call", async || world.calls(&format!("{}", world.clock.now())).await).await;
}

#[tokio::test]
async fn a_paid_page_funds_one_grant_and_a_declined_one_none() {
    let world = Business::first_customer().await;
    let odd = world.ask("POST", "/billing/top_ups", json!({ "credits": "7" })).await;
    assert_eq!((odd.status, odd.text.contains("expected one of 100")), (422, true), "{}", odd.text);
    let declined = world.pay("/billing/top_ups", json!({ "credits": "100" }), "4000000000000002").await;
    assert!(declined.is_err());
    world.standin.fault(Fault::new(Trouble::DuplicateDelivery));
    world.pay("/billing/top_ups", json!({ "credits": "100" }), GOOD).await.expect("paid");
    eventually("the grant", async || {
        world.number("select count(*) from grants where kind = 'prepaid'").await == 1
    })
    .await;
    world.standin.quiet().await;
    eventually("all events worked on", async || {
        world.number("select count(*) from stripe_events where state = 'new'").await == 0
    })
    .await;
    let granted = "select cast(sum(granted) as bigint) from grants where kind = 'prepaid'";
    assert_eq!(world.number(granted).await, 100_000_000);
    assert_eq!(world.number("select count(*) from top_ups").await, 2);
}

#[tokio::test]
async fn more_holds_at_once_and_less_from_the_next_month_on() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    world.days(10).await;
    let up = world.ask("PUT", "/billing/plan", json!({ "plan": "team" })).await;
    assert_eq!(up.status, 200, "{}", up.text);
    world.comes_to("the larger plan", |account| account["plan"] == "team").await;
    let total = async || world.ask("GET", "/billing/invoice", Value::Null).await.json()["total"].clone();
    let before = total().await;
    let down = world.ask("PUT", "/billing/plan", json!({ "plan": "pro" })).await;
    let from = down.json()["from"].as_str().expect("an instant").to_owned();
    world
        .comes_to("what follows", |account| {
            account["plan"] == "team"
                && account["next_plan"] == "pro"
                && account["next_plan_at"] == json!(from)
        })
        .await;
    // Second thoughts, and third ones.
    assert_eq!(world.ask("PUT", "/billing/plan", json!({ "plan": "team" })).await.status, 200);
    world.comes_to("nothing to follow", |account| account["next_plan"].is_null()).await;
    assert_eq!(total().await, before, "the month is paid for, and changing one's mind costs nothing");
    assert_eq!(world.ask("PUT", "/billing/plan", json!({ "plan": "pro" })).await.status, 200);
    world.comes_to("what follows", |account| account["next_plan"] == "pro").await;
    world.days(21).await;
    world.comes_to("the smaller plan", |account| account["plan"] == "pro").await;
    // It begins when the month does, to the second, and its months are those of the invoices.
    let begins = world.text("select max(starts_at) from periods").await;
    assert_eq!(begins.parse::<i64>().expect("a number") % 1_000_000, 0);
    assert_eq!(Timestamp::from_micros(begins.parse().expect("a number")).to_string(), from);

    let end = world.ask("DELETE", "/billing/plan", Value::Null).await;
    assert_eq!((end.status, &end.json()["plan"]), (200, &json!("free")), "{}", end.text);
    world.comes_to("the end", |account| account["next_plan"] == "free").await;
    world.days(31).await;
    world
        .comes_to("the plan after it", |account| {
            account["plan"] == "free" && account["has_subscription"] == false
        })
        .await;
    assert_eq!(world.ask("DELETE", "/billing/plan", Value::Null).await.status, 409);
    world.is_verified().await;
}

#[tokio::test]
async fn a_trial_owes_nothing_and_there_is_one() {
    let world = Business::first_customer().await;
    world.subscribe("taste", GOOD).await;
    let account = world.account().await;
    assert_eq!((&account["access"], &account["has_subscription"]), (&json!("trial"), &json!(true)));
    // Of four credits a little less than half.
    let mut done = 0;
    while world.calls(&format!("{done}")).await {
        done += 1;
        assert!(done < 16, "more than is included");
    }
    assert!(done >= 6, "{done}");
    assert_eq!(
        world.number("select cast(sum(overage_used + overage_leased) as bigint) from periods").await,
        0
    );
    world.days(15).await;
    world.comes_to("the first month", |account| account["access"] == "open").await;
    assert!(world.calls("paid").await);
    assert_eq!(world.ask("DELETE", "/billing/plan", Value::Null).await.status, 200);
    world.days(32).await;
    world.comes_to("its end", |account| account["has_subscription"] == false).await;
    world.subscribe("taste", GOOD).await;
    assert_eq!(world.account().await["access"], "open", "a second one is no trial");
    world.is_verified().await;
}

#[tokio::test]
async fn who_is_deleted_pays_no_longer() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    let operator = world.gateway.operator().await;
    let gone = operator.delete(&format!("/admin/v1/tenants/{}", world.tenant())).await;
    assert_eq!(gone.status, 204, "{}", gone.text);
    eventually("the end of the subscription", async || {
        world.clock.advance(Duration::from_secs(1));
        world.number("select count(*) from billing_subscriptions where status = 'canceled'").await == 1
    })
    .await;
}

#[tokio::test]
async fn what_is_given_back_is_no_more_than_was_paid_and_takes_its_credits_along() {
    let world = Business::first_customer().await;
    world.pay("/billing/top_ups", json!({ "credits": "100" }), GOOD).await.expect("paid");
    let charges = "select count(*) from billing_charges where amount = 2500 and status = 'succeeded'";
    eventually("the charge", async || world.number(charges).await == 1).await;
    eventually("the grant", async || {
        world.number("select count(*) from grants where kind = 'prepaid'").await == 1
    })
    .await;
    let charge = world.text("select id from billing_charges").await;
    let shop = world.gateway.app.shop.as_ref().expect("a shop");
    let give = |amount: Option<i64>, reason: &'static str| {
        let adjust = Adjust { actor: Actor::Cli, tenant: world.tenant(), amount, reason };
        shop.refund(adjust, &charge)
    };
    let more = give(Some(2501), "too much").await.expect_err("refused").to_string();
    assert!(more.contains("expected 1 to 2500"), "{more}");
    let first = give(Some(500), "half a day").await.expect("given back");
    // The answer was lost, and somebody asks once more.
    assert_eq!(give(Some(500), "half a day").await.expect("the same").id, first.id);
    let left = "select granted - used - voided from grants where kind = 'prepaid'";
    eventually("a part", async || world.number("select amount_refunded from billing_charges").await == 500)
        .await;
    assert_eq!(world.number(left).await, 100_000_000, "a part takes nothing");
    let other = world.gateway.tenant("other").await;
    let foreign = Adjust { actor: Actor::Cli, tenant: other, amount: None, reason: "not theirs" };
    assert!(matches!(shop.refund(foreign, &charge).await, Err(weir::error::Error::NotFound(_))));
    assert_eq!(give(None, "all of it").await.expect("given back").amount, 2000);
    eventually("the credits", async || world.number(left).await == 0).await;
    assert!(give(None, "once more").await.is_err());
    let noted =
        "select count(*) from audit_entries where action in ('billing.refund.asked', 'billing.refund')";
    assert_eq!(world.number(noted).await, 6);
}

#[tokio::test]
async fn a_corrected_invoice_and_a_dispute() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    eventually("the invoice", async || {
        world.number("select count(*) from billing_invoices where status = 'paid'").await == 1
    })
    .await;
    let invoice = world.text("select id from billing_invoices").await;
    let shop = world.gateway.app.shop.as_ref().expect("a shop");
    let adjust = |amount: i64| Adjust {
        actor: Actor::Cli,
        tenant: world.tenant(),
        amount: Some(amount),
        reason: "an outage",
    };
    assert!(shop.credit_note(adjust(1901), &invoice, Back::Balance).await.is_err());
    let note = shop.credit_note(adjust(400), &invoice, Back::Balance).await.expect("a note");
    assert_eq!((note.amount, note.currency.as_str()), (400, "usd"));
    shop.credit_note(adjust(300), &invoice, Back::Payer).await.expect("a note");
    eventually("the money", async || {
        world.number("select coalesce(max(amount_refunded), 0) from billing_charges").await == 300
    })
    .await;

    let charge = world.text("select id from billing_charges").await;
    let dispute = world.standin.dispute(&charge, None, "fraudulent").expect("a dispute");
    world.comes_to("restriction", |account| account["access"] == "restricted").await;
    world.standin.close_dispute(dispute["id"].as_str().expect("an id"), true).expect("won");
    world.comes_to("everything again", |account| account["access"] == "open").await;
    // What was left on the balance pays for the next month.
    world.clock.advance(31 * DAY);
    world.clock.advance(2 * HOUR);
    eventually("the second month", async || {
        world
            .number("select count(*) from billing_invoices where status = 'paid' and amount_paid = 1500")
            .await
            == 1
    })
    .await;
}

#[tokio::test]
async fn many_steps_make_one_invoice_and_pages_that_nobody_paid_on_are_closed() {
    let world = Business::first_customer().await;
    let shop = Shop { db: &world.gateway.app.db, clock: &world.clock };
    for step in 1..8 {
        let terms =
            json!({ "kind": "hybrid", "base_fee": 1000 * step, "self_service": true, "unpriced": "free" });
        shop.publish(&format!("step-{step}"), terms).await;
    }
    let first = world.ask("POST", "/billing/checkout", json!({ "plan": "step-1" })).await;
    world.subscribe("step-1", GOOD).await;
    let page = first.json()["url"].as_str().expect("a URL").to_owned();
    let page = page.rsplit('/').next().expect("a session").to_owned();
    assert!(world.standin.complete_checkout(&page, GOOD).is_err(), "it was closed");
    for step in 2..8 {
        let plan = format!("step-{step}");
        world.days(1).await;
        let changed = world.ask("PUT", "/billing/plan", json!({ "plan": plan })).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        world.comes_to("the next step", |account| account["plan"] == plan).await;
    }
    world.days(30).await;
    eventually("the invoice", async || {
        world.clock.advance(MINUTE);
        let sql = "select count(*) from invoice_proofs where verdict = 'equal' and billed = 0";
        world.number(sql).await == 1
    })
    .await;
    // Each step is paid for by the share of the month that it had, all of them and the next month at once.
    let billed = "select cast(max(amount_paid) as bigint) from billing_invoices";
    assert!(world.number(billed).await > 7000);
}

#[tokio::test]
async fn what_was_to_follow_makes_nothing_dearer() {
    let totals = async |by_way_of_less: bool| {
        let world = Business::first_customer().await;
        world.subscribe("team", GOOD).await;
        world.days(10).await;
        if by_way_of_less {
            assert_eq!(world.ask("PUT", "/billing/plan", json!({ "plan": "pro" })).await.status, 200);
            world.comes_to("what follows", |account| account["next_plan"] == "pro").await;
        }
        let up = world.ask("PUT", "/billing/plan", json!({ "plan": "firm" })).await;
        assert_eq!(up.status, 200, "{}", up.text);
        world
            .comes_to("the largest plan", |account| {
                account["plan"] == "firm" && account["next_plan"].is_null()
            })
            .await;
        // The rest of the month, and the next one.
        world.ask("GET", "/billing/invoice", Value::Null).await.json()["total"].as_i64().expect("an amount")
    };
    let (straight, round) = (totals(false).await, totals(true).await);
    // Some seconds go by on the way.
    assert!((straight - round).abs() <= 1, "{straight} and {round}");
}

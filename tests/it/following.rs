//! Accounts follow their subscriptions also where news comes late, in another order or not at all. Against the stand-in.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use weir::standin::{Fault, SECRET_KEY, Trouble};

use crate::support::business::{Business, Customer, DAY, EMPTY, GOOD, HOUR, MINUTE};
use crate::support::eventually;
use crate::support::gateway;

impl Business {
    /// How often a subscription was to be ended.
    fn endings(&self, id: &str) -> usize {
        let path = format!("/v1/subscriptions/{id}");
        self.standin.requests().iter().filter(|seen| seen.method == "DELETE" && seen.path == path).count()
    }

    /// Nothing that happens is told any more.
    async fn goes_deaf(&self) {
        let all = format!("{}/v1/webhook_endpoints", self.standin.base_url());
        let ask = |method: Method, url: &str| gateway::client().request(method, url).bearer_auth(SECRET_KEY);
        let listed = ask(Method::GET, &all).send().await.expect("an answer").text().await.expect("a body");
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        for endpoint in listed["data"].as_array().expect("a list") {
            let one = format!("{all}/{}", endpoint["id"].as_str().expect("an id"));
            let gone = ask(Method::DELETE, &one).send().await.expect("an answer");
            assert!(gone.status().is_success(), "{}", gone.status());
        }
    }
}

impl Customer {
    async fn subscription_id(&self) -> String {
        self.text(&format!("select id from billing_subscriptions where tenant_id = '{}'", self.tenant()))
            .await
    }
}

#[tokio::test]
async fn the_last_invoice_is_heard_of_before_the_end() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    for number in 0..9 {
        assert!(world.calls(&format!("{number}")).await, "call {number}");
    }
    world.is_proven(250_000).await;
    let end = world.ask("DELETE", "/billing/plan", Value::Null).await;
    assert_eq!(end.status, 200, "{}", end.text);
    world.comes_to("the end", |account| account["next_plan"] == "free").await;
    // What becomes of the subscription is heard of, and cannot be asked for.
    world.standin.quiet().await;
    world.standin.fault(Fault::new(Trouble::ServerError).on("GET", "/v1/subscriptions/").times(1000));
    world.clock.advance(31 * DAY);
    let invoices = "select count(*) from billing_invoices where billing_reason = 'subscription_cycle'";
    eventually("the last invoice", async || world.number(invoices).await == 1).await;
    world.comes_to("the plan after it", |account| account["plan"] == "free").await;
    let waiting = "select count(*) from stripe_events where state = 'new' and object_kind = 'invoice'";
    eventually("all that is heard of it", async || world.number(waiting).await == 0).await;
    let months = "select count(*) from periods where plan = 'pro'";
    assert_eq!(world.number(months).await, 1, "nobody pays for another one");
    world.standin.clear_faults();
    eventually("the end of the subscription", async || {
        world.clock.advance(Duration::from_secs(5));
        world.number("select count(*) from billing_subscriptions where status = 'canceled'").await == 1
    })
    .await;
    let account = world.account().await;
    assert_eq!((&account["plan"], &account["has_subscription"]), (&json!("free"), &json!(false)));
    assert_eq!(world.number(months).await, 1);
}

#[tokio::test]
async fn a_payment_that_is_never_told_of_is_found_within_an_hour() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    let customer = world.text("select customer from billing_customers").await;
    world.standin.set_card(&customer, EMPTY).expect("a card");
    world.clock.advance(31 * DAY);
    world.clock.advance(HOUR + MINUTE);
    world.comes_to("grace", |account| account["access"] == "grace").await;
    world.standin.quiet().await;
    world.goes_deaf().await;
    world.pays_by(GOOD).await;
    world.clock.advance(HOUR);
    world.comes_to("everything again", |account| account["access"] == "open").await;
}

#[tokio::test]
async fn a_subscription_that_cannot_be_ended_keeps_no_other_waiting() {
    let business = Business::new().await;
    let customers = [business.customer().await, business.customer().await];
    business.clock.advance(Duration::from_secs(1));
    let operator = business.gateway.operator().await;
    let mut ids = Vec::new();
    for customer in &customers {
        customer.subscribe("pro", GOOD).await;
        ids.push(customer.subscription_id().await);
    }
    // Of the one that is found first.
    let stuck = ids.iter().min().expect("two").clone();
    business.standin.fault(
        Fault::new(Trouble::ServerError).on("DELETE", &format!("/v1/subscriptions/{stuck}")).times(1000),
    );
    for customer in &customers {
        let gone = operator.delete(&format!("/admin/v1/tenants/{}", customer.tenant())).await;
        assert_eq!(gone.status, 204, "{}", gone.text);
    }
    let ended = "select count(*) from billing_subscriptions where status = 'canceled'";
    eventually("the end of the other", async || business.number(ended).await == 1).await;
    eventually("a try", async || business.endings(&stuck) > 0).await;
    business.standin.clear_faults();
    let tries = business.endings(&stuck);
    business.clock.advance(10 * MINUTE);
    eventually("the end of the first", async || {
        business.clock.advance(Duration::from_secs(1));
        business.number(ended).await == 2
    })
    .await;
    let attempts = usize::try_from(business.gateway.app.config.billing.attempts).expect("few");
    assert!(tries <= attempts && business.endings(&stuck) <= tries + attempts, "nobody insists");
}

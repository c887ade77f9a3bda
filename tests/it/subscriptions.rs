//! Tenants sign up, pay, use tools, are billed, and stop. Against the stand-in, through its pages and webhooks.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use weir::audit::Actor;
use weir::billing::shop::{Adjust, Back};
use weir::clock::{Clock, Timestamp};
use weir::id::TenantId;
use weir::standin::{Fault, SECRET_KEY, Standin, Trouble};

use crate::support::database::rows;
use crate::support::gateway::{self, Key};
use crate::support::shop::Shop;
use crate::support::stripe::{self, standin};
use crate::support::{Draft, Gateway, Modern, Reply, eventually};

/// 2026-09-21T14:13:20Z.
const START: i64 = 1_790_000_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const SECRET: &str = "whsec_0123456789abcdef0123456789abcdef";
const GOOD: &str = "4242424242424242";
/// Can be saved, and every charge of it is declined.
const EMPTY: &str = "4000000000000341";

/// A gateway that sells, a stand-in that tells it what happens, and a tenant with a key that buys and one that calls.
struct World {
    clock: Clock,
    standin: Standin,
    gateway: Gateway,
    buyer: Key,
    caller: Key,
}

impl World {
    async fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_micros(START));
        let standin = standin(clock.clone()).await;
        let gateway = stripe::billing(&clock, &standin)
            .set("billing.webhook_secrets", SECRET)
            .set("billing.credit_price", "25")
            .set("billing.after_plan", "free")
            .set("billing.top_ups", "100=2500")
            .set("billing.export_every_ms", 100)
            .set("billing.inbox_every_ms", 50)
            .start()
            .await;
        standin.add_webhook(&format!("{}/webhooks/stripe", gateway.url), SECRET).expect("an endpoint");
        let app = &gateway.app;
        stripe::set_up(&gateway, &clock).await;
        let shop = Shop { db: &app.db, clock: &clock };
        let tools = json!([{ "name": "work", "server": "lab", "per_call": "0.25" }]);
        for (plan, terms) in [
            ("free", json!({ "kind": "free", "included": "1" })),
            ("pro", json!({ "kind": "hybrid", "included": "2", "base_fee": 1900, "self_service": true })),
            ("team", json!({ "kind": "hybrid", "included": "8", "base_fee": 4900, "self_service": true })),
            ("firm", json!({ "kind": "hybrid", "included": "9", "base_fee": 9900, "self_service": true })),
            (
                "taste",
                json!({ "kind": "hybrid", "included": "4", "base_fee": 900, "trial_days": 14, "self_service": true }),
            ),
        ] {
            let mut terms = terms;
            terms["tools"] = tools.clone();
            shop.publish(plan, terms).await;
        }
        let caller = shop.customer("free").await;
        let buyer = gateway.scoped(caller.tenant, json!({ "billing": true })).await;
        clock.advance(Duration::from_secs(1));
        Self { clock, standin, gateway, buyer, caller }
    }

    fn tenant(&self) -> TenantId {
        self.caller.tenant
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> Reply {
        let url = format!("{}{path}", self.gateway.url);
        let draft = Draft::new(&self.gateway.http, method.parse().expect("a method"), url);
        let draft = draft.bearer(&self.buyer.secret).header("content-type", "application/json");
        let draft = if body.is_null() { draft } else { draft.body(body) };
        draft.send().await
    }

    async fn account(&self) -> Value {
        let reply = self.ask("GET", "/billing", Value::Null).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json().clone()
    }

    /// Waits until the account is so.
    async fn comes_to(&self, what: &str, is: impl Fn(&Value) -> bool) {
        eventually(what, async || {
            // What a change of plan is announced ahead by.
            self.clock.advance(Duration::from_millis(20));
            is(&self.account().await)
        })
        .await;
    }

    /// Opens the page that a request answers with, and pays there.
    async fn pay(&self, path: &str, body: Value, card: &str) -> Result<Value, String> {
        let reply = self.ask("POST", path, body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let url = reply.json()["url"].as_str().expect("a URL").to_owned();
        let session =
            url.rsplit('/').next().and_then(|last| last.split(['?', '#']).next()).expect("a session");
        self.standin.complete_checkout(session, card)
    }

    async fn subscribe(&self, plan: &str, card: &str) {
        self.pay("/billing/checkout", json!({ "plan": plan }), card).await.expect("a subscription");
        self.comes_to("the subscription", |account| account["plan"] == plan).await;
        self.clock.advance(Duration::from_secs(1));
    }

    /// Calls a tool that costs a quarter of a credit; whether it was done.
    async fn calls(&self, id: &str) -> bool {
        let client = Modern::new(&self.gateway, &self.caller);
        let reply = client.call("work", json!({ "id": id })).await;
        reply.result()["isError"] == json!(false)
    }

    /// Whether the ledger is right.
    async fn is_verified(&self) {
        Shop { db: &self.gateway.app.db, clock: &self.clock }.is_verified().await;
    }

    async fn number(&self, sql: &str) -> i64 {
        rows(self.gateway.database_url(), sql).await[0][0].parse().expect("a number")
    }

    async fn text(&self, sql: &str) -> String {
        rows(self.gateway.database_url(), sql).await[0][0].clone()
    }

    /// Waits until everything that was owed is told and proven.
    async fn is_proven(&self, micros: i64) {
        let sum = "select cast(coalesce(sum(counted), 0) as bigint) from exports";
        eventually("proof", async || {
            self.clock.advance(Duration::from_secs(20));
            self.number(sum).await == micros
        })
        .await;
    }

    /// Time goes on, in steps in which everybody can keep up.
    async fn days(&self, days: u32) {
        for _ in 0..days {
            self.clock.advance(DAY);
            self.standin.quiet().await;
        }
    }

    /// Somebody else with the same key does something at the stand-in.
    async fn at_stripe(&self, path: &str) {
        let request = gateway::client().post(format!("{}{path}", self.standin.base_url()));
        let answer = request.bearer_auth(SECRET_KEY).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
    }

    /// Gives the tenant's customer another card, and has its open invoice paid by it.
    async fn pays_by(&self, card: &str) {
        let sql = format!("select customer from billing_customers where tenant_id = '{}'", self.tenant());
        self.standin.set_card(&self.text(&sql).await, card).expect("a card");
        let invoice = self.text("select id from billing_invoices where status = 'open'").await;
        self.at_stripe(&format!("/v1/invoices/{invoice}/pay")).await;
    }
}

#[tokio::test]
async fn sign_up_pay_call_and_see_the_invoice() {
    let world = World::new().await;
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
    let world = World::new().await;
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
    let world = World::new().await;
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
    let world = World::new().await;
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
    let world = World::new().await;
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
    let world = World::new().await;
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
    let world = World::new().await;
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
    let world = World::new().await;
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
    let world = World::new().await;
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
        let world = World::new().await;
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

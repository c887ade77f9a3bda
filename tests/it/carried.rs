//! What a final invoice leaves out is on a later one, and what it bills too much is given back there. Against the stand-in.

use std::time::Duration;

use serde_json::{Value, json};
use weir::clock::Timestamp;
use weir::standin::{Billed, Change};

use crate::support::business::{Business, Customer, DAY, GOOD, HOUR, MINUTE};
use crate::support::eventually;

/// So many micro-credits a call costs.
const PRICE: i64 = 250_000;

impl Customer {
    /// Uses up what is included, calls so often, and waits until all of that is owed.
    async fn owes(&self, calls: i64) {
        let owed = "select cast(coalesce(sum(overage_used), 0) as bigint) from periods";
        let before = self.number(owed).await;
        // Two credits are included.
        for number in 0..8 + calls {
            assert!(self.calls(&format!("{} {number}", self.clock.now())).await);
        }
        let micros = before + calls * PRICE;
        self.clock.advance(5 * MINUTE);
        eventually("the calls are owed", async || self.number(owed).await == micros).await;
    }

    /// Waits until there is an invoice of this verdict that bills so much, and leaves so much to a later one.
    async fn invoice(&self, verdict: &str, (billed, carried): (i64, i64)) {
        let sql = format!(
            "select count(*) from invoice_proofs where verdict = '{verdict}' and billed = {billed} and carried = {carried}"
        );
        eventually("the invoice", async || {
            self.clock.advance(MINUTE);
            self.standin.quiet().await;
            self.number(&sql).await == 1
        })
        .await;
    }

    /// Waits until all that is owed is told and proven.
    async fn is_told(&self) {
        let sql = "select (select count(*) from period_books where owed <> told)
                        + (select count(*) from exports where state in ('open', 'sent'))";
        eventually("it is told", async || {
            self.clock.advance(MINUTE);
            self.number(sql).await == 0
        })
        .await;
    }

    /// Goes on until shortly before the end of the month that is paid for.
    async fn month_ends_in(&self, span: Duration) {
        let end = self.number("select max(current_period_end) from billing_subscriptions").await;
        let from = self.clock.now().as_micros();
        let left = u64::try_from(end - from).expect("it is not over")
            - u64::try_from(span.as_micros()).expect("short");
        self.clock.advance(Duration::from_micros(left));
        self.standin.quiet().await;
    }

    async fn used(&self) -> Value {
        let preview = self.ask("GET", "/billing/invoice", Value::Null).await;
        assert_eq!(preview.status, 200, "{}", preview.text);
        json!([preview.json()["used"], preview.json()["total"]])
    }
}

#[tokio::test]
async fn what_an_invoice_leaves_out_is_on_the_next_one() {
    let world = Business::first_customer().await;
    let shown = Change { invoices_bill: Some(Billed::Shown), ..Change::default() };
    world.standin.set(shown).expect("a setting");
    world.subscribe("pro", GOOD).await;
    // Three quarters of a credit are owed in the last hour, and summaries show them a quarter of a day later.
    world.month_ends_in(HOUR).await;
    world.standin.set_summary_lag(6 * HOUR);
    world.owes(3).await;
    assert_eq!(world.used().await, json!(["0.75", 1919]));
    // Each process gives back what it holds for itself: there may be several events.
    let untold = "select (select count(*) from period_books where owed <> told)
                       + (select count(*) from exports where state = 'open')";
    eventually("all of it to be told", async || {
        world.clock.advance(Duration::from_secs(20));
        world.number(untold).await == 0
    })
    .await;
    world.month_ends_in(Duration::ZERO).await;
    world.clock.advance(2 * HOUR);
    world.invoice("in_flight", (0, 0)).await;
    world.clock.advance(6 * HOUR);
    world.invoice("carried", (0, 3 * PRICE)).await;
    let told = "select cast(sum(credits) as bigint) from exports";
    eventually("the same once more", async || {
        world.clock.advance(MINUTE);
        world.number(told).await == 6 * PRICE
    })
    .await;
    assert_eq!(world.used().await, json!(["0.75", 1919]), "it is on the next one");
    world.clock.advance(7 * HOUR);
    world.month_ends_in(Duration::ZERO).await;
    world.clock.advance(2 * HOUR);
    world.invoice("equal", (3 * PRICE, 0)).await;
    eventually("the payment", async || {
        world.number("select count(*) from billing_invoices where status = 'paid' and total = 1919").await
            == 1
    })
    .await;
    assert_eq!(world.number(told).await, 6 * PRICE);
    assert_eq!(world.used().await, json!(["0", 1900]));
}

#[tokio::test]
async fn what_was_billed_too_much_is_given_back_as_soon_as_there_is_something_to_give_it_back_from() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    world.clock.advance(HOUR);
    world.owes(2).await;
    world.is_proven(2 * PRICE).await;
    // Somebody else tells the meter of a credit in the same minute.
    let slot = Timestamp::from_micros(world.number("select max(slot) from exports").await);
    let customer = world.text("select customer from billing_customers").await;
    world
        .at_stripe(&format!(
            "/v1/billing/meter_events?event_name=weir_credits&timestamp={}&payload[stripe_customer_id]={customer}\
             &payload[value]={}",
            slot.as_seconds(),
            4 * PRICE
        ))
        .await;
    world.month_ends_in(Duration::ZERO).await;
    world.clock.advance(2 * HOUR);
    world.invoice("equal", (6 * PRICE, 0)).await;
    world.is_told().await;
    world.month_ends_in(Duration::ZERO).await;
    world.clock.advance(2 * HOUR);
    world.invoice("carried", (0, -4 * PRICE)).await;
    world.is_told().await;
    world.clock.advance(DAY);
    world.owes(5).await;
    assert_eq!(world.used().await, json!(["0.25", 1906]));
    world.is_told().await;
    world.month_ends_in(Duration::ZERO).await;
    world.clock.advance(2 * HOUR);
    world.invoice("equal", (PRICE, 0)).await;
}

#[tokio::test]
async fn a_preview_has_all_that_the_invoice_will_have() {
    let world = Business::first_customer().await;
    world.subscribe("pro", GOOD).await;
    world.clock.advance(DAY);
    world.owes(3).await;
    let up = world.ask("PUT", "/billing/plan", json!({ "plan": "team" })).await;
    assert_eq!(up.status, 200, "{}", up.text);
    world.comes_to("the larger plan", |account| account["plan"] == "team").await;
    assert_eq!(world.used().await[0], "0.75", "what was owed on the plan before is on the same invoice");
}

//! The stand-in for Stripe where money is concerned: what its objects are, and what happens when its time goes on. That
//! every operation gets along with Stripe's own SDK is another story, `make stripe-sdk`.

use std::collections::BTreeSet;
use std::time::Duration;

use miniserde::Deserialize;
use serde_json::{Value, json};
use weir::clock::{Clock, Timestamp};
use weir::standin::{AfterRetries, Change};

use super::standin::{HOUR, Site};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn at(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().expect("a time").as_second()
}

fn day(seconds: &Value) -> String {
    let time = jiff::Timestamp::from_second(seconds.as_i64().expect("a time")).expect("a time");
    time.to_string()
}

/// A stand-in whose clock is somebody else's, too, and what is sold there.
struct Shop {
    site: Site,
    clock: Clock,
    meter: String,
    customer: String,
    /// A month, 10.00; a month, 30.00; a unit of usage, 0.005.
    basic: String,
    pro: String,
    metered: String,
}

impl Shop {
    async fn open(time: &str) -> Self {
        let clock = Clock::manual(Timestamp::from_micros(at(time) * 1_000_000));
        let site = Site::with(clock.clone()).await;
        let (meter, customer) = site.shop().await;
        let product = site.send("POST /v1/products", "name=Plan").await.id().to_owned();
        let month = format!("currency=usd&product={product}&recurring[interval]=month");
        let price = async |rest: &str| {
            let made = site.send("POST /v1/prices", &format!("{month}&{rest}")).await;
            made.id().to_owned()
        };
        let (basic, pro) = (price("unit_amount=1000").await, price("unit_amount=3000").await);
        let usage = format!("recurring[usage_type]=metered&recurring[meter]={meter}&unit_amount_decimal=0.5");
        let metered = price(&usage).await;
        let shop = Self { site, clock, meter, customer, basic, pro, metered };
        shop.card("visa");
        shop
    }

    fn card(&self, card: &str) {
        self.site.standin.set_card(&self.customer, card).expect("a card");
    }

    fn items(&self) -> String {
        format!("items[0][price]={}&items[1][price]={}", self.basic, self.metered)
    }

    async fn subscribe(&self, rest: &str) -> Value {
        let form = format!("customer={}&{}{rest}", self.customer, self.items());
        let made = self.site.send("POST /v1/subscriptions", &form).await;
        assert_eq!(made.status, 200, "{}", made.body);
        made.body
    }

    async fn get(&self, path: &str) -> Value {
        let found = self.site.send(&format!("GET /v1/{path}"), "").await;
        assert_eq!(found.status, 200, "{path}: {}", found.body);
        found.body
    }

    async fn subscription(&self, made: &Value) -> Value {
        self.get(&format!("subscriptions/{}", made["id"].as_str().expect("an id"))).await
    }

    /// The newest invoice.
    async fn invoice(&self) -> Value {
        self.get(&format!("invoices?customer={}&limit=1", self.customer)).await["data"][0].clone()
    }

    /// Checks the objects of all events that there are, and takes note of the events' types.
    async fn hear(&self, kinds: &mut BTreeSet<String>) {
        let events = self.get("events?limit=100").await;
        assert_eq!(events["has_more"], false, "all of them");
        for event in events["data"].as_array().expect("a list") {
            assert!(fits(&event["data"]["object"]), "{event:#}");
            kinds.insert(event["type"].as_str().expect("a type").to_owned());
        }
    }

    /// Moves the clock that the stand-in was given.
    fn to(&self, time: i64) {
        let span = time - self.site.standin.now().as_seconds();
        self.clock.advance(Duration::from_secs(u64::try_from(span).expect("time goes on")));
    }
}

fn end_of(subscription: &Value) -> i64 {
    subscription["items"]["data"][0]["current_period_end"].as_i64().expect("a time")
}

/// Whether an object is of the type that the client reads it as.
fn fits(object: &Value) -> bool {
    fn is<T: Deserialize>(object: &Value) -> bool {
        miniserde::json::from_str::<T>(&object.to_string()).is_ok()
    }
    match object["object"].as_str().expect("a kind") {
        "charge" => is::<stripe_shared::Charge>(object),
        "checkout.session" => is::<stripe_shared::CheckoutSession>(object),
        "credit_note" => is::<stripe_shared::CreditNote>(object),
        "customer" => is::<stripe_shared::Customer>(object),
        "dispute" => is::<stripe_shared::Dispute>(object),
        "invoice" => is::<stripe_shared::Invoice>(object),
        "payment_intent" => is::<stripe_shared::PaymentIntent>(object),
        "payment_method" => is::<stripe_shared::PaymentMethod>(object),
        "refund" => is::<stripe_shared::Refund>(object),
        "subscription" => is::<stripe_shared::Subscription>(object),
        _ => true,
    }
}

/// Buys something, disputes that, and opens a session in which nobody buys anything: its id.
async fn buy_and_dispute(shop: &Shop) -> String {
    let standin = &shop.site.standin;
    let form = format!(
        "mode=payment&customer={}&success_url=http://localhost/&line_items[0][quantity]=1\
         &line_items[0][price_data][currency]=usd&line_items[0][price_data][unit_amount]=700\
         &line_items[0][price_data][product_data][name]=Credits&invoice_creation[enabled]=true",
        shop.customer
    );
    let session = shop.site.send("POST /v1/checkout/sessions", &form).await;
    assert!(standin.complete_checkout(session.id(), "chargeDeclined").is_err());
    standin.complete_checkout(session.id(), "visa").expect("paid");
    let path = format!(
        "checkout/sessions/{}?expand[]=line_items&expand[]=payment_intent.latest_charge",
        session.id()
    );
    let done = shop.get(&path).await;
    assert!(fits(&done) && done["payment_intent"]["latest_charge"]["amount"] == 700, "{done}");
    let charge = shop.get("charges?limit=1").await["data"][0]["id"].as_str().expect("an id").to_owned();
    let dispute = standin.dispute(&charge, None, "fraudulent").expect("a dispute");
    standin.close_dispute(dispute["id"].as_str().expect("an id"), true).expect("closed");
    shop.site.send("POST /v1/checkout/sessions", &form).await.id().to_owned()
}

#[tokio::test]
async fn what_events_tell_is_of_the_types() {
    let shop = Shop::open("2027-01-01T00:00:00Z").await;
    let mut kinds = BTreeSet::new();
    let made = shop.subscribe("&trial_period_days=10").await;
    let item = made["items"]["data"][0]["id"].as_str().expect("an id");
    let id = made["id"].as_str().expect("an id");
    shop.to(end_of(&made) + 3600);
    let form = format!("items[0][id]={item}&items[0][price]={}&proration_behavior=always_invoice", shop.pro);
    let changed = shop.site.send(&format!("POST /v1/subscriptions/{id}"), &form).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let invoice = shop.invoice().await;
    let invoice = invoice["id"].as_str().expect("an id");
    let expanded = shop.get(&format!("invoices/{invoice}?expand[]=payments&expand[]=customer")).await;
    assert!(fits(&expanded) && expanded["payments"]["data"][0]["status"] == "paid", "{expanded}");
    let lines = shop.site.send(&format!("GET /v1/invoices/{invoice}/lines"), "").await;
    assert!(!lines.read::<stripe_types::List<stripe_shared::InvoiceLineItem>>().data.is_empty());
    let note = format!("invoice={invoice}&amount=100&refund_amount=60&credit_amount=40");
    assert_eq!(shop.site.send("POST /v1/credit_notes", &note).await.status, 200);
    let over = buy_and_dispute(&shop).await;
    shop.card("chargeCustomerFail");
    shop.hear(&mut kinds).await;
    shop.to(end_of(&changed.body) + 3600);
    let open = shop.invoice().await;
    let path = format!("POST /v1/invoices/{}/void", open["id"].as_str().expect("an id"));
    assert_eq!(shop.site.send(&path, "").await.status, 200);
    assert_eq!(
        shop.site.send(&format!("DELETE /v1/subscriptions/{id}"), "").await.body["status"],
        "canceled"
    );
    assert_eq!(shop.get(&format!("checkout/sessions/{over}")).await["status"], "expired");

    let preview = shop.subscribe("&trial_period_days=10").await;
    let form = format!("subscription={}", preview["id"].as_str().expect("an id"));
    assert!(fits(&shop.site.send("POST /v1/invoices/create_preview", &form).await.body));
    shop.hear(&mut kinds).await;
    let kinds: Vec<_> = kinds.iter().map(String::as_str).filter(|kind| !kind.starts_with("pr")).collect();
    insta::assert_snapshot!(kinds.join("\n"), @r"
    billing.meter.created
    charge.dispute.closed
    charge.dispute.created
    charge.dispute.funds_reinstated
    charge.dispute.funds_withdrawn
    charge.failed
    charge.refunded
    charge.succeeded
    charge.updated
    checkout.session.completed
    credit_note.created
    customer.created
    customer.subscription.created
    customer.subscription.deleted
    customer.subscription.trial_will_end
    customer.subscription.updated
    customer.updated
    invoice.created
    invoice.finalized
    invoice.paid
    invoice.payment_failed
    invoice.payment_succeeded
    invoice.updated
    invoice.voided
    invoiceitem.created
    payment_intent.canceled
    payment_intent.created
    payment_intent.payment_failed
    payment_intent.succeeded
    payment_method.attached
    refund.created
    ");
}

#[tokio::test]
async fn a_month_that_is_too_short_shortens_no_other() {
    let shop = Shop::open("2027-01-31T12:00:00Z").await;
    let made = shop.subscribe("").await;
    let mut ends = Vec::new();
    for _ in 0..4 {
        let subscription = shop.subscription(&made).await;
        ends.push(day(&subscription["items"]["data"][0]["current_period_end"]));
        assert_eq!(subscription["billing_cycle_anchor"], made["billing_cycle_anchor"]);
        shop.to(end_of(&subscription));
    }
    assert_eq!(
        ends,
        ["2027-02-28", "2027-03-31", "2027-04-30", "2027-05-31"].map(|end| format!("{end}T12:00:00Z"))
    );
}

#[tokio::test]
async fn usage_is_read_when_the_grace_is_over_and_never_again() {
    let shop = Shop::open("2027-03-01T00:00:00Z").await;
    let grace = Change { finalization_grace_seconds: Some(72 * 3600), ..Change::default() };
    shop.site.standin.set(grace).expect("a grace");
    let made = shop.subscribe("").await;
    let end = end_of(&made);
    let of_march = format!("&timestamp={}", end - 1);
    shop.to(end - 1);
    shop.site.record(&shop.customer, "100", "").await;
    // Whether summaries show it or not.
    shop.site.standin.set_summary_lag(240 * HOUR);
    shop.to(end + 72 * 3600 - 1);
    shop.site.record(&shop.customer, "20", &of_march).await;
    shop.site.record(&shop.customer, "1000", "").await;
    let draft = shop.invoice().await;
    assert_eq!((&draft["status"], &draft["subtotal"]), (&json!("draft"), &json!(1050)), "as it was made");
    let path = format!("invoices/{}", draft["id"].as_str().expect("an id"));
    assert_eq!(shop.get(&path).await["subtotal"], 1060, "as it is now");
    shop.to(end + 72 * 3600);
    shop.site.record(&shop.customer, "400", &of_march).await;
    let invoice = shop.get(&path).await;
    assert_eq!((&invoice["status"], &invoice["amount_paid"]), (&json!("paid"), &json!(1060)));
    let lines = shop.get(&format!("{path}/lines")).await;
    let used = lines["data"]
        .as_array()
        .expect("lines")
        .iter()
        .find(|line| line["pricing"]["price_details"]["price"] == shop.metered.as_str());
    let used = used.expect("a line for usage");
    assert_eq!(
        (&used["quantity"], &used["period"]),
        (&json!(120), &json!({ "start": at("2027-03-01T00:00:00Z"), "end": end }))
    );
    let (from, total) = (
        at("2027-03-01T00:00:00Z"),
        shop.site.standin.total(&shop.meter, &shop.customer, at("2027-03-01T00:00:00Z"), end),
    );
    assert_eq!(total - 400, 120, "what came too late since {from}");
}

#[tokio::test]
async fn a_long_leap_lives_through_everything_in_order() {
    let shop = Shop::open("2027-01-01T00:00:00Z").await;
    shop.site
        .standin
        .set(Change { after_retries: Some(AfterRetries::Cancel), ..Change::default() })
        .expect("set");
    let made = shop.subscribe("").await;
    shop.card("4000000000000341");
    let start = shop.site.standin.now().as_seconds();
    shop.site.standin.advance(60 * DAY);
    let subscription = shop.subscription(&made).await;
    assert_eq!(subscription["status"], "canceled");
    let events = shop.get(&format!("events?limit=100&created[gt]={start}")).await;
    let mut told: Vec<_> = events["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| format!("{} {}", day(&event["created"]), event["type"].as_str().expect("a type")))
        .collect();
    told.reverse();
    insta::assert_snapshot!(told.join("\n"), @r"
    2027-02-01T00:00:00Z invoice.created
    2027-02-01T00:00:00Z customer.subscription.updated
    2027-02-01T01:00:00Z payment_intent.created
    2027-02-01T01:00:00Z invoice.finalized
    2027-02-01T01:00:00Z charge.failed
    2027-02-01T01:00:00Z payment_intent.payment_failed
    2027-02-01T01:00:00Z invoice.payment_failed
    2027-02-01T01:00:00Z customer.subscription.updated
    2027-02-02T01:00:00Z charge.failed
    2027-02-02T01:00:00Z payment_intent.payment_failed
    2027-02-02T01:00:00Z invoice.payment_failed
    2027-02-04T01:00:00Z charge.failed
    2027-02-04T01:00:00Z payment_intent.payment_failed
    2027-02-04T01:00:00Z invoice.payment_failed
    2027-02-06T01:00:00Z charge.failed
    2027-02-06T01:00:00Z payment_intent.payment_failed
    2027-02-06T01:00:00Z invoice.payment_failed
    2027-02-08T01:00:00Z charge.failed
    2027-02-08T01:00:00Z payment_intent.payment_failed
    2027-02-08T01:00:00Z invoice.payment_failed
    2027-02-08T01:00:00Z customer.subscription.deleted
    2027-02-08T01:00:00Z invoice.updated
    ");
}

#[tokio::test]
async fn a_change_of_plan_is_billed_as_it_was_previewed() {
    let shop = Shop::open("2027-01-01T00:00:00Z").await;
    // The first period is ten days of the 31 up to the anchor.
    let anchor = at("2027-01-11T00:00:00Z");
    let made = shop.subscribe(&format!("&billing_cycle_anchor={anchor}")).await;
    assert_eq!(shop.invoice().await["total"], 323);
    shop.to(at("2027-01-06T00:00:00Z"));
    let (id, item) =
        (made["id"].as_str().expect("an id"), made["items"]["data"][0]["id"].as_str().expect("an id"));
    let items =
        |prefix: &str| format!("{prefix}[items][0][id]={item}&{prefix}[items][0][price]={}", shop.pro);
    let form = format!("subscription={id}&{}", items("subscription_details"));
    let preview = shop.site.send("POST /v1/invoices/create_preview", &form).await;
    let form = items("x").replace("x[items]", "items");
    assert_eq!(shop.site.send(&format!("POST /v1/subscriptions/{id}"), &form).await.status, 200);
    shop.to(anchor + 3600);
    let invoice = shop.invoice().await;
    let amounts: Vec<_> = invoice["lines"]["data"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| line["amount"].clone())
        .collect();
    // Half of what was billed comes back; five days of 31 are billed anew; then the new plan, and no usage.
    assert_eq!(amounts, [json!(-162), json!(484), json!(3000), json!(0)]);
    assert_eq!((&invoice["total"], &invoice["status"]), (&preview.body["total"], &json!("paid")));
    let free = format!("&billing_cycle_anchor={}&proration_behavior=none", anchor + 10 * 86_400);
    assert_eq!(shop.subscribe(&free).await["latest_invoice"], Value::Null);
}

#[tokio::test]
async fn checkout_is_open_for_a_day_and_knows_an_anchor_that_went_by() {
    let shop = Shop::open("2027-01-10T12:00:00Z").await;
    let anchor = at("2027-01-11T00:00:00Z");
    let form = format!(
        "mode=subscription&customer={}&success_url=http://localhost/&line_items[0][price]={}&line_items[0][quantity]=1\
         &line_items[1][price]={}&subscription_data[billing_cycle_anchor]={anchor}&client_reference_id=t1",
        shop.customer, shop.basic, shop.metered
    );
    let session = shop.site.send("POST /v1/checkout/sessions", &form).await;
    let read: stripe_shared::CheckoutSession = session.read();
    assert_eq!(read.amount_total, Some(16), "half a day of 31");
    let page = shop.site.send(&format!("GET /_standin/checkout/{}", session.id()), "").await;
    assert!(page.body.as_str().expect("a page").contains("No money moves"), "{}", page.body);
    assert_eq!(
        shop.site.send("POST /v1/checkout/sessions", &form.replace("quantity]=1", "quantity]=")).await.status,
        400
    );
    let late = shop.site.send("POST /v1/checkout/sessions", &form).await;
    shop.to(anchor + 3600);
    let done = shop.site.standin.complete_checkout(session.id(), "visa").expect("paid");
    let subscription =
        shop.get(&format!("subscriptions/{}", done["subscription"].as_str().expect("an id"))).await;
    let item = &subscription["items"]["data"][0];
    assert_eq!(
        (day(&item["current_period_start"]), day(&item["current_period_end"])),
        ("2027-01-11T00:00:00Z".to_owned(), "2027-02-11T00:00:00Z".to_owned())
    );
    assert_eq!(shop.invoice().await["amount_paid"], 1000, "a whole period");
    shop.to(at("2027-01-11T12:00:00Z"));
    let trouble = shop.site.standin.complete_checkout(late.id(), "visa");
    assert_eq!(trouble.expect_err("over"), "The session is expired.");
}

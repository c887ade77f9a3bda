//! What Stripe says comes in by the front door, signed, once, and is worked on until the mirror says the same. Against the stand-in.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use weir::billing::customers;
use weir::billing::inbox::{Inbox, Round};
use weir::billing::job::Job;
use weir::billing::stripe::Stripe;
use weir::clock::{Clock, Timestamp};
use weir::db::mirror::{charges, checkouts, invoices, subscriptions};
use weir::id::TenantId;
use weir::standin::{Fault, Options, SECRET_KEY, Standin, Trouble};
use weir::tasks::Tasks;

use crate::support::database::rows;
use crate::support::gateway::{self, Builder};
use crate::support::shop::Shop;
use crate::support::{Gateway, eventually, within};

/// 2026-09-21T14:13:20Z.
const START: i64 = 1_790_000_000;
const SECRET: &str = "whsec_0123456789abcdef";
const DAY: Duration = Duration::from_secs(86_400);

/// A gateway that bills through a stand-in, and a tenant that is a customer there.
struct World {
    clock: Clock,
    standin: Standin,
    gateway: Gateway,
    tenant: TenantId,
    customer: String,
}

/// What an answer said.
#[derive(Debug)]
struct Said {
    status: u16,
    body: Value,
}

impl World {
    async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    /// With other settings.
    async fn with(settings: impl FnOnce(Builder) -> Builder) -> Self {
        weir::egress::install_crypto();
        let clock = Clock::manual(Timestamp::from_micros(START * 1_000_000));
        let standin = Standin::start(Options::new(clock.clone())).await.expect("a stand-in");
        let builder = Gateway::build()
            .clock(&clock)
            .set("server.drain_delay_ms", 0)
            .set("billing.stripe_key", SECRET_KEY)
            .set("billing.stripe_url", standin.base_url())
            .set("billing.credit_price", "0.25")
            .set("billing.webhook_secrets", SECRET)
            .set("billing.export_every_ms", 3_600_000)
            .set("billing.inbox_every_ms", 50);
        let gateway = settings(builder).start().await;
        let app = &gateway.app;
        let shop = Shop { db: &app.db, clock: &clock };
        shop.publish("usage", json!({ "kind": "usage" })).await;
        let tenant = shop.customer("usage").await.tenant;
        let config = weir::config::Billing { stripe_url: standin.base_url(), ..app.config.billing.clone() };
        let stripe = Stripe::new(&config, &clock, &app.metrics.billing).expect("a client");
        // An account is opened with the first period of a tenant.
        weir::accounts::standing(&app.db, tenant, clock.now()).await.expect("an account");
        customers::make(&app.db, &clock, &stripe, &app.config.billing, tenant).await.expect("a customer");
        let sql = "select customer from billing_customers";
        let customer = rows(gateway.database_url(), sql).await[0][0].clone();
        Self { clock, standin, gateway, tenant, customer }
    }

    /// The stand-in sends what happens from now on.
    fn listen(&self) {
        let url = format!("{}/webhooks/stripe", self.gateway.url);
        self.standin.add_webhook(&url, SECRET).expect("an endpoint");
    }

    /// Sends a body as it is, with this header.
    async fn send(&self, body: &[u8], signature: Option<&str>) -> Said {
        let mut request = gateway::client().post(format!("{}/webhooks/stripe", self.gateway.url));
        if let Some(signature) = signature {
            request = request.header("stripe-signature", signature);
        }
        let answer = request.body(body.to_vec()).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        assert!(!text.contains(SECRET) && !text.contains(SECRET_KEY), "{text}");
        Said { status, body: serde_json::from_str(&text).unwrap_or_default() }
    }

    /// Sends an event as Stripe does.
    async fn tell(&self, event: &Value) -> Said {
        let body = event.to_string();
        self.send(body.as_bytes(), Some(&signed(SECRET, self.clock.now().as_seconds(), body.as_bytes())))
            .await
    }

    /// An event about the customer.
    fn event(&self, id: &str) -> Value {
        json!({
            "id": id, "object": "event", "type": "customer.updated", "created": START, "livemode": false,
            "data": { "object": { "id": self.customer, "object": "customer", "name": "made up" } },
        })
    }

    async fn number(&self, sql: &str) -> i64 {
        rows(self.gateway.database_url(), sql).await[0][0].parse().expect("a number")
    }

    async fn events(&self, state: &str) -> i64 {
        self.number(&format!("select count(*) from stripe_events where state = '{state}'")).await
    }

    async fn is_deleted(&self) -> bool {
        self.number("select count(*) from billing_customers where deleted_at is not null").await == 1
    }

    /// Somebody else with the same key asks the stand-in.
    async fn ask(&self, method: Method, path: &str, form: &str) -> Value {
        let url = format!("{}{path}", self.standin.base_url());
        let request = gateway::client().request(method, url).bearer_auth(SECRET_KEY);
        let request =
            request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned());
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON")
    }

    async fn rename(&self, name: &str) {
        let path = format!("/v1/customers/{}", self.customer);
        self.ask(Method::POST, &path, &format!("name={name}")).await;
    }

    async fn delete(&self) {
        self.ask(Method::DELETE, &format!("/v1/customers/{}", self.customer), "").await;
    }

    /// The inbox of one more process, which works only when it is told to.
    async fn inbox(&self) -> Inbox<weir::billing::mirror::stripe::Account> {
        let app = &self.gateway.app;
        let job = Job::connect(&app.config, &app.db, &self.clock, &app.metrics.billing).await;
        Inbox::new(&job.expect("a job").expect("a Stripe"), Arc::<Notify>::default())
    }

    /// How often the customer was asked for.
    fn asked(&self) -> usize {
        let path = format!("/v1/customers/{}", self.customer);
        self.standin.requests().iter().filter(|seen| seen.method == "GET" && seen.path == path).count()
    }

    fn received(&self, outcome: &str) -> f64 {
        self.gateway.metric(&format!("weir_stripe_events_received_total{{outcome=\"{outcome}\"}}"))
    }

    async fn is_done(&self) {
        eventually("the inbox to be worked off", async || self.events("new").await == 0).await;
    }
}

/// `Stripe-Signature` of this body.
fn signed(secret: &str, time: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, &[time.to_string().as_bytes(), b".", body].concat());
    format!("t={time},v1={}", HEXLOWER.encode(tag.as_ref()))
}

/// The work of a gateway's own process is an hour away, but for what comes in there.
fn idle(builder: Builder) -> Builder {
    builder.set("billing.inbox_every_ms", 3_600_000)
}

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
        (body, Some("t=1,v1=".to_owned()), "bad_signature"),
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
    let sent = request.body(reqwest::Body::wrap_stream(pending)).send();
    assert_eq!(within("an answer", sent).await.expect("an answer").status(), 408);
    assert!(world.received("oversized") > 1.5 && world.received("slow") > 0.5);
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

#[tokio::test]
async fn what_is_said_twice_or_out_of_order_changes_nothing() {
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
    world.clock.advance(Duration::from_secs(365 * 86_400));
    assert_eq!(world.inbox().await.round().await.expect("a round").done, 1);
    assert!(!world.is_deleted().await && world.tenant.to_string().starts_with("tn_"));
}

/// What a server says to whoever asks for a path. For objects that take more than one request.
type Answers = Arc<Mutex<HashMap<String, Value>>>;

/// Such a server. Who asks for something else gets 404 in Stripe's words.
async fn pages(answers: &Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let answers = answers.clone();
    let answer = move |uri: http::Uri| {
        let found = answers.lock().expect("answers").get(&uri.to_string()).map(Value::to_string);
        let missing = json!({ "error": { "type": "invalid_request_error", "code": "resource_missing" } });
        let answer = match found {
            Some(found) => (http::StatusCode::OK, found),
            None => (http::StatusCode::NOT_FOUND, missing.to_string()),
        };
        std::future::ready(answer)
    };
    let router = axum::Router::new().fallback(answer);
    Tasks::new().spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn line(number: i64, product: &str) -> Value {
    json!({
        "id": format!("il_{number}"), "object": "line_item", "amount": number, "quantity": 1_000_000,
        "period": { "start": START - 100 + number, "end": START + number },
        "pricing": { "type": "price_details", "price_details": { "price": "price_1", "product": product } },
    })
}

/// An object of each kind, of this customer, by the paths at which they are.
fn objects(customer: &str) -> HashMap<String, Value> {
    let product = |number| if number == 1 { "weir_plan_pro" } else { "weir_credits" };
    let lines: Vec<_> = (1..=103).map(|number| line(number, product(number))).collect();
    let mut all = HashMap::from([
        ("/v1/invoices/in_1/lines?limit=100".to_owned(), json!({ "data": lines[..100], "has_more": true })),
        (
            "/v1/invoices/in_1/lines?limit=100&starting_after=il_100".to_owned(),
            json!({ "data": lines[100..], "has_more": false }),
        ),
    ]);
    let mut add = |path: &str, object: Value| {
        let mut object = object;
        object["customer"] = json!(customer);
        object["created"] = json!(START);
        all.insert(path.to_owned(), object);
    };
    let item = json!({
        "id": "si_1", "current_period_start": START, "current_period_end": START + 100,
        "price": { "id": "price_1", "unit_amount": 900, "recurring": { "usage_type": "licensed" } },
    });
    add(
        "/v1/subscriptions/sub_1",
        json!({
            "id": "sub_1", "status": "active", "billing_cycle_anchor": START, "cancel_at_period_end": false,
            "metadata": { "plan": "pro" }, "latest_invoice": "in_1", "items": { "has_more": false, "data": [item] },
        }),
    );
    add(
        "/v1/invoices/in_1",
        json!({
            "id": "in_1", "status": "open", "currency": "usd", "total": 5_000, "amount_due": 5_000, "amount_paid": 0,
            "amount_remaining": 5_000, "attempt_count": 0, "status_transitions": { "finalized_at": START },
            "lines": { "has_more": true, "data": lines[..10] },
            "parent": { "subscription_details": { "subscription": "sub_1" } },
        }),
    );
    add(
        "/v1/checkout/sessions/cs_1",
        json!({
            "id": "cs_1", "mode": "payment", "status": "complete", "payment_status": "paid", "payment_intent": "pi_1",
            "amount_total": 2_000, "currency": "usd", "metadata": { "topup": "tu_1" },
        }),
    );
    add(
        "/v1/charges/ch_1",
        json!({
            "id": "ch_1", "payment_intent": "pi_1", "status": "succeeded", "currency": "usd", "amount": 2_000,
            "amount_refunded": 2_000, "disputed": true,
        }),
    );
    let dispute = json!({ "id": "dp_1", "object": "dispute", "charge": "ch_1", "status": "needs_response" });
    all.insert(
        "/v1/disputes?charge=ch_1&limit=1".to_owned(),
        json!({ "data": [dispute], "has_more": false }),
    );
    all
}

#[tokio::test]
async fn subscriptions_invoices_sessions_and_charges_are_mirrored() {
    let answers = Answers::default();
    let url = pages(&answers).await;
    let world = World::with(|builder| builder.set("billing.stripe_url", url)).await;
    let shop = Shop { db: &world.gateway.app.db, clock: &world.clock };
    shop.publish("pro", json!({ "kind": "prepaid" })).await;
    answers.lock().expect("answers").extend(objects(&world.customer));
    let about = |id: &str, kind: &str, object: Value| {
        json!({
            "id": id, "object": "event", "type": kind, "created": START, "livemode": false,
            "data": { "object": object },
        })
    };
    let send = async |events: &[(&str, &str, &str, Value)]| {
        for (id, kind, object, more) in events {
            let mut said =
                json!({ "object": object, "customer": "cus_of_somebody_else", "status": "made up" });
            said.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            let said = world.tell(&about(id, kind, said)).await;
            assert_eq!(said.body["received"], "stored", "{kind}");
        }
        world.is_done().await;
    };
    send(&[
        ("evt_1", "customer.subscription.updated", "subscription", json!({ "id": "sub_1" })),
        ("evt_2", "invoice.finalized", "invoice", json!({ "id": "in_1" })),
        ("evt_3", "checkout.session.completed", "checkout.session", json!({ "id": "cs_1" })),
        ("evt_4", "charge.dispute.created", "dispute", json!({ "id": "dp_1", "charge": "ch_1" })),
        ("evt_5", "credit_note.created", "credit_note", json!({ "id": "cn_1", "invoice": "in_1" })),
        ("evt_6", "refund.updated", "refund", json!({ "id": "re_1", "charge": "ch_1" })),
    ])
    .await;
    assert_eq!(world.events("done").await, 6);
    let db = &world.gateway.app.db;
    let subscription = subscriptions::get(db, "sub_1").await.expect("a row").expect("mirrored");
    assert_eq!((subscription.tenant, subscription.object.plan.as_deref()), (world.tenant, Some("pro")));
    assert_eq!(subscription.object.base_amount, Some(900));
    let invoice = invoices::get(db, "in_1").await.expect("a row").expect("mirrored").object;
    // 102 lines of metered usage on two pages; their amounts are 2 to 103.
    assert_eq!((invoice.metered_quantity, invoice.metered_amount), (Some(102_000_000), Some(5_355)));
    let at = |seconds: i64| Some(Timestamp::from_micros(seconds * 1_000_000));
    assert_eq!((invoice.metered_from, invoice.metered_to), (at(START - 98), at(START + 103)));
    let session = checkouts::of_tenant(db, world.tenant, 10).await.expect("rows").remove(0).object;
    assert_eq!((session.payment_status.as_str(), session.topup.as_deref()), ("paid", Some("tu_1")));
    let charge = charges::of_tenant(db, world.tenant, 10).await.expect("rows").remove(0).object;
    assert_eq!((charge.amount_refunded, charge.disputed), (2_000, true));
    assert_eq!(charge.dispute_status.as_deref(), Some("needs_response"));

    // Of later and of earlier events the same comes, which is what Stripe says by then.
    answers.lock().expect("answers").entry("/v1/subscriptions/sub_1".to_owned()).and_modify(|subscription| {
        subscription["status"] = json!("canceled");
    });
    send(&[
        ("evt_8", "customer.subscription.deleted", "subscription", json!({ "id": "sub_1" })),
        ("evt_7", "customer.subscription.created", "subscription", json!({ "id": "sub_1" })),
    ])
    .await;
    let canceled = subscriptions::get(db, "sub_1").await.expect("a row").expect("mirrored");
    assert_eq!(canceled.object.status, "canceled");
    assert!(canceled.revision > subscription.revision);
}

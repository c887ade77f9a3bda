//! The stand-in for Stripe: what it keeps and refuses, how it goes wrong, and what it sends. That Stripe's own SDK gets
//! along with it is another story, `make stripe-sdk`.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use miniserde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use weir::clock::{Clock, Timestamp};
use weir::standin::{Fault, SECRET_KEY, Standin, Trouble};
use weir::tasks::Tasks;

use super::support::stripe::standin;
use super::support::within;

/// 2026-11-22T00:00:00Z, a multiple of a day.
const START: i64 = 1_795_305_600;
const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// A stand-in whose time stands still, and somebody who asks it.
pub(super) struct Site {
    pub(super) standin: Standin,
    client: reqwest::Client,
    key: &'static str,
}

pub(super) struct Reply {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Value,
}

impl Reply {
    /// `code`, or the type where there is none, and `param` of an error.
    pub(super) fn error(&self) -> (u16, &str, &str) {
        let error = &self.body["error"];
        let code = error["code"].as_str().or(error["type"].as_str()).unwrap_or("?");
        (self.status, code, error["param"].as_str().unwrap_or(""))
    }

    pub(super) fn id(&self) -> &str {
        self.body["id"].as_str().unwrap_or_else(|| panic!("an id in {}", self.body))
    }

    fn ids(&self) -> Vec<&str> {
        self.body["data"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["id"].as_str().expect("an id"))
            .collect()
    }

    /// As the client's own types take it.
    pub(super) fn read<T: Deserialize>(&self) -> T {
        miniserde::json::from_str(&self.body.to_string())
            .unwrap_or_else(|_| panic!("not of its type: {}", self.body))
    }
}

impl Site {
    async fn start() -> Self {
        Self::with(Clock::manual(Timestamp::from_micros(START * 1_000_000))).await
    }

    pub(super) async fn with(clock: Clock) -> Self {
        let standin = standin(clock).await;
        let client =
            reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client");
        Self { standin, client, key: SECRET_KEY }
    }

    async fn try_send(&self, what: &str, form: &str, key: Option<&str>) -> reqwest::Result<Reply> {
        let (method, path) = what.split_once(' ').expect("a method and a path");
        let url = format!("{}{path}", self.standin.base_url());
        let mut request = self.client.request(method.parse().expect("a method"), url).bearer_auth(self.key);
        if !form.is_empty() {
            request =
                request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned());
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Reply { status, headers, body })
    }

    pub(super) async fn send(&self, what: &str, form: &str) -> Reply {
        self.try_send(what, form, None).await.expect("an answer")
    }

    /// A meter and a customer.
    pub(super) async fn shop(&self) -> (String, String) {
        let form = "display_name=Credits&event_name=credits&default_aggregation[formula]=sum";
        let meter = self.send("POST /v1/billing/meters", form).await.id().to_owned();
        let customer = self.send("POST /v1/customers", "name=Ada").await.id().to_owned();
        (meter, customer)
    }

    pub(super) async fn record(&self, customer: &str, value: &str, rest: &str) -> Reply {
        let form =
            format!("event_name=credits&payload[stripe_customer_id]={customer}&payload[value]={value}{rest}");
        self.send("POST /v1/billing/meter_events", &form).await
    }

    /// What summaries show of the last hour and the minute that runs.
    async fn shown(&self, meter: &str, customer: &str) -> i64 {
        let now = self.standin.now().as_seconds() / 60 * 60;
        let path = format!(
            "GET /v1/billing/meters/{meter}/event_summaries?customer={customer}&start_time={}&end_time={}",
            now - 3600,
            now + 60
        );
        let found = self.send(&path, "").await;
        assert_eq!(found.status, 200, "{}", found.body);
        found.body["data"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|one| one["aggregated_value"].as_i64())
            .sum()
    }
}

#[tokio::test]
async fn objects_are_those_of_the_types() {
    let site = Site::start().await;
    let (meter, customer) = site.shop().await;
    let product = site.send("POST /v1/products", "name=Calls&id=weir_calls&metadata[a]=b").await;
    assert_eq!(product.read::<stripe_shared::Product>().id.as_str(), "weir_calls");
    let form = format!(
        "currency=usd&product=weir_calls&recurring[interval]=month&recurring[usage_type]=metered&recurring[meter]={meter}\
         &unit_amount_decimal=0.010&lookup_key=overage"
    );
    let price = site.send("POST /v1/prices", &form).await;
    assert_eq!(price.read::<stripe_shared::Price>().unit_amount_decimal.as_deref(), Some("0.01"));
    assert_eq!(
        site.send("POST /v1/prices", &form).await.error(),
        (400, "invalid_request_error", "lookup_key")
    );
    let moved = site.send("POST /v1/prices", &format!("{form}&transfer_lookup_key=true")).await;
    let list = site.send("GET /v1/prices?lookup_keys[]=overage&expand[]=data.product", "").await;
    assert_eq!(list.ids(), [moved.id()]);
    assert_eq!(list.read::<stripe_types::List<stripe_shared::Price>>().data.len(), 1);
    assert_eq!(list.body["data"][0]["product"]["name"], "Calls");
    assert_eq!(
        site.send(&format!("GET /v1/prices/{}", price.id()), "").await.body["lookup_key"],
        Value::Null
    );

    let form = "features[customer_update][enabled]=true&features[customer_update][allowed_updates][]=email";
    let portal = site.send("POST /v1/billing_portal/configurations", form).await;
    let configuration: stripe_billing::BillingPortalConfiguration = portal.read();
    assert!(configuration.features.customer_update.enabled);
    let form = format!("customer={customer}&configuration={}", portal.id());
    let session = site.send("POST /v1/billing_portal/sessions", &form).await;
    let url =
        session.body["url"].as_str().expect("a URL").strip_prefix(&site.standin.base_url()).expect("is here");
    let page = site.send(&format!("GET {url}"), "").await;
    assert!(page.body.as_str().expect("a page").contains("stand-in, not Stripe"), "{}", page.body);

    site.record(&customer, "5", "").await.read::<stripe_billing::BillingMeterEvent>();
    let path = format!(
        "/v1/billing/meters/{meter}/event_summaries?customer={customer}&start_time={START}&end_time={}",
        START + 60
    );
    let summaries = site.send(&format!("GET {path}"), "").await;
    let summaries: stripe_types::List<stripe_billing::BillingMeterEventSummary> = summaries.read();
    assert!((summaries.data[0].aggregated_value - 5.0).abs() < f64::EPSILON);
    let meter = site.send(&format!("POST /v1/billing/meters/{meter}/deactivate"), "").await;
    assert_eq!(meter.read::<stripe_billing::BillingMeter>().status_transitions.deactivated_at, Some(START));

    let path = format!("/v1/customers/{customer}");
    let changed = site.send(&format!("POST {path}"), "name=&metadata[x]=1&address[city]=Bern").await;
    assert_eq!(changed.read::<stripe_shared::Customer>().name, None);
    assert_eq!(
        (&changed.body["address"]["city"], &changed.body["metadata"]),
        (&json!("Bern"), &json!({ "x": "1" }))
    );
    assert_eq!(site.send(&format!("DELETE {path}"), "").await.body["deleted"], true);
    assert_eq!(site.send(&format!("GET {path}"), "").await.body["deleted"], true);
    assert_eq!(
        site.send(&format!("POST {path}"), "name=x").await.error(),
        (404, "resource_missing", "customer")
    );
    let events = site.send("GET /v1/events?types[]=customer.updated&types[]=customer.deleted", "").await;
    assert_eq!(events.ids().len(), 2);
    assert_eq!(events.body["data"][1]["data"]["previous_attributes"]["name"], "Ada");
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_stripes_envelope() {
    let mut site = Site::start().await;
    site.standin.restrict_key("rk_test_reads_customers", &["customer_read"]);
    let endless = format!("name={}", "x".repeat(1024 * 1024));
    for (what, form, error) in [
        ("POST /v1/products", "", (400, "parameter_missing", "name")),
        ("POST /v1/products", "name=x&nmae=y", (400, "parameter_unknown", "nmae")),
        ("GET /v1/products?limit=0", "", (400, "parameter_invalid_integer", "limit")),
        ("GET /v1/products/prod_none", "", (404, "resource_missing", "id")),
        ("GET /v1/nothing", "", (404, "invalid_request_error", "")),
        ("PUT /v1/products", "name=x", (404, "invalid_request_error", "")),
        ("POST /v1/prices", "currency=usd&product=no&unit_amount=1", (400, "resource_missing", "product")),
        ("POST /v1/customers", endless.as_str(), (413, "invalid_request_error", "")),
        ("GET /v1/customers?expand[]=data.nothing", "", (200, "?", "")),
    ] {
        let reply = site.send(what, form).await;
        assert_eq!(reply.error(), error, "{what}");
        assert!(
            reply.status == 413 || reply.headers["request-id"].to_str().expect("text").starts_with("req_")
        );
    }
    site.key = "rk_test_reads_customers";
    assert_eq!(site.send("GET /v1/customers", "").await.status, 200);
    let refused = site.send("POST /v1/customers", "name=x").await;
    assert_eq!(refused.status, 403);
    assert!(refused.body["error"]["message"].as_str().expect("words").contains("rak_customer_write"));
    site.key = "sk_test_somebody_else";
    let unknown = site.send("GET /v1/customers", "").await;
    assert_eq!(unknown.status, 401);
    assert!(!unknown.body.to_string().contains(site.key), "a key is not told in full");
    let url = format!("{}/v1/customers", site.standin.base_url());
    let versioned = site.client.get(&url).basic_auth(SECRET_KEY, None::<&str>);
    for (version, status) in
        [("2026-10-28.endive", 200), ("2020-08-27", 200), ("latest", 400), ("2026-13-01", 400)]
    {
        let request = versioned.try_clone().expect("no body").header("stripe-version", version);
        assert_eq!(request.send().await.expect("an answer").status(), status, "{version}");
    }
}

#[tokio::test]
async fn usage_counts_once_a_day_and_shows_when_it_shows() {
    let site = Site::start().await;
    let (meter, customer) = site.shop().await;
    assert_eq!(site.record(&customer, "5", "&identifier=one").await.status, 200);
    let again = site.record(&customer, "5", "&identifier=one").await;
    assert_eq!(again.error(), (400, "invalid_request_error", "identifier"));
    assert_eq!(again.body["error"]["message"], "An event already exists with identifier one.");
    assert_eq!(again.headers["stripe-should-retry"], "false");
    for (value, rest, status) in [
        ("1.5", "", 400),
        ("many", "", 400),
        ("-2", "", 200),
        ("1", &format!("&timestamp={}", START - 35 * 86_400 - 1), 400),
        ("1", &format!("&timestamp={}", START - 35 * 86_400), 200),
        ("1", &format!("&timestamp={}", START + 301), 400),
        ("1", &format!("&timestamp={}", START + 300), 200),
    ] {
        assert_eq!(site.record(&customer, value, rest).await.status, status, "{value} {rest}");
    }
    assert_eq!(site.record("cus_nobody", "7", "").await.status, 200, "accepted is not counted");
    site.standin.fault(Fault::new(Trouble::DropEvent).on("POST", "/v1/billing/meter_events"));
    assert_eq!(site.record(&customer, "100", "&identifier=two").await.status, 200);
    assert_eq!(site.record(&customer, "100", "&identifier=two").await.status, 400, "dropped, and yet taken");
    assert_eq!(site.shown(&meter, &customer).await, 3);

    site.standin.set_summary_lag(2 * HOUR);
    assert_eq!(site.record(&customer, "10", "&identifier=three").await.status, 200);
    assert_eq!(site.shown(&meter, &customer).await, 3);
    assert_eq!(site.standin.total(&meter, &customer, START - 60, START + 60), 13, "it will count");
    site.standin.advance(2 * HOUR);
    let path = format!("GET /v1/billing/meters/{meter}/event_summaries?customer={customer}");
    let by_hour = format!("{path}&start_time={START}&end_time={}&value_grouping_window=hour", START + 7200);
    let hours = site.send(&by_hour, "").await;
    assert_eq!(
        hours.body["data"].as_array().expect("a list").len(),
        1,
        "only hours with usage: {}",
        hours.body
    );
    assert_eq!(hours.body["data"][0]["aggregated_value"], 14, "with what was ahead");
    let odd = site.send(&format!("{path}&start_time={}&end_time={}", START + 1, START + 60), "").await;
    assert_eq!(odd.error(), (400, "invalid_request_error", "start_time"));

    site.standin.advance(22 * HOUR - Duration::from_secs(1));
    assert_eq!(site.record(&customer, "5", "&identifier=one").await.status, 400);
    site.standin.advance(Duration::from_secs(1));
    assert_eq!(site.record(&customer, "5", "&identifier=one").await.status, 200, "a day has gone by");
}

#[tokio::test]
async fn two_at_once_for_one_customer_and_meter_are_one_too_many() {
    let site = Site::start().await;
    let (meter, customer) = site.shop().await;
    let (_, other) = (meter, site.send("POST /v1/customers", "name=Bob").await.id().to_owned());
    let events = "/v1/billing/meter_events";
    site.standin.fault(Fault::new(Trouble::Latency).on("POST", events).milliseconds(60_000));
    let slow = site.record(&customer, "1", "&identifier=slow");
    let quick = async {
        super::support::eventually("the first request", async || {
            site.standin.requests().iter().any(|seen| seen.params.ends_with("identifier=slow"))
        })
        .await;
        // The first has its place as soon as it is seen: both stand behind one lock.
        assert_eq!(site.record(&other, "1", "").await.status, 200);
        let refused = site.record(&customer, "1", "").await;
        assert_eq!(refused.error(), (429, "lock_timeout", ""));
    };
    tokio::select! {
        _ = slow => panic!("it is slow"),
        () = within("the second request", quick) => {}
    }
}

#[tokio::test]
async fn what_is_held_comes_when_it_is_let_go() {
    let site = Site::start().await;
    let customers = async || site.send("GET /v1/customers", "").await.body["data"].as_array().map(Vec::len);
    for (fault, before) in
        [(Fault::new(Trouble::Hold), Some(0)), (Fault::new(Trouble::Hold).applied(), Some(2))]
    {
        site.standin.fault(fault.on("POST", "/v1/customers"));
        let looking = async {
            within("the request", site.standin.holds()).await;
            assert_eq!(site.send("GET /_standin/held", "").await.body["held"], 1);
            assert_eq!(customers().await, before);
            site.send("DELETE /_standin/held", "").await;
        };
        let (answer, ()) = tokio::join!(site.send("POST /v1/customers", "name=Ada"), looking);
        assert_eq!(answer.status, 200);
        assert_eq!(site.send("GET /_standin/held", "").await.body["held"], 0);
    }
    // Also for whoever has gone away meanwhile.
    site.standin.fault(Fault::new(Trouble::Hold).on("POST", "/v1/customers"));
    tokio::select! {
        _ = site.send("POST /v1/customers", "name=Bob") => panic!("it is held"),
        () = within("the request", site.standin.holds()) => {}
    }
    site.standin.release();
    super::support::eventually("the third", async || customers().await == Some(3)).await;
}

#[tokio::test]
async fn a_key_has_one_answer() {
    let site = Site::start().await;
    let send = async |form: &str, key: &str| site.try_send("POST /v1/customers", form, Some(key)).await;
    let first = send("name=a", "k1").await.expect("an answer");
    let second = send("name=a", "k1").await.expect("an answer");
    assert_eq!(
        (second.id(), &second.headers["idempotent-replayed"]),
        (first.id(), &"true".parse().expect("a value"))
    );
    assert_eq!(second.headers["original-request"], first.headers["request-id"]);
    assert_eq!(send("name=b", "k1").await.expect("an answer").error(), (400, "idempotency_error", ""));
    let elsewhere = site.try_send("POST /v1/products", "name=a", Some("k1")).await.expect("an answer");
    assert_eq!(elsewhere.error(), (400, "idempotency_error", ""));
    assert_eq!(send("nmae=a", "k2").await.expect("an answer").status, 400);
    assert_eq!(send("name=a", "k2").await.expect("an answer").status, 200, "wrong parameters use no key up");

    let trouble = |trouble| Fault::new(trouble).on("POST", "/v1/customers");
    let count = async || site.send("GET /v1/customers?limit=100", "").await.ids().len();
    assert_eq!(count().await, 2);
    site.standin.fault(trouble(Trouble::ServerError));
    assert_eq!(send("name=c", "k3").await.expect("an answer").error(), (500, "api_error", ""));
    let replayed = send("name=c", "k3").await.expect("an answer");
    assert_eq!((replayed.status, count().await), (500, 2), "a stored 500 comes again");
    site.standin.fault(trouble(Trouble::ServerError).applied());
    assert_eq!(send("name=d", "k4").await.expect("an answer").status, 500);
    assert_eq!(count().await, 3);
    for (fault, applied) in [
        (trouble(Trouble::LostResponse), true),
        (trouble(Trouble::Reset), false),
        (trouble(Trouble::Reset).applied(), true),
    ] {
        let (before, key) = (count().await, format!("{fault:?}"));
        site.standin.fault(fault);
        assert!(send("name=e", &key).await.is_err(), "no answer");
        assert_eq!(count().await, before + usize::from(applied));
        let again = send("name=e", &key).await.expect("an answer");
        assert_eq!(again.headers.contains_key("idempotent-replayed"), applied);
        assert_eq!(count().await, before + 1, "once, whatever happened");
    }
    site.standin.fault(trouble(Trouble::BadGateway));
    let html = send("name=f", "k5").await.expect("an answer");
    assert_eq!((html.status, html.body.is_string()), (502, true));
    assert!(!html.headers.contains_key("request-id"));
    site.standin.fault(trouble(Trouble::RateLimit).times(2));
    assert_eq!(send("name=f", "k5").await.expect("an answer").error(), (429, "rate_limit", ""));
    assert_eq!(send("name=f", "k5").await.expect("an answer").status, 429);
    assert_eq!(send("name=f", "k5").await.expect("an answer").status, 200);
    assert!(site.standin.clear_faults().is_empty());
    site.standin.advance(24 * HOUR);
    let fresh = send("name=a", "k1").await.expect("an answer");
    assert_ne!(fresh.id(), first.id(), "the key is forgotten");
}

/// Who gets webhooks: what came, and what to answer next; then 200.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Post>>);

#[derive(Default)]
struct Post {
    /// Signatures and bodies.
    came: Vec<(String, String)>,
    answers: VecDeque<u16>,
}

impl Receiver {
    async fn start(tasks: &Tasks) -> (Self, String) {
        let receiver = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let router =
            axum::Router::new().route("/hook", axum::routing::post(take)).with_state(receiver.clone());
        tasks.spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    fn answer(&self, statuses: &[u16]) {
        self.0.lock().expect("a lock").answers.extend(statuses);
    }

    /// Signatures and bodies since the last look.
    fn came(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.0.lock().expect("a lock").came)
    }

    fn kinds(&self) -> Vec<String> {
        let kind = |body: &str| {
            serde_json::from_str::<Value>(body).expect("JSON")["type"].as_str().map(str::to_owned)
        };
        self.came().iter().filter_map(|(_, body)| kind(body)).collect()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    let mut state = receiver.0.lock().expect("a lock");
    let signature = headers["stripe-signature"].to_str().expect("text").to_owned();
    state.came.push((signature, body));
    StatusCode::from_u16(state.answers.pop_front().unwrap_or(200)).expect("a status")
}

fn is_signed(signature: &str, body: &str, secret: &str) -> bool {
    let time = signature.split(',').find_map(|part| part.strip_prefix("t=")).expect("a time");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = data_encoding::HEXLOWER.encode(hmac::sign(&key, format!("{time}.{body}").as_bytes()).as_ref());
    signature.split(',').any(|part| part == format!("v1={tag}"))
}

#[tokio::test]
async fn webhooks_are_signed_tried_again_doubled_and_turned_around() {
    let (site, tasks) = (Site::start().await, Tasks::new());
    let (receiver, url) = Receiver::start(&tasks).await;
    let form = format!("url={url}&enabled_events[]=customer.created&enabled_events[]=product.created");
    let made = site.send("POST /v1/webhook_endpoints", &form).await;
    let secret = made.body["secret"].as_str().expect("a secret").to_owned();
    let endpoint = made.id().to_owned();
    assert_eq!(
        site.send(&format!("GET /v1/webhook_endpoints/{endpoint}"), "").await.body["secret"],
        Value::Null
    );
    let quiet = async || within("deliveries", site.standin.quiet()).await;

    receiver.answer(&[500]);
    let customer = site.send("POST /v1/customers", "name=a").await;
    quiet().await;
    let came = receiver.came();
    assert!(is_signed(&came[0].0, &came[0].1, &secret) && !is_signed(&came[0].0, &came[0].1, "whsec_other"));
    let event: Value = serde_json::from_str(&came[0].1).expect("JSON");
    assert_eq!((&event["data"]["object"], &event["pending_webhooks"]), (&customer.body, &json!(1)));
    let path = format!("GET /v1/events/{}", event["id"].as_str().expect("an id"));
    assert_eq!(site.send("GET /v1/events?delivery_success=false", "").await.ids().len(), 1);
    site.standin.advance(MINUTE);
    quiet().await;
    assert_eq!(receiver.kinds(), ["customer.created"], "tried again");
    assert_eq!(site.send(&path, "").await.body["pending_webhooks"], 0);

    site.standin.fault(Fault::new(Trouble::DuplicateDelivery));
    site.send("POST /v1/customers", "name=b").await;
    quiet().await;
    assert_eq!(receiver.kinds(), ["customer.created", "customer.created"]);
    site.standin.fault(Fault::new(Trouble::ReorderDelivery));
    site.send("POST /v1/customers", "name=c").await;
    quiet().await;
    assert_eq!(receiver.kinds(), [""; 0], "it waits for the next one");
    site.send("POST /v1/products", "name=d").await;
    quiet().await;
    assert_eq!(receiver.kinds(), ["product.created", "customer.created"]);

    site.standin.roll_secret(&endpoint, Some("whsec_next"));
    site.send("POST /v1/products", "name=e").await;
    quiet().await;
    let (signature, body) = receiver.came().remove(0);
    assert!(is_signed(&signature, &body, &secret) && is_signed(&signature, &body, "whsec_next"));
    site.standin.roll_secret(&endpoint, None);
    site.send("POST /v1/products", "name=f").await;
    quiet().await;
    let (signature, body) = receiver.came().remove(0);
    assert!(!is_signed(&signature, &body, &secret) && is_signed(&signature, &body, "whsec_next"));

    site.send(&format!("POST /v1/webhook_endpoints/{endpoint}"), "disabled=true").await;
    site.send("POST /v1/products", "name=g").await;
    quiet().await;
    assert_eq!(receiver.kinds(), [""; 0]);
    let attempts = site.standin.deliveries();
    assert_eq!(attempts.iter().map(|one| one.status).filter(|status| *status == Some(500)).count(), 1);
    site.standin.stop().await;
}

#[test]
fn the_command_lists_what_is_assumed() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = command.env_clear().args(["stripe-standin", "--assumptions"]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && text.lines().count() > 20, "{text}");
    assert!(
        text.lines().skip(1).all(|line| line.starts_with("STANDIN-") && line.contains("verified live: no")),
        "{text}"
    );
}

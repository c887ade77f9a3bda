//! What Stripe says comes in by the front door, signed, once, and is worked on until the mirror says the same. Against the stand-in.

mod door;
mod mirrored;
mod work;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;
use weir::billing::customers;
use weir::billing::inbox::Inbox;
use weir::billing::job::Job;
use weir::billing::stripe::Stripe;
use weir::clock::{Clock, Timestamp};
use weir::id::TenantId;
use weir::standin::{SECRET_KEY, Standin};

use crate::support::database::rows;
use crate::support::gateway::{self, Builder};
use crate::support::shop::Shop;
use crate::support::stripe::standin;
use crate::support::{Gateway, eventually};

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
        let clock = Clock::manual(Timestamp::from_micros(START * 1_000_000));
        let standin = standin(clock.clone()).await;
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

//! A business that sells tools: a gateway that bills through a stand-in, which tells it what happens, and its customers. Time moves only
//! when a story says so.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use weir::clock::{Clock, Timestamp};
use weir::id::TenantId;
use weir::standin::{SECRET_KEY, Standin};

use super::database::Reader;
use super::gateway::{self, Builder, Key};
use super::shop::Shop;
use super::stripe::{self, standin};
use super::{Draft, Gateway, Modern, Reply, eventually};

/// 2026-09-21T14:13:20Z.
pub const START: i64 = 1_790_000_000_000_000;
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(86_400);
/// A card that pays.
pub const GOOD: &str = "4242424242424242";
/// Can be saved, and every charge of it is declined.
pub const EMPTY: &str = "4000000000000341";
const SECRET: &str = "whsec_0123456789abcdef0123456789abcdef";

/// A gateway that sells, and a stand-in that tells it what happens.
pub struct Business {
    pub clock: Clock,
    pub standin: Standin,
    pub gateway: Gateway,
    /// The webhook endpoint at Stripe.
    pub hook: String,
    reader: Mutex<Reader>,
}

/// A tenant, with a key that buys and one that calls.
pub struct Customer {
    business: Arc<Business>,
    pub buyer: Key,
    pub caller: Key,
}

impl Deref for Customer {
    type Target = Business;

    fn deref(&self) -> &Business {
        &self.business
    }
}

impl Business {
    /// One that sells the plans free, pro, team, firm and taste, on which a call costs a quarter of a credit. What it does by itself it
    /// does so often that nobody waits for it.
    pub async fn new() -> Arc<Self> {
        Self::with(|builder| builder).await
    }

    /// The same, otherwise configured.
    pub async fn with(configured: impl FnOnce(Builder) -> Builder) -> Arc<Self> {
        let clock = Clock::manual(Timestamp::from_micros(START));
        let standin = standin(clock.clone()).await;
        let builder = stripe::billing(&clock, &standin)
            .set("billing.webhook_secrets", SECRET)
            .set("billing.credit_price", "25")
            .set("billing.after_plan", "free")
            .set("billing.top_ups", "100=2500")
            .set("billing.export_every_ms", 100)
            .set("billing.inbox_every_ms", 50);
        let gateway = configured(builder).start().await;
        let hook = format!("{}/webhooks/stripe", gateway.url);
        let hook = standin.add_webhook(&hook, SECRET).expect("an endpoint");
        stripe::set_up(&gateway, &clock).await;
        let reader = Mutex::new(Reader::open(gateway.database_url()).await);
        let business = Self { clock, standin, gateway, hook, reader };
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
            business.publish(plan, terms, "0.25").await;
        }
        Arc::new(business)
    }

    /// A business and its first customer.
    pub async fn first_customer() -> Customer {
        let business = Self::new().await;
        let customer = business.customer().await;
        customer.clock.advance(Duration::from_secs(1));
        customer
    }

    /// Publishes terms by which a call costs this much.
    pub async fn publish(&self, plan: &str, mut terms: Value, price: &str) {
        terms["tools"] = json!([{ "name": "work", "server": "lab", "per_call": price }]);
        Shop { db: &self.gateway.app.db, clock: &self.clock }.publish(plan, terms).await;
    }

    /// Somebody new, on the free plan.
    pub async fn customer(self: &Arc<Self>) -> Customer {
        let shop = Shop { db: &self.gateway.app.db, clock: &self.clock };
        let caller = shop.customer("free").await;
        let buyer = self.gateway.scoped(caller.tenant, json!({ "billing": true })).await;
        Customer { business: self.clone(), buyer, caller }
    }

    pub async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.reader.lock().await.rows(sql).await
    }

    pub async fn number(&self, sql: &str) -> i64 {
        self.text(sql).await.parse().expect("a number")
    }

    pub async fn text(&self, sql: &str) -> String {
        self.rows(sql).await[0][0].clone()
    }

    /// Whether the ledger is right.
    pub async fn is_verified(&self) {
        Shop { db: &self.gateway.app.db, clock: &self.clock }.is_verified().await;
    }

    /// Waits until everything that was owed is told and proven.
    pub async fn is_proven(&self, micros: i64) {
        let sum = "select cast(coalesce(sum(counted), 0) as bigint) from exports";
        eventually("proof", async || {
            self.clock.advance(Duration::from_secs(20));
            self.number(sum).await == micros
        })
        .await;
    }

    /// Time goes on, in steps in which everybody can keep up.
    pub async fn days(&self, days: u32) {
        for _ in 0..days {
            self.clock.advance(DAY);
            self.standin.quiet().await;
        }
    }

    /// Somebody else with the same key does something at the stand-in.
    pub async fn at_stripe(&self, path: &str) {
        self.stripe(Method::POST, path).await;
    }

    /// The same by any method, and what comes of it.
    pub async fn stripe(&self, method: Method, path: &str) -> Value {
        let request = gateway::client().request(method, format!("{}{path}", self.standin.base_url()));
        let answer = request.bearer_auth(SECRET_KEY).send().await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.expect("a body"));
        assert!(status.is_success(), "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// From now on no webhook comes.
    pub async fn webhooks_are_late(&self) {
        self.standin.quiet().await;
        self.stripe(Method::DELETE, &format!("/v1/webhook_endpoints/{}", self.hook)).await;
    }
}

impl Customer {
    pub fn tenant(&self) -> TenantId {
        self.caller.tenant
    }

    pub async fn ask(&self, method: &str, path: &str, body: Value) -> Reply {
        let url = format!("{}{path}", self.gateway.url);
        let draft = Draft::new(&self.gateway.http, method.parse().expect("a method"), url);
        let draft = draft.bearer(&self.buyer.secret).header("content-type", "application/json");
        let draft = if body.is_null() { draft } else { draft.body(body) };
        draft.send().await
    }

    pub async fn account(&self) -> Value {
        let reply = self.ask("GET", "/billing", Value::Null).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json().clone()
    }

    /// Asks for another plan. From when on, as text that sorts by time.
    pub async fn changes_to(&self, plan: &str) -> String {
        let reply = self.ask("PUT", "/billing/plan", json!({ "plan": plan })).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()["from"].as_str().expect("an instant").to_owned()
    }

    /// The tenant's subscription at Stripe.
    pub async fn subscription(&self) -> Value {
        let sql = format!("select customer from billing_customers where tenant_id = '{}'", self.tenant());
        let path = format!("/v1/subscriptions?customer={}", self.text(&sql).await);
        self.stripe(Method::GET, &path).await["data"][0].clone()
    }

    /// Waits until the account is so.
    pub async fn comes_to(&self, what: &str, is: impl Fn(&Value) -> bool) {
        eventually(what, async || {
            // What a change of plan is announced ahead by.
            self.clock.advance(Duration::from_millis(20));
            is(&self.account().await)
        })
        .await;
    }

    /// Opens the page that a request answers with, and pays there.
    pub async fn pay(&self, path: &str, body: Value, card: &str) -> Result<Value, String> {
        let reply = self.ask("POST", path, body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let url = reply.json()["url"].as_str().expect("a URL").to_owned();
        let session =
            url.rsplit('/').next().and_then(|last| last.split(['?', '#']).next()).expect("a session");
        self.standin.complete_checkout(session, card)
    }

    pub async fn subscribe(&self, plan: &str, card: &str) {
        self.pay("/billing/checkout", json!({ "plan": plan }), card).await.expect("a subscription");
        self.comes_to("the subscription", |account| account["plan"] == plan).await;
        self.clock.advance(Duration::from_secs(1));
    }

    /// Calls a tool that costs a quarter of a credit; whether it was done.
    pub async fn calls(&self, id: &str) -> bool {
        let client = Modern::new(&self.gateway, &self.caller);
        let reply = client.call("work", json!({ "id": id })).await;
        reply.result()["isError"] == json!(false)
    }

    /// Gives the tenant's customer another card, and has its open invoice paid by it.
    pub async fn pays_by(&self, card: &str) {
        let sql = format!("select customer from billing_customers where tenant_id = '{}'", self.tenant());
        self.standin.set_card(&self.text(&sql).await, card).expect("a card");
        let sql = format!(
            "select id from billing_invoices where status = 'open' and tenant_id = '{}'",
            self.tenant()
        );
        self.at_stripe(&format!("/v1/invoices/{}/pay", self.text(&sql).await)).await;
    }
}

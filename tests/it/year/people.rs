//! One tenant of the year: what it does, and what its clients were told that it paid.

use std::ops::Deref;

use serde_json::{Value, json};
use weir::accounts::grants::GrantKind;
use weir::credits::Credits;
use weir::standin::{Billed, Change};

use crate::support::business::{Business, Customer};
use crate::support::shop::Shop;
use crate::support::{Modern, eventually};

pub struct Person {
    pub number: usize,
    customer: Customer,
    /// By the receipts of its calls.
    pub charged: Credits,
    /// Calls that were done, and refused.
    pub done: usize,
    pub refused: usize,
    dispute: Option<String>,
}

impl Deref for Person {
    type Target = Customer;

    fn deref(&self) -> &Customer {
        &self.customer
    }
}

impl Business {
    /// From now on summaries are late by so much, and invoices bill what they show.
    pub fn late(&self, lag: std::time::Duration) {
        let bill = if lag.is_zero() { Billed::Accepted } else { Billed::Shown };
        self.standin.set_summary_lag(lag);
        self.standin.set(Change { invoices_bill: Some(bill), ..Change::default() }).expect("a setting");
    }
}

impl Person {
    pub fn new(number: usize, customer: Customer) -> Self {
        Self { number, customer, charged: Credits::ZERO, done: 0, refused: 0, dispute: None }
    }

    /// Calls so often. What each cost is taken from its receipt.
    pub async fn uses(&mut self, calls: usize, at: usize) {
        let client = Modern::new(&self.gateway, &self.caller);
        for call in 0..calls {
            let reply = client.call("work", json!({ "id": format!("{at} {call}") })).await;
            let result = reply.result();
            if result["isError"] == json!(true) {
                self.refused += 1;
                continue;
            }
            let credits = &result["_meta"]["dev.weir/receipt"]["credits"];
            self.charged += credits.as_str().expect("credits").parse().expect("credits");
            self.done += 1;
        }
    }

    pub async fn changes(&self, plan: &str) {
        let changed = self.ask("PUT", "/billing/plan", json!({ "plan": plan })).await;
        assert_eq!(changed.status, 200, "{}: {}", self.number, changed.text);
        let follows = |account: &Value| account["plan"] == plan || account["next_plan"] == plan;
        self.comes_to("the other plan", follows).await;
    }

    pub async fn cancels(&self) {
        let end = self.ask("DELETE", "/billing/plan", Value::Null).await;
        assert_eq!(end.status, 200, "{}: {}", self.number, end.text);
        self.comes_to("the end", |account| account["next_plan"] == "free").await;
    }

    /// A hundred credits.
    pub async fn buys(&self, card: &str) {
        let bought =
            format!("select count(*) from grants where kind = 'prepaid' and tenant_id = '{}'", self.tenant());
        let before = self.number(&bought).await;
        self.pay("/billing/top_ups", json!({ "credits": "100" }), card).await.expect("paid");
        eventually("the grant", async || self.number(&bought).await == before + 1).await;
    }

    pub async fn is_given(&self, amount: &str) {
        let shop = Shop { db: &self.gateway.app.db, clock: &self.clock };
        shop.give(self.tenant(), GrantKind::Promotional, amount, None).await;
    }

    async fn stripe_customer(&self) -> String {
        self.text(&format!("select customer from billing_customers where tenant_id = '{}'", self.tenant()))
            .await
    }

    pub async fn card(&self, card: &str) {
        self.standin.set_card(&self.stripe_customer().await, card).expect("a card");
    }

    pub async fn newest_charge(&self) -> String {
        let sql = "select id from billing_charges where status = 'succeeded' and tenant_id = '{}'
                   order by created_at desc limit 1";
        self.text(&sql.replace("{}", &self.tenant().to_string())).await
    }

    pub async fn newest_invoice(&self) -> String {
        let sql = "select id from billing_invoices where status = 'paid' and tenant_id = '{}'
                   order by created_at desc limit 1";
        self.text(&sql.replace("{}", &self.tenant().to_string())).await
    }

    pub async fn disputes(&mut self) {
        let charge = self.newest_charge().await;
        let dispute = self.standin.dispute(&charge, None, "fraudulent").expect("a dispute");
        self.dispute = dispute["id"].as_str().map(str::to_owned);
        self.comes_to("restriction", |account| account["access"] == "restricted").await;
    }

    pub async fn dispute_ends(&mut self, won: bool) {
        let dispute = self.dispute.take().expect("a dispute");
        self.standin.close_dispute(&dispute, won).expect("an end");
        self.comes_to("everything again", |account| account["access"] == "open").await;
    }
}

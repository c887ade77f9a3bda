//! `weir billing doctor` says whether somebody is billed for what tenants may owe, which the database knows.

use std::process::Command;

use serde_json::json;
use weir::clock::{Clock, Timestamp};
use weir::standin::{SECRET_KEY, Standin};

use crate::support::Gateway;
use crate::support::database::rows;
use crate::support::shop::Shop;
use crate::support::stripe::{self, standin};

/// A gateway, and the account that it bills through.
struct World {
    clock: Clock,
    standin: Standin,
    gateway: Gateway,
}

impl World {
    async fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_micros(1_750_000_000_000_000));
        let standin = standin(clock.clone()).await;
        let gateway = stripe::billing(&clock, &standin).set("billing.credit_price", "0.25").start().await;
        stripe::set_up(&gateway, &clock).await;
        Self { clock, standin, gateway }
    }

    fn shop(&self) -> Shop<'_> {
        Shop { db: &self.gateway.app.db, clock: &self.clock }
    }

    /// What the doctor says of plans, where `billing.after_plan` is this.
    async fn says(&self, after: &str) -> Vec<String> {
        self.says_of(self.gateway.database_url(), after).await
    }

    async fn says_of(&self, database: &str, after: &str) -> Vec<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["billing", "doctor"]).env_clear().envs([
            ("WEIR_DATABASE__URL", database),
            ("WEIR_BILLING__STRIPE_KEY", SECRET_KEY),
            ("WEIR_BILLING__STRIPE_URL", &self.standin.base_url()),
            ("WEIR_BILLING__CREDIT_PRICE", "0.25"),
            ("WEIR_BILLING__AFTER_PLAN", after),
        ]);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends");
        let text = String::from_utf8(output.expect("it runs").stdout).expect("text");
        assert!(text.contains("there:   key: test mode"), "whatever the database is: {text}");
        let of_plans = |line: &&str| line.contains("may owe: ") || line.contains("billing.after_plan: ");
        text.lines().filter(of_plans).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn plans_that_may_owe_and_tenants_without_a_subscription_are_named() {
    let world = World::new().await;
    let said = world.says("default").await;
    assert_eq!(said[0], "there:   plans that may owe: none is published");
    assert_eq!(said.len(), 2, "{said:?}");

    let shop = world.shop();
    shop.publish("bought", json!({ "kind": "prepaid" })).await;
    shop.publish("open", json!({ "kind": "usage", "self_service": true })).await;
    shop.customer("bought").await;
    let said = world.says("bought").await;
    assert_eq!(said[0], "there:   plans that may owe: 1 (open); tenants can subscribe to each");

    let mut tenants = Vec::new();
    for _ in 0..6 {
        tenants.push(shop.customer("open").await.tenant);
    }
    shop.publish("closed", json!({ "kind": "hybrid", "included": "1" })).await;
    let said = world.says("bought").await;
    // Tenants of this story are named by ids of their own.
    assert!(
        said[0].starts_with("look:    tenants that may owe: 6 (tn_") && said[0].contains(", ...)"),
        "{said:?}"
    );
    assert!(said[0].contains("billed to nobody") && said[0].contains("/billing/checkout"), "{said:?}");
    assert!(said[1].starts_with("look:    plans that may owe: 1 (closed) of 2 (closed, open): "), "{said:?}");
    assert!(said[1].contains("self_service"), "{said:?}");

    // Those who subscribed are billed, and a subscription that has ended bills nobody.
    for (number, tenant) in tenants.iter().enumerate() {
        let status = if number == 5 { "canceled" } else { "active" };
        // An account is opened with the first period of a tenant.
        weir::accounts::standing(&world.gateway.app.db, *tenant, world.clock.now())
            .await
            .expect("an account");
        for sql in [
            format!(
                "insert into billing_customers (tenant_id, customer, created_at)
                 values ('{tenant}', 'cus_{number}', 1) returning customer"
            ),
            format!(
                "insert into billing_subscriptions (id, tenant_id, customer, status, billing_cycle_anchor,
                                                    cancel_at_period_end, created_at, fetched_at)
                 values ('sub_{number}', '{tenant}', 'cus_{number}', '{status}', 1, false, 1, 1) returning id"
            ),
        ] {
            rows(world.gateway.database_url(), &sql).await;
        }
    }
    let said = world.says("bought").await;
    assert!(
        said[0].starts_with("look:    tenants that may owe: 1 (tn_") && !said[0].contains("..."),
        "{said:?}"
    );
}

#[tokio::test]
async fn the_plan_after_a_subscription_is_one_that_owes_nothing() {
    let world = World::new().await;
    let shop = world.shop();
    shop.publish("bought", json!({ "kind": "prepaid" })).await;
    shop.publish("base", json!({ "kind": "prepaid", "base_fee": 100 })).await;
    shop.publish("owing", json!({ "kind": "usage" })).await;
    for (plan, line) in [
        ("bought", "there:   billing.after_plan: bought: owes nothing"),
        ("default", "look:    billing.after_plan: default: has no prices"),
        ("owing", "look:    billing.after_plan: owing: costs something that only a subscription pays"),
        ("base", "look:    billing.after_plan: base: costs something that only a subscription pays"),
        ("gone", "wrong:   billing.after_plan: gone: there is none of this name"),
    ] {
        let said = world.says(plan).await;
        assert!(said.last().is_some_and(|last| last.starts_with(line)), "{line} in {said:?}");
    }
}

#[tokio::test]
async fn without_a_database_the_rest_is_checked() {
    let world = World::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    let nowhere = format!("sqlite:{}", directory.path().join("weir.db").display());
    for database in [nowhere.as_str(), "postgres://weir:hunter2@127.0.0.1:1/weir"] {
        let said = world.says_of(database, "default").await;
        let text = "not checked, because the database cannot be read";
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said.iter().all(|line| line.starts_with("look: ") && line.contains(text)), "{said:?}");
        assert!(said.iter().all(|line| !line.contains("hunter2")), "{said:?}");
    }
    assert!(!directory.path().join("weir.db").exists(), "nothing is made");
}

//! What follows from the mirror, in whichever order it became so.

use serde_json::{Value, json};

use super::*;
use crate::accounts::{Access, Account};
use crate::credits::Credits;
use crate::db::mirror::invoices::Invoice;
use crate::db::mirror::subscriptions::Subscription;
use crate::db::testing::{execute, number, on_every_engine, open_account};
use crate::db::top_ups::{self, TopUp};
use crate::id::{ReplicaId, TopUpId};
use crate::plans::PlanName;
use crate::{prices, tenants};

const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// A tenant that is billed, on the plan `default`, and one that makes its account what the mirror says.
struct World {
    db: Db,
    clock: Clock,
    tenant: TenantId,
    follower: Follower,
}

fn name(text: &str) -> PlanName {
    text.parse().expect("a name")
}

impl World {
    async fn new(db: &Db) -> Self {
        let clock = Clock::manual(START);
        let mut config = config::Layers::default().load().expect("the defaults").billing;
        config.after_plan = "free".to_owned();
        let metrics = Metrics::register(&prometheus::Registry::new()).expect("metrics");
        let (lead, name) = (Duration::ZERO, ReplicaId::new().to_string());
        let tenant = tenants::create(db, &clock, Actor::Cli, &name).await.expect("a tenant").id;
        open_account(db, tenant).await;
        db::exports::insert_customer(db, tenant, &format!("cus_{tenant}"), START).await.expect("a customer");
        let follower = Follower { db: db.clone(), clock: clock.clone(), config, lead, metrics };
        let world = Self { db: db.clone(), clock, tenant, follower };
        world.publish("free", json!({ "kind": "free", "included": "30" })).await;
        world.publish("pro", json!({ "kind": "hybrid", "included": "300" })).await;
        world
    }

    async fn publish(&self, plan: &str, terms: Value) {
        let terms = serde_json::from_value(terms).expect("terms");
        let when = (None, Duration::ZERO);
        let done = prices::publish(&self.db, &self.clock, Actor::Cli, &name(plan), &terms, when).await;
        done.expect("prices");
    }

    /// The mirror says so, and what follows does.
    async fn hears(&self, fetched: Fetched) -> Result<()> {
        let mut tx = self.db.begin().await.expect("a transaction");
        let at = self.clock.now();
        crate::billing::mirror::put(&mut tx, self.tenant, &fetched, at).await.expect("a row");
        tx.commit().await.expect("committed");
        Box::pin(self.follower.follow(self.tenant, &fetched, at)).await
    }

    async fn account(&self) -> Account {
        db::accounts::get(&self.db, self.tenant).await.expect("a row").expect("an account")
    }

    async fn plan(&self) -> String {
        tenants::get(&self.db, self.tenant).await.expect("a tenant").plan
    }

    async fn periods_on(&self, plan: &str) -> i64 {
        let sql =
            format!("select count(*) from periods where plan = '{plan}' and tenant_id = '{}'", self.tenant);
        number(&self.db, &sql).await
    }
}

fn subscription(status: &str) -> Subscription {
    Subscription {
        id: "sub_1".to_owned(),
        customer: "cus_1".to_owned(),
        status: status.to_owned(),
        plan: Some("pro".to_owned()),
        plan_before: None,
        plan_from: None,
        billing_cycle_anchor: START,
        current_period_start: Some(START),
        current_period_end: Some(START.plus(30 * DAY)),
        trial_end: None,
        cancel_at: None,
        cancel_at_period_end: false,
        canceled_at: None,
        ended_at: None,
        base_price: None,
        base_item: None,
        base_amount: Some(1900),
        metered_item: None,
        latest_invoice: Some("in_1".to_owned()),
        created_at: START,
    }
}

fn invoice(id: &str, status: &str, attempt_count: i64) -> Fetched {
    Fetched::Invoice(bill(id, status, attempt_count))
}

fn bill(id: &str, status: &str, attempt_count: i64) -> Invoice {
    Invoice {
        id: id.to_owned(),
        customer: "cus_1".to_owned(),
        subscription: Some("sub_1".to_owned()),
        status: status.to_owned(),
        billing_reason: Some("subscription_cycle".to_owned()),
        number: None,
        currency: "usd".to_owned(),
        total: 1900,
        amount_due: 1900,
        amount_paid: 0,
        amount_remaining: 1900,
        attempt_count,
        next_payment_attempt: None,
        due_at: None,
        finalized_at: (status != "draft").then_some(START),
        paid_at: None,
        hosted_invoice_url: None,
        metered_from: None,
        metered_to: None,
        metered_quantity: None,
        metered_amount: None,
        created_at: START,
    }
}

#[tokio::test]
async fn a_subscription_that_ends_begins_no_other_month_whatever_is_heard_first() {
    on_every_engine(async |db| {
        for by_date in [false, true] {
            let world = World::new(&db).await;
            let mut ending = subscription("active");
            world.hears(Fetched::Subscription(ending.clone())).await.expect("followed");
            assert_eq!(world.plan().await, "pro");
            (ending.cancel_at_period_end, ending.cancel_at) =
                (!by_date, by_date.then(|| START.plus(10 * DAY)));
            world.hears(Fetched::Subscription(ending)).await.expect("followed");
            world.clock.advance(if by_date { 10 * DAY } else { 30 * DAY } + Duration::from_secs(1));
            world.hears(invoice("in_2", "draft", 0)).await.expect("followed");
            assert_eq!((world.plan().await.as_str(), world.account().await.next_plan), ("free", None));
            world.clock.advance(Duration::from_secs(60));
            world.hears(Fetched::Subscription(subscription("canceled"))).await.expect("followed");
            assert_eq!((world.plan().await.as_str(), world.account().await.subscription), ("free", None));
            assert_eq!((world.periods_on("pro").await, world.periods_on("free").await), (1, 1));
            let now = world.clock.now();
            let standing = accounts::standing(&db, world.tenant, now).await.expect("a standing");
            assert_eq!(standing.current.expect("a period").plan, name("free"));
            execute(&db, "delete from billing_subscriptions").await;
            execute(&db, "delete from billing_invoices").await;
        }
    })
    .await;
}

#[tokio::test]
async fn credits_whose_payment_is_given_back_are_gone_whatever_is_heard_first() {
    on_every_engine(async |db| {
        for (refunded, dispute) in [(2500, None), (0, Some("lost")), (500, None)] {
            let world = World::new(&db).await;
            let (id, intent) = (TopUpId::new(), Some(format!("pi_{}", world.tenant)));
            let credits = Credits::from_micros(100_000_000);
            let tenant_id = world.tenant;
            let top_up = TopUp { id, tenant_id, credits, amount: 2500, currency: "usd".to_owned() };
            top_ups::insert(&db, &top_up, START).await.expect("a row");
            let charge = Charge {
                id: format!("ch_{}", world.tenant),
                customer: "cus_1".to_owned(),
                payment_intent: intent.clone(),
                status: "succeeded".to_owned(),
                currency: "usd".to_owned(),
                amount: 2500,
                amount_refunded: refunded,
                disputed: dispute.is_some(),
                dispute_status: dispute.map(str::to_owned),
                created_at: START,
            };
            let checkout = Checkout {
                id: format!("cs_{}", world.tenant),
                customer: "cus_1".to_owned(),
                mode: "payment".to_owned(),
                status: "complete".to_owned(),
                payment_status: "paid".to_owned(),
                subscription: None,
                payment_intent: intent,
                invoice: None,
                amount_total: Some(2500),
                currency: Some("usd".to_owned()),
                topup: Some(id.to_string()),
                created_at: START,
            };
            world.hears(Fetched::Charge(charge)).await.expect("followed");
            for _ in 0..2 {
                world.hears(Fetched::Checkout(checkout.clone())).await.expect("followed");
                let left = format!(
                    "select cast(sum(granted - used - voided) as bigint) from grants where tenant_id = '{tenant_id}'"
                );
                let left = number(&db, &left).await;
                assert_eq!(left, if refunded == 500 { 100_000_000 } else { 0 }, "{refunded} {dispute:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn access_follows_also_where_the_plan_is_not_known() {
    on_every_engine(async |db| {
        for plan in [None, Some("nowhere")] {
            let world = World::new(&db).await;
            world.hears(Fetched::Subscription(subscription("active"))).await.expect("followed");
            let mut odd = Subscription { plan: plan.map(str::to_owned), ..subscription("past_due") };
            let failed = world.hears(invoice("in_1", "open", 1)).await;
            failed.expect("followed");
            let wrong = world.hears(Fetched::Subscription(odd.clone())).await;
            assert!(matches!(wrong, Err(Error::Invalid(_))), "{plan:?}");
            assert_eq!((world.account().await.access, world.plan().await.as_str()), (Access::Grace, "pro"));
            world.clock.advance(4 * DAY);
            world.follower.unpaid().await.expect("looked at");
            assert_eq!(world.account().await.access, Access::Restricted);
            odd.status = "active".to_owned();
            let wrong = world.hears(invoice("in_1", "paid", 1)).await;
            assert!(matches!(wrong, Err(Error::Invalid(_))), "{plan:?}");
            let wrong = world.hears(Fetched::Subscription(odd)).await;
            assert!(matches!(wrong, Err(Error::Invalid(_))), "{plan:?}");
            assert_eq!(world.account().await.access, Access::Open);
            execute(&db, "delete from billing_subscriptions").await;
            execute(&db, "delete from billing_invoices").await;
        }
    })
    .await;
}

#[tokio::test]
async fn after_a_subscription_there_is_always_a_plan() {
    on_every_engine(async |db| {
        let mut world = World::new(&db).await;
        world.follower.config.after_plan = "nowhere".to_owned();
        world.hears(Fetched::Subscription(subscription("active"))).await.expect("followed");
        world.hears(Fetched::Subscription(subscription("canceled"))).await.expect("followed");
        assert_eq!((world.plan().await.as_str(), world.account().await.subscription), ("default", None));
    })
    .await;
}

#[tokio::test]
async fn a_debit_that_takes_days_is_not_unpaid_before_it_fails() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        let access = async || {
            world.follower.unpaid().await.expect("looked at");
            world.account().await.access
        };
        world.hears(Fetched::Subscription(subscription("active"))).await.expect("followed");
        world.hears(invoice("in_1", "open", 1)).await.expect("followed");
        world.clock.advance(4 * DAY);
        assert_eq!(access().await, Access::Open, "it is on its way");
        world.hears(Fetched::Subscription(subscription("past_due"))).await.expect("followed");
        assert_eq!(access().await, Access::Restricted, "it came back");
        // The next month is paid, and this one is not.
        let next = Subscription { latest_invoice: Some("in_2".to_owned()), ..subscription("active") };
        world.hears(invoice("in_2", "paid", 1)).await.expect("followed");
        world.hears(Fetched::Subscription(next)).await.expect("followed");
        assert_eq!(access().await, Access::Restricted);
        world.hears(invoice("in_1", "paid", 2)).await.expect("followed");
        assert_eq!(access().await, Access::Open);
        world.hears(invoice("in_2", "uncollectible", 1)).await.expect("followed");
        assert_eq!(access().await, Access::Restricted, "somebody gave it up");
    })
    .await;
}

#[tokio::test]
async fn what_changes_nothing_closes_no_connection() {
    on_every_engine(async |db| {
        if db.engine() != "postgres" {
            return;
        }
        let world = World::new(&db).await;
        world.hears(Fetched::Subscription(subscription("active"))).await.expect("followed");
        let new = NewGrant {
            kind: GrantKind::Prepaid,
            credits: Credits::from_micros(1),
            source: Some("once".to_owned()),
            note: String::new(),
            expires_at: None,
        };
        // Of a pool's connections another one may be taken each time, and there may come to be more.
        let open = "from pg_stat_activity where datname = current_database()";
        let began = "cast(extract(epoch from backend_start) * 1000000 as bigint)";
        let newest = number(&db, &format!("select max({began}) {open}")).await;
        let still = format!("select count(*) {open} and {began} <= {newest}");
        let before = number(&db, &still).await;
        for _ in 0..2 {
            assert!(!Box::pin(world.follower.tenant(world.tenant)).await.expect("followed"));
            let add = grants::add(&db, &world.clock, Actor::Cli, world.tenant, new.clone());
            let grant = add.await.expect("a grant").id;
            grants::void(&db, &world.clock, Actor::Cli, world.tenant, grant).await.expect("taken back");
        }
        assert_eq!(number(&db, &still).await, before);
    })
    .await;
}

#[tokio::test]
async fn what_an_invoice_left_out_stays_so_while_it_cannot_be_read() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        world.hears(Fetched::Subscription(subscription("active"))).await.expect("followed");
        let of_period = format!("(select min(id) from periods where tenant_id = '{}')", world.tenant);
        let minute = START.as_micros() / 60_000_000 * 60_000_000 + 60_000_000;
        execute(
            &db,
            &format!(
                "insert into exports (id, tenant_id, period_id, slot, credits, state, counted, due_at, created_at)
                 values ('exp_{0}', '{0}', {of_period}, {minute}, 30, 'verified', 30, 0, 0)",
                world.tenant
            ),
        )
        .await;
        let carried = async || {
            let sum = "select cast(sum(carried) as bigint) from invoice_proofs";
            number(&db, &format!("{sum} where tenant_id = '{}'", world.tenant)).await
        };
        for (quantity, expected) in [(Some(10), 20), (None, 20), (Some(30), 0)] {
            let bill = Invoice {
                metered_from: Some(START),
                metered_to: Some(START.plus(DAY)),
                metered_quantity: quantity,
                ..bill(&format!("in_{}", world.tenant), "paid", 1)
            };
            world.hears(Fetched::Invoice(bill)).await.expect("followed");
            assert_eq!(carried().await, expected, "{quantity:?}");
        }
    })
    .await;
}

//! What tenants owe becomes usage at Stripe, and is proven there. Against the stand-in.

use std::process::Command;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use weir::billing::export::{Proof, Round, Verdict};
use weir::billing::job::Job;
use weir::clock::{Clock, Timestamp};
use weir::ledger::verify::{self, Check, Options};
use weir::standin::{Fault, SECRET_KEY, Standin, Trouble};

use crate::support::database::rows;
use crate::support::gateway::{self, Key};
use crate::support::shop::Shop;
use crate::support::stripe::{self, standin};
use crate::support::{Gateway, Modern, eventually};

/// 2026-09-21T14:13:20Z.
const START: i64 = 1_790_000_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A gateway that bills through a stand-in, and a tenant that owes what it uses.
struct World {
    clock: Clock,
    standin: Standin,
    gateway: Gateway,
    key: Key,
    job: Job,
}

impl World {
    /// What is owed is told every so many milliseconds.
    async fn new(every: u64) -> Self {
        let clock = Clock::manual(Timestamp::from_micros(START));
        let standin = standin(clock.clone()).await;
        let gateway = stripe::billing(&clock, &standin)
            .set("billing.credit_price", "0.25")
            .set("billing.export_every_ms", u128::from(every))
            .start()
            .await;
        let app = &gateway.app;
        stripe::set_up(&gateway, &clock).await;
        let job = Job::connect(&app.config, &app.db, &clock, &app.metrics.billing).await;
        let job = job.expect("a job").expect("a Stripe");
        let shop = Shop { db: &app.db, clock: &clock };
        let terms =
            json!({ "kind": "usage", "tools": [{ "name": "work", "server": "lab", "per_call": "0.25" }] });
        shop.publish("usage", terms).await;
        let key = shop.customer("usage").await;
        clock.advance(Duration::from_secs(1));
        Self { clock, standin, gateway, key, job }
    }

    /// Calls that cost a quarter of a credit each; then they are owed.
    async fn use_tools(&self, calls: usize) {
        let before = self.owed().await;
        let client = Modern::new(&self.gateway, &self.key);
        for number in 0..calls {
            let id = format!("{before} {number}");
            let reply = client.call("work", json!({ "id": id })).await;
            assert_eq!(reply.result()["isError"], false, "{}", reply.text);
        }
        let micros = before + i64::try_from(calls).expect("few") * 250_000;
        // Minutes enough for as many events as there may be rounds before all of it is owed.
        self.clock.advance(5 * MINUTE);
        eventually("the calls are owed", async || self.owed().await == micros).await;
    }

    async fn owed(&self) -> i64 {
        let sql = "select cast(coalesce(sum(overage_used), 0) as bigint) from periods";
        self.number(sql).await
    }

    async fn number(&self, sql: &str) -> i64 {
        rows(self.gateway.database_url(), sql).await[0][0].parse().expect("a number")
    }

    /// What Stripe counts or will count for the tenant, in micro-credits.
    async fn billed(&self) -> i64 {
        let sql = format!("select customer from billing_customers where tenant_id = '{}'", self.key.tenant);
        let Some(row) = rows(self.gateway.database_url(), &sql).await.into_iter().next() else { return 0 };
        let meters = self.ask(Method::GET, "/v1/billing/meters", &[]).await;
        let meter = meters["data"][0]["id"].as_str().expect("a meter");
        self.standin.total(meter, &row[0], 0, i64::MAX)
    }

    /// Waits until so much was told: each part of it in a minute of its own, so time goes on.
    async fn is_billed(&self, micros: i64) {
        eventually("it is told", async || {
            self.clock.advance(Duration::from_secs(20));
            self.billed().await == micros
        })
        .await;
    }

    /// Somebody else with the same key asks the stand-in.
    async fn ask(&self, method: Method, path: &str, form: &[(&str, String)]) -> Value {
        let url = format!("{}{path}", self.standin.base_url());
        let body = form.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&");
        let request = gateway::client().request(method, url).bearer_auth(SECRET_KEY);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON")
    }

    /// Waits until everything that was told is proven.
    async fn is_proven(&self) {
        let of = |state: &str| format!("select count(*) from exports where state {state}");
        // Noted, and then due: the clock moves only here.
        eventually("answers to be noted", async || self.number(&of("= 'open'")).await == 0).await;
        self.clock.advance(3 * MINUTE);
        eventually("proof", async || self.number(&of("<> 'verified'")).await == 0).await;
    }

    /// How often what is counted was asked for.
    fn summaries_read(&self) -> usize {
        self.standin.requests().iter().filter(|seen| seen.path.ends_with("/event_summaries")).count()
    }

    /// Somebody else tells of usage in the minute of the first export.
    async fn add_usage(&self, micros: i64) {
        let sql = "select slot, customer from exports join billing_customers using (tenant_id) order by slot";
        let row = rows(self.gateway.database_url(), sql).await.remove(0);
        let second: i64 = row[0].parse::<i64>().expect("a slot") / 1_000_000;
        let form = [
            ("event_name", "weir_credits".to_owned()),
            ("payload[value]", micros.to_string()),
            ("payload[stripe_customer_id]", row[1].clone()),
            ("timestamp", (second + 5).to_string()),
        ];
        self.ask(Method::POST, "/v1/billing/meter_events", &form).await;
    }

    async fn export(&self) -> Round {
        self.job.export().await.expect("a round")
    }

    async fn proof(&self) -> Proof {
        let mut proofs = Vec::new();
        self.job.reconcile(Some(self.key.tenant), |proof| proofs.push(proof)).await.expect("proofs");
        proofs.into_iter().next().expect("a period")
    }
}

#[tokio::test]
async fn what_is_used_is_told_counted_and_proven() {
    let world = World::new(100).await;
    world.use_tools(4).await;
    world.is_billed(1_000_000).await;
    world.is_proven().await;
    let proof = world.proof().await;
    assert_eq!((proof.verdict, proof.owed.micros()), (Verdict::Equal, 1_000_000));

    // More of it is told in another minute.
    world.use_tools(2).await;
    world.is_billed(1_500_000).await;
    assert_eq!(world.proof().await.verdict, Verdict::InFlight);
    world.is_proven().await;
    assert_eq!(world.proof().await.verdict, Verdict::Equal);
    let exports = world.number("select count(*) from exports").await;
    assert!(exports >= 2);
    assert_eq!(world.number("select count(distinct slot) from exports").await, exports);
}

#[tokio::test]
async fn answers_that_are_lost_charge_nobody_twice() {
    let world = World::new(3_600_000).await;
    let events = "/v1/billing/meter_events";
    world.use_tools(4).await;
    // Whoever owes and is no customer yet is not proven either.
    let proof = world.proof().await;
    assert_eq!((proof.verdict, proof.told.micros()), (Verdict::InFlight, 0));
    for fault in [
        Fault::new(Trouble::LostResponse),
        Fault::new(Trouble::BadGateway).applied(),
        Fault::new(Trouble::ServerError),
        Fault::new(Trouble::Reset).applied(),
        Fault::new(Trouble::RateLimit),
    ] {
        world.standin.fault(fault.on("POST", events));
        assert_eq!(world.export().await.sent, 1);
        assert_eq!(world.billed().await, 1_000_000);
        assert_eq!(world.proof().await.verdict, Verdict::InFlight);
        world.clock.advance(20 * MINUTE);
    }
    // The last try hears that it is there already.
    assert_eq!(world.export().await.sent, 1);
    world.clock.advance(3 * MINUTE);
    assert_eq!(world.export().await.verified, 1);
    assert_eq!(world.billed().await, 1_000_000);
    assert_eq!(world.proof().await.verdict, Verdict::Equal);
}

#[tokio::test]
async fn what_stripe_lost_is_told_anew_when_that_is_proven() {
    let world = World::new(3_600_000).await;
    world.use_tools(4).await;
    world.standin.fault(Fault::new(Trouble::DropEvent).on("POST", "/v1/billing/meter_events"));
    assert_eq!(world.export().await.sent, 1);
    assert_eq!(world.billed().await, 0, "accepted, and never counted");
    for hour in 0..26 {
        world.clock.advance(HOUR);
        let round = world.export().await;
        assert_eq!((round.begun, round.sent, round.drifted), (0, 0, 0), "hour {hour}");
    }
    world.clock.advance(HOUR);
    world.export().await;
    world.export().await;
    assert_eq!(world.billed().await, 1_000_000);
    world.clock.advance(3 * MINUTE);
    assert_eq!(world.export().await.verified, 1);
    assert_eq!(world.proof().await.verdict, Verdict::Equal);
    assert_eq!(world.number("select max(generation) from exports").await, 2);
}

#[tokio::test]
async fn usage_from_elsewhere_is_found_and_taken_back() {
    let world = World::new(3_600_000).await;
    world.use_tools(4).await;
    world.export().await;
    world.clock.advance(3 * MINUTE);
    assert_eq!(world.export().await.verified, 1);
    world.add_usage(7).await;
    assert_eq!(world.proof().await.verdict, Verdict::Extra);
    assert_eq!(world.proof().await.verdict, Verdict::InFlight, "it is known, and to be set right");
    assert_eq!(world.export().await.sent, 1);
    world.clock.advance(3 * MINUTE);
    assert_eq!(world.export().await.verified, 1);
    assert_eq!(world.billed().await, 1_000_000);
    assert_eq!(world.proof().await.verdict, Verdict::Equal);
}

/// Whatever is said by it, the ledger is right: by the library at the time of this story, and on the command line.
#[tokio::test]
async fn a_ledger_with_exports_in_every_state_is_verified() {
    let world = World::new(3_600_000).await;
    world.use_tools(4).await;
    // Nobody is a customer yet.
    let looked = async |check: Check| {
        let options = Options { tenant: None, free: &[], replay: 24 * HOUR };
        let report = verify::verify(&world.gateway.app.db, &world.clock, &options).await.expect("a report");
        assert!(report.is_clean(), "{report:#?}");
        report.of(check).looked
    };
    assert_eq!(looked(Check::Told).await, 0);
    world.export().await;
    world.clock.advance(3 * MINUTE);
    assert_eq!(world.export().await.verified, 1);
    assert_eq!((looked(Check::Told).await, looked(Check::Exports).await), (1, 1));
    // Somebody else uses its minute, so it is frozen, and what is too much taken back.
    world.add_usage(7).await;
    assert_eq!(world.proof().await.verdict, Verdict::Extra);
    assert_eq!(looked(Check::Exports).await, 1, "more was counted than is owed, and that says why");
    assert_eq!(world.export().await.sent, 1);
    world.clock.advance(3 * MINUTE);
    assert_eq!(world.export().await.verified, 1);
    world.use_tools(2).await;
    assert_eq!(looked(Check::Told).await, 1, "it waits");
    assert_eq!(world.export().await.sent, 1);
    // What was sent cannot be read back, and what is sent then has no answer.
    world.standin.fault(Fault::new(Trouble::BadGateway).on("GET", "/v1/billing/meters").times(9));
    world.standin.fault(Fault::new(Trouble::BadGateway).on("POST", "/v1/billing/meter_events").times(9));
    world.use_tools(1).await;
    world.export().await;
    let states = "select distinct state from exports order by state";
    let states = rows(world.gateway.database_url(), states).await.concat();
    assert_eq!(states, ["frozen", "open", "sent", "verified"]);
    assert_eq!((looked(Check::Minutes).await, looked(Check::Tenants).await > 0), (4, true));

    let url = world.gateway.database_url().to_owned();
    let verify = async || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["ledger", "verify", "--json"]).env_clear().env("WEIR_DATABASE__URL", &url);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends");
        let output = output.expect("it runs");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let checks = report["checks"].as_array().expect("checks").clone();
        let told = checks.into_iter().find(|check| check["check"] == "told").expect("a check");
        (output.status.code(), told)
    };
    let (code, told) = verify().await;
    assert_eq!((code, &told["looked"]), (Some(0), &json!(1)), "{told}");
    // Less owed than told: the ledger itself says no, and so do the exports.
    let harm = "update periods set overage_used = overage_used - 1000 returning id";
    rows(&url, harm).await;
    let (code, told) = verify().await;
    assert_eq!((code, &told["wrong"]), (Some(1), &json!(1)), "{told}");
}

#[tokio::test]
async fn a_customer_is_made_although_stripe_keeps_an_error_for_its_key() {
    let world = World::new(3_600_000).await;
    world.use_tools(4).await;
    world.standin.fault(Fault::new(Trouble::ServerError).on("POST", "/v1/customers"));
    assert_eq!(world.export().await.sent, 1);
    assert_eq!(world.billed().await, 1_000_000);
}

#[tokio::test]
async fn a_tenant_is_compared_by_one_process_each_hour_and_once_more_before_its_invoice_is_final() {
    let world = World::new(3_600_000).await;
    world.use_tools(4).await;
    world.export().await;
    world.clock.advance(3 * MINUTE);
    assert_eq!(world.export().await.verified, 1);
    let app = &world.gateway.app;
    let other = Job::connect(&app.config, &app.db, &world.clock, &app.metrics.billing).await;
    let other = other.expect("a job").expect("a Stripe");
    // Of two that begin at the same time.
    let compared = async || {
        let before = world.summaries_read();
        let (one, two) = tokio::join!(world.job.reconcile_due(), other.reconcile_due());
        one.and(two).expect("compared");
        world.summaries_read() - before
    };
    world.clock.advance(HOUR);
    assert_eq!(compared().await, 1);
    assert_eq!(compared().await, 0);
    world.clock.advance(HOUR - MINUTE);
    assert_eq!(compared().await, 0);
    world.clock.advance(MINUTE);
    assert_eq!(compared().await, 1);
    let gauge = |verdict: Verdict| app.metrics.billing.verdicts.with_label_values(&[verdict.as_str()]).get();
    assert_eq!((gauge(Verdict::Equal), gauge(Verdict::Missing)), (1, 0));

    // A quarter of an hour after the last one, and before the invoice becomes final, an hour after the end of the period.
    let ends_at = world.number("select min(ends_at) from periods").await;
    let left = u64::try_from(ends_at - world.clock.now().as_micros()).expect("it runs");
    world.clock.advance(Duration::from_micros(left) + 25 * MINUTE);
    assert!(compared().await > 0);
    world.clock.advance(4 * MINUTE);
    assert_eq!(compared().await, 0);
    world.clock.advance(2 * MINUTE);
    assert!(compared().await > 0);
    world.clock.advance(10 * MINUTE);
    assert_eq!(compared().await, 0);
}

#[tokio::test]
async fn what_stripe_did_not_say_before_an_invoice_is_final_is_asked_again_before_it_is() {
    let world = World::new(3_600_000).await;
    world.use_tools(4).await;
    world.export().await;
    world.clock.advance(3 * MINUTE);
    assert_eq!(world.export().await.verified, 1);
    let of = async |verdict: &str| {
        let sql = "select count(*) from proofs p where at = (select max(at) from proofs) and verdict";
        world.number(&format!("{sql} = '{verdict}'")).await > 0
    };
    let silent = || Fault::new(Trouble::ServerError).on("GET", "/v1/billing/meters").times(1000);
    let app = &world.gateway.app;
    let gauge = || app.metrics.billing.verdicts.with_label_values(&[Verdict::Unreadable.as_str()]).get();
    // One of each hour.
    world.clock.advance(HOUR);
    world.standin.fault(silent());
    world.job.reconcile_due().await.expect("tried");
    assert_eq!((of("unreadable").await, gauge()), (true, 1));
    world.clock.advance(4 * MINUTE);
    world.standin.clear_faults();
    world.job.reconcile_due().await.expect("not due");
    assert!(of("unreadable").await);
    world.clock.advance(MINUTE);
    world.job.reconcile_due().await.expect("compared");
    assert_eq!((of("equal").await, gauge()), (true, 0));
    // And the last one.
    let ends_at = world.number("select min(ends_at) from periods").await;
    let left = u64::try_from(ends_at - world.clock.now().as_micros()).expect("it runs");
    world.clock.advance(Duration::from_micros(left) + 20 * MINUTE);
    world.job.reconcile_due().await.expect("compared");
    world.clock.advance(15 * MINUTE);
    world.standin.fault(silent());
    world.job.reconcile_due().await.expect("tried");
    assert!(of("unreadable").await);
    world.standin.clear_faults();
    world.clock.advance(5 * MINUTE);
    world.job.reconcile_due().await.expect("compared");
    assert!(of("equal").await);
    let asked = world.summaries_read();
    world.clock.advance(6 * MINUTE);
    world.job.reconcile_due().await.expect("not due");
    assert_eq!(world.summaries_read(), asked);
}

#[tokio::test]
async fn a_database_belongs_to_one_mode() {
    let world = World::new(3_600_000).await;
    let mut config = world.gateway.app.config.clone();
    config.billing.stripe_key = "sk_live_0123456789".into();
    let app = &world.gateway.app;
    let refused = Job::connect(&config, &app.db, &world.clock, &app.metrics.billing).await;
    let refused = refused.err().expect("refused").to_string();
    assert!(refused.contains("billing.stripe_key") && refused.contains("test mode"), "{refused}");
}

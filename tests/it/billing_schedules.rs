//! Whatever goes wrong between Weir and Stripe, and whenever a process dies, it is counted in the end what the calls cost. Made-up
//! schedules: faults and times are the same at every run, other ones on each engine; at which await a process dies is by chance as well.
//! Webhooks have schedules of their own (`billing::inbox::tests`).

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use serde_json::{Value, json};
use weir::billing::export::Verdict;
use weir::billing::job::Job;
use weir::clock::{Clock, Timestamp};
use weir::standin::{Fault, SECRET_KEY, Standin, Trouble};

use crate::support::database::rows;
use crate::support::gateway;
use crate::support::shop::Shop;
use crate::support::stripe::{self, standin};
use crate::support::{Gateway, Modern, eventually};

/// Schedules of one story, of which there are eight on each engine: 320 together.
const SCHEDULES: u64 = 20;
/// 2026-09-21T14:13:20Z.
const START: i64 = 1_790_000_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);
const EVENTS: &str = "/v1/billing/meter_events";
/// What a call costs, in micro-credits.
const PRICE: i64 = 250_000;

/// Draws that are the same at every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Something that goes wrong with one of the next requests.
    fn fault(&mut self) -> Fault {
        let (method, path) = match self.below(4) {
            0 => ("GET", "/v1/billing/meters"),
            1 => ("POST", "/v1/customers"),
            _ => ("POST", EVENTS),
        };
        let fault = match self.below(9) {
            0 => Fault::new(Trouble::LostResponse),
            1 => Fault::new(Trouble::Reset),
            2 => Fault::new(Trouble::Reset).applied(),
            3 => Fault::new(Trouble::ServerError),
            4 => Fault::new(Trouble::ServerError).applied(),
            5 => Fault::new(Trouble::RateLimit),
            6 => Fault::new(Trouble::BadGateway),
            7 => Fault::new(Trouble::BadGateway).applied(),
            _ => return Fault::new(Trouble::DropEvent).on("POST", EVENTS),
        };
        let times = u32::try_from(self.below(3)).expect("small") + 1;
        fault.on(method, path).times(times)
    }
}

/// A process that dies when it has been looked at so often: at any await of its work.
struct Dies<'a, F> {
    work: Pin<&'a mut F>,
    looks: u64,
}

impl<F: Future> Future for Dies<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.looks == 0 {
            return Poll::Ready(None);
        }
        self.looks -= 1;
        self.work.as_mut().poll(context).map(Some)
    }
}

struct World {
    clock: Clock,
    standin: Standin,
    gateway: Gateway,
    dice: Dice,
    /// In micro-credits.
    owed: i64,
    /// The process that is at it. After a death, another one.
    job: Job,
}

/// A process.
async fn process(gateway: &Gateway, clock: &Clock) -> Job {
    let app = &gateway.app;
    let job = Job::connect(&app.config, &app.db, clock, &app.metrics.billing).await;
    job.expect("a job").expect("a Stripe")
}

impl World {
    async fn new(seed: u64) -> Self {
        let clock = Clock::manual(Timestamp::from_micros(START));
        let standin = standin(clock.clone()).await;
        let gateway = stripe::billing(&clock, &standin)
            .set("billing.credit_price", "0.25")
            // What fails is tried again in another round: no time of the wall passes in between.
            .set("billing.attempts", 1)
            .set("billing.export_every_ms", 3_600_000)
            .start()
            .await;
        let app = &gateway.app;
        stripe::set_up(&gateway, &clock).await;
        let shop = Shop { db: &app.db, clock: &clock };
        let tools = json!([{ "name": "work", "server": "lab", "per_call": "0.25" }]);
        shop.publish("usage", json!({ "kind": "usage", "tools": tools })).await;
        let key = shop.customer("usage").await;
        clock.advance(Duration::from_secs(1));
        let mut dice = Dice(seed);
        let lag = [0, 1, 6, 24][usize::try_from(dice.below(4)).expect("small")];
        standin.set_summary_lag(HOUR * lag);
        let client = Modern::new(&gateway, &key);
        let reply = client.call("work", json!({ "id": "1" })).await;
        assert_eq!(reply.result()["isError"], false, "{}", reply.text);
        clock.advance(60 * Duration::from_secs(5));
        let owed = "select cast(coalesce(sum(overage_used), 0) as bigint) from periods";
        eventually("the call is owed", async || {
            rows(gateway.database_url(), owed).await[0][0] == PRICE.to_string()
        })
        .await;
        let job = process(&gateway, &clock).await;
        Self { clock, standin, gateway, dice, owed: PRICE, job }
    }

    /// A round of the process, which may die in it. What goes wrong at Stripe is no matter here.
    async fn round(&mut self, dies_after: Option<u64>) {
        let ended = {
            let work = pin!(self.job.export());
            Dies { work, looks: dies_after.unwrap_or(u64::MAX) }.await
        };
        if ended.is_none() {
            self.job = process(&self.gateway, &self.clock).await;
        }
    }

    /// So much more is owed, as if calls had been made and their slabs closed.
    async fn owe(&mut self, micros: i64) {
        let sql = format!("update periods set overage_used = overage_used + {micros} returning overage_used");
        self.owed = rows(self.gateway.database_url(), &sql).await[0][0].parse().expect("a number");
    }

    async fn number(&self, sql: &str) -> i64 {
        rows(self.gateway.database_url(), sql).await[0][0].parse().expect("a number")
    }

    async fn meter(&self) -> String {
        let request = gateway::client().get(format!("{}/v1/billing/meters", self.standin.base_url()));
        let answer = request.bearer_auth(SECRET_KEY).send().await.expect("an answer");
        let meters: Value = serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON");
        meters["data"][0]["id"].as_str().expect("a meter").to_owned()
    }

    /// Some hours of use in which things go wrong, and maybe a long outage.
    async fn troubled(&mut self) {
        let outage = (self.dice.below(4) == 0).then(|| self.dice.below(20));
        for step in 0..20 {
            let micros = i64::try_from(self.dice.below(4_000_000)).expect("small");
            if micros < 3_000_000 {
                self.owe(micros + 1).await;
            }
            self.clock.advance(Duration::from_secs(60 + self.dice.below(1200)));
            if self.dice.below(2) == 0 {
                let fault = self.dice.fault();
                self.standin.fault(fault);
            }
            if outage == Some(step) {
                self.standin.fault(Fault::new(Trouble::Reset).times(u32::MAX));
                for _ in 0..self.dice.below(50) {
                    self.clock.advance(HOUR);
                    self.round(None).await;
                }
                self.standin.clear_faults();
            }
            let dies_after = (self.dice.below(3) == 0).then(|| self.dice.below(150));
            self.round(dies_after).await;
        }
        self.standin.clear_faults();
    }

    /// Everything works again; rounds until nothing is under way. Whether that came to be.
    async fn rests(&mut self) -> bool {
        let waiting = "select count(*) from exports where state in ('open', 'sent')";
        for _ in 0..160 {
            self.round(None).await;
            self.clock.advance(HOUR);
            if self.number(waiting).await > 0 {
                continue;
            }
            let mut verdicts = Vec::new();
            let compared = self.job.reconcile(None, |proof| verdicts.push(proof.verdict)).await;
            compared.expect("proofs");
            if verdicts.iter().all(|verdict| *verdict == Verdict::Equal) {
                return true;
            }
        }
        false
    }
}

async fn schedules(story: u64) {
    let engine = u64::from(crate::support::services::variable("WEIR_TEST_POSTGRES").is_some());
    for number in 0..SCHEDULES {
        let seed = (engine * 8 + story) * 1000 + number;
        let mut world = World::new(seed).await;
        Box::pin(world.troubled()).await;
        assert!(Box::pin(world.rests()).await, "schedule {seed} does not come to rest");
        let customer = "select customer from billing_customers";
        let customer = rows(world.gateway.database_url(), customer).await[0][0].clone();
        let billed = world.standin.total(&world.meter().await, &customer, 0, i64::MAX);
        let verified =
            "select cast(coalesce(sum(counted), 0) as bigint) from exports where state = 'verified'";
        let owed = world.owed;
        assert_eq!((billed, world.number(verified).await), (owed, owed), "schedule {seed}");
        let drifted = "select count(*) from exports where state = 'frozen' and counted <> 0";
        assert_eq!(world.number(drifted).await, 0, "schedule {seed}");
    }
}

#[tokio::test]
async fn the_first_twenty_come_to_rest_exactly() {
    schedules(0).await;
}

#[tokio::test]
async fn the_second_twenty_come_to_rest_exactly() {
    schedules(1).await;
}

#[tokio::test]
async fn the_third_twenty_come_to_rest_exactly() {
    schedules(2).await;
}

#[tokio::test]
async fn the_fourth_twenty_come_to_rest_exactly() {
    schedules(3).await;
}

#[tokio::test]
async fn the_fifth_twenty_come_to_rest_exactly() {
    schedules(4).await;
}

#[tokio::test]
async fn the_sixth_twenty_come_to_rest_exactly() {
    schedules(5).await;
}

#[tokio::test]
async fn the_seventh_twenty_come_to_rest_exactly() {
    schedules(6).await;
}

#[tokio::test]
async fn the_last_twenty_come_to_rest_exactly() {
    schedules(7).await;
}

//! Whatever the provider does, it counts in the end what the ledger says. Made-up schedules, the same at every run.

mod edges;
mod provider;
mod rules;

use std::fmt::Write as _;
use std::time::Duration;

use super::*;
use crate::accounts::{self, Period, standing};
use crate::audit::Actor;
use crate::clock::Clock;
use crate::db::testing::{self, on_every_engine};
use crate::db::{self, Db, Page};
use crate::id::{ExportId, ReplicaId, TenantId};
use crate::{prices, tenants};
use provider::{Dice, Provider};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const CANARY: &str = "cus_canary";

/// Tenants that owe, and the processes that tell the provider.
struct World {
    db: Db,
    clock: Clock,
    provider: Provider,
    tenants: Vec<(TenantId, String)>,
    dice: Dice,
}

impl World {
    /// On 11 November 2026 at noon.
    async fn new(db: &Db, seed: u64, lag: Duration) -> Self {
        let start = "2026-11-11T12:00:00Z".parse::<jiff::Timestamp>().expect("an instant");
        let clock = Clock::manual(start.into());
        let provider = Provider::new(&clock, seed, lag);
        let terms = serde_json::from_str(r#"{"kind": "usage"}"#).expect("terms");
        let plan = "usage".parse().expect("a name");
        // Another schedule may have published them.
        let _ = prices::publish(db, &clock, Actor::Cli, &plan, &terms, (None, Duration::ZERO)).await;
        testing::execute(db, "delete from canaries").await;
        let mut all = Vec::new();
        for _ in 0..2 {
            let name = TenantId::new().to_string();
            let tenant = tenants::create(db, &clock, Actor::Cli, &name).await.expect("a tenant").id;
            Box::pin(tenants::set_plan(db, &clock, Actor::Cli, tenant, &plan, Duration::ZERO))
                .await
                .expect("a plan");
            Box::pin(standing(db, tenant, clock.now())).await.expect("a standing").current.expect("a period");
            let customer = format!("cus_{tenant}");
            assert!(
                db::exports::insert_customer(db, tenant, &customer, clock.now()).await.expect("a customer")
            );
            all.push((tenant, customer));
        }
        Self { db: db.clone(), clock, provider, tenants: all, dice: Dice::new(seed + 1) }
    }

    fn exporter(&self) -> Exporter<Provider> {
        let holder = ReplicaId::new().to_string();
        let rules = Rules { grace: HOUR, canary: CANARY.to_owned(), holder };
        Exporter::new(self.db.clone(), self.clock.clone(), self.provider.clone(), rules)
    }

    async fn current(&self, tenant: TenantId) -> Period {
        Box::pin(standing(&self.db, tenant, self.clock.now()))
            .await
            .expect("a standing")
            .current
            .expect("a period")
    }

    /// All of them; the current one is opened.
    async fn periods(&self, tenant: TenantId) -> Vec<Period> {
        self.current(tenant).await;
        accounts::periods(&self.db, tenant, Page::first(100)).await.expect("periods").rows
    }

    /// The tenant owes so much more.
    async fn owes(&self, tenant: TenantId, micros: i64) {
        let period = self.current(tenant).await.id;
        let sql = format!("update periods set overage_used = overage_used + {micros} where id = '{period}'");
        testing::execute(&self.db, &sql).await;
    }

    /// A round, unless the process dies in it.
    async fn round(&self, exporter: &Exporter<Provider>) -> Round {
        tokio::select! {
            biased;
            round = exporter.round() => round.expect("a round"),
            () = self.provider.crash.notified() => Round::default(),
        }
    }

    async fn number(&self, sql: &str) -> i64 {
        let ids = self.tenants.iter().fold(String::new(), |mut ids, (tenant, _)| {
            let _ = write!(ids, "{}'{tenant}'", if ids.is_empty() { "" } else { ", " });
            ids
        });
        testing::number(&self.db, &format!("{sql} tenant_id in ({ids})")).await
    }

    /// Whether nothing is under way any more.
    async fn rests(&self) -> bool {
        self.number("select count(*) from exports where state in ('open', 'sent') and").await == 0
            && self.verdicts().await.iter().all(|verdict| *verdict == Verdict::Equal)
    }

    async fn verdicts(&self) -> Vec<Verdict> {
        let exporter = self.exporter();
        let mut verdicts = Vec::new();
        for (tenant, _) in &self.tenants {
            for period in self.periods(*tenant).await {
                verdicts
                    .push(exporter.reconcile(period.id).await.expect("a proof").expect("a period").verdict);
            }
        }
        verdicts
    }

    /// Two processes, of which now and then one dies, while tenants use tools for some hours; then time passes. What
    /// happened, and whether it came to rest.
    async fn run(&mut self) -> (Round, bool) {
        let mut all = Round::default();
        let mut exporters = [self.exporter(), self.exporter()];
        for step in 0..700 {
            let used = step < 24;
            let wait = if used { 60 + self.dice.below(1200) } else { 1800 };
            self.clock.advance(Duration::from_secs(wait));
            for place in 0..self.tenants.len() {
                if used && self.dice.below(3) > 0 {
                    let micros = i64::try_from(self.dice.below(9_000_000)).expect("small") + 1;
                    self.owes(self.tenants[place].0, micros).await;
                }
            }
            let turn = usize::from(self.dice.below(2) == 1);
            let round = self.round(&exporters[turn]).await;
            if self.dice.below(20) == 0 {
                exporters[turn] = self.exporter();
            }
            all.begun += round.begun;
            all.sent += round.sent;
            all.drifted += round.drifted;
            all.refused += round.refused;
            if !used && step % 8 == 0 && self.rests().await {
                return (all, true);
            }
        }
        (all, false)
    }

    async fn is_exact(&self) {
        for (tenant, customer) in &self.tenants {
            let owed: Credits = self.periods(*tenant).await.iter().map(|period| period.overage_used).sum();
            assert_eq!(self.provider.total(customer), owed, "{tenant}");
        }
    }
}

#[tokio::test]
async fn the_provider_counts_what_the_ledger_says() {
    on_every_engine(async |db| {
        let mut anew = 0;
        for seed in 0..6 {
            let lag = [Duration::ZERO, HOUR, 6 * HOUR, 24 * HOUR][usize::try_from(seed % 4).expect("small")];
            let mut world = World::new(&db, seed, lag).await;
            let (all, rested) = Box::pin(world.run()).await;
            assert!(rested, "seed {seed}");
            world.is_exact().await;
            assert_eq!(all.drifted, 0, "seed {seed}");
            assert!(all.sent >= all.begun && all.begun > 0, "seed {seed}: {all:?}");
            anew += world.number("select count(*) from exports where generation > 1 and").await;
        }
        assert!(anew > 0, "some events were lost and sent anew");
    })
    .await;
}

/// Sums that come later than anybody would think: what is counted twice is found, reported, and taken back.
#[tokio::test]
async fn what_is_counted_too_late_is_found_and_taken_back() {
    on_every_engine(async |db| {
        let mut doubled = 0;
        for seed in 100..103 {
            let mut world = World::new(&db, seed, 80 * HOUR).await;
            let (all, _) = Box::pin(world.run()).await;
            world.provider.state().is_well = true;
            world.clock.advance(90 * HOUR);
            let mut alarms = all.drifted;
            for _ in 0..200 {
                let verdicts = world.verdicts().await;
                alarms += verdicts
                    .iter()
                    .filter(|verdict| matches!(verdict, Verdict::Extra | Verdict::Missing))
                    .count();
                if verdicts.iter().all(|verdict| *verdict == Verdict::Equal) {
                    break;
                }
                let round = world.round(&world.exporter()).await;
                alarms += round.drifted;
                world.clock.advance(Duration::from_secs(1800));
            }
            world.is_exact().await;
            let twice = world
                .number("select count(*) from exports where state = 'frozen' and counted <> 0 and")
                .await;
            assert!(twice == 0 || alarms > 0, "seed {seed}: {twice} slots counted twice without an alarm");
            doubled += twice;
        }
        assert!(doubled > 0, "some events were counted twice");
    })
    .await;
}

#[tokio::test]
async fn what_is_found_after_the_invoice_is_told_in_the_next_period() {
    on_every_engine(async |db| {
        let world = World::new(&db, 7, Duration::ZERO).await;
        world.provider.state().is_well = true;
        let (tenant, customer) = world.tenants[0].clone();
        let first = world.current(tenant).await;
        world.owes(tenant, 5_000_000).await;
        world.clock.advance(DAY);
        let exporter = world.exporter();
        assert_eq!(world.round(&exporter).await.begun, 1);
        // Within the grace the slot is one of the period itself; after it, one of the next.
        for (late, expected) in [(Duration::from_secs(1800), first.id), (2 * HOUR, first.id)] {
            let at = first.ends_at.plus(late);
            world.clock.advance(Duration::from_micros(
                u64::try_from(at.as_micros() - world.clock.now().as_micros()).expect("later"),
            ));
            let sql = format!("update periods set overage_used = overage_used + 7 where id = '{}'", first.id);
            testing::execute(&db, &sql).await;
            // Somebody has opened what follows.
            world.current(tenant).await;
            world.round(&exporter).await;
            let export = newest(&db, tenant, world.clock.now()).await;
            assert_eq!((export.period_id, export.credits.micros()), (expected, 7));
            assert_eq!(export.slot < first.ends_at, late < HOUR, "{late:?}");
        }
        assert_eq!(world.provider.total(&customer), Credits::from_micros(5_000_014));
        world.clock.advance(HOUR);
        world.round(&exporter).await;
        for period in [first.id, world.current(tenant).await.id] {
            let proof = exporter.reconcile(period).await.expect("a proof").expect("a period");
            assert_eq!(proof.verdict, Verdict::Equal, "{proof:?}");
        }
    })
    .await;
}

/// The export of a tenant with the newest slot.
async fn newest(db: &Db, tenant: TenantId, now: Timestamp) -> Export {
    let far = now.plus(400 * DAY);
    let open = db::exports::of_tenant(db, tenant, far, 100).await.expect("exports");
    let proven =
        db::proofs::proven(db, tenant, (Timestamp::from_micros(0), far), 100).await.expect("exports");
    open.into_iter().chain(proven).max_by_key(|export| export.id).expect("an export")
}

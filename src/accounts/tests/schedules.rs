//! Whatever happens in whatever order, the sums are right. Made-up schedules, the same at every run.

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::accounts::cycle;

const SCHEDULES: usize = 24;
/// Steps between looks at every sum.
const EVERY: usize = 12;
const PLANS: [&str; 7] = ["free", "pro", "like-pro", "usage", "prepaid", "anchored", "default"];

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Plan(usize),
    Give { prepaid: bool, micros: i64, days: Option<u32> },
    Void(usize),
    Lease { from: usize, micros: i64 },
    Spend { slab: usize, micros: i64 },
    Close(usize),
    Cap(Option<i64>),
    Look,
    Keep,
}

fn step() -> impl Strategy<Value = Step> {
    let micros = || prop_oneof![1..10_i64, 1..400_000_000_i64];
    prop_oneof![
        3 => prop_oneof![1..10_u64, 1..100_000_u64, 1..8_000_000_u64].prop_map(Step::Wait),
        2 => (0..PLANS.len()).prop_map(Step::Plan),
        2 => (any::<bool>(), micros(), prop::option::of(1..60_u32))
            .prop_map(|(prepaid, micros, days)| Step::Give { prepaid, micros, days }),
        1 => (0..8_usize).prop_map(Step::Void),
        4 => (0..8_usize, micros()).prop_map(|(from, micros)| Step::Lease { from, micros }),
        4 => (0..8_usize, micros()).prop_map(|(slab, micros)| Step::Spend { slab, micros }),
        3 => (0..8_usize).prop_map(Step::Close),
        1 => prop::option::of(0..200_000_000_i64).prop_map(Step::Cap),
        2 => Just(Step::Look),
        2 => Just(Step::Keep),
    ]
}

/// A schedule under way.
struct Run {
    world: World,
    slabs: Vec<SlabId>,
    /// When the tenant came to a plan without prices.
    unpriced: Vec<Timestamp>,
}

impl Run {
    async fn step(&mut self, step: &Step) {
        let world = &self.world;
        let (db, clock, tenant, now) = (&world.db, &world.clock, world.tenant, world.now());
        match *step {
            Step::Wait(seconds) => clock.advance(Duration::from_secs(seconds)),
            Step::Plan(plan) => {
                world.on(PLANS[plan]).await;
                if PLANS[plan] == "default" {
                    self.unpriced.push(now);
                }
            }
            Step::Give { prepaid, micros, days } => {
                let kind = if prepaid { GrantKind::Prepaid } else { GrantKind::Promotional };
                let amount = Credits::from_micros(micros).to_string();
                world.give(kind, &amount, days.map(|days| now.plus(DAY * days))).await;
            }
            Step::Void(which) => {
                if let Some(grant) = world.grants().await.iter().rev().nth(which) {
                    grants::void(db, clock, Actor::Cli, tenant, grant.id).await.expect("voided");
                }
            }
            Step::Lease { from, micros } => {
                let Some(period) = world.standing().await.current else { return };
                let mut tx = db.begin().await.expect("a transaction");
                let free = db::slabs::free_grants(&mut tx, tenant, now).await.expect("grants");
                tx.commit().await.expect("committed");
                let grant = free.get(from).map(|grant| grant.id);
                let leased = testing::lease(db, &period, grant, Credits::from_micros(micros), now).await;
                self.slabs.extend(leased);
            }
            Step::Spend { slab, micros } => {
                if let Some(slab) = self.slabs.get(slab) {
                    testing::spend(db, *slab, Credits::from_micros(micros)).await;
                }
            }
            Step::Close(slab) => {
                if slab < self.slabs.len() {
                    let slab = self.slabs.remove(slab);
                    self.world.close(slab).await;
                }
            }
            Step::Cap(cap) => {
                let cap = cap.map(Credits::from_micros);
                Box::pin(set_spend_cap(db, clock, Actor::Cli, tenant, cap)).await.expect("a cap");
            }
            Step::Look => drop(world.standing().await),
            Step::Keep => drop(world.keep().await),
        }
    }

    async fn check(&self) -> Result<(), String> {
        let world = &self.world;
        let (periods, grants) = (world.periods().await, world.grants().await);
        for pair in periods.windows(2) {
            let (end, start) = (pair[0].ends_at, pair[1].starts_at);
            // Changes at one instant take effect a microsecond after one another.
            let lead = LEAD + Duration::from_millis(1);
            let away = self.unpriced.iter().any(|at| at.plus(lead) >= end && *at <= start);
            if end > start || (end < start && !away) {
                return Err(format!("{} and {} are not contiguous", pair[0].id, pair[1].id));
            }
        }
        for grant in &grants {
            let booked = testing::booked(&world.db, Some(grant.id), None).await;
            let parts = grant.remaining() + grant.used + grant.used_open + grant.expired + grant.voided;
            let is_right = grant.remaining() >= Credits::ZERO
                && grant.used_open <= grant.leased
                && parts == grant.granted
                && booked == grant.used;
            if !is_right {
                return Err(format!("{grant:?}: booked {booked}"));
            }
        }
        for period in &periods {
            let booked = testing::booked(&world.db, None, Some(period.id)).await;
            let source = format!("period:{}", period.id);
            let given: Vec<_> = grants.iter().filter(|grant| grant.source == source).collect();
            if booked != period.overage_used || given.len() > 1 {
                return Err(format!("{period:?}: booked {booked}, given {given:?}"));
            }
            let left = given.iter().map(|grant| grant.remaining()).sum::<Credits>();
            if period.closed_at.is_some() && (left.is_positive() || period.overage_leased.is_positive()) {
                return Err(format!("{period:?}: closed with {left} left"));
            }
        }
        self.check_included(&periods, &grants).await
    }

    /// The included credits of a cycle are never more than the most that a plan includes.
    async fn check_included(&self, periods: &[Period], grants: &[Grant]) -> Result<(), String> {
        let account = db::accounts::get(&self.world.db, self.world.tenant).await.expect("an answer");
        let Some(account) = account else { return Ok(()) };
        for period in periods {
            let whole = cycle::containing(account.cycle, account.anchor_at, period.starts_at);
            let mine = |p: &&Period| whole.contains(&p.starts_at);
            let sources: Vec<_> = periods.iter().filter(mine).map(|p| format!("period:{}", p.id)).collect();
            let used = grants.iter().filter(|grant| sources.contains(&grant.source));
            let used: Credits = used.map(|grant| grant.granted - grant.expired - grant.voided).sum();
            if used > credits("300") || period.ends_at > whole.end {
                return Err(format!("{whole:?}: {used} in {} periods", sources.len()));
            }
        }
        Ok(())
    }

    /// Two months later, when everything has come back.
    async fn finish(&mut self) -> Result<(), String> {
        for slab in std::mem::take(&mut self.slabs) {
            self.world.close(slab).await;
        }
        self.world.clock.advance(DAY * 62);
        for _ in 0..5 {
            self.world.keep().await;
        }
        let now = self.world.now();
        let open = self.world.periods().await.into_iter().find(|p| p.ends_at <= now && p.closed_at.is_none());
        let left = self
            .world
            .grants()
            .await
            .into_iter()
            .find(|grant| grant.expires_at.is_some_and(|at| at <= now) && !grant.remaining().is_zero());
        match (open, left) {
            (None, None) => self.check().await,
            (open, left) => Err(format!("open {open:?}, left {left:?}")),
        }
    }
}

#[tokio::test]
async fn any_schedule_keeps_the_sums_right() {
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let strategy = prop::collection::vec(step(), 5..60);
    let schedules: Vec<Vec<Step>> =
        (0..SCHEDULES).map(|_| strategy.new_tree(&mut runner).expect("a schedule").current()).collect();
    on_every_engine(async |db| {
        let clock = World::new(&db).await.clock;
        for schedule in &schedules {
            let mut run = Run {
                world: World::tenant(&db, &clock).await,
                slabs: Vec::new(),
                unpriced: vec![clock.now()],
            };
            let mut done = String::new();
            for (number, step) in schedule.iter().enumerate() {
                let _ = writeln!(done, "{} {step:?}", run.world.now());
                run.step(step).await;
                if number % EVERY == EVERY - 1
                    && let Err(wrong) = run.check().await
                {
                    panic!("{wrong}, after\n{done}");
                }
            }
            if let Err(wrong) = run.finish().await {
                panic!("{wrong}, at the end of\n{done}");
            }
            // So that the next one does not keep this one's account as well.
            tenants::delete(&db, &clock, Actor::Cli, run.world.tenant).await.expect("deleted");
        }
    })
    .await;
}

//! An account follows a subscription.

use super::super::{Access, Wanted, follow};
use super::*;
use crate::audit::By;
use crate::limits::PlanLimits;

impl World {
    async fn follow(&self, wanted: Wanted) -> bool {
        let by = By { actor: Actor::Billing, at: self.now() };
        let mut tx = self.db.begin().await.expect("a transaction");
        let row = db::tenants::lock(&mut tx, self.tenant).await.expect("a row").expect("a tenant");
        let account = db::accounts::lock_or_make(&mut tx, self.tenant, self.now()).await;
        let mut account = account.expect("an account");
        let done = Box::pin(follow(&mut tx, (&row, &mut account), by, &wanted, LEAD));
        let changed = done.await.expect("followed");
        if changed {
            tx.commit().await.expect("committed");
        }
        changed
    }

    async fn account(&self) -> Account {
        db::accounts::get(&self.db, self.tenant).await.expect("a row").expect("an account")
    }

    async fn plan(&self) -> String {
        tenants::get(&self.db, self.tenant).await.expect("a tenant").plan
    }
}

fn subscribed(plan: &str, anchor: Timestamp) -> Wanted {
    Wanted {
        plan: Some(name(plan)),
        anchor: Some(anchor),
        is_paid: true,
        next: Some(None),
        access: Some(Access::Open),
        subscription: Some(Some("sub_1".to_owned())),
    }
}

#[tokio::test]
async fn who_pays_for_a_month_has_all_of_it_and_its_months_are_those_of_the_invoices() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        world.on("free").await;
        let free = world.current().await;
        // Paid a moment ago; Stripe counts whole seconds.
        let anchor = at("2026-11-11T12:00:00Z");
        world.clock.advance(Duration::from_millis(2_345));
        assert!(world.follow(subscribed("pro", anchor)).await);
        assert!(!world.follow(subscribed("pro", anchor)).await, "it is so already");
        world.clock.advance(LEAD);
        let period = world.current().await;
        assert_eq!((period.plan.as_str(), period.ends_at), ("pro", at("2026-12-11T12:00:00Z")));
        assert_eq!(world.included(&period).await.granted, credits("300"));
        let before = world.periods().await.remove(0);
        assert_eq!((before.id, before.ends_at), (free.id, period.starts_at), "without a gap");
        assert_eq!(world.plan().await, "pro");
        world.clock.advance(31 * DAY);
        let next = world.current().await;
        assert_eq!((next.starts_at, next.ends_at), (period.ends_at, at("2027-01-11T12:00:00Z")));
        assert_eq!(world.included(&next).await.granted, credits("300"));
    })
    .await;
}

#[tokio::test]
async fn who_was_on_no_plan_with_prices_begins_at_once() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        assert!(world.follow(subscribed("pro", world.now())).await);
        let period = world.current().await;
        assert_eq!((period.starts_at, period.ends_at), (world.now(), at("2026-12-11T12:00:00Z")));
        assert_eq!(world.included(&period).await.granted, credits("300"));
    })
    .await;
}

#[tokio::test]
async fn a_trial_is_a_part_of_a_month_and_the_first_whole_one_follows() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        world.on("free").await;
        let end = world.now().plus(14 * DAY);
        let trial = Wanted { is_paid: false, access: Some(Access::Trial), ..subscribed("pro", end) };
        assert!(world.follow(trial).await);
        world.clock.advance(LEAD);
        let period = world.current().await;
        assert_eq!((period.plan.as_str(), period.ends_at), ("pro", end));
        let share = world.included(&period).await.granted;
        assert!(share > credits("130") && share < credits("150"), "{share}");
        world.clock.advance(14 * DAY);
        assert_eq!(world.account().await.access, Access::Trial);
        let first = world.current().await;
        assert_eq!((first.starts_at, first.ends_at), (end, at("2026-12-25T12:00:00Z")));
        assert_eq!(world.included(&first).await.granted, credits("300"));
    })
    .await;
}

#[tokio::test]
async fn a_plan_that_follows_begins_where_the_last_period_ended_whoever_looks_first() {
    on_every_engine(async |db| {
        for keeps in [false, true] {
            let world = World::new(&db).await;
            assert!(world.follow(subscribed("pro", world.now())).await);
            let end = world.current().await.ends_at;
            let cancelled = Wanted {
                next: Some(Some((name("free"), end))),
                is_paid: false,
                ..subscribed("pro", world.now())
            };
            assert!(world.follow(cancelled.clone()).await);
            assert!(!world.follow(cancelled).await);
            world.clock.advance(29 * DAY);
            assert_eq!((world.current().await.plan, world.plan().await), (name("pro"), "pro".to_owned()));
            // Three months and a day in which nobody came.
            world.clock.advance(92 * DAY);
            if keeps {
                Box::pin(keep(&world.db, &world.clock)).await.expect("kept");
            }
            let current = world.current().await;
            assert_eq!((current.plan, world.plan().await), (name("free"), "free".to_owned()));
            let periods = world.periods().await;
            assert!(periods.windows(2).all(|pair| pair[0].ends_at == pair[1].starts_at));
            let plans: Vec<_> = periods.iter().map(|period| period.plan.as_str()).collect();
            assert_eq!(plans, ["pro", "free", "free", "free", "free"]);
            assert_eq!(world.account().await.next_plan, None);
        }
    })
    .await;
}

#[tokio::test]
async fn news_that_comes_late_changes_nothing_of_when_it_began() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        assert!(world.follow(subscribed("pro", world.now())).await);
        let end = world.current().await.ends_at;
        let next = Some(Some((name("like-pro"), end)));
        assert!(world.follow(Wanted { next, ..subscribed("pro", world.now()) }).await);
        // A minute into the new month, before anybody called.
        let anchor = world.now();
        world.clock.advance(30 * DAY + Duration::from_secs(60));
        assert!(world.follow(subscribed("like-pro", anchor)).await);
        assert!(!world.follow(subscribed("like-pro", anchor)).await);
        let periods = world.periods().await;
        let begins: Vec<_> = periods.iter().map(|it| (it.plan.as_str(), it.starts_at)).collect();
        assert_eq!(begins, [("pro", anchor), ("like-pro", end)]);
        assert_eq!(world.included(&periods[1]).await.granted, credits("300"));
    })
    .await;
}

#[tokio::test]
async fn a_trial_is_a_part_of_a_month_also_for_whom_it_is_the_first() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        let end = world.now().plus(14 * DAY);
        let trial = Wanted { is_paid: false, access: Some(Access::Trial), ..subscribed("pro", end) };
        assert!(world.follow(trial).await);
        // Nobody calls for two days.
        world.clock.advance(2 * DAY);
        let period = world.current().await;
        assert_eq!((period.plan.as_str(), period.ends_at), ("pro", end));
        let share = world.included(&period).await.granted;
        assert!(share > credits("130") && share < credits("150"), "{share}");
        let account = world.account().await;
        assert_eq!((account.cycle, account.anchor_at), (prices::Cycle::Anchored, end));

        // Prices that are published when the subscription is there begin no other months either.
        let world = World::tenant(&db, &world.clock).await;
        let (plan, end) = (name(&format!("late-{}", world.now().as_seconds())), world.now().plus(14 * DAY));
        crate::plans::put(&db, &world.clock, Actor::Cli, &plan, &PlanLimits::default())
            .await
            .expect("a plan");
        assert!(world.follow(Wanted { is_paid: false, ..subscribed(plan.as_str(), end) }).await);
        let terms = serde_json::from_str(r#"{"kind": "hybrid", "included": "300"}"#).expect("terms");
        let when = (None, Duration::ZERO);
        prices::publish(&db, &world.clock, Actor::Cli, &plan, &terms, when).await.expect("prices");
        world.clock.advance(DAY);
        let period = world.current().await;
        assert_eq!(period.ends_at, end);
        assert!(world.included(&period).await.granted < credits("150"));
    })
    .await;
}

#[tokio::test]
async fn what_ends_within_a_month_ends_then() {
    on_every_engine(async |db| {
        for has_ended in [false, true] {
            let world = World::new(&db).await;
            assert!(world.follow(subscribed("pro", world.now())).await);
            let (anchor, end) = (world.now(), world.now().plus(10 * DAY));
            let next = Some(Some((name("free"), end)));
            assert!(world.follow(Wanted { next, ..subscribed("pro", anchor) }).await);
            world.clock.advance(9 * DAY);
            assert_eq!(world.current().await.plan.as_str(), "pro");
            world.clock.advance(DAY);
            let ended = Wanted {
                plan: Some(name("free")),
                next: Some(None),
                subscription: has_ended.then_some(None),
                ..Wanted::default()
            };
            assert!(world.follow(ended.clone()).await);
            assert!(!world.follow(ended).await);
            world.clock.advance(2 * LEAD);
            let periods = world.periods().await;
            let begins: Vec<_> = periods.iter().map(|it| (it.plan.as_str(), it.starts_at)).collect();
            assert_eq!(begins, [("pro", anchor), ("free", end.plus(LEAD))]);
            let first = world.included(&periods[0]).await;
            assert!(first.granted - first.voided <= credits("100.1"), "a third of a month");
            assert_eq!(world.plan().await, "free");
        }
    })
    .await;
}

#[tokio::test]
async fn a_plan_that_is_gone_when_it_is_to_follow_is_the_default_one() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        let plan = name("soon");
        crate::plans::put(&db, &world.clock, Actor::Cli, &plan, &PlanLimits::default())
            .await
            .expect("a plan");
        assert!(world.follow(subscribed("pro", world.now())).await);
        let next = Some(Some((plan.clone(), world.current().await.ends_at)));
        assert!(world.follow(Wanted { next, ..subscribed("pro", world.now()) }).await);
        let refused = crate::plans::delete(&db, &world.clock, Actor::Cli, &plan).await;
        assert!(matches!(refused, Err(Error::Conflict(text)) if text.contains("1 tenants will be")));
        testing::execute(&db, "delete from plans where name = 'soon'").await;
        world.clock.advance(31 * DAY);
        world.keep().await;
        assert_eq!(world.plan().await, "default");
        assert_eq!(world.account().await.next_plan, None);
    })
    .await;
}

#[tokio::test]
async fn there_is_nothing_to_follow_to() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        let by = By { actor: Actor::Billing, at: world.now() };
        let mut tx = db.begin().await.expect("a transaction");
        let row = db::tenants::lock(&mut tx, world.tenant).await.expect("a row").expect("a tenant");
        let mut account =
            db::accounts::lock_or_make(&mut tx, world.tenant, world.now()).await.expect("an account");
        let gone = subscribed("gone", world.now());
        let refused = Box::pin(follow(&mut tx, (&row, &mut account), by, &gone, LEAD)).await;
        assert!(matches!(refused, Err(Error::Invalid(_))));
    })
    .await;
}

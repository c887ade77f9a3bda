//! The end of periods, and events.

use super::*;

const NOVEMBER_IS_OVER: &str = "2026-12-01T00:00:00Z";

impl World {
    fn wait_until(&self, instant: &str) {
        let micros = at(instant).as_micros() - self.now().as_micros();
        self.clock.advance(Duration::from_micros(micros.unsigned_abs()));
    }

    async fn note(&self, period: &Period) -> Vec<EventKind> {
        let mut tx = self.db.begin().await.expect("a transaction");
        let made = events::note(&mut tx, period.id, self.now()).await.expect("events");
        tx.commit().await.expect("a commit");
        made.into_iter().map(|event| event.kind).collect()
    }
}

#[tokio::test]
async fn what_a_grant_could_have_paid_is_not_owed() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        let promo = world.give(GrantKind::Promotional, "8", None).await;
        world.on("pro").await;
        world.clock.advance(Duration::from_secs(1));
        let period = world.current().await;
        let included = world.included(&period).await;
        world.clock.advance(Duration::from_secs(1));
        let late = world.give(GrantKind::Prepaid, "1000", None).await;
        // One process holds the included credits while another one owes.
        let held = world.lease(&period, Some(&included), "300").await;
        assert!(testing::spend(&db, held, credits("290")).await);
        world.spend(&period, None, "30").await;
        world.wait_until(NOVEMBER_IS_OVER);
        assert_eq!(world.keep().await.closed, 0, "a process still holds credits");
        world.close(held).await;
        assert_eq!(world.included(&period).await.expired, credits("10"));
        assert_eq!(world.keep().await.closed, 1);
        let grant = world.included(&period).await;
        assert_eq!((grant.used, grant.expired), (credits("300"), Credits::ZERO));
        assert_eq!(world.grant(&promo).await.used, credits("8"));
        assert_eq!(world.grant(&late).await.used, Credits::ZERO, "came later");
        let periods = world.periods().await;
        assert_eq!((periods.len(), periods[0].overage_used), (2, credits("12")));
        assert_eq!(testing::booked(&db, None, Some(period.id)).await, credits("12"));
        assert_eq!(testing::booked(&db, Some(grant.id), None).await, credits("300"));
        assert_eq!(world.keep().await.closed, 0);
    })
    .await;
}

#[tokio::test]
async fn what_was_taken_back_at_a_change_of_plan_pays_nothing() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        world.on("pro").await;
        let period = world.current().await;
        world.spend(&period, None, "30").await;
        world.on("usage").await;
        world.clock.advance(LEAD);
        world.keep().await;
        let grant = world.included(&period).await;
        let share = credits("300").share(5, 30 * 86_400);
        assert_eq!((grant.granted - grant.voided, grant.used), (share, share));
        assert_eq!(world.periods().await[0].overage_used, credits("30") - share);
    })
    .await;
}

#[tokio::test]
async fn each_mark_is_noted_once() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        world.on("pro").await;
        let period = world.current().await;
        let included = world.included(&period).await;
        assert!(world.note(&period).await.is_empty());
        world.spend(&period, Some(&included), "100").await;
        let slab = world.lease(&period, Some(&included), "200").await;
        assert!(testing::spend(&db, slab, credits("139.999999")).await);
        assert!(world.note(&period).await.is_empty());
        assert!(testing::spend(&db, slab, credits("0.000001")).await);
        assert_eq!(world.note(&period).await, [EventKind::Included80]);
        assert!(testing::spend(&db, slab, credits("60")).await);
        assert_eq!(world.note(&period).await, [EventKind::Included100]);
        world.close(slab).await;
        assert!(world.note(&period).await.is_empty());
        let slab = world.lease(&period, None, "100").await;
        assert!(testing::spend(&db, slab, credits("45")).await);
        assert_eq!(world.note(&period).await, [EventKind::SoftCap80]);
        assert!(testing::spend(&db, slab, credits("55")).await);
        let rest = [EventKind::SoftCap100, EventKind::HardCap80, EventKind::HardCap100];
        assert_eq!(world.note(&period).await, rest);
        world.close(slab).await;
        assert!(world.note(&period).await.is_empty());
        let seen = Box::pin(overview(&db, world.tenant, world.now())).await.expect("an overview");
        assert_eq!((seen.events.len(), seen.owed), (6, credits("100")));
        assert_eq!(seen.events[0].detail, r#"{"of":"300","used":"240"}"#);

        // A new period has marks of its own, and closing notes what nobody noted.
        world.wait_until(NOVEMBER_IS_OVER);
        let period = world.current().await;
        world.spend(&period, Some(&world.included(&period).await), "250").await;
        world.wait_until("2027-01-01T00:00:00Z");
        let kept = world.keep().await;
        let told: Vec<_> = kept.events.iter().map(|event| event.kind).collect();
        assert_eq!((kept.closed, told), (2, vec![EventKind::Included80]));
        assert_eq!(world.kinds().await.len(), 7);
    })
    .await;
}

#[tokio::test]
async fn old_keys_are_forgotten() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        testing::add_keys(&db, world.tenant, 3, world.now().plus(DAY)).await;
        testing::add_keys(&db, world.tenant, 450, world.now().minus(LEAD)).await;
        assert_eq!(world.keep().await.keys, 450);
        assert_eq!(testing::add_keys(&db, world.tenant, 0, world.now()).await, 3);
    })
    .await;
}
